/* mxfp4.c - 32 E2M1 codes and a power of two: 4.25 bits a weight. */
#include "blocks.h"
#include "formats.h"
#include "fp8.h"

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
