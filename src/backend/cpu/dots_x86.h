/* dots_x86.h - products of short F32 rows: attention's scores.
 *
 * Where a row is not longer than RUN the sums stay in registers from its first
 * column to its last, and are folded as gemm_x86.h folds them: the bits are the
 * same. DOT_ROWS rows stay in the first cache while all rows of x pass. */
#ifndef DOTS_X86_H
#define DOTS_X86_H
#include "gemm_x86.h"

enum { DOT_ROWS = 8 };

/* n_x <= TILE_X rows of x with TILE_W rows, of which the first n_w are stored. */
static ALWAYS_INLINE void dots_tile(const int n_x, float *out, size_t ldo,
                                    const uint8_t *const w[TILE_W], int n_w, const float *x,
                                    size_t ldx, int cols)
{
    Vec a[TILE_X][TILE_W];
    UNROLL
    for (int i = 0; i < n_x; i++) {
        UNROLL
        for (int r = 0; r < TILE_W; r++)
            a[i][r] = v_zero();
    }
    add_products(n_x, a, w, x, ldx, cols);
    UNROLL
    for (int i = 0; i < n_x; i++)
        store4(out + (size_t)i * ldo, v_sum4(a[i][0], a[i][1], a[i][2], a[i][3]), n_w);
}

#define DOTS(n) \
    static __attribute__((noinline)) void dots_##n(float *out, size_t ldo, \
                                                   const uint8_t *const w[TILE_W], int n_w, \
                                                   const float *x, size_t ldx, int cols) \
    { \
        dots_tile(n, out, ldo, w, n_w, x, ldx, cols); \
    }
DOTS(1)
DOTS(2)
DOTS(3)
#ifdef __AVX512F__
DOTS(4)
DOTS(5)
DOTS(6)
#endif

typedef void (*DotsFn)(float *out, size_t ldo, const uint8_t *const w[TILE_W], int n_w,
                       const float *x, size_t ldx, int cols);
static const DotsFn dots_of[TILE_X + 1] = { NULL,   dots_1, dots_2, dots_3,
#ifdef __AVX512F__
                                            dots_4, dots_5, dots_6
#endif
};

/* n_w <= DOT_ROWS weight rows with all of x; rows missing in the last four repeat the last. */
static void dots_panel(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x,
                       size_t ldx, int n_x, int cols)
{
    const uint8_t *rows[DOT_ROWS];
    for (int r = 0; r < DOT_ROWS; r++)
        rows[r] = weight_row(w, ldw, MIN(r, n_w - 1));
    for (int i = 0; i < n_x; i += TILE_X) {
        DotsFn fn = dots_of[MIN(TILE_X, n_x - i)];
        for (int r = 0; r < n_w; r += TILE_W)
            fn(out + (size_t)i * ldo + r, ldo, rows + r, n_w - r, x + (size_t)i * ldx, ldx, cols);
    }
}

static void dots(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x,
                 size_t ldx, int n_x, int cols)
{
    for (int j = 0; j < n_w; j += DOT_ROWS)
        dots_panel(out + j, ldo, weight_row(w, ldw, j), ldw, MIN(DOT_ROWS, n_w - j), x, ldx, n_x,
                   cols);
}
#endif
