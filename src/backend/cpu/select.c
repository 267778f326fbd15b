/* select.c - the indexer: which pooled rows of a ratio-4 layer a query reads.
 *
 * A row that sees no more than idx_topk of them takes them all, without
 * scoring. The others score every visible row, a block of queries at a time so
 * that an index row is unpacked once for several: in integers where both are
 * FP4, which is exact, else in F32. Then they find the smallest score that
 * still gets in by a radix descent over the scores' bits: linear in the number
 * of rows at any context. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Layer *l;
    const KvLayer *kv;
    Rows x, qr, q, w;
    int32_t *pick;
    int n_need;
    bool integers; /* queries and rows are FP4, and the set multiplies those */
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

/* The scores become their keys, in place. */
static void make_keys(float *score, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t key = order_key(score[i]);
        memcpy(&score[i], &key, sizeof key);
    }
}

static inline uint32_t key_at(const float *keys, int i)
{
    uint32_t key;
    memcpy(&key, &keys[i], sizeof key);
    return key;
}

enum { DIGITS = 1 << 11 };

/* The digit at which the k-th largest lies; *k becomes its rank among the keys that have it. */
static uint32_t digit_of(const int *count, int digits, int *k)
{
    uint32_t digit = (uint32_t)digits - 1;
    while (digit > 0 && count[digit] < *k)
        *k -= count[digit--];
    return digit;
}

/* The next digit of the k-th largest, of the keys that agree with `prefix` above it. */
static uint32_t descend(const float *keys, int n, int shift, int bits, uint32_t prefix, int *k)
{
    int count[DIGITS] = { 0 };
    const uint32_t mask = (1u << bits) - 1;
    const int above = shift + bits;

    for (int i = 0; i < n; i++) {
        uint32_t key = key_at(keys, i);
        if (key >> above == prefix >> above)
            count[key >> shift & mask]++;
    }
    return prefix | digit_of(count, 1 << bits, k) << shift;
}

/* The first digit: two counts by turns, since equal neighbours would wait for each other. */
static uint32_t first_digit(const float *keys, int n, int *k)
{
    int count[2][DIGITS] = { 0 };
    int i = 0;

    for (; i + 2 <= n; i += 2) {
        count[0][key_at(keys, i) >> 21]++;
        count[1][key_at(keys, i + 1) >> 21]++;
    }
    if (i < n)
        count[0][key_at(keys, i) >> 21]++;
    for (int d = 0; d < DIGITS; d++)
        count[0][d] += count[1][d];
    return digit_of(count[0], DIGITS, k) << 21;
}

