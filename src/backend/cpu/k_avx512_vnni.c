/* k_avx512_vnni.c - integer products of Q8_0, Q4_K and MXFP4, 16 weight rows at a time. */
#include "vnni_x86.h"

/* 32 bytes of each of two rows. */
static ALWAYS_INLINE __m512i two_rows(const uint8_t *low, const uint8_t *high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low)),
                              _mm256_loadu_si256((const __m256i *)high), 1);
}

/* 16 bytes of each of two rows, twice. */
static ALWAYS_INLINE __m512i two_rows_twice(const uint8_t *low, const uint8_t *high)
{
    const __m128i a = _mm_loadu_si128((const __m128i *)low);
    const __m128i b = _mm_loadu_si128((const __m128i *)high);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(a)),
                              _mm256_broadcastsi128_si256(b), 1);
}

/* The two rows that v[r] has of what lies `at` bytes on. */
#define OF_ROWS(load, r, at) \
    load(rows[(r) + (r) / 4 * 4] + (at), rows[(r) + (r) / 4 * 4 + 4] + (at))

/* ---- Q8_0 ------------------------------------------------------------------------- */

static ALWAYS_INLINE void q8_0_open(Factors *w, const uint8_t *const rows[PIECE], size_t at)
{
    w->a = halves_at(rows, at);
}

static ALWAYS_INLINE void q8_0_codes(__m512i v[8], const uint8_t *const rows[PIECE], size_t at,
                                     int k)
{
    (void)k;
    at += offsetof(BlockQ8_0, q);
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = _mm512_xor_si512(OF_ROWS(two_rows, r, at), _mm512_set1_epi8(-128));
}

/* ---- MXFP4 ------------------------------------------------------------------------ */

/* e8m0_decode(e) / 2 */
static ALWAYS_INLINE Vec half_of_e8m0(__m128i e)
{
    const __m512i wide = _mm512_cvtepu8_epi32(e);
    __m512i bits = _mm512_slli_epi32(wide, 23);
    bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(wide, wide),
                                 _mm512_set1_epi32(0x00400000));
    bits = _mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(wide, _mm512_set1_epi32(255)),
                                 _mm512_set1_epi32(0x7fc00000));
    return v_mul(_mm512_castsi512_ps(bits), v_set(0.5f));
}

static ALWAYS_INLINE void mxfp4_open(Factors *w, const uint8_t *const rows[PIECE], size_t at)
{
    __m128i v[8];
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = _mm_unpacklo_epi8(_mm_loadu_si128((const __m128i *)(rows[2 * r] + at)),
                                 _mm_loadu_si128((const __m128i *)(rows[2 * r + 1] + at)));
    UNROLL
    for (int r = 0; r < 4; r++)
        v[r] = _mm_unpacklo_epi16(v[2 * r], v[2 * r + 1]);
    w->a = half_of_e8m0(
        _mm_unpacklo_epi64(_mm_unpacklo_epi32(v[0], v[1]), _mm_unpacklo_epi32(v[2], v[3])));
}

/* 12 + 2 * E2M1 of the low nibbles. */
static ALWAYS_INLINE __m512i e2m1_codes(__m512i nibbles)
{
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm512_shuffle_epi8(table, _mm512_and_si512(nibbles, _mm512_set1_epi8(15)));
}

static ALWAYS_INLINE void mxfp4_codes(__m512i v[8], const uint8_t *const rows[PIECE], size_t at,
                                      int k)
{
    const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    (void)k;
    at += offsetof(BlockMXFP4, q);
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = e2m1_codes(_mm512_srlv_epi64(OF_ROWS(two_rows_twice, r, at), shift));
}

