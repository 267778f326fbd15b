/* k_avx2_index.c - index scores for AVX2. */
#include "k_index.h"
#include "index_x86.h"

void avx2_idx_query(IdxBlock *q, float *x, int dim) { idx_query(q, x, dim); }

void avx2_idx_scores(const IdxRowFormat *f, float *score, size_t lds, const void *rows, int n_rows,
                     const IdxBlock *q, int n_q, const float *w, int heads)
{
    idx_scores(f, score, lds, rows, n_rows, q, n_q, w, heads);
}
