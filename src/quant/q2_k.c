/* q2_k.c - 2-bit codes with a scale and a min for each 16: 2.625 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "search.h"

/* Sub-block sub is 16 bytes of q, two bits of each. */
static int first_byte(int sub) { return 32 * (sub / 8) + 16 * (sub % 2); }
static int first_bit(int sub) { return sub % 8 / 2 * 2; }

void q2_k_decode(float *dst, const void *src, size_t n)
{
    const BlockQ2_K *b = src;
    for (size_t i = 0; i < n; i += QK, b++) {
        float d = f16_at(b->d), dmin = f16_at(b->dmin);
        for (int sub = 0; sub < 16; sub++, dst += 16) {
            const uint8_t *q = b->q + first_byte(sub);
            float s = d * (float)(b->scales[sub] & 15), m = dmin * (float)(b->scales[sub] >> 4);
            for (int l = 0, shift = first_bit(sub); l < 16; l++)
                dst[l] = s * (float)(q[l] >> shift & 3) - m;
        }
    }
}

static void encode_block(BlockQ2_K *b, const float *x, const float *importance)
{
    float scale[16], min[16], sum[16], weight[QK], mean_sq = search_mean_sq(x, QK);
    for (int sub = 0; sub < 16; sub++) {
        const float *v = importance ? importance + 16 * sub : NULL, *xs = x + 16 * sub;
        float *w = weight + 16 * sub;
        sum[sub] = search_weights(w, v, xs, 16, mean_sq);
        scale[sub] = search_affine(xs, w, 16, 3, &min[sub]);
    }
    uint8_t s[16], m[16];
    float d = search_half(b->d, search_positive(scale, sum, 16, 15, s));
    float dmin = search_half(b->dmin, search_positive(min, sum, 16, 15, m));
    memset(b->q, 0, sizeof b->q);
    for (int sub = 0; sub < 16; sub++) {
        const float *xs = x + 16 * sub;
        search_neighbours(xs, weight + 16 * sub, 16, 3, d, dmin, 15, &s[sub], &m[sub]);
        b->scales[sub] = (uint8_t)(s[sub] | m[sub] << 4);
        uint8_t *q = b->q + first_byte(sub);
        float step = d * (float)s[sub], low = dmin * (float)m[sub];
        for (int l = 0; step > 0 && l < 16; l++)
            q[l] = (uint8_t)(q[l] | search_code((xs[l] + low) / step, 3) << first_bit(sub));
    }
}

void q2_k_encode(void *dst, const float *src, size_t n, const float *importance)
{
    BlockQ2_K *b = dst;
    for (size_t i = 0; i < n; i += QK, b++)
        encode_block(b, src + i, importance ? importance + i : NULL);
}
