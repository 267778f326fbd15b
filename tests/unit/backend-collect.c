/* collect:cpu adds up what goes into the experts' matrices, compared with plain sums. */
#include "../../src/base/rng.h"
#include "../../src/ops/decorate.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { LAYERS = 2, DIM = 64, FF = 96, EXPERTS = 5, ACTIVE = 2, ROWS = 9, STEPS = 3 };

static const Shape shape = {
    .n_layers = LAYERS,
    .dim = DIM,
    .vocab = 8,
    .context = 64,
    .n_heads = 1,
    .head_dim = 64,
    .rope_dim = 8,
    .q_rank = 32,
    .o_rank = 32,
    .o_groups = 1,
    .window = 8,
    .idx_heads = 1,
    .idx_dim = 32,
    .idx_topk = 4,
    .n_experts = EXPERTS,
    .n_active = ACTIVE,
    .expert_dim = FF,
    .shared_dim = FF,
    .sinkhorn_iters = 1,
    .norm_eps = 1e-6f,
    .hc_eps = 1e-6f,
    .route_scale = 1,
    .swiglu_limit = { 10, 0.5f },
    .ratio = { 0, 0 },
};

typedef struct {
    float gate[EXPERTS][FF][DIM], up[EXPERTS][FF][DIM], down[EXPERTS][DIM][FF];
    float x[ROWS][DIM], y[ROWS][DIM], gates[ROWS][ACTIVE];
    int32_t ids[ROWS][ACTIVE];
    double sum_x[LAYERS][EXPERTS][DIM], sum_h[LAYERS][EXPERTS][FF];
    uint64_t count[LAYERS][EXPERTS];
} World;

static World w;
static uint64_t rng = 5;

static void randomize(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(rng_unit(&rng) - 0.5);
}

static Buf buf(const void *p) { return (Buf){ (void *)(uintptr_t)p, 0 }; }

static Weight bound(Backend *be, const void *p, int rows, int cols)
{
    ds4_err err;
    Weight m = { .type = QUANT_F32, .rows = rows, .cols = cols, .count = EXPERTS };
    if (!be->op->bind(be, &m, p, &err))
        fail_msg("%s", err.msg);
    return m;
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* h_j = gate * silu(min(g, limit)) * clamp(u, limit) */
static double hidden(int e, int j, const float *x, double gate, double limit)
{
    double g = fmin(dot(w.gate[e][j], x, DIM), limit);
    double u = fmax(-limit, fmin(dot(w.up[e][j], x, DIM), limit));
    return gate * g / (1 + exp(-g)) * u;
}

static void expect(int layer)
{
    for (int r = 0; r < ROWS; r++) {
        for (int k = 0; k < ACTIVE; k++) {
            int e = w.ids[r][k];
            w.count[layer][e]++;
            for (int i = 0; i < DIM; i++)
                w.sum_x[layer][e][i] += (double)w.x[r][i] * (double)w.x[r][i];
            for (int j = 0; j < FF; j++) {
                double h =
                    hidden(e, j, w.x[r], (double)w.gates[r][k], (double)shape.swiglu_limit[layer]);
                w.sum_h[layer][e][j] += h * h;
            }
        }
    }
}

static void step_through(Backend *be, const Layer *l, int n_rows)
{
    static const int32_t tokens[ROWS] = { 0 };
    const Span span = { .slot = 0, .pos = 0, .n = n_rows, .row = 0 };
    ds4_err err;
    for (int row = 0; row < ROWS; row += n_rows) {
        const int n = MIN(n_rows, ROWS - row);
        Span part = span;
        part.n = n;
        const Step step = { .n_rows = n, .n_spans = 1, .span = &part, .token = tokens };
        assert_true(be->op->begin(be, &step));
        be->op->experts(be, &step, buf(w.y[row]), buf(w.x[row]), buf(w.ids[row]), buf(w.gates[row]),
                        l);
        if (!be->op->end(be, &err))
            fail_msg("%s", err.msg);
    }
}

static void compare(const Backend *be)
{
    ds4_importance s;
    assert_true(collect_sums(be, &s));
    assert_int_equal(s.layers, LAYERS);
    assert_int_equal(s.experts, EXPERTS);
    assert_int_equal(s.dim, DIM);
    assert_int_equal(s.hidden, FF);
    assert_memory_equal(s.count, w.count, sizeof w.count);
    const double *x = &w.sum_x[0][0][0], *h = &w.sum_h[0][0][0];
    for (int i = 0; i < LAYERS * EXPERTS * DIM; i++)
        assert_true(fabs(s.x[i] - x[i]) <= 1e-12 * fabs(x[i]));
    for (int i = 0; i < LAYERS * EXPERTS * FF; i++)
        assert_true(fabs(s.h[i] - h[i]) <= 1e-4 * fabs(h[i]) + 1e-12);
}

/* Rows one by one, several, and all at once; the last expert is never chosen. */
static void sums_are_those_of_the_inputs(void **state)
{
    (void)state;
    static const int rows[STEPS] = { 1, 4, ROWS };
    ds4_err err;
    Backend *be = backend_open(
        "collect:cpu", &shape,
        &(BackendOptions){ .threads = 2, .max_rows = ROWS, .max_out = 1, .max_context = 64 }, &err);
    if (!be)
        fail_msg("%s", err.msg);
    randomize(&w.gate[0][0][0], EXPERTS * FF * DIM);
    randomize(&w.up[0][0][0], EXPERTS * FF * DIM);
    randomize(&w.down[0][0][0], EXPERTS * FF * DIM);
    Layer l = { .gate = bound(be, w.gate, FF, DIM),
                .up = bound(be, w.up, FF, DIM),
                .down = bound(be, w.down, DIM, FF) };
    for (int i = 0; i < STEPS; i++) {
        l.index = i % LAYERS;
        randomize(&w.x[0][0], ROWS * DIM);
        randomize(&w.gates[0][0], ROWS * ACTIVE);
        for (int r = 0; r < ROWS; r++) {
            w.ids[r][0] = (int32_t)(rng_next(&rng) % (EXPERTS - 1));
            w.ids[r][1] = (w.ids[r][0] + 1 + r % 2) % (EXPERTS - 1);
        }
        step_through(be, &l, rows[i]);
        expect(l.index);
    }
    assert_int_equal(w.count[0][EXPERTS - 1], 0);
    compare(be);
    backend_close(be);
}

static void devices_that_do_not_tell_are_refused(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    ds4_importance s;
    const BackendOptions opt = { .max_rows = 1, .max_out = 1, .max_context = 8 };
    assert_null(backend_open("collect:null", &shape, &opt, &err));
    assert_non_null(strstr(err.msg, "collect on the CPU"));
    Backend *be = backend_open("cpu", &shape, &opt, &err);
    assert_non_null(be);
    assert_false(collect_sums(be, &s));
    backend_close(be);
}

static void the_plan_counts_the_sums(void **state)
{
    (void)state;
    const BackendOptions opt = { .threads = 1, .max_rows = 2, .max_out = 1, .max_context = 8 };
    uint64_t more =
        backend_scratch("collect:cpu", &shape, &opt) - backend_scratch("cpu", &shape, &opt);
    assert_int_equal(more, collect_scratch(&shape, 2));
    assert_true(more > LAYERS * EXPERTS * (DIM + FF) * sizeof(double));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_inputs),
        cmocka_unit_test(devices_that_do_not_tell_are_refused),
        cmocka_unit_test(the_plan_counts_the_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
