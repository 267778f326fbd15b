/* fp8.h - the small floats of the model's training: E4M3, E2M1, E8M0.
 *
 *   E4M3  sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinity, 0x7f is NaN, max 448
 *   E2M1  sign, magnitudes 0 .5 1 1.5 2 3 4 6
 *   E8M0  2^(b - 127); 255 is NaN
 *
 * Encoding rounds to nearest, ties to the even code, and clamps. */
#ifndef FP8_H
#define FP8_H
#include "float.h"

static inline float e4m3_decode(uint8_t c)
{
    uint32_t sign = (uint32_t)(c & 0x80) << 24, rest = (uint32_t)(c & 0x7f) << 20;
    if ((c & 0x7f) == 0x7f)
        return f32_from_bits(sign | 0x7fc00000);
    /* The exponents differ by 120; the product also makes subnormals normal. */
    return f32_from_bits(sign | f32_bits(f32_from_bits(rest) * 0x1p120f));
}

static inline uint8_t e4m3_encode(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 24 & 0x80, a = u & 0x7fffffff, r;
    if (a > 0x7f800000)
        r = 0x7f;
    else if (a >= 0x43e00000)
        r = 0x7e; /* 448 and above */
    else if (a >= 0x3c800000)
        r = (a + 0x7ffff + (a >> 20 & 1) - 0x3c000000) >> 20;
    else /* subnormal: adding 2^14 leaves multiples of 2^-9, rounded by the addition */
        r = f32_bits(f32_from_bits(a) + 0x1p14f) - 0x46800000;
    return (uint8_t)(sign | r);
}

static inline float e2m1_decode(uint8_t c)
{
    static const float value[16] = { 0,    0.5f,  1,    1.5f,  2,    3,    4,    6,
                                     -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f };
    return value[c & 15];
}

/* NaN has no code and becomes 6, with its sign. */
static inline uint8_t e2m1_encode(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 28 & 8, a = u & 0x7fffffff, r;
    if (a >= 0x40c00000)
        r = 7; /* 6 and above */
    else if (a >= 0x3f800000)
        r = (a + 0x1fffff + (a >> 22 & 1) - 0x3f000000) >> 22;
    else /* adding 2^22 leaves multiples of 0.5, rounded by the addition */
        r = f32_bits(f32_from_bits(a) + 0x1p22f) - 0x4a800000;
    return (uint8_t)(sign | r);
}

static inline float e8m0_decode(uint8_t b)
{
    if (b == 0)
        return f32_from_bits(0x00400000);
    return f32_from_bits(b == 255 ? 0x7fc00000 : (uint32_t)b << 23);
}

/* The power of two 2^ceil(log2(amax / max)) as a code, on the bits of amax *
 * (1/max) in F32, as the model's own code takes it. 255 when amax is not finite. */
static inline uint8_t e8m0_for(float amax, float max)
{
    uint32_t u = f32_bits(amax * (1.0f / max)) & 0x7fffffff;
    uint32_t b = (u >> 23) + ((u & 0x7fffff) != 0);
    return (uint8_t)(b < 255 ? b : 255);
}

/* 1 / e8m0_decode(b), exactly. */
static inline float e8m0_inverse(uint8_t b)
{
    if (b >= 254)
        return f32_from_bits(b == 255 ? 0x7fc00000 : 0x00400000);
    return f32_from_bits((uint32_t)(254 - b) << 23);
}

#endif
