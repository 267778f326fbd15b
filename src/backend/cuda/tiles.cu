/* tiles.cu - few rows times Q8_0 matrices in tiles, on the int8 tensor cores.
 *
 * Inputs become whole numbers of 24 bits, a strip of 128 columns at a time, cut into three
 * int8 digits. mma.m16n8k32 has a tile of 16 weight rows as A, one load of 16 bytes a lane,
 * and 8 columns as B: three for each input row. A block of 32 columns gives exact sums, which
 * are multiplied with the weights' scales; a strip's with the inputs'. So products are as
 * precise as F32 ones, and cost so few instructions that memory is the limit.
 *
 * Sums begin at 1.5 * 2^23: then their bits are a float, of which that number is taken away,
 * without a conversion.
 *
 * `split` warps share the columns of a tile, by strips; their sums meet in shared memory in
 * order. Which strips follows from the matrix alone, so an input row's result does not depend
 * on its company. Up to two rows are cut by the blocks that need them; more by a kernel
 * before, and read from memory in the order of the lanes. */
#include "experts.cuh"
#include "experts_mma.cuh"
#include "tiles.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    MOST_JOBS = 4,
    DIGITS = 3,
    CUT_ROWS = 2,   /* cut where they are needed: 6 of 8 columns */
    MOST_TILES = 6, /* of 8 columns: 16 rows */
    MOST_SHARED = 200 << 10
};

struct Jobs {
    const uint4 *q[MOST_JOBS], *d[MOST_JOBS];
    float *out[MOST_JOBS];
    size_t ld_out[MOST_JOBS];
    int end[MOST_JOBS]; /* tiles up to and with this job */
    int n, tiles;
    TileInput in;
    int group_tiles;
    bool add;
    uint2 *digit; /* [groups][cols / 32][NT][WARP] */
    float *scale; /* [groups][strips][NT * 8], of each column */
};

/* ---- inputs ----------------------------------------------------------------------------- */

/* Bytes i of four words. */
__device__ static unsigned bytes_of(const unsigned *y, int i)
{
    const unsigned two = 0x40 + 0x11 * i;
    return __byte_perm(__byte_perm(y[0], y[1], two), __byte_perm(y[2], y[3], two), 0x5410);
}

__device__ static float4 values_at(const TileInput &in, size_t i)
{
    float4 v = *(const float4 *)(in.x + i);
    if (in.up) {
        const float4 u = *(const float4 *)(in.up + i);
        v.x = swiglu(v.x, u.x, in.limit, 1);
        v.y = swiglu(v.y, u.y, in.limit, 1);
        v.z = swiglu(v.z, u.z, in.limit, 1);
        v.w = swiglu(v.w, u.w, in.limit, 1);
    }
    return v;
}

/* A warp: a strip of an input row, four values a lane. Digits are -128 .. 127, so a byte of
 * the number plus 0x808080 is a digit but for its top bit. */
template <int NT>
__device__ static void cut_strip(uint2 *digit, float *scale, const TileInput &in, int group,
                                 int row, int strip)
{
    const int lane = threadIdx.x % WARP, block = 4 * strip + lane / 8, t = lane % 8 / 2;
    const float4 a =
        values_at(in, row * in.ld + (size_t)group * in.cols + strip * STRIP + 4 * lane);
    const float v[4] = { a.x, a.y, a.z, a.w };
    const float most = 8300000; /* less than 127 127 127 in base 256 */
    unsigned bits = 0, y[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        bits = max(bits, __float_as_uint(v[i]) & 0x7fffffff);
    bits = __reduce_max_sync(~0u, bits);
    const float max = __uint_as_float(bits);
    const bool none = !(max >= 1e-30f), wild = bits >= 0x7f800000; /* NaN or infinite */
    const float times = none || wild ? 0 : most / max;
    const float unit = wild ? __uint_as_float(0x7fffffff) : none ? 0 : max / most;
#pragma unroll
    for (int i = 0; i < 4; i++)
        y[i] = wild ? 0 : (unsigned)(__float2int_rn(v[i] * times) + 0x808080);
#pragma unroll
    for (int i = 0; i < DIGITS; i++) {
        const int column = DIGITS * row + i, at = (block * NT + column / 8) * WARP;
        ((unsigned *)(digit + at + column % 8 * 4 + t))[lane % 2] =
            bytes_of(y, DIGITS - 1 - i) ^ 0x80808080;
        if (lane == i)
            scale[strip * NT * 8 + column] = unit * (i == 0 ? 65536 : i == 1 ? 256 : 1);
    }
}

/* A warp a strip of a row. */
template <int NT> __global__ void __launch_bounds__(THREADS) cut_rows(Jobs j)
{
    let_others_start();
    wait_for_others();
    const int strips = j.in.cols / STRIP, group = blockIdx.y, row = blockIdx.z;
    const int strip = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (strip < strips)
        cut_strip<NT>(j.digit + (size_t)group * strips * 4 * NT * WARP,
                      j.scale + group * strips * NT * 8, j.in, group, row, strip);
}

/* ---- a tile ------------------------------------------------------------------------------- */

/* A strip of a tile: four blocks, and their scales. */
struct Weights {
    uint4 q[4], d;
};

__device__ static void load(Weights *w, const uint4 *q, const uint4 *d)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        w->q[i] = __ldg(q + i * WARP);
    w->d = __ldg(d);
}

