/* The rows that select picks are the best ones, in order, as double precision finds them. */
#include "../../src/backend/cpu/cpu.h"
#include "../../src/base/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { IDX_HEADS = 4, IDX_DIM = 32, MANY = 3000, KEEP = 100, CONTEXT = 4 * MANY };

static Buf buf(const void *p) { return (Buf){ (void *)(uintptr_t)p, 0 }; }

/* Scores of one query, in double. */
static double reference_score(const float *q, const float *w, const float *row)
{
    double sum = 0;

    for (int h = 0; h < IDX_HEADS; h++) {
        double dot = 0;
        for (int d = 0; d < IDX_DIM; d++)
            dot += (double)q[h * IDX_DIM + d] * (double)row[d];
        sum += (double)w[h] * (dot > 0 ? dot : 0);
    }
    return sum / sqrt(IDX_HEADS * IDX_DIM);
}

typedef struct {
    Shape shape;
    Backend *be;
    Layer l;
    KvLayer kv;
    float rows[MANY][IDX_DIM], q[IDX_HEADS * IDX_DIM], w[IDX_HEADS], one;
    int32_t pick[KEEP];
} Choice;

/* The query and the heads' weights come from 1x1 inputs; position 4n - 1 turns the query. */
static void choose(Choice *c, int visible)
{
    ds4_err err;
    const Span span = { .pos = 4 * visible - 1, .n = 1 };
    const Step step = { .n_rows = 1, .n_spans = 1, .span = &span };

    assert_true(c->be->op->begin(c->be, &step));
    c->be->op->select(c->be, &step, buf(c->pick), &c->kv, buf(&c->one), buf(&c->one), &c->l);
    assert_true(c->be->op->end(c->be, &err));
}

static void choice_open(Choice *c, int threads)
{
    ds4_err err;
    uint64_t rng = 3;
    const BackendOptions opt = { .threads = threads, .max_rows = 1, .max_context = CONTEXT };

    c->shape = (Shape){ .n_layers = 1,
                        .dim = 1,
                        .q_rank = 1,
                        .idx_heads = IDX_HEADS,
                        .idx_dim = IDX_DIM,
                        .idx_topk = KEEP,
                        .ratio = { 4 } };
    c->be = cpu_open(&c->shape, &opt, &err);
    assert_non_null(c->be);
    for (int i = 0; i < MANY * IDX_DIM; i++)
        c->rows[i / IDX_DIM][i % IDX_DIM] = (float)(2 * rng_unit(&rng) - 1);
    for (int i = 0; i < IDX_HEADS * IDX_DIM; i++)
        c->q[i] = (float)(2 * rng_unit(&rng) - 1);
    for (int i = 0; i < IDX_HEADS; i++)
        c->w[i] = (float)(2 * rng_unit(&rng) - 1);
    c->one = 1;
    c->l.idx_q = (Weight){ buf(c->q), QUANT_F32, IDX_HEADS * IDX_DIM, 1, 1 };
    c->l.idx_w = (Weight){ buf(c->w), QUANT_F32, IDX_HEADS, 1, 1 };
    c->kv = (KvLayer){ .idx = buf(c->rows),
                       .ratio = 4,
                       .comp_rows = MANY,
                       .n_slots = 1,
                       .idx_row = idxrow_format(IDX_DIM, false) };
}

static bool picked(const Choice *c, int row)
{
    for (int i = 0; i < KEEP; i++) {
        if (c->pick[i] == row)
            return true;
    }
    return false;
}

static void check_choice(const Choice *c, int visible)
{
    float q[IDX_HEADS * IDX_DIM];
    double least = INFINITY, most = -INFINITY;

    memcpy(q, c->q, sizeof q);
    for (int h = 0; h < IDX_HEADS; h++)
        hadamard(q + h * IDX_DIM, IDX_DIM);
    for (int i = 0; i < KEEP; i++) {
        assert_true(c->pick[i] >= 0 && c->pick[i] < visible);
        assert_true(i == 0 || c->pick[i] > c->pick[i - 1]);
    }
    for (int i = 0; i < visible; i++) {
        double s = reference_score(q, c->w, c->rows[i]);
        if (picked(c, i))
            least = MIN(least, s);
        else
            most = MAX(most, s);
    }
    assert_true(least >= most - 1e-6);
}

static void the_best_rows_are_picked_in_order(void **state)
{
    static const int visible[] = { KEEP + 1, 127, 128, 129, 1000, 2999, MANY };
    static Choice c;
    (void)state;

    for (int threads = 1; threads <= 3; threads++) {
        choice_open(&c, threads);
        for (size_t i = 0; i < COUNT(visible); i++) {
            choose(&c, visible[i]);
            check_choice(&c, visible[i]);
        }
        c.be->op->close(c.be);
    }
}

static void all_visible_rows_are_picked_when_they_fit(void **state)
{
    static Choice c;
    (void)state;

    choice_open(&c, 1);
    for (int visible = 1; visible <= KEEP; visible += 33) {
        choose(&c, visible);
        for (int i = 0; i < KEEP; i++)
            assert_int_equal(c.pick[i], i < visible ? i : -1);
    }
    c.be->op->close(c.be);
}

/* Rows in equal threes, of which 100 picks must cut one apart: the first of it. */
static void ties_go_to_the_lower_row(void **state)
{
    static Choice c;
    (void)state;

    choice_open(&c, 2);
    for (int i = 0; i < MANY; i++)
        memcpy(c.rows[i], c.rows[i - i % 3], sizeof c.rows[i]);
    choose(&c, MANY);
    check_choice(&c, MANY);
    for (int i = 0; i < MANY; i++)
        assert_true(i % 3 == 0 || picked(&c, i - 1) || !picked(&c, i));
    for (int i = 1; i < MANY; i++)
        memcpy(c.rows[i], c.rows[0], sizeof c.rows[i]);
    choose(&c, MANY);
    for (int i = 0; i < KEEP; i++)
        assert_int_equal(c.pick[i], i);
    c.be->op->close(c.be);
}

/* Scores of odd rows are 0 times infinity. Of 150 rows all 75 others are picked, then the
 * first of these. */
static void a_score_that_is_no_number_comes_last(void **state)
{
    static Choice c;
    float q[IDX_DIM];
    (void)state;

    choice_open(&c, 2);
    memcpy(q, c.q, sizeof q);
    hadamard(q, IDX_DIM);
    c.w[0] = 0;
    for (int i = 1; i < MANY; i += 2)
        c.rows[i][5] = copysignf(INFINITY, q[5]);
    choose(&c, MANY);
    for (int i = 0; i < KEEP; i++)
        assert_true(c.pick[i] % 2 == 0 && (i == 0 || c.pick[i] > c.pick[i - 1]));
    choose(&c, 150);
    for (int i = 0; i < 150; i++)
        assert_int_equal(picked(&c, i), i % 2 == 0 || i < 50);
    c.be->op->close(c.be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_rows_are_picked_in_order),
        cmocka_unit_test(all_visible_rows_are_picked_when_they_fit),
        cmocka_unit_test(ties_go_to_the_lower_row),
        cmocka_unit_test(a_score_that_is_no_number_comes_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
