/* iq2_xxs.c - 8-tuples from a grid of 256, signs apart: 2.0625 bits a weight.
 *
 * The encoder tries some scales for each 32 values. At a scale every magnitude
 * takes the nearest of three levels; of the 6561 tuples of levels only 256 are
 * in the grid, so the others have a list of near grid tuples made beforehand,
 * and the best of it is taken. An even number of signs of a tuple is stored,
 * so where it is odd the least important value changes its sign.
 *
 * Fits are to the values that the decoder makes, 8 25 43, and not to 1 3 5,
 * which would leave the scales 6 % too large. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "iq2xxs_grid.h"
#include "search.h"
#include <assert.h>
#include <math.h>
#include <pthread.h>

void iq2_xxs_decode(float *dst, const void *src, size_t n)
{
    const BlockIQ2_XXS *b = src;
    for (size_t i = 0; i < n; i += QK, b++) {
        float d = f16_at(b->d);
        for (int g = 0; g < 8; g++) {
            uint32_t a = u32_at(b->g[g].signs);
            float s = d * (0.5f + (float)(a >> 28)) * 0.25f;
            for (int k = 0; k < 4; k++, dst += 8) {
                uint64_t tuple = iq2xxs_grid[b->g[g].index[k]];
                uint32_t signs = iq2xxs_signs(a >> 7 * k);
                for (int j = 0; j < 8; j++) {
                    float v = s * (float)(int)(tuple >> 8 * j & 255);
                    dst[j] = f32_from_bits(f32_bits(v) ^ (signs >> j & 1) << 31);
                }
            }
        }
    }
}

/* ---- which grid tuples are near a tuple of levels -------------------------------- */

enum { TUPLES = 6561, NEAR = 113413 }; /* 3^8; the entries of all lists */

/* Made once, then only read. Tuple t = sum of level_j 3^j has the grid indices
 * list[first[t]] .. list[first[t + 1] - 1]; a grid tuple has itself alone. */
static struct {
    uint32_t first[TUPLES + 1];
    uint8_t list[NEAR];
    uint8_t level[256][8];
    uint8_t pair[256][4]; /* 3 level_2p + level_2p+1 */
} near;
static pthread_once_t near_once = PTHREAD_ONCE_INIT;

static int distance(const uint8_t *a, const uint8_t *b)
{
    int sum = 0;
    for (int j = 0; j < 8; j++)
        sum += (a[j] - b[j]) * (a[j] - b[j]);
    return sum;
}

/* The grid tuples in the two smallest distances from t, or t itself. Returns
 * how many. */
static uint32_t find_near(const uint8_t *t, uint8_t *list)
{
    int d[256], first = 255, second = 255;
    for (int g = 0; g < 256; g++) {
        d[g] = distance(t, near.level[g]);
        if (d[g] < first) {
            second = first;
            first = d[g];
        } else if (d[g] > first && d[g] < second) {
            second = d[g];
        }
    }
    uint32_t n = 0;
    for (int g = 0; g < 256; g++) {
        if (d[g] == first || (first > 0 && d[g] == second))
            list[n++] = (uint8_t)g;
    }
    return n;
}

static void make_near(void)
{
    for (int g = 0; g < 256; g++) {
        for (int j = 0; j < 8; j++)
            near.level[g][j] = (uint8_t)((iq2xxs_grid[g] >> 8 * j & 255) / 20);
        for (int p = 0; p < 4; p++)
            near.pair[g][p] = (uint8_t)(3 * near.level[g][2 * p] + near.level[g][2 * p + 1]);
    }
    for (uint32_t t = 0; t < TUPLES; t++) {
        uint8_t levels[8], list[256];
        for (uint32_t j = 0, rest = t; j < 8; j++, rest /= 3)
            levels[j] = (uint8_t)(rest % 3);
        uint32_t n = find_near(levels, list);
        assert(near.first[t] + n <= NEAR);
        memcpy(near.list + near.first[t], list, n);
        near.first[t + 1] = near.first[t] + n;
    }
    assert(near.first[TUPLES] == NEAR);
}

/* ---- fitting 32 values ------------------------------------------------------------- */

/* Levels in units of the scale. */
static const float magnitude[3] = { 1, 25 / 8.0f, 43 / 8.0f };

/* Magnitudes (below zero where the sign is not the stored one) and weights. */
typedef struct {
    float x[32], w[32];
    uint8_t signs[4];
} Group;

typedef struct {
    uint8_t index[4];
    float scale, gain;
} Fit;

