/* hc.c - hyper-connections: four streams in, one vector to the half layer, and
 * its result back through a doubly stochastic matrix.
 *
 * The norm over all streams is one number a row, so it multiplies the
 * projection instead of its input. */
#include "cpu_internal.h"

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* x = rms(sum_k weight_k streams_k) * norm */
static void collapse(const Cpu *c, float *x, const float *streams, const float *weight,
                     const float *norm)
{
    const int dim = c->be.shape->dim;

    c->k->scale(x, streams, weight[0], NULL, dim);
    for (int k = 1; k < N_STREAMS; k++)
        c->k->axpy(x, weight[k], streams + (size_t)k * (size_t)dim, dim);
    cpu_norm(c, x, x, norm, dim);
}

/* ---- the 4x4 matrix: row j is the old stream, column k the new one ------------ */

typedef float Comb[N_STREAMS][N_STREAMS];

static void softmax_rows(Comb comb, float eps)
{
    for (int j = 0; j < N_STREAMS; j++) {
        float max = comb[j][0], sum = 0;
        for (int k = 1; k < N_STREAMS; k++)
            max = MAX(max, comb[j][k]);
        for (int k = 0; k < N_STREAMS; k++)
            sum += comb[j][k] = expf(comb[j][k] - max);
        for (int k = 0; k < N_STREAMS; k++)
            comb[j][k] = comb[j][k] / sum + eps;
    }
}

static void normalize_columns(Comb comb, float eps)
{
    for (int k = 0; k < N_STREAMS; k++) {
        float sum = eps;
        for (int j = 0; j < N_STREAMS; j++)
            sum += comb[j][k];
        for (int j = 0; j < N_STREAMS; j++)
            comb[j][k] /= sum;
    }
}

static void normalize_rows(Comb comb, float eps)
{
    for (int j = 0; j < N_STREAMS; j++) {
        float sum = eps;
        for (int k = 0; k < N_STREAMS; k++)
            sum += comb[j][k];
        for (int k = 0; k < N_STREAMS; k++)
            comb[j][k] /= sum;
    }
}

static void sinkhorn(Comb comb, int iterations, float eps)
{
    softmax_rows(comb, eps);
    normalize_columns(comb, eps);
    for (int i = 1; i < iterations; i++) {
        normalize_rows(comb, eps);
        normalize_columns(comb, eps);
    }
}

/* m [N_MIX], already normalized -> pre [N_STREAMS], mix = post, comb */
static void split(const Shape *s, float *pre, float *mix, const float *m, const float *scale,
                  const float *base)
{
    Comb comb;

    for (int k = 0; k < N_STREAMS; k++) {
        int post = N_STREAMS + k;
        pre[k] = sigmoid(m[k] * scale[0] + base[k]) + s->hc_eps;
        mix[k] = 2 * sigmoid(m[post] * scale[1] + base[post]);
    }
    for (int i = 0; i < N_STREAMS * N_STREAMS; i++) {
        int at = 2 * N_STREAMS + i;
        comb[i / N_STREAMS][i % N_STREAMS] = m[at] * scale[2] + base[at];
    }
    sinkhorn(comb, s->sinkhorn_iters, s->hc_eps);
    memcpy(mix + N_STREAMS, comb, sizeof comb);
}

/* ---- hc_pre --------------------------------------------------------------------- */

typedef struct {
    Cpu *c;
    int n_rows;
    Rows x, mix, streams, m; /* m: projection, then the sum of squares */
    const HcWeights *hc;
    const float *norm;
} Pre;

static Rows some(Rows r, int first, int last)
{
    return (Rows){ row_at(r, first), r.ld, last - first };
}

/* Few rows share the projection's 24 outputs out; many rows each stay with one
 * thread. Returns the rows whose rest this thread does. */
static void project_streams(const Pre *a, int ith, int nth, int *first, int *last)
{
    const Cpu *c = a->c;
    bool own_rows = a->n_rows >= nth;
    int from = 0, to = N_MIX;

    pool_part(a->n_rows, 1, ith, nth, first, last);
    for (int i = *first; i < *last; i++)
        row_at(a->m, i)[N_MIX] = c->k->sum_sq(row_at(a->streams, i), a->hc->proj.cols);
    if (own_rows) {
        cpu_matmul(c, some(a->m, *first, *last), &a->hc->proj, 0, some(a->streams, *first, *last),
                   from, to);
    } else {
        pool_part(N_MIX, 1, ith, nth, &from, &to);
        cpu_matmul(c, a->m, &a->hc->proj, 0, a->streams, from, to);
        pool_barrier(c->pool);
    }
}

