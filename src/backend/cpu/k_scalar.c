/* k_scalar.c - the microkernels in plain C: what the faster ones must equal.
 *
 * A weight row is decoded 256 values at a time into a small buffer and
 * multiplied with every row of a tile of x, so weights are read once a tile.
 * A product over 256 values is summed in F32, in 16 lanes that fold into one;
 * the products of a row add up in double. The lanes are what lets a compiler
 * use vector registers without changing a bit. */
#include "k_scalar_i8.h"
#include <math.h>

enum { CHUNK = 256, LANES = 16, TILE = 64 };

static float dot(const float *a, const float *b, int n)
{
    float s[LANES] = { 0 };
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++)
            s[l] += a[i + l] * b[i + l];
    }
    for (int l = 0; i + l < n; l++)
        s[l] += a[i + l] * b[i + l];
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    }
    return s[0];
}

/* n_x <= TILE rows of x with one weight row. */
static void row_times_tile(const QuantFormat *f, float *out, size_t ldo, const unsigned char *w,
                           const float *x, size_t ldx, int n_x, int cols)
{
    float values[CHUNK];
    double sum[TILE] = { 0 };
    for (int c = 0; c < cols; c += CHUNK) {
        int n = MIN(CHUNK, cols - c);
        f->decode(values, w + (size_t)(c / f->block_len) * (size_t)f->block_bytes, (size_t)n);
        for (int i = 0; i < n_x; i++)
            sum[i] += (double)dot(values, x + (size_t)i * ldx + c, n);
    }
    for (int i = 0; i < n_x; i++)
        out[(size_t)i * ldo] = (float)sum[i];
}

static void gemm(int type, float *out, size_t ldo, const unsigned char *w, size_t ldw, int n_w,
                 const float *x, size_t ldx, int n_x, int cols)
{
    const QuantFormat *f = quant_format(type);
    for (int i = 0; i < n_x; i += TILE) {
        const float *xi = x + (size_t)i * ldx;
        float *oi = out + (size_t)i * ldo;
        for (int j = 0; j < n_w; j++)
            row_times_tile(f, oi + j, ldo, w + (size_t)j * ldw, xi, ldx, MIN(TILE, n_x - i), cols);
    }
}

#define GEMM(name, type) \
    static void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x, \
                     size_t ldx, int n_x, int cols) \
    { \
        gemm(type, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
    }
GEMM(gemm_f32, QUANT_F32)
GEMM(gemm_f16, QUANT_F16)
GEMM(gemm_bf16, QUANT_BF16)
GEMM(gemm_q8_0, QUANT_Q8_0)
GEMM(gemm_q2_k, QUANT_Q2_K)
GEMM(gemm_q4_k, QUANT_Q4_K)
GEMM(gemm_iq2_xxs, QUANT_IQ2_XXS)
GEMM(gemm_mxfp4, QUANT_MXFP4)

static void mix(float *o, size_t ldo, const float *p, size_t ldp, const float *rows, size_t ldr,
                int n_h, int n_rows, int dim)
{
    for (int h = 0; h < n_h; h++, o += ldo, p += ldp) {
        for (int i = 0; i < n_rows; i++) {
            const float *row = rows + (size_t)i * ldr;
            for (int d = 0; d < dim; d++)
                o[d] += p[i] * row[d];
        }
    }
}

static float sum_sq(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i += CHUNK)
        sum += (double)dot(x + i, x + i, MIN(CHUNK, n - i));
    return (float)sum;
}

static void scale(float *y, const float *x, float s, const float *w, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = w ? x[i] * s * w[i] : x[i] * s;
}

static float exp_sum(float *x, float m, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - m);
        sum += (double)x[i];
    }
    return (float)sum;
}

/* Written so that NaN stays NaN. */
static void swiglu(float *h, const float *g, const float *u, float limit, float s, int n)
{
    for (int i = 0; i < n; i++) {
        float gate = g[i] > limit ? limit : g[i];
        float up = u[i] > limit ? limit : u[i] < -limit ? -limit : u[i];
        h[i] = gate / (1 + expf(-gate)) * up * s;
    }
}

static void axpy(float *y, float a, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += a * x[i];
}

const Kernels kernels_scalar = {
    .name = "scalar",
    .gemm = { [QUANT_F32] = gemm_f32,
              [QUANT_F16] = gemm_f16,
              [QUANT_BF16] = gemm_bf16,
              [QUANT_Q8_0] = gemm_q8_0,
              [QUANT_Q2_K] = gemm_q2_k,
              [QUANT_Q4_K] = gemm_q4_k,
              [QUANT_IQ2_XXS] = gemm_iq2_xxs,
              [QUANT_MXFP4] = gemm_mxfp4 },
    .gemm_i8 = { [QUANT_Q8_0] = scalar_q8_0_i8,
                 [QUANT_Q2_K] = scalar_q2_k_i8,
                 [QUANT_Q4_K] = scalar_q4_k_i8,
                 [QUANT_IQ2_XXS] = scalar_iq2_xxs_i8,
                 [QUANT_MXFP4] = scalar_mxfp4_i8 },
    .act_pack = scalar_act_pack,
    .mix = mix,
    .sum_sq = sum_sq,
    .scale = scale,
    .exp_sum = exp_sum,
    .swiglu = swiglu,
    .axpy = axpy,
    .kv_unpack = kvrow_unpack,
    .idx_unpack = idxrow_unpack,
};
