/* q4_k.c - 4-bit codes with a 6-bit scale and min for each 32: 4.5 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "search.h"

static void get_scale_and_min(const uint8_t *s, int j, int *scale, int *min)
{
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
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

void q4_k_decode(float *dst, const void *src, size_t n)
{
    const BlockQ4_K *b = src;
    for (size_t i = 0; i < n; i += QK, b++) {
        float d = f16_at(b->d), dmin = f16_at(b->dmin);
        for (int j = 0; j < 8; j++, dst += 32) {
            int scale, min;
            get_scale_and_min(b->s, j, &scale, &min);
            const uint8_t *q = b->q + 32 * (j / 2);
            float s = d * (float)scale, m = dmin * (float)min;
            for (int l = 0, shift = j % 2 * 4; l < 32; l++)
                dst[l] = s * (float)(q[l] >> shift & 15) - m;
        }
    }
}

static void encode_block(BlockQ4_K *b, const float *x, const float *importance)
{
    float scale[8], min[8], sum[8], weight[QK], mean_sq = search_mean_sq(x, QK);
    for (int j = 0; j < 8; j++) {
        const float *v = importance ? importance + 32 * j : NULL, *xs = x + 32 * j;
        float *w = weight + 32 * j;
        sum[j] = search_weights(w, v, xs, 32, 2 * mean_sq);
        scale[j] = search_affine(xs, w, 32, 15, &min[j]);
    }
    uint8_t s[8], m[8];
    float d = search_half(b->d, search_positive(scale, sum, 8, 63, s));
    float dmin = search_half(b->dmin, search_positive(min, sum, 8, 63, m));
    memset(b->s, 0, sizeof b->s);
    memset(b->q, 0, sizeof b->q);
    for (int j = 0; j < 8; j++) {
        const float *xs = x + 32 * j;
        search_neighbours(xs, weight + 32 * j, 32, 15, d, dmin, 63, &s[j], &m[j]);
        put_scale_and_min(b->s, j, s[j], m[j]);
        uint8_t *q = b->q + 32 * (j / 2);
        float step = d * (float)s[j], low = dmin * (float)m[j];
        for (int l = 0; step > 0 && l < 32; l++)
            q[l] = (uint8_t)(q[l] | search_code((xs[l] + low) / step, 15) << j % 2 * 4);
    }
}

void q4_k_encode(void *dst, const float *src, size_t n, const float *importance)
{
    BlockQ4_K *b = dst;
    for (size_t i = 0; i < n; i += QK, b++)
        encode_block(b, src + i, importance ? importance + i : NULL);
}
