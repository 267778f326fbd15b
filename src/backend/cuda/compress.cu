/* compress.cu - pooling `ratio` positions into one row: compress and idx_row.
 *
 * Both projections are one launch for few rows. Then a block a row of the step: where its
 * position closes a group it pools the group, every dimension with a softmax of its own,
 * norms, rotates and packs the row; elsewhere it has nothing to do, so launches do not
 * depend on positions. Tokens come from the step, and from the ring what came before it;
 * only then does the ring take the step's last tokens. A step that has one row of each
 * session does that in the same launch: its token's place holds what no group needs. */
#include "kvrow.cuh"

enum { MOST_THREADS = 512 };

size_t scratch_of_compress(const Shape *s, int rows)
{
    const size_t width = 2 * (size_t)MAX(s->head_dim, s->idx_dim);
    return 2 * (rows * width * sizeof(float) + 256);
}

struct Pooling {
    const StepBlock *b;
    const float *in_kv, *in_score; /* [rows][width] of the step, score without embedding */
    float *state_kv, *state_score; /* [slot][state_rows][width], score with it */
    const float *ape, *norm, *freq;
    uint8_t *out; /* [slot][comp_rows] */
    int dim, width, ratio, state_rows, comp_rows, pairs;
    bool overlap, index, keeps;
    float eps;
    KvRowFormat row;
    IdxRowFormat idx_row;
};

/* ---- inputs --------------------------------------------------------------------------- */

__device__ static size_t state_at(const Pooling &a, const Span &s, int pos)
{
    return ((size_t)s.slot * a.state_rows + pos % a.state_rows) * a.width;
}

__device__ static size_t input_at(const Pooling &a, const Span &s, int pos)
{
    return (size_t)(s.row + pos - s.pos) * a.width;
}

/* Column d of a group's token, of those of the group before its own the first half. */
struct Tokens {
    int from, own, end; /* positions from..end-1; the group's from own on */
};

__device__ static int column_of(const Pooling &a, const Tokens &t, int pos, int d)
{
    return a.overlap && pos >= t.own ? a.dim + d : d;
}

/* A token of the ring, and one of the step. */
__device__ static float old_score(const Pooling &a, const Span &s, const Tokens &t, int pos, int d)
{
    return a.state_score[state_at(a, s, pos) + column_of(a, t, pos, d)];
}

__device__ static float new_score(const Pooling &a, const Span &s, const Tokens &t, int pos, int d)
{
    const int i = column_of(a, t, pos, d);
    return a.in_score[input_at(a, s, pos) + i] + a.ape[(size_t)(pos % a.ratio) * a.width + i];
}

/* ---- one pooled row ---------------------------------------------------------------------- */

/* Loops have no branches, so that several tokens' loads are on their way at once. */
__device__ static float pooled(const Pooling &a, const Span &s, const Tokens &t, int d)
{
    const int here = min(max(s.pos, t.from), t.end); /* the step's tokens */
    float most = -INFINITY, sum = 0, out = 0;
#pragma unroll 8
    for (int pos = t.from; pos < here; pos++)
        most = fmaxf(most, old_score(a, s, t, pos, d));
#pragma unroll 8
    for (int pos = here; pos < t.end; pos++)
        most = fmaxf(most, new_score(a, s, t, pos, d));
#pragma unroll 8
    for (int pos = t.from; pos < here; pos++) {
        const float e = expf(old_score(a, s, t, pos, d) - most);
        sum += e;
        out += e * a.state_kv[state_at(a, s, pos) + column_of(a, t, pos, d)];
    }
#pragma unroll 8
    for (int pos = here; pos < t.end; pos++) {
        const float e = expf(new_score(a, s, t, pos, d) - most);
        sum += e;
        out += e * a.in_kv[input_at(a, s, pos) + column_of(a, t, pos, d)];
    }
    return out / sum;
}

/* Orthonormal, in Sylvester order, as quant/kvrow.c. Barriers around every round. */
__device__ static void hadamard_row(float *x, int n)
{
    for (int half = 1; half < n; half *= 2) {
        __syncthreads();
        for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
            float *p = x + i / half * 2 * half + i % half;
            const float sum = p[0] + p[half], difference = p[0] - p[half];
            p[0] = sum;
            p[half] = difference;
        }
    }
    __syncthreads();
    const float norm = (float)(1 / sqrt((double)n));
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        x[i] *= norm;
}

