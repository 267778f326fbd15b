/* q2_k.c - 2-bit codes with a scale and a min for each 16: 2.625 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "lanes.h"

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

void q2_k_encode(void *dst, const float *src, size_t n, const float *importance)
{
    lanes_best()->q2_k(dst, src, n / QK, importance);
}
