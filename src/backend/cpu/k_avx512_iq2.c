/* k_avx512_iq2.c - integer products of IQ2_XXS, 16 weight rows at a time.
 *
 * Bytes are turned before they are decoded, when there are fewest of them: a
 * lane is a weight row from then on, so nothing is summed across rows, and what
 * a block decodes to is either multiplied at once (few rows of x) or written as
 * pieces of vnni_x86.h. Besides VNNI this needs VBMI and GFNI. */
#include "vnni_x86.h"

/* In each quarter: elements 0 and 2 of a, then of b; 1 and 3. */
static ALWAYS_INLINE __m512i even_words(__m512i a, __m512i b)
{
    return _mm512_castps_si512(
        _mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0x88));
}
static ALWAYS_INLINE __m512i odd_words(__m512i a, __m512i b)
{
    return _mm512_castps_si512(
        _mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0xdd));
}

/* The grid in two planes: bit i of an entry is set where element i is 25, or is
 * 43. Bit 7 is such that all 8 bits have the parity of what is said of element
 * 7, and is never set in plane_25: tuples have an even number of 25s. */
static const uint8_t plane_25[256] = {
    0x00, 0x00, 0x03, 0x00, 0x00, 0x05, 0x06, 0x00, 0x00, 0x00, 0x00, 0x09, 0x0a, 0x0c, 0x0c, 0x09,
    0x0a, 0x00, 0x00, 0x00, 0x00, 0x11, 0x12, 0x14, 0x17, 0x18, 0x12, 0x14, 0x00, 0x00, 0x00, 0x00,
    0x21, 0x22, 0x24, 0x21, 0x22, 0x28, 0x28, 0x28, 0x28, 0x21, 0x22, 0x24, 0x22, 0x30, 0x30, 0x30,
    0x30, 0x3a, 0x39, 0x30, 0x35, 0x21, 0x24, 0x28, 0x22, 0x22, 0x00, 0x03, 0x00, 0x06, 0x00, 0x09,
    0x0a, 0x0c, 0x0c, 0x00, 0x12, 0x18, 0x00, 0x06, 0x41, 0x42, 0x44, 0x41, 0x48, 0x48, 0x42, 0x44,
    0x47, 0x50, 0x50, 0x50, 0x5c, 0x5c, 0x50, 0x42, 0x4b, 0x60, 0x60, 0x60, 0x63, 0x69, 0x60, 0x74,
    0x78, 0x60, 0x66, 0x41, 0x42, 0x44, 0x48, 0x41, 0x50, 0x53, 0x50, 0x4d, 0x00, 0x00, 0x00, 0x0a,
    0x09, 0x00, 0x00, 0x11, 0x18, 0x00, 0x00, 0x21, 0x22, 0x24, 0x28, 0x2e, 0x30, 0x39, 0x3a, 0x24,
    0x00, 0x00, 0x06, 0x0a, 0x01, 0x02, 0x04, 0x04, 0x01, 0x02, 0x08, 0x08, 0x0e, 0x08, 0x01, 0x02,
    0x04, 0x10, 0x10, 0x19, 0x10, 0x13, 0x01, 0x04, 0x08, 0x0e, 0x08, 0x20, 0x20, 0x20, 0x20, 0x25,
    0x34, 0x32, 0x20, 0x01, 0x02, 0x04, 0x08, 0x0b, 0x10, 0x1c, 0x19, 0x10, 0x0b, 0x04, 0x40, 0x40,
    0x45, 0x45, 0x40, 0x40, 0x40, 0x52, 0x58, 0x52, 0x45, 0x64, 0x64, 0x70, 0x61, 0x6e, 0x40, 0x45,
    0x45, 0x4a, 0x58, 0x40, 0x02, 0x04, 0x08, 0x08, 0x10, 0x1f, 0x04, 0x08, 0x20, 0x23, 0x34, 0x34,
    0x32, 0x08, 0x00, 0x00, 0x00, 0x09, 0x00, 0x12, 0x14, 0x18, 0x05, 0x21, 0x22, 0x24, 0x27, 0x28,
    0x28, 0x30, 0x3a, 0x36, 0x21, 0x28, 0x28, 0x00, 0x12, 0x05, 0x42, 0x44, 0x42, 0x48, 0x41, 0x56,
    0x50, 0x4b, 0x60, 0x60, 0x6a, 0x7d, 0x41, 0x50, 0x00, 0x0c, 0x03, 0x11, 0x00, 0x24, 0x0c, 0x12,
};
static const uint8_t plane_43[256] = {
    0x00, 0x81, 0x00, 0x82, 0x03, 0x00, 0x00, 0x84, 0x05, 0x06, 0x87, 0x00, 0x00, 0x00, 0x82, 0x84,
    0x84, 0x88, 0x09, 0x8b, 0x8d, 0x00, 0x00, 0x00, 0x00, 0x00, 0x88, 0x0a, 0x90, 0x11, 0x95, 0x99,
    0x00, 0x00, 0x00, 0x84, 0x84, 0x00, 0x81, 0x82, 0x84, 0x88, 0x88, 0x88, 0x0c, 0x00, 0x81, 0x82,
    0x84, 0x81, 0x06, 0x88, 0x88, 0x12, 0x90, 0x90, 0x18, 0x9c, 0xa0, 0xa0, 0x22, 0xa0, 0xa6, 0xa0,
    0xa0, 0xa0, 0x21, 0xaa, 0xa0, 0xa0, 0xb1, 0x30, 0x00, 0x00, 0x00, 0x84, 0x00, 0x84, 0x88, 0x88,
    0x88, 0x00, 0x82, 0x84, 0x00, 0x03, 0x88, 0x14, 0x90, 0x00, 0x82, 0x84, 0x84, 0x82, 0x88, 0x82,
    0x05, 0x90, 0x11, 0xa0, 0xa0, 0xa0, 0xa0, 0x28, 0xa0, 0xa0, 0xac, 0x30, 0xc0, 0x41, 0xc3, 0xc0,
    0x44, 0x48, 0xc9, 0xc6, 0x42, 0x50, 0xd1, 0xc0, 0xc0, 0xc0, 0xc0, 0x41, 0xc0, 0xc0, 0x44, 0xd8,
    0xe2, 0xe4, 0xe8, 0xf0, 0x00, 0x00, 0x00, 0x82, 0x84, 0x84, 0x00, 0x82, 0x81, 0x84, 0x88, 0x88,
    0x88, 0x00, 0x84, 0x84, 0x88, 0x88, 0x90, 0x90, 0x12, 0x11, 0x96, 0x00, 0x82, 0x84, 0x88, 0x0a,
    0x81, 0x84, 0x90, 0xa0, 0xa0, 0xa0, 0xa0, 0xa0, 0xa0, 0x22, 0x24, 0xa9, 0x30, 0xb8, 0x00, 0x82,
    0x00, 0x82, 0x84, 0x88, 0x0a, 0x00, 0x81, 0x0c, 0x18, 0x88, 0x09, 0x03, 0x90, 0x90, 0xa0, 0xa0,
    0x22, 0x24, 0xa0, 0xb2, 0xc0, 0xc0, 0xc0, 0xc6, 0xc0, 0xc0, 0xd2, 0xd4, 0xc0, 0xc0, 0xc0, 0x41,
    0x48, 0xe1, 0x80, 0x01, 0x83, 0x80, 0x89, 0x80, 0x02, 0x80, 0x10, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x04, 0x80, 0x01, 0x08, 0x92, 0x10, 0x94, 0xa1, 0x20, 0xb0, 0x80, 0x80, 0x04, 0x80, 0x8c, 0x01,
    0x08, 0x10, 0x80, 0x85, 0x80, 0x80, 0xa8, 0xa4, 0xc1, 0x40, 0xc8, 0xc2, 0xd0, 0xc2, 0xe0, 0xe0,
};

