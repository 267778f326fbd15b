/* inputs.cu - what attention makes of its input: queries, window rows, pooled rows.
 *
 * Their projections read the same x, and what becomes of those is little work for a block a
 * row. So in a step of up to SLAB_ROWS rows these ops wait for each other: each notes what it has to do,
 * and whoever comes next has all of it done at once (inputs_run), in one launch of products
 * and one of blocks that norm, rotate, pool and pack. In a step of more rows, or where
 * somebody looks between ops, each is done at once by the same kernels. */
#include "pool.cuh"
#include "queries.cuh"
#include "tiles.cuh"
#include <stdlib.h>
#include <string.h>

enum { HEAD_WARPS = 8, THREADS = 512, MOST_INPUT_JOBS = 7, FLASH_HEAD = 4 };

struct KvTask {
    KvRowFormat f;
    uint8_t *ring;
    const float *raw, *norm; /* [rows][f.dim] */
    int ring_rows, kind;
    float eps;
};

struct NormTask {
    float *x; /* [rows][n] */
    const float *w;
    int n;
    float eps;
};

struct HeadsTask {
    float *q; /* [rows][n][FLASH_HEAD * 128] */
    int n, kind, rope;
    float eps;
};

/* HEADS + i: as many heads as a block has warps, from the i-th such group on. QUERIES + i: of
 * the indexer. */
enum Task {
    NORM,
    KV,
    POOL,
    MOST_HEADS = 8,
    HEADS = POOL + 2,
    QUERIES = HEADS + MOST_HEADS,
    N_TASKS = QUERIES + MOST_HEADS
};

struct Tasks {
    StepAt b;
    int n, task[N_TASKS]; /* which are to be done */
    NormTask norm;
    KvTask kv;
    Pooling pool[2];
    HeadsTask heads;
    Queries queries;
    int queries_rope;
};

struct Inputs {
    const float *x; /* NULL: nothing waits */
    DenseJob job[MOST_INPUT_JOBS];
    int n_jobs;
    size_t scratch; /* used so far */
    bool forks;     /* queries are made beside what the indexer does */
    Tasks tasks;
    size_t shared;
    bool late; /* only tasks wait, for the indexer's queries */
    /* the rest of a query */
    float *q;
    const Weight *q_b, *idx_q; /* idx_q: NULL where there is none */
    const Layer *layer;
    int q_kind;
};

/* ---- heads ---------------------------------------------------------------------------- */

/* A warp: a head of N * 128 values, a lane N times 4 of them in registers: 2 KB in and out
 * for Flash. */
template <int N>
__device__ static void finish_head(float *values, const float *turn, int rope, float eps)
{
    enum { DIM = N * 128 };
    const int lane = threadIdx.x % WARP;
    float4 *head = (float4 *)values, v[N];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = head[i * WARP + lane];
        sum += squares(v[i]);
    }
    const float scale = rms_scale(warp_sum(sum), DIM, eps);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int at = 4 * (i * WARP + lane) - (DIM - rope);
        float4 r = make_float4(v[i].x * scale, v[i].y * scale, v[i].z * scale, v[i].w * scale);
        if (at >= 0) {
            const float4 t = *(const float4 *)(turn + at);
            const float2 first = turned(r.x, r.y, t.x, t.y), second = turned(r.z, r.w, t.z, t.w);
            r = make_float4(first.x, first.y, second.x, second.y);
        }
        head[i * WARP + lane] = r;
    }
}

template <int N>
__global__ void finish_heads(float *q, StepAt b, int kind, int n_heads, int rope, float eps, int n)
{
    let_others_start();
    wait_for_others();
    const int u = blockIdx.x * HEAD_WARPS + threadIdx.x / WARP;
    if (u < n)
        finish_head<N>(q + (size_t)u * N * 128, b.turn[kind] + (size_t)(u / n_heads) * rope, rope,
                       eps);
}

