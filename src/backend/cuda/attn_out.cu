/* attn_out.cu - heads back to the model's width: each group of heads through its own rows
 * of o_a, then all of them through o_b.
 *
 * Few rows: all groups in one launch, 35 MB of weights for Flash. A block has rows of one
 * group, whose first ones it asks the L2 cache for while attention still runs. Its inputs
 * are staged in shared memory in the order in which lanes read them, a slice of columns at
 * a time; a warp takes some output rows, a lane pieces of 16 or 32 values of them. An
 * output is summed in an order of its own, whatever other rows there are. */
#include "formats.cuh"

enum {
    WARPS = 8,
    SLICE = 1024,  /* columns staged are a multiple of these: lanes have the same pieces */
    STAGED = 16384 /* values staged at most */
};

size_t scratch_of_project(const Shape *s, int rows)
{
    return (size_t)rows * s->o_groups * s->o_rank * sizeof(float) + 256;
}

/* ---- o_a, few rows ------------------------------------------------------------------- */

struct Groups {
    DevWeight w;    /* rows: all groups' */
    float *low;     /* [n][w.rows] */
    const float *o; /* [n][groups][w.cols] */
    const uint2 *grid;
    int n, rank, groups;
};

/* V values of an output row: as they lie in memory, then as numbers and their scale. */
template <int TYPE> struct Piece {
    enum { V = 32 };
    float value[32];
    __device__ void load(const DevWeight &d, size_t row, int i, const Iq2Table *t)
    {
        Block32<TYPE>::get(d, row, i, value, t);
    }
    __device__ float unpack(float *w) const
    {
#pragma unroll
        for (int i = 0; i < V; i++)
            w[i] = value[i];
        return 1;
    }
};
template <> struct Piece<QUANT_Q8_0> {
    enum { V = 16 };
    int4 codes;
    half scale;
    __device__ void load(const DevWeight &d, size_t row, int i, const Iq2Table *)
    {
        codes = __ldg((const int4 *)((const int8_t *)d.q + row * d.cols) + i);
        scale = d.d[row * (d.cols / 32) + i / 2];
    }
    __device__ float unpack(float *w) const
    {
        const int u[4] = { codes.x, codes.y, codes.z, codes.w };
#pragma unroll
        for (int i = 0; i < V; i++)
            w[i] = (float)(int8_t)(u[i / 4] >> 8 * (i % 4));
        return __half2float(scale);
    }
};

/* sum[j][r] += piece j times the staged inputs of row r, which begin at x + r * V * 32, a
 * lane's fours 128 floats apart. */
template <int TYPE, int ROWS, int N>
__device__ static void add_pieces(float sum[][N], const Piece<TYPE> *p, const float *x)
{
    enum { V = Piece<TYPE>::V };
    float w[ROWS][V], scale[ROWS];
#pragma unroll
    for (int j = 0; j < ROWS; j++)
        scale[j] = p[j].unpack(w[j]);
#pragma unroll
    for (int r = 0; r < N; r++) {
        float part[ROWS] = {};
#pragma unroll
        for (int k = 0; k < V / 4; k++) {
            const float4 v = *(const float4 *)(x + r * V * 32 + k * 128);
#pragma unroll
            for (int j = 0; j < ROWS; j++) {
                part[j] += w[j][4 * k] * v.x;
                part[j] += w[j][4 * k + 1] * v.y;
                part[j] += w[j][4 * k + 2] * v.z;
                part[j] += w[j][4 * k + 3] * v.w;
            }
        }
#pragma unroll
        for (int j = 0; j < ROWS; j++)
            sum[j][r] += scale[j] * part[j];
    }
}

/* A warp takes ROWS output rows, and DEEP pieces of each at once, as registers allow. */
template <int TYPE, int N> struct Share {
    enum {
        ROWS = TYPE == QUANT_Q8_0 && N <= 4 ? 4 : 2,
        DEEP = TYPE == QUANT_Q8_0 && N <= 4 ? 2 : 1
    };
};

