/* cpu-kernels-index.c - index scores in integers are those of their definition.
 *
 * Definition: idxrow_unpack, hadamard, fp4_round, dots in double, heads added
 * in ascending order in F32. Where the scales of a row's blocks are not more
 * than 2^8 apart every dot is exact, and then the scores must have its bits;
 * else they may differ by the rounding of a sum of blocks. */
#include "../kernel_inputs.h"
#include <math.h>

enum { MOST_HEADS = 9, MOST_QUERIES = 3, MOST_ROWS = 80 };

typedef struct {
    int dim, heads, rows, queries;
    bool wide; /* scales far apart */
} Case;

typedef struct {
    IdxRowFormat f;
    float q[MOST_QUERIES * MOST_HEADS * IDX_MOST_DIM], w[MOST_QUERIES * MOST_HEADS];
    unsigned char *row;
} Inputs;

static void fill(Inputs *in, const Case *c, bool end)
{
    float x[IDX_MOST_DIM];

    in->f = idxrow_format(c->dim, true);
    in->row = place(w_room, (size_t)(c->rows * in->f.bytes), end);
    for (int i = 0; i < c->rows; i++) {
        for (int b = 0; b < c->dim; b += IDX_BLOCK)
            random_floats(x + b, IDX_BLOCK,
                          ldexpf(1, (int)(random_u32() >> 8) % (c->wide ? 60 : 7)));
        idxrow_pack(&in->f, in->row + i * in->f.bytes, x);
    }
    random_floats(in->q, (size_t)(c->queries * c->heads * c->dim), 3);
    random_floats(in->w, (size_t)(c->queries * c->heads), 1);
}

/* Scores of one query, and for each the sum of what its products amount to. */
static void define(float *score, double *size, const Inputs *in, const Case *c, int query)
{
    static float q[MOST_HEADS * IDX_MOST_DIM];
    const size_t n = (size_t)(c->heads * c->dim);

    memcpy(q, in->q + (size_t)query * n, n * sizeof *q);
    for (int h = 0; h < c->heads; h++) {
        hadamard(q + h * c->dim, c->dim);
        fp4_round(q + h * c->dim, c->dim);
    }
    for (int i = 0; i < c->rows; i++) {
        float x[IDX_MOST_DIM];
        idxrow_unpack(&in->f, x, in->row + i * in->f.bytes);
        score[i] = 0;
        size[i] = 0;
        for (int h = 0; h < c->heads; h++) {
            float w = in->w[query * c->heads + h];
            double dot = 0;
            for (int d = 0; d < c->dim; d++) {
                dot += (double)q[h * c->dim + d] * (double)x[d];
                size[i] += fabs((double)w * (double)q[h * c->dim + d] * (double)x[d]);
            }
            score[i] += w * (dot > 0 ? (float)dot : 0);
        }
    }
}

static void check(const Kernels *k, const Case *c, bool end)
{
    static Inputs in;
    static float q[MOST_QUERIES * MOST_HEADS * IDX_MOST_DIM], want[MOST_ROWS];
    static double size[MOST_ROWS];
    const int blocks = c->dim / IDX_BLOCK, lds = c->rows + 3;

    fill(&in, c, end);
    IdxBlock *block = place(x_room, (size_t)(c->queries * c->heads * blocks) * sizeof *block, end);
    float *got = place(out_room, (size_t)(c->queries * lds - 3) * sizeof *got, end);
    memcpy(q, in.q, sizeof q);
    for (int i = 0; i < c->queries * c->heads; i++)
        k->idx_query(block + i * blocks, q + i * c->dim, c->dim);
    for (int i = 0; i < c->queries * lds - 3; i++)
        got[i] = 12345;
    k->idx_scores(&in.f, got, (size_t)lds, in.row, c->rows, block, c->queries, in.w, c->heads);
    for (int i = 0; i < c->queries; i++) {
        define(want, size, &in, c, i);
        for (int r = 0; r < c->rows; r++) {
            if (c->wide)
                assert_true(fabs((double)got[i * lds + r] - (double)want[r]) <= 3e-7 * size[r]);
            else
                assert_memory_equal(&got[i * lds + r], &want[r], sizeof *want);
        }
        for (int r = c->rows; i + 1 < c->queries && r < lds; r++)
            assert_true(got[i * lds + r] == 12345); /* between rows of scores */
    }
}

