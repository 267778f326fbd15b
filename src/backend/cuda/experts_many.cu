/* experts_many.cu - the experts of more than FEW_ROWS rows, on tensor cores.
 *
 * Pairs are sorted by expert (a counting sort, stable) and cut into tiles of one expert
 * and up to TOKENS pairs. A block multiplies a tile with 256 weight rows: a warp owns 32
 * of them and all of the tile's tokens. Weights are the A operand of mma.m16n8k16 and go
 * from packed bytes to F16 in the registers of the one warp that needs them; only the
 * tokens' values pass through shared memory.
 *
 * The order of k within a sum is free, and chosen for the weights: of every 256 columns
 * lane t of a quad owns 64, its "eights" u = 0..7 are 8 neighbouring columns each and
 * serve two k-steps of 16. The tokens' values lie in shared memory in that order: one
 * 16-byte load a lane is the B operand of both. */
#include "experts.cuh"
#include "experts_mma.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    TOKENS = 64,               /* of a tile */
    CHUNK = 256,               /* columns at a time */
    ROWS = 256,                /* weight rows of a block */
    X_STRIDE = 2 * CHUNK + 64, /* bytes of a token in a stage: no two lanes meet in a bank */
    STAGE = TOKENS * X_STRIDE,
    SORT_THREADS = 1024,
    ANY = -1 /* formats told apart at run time */
};

struct Tile {
    int expert, first, n; /* pairs [first, first + n) of the order */
};

/* What the sort leaves. */
struct Order {
    int *first; /* [n_experts + 1] */
    int *pair;  /* [pairs] by expert, then ascending */
    Tile *tile; /* [most_tiles] */
    int *n_tiles;
};

static int most_tiles(int pairs, int n_experts) { return pairs / TOKENS + MIN(pairs, n_experts); }

static size_t rounded(size_t n) { return (n + 255) / 256 * 256; }
static size_t padded(int cols) { return (size_t)(cols + CHUNK - 1) / CHUNK * CHUNK; }

size_t scratch_of_many(int rows, int active, int n_experts, int dim, int ff)
{
    const size_t pairs = (size_t)rows * active;
    return rounded((n_experts + 1) * sizeof(int)) + rounded(pairs * sizeof(int)) +
           rounded(most_tiles((int)pairs, n_experts) * sizeof(Tile)) + rounded(sizeof(int)) +
           rounded(rows * padded(dim) * sizeof(half)) + rounded(pairs * padded(ff) * sizeof(half)) +
           rounded(pairs * dim * sizeof(float));
}

/* ---- sorting ------------------------------------------------------------------------- */

/* Sums of both of the threads before this one. part: [2 * WARP]. */
__device__ static int2 sum_before(int2 v, int2 *part)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int2 sum = v;
    for (int d = 1; d < WARP; d *= 2) {
        const int x = __shfl_up_sync(~0u, sum.x, d), y = __shfl_up_sync(~0u, sum.y, d);
        if (lane >= d)
            sum.x += x, sum.y += y;
    }
    if (lane == WARP - 1)
        part[warp] = sum;
    __syncthreads();
    for (int i = 0; i < warp; i++)
        sum.x += part[i].x, sum.y += part[i].y;
    return make_int2(sum.x - v.x, sum.y - v.y);
}

/* One block: where each expert's pairs begin, and the tiles. */
__global__ void __launch_bounds__(SORT_THREADS)
    count_pairs(Order o, const int *ids, int pairs, int n_experts)
{
    extern __shared__ int count[]; /* [n_experts] */
    __shared__ int2 part[WARP];

    let_others_start();
    wait_for_others();
    for (int e = threadIdx.x; e < n_experts; e += SORT_THREADS)
        count[e] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < pairs; i += SORT_THREADS)
        atomicAdd(&count[ids[i]], 1);
    __syncthreads();
    const int per = (n_experts + SORT_THREADS - 1) / SORT_THREADS;
    const int from = min((int)threadIdx.x * per, n_experts), to = min(from + per, n_experts);
    int2 mine = make_int2(0, 0);
    for (int e = from; e < to; e++)
        mine.x += count[e], mine.y += (count[e] + TOKENS - 1) / TOKENS;
    int2 at = sum_before(mine, part);
    for (int e = from; e < to; e++) {
        o.first[e] = at.x;
        for (int i = 0; i < count[e]; i += TOKENS)
            o.tile[at.y++] = { e, at.x + i, min((int)TOKENS, count[e] - i) };
        at.x += count[e];
    }
    if (threadIdx.x == SORT_THREADS - 1) {
        o.first[n_experts] = at.x;
        *o.n_tiles = at.y;
    }
}

