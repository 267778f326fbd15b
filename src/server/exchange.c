/* exchange.c - from a request to the last byte of its answer.
 *
 * Whatever writes to a connection may find it lost, which ends the exchange at
 * once (on_close): so after a write that failed nothing of it is touched. */
#include "exchange.h"
#include "responses_in.h"
#include "wire.h"
#include <stdio.h>
#include <stdlib.h>

#define SSE "text/event-stream; charset=utf-8"

/* Bodies that workers have or will have, at most: clients may send them faster
 * than they are read, and be gone before. */
#define MOST_PREPARING ((size_t)256 << 20)

struct Exchange {
    Exchange *next, **link;
    Server *server;
    HttpRequest *r;
    Job *job;
    Answer *answer;
    TraceFile *trace;
    enum ExchangeKind kind;
    bool streams; /* the head of a stream was sent */
    int64_t written_ns;
    /* for the log, once the end was told */
    const char *finish;
    Usage usage;
};

static void prepare_task(void *arg);
static void on_prepared(void *arg);
static void on_events(void *arg);
static void drain(Exchange *x);

/* ---- the end --------------------------------------------------------------------- */

static const char *api_name(const Job *j) { return j->dialect->name; }

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

/* Nothing of it is left but what the job's other holders need. */
static void leave(Exchange *x, int status, const char *how)
{
    Job *j = x->job;
    log_end(x, status, how);
    metrics_request_ended(x->server->metrics, (int)j->turn.api, j->client, status,
                          (double)(clock_ns() - j->accepted_ns) / 1e9);
    trace_end(x->trace, how);
    j->dialect->answer_free(x->answer);
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    j->exchange = NULL;
    job_drop(j);
    free(x);
}

static enum CancelReason reason_of(const char *why)
{
    if (strcmp(why, "slow_client") == 0)
        return CANCEL_SLOW;
    if (strcmp(why, "shutdown") == 0)
        return CANCEL_SHUTDOWN;
    return strcmp(why, "canceled") == 0 ? CANCEL_API : CANCEL_CLIENT;
}

static enum JobPhase phase_of(const Job *j)
{
    int stage = atomic_load(&j->stage);
    if (stage <= STAGE_QUEUED)
        return JOB_QUEUED;
    return stage == STAGE_PREFILL ? JOB_PREFILL : JOB_DECODE;
}

static void count_canceled(const Exchange *x, const char *why)
{
    metrics_cancelled(x->server->metrics, phase_of(x->job), reason_of(why));
    if (strcmp(why, "slow_client") == 0)
        metrics_slow_client(x->server->metrics);
}

/* The engine must not go on with it. */
static void give_up(Exchange *x, const char *why)
{
    Server *s = x->server;
    if (atomic_load(&x->job->stage) == STAGE_OVER)
        return;
    count_canceled(x, why);
    job_cancel(x->job, why);
    if (s->scheduler)
        scheduler_cancel(s->scheduler, x->job);
}

/* The connection is lost. */
static void on_close(void *arg, const char *why)
{
    Exchange *x = arg;
    give_up(x, why);
    leave(x, 499, why);
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

static void refuse(Exchange *x, const ApiError *e)
{
    HttpRequest *r = x->r;
    const Dialect *d = x->job->dialect;
    ApiError copy = *e;
    Bytes body = { 0 };
    d->error(e, x->job->turn.request_id, &body);
    trace_bytes(x->trace, bytes_view(&body));
    bytes_release(&body);
    leave(x, d->status(e), copy.code ? copy.code : "error");
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
        refuse(x, &no_memory);
        return;
    }
    trace_bytes(x->trace, bytes_view(body));
    leave(x, 200, x->finish ? x->finish : "done");
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

/* ---- streams ------------------------------------------------------------------------ */

/* Nobody can make sense of what would follow: the client shall try again. */
static void break_off(Exchange *x, const char *why)
{
    HttpRequest *r = x->r;
    leave(x, 499, why);
    http_on_close(r, NULL, NULL);
    http_reset(r);
}

/* False: the connection is lost, and x gone. */
static bool put(Exchange *x, Bytes *out)
{
    if (out->failed) {
        give_up(x, "no_memory");
        break_off(x, "no_memory");
        return false;
    }
    if (!out->n)
        return true;
    trace_bytes(x->trace, bytes_view(out));
    x->written_ns = clock_ns();
    return http_write(x->r, bytes_view(out));
}

static void end_stream(Exchange *x, int status, const char *how)
{
    HttpRequest *r = x->r;
    leave(x, status, how);
    http_on_close(r, NULL, NULL);
    http_end(r);
}

static void on_room(void *arg) { drain(arg); }

/* The caller holds the job. */
static void begin_stream(Exchange *x)
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
        leave(x, status, how);
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
        refuse(x, e->error);
        return false;
    }
    x->job->dialect->event(x->answer, e, NULL);
    remember(x, e);
    if (e->kind != EV_FINISH)
        return true;
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
    if (e->kind == EV_FINISH) {
        x->finish = finish_name(e->finish);
        x->usage = e->usage;
    }
    return x->streams ? stream_event(x, e) : collect_event(x, e);
}

