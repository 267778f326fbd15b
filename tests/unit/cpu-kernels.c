/* cpu-kernels.c - every microkernel that runs here, and how tables are made of them.
 *
 * Inputs and outputs lie against pages that must not be touched, once with
 * their ends at the page behind them and once with their starts at the page
 * before, so reading or writing one byte too many stops the test. Results are
 * compared with sums in double over weights decoded by quant.c, so scalar is
 * tested like the others. */
#include "../kernel_inputs.h"
#include <math.h>

/* Relative L2 error allowed in a product with F32 activations. */
static const double tolerance = 2e-6;
/* Relative error of one exp or sigmoid. */
static const double exp_tolerance = 2e-6;

static const int gemm_types[] = { QUANT_F32,  QUANT_F16,  QUANT_BF16,    QUANT_Q8_0,
                                  QUANT_Q2_K, QUANT_Q4_K, QUANT_IQ2_XXS, QUANT_MXFP4 };

/* ---- products ------------------------------------------------------------------ */

/* One call of a GemmFn, its inputs and the exact answer. */
typedef struct {
    const Kernels *k;
    int type, cols, n_w, n_x;
    size_t ldw, ldx, ldo;
    unsigned char *w;
    float *x, *out;
    float *decoded; /* [n_w][cols] */
    double *want;   /* [n_x][n_w] */
    double size;    /* the L2 norm that such products have */
} Case;

static const uint32_t poison = 0x7fc0dead;

static size_t out_floats(const Case *c) { return (size_t)(c->n_x - 1) * c->ldo + (size_t)c->n_w; }

static void case_inputs(Case *c, int gap, bool end)
{
    const QuantFormat *f = quant_format(c->type);
    size_t bytes = row_bytes(c->type, c->cols);
    c->ldw = bytes + (size_t)gap;
    c->ldx = (size_t)(c->cols + gap);
    c->ldo = (size_t)(c->n_w + gap);
    size_t x_floats = (size_t)(c->n_x - 1) * c->ldx + (size_t)c->cols;
    c->w = place(w_room, (size_t)(c->n_w - 1) * c->ldw + bytes, end);
    c->x = place(x_room, x_floats * sizeof(float), end);
    c->out = place(out_room, out_floats(c) * sizeof(float), end);
    random_floats(c->x, x_floats, 1);
    for (int j = 0; j < c->n_w; j++) {
        for (int b = 0; b < c->cols / f->block_len; b++)
            random_block(c->type, c->w + (size_t)j * c->ldw + (size_t)b * (size_t)f->block_bytes);
    }
}

static void case_answer(Case *c)
{
    double size = 0;
    c->decoded = malloc(sizeof(float) * (size_t)c->n_w * (size_t)c->cols);
    c->want = malloc(sizeof(double) * (size_t)c->n_w * (size_t)c->n_x);
    assert_true(c->decoded && c->want);
    for (int j = 0; j < c->n_w; j++) {
        float *w = c->decoded + (size_t)j * (size_t)c->cols;
        quant_format(c->type)->decode(w, c->w + (size_t)j * c->ldw, (size_t)c->cols);
        for (int i = 0; i < c->n_x; i++) {
            const float *x = c->x + (size_t)i * c->ldx;
            double sum = 0;
            for (int k = 0; k < c->cols; k++) {
                double product = (double)w[k] * (double)x[k];
                sum += product;
                size += product * product;
            }
            c->want[i * c->n_w + j] = sum;
        }
    }
    c->size = sqrt(size);
}

static void case_release(Case *c)
{
    free(c->decoded);
    free(c->want);
}

#define FAIL(c, what, ...) \
    fail_msg("%s %s cols %d n_w %d n_x %d: " what, (c)->k->name, quant_name((c)->type), (c)->cols, \
             (c)->n_w, (c)->n_x, __VA_ARGS__)

