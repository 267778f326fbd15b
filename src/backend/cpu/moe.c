/* moe.c - the experts: y = sum of gate_k * down_k . swiglu(gate_k . x, up_k . x).
 *
 * The rows of a step are sorted by expert, so an expert's weights are read
 * once however many rows chose it. A thread computes the same slice of every
 * expert: no expert waits for a thread with more rows. The gate multiplies
 * before down, and a row's experts add up in ascending id. The shared expert
 * is one expert that every row chose. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Weight *gate, *up, *down;
    float limit;
    Rows x, h, y; /* x and y by row; h by (row, expert) pair */
    int n_experts;
    const int *first;    /* [n_experts + 1] an expert's pairs */
    const int *row;      /* [pairs]; NULL: pair i is row i */
    const float *weight; /* [pairs]; NULL: 1 */
    float *gathered;     /* [pairs][dim]; used by experts with several rows */
} Moe;

static int row_of(const Moe *a, int pair) { return a->row ? a->row[pair] : pair; }

/* ---- up ------------------------------------------------------------------------------- */

/* h of pairs [pair, pair + x.n), neurons [j, j + n), both at most a tile */
static void swiglu_tile(const Moe *a, int e, int pair, Rows x, int j, int n)
{
    const Cpu *c = a->c;
    float g[X_TILE * W_TILE], u[X_TILE * W_TILE];

    c->k->gemm[a->gate->type](g, W_TILE, weight_at(a->gate, e, j), weight_row_bytes(a->gate), n,
                              x.p, x.ld, x.n, a->gate->cols);
    c->k->gemm[a->up->type](u, W_TILE, weight_at(a->up, e, j), weight_row_bytes(a->up), n, x.p,
                            x.ld, x.n, a->up->cols);
    for (int i = 0; i < x.n; i++)
        c->k->swiglu(row_at(a->h, pair + i) + j, g + (size_t)i * W_TILE, u + (size_t)i * W_TILE,
                     a->limit, a->weight ? a->weight[pair + i] : 1, n);
}

static Rows inputs_of(const Moe *a, int e)
{
    const int first = a->first[e], n = a->first[e + 1] - first;

    if (!n)
        return (Rows){ 0 }; /* there may be no pair at `first` */
    if (a->row && n > 1)
        return (Rows){ a->gathered + (size_t)first * a->x.ld, a->x.ld, n };
    return (Rows){ row_at(a->x, row_of(a, first)), a->x.ld, n };
}

static void expert_up(const Moe *a, int e, int first, int last)
{
    const Rows x = inputs_of(a, e);

    for (int j = first; j < last; j += W_TILE) {
        for (int i = 0; i < x.n; i += X_TILE) {
            Rows part = { row_at(x, i), x.ld, MIN(X_TILE, x.n - i) };
            swiglu_tile(a, e, a->first[e] + i, part, j, MIN(W_TILE, last - j));
        }
    }
}

/* ---- down ------------------------------------------------------------------------------ */

static void down_tile(const Moe *a, int e, int pair, int n_pairs, int j, int n)
{
    const Kernels *k = a->c->k;
    float out[X_TILE * W_TILE];

    k->gemm[a->down->type](out, W_TILE, weight_at(a->down, e, j), weight_row_bytes(a->down), n,
                           row_at(a->h, pair), a->h.ld, n_pairs, a->down->cols);
    for (int i = 0; i < n_pairs; i++) {
        float *y = row_at(a->y, row_of(a, pair + i)) + j;
        for (int d = 0; d < n; d++)
            y[d] += out[i * W_TILE + d];
    }
}

static void expert_down(const Moe *a, int e, int first, int last)
{
    for (int j = first; j < last; j += W_TILE) {
        for (int i = a->first[e]; i < a->first[e + 1]; i += X_TILE)
            down_tile(a, e, i, MIN(X_TILE, a->first[e + 1] - i), j, MIN(W_TILE, last - j));
    }
}

/* ---- both -------------------------------------------------------------------------------- */

static void gather_rows(const Moe *a, int ith, int nth)
{
    for (int e = 0; e < a->n_experts; e++) {
        if (a->first[e + 1] - a->first[e] < 2)
            continue;
        for (int i = a->first[e]; i < a->first[e + 1]; i++) {
            if (i % nth == ith)
                memcpy(a->gathered + (size_t)i * a->x.ld, row_at(a->x, a->row[i]),
                       a->x.ld * sizeof(float));
        }
    }
}

static void moe_part(void *arg, int ith, int nth)
{
    const Moe *a = arg;
    int first, last;

    if (a->row && a->x.n > 1) {
        gather_rows(a, ith, nth);
        pool_barrier(a->c->pool);
    }
    pool_part(a->gate->rows, SLICE, ith, nth, &first, &last);
    for (int e = 0; e < a->n_experts && first < last; e++)
        expert_up(a, e, first, last);
    pool_barrier(a->c->pool);

    cpu_part(a->down->rows, ith, nth, &first, &last);
    for (int i = 0; a->row && i < a->y.n; i++)
        memset(row_at(a->y, i) + first, 0, (size_t)(last - first) * sizeof(float));
    for (int e = 0; e < a->n_experts; e++)
        expert_down(a, e, first, last);
}

/* Pairs by expert, an expert's by row: a counting sort. */
static void sort_pairs(Cpu *c, const int32_t *ids, const float *gates, int n_rows)
{
    const Shape *s = c->be.shape;
    const int n = n_rows * s->n_active;
    int *first = c->experts.first;

    memset(first, 0, (size_t)(s->n_experts + 1) * sizeof *first);
    for (int i = 0; i < n; i++) {
        assert(ids[i] >= 0 && ids[i] < s->n_experts);
        first[ids[i] + 1]++;
    }
    for (int e = 0; e < s->n_experts; e++)
        first[e + 1] += first[e];
    for (int i = 0; i < n; i++) {
        int to = first[ids[i]]++;
        c->experts.row[to] = i / s->n_active;
        c->experts.gate[to] = gates[i];
    }
    for (int e = s->n_experts; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
}

void cpu_experts(Backend *be, const Step *step, Buf y, Buf x, Buf ids, Buf gates, const Layer *l)
{
    Cpu *c = cpu_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    Moe a = { .c = c,
              .gate = &l->gate,
              .up = &l->up,
              .down = &l->down,
              .limit = s->swiglu_limit[l->index],
              .n_experts = s->n_experts,
              .first = c->experts.first,
              .row = c->experts.row,
              .weight = c->experts.gate,
              .gathered = c->experts.x };

    sort_pairs(c, ints(ids), floats(gates), n);
    a.x = rows_of(x, s->dim, n);
    a.y = rows_of(y, s->dim, n);
    a.h = (Rows){ c->experts.h, (size_t)s->expert_dim, n * s->n_active };
    pool_run(c->pool, moe_part, &a);
}

void cpu_shared(Backend *be, const Step *step, Buf y, Buf x, const Layer *l)
{
    Cpu *c = cpu_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows, all[2] = { 0, n };
    Moe a = { .c = c,
              .gate = &l->sh_gate,
              .up = &l->sh_up,
              .down = &l->sh_down,
              .limit = s->swiglu_limit[l->index],
              .n_experts = 1,
              .first = all };

    a.x = rows_of(x, s->dim, n);
    a.y = rows_of(y, s->dim, n);
    a.h = (Rows){ c->experts.h, (size_t)s->shared_dim, n };
    pool_run(c->pool, moe_part, &a);
}