/* Columns [from, from + width) of a group's inputs of all N rows; beyond n zeros. Value v of
 * lane l's piece p is at ((p * N + r) * V / 4 + v / 4) * 128 + 4 l + v % 4. */
template <int N, int V>
__device__ static void stage(float *x, const Groups &a, int group, int from, int width)
{
    const int quads = width / 4;
    for (int i = threadIdx.x; i < N * quads; i += blockDim.x) {
        const int r = i / quads, k = i % quads * 4, piece = k / V, lane = piece % WARP;
        const size_t at = ((size_t)r * a.groups + group) * a.w.cols + from + k;
        const float4 v = r < a.n ? *(const float4 *)(a.o + at) : make_float4(0, 0, 0, 0);
        ((float4 *)x)[((piece / WARP * N + r) * (V / 4) + k % V / 4) * 32 + lane] = v;
    }
}

/* sum[j][r] += the lane's of `pieces` from the first on, of output row j. */
template <int TYPE, int N>
__device__ static void walk(float sum[][N], const Groups &a, size_t row, int rows, int first,
                            int pieces, const float *x, const Iq2Table *table)
{
    enum { V = Piece<TYPE>::V, ROWS = Share<TYPE, N>::ROWS, DEEP = Share<TYPE, N>::DEEP };
    const int lane = threadIdx.x % WARP;
    for (int p = 0; p * WARP + lane < pieces; p += DEEP) {
        Piece<TYPE> w[DEEP][ROWS];
#pragma unroll
        for (int k = 0; k < DEEP; k++) {
            const int i = (p + k) * WARP + lane;
#pragma unroll
            for (int j = 0; j < ROWS; j++)
                w[k][j].load(a.w, row + (j < rows ? j : 0), first + (i < pieces ? i : lane), table);
        }
#pragma unroll
        for (int k = 0; k < DEEP; k++) {
            if ((p + k) * WARP + lane >= pieces)
                continue;
            add_pieces<TYPE, ROWS, N>(sum, w[k], x + (p + k) * N * V * 32 + 4 * lane);
        }
    }
}

template <int ROWS, int N>
__device__ static void put_sums(const Groups &a, float sum[][N], size_t first, int rows)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
#pragma unroll
        for (int r = 0; r < N; r++) {
            const float s = warp_sum(sum[j][r]);
            if (lane == 0 && j < rows && r < a.n)
                a.low[(size_t)r * a.w.rows + first + j] = s;
        }
    }
}

template <int TYPE> __device__ static void ask_for_rows(const Groups &a, size_t row, int rows)
{
    if (TYPE == QUANT_Q8_0 && rows > 0) {
        ask_for(a.w.q + row * a.w.cols, (size_t)rows * a.w.cols);
        ask_for(a.w.d + row * (a.w.cols / 32), (size_t)rows * (a.w.cols / 32) * sizeof(half));
    }
}

/* Block (x, y): rows of group y. */
template <int TYPE, int N> __global__ void __launch_bounds__(WARPS *WARP) group_rows(Groups a)
{
    extern __shared__ __align__(16) float x[];
    __shared__ Iq2Table table;
    enum { V = Piece<TYPE>::V, ROWS = Share<TYPE, N>::ROWS };
    const int group = blockIdx.y, slice = STAGED / N / SLICE * SLICE;
    const int j = (blockIdx.x * WARPS + threadIdx.x / WARP) * ROWS; /* of the group's rows */
    const int rows = min(ROWS, a.rank - j);
    const size_t first = (size_t)group * a.rank + j;
    float sum[ROWS][N] = {};

    let_others_start();
    if (threadIdx.x % WARP == 0)
        ask_for_rows<TYPE>(a, first, rows);
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&table, a.grid);
    wait_for_others();
    for (int from = 0; from < a.w.cols; from += slice) {
        const int width = min(slice, a.w.cols - from);
        __syncthreads();
        stage<N, V>(x, a, group, from, width);
        __syncthreads();
        if (rows > 0)
            walk<TYPE, N>(sum, a, first, rows, from / V, width / V, x, &table);
    }
    if (rows > 0)
        put_sums<ROWS, N>(a, sum, first, rows);
}