/* Codes and 128, by 6 bits of which three matter: [25] and [43] are the bits of
 * the planes, [minus] the sign's. */
#define CODE(i, is_25, is_43, minus) \
    (uint8_t)(128 + ((i) >> (minus)&1 ? -1 : 1) * ((i) >> (is_25)&1   ? 25 \
                                                   : (i) >> (is_43)&1 ? 43 \
                                                                      : 8))
#define CODES_4(i, ...) \
    CODE(i, __VA_ARGS__), CODE(i + 1, __VA_ARGS__), CODE(i + 2, __VA_ARGS__), \
        CODE(i + 3, __VA_ARGS__)
#define CODES_16(i, ...) \
    CODES_4(i, __VA_ARGS__), CODES_4(i + 4, __VA_ARGS__), CODES_4(i + 8, __VA_ARGS__), \
        CODES_4(i + 12, __VA_ARGS__)
#define CODES_64(...) \
    CODES_16(0, __VA_ARGS__), CODES_16(16, __VA_ARGS__), CODES_16(32, __VA_ARGS__), \
        CODES_16(48, __VA_ARGS__)
static const uint8_t codes_01[64] = { CODES_64(5, 4, 1) }, codes_23[64] = { CODES_64(1, 0, 5) };

/* In registers. */
typedef struct {
    __m512i plane_25[4], plane_43[4], codes_01, codes_23;
} Grid;

