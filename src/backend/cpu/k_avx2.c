/* k_avx2.c - the microkernels for AVX2, FMA, F16C and BMI2.
 *
 * A decoder turns one block into F32, 8 values at a time, without rounding
 * more than the format's definition does. vpermps takes the low 3 bits of a
 * lane and ignores the rest, so codes of up to 3 bits are looked up in a
 * register without masking. */
#include "floats_x86.h"
#include "vectors_x86.h"
#include "../../quant/blocks.h"
#include "../../quant/fp8.h"
#include "../../quant/iq2xxs_grid.h"

/* A half in all lanes. */
static ALWAYS_INLINE Vec half_at(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)u16_at(p)));
}

static ALWAYS_INLINE __m256i bytes8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

static ALWAYS_INLINE Vec look_up(Vec table, __m256i codes)
{
    return _mm256_permutevar8x32_ps(table, codes);
}

/* ---- decoders -------------------------------------------------------------------- */

static ALWAYS_INLINE void q8_0_open(State *s, const uint8_t *block) { s->table = half_at(block); }

static ALWAYS_INLINE Vec q8_0_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ8_0 *b = (const BlockQ8_0 *)block;
    __m128i q = _mm_loadl_epi64((const __m128i *)(b->q + 8 * k));
    return v_mul(s->table, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
}

static ALWAYS_INLINE void q2_k_open(State *s, const uint8_t *block)
{
    const BlockQ2_K *b = (const BlockQ2_K *)block;
    const Vec d = half_at(b->d), dmin = half_at(b->dmin);
    UNROLL
    for (int i = 0; i < 16; i += 8) {
        __m256i both = bytes8(b->scales + i), low = _mm256_and_si256(both, _mm256_set1_epi32(15));
        _mm256_store_ps(s->scale + i, v_mul(d, _mm256_cvtepi32_ps(low)));
        _mm256_store_ps(s->min + i, v_mul(dmin, _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4))));
    }
    IN_MEMORY(s->scale);
    IN_MEMORY(s->min);
}

static ALWAYS_INLINE Vec q2_k_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ2_K *b = (const BlockQ2_K *)block;
    const Vec codes = _mm256_setr_ps(0, 1, 2, 3, 0, 1, 2, 3);
    Vec table = _mm256_fmsub_ps(codes, v_set(s->scale[k / 2]), v_set(s->min[k / 2]));
    __m256i v = bytes8(b->q + k / 16 * 32 + k % 4 * 8);
    return look_up(table, _mm256_srlv_epi32(v, _mm256_set1_epi32(k % 16 / 4 * 2)));
}

/* The 8 scales (at 0) and 8 mins (at 8) of 6 bits, times d and dmin. */
static ALWAYS_INLINE void q4_k_scales(float scale[16], const BlockQ4_K *b)
{
    const uint32_t a = u32_at(b->s), m = u32_at(b->s + 4), c = u32_at(b->s + 8);
    const uint32_t s1 = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t m1 = (c >> 4 & 0x0f0f0f0f) | (m >> 2 & 0x30303030);
    const __m128i scales = _mm_setr_epi32((int)(a & 0x3f3f3f3f), (int)s1, 0, 0);
    const __m128i mins = _mm_setr_epi32((int)(m & 0x3f3f3f3f), (int)m1, 0, 0);
    _mm256_store_ps(scale, v_mul(half_at(b->d), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales))));
    _mm256_store_ps(scale + 8,
                    v_mul(half_at(b->dmin), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(mins))));
}

static ALWAYS_INLINE void q4_k_open(State *s, const uint8_t *block)
{
    q4_k_scales(s->scale, (const BlockQ4_K *)block);
    IN_MEMORY(s->scale);
}

static ALWAYS_INLINE Vec q4_k_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ4_K *b = (const BlockQ4_K *)block;
    __m256i v = bytes8(b->q + k / 8 * 32 + k % 4 * 8);
    v = k % 8 < 4 ? _mm256_and_si256(v, _mm256_set1_epi32(15)) : _mm256_srli_epi32(v, 4);
    return _mm256_fmsub_ps(_mm256_cvtepi32_ps(v), v_set(s->scale[k / 4]),
                           v_set(s->scale[k / 4 + 8]));
}

static ALWAYS_INLINE Vec e2m1_table(float s)
{
    return v_mul(v_set(s), _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6));
}

/* Magnitudes by the low 3 bits of a lane, the sign in bit 3. */
static ALWAYS_INLINE Vec from_e2m1(Vec table, __m256i codes)
{
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(INT32_MIN));
    return _mm256_xor_ps(look_up(table, codes), _mm256_castsi256_ps(sign));
}

static ALWAYS_INLINE void mxfp4_open(State *s, const uint8_t *block)
{
    s->table = e2m1_table(e8m0_decode(block[0]));
}

static ALWAYS_INLINE Vec mxfp4_piece(const State *s, const uint8_t *block, int k)
{
    const __m256i v = bytes8(((const BlockMXFP4 *)block)->q + k % 2 * 8);
    return from_e2m1(s->table, k < 2 ? v : _mm256_srli_epi32(v, 4));
}

/* Four sign masks from 4 x 7 bits; bit 7 makes the number of bits even. */
static ALWAYS_INLINE uint32_t iq2_signs(uint32_t a)
{
    uint32_t t = _pdep_u32(a, 0x7f7f7f7f), p = t ^ t >> 4;
    p ^= p >> 2;
    p ^= p >> 1;
    return t | (p & 0x01010101) << 7;
}

