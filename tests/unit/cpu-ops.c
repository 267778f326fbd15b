/* cpu-ops.c - what a row computes depends on nothing but the row.
 *
 * Every op of a layer runs over two sessions' tokens with random weights and
 * inputs, once token by token on one thread, then in other chunks, in company
 * and on more threads: every output and every stored row must keep its bits,
 * on every instruction set, with int8 activations and with F32. */
#include "../cpu_toy.h"
#include "../../src/backend/cpu/kernels.h"

/* ---- outputs of every token, and what is stored ------------------------------------- */

typedef struct {
    float embedded[N_STREAMS * DIM], x[DIM], mix[MIX], streams[N_STREAMS * DIM], q[HEADS * HEAD],
        qr[Q_RANK], o[HEADS * HEAD], y[DIM], moe[DIM], shared[DIM], gates[ACTIVE], logits[VOCAB];
    int32_t pick[TOPK], ids[ACTIVE];
} Out;

typedef struct {
    Out out[SLOTS][TOKENS];
    char ring[SLOTS * RING * HEAD * 4], comp[SLOTS * POOLED * HEAD * 4],
        idx[SLOTS * POOLED * IDX_DIM * 4];
    float comp_kv[SLOTS * MAX_STATE * 2 * HEAD], comp_score[SLOTS * MAX_STATE * 2 * HEAD];
    float idx_kv[SLOTS * MAX_STATE * 2 * IDX_DIM], idx_score[SLOTS * MAX_STATE * 2 * IDX_DIM];
} World;

static KvLayer kv_of(World *w, const Shape *s, int layer)
{
    return (KvLayer){
        .ring = buf(w->ring),
        .comp = buf(w->comp),
        .comp_kv = buf(w->comp_kv),
        .comp_score = buf(w->comp_score),
        .idx = buf(w->idx),
        .idx_kv = buf(w->idx_kv),
        .idx_score = buf(w->idx_score),
        .ratio = s->ratio[layer],
        .ring_rows = RING,
        .comp_rows = POOLED,
        .n_slots = SLOTS,
        .row = kvrow_format(HEAD, ROPE, s->rounding),
        .idx_row = idxrow_format(IDX_DIM, s->rounding),
    };
}

/* ---- one step: gather its tokens' inputs, run every op, put the outputs back -------- */

#define GATHER(to, field) \
    do { \
        for (int r_ = 0; r_ < step->n_rows; r_++) \
            memcpy((to) + (size_t)r_ * COUNT(in[r_]->field), in[r_]->field, sizeof in[r_]->field); \
    } while (0)
#define SCATTER(field, from) \
    do { \
        for (int r_ = 0; r_ < step->n_rows; r_++) \
            memcpy(out[r_]->field, (from) + (size_t)r_ * COUNT(out[r_]->field), \
                   sizeof out[r_]->field); \
    } while (0)

#define RUN(name, ...) be->op->name(be, step, __VA_ARGS__)

static void attention_ops(Backend *be, const Step *step, const Layer *l, KvLayer *kv,
                          const In *const *in, Out *const *out)
{
    static float x[ROWS * DIM], qr[ROWS * Q_RANK], q[ROWS * HEADS * HEAD], o[ROWS * HEADS * HEAD],
        y[ROWS * DIM];
    static int32_t pick[ROWS * TOPK];

    GATHER(x, x);
    RUN(query, buf(q), buf(qr), buf(x), l);
    SCATTER(q, q);
    SCATTER(qr, qr);
    RUN(kv_row, kv, buf(x), l);
    if (kv->ratio)
        RUN(compress, kv, buf(x), l);
    Buf picks = { 0 };
    if (shape_overlaps(kv->ratio)) {
        RUN(idx_row, kv, buf(x), l);
        GATHER(qr, qr);
        RUN(select, buf(pick), kv, buf(qr), buf(x), l);
        SCATTER(pick, pick);
        picks = buf(pick);
    }
    GATHER(q, q);
    RUN(attend, buf(o), buf(q), kv, picks, l);
    SCATTER(o, o);
    GATHER(o, o);
    RUN(project, buf(y), buf(o), l);
    SCATTER(y, y);
}

static void expert_ops(Backend *be, const Step *step, const Layer *l, const In *const *in,
                       Out *const *out)
{
    static float x[ROWS * DIM], y[ROWS * DIM], gates[ROWS * ACTIVE];
    static int32_t ids[ROWS * ACTIVE];

    GATHER(x, x);
    RUN(route, buf(ids), buf(gates), buf(x), l);
    SCATTER(ids, ids);
    SCATTER(gates, gates);
    GATHER(ids, ids);
    GATHER(gates, gates);
    RUN(experts, buf(y), buf(x), buf(ids), buf(gates), l);
    SCATTER(moe, y);
    GATHER(y, y);
    RUN(shared, buf(y), buf(x), l);
    SCATTER(shared, y);
}

