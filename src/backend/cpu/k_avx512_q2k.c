/* k_avx512_q2k.c - integer products of Q2_K, 16 weight rows at a time.
 *
 * Crumbs are turned before they are taken apart, when there are fewest bytes of
 * them: a lane is a weight row from then on. What a block decodes to is either
 * multiplied at once (few rows of x) or written as pieces of vnni_x86.h. */
#include "vnni_x86.h"

/* Scales and minima of a block, 4 bits each: dword r of word[i] has groups 4 i .. of row r. */
typedef struct {
    Vec d, dmin;
    __m512i scales[4], mins[4];
} Factors2;

/* 4 bytes of each of the rows. */
static ALWAYS_INLINE __m512i fours_at(const uint8_t *const rows[PIECE], size_t at)
{
    __m128i v[4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        const uint8_t *const *row = rows + 4 * r;
        v[r] = _mm_cvtsi32_si128(four_at(row[0] + at));
        v[r] = _mm_insert_epi32(v[r], four_at(row[1] + at), 1);
        v[r] = _mm_insert_epi32(v[r], four_at(row[2] + at), 2);
        v[r] = _mm_insert_epi32(v[r], four_at(row[3] + at), 3);
    }
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(v[1], v[0])),
                              _mm256_set_m128i(v[3], v[2]), 1);
}

static ALWAYS_INLINE void q2_k_open(Factors2 *f, const uint8_t *const rows[PIECE], size_t at)
{
    const __m512i low4 = _mm512_set1_epi8(15);
    const __m512i both = fours_at(rows, at + offsetof(BlockQ2_K, d));
    f->d = low_halves(both);
    f->dmin = low_halves(_mm512_srli_epi32(both, 16));
    at += offsetof(BlockQ2_K, scales);
    UNROLL
    for (int r = 0; r < 4; r++)
        f->scales[r] = four_rows(rows + r, at);
    turn4(f->scales);
    UNROLL
    for (int i = 0; i < 4; i++) {
        f->mins[i] = _mm512_and_si512(_mm512_srli_epi16(f->scales[i], 4), low4);
        f->scales[i] = _mm512_and_si512(f->scales[i], low4);
    }
}

/* Bytes a and b of each dword, as words. */
static ALWAYS_INLINE __m512i two_bytes(__m512i v, int a, int b)
{
    const __m512i dword = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    const __m512i dwords = _mm512_mullo_epi32(dword, _mm512_set1_epi32(0x00010001));
    const int32_t none = (int32_t)0x80008000;
    return _mm512_shuffle_epi8(v, _mm512_add_epi32(dwords, _mm512_set1_epi32(none | a | b << 16)));
}

/* The 32 bytes of crumbs at byte `at` of the rows: bytes 16 h + 4 i .. in v[h][i]. */
static ALWAYS_INLINE void crumbs_at(__m512i v[2][4], const uint8_t *const rows[PIECE], size_t at)
{
    UNROLL
    for (int r = 0; r < 4; r++) {
        __m512i both[2];
        rows_of_four(both, rows + r, at);
        v[0][r] = both[0];
        v[1][r] = both[1];
    }
    turn4(v[0]);
    turn4(v[1]);
}

/* The j-th crumbs of 32 bytes with x: t of the law. The crumbs stay where they
 * are, so sums are 4^j times too large. Those of 16 columns fit 16 bits. */
static ALWAYS_INLINE Vec q2_k_times_x(__m512i v[2][4], const Factors2 *f, int group, X x)
{
    const int j = group % 4, first = group % 2 * 2;
    const __m512i mask = _mm512_set1_epi8((char)(3 << 2 * j));
    __m512i s[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        s[h] = _mm512_setzero_si512();
        UNROLL
        for (int i = 0; i < 4; i++)
            s[h] = _mm512_dpbusd_epi32(s[h], _mm512_and_si512(v[h][i], mask),
                                       _mm512_set1_epi32(four_at(x.q + 16 * h + 4 * i)));
    }
    const __m512i sums =
        _mm512_mask_mov_epi16(_mm512_srli_epi32(s[0], (unsigned)(2 * j)), 0xaaaaaaaa,
                              _mm512_slli_epi32(s[1], (unsigned)(16 - 2 * j)));
    const __m512i isum = _mm512_madd_epi16(sums, two_bytes(f->scales[group / 2], first, first + 1));
    const __m512i msum = _mm512_madd_epi16(_mm512_set1_epi32(four_at(x.sum)),
                                           two_bytes(f->mins[group / 2], first, first + 1));
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(msum), f->dmin,
                            v_mul(_mm512_cvtepi32_ps(isum), f->d));
}

