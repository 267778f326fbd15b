/* trace.c - a backend that prints what each op of another one wrote: a line a
 * buffer to stderr, with its norm, extremes and first values. For people who
 * look for the op where two runs part; KV rows are summed up a line an op. */
#include "outputs.h"
#include "wrap.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    Wrap w;
    const char *op;
    int layer;
    char *data;
    size_t cap;
} Trace;

static Trace *trace_of(Backend *be) { return (Trace *)(void *)be; }

static void print_floats(const float *x, size_t n)
{
    double sum = 0;
    float lo = n ? x[0] : 0, hi = lo;
    size_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
        if (!isfinite(x[i]))
            bad++;
    }
    fprintf(stderr, " norm %-12.6g min %-11.4g max %-11.4g", sqrt(sum), (double)lo, (double)hi);
    if (bad)
        fprintf(stderr, " NOT FINITE %zu", bad);
    for (size_t i = 0; i < n && i < 4; i++)
        fprintf(stderr, " %.6g", (double)x[i]);
}

static void print_ints(const int32_t *x, size_t n)
{
    for (size_t i = 0; i < n && i < 12; i++)
        fprintf(stderr, " %d", x[i]);
}

static void print_row(const Output *o, const void *row)
{
    float *x = malloc(o->n * sizeof *x);
    if (!x)
        return;
    if (o->kind == OUT_KV_ROW)
        kvrow_unpack(&o->kv->row, x, row);
    else
        idxrow_unpack(&o->kv->idx_row, x, row);
    print_floats(x, o->n);
    free(x);
}

static void print_output(void *user, const Output *o)
{
    Trace *t = user;
    Backend *in = t->w.inner;

    if (o->bytes > t->cap) {
        char *p = realloc(t->data, o->bytes);
        if (!p)
            return;
        t->data = p;
        t->cap = o->bytes;
    }
    in->op->read(in, t->data, o->buf, o->bytes);
    fprintf(stderr, "%-8s %3d %-11s [%zu]", t->op, t->layer, o->name, o->n);
    if (o->kind == OUT_F32)
        print_floats((const float *)(const void *)t->data, o->n);
    else if (o->kind == OUT_I32)
        print_ints((const int32_t *)(const void *)t->data, o->n);
    else
        print_row(o, t->data);
    fputc('\n', stderr);
}

/* A layer begins with the hc_pre before a query: counted, since hc ops do not
 * know their layer. */
static void note(Trace *t, enum OpId id)
{
    t->op = op_names[id];
    if (id == OP_embed)
        t->layer = -1;
    if (id == OP_query)
        t->layer++;
}

#define OP(name, params, args) \
    static void trace_##name(Backend *be, const Step *step, LIST params) \
    { \
        Trace *t = trace_of(be); \
        Backend *in = t->w.inner; \
        note(t, OP_##name); \
        in->op->name(in, step, LIST args); \
        outputs_##name(print_output, t, be->shape, step, LIST args); \
    }
OPS(OP)
#undef OP

static void trace_close(Backend *be)
{
    free(trace_of(be)->data);
    wrap_close(be);
}

static const struct Ops trace_ops = { WRAP_OPS, .close = trace_close,
#define OP(name, params, args) .name = trace_##name,
                                      OPS(OP)
#undef OP
};

Backend *trace_open(Backend *inner, ds4_err *err)
{
    Trace *t = calloc(1, sizeof *t);
    if (!t) {
        fail(err, DS4_ENOMEM, "no memory for the tracing backend");
        return NULL;
    }
    wrap_init(&t->w, inner, &trace_ops, "trace");
    t->layer = -1;
    return &t->w.be;
}
