/* The sampler's promises: ties, NaN, filters, log-probabilities, bias and mask,
 * and the same draw for the same seed. */
#include "../../src/model/sampler.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define N ((int)COUNT(five))
static const float five[] = { 1, 3, 2, 3, -1 };

static int32_t draw(const float *l, int n, ds4_sampling how, uint64_t seed)
{
    ds4_choice *scratch = malloc((size_t)n * sizeof *scratch);
    how.rng = &seed;
    int32_t t = sample(l, n, &how, scratch);
    free(scratch);
    return t;
}

static void ties_go_to_the_lower_id(void **state)
{
    ds4_choice top[5];

    (void)state;
    assert_int_equal(sample_greedy(five, N), 1);
    assert_int_equal(sample_top(five, N, top, 5), 5);
    const int32_t order[] = { 1, 3, 2, 0, 4 };
    for (int i = 0; i < 5; i++)
        assert_int_equal(top[i].token, order[i]);
}

static void nan_never_wins(void **state)
{
    const float l[] = { NAN, -5, NAN, -4, NAN };
    const float all[] = { NAN, NAN };
    ds4_choice top[5];

    (void)state;
    assert_int_equal(sample_greedy(l, 5), 3);
    assert_int_equal(sample_top(l, 5, top, 5), 2);
    assert_int_equal(top[0].token, 3);
    for (uint64_t seed = 0; seed < 50; seed++)
        assert_in_set(draw(l, 5, (ds4_sampling){ .temperature = 5, .top_k = 4 }, seed),
                      ((LargestIntegralType[]){ 1, 3 }), 2);
    assert_int_equal(sample_greedy(all, 2), 0);
    assert_int_equal(draw(all, 2, (ds4_sampling){ .temperature = 1 }, 1), 0);
    assert_int_equal(sample_logprob(l, 5, 0) == -INFINITY, 1);
}

static void infinities_do_no_harm(void **state)
{
    const float up[] = { 1, INFINITY, 2 }, down[] = { -INFINITY, -INFINITY, 1, -INFINITY };

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        assert_int_equal(draw(up, 3, (ds4_sampling){ .temperature = 1 }, seed), 1);
        assert_int_equal(draw(down, 4, (ds4_sampling){ .temperature = 1, .top_p = 0.9f }, seed), 2);
    }
    assert_float_equal(sample_logprob(down, 4, 2), 0, 1e-6);
}

static void log_probabilities_add_up_to_one(void **state)
{
    ds4_choice top[5];
    double sum = 0;

    (void)state;
    sample_top(five, N, top, 5);
    for (int i = 0; i < 5; i++) {
        sum += exp((double)top[i].logprob);
        assert_float_equal(top[i].logprob, sample_logprob(five, N, top[i].token), 1e-7);
    }
    assert_float_equal((float)sum, 1, 1e-6);
    assert_float_equal(top[0].logprob, 3 - logf(expf(1) + 2 * expf(3) + expf(2) + expf(-1)), 1e-6);
    assert_true(sample_logprob(five, N, 5) == -INFINITY);
    assert_true(sample_logprob(five, N, -1) == -INFINITY);
}

/* Relative frequencies of many draws. */
static void frequencies(double *out, const float *l, int n, ds4_sampling how)
{
    enum { DRAWS = 20000 };
    ds4_choice scratch[64];
    uint64_t seed = 7;

    how.rng = &seed;
    for (int i = 0; i < n; i++)
        out[i] = 0;
    for (int i = 0; i < DRAWS; i++)
        out[sample(l, n, &how, scratch)] += 1.0 / DRAWS;
}

static void draws_follow_the_distribution(void **state)
{
    double f[5], p[5], sum = 0;

    (void)state;
    frequencies(f, five, N, (ds4_sampling){ .temperature = 2 });
    for (int i = 0; i < N; i++)
        sum += p[i] = exp((double)five[i] / 2);
    for (int i = 0; i < N; i++)
        assert_float_equal((float)f[i], (float)(p[i] / sum), 0.015);
}