/* A job that the engine's thread has canceled lacks an event that the queue did
 * not take: what comes after it makes no sense, and the next tick breaks it off. */
static void drain(Exchange *x)
{
    EventNode *n;
    Job *j = x->job;
    job_hold(j);
    atomic_store(&j->woken, false);
    for (bool there = true;
         there && !job_canceled(j) && !http_congested(x->r) && (n = events_take(&j->events));) {
        there = handle(x, &n->event);
        event_node_free(n);
    }
    job_drop(j);
}

/* A post of job_wake: on the network thread. */
static void on_events(void *arg)
{
    Job *j = arg;
    if (j->exchange)
        drain(j->exchange);
    job_drop(j);
}

/* Any thread. */
static void wake(void *user, Job *j)
{
    Server *s = user;
    job_hold(j);
    if (http_post(s->http, on_events, j))
        return;
    atomic_store(&j->woken, false);
    job_drop(j);
}

/* ---- the beginning --------------------------------------------------------------------- */

static bool copy_headers(Job *j, const HttpRequest *r)
{
    const char *name, *value;
    size_t n = 0;
    while (http_field(r, n, &name, &value))
        n++;
    j->headers = arena_array(&j->arena, n, sizeof *j->headers);
    for (size_t i = 0; i < n && j->headers; i++) {
        http_field(r, i, &name, &value);
        j->headers[i] =
            (JobHeader){ arena_str(&j->arena, str_of(name)), arena_str(&j->arena, str_of(value)) };
        if (!j->headers[i].name || !j->headers[i].value)
            return false;
        j->n_headers++;
    }
    return j->headers != NULL;
}

static Exchange *exchange_new(Server *s, HttpRequest *r, Job *j)
{
    Exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    *x = (Exchange){ .server = s, .r = r, .job = j, .next = s->exchanges, .link = &s->exchanges };
    if (x->next)
        x->next->link = &x->next;
    s->exchanges = x;
    return x;
}

static Job *make_job(Server *s, HttpRequest *r, const Dialect *d, enum Api api)
{
    Job *j = job_new(d, api);
    if (!j)
        return NULL;
    snprintf(j->turn.request_id, sizeof j->turn.request_id, "%s", http_request_id(r));
    snprintf(j->peer, sizeof j->peer, "%s", http_peer(r));
    j->client = client_of(http_header(r, "user-agent"));
    j->wake = wake;
    j->user = s;
    j->body = http_take_body(r);
    j->size = j->body.n;
    if (copy_headers(j, r))
        return j;
    job_drop(j);
    return NULL;
}

bool exchange_possible(Server *s, ApiError *e)
{
    if (s->draining)
        return api_fail(e, 503, "shutting_down", NULL, "The server is shutting down");
    if (atomic_load(&s->ready))
        return true;
    api_fail(e, 503, "loading", NULL, "The model is being loaded: %d %% are done",
             atomic_load(&s->loaded) / 10);
    e->retry_after = 5;
    return false;
}

/* One alone always does. */
bool exchange_fits(Server *s, size_t bytes, ApiError *e)
{
    return !s->preparing || s->preparing + bytes <= MOST_PREPARING ||
           api_fail(e, 503, "overloaded", NULL, "Too many large requests are being read");
}

