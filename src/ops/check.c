/* check.c - a backend that runs each op on two others and compares.
 *
 * Every buffer exists twice. After an op, all that it wrote is read from both
 * sides; a difference beyond the tolerance is printed to stderr with its worst
 * element, and both sides go on from the reference's values, so each op is
 * judged alone. Selections (experts, pooled rows) may differ where scores
 * nearly tie: they are judged by the share of entries that differ. A device that
 * says how much it rounds (Backend.rounding) is judged by that. */
#include "decorate.h"
#include "outputs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TESTED, REF, N_SIDES };

/* What a Buf's base points to here. */
typedef struct {
    Buf side[N_SIDES];
    bool bound;
} Pair;

/* The arguments of an op as one side sees them. */
typedef struct {
    Layer layer;
    KvLayer kv;
    HcWeights hc;
    Weight weight;
} Args;

typedef struct {
    Backend be;
    Backend *inner[N_SIDES];
    Args args[N_SIDES];
    const char *op;
    Pair **bound; /* pairs made by bind: freed at close */
    size_t n_bound;
    char *data[N_SIDES]; /* what compare() read */
    size_t cap;
    CheckReport report;
    bool out_of_memory;
    char name[160];
} Check;

/* L2 of the difference over L2 of the reference. Packed rows and selections
 * may flip a code or an entry where values nearly tie; where inputs are rounded, one
 * entry of however few, and what depends on the choice with it. */
static const double tolerance_f32 = 1e-5, tolerance_row = 5e-3, tolerance_picks = 0.02;

static double tolerance_of_floats(const Backend *tested)
{
    return fmax(tolerance_f32, (double)tested->rounding);
}

static double tolerance_of(const Backend *tested, const Output *o)
{
    const double r = (double)tested->rounding;

    if (o->kind == OUT_I32)
        return fmax(tolerance_picks, 2 * sqrt(r)); /* queries of 4 bits turn with less */
    return o->chosen ? fmax(tolerance_f32, sqrt(r)) : tolerance_of_floats(tested);
}

static Check *check_of(Backend *be) { return (Check *)(void *)be; }

/* ---- one side's view of a buffer, a weight, a layer ----------------------- */

static Buf side_buf(Buf b, int side)
{
    if (!b.base)
        return b;
    return buf_at(((Pair *)b.base)->side[side], b.off);
}

static Weight side_of_weight(const Weight *w, int side)
{
    Weight r = *w;
    r.data = side_buf(w->data, side);
    return r;
}

static HcWeights side_of_hc(const HcWeights *h, int side)
{
    return (HcWeights){ side_of_weight(&h->proj, side), side_buf(h->scale, side),
                        side_buf(h->base, side) };
}

static CompWeights side_of_comp(const CompWeights *c, int side)
{
    return (CompWeights){ side_of_weight(&c->kv, side), side_of_weight(&c->gate, side),
                          side_buf(c->ape, side), side_buf(c->norm, side) };
}

static Buf arg_buf(Check *c, int side, Buf b)
{
    (void)c;
    return side_buf(b, side);
}

static const Weight *arg_weight(Check *c, int side, const Weight *w)
{
    c->args[side].weight = side_of_weight(w, side);
    return &c->args[side].weight;
}

static const HcWeights *arg_hc(Check *c, int side, const HcWeights *h)
{
    c->args[side].hc = side_of_hc(h, side);
    return &c->args[side].hc;
}

static KvLayer *arg_kv(Check *c, int side, KvLayer *kv)
{
    KvLayer *r = &c->args[side].kv;
    Buf *const bufs[] = { &r->ring, &r->comp,   &r->comp_kv,  &r->comp_score,
                          &r->idx,  &r->idx_kv, &r->idx_score };

    *r = *kv;
    for (size_t i = 0; i < COUNT(bufs); i++)
        *bufs[i] = side_buf(*bufs[i], side);
    return r;
}

static const Layer *arg_layer(Check *c, int side, const Layer *l)
{
    Layer *r = &c->args[side].layer;
    Buf *const bufs[] = { &r->attn_norm, &r->ffn_norm,   &r->q_norm,    &r->kv_norm,
                          &r->sinks,     &r->route_bias, &r->route_hash };
    Weight *const weights[] = { &r->q_a,   &r->q_b,     &r->kv,     &r->o_a,    &r->o_b,
                                &r->idx_q, &r->idx_w,   &r->router, &r->gate,   &r->up,
                                &r->down,  &r->sh_gate, &r->sh_up,  &r->sh_down };

    *r = *l;
    for (size_t i = 0; i < COUNT(bufs); i++)
        *bufs[i] = side_buf(*bufs[i], side);
    for (size_t i = 0; i < COUNT(weights); i++)
        weights[i]->data = side_buf(weights[i]->data, side);
    r->hc_attn = side_of_hc(&l->hc_attn, side);
    r->hc_ffn = side_of_hc(&l->hc_ffn, side);
    r->comp = side_of_comp(&l->comp, side);
    r->idx_comp = side_of_comp(&l->idx_comp, side);
    return r;
}

