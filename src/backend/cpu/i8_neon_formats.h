/* i8_neon_formats.h - what each weight format is to the products of i8_neon.h:
 * 32 codes of a row in two vectors, and the factors of 8 rows side by side. */
#ifndef I8_NEON_FORMATS_H
#define I8_NEON_FORMATS_H
#include "i8_neon.h"
#include "../../quant/blocks.h"
#include "../../quant/iq2xxs_grid.h"

/* ---- factors of 8 rows ------------------------------------------------------------ */

INLINE void put8(float *p, Eight v)
{
    vst1q_f32(p, v.v[0]);
    vst1q_f32(p + 4, v.v[1]);
}

INLINE Eight times8(Eight a, Eight b)
{
    return (Eight){ { vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1]) } };
}

INLINE Eight floats_of(uint8x8_t bytes)
{
    const uint16x8_t v = vmovl_u8(bytes);
    return (
        Eight){ { vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), vcvtq_f32_u32(vmovl_high_u16(v)) } };
}

/* The halves at byte `at` of 8 blocks. */
INLINE Eight halves8(const Rows8 *w, size_t at)
{
    uint16x8_t v = vdupq_n_u16(u16_at(row8(w, 0) + at));
    v = vsetq_lane_u16(u16_at(row8(w, 1) + at), v, 1);
    v = vsetq_lane_u16(u16_at(row8(w, 2) + at), v, 2);
    v = vsetq_lane_u16(u16_at(row8(w, 3) + at), v, 3);
    v = vsetq_lane_u16(u16_at(row8(w, 4) + at), v, 4);
    v = vsetq_lane_u16(u16_at(row8(w, 5) + at), v, 5);
    v = vsetq_lane_u16(u16_at(row8(w, 6) + at), v, 6);
    v = vsetq_lane_u16(u16_at(row8(w, 7) + at), v, 7);
    const float16x8_t h = vreinterpretq_f16_u16(v);
    return (Eight){ { vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h) } };
}

/* Bytes i of 8 vectors, for i = 2 k in the low half of vector k, 2 k + 1 in the high one. */
INLINE void transpose_bytes(uint8x16_t v[8])
{
    uint16x8_t t[8];
    uint32x4_t u[8];
    UNROLL
    for (int k = 0; k < 4; k++) {
        t[k] = vreinterpretq_u16_u8(vzip1q_u8(v[2 * k], v[2 * k + 1]));
        t[k + 4] = vreinterpretq_u16_u8(vzip2q_u8(v[2 * k], v[2 * k + 1]));
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        u[k] = vreinterpretq_u32_u16(vzip1q_u16(t[k], t[k + 1]));
        u[k + 1] = vreinterpretq_u32_u16(vzip2q_u16(t[k], t[k + 1]));
        u[k + 2] = vreinterpretq_u32_u16(vzip1q_u16(t[k + 2], t[k + 3]));
        u[k + 3] = vreinterpretq_u32_u16(vzip2q_u16(t[k + 2], t[k + 3]));
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        v[k] = vreinterpretq_u8_u32(vzip1q_u32(u[k], u[k + 2]));
        v[k + 1] = vreinterpretq_u8_u32(vzip2q_u32(u[k], u[k + 2]));
        v[k + 2] = vreinterpretq_u8_u32(vzip1q_u32(u[k + 1], u[k + 3]));
        v[k + 3] = vreinterpretq_u8_u32(vzip2q_u32(u[k + 1], u[k + 3]));
    }
}

INLINE uint8x8_t half_of(uint8x16_t v, int high) { return high ? vget_high_u8(v) : vget_low_u8(v); }

INLINE void put_min(int16_t *min, uint8x8_t bytes)
{
    vst1q_s16(min, vreinterpretq_s16_u16(vmovl_u8(bytes)));
}

/* ---- Q8_0 ------------------------------------------------------------------------- */

INLINE void q8_0_open(Open8 *s, const Rows8 *w)
{
    put8(s->of[0].a, halves8(w, offsetof(BlockQ8_0, d)));
}

INLINE int8x16x2_t q8_0_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const int8_t *q = ((const BlockQ8_0 *)block)->q;
    (void)s, (void)r, (void)g;
    return (int8x16x2_t){ { vld1q_s8(q), vld1q_s8(q + 16) } };
}

/* ---- MXFP4 ------------------------------------------------------------------------ */

/* 2^(e - 128), whose lowest two are subnormal; NaN for 255. */
INLINE float32x4_t half_e8m0(uint32x4_t e)
{
    const uint32x4_t one = vdupq_n_u32(1);
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, one), 23);
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    const uint32x4_t nan = vandq_u32(vceqq_u32(e, vdupq_n_u32(255)), vdupq_n_u32(0x7fc00000));
    return vreinterpretq_f32_u32(vorrq_u32(vbslq_u32(vcgtq_u32(e, one), normal, tiny), nan));
}