/* The same of any size. */
__global__ void finish_heads_plain(float *q, StepAt b, int kind, int n_heads, int dim, int rope,
                                   float eps, int n)
{
    let_others_start();
    wait_for_others();
    const int lane = threadIdx.x % WARP, u = blockIdx.x * HEAD_WARPS + threadIdx.x / WARP;
    if (u >= n)
        return;
    float *head = q + (size_t)u * dim, *tail = head + dim - rope;
    const float *turn = b.turn[kind] + (size_t)(u / n_heads) * rope;
    float sum = 0;
    for (int i = lane; i < dim; i += WARP)
        sum += head[i] * head[i];
    const float scale = rms_scale(warp_sum(sum), dim, eps);
    for (int i = lane; i < dim - rope; i += WARP)
        head[i] *= scale;
    for (int i = lane; i < rope / 2; i += WARP) {
        const float2 r =
            turned(tail[2 * i] * scale, tail[2 * i + 1] * scale, turn[2 * i], turn[2 * i + 1]);
        tail[2 * i] = r.x;
        tail[2 * i + 1] = r.y;
    }
}

static void heads_of(Cuda *c, float *q, int kind)
{
    const Shape *s = c->be.shape;
    const int n = c->n_rows * s->n_heads, grid = (n + HEAD_WARPS - 1) / HEAD_WARPS;

    if (s->head_dim == 512 && s->rope_dim % 4 == 0)
        LAUNCH(c, finish_heads<4>, grid, HEAD_WARPS * WARP, 0, q, c->step, kind, s->n_heads,
               s->rope_dim, s->norm_eps, n);
    else
        LAUNCH(c, finish_heads_plain, grid, HEAD_WARPS * WARP, 0, q, c->step, kind, s->n_heads,
               s->head_dim, s->rope_dim, s->norm_eps, n);
}

/* ---- a block a row and task ---------------------------------------------------------- */

/* 2 KB in, 584 bytes out for Flash. */
__device__ static void finish_kv(const KvTask &a, StepAt b, int row, float *x, float *part)
{
    const RowAt at = b.row[row];
    for (int i = threadIdx.x; i < a.f.dim; i += blockDim.x)
        x[i] = a.raw[(size_t)row * a.f.dim + i];
    norm_row(x, a.norm, a.f.dim, a.eps, part);
    __syncthreads();
    turn_tail(x + a.f.dim - a.f.rope, b.turn[a.kind] + (size_t)row * a.f.rope, a.f.rope / 2);
    __syncthreads();
    const size_t to = (size_t)at.slot * a.ring_rows + at.pos % a.ring_rows;
    pack_kv_row(a.f, a.ring + to * a.f.bytes, x);
}

/* As products that norm what they read, see tiles.cu, to the last bit. */
__device__ static void finish_norm(const NormTask &a, int row, float *part)
{
    float *x = a.x + (size_t)row * a.n;
    if (a.n % NORM_STRIP || a.n > NORM_STRIP * NORM_STRIPS) {
        norm_row(x, a.w, a.n, a.eps, part);
        return;
    }
    const bool mine = 4 * (int)threadIdx.x < a.n;
    const float4 v = mine ? ((const float4 *)x)[threadIdx.x] : float4{};
    const float scale = strips_scale(v, a.n, a.eps, part);
    if (mine)
        ((float4 *)x)[threadIdx.x] = normed(v, scale, ((const float4 *)a.w)[threadIdx.x]);
}

/* A warp a head, from the first on. */
__device__ static void some_heads(const Tasks &t, int row, int first)
{
    const int h = first + threadIdx.x / WARP, dim = FLASH_HEAD * 128;
    if (h < t.heads.n)
        finish_head<FLASH_HEAD>(t.heads.q + ((size_t)row * t.heads.n + h) * dim,
                                t.b.turn[t.heads.kind] + (size_t)row * t.heads.rope, t.heads.rope,
                                t.heads.eps);
}

__device__ static void some_queries(const Tasks &t, int row, int first)
{
    const int h = first + threadIdx.x / WARP;
    if (h < t.queries.heads)
        make_query(t.queries, row, h, t.b.turn[1] + (size_t)row * t.queries_rope);
}

