/* bytes.c - the growing buffer: capacity doubles, failure sticks. */
#include "bytes.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

char *bytes_room(Bytes *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (n <= b->cap - b->n && b->p)
        return b->p + b->n;
    size_t need;
    if (__builtin_add_overflow(b->n, n, &need)) {
        b->failed = true;
        return NULL;
    }
    size_t cap = MAX(need, (size_t)64);
    if (b->cap <= SIZE_MAX / 2)
        cap = MAX(cap, b->cap * 2);
    char *p = realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return NULL;
    }
    b->p = p;
    b->cap = cap;
    return p + b->n;
}

void bytes_put(Bytes *b, const void *p, size_t n)
{
    char *to = bytes_room(b, n);
    if (!to)
        return;
    if (n)
        memcpy(to, p, n);
    b->n += n;
}

void bytes_str(Bytes *b, const char *s) { bytes_put(b, s, strlen(s)); }

void bytes_byte(Bytes *b, unsigned char c) { bytes_put(b, &c, 1); }

static void put_le(Bytes *b, uint64_t v, size_t n)
{
    unsigned char le[8];
    for (size_t i = 0; i < n; i++)
        le[i] = (unsigned char)(v >> (8 * i));
    bytes_put(b, le, n);
}

void bytes_u32(Bytes *b, uint32_t v) { put_le(b, v, 4); }

void bytes_u64(Bytes *b, uint64_t v) { put_le(b, v, 8); }

void bytes_f32(Bytes *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    put_le(b, bits, 4);
}

void bytes_fill(Bytes *b, int c, size_t n)
{
    char *to = bytes_room(b, n);
    if (!to)
        return;
    memset(to, c, n);
    b->n += n;
}

void bytes_printf(Bytes *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n < 0 ? NULL : bytes_room(b, (size_t)n + 1);
    if (to) {
        vsnprintf(to, (size_t)n + 1, fmt, again);
        b->n += (size_t)n; /* the terminator is not part of it */
    } else {
        b->failed = true;
    }
    va_end(again);
}

void bytes_clear(Bytes *b)
{
    b->n = 0;
    b->failed = false;
}

void bytes_release(Bytes *b)
{
    free(b->p);
    *b = (Bytes){ 0 };
}
