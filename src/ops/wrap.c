/* wrap.c - calls that decorators pass through. */
#include "wrap.h"
#include <stdio.h>
#include <stdlib.h>

static Backend *inner_of(Backend *be) { return ((Wrap *)(void *)be)->inner; }

void wrap_init(Wrap *w, Backend *inner, const struct Ops *op, const char *how)
{
    w->inner = inner;
    w->be = *inner;
    w->be.op = op;
    snprintf(w->name, sizeof w->name, "%s %s", how, inner->name);
    w->be.name = w->name;
}

Buf wrap_alloc(Backend *be, size_t bytes)
{
    Backend *in = inner_of(be);
    return in->op->alloc(in, bytes);
}

void wrap_free(Backend *be, Buf b)
{
    Backend *in = inner_of(be);
    in->op->free(in, b);
}

void wrap_write(Backend *be, Buf dst, const void *src, size_t bytes)
{
    Backend *in = inner_of(be);
    in->op->write(in, dst, src, bytes);
}

void wrap_read(Backend *be, void *dst, Buf src, size_t bytes)
{
    Backend *in = inner_of(be);
    in->op->read(in, dst, src, bytes);
}

void wrap_copy(Backend *be, Buf dst, Buf src, size_t bytes)
{
    Backend *in = inner_of(be);
    in->op->copy(in, dst, src, bytes);
}

float *wrap_seen(Backend *be, Buf out)
{
    Backend *in = inner_of(be);
    return in->op->seen(in, out);
}

bool wrap_bind(Backend *be, Weight *w, const void *host, ds4_err *err)
{
    Backend *in = inner_of(be);
    return in->op->bind(in, w, host, err);
}

bool wrap_begin(Backend *be, const Step *step)
{
    Backend *in = inner_of(be);
    const bool encode = in->op->begin(in, step);

    be->rounding = in->rounding;
    return encode;
}

bool wrap_end(Backend *be, ds4_err *err)
{
    Backend *in = inner_of(be);
    return in->op->end(in, err);
}

void wrap_close(Backend *be)
{
    Backend *in = inner_of(be);
    in->op->close(in);
    free(be);
}
