/* k_neon.c - the microkernels for ARM's NEON, as every aarch64 CPU has it.
 *
 * Weights are decoded 32 values at a time into registers (exactly as the
 * scalar decoders do: no product of a scale and a code needs more than 24
 * bits) and multiplied with up to four rows of x. A product over 256 values
 * is summed in F32, in 16 lanes that fold in a fixed order; the products of a
 * row add up in double. Four rows or one, an output sees the same operations.
 *
 * Weights are taken 16 rows at a time, few enough to stay in the cache while
 * all rows of x pass, so each weight is read from memory once. */
#include "k_neon_i8.h"
#include "simd_neon.h"
#include "../../quant/blocks.h"
#include "../../quant/fp8.h"
#include "../../quant/iq2xxs_grid.h"
#include <math.h>

enum { CHUNK = 256, W_ROWS = 16, X_ROWS = 4 };

/* 32 values of a weight row. */
typedef struct {
    float32x4_t v[8];
} Values;
/* The values c .. c + 31, c a multiple of 32, of the row w. */
typedef Values (*Load)(const uint8_t *w, int c);

/* ---- decoding --------------------------------------------------------------- */

INLINE float half_at(const uint8_t *p)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(u16_at(p)))), 0);
}

INLINE void put_s16(float32x4_t *out, int16x8_t codes, float scale)
{
    out[0] = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes))), scale);
    out[1] = vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(codes)), scale);
}

/* out[0..3] = scale * codes */
INLINE void put_s8(float32x4_t *out, int8x16_t codes, float scale)
{
    put_s16(out, vmovl_s8(vget_low_s8(codes)), scale);
    put_s16(out + 2, vmovl_high_s8(codes), scale);
}

/* out[0..3] = scale * codes - min */
INLINE void put_u8(float32x4_t *out, uint8x16_t codes, float scale, float min)
{
    put_s8(out, vreinterpretq_s8_u8(codes), scale);
    UNROLL
    for (int j = 0; j < 4; j++)
        out[j] = vsubq_f32(out[j], vdupq_n_f32(min));
}

INLINE Values load_f32(const uint8_t *w, int c)
{
    Values r;
    UNROLL
    for (int j = 0; j < 8; j++)
        r.v[j] = vreinterpretq_f32_u8(vld1q_u8(w + 4 * (size_t)c + 16 * j));
    return r;
}

INLINE Values load_f16(const uint8_t *w, int c)
{
    Values r;
    UNROLL
    for (int j = 0; j < 4; j++) {
        float16x8_t h = vreinterpretq_f16_u8(vld1q_u8(w + 2 * (size_t)c + 16 * j));
        r.v[2 * j] = vcvt_f32_f16(vget_low_f16(h));
        r.v[2 * j + 1] = vcvt_high_f32_f16(h);
    }
    return r;
}

INLINE void put_bf16(float32x4_t *out, const uint8_t *p)
{
    uint16x8_t b = vreinterpretq_u16_u8(vld1q_u8(p));
    out[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16));
    out[1] = vreinterpretq_f32_u32(vshll_high_n_u16(b, 16));
}

INLINE Values load_bf16(const uint8_t *w, int c)
{
    Values r;
    UNROLL
    for (int j = 0; j < 4; j++)
        put_bf16(r.v + 2 * j, w + 2 * (size_t)c + 16 * j);
    return r;
}

INLINE Values load_q8_0(const uint8_t *w, int c)
{
    const uint8_t *b = w + (size_t)(c / 32) * sizeof(BlockQ8_0);
    const uint8_t *q = b + offsetof(BlockQ8_0, q);
    float d = half_at(b);
    Values r;
    put_s8(r.v, vreinterpretq_s8_u8(vld1q_u8(q)), d);
    put_s8(r.v + 4, vreinterpretq_s8_u8(vld1q_u8(q + 16)), d);
    return r;
}

