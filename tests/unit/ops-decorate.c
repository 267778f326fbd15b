/* The decorating backends, over backends whose ops do next to nothing. */
#include "../../src/ops/decorate.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const Shape shape = {
    .n_layers = 1,
    .dim = 8,
    .vocab = 4,
    .n_heads = 1,
    .head_dim = 8,
    .rope_dim = 2,
    .q_rank = 8,
    .o_rank = 8,
    .o_groups = 1,
    .window = 4,
    .n_experts = 4,
    .n_active = 2,
    .expert_dim = 32,
    .shared_dim = 32,
};

static const Span span = { .slot = 0, .pos = 0, .n = 2, .row = 0 };
static const int32_t tokens[2] = { 1, 2 };
static const Step step = { .n_rows = 2, .n_spans = 1, .span = &span, .token = tokens };

/* A null backend whose embed writes `value` to every stream. */
static struct Ops filling_ops;
static float filling_value;

static void filling_embed(Backend *be, const Step *st, Buf streams, const Weight *table)
{
    (void)table;
    size_t n = (size_t)st->n_rows * N_STREAMS * (size_t)be->shape->dim;
    float *x = (float *)(void *)((char *)streams.base + streams.off);
    for (size_t i = 0; i < n; i++)
        x[i] = filling_value;
}

static float filling_rounding;

static bool filling_begin(Backend *be, const Step *st)
{
    (void)st;
    be->rounding = filling_rounding;
    return true;
}

static void embed_one(Backend *be, const Step *st, Buf streams, const Weight *table)
{
    const float value = filling_value;
    filling_value = 1;
    filling_embed(be, st, streams, table);
    filling_value = value;
}

enum { PICKS = 100 };
static const int32_t *given_picks;

static void select_given(Backend *be, const Step *st, Buf pick, KvLayer *kv, Buf qr, Buf x,
                         const Layer *l)
{
    (void)kv, (void)qr, (void)x, (void)l;
    be->op->write(be, pick, given_picks, sizeof(int32_t) * (size_t)st->n_rows * PICKS);
}

static void select_first(Backend *be, const Step *st, Buf pick, KvLayer *kv, Buf qr, Buf x,
                         const Layer *l)
{
    (void)kv, (void)qr, (void)x, (void)l;
    for (int i = 0; i < st->n_rows * PICKS; i++) {
        const int32_t v = i % PICKS;
        be->op->write(be, buf_at(pick, sizeof v * (size_t)i), &v, sizeof v);
    }
}

static Backend *filling_open(float value)
{
    Backend *be = null_open(&shape, NULL);
    filling_ops = *be->op;
    filling_ops.begin = filling_begin;
    filling_ops.embed = filling_embed;
    filling_value = value;
    be->op = &filling_ops;
    return be;
}

static size_t stream_bytes(void) { return sizeof(float) * 2 * N_STREAMS * 8; }

static void equal_backends_agree(void **state)
{
    (void)state;
    Backend *be = check_open(null_open(&shape, NULL), null_open(&shape, NULL), NULL);
    Buf streams = be->op->alloc(be, stream_bytes());

    assert_true(be->op->begin(be, &step));
    be->op->embed(be, &step, streams, &(Weight){ 0 });
    assert_true(be->op->end(be, NULL));
    assert_int_equal(check_report(be).compared, 1);
    assert_int_equal(check_report(be).failed, 0);
    be->op->free(be, streams);
    backend_close(be);
}

static void a_wrong_op_is_found_and_its_value_replaced(void **state)
{
    (void)state;
    Backend *be = check_open(filling_open(3), null_open(&shape, NULL), NULL);
    Buf streams = be->op->alloc(be, stream_bytes());
    float seen[2 * N_STREAMS * 8];

    be->op->embed(be, &step, streams, &(Weight){ 0 });
    assert_int_equal(check_report(be).failed, 1);
    assert_string_equal(check_report(be).op, "embed");
    be->op->read(be, seen, streams, sizeof seen);
    assert_true(seen[0] == 0); /* the reference's value */
    be->op->free(be, streams);
    backend_close(be);
}

static void not_a_number_never_passes(void **state)
{
    (void)state;
    Backend *be = check_open(filling_open(0.0f / 0.0f), null_open(&shape, NULL), NULL);
    Buf streams = be->op->alloc(be, stream_bytes());

    be->op->embed(be, &step, streams, &(Weight){ 0 });
    assert_int_equal(check_report(be).failed, 1);
    be->op->free(be, streams);
    backend_close(be);
}

static void a_device_is_judged_by_the_rounding_that_it_tells_of(void **state)
{
    (void)state;
    for (int rounds = 0; rounds < 2; rounds++) {
        Backend *tested = timed_open(filling_open(1.001f), NULL), *ref = null_open(&shape, NULL);
        static struct Ops ref_ops;
        ref_ops = *ref->op;
        ref_ops.embed = embed_one;
        ref->op = &ref_ops;
        filling_rounding = rounds ? 2e-3f : 0;
        Backend *be = check_open(tested, ref, NULL);
        Buf streams = be->op->alloc(be, stream_bytes());

        assert_true(be->op->begin(be, &step));
        be->op->embed(be, &step, streams, &(Weight){ 0 });
        assert_true(be->op->end(be, NULL));
        assert_true(check_report(be).worst > 0.0009);
        assert_int_equal(check_report(be).failed, rounds ? 0 : 1);
        be->op->free(be, streams);
        backend_close(be);
    }
    filling_rounding = 0;
}

