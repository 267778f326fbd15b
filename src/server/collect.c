/* collect.c - events to texts and calls. */
#include "collect.h"
#include <stdio.h>
#include <stdlib.h>

Str collect_name(const Event *e) { return e->tool ? e->tool->wire_name : e->name; }

static void set(Bytes *b, Str s)
{
    bytes_clear(b);
    bytes_put(b, s.p, s.n);
}

static void begin_call(Collected *c, const Event *e)
{
    if (c->n_calls == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 4;
        CollectedCall *more = realloc(c->calls, cap * sizeof *more);
        if (!more) {
            c->failed = true;
            return;
        }
        c->calls = more;
        c->cap = cap;
    }
    CollectedCall *call = &c->calls[c->n_calls++];
    *call = (CollectedCall){ .tool = e->tool };
    snprintf(call->id, sizeof call->id, "%s", e->call_id ? e->call_id : "");
    set(&call->name, collect_name(e));
}

static void release_call(CollectedCall *call)
{
    bytes_release(&call->name);
    bytes_release(&call->arguments);
}

/* Calls that were cut off are none. */
static void drop_cut_calls(Collected *c)
{
    while (c->n_calls && !c->calls[c->n_calls - 1].whole)
        release_call(&c->calls[--c->n_calls]);
}

static void finish(Collected *c, const Event *e)
{
    drop_cut_calls(c);
    c->finished = true;
    c->end = *e;
    set(&c->stop, e->stop_sequence);
    c->end.stop_sequence = bytes_view(&c->stop);
    c->end.bytes = (Str){ 0 };
    c->end.handle = NULL;
}

static bool call_failed(const CollectedCall *call)
{
    return call->name.failed || call->arguments.failed;
}

void collect(Collected *c, const Event *e)
{
    if ((e->kind == EV_REASONING || (e->kind == EV_FINISH && !c->handle.n)) && e->handle)
        set(&c->handle, str_of(e->handle));
    switch (e->kind) {
    case EV_REASONING:
        c->thought |= e->bytes.n || e->handle;
        bytes_put(&c->reasoning, e->bytes.p, e->bytes.n);
        break;
    case EV_TEXT: bytes_put(&c->text, e->bytes.p, e->bytes.n); break;
    case EV_TOOL_BEGIN: begin_call(c, e); break;
    case EV_TOOL_ARGS:
        if (c->n_calls)
            bytes_put(&c->calls[c->n_calls - 1].arguments, e->bytes.p, e->bytes.n);
        break;
    case EV_TOOL_END:
        if (c->n_calls)
            c->calls[c->n_calls - 1].whole = true;
        break;
    case EV_FINISH: finish(c, e); break;
    case EV_PROGRESS:
    case EV_ERROR: break;
    }
    c->failed |= c->handle.failed || c->reasoning.failed || c->text.failed || c->stop.failed ||
                 (c->n_calls && call_failed(&c->calls[c->n_calls - 1]));
}

void collect_release(Collected *c)
{
    bytes_release(&c->reasoning);
    bytes_release(&c->text);
    bytes_release(&c->handle);
    bytes_release(&c->stop);
    for (size_t i = 0; i < c->n_calls; i++)
        release_call(&c->calls[i]);
    free(c->calls);
    *c = (Collected){ 0 };
}
