/* open.cu - the device: opening and closing it, its memory, the table of ops. */
#include "tiles.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "../../quant/iq2xxs_grid.h"
}

/* Half of what a large matrix of Flash takes when it is expanded: it goes in slices, which
 * give all multiprocessors a tile, and are still in the cache when they are multiplied. */
static const size_t w16_most = (size_t)32 << 20, lt_most = (size_t)32 << 20;

void cuda_note(Cuda *c, cudaError_t rc, const char *what)
{
    if (rc == cudaSuccess || c->err.code)
        return;
    fail(&c->err, rc == cudaErrorMemoryAllocation ? DS4_ENOMEM : DS4_EDEVICE, "%s: %s (%s)",
         c->name[0] ? c->name : "cuda", cudaGetErrorString(rc), what);
}

/* ---- what there is ------------------------------------------------------------- */

static bool find_device(int device, cudaDeviceProp *prop, ds4_err *err)
{
    int n = 0;
    cudaError_t rc = cudaGetDeviceCount(&n);
    if (rc == cudaErrorNoDevice || rc == cudaErrorInsufficientDriver)
        return fail(err, DS4_EDEVICE, "cuda:%d: no NVIDIA driver, or one too old for CUDA %d.%d",
                    device, CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
    if (rc != cudaSuccess)
        return fail(err, DS4_EDEVICE, "cuda:%d: %s", device, cudaGetErrorString(rc));
    if (device < 0 || device >= n)
        return fail(err, DS4_EDEVICE, "cuda:%d: there are %d GPUs, counted from 0", device, n);
    rc = cudaGetDeviceProperties(prop, device);
    if (rc != cudaSuccess)
        return fail(err, DS4_EDEVICE, "cuda:%d: %s", device, cudaGetErrorString(rc));
    return prop->major >= 8 ||
           fail(err, DS4_EDEVICE, "cuda:%d is a %s of compute capability %d.%d, 8.0 is needed",
                device, prop->name, prop->major, prop->minor);
}

static bool device_memory(int device, uint64_t *free_bytes, ds4_err *err)
{
    cudaDeviceProp prop;
    size_t left, total;
    if (!find_device(device, &prop, err))
        return false;
    cudaError_t rc = cudaSetDevice(device);
    if (rc == cudaSuccess)
        rc = cudaMemGetInfo(&left, &total);
    if (rc != cudaSuccess)
        return fail(err, DS4_EDEVICE, "cuda:%d: %s", device, cudaGetErrorString(rc));
    *free_bytes = left;
    return true;
}

/* ---- scratch --------------------------------------------------------------------- */

static size_t widest_input(const Shape *s)
{
    size_t heads = (size_t)s->n_heads * s->head_dim / s->o_groups;
    size_t low = (size_t)s->o_groups * s->o_rank;
    size_t w = s->dim;
    w = MAX(w, heads);
    w = MAX(w, low);
    w = MAX(w, (size_t)s->q_rank);
    w = MAX(w, (size_t)s->expert_dim);
    return MAX(w, (size_t)s->shared_dim);
}

static size_t rows16_bytes(const Shape *s, int rows)
{
    return rows > FEW_ROWS ? ((size_t)rows * widest_input(s) * sizeof(half) + 255) / 256 * 256 : 0;
}

static bool has_many(const BackendOptions *o)
{
    return o->max_rows > FEW_ROWS || o->max_out > FEW_ROWS;
}

/* x16, w16 and lt_work: for products of many rows. */
static size_t product_scratch(const Shape *s, const BackendOptions *o)
{
    return has_many(o) ? rows16_bytes(s, MAX(o->max_rows, o->max_out)) + w16_most + lt_most : 0;
}

/* Of an op. The products' scratch lies behind it: the experts, who have none, take both. */
static size_t most_scratch(const Shape *s, const BackendOptions *o)
{
    const size_t all[] = { scratch_of_inputs(s, o->max_rows),
                           scratch_of_select(s, o->max_rows, o->max_context),
                           scratch_of_attend(s, o->max_rows, o->max_context),
                           scratch_of_project(s, o->max_rows),
                           scratch_of_route(s, o->max_rows),
                           scratch_of_shared(s, o->max_rows),
                           scratch_of_hc(s, o->max_rows),
                           scratch_of_logits(s, MAX(o->max_out, 1)) };
    const size_t experts = scratch_of_experts(s, o->max_rows), behind = product_scratch(s, o);
    size_t most = experts > behind ? experts - behind : 0;
    for (size_t i = 0; i < COUNT(all); i++)
        most = MAX(most, all[i]);
    return (most + 256) / 256 * 256;
}

static uint64_t device_scratch(const Shape *s, const BackendOptions *o)
{
    size_t rows = MAX(o->max_rows, o->max_out);
    return most_scratch(s, o) + product_scratch(s, o) + digits_bytes(s) + side_bytes(s) +
           rows * (s->rope_dim * 2 + 16) * sizeof(float);
}

void *scratch_of(Cuda *c, char *base, size_t has, size_t *used, size_t bytes)
{
    size_t from = (*used + 255) / 256 * 256;
    if (bytes > has || from > has - bytes) {
        if (!c->err.code)
            fail(&c->err, DS4_EDEVICE, "%s: an op wants %zu bytes of scratch after %zu of %zu",
                 c->name, bytes, from, has);
        return NULL;
    }
    *used = from + bytes;
    return base + from;
}

void *op_scratch(Cuda *c, size_t *used, size_t bytes)
{
    return scratch_of(c, c->scratch, c->scratch_bytes, used, bytes);
}

/* ---- memory ------------------------------------------------------------------------ */

/* Does what ops left for later: somebody looks. */
static void settle(Cuda *c)
{
    inputs_run(c);
    hc_settle(c);
    side_join(c);
}

/* Reads up to so many bytes go straight. */
static const size_t direct_most = (size_t)16 << 10, bounce_bytes = (size_t)1 << 20;

static Buf cuda_alloc(Backend *be, size_t bytes)
{
    Cuda *c = cuda_of(be);
    void *p = memory_take(c, bytes);
    if (!p)
        return Buf{ NULL, 0 };
    NOTE(c, cudaMemsetAsync(p, 0, bytes, c->stream));
    return Buf{ p, 0 };
}

static void cuda_free(Backend *be, Buf b)
{
    Cuda *c = cuda_of(be);
    settle(c);
    NOTE(c, cudaStreamSynchronize(c->stream));
    memory_give(c, b.base);
}

static void cuda_write(Backend *be, Buf dst, const void *src, size_t bytes)
{
    Cuda *c = cuda_of(be);
    settle(c);
    NOTE(c, cudaMemcpyAsync(at<char>(dst), src, bytes, cudaMemcpyHostToDevice, c->stream));
    NOTE(c, cudaStreamSynchronize(c->stream));
}

/* Through two pinned buffers in turns, several times as fast as to memory that may be paged. */
static void read_pinned(Cuda *c, char *dst, const char *src, size_t bytes)
{
    const size_t pieces = (bytes + bounce_bytes - 1) / bounce_bytes;
    for (size_t k = 0; k <= pieces; k++) {
        const size_t from = k * bounce_bytes, before = from - bounce_bytes;
        if (k < pieces) {
            NOTE(c, cudaMemcpyAsync(c->bounce[k % 2], src + from, MIN(bounce_bytes, bytes - from),
                                    cudaMemcpyDeviceToHost, c->stream));
            NOTE(c, cudaEventRecord(c->bounced[k % 2], c->stream));
        }
        if (k > 0) {
            NOTE(c, cudaEventSynchronize(c->bounced[(k - 1) % 2]));
            memcpy(dst + before, c->bounce[(k - 1) % 2], MIN(bounce_bytes, bytes - before));
        }
    }
}

static void cuda_read(Backend *be, void *dst, Buf src, size_t bytes)
{
    Cuda *c = cuda_of(be);
    settle(c);
    if (bytes <= direct_most) {
        NOTE(c, cudaMemcpyAsync(dst, at<char>(src), bytes, cudaMemcpyDeviceToHost, c->stream));
        NOTE(c, cudaStreamSynchronize(c->stream));
    } else {
        read_pinned(c, (char *)dst, at<char>(src), bytes);
    }
    if (c->err.code)
        memset(dst, 0, bytes);
}

static float *cuda_seen(Backend *be, Buf out)
{
    (void)out; /* there is one such buffer, and its copy was part of the step */
    return cuda_of(be)->seen;
}

static void cuda_copy(Backend *be, Buf dst, Buf src, size_t bytes)
{
    Cuda *c = cuda_of(be);
    settle(c);
    NOTE(c,
         cudaMemcpyAsync(at<char>(dst), at<char>(src), bytes, cudaMemcpyDeviceToDevice, c->stream));
}

/* ---- open and close ------------------------------------------------------------------ */

static void cuda_close(Backend *be)
{
    Cuda *c = cuda_of(be);
    if (!c)
        return;
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    products_release(c);
    inputs_release(c);
    side_release(c);
    step_release(c);
    upload_release(c);
    cudaFree(c->iq2_grid);
    cudaFree(c->digits);
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(c->bounce[i]);
        if (c->bounced[i])
            cudaEventDestroy(c->bounced[i]);
    }
    cudaFree(c->scratch);
    memory_release(c);
    if (c->lt)
        cublasLtDestroy(c->lt);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

static const struct Ops *cuda_ops(void);

static bool take(Cuda *c, void *p, size_t bytes, ds4_err *err)
{
    if (!bytes)
        return true;
    cudaError_t rc = cudaMalloc((void **)p, bytes);
    if (rc == cudaSuccess)
        return true;
    cudaGetLastError();
    return fail(err, DS4_ENOMEM, "%s: no room for %zu bytes of scratch", c->name, bytes);
}

static bool take_scratch(Cuda *c, const BackendOptions *o, ds4_err *err)
{
    const Shape *s = c->be.shape;
    bool many = has_many(o);
    c->scratch_bytes = most_scratch(s, o);
    c->product_bytes = product_scratch(s, o);
    if (!take(c, &c->scratch, c->scratch_bytes + c->product_bytes, err))
        return false;
    if (many) {
        c->x16_bytes = c->product_bytes - w16_most - lt_most;
        c->w16_bytes = w16_most;
        c->lt_bytes = lt_most;
        c->w16 = (half *)(c->scratch + c->scratch_bytes);
        c->lt_work = (char *)c->w16 + w16_most;
        c->x16 = (half *)((char *)c->lt_work + lt_most);
    }
    return take(c, &c->digits, digits_bytes(s), err) &&
           take(c, &c->iq2_grid, sizeof iq2xxs_grid, err);
}

static bool open_parts(Cuda *c, const BackendOptions *o, ds4_err *err)
{
    NOTE(c, cudaSetDevice(c->device));
    int low = 0, high = 0;
    NOTE(c, cudaDeviceGetStreamPriorityRange(&low, &high));
    NOTE(c, cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking, high));
    if (cublasLtCreate(&c->lt) != CUBLAS_STATUS_SUCCESS)
        return fail(err, DS4_EDEVICE, "%s: cuBLASLt cannot be opened", c->name);
    for (int i = 0; i < 2; i++) {
        NOTE(c, cudaMallocHost((void **)&c->bounce[i], bounce_bytes));
        NOTE(c, cudaEventCreateWithFlags(&c->bounced[i], cudaEventDisableTiming));
    }
    if (!inputs_init(c, err) || !side_init(c, err) || !take_scratch(c, o, err) ||
        !step_init(c, err) || !upload_init(c, err))
        return false;
    NOTE(c, cudaMemcpyAsync(c->iq2_grid, iq2xxs_grid, sizeof iq2xxs_grid, cudaMemcpyHostToDevice,
                            c->stream));
    NOTE(c, cudaStreamSynchronize(c->stream));
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK && products_init(c, err);
}