static ALWAYS_INLINE Grid grid_load(void)
{
    Grid g;
    UNROLL
    for (int i = 0; i < 4; i++) {
        g.plane_25[i] = _mm512_loadu_si512(plane_25 + 64 * i);
        g.plane_43[i] = _mm512_loadu_si512(plane_43 + 64 * i);
    }
    g.codes_01 = _mm512_loadu_si512(codes_01);
    g.codes_23 = _mm512_loadu_si512(codes_23);
    return g;
}

/* A group of 32 columns, 8 bytes of each row: even has rows 0 1, 4 5, 8 9, 12 13; odd has the
 * others. */
typedef struct {
    __m512i even, odd;
} Group;

/* The four groups that are at byte `at` of the rows. */
static ALWAYS_INLINE void four_groups(Group g[4], const uint8_t *const rows[PIECE], size_t at)
{
    __m512i v[4][2];
    UNROLL
    for (int r = 0; r < 4; r++)
        rows_of_four(v[r], rows + r, at);
    UNROLL
    for (int i = 0; i < 2; i++) {
        g[2 * i].even = _mm512_unpacklo_epi64(v[0][i], v[1][i]);
        g[2 * i].odd = _mm512_unpacklo_epi64(v[2][i], v[3][i]);
        g[2 * i + 1].even = _mm512_unpackhi_epi64(v[0][i], v[1][i]);
        g[2 * i + 1].odd = _mm512_unpackhi_epi64(v[2][i], v[3][i]);
    }
}

/* table[each byte]; high: which bytes are 128 or more */
static ALWAYS_INLINE __m512i look_up_256(const __m512i table[4], __m512i index, __mmask64 high)
{
    return _mm512_mask_blend_epi8(high, _mm512_permutex2var_epi8(table[0], index, table[1]),
                                  _mm512_permutex2var_epi8(table[2], index, table[3]));
}

/* The codes, plus 128, of 8 rows: tuple k in c[k]. A lane of 64 bits is a row:
 * `planes` has tuples' bytes of plane_25 and plane_43 in turn. With signs in place
 * of the planes of two tuples a lane is 8 x 8 bits, which gf2p8affineqb turns:
 * byte i is what the others said of element i, parity of all 8 bits for
 * element 7. Bits 7 6 3 (5 4 1) of it are tuple 0 (1), 3 2 7 (1 0 5) tuple 2 (3); vpermb
 * looks at 6 bits. Bit 7 of the signs is that of plane_25 below: 0. */
