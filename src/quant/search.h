/* search.h - fitting scales and codes to values: what the searching encoders share.
 *
 * x: 1 <= n <= SEARCH_MAX values; w: their weights, >= 0; codes run from 0 to top. */
#ifndef SEARCH_H
#define SEARCH_H
#include <stdint.h>

enum { SEARCH_MAX = 32 };

/* x ~ scale * code - min, scale and min >= 0. Returns the scale. */
float search_affine(const float *x, const float *w, int n, int top, float *min);

/* x ~ scale * code. Returns the scale; codes [n]. Values below zero get code 0. */
float search_positive(const float *x, const float *w, int n, int top, uint8_t *codes);

/* The scale and min of a part of a block, as they can be stored: scale_unit *
 * *scale and min_unit * *min, whole numbers up to `most`. Try their neighbours
 * with x coded anew and keep the best. */
void search_neighbours(const float *x, const float *w, int n, int top, float scale_unit,
                       float min_unit, int most, uint8_t *scale, uint8_t *min);

/* Nearest integer, ties to even, in 0 .. top; 0 for NaN. */
int search_code(float v, int top);

/* Store as a half, at most the largest; returns what was stored. */
float search_half(uint8_t *half, float v);

/* How much an error at i matters: w[i] = importance[i] * sqrt(variance + x[i]^2);
 * NULL counts as 1 everywhere. Returns the sum. Where no value is important
 * the sum is 0, and the weights are those of NULL: the values still count
 * among themselves. */
float search_weights(float *w, const float *importance, const float *x, int n, float variance);
/* The mean of x^2. */
float search_mean_sq(const float *x, int n);

#endif
