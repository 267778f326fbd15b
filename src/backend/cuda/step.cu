/* step.cu - the step's beginning and end, and recordings of steps.
 *
 * What changes from step to step lies in one block of device memory that is
 * copied before any kernel runs. A step that decodes (up to SLAB_ROWS rows, each a span of its
 * own) is encoded as usual the first time it has its shape; the second time its
 * launches are captured into a graph, which all later ones replay. */
#include "tiles.cuh"
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "../../ops/rotary.h"
}

enum { MOST_RECORDINGS = 2 * SLAB_ROWS };

struct Recording {
    int n_rows, n_out;
    cudaGraphExec_t graph; /* NULL: seen once */
};

/* ---- the block ------------------------------------------------------------------- */

static size_t aligned(size_t n) { return (n + 255) / 256 * 256; }

/* The arrays of a block at base; returns the bytes to copy. */
static size_t lay_out(const Cuda *c, char *base, StepAt *at)
{
    const size_t span = aligned(c->max_rows * sizeof(RowAt));
    const size_t out = span + aligned(c->max_rows * sizeof(Span));
    at->row = (RowAt *)base;
    at->span = (Span *)(base + span);
    at->out = (int *)(base + out);
    return out + aligned(c->max_out * sizeof(int));
}

bool step_init(Cuda *c, ds4_err *err)
{
    const Shape *s = c->be.shape;
    const size_t turn = (size_t)c->max_rows * s->rope_dim * sizeof(float);
    const size_t pairs = s->rope_dim / 2;

    c->block_bytes = lay_out(c, NULL, &c->step);
    NOTE(c, cudaMalloc((void **)&c->block, c->block_bytes + 2 * aligned(turn)));
    NOTE(c, cudaMallocHost((void **)&c->staging, c->block_bytes));
    NOTE(c, cudaHostAlloc((void **)&c->bad, sizeof *c->bad, cudaHostAllocMapped));
    NOTE(c, cudaMallocHost((void **)&c->seen, (size_t)c->max_out * s->vocab * sizeof *c->seen));
    for (int i = 0; i < 2; i++) {
        c->host_freq[i] = (float *)calloc(pairs, sizeof(float));
        NOTE(c, cudaMalloc((void **)&c->freq[i], pairs * sizeof(float)));
    }
    c->recordings = (Recording *)calloc(MOST_RECORDINGS, sizeof *c->recordings);
    if (!c->recordings || !c->host_freq[0] || !c->host_freq[1])
        return fail(err, DS4_ENOMEM, "no memory for a step");
    if (c->err.code) {
        if (err)
            *err = c->err;
        return false;
    }
    lay_out(c, c->block, &c->step);
    for (int i = 0; i < 2; i++)
        c->step.turn[i] = (float *)(c->block + c->block_bytes + i * aligned(turn));
    rotary_frequencies(s, c->host_freq[0], c->host_freq[1]);
    for (int i = 0; i < 2; i++)
        NOTE(c, cudaMemcpyAsync(c->freq[i], c->host_freq[i], pairs * sizeof(float),
                                cudaMemcpyHostToDevice, c->stream));
    NOTE(c, cudaStreamSynchronize(c->stream));
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK;
}

void step_release(Cuda *c)
{
    for (int i = 0; c->recordings && i < MOST_RECORDINGS; i++)
        if (c->recordings[i].graph)
            cudaGraphExecDestroy(c->recordings[i].graph);
    free(c->recordings);
    for (int i = 0; i < 2; i++) {
        free(c->host_freq[i]);
        cudaFree(c->freq[i]);
    }
    cudaFree(c->block);
    cudaFreeHost(c->staging);
    cudaFreeHost(c->bad);
    cudaFreeHost(c->seen);
}

/* Angles are F32 products, their cosine and sine exact to F32: as on the CPU. */
__global__ void turn_rows(StepAt b, const float *plain, const float *compressed, int n, int pairs)
{
    wait_for_others();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    const int row = i / pairs, pair = i % pairs;
    const float *freq[2] = { plain, compressed };
    for (int kind = 0; kind < 2; kind++) {
        double sine, cosine;
        sincos((double)((float)b.row[row].pos * freq[kind][pair]), &sine, &cosine);
        b.turn[kind][2 * i] = (float)cosine;
        b.turn[kind][2 * i + 1] = (float)sine;
    }
}

