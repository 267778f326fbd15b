/* iq2_xxs.c - 8-tuples from a grid of 256, signs apart: 2.0625 bits a weight.
 * The encoder is in iq2_body.h. */
#include "blocks.h"
#include "float.h"
#include "formats.h"
#include "iq2xxs_grid.h"
#include "lanes.h"

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

void iq2_xxs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    lanes_best()->iq2_xxs(dst, src, n / QK, importance);
}
