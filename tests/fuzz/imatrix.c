/* imatrix.c - any bytes as an importance matrix: parse, read what is promised. */
#include "../../src/quantize/imatrix.h"
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const ImatrixEntry *e)
{
    if (e->n_experts < 1 || e->n_columns < 1 || !e->name[0] || strlen(e->name) >= IMATRIX_NAME)
        abort();
    for (int i = 0; i < e->n_experts; i++) {
        if (!(e->counts[i] >= 0 && isfinite(e->counts[i])))
            abort();
        const float *v = e->sums + (size_t)i * (size_t)e->n_columns;
        for (int k = 0; k < e->n_columns; k++)
            if (!(v[k] >= 0 && isfinite(v[k])))
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Imatrix m, twice = { 0 };
    ds4_err err = { 0 };
    if (!imatrix_parse(&m, data, size, &err)) {
        if (!err.msg[0] || m.n)
            abort();
        return 0;
    }
    for (size_t i = 0; i < m.n; i++) {
        check(&m.entry[i]);
        if (imatrix_find(&m, str_of(m.entry[i].name)) != &m.entry[i])
            abort(); /* names are different */
        if (m.entry[i].n_columns % 2 == 0 && m.entry[i].n_experts == 1 &&
            !imatrix_shape(&m.entry[i], 2, m.entry[i].n_columns / 2, &err))
            abort();
    }
    if (!imatrix_merge(&twice, &m, &err))
        abort();
    imatrix_release(&twice);
    imatrix_release(&m);
    return 0;
}
