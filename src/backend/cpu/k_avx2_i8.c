/* k_avx2_i8.c - int8 activations for AVX2, and the products with them on CPUs
 * without AVX-VNNI. */
#include "i8_avx2_formats.h"

/* ---- activations ---------------------------------------------------------------- */

/* The largest of 8 numbers that are not negative. */
static ALWAYS_INLINE uint32_t largest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* rint(x * inverse) of 32 values, at most 127 in magnitude. */
static ALWAYS_INLINE __m256i codes_of(const __m256 x[4], float inverse)
{
    const __m256 by = _mm256_set1_ps(inverse);
    __m256i v[4];
    UNROLL
    for (int k = 0; k < 4; k++)
        v[k] = _mm256_cvtps_epi32(_mm256_mul_ps(x[k], by));
    const __m256i all =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The sums of each 16 of 32 codes, as two int16. vpsadbw adds 8 unsigned bytes. */
static ALWAYS_INLINE uint32_t sums_of(__m256i q)
{
    const __m256i offset = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
    const __m256i s = _mm256_sad_epu8(offset, _mm256_setzero_si256());
    const __m256i both = _mm256_add_epi64(s, _mm256_unpackhi_epi64(s, s));
    const int low = _mm_cvtsi128_si32(_mm256_castsi256_si128(both)) - 16 * 128;
    const int high = _mm_cvtsi128_si32(_mm256_extracti128_si256(both, 1)) - 16 * 128;
    return (uint16_t)low | (uint32_t)high << 16;
}

static void act_pack(void *row, const float *x, int n)
{
    const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
    int8_t *q = act_q(row);
    float *scale = act_scale(row, n);
    int16_t *sum = act_sum(row, n);

    for (int b = 0; b < n / ACT_BLOCK; b++, x += ACT_BLOCK, q += ACT_BLOCK, sum += 2) {
        __m256i most = _mm256_setzero_si256(), codes = most;
        __m256 v[4];
        UNROLL
        for (int k = 0; k < 4; k++) {
            v[k] = _mm256_loadu_ps(x + 8 * k);
            most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(v[k]), no_sign));
        }
        const uint32_t bits = largest(most);
        const float amax = f32_from_bits(bits);
        scale[b] = bits >= 0x7f800000 ? f32_from_bits(0x7fc00000) : 0;
        if (bits < 0x7f800000 && amax >= act_tiny) {
            scale[b] = amax / 127;
            codes = codes_of(v, 127 / amax);
        }
        store8(q, codes);
        u32_put(sum, sums_of(codes));
    }
}

const Kernels kernels_avx2_i8 = { .name = "avx2",
                                  .gemm_i8 = { [QUANT_Q8_0] = gemm_q8_0,
                                               [QUANT_Q2_K] = gemm_q2_k,
                                               [QUANT_Q4_K] = gemm_q4_k,
                                               [QUANT_IQ2_XXS] = gemm_iq2_xxs,
                                               [QUANT_MXFP4] = gemm_mxfp4 },
                                  .act_pack = act_pack };
