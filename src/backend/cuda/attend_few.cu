/* attend_few.cu - attention of few rows: Flash's heads, packed rows, F32 precision on
 * tensor cores.
 *
 * FP8 codes and rotated tails are exact in BF16, and a float is the sum of three BF16: so
 * three products on tensor cores give what F32 gives, with scales applied outside. Two
 * launches, whose grids depend on the number of rows only:
 *
 *      scores   a block: 16 heads of a row, one of SPLITS runs of its KV rows, every warp
 *               64 of the 512 dimensions (one FP8 scale, or the tail); parts add up in the
 *               order of dimensions. Values come straight from memory into the
 *               registers that the tensor cores want: 16 bytes a lane.
 *      mix      a block: 16 heads, 32 dimensions, all KV rows, 16 at a time, dealt out
 *               to warps; then the warps' sums are added in order.
 *
 * A row is 584 bytes and is read by n_heads / 16 blocks of scores, and of mix. What a head
 * gets depends on its row only. */
#include "attend.cuh"
#include "mma.cuh"

enum {
    DIM = 512,
    ROPE = 64,
    NOPE = DIM - ROPE,
    SCALES = NOPE + 2 * ROPE, /* where they lie in a row */
    HEADS = 16,               /* of a block */
    THREADS = 256,
    N_WARPS = 8,
    SPLITS = 32,
    GROUP = 32,        /* KV rows between two barriers of scores */
    PITCH = GROUP + 8, /* floats: pairs are written without conflicts */
    MIX_DIMS = 32,
    MIX_PITCH = MIX_DIMS + 4, /* floats: four are written without conflicts */
    MIX_WARPS = 16,
    MIX_THREADS = MIX_WARPS * WARP
};

/* z [row][head][n_pad]; most [row][head][SPLITS]: the largest z of a split. */
struct Scores {
    float *z, *most;
    int n_pad;
};

static int padded(int n_most) { return (n_most + 15) / 16 * 16; }

size_t attend_few_bytes(int rows, int n_heads, int n_most)
{
    return (size_t)rows * n_heads * (padded(n_most) + SPLITS) * sizeof(float);
}

/* ---- scores --------------------------------------------------------------------------- */

/* Dimensions 64 w + 16 t + 4 s + 0..3 of heads g and g + 8 are of step s, in three parts. */
struct Queries {
    unsigned part[3][4][4];
};

__device__ static void load_queries(Queries *r, const float *q, int warp, int lane)
{
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int s = 0; s < 4; s++) {
        const int d = 64 * warp + 16 * t + 4 * s;
        const float4 a = *(const float4 *)(q + g * DIM + d);
        const float4 b = *(const float4 *)(q + (g + 8) * DIM + d);
        split3(&r->part[0][s][0], &r->part[1][s][0], &r->part[2][s][0], a.x, a.y);
        split3(&r->part[0][s][1], &r->part[1][s][1], &r->part[2][s][1], b.x, b.y);
        split3(&r->part[0][s][2], &r->part[1][s][2], &r->part[2][s][2], a.z, a.w);
        split3(&r->part[0][s][3], &r->part[1][s][3], &r->part[2][s][3], b.z, b.w);
    }
}

/* A lane's part of a KV row: 16 values, as bytes, and the scale of the warp's 64. */
struct Piece {
    uint2 v[4]; /* FP8: the first two */
    unsigned scale;
};

__device__ static Piece load_piece(const uint8_t *row, int warp, int t)
{
    Piece p = {};
    if (!row)
        return p;
    if (warp < NOPE / 64) {
        const uint2 *at = (const uint2 *)(row + 64 * warp + 16 * t);
        p.v[0] = at[0];
        p.v[1] = at[1];
        p.scale = row[SCALES + warp];
    } else {
        const uint2 *at = (const uint2 *)(row + NOPE + 32 * t);
#pragma unroll
        for (int i = 0; i < 4; i++)
            p.v[i] = at[i];
        p.scale = 127;
    }
    return p;
}

