/* lanes_body.h - included by lanes_NAME.c, once each.
 *
 * Q2_K and Q4_K: a part's values are scale * code - min, its scale and min whole multiples of
 * their block's. First each part alone gets the scale and min of least squares for a number
 * of trial codings; then the block's units follow from those; then near multiples are tried,
 * with the values coded anew. */
#include "float.h"
#include "lanes.h"
#include "search.h"
#include <float.h>
#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* How vectors are passed to functions differs by set, and all of these are static. */
#pragma GCC diagnostic ignored "-Wpsabi"

/* Parts at a time; those in one vector; values of the longest part. */
#if defined(__AVX512F__)
enum { LANES = 16, WIDTH = 16, TRIALS = 37, MOST_VALUES = 32 };
#elif defined(__AVX2__)
enum { LANES = 16, WIDTH = 8, TRIALS = 37, MOST_VALUES = 32 };
#else
enum { LANES = 16, WIDTH = 4, TRIALS = 37, MOST_VALUES = 32 };
#endif

typedef float V __attribute__((vector_size(4 * WIDTH)));
typedef int32_t M __attribute__((vector_size(4 * WIDTH))); /* -1 where true */

static inline V all(float v) { return (V){ 0 } + v; }
static inline V pick(M m, V a, V b) { return (V)((m & (M)a) | (~m & (M)b)); }
static inline V smaller(V a, V b) { return pick(a < b, a, b); }
static inline V larger(V a, V b) { return pick(a > b, a, b); }

static inline V root(V v)
{
#if defined(__AVX512F__)
    return (V)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
    return (V)_mm256_sqrt_ps((__m256)v);
#else
    for (int l = 0; l < WIDTH; l++)
        v[l] = sqrtf(v[l]);
    return v;
#endif
}

/* The nearest integer, ties to even, of what is below 2^22, at most top. */
static inline V code_of(V v, V top) { return (smaller(v, top) + 0x1.8p23f) - 0x1.8p23f; }

/* ---- WIDTH parts of n values --------------------------------------------------------- */

typedef struct {
    int n, top, most; /* values; the largest code, and scale or min */
    V x[MOST_VALUES], w[MOST_VALUES];
    V variance;   /* what is added to squares of values for their weights */
    V scale, min; /* as in Set */
    V weight;
} Parts;

/* w = importance * sqrt(variance + x^2). Where nothing is important, the part counts nothing in
 * its block, and its values count among themselves as if all were alike. */
static void weigh(Parts *p, const float *importance)
{
    V plain = all(0), sum = all(0), v[MOST_VALUES];
    for (int i = 0; i < p->n; i++) {
        p->w[i] = root(p->variance + p->x[i] * p->x[i]);
        plain += p->w[i];
    }
    p->weight = plain;
    if (!importance)
        return;
    for (int i = 0; i < p->n; i++) {
        for (int l = 0; l < WIDTH; l++)
            v[i][l] = importance[l * p->n + i];
        v[i] = v[i] * p->w[i];
        sum += v[i];
    }
    for (int i = 0; i < p->n; i++)
        p->w[i] = pick(sum > 0, v[i], p->w[i]);
    p->weight = pick(sum > 0, sum, all(0));
}

typedef struct {
    V scale, low, gain; /* x ~ scale * code + low, low <= 0; how much less the squares are */
} Fit;

/* Sums over a part, of weights, codes and values. */
typedef struct {
    V w, x, c, cc, xc;
} Sums;

static inline Fit solve(const Sums *s)
{
    const V det = s->w * s->cc - s->c * s->c;
    V scale = (s->w * s->xc - s->x * s->c) / det, low = (s->cc * s->x - s->c * s->xc) / det;
    const M above = low > 0;
    scale = pick(above, s->xc / s->cc, scale);
    low = pick(above, all(0), low);
    const V gain = scale * s->xc + low * s->x;
    return (Fit){ scale, low, pick(det > 0, gain, all(-FLT_MAX)) };
}

/* The codings have 0.9 fewer to 0.9 more codes than the range of values. */
static void fit(Parts *p)
{
    V low = all(0), high = p->x[0], y[MOST_VALUES], wx[MOST_VALUES];
    Sums s = { all(0), all(0), all(0), all(0), all(0) };
    for (int i = 0; i < p->n; i++) {
        low = smaller(p->x[i], low);
        high = larger(p->x[i], high);
        wx[i] = p->w[i] * p->x[i];
        s.w += p->w[i];
        s.x += wx[i];
    }
    for (int i = 0; i < p->n; i++)
        y[i] = p->x[i] - low;
    const V range = high - low, top = all((float)p->top), unit = all(1) / range;
    Fit best = { range / top, low, all(-FLT_MAX) };
    for (int t = 0; t < TRIALS; t++) {
        const V inverse = all((float)p->top - 0.9f + 0.05f * (float)t) * unit;
        s.c = s.cc = s.xc = all(0);
        for (int i = 0; i < p->n; i++) {
            const V c = code_of(inverse * y[i], top), wc = p->w[i] * c;
            s.c += wc;
            s.cc += wc * c;
            s.xc += wx[i] * c;
        }
        const Fit f = solve(&s);
        const M better = f.gain > best.gain;
        best.scale = pick(better, f.scale, best.scale);
        best.low = pick(better, f.low, best.low);
        best.gain = pick(better, f.gain, best.gain);
    }
    /* Values that are all alike, or too near to each other for a float. */
    const M usable = (range > 0) & (unit * top <= FLT_MAX);
    p->scale = pick(usable, best.scale, all(0));
    p->min = -pick(usable, best.low, low);
}