static void run_case(const Case *c)
{
    for (size_t i = 0; i < out_floats(c); i++)
        memcpy(&c->out[i], &poison, sizeof poison);
    c->k->gemm[c->type](c->out, c->ldo, c->w, c->ldw, c->n_w, c->x, c->ldx, c->n_x, c->cols);
}

/* Near the answer, and nothing else written. */
static void check_answer(const Case *c)
{
    double error = 0;
    for (size_t at = 0; at < out_floats(c); at++) {
        size_t i = at / c->ldo, j = at % c->ldo;
        if (j >= (size_t)c->n_w) {
            if (f32_bits(c->out[at]) != poison)
                FAIL(c, "wrote between rows at %zu", at);
            continue;
        }
        double d = (double)c->out[at] - c->want[i * (size_t)c->n_w + j];
        error += d * d;
    }
    if (!(sqrt(error) <= tolerance * c->size))
        FAIL(c, "relative error %.3g", sqrt(error) / c->size);
}

/* Each row of x alone, and each weight row alone, gives the same bits. */
static void check_company(const Case *c)
{
    float alone[64];
    GemmFn gemm = c->k->gemm[c->type];
    for (int i = 0; i < c->n_x; i++) {
        gemm(alone, (size_t)c->n_w, c->w, c->ldw, c->n_w, c->x + (size_t)i * c->ldx, c->ldx, 1,
             c->cols);
        if (memcmp(alone, c->out + (size_t)i * c->ldo, sizeof *alone * (size_t)c->n_w) != 0)
            FAIL(c, "x row %d differs when alone", i);
    }
    for (int j = 0; j < c->n_w; j++) {
        gemm(alone, 1, c->w + (size_t)j * c->ldw, c->ldw, 1, c->x, c->ldx, c->n_x, c->cols);
        for (int i = 0; i < c->n_x; i++) {
            if (memcmp(&alone[i], &c->out[(size_t)i * c->ldo + (size_t)j], sizeof *alone) != 0)
                FAIL(c, "weight row %d with x row %d differs when alone", j, i);
        }
    }
}

/* One shape on all tables, both placements, rows apart and rows side by side. */
static void check_shape(int type, int cols, int n_w, int n_x)
{
    for (int variant = 0; variant < 2; variant++) {
        Case c = { .type = type, .cols = cols, .n_w = n_w, .n_x = n_x };
        bool end = (variant ^ n_w ^ n_x) & 1;
        case_inputs(&c, variant ? 3 : 0, end);
        case_answer(&c);
        for (const Kernels *const *k = tables(); *k; k++) {
            c.k = *k;
            run_case(&c);
            check_answer(&c);
            check_company(&c);
        }
        case_release(&c);
    }
}

static void products_match_at_every_number_of_blocks(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(gemm_types); t++) {
        int block = quant_format(gemm_types[t])->block_len;
        for (int blocks = 1; blocks <= (block == 1 ? 67 : 9); blocks++) {
            check_shape(gemm_types[t], blocks * block, 1, 1);
            check_shape(gemm_types[t], blocks * block, 2, 1);
            check_shape(gemm_types[t], blocks * block, 5, 3);
            check_shape(gemm_types[t], blocks * block, 6, 13);
        }
        for (int cols = 255; block == 1 && cols <= 257; cols++) {
            check_shape(gemm_types[t], cols, 4, 4);
            check_shape(gemm_types[t], cols, 5, 14);
            check_shape(gemm_types[t], cols, 3, 1);
        }
    }
}

static void products_match_at_every_number_of_rows(void **state)
{
    (void)state;
    static const int n_x[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17 };
    static const int n_w[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 64 };
    for (size_t t = 0; t < COUNT(gemm_types); t++) {
        for (size_t a = 0; a < COUNT(n_w); a++) {
            for (size_t b = 0; b < COUNT(n_x); b++)
                check_shape(gemm_types[t], 256, n_w[a], n_x[b]);
        }
    }
}