/* Columns that are no whole blocks of 32: toys. A warp a row. */
__global__ void group_rows_plain(Groups a)
{
    wait_for_others();
    const int lane = threadIdx.x % WARP, group = blockIdx.y;
    const int j = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (j >= a.rank)
        return;
    const size_t row = (size_t)group * a.rank + j;
    for (int r = 0; r < a.n; r++) {
        const float *o = a.o + ((size_t)r * a.groups + group) * a.w.cols;
        float sum = 0;
        for (int i = lane; i < a.w.cols; i += WARP)
            sum += plain_value(a.w, row * a.w.cols + i) * o[i];
        sum = warp_sum(sum);
        if (lane == 0)
            a.low[(size_t)r * a.w.rows + row] = sum;
    }
}

template <int TYPE, int N> static void launch_groups(Cuda *c, const Groups &a)
{
    const int unit = Piece<TYPE>::V * WARP, width = MIN(STAGED / N / SLICE * SLICE, a.w.cols);
    const int bytes = N * ((width + unit - 1) / unit * unit) * (int)sizeof(float);
    const int per = WARPS * Share<TYPE, N>::ROWS;
    NOTE(c, cudaFuncSetAttribute(group_rows<TYPE, N>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 bytes));
    LAUNCH(c, (group_rows<TYPE, N>), dim3((a.rank + per - 1) / per, a.groups), WARPS * WARP, bytes,
           a);
}

template <int TYPE> static void groups_of(Cuda *c, const Groups &a)
{
    if (a.n == 1)
        launch_groups<TYPE, 1>(c, a);
    else if (a.n <= 4)
        launch_groups<TYPE, 4>(c, a);
    else
        launch_groups<TYPE, 16>(c, a);
}

static void few_groups(Cuda *c, const Groups &a)
{
    if (a.w.cols % 32) {
        LAUNCH(c, group_rows_plain, dim3((a.rank + WARPS - 1) / WARPS, a.groups), WARPS * WARP, 0,
               a);
        return;
    }
    switch (a.w.type) {
#define GROUPS_OF(type) \
    case type: groups_of<type>(c, a); break;
        FORMATS(GROUPS_OF)
#undef GROUPS_OF
    }
}

/* ---- many rows ------------------------------------------------------------------------- */

/* The groups are matrices of their own: the same bytes, counted otherwise. */
static void each_group(Cuda *c, const Groups &a, const Weight *o_a)
{
    DevWeight d = a.w;
    Weight w = *o_a;

    d.rows = w.rows = a.rank;
    d.count = w.count = a.groups;
    w.data = Buf{ &d, 0 };
    for (int g = 0; g < a.groups; g++)
        dense(c, a.low + (size_t)g * a.rank, (size_t)o_a->rows, &w, g, a.o + (size_t)g * a.w.cols,
              (size_t)a.groups * a.w.cols, a.n);
}

void cuda_project(Backend *be, const Step *step, Buf y, Buf o, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    size_t used = 0;
    Groups a = {};

    a.w = *weight_of(&l->o_a);
    a.low = (float *)op_scratch(c, &used, (size_t)n * l->o_a.rows * sizeof(float));
    a.o = at<const float>(o);
    a.grid = (const uint2 *)c->iq2_grid;
    a.n = n;
    a.rank = s->o_rank;
    a.groups = s->o_groups;
    if (!a.low)
        return;
    if (c->few)
        few_groups(c, a);
    else
        each_group(c, a, &l->o_a);
    dense(c, at<float>(y), s->dim, &l->o_b, 0, a.low, l->o_a.rows, n);
}
