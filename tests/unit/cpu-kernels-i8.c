/* cpu-kernels-i8.c - int8 activations and the products with them, in every
 * table that runs here.
 *
 * The scalar kernels are compared with sums in double over what quant.c and
 * the packed row decode to; every table must give scalar's bits. Memory
 * lies against pages that must not be touched, as in cpu-kernels.c. */
#include "../kernel_inputs.h"
#include "../../src/backend/cpu/acts.h"
#include <math.h>
#include <stdio.h>

static const int i8_types[] = { QUANT_Q8_0, QUANT_Q2_K, QUANT_Q4_K, QUANT_IQ2_XXS, QUANT_MXFP4 };
static const uint32_t poison = 0x7fc0dead;
/* Relative L2 error of the scalar kernel against double: roundings of F32 sums. */
static const double tolerance = 2e-6;
/* The same against F32 activations: what 8 bits for 32 values may cost. */
static const double allowed_loss = 6e-3;

static const Kernels *scalar(void) { return kernels_find("scalar", NULL); }

/* NaN is NaN, whatever its bits. */
static bool same_bits(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* ---- activations ---------------------------------------------------------------- */

static void check_packed(const char *set, const void *got, const void *want, int n)
{
    for (int i = 0; i < n; i++) {
        if (act_q(got)[i] != act_q(want)[i])
            fail_msg("%s n %d: code %d is %d, expected %d", set, n, i, act_q(got)[i],
                     act_q(want)[i]);
    }
    for (int b = 0; b < n / ACT_BLOCK; b++) {
        float a = act_scale(got, n)[b], w = act_scale(want, n)[b];
        if (!same_bits(a, w))
            fail_msg("%s n %d: scale %d is %.9g, expected %.9g", set, n, b, (double)a, (double)w);
    }
    for (int g = 0; g < n / ACT_GROUP; g++) {
        if (act_sum(got, n)[g] != act_sum(want, n)[g])
            fail_msg("%s n %d: sum %d is %d, expected %d", set, n, g, act_sum(got, n)[g],
                     act_sum(want, n)[g]);
    }
}

/* What acts.h says, in other words. */
static void define_packed(void *row, const float *x, int n)
{
    memset(row, 0, act_bytes(n));
    for (int i = 0; i < n; i++) {
        const float *block = x + i / ACT_BLOCK * ACT_BLOCK;
        float amax = 0, *scale = &act_scale(row, n)[i / ACT_BLOCK];
        int16_t *sum = &act_sum(row, n)[i / ACT_GROUP];
        bool finite = true;
        for (int j = 0; j < ACT_BLOCK; j++) {
            amax = fmaxf(amax, fabsf(block[j]));
            finite = finite && isfinite(block[j]);
        }
        *scale = !finite ? NAN : amax >= 0x1p-100f ? amax / 127 : 0;
        if (*scale > 0)
            act_q(row)[i] = (int8_t)nearbyint((double)(x[i] * (127 / amax)));
        *sum = (int16_t)(*sum + act_q(row)[i]);
    }
}

static void check_pack(const float *values, int n, bool end)
{
    _Alignas(ACT_ALIGN) static unsigned char want[1 << 14];
    float *x = place(x_room, sizeof(float) * (size_t)n, end);
    void *row = place(out_room, act_bytes(n), end);

    assert_true(act_bytes(n) <= sizeof want && act_bytes(n) % ACT_ALIGN == 0);
    memcpy(x, values, sizeof(float) * (size_t)n);
    define_packed(want, x, n);
    for (const Kernels *const *k = all_tables(); *k; k++) {
        memset(row, 0xa5, act_bytes(n));
        (*k)->act_pack(row, x, n);
        check_packed((*k)->name, row, want, n);
    }
}

static void rows_pack_to_the_defined_bits_at_every_length(void **state)
{
    (void)state;
    static float x[4096];
    for (int n = ACT_BLOCK; n <= 4096; n += n < 1024 ? ACT_BLOCK : 512) {
        for (int run = 0; run < 4; run++) {
            random_floats(x, (size_t)n, run % 2 ? 3 : 1e-3f);
            check_pack(x, n, run < 2);
        }
    }
}

/* Codes that are whole numbers or lie half way between two. */
static void halves_round_to_even(void **state)
{
    (void)state;
    float x[64];
    for (int run = 0; run < 64; run++) {
        for (int i = 0; i < 64; i++)
            x[i] = (float)((int)(random_u32() % 507) - 253) * 0.5f;
        x[run] = run % 2 ? 127 : -127;
        x[(run + 32) % 64] = 127;
        check_pack(x, 64, run & 1);
    }
}

static void blocks_of_zeros_of_traces_and_of_no_numbers_are_defined(void **state)
{
    (void)state;
    static const float odd[] = { 0,         -0.f,     NAN,    -NAN,      INFINITY,
                                 -INFINITY, 1e-45f,   1e-38f, 0x1p-100f, 0x0.ffffffp-100f,
                                 3e38f,     -3.4e38f, 1 };
    float x[128];
    for (size_t k = 0; k < COUNT(odd); k++) {
        for (int at = 0; at < 32; at += 5) {
            random_floats(x, 128, 1);
            memset(x + 32, 0, 32 * sizeof *x);
            x[32 + at] = odd[k];
            x[96 + at] = odd[k];
            check_pack(x, 128, at & 1);
        }
    }
}

/* ---- products -------------------------------------------------------------------- */

/* One call of a GemmI8Fn, its inputs and scalar's answer. */
typedef struct {
    int type, cols, n_w, n_x;
    size_t ldw, ldx, ldo;
    unsigned char *w, *x;
    float *out, *want; /* both of ldo */
} Case;

#define FAIL(c, set, what, ...) \
    fail_msg("%s %s cols %d n_w %d n_x %d: " what, set, quant_name((c)->type), (c)->cols, \
             (c)->n_w, (c)->n_x, __VA_ARGS__)

static size_t out_floats(const Case *c) { return (size_t)(c->n_x - 1) * c->ldo + (size_t)c->n_w; }
static const void *w_row(const Case *c, int j) { return c->w + (size_t)j * c->ldw; }
static void *x_row(const Case *c, int i) { return c->x + (size_t)i * c->ldx; }

static void case_inputs(Case *c, int gap, bool end)
{
    const QuantFormat *f = quant_format(c->type);
    size_t bytes = row_bytes(c->type, c->cols);
    float *x = malloc(sizeof(float) * (size_t)c->cols);

    c->ldw = bytes + (size_t)gap;
    c->ldx = act_bytes(c->cols) + (size_t)(gap ? ACT_ALIGN : 0);
    c->ldo = (size_t)(c->n_w + gap);
    c->w = place(w_room, (size_t)(c->n_w - 1) * c->ldw + bytes, end);
    c->x = place(x_room, (size_t)(c->n_x - 1) * c->ldx + act_bytes(c->cols), end);
    c->out = place(out_room, out_floats(c) * sizeof(float), end);
    c->want = malloc(out_floats(c) * sizeof(float));
    assert_true(x && c->want);
    for (int i = 0; i < c->n_x; i++) {
        random_floats(x, (size_t)c->cols, 1);
        scalar()->act_pack(x_row(c, i), x, c->cols);
    }
    for (int j = 0; j < c->n_w; j++) {
        for (int b = 0; b < c->cols / f->block_len; b++)
            random_block(c->type, c->w + (size_t)j * c->ldw + (size_t)b * (size_t)f->block_bytes);
    }
    free(x);
}

static void run_case(const Case *c, const Kernels *k, float *out)
{
    for (size_t i = 0; i < out_floats(c); i++)
        memcpy(&out[i], &poison, sizeof poison);
    k->gemm_i8[c->type](out, c->ldo, c->w, c->ldw, c->n_w, c->x, c->ldx, c->n_x, c->cols);
}

/* Scalar is near the sum of what weights and rows decode to. */
static void check_scalar(const Case *c)
{
    double error = 0, size = 0;
    float *w = malloc(sizeof(float) * (size_t)c->cols);

    assert_non_null(w);
    for (int j = 0; j < c->n_w; j++) {
        quant_format(c->type)->decode(w, w_row(c, j), (size_t)c->cols);
        for (int i = 0; i < c->n_x; i++) {
            const int8_t *q = act_q(x_row(c, i));
            const float *scale = act_scale(x_row(c, i), c->cols);
            double sum = 0;
            for (int k = 0; k < c->cols; k++) {
                double product = (double)w[k] * (double)scale[k / ACT_BLOCK] * q[k];
                sum += product;
                size += product * product;
            }
            double d = (double)c->want[(size_t)i * c->ldo + (size_t)j] - sum;
            error += d * d;
        }
    }
    free(w);
    if (!(sqrt(error) <= tolerance * sqrt(size)))
        FAIL(c, "scalar", "relative error %.3g", sqrt(error / size));
}

/* Scalar's bits, and nothing else written. */
static void check_table(const Case *c, const Kernels *k)
{
    run_case(c, k, c->out);
    for (size_t at = 0; at < out_floats(c); at++) {
        size_t i = at / c->ldo, j = at % c->ldo;
        if (!same_bits(c->out[at], c->want[at]))
            FAIL(c, k->name, "%zu, %zu is %.9g, expected %.9g", i, j, (double)c->out[at],
                 (double)c->want[at]);
        if (j >= (size_t)c->n_w && f32_bits(c->out[at]) != poison)
            FAIL(c, k->name, "wrote between rows at %zu", at);
    }
}

/* Each row of x alone, and each weight row alone, gives the same bits. */
static void check_company(const Case *c, const Kernels *k)
{
    float alone[64];
    GemmI8Fn gemm = k->gemm_i8[c->type];

    for (int i = 0; i < c->n_x; i++) {
        gemm(alone, 64, c->w, c->ldw, c->n_w, x_row(c, i), c->ldx, 1, c->cols);
        for (int j = 0; j < c->n_w; j++) {
            if (!same_bits(alone[j], c->want[(size_t)i * c->ldo + (size_t)j]))
                FAIL(c, k->name, "x row %d differs at %d when alone", i, j);
        }
    }
    for (int j = 0; j < c->n_w; j++) {
        gemm(alone, 1, w_row(c, j), c->ldw, 1, c->x, c->ldx, c->n_x, c->cols);
        for (int i = 0; i < c->n_x; i++) {
            if (!same_bits(alone[i], c->want[(size_t)i * c->ldo + (size_t)j]))
                FAIL(c, k->name, "weight row %d with x row %d differs when alone", j, i);
        }
    }
}

static void check_tables(Case *c)
{
    run_case(c, scalar(), c->want);
    for (const Kernels *const *k = all_tables(); *k; k++) {
        check_table(c, *k);
        check_company(c, *k);
    }
}

/* One shape, both placements, rows apart and rows side by side. */
static void check_shape(int type, int cols, int n_w, int n_x)
{
    for (int variant = 0; variant < 2; variant++) {
        Case c = { .type = type, .cols = cols, .n_w = n_w, .n_x = n_x };
        case_inputs(&c, variant ? 3 : 0, (variant ^ n_w ^ n_x) & 1);
        check_tables(&c);
        check_scalar(&c);
        free(c.want);
    }
}

static void products_match_at_every_number_of_blocks(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        int block = quant_format(i8_types[t])->block_len;
        for (int blocks = 1; blocks <= 9; blocks++) {
            check_shape(i8_types[t], blocks * block, 1, 1);
            check_shape(i8_types[t], blocks * block, 2, 1);
            check_shape(i8_types[t], blocks * block, 5, 3);
            check_shape(i8_types[t], blocks * block, 17, 14);
        }
    }
}

