/* moe.c - the experts: y = sum of gate_k * down_k . swiglu(gate_k . x, up_k . x).
 *
 * The rows of a step are sorted by expert, so an expert's weights are read
 * once however many rows chose it. Up, the (expert, neuron) grid is cut into
 * runs of equal work; down, a thread has the same outputs of every expert, so
 * that a row's experts add up in ascending id. The gate multiplies before
 * down. The shared expert is one expert that every row chose.
 *
 * Where the matrices multiply int8, x is packed once for all experts, and h as
 * soon as a run of it is there. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Weight *gate, *up, *down;
    float limit;
    Rows x, y; /* by row */
    Input in;  /* [pairs] x of experts with several rows, side by side */
    Input h;   /* [pairs] */
    int n_experts;
    bool gather;         /* some expert has several rows */
    const int *first;    /* [n_experts + 1] an expert's pairs */
    const int *row;      /* [pairs]; NULL: pair i is row i */
    const float *weight; /* [pairs]; NULL: 1 */
} Moe;

static int row_of(const Moe *a, int pair) { return a->row ? a->row[pair] : pair; }
static int rows_of_expert(const Moe *a, int e) { return a->first[e + 1] - a->first[e]; }

static Input some(Input in, int first, int n)
{
    in.rows.p = row_at(in.rows, first);
    in.rows.n = n;
    if (in.acts)
        in.acts += (size_t)first * in.ld;
    return in;
}

/* ---- tiles: some rows by some columns, in a thread's own place ------------------------- */

/* Integer kernels expand weights for as many rows as they get; the others
 * decode for few at a time, which stay in the cache. */
enum { INT_ROWS = EXPERT_TILE / W_TILE };

static int tile_rows(const Input *x, int n) { return MIN(n, x->acts ? INT_ROWS : X_TILE); }

static int tile_width(const Input *x, int n)
{
    return n > 1 && !x->acts ? W_TILE : EXPERT_TILE / n / W_TILE * W_TILE;
}

static float *tile_of(const Moe *a, int ith)
{
    return a->c->experts.tile + (size_t)ith * 2 * EXPERT_TILE;
}

/* tile[i * width + k] = row j + k of expert e's matrix . row i of x */
static void multiply_tile(const Cpu *c, float *tile, int width, const Weight *w, int e, Input x,
                          int j, int n)
{
    const void *rows = weight_at(w, e, j);

    if (x.acts)
        c->k->gemm_i8[w->type](tile, (size_t)width, rows, weight_row_bytes(w), n, x.acts, x.ld,
                               x.rows.n, w->cols);
    else
        c->k->gemm[w->type](tile, (size_t)width, rows, weight_row_bytes(w), n, x.rows.p, x.rows.ld,
                            x.rows.n, w->cols);
}

/* ---- up ------------------------------------------------------------------------------- */

/* h of pairs [pair, pair + x.n), neurons [j, j + n) */
static void swiglu_tile(const Moe *a, int e, int pair, Input x, int j, int n, float *g, int width)
{
    const Cpu *c = a->c;
    float *u = g + EXPERT_TILE;

    multiply_tile(c, g, width, a->gate, e, x, j, n);
    multiply_tile(c, u, width, a->up, e, x, j, n);
    for (int i = 0; i < x.rows.n; i++, g += width, u += width) {
        float *h = a->h.acts ? g : row_at(a->h.rows, pair + i) + j;
        c->k->swiglu(h, g, u, a->limit, a->weight ? a->weight[pair + i] : 1, n);
        if (a->h.acts) {
            c->k->act_pack(u, h, n);
            act_put(a->h.acts + (size_t)(pair + i) * a->h.ld, a->down->cols, j, u, n);
        }
    }
}

/* The rows of expert e: one lies with the others, several were gathered. */
static Input inputs_of(const Moe *a, int e, Input all)
{
    const int first = a->first[e], n = rows_of_expert(a, e);
    return a->gather && n > 1 ? some(a->in, first, n) : some(all, row_of(a, first), n);
}

