/* select.cu - the indexer: which pooled rows of a ratio-4 layer a query reads.
 *
 * Queries are projected, rotated, put through Hadamard and rounded to FP4; then every
 * visible index row gets a score, and the idx_topk best go to pick in ascending order.
 * Both sides of a score's dots are small numbers times powers of two: as halfs relative to
 * the largest power of a head or row they are exact (where powers lie not 2^10 apart),
 * and so are the dots on tensor cores. Heads are added up in F32, in their order.
 *
 *      scores   a warp: 32 index rows of 68 bytes, straight from memory into the registers
 *               that tensor cores want; queries of all heads lie in shared memory in the
 *               order in which lanes read them
 *      choose   the smallest score that gets in, by a radix descent over the scores' bits
 *               (11, 11, 10), then counts and ranks: a block a row, or several where
 *               contexts are long
 *
 * Grids depend on the number of rows and on the longest context only. */
#include "kvrow.cuh"
#include "mma.cuh"

enum {
    DIM = 128, /* of an index row on tensor cores */
    WARPS = 4,
    GROUP = 32, /* index rows of a warp */
    PITCH = GROUP + 8,
    TILE_HEADS = 16,
    MOST_TILE_HEADS = 64,
    PREPARE_WARPS = 4,
    CHOOSE = 1024, /* threads */
    CHOOSE_WARPS = CHOOSE / WARP,
    DIGITS = 2048,
    COPIES = 4,     /* of a histogram: neighbours meet less */
    HELD = 16,      /* keys that a thread keeps in registers */
    LONG = 1 << 16, /* index rows of a context for which a row gets several blocks */
    SLICES = 16
};
static const size_t most_scores = (size_t)256 << 20; /* bytes; more rows go in batches */

/* ---- scratch --------------------------------------------------------------------------- */

struct Select {
    const StepBlock *b;
    float *q, *w;       /* [rows][heads][dim], [rows][heads] */
    const half *w_rows; /* few rows: idx_w [heads][x_dim]; NULL: w is there, unscaled */
    const float *x;     /* [rows][x_dim] */
    half *frag;         /* q as tensor cores want it: [rows][heads / 16][dim / 16][lane][8] */
    float *power;       /* [rows][heads]: what a head's halfs are to be multiplied with */
    float *score;       /* [batch][cap] */
    int *count;         /* long: [batch][3][DIGITS] */
    int *taken;         /* long: [batch][SLICES][2]: greater, equal */
    int *pick;          /* [rows][topk] */
    const uint8_t *idx;
    IdxRowFormat row;
    int comp_rows, ratio, cap, heads, topk, first; /* first row of the batch */
    int pairs, n_rows, x_dim;
    float scale;
    bool rounding, tiles;
};

static int batch_rows(int rows, int cap)
{
    const size_t fit = most_scores / ((size_t)cap * sizeof(float));
    return (int)MIN(MAX(fit, (size_t)1), (size_t)rows);
}

static bool tiles_fit(const Shape *s)
{
    return s->rounding && s->idx_dim == DIM && s->idx_heads % TILE_HEADS == 0 &&
           s->idx_heads <= MOST_TILE_HEADS;
}

/* Hands out the scratch; base NULL: only counts. */
static size_t lay_out(Select *a, const Shape *s, int rows, int cap, char *base)
{
    const size_t batch = batch_rows(rows, cap), heads = (size_t)rows * s->idx_heads;
    const size_t bytes[] = { heads * s->idx_dim * sizeof(float),
                             heads * sizeof(float),
                             tiles_fit(s) ? heads * s->idx_dim * sizeof(half) : 0,
                             heads * sizeof(float),
                             batch * cap * sizeof(float),
                             cap > LONG ? batch * 3 * DIGITS * sizeof(int) : 0,
                             cap > LONG ? batch * SLICES * 2 * sizeof(int) : 0 };
    void *at[COUNT(bytes)];
    size_t used = 0;
    for (size_t i = 0; i < COUNT(bytes); i++) {
        at[i] = base + used;
        used += (bytes[i] + 255) / 256 * 256;
    }
    if (base) {
        a->q = (float *)at[0];
        a->w = (float *)at[1];
        a->frag = (half *)at[2];
        a->power = (float *)at[3];
        a->score = (float *)at[4];
        a->count = (int *)at[5];
        a->taken = (int *)at[6];
    }
    return used;
}