/* The pairs of step s. */
__device__ static void piece_pairs(const Piece &p, int warp, int s, unsigned *b0, unsigned *b1)
{
    if (warp < NOPE / 64) {
        const unsigned codes = s == 0 ? p.v[0].x : s == 1 ? p.v[0].y : s == 2 ? p.v[1].x : p.v[1].y;
        *b0 = e4m3_to_bf16(__byte_perm(codes, 0, 0x1404));
        *b1 = e4m3_to_bf16(__byte_perm(codes, 0, 0x3424));
    } else {
        *b0 = p.v[s].x;
        *b1 = p.v[s].y;
    }
}

/* Dots of the warp's dimensions of 16 heads with eight KV rows. */
__device__ static void dot_piece(float *c, const Queries &q, const Piece &p, int warp, int lane)
{
    c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
    for (int s = 0; s < 4; s++) {
        unsigned b0, b1;
        piece_pairs(p, warp, s, &b0, &b1);
#pragma unroll
        for (int k = 2; k >= 0; k--)
            mma_bf16(c, q.part[k][s], b0, b1);
    }
    const int t = lane % 4; /* columns 2t and 2t + 1 are the rows of lanes 8t and 8t + 4 */
    const float s0 = e8m0_value(__shfl_sync(~0u, p.scale, 8 * t));
    const float s1 = e8m0_value(__shfl_sync(~0u, p.scale, 8 * t + 4));
    c[0] *= s0;
    c[1] *= s1;
    c[2] *= s0;
    c[3] *= s1;
}

/* KV rows from.. (GROUP of them, up to end) to sh [warp][head][PITCH]. */
__device__ static void dot_group(float *sh, const Queries &q, const View &v, int from, int end)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    Piece p[GROUP / 8];
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++) {
        const int row = from + 8 * i + g;
        p[i] = load_piece(row < end ? view_row(v, row) : NULL, warp, t);
    }
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++) {
        float c[4];
        if (from + 8 * i >= end)
            continue;
        dot_piece(c, q, p[i], warp, lane);
        float *to = sh + (warp * HEADS + g) * PITCH + 8 * i + 2 * t;
        *(float2 *)to = make_float2(c[0], c[1]);
        *(float2 *)(to + 8 * PITCH) = make_float2(c[2], c[3]);
    }
}

/* Adds the warps' parts: a thread has two KV rows of a head. Returns the larger score. */
__device__ static float put_group(float *z, const float *sh, int from, int end, float scale)
{
    const int head = threadIdx.x / 16, i = threadIdx.x % 16 * 2;
    float x = 0, y = 0;
#pragma unroll
    for (int w = 0; w < N_WARPS; w++) {
        const float2 part = *(const float2 *)(sh + (w * HEADS + head) * PITCH + i);
        x += part.x;
        y += part.y;
    }
    x *= scale;
    y *= scale;
    if (from + i < end)
        z[from + i] = x;
    if (from + i + 1 < end)
        z[from + i + 1] = y;
    return fmaxf(from + i < end ? x : -INFINITY, from + i + 1 < end ? y : -INFINITY);
}

/* Block (split, group of heads, row). */
__global__ void __launch_bounds__(THREADS) attend_scores(Attend a, Scores s)
{
    __shared__ __align__(16) float sh[N_WARPS * HEADS * PITCH];
    __shared__ int picks[MOST_PICKS];
    const int row = blockIdx.z, first = blockIdx.y * HEADS, split = blockIdx.x;
    const int lane = threadIdx.x % WARP, head = first + threadIdx.x / 16;
    Queries q;

    let_others_start();
    wait_for_others();
    load_queries(&q, a.q + ((size_t)row * a.n_heads + first) * DIM, threadIdx.x / WARP, lane);
    const View v = view_of(a, row, picks);
    const int tiles = (v.n + 7) / 8, per = (tiles + SPLITS - 1) / SPLITS * 8;
    const int begin = min(split * per, v.n), end = min(begin + per, v.n);
    float *z = s.z + ((size_t)row * a.n_heads + head) * s.n_pad, most = -INFINITY;
    for (int from = begin; from < end; from += GROUP) {
        __syncthreads();
        dot_group(sh, q, v, from, end);
        __syncthreads();
        most = fmaxf(most, put_group(z, sh, from, end, a.scale));
    }
    for (int d = 8; d; d >>= 1)
        most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    if (threadIdx.x % 16 == 0)
        s.most[((size_t)row * a.n_heads + head) * SPLITS + split] = most;
}

