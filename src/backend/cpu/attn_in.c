/* attn_in.c - what attention makes of its input: queries and window rows. */
#include "cpu_internal.h"

/* ---- query: low rank, norm, heads, each head normed and rotated ------------------ */

typedef struct {
    Cpu *c;
    const Layer *l;
    Rows x, qr, q;
} Query;

static void finish_head(const Cpu *c, float *q, const float *turn)
{
    const Shape *s = c->be.shape;
    cpu_norm(c, q, q, NULL, s->head_dim);
    rope_turn(q + s->head_dim - s->rope_dim, turn, s->rope_dim / 2, false);
}

static void query_part(void *arg, int ith, int nth)
{
    const Query *a = arg;
    const Cpu *c = a->c;
    const Shape *s = c->be.shape;
    const int kind = rope_kind(s, a->l->index);
    int first, last;

    const Input x = input_of(c, a->x, &a->l->q_a, ith, nth);
    cpu_part(s->q_rank, ith, nth, &first, &last);
    cpu_multiply(c, a->qr, &a->l->q_a, 0, x, first, last);
    pool_barrier(c->pool);

    pool_part(a->x.n, 1, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        cpu_norm(c, row_at(a->qr, i), row_at(a->qr, i), floats(a->l->q_norm), s->q_rank);
        input_pack(c, a->qr, &a->l->q_b, i);
    }
    pool_barrier(c->pool);

    cpu_part(a->l->q_b.rows, ith, nth, &first, &last);
    cpu_multiply(c, a->q, &a->l->q_b, 0, input_packed(c, a->qr, &a->l->q_b), first, last);
    pool_barrier(c->pool);

    pool_part(a->x.n * s->n_heads, 1, ith, nth, &first, &last);
    for (int u = first; u < last; u++) {
        int row = u / s->n_heads, head = u % s->n_heads;
        finish_head(c, row_at(a->q, row) + (size_t)head * (size_t)s->head_dim,
                    rope_row(c, kind, row));
    }
}

void cpu_query(Backend *be, const Step *step, Buf q, Buf qr, Buf x, const Layer *l)
{
    const Shape *s = be->shape;
    const int n = step->n_rows;
    Query a = { .c = cpu_of(be), .l = l };

    a.x = rows_of(x, s->dim, n);
    a.qr = rows_of(qr, s->q_rank, n);
    a.q = rows_of(q, s->n_heads * s->head_dim, n);
    pool_run(a.c->pool, query_part, &a);
}

/* ---- kv_row: the row that is key and value of its position ------------------------ */

typedef struct {
    Cpu *c;
    const Layer *l;
    KvLayer *kv;
    Rows x, raw;
} KvRow;

static void kv_row_part(void *arg, int ith, int nth)
{
    const KvRow *a = arg;
    const Cpu *c = a->c;
    const Shape *s = c->be.shape;
    const int kind = rope_kind(s, a->l->index);
    int first, last;

    const Input x = input_of(c, a->x, &a->l->kv, ith, nth);
    cpu_part(s->head_dim, ith, nth, &first, &last);
    cpu_multiply(c, a->raw, &a->l->kv, 0, x, first, last);
    pool_barrier(c->pool);

    pool_part(a->x.n, 1, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        const KvLayer *kv = a->kv;
        float *row = row_at(a->raw, i);
        size_t to =
            (size_t)c->at[i].slot * (size_t)kv->ring_rows + (size_t)(c->at[i].pos % kv->ring_rows);
        cpu_norm(c, row, row, floats(a->l->kv_norm), s->head_dim);
        rope_turn(row + s->head_dim - s->rope_dim, rope_row(c, kind, i), s->rope_dim / 2, false);
        kvrow_pack(&kv->row, (char *)bytes_of(kv->ring) + to * (size_t)kv->row.bytes, row);
    }
}

void cpu_kv_row(Backend *be, const Step *step, KvLayer *kv, Buf x, const Layer *l)
{
    const Shape *s = be->shape;
    KvRow a = { .c = cpu_of(be), .l = l, .kv = kv };

    a.x = rows_of(x, s->dim, step->n_rows);
    a.raw = (Rows){ a.c->raw_kv, (size_t)s->head_dim, step->n_rows };
    pool_run(a.c->pool, kv_row_part, &a);
}
