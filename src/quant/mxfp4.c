/* mxfp4.c - 32 E2M1 codes and a power of two: 4.25 bits a weight. */
#include "blocks.h"
#include "formats.h"
#include "fp8.h"
#include <math.h>

void mxfp4_decode(float *dst, const void *src, size_t n)
{
    const BlockMXFP4 *b = src;
    for (size_t i = 0; i < n; i += 32, b++, dst += 32) {
        float s = e8m0_decode(b->e);
        for (int j = 0; j < 16; j++) {
            dst[j] = s * e2m1_decode(b->q[j]);
            dst[j + 16] = s * e2m1_decode(b->q[j] >> 4);
        }
    }
}

/* The scale is the smallest power of two under which nothing is cut off, so
 * values that are MXFP4 already stay what they are. */
void mxfp4_encode(void *dst, const float *src, size_t n, const float *importance)
{
    BlockMXFP4 *b = dst;
    (void)importance;
    for (size_t i = 0; i < n; i += 32, b++, src += 32) {
        float amax = 6 * 0x1p-126f;
        for (int j = 0; j < 32; j++)
            amax = fmaxf(amax, fabsf(src[j]));
        b->e = (uint8_t)MIN(e8m0_for(amax, 6), 252); /* 6 * 2^125 is the largest finite value */
        float inverse = e8m0_inverse(b->e);
        for (int j = 0; j < 16; j++) {
            int low = e2m1_encode(src[j] * inverse), high = e2m1_encode(src[j + 16] * inverse);
            b->q[j] = (uint8_t)(low | high << 4);
        }
    }
}