static void products_match_at_every_number_of_rows(void **state)
{
    (void)state;
    static const int n_x[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 25, 33, 64 };
    static const int n_w[] = { 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64 };
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        for (size_t a = 0; a < COUNT(n_w); a++) {
            for (size_t b = 0; b < COUNT(n_x); b++)
                check_shape(i8_types[t], 256, n_w[a], n_x[b]);
        }
    }
}

static void products_match_at_model_sizes(void **state)
{
    (void)state;
    static const int cols[] = { 512, 1024, 2048, 4096 };
    static const int rows[][2] = { { 1, 1 },  { 2, 1 },  { 7, 1 },  { 16, 1 },
                                   { 64, 1 }, { 1, 12 }, { 16, 5 }, { 32, 48 } };
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        for (size_t a = 0; a < COUNT(cols); a++) {
            for (size_t b = 0; b < COUNT(rows); b++)
                check_shape(i8_types[t], cols[a], rows[b][0], rows[b][1]);
        }
    }
}

/* ---- what could go wrong in integers ------------------------------------------------- */

/* All bytes of the weights but the scale at the front or the back of a block. */
static void fill_codes(const Case *c, uint8_t byte)
{
    static const int from[QUANT_END] = {
        [QUANT_Q8_0] = 2, [QUANT_Q4_K] = 4, [QUANT_IQ2_XXS] = 2, [QUANT_MXFP4] = 1
    };
    const int block = quant_format(c->type)->block_bytes;
    const int n = block - (c->type == QUANT_Q2_K ? 4 : from[c->type]);

    for (size_t at = 0; at < (size_t)c->n_w * c->ldw; at += (size_t)block)
        memset(c->w + at + from[c->type], byte, (size_t)n);
}

