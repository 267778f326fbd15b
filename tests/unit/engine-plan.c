/* What a plan promises: sums that add up, a largest context that is the
 * largest, and settings that are refused by name. */
#include "../../src/engine/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const Shape flash = {
    .n_layers = 3,
    .dim = 4096,
    .vocab = 129280,
    .context = 1048576,
    .n_heads = 64,
    .head_dim = 512,
    .rope_dim = 64,
    .q_rank = 1024,
    .o_rank = 1024,
    .o_groups = 8,
    .window = 128,
    .idx_heads = 64,
    .idx_dim = 128,
    .idx_topk = 512,
    .n_experts = 256,
    .n_active = 6,
    .expert_dim = 2048,
    .shared_dim = 2048,
    .rounding = true,
    .ratio = { 0, 4, 128 },
};

static const ModelBytes bytes = { .weights = 5000000000u, .step = 1000, .vectors = 4096 };

static void plan(ds4_plan *p, ds4_options opt)
{
    Settings set;
    ds4_err err;

    opt.device = "cpu";
    if (!settings_make(&set, &opt, &flash, &err))
        fail_msg("%s", err.msg);
    engine_plan(p, &set, &flash, &bytes, 4000000000u);
}

static void parts_add_up(void **state)
{
    ds4_plan p;

    (void)state;
    plan(&p, (ds4_options){ .context = 32768, .sessions = 3, .max_rows = 64 });
    assert_int_equal(p.kv_session, kv_slot_bytes(&flash, 32768, 64));
    assert_int_equal(p.kv, 3 * p.kv_session);
    assert_int_equal(p.weights, 4000000000u); /* tensors share bytes of the file */
    assert_int_equal(p.total, p.weights + p.kv + p.marks + p.activations + p.scratch);
    assert_int_equal(p.required, p.total - p.weights); /* which are mapped */
    assert_true(p.activations > run_bytes(&flash, 64, 3));
    assert_true(p.marks >=
                3 * (MAX_MARKS * kv_mark_plan(&flash, 32768)) + kv_mark_plan(&flash, 32767));
    assert_int_equal(p.context, 32768);
    assert_int_equal(p.sessions, 3);
    assert_int_equal(p.max_rows, 64);
}

/* 0: the memory of a host, where weights are mapped. */
static void plan_beside(ds4_plan *p, uint64_t device_free)
{
    Settings set;
    ds4_err err;

    if (!settings_make(&set, &(ds4_options){ .device = "cpu", .context = 4096 }, &flash, &err))
        fail_msg("%s", err.msg);
    set.mapped = !device_free;
    set.device_free = device_free;
    engine_plan(p, &set, &flash, &bytes, 4000000000u);
}

static void a_device_with_its_own_memory_gets_a_copy_of_every_tensor(void **state)
{
    ds4_plan host, gpu, full;

    (void)state;
    plan_beside(&host, 0);
    plan_beside(&gpu, 40000000000u);
    assert_true(gpu.fits && !gpu.mapped && host.mapped);
    assert_int_equal(gpu.weights, bytes.weights); /* what is shared in the file is not here */
    assert_int_equal(gpu.available, 40000000000u);
    assert_int_equal(gpu.total, host.total + 1000000000u);
    /* logits, tokens and marks stay behind */
    assert_true(gpu.required > gpu.weights + gpu.kv + run_bytes(&flash, 512, 1));
    assert_true(gpu.required < gpu.total);
    assert_true(gpu.max_context >= 4096);

    plan_beside(&full, gpu.required - 1);
    assert_false(full.fits);
    assert_true(full.max_context < 4096 && full.max_context > 0);
    assert_int_equal(full.required, gpu.required);
    plan_beside(&full, 4500000000u);
    assert_int_equal(full.max_context, 0);
}

static void defaults_are_filled_in(void **state)
{
    ds4_plan p;
    Settings set;
    Shape small = flash;

    (void)state;
    plan(&p, (ds4_options){ 0 });
    assert_int_equal(p.context, 8192);
    assert_int_equal(p.sessions, 1);
    assert_int_equal(p.max_rows, 512);
    small.context = 100;
    assert_true(settings_make(&set, &(ds4_options){ .sessions = 2 }, &small, NULL));
    assert_int_equal(set.context, 100);
    assert_int_equal(set.max_rows, 100);
    assert_int_equal(set.max_logits, 2);
}

/* On a host of so much memory. */
static void plan_within(ds4_plan *p, ds4_options opt, uint64_t host_free)
{
    Settings set;
    ds4_err err;

    opt.device = "cpu";
    if (!settings_make(&set, &opt, &flash, &err))
        fail_msg("%s", err.msg);
    set.host_free = host_free;
    engine_plan(p, &set, &flash, &bytes, 4000000000u);
}

static void the_largest_settings_are_the_largest(void **state)
{
    static const ds4_options asked[] = { { .context = 131072, .sessions = 8 },
                                         { .context = 8192, .sessions = 2000 },
                                         { .context = 1048576, .sessions = 1 },
                                         { .context = 700, .sessions = 3, .max_rows = 16 } };
    const uint64_t free_bytes = 1500000000;

    (void)state;
    for (size_t i = 0; i < COUNT(asked); i++) {
        ds4_plan p, at;
        ds4_options opt = asked[i];
        plan_within(&p, opt, free_bytes);
        if (p.max_context) {
            opt.context = p.max_context;
            plan_within(&at, opt, free_bytes);
            assert_true(at.fits);
            opt.context++;
            if (opt.context <= flash.context) {
                plan_within(&at, opt, free_bytes);
                assert_false(at.fits);
            }
        }
        opt = asked[i];
        opt.sessions = p.max_sessions;
        if (p.max_sessions) {
            plan_within(&at, opt, free_bytes);
            assert_true(at.fits);
        }
        if (++opt.sessions <= 4096) {
            plan_within(&at, opt, free_bytes);
            assert_false(at.fits);
        }
    }
}