__global__ void __launch_bounds__(THREADS) finish_inputs(Tasks t)
{
    extern __shared__ __align__(16) float x[];
    __shared__ float part[32];
    let_others_start();
    wait_for_others();
    const int row = blockIdx.x, task = t.task[blockIdx.y];
    if (task >= QUERIES)
        some_queries(t, row, (task - QUERIES) * (THREADS / WARP));
    else if (task >= HEADS)
        some_heads(t, row, (task - HEADS) * (THREADS / WARP));
    else if (task == NORM)
        finish_norm(t.norm, row, part);
    else if (task == KV)
        finish_kv(t.kv, t.b, row, x, part);
    else
        pool_row(t.pool[task - POOL], row, x, part);
}

/* A span's last tokens into the ring. Block k of a span: the k-th of them. */
__global__ void __launch_bounds__(THREADS) keep_inputs(Pooling a)
{
    let_others_start();
    wait_for_others();
    const Span s = a.b.span[blockIdx.y];
    const int i = max(0, s.n - a.state_rows) + blockIdx.x;
    if (i < s.n)
        keep_input(a, s, s.pos + i);
}

/* ---- waiting and running -------------------------------------------------------------- */

bool inputs_init(Cuda *c, ds4_err *err)
{
    c->inputs = (Inputs *)calloc(1, sizeof *c->inputs);
    if (!c->inputs)
        return fail(err, DS4_ENOMEM, "no memory for a backend");
    inputs_drop(c);
    const size_t heads = SLAB_ROWS * MAX(c->be.shape->idx_heads, 1);
    NOTE(c, cudaMalloc((void **)&c->idx_w, heads * sizeof(float)));
    return true;
}

void inputs_release(Cuda *c)
{
    cudaFree(c->idx_w);
    free(c->inputs);
}

size_t scratch_of_inputs(const Shape *s, int rows)
{
    const size_t floats = (size_t)s->head_dim + 2 * 2 * (size_t)(s->head_dim + s->idx_dim);
    return (size_t)rows * floats * sizeof(float) + 5 * 256;
}

/* Those that wait, for one more; others of another x go first. */
static Inputs *waiting_for(Cuda *c, Buf x)
{
    Inputs *in = c->inputs;
    if (in->late || (in->x && in->x != at<const float>(x)))
        inputs_run(c);
    in->x = at<const float>(x);
    in->tasks.b = c->step;
    return in;
}

static void add_task(Inputs *in, int task, size_t floats)
{
    in->tasks.task[in->tasks.n++] = task;
    in->shared = MAX(in->shared, floats * sizeof(float));
}

static bool may_wait(const Cuda *c) { return !c->eager && c->n_rows <= SLAB_ROWS; }

static void noted(Cuda *c)
{
    if (!may_wait(c))
        inputs_run(c);
}

/* Where they are beside other ops' scratch, which may be written before these are read. */
static float *room(Cuda *c, Inputs *in, size_t width)
{
    const size_t bytes = (size_t)c->n_rows * width * sizeof(float);
    return (float *)(has_side(c) ? side_scratch(c, &in->scratch, bytes)
                                 : op_scratch(c, &in->scratch, bytes));
}

/* Whether q_b, and the indexer's queries, can norm what they read themselves. */
static bool norms_itself(const Cuda *c, const Inputs *in)
{
    return in->q && has_side(c) && weight_of(in->q_b)->tiled && in->tasks.norm.n <= NORM_COLS &&
           (!in->idx_q || weight_of(in->idx_q)->tiled);
}

static void drop_norm(Tasks *t)
{
    int n = 0;
    for (int i = 0; i < t->n; i++)
        if (t->task[i] != NORM)
            t->task[n++] = t->task[i];
    t->n = n;
}

