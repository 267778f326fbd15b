/* cpu-ops.c - what a row computes depends on nothing but the row.
 *
 * Every op of a layer runs over two sessions' tokens with random weights and
 * inputs, once token by token on one thread, then in other chunks, in company
 * and on more threads: every output and every stored row must keep its bits,
 * on every instruction set, with int8 activations and with F32. */
#include "../../src/backend/cpu/cpu.h"
#include "../../src/backend/cpu/kernels.h"
#include "../../src/base/arena.h"
#include "../../src/base/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum {
    SLOTS = 2,
    TOKENS = 41,
    ROWS = SLOTS * TOKENS,
    DIM = 64,
    VOCAB = 70,
    HEADS = 4,
    HEAD = 48,
    ROPE = 8,
    Q_RANK = 32,
    GROUPS = 2,
    O_RANK = 32,
    WINDOW = 8,
    RING = WINDOW - 1 + ROWS,
    IDX_HEADS = 4,
    IDX_DIM = 32,
    TOPK = 4,
    EXPERTS = 8,
    ACTIVE = 3,
    FF = 96,
    SHARED = 32,
    MIX = N_STREAMS * (N_STREAMS + 1),
    N_LAYERS = 3,
    POOLED = 10,
    MAX_STATE = 8
};

static const Shape toy = {
    .n_layers = N_LAYERS,
    .dim = DIM,
    .vocab = VOCAB,
    .context = TOKENS,
    .n_heads = HEADS,
    .head_dim = HEAD,
    .rope_dim = ROPE,
    .q_rank = Q_RANK,
    .o_rank = O_RANK,
    .o_groups = GROUPS,
    .window = WINDOW,
    .idx_heads = IDX_HEADS,
    .idx_dim = IDX_DIM,
    .idx_topk = TOPK,
    .n_experts = EXPERTS,
    .n_active = ACTIVE,
    .expert_dim = FF,
    .shared_dim = SHARED,
    .sinkhorn_iters = 20,
    .norm_eps = 1e-6f,
    .hc_eps = 1e-6f,
    .route_scale = 1.5f,
    .rope_theta = 10000,
    .comp_theta = 160000,
    .yarn_factor = 16,
    .yarn_beta_fast = 32,
    .yarn_beta_slow = 1,
    .yarn_context = 65536,
    .swiglu_limit = { 10, 10, 10 },
    .ratio = { 0, 4, 6 },
    .hashed = { 1 },
};

/* ---- random weights ---------------------------------------------------------------------- */

typedef struct {
    Arena arena;
    uint64_t rng;
    Weight table, head;
    HcWeights hc_out;
    Buf norm;
    Layer layer[N_LAYERS];
} Weights;