/* A block an expert: its pairs in ascending order. A warp has a part of all pairs. */
__global__ void __launch_bounds__(THREADS) place_pairs(Order o, const int *ids, int pairs)
{
    __shared__ int found[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, e = blockIdx.x;
    const int per = ((pairs + WARPS - 1) / WARPS + WARP - 1) / WARP * WARP;
    const int from = warp * per, to = min(from + per, pairs);

    let_others_start();
    wait_for_others();
    int at = o.first[e], n = 0;
    if (o.first[e + 1] == at)
        return;
    for (int i = from; i < to; i += WARP)
        n += __popc(__ballot_sync(~0u, i + lane < to && ids[i + lane] == e));
    if (lane == 0)
        found[warp] = n;
    __syncthreads();
    for (int i = 0; i < warp; i++)
        at += found[i];
    for (int i = from; i < to; i += WARP) {
        const unsigned mine = __ballot_sync(~0u, i + lane < to && ids[i + lane] == e);
        if (mine >> lane & 1)
            o.pair[at + __popc(mine & ((1u << lane) - 1))] = i + lane;
        at += __popc(mine);
    }
}

/* out [rows][ld] = x [rows][cols] rounded, zeros behind. */
__global__ void round_tokens(half *out, const float *x, int rows, int cols, int ld)
{
    const size_t n = (size_t)rows * ld / 2, stride = (size_t)gridDim.x * blockDim.x;
    let_others_start();
    wait_for_others();
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int row = (int)(2 * i / ld), k = (int)(2 * i % ld);
        const float *from = x + (size_t)row * cols + k;
        ((half2 *)out)[i] = __floats2half2_rn(k < cols ? from[0] : 0, k + 1 < cols ? from[1] : 0);
    }
}

/* ---- eight values of a weight ----------------------------------------------------------- */

/* Values e .. e + 7 of row r, e a multiple of 8. */
template <int TYPE> struct Eight;

__device__ static half2 halves(float a, float b) { return __floats2half2_rn(a, b); }

template <> struct Eight<QUANT_F32> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const float4 *p = (const float4 *)((const float *)d.q + r * d.cols + e);
        const float4 a = p[0], b = p[1];
        h[0] = halves(a.x, a.y), h[1] = halves(a.z, a.w);
        h[2] = halves(b.x, b.y), h[3] = halves(b.z, b.w);
    }
};
template <> struct Eight<QUANT_F16> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        *(uint4 *)h = *(const uint4 *)((const half *)d.q + r * d.cols + e);
    }
};
template <> struct Eight<QUANT_BF16> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const uint4 v = *(const uint4 *)((const __nv_bfloat16 *)d.q + r * d.cols + e);
        const unsigned u[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
        for (int k = 0; k < 4; k++)
            h[k] = halves(__uint_as_float(u[k] << 16), __uint_as_float(u[k] & 0xffff0000u));
    }
};
template <> struct Eight<QUANT_Q8_0> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const uint2 v = *(const uint2 *)(d.q + r * d.cols + e);
        const float s = __half2float(d.d[r * (d.cols / 32) + e / 32]);
        const unsigned u[2] = { v.x, v.y };
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned two = u[k / 2] >> 16 * (k % 2);
            h[k] = halves(s * (float)(int8_t)two, s * (float)(int8_t)(two >> 8));
        }
    }
};
template <> struct Eight<QUANT_Q2_K> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 256) + e / 256;
        const int in = e % 256, n = in / 128, j = in % 128 / 32; /* 128 n + 32 j + 16 h + l */
        const uint2 v = *(const uint2 *)(d.q + block * 64 + 32 * n + in % 32);
        const unsigned s = d.s[block * 16 + in / 16], u[2] = { v.x >> 2 * j, v.y >> 2 * j };
        const float2 dm = __half22float2(((const half2 *)d.d)[block]);
        const float scale = dm.x * (float)(s & 15), least = dm.y * (float)(s >> 4);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned two = u[k / 2] >> 16 * (k % 2);
            h[k] = halves(scale * (float)(two & 3) - least, scale * (float)(two >> 8 & 3) - least);
        }
    }
};
template <> struct Eight<QUANT_Q4_K> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 256) + e / 256;
        const int j = e % 256 / 32;
        const uint8_t *s = d.s + block * 12;
        const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        const int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        const float2 dm = __half22float2(((const half2 *)d.d)[block]);
        const float scale = dm.x * (float)sc, least = dm.y * (float)mn;
        const uint2 v = *(const uint2 *)(d.q + block * 128 + 32 * (j / 2) + e % 32);
        const unsigned u[2] = { v.x >> 4 * (j % 2), v.y >> 4 * (j % 2) };
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned two = u[k / 2] >> 16 * (k % 2);
            h[k] =
                halves(scale * (float)(two & 15) - least, scale * (float)(two >> 8 & 15) - least);
        }
    }
};
template <> struct Eight<QUANT_IQ2_XXS> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *t)
    {
        const uint2 g = ((const uint2 *)d.q)[r * (d.cols / 32) + e / 32];
        const int k = e % 32 / 8;
        const unsigned seven = g.y >> 7 * k & 127;
        const float scale =
            __half2float(d.d[r * (d.cols / 256) + e / 256]) * (0.5f + (float)(g.y >> 28)) * 0.25f;
        float w[8];
        iq2_eight(w, t->grid[g.x >> 8 * k & 255], seven | (unsigned)(__popc(seven) & 1) << 7,
                  scale);
#pragma unroll
        for (int i = 0; i < 4; i++)
            h[i] = halves(w[2 * i], w[2 * i + 1]);
    }
};
template <> struct Eight<QUANT_MXFP4> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 32) + e / 32;
        const uint2 v = *(const uint2 *)(d.q + block * 16 + e % 16);
        const unsigned s = d.s[block], u[2] = { v.x, v.y };
        const float scale = s == 0 ? __uint_as_float(0x00400000) : __uint_as_float(s << 23);
        float w[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const unsigned code = u[i / 4] >> (8 * (i % 4) + 4 * (e / 16 % 2)), m = code & 7;
            const float a = m < 4 ? 0.5f * (float)m : m < 7 ? (float)(m - 2) : 6.f;
            w[i] = scale * (code & 8 ? -a : a);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            h[i] = halves(w[2 * i], w[2 * i + 1]);
    }
};