void exchange_begin(Server *s, HttpRequest *r, const Dialect *d, enum Api api,
                    enum ExchangeKind kind)
{
    ApiError e = { 0 };
    Exchange *x = NULL;
    metrics_request_began(s->metrics);
    Job *j = exchange_possible(s, &e) && exchange_fits(s, http_body(r).n, &e)
                 ? make_job(s, r, d, api)
                 : NULL;
    if (j)
        x = exchange_new(s, r, j);
    if (!x) {
        if (!e.status)
            api_fail(&e, 503, "out_of_memory", NULL, "no memory for the request");
        metrics_request_ended(s->metrics, (int)api, client_of(http_header(r, "user-agent")),
                              d->status(&e), 0);
        job_drop(j);
        exchange_refuse(r, d, &e);
        return;
    }
    x->kind = kind;
    j->count_only = kind == EXCHANGE_COUNT;
    j->exchange = x;
    x->trace = trace_begin(s->trace, j->turn.request_id, http_path(r), bytes_view(&j->body));
    server_log(s, "%s accept: %s%s from %s (%s), %zu bytes", j->turn.request_id, api_name(j),
               j->count_only ? " count" : "", client_name(j->client), j->peer, j->body.n);
    http_on_close(r, on_close, x);
    job_hold(j);
    s->preparing += j->size;
    if (!workers_run(s->workers, prepare_task, j, j->size)) {
        s->preparing -= j->size;
        job_drop(j);
        api_fail(&e, 503, "out_of_memory", NULL, "no memory for the request");
        refuse(x, &e);
    }
}

/* On a worker. The reference goes on to the network thread. */
static void prepare_task(void *arg)
{
    Job *j = arg;
    Server *s = j->user;
    if (!job_canceled(j))
        job_prepare(j, &s->prepare);
    if (!http_post(s->http, on_prepared, j))
        job_drop(j);
}

static void start(Exchange *x)
{
    Server *s = x->server;
    Job *j = x->job;
    ApiError e = { 0 };
    trace_prompt(x->trace, j, s->prepare.vocab);
    j->turn.waits = scheduler_is_busy(s->scheduler);
    x->answer = j->dialect->answer_new(&j->turn, &s->info);
    if (!x->answer) {
        api_fail(&e, 503, "out_of_memory", NULL, "no memory for the answer");
        refuse(x, &e);
    } else if (!scheduler_submit(s->scheduler, j, &e)) {
        refuse(x, &e);
    } else if (j->turn.stream) {
        begin_stream(x);
    }
}

static void on_prepared(void *arg)
{
    Job *j = arg;
    Server *s = j->user;
    Exchange *x = j->exchange;
    s->preparing -= j->size;
    if (!x) {
        job_drop(j);
        return;
    }
    x->written_ns = clock_ns();
    if (j->error.status)
        refuse(x, &j->error);
    else if (x->kind == EXCHANGE_COUNT)
        reply_count(x);
    else
        start(x);
    job_drop(j);
}

/* ---- once in a while ---------------------------------------------------------------------- */

static void beat(Exchange *x)
{
    Bytes out = { 0 };
    x->job->dialect->heartbeat(x->answer, &out);
    metrics_heartbeat(x->server->metrics, (int)x->job->turn.api);
    put(x, &out);
    bytes_release(&out);
}

/* In an answer that has begun, or instead of one. */
static void end_with(Exchange *x, const ApiError *e, const char *why)
{
    const Event event = { .kind = EV_ERROR, .error = e };
    give_up(x, why);
    if (x->streams)
        fail_stream(x, &event);
    else
        refuse(x, e);
}

static bool waited_too_long(const Exchange *x)
{
    const Job *j = x->job;
    int64_t most = x->server->opt.queue_wait_seconds;
    return most > 0 && atomic_load(&j->stage) == STAGE_QUEUED &&
           clock_ns() - j->prepared_ns > most * 1000000000;
}

void exchanges_tick(Server *s)
{
    int64_t now = clock_ns();
    for (Exchange *x = s->exchanges, *next; x; x = next) {
        ApiError e = { 0 };
        const char *why = job_canceled(x->job);
        next = x->next;
        if (why) { /* by the engine's thread: see drain */
            count_canceled(x, why);
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
