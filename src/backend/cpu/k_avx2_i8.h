/* k_avx2_i8.h - what k_avx2_i8.c gives the table of k_avx2.c. */
#ifndef K_AVX2_I8_H
#define K_AVX2_I8_H
#include "kernels.h"

void avx2_act_pack(void *row, const float *x, int n);

#define AVX2_I8(name) \
    void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
              size_t ldx, int n_x, int cols);
AVX2_I8(avx2_q8_0_i8)
AVX2_I8(avx2_q2_k_i8)
AVX2_I8(avx2_q4_k_i8)
AVX2_I8(avx2_iq2_xxs_i8)
AVX2_I8(avx2_mxfp4_i8)
#undef AVX2_I8

#endif
