/* search.h - fitting scales and codes to values: what the searching encoders share.
 *
 * x: 1 <= n <= SEARCH_MAX values; w: their weights, >= 0; codes run from 0 to top. */
#ifndef SEARCH_H
#define SEARCH_H
#include <stdint.h>

enum { SEARCH_MAX = 32 };

/* x ~ scale * code. Returns the scale; codes [n]. Values below zero get code 0. */
float search_positive(const float *x, const float *w, int n, int top, uint8_t *codes);

/* Nearest integer, ties to even, in 0 .. top; 0 for NaN. */
int search_code(float v, int top);

/* Store as a half, at most the largest; returns what was stored. */
float search_half(uint8_t *half, float v);

/* The mean of x^2. */
float search_mean_sq(const float *x, int n);

#endif