/* Of a row whose end is no multiple of 8, which only formats without blocks have. */
__device__ static void eight_at_end(half2 *h, const DevWeight &d, size_t r, int e)
{
    float w[8];
    for (int i = 0; i < 8; i++) {
        const size_t at = r * d.cols + e + i;
        w[i] = e + i >= d.cols       ? 0
               : d.type == QUANT_F32 ? ((const float *)d.q)[at]
               : d.type == QUANT_F16 ? __half2float(((const half *)d.q)[at])
                                     : __bfloat162float(((const __nv_bfloat16 *)d.q)[at]);
    }
    for (int i = 0; i < 4; i++)
        h[i] = halves(w[2 * i], w[2 * i + 1]);
}

template <> struct Eight<ANY> {
    __device__ static void get(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *t)
    {
        if (e + 8 > d.cols || d.cols % 8) {
            eight_at_end(h, d, r, e);
            return;
        }
        switch (d.type) {
#define EIGHT(type) \
    case type: Eight<type>::get(h, d, r, e, t); break;
            FORMATS(EIGHT)
#undef EIGHT
        }
    }
};

/* ---- a tile ------------------------------------------------------------------------------ */

__device__ static unsigned word_of(half2 h) { return *(const unsigned *)&h; }

/* The tokens of a tile: rows of x, ld values each. */
struct TokenRows {
    const half *x;
    size_t ld;
    const int *row; /* [TOKENS], shared memory; behind the last its copies */
    int n;
};

/* Columns [256 kb, ...) of the tokens into a stage: 16 bytes (u, t) of a token are its
 * columns 64 t + 8 u .., at place 4 u + t. */
__device__ static void fetch_tokens(char *stage, const TokenRows &r, int kb)
{
    const int n = (r.n + 7) / 8 * 8 * 32;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const int token = i / 32, u = i % 32 / 4, t = i % 4;
        copy_sixteen(stage + token * X_STRIDE + i % 32 * 16,
                     r.x + r.row[token] * r.ld + (size_t)kb * CHUNK + 64 * t + 8 * u);
    }
}

/* c[m][tokens 8 i ..][4] += 16 rows of weight m (rows[m][0] is lane's row, rows[m][1] that
 * 8 below) times the tokens. Stages: 2. All threads of the block are here. */
