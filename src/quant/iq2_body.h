/* iq2_body.h - the encoder of IQ2_XXS, a part of lanes_body.h.
 *
 * Some scales are tried for each 32 values. At a scale every magnitude takes the nearest of
 * three levels; the tuple of levels that eight of them make has a list of near tuples of the grid
 * (iq2_near.h), of which the best is taken. An even number of signs of a tuple is stored, so
 * where it is odd the least important value changes its sign.
 *
 * Fits are to the values that the decoder makes, 8 25 43, and not to 1 3 5, which would leave
 * the scales 6 % too large. */
#include "iq2_near.h"

/* Magnitudes (below zero where the sign is not the stored one), their weights, and the
 * product of both. */
typedef struct {
    float x[32], w[32], wx[32];
    uint8_t signs[4];
} Group;

typedef struct {
    uint8_t index[4];
    float scale, gain;
} GroupFit;

/* The sum of 32 products a * b * c (c NULL: 1): by twos, and then in halves. */
static inline float total(const float *a, const float *b, const float *c)
{
    float v[16];
    for (int l = 0; l < 16; l++) {
        const float low = a[l] * b[l], high = a[l + 16] * b[l + 16];
        v[l] = c ? low * c[l] + high * c[l + 16] : low + high;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            v[l] += v[l + half];
    return v[0];
}

static void take_signs(Group *g, const float *x)
{
    float *magnitude = g->x;
    const float *w = g->w;
    for (int k = 0; k < 4; k++) {
        int mask = 0, least = 8 * k;
        for (int i = 8 * k; i < 8 * k + 8; i++) {
            magnitude[i] = fabsf(x[i]);
            mask |= (x[i] < 0) << i % 8;
            if (w[i] * x[i] * x[i] < w[least] * x[least] * x[least])
                least = i;
        }
        if (__builtin_parity((unsigned)mask)) {
            mask ^= 1 << least % 8;
            magnitude[least] = -magnitude[least];
        }
        g->signs[k] = (uint8_t)(mask & 127);
    }
}

static void make_group(Group *g, const float *x, const float *importance, float variance)
{
    float v[32], sum = 0;
    for (int i = 0; i < 32; i++)
        g->w[i] = sqrtf(variance + x[i] * x[i]);
    for (int i = 0; importance && i < 32; i++) {
        v[i] = importance[i] * g->w[i];
        sum += v[i];
    }
    /* Where nothing is important the values count among themselves. */
    if (sum > 0)
        memcpy(g->w, v, sizeof g->w);
    take_signs(g, x);
    for (int i = 0; i < 32; i++)
        g->wx[i] = g->w[i] * g->x[i];
}

/* ---- the best of near tuples ------------------------------------------------------- */

enum { NO_PAIR = 9 };

#if defined(__AVX512F__)

/* What the levels of four values cost, four floats a value, of which the last is none. */
static inline __m512 costs_of(__m512 y, __m512 w, int first)
{
    const __m512 magnitude = _mm512_setr4_ps(1, 25 / 8.0f, 43 / 8.0f, 0);
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    const __m512 d = _mm512_sub_ps(magnitude, _mm512_permutexvar_ps(at, y));
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_permutexvar_ps(at, w), d), d);
}

/* What the nine pairs of levels of two neighbours cost; the others are infinite. */
static inline __m512 pair_costs(const float *cost)
{
    const __m512i first = _mm512_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3);
    const __m512i second = _mm512_setr_epi32(0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3);
    const __m512 a = _mm512_broadcast_f32x4(_mm_loadu_ps(cost)),
                 b = _mm512_broadcast_f32x4(_mm_loadu_ps(cost + 4));
    const __m512 sum =
        _mm512_add_ps(_mm512_permutexvar_ps(first, a), _mm512_permutexvar_ps(second, b));
    return _mm512_mask_blend_ps(0x1ff, _mm512_set1_ps(INFINITY), sum);
}