static void top_k_keeps_the_k_best(void **state)
{
    double f[5];

    (void)state;
    frequencies(f, five, N, (ds4_sampling){ .temperature = 10, .top_k = 2 });
    assert_float_equal((float)f[1], 0.5, 0.02);
    assert_float_equal((float)f[3], 0.5, 0.02);
    frequencies(f, five, N, (ds4_sampling){ .temperature = 10, .top_k = 1 });
    assert_true(f[1] > 0.9999);
    frequencies(f, five, N, (ds4_sampling){ .temperature = 10, .top_k = 100 });
    assert_true(f[4] > 0.1);
}

static void top_p_keeps_just_enough(void **state)
{
    /* probabilities 0.5, 0.3, 0.15, 0.05 */
    const float l[] = { logf(0.15f), logf(0.5f), logf(0.05f), logf(0.3f) };
    double f[4];

    (void)state;
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .top_p = 0.75f });
    assert_true(f[0] == 0 && f[2] == 0);
    assert_float_equal((float)f[1], 0.625, 0.02);
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .top_p = 0.85f });
    assert_true(f[0] > 0.1 && f[2] == 0);
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .top_p = 1e-9f });
    assert_true(f[1] > 0.9999);
    /* of the two best alone the better has 0.625 */
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .top_p = 0.6f, .top_k = 2 });
    assert_true(f[1] > 0.9999);
}

static void min_p_is_relative_to_the_best(void **state)
{
    const float l[] = { logf(0.15f), logf(0.5f), logf(0.05f), logf(0.3f) };
    double f[4];

    (void)state;
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .min_p = 0.5f });
    assert_true(f[0] == 0 && f[2] == 0 && f[3] > 0.3);
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .min_p = 0.2f });
    assert_true(f[0] > 0.1 && f[2] == 0);
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .min_p = 1 });
    assert_true(f[1] > 0.9999);
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .min_p = 3 });
    assert_true(f[1] > 0.9999); /* somebody must be drawn */
    frequencies(f, l, 4, (ds4_sampling){ .temperature = 1, .min_p = 0.5f, .top_p = 0.999f });
    assert_true(f[0] == 0 && f[2] == 0 && f[3] > 0.3);
}

static void a_filter_that_keeps_all_changes_no_draw_set(void **state)
{
    double a[5], b[5];

    (void)state;
    frequencies(a, five, N, (ds4_sampling){ .temperature = 1 });
    frequencies(b, five, N,
                (ds4_sampling){ .temperature = 1, .top_k = 5, .top_p = 0.999999f, .min_p = 1e-9f });
    for (int i = 0; i < N; i++)
        assert_float_equal((float)a[i], (float)b[i], 0.02);
}

/* These tokens were drawn once; any machine must draw them again. */
static void the_same_seed_draws_the_same_tokens(void **state)
{
    enum { VOCAB = 5000 };
    static const int32_t want[] = { 3835, 3210, 4099, 101, 4642, 1581 };
    static float l[VOCAB];
    static ds4_choice scratch[VOCAB];
    uint64_t seed = 42;

    (void)state;
    for (int i = 0; i < VOCAB; i++)
        l[i] = (float)(i * 7919 % 10000) / 700.0f;
    for (size_t i = 0; i < COUNT(want); i++) {
        const ds4_sampling how = { .temperature = 0.7f,
                                   .top_p = i % 2 ? 0.9f : 0,
                                   .top_k = i % 3 ? 40 : 0,
                                   .min_p = 0.02f,
                                   .rng = &seed };
        int32_t t = sample(l, VOCAB, &how, scratch);
        assert_int_equal(t, want[i]);
    }
}