static Backend *device_open(int device, const Shape *shape, const BackendOptions *opt, ds4_err *err)
{
    cudaDeviceProp prop;
    if (!find_device(device, &prop, err))
        return NULL;
    Cuda *c = (Cuda *)calloc(1, sizeof *c);
    if (!c) {
        fail(err, DS4_ENOMEM, "no memory for a backend");
        return NULL;
    }
    snprintf(c->name, sizeof c->name, "cuda:%d (%.64s)", device, prop.name);
    c->be.op = cuda_ops();
    c->be.name = c->name;
    c->be.shape = shape;
    c->device = device;
    c->sm_count = prop.multiProcessorCount;
    c->max_rows = MAX(opt->max_rows, 1);
    c->max_out = MAX(opt->max_out, 1);
    c->max_context = MAX(opt->max_context, 1);
    c->eager = opt->eager;
    if (open_parts(c, opt, err))
        return &c->be;
    cuda_close(&c->be);
    return NULL;
}

/* ---- ops ----------------------------------------------------------------------------- */

static bool begin_step(Backend *be, const Step *step)
{
    products_ready(cuda_of(be));
    upload_done(cuda_of(be));
    cuda_of(be)->post = {};
    inputs_drop(cuda_of(be));
    return cuda_begin(be, step);
}