static void stream_ops(Backend *be, const Step *step, const Weights *w, const Layer *l,
                       const In *const *in, Out *const *out)
{
    static float streams[ROWS * N_STREAMS * DIM], x[ROWS * DIM], y[ROWS * DIM], mix[ROWS * MIX],
        logits[ROWS * VOCAB];

    RUN(embed, buf(streams), &w->table);
    SCATTER(embedded, streams);
    GATHER(streams, streams);
    RUN(logits, buf(logits), buf(streams), &w->hc_out, w->norm, &w->head);
    SCATTER(logits, logits);
    RUN(hc_pre, buf(x), buf(mix), buf(streams), &l->hc_attn, l->attn_norm);
    SCATTER(x, x);
    SCATTER(mix, mix);
    GATHER(mix, mix);
    GATHER(y, y);
    RUN(hc_post, buf(streams), buf(y), buf(mix));
    SCATTER(streams, streams);
}

static void run_step(Backend *be, Given *g, World *world, int layer, const Span *span, int n_spans)
{
    int32_t token[ROWS], wanted[ROWS];
    const In *in[ROWS];
    Out *out[ROWS];
    Step s = { .span = span, .n_spans = n_spans, .token = token, .out = wanted };
    KvLayer kv = kv_of(world, be->shape, layer);
    ds4_err err = { 0 };

    for (int i = 0; i < n_spans; i++) {
        for (int k = 0; k < span[i].n; k++, s.n_rows++) {
            int pos = span[i].pos + k;
            in[s.n_rows] = &g->in[span[i].slot][pos];
            out[s.n_rows] = &world->out[span[i].slot][pos];
            token[s.n_rows] = (3 * pos * pos + span[i].slot) % VOCAB;
            wanted[s.n_rows] = s.n_rows;
        }
    }
    s.n_out = s.n_rows;
    assert_true(be->op->begin(be, &s));
    stream_ops(be, &s, &g->w, &g->w.layer[layer], in, out);
    attention_ops(be, &s, &g->w.layer[layer], &kv, in, out);
    expert_ops(be, &s, &g->w.layer[layer], in, out);
    if (!be->op->end(be, &err))
        fail_msg("%s", err.msg);
}

/* ---- plans: how the sessions' tokens are cut into steps ----------------------------- */

typedef struct {
    int chunk[SLOTS];
    bool together;
} Plan;

static void follow(Backend *be, Given *g, World *w, int layer, const Plan *plan)
{
    int pos[SLOTS] = { 0 };

    memset(w, 0, sizeof *w);
    while (pos[0] < TOKENS || pos[1] < TOKENS) {
        Span span[SLOTS];
        int n_spans = 0, rows = 0;
        for (int slot = 0; slot < SLOTS && (plan->together || !n_spans); slot++) {
            int n = MIN(plan->chunk[slot], TOKENS - pos[slot]);
            if (n <= 0)
                continue;
            span[n_spans++] = (Span){ slot, pos[slot], n, rows };
            pos[slot] += n;
            rows += n;
        }
        run_step(be, g, w, layer, span, n_spans);
    }
}

static void compare(const World *got, const World *want)
{
#define SAME(field)     assert_memory_equal(got->field, want->field, sizeof got->field)
#define SAME_OUT(field) SAME(out[slot][i].field)
    for (int slot = 0; slot < SLOTS; slot++) {
        for (int i = 0; i < TOKENS; i++) {
            SAME_OUT(embedded);
            SAME_OUT(x);
            SAME_OUT(mix);
            SAME_OUT(streams);
            SAME_OUT(q);
            SAME_OUT(qr);
            SAME_OUT(pick);
            SAME_OUT(o);
            SAME_OUT(y);
            SAME_OUT(ids);
            SAME_OUT(gates);
            SAME_OUT(moe);
            SAME_OUT(shared);
            SAME_OUT(logits);
        }
    }
    SAME(ring);
    SAME(comp);
    SAME(comp_kv);
    SAME(comp_score);
    SAME(idx);
    SAME(idx_kv);
    SAME(idx_score);
#undef SAME_OUT
#undef SAME
}