INLINE Values load_q2_k(const uint8_t *w, int c)
{
    const uint8_t *b = w + (size_t)(c / QK) * sizeof(BlockQ2_K);
    int g = c % QK / 32; /* g = 4 n + j */
    const uint8_t *q = b + offsetof(BlockQ2_K, q) + 32 * (g / 4);
    float d = half_at(b + offsetof(BlockQ2_K, d)), dmin = half_at(b + offsetof(BlockQ2_K, dmin));
    int8x16_t shift = vdupq_n_s8((int8_t)(-2 * (g % 4)));
    Values r;
    UNROLL
    for (int h = 0; h < 2; h++) {
        int s = b[offsetof(BlockQ2_K, scales) + (size_t)(2 * g + h)];
        uint8x16_t codes = vandq_u8(vshlq_u8(vld1q_u8(q + 16 * h), shift), vdupq_n_u8(3));
        put_u8(r.v + 4 * h, codes, d * (float)(s & 15), dmin * (float)(s >> 4));
    }
    return r;
}

INLINE Values load_q4_k(const uint8_t *w, int c)
{
    const uint8_t *b = w + (size_t)(c / QK) * sizeof(BlockQ4_K), *s = b + offsetof(BlockQ4_K, s);
    int g = c % QK / 32;
    const uint8_t *q = b + offsetof(BlockQ4_K, q) + 32 * (g / 2);
    int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
    float d = half_at(b) * (float)scale;
    float m = half_at(b + offsetof(BlockQ4_K, dmin)) * (float)min;
    int8x16_t shift = vdupq_n_s8((int8_t)(-4 * (g % 2)));
    Values r;
    UNROLL
    for (int h = 0; h < 2; h++) {
        uint8x16_t codes = vandq_u8(vshlq_u8(vld1q_u8(q + 16 * h), shift), vdupq_n_u8(15));
        put_u8(r.v + 4 * h, codes, d, m);
    }
    return r;
}

/* The four sign indices of 7 bits, each completed to 8 bits of even parity. */
INLINE uint32_t sign_masks(uint32_t a)
{
    uint32_t t = (a & 0x7f) | (a & 0x3f80) << 1 | (a & 0x1fc000) << 2 | (a & 0xfe00000) << 3;
    uint32_t p = t ^ t >> 4;
    p ^= p >> 2;
    p ^= p >> 1;
    return t | (p & 0x01010101) << 7;
}

INLINE Values load_iq2_xxs(const uint8_t *w, int c)
{
    static const uint8_t eight_times[32] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3 };
    static const uint8_t bit[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    const uint8_t *b = w + (size_t)(c / QK) * sizeof(BlockIQ2_XXS);
    const uint8_t *index = b + offsetof(BlockIQ2_XXS, g) + 8 * (c % QK / 32);
    uint32_t a = u32_at(index + 4);
    float d = half_at(b) * (0.5f + (float)(a >> 28)) * 0.25f;
    uint8x16_t masks = vreinterpretq_u8_u32(vdupq_n_u32(sign_masks(a)));
    Values r;
    UNROLL
    for (int h = 0; h < 2; h++) {
        int8x16_t x = vreinterpretq_s8_u64(vcombine_u64(
            vcreate_u64(iq2xxs_grid[index[2 * h]]), vcreate_u64(iq2xxs_grid[index[2 * h + 1]])));
        uint8x16_t spread = vqtbl1q_u8(masks, vld1q_u8(eight_times + 16 * h));
        int8x16_t minus = vreinterpretq_s8_u8(vtstq_u8(spread, vld1q_u8(bit)));
        put_s8(r.v + 4 * h, vsubq_s8(veorq_s8(x, minus), minus), d);
    }
    return r;
}

INLINE Values load_mxfp4(const uint8_t *w, int c)
{
    static const int8_t twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    const uint8_t *b = w + (size_t)(c / 32) * sizeof(BlockMXFP4);
    uint8x16_t q = vld1q_u8(b + offsetof(BlockMXFP4, q));
    int8x16_t table = vld1q_s8(twice);
    float d = e8m0_decode(*b) * 0.5f;
    Values r;
    put_s8(r.v, vqtbl1q_s8(table, vandq_u8(q, vdupq_n_u8(15))), d);
    put_s8(r.v + 4, vqtbl1q_s8(table, vshrq_n_u8(q, 4)), d);
    return r;
}

