/* attend.cu - attention of all heads over window rows and pooled rows.
 *
 * Flash's heads go to tensor cores, in attend_few.cu and attend_many.cu. Here are all other
 * shapes, and rows without rounding: in F32, a block takes some heads of a query row and
 * walks its KV rows, a tile at a time, in order. The softmax runs along from the head's
 * sink (weight 1, no value). A head's result does not depend on which heads or rows share
 * its block or step. */
#include "attend.cuh"

enum { THREADS = 256, N_WARPS = THREADS / WARP, MOST_HEADS = 8, MOST_TILE = 32, VALUES = 4096 };

/* Heads of a block, KV rows of a tile. */
static int heads_of(const Attend *a, bool few)
{
    return few ? 1 : MIN(MAX(VALUES / a->row.dim, 1), MIN((int)MOST_HEADS, a->n_heads));
}
static int tile_of(int dim) { return MIN(MAX(VALUES / dim, 1), (int)MOST_TILE); }

/* Row i of the tile is at x + i * (dim + 1): threads that walk rows side by side meet no
 * conflicts. */
__device__ static void load_tile(float *x, const Attend &a, const View &v, int from, int n)
{
    const int dim = a.row.dim;
    for (int i = threadIdx.x / WARP; i < n; i += N_WARPS) {
        const uint8_t *row = view_row(v, from + i);
        for (int d = threadIdx.x % WARP; d < dim; d += WARP)
            x[i * (dim + 1) + d] = kv_value(a.row, row, d);
    }
}

/* z[h][i]: a warp a score. */
__device__ static void score_tile(float *z, const float *q, const float *x, int dim, int heads,
                                  int n, float scale)
{
    const int lane = threadIdx.x % WARP;
    for (int u = threadIdx.x / WARP; u < heads * n; u += N_WARPS) {
        const int h = u / n, i = u % n;
        float sum = 0;
        for (int d = lane; d < dim; d += WARP)
            sum += q[h * dim + d] * x[i * (dim + 1) + d];
        sum = warp_sum(sum);
        if (lane == 0)
            z[h * MOST_TILE + i] = sum * scale;
    }
}

/* Scores to weights, a warp a head; shrink: what earlier results are multiplied with. */
__device__ static void weigh(float *z, float *max, float *sum, float *shrink, int heads, int n)
{
    const int lane = threadIdx.x % WARP, h = threadIdx.x / WARP;
    if (h >= heads)
        return;
    const float mine = lane < n ? z[h * MOST_TILE + lane] : -INFINITY;
    const float old = max[h], now = fmaxf(old, warp_max(mine));
    const float e = lane < n ? expf(mine - now) : 0, total = warp_sum(e);
    __syncwarp(); /* all have read max */
    z[h * MOST_TILE + lane] = e;
    if (lane == 0) {
        shrink[h] = expf(old - now);
        sum[h] = sum[h] * shrink[h] + total;
        max[h] = now;
    }
}

__device__ static void mix_tile(float *o, const float *z, const float *shrink, const float *x,
                                int dim, int heads, int n)
{
    for (int u = threadIdx.x; u < heads * dim; u += THREADS) {
        const int h = u / dim, d = u % dim;
        float sum = o[u] * shrink[h];
        for (int i = 0; i < n; i++)
            sum += z[h * MOST_TILE + i] * x[i * (dim + 1) + d];
        o[u] = sum;
    }
}

/* Divided by the weights' sum, the rotation undone. */
__device__ static void put_heads(const Attend &a, int row, int first, int heads, const float *o,
                                 const float *sum)
{
    const int dim = a.row.dim, rope = a.row.rope, nope = dim - rope;
    const float *turn = a.b.turn[a.kind] + (size_t)row * rope;
    float *out = a.o + ((size_t)row * a.n_heads + first) * dim;
    for (int u = threadIdx.x; u < heads * dim; u += THREADS) {
        const int h = u / dim, d = u % dim;
        float v = o[u] / sum[h];
        if (d >= nope) {
            const int i = (d - nope) / 2, odd = (d - nope) % 2;
            const float other = o[odd ? u - 1 : u + 1] / sum[h];
            const float sine = odd ? -turn[2 * i + 1] : turn[2 * i + 1];
            v = v * turn[2 * i] + other * sine;
        }
        out[u] = v;
    }
}

