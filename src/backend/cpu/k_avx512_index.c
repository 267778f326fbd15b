/* k_avx512_index.c - index scores for AVX-512 with VNNI. */
#include "kernels.h"
#include "index_x86.h"

const Kernels kernels_avx512_index = { .name = "avx512",
                                       .idx_query = idx_query,
                                       .idx_scores = idx_scores };
