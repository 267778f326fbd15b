/* Hyper-connections mix as the definition says, after any number of rounds. */
#include "../cpu_toy.h"

static void normalize(double c[N_STREAMS][N_STREAMS], bool rows)
{
    for (int i = 0; i < N_STREAMS; i++) {
        double sum = 1e-6;
        for (int k = 0; k < N_STREAMS; k++)
            sum += rows ? c[i][k] : c[k][i];
        for (int k = 0; k < N_STREAMS; k++)
            *(rows ? &c[i][k] : &c[k][i]) /= sum;
    }
}

/* The matrix of these values after some rounds. */
static void sinkhorn(double c[N_STREAMS][N_STREAMS], const float *values, int rounds)
{
    for (int i = 0; i < N_STREAMS; i++) {
        double sum = 0;
        for (int k = 0; k < N_STREAMS; k++)
            sum += c[i][k] = exp((double)values[i * N_STREAMS + k]);
        for (int k = 0; k < N_STREAMS; k++)
            c[i][k] = c[i][k] / sum + 1e-6;
    }
    for (int i = 0; i < rounds; i++) {
        if (i > 0)
            normalize(c, true);
        normalize(c, false);
    }
}

/* Without a projection the base alone decides. */
static void sinkhorn_takes_the_rounds_of_the_shape(void **state)
{
    static const float none[N_MIX * N_STREAMS * DIM];
    HcWeights hc = given.w.layer[0].hc_attn;
    (void)state;

    hc.proj = (Weight){ buf(none), QUANT_F32, N_MIX, N_STREAMS * DIM, 1 };
    for (int rounds = 1; rounds <= 4; rounds++) {
        Shape s = toy;
        s.sinkhorn_iters = rounds;
        Backend *be = open_toy(&s, "scalar", 1, false);
        const Span span = { .n = 1 };
        const Step step = { .n_rows = 1, .n_spans = 1, .span = &span };
        float x[DIM], mix[MIX];
        double want[N_STREAMS][N_STREAMS];
        ds4_err err;
        assert_true(be->op->begin(be, &step));
        be->op->hc_pre(be, &step, buf(x), buf(mix), buf(given.in[0][0].streams), &hc, given.w.norm);
        assert_true(be->op->end(be, &err));
        sinkhorn(want, (const float *)hc.base.base + 2 * N_STREAMS, rounds);
        for (int i = 0; i < N_STREAMS * N_STREAMS; i++)
            assert_true(fabs((double)mix[N_STREAMS + i] - want[i / 4][i % 4]) < 1e-6);
        be->op->close(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sinkhorn_takes_the_rounds_of_the_shape),
    };
    return cmocka_run_group_tests(tests, cpu_toy_init, cpu_toy_done);
}