template <int TYPE>
__device__ static void multiply(float c[2][TOKENS / 8][4], const DevWeight *w0, const DevWeight *w1,
                                const size_t rows[2][2], const TokenRows &r, char *stages,
                                const Iq2Table *table)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int chunks = (w0->cols + CHUNK - 1) / CHUNK, groups = (r.n + 7) / 8;

    fetch_tokens(stages, r, 0);
    for (int kb = 0; kb < chunks; kb++) {
        copies_wait();
        __syncthreads();
        if (kb + 1 < chunks)
            fetch_tokens(stages + (kb + 1) % 2 * STAGE, r, kb + 1);
        const char *x = stages + kb % 2 * STAGE + g * X_STRIDE + t * 16;
#pragma unroll 1
        for (int u = 0; u < 8; u++) {
            half2 v[2][4];
            unsigned a[2][2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const int e = kb * CHUNK + 64 * t + 8 * u;
                Eight<TYPE>::get(v[0], m ? *w1 : *w0, rows[m][0], e, table);
                Eight<TYPE>::get(v[1], m ? *w1 : *w0, rows[m][1], e, table);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    a[m][i / 4][i % 4] = word_of(v[i % 2][i / 2]);
            }
#pragma unroll
            for (int i = 0; i < TOKENS / 8; i++) {
                if (i >= groups)
                    continue;
                const uint4 b = *(const uint4 *)(x + i * 8 * X_STRIDE + u * 64);
                mma_f16(c[0][i], a[0][0], b.x, b.y);
                mma_f16(c[1][i], a[1][0], b.x, b.y);
                mma_f16(c[0][i], a[0][1], b.z, b.w);
                mma_f16(c[1][i], a[1][1], b.z, b.w);
            }
        }
    }
}

/* Both kernels: shared memory holds two stages; block i of a tile has rows i * ROWS .. */
struct Up {
    half *h; /* [pairs in order][ld_h] */
    size_t ld_h;
    const half *x; /* [rows][ld_x] */
    size_t ld_x;
    DevWeight gate, up;
    const float *gates;
    int active;
    float limit;
};

template <int TYPE>
__global__ void __launch_bounds__(THREADS) up_tile(Up a, Order o, const uint2 *grid)
{
    extern __shared__ __align__(16) char stages[];
    __shared__ Iq2Table table;
    __shared__ int row[TOKENS];
    enum { HALF = ROWS / 2 }; /* each of gate and up */
    const int blocks = (a.gate.rows + HALF - 1) / HALF;
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;

    let_others_start();
    if (a.gate.type == QUANT_IQ2_XXS || a.up.type == QUANT_IQ2_XXS)
        iq2_fill(&table, grid);
    wait_for_others();
    if (blockIdx.x / blocks >= *o.n_tiles)
        return;
    const Tile tile = o.tile[blockIdx.x / blocks];
    if (threadIdx.x < TOKENS)
        row[threadIdx.x] = o.pair[tile.first + min((int)threadIdx.x, tile.n - 1)] / a.active;
    __syncthreads();
    const int j = blockIdx.x % blocks * HALF + threadIdx.x / WARP * 16 + g, last = a.gate.rows - 1;
    const size_t first = (size_t)tile.expert * a.gate.rows;
    const size_t r0 = first + min(j, last), r1 = first + min(j + 8, last);
    const size_t rows[2][2] = { { r0, r1 }, { r0, r1 } };
    float c[2][TOKENS / 8][4] = {};
    multiply<TYPE>(c, &a.gate, &a.up, rows, { a.x, a.ld_x, row, tile.n }, stages, &table);
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int token = 8 * i + 2 * t + k % 2, neuron = j + 8 * (k / 2);
            if (token >= tile.n || neuron > last)
                continue;
            const int place = tile.first + token;
            a.h[place * a.ld_h + neuron] =
                __float2half(swiglu(c[0][i][k], c[1][i][k], a.limit, a.gates[o.pair[place]]));
        }
}

struct Down {
    float *part; /* [pairs][w.rows] */
    const half *h;
    size_t ld_h;
    DevWeight w;
};

