/* embed.c - tokens to streams: all four start as the token's row. */
#include "cpu_internal.h"

typedef struct {
    const Step *step;
    const Weight *table;
    float *streams;
} Embed;

static void embed_rows(void *arg, int ith, int nth)
{
    const Embed *e = arg;
    const QuantFormat *f = quant_format(e->table->type);
    const size_t dim = (size_t)e->table->cols;
    int first, last;

    pool_part(e->step->n_rows, 1, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        int32_t token = e->step->token[i];
        float *row = e->streams + (size_t)i * N_STREAMS * dim;
        assert(token >= 0 && token < e->table->rows);
        f->decode(row, weight_at(e->table, 0, token), dim);
        for (size_t k = 1; k < N_STREAMS; k++)
            memcpy(row + k * dim, row, dim * sizeof *row);
    }
}

void cpu_embed(Backend *be, const Step *step, Buf streams, const Weight *table)
{
    Embed e = { step, table, floats(streams) };
    pool_run(cpu_of(be)->pool, embed_rows, &e);
}
