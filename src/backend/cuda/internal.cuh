/* internal.cuh - what the files of the CUDA backend share.
 *
 * One stream carries everything. A step begins with one copy of the Step block
 * to the device; kernels find rows, slots and positions there, so a recording
 * of a decoding step can be replayed with other contents. Few rows (up to
 * FEW_ROWS) go through kernels that stream weights once for all rows and keep
 * activations in F32: what a row gets does not depend on its company. Up to SLAB_ROWS rows
 * read dense matrices once, too, and their decoding steps are recorded. Else more rows go
 * through tensor cores, with activations rounded to F16.
 *
 *      open.cu      device, memory, options; open and close
 *      memory.cu    device memory in pieces
 *      upload.cu    weights: host to device, repacked on the way
 *      step.cu      begin and end of a step; recording
 *      dense.cu     weight matrices times rows; tiles.cu: those in tiles, few rows
 *      slabs.cu     the same of 17 to 64 rows
 *      hc.cu        hyper-connections, embedding, output head; hc_many.cu: of many rows
 *      side.cu      a second stream, for what is not needed yet
 *      inputs.cu    query, kv_row, compress, idx_row: together where they can be
 *      select.cu    the indexer            choose.cu    the best of its scores
 *      attend.cu    attention: any shape; attend_few.cu, attend_many.cu: the model's
 *      products.cu  cuBLASLt's products     lt.cu        it, loaded when first needed
 *      attn_out.cu  project
 *      route.cu     the router             experts.cu   routed and shared experts */
#ifndef INTERNAL_CUH
#define INTERNAL_CUH
extern "C" {
#include "cuda.h"
}
#include <cublasLt.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

enum { FEW_ROWS = 16, WARP = 32 };

/* Where a row of the step stands. */
struct RowAt {
    int slot, pos, token, span;
};

/* Where kernels find the step, in device memory. The places never change, and kernels get
 * them by value: a pointer to follow costs each link of the chain a way to L2 and back. */
struct StepAt {
    RowAt *row;     /* [max_rows] */
    Span *span;     /* [max_rows] */
    int *out;       /* [max_out] rows */
    float *turn[2]; /* [max_rows][rope_dim] cos, sin; plain, and compressed layers' */
};

/* A weight on the device: formats in structure-of-arrays, each array [count][rows][...]:
 *
 *   F32 F16 BF16  q: the values
 *   Q8_0          q: int8 [cols];                    d: half [cols / 32]
 *   Q2_K          q: 64 bytes a block of 256;        s: 16 bytes a block; d: half2 (d, dmin) a block
 *   Q4_K          q: 128 bytes a block;              s: 12 bytes a block; d: half2 a block
 *   IQ2_XXS       q: uint2 (index, signs) a group of 32;                  d: half a block of 256
 *   MXFP4         q: 16 bytes a block of 32;         s: 1 byte a block
 *
 * A Weight's data.base is one of these, in host memory. */
struct DevWeight {
    int type, rows, cols, count;
    bool tiled;   /* Q8_0 in another order: tiles.cuh */
    void *memory; /* one allocation */
    const uint8_t *q;
    const uint8_t *s;
    const half *d;
};

struct Cuda {
    Backend be; /* first: a Backend * is a Cuda * */
    int device, sm_count;
    cudaStream_t stream;
    cublasLtHandle_t lt;
    int max_rows, max_out, max_context, max_slots;

    /* the step */
    StepAt step;   /* into block */
    char *block;   /* device */
    char *staging; /* pinned: what is copied there at begin, [block_bytes] */
    size_t block_bytes;
    int n_rows, n_out, n_spans; /* of this step, host side */
    bool few;                   /* n_rows <= FEW_ROWS */
    struct {
        Buf streams, y, mix; /* y.base NULL: none */
    } post;                  /* a hc_post that waits for the hc_pre behind it, see hc.cu */
    float *freq[2];          /* device [rope_dim / 2] */
    float *host_freq[2];

    /* scratch, device; what an op's file says it holds */
    char *digits; /* activations of few rows as whole numbers, tiles.cu */
    half *x16;    /* activations rounded, [max_rows][widest input] */
    half *w16;    /* a matrix expanded */
    size_t x16_bytes, w16_bytes;
    void *lt_work;
    size_t lt_bytes;
    struct Products *products;
    char *scratch; /* of the op that runs, [scratch_bytes] */
    size_t scratch_bytes;
    size_t product_bytes; /* of x16, w16 and lt_work, which lie behind it */

