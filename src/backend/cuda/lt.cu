/* lt.cu - cuBLASLt, loaded when it is first called.
 *
 * It is half a gigabyte, which takes a program a tenth of a second to start with, and is
 * needed only for products of many rows on a GPU. So these stand in for the functions of
 * that name, and a program that was built with CUDA starts where no CUDA is. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stddef.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

/* Where the program says, where the system looks, and where NVIDIA's installer puts it. */
static void *library(void)
{
    static void *handle;
    if (!handle)
        handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        handle = dlopen("/usr/local/cuda/lib64/" LIBRARY, RTLD_NOW | RTLD_LOCAL);
    return handle;
}

/* Two threads that come first find the same. */
static void *find(void **known, const char *name)
{
    if (!*known && library())
        *known = dlsym(library(), name);
    return *known;
}

#define STAND_IN(name, params, args) \
    extern "C" cublasStatus_t name params \
    { \
        static void *known; \
        auto real = (decltype(&name))find(&known, #name); \
        return real ? real args : CUBLAS_STATUS_NOT_INITIALIZED; \
    }

STAND_IN(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
STAND_IN(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
STAND_IN(cublasLtMatmul,
         (cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
          cublasLtMatrixLayout_t of_a, const void *b, cublasLtMatrixLayout_t of_b, const void *beta,
          const void *c, cublasLtMatrixLayout_t of_c, void *d, cublasLtMatrixLayout_t of_d,
          const cublasLtMatmulAlgo_t *algo, void *work, size_t work_bytes, cudaStream_t stream),
         (handle, op, alpha, a, of_a, b, of_b, beta, c, of_c, d, of_d, algo, work, work_bytes,
          stream))
STAND_IN(cublasLtMatmulAlgoGetHeuristic,
         (cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
          cublasLtMatmulPreference_t want, int most, cublasLtMatmulHeuristicResult_t *found,
          int *n),
         (handle, op, a, b, c, d, want, most, found, n))
STAND_IN(cublasLtMatmulDescCreate,
         (cublasLtMatmulDesc_t * op, cublasComputeType_t compute, cudaDataType_t scale),
         (op, compute, scale))
STAND_IN(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t op), (op))
STAND_IN(cublasLtMatmulDescSetAttribute,
         (cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t which, const void *value,
          size_t bytes),
         (op, which, value, bytes))
STAND_IN(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * want), (want))
STAND_IN(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t want), (want))
STAND_IN(cublasLtMatmulPreferenceSetAttribute,
         (cublasLtMatmulPreference_t want, cublasLtMatmulPreferenceAttributes_t which,
          const void *value, size_t bytes),
         (want, which, value, bytes))
STAND_IN(cublasLtMatrixLayoutCreate,
         (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t cols,
          int64_t ld),
         (layout, type, rows, cols, ld))
STAND_IN(cublasLtMatrixLayoutSetAttribute,
         (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which, const void *value,
          size_t bytes),
         (layout, which, value, bytes))
STAND_IN(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))

extern "C" const char *cublasLtGetStatusString(cublasStatus_t status)
{
    static void *known;
    auto real = (decltype(&cublasLtGetStatusString))find(&known, "cublasLtGetStatusString");
    return real ? real(status) : LIBRARY " cannot be loaded";
}
