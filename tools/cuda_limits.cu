/* cuda_limits: what a GPU can do, in the numbers that decide how its kernels are made.
 *
 *      make tools-cuda && build/cuda_limits [GPU]
 *
 * A decoded token is a chain of some 600 kernels that each read a few megabytes once. So:
 * what does a link of such a chain cost, launched plainly, from a graph, and from a graph
 * whose kernels start before those in front of them have ended; what does a barrier of
 * the whole GPU cost, which is the other way to order work; and how much of the memory's
 * bandwidth do reads of a few megabytes reach. For prompts: the rate of matrix products. */
#include <cooperative_groups.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN = 1000, REPEATS = 7, WARP = 32 };

#define OK(call) \
    do { \
        cudaError_t rc_ = (call); \
        if (rc_ != cudaSuccess) { \
            fprintf(stderr, "cuda_limits: %s: %s\n", #call, cudaGetErrorString(rc_)); \
            exit(1); \
        } \
    } while (0)
#define LT(call) \
    do { \
        cublasStatus_t rc_ = (call); \
        if (rc_ != CUBLAS_STATUS_SUCCESS) { \
            fprintf(stderr, "cuda_limits: %s: status %d\n", #call, (int)rc_); \
            exit(1); \
        } \
    } while (0)

static cudaStream_t stream;
static int n_sms;

/* ---- timing ----------------------------------------------------------------------- */

/* The least of some runs of `work`, in microseconds; the first ones warm up. */
template <class Work> static double least_us(Work work)
{
    cudaEvent_t from, to;
    float least = INFINITY, ms;

    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
    for (int i = 0; i < REPEATS; i++) {
        OK(cudaEventRecord(from, stream));
        work();
        OK(cudaEventRecord(to, stream));
        OK(cudaEventSynchronize(to));
        OK(cudaEventElapsedTime(&ms, from, to));
        least = i > 1 && ms < least ? ms : least;
    }
    OK(cudaEventDestroy(from));
    OK(cudaEventDestroy(to));
    return 1e3 * least;
}

/* The same of what `encode` launches, recorded once and replayed. */
template <class Encode> static double least_us_of_graph(Encode encode)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    encode();
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    const double us = least_us([&] { OK(cudaGraphLaunch(exec, stream)); });
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    return us;
}

/* early: may begin before the kernel in front of it has ended. */
template <class... Parameters, class... Arguments>
static void launch(bool early, void (*kernel)(Parameters...), int grid, int block,
                   Arguments... arguments)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute[1];

    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream;
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attribute;
    config.numAttrs = early;
    OK(cudaLaunchKernelEx(&config, kernel, arguments...));
}

__device__ static inline void wait_for_others()
{
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}

__device__ static inline void let_others_start()
{
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/* ---- links of a chain ----------------------------------------------------------------- */

/* Each thread changes one value that the kernel before has changed. */
__global__ void link(float *x)
{
    let_others_start();
    wait_for_others();
    x[blockIdx.x * blockDim.x + threadIdx.x] += 1;
}

/* The same, and what comes next is let go at the end only. */
__global__ void late_link(float *x)
{
    wait_for_others();
    x[blockIdx.x * blockDim.x + threadIdx.x] += 1;
}

static void chains(float *memory)
{
    const int grids[] = { 1, n_sms, 4 * n_sms };

    printf("\nA link of a chain of %d kernels, microseconds\n", CHAIN);
    printf("%-26s %10s %10s %14s %14s\n", "blocks of 256 threads", "stream", "graph",
           "graph, early", "early, at end");
    for (int grid : grids) {
        auto chain = [&](bool early, void (*kernel)(float *)) {
            for (int i = 0; i < CHAIN; i++)
                launch(early, kernel, grid, 256, memory);
        };
        printf("%-26d %10.2f %10.2f %14.2f %14.2f\n", grid,
               least_us([&] { chain(false, link); }) / CHAIN,
               least_us_of_graph([&] { chain(false, link); }) / CHAIN,
               least_us_of_graph([&] { chain(true, link); }) / CHAIN,
               least_us_of_graph([&] { chain(true, late_link); }) / CHAIN);
    }
}

/* ---- barriers --------------------------------------------------------------------------- */

__global__ void library_barriers(int n)
{
    cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    for (int i = 0; i < n; i++)
        grid.sync();
}

/* One counter that only grows: block 0's thread of each block adds one and waits for all. */
__global__ void counted_barriers(unsigned *count, int n)
{
    for (int i = 1; i <= n; i++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(count, 1);
            while (*(volatile unsigned *)count < (unsigned)i * gridDim.x)
                ;
            __threadfence();
        }
        __syncthreads();
    }
}

