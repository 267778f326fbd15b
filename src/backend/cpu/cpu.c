/* cpu.c - opening the CPU backend: memory, scratch, and the edges of a step. */
#include "cpu.h"
#include "cpu_internal.h"
#include "../../base/cores.h"
#include <stdio.h>
#include <stdlib.h>

static const struct Ops cpu_ops;

/* ---- scratch ---------------------------------------------------------------------------- */

enum { ALIGN = 64, MAX_THREADS = 1024 };
static const uint64_t score_bytes = 32u << 20; /* of select, where context allows */

void *layout_take(Layout *l, uint64_t count, uint64_t unit, uint64_t size)
{
    uint64_t bytes, end, at = l->used;

    if (!mul_u64(count, unit, &bytes) || !mul_u64(bytes, size, &bytes) ||
        !add_u64(bytes, ALIGN - 1, &bytes) || !add_u64(at, bytes & ~(uint64_t)(ALIGN - 1), &end)) {
        l->overflow = true;
        return NULL;
    }
    l->used = end;
    return l->base ? l->base + at : NULL;
}

static uint64_t u(int n) { return n > 0 ? (uint64_t)n : 0; }
static float *take(Layout *l, uint64_t count, int unit)
{
    return layout_take(l, count, u(unit), sizeof(float));
}

static void lay_out_attention(Cpu *c, Layout *l, Layout at[4])
{
    const Shape *s = c->be.shape;
    const uint64_t rows = u(c->max_rows), threads = u(c->threads);
    const int longest = MAX(s->head_dim, s->idx_dim);

    for (int i = 0; i < 4; i++)
        at[i] = *l;
    c->pooling.kv = take(&at[0], rows * 2, longest);
    c->pooling.score = take(&at[0], rows * 2, longest);
    c->pooling.row = take(&at[0], threads * 2, longest);
    c->pooling.row_len = 2 * (size_t)longest;

    c->select.q = layout_take(&at[1], rows * u(s->idx_heads), u(s->idx_dim), sizeof(float));
    c->select.w = take(&at[1], rows, s->idx_heads);
    c->select.score = take(&at[1], u(c->select_rows), c->select_cap);
    c->select.tile = take(&at[1], threads * KV_TILE, s->idx_dim);
    c->select.dot = take(&at[1], threads * KV_TILE, s->idx_heads);
    c->select.need = layout_take(&at[1], rows, 1, sizeof(int));
    c->select.block =
        layout_take(&at[1], rows * u(s->idx_heads), u(s->idx_dim / IDX_BLOCK), sizeof(IdxBlock));
    c->select.of.at = layout_take(&at[1], threads, u(s->idx_topk), sizeof(int32_t));
    c->select.of.key = take(&at[1], threads, s->idx_topk);
    c->select.of.n = layout_take(&at[1], threads, 1, sizeof(int));

    c->attend.tile = take(&at[2], threads * KV_TILE, s->head_dim);
    c->attend.score = take(&at[2], threads * KV_TILE, s->n_heads);
    c->attend.max = take(&at[2], threads, s->n_heads);
    c->attend.sum = layout_take(&at[2], threads, u(s->n_heads), sizeof(double));

    c->low = layout_take(&at[3], rows * u(s->o_groups), u(s->o_rank), sizeof(float));
}

static void lay_out_rest(Cpu *c, Layout *l, Layout at[5])
{
    const Shape *s = c->be.shape;
    const uint64_t rows = u(c->max_rows), threads = u(c->threads), pairs = rows * u(s->n_active);
    Layout shared;

    for (int i = 0; i < 5; i++)
        at[i] = *l;
    c->mixes = take(&at[0], rows, N_MIX + 1);
    c->raw_kv = take(&at[1], rows, s->head_dim);
    c->scores = take(&at[2], rows, s->n_experts);
    c->head_x = take(&at[3], u(c->max_out), s->dim);

    c->experts.tile = take(&at[4], threads * 2, EXPERT_TILE);
    shared = at[4];
    c->experts.h = take(&shared, rows, s->shared_dim); /* the same place for both */
    c->experts.h = take(&at[4], pairs, s->expert_dim);
    c->experts.x = take(&at[4], pairs, s->dim);
    c->experts.gate = take(&at[4], pairs, 1);
    c->experts.row = layout_take(&at[4], pairs, 1, sizeof(int));
    c->experts.first = layout_take(&at[4], u(s->n_experts) + 1, 1, sizeof(int));
    at[4].used = MAX(at[4].used, shared.used);
    at[4].overflow = at[4].overflow || shared.overflow;
}

/* At least the bytes of the longest row that an op packs, heads group by group:
 * act_bytes(n) is 5/4 of n and what rounding up adds. */
