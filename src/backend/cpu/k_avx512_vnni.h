/* k_avx512_vnni.h - integer products of the AVX-512 table, for CPUs that have VNNI and VBMI. */
#ifndef K_AVX512_VNNI_H
#define K_AVX512_VNNI_H
#include "kernels.h"

void vnni_q8_0(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
               size_t ldx, int n_x, int cols);

#endif