/* x: dim values and the turn of its pairs, in shared memory. */
__device__ static void pool_group(const Pooling &a, const Span &s, int group, float *x, float *part)
{
    float *turn = x + a.dim;
    Tokens t = { group * a.ratio, group * a.ratio, (group + 1) * a.ratio };
    if (a.overlap && group > 0)
        t.from -= a.ratio;

    for (int d = threadIdx.x; d < a.dim; d += blockDim.x)
        x[d] = pooled(a, s, t, d);
    for (int i = threadIdx.x; i < a.pairs; i += blockDim.x) {
        const float angle = (float)t.own * a.freq[i];
        double sine, cosine;
        sincos((double)angle, &sine, &cosine);
        turn[2 * i] = (float)cosine;
        turn[2 * i + 1] = (float)sine;
    }
    norm_row(x, a.norm, a.dim, a.eps, part);
    __syncthreads();
    turn_tail(x + a.dim - 2 * a.pairs, turn, a.pairs);
    if (a.index)
        hadamard_row(x, a.dim);
    __syncthreads();
    const size_t to = (size_t)s.slot * a.comp_rows + group;
    if (a.index)
        pack_idx_row(a.idx_row, a.out + to * a.idx_row.bytes, x);
    else
        pack_kv_row(a.row, a.out + to * a.row.bytes, x);
}

/* One token's inputs into the ring. */
__device__ static void keep_input(const Pooling &a, const Span &s, int pos)
{
    const float *ape = a.ape + (size_t)(pos % a.ratio) * a.width;
    const size_t from = input_at(a, s, pos), to = state_at(a, s, pos);
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) {
        a.state_kv[to + i] = a.in_kv[from + i];
        a.state_score[to + i] = a.in_score[from + i] + ape[i];
    }
}

__global__ void __launch_bounds__(MOST_THREADS) pool_rows(Pooling a)
{
    extern __shared__ __align__(16) float x[];
    __shared__ float part[32];
    let_others_start();
    wait_for_others();
    const RowAt at = a.b->row[blockIdx.x];
    const Span s = a.b->span[at.span];
    const int group = at.pos / a.ratio;
    if ((at.pos + 1) % a.ratio == 0 && group < a.comp_rows)
        pool_group(a, s, group, x, part);
    if (a.keeps)
        keep_input(a, s, at.pos);
}

/* A span's last tokens. Block k of a span: the k-th of them. */
__global__ void __launch_bounds__(MOST_THREADS) keep_inputs(Pooling a)
{
    let_others_start();
    wait_for_others();
    const Span s = a.b->span[blockIdx.y];
    const int i = max(0, s.n - a.state_rows) + blockIdx.x;
    if (i < s.n)
        keep_input(a, s, s.pos + i);
}

/* ---- the ops ---------------------------------------------------------------------------------- */

static void project_inputs(Cuda *c, Pooling *a, const CompWeights *w, const float *x)
{
    const int n = c->n_rows;
    const size_t bytes = (size_t)n * a->width * sizeof(float);
    size_t used = 0;
    float *kv = (float *)op_scratch(c, &used, bytes), *score = (float *)op_scratch(c, &used, bytes);
    const DenseJob jobs[] = { { kv, (size_t)a->width, &w->kv, 0 },
                              { score, (size_t)a->width, &w->gate, 0 } };

    a->in_kv = kv;
    a->in_score = score;
    if (kv && score)
        dense_many(c, jobs, 2, x, c->be.shape->dim, n);
}

static bool one_row_each(const Step *step)
{
    for (int i = 0; i < step->n_spans; i++) {
        if (step->span[i].n != 1)
            return false;
    }
    return true;
}

static void run(Cuda *c, const Step *step, Pooling *a, const KvLayer *kv, const CompWeights *w,
                Buf x)
{
    const Shape *s = c->be.shape;
    const int threads = MIN((a->dim + WARP - 1) / WARP * WARP, (int)MOST_THREADS);

    a->b = c->block;
    a->ratio = kv->ratio;
    a->overlap = shape_overlaps(kv->ratio);
    a->width = shape_comp_width(kv->ratio, a->dim);
    a->state_rows = shape_state_rows(kv->ratio);
    a->comp_rows = kv->comp_rows;
    a->pairs = MIN(s->rope_dim, a->dim) / 2;
    a->ape = at<const float>(w->ape);
    a->norm = at<const float>(w->norm);
    a->freq = c->freq[1];
    a->eps = s->norm_eps;
    a->keeps = one_row_each(step);
    a->row = kv->row;
    a->idx_row = kv->idx_row;
    project_inputs(c, a, w, at<const float>(x));
    if (!a->in_kv || !a->in_score)
        return;
    LAUNCH(c, pool_rows, c->n_rows, threads, (a->dim + 2 * a->pairs) * sizeof(float), *a);
    if (!a->keeps && c->n_spans)
        LAUNCH(c, keep_inputs, dim3(MIN(a->state_rows, c->n_rows), c->n_spans), threads, 0, *a);
}

void cuda_compress(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = {};

    a.dim = be->shape->head_dim;
    a.state_kv = at<float>(kv->comp_kv);
    a.state_score = at<float>(kv->comp_score);
    a.out = at<uint8_t>(kv->comp);
    run(cuda_of(be), step, &a, kv, &l->comp, x);
}

void cuda_idx_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = {};

    a.dim = be->shape->idx_dim;
    a.index = true;
    a.state_kv = at<float>(kv->idx_kv);
    a.state_score = at<float>(kv->idx_score);
    a.out = at<uint8_t>(kv->idx);
    run(cuda_of(be), step, &a, kv, &l->idx_comp, x);
}
