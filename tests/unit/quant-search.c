/* quant-search.c - the encoders: every instruction set gives the same bytes, and those are near
 * to the best there are. */
#include "../../src/base/rng.h"
#include "../../src/quant/float.h"
#include "../../src/quant/fp8.h"
#include "../../src/quant/iq2xxs_grid.h"
#include "../../src/quant/lanes.h"
#include "../../src/quant/quant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { BLOCKS = 5, N = BLOCKS * QK };

static uint64_t rng = 3;

static double unit(void) { return rng_unit(&rng); }

/* A normal variate. */
static float bell(void)
{
    return (float)(sqrt(-2 * log(1e-300 + unit())) * cos(6.283185307179586 * unit()));
}

static void bells(float *x, int n, float spread)
{
    for (int i = 0; i < n; i++)
        x[i] = spread * bell();
}

/* ---- the same bytes ------------------------------------------------------------- */

typedef struct {
    BlockQ2_K q2[BLOCKS + 1];
    BlockQ4_K q4[BLOCKS + 1];
    BlockIQ2_XXS iq2[BLOCKS + 1];
} Encoded;

static void encode(Encoded *e, const Lanes *l, const float *x, size_t n, const float *importance)
{
    memset(e, 0xa5, sizeof *e);
    l->q2_k(e->q2, x, n, importance);
    l->q4_k(e->q4, x, n, importance);
    l->iq2_xxs(e->iq2, x, n, importance);
}

static void same(const char *what, const float *x, const float *importance)
{
    static Encoded want, is;
    const Lanes *plain = NULL;
    for (size_t i = 0; lanes_at(i); i++)
        plain = lanes_at(i);
    assert_ptr_equal(plain, &lanes_plain);
    for (size_t n = 1; n <= BLOCKS; n++) {
        encode(&want, plain, x, n, importance);
        for (size_t i = 0; lanes_at(i) != plain; i++) {
            encode(&is, lanes_at(i), x, n, importance);
            if (memcmp(&want, &is, sizeof is) != 0)
                fail_msg("%s: %s gives other bytes for %zu blocks", what, lanes_at(i)->name, n);
        }
    }
}

static void every_set_gives_the_same_bytes(void **state)
{
    (void)state;
    float x[N], v[N];
    for (int round = 0; round < 30; round++) {
        bells(x, N, 0.03f);
        for (int i = 0; i < N; i++)
            v[i] = (float)exp(4 * unit());
        same("bell-shaped", x, NULL);
        same("bell-shaped, with importance", x, v);
        for (int i = 0; i < N; i++)
            v[i] = i / 16 % 3 ? v[i] : 0;
        same("importance of 0", x, v);
        for (int i = 0; i < N; i++)
            x[i] = (float)((int)(unit() * 9) - 4); /* many ties */
        same("ties", x, NULL);
        for (int i = 0; i < N; i++)
            x[i] = unit() < 0.9 ? 0 : 1e-3f * bell();
        same("mostly zeros", x, NULL);
        bells(x, N, round % 2 ? 1e-38f : 1e4f);
        same("tiny and large", x, NULL);
        for (int i = 0; i < N; i++)
            x[i] = fabsf(bell());
        same("positive", x, NULL);
        for (int i = 0; i < N; i++)
            x[i] = 0.25f;
        same("alike", x, NULL);
    }
    memset(x, 0, sizeof x);
    same("zeros", x, NULL);
    same("zeros without importance", x, x);
}

static void a_row_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    static Encoded all, one;
    float x[N];
    bells(x, N, 0.03f);
    encode(&all, lanes_best(), x, BLOCKS, NULL);
    for (int b = 0; b < BLOCKS; b++) {
        encode(&one, lanes_best(), x + QK * b, 1, NULL);
        assert_memory_equal(&one.q2[0], &all.q2[b], sizeof one.q2[0]);
        assert_memory_equal(&one.q4[0], &all.q4[b], sizeof one.q4[0]);
        assert_memory_equal(&one.iq2[0], &all.iq2[b], sizeof one.iq2[0]);
    }
}

/* ---- against all there are -------------------------------------------------------- */

/* The weights of the searches: an error at a large value counts more. */
static void weights(double *w, const float *x, int n, double factor, const float *importance)
{
    double mean = 0;
    for (int i = 0; i < n; i++)
        mean += (double)x[i] * (double)x[i] / n;
    for (int i = 0; i < n; i++)
        w[i] = (importance ? (double)importance[i] : 1) *
               sqrt(factor * mean + (double)x[i] * (double)x[i]);
}

/* The least weighted error of n values with codes 0..top at any scale and min >= 0. */
static double best_affine(const float *x, const double *w, int n, int top)
{
    double high = 0, low = 0, best = INFINITY;
    for (int i = 0; i < n; i++) {
        high = fmax(high, (double)x[i]);
        low = fmin(low, (double)x[i]);
    }
    const double scale = (high - low) / top;
    for (double s = 0.5 * scale; s < 1.3 * scale; s += 0.004 * scale) {
        for (double m = 0; m < 1.3 * -low; m += 0.01 * s) {
            double e = 0;
            for (int i = 0; i < n && e < best; i++) {
                double c = fmin(fmax(rint(((double)x[i] + m) / s), 0), top);
                double d = s * c - m - (double)x[i];
                e += w[i] * d * d;
            }
            best = fmin(best, e);
        }
    }
    return best;
}