static void take_signs(Group *g, const float *x)
{
    for (int k = 0; k < 4; k++) {
        int mask = 0, least = 8 * k;
        for (int i = 8 * k; i < 8 * k + 8; i++) {
            g->x[i] = fabsf(x[i]);
            mask |= (x[i] < 0) << i % 8;
            if (g->w[i] * x[i] * x[i] < g->w[least] * x[least] * x[least])
                least = i;
        }
        if (__builtin_parity((unsigned)mask)) {
            mask ^= 1 << least % 8;
            g->x[least] = -g->x[least];
        }
        g->signs[k] = (uint8_t)(mask & 127);
    }
}

/* The grid tuple for 8 magnitudes at a scale, given as its inverse. */
static uint8_t best_tuple(const float *x, const float *w, float inverse)
{
    static const uint32_t power[8] = { 1, 3, 9, 27, 81, 243, 729, 2187 };
    float cost[8][3], pair[4][9];
    uint32_t t = 0;
    for (int j = 0; j < 8; j++) {
        float y = x[j] * inverse;
        for (int l = 0; l < 3; l++)
            cost[j][l] = w[j] * (magnitude[l] - y) * (magnitude[l] - y);
        t += power[j] * (uint32_t)((y > 33 / 16.0f) + (y > 68 / 16.0f));
    }
    const uint8_t *list = near.list + near.first[t], *end = near.list + near.first[t + 1];
    if (end - list == 1)
        return *list;
    for (int p = 0; p < 4; p++) {
        for (int a = 0; a < 9; a++)
            pair[p][a] = cost[2 * p][a / 3] + cost[2 * p + 1][a % 3];
    }
    uint8_t best = *list;
    for (float least = INFINITY; list < end; list++) {
        const uint8_t *c = near.pair[*list];
        float sum = (pair[0][c[0]] + pair[1][c[1]]) + (pair[2][c[2]] + pair[3][c[3]]);
        if (sum < least) {
            least = sum;
            best = *list;
        }
    }
    return best;
}

static Fit fit_at(const Group *g, float inverse)
{
    Fit f = { .gain = 0 };
    float xq = 0, qq = 0;
    for (int k = 0; k < 4; k++) {
        const float *x = g->x + 8 * k, *w = g->w + 8 * k;
        f.index[k] = best_tuple(x, w, inverse);
        for (int j = 0; j < 8; j++) {
            float q = magnitude[near.level[f.index[k]][j]];
            xq += w[j] * x[j] * q;
            qq += w[j] * q * q;
        }
    }
    if (xq > 0 && qq > 0) {
        f.scale = xq / qq;
        f.gain = xq * f.scale;
    }
    return f;
}

/* From a scale at which the values are like the lowest level to one at which
 * they are like the highest but one and above; then what the best one's own
 * scale gives. */
static Fit fit_group(const Group *g)
{
    float xx = 0, ww = 0;
    for (int i = 0; i < 32; i++) {
        xx += g->w[i] * g->x[i] * g->x[i];
        ww += g->w[i];
    }
    float inverse = sqrtf(ww / xx);
    Fit best = { .gain = 0 };
    if (!(xx > 0) || !isfinite(inverse))
        return best;
    for (int t = 0; t < 10; t++) {
        Fit f = fit_at(g, inverse);
        if (f.gain > best.gain)
            best = f;
        inverse *= 1.17f;
    }
    for (int pass = 0; pass < 2 && best.gain > 0; pass++) {
        Fit f = fit_at(g, 1 / best.scale);
        if (f.gain > best.gain)
            best = f;
    }
    return best;
}

static void encode_block(BlockIQ2_XXS *b, const float *x, const float *importance)
{
    Group group[8];
    Fit fit[8];
    float variance = search_mean_sq(x, QK), max = 0;
    for (int i = 0; i < 8; i++) {
        const float *v = importance ? importance + 32 * i : NULL;
        search_weights(group[i].w, v, x + 32 * i, 32, variance);
        take_signs(&group[i], x + 32 * i);
        fit[i] = fit_group(&group[i]);
        max = fmaxf(max, fit[i].scale);
    }
    float d = search_half(b->d, max / 31);
    for (int i = 0; i < 8; i++) {
        int s = d > 0 ? search_code(0.5f * (fit[i].scale / d - 1), 15) : 0;
        uint32_t a = (uint32_t)s << 28;
        for (int k = 0; k < 4; k++)
            a |= (uint32_t)group[i].signs[k] << 7 * k;
        memcpy(b->g[i].index, fit[i].index, 4);
        u32_put(b->g[i].signs, a);
    }
}

void iq2_xxs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    BlockIQ2_XXS *b = dst;
    pthread_once(&near_once, make_near);
    for (size_t i = 0; i < n; i += QK, b++)
        encode_block(b, src + i, importance ? importance + i : NULL);
}
