/* gemm_x86.h - matrix products of the x86 sets, for any weight format.
 *
 * Law: an output is the sum of one accumulator vector, to which lane l adds
 * the products of columns l, l + LANES, ... in ascending order, folded by
 * v_sum4. Nothing else decides its bits: not how many rows come together, nor
 * which of the two ways computes it.
 *
 * One row of x: four weight rows at a time are decoded in registers and
 * multiplied at once; every weight byte is read once and nothing is written.
 * More rows: PANEL weight rows x RUN columns are decoded to F32 on the stack,
 * which stay in the first caches, and multiplied tile by tile (4 weights x
 * TILE_X rows, one register each) with CHUNK_X rows of x. Between runs of
 * columns the accumulators wait on the stack. */
#ifndef GEMM_X86_H
#define GEMM_X86_H
#include "kernels.h"
#include "simd_x86.h"

enum {
    TILE_W = 4,
    TILE_X = LANES == 16 ? 6 : 3, /* 24 of 32 or 12 of 16 registers */
    PANEL = 16,
    RUN = 512,
    CHUNK_X = 48,
    SLAB = 128, /* weight rows whose bytes stay in the second cache while all of x passes */
};

/* Where decoded weights go: into a sum with x, or to dst. */
typedef struct {
    Vec sum;
    const float *x;
    float *dst; /* NULL: sum */
} Sink;

static ALWAYS_INLINE void sink_take(Sink *s, int i, Vec w)
{
    if (s->dst)
        v_store(s->dst + i, w);
    else
        s->sum = v_fma(w, v_load(s->x + i), s->sum);
}

/* The last n < LANES values; dst has room for all. */
static ALWAYS_INLINE void sink_take_n(Sink *s, Vec w, int n)
{
    if (s->dst)
        v_store(s->dst, w);
    else
        s->sum = v_fma(w, v_load_n(s->x, n), s->sum);
}

typedef struct {
    int len, bytes; /* of a block */
    void (*take)(Sink *s, const uint8_t *block); /* a whole block, in ascending order */
    /* Fewer values; NULL for formats with blocks. */
    void (*tail)(Sink *s, const uint8_t *w, int n);
} Decoder;

static ALWAYS_INLINE const uint8_t *row_at(const void *w, size_t ldw, int j)
{
    return (const uint8_t *)w + (size_t)j * ldw;
}

/* Values c .. c + n - 1 of a row, n a multiple of the block or up to the row's end. */
static ALWAYS_INLINE void expand(const Decoder d, float *dst, const uint8_t *w, int n)
{
    Sink s = { .dst = dst };
    int i = 0;
    for (; i + d.len <= n; i += d.len, w += d.bytes) {
        s.dst = dst + i;
        d.take(&s, w);
    }
    s.dst = dst + i;
    if (d.tail && i < n)
        d.tail(&s, w, n - i);
}

/* ---- one row of x -------------------------------------------------------------- */

static ALWAYS_INLINE __m128 dot4(const Decoder d, const uint8_t *const w[TILE_W], const float *x,
                                 int cols)
{
    Sink s[TILE_W];
    UNROLL
    for (int r = 0; r < TILE_W; r++)
        s[r] = (Sink){ .sum = v_zero() };
    size_t at = 0;
    int c = 0;
    for (; c + d.len <= cols; c += d.len, at += (size_t)d.bytes) {
        UNROLL
        for (int r = 0; r < TILE_W; r++) {
            s[r].x = x + c;
            d.take(&s[r], w[r] + at);
        }
    }
    UNROLL
    for (int r = 0; r < TILE_W; r++) {
        s[r].x = x + c;
        if (d.tail && c < cols)
            d.tail(&s[r], w[r] + at, cols - c);
    }
    return v_sum4(s[0].sum, s[1].sum, s[2].sum, s[3].sum);
}

