/* vnni_x86.h - integer matrix products of AVX-512, for any weight format.
 *
 * PIECE weight rows lie side by side, so that a lane is a weight row: nothing
 * in F32 is summed across lanes, and the order of an output's sums is the law's
 * (kernels.h), whatever comes together. vpdpbusd multiplies four codes without
 * a sign with four of x and adds; a format with signs adds `offset` to its
 * codes, and the sums start from -offset times the sum of x.
 *
 * More than TILE_X rows of x (gemm_vnni): PANEL weight rows x RUN columns are expanded to
 * pieces on the stack, which stay in the first cache (18 KB without minima),
 * and multiplied with all rows of x, TILE_X at a time: 12 sums and 12 outputs in
 * registers, 8 loads for 12 products. Between runs of columns the outputs wait
 * in `out`. The 8 products of a block go with a conversion, a product and a sum
 * in F32, and the last two use the units that vpdpbusd does: 80 % of its rate
 * is what there is to be had (73 % with MIN_WHOLE, 67 % with MIN_HALVES).
 *
 * Few rows of x (gemm_few): 16 weight rows at a time, expanded as pieces are, are
 * multiplied out of registers, and every byte is read once, row by row: a panel's
 * reading and multiplying would take turns.
 *
 * One row of x (gemv_rows): the codes of 16 rows are multiplied as they lie in
 * memory, and the integer sums of lanes are added in a tree that turns them
 * round, until lanes are rows there, too.
 *
 * A format supplies an Expand and an AddBlock, or a RowsFormat, from which all are made. */
#ifndef VNNI_X86_H
#define VNNI_X86_H
#include "acts.h"
#include "kernels.h"
#include "rows_x86.h"
#include "../../quant/blocks.h"

enum {
    PANEL = 32,
    TILE_X = 6,
    RUN = PIECE * ACT_BLOCK, /* a vector has a number of each block */
    RUN_BLOCKS = RUN / ACT_BLOCK,
};

/* PIECE weight rows x ACT_BLOCK columns: codes of columns 4 k .. 4 k + 3 of
 * row r at code[k][r], plus the format's offset; what the law calls a and m. */
typedef struct {
    _Alignas(64) uint8_t code[ACT_BLOCK / 4][PIECE][4];
    float a[PIECE];
    float m[PIECE];        /* MIN_WHOLE, MIN_HALVES */
    int16_t min[PIECE][2]; /* MIN_HALVES: of columns 0 .. 15 and 16 .. 31 */
} Piece;

/* What msum is made of: nothing; the sum of x; the sums of both halves times `min`. */
typedef enum { MIN_NONE, MIN_WHOLE, MIN_HALVES } Minima;

/* Writes n pieces, the columns from rows[r] on; RUN is a multiple of all blocks, so
 * a block is never cut. What lies `ahead` bytes on is to be fetched. */
typedef void (*Expand)(Piece *to, const uint8_t *const rows[PIECE], size_t ahead, int n);

typedef struct {
    int len, bytes; /* of a block */
    int offset;     /* what was added to the codes */
    Minima minima;
    Expand expand;
} VnniFormat;

/* ---- a tile ------------------------------------------------------------------------ */

/* Rows of x from some column on, and what each block of theirs starts from. */
typedef struct {
    const int8_t *q[TILE_X];
    _Alignas(64) int32_t start[TILE_X][RUN_BLOCKS]; /* -offset * sum */
    float scale[TILE_X][RUN_BLOCKS];
    float whole[TILE_X][RUN_BLOCKS];    /* MIN_WHOLE: the sum */
    int32_t halves[TILE_X][RUN_BLOCKS]; /* MIN_HALVES: both sums, 16 bits each */
} TileX;

