/* What a row of logits says: probabilities, ranks, and the distance to a reference. */
#include "../../src/base/rng.h"
#include "../../src/eval/measure.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { N = 50 };

static void random_logits(float *l, uint64_t seed)
{
    for (int i = 0; i < N; i++)
        l[i] = (float)(8 * rng_unit(&seed) - 4);
}

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.17g is not %.17g", a, b);
}

static void norm_makes_probabilities_of_logits_of_any_size(void **state)
{
    (void)state;
    float l[N];
    for (float shift = -1e4f; shift <= 1e4f; shift += 1e4f) {
        random_logits(l, 1);
        double sum = 0;
        for (int i = 0; i < N; i++)
            l[i] += shift;
        for (int i = 0; i < N; i++)
            sum += exp((double)l[i] - measure_norm(l, N));
        near(sum, 1, 1e-12);
    }
    l[3] = NAN;
    assert_true(isnan(measure_norm(l, N)));
}

static void ranks_count_what_is_likelier_and_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    const float l[] = { 1, 3, 3, 2 };
    assert_int_equal(measure_best(l, 4), 1);
    assert_int_equal(measure_rank(l, 4, 1), 0);
    assert_int_equal(measure_rank(l, 4, 2), 1);
    assert_int_equal(measure_rank(l, 4, 3), 2);
    assert_int_equal(measure_rank(l, 4, 0), 3);
}

/* By the definition, over all tokens. */
static double whole_kl(const float *q, const float *p)
{
    double kl = 0, nq = measure_norm(q, N), np = measure_norm(p, N);
    for (int i = 0; i < N; i++)
        kl += exp((double)q[i] - nq) * ((double)q[i] - nq - ((double)p[i] - np));
    return kl;
}

static size_t name_first(Likely *named, const float *q, int n)
{
    for (int i = 0; i < n; i++)
        named[i] = (Likely){ i, (double)q[i] - measure_norm(q, N) };
    return (size_t)n;
}

static void kl_over_all_tokens_is_the_definition(void **state)
{
    (void)state;
    float q[N], p[N];
    Likely named[N];
    random_logits(q, 2);
    random_logits(p, 3);
    near(measure_kl(p, N, named, name_first(named, q, N)), whole_kl(q, p), 1e-12);
    near(measure_kl(q, N, named, name_first(named, q, N)), 0, 1e-15);
}

static void kl_grows_with_the_tokens_that_are_named_up_to_that_of_all(void **state)
{
    (void)state;
    float q[N], p[N];
    Likely named[N];
    for (uint64_t seed = 10; seed < 60; seed++) {
        double before = 0;
        random_logits(q, seed);
        random_logits(p, seed + 1000);
        for (int n = 0; n <= N; n++) {
            double kl = measure_kl(p, N, named, name_first(named, q, n));
            assert_true(kl >= before - 1e-12);
            before = kl;
        }
        near(before, whole_kl(q, p), 1e-12);
        near(measure_kl(q, N, named, name_first(named, q, 7)), 0, 1e-12);
    }
}

/* Two tokens are named and 48 are one: three probabilities. */
static void kl_takes_all_other_tokens_as_one(void **state)
{
    (void)state;
    float p[N] = { 0 };
    const Likely named[] = { { 4, log(0.5) }, { 9, log(0.25) } };
    near(measure_kl(p, N, named, 2),
         0.5 * log(0.5 * N) + 0.25 * log(0.25 * N) + 0.25 * log(0.25 * N / (N - 2.0)), 1e-12);
}

/* Printed numbers may sum to a little more than 1, and the rest of a sure model is tiny. */
static void kl_stands_rounded_and_sure_references(void **state)
{
    (void)state;
    float p[N] = { 0 };
    const Likely over[] = { { 0, log(0.7) }, { 1, log(0.300001) } };
    p[0] = 40 + (float)log(7);
    p[1] = 40 + (float)log(3);
    double kl = measure_kl(p, N, over, 2);
    assert_true(kl >= 0 && kl < 1e-9);
    const Likely sure = { 2, 0 };
    near(measure_kl(p, N, &sure, 1), measure_norm(p, N), 1e-9);
    /* A rest of 1e-6 where the model leaves e^-40 / 10 * 48. */
    const Likely less[] = { { 0, log(0.7) }, { 1, log(0.299999) } };
    near(measure_kl(p, N, less, 2), 1e-6 * (40 + log(10.0) - log(48.0) + log(1e-6)), 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_makes_probabilities_of_logits_of_any_size),
        cmocka_unit_test(ranks_count_what_is_likelier_and_ties_go_to_the_lower_id),
        cmocka_unit_test(kl_over_all_tokens_is_the_definition),
        cmocka_unit_test(kl_grows_with_the_tokens_that_are_named_up_to_that_of_all),
        cmocka_unit_test(kl_takes_all_other_tokens_as_one),
        cmocka_unit_test(kl_stands_rounded_and_sure_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
