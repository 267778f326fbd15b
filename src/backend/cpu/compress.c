/* compress.c - pooling `ratio` positions into one row: compress and idx_row.
 *
 * Every dimension of a pooled row is its own softmax over the tokens of the
 * group; where groups overlap (ratio 4) also over those of the group before.
 * A token's inputs, score with position embedding, are kept in a ring until
 * no later row needs them. A row that closes in this step takes its tokens
 * from the step, and from the ring what came before it; only then does the
 * ring take the step's last tokens. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Step *step;
    const KvLayer *kv;
    const CompWeights *w;
    Rows x, in_kv, in_score; /* the step's pooling inputs */
    float *state_kv, *state_score;
    int dim, width, ratio, state_rows;
    bool index; /* an index row: Hadamard, other cache */
} Pooling;

/* ---- inputs ----------------------------------------------------------------------- */

/* Columns [first, last) of all rows: projections, and the score's embedding. */
static void project_inputs(const Pooling *a, int first, int last)
{
    const float *ape = floats(a->w->ape);

    cpu_matmul(a->c, a->in_kv, &a->w->kv, 0, a->x, first, last);
    cpu_matmul(a->c, a->in_score, &a->w->gate, 0, a->x, first, last);
    for (int i = 0; i < a->x.n; i++) {
        const float *add = ape + (size_t)(a->c->at[i].pos % a->ratio) * (size_t)a->width;
        float *score = row_at(a->in_score, i);
        for (int d = first; d < last; d++)
            score[d] += add[d];
    }
}

static size_t state_at(const Pooling *a, int slot, int pos)
{
    size_t row = (size_t)slot * (size_t)a->state_rows + (size_t)(pos % a->state_rows);
    return row * (size_t)a->width;
}

/* The inputs of one token of a group, from the step or from before it. */
static void input_at(const Pooling *a, const Span *s, int pos, const float **kv,
                     const float **score)
{
    if (pos >= s->pos) {
        int row = s->row + pos - s->pos;
        *kv = row_at(a->in_kv, row);
        *score = row_at(a->in_score, row);
    } else {
        size_t at = state_at(a, s->slot, pos);
        *kv = a->state_kv + at;
        *score = a->state_score + at;
    }
}

/* ---- one pooled row ------------------------------------------------------------------ */

enum { MAX_INPUTS = UINT8_MAX }; /* the longest ratio; overlapping groups are short */

typedef struct {
    int n;
    const float *kv[MAX_INPUTS], *score[MAX_INPUTS];
} Inputs;

/* Tokens in order of position. The first half of an overlapping token's
 * columns is for the group after its own, the second for its own. */
static void gather(const Pooling *a, const Span *s, int group, Inputs *in)
{
    const bool overlap = shape_overlaps(a->ratio);
    const int own = group * a->ratio, from = overlap && group > 0 ? own - a->ratio : own;

    in->n = 0;
    for (int pos = from; pos < own + a->ratio; pos++) {
        int half = overlap && pos >= own ? a->dim : 0;
        const float *kv, *score;
        input_at(a, s, pos, &kv, &score);
        in->kv[in->n] = kv + half;
        in->score[in->n++] = score + half;
    }
}

/* out[0..n) = dimensions [d, d + n) of the pooled row */
static void pool_chunk(const Kernels *k, float *out, const Inputs *in, int d, int n)
{
    float max[POOL_CHUNK], sum[POOL_CHUNK] = { 0 }, e[POOL_CHUNK];

    assert(in->n > 0);
    memcpy(max, in->score[0] + d, (size_t)n * sizeof *max);
    for (int t = 1; t < in->n; t++) {
        for (int i = 0; i < n; i++)
            max[i] = MAX(max[i], in->score[t][d + i]);
    }
    memset(out, 0, (size_t)n * sizeof *out);
    for (int t = 0; t < in->n; t++) {
        for (int i = 0; i < n; i++)
            e[i] = in->score[t][d + i] - max[i];
        k->exp_sum(e, 0, n);
        for (int i = 0; i < n; i++) {
            sum[i] += e[i];
            out[i] += e[i] * in->kv[t][d + i];
        }
    }
    for (int i = 0; i < n; i++)
        out[i] /= sum[i];
}