/* total += a strip times all columns. */
template <int NT>
__device__ static void add_strip(float total[NT][4], const Weights &w, const uint2 *digit,
                                 const float *scale)
{
    const float start = 12582912; /* 1.5 * 2^23 */
    const half2 *d = (const half2 *)&w.d;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < NT; k++) {
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned a[4] = { w.q[i].x, w.q[i].z, w.q[i].y, w.q[i].w };
            const uint2 b = digit[(i * NT + k) * WARP];
            const int from = __float_as_int(start);
            int c[4] = { from, from, from, from };
            mma_s8(c, a, b.x, b.y);
            const float2 f = __half22float2(d[i]);
            sum[0] = fmaf(f.x, __int_as_float(c[0]) - start, sum[0]);
            sum[1] = fmaf(f.x, __int_as_float(c[1]) - start, sum[1]);
            sum[2] = fmaf(f.y, __int_as_float(c[2]) - start, sum[2]);
            sum[3] = fmaf(f.y, __int_as_float(c[3]) - start, sum[3]);
        }
        const float2 s = *(const float2 *)(scale + 8 * k + 2 * t);
        total[k][0] = fmaf(s.x, sum[0], total[k][0]);
        total[k][1] = fmaf(s.y, sum[1], total[k][1]);
        total[k][2] = fmaf(s.x, sum[2], total[k][2]);
        total[k][3] = fmaf(s.y, sum[3], total[k][3]);
    }
}

/* Strips [from, to) of a tile, of whose first the lane's are at q and d. */
template <int NT>
__device__ static void walk(float total[NT][4], const uint4 *q, const uint4 *d, int from, int to,
                            const uint2 *digit, const float *scale)
{
    const int lane = threadIdx.x % WARP;
    Weights next;
    if (from < to)
        load(&next, q + (size_t)from * 4 * WARP, d + (size_t)from * 8);
#pragma unroll 2
    for (int s = from; s < to; s++) {
        const Weights now = next;
        if (s + 1 < to)
            load(&next, q + (size_t)(s + 1) * 4 * WARP, d + (size_t)(s + 1) * 8);
        add_strip<NT>(total, now, digit + (size_t)s * 4 * NT * WARP + lane, scale + s * NT * 8);
    }
}

/* The lane's sums of rows g and g + 8. to: [16][NT * 8] of a warp. */
template <int NT> __device__ static void leave_sums(float *to, const float total[NT][4])
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < NT; k++) {
        *(float2 *)(to + g * NT * 8 + 8 * k + 2 * t) = make_float2(total[k][0], total[k][1]);
        *(float2 *)(to + (g + 8) * NT * 8 + 8 * k + 2 * t) = make_float2(total[k][2], total[k][3]);
    }
}

__device__ static int job_of(const Jobs &j, int tile)
{
    int k = 0;
    while (k + 1 < j.n && tile >= j.end[k])
        k++;
    return k;
}

