/* attend.c - attention of all heads over window rows and pooled rows.
 *
 * One KV row serves all heads as key and value, so rows are unpacked a tile at
 * a time and used by every head of the unit. The softmax runs along: it starts
 * at the head's sink (weight 1, no value) and is rescaled when a tile brings a
 * larger score. Tiles count from the row's first visible position, so a row's
 * result depends on nothing but the row. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Layer *l;
    const KvLayer *kv;
    const float *q;
    float *o;
    const int32_t *pick; /* NULL: every visible pooled row */
    int n_rows, blocks;  /* a unit is one of `blocks` parts of a row's heads */
} Attend;

/* What one row sees: positions from..pos of the window, then pooled rows. */
typedef struct {
    const char *ring, *comp;
    int from, n_window, n;
    const int32_t *pick;
} View;

static int count_picks(const int32_t *pick, int most, int visible)
{
    int n = 0;
    while (n < most && pick[n] >= 0 && pick[n] < visible)
        n++;
    return n;
}

static View view_of(const Attend *a, int row)
{
    const Shape *s = a->c->be.shape;
    const KvLayer *kv = a->kv;
    const RowAt at = a->c->at[row];
    const size_t slot = (size_t)at.slot, bytes = (size_t)kv->row.bytes;
    int pooled = shape_visible(kv->ratio, at.pos);
    View v = { .ring = (const char *)bytes_of(kv->ring) + slot * (size_t)kv->ring_rows * bytes };

    v.from = MAX(0, at.pos - s->window + 1);
    v.n_window = at.pos - v.from + 1;
    if (pooled)
        v.comp = (const char *)bytes_of(kv->comp) + slot * (size_t)kv->comp_rows * bytes;
    if (a->pick) {
        v.pick = a->pick + (size_t)row * (size_t)s->idx_topk;
        pooled = count_picks(v.pick, s->idx_topk, pooled);
    }
    v.n = v.n_window + pooled;
    return v;
}

static const void *view_row(const KvLayer *kv, const View *v, int i)
{
    if (i < v->n_window)
        return v->ring + (size_t)((v->from + i) % kv->ring_rows) * (size_t)kv->row.bytes;
    int j = i - v->n_window;
    return v->comp + (size_t)(v->pick ? v->pick[j] : j) * (size_t)kv->row.bytes;
}

/* The heads of one unit and what the softmax has so far. */
typedef struct {
    int n;
    const float *q;
    float *o, *score, *max;
    double *sum;
} Heads;

/* Scores of a tile to weights; earlier results shrink with the larger maximum. */
static void weigh(const Kernels *k, const Heads *h, int head, int n, float scale, int dim)
{
    float *z = h->score + (size_t)head * KV_TILE, max = h->max[head];

    k->scale(z, z, scale, NULL, n);
    for (int i = 0; i < n; i++)
        max = MAX(max, z[i]);
    if (max > h->max[head]) {
        float shrink = expf(h->max[head] - max);
        float *o = h->o + (size_t)head * (size_t)dim;
        k->scale(o, o, shrink, NULL, dim);
        h->sum[head] *= (double)shrink;
        h->max[head] = max;
    }
    h->sum[head] += (double)k->exp_sum(z, max, n);
}

static void attend_view(const Attend *a, const View *v, const Heads *h, float *tile)
{
    const Kernels *k = a->c->k;
    const int dim = a->c->be.shape->head_dim;
    const float scale = 1 / sqrtf((float)dim);

    for (int from = 0; from < v->n; from += KV_TILE) {
        int n = MIN(KV_TILE, v->n - from);
        for (int i = 0; i < n; i++)
            k->kv_unpack(&a->kv->row, tile + (size_t)i * (size_t)dim, view_row(a->kv, v, from + i));
        k->gemm[QUANT_F32](h->score, KV_TILE, tile, (size_t)dim * sizeof(float), n, h->q,
                           (size_t)dim, h->n, dim);
        for (int i = 0; i < h->n; i++)
            weigh(k, h, i, n, scale, dim);
        k->mix(h->o, (size_t)dim, h->score, KV_TILE, tile, (size_t)dim, h->n, n, dim);
    }
}

/* Heads [first, last) of a row. */
static void attend_heads(const Attend *a, int ith, int row, int first, int last)
{
    const Cpu *c = a->c;
    const Shape *s = c->be.shape;
    const size_t dim = (size_t)s->head_dim, heads = (size_t)s->n_heads;
    const size_t at = ((size_t)row * heads + (size_t)first) * dim;
    const float *sinks = floats(a->l->sinks);
    const float *turn = rope_row(c, rope_kind(s, a->l->index), row);
    const View v = view_of(a, row);
    const Heads h = { last - first,
                      a->q + at,
                      a->o + at,
                      c->attend.score + (size_t)ith * heads * KV_TILE,
                      c->attend.max + (size_t)ith * heads,
                      c->attend.sum + (size_t)ith * heads };

    memset(h.o, 0, (size_t)h.n * dim * sizeof(float));
    for (int i = 0; i < h.n; i++) {
        h.max[i] = sinks[first + i];
        h.sum[i] = 1;
    }
    attend_view(a, &v, &h, c->attend.tile + (size_t)ith * KV_TILE * dim);
    for (int i = 0; i < h.n; i++) {
        float *o = h.o + (size_t)i * dim;
        c->k->scale(o, o, (float)(1 / h.sum[i]), NULL, s->head_dim);
        rope_turn(o + s->head_dim - s->rope_dim, turn, s->rope_dim / 2, true);
    }
}

/* Units are dealt out in turn: the later rows of a chunk see more. */
static void attend_part(void *arg, int ith, int nth)
{
    const Attend *a = arg;
    const int heads = a->c->be.shape->n_heads;

    for (int u = ith; u < a->n_rows * a->blocks; u += nth) {
        int first, last;
        pool_part(heads, 1, u % a->blocks, a->blocks, &first, &last);
        attend_heads(a, ith, u / a->blocks, first, last);
    }
}

void cpu_attend(Backend *be, const Step *step, Buf o, Buf q, KvLayer *kv, Buf pick, const Layer *l)
{
    Cpu *c = cpu_of(be);
    const int n = step->n_rows;
    Attend a = { .c = c, .l = l, .kv = kv, .q = floats(q), .o = floats(o), .n_rows = n };

    a.pick = pick.base ? ints(pick) : NULL;
    a.blocks = n >= 4 * c->threads ? 1 : MIN(c->threads, be->shape->n_heads);
    pool_run(c->pool, attend_part, &a);
}
