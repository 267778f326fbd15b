/* base.h - what every file needs: errors, views of text, checked products. */
#ifndef BASE_H
#define BASE_H

#include "../../include/ds4.h"
#include <string.h>

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Fill *err (which may be NULL) and return false: return fail(err, ...);
 * Messages name the object and the two values that disagree. */
bool fail(ds4_err *err, ds4_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A view of bytes; never owns them, never ends in a terminator. */
typedef struct {
    const char *p;
    size_t n;
} Str;

#define STR(literal) ((Str){ literal, sizeof literal - 1 })
static inline Str str_of(const char *s) { return (Str){ s, s ? strlen(s) : 0 }; }
static inline bool str_eq(Str a, Str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
/* For printf's "%.*s", capped so that a lying length cannot flood a message. */
#define STR_ARG(s) (int)MIN((s).n, 100), (s).p

/* *out = a op b; false when it does not fit. */
static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* Monotonic clock, nanoseconds. */
int64_t clock_ns(void);

#endif
