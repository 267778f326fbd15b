/* index_x86.h - index scores in integers, for the x86 sets.
 *
 * Rows and queries of the indexer are FP4: twice an E2M1 value is an integer
 * of -12 .. 12, so the products of a block of 32 columns add up exactly, and
 * the scales are powers of two. A tile of rows is expanded once, rows side by
 * side (four bytes of a row a lane), and used by every head of all queries. */
#ifndef INDEX_X86_H
#define INDEX_X86_H
#include "kernels.h"
#include "simd_x86.h"
#include "../../quant/fp8.h"

enum {
    VECS = 2, /* of rows in a tile */
    TILE_ROWS = VECS * LANES,
    TILE_HEADS = LANES == 16 ? 4 : 2,
    STEPS = 8, /* of four columns in a block */
    BLOCK = IDX_BLOCK
};

#ifdef SIXTEEN_LANES
static ALWAYS_INLINE VecI i_load(const void *p) { return _mm512_loadu_si512(p); }
static ALWAYS_INLINE void i_store(void *p, VecI a) { _mm512_storeu_si512(p, a); }
static ALWAYS_INLINE VecI i_set(int a) { return _mm512_set1_epi32(a); }
static ALWAYS_INLINE Vec i_to_float(VecI a) { return _mm512_cvtepi32_ps(a); }
static ALWAYS_INLINE VecI i_add(VecI a, VecI b) { return _mm512_add_epi32(a, b); }
static ALWAYS_INLINE VecI i_and(VecI a, VecI b) { return _mm512_and_si512(a, b); }
static ALWAYS_INLINE VecI i_right(VecI a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
static ALWAYS_INLINE VecI i_bytes(VecI table, VecI at) { return _mm512_shuffle_epi8(table, at); }
static ALWAYS_INLINE VecI i_four(__m128i a) { return _mm512_broadcast_i32x4(a); }
static ALWAYS_INLINE VecI i_low32(VecI a, VecI b) { return _mm512_unpacklo_epi32(a, b); }
static ALWAYS_INLINE VecI i_high32(VecI a, VecI b) { return _mm512_unpackhi_epi32(a, b); }
static ALWAYS_INLINE VecI i_low64(VecI a, VecI b) { return _mm512_unpacklo_epi64(a, b); }
static ALWAYS_INLINE VecI i_high64(VecI a, VecI b) { return _mm512_unpackhi_epi64(a, b); }
/* acc + the products of four unsigned and four signed bytes a lane */
static ALWAYS_INLINE VecI i_start(int from) { return i_set(from); }
static ALWAYS_INLINE VecI i_dot(VecI acc, VecI u, VecI s) { return _mm512_dpbusd_epi32(acc, u, s); }
static ALWAYS_INLINE VecI i_close(VecI acc, int from)
{
    (void)from;
    return acc;
}
/* 16 bytes of every fourth of the rows: rows r, r + 4, ... */
static ALWAYS_INLINE VecI i_rows(const uint8_t *const *row, size_t at)
{
    VecI v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(row[0] + at)));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row[4] + at)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row[8] + at)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row[12] + at)), 3);
}
#else
static ALWAYS_INLINE VecI i_load(const void *p) { return _mm256_loadu_si256(p); }
static ALWAYS_INLINE void i_store(void *p, VecI a) { _mm256_storeu_si256(p, a); }
static ALWAYS_INLINE VecI i_set(int a) { return _mm256_set1_epi32(a); }
static ALWAYS_INLINE Vec i_to_float(VecI a) { return _mm256_cvtepi32_ps(a); }
static ALWAYS_INLINE VecI i_add(VecI a, VecI b) { return _mm256_add_epi32(a, b); }
static ALWAYS_INLINE VecI i_and(VecI a, VecI b) { return _mm256_and_si256(a, b); }
static ALWAYS_INLINE VecI i_right(VecI a, int n) { return _mm256_srli_epi32(a, n); }
static ALWAYS_INLINE VecI i_bytes(VecI table, VecI at) { return _mm256_shuffle_epi8(table, at); }
static ALWAYS_INLINE VecI i_four(__m128i a) { return _mm256_broadcastsi128_si256(a); }
static ALWAYS_INLINE VecI i_low32(VecI a, VecI b) { return _mm256_unpacklo_epi32(a, b); }
static ALWAYS_INLINE VecI i_high32(VecI a, VecI b) { return _mm256_unpackhi_epi32(a, b); }
static ALWAYS_INLINE VecI i_low64(VecI a, VecI b) { return _mm256_unpacklo_epi64(a, b); }
static ALWAYS_INLINE VecI i_high64(VecI a, VecI b) { return _mm256_unpackhi_epi64(a, b); }
#ifdef I8_DOT
static ALWAYS_INLINE VecI i_start(int from) { return i_set(from); }
static ALWAYS_INLINE VecI i_dot(VecI acc, VecI u, VecI s) { return I8_DOT(acc, u, s); }
static ALWAYS_INLINE VecI i_close(VecI acc, int from)
{
    (void)from;
    return acc;
}
#else
/* Sums of 16 bits while a block lasts: at most 8 x 2 x 24 x 12. */
static ALWAYS_INLINE VecI i_start(int from)
{
    (void)from;
    return _mm256_setzero_si256();
}
static ALWAYS_INLINE VecI i_dot(VecI acc, VecI u, VecI s)
{
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16(u, s));
}
static ALWAYS_INLINE VecI i_close(VecI acc, int from)
{
    return i_add(_mm256_madd_epi16(acc, _mm256_set1_epi16(1)), i_set(from));
}
#endif
static ALWAYS_INLINE VecI i_rows(const uint8_t *const *row, size_t at)
{
    __m128i a = _mm_loadu_si128((const __m128i *)(row[0] + at));
    __m128i b = _mm_loadu_si128((const __m128i *)(row[4] + at));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
#endif

/* ---- rows ------------------------------------------------------------------------- */

/* A tile: of each four columns, then of each vector of rows, codes + 12; of
 * each block, the rows' scales. */
typedef struct {
    _Alignas(64) uint8_t code[IDX_MOST_DIM * TILE_ROWS];
    _Alignas(64) float scale[IDX_MOST_DIM / BLOCK * TILE_ROWS];
} IndexTile;

/* One block of LANES rows: 16 bytes each, turned so that four bytes of every
 * row lie side by side. Low nibbles are the even columns, high ones the odd. */
static ALWAYS_INLINE void expand_block(uint8_t *code, const uint8_t *const *row, size_t at)
{
    const VecI values =
        i_four(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const VecI nibble = i_set(0x0f0f0f0f);
    const VecI r0 = i_rows(row, at), r1 = i_rows(row + 1, at), r2 = i_rows(row + 2, at),
               r3 = i_rows(row + 3, at);
    const VecI a = i_low32(r0, r1), b = i_high32(r0, r1), c = i_low32(r2, r3), d = i_high32(r2, r3);
    const VecI part[4] = { i_low64(a, c), i_high64(a, c), i_low64(b, d), i_high64(b, d) };
    UNROLL
    for (int k = 0; k < 4; k++) {
        uint8_t *to = code + (size_t)(2 * k) * VECS * sizeof(VecI);
        i_store(to, i_bytes(values, i_and(part[k], nibble)));
        i_store(to + VECS * sizeof(VecI), i_bytes(values, i_and(i_right(part[k], 4), nibble)));
    }
}

/* Rows missing in the last tile repeat the last one. */
static ALWAYS_INLINE void expand_rows(IndexTile *t, const IdxRowFormat *f, const uint8_t *rows,
                                      int n)
{
    const int blocks = f->dim / BLOCK;
    const uint8_t *row[TILE_ROWS];

    for (int r = 0; r < TILE_ROWS; r++) {
        row[r] = rows + (size_t)MIN(r, n - 1) * (size_t)f->bytes;
        for (int b = 0; b < blocks; b++)
            t->scale[b * TILE_ROWS + r] = e8m0_decode(row[r][f->dim / 2 + b]);
    }
    for (int b = 0; b < blocks; b++) {
        for (int v = 0; v < VECS; v++)
            expand_block(t->code + (size_t)(b * STEPS * VECS + v) * sizeof(VecI), row + v * LANES,
                         (size_t)b * BLOCK / 2);
    }
}

/* ---- products ----------------------------------------------------------------------- */

/* sum += w . relu of n_h heads' dots with the tile's rows. */
static ALWAYS_INLINE void add_heads(const int n_h, Vec sum[VECS], const IndexTile *t,
                                    const IdxBlock *q, int blocks, const float *w)
{
    Vec dot[TILE_HEADS][VECS];
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            dot[h][v] = v_zero();
    }
    for (int b = 0; b < blocks; b++) {
        VecI acc[TILE_HEADS][VECS];
        const uint8_t *code = t->code + (size_t)(b * STEPS * VECS) * sizeof(VecI);
        UNROLL
        for (int h = 0; h < n_h; h++) {
            UNROLL
            for (int v = 0; v < VECS; v++)
                acc[h][v] = i_start(q[h * blocks + b].start);
        }
        UNROLL
        for (int k = 0; k < STEPS; k++, code += VECS * sizeof(VecI)) {
            UNROLL
            for (int h = 0; h < n_h; h++) {
                int32_t four;
                memcpy(&four, q[h * blocks + b].code + 4 * k, sizeof four);
                UNROLL
                for (int v = 0; v < VECS; v++)
                    acc[h][v] =
                        i_dot(acc[h][v], i_load(code + (size_t)v * sizeof(VecI)), i_set(four));
            }
        }
        UNROLL
        for (int h = 0; h < n_h; h++) {
            const IdxBlock *of = &q[h * blocks + b];
            UNROLL
            for (int v = 0; v < VECS; v++) {
                Vec s = v_mul(v_load(t->scale + b * TILE_ROWS + v * LANES), v_set(of->scale));
                dot[h][v] = v_fma(i_to_float(i_close(acc[h][v], of->start)), s, dot[h][v]);
            }
        }
    }
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            sum[v] = v_add(sum[v], v_mul(v_set(w[h]), v_max(dot[h][v], v_zero())));
    }
}

