/* outputs.c - the buffers, and the parts of them, that each op writes. */
#include "outputs.h"

/* The signatures are the ops'; few need all of it. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

typedef struct {
    OutputFn fn;
    void *user;
} Sink;

static void numbers(Sink k, const char *name, enum OutputKind kind, Buf b, size_t rows,
                    size_t width)
{
    const size_t n = rows * width;
    k.fn(k.user,
         &(Output){ .name = name, .kind = kind, .buf = b, .n = n, .width = width, .bytes = n * 4 });
}

static void floats(Sink k, const char *name, Buf b, int rows, int width)
{
    numbers(k, name, OUT_F32, b, (size_t)rows, (size_t)width);
}

static void ints(Sink k, const char *name, Buf b, int rows, int width)
{
    numbers(k, name, OUT_I32, b, (size_t)rows, (size_t)width);
}

/* Row `at` of slot's rows in b. */
static void kv_row(Sink k, const char *name, const KvLayer *kv, bool idx, Buf b, int slot, int rows,
                   int at)
{
    size_t bytes = (size_t)(idx ? kv->idx_row.bytes : kv->row.bytes);
    size_t index = (size_t)slot * (size_t)rows + (size_t)at;
    k.fn(k.user, &(Output){ .name = name,
                            .kind = idx ? OUT_IDX_ROW : OUT_KV_ROW,
                            .buf = buf_at(b, index * bytes),
                            .bytes = bytes,
                            .kv = kv,
                            .n = (size_t)(idx ? kv->idx_row.dim : kv->row.dim) });
}

/* The pooled rows that the step closes and the pooling inputs it leaves. */
static void pooled(Sink k, const Step *step, const KvLayer *kv, bool idx)
{
    const int dim = idx ? kv->idx_row.dim : kv->row.dim;
    const size_t state = (size_t)shape_state_rows(kv->ratio);
    const size_t width = (size_t)shape_comp_width(kv->ratio, dim);

    for (int i = 0; i < step->n_spans; i++) {
        const Span *sp = &step->span[i];
        for (int j = sp->pos / kv->ratio; j < (sp->pos + sp->n) / kv->ratio; j++)
            kv_row(k, "pooled", kv, idx, idx ? kv->idx : kv->comp, sp->slot, kv->comp_rows, j);
        size_t at = (size_t)sp->slot * state * width * sizeof(float);
        numbers(k, "state kv", OUT_F32, buf_at(idx ? kv->idx_kv : kv->comp_kv, at), state, width);
        numbers(k, "state score", OUT_F32, buf_at(idx ? kv->idx_score : kv->comp_score, at), state,
                width);
    }
}

void outputs_embed(OutputFn fn, void *user, const Shape *s, const Step *step, Buf streams,
                   const Weight *table)
{
    const Sink k = { fn, user };

    floats(k, "streams", streams, step->n_rows, N_STREAMS * s->dim);
}

void outputs_hc_pre(OutputFn fn, void *user, const Shape *s, const Step *step, Buf x, Buf mix,
                    Buf streams, const HcWeights *hc, Buf norm)
{
    const Sink k = { fn, user };

    floats(k, "x", x, step->n_rows, s->dim);
    floats(k, "mix", mix, step->n_rows, N_STREAMS * (N_STREAMS + 1));
}

void outputs_hc_post(OutputFn fn, void *user, const Shape *s, const Step *step, Buf streams, Buf y,
                     Buf mix)
{
    const Sink k = { fn, user };

    floats(k, "streams", streams, step->n_rows, N_STREAMS * s->dim);
}

void outputs_query(OutputFn fn, void *user, const Shape *s, const Step *step, Buf q, Buf qr, Buf x,
                   const Layer *l)
{
    const Sink k = { fn, user };

    floats(k, "qr", qr, step->n_rows, s->q_rank);
    floats(k, "q", q, step->n_rows, s->n_heads * s->head_dim);
}

void outputs_kv_row(OutputFn fn, void *user, const Shape *s, const Step *step, KvLayer *kv, Buf x,
                    const Layer *l)
{
    const Sink k = { fn, user };

    for (int i = 0; i < step->n_spans; i++)
        for (int j = 0; j < step->span[i].n; j++)
            kv_row(k, "ring", kv, false, kv->ring, step->span[i].slot, kv->ring_rows,
                   (step->span[i].pos + j) % kv->ring_rows);
}

void outputs_compress(OutputFn fn, void *user, const Shape *s, const Step *step, KvLayer *kv, Buf x,
                      const Layer *l)
{
    const Sink k = { fn, user };

    pooled(k, step, kv, false);
}

void outputs_idx_row(OutputFn fn, void *user, const Shape *s, const Step *step, KvLayer *kv, Buf x,
                     const Layer *l)
{
    const Sink k = { fn, user };

    pooled(k, step, kv, true);
}

void outputs_select(OutputFn fn, void *user, const Shape *s, const Step *step, Buf pick,
                    KvLayer *kv, Buf qr, Buf x, const Layer *l)
{
    const Sink k = { fn, user };

    ints(k, "pick", pick, step->n_rows, s->idx_topk);
}

void outputs_attend(OutputFn fn, void *user, const Shape *s, const Step *step, Buf o, Buf q,
                    KvLayer *kv, Buf pick, const Layer *l)
{
    const Sink k = { fn, user };

    floats(k, "o", o, step->n_rows, s->n_heads * s->head_dim);
}

void outputs_project(OutputFn fn, void *user, const Shape *s, const Step *step, Buf y, Buf o,
                     const Layer *l)
{
    const Sink k = { fn, user };

    floats(k, "y", y, step->n_rows, s->dim);
}

void outputs_route(OutputFn fn, void *user, const Shape *s, const Step *step, Buf ids, Buf gates,
                   Buf x, const Layer *l)
{
    const Sink k = { fn, user };

    ints(k, "ids", ids, step->n_rows, s->n_active);
    const size_t n = (size_t)step->n_rows * (size_t)s->n_active;
    k.fn(k.user, &(Output){ .name = "gates",
                            .kind = OUT_F32,
                            .buf = gates,
                            .n = n,
                            .width = (size_t)s->n_active,
                            .bytes = n * 4,
                            .chosen = true });
}

void outputs_experts(OutputFn fn, void *user, const Shape *s, const Step *step, Buf y, Buf x,
                     Buf ids, Buf gates, const Layer *l)
{
    const Sink k = { fn, user };

    floats(k, "y", y, step->n_rows, s->dim);
}

void outputs_shared(OutputFn fn, void *user, const Shape *s, const Step *step, Buf y, Buf x,
                    const Layer *l)
{
    const Sink k = { fn, user };

    floats(k, "y", y, step->n_rows, s->dim);
}

void outputs_logits(OutputFn fn, void *user, const Shape *s, const Step *step, Buf out, Buf streams,
                    const HcWeights *hc, Buf norm, const Weight *head)
{
    const Sink k = { fn, user };

    floats(k, "logits", out, step->n_out, s->vocab);
}
