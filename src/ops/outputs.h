/* outputs.h - what an op writes, piece by piece: for the decorators that look
 * at results (trace, check). */
#ifndef OUTPUTS_H
#define OUTPUTS_H
#include "ops.h"

enum OutputKind { OUT_F32, OUT_I32, OUT_KV_ROW, OUT_IDX_ROW };

typedef struct {
    const char *name; /* "streams" */
    enum OutputKind kind;
    Buf buf;
    size_t n;     /* numbers; rows of KV: one row of n values */
    size_t width; /* numbers a row of the step */
    size_t bytes;
    const KvLayer *kv; /* of rows: their formats */
    bool chosen;       /* of what a choice fell on: a near tie changes it */
} Output;

typedef void (*OutputFn)(void *user, const Output *o);

#define OP(name, params, args) \
    void outputs_##name(OutputFn fn, void *user, const Shape *s, const Step *step, LIST params);
OPS(OP)
#undef OP

#endif
