/* sampler.c - from logits to a token.
 *
 * The same logits and seed must give the same token on every machine, so
 * exponentials are made here of additions and multiplications, which are
 * rounded alike everywhere; libm's differ in the last bit between systems.
 *
 * Filters take the likeliest tokens off a heap until they have enough: a
 * vocabulary of 129,280 is never sorted. */
#include "sampler.h"
#include "../base/rng.h"
#include <math.h>

/* One exponential waits for its divisions; so many take hardly longer, since
 * none waits for another. */
enum { LANES = 8 };

/* 2^k of a normal number, from its bits. */
static double power_of_two(int k)
{
    const uint64_t bits = (uint64_t)(k + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x [LANES] = exp(x) for x <= 0, to about 1e-15: 2^k * exp(r), |r| <= ln(2) / 2.
 * 0 for NaN and below -700. */
static void exp_fixed(double *x)
{
    double r[LANES], sum[LANES], scale[LANES];

    for (int j = 0; j < LANES; j++) {
        const double in = x[j] > -700 ? x[j] : -700;
        const int k = (int)(in * 1.4426950408889634 - 0.5);
        r[j] = (in - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
        sum[j] = 1;
        scale[j] = x[j] > -700 ? power_of_two(k) : 0;
    }
    for (int i = 13; i > 0; i--)
        for (int j = 0; j < LANES; j++)
            sum[j] = 1 + sum[j] * r[j] / i;
    for (int j = 0; j < LANES; j++)
        x[j] = sum[j] * scale[j];
}

/* ---- greedy, log-probabilities -------------------------------------------- */

/* The largest of n values, n at most BLOCK; NaN is no number. In lanes, so that the compiler
 * uses vectors. */
enum { BLOCK = 1024, WIDE = 16 };

static float largest(const float *x, int n)
{
    float top[WIDE], most = -INFINITY;
    int i = 0;

    for (int j = 0; j < WIDE; j++)
        top[j] = -INFINITY;
    for (; i + WIDE <= n; i += WIDE)
        for (int j = 0; j < WIDE; j++)
            top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (int j = 0; j < WIDE; j++)
        most = top[j] > most ? top[j] : most;
    return most;
}

/* Which block has the first of the largest, then where it is. */
int32_t sample_greedy(const float *logits, int n)
{
    float top = -INFINITY;
    int block = 0;

    for (int at = 0; at < n; at += BLOCK) {
        const float most = largest(logits + at, MIN(n - at, (int)BLOCK));
        if (most > top) {
            top = most;
            block = at;
        }
    }
    for (int i = block; i < n; i++)
        if (logits[i] == top)
            return i;
    return 0;
}

/* log of the sum of exponentials; NaN counts as nothing. */
static double log_sum(const float *logits, int n)
{
    const double top = (double)logits[sample_greedy(logits, n)];
    double sum = 0;

    if (!isfinite(top))
        return top;
    for (int i = 0; i < n; i += LANES) {
        double x[LANES];
        for (int j = 0; j < LANES; j++)
            x[j] = i + j < n ? (double)logits[i + j] - top : -INFINITY;
        exp_fixed(x);
        for (int j = 0; j < LANES; j++)
            sum += x[j];
    }
    return top + log(sum);
}

static float logprob(float logit, double norm)
{
    if (isnan(logit) || !isfinite(norm))
        return (double)logit == norm ? 0 : -INFINITY;
    return (float)((double)logit - norm);
}

float sample_logprob(const float *logits, int n, int32_t token)
{
    if (token < 0 || token >= n)
        return -INFINITY;
    return logprob(logits[token], log_sum(logits, n));
}

/* ---- a heap of choices ---------------------------------------------------- */

/* While at work, a choice's logprob holds its logit. */
static bool better(const ds4_choice *a, const ds4_choice *b)
{
    return a->logprob > b->logprob || (a->logprob == b->logprob && a->token < b->token);
}

/* Let h[at] sink to its place; sign 1: the best on top, -1: the worst. */
static void sink(ds4_choice *h, int n, int at, int sign)
{
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(&h[child + 1], &h[child]) == (sign > 0))
            child++;
        if (better(&h[child], &h[at]) != (sign > 0))
            return;
        ds4_choice t = h[at];
        h[at] = h[child];
        h[child] = t;
    }
}

static void heapify(ds4_choice *h, int n, int sign)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sink(h, n, i, sign);
}

/* Move the top of a heap of n to h[n - 1]. */
static void pop(ds4_choice *h, int n, int sign)
{
    ds4_choice top = h[0];
    h[0] = h[n - 1];
    h[n - 1] = top;
    sink(h, n - 1, 0, sign);
}

int sample_top(const float *logits, int n, ds4_choice *out, int k)
{
    int m = 0;

    if (n <= 0 || k <= 0)
        return 0;
    for (int i = 0; i < n; i++) {
        const ds4_choice c = { i, logits[i] };
        if (isnan(logits[i]))
            continue;
        if (m < k) {
            out[m++] = c;
            if (m == k)
                heapify(out, m, -1);
        } else if (better(&c, &out[0])) {
            out[0] = c;
            sink(out, m, 0, -1);
        }
    }
    if (m < k)
        heapify(out, m, -1);
    for (int i = m; i > 1; i--) /* the worst go to the end */
        pop(out, i, -1);
    const double norm = log_sum(logits, n);
    for (int i = 0; i < m; i++)
        out[i].logprob = logprob(out[i].logprob, norm);
    return m;
}