/* ---- products --------------------------------------------------------------- */

/* Sums of one output: lane l of s[j] holds the products 16 k + 4 j + l. */
typedef struct {
    float32x4_t s[4];
} Sum;

INLINE Sum sum_zero(void)
{
    float32x4_t z = vdupq_n_f32(0);
    return (Sum){ { z, z, z, z } };
}

INLINE void sum_add(Sum *sum, const Values *w, const float *x)
{
    UNROLL
    for (int j = 0; j < 8; j++)
        sum->s[j % 4] = vfmaq_f32(sum->s[j % 4], w->v[j], vld1q_f32(x + 4 * j));
}

INLINE double sum_fold(const Sum *sum)
{
    float32x4_t all = vaddq_f32(vaddq_f32(sum->s[0], sum->s[2]), vaddq_f32(sum->s[1], sum->s[3]));
    return (double)vaddvq_f32(all);
}

/* The last n < 32 values of a row of a format without blocks, then zeros. */
static Values load_rest(const QuantFormat *f, const uint8_t *w, int c, int n)
{
    float v[32] = { 0 };
    f->decode(v, w + (size_t)c * (size_t)f->block_bytes, (size_t)n);
    return load_f32((const uint8_t *)v, 0);
}

static void sum_add_rest(Sum *sum, const Values *w, const float *x, int n)
{
    float v[32] = { 0 };
    memcpy(v, x, (size_t)n * sizeof *v);
    sum_add(sum, w, v);
}

/* One weight row with n_x <= X_ROWS rows of x. */
INLINE void row_times(Load load, const QuantFormat *f, float *out, size_t ldo, const uint8_t *w,
                      const float *x, size_t ldx, int n_x, int cols)
{
    double total[X_ROWS] = { 0 };
    for (int c = 0; c < cols; c += CHUNK) {
        int end = MIN(c + CHUNK, cols), k = c;
        Sum sum[X_ROWS];
        UNROLL
        for (int i = 0; i < n_x; i++)
            sum[i] = sum_zero();
        for (; k + 32 <= end; k += 32) {
            Values v = load(w, k);
            UNROLL
            for (int i = 0; i < n_x; i++)
                sum_add(&sum[i], &v, x + (size_t)i * ldx + k);
        }
        if (k < end) {
            Values v = load_rest(f, w, k, end - k);
            UNROLL
            for (int i = 0; i < n_x; i++)
                sum_add_rest(&sum[i], &v, x + (size_t)i * ldx + k, end - k);
        }
        UNROLL
        for (int i = 0; i < n_x; i++)
            total[i] += sum_fold(&sum[i]);
    }
    UNROLL
    for (int i = 0; i < n_x; i++)
        out[(size_t)i * ldo] = (float)total[i];
}

/* n_w <= W_ROWS weight rows with n_x <= X_ROWS rows of x: a constant in each
 * case, so that the sums live in registers. */
INLINE void tile(Load load, const QuantFormat *f, float *out, size_t ldo, const uint8_t *w,
                 size_t ldw, int n_w, const float *x, size_t ldx, int n_x, int cols)
{
    for (int j = 0; j < n_w; j++, out++, w += ldw) {
        switch (n_x) {
        case 1: row_times(load, f, out, ldo, w, x, ldx, 1, cols); break;
        case 2: row_times(load, f, out, ldo, w, x, ldx, 2, cols); break;
        case 3: row_times(load, f, out, ldo, w, x, ldx, 3, cols); break;
        default: row_times(load, f, out, ldo, w, x, ldx, X_ROWS, cols); break;
        }
    }
}

INLINE void gemm(Load load, int type, float *out, size_t ldo, const uint8_t *w, size_t ldw, int n_w,
                 const float *x, size_t ldx, int n_x, int cols)
{
    const QuantFormat *f = quant_format(type);
    for (int j = 0; j < n_w; j += W_ROWS) {
        for (int i = 0; i < n_x; i += X_ROWS) {
            tile(load, f, out + (size_t)i * ldo + j, ldo, w + (size_t)j * ldw, ldw,
                 MIN(W_ROWS, n_w - j), x + (size_t)i * ldx, ldx, MIN(X_ROWS, n_x - i), cols);
        }
    }
}

