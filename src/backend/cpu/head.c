/* head.c - streams to logits, for the rows that are asked for. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Step *step;
    Rows streams, x, out;
    const HcWeights *hc;
    const float *norm;
    const Weight *head;
} Head;

static void head_rows(void *arg, int ith, int nth)
{
    const Head *a = arg;
    int first, last;

    pool_part(a->step->n_out, 1, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        hc_head(a->c, row_at(a->x, i), row_at(a->streams, a->step->out[i]), a->hc, a->norm);
        input_pack(a->c, a->x, a->head, i);
    }
    pool_barrier(a->c->pool);
    cpu_part(a->head->rows, ith, nth, &first, &last);
    cpu_multiply(a->c, a->out, a->head, 0, input_packed(a->c, a->x, a->head), first, last);
}

void cpu_logits(Backend *be, const Step *step, Buf out, Buf streams, const HcWeights *hc, Buf norm,
                const Weight *head)
{
    Cpu *c = cpu_of(be);
    const int dim = be->shape->dim;
    Head a = { .c = c, .step = step, .hc = hc, .norm = floats(norm), .head = head };

    a.streams = rows_of(streams, N_STREAMS * dim, step->n_rows);
    a.x = (Rows){ c->head_x, (size_t)dim, step->n_out };
    a.out = rows_of(out, head->rows, step->n_out);
    pool_run(c->pool, head_rows, &a);
}
