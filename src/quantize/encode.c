/* encode.c - one row after the other; threads take them in turn. */
#include "encode.h"
#include <math.h>

typedef struct {
    const Rows *b;
    const Source *part;
    const float *importance; /* or NULL */
    uint64_t r;              /* in part */
    float *x, *y;
    size_t n;
} Row;

static Row row_of(const Rows *b, uint64_t row, int ith)
{
    const uint64_t rows = b->t->spec.dims[1];
    const bool experts = b->t->spec.kind == KIND_EXPERTS;
    const size_t n = (size_t)b->t->spec.dims[0], k = experts ? (size_t)(row / rows) : 0;
    float *x = b->values + (size_t)ith * 2 * n;
    return (Row){ .b = b,
                  .part = &b->part[k],
                  .importance = b->row ? b->row[k] : NULL,
                  .r = experts ? row % rows : row,
                  .x = x,
                  .y = x + n,
                  .n = n };
}

/* What a half can hold; the other formats clamp or reach as far as F32. */
static bool fits(const float *x, size_t n, int type)
{
    for (size_t i = 0; type == QUANT_F16 && i < n; i++)
        if (!(fabsf(x[i]) < 65520))
            return false;
    return true;
}

static bool encode(const Row *w, unsigned char *out)
{
    const PlanTensor *t = w->b->t;
    const unsigned char *raw = source_raw(w->part, w->r, t->type);
    if (t->spec.kind == KIND_ROUTE_HASH)
        return source_ids(w->part, w->r, (int32_t *)(void *)w->x, w->n, w->b->n_experts) &&
               memcpy(out, w->x, w->n * sizeof(int32_t));
    if (raw && quant_format(t->type)->block_len > 1)
        return memcpy(out, raw, plan_row_bytes(t));
    if (t->type == QUANT_MXFP4 && source_is_fp4(w->part))
        return source_mxfp4(w->part, w->r, out, w->n);
    if (!source_row(w->part, w->r, w->x, w->n) || !fits(w->x, w->n, t->type))
        return false;
    quant_format(t->type)->encode(out, w->x, w->n, w->importance);
    return true;
}

/* Sums in double, in an order of the row's own. */
static void compare(const Row *w, const unsigned char *in, RowError *e)
{
    *e = (RowError){ 0 };
    if (w->b->t->spec.kind == KIND_ROUTE_HASH)
        return;
    source_row(w->part, w->r, w->x, w->n);
    quant_format(w->b->t->type)->decode(w->y, in, w->n);
    for (size_t i = 0; i < w->n; i++) {
        double x = (double)w->x[i], d = (double)w->y[i] - x;
        double v = w->importance ? (double)w->importance[i] : 0;
        e->error += d * d;
        e->size += x * x;
        e->weighted_error += v * d * d;
        e->weighted_size += v * x * x;
        e->worst = fmax(e->worst, fabs(d));
    }
}

static void encode_part(void *arg, int ith, int nth)
{
    Rows *b = arg;
    const uint64_t row_bytes = plan_row_bytes(b->t);
    for (uint64_t i = (uint64_t)ith; i < b->n; i += (uint64_t)nth) {
        const Row w = row_of(b, b->first + i, ith);
        unsigned char *out = b->out + i * row_bytes;
        if (b->encoded || encode(&w, out)) {
            if (b->error)
                compare(&w, out, &b->error[i]);
            continue;
        }
        unsigned long long low = atomic_load(&b->bad), row = b->first + i;
        while (row < low && !atomic_compare_exchange_weak(&b->bad, &low, row))
            ;
    }
}

bool encode_rows(Rows *b, Pool *pool)
{
    atomic_init(&b->bad, UINT64_MAX);
    pool_run(pool, encode_part, b);
    return atomic_load(&b->bad) == UINT64_MAX;
}

bool encode_bad(const Rows *b, const char *name, bool whole, ds4_err *err)
{
    const uint64_t row = atomic_load(&b->bad);
    const bool f16 = b->t->type == QUANT_F16;
    const unsigned long long r = whole ? row : row % b->t->spec.dims[1];
    if (b->t->spec.kind == KIND_ROUTE_HASH)
        return fail(err, DS4_EFORMAT, "%s: row %llu names an expert outside 0..%d", name, r,
                    b->n_experts - 1);
    return fail(err, DS4_EFORMAT, "%s: row %llu has a value that is infinite%s", name, r,
                f16 ? ", no number or too large for F16" : " or no number");
}