static void products_match_at_model_sizes(void **state)
{
    (void)state;
    static const int cols[] = { 512, 1024, 2048, 4096 };
    static const int rows[][2] = { { 1, 1 },  { 2, 1 }, { 7, 1 }, { 8, 1 },
                                   { 64, 1 }, { 1, 9 }, { 9, 5 }, { 4, 17 } };
    for (size_t t = 0; t < COUNT(gemm_types); t++) {
        for (size_t a = 0; a < COUNT(cols); a++) {
            for (size_t b = 0; b < COUNT(rows); b++)
                check_shape(gemm_types[t], cols[a], rows[b][0], rows[b][1]);
        }
    }
}

/* A row of x with a single 1 reads one weight, exactly: all finite halves, all
 * bfloat16 of moderate exponent, every MXFP4 scale from 2^-126 to 2^123. */
static void a_single_one_reads_a_weight_exactly(void **state)
{
    (void)state;
    static const int types[] = { QUANT_F16, QUANT_BF16, QUANT_MXFP4 };
    float x[64] = { 0 }, out, want[64];
    unsigned char w[256];
    for (size_t t = 0; t < COUNT(types); t++) {
        const QuantFormat *f = quant_format(types[t]);
        for (int run = 0; run < 4096; run++) {
            for (size_t i = 0; i < row_bytes(types[t], 64); i++)
                w[i] = (unsigned char)random_u32();
            for (int i = 0; i < 64 / f->block_len; i++) {
                unsigned char *b = w + i * f->block_bytes;
                if (types[t] == QUANT_MXFP4)
                    b[0] = (unsigned char)(1 + run % 250);
                else if (!isfinite(f32_from_f16(u16_at(b))))
                    b[1] ^= 0x40;
                if (types[t] == QUANT_BF16)
                    b[1] = (unsigned char)(b[1] & 0xbf);
            }
            f->decode(want, w, 64);
            int at = (int)(random_u32() % 64);
            x[at] = 1;
            for (const Kernels *const *k = tables(); *k; k++) {
                (*k)->gemm[types[t]](&out, 1, w, 0, 1, x, 64, 1, 64);
                if (!(out == want[at]))
                    fail_msg("%s %s: %g, expected %g", (*k)->name, f->name, (double)out,
                             (double)want[at]);
            }
            x[at] = 0;
        }
    }
}

/* ---- vectors -------------------------------------------------------------------- */

static const int big[] = { 128, 255, 448, 512, 1000, 2048, 4096 };

/* check(k, n, end) for n = 1 .. 67 and some large ones, on all tables and both placements. */
static void for_lengths(void (*check)(const Kernels *, int n, bool end))
{
    for (const Kernels *const *k = tables(); *k; k++) {
        for (int n = 1; n <= 67; n++) {
            check(*k, n, false);
            check(*k, n, true);
        }
        for (size_t i = 0; i < COUNT(big); i++) {
            check(*k, big[i], false);
            check(*k, big[i], true);
        }
    }
}

static void near(const Kernels *k, const char *what, int n, int i, float got, double want,
                 double allowed)
{
    if (!(fabs((double)got - want) <= allowed))
        fail_msg("%s %s n %d at %d: %.9g, expected %.9g", k->name, what, n, i, (double)got, want);
}

static void same(const Kernels *k, const char *what, int n, int i, float got, float want)
{
    if (f32_bits(got) != f32_bits(want))
        fail_msg("%s %s n %d at %d: %.9g, alone %.9g", k->name, what, n, i, (double)got,
                 (double)want);
}

static float *floats(Region r, int n, bool end, float scale)
{
    float *x = place(r, sizeof(float) * (size_t)n, end);
    random_floats(x, (size_t)n, scale);
    return x;
}

static void check_sum_sq(const Kernels *k, int n, bool end)
{
    const float *x = floats(x_room, n, end, 3);
    double want = 0;
    for (int i = 0; i < n; i++)
        want += (double)x[i] * (double)x[i];
    near(k, "sum_sq", n, 0, k->sum_sq(x, n), want, tolerance * want);
}

