/* hc.cu - hyper-connections, the embedding that fills their streams and the head
 * that reads them.
 *
 * hc_pre is two launches. The first splits the flattened streams into parts: a
 * block has a part of some rows, and all outputs' weights for it, and leaves 24
 * partial dots and a sum of squares. The second has two blocks a row, which both add
 * the parts in one order: one sums and norms the row, one makes the mixture (20 rounds
 * of Sinkhorn in one warp's registers). */
#include "formats.cuh"

enum { PARTS = 64, MIX_OUT = N_MIX + 1, PRE_THREADS = 256, ROW_THREADS = 1024, MANY_AT_ONCE = 4 };

/* Dimensions of a row that a thread keeps in registers: all of 4,096 with 1,024 threads. */
enum { KEPT = 4 };

size_t scratch_of_hc(const Shape *s, int rows)
{
    (void)s;
    return (size_t)rows * PARTS * MIX_OUT * sizeof(float) + 256;
}

size_t scratch_of_logits(const Shape *s, int out)
{
    return (size_t)out * (PARTS * MIX_OUT + s->dim) * sizeof(float) + 1024;
}

/* ---- partial dots ----------------------------------------------------------------- */

/* Of a block's rows (R of them) the blocks of 32 values [from, to) of the streams: a
 * thread takes output o of block b, eight threads an output. part [row][PARTS][MIX_OUT];
 * rows: which of the streams' rows, NULL: as they come. */
template <int TYPE, int R>
__global__ void hc_parts(float *part, const float *streams, DevWeight w, int n_out, int n,
                         const int *rows, const uint2 *grid)
{
    __shared__ Iq2Table table;
    let_others_start();
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&table, grid);
    wait_for_others();
    __syncthreads();
    const int blocks = w.cols / 32, from = blocks * blockIdx.y / PARTS,
              to = blocks * (blockIdx.y + 1) / PARTS;
    const int o = threadIdx.x / 8, lane = threadIdx.x % 8, first = blockIdx.x * R;
    float sum[R] = {};
    for (int b = from + lane; b < to && o <= n_out; b += 8) {
        float v[32];
        if (o < n_out)
            Block32<TYPE>::get(w, o, b, v, &table);
#pragma unroll
        for (int r = 0; r < R; r++) {
            if (first + r >= n)
                continue;
            const int row = rows ? rows[first + r] : first + r;
            const float4 *x = (const float4 *)(streams + (size_t)row * w.cols + 32 * b);
            for (int i = 0; i < 8; i++) {
                const float4 q = x[i];
                if (o < n_out)
                    sum[r] += v[4 * i] * q.x + v[4 * i + 1] * q.y + v[4 * i + 2] * q.z +
                              v[4 * i + 3] * q.w;
                else
                    sum[r] += q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        for (int d = 4; d; d >>= 1)
            sum[r] += __shfl_xor_sync(~0u, sum[r], d);
        if (lane == 0 && o <= n_out && first + r < n)
            part[((size_t)(first + r) * PARTS + blockIdx.y) * MIX_OUT + o] = sum[r];
    }
}

template <int TYPE>
static void parts_of(Cuda *c, float *part, const float *streams, const DevWeight *w, int n_out,
                     int n, const int *rows)
{
    if (n <= FEW_ROWS)
        LAUNCH(c, (hc_parts<TYPE, 1>), dim3(n, PARTS), PRE_THREADS, 0, part, streams, *w, n_out, n,
               rows, (const uint2 *)c->iq2_grid);
    else
        LAUNCH(c, (hc_parts<TYPE, MANY_AT_ONCE>),
               dim3((n + MANY_AT_ONCE - 1) / MANY_AT_ONCE, PARTS), PRE_THREADS, 0, part, streams,
               *w, n_out, n, rows, (const uint2 *)c->iq2_grid);
}

/* Columns that are no whole blocks of 32: one thread an output, all of the row. */
__global__ void hc_plain(float *part, const float *streams, DevWeight w, int n_out, int n,
                         const int *rows)
{
    wait_for_others();
    const int o = threadIdx.x, row = rows ? rows[blockIdx.x] : blockIdx.x;
    const float *x = streams + (size_t)row * w.cols;
    float sum = 0;
    if (o > n_out)
        return;
    for (int i = 0; i < w.cols; i++) {
        sum += (o == n_out ? x[i] : plain_value(w, (size_t)o * w.cols + i)) * x[i];
    }
    for (int p = 0; p < PARTS; p++)
        part[((size_t)blockIdx.x * PARTS + p) * MIX_OUT + o] = p ? 0 : sum;
}

static void parts(Cuda *c, float *part, Buf streams, const HcWeights *hc, int n_out, int n,
                  const int *rows)
{
    const DevWeight *w = weight_of(&hc->proj);
    if (w->cols % 32) {
        LAUNCH(c, hc_plain, n, 32, 0, part, at<const float>(streams), *w, n_out, n, rows);
        return;
    }
    switch (w->type) {
#define PARTS_OF(type) \
    case type: parts_of<type>(c, part, at<const float>(streams), w, n_out, n, rows); break;
        FORMATS(PARTS_OF)
#undef PARTS_OF
    }
}

/* ---- the mixture --------------------------------------------------------------------- */

__device__ static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* Sums over the 4 of a row, or of a column, of the 4x4 matrix that lanes 0..15 hold. */
__device__ static float row_sum(float v)
{
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}
__device__ static float column_sum(float v)
{
    v += __shfl_xor_sync(~0u, v, 4);
    return v + __shfl_xor_sync(~0u, v, 8);
}
__device__ static float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
    return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}

