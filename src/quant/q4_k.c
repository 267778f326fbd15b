/* q4_k.c - 4-bit codes with a 6-bit scale and min for each 32: 4.5 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "lanes.h"

static void get_scale_and_min(const uint8_t *s, int j, int *scale, int *min)
{
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
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

void q4_k_encode(void *dst, const float *src, size_t n, const float *importance)
{
    lanes_best()->q4_k(dst, src, n / QK, importance);
}