static void check_scale(const Kernels *k, int n, bool end)
{
    float *x = floats(x_room, n, end, 3), *w = floats(w_room, n, end, 1);
    float *y = floats(out_room, n, end, 1), s = 0.37f, one;
    for (int weighted = 0; weighted < 2; weighted++) {
        k->scale(y, x, s, weighted ? w : NULL, n);
        for (int i = 0; i < n; i++) {
            double want = (double)x[i] * (double)s * (weighted ? (double)w[i] : 1);
            near(k, "scale", n, i, y[i], want, 3e-7 * fabs(want));
            k->scale(&one, &x[i], s, weighted ? &w[i] : NULL, 1);
            same(k, "scale", n, i, y[i], one);
        }
    }
    k->scale(x, x, s, w, n);
    assert_memory_equal(x, y, sizeof(float) * (size_t)n);
}

static void check_exp_sum(const Kernels *k, int n, bool end)
{
    float *x = floats(x_room, n, end, 20), m = 20, one;
    float *before = floats(w_room, n, end, 1);
    double sum = 0;
    if (n > 2)
        x[n / 2] = -INFINITY;
    if (n > 3)
        x[n - 1] = m;
    if (n > 4)
        x[1] = -300;
    memcpy(before, x, sizeof(float) * (size_t)n);
    float got = k->exp_sum(x, m, n);
    for (int i = 0; i < n; i++) {
        double want = exp((double)(before[i] - m));
        sum += want;
        near(k, "exp_sum", n, i, x[i], want, exp_tolerance * want + 1e-37);
        one = before[i];
        k->exp_sum(&one, m, 1);
        same(k, "exp_sum", n, i, x[i], one);
    }
    near(k, "exp_sum", n, -1, got, sum, exp_tolerance * sum + 1e-37);
}

static double swiglu_of(double g, double u, double limit, double s)
{
    double gate = g < limit ? g : limit, up = u < -limit ? -limit : u > limit ? limit : u;
    return gate / (1 + exp(-gate)) * up * s;
}

static void check_swiglu(const Kernels *k, int n, bool end)
{
    float *g = floats(x_room, n, end, 30), *u = floats(w_room, n, end, 15);
    float *h = floats(out_room, n, end, 1), s = 0.7f, one;
    if (n > 3) {
        g[0] = -1000;
        g[n - 1] = -85;
        g[n / 2] = 0;
    }
    for (int unlimited = 0; unlimited < 2; unlimited++) {
        float limit = unlimited ? INFINITY : 10;
        k->swiglu(h, g, u, limit, s, n);
        for (int i = 0; i < n; i++) {
            double want = swiglu_of((double)g[i], (double)u[i], (double)limit, (double)s);
            near(k, "swiglu", n, i, h[i], want, exp_tolerance * fabs(want) + 1e-36);
            k->swiglu(&one, &g[i], &u[i], limit, s, 1);
            same(k, "swiglu", n, i, h[i], one);
        }
    }
    float *other = end ? g : u; /* in place */
    k->swiglu(other, g, u, INFINITY, s, n);
    assert_memory_equal(other, h, sizeof(float) * (size_t)n);
}

static void check_axpy(const Kernels *k, int n, bool end)
{
    float *y = floats(out_room, n, end, 2), *x = floats(x_room, n, end, 3), a = -0.61f, one;
    float *before = floats(w_room, n, end, 1);
    memcpy(before, y, sizeof(float) * (size_t)n);
    k->axpy(y, a, x, n);
    for (int i = 0; i < n; i++) {
        double add = (double)a * (double)x[i], want = (double)before[i] + add;
        near(k, "axpy", n, i, y[i], want, 1.3e-7 * (fabs(want) + fabs(add)));
        one = before[i];
        k->axpy(&one, a, &x[i], 1);
        same(k, "axpy", n, i, y[i], one);
    }
}