/* ---- comparing ------------------------------------------------------------- */

typedef struct {
    double error;
    size_t at;
    double got, want;
} Difference;

static Difference compare_floats(const float *a, const float *b, size_t n)
{
    Difference d = { 0 };
    double diff = 0, ref = 0, worst = -1;

    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)a[i] - (double)b[i]);
        if (a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
            e = 0; /* infinities of one sign are equal */
        if (!(e <= worst)) {
            worst = e;
            d.at = i;
        }
        diff += e * e;
        ref += isfinite(b[i]) ? (double)b[i] * (double)b[i] : 0;
    }
    if (n)
        d.got = (double)a[d.at], d.want = (double)b[d.at];
    d.error = diff == 0 ? 0 : sqrt(diff / (ref > 0 ? ref : 1));
    return d;
}

static int by_value(const void *x, const void *y)
{
    const int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    return (a > b) - (a < b);
}

/* How many of the n values of a are not among those of b; both are sorted. */
static size_t missing(const int32_t *a, const int32_t *b, size_t n)
{
    size_t found = 0;

    for (size_t i = 0, j = 0; i < n && j < n;) {
        if (a[i] == b[j])
            i++, j++, found++;
        else if (a[i] < b[j])
            i++;
        else
            j++;
    }
    return n - found;
}

/* One entry more moves all that follow, so it is lists that are compared, row by row;
 * equal lists must be in the same order, too. Sorts both. */
static size_t differing(int32_t *a, int32_t *b, size_t n)
{
    size_t moved = 0;

    for (size_t i = 0; i < n; i++)
        moved += a[i] != b[i];
    if (!moved)
        return 0;
    qsort(a, n, sizeof *a, by_value);
    qsort(b, n, sizeof *b, by_value);
    const size_t others = missing(a, b, n);
    return others ? others : moved;
}

static Difference compare_ints(Check *c, const Output *o)
{
    Difference d = { 0 };
    const int32_t *a = (const int32_t *)(const void *)c->data[TESTED];
    const int32_t *b = (const int32_t *)(const void *)c->data[REF];
    int32_t *x = malloc(2 * MAX(o->width, 1) * sizeof *x);
    size_t sum = 0;

    if (!x) {
        c->out_of_memory = true;
        return (Difference){ .error = NAN };
    }
    for (size_t at = 0; at < o->n; at += o->width) {
        memcpy(x, a + at, o->width * sizeof *x);
        memcpy(x + o->width, b + at, o->width * sizeof *x);
        size_t differ = differing(x, x + o->width, o->width);
        if (differ && !sum)
            for (d.at = at; a[d.at] == b[d.at];)
                d.at++;
        sum += differ;
    }
    if (o->n)
        d.got = a[d.at], d.want = b[d.at];
    d.error = o->n ? (double)sum / (double)o->n : 0;
    free(x);
    return d;
}

static void unpack(const Output *o, float *x, const void *row)
{
    if (o->kind == OUT_KV_ROW)
        kvrow_unpack(&o->kv->row, x, row);
    else
        idxrow_unpack(&o->kv->idx_row, x, row);
}

/* Values near the middle between two codes may fall to either side. Where inputs are
 * rounded by r, a share r / s of values moves by s, the relative step of the codes, below
 * 1: together sqrt(r s). A single one may always: that is all if the largest does. */
static double tolerance_of_row(const Backend *tested, const Output *o, const float *ref)
{
    const bool packed = o->kind == OUT_KV_ROW ? o->kv->row.packed : o->kv->idx_row.packed;
    const double step = o->kind == OUT_KV_ROW ? 1.0 / 8 : 1.0 / 3; /* E4M3; E2M1: 4 to 6 */
    double most = 0, sum = 0;

    if (!packed)
        return tolerance_of_floats(tested);
    for (size_t i = 0; i < o->n; i++) {
        most = fmax(most, fabs((double)ref[i]));
        sum += (double)ref[i] * (double)ref[i];
    }
    return fmax(tolerance_row, sqrt((double)tested->rounding)) +
           (sum > 0 ? step * most / sqrt(sum) : 0);
}

