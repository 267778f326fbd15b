/* exchange.c - from a prepared request to the last byte of its answer.
 *
 * Whatever writes to a connection may find it lost, which ends the exchange at
 * once (exchange_lost): so after a write that failed nothing of it is touched. */
#include "exchange.h"
#include "exchange_parts.h"
#include "responses_in.h"
#include "wire.h"
#include <stdio.h>
#include <stdlib.h>

#define SSE "text/event-stream; charset=utf-8"

/* ---- the end --------------------------------------------------------------------- */

static void log_end(const Exchange *x, int status, const char *how)
{
    const Job *j = x->job;
    double seconds = (double)(clock_ns() - j->accepted_ns) / 1e9;
    const Usage *u = &x->usage;
    double prompt_s = u->prompt_ms / 1e3, decode_s = u->completion_ms / 1e3;
    int fresh = u->prompt - u->cached;
    if (!x->finish) {
        server_log(x->server, "%s end: %d %s after %.2f s (%s, %d tokens)", j->turn.request_id,
                   status, how, seconds, job_stage_name(j), atomic_load(&j->generated));
        return;
    }
    server_log(x->server,
               "%s end: %d %s after %.2f s: %d prompt tokens (%d reused, %.1f/s), %d tokens "
               "(%d of thinking, %.1f/s)",
               j->turn.request_id, status, how, seconds, u->prompt, u->cached,
               prompt_s > 0 ? fresh / prompt_s : 0, u->completion, u->reasoning,
               decode_s > 0 ? u->completion / decode_s : 0);
}

void exchange_free(Exchange *x)
{
    x->job->dialect->answer_free(x->answer);
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    x->job->exchange = NULL;
    job_drop(x->job);
    bytes_release(&x->sent);
    free(x);
}

void exchange_leave(Exchange *x, int status, const char *how)
{
    const Job *j = x->job;
    log_end(x, status, how);
    metrics_request_ended(x->server->metrics, (int)j->turn.api, j->client, status,
                          (double)(clock_ns() - j->accepted_ns) / 1e9);
    trace_end(x->trace, how);
    exchange_free(x);
}

static enum CancelReason reason_of(const char *why)
{
    if (strcmp(why, "slow_client") == 0)
        return CANCEL_SLOW;
    if (strcmp(why, "shutdown") == 0)
        return CANCEL_SHUTDOWN;
    return strcmp(why, "canceled") == 0 ? CANCEL_API : CANCEL_CLIENT;
}

enum JobPhase exchange_phase(const Exchange *x)
{
    int stage = atomic_load(&x->job->stage);
    if (stage <= STAGE_QUEUED)
        return JOB_QUEUED;
    return stage == STAGE_PREFILL ? JOB_PREFILL : JOB_DECODE;
}

void exchange_count_canceled(const Exchange *x, enum JobPhase phase, const char *why)
{
    metrics_cancelled(x->server->metrics, phase, reason_of(why));
    if (strcmp(why, "slow_client") == 0)
        metrics_slow_client(x->server->metrics);
}

void exchange_give_up(Exchange *x, const char *why)
{
    Server *s = x->server;
    if (atomic_load(&x->job->stage) == STAGE_OVER)
        return;
    exchange_count_canceled(x, exchange_phase(x), why);
    job_cancel(x->job, why);
    if (s->scheduler)
        scheduler_cancel(s->scheduler, x->job);
}

void exchange_lost(void *exchange, const char *why)
{
    Exchange *x = exchange;
    if (retry_wait(x, why))
        return;
    exchange_give_up(x, why);
    exchange_leave(x, 499, why);
}

/* ---- whole replies ------------------------------------------------------------------ */

static void set_retry(HttpRequest *r, const ApiError *e)
{
    char seconds[16];
    if (e->retry_after <= 0)
        return;
    snprintf(seconds, sizeof seconds, "%d", e->retry_after);
    http_set(r, "retry-after", seconds);
}