/* Picks of two rows against 0 1 2 ... in both. */
static uint64_t failures_of_picks(const int32_t *picks)
{
    Shape many = shape;
    many.idx_topk = PICKS;
    Backend *tested = null_open(&many, NULL), *ref = null_open(&many, NULL);
    static struct Ops tested_ops, ref_ops;
    tested_ops = *tested->op;
    ref_ops = *ref->op;
    tested_ops.select = select_given;
    ref_ops.select = select_first;
    tested->op = &tested_ops;
    ref->op = &ref_ops;
    given_picks = picks;

    Backend *be = check_open(tested, ref, NULL);
    Buf pick = be->op->alloc(be, sizeof(int32_t) * 2 * PICKS);
    be->op->select(be, &step, pick, &(KvLayer){ 0 }, (Buf){ 0 }, (Buf){ 0 }, &(Layer){ 0 });
    const uint64_t failed = check_report(be).failed;
    be->op->free(be, pick);
    backend_close(be);
    return failed;
}

static void picks_are_compared_as_lists(void **state)
{
    int32_t picks[2 * PICKS];

    (void)state;
    for (int i = 0; i < 2 * PICKS; i++)
        picks[i] = i % PICKS;
    assert_int_equal(failures_of_picks(picks), 0);
    for (int i = 0; i < PICKS; i++)
        picks[i] = i + 1; /* one is another, and all have moved */
    assert_int_equal(failures_of_picks(picks), 0);
    for (int i = 0; i < PICKS; i++)
        picks[i] = i + 20; /* twenty of two hundred */
    assert_int_equal(failures_of_picks(picks), 1);
    for (int i = 0; i < PICKS; i++)
        picks[i] = PICKS - 1 - i; /* the right ones in the wrong order */
    assert_int_equal(failures_of_picks(picks), 1);
}

static void timing_counts_calls_distinct_experts_and_products(void **state)
{
    (void)state;
    Backend *be = timed_open(null_open(&shape, NULL), NULL);
    const Layer layer = {
        .gate = { .type = QUANT_Q8_0, .rows = 32, .cols = 32, .count = 4 },
        .up = { .type = QUANT_Q8_0, .rows = 32, .cols = 32, .count = 4 },
        .down = { .type = QUANT_Q8_0, .rows = 32, .cols = 32, .count = 4 },
    };
    const int32_t ids[4] = { 0, 2, 2, 3 };
    Buf id = be->op->alloc(be, sizeof ids);
    int n = 0;

    be->op->write(be, id, ids, sizeof ids);
    be->op->experts(be, &step, (Buf){ 0 }, (Buf){ 0 }, id, (Buf){ 0 }, &layer);
    const ds4_op_time *t = timed_table(be, &n);
    assert_int_equal(n, N_OPS);
    assert_string_equal(t[OP_experts].op, "experts");
    assert_int_equal(t[OP_experts].calls, 1);
    assert_int_equal(t[OP_experts].bytes, 3 * 3 * 32 * 34);
    assert_int_equal(t[OP_experts].macs, 4 * 3 * 32 * 32);
    timed_reset(be);
    assert_int_equal(timed_table(be, &n)[OP_experts].calls, 0);
    be->op->free(be, id);
    backend_close(be);
}

/* A step of a prompt has thousands of choices. */
static void an_expert_that_a_thousand_rows_chose_counts_once(void **state)
{
    enum { ROWS = 1000 };
    static const int32_t ids[ROWS][2]; /* all of them the first */
    const Step many = { .n_rows = ROWS };
    const Weight w = { .type = QUANT_Q8_0, .rows = 32, .cols = 32, .count = 4 };
    const Layer layer = { .gate = w, .up = w, .down = w };
    Backend *be = timed_open(null_open(&shape, NULL), NULL);
    Buf id = be->op->alloc(be, sizeof ids);
    int n = 0;

    (void)state;
    be->op->write(be, id, ids, sizeof ids);
    be->op->experts(be, &many, (Buf){ 0 }, (Buf){ 0 }, id, (Buf){ 0 }, &layer);
    const ds4_op_time *t = timed_table(be, &n);
    assert_int_equal(t[OP_experts].bytes, 3 * 32 * 34);
    assert_int_equal(t[OP_experts].macs, 2 * ROWS * 3 * 32 * 32);
    be->op->free(be, id);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_backends_agree),
        cmocka_unit_test(a_wrong_op_is_found_and_its_value_replaced),
        cmocka_unit_test(not_a_number_never_passes),
        cmocka_unit_test(a_device_is_judged_by_the_rounding_that_it_tells_of),
        cmocka_unit_test(picks_are_compared_as_lists),
        cmocka_unit_test(timing_counts_calls_distinct_experts_and_products),
        cmocka_unit_test(an_expert_that_a_thousand_rows_chose_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