/* Four rows in a register, their low nibbles first: half the sums across lanes. */
static ALWAYS_INLINE __m512i mxfp4_dot(const uint8_t *const rows[PIECE], size_t at, int k,
                                       const int8_t *q)
{
    const __m512i low = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)q));
    const __m512i high = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)q + 1));
    __m512i v[4];
    (void)k;
    at += offsetof(BlockMXFP4, q);
    UNROLL
    for (int r = 0; r < 4; r++) {
        const __m512i n = four_rows(rows + r, at);
        v[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), e2m1_codes(n), low);
        v[r] = _mm512_dpbusd_epi32(v[r], e2m1_codes(_mm512_srli_epi32(n, 4)), high);
    }
    return add_quarters(v);
}

/* ---- Q4_K ------------------------------------------------------------------------- */

/* d times byte j of each lane */
static ALWAYS_INLINE Vec scaled(Vec d, __m512i bytes, int j)
{
    const __m512i one =
        _mm512_and_si512(_mm512_srl_epi32(bytes, _mm_cvtsi32_si128(8 * j)), _mm512_set1_epi32(255));
    return v_mul(d, _mm512_cvtepi32_ps(one));
}

/* A block begins with 16 bytes: d and dmin, and 6 bits for each scale and min. */
static ALWAYS_INLINE void q4_k_open(Factors w[8], const uint8_t *const rows[PIECE], size_t at)
{
    const __m512i low4 = _mm512_set1_epi8(0x0f), low6 = _mm512_set1_epi8(0x3f);
    const __m512i next2 = _mm512_set1_epi8(0x30);
    __m512i v[4];
    UNROLL
    for (int r = 0; r < 4; r++)
        v[r] = four_rows(rows + r, at);
    turn4(v);
    const Vec d = low_halves(v[0]), dmin = low_halves(_mm512_srli_epi32(v[0], 16));
    const __m512i scales[2] = {
        _mm512_and_si512(v[1], low6),
        _mm512_or_si512(_mm512_and_si512(v[3], low4),
                        _mm512_and_si512(_mm512_srli_epi32(v[1], 2), next2)),
    };
    const __m512i mins[2] = {
        _mm512_and_si512(v[2], low6),
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(v[3], 4), low4),
                        _mm512_and_si512(_mm512_srli_epi32(v[2], 2), next2)),
    };
    UNROLL
    for (int j = 0; j < 8; j++) {
        w[j].a = scaled(d, scales[j / 4], j % 4);
        w[j].m = scaled(dmin, mins[j / 4], j % 4);
    }
}

static ALWAYS_INLINE void q4_k_codes(__m512i v[8], const uint8_t *const rows[PIECE], size_t at,
                                     int k)
{
    at += offsetof(BlockQ4_K, q) + (size_t)k / 2 * 32;
    UNROLL
    for (int r = 0; r < 8; r++) {
        const __m512i q = OF_ROWS(two_rows, r, at);
        v[r] = _mm512_and_si512(k % 2 ? _mm512_srli_epi32(q, 4) : q, _mm512_set1_epi8(15));
    }
}

/* ---- all ---------------------------------------------------------------------------- */

TILES(tiles_plain, MIN_NONE)
TILES(tiles_min, MIN_WHOLE)

GEMM_ROWS(gemm_q8_0, tiles_plain, q8_0_open, q8_0_codes, NULL, 32, sizeof(BlockQ8_0), 128, MIN_NONE)
GEMM_ROWS(gemm_mxfp4, tiles_plain, mxfp4_open, mxfp4_codes, mxfp4_dot, 32, sizeof(BlockMXFP4), 12,
          MIN_NONE)
GEMM_ROWS(gemm_q4_k, tiles_min, q4_k_open, q4_k_codes, NULL, QK, sizeof(BlockQ4_K), 0, MIN_WHOLE)

const Kernels kernels_avx512_vnni = {
    .name = "avx512",
    .gemm_i8 = { [QUANT_Q8_0] = gemm_q8_0, [QUANT_Q4_K] = gemm_q4_k, [QUANT_MXFP4] = gemm_mxfp4 }
};
