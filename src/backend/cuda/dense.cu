/* dense.cu - weight matrices times rows.
 *
 * Few rows: Q8_0 and F16 matrices of usual sizes go through tiles.cu, of up to SLAB_ROWS rows
 * through slabs.cu. Of others every weight is read once and multiplied with all rows, activations
 * in F32. A warp owns two output rows, or a share of their columns where there are not enough
 * rows to keep the machine busy; its lanes walk along them, 16 (or 32) values each at a time, the inputs lie in shared memory in the order in which the lanes read
 * them. An output is summed in an order of its own, whatever other rows there are.
 * Weights are asked for before the inputs are there.
 *
 * Many rows: the matrix is expanded to F16, a slice at a time, the inputs are
 * rounded to F16, and cuBLASLt multiplies with F32 sums. F32 matrices stay F32. */
#include "formats.cuh"

enum { WARPS = 8, MOST_JOBS = 4, MOST_SPLIT = 4 };
static const int shared_most = 64 << 10; /* of inputs; more blocks fit an SM */

/* ---- values of 16 at a time ------------------------------------------------------- */

template <int TYPE> struct Piece {
    enum { V = 32 }; /* values a lane takes at once */
    __device__ static void get(const DevWeight &d, size_t r, int i, float *w, const Iq2Table *t)
    {
        Block32<TYPE>::get(d, r, i, w, t);
    }
};
template <> struct Piece<QUANT_F16> {
    enum { V = 8 };
    __device__ static void get(const DevWeight &d, size_t r, int i, float *w, const Iq2Table *)
    {
        const uint4 v = __ldg((const uint4 *)((const half *)d.q + r * d.cols) + i);
        const half2 *h = (const half2 *)&v;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float2 f = __half22float2(h[k]);
            w[2 * k] = f.x, w[2 * k + 1] = f.y;
        }
    }
};
template <> struct Piece<QUANT_F32> {
    enum { V = 4 };
    __device__ static void get(const DevWeight &d, size_t r, int i, float *w, const Iq2Table *)
    {
        const float4 v = __ldg((const float4 *)((const float *)d.q + r * d.cols) + i);
        w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
    }
};

/* ---- few rows ---------------------------------------------------------------------- */

/* Jobs of one launch: matrices of one type and width, rows counted through. */
struct FewJobs {
    DevWeight w[MOST_JOBS];
    float *out[MOST_JOBS];
    size_t ld_out[MOST_JOBS], first[MOST_JOBS]; /* first: row of the matrix where a job begins */
    int end[MOST_JOBS];                         /* rows up to and with this job */
    int n, rows;
};

/* Columns [k0, k1) of R rows of x, rows beyond n as zeros, so that value v of lane l's
 * piece p is at ((p * R + r) * V / 4 + v / 4) * 32 * 4 + 4 l + v % 4. */
template <int R, int V>
__device__ static void fill_inputs(float *sh, const float *x, size_t ld, int n, int k0, int k1)
{
    const int width = k1 - k0, padded = (width + 32 * V - 1) / (32 * V) * (32 * V);
    const bool whole = ld % 4 == 0 && (uintptr_t)x % 16 == 0;
    for (int r = 0; r < R; r++) {
        const float *row = x + r * ld + k0;
#pragma unroll 4
        for (int i = threadIdx.x; i < padded / 4; i += WARPS * WARP) {
            const int piece = 4 * i / V, p = piece / 32, lane = piece % 32, v = i % (V / 4);
            float4 value = {};
            if (r < n && 4 * i < width)
                value =
                    whole ? __ldcg((const float4 *)row + i)
                          : make_float4(row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]);
            ((float4 *)sh)[((p * R + r) * (V / 4) + v) * 32 + lane] = value;
        }
    }
}

template <int R, int V>
__device__ static void add_piece(float *total, const float *w, const float *sh, int p, int lane)
{
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float4 *x = (const float4 *)sh + (p * R + r) * (V / 4) * 32 + lane;
        float sum = total[r];
#pragma unroll
        for (int j = 0; j < V / 4; j++) {
            const float4 v = x[j * 32];
            sum += w[4 * j] * v.x;
            sum += w[4 * j + 1] * v.y;
            sum += w[4 * j + 2] * v.z;
            sum += w[4 * j + 3] * v.w;
        }
        total[r] = sum;
    }
}

/* sums: [2 output rows][R], what earlier columns gave. Of the pieces of all columns those
 * that are share modulo split. */