static double error_of(const float *y, const float *x, const double *w, int n)
{
    double e = 0;
    for (int i = 0; i < n; i++)
        e += w[i] * ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    return e;
}

/* All parts of a block are alike, so that the block's units fit each of them. */
static double excess_affine(int type, int n, int top, double factor)
{
    float x[QK], y[QK];
    double w[QK];
    unsigned char block[256];
    bells(x, n, 0.03f);
    for (int i = n; i < QK; i++)
        x[i] = x[i % n];
    weights(w, x, QK, factor, NULL);
    quant_format(type)->encode(block, x, QK, NULL);
    quant_format(type)->decode(y, block, QK);
    return error_of(y, x, w, n) / best_affine(x, w, n, top);
}

static void report(const char *what, double sum, double worst, int n, double mean_limit,
                   double worst_limit)
{
    print_message("%s: %.3f of the least error there is, at worst %.3f\n", what, sum / n, worst);
    assert_true(sum / n < mean_limit && worst < worst_limit);
}

static void q2_k_is_near_to_the_best_scale_and_min(void **state)
{
    (void)state;
    double sum = 0, worst = 0;
    for (int i = 0; i < 60; i++) {
        double e = excess_affine(QUANT_Q2_K, 16, 3, 1);
        sum += e;
        worst = fmax(worst, e);
    }
    report("Q2_K", sum, worst, 60, 1.05, 1.5);
}

static void q4_k_is_near_to_the_best_scale_and_min(void **state)
{
    (void)state;
    double sum = 0, worst = 0;
    for (int i = 0; i < 15; i++) {
        double e = excess_affine(QUANT_Q4_K, 32, 15, 2);
        sum += e;
        worst = fmax(worst, e);
    }
    report("Q4_K", sum, worst, 15, 1.1, 1.4);
}

/* The least error of 32 magnitudes at any scale, over all tuples of the grid. */
static double best_tuples(const float *x, const double *w)
{
    double best = INFINITY, top = 0;
    for (int i = 0; i < 32; i++)
        top = fmax(top, fabs((double)x[i]));
    for (double s = top / 90; s < top / 12; s *= 1.005) {
        double sum = 0;
        for (int k = 0; k < 4; k++) {
            double least = INFINITY;
            for (int g = 0; g < 256; g++) {
                double e = 0;
                for (int j = 0; j < 8; j++) {
                    double d = s * (double)(iq2xxs_grid[g] >> 8 * j & 255) - (double)x[8 * k + j];
                    e += w[8 * k + j] * d * d;
                }
                least = fmin(least, e);
            }
            sum += least;
        }
        best = fmin(best, sum);
    }
    return best;
}

/* Values above zero: signs cost nothing then. All groups of a block are alike. */
static void iq2_xxs_is_near_to_the_best_tuples_and_scale(void **state)
{
    (void)state;
    double sum = 0, worst = 0;
    for (int n = 0; n < 12; n++) {
        float x[QK], y[QK];
        double w[QK];
        BlockIQ2_XXS block;
        for (int i = 0; i < QK; i++)
            x[i] = i < 32 ? 0.03f * fabsf(bell()) : x[i % 32];
        weights(w, x, QK, 1, NULL);
        quant_format(QUANT_IQ2_XXS)->encode(&block, x, QK, NULL);
        quant_format(QUANT_IQ2_XXS)->decode(y, &block, QK);
        double e = error_of(y, x, w, 32) / best_tuples(x, w);
        sum += e;
        worst = fmax(worst, e);
    }
    report("IQ2_XXS", sum, worst, 12, 1.06, 1.3);
}

/* Of all scales that cut nothing off, the one taken loses least. */
static void mxfp4_takes_the_best_scale_that_cuts_nothing_off(void **state)
{
    (void)state;
    for (int n = 0; n < 200; n++) {
        float x[32], y[32];
        double w[32], best = INFINITY, top = 0;
        BlockMXFP4 block;
        bells(x, 32, 0.03f);
        for (int i = 0; i < 32; i++) {
            w[i] = 1;
            top = fmax(top, fabs((double)x[i]));
        }
        for (int e = -20; e < 10; e++) {
            if (6 * ldexp(1, e) < top)
                continue;
            for (int i = 0; i < 32; i++)
                y[i] = (float)ldexp((double)e2m1_decode(e2m1_encode(ldexpf(x[i], -e))), e);
            best = fmin(best, error_of(y, x, w, 32));
        }
        quant_format(QUANT_MXFP4)->encode(&block, x, 32, NULL);
        quant_format(QUANT_MXFP4)->decode(y, &block, 32);
        assert_true(error_of(y, x, w, 32) <= best * 1.000001);
    }
}

/* ---- how much is lost ------------------------------------------------------------------ */

enum { LONG = 256 * QK };

