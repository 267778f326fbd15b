/* q2_k.c - 2-bit codes with a scale and a min for each 16: 2.625 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"

void q2_k_decode(float *dst, const void *src, size_t n)
{
    const BlockQ2_K *b = src;
    for (size_t i = 0; i < n; i += QK, b++) {
        float d = f16_at(b->d), dmin = f16_at(b->dmin);
        for (int sub = 0; sub < 16; sub++, dst += 16) {
            const uint8_t *q = b->q + 32 * (sub / 8) + 16 * (sub % 2);
            float s = d * (float)(b->scales[sub] & 15), m = dmin * (float)(b->scales[sub] >> 4);
            for (int l = 0, shift = sub % 8 / 2 * 2; l < 16; l++)
                dst[l] = s * (float)(q[l] >> shift & 3) - m;
        }
    }
}
