/* attn_out.cu - heads back to the model's width: each group of heads through its own rows
 * of o_a, then all of them through o_b. Up to SLAB_ROWS rows of a matrix in tiles take all
 * groups in one launch; else the groups are matrices of their own. */
#include "tiles.cuh"

size_t scratch_of_project(const Shape *s, int rows)
{
    return (size_t)rows * s->o_groups * s->o_rank * sizeof(float) + 256;
}

struct Groups {
    DevWeight w;    /* rows: all groups' */
    float *low;     /* [n][w.rows] */
    const float *o; /* [n][groups][w.cols] */
    int n, rank, groups;
};

static bool all_groups(Cuda *c, const Groups &a)
{
    const TileJob job = { a.low, (size_t)a.w.rows, &a.w, 0 };
    const TileInput in = { a.o, (size_t)a.groups * a.w.cols, a.n, a.w.cols, a.groups, NULL, 0, NULL,
                           0 };
    return a.w.tiled && tiles_or_slabs(c, &job, 1, &in, false);
}

/* The same bytes, counted otherwise. */
static void each_group(Cuda *c, const Groups &a, const Weight *o_a)
{
    DevWeight d = a.w;
    Weight w = *o_a;

    d.rows = w.rows = a.rank;
    d.count = w.count = a.groups;
    w.data = Buf{ &d, 0 };
    for (int g = 0; g < a.groups; g++)
        dense(c, a.low + (size_t)g * a.rank, (size_t)o_a->rows, &w, g, a.o + (size_t)g * a.w.cols,
              (size_t)a.groups * a.w.cols, a.n);
}

void cuda_project(Backend *be, const Step *step, Buf y, Buf o, const Layer *l)
{
    Cuda *c = cuda_of(be);
    const Shape *s = be->shape;
    const int n = step->n_rows;
    size_t used = 0;
    Groups a = {};

    a.w = *weight_of(&l->o_a);
    a.low = (float *)op_scratch(c, &used, (size_t)n * l->o_a.rows * sizeof(float));
    a.o = at<const float>(o);
    a.n = n;
    a.rank = s->o_rank;
    a.groups = s->o_groups;
    if (!a.low)
        return;
    if (!all_groups(c, a)) {
        if (groups_fit(c, &a.w, a.groups, n))
            dense_groups(c, a.low, l->o_a.rows, &a.w, a.groups, a.o, (size_t)a.groups * a.w.cols,
                         n);
        else
            each_group(c, a, &l->o_a);
    }
    dense(c, at<float>(y), s->dim, &l->o_b, 0, a.low, l->o_a.rows, n);
}