static void multiply_q_b(Cuda *c, const Inputs *in, bool normed)
{
    const Shape *s = c->be.shape;
    const size_t heads = (size_t)s->n_heads * s->head_dim;
    const NormTask *n = &in->tasks.norm;
    if (normed) {
        dense(c, in->q, heads, in->q_b, 0, n->x, s->q_rank, c->n_rows);
        return;
    }
    const TileJob job = { in->q, heads, weight_of(in->q_b), 0 };
    const TileInput input = { n->x, (size_t)n->n, c->n_rows, n->n, 1, NULL, 0, n->w, n->eps };
    tiles(c, &job, 1, &input, false);
}

/* The heads of a query with what else is to be done, if there are blocks for it. */
static bool add_heads(Cuda *c, Inputs *in)
{
    const Shape *s = c->be.shape;
    const int groups = (s->n_heads + THREADS / WARP - 1) / (THREADS / WARP);
    if (s->head_dim != FLASH_HEAD * 128 || s->rope_dim % 4 || groups > MOST_HEADS)
        return false;
    in->tasks.heads = HeadsTask{ in->q, s->n_heads, in->q_kind, s->rope_dim, s->norm_eps };
    for (int i = 0; i < groups; i++)
        in->tasks.task[in->tasks.n++] = HEADS + i;
    return true;
}

/* Spans of several rows: after the pooling, which reads what is in the ring. */
static void keep_spans(Cuda *c, const Tasks *t)
{
    for (int i = 0; i < t->n; i++) {
        const Pooling *a =
            t->task[i] >= POOL && t->task[i] < HEADS ? &t->pool[t->task[i] - POOL] : NULL;
        if (a && !a->keeps)
            LAUNCH(c, keep_inputs, dim3(MIN(a->state_rows, c->n_rows), c->n_spans), THREADS, 0, *a);
    }
}

static void run_tasks(Cuda *c, const Inputs *in)
{
    if (in->tasks.n)
        LAUNCH(c, finish_inputs, dim3(c->n_rows, in->tasks.n), THREADS, in->shared, in->tasks);
    keep_spans(c, &in->tasks);
}

static void finish(Cuda *c, const Inputs *in)
{
    run_tasks(c, in);
    if (!in->q)
        return;
    multiply_q_b(c, in, true);
    heads_of(c, in->q, in->q_kind);
}

/* Queries wait for nothing but the first products: they are made beside where the indexer
 * has a way of its own, which takes the other tasks along behind its first products; else in
 * front of the other tasks, whose blocks take the heads, too. */
static void finish_unnormed(Cuda *c, Inputs *in)
{
    c->raw_of = in->layer->index;
    drop_norm(&in->tasks);
    if (in->forks)
        side_enter(c);
    multiply_q_b(c, in, false);
    if (in->forks || !add_heads(c, in))
        heads_of(c, in->q, in->q_kind);
    if (in->forks) {
        side_leave(c);
        c->inputs->late = true;
        c->inputs->tasks = in->tasks;
        c->inputs->shared = in->shared;
    } else {
        run_tasks(c, in);
    }
}

/* Blocks for them, if there are so many. */
static bool add_queries(Cuda *c, Inputs *in, const Queries *q)
{
    const int groups = (q->heads + THREADS / WARP - 1) / (THREADS / WARP);
    if (groups > MOST_HEADS)
        return false;
    in->tasks.queries = *q;
    in->tasks.queries_rope = c->be.shape->rope_dim;
    for (int i = 0; i < groups; i++)
        in->tasks.task[in->tasks.n++] = QUERIES + i;
    return true;
}

bool inputs_late(Cuda *c, const Queries *q)
{
    Inputs *in = c->inputs;
    if (!in->late)
        return false;
    const bool with = q && add_queries(c, in, q);
    run_tasks(c, in);
    memset(in, 0, sizeof *in);
    return with;
}

void inputs_run(Cuda *c)
{
    Inputs *in = c->inputs, now = *in;
    inputs_late(c, NULL);
    if (!now.x)
        return;
    memset(in, 0, sizeof *in);
    if (c->err.code)
        return;
    dense_many(c, now.job, now.n_jobs, now.x, c->be.shape->dim, c->n_rows);
    if (norms_itself(c, &now))
        finish_unnormed(c, &now);
    else
        finish(c, &now);
}

