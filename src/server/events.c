/* events.c - copies of events, in a list between two threads. */
#include "events.h"
#include <stdlib.h>

/* So many wait before texts are joined: a client that keeps up sees every
 * piece by itself. */
enum { JOIN_FROM = 64 };

void events_init(EventQueue *q, size_t most_bytes)
{
    *q = (EventQueue){ .most = most_bytes };
    pthread_mutex_init(&q->mutex, NULL);
}

void events_limit(EventQueue *q, size_t most_bytes)
{
    pthread_mutex_lock(&q->mutex);
    q->most = most_bytes;
    pthread_mutex_unlock(&q->mutex);
}

void event_node_free(EventNode *n)
{
    if (!n)
        return;
    bytes_release(&n->bytes);
    free(n->kept);
    free(n);
}

void events_release(EventQueue *q)
{
    while (q->first) {
        EventNode *next = q->first->next;
        event_node_free(q->first);
        q->first = next;
    }
    pthread_mutex_destroy(&q->mutex);
}

/* ---- copying ------------------------------------------------------------------
 *
 * Nearly every piece of a call's arguments comes with an id: what an event has
 * beside its text goes into one block of just its size. */

static size_t size_kept(const Event *e)
{
    size_t count = e->logprobs ? e->n_logprobs * e->logprob_width : 0;
    size_t n = count * sizeof *e->logprobs + e->name.n + e->stop_sequence.n;
    n += e->call_id ? strlen(e->call_id) + 1 : 0;
    n += e->handle ? strlen(e->handle) + 1 : 0;
    for (size_t i = 0; i < count; i++)
        n += e->logprobs[i].token.n;
    return n;
}

/* Copies n bytes to *to, which moves behind them; what is not there stays so. */
static const void *keep(char **to, const void *p, size_t n)
{
    char *copy = *to;
    if (!p)
        return NULL;
    memcpy(copy, p, n);
    *to += n;
    return copy;
}

static void keep_all(EventNode *n)
{
    Event *e = &n->event;
    char *to = n->kept;
    size_t count = e->logprobs ? e->n_logprobs * e->logprob_width : 0;
    TokenLogprob *copy = (TokenLogprob *)(void *)to; /* first, where malloc has aligned it */
    e->logprobs = keep(&to, e->logprobs, count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i].token.p = keep(&to, copy[i].token.p, copy[i].token.n);
    e->name.p = keep(&to, e->name.p, e->name.n);
    e->stop_sequence.p = keep(&to, e->stop_sequence.p, e->stop_sequence.n);
    e->call_id = keep(&to, e->call_id, e->call_id ? strlen(e->call_id) + 1 : 0);
    e->handle = keep(&to, e->handle, e->handle ? strlen(e->handle) + 1 : 0);
}

static EventNode *copy(const Event *e)
{
    EventNode *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->event = *e;
    bytes_put(&n->bytes, e->bytes.p, e->bytes.n);
    n->event.bytes = bytes_view(&n->bytes);
    if (e->error) {
        n->error = *e->error;
        n->event.error = &n->error;
    }
    n->n_kept = size_kept(e);
    n->kept = malloc(n->n_kept + 1);
    if (n->kept && !n->bytes.failed) {
        keep_all(n);
        return n;
    }
    event_node_free(n);
    return NULL;
}

/* ---- the queue ------------------------------------------------------------------ */

static bool is_text(const Event *e)
{
    bool text = e->kind == EV_REASONING || e->kind == EV_TEXT || e->kind == EV_TOOL_ARGS;
    return text && !e->handle && !e->logprobs;
}

/* Of how far a prompt is read only the last counts. */
static bool join(EventNode *last, const Event *e)
{
    if (last && last->event.kind == EV_PROGRESS && e->kind == EV_PROGRESS) {
        last->event.done = e->done;
        last->event.usage = e->usage;
        return true;
    }
    if (!last || last->event.kind != e->kind || last->event.index != e->index ||
        !is_text(&last->event) || !is_text(e))
        return false;
    bytes_put(&last->bytes, e->bytes.p, e->bytes.n);
    last->event.bytes = bytes_view(&last->bytes);
    return !last->bytes.failed;
}

/* What a node takes: of an event with logprobs, the text is the least part. */
static size_t size_of(const EventNode *n) { return sizeof *n + n->bytes.n + n->n_kept; }

static bool append(EventQueue *q, const Event *e)
{
    if (q->n >= JOIN_FROM && join(q->last, e)) {
        q->bytes += e->bytes.n;
        return true;
    }
    EventNode *n = copy(e);
    if (!n)
        return false;
    q->bytes += size_of(n);
    if (q->last)
        q->last->next = n;
    else
        q->first = n;
    q->last = n;
    q->n++;
    return true;
}

bool events_put(EventQueue *q, const Event *e)
{
    bool end = e->kind == EV_FINISH || e->kind == EV_ERROR;
    pthread_mutex_lock(&q->mutex);
    bool ok = (end || q->bytes + e->bytes.n <= q->most) && append(q, e);
    pthread_mutex_unlock(&q->mutex);
    return ok;
}

EventNode *events_take(EventQueue *q)
{
    pthread_mutex_lock(&q->mutex);
    EventNode *n = q->first;
    if (n) {
        q->first = n->next;
        if (!q->first)
            q->last = NULL;
        q->n--;
        q->bytes -= size_of(n);
    }
    pthread_mutex_unlock(&q->mutex);
    return n;
}
