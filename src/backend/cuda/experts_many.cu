/* experts_many.cu - the experts of many rows, on tensor cores.
 *
 * Pairs are sorted by expert (a counting sort, stable) and cut into tiles of one expert
 * and up to TOKENS pairs. A block multiplies a tile with ROWS weight rows: a warp owns 32
 * of them and all of the tile's tokens. Weights are the A operand of mma.m16n8k16 and go
 * from packed bytes to F16 in the registers of the one warp that needs them; only the
 * tokens' values pass through shared memory.
 *
 * The order of k within a sum is free, and chosen for the weights: of every 256 columns
 * lane t of a quad owns 64, as eight "eights" of neighbouring columns, u = 0..7, each for
 * two k-steps of 16. The tokens' values lie in shared memory in that order: one 16-byte
 * load a lane is the B operand of both. */
#include "experts_mma.cuh"
#include "experts_parts.cuh"

enum {
    WARPS = 12,
    THREADS = WARPS * WARP,
    TOKENS = 64,               /* of a tile */
    ROWS = WARPS * 32,         /* weight rows of a block */
    X_STRIDE = 2 * CHUNK + 64, /* bytes of a token in a stage: no two lanes meet in a bank */
    STAGE = TOKENS * X_STRIDE,
    SORT_THREADS = 1024,
    PLACE_WARPS = 8,
    ANY = -1 /* formats told apart at run time, sizes that do not fit */
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
__global__ void __launch_bounds__(PLACE_WARPS *WARP) place_pairs(Order o, const int *ids, int pairs)
{
    __shared__ int found[PLACE_WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, e = blockIdx.x;
    const int per = ((pairs + PLACE_WARPS - 1) / PLACE_WARPS + WARP - 1) / WARP * WARP;
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

__device__ static void eight_of(half2 *h, const DevWeight &d, size_t r, int e, const Iq2Table *t)
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

/* ---- a tile ------------------------------------------------------------------------------ */

__device__ static unsigned word_of(half2 h) { return *(const unsigned *)&h; }

/* The tokens of a tile: rows of x, ld values each. */
struct TokenRows {
    const half *x;
    size_t ld;
    const int *row; /* [TOKENS], shared memory; behind the last its copies */
    int n;
};

/* The first column of eight u of lane t. */
template <int TYPE> struct Eights {
    __device__ static int at(int t, int u)
    {
        typedef Part<TYPE> P;
        return P::at(t, u / 4) + P::JUMP * (u % 4 / 2) + 8 * (u % 2);
    }
};
template <> struct Eights<ANY> {
    __device__ static int at(int t, int u) { return 64 * t + 8 * u; }
};

/* Columns [256 kb, ...) of the tokens into a stage: eight (u, t) of a token is at place
 * 4 u + t of 16 bytes. */
template <int TYPE> __device__ static void fetch_tokens(char *stage, const TokenRows &r, int kb)
{
    const int n = (r.n + 7) / 8 * 8 * 32;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const int token = i / 32, u = i % 32 / 4, t = i % 4;
        copy_sixteen(stage + token * X_STRIDE + i % 32 * 16,
                     r.x + r.row[token] * r.ld + (size_t)kb * CHUNK + Eights<TYPE>::at(t, u));
    }
}

/* A block's work: lane's rows (row[m][0] and that 8 below it) of two sets of 16. */
struct Work {
    const DevWeight *w[2];
    size_t row[2][2];
    TokenRows x;
    char *stages; /* shared memory: two */
};

/* c[m][tokens 8 i ..][4] += a[m][k-step] times eight u of the tokens. x: the lane's place. */
__device__ static void multiply_eights(float c[2][TOKENS / 8][4], const unsigned a[2][2][4],
                                       const char *x, int u, int groups)
{
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

/* Before chunk kb: it is there, the next on its way. Returns the lane's place in it. */
template <int TYPE> __device__ static const char *next_chunk(const Work &k, int kb, int chunks)
{
    const int lane = threadIdx.x % WARP;
    copies_wait();
    __syncthreads();
    if (kb + 1 < chunks)
        fetch_tokens<TYPE>(k.stages + (kb + 1) % 2 * STAGE, k.x, kb + 1);
    return k.stages + kb % 2 * STAGE + lane / 4 * X_STRIDE + lane % 4 * 16;
}

/* Packed formats, whole chunks. */
template <int TYPE> struct Multiply {
    enum { SCALE = 256 }; /* of results: keeps small factors from the small end of F16 */
    static_assert(TYPE != ANY, "has its own");

    /* Eight j of group i of one row. */
    __device__ static void halves_of(half2 *h, const Part<TYPE> &p, int i, int j, const char *table)
    {
        typedef Part<TYPE> P;
        const unsigned flip = P::IS_SIGNED ? 0x80808080 : 0, magic = 0x64646464; /* 1024 + v */
        /* Codes of 4 bits count from the middle, where their least value nearly cancels. */
        const int middle = TYPE == QUANT_Q4_K ? 8 : 0;
        const half2 zero = __float2half2_rn(1024 + middle + (P::IS_SIGNED ? 128 : 0));
        const half2 factor = __float2half2_rn(SCALE * p.factor(i));
        unsigned v[2];
        p.get(v, i, j, table);
        const unsigned a = v[0] ^ flip, b = v[1] ^ flip;
        const unsigned w[4] = { __byte_perm(a, magic, 0x4140), __byte_perm(a, magic, 0x4342),
                                __byte_perm(b, magic, 0x4140), __byte_perm(b, magic, 0x4342) };
        const float below = p.least(P::MINS == 4 ? 2 * i + j / 2 : i) - middle * p.factor(i);
        const half2 least = __float2half2_rn(-SCALE * below);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const half2 whole = __hsub2(*(const half2 *)&w[k], zero);
            h[k] = P::MINS ? __hfma2(whole, factor, least) : __hmul2(whole, factor);
        }
    }

    __device__ static void load(Part<TYPE> p[2][2], const Work &k, const unsigned first[2][2],
                                int step)
    {
#pragma unroll
        for (int m = 0; m < 4; m++)
            p[m / 2][m % 2].load(*k.w[m / 2], first[m / 2][m % 2], step, threadIdx.x % 4);
    }

    __device__ static void add_group(float c[2][TOKENS / 8][4], const Part<TYPE> p[2][2],
                                     const char *x, int i, int u, int groups, const char *table)
    {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            unsigned a[2][2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                half2 h[2][4];
                halves_of(h[0], p[m][0], i, j, table);
                halves_of(h[1], p[m][1], i, j, table);
#pragma unroll
                for (int q = 0; q < 8; q++)
                    a[m][q / 4][q % 4] = word_of(h[q % 2][q / 2]);
            }
            multiply_eights(c, a, x, u + j, groups);
        }
    }

    __device__ static void run(float c[2][TOKENS / 8][4], const Work &k, const char *table)
    {
        /* The others' bytes do not fit the registers twice. */
        enum { STEPS = Part<TYPE>::STEPS, AHEAD = TYPE == QUANT_IQ2_XXS || TYPE == QUANT_Q2_K };
        const int chunks = k.w[0]->cols / CHUNK, groups = (k.x.n + 7) / 8;
        const char *x = NULL;
        Part<TYPE> next[2][2];
        unsigned first[2][2];

        for (int m = 0; m < 4; m++)
            first[m / 2][m % 2] = (unsigned)k.row[m / 2][m % 2] * chunks;
        if (AHEAD)
            load(next, k, first, 0);
        fetch_tokens<TYPE>(k.stages, k.x, 0);
        for (int s = 0; s < chunks * STEPS; s++) {
            Part<TYPE> now[2][2];
            if (!AHEAD)
                load(next, k, first, s);
#pragma unroll
            for (int m = 0; m < 4; m++)
                now[m / 2][m % 2] = next[m / 2][m % 2];
            if (s % STEPS == 0)
                x = next_chunk<TYPE>(k, s / STEPS, chunks);
            if (AHEAD && s + 1 < chunks * STEPS)
                load(next, k, first, s + 1);
#pragma unroll
            for (int i = 0; i < 3 - STEPS; i++)
                add_group(c, now, x, i, 4 * (STEPS == 1 ? i : s % 2), groups, table);
        }
    }
};

/* Any format and size, weights as they come. */
template <> struct Multiply<ANY> {
    enum { SCALE = 1 };
    __device__ static void run(float c[2][TOKENS / 8][4], const Work &k, const char *table)
    {
        const int t = threadIdx.x % 4, groups = (k.x.n + 7) / 8;
        const int chunks = (k.w[0]->cols + CHUNK - 1) / CHUNK;

        fetch_tokens<ANY>(k.stages, k.x, 0);
        for (int kb = 0; kb < chunks; kb++) {
            const char *x = next_chunk<ANY>(k, kb, chunks);
#pragma unroll 1
            for (int u = 0; u < 8; u++) {
                half2 h[2][4];
                unsigned a[2][2][4];
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    const int e = kb * CHUNK + Eights<ANY>::at(t, u);
                    eight_of(h[0], *k.w[m], k.row[m][0], e, (const Iq2Table *)table);
                    eight_of(h[1], *k.w[m], k.row[m][1], e, (const Iq2Table *)table);
#pragma unroll
                    for (int q = 0; q < 8; q++)
                        a[m][q / 4][q % 4] = word_of(h[q % 2][q / 2]);
                }
                multiply_eights(c, a, x, u, groups);
            }
        }
    }
};