static void sums_of_squares_match(void **state) { (void)state, for_lengths(check_sum_sq); }
static void scaling_matches(void **state) { (void)state, for_lengths(check_scale); }
static void exponentials_match(void **state) { (void)state, for_lengths(check_exp_sum); }
static void gated_units_match(void **state) { (void)state, for_lengths(check_swiglu); }
static void scaled_additions_match(void **state) { (void)state, for_lengths(check_axpy); }

/* ---- attention's weighted sum ----------------------------------------------------- */

static void check_mix(const Kernels *k, int n_h, int n_rows, int dim, bool end)
{
    int gap = end ? 3 : 0, ldo = dim + gap, ldp = n_rows + gap, ldr = dim + gap;
    int n_o = (n_h - 1) * ldo + dim;
    float *o = floats(out_room, n_o, end, 1);
    float *p = floats(w_room, (n_h - 1) * ldp + n_rows, end, 1);
    float *rows = floats(x_room, (n_rows - 1) * ldr + dim, end, 1);
    float *before = malloc(sizeof(float) * (size_t)n_o),
          *alone = malloc(sizeof(float) * (size_t)n_o);
    assert_true(before && alone);
    memcpy(before, o, sizeof(float) * (size_t)n_o);
    memcpy(alone, o, sizeof(float) * (size_t)n_o);
    k->mix(o, (size_t)ldo, p, (size_t)ldp, rows, (size_t)ldr, n_h, n_rows, dim);
    double error = 0, size = 0;
    for (int i = 0; i < n_o; i++) {
        int h = i / ldo, d = i % ldo;
        if (d >= dim) {
            same(k, "mix between rows", dim, i, o[i], before[i]);
            continue;
        }
        double want = (double)before[i];
        for (int r = 0; r < n_rows; r++)
            want += (double)p[h * ldp + r] * (double)rows[r * ldr + d];
        error += ((double)o[i] - want) * ((double)o[i] - want);
        size += 1 + n_rows / 9.0;
    }
    near(k, "mix", dim, 0, (float)(sqrt(error / size)), 0, tolerance);
    for (int h = 0; h < n_h; h++)
        k->mix(alone + h * ldo, (size_t)ldo, p + h * ldp, (size_t)ldp, rows, (size_t)ldr, 1, n_rows,
               dim);
    assert_memory_equal(alone, o, sizeof(float) * (size_t)n_o);
    free(before);
    free(alone);
}

static void weighted_sums_match_and_heads_do_not_depend_on_company(void **state)
{
    (void)state;
    static const int dims[] = { 1, 3, 7, 8, 15, 16, 17, 24, 31, 33, 63, 65, 67, 128, 512 };
    static const int n_rows[] = { 1, 2, 3, 4, 5, 8, 17 };
    for (const Kernels *const *k = tables(); *k; k++) {
        for (size_t d = 0; d < COUNT(dims); d++) {
            for (size_t r = 0; r < COUNT(n_rows); r++) {
                for (int n_h = 1; n_h <= 9; n_h += n_h < 5 ? 1 : 3)
                    check_mix(*k, n_h, n_rows[r], dims[d], (n_h ^ (int)r) & 1);
            }
            check_mix(*k, 4, 137, dims[d], true);
        }
    }
}

/* ---- stored rows -------------------------------------------------------------------- */

