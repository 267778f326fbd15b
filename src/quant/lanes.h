/* lanes.h - the searching encoders, for 16 parts of blocks at a time.
 *
 * lanes_body.h is their one text, in vectors of 16 floats; each instruction set compiles it
 * anew. A lane does what plain C would do for its part alone, in the same order, and nothing
 * contracts products and sums, so all sets give the same bytes. */
#ifndef LANES_H
#define LANES_H
#include "blocks.h"
#include <stddef.h>

typedef struct {
    const char *name; /* "avx512" */
    /* n blocks of 256 values; importance NULL: all alike */
    void (*q2_k)(BlockQ2_K *out, const float *x, size_t n, const float *importance);
    void (*q4_k)(BlockQ4_K *out, const float *x, size_t n, const float *importance);
    void (*iq2_xxs)(BlockIQ2_XXS *out, const float *x, size_t n, const float *importance);
} Lanes;

/* The best set of this CPU, and the i-th that it has, best first; NULL after the last. */
const Lanes *lanes_best(void);
const Lanes *lanes_at(size_t i);

extern const Lanes lanes_plain, lanes_avx2, lanes_avx512;

#endif
