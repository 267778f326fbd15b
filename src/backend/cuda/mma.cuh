/* mma.cuh - tensor cores: products of 16 x 16 by 16 x 8 tiles with F32 sums, and how their
 * parts come from shared memory.
 *
 * Of lane l with g = l / 4 and t = l % 4: a has rows g and g + 8, columns 2t, 2t+1 and
 * those + 8 (a[0] row g, a[1] row g + 8, a[2], a[3] the same of the second eight); b has
 * rows 2t, 2t+1 and those + 8 of column g; c has rows g (c[0], c[1]) and g + 8, columns 2t
 * and 2t+1. Which of the inner 16 is which does not matter as long as a and b agree. */
#ifndef MMA_CUH
#define MMA_CUH
#include "internal.cuh"

__device__ static inline void mma_f16(float *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ static inline void mma_bf16(float *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 tiles of halfs; lane l names row l % 8 of tile l / 8. */
__device__ static inline void load_tiles(unsigned *r, const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ static inline void load_tiles_turned(unsigned *r, const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* Eight bytes to shared memory, on their way until copies_wait. */
__device__ static inline void copy_eight(void *shared, const void *global)
{
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(global) : "memory");
}
__device__ static inline void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/* ---- packed values in pairs ----------------------------------------------------------- */

/* Two halfs or BF16 times a factor each. */
__device__ static inline unsigned times_f16(unsigned pair, unsigned factor)
{
    unsigned r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(pair), "r"(factor));
    return r;
}
__device__ static inline unsigned times_bf16(unsigned pair, unsigned factor)
{
    unsigned r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(pair), "r"(factor), "r"(0x80008000u));
    return r;
}

/* E4M3 codes in bits 8..15 and 24..31 as halfs times 2^-8, exactly. */
__device__ static inline unsigned e4m3_to_f16(unsigned codes)
{
    return (codes >> 1 & 0x3f803f80) | (codes & 0x80008000);
}
/* As BF16, exactly. */
__device__ static inline unsigned e4m3_to_bf16(unsigned codes)
{
    const unsigned scaled = (codes >> 4 & 0x07f007f0) | (codes & 0x80008000);
    return times_bf16(scaled, 0x7b807b80); /* 2^120: the exponents' difference */
}

/* The upper halves of two words: BF16 of floats that have no more bits. */
__device__ static inline unsigned upper_halves(unsigned low, unsigned high)
{
    return __byte_perm(low, high, 0x7632);
}

/* A pair of floats as three pairs of BF16 whose sum they are, to the last bit. */
__device__ static inline void split3(unsigned *p0, unsigned *p1, unsigned *p2, float x, float y)
{
    const unsigned mask = 0xffff0000;
    const unsigned x0 = __float_as_uint(x) & mask, y0 = __float_as_uint(y) & mask;
    const float rx = x - __uint_as_float(x0), ry = y - __uint_as_float(y0);
    const unsigned x1 = __float_as_uint(rx) & mask, y1 = __float_as_uint(ry) & mask;
    const float sx = rx - __uint_as_float(x1), sy = ry - __uint_as_float(y1);
    *p0 = upper_halves(x0, y0);
    *p1 = upper_halves(x1, y1);
    *p2 = upper_halves(__float_as_uint(sx), __float_as_uint(sy));
}

#endif
