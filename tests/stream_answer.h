/* stream_answer.h - an answer put together from the events of a stream. */
#ifndef STREAM_ANSWER_H
#define STREAM_ANSWER_H
#include "../src/base/utf8.h"
#include "../src/text/stream.h"
#include <stdlib.h>

/* What was told, in order: "R(...)", "T(...)", "C0:name(...)", ";" at a call's
 * end. Neighbouring pieces of one kind are one. */
typedef struct {
    Bytes log;
    int kind, call, events;
    bool broken; /* a piece was no whole UTF-8, or out of order */
} Answer;

static inline void answer_event(void *user, const StreamEvent *e)
{
    Answer *a = user;
    bool goes_on = a->events++ && a->kind == (int)e->kind &&
                   (e->kind != STREAM_CALL_ARGS || a->call == e->call);
    bool in_call = a->kind == STREAM_CALL_BEGIN || a->kind == STREAM_CALL_ARGS;
    a->broken |= utf8_valid(e->bytes) != e->bytes.n;
    if (e->kind == STREAM_CALL_ARGS || e->kind == STREAM_CALL_END)
        a->broken |= !in_call || a->call != e->call || a->events == 1;
    if (e->kind != STREAM_CALL_END && e->kind != STREAM_CALL_BEGIN)
        a->broken |= e->bytes.n == 0;
    switch (e->kind) {
    case STREAM_REASONING:
    case STREAM_TEXT:
        if (!goes_on)
            bytes_str(&a->log, e->kind == STREAM_TEXT ? "T:" : "R:");
        break;
    case STREAM_CALL_BEGIN: bytes_printf(&a->log, "C%d:", e->call); break;
    case STREAM_CALL_ARGS:
        if (!goes_on)
            bytes_str(&a->log, "=");
        break;
    case STREAM_CALL_END: bytes_str(&a->log, ";"); break;
    }
    bytes_put(&a->log, e->bytes.p, e->bytes.n);
    a->kind = (int)e->kind;
    a->call = e->call;
}

static inline void answer_release(Answer *a)
{
    bytes_release(&a->log);
    *a = (Answer){ 0 };
}

/* Feed text in pieces of n bytes, the first of them `first` long (0: n). */
static inline bool answer_text(Answer *a, const ds4_vocab *v, const StreamOptions *opt, Str text,
                               size_t first, size_t n)
{
    Stream *s = stream_new(v, opt, answer_event, a);
    if (!s)
        return false;
    bool more = true;
    for (size_t at = 0, take = first ? first : n; at < text.n && more; at += take, take = n) {
        take = MIN(take, text.n - at);
        /* A copy of its own size, so that reading past it is seen. */
        char *piece = malloc(take);
        memcpy(piece, text.p + at, take);
        more = stream_text(s, (Str){ piece, take });
        free(piece);
    }
    stream_finish(s);
    bool ok = !a->broken && !stream_failed(s) && stream_state(s) == STREAM_DONE;
    stream_free(s);
    return ok;
}

static inline bool answer_tokens(Answer *a, const ds4_vocab *v, const StreamOptions *opt,
                                 const int32_t *id, size_t n)
{
    Stream *s = stream_new(v, opt, answer_event, a);
    if (!s)
        return false;
    for (size_t i = 0; i < n && stream_token(s, id[i]); i++)
        ;
    stream_finish(s);
    bool ok = !a->broken && !stream_failed(s);
    stream_free(s);
    return ok;
}

#endif
