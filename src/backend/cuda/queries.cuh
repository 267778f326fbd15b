/* queries.cuh - the indexer's queries: rotated, put through Hadamard and rounded to FP4.
 *
 * A warp has a head of IDX_DIM values in registers, and leaves halfs where tensor cores want
 * them: codes relative to the head's largest power of two. */
#ifndef QUERIES_CUH
#define QUERIES_CUH
#include "kvrow.cuh"

enum { IDX_DIM = 128, TILE_HEADS = 16 };

struct Queries {
    const float *q; /* [rows][heads][IDX_DIM] */
    float *w;       /* [rows][heads]: times scale */
    half *frag;     /* [rows][heads / 16][IDX_DIM / 16][lane][8] */
    float *power;   /* [rows][heads]: what a head's halfs are to be multiplied with */
    int heads, pairs;
    float scale;
};

#ifdef __CUDACC__
/* Where dimension d of head h is among the halfs of its row: lane t of four has block t of
 * 32, of a word of eight codes numbers k and k + 4 are a pair (see word_pairs). */
__device__ static inline size_t frag_at(int h, int d)
{
    const int in = h % TILE_HEADS, t = d / 32, j = d % 32 / 8, r = d % 8;
    const int step = 2 * j + r % 4 / 2, lane = in % 8 * 4 + t, reg = in / 8 + 2 * (r % 2);
    return (((size_t)(h / TILE_HEADS) * (IDX_DIM / 16) + step) * WARP + lane) * 8 + reg * 2 + r / 4;
}

/* 2^-n; 0 far below a half's. */
__device__ static inline float lower_by(unsigned n)
{
    return n < 100 ? __uint_as_float((127 - n) << 23) : 0;
}

/* A head in registers: dimension 32 b + lane is x[b]. */
enum { EACH = IDX_DIM / 32 };

/* Dimensions from nope on turned in pairs, whose other half is a neighbour's. */
__device__ static inline void turn_head(float x[EACH], const float *turn, int nope)
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int b = 0; b < EACH; b++) {
        const float other = __shfl_xor_sync(~0u, x[b], 1);
        const int at = 32 * b + lane - nope;
        if (at < 0)
            continue;
        const float2 t = *(const float2 *)(turn + at / 2 * 2);
        const float2 r = lane % 2 ? turned(other, x[b], t.x, t.y) : turned(x[b], other, t.x, t.y);
        x[b] = lane % 2 ? r.y : r.x;
    }
}

/* Orthonormal, in Sylvester order. */
__device__ static inline void hadamard_head(float x[EACH])
{
    const int lane = threadIdx.x % WARP;
    const float norm = 0.08838834764831845f; /* 1 / sqrt(IDX_DIM) */
#pragma unroll
    for (int half_ = 1; half_ < WARP; half_ *= 2) {
#pragma unroll
        for (int b = 0; b < EACH; b++) {
            const float other = __shfl_xor_sync(~0u, x[b], half_);
            x[b] = lane & half_ ? other - x[b] : x[b] + other;
        }
    }
    const float a = x[0] + x[1], b = x[0] - x[1], c = x[2] + x[3], d = x[2] - x[3];
    x[0] = (a + c) * norm;
    x[1] = (b + d) * norm;
    x[2] = (a - c) * norm;
    x[3] = (b - d) * norm;
}

/* The FP4 round trip, and halfs to where tensor cores want them: a word is two dimensions
 * four apart, so neighbours at that distance put one each, of two blocks. */
__device__ static inline void put_head(half *to, float *power, const float x[EACH], int h)
{
    const int lane = threadIdx.x % WARP;
    const bool high = lane & 4;
    unsigned e[EACH], most = 0, v[EACH];
#pragma unroll
    for (int b = 0; b < EACH; b++) {
        e[b] = e8m0_code(warp_amax(__float_as_uint(x[b]), E2M1_FLOOR), E2M1_OVER);
        most = max(most, e[b]);
    }
#pragma unroll
    for (int b = 0; b < EACH; b++) {
        const float code = e2m1_value(e2m1_code(x[b] * e8m0_inverse_of(e[b])));
        v[b] = __half_as_ushort(__float2half(code * lower_by(most - e[b])));
    }
#pragma unroll
    for (int b = 0; b < EACH; b += 2) {
        const unsigned other = __shfl_xor_sync(~0u, high ? v[b] : v[b + 1], 4);
        const unsigned word = high ? other | v[b + 1] << 16 : v[b] | other << 16;
        const size_t at = frag_at(h, 32 * (b + high) + lane - 4 * high);
        *(unsigned *)(to + at) = word;
    }
    if (lane == 0)
        *power = e8m0_value(most);
}

/* Head h of a row: 512 bytes in, 256 out. turn: the row's. */
__device__ static inline void make_query(const Queries &a, int row, int h, const float *turn)
{
    const int lane = threadIdx.x % WARP;
    const size_t u = (size_t)row * a.heads + h;
    float v[EACH];
    if (lane == 0)
        a.w[u] *= a.scale;
#pragma unroll
    for (int b = 0; b < EACH; b++)
        v[b] = a.q[u * IDX_DIM + 32 * b + lane];
    turn_head(v, turn, IDX_DIM - 2 * a.pairs);
    hadamard_head(v);
    put_head(a.frag + (size_t)row * a.heads * IDX_DIM, a.power + u, v, h);
}
#endif
#endif