/* The k best of n keys, 1 <= k <= n, in ascending order; ties go to the lower index. */
static void best(int32_t *pick, int k, const float *keys, int n)
{
    int ties = k, m = 0;
    uint32_t least = first_digit(keys, n, &ties);

    least = descend(keys, n, 10, 11, least, &ties);
    least = descend(keys, n, 0, 10, least, &ties);
    for (int i = 0; m < k; i++) {
        const uint32_t key = key_at(keys, i);
        const bool tie = key == least;
        pick[m] = i;
        m += key > least || (tie && ties > 0);
        ties -= tie;
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

static const char *index_rows(const Select *a, int slot, int from)
{
    size_t at = (size_t)slot * (size_t)a->kv->comp_rows + (size_t)from;
    return (const char *)bytes_of(a->kv->idx) + at * (size_t)a->kv->idx_row.bytes;
}

/* Index rows [from, from + KV_TILE) of one slot against queries need[first..last). */
static void score_tile(const Select *a, int ith, int first, int last, int base, int from, int n)
{
    const Cpu *c = a->c;
    const int dim = c->be.shape->idx_dim, heads = c->be.shape->idx_heads;
    const IdxRowFormat *f = &a->kv->idx_row;
    float *tile = c->select.tile + (size_t)ith * KV_TILE * (size_t)dim;
    float *dot = c->select.dot + (size_t)ith * KV_TILE * (size_t)heads;
    const char *packed = index_rows(a, c->at[c->select.need[first]].slot, from);

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

/* The blocks of a row's query. */
static IdxBlock *blocks_of(const Select *a, int row)
{
    const Shape *s = a->c->be.shape;
    return a->c->select.block + (size_t)row * (size_t)(s->idx_heads * (s->idx_dim / IDX_BLOCK));
}

/* Queries need[first..last) are neighbours of one slot; the threads share the tiles out. In
 * integers all queries take all rows: what one does not see is not looked at. */
static void score_rows(const Select *a, int ith, int nth, int first, int last, int base)
{
    const Cpu *c = a->c;
    const int row = c->select.need[first];
    int most = 0, from, to;

    for (int j = first; j < last; j++)
        most = MAX(most, visible_to(a, c->select.need[j]));
    pool_part(most, KV_TILE, ith, nth, &from, &to);
    if (a->integers) {
        float *score = c->select.score + (size_t)(first - base) * (size_t)c->select_cap + from;
        c->k->idx_scores(&a->kv->idx_row, score, (size_t)c->select_cap,
                         index_rows(a, c->at[row].slot, from), to - from, blocks_of(a, row),
                         last - first, row_at(a->w, row), c->be.shape->idx_heads);
        return;
    }
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
        if (a->integers) {
            c->k->idx_query(blocks_of(a, row) + u % s->idx_heads * (s->idx_dim / IDX_BLOCK), q,
                            s->idx_dim);
            continue;
        }
        hadamard(q, s->idx_dim);
        if (s->rounding)
            fp4_round(q, s->idx_dim);
    }
    pool_barrier(c->pool);
}

/* The end of the queries from `first` that are neighbours of one slot. */
static int neighbours(const Select *a, int first, int last)
{
    const int *need = a->c->select.need;
    int j = first + 1;

    while (j < last && need[j] == need[j - 1] + 1 &&
           a->c->at[need[j]].slot == a->c->at[need[first]].slot)
        j++;
    return j;
}

/* One row by all threads: each takes the best of its part, the first the best of those. */
static void pick_together(const Select *a, int ith, int nth, int row, float *score)
{
    const Cpu *c = a->c;
    const int k = c->be.shape->idx_topk, n = visible_to(a, row);
    const Candidates *all = &c->select.of;
    int32_t *at = all->at + (size_t)ith * (size_t)k, *pick = a->pick + (size_t)row * (size_t)k;
    int first, last, m = 0;

    pool_part(n, SLICE, ith, nth, &first, &last);
    all->n[ith] = MIN(k, last - first);
    make_keys(score + first, last - first);
    if (all->n[ith] > 0)
        best(at, all->n[ith], score + first, last - first);
    for (int i = 0; i < all->n[ith]; i++)
        at[i] += first;
    pool_barrier(c->pool);
    if (ith)
        return;
    for (int t = 0; t < nth; t++) {
        for (int i = 0; i < all->n[t]; i++, m++) {
            all->at[m] = all->at[(size_t)t * (size_t)k + (size_t)i];
            all->key[m] = score[all->at[m]];
        }
    }
    best(pick, k, all->key, m);
    for (int i = 0; i < k; i++)
        pick[i] = all->at[pick[i]];
}

static void pick_best(const Select *a, int ith, int nth, int base, int last)
{
    const Cpu *c = a->c;
    const int k = c->be.shape->idx_topk;

    if (last - base == 1) {
        pick_together(a, ith, nth, c->select.need[base], c->select.score);
        return;
    }
    for (int j = base + ith; j < last; j += nth) {
        int row = c->select.need[j], n = visible_to(a, row);
        float *score = c->select.score + (size_t)(j - base) * (size_t)c->select_cap;
        make_keys(score, n);
        best(a->pick + (size_t)row * (size_t)k, k, score, n);
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
            end = neighbours(a, j, last);
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
    a.integers =
        s->rounding && kv->idx_row.packed && c->k->idx_scores && s->idx_dim <= IDX_MOST_DIM;
    pool_run(c->pool, select_part, &a);
}