static int most_visible(const Shape *s, int context)
{
    for (int i = 0; i < s->n_layers; i++) {
        if (shape_overlaps(s->ratio[i]))
            return MAX(shape_visible(s->ratio[i], context - 1), 1);
    }
    return 0;
}

size_t scratch_of_select(const Shape *s, int rows, int context)
{
    const int cap = most_visible(s, context);
    return cap ? lay_out(NULL, s, rows, cap, NULL) + 256 : 0;
}

/* ---- queries ----------------------------------------------------------------------------- */

__device__ static void hadamard_warp(float *x, int n)
{
    const int lane = threadIdx.x % WARP;
    for (int half_ = 1; half_ < n; half_ *= 2) {
        __syncwarp();
        for (int i = lane; i < n / 2; i += WARP) {
            float *p = x + i / half_ * 2 * half_ + i % half_;
            const float sum = p[0] + p[half_], difference = p[0] - p[half_];
            p[0] = sum;
            p[half_] = difference;
        }
    }
    __syncwarp();
    const float norm = (float)(1 / sqrt((double)n));
    for (int i = lane; i < n; i += WARP)
        x[i] *= norm;
    __syncwarp();
}

/* Where dimension d of head h is among the halfs of its row: lane t of four has block t of
 * 32, of a word of eight codes numbers k and k + 4 are a pair (see word_pairs). */
__device__ static size_t frag_at(int h, int d)
{
    const int in = h % TILE_HEADS, t = d / 32, j = d % 32 / 8, r = d % 8;
    const int step = 2 * j + r % 4 / 2, lane = in % 8 * 4 + t, reg = in / 8 + 2 * (r % 2);
    return (((size_t)(h / TILE_HEADS) * (DIM / 16) + step) * WARP + lane) * 8 + reg * 2 + r / 4;
}

/* The FP4 round trip of x, a block of 32 a round; exponents of DIM / 32 blocks to e. */
__device__ static void round_head(float *x, int n, unsigned *e)
{
    const int lane = threadIdx.x % WARP;
    for (int b = 0; b < n / 32; b++) {
        const float v = x[32 * b + lane];
        const unsigned code = e8m0_code(warp_amax(__float_as_uint(v), E2M1_FLOOR), E2M1_OVER);
        x[32 * b + lane] = e2m1_value(e2m1_code(v * e8m0_inverse_of(code)));
        if (e)
            e[b] = code;
        else
            x[32 * b + lane] *= e8m0_value(code);
    }
}

/* 2^-n; 0 far below a half's. */
__device__ static float lower_by(unsigned n)
{
    return n < 100 ? __uint_as_float((127 - n) << 23) : 0;
}

/* The weight of head h of a row: by a warp, from 8 KB of matrix and 16 of x for Flash. */
__device__ static float head_weight(const Select &a, int row, int h)
{
    const uint4 *w = (const uint4 *)(a.w_rows + (size_t)h * a.x_dim);
    const float4 *x = (const float4 *)(a.x + (size_t)row * a.x_dim);
    float sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x % WARP; i < a.x_dim / 8; i += WARP) {
        const uint4 v = __ldg(w + i);
        const float4 x0 = x[2 * i], x1 = x[2 * i + 1];
        const float2 w0 = __half22float2(*(const half2 *)&v.x),
                     w1 = __half22float2(*(const half2 *)&v.y),
                     w2 = __half22float2(*(const half2 *)&v.z),
                     w3 = __half22float2(*(const half2 *)&v.w);
        sum += w0.x * x0.x + w0.y * x0.y + w1.x * x0.z + w1.y * x0.w;
        sum += w2.x * x1.x + w2.y * x1.y + w3.x * x1.z + w3.y * x1.w;
    }
    return warp_sum(sum);
}