void inputs_drop(Cuda *c)
{
    memset(c->inputs, 0, sizeof *c->inputs);
    c->idx_w_of = c->raw_of = c->shared_of = c->shared_in = -1;
}

/* ---- the ops ---------------------------------------------------------------------------- */

void cuda_query(Backend *be, const Step *, Buf q, Buf qr, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    Inputs *in = waiting_for(c, x);
    float *low = at<float>(qr);

    in->job[in->n_jobs++] = DenseJob{ low, (size_t)s->q_rank, &l->q_a, 0 };
    in->tasks.norm = NormTask{ low, at<const float>(l->q_norm), s->q_rank, s->norm_eps };
    add_task(in, NORM, 0);
    in->q = at<float>(q);
    in->q_b = &l->q_b;
    in->layer = l;
    in->q_kind = s->ratio[l->index] != 0;
    noted(c);
}

void cuda_kv_row(Backend *be, const Step *, KvLayer *kv, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    Inputs *in = waiting_for(c, x);
    float *raw = room(c, in, s->head_dim);

    if (!raw)
        return;
    in->job[in->n_jobs++] = DenseJob{ raw, (size_t)s->head_dim, &l->kv, 0 };
    in->tasks.kv = KvTask{ kv->row,       at<uint8_t>(kv->ring),
                           raw,           at<const float>(l->kv_norm),
                           kv->ring_rows, (int)(s->ratio[l->index] != 0),
                           s->norm_eps };
    add_task(in, KV, s->head_dim);
    noted(c);
}

static bool one_row_each(const Step *step)
{
    for (int i = 0; i < step->n_spans; i++) {
        if (step->span[i].n != 1)
            return false;
    }
    return true;
}

/* a: what differs between the two kinds. */
static void note_pooling(Cuda *c, const Step *step, Pooling *a, const KvLayer *kv,
                         const CompWeights *w, Buf x)
{
    const Shape *s = c->be.shape;
    Inputs *in = waiting_for(c, x);

    a->b = c->step;
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
    float *rows = room(c, in, a->width), *score = room(c, in, a->width);
    if (!rows || !score)
        return;
    a->in_kv = rows;
    a->in_score = score;
    in->job[in->n_jobs++] = DenseJob{ rows, (size_t)a->width, &w->kv, 0 };
    in->job[in->n_jobs++] = DenseJob{ score, (size_t)a->width, &w->gate, 0 };
    in->tasks.pool[a->index] = *a;
    add_task(in, POOL + a->index, a->dim + 2 * a->pairs);
    noted(c);
}

void cuda_compress(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = {};

    a.dim = be->shape->head_dim;
    a.state_kv = at<float>(kv->comp_kv);
    a.state_score = at<float>(kv->comp_score);
    a.out = at<uint8_t>(kv->comp);
    note_pooling(cuda_of(be), step, &a, kv, &l->comp, x);
}

/* What select will want of the same x, where that costs no launch; and it need not wait for
 * the queries. */
static void note_indexer(Cuda *c, Buf x, const Layer *l)
{
    Inputs *in = waiting_for(c, x);
    in->idx_q = &l->idx_q;
    if (!may_wait(c) || !weight_of(&l->idx_w)->tiled)
        return;
    in->forks = has_side(c);
    in->job[in->n_jobs++] = DenseJob{ c->idx_w, (size_t)c->be.shape->idx_heads, &l->idx_w, 0 };
    c->idx_w_of = l->index;
}

void cuda_idx_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Pooling a = {};

    a.dim = be->shape->idx_dim;
    a.index = true;
    a.state_kv = at<float>(kv->idx_kv);
    a.state_score = at<float>(kv->idx_score);
    a.out = at<uint8_t>(kv->idx);
    note_indexer(cuda_of(be), x, l);
    note_pooling(cuda_of(be), step, &a, kv, &l->idx_comp, x);
}
