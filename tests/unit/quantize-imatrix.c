/* Importance matrices: both forms of file, what they mean, and what is refused. */
#include "../../src/base/file.h"
#include "../../src/gguf/gguf.h"
#include "../../src/quantize/imatrix.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static const char *path_of(const char *end)
{
    static char path[2][64];
    static int turn;
    char *p = path[turn++ % 2];
    snprintf(p, sizeof path[0], "/tmp/ds4-imatrix-%d%s", (int)getpid(), end);
    return p;
}

/* Three experts of four columns, of which the second is never seen, and a plain one. */
static void make(Imatrix *m)
{
    static const float rows[3][4] = { { 1, 2, 3, 4 }, { -2, 0, 1, 0 }, { 5, 5, 1, 2 } };
    ds4_err err;
    *m = (Imatrix){ .chunks = 7, .chunk_size = 512 };
    ImatrixEntry *e = imatrix_add(m, STR("blk.1.ffn_up_exps.weight"), 3, 4, &err);
    assert_non_null(e);
    imatrix_see(e, 0, rows[0]);
    imatrix_see(e, 0, rows[1]);
    imatrix_see(e, 2, rows[2]);
    e = imatrix_add(m, STR("output.weight"), 1, 5, &err);
    assert_non_null(e);
    imatrix_see(e, 0, (const float[]){ 1, 0, 2, 0, 3 });
    assert_true(imatrix_add_dataset(m, STR("a.txt"), &err));
    assert_true(imatrix_add_dataset(m, STR("b.txt"), &err));
}

static void read_back(Imatrix *m, const char *path)
{
    ds4_err err = { 0 };
    if (!imatrix_read(m, path, &err))
        fail_msg("%s", err.msg);
    unlink(path);
}

static void sums_are_of_squares_of_the_rows_that_were_seen(void **state)
{
    (void)state;
    Imatrix m;
    make(&m);
    const ImatrixEntry *e = imatrix_find(&m, STR("blk.1.ffn_up_exps.weight"));
    const float sums[12] = { 5, 4, 10, 16, 0, 0, 0, 0, 25, 25, 1, 4 };
    assert_memory_equal(e->sums, sums, sizeof sums);
    const float counts[3] = { 2, 0, 1 };
    assert_memory_equal(e->counts, counts, sizeof counts);
    assert_string_equal(m.dataset, "a.txt\nb.txt");
    imatrix_release(&m);
}

static void the_gguf_form_comes_back_bit_by_bit(void **state)
{
    (void)state;
    Imatrix m, r;
    ds4_err err;
    make(&m);
    assert_true(imatrix_write(&m, path_of(".gguf"), &err));
    read_back(&r, path_of(".gguf"));
    assert_int_equal(r.n, m.n);
    for (size_t i = 0; i < m.n; i++) {
        const ImatrixEntry *a = &m.entry[i], *b = &r.entry[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->n_experts, b->n_experts);
        assert_int_equal(a->n_columns, b->n_columns);
        assert_memory_equal(a->sums, b->sums, sizeof(float) * a->n_experts * a->n_columns);
        assert_memory_equal(a->counts, b->counts, sizeof(float) * a->n_experts);
    }
    assert_int_equal(r.chunks, 7);
    assert_int_equal(r.chunk_size, 512);
    assert_string_equal(r.dataset, "a.txt\nb.txt");
    imatrix_release(&m);
    imatrix_release(&r);
}

/* The names, types and dimensions that llama.cpp's tools read and write. */
static void the_gguf_form_is_llama_cpps(void **state)
{
    (void)state;
    Imatrix m;
    Map map;
    Gguf g;
    Str s;
    int64_t v;
    size_t at = 0;
    ds4_err err;
    make(&m);
    assert_true(imatrix_write(&m, path_of(".gguf"), &err));
    assert_true(map_open(&map, path_of(".gguf"), &err) && gguf_parse(&g, map.p, map.n, &err));
    assert_true(gguf_str(gguf_kv(&g, "general.type"), &s) && str_eq(s, STR("imatrix")));
    assert_true(gguf_int(gguf_kv(&g, "imatrix.chunk_count"), &v) && v == 7);
    assert_int_equal(gguf_kv(&g, "imatrix.chunk_count")->type, GGUF_U32);
    assert_true(gguf_int(gguf_kv(&g, "imatrix.chunk_size"), &v) && v == 512);
    assert_true(gguf_next_str(gguf_kv(&g, "imatrix.datasets"), &at, &s) && str_eq(s, STR("a.txt")));
    const GgufTensor *t = gguf_tensor(&g, "blk.1.ffn_up_exps.weight.in_sum2");
    assert_true(t && t->type == QUANT_F32 && t->dims[0] == 4 && t->dims[1] == 3);
    t = gguf_tensor(&g, "blk.1.ffn_up_exps.weight.counts");
    assert_true(t && t->type == QUANT_F32 && t->dims[0] == 1 && t->dims[1] == 3);
    gguf_release(&g);
    map_close(&map);
    unlink(path_of(".gguf"));
    imatrix_release(&m);
}