static void score_tile(float *score, const IndexTile *t, int n, const IdxBlock *q, int blocks,
                       const float *w, int heads)
{
    Vec sum[VECS] = { v_zero(), v_zero() };
    int h = 0;

    for (; h + TILE_HEADS <= heads; h += TILE_HEADS)
        add_heads(TILE_HEADS, sum, t, q + h * blocks, blocks, w + h);
    for (; h < heads; h++)
        add_heads(1, sum, t, q + h * blocks, blocks, w + h);
    for (int v = 0; v < VECS && v * LANES < n; v++)
        v_store_upto(score + v * LANES, sum[v], n - v * LANES);
}

static void idx_scores(const IdxRowFormat *f, float *score, size_t lds, const void *rows,
                       int n_rows, const IdxBlock *q, int n_q, const float *w, int heads)
{
    const int blocks = f->dim / BLOCK;
    IndexTile t;

    for (int from = 0; from < n_rows; from += TILE_ROWS) {
        const int n = MIN(TILE_ROWS, n_rows - from);
        expand_rows(&t, f, (const uint8_t *)rows + (size_t)from * (size_t)f->bytes, n);
        for (size_t i = 0; i < (size_t)n_q; i++)
            score_tile(score + i * lds + from, &t, n, q + i * (size_t)(heads * blocks), blocks,
                       w + i * (size_t)heads, heads);
    }
}