/* A warp a head: 512 bytes in, 256 out for Flash. */
__global__ void prepare_queries(Select a, const float *turns, int rope)
{
    extern __shared__ __align__(16) float shared[];
    let_others_start();
    wait_for_others();
    const int lane = threadIdx.x % WARP, dim = a.row.dim;
    const int u = blockIdx.x * PREPARE_WARPS + threadIdx.x / WARP;
    if (u >= a.n_rows * a.heads)
        return;
    const int row = u / a.heads, h = u % a.heads;
    float *x = shared + threadIdx.x / WARP * dim, *q = a.q + (size_t)u * dim;
    const float *turn = turns + (size_t)row * rope;
    const int nope = dim - 2 * a.pairs;

    for (int i = lane; i < nope; i += WARP)
        x[i] = q[i];
    for (int i = lane; i < a.pairs; i += WARP) {
        const float2 r = turned(q[nope + 2 * i], q[nope + 2 * i + 1], turn[2 * i], turn[2 * i + 1]);
        x[nope + 2 * i] = r.x;
        x[nope + 2 * i + 1] = r.y;
    }
    hadamard_warp(x, dim);
    const float weight = a.w_rows ? head_weight(a, row, h) : a.w[u];
    if (lane == 0)
        a.w[u] = weight * a.scale;
    if (!a.tiles) {
        if (a.rounding)
            round_head(x, dim, NULL);
        for (int i = lane; i < dim; i += WARP)
            q[i] = x[i];
        return;
    }
    unsigned e[DIM / 32];
    round_head(x, DIM, e);
    const unsigned most = max(max(e[0], e[1]), max(e[2], e[3]));
    half *to = a.frag + (size_t)row * a.heads * DIM;
#pragma unroll
    for (int b = 0; b < DIM / 32; b++)
        to[frag_at(h, 32 * b + lane)] = __float2half(x[32 * b + lane] * lower_by(most - e[b]));
    if (lane == 0)
        a.power[u] = e8m0_value(most);
}

/* ---- scores -------------------------------------------------------------------------------- */

__device__ static int visible_to(const Select &a, int row)
{
    return (a.b->row[row].pos + 1) / a.ratio;
}

__device__ static const uint8_t *index_rows(const Select &a, int row)
{
    return a.idx + (size_t)a.b->row[row].slot * a.comp_rows * a.row.bytes;
}

/* Eight rows: a lane's block of one of them as pairs for the eight steps of a dot. */
struct Codes {
    unsigned word[4], e;
};

__device__ static Codes load_codes(const uint8_t *row, int t)
{
    Codes c = {};
    if (row) {
        const unsigned *at = (const unsigned *)(row + 16 * t);
#pragma unroll
        for (int i = 0; i < 4; i++)
            c.word[i] = at[i];
        c.e = row[DIM / 2 + t];
    }
    return c;
}

/* 2^(14 - less) as a half twice: codes as halfs are 2^-14 of their values. */
__device__ static unsigned factor_of(unsigned less)
{
    const int field = 29 - (int)less;
    const unsigned h = field > 0 ? (unsigned)field << 10 : field > -10 ? 0x400u >> (1 - field) : 0;
    return h | h << 16;
}

/* Codes k and k + 4 of a word as halfs, times the factor. */
template <int K> __device__ static unsigned word_pair(unsigned word, unsigned factor)
{
    const unsigned size = K < 3 ? word << (9 - 4 * K) : word >> 3, sign = word << (12 - 4 * K);
    return times_f16((size & 0x0e000e00) | (sign & 0x80008000), factor);
}

/* Scores of 32 rows: as halfs in b [row / 8][step][2]; returns 2^e of the row of this lane. */
__device__ static float unpack_rows(unsigned b[GROUP / 8][8][2], const uint8_t *rows, int from,
                                    int n, int bytes)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float power = 0;
    Codes c[GROUP / 8];
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++) {
        const int row = from + 8 * i + g;
        c[i] = load_codes(row < n ? rows + (size_t)row * bytes : NULL, t);
    }
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++) {
        unsigned most = max(c[i].e, __shfl_xor_sync(~0u, c[i].e, 1));
        most = max(most, __shfl_xor_sync(~0u, most, 2));
        const unsigned factor = factor_of(most - c[i].e);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            b[i][2 * j][0] = word_pair<0>(c[i].word[j], factor);
            b[i][2 * j][1] = word_pair<1>(c[i].word[j], factor);
            b[i][2 * j + 1][0] = word_pair<2>(c[i].word[j], factor);
            b[i][2 * j + 1][1] = word_pair<3>(c[i].word[j], factor);
        }
        /* A row with a number that is none has no positive dot: as on the CPU. */
        const float mine = most == 255 ? 0 : e8m0_value(most);
        const float other = __shfl_sync(~0u, mine, lane % 8 * 4);
        power = lane / 8 == i ? other : power;
    }
    return power;
}

