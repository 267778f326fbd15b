/* attend_many.cu - attention of many rows: Flash's heads, packed rows, F16 on tensor cores.
 *
 * A block takes HEADS heads of a query row and walks its KV rows, a tile at a time: raw
 * bytes of the next tile are on their way to shared memory while this one is used; a warp
 * unpacks its own rows of it to F16, for all warps. Scores (dimensions in two halves),
 * softmax along the way from the head's sink, weights rounded to F16, and each warp
 * adds up 64 dimensions of all heads in registers. A KV row whose values F16 cannot hold
 * is stored smaller by a power of two, which scores and weights make good.
 *
 * 64 heads and tiles of 64 rows where an SM has 227 KB of shared memory, else 32 and 32. */
#include "attend.cuh"
#include "mma.cuh"

enum {
    DIM = 512,
    ROPE = 64,
    NOPE = DIM - ROPE,
    SCALES = NOPE + 2 * ROPE,
    ROW_BYTES = 584,
    THREADS = 256,
    N_WARPS = 8,
    PITCH = DIM + 8 /* halfs: rows of tiles lie in different banks */
};

/* Shared memory of a block. */
template <int HEADS, int TILE> struct Tile {
    half q[HEADS * PITCH], kv[TILE * PITCH];
    uint8_t raw[TILE * ROW_BYTES];
    float z[2][HEADS * (TILE + 8)]; /* scores of either half of the dimensions */
    half p[HEADS * (TILE + 8)];
    float lift[TILE];    /* the power of two of a KV row */
    float shrink[HEADS]; /* of earlier results; at the end 1 / sum */
};

/* ---- KV rows --------------------------------------------------------------------------- */

/* The warp's rows of the tile at from: raw bytes, on their way. */
template <int HEADS, int TILE>
__device__ static void fetch_rows(Tile<HEADS, TILE> *sh, const View &v, int from)
{
    enum { MINE = TILE / N_WARPS };
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * MINE;
    const int at = from + first + lane;
    const unsigned long long mine =
        lane < MINE && at < v.n ? (unsigned long long)view_row(v, at) : 0;
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        const uint8_t *row = (const uint8_t *)__shfl_sync(~0u, mine, i);
        if (!row)
            continue;
        for (int k = lane; k < ROW_BYTES / 8; k += WARP)
            copy_eight(sh->raw + (first + i) * ROW_BYTES + 8 * k, row + 8 * k);
    }
}

/* How many powers of two a row is too large for F16 by; the same in all lanes. */
__device__ static unsigned excess_of(const uint8_t *raw)
{
    const int lane = threadIdx.x % WARP;
    const unsigned pair = *(const unsigned *)(raw + NOPE + 4 * lane);
    const unsigned tail = max(pair >> 7 & 0xff, pair >> 23 & 0xff); /* F16 ends below 2^16 */
    unsigned excess = tail > 142 ? tail - 142 : 0;
    if (lane < NOPE / 64) {
        const unsigned e = raw[SCALES + lane]; /* and 448 * 2^7 is the most */
        excess = max(excess, e > 134 ? e - 134 : 0u);
    }
    return __reduce_max_sync(~0u, excess);
}

/* 2^e as a half twice, for -24 <= e <= 15; less is zero, more does not occur. */
__device__ static unsigned power_pair(int e)
{
    const unsigned h = e >= -14 ? (unsigned)(e + 15) << 10 : e >= -24 ? 0x400u >> (-14 - e) : 0;
    return h | h << 16;
}

