/* kvrow.cuh - KV rows and index rows on the device: the formats of quant/kvrow.h with the
 * formulas of quant/fp8.h, and what becomes of a row before it is packed. A block of
 * threads has the row in shared memory. */
#ifndef KVROW_CUH
#define KVROW_CUH
#include "internal.cuh"

/* ---- small floats ---------------------------------------------------------------- */

__device__ static inline float e8m0_value(unsigned b)
{
    return __uint_as_float(b == 0 ? 0x00400000u : b == 255 ? 0x7fc00000u : b << 23);
}

__device__ static inline float e8m0_inverse_of(unsigned b)
{
    return __uint_as_float(b == 255 ? 0x7fc00000u : b == 254 ? 0x00400000u : (254 - b) << 23);
}

/* For the bits of the largest magnitude; over_max: 1 / the format's largest. */
__device__ static inline unsigned e8m0_code(unsigned amax, float over_max)
{
    const unsigned u = __float_as_uint(__uint_as_float(amax) * over_max) & 0x7fffffff;
    return min((u >> 23) + ((u & 0x7fffff) != 0), 255u);
}

__device__ static inline float e4m3_value(unsigned c)
{
    const unsigned sign = (c & 0x80) << 24;
    if ((c & 0x7f) == 0x7f)
        return __uint_as_float(sign | 0x7fc00000);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float((c & 0x7f) << 20) * 0x1p120f));
}

__device__ static inline unsigned e4m3_code(float f)
{
    const unsigned u = __float_as_uint(f), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
    unsigned r;
    if (a > 0x7f800000)
        r = 0x7f;
    else if (a >= 0x43e00000)
        r = 0x7e;
    else if (a >= 0x3c800000)
        r = (a + 0x7ffff + (a >> 20 & 1) - 0x3c000000) >> 20;
    else
        r = __float_as_uint(__uint_as_float(a) + 0x1p14f) - 0x46800000;
    return sign | r;
}

__device__ static inline float e2m1_value(unsigned c)
{
    const unsigned m = c & 7;
    const float a = m < 4 ? 0.5f * (float)m : m == 4 ? 2.f : m == 5 ? 3.f : m == 6 ? 4.f : 6.f;
    return c & 8 ? -a : a;
}

__device__ static inline unsigned e2m1_code(float f)
{
    const unsigned u = __float_as_uint(f), sign = u >> 28 & 8, a = u & 0x7fffffff;
    unsigned r;
    if (a >= 0x40c00000)
        r = 7;
    else if (a >= 0x3f800000)
        r = (a + 0x1fffff + (a >> 22 & 1) - 0x3f000000) >> 22;
    else
        r = __float_as_uint(__uint_as_float(a) + 0x1p22f) - 0x4a800000;
    return sign | r;
}

__device__ static inline unsigned bf16_code(float f)
{
    const unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return u >> 16 | 0x40;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

/* The largest magnitude of the warp's values, as bits: NaN is above all numbers. */
__device__ static inline unsigned warp_amax(unsigned bits, float least)
{
    return __reduce_max_sync(~0u, max(bits & 0x7fffffff, __float_as_uint(least)));
}

/* Below this a block counts as zero, and 1 / the largest code. */
#define E4M3_FLOOR 1e-4f
#define E2M1_FLOOR (6 * 0x1p-126f)
#define E4M3_OVER  (1.0f / 448)
#define E2M1_OVER  (1.0f / 6)

/* ---- rows ---------------------------------------------------------------------------- */

/* Value d of a packed or plain row. Bytes: a tail may lie at an odd place. */
__device__ static inline float kv_value(const KvRowFormat &f, const uint8_t *row, int d)
{
    if (!f.packed)
        return ((const float *)row)[d];
    const int nope = f.dim - f.rope;
    if (d < nope)
        return e8m0_value(row[nope + 2 * f.rope + d / f.block]) * e4m3_value(row[d]);
    const uint8_t *p = row + nope + 2 * (d - nope);
    return __uint_as_float((unsigned)p[0] << 16 | (unsigned)p[1] << 24);
}

__device__ static inline float idx_value(const IdxRowFormat &f, const uint8_t *row, int d)
{
    if (!f.packed)
        return ((const float *)row)[d];
    return e8m0_value(row[f.dim / 2 + d / 32]) * e2m1_value(row[d / 2] >> 4 * (d % 2));
}

/* A warp takes an FP8 block at a time, a lane up to two of its values. */
__device__ static inline void pack_kv_row(const KvRowFormat &f, uint8_t *row, const float *x)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    if (!f.packed) {
        for (int i = threadIdx.x; i < f.dim; i += blockDim.x)
            ((float *)row)[i] = x[i];
        return;
    }
    const int nope = f.dim - f.rope, blocks = nope / f.block;
    uint8_t *tail = row + nope, *scale = tail + 2 * f.rope;
    for (int b = warp; b < blocks; b += warps) {
        const float *v = x + b * f.block;
        const float v0 = lane < f.block ? v[lane] : 0, v1 = lane + 32 < f.block ? v[lane + 32] : 0;
        const unsigned largest =
            max(__float_as_uint(v0) & 0x7fffffff, __float_as_uint(v1) & 0x7fffffff);
        const unsigned e = e8m0_code(warp_amax(largest, E4M3_FLOOR), E4M3_OVER);
        const float inverse = e8m0_inverse_of(e);
        if (lane < f.block)
            row[b * f.block + lane] = (uint8_t)e4m3_code(v0 * inverse);
        if (lane + 32 < f.block)
            row[b * f.block + lane + 32] = (uint8_t)e4m3_code(v1 * inverse);
        if (lane == 0)
            scale[b] = (uint8_t)e;
    }
    for (int i = threadIdx.x; i < f.rope; i += blockDim.x) {
        const unsigned c = bf16_code(x[nope + i]);
        tail[2 * i] = (uint8_t)c;
        tail[2 * i + 1] = (uint8_t)(c >> 8);
    }
    for (int i = nope + 2 * f.rope + blocks + threadIdx.x; i < f.bytes; i += blockDim.x)
        row[i] = 0;
}