/* ---- queries ------------------------------------------------------------------------- */

/* a with lanes `half` apart in place of each other, and minus on the upper of the two. */
#ifdef SIXTEEN_LANES
static ALWAYS_INLINE Vec v_cross(Vec a, const int half)
{
    return half == 1   ? _mm512_permute_ps(a, 0xb1)
           : half == 2 ? _mm512_permute_ps(a, 0x4e)
           : half == 4 ? _mm512_shuffle_f32x4(a, a, 0xb1)
                       : _mm512_shuffle_f32x4(a, a, 0x4e);
}
static ALWAYS_INLINE Vec v_minus_upper(Vec a, const int half)
{
    const __mmask16 upper = half == 1 ? 0xaaaa : half == 2 ? 0xcccc : half == 4 ? 0xf0f0 : 0xff00;
    return _mm512_mask_xor_ps(a, upper, a, v_set(-0.f));
}
static ALWAYS_INLINE Vec v_bits_and(Vec a, uint32_t mask)
{
    return _mm512_and_ps(a, _mm512_castsi512_ps(i_set((int)mask)));
}
static ALWAYS_INLINE VecI i_sub(VecI a, VecI b) { return _mm512_sub_epi32(a, b); }
static ALWAYS_INLINE VecI v_bits(Vec a) { return _mm512_castps_si512(a); }
/* c where a > b, else d, for numbers below 2^31 */
static ALWAYS_INLINE VecI i_above(VecI a, VecI b, VecI c, VecI d)
{
    return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), d, c);
}
static ALWAYS_INLINE VecI i_look_up8(VecI table, VecI at)
{
    return _mm512_permutexvar_epi32(at, table);
}
static ALWAYS_INLINE void i_store_bytes(int8_t *p, VecI a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}
static ALWAYS_INLINE int i_sum(VecI a) { return _mm512_reduce_add_epi32(a); }
static ALWAYS_INLINE float v_most(Vec a) { return _mm512_reduce_max_ps(a); }
static ALWAYS_INLINE bool v_any_nan(Vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0; }
static ALWAYS_INLINE VecI i_eight(int a, int b, int c, int d, int e, int f, int g, int h)
{
    return _mm512_setr_epi32(a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h);
}
#else
static ALWAYS_INLINE Vec v_cross(Vec a, const int half)
{
    return half == 1   ? _mm256_permute_ps(a, 0xb1)
           : half == 2 ? _mm256_permute_ps(a, 0x4e)
                       : _mm256_permute2f128_ps(a, a, 1);
}
static ALWAYS_INLINE Vec v_minus_upper(Vec a, const int half)
{
    const Vec minus = half == 1   ? _mm256_setr_ps(0, -0.f, 0, -0.f, 0, -0.f, 0, -0.f)
                      : half == 2 ? _mm256_setr_ps(0, 0, -0.f, -0.f, 0, 0, -0.f, -0.f)
                                  : _mm256_setr_ps(0, 0, 0, 0, -0.f, -0.f, -0.f, -0.f);
    return _mm256_xor_ps(a, minus);
}
static ALWAYS_INLINE Vec v_bits_and(Vec a, uint32_t mask)
{
    return _mm256_and_ps(a, _mm256_castsi256_ps(i_set((int)mask)));
}
static ALWAYS_INLINE VecI i_sub(VecI a, VecI b) { return _mm256_sub_epi32(a, b); }
static ALWAYS_INLINE VecI v_bits(Vec a) { return _mm256_castps_si256(a); }
static ALWAYS_INLINE VecI i_above(VecI a, VecI b, VecI c, VecI d)
{
    return _mm256_blendv_epi8(d, c, _mm256_cmpgt_epi32(a, b));
}
static ALWAYS_INLINE VecI i_look_up8(VecI table, VecI at)
{
    return _mm256_permutevar8x32_epi32(table, at);
}
static ALWAYS_INLINE void i_store_bytes(int8_t *p, VecI a)
{
    const __m128i two = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(two, two));
}
static ALWAYS_INLINE int i_sum(VecI a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
static ALWAYS_INLINE float v_most(Vec a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
static ALWAYS_INLINE bool v_any_nan(Vec a)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)) != 0;
}
static ALWAYS_INLINE VecI i_eight(int a, int b, int c, int d, int e, int f, int g, int h)
{
    return _mm256_setr_epi32(a, b, c, d, e, f, g, h);
}
#endif

