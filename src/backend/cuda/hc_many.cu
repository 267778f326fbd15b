/* hc_many.cu - hc_pre of many rows, and the hc_post before it.
 *
 * The dots of 24 weight rows with the streams go to tensor cores as TF32, which holds F16 and
 * BF16 weights exactly (F32 ones as two numbers) and a stream's value as two: what is lost
 * is less than 2^-20 of a product. Sums of sixteen products are taken out of the tensor cores,
 * which round down, and added in F32. A warp has 16 rows and some dimensions of all four
 * streams: a lane reads its 128 values once, straight to where tensor cores want them, does
 * the hc_post if there is one, writes the new streams, and multiplies them. For 2,048 rows of
 * Flash 134 MB in (with hc_post 168 in and 134 out), and 0.8 MB of weights a tile of rows
 * from L2.
 *
 * The second kernel reads the streams again for the collapse, the last rows first: they may
 * be in L2 yet. Some of its blocks make the mixtures, a warp a row. */
#include "hc.cuh"

enum {
    TILE = 16, /* rows of a warp */
    UNIT = 16, /* dimensions of a warp at a time */
    SPLIT = 8, /* blocks that share a tile's dimensions */
    WARPS = 8, /* of such a block, which share its part */
    TILES = 3  /* of 8 outputs */
};

/* ---- dots ---------------------------------------------------------------------------- */

/* c += a . b, 16 x 8 by 8 x 8; of a lane with g = lane / 4 and t = lane % 4: a has rows g and
 * g + 8 of column t, then of column t + 4; b rows t and t + 4 of column g; c as in mma.cuh.
 * The lower 13 bits of a and b do not count. */
__device__ static void mma_tf32(float *c, const float *a, float b0, float b1)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

/* What TF32 holds of a float. */
__device__ static float upper(float v) { return __uint_as_float(__float_as_uint(v) & 0xffffe000); }

/* Four weights from number `at` on; low: what TF32 does not hold of them, if anything. */
template <int TYPE>
__device__ static void load_four(float *w, float *low, const DevWeight &d, size_t at)
{
    if (TYPE == QUANT_F32) {
        const float4 v = __ldg((const float4 *)((const float *)d.q + at));
        w[0] = upper(v.x), w[1] = upper(v.y), w[2] = upper(v.z), w[3] = upper(v.w);
        low[0] = v.x - w[0], low[1] = v.y - w[1], low[2] = v.z - w[2], low[3] = v.w - w[3];
        return;
    }
    const uint2 v = __ldg((const uint2 *)((const half *)d.q + at));
    if (TYPE == QUANT_F16) {
        const float2 a = __half22float2(*(const half2 *)&v.x);
        const float2 b = __half22float2(*(const half2 *)&v.y);
        w[0] = a.x, w[1] = a.y, w[2] = b.x, w[3] = b.y;
    } else {
        w[0] = __uint_as_float(v.x << 16), w[1] = __uint_as_float(v.x & 0xffff0000);
        w[2] = __uint_as_float(v.y << 16), w[3] = __uint_as_float(v.y & 0xffff0000);
    }
}

/* acc[j] += 16 values of each of 16 rows times those of outputs 8 j ...: the lane's four
 * columns, v [2 rows][4], are column t and t + 4 of two steps. */
template <int TYPE>
__device__ static void add_dots(float acc[TILES][4], const float v[2][4], const DevWeight &w,
                                size_t at)
{
    float high[2][4], low[2][4]; /* of two steps, as mma wants them */
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = v[i % 2][2 * s + i / 2];
            high[s][i] = upper(x);
            low[s][i] = x - high[s][i];
        }
    }
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        float b[4], b_low[4], c[4] = {};
        load_four<TYPE>(b, b_low, w, at + (size_t)8 * j * w.cols);
        mma_tf32(c, low[0], b[0], b[1]);
        mma_tf32(c, low[1], b[2], b[3]);
        if (TYPE == QUANT_F32) {
            mma_tf32(c, high[0], b_low[0], b_low[1]);
            mma_tf32(c, high[1], b_low[2], b_low[3]);
        }
        mma_tf32(c, high[0], b[0], b[1]);
        mma_tf32(c, high[1], b[2], b[3]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[j][i] += c[i];
    }
}

/* What a lane has of a unit: of two rows and all streams four dimensions. */
struct Values {
    float v[2][N_STREAMS][4];
};