template <int TYPE, int R, int V>
__device__ static void walk(float sum[2][R], const DevWeight &a, size_t ra, const DevWeight &b,
                            size_t rb, const float *sh, int k0, int k1, int share, int split,
                            const Iq2Table *t)
{
    const int lane = threadIdx.x % WARP, from = k0 / V, n = (k1 - k0) / V;
    const int first = (share + split - from / 32 % split) % split;
#pragma unroll 4
    for (int p = first; p * 32 + lane < n; p += split) {
        float wa[V], wb[V];
        const int i = p * 32 + lane;
        Piece<TYPE>::get(a, ra, from + i, wa, t);
        Piece<TYPE>::get(b, rb, from + i, wb, t);
        add_piece<R, V>(sum[0], wa, sh, p, lane);
        add_piece<R, V>(sum[1], wb, sh, p, lane);
    }
}

__device__ static int job_of(const FewJobs &j, int row)
{
    int k = 0;
    while (k + 1 < j.n && row >= j.end[k])
        k++;
    return k;
}

/* Adds the shares' sums in order: sum of a warp with share 0 is the whole then. */
template <int R> __device__ static void join(float sum[2][R], float (*part)[2 * R], int split)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2 * R; i++)
        sum[i / R][i % R] = warp_sum(sum[i / R][i % R]);
    if (split == 1)
        return;
    if (lane == 0)
#pragma unroll
        for (int i = 0; i < 2 * R; i++)
            part[warp][i] = sum[i / R][i % R];
    __syncthreads();
    for (int k = 1; k < split && warp % split == 0; k++)
#pragma unroll
        for (int i = 0; i < 2 * R; i++)
            sum[i / R][i % R] += part[warp + k][i];
    __syncthreads();
}

template <int R>
__device__ static void put_sums(const FewJobs &j, int k, int row, const float *sum, int n)
{
    const int at = row - (k ? j.end[k - 1] : 0);
#pragma unroll
    for (int r = 0; r < R; r++)
        if (r < n)
            j.out[k][r * j.ld_out[k] + at] = sum[r];
}

/* Asks for the weights of a row that begin at piece `share` of `split`: by one warp. */
template <int TYPE>
__device__ static void ask_for_row(const DevWeight &w, size_t row, int share, int split)
{
    constexpr int wide = TYPE == QUANT_F32 ? 4 : 2;
    constexpr bool plain = TYPE == QUANT_F16 || TYPE == QUANT_BF16 || TYPE == QUANT_F32;
    if constexpr (plain) {
        const int bytes = w.cols * wide, lane = threadIdx.x % WARP;
        for (int i = (lane + share * WARP) * 128; i < bytes; i += split * WARP * 128)
            ask_for_line(w.q + row * bytes + i);
    }
}

/* The same of output rows row and row + 1 of all jobs. */
template <int TYPE>
__device__ static void ask_for_pair(const FewJobs &j, int row, int share, int split)
{
    for (int r = row; r < min(row + 2, j.rows); r++) {
        const int k = job_of(j, r);
        ask_for_row<TYPE>(j.w[k], j.first[k] + r - (k ? j.end[k - 1] : 0), share, split);
    }
}

/* A warp takes two output rows at a time, or its share of `split` of their columns. tile:
 * columns of the inputs that shared memory holds; where that is not all of them each warp
 * has rows once only. */
