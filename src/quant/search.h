/* search.h - fitting scales and codes to values: what the searching encoders share.
 *
 * x: n <= SEARCH_MAX values; w: their weights, >= 0; codes run from 0 to top. */
#ifndef SEARCH_H
#define SEARCH_H
#include <stdbool.h>
#include <stdint.h>

enum { SEARCH_MAX = 32 };

/* Try (first + step * t + top) codes over the range of x, t = 0 .. steps;
 * absolute: by the sum of w |error|, else of w error^2. */
typedef struct {
    float first, step;
    int steps;
    bool absolute;
} AffineSearch;

/* x ~ scale * code - min, scale and min >= 0. Returns the scale. */
float search_affine(const float *x, const float *w, int n, int top, const AffineSearch *how,
                    float *min);

/* x ~ scale * code. Returns the scale; codes [n]. Values below zero get code 0. */
float search_positive(const float *x, const float *w, int n, int top, uint8_t *codes);

/* The scales (or mins) v of a block's parts as scale * code: with weights w by
 * search_positive, without so that the largest has code top. */
float search_scales(const float *v, const float *w, int n, int top, uint8_t *codes);

/* Store as a half, at most the largest; returns what was stored. */
float search_half(uint8_t *half, float v);

/* Nearest integer, ties to even, in 0 .. top; 0 for NaN. */
int search_code(float v, int top);

/* w[i] = importance[i] * sqrt(variance + x[i]^2): how much an error at i matters. */
void search_weights(float *w, const float *importance, const float *x, int n, float variance);
/* The mean of x^2. */
float search_mean_sq(const float *x, int n);

#endif