static Difference compare_rows(Check *c, const Output *o, double *tolerance)
{
    Difference d = { .error = NAN };
    float *x = malloc(2 * o->n * sizeof *x);

    if (!x) {
        c->out_of_memory = true;
        return d;
    }
    unpack(o, x, c->data[TESTED]);
    unpack(o, x + o->n, c->data[REF]);
    d = compare_floats(x, x + o->n, o->n);
    *tolerance = tolerance_of_row(c->inner[TESTED], o, x + o->n);
    free(x);
    return d;
}

static bool fits(Check *c, size_t bytes)
{
    if (bytes <= c->cap)
        return true;
    for (int i = 0; i < N_SIDES; i++) {
        char *p = realloc(c->data[i], bytes);
        if (!p)
            return !(c->out_of_memory = true);
        c->data[i] = p;
    }
    c->cap = bytes;
    return true;
}

static void report(Check *c, const Output *o, Difference d, double tolerance)
{
    c->report.compared++;
    if (!(d.error <= c->report.worst)) {
        c->report.worst = d.error;
        c->report.op = c->op;
    }
    if (d.error <= tolerance)
        return;
    if (c->report.failed++ < 32) /* a broken kernel fails everywhere */
        fprintf(stderr,
                "check: %s %s differs by %.3g (tolerance %.3g), worst at %zu: %.9g, "
                "reference %.9g\n",
                c->op, o->name, d.error, tolerance, d.at, d.got, d.want);
}

static void compare(void *user, const Output *o)
{
    Check *c = user;

    if (!fits(c, o->bytes))
        return;
    for (int i = 0; i < N_SIDES; i++)
        c->inner[i]->op->read(c->inner[i], c->data[i], side_buf(o->buf, i), o->bytes);
    double tolerance = tolerance_of(c->inner[TESTED], o);
    Difference d;
    if (o->kind == OUT_F32)
        d = compare_floats((const float *)(const void *)c->data[TESTED],
                           (const float *)(const void *)c->data[REF], o->n);
    else if (o->kind == OUT_I32)
        d = compare_ints(c, o);
    else
        d = compare_rows(c, o, &tolerance);
    report(c, o, d, tolerance);
    c->inner[TESTED]->op->write(c->inner[TESTED], side_buf(o->buf, TESTED), c->data[REF], o->bytes);
}

/* ---- the ops ----------------------------------------------------------------- */

/* Each argument as side i sees it, by its type; at most five arguments. */
#define ARG(i, a) \
    _Generic((a), Buf: arg_buf, const Weight *: arg_weight, const HcWeights *: arg_hc,    \
             const Layer *: arg_layer, KvLayer *: arg_kv)(c, i, a)
#define ARGS2(i, a, b)                            ARG(i, a), ARG(i, b)
#define ARGS3(i, a, b, d)                         ARG(i, a), ARGS2(i, b, d)
#define ARGS4(i, a, b, d, e)                      ARG(i, a), ARGS3(i, b, d, e)
#define ARGS5(i, a, b, d, e, f)                   ARG(i, a), ARGS4(i, b, d, e, f)
#define PICK6(_1, _2, _3, _4, _5, _6, macro, ...) macro
#define ARGS(...)                                 PICK6(__VA_ARGS__, ARGS5, ARGS4, ARGS3, ARGS2, ARG, 0)(__VA_ARGS__)

#define OP(name, params, args) \
    static void check_##name(Backend *be, const Step *step, LIST params) \
    { \
        Check *c = check_of(be); \
        c->op = #name; \
        for (int side = 0; side < N_SIDES; side++) \
            c->inner[side]->op->name(c->inner[side], step, ARGS(side, LIST args)); \
        outputs_##name(compare, c, be->shape, step, LIST args); \
    }
OPS(OP)
#undef OP

/* ---- memory -------------------------------------------------------------------- */

static Buf check_alloc(Backend *be, size_t bytes)
{
    Check *c = check_of(be);
    Pair *p = calloc(1, sizeof *p);

    if (!p)
        return (Buf){ 0 };
    for (int i = 0; i < N_SIDES; i++) {
        p->side[i] = c->inner[i]->op->alloc(c->inner[i], bytes);
        if (!p->side[i].base) {
            if (i)
                c->inner[0]->op->free(c->inner[0], p->side[0]);
            free(p);
            return (Buf){ 0 };
        }
    }
    return (Buf){ p, 0 };
}