static bool end_step(Backend *be, ds4_err *err)
{
    settle(cuda_of(be));
    return cuda_end(be, err);
}

/* A hc_post that waits comes before everything but the hc_pre that does it; what makes
 * attention's inputs waits for its like, and comes before everything else. */
#define OP(name, params, args) \
    static void settled_##name(Backend *be, const Step *step, LIST params) \
    { \
        hc_settle(cuda_of(be)); \
        cuda_##name(be, step, LIST args); \
    } \
    static void alone_##name(Backend *be, const Step *step, LIST params) \
    { \
        inputs_run(cuda_of(be)); \
        side_join(cuda_of(be)); \
        settled_##name(be, step, LIST args); \
    }
OPS(OP)
#undef OP

static void hc_pre_alone(Backend *be, const Step *step, Buf x, Buf mix, Buf streams,
                         const HcWeights *hc, Buf norm)
{
    inputs_run(cuda_of(be));
    side_join(cuda_of(be));
    cuda_hc_pre(be, step, x, mix, streams, hc, norm);
}

/* Queries are made beside it. */
static void select_beside(Backend *be, const Step *step, Buf pick, KvLayer *kv, Buf qr, Buf x,
                          const Layer *l)
{
    inputs_run(cuda_of(be));
    settled_select(be, step, pick, kv, qr, x, l);
}

