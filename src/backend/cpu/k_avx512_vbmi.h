/* k_avx512_vbmi.h - what k_avx512_vbmi.c offers k_avx512.c, for CPUs with VBMI. */
#ifndef K_AVX512_VBMI_H
#define K_AVX512_VBMI_H
#include "kernels.h"

void gemm_iq2_xxs_vbmi(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x,
                       size_t ldx, int n_x, int cols);
#endif
