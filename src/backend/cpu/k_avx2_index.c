/* k_avx2_index.c - index scores for AVX2. */
#include "kernels.h"
#include "index_x86.h"

const Kernels kernels_avx2_index = { .name = "avx2",
                                     .idx_query = idx_query,
                                     .idx_scores = idx_scores };