/* The products' scratch is free then. The shared expert runs beside the router only: beside
 * the others both are slower than one after the other (160 to 162 tokens/s, not 165). */
static void experts_with_all(Backend *be, const Step *step, Buf y, Buf x, Buf ids, Buf gates,
                             const Layer *l)
{
    Cuda *c = cuda_of(be);
    c->scratch_bytes += c->product_bytes;
    alone_experts(be, step, y, x, ids, gates, l);
    c->scratch_bytes -= c->product_bytes;
}

static struct Ops make_ops(void)
{
    struct Ops o = {};
    o.alloc = cuda_alloc;
    o.free = cuda_free;
    o.write = cuda_write;
    o.read = cuda_read;
    o.seen = cuda_seen;
    o.copy = cuda_copy;
    o.bind = cuda_bind;
    o.begin = begin_step;
    o.end = end_step;
    o.close = cuda_close;
#define OP(name, params, args) o.name = alone_##name;
    OPS(OP)
#undef OP
    o.hc_pre = hc_pre_alone;
    o.query = settled_query;
    o.kv_row = settled_kv_row;
    o.compress = settled_compress;
    o.idx_row = settled_idx_row;
    o.select = select_beside;
    o.experts = experts_with_all;
    return o;
}

static const struct Ops *cuda_ops(void)
{
    static const struct Ops ops = make_ops();
    return &ops;
}

extern "C" const CudaDriver cuda_driver = { device_open, device_scratch, device_memory };