/* The place in the list of the least sum; the first of equal ones. */
static inline uint32_t best_place(const uint16_t *pairs, uint32_t n_chunks, const float *cost)
{
    __m512 pair[4], best = _mm512_set1_ps(INFINITY);
    __m512i place = _mm512_setzero_si512(),
            at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int p = 0; p < 4; p++)
        pair[p] = pair_costs(cost + 8 * p);
    for (uint32_t k = 0; k < n_chunks; k++, pairs += IQ2_CHUNK) {
        const __m512i code =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)pairs));
        const __m512 ab = _mm512_add_ps(_mm512_permutexvar_ps(code, pair[0]),
                                        _mm512_permutexvar_ps(_mm512_srli_epi32(code, 4), pair[1]));
        const __m512 cd =
            _mm512_add_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(code, 8), pair[2]),
                          _mm512_permutexvar_ps(_mm512_srli_epi32(code, 12), pair[3]));
        const __m512 sum = _mm512_add_ps(ab, cd);
        const __mmask16 less = _mm512_cmp_ps_mask(sum, best, _CMP_LT_OQ);
        best = _mm512_mask_blend_ps(less, best, sum);
        place = _mm512_mask_blend_epi32(less, place, at);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(IQ2_CHUNK));
    }
    const __m512 least = _mm512_set1_ps(_mm512_reduce_min_ps(best));
    const __mmask16 equal = _mm512_cmp_ps_mask(best, least, _CMP_EQ_OQ);
    return (uint32_t)_mm512_mask_reduce_min_epu32(equal, place);
}

/* The grid tuples for 32 magnitudes at a scale, given as its inverse. */
static void best_tuples(const Iq2Near *near, const Group *g, float inverse, uint8_t index[4])
{
    float cost[4 * 32];
    uint32_t low[2], high[2];
    for (int h = 0; h < 2; h++) {
        const __m512 w = _mm512_loadu_ps(g->w + 16 * h);
        const __m512 y = _mm512_mul_ps(_mm512_loadu_ps(g->x + 16 * h), _mm512_set1_ps(inverse));
        for (int i = 0; i < 4; i++)
            _mm512_storeu_ps(cost + 64 * h + 16 * i, costs_of(y, w, 4 * i));
        low[h] = _mm512_cmp_ps_mask(y, _mm512_set1_ps(33 / 16.0f), _CMP_GT_OQ);
        high[h] = _mm512_cmp_ps_mask(y, _mm512_set1_ps(68 / 16.0f), _CMP_GT_OQ);
    }
    for (int k = 0; k < 4; k++) {
        const int shift = k % 2 * 8;
        const uint32_t t = (uint32_t)near->ternary[low[k / 2] >> shift & 255] +
                           near->ternary[high[k / 2] >> shift & 255];
        const uint32_t first = near->first[t], at = first * IQ2_CHUNK;
        uint32_t place = 0;
        if (near->pairs[at + 1] != 0x9999)
            place = best_place(near->pairs + at, near->first[t + 1] - first, cost + 32 * k);
        index[k] = near->index[at + place];
    }
}

#else

static uint8_t best_tuple(const Iq2Near *near, const float *x, const float *w, float inverse)
{
    static const float magnitude[3] = { 1, 25 / 8.0f, 43 / 8.0f };
    float cost[8][3], pair[4][NO_PAIR];
    unsigned low = 0, high = 0;
    for (int j = 0; j < 8; j++) {
        const float y = x[j] * inverse;
        for (int l = 0; l < 3; l++)
            cost[j][l] = w[j] * (magnitude[l] - y) * (magnitude[l] - y);
        low |= (unsigned)(y > 33 / 16.0f) << j;
        high |= (unsigned)(y > 68 / 16.0f) << j;
    }
    const uint32_t t = (uint32_t)near->ternary[low] + near->ternary[high];
    const uint16_t *pairs = near->pairs + near->first[t] * IQ2_CHUNK;
    const uint8_t *index = near->index + near->first[t] * IQ2_CHUNK;
    const uint32_t n = (near->first[t + 1] - near->first[t]) * IQ2_CHUNK;
    if (pairs[1] == 0x9999)
        return index[0];
    for (int p = 0; p < 4; p++)
        for (int a = 0; a < NO_PAIR; a++)
            pair[p][a] = cost[2 * p][a / 3] + cost[2 * p + 1][a % 3];
    uint32_t best = 0;
    float least = INFINITY;
    for (uint32_t i = 0; i < n && pairs[i] != 0x9999; i++) {
        const float sum = (pair[0][pairs[i] & 15] + pair[1][pairs[i] >> 4 & 15]) +
                          (pair[2][pairs[i] >> 8 & 15] + pair[3][pairs[i] >> 12]);
        if (sum < least) {
            least = sum;
            best = i;
        }
    }
    return index[best];
}