static void temperature_zero_or_no_generator_is_greedy(void **state)
{
    ds4_choice scratch[5];
    uint64_t seed = 1;

    (void)state;
    assert_int_equal(sample(five, N, &(ds4_sampling){ .temperature = 9 }, scratch), 1);
    assert_int_equal(sample(five, N, &(ds4_sampling){ .rng = &seed }, scratch), 1);
    assert_int_equal(seed, 1);
}

/* ---- bias and mask ------------------------------------------------------------ */

/* With bias and mask, as ds4_sample() does it. */
static int32_t constrained(const float *l, int n, ds4_sampling how)
{
    ds4_choice *scratch = malloc((size_t)n * sizeof *scratch);
    float *out = malloc((size_t)n * sizeof *out);
    const float *adjusted = sample_adjust(l, n, &how, out);
    int32_t t = adjusted ? sample(adjusted, n, &how, scratch) : -1;
    free(out);
    free(scratch);
    return t;
}

static void only_tokens_of_the_mask_are_drawn(void **state)
{
    enum { VOCAB = 77 }; /* two words and a part */
    float l[VOCAB];
    uint64_t seed = 11;
    int seen[VOCAB] = { 0 };
    const uint32_t mask[3] = { 1u << 31, 1u << 0 | 1u << 5, 1u << 12 | 1u << 13 }; /* 77: outside */

    (void)state;
    for (int i = 0; i < VOCAB; i++)
        l[i] = (float)(i * 37 % VOCAB) / VOCAB;
    l[50] = 20; /* the best of all may not come */
    for (int i = 0; i < 2000; i++)
        seen[constrained(l, VOCAB,
                         (ds4_sampling){ .temperature = 2, .mask = mask, .rng = &seed })]++;
    for (int i = 0; i < VOCAB; i++)
        assert_int_equal(seen[i] > 100, i == 31 || i == 32 || i == 37 || i == 76);
    const int best = l[31] > l[32] ? 31 : 32; /* 37 and 76 are below them */
    assert_true(l[37] < l[best] && l[76] < l[best]);
    assert_int_equal(constrained(l, VOCAB, (ds4_sampling){ .mask = mask }), best);
}

static void bias_comes_before_mask_and_adds_up(void **state)
{
    const ds4_bias up[] = { { 0, 1.5f }, { 0, 1 }, { 4, 100 } }, ban[] = { { 1, -INFINITY } };
    const ds4_bias outside[] = { { -1, 50 }, { N, 50 }, { INT32_MAX, 50 }, { INT32_MIN, 50 } };
    const uint32_t not_4 = 0xf;

    (void)state;
    assert_int_equal(constrained(five, N, (ds4_sampling){ .bias = up, .n_bias = 1 }), 1);
    assert_int_equal(constrained(five, N, (ds4_sampling){ .bias = up, .n_bias = 2 }), 0);
    assert_int_equal(constrained(five, N, (ds4_sampling){ .bias = up, .n_bias = 3 }), 4);
    assert_int_equal(
        constrained(five, N, (ds4_sampling){ .mask = &not_4, .bias = up, .n_bias = 3 }), 0);
    assert_int_equal(constrained(five, N, (ds4_sampling){ .bias = ban, .n_bias = 1 }), 3);
    assert_int_equal(constrained(five, N, (ds4_sampling){ .bias = outside, .n_bias = 4 }), 1);
}

/* Filters see only what the mask leaves: the distribution is the model's, given
 * that the token is one of these. */