/* Neurons [first, last) of expert e, which has rows. */
static void expert_up(const Moe *a, int e, Input all, int first, int last, float *tile)
{
    const Input x = inputs_of(a, e, all);
    const int rows = tile_rows(&x, x.rows.n), width = tile_width(&x, rows);

    for (int j = first; j < last; j += width) {
        for (int i = 0; i < x.rows.n; i += rows)
            swiglu_tile(a, e, a->first[e] + i, some(x, i, MIN(rows, x.rows.n - i)), j,
                        MIN(width, last - j), tile, width);
    }
}

/* ---- cutting the grid --------------------------------------------------------------------- */

/* A place in the grid: `unit` of expert e, in UP_UNIT neurons. */
typedef struct {
    int e, unit;
} Place;

/* What multiples of packed blocks are, and what reading and expanding an expert's weights
 * costs, in rows: on Zen 4 1,024 rows of IQ2_XXS take 110 us and 25 us for each row of x. */
enum { UP_UNIT = ACT_BLOCK, EXPERT_COST = 4 };

static int64_t cost_of(const Moe *a, int e)
{
    const int n = rows_of_expert(a, e);
    return n ? n + EXPERT_COST : 0;
}

/* Where `part` of `parts` of the work begins. */
static Place place_at(const Moe *a, int part, int parts)
{
    const int64_t units = (a->gate->rows + UP_UNIT - 1) / UP_UNIT;
    int64_t total = 0, at;
    int e = 0;

    for (int i = 0; i < a->n_experts; i++)
        total += cost_of(a, i) * units;
    at = total * part / parts;
    while (e < a->n_experts && at >= cost_of(a, e) * units)
        at -= cost_of(a, e++) * units;
    return (Place){ e, e < a->n_experts ? (int)(at / cost_of(a, e)) : 0 };
}

static void all_up(const Moe *a, Input x, int ith, int nth)
{
    const Place from = place_at(a, ith, nth), to = place_at(a, ith + 1, nth);

    for (int e = from.e; e <= to.e && e < a->n_experts; e++) {
        int first = e == from.e ? from.unit * UP_UNIT : 0;
        int last = e == to.e ? to.unit * UP_UNIT : a->gate->rows;
        if (rows_of_expert(a, e) && first < last)
            expert_up(a, e, x, first, last, tile_of(a, ith));
    }
}

/* ---- down ------------------------------------------------------------------------------ */

static void down_tile(const Moe *a, int e, int pair, Input h, int j, int n, float *tile, int width)
{
    multiply_tile(a->c, tile, width, a->down, e, h, j, n);
    for (int i = 0; i < h.rows.n; i++, tile += width)
        a->c->k->axpy(row_at(a->y, row_of(a, pair + i)) + j, 1, tile, n);
}

/* Outputs [first, last) of expert e. */
static void expert_down(const Moe *a, int e, int first, int last, float *tile)
{
    const int from = a->first[e], n = rows_of_expert(a, e);
    if (!n)
        return;
    const int rows = tile_rows(&a->h, n), width = tile_width(&a->h, rows);

    for (int j = first; j < last; j += width) {
        for (int i = 0; i < n; i += rows)
            down_tile(a, e, from + i, some(a->h, from + i, MIN(rows, n - i)), j,
                      MIN(width, last - j), tile, width);
    }
}

/* ---- both -------------------------------------------------------------------------------- */

static void gather_rows(const Moe *a, Input x, int ith, int nth)
{
    for (int e = 0; e < a->n_experts; e++) {
        if (rows_of_expert(a, e) < 2)
            continue;
        for (int i = a->first[e]; i < a->first[e + 1]; i++) {
            if (i % nth != ith)
                continue;
            if (x.acts)
                memcpy(a->in.acts + (size_t)i * x.ld, x.acts + (size_t)a->row[i] * x.ld, x.ld);
            else
                memcpy(row_at(a->in.rows, i), row_at(x.rows, a->row[i]), x.rows.ld * sizeof(float));
        }
    }
}

