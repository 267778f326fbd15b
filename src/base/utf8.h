/* utf8.h - well-formed UTF-8 and what is not. */
#ifndef UTF8_H
#define UTF8_H
#include "base.h"

/* Bytes of the well-formed character at p, of which n are there; 0 when the
 * bytes are no such character (overlong, surrogate, beyond U+10FFFF, cut off). */
int utf8_char(const char *p, size_t n);

/* Length of the longest well-formed prefix. */
size_t utf8_valid(Str s);

#endif
