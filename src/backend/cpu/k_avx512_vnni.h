/* k_avx512_vnni.h - integer products of the AVX-512 table, for CPUs that have VNNI and VBMI,
 * and the rows that they multiply, which all with AVX-512 can make. */
#ifndef K_AVX512_VNNI_H
#define K_AVX512_VNNI_H
#include "kernels.h"

#define VNNI_GEMM(name) \
    void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
              size_t ldx, int n_x, int cols);
VNNI_GEMM(vnni_q8_0)
VNNI_GEMM(vnni_q4_k)
VNNI_GEMM(vnni_mxfp4)
#undef VNNI_GEMM

void avx512_act_pack(void *row, const float *x, int n);

#endif