template <int TYPE, int R>
__global__ void __launch_bounds__(WARPS *WARP, R == 1 ? 4 : 2)
    few_rows(FewJobs j, const float *x, size_t ld_x, int n, int cols, int tile, int split,
             const uint2 *grid)
{
    extern __shared__ __align__(16) float sh[];
    __shared__ Iq2Table table;
    __shared__ float part[WARPS][2 * R];
    enum { V = Piece<TYPE>::V };
    const int per = WARPS / split, share = threadIdx.x / WARP % split;
    const int pair = blockIdx.x * per + threadIdx.x / WARP / split, pairs = gridDim.x * per;
    const bool once = tile >= cols;

    let_others_start();
    ask_for_pair<TYPE>(j, 2 * pair, share, split);
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&table, grid);
    wait_for_others();
    if (once)
        fill_inputs<R, V>(sh, x, ld_x, n, 0, cols);
    __syncthreads();
    const int rounds = (j.rows + 2 * pairs - 1) / (2 * pairs);
    for (int round = 0; round < rounds; round++) {
        const int row = 2 * (pair + round * pairs);
        const bool works = row < j.rows;
        const int ra = works ? row : 0, rb = works && row + 1 < j.rows ? row + 1 : ra;
        const int ka = job_of(j, ra), kb = job_of(j, rb);
        const size_t fa = j.first[ka] + ra - (ka ? j.end[ka - 1] : 0);
        const size_t fb = j.first[kb] + rb - (kb ? j.end[kb - 1] : 0);
        ask_for_pair<TYPE>(j, row + 2 * pairs, share, split);
        float sum[2][R] = {};
        for (int k = 0; k < cols; k += tile) {
            const int end = min(k + tile, cols);
            if (!once) {
                __syncthreads();
                fill_inputs<R, V>(sh, x, ld_x, n, k, end);
                __syncthreads();
            }
            if (works)
                walk<TYPE, R, V>(sum, j.w[ka], fa, j.w[kb], fb, sh, k, end, share, split, &table);
        }
        join<R>(sum, part, split);
        if (works && share == 0 && threadIdx.x % WARP == 0) {
            put_sums<R>(j, ka, ra, sum[0], n);
            if (rb != ra)
                put_sums<R>(j, kb, rb, sum[1], n);
        }
    }
}

/* Columns that no piece fits: toys. */
__global__ void plain_rows(FewJobs j, const float *x, size_t ld_x, int n, int cols)
{
    wait_for_others();
    const int lane = threadIdx.x % WARP, row = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= j.rows)
        return;
    const int k = job_of(j, row), at = row - (k ? j.end[k - 1] : 0);
    for (int r = 0; r < n; r++) {
        float sum = 0;
        for (int i = lane; i < cols; i += WARP)
            sum += plain_value(j.w[k], (j.first[k] + at) * cols + i) * x[r * ld_x + i];
        sum = warp_sum(sum);
        if (lane == 0)
            j.out[k][r * j.ld_out[k] + at] = sum;
    }
}

/* So many warps share an output row that 132 SMs have about 16 warps each: of the matrices'
 * shape alone, as sums must not depend on the number of rows. */
static int split_of(int rows, int cols, int unit)
{
    int split = 1;
    while (split < MOST_SPLIT && rows / 2 * split <= 2112 && cols >= 2 * split * unit)
        split *= 2;
    return split;
}

template <int TYPE, int R>
static void launch_few(Cuda *c, const FewJobs &j, const float *x, size_t ld_x, int n, int cols)
{
    enum { V = Piece<TYPE>::V, UNIT = 32 * V };
    const int padded = (cols + UNIT - 1) / UNIT * UNIT, split = split_of(j.rows, cols, UNIT);
    int tile = cols, bytes = R * padded * (int)sizeof(float);
    if (bytes > shared_most) {
        tile = shared_most / (R * (int)sizeof(float)) / UNIT * UNIT;
        bytes = R * tile * (int)sizeof(float);
    }
    const int per = WARPS / split, pairs = (j.rows + 1) / 2, blocks = (pairs + per - 1) / per;
    /* Inputs that are there once serve several rounds; tiles are filled in each. */
    const int grid = tile >= cols ? MIN(blocks, 4 * c->sm_count) : blocks;
    if (bytes > 48 << 10)
        NOTE(c, cudaFuncSetAttribute(few_rows<TYPE, R>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     shared_most));
    LAUNCH(c, (few_rows<TYPE, R>), grid, WARPS * WARP, bytes, j, x, ld_x, n, cols, tile, split,
           (const uint2 *)c->iq2_grid);
}

template <int TYPE>
static void few_of(Cuda *c, const FewJobs &j, const float *x, size_t ld_x, int n, int cols)
{
    if (n == 1)
        launch_few<TYPE, 1>(c, j, x, ld_x, n, cols);
    else if (n <= 4)
        launch_few<TYPE, 4>(c, j, x, ld_x, n, cols);
    else if (n <= 8)
        launch_few<TYPE, 8>(c, j, x, ld_x, n, cols);
    else
        launch_few<TYPE, 16>(c, j, x, ld_x, n, cols);
}

static bool pieces_fit(const DevWeight *d) { return d->cols % 32 == 0; }

static void run_few(Cuda *c, const FewJobs &j, const float *x, size_t ld_x, int n)
{
    const DevWeight *d = &j.w[0];
    if (!pieces_fit(d)) {
        LAUNCH(c, plain_rows, (j.rows + WARPS - 1) / WARPS, WARPS * WARP, 0, j, x, ld_x, n,
               d->cols);
        return;
    }
    switch (d->type) {
#define FEW(type) \
    case type: few_of<type>(c, j, x, ld_x, n, d->cols); break;
        FORMATS(FEW)
#undef FEW
    }
}