static void barriers(void *memory)
{
    unsigned *count = (unsigned *)memory;
    int n = CHAIN;
    void *library[] = { &n }, *counted[] = { &count, &n };

    printf("\nA barrier of the whole GPU, microseconds\n%-26s %10s %10s\n", "blocks x threads",
           "library", "counter");
    for (int per_sm = 1; per_sm <= 2; per_sm++) {
        for (int block = 256; block <= 1024 / per_sm; block *= 2) {
            char what[40];
            const int grid = per_sm * n_sms;
            snprintf(what, sizeof what, "%d x %d", grid, block);
            const double a = least_us([&] {
                OK(cudaLaunchCooperativeKernel((void *)library_barriers, grid, block, library, 0,
                                               stream));
            });
            const double b = least_us([&] {
                OK(cudaMemsetAsync(count, 0, sizeof *count, stream));
                OK(cudaLaunchCooperativeKernel((void *)counted_barriers, grid, block, counted, 0,
                                               stream));
            });
            printf("%-26s %10.2f %10.2f\n", what, a / CHAIN, b / CHAIN);
        }
    }
}

/* ---- reads --------------------------------------------------------------------------------- */

/* Moves n * 16 bytes. A thread owns every (grid * block)-th 16 bytes, four in flight. */
__global__ void read_all(float *out, const uint4 *p, size_t n)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned sum = 0;

    let_others_start();
    for (; i + 3 * step < n; i += 4 * step) {
        const uint4 a = __ldcs(p + i), b = __ldcs(p + i + step), c = __ldcs(p + i + 2 * step),
                    d = __ldcs(p + i + 3 * step);
        sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w;
        sum += c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; i < n; i += step)
        sum += p[i].x ^ p[i].y ^ p[i].z ^ p[i].w;
    wait_for_others();
    if (sum == 12345)
        out[threadIdx.x] += 1;
}

/* y = W x of a Q8_0 matrix, codes and scales in arrays of their own: 34 bytes for 32 values.
 * A warp owns a row; a lane has 16 codes at a time, so two lanes share a scale. x is
 * read through the caches. Weights do not depend on the kernel in front, x does. */
__global__ void q8_rows(float *y, const int8_t *q, const half *d, const float *x, int rows,
                        int cols)
{
    const int lane = threadIdx.x % WARP;
    const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;

    let_others_start();
    wait_for_others();
    if (row >= rows)
        return;
    const int4 *codes = (const int4 *)(q + (size_t)row * cols);
    const half *scale = d + (size_t)row * (cols / 32);
    const float4 *in = (const float4 *)x;
    float sum = 0;
#pragma unroll 4
    for (int i = lane; i < cols / 16; i += WARP) {
        const int4 v = __ldcs(codes + i);
        const int u[4] = { v.x, v.y, v.z, v.w };
        float part = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float4 f = in[4 * i + k];
            part += f.x * (int8_t)u[k] + f.y * (int8_t)(u[k] >> 8) + f.z * (int8_t)(u[k] >> 16) +
                    f.w * (int8_t)(u[k] >> 24);
        }
        sum += part * __half2float(scale[i / 2]);
    }
    for (int m = 16; m; m >>= 1)
        sum += __shfl_xor_sync(~0u, sum, m);
    if (lane == 0)
        y[row] = sum;
}

enum { POOL_MB = 2048 };