/* Shared memory: the tables of IQ2_XXS in the form that Multiply<TYPE> wants, two stages. */
template <int TYPE> struct Space {
    enum {
        TABLES = TYPE == ANY             ? (int)sizeof(Iq2Table)
                 : TYPE == QUANT_IQ2_XXS ? (int)TABLE_BYTES
                                         : 0,
        BYTES = TABLES + 2 * STAGE
    };
    __device__ static void fill(char *shared, const uint2 *grid)
    {
        if (TYPE == ANY)
            iq2_fill((Iq2Table *)shared, grid);
        if (TYPE == QUANT_IQ2_XXS)
            fill_tables(shared, grid);
    }
};

/* Both kernels: block i of a tile has rows i * ROWS .. */
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
    extern __shared__ __align__(16) char shared[];
    __shared__ int row[TOKENS];
    enum { HALF = ROWS / 2 }; /* each of gate and up */
    const int blocks = (a.gate.rows + HALF - 1) / HALF;
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;

    let_others_start();
    Space<TYPE>::fill(shared, grid);
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
    const Work work = { { &a.gate, &a.up },
                        { { r0, r1 }, { r0, r1 } },
                        { a.x, a.ld_x, row, tile.n },
                        shared + Space<TYPE>::TABLES };
    const float back = 1.f / Multiply<TYPE>::SCALE;
    float c[2][TOKENS / 8][4] = {};
    Multiply<TYPE>::run(c, work, shared);
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int token = 8 * i + 2 * t + k % 2, neuron = j + 8 * (k / 2);
            if (token >= tile.n || neuron > last)
                continue;
            const int place = tile.first + token;
            a.h[place * a.ld_h + neuron] = __float2half(
                swiglu(c[0][i][k] * back, c[1][i][k] * back, a.limit, a.gates[o.pair[place]]));
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
    extern __shared__ __align__(16) char shared[];
    __shared__ int row[TOKENS];
    const int blocks = (a.w.rows + ROWS - 1) / ROWS;
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;

    let_others_start();
    Space<TYPE>::fill(shared, grid);
    wait_for_others();
    if (blockIdx.x / blocks >= *o.n_tiles)
        return;
    const Tile tile = o.tile[blockIdx.x / blocks];
    if (threadIdx.x < TOKENS)
        row[threadIdx.x] = tile.first + min((int)threadIdx.x, tile.n - 1);
    __syncthreads();
    const int d = blockIdx.x % blocks * ROWS + threadIdx.x / WARP * 32 + g, last = a.w.rows - 1;
    Work work = { { &a.w, &a.w }, {}, { a.h, a.ld_h, row, tile.n }, shared + Space<TYPE>::TABLES };
    for (int i = 0; i < 4; i++)
        work.row[i / 2][i % 2] = (size_t)tile.expert * a.w.rows + min(d + 8 * i, last);
    const float back = 1.f / Multiply<TYPE>::SCALE;
    float c[2][TOKENS / 8][4] = {};
    Multiply<TYPE>::run(c, work, shared);
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const int token = 8 * i + 2 * t + k % 2, at = d + 8 * (k / 2);
            if (token < tile.n && at <= last)
                a.part[(size_t)o.pair[tile.first + token] * a.w.rows + at] =
                    back * c[k / 4][i][k % 4];
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
    LAUNCH(c, place_pairs, m->n_experts, PLACE_WARPS * WARP, 0, o, m->ids, pairs_of(m));
}