/* Weights and rows at their largest, of one sign and of both: a sum of 16 bits
 * would saturate, and -128 has no positive. */
static void no_sum_of_the_largest_codes_saturates(void **state)
{
    (void)state;
    static const uint8_t fills[] = { 0x00, 0x7f, 0x80, 0x81, 0xff, 0x77, 0xf7 };
    float x[512];
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        for (size_t k = 0; k < COUNT(fills); k++) {
            Case c = { .type = i8_types[t], .cols = 512, .n_w = 17, .n_x = 13 };
            case_inputs(&c, 0, k & 1);
            for (int i = 0; i < c.n_x; i++) {
                for (int n = 0; n < c.cols; n++)
                    x[n] = i == 0 || (i > 1 && (n * 7 + n / 32) % (i + 1)) ? 5 : -5;
                scalar()->act_pack(x_row(&c, i), x, c.cols);
            }
            fill_codes(&c, fills[k]);
            check_tables(&c);
            check_scalar(&c);
            free(c.want);
        }
    }
}

/* Any bits where a block has its halves or its exponent: subnormals, infinity, NaN. */
static void blocks_with_any_scale_give_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        int first, n;
    } scales[QUANT_END] = { [QUANT_Q8_0] = { 0, 2 },
                            [QUANT_Q2_K] = { 80, 4 },
                            [QUANT_Q4_K] = { 0, 4 },
                            [QUANT_IQ2_XXS] = { 0, 2 },
                            [QUANT_MXFP4] = { 0, 1 } };
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        const QuantFormat *f = quant_format(i8_types[t]);
        for (int run = 0; run < 64; run++) {
            Case c = { .type = i8_types[t], .cols = f->block_len, .n_w = 32, .n_x = 2 };
            case_inputs(&c, 0, run & 1);
            for (int j = 0; j < c.n_w; j++) {
                for (int i = 0; i < scales[i8_types[t]].n; i++)
                    c.w[(size_t)j * c.ldw + (size_t)(scales[i8_types[t]].first + i)] =
                        (unsigned char)random_u32();
            }
            c.w[scales[i8_types[t]].first] = (unsigned char)(run % 2 ? 0 : 255);
            check_tables(&c);
            free(c.want);
        }
    }
}