static ALWAYS_INLINE void tuples(__m512i c[4], const Grid *t, __m512i group, __m512i planes)
{
    const __m512i take = _mm512_set1_epi64(0x002700200035002e);
    const __m512i of_01 = _mm512_set1_epi64(0x00800080ffffffff);
    const __m512i of_23 = _mm512_set1_epi64((long long)0xffffffff00800080);
    const __m512i turn = _mm512_set1_epi64((long long)0xff40201008040201);
    const __m512i signs = _mm512_multishift_epi64_epi8(take, group);
    const __m512i a = _mm512_gf2p8affine_epi64_epi8(
        turn, _mm512_ternarylogic_epi64(of_01, planes, signs, 0xca), 0);
    const __m512i b = _mm512_gf2p8affine_epi64_epi8(
        turn, _mm512_ternarylogic_epi64(of_23, planes, signs, 0xca), 0);
    c[0] = _mm512_permutexvar_epi8(_mm512_srli_epi16(a, 2), t->codes_01);
    c[1] = _mm512_permutexvar_epi8(a, t->codes_01);
    c[2] = _mm512_permutexvar_epi8(_mm512_srli_epi16(b, 2), t->codes_23);
    c[3] = _mm512_permutexvar_epi8(b, t->codes_23);
}

static ALWAYS_INLINE void group_codes(__m512i even[4], __m512i odd[4], const Grid *t, Group g)
{
    const __m512i index = even_words(g.even, g.odd);
    const __mmask64 high = _mm512_movepi8_mask(index);
    const __m512i p25 = look_up_256(t->plane_25, index, high);
    const __m512i p43 = look_up_256(t->plane_43, index, high);
    tuples(even, t, g.even, _mm512_unpacklo_epi8(p25, p43));
    tuples(odd, t, g.odd, _mm512_unpackhi_epi8(p25, p43));
}

/* 2 s + 1 of each row; below s is a bit of a sign */
static ALWAYS_INLINE __m512i group_scales(Group g)
{
    return _mm512_or_si512(_mm512_srli_epi32(odd_words(g.even, g.odd), 27), _mm512_set1_epi32(1));
}

/* d / 8 of each row */
static ALWAYS_INLINE Vec iq2_factors(const uint8_t *const rows[PIECE], size_t at)
{
    return v_mul(halves_at(rows, at), v_set(0.125f));
}

/* isum times 2 s + 1, less than 2^23: times d / 8 it is rounded once, as the law says. */
static ALWAYS_INLINE Vec group_times_x(const Grid *t, Group g, X x)
{
    __m512i c[2][4];
    group_codes(c[0], c[1], t, g);
    /* -128 times the sum of x, half of it in each lane of a row. */
    const __m512i start =
        _mm512_madd_epi16(_mm512_set1_epi32(four_at(x.sum)), _mm512_set1_epi16(-64));
    __m512i even = start, odd = start;
    UNROLL
    for (int k = 0; k < 4; k++) {
        int64_t eight;
        memcpy(&eight, x.q + 8 * k, sizeof eight);
        const __m512i q = _mm512_set1_epi64(eight);
        even = _mm512_dpbusd_epi32(even, c[0][k], q);
        odd = _mm512_dpbusd_epi32(odd, c[1][k], q);
    }
    const __m512i isum = _mm512_add_epi32(even_words(even, odd), odd_words(even, odd));
    return _mm512_cvtepi32_ps(_mm512_mullo_epi32(isum, group_scales(g)));
}

/* 16 outputs. What is `ahead` bytes on is fetched. */
static ALWAYS_INLINE Vec iq2_rows(const Grid *t, const uint8_t *const rows[PIECE], size_t ahead,
                                  X x, int cols)
{
    const uint8_t *next = rows[0] + ahead;
    Group g[4];
    Vec sum = v_zero();
    size_t at = 0;
    for (int c = 0; c < cols; c += QK, at += sizeof(BlockIQ2_XXS)) {
        fetch(next, PIECE * sizeof(BlockIQ2_XXS));
        next += PIECE * sizeof(BlockIQ2_XXS);
        const Vec d = iq2_factors(rows, at);
        UNROLL
        for (int half = 0; half < 2; half++) {
            four_groups(g, rows, at + 2 + 32 * (size_t)half);
            UNROLL
            for (int i = 0; i < 4; i++, next_block(&x))
                sum = v_fma(v_mul(group_times_x(t, g[i], x), d), v_set(*x.scale), sum);
        }
    }
    return sum;
}