INLINE void mxfp4_open(Open8 *s, const Rows8 *w)
{
    uint16x8_t e = vdupq_n_u16(*row8(w, 0));
    e = vsetq_lane_u16(*row8(w, 1), e, 1);
    e = vsetq_lane_u16(*row8(w, 2), e, 2);
    e = vsetq_lane_u16(*row8(w, 3), e, 3);
    e = vsetq_lane_u16(*row8(w, 4), e, 4);
    e = vsetq_lane_u16(*row8(w, 5), e, 5);
    e = vsetq_lane_u16(*row8(w, 6), e, 6);
    e = vsetq_lane_u16(*row8(w, 7), e, 7);
    put8(s->of[0].a,
         (Eight){ { half_e8m0(vmovl_u16(vget_low_u16(e))), half_e8m0(vmovl_high_u16(e)) } });
}

INLINE int8x16x2_t mxfp4_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    static const int8_t twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    const uint8x16_t q = vld1q_u8(((const BlockMXFP4 *)block)->q);
    const int8x16_t table = vld1q_s8(twice);
    (void)s, (void)r, (void)g;
    return (int8x16x2_t){ { vqtbl1q_s8(table, vandq_u8(q, vdupq_n_u8(15))),
                            vqtbl1q_s8(table, vshrq_n_u8(q, 4)) } };
}

/* ---- Q4_K ------------------------------------------------------------------------- */

/* The 8 scales and 8 mins of 6 bits, as bytes. */
INLINE uint8x16_t q4_k_scales(const uint8_t *p)
{
    const uint32_t a = u32_at(p), b = u32_at(p + 4), c = u32_at(p + 8);
    const uint32_t s1 = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t m1 = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    const uint64_t scales = (a & 0x3f3f3f3f) | (uint64_t)s1 << 32;
    const uint64_t mins = (b & 0x3f3f3f3f) | (uint64_t)m1 << 32;
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(scales), vcreate_u64(mins)));
}

INLINE void q4_k_open(Open8 *s, const Rows8 *w)
{
    const Eight d = halves8(w, offsetof(BlockQ4_K, d));
    const Eight dmin = halves8(w, offsetof(BlockQ4_K, dmin));
    uint8x16_t v[8];
    UNROLL
    for (int r = 0; r < I8_ROWS; r++)
        v[r] = q4_k_scales(row8(w, r) + offsetof(BlockQ4_K, s));
    transpose_bytes(v);
    UNROLL
    for (int g = 0; g < 8; g++) {
        Factors *of = &s->of[g];
        put8(of->a, times8(d, floats_of(half_of(v[g / 2], g % 2))));
        put8(of->m, times8(dmin, floats_of(half_of(v[g / 2 + 4], g % 2))));
        put_min(of->min[0], vdup_n_u8(1));
        put_min(of->min[1], vdup_n_u8(1));
    }
}

INLINE int8x16x2_t q4_k_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const uint8_t *q = ((const BlockQ4_K *)block)->q + g / 2 * 32;
    int8x16x2_t c;
    (void)s, (void)r;
    UNROLL
    for (int h = 0; h < 2; h++) {
        const uint8x16_t v = vld1q_u8(q + 16 * h);
        c.val[h] = vreinterpretq_s8_u8(g % 2 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15)));
    }
    return c;
}

/* ---- Q2_K ------------------------------------------------------------------------- */

INLINE void q2_k_open(Open8 *s, const Rows8 *w)
{
    const Eight d = halves8(w, offsetof(BlockQ2_K, d));
    const Eight dmin = halves8(w, offsetof(BlockQ2_K, dmin));
    uint8x16_t min[8];
    UNROLL
    for (int r = 0; r < I8_ROWS; r++) {
        const uint8x16_t v = vld1q_u8(((const BlockQ2_K *)row8(w, r))->scales);
        vst1q_u8(s->rest[r], vandq_u8(v, vdupq_n_u8(15)));
        min[r] = vshrq_n_u8(v, 4);
    }
    transpose_bytes(min);
    UNROLL
    for (int g = 0; g < 8; g++) {
        put8(s->of[g].a, d);
        put8(s->of[g].m, dmin);
        put_min(s->of[g].min[0], vget_low_u8(min[g]));
        put_min(s->of[g].min[1], vget_high_u8(min[g]));
    }
}

/* Crumbs times the scale of their 16. */
INLINE int8x16x2_t q2_k_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const uint8_t *q = ((const BlockQ2_K *)block)->q + g / 4 * 32, *scale = s->rest[r] + 2 * g;
    const int8x16_t shift = vdupq_n_s8((int8_t)(-2 * (g % 4)));
    int8x16x2_t c;
    UNROLL
    for (int h = 0; h < 2; h++) {
        const uint8x16_t v = vandq_u8(vshlq_u8(vld1q_u8(q + 16 * h), shift), vdupq_n_u8(3));
        c.val[h] = vreinterpretq_s8_u8(vmulq_u8(v, vld1q_dup_u8(scale + h)));
    }
    return c;
}

