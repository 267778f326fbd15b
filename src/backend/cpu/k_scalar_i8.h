/* k_scalar_i8.h - what k_scalar_i8.c gives the table of k_scalar.c. */
#ifndef K_SCALAR_I8_H
#define K_SCALAR_I8_H
#include "kernels.h"

void scalar_act_pack(void *row, const float *x, int n);

#define SCALAR_I8(name) \
    void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
              size_t ldx, int n_x, int cols);
SCALAR_I8(scalar_q8_0_i8)
SCALAR_I8(scalar_q2_k_i8)
SCALAR_I8(scalar_q4_k_i8)
SCALAR_I8(scalar_iq2_xxs_i8)
SCALAR_I8(scalar_mxfp4_i8)
#undef SCALAR_I8

#endif
