/* experts_few.cu - the experts of few rows: an expert's weights are read once
 * for all pairs that chose it. */
#include "experts.cuh"

enum { WARPS = 8 };

static size_t rounded(size_t n) { return (n + 255) / 256 * 256; }

size_t scratch_of_few(int pairs, int dim, int ff)
{
    return 3 * rounded((size_t)pairs * ff * sizeof(float)) +
           rounded((size_t)pairs * dim * sizeof(float));
}

/* ---- pairs of the same expert ------------------------------------------------------ */

__device__ static int expert_of(const int *ids, int pair) { return ids ? ids[pair] : 0; }

/* Whether no pair before this one has its expert. */
__device__ static bool is_first(const int *ids, int pair)
{
    const int e = expert_of(ids, pair);
    for (int i = 0; i < pair; i++)
        if (expert_of(ids, i) == e)
            return false;
    return true;
}

/* ---- any format, any size ------------------------------------------------------------ */

/* Values 32 b .. of row r; zeros behind its end, which only formats without blocks have. */
__device__ static void block_of(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *t)
{
    if (32 * b + 32 > d.cols || d.cols % 32) {
        for (int i = 0; i < 32; i++)
            w[i] = 32 * b + i < d.cols ? plain_value(d, r * d.cols + 32 * b + i) : 0;
        return;
    }
    switch (d.type) {
#define BLOCK(type) \
    case type: Block32<type>::get(d, r, b, w, t); break;
        FORMATS(BLOCK)
#undef BLOCK
    }
}

/* out [pair][w.rows] = w of the pair's expert times x [pair / per]. A block has one expert
 * (that of pair blockIdx.x, if it is the first with it) and WARPS rows, a warp a row; a lane
 * has blocks of 32 values. */
__global__ void __launch_bounds__(WARPS *WARP)
    plain_pairs(float *out, DevWeight w, const int *ids, const float *x, int per, const uint2 *grid)
{
    __shared__ Iq2Table table;
    const int lane = threadIdx.x % WARP, pair = blockIdx.x;
    const int row = blockIdx.y * WARPS + threadIdx.x / WARP;

    let_others_start();
    if (w.type == QUANT_IQ2_XXS)
        iq2_fill(&table, grid);
    wait_for_others();
    __syncthreads();
    if (row >= w.rows || !is_first(ids, pair))
        return;
    const int e = expert_of(ids, pair);
    for (int p = pair; p < (int)gridDim.x; p++) {
        if (expert_of(ids, p) != e)
            continue;
        const float *from = x + (size_t)(p / per) * w.cols;
        float sum = 0;
        for (int b = lane; 32 * b < w.cols; b += WARP) {
            float v[32];
            block_of(w, (size_t)e * w.rows + row, b, v, &table);
#pragma unroll
            for (int i = 0; i < 32; i++)
                sum += 32 * b + i < w.cols ? v[i] * from[32 * b + i] : 0;
        }
        sum = warp_sum(sum);
        if (lane == 0)
            out[(size_t)p * w.rows + row] = sum;
    }
}

/* g = swiglu(g, u) times the pair's gate; [pairs][ff] */
__global__ void swiglu_pairs(float *g, const float *u, const float *gates, int ff, float limit)
{
    const int j = blockIdx.x * blockDim.x + threadIdx.x, pair = blockIdx.y;
    let_others_start();
    wait_for_others();
    if (j < ff)
        g[(size_t)pair * ff + j] = swiglu(g[(size_t)pair * ff + j], u[(size_t)pair * ff + j], limit,
                                          gates ? gates[pair] : 1);
}

static void multiply_plain(Cuda *c, float *out, const DevWeight &w, const Moe *m, const float *x,
                           int per)
{
    const dim3 grid(pairs_of(m), (w.rows + WARPS - 1) / WARPS);
    LAUNCH(c, plain_pairs, grid, WARPS * WARP, 0, out, w, m->ids, x, per,
           (const uint2 *)c->iq2_grid);
}

static void plain_up(Cuda *c, const Moe *m, float *h, float *u)
{
    const dim3 grid((m->ff + 255) / 256, pairs_of(m));
    multiply_plain(c, h, m->gate, m, m->x, m->active);
    multiply_plain(c, u, m->up, m, m->x, m->active);
    LAUNCH(c, swiglu_pairs, grid, 256, 0, h, (const float *)u, m->gates, m->ff, m->limit);
}

/* ---- all ------------------------------------------------------------------------------ */

void experts_few(Cuda *c, const Moe *m)
{
    const size_t n = pairs_of(m), bytes = n * m->ff * sizeof(float);
    const bool fits = int8_up_fits(c, m);
    size_t used = 0;
    float *part = (float *)op_scratch(c, &used, n * m->dim * sizeof(float));
    float *h = (float *)op_scratch(c, &used, bytes), *u = (float *)op_scratch(c, &used, bytes);
    if (!u)
        return;
    if (fits)
        int8_up(c, m, h);
    else
        plain_up(c, m, h, u);
    side_join(c); /* for the shared expert */
    if (int8_down_fits(c, m)) {
        int8_down(c, m, h, fits);
        return;
    }
    multiply_plain(c, part, m->down, m, h, 1);
    add_pairs(c, m, part);
}