/* Outputs of the block's tiles from the first on. sums: [WARPS][16][NT * 8] */
template <int NT>
__device__ static void finish(const Jobs &j, const float *sums, int first, int split)
{
    const int per = WARPS / split, all = per * TILE_ROWS * j.in.n;
    for (int i = threadIdx.x; i < all; i += THREADS) {
        const int row = i % TILE_ROWS, r = i / TILE_ROWS % j.in.n, tile = i / (TILE_ROWS * j.in.n);
        if (first + tile >= j.tiles)
            continue;
        float digit[DIGITS] = {};
        for (int s = 0; s < split; s++) {
            const float *from = sums + ((tile * split + s) * TILE_ROWS + row) * NT * 8 + DIGITS * r;
#pragma unroll
            for (int k = 0; k < DIGITS; k++)
                digit[k] += from[k];
        }
        const int k = job_of(j, first + tile);
        const int at = (first + tile - (k ? j.end[k - 1] : 0)) * TILE_ROWS + row;
        float *out = j.out[k] + r * j.ld_out[k] + at;
        const float sum = digit[0] + (digit[1] + digit[2]);
        *out = j.add ? *out + sum : sum;
    }
}

/* Asks for the weights of strips [from, to). */
__device__ static void ask_for_strips(const uint4 *q, const uint4 *d, int from, int to)
{
    const char *a = (const char *)(q + (size_t)from * 4 * WARP);
    const char *b = (const char *)(d + (size_t)from * 8);
    const int lines = (to - from) * (4 * TILE_BYTES / 128), lane = threadIdx.x % WARP;
    for (int i = lane; i < lines; i += WARP)
        ask_for_line(a + (size_t)i * 128);
    for (int i = lane; i < to - from; i += WARP)
        ask_for_line(b + (size_t)i * 128);
}

template <int NT>
__device__ static void cut_inputs(uint2 *digit, float *scale, const TileInput &in, int group)
{
    const int strips = in.cols / STRIP;
    for (int i = threadIdx.x / WARP; i < strips * in.n; i += WARPS)
        cut_strip<NT>(digit, scale, in, group, i / strips, i % strips);
}

/* Blocks take WARPS / split tiles at a time. Shared: sums of two rounds, and what is cut. */
template <int NT, bool CUT>
__global__ void __launch_bounds__(THREADS, 2) tile_rows(Jobs j, int split)
{
    extern __shared__ __align__(16) float shared[];
    enum { SUMS = WARPS * TILE_ROWS * NT * 8 };
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, per = WARPS / split;
    const int strips = j.in.cols / STRIP, share = warp % split;
    const int from = strips * share / split, to = strips * (share + 1) / split;
    uint2 *digit = CUT ? (uint2 *)(shared + 2 * SUMS) : j.digit;
    float *scale = CUT ? (float *)(digit + (size_t)strips * 4 * NT * WARP) : j.scale;
    int have = -1;

    let_others_start();
    for (int round = 0;; round++) {
        const int first = (blockIdx.x + round * gridDim.x) * per, tile = first + warp / split;
        const bool works = tile < j.tiles;
        const int k = works ? job_of(j, tile) : 0;
        const size_t at = works ? tile - (k ? j.end[k - 1] : 0) : 0;
        const uint4 *q = j.q[k] + at * strips * 4 * WARP, *d = j.d[k] + at * strips * 8;
        const int group = j.group_tiles ? first / j.group_tiles : 0;
        if (first >= j.tiles)
            break;
        if (works)
            ask_for_strips(q, d, from, to);
        if (round == 0)
            wait_for_others();
        if (CUT && group != have) {
            __syncthreads();
            cut_inputs<NT>(digit, scale, j.in, group);
            __syncthreads();
            have = group;
        }
        float total[NT][4] = {};
        if (works) {
            const size_t skip = CUT ? 0 : (size_t)group * strips;
            walk<NT>(total, q + lane, d + lane / 4, from, to, digit + skip * 4 * NT * WARP,
                     scale + skip * NT * 8);
        }
        float *sums = shared + round % 2 * SUMS;
        leave_sums<NT>(sums + warp * TILE_ROWS * NT * 8, total);
        __syncthreads();
        finish<NT>(j, sums, first, split);
    }
}

/* ---- launches ------------------------------------------------------------------------------ */

/* So many warps share a tile that 132 SMs have about 16 each; of shapes alone, and such that a
 * block's tiles are of one group. */
static int split_of(int tiles, int strips, int group_tiles)
{
    int split = 1;
    while (split < WARPS && tiles * split <= 1100 && strips >= 2 * split)
        split *= 2;
    while (split < WARPS && group_tiles % (WARPS / split))
        split *= 2;
    return split;
}

