/* k_scalar_i8.c - products with int8 activations in plain C: what the faster
 * kernels must equal, bit for bit. The law of the sums is in kernels.h. */
#include "k_scalar_i8.h"
#include "acts.h"
#include "../../quant/blocks.h"
#include "../../quant/fp8.h"
#include "../../quant/iq2xxs_grid.h"
#include <math.h>

/* ---- activations ---------------------------------------------------------------- */

/* 32 values; the largest bits without the sign tell amax and what is not finite. */
static float pack_block(int8_t *q, const float *x)
{
    uint32_t most = 0;
    for (int i = 0; i < ACT_BLOCK; i++)
        most = MAX(most, f32_bits(x[i]) & 0x7fffffff);
    memset(q, 0, ACT_BLOCK);
    if (most >= 0x7f800000)
        return f32_from_bits(0x7fc00000);
    const float amax = f32_from_bits(most);
    if (amax < act_tiny)
        return 0;
    const float inverse = 127 / amax;
    for (int i = 0; i < ACT_BLOCK; i++)
        q[i] = (int8_t)rintf(x[i] * inverse);
    return amax / 127;
}

void scalar_act_pack(void *row, const float *x, int n)
{
    int8_t *q = act_q(row);
    float *scale = act_scale(row, n);
    int16_t *sum = act_sum(row, n);

    for (int b = 0; b < n / ACT_BLOCK; b++)
        scale[b] = pack_block(q + b * ACT_BLOCK, x + b * ACT_BLOCK);
    for (int g = 0; g < n / ACT_GROUP; g++) {
        int s = 0;
        for (int i = 0; i < ACT_GROUP; i++)
            s += q[g * ACT_GROUP + i];
        sum[g] = (int16_t)s;
    }
}

/* ---- weights: 32 integers and what they are multiplied with ----------------------- */

typedef struct {
    int8_t code[ACT_BLOCK];
    float a, m;
    int min[2]; /* of 16 values each */
} Codes;

/* Block b of a weight row. */
typedef void (*Unpack)(Codes *c, const void *row, int b);

static void q8_0_codes(Codes *c, const void *row, int b)
{
    const BlockQ8_0 *w = (const BlockQ8_0 *)row + b;
    memcpy(c->code, w->q, sizeof c->code);
    c->a = f16_at(w->d);
}

static void q2_k_codes(Codes *c, const void *row, int b)
{
    const BlockQ2_K *w = (const BlockQ2_K *)row + b / 8;
    const uint8_t *q = w->q + b % 8 / 4 * 32;
    for (int h = 0; h < 2; h++) {
        const int scales = w->scales[b % 8 * 2 + h], shift = b % 4 * 2;
        c->min[h] = scales >> 4;
        for (int l = 16 * h; l < 16 * h + 16; l++)
            c->code[l] = (int8_t)((q[l] >> shift & 3) * (scales & 15));
    }
    c->a = f16_at(w->d);
    c->m = f16_at(w->dmin);
}

static void q4_k_codes(Codes *c, const void *row, int b)
{
    const BlockQ4_K *w = (const BlockQ4_K *)row + b / 8;
    const uint8_t *s = w->s, *q = w->q + b % 8 / 2 * 32;
    const int j = b % 8, shift = j % 2 * 4;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    for (int l = 0; l < ACT_BLOCK; l++)
        c->code[l] = q[l] >> shift & 15;
    c->min[0] = c->min[1] = 1;
    c->a = f16_at(w->d) * (float)scale;
    c->m = f16_at(w->dmin) * (float)min;
}

static void iq2_xxs_codes(Codes *c, const void *row, int b)
{
    const BlockIQ2_XXS *w = (const BlockIQ2_XXS *)row + b / 8;
    const uint32_t bits = u32_at(w->g[b % 8].signs);
    for (int i = 0; i < ACT_BLOCK; i++) {
        const int value = (int)(iq2xxs_grid[w->g[b % 8].index[i / 8]] >> i % 8 * 8 & 255);
        const int minus = iq2xxs_signs(bits >> i / 8 * 7) >> i % 8 & 1;
        c->code[i] = (int8_t)(minus ? -value : value);
    }
    c->a = f16_at(w->d) * (float)(2 * (bits >> 28) + 1) * 0.125f;
}

static void mxfp4_codes(Codes *c, const void *row, int b)
{
    const BlockMXFP4 *w = (const BlockMXFP4 *)row + b;
    for (int i = 0; i < 16; i++) {
        c->code[i] = (int8_t)(2 * e2m1_decode(w->q[i]));
        c->code[i + 16] = (int8_t)(2 * e2m1_decode(w->q[i] >> 4));
    }
    c->a = e8m0_decode(w->e) * 0.5f;
}

/* ---- products -------------------------------------------------------------------- */

/* out with block b of x added. */
static float add_block(float out, const Codes *w, bool has_min, const void *x, int b, int cols)
{
    const int8_t *q = act_q(x) + b * ACT_BLOCK;
    const int16_t *sum = act_sum(x, cols) + 2 * b;
    int isum = 0;

    for (int i = 0; i < ACT_BLOCK; i++)
        isum += w->code[i] * q[i];
    float t = (float)isum * w->a;
    if (has_min)
        t = fmaf(-(float)(w->min[0] * sum[0] + w->min[1] * sum[1]), w->m, t);
    return fmaf(t, act_scale(x, cols)[b], out);
}

static void gemm(Unpack unpack, bool has_min, float *out, size_t ldo, const unsigned char *w,
                 size_t ldw, int n_w, const unsigned char *x, size_t ldx, int n_x, int cols)
{
    Codes codes;

    for (int j = 0; j < n_w; j++, w += ldw) {
        for (int i = 0; i < n_x; i++)
            out[(size_t)i * ldo + (size_t)j] = 0;
        for (int b = 0; b < cols / ACT_BLOCK; b++) {
            unpack(&codes, w, b);
            for (int i = 0; i < n_x; i++) {
                float *o = out + (size_t)i * ldo + j;
                *o = add_block(*o, &codes, has_min, x + (size_t)i * ldx, b, cols);
            }
        }
    }
}

#define GEMM(name, unpack, has_min) \
    void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
              size_t ldx, int n_x, int cols) \
    { \
        gemm(unpack, has_min, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }
GEMM(scalar_q8_0_i8, q8_0_codes, false)
GEMM(scalar_q2_k_i8, q2_k_codes, true)
GEMM(scalar_q4_k_i8, q4_k_codes, true)
GEMM(scalar_iq2_xxs_i8, iq2_xxs_codes, false)
GEMM(scalar_mxfp4_i8, mxfp4_codes, false)
