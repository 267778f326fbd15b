/* k_avx512_2bit.h - integer products of 2 bits of the AVX-512 table, for CPUs with VNNI, VBMI
 * and GFNI. */
#ifndef K_AVX512_2BIT_H
#define K_AVX512_2BIT_H
#include "kernels.h"

void vnni_iq2_xxs(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
                  size_t ldx, int n_x, int cols);
void vnni_q2_k(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
               size_t ldx, int n_x, int cols);
#endif