/* Block (x, y): heads of group y of row x. */
__global__ void __launch_bounds__(THREADS) attend_plain(Attend a, int per_block, int tile)
{
    extern __shared__ __align__(16) float shared[];
    __shared__ float z[MOST_HEADS * MOST_TILE], max[MOST_HEADS], sum[MOST_HEADS],
        shrink[MOST_HEADS];
    const int row = blockIdx.x, first = blockIdx.y * per_block, dim = a.row.dim;
    const int heads = min(per_block, a.n_heads - first);
    float *q = shared, *o = q + per_block * dim, *x = o + per_block * dim;

    let_others_start();
    wait_for_others();
    const View v = view_of(a, row, NULL);
    for (int u = threadIdx.x; u < heads * dim; u += THREADS) {
        q[u] = a.q[((size_t)row * a.n_heads + first) * dim + u];
        o[u] = 0;
    }
    if (threadIdx.x < heads) {
        max[threadIdx.x] = a.sinks[first + threadIdx.x];
        sum[threadIdx.x] = 1;
    }
    for (int from = 0; from < v.n; from += tile) {
        const int n = min(tile, v.n - from);
        __syncthreads();
        load_tile(x, a, v, from, n);
        __syncthreads();
        score_tile(z, q, x, dim, heads, n, a.scale);
        __syncthreads();
        weigh(z, max, sum, shrink, heads, n);
        __syncthreads();
        mix_tile(o, z, shrink, x, dim, heads, n);
    }
    __syncthreads();
    put_heads(a, row, first, heads, o, sum);
}

static void run_plain(Cuda *c, const Attend *a)
{
    const int per_block = heads_of(a, c->few), tile = tile_of(a->row.dim);
    const int bytes = (2 * per_block * a->row.dim + tile * (a->row.dim + 1)) * (int)sizeof(float);
    NOTE(c, cudaFuncSetAttribute(attend_plain, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    LAUNCH(c, attend_plain, dim3(a->n_rows, (a->n_heads + per_block - 1) / per_block), THREADS,
           bytes, *a, per_block, tile);
}

/* ---- the op --------------------------------------------------------------------------- */

/* Rows that a query sees at most, in layers that do not select: those that do see topk. */
static int most_seen(const Shape *s, int context)
{
    int most = s->idx_topk;
    for (int i = 0; i < s->n_layers; i++) {
        if (s->ratio[i] && !shape_overlaps(s->ratio[i]))
            most = MAX(most, context / s->ratio[i]);
    }
    return s->window + most;
}

size_t scratch_of_attend(const Shape *s, int rows, int context)
{
    const int few = MIN(rows, (int)FEW_ROWS);
    return attend_few_bytes(few, s->n_heads, most_seen(s, context)) + 256;
}

static Attend attend_of(Cuda *c, Buf o, Buf q, const KvLayer *kv, Buf pick, const Layer *l)
{
    const Shape *s = c->be.shape;
    Attend a = {};

    a.b = c->step;
    a.q = at<const float>(q);
    a.sinks = at<const float>(l->sinks);
    a.o = at<float>(o);
    a.ring = at<const uint8_t>(kv->ring);
    a.comp = at<const uint8_t>(kv->comp);
    a.pick = pick.base ? at<const int>(pick) : NULL;
    a.row = kv->row;
    a.ring_rows = kv->ring_rows;
    a.comp_rows = kv->comp_rows;
    a.ratio = kv->ratio;
    a.window = s->window;
    a.topk = s->idx_topk;
    a.n_rows = c->n_rows;
    a.n_heads = s->n_heads;
    a.kind = s->ratio[l->index] != 0;
    a.scale = 1 / sqrtf((float)s->head_dim);
    return a;
}

void cuda_attend(Backend *be, const Step *step, Buf o, Buf q, KvLayer *kv, Buf pick, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const Attend a = attend_of(c, o, q, kv, pick, l);
    const int pooled = a.pick ? s->idx_topk : MIN(kv->comp_rows, c->max_context);
    const int n_most = s->window + (kv->ratio ? pooled : 0);

    (void)step;
    if (!c->few && attend_tiles_fit(&a, 32)) {
        attend_many(c, &a);
    } else if (c->few && attend_tiles_fit(&a, 16) && n_most <= most_seen(s, c->max_context)) {
        size_t used = 0;
        void *scratch = op_scratch(c, &used, attend_few_bytes(c->n_rows, s->n_heads, n_most));
        if (scratch)
            attend_few(c, &a, n_most, scratch);
    } else {
        run_plain(c, &a);
    }
}
