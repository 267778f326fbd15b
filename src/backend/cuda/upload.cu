/* upload.cu - weights to the device, each format taken apart on the way.
 *
 * The host's bytes go through two pinned buffers, filled by several threads from
 * the file's mapping while the other is on its way; a kernel then puts each block's
 * parts where DevWeight says. The result takes the same bytes as the file. */
#include "tiles.cuh"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern "C" {
#include "../../base/pool.h"
}

enum { STAGES = 2, MOST_COPIERS = 8 };
static const size_t stage_bytes = (size_t)32 << 20;

struct Uploader {
    char *host[STAGES], *device[STAGES];
    cudaEvent_t done[STAGES];
    bool used[STAGES];
    Pool *pool; /* NULL: none of all this is there */
    int next;
};

bool upload_init(Cuda *c, ds4_err *err)
{
    c->up = (Uploader *)calloc(1, sizeof *c->up);
    return c->up || fail(err, DS4_ENOMEM, "no memory to upload weights");
}

static bool take_stages(Cuda *c, ds4_err *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (c->up->pool)
        return true;
    c->up->pool = pool_new((int)MIN(MAX(cores / 2, 1L), (long)MOST_COPIERS), err);
    if (!c->up->pool)
        return false;
    for (int i = 0; i < STAGES; i++) {
        NOTE(c, cudaMallocHost((void **)&c->up->host[i], stage_bytes));
        NOTE(c, cudaMalloc((void **)&c->up->device[i], stage_bytes));
        NOTE(c, cudaEventCreateWithFlags(&c->up->done[i], cudaEventDisableTiming));
    }
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK;
}

void upload_done(Cuda *c)
{
    Uploader *u = c->up;
    if (!u || !u->pool)
        return;
    for (int i = 0; i < STAGES; i++) {
        if (u->used[i])
            NOTE(c, cudaEventSynchronize(u->done[i]));
        if (u->done[i])
            cudaEventDestroy(u->done[i]);
        cudaFreeHost(u->host[i]);
        cudaFree(u->device[i]);
    }
    pool_free(u->pool);
    *u = Uploader{};
}

void upload_release(Cuda *c)
{
    upload_done(c);
    free(c->up);
    c->up = NULL;
    for (size_t i = 0; i < c->n_weights; i++) {
        memory_give(c, c->weights[i]->memory);
        free(c->weights[i]);
    }
    free(c->weights);
}

/* ---- taking blocks apart --------------------------------------------------------- */

/* A block in the file as bytes: a field of n bytes at `from` goes to `to`, block after
 * block; two fields of two bytes each make a half2. */
struct Field {
    int from, n;
    uint8_t *to;
};

/* One thread a byte pair of a field: blocks have even lengths but MXFP4's 17. */
__global__ void take_apart(const uint8_t *src, size_t n_blocks, int block_bytes, Field f)
{
    const size_t total = n_blocks * f.n, stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride)
        f.to[i] = src[i / f.n * block_bytes + f.from + i % f.n];
}

/* The parts of each format, in the order of the file. */
struct Layout3 {
    int q_from, q_n, s_from, s_n, d_from, d_n;
};

static Layout3 layout_of(int type)
{
    switch (type) {
    case QUANT_Q8_0: return { 2, 32, 0, 0, 0, 2 };
    case QUANT_Q2_K: return { 16, 64, 0, 16, 80, 4 };
    case QUANT_Q4_K: return { 16, 128, 4, 12, 0, 4 };
    case QUANT_IQ2_XXS: return { 2, 64, 0, 0, 0, 2 };
    case QUANT_MXFP4: return { 1, 16, 0, 1, 0, 0 };
    default: return { 0, 0, 0, 0, 0, 0 };
    }
}

static size_t rounded(size_t n) { return (n + 255) / 256 * 256; }

static void place(DevWeight *d, const Layout3 &l, size_t n_blocks, uint8_t *memory)
{
    d->q = memory;
    d->s = memory + rounded(n_blocks * l.q_n);
    d->d = (const half *)(d->s + rounded(n_blocks * l.s_n));
}