__device__ static inline void pack_idx_row(const IdxRowFormat &f, uint8_t *row, const float *x)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    if (!f.packed) {
        for (int i = threadIdx.x; i < f.dim; i += blockDim.x)
            ((float *)row)[i] = x[i];
        return;
    }
    for (int b = warp; b < f.dim / 32; b += warps) {
        const float v = x[32 * b + lane];
        const unsigned e = e8m0_code(warp_amax(__float_as_uint(v), E2M1_FLOOR), E2M1_OVER);
        const unsigned code = e2m1_code(v * e8m0_inverse_of(e));
        const unsigned next = __shfl_down_sync(~0u, code, 1);
        if (lane % 2 == 0)
            row[16 * b + lane / 2] = (uint8_t)(code | next << 4);
        if (lane == 0)
            row[f.dim / 2 + b] = (uint8_t)e;
    }
}

/* ---- before packing ---------------------------------------------------------------------- */

__device__ static inline float rms_scale(float sum_sq, int n, float eps)
{
    return 1 / sqrtf(sum_sq / (float)n + eps);
}

/* x = rms(x) * w, by the whole block; part: 32 floats. A barrier is inside, none at the end. */
__device__ static inline void norm_row(float *x, const float *w, int n, float eps, float *part)
{
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    const float scale = rms_scale(block_sum(sum, part), n, eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        x[i] = x[i] * scale * w[i];
}

/* Products and sums are joined in a way that is written out: two kernels do this, and must
 * agree to the last bit. */
__device__ static inline float squares(float4 v)
{
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, v.x * v.x)));
}

/* 1 / rms of n values, of which each of a block's first eight warps has 128, four a lane; more
 * warps, or lanes without any, have zeros. part: 8 floats. Barriers are inside. */
enum { NORM_STRIP = 128, NORM_STRIPS = 8 };
__device__ static inline float strips_scale(float4 v, int n, float eps, float *part)
{
    const int warp = threadIdx.x / WARP;
    const float mine = warp_sum(squares(v));
    if (threadIdx.x % WARP == 0 && warp < NORM_STRIPS)
        part[warp] = mine;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < NORM_STRIPS; i++)
        sum += part[i];
    __syncthreads();
    return rms_scale(sum, n, eps);
}
__device__ static inline float4 normed(float4 v, float scale, float4 w)
{
    return make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
}

/* Pair i of a tail: a turn by (cosine, sine), rounded as on the CPU: what is packed should fall
 * to the same codes. */
__device__ static inline float2 turned(float a, float b, float cosine, float sine)
{
    return make_float2(__fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine)),
                       __fadd_rn(__fmul_rn(a, sine), __fmul_rn(b, cosine)));
}

__device__ static inline void turn_tail(float *tail, const float *turn, int pairs)
{
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        const float2 r = turned(tail[2 * i], tail[2 * i + 1], turn[2 * i], turn[2 * i + 1]);
        tail[2 * i] = r.x;
        tail[2 * i + 1] = r.y;
    }
}

#endif