static void for_each_table(void (*test)(const Kernels *k))
{
    int n = 0;
    for (const Kernels *const *k = all_tables(); *k; k++) {
        if (!(*k)->idx_scores)
            continue;
        test(*k);
        n++;
    }
    if (!n) {
        print_message("skipped: no table of this CPU scores in integers\n");
        skip();
    }
}

static void every_number_of_rows(const Kernels *k)
{
    for (int rows = 1; rows <= MOST_ROWS; rows++)
        check(k, &(Case){ 128, 4, rows, 1 + rows % MOST_QUERIES, false }, rows & 1);
}

static void every_number_of_heads_and_columns(const Kernels *k)
{
    static const int dims[] = { 32, 64, 128, 256 };
    for (size_t d = 0; d < COUNT(dims); d++) {
        for (int heads = 1; heads <= MOST_HEADS; heads++) {
            check(k, &(Case){ dims[d], heads, 33, 2, false }, heads & 1);
            check(k, &(Case){ dims[d], heads, 40, 1, true }, !(heads & 1));
        }
    }
}

static void scores_are_the_defined_bits_at_every_number_of_rows(void **state)
{
    (void)state;
    for_each_table(every_number_of_rows);
}

static void scores_are_the_defined_bits_at_every_shape(void **state)
{
    (void)state;
    for_each_table(every_number_of_heads_and_columns);
}

/* A query's blocks say what hadamard and fp4_round leave in floats. */
static void one_query(const Kernels *k, float *x, int dim)
{
    static float want[IDX_MOST_DIM];
    IdxBlock q[IDX_MOST_DIM / IDX_BLOCK];

    memcpy(want, x, (size_t)dim * sizeof *x);
    hadamard(want, dim);
    fp4_round(want, dim);
    k->idx_query(q, x, dim);
    for (int i = 0; i < dim; i++) {
        const IdxBlock *b = &q[i / IDX_BLOCK];
        int at = i % IDX_BLOCK / 8 * 8 + i % 2 * 4 + i % 8 / 2, sum = 0;
        float got = 2 * b->scale * (float)b->code[at];
        assert_true(isnan(want[i]) ? isnan(got) : got == want[i]);
        for (int c = 0; c < IDX_BLOCK; c++)
            sum += b->code[c];
        assert_int_equal(b->start, -12 * sum);
    }
}

static void queries(const Kernels *k)
{
    static float x[IDX_MOST_DIM];
    for (int dim = 32; dim <= IDX_MOST_DIM; dim *= 2) {
        for (int run = 0; run < 60; run++) {
            random_floats(x, (size_t)dim, ldexpf(1, 4 * (run % 50) - 100));
            for (int i = 0; run % 5 == 1 && i < dim; i++)
                x[i] = rintf(4 * x[i]); /* sums that lie on the ties of rounding */
            if (run == 7)
                x[dim / 2] = NAN;
            if (run == 9)
                x[dim / 3] = -INFINITY;
            if (run == 8)
                memset(x, 0, sizeof x);
            one_query(k, x, dim);
        }
    }
}

static void a_query_is_rounded_as_it_is_defined(void **state)
{
    (void)state;
    for_each_table(queries);
}

/* A NaN in a query or a row's scale gives 0, as relu of a NaN does. */
static void no_number(const Kernels *k)
{
    static Inputs in;
    static IdxBlock q[4];
    float got[3];

    fill(&in, &(Case){ 128, 1, 3, 1, false }, true);
    in.q[5] = NAN;
    k->idx_query(q, in.q, 128);
    k->idx_scores(&in.f, got, 3, in.row, 3, q, 1, in.w, 1);
    for (int i = 0; i < 3; i++)
        assert_true(got[i] == 0);
    fill(&in, &(Case){ 128, 1, 3, 1, false }, true);
    in.row[in.f.bytes + 64] = 255;
    k->idx_query(q, in.q, 128);
    k->idx_scores(&in.f, got, 3, in.row, 3, q, 1, in.w, 1);
    assert_true(got[1] == 0);
}

static void what_is_no_number_scores_nothing(void **state)
{
    (void)state;
    for_each_table(no_number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_defined_bits_at_every_number_of_rows),
        cmocka_unit_test(scores_are_the_defined_bits_at_every_shape),
        cmocka_unit_test(a_query_is_rounded_as_it_is_defined),
        cmocka_unit_test(what_is_no_number_scores_nothing),
    };
    return cmocka_run_group_tests(tests, make_rooms, drop_rooms);
}