static size_t bytes_of(const Layout3 &l, size_t n_blocks)
{
    return rounded(n_blocks * l.q_n) + rounded(n_blocks * l.s_n) + rounded(n_blocks * l.d_n);
}

/* ---- streaming ----------------------------------------------------------------------- */

struct Copy {
    char *to;
    const char *from;
    size_t n;
};

static void copy_part(void *arg, int ith, int nth)
{
    const Copy *j = (const Copy *)arg;
    const size_t page = 4096, pages = (j->n + page - 1) / page;
    const size_t a = pages * ith / nth * page, b = MIN(pages * (ith + 1) / nth * page, j->n);
    if (b > a)
        memcpy(j->to + a, j->from + a, b - a);
}

/* n bytes of the host into a staging buffer on the device; returns it. */
static char *stage(Cuda *c, const char *host, size_t n, int *which)
{
    Uploader *u = c->up;
    int i = u->next;
    u->next = (i + 1) % STAGES;
    if (u->used[i])
        NOTE(c, cudaEventSynchronize(u->done[i]));
    Copy job = { u->host[i], host, n };
    pool_run(u->pool, copy_part, &job);
    NOTE(c, cudaMemcpyAsync(u->device[i], u->host[i], n, cudaMemcpyHostToDevice, c->stream));
    u->used[i] = true;
    *which = i;
    return u->device[i];
}

/* Of F16: one thread four values, n of them from number `first` on. */
__global__ void take_half_tiles(const uint2 *src, size_t first, size_t n, DevWeight w)
{
    const size_t stride = (size_t)gridDim.x * blockDim.x;
    const int per = w.cols / 4;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const size_t row = (first + i) / per;
        const int four = (int)((first + i) % per);
        *(uint2 *)((uint8_t *)w.q + tile_at(row, four / 4, w.cols / 16) + 16 * (four % 4)) = src[i];
    }
}

static void send_half_tiles(Cuda *c, const char *from, size_t at, size_t n, const DevWeight *d)
{
    take_half_tiles<<<c->sm_count * 8, 256, 0, c->stream>>>((const uint2 *)from, at / 8, n / 8, *d);
    launched(c, "take_half_tiles");
}

static void send_plain(Cuda *c, DevWeight *d, const char *host, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += stage_bytes) {
        int which;
        size_t n = MIN(stage_bytes, bytes - at);
        char *from = stage(c, host + at, n, &which);
        if (d->tiled)
            send_half_tiles(c, from, at, n, d);
        else
            NOTE(c, cudaMemcpyAsync((char *)d->memory + at, from, n, cudaMemcpyDeviceToDevice,
                                    c->stream));
        NOTE(c, cudaEventRecord(c->up->done[which], c->stream));
    }
}

static void send_field(Cuda *c, const char *from, size_t n, int block_bytes, Field f)
{
    if (!f.n)
        return;
    take_apart<<<c->sm_count * 8, 256, 0, c->stream>>>((const uint8_t *)from, n, block_bytes, f);
    launched(c, "take_apart");
}

/* One thread eight values of a Q8_0 block, first to (first + n), and for one of them its scale. */
__global__ void take_tiles(const uint8_t *src, size_t first, size_t n, DevWeight w)
{
    const size_t total = 4 * n, stride = (size_t)gridDim.x * blockDim.x;
    const int per = w.cols / 32;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
        const unsigned short *from = (const unsigned short *)(src + i / 4 * 34);
        const size_t row = (first + i / 4) / per;
        const int block = (int)((first + i / 4) % per), t = (int)(i % 4);
        const unsigned short *v = from + 1 + 4 * t;
        *(uint2 *)((uint8_t *)w.q + tile_at(row, block, per) + 16 * t) =
            make_uint2(v[0] | (unsigned)v[1] << 16, v[2] | (unsigned)v[3] << 16);
        if (t == 0)
            ((unsigned short *)w.d)[tile_scale_at(row, block, w.cols)] = from[0];
    }
}

