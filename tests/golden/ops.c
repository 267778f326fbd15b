/* ops.c - the ops of the CPU backend against tests/data/golden.txt.
 *
 * The file's vectors are of single steps (a rotation, a pooled row before its
 * norm); weights are chosen so that the rest of an op passes them through. */
#include "../../src/ops/ops.h"
#include "../../src/ops/rotary.h"
#include "../../src/quant/kvrow.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static char golden[64 * 1024];

static int read_golden(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/golden.txt", "rb");
    assert_non_null(f);
    size_t n = fread(golden, 1, sizeof golden - 1, f);
    assert_true(n > 0 && n < sizeof golden - 1);
    fclose(f);
    return 0;
}

/* What follows the label, which stands at the start of a line. */
static char *after(const char *label)
{
    char key[80];
    snprintf(key, sizeof key, "\n%s", label);
    char *p = strstr(golden, key);
    if (!p)
        fail_msg("no line starts with %s", label);
    return p + strlen(key);
}

static void numbers(char *p, float *v, int n)
{
    for (int i = 0; i < n; i++) {
        char *end;
        p += strspn(p, " ,[");
        v[i] = strtof(p, &end);
        assert_true(end > p);
        p = end;
    }
}

/* The n values on the line after the label's. */
static void values_of(const char *label, float *v, int n)
{
    char *line = strchr(after(label), '\n');
    assert_non_null(line);
    numbers(line + 1, v, n);
}

/* Within 1e-5 of the largest value expected. */
static void assert_near(const float *got, const float *want, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(want[i]));
    for (int i = 0; i < n; i++) {
        if (!(fabsf(got[i] - want[i]) <= 1e-5f * most))
            fail_msg("value %d is %.9g, expected %.9g", i, (double)got[i], (double)want[i]);
    }
}

/* ---- one step of a toy ------------------------------------------------------------------- */

static Backend *open_toy(const Shape *s, int rows)
{
    ds4_err err;
    const BackendOptions opt = {
        .isa = "scalar", .threads = 2, .max_rows = rows, .max_out = 1, .max_context = 1 << 20
    };
    Backend *be = backend_open("cpu", s, &opt, &err);
    if (!be)
        fail_msg("%s", err.msg);
    return be;
}

typedef struct {
    Span span;
    Step step;
} One;

static void begin(Backend *be, One *o, int pos, int n)
{
    o->span = (Span){ .pos = pos, .n = n };
    o->step = (Step){ .n_rows = n, .n_spans = 1, .span = &o->span };
    assert_true(be->op->begin(be, &o->step));
}

static void end(Backend *be)
{
    ds4_err err;
    if (!be->op->end(be, &err))
        fail_msg("%s", err.msg);
}

static Buf buf(const void *p) { return (Buf){ (void *)(uintptr_t)p, 0 }; }

static Weight matrix(const float *p, int rows, int cols)
{
    return (Weight){ .data = buf(p), .type = QUANT_F32, .rows = rows, .cols = cols, .count = 1 };
}

static float rms_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)sqrt(sum / n);
}

/* ---- [rope] ---------------------------------------------------------------------------------- */

enum { ROPE = 64 };

static const Shape rope_shape = {
    .n_layers = 2,
    .dim = 1,
    .n_heads = 1,
    .head_dim = ROPE,
    .rope_dim = ROPE,
    .q_rank = 1,
    .window = 1,
    .idx_topk = 1,
    .norm_eps = 0,
    .rope_theta = 10000,
    .comp_theta = 160000,
    .yarn_factor = 16,
    .yarn_beta_fast = 32,
    .yarn_beta_slow = 1,
    .yarn_context = 65536,
    .ratio = { 0, 4 },
};

