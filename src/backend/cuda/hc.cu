/* hc.cu - hyper-connections, the embedding that fills their streams and the head
 * that reads them.
 *
 * A hc_post waits for the hc_pre behind it, whose first kernel does it on the way: it needs
 * the streams anyway. Whoever else comes first has it done alone (hc_settle).
 *
 * hc_pre is two launches. In the first a block has 64 dimensions of all four streams, of a
 * row or several after each other, and all outputs' weights for them in registers before the
 * inputs are there: it leaves 24 partial dots and a sum of squares. The second has two blocks
 * a row, which both add the parts in one order: one sums and norms the row, one makes the
 * mixture (20 rounds of Sinkhorn). Many rows: hc_many.cu. */
#include "hc.cuh"

enum {
    PART_DIMS = 64, /* of each stream, of a part */
    PART_THREADS = 256,
    PART_ROWS = 8, /* rows that have blocks of their own */
    PITCH = 36     /* floats of 32 dimensions in shared memory: eight lie in different banks */
};

/* A part is a block; a multiple of four, for whoever adds them. */
static int parts_of(int dim) { return ((dim + PART_DIMS - 1) / PART_DIMS + 3) / 4 * 4; }

static size_t part_bytes(int dim, int n)
{
    return (size_t)n * MIX_OUT * parts_of(dim) * sizeof(float);
}

size_t scratch_of_hc(const Shape *s, int rows)
{
    return MAX(part_bytes(s->dim, rows), hc_many_bytes(rows)) + 256;
}

size_t scratch_of_logits(const Shape *s, int out)
{
    return part_bytes(s->dim, out) + (size_t)out * s->dim * sizeof(float) + 1024;
}

/* ---- partial dots ----------------------------------------------------------------- */

/* A thread's one of the block's 4 x 64 new values: of stream threadIdx.x / 64. */
template <bool POST>
__device__ static float stream_value(const float *stream, const Post &post, int row, int d, int dim)
{
    const int k = threadIdx.x / PART_DIMS;
    if (!POST)
        return stream[(size_t)k * dim + d];
    const float y = post.y[(size_t)row * dim + d], *m = post.mix + (size_t)row * MIX_VALUES;
    float old[N_STREAMS];
#pragma unroll
    for (int j = 0; j < N_STREAMS; j++)
        old[j] = stream[(size_t)j * dim + d];
    return mixed(m, k, y, old);
}