static void send_tiles(Cuda *c, const char *from, size_t first, size_t n, const DevWeight *d)
{
    take_tiles<<<c->sm_count * 8, 256, 0, c->stream>>>((const uint8_t *)from, first, n, *d);
    launched(c, "take_tiles");
}

static void send_blocks(Cuda *c, DevWeight *d, const char *host, size_t n_blocks, int block_bytes)
{
    const Layout3 l = layout_of(d->type);
    const size_t most = stage_bytes / block_bytes;
    for (size_t at = 0; at < n_blocks; at += most) {
        int which;
        size_t n = MIN(most, n_blocks - at);
        char *from = stage(c, host + at * block_bytes, n * block_bytes, &which);
        if (d->tiled) {
            send_tiles(c, from, at, n, d);
        } else {
            send_field(c, from, n, block_bytes, { l.q_from, l.q_n, (uint8_t *)d->q + at * l.q_n });
            send_field(c, from, n, block_bytes, { l.s_from, l.s_n, (uint8_t *)d->s + at * l.s_n });
            send_field(c, from, n, block_bytes, { l.d_from, l.d_n, (uint8_t *)d->d + at * l.d_n });
        }
        NOTE(c, cudaEventRecord(c->up->done[which], c->stream));
    }
}

/* ---- bind -------------------------------------------------------------------------------- */

static DevWeight *new_weight(Cuda *c, const Weight *w, ds4_err *err)
{
    if (c->n_weights == c->cap_weights) {
        size_t cap = c->cap_weights ? 2 * c->cap_weights : 256;
        DevWeight **more = (DevWeight **)realloc(c->weights, cap * sizeof *more);
        if (!more) {
            fail(err, DS4_ENOMEM, "no memory for a list of weights");
            return NULL;
        }
        c->weights = more;
        c->cap_weights = cap;
    }
    DevWeight *d = (DevWeight *)calloc(1, sizeof *d);
    if (!d) {
        fail(err, DS4_ENOMEM, "no memory for a weight");
        return NULL;
    }
    d->type = w->type;
    d->rows = w->rows;
    d->cols = w->cols;
    d->count = w->count;
    d->tiled = tiling_fits(c->be.shape, w);
    c->weights[c->n_weights++] = d;
    return d;
}

bool cuda_bind(Backend *be, Weight *w, const void *host, ds4_err *err)
{
    Cuda *c = cuda_of(be);
    const QuantFormat *f = quant_format(w->type);
    if (!f || !f->decode)
        return fail(err, DS4_EFORMAT, "weights of type %s: %s cannot multiply them",
                    quant_name(w->type), be->name);
    if (w->cols % f->block_len)
        return fail(err, DS4_EFORMAT, "%s weights of %d columns: blocks have %d", f->name, w->cols,
                    f->block_len);
    DevWeight *d = take_stages(c, err) ? new_weight(c, w, err) : NULL;
    if (!d)
        return false;
    const Layout3 l = layout_of(w->type);
    const size_t n_blocks = (size_t)w->rows * MAX(w->count, 1) * (w->cols / f->block_len);
    const size_t file_bytes = n_blocks * f->block_bytes;
    const size_t bytes = l.q_n ? bytes_of(l, n_blocks) : file_bytes;
    d->memory = memory_take(c, MAX(bytes, (size_t)16));
    if (!d->memory)
        return fail(err, DS4_ENOMEM, "%s: no room for a weight of %zu bytes", be->name, bytes);
    if (l.q_n) {
        place(d, l, n_blocks, (uint8_t *)d->memory);
        send_blocks(c, d, (const char *)host, n_blocks, f->block_bytes);
    } else {
        d->q = (const uint8_t *)d->memory;
        send_plain(c, d, (const char *)host, file_bytes);
    }
    w->data = Buf{ d, 0 };
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK;
}
