/* gemm_x86.h - matrix products of the x86 sets, for any weight format.
 *
 * Law: an output is the sum of one accumulator vector, to which lane l adds
 * the products of columns l, l + LANES, ... in ascending order, folded by
 * v_sum4. Nothing else decides its bits: not how many rows come together, nor
 * which of the two ways computes it.
 *
 * Few rows of x: four weight rows at a time are decoded in registers and
 * multiplied at once with up to TILE_X rows; every weight byte comes from memory
 * once and nothing is written. More rows: PANEL weight rows x RUN columns are
 * decoded to F32 on the stack, which stay in the first caches, and multiplied
 * tile by tile (4 weights x TILE_X rows, one register each) with CHUNK_X rows of
 * x. Between runs of columns the accumulators wait on the stack. */
#ifndef GEMM_X86_H
#define GEMM_X86_H
#include "kernels.h"
#include "simd_x86.h"

enum {
    TILE_W = 4,
    TILE_X = LANES == 16 ? 6 : 3, /* 24 of 32 or 12 of 16 registers */
    FEW = 2 * TILE_X,
    PANEL = 16,
    RUN = 512,
    CHUNK_X = 48,
    SLAB = 128, /* weight rows whose bytes stay in the second cache while all of x passes */
};

/* What a decoder works out once for a block. Numbers that one piece needs in
 * all lanes lie in memory, where a broadcast is part of the load. */
typedef struct {
    Vec table;
    _Alignas(64) float scale[16], min[16];
    _Alignas(32) uint16_t signs[16];
    _Alignas(64) uint64_t codes[16];
} State;

/* Compilers see through a store and make shuffles of the loads after it, but
 * shuffles are what the decoders have too many of. */
#define IN_MEMORY(array) __asm__("" : "+m"(array))

typedef struct {
    int len, bytes; /* of a block */
    void (*open)(State *s, const uint8_t *block);
    /* Values LANES * k ... of an open block. */
    Vec (*piece)(const State *s, const uint8_t *block, int k);
    /* n <= LANES values without a block; NULL for formats with blocks. */
    Vec (*part)(const uint8_t *w, int n);
    int few; /* rows of x that are better multiplied by what is decoded anew: 1 .. FEW */
} Decoder;

/* n values of a row, n a multiple of the block or up to the row's end; dst has
 * room for whole vectors. What lies `ahead` bytes on is fetched. */
static ALWAYS_INLINE void expand(const Decoder d, float *dst, const uint8_t *w, size_t ahead, int n)
{
    State s;
    int c = 0;
    for (; c + d.len <= n; c += d.len, w += d.bytes) {
        fetch(w + ahead, d.bytes);
        d.open(&s, w);
        UNROLL
        for (int k = 0; k < d.len / LANES; k++)
            v_store(dst + c + k * LANES, d.piece(&s, w, k));
    }
    for (; d.part && c < n; c += LANES, w += LANES * d.bytes / d.len)
        v_store(dst + c, d.part(w, n - c));
}

/* ---- few rows of x ------------------------------------------------------------- */

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

/* The first n_w of four weight rows with n_x <= TILE_X rows of x. Pieces of the four take turns,
 * since a sum waits for its last product. The rows after these are `ahead` bytes on. */
static ALWAYS_INLINE void four_times_x(const Decoder d, const int n_x, float *out, size_t ldo,
                                       const uint8_t *const w[TILE_W], size_t ahead, int n_w,
                                       const float *x, size_t ldx, int cols)
{
    Vec sum[TILE_X][TILE_W];
    State s[TILE_W];
    const Lead lead = lead_of((size_t)(cols / d.len) * (size_t)d.bytes, ahead);
    size_t at = 0;
    int c = 0;
    UNROLL
    for (int i = 0; i < n_x * TILE_W; i++)
        sum[i / TILE_W][i % TILE_W] = v_zero();
    for (; c + d.len <= cols; c += d.len, at += (size_t)d.bytes) {
        const size_t next = lead_from(lead, at);
        UNROLL
        for (int r = 0; r < TILE_W; r++) {
            fetch(w[r] + next, d.bytes);
            d.open(&s[r], w[r] + at);
        }
        UNROLL
        for (int k = 0; k < d.len / LANES; k++) {
            UNROLL
            for (int r = 0; r < TILE_W; r++) {
                const Vec wv = d.piece(&s[r], w[r] + at, k);
                UNROLL
                for (int i = 0; i < n_x; i++)
                    sum[i][r] = v_fma(wv, v_load(x + (size_t)i * ldx + c + k * LANES), sum[i][r]);
            }
        }
    }
    for (; d.part && c < cols; c += LANES, at += (size_t)(LANES * d.bytes / d.len)) {
        UNROLL
        for (int r = 0; r < TILE_W; r++) {
            const Vec wv = d.part(w[r] + at, cols - c);
            UNROLL
            for (int i = 0; i < n_x; i++)
                sum[i][r] = v_fma(wv, v_load_upto(x + (size_t)i * ldx + c, cols - c), sum[i][r]);
        }
    }
    UNROLL
    for (int i = 0; i < n_x; i++)
        store4(out + (size_t)i * ldo, v_sum4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]), n_w);
}