/* Every tuple of the grid, all of a row, with all signs one way: no fill has the largest ones. */
static void no_tuple_of_the_grid_saturates(void **state)
{
    (void)state;
    float x[512];
    for (int tuple = 0; tuple < 256; tuple++) {
        Case c = { .type = QUANT_IQ2_XXS, .cols = 512, .n_w = 9, .n_x = 5 };
        case_inputs(&c, 0, tuple & 1);
        for (int i = 0; i < c.n_x; i++) {
            for (int n = 0; n < c.cols; n++)
                x[n] = i % 2 ? -5 : 5;
            scalar()->act_pack(x_row(&c, i), x, c.cols);
        }
        fill_codes(&c, (uint8_t)tuple);
        for (size_t at = 0; at < (size_t)c.n_w * c.ldw; at += 66) {
            for (size_t g = 0; g < 8; g++)
                u32_put(c.w + at + 2 + 8 * g + 4, at % 4 ? 0x0fffffff : 0);
        }
        check_tables(&c);
        free(c.want);
    }
}

static void a_row_with_nan_gives_nan_and_others_do_not_notice(void **state)
{
    (void)state;
    float x[512];
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        Case c = { .type = i8_types[t], .cols = 512, .n_w = 19, .n_x = 15 };
        case_inputs(&c, 0, true);
        for (int i = 0; i < c.n_x; i += 4) {
            random_floats(x, 512, 1);
            x[i * 31] = i % 8 ? NAN : -INFINITY;
            scalar()->act_pack(x_row(&c, i), x, c.cols);
        }
        check_tables(&c);
        for (int i = 0; i < c.n_x; i++) {
            for (int j = 0; j < c.n_w; j++)
                assert_int_equal(isnan(c.want[i * c.n_w + j]) != 0, i % 4 == 0);
        }
        free(c.want);
    }
}