/* ---- mix -------------------------------------------------------------------------------- */

/* Four values (dimensions part * 32 + 4 g + 0..3) of KV rows 4t.. of a step, and scales. */
struct Quad {
    uint2 v[4]; /* FP8: .x only */
    unsigned scale[4];
};

__device__ static Quad load_quad(const View &v, int from, int d)
{
    Quad q = {};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (from + i >= v.n)
            continue;
        const uint8_t *row = view_row(v, from + i);
        if (d < NOPE) {
            q.v[i].x = *(const unsigned *)(row + d);
            q.scale[i] = row[SCALES + d / 64];
        } else {
            q.v[i] = *(const uint2 *)(row + NOPE + 2 * (d - NOPE));
            q.scale[i] = 127;
        }
    }
    return q;
}

/* What a lane needs of 16 KV rows: its quad, and scores of heads g and g + 8. */
struct MixStep {
    Quad q;
    float4 low, high;
};

__device__ static MixStep load_step(const View &v, const float *low, const float *high, int from,
                                    int d)
{
    MixStep s = {};
    if (from < v.n) {
        s.low = *(const float4 *)(low + from);
        s.high = *(const float4 *)(high + from);
        s.q = load_quad(v, from, d);
    }
    return s;
}

/* Weights of four KV rows for one head, times their scales; adds them to sum. */
__device__ static float4 weights_of(float4 z, int from, int n, float most, const Quad &q,
                                    float *sum)
{
    float p[4] = { z.x, z.y, z.z, z.w };
#pragma unroll
    for (int i = 0; i < 4; i++) {
        p[i] = from + i < n ? expf(p[i] - most) : 0;
        *sum += p[i];
        p[i] = from + i < n ? p[i] * e8m0_value(q.scale[i]) : 0;
    }
    return make_float4(p[0], p[1], p[2], p[3]);
}

/* Value j of rows a and b as a pair. */
__device__ static unsigned pair_of(uint2 a, uint2 b, int j, bool tail)
{
    if (!tail)
        return e4m3_to_bf16(__byte_perm(a.x, b.x, (4 + j) << 12 | j << 4));
    return __byte_perm(j < 2 ? a.x : a.y, j < 2 ? b.x : b.y, j % 2 ? 0x7632 : 0x5410);
}

/* acc[j]: dimensions 4 n + j, where n are the columns. */
__device__ static void mix_quad(float acc[4][4], const Quad &q, float4 low, float4 high, bool tail)
{
    unsigned a[3][4];
    split3(&a[0][0], &a[1][0], &a[2][0], low.x, low.y);
    split3(&a[0][1], &a[1][1], &a[2][1], high.x, high.y);
    split3(&a[0][2], &a[1][2], &a[2][2], low.z, low.w);
    split3(&a[0][3], &a[1][3], &a[2][3], high.z, high.w);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned b0 = pair_of(q.v[0], q.v[1], j, tail), b1 = pair_of(q.v[2], q.v[3], j, tail);
#pragma unroll
        for (int k = 2; k >= 0; k--)
            mma_bf16(acc[j], a[k], b0, b1);
    }
}

/* The largest score of each head: a warp two of them, a lane a split. */
__device__ static void find_most(float *most, const float *all)
{
    const int lane = threadIdx.x % WARP;
    for (int h = threadIdx.x / WARP; h < HEADS; h += MIX_WARPS) {
        const float m = warp_max(all[h * SPLITS + lane]);
        if (lane == 0)
            most[h] = m;
    }
}