void exchange_refuse(HttpRequest *r, const Dialect *d, const ApiError *e)
{
    Bytes body = { 0 };
    d->error(e, http_request_id(r), &body);
    set_retry(r, e);
    http_reply(r, d->status(e), "application/json", bytes_view(&body));
    bytes_release(&body);
}

void exchange_error(Exchange *x, const ApiError *e)
{
    HttpRequest *r = x->r;
    const Dialect *d = x->job->dialect;
    ApiError copy = *e;
    Bytes body = { 0 };
    d->error(e, x->job->turn.request_id, &body);
    trace_bytes(x->trace, bytes_view(&body));
    bytes_release(&body);
    exchange_leave(x, d->status(e), copy.code ? copy.code : "error");
    http_on_close(r, NULL, NULL);
    exchange_refuse(r, d, &copy);
}

static void reply(Exchange *x, Bytes *body)
{
    HttpRequest *r = x->r;
    const ApiError no_memory = { .status = 503,
                                 .type = "server_error",
                                 .code = "out_of_memory",
                                 .message = "no memory for the answer",
                                 .retry_after = 1 };
    if (body->failed) {
        exchange_error(x, &no_memory);
        return;
    }
    trace_bytes(x->trace, bytes_view(body));
    exchange_leave(x, 200, x->finish ? x->finish : "done");
    http_on_close(r, NULL, NULL);
    http_reply(r, 200, "application/json", bytes_view(body));
}

static void reply_whole(Exchange *x)
{
    Bytes body = { 0 };
    x->job->dialect->reply(x->answer, &body);
    reply(x, &body);
    bytes_release(&body);
}

static void reply_count(Exchange *x)
{
    Bytes body = { 0 };
    bool messages = x->job->turn.api == API_MESSAGES;
    bytes_printf(&body,
                 messages ? "{\"input_tokens\":%zu}"
                          : "{\"object\":\"response.input_tokens\",\"input_tokens\":%zu}",
                 x->job->prompt.n);
    reply(x, &body);
    bytes_release(&body);
}

/* Nothing was answered: the prompt is in a KV state now. */
static void reply_prefetch(Exchange *x)
{
    Bytes body = { 0 };
    const Usage *u = &x->usage;
    bytes_printf(&body,
                 "{\"object\":\"kv.prefetch\",\"prompt_tokens\":%d,\"cached_tokens\":%d,"
                 "\"prompt_ms\":",
                 u->prompt, u->cached);
    wire_real(&body, u->prompt_ms, 1);
    bytes_byte(&body, '}');
    reply(x, &body);
    bytes_release(&body);
}

/* ---- streams ------------------------------------------------------------------------ */

/* Nobody can make sense of what would follow: the client shall try again. */
static void break_off(Exchange *x, const char *why)
{
    HttpRequest *r = x->r;
    exchange_leave(x, 499, why);
    http_on_close(r, NULL, NULL);
    http_reset(r);
}

static bool send(Exchange *x, Str piece)
{
    x->written_ns = clock_ns();
    return http_write(x->r, piece);
}

/* False: the connection is lost, and x perhaps gone. */
static bool put(Exchange *x, Bytes *out)
{
    if (out->failed) {
        exchange_give_up(x, "no_memory");
        break_off(x, "no_memory");
        return false;
    }
    if (!out->n)
        return true;
    trace_bytes(x->trace, bytes_view(out));
    retry_keep(x, bytes_view(out));
    return send(x, bytes_view(out));
}

static void end_stream(Exchange *x, int status, const char *how)
{
    HttpRequest *r = x->r;
    exchange_leave(x, status, how);
    http_on_close(r, NULL, NULL);
    http_end(r);
}

static void on_room(void *arg) { exchange_drain(arg); }