/* Errors over values, both squared and weighted. */
static double relative(int type, const float *x, const float *importance, bool searched)
{
    static float y[LONG];
    static unsigned char blocks[LONG * 2];
    double error = 0, size = 0, w[QK];
    const QuantFormat *f = quant_format(type);
    f->encode(blocks, x, LONG, importance);
    f->decode(y, blocks, LONG);
    for (int b = 0; b < LONG; b += QK) {
        weights(w, x + b, QK, type == QUANT_Q4_K ? 2 : 1, importance ? importance + b : NULL);
        for (int i = 0; i < QK; i++) {
            double v = searched ? w[i] : importance ? (double)importance[b + i] : 1;
            double d = (double)y[b + i] - (double)x[b + i];
            error += v * d * d;
            size += v * (double)x[b + i] * (double)x[b + i];
        }
    }
    return sqrt(error / size);
}

static void weighted_errors_of_bell_shaped_rows_are_bounded(void **state)
{
    (void)state;
    static const struct {
        int type;
        double bound, plain;
    } all[] = { { QUANT_Q2_K, 0.25, 0.27 },
                { QUANT_Q4_K, 0.067, 0.071 },
                { QUANT_IQ2_XXS, 0.34, 0.34 } };
    static float x[LONG], v[LONG];
    bells(x, LONG, 0.02f);
    for (int i = 0; i < LONG; i++)
        v[i] = (float)exp(2 * (unit() + unit() - 1));
    for (size_t k = 0; k < COUNT(all); k++) {
        double searched = relative(all[k].type, x, NULL, true),
               with = relative(all[k].type, x, v, false),
               plain = relative(all[k].type, x, NULL, false);
        print_message("%s: %.4f weighted as it searches, %.4f by importance, %.4f plain\n",
                      quant_name(all[k].type), searched, with, plain);
        assert_true(searched <= all[k].bound && with <= all[k].bound && plain <= all[k].plain);
    }
}

/* How far a value may come out, from the largest of its block. */
static void no_value_is_further_off_than_its_format_says(void **state)
{
    (void)state;
    static const struct {
        int type;
        double of_value, of_largest;
    } all[] = {
        { QUANT_F32, 0, 0 },
        { QUANT_F16, 0x1p-11, 0 },
        { QUANT_BF16, 0x1p-8, 0 },
        /* half a step of 1/127, and the half that the scale is stored as */
        { QUANT_Q8_0, 0x1p-11, 0.5 / 127 },
        /* steps of 2 of at most 6, under a scale up to twice too large */
        { QUANT_MXFP4, 0, 1 / 3.0 },
        { QUANT_Q4_K, 0, 0.25 },
        { QUANT_Q2_K, 0, 0.8 },
        { QUANT_IQ2_XXS, 0, 0.9 },
    };
    float x[QK], y[QK];
    unsigned char block[QK * 4];
    for (int n = 0; n < 300; n++) {
        bells(x, QK, n % 3 ? 1 : 0.01f);
        for (size_t k = 0; k < COUNT(all); k++) {
            const QuantFormat *f = quant_format(all[k].type);
            f->encode(block, x, QK, NULL);
            f->decode(y, block, QK);
            const int len = f->block_len;
            for (int i = 0; i < QK; i++) {
                double largest = 0;
                for (int j = i / len * len; j < i / len * len + len; j++)
                    largest = fmax(largest, fabs((double)x[j]));
                double most = all[k].of_value * fabs((double)x[i]) + all[k].of_largest * largest;
                double d = fabs((double)y[i] - (double)x[i]);
                if (d > most * 1.0001 + 0x1p-25) /* a half's last bit near 0 */
                    fail_msg("%s: %g became %g, the largest is %g", f->name, (double)x[i],
                             (double)y[i], largest);
            }
        }
    }
}

/* What is in a format already comes out bit by bit, where its encoder does not search. */
static void exact_formats_come_back_exactly(void **state)
{
    (void)state;
    static const int types[] = { QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_MXFP4 };
    float x[QK], y[QK];
    unsigned char block[QK * 4];
    for (int n = 0; n < 300; n++) {
        bells(x, QK, (float)ldexp(1, n % 16 - 8));
        for (size_t k = 0; k < COUNT(types); k++) {
            const QuantFormat *f = quant_format(types[k]);
            f->encode(block, x, QK, NULL);
            f->decode(x, block, QK);
            f->encode(block, x, QK, NULL);
            f->decode(y, block, QK);
            assert_memory_equal(x, y, sizeof x);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_gives_the_same_bytes),
        cmocka_unit_test(a_row_does_not_depend_on_its_neighbours),
        cmocka_unit_test(q2_k_is_near_to_the_best_scale_and_min),
        cmocka_unit_test(q4_k_is_near_to_the_best_scale_and_min),
        cmocka_unit_test(iq2_xxs_is_near_to_the_best_tuples_and_scale),
        cmocka_unit_test(mxfp4_takes_the_best_scale_that_cuts_nothing_off),
        cmocka_unit_test(weighted_errors_of_bell_shaped_rows_are_bounded),
        cmocka_unit_test(no_value_is_further_off_than_its_format_says),
        cmocka_unit_test(exact_formats_come_back_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