/* Lane 4 j + k: from old stream j to new stream k. */
__device__ static float sinkhorn(float comb, int iterations, float eps)
{
    const float e = expf(comb - row_max(comb));
    comb = e / row_sum(e) + eps;
    comb /= column_sum(comb) + eps;
    for (int i = 1; i < iterations; i++) {
        comb /= row_sum(comb) + eps;
        comb /= column_sum(comb) + eps;
    }
    return comb;
}

struct Mixing {
    int dim, iterations;
    float norm_eps, hc_eps;
    const float *scale, *base, *norm;
};

/* 1 / rms of n values with this sum of squares. */
__device__ static float rms_of(float sum_sq, int n, float eps)
{
    return (float)(1 / sqrt((double)sum_sq / n + (double)eps));
}

/* m [n_out + 1] of a row from its parts, the last a sum of squares: eight threads an output,
 * who each add some neighbours, then each other. A block that is too small takes turns. */
__device__ static void add_parts(float *m, const float *part, int n_out)
{
    enum { EACH = PARTS / 8 };
    const int lane = threadIdx.x % 8;
    for (int o = threadIdx.x / 8; o <= n_out; o += blockDim.x / 8) {
        float v[EACH], sum = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            v[i] = part[(lane * EACH + i) * MIX_OUT + o];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            sum += v[i];
        const unsigned eight = 0xffu << threadIdx.x % WARP / 8 * 8;
        for (int d = 4; d; d >>= 1)
            sum += __shfl_xor_sync(eight, sum, d);
        if (lane == 0)
            m[o] = sum;
    }
    __syncthreads();
}

/* The streams' values of a thread's dimensions, where they fit: asked for before anything
 * that the weights need. */
struct Streams {
    float v[KEPT][N_STREAMS];
};
__device__ static bool keeps(const Mixing &a) { return a.dim <= KEPT * (int)blockDim.x; }

__device__ static void keep(Streams *s, const float *streams, const Mixing &a)
{
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int i = threadIdx.x + k * blockDim.x;
#pragma unroll
        for (int j = 0; j < N_STREAMS; j++)
            s->v[k][j] = keeps(a) && i < a.dim ? streams[(size_t)j * a.dim + i] : 0;
    }
}

/* x = rms(sum_k weight_k stream_k) * norm; all threads of the block. */
__device__ static void collapse(float *x, const Streams &kept, const float *streams,
                                const float *weight, const Mixing &a, float *part)
{
    float v[KEPT], sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        v[k] = weight[0] * kept.v[k][0];
        for (int j = 1; j < N_STREAMS; j++)
            v[k] += weight[j] * kept.v[k][j];
        sum += v[k] * v[k];
    }
    for (int i = threadIdx.x; i < a.dim && !keeps(a); i += blockDim.x) {
        float one = weight[0] * streams[i];
        for (int j = 1; j < N_STREAMS; j++)
            one += weight[j] * streams[(size_t)j * a.dim + i];
        x[i] = one;
        sum += one * one;
    }
    const float r = rms_of(block_sum(sum, part), a.dim, a.norm_eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int i = threadIdx.x + k * blockDim.x;
        if (i < a.dim && keeps(a))
            x[i] = v[k] * r * a.norm[i];
    }
    for (int i = threadIdx.x; i < a.dim && !keeps(a); i += blockDim.x)
        x[i] *= r * a.norm[i];
}

