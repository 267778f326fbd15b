/* What the CPU backend refuses and reports, and what it promises of memory. */
#include "../cpu_toy.h"

static void a_hashed_expert_that_does_not_exist_is_reported(void **state)
{
    static const int32_t bad[] = { EXPERTS, -1, INT32_MAX, INT32_MIN };
    Backend *be = open_toy(&toy, NULL, 1, false);
    Layer l = given.w.layer[0];
    (void)state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        const Span span = { .n = 1 };
        const int32_t token = 0, table[ACTIVE] = { 1, bad[i], 2 };
        const Step step = { .n_rows = 1, .n_spans = 1, .span = &span, .token = &token };
        int32_t ids[ACTIVE];
        float gates[ACTIVE];
        ds4_err err = { 0 };
        l.route_hash = buf(table);
        assert_true(be->op->begin(be, &step));
        be->op->route(be, &step, buf(ids), buf(gates), buf(given.in[0][0].x), &l);
        for (int k = 0; k < ACTIVE; k++)
            assert_in_range(ids[k], 0, EXPERTS - 1);
        assert_false(be->op->end(be, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        assert_non_null(strstr(err.msg, "expert"));
    }
    be->op->close(be);
}

static void a_step_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        int rows, outs;
        Span span;
    } cases[] = {
        { ROWS + 1, 1, { 0, 0, 1, 0 } },   { 1, ROWS + 1, { 0, 0, 1, 0 } },
        { 2, 1, { 0, TOKENS - 1, 2, 0 } }, { 1, 1, { 0, -1, 1, 0 } },
        { 2, 1, { 0, 0, 2, 1 } },
    };
    Backend *be = open_toy(&toy, NULL, 1, false);
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        const Step step = {
            .n_rows = cases[i].rows, .n_out = cases[i].outs, .n_spans = 1, .span = &cases[i].span
        };
        ds4_err err = { 0 };
        assert_false(be->op->begin(be, &step));
        assert_false(be->op->end(be, &err));
        assert_true(err.code != DS4_OK && err.msg[0]);
    }
    be->op->close(be);
}

static void weights_that_no_kernel_reads_are_refused(void **state)
{
    static const struct {
        int type, cols;
    } cases[] = {
        { QUANT_I32, 32 }, { -1, 32 }, { QUANT_END, 32 }, { 7, 32 }, { QUANT_Q8_0, 33 },
    };
    Backend *be = open_toy(&toy, NULL, 1, false);
    char data[256];
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        Weight w = { .type = cases[i].type, .rows = 1, .cols = cases[i].cols, .count = 1 };
        ds4_err err = { 0 };
        assert_false(be->op->bind(be, &w, data, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        assert_null(w.data.base);
    }
    be->op->close(be);
}

static void scratch_that_cannot_be_is_said_and_not_tried(void **state)
{
    const BackendOptions opt = { .isa = "scalar",
                                 .threads = 1,
                                 .max_rows = INT32_MAX,
                                 .max_out = INT32_MAX,
                                 .max_context = INT32_MAX };
    Shape s = toy;
    ds4_err err = { 0 };
    (void)state;

    s.idx_heads = s.idx_dim = INT32_MAX;
    assert_true(cpu_scratch(&s, &opt) == UINT64_MAX);
    assert_null(cpu_open(&s, &opt, &err));
    assert_int_equal(err.code, DS4_ENOMEM);
}

static void memory_is_zero_and_copies_may_overlap(void **state)
{
    Backend *be = open_toy(&toy, NULL, 1, false);
    const size_t n = 1 << 20;
    char got[8];
    (void)state;

    Buf b = be->op->alloc(be, n);
    assert_non_null(b.base);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(((char *)b.base)[i], 0);
    be->op->write(be, buf_at(b, 1), "abcdefgh", 8);
    be->op->copy(be, buf_at(b, 3), buf_at(b, 1), 8);
    be->op->read(be, got, buf_at(b, 3), 8);
    assert_memory_equal(got, "abcdefgh", 8);
    be->op->free(be, b);
    be->op->close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hashed_expert_that_does_not_exist_is_reported),
        cmocka_unit_test(a_step_that_does_not_fit_is_refused),
        cmocka_unit_test(weights_that_no_kernel_reads_are_refused),
        cmocka_unit_test(scratch_that_cannot_be_is_said_and_not_tried),
        cmocka_unit_test(memory_is_zero_and_copies_may_overlap),
    };
    return cmocka_run_group_tests(tests, cpu_toy_init, cpu_toy_done);
}