static void pre_rows(void *arg, int ith, int nth)
{
    const Pre *a = arg;
    const Cpu *c = a->c;
    int first, last;

    project_streams(a, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        float pre[N_STREAMS], *m = row_at(a->m, i);
        float r = cpu_rms(c, m[N_MIX], a->hc->proj.cols);
        for (int k = 0; k < N_MIX; k++)
            m[k] *= r;
        split(c->be.shape, pre, row_at(a->mix, i), m, floats(a->hc->scale), floats(a->hc->base));
        collapse(c, row_at(a->x, i), row_at(a->streams, i), pre, a->norm);
    }
}

void cpu_hc_pre(Backend *be, const Step *step, Buf x, Buf mix, Buf streams, const HcWeights *hc,
                Buf norm)
{
    Cpu *c = cpu_of(be);
    const int dim = be->shape->dim, n = step->n_rows;
    Pre a = { .c = c, .n_rows = n, .hc = hc, .norm = floats(norm) };

    a.x = rows_of(x, dim, n);
    a.mix = rows_of(mix, N_STREAMS + N_STREAMS * N_STREAMS, n);
    a.streams = rows_of(streams, N_STREAMS * dim, n);
    a.m = (Rows){ c->mixes, N_MIX + 1, n };
    pool_run(c->pool, pre_rows, &a);
}

/* ---- hc_post -------------------------------------------------------------------- */

enum { POST_CHUNK = 256 }; /* 4 streams of it fit the first-level cache */

typedef struct {
    const Cpu *c;
    int n_rows;
    const float *y, *mix;
    float *streams;
} Post;

/* dimensions [d, d + n) of one row */
static void post_chunk(const Post *a, int row, int d, int n)
{
    const Kernels *k = a->c->k;
    const size_t dim = (size_t)a->c->be.shape->dim;
    const float *y = a->y + (size_t)row * dim + d;
    const float *post = a->mix + (size_t)row * (N_STREAMS + N_STREAMS * N_STREAMS);
    const float *comb = post + N_STREAMS;
    float *streams = a->streams + (size_t)row * N_STREAMS * dim + d;
    float old[N_STREAMS][POST_CHUNK];

    for (size_t j = 0; j < N_STREAMS; j++)
        memcpy(old[j], streams + j * dim, (size_t)n * sizeof(float));
    for (size_t i = 0; i < N_STREAMS; i++) {
        float *out = streams + i * dim;
        k->scale(out, y, post[i], NULL, n);
        for (size_t j = 0; j < N_STREAMS; j++)
            k->axpy(out, comb[j * N_STREAMS + i], old[j], n);
    }
}

static void post_rows(void *arg, int ith, int nth)
{
    const Post *a = arg;
    const int dim = a->c->be.shape->dim, chunks = (dim + POST_CHUNK - 1) / POST_CHUNK;
    int first, last;

    pool_part(a->n_rows * chunks, 1, ith, nth, &first, &last);
    for (int u = first; u < last; u++) {
        int d = u % chunks * POST_CHUNK;
        post_chunk(a, u / chunks, d, MIN(POST_CHUNK, dim - d));
    }
}

void cpu_hc_post(Backend *be, const Step *step, Buf streams, Buf y, Buf mix)
{
    Cpu *c = cpu_of(be);
    Post a = { c, step->n_rows, floats(y), floats(mix), floats(streams) };
    pool_run(c->pool, post_rows, &a);
}

/* ---- the output head has only weights, and one scale for all -------------------- */

void hc_head(const Cpu *c, float *x, const float *streams, const HcWeights *hc, const float *norm)
{
    const Shape *s = c->be.shape;
    const float *base = floats(hc->base), scale = floats(hc->scale)[0];
    const int flat = hc->proj.cols;
    float w[N_STREAMS], r = cpu_rms(c, c->k->sum_sq(streams, flat), flat);

    c->k->gemm[hc->proj.type](w, N_STREAMS, weight_at(&hc->proj, 0, 0), weight_row_bytes(&hc->proj),
                              N_STREAMS, streams, (size_t)flat, 1, flat);
    for (int k = 0; k < N_STREAMS; k++)
        w[k] = sigmoid(w[k] * r * scale + base[k]) + s->hc_eps;
    collapse(c, x, streams, w, norm);
}
