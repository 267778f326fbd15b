/* numbers.h - the spellings of numbers within bounds, as automata. */
#ifndef NUMBERS_H
#define NUMBERS_H
#include "dfa.h"

/* A decimal number: -whole.frac, both digits without superfluous zeros. */
typedef struct {
    bool set, exclusive, negative;
    char whole[48], frac[48];
    double value; /* nearly */
} Bound;

/* From the text of a JSON number; false: beyond 1e40 or finer than 1e-40. */
bool bound_read(Bound *b, Str text);

/* Integers of 64 bits, in plain digits, that are at least lo and at most hi,
 * and multiples of `multiple` (0: any). Empty when there is none. */
bool integers_between(Dfa *out, const Bound *lo, const Bound *hi, uint32_t multiple, Effort *effort,
                      ds4_err *err);
/* Numbers that a double holds. With a bound they have no exponent. */
bool reals_between(Dfa *out, const Bound *lo, const Bound *hi, Effort *effort, ds4_err *err);

#endif