/* sum += 16 heads' weighted dots of this lane's row; part: [16][PITCH] of the warp. */
__device__ static float add_heads(float sum, const uint4 *frag, const unsigned b[GROUP / 8][8][2],
                                  const float *power, const float *w, float *part)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float c[GROUP / 8][4] = {};
#pragma unroll
    for (int s = 0; s < 8; s++) {
        const uint4 q = frag[s * WARP + lane];
        const unsigned a[4] = { q.x, q.y, q.z, q.w };
#pragma unroll
        for (int i = 0; i < GROUP / 8; i++)
            mma_f16(c[i], a, b[i][s][0], b[i][s][1]);
    }
    const float p0 = power[g], p1 = power[g + 8], w0 = w[g], w1 = w[g + 8];
#pragma unroll
    for (int i = 0; i < GROUP / 8; i++) {
        float *to = part + g * PITCH + 8 * i + 2 * t;
        *(float2 *)to = make_float2(w0 * fmaxf(c[i][0] * p0, 0), w0 * fmaxf(c[i][1] * p0, 0));
        *(float2 *)(to + 8 * PITCH) =
            make_float2(w1 * fmaxf(c[i][2] * p1, 0), w1 * fmaxf(c[i][3] * p1, 0));
    }
    __syncwarp();
#pragma unroll
    for (int h = 0; h < TILE_HEADS; h++)
        sum += part[h * PITCH + lane];
    __syncwarp();
    return sum;
}

/* Of a long context's row: the counts start at zero. */
__device__ static void clear_counts(const Select &a, int batch_row)
{
    int *count = a.count + (size_t)batch_row * 3 * DIGITS;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < 3 * DIGITS; i += gridDim.x * blockDim.x)
        count[i] = 0;
}

/* Block (x, y): a share of the index rows of row y of the batch. */
__global__ void __launch_bounds__(WARPS *WARP) score_rows(Select a)
{
    extern __shared__ __align__(16) uint4 frag[];
    __shared__ __align__(16) float part[WARPS][TILE_HEADS * PITCH];
    __shared__ float power[MOST_TILE_HEADS], w[MOST_TILE_HEADS];
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int n = visible_to(a, row), groups = (n + GROUP - 1) / GROUP;
    const int per_tile = DIM / 16 * WARP; /* uint4 of 16 heads */

    if (a.cap > LONG)
        clear_counts(a, blockIdx.y);
    if (n <= a.topk || blockIdx.x * WARPS >= groups)
        return;
    const uint4 *from = (const uint4 *)(a.frag + (size_t)row * a.heads * DIM);
    for (int i = threadIdx.x; i < a.heads / TILE_HEADS * per_tile; i += blockDim.x)
        frag[i] = from[i];
    for (int i = threadIdx.x; i < a.heads; i += blockDim.x) {
        power[i] = a.power[(size_t)row * a.heads + i];
        w[i] = a.w[(size_t)row * a.heads + i];
    }
    __syncthreads();
    const uint8_t *rows = index_rows(a, row);
    float *score = a.score + (size_t)blockIdx.y * a.cap;
    for (int k = blockIdx.x * WARPS + warp; k < groups; k += gridDim.x * WARPS) {
        unsigned b[GROUP / 8][8][2];
        const float mine = unpack_rows(b, rows, GROUP * k, n, a.row.bytes);
        float sum = 0;
        for (int m = 0; m < a.heads / TILE_HEADS; m++)
            sum = add_heads(sum, frag + m * per_tile, b, power + m * TILE_HEADS, w + m * TILE_HEADS,
                            part[warp]);
        if (GROUP * k + lane < n)
            score[GROUP * k + lane] = sum * mine;
    }
}

