/* k_avx_vnni.c - products with int8 activations for AVX2 with AVX-VNNI.
 *
 * That is vpdpbusd for vectors of 256 bits: what Intel's CPUs for one person
 * have had since 2021, and servers besides AVX-512. AVX-512 has the same
 * instruction in another coding, so a test compiles this file for it, too. */
#include "i8_avx2_formats.h"

#ifndef I8_DOT
#error "compile this file with -mavxvnni, or with -mavx512vnni -mavx512vl"
#endif

const Kernels kernels_avx_vnni = { .name = "avx2",
                                   .gemm_i8 = { [QUANT_Q8_0] = gemm_q8_0,
                                                [QUANT_Q2_K] = gemm_q2_k,
                                                [QUANT_Q4_K] = gemm_q4_k,
                                                [QUANT_IQ2_XXS] = gemm_iq2_xxs,
                                                [QUANT_MXFP4] = gemm_mxfp4 } };