template <int TYPE> static void launch_up(Cuda *c, const Up &a, const Order &o, int tiles)
{
    const int blocks = (a.gate.rows + ROWS / 2 - 1) / (ROWS / 2);
    NOTE(c, cudaFuncSetAttribute(up_tile<TYPE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 Space<TYPE>::BYTES));
    LAUNCH(c, up_tile<TYPE>, tiles * blocks, THREADS, Space<TYPE>::BYTES, a, o,
           (const uint2 *)c->iq2_grid);
}

template <int TYPE> static void launch_down(Cuda *c, const Down &a, const Order &o, int tiles)
{
    const int blocks = (a.w.rows + ROWS - 1) / ROWS;
    NOTE(c, cudaFuncSetAttribute(down_tile<TYPE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 Space<TYPE>::BYTES));
    LAUNCH(c, down_tile<TYPE>, tiles * blocks, THREADS, Space<TYPE>::BYTES, a, o,
           (const uint2 *)c->iq2_grid);
}

/* The formats that the published files have experts in; others, and those for whose tables
 * there is no room, go as they come. */
static int packed_type(Cuda *c, const DevWeight &w)
{
    const int t = w.type;
    const bool packed =
        (t == QUANT_IQ2_XXS && Space<QUANT_IQ2_XXS>::BYTES + 1024 <= shared_most(c)) ||
        t == QUANT_Q2_K || t == QUANT_Q4_K || t == QUANT_MXFP4;
    return packed && w.cols % CHUNK == 0 ? t : ANY;
}

