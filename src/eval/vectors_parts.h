/* vectors_parts.h - what the readers of the two forms share. */
#ifndef VECTORS_PARTS_H
#define VECTORS_PARTS_H
#include "vectors.h"

/* The line that is being read, for errors. */
typedef struct {
    Vectors *v;
    size_t cap; /* of cases */
    const char *what;
    bool headed; /* there was a header */
    int line;
    ds4_err *err;
} Reading;

/* False, with the file and the line before the message. */
bool reading_fail(Reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The next line of *rest, without its end; false: there is none. */
bool reading_line(Reading *r, Str *rest, Str *line);
/* A new case, zero but for its id; NULL: no memory, and r->err says so. */
VectorCase *reading_case(Reading *r);
/* Hexadecimal digits to bytes in the arena. */
bool reading_hex(Reading *r, Str hex, Str *out);

bool vectors_read_official(Reading *r, Str text);

#endif