    struct Inputs *inputs; /* ops that wait for each other, see inputs.cu */
    float *idx_w;          /* few rows: idx_w . x [rows][idx_heads], of layer idx_w_of; -1: none */
    int idx_w_of;
    int raw_of;        /* the layer whose qr is not normed yet; -1: none */
    struct Side *side; /* a second stream, see side.cu */
    float *shared_y;   /* few rows: the shared expert's results [rows][dim] of layer shared_of */
    int shared_of, shared_in; /* the layer whose experts took them; -1: none */
    bool is_beside;           /* launches go there now: half of each multiprocessor at most */
    char *bounce[2];          /* pinned: what is read from the device */
    cudaEvent_t bounced[2];
    struct Recording *recordings;
    bool recording, replaying;
    bool eager; /* nothing is recorded: somebody looks between ops */
    int ops;    /* encoded in this step */

    uint2 *iq2_grid;     /* device [256], see formats.cuh */
    DevWeight **weights; /* all of them: freed at close */
    size_t n_weights, cap_weights;
    struct Uploader *up;
    struct Chunk *chunks;
    ds4_err err; /* the first failure; told by end */
    int *bad;    /* device: an expert id out of range, or -1 */
    float *seen; /* pinned [max_out][vocab]: logits, copied there as the step's last */
    char name[128];
};

static inline Cuda *cuda_of(Backend *be) { return (Cuda *)(void *)be; }
static inline const DevWeight *weight_of(const Weight *w)
{
    return (const DevWeight *)w->data.base;
}

/* Device memory of a Buf. */
template <class T> static inline T *at(Buf b) { return (T *)((char *)b.base + b.off); }

/* Remembers the first failure of a call or launch. */
void cuda_note(Cuda *c, cudaError_t rc, const char *what);
#define NOTE(c, call) cuda_note(c, call, #call)
/* After each launch. */
static inline void launched(Cuda *c, const char *what) { cuda_note(c, cudaGetLastError(), what); }

/* A launch that may begin before the kernel in front of it has ended (programmatic
 * dependent launch): the kernel calls wait_for_others() before it reads what others
 * wrote. */