/* ---- IQ2_XXS ---------------------------------------------------------------------- */

/* The sign masks of 16 tuples from 4 times 4 x 7 bits; bit 7 makes the number of bits even. */
INLINE uint8x16_t iq2_signs(uint32x4_t words)
{
    const uint32x4_t low = vdupq_n_u32(0x7f);
    uint32x4_t t = vandq_u32(words, low);
    t = vorrq_u32(t, vandq_u32(vshlq_n_u32(words, 1), vshlq_n_u32(low, 8)));
    t = vorrq_u32(t, vandq_u32(vshlq_n_u32(words, 2), vshlq_n_u32(low, 16)));
    t = vorrq_u32(t, vandq_u32(vshlq_n_u32(words, 3), vshlq_n_u32(low, 24)));
    const uint8x16_t bytes = vreinterpretq_u8_u32(t);
    return vorrq_u8(bytes, vshlq_n_u8(vcntq_u8(bytes), 7));
}

INLINE void iq2_xxs_open(Open8 *s, const Rows8 *w)
{
    const Eight d = halves8(w, offsetof(BlockIQ2_XXS, d));
    int32x4_t odd[2][I8_ROWS]; /* 2 scale + 1, of groups 0 .. 3 and 4 .. 7 */
    UNROLL
    for (int r = 0; r < I8_ROWS; r++) {
        const uint8_t *g = row8(w, r) + offsetof(BlockIQ2_XXS, g);
        UNROLL
        for (int h = 0; h < 2; h++) {
            const uint32x4_t words = vuzp2q_u32(vreinterpretq_u32_u8(vld1q_u8(g + 32 * h)),
                                                vreinterpretq_u32_u8(vld1q_u8(g + 32 * h + 16)));
            vst1q_u8(s->rest[r] + 16 * h, iq2_signs(words));
            odd[h][r] = vreinterpretq_s32_u32(
                vorrq_u32(vshlq_n_u32(vshrq_n_u32(words, 28), 1), vdupq_n_u32(1)));
        }
    }
    UNROLL
    for (int k = 0; k < 4; k++)
        transpose4(odd[k / 2] + k % 2 * 4);
    UNROLL
    for (int g = 0; g < 8; g++) {
        const int32x4_t *v = odd[g / 4] + g % 4;
        UNROLL
        for (int h = 0; h < 2; h++)
            vst1q_f32(s->of[g].a + 4 * h,
                      vmulq_f32(vmulq_n_f32(d.v[h], 0.125f), vcvtq_f32_s32(v[4 * h])));
    }
}

INLINE int8x16x2_t iq2_xxs_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    static const uint8_t eight_times[32] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3 };
    const uint8_t *i = ((const BlockIQ2_XXS *)block)->g[g].index;
    const uint8x16_t masks = vreinterpretq_u8_u32(vdupq_n_u32(u32_at(s->rest[r] + 4 * g)));
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    int8x16x2_t c;
    UNROLL
    for (int h = 0; h < 2; h++) {
        const int8x16_t x = vreinterpretq_s8_u64(vcombine_u64(
            vcreate_u64(iq2xxs_grid[i[2 * h]]), vcreate_u64(iq2xxs_grid[i[2 * h + 1]])));
        const uint8x16_t spread = vqtbl1q_u8(masks, vld1q_u8(eight_times + 16 * h));
        const int8x16_t minus = vreinterpretq_s8_u8(vtstq_u8(spread, bit));
        c.val[h] = vsubq_s8(veorq_s8(x, minus), minus);
    }
    return c;
}

/* ---- products ---------------------------------------------------------------------- */

/* I8_NAME(format): how the file that includes this calls them (k_neon_i8.h). */
#define GEMM_I8(format, ...) \
    void I8_NAME(format)(float *out, size_t ldo, const void *w, size_t ldw, int n_w, \
                         const void *x, size_t ldx, int n_x, int cols) \
    { \
        const Format8 f = { __VA_ARGS__ }; \
        gemm8(f, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }
GEMM_I8(q8_0, .len = 32, .bytes = sizeof(BlockQ8_0), .unroll = 1, .open = q8_0_open,
        .codes = q8_0_codes)
GEMM_I8(mxfp4, .len = 32, .bytes = sizeof(BlockMXFP4), .unroll = 1, .open = mxfp4_open,
        .codes = mxfp4_codes)
GEMM_I8(q4_k, .len = QK, .bytes = sizeof(BlockQ4_K), .has_min = true, .unroll = 2,
        .open = q4_k_open, .codes = q4_k_codes)
GEMM_I8(q2_k, .len = QK, .bytes = sizeof(BlockQ2_K), .has_min = true, .unroll = 4,
        .open = q2_k_open, .codes = q2_k_codes)
GEMM_I8(iq2_xxs, .len = QK, .bytes = sizeof(BlockIQ2_XXS), .unroll = 1, .open = iq2_xxs_open,
        .codes = iq2_xxs_codes)
#endif
