/* timed.c - a backend that times another one, op by op.
 *
 * An op may only have been started when it returns. A read comes after all that
 * was started before, so the clock stops after a read of four bytes. */
#include "traffic.h"
#include "wrap.h"
#include <stdlib.h>

typedef struct {
    Wrap w;
    ds4_op_time op[N_OPS];
    Buf probe; /* what is read */
} Timed;

static Timed *timed_of(Backend *be) { return (Timed *)(void *)be; }

static void wait_for(Backend *in, Buf probe)
{
    int32_t word;
    in->op->read(in, &word, probe, sizeof word);
}

/* The traffic is counted after the clock has stopped. */
#define OP(name, params, args) \
    static void timed_##name(Backend *be, const Step *step, LIST params) \
    { \
        Timed *t = timed_of(be); \
        Backend *in = t->w.inner; \
        int64_t start = clock_ns(); \
        in->op->name(in, step, LIST args); \
        wait_for(in, t->probe); \
        t->op[OP_##name].ns += (uint64_t)(clock_ns() - start); \
        t->op[OP_##name].calls++; \
        const Traffic did = traffic_##name(in, step, LIST args); \
        t->op[OP_##name].bytes += did.bytes; \
        t->op[OP_##name].macs += did.macs; \
    }
OPS(OP)
#undef OP

static void timed_close(Backend *be)
{
    wrap_free(be, timed_of(be)->probe);
    wrap_close(be);
}

static const struct Ops timed_ops = { WRAP_OPS, .close = timed_close,
#define OP(name, params, args) .name = timed_##name,
                                      OPS(OP)
#undef OP
};

Backend *timed_open(Backend *inner, ds4_err *err)
{
    Timed *t = calloc(1, sizeof *t);
    if (!t) {
        fail(err, DS4_ENOMEM, "no memory for the timing backend");
        return NULL;
    }
    t->probe = inner->op->alloc(inner, sizeof(int32_t));
    if (!t->probe.base) {
        free(t);
        fail(err, DS4_ENOMEM, "no memory for the timing backend");
        return NULL;
    }
    wrap_init(&t->w, inner, &timed_ops, "timed");
    timed_reset(&t->w.be);
    return &t->w.be;
}

const ds4_op_time *timed_table(const Backend *be, int *n)
{
    if (be->op != &timed_ops)
        return NULL;
    *n = N_OPS;
    return ((const Timed *)(const void *)be)->op;
}

void timed_reset(Backend *be)
{
    if (be->op != &timed_ops)
        return;
    for (int i = 0; i < N_OPS; i++)
        timed_of(be)->op[i] = (ds4_op_time){ .op = op_names[i] };
}