/* The error with the nearest codes. */
static inline V error_of(const Parts *p, V scale, V min)
{
    const V inverse = pick(scale > 0, all(1) / scale, all(0)), top = all((float)p->top);
    V sum = all(0);
    for (int i = 0; i < p->n; i++) {
        const V y = p->x[i] + min, d = scale * code_of(larger(y * inverse, all(0)), top) - y;
        sum += p->w[i] * d * d;
    }
    return sum;
}

/* Among the multiples near to the ones at hand. */
static void try_neighbours(Parts *p, V scale_unit, V min_unit)
{
    const V s0 = p->scale, m0 = p->min, most = all((float)p->most);
    V best = error_of(p, scale_unit * s0, min_unit * m0);
    for (int a = -1; a <= 1; a++) {
        for (int b = -3; b <= 3; b++) {
            const V s = s0 + (float)a, m = m0 + (float)b;
            const V e = error_of(p, scale_unit * s, min_unit * m);
            const M better = (e < best) & (s >= 0) & (m >= 0) & (s <= most) & (m <= most);
            best = pick(better, e, best);
            p->scale = pick(better, s, p->scale);
            p->min = pick(better, m, p->min);
        }
    }
}

static void put_codes(const Parts *p, V scale, V min, uint8_t code[WIDTH][MOST_VALUES])
{
    const V top = all((float)p->top), inverse = pick(scale > 0, all(1) / scale, all(0));
    for (int i = 0; i < p->n; i++) {
        const V c = code_of(larger((p->x[i] + min) * inverse, all(0)), top);
        for (int l = 0; l < WIDTH; l++)
            code[l][i] = (uint8_t)c[l];
    }
}

/* ---- all LANES parts, of one or more blocks --------------------------------------------- */

typedef struct {
    Parts part[LANES / WIDTH];
    float scale[LANES], min[LANES]; /* of each part; then whole multiples of its block's */
    float weight[LANES];            /* of a part in its block */
    float d[LANES], dmin[LANES];    /* its block's units */
    uint8_t code[LANES][MOST_VALUES];
} Set;

/* The mean square of each block's `per` parts, times `factor`. */
static void take_variances(Set *s, int per, float factor)
{
    float sum[LANES];
    for (int k = 0; k < LANES / WIDTH; k++) {
        const Parts *p = &s->part[k];
        V v = all(0);
        for (int i = 0; i < p->n; i++)
            v += p->x[i] * p->x[i];
        memcpy(sum + WIDTH * k, &v, sizeof v);
    }
    for (int l = 0; l < LANES; l += per) {
        float whole = 0;
        for (int i = l; i < l + per; i++)
            whole += sum[i];
        for (int i = l; i < l + per; i++)
            s->part[i / WIDTH].variance[i % WIDTH] = factor * whole / (float)QK;
    }
}

/* Each part alone. The parts of n values lie one after the other, `per` of them in a block. */
static void fit_parts(Set *s, const Parts *form, const float *x, const float *importance, int per,
                      float factor)
{
    for (int k = 0; k < LANES / WIDTH; k++) {
        Parts *p = &s->part[k];
        p->n = form->n;
        p->top = form->top;
        p->most = form->most;
        for (int i = 0; i < p->n; i++)
            for (int l = 0; l < WIDTH; l++)
                p->x[i][l] = x[(WIDTH * k + l) * p->n + i];
    }
    take_variances(s, per, factor);
    for (int k = 0; k < LANES / WIDTH; k++) {
        Parts *p = &s->part[k];
        weigh(p, importance ? importance + WIDTH * k * p->n : NULL);
        fit(p);
        memcpy(s->scale + WIDTH * k, &p->scale, sizeof p->scale);
        memcpy(s->min + WIDTH * k, &p->min, sizeof p->min);
        memcpy(s->weight + WIDTH * k, &p->weight, sizeof p->weight);
    }
}

/* The unit of a block's scales or mins, as it is stored; they become multiples of it. */
static void take_unit(uint8_t half[2], float *unit, float *of, const float *weight, int per,
                      int most)
{
    uint8_t code[LANES];
    const float u = search_half(half, search_positive(of, weight, per, most, code));
    for (int l = 0; l < per; l++) {
        of[l] = (float)code[l];
        unit[l] = u;
    }
}

