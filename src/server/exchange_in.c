/* exchange_in.c - from an HTTP request to a job that is prepared. */
#include "exchange_parts.h"
#include <stdio.h>
#include <stdlib.h>

/* Bodies that workers have or will have, at most: clients may send them faster
 * than they are read, and be gone before. */
#define MOST_PREPARING ((size_t)256 << 20)

/* So many are read again and again, and malloc may keep their memory. */
#define MOST_KEPT ((size_t)16 << 20)

/* For the log. */
static const char *const kinds[] = {
    [EXCHANGE_ANSWER] = "", [EXCHANGE_COUNT] = " count", [EXCHANGE_PREFETCH] = " prefetch"
};

static void prepare_task(void *arg);
static void on_prepared(void *arg);

/* ---- what wakes it ------------------------------------------------------------------------ */

/* A post of job_wake: on the network thread. */
static void on_events(void *arg)
{
    Job *j = arg;
    atomic_store(&j->woken, false);
    if (j->exchange)
        exchange_drain(j->exchange);
    job_drop(j);
}

/* Any thread. */
static void wake(void *user, Job *j)
{
    Server *s = user;
    job_hold(j);
    if (!http_post(s->http, &j->events_post, on_events, j))
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
    x->body = XXH3_128bits(j->body.p, j->body.n);
    j->count_only = kind == EXCHANGE_COUNT;
    j->prompt_only = kind == EXCHANGE_PREFETCH;
    j->exchange = x;
    x->trace = trace_begin(s->trace, j->turn.request_id, http_path(r), bytes_view(&j->body));
    server_log(s, "%s accept: %s%s from %s (%s), %zu bytes", j->turn.request_id, j->dialect->name,
               kinds[kind], client_name(j->client), j->peer, j->body.n);
    http_on_close(r, exchange_lost, x);
    job_hold(j);
    s->preparing += j->size;
    s->burst = s->burst || s->preparing > MOST_KEPT;
    if (!workers_run(s->workers, prepare_task, j, j->size)) {
        s->preparing -= j->size;
        job_drop(j);
        api_fail(&e, 503, "out_of_memory", NULL, "no memory for the request");
        exchange_error(x, &e);
    }
}

/* On a worker. The reference goes on to the network thread. */
static void prepare_task(void *arg)
{
    Job *j = arg;
    Server *s = j->user;
    if (!job_canceled(j))
        job_prepare(j, &s->prepare);
    if (!http_post(s->http, &j->prepared_post, on_prepared, j))
        job_drop(j);
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
        exchange_error(x, &j->error);
    else if (!retry_join(x))
        exchange_answer(x);
    job_drop(j);
}
