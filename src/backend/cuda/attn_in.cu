/* attn_in.cu - what attention makes of its input: queries and window rows.
 *
 * query is four launches: q_a, a norm in place, q_b, and the heads' norm and rotation in
 * place. kv_row is two: the projection, and a block a row that norms, rotates and packs. */
#include "kvrow.cuh"

enum { HEAD_WARPS = 8, NORM_THREADS = 256, KV_THREADS = 256 };

size_t scratch_of_query(const Shape *s, int rows)
{
    (void)s;
    (void)rows;
    return 0;
}

size_t scratch_of_kv_row(const Shape *s, int rows)
{
    return (size_t)rows * s->head_dim * sizeof(float) + 256;
}

/* ---- query ------------------------------------------------------------------------- */

/* A block a row: reads and writes it once, from the cache the second time. */
__global__ void norm_rows(float *x, const float *w, int n, float eps)
{
    __shared__ float part[32];
    let_others_start();
    wait_for_others();
    norm_row(x + (size_t)blockIdx.x * n, w, n, eps, part);
}

/* A warp a head of N * 128 values, a lane N times 4 of them in registers: 2 KB in and
 * out for Flash. */
template <int N>
__global__ void finish_heads(float *q, const StepBlock *b, int kind, int n_heads, int rope,
                             float eps, int n)
{
    enum { DIM = N * 128 };
    let_others_start();
    wait_for_others();
    const int lane = threadIdx.x % WARP, u = blockIdx.x * HEAD_WARPS + threadIdx.x / WARP;
    if (u >= n)
        return;
    float4 *head = (float4 *)(q + (size_t)u * DIM), v[N];
    const float *turn = b->turn[kind] + (size_t)(u / n_heads) * rope;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = head[i * WARP + lane];
        sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
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

/* The same of any size. */
__global__ void finish_heads_plain(float *q, const StepBlock *b, int kind, int n_heads, int dim,
                                   int rope, float eps, int n)
{
    let_others_start();
    wait_for_others();
    const int lane = threadIdx.x % WARP, u = blockIdx.x * HEAD_WARPS + threadIdx.x / WARP;
    if (u >= n)
        return;
    float *head = q + (size_t)u * dim, *tail = head + dim - rope;
    const float *turn = b->turn[kind] + (size_t)(u / n_heads) * rope;
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
        LAUNCH(c, finish_heads<4>, grid, HEAD_WARPS * WARP, 0, q, c->block, kind, s->n_heads,
               s->rope_dim, s->norm_eps, n);
    else
        LAUNCH(c, finish_heads_plain, grid, HEAD_WARPS * WARP, 0, q, c->block, kind, s->n_heads,
               s->head_dim, s->rope_dim, s->norm_eps, n);
}

void cuda_query(Backend *be, const Step *step, Buf q, Buf qr, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    float *low = at<float>(qr), *heads = at<float>(q);

    dense(c, low, s->q_rank, &l->q_a, 0, at<const float>(x), s->dim, n);
    LAUNCH(c, norm_rows, n, NORM_THREADS, 0, low, at<const float>(l->q_norm), s->q_rank,
           s->norm_eps);
    dense(c, heads, (size_t)s->n_heads * s->head_dim, &l->q_b, 0, low, s->q_rank, n);
    heads_of(c, heads, s->ratio[l->index] != 0);
}

/* ---- kv_row ------------------------------------------------------------------------- */

/* A block a row: 2 KB in, 584 bytes out for Flash. */
__global__ void finish_kv(KvRowFormat f, uint8_t *ring, int ring_rows, const float *raw,
                          const float *norm, const StepBlock *b, int kind, float eps)
{
    extern __shared__ __align__(16) float x[];
    __shared__ float part[32];
    let_others_start();
    wait_for_others();
    const int row = blockIdx.x;
    const RowAt at = b->row[row];
    for (int i = threadIdx.x; i < f.dim; i += blockDim.x)
        x[i] = raw[(size_t)row * f.dim + i];
    norm_row(x, norm, f.dim, eps, part);
    __syncthreads();
    turn_tail(x + f.dim - f.rope, b->turn[kind] + (size_t)row * f.rope, f.rope / 2);
    __syncthreads();
    const size_t to = (size_t)at.slot * ring_rows + at.pos % ring_rows;
    pack_kv_row(f, ring + to * f.bytes, x);
}

void cuda_kv_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    size_t used = 0;
    float *raw = (float *)op_scratch(c, &used, (size_t)n * s->head_dim * sizeof(float));

    if (!raw)
        return;
    dense(c, raw, s->head_dim, &l->kv, 0, at<const float>(x), s->dim, n);
    LAUNCH(c, finish_kv, n, KV_THREADS, s->head_dim * sizeof(float), kv->row, at<uint8_t>(kv->ring),
           kv->ring_rows, (const float *)raw, at<const float>(l->kv_norm), c->block,
           (int)(s->ratio[l->index] != 0), s->norm_eps);
}