/* out = in rotated at pos with a layer's table, as a window row and as a query */
static void rotate(Backend *be, int layer, int pos, const float *in, float *out)
{
    const float one = 1, size = rms_of(in, ROPE);
    float norm[ROPE], q[ROPE], qr, row[ROPE];
    Layer l = { .index = layer, .kv_norm = buf(norm), .q_norm = buf(&one) };
    KvLayer kv = { .ring = buf(row),
                   .ring_rows = 1,
                   .n_slots = 1,
                   .ratio = rope_shape.ratio[layer],
                   .row = kvrow_format(ROPE, ROPE, false) };
    One o;

    for (int i = 0; i < ROPE; i++)
        norm[i] = size;
    l.kv = l.q_b = matrix(in, ROPE, 1);
    l.q_a = matrix(&one, 1, 1);
    begin(be, &o, pos, 1);
    be->op->kv_row(be, &o.step, &kv, buf(&one), &l);
    be->op->query(be, &o.step, buf(q), buf(&qr), buf(&one), &l);
    end(be);
    memcpy(out, row, sizeof row);
    for (int i = 0; i < ROPE; i++)
        q[i] *= size;
    assert_near(q, row, ROPE);
}

static void frequencies_are_those_of_the_file(void **state)
{
    static const char *const labels[] = { "inv_freq_plain_theta10000",
                                          "inv_freq_compress_theta160000_yarn16" };
    Backend *be = open_toy(&rope_shape, 1);
    (void)state;

    for (int layer = 0; layer < 2; layer++) {
        float want[ROPE / 2], in[ROPE], out[ROPE];
        values_of(labels[layer], want, ROPE / 2);
        for (int i = 0; i < ROPE; i++)
            in[i] = i % 2 == 0;
        rotate(be, layer, 1, in, out);
        for (int i = 0; i < ROPE / 2; i++)
            assert_true(fabsf(asinf(out[2 * i + 1]) - want[i]) <= 1e-6f * want[i]);
    }
    backend_close(be);
}

static void rows_and_queries_are_rotated_in_pairs(void **state)
{
    static const char *const labels[] = { "rope_out_plain_pos1000", "rope_out_compress_pos1000" };
    Backend *be = open_toy(&rope_shape, 1);
    float in[ROPE], want[ROPE], out[ROPE];
    (void)state;

    values_of("rope_in seed=1", in, ROPE);
    for (int layer = 0; layer < 2; layer++) {
        values_of(labels[layer], want, ROPE);
        rotate(be, layer, 1000, in, out);
        for (int i = 0; i < ROPE; i++) /* the file's angle is not rounded to F32 */
            assert_true(fabsf(out[i] - want[i]) <= 1e-4f);
    }
    backend_close(be);
}

/* Two roundings, and that of the blend: at a million positions each bit more is 0.01 of an angle. */
static void frequencies_are_exact_to_two_bits(void **state)
{
    const long double low = 15, high = 25; /* of the blend, see [rope] of the file */
    float plain[ROPE / 2], compressed[ROPE / 2];
    (void)state;

    rotary_frequencies(&rope_shape, plain, compressed);
    for (int i = 0; i < ROPE / 2; i++) {
        const long double ramp = fminl(fmaxl((i - low) / (high - low), 0), 1);
        const long double a = powl(10000, -2.0L * i / ROPE), b = powl(160000, -2.0L * i / ROPE);
        const long double blend = b / 16 * ramp + b * (1 - ramp);
        assert_true(fabsl((long double)plain[i] - a) <= 0x1p-23L * a);
        assert_true(fabsl((long double)compressed[i] - blend) <= 0x1.8p-23L * blend);
    }
}

/* An angle is a product rounded to F32, which at a million positions is a step of 1/16 for the
 * fastest pairs: that is how the model was trained. Its cosine and sine are not less exact there
 * than at the beginning. */