__device__ static void load_four_floats(float *v, const float *from)
{
    const float4 q = *(const float4 *)from;
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}

/* hc_post of one of the two rows: from y and the streams to the new streams. */
__device__ static void mix_values(float v[N_STREAMS][4], const float *y, const float *mix)
{
    float m[MIX_VALUES];
#pragma unroll
    for (int i = 0; i < MIX_VALUES; i += 4)
        load_four_floats(m + i, mix + i);
#pragma unroll
    for (int d = 0; d < 4; d++) {
        const float old[N_STREAMS] = { v[0][d], v[1][d], v[2][d], v[3][d] };
#pragma unroll
        for (int k = 0; k < N_STREAMS; k++)
            v[k][d] = mixed(m, k, y[d], old);
    }
}

/* Reads a unit of rows row[0], row[1] (the last one's again where there are no more). */
template <bool POST>
__device__ static Values load_unit(float *streams, const Post &post, const int *row,
                                   const float *const *mix, const bool *there, int dim, int d)
{
    Values u;
    float y[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int k = 0; k < N_STREAMS; k++)
            load_four_floats(u.v[i][k], streams + ((size_t)row[i] * N_STREAMS + k) * dim + d);
        if (POST)
            load_four_floats(y[i], post.y + (size_t)row[i] * dim + d);
    }
#pragma unroll
    for (int i = 0; i < 2 && POST; i++) {
        mix_values(u.v[i], y[i], mix[i]);
#pragma unroll
        for (int k = 0; k < N_STREAMS; k++)
            if (there[i])
                *(float4 *)(streams + ((size_t)row[i] * N_STREAMS + k) * dim + d) =
                    make_float4(u.v[i][k][0], u.v[i][k][1], u.v[i][k][2], u.v[i][k][3]);
    }
    return u;
}

/* Adds up the warps' sums, red [WARPS][TILE][MIX_OUT], and leaves the block's part. */
__device__ static void put_parts(float *part, const float *red, int first, int n)
{
    for (int i = threadIdx.x; i < TILE * MIX_OUT; i += WARPS * WARP) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < WARPS; k++)
            sum += red[k * TILE * MIX_OUT + i];
        if (first + i / MIX_OUT < n)
            part[((size_t)first * MIX_OUT + i) * SPLIT + blockIdx.x] = sum;
    }
}

/* Block (x, y): part x of the dimensions of tile y. Rows beyond n are the last one read
 * again, for nothing. */
template <int TYPE, bool POST>
__global__ void __launch_bounds__(WARPS *WARP, 2)
    dots_many(float *part, float *streams, Post post, DevWeight w, int n, int dim)
{
    __shared__ __align__(16) float coef[TILE * MIX_VALUES];
    __shared__ float red[WARPS * TILE * MIX_OUT];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const int first = blockIdx.y * TILE, share = blockIdx.x * WARPS + warp, units = dim / UNIT;
    const int row[2] = { min(first + g, n - 1), min(first + g + 8, n - 1) };
    const bool there[2] = { first + g < n, first + g + 8 < n };
    const float *const mix[2] = { coef + g * MIX_VALUES, coef + (g + 8) * MIX_VALUES };
    float acc[TILES][4] = {}, sq[2] = {};

    let_others_start();
    wait_for_others();
    for (int i = threadIdx.x; POST && i < TILE * MIX_VALUES; i += WARPS * WARP)
        coef[i] = post.mix[min(first * MIX_VALUES + i, n * MIX_VALUES - 1)];
    __syncthreads();
    const int end = units * (share + 1) / (SPLIT * WARPS);
    for (int u = units * share / (SPLIT * WARPS); u < end; u++) {
        const int d = u * UNIT + 4 * t;
        const Values x = load_unit<POST>(streams, post, row, mix, there, dim, d);
#pragma unroll
        for (int k = 0; k < N_STREAMS; k++) {
            const float v[2][4] = { { x.v[0][k][0], x.v[0][k][1], x.v[0][k][2], x.v[0][k][3] },
                                    { x.v[1][k][0], x.v[1][k][1], x.v[1][k][2], x.v[1][k][3] } };
            add_dots<TYPE>(acc, v, w, (size_t)g * w.cols + (size_t)k * dim + d);
#pragma unroll
            for (int i = 0; i < 2; i++)
                sq[i] += (v[i][0] * v[i][0] + v[i][1] * v[i][1]) +
                         (v[i][2] * v[i][2] + v[i][3] * v[i][3]);
        }
    }
    float *to = red + (warp * TILE + g) * MIX_OUT;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sq[i] += __shfl_xor_sync(~0u, sq[i], 1);
        sq[i] += __shfl_xor_sync(~0u, sq[i], 2);
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            to[8 * i * MIX_OUT + 8 * j + 2 * t] = acc[j][2 * i];
            to[8 * i * MIX_OUT + 8 * j + 2 * t + 1] = acc[j][2 * i + 1];
        }
        if (t == 0)
            to[8 * i * MIX_OUT + N_MIX] = sq[i];
    }
    __syncthreads();
    put_parts(part, red, first, n);
}