#define GEMM(name, type) \
    static void gemm_##name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, \
                            const float *x, size_t ldx, int n_x, int cols) \
    { \
        gemm(load_##name, type, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }
GEMM(f32, QUANT_F32)
GEMM(f16, QUANT_F16)
GEMM(bf16, QUANT_BF16)
GEMM(q8_0, QUANT_Q8_0)
GEMM(q2_k, QUANT_Q2_K)
GEMM(q4_k, QUANT_Q4_K)
GEMM(iq2_xxs, QUANT_IQ2_XXS)
GEMM(mxfp4, QUANT_MXFP4)

/* ---- vectors ----------------------------------------------------------------- */

/* 16 dimensions of n_h <= 4 heads: the sums stay in registers while the rows pass. */
INLINE void mix_block(float *o, size_t ldo, const float *p, size_t ldp, const float *rows,
                      size_t ldr, int n_h, int n_rows)
{
    float32x4_t s[4][4];
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            s[h][j] = vld1q_f32(o + (size_t)h * ldo + 4 * j);
    }
    for (int i = 0; i < n_rows; i++) {
        const float *row = rows + (size_t)i * ldr;
        UNROLL
        for (int j = 0; j < 4; j++) {
            float32x4_t v = vld1q_f32(row + 4 * j);
            UNROLL
            for (int h = 0; h < n_h; h++)
                s[h][j] = vfmaq_n_f32(s[h][j], v, p[(size_t)h * ldp + (size_t)i]);
        }
    }
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            vst1q_f32(o + (size_t)h * ldo + 4 * j, s[h][j]);
    }
}

static void mix(float *o, size_t ldo, const float *p, size_t ldp, const float *rows, size_t ldr,
                int n_h, int n_rows, int dim)
{
    int whole = dim / 16 * 16, h = 0;
    for (; h + 4 <= n_h; h += 4) {
        for (int d = 0; d < whole; d += 16)
            mix_block(o + (size_t)h * ldo + d, ldo, p + (size_t)h * ldp, ldp, rows + d, ldr, 4,
                      n_rows);
    }
    for (; h < n_h; h++) {
        for (int d = 0; d < whole; d += 16)
            mix_block(o + (size_t)h * ldo + d, ldo, p + (size_t)h * ldp, ldp, rows + d, ldr, 1,
                      n_rows);
    }
    for (h = 0; h < n_h; h++) {
        for (int i = 0; i < n_rows; i++) {
            for (int d = whole; d < dim; d++) {
                float *to = o + (size_t)h * ldo + d;
                *to = fmaf(p[(size_t)h * ldp + (size_t)i], rows[(size_t)i * ldr + (size_t)d], *to);
            }
        }
    }
}

static float sum_sq(const float *x, int n)
{
    double total = 0;
    for (int c = 0; c < n; c += CHUNK) {
        int end = MIN(c + CHUNK, n), k = c;
        Sum sum = sum_zero();
        for (; k + 32 <= end; k += 32) {
            Values v = load_f32((const uint8_t *)(x + k), 0);
            sum_add(&sum, &v, x + k);
        }
        if (k < end) {
            Values v = load_rest(quant_format(QUANT_F32), (const uint8_t *)(x + k), 0, end - k);
            sum_add_rest(&sum, &v, x + k, end - k);
        }
        total += sum_fold(&sum);
    }
    return (float)total;
}

static void scale(float *y, const float *x, float s, const float *w, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), s);
        vst1q_f32(y + i, w ? vmulq_f32(v, vld1q_f32(w + i)) : v);
    }
    for (; i < n; i++)
        y[i] = w ? x[i] * s * w[i] : x[i] * s;
}