static void angles_are_rounded_as_trained_and_turned_exactly_at_a_million(void **state)
{
    static const int at[] = { 1, 65535, (1 << 19) - 1, 1 << 19, (1 << 20) - 1 };
    Backend *be = open_toy(&rope_shape, 1);
    float freq[2][ROPE / 2], in[ROPE], out[ROPE];
    double unrounded = 0; /* the most that another way would be off by */
    (void)state;

    rotary_frequencies(&rope_shape, freq[0], freq[1]);
    for (int i = 0; i < ROPE; i++)
        in[i] = i % 2 == 0;
    for (size_t k = 0; k < 2 * COUNT(at); k++) {
        const float pos = (float)at[k / 2];
        rotate(be, (int)(k % 2), at[k / 2], in, out);
        for (int i = 0; i < ROPE / 2; i++) {
            const volatile float angle = pos * freq[k % 2][i];
            const long double exact = (long double)pos * (long double)freq[k % 2][i];
            assert_true(fabsl((long double)out[2 * i] - cosl((long double)angle)) < 3e-7L);
            assert_true(fabsl((long double)out[2 * i + 1] - sinl((long double)angle)) < 3e-7L);
            unrounded = fmax(unrounded, (double)fabsl(exact - (long double)angle));
        }
    }
    assert_true(unrounded > 0.01);
    backend_close(be);
}

static void attention_turns_its_result_back(void **state)
{
    Backend *be = open_toy(&rope_shape, 1);
    float row[ROPE], want[ROPE], q[ROPE] = { 0 }, o[ROPE], sink = -1e30f;
    int32_t none = -1;
    KvLayer kv = { .ring = buf(row),
                   .comp = buf(row),
                   .ring_rows = 1,
                   .comp_rows = 1,
                   .ratio = 4,
                   .n_slots = 1,
                   .row = kvrow_format(ROPE, ROPE, false) };
    const Layer l = { .index = 1, .sinks = buf(&sink) };
    One one;
    (void)state;

    values_of("rope_in seed=1", row, ROPE);
    values_of("rope_out_compress_inverse_pos1000", want, ROPE);
    begin(be, &one, 1000, 1);
    be->op->attend(be, &one.step, buf(o), buf(q), &kv, buf(&none), &l);
    end(be);
    for (int i = 0; i < ROPE; i++)
        assert_true(fabsf(o[i] - want[i]) <= 1e-4f);
    backend_close(be);
}

/* ---- [hc] ------------------------------------------------------------------------------------- */

enum { HC_DIM = 3, FLAT = N_STREAMS * HC_DIM };

/* A projection of these streams that gives the file's mixes. */
static void project_to(float *proj, const float *mix, const float *streams)
{
    memset(proj, 0, N_MIX * FLAT * sizeof *proj);
    for (int i = 0; i < N_MIX; i++)
        proj[i * FLAT] = mix[i] * rms_of(streams, FLAT) / streams[0];
}

static void streams_mix_as_in_the_file(void **state)
{
    const Shape s = { .dim = HC_DIM, .sinkhorn_iters = 20, .hc_eps = 1e-6f };
    Backend *be = open_toy(&s, 1);
    float mix[N_MIX], base[N_MIX], scale[3], streams[FLAT], f[HC_DIM], proj[N_MIX * FLAT];
    float x[HC_DIM], out[N_STREAMS * (N_STREAMS + 1)], want[FLAT], norm[] = { 1, 1, 1 };
    One o;
    (void)state;

    values_of("mix seed=4", mix, N_MIX);
    values_of("base (continuing)", base, N_MIX);
    values_of("scale 3", scale, 3);
    values_of("post-mix residual", streams, FLAT);
    values_of("sublayer out", f, HC_DIM);
    project_to(proj, mix, streams);
    const HcWeights hc = { matrix(proj, N_MIX, FLAT), buf(scale), buf(base) };

    begin(be, &o, 0, 1);
    be->op->hc_pre(be, &o.step, buf(x), buf(out), buf(streams), &hc, buf(norm));
    be->op->hc_post(be, &o.step, buf(streams), buf(f), buf(out));
    end(be);

    values_of("post 4", want, N_STREAMS);
    assert_near(out, want, N_STREAMS);
    float comb[N_STREAMS * N_STREAMS];
    values_of("comb row-major", comb, N_STREAMS * N_STREAMS);
    assert_near(out + N_STREAMS, comb, N_STREAMS * N_STREAMS);
    values_of("collapsed", want, HC_DIM);
    for (int i = 0; i < HC_DIM; i++)
        x[i] *= rms_of(want, HC_DIM);
    assert_near(x, want, HC_DIM);
    values_of("new streams", want, FLAT);
    assert_near(streams, want, FLAT);
    backend_close(be);
}

