/* collect.c - a backend that adds up what goes into the matrices of the routed
 * experts of another one: sums of squares by column, expert and layer.
 *
 * x of gate and up is an input of the op. h of down is not, so the device leaves
 * it in Backend.hidden. Sums are in double: a run may see 10^8 rows. */
#include "wrap.h"
#include <stdlib.h>

typedef struct {
    Wrap w;
    struct Ops op;
    ds4_importance sums;
    double *x, *h;
    uint64_t *count;
    Buf hidden; /* of a step */
    /* read from the device */
    float *row_x, *row_h;
    int32_t *id;
} Collect;

static Collect *collect_of(Backend *be) { return (Collect *)(void *)be; }

/* ---- sums ----------------------------------------------------------------------------- */

static void add_squares(double *sum, const float *v, int n)
{
    for (int i = 0; i < n; i++)
        sum[i] += (double)v[i] * (double)v[i];
}

static void add_row(Collect *t, int layer, const float *x, const float *h, const int32_t *id, int n)
{
    const ds4_importance *s = &t->sums;
    for (int k = 0; k < n; k++) {
        if (id[k] < 0 || id[k] >= s->experts)
            continue; /* the op has failed, and end() will say so */
        size_t e = (size_t)layer * (size_t)s->experts + (size_t)id[k];
        t->count[e]++;
        add_squares(t->x + e * (size_t)s->dim, x, s->dim);
        add_squares(t->h + e * (size_t)s->hidden, h + (size_t)k * (size_t)s->hidden, s->hidden);
    }
}

static void collect_experts(Backend *be, const Step *step, Buf y, Buf x, Buf ids, Buf gates,
                            const Layer *l)
{
    Collect *t = collect_of(be);
    Backend *in = t->w.inner;
    const size_t dim = (size_t)t->sums.dim, active = (size_t)be->shape->n_active;
    const size_t rows = (size_t)step->n_rows, wide = active * (size_t)t->sums.hidden;

    in->op->experts(in, step, y, x, ids, gates, l);
    in->op->read(in, t->row_x, x, rows * dim * sizeof(float));
    in->op->read(in, t->row_h, t->hidden, rows * wide * sizeof(float));
    in->op->read(in, t->id, ids, rows * active * sizeof(int32_t));
    for (size_t i = 0; i < rows; i++)
        add_row(t, l->index, t->row_x + i * dim, t->row_h + i * wide, t->id + i * active,
                (int)active);
}

/* ---- the rest goes through --------------------------------------------------------------- */

#define OP(name, params, args) \
    static void pass_##name(Backend *be, const Step *step, LIST params) \
    { \
        Backend *in = collect_of(be)->w.inner; \
        in->op->name(in, step, LIST args); \
    }
OPS(OP)
#undef OP

static void release(Collect *t)
{
    free(t->x);
    free(t->h);
    free(t->count);
    free(t->row_x);
    free(t->row_h);
    free(t->id);
}

static void collect_close(Backend *be)
{
    Collect *t = collect_of(be);
    t->w.inner->op->free(t->w.inner, t->hidden);
    release(t);
    wrap_close(be);
}

static const struct Ops passing = { WRAP_OPS, .close = collect_close,
#define OP(name, params, args) .name = pass_##name,
                                    OPS(OP)
#undef OP
};

/* ---- opening ----------------------------------------------------------------------------- */

typedef struct {
    size_t sums_x, sums_h, counts; /* values of the sums */
    size_t rows_x, rows_h, ids;    /* values of a step */
} Sizes;

static Sizes sizes_of(const Shape *s, int max_rows)
{
    const size_t experts = (size_t)s->n_layers * (size_t)s->n_experts, rows = (size_t)max_rows;
    const size_t pairs = rows * (size_t)s->n_active;
    return (Sizes){ .sums_x = experts * (size_t)s->dim,
                    .sums_h = experts * (size_t)s->expert_dim,
                    .counts = experts,
                    .rows_x = rows * (size_t)s->dim,
                    .rows_h = pairs * (size_t)s->expert_dim,
                    .ids = pairs };
}

uint64_t collect_scratch(const Shape *s, int max_rows)
{
    const Sizes n = sizes_of(s, max_rows);
    return (n.sums_x + n.sums_h) * sizeof(double) + n.counts * sizeof(uint64_t) +
           (n.rows_x + 2 * n.rows_h) * sizeof(float) + n.ids * sizeof(int32_t);
}

static bool take_memory(Collect *t, Backend *inner, int max_rows)
{
    const Shape *s = inner->shape;
    const Sizes n = sizes_of(s, max_rows);

    t->x = calloc(n.sums_x, sizeof *t->x);
    t->h = calloc(n.sums_h, sizeof *t->h);
    t->count = calloc(n.counts, sizeof *t->count);
    t->row_x = calloc(n.rows_x, sizeof *t->row_x);
    t->row_h = calloc(n.rows_h, sizeof *t->row_h);
    t->id = calloc(n.ids, sizeof *t->id);
    if (!t->x || !t->h || !t->count || !t->row_x || !t->row_h || !t->id)
        return false;
    t->hidden = inner->op->alloc(inner, n.rows_h * sizeof(float));
    t->sums = (ds4_importance){ .layers = s->n_layers,
                                .experts = s->n_experts,
                                .dim = s->dim,
                                .hidden = s->expert_dim,
                                .count = t->count,
                                .x = t->x,
                                .h = t->h };
    return t->hidden.base != NULL;
}

Backend *collect_open(Backend *inner, int max_rows, ds4_err *err)
{
    if (!inner->gives_hidden) {
        fail(err, DS4_EINVAL,
             "%s does not tell what goes into the experts' matrices: collect on "
             "the CPU",
             inner->name);
        return NULL;
    }
    Collect *t = calloc(1, sizeof *t);
    if (!t || !take_memory(t, inner, max_rows)) {
        if (t)
            release(t);
        free(t);
        fail(err, DS4_ENOMEM, "no memory for the collecting backend");
        return NULL;
    }
    t->op = passing;
    t->op.experts = collect_experts;
    wrap_init(&t->w, inner, &t->op, "collect");
    inner->hidden = t->hidden;
    return &t->w.be;
}

bool collect_sums(const Backend *be, ds4_importance *out)
{
    if (be->op->experts != collect_experts)
        return false;
    *out = ((const Collect *)(const void *)be)->sums;
    return true;
}