/* Sums over counts are the same, and who was not seen is known. */
static void the_legacy_form_keeps_the_means(void **state)
{
    (void)state;
    Imatrix m, r;
    ds4_err err;
    make(&m);
    assert_true(imatrix_write(&m, path_of(".dat"), &err));
    read_back(&r, path_of(".dat"));
    ImatrixEntry *b = imatrix_find(&r, STR("blk.1.ffn_up_exps.weight"));
    const ImatrixEntry *a = imatrix_find(&m, STR("blk.1.ffn_up_exps.weight"));
    assert_int_equal(b->n_columns, 12);
    assert_false(imatrix_shape(b, 3, 5, &err));
    assert_non_null(strstr(err.msg, "blk.1.ffn_up_exps.weight: 1 x 12 values, expected 3 x 5"));
    assert_true(imatrix_shape(b, 3, 4, &err));
    assert_true(imatrix_shape(b, 3, 4, &err));
    assert_true(b->counts[1] == 0 && b->counts[0] > 0 && b->counts[2] > 0);
    for (int i = 0; i < 12; i++) {
        float want = a->counts[i / 4] > 0 ? a->sums[i] / a->counts[i / 4] : 0;
        float is = b->counts[i / 4] > 0 ? b->sums[i] / b->counts[i / 4] : 0;
        assert_float_equal(is, want, 1e-6);
    }
    assert_int_equal(r.chunks, 7);
    assert_string_equal(r.dataset, "a.txt\nb.txt");
    imatrix_release(&m);
    imatrix_release(&r);
}

/* Byte for byte as another program writes it. */
static void the_legacy_form_is_the_published_layout(void **state)
{
    (void)state;
    Bytes b = { 0 };
    Imatrix m;
    ds4_err err;
    bytes_u32(&b, 1);
    bytes_u32(&b, 3);
    bytes_str(&b, "abc");
    bytes_u32(&b, 4); /* calls */
    bytes_u32(&b, 2);
    bytes_f32(&b, 8);
    bytes_f32(&b, 2);
    assert_true(imatrix_parse(&m, b.p, b.n, &err)); /* without the end, as old files are */
    assert_true(m.entry[0].sums[0] / m.entry[0].counts[0] == 2);
    assert_null(m.dataset);
    imatrix_release(&m);
    bytes_u32(&b, 9);
    bytes_u32(&b, 2);
    bytes_str(&b, "xy");
    assert_true(imatrix_parse(&m, b.p, b.n, &err));
    assert_int_equal(m.chunks, 9);
    assert_string_equal(m.dataset, "xy");
    assert_true(imatrix_write(&m, path_of(".dat"), &err));
    Bytes again = { 0 };
    assert_true(file_read(&again, path_of(".dat"), 1000, &err));
    assert_int_equal(again.n, b.n);
    assert_memory_equal(again.p, b.p, b.n);
    unlink(path_of(".dat"));
    imatrix_release(&m);
    bytes_release(&b);
    bytes_release(&again);
}

static void merging_adds_what_both_have_seen(void **state)
{
    (void)state;
    Imatrix m, other, legacy, into = { 0 };
    ds4_err err;
    make(&m);
    make(&other);
    assert_non_null(imatrix_add(&other, STR("more"), 2, 2, &err));
    assert_true(imatrix_merge(&m, &other, &err));
    const ImatrixEntry *e = imatrix_find(&m, STR("blk.1.ffn_up_exps.weight"));
    assert_true(e->sums[0] == 10 && e->counts[0] == 4 && e->counts[1] == 0);
    assert_int_equal(m.n, 3);
    assert_int_equal(m.chunks, 14);
    assert_string_equal(m.dataset, "a.txt\nb.txt\na.txt\nb.txt");

    /* The legacy form's entry takes the shape of the other one, in either order. */
    for (int order = 0; order < 2; order++) {
        assert_true(imatrix_write(&other, path_of(".dat"), &err));
        read_back(&legacy, path_of(".dat"));
        assert_true(imatrix_merge(&into, order ? &other : &legacy, &err));
        assert_true(imatrix_merge(&into, order ? &legacy : &other, &err));
        e = imatrix_find(&into, STR("blk.1.ffn_up_exps.weight"));
        assert_int_equal(e->n_experts, 3);
        assert_true(e->counts[1] == 0 && e->counts[2] > 1);
        imatrix_release(&into);
        imatrix_release(&legacy);
    }
    assert_non_null(imatrix_add(&into, STR("more"), 3, 2, &err));
    assert_false(imatrix_merge(&into, &other, &err));
    assert_non_null(strstr(err.msg, "more: 3 x 2 values, expected 2 x 2"));
    imatrix_release(&into);
    imatrix_release(&m);
    imatrix_release(&other);
}