static void kv_rows_unpack_to_the_defined_bits(void **state)
{
    (void)state;
    static const int shapes[][2] = { { 512, 64 }, { 24, 8 }, { 64, 16 }, { 192, 64 }, { 100, 4 } };
    for (size_t s = 0; s < COUNT(shapes); s++) {
        for (int packed = 0; packed < 2; packed++) {
            KvRowFormat f = kvrow_format(shapes[s][0], shapes[s][1], packed);
            float *x = malloc(sizeof(float) * (size_t)f.dim);
            float *want = malloc(sizeof(float) * (size_t)f.dim);
            assert_true(x && want);
            for (int run = 0; run < 16; run++) {
                random_floats(x, (size_t)f.dim, run % 3 ? 5 : 1e-6f);
                void *row = place(w_room, (size_t)f.bytes, run & 1);
                float *got = place(out_room, sizeof(float) * (size_t)f.dim, run & 1);
                kvrow_pack(&f, row, x);
                kvrow_unpack(&f, want, row);
                for (const Kernels *const *k = tables(); *k; k++) {
                    memset(got, 0xff, sizeof(float) * (size_t)f.dim);
                    (*k)->kv_unpack(&f, got, row);
                    assert_memory_equal(got, want, sizeof(float) * (size_t)f.dim);
                }
            }
            free(x);
            free(want);
        }
    }
}

static void index_rows_unpack_to_the_defined_bits(void **state)
{
    (void)state;
    static const int dims[] = { 128, 32, 64, 96 };
    for (size_t s = 0; s < COUNT(dims); s++) {
        for (int packed = 0; packed < 2; packed++) {
            IdxRowFormat f = idxrow_format(dims[s], packed);
            float x[128], want[128];
            for (int run = 0; run < 16; run++) {
                random_floats(x, (size_t)f.dim, 4);
                void *row = place(w_room, (size_t)f.bytes, run & 1);
                float *got = place(out_room, sizeof(float) * (size_t)f.dim, run & 1);
                idxrow_pack(&f, row, x);
                idxrow_unpack(&f, want, row);
                for (const Kernels *const *k = tables(); *k; k++) {
                    memset(got, 0xff, sizeof(float) * (size_t)f.dim);
                    (*k)->idx_unpack(&f, got, row);
                    assert_memory_equal(got, want, sizeof(float) * (size_t)f.dim);
                }
            }
        }
    }
}

/* ---- the choice ------------------------------------------------------------------- */

static void unknown_and_missing_sets_are_named(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    assert_null(kernels_find("mmx", &err));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_non_null(strstr(err.msg, "mmx"));
    assert_null(kernels_find("", NULL));
    assert_non_null(kernels_find("scalar", &err));
}

static void the_default_is_the_first_of_the_listed_sets(void **state)
{
    (void)state;
    const char *const *names = kernels_list();
    assert_string_equal(kernels_find(NULL, NULL)->name, names[0]);
    for (; *names; names++)
        assert_string_equal(kernels_find(*names, NULL)->name, *names);
}

static void every_table_is_complete(void **state)
{
    (void)state;
    for (const Kernels *const *k = tables(); *k; k++) {
        for (size_t t = 0; t < COUNT(gemm_types); t++)
            assert_true((*k)->gemm[gemm_types[t]] != NULL);
        assert_true((*k)->act_pack && (*k)->mix && (*k)->sum_sq && (*k)->scale);
        assert_true((*k)->exp_sum && (*k)->swiglu && (*k)->axpy);
        assert_true((*k)->kv_unpack && (*k)->idx_unpack);
        assert_true(!(*k)->idx_query == !(*k)->idx_scores);
    }
}

#if defined(__x86_64__)
/* The table of a CPU which has all features but those; only looked at, so any CPU will do. */
static Kernels without(unsigned features)
{
    Kernels k;
    assert_true(kernels_make(&k, NULL, (HAS_DOTPROD - 1) & ~features, NULL));
    return k;
}

