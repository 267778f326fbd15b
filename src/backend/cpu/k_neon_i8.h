/* k_neon_i8.h - products with int8 activations for NEON: as every aarch64 CPU
 * has it (k_neon_i8.c, for the table of k_neon.c), and with sdot (k_neon_dot.c). */
#ifndef K_NEON_I8_H
#define K_NEON_I8_H
#include "kernels.h"

void neon_act_pack(void *row, const float *x, int n);

#define NEON_I8(format) \
    void neon_##format##_i8(float *out, size_t ldo, const void *w, size_t ldw, int n_w, \
                            const void *x, size_t ldx, int n_x, int cols); \
    void dot_##format##_i8(float *out, size_t ldo, const void *w, size_t ldw, int n_w, \
                           const void *x, size_t ldx, int n_x, int cols);
NEON_I8(q8_0)
NEON_I8(q2_k)
NEON_I8(q4_k)
NEON_I8(iq2_xxs)
NEON_I8(mxfp4)
#undef NEON_I8

#endif