/* 16 outputs. What is `ahead` bytes on is fetched. */
static ALWAYS_INLINE Vec q2_k_rows(const uint8_t *const rows[PIECE], size_t ahead, X x, int cols)
{
    const uint8_t *next = rows[0] + ahead;
    __m512i v[2][4];
    Factors2 f;
    Vec sum = v_zero();
    size_t at = 0;
    for (int c = 0; c < cols; c += QK, at += sizeof(BlockQ2_K)) {
        fetch(next, PIECE * sizeof(BlockQ2_K));
        next += PIECE * sizeof(BlockQ2_K);
        q2_k_open(&f, rows, at);
        UNROLL
        for (int g = 0; g < 8; g++, next_block(&x)) {
            if (g % 4 == 0)
                crumbs_at(v, rows, at + offsetof(BlockQ2_K, q) + 8 * (size_t)g);
            sum = v_fma(q2_k_times_x(v, &f, g, x), v_set(*x.scale), sum);
        }
    }
    return sum;
}

static ALWAYS_INLINE void q2_k_piece(Piece *to, __m512i v[2][4], const Factors2 *f, int group)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    const int first = group % 2 * 2;
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m512i scale = two_bytes(f->scales[group / 2], first + h, first + h);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const __m512i shifted = _mm512_srli_epi32(v[h][i], (unsigned)(group % 4 * 2));
            _mm512_store_si512(to->code[4 * h + i],
                               _mm512_mullo_epi16(_mm512_and_si512(shifted, low2), scale));
        }
    }
    _mm512_store_ps(to->a, f->d);
    _mm512_store_ps(to->m, f->dmin);
    _mm512_store_si512(to->min, two_bytes(f->mins[group / 2], first, first + 1));
}

static void q2_k_expand(Piece *to, const uint8_t *const rows[PIECE], size_t ahead, int n)
{
    __m512i v[2][4];
    Factors2 f;
    size_t at = 0;
    for (; n > 0; n -= QK / ACT_BLOCK, at += sizeof(BlockQ2_K)) {
        UNROLL
        for (int r = 0; r < PIECE; r++)
            fetch(rows[r] + at + ahead, sizeof(BlockQ2_K));
        q2_k_open(&f, rows, at);
        UNROLL
        for (int g = 0; g < 8; g++) {
            if (g % 4 == 0)
                crumbs_at(v, rows, at + offsetof(BlockQ2_K, q) + 8 * (size_t)g);
            q2_k_piece(to++, v, &f, g);
        }
    }
}

/* An AddBlock. Crumbs stay where they are here, too: what a Piece has of them takes longer to
 * make. */
static ALWAYS_INLINE void q2_k_add(Vec sum[TILE_X], const int n_x, const TileX *x, int b,
                                   const uint8_t *const rows[PIECE], size_t at)
{
    __m512i v[2][4];
    Factors2 f;
    q2_k_open(&f, rows, at);
    UNROLL
    for (int g = 0; g < 8; g++) {
        if (g % 4 == 0)
            crumbs_at(v, rows, at + offsetof(BlockQ2_K, q) + 8 * (size_t)g);
        UNROLL
        for (int i = 0; i < n_x; i++) {
            const X xi = { x->q[i] + (b + g) * ACT_BLOCK, &x->scale[i][b + g],
                           (const int16_t *)&x->halves[i][b + g] };
            sum[i] = v_fma(q2_k_times_x(v, &f, g, xi), v_set(*xi.scale), sum[i]);
        }
    }
}

/* ---- all ------------------------------------------------------------------------------- */

static const VnniFormat q2_k = { QK, sizeof(BlockQ2_K), 0, MIN_HALVES, q2_k_expand };
TILES(tiles_halves, MIN_HALVES)
FEWS(few, q2_k, q2_k_add)

static void one(float *out, const void *w, size_t ldw, int n_w, const void *x, int cols)
{
    const uint8_t *rows[PIECE];
    for (int j = 0; j < n_w; j += PIECE) {
        rows_from(rows, w, ldw, n_w, j);
        v_store_upto(out + j, q2_k_rows(rows, ROWS_AHEAD * ldw, x_of(x, cols), cols), n_w - j);
    }
}

GEMM_BY_ROWS(gemm_q2_k, one, few, q2_k, tiles_halves)

const Kernels kernels_avx512_q2k = { .name = "avx512", .gemm_i8 = { [QUANT_Q2_K] = gemm_q2_k } };
