/* k_neon_dot.c - the set "dotprod": NEON whose integer products have sdot.
 *
 * All ARM Macs and servers of the last years have it (ARMv8.2 with dotprod).
 * Everything else is the set "neon". */
#include "k_neon_i8.h"
#define I8_NAME(format) dot_##format##_i8
#include "i8_neon_formats.h"

#ifndef __ARM_FEATURE_DOTPROD
#error "compile this file with -march=armv8.2-a+dotprod"
#endif

const Kernels kernels_dotprod = {
    .name = "dotprod",
    .gemm_i8 = { [QUANT_Q8_0] = dot_q8_0_i8,
                 [QUANT_Q2_K] = dot_q2_k_i8,
                 [QUANT_Q4_K] = dot_q4_k_i8,
                 [QUANT_IQ2_XXS] = dot_iq2_xxs_i8,
                 [QUANT_MXFP4] = dot_mxfp4_i8 },
};
