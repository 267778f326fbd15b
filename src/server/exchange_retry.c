/* exchange_retry.c - clients that give up and ask for the same again.
 *
 * A client whose timer runs out closes its connection and sends the same body
 * again a few seconds later; where its first request is thrown away meanwhile,
 * no long one is ever answered. A client that was told to stop closes, too, and
 * its slot shall be free at once. They cannot be told apart, so an answer goes
 * on unheard only where that harms nobody: it has been worked on for a while
 * (what was not costs little to do again), nobody waits for its slot, its session
 * asks for nothing else, and what it says is no more than 1 MiB. That is for some
 * seconds; a prompt is read further than that while nobody asks for anything, since
 * whoever comes again goes on with what was read (job.h). */
#include "exchange_parts.h"
#include <stdlib.h>

#define MOST_SENT ((size_t)1 << 20)

static int64_t grace_ns(const Server *s) { return (int64_t)s->opt.retry_seconds * 1000000000; }

void retry_keep(Exchange *x, Str piece)
{
    if (x->too_long || !x->server->opt.retry_seconds)
        return;
    if (x->sent.n + piece.n <= MOST_SENT)
        bytes_put(&x->sent, piece.p, piece.n);
    x->too_long = x->sent.failed || x->sent.n + piece.n > MOST_SENT;
    if (x->too_long)
        bytes_release(&x->sent);
}

/* ---- leaving -------------------------------------------------------------------------- */

static bool is_worth_it(const Exchange *x)
{
    const Server *s = x->server;
    int stage = atomic_load(&x->job->stage);
    return x->kind == EXCHANGE_ANSWER && !x->over && !x->too_long && stage >= STAGE_PREFILL &&
           stage < STAGE_OVER && !job_canceled(x->job) && x->begun_ns &&
           clock_ns() - x->begun_ns >= grace_ns(s) / 2;
}

bool retry_wait(Exchange *x, const char *why)
{
    Server *s = x->server;
    if (strcmp(why, "client_gone") != 0 || !s->opt.retry_seconds || s->draining ||
        !is_worth_it(x) || scheduler_counts(s->scheduler).queued)
        return false;
    x->r = NULL;
    x->left_ns = clock_ns();
    x->left_phase = exchange_phase(x);
    job_abandon(x->job, "client_gone", grace_ns(s));
    server_log(s, "%s left: its client is gone, and may ask again within %d s%s",
               x->job->turn.request_id, s->opt.retry_seconds,
               x->left_phase == JOB_PREFILL ? ", or as long as its prompt is read" : "");
    return true;
}

void retry_tick(Exchange *x)
{
    const Server *s = x->server;
    /* Whether others want something is the engine's thread's to see. */
    job_is_lost(x->job, s->draining ? JOB_WANTED : JOB_ALONE);
    const char *why = job_canceled(x->job);
    if (!why)
        return;
    exchange_count_canceled(x, x->left_phase, why);
    scheduler_cancel(s->scheduler, x->job);
    exchange_leave(x, 499, why);
}

/* ---- coming again ------------------------------------------------------------------------ */

/* Without its port. */
static Str host_of(const Job *j)
{
    const char *colon = strrchr(j->peer, ':');
    return (Str){ j->peer, colon ? (size_t)(colon - j->peer) : strlen(j->peer) };
}

static bool same_session(const Job *a, const Job *b)
{
    return str_eq(a->turn.session, b->turn.session) && str_eq(a->turn.agent, b->turn.agent);
}

static bool same_request(const Exchange *a, const Exchange *b)
{
    const Job *j = a->job, *k = b->job;
    return a->kind == b->kind && j->turn.api == k->turn.api && j->size == k->size &&
           XXH128_isEqual(a->body, b->body) && j->client == k->client && same_session(j, k) &&
           str_eq(host_of(j), host_of(k));
}

/* Answers that nobody hears, of x's session: it has gone on to something else. */
static void give_way(Exchange *x)
{
    const Server *s = x->server;
    for (Exchange *o = s->exchanges; o; o = o->next)
        if (!o->r && o->job->turn.session.n && same_session(o->job, x->job) &&
            job_is_lost(o->job, JOB_WANTED))
            scheduler_cancel(s->scheduler, o->job);
}

/* What was counted when its first client came has its end here. */
static void count_first(const Exchange *x)
{
    const Job *j = x->job;
    metrics_request_ended(x->server->metrics, (int)j->turn.api, j->client, 499,
                          (double)(x->left_ns - j->accepted_ns) / 1e9);
}

static void join(Exchange *x, Exchange *other)
{
    Server *s = x->server;
    HttpRequest *r = x->r;
    Job *j = other->job;
    server_log(s, "%s again: goes on with %s, whose client left %.1f s ago (%s)",
               x->job->turn.request_id, j->turn.request_id,
               (double)(clock_ns() - other->left_ns) / 1e9, job_stage_name(j));
    trace_end(x->trace, "goes on with an earlier request");
    count_first(other);
    exchange_free(x);
    other->r = r;
    other->written_ns = clock_ns();
    http_on_close(r, exchange_lost, other);
    if (j->turn.stream)
        exchange_stream(other);
    if (j->exchange)
        exchange_drain(j->exchange);
}

bool retry_join(Exchange *x)
{
    for (Exchange *o = x->server->exchanges; o; o = o->next) {
        if (o->r || !same_request(o, x) || !job_adopt(o->job))
            continue;
        Job *j = o->job;
        job_hold(j);
        join(x, o);
        job_drop(j);
        return true;
    }
    if (x->kind == EXCHANGE_ANSWER)
        give_way(x);
    return false;
}