static void compare_plans(Given *g, const char *isa, bool rounding, bool exact)
{
    static const struct {
        Plan plan;
        int threads;
    } cases[] = {
        { { { 1, 1 }, false }, 3 },          { { { TOKENS, TOKENS }, false }, 1 },
        { { { 7, 5 }, true }, 2 },           { { { 1, TOKENS }, true }, 1 },
        { { { TOKENS, TOKENS }, true }, 5 }, { { { 4, 13 }, true }, 4 },
        { { { 20, 20 }, true }, 0 }, /* all cores, and one where the last two rows are left */
    };
    static World want, got;
    Shape s = toy;
    s.rounding = rounding;

    for (int layer = 0; layer < N_LAYERS; layer++) {
        Backend *be = open_toy(&s, isa, 1, exact);
        follow(be, g, &want, layer, &(Plan){ { 1, 1 }, false });
        be->op->close(be);
        for (size_t i = 0; i < COUNT(cases); i++) {
            be = open_toy(&s, isa, cases[i].threads, exact);
            follow(be, g, &got, layer, &cases[i].plan);
            compare(&got, &want);
            be->op->close(be);
        }
    }
}

static void a_row_s_bits_depend_on_the_row_alone(void **state)
{
    (void)state;
    for (const char *const *isa = kernels_list(); *isa; isa++) {
        compare_plans(&given, *isa, false, false);
        compare_plans(&given, *isa, true, false);
        compare_plans(&given, *isa, false, true);
    }
}

/* The other tests see agreement only; this one sees that there is something to agree on. */
static void sets_agree_and_outputs_are_numbers(void **state)
{
    static World a, b;
    (void)state;

    for (int layer = 0; layer < N_LAYERS; layer++) {
        const Plan plan = { { 7, 5 }, true };
        Backend *scalar = open_toy(&toy, "scalar", 1, true);
        Backend *best = open_toy(&toy, NULL, 2, true);
        follow(scalar, &given, &a, layer, &plan);
        follow(best, &given, &b, layer, &plan);
        for (int i = 0; i < ROWS; i++) {
            const Out *p = &a.out[i / TOKENS][i % TOKENS], *q = &b.out[i / TOKENS][i % TOKENS];
            for (int d = 0; d < DIM; d++) {
                assert_true(fabsf(p->y[d] - q->y[d]) <= 1e-4f && p->y[d] != 0);
                assert_true(fabsf(p->moe[d] - q->moe[d]) <= 1e-4f && p->moe[d] != 0);
                assert_true(fabsf(p->shared[d] - q->shared[d]) <= 1e-4f);
            }
            for (int d = 0; d < VOCAB; d++)
                assert_true(fabsf(p->logits[d] - q->logits[d]) <= 1e-4f && p->logits[d] != 0);
        }
        scalar->op->close(scalar);
        best->op->close(best);
    }
}

static void numbers_out_of_hand_stay_in_their_row(void **state)
{
    static const float wild[] = { NAN, INFINITY, -INFINITY, 3e38f };
    static Given g;
    static World clean, w;
    const Plan plan = { { 7, 5 }, true };
    (void)state;

    for (int layer = 0; layer < N_LAYERS; layer++) {
        Shape s = toy;
        s.rounding = true;
        Backend *be = open_toy(&s, NULL, 2, false);
        follow(be, &given, &clean, layer, &plan);
        g = given;
        for (int i = 0; i < TOKENS; i++) { /* session 1 goes wild, 0 does not */
            float *p = (float *)(void *)&g.in[1][i];
            for (size_t k = 0; k < offsetof(In, ids) / sizeof *p; k++)
                p[k] = wild[((size_t)i + k / 5) % COUNT(wild)];
        }
        follow(be, &g, &w, layer, &plan);
        assert_memory_equal(w.out[0], clean.out[0], sizeof w.out[0]);
        for (int i = 0; i < TOKENS; i++) {
            for (int k = 0; k < ACTIVE; k++)
                assert_in_range(w.out[1][i].ids[k], 0, EXPERTS - 1);
            for (int k = 0; k < TOPK && shape_overlaps(toy.ratio[layer]); k++)
                assert_true(w.out[1][i].pick[k] >= -1 && w.out[1][i].pick[k] < POOLED);
        }
        be->op->close(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_s_bits_depend_on_the_row_alone),
        cmocka_unit_test(sets_agree_and_outputs_are_numbers),
        cmocka_unit_test(numbers_out_of_hand_stay_in_their_row),
    };
    return cmocka_run_group_tests(tests, cpu_toy_init, cpu_toy_done);
}
