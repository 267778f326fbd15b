/* attend.cuh - what the kernels of attention share: the rows that a query sees. */
#ifndef ATTEND_CUH
#define ATTEND_CUH
#include "kvrow.cuh"

struct Attend {
    StepAt b;
    const float *q, *sinks; /* [rows][n_heads][dim], [n_heads] */
    float *o;               /* as q */
    const uint8_t *ring, *comp;
    const int *pick; /* [rows][topk]; NULL: every visible pooled row */
    KvRowFormat row;
    int ring_rows, comp_rows, ratio, window, topk, n_rows, n_heads, kind;
    float scale;
};

/* attend_few.cu: few rows of Flash's heads, in F32. n_most: rows that a query sees at most. */
enum { MOST_PICKS = 1024 };
size_t attend_few_bytes(int rows, int n_heads, int n_most);
void attend_few(Cuda *c, const Attend *a, int n_most, void *scratch);
/* attend_many.cu: rounded to F16. */
void attend_many(Cuda *c, const Attend *a);
/* What both take: packed rows of 448 FP8 values and 64 rotated ones, and not too many picks. */
static inline bool attend_tiles_fit(const Attend *a, int heads)
{
    return a->row.packed && a->row.dim == 512 && a->row.rope == 64 && a->row.block == 64 &&
           a->n_heads % heads == 0 && a->topk <= MOST_PICKS;
}

#ifdef __CUDACC__
/* What one row sees: positions from.. of the window, then pooled rows; n in all. */
struct View {
    const uint8_t *ring, *comp;
    const int *pick;
    int from, n_window, n, ring_rows, bytes;
};

/* By all threads of a block, with a barrier at the end. picks: room for topk of them in shared
 * memory, or NULL. The indexer leaves topk picks where so many rows are visible, else all. */
__device__ static inline View view_of(const Attend &a, int row, int *picks)
{
    const RowAt at = a.b.row[row];
    const int visible = a.ratio ? (at.pos + 1) / a.ratio : 0;
    int pooled = visible;
    View v;

    v.bytes = a.row.bytes;
    v.ring_rows = a.ring_rows;
    v.ring = a.ring + (size_t)at.slot * a.ring_rows * v.bytes;
    v.comp = a.comp + (size_t)at.slot * a.comp_rows * v.bytes;
    v.from = max(0, at.pos - a.window + 1);
    v.n_window = at.pos - v.from + 1;
    v.pick = NULL;
    if (a.pick) {
        v.pick = a.pick + (size_t)row * a.topk;
        pooled = min(visible, a.topk);
    }
    if (a.pick && picks) {
#pragma unroll 4
        for (int i = threadIdx.x; i < a.topk; i += blockDim.x)
            picks[i] = v.pick[i];
        v.pick = picks;
    }
    v.n = v.n_window + pooled;
    __syncthreads();
    return v;
}

__device__ static inline const uint8_t *view_row(const View &v, int i)
{
    if (i < v.n_window)
        return v.ring + (size_t)((v.from + i) % v.ring_rows) * v.bytes;
    const int j = i - v.n_window;
    return v.comp + (size_t)(v.pick ? v.pick[j] : j) * v.bytes;
}
#endif

#endif