static ALWAYS_INLINE void iq2_xxs_open(State *s, const uint8_t *block)
{
    const BlockIQ2_XXS *b = (const BlockIQ2_XXS *)block;
    const float d = _cvtsh_ss(u16_at(b->d));
    UNROLL
    for (int g = 0; g < 8; g++) {
        uint32_t a = u32_at(b->g[g].signs);
        u32_put(s->signs + 2 * g, iq2_signs(a));
        s->scale[g] = d * (0.5f + (float)(a >> 28)) * 0.25f;
    }
}

static ALWAYS_INLINE Vec iq2_xxs_piece(const State *s, const uint8_t *block, int k)
{
    const BlockIQ2_XXS *b = (const BlockIQ2_XXS *)block;
    const __m256i to_top = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    const __m256i shift = _mm256_sub_epi32(to_top, _mm256_set1_epi32(k % 4 * 8));
    __m256i tuple = bytes8((const uint8_t *)(iq2xxs_grid + b->g[k / 4].index[k % 4]));
    Vec w = v_mul(v_set(s->scale[k / 4]), _mm256_cvtepi32_ps(tuple));
    __m256i minus = _mm256_sllv_epi32(_mm256_set1_epi32((int)u32_at(s->signs + k / 4 * 2)), shift);
    return _mm256_xor_ps(w, _mm256_and_ps(_mm256_castsi256_ps(minus), v_set(-0.f)));
}

GEMM(gemm_q8_0, 32, sizeof(BlockQ8_0), q8_0_open, q8_0_piece, NULL, FEW)
GEMM(gemm_q2_k, QK, sizeof(BlockQ2_K), q2_k_open, q2_k_piece, NULL, 1)
GEMM(gemm_q4_k, QK, sizeof(BlockQ4_K), q4_k_open, q4_k_piece, NULL, 1)
GEMM(gemm_iq2_xxs, QK, sizeof(BlockIQ2_XXS), iq2_xxs_open, iq2_xxs_piece, NULL, 1)
GEMM(gemm_mxfp4, 32, sizeof(BlockMXFP4), mxfp4_open, mxfp4_piece, NULL, 1)

/* ---- rows of the KV store ---------------------------------------------------------- */

/* E4M3 codes to F32 times s, by way of halves: the sign to bit 15, the rest 7
 * bits up, and what was 2^8 too small grows, subnormals too. */
static ALWAYS_INLINE Vec from_e4m3(const uint8_t *codes, Vec s)
{
    const __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)codes));
    const __m128i half = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16((short)0xbf80));
    const __m128i rest = _mm_slli_epi16(half, 1), top = _mm_set1_epi16(0x7f00);
    const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(rest, top), _mm_set1_epi16(0x7e00));
    return v_mul(s, v_mul(_mm256_cvtph_ps(_mm_or_si128(half, nan)), v_set(256)));
}

static void kv_unpack(const KvRowFormat *f, float *x, const void *row)
{
    if (!f->packed) {
        memcpy(x, row, (size_t)f->bytes);
        return;
    }
    const int nope = f->dim - f->rope;
    const uint8_t *codes = row, *tail = codes + nope, *scale = tail + 2 * f->rope;
    for (int b = 0; b < nope; b += f->block) {
        const float s = e8m0_decode(*scale++);
        int i = b;
        for (; i + LANES <= b + f->block; i += LANES)
            v_store(x + i, from_e4m3(codes + i, v_set(s)));
        for (; i < b + f->block; i++) /* blocks shorter than LANES: odd shapes only */
            x[i] = s * e4m3_decode(codes[i]);
    }
    x += nope;
    for (int i = 0; i < f->rope; i += LANES) {
        int n = f->rope - i;
        v_store_upto(x + i, v_from_bf16(v_halves_upto(tail + 2 * i, n)), n);
    }
}

static void idx_unpack(const IdxRowFormat *f, float *x, const void *row)
{
    if (!f->packed) {
        memcpy(x, row, (size_t)f->bytes);
        return;
    }
    const uint8_t *codes = row, *scale = codes + f->dim / 2;
    for (int b = 0; b < f->dim; b += 32) {
        const Vec table = e2m1_table(e8m0_decode(*scale++));
        for (int i = b; i < b + 32; i += 16, codes += 8) {
            __m128i v = _mm_loadl_epi64((const __m128i *)codes), high = _mm_srli_epi16(v, 4);
            __m128i both = _mm_unpacklo_epi8(v, high);
            v_store(x + i, from_e2m1(table, _mm256_cvtepu8_epi32(both)));
            v_store(x + i + 8, from_e2m1(table, _mm256_cvtepu8_epi32(_mm_srli_si128(both, 8))));
        }
    }
}

const Kernels kernels_avx2 = {
    .name = "avx2",
    .gemm = { [QUANT_F32] = gemm_f32,
              [QUANT_F16] = gemm_f16,
              [QUANT_BF16] = gemm_bf16,
              [QUANT_Q8_0] = gemm_q8_0,
              [QUANT_Q2_K] = gemm_q2_k,
              [QUANT_Q4_K] = gemm_q4_k,
              [QUANT_IQ2_XXS] = gemm_iq2_xxs,
              [QUANT_MXFP4] = gemm_mxfp4 },
    .mix = mix,
    .sum_sq = sum_sq,
    .scale = scale,
    .exp_sum = exp_sum,
    .swiglu = swiglu,
    .axpy = axpy,
    .kv_unpack = kv_unpack,
    .idx_unpack = idx_unpack,
};