static void fill(Cuda *c, const Step *step)
{
    StepAt to;
    lay_out(c, c->staging, &to);
    for (int i = 0; i < step->n_spans; i++) {
        const Span *s = &step->span[i];
        for (int k = 0; k < s->n; k++)
            to.row[s->row + k] = RowAt{ s->slot, s->pos + k, step->token[s->row + k], i };
    }
    memcpy(to.span, step->span, step->n_spans * sizeof(Span));
    memcpy(to.out, step->out, step->n_out * sizeof(int));
    NOTE(c,
         cudaMemcpyAsync(c->block, c->staging, c->block_bytes, cudaMemcpyHostToDevice, c->stream));
}

/* ---- begin and end ---------------------------------------------------------------- */

static bool fits(const Cuda *c, const Step *step, ds4_err *err)
{
    if (step->n_spans > c->max_rows)
        return fail(err, DS4_EINVAL, "a step of %d spans: the backend was opened for %d rows",
                    step->n_spans, c->max_rows);
    return step_fits(step, c->max_rows, c->max_out, c->max_context, err);
}

/* Every row is a span of its own: the shape is the numbers of rows and of logits. */
static Recording *recording_of(Cuda *c, const Step *step)
{
    if (c->eager || step->n_rows > SLAB_ROWS || step->n_rows != step->n_spans)
        return NULL;
    for (int i = 0; i < MOST_RECORDINGS; i++) {
        Recording *r = &c->recordings[i];
        if (r->n_rows == step->n_rows && r->n_out == step->n_out)
            return r;
        if (r->n_rows == 0) {
            *r = Recording{ step->n_rows, step->n_out, NULL };
            return NULL; /* the first time it is encoded */
        }
    }
    return NULL;
}

bool cuda_begin(Backend *be, const Step *step)
{
    Cuda *c = cuda_of(be);
    const int pairs = be->shape->rope_dim / 2;

    c->err = (ds4_err){ DS4_OK, { 0 } };
    c->recording = c->replaying = false;
    c->ops = 0;
    if (!fits(c, step, &c->err))
        return false; /* nothing to replay: end() tells why */
    NOTE(c, cudaSetDevice(c->device));
    *c->bad = -1;
    c->n_rows = step->n_rows;
    c->n_out = step->n_out;
    c->n_spans = step->n_spans;
    c->few = step->n_rows <= FEW_ROWS;
    c->be.rounding = c->few ? 0 : 2e-3f;
    fill(c, step);
    Recording *r = recording_of(c, step);
    if (r && r->graph) {
        c->replaying = true;
        NOTE(c, cudaGraphLaunch(r->graph, c->stream));
        return false;
    }
    if (r) {
        NOTE(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
        c->recording = true;
    }
    LAUNCH(c, turn_rows, (step->n_rows * pairs + 127) / 128, 128, 0, c->step, c->freq[0],
           c->freq[1], step->n_rows * pairs, pairs);
    return true;
}

/* All ops of a forward pass were encoded: hc_post is called twice a layer, the logits
 * last. A step that was given up half-way is none to keep. */
static bool is_whole(const Cuda *c) { return c->ops == 2 * c->be.shape->n_layers + (c->n_out > 0); }

static void end_recording(Cuda *c)
{
    cudaGraph_t graph = NULL;
    Recording *r = NULL;
    for (int i = 0; i < MOST_RECORDINGS; i++)
        if (c->recordings[i].n_rows == c->n_rows && c->recordings[i].n_out == c->n_out)
            r = &c->recordings[i];
    cudaGraphExec_t exec = NULL;
    NOTE(c, cudaStreamEndCapture(c->stream, &graph));
    if (!c->err.code && graph) {
        NOTE(c, cudaGraphInstantiate(&exec, graph, cudaGraphInstantiateFlagUseNodePriority));
        if (exec)
            NOTE(c, cudaGraphLaunch(exec, c->stream));
        NOTE(c, cudaStreamSynchronize(c->stream));
    }
    if (r && is_whole(c))
        r->graph = exec;
    else if (exec)
        cudaGraphExecDestroy(exec);
    if (graph)
        cudaGraphDestroy(graph);
}

bool cuda_end(Backend *be, ds4_err *err)
{
    Cuda *c = cuda_of(be);

    if (c->recording)
        end_recording(c);
    c->recording = false;
    NOTE(c, cudaStreamSynchronize(c->stream));
    if (!c->err.code && *c->bad >= 0)
        fail(&c->err, DS4_EFORMAT, "the table of hashed experts names expert %d, of %d", *c->bad,
             be->shape->n_experts);
    if (c->err.code && err)
        *err = c->err;
    return c->err.code == DS4_OK;
}