/* What hc_post will need, from m times the row's 1 / rms: by the first warp. */
__device__ static void put_mix(float *mix, const float *m, float r, const Mixing &a)
{
    const int lane = threadIdx.x, post = N_STREAMS + lane % N_STREAMS;
    const int i = 2 * N_STREAMS + lane % 16;
    if (lane < N_STREAMS)
        mix[lane] = 2 * sigmoid(m[post] * r * a.scale[1] + a.base[post]);
    const float comb = sinkhorn(m[i] * r * a.scale[2] + a.base[i], a.iterations, a.hc_eps);
    if (lane < 16)
        mix[N_STREAMS + lane] = comb;
}

/* What the collapse needs: one thread a stream. */
__device__ static void put_weight(float *weight, const float *m, float r, const Mixing &a)
{
    const int k = threadIdx.x;
    if (k < N_STREAMS)
        weight[k] = sigmoid(m[k] * r * a.scale[0] + a.base[k]) + a.hc_eps;
    __syncthreads();
}

/* A block a row, and one more whose first warp makes the streams' mixture meanwhile. */
__global__ void __launch_bounds__(ROW_THREADS)
    mix_rows(float *x, float *mix, const float *streams, const float *part, Mixing a)
{
    __shared__ float m[MIX_OUT], weight[N_STREAMS], sums[32];
    let_others_start();
    wait_for_others();
    const int row = blockIdx.x, flat = N_STREAMS * a.dim;
    const bool mixes = blockIdx.y == 1;
    Streams kept;
    if (!mixes)
        keep(&kept, streams + (size_t)row * flat, a);
    add_parts(m, part + (size_t)row * PARTS * MIX_OUT, N_MIX);
    const float r = rms_of(m[N_MIX], flat, a.norm_eps);
    if (mixes) {
        if (threadIdx.x < WARP)
            put_mix(mix + (size_t)row * (N_STREAMS + N_STREAMS * N_STREAMS), m, r, a);
        return;
    }
    put_weight(weight, m, r, a);
    collapse(x + (size_t)row * a.dim, kept, streams + (size_t)row * flat, weight, a, sums);
}

static Mixing mixing(const Cuda *c, const HcWeights *hc, Buf norm)
{
    const Shape *s = c->be.shape;
    return Mixing{ s->dim,
                   s->sinkhorn_iters,
                   s->norm_eps,
                   s->hc_eps,
                   at<const float>(hc->scale),
                   at<const float>(hc->base),
                   at<const float>(norm) };
}

static int row_threads(int dim) { return MIN(MAX((dim + 31) / 32 * 32, 32), (int)ROW_THREADS); }

void cuda_hc_pre(Backend *be, const Step *step, Buf x, Buf mix, Buf streams, const HcWeights *hc,
                 Buf norm)
{
    Cuda *c = cuda_of(be);
    const int n = step->n_rows;
    size_t used = 0;
    float *part = (float *)op_scratch(c, &used, (size_t)n * PARTS * MIX_OUT * sizeof(float));
    if (!part)
        return;
    parts(c, part, streams, hc, N_MIX, n, NULL);
    LAUNCH(c, mix_rows, dim3(n, 2), row_threads(be->shape->dim), 0, at<float>(x), at<float>(mix),
           at<const float>(streams), (const float *)part, mixing(c, hc, norm));
}

/* ---- hc_post ------------------------------------------------------------------------------ */

/* A thread has one dimension of a row: reads 4 streams and y, writes 4 streams. */
__global__ void post_rows(float *streams, const float *y, const float *mix, int dim)
{
    __shared__ float m[N_STREAMS + N_STREAMS * N_STREAMS];
    let_others_start();
    wait_for_others();
    const int row = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x < N_STREAMS + N_STREAMS * N_STREAMS)
        m[threadIdx.x] = mix[(size_t)row * (N_STREAMS + N_STREAMS * N_STREAMS) + threadIdx.x];
    __syncthreads();
    if (i >= dim)
        return;
    float *s = streams + (size_t)row * N_STREAMS * dim + i;
    const float v = y[(size_t)row * dim + i];
    float old[N_STREAMS];
    for (int j = 0; j < N_STREAMS; j++)
        old[j] = s[(size_t)j * dim];
    for (int k = 0; k < N_STREAMS; k++) {
        float out = m[k] * v;
        for (int j = 0; j < N_STREAMS; j++)
            out += m[N_STREAMS + j * N_STREAMS + k] * old[j];
        s[(size_t)k * dim] = out;
    }
}

