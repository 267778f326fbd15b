/* k_avx512_acts.c - int8 activations, 16 blocks of 32 at a time.
 *
 * The largest of each block are found side by side, so that one vector divides
 * for all of them. A row is read twice, the second time from the first cache. */
#include "acts.h"
#include "kernels.h"
#include "simd_x86.h"

enum { BATCH = 16 };

static ALWAYS_INLINE __m512i pair_max(__m512i a, __m512i b)
{
    return _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Lane 4 i + r: the largest of quarter i of v[r]. */
static ALWAYS_INLINE __m512i quarter_max(const __m512i v[4])
{
    const __m512i a = pair_max(v[0], v[1]), b = pair_max(v[2], v[3]);
    return _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

static ALWAYS_INLINE __m512i half_max(__m512i a, __m512i b)
{
    return _mm512_max_epu32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

/* The absolute values' bits, the largest of each of n <= 16 blocks. */
static ALWAYS_INLINE __m512i largest(const float *x, int n)
{
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    __m512i v[BATCH];
    UNROLL
    for (int b = 0; b < BATCH; b++) {
        v[b] = _mm512_setzero_si512();
        if (b < n)
            v[b] = _mm512_max_epu32(
                _mm512_and_si512(_mm512_loadu_si512(x + b * ACT_BLOCK), no_sign),
                _mm512_and_si512(_mm512_loadu_si512(x + b * ACT_BLOCK + 16), no_sign));
    }
    return half_max(half_max(quarter_max(v), quarter_max(v + 4)),
                    half_max(quarter_max(v + 8), quarter_max(v + 12)));
}

/* Writes the scales of n <= 16 blocks; what to multiply their values with, 0
 * where the codes are to be 0. */
static ALWAYS_INLINE Vec write_scales(float *scale, __m512i bits, int n)
{
    const Vec amax = _mm512_castsi512_ps(bits), full = v_set(127);
    const __mmask16 finite = _mm512_cmplt_epu32_mask(bits, _mm512_set1_epi32(0x7f800000));
    const __mmask16 some = _mm512_mask_cmp_ps_mask(finite, amax, v_set(act_tiny), _CMP_GE_OQ);
    Vec s = _mm512_maskz_div_ps(some, amax, full);
    s = _mm512_mask_mov_ps(_mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)), finite, s);
    v_store_upto(scale, s, n);
    return _mm512_maskz_div_ps(some, full, amax);
}

/* 16 codes. What is not finite times 0 converts to the smallest integer, which
 * ends in zeros. */
static ALWAYS_INLINE __m128i codes16(const float *x, float by)
{
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v_mul(v_load(x), v_set(by))));
}

/* Sums of 16 bytes each: lane 4 i + r is quarter i of v[r]. */
static ALWAYS_INLINE __m512i quarter_sums(const __m512i v[4])
{
    __m512i s[4];
    UNROLL
    for (int r = 0; r < 4; r++)
        s[r] = _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_set1_epi8(1), v[r]),
                                 _mm512_set1_epi16(1));
    const __m512i a =
        _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
    const __m512i b =
        _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Up to 8 blocks. */
static ALWAYS_INLINE void write_codes(int8_t *q, int16_t *sum, const float *x, const float *by,
                                      int n)
{
    const __m512i in_order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i v[4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        v[r] = _mm512_setzero_si512();
        UNROLL
        for (int h = 0; h < 2; h++) {
            const int b = 2 * r + h;
            if (b >= n)
                continue;
            __m256i two = _mm256_set_m128i(codes16(x + b * ACT_BLOCK + 16, by[b]),
                                           codes16(x + b * ACT_BLOCK, by[b]));
            _mm256_storeu_si256((__m256i *)(q + b * ACT_BLOCK), two);
            v[r] = h ? _mm512_inserti64x4(v[r], two, 1) : _mm512_zextsi256_si512(two);
        }
    }
    const __m512i sums = _mm512_permutexvar_epi32(in_order, quarter_sums(v));
    _mm512_mask_cvtepi32_storeu_epi16(sum, (__mmask16)((1u << 2 * n) - 1), sums);
}

/* n <= 16 blocks */
static ALWAYS_INLINE void pack(int8_t *q, float *scale, int16_t *sum, const float *x, int n)
{
    _Alignas(64) float by[BATCH];
    _mm512_store_ps(by, write_scales(scale, largest(x, n), n));
    write_codes(q, sum, x, by, MIN(n, 8));
    if (n > 8)
        write_codes(q + 8 * ACT_BLOCK, sum + 16, x + 8 * ACT_BLOCK, by + 8, n - 8);
}

static void act_pack(void *row, const float *x, int n)
{
    int8_t *q = act_q(row);
    float *scale = act_scale(row, n);
    int16_t *sum = act_sum(row, n);
    int b = 0;
    const int blocks = n / ACT_BLOCK;
    for (; b + BATCH <= blocks; b += BATCH)
        pack(q + b * ACT_BLOCK, scale + b, sum + 2 * b, x + b * ACT_BLOCK, BATCH);
    if (b < blocks)
        pack(q + b * ACT_BLOCK, scale + b, sum + 2 * b, x + b * ACT_BLOCK, blocks - b);
}

const Kernels kernels_avx512_acts = { .name = "avx512", .act_pack = act_pack };