/* 2^n for n in -126 .. 127 */
INLINE float32x4_t power_of_2(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

/* exp(x) = 2^n exp(r), |r| <= ln 2 / 2. The series to r^7 / 7! is off by at
 * most 6e-9. 2^n is applied in two halves, so that the result may be
 * subnormal, zero or infinite; beyond the clamps it is zero or infinite. NaN
 * stays NaN. */
INLINE float32x4_t exp_vector(float32x4_t x)
{
    static const float term[] = { 1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1, 1 };
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-105)), vdupq_n_f32(90));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p0f));
    /* ln 2 in two parts; n times the first is exact. */
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e4p-1f));
    r = vfmsq_f32(r, n, vdupq_n_f32(0x1.7f7d1cp-20f));
    float32x4_t e = vdupq_n_f32(term[0]);
    UNROLL
    for (size_t k = 1; k < COUNT(term); k++)
        e = vfmaq_f32(vdupq_n_f32(term[k]), e, r);
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(e, power_of_2(half)), power_of_2(vsubq_s32(whole, half)));
}

static float exp_sum(float *x, float m, int n)
{
    double total = 0;
    for (int c = 0; c < n; c += CHUNK) {
        int end = MIN(c + CHUNK, n), i = c;
        float32x4_t sum = vdupq_n_f32(0);
        for (; i + 4 <= end; i += 4) {
            float32x4_t e = exp_vector(vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(m)));
            vst1q_f32(x + i, e);
            sum = vaddq_f32(sum, e);
        }
        total += (double)vaddvq_f32(sum);
        for (; i < end; i++) {
            x[i] = vgetq_lane_f32(exp_vector(vdupq_n_f32(x[i] - m)), 0);
            total += (double)x[i];
        }
    }
    return (float)total;
}

/* Selected by comparison, so that NaN stays NaN. */
INLINE float32x4_t at_most(float32x4_t x, float limit)
{
    float32x4_t l = vdupq_n_f32(limit);
    return vbslq_f32(vcgtq_f32(x, l), l, x);
}

INLINE float32x4_t swiglu_vector(float32x4_t g, float32x4_t u, float limit, float s)
{
    float32x4_t gate = at_most(g, limit), least = vdupq_n_f32(-limit);
    float32x4_t up = at_most(u, limit);
    up = vbslq_f32(vcltq_f32(up, least), least, up);
    float32x4_t silu = vdivq_f32(gate, vaddq_f32(vdupq_n_f32(1), exp_vector(vnegq_f32(gate))));
    return vmulq_n_f32(vmulq_f32(silu, up), s);
}

static void swiglu(float *h, const float *g, const float *u, float limit, float s, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(h + i, swiglu_vector(vld1q_f32(g + i), vld1q_f32(u + i), limit, s));
    for (; i < n; i++) {
        float32x4_t v = swiglu_vector(vdupq_n_f32(g[i]), vdupq_n_f32(u[i]), limit, s);
        h[i] = vgetq_lane_f32(v, 0);
    }
}

