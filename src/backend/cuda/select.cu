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
 *               order in which lanes read them. Where that would leave most of the device
 *               idle, warps of a block share the heads instead
 *      choose   choose.cu
 *
 * Grids depend on the number of rows and on the longest context only. */
#include "mma.cuh"
#include "queries.cuh"
#include "select.cuh"
#include "tiles.cuh"

enum {
    DIM = IDX_DIM,
    WARPS = 4,
    GROUP = 32, /* index rows of a warp */
    PITCH = GROUP + 8,
    MOST_TILE_HEADS = 64,
    FEW_GROUPS = 1024, /* of a launch whose blocks have one group each */
    PREPARE_WARPS = 4
};
static const size_t most_scores = (size_t)64 << 20; /* bytes; more rows go in batches */

/* ---- scratch --------------------------------------------------------------------------- */

struct Select {
    Choose choice;
    float *q, *w; /* [rows][heads][dim], [rows][heads] */
    half *frag;   /* q as tensor cores want it: [rows][heads / 16][dim / 16][lane][8] */
    float *power; /* [rows][heads]: what a head's halfs are to be multiplied with */
    const uint8_t *idx;
    IdxRowFormat row;
    int comp_rows, heads, pairs, n_rows;
    float scale;
    bool rounding, tiles;
};

__host__ __device__ static inline Queries queries_of(const Select &a)
{
    return Queries{ a.q, a.w, a.frag, a.power, a.heads, a.pairs, a.scale };
}

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

/* Hands out the scratch; base NULL: only counts. Where queries are in frag when scores begin,
 * their place may be the scores'. */