/* n <= RUN_BLOCKS blocks, from block b on, of n_x rows. */
static ALWAYS_INLINE void tile_x(TileX *t, const Minima minima, int offset, const uint8_t *x,
                                 size_t ldx, int n_x, int cols, int b, int n)
{
    const __mmask16 mask = v_mask(n);
    for (int i = 0; i < n_x; i++, x += ldx) {
        const __m512i sums = _mm512_maskz_loadu_epi32(mask, act_sum(x, cols) + 2 * b);
        t->q[i] = act_q(x) + b * ACT_BLOCK;
        _mm512_store_si512(t->start[i], _mm512_madd_epi16(sums, _mm512_set1_epi16((short)-offset)));
        _mm512_store_ps(t->scale[i], _mm512_maskz_loadu_ps(mask, act_scale(x, cols) + b));
        if (minima == MIN_WHOLE)
            _mm512_store_ps(t->whole[i],
                            _mm512_cvtepi32_ps(_mm512_madd_epi16(sums, _mm512_set1_epi16(1))));
        if (minima == MIN_HALVES)
            _mm512_store_si512(t->halves[i], sums);
    }
}

/* What the law calls a and m, and MIN_HALVES' minima, of 16 weight rows. */
typedef struct {
    Vec a, m;
    __m512i min;
} Factors;

/* t = isum * a, less the minimum: of row i of x, in block b. */
static ALWAYS_INLINE Vec block_term(const Minima minima, Factors w, const TileX *x, int i, int b,
                                    __m512i isum)
{
    Vec t = v_mul(_mm512_cvtepi32_ps(isum), w.a);
    if (minima == MIN_WHOLE)
        t = _mm512_fnmadd_ps(v_set(x->whole[i][b]), w.m, t);
    if (minima == MIN_HALVES) {
        __m512i msum = _mm512_madd_epi16(w.min, _mm512_set1_epi32(x->halves[i][b]));
        t = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(msum), w.m, t);
    }
    return t;
}

static ALWAYS_INLINE Factors piece_factors(const Minima minima, const Piece *w)
{
    return (Factors){ _mm512_load_ps(w->a), minima ? _mm512_load_ps(w->m) : v_zero(),
                      minima == MIN_HALVES ? _mm512_load_si512(w->min) : _mm512_setzero_si512() };
}

/* Adds n blocks to n_x rows of `groups` * 16 outputs, of which mask[g] are there. */
static ALWAYS_INLINE void tile(const Minima minima, const int groups, const int n_x, float *out,
                               size_t ldo, const __mmask16 mask[2], const Piece *w, const TileX *x,
                               int n)
{
    Vec sum[TILE_X][2];
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int g = 0; g < groups; g++)
            sum[i][g] = _mm512_maskz_loadu_ps(mask[g], out + (size_t)i * ldo + g * PIECE);
    }
    for (int b = 0; b < n; b++, w++) {
        __m512i isum[TILE_X][2];
        UNROLL
        for (int i = 0; i < n_x; i++) {
            UNROLL
            for (int g = 0; g < groups; g++)
                isum[i][g] = _mm512_set1_epi32(x->start[i][b]);
        }
        UNROLL
        for (int k = 0; k < ACT_BLOCK / 4; k++) {
            UNROLL
            for (int i = 0; i < n_x; i++) {
                int32_t four;
                memcpy(&four, x->q[i] + b * ACT_BLOCK + k * 4, sizeof four);
                UNROLL
                for (int g = 0; g < groups; g++)
                    isum[i][g] = _mm512_dpbusd_epi32(isum[i][g],
                                                     _mm512_load_si512(w[g * RUN_BLOCKS].code[k]),
                                                     _mm512_set1_epi32(four));
            }
        }
        UNROLL
        for (int g = 0; g < groups; g++) {
            const Factors f = piece_factors(minima, w + g * RUN_BLOCKS);
            UNROLL
            for (int i = 0; i < n_x; i++)
                sum[i][g] = v_fma(block_term(minima, f, x, i, b, isum[i][g]), v_set(x->scale[i][b]),
                                  sum[i][g]);
        }
    }
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int g = 0; g < groups; g++)
            _mm512_mask_storeu_ps(out + (size_t)i * ldo + g * PIECE, mask[g], sum[i][g]);
    }
}

typedef void (*TileFn)(float *out, size_t ldo, const __mmask16 mask[2], const Piece *w,
                       const TileX *x, int n);

/* Tiles of all sizes as functions, for one kind of minima. */
#define TILE(name, minima, groups, n_x) \
    static __attribute__((noinline)) void name##_##groups##_##n_x( \
        float *out, size_t ldo, const __mmask16 mask[2], const Piece *w, const TileX *x, int n) \
    { \
        tile(minima, groups, n_x, out, ldo, mask, w, x, n); \
    }