static void what_the_program_takes_beside_is_left_free(void **state)
{
    ds4_options opt = { .context = 32768, .sessions = 2 };
    ds4_plan p, with;

    (void)state;
    plan_within(&p, opt, 1000000000);
    opt.beside = 700000000;
    plan_within(&with, opt, 1000000000);
    assert_int_equal(with.beside, 700000000);
    assert_int_equal(with.total, p.total + 700000000);
    assert_true(p.fits && !with.fits);
    assert_true(with.max_context < p.max_context);
}

/* A GPU takes KV and weights; marks and what is beside them stay in the host's memory. */
static void a_host_that_is_short_refuses_what_its_gpu_could_hold(void **state)
{
    Settings set;
    ds4_plan p;

    (void)state;
    assert_true(
        settings_make(&set, &(ds4_options){ .sessions = 4, .beside = 600000000 }, &flash, NULL));
    set.mapped = false;
    set.device = "cpu";
    set.device_free = 40000000000u;
    set.host_free = 700000000;
    engine_plan(&p, &set, &flash, &bytes, 4000000000u);
    assert_true(p.fits);
    assert_true(p.required < p.total - p.beside - p.marks);
    set.host_free = 600000000;
    engine_plan(&p, &set, &flash, &bytes, 4000000000u);
    assert_false(p.fits);
    assert_int_equal(p.available, 600000000);
    assert_true(p.required > p.beside + p.marks);
    assert_int_equal(p.max_sessions, 0);
}

static void a_refusal_has_the_numbers_and_what_would_fit(void **state)
{
    ds4_plan p;
    ds4_err err;
    char want[100];

    (void)state;
    plan_within(&p, (ds4_options){ .context = 131072, .sessions = 64 }, 1500000000);
    assert_false(ds4_plan_check(&p, &err));
    assert_int_equal(err.code, DS4_ENOMEM);
    snprintf(want, sizeof want, "1.50 are free; 64 sessions of %d tokens would fit, or %d sessions",
             p.max_context, p.max_sessions);
    if (!strstr(err.msg, "64 sessions of 131072 tokens: ") || !strstr(err.msg, want))
        fail_msg("'%s' does not say '%s'", err.msg, want);
    plan_within(&p, (ds4_options){ .context = 131072, .sessions = 2 }, 1000000);
    assert_false(ds4_plan_check(&p, &err));
    assert_non_null(strstr(err.msg, "nothing would fit"));
    plan_within(&p, (ds4_options){ .context = 1, .sessions = 1 }, 0); /* not known */
    assert_true(ds4_plan_check(&p, &err));
}

static void a_context_of_a_few_tokens_fits(void **state)
{
    ds4_plan p;

    (void)state;
    plan(&p, (ds4_options){ .context = 16 });
    assert_true(p.fits);
    assert_true(p.max_context >= 16);
}

static void impossible_settings_are_named(void **state)
{
    static const struct {
        ds4_options opt;
        const char *says;
    } bad[] = {
        { { .context = 1048577 }, "context is 1048577, expected 1 to 1048576" },
        { { .context = -1 }, "context is -1" },
        { { .sessions = -1 }, "sessions is -1" },
        { { .sessions = 5000 }, "sessions is 5000, expected 1 to 4096" },
        { { .max_rows = -3 }, "max_rows is -3" },
        { { .max_rows = 65536 }, "max_rows is 65536, expected 0 to 65535" },
        { { .max_rows = 8, .max_logits = 9 }, "max_logits is 9, expected 1 to 8" },
        { { .threads = -1 }, "threads is -1" },
    };
    Settings set;
    ds4_err err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_false(settings_make(&set, &bad[i].opt, &flash, &err));
        assert_int_equal(err.code, DS4_EINVAL);
        if (!strstr(err.msg, bad[i].says))
            fail_msg("'%s' does not say '%s'", err.msg, bad[i].says);
    }
}

static void memory_is_known(void **state)
{
    const uint64_t m = memory_available();

    (void)state;
    assert_true(m > 1 << 20);
    assert_true(m <= (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
}

static void files_that_are_none_are_refused(void **state)
{
    ds4_err err;
    ds4_plan p;

    (void)state;
    assert_null(ds4_engine_open(&(ds4_options){ 0 }, &err));
    assert_string_equal(err.msg, "no model is named");
    assert_null(ds4_engine_open(&(ds4_options){ .model = "tests/data/none.gguf" }, &err));
    assert_int_equal(err.code, DS4_EIO);
    assert_null(ds4_engine_open(&(ds4_options){ .model = "tests/data/golden.txt" }, &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_non_null(strstr(err.msg, "golden.txt"));
    assert_false(ds4_plan_make(&p, &(ds4_options){ .model = "tests/data/golden.txt" }, &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_non_null(strstr(err.msg, "golden.txt"));
    ds4_engine_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(a_device_with_its_own_memory_gets_a_copy_of_every_tensor),
        cmocka_unit_test(defaults_are_filled_in),
        cmocka_unit_test(the_largest_settings_are_the_largest),
        cmocka_unit_test(what_the_program_takes_beside_is_left_free),
        cmocka_unit_test(a_host_that_is_short_refuses_what_its_gpu_could_hold),
        cmocka_unit_test(a_refusal_has_the_numbers_and_what_would_fit),
        cmocka_unit_test(a_context_of_a_few_tokens_fits),
        cmocka_unit_test(impossible_settings_are_named),
        cmocka_unit_test(memory_is_known),
        cmocka_unit_test(files_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
