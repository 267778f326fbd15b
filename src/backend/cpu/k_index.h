/* k_index.h - the integer index scores of the x86 sets, in files of their own flags. */
#ifndef K_INDEX_H
#define K_INDEX_H
#include "kernels.h"

void avx2_idx_query(IdxBlock *q, float *x, int dim);
void avx2_idx_scores(const IdxRowFormat *f, float *score, size_t lds, const void *rows, int n_rows,
                     const IdxBlock *q, int n_q, const float *w, int heads);
void avx512_idx_query(IdxBlock *q, float *x, int dim);
void avx512_idx_scores(const IdxRowFormat *f, float *score, size_t lds, const void *rows,
                       int n_rows, const IdxBlock *q, int n_q, const float *w, int heads);
#endif