static void store_index(const Pooling *a, float *row, size_t to)
{
    const IdxRowFormat *f = &a->kv->idx_row;
    hadamard(row, a->dim);
    idxrow_pack(f, (char *)bytes_of(a->kv->idx) + to * (size_t)f->bytes, row);
}

static void store_comp(const Pooling *a, const float *row, size_t to)
{
    const KvRowFormat *f = &a->kv->row;
    kvrow_pack(f, (char *)bytes_of(a->kv->comp) + to * (size_t)f->bytes, row);
}

static void pool_group(const Pooling *a, const Span *s, int group, float *row)
{
    const Cpu *c = a->c;
    const int rope = MIN(c->be.shape->rope_dim, a->dim), pairs = rope / 2;
    float *turn = row + a->dim;
    Inputs in;

    assert(group < a->kv->comp_rows);
    gather(a, s, group, &in);
    for (int d = 0; d < a->dim; d += POOL_CHUNK)
        pool_chunk(c->k, row + d, &in, d, MIN(POOL_CHUNK, a->dim - d));
    cpu_norm(c, row, row, floats(a->w->norm), a->dim);
    rope_angles(turn, c->freq[1], pairs, group * a->ratio);
    rope_turn(row + a->dim - 2 * pairs, turn, pairs, false);

    size_t to = (size_t)s->slot * (size_t)a->kv->comp_rows + (size_t)group;
    if (a->index)
        store_index(a, row, to);
    else
        store_comp(a, row, to);
}

/* ---- the op ---------------------------------------------------------------------------- */

/* The rows that close in this step, dealt out in turn. */
static void pool_groups(const Pooling *a, int ith, int nth)
{
    float *row = a->c->pooling.row + (size_t)ith * a->c->pooling.row_len;
    int n = 0;

    for (const Span *s = a->step->span; s < a->step->span + a->step->n_spans; s++) {
        for (int j = s->pos / a->ratio; j < (s->pos + s->n) / a->ratio; j++) {
            if (n++ % nth == ith)
                pool_group(a, s, j, row);
        }
    }
}

/* Each span's last tokens into the ring. */
static void keep_inputs(const Pooling *a, int ith, int nth)
{
    const size_t bytes = (size_t)a->width * sizeof(float);

    for (const Span *s = a->step->span; s < a->step->span + a->step->n_spans; s++) {
        int skip = MAX(0, s->n - a->state_rows);
        for (int i = skip + ith; i < s->n; i += nth) {
            size_t to = state_at(a, s->slot, s->pos + i);
            memcpy(a->state_kv + to, row_at(a->in_kv, s->row + i), bytes);
            memcpy(a->state_score + to, row_at(a->in_score, s->row + i), bytes);
        }
    }
}

static void pooling_part(void *arg, int ith, int nth)
{
    const Pooling *a = arg;
    int first, last;

    cpu_part(a->width, ith, nth, &first, &last);
    project_inputs(a, first, last);
    pool_barrier(a->c->pool);
    pool_groups(a, ith, nth);
    pool_barrier(a->c->pool);
    keep_inputs(a, ith, nth);
}

static void run(Pooling *a, Buf x, int dim)
{
    const int n = a->step->n_rows;

    a->dim = dim;
    a->ratio = a->kv->ratio;
    assert(a->ratio > 0 && a->ratio <= MAX_INPUTS);
    a->width = shape_comp_width(a->ratio, dim);
    a->state_rows = shape_state_rows(a->ratio);
    a->x = rows_of(x, a->c->be.shape->dim, n);
    a->in_kv = (Rows){ a->c->pooling.kv, (size_t)a->width, n };
    a->in_score = (Rows){ a->c->pooling.score, (size_t)a->width, n };
    pool_run(a->c->pool, pooling_part, a);
}

void cpu_compress(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = { .c = cpu_of(be), .step = step, .kv = kv, .w = &l->comp };

    a.state_kv = floats(kv->comp_kv);
    a.state_score = floats(kv->comp_score);
    run(&a, x, be->shape->head_dim);
}

void cpu_idx_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = { .c = cpu_of(be), .step = step, .kv = kv, .w = &l->idx_comp, .index = true };

    a.state_kv = floats(kv->idx_kv);
    a.state_score = floats(kv->idx_score);
    run(&a, x, be->shape->idx_dim);
}
