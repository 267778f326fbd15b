/* hc.cuh - what the kernels of hyper-connections share.
 *
 * hc_pre needs, of a row's flattened streams, dots with 24 rows of weights and the sum of
 * squares: these come as parts, part [row][MIX_OUT][parts], the sum of squares last. From
 * them a row's 1 / rms, its weights for the collapse and its mixture. */
#ifndef HC_CUH
#define HC_CUH
#include "formats.cuh"

enum {
    MIX_OUT = N_MIX + 1,
    MIX_VALUES = N_STREAMS + N_STREAMS * N_STREAMS,
    ROW_THREADS = 512, /* of a block that collapses a row */
    VECS = 2           /* fours of dimensions that such a thread keeps: all of 4,096 */
};

struct Mixing {
    int dim, iterations;
    float per_dim, norm_eps, hc_eps; /* per_dim: 1 / dim */
    const float *scale, *base, *norm;
};

/* The hc_post that comes before the dots, in the same kernel. */
struct Post {
    const float *y, *mix; /* [rows][dim], [rows][MIX_VALUES] */
};

/* hc_many.cu: more rows than MANY_FROM, on tensor cores. post.y NULL: none is to be done. */
enum { MANY_FROM = 64 };
bool hc_many_fits(const DevWeight *w, int dim, int n);
size_t hc_many_bytes(int n);
void hc_many(Cuda *c, float *x, float *mix, float *streams, const Post *post, const DevWeight *w,
             const Mixing *a, float *part, int n);

#ifdef __CUDACC__
/* New stream k at one dimension, from the old ones; m: post, then comb. */
__device__ static inline float mixed(const float *m, int k, float y, const float *old)
{
    float out = m[k] * y;
#pragma unroll
    for (int j = 0; j < N_STREAMS; j++)
        out = fmaf(m[N_STREAMS + j * N_STREAMS + k], old[j], out);
    return out;
}

__device__ static inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* To one unit in the last place. */
__device__ static inline float reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* 1 / rms of values with this mean square. */
__device__ static inline float rms_of(float mean_sq, float eps)
{
    const float v = mean_sq + eps, r = rsqrtf(v);
    return v > 0 ? r * (1.5f - 0.5f * v * r * r) : r;
}
/* Of a row's streams, from m. */
__device__ static inline float rms_of_streams(float sum_sq, const Mixing &a)
{
    return rms_of(sum_sq * a.per_dim / N_STREAMS, a.norm_eps);
}

/* ---- the mixture ----------------------------------------------------------------- */

/* Over the 4 of a row of the matrix that lanes 0..15 hold, lane 4 j + k: from old stream j
 * to new stream k. */
__device__ static inline float row_sum(float v)
{
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}
__device__ static inline float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
    return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}

/* Four lines of four values STEP apart, NEXT apart themselves: each divided by its sum. */
template <int STEP, int NEXT> __device__ static inline void normalize(float *c, float eps)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *v = c + i * NEXT;
        const float sum = (v[0] + v[STEP]) + (v[2 * STEP] + v[3 * STEP]) + eps;
        const float inverse = reciprocal(sum);
#pragma unroll
        for (int k = 0; k < 4; k++)
            v[k * STEP] *= inverse;
    }
}

/* What a lane multiplies its dots with and adds, for hc_post's mixture: weights, asked for
 * before the dots are there, as memory may be all they are in. */
struct MixAffine {
    float post_scale, post_base, comb_scale, comb_base;
};
__device__ static inline MixAffine mix_affine(const Mixing &a)
{
    const int lane = threadIdx.x % WARP;
    return { __ldg(a.scale + 1), __ldg(a.base + N_STREAMS + lane % N_STREAMS), __ldg(a.scale + 2),
             __ldg(a.base + 2 * N_STREAMS + lane % 16) };
}

/* What hc_post will need, from m and the row's 1 / rms: by a warp. After the softmax every
 * lane has the whole matrix: a chain of 39 normalizations waits for no other lane. */
__device__ static inline void put_mix(float *mix, const float *m, float r, const Mixing &a,
                                      const MixAffine &by)
{
    const int lane = threadIdx.x % WARP;
    const float z = m[2 * N_STREAMS + lane % 16] * r * by.comb_scale + by.comb_base;
    const float e = expf(z - row_max(z)), mine = e / row_sum(e) + a.hc_eps;
    float c[16];
#pragma unroll
    for (int k = 0; k < 16; k++)
        c[k] = __shfl_sync(~0u, mine, k);
    normalize<4, 1>(c, a.hc_eps);
#pragma unroll 1
    for (int k = 1; k < a.iterations; k++) {
        normalize<1, 4>(c, a.hc_eps);
        normalize<4, 1>(c, a.hc_eps);
    }
    if (lane < N_STREAMS)
        mix[lane] = 2 * sigmoid(m[N_STREAMS + lane] * r * by.post_scale + by.post_base);
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (lane == k)
            *(float4 *)(mix + N_STREAMS + 4 * k) =
                make_float4(c[4 * k], c[4 * k + 1], c[4 * k + 2], c[4 * k + 3]);
}

