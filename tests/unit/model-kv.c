/* KV state as bytes: sizes, marks, undoing. No op runs here: the state is
 * filled with numbers and must come back as it was. */
#include "../../src/model/kv.h"
#include "../../src/ops/decorate.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static Shape toy(bool rounding)
{
    return (Shape){ .n_layers = 3,
                    .dim = 64,
                    .vocab = 32,
                    .context = 4096,
                    .n_heads = 2,
                    .head_dim = 80,
                    .rope_dim = 16,
                    .window = 8,
                    .idx_heads = 2,
                    .idx_dim = 32,
                    .idx_topk = 4,
                    .ratio = { 0, 4, 128 },
                    .rounding = rounding };
}

static const Shape flash = {
    .n_layers = 3,
    .head_dim = 512,
    .rope_dim = 64,
    .window = 128,
    .idx_dim = 128,
    .ratio = { 0, 4, 128 },
    .rounding = true,
};

typedef struct {
    Shape shape;
    Backend *be;
    Kv kv;
} Fixture;

static void fixture_open(Fixture *f, bool rounding, int slots)
{
    f->shape = toy(rounding);
    f->be = null_open(&f->shape, NULL);
    assert_non_null(f->be);
    assert_true(kv_init(&f->kv, &f->shape, f->be, slots, 1024, 64, NULL));
}

static void fixture_close(Fixture *f)
{
    kv_release(&f->kv, f->be);
    backend_close(f->be);
}

static bool fill_piece(void *user, Buf b, size_t bytes)
{
    unsigned *seed = user;
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)b.base)[b.off + i] =
            (unsigned char)((*seed = *seed * 1664525u + 7) >> 24);
    return true;
}

static bool count_pieces(void *user, Buf b, size_t bytes)
{
    (void)b;
    (void)bytes;
    return --*(int *)user > 0;
}

static void rows_have_their_published_sizes(void **state)
{
    (void)state;
    Kv kv = { .shape = &flash };
    Backend *be = null_open(&flash, NULL);
    assert_true(kv_init(&kv, &flash, be, 1, 4096, 512, NULL));
    /* 1 row a 4 tokens of 584 + 68 bytes, 1 row a 128 of 584 */
    assert_int_equal(kv_rows_bytes(&kv, 0, 1024), 256 * (584 + 68) + 8 * 584);
    assert_int_equal(kv_rows_bytes(&kv, 0, 127), 31 * (584 + 68));
    assert_int_equal(kv_rows_bytes(&kv, 1024, 2048), kv_rows_bytes(&kv, 0, 1024));
    /* at a multiple of 128: 127 window rows a layer and one group of 4 */
    assert_int_equal(kv_mark_bytes(&kv, 256), 3 * 127 * 584 + 2 * 4 * 4 * (1024 + 256));
    /* 5 tokens further: the group before, and 1 and 5 open positions */
    assert_int_equal(kv_mark_bytes(&kv, 261),
                     3 * 127 * 584 + 2 * 4 * 5 * (1024 + 256) + 2 * 4 * 5 * 512);
    assert_int_equal(kv_mark_bytes(&kv, 0), 0);
    kv_release(&kv, be);
    backend_close(be);
}

static void slots_take_what_the_plan_says(void **state)
{
    Fixture f;
    uint64_t sum = 0;

    (void)state;
    fixture_open(&f, true, 1);
    for (int i = 0; i < 3; i++) {
        const KvLayer *l = &f.kv.layer[i];
        sum += (uint64_t)l->ring_rows * (uint64_t)l->row.bytes;
        if (!l->ratio)
            continue;
        const uint64_t state_bytes =
            2 * 4 * (uint64_t)shape_state_rows(l->ratio) * (uint64_t)shape_comp_width(l->ratio, 80);
        sum += (uint64_t)l->comp_rows * (uint64_t)l->row.bytes + 2 * state_bytes;
        if (l->ratio == 4)
            sum += (uint64_t)l->comp_rows * (uint64_t)l->idx_row.bytes + 2 * 2 * 4 * 8 * 64;
    }
    assert_int_equal(sum, kv_slot_bytes(&f.shape, 1024, 64));
    assert_int_equal(f.kv.layer[1].ring_rows, 8 - 1 + 64);
    fixture_close(&f);
}