static size_t lay_out(Select *a, const Shape *s, int rows, int cap, char *base)
{
    const size_t batch = batch_rows(rows, cap), heads = (size_t)rows * s->idx_heads;
    const size_t q = heads * s->idx_dim * sizeof(float), score = batch * cap * sizeof(float);
    const bool one = tiles_fit(s);
    const size_t bytes[] = {
        heads * sizeof(float),       one ? heads * s->idx_dim * sizeof(half) : 0,
        heads * sizeof(float),       choose_bytes(NULL, (int)batch, cap, NULL),
        one ? MAX(q, score) : score, one ? 0 : q
    };
    void *at[COUNT(bytes)];
    size_t used = 0;
    for (size_t i = 0; i < COUNT(bytes); i++) {
        at[i] = base + used;
        used += (bytes[i] + 255) / 256 * 256;
    }
    if (base) {
        a->w = (float *)at[0];
        a->frag = (half *)at[1];
        a->power = (float *)at[2];
        choose_bytes(&a->choice, (int)batch, cap, (char *)at[3]);
        a->choice.score = (float *)at[4];
        a->q = (float *)at[one ? 4 : 5];
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

/* The FP4 round trip of x, a block of 32 a round. */
__device__ static void round_head(float *x, int n)
{
    const int lane = threadIdx.x % WARP;
    for (int b = 0; b < n / 32; b++) {
        const float v = x[32 * b + lane];
        const unsigned code = e8m0_code(warp_amax(__float_as_uint(v), E2M1_FLOOR), E2M1_OVER);
        x[32 * b + lane] = e2m1_value(e2m1_code(v * e8m0_inverse_of(code))) * e8m0_value(code);
    }
}

/* The pairs of dimensions from nope on turned: neighbours in x, which one lane reads. */
__device__ static void load_turned(float *x, const float *q, const float *turn, int nope, int pairs)
{
    const int lane = threadIdx.x % WARP;
    for (int i = lane; i < nope; i += WARP)
        x[i] = q[i];
    for (int i = lane; i < pairs; i += WARP) {
        const float2 r = turned(q[nope + 2 * i], q[nope + 2 * i + 1], turn[2 * i], turn[2 * i + 1]);
        x[nope + 2 * i] = r.x;
        x[nope + 2 * i + 1] = r.y;
    }
}

/* A warp a head. */
__global__ void prepare_queries(Select a, const float *turns, int rope)
{
    extern __shared__ __align__(16) float shared[];
    const int lane = threadIdx.x % WARP, dim = a.row.dim;
    const int u = blockIdx.x * PREPARE_WARPS + threadIdx.x / WARP;
    const int row = u / a.heads, h = u % a.heads;

    let_others_start();
    wait_for_others();
    if (u >= a.n_rows * a.heads)
        return;
    const float *turn = turns + (size_t)row * rope;
    float *x = shared + threadIdx.x / WARP * dim, *q = a.q + (size_t)u * dim;

    if (a.tiles) {
        make_query(queries_of(a), row, h, turn);
        return;
    }
    if (lane == 0)
        a.w[u] *= a.scale;
    load_turned(x, q, turn, dim - 2 * a.pairs, a.pairs);
    hadamard_warp(x, dim);
    if (a.rounding)
        round_head(x, dim);
    for (int i = lane; i < dim; i += WARP)
        q[i] = x[i];
}

/* ---- scores -------------------------------------------------------------------------------- */

__device__ static const uint8_t *index_rows(const Select &a, int row)
{
    return a.idx + (size_t)a.choice.b.row[row].slot * a.comp_rows * a.row.bytes;
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

/* Weighted dots of 16 heads with 32 rows to part [16][PITCH]. frag: the lane's, `step` apart. */
__device__ static void put_dots(float *part, const uint4 *frag, int step,
                                const unsigned b[GROUP / 8][8][2], const float *power,
                                const float *w)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float c[GROUP / 8][4] = {};
#pragma unroll
    for (int s = 0; s < 8; s++) {
        const uint4 q = frag[s * step];
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
}

/* sum += 16 heads' weighted dots of this lane's row; part: of the warp. */
__device__ static float add_heads(float sum, const uint4 *frag, const unsigned b[GROUP / 8][8][2],
                                  const float *power, const float *w, float *part)
{
    const int lane = threadIdx.x % WARP;
    put_dots(part, frag + lane, WARP, b, power, w);
    __syncwarp();
#pragma unroll
    for (int h = 0; h < TILE_HEADS; h++)
        sum += part[h * PITCH + lane];
    __syncwarp();
    return sum;
}

/* Block (x, y): a share of the index rows of row y of the batch. */
__global__ void __launch_bounds__(WARPS *WARP) score_rows(Select a)
{
    extern __shared__ __align__(16) uint4 frag[];
    __shared__ __align__(16) float part[WARPS][TILE_HEADS * PITCH];
    __shared__ float power[MOST_TILE_HEADS], w[MOST_TILE_HEADS];
    let_others_start();
    wait_for_others();
    const int row = a.choice.first + blockIdx.y, warp = threadIdx.x / WARP,
              lane = threadIdx.x % WARP;
    const int n = visible_to(a.choice, row), groups = (n + GROUP - 1) / GROUP;
    const int per_tile = DIM / 16 * WARP; /* uint4 of 16 heads */

    if (n <= a.choice.topk || blockIdx.x * WARPS >= groups)
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
    float *score = a.choice.score + (size_t)blockIdx.y * a.choice.cap;
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

/* The same where there are not many: a block has 32 rows, a warp of it 16 heads. Every warp
 * unpacks all of them; the first one adds up. */
__global__ void __launch_bounds__(WARPS *WARP) score_few(Select a)
{
    __shared__ __align__(16) float part[MOST_TILE_HEADS * PITCH];
    const int row = a.choice.first + blockIdx.y, warp = threadIdx.x / WARP,
              lane = threadIdx.x % WARP, first = warp * TILE_HEADS;
    let_others_start();
    wait_for_others();
    const uint4 *from = (const uint4 *)(a.frag + ((size_t)row * a.heads + first) * DIM) + lane;
    const float *power = a.power + (size_t)row * a.heads + first;
    const float *w = a.w + (size_t)row * a.heads + first;
    const int n = visible_to(a.choice, row);
    uint4 frag[DIM / 16];

    if (n <= a.choice.topk)
        return;
#pragma unroll
    for (int s = 0; s < DIM / 16; s++)
        frag[s] = from[s * WARP];
    const uint8_t *rows = index_rows(a, row);
    float *score = a.choice.score + (size_t)blockIdx.y * a.choice.cap;
    for (int k = blockIdx.x; GROUP * k < n; k += gridDim.x) {
        unsigned b[GROUP / 8][8][2];
        const float mine = unpack_rows(b, rows, GROUP * k, n, a.row.bytes);
        put_dots(part + first * PITCH, frag, 1, b, power, w);
        __syncthreads();
        float sum = 0;
        if (warp == 0) {
#pragma unroll 16
            for (int h = 0; h < a.heads; h++)
                sum += part[h * PITCH + lane];
            if (GROUP * k + lane < n)
                score[GROUP * k + lane] = sum * mine;
        }
        __syncthreads();
    }
}

/* The same of any shape: a warp an index row. */
__global__ void __launch_bounds__(WARPS *WARP) score_rows_plain(Select a)
{
    let_others_start();
    wait_for_others();
    const int row = a.choice.first + blockIdx.y, lane = threadIdx.x % WARP,
              n = visible_to(a.choice, row);
    const uint8_t *rows = index_rows(a, row);
    const float *q = a.q + (size_t)row * a.heads * a.row.dim, *w = a.w + (size_t)row * a.heads;
    float *score = a.choice.score + (size_t)blockIdx.y * a.choice.cap;

    if (n <= a.choice.topk)
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

/* ---- the op ------------------------------------------------------------------------------------- */

/* Shares of a row's scores: enough blocks to fill the device whatever the rows' number. */
static int shares_of(const Cuda *c, const Select *a, int rows)
{
    const int per_block = a->tiles ? GROUP * WARPS : WARPS;
    const int most = (a->choice.cap + per_block - 1) / per_block, want = 4 * c->sm_count / rows;
    return MAX(1, MIN(most, MAX(want, 1)));
}

static void score_batch(Cuda *c, const Select *a, int rows)
{
    const dim3 grid(shares_of(c, a, rows), rows);
    const int bytes = a->heads * DIM * (int)sizeof(half);
    const int groups = (a->choice.cap + GROUP - 1) / GROUP;
    if (a->tiles && (size_t)groups * rows <= FEW_GROUPS)
        LAUNCH(c, score_few, dim3(groups, rows), a->heads / TILE_HEADS * WARP, 0, *a);
    else if (a->tiles)
        LAUNCH(c, score_rows, grid, WARPS * WARP, bytes, *a);
    else
        LAUNCH(c, score_rows_plain, grid, WARPS * WARP, 0, *a);
}

static void fill(Select *a, Cuda *c, const KvLayer *kv, Buf pick)
{
    const Shape *s = c->be.shape;

    a->choice.b = c->step;
    a->choice.pick = at<int>(pick);
    a->idx = at<const uint8_t>(kv->idx);
    a->row = kv->idx_row;
    a->comp_rows = kv->comp_rows;
    a->choice.ratio = kv->ratio;
    a->heads = s->idx_heads;
    a->choice.topk = s->idx_topk;
    a->pairs = MIN(s->rope_dim, s->idx_dim) / 2;
    a->n_rows = c->n_rows;
    a->scale = 1 / sqrtf((float)s->idx_dim * (float)s->idx_heads);
    a->rounding = s->rounding;
    a->tiles = tiles_fit(s);
}

/* The indexer's queries, and their heads' weights. */
static void project(Cuda *c, Select *a, Buf qr, Buf x, const Layer *l)
{
    const Shape *s = c->be.shape;
    const size_t all = (size_t)s->idx_heads * s->idx_dim;
    const TileJob job = { a->q, all, weight_of(&l->idx_q), 0 };
    const TileInput in = {
        at<const float>(qr),        (size_t)s->q_rank, a->n_rows, s->q_rank, 1, NULL, 0,
        at<const float>(l->q_norm), s->norm_eps
    };
    if (c->raw_of == l->index)
        tiles(c, &job, 1, &in, false);
    else
        dense(c, a->q, all, &l->idx_q, 0, in.x, s->q_rank, a->n_rows);
    if (c->idx_w_of == l->index)
        a->w = c->idx_w; /* came with the other products of x */
    else
        dense(c, a->w, (size_t)s->idx_heads, &l->idx_w, 0, at<const float>(x), s->dim, a->n_rows);
}

/* With what else waits to be done with the layer's inputs, if there is something. */
static void prepare(Cuda *c, const Select *a)
{
    const Shape *s = c->be.shape;
    const Queries q = queries_of(*a);
    if (inputs_late(c, a->tiles ? &q : NULL))
        return;
    const int bytes = PREPARE_WARPS * s->idx_dim * (int)sizeof(float);
    if (bytes > 48 << 10)
        NOTE(c, cudaFuncSetAttribute(prepare_queries, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     bytes));
    LAUNCH(c, prepare_queries, (a->n_rows * s->idx_heads + PREPARE_WARPS - 1) / PREPARE_WARPS,
           PREPARE_WARPS * WARP, bytes, *a, (const float *)c->step.turn[1], s->rope_dim);
}

void cuda_select(Backend *be, const Step *step, Buf pick, KvLayer *kv, Buf qr, Buf x,
                 const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    size_t used = 0;
    Select a = {};

    fill(&a, c, kv, pick);
    a.choice.cap = most_visible(s, c->max_context);
    char *scratch = (char *)op_scratch(c, &used, lay_out(NULL, s, n, a.choice.cap, NULL));
    if (!scratch)
        return;
    lay_out(&a, s, n, a.choice.cap, scratch);
    project(c, &a, qr, x, l);
    prepare(c, &a);
    const int batch = batch_rows(n, a.choice.cap);
    for (a.choice.first = 0; a.choice.first < n; a.choice.first += batch) {
        const int rows = MIN(batch, n - a.choice.first);
        score_batch(c, &a, rows);
        choose_batch(c, &a.choice, rows);
    }
}