/* As hadamard() of kvrow.h does it, bit for bit. */
static void turn_all(float *x, int n)
{
    for (int i = 0; i < n; i += LANES) {
        Vec a = v_load(x + i);
        UNROLL
        for (int half = 1; half < LANES; half *= 2)
            a = v_add(v_cross(a, half), v_minus_upper(a, half));
        v_store(x + i, a);
    }
    for (int half = LANES; half < n; half *= 2) {
        for (int b = 0; b < n; b += 2 * half) {
            for (int i = b; i < b + half; i += LANES) {
                Vec p = v_load(x + i), q = v_load(x + i + half);
                v_store(x + i, v_add(p, q));
                v_store(x + i + half, v_sub(p, q));
            }
        }
    }
    const Vec norm = v_set((float)(1 / sqrt(n)));
    for (int i = 0; i < n; i += LANES)
        v_store(x + i, v_mul(v_load(x + i), norm));
}

/* Twice the E2M1 value of each, rounded as e2m1_encode() rounds. */
static ALWAYS_INLINE VecI twice_e2m1(Vec x)
{
    const Vec size = v_bits_and(x, 0x7fffffff);
    const VecI a = v_bits(size);
    const VecI odd = i_and(i_right(a, 22), i_set(1));
    const VecI upper = i_right(i_sub(i_add(i_add(a, i_set(0x1fffff)), odd), i_set(0x3f000000)), 22);
    const VecI lower = i_sub(v_bits(v_add(size, v_set(0x1p22f))), i_set(0x4a800000));
    VecI code = i_above(i_set(0x3f800000), a, lower, upper);
    code = i_above(a, i_set(0x40bfffff), i_set(7), code);
    const VecI value = i_look_up8(i_eight(0, 1, 2, 3, 4, 6, 8, 12), code);
    return i_above(i_set(0), v_bits(x), i_sub(i_set(0), value), value);
}