static void a_cpu_that_lacks_a_feature_loses_what_needs_it_and_no_more(void **state)
{
    (void)state;
    const Kernels all = without(0), avx2 = without(HAS_AVX512), no_vnni = without(HAS_VNNI);
    const Kernels no_vbmi = without(HAS_VBMI), no_gfni = without(HAS_GFNI);
    const Kernels old_avx2 = without(HAS_AVX512 | HAS_AVX_VNNI);

    assert_string_equal(all.name, "avx512");
    assert_string_equal(avx2.name, "avx2");
    assert_string_equal(no_vnni.name, "avx512");
    assert_memory_equal(no_vnni.gemm, all.gemm, sizeof all.gemm);
    assert_memory_equal(no_vnni.gemm_i8, avx2.gemm_i8, sizeof all.gemm_i8);
    assert_true(no_vnni.idx_scores == avx2.idx_scores && no_vnni.act_pack == all.act_pack);
    assert_string_equal(old_avx2.name, "avx2");
    assert_memory_equal(old_avx2.gemm, avx2.gemm, sizeof all.gemm);
    assert_memory_equal(old_avx2.gemm_i8, kernels_avx2_i8.gemm_i8, sizeof all.gemm_i8);
    for (int t = 0; t < QUANT_END; t++) {
        const bool iq2 = t == QUANT_IQ2_XXS;
        assert_true((no_vbmi.gemm[t] == all.gemm[t]) == !iq2);
        assert_true(no_gfni.gemm[t] == all.gemm[t]);
        assert_true(no_vbmi.gemm_i8[t] == (iq2 ? avx2 : all).gemm_i8[t]);
        assert_true(no_gfni.gemm_i8[t] == (iq2 ? avx2 : all).gemm_i8[t]);
        assert_true(!all.gemm_i8[t] || all.gemm_i8[t] != avx2.gemm_i8[t]);
        assert_true(all.gemm[t] ? all.gemm[t] != avx2.gemm[t] : !avx2.gemm[t]);
    }
}

/* Of the older ones no set can spare any. */
static void a_cpu_that_lacks_an_old_feature_is_plain(void **state)
{
    (void)state;
    static const unsigned old[] = { HAS_AVX2, HAS_FMA, HAS_F16C, HAS_BMI2 };
    Kernels k;
    ds4_err err = { 0 };
    for (size_t i = 0; i < COUNT(old); i++) {
        assert_string_equal(without(old[i]).name, "scalar");
        assert_memory_equal(without(old[i]).gemm, kernels_scalar.gemm, sizeof k.gemm);
    }
    assert_false(kernels_make(&k, "avx512", (HAS_DOTPROD - 1) & ~HAS_AVX512, &err));
    assert_string_equal(err.msg,
                        "instruction set avx512: this CPU does not have it; its best is avx2");
    assert_true(kernels_make(&k, "avx2", HAS_DOTPROD - 1, NULL));
    assert_memory_equal(k.gemm_i8, without(HAS_AVX512).gemm_i8, sizeof k.gemm_i8);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_missing_sets_are_named),
        cmocka_unit_test(the_default_is_the_first_of_the_listed_sets),
        cmocka_unit_test(every_table_is_complete),
#if defined(__x86_64__)
        cmocka_unit_test(a_cpu_that_lacks_a_feature_loses_what_needs_it_and_no_more),
        cmocka_unit_test(a_cpu_that_lacks_an_old_feature_is_plain),
#endif
        cmocka_unit_test(products_match_at_every_number_of_blocks),
        cmocka_unit_test(products_match_at_every_number_of_rows),
        cmocka_unit_test(products_match_at_model_sizes),
        cmocka_unit_test(a_single_one_reads_a_weight_exactly),
        cmocka_unit_test(sums_of_squares_match),
        cmocka_unit_test(scaling_matches),
        cmocka_unit_test(exponentials_match),
        cmocka_unit_test(gated_units_match),
        cmocka_unit_test(scaled_additions_match),
        cmocka_unit_test(weighted_sums_match_and_heads_do_not_depend_on_company),
        cmocka_unit_test(kv_rows_unpack_to_the_defined_bits),
        cmocka_unit_test(index_rows_unpack_to_the_defined_bits),
    };
    return cmocka_run_group_tests(tests, make_rooms, drop_rooms);
}