/* At every remainder of 4 and 128, with a ring that has wrapped. */
static void marks_come_back_as_they_were(void **state)
{
    (void)state;
    for (int rounding = 0; rounding < 2; rounding++) {
        Fixture f;
        fixture_open(&f, rounding, 2);
        for (int n = 0; n < 300; n++) {
            unsigned seed = (unsigned)n;
            const size_t bytes = (size_t)kv_mark_bytes(&f.kv, n);
            char *a = malloc(bytes + 1), *b = malloc(bytes + 1);
            kv_mark_walk(&f.kv, 1, n, fill_piece, &seed);
            kv_mark_save(&f.kv, f.be, 1, n, a);
            kv_mark_walk(&f.kv, 1, n, fill_piece, &seed);
            kv_mark_load(&f.kv, f.be, 1, n, a);
            kv_mark_save(&f.kv, f.be, 1, n, b);
            assert_memory_equal(a, b, bytes);
            free(a);
            free(b);
        }
        fixture_close(&f);
    }
}

static void walks_stop_when_told(void **state)
{
    Fixture f;
    int left = 3;

    (void)state;
    fixture_open(&f, true, 1);
    assert_false(kv_mark_walk(&f.kv, 0, 200, count_pieces, &left));
    assert_int_equal(left, 0);
    left = 2;
    assert_false(kv_rows_walk(&f.kv, 0, 0, 200, count_pieces, &left));
    assert_int_equal(left, 0);
    fixture_close(&f);
}

/* What the ops write of one position: a window row and pooling inputs. */
static void write_row(Buf b, size_t row_bytes, int rows, int slot, int p, unsigned *seed)
{
    const size_t at = ((size_t)slot * (size_t)rows + (size_t)(p % rows)) * row_bytes;
    fill_piece(seed, buf_at(b, at), row_bytes);
}

static void write_position(Kv *kv, int slot, int p, unsigned *seed)
{
    for (int i = 0; i < kv->shape->n_layers; i++) {
        const KvLayer *l = &kv->layer[i];
        const int rows = shape_state_rows(l->ratio);
        write_row(l->ring, (size_t)l->row.bytes, l->ring_rows, slot, p, seed);
        if (!l->ratio)
            continue;
        const size_t wide = 4 * (size_t)shape_comp_width(l->ratio, l->row.dim);
        write_row(l->comp_kv, wide, rows, slot, p, seed);
        write_row(l->comp_score, wide, rows, slot, p, seed);
        if (l->ratio == 4) {
            write_row(l->idx_kv, 4 * 64, rows, slot, p, seed);
            write_row(l->idx_score, 4 * 64, rows, slot, p, seed);
        }
    }
}

/* At any length, a step of any size that is given up leaves no trace. */
static void undoing_restores_what_a_step_overwrote(void **state)
{
    Fixture f;
    unsigned seed = 1;
    char *a, *b;

    (void)state;
    fixture_open(&f, true, 2);
    a = malloc((size_t)kv_mark_bytes(&f.kv, 127));
    b = malloc((size_t)kv_mark_bytes(&f.kv, 127));
    for (int pos = 0; pos < 260; pos++) {
        for (int n = 1; n <= 64; n = n < 8 ? n + 1 : n * 2) {
            kv_mark_save(&f.kv, f.be, 1, pos, a);
            kv_protect(&f.kv, f.be, 1, pos, n);
            for (int p = pos; p < pos + n; p++)
                write_position(&f.kv, 1, p, &seed);
            kv_undo(&f.kv, f.be, 1, pos, n);
            kv_mark_save(&f.kv, f.be, 1, pos, b);
            assert_memory_equal(a, b, (size_t)kv_mark_bytes(&f.kv, pos));
        }
        write_position(&f.kv, 1, pos, &seed);
    }
    free(a);
    free(b);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_their_published_sizes),
        cmocka_unit_test(slots_take_what_the_plan_says),
        cmocka_unit_test(marks_come_back_as_they_were),
        cmocka_unit_test(walks_stop_when_told),
        cmocka_unit_test(undoing_restores_what_a_step_overwrote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
