/* q8_0.c - 32 signed bytes and a half: 8.5 bits a weight. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "search.h"
#include <math.h>

void q8_0_decode(float *dst, const void *src, size_t n)
{
    const BlockQ8_0 *b = src;
    for (size_t i = 0; i < n; i += 32, b++, dst += 32) {
        float d = f16_at(b->d);
        for (int j = 0; j < 32; j++)
            dst[j] = d * (float)b->q[j];
    }
}

/* The codes are taken with the unrounded scale: the half is only stored. */
void q8_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    BlockQ8_0 *b = dst;
    (void)importance;
    for (size_t i = 0; i < n; i += 32, b++, src += 32) {
        float amax = 0;
        for (int j = 0; j < 32; j++)
            amax = fmaxf(amax, fabsf(src[j]));
        float d = amax / 127, id = d > 0 && isfinite(1 / d) ? 1 / d : 0;
        search_half(b->d, d);
        for (int j = 0; j < 32; j++)
            b->q[j] = (int8_t)roundf(fmaxf(-127, fminf(127, src[j] * id)));
    }
}