static uint64_t longest_acts(const Shape *s)
{
    const uint64_t lengths[] = { u(s->dim), u(s->q_rank), u(s->o_groups) * u(s->o_rank),
                                 u(s->n_heads) * u(s->head_dim) };
    uint64_t most = 0;

    for (size_t i = 0; i < COUNT(lengths); i++)
        most = MAX(most, lengths[i]);
    return (most / 4 * 5 + (u(s->o_groups) + 2) * ACT_ALIGN) / ACT_ALIGN * ACT_ALIGN;
}

/* Bytes of scratch, with the pointers into it set when base is given: what a
 * step needs throughout, then what the ops use in turn. */
static uint64_t lay_out(Cpu *c, char *base)
{
    const Shape *s = c->be.shape;
    const uint64_t rows = u(c->max_rows);
    Layout l = { .base = base }, op[9];
    uint64_t most = 0;

    c->at = layout_take(&l, rows, 1, sizeof *c->at);
    for (int i = 0; i < 2; i++) {
        c->freq[i] = take(&l, 1, s->rope_dim / 2);
        c->turn[i] = take(&l, rows, s->rope_dim);
    }
    c->acts.bytes = (size_t)longest_acts(s);
    c->acts.rows = layout_take(&l, MAX(MAX(rows, u(c->max_out)), u(c->threads)), 1, c->acts.bytes);
    lay_out_attention(c, &l, op);
    lay_out_rest(c, &l, op + 4);
    for (int i = 0; i < 9; i++)
        most = op[i].overflow ? UINT64_MAX : MAX(most, op[i].used);
    return most < UINT64_MAX - ALIGN ? most + ALIGN : UINT64_MAX; /* room to align the base */
}

/* Products of one row in one layer, about. */
static uint64_t row_macs(const Shape *s)
{
    const uint64_t heads = u(s->n_heads) * u(s->head_dim), low = u(s->o_groups) * u(s->o_rank);

    return u(s->dim) * (u(s->q_rank) + u(s->head_dim) + low) +
           heads * (u(s->q_rank) + u(s->o_rank)) +
           3 * u(s->dim) * (u(s->n_active) * u(s->expert_dim) + u(s->shared_dim));
}

/* Below this a layer's ops take a few microseconds each, and meeting (0.5, and 3 to 5 with
 * the lines that go from cache to cache) costs as much as the other thread spares: the bundled
 * model decodes 2,300 tokens/s with one thread where two gave 1,050 to 2,000. */
static const uint64_t lone_macs = 2 << 20;

/* The numbers that decide the scratch. */
static void size_up(Cpu *c, const Shape *s, const BackendOptions *opt, int threads)
{
    c->be.shape = s;
    c->threads = threads;
    c->max_rows = MAX(opt->max_rows, 1);
    c->max_out = MAX(opt->max_out, 1);
    c->max_context = MAX(opt->max_context, 1);
    c->exact = opt->exact;
    if (opt->threads <= 0)
        c->lone_rows = (int)(lone_macs / MAX(row_macs(s), (uint64_t)1));
    for (int i = 0; i < s->n_layers; i++) {
        if (shape_overlaps(s->ratio[i]))
            c->select_cap = shape_visible(s->ratio[i], c->max_context - 1);
    }
    uint64_t row = u(c->select_cap) * sizeof(float);
    uint64_t fit = row ? score_bytes / row : 0;
    c->select_rows = (int)MIN(MAX(fit, u(threads)), u(c->max_rows));
}

