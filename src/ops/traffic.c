/* traffic.c - bytes an op reads, and products it makes. */
#include "traffic.h"
#include <stdlib.h>

/* The signatures are the ops'; few need all of it. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static Traffic plus(Traffic a, Traffic b)
{
    return (Traffic){ a.bytes + b.bytes, a.macs + b.macs };
}

/* Read once and multiplied with so many rows. */
static Traffic matrix(const Weight *w, uint64_t rows)
{
    const uint64_t values = (uint64_t)w->rows * (uint64_t)w->cols;
    Traffic t = { .macs = values * rows };

    quant_bytes(w->type, values, &t.bytes);
    return t;
}

static Traffic two(const Weight *a, const Weight *b, const Step *step)
{
    const uint64_t rows = (uint64_t)step->n_rows;

    return plus(matrix(a, rows), matrix(b, rows));
}

Traffic traffic_embed(Backend *be, const Step *step, Buf streams, const Weight *table)
{
    const uint64_t bytes = matrix(table, 0).bytes;

    return (Traffic){ .bytes = table->rows ? bytes / (uint64_t)table->rows * (uint64_t)step->n_rows
                                           : 0 };
}

Traffic traffic_hc_pre(Backend *be, const Step *step, Buf x, Buf mix, Buf streams,
                       const HcWeights *hc, Buf norm)
{
    return matrix(&hc->proj, (uint64_t)step->n_rows);
}

Traffic traffic_hc_post(Backend *be, const Step *step, Buf streams, Buf y, Buf mix)
{
    return (Traffic){ 0 };
}

Traffic traffic_query(Backend *be, const Step *step, Buf q, Buf qr, Buf x, const Layer *l)
{
    return two(&l->q_a, &l->q_b, step);
}

Traffic traffic_kv_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    return matrix(&l->kv, (uint64_t)step->n_rows);
}

Traffic traffic_compress(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    return two(&l->comp.kv, &l->comp.gate, step);
}

Traffic traffic_idx_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    return two(&l->idx_comp.kv, &l->idx_comp.gate, step);
}

/* The sum of f for each row of the step and its position. */
static uint64_t sum_rows(const Step *step, const Shape *s, const KvLayer *kv,
                         uint64_t (*f)(const Shape *, const KvLayer *, int pos))
{
    uint64_t sum = 0;
    for (int i = 0; i < step->n_spans; i++)
        for (int j = 0; j < step->span[i].n; j++)
            sum += f(s, kv, step->span[i].pos + j);
    return sum;
}

static uint64_t scored(const Shape *s, const KvLayer *kv, int pos)
{
    int n = shape_visible(kv->ratio, pos);
    return n > s->idx_topk ? (uint64_t)n : 0;
}

static uint64_t attended(const Shape *s, const KvLayer *kv, int pos)
{
    int pooled = shape_visible(kv->ratio, pos);
    if (shape_overlaps(kv->ratio))
        pooled = MIN(pooled, s->idx_topk);
    return (uint64_t)(MIN(s->window, pos + 1) + pooled);
}

Traffic traffic_select(Backend *be, const Step *step, Buf pick, KvLayer *kv, Buf qr, Buf x,
                       const Layer *l)
{
    const Shape *s = be->shape;
    const uint64_t rows = sum_rows(step, s, kv, scored);
    const Traffic scores = { rows * (uint64_t)kv->idx_row.bytes,
                             rows * (uint64_t)s->idx_heads * (uint64_t)s->idx_dim };

    return rows ? plus(scores, two(&l->idx_q, &l->idx_w, step)) : (Traffic){ 0 };
}

Traffic traffic_attend(Backend *be, const Step *step, Buf o, Buf q, KvLayer *kv, Buf pick,
                       const Layer *l)
{
    const Shape *s = be->shape;
    const uint64_t rows = sum_rows(step, s, kv, attended);

    return (Traffic){ rows * (uint64_t)kv->row.bytes,
                      2 * rows * (uint64_t)s->n_heads * (uint64_t)s->head_dim };
}

Traffic traffic_project(Backend *be, const Step *step, Buf y, Buf o, const Layer *l)
{
    return two(&l->o_a, &l->o_b, step);
}

Traffic traffic_route(Backend *be, const Step *step, Buf ids, Buf gates, Buf x, const Layer *l)
{
    return matrix(&l->router, (uint64_t)step->n_rows);
}

Traffic traffic_experts(Backend *be, const Step *step, Buf y, Buf x, Buf ids, Buf gates,
                        const Layer *l)
{
    const Shape *s = be->shape;
    size_t n = (size_t)step->n_rows * (size_t)s->n_active;
    int32_t *id = malloc(n * sizeof *id);
    unsigned char *seen = calloc(1, (size_t)s->n_experts);
    uint64_t distinct = 0;

    if (id && seen) {
        be->op->read(be, id, ids, n * sizeof *id);
        for (size_t i = 0; i < n; i++) {
            if (id[i] < 0 || id[i] >= s->n_experts || seen[id[i]])
                continue;
            seen[id[i]] = 1;
            distinct++;
        }
    }
    free(seen);
    free(id);
    const Traffic one = plus(matrix(&l->gate, 1), plus(matrix(&l->up, 1), matrix(&l->down, 1)));
    return (Traffic){ distinct * one.bytes, n * one.macs };
}

Traffic traffic_shared(Backend *be, const Step *step, Buf y, Buf x, const Layer *l)
{
    return plus(matrix(&l->sh_gate, (uint64_t)step->n_rows), two(&l->sh_up, &l->sh_down, step));
}

Traffic traffic_logits(Backend *be, const Step *step, Buf out, Buf streams, const HcWeights *hc,
                       Buf norm, const Weight *head)
{
    const uint64_t rows = (uint64_t)step->n_out;

    return plus(matrix(&hc->proj, rows), matrix(head, rows));
}