/* As many reads as the pool has room for, each of another place, so that none is cached. */
static void plain_reads(char *pool, float *out)
{
    static const double mb[] = { 0.5, 1, 2, 4, 8, 16, 32, 64, 512 };

    printf("\nReads of so many MB in a chain from a graph, GB/s\n%-26s", "blocks a multiprocessor");
    for (double m : mb)
        printf(" %7.1f", m);
    printf("\n");
    for (int early = 0; early < 2; early++) {
        for (int per_sm = 1; per_sm <= 8; per_sm *= 2) {
            printf("%d of 256 threads%-10s", per_sm, early ? ", early" : "");
            for (double m : mb) {
                const size_t bytes = (size_t)(m * (1 << 20));
                const int n = (int)fmin(200, POOL_MB / m);
                const double us = least_us_of_graph([&] {
                    for (int i = 0; i < n; i++)
                        launch(early, read_all, per_sm * n_sms, 256, out,
                               (const uint4 *)(pool + i * bytes), bytes / 16);
                });
                printf(" %7.0f", 1e-3 * (double)n * (double)bytes / us);
            }
            printf("\n");
        }
    }
}

static void q8_reads(char *pool, float *x, float *y)
{
    static const struct {
        const char *name;
        int rows, cols;
    } shapes[] = {
        { "kv 512 x 4096", 512, 4096 },         { "q_a 1024 x 4096", 1024, 4096 },
        { "gate 2048 x 4096", 2048, 4096 },     { "o_a 8192 x 4096", 8192, 4096 },
        { "q_b 32768 x 1024", 32768, 1024 },    { "o_b 4096 x 8192", 4096, 8192 },
        { "head 129280 x 4096", 129280, 4096 },
    };

    printf("\nQ8_0 rows times a vector, a warp a row, in a chain from a graph\n");
    printf("%-26s %8s %10s %10s %12s\n", "matrix", "MB", "us", "GB/s", "GB/s, early");
    for (auto &s : shapes) {
        const size_t values = (size_t)s.rows * s.cols, bytes = values / 32 * 34;
        const int n = (int)fmin(100, (double)((size_t)POOL_MB << 20) / (double)bytes);
        double us[2];
        for (int early = 0; early < 2; early++)
            us[early] = least_us_of_graph([&] {
                for (int i = 0; i < n; i++)
                    launch(early, q8_rows, (s.rows + 7) / 8, 256, i % 2 ? x : y,
                           (const int8_t *)(pool + i * bytes),
                           (const half *)(pool + i * bytes + values), i % 2 ? y : x, s.rows,
                           s.cols);
            });
        printf("%-26s %8.1f %10.2f %10.0f %12.0f\n", s.name, (double)bytes / 1e6, us[0] / n,
               1e-3 * n * (double)bytes / us[0], 1e-3 * n * (double)bytes / us[1]);
    }
}

static void copies(char *pool)
{
    const size_t half_pool = (size_t)POOL_MB << 19, n = (size_t)256 << 20;
    char *pinned, *paged = (char *)malloc(n);

    OK(cudaMallocHost((void **)&pinned, n));
    memset(pinned, 1, n);
    memset(paged, 1, n);
    auto rate = [&](void *to, const void *from, size_t bytes) {
        return 1e-3 * (double)bytes /
               least_us([&] { OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream)); });
    };
    printf("\nCopies, GB/s\n");
    printf("%-40s %8.0f\n", "on the device (read and written: twice)",
           rate(pool, pool + half_pool, half_pool));
    printf("%-40s %8.1f\n", "from pinned host memory", rate(pool, pinned, n));
    printf("%-40s %8.1f\n", "to pinned host memory", rate(pinned, pool, n));
    printf("%-40s %8.1f\n", "from pageable host memory", rate(pool, paged, n));
    OK(cudaFreeHost(pinned));
    free(paged);
}

/* ---- matrix products ------------------------------------------------------------------------ */

template <class T> __global__ void fill_random(T *p, size_t n)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t v = (uint32_t)i * 2654435761u;
        v = (v ^ v >> 15) * 2246822519u;
        p[i] = (T)((float)(v >> 8) / 8388608.f - 1);
    }
}