#define TILES(name, minima) \
    TILE(name, minima, 1, 1) \
    TILE(name, minima, 1, 2) \
    TILE(name, minima, 1, 3) \
    TILE(name, minima, 1, 4) \
    TILE(name, minima, 1, 5) \
    TILE(name, minima, 1, 6) \
    TILE(name, minima, 2, 1) \
    TILE(name, minima, 2, 2) \
    TILE(name, minima, 2, 3) \
    TILE(name, minima, 2, 4) \
    TILE(name, minima, 2, 5) \
    TILE(name, minima, 2, 6) \
    static const TileFn name[2][TILE_X] = { \
        { name##_1_1, name##_1_2, name##_1_3, name##_1_4, name##_1_5, name##_1_6 }, \
        { name##_2_1, name##_2_2, name##_2_3, name##_2_4, name##_2_5, name##_2_6 }, \
    };

/* What matrices of few bits move is little, and has to come from far ahead. */
enum { ROWS_AHEAD = 2 * PIECE };

/* A row of x: what is next to be multiplied. */
typedef struct {
    const int8_t *q;
    const float *scale;
    const int16_t *sum;
} X;

static ALWAYS_INLINE X x_of(const void *row, int cols)
{
    return (X){ act_q(row), act_scale(row, cols), act_sum(row, cols) };
}

static ALWAYS_INLINE void next_block(X *x)
{
    x->q += ACT_BLOCK;
    x->scale++;
    x->sum += ACT_BLOCK / ACT_GROUP;
}

/* ---- all of it --------------------------------------------------------------------- */

/* The pieces of n_w <= PANEL rows, n blocks from byte `at` of a row on. Missing
 * rows repeat the last one. Next to be read is what follows, or the next panel. */
static ALWAYS_INLINE void expand_panel(const VnniFormat f, Piece panel[2 * RUN_BLOCKS],
                                       const void *w, size_t ldw, int n_w, size_t at, int n,
                                       bool last)
{
    const size_t ahead =
        last ? PANEL * ldw - at : (size_t)(n * ACT_BLOCK / f.len) * (size_t)f.bytes;
    for (int g = 0; g * PIECE < n_w; g++) {
        const uint8_t *rows[PIECE];
        for (int r = 0; r < PIECE; r++)
            rows[r] = weight_row(w, ldw, MIN(g * PIECE + r, n_w - 1)) + at;
        f.expand(panel + g * RUN_BLOCKS, rows, ahead, n);
    }
}

/* n_w <= PANEL weight rows with all rows of x. */
static ALWAYS_INLINE void panel_times_x(const VnniFormat f, const TileFn tiles[2][TILE_X],
                                        float *out, size_t ldo, const void *w, size_t ldw, int n_w,
                                        const uint8_t *x, size_t ldx, int n_x, int cols)
{
    Piece panel[2 * RUN_BLOCKS];
    TileX t;
    const int n_tiles = (n_x + TILE_X - 1) / TILE_X;
    const __mmask16 mask[2] = { v_mask(MIN(n_w, PIECE)), v_mask(MAX(n_w - PIECE, 0)) };
    for (int i = 0; i < n_x; i++)
        memset(out + (size_t)i * ldo, 0, (size_t)n_w * sizeof *out);
    for (int c = 0; c < cols; c += RUN) {
        const int n = MIN(RUN, cols - c) / ACT_BLOCK;
        expand_panel(f, panel, w, ldw, n_w, (size_t)(c / f.len) * (size_t)f.bytes, n,
                     c + RUN >= cols);
        for (int k = 0; k < n_tiles; k++) {
            const int i = n_x * k / n_tiles, rows = n_x * (k + 1) / n_tiles - i;
            tile_x(&t, f.minima, f.offset, x + (size_t)i * ldx, ldx, rows, cols, c / ACT_BLOCK, n);
            tiles[n_w > PIECE][rows - 1](out + (size_t)i * ldo, ldo, mask, panel, &t, n);
        }
    }
}

/* A GemmI8Fn for any number of rows. `tiles` is made by TILES for the format's minima. */
static ALWAYS_INLINE void gemm_vnni(const VnniFormat f, const TileFn tiles[2][TILE_X], float *out,
                                    size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
                                    size_t ldx, int n_x, int cols)
{
    for (int j = 0; j < n_w; j += PANEL)
        panel_times_x(f, tiles, out + j, ldo, weight_row(w, ldw, j), ldw, MIN(PANEL, n_w - j), x,
                      ldx, n_x, cols);
}

/* ---- few rows of x ------------------------------------------------------------------- */

/* Adds the block at byte `at` of 16 weight rows, block b of x, to the sums of n_x rows. */
typedef void (*AddBlock)(Vec sum[TILE_X], const int n_x, const TileX *x, int b,
                         const uint8_t *const rows[PIECE], size_t at);

/* 32 columns of them: the codes as in a Piece. */
static ALWAYS_INLINE void add_codes(const Minima minima, Vec sum[TILE_X], const int n_x,
                                    const TileX *x, int b, const __m512i code[ACT_BLOCK / 4],
                                    Factors w)
{
    UNROLL
    for (int i = 0; i < n_x; i++) {
        __m512i isum = _mm512_set1_epi32(x->start[i][b]);
        UNROLL
        for (int k = 0; k < ACT_BLOCK / 4; k++)
            isum = _mm512_dpbusd_epi32(isum, code[k],
                                       _mm512_set1_epi32(four_at(x->q[i] + b * ACT_BLOCK + 4 * k)));
        sum[i] = v_fma(block_term(minima, w, x, i, b, isum), v_set(x->scale[i][b]), sum[i]);
    }
}

/* The first n_w of 16 weight rows with n_x rows of x. The next rows to be read are `ahead`
 * bytes on. */
static ALWAYS_INLINE void rows_times_few(const VnniFormat f, const AddBlock add, const int n_x,
                                         float *out, size_t ldo, const uint8_t *const rows[PIECE],
                                         size_t ahead, int n_w, const uint8_t *x, size_t ldx,
                                         int cols)
{
    const Lead lead = lead_of((size_t)(cols / f.len) * (size_t)f.bytes, ahead);
    TileX t;
    Vec sum[TILE_X];
    size_t at = 0;
    UNROLL
    for (int i = 0; i < n_x; i++)
        sum[i] = v_zero();
    for (int c = 0; c < cols; c += RUN) {
        const int n = MIN(RUN, cols - c) / ACT_BLOCK;
        tile_x(&t, f.minima, f.offset, x, ldx, n_x, cols, c / ACT_BLOCK, n);
        for (int b = 0; b < n; b += f.len / ACT_BLOCK, at += (size_t)f.bytes) {
            fetch_rows(rows, lead_from(lead, at), f.bytes);
            add(sum, n_x, &t, b, rows, at);
        }
    }
    UNROLL
    for (int i = 0; i < n_x; i++)
        v_store_upto(out + (size_t)i * ldo, sum[i], n_w);
}

typedef void (*FewFn)(float *out, size_t ldo, const uint8_t *const rows[PIECE], size_t ahead,
                      int n_w, const uint8_t *x, size_t ldx, int cols);

/* 2 to TILE_X rows of x as functions, from the VnniFormat f and its AddBlock. */
#define FEW_ROWS(name, n_x, f, add) \
    static __attribute__((noinline)) void name##_##n_x( \
        float *out, size_t ldo, const uint8_t *const rows[PIECE], size_t ahead, int n_w, \
        const uint8_t *x, size_t ldx, int cols) \
    { \
        rows_times_few(f, add, n_x, out, ldo, rows, ahead, n_w, x, ldx, cols); \
    }
#define FEWS(name, f, add) \
    FEW_ROWS(name, 2, f, add) \
    FEW_ROWS(name, 3, f, add) \
    FEW_ROWS(name, 4, f, add) \
    FEW_ROWS(name, 5, f, add) \
    FEW_ROWS(name, 6, f, add) \
    static const FewFn name[TILE_X + 1] = { NULL,     NULL,     name##_2, name##_3, \
                                            name##_4, name##_5, name##_6 };

static ALWAYS_INLINE void gemm_few(const FewFn few[TILE_X + 1], float *out, size_t ldo,
                                   const void *w, size_t ldw, int n_w, const uint8_t *x, size_t ldx,
                                   int n_x, int cols)
{
    for (int j = 0; j < n_w; j += PIECE) {
        const uint8_t *rows[PIECE];
        rows_from(rows, w, ldw, n_w, j);
        few[n_x](out + j, ldo, rows, PIECE * ldw, n_w - j, x, ldx, cols);
    }
}

/* ---- formats that tell their codes 16 rows at once ---------------------------------- */

/* Makes a VnniFormat's Expand and the products of one row of x from two functions. */
typedef struct {
    VnniFormat f; /* without `expand` */
    /* Factors of each 32 columns of the block that is at byte `at` of the rows. */
    void (*open)(Factors w[QK / ACT_BLOCK], const uint8_t *const rows[PIECE], size_t at);
    /* The codes, offset added, of its k-th 32 columns: v[r] has rows r and r + 4,
     * v[r + 4] rows r + 8 and r + 12, for r < 4. */
    void (*codes)(__m512i v[8], const uint8_t *const rows[PIECE], size_t at, int k);
    /* Their products with q, summed: lane r is row r. NULL: from the codes. */
    __m512i (*dot)(const uint8_t *const rows[PIECE], size_t at, int k, const int8_t *q);
} RowsFormat;

/* Codes of a RowsFormat to those of a Piece. */
static ALWAYS_INLINE void turn_codes(__m512i code[8], __m512i v[8])
{
    turn4(v);
    turn4(v + 4);
    UNROLL
    for (int k = 0; k < 4; k++) {
        code[k] = _mm512_shuffle_i64x2(v[k], v[k + 4], 0x88);
        code[k + 4] = _mm512_shuffle_i64x2(v[k], v[k + 4], 0xdd);
    }
}

static ALWAYS_INLINE void write_piece(Piece *to, const Minima minima, Factors w, __m512i v[8])
{
    __m512i code[8];
    turn_codes(code, v);
    UNROLL
    for (int k = 0; k < 8; k++)
        _mm512_store_si512(to->code[k], code[k]);
    _mm512_store_ps(to->a, w.a);
    if (minima)
        _mm512_store_ps(to->m, w.m);
    if (minima == MIN_HALVES)
        _mm512_store_si512(to->min, w.min);
}

/* An Expand. */
static ALWAYS_INLINE void expand_rows(const RowsFormat d, Piece *to,
                                      const uint8_t *const rows[PIECE], size_t ahead, int n)
{
    Factors w[QK / ACT_BLOCK];
    __m512i v[8];
    size_t at = 0;
    for (int b = 0; b < n; b += d.f.len / ACT_BLOCK, at += (size_t)d.f.bytes) {
        fetch_rows(rows, at + ahead, d.f.bytes);
        d.open(w, rows, at);
        UNROLL
        for (int k = 0; k < d.f.len / ACT_BLOCK; k++) {
            d.codes(v, rows, at, k);
            write_piece(to + b + k, d.f.minima, w[k], v);
        }
    }
}

/* An AddBlock. */
static ALWAYS_INLINE void add_rows(const RowsFormat d, Vec sum[TILE_X], const int n_x,
                                   const TileX *x, int b, const uint8_t *const rows[PIECE],
                                   size_t at)
{
    Factors w[QK / ACT_BLOCK];
    __m512i v[8], code[8];
    d.open(w, rows, at);
    UNROLL
    for (int k = 0; k < d.f.len / ACT_BLOCK; k++) {
        d.codes(v, rows, at, k);
        turn_codes(code, v);
        add_codes(d.f.minima, sum, n_x, x, b + k, code, w[k]);
    }
}

/* ---- one row of x ------------------------------------------------------------------- */

/* Sums of the lanes of the halves of eight registers, in the order of the rows in them. */
static ALWAYS_INLINE __m512i add_pairs(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static ALWAYS_INLINE __m512i add_quarters(const __m512i v[4])
{
    const __m512i a = add_pairs(v[0], v[1]), b = add_pairs(v[2], v[3]);
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

static ALWAYS_INLINE __m512i add_lanes(const __m512i v[8])
{
    const __m512i a = add_quarters(v), b = add_quarters(v + 4);
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

/* A RowsFormat's `dot`. */
static ALWAYS_INLINE __m512i dot_codes(const RowsFormat d, const uint8_t *const rows[PIECE],
                                       size_t at, int k, const int8_t *q)
{
    const __m512i x = _mm512_broadcast_i64x4(_mm256_load_si256((const __m256i *)q));
    __m512i v[8];
    d.codes(v, rows, at, k);
    UNROLL
    for (int r = 0; r < 8; r++)
        v[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), v[r], x);
    return add_lanes(v);
}

/* 16 outputs. The next rows to be read are `ahead` bytes on. */
static ALWAYS_INLINE Vec rows_times_x(const RowsFormat d, const uint8_t *const rows[PIECE],
                                      size_t ahead, const uint8_t *x, int cols)
{
    const Lead lead = lead_of((size_t)(cols / d.f.len) * (size_t)d.f.bytes, ahead);
    const Minima minima = d.f.minima;
    Factors w[QK / ACT_BLOCK];
    TileX t;
    Vec sum = v_zero();
    size_t at = 0;
    for (int c = 0; c < cols; c += RUN) {
        const int n = MIN(RUN, cols - c) / ACT_BLOCK;
        tile_x(&t, minima, d.f.offset, x, 0, 1, cols, c / ACT_BLOCK, n);
        for (int b = 0; b < n; b += d.f.len / ACT_BLOCK, at += (size_t)d.f.bytes) {
            fetch_rows(rows, lead_from(lead, at), d.f.bytes);
            d.open(w, rows, at);
            UNROLL
            for (int k = 0; k < d.f.len / ACT_BLOCK; k++) {
                const int8_t *q = t.q[0] + (b + k) * ACT_BLOCK;
                __m512i isum = d.dot ? d.dot(rows, at, k, q) : dot_codes(d, rows, at, k, q);
                isum = _mm512_add_epi32(isum, _mm512_set1_epi32(t.start[0][b + k]));
                sum = v_fma(block_term(minima, w[k], &t, 0, b + k, isum), v_set(t.scale[0][b + k]),
                            sum);
            }
        }
    }
    return sum;
}

static ALWAYS_INLINE void gemv_rows(const RowsFormat d, float *out, const void *w, size_t ldw,
                                    int n_w, const void *x, int cols)
{
    for (int j = 0; j < n_w; j += PIECE) {
        const uint8_t *rows[PIECE];
        rows_from(rows, w, ldw, n_w, j);
        v_store_upto(out + j, rows_times_x(d, rows, PIECE * ldw, x, cols), n_w - j);
    }
}

/* The GemmI8Fn `name` of a VnniFormat: by one(out, w, ldw, n_w, x, cols), by functions of few
 * rows of x, by tiles. */
#define GEMM_BY_ROWS(name, one, few, f, tiles) \
    static void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
                     size_t ldx, int n_x, int cols) \
    { \
        if (n_x == 1) \
            one(out, w, ldw, n_w, x, cols); \
        else if (n_x <= TILE_X) \
            gemm_few(few, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
        else \
            gemm_vnni(f, tiles, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }

/* The same of a RowsFormat. */
#define GEMM_ROWS(name, tiles, open, codes, dot, ...) \
    static const RowsFormat name##_rows = { { __VA_ARGS__, NULL }, open, codes, dot }; \
    static void name##_expand(Piece *to, const uint8_t *const rows[PIECE], size_t ahead, int n) \
    { \
        expand_rows(name##_rows, to, rows, ahead, n); \
    } \
    static ALWAYS_INLINE void name##_add(Vec sum[TILE_X], const int n_x, const TileX *x, int b, \
                                         const uint8_t *const rows[PIECE], size_t at) \
    { \
        add_rows(name##_rows, sum, n_x, x, b, rows, at); \
    } \
    FEWS(name##_few, name##_rows.f, name##_add) \
    static ALWAYS_INLINE void name##_one(float *out, const void *w, size_t ldw, int n_w, \
                                         const void *x, int cols) \
    { \
        gemv_rows(name##_rows, out, w, ldw, n_w, x, cols); \
    } \
    static const VnniFormat name##_format = { __VA_ARGS__, name##_expand }; \
    GEMM_BY_ROWS(name, name##_one, name##_few, name##_format, tiles)
#endif
