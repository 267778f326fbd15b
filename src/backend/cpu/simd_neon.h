/* simd_neon.h - what the NEON kernels are written with. */
#ifndef SIMD_NEON_H
#define SIMD_NEON_H
#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

/* Before loops over arrays of vectors: left as loops they keep them in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#endif
