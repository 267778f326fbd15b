/* attn_out.c - heads back to the model's width: each group of heads through its
 * own rows of o_a, then all of them through o_b. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Layer *l;
    Rows o, low, y;
} Project;

/* Rows [first, last) of o_a, which may lie in several groups. */
static void project_groups(const Project *a, int first, int last)
{
    const int rank = a->c->be.shape->o_rank;

    for (int j = first; j < last;) {
        int group = j / rank, end = MIN(last, (group + 1) * rank);
        Rows heads = { a->o.p + (size_t)group * (size_t)a->l->o_a.cols, a->o.ld, a->o.n };
        cpu_matmul(a->c, a->low, &a->l->o_a, 0, heads, j, end);
        j = end;
    }
}

static void project_part(void *arg, int ith, int nth)
{
    const Project *a = arg;
    int first, last;

    cpu_part(a->l->o_a.rows, ith, nth, &first, &last);
    project_groups(a, first, last);
    pool_barrier(a->c->pool);
    cpu_part(a->l->o_b.rows, ith, nth, &first, &last);
    cpu_matmul(a->c, a->y, &a->l->o_b, 0, a->low, first, last);
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