static void check_free(Backend *be, Buf b)
{
    Check *c = check_of(be);
    Pair *p = b.base;

    if (!p || p->bound)
        return;
    for (int i = 0; i < N_SIDES; i++)
        c->inner[i]->op->free(c->inner[i], p->side[i]);
    free(p);
}

static void check_write(Backend *be, Buf dst, const void *src, size_t bytes)
{
    Check *c = check_of(be);
    for (int i = 0; i < N_SIDES; i++)
        c->inner[i]->op->write(c->inner[i], side_buf(dst, i), src, bytes);
}

static void check_read(Backend *be, void *dst, Buf src, size_t bytes)
{
    Check *c = check_of(be);
    c->inner[REF]->op->read(c->inner[REF], dst, side_buf(src, REF), bytes);
}

static void check_copy(Backend *be, Buf dst, Buf src, size_t bytes)
{
    Check *c = check_of(be);
    for (int i = 0; i < N_SIDES; i++)
        c->inner[i]->op->copy(c->inner[i], side_buf(dst, i), side_buf(src, i), bytes);
}

static float *check_seen(Backend *be, Buf out)
{
    Check *c = check_of(be);
    return c->inner[REF]->op->seen(c->inner[REF], side_buf(out, REF));
}

static bool check_bind(Backend *be, Weight *w, const void *host, ds4_err *err)
{
    Check *c = check_of(be);
    Pair *p = calloc(1, sizeof *p);
    Pair **all = realloc(c->bound, (c->n_bound + 1) * sizeof *all);

    if (all)
        c->bound = all;
    if (!p || !all) {
        free(p);
        return fail(err, DS4_ENOMEM, "no memory for the checking backend");
    }
    c->bound[c->n_bound++] = p;
    p->bound = true;
    for (int i = 0; i < N_SIDES; i++) {
        Weight side = *w;
        if (!c->inner[i]->op->bind(c->inner[i], &side, host, err))
            return false;
        p->side[i] = side.data;
    }
    w->data = (Buf){ p, 0 };
    return true;
}

/* ---- steps ---------------------------------------------------------------------- */

/* Both sides encode every step: a replay could not be looked at op by op. */
static bool check_begin(Backend *be, const Step *step)
{
    Check *c = check_of(be);
    for (int i = 0; i < N_SIDES; i++)
        c->inner[i]->op->begin(c->inner[i], step);
    return true;
}

static bool check_end(Backend *be, ds4_err *err)
{
    Check *c = check_of(be);
    bool ok = true;

    for (int i = 0; i < N_SIDES; i++)
        ok = c->inner[i]->op->end(c->inner[i], ok ? err : NULL) && ok;
    if (ok && c->out_of_memory)
        return fail(err, DS4_ENOMEM, "no memory to compare the outputs of %s", c->op);
    return ok;
}

static void check_close(Backend *be)
{
    Check *c = check_of(be);

    if (c->report.compared)
        fprintf(stderr, "check: %llu buffers compared, %llu beyond tolerance, worst %.3g in %s\n",
                (unsigned long long)c->report.compared, (unsigned long long)c->report.failed,
                c->report.worst, c->report.op ? c->report.op : "none");
    for (int i = 0; i < N_SIDES; i++) {
        c->inner[i]->op->close(c->inner[i]);
        free(c->data[i]);
    }
    for (size_t i = 0; i < c->n_bound; i++)
        free(c->bound[i]);
    free(c->bound);
    free(c);
}

static const struct Ops check_ops = { .alloc = check_alloc,
                                      .free = check_free,
                                      .write = check_write,
                                      .read = check_read,
                                      .copy = check_copy,
                                      .seen = check_seen,
                                      .bind = check_bind,
                                      .begin = check_begin,
                                      .end = check_end,
                                      .close = check_close,
#define OP(name, params, args) .name = check_##name,
                                      OPS(OP)
#undef OP
};

Backend *check_open(Backend *inner, Backend *ref, ds4_err *err)
{
    Check *c = calloc(1, sizeof *c);
    if (!c) {
        fail(err, DS4_ENOMEM, "no memory for the checking backend");
        return NULL;
    }
    snprintf(c->name, sizeof c->name, "check %s against %s", inner->name, ref->name);
    c->be = (Backend){ .op = &check_ops, .name = c->name, .shape = inner->shape };
    c->inner[TESTED] = inner;
    c->inner[REF] = ref;
    return &c->be;
}

CheckReport check_report(const Backend *be)
{
    if (be->op != &check_ops)
        return (CheckReport){ 0 };
    return ((const Check *)(const void *)be)->report;
}