/* The sum over a block of 32 of products with v, or of squares. */
__device__ static float sum_of(const float *v, const float *x, bool squares)
{
    float4 sum = {};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float4 q = ((const float4 *)x)[i];
        sum.x += (squares ? q.x : v[4 * i]) * q.x;
        sum.y += (squares ? q.y : v[4 * i + 1]) * q.y;
        sum.z += (squares ? q.z : v[4 * i + 2]) * q.z;
        sum.w += (squares ? q.w : v[4 * i + 3]) * q.w;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

/* Block (x, y): part x of rows y, y + gridDim.y, ...; eight threads an output, each with one
 * of the part's eight blocks of 32. rows: which of the streams' rows, NULL: as they come. */
template <int TYPE, bool POST>
__global__ void __launch_bounds__(PART_THREADS, 4)
    hc_parts(float *part, float *streams, Post post, DevWeight w, int n_out, int n, int dim,
             const int *rows, const uint2 *grid)
{
    __shared__ Iq2Table table;
    __shared__ __align__(16) float x[8 * PITCH];
    const int o = threadIdx.x / 8, lane = threadIdx.x % 8, blocks = dim / 32;
    const int b = 2 * blockIdx.x + lane % 2; /* of stream lane / 2 */
    const int k = threadIdx.x / PART_DIMS, in = threadIdx.x % PART_DIMS;
    const int d = PART_DIMS * blockIdx.x + in;
    float v[32] = {};

    let_others_start();
    if (TYPE == QUANT_IQ2_XXS) {
        iq2_fill(&table, grid);
        __syncthreads();
    }
    if (o < n_out && b < blocks)
        Block32<TYPE>::get(w, o, lane / 2 * blocks + b, v, &table);
    wait_for_others();
    for (int i = blockIdx.y; i < n; i += gridDim.y) {
        const int row = rows ? rows[i] : i;
        float *stream = streams + (size_t)row * N_STREAMS * dim;
        const float value = d < dim ? stream_value<POST>(stream, post, row, d, dim) : 0;
        x[(2 * k + in / 32) * PITCH + in % 32] = value;
        __syncthreads(); /* all have read the old streams */
        if (POST && d < dim)
            stream[(size_t)k * dim + d] = value;
        float sum = sum_of(v, x + lane * PITCH, o == n_out);
#pragma unroll
        for (int s = 4; s; s >>= 1)
            sum += __shfl_xor_sync(~0u, sum, s);
        if (lane == 0 && o <= n_out)
            part[((size_t)i * MIX_OUT + o) * gridDim.x + blockIdx.x] = sum;
        __syncthreads();
    }
}

/* Values 32 b .. 32 b + 31 of row o of any format. */
__device__ static void any_block(float *v, const DevWeight &w, int o, int b, const Iq2Table *t)
{
    switch (w.type) {
#define ANY_BLOCK(type) \
    case type: Block32<type>::get(w, o, b, v, t); break;
        FORMATS(ANY_BLOCK)
#undef ANY_BLOCK
    }
}

/* Streams that are no whole blocks of 32: one thread an output, all of the row. */
__global__ void hc_plain(float *part, const float *streams, DevWeight w, int n_out, int parts,
                         const int *rows, const uint2 *grid)
{
    __shared__ Iq2Table table;
    iq2_fill(&table, grid);
    wait_for_others();
    __syncthreads();
    const int o = threadIdx.x, row = rows ? rows[blockIdx.x] : blockIdx.x;
    const float *x = streams + (size_t)row * w.cols;
    float total = 0, sum = 0, v[32];
    if (o > n_out)
        return;
    for (int i = 0; i < w.cols; i++) {
        if (w.cols % 32 == 0 && i % 32 == 0 && o < n_out)
            any_block(v, w, o, i / 32, &table);
        const float one = o == n_out    ? x[i]
                          : w.cols % 32 ? plain_value(w, (size_t)o * w.cols + i)
                                        : v[i % 32];
        sum += one * x[i];
        if (i % 32 == 31 || i == w.cols - 1)
            total += sum, sum = 0;
    }
    for (int p = 0; p < parts; p++)
        part[((size_t)blockIdx.x * MIX_OUT + o) * parts + p] = p ? 0 : total;
}

template <int TYPE>
static void launch_parts(Cuda *c, float *part, float *streams, const Post *post, const DevWeight *w,
                         int n_out, int n, const int *rows)
{
    const int dim = w->cols / N_STREAMS;
    const dim3 grid(parts_of(dim), MIN(n, (int)PART_ROWS));
    if (post->y)
        LAUNCH(c, (hc_parts<TYPE, true>), grid, PART_THREADS, 0, part, streams, *post, *w, n_out, n,
               dim, rows, (const uint2 *)c->iq2_grid);
    else
        LAUNCH(c, (hc_parts<TYPE, false>), grid, PART_THREADS, 0, part, streams, *post, *w, n_out,
               n, dim, rows, (const uint2 *)c->iq2_grid);
}

/* Of n rows; post, if any, is done on the way, where in_blocks says so. */
static bool in_blocks(const DevWeight *w) { return w->cols / N_STREAMS % 32 == 0; }

static void parts(Cuda *c, float *part, float *streams, const Post *post, const DevWeight *w,
                  int n_out, int n, const int *rows)
{
    if (!in_blocks(w)) {
        LAUNCH(c, hc_plain, n, 32, 0, part, (const float *)streams, *w, n_out,
               parts_of(w->cols / N_STREAMS), rows, (const uint2 *)c->iq2_grid);
        return;
    }
    switch (w->type) {
#define PARTS_OF(type) \
    case type: launch_parts<type>(c, part, streams, post, w, n_out, n, rows); break;
        FORMATS(PARTS_OF)
#undef PARTS_OF
    }
}

/* ---- the mixture --------------------------------------------------------------------- */

/* m [n_out + 1] of a row from its parts: eight threads an output, who each add some
 * neighbours, then each other. A block that is too small takes turns. */
__device__ static void add_parts(float *m, const float *part, int n_parts, int n_out)
{
    const int lane = threadIdx.x % 8, mine = threadIdx.x % WARP / 8;
    for (int four = threadIdx.x / WARP * 4; four <= n_out; four += blockDim.x / 8) {
        const int o = four + mine, end = o <= n_out ? n_parts : 0;
        float sum = 0;
#pragma unroll 2
        for (int p = 4 * lane; p < end; p += 32) {
            const float4 v = *(const float4 *)(part + (size_t)o * n_parts + p);
            sum += (v.x + v.y) + (v.z + v.w);
        }
        for (int d = 4; d; d >>= 1)
            sum += __shfl_xor_sync(~0u, sum, d);
        if (lane == 0 && o <= n_out)
            m[o] = sum;
    }
    __syncthreads();
}

/* A block a row, and one more whose first warp makes the streams' mixture meanwhile. */
__global__ void __launch_bounds__(ROW_THREADS, 1)
    mix_rows(float *x, float *mix, const float *streams, const float *part, int n_parts, Mixing a)
{
    __shared__ float m[MIX_OUT], weight[N_STREAMS], sums[32];
    const int row = blockIdx.x;
    const float *mine = streams + (size_t)row * N_STREAMS * a.dim;
    let_others_start();
    part += (size_t)row * MIX_OUT * n_parts;
    if (blockIdx.y == 1) {
        const MixAffine by = mix_affine(a);
        wait_for_others();
        add_parts(m, part, n_parts, N_MIX);
        if (threadIdx.x < WARP)
            put_mix(mix + (size_t)row * MIX_VALUES, m, rms_of_streams(m[N_MIX], a), a, by);
        return;
    }
    Kept kept;
    keep_weights(&kept, a);
    wait_for_others();
    keep_streams(&kept, mine, a);
    add_parts(m, part, n_parts, N_MIX);
    if (threadIdx.x < WARP)
        put_weight(weight, m, rms_of_streams(m[N_MIX], a), a, kept);
    __syncthreads();
    collapse(x + (size_t)row * a.dim, kept, mine, weight, a, sums);
}

static Mixing mixing(const Cuda *c, const HcWeights *hc, Buf norm)
{
    const Shape *s = c->be.shape;
    return Mixing{
        s->dim,    s->sinkhorn_iters,          1 / (float)s->dim,         s->norm_eps,
        s->hc_eps, at<const float>(hc->scale), at<const float>(hc->base), at<const float>(norm)
    };
}

/* VECS fours of dimensions a thread, and enough threads to add parts. */
static int row_threads(int dim)
{
    return MIN(MAX((dim / 4 / VECS + 31) / 32 * 32, 256), (int)ROW_THREADS);
}

/* The hc_post that waits, if it is of these streams and their blocks are whole; else none. */
static Post take_post(Cuda *c, Buf streams, const DevWeight *w)
{
    Post post = {};
    if (at<char>(c->post.streams) != at<char>(streams) || !in_blocks(w))
        hc_settle(c);
    if (c->post.y.base)
        post = Post{ at<const float>(c->post.y), at<const float>(c->post.mix) };
    c->post = {};
    return post;
}

void cuda_hc_pre(Backend *be, const Step *step, Buf x, Buf mix, Buf streams, const HcWeights *hc,
                 Buf norm)
{
    Cuda *c = cuda_of(be);
    const DevWeight *w = weight_of(&hc->proj);
    const int n = step->n_rows, dim = be->shape->dim;
    const Post post = take_post(c, streams, w);
    const Mixing a = mixing(c, hc, norm);
    size_t used = 0;
    float *part = (float *)op_scratch(c, &used, MAX(part_bytes(dim, n), hc_many_bytes(n)));
    if (!part)
        return;
    if (hc_many_fits(w, dim, n)) {
        hc_many(c, at<float>(x), at<float>(mix), at<float>(streams), &post, w, &a, part, n);
        return;
    }
    parts(c, part, at<float>(streams), &post, w, N_MIX, n, NULL);
    LAUNCH(c, mix_rows, dim3(n, 2), row_threads(dim), 0, at<float>(x), at<float>(mix),
           at<const float>(streams), (const float *)part, parts_of(dim), a);
}

/* ---- hc_post ------------------------------------------------------------------------------ */

/* A thread has one dimension of a row: reads 4 streams and y, writes 4 streams. */
__global__ void post_rows(float *streams, Post post, int dim)
{
    let_others_start();
    wait_for_others();
    const int row = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= dim)
        return;
    float *s = streams + (size_t)row * N_STREAMS * dim + i, old[N_STREAMS];
    const float y = post.y[(size_t)row * dim + i], *m = post.mix + (size_t)row * MIX_VALUES;
#pragma unroll
    for (int j = 0; j < N_STREAMS; j++)
        old[j] = s[(size_t)j * dim];
#pragma unroll
    for (int k = 0; k < N_STREAMS; k++)
        s[(size_t)k * dim] = mixed(m, k, y, old);
}