template <int TYPE>
__global__ void __launch_bounds__(THREADS) down_tile(Down a, Order o, const uint2 *grid)
{
    extern __shared__ __align__(16) char stages[];
    __shared__ Iq2Table table;
    __shared__ int row[TOKENS];
    const int blocks = (a.w.rows + ROWS - 1) / ROWS;
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;

    let_others_start();
    if (a.w.type == QUANT_IQ2_XXS)
        iq2_fill(&table, grid);
    wait_for_others();
    if (blockIdx.x / blocks >= *o.n_tiles)
        return;
    const Tile tile = o.tile[blockIdx.x / blocks];
    if (threadIdx.x < TOKENS)
        row[threadIdx.x] = tile.first + min((int)threadIdx.x, tile.n - 1);
    __syncthreads();
    const int d = blockIdx.x % blocks * ROWS + threadIdx.x / WARP * 32 + g, last = a.w.rows - 1;
    size_t rows[2][2];
    for (int i = 0; i < 4; i++)
        rows[i / 2][i % 2] = (size_t)tile.expert * a.w.rows + min(d + 8 * i, last);
    float c[2][TOKENS / 8][4] = {};
    multiply<TYPE>(c, &a.w, &a.w, rows, { a.h, a.ld_h, row, tile.n }, stages, &table);
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const int token = 8 * i + 2 * t + k % 2, at = d + 8 * (k / 2);
            if (token < tile.n && at <= last)
                a.part[(size_t)o.pair[tile.first + token] * a.w.rows + at] = c[k / 4][i][k % 4];
        }
}

/* ---- all ----------------------------------------------------------------------------------- */

static bool take_order(Cuda *c, size_t *used, Order *o, int pairs, int n_experts)
{
    o->first = (int *)op_scratch(c, used, (n_experts + 1) * sizeof(int));
    o->pair = (int *)op_scratch(c, used, pairs * sizeof(int));
    o->tile = (Tile *)op_scratch(c, used, most_tiles(pairs, n_experts) * sizeof(Tile));
    o->n_tiles = (int *)op_scratch(c, used, sizeof(int));
    return o->n_tiles != NULL;
}

static void sort_pairs(Cuda *c, const Moe *m, const Order &o)
{
    LAUNCH(c, count_pairs, 1, SORT_THREADS, m->n_experts * sizeof(int), o, m->ids, pairs_of(m),
           m->n_experts);
    LAUNCH(c, place_pairs, m->n_experts, THREADS, 0, o, m->ids, pairs_of(m));
}

template <int TYPE> static void launch_up(Cuda *c, const Up &a, const Order &o, int tiles)
{
    const int blocks = (a.gate.rows + ROWS / 2 - 1) / (ROWS / 2);
    NOTE(c, cudaFuncSetAttribute(up_tile<TYPE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 2 * STAGE));
    LAUNCH(c, up_tile<TYPE>, tiles * blocks, THREADS, 2 * STAGE, a, o, (const uint2 *)c->iq2_grid);
}

template <int TYPE> static void launch_down(Cuda *c, const Down &a, const Order &o, int tiles)
{
    const int blocks = (a.w.rows + ROWS - 1) / ROWS;
    NOTE(c, cudaFuncSetAttribute(down_tile<TYPE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 2 * STAGE));
    LAUNCH(c, down_tile<TYPE>, tiles * blocks, THREADS, 2 * STAGE, a, o,
           (const uint2 *)c->iq2_grid);
}

void experts_many(Cuda *c, const Moe *m)
{
    const size_t pairs = pairs_of(m), ld_x = padded(m->dim), ld_h = padded(m->ff);
    const int tiles = most_tiles((int)pairs, m->n_experts);
    size_t used = 0;
    Order o;
    if (!take_order(c, &used, &o, (int)pairs, m->n_experts))
        return;
    half *x = (half *)op_scratch(c, &used, m->n_rows * ld_x * sizeof(half));
    half *h = (half *)op_scratch(c, &used, pairs * ld_h * sizeof(half));
    float *part = (float *)op_scratch(c, &used, pairs * m->dim * sizeof(float));
    if (!part)
        return;
    sort_pairs(c, m, o);
    LAUNCH(c, round_tokens, c->sm_count * 8, THREADS, 0, x, m->x, m->n_rows, m->dim, (int)ld_x);
    if ((int)ld_h != m->ff)
        NOTE(c, cudaMemsetAsync(h, 0, pairs * ld_h * sizeof(half), c->stream));
    launch_up<ANY>(c, { h, ld_h, x, ld_x, m->gate, m->up, m->gates, m->active, m->limit }, o,
                   tiles);
    launch_down<ANY>(c, { part, h, ld_h, m->down }, o, tiles);
    add_pairs(c, m, part);
}
