/* matmul.c - a weight matrix times the rows of a step.
 *
 * A thread owns a range of weight rows and runs every row of x over them, a
 * tile of weights at a time, so that weights come from memory once a step
 * whatever the number of rows. */
#include "cpu_internal.h"

size_t weight_row_bytes(const Weight *w)
{
    const QuantFormat *f = quant_format(w->type);
    return (size_t)(w->cols / f->block_len) * (size_t)f->block_bytes;
}

const void *weight_at(const Weight *w, int which, int row)
{
    size_t n = (size_t)which * (size_t)w->rows + (size_t)row;
    return (const char *)bytes_of(w->data) + n * weight_row_bytes(w);
}

void cpu_matmul(const Cpu *c, Rows out, const Weight *w, int which, Rows x, int first, int last)
{
    GemmFn gemm = c->k->gemm[w->type];
    const size_t ldw = weight_row_bytes(w);
    const int w_tile = x.n == 1 ? last - first : W_TILE;

    for (int j = first; j < last; j += w_tile) {
        const void *wj = weight_at(w, which, j);
        int n_w = MIN(w_tile, last - j);
        for (int i = 0; i < x.n; i += X_TILE)
            gemm(row_at(out, i) + j, out.ld, wj, ldw, n_w, row_at(x, i), x.ld, MIN(X_TILE, x.n - i),
                 w->cols);
    }
}

/* Kernels keep what they expand of a weight row while they go through the rows
 * of x, so they get all of both at once. */
void cpu_multiply(const Cpu *c, Rows out, const Weight *w, int which, Input x, int first, int last)
{
    if (!x.acts)
        cpu_matmul(c, out, w, which, x.rows, first, last);
    else if (first < last)
        c->k->gemm_i8[w->type](out.p + first, out.ld, weight_at(w, which, first),
                               weight_row_bytes(w), last - first, x.acts, x.ld, x.rows.n, w->cols);
}