/* ---- the collapse ------------------------------------------------------------------ */

/* What a thread has of the collapse's inputs, where VECS fours a thread are enough: the
 * norm's and the streams' weights come first, then the streams, which need no dots. */
struct Kept {
    float scale, base; /* of stream threadIdx.x % N_STREAMS */
    float4 norm[VECS], v[VECS][N_STREAMS];
};

__device__ static inline bool keeps(const Mixing &a)
{
    return a.dim % 4 == 0 && a.dim <= 4 * VECS * (int)blockDim.x;
}

__device__ static inline void keep_weights(Kept *s, const Mixing &a)
{
    s->scale = __ldg(a.scale);
    s->base = __ldg(a.base + threadIdx.x % N_STREAMS);
#pragma unroll
    for (int k = 0; k < VECS; k++) {
        const int i = threadIdx.x + k * blockDim.x;
        s->norm[k] = keeps(a) && 4 * i < a.dim ? __ldg((const float4 *)a.norm + i) : float4{};
    }
}

__device__ static inline void keep_streams(Kept *s, const float *streams, const Mixing &a)
{
#pragma unroll
    for (int k = 0; k < VECS; k++) {
        const int i = threadIdx.x + k * blockDim.x;
        const bool there = keeps(a) && 4 * i < a.dim;
#pragma unroll
        for (int j = 0; j < N_STREAMS; j++)
            s->v[k][j] = there ? *((const float4 *)(streams + (size_t)j * a.dim) + i) : float4{};
    }
}

/* weight [N_STREAMS] of the collapse, from m and the row's 1 / rms: one thread a stream. */
__device__ static inline void put_weight(float *weight, const float *m, float r, const Mixing &a,
                                         const Kept &kept)
{
    if (threadIdx.x < N_STREAMS)
        weight[threadIdx.x] = sigmoid(m[threadIdx.x] * r * kept.scale + kept.base) + a.hc_eps;
}

__device__ static inline float sum_of_block(float v, float *part)
{
    const int lane = threadIdx.x % WARP, n = blockDim.x / WARP;
    v = warp_sum(v);
    if (lane == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    return warp_sum(lane < n ? part[lane] : 0);
}

/* Larger rows, or those that are no whole fours: x is written, read and written again. */
__device__ static inline void collapse_plain(float *x, const float *streams, const float *weight,
                                             const Mixing &a, float *part)
{
    float sum = 0;
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float one = weight[0] * streams[i];
        for (int j = 1; j < N_STREAMS; j++)
            one += weight[j] * streams[(size_t)j * a.dim + i];
        x[i] = one;
        sum += one * one;
    }
    const float r = rms_of(sum_of_block(sum, part) * a.per_dim, a.norm_eps);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x)
        x[i] *= r * a.norm[i];
}

/* x = rms(sum_k weight_k stream_k) * norm; all threads of the block, part: 32 floats. */
__device__ static inline void collapse(float *x, const Kept &kept, const float *streams,
                                       const float *weight, const Mixing &a, float *part)
{
    float4 v[VECS];
    float sum = 0;
    if (!keeps(a)) {
        collapse_plain(x, streams, weight, a, part);
        return;
    }
#pragma unroll
    for (int k = 0; k < VECS; k++) {
        v[k] = float4{};
#pragma unroll
        for (int j = 0; j < N_STREAMS; j++) {
            v[k].x += weight[j] * kept.v[k][j].x;
            v[k].y += weight[j] * kept.v[k][j].y;
            v[k].z += weight[j] * kept.v[k][j].z;
            v[k].w += weight[j] * kept.v[k][j].w;
        }
        sum += (v[k].x * v[k].x + v[k].y * v[k].y) + (v[k].z * v[k].z + v[k].w * v[k].w);
    }
    const float r = rms_of(sum_of_block(sum, part) * a.per_dim, a.norm_eps);
#pragma unroll
    for (int k = 0; k < VECS; k++) {
        const int i = threadIdx.x + k * blockDim.x;
        const float4 w = kept.norm[k];
        if (4 * i < a.dim)
            ((float4 *)x)[i] =
                make_float4(v[k].x * r * w.x, v[k].y * r * w.y, v[k].z * r * w.z, v[k].w * r * w.w);
    }
}
#endif
#endif
