/* Devices by name: which there are, where their memory is, and what is said
 * about a GPU that is not there. */
#include "../../src/ops/ops.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const Shape shape = {
    .n_layers = 1,
    .dim = 32,
    .vocab = 4,
    .context = 64,
    .n_heads = 1,
    .head_dim = 32,
    .rope_dim = 2,
    .q_rank = 32,
    .o_rank = 32,
    .o_groups = 1,
    .window = 4,
    .n_experts = 4,
    .n_active = 2,
    .expert_dim = 32,
    .shared_dim = 32,
};

static const BackendOptions options = {
    .isa = "scalar", .threads = 1, .max_rows = 4, .max_out = 1, .max_context = 16
};

static void wrappers_stand_before_any_device(void **state)
{
    static const char *const names[] = { "cpu", "null", "timed:cpu", "trace:timed:null",
                                         "check:cpu" };

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        ds4_err err = { 0 };
        uint64_t bytes = 1;
        bool mapped = false;
        Backend *be = backend_open(names[i], &shape, &options, &err);
        if (!be)
            fail_msg("%s: %s", names[i], err.msg);
        backend_close(be);
        assert_true(backend_memory(names[i], &bytes, &mapped, &err));
        assert_true(mapped);
        assert_int_equal(bytes, 0);
    }
}

static void a_name_that_is_none_is_refused_with_the_names_there_are(void **state)
{
    static const char *const names[] = { "",      "gpu",           "cuda:", "cuda:x", "cuda:1000",
                                         "cuda0", "timed:cuda:-1", "cpu:0", "check:" };

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        ds4_err err = { 0 };
        uint64_t bytes;
        bool mapped;
        assert_null(backend_open(names[i], &shape, &options, &err));
        assert_int_equal(err.code, DS4_EINVAL);
        assert_non_null(strstr(err.msg, "unknown device"));
        assert_non_null(strstr(err.msg, "cuda:N"));
        assert_false(backend_memory(names[i], &bytes, &mapped, NULL));
    }
}

/* Number 99 is nowhere, so this is the same with a GPU, without, and without CUDA. */
static void a_gpu_that_is_not_there_is_one_line(void **state)
{
    static const char *const names[] = { "cuda:99", "timed:cuda:99", "check:cuda:99" };

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        ds4_err err = { 0 }, same = { 0 };
        uint64_t bytes = 0;
        bool mapped = true;
        assert_false(backend_memory(names[i], &bytes, &mapped, &err));
        assert_false(mapped);
        assert_true(err.code == DS4_EINVAL || err.code == DS4_EDEVICE);
        assert_true(err.msg[0] && !strchr(err.msg, '\n'));
        assert_null(backend_open(names[i], &shape, &options, &same));
        assert_true(same.msg[0] && !strchr(same.msg, '\n'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrappers_stand_before_any_device),
        cmocka_unit_test(a_name_that_is_none_is_refused_with_the_names_there_are),
        cmocka_unit_test(a_gpu_that_is_not_there_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