static void moe_part(void *arg, int ith, int nth)
{
    const Moe *a = arg;
    const Input x = a->in.acts ? input_of(a->c, a->x, a->gate, ith, nth) : (Input){ .rows = a->x };
    int first, last;

    if (a->gather) {
        gather_rows(a, x, ith, nth);
        pool_barrier(a->c->pool);
    }
    all_up(a, x, ith, nth);
    pool_barrier(a->c->pool);

    cpu_part(a->down->rows, ith, nth, &first, &last);
    for (int i = 0; a->row && i < a->y.n; i++)
        memset(row_at(a->y, i) + first, 0, (size_t)(last - first) * sizeof(float));
    for (int e = 0; e < a->n_experts; e++)
        expert_down(a, e, first, last, tile_of(a, ith));
}

/* The same memory holds floats or packed rows, which are shorter. */
static Input scratch_rows(float *p, int n, int cols, bool packed)
{
    return (Input){ { p, (size_t)cols, n }, packed ? (char *)p : NULL, act_bytes(cols) };
}

static void run(Moe *a, Buf y, Buf x, int n_rows, int pairs)
{
    const Cpu *c = a->c;
    const int dim = c->be.shape->dim;
    const bool packed = input_is_packed(c, a->gate) && input_is_packed(c, a->up);

    a->x = rows_of(x, dim, n_rows);
    a->y = rows_of(y, dim, n_rows);
    a->in = scratch_rows(c->experts.x, pairs, dim, packed);
    a->h = scratch_rows(c->experts.h, pairs, a->down->cols, input_is_packed(c, a->down));
    pool_run(c->pool, moe_part, a);
}

/* h of each row's experts, in the order of ids: for who looks on. */
static void tell_hidden(const Moe *a, const int32_t *ids, float *out)
{
    const int active = a->c->be.shape->n_active;
    const size_t n = (size_t)a->down->cols;

    assert(!a->h.acts); /* gives_hidden says that they are floats */
    for (int e = 0; e < a->n_experts; e++) {
        for (int i = a->first[e]; i < a->first[e + 1]; i++) {
            const int32_t *id = ids + (size_t)a->row[i] * (size_t)active;
            for (int k = 0; k < active; k++) {
                if (id[k] == e)
                    memcpy(out + ((size_t)(id - ids) + (size_t)k) * n, row_at(a->h.rows, i),
                           n * sizeof(float));
            }
        }
    }
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
    Moe a = { .c = c,
              .gate = &l->gate,
              .up = &l->up,
              .down = &l->down,
              .limit = s->swiglu_limit[l->index],
              .n_experts = s->n_experts,
              .first = c->experts.first,
              .row = c->experts.row,
              .weight = c->experts.gate };

    sort_pairs(c, ints(ids), floats(gates), step->n_rows);
    for (int e = 0; e < s->n_experts && !a.gather; e++)
        a.gather = rows_of_expert(&a, e) > 1;
    run(&a, y, x, step->n_rows, step->n_rows * s->n_active);
    if (be->hidden.base)
        tell_hidden(&a, ints(ids), floats(be->hidden));
}

void cpu_shared(Backend *be, const Step *step, Buf y, Buf x, const Layer *l)
{
    Cpu *c = cpu_of(be);
    const Shape *s = be->shape;
    const int all[2] = { 0, step->n_rows };
    Moe a = { .c = c,
              .gate = &l->sh_gate,
              .up = &l->sh_up,
              .down = &l->sh_down,
              .limit = s->swiglu_limit[l->index],
              .n_experts = 1,
              .first = all };

    run(&a, y, x, step->n_rows, step->n_rows);
}