static void best_tuples(const Iq2Near *near, const Group *g, float inverse, uint8_t index[4])
{
    for (int k = 0; k < 4; k++)
        index[k] = best_tuple(near, g->x + 8 * k, g->w + 8 * k, inverse);
}

#endif

/* ---- groups and blocks ----------------------------------------------------------------- */

static GroupFit fit_at(const Iq2Near *near, const Group *g, float inverse)
{
    GroupFit f = { .gain = 0 };
    float q[32];
    best_tuples(near, g, inverse, f.index);
    for (int k = 0; k < 4; k++)
        memcpy(q + 8 * k, near->magnitude[f.index[k]], 8 * sizeof *q);
    const float xq = total(g->wx, q, NULL), qq = total(g->w, q, q);
    if (xq > 0 && qq > 0) {
        f.scale = xq / qq;
        f.gain = xq * f.scale;
    }
    return f;
}

/* From a scale at which the values are like the lowest level to one at which they are like the
 * highest but one and above; then what the best one's own scale gives. */
static GroupFit fit_group(const Iq2Near *near, const Group *g)
{
    const float xx = total(g->wx, g->x, NULL);
    float ww = 0;
    for (int i = 0; i < 32; i++)
        ww += g->w[i];
    float inverse = sqrtf(ww / xx);
    GroupFit best = { .gain = 0 };
    if (!(xx > 0) || !isfinite(inverse))
        return best;
    for (int t = 0; t < 10; t++) {
        const GroupFit f = fit_at(near, g, inverse);
        if (f.gain > best.gain)
            best = f;
        inverse *= 1.17f;
    }
    for (int pass = 0; pass < 2 && best.gain > 0; pass++) {
        const GroupFit f = fit_at(near, g, 1 / best.scale);
        if (f.gain > best.gain)
            best = f;
    }
    return best;
}

static void iq2_xxs_block(const Iq2Near *near, BlockIQ2_XXS *b, const float *x,
                          const float *importance)
{
    Group group[8];
    GroupFit f[8];
    const float variance = search_mean_sq(x, QK);
    float max = 0;
    for (int i = 0; i < 8; i++) {
        make_group(&group[i], x + 32 * i, importance ? importance + 32 * i : NULL, variance);
        f[i] = fit_group(near, &group[i]);
        max = fmaxf(max, f[i].scale);
    }
    const float d = search_half(b->d, max / 31);
    for (int i = 0; i < 8; i++) {
        int s = d > 0 ? search_code(0.5f * (f[i].scale / d - 1), 15) : 0;
        uint32_t a = (uint32_t)s << 28;
        for (int k = 0; k < 4; k++)
            a |= (uint32_t)group[i].signs[k] << 7 * k;
        memcpy(b->g[i].index, f[i].index, 4);
        u32_put(b->g[i].signs, a);
    }
}

static void iq2_xxs(BlockIQ2_XXS *out, const float *x, size_t n, const float *importance)
{
    const Iq2Near *near = iq2_near();
    for (size_t i = 0; i < n; i++)
        iq2_xxs_block(near, out + i, x + QK * i, importance ? importance + QK * i : NULL);
}
