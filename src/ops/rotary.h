/* rotary.h - the frequencies of rotary positions, alike on all devices. */
#ifndef ROTARY_H
#define ROTARY_H
#include "shape.h"

/* Of the rope_dim / 2 pairs: plain, and for layers with compression. */
void rotary_frequencies(const Shape *s, float *plain, float *compressed);

#endif