void cuda_hc_post(Backend *be, const Step *step, Buf streams, Buf y, Buf mix)
{
    Cuda *c = cuda_of(be);
    const int dim = be->shape->dim;
    c->ops++;
    LAUNCH(c, post_rows, dim3((dim + 127) / 128, step->n_rows), 128, 0, at<float>(streams),
           at<const float>(y), at<const float>(mix), dim);
}

/* ---- embed ---------------------------------------------------------------------------------- */

template <int TYPE>
__global__ void embed_rows(float *streams, DevWeight table, const StepBlock *b, const uint2 *grid)
{
    __shared__ Iq2Table t;
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&t, grid);
    wait_for_others();
    __syncthreads();
    const int row = blockIdx.x, token = b->row[row].token, dim = table.cols;
    float *out = streams + (size_t)row * N_STREAMS * dim;
    for (int i = threadIdx.x; i < dim / 32; i += blockDim.x) {
        float w[32];
        Block32<TYPE>::get(table, token, i, w, &t);
        for (int k = 0; k < N_STREAMS; k++)
#pragma unroll
            for (int v = 0; v < 32; v++)
                out[(size_t)k * dim + 32 * i + v] = w[v];
    }
}

/* Rows that are no whole blocks. */
__global__ void embed_plain(float *streams, DevWeight table, const StepBlock *b)
{
    wait_for_others();
    const int row = blockIdx.x, dim = table.cols;
    const size_t from = (size_t)b->row[row].token * dim;
    for (int i = threadIdx.x; i < N_STREAMS * dim; i += blockDim.x) {
        streams[(size_t)row * N_STREAMS * dim + i] = plain_value(table, from + i % dim);
    }
}

void cuda_embed(Backend *be, const Step *step, Buf streams, const Weight *table)
{
    Cuda *c = cuda_of(be);
    const DevWeight *w = weight_of(table);
    if (w->cols % 32) {
        LAUNCH(c, embed_plain, step->n_rows, 128, 0, at<float>(streams), *w,
               (const StepBlock *)c->block);
        return;
    }
    switch (w->type) {
#define EMBED(type) \
    case type: \
        LAUNCH(c, embed_rows<type>, step->n_rows, 128, 0, at<float>(streams), *w, \
               (const StepBlock *)c->block, (const uint2 *)c->iq2_grid); \
        break;
        FORMATS(EMBED)
#undef EMBED
    }
}

/* ---- the head -------------------------------------------------------------------------------- */

/* The head has only weights, and one scale for all. */
__global__ void __launch_bounds__(ROW_THREADS)
    head_rows(float *x, const float *streams, const float *part, const int *rows, Mixing a)
{
    __shared__ float m[MIX_OUT], weight[N_STREAMS], sums[32];
    wait_for_others();
    const int flat = N_STREAMS * a.dim;
    const float *mine = streams + (size_t)rows[blockIdx.x] * flat;
    Streams kept;
    keep(&kept, mine, a);
    add_parts(m, part + (size_t)blockIdx.x * PARTS * MIX_OUT, N_STREAMS);
    put_weight(weight, m, rms_of(m[N_STREAMS], flat, a.norm_eps), a);
    collapse(x + (size_t)blockIdx.x * a.dim, kept, mine, weight, a, sums);
}

void cuda_logits(Backend *be, const Step *step, Buf out, Buf streams, const HcWeights *hc, Buf norm,
                 const Weight *head)
{
    Cuda *c = cuda_of(be);
    const int dim = be->shape->dim, n = step->n_out;
    size_t used = 0;
    float *part = (float *)op_scratch(c, &used, (size_t)n * PARTS * MIX_OUT * sizeof(float));
    float *x = (float *)op_scratch(c, &used, (size_t)n * dim * sizeof(float));
    c->ops++;
    if (!part || !x)
        return;
    parts(c, part, streams, hc, N_STREAMS, n, c->host.out);
    LAUNCH(c, head_rows, n, row_threads(dim), 0, x, at<const float>(streams), (const float *)part,
           (const int *)c->host.out, mixing(c, hc, norm));
    dense(c, at<float>(out), head->rows, head, 0, x, dim, n);
}