/* out [rows][n] = x [rows][k] . w [n][k] transposed: TFLOP/s. */
static double product(cublasLtHandle_t lt, cudaDataType_t type, void *w, void *x, void *out,
                      void *work, size_t work_bytes, int rows, int n, int k)
{
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t found;
    const cublasOperation_t yes = CUBLAS_OP_T;
    const float one = 1, zero = 0;
    int n_found = 0;

    LT(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &yes, sizeof yes));
    LT(cublasLtMatrixLayoutCreate(&a, type, k, n, k));
    LT(cublasLtMatrixLayoutCreate(&b, type, k, rows, k));
    LT(cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, n, rows, n));
    LT(cublasLtMatmulPreferenceCreate(&want));
    LT(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &work_bytes, sizeof work_bytes));
    LT(cublasLtMatmulAlgoGetHeuristic(lt, op, a, b, c, c, want, 1, &found, &n_found));
    if (!n_found)
        return 0;
    const double us = least_us([&] {
        for (int i = 0; i < 5; i++)
            LT(cublasLtMatmul(lt, op, &one, w, a, x, b, &zero, out, c, out, c, &found.algo, work,
                              work_bytes, stream));
    });
    cublasLtMatmulPreferenceDestroy(want);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatmulDescDestroy(op);
    return 5 * 2e-6 * rows * n * k / us;
}

static void products(char *pool)
{
    static const int shapes[][3] = {
        { 8192, 8192, 8192 }, { 2048, 32768, 1024 }, { 2048, 4096, 8192 }, { 512, 32768, 1024 },
        { 512, 4096, 8192 },  { 512, 1024, 4096 },   { 64, 32768, 1024 },  { 64, 4096, 8192 },
    };
    const size_t piece = (size_t)POOL_MB << 18; /* a quarter */
    cublasLtHandle_t lt;

    LT(cublasLtCreate(&lt));
    printf("\nMatrix products, F32 sums, random numbers, TFLOP/s\n%-26s %8s %8s\n",
           "rows x outputs x inputs", "bf16", "f16");
    for (auto &s : shapes) {
        double rate[2];
        char what[64];
        for (int f16 = 0; f16 < 2; f16++) {
            if (f16)
                fill_random<<<1024, 256, 0, stream>>>((half *)pool, piece);
            else
                fill_random<<<1024, 256, 0, stream>>>((__nv_bfloat16 *)pool, piece);
            OK(cudaGetLastError());
            rate[f16] =
                product(lt, f16 ? CUDA_R_16F : CUDA_R_16BF, pool, pool + piece, pool + 2 * piece,
                        pool + 3 * piece, (size_t)64 << 20, s[0], s[1], s[2]);
        }
        snprintf(what, sizeof what, "%d x %d x %d", s[0], s[1], s[2]);
        printf("%-26s %8.0f %8.0f\n", what, rate[0], rate[1]);
    }
    LT(cublasLtDestroy(lt));
}

int main(int argc, char **argv)
{
    const int device = argc > 1 ? atoi(argv[1]) : 0;
    cudaDeviceProp prop;
    char *pool;
    float *small;

    OK(cudaSetDevice(device));
    OK(cudaGetDeviceProperties(&prop, device));
    n_sms = prop.multiProcessorCount;
    printf("%s: compute capability %d.%d, %d multiprocessors, %.1f GB, %.0f MB L2\n", prop.name,
           prop.major, prop.minor, n_sms, (double)prop.totalGlobalMem / 1e9,
           prop.l2CacheSize / 1e6);
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaMalloc((void **)&pool, (size_t)POOL_MB << 20));
    OK(cudaMalloc((void **)&small, (size_t)4 << 20));
    OK(cudaMemsetAsync(pool, 1, (size_t)POOL_MB << 20, stream));
    OK(cudaMemsetAsync(small, 0, (size_t)4 << 20, stream));
    chains(small);
    barriers(small);
    plain_reads(pool, small);
    q8_reads(pool, small, small + 200000);
    copies(pool);
    products(pool);
    OK(cudaStreamSynchronize(stream));
    return 0;
}