static ALWAYS_INLINE void store4(float *out, __m128 v, int n)
{
    float all[TILE_W];
    if (n >= TILE_W) {
        _mm_storeu_ps(out, v);
        return;
    }
    _mm_storeu_ps(all, v);
    memcpy(out, all, (size_t)n * sizeof *all);
}

static ALWAYS_INLINE void gemv(const Decoder d, float *out, const void *w, size_t ldw, int n_w,
                               const float *x, int cols)
{
    for (int j = 0; j < n_w; j += TILE_W) {
        const uint8_t *rows[TILE_W];
        for (int r = 0; r < TILE_W; r++)
            rows[r] = row_at(w, ldw, MIN(j + r, n_w - 1));
        store4(out + j, dot4(d, rows, x, cols), n_w - j);
    }
}

/* ---- many rows of x ------------------------------------------------------------ */

/* sum[i][r] += w[r] . x row i over n columns of F32. */
static ALWAYS_INLINE void tile(const int n_x, Vec *sum, const uint8_t *const w[TILE_W],
                               const float *x, size_t ldx, int n)
{
    Vec a[TILE_X][TILE_W], xv[TILE_X];
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int r = 0; r < TILE_W; r++)
            a[i][r] = sum[i * TILE_W + r];
    }
    int c = 0;
    for (; c + LANES <= n; c += LANES) {
        UNROLL
        for (int i = 0; i < n_x; i++)
            xv[i] = v_load(x + (size_t)i * ldx + c);
        UNROLL
        for (int r = 0; r < TILE_W; r++) {
            Vec wv = v_load(w[r] + (size_t)c * sizeof(float));
            UNROLL
            for (int i = 0; i < n_x; i++)
                a[i][r] = v_fma(wv, xv[i], a[i][r]);
        }
    }
    if (c < n) {
        UNROLL
        for (int i = 0; i < n_x; i++)
            xv[i] = v_load_n(x + (size_t)i * ldx + c, n - c);
        UNROLL
        for (int r = 0; r < TILE_W; r++) {
            Vec wv = v_load_n(w[r] + (size_t)c * sizeof(float), n - c);
            UNROLL
            for (int i = 0; i < n_x; i++)
                a[i][r] = v_fma(wv, xv[i], a[i][r]);
        }
    }
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int r = 0; r < TILE_W; r++)
            sum[i * TILE_W + r] = a[i][r];
    }
}

#define TILE(n) \
    static __attribute__((noinline)) void tile_##n(Vec *sum, const uint8_t *const w[TILE_W], \
                                                   const float *x, size_t ldx, int cols) \
    { \
        tile(n, sum, w, x, ldx, cols); \
    }
TILE(1)
TILE(2)
TILE(3)
#ifdef __AVX512F__
TILE(4)
TILE(5)
TILE(6)
#endif

typedef void (*TileFn)(Vec *sum, const uint8_t *const w[TILE_W], const float *x, size_t ldx,
                       int cols);
static const TileFn tiles[TILE_X + 1] = { NULL,   tile_1, tile_2, tile_3,
#ifdef __AVX512F__
                                          tile_4, tile_5, tile_6
#endif
};

/* n values from column c of each of n_w rows: where they lie as F32. Rows
 * missing in the last tile repeat the last one. */
static ALWAYS_INLINE void panel_rows(const Decoder d, const uint8_t *rows[PANEL],
                                     float panel[PANEL * RUN], const void *w, size_t ldw, int n_w,
                                     int c, int n)
{
    size_t at = (size_t)(c / d.len) * (size_t)d.bytes;
    for (int r = 0; r < PANEL && r < (n_w + TILE_W - 1) / TILE_W * TILE_W; r++) {
        const uint8_t *row = row_at(w, ldw, MIN(r, n_w - 1)) + at;
        rows[r] = row;
        if (d.bytes == d.len * (int)sizeof(float))
            continue; /* F32 as it is */
        rows[r] = (const uint8_t *)(panel + r * RUN);
        expand(d, panel + r * RUN, row, n);
    }
}

