/* floats_x86.h - products with weights that are numbers already: F32, F16, BF16.
 *
 * 64 bytes of them count as a block; what is left at a row's end is read with
 * a mask. */
#ifndef FLOATS_X86_H
#define FLOATS_X86_H
#include "dots_x86.h"

static ALWAYS_INLINE void nothing(State *s, const uint8_t *block) { (void)s, (void)block; }

static ALWAYS_INLINE Vec f32_piece(const State *s, const uint8_t *w, int k)
{
    (void)s;
    return v_load(w + 4 * LANES * k);
}
static ALWAYS_INLINE Vec f32_part(const uint8_t *w, int n) { return v_load_upto(w, n); }

static ALWAYS_INLINE Vec f16_piece(const State *s, const uint8_t *w, int k)
{
    (void)s;
    return v_from_f16(v_halves(w + 2 * LANES * k));
}
static ALWAYS_INLINE Vec f16_part(const uint8_t *w, int n)
{
    return v_from_f16(v_halves_upto(w, n));
}

static ALWAYS_INLINE Vec bf16_piece(const State *s, const uint8_t *w, int k)
{
    (void)s;
    return v_from_bf16(v_halves(w + 2 * LANES * k));
}
static ALWAYS_INLINE Vec bf16_part(const uint8_t *w, int n)
{
    return v_from_bf16(v_halves_upto(w, n));
}

GEMM(gemm_f32_long, 16, 64, nothing, f32_piece, f32_part, FEW)
GEMM(gemm_f16, 32, 64, nothing, f16_piece, f16_part, FEW)
GEMM(gemm_bf16, 32, 64, nothing, bf16_piece, bf16_part, FEW)

static void gemm_f32(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x,
                     size_t ldx, int n_x, int cols)
{
    GemmFn fn = n_x > 1 && cols <= RUN ? dots : gemm_f32_long;
    fn(out, ldo, w, ldw, n_w, x, ldx, n_x, cols);
}
#endif
