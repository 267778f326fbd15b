/* kernels.h - the microkernels that the CPU ops are loops over.
 *
 * k_scalar.c is the truth: plain C, weights decoded to F32, sums in F32 over
 * blocks and double across them. Each other file (k_avx2.c, k_avx512.c,
 * k_neon.c, ...) has entries of the same table for its instruction set, and
 * kernels.c takes each from the best file that the CPU can run.
 *
 * Law of all of them: an output is summed in an order that depends on its own
 * length only, never on how many rows are computed together. So a batch gives
 * the bits that single rows give, on every instruction set.
 *
 * Products with int8 activations (acts.h) are the same bits on all sets:
 *
 *   out = 0
 *   for each block b of 32 columns, ascending:
 *       t   = (float)isum * a                 isum = sum of code_i * q_i
 *       t   = fmaf(-(float)msum, m, t)        formats with a minimum only
 *       out = fmaf(t, scale_x[b], out)
 *
 *            code                        a              msum                           m
 *   Q8_0     q                           d
 *   MXFP4    2 E2M1, -12 .. 12           e8m0 / 2
 *   IQ2_XXS  +-8, +-25, +-43             d (2 s + 1) / 8
 *   Q4_K     nibble                      d scale        sum of q                       dmin min
 *   Q2_K     crumb scale of its 16,      d              sum over its 16s of            dmin
 *            0 .. 45                                    min (sum of q)
 *
 * The products that make a and m are exact in F32, whatever their order.
 *
 * Pointers may have any alignment; nothing outside the stated ranges is read
 * or written (weights come straight from a file's mapping). */
#ifndef KERNELS_H
#define KERNELS_H
#include "../../quant/kvrow.h"
#include "../../quant/quant.h"

/* out[i * ldo + j] = dot(weight row j, x row i), i < n_x, j < n_w.
 * w: n_w rows of `cols` values in the format, ldw bytes apart; x: n_x rows ldx
 * floats apart. ldo in floats. cols is a multiple of the format's block. */
typedef void (*GemmFn)(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const float *x,
                       size_t ldx, int n_x, int cols);

/* The same with rows of acts.h as x, ldx bytes apart, both multiples of ACT_ALIGN. */
typedef void (*GemmI8Fn)(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x,
                         size_t ldx, int n_x, int cols);

/* A block of columns of an index query as integers: of each eight columns the even ones, then
 * the odd ones, as four bytes of a packed row have them in their low and high nibbles. */
enum { IDX_BLOCK = 32, IDX_MOST_DIM = 256 };
typedef struct {
    int8_t code[IDX_BLOCK]; /* twice the E2M1 value */
    float scale;            /* a quarter of the block's, since rows' codes are doubled, too */
    int start;              /* -12 * the sum of codes: rows' codes are stored + 12 */
} IdxBlock;

typedef struct {
    const char *name; /* "avx512" */
    /* by weight type: F32 F16 BF16 Q8_0 Q2_K Q4_K IQ2_XXS MXFP4 */
    GemmFn gemm[QUANT_END];
    /* Q8_0 Q2_K Q4_K IQ2_XXS MXFP4; NULL for what multiplies F32 activations only */
    GemmI8Fn gemm_i8[QUANT_END];
    /* n values as a row of acts.h */
    void (*act_pack)(void *row, const float *x, int n);
    /* o[h * ldo + d] += sum_i p[h * ldp + i] * rows[i * ldr + d], i ascending */
    void (*mix)(float *o, size_t ldo, const float *p, size_t ldp, const float *rows, size_t ldr,
                int n_h, int n_rows, int dim);
    float (*sum_sq)(const float *x, int n);
    /* y = x * s * w (w NULL: 1); y may be x */
    void (*scale)(float *y, const float *x, float s, const float *w, int n);
    /* x[i] = exp(x[i] - m); returns the sum */
    float (*exp_sum)(float *x, float m, int n);
    /* h = silu(min(g, limit)) * clamp(u, -limit, limit) * s; h may be g or u */
    void (*swiglu)(float *h, const float *g, const float *u, float limit, float s, int n);
    /* y[i] += a * x[i] */
    void (*axpy)(float *y, float a, const float *x, int n);
    void (*kv_unpack)(const KvRowFormat *f, float *x, const void *row);
    void (*idx_unpack)(const IdxRowFormat *f, float *x, const void *row);
    /* NULL, both: by idx_unpack and gemm. idx_query: what hadamard and fp4_round make of one
     * head (x is scratch then). idx_scores: score[i * lds + t] = sum over heads, ascending, of
     * w_h * relu(q_h . row t) for queries i < n_q of [heads][dim / IDX_BLOCK] blocks, w of
     * [heads]; f is packed and f->dim <= IDX_MOST_DIM. A dot of a block is exact, and the
     * blocks' sum is rounded as F32 once a block. */
    void (*idx_query)(IdxBlock *q, float *x, int dim);
    void (*idx_scores)(const IdxRowFormat *f, float *score, size_t lds, const void *rows,
                       int n_rows, const IdxBlock *q, int n_q, const float *w, int heads);
} Kernels;

/* isa NULL: the best this CPU has. Fails for an unknown name and for a set
 * that this CPU, or this build, does not have. */
const Kernels *kernels_find(const char *isa, ds4_err *err);
/* The names of the sets that can run here, best first, NULL at the end. */
const char *const *kernels_list(void);

/* What a kernel may need that not all CPUs of its architecture have. */
enum {
    HAS_AVX2 = 1 << 0,
    HAS_FMA = 1 << 1,
    HAS_F16C = 1 << 2,
    HAS_BMI2 = 1 << 3,
    HAS_AVX512 = 1 << 4, /* F, BW, DQ and VL */
    HAS_VNNI = 1 << 5,
    HAS_VBMI = 1 << 6,
    HAS_GFNI = 1 << 7,
    HAS_AVX_VNNI = 1 << 8, /* VNNI for CPUs without AVX-512 */
    HAS_DOTPROD = 1 << 9,  /* ARM's */
};
/* Those of this CPU. */
unsigned kernels_features(void);
/* The table that kernels_find gives on a CPU which has `features`, in *k. A test may ask for
 * fewer than this CPU's. */
bool kernels_make(Kernels *k, const char *isa, unsigned features, ds4_err *err);

/* What each file has, NULL for the rest; only those of the architecture exist. */
extern const Kernels kernels_scalar, kernels_neon, kernels_dotprod;
extern const Kernels kernels_avx2, kernels_avx2_i8, kernels_avx2_index;
extern const Kernels kernels_avx_vnni, kernels_avx_vnni_index;
extern const Kernels kernels_avx512, kernels_avx512_acts, kernels_avx512_vbmi;
extern const Kernels kernels_avx512_vnni, kernels_avx512_q2k, kernels_avx512_iq2;
extern const Kernels kernels_avx512_index;

#endif