/* The same of any shape: a warp an index row. */
__global__ void __launch_bounds__(WARPS *WARP) score_rows_plain(Select a)
{
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.y, lane = threadIdx.x % WARP, n = visible_to(a, row);
    const uint8_t *rows = index_rows(a, row);
    const float *q = a.q + (size_t)row * a.heads * a.row.dim, *w = a.w + (size_t)row * a.heads;
    float *score = a.score + (size_t)blockIdx.y * a.cap;

    if (a.cap > LONG)
        clear_counts(a, blockIdx.y);
    if (n <= a.topk)
        return;
    for (int k = blockIdx.x * WARPS + threadIdx.x / WARP; k < n; k += gridDim.x * WARPS) {
        float sum = 0;
        for (int h = 0; h < a.heads; h++) {
            float dot = 0;
            for (int d = lane; d < a.row.dim; d += WARP)
                dot += q[h * a.row.dim + d] * idx_value(a.row, rows + (size_t)k * a.row.bytes, d);
            sum += w[h] * fmaxf(warp_sum(dot), 0);
        }
        if (lane == 0)
            score[k] = sum;
    }
}

/* ---- the best k of n scores -------------------------------------------------------------------- */

/* Unsigned order is the order of scores; both zeros are one, NaN is least. */
__device__ static unsigned order_key(float x)
{
    if (isnan(x))
        return 0;
    const unsigned u = __float_as_uint(x + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* The three digits of a key, and what is above each. */
__device__ static unsigned digit_of(unsigned key, int p)
{
    return p == 0 ? key >> 21 : p == 1 ? key >> 10 & 2047 : key & 1023;
}
__device__ static unsigned above(unsigned key, int p)
{
    return p == 0 ? 0 : p == 1 ? key >> 21 : key >> 10;
}

/* Scores of a warp, [begin, end): in memory, or as keys in registers, 32 a round. */
template <bool IN_REGISTERS> struct Keys {
    const float *score;
    int begin, end;
    unsigned held[IN_REGISTERS ? HELD : 1];
};

/* Scores [from, to) dealt out to the block's warps; registers have room for HELD * CHOOSE. */
template <bool IN_REGISTERS>
__device__ static Keys<IN_REGISTERS> keys_of(const float *score, int from, int to)
{
    const int lane = threadIdx.x % WARP, per = (to - from + CHOOSE - 1) / CHOOSE * WARP;
    Keys<IN_REGISTERS> k;
    k.score = score;
    k.begin = min(from + (int)threadIdx.x / WARP * per, to);
    k.end = min(k.begin + per, to);
    if (IN_REGISTERS) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int at = k.begin + WARP * i + lane;
            k.held[IN_REGISTERS ? i : 0] = at < k.end ? order_key(score[at]) : 0;
        }
    }
    return k;
}

/* visit(index, is there one, key) by all lanes of the warp, in order of the index. */
template <bool IN_REGISTERS, class Visit>
__device__ static void each_key(const Keys<IN_REGISTERS> &k, Visit visit)
{
    const int lane = threadIdx.x % WARP;
    if (IN_REGISTERS) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int at = k.begin + WARP * i + lane;
            if (at - lane < k.end)
                visit(at, at < k.end, k.held[IN_REGISTERS ? i : 0]);
        }
    } else {
#pragma unroll 4
        for (int at = k.begin + lane; at - lane < k.end; at += WARP)
            visit(at, at < k.end, at < k.end ? order_key(k.score[at]) : 0);
    }
}

/* How many of the block's keys that agree with prefix above digit p have which digit.
 * count: [DIGITS][COPIES], cleared here. */
template <bool IN_REGISTERS>
__device__ static void count_digits(int *count, const Keys<IN_REGISTERS> &k, unsigned prefix, int p)
{
    for (int i = threadIdx.x; i < DIGITS * COPIES; i += CHOOSE)
        count[i] = 0;
    __syncthreads();
    each_key(k, [&](int, bool there, unsigned key) {
        if (there && above(key, p) == above(prefix, p))
            atomicAdd(&count[digit_of(key, p) * COPIES + threadIdx.x % COPIES], 1);
    });
    __syncthreads();
}

