/* k_avx512_vnni.c - integer products of Q8_0, Q4_K and MXFP4. */
#include "k_avx512_vnni.h"
#include "vnni_x86.h"
#include "../../quant/blocks.h"

/* ---- transposing ------------------------------------------------------------------ */

/* In each quarter of a register, element c of v[r] becomes element r of v[c]. */
static ALWAYS_INLINE void turn4(__m512i v[4])
{
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpacklo_epi32(v[2], v[3]);
    const __m512i c = _mm512_unpackhi_epi32(v[0], v[1]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, b);
    v[1] = _mm512_unpackhi_epi64(a, b);
    v[2] = _mm512_unpacklo_epi64(c, d);
    v[3] = _mm512_unpackhi_epi64(c, d);
}

static ALWAYS_INLINE __m512i two_rows(const uint8_t *low, const uint8_t *high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low)),
                              _mm256_loadu_si256((const __m256i *)high), 1);
}

/* The first two bytes of 16 blocks. */
static ALWAYS_INLINE __m256i halves16(const uint8_t *const rows[PIECE], size_t at)
{
    __m128i v[8];
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = _mm_unpacklo_epi16(_mm_loadu_si128((const __m128i *)(rows[2 * r] + at)),
                                  _mm_loadu_si128((const __m128i *)(rows[2 * r + 1] + at)));
    UNROLL
    for (int r = 0; r < 4; r++)
        v[r] = _mm_unpacklo_epi32(v[2 * r], v[2 * r + 1]);
    return _mm256_set_m128i(_mm_unpacklo_epi64(v[2], v[3]), _mm_unpacklo_epi64(v[0], v[1]));
}

/* ---- Q8_0 ------------------------------------------------------------------------- */

static ALWAYS_INLINE void q8_0_expand(Piece *to, const uint8_t *const rows[PIECE], size_t ahead,
                                      int n)
{
    const __m512i plus_128 = _mm512_set1_epi8(-128);
    size_t at = 0;
    for (; n > 0; n--, to++, at += sizeof(BlockQ8_0)) {
        __m512i v[8];
        UNROLL
        for (int r = 0; r < PIECE; r++)
            fetch(rows[r] + at + ahead, 1);
        UNROLL
        for (int r = 0; r < 4; r++) {
            v[r] = two_rows(rows[r] + at + 2, rows[r + 4] + at + 2);
            v[r + 4] = two_rows(rows[r + 8] + at + 2, rows[r + 12] + at + 2);
        }
        turn4(v);
        turn4(v + 4);
        UNROLL
        for (int k = 0; k < 4; k++) {
            __m512i low = _mm512_shuffle_i64x2(v[k], v[k + 4], 0x88);
            __m512i high = _mm512_shuffle_i64x2(v[k], v[k + 4], 0xdd);
            _mm512_store_si512(to->code[k], _mm512_xor_si512(low, plus_128));
            _mm512_store_si512(to->code[k + 4], _mm512_xor_si512(high, plus_128));
        }
        _mm512_store_ps(to->a, _mm512_cvtph_ps(halves16(rows, at)));
    }
}

TILES(plain, MIN_NONE)

void vnni_q8_0(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
               size_t ldx, int n_x, int cols)
{
    const VnniFormat f = { 32, sizeof(BlockQ8_0), 128, MIN_NONE, q8_0_expand };
    gemm_vnni(f, plain, out, ldo, w, ldw, n_w, x, ldx, n_x, cols);
}