#define LAUNCH(c, kernel, grid, block, shared, ...) \
    do { \
        cudaLaunchConfig_t config_ = {}; \
        cudaLaunchAttribute attribute_[1]; \
        config_.gridDim = grid; \
        config_.blockDim = block; \
        config_.dynamicSmemBytes = shared; \
        config_.stream = (c)->stream; \
        attribute_[0].id = cudaLaunchAttributeProgrammaticStreamSerialization; \
        attribute_[0].val.programmaticStreamSerializationAllowed = 1; \
        config_.attrs = attribute_; \
        config_.numAttrs = 1; \
        cuda_note(c, cudaLaunchKernelEx(&config_, kernel, __VA_ARGS__), #kernel); \
    } while (0)

#ifdef __CUDACC__
/* First in a kernel that was started by LAUNCH, before anything that others wrote
 * is read or written. Weights may be read before. */
__device__ static inline void wait_for_others()
{
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}
/* The next kernel may start; what this one writes is seen after it has ended. */
__device__ static inline void let_others_start()
{
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/* Has a cache line of weights fetched to L2; they never change, so at any time. */
__device__ static inline void ask_for_line(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* Sums in one fixed order, whatever the launch. */
__device__ static inline float warp_sum(float v)
{
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(~0u, v, d);
    return v;
}
__device__ static inline float warp_max(float v)
{
    for (int d = 16; d; d >>= 1)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
    return v;
}
/* All threads get it. part: 32 floats of shared memory, free again after the next barrier. */
__device__ static inline float block_sum(float v, float *part)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n = (blockDim.x + 31) / WARP;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return warp_sum(lane < n ? part[lane] : 0);
}
#endif

/* ---- what ops build on ----------------------------------------------------------- */

/* out[i][j] = row j of matrix `which` of w . x[i], i < n, F32 in and out; ld in floats. Rows
 * up to FEW_ROWS stream; more go through tensor cores (F32 weights stay F32). */
void dense(Cuda *c, float *out, size_t ld_out, const Weight *w, int which, const float *x,
           size_t ld_x, int n);
/* The same of several matrices of the same inputs in one launch for few rows. */
struct DenseJob {
    float *out;
    size_t ld_out;
    const Weight *w;
    int which;
};
void dense_many(Cuda *c, const DenseJob *job, int n_jobs, const float *x, size_t ld_x, int n);

/* Rows of w in groups, each with columns of x of its own: many rows, if groups_fit. */
bool groups_fit(const Cuda *c, const DevWeight *w, int groups, int n);
void dense_groups(Cuda *c, float *out, size_t ld_out, const DevWeight *w, int groups,
                  const float *x, size_t ld_x, int n);

/* Values of a block of 32 of any format: row-major weights to half, for tiles. Device
 * functions over DevWeight are in formats.cuh. */

/* scratch of an op: n bytes at the given offset, which grows; NULL and an error when
 * cuda_scratch did not plan for it. */
void *op_scratch(Cuda *c, size_t *used, size_t bytes);
void *scratch_of(Cuda *c, char *base, size_t has, size_t *used, size_t bytes);

#define OP(name, params, args) void cuda_##name(Backend *be, const Step *step, LIST params);
OPS(OP)
#undef OP

/* products.cu: out [n][ld_out] (rows of it) = x [n][k] . w [rows][k]^T, w and x of one type,
 * F32 sums. products_ready() before a step: scratch and plans were somebody else's. */
void multiply(Cuda *c, float *out, size_t ld_out, const void *w, const void *x, size_t ld_x,
              int rows, int n, int k, cudaDataType_t type);
/* Of several matrices one after the other, each with k columns of x and rows of out. */
void multiply_groups(Cuda *c, float *out, size_t ld_out, const half *w, const half *x, int rows,
                     int n, int k, int groups);
bool products_init(Cuda *c, ds4_err *err);
void products_ready(Cuda *c);
void products_release(Cuda *c);

/* inputs.cu: ops that wait for each other. run does what waits, which every other op and the
 * step's end begin with; drop forgets it. late: select's own place for what it reads and
 * attention will, together with its queries if given; false: nothing waits for it, and queries
 * are not done. */
bool inputs_init(Cuda *c, ds4_err *err);
void inputs_release(Cuda *c);
void inputs_run(Cuda *c);
void inputs_drop(Cuda *c);
bool inputs_late(Cuda *c, const struct Queries *q);

/* side.cu: a second stream of its own scratch. Between enter and leave launches go there,
 * after all that was launched so far. join: what is launched from now on comes after them. */
bool side_init(Cuda *c, ds4_err *err);
void side_release(Cuda *c);
void side_enter(Cuda *c);
void side_leave(Cuda *c);
void side_join(Cuda *c);
/* Scratch of what is launched there, from outside. */
void *side_scratch(Cuda *c, size_t *used, size_t bytes);
size_t side_bytes(const Shape *s);
/* experts.cu: begins with the shared expert there, to which the routed ones add theirs. */
void shared_beside(Cuda *c, Buf x, const Layer *l);
/* Whether a step has one: few rows, and nobody looks between its ops. */
static inline bool has_side(const Cuda *c) { return c->few && !c->eager; }

/* hc.cu: does the hc_post that waits, if there is one. */
void hc_settle(Cuda *c);

/* step.cu */
bool cuda_begin(Backend *be, const Step *step);
bool cuda_end(Backend *be, ds4_err *err);
bool step_init(Cuda *c, ds4_err *err);
void step_release(Cuda *c);

/* memory.cu; NULL: full */
void *memory_take(Cuda *c, size_t bytes);
void memory_give(Cuda *c, void *p);
void memory_release(Cuda *c);

/* upload.cu; upload_done: what is only for loading goes, until the next weight. */
void upload_done(Cuda *c);
bool cuda_bind(Backend *be, Weight *w, const void *host, ds4_err *err);
bool upload_init(Cuda *c, ds4_err *err);
void upload_release(Cuda *c);

/* Scratch that each op needs, in bytes. */
size_t scratch_of_inputs(const Shape *s, int rows);
size_t scratch_of_select(const Shape *s, int rows, int context);
size_t scratch_of_attend(const Shape *s, int rows, int context);
size_t scratch_of_project(const Shape *s, int rows);
size_t scratch_of_route(const Shape *s, int rows);
size_t scratch_of_experts(const Shape *s, int rows); /* has no products: see open.cu */
size_t scratch_of_shared(const Shape *s, int rows);
size_t scratch_of_shared_few(const Shape *s);
size_t scratch_of_hc(const Shape *s, int rows);
size_t scratch_of_logits(const Shape *s, int out);

#endif
