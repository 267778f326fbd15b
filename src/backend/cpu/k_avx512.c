/* k_avx512.c - the microkernels for AVX-512 (F, BW, DQ, VL).
 *
 * A decoder turns one block into F32, 16 values at a time, without rounding
 * more than the format's definition does. Codes of up to 4 bits are looked up
 * in a register: vpermps takes the low 4 bits of a lane and ignores the rest,
 * so a table with period 4 needs no masking of 2-bit codes. */
#include "floats_x86.h"
#include "vectors_x86.h"
#include "../../quant/blocks.h"
#include "../../quant/fp8.h"
#include "../../quant/iq2xxs_grid.h"

/* A half in all lanes. */
static ALWAYS_INLINE Vec half_at(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)u16_at(p)));
}

static ALWAYS_INLINE __m512i bytes16(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

static ALWAYS_INLINE Vec look_up(Vec table, __m512i codes)
{
    return _mm512_permutexvar_ps(codes, table);
}

/* ---- decoders -------------------------------------------------------------------- */

static ALWAYS_INLINE void q8_0_open(State *s, const uint8_t *block) { s->table = half_at(block); }

static ALWAYS_INLINE Vec q8_0_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ8_0 *b = (const BlockQ8_0 *)block;
    __m128i q = _mm_loadu_si128((const __m128i *)(b->q + 16 * k));
    return v_mul(s->table, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
}

static ALWAYS_INLINE void q2_k_open(State *s, const uint8_t *block)
{
    const BlockQ2_K *b = (const BlockQ2_K *)block;
    const __m512i both = bytes16(b->scales), low = _mm512_and_si512(both, _mm512_set1_epi32(15));
    _mm512_store_ps(s->scale, v_mul(half_at(b->d), _mm512_cvtepi32_ps(low)));
    _mm512_store_ps(s->min,
                    v_mul(half_at(b->dmin), _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4))));
    IN_MEMORY(s->scale);
    IN_MEMORY(s->min);
}

static ALWAYS_INLINE Vec q2_k_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ2_K *b = (const BlockQ2_K *)block;
    const Vec codes = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    Vec table = _mm512_fmsub_ps(codes, v_set(s->scale[k]), v_set(s->min[k]));
    __m512i v = bytes16(b->q + k / 8 * 32 + k % 2 * 16);
    return look_up(table, _mm512_srlv_epi32(v, _mm512_set1_epi32(k % 8 / 2 * 2)));
}

/* The 8 scales and 8 mins of 6 bits, as bytes. */
static ALWAYS_INLINE __m128i q4_k_scales(const uint8_t *p)
{
    const uint32_t a = u32_at(p), b = u32_at(p + 4), c = u32_at(p + 8);
    const uint32_t s1 = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t m1 = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    return _mm_setr_epi32((int)(a & 0x3f3f3f3f), (int)s1, (int)(b & 0x3f3f3f3f), (int)m1);
}

static ALWAYS_INLINE void q4_k_open(State *s, const uint8_t *block)
{
    const BlockQ4_K *b = (const BlockQ4_K *)block;
    const Vec d = _mm512_insertf32x8(half_at(b->d), _mm512_castps512_ps256(half_at(b->dmin)), 1);
    const __m512i both = _mm512_cvtepu8_epi32(q4_k_scales(b->s));
    _mm512_store_ps(s->scale, v_mul(d, _mm512_cvtepi32_ps(both)));
    IN_MEMORY(s->scale);
}

static ALWAYS_INLINE Vec q4_k_piece(const State *s, const uint8_t *block, int k)
{
    const BlockQ4_K *b = (const BlockQ4_K *)block;
    const Vec codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    Vec table = _mm512_fmsub_ps(codes, v_set(s->scale[k / 2]), v_set(s->scale[k / 2 + 8]));
    __m512i v = bytes16(b->q + k / 4 * 32 + k % 2 * 16);
    return look_up(table, k % 4 < 2 ? v : _mm512_srli_epi32(v, 4));
}

static ALWAYS_INLINE Vec e2m1_table(float s)
{
    return v_mul(v_set(s), _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -0.5f, -1, -1.5f, -2,
                                          -3, -4, -6));
}

static ALWAYS_INLINE void mxfp4_open(State *s, const uint8_t *block)
{
    s->table = e2m1_table(e8m0_decode(block[0]));
}

static ALWAYS_INLINE Vec mxfp4_piece(const State *s, const uint8_t *block, int k)
{
    const __m512i v = bytes16(((const BlockMXFP4 *)block)->q);
    return look_up(s->table, k ? _mm512_srli_epi32(v, 4) : v);
}

/* The sign masks of a block's 32 tuples, in order. Lane g of the block is
 * group g: 4 grid indices, then 4 x 7 sign bits and the scale. */
