/* i8_panels.h - the walk over panels of weight rows, 8 rows in the lanes of a vector.
 *
 * PANEL weight rows x RUN blocks of 32 columns are expanded at once and used by
 * all rows of x, I8_X at a time; between runs the sums wait in `out`. Blocks are
 * added in ascending order.
 *
 * i8_avx2.h and i8_neon.h include this after INLINE, the I8_ sizes and the types
 * Eight (a float for each of 8 weight rows), Sums (an integer for each), Factors,
 * Format8 and Block8, and define below it what is declared first here. */
#ifndef I8_PANELS_H
#define I8_PANELS_H
#include "acts.h"

/* Where 8 weight rows are: the first, and how far on each of them is. Only `p`
 * moves along the columns. */
struct Rows8 {
    const uint8_t *p;
    size_t at[I8_ROWS];
};

/* Where the sums of a call are, and how far it is. */
typedef struct {
    float *out;
    size_t ldo;
    int n_w; /* real ones of 8 */
    const uint8_t *x;
    size_t ldx;
    int cols, block, n; /* n blocks from this one on */
} Place;

/* ---- what each set defines ------------------------------------------------------ */

INLINE Eight zeros(void);
/* The first n, or 8 if n is more; no others are read or written. */
INLINE Eight load_upto(const float *p, int n);
INLINE void store_upto(float *p, Eight v, int n);

/* 8 weight rows, n_w of them real, with one row of x. */
INLINE Eight gemv8(const Format8 f, const void *w, size_t ldw, int n_w, const void *x, int cols);

/* n blocks of 32 columns of 8 rows. The bytes `ahead` of them are fetched. */
INLINE void expand8(const Format8 f, Block8 *to, Rows8 rows, size_t ahead, int n);

/* Sums of 32 columns of 8 weight rows with blocks b of n_x rows of x, codes and their sums by 16. */
INLINE void multiply(const Format8 f, const int n_x, Sums s[I8_X], const Block8 *w,
                     const int8_t *const q[I8_X], const int16_t *const sum[I8_X], int b);

/* The block's part of 8 outputs: sums of code * q in s, the sums of x by 16 at sum. */
INLINE Eight finish(const Format8 f, const Factors *by, const Sums s, const int16_t *sum,
                    float scale, Eight out);

/* tile8 of the next rows of x, n_x or I8_X if fewer: a constant in each case,
 * so that sums live in registers. */
INLINE void tiles8(const Format8 f, const Place *p, const Block8 *w, int n_x);

/* ---- the walk ------------------------------------------------------------------- */

/* Rows missing at the end repeat the last one. */
INLINE Rows8 rows8(const void *w, size_t ldw, int n_w)
{
    Rows8 rows = { .p = w };
    UNROLL
    for (int r = 0; r < I8_ROWS; r++)
        rows.at[r] = (size_t)MIN(r, n_w - 1) * ldw;
    return rows;
}

INLINE const uint8_t *row8(const Rows8 *w, int r) { return w->p + w->at[r]; }

/* n blocks of 8 weight rows with n_x rows of x, added to what came before. */
INLINE void tile8(const Format8 f, const int n_x, const Place *p, const Block8 *w)
{
    const int8_t *q[I8_X];
    const float *scale[I8_X];
    const int16_t *sum[I8_X];
    Eight out[I8_X];
    UNROLL
    for (int i = 0; i < n_x; i++) {
        const uint8_t *x = p->x + (size_t)i * p->ldx;
        q[i] = act_q(x) + p->block * ACT_BLOCK;
        scale[i] = act_scale(x, p->cols) + p->block;
        sum[i] = act_sum(x, p->cols) + 2 * p->block;
        out[i] = p->block ? load_upto(p->out + (size_t)i * p->ldo, p->n_w) : zeros();
    }
    for (int b = 0; b < p->n; b++, w++) {
        Sums s[I8_X];
        multiply(f, n_x, s, w, q, sum, b);
        UNROLL
        for (int i = 0; i < n_x; i++)
            out[i] = finish(f, &w->of, s[i], sum[i] + 2 * b, scale[i][b], out[i]);
    }
    UNROLL
    for (int i = 0; i < n_x; i++)
        store_upto(p->out + (size_t)i * p->ldo, out[i], p->n_w);
}

/* n_w <= I8_PANEL weight rows with all rows of x. */
INLINE void panel8(const Format8 f, float *out, size_t ldo, const void *w, size_t ldw, int n_w,
                   const uint8_t *x, size_t ldx, int n_x, int cols)
{
    Block8 panel[I8_PANEL / I8_ROWS][I8_RUN];
    const int blocks = cols / ACT_BLOCK;
    for (int b = 0; b < blocks; b += I8_RUN) {
        const int n = MIN(I8_RUN, blocks - b);
        const size_t at = (size_t)(b / (f.len / ACT_BLOCK)) * (size_t)f.bytes;
        /* The next run's, or the next panel's. */
        const size_t ahead =
            b + n < blocks ? (size_t)(n / (f.len / ACT_BLOCK) * f.bytes) : I8_PANEL * ldw - at;
        for (int j = 0; j < n_w; j += I8_ROWS) {
            const Rows8 rows = rows8((const uint8_t *)w + (size_t)j * ldw + at, ldw, n_w - j);
            expand8(f, panel[j / I8_ROWS], rows, ahead, n);
        }
        for (int i = 0; i < n_x; i += I8_X) {
            for (int j = 0; j < n_w; j += I8_ROWS) {
                const Place p = {
                    out + (size_t)i * ldo + j, ldo, n_w - j, x + (size_t)i * ldx, ldx, cols, b, n
                };
                tiles8(f, &p, panel[j / I8_ROWS], n_x - i);
            }
        }
    }
}

INLINE void gemm8(const Format8 f, float *out, size_t ldo, const void *w, size_t ldw, int n_w,
                  const void *x, size_t ldx, int n_x, int cols)
{
    const int step = n_x == 1 ? I8_ROWS : I8_PANEL;
    for (int j = 0; j < n_w; j += step) {
        const uint8_t *from = (const uint8_t *)w + (size_t)j * ldw;
        if (n_x == 1)
            store_upto(out + j, gemv8(f, from, ldw, n_w - j, x, cols), n_w - j);
        else
            panel8(f, out + j, ldo, from, ldw, MIN(I8_PANEL, n_w - j), x, ldx, n_x, cols);
    }
}
#endif