/* ---- [router] ------------------------------------------------------------------------------------ */

enum { EXPERTS = 16, ACTIVE = 6 };

static void the_router_chooses_with_bias_and_weighs_without(void **state)
{
    const Shape s = {
        .n_layers = 1, .dim = 1, .n_experts = EXPERTS, .n_active = ACTIVE, .route_scale = 1.5f
    };
    Backend *be = open_toy(&s, 1);
    float logits[EXPERTS], bias[EXPERTS], want_ids[ACTIVE], want[ACTIVE], gates[ACTIVE], one = 1;
    int32_t ids[ACTIVE];
    Layer l = { .route_bias = buf(bias) };
    One o;
    (void)state;

    values_of("logits seed=6", logits, EXPERTS);
    values_of("bias unit*0.5", bias, EXPERTS);
    numbers(after("selected (by score+bias, desc)"), want_ids, ACTIVE);
    values_of("weights (unbiased", want, ACTIVE);
    l.router = matrix(logits, EXPERTS, 1);
    begin(be, &o, 0, 1);
    be->op->route(be, &o.step, buf(ids), buf(gates), buf(&one), &l);
    end(be);
    for (int i = 0; i < ACTIVE; i++)
        assert_int_equal(ids[i], (int)want_ids[i]);
    assert_near(gates, want, ACTIVE);
    backend_close(be);
}

static void swiglu_is_clamped_as_in_the_file(void **state)
{
    enum { N = 4 };
    const Shape s = { .n_layers = 1, .dim = N, .shared_dim = N, .swiglu_limit = { 10 } };
    Backend *be = open_toy(&s, 1);
    float gate[N * N] = { 0 }, up[N * N] = { 0 }, down[N * N] = { 0 };
    float x[N] = { 1 }, y[N] = { 0 };
    char *p = after("swiglu clamp 10: (gate,up)->silu(min(g,10))*clip(u,-10,10):");
    Layer l = { .index = 0 };
    One o;
    (void)state;

    float want[N];
    for (int i = 0; i < N; i++) {
        p = strchr(p, '(');
        assert_non_null(p);
        assert_int_equal(sscanf(p++, "(%f,%f)->%f", &gate[i * N], &up[i * N], &want[i]), 3);
        down[i * N + i] = 1;
    }
    l.sh_gate = matrix(gate, N, N);
    l.sh_up = matrix(up, N, N);
    l.sh_down = matrix(down, N, N);
    begin(be, &o, 0, 1);
    be->op->shared(be, &o.step, buf(y), buf(x), &l);
    end(be);
    for (int i = 0; i < N; i++)
        assert_true(fabsf(y[i] - want[i]) <= 1e-5f * fabsf(want[i]));
    backend_close(be);
}

/* ---- [compressor] ----------------------------------------------------------------------------------- */

enum { TOKENS = 8, POOL_DIM = 2, WIDTH = 4, RATIO = 4 };

/* Pool the file's tokens in two chunks, the first of `split`. The norm's
 * epsilon is so large that it divides by a constant, which its weight undoes. */