/* ---- what is refused ----------------------------------------------------------- */

static void refused(const void *p, size_t n, const char *says)
{
    Imatrix m;
    ds4_err err = { 0 };
    assert_false(imatrix_parse(&m, p, n, &err));
    if (!strstr(err.msg, says))
        fail_msg("expected '%s', got '%s'", says, err.msg);
    assert_null(m.entry);
}

static void legacy(Bytes *b, uint32_t entries, const char *name, uint32_t n, float v)
{
    bytes_clear(b);
    bytes_u32(b, entries);
    bytes_u32(b, (uint32_t)strlen(name));
    bytes_str(b, name);
    bytes_u32(b, 1);
    bytes_u32(b, n);
    bytes_f32(b, v);
    bytes_f32(b, 1);
}

static void legacy_lies_are_named(void **state)
{
    (void)state;
    Bytes b = { 0 };
    char name[200] = "";
    memset(name, 'x', sizeof name - 1);
    legacy(&b, 1, "abc", 2, 1);
    for (size_t n = 0; n < b.n; n++)
        refused(b.p, n, "importance");
    legacy(&b, 1, "abc", 2, -1);
    refused(b.p, b.n, "importance of abc: value 0 is -1");
    legacy(&b, 1, "abc", 2, NAN);
    refused(b.p, b.n, "importance of abc: value 0 is");
    legacy(&b, 1, "abc", 3, 1);
    refused(b.p, b.n, "ends within entry 0");
    legacy(&b, 1, "abc", 0x80000002, 1);
    refused(b.p, b.n, "ends within entry 0");
    legacy(&b, 1, "", 2, 1);
    refused(b.p, b.n, "a name of 0 bytes");
    legacy(&b, 1, name, 2, 1);
    refused(b.p, b.n, "a name of 199 bytes");
    legacy(&b, 0x7fffffff, "abc", 2, 1);
    refused(b.p, b.n, "are no importance matrix");
    legacy(&b, 1, "abc", 2, 1);
    bytes_str(&b, "rest");
    refused(b.p, b.n, "after the last entry");
    bytes_release(&b);
}

typedef struct {
    int sums_type, counts_type;
    uint64_t columns, experts, counts;
    const char *sums_name, *counts_name;
} Form;

static void gguf_of(Bytes *out, Form f)
{
    GgufWriter w = { 0 };
    uint64_t at, n, dims[2] = { f.columns, f.experts }, one[2] = { 1, f.counts };
    ds4_err err;
    assert_true(
        gguf_put_tensor(&w, str_of(f.sums_name), f.sums_type, 2, dims, UINT64_MAX, &at, &n, &err));
    assert_true(gguf_put_tensor(&w, str_of(f.counts_name), f.counts_type, 2, one, UINT64_MAX, &at,
                                &n, &err));
    assert_true(gguf_header(&w, out, &err));
    bytes_fill(out, 0, w.data_bytes);
    gguf_writer_release(&w);
}

static void gguf_lies_are_named(void **state)
{
    (void)state;
    static const struct {
        Form form;
        const char *says;
    } all[] = {
        { { 0, 0, 4, 2, 2, "a.weight", "a.counts" }, "a GGUF without importance" },
        { { 0, 0, 4, 2, 2, "a.in_sum2", "b.counts" }, "importance of a has no counts" },
        { { 1, 0, 4, 2, 2, "a.in_sum2", "a.counts" }, "importance of a is F16 and F32" },
        { { 0, 26, 4, 2, 2, "a.in_sum2", "a.counts" }, "importance of a is F32 and I32" },
        { { 0, 0, 4, 2, 3, "a.in_sum2", "a.counts" }, "importance of a: 3 counts for 2 x 4" },
    };
    Bytes b = { 0 };
    for (size_t i = 0; i < COUNT(all); i++) {
        gguf_of(&b, all[i].form);
        refused(b.p, b.n, all[i].says);
    }
    gguf_of(&b, (Form){ 0, 0, 4, 2, 2, "a.in_sum2", "a.counts" });
    for (size_t n = 0; n < b.n - 24; n++) /* the rest is padding */
        refused(b.p, n, "");
    bytes_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_of_squares_of_the_rows_that_were_seen),
        cmocka_unit_test(the_gguf_form_comes_back_bit_by_bit),
        cmocka_unit_test(the_gguf_form_is_llama_cpps),
        cmocka_unit_test(the_legacy_form_keeps_the_means),
        cmocka_unit_test(the_legacy_form_is_the_published_layout),
        cmocka_unit_test(merging_adds_what_both_have_seen),
        cmocka_unit_test(legacy_lies_are_named),
        cmocka_unit_test(gguf_lies_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