/* ---- the rest ------------------------------------------------------------------------- */

/* m [MIX_OUT] of a row by a warp, a lane an output. */
__device__ static void add_row(float *m, const float *part)
{
    const int o = threadIdx.x % WARP;
    float v[SPLIT];
    if (o < MIX_OUT) {
#pragma unroll
        for (int i = 0; i < SPLIT; i += 4)
            load_four_floats(v + i, part + o * SPLIT + i);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < SPLIT; i++)
            sum += v[i];
        m[o] = sum;
    }
    __syncwarp();
}

/* The first blocks: mixtures, a warp a row; then a block a row, 80 KB in and out. */
__global__ void __launch_bounds__(ROW_THREADS, 2)
    finish_rows(float *x, float *mix, const float *streams, const float *part, Mixing a, int n)
{
    __shared__ float m[ROW_THREADS / WARP][WARP], weight[N_STREAMS], sums[32];
    const int warps = ROW_THREADS / WARP, warp = threadIdx.x / WARP;
    const int mixers = (n + warps - 1) / warps;

    let_others_start();
    if (blockIdx.x < mixers) {
        const MixAffine by = mix_affine(a);
        const int row = blockIdx.x * warps + warp;
        wait_for_others();
        if (row >= n)
            return;
        add_row(m[warp], part + (size_t)row * MIX_OUT * SPLIT);
        put_mix(mix + (size_t)row * MIX_VALUES, m[warp], rms_of_streams(m[warp][N_MIX], a), a, by);
        return;
    }
    const int row = n - 1 - (blockIdx.x - mixers);
    const float *mine = streams + (size_t)row * N_STREAMS * a.dim;
    Kept kept;
    keep_weights(&kept, a);
    wait_for_others();
    keep_streams(&kept, mine, a);
    if (warp == 0) {
        add_row(m[0], part + (size_t)row * MIX_OUT * SPLIT);
        put_weight(weight, m[0], rms_of_streams(m[0][N_MIX], a), a, kept);
    }
    __syncthreads();
    collapse(x + (size_t)row * a.dim, kept, mine, weight, a, sums);
}

/* ---- all -------------------------------------------------------------------------------- */

bool hc_many_fits(const DevWeight *w, int dim, int n)
{
    return n > MANY_FROM && dim % UNIT == 0 && w->rows == N_MIX &&
           (w->type == QUANT_F16 || w->type == QUANT_BF16 || w->type == QUANT_F32);
}

size_t hc_many_bytes(int n) { return (size_t)n * MIX_OUT * SPLIT * sizeof(float); }

template <int TYPE, bool POST>
static void launch(Cuda *c, float *part, float *streams, const Post *post, const DevWeight *w,
                   int n, int dim)
{
    const dim3 grid(SPLIT, (n + TILE - 1) / TILE);
    LAUNCH(c, (dots_many<TYPE, POST>), grid, WARPS * WARP, 0, part, streams, *post, *w, n, dim);
}

void hc_many(Cuda *c, float *x, float *mix, float *streams, const Post *post, const DevWeight *w,
             const Mixing *a, float *part, int n)
{
    switch (w->type) {
#define DOTS(type) \
    case type: \
        post->y ? launch<type, true>(c, part, streams, post, w, n, a->dim) \
                : launch<type, false>(c, part, streams, post, w, n, a->dim); \
        break;
        DOTS(QUANT_F16)
        DOTS(QUANT_BF16)
        DOTS(QUANT_F32)
#undef DOTS
    }
    const int warps = ROW_THREADS / WARP;
    LAUNCH(c, finish_rows, (n + warps - 1) / warps + n, ROW_THREADS, 0, x, mix,
           (const float *)streams, (const float *)part, *a, n);
}