/* Of each eight columns the even ones, then the odd ones, as rows are expanded. */
static ALWAYS_INLINE void part_columns(int8_t *code)
{
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    for (int i = 0; i < BLOCK; i += 16) {
        __m128i *p = (__m128i *)(void *)(code + i);
        _mm_storeu_si128(p, _mm_shuffle_epi8(_mm_loadu_si128(p), order));
    }
}

static void idx_query(IdxBlock *q, float *x, int dim)
{
    turn_all(x, dim);
    for (int b = 0; b < dim / BLOCK; b++, x += BLOCK, q++) {
        Vec most = v_set(6 * 0x1p-126f);
        VecI sum = i_set(0);
        bool nan = false;
        for (int i = 0; i < BLOCK; i += LANES) {
            Vec a = v_bits_and(v_load(x + i), 0x7fffffff);
            nan = nan || v_any_nan(a);
            most = v_max(most, a);
        }
        const uint8_t e = nan ? 255 : e8m0_for(v_most(most), 6);
        const Vec inverse = v_set(e8m0_inverse(e));
        for (int i = 0; i < BLOCK; i += LANES) {
            VecI code = twice_e2m1(v_mul(v_load(x + i), inverse));
            i_store_bytes(q->code + i, code);
            sum = i_add(sum, code);
        }
        part_columns(q->code);
        q->scale = 0.25f * e8m0_decode(e);
        q->start = -12 * i_sum(sum);
    }
}
#endif
