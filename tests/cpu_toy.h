/* cpu_toy.h - a small model of three layers with random weights and inputs, for tests of
 * the CPU backend's ops. */
#ifndef CPU_TOY_H
#define CPU_TOY_H
#include "../src/backend/cpu/cpu.h"
#include "../src/base/arena.h"
#include "../src/base/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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

static inline Buf buf(const void *p) { return (Buf){ (void *)(uintptr_t)p, 0 }; }

/* ---- random weights ----------------------------------------------------------------- */

typedef struct {
    Arena arena;
    uint64_t rng;
    Weight table, head;
    HcWeights hc_out;
    Buf norm;
    Layer layer[N_LAYERS];
} Weights;

static inline float *random_floats(Weights *w, size_t n, float scale)
{
    float *p = arena_array(&w->arena, n, sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = scale * (float)(2 * rng_unit(&w->rng) - 1);
    return p;
}

static inline Buf vector(Weights *w, int n) { return (Buf){ random_floats(w, (size_t)n, 1), 0 }; }

static inline Weight matrix(Weights *w, int type, int rows, int cols, int count)
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

static inline HcWeights hyper(Weights *w, int n, int n_scale)
{
    Weight proj = matrix(w, QUANT_F16, n, N_STREAMS * DIM, 1);
    return (HcWeights){ proj, vector(w, n_scale), vector(w, n) };
}

static inline CompWeights compressor(Weights *w, int ratio, int dim)
{
    int width = shape_comp_width(ratio, dim);
    Weight kv = matrix(w, QUANT_F16, width, DIM, 1), gate = matrix(w, QUANT_BF16, width, DIM, 1);
    return (CompWeights){ kv, gate, vector(w, ratio * width), vector(w, dim) };
}

static inline Buf hash_table(Weights *w)
{
    int32_t *ids = arena_array(&w->arena, VOCAB * ACTIVE, sizeof *ids);
    for (int i = 0; i < VOCAB * ACTIVE; i++)
        ids[i] = (7 * (i / ACTIVE) + 3 * (i % ACTIVE)) % EXPERTS;
    return (Buf){ ids, 0 };
}

static inline void init_attention(Weights *w, Layer *l)
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

static inline void weights_init(Weights *w)
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

/* ---- random inputs of every token --------------------------------------------------- */

typedef struct {
    float streams[N_STREAMS * DIM], x[DIM], y[DIM], qr[Q_RANK], q[HEADS * HEAD], o[HEADS * HEAD],
        mix[MIX], gates[ACTIVE];
    int32_t ids[ACTIVE];
} In;

static inline void inputs_init(In in[SLOTS][TOKENS])
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

typedef struct {
    In in[SLOTS][TOKENS];
    Weights w;
} Given;

/* ---- a test ------------------------------------------------------------------------- */

static Given given;

static inline int cpu_toy_init(void **state)
{
    (void)state;
    weights_init(&given.w);
    inputs_init(given.in);
    return 0;
}

static inline int cpu_toy_done(void **state)
{
    (void)state;
    arena_release(&given.w.arena);
    return 0;
}

static inline Backend *open_toy(const Shape *s, const char *isa, int threads, bool exact)
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

#endif
