/* attn_out.c - heads back to the model's width: each group of heads through its
 * own rows of o_a, then all of them through o_b. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Layer *l;
    Rows o, low, y;
} Project;

/* What a group of o_a's rows multiplies: its own part of each row of heads. */
static Input heads_of(const Project *a, Input all, int group, int ith)
{
    const Weight *w = &a->l->o_a;

    all.rows.p += (size_t)group * (size_t)w->cols;
    if (a->o.n == 1)
        return input_own(a->c, all.rows, w, ith);
    if (all.acts)
        all.acts += (size_t)group * act_bytes(w->cols);
    return all;
}

/* Rows [first, last) of o_a, which may lie in several groups. */
static void project_groups(const Project *a, Input heads, int first, int last, int ith)
{
    const int rank = a->c->be.shape->o_rank;

    for (int j = first; j < last;) {
        int group = j / rank, end = MIN(last, (group + 1) * rank);
        cpu_multiply(a->c, a->low, &a->l->o_a, 0, heads_of(a, heads, group, ith), j, end);
        j = end;
    }
}

static void project_part(void *arg, int ith, int nth)
{
    const Project *a = arg;
    const Cpu *c = a->c;
    Input in = { .rows = a->o };
    int first, last;

    if (a->o.n > 1)
        in = input_pieces(c, a->o, &a->l->o_a, c->be.shape->o_groups, ith, nth);
    cpu_part(a->l->o_a.rows, ith, nth, &first, &last);
    project_groups(a, in, first, last, ith);
    pool_barrier(c->pool);

    in = input_of(c, a->low, &a->l->o_b, ith, nth);
    cpu_part(a->l->o_b.rows, ith, nth, &first, &last);
    cpu_multiply(c, a->y, &a->l->o_b, 0, in, first, last);
}

void cpu_project(Backend *be, const Step *step, Buf y, Buf o, const Layer *l)
{
    const Shape *s = be->shape;
    const int n = step->n_rows;
    Project a = { .c = cpu_of(be), .l = l };

    a.o = rows_of(o, s->n_heads * s->head_dim, n);
    a.low = (Rows){ a.c->low, (size_t)l->o_a.rows, n };
    a.y = rows_of(y, s->dim, n);
    pool_run(a.c->pool, project_part, &a);
}
