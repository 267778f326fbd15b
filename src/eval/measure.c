/* measure.c - probabilities of tokens, and the distance of two distributions. */
#include "measure.h"
#include <math.h>

double measure_norm(const float *logits, int n)
{
    float most = logits[0];
    double sum = 0;
    for (int i = 1; i < n; i++)
        most = MAX(most, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)most);
    return (double)most + log(sum);
}

int32_t measure_best(const float *logits, int n)
{
    int32_t best = 0;
    for (int i = 1; i < n; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return best;
}

int measure_rank(const float *logits, int n, int32_t id)
{
    int rank = 0;
    for (int i = 0; i < n; i++)
        rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    return rank;
}

static bool is_named(int32_t id, const Likely *named, size_t n)
{
    bool found = false;
    for (size_t i = 0; i < n && !found; i++)
        found = named[i].id == id;
    return found;
}

/* The model's share of all other tokens. Where those that are named have most of it, the others
 * are added up, so that no digits are lost: few of them are as likely as the least of the named,
 * so few are looked for. */
static double rest_of_model(const float *logits, int n, double norm, const Likely *named,
                            size_t n_named)
{
    double share = 0, sum = 0;
    float least = INFINITY;
    for (size_t i = 0; i < n_named; i++) {
        share += exp((double)logits[named[i].id] - norm);
        least = MIN(least, logits[named[i].id]);
    }
    if (share < 0.5)
        return 1 - share;
    for (int i = 0; i < n; i++) {
        if (logits[i] < least || !is_named(i, named, n_named))
            sum += exp((double)logits[i] - norm);
    }
    return sum;
}

double measure_kl(const float *logits, int n, const Likely *named, size_t n_named)
{
    double norm = measure_norm(logits, n), sum = 0, kl = 0;
    for (size_t i = 0; i < n_named; i++)
        sum += exp(named[i].logprob);
    double scale = sum > 1 ? 1 / sum : 1, rest = MAX(0.0, 1 - sum * scale);
    for (size_t i = 0; i < n_named; i++) {
        double q = exp(named[i].logprob) * scale;
        if (q > 0)
            kl += q * (log(q) - ((double)logits[named[i].id] - norm));
    }
    /* Less than what doubles can tell apart is no rest. */
    if (rest > 1e-12) {
        double s = rest_of_model(logits, n, norm, named, n_named);
        kl += rest * log(rest / MAX(s, 1e-300));
    }
    return MAX(kl, 0.0); /* never below but by rounding */
}
