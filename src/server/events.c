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

void event_node_free(EventNode *n)
{
    if (!n)
        return;
    bytes_release(&n->bytes);
    arena_release(&n->arena);
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

/* ---- copying ------------------------------------------------------------------ */

static bool keep(EventNode *n, Str *s)
{
    if (!s->p)
        return true;
    s->p = arena_str(&n->arena, *s);
    return s->p != NULL;
}

static bool keep_string(EventNode *n, const char **s)
{
    Str view = str_of(*s);
    if (!*s)
        return true;
    *s = arena_str(&n->arena, view);
    return *s != NULL;
}

static bool keep_logprobs(EventNode *n, size_t width)
{
    size_t count = n->event.n_logprobs * width;
    if (!n->event.logprobs)
        return true;
    TokenLogprob *copy = arena_array(&n->arena, count, sizeof *copy);
    if (!copy)
        return false;
    memcpy(copy, n->event.logprobs, count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        if (!keep(n, &copy[i].token))
            return false;
    n->event.logprobs = copy;
    return true;
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
    if (!n->bytes.failed && keep(n, &n->event.name) && keep(n, &n->event.stop_sequence) &&
        keep_string(n, &n->event.call_id) && keep_string(n, &n->event.handle) &&
        keep_logprobs(n, e->logprob_width))
        return n;
    event_node_free(n);
    return NULL;
}

/* ---- the queue ------------------------------------------------------------------ */

static bool is_text(const Event *e)
{
    bool text = e->kind == EV_REASONING || e->kind == EV_TEXT || e->kind == EV_TOOL_ARGS;
    return text && !e->handle && !e->logprobs;
}

static bool join(EventNode *last, const Event *e)
{
    if (!last || last->event.kind != e->kind || last->event.index != e->index ||
        !is_text(&last->event) || !is_text(e))
        return false;
    bytes_put(&last->bytes, e->bytes.p, e->bytes.n);
    last->event.bytes = bytes_view(&last->bytes);
    return !last->bytes.failed;
}

/* What a node takes: of an event with logprobs, the text is the least part. */
static size_t size_of(const EventNode *n) { return sizeof *n + n->bytes.n + n->arena.used; }

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