static ALWAYS_INLINE __m256i iq2_signs(__m512i groups)
{
    const __m512i words = _mm512_srli_epi64(groups, 32);
    const __m512i low =
        _mm512_or_si512(_mm512_and_si512(words, _mm512_set1_epi64(0x7f)),
                        _mm512_and_si512(_mm512_slli_epi64(words, 1), _mm512_set1_epi64(0x7f00)));
    const __m512i high = _mm512_or_si512(
        _mm512_and_si512(_mm512_slli_epi64(words, 2), _mm512_set1_epi64(0x7f0000)),
        _mm512_and_si512(_mm512_slli_epi64(words, 3), _mm512_set1_epi64(0x7f000000)));
    const __m256i t = _mm512_cvtepi64_epi32(_mm512_or_si512(low, high));
    /* Bit 7 makes the number of bits even: the parity of each half looked up. */
    const __m256i parity = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i p0 = _mm256_shuffle_epi8(parity, _mm256_and_si256(t, nibble));
    const __m256i p1 =
        _mm256_shuffle_epi8(parity, _mm256_and_si256(_mm256_srli_epi16(t, 4), nibble));
    return _mm256_xor_si256(t, _mm256_xor_si256(p0, p1));
}

static ALWAYS_INLINE void iq2_xxs_open(State *s, const uint8_t *block)
{
    const BlockIQ2_XXS *b = (const BlockIQ2_XXS *)block;
    const __m512i groups = _mm512_loadu_si512(b->g);
    _mm256_store_si256((__m256i *)s->signs, iq2_signs(groups));
    /* d (0.5 + s) / 4 */
    const __m256 n = _mm512_cvtepi64_ps(_mm512_srli_epi64(groups, 60));
    const __m256 d = _mm512_castps512_ps256(half_at(b->d));
    _mm256_store_ps(s->scale,
                    _mm256_mul_ps(_mm256_mul_ps(d, _mm256_add_ps(n, _mm256_set1_ps(0.5f))),
                                  _mm256_set1_ps(0.25f)));
    IN_MEMORY(s->scale);
    IN_MEMORY(s->signs);
}

static ALWAYS_INLINE Vec iq2_xxs_piece(const State *s, const uint8_t *block, int k)
{
    const uint8_t *i = ((const BlockIQ2_XXS *)block)->g[k / 2].index + k % 2 * 2;
    __m128i tuples = _mm_set_epi64x((long long)iq2xxs_grid[i[1]], (long long)iq2xxs_grid[i[0]]);
    __m512i w = _mm512_castps_si512(
        v_mul(v_set(s->scale[k / 2]), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(tuples))));
    return _mm512_castsi512_ps(
        _mm512_mask_xor_epi32(w, (__mmask16)s->signs[k], w, _mm512_set1_epi32(INT32_MIN)));
}

GEMM(gemm_q8_0, 32, sizeof(BlockQ8_0), q8_0_open, q8_0_piece, NULL, FEW)
GEMM(gemm_q2_k, QK, sizeof(BlockQ2_K), q2_k_open, q2_k_piece, NULL, FEW)
GEMM(gemm_q4_k, QK, sizeof(BlockQ4_K), q4_k_open, q4_k_piece, NULL, FEW)
GEMM(gemm_iq2_xxs, QK, sizeof(BlockIQ2_XXS), iq2_xxs_open, iq2_xxs_piece, NULL, FEW)
GEMM(gemm_mxfp4, 32, sizeof(BlockMXFP4), mxfp4_open, mxfp4_piece, NULL, FEW)

/* ---- rows of the KV store ---------------------------------------------------------- */

/* E4M3 codes to F32 times s, by way of halves: the sign to bit 15, the rest 7
 * bits up, and what was 2^8 too small grows, subnormals too. */
static ALWAYS_INLINE Vec from_e4m3(__m128i codes, Vec s)
{
    const __m128i seven = _mm_set1_epi8(0x7f);
    const __mmask16 nan = _mm_cmpeq_epi8_mask(_mm_and_si128(codes, seven), seven);
    __m256i half = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
    half = _mm256_and_si256(half, _mm256_set1_epi16((short)0xbf80));
    half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00));
    return v_mul(s, v_mul(_mm512_cvtph_ps(half), v_set(256)));
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
        const Vec s = v_set(e8m0_decode(*scale++));
        for (int i = b; i < b + f->block; i += LANES) {
            int n = b + f->block - i;
            if (n >= LANES) {
                v_store(x + i, from_e4m3(_mm_loadu_si128((const __m128i *)(codes + i)), s));
                continue;
            }
            v_store_n(x + i, from_e4m3(_mm_maskz_loadu_epi8(v_mask(n), codes + i), s), n);
        }
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
    for (int b = 0; b < f->dim; b += 32, codes += 16) {
        const Vec table = e2m1_table(e8m0_decode(*scale++));
        const __m128i v = _mm_loadu_si128((const __m128i *)codes), high = _mm_srli_epi16(v, 4);
        v_store(x + b, look_up(table, _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(v, high))));
        v_store(x + b + 16, look_up(table, _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(v, high))));
    }
}

const Kernels kernels_avx512 = {
    .name = "avx512",
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