/* ---- bias and mask ---------------------------------------------------------- */

/* Most words of a mask are all or nothing: a text may go on with nearly any
 * token, a keyword with few. */
static void mask_word(float *logits, int n, uint32_t bits)
{
    if (bits == UINT32_MAX)
        return;
    for (int i = 0; i < n; i++)
        logits[i] = bits >> i & 1 ? logits[i] : -INFINITY;
}

const float *sample_adjust(const float *logits, int n, const ds4_sampling *how, float *out)
{
    if (!how->mask && how->n_bias <= 0)
        return logits;
    memcpy(out, logits, (size_t)n * sizeof *out);
    for (int i = 0; i < how->n_bias; i++)
        if (how->bias[i].token >= 0 && how->bias[i].token < n)
            out[how->bias[i].token] += how->bias[i].add;
    for (int i = 0; how->mask && i < n; i += 32)
        mask_word(out + i, MIN(32, n - i), how->mask[i / 32]);
    return out[sample_greedy(out, n)] > -INFINITY ? out : NULL;
}

/* ---- sampling ------------------------------------------------------------- */

typedef struct {
    double top, scale;
} Weigh; /* of a logit: exp((l - top) / temperature) */

/* out [LANES]: the weights of c[0], c[step], c[2 * step], ...; 0 from the n-th on. */
static void weigh(const Weigh *w, const ds4_choice *c, int n, int step, double *out)
{
    for (int j = 0; j < LANES; j++)
        out[j] = j < n ? ((double)c[j * step].logprob - w->top) * w->scale : -INFINITY;
    exp_fixed(out);
}

/* All candidates that can be drawn at all. min_p is applied here, loosely, so
 * that what follows has little to do; keep() applies it exactly. */
static int collect(const float *logits, int n, const Weigh *w, double least, ds4_choice *out)
{
    const double low = least > 0 ? log(least) - 1e-3 : -700;
    int m = 0;

    for (int i = 0; i < n; i++)
        if (((double)logits[i] - w->top) * w->scale > low)
            out[m++] = (ds4_choice){ i, logits[i] };
    return m;
}

static double sum_weights(const ds4_choice *c, int n, const Weigh *w)
{
    double sum = 0, x[LANES];

    for (int i = 0; i < n; i += LANES) {
        weigh(w, c + i, n - i, 1, x);
        for (int j = 0; j < LANES; j++)
            sum += x[j];
    }
    return sum;
}

/* Keep the candidates that pass the filters, best first, at the end of c:
 * returns how many; the best is c[n - 1]. *total: their weight. */
static int keep(ds4_choice *c, int n, const ds4_sampling *how, const Weigh *w, double *total)
{
    const int most = how->top_k > 0 ? MIN(how->top_k, n) : n;
    const bool nucleus = how->top_p > 0 && how->top_p < 1;
    int popped = 0, kept = 0;
    double enough = INFINITY, p[LANES];

    heapify(c, n, 1);
    if (nucleus) {
        if (most < n)
            for (; popped < most; popped++)
                pop(c, n - popped, 1);
        enough = (double)how->top_p *
                 (most < n ? sum_weights(c + n - most, most, w) : sum_weights(c, n, w));
    }
    for (*total = 0; kept < most && *total < enough; kept++) {
        if (kept == popped)
            pop(c, n - popped++, 1);
        weigh(w, &c[n - 1 - kept], 1, 1, p);
        if (kept && p[0] < (double)how->min_p)
            break;
        *total += p[0];
    }
    return kept;
}

static int32_t draw(const ds4_choice *last, int n, const Weigh *w, double total, uint64_t *rng)
{
    double at = rng_unit(rng) * total, x[LANES];

    for (int i = 0; i < n; i++) {
        if (i % LANES == 0)
            weigh(w, last - i, n - i, -1, x);
        at -= x[i % LANES];
        if (at < 0)
            return last[-i].token;
    }
    return last[-(n - 1)].token;
}

int32_t sample(const float *logits, int n, const ds4_sampling *how, ds4_choice *scratch)
{
    const int32_t best = sample_greedy(logits, n);
    const bool filters = how->top_k > 0 || (how->top_p > 0 && how->top_p < 1) || how->min_p > 0;

    if (!how->rng || !(how->temperature > 0) || !isfinite(logits[best]))
        return best;
    const Weigh w = { (double)logits[best], 1 / (double)how->temperature };
    const bool early = !(how->top_p > 0 && how->top_p < 1); /* min_p comes after top_p */
    const double least = MIN((double)how->min_p, 1);        /* the best always passes */
    int m = collect(logits, n, &w, early ? least : 0, scratch);
    double total;
    int kept = m;

    if (filters)
        kept = keep(scratch, m, how, &w, &total);
    else
        total = sum_weights(scratch, m, &w);
    return draw(scratch + m - 1, kept, &w, total, how->rng);
}