/* ---- what 8 bits cost ------------------------------------------------------------------ */

/* Nearly normal: activations have tails. */
static float random_normal(void)
{
    float sum = 0;
    for (int i = 0; i < 6; i++)
        sum += random_unit();
    return sum * 0.7071f;
}

static void the_loss_against_f32_activations_is_small(void **state)
{
    (void)state;
    enum { COLS = 4096, N_W = 32, N_X = 16 };
    static float x[N_X * COLS], exact[N_X * N_W];
    for (size_t t = 0; t < COUNT(i8_types); t++) {
        Case c = { .type = i8_types[t], .cols = COLS, .n_w = N_W, .n_x = N_X };
        double error = 0, size = 0;
        case_inputs(&c, 0, false);
        for (int i = 0; i < N_X * COLS; i++)
            x[i] = random_normal();
        for (int i = 0; i < N_X; i++)
            scalar()->act_pack(x_row(&c, i), x + i * COLS, COLS);
        run_case(&c, scalar(), c.want);
        scalar()->gemm[c.type](exact, N_W, c.w, c.ldw, N_W, x, COLS, N_X, COLS);
        for (int i = 0; i < N_X * N_W; i++) {
            double d = (double)c.want[i] - (double)exact[i];
            error += d * d;
            size += (double)exact[i] * (double)exact[i];
        }
        free(c.want);
        printf("%-8s int8 against F32 activations: relative L2 %.2e (at most %.0e)\n",
               quant_name(c.type), sqrt(error / size), allowed_loss);
        assert_true(sqrt(error) <= allowed_loss * sqrt(size));
    }
}

static void every_table_multiplies_int8_rows(void **state)
{
    (void)state;
    for (const Kernels *const *k = all_tables(); *k; k++) {
        assert_non_null((*k)->act_pack);
        for (size_t t = 0; t < COUNT(i8_types); t++)
            assert_non_null((*k)->gemm_i8[i8_types[t]]);
        assert_null((*k)->gemm_i8[QUANT_F32]);
        assert_null((*k)->gemm_i8[QUANT_F16]);
        assert_null((*k)->gemm_i8[QUANT_BF16]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_multiplies_int8_rows),
        cmocka_unit_test(rows_pack_to_the_defined_bits_at_every_length),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(blocks_of_zeros_of_traces_and_of_no_numbers_are_defined),
        cmocka_unit_test(products_match_at_every_number_of_blocks),
        cmocka_unit_test(products_match_at_every_number_of_rows),
        cmocka_unit_test(products_match_at_model_sizes),
        cmocka_unit_test(no_sum_of_the_largest_codes_saturates),
        cmocka_unit_test(no_tuple_of_the_grid_saturates),
        cmocka_unit_test(blocks_with_any_scale_give_the_same_bits),
        cmocka_unit_test(a_row_with_nan_gives_nan_and_others_do_not_notice),
        cmocka_unit_test(the_loss_against_f32_activations_is_small),
    };
    return cmocka_run_group_tests(tests, make_rooms, drop_rooms);
}
