/* sampler.h - from logits to a token. Pure functions of their arguments: the
 * same logits and seed give the same token on any machine and thread count. */
#ifndef SAMPLER_H
#define SAMPLER_H
#include "../base/base.h"

/* The logits after how's bias and mask: a token that may not come has -infinity.
 * logits itself where how has neither, else out [n]. NULL: no token is left. */
const float *sample_adjust(const float *logits, int n, const ds4_sampling *how, float *out);
/* logits [n], adjusted; how's bias and mask are not read. scratch: n ds4_choice, the caller's. Order of filters: top_k,
 * top_p, min_p, on the distribution at the given temperature. */
int32_t sample(const float *logits, int n, const ds4_sampling *how, ds4_choice *scratch);
int32_t sample_greedy(const float *logits, int n); /* ties: lower id; NaN never wins */
/* The k best, best first, with log-probabilities at temperature 1. */
int sample_top(const float *logits, int n, ds4_choice *out, int k);
float sample_logprob(const float *logits, int n, int32_t token);

#endif
