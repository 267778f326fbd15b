/* float.h - halves and bfloat16 to F32 and back, on the bits.
 *
 * To F32 is exact. From F32 rounds to nearest, ties to even; what is too large
 * becomes infinity, NaN stays NaN, subnormals are exact. No instruction of any
 * set is needed, so these are the definition for the faster ones. */
#ifndef FLOAT_H
#define FLOAT_H
#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t u16_at(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t u32_at(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void u16_put(void *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static inline void u32_put(void *p, uint32_t v) { memcpy(p, &v, sizeof v); }

static inline float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    /* The exponents differ by 112; the product also makes subnormals normal.
     * Infinity and NaN have an exponent of all ones in both. */
    uint32_t special = rest >= 0x0f800000 ? 0x7f800000 : 0;
    return f32_from_bits(sign | special | f32_bits(f32_from_bits(rest) * 0x1p112f));
}

static inline uint16_t f16_from_f32(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff, r;
    if (a > 0x7f800000)
        r = 0x7e00 | (a >> 13 & 0x3ff); /* NaN, quiet */
    else if (a >= 0x477ff000)
        r = 0x7c00; /* 65520 and above */
    else if (a >= 0x38800000)
        r = (a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13;
    else /* subnormal: adding 2^-1 leaves multiples of 2^-24, rounded by the addition */
        r = f32_bits(f32_from_bits(a) + 0.5f) - 0x3f000000;
    return (uint16_t)(sign | r);
}

static inline float f32_from_bf16(uint16_t b) { return f32_from_bits((uint32_t)b << 16); }

static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN, quiet */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* A half that lies anywhere. */
static inline float f16_at(const void *p) { return f32_from_f16(u16_at(p)); }

#endif