template <int NT, bool CUT> static void launch(Cuda *c, const Jobs &j)
{
    const int strips = j.in.cols / STRIP, split = split_of(j.tiles, strips, j.group_tiles);
    const int per = WARPS / split, blocks = (j.tiles + per - 1) / per;
    const int bytes = 2 * WARPS * TILE_ROWS * NT * 8 * (int)sizeof(float) +
                      (CUT ? strips * NT * (4 * WARP * (int)sizeof(uint2) + 32) : 0);
    NOTE(c, cudaFuncSetAttribute(tile_rows<NT, CUT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 bytes));
    LAUNCH(c, (tile_rows<NT, CUT>), MIN(blocks, 2 * c->sm_count), THREADS, bytes, j, split);
}

template <int NT> static void cut_and_launch(Cuda *c, Jobs *j)
{
    const int strips = j->in.cols / STRIP, groups = MAX(j->in.groups, 1);
    j->digit = (uint2 *)c->digits;
    j->scale = (float *)(j->digit + (size_t)groups * strips * 4 * NT * WARP);
    LAUNCH(c, cut_rows<NT>, dim3((strips + WARPS - 1) / WARPS, groups, j->in.n), THREADS, 0, *j);
    launch<NT, false>(c, *j);
}

size_t digits_bytes(const Shape *s)
{
    const size_t widest = MAX((size_t)s->n_heads * s->head_dim, (size_t)s->o_groups * s->o_rank);
    const size_t cols = MAX(MAX(widest, (size_t)s->dim), (size_t)MAX(s->q_rank, s->shared_dim));
    const size_t strips = (cols + STRIP - 1) / STRIP;
    return strips * MOST_TILES * (4 * WARP * sizeof(uint2) + 8 * sizeof(float));
}

void tiles(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add)
{
    Jobs j = {};
    for (int k = 0; k < n_jobs; k++) {
        j.q[k] = (const uint4 *)job[k].w->q;
        j.d[k] = (const uint4 *)job[k].w->d;
        j.out[k] = job[k].out;
        j.ld_out[k] = job[k].ld_out;
        j.tiles += job[k].w->rows / TILE_ROWS;
        j.end[k] = j.tiles;
    }
    j.n = n_jobs;
    j.in = *in;
    j.group_tiles = in->groups > 1 ? j.tiles / in->groups : 0;
    j.add = add;
    if (in->n <= CUT_ROWS && in->cols <= 8192)
        launch<1, true>(c, j);
    else if (in->n <= 5)
        cut_and_launch<2>(c, &j);
    else if (in->n <= 8)
        cut_and_launch<3>(c, &j);
    else
        cut_and_launch<MOST_TILES>(c, &j);
}

/* ---- many rows ---------------------------------------------------------------------------- */

/* A warp a tile: 512 bytes in, 1 KB out, 64 bytes of a row at a time. */
__global__ void expand_tile(DevWeight w, size_t first, size_t n_tiles, half *out)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, per = w.cols / 32;
    const size_t stride = (size_t)gridDim.x * blockDim.x / WARP;
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP; i < n_tiles;
         i += stride) {
        const size_t row = i / per * TILE_ROWS + g;
        const int block = (int)(i % per);
        const uint4 q = __ldg((const uint4 *)w.q + (first / TILE_ROWS * per + i) * WARP + lane);
        const half2 d = ((const half2 *)w.d)[tile_scale_at(first + row, block, w.cols) / 2];
        const unsigned u[4] = { q.x, q.y, q.z, q.w };
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float scale = h ? __high2float(d) : __low2float(d);
            __align__(16) half v[8];
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[k] = __float2half(scale * (float)(int8_t)(u[2 * h + k / 4] >> 8 * (k % 4)));
            *(uint4 *)(out + (row + 8 * h) * w.cols + 32 * block + 8 * t) = *(uint4 *)v;
        }
    }
}

void expand_tiles(Cuda *c, const DevWeight *w, size_t first, int rows, half *out)
{
    const size_t n = (size_t)rows / TILE_ROWS * (w->cols / 32);
    const unsigned grid = (unsigned)MIN((n + WARPS - 1) / WARPS, (size_t)c->sm_count * 16);
    expand_tile<<<grid, THREADS, 0, c->stream>>>(*w, first, n, out);
    launched(c, "expand_tile");
}
