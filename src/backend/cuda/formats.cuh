/* formats.cuh - values of weights on the device, a few at a time. The layouts are
 * DevWeight's (internal.cuh); the formulas those of quant/blocks.h. */
#ifndef FORMATS_CUH
#define FORMATS_CUH
#include "tiles.cuh"
#include <cuda_bf16.h>

/* The grid of IQ2_XXS: 256 entries of 8 magnitudes. Look-ups diverge, so a kernel that
 * reads the format has it in shared memory, filled by all of its threads from
 * Cuda.iq2_grid. */
struct Iq2Table {
    uint2 grid[256];
};
__device__ static inline void iq2_fill(Iq2Table *t, const uint2 *grid)
{
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        t->grid[i] = grid[i];
}

/* Eight int8 in two words -> floats times scale; signs by mask bits. */
__device__ static inline void iq2_eight(float *w, uint2 magnitudes, unsigned mask, float scale)
{
#pragma unroll
    for (int j = 0; j < 8; j++) {
        unsigned word = j < 4 ? magnitudes.x : magnitudes.y;
        float v = (float)(word >> 8 * (j % 4) & 0xff);
        w[j] = (mask >> j & 1 ? -v : v) * scale;
    }
}

/* 32 values, number b of row r (rows of all matrices counted through), as floats. */
template <int TYPE> struct Block32;

template <> struct Block32<QUANT_F32> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const float4 *p = (const float4 *)((const float *)d.q + r * d.cols + 32 * b);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float4 v = p[i];
            w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
        }
    }
};
template <> struct Block32<QUANT_F16> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const size_t at = d.tiled ? tile_at(r, 2 * b, d.cols / 16) : 2 * (r * d.cols + 32 * b);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const size_t four = d.tiled ? i / 4 * TILE_BYTES + i % 4 * 16 : 8 * i;
            const uint2 v = *(const uint2 *)(d.q + at + four);
            const half2 *h = (const half2 *)&v;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const float2 f = __half22float2(h[k]);
                w[4 * i + 2 * k] = f.x, w[4 * i + 2 * k + 1] = f.y;
            }
        }
    }
};
template <> struct Block32<QUANT_BF16> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const uint4 *p = (const uint4 *)((const __nv_bfloat16 *)d.q + r * d.cols + 32 * b);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint4 v = p[i];
            const unsigned u[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int k = 0; k < 4; k++) {
                w[8 * i + 2 * k] = __uint_as_float(u[k] << 16);
                w[8 * i + 2 * k + 1] = __uint_as_float(u[k] & 0xffff0000u);
            }
        }
    }
};
template <> struct Block32<QUANT_Q8_0> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const uint8_t *p = d.q + (d.tiled ? tile_at(r, b, d.cols / 32) : r * d.cols + 32 * b);
        const size_t at = d.tiled ? tile_scale_at(r, b, d.cols) : r * (d.cols / 32) + b;
        const float scale = __half2float(d.d[at]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int2 v = *(const int2 *)(p + i * (d.tiled ? 16 : 8));
#pragma unroll
            for (int j = 0; j < 8; j++)
                w[8 * i + j] = scale * (float)(int8_t)((j < 4 ? v.x : v.y) >> 8 * (j % 4));
        }
    }
};
template <> struct Block32<QUANT_Q2_K> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 256) + b / 8;
        const int in = b % 8, n = in / 4, j = in % 4; /* element 128 n + 32 j + 16 h + l */
        const float2 dm = __half22float2(((const half2 *)d.d)[block]);
        const uint4 *q = (const uint4 *)(d.q + block * 64 + 32 * n);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const unsigned s = d.s[block * 16 + 2 * in + h];
            const float scale = dm.x * (float)(s & 15), least = dm.y * (float)(s >> 4);
            const uint4 v = q[h];
            const unsigned u[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int l = 0; l < 16; l++)
                w[16 * h + l] = scale * (float)(u[l / 4] >> (8 * (l % 4) + 2 * j) & 3) - least;
        }
    }
};
template <> struct Block32<QUANT_Q4_K> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 256) + b / 8;
        const int j = b % 8;
        const uint8_t *s = d.s + block * 12;
        const float2 dm = __half22float2(((const half2 *)d.d)[block]);
        const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        const int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        const float scale = dm.x * (float)sc, least = dm.y * (float)mn;
        const uint4 *q = (const uint4 *)(d.q + block * 128 + 32 * (j / 2));
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint4 v = q[h];
            const unsigned u[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
            for (int l = 0; l < 16; l++)
                w[16 * h + l] =
                    scale * (float)(u[l / 4] >> (8 * (l % 4) + 4 * (j % 2)) & 15) - least;
        }
    }
};
template <> struct Block32<QUANT_IQ2_XXS> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *t)
    {
        const uint2 g = ((const uint2 *)d.q)[r * (d.cols / 32) + b];
        const float scale =
            __half2float(d.d[r * (d.cols / 256) + b / 8]) * (0.5f + (float)(g.y >> 28)) * 0.25f;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned seven = g.y >> 7 * k & 127;
            iq2_eight(w + 8 * k, t->grid[g.x >> 8 * k & 255],
                      seven | (unsigned)(__popc(seven) & 1) << 7, scale);
        }
    }
};
template <> struct Block32<QUANT_MXFP4> {
    __device__ static void get(const DevWeight &d, size_t r, int b, float *w, const Iq2Table *)
    {
        const size_t block = r * (d.cols / 32) + b;
        const uint4 v = ((const uint4 *)d.q)[block];
        const unsigned e = d.s[block], u[4] = { v.x, v.y, v.z, v.w };
        const float scale = e == 0 ? __uint_as_float(0x00400000) : __uint_as_float(e << 23);
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const unsigned code = u[i % 16 / 4] >> (8 * (i % 4) + 4 * (i / 16)) & 15, m = code & 7;
            /* 0 .5 1 1.5 2 3 4 6 */
            const float a = m < 4    ? 0.5f * (float)m
                            : m == 4 ? 2.f
                            : m == 5 ? 3.f
                            : m == 6 ? 4.f
                                     : 6.f;
            w[i] = scale * (code & 8 ? -a : a);
        }
    }
};

/* Value i of a matrix of plain numbers, for columns that are no whole blocks: toys. */
__device__ static inline float plain_value(const DevWeight &w, size_t i)
{
    switch (w.type) {
    case QUANT_F32: return ((const float *)w.q)[i];
    case QUANT_F16: return __half2float(((const half *)w.q)[i]);
    default: return __bfloat162float(((const __nv_bfloat16 *)w.q)[i]);
    }
}

/* For a switch over all formats: FORMATS(X) calls X(type) for each. */
#define FORMATS(X) \
    X(QUANT_F32) \
    X(QUANT_F16) \
    X(QUANT_BF16) X(QUANT_Q8_0) X(QUANT_Q2_K) X(QUANT_Q4_K) X(QUANT_IQ2_XXS) X(QUANT_MXFP4)

#endif
