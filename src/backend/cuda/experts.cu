/* experts.cu - y = sum over a row's experts of gate_k * down_k . swiglu(gate_k . x, up_k . x).
 *
 * Whoever computes the pairs leaves one vector a pair; here they add up, a row's in
 * ascending expert id, so that the sum does not depend on which rows came together. */
#include "experts.cuh"

enum { SUM_THREADS = 256 };

size_t scratch_of_experts(const Shape *s, int rows)
{
    const int few = MIN(rows, (int)FEW_ROWS), active = s->n_active;
    const size_t most = scratch_of_few(few * active, s->dim, s->expert_dim);
    if (rows <= FEW_ROWS)
        return most;
    return MAX(most, scratch_of_many(rows, active, s->n_experts, s->dim, s->expert_dim));
}

size_t scratch_of_shared(const Shape *s, int rows)
{
    const size_t most = scratch_of_few(MIN(rows, (int)FEW_ROWS), s->dim, s->shared_dim);
    if (rows <= FEW_ROWS)
        return most;
    return MAX(most, (size_t)rows * (2 * s->shared_dim + s->dim) * sizeof(float) + 1024);
}

/* ---- the sum ------------------------------------------------------------------- */

/* A thread owns one value of y; a block, SUM_THREADS of one row. Shared: the row's pairs
 * by expert, ties as they came. */
__global__ void __launch_bounds__(SUM_THREADS)
    sum_pairs(float *y, const float *part, const int *ids, int active, int dim, const float *plus)
{
    extern __shared__ int order[];
    const int row = blockIdx.y, d = blockIdx.x * SUM_THREADS + threadIdx.x;

    let_others_start();
    wait_for_others();
    const int *id = ids + (size_t)row * active;
    for (int k = threadIdx.x; k < active; k += SUM_THREADS) {
        int before = 0;
        for (int i = 0; ids && i < active; i++)
            before += id[i] < id[k] || (id[i] == id[k] && i < k);
        order[before] = k;
    }
    __syncthreads();
    if (d >= dim)
        return;
    float sum = plus ? plus[(size_t)row * dim + d] : 0;
    for (int k = 0; k < active; k++)
        sum += part[((size_t)row * active + order[k]) * dim + d];
    y[(size_t)row * dim + d] = sum;
}

void add_pairs(Cuda *c, const Moe *m, const float *part)
{
    const dim3 grid((m->dim + SUM_THREADS - 1) / SUM_THREADS, m->n_rows);
    LAUNCH(c, sum_pairs, grid, SUM_THREADS, m->active * sizeof(int), m->y, part, m->ids, m->active,
           m->dim, m->plus);
}

/* ---- the ops --------------------------------------------------------------------- */

void cuda_experts(Backend *be, const Step *step, Buf y, Buf x, Buf ids, Buf gates, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const bool beside = c->shared_of == l->index;
    const Moe m = { *weight_of(&l->gate),
                    *weight_of(&l->up),
                    *weight_of(&l->down),
                    at<int>(ids),
                    at<float>(gates),
                    at<float>(x),
                    at<float>(y),
                    step->n_rows,
                    s->n_active,
                    s->n_experts,
                    s->dim,
                    s->expert_dim,
                    s->swiglu_limit[l->index],
                    beside ? c->shared_y : NULL };
    if (beside)
        c->shared_in = l->index;
    if (c->few)
        experts_few(c, &m);
    else
        experts_many(c, &m);
}

/* h = swiglu of n values of g and u, into g. */
__global__ void swiglu_values(float *g, const float *u, size_t n, float limit)
{
    const size_t stride = (size_t)gridDim.x * blockDim.x;
    let_others_start();
    wait_for_others();
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
        g[i] = swiglu(g[i], u[i], limit, 1);
}

static void shared_many(Cuda *c, const Moe *m, const Layer *l)
{
    const size_t n = m->n_rows, h = n * m->ff * sizeof(float);
    size_t used = 0;
    float *g = (float *)op_scratch(c, &used, h), *u = (float *)op_scratch(c, &used, h);
    float *part = (float *)op_scratch(c, &used, n * m->dim * sizeof(float));
    if (!part)
        return;
    const DenseJob job[] = { { g, (size_t)m->ff, &l->sh_gate, 0 },
                             { u, (size_t)m->ff, &l->sh_up, 0 } };
    dense_many(c, job, 2, m->x, m->dim, m->n_rows);
    LAUNCH(c, swiglu_values, c->sm_count * 8, SUM_THREADS, 0, g, (const float *)u, n * m->ff,
           m->limit);
    dense(c, part, m->dim, &l->sh_down, 0, g, m->ff, m->n_rows);
    add_pairs(c, m, part);
}

/* g and u of a few rows. */
size_t scratch_of_shared_few(const Shape *s)
{
    return 2 * (FEW_ROWS * (size_t)s->shared_dim * sizeof(float) + 256);
}

static bool in_tiles(const Moe *m) { return m->gate.tiled && m->up.tiled && m->down.tiled; }

/* False, and nothing done: these are no tiles, or there are too many rows. */
static bool shared_tiles(Cuda *c, const Moe *m)
{
    const size_t bytes = (size_t)m->n_rows * m->ff * sizeof(float);
    size_t used = 0;
    float *g = (float *)op_scratch(c, &used, bytes), *u = (float *)op_scratch(c, &used, bytes);
    if (!u)
        return true;
    const TileJob up[] = { { g, (size_t)m->ff, &m->gate, 0 }, { u, (size_t)m->ff, &m->up, 0 } };
    const TileJob down = { m->y, (size_t)m->dim, &m->down, 0 };
    const TileInput x = { m->x, (size_t)m->dim, m->n_rows, m->dim, 1, NULL, 0, NULL, 0 };
    const TileInput h = { g, (size_t)m->ff, m->n_rows, m->ff, 1, u, m->limit, NULL, 0 };
    if (!in_tiles(m) || !tiles_fit(c, up, 2, &x) || !tiles_fit(c, &down, 1, &h))
        return false;
    tiles_or_slabs(c, up, 2, &x, false);
    tiles_or_slabs(c, &down, 1, &h, m->plus != NULL);
    return true;
}

static Moe shared_of(Cuda *c, float *y, const float *x, const Layer *l, const float *plus)
{
    const Shape *s = c->be.shape;
    return Moe{ *weight_of(&l->sh_gate),
                *weight_of(&l->sh_up),
                *weight_of(&l->sh_down),
                NULL,
                NULL,
                x,
                y,
                c->n_rows,
                1,
                1,
                s->dim,
                s->shared_dim,
                s->swiglu_limit[l->index],
                plus };
}

/* Beside what x goes through otherwise: the shared expert waits for no router. */
void shared_beside(Cuda *c, Buf x, const Layer *l)
{
    const Moe m = shared_of(c, c->shared_y, at<const float>(x), l, NULL);
    if (!has_side(c) || !in_tiles(&m))
        return;
    side_enter(c);
    shared_tiles(c, &m);
    side_leave(c);
    c->shared_of = l->index;
}

void cuda_shared(Backend *be, const Step *, Buf y, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Moe m = shared_of(c, at<float>(y), at<const float>(x), l, at<float>(y));
    if (c->shared_in == l->index)
        return; /* the experts took it from beside */
    if (shared_tiles(c, &m))
        return;
    if (c->few)
        experts_few(c, &m);
    else
        shared_many(c, &m, l);
}