static void pool_split(int split, float rows[TOKENS / RATIO][POOL_DIM])
{
    const Shape s = { .n_layers = 1,
                      .dim = TOKENS,
                      .head_dim = POOL_DIM,
                      .norm_eps = 1e12f,
                      .rope_theta = 1e4f,
                      .comp_theta = 1e4f,
                      .yarn_factor = 1,
                      .yarn_beta_fast = 32,
                      .yarn_beta_slow = 1,
                      .yarn_context = 64,
                      .ratio = { RATIO } };
    Backend *be = open_toy(&s, TOKENS);
    float tokens[TOKENS][WIDTH], scores[TOKENS][WIDTH], ape[RATIO * WIDTH];
    float kv_w[WIDTH][TOKENS], gate_w[WIDTH][TOKENS], x[TOKENS][TOKENS] = { { 0 } };
    float state_kv[2 * RATIO * WIDTH] = { 0 }, state_score[2 * RATIO * WIDTH] = { 0 };
    const float norm[POOL_DIM] = { 1e6f, 1e6f };
    KvLayer kv = { .comp = buf(rows),
                   .comp_kv = buf(state_kv),
                   .comp_score = buf(state_score),
                   .ratio = RATIO,
                   .comp_rows = TOKENS / RATIO,
                   .n_slots = 1,
                   .row = kvrow_format(POOL_DIM, 0, false) };

    values_of("kv[8][4]", tokens[0], TOKENS * WIDTH);
    values_of("gate[8][4]", scores[0], TOKENS * WIDTH);
    values_of("ape[4][4]", ape, RATIO * WIDTH);
    for (int t = 0; t < TOKENS; t++) {
        x[t][t] = 1; /* token t selects column t */
        for (int i = 0; i < WIDTH; i++) {
            kv_w[i][t] = tokens[t][i];
            gate_w[i][t] = scores[t][i];
        }
    }
    const Layer l = { .comp = { matrix(kv_w[0], WIDTH, TOKENS), matrix(gate_w[0], WIDTH, TOKENS),
                                buf(ape), buf(norm) } };
    for (int pos = 0; pos < TOKENS; pos = pos ? TOKENS : split) {
        One o;
        begin(be, &o, pos, pos ? TOKENS - split : split);
        be->op->compress(be, &o.step, &kv, buf(x[pos]), &l);
        end(be);
    }
    backend_close(be);
}

static void pooling_overlaps_the_group_before(void **state)
{
    float want[TOKENS / RATIO][POOL_DIM], rows[TOKENS / RATIO][POOL_DIM];
    (void)state;

    values_of("pooled row 0", want[0], POOL_DIM);
    values_of("pooled row 1", want[1], POOL_DIM);
    for (int split = 1; split <= TOKENS; split++) {
        memset(rows, 0, sizeof rows);
        pool_split(split, rows);
        assert_near(rows[0], want[0], POOL_DIM);
        assert_near(rows[1], want[1], POOL_DIM);
    }
}

/* ---- [sink attention] --------------------------------------------------------------------------------- */

static void a_sink_takes_weight_and_gives_nothing(void **state)
{
    enum { N = 4, ROWS = 3 };
    const Shape s = { .n_layers = 1, .dim = 1, .n_heads = 1, .head_dim = N, .window = ROWS };
    Backend *be = open_toy(&s, 1);
    float q[N], rows[ROWS * N], sink, want[N], o[N];
    (void)state;

    values_of("q seed=8", q, N);
    values_of("rows 12", rows, ROWS * N);
    numbers(after("sink "), &sink, 1);
    values_of("out 4", want, N);
    KvLayer kv = {
        .ring = buf(rows), .ring_rows = ROWS, .n_slots = 1, .row = kvrow_format(N, 0, false)
    };
    const Layer l = { .sinks = buf(&sink) };
    One one;
    begin(be, &one, ROWS - 1, 1);
    be->op->attend(be, &one.step, buf(o), buf(q), &kv, (Buf){ 0 }, &l);
    end(be);
    assert_near(o, want, N);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_are_those_of_the_file),
        cmocka_unit_test(rows_and_queries_are_rotated_in_pairs),
        cmocka_unit_test(frequencies_are_exact_to_two_bits),
        cmocka_unit_test(angles_are_rounded_as_trained_and_turned_exactly_at_a_million),
        cmocka_unit_test(attention_turns_its_result_back),
        cmocka_unit_test(streams_mix_as_in_the_file),
        cmocka_unit_test(the_router_chooses_with_bias_and_weighs_without),
        cmocka_unit_test(swiglu_is_clamped_as_in_the_file),
        cmocka_unit_test(pooling_overlaps_the_group_before),
        cmocka_unit_test(a_sink_takes_weight_and_gives_nothing),
    };
    return cmocka_run_group_tests(tests, read_golden, NULL);
}
