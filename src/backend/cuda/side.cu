/* side.cu - a second stream, for work that the ops on the first one do not need yet.
 *
 * A step of few rows is a chain of short kernels, of which many leave most of the machine
 * idle. Queries need nothing of the indexer, and the shared expert nothing of the router: they
 * run beside, with scratch of their own, and the chain takes up their results later. In a
 * recorded step they are a branch of the graph. What is beside has the lower priority, and
 * leaves room on each multiprocessor for the chain. */
#include "tiles.cuh"
#include <stdlib.h>

struct Lane {
    cudaStream_t stream;
    char *scratch, *digits;
    size_t scratch_bytes;
};

struct Side {
    Lane lane; /* the one that is not the backend's now */
    cudaEvent_t forked, joined;
    bool goes; /* something was launched there since the last join */
    char *memory;
};

static size_t aligned(size_t n) { return (n + 255) / 256 * 256; }

/* Of the shared expert, and of the inputs, which are read before it begins. */
static size_t lane_scratch(const Shape *s)
{
    return aligned(MAX(scratch_of_shared_few(s), scratch_of_inputs(s, FEW_ROWS)) + 256);
}

size_t side_bytes(const Shape *s)
{
    return lane_scratch(s) + aligned(digits_bytes(s)) + FEW_ROWS * (size_t)s->dim * sizeof(float);
}

bool side_init(Cuda *c, ds4_err *err)
{
    const Shape *s = c->be.shape;
    c->side = (Side *)calloc(1, sizeof *c->side);
    if (!c->side)
        return fail(err, DS4_ENOMEM, "no memory for a backend");
    Lane *l = &c->side->lane;
    NOTE(c, cudaStreamCreateWithPriority(&l->stream, cudaStreamNonBlocking, 0));
    NOTE(c, cudaEventCreateWithFlags(&c->side->forked, cudaEventDisableTiming));
    NOTE(c, cudaEventCreateWithFlags(&c->side->joined, cudaEventDisableTiming));
    NOTE(c, cudaMalloc((void **)&c->side->memory, side_bytes(s)));
    if (c->err.code) {
        if (err)
            *err = c->err;
        return false;
    }
    l->scratch_bytes = lane_scratch(s);
    l->scratch = c->side->memory;
    l->digits = l->scratch + l->scratch_bytes;
    c->shared_y = (float *)(l->digits + aligned(digits_bytes(s)));
    return true;
}

void side_release(Cuda *c)
{
    if (!c->side)
        return;
    if (c->side->lane.stream)
        cudaStreamDestroy(c->side->lane.stream);
    if (c->side->forked)
        cudaEventDestroy(c->side->forked);
    if (c->side->joined)
        cudaEventDestroy(c->side->joined);
    cudaFree(c->side->memory);
    free(c->side);
}

static void swap_lanes(Cuda *c)
{
    const Lane now = { c->stream, c->scratch, c->digits, c->scratch_bytes };
    const Lane other = c->side->lane;
    c->stream = other.stream;
    c->scratch = other.scratch;
    c->digits = other.digits;
    c->scratch_bytes = other.scratch_bytes;
    c->side->lane = now;
}

void side_enter(Cuda *c)
{
    NOTE(c, cudaEventRecord(c->side->forked, c->stream));
    swap_lanes(c);
    c->is_beside = true;
    NOTE(c, cudaStreamWaitEvent(c->stream, c->side->forked, 0));
}

void side_leave(Cuda *c)
{
    NOTE(c, cudaEventRecord(c->side->joined, c->stream));
    swap_lanes(c);
    c->is_beside = false;
    c->side->goes = true;
}

void side_join(Cuda *c)
{
    if (!c->side->goes)
        return;
    NOTE(c, cudaStreamWaitEvent(c->stream, c->side->joined, 0));
    c->side->goes = false;
}

void *side_scratch(Cuda *c, size_t *used, size_t bytes)
{
    return scratch_of(c, c->side->lane.scratch, c->side->lane.scratch_bytes, used, bytes);
}