/* The caller holds the job. */
void exchange_stream(Exchange *x)
{
    Bytes out = { 0 };
    const Job *j = x->job;
    http_set(x->r, "cache-control", "no-cache");
    http_set(x->r, "x-accel-buffering", "no");
    x->streams = true;
    http_on_room(x->r, on_room, x);
    http_begin(x->r, 200, SSE);
    if (!j->exchange)
        return; /* there was no memory for the head */
    if (x->sent.n) {
        send(x, bytes_view(&x->sent));
        return;
    }
    j->dialect->start(x->answer, &out);
    put(x, &out);
    bytes_release(&out);
}

/* What a stream shows of an error; nothing: the client shall try again, which
 * it does when the connection breaks. */
static void fail_stream(Exchange *x, const Event *e)
{
    Bytes out = { 0 };
    const char *code = e->error->code ? e->error->code : "error";
    char how[64];
    int status = e->error->status;
    HttpRequest *r = x->r;
    snprintf(how, sizeof how, "%s", code);
    x->job->dialect->event(x->answer, e, &out);
    bool told = out.n > 0 && !out.failed;
    if (!told) {
        exchange_leave(x, status, how);
        http_on_close(r, NULL, NULL);
        http_reset(r);
    } else if (put(x, &out)) {
        end_stream(x, status, how);
    }
    bytes_release(&out);
}

/* A response that is over can be gone on from, as soon as its client knows it. */
static void remember(Exchange *x, const Event *e)
{
    if (e->kind == EV_FINISH && x->job->turn.api == API_RESPONSES)
        responses_done(x->answer, x->server->responses);
}

/* False: x is gone. */
static bool stream_event(Exchange *x, const Event *e)
{
    Bytes out = { 0 };
    if (e->kind == EV_ERROR) {
        fail_stream(x, e);
        return false;
    }
    x->job->dialect->event(x->answer, e, &out);
    remember(x, e);
    bool ok = put(x, &out);
    bytes_release(&out);
    if (ok && e->kind == EV_FINISH) {
        end_stream(x, 200, x->finish);
        return false;
    }
    return ok;
}

/* False: x is gone. */
static bool collect_event(Exchange *x, const Event *e)
{
    if (e->kind == EV_ERROR) {
        exchange_error(x, e->error);
        return false;
    }
    if (x->kind == EXCHANGE_ANSWER) {
        x->job->dialect->event(x->answer, e, NULL);
        remember(x, e);
    }
    if (e->kind != EV_FINISH)
        return true;
    if (x->kind == EXCHANGE_PREFETCH)
        reply_prefetch(x);
    else
        reply_whole(x);
    return false;
}

/* ---- events -------------------------------------------------------------------------- */

static const char *finish_name(enum Finish f)
{
    static const char *const names[] = { [FINISH_STOP] = "stop",
                                         [FINISH_LENGTH] = "length",
                                         [FINISH_TOOL_CALLS] = "tool_calls",
                                         [FINISH_STOP_SEQUENCE] = "stop_sequence",
                                         [FINISH_CONTEXT] = "context",
                                         [FINISH_LOOP] = "loop" };
    return names[f];
}

static bool handle(Exchange *x, const Event *e)
{
    x->over = e->kind == EV_FINISH || e->kind == EV_ERROR;
    if (e->kind == EV_FINISH) {
        x->finish = finish_name(e->finish);
        x->usage = e->usage;
    }
    return x->streams ? stream_event(x, e) : collect_event(x, e);
}

/* A job that the engine's thread has canceled lacks an event that the queue did
 * not take: what comes after it makes no sense, and the next tick breaks it off. */
void exchange_drain(Exchange *x)
{
    EventNode *n;
    Job *j = x->job;
    job_hold(j);
    for (bool there = true; there && x->r && !job_canceled(j) && !http_congested(x->r) &&
                            (n = events_take(&j->events));) {
        there = handle(x, &n->event);
        event_node_free(n);
    }
    job_drop(j);
}

/* ---- the beginning ---------------------------------------------------------------------- */

