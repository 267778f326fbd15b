/* experts.cuh - what the files of the experts share.
 *
 * A pair is one row's choice of one expert: pair p is row p / active. The shared expert
 * is one expert that every row chose: active is 1 and there are no ids. */
#ifndef EXPERTS_CUH
#define EXPERTS_CUH
#include "formats.cuh"

struct Moe {
    DevWeight gate, up, down;
    const int *ids;     /* [pairs]; NULL: all 0 */
    const float *gates; /* [pairs] multiplies before down; NULL: 1 */
    const float *x;     /* [rows][dim] */
    float *y;           /* [rows][dim] */
    int n_rows, active, n_experts, dim, ff;
    float limit;
    const float *plus; /* y = plus and their sum; NULL: the sum; y itself: y += */
};

static inline int pairs_of(const Moe *m) { return m->n_rows * m->active; }

/* experts_few.cu: few rows, as experts.cu says */
void experts_few(Cuda *c, const Moe *m);
size_t scratch_of_few(int pairs, int dim, int ff);
/* experts_int8.cu: for few rows, where matrices fit. h [pairs][ff] = swiglu times the gate;
 * y = plus and the sum of down . h of a row's pairs. known: the ids were there before the kernel
 * that was launched last began its work, which is int8_up's. */
bool int8_up_fits(Cuda *c, const Moe *m);
bool int8_down_fits(Cuda *c, const Moe *m);
void int8_up(Cuda *c, const Moe *m, float *h);
void int8_down(Cuda *c, const Moe *m, const float *h, bool known);
/* experts_many.cu */
void experts_many(Cuda *c, const Moe *m);
size_t scratch_of_many(int rows, int active, int n_experts, int dim, int ff);
/* experts.cu: y = plus and the sum of the row's pairs of part [pairs][dim], in ascending expert */
void add_pairs(Cuda *c, const Moe *m, const float *part);

/* Bytes of shared memory that a block can have: 227 KB on Hopper, 99 on smaller GPUs. */
static inline size_t shared_most(Cuda *c)
{
    int n = 0;
    NOTE(c, cudaDeviceGetAttribute(&n, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->device));
    return (size_t)n;
}

#ifdef __CUDACC__
/* Written so that NaN stays NaN. */
__device__ static inline float swiglu(float g, float u, float limit, float weight)
{
    const float gate = g > limit ? limit : g;
    const float up = u > limit ? limit : u < -limit ? -limit : u;
    return gate / (1 + expf(-gate)) * up * weight;
}
#endif
#endif