/* Where the descent stands: the digits found, and the rank among those that agree. */
struct Descent {
    unsigned prefix;
    int k;
};

/* The sum of `mine` of the threads before this one. */
__device__ static int before_mine(int mine, int *part)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int sum = mine;
    for (int d = 1; d < WARP; d *= 2) {
        const int up = __shfl_up_sync(~0u, sum, d);
        sum += lane >= d ? up : 0;
    }
    __syncthreads();
    if (lane == WARP - 1)
        part[warp] = sum;
    __syncthreads();
    return __reduce_add_sync(~0u, lane < warp ? part[lane] : 0) + sum - mine;
}

/* Digit p of the k-th largest, from counts [DIGITS][N]; k becomes its rank there. A thread
 * has two digits, the first thread the largest. */
template <int N> __device__ static void settle(Descent *at, const int *count, int p, int *part)
{
    __shared__ Descent found;
    const int low = DIGITS - 2 - 2 * threadIdx.x, high = low + 1;
    int n_high = 0, n_low = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        n_low += count[low * N + i];
        n_high += count[high * N + i];
    }
    const int before = before_mine(n_high + n_low, part);
    const int shift = p == 0 ? 21 : p == 1 ? 10 : 0;
    if (before < at->k && at->k <= before + n_high)
        found = Descent{ at->prefix | (unsigned)high << shift, at->k - before };
    else if (before + n_high < at->k && at->k <= before + n_high + n_low)
        found = Descent{ at->prefix | (unsigned)low << shift, at->k - before - n_high };
    __syncthreads();
    *at = found;
    __syncthreads();
}

/* Keys of the warp above the least that gets in, and those equal to it. */
template <bool IN_REGISTERS>
__device__ static int2 count_warp(const Keys<IN_REGISTERS> &k, unsigned least)
{
    int2 n = make_int2(0, 0);
    each_key(k, [&](int, bool there, unsigned key) {
        n.x += there && key > least;
        n.y += there && key == least;
    });
    n.x = __reduce_add_sync(~0u, n.x);
    n.y = __reduce_add_sync(~0u, n.y);
    return n;
}

/* Writes the warp's picks in order; before: what is in front, ties: how many of those equal
 * to the least get in. */
template <bool IN_REGISTERS>
__device__ static void write_warp(int *pick, const Keys<IN_REGISTERS> &k, unsigned least,
                                  int2 before, int ties)
{
    const unsigned lane = threadIdx.x % WARP, lower = (1u << lane) - 1;
    each_key(k, [&](int at, bool there, unsigned key) {
        const unsigned more = __ballot_sync(~0u, there && key > least);
        const unsigned same = __ballot_sync(~0u, there && key == least);
        const int n_same = before.y + __popc(same & lower);
        if ((more | (n_same < ties ? same : 0)) >> lane & 1)
            pick[before.x + __popc(more & lower) + min(n_same, ties)] = at;
        before.x += __popc(more);
        before.y += __popc(same);
    });
}

