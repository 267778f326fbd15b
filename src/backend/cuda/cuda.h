/* cuda.h - the ops on NVIDIA GPUs.
 *
 * Built by nvcc where it is there (cuda.cu and what belongs to it), else by
 * none.c, which says so to who asks for a GPU. */
#ifndef CUDA_H
#define CUDA_H
#include "../../ops/ops.h"

typedef struct {
    /* device: which GPU, from 0. shape stays borrowed. */
    Backend *(*open)(int device, const Shape *shape, const BackendOptions *opt, ds4_err *err);
    /* Bytes of device memory that open allocates beside weights and buffers. */
    uint64_t (*scratch)(const Shape *shape, const BackendOptions *opt);
    /* Free bytes of a GPU. False: it is not there, cannot run this, or there is no driver. */
    bool (*memory)(int device, uint64_t *free_bytes, ds4_err *err);
} CudaDriver;

extern const CudaDriver cuda_driver;

/* A name of GPU `device` that is the same in every program, whatever numbers it sees.
 * False: there is none. */
bool cuda_identity(int device, char out[40]);

#endif