/* Near multiples, and the codes. */
static void finish(Set *s)
{
    for (int k = 0; k < LANES / WIDTH; k++) {
        Parts *p = &s->part[k];
        V d, dmin;
        memcpy(&d, s->d + WIDTH * k, sizeof d);
        memcpy(&dmin, s->dmin + WIDTH * k, sizeof dmin);
        memcpy(&p->scale, s->scale + WIDTH * k, sizeof p->scale);
        memcpy(&p->min, s->min + WIDTH * k, sizeof p->min);
        try_neighbours(p, d, dmin);
        put_codes(p, d * p->scale, dmin * p->min, s->code + WIDTH * k);
        memcpy(s->scale + WIDTH * k, &p->scale, sizeof p->scale);
        memcpy(s->min + WIDTH * k, &p->min, sizeof p->min);
    }
}

/* ---- blocks --------------------------------------------------------------------------- */

static void q2_k_block(BlockQ2_K *b, const float *x, const float *importance)
{
    static const Parts form = { .n = 16, .top = 3, .most = 15 };
    Set s;
    fit_parts(&s, &form, x, importance, 16, 1);
    take_unit(b->d, s.d, s.scale, s.weight, 16, form.most);
    take_unit(b->dmin, s.dmin, s.min, s.weight, 16, form.most);
    finish(&s);
    memset(b->q, 0, sizeof b->q);
    for (int sub = 0; sub < 16; sub++) {
        uint8_t *q = b->q + 32 * (sub / 8) + 16 * (sub % 2);
        b->scales[sub] = (uint8_t)((int)s.scale[sub] | (int)s.min[sub] << 4);
        for (int i = 0; i < 16; i++)
            q[i] = (uint8_t)(q[i] | s.code[sub][i] << sub % 8 / 2 * 2);
    }
}

/* j ascending, into bytes that were zero. */
static void put_scale_and_min(uint8_t *s, int j, int scale, int min)
{
    if (j < 4) {
        s[j] = (uint8_t)scale;
        s[j + 4] = (uint8_t)min;
    } else {
        s[j + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        s[j - 4] = (uint8_t)(s[j - 4] | scale >> 4 << 6);
        s[j] = (uint8_t)(s[j] | min >> 4 << 6);
    }
}

static void put_q4_k(BlockQ4_K *b, const float *scale, const float *min,
                     uint8_t code[8][MOST_VALUES])
{
    memset(b->s, 0, sizeof b->s);
    for (int j = 0; j < 8; j++)
        put_scale_and_min(b->s, j, (int)scale[j], (int)min[j]);
    for (int i = 0; i < 128; i++)
        b->q[i] = (uint8_t)(code[i / 32 * 2][i % 32] | code[i / 32 * 2 + 1][i % 32] << 4);
}

/* Two blocks of eight parts. */
static void q4_k_blocks(BlockQ4_K b[2], const float *x, const float *importance)
{
    static const Parts form = { .n = 32, .top = 15, .most = 63 };
    Set s;
    fit_parts(&s, &form, x, importance, 8, 2);
    for (int l = 0; l < LANES; l += 8) {
        take_unit(b[l / 8].d, s.d + l, s.scale + l, s.weight + l, 8, form.most);
        take_unit(b[l / 8].dmin, s.dmin + l, s.min + l, s.weight + l, 8, form.most);
    }
    finish(&s);
    for (int l = 0; l < LANES; l += 8)
        put_q4_k(&b[l / 8], s.scale + l, s.min + l, s.code + l);
}

static void q2_k(BlockQ2_K *out, const float *x, size_t n, const float *importance)
{
    for (size_t i = 0; i < n; i++)
        q2_k_block(out + i, x + QK * i, importance ? importance + QK * i : NULL);
}

/* A last one alone is taken twice. */
static void q4_k(BlockQ4_K *out, const float *x, size_t n, const float *importance)
{
    size_t i = 0;
    for (; i + 2 <= n; i += 2)
        q4_k_blocks(out + i, x + QK * i, importance ? importance + QK * i : NULL);
    if (i < n) {
        BlockQ4_K pair[2];
        float twice[2 * QK], twice_important[2 * QK];
        for (int k = 0; k < 2; k++) {
            memcpy(twice + QK * k, x + QK * i, QK * sizeof *x);
            if (importance)
                memcpy(twice_important + QK * k, importance + QK * i, QK * sizeof *x);
        }
        q4_k_blocks(pair, twice, importance ? twice_important : NULL);
        out[i] = pair[0];
    }
}

#include "iq2_body.h"

const Lanes LANES_TABLE = { LANES_NAME, q2_k, q4_k, iq2_xxs };