/* Eight values of a raw row, number k of 64, as halfs. */
__device__ static uint4 unpack_eight(const uint8_t *raw, int k, int excess)
{
    unsigned r[4];
    if (k < NOPE / 8) {
        const uint2 codes = *(const uint2 *)(raw + 8 * k);
        const int e = raw[SCALES + k / 8];
        const unsigned factor = e == 255 ? 0x7e007e00 : power_pair(e - 127 + 8 - excess);
        r[0] = times_f16(e4m3_to_f16(__byte_perm(codes.x, 0, 0x1404)), factor);
        r[1] = times_f16(e4m3_to_f16(__byte_perm(codes.x, 0, 0x3424)), factor);
        r[2] = times_f16(e4m3_to_f16(__byte_perm(codes.y, 0, 0x1404)), factor);
        r[3] = times_f16(e4m3_to_f16(__byte_perm(codes.y, 0, 0x3424)), factor);
    } else {
        const uint2 *at = (const uint2 *)(raw + NOPE + 16 * (k - NOPE / 8));
        const uint2 a = at[0], b = at[1];
        const unsigned pair[4] = { a.x, a.y, b.x, b.y };
        const float factor = __uint_as_float((unsigned)(127 - excess) << 23);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const half2 h = __floats2half2_rn(__uint_as_float(pair[i] << 16) * factor,
                                              __uint_as_float(pair[i] & 0xffff0000) * factor);
            r[i] = *(const unsigned *)&h;
        }
    }
    return make_uint4(r[0], r[1], r[2], r[3]);
}

/* The warp's own rows, whose bytes have come; rows beyond n are zeros. */
template <int HEADS, int TILE>
__device__ static void unpack_rows(Tile<HEADS, TILE> *sh, int from, int n)
{
    enum { MINE = TILE / N_WARPS };
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * MINE;
#pragma unroll 2
    for (int i = first; i < first + MINE; i++) {
        const uint8_t *raw = sh->raw + i * ROW_BYTES;
        half *to = sh->kv + i * PITCH;
        if (from + i >= n) {
            for (int k = lane; k < DIM / 8; k += WARP)
                *(uint4 *)(to + 8 * k) = make_uint4(0, 0, 0, 0);
            continue;
        }
        const int excess = (int)min(excess_of(raw), 126u);
        if (lane == 0)
            sh->lift[i] = __uint_as_float((unsigned)(127 + excess) << 23);
#pragma unroll
        for (int k = lane; k < DIM / 8; k += WARP)
            *(uint4 *)(to + 8 * k) = unpack_eight(raw, k, excess);
    }
}

/* ---- scores and weights ------------------------------------------------------------------- */