static void filters_apply_to_what_the_mask_leaves(void **state)
{
    const float l[] = { logf(0.15f), logf(0.5f), logf(0.05f), logf(0.3f) };
    const uint32_t mask = 1 << 0 | 1 << 2 | 1 << 3; /* 0.3, 0.1, 0.6 of what is left */
    float out[4];
    double f[4];
    const ds4_sampling all = { .temperature = 1, .mask = &mask },
                       half = { .temperature = 1, .top_p = 0.55f };

    (void)state;
    assert_ptr_equal(sample_adjust(l, 4, &all, out), out);
    frequencies(f, out, 4, all);
    assert_float_equal((float)f[3], 0.6, 0.02);
    assert_float_equal((float)f[2], 0.1, 0.02);
    frequencies(f, out, 4, half);
    assert_true(f[3] > 0.9999);
    frequencies(f, out, 4, (ds4_sampling){ .temperature = 1, .top_k = 2 });
    assert_true(f[2] == 0 && f[0] > 0.3);
    frequencies(f, out, 4, (ds4_sampling){ .temperature = 1, .min_p = 0.4f });
    assert_true(f[2] == 0 && f[0] > 0.3);
}

static void a_mask_that_leaves_nothing_gives_no_token(void **state)
{
    const float l[] = { 1, -INFINITY, NAN, 2 };
    const uint32_t none = 0, outside = ~0xfu, hopeless = 1 << 1 | 1 << 2, one = 1 << 0;
    const ds4_bias ban[] = { { 0, -INFINITY } };
    uint64_t seed = 3;

    (void)state;
    assert_int_equal(constrained(l, 4, (ds4_sampling){ .mask = &none }), -1);
    assert_int_equal(constrained(l, 4, (ds4_sampling){ .mask = &outside }), -1);
    assert_int_equal(constrained(l, 4, (ds4_sampling){ .mask = &hopeless }), -1);
    assert_int_equal(
        constrained(l, 4, (ds4_sampling){ .temperature = 1, .rng = &seed, .mask = &hopeless }), -1);
    assert_int_equal(constrained(l, 4, (ds4_sampling){ .mask = &one, .bias = ban, .n_bias = 1 }),
                     -1);
    assert_int_equal(constrained(l, 4, (ds4_sampling){ .mask = &one }), 0);
    assert_int_equal(seed, 3); /* nothing was drawn */
}

static void a_full_mask_draws_what_no_mask_draws(void **state)
{
    enum { VOCAB = 1000 };
    float l[VOCAB];
    uint32_t mask[32];
    uint64_t a = 9, b = 9;

    (void)state;
    memset(mask, 0xff, sizeof mask);
    for (int i = 0; i < VOCAB; i++)
        l[i] = (float)(i * 7919 % 1000) / 90.0f;
    assert_ptr_equal(sample_adjust(l, VOCAB, &(ds4_sampling){ 0 }, NULL), l);
    for (int i = 0; i < 200; i++) {
        const float top_p = i % 2 ? 0.9f : 1;
        int32_t t = constrained(l, VOCAB, (ds4_sampling){ 1, top_p, 0, 0, &a, mask, NULL, 0 });
        int32_t u = constrained(l, VOCAB, (ds4_sampling){ 1, top_p, 0, 0, &b, NULL, NULL, 0 });
        assert_int_equal(t, u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ties_go_to_the_lower_id),
        cmocka_unit_test(nan_never_wins),
        cmocka_unit_test(infinities_do_no_harm),
        cmocka_unit_test(log_probabilities_add_up_to_one),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(top_k_keeps_the_k_best),
        cmocka_unit_test(top_p_keeps_just_enough),
        cmocka_unit_test(min_p_is_relative_to_the_best),
        cmocka_unit_test(a_filter_that_keeps_all_changes_no_draw_set),
        cmocka_unit_test(the_same_seed_draws_the_same_tokens),
        cmocka_unit_test(temperature_zero_or_no_generator_is_greedy),
        cmocka_unit_test(only_tokens_of_the_mask_are_drawn),
        cmocka_unit_test(bias_comes_before_mask_and_adds_up),
        cmocka_unit_test(filters_apply_to_what_the_mask_leaves),
        cmocka_unit_test(a_mask_that_leaves_nothing_gives_no_token),
        cmocka_unit_test(a_full_mask_draws_what_no_mask_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
