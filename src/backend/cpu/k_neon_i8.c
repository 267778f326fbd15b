/* k_neon_i8.c - int8 activations for NEON, and the products with them on CPUs
 * without sdot. */
#include "k_neon_i8.h"
#define I8_NAME(format) neon_##format##_i8
#include "i8_neon_formats.h"

/* rint(x * inverse) of 16 values, at most 127 in magnitude. */
INLINE int8x16_t codes_of(const float32x4_t x[4], float inverse)
{
    int16x8_t v[4];
    UNROLL
    for (int k = 0; k < 4; k++)
        v[k] = vreinterpretq_s16_s32(vcvtnq_s32_f32(vmulq_n_f32(x[k], inverse)));
    return vuzp1q_s8(vreinterpretq_s8_s16(vuzp1q_s16(v[0], v[1])),
                     vreinterpretq_s8_s16(vuzp1q_s16(v[2], v[3])));
}

/* The largest bits without the sign of 32 values. */
INLINE uint32_t largest(const float32x4_t x[8])
{
    uint32x4_t most = vreinterpretq_u32_f32(vabsq_f32(x[0]));
    UNROLL
    for (int k = 1; k < 8; k++)
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(x[k])));
    return vmaxvq_u32(most);
}

void neon_act_pack(void *row, const float *x, int n)
{
    int8_t *q = act_q(row);
    float *scale = act_scale(row, n);
    int16_t *sum = act_sum(row, n);

    for (int b = 0; b < n / ACT_BLOCK; b++, x += ACT_BLOCK, q += ACT_BLOCK, sum += 2) {
        int8x16_t codes[2] = { vdupq_n_s8(0), vdupq_n_s8(0) };
        float32x4_t v[8];
        UNROLL
        for (int k = 0; k < 8; k++)
            v[k] = vld1q_f32(x + 4 * k);
        const uint32_t bits = largest(v);
        const float amax = f32_from_bits(bits);
        scale[b] = bits >= 0x7f800000 ? f32_from_bits(0x7fc00000) : 0;
        if (bits < 0x7f800000 && amax >= act_tiny) {
            const float inverse = 127 / amax;
            scale[b] = amax / 127;
            codes[0] = codes_of(v, inverse);
            codes[1] = codes_of(v + 4, inverse);
        }
        UNROLL
        for (int h = 0; h < 2; h++) {
            vst1q_s8(q + 16 * h, codes[h]);
            sum[h] = vaddlvq_s8(codes[h]);
        }
    }
}