uint64_t cpu_scratch(const Shape *shape, const BackendOptions *opt)
{
    Cpu c = { 0 };
    size_up(&c, shape, opt,
            opt->threads > 0 ? opt->threads : MIN(cores_usable(), (int)MAX_THREADS));
    return lay_out(&c, NULL);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* calloc gives large blocks as fresh pages, which cost nothing until touched. */
static Buf cpu_alloc(Backend *be, size_t bytes)
{
    (void)be;
    return (Buf){ calloc(MAX(bytes, 1), 1), 0 };
}

static void cpu_free(Backend *be, Buf b)
{
    (void)be;
    free(b.base);
}

static void cpu_write(Backend *be, Buf dst, const void *src, size_t bytes)
{
    (void)be;
    memcpy(bytes_of(dst), src, bytes);
}

static void cpu_read(Backend *be, void *dst, Buf src, size_t bytes)
{
    (void)be;
    memcpy(dst, bytes_of(src), bytes);
}

static void cpu_copy(Backend *be, Buf dst, Buf src, size_t bytes)
{
    (void)be;
    memmove(bytes_of(dst), bytes_of(src), bytes);
}

static float *cpu_seen(Backend *be, Buf out)
{
    (void)be;
    return floats(out);
}

/* Relative L2 error of an op with packed activations: an expert packs twice, and a toy has
 * few values for errors to average over. */
static const float input_rounding = 2e-2f;

static bool cpu_bind(Backend *be, Weight *w, const void *host, ds4_err *err)
{
    const Kernels *k = cpu_of(be)->k;

    if (w->type < 0 || w->type >= QUANT_END || !k->gemm[w->type])
        return fail(err, DS4_EFORMAT, "weights of type %s: %s cannot multiply them",
                    quant_name(w->type), be->name);
    if (w->cols % quant_format(w->type)->block_len)
        return fail(err, DS4_EFORMAT, "%s weights of %d columns: blocks have %d",
                    quant_name(w->type), w->cols, quant_format(w->type)->block_len);
    w->data = (Buf){ (void *)(uintptr_t)host, 0 };
    if (input_is_packed(cpu_of(be), w))
        be->rounding = input_rounding;
    return true;
}

/* ---- the edges of a step ---------------------------------------------------------------------- */

static bool cpu_begin(Backend *be, const Step *step)
{
    Cpu *c = cpu_of(be);
    const int pairs = be->shape->rope_dim / 2;

    c->err = (ds4_err){ 0 };
    atomic_store(&c->bad_expert, -1);
    if (!step_fits(step, c->max_rows, c->max_out, c->max_context, &c->err))
        return false; /* nothing to replay: end() tells why */
    pool_alone(c->pool, step->n_rows <= c->lone_rows);
    for (const Span *s = step->span; s < step->span + step->n_spans; s++) {
        for (int i = 0; i < s->n; i++) {
            size_t at = (size_t)(s->row + i) * (size_t)(2 * pairs);
            c->at[s->row + i] = (RowAt){ s->slot, s->pos + i };
            for (int kind = 0; kind < 2; kind++)
                rope_angles(c->turn[kind] + at, c->freq[kind], pairs, s->pos + i);
        }
    }
    return true;
}

static bool cpu_end(Backend *be, ds4_err *err)
{
    Cpu *c = cpu_of(be);
    int expert = atomic_load(&c->bad_expert);

    if (!c->err.code && expert >= 0)
        fail(&c->err, DS4_EFORMAT, "the table of hashed experts names expert %d, of %d", expert,
             be->shape->n_experts);
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK;
}

/* ---- open and close ---------------------------------------------------------------------------- */

static void cpu_close(Backend *be)
{
    Cpu *c = cpu_of(be);

    pool_free(c->pool);
    free(c->memory);
    free(c);
}

static const struct Ops cpu_ops = { .alloc = cpu_alloc,
                                    .free = cpu_free,
                                    .write = cpu_write,
                                    .read = cpu_read,
                                    .copy = cpu_copy,
                                    .seen = cpu_seen,
                                    .bind = cpu_bind,
                                    .begin = cpu_begin,
                                    .end = cpu_end,
                                    .close = cpu_close,
#define OP(name, params, args) .name = cpu_##name,
                                    OPS(OP)
#undef OP
};

static bool get_scratch(Cpu *c, ds4_err *err)
{
    uint64_t bytes = lay_out(c, NULL);

    if (bytes < SIZE_MAX)
        c->memory = calloc((size_t)bytes, 1);
    if (!c->memory)
        return fail(err, DS4_ENOMEM, "no room for %llu bytes of scratch for steps of %d rows",
                    (unsigned long long)bytes, c->max_rows);
    uintptr_t at = (uintptr_t)c->memory, skip = (ALIGN - at % ALIGN) % ALIGN;
    lay_out(c, (char *)c->memory + skip);
    return true;
}

Backend *cpu_open(const Shape *shape, const BackendOptions *opt, ds4_err *err)
{
    Cpu *c = calloc(1, sizeof *c);

    if (!c) {
        fail(err, DS4_ENOMEM, "no memory for a CPU backend");
        return NULL;
    }
    c->be.op = &cpu_ops;
    c->be.name = c->name;
    c->k = kernels_find(opt->isa, err);
    c->pool = c->k ? pool_new(opt->threads, err) : NULL;
    if (c->pool)
        size_up(c, shape, opt, pool_threads(c->pool));
    if (!c->pool || !get_scratch(c, err)) {
        cpu_close(&c->be);
        return NULL;
    }
    c->be.gives_hidden = c->exact;
    snprintf(c->name, sizeof c->name, "cpu (%s, %d thread%s%s)", c->k->name, c->threads,
             c->threads == 1 ? "" : "s", c->exact ? ", exact" : "");
    rope_tables(c);
    return &c->be;
}