static void run_up(Cuda *c, const Up &a, const Order &o, int tiles)
{
    switch (a.gate.type == a.up.type ? packed_type(c, a.gate) : ANY) {
    case QUANT_IQ2_XXS: launch_up<QUANT_IQ2_XXS>(c, a, o, tiles); break;
    case QUANT_Q4_K: launch_up<QUANT_Q4_K>(c, a, o, tiles); break;
    case QUANT_MXFP4: launch_up<QUANT_MXFP4>(c, a, o, tiles); break;
    default: launch_up<ANY>(c, a, o, tiles); break;
    }
}

static void run_down(Cuda *c, const Down &a, const Order &o, int tiles)
{
    switch (packed_type(c, a.w)) {
    case QUANT_Q2_K: launch_down<QUANT_Q2_K>(c, a, o, tiles); break;
    case QUANT_Q4_K: launch_down<QUANT_Q4_K>(c, a, o, tiles); break;
    case QUANT_MXFP4: launch_down<QUANT_MXFP4>(c, a, o, tiles); break;
    default: launch_down<ANY>(c, a, o, tiles); break;
    }
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
    LAUNCH(c, round_tokens, c->sm_count * 8, 256, 0, x, m->x, m->n_rows, m->dim, (int)ld_x);
    if ((int)ld_h != m->ff)
        NOTE(c, cudaMemsetAsync(h, 0, pairs * ld_h * sizeof(half), c->stream));
    run_up(c, { h, ld_h, x, ld_x, m->gate, m->up, m->gates, m->active, m->limit }, o, tiles);
    run_down(c, { part, h, ld_h, m->down }, o, tiles);
    add_pairs(c, m, part);
}
