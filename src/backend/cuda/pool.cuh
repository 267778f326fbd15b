/* pool.cuh - pooling `ratio` positions into one row: of attention (compress) and of the
 * indexer (idx_row).
 *
 * Where a row's position closes a group its block pools the group, every dimension with a
 * softmax of its own, norms, rotates and packs the row; elsewhere it has nothing to do, so
 * launches do not depend on positions. Tokens come from the step, and from the ring what came
 * before it; only then does the ring take the step's last tokens. A step that has one row of
 * each session does that in the same launch: its token's place holds what no group needs. */
#ifndef POOL_CUH
#define POOL_CUH
#include "kvrow.cuh"

struct Pooling {
    StepAt b;
    const float *in_kv, *in_score; /* [rows][width] of the step, score without embedding */
    float *state_kv, *state_score; /* [slot][state_rows][width], score with it */
    const float *ape, *norm, *freq;
    uint8_t *out; /* [slot][comp_rows] */
    int dim, width, ratio, state_rows, comp_rows, pairs;
    bool overlap, index, keeps;
    float eps;
    KvRowFormat row;
    IdxRowFormat idx_row;
};

/* ---- inputs --------------------------------------------------------------------------- */

__device__ static size_t state_at(const Pooling &a, const Span &s, int pos)
{
    return ((size_t)s.slot * a.state_rows + pos % a.state_rows) * a.width;
}

__device__ static size_t input_at(const Pooling &a, const Span &s, int pos)
{
    return (size_t)(s.row + pos - s.pos) * a.width;
}

/* Column d of a group's token, of those of the group before its own the first half. */
struct Tokens {
    int from, own, end; /* positions from..end-1; the group's from own on */
};

__device__ static int column_of(const Pooling &a, const Tokens &t, int pos, int d)
{
    return a.overlap && pos >= t.own ? a.dim + d : d;
}

/* A token of the ring, and one of the step. */
__device__ static float old_score(const Pooling &a, const Span &s, const Tokens &t, int pos, int d)
{
    return a.state_score[state_at(a, s, pos) + column_of(a, t, pos, d)];
}

__device__ static float new_score(const Pooling &a, const Span &s, const Tokens &t, int pos, int d)
{
    const int i = column_of(a, t, pos, d);
    return a.in_score[input_at(a, s, pos) + i] + a.ape[(size_t)(pos % a.ratio) * a.width + i];
}

/* ---- one pooled row ---------------------------------------------------------------------- */

/* Loops have no branches, so that several tokens' loads are on their way at once. */
__device__ static float pooled(const Pooling &a, const Span &s, const Tokens &t, int d)
{
    const int here = min(max(s.pos, t.from), t.end); /* the step's tokens */
    float most = -INFINITY, sum = 0, out = 0;
#pragma unroll 8
    for (int pos = t.from; pos < here; pos++)
        most = fmaxf(most, old_score(a, s, t, pos, d));
#pragma unroll 8
    for (int pos = here; pos < t.end; pos++)
        most = fmaxf(most, new_score(a, s, t, pos, d));
#pragma unroll 8
    for (int pos = t.from; pos < here; pos++) {
        const float e = expf(old_score(a, s, t, pos, d) - most);
        sum += e;
        out += e * a.state_kv[state_at(a, s, pos) + column_of(a, t, pos, d)];
    }
#pragma unroll 8
    for (int pos = here; pos < t.end; pos++) {
        const float e = expf(new_score(a, s, t, pos, d) - most);
        sum += e;
        out += e * a.in_kv[input_at(a, s, pos) + column_of(a, t, pos, d)];
    }
    return out / sum;
}

/* Orthonormal, in Sylvester order, as quant/kvrow.c. Barriers around every round. */
__device__ static void hadamard_row(float *x, int n)
{
    for (int half = 1; half < n; half *= 2) {
        __syncthreads();
        for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
            float *p = x + i / half * 2 * half + i % half;
            const float sum = p[0] + p[half], difference = p[0] - p[half];
            p[0] = sum;
            p[half] = difference;
        }
    }
    __syncthreads();
    const float norm = (float)(1 / sqrt((double)n));
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        x[i] *= norm;
}

/* x: dim values and the turn of its pairs, in shared memory. */
__device__ static void pool_group(const Pooling &a, const Span &s, int group, float *x, float *part)
{
    float *turn = x + a.dim;
    Tokens t = { group * a.ratio, group * a.ratio, (group + 1) * a.ratio };
    if (a.overlap && group > 0)
        t.from -= a.ratio;

    for (int d = threadIdx.x; d < a.dim; d += blockDim.x)
        x[d] = pooled(a, s, t, d);
    for (int i = threadIdx.x; i < a.pairs; i += blockDim.x) {
        const float angle = (float)t.own * a.freq[i];
        double sine, cosine;
        sincos((double)angle, &sine, &cosine);
        turn[2 * i] = (float)cosine;
        turn[2 * i + 1] = (float)sine;
    }
    norm_row(x, a.norm, a.dim, a.eps, part);
    __syncthreads();
    turn_tail(x + a.dim - 2 * a.pairs, turn, a.pairs);
    if (a.index)
        hadamard_row(x, a.dim);
    __syncthreads();
    const size_t to = (size_t)s.slot * a.comp_rows + group;
    if (a.index)
        pack_idx_row(a.idx_row, a.out + to * a.idx_row.bytes, x);
    else
        pack_kv_row(a.row, a.out + to * a.row.bytes, x);
}

/* One token's inputs into the ring. */
__device__ static void keep_input(const Pooling &a, const Span &s, int pos)
{
    const float *ape = a.ape + (size_t)(pos % a.ratio) * a.width;
    const size_t from = input_at(a, s, pos), to = state_at(a, s, pos);
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) {
        a.state_kv[to + i] = a.in_kv[from + i];
        a.state_score[to + i] = a.in_score[from + i] + ape[i];
    }
}

/* A block: row number `row` of the step. */
__device__ static void pool_row(const Pooling &a, int row, float *x, float *part)
{
    const RowAt at = a.b.row[row];
    const Span s = a.b.span[at.span];
    const int group = at.pos / a.ratio;
    if ((at.pos + 1) % a.ratio == 0 && group < a.comp_rows)
        pool_group(a, s, group, x, part);
    if (a.keeps)
        keep_input(a, s, at.pos);
}

#endif
