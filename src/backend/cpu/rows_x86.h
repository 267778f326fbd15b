/* rows_x86.h - 16 weight rows of AVX-512, read and turned until a lane is a row.
 *
 * Bytes of rows r, r + 4, r + 8 and r + 12 lie in the quarters of a register, and a
 * turn within quarters brings the rows in order. */
#ifndef ROWS_X86_H
#define ROWS_X86_H
#include "simd_x86.h"

enum { PIECE = 16 };

/* Rows j ... of n_w; missing ones repeat the last. */
static ALWAYS_INLINE void rows_from(const uint8_t *rows[PIECE], const void *w, size_t ldw, int n_w,
                                    int j)
{
    for (int r = 0; r < PIECE; r++)
        rows[r] = weight_row(w, ldw, MIN(j + r, n_w - 1));
}

static ALWAYS_INLINE void fetch_rows(const uint8_t *const rows[PIECE], size_t at, int bytes)
{
    UNROLL
    for (int r = 0; r < PIECE; r++)
        fetch(rows[r] + at, bytes);
}

static ALWAYS_INLINE int32_t four_at(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static ALWAYS_INLINE __m256i two_rows_16(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}

/* 16 bytes of rows 0, 4, 8 and 12. */
static ALWAYS_INLINE __m512i four_rows(const uint8_t *const *rows, size_t at)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(two_rows_16(rows[0] + at, rows[4] + at)),
                              two_rows_16(rows[8] + at, rows[12] + at), 1);
}

/* The halves at byte `at` of the rows. */
static ALWAYS_INLINE Vec halves_at(const uint8_t *const rows[PIECE], size_t at)
{
    __m128i v[8];
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = _mm_unpacklo_epi16(_mm_loadu_si128((const __m128i *)(rows[2 * r] + at)),
                                  _mm_loadu_si128((const __m128i *)(rows[2 * r + 1] + at)));
    UNROLL
    for (int r = 0; r < 4; r++)
        v[r] = _mm_unpacklo_epi32(v[2 * r], v[2 * r + 1]);
    return _mm512_cvtph_ps(
        _mm256_set_m128i(_mm_unpacklo_epi64(v[2], v[3]), _mm_unpacklo_epi64(v[0], v[1])));
}

/* The low 16 bits of each lane, as halves. */
static ALWAYS_INLINE Vec low_halves(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

/* 32 bytes of rows r, r + 4, r + 8 and r + 12: 16 of each in v[0], the others in v[1]. */
static ALWAYS_INLINE void rows_of_four(__m512i v[2], const uint8_t *const *rows, size_t at)
{
    __m512i half[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)(rows[8 * i] + at));
        const __m256i high = _mm256_loadu_si256((const __m256i *)(rows[8 * i + 4] + at));
        half[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    v[0] = _mm512_shuffle_i64x2(half[0], half[1], 0x88);
    v[1] = _mm512_shuffle_i64x2(half[0], half[1], 0xdd);
}

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
#endif
