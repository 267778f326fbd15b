/* attn_out.cu - heads back to the model's width: each group of heads through its own rows
 * of o_a, then all of them through o_b.
 *
 * Few rows: all groups in one launch, 35 MB of weights for Flash. A block has rows of one
 * group; its inputs are staged in shared memory, a slice of columns at a time; a warp
 * takes ROWS output rows, a lane blocks of 32 values of them. An output is summed in an
 * order of its own, whatever other rows there are. */
#include "formats.cuh"

enum {
    WARPS = 8,
    ROWS = 2,       /* of o_a, a warp */
    SLICE = 1024,   /* columns staged are a multiple of these: 32 a lane */
    STAGED = 16384, /* values staged at most */
    PADDED = 36     /* places of 32 staged values: lanes read four each without conflicts */
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

/* Columns [from, from + width) of a group's inputs of all N rows; beyond n zeros. */
template <int N>
__device__ static void stage(float *x, const Groups &a, int group, int from, int width)
{
    const int quads = width / 4;
    for (int i = threadIdx.x; i < N * quads; i += blockDim.x) {
        const int r = i / quads, k = i % quads * 4;
        const size_t at = ((size_t)r * a.groups + group) * a.w.cols + from + k;
        const float4 v = r < a.n ? *(const float4 *)(a.o + at) : make_float4(0, 0, 0, 0);
        *(float4 *)(x + (r * (width / 32) + k / 32) * PADDED + k % 32) = v;
    }
}

/* sum[r] += block b of an output row times that of each row. */
template <int N>
__device__ static void add_block(float *sum, const float *w, const float *x, int b, int blocks)
{
#pragma unroll
    for (int r = 0; r < N; r++) {
        const float4 *v = (const float4 *)(x + (r * blocks + b) * PADDED);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float4 q = v[k];
            sum[r] += w[4 * k] * q.x;
            sum[r] += w[4 * k + 1] * q.y;
            sum[r] += w[4 * k + 2] * q.z;
            sum[r] += w[4 * k + 3] * q.w;
        }
    }
}

template <int N>
__device__ static void put_sums(const Groups &a, float sum[ROWS][N], size_t first, int rows)
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

template <int TYPE, int N> __global__ void __launch_bounds__(WARPS *WARP) group_rows(Groups a)
{
    extern __shared__ __align__(16) float x[];
    __shared__ Iq2Table table;
    const int lane = threadIdx.x % WARP, group = blockIdx.y;
    const int j = (blockIdx.x * WARPS + threadIdx.x / WARP) * ROWS; /* of the group's rows */
    const int rows = min(ROWS, a.rank - j), slice = STAGED / N / SLICE * SLICE;
    const size_t first = (size_t)group * a.rank + j;
    float sum[ROWS][N] = {};

    let_others_start();
    if (TYPE == QUANT_IQ2_XXS)
        iq2_fill(&table, a.grid);
    wait_for_others();
    for (int from = 0; from < a.w.cols; from += slice) {
        const int width = min(slice, a.w.cols - from), blocks = width / 32;
        __syncthreads();
        stage<N>(x, a, group, from, width);
        __syncthreads();
#pragma unroll 2
        for (int b = lane; b < blocks; b += WARP) {
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                float w[32];
                if (k >= rows)
                    continue;
                Block32<TYPE>::get(a.w, first + k, from / 32 + b, w, &table);
                add_block<N>(sum[k], w, x, b, blocks);
            }
        }
    }
    put_sums<N>(a, sum, first, rows);
}

/* Columns that are no whole blocks of 32: toys. A warp a row. */
__device__ static float weight_value(const DevWeight &d, size_t i)
{
    return d.type == QUANT_F32   ? ((const float *)d.q)[i]
           : d.type == QUANT_F16 ? __half2float(((const half *)d.q)[i])
                                 : __bfloat162float(((const __nv_bfloat16 *)d.q)[i]);
}
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
            sum += weight_value(a.w, row * a.w.cols + i) * o[i];
        sum = warp_sum(sum);
        if (lane == 0)
            a.low[(size_t)r * a.w.rows + row] = sum;
    }
}

template <int TYPE, int N> static void launch_groups(Cuda *c, const Groups &a)
{
    const int width = MIN(STAGED / N / SLICE * SLICE, a.w.cols);
    const int bytes = N * (width / 32) * PADDED * (int)sizeof(float), per = WARPS * ROWS;
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