static float *random_floats(Weights *w, size_t n, float scale)
{
    float *p = arena_array(&w->arena, n, sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = scale * (float)(2 * rng_unit(&w->rng) - 1);
    return p;
}

static Buf vector(Weights *w, int n) { return (Buf){ random_floats(w, (size_t)n, 1), 0 }; }

static Weight matrix(Weights *w, int type, int rows, int cols, int count)
{
    const QuantFormat *f = quant_format(type);
    size_t n = (size_t)rows * (size_t)cols * (size_t)count;
    float *values = random_floats(w, n, 2 / sqrtf((float)cols));
    void *data = arena_alloc(&w->arena, n / (size_t)f->block_len * (size_t)f->block_bytes);
    assert_non_null(data);
    f->encode(data, values, n, NULL);
    return (
        Weight){ .data = { data, 0 }, .type = type, .rows = rows, .cols = cols, .count = count };
}

static HcWeights hyper(Weights *w, int n, int n_scale)
{
    Weight proj = matrix(w, QUANT_F16, n, N_STREAMS * DIM, 1);
    return (HcWeights){ proj, vector(w, n_scale), vector(w, n) };
}

static CompWeights compressor(Weights *w, int ratio, int dim)
{
    int width = shape_comp_width(ratio, dim);
    Weight kv = matrix(w, QUANT_F16, width, DIM, 1), gate = matrix(w, QUANT_BF16, width, DIM, 1);
    return (CompWeights){ kv, gate, vector(w, ratio * width), vector(w, dim) };
}

static Buf hash_table(Weights *w)
{
    int32_t *ids = arena_array(&w->arena, VOCAB * ACTIVE, sizeof *ids);
    for (int i = 0; i < VOCAB * ACTIVE; i++)
        ids[i] = (7 * (i / ACTIVE) + 3 * (i % ACTIVE)) % EXPERTS;
    return (Buf){ ids, 0 };
}

static void init_attention(Weights *w, Layer *l)
{
    const int ratio = toy.ratio[l->index];
    const int out = l->index == 1 ? QUANT_F32 : QUANT_Q8_0;

    l->attn_norm = vector(w, DIM);
    l->q_norm = vector(w, Q_RANK);
    l->kv_norm = vector(w, HEAD);
    l->sinks = vector(w, HEADS);
    l->q_a = matrix(w, QUANT_Q8_0, Q_RANK, DIM, 1);
    l->q_b = matrix(w, QUANT_Q8_0, HEADS * HEAD, Q_RANK, 1);
    l->kv = matrix(w, QUANT_Q8_0, HEAD, DIM, 1);
    l->o_a = matrix(w, out, GROUPS * O_RANK, HEADS / GROUPS * HEAD, 1);
    l->o_b = matrix(w, out, DIM, GROUPS * O_RANK, 1);
    if (ratio)
        l->comp = compressor(w, ratio, HEAD);
    if (shape_overlaps(ratio)) {
        l->idx_comp = compressor(w, ratio, IDX_DIM);
        l->idx_q = matrix(w, QUANT_F16, IDX_HEADS * IDX_DIM, Q_RANK, 1);
        l->idx_w = matrix(w, QUANT_F16, IDX_HEADS, DIM, 1);
    }
}

static void weights_init(Weights *w)
{
    *w = (Weights){ .rng = 42 };
    for (int i = 0; i < N_LAYERS; i++) {
        Layer *l = &w->layer[i];
        l->index = i;
        l->hc_attn = hyper(w, N_MIX, 3);
        init_attention(w, l);
        l->router = matrix(w, QUANT_F16, EXPERTS, DIM, 1);
        l->gate = matrix(w, QUANT_Q8_0, FF, DIM, EXPERTS);
        l->up = matrix(w, QUANT_Q8_0, FF, DIM, EXPERTS);
        l->down = matrix(w, i == 1 ? QUANT_F16 : QUANT_MXFP4, DIM, FF, EXPERTS);
        l->sh_gate = matrix(w, QUANT_Q8_0, SHARED, DIM, 1);
        l->sh_up = matrix(w, QUANT_Q8_0, SHARED, DIM, 1);
        l->sh_down = matrix(w, QUANT_Q8_0, DIM, SHARED, 1);
        if (toy.hashed[i])
            l->route_hash = hash_table(w);
        else
            l->route_bias = vector(w, EXPERTS);
    }
    w->table = matrix(w, QUANT_Q8_0, VOCAB, DIM, 1);
    w->head = matrix(w, QUANT_Q8_0, VOCAB, DIM, 1);
    w->hc_out = hyper(w, N_STREAMS, 1);
    w->norm = vector(w, DIM);
}

/* ---- inputs and outputs of every token, and what is stored ----------------------------------- */

typedef struct {
    float streams[N_STREAMS * DIM], x[DIM], y[DIM], qr[Q_RANK], q[HEADS * HEAD], o[HEADS * HEAD],
        mix[MIX], gates[ACTIVE];
    int32_t ids[ACTIVE];
} In;

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

static Buf buf(const void *p) { return (Buf){ (void *)(uintptr_t)p, 0 }; }

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

static void inputs_init(In in[SLOTS][TOKENS])
{
    uint64_t rng = 7;

    for (int i = 0; i < ROWS; i++) {
        In *t = &in[i / TOKENS][i % TOKENS];
        float *p = (float *)(void *)t;
        for (size_t k = 0; k < offsetof(In, ids) / sizeof *p; k++)
            p[k] = (float)(2 * rng_unit(&rng) - 1);
        for (int k = 0; k < ACTIVE; k++)
            t->ids[k] = (i + 3 * k + (k > 1)) % EXPERTS;
    }
}

/* ---- one step: gather its tokens' inputs, run every op, put the outputs back ------------------- */

typedef struct {
    In in[SLOTS][TOKENS];
    Weights w;
} Given;

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

/* ---- plans: how the sessions' tokens are cut into steps -------------------------------------------- */

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

static Backend *open_toy(const Shape *s, const char *isa, int threads, bool exact)
{
    ds4_err err;
    const BackendOptions opt = { .isa = isa,
                                 .threads = threads,
                                 .exact = exact,
                                 .max_rows = ROWS,
                                 .max_out = ROWS,
                                 .max_context = TOKENS };
    Backend *be = cpu_open(s, &opt, &err);
    if (!be)
        fail_msg("%s", err.msg);
    return be;
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

static Given given;

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

/* ---- select -------------------------------------------------------------------------------------------- */

enum { MANY = 3000, KEEP = 100, CONTEXT = 4 * MANY };

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

/* ---- hyper-connections ---------------------------------------------------------------------- */

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

/* ---- what goes wrong ---------------------------------------------------------------------------------------- */

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

static int init(void **state)
{
    (void)state;
    weights_init(&given.w);
    inputs_init(given.in);
    return 0;
}

static int done(void **state)
{
    (void)state;
    arena_release(&given.w.arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_s_bits_depend_on_the_row_alone),
        cmocka_unit_test(sets_agree_and_outputs_are_numbers),
        cmocka_unit_test(the_best_rows_are_picked_in_order),
        cmocka_unit_test(all_visible_rows_are_picked_when_they_fit),
        cmocka_unit_test(ties_go_to_the_lower_row),
        cmocka_unit_test(a_score_that_is_no_number_comes_last),
        cmocka_unit_test(sinkhorn_takes_the_rounds_of_the_shape),
        cmocka_unit_test(numbers_out_of_hand_stay_in_their_row),
        cmocka_unit_test(a_hashed_expert_that_does_not_exist_is_reported),
        cmocka_unit_test(a_step_that_does_not_fit_is_refused),
        cmocka_unit_test(weights_that_no_kernel_reads_are_refused),
        cmocka_unit_test(scratch_that_cannot_be_is_said_and_not_tried),
        cmocka_unit_test(memory_is_zero_and_copies_may_overlap),
    };
    return cmocka_run_group_tests(tests, init, done);
}