/* The warps' parts to shared memory; sum: this lane's weights of heads g and g + 8. */
__device__ static void put_parts(float *sh, float *sums, float acc[4][4], const float *sum)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int head = g + k / 2 * 8, n = 2 * t + k % 2;
        *(float4 *)(sh + (warp * HEADS + head) * MIX_PITCH + 4 * n) =
            make_float4(acc[0][k], acc[1][k], acc[2][k], acc[3][k]);
    }
    for (int k = 0; k < 2; k++) {
        float s = sum[k];
        s += __shfl_xor_sync(~0u, s, 1);
        s += __shfl_xor_sync(~0u, s, 2);
        if (t == 0)
            sums[warp * HEADS + g + 8 * k] = s;
    }
}

/* A thread has a dimension of a head; its neighbour in a pair is the next lane. */
__device__ static void put_mix(const Attend &a, const float *sh, const float *sums,
                               const float *most, int row, int first, int part)
{
    const int h = threadIdx.x / MIX_DIMS, d = part * MIX_DIMS + threadIdx.x % MIX_DIMS;
    float x = 0, sum = 0;
    for (int w = 0; w < MIX_WARPS; w++) {
        x += sh[(w * HEADS + h) * MIX_PITCH + threadIdx.x % MIX_DIMS];
        sum += sums[w * HEADS + h];
    }
    const float sink = a.sinks[first + h], top = fmaxf(most[h], sink);
    const float rows = expf(most[h] - top), all = sum * rows + expf(sink - top);
    float r = x * rows / all;
    const float other = __shfl_xor_sync(~0u, r, 1);
    if (d >= NOPE) {
        const float *turn = a.b.turn[a.kind] + (size_t)row * ROPE + (d - NOPE) / 2 * 2;
        r = r * turn[0] + other * (d % 2 ? -turn[1] : turn[1]);
    }
    a.o[((size_t)row * a.n_heads + first + h) * DIM + d] = r;
}

/* Block (32 dimensions, group of heads, row). The next 16 KV rows of a warp are on their way
 * while it works on these. */
__global__ void __launch_bounds__(MIX_THREADS) attend_mix(Attend a, Scores s)
{
    __shared__ __align__(16) float sh[MIX_WARPS * HEADS * MIX_PITCH];
    __shared__ float most[HEADS], sums[MIX_WARPS * HEADS];
    __shared__ int picks[MOST_PICKS];
    const int part = blockIdx.x, first = blockIdx.y * HEADS, row = blockIdx.z;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const size_t head = (size_t)row * a.n_heads + first;
    float acc[4][4] = {}, sum[2] = {};

    let_others_start();
    wait_for_others();
    find_most(most, s.most + head * SPLITS);
    const View v = view_of(a, row, picks);
    const int d = part * MIX_DIMS + 4 * g;
    const float *low = s.z + (head + g) * s.n_pad, *high = low + (size_t)8 * s.n_pad;
    const float most_low = most[g], most_high = most[g + 8];
    MixStep now = load_step(v, low, high, warp * 16 + 4 * t, d);
    for (int at = warp * 16; at < v.n; at += MIX_WARPS * 16) {
        const int from = at + 4 * t;
        const MixStep next = load_step(v, low, high, from + MIX_WARPS * 16, d);
        const float4 pl = weights_of(now.low, from, v.n, most_low, now.q, &sum[0]);
        const float4 ph = weights_of(now.high, from, v.n, most_high, now.q, &sum[1]);
        mix_quad(acc, now.q, pl, ph, d >= NOPE);
        now = next;
    }
    put_parts(sh, sums, acc, sum);
    __syncthreads();
    put_mix(a, sh, sums, most, row, first, part);
}

void attend_few(Cuda *c, const Attend *a, int n_most, void *scratch)
{
    Scores s;
    const int groups = a->n_heads / HEADS;

    s.n_pad = padded(n_most);
    s.z = (float *)scratch;
    s.most = s.z + (size_t)a->n_rows * a->n_heads * s.n_pad;
    LAUNCH(c, attend_scores, dim3(SPLITS, groups, a->n_rows), THREADS, 0, *a, s);
    LAUNCH(c, attend_mix, dim3(DIM / MIX_DIMS, groups, a->n_rows), MIX_THREADS, 0, *a, s);
}
