/* null.c - a backend whose ops do nothing, to measure the cost of asking. Its
 * memory is real, so that everything around the ops works. */
#include "decorate.h"
#include <stdlib.h>

/* An op's signature is fixed; here nothing uses it. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define OP(name, params, args) \
    static void null_##name(Backend *be, const Step *step, LIST params) {}
OPS(OP)
#undef OP

static char *at(Buf b) { return (char *)b.base + b.off; }

static Buf null_alloc(Backend *be, size_t bytes)
{
    return (Buf){ calloc(1, bytes ? bytes : 1), 0 };
}

static void null_free(Backend *be, Buf b) { free(b.base); }

static void null_write(Backend *be, Buf dst, const void *src, size_t bytes)
{
    memcpy(at(dst), src, bytes);
}

static void null_read(Backend *be, void *dst, Buf src, size_t bytes)
{
    memcpy(dst, at(src), bytes);
}

static void null_copy(Backend *be, Buf dst, Buf src, size_t bytes)
{
    memmove(at(dst), at(src), bytes);
}

static float *null_seen(Backend *be, Buf out) { return (float *)(void *)at(out); }

static bool null_bind(Backend *be, Weight *w, const void *host, ds4_err *err)
{
    w->data = (Buf){ (void *)(uintptr_t)host, 0 };
    return true;
}

static bool null_begin(Backend *be, const Step *step) { return true; }

static bool null_end(Backend *be, ds4_err *err) { return true; }

static void null_close(Backend *be) { free(be); }

static const struct Ops null_ops = { .alloc = null_alloc,
                                     .free = null_free,
                                     .write = null_write,
                                     .read = null_read,
                                     .copy = null_copy,
                                     .seen = null_seen,
                                     .bind = null_bind,
                                     .begin = null_begin,
                                     .end = null_end,
                                     .close = null_close,
#define OP(name, params, args) .name = null_##name,
                                     OPS(OP)
#undef OP
};

Backend *null_open(const Shape *shape, ds4_err *err)
{
    Backend *be = calloc(1, sizeof *be);
    if (!be) {
        fail(err, DS4_ENOMEM, "no memory for a backend");
        return NULL;
    }
    *be = (Backend){ .op = &null_ops, .name = "null", .shape = shape };
    return be;
}