void hc_settle(Cuda *c)
{
    const Post post = { at<const float>(c->post.y), at<const float>(c->post.mix) };
    const int dim = c->be.shape->dim;
    if (!c->post.y.base)
        return;
    LAUNCH(c, post_rows, dim3((dim + 127) / 128, c->n_rows), 128, 0, at<float>(c->post.streams),
           post, dim);
    c->post = {};
}

void cuda_hc_post(Backend *be, const Step *step, Buf streams, Buf y, Buf mix)
{
    Cuda *c = cuda_of(be);
    (void)step;
    c->ops++;
    hc_settle(c);
    c->post = { streams, y, mix };
}

/* ---- embed ---------------------------------------------------------------------------------- */

template <int TYPE>
__global__ void embed_rows(float *streams, DevWeight table, const RowAt *at_row, const uint2 *grid)
{
    __shared__ Iq2Table t;
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&t, grid);
    wait_for_others();
    __syncthreads();
    const int row = blockIdx.x, token = at_row[row].token, dim = table.cols;
    float *out = streams + (size_t)row * N_STREAMS * dim;
    for (int i = threadIdx.x; i < dim / 32; i += blockDim.x) {
        float w[32];
        Block32<TYPE>::get(table, token, i, w, &t);
        for (int k = 0; k < N_STREAMS; k++)
#pragma unroll
            for (int v = 0; v < 32; v += 4)
                *(float4 *)(out + (size_t)k * dim + 32 * i + v) =
                    make_float4(w[v], w[v + 1], w[v + 2], w[v + 3]);
    }
}

