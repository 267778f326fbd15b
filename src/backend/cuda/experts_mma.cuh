/* experts_mma.cuh - instructions of the experts beside those of mma.cuh. */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH
#include "mma.cuh"

/* Sixteen bytes to shared memory, past the L1 cache, on their way until copies_wait. */
__device__ static inline void copy_sixteen(void *shared, const void *global)
{
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

/* A place in shared memory, short. */
typedef unsigned SharedAt;
__device__ static inline SharedAt shared_at(const void *p)
{
    return (SharedAt)__cvta_generic_to_shared(p);
}

/* Sixteen bytes of it, where the lane wants them; else v stays. */
__device__ static inline void load_if(uint4 *v, bool wanted, SharedAt at)
{
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %4, 0;\n"
                 "@p ld.shared.v4.u32 {%0,%1,%2,%3}, [%5]; }"
                 : "+r"(v->x), "+r"(v->y), "+r"(v->z), "+r"(v->w)
                 : "r"((unsigned)wanted), "r"(at)
                 : "memory");
}

/* c = c + a . b of int8, 16 x 32 by 32 x 8. Of lane l with g = l / 4 and t = l % 4: a[0] and
 * a[1] are four values each of rows g and g + 8 at k = 4t .., a[2] and a[3] those at
 * 16 + 4t ..; b0 and b1 the same k of column g; c as in mma_f16. */
__device__ static inline void mma_s8(int *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* The same of a's values 0 .. 255. */
__device__ static inline void mma_u8(int *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* c = a . b */
__device__ static inline void mma_s8_first(int *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}

__device__ static inline void mma_u8_first(int *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}

#endif