/* The block's picks; before: what other blocks have in front of them. */
template <bool IN_REGISTERS>
__device__ static void write_block(int *pick, const Keys<IN_REGISTERS> &k, const Descent &d,
                                   int2 before)
{
    __shared__ int2 counts[CHOOSE_WARPS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int2 mine = count_warp(k, d.prefix);
    if (lane == 0)
        counts[warp] = mine;
    __syncthreads();
    const int2 other = lane < warp ? counts[lane] : make_int2(0, 0);
    before.x += __reduce_add_sync(~0u, other.x);
    before.y += __reduce_add_sync(~0u, other.y);
    if (mine.x || (mine.y && before.y < d.k))
        write_warp(pick, k, d.prefix, before, d.k);
}

__device__ static void pick_all(int *pick, int n, int topk)
{
    for (int i = threadIdx.x; i < topk; i += blockDim.x)
        pick[i] = i < n ? i : -1;
}

/* Shared memory of a block that chooses. */
struct Counts {
    int digit[DIGITS * COPIES], part[CHOOSE_WARPS];
};

template <bool IN_REGISTERS>
__device__ static void choose_of(int *pick, const float *score, int n, int topk, Counts *sh)
{
    const Keys<IN_REGISTERS> k = keys_of<IN_REGISTERS>(score, 0, n);
    Descent at = { 0, topk };
    for (int p = 0; p < 3; p++) {
        count_digits(sh->digit, k, at.prefix, p);
        settle<COPIES>(&at, sh->digit, p, sh->part);
    }
    write_block(pick, k, at, make_int2(0, 0));
}

/* A block a row of the batch; those that see more than LONG are left to others. */
__global__ void __launch_bounds__(CHOOSE) choose(Select a)
{
    __shared__ __align__(16) Counts sh;
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.x, n = visible_to(a, row);
    const float *score = a.score + (size_t)blockIdx.x * a.cap;
    int *pick = a.pick + (size_t)row * a.topk;

    if (n <= a.topk)
        pick_all(pick, n, a.topk);
    else if (n <= HELD * CHOOSE)
        choose_of<true>(pick, score, n, a.topk, &sh);
    else if (n <= LONG)
        choose_of<false>(pick, score, n, a.topk, &sh);
}

/* ---- the same with several blocks a row ---------------------------------------------------------- */

/* Scores of a slice: [from, to) of n. */
__device__ static int2 slice_of(int n, int slice)
{
    const int per = (n + SLICES - 1) / SLICES;
    return make_int2(min(slice * per, n), min((slice + 1) * per, n));
}

/* The first `digits` digits, from what all slices counted. */
__device__ static Descent descent_of(const Select &a, int batch_row, int digits, int *part)
{
    Descent at = { 0, a.topk };
    for (int p = 0; p < digits; p++)
        settle<1>(&at, a.count + ((size_t)batch_row * 3 + p) * DIGITS, p, part);
    return at;
}

/* Block (x, y): slice x of row y. Counts are added up as integers: order does not matter. */
__global__ void __launch_bounds__(CHOOSE) count_slice(Select a, int p)
{
    __shared__ __align__(16) Counts sh;
    let_others_start();
    wait_for_others();
    const int n = visible_to(a, a.first + blockIdx.y);
    if (n <= LONG)
        return;
    const int2 at = slice_of(n, blockIdx.x);
    const Descent d = descent_of(a, blockIdx.y, p, sh.part);
    count_digits(sh.digit, keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y),
                 d.prefix, p);
    int *all = a.count + ((size_t)blockIdx.y * 3 + p) * DIGITS;
    for (int i = threadIdx.x; i < DIGITS; i += CHOOSE) {
        int sum = 0;
        for (int k = 0; k < COPIES; k++)
            sum += sh.digit[i * COPIES + k];
        if (sum)
            atomicAdd(&all[i], sum);
    }
}

