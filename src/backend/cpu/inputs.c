/* inputs.c - packing the rows that a matrix multiplies, once an op.
 *
 * Several rows are shared out among the threads, who then wait for each other.
 * A single row every thread packs for itself, into its own cache: on Zen 4
 * 4,096 values take 0.45 us. Packing halves and meeting would take about 0.4 us
 * when no thread is late, and microseconds when others want the cores. */
#include "cpu_internal.h"

bool input_is_packed(const Cpu *c, const Weight *w) { return !c->exact && c->k->gemm_i8[w->type]; }

Input input_own(const Cpu *c, Rows x, const Weight *w, int ith)
{
    Input in = { .rows = x };

    if (!input_is_packed(c, w))
        return in;
    assert(x.n == 1);
    in.acts = c->acts.rows + (size_t)ith * c->acts.bytes;
    in.ld = act_bytes(w->cols);
    c->k->act_pack(in.acts, x.p, w->cols);
    return in;
}

Input input_pieces(const Cpu *c, Rows x, const Weight *w, int pieces, int ith, int nth)
{
    Input in = { .rows = x };
    const size_t bytes = act_bytes(w->cols);
    int first, last;

    if (!input_is_packed(c, w))
        return in;
    in.acts = c->acts.rows;
    in.ld = bytes * (size_t)pieces;
    pool_part(x.n * pieces, 1, ith, nth, &first, &last);
    for (int u = first; u < last; u++)
        c->k->act_pack(in.acts + (size_t)u * bytes,
                       row_at(x, u / pieces) + (size_t)(u % pieces) * (size_t)w->cols, w->cols);
    pool_barrier(c->pool);
    return in;
}

Input input_of(const Cpu *c, Rows x, const Weight *w, int ith, int nth)
{
    return x.n == 1 ? input_own(c, x, w, ith) : input_pieces(c, x, w, 1, ith, nth);
}

void input_pack(const Cpu *c, Rows x, const Weight *w, int i)
{
    Input in = input_packed(c, x, w);

    if (in.acts)
        c->k->act_pack(in.acts + (size_t)i * in.ld, row_at(x, i), w->cols);
}

Input input_packed(const Cpu *c, Rows x, const Weight *w)
{
    return input_is_packed(c, w) ? (Input){ x, c->acts.rows, act_bytes(w->cols) }
                                 : (Input){ .rows = x };
}