/* ---- many rows ------------------------------------------------------------------------- */

/* n blocks of 32 of rows [first, ...) to halfs. */
template <int TYPE>
__global__ void expand(DevWeight d, size_t first, int rows, half *out, const uint2 *grid)
{
    __shared__ Iq2Table table;
    if (TYPE == QUANT_IQ2_XXS) {
        iq2_fill(&table, grid);
        __syncthreads();
    }
    const int per = d.cols / 32;
    const size_t total = (size_t)rows * per, stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
        float w[32];
        __align__(16) half h[32];
        Block32<TYPE>::get(d, first + i / per, (int)(i % per), w, &table);
#pragma unroll
        for (int k = 0; k < 32; k++)
            h[k] = __float2half(w[k]);
#pragma unroll
        for (int k = 0; k < 4; k++)
            ((uint4 *)(out + (i / per) * d.cols + 32 * (i % per)))[k] = ((uint4 *)h)[k];
    }
}

/* Of whole blocks of 32 columns; a thread eight of them, of a row or several. */
__global__ void round_rows(half *out, const float *x, size_t ld, int n, int cols)
{
    let_others_start();
    wait_for_others();
    const int i = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    const bool whole = ld % 4 == 0 && (uintptr_t)x % 16 == 0;
    for (int r = blockIdx.y; r < n && i < cols; r += gridDim.y) {
        const float *from = x + (size_t)r * ld + i;
        __align__(16) float v[8];
        if (whole) {
            *(float4 *)v = ((const float4 *)from)[0];
            *(float4 *)(v + 4) = ((const float4 *)from)[1];
        } else {
            for (int k = 0; k < 8; k++)
                v[k] = from[k];
        }
        half2 h[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            h[k] = __floats2half2_rn(v[2 * k], v[2 * k + 1]);
        *(uint4 *)(out + (size_t)r * cols + i) = *(const uint4 *)h;
    }
}

/* cuBLAS wants 16-byte rows of halfs; toys have others, and go in small groups. */
static bool is_few(const DevWeight *d, int n) { return n <= FEW_ROWS || d->cols % 32 != 0; }

static void expand_slice(Cuda *c, const DevWeight *d, size_t first, int rows)
{
    if (d->tiled && first % TILE_ROWS == 0 && rows % TILE_ROWS == 0) {
        expand_tiles(c, d, first, rows, c->w16);
        return;
    }
    const size_t blocks = ((size_t)rows * (d->cols / 32) + 255) / 256;
    const unsigned grid = (unsigned)MIN(blocks, (size_t)c->sm_count * 16);
    switch (d->type) {
#define EXPAND(type) \
    case type: \
        expand<type><<<grid, 256, 0, c->stream>>>(*d, first, rows, c->w16, c->iq2_grid); \
        break;
        FORMATS(EXPAND)
#undef EXPAND
    }
    launched(c, "expand");
}

static void run_many(Cuda *c, float *out, size_t ld_out, const DevWeight *d, size_t first, int rows,
                     const float *x, size_t ld_x, int n)
{
    if (d->type == QUANT_F32) {
        const float *w = (const float *)d->q + first * d->cols;
        multiply(c, out, ld_out, w, x, ld_x, rows, n, d->cols, CUDA_R_32F);
        return;
    }
    if (d->type == QUANT_F16 && !d->tiled) {
        const half *w = (const half *)d->q + first * d->cols;
        multiply(c, out, ld_out, w, c->x16, d->cols, rows, n, d->cols, CUDA_R_16F);
        return;
    }
    /* Slices of the matrix: whole tiles of its rows. */
    const int fit = (int)MIN(c->w16_bytes / sizeof(half) / d->cols, (size_t)rows);
    const int most = fit < rows ? MAX(fit / 128 * 128, MIN(fit, 16)) : rows;
    for (int at = 0; at < rows; at += most) {
        const int some = MIN(most, rows - at);
        expand_slice(c, d, first + at, some);
        multiply(c, out + at, ld_out, c->w16, c->x16, d->cols, some, n, d->cols, CUDA_R_16F);
    }
}

static void round_inputs(Cuda *c, const float *x, size_t ld_x, int n, int cols)
{
    const dim3 grid((cols / 8 + 255) / 256, MIN(n, 1024));
    LAUNCH(c, round_rows, grid, 256, 0, c->x16, x, ld_x, n, cols);
}

/* A group's product alone would leave half of a large machine idle. */
void dense_groups(Cuda *c, float *out, size_t ld_out, const DevWeight *w, int groups,
                  const float *x, size_t ld_x, int n)
{
    const int rank = w->rows / groups;
    const size_t wide = c->x16_bytes / sizeof(half) / n / w->cols;
    const size_t fit = c->w16_bytes / sizeof(half) / w->cols / rank;
    const int most = (int)MIN(MAX(MIN(wide, fit), (size_t)1), (size_t)groups);
    for (int g = 0; g < groups; g += most) {
        const int some = MIN(most, groups - g);
        round_inputs(c, x + (size_t)g * w->cols, ld_x, n, some * w->cols);
        expand_slice(c, w, (size_t)g * rank, some * rank);
        multiply_groups(c, out + (size_t)g * rank, ld_out, c->w16, c->x16, rank, n, w->cols, some);
    }
}

bool groups_fit(const Cuda *c, const DevWeight *w, int groups, int n)
{
    return !is_few(w, n) && w->type != QUANT_F32 &&
           (size_t)(w->rows / groups) * w->cols * sizeof(half) <= c->w16_bytes;
}

/* ---- both ---------------------------------------------------------------------------------- */

static void add_job(FewJobs *j, const DenseJob *job)
{
    const DevWeight *d = weight_of(job->w);
    const int k = j->n++;
    j->w[k] = *d;
    j->out[k] = job->out;
    j->ld_out[k] = job->ld_out;
    j->first[k] = (size_t)job->which * d->rows;
    j->rows += d->rows;
    j->end[k] = j->rows;
}

static void few_in_groups(Cuda *c, FewJobs j, const float *x, size_t ld_x, int n)
{
    for (int at = 0; at < n; at += FEW_ROWS) {
        run_few(c, j, x + at * ld_x, ld_x, MIN(n - at, (int)FEW_ROWS));
        for (int k = 0; k < j.n; k++)
            j.out[k] += FEW_ROWS * j.ld_out[k];
    }
}

/* The jobs from the first on that can go together, in tiles; returns how many. */
static int dense_tiles(Cuda *c, const DenseJob *job, int n_jobs, const float *x, size_t ld_x, int n)
{
    const int cols = weight_of(job->w)->cols;
    const TileInput in = { x, ld_x, n, cols, 1, NULL, 0, NULL, 0 };
    TileJob t[MOST_TILE_JOBS];
    int k = 0;
    for (; k < n_jobs && k < MOST_TILE_JOBS; k++) {
        const DevWeight *d = weight_of(job[k].w);
        if (!d->tiled || d->cols != cols || job[k].which)
            break;
        t[k] = TileJob{ job[k].out, job[k].ld_out, d, 0 };
    }
    return k && tiles_or_slabs(c, t, k, &in, false) ? k : 0;
}

void dense_many(Cuda *c, const DenseJob *job, int n_jobs, const float *x, size_t ld_x, int n)
{
    int rounded = 0; /* columns of x in x16 */
    for (int i = 0; i < n_jobs;) {
        const DevWeight *d = weight_of(job[i].w);
        FewJobs j = {};
        const int in_tiles = dense_tiles(c, job + i, n_jobs - i, x, ld_x, n);
        int end = i + in_tiles;
        if (in_tiles) {
            i = end;
            continue;
        }
        /* Of one format and width: one launch. */
        while (end < n_jobs && j.n < MOST_JOBS && weight_of(job[end].w)->type == d->type &&
               weight_of(job[end].w)->cols == d->cols)
            add_job(&j, &job[end++]);
        if (is_few(d, n)) {
            few_in_groups(c, j, x, ld_x, n);
        } else {
            if (d->type != QUANT_F32 && rounded != d->cols) {
                round_inputs(c, x, ld_x, n, d->cols);
                rounded = d->cols;
            }
            for (int k = 0; k < j.n; k++)
                run_many(c, j.out[k], j.ld_out[k], &j.w[k], j.first[k], j.w[k].rows, x, ld_x, n);
        }
        i = end;
    }
}

void dense(Cuda *c, float *out, size_t ld_out, const Weight *w, int which, const float *x,
           size_t ld_x, int n)
{
    const DenseJob job = { out, ld_out, w, which };
    dense_many(c, &job, 1, x, ld_x, n);
}