/* Rows that are no whole blocks. */
__global__ void embed_plain(float *streams, DevWeight table, const RowAt *at_row)
{
    wait_for_others();
    const int row = blockIdx.x, dim = table.cols;
    const size_t from = (size_t)at_row[row].token * dim;
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
               (const RowAt *)c->step.row);
        return;
    }
    switch (w->type) {
#define EMBED(type) \
    case type: \
        LAUNCH(c, embed_rows<type>, step->n_rows, 128, 0, at<float>(streams), *w, \
               (const RowAt *)c->step.row, (const uint2 *)c->iq2_grid); \
        break;
        FORMATS(EMBED)
#undef EMBED
    }
}

/* ---- the head -------------------------------------------------------------------------------- */

/* The head has only weights, and one scale for all. */
__global__ void __launch_bounds__(ROW_THREADS, 1)
    head_rows(float *x, const float *streams, const float *part, int n_parts, const int *rows,
              Mixing a)
{
    __shared__ float m[MIX_OUT], weight[N_STREAMS], sums[32];
    Kept kept;
    keep_weights(&kept, a);
    wait_for_others();
    const float *mine = streams + (size_t)rows[blockIdx.x] * N_STREAMS * a.dim;
    keep_streams(&kept, mine, a);
    add_parts(m, part + (size_t)blockIdx.x * MIX_OUT * n_parts, n_parts, N_STREAMS);
    if (threadIdx.x < WARP)
        put_weight(weight, m, rms_of_streams(m[N_STREAMS], a), a, kept);
    __syncthreads();
    collapse(x + (size_t)blockIdx.x * a.dim, kept, mine, weight, a, sums);
}

void cuda_logits(Backend *be, const Step *step, Buf out, Buf streams, const HcWeights *hc, Buf norm,
                 const Weight *head)
{
    Cuda *c = cuda_of(be);
    const DevWeight *w = weight_of(&hc->proj);
    const int dim = be->shape->dim, n = step->n_out;
    const Post none = {};
    size_t used = 0;
    float *part = (float *)op_scratch(c, &used, part_bytes(dim, n));
    float *x = (float *)op_scratch(c, &used, (size_t)n * dim * sizeof(float));
    c->ops++;
    if (!part || !x)
        return;
    parts(c, part, at<float>(streams), &none, w, N_STREAMS, n, c->step.out);
    LAUNCH(c, head_rows, n, row_threads(dim), 0, x, at<const float>(streams), (const float *)part,
           parts_of(dim), (const int *)c->step.out, mixing(c, hc, norm));
    dense(c, at<float>(out), head->rows, head, 0, x, dim, n);
    NOTE(c, cudaMemcpyAsync(c->seen, at<float>(out), (size_t)n * head->rows * sizeof *c->seen,
                            cudaMemcpyDeviceToHost, c->stream));
}
