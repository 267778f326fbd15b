/* bytes.h - a growing buffer. Zero is empty. Failure to grow sticks: later
 * calls do nothing, and the writer asks once, at the end. */
#ifndef BYTES_H
#define BYTES_H
#include "base.h"

typedef struct {
    char *p;
    size_t n, cap;
    bool failed;
} Bytes;

void bytes_put(Bytes *b, const void *p, size_t n);
void bytes_str(Bytes *b, const char *s);
void bytes_byte(Bytes *b, unsigned char c);
void bytes_u32(Bytes *b, uint32_t v); /* little endian */
void bytes_u64(Bytes *b, uint64_t v);
void bytes_f32(Bytes *b, float v);
void bytes_fill(Bytes *b, int c, size_t n);
void bytes_printf(Bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Room for n more bytes, or NULL. The caller writes them and adds to b->n. */
char *bytes_room(Bytes *b, size_t n);
void bytes_clear(Bytes *b); /* keeps the memory */
void bytes_release(Bytes *b);
static inline Str bytes_view(const Bytes *b) { return (Str){ b->p, b->n }; }

#endif