/* A group's codes as those of a Piece. */
static ALWAYS_INLINE void turned_codes(__m512i code[8], const Grid *t, Group g)
{
    __m512i c[2][4];
    group_codes(c[0], c[1], t, g);
    UNROLL
    for (int k = 0; k < 4; k++) {
        code[2 * k] = even_words(c[0][k], c[1][k]);
        code[2 * k + 1] = odd_words(c[0][k], c[1][k]);
    }
}

static ALWAYS_INLINE void group_piece(Piece *to, const Grid *t, Group g, Vec d)
{
    __m512i code[8];
    turned_codes(code, t, g);
    UNROLL
    for (int k = 0; k < 8; k++)
        _mm512_store_si512(to->code[k], code[k]);
    _mm512_store_ps(to->a, v_mul(_mm512_cvtepi32_ps(group_scales(g)), d));
}

static void iq2_expand(Piece *to, const uint8_t *const rows[PIECE], size_t ahead, int n)
{
    const Grid t = grid_load();
    Group g[4];
    size_t at = 0;
    for (; n > 0; n -= QK / ACT_BLOCK, at += sizeof(BlockIQ2_XXS)) {
        UNROLL
        for (int r = 0; r < PIECE; r++)
            fetch(rows[r] + at + ahead, sizeof(BlockIQ2_XXS));
        const Vec d = iq2_factors(rows, at);
        UNROLL
        for (int half = 0; half < 2; half++) {
            four_groups(g, rows, at + 2 + 32 * (size_t)half);
            UNROLL
            for (int i = 0; i < 4; i++)
                group_piece(to++, &t, g[i], d);
        }
    }
}

/* An AddBlock. */
static ALWAYS_INLINE void iq2_add(Vec sum[TILE_X], const int n_x, const TileX *x, int b,
                                  const uint8_t *const rows[PIECE], size_t at)
{
    const Grid t = grid_load();
    const Vec d = iq2_factors(rows, at);
    Factors w = { 0 };
    Group g[4];
    __m512i code[8];
    UNROLL
    for (int half = 0; half < 2; half++) {
        four_groups(g, rows, at + 2 + 32 * (size_t)half);
        UNROLL
        for (int i = 0; i < 4; i++) {
            turned_codes(code, &t, g[i]);
            w.a = v_mul(_mm512_cvtepi32_ps(group_scales(g[i])), d);
            add_codes(MIN_NONE, sum, n_x, x, b + 4 * half + i, code, w);
        }
    }
}

/* ---- all ------------------------------------------------------------------------------- */

static const VnniFormat iq2 = { QK, sizeof(BlockIQ2_XXS), 128, MIN_NONE, iq2_expand };
TILES(tiles_plain, MIN_NONE)
FEWS(few, iq2, iq2_add)

static void one(float *out, const void *w, size_t ldw, int n_w, const void *x, int cols)
{
    const Grid t = grid_load();
    const uint8_t *rows[PIECE];
    for (int j = 0; j < n_w; j += PIECE) {
        rows_from(rows, w, ldw, n_w, j);
        v_store_upto(out + j, iq2_rows(&t, rows, ROWS_AHEAD * ldw, x_of(x, cols), cols), n_w - j);
    }
}

GEMM_BY_ROWS(gemm_iq2_xxs, one, few, iq2, tiles_plain)

const Kernels kernels_avx512_iq2 = { .name = "avx512",
                                     .gemm_i8 = { [QUANT_IQ2_XXS] = gemm_iq2_xxs } };