/* How many of a slice get in. */
__global__ void __launch_bounds__(CHOOSE) count_taken(Select a)
{
    __shared__ int2 counts[CHOOSE_WARPS];
    __shared__ int part[CHOOSE_WARPS];
    let_others_start();
    wait_for_others();
    const int n = visible_to(a, a.first + blockIdx.y), warp = threadIdx.x / WARP;
    if (n <= LONG)
        return;
    const int2 at = slice_of(n, blockIdx.x);
    const Descent d = descent_of(a, blockIdx.y, 3, part);
    const int2 mine =
        count_warp(keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y), d.prefix);
    if (threadIdx.x % WARP == 0)
        counts[warp] = mine;
    __syncthreads();
    if (threadIdx.x < 2) {
        int sum = 0;
        for (int i = 0; i < CHOOSE_WARPS; i++)
            sum += threadIdx.x ? counts[i].y : counts[i].x;
        a.taken[((size_t)blockIdx.y * SLICES + blockIdx.x) * 2 + threadIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(CHOOSE) write_slice(Select a)
{
    __shared__ int part[CHOOSE_WARPS];
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.y, n = visible_to(a, row);
    int *pick = a.pick + (size_t)row * a.topk;
    if (n <= LONG)
        return;
    const Descent d = descent_of(a, blockIdx.y, 3, part);
    const int *taken = a.taken + (size_t)blockIdx.y * SLICES * 2;
    const int2 at = slice_of(n, blockIdx.x);
    int2 before = make_int2(0, 0);
    for (int i = 0; i < (int)blockIdx.x; i++) {
        before.x += taken[2 * i];
        before.y += taken[2 * i + 1];
    }
    write_block(pick, keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y), d, before);
}

/* ---- the op ------------------------------------------------------------------------------------- */

/* Shares of a row's scores: enough blocks to fill the device whatever the rows' number. */
static int shares_of(const Cuda *c, const Select *a, int rows)
{
    const int per_block = a->tiles ? GROUP * WARPS : WARPS;
    const int most = (a->cap + per_block - 1) / per_block, want = 4 * c->sm_count / rows;
    return MAX(1, MIN(most, MAX(want, 1)));
}

static void score_batch(Cuda *c, const Select *a, int rows)
{
    const dim3 grid(shares_of(c, a, rows), rows);
    const int bytes = a->heads * DIM * (int)sizeof(half);
    if (a->tiles)
        LAUNCH(c, score_rows, grid, WARPS * WARP, bytes, *a);
    else
        LAUNCH(c, score_rows_plain, grid, WARPS * WARP, 0, *a);
}

static void choose_batch(Cuda *c, const Select *a, int rows)
{
    LAUNCH(c, choose, rows, CHOOSE, 0, *a);
    if (a->cap <= LONG)
        return;
    for (int p = 0; p < 3; p++)
        LAUNCH(c, count_slice, dim3(SLICES, rows), CHOOSE, 0, *a, p);
    LAUNCH(c, count_taken, dim3(SLICES, rows), CHOOSE, 0, *a);
    LAUNCH(c, write_slice, dim3(SLICES, rows), CHOOSE, 0, *a);
}

static void fill(Select *a, Cuda *c, const KvLayer *kv, Buf pick, Buf x, const Layer *l)
{
    const Shape *s = c->be.shape;
    const DevWeight *w = weight_of(&l->idx_w);

    a->b = c->block;
    a->pick = at<int>(pick);
    a->idx = at<const uint8_t>(kv->idx);
    a->row = kv->idx_row;
    a->comp_rows = kv->comp_rows;
    a->ratio = kv->ratio;
    a->heads = s->idx_heads;
    a->topk = s->idx_topk;
    a->pairs = MIN(s->rope_dim, s->idx_dim) / 2;
    a->n_rows = c->n_rows;
    a->scale = 1 / sqrtf((float)s->idx_dim * (float)s->idx_heads);
    a->rounding = s->rounding;
    a->x = at<const float>(x);
    a->x_dim = s->dim;
    /* A matrix so small is not worth a launch. */
    if (c->few && w->type == QUANT_F16 && w->cols % 8 == 0)
        a->w_rows = (const half *)w->q;
    a->tiles = tiles_fit(s) && kv->idx_row.packed;
}

void cuda_select(Backend *be, const Step *step, Buf pick, KvLayer *kv, Buf qr, Buf x,
                 const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows, all = s->idx_heads * s->idx_dim;
    size_t used = 0;
    Select a = {};

    fill(&a, c, kv, pick, x, l);
    a.cap = most_visible(s, c->max_context);
    char *scratch = (char *)op_scratch(c, &used, lay_out(NULL, s, n, a.cap, NULL));
    if (!scratch)
        return;
    lay_out(&a, s, n, a.cap, scratch);
    dense(c, a.q, (size_t)all, &l->idx_q, 0, at<const float>(qr), s->q_rank, n);
    if (!a.w_rows)
        dense(c, a.w, (size_t)s->idx_heads, &l->idx_w, 0, a.x, s->dim, n);
    LAUNCH(c, prepare_queries, (n * s->idx_heads + PREPARE_WARPS - 1) / PREPARE_WARPS,
           PREPARE_WARPS * WARP, PREPARE_WARPS * s->idx_dim * sizeof(float), a,
           (const float *)c->host.turn[1], s->rope_dim);
    const int batch = batch_rows(n, a.cap);
    for (a.first = 0; a.first < n; a.first += batch) {
        const int rows = MIN(batch, n - a.first);
        score_batch(c, &a, rows);
        choose_batch(c, &a, rows);
    }
}