static void axpy(float *y, float a, const float *x, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vfmaq_n_f32(vld1q_f32(y + i), vld1q_f32(x + i), a));
    for (; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

/* ---- KV rows ----------------------------------------------------------------- */

/* out[0..1] = s * E4M3(codes), as e4m3_decode. */
INLINE void put_e4m3(float *out, uint8x8_t codes, float s)
{
    uint16x8_t wide = vmovl_u8(codes);
    UNROLL
    for (int h = 0; h < 2; h++) {
        uint32x4_t c = h ? vmovl_high_u16(wide) : vmovl_u16(vget_low_u16(wide));
        uint32x4_t sign = vshlq_n_u32(vandq_u32(c, vdupq_n_u32(0x80)), 24);
        uint32x4_t rest = vandq_u32(c, vdupq_n_u32(0x7f));
        uint32x4_t nan = vandq_u32(vceqq_u32(rest, vdupq_n_u32(0x7f)), vdupq_n_u32(0x7fc00000));
        float32x4_t v = vmulq_n_f32(vreinterpretq_f32_u32(vshlq_n_u32(rest, 20)), 0x1p120f);
        uint32x4_t bits = vorrq_u32(vorrq_u32(vreinterpretq_u32_f32(v), sign), nan);
        vst1q_f32(out + 4 * h, vmulq_n_f32(vreinterpretq_f32_u32(bits), s));
    }
}

static void kv_unpack(const KvRowFormat *f, float *x, const void *row)
{
    int nope = f->dim - f->rope, i = 0;
    const uint8_t *codes = row, *tail = codes + nope, *exponent = tail + 2 * f->rope;
    if (!f->packed || f->block % 8 != 0) {
        kvrow_unpack(f, x, row);
        return;
    }
    for (; i < nope; i += 8)
        put_e4m3(x + i, vld1_u8(codes + i), e8m0_decode(exponent[i / f->block]));
    for (i = 0; i + 8 <= f->rope; i += 8) {
        float32x4_t v[2];
        put_bf16(v, tail + 2 * i);
        vst1q_f32(x + nope + i, v[0]);
        vst1q_f32(x + nope + i + 4, v[1]);
    }
    for (; i < f->rope; i++)
        x[nope + i] = f32_from_bf16(u16_at(tail + 2 * i));
}

/* x[0..15] = s * E2M1(codes), with the sign of zero. */
INLINE void put_e2m1(float *x, uint8x16_t codes, float s)
{
    static const int8_t twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, 1, 2, 3, 4, 6, 8, 12 };
    float32x4_t v[4];
    uint32x4_t sign = vdupq_n_u32(0x80000000);
    put_s8(v, vqtbl1q_s8(vld1q_s8(twice), codes), s * 0.5f);
    uint16x8_t low = vmovl_u8(vget_low_u8(codes)), high = vmovl_high_u8(codes);
    const uint32x4_t c[4] = { vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low),
                              vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high) };
    UNROLL
    for (int j = 0; j < 4; j++) {
        uint32x4_t minus = vandq_u32(vshlq_n_u32(c[j], 28), sign);
        uint32x4_t bits = vorrq_u32(vreinterpretq_u32_f32(v[j]), minus);
        vst1q_f32(x + 4 * j, vreinterpretq_f32_u32(bits));
    }
}

static void idx_unpack(const IdxRowFormat *f, float *x, const void *row)
{
    const uint8_t *codes = row, *exponent = codes + f->dim / 2;
    if (!f->packed) {
        memcpy(x, row, (size_t)f->bytes);
        return;
    }
    for (int i = 0; i < f->dim; i += 32) {
        uint8x16_t q = vld1q_u8(codes + i / 2);
        uint8x16_t low = vandq_u8(q, vdupq_n_u8(15)), high = vshrq_n_u8(q, 4);
        float s = e8m0_decode(exponent[i / 32]);
        put_e2m1(x + i, vzip1q_u8(low, high), s);
        put_e2m1(x + i + 16, vzip2q_u8(low, high), s);
    }
}

const Kernels kernels_neon = {
    .name = "neon",
    .gemm = { [QUANT_F32] = gemm_f32,
              [QUANT_F16] = gemm_f16,
              [QUANT_BF16] = gemm_bf16,
              [QUANT_Q8_0] = gemm_q8_0,
              [QUANT_Q2_K] = gemm_q2_k,
              [QUANT_Q4_K] = gemm_q4_k,
              [QUANT_IQ2_XXS] = gemm_iq2_xxs,
              [QUANT_MXFP4] = gemm_mxfp4 },
    .gemm_i8 = { [QUANT_Q8_0] = neon_q8_0_i8,
                 [QUANT_Q2_K] = neon_q2_k_i8,
                 [QUANT_Q4_K] = neon_q4_k_i8,
                 [QUANT_IQ2_XXS] = neon_iq2_xxs_i8,
                 [QUANT_MXFP4] = neon_mxfp4_i8 },
    .act_pack = neon_act_pack,
    .mix = mix,
    .sum_sq = sum_sq,
    .scale = scale,
    .exp_sum = exp_sum,
    .swiglu = swiglu,
    .axpy = axpy,
    .kv_unpack = kv_unpack,
    .idx_unpack = idx_unpack,
};
