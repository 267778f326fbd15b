/* wrap.h - what the decorators that wrap one backend share: everything that is
 * not an op goes straight through to the inner backend. */
#ifndef WRAP_H
#define WRAP_H
#include "decorate.h"

typedef struct {
    Backend be;
    Backend *inner;
    char name[128];
} Wrap;

void wrap_init(Wrap *w, Backend *inner, const struct Ops *op, const char *how);

Buf wrap_alloc(Backend *be, size_t bytes);
void wrap_free(Backend *be, Buf b);
void wrap_write(Backend *be, Buf dst, const void *src, size_t bytes);
void wrap_read(Backend *be, void *dst, Buf src, size_t bytes);
void wrap_copy(Backend *be, Buf dst, Buf src, size_t bytes);
float *wrap_seen(Backend *be, Buf out);
bool wrap_bind(Backend *be, Weight *w, const void *host, ds4_err *err);
bool wrap_begin(Backend *be, const Step *step);
bool wrap_end(Backend *be, ds4_err *err);
void wrap_close(Backend *be); /* closes the inner one and frees be */

#define WRAP_OPS \
    .alloc = wrap_alloc, .free = wrap_free, .write = wrap_write, .read = wrap_read, \
    .copy = wrap_copy, .seen = wrap_seen, .bind = wrap_bind, .begin = wrap_begin, .end = wrap_end

#endif
