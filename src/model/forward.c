/* forward.c - the model, written once.
 *
 * DeepSeek V4 Flash keeps four residual streams a token. Each half of a layer
 * (attention, then experts) reads a learned mixture of the four and writes
 * its result back through a doubly stochastic matrix: hc_pre and hc_post.
 *
 * Attention has one KV head of 512 that serves as key and value. A query sees
 *
 *      the last 128 tokens, exactly            (every layer)
 *      one pooled row for each 4 tokens,       (even layers; the indexer
 *          the best 512 of them                 chooses which)
 *      one pooled row for each 128 tokens      (odd layers; all of them)
 *
 * so its cost stays nearly flat up to a million tokens. The first two layers
 * have only the window.
 *
 * The functions below say which op reads and writes what; ops.h says what
 * each computes; backend/cpu says it again in plain C. */

#include "forward.h"

#define OP(r, name, ...) (r)->be->op->name((r)->be, (r)->step, __VA_ARGS__)

static bool canceled(const Run *r)
{
    return r->cancel && atomic_load_explicit(r->cancel, memory_order_relaxed);
}

/* Mix the four streams into the input of a half layer. */
static void enter(Run *r, const HcWeights *hc, Buf norm)
{
    OP(r, hc_pre, r->x, r->mix, r->streams, hc, norm);
}

/* Add the half layer's result back into the four streams. */
static void leave(Run *r) { OP(r, hc_post, r->streams, r->y, r->mix); }

static void attention(Run *r, const Layer *l, KvLayer *kv)
{
    enter(r, &l->hc_attn, l->attn_norm);

    OP(r, query, r->q, r->qr, r->x, l);
    OP(r, kv_row, kv, r->x, l);

    Buf pick = { 0 }; /* no list: every visible row */
    if (kv->ratio)
        OP(r, compress, kv, r->x, l);
    if (shape_overlaps(kv->ratio)) {
        pick = r->pick;
        OP(r, idx_row, kv, r->x, l);
        OP(r, select, pick, kv, r->qr, r->x, l);
    }
    OP(r, attend, r->o, r->q, kv, pick, l);
    OP(r, project, r->y, r->o, l);

    leave(r);
}

static void experts(Run *r, const Layer *l)
{
    enter(r, &l->hc_ffn, l->ffn_norm);

    OP(r, route, r->ids, r->gates, r->x, l);
    OP(r, experts, r->y, r->x, r->ids, r->gates, l);
    OP(r, shared, r->y, r->x, l);

    leave(r);
}

bool forward(Run *r, const Step *step, ds4_err *err)
{
    const Model *m = r->model;

    r->step = step;
    r->at_logits = true; /* a recording gets there, too */
    if (r->be->op->begin(r->be, step)) {
        OP(r, embed, r->streams, &m->embedding);
        for (int i = 0; i < m->shape.n_layers && !canceled(r); i++) {
            attention(r, &m->layer[i], &r->kv->layer[i]);
            experts(r, &m->layer[i]);
        }
        r->at_logits = !canceled(r);
        if (step->n_out && r->at_logits)
            OP(r, logits, r->logits, r->streams, &m->hc_out, m->out_norm, &m->head);
    }
    bool ok = r->be->op->end(r->be, err);
    return ok && canceled(r) ? fail(err, DS4_ECANCELED, "canceled") : ok;
}

/* The activations a step needs: eleven buffers, whatever the backend. */
typedef struct {
    size_t at;
    uint64_t bytes;
} Want;

enum { N_WANT = 11 };

static void wants(Want w[N_WANT], const Shape *s, int max_rows, int max_out)
{
    const uint64_t rows = (uint64_t)max_rows, f = sizeof(float), dim = (uint64_t)s->dim;
    const uint64_t heads = (uint64_t)s->n_heads * (uint64_t)s->head_dim;
    const Want all[N_WANT] = {
        { offsetof(Run, streams), rows * f * N_STREAMS * dim },
        { offsetof(Run, mix), rows * f * N_STREAMS * (N_STREAMS + 1) },
        { offsetof(Run, x), rows * f * dim },
        { offsetof(Run, y), rows * f * dim },
        { offsetof(Run, qr), rows * f * (uint64_t)s->q_rank },
        { offsetof(Run, q), rows * f * heads },
        { offsetof(Run, o), rows * f * heads },
        { offsetof(Run, pick), rows * sizeof(int32_t) * (uint64_t)s->idx_topk },
        { offsetof(Run, ids), rows * sizeof(int32_t) * (uint64_t)s->n_active },
        { offsetof(Run, gates), rows * f * (uint64_t)s->n_active },
        { offsetof(Run, logits), (uint64_t)max_out * f * (uint64_t)s->vocab },
    };
    memcpy(w, all, sizeof all);
}

static Buf *wanted(Run *r, const Want *w) { return (Buf *)(void *)((char *)r + w->at); }

uint64_t run_bytes(const Shape *s, int max_rows, int max_out)
{
    Want w[N_WANT];
    uint64_t sum = 0;

    wants(w, s, max_rows, max_out);
    for (int i = 0; i < N_WANT; i++)
        sum += w[i].bytes;
    return sum;
}

bool run_init(Run *r, const Model *m, Kv *kv, Backend *be, int max_rows, int max_out, ds4_err *err)
{
    Want w[N_WANT];

    *r = (Run){ .model = m, .kv = kv, .be = be };
    wants(w, &m->shape, max_rows, max_out);
    for (int i = 0; i < N_WANT; i++) {
        Buf *b = wanted(r, &w[i]);
        if (!w[i].bytes)
            continue; /* a model without indexer has no picks */
        *b = be->op->alloc(be, w[i].bytes);
        if (!b->base) {
            run_release(r);
            return fail(err, DS4_ENOMEM, "no room for the activations of %d rows: %llu bytes",
                        max_rows, (unsigned long long)run_bytes(&m->shape, max_rows, max_out));
        }
    }
    return true;
}

void run_release(Run *r)
{
    Want w[N_WANT];

    if (!r->be)
        return;
    wants(w, &r->model->shape, 0, 0);
    for (int i = 0; i < N_WANT; i++) {
        Buf *b = wanted(r, &w[i]);
        if (b->base)
            r->be->op->free(r->be, *b);
        *b = (Buf){ 0 };
    }
}