/* n_x <= FEW. The second time four weight rows are decoded they are in a cache. */
static ALWAYS_INLINE void gemm_few(const Decoder d, float *out, size_t ldo, const void *w,
                                   size_t ldw, int n_w, const float *x, size_t ldx, int n_x,
                                   int cols)
{
    const int parts = (n_x + TILE_X - 1) / TILE_X;
    for (int j = 0; j < n_w; j += TILE_W) {
        const uint8_t *rows[TILE_W];
        for (int r = 0; r < TILE_W; r++)
            rows[r] = weight_row(w, ldw, MIN(j + r, n_w - 1));
        for (int p = 0; p < parts; p++) {
            const int from = n_x * p / parts, n = n_x * (p + 1) / parts - from;
            float *o = out + (size_t)from * ldo + j;
            const float *xi = x + (size_t)from * ldx;
#define ROWS(n) \
    case n: \
        if (n <= d.few) \
            four_times_x(d, n, o, ldo, rows, ldw *TILE_W, n_w - j, xi, ldx, cols); \
        break;
            switch (n) {
                ROWS(1)
                ROWS(2)
                ROWS(3)
#ifdef __AVX512F__
                ROWS(4)
                ROWS(5)
                ROWS(6)
#endif
            }
#undef ROWS
        }
    }
}

/* ---- many rows of x ------------------------------------------------------------ */

/* a[i][r] += w[r] . x row i over n columns of F32; a lives in registers. */
static ALWAYS_INLINE void add_products(const int n_x, Vec a[TILE_X][TILE_W],
                                       const uint8_t *const w[TILE_W], const float *x, size_t ldx,
                                       int n)
{
    Vec xv[TILE_X];
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
}

/* The same to sums that wait in memory. */
static ALWAYS_INLINE void tile(const int n_x, Vec *sum, const uint8_t *const w[TILE_W],
                               const float *x, size_t ldx, int n)
{
    Vec a[TILE_X][TILE_W];
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int r = 0; r < TILE_W; r++)
            a[i][r] = sum[i * TILE_W + r];
    }
    add_products(n_x, a, w, x, ldx, n);
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
 * missing in the last tile repeat the last one. The next to be read are the
 * columns after these, or the next panel. */
static ALWAYS_INLINE void panel_rows(const Decoder d, const uint8_t *rows[PANEL],
                                     float panel[PANEL * RUN], const void *w, size_t ldw, int n_w,
                                     int c, int n, bool last)
{
    const size_t at = (size_t)(c / d.len) * (size_t)d.bytes;
    const size_t ahead = last ? PANEL * ldw - at : (size_t)(n / d.len) * (size_t)d.bytes;
    for (int r = 0; r < PANEL && r < (n_w + TILE_W - 1) / TILE_W * TILE_W; r++) {
        const uint8_t *row = weight_row(w, ldw, MIN(r, n_w - 1)) + at;
        rows[r] = row;
        if (d.bytes == d.len * (int)sizeof(float))
            continue; /* F32 as it is */
        rows[r] = (const uint8_t *)(panel + r * RUN);
        expand(d, panel + r * RUN, row, ahead, n);
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
        panel_rows(d, rows, panel, w, ldw, n_w, c, n, c + n == cols);
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
    if (n_x <= d.few) {
        gemm_few(d, out, ldo, w, ldw, n_w, x, ldx, n_x, cols);
        return;
    }
    for (int slab = 0; slab < n_w; slab += SLAB) {
        int end = MIN(n_w, slab + SLAB);
        for (int i = 0; i < n_x; i += CHUNK_X) {
            for (int j = slab; j < end; j += PANEL)
                panel_times_chunk(d, out + (size_t)i * ldo + j, ldo, weight_row(w, ldw, j), ldw,
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
#endif
