/* select.c - the indexer: which pooled rows of a ratio-4 layer a query reads.
 *
 * A row that sees no more than idx_topk of them takes them all, without
 * scoring. The others score every visible row, a block of queries at a time so
 * that an index row is unpacked once for several, and then find the smallest
 * score that still gets in by a radix descent over the scores' bits: linear in
 * the number of rows at any context. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Layer *l;
    const KvLayer *kv;
    Rows x, qr, q, w;
    int32_t *pick;
    int n_need;
} Select;

static int visible_to(const Select *a, int row)
{
    return shape_visible(a->kv->ratio, a->c->at[row].pos);
}

/* ---- the best k of n scores ------------------------------------------------------------ */

/* Unsigned order is the order of scores; both zeros are one, NaN is least. */
static uint32_t order_key(float x)
{
    uint32_t u;
    if (isnan(x))
        return 0;
    x += 0.0f; /* -0 becomes 0 */
    memcpy(&u, &x, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

/* Of the keys that agree with *prefix above `shift + bits`, settle the next
 * digit of the k-th largest; *k becomes its rank among those that agree. */
static void descend(const float *score, int n, int shift, int bits, uint32_t *prefix, int *k)
{
    int count[DIGITS] = { 0 };
    const uint32_t mask = (1u << bits) - 1;
    const uint64_t above = (uint64_t)*prefix >> (shift + bits);

    for (int i = 0; i < n; i++) {
        uint32_t key = order_key(score[i]);
        if ((uint64_t)key >> (shift + bits) == above)
            count[key >> shift & mask]++;
    }
    uint32_t digit = mask;
    while (digit > 0 && count[digit] < *k)
        *k -= count[digit--];
    *prefix |= digit << shift;
}

/* 1 <= k <= n; ties go to the lower index. */
static void best(int32_t *pick, int k, const float *score, int n)
{
    uint32_t least = 0;
    int ties = k, m = 0;

    descend(score, n, 21, 11, &least, &ties);
    descend(score, n, 10, 11, &least, &ties);
    descend(score, n, 0, 10, &least, &ties);
    for (int i = 0; i < n && m < k; i++) {
        uint32_t key = order_key(score[i]);
        if (key > least || (key == least && ties-- > 0))
            pick[m++] = i;
    }
}

/* ---- scores -------------------------------------------------------------------------------- */

/* score[0..n) = over heads in order: w_h * relu(dot_h). The loop is over a
 * whole tile, whatever lies there, because compilers vectorize a fixed count. */
static void add_heads(float *score, const float *dot, const float *w, int heads, int n)
{
    float sum[KV_TILE] = { 0 };

    for (int h = 0; h < heads; h++) {
        const float *d = dot + (size_t)h * KV_TILE;
        for (int i = 0; i < KV_TILE; i++)
            sum[i] += w[h] * (d[i] > 0 ? d[i] : 0);
    }
    memcpy(score, sum, (size_t)n * sizeof *sum);
}

/* Index rows [from, from + KV_TILE) of one slot against queries need[first..last). */
static void score_tile(const Select *a, int ith, int first, int last, int base, int from, int n)
{
    const Cpu *c = a->c;
    const int dim = c->be.shape->idx_dim, heads = c->be.shape->idx_heads;
    const IdxRowFormat *f = &a->kv->idx_row;
    float *tile = c->select.tile + (size_t)ith * KV_TILE * (size_t)dim;
    float *dot = c->select.dot + (size_t)ith * KV_TILE * (size_t)heads;
    size_t at = (size_t)c->at[c->select.need[first]].slot * (size_t)a->kv->comp_rows;
    const char *packed =
        (const char *)bytes_of(a->kv->idx) + (at + (size_t)from) * (size_t)f->bytes;

    for (int i = 0; i < n; i++)
        c->k->idx_unpack(f, tile + (size_t)i * (size_t)dim, packed + (size_t)i * (size_t)f->bytes);
    for (int j = first; j < last; j++) {
        int row = c->select.need[j], n_row = MIN(n, visible_to(a, row) - from);
        if (n_row <= 0)
            continue;
        c->k->gemm[QUANT_F32](dot, KV_TILE, tile, (size_t)dim * sizeof(float), n_row,
                              row_at(a->q, row), (size_t)dim, heads, dim);
        add_heads(c->select.score + (size_t)(j - base) * (size_t)c->select_cap + from, dot,
                  row_at(a->w, row), heads, n_row);
    }
}

/* Queries need[first..last) are of one slot; the threads share the tiles out. */
static void score_rows(const Select *a, int ith, int nth, int first, int last, int base)
{
    int most = 0, from, to;

    for (int j = first; j < last; j++)
        most = MAX(most, visible_to(a, a->c->select.need[j]));
    pool_part(most, KV_TILE, ith, nth, &from, &to);
    for (int t = from; t < to; t += KV_TILE)
        score_tile(a, ith, first, last, base, t, MIN(KV_TILE, to - t));
}

/* ---- the op ---------------------------------------------------------------------------------- */

static void prepare_queries(const Select *a, int ith, int nth)
{
    const Cpu *c = a->c;
    const Shape *s = c->be.shape;
    const int pairs = MIN(s->rope_dim, s->idx_dim) / 2;
    const float scale = 1 / sqrtf((float)s->idx_dim * (float)s->idx_heads);
    int first, last;

    cpu_part(a->l->idx_q.rows, ith, nth, &first, &last);
    cpu_matmul(c, a->q, &a->l->idx_q, 0, a->qr, first, last);
    cpu_part(s->idx_heads, ith, nth, &first, &last);
    cpu_matmul(c, a->w, &a->l->idx_w, 0, a->x, first, last);
    for (int i = 0; i < a->w.n; i++) {
        for (int h = first; h < last; h++)
            row_at(a->w, i)[h] *= scale;
    }
    pool_barrier(c->pool);

    pool_part(a->q.n * s->idx_heads, 1, ith, nth, &first, &last);
    for (int u = first; u < last; u++) {
        int row = u / s->idx_heads;
        float *q = row_at(a->q, row) + (size_t)(u % s->idx_heads) * (size_t)s->idx_dim;
        rope_turn(q + s->idx_dim - 2 * pairs, rope_row(c, 1, row), pairs, false);
        hadamard(q, s->idx_dim);
        if (s->rounding)
            fp4_round(q, s->idx_dim);
    }
    pool_barrier(c->pool);
}

static int same_slot(const Select *a, int first, int last)
{
    const int *need = a->c->select.need;
    int j = first + 1;

    while (j < last && a->c->at[need[j]].slot == a->c->at[need[first]].slot)
        j++;
    return j;
}

static void pick_best(const Select *a, int ith, int nth, int base, int last)
{
    const Cpu *c = a->c;
    const int k = c->be.shape->idx_topk;

    for (int j = base + ith; j < last; j += nth) {
        int row = c->select.need[j];
        best(a->pick + (size_t)row * (size_t)k, k,
             c->select.score + (size_t)(j - base) * (size_t)c->select_cap, visible_to(a, row));
    }
}

static void select_part(void *arg, int ith, int nth)
{
    const Select *a = arg;
    const Cpu *c = a->c;

    prepare_queries(a, ith, nth);
    for (int base = 0; base < a->n_need; base += c->select_rows) {
        int last = MIN(base + c->select_rows, a->n_need), end;
        for (int j = base; j < last; j = end) {
            end = same_slot(a, j, last);
            score_rows(a, ith, nth, j, end, base);
        }
        pool_barrier(c->pool);
        pick_best(a, ith, nth, base, last);
        pool_barrier(c->pool);
    }
}

/* Rows that see few enough take all; the others are listed. */
static void pick_all(Select *a, int n_rows)
{
    const int k = a->c->be.shape->idx_topk;

    for (int row = 0; row < n_rows; row++) {
        int32_t *pick = a->pick + (size_t)row * (size_t)k;
        int n = visible_to(a, row);
        if (n > k)
            a->c->select.need[a->n_need++] = row;
        for (int i = 0; n <= k && i < k; i++)
            pick[i] = i < n ? i : -1;
    }
}

void cpu_select(Backend *be, const Step *step, Buf pick, KvLayer *kv, Buf qr, Buf x, const Layer *l)
{
    const Shape *s = be->shape;
    Cpu *c = cpu_of(be);
    const int n = step->n_rows;
    Select a = { .c = c, .l = l, .kv = kv, .pick = ints(pick) };

    pick_all(&a, n);
    if (!a.n_need)
        return;
    a.x = rows_of(x, s->dim, n);
    a.qr = rows_of(qr, s->q_rank, n);
    a.q = (Rows){ c->select.q, (size_t)s->idx_heads * (size_t)s->idx_dim, n };
    a.w = (Rows){ c->select.w, (size_t)s->idx_heads, n };
    pool_run(c->pool, select_part, &a);
}
