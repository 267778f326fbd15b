/* toy.h - a small random model in memory and sessions on it, for tests that
 * run whole timelines: every kind of layer, and fewer picks than pooled rows. */
#ifndef TOY_H
#define TOY_H
#include "../src/engine/engine.h"
#include "../src/quantize/synth.h"
#include <stdlib.h>

enum { TOY_VOCAB = 288 };

static inline Bytes toy_gguf(const char *recipe, uint64_t seed)
{
    Bytes gguf = { 0 };
    Shape s;
    ds4_err err;

    if (!synth_shape(&s, "mini", 0, &err) ||
        !synth_bytes(&gguf,
                     &(SynthOptions){ .shape = &s, .recipe = recipe, .seed = seed, .threads = 1 },
                     &err))
        fail_msg("%s", err.msg);
    return gguf;
}

static inline ds4_engine *toy_open(const Bytes *gguf, ds4_options opt)
{
    ds4_err err;

    opt.device = "cpu";
    opt.isa = opt.isa ? opt.isa : "scalar";
    opt.threads = opt.threads ? opt.threads : 1;
    opt.context = opt.context ? opt.context : 512;
    opt.max_rows = opt.max_rows ? opt.max_rows : 256;
    opt.max_logits = opt.max_logits ? opt.max_logits : opt.max_rows;
    ds4_engine *e = engine_open_bytes(gguf->p, gguf->n, &opt, &err);
    if (!e)
        fail_msg("%s", err.msg);
    return e;
}

static inline ds4_session *toy_session(ds4_engine *e)
{
    ds4_err err;
    ds4_session *s = ds4_session_open(e, &err);
    if (!s)
        fail_msg("%s", err.msg);
    return s;
}

/* A text without pattern; seed picks another. */
static inline int32_t toy_token(int i, int seed)
{
    uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)seed * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    return (int32_t)((x >> 13) % TOY_VOCAB);
}

static inline int32_t *toy_tokens(int n, int seed)
{
    int32_t *t = malloc((size_t)n * sizeof *t);
    for (int i = 0; i < n; i++)
        t[i] = toy_token(i, seed);
    return t;
}

/* One step; logits of all its rows to out [n][TOY_VOCAB], if it is given. */
static inline void toy_step(ds4_session *s, const int32_t *tokens, int n, float *out)
{
    ds4_err err;

    if (!ds4_step(s->engine, &(ds4_work){ s, tokens, n, out ? n : 0 }, 1, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; out && i < n; i++)
        memcpy(out + (size_t)i * TOY_VOCAB, ds4_step_logits(s->engine, 0, i),
               TOY_VOCAB * sizeof *out);
}

/* The next n tokens of the session's text, `chunk` a step. */
static inline void toy_run(ds4_session *s, const int32_t *text, int n, int chunk, float *out)
{
    for (int end = s->length + n; s->length < end;) {
        const int k = MIN(chunk, end - s->length);
        toy_step(s, text + s->length, k, out);
        out = out ? out + (size_t)k * TOY_VOCAB : NULL;
    }
}

static inline float *toy_rows(int n) { return calloc((size_t)n * TOY_VOCAB, sizeof(float)); }

static inline bool same_rows(const float *a, const float *b, int n)
{
    return !memcmp(a, b, (size_t)n * TOY_VOCAB * sizeof *a);
}

#endif