/* n_w <= PANEL weight rows with n_x <= CHUNK_X rows of x. */
static ALWAYS_INLINE void panel_times_chunk(const Decoder d, float *out, size_t ldo, const void *w,
                                            size_t ldw, int n_w, const float *x, size_t ldx,
                                            int n_x, int cols)
{
    _Alignas(64) float panel[PANEL * RUN];
    Vec sum[CHUNK_X * PANEL];
    const uint8_t *rows[PANEL];
    enum { ONE = TILE_X * TILE_W };
    const int across = (n_w + TILE_W - 1) / TILE_W, down = (n_x + TILE_X - 1) / TILE_X;
    for (int t = 0; t < across * down * ONE; t++)
        sum[t] = v_zero();
    for (int c = 0; c < cols; c += RUN) {
        int n = MIN(RUN, cols - c);
        panel_rows(d, rows, panel, w, ldw, n_w, c, n);
        for (int i = 0; i < down; i++) {
            TileFn fn = tiles[MIN(TILE_X, n_x - i * TILE_X)];
            for (int r = 0; r < across; r++)
                fn(sum + (i * across + r) * ONE, rows + r * TILE_W,
                   x + (size_t)i * TILE_X * ldx + c, ldx, n);
        }
    }
    for (int i = 0; i < n_x; i++) {
        for (int r = 0; r < across; r++) {
            const Vec *s = sum + (i / TILE_X * across + r) * ONE + i % TILE_X * TILE_W;
            store4(out + (size_t)i * ldo + r * TILE_W, v_sum4(s[0], s[1], s[2], s[3]),
                   n_w - r * TILE_W);
        }
    }
}

static ALWAYS_INLINE void gemm(const Decoder d, float *out, size_t ldo, const void *w, size_t ldw,
                               int n_w, const float *x, size_t ldx, int n_x, int cols)
{
    if (n_x == 1) {
        gemv(d, out, w, ldw, n_w, x, cols);
        return;
    }
    for (int slab = 0; slab < n_w; slab += SLAB) {
        int end = MIN(n_w, slab + SLAB);
        for (int i = 0; i < n_x; i += CHUNK_X) {
            for (int j = slab; j < end; j += PANEL)
                panel_times_chunk(d, out + (size_t)i * ldo + j, ldo, row_at(w, ldw, j), ldw,
                                  MIN(PANEL, end - j), x + (size_t)i * ldx, ldx,
                                  MIN(CHUNK_X, n_x - i), cols);
        }
    }
}

#define GEMM(name, ...) \
    static void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x, \
                     size_t ldx, int n_x, int cols) \
    { \
        gemm((Decoder){ __VA_ARGS__ }, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }

/* ---- formats that are numbers already -------------------------------------------- */

static ALWAYS_INLINE void f32_take(Sink *s, const uint8_t *w) { sink_take(s, 0, v_load(w)); }
static ALWAYS_INLINE void f32_tail(Sink *s, const uint8_t *w, int n)
{
    sink_take_n(s, v_load_n(w, n), n);
}
static ALWAYS_INLINE void f16_take(Sink *s, const uint8_t *w)
{
    sink_take(s, 0, v_from_f16(v_halves(w)));
}
static ALWAYS_INLINE void f16_tail(Sink *s, const uint8_t *w, int n)
{
    sink_take_n(s, v_from_f16(v_halves_n(w, n)), n);
}
static ALWAYS_INLINE void bf16_take(Sink *s, const uint8_t *w)
{
    sink_take(s, 0, v_from_bf16(v_halves(w)));
}
static ALWAYS_INLINE void bf16_tail(Sink *s, const uint8_t *w, int n)
{
    sink_take_n(s, v_from_bf16(v_halves_n(w, n)), n);
}
GEMM(gemm_f32, LANES, 4 * LANES, f32_take, f32_tail)
GEMM(gemm_f16, LANES, 2 * LANES, f16_take, f16_tail)
GEMM(gemm_bf16, LANES, 2 * LANES, bf16_take, bf16_tail)
#endif
