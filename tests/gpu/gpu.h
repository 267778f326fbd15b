/* gpu.h - what the tests of the CUDA backend share: is there a GPU at all, and
 * memory that held something else before. */
#ifndef GPU_H
#define GPU_H
#include "../../src/engine/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <cuda_runtime_api.h>

/* Without a GPU a test is skipped, and the reason printed. */
static inline bool gpu_is_there(void)
{
    ds4_err err = { 0 };
    uint64_t bytes = 0;
    bool mapped;

    if (backend_memory("cuda", &bytes, &mapped, &err))
        return true;
    print_message("skipped: %s\n", err.msg);
    return false;
}

#define NEED_GPU() \
    do { \
        if (!gpu_is_there()) \
            skip(); \
    } while (0)

/* The device's allocator gives freed memory again as it was: what a kernel reads before it
 * was written is not zero by luck, but no number. */
static inline void poison_memory(void)
{
    enum { PIECES = 64 };
    static const size_t sizes[] = { 64 << 10, 1 << 20, 32 << 20 };

    for (size_t k = 0; k < COUNT(sizes); k++) {
        void *p[PIECES] = { 0 };
        for (int i = 0; i < PIECES; i++)
            if (cudaMalloc(&p[i], sizes[k]) == cudaSuccess)
                cudaMemset(p[i], 0xff, sizes[k]);
        cudaDeviceSynchronize();
        for (int i = 0; i < PIECES; i++)
            cudaFree(p[i]);
    }
    cudaGetLastError();
}

static inline double seconds(void) { return (double)clock_ns() / 1e9; }

#endif