/* Eight warps: two of heads, two of KV rows, two halves of the dimensions. */
template <int HEADS, int TILE> __device__ static void score_tile(Tile<HEADS, TILE> *sh)
{
    enum { M = HEADS / 32, N = TILE / 16 };
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int m0 = warp % 2 * (HEADS / 2), n0 = warp / 2 % 2 * (TILE / 2), half_ = warp / 4;
    const half *q = sh->q + (m0 + lane % 16) * PITCH + lane / 16 * 8 + half_ * (DIM / 2);
    const half *kv =
        sh->kv + (n0 + lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 8 + half_ * (DIM / 2);
    float c[M][N][4] = {};
#pragma unroll 4
    for (int k = 0; k < DIM / 2; k += 16) {
        unsigned a[M][4], b[N / 2][4];
#pragma unroll
        for (int i = 0; i < M; i++)
            load_tiles(a[i], q + i * 16 * PITCH + k);
#pragma unroll
        for (int j = 0; j < N / 2; j++)
            load_tiles(b[j], kv + j * 16 * PITCH + k);
#pragma unroll
        for (int i = 0; i < M; i++) {
#pragma unroll
            for (int j = 0; j < N; j++)
                mma_f16(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
    float *z = sh->z[half_] + (m0 + lane / 4) * (TILE + 8) + n0 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            float *to = z + i * 16 * (TILE + 8) + j * 8;
            *(float2 *)to = make_float2(c[i][j][0], c[i][j][1]);
            *(float2 *)(to + 8 * (TILE + 8)) = make_float2(c[i][j][2], c[i][j][3]);
        }
    }
}

/* The softmax so far of the head that a thread and its neighbours share; in powers of two. */
struct Softmax {
    float max, sum;
};

/* n: rows of the tile that there are. Says whether a larger score came for the head. */
template <int HEADS, int TILE>
__device__ static bool weigh_tile(Tile<HEADS, TILE> *sh, Softmax *s, int n, float scale)
{
    enum { EACH = THREADS / HEADS, COLS = TILE / EACH };
    const int head = threadIdx.x / EACH, mine = threadIdx.x % EACH * 4;
    float v[COLS], max = s->max, sum = 0;
#pragma unroll
    for (int i = 0; i < COLS; i += 4) {
        const int col = mine + i * EACH, at = head * (TILE + 8) + col;
        const float4 a = *(const float4 *)(sh->z[0] + at), b = *(const float4 *)(sh->z[1] + at);
        const float4 l = *(const float4 *)(sh->lift + col);
        v[i] = col < n ? (a.x + b.x) * (scale * l.x) : -INFINITY;
        v[i + 1] = col + 1 < n ? (a.y + b.y) * (scale * l.y) : -INFINITY;
        v[i + 2] = col + 2 < n ? (a.z + b.z) * (scale * l.z) : -INFINITY;
        v[i + 3] = col + 3 < n ? (a.w + b.w) * (scale * l.w) : -INFINITY;
#pragma unroll
        for (int k = 0; k < 4; k++)
            max = fmaxf(max, v[i + k]);
    }
#pragma unroll
    for (int d = 1; d < EACH; d *= 2)
        max = fmaxf(max, __shfl_xor_sync(~0u, max, d));
#pragma unroll
    for (int i = 0; i < COLS; i += 4) {
        const int col = mine + i * EACH;
        float p[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            p[k] = exp2f(v[i + k] - max);
            sum += p[k];
            p[k] *= col + k < n ? sh->lift[col + k] : 0;
        }
        half2 *to = (half2 *)(sh->p + head * (TILE + 8) + col);
        to[0] = __floats2half2_rn(p[0], p[1]);
        to[1] = __floats2half2_rn(p[2], p[3]);
    }
#pragma unroll
    for (int d = 1; d < EACH; d *= 2)
        sum += __shfl_xor_sync(~0u, sum, d);
    const float shrink = exp2f(s->max - max);
    const bool larger = max > s->max;
    if (mine == 0)
        sh->shrink[head] = shrink;
    s->sum = s->sum * shrink + sum;
    s->max = max;
    return larger;
}

/* ---- results ---------------------------------------------------------------------------------- */

/* Rows of acc: heads 16 i + lane / 4 and those + 8; columns of warp w: 64 w + 8 j + .... */
template <int HEADS>
__device__ static void scale_heads(float acc[HEADS / 16][8][4], const float *by)
{
    const int g = threadIdx.x % WARP / 4;
#pragma unroll
    for (int i = 0; i < HEADS / 16; i++) {
        const float low = by[16 * i + g], high = by[16 * i + g + 8];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            acc[i][j][0] *= low;
            acc[i][j][1] *= low;
            acc[i][j][2] *= high;
            acc[i][j][3] *= high;
        }
    }
}

template <int HEADS, int TILE>
__device__ static void mix_tile(float acc[HEADS / 16][8][4], const Tile<HEADS, TILE> *sh)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const half *p = sh->p + lane % 16 * (TILE + 8) + lane / 16 * 8;
    const half *kv = sh->kv + lane % 16 * PITCH + warp * 64 + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        unsigned a[HEADS / 16][4];
#pragma unroll
        for (int i = 0; i < HEADS / 16; i++)
            load_tiles(a[i], p + i * 16 * (TILE + 8) + k);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            unsigned b[4];
            load_tiles_turned(b, kv + k * PITCH + 16 * j);
#pragma unroll
            for (int i = 0; i < HEADS / 16; i++) {
                mma_f16(acc[i][2 * j], a[i], b[0], b[1]);
                mma_f16(acc[i][2 * j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* Out, the rotation of the last 64 dimensions (the last warp's) undone. */
template <int HEADS>
__device__ static void put_heads(float acc[HEADS / 16][8][4], float *o, const float *turn)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const int d = warp * 64 + 8 * j + 2 * t;
        const float2 by = d >= NOPE ? *(const float2 *)(turn + d - NOPE) : make_float2(1, 0);
#pragma unroll
        for (int i = 0; i < HEADS / 16; i++) {
            float *to = o + (16 * i + g) * DIM + d;
            *(float2 *)to = turned(acc[i][j][0], acc[i][j][1], by.x, -by.y);
            *(float2 *)(to + 8 * DIM) = turned(acc[i][j][2], acc[i][j][3], by.x, -by.y);
        }
    }
}

/* A block has its multiprocessor alone: 64 KB of its queries are on their way at once. */
template <int HEADS, int TILE>
__device__ static void load_queries(Tile<HEADS, TILE> *sh, const float *q)
{
    enum { FOURS = HEADS * (DIM / 4) / THREADS, ROUND = 16 };
    static_assert(FOURS % ROUND == 0, "whole rounds");
    for (int k = 0; k < FOURS; k += ROUND) {
        float4 v[ROUND];
#pragma unroll
        for (int i = 0; i < ROUND; i++)
            v[i] = ((const float4 *)q)[(k + i) * THREADS + threadIdx.x];
#pragma unroll
        for (int i = 0; i < ROUND; i++) {
            const int at = (k + i) * THREADS + threadIdx.x;
            half2 *to = (half2 *)(sh->q + at / (DIM / 4) * PITCH + at % (DIM / 4) * 4);
            to[0] = __floats2half2_rn(v[i].x, v[i].y);
            to[1] = __floats2half2_rn(v[i].z, v[i].w);
        }
    }
}

/* ---- the kernel -------------------------------------------------------------------------------- */

/* Block (x, y): heads of group y of a row, the last rows first: they see more. */
template <int HEADS, int TILE> __global__ void __launch_bounds__(THREADS, 1) attend_tiles(Attend a)
{
    extern __shared__ __align__(16) uint8_t shared[];
    Tile<HEADS, TILE> *sh = (Tile<HEADS, TILE> *)shared;
    const float log2_e = 1.44269504f;
    const int row = a.n_rows - 1 - blockIdx.x, first = blockIdx.y * HEADS;
    const size_t at = ((size_t)row * a.n_heads + first) * DIM;
    float acc[HEADS / 16][8][4] = {};

    let_others_start();
    wait_for_others();
    const View v = view_of(a, row, NULL);
    fetch_rows(sh, v, 0);
    load_queries(sh, a.q + at);
    Softmax s = { a.sinks[first + threadIdx.x / (THREADS / HEADS)] * log2_e, 1 };
    for (int from = 0; from < v.n; from += TILE) {
        copies_wait();
        __syncwarp();
        unpack_rows(sh, from, v.n);
        __syncwarp();
        fetch_rows(sh, v, from + TILE);
        __syncthreads();
        score_tile(sh);
        __syncthreads();
        const bool larger = weigh_tile(sh, &s, v.n - from, a.scale * log2_e);
        if (__syncthreads_or(larger))
            scale_heads<HEADS>(acc, sh->shrink);
        mix_tile(acc, sh);
        __syncthreads();
    }
    if (threadIdx.x % (THREADS / HEADS) == 0)
        sh->shrink[threadIdx.x / (THREADS / HEADS)] = 1 / s.sum;
    __syncthreads();
    scale_heads<HEADS>(acc, sh->shrink);
    put_heads<HEADS>(acc, a.o + at, a.b.turn[a.kind] + (size_t)row * ROPE);
}

template <int HEADS, int TILE> static void launch(Cuda *c, const Attend *a)
{
    const int bytes = (int)sizeof(Tile<HEADS, TILE>);
    NOTE(c, cudaFuncSetAttribute(attend_tiles<HEADS, TILE>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    LAUNCH(c, (attend_tiles<HEADS, TILE>), dim3(a->n_rows, a->n_heads / HEADS), THREADS, bytes, *a);
}

void attend_many(Cuda *c, const Attend *a)
{
    int most = 0;
    NOTE(c, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->device));
    if (a->n_heads % 64 == 0 && most >= (int)sizeof(Tile<64, 64>))
        launch<64, 64>(c, a);
    else
        launch<32, 32>(c, a);
}
