/* none.c - in the place of the CUDA backend where nvcc was not there, or not wanted. */
#include "cuda.h"

static bool refuse(ds4_err *err)
{
    return fail(err, DS4_EINVAL,
                "this build has no CUDA: it was made without nvcc, or with make CUDA=0");
}

static Backend *none_open(int device, const Shape *shape, const BackendOptions *opt, ds4_err *err)
{
    (void)device;
    (void)shape;
    (void)opt;
    refuse(err);
    return NULL;
}

static uint64_t none_scratch(const Shape *shape, const BackendOptions *opt)
{
    (void)shape;
    (void)opt;
    return 0;
}

static bool none_memory(int device, uint64_t *free_bytes, ds4_err *err)
{
    (void)device;
    *free_bytes = 0;
    return refuse(err);
}

bool cuda_identity(int device, char out[40])
{
    (void)device;
    (void)out;
    return false;
}

const CudaDriver cuda_driver = { none_open, none_scratch, none_memory };