static void submit(Exchange *x)
{
    Server *s = x->server;
    Job *j = x->job;
    ApiError e = { 0 };
    trace_prompt(x->trace, j, s->prepare.vocab);
    j->turn.waits = scheduler_is_busy(s->scheduler);
    x->answer = j->dialect->answer_new(&j->turn, &s->info);
    if (!x->answer) {
        api_fail(&e, 503, "out_of_memory", NULL, "no memory for the answer");
        exchange_error(x, &e);
    } else if (!scheduler_submit(s->scheduler, j, &e)) {
        exchange_error(x, &e);
    } else if (j->turn.stream && x->kind == EXCHANGE_ANSWER) {
        exchange_stream(x);
    }
}

/* The caller holds the job. */
void exchange_answer(Exchange *x)
{
    if (x->kind == EXCHANGE_COUNT)
        reply_count(x);
    else
        submit(x);
}

/* ---- once in a while ---------------------------------------------------------------------- */

static void beat(Exchange *x)
{
    Bytes out = { 0 };
    x->job->dialect->heartbeat(x->answer, &out);
    metrics_heartbeat(x->server->metrics, (int)x->job->turn.api);
    if (!out.failed && out.n) {
        trace_bytes(x->trace, bytes_view(&out));
        send(x, bytes_view(&out));
    }
    bytes_release(&out);
}

/* In an answer that has begun, or instead of one. */
static void end_with(Exchange *x, const ApiError *e, const char *why)
{
    const Event event = { .kind = EV_ERROR, .error = e };
    exchange_give_up(x, why);
    if (!x->r)
        exchange_leave(x, e->status, why);
    else if (x->streams)
        fail_stream(x, &event);
    else
        exchange_error(x, e);
}

static bool waited_too_long(const Exchange *x)
{
    const Job *j = x->job;
    int64_t most = x->server->opt.queue_wait_seconds;
    return most > 0 && atomic_load(&j->stage) == STAGE_QUEUED &&
           clock_ns() - j->prepared_ns > most * 1000000000;
}

static void note_begin(Exchange *x)
{
    int stage = atomic_load(&x->job->stage);
    if (!x->begun_ns && stage >= STAGE_PREFILL && stage < STAGE_OVER)
        x->begun_ns = clock_ns();
}

void exchanges_tick(Server *s)
{
    int64_t now = clock_ns();
    for (Exchange *x = s->exchanges, *next; x; x = next) {
        ApiError e = { 0 };
        const char *why = job_canceled(x->job);
        next = x->next;
        note_begin(x);
        if (!x->r) {
            retry_tick(x);
        } else if (why) { /* by the engine's thread: see drain */
            exchange_count_canceled(x, exchange_phase(x), why);
            break_off(x, why);
        } else if (waited_too_long(x)) {
            api_fail(&e, 503, "queue_timeout", NULL, "the request waited for %d s, the limit",
                     s->opt.queue_wait_seconds);
            end_with(x, &e, "queue_timeout");
        } else if (x->streams && !http_congested(x->r) && http_pending(x->r) == 0 &&
                   now - x->written_ns >= (int64_t)s->opt.heartbeat_ms * 1000000) {
            beat(x);
        }
    }
}

void exchanges_end(Server *s)
{
    ApiError e = { 0 };
    if (atomic_load(&s->ended) && s->failed)
        api_fail(&e, 503, "engine_failed", NULL, "The engine has failed: %s", s->failure.msg);
    else
        api_fail(&e, 503, "shutting_down", NULL, "The server is shutting down");
    for (Exchange *x = s->exchanges, *next; x; x = next) {
        next = x->next;
        end_with(x, &e, "shutdown");
    }
}

bool exchange_cancel(Server *s, Str id)
{
    ApiError e = { 0 };
    api_fail(&e, 400, "canceled", NULL, "The request was canceled");
    for (Exchange *x = s->exchanges; x; x = x->next) {
        bool response = x->answer && x->job->turn.api == API_RESPONSES &&
                        str_eq(str_of(responses_id(x->answer)), id);
        if (!response && !str_eq(str_of(x->job->turn.request_id), id))
            continue;
        end_with(x, &e, "canceled");
        return true;
    }
    return false;
}
