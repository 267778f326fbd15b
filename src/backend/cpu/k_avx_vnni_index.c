/* k_avx_vnni_index.c - index scores for AVX2 with AVX-VNNI; k_avx_vnni.c tells more. */
#include "kernels.h"
#include "index_x86.h"

const Kernels kernels_avx_vnni_index = { .name = "avx2",
                                         .idx_query = idx_query,
                                         .idx_scores = idx_scores };
