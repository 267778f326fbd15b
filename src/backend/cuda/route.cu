/* route.cu - which experts a row goes to, and with what weight.
 *
 * The router's logits come from dense(); then a block takes a row: a thread a score (or
 * several), which go to shared memory. One warp chooses: lane l owns the experts l, l + 32,
 * ... and remembers the best that is still free; after a choice the lane that lost it looks
 * again. */
#include "tiles.cuh"

enum {
    TAKEN = 0,
    THREADS = 256,
    AT_ONCE = 8,            /* of a lane's experts */
    GROUP = AT_ONCE * WARP, /* ranks end with a whole one */
    SPREAD = 4              /* shares of the columns, of few rows */
};

size_t scratch_of_route(const Shape *s, int rows)
{
    const size_t few = MIN(rows, (int)FEW_ROWS) * (size_t)SPREAD;
    return MAX((size_t)rows, few) * s->n_experts * sizeof(float) + 256;
}

struct RouteArgs {
    int *ids;           /* [rows][n_active] */
    float *gates;       /* likewise */
    const float *logit; /* [spread][rows][n_experts], to be added */
    int spread;
    const float *bias; /* [n_experts] */
    const int *table;  /* [vocab][n_active]; NULL: chosen by score */
    const RowAt *row;
    int *bad;
    int n_experts, n_active;
    float scale;
};

__device__ static float score_of(float logit)
{
    return sqrtf(logit > 20 ? logit : log1pf(expf(logit)));
}

/* Unsigned numbers in the order of the floats, NaN below all of them, TAKEN never. */
__device__ static unsigned rank_of(float v)
{
    const unsigned bits = __float_as_uint(v);
    if (isnan(v))
        return 1;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* A lane's best free expert; ties to the lower id. */
__device__ static unsigned best_of_lane(const unsigned *rank, int n_experts, int *id)
{
    unsigned best = TAKEN;
    *id = n_experts;
    for (int e = threadIdx.x; e < n_experts; e += GROUP) {
        unsigned r[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            r[i] = rank[e + i * WARP];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (r[i] > best)
                best = r[i], *id = e + i * WARP;
    }
    return best;
}

__device__ static void choose_best(int *chosen, unsigned *rank, const RouteArgs &a)
{
    int id;
    unsigned mine = best_of_lane(rank, a.n_experts, &id);
    for (int k = 0; k < a.n_active; k++) {
        const unsigned top = __reduce_max_sync(~0u, mine);
        const int winner = (int)__reduce_min_sync(~0u, mine == top ? (unsigned)id : ~0u);
        if (threadIdx.x == 0)
            chosen[k] = winner;
        if (winner == id && k + 1 < a.n_active) {
            rank[id] = TAKEN; /* only this lane ever looks at it */
            mine = best_of_lane(rank, a.n_experts, &id);
        }
    }
    __syncwarp();
}

/* From the file's table: an id that the model does not have is the file's fault, and is
 * told at the end of the step. */
__device__ static void choose_hashed(int *chosen, int row, const RouteArgs &a)
{
    const int *from = a.table + (size_t)a.row[row].token * a.n_active;
    for (int k = threadIdx.x; k < a.n_active; k += WARP) {
        int id = from[k];
        if (id < 0 || id >= a.n_experts) {
            *a.bad = max(id, a.n_experts); /* whichever comes last */
            id = 0;
        }
        chosen[k] = id;
    }
    __syncwarp();
}

/* Gates of the chosen: scores by their sum, in the order of the choice. */
__device__ static void leave_gates(const int *chosen, const float *score, int row,
                                   const RouteArgs &a)
{
    const int lane = threadIdx.x;
    const size_t at = (size_t)row * a.n_active;
    float sum = 0;
    for (int from = 0; from < a.n_active; from += WARP) {
        const float mine = from + lane < a.n_active ? score[chosen[from + lane]] : 0;
#pragma unroll 8
        for (int k = 0; k < min(WARP, a.n_active - from); k++)
            sum += __shfl_sync(~0u, mine, k);
    }
    sum = sum < 0x1p-14f ? 0x1p-14f : sum;
    for (int k = lane; k < a.n_active; k += WARP) {
        a.ids[at + k] = chosen[k];
        a.gates[at + k] = a.scale * score[chosen[k]] / sum;
    }
}

static int padded(int n_experts) { return (n_experts + GROUP - 1) / GROUP * GROUP; }

__device__ static float logit_of(const RouteArgs &a, int row, int e)
{
    float sum = 0;
#pragma unroll 4
    for (int k = 0; k < a.spread; k++)
        sum += a.logit[((size_t)k * gridDim.x + row) * a.n_experts + e];
    return sum;
}

/* Shared: ranks [whole groups], scores [n_experts], ids [n_active]. */
__global__ void __launch_bounds__(THREADS) route_row(RouteArgs a, int n_ranks)
{
    extern __shared__ unsigned rank[];
    float *score = (float *)(rank + n_ranks);
    int *chosen = (int *)(score + a.n_experts);
    const int row = blockIdx.x;

    let_others_start();
    for (int e = threadIdx.x; e < n_ranks; e += THREADS)
        rank[e] = a.bias && e < a.n_experts ? __float_as_uint(a.bias[e]) : TAKEN;
    wait_for_others();
    for (int e = threadIdx.x; e < a.n_experts; e += THREADS) {
        score[e] = score_of(logit_of(a, row, e));
        if (a.bias)
            rank[e] = rank_of(score[e] + __uint_as_float(rank[e]));
    }
    __syncthreads();
    if (threadIdx.x >= WARP)
        return;
    if (a.table)
        choose_hashed(chosen, row, a);
    else
        choose_best(chosen, rank, a);
    leave_gates(chosen, score, row, a);
}

/* A small matrix: of the shares that its columns go in each leaves logits of its own. */
static void spread_logits(Cuda *c, float *logit, const DevWeight *w, const float *x, int spread)
{
    const TileJob job = { logit, (size_t)w->rows, w, spread };
    const TileInput in = { x, (size_t)w->cols, c->n_rows, w->cols, 1, NULL, 0, NULL, 0 };
    tiles(c, &job, 1, &in, false);
}

void cuda_route(Backend *be, const Step *step, Buf ids, Buf gates, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const bool hashed = s->hashed[l->index];
    const int n = step->n_rows;
    size_t used = 0;
    const DevWeight *w = weight_of(&l->router);
    const int spread = c->few && w->tiled ? MIN(w->cols / STRIP, (int)SPREAD) : 1;
    float *logit = (float *)op_scratch(c, &used, (size_t)spread * n * s->n_experts * sizeof(float));
    if (!logit)
        return;
    shared_beside(c, x, l);
    if (spread > 1)
        spread_logits(c, logit, w, at<float>(x), spread);
    else
        dense(c, logit, s->n_experts, &l->router, 0, at<float>(x), s->dim, n);
    const RouteArgs a = { at<int>(ids),
                          at<float>(gates),
                          logit,
                          spread,
                          hashed ? NULL : at<float>(l->route_bias),
                          hashed ? at<int>(l->route_hash) : NULL,
                          c->step.row,
                          c->bad,
                          s->n_experts,
                          s->n_active,
                          s->route_scale };
    const int n_ranks = padded(s->n_experts);
    const size_t shared = ((size_t)n_ranks + s->n_experts + s->n_active) * sizeof(float);
    LAUNCH(c, route_row, n, THREADS, shared, a, n_ranks);
}
