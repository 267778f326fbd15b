/* measure.h - what a row of logits says of a token, and how far it is from what
 * somebody else said. Pure functions; sums are in double. */
#ifndef MEASURE_H
#define MEASURE_H
#include "../base/base.h"

/* A token and the logarithm of its probability. */
typedef struct {
    int32_t id;
    double logprob;
} Likely;

/* log of the sum of exp(logits): logits[i] less it is log p_i at temperature 1. NaN where a
 * logit is no number. */
double measure_norm(const float *logits, int n);
int32_t measure_best(const float *logits, int n); /* ties: lower id */
/* How many tokens are likelier than this one; ties: the lower id is. */
int measure_rank(const float *logits, int n, int32_t id);

/* KL(reference || model) in nats of one position, of which the reference names some tokens only:
 *
 *     sum over the named i of q_i log(q_i / p_i)  +  r log(r / s)
 *
 * q: the reference's probabilities, r = max(0, 1 - sum q) its rest; p: the model's, s the sum of
 * p over all other tokens. It is the KL of two distributions over (named tokens, all others), so
 * at most the KL over the whole vocabulary, and equal to it where all tokens are named. A sum of
 * q above 1, as rounded numbers may have, is scaled to 1. Ids are within the vocabulary and differ. */
double measure_kl(const float *logits, int n, const Likely *named, size_t n_named);

#endif
