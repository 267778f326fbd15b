/* GGUF there and back, and files that lie. */
#include "../../src/gguf/gguf.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <cmocka.h>

/* ---- a file with one of everything -------------------------------------- */

static void put_strings(GgufWriter *w, const char *key, int n, const char *const *text)
{
    Bytes b = { 0 };
    for (int i = 0; i < n; i++) {
        bytes_u64(&b, strlen(text[i]));
        bytes_str(&b, text[i]);
    }
    gguf_put_array(w, key, GGUF_STRING, (uint64_t)n, b.p, b.n);
    bytes_release(&b);
}

static void put_metadata(GgufWriter *w)
{
    gguf_put_str(w, "general.architecture", STR("deepseek4"));
    gguf_put_int(w, "u8", GGUF_U8, 200);
    gguf_put_int(w, "i8", GGUF_I8, -5);
    gguf_put_int(w, "u16", GGUF_U16, 60000);
    gguf_put_int(w, "i16", GGUF_I16, -30000);
    gguf_put_int(w, "u32", GGUF_U32, 4000000000);
    gguf_put_int(w, "i32", GGUF_I32, -2000000000);
    gguf_put_int(w, "u64", GGUF_U64, INT64_MAX);
    gguf_put_int(w, "huge", GGUF_U64, -1);
    gguf_put_int(w, "i64", GGUF_I64, INT64_MIN);
    gguf_put_f32(w, "f32", 1.5f);
    gguf_put_bool(w, "yes", true);
    gguf_put_bool(w, "no", false);
    gguf_put_str(w, "empty", STR(""));
    static const unsigned char numbers[] = { 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff };
    gguf_put_array(w, "ints", GGUF_I32, 2, numbers, sizeof numbers);
    put_strings(w, "strings", 3, (const char *const[]){ "one", "", "three" });
}

static const uint64_t f32_dims[] = { 4, 3 }, q8_dims[] = { 64, 2, 3 };

/* Header and zeroed data; the tensors' offsets go to off[3]. */
static void build(Bytes *file, int alignment, uint64_t off[3])
{
    GgufWriter w = { .alignment = alignment };
    uint64_t bytes;
    put_metadata(&w);
    assert_true(
        gguf_put_tensor(&w, STR("a"), QUANT_F32, 2, f32_dims, UINT64_MAX, &off[0], &bytes, NULL));
    assert_int_equal(bytes, 48);
    assert_true(
        gguf_put_tensor(&w, STR("b"), QUANT_Q8_0, 3, q8_dims, UINT64_MAX, &off[1], &bytes, NULL));
    assert_int_equal(bytes, 12 * 34);
    assert_true(
        gguf_put_tensor(&w, STR("again"), QUANT_F32, 2, f32_dims, off[0], &off[2], &bytes, NULL));
    assert_true(gguf_header(&w, file, NULL));
    bytes_fill(file, 7, (size_t)w.data_bytes);
    gguf_writer_release(&w);
}

static int64_t int_of(const Gguf *g, const char *key)
{
    int64_t v = 0;
    assert_true(gguf_int(gguf_kv(g, key), &v));
    return v;
}

static void metadata_comes_back_as_written(void **state)
{
    (void)state;
    Bytes file = { 0 };
    uint64_t off[3];
    Gguf g;
    ds4_err err = { 0 };
    build(&file, 0, off);
    assert_true(gguf_parse(&g, file.p, file.n, &err));
    assert_int_equal(g.n_kv, 16);
    assert_int_equal(int_of(&g, "u8"), 200);
    assert_int_equal(int_of(&g, "i8"), -5);
    assert_int_equal(int_of(&g, "u16"), 60000);
    assert_int_equal(int_of(&g, "i16"), -30000);
    assert_int_equal(int_of(&g, "u32"), 4000000000);
    assert_int_equal(int_of(&g, "i32"), -2000000000);
    assert_int_equal(int_of(&g, "u64"), INT64_MAX);
    assert_int_equal(int_of(&g, "i64"), INT64_MIN);
    int64_t i;
    assert_false(gguf_int(gguf_kv(&g, "huge"), &i));
    assert_false(gguf_int(gguf_kv(&g, "f32"), &i));
    assert_false(gguf_int(gguf_kv(&g, "missing"), &i));
    assert_false(gguf_int(gguf_kv(&g, "yes"), &i));
    double f;
    assert_true(gguf_float(gguf_kv(&g, "f32"), &f) && f == 1.5);
    assert_true(gguf_float(gguf_kv(&g, "i8"), &f) && f == -5);
    assert_false(gguf_float(gguf_kv(&g, "empty"), &f));
    bool b = false;
    assert_true(gguf_bool(gguf_kv(&g, "yes"), &b) && b);
    assert_true(gguf_bool(gguf_kv(&g, "no"), &b) && !b);
    assert_false(gguf_bool(gguf_kv(&g, "u8"), &b));
    Str s;
    assert_true(gguf_str(gguf_kv(&g, "general.architecture"), &s) && str_eq(s, STR("deepseek4")));
    assert_true(gguf_str(gguf_kv(&g, "empty"), &s) && s.n == 0);
    assert_false(gguf_str(gguf_kv(&g, "u8"), &s));
    gguf_release(&g);
    bytes_release(&file);
}

static void arrays_are_read_by_element(void **state)
{
    (void)state;
    Bytes file = { 0 };
    uint64_t off[3];
    Gguf g;
    build(&file, 0, off);
    assert_true(gguf_parse(&g, file.p, file.n, NULL));
    const GgufKv *ints = gguf_kv(&g, "ints"), *strings = gguf_kv(&g, "strings");
    int64_t i;
    double f;
    assert_int_equal(ints->count, 2);
    assert_true(gguf_int_at(ints, 0, &i) && i == 1);
    assert_true(gguf_int_at(ints, 1, &i) && i == -2);
    assert_false(gguf_int_at(ints, 2, &i));
    assert_true(gguf_float_at(ints, 1, &f) && f == -2);
    assert_false(gguf_int_at(strings, 0, &i));
    assert_false(gguf_int(ints, &i));
    Str s;
    size_t at = 0;
    assert_true(gguf_next_str(strings, &at, &s) && str_eq(s, STR("one")));
    assert_true(gguf_next_str(strings, &at, &s) && s.n == 0);
    assert_true(gguf_next_str(strings, &at, &s) && str_eq(s, STR("three")));
    assert_false(gguf_next_str(strings, &at, &s));
    at = 0;
    assert_false(gguf_next_str(ints, &at, &s));
    gguf_release(&g);
    bytes_release(&file);
}

static void tensors_come_back_in_place_at_every_alignment(void **state)
{
    (void)state;
    for (int alignment = 8; alignment <= 4096; alignment *= 2) {
        Bytes file = { 0 };
        uint64_t off[3];
        Gguf g;
        build(&file, alignment, off);
        assert_true(gguf_parse(&g, file.p, file.n, NULL));
        assert_int_equal(g.alignment, alignment);
        assert_int_equal(g.n_tensors, 3);
        const GgufTensor *a = gguf_tensor(&g, "a"), *b = gguf_tensor(&g, "b");
        assert_int_equal(a->n_dims, 2);
        assert_int_equal(a->dims[0], 4);
        assert_int_equal(a->dims[1], 3);
        assert_int_equal(a->dims[3], 1);
        assert_int_equal(b->type, QUANT_Q8_0);
        assert_int_equal(b->offset, off[1]);
        assert_int_equal(b->offset % (uint64_t)alignment, 0);
        assert_int_equal(g.data_offset % (uint64_t)alignment, 0);
        assert_ptr_equal(b->data, (unsigned char *)file.p + g.data_offset + b->offset);
        assert_int_equal(b->data[b->bytes - 1], 7);
        assert_ptr_equal(gguf_tensor(&g, "again")->data, a->data);
        assert_null(gguf_tensor(&g, "c"));
        gguf_release(&g);
        bytes_release(&file);
    }
}

static void a_copied_directory_equals_its_source(void **state)
{
    (void)state;
    Bytes file = { 0 }, copy = { 0 };
    uint64_t off[3], offset, bytes;
    Gguf g;
    build(&file, 64, off);
    assert_true(gguf_parse(&g, file.p, file.n, NULL));
    GgufWriter w = { .alignment = 64 };
    for (size_t i = 0; i < g.n_kv; i++)
        gguf_put_kv(&w, &g.kv[i]);
    for (size_t i = 0; i < g.n_tensors; i++) {
        const GgufTensor *t = &g.tensor[i];
        uint64_t share = i == 2 ? t->offset : UINT64_MAX;
        assert_true(gguf_put_tensor(&w, t->name, t->type, t->n_dims, t->dims, share, &offset,
                                    &bytes, NULL));
        assert_int_equal(offset, t->offset);
    }
    assert_true(gguf_header(&w, &copy, NULL));
    assert_int_equal(copy.n, g.data_offset);
    assert_memory_equal(copy.p, file.p, copy.n);
    gguf_writer_release(&w);
    gguf_release(&g);
    bytes_release(&copy);
    bytes_release(&file);
}

static void a_header_alone_gives_the_directory_without_data(void **state)
{
    (void)state;
    Bytes file = { 0 };
    uint64_t off[3];
    Gguf g;
    ds4_err err = { 0 };
    build(&file, 0, off);
    assert_true(gguf_parse(&g, file.p, file.n, NULL));
    size_t header = (size_t)g.data_offset;
    gguf_release(&g);
    assert_true(gguf_parse_header(&g, file.p, header, file.n, &err));
    assert_int_equal(g.file_bytes, file.n);
    assert_int_equal(gguf_tensor(&g, "b")->bytes, 12 * 34);
    assert_null(gguf_tensor(&g, "b")->data);
    gguf_release(&g);
    assert_false(gguf_parse_header(&g, file.p, header, file.n - 1, &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_non_null(strstr(err.msg, "tensor b"));
    bytes_release(&file);
}

/* ---- files that lie ------------------------------------------------------- */

static void every_truncation_is_an_error(void **state)
{
    (void)state;
    Bytes file = { 0 };
    uint64_t off[3];
    build(&file, 0, off);
    for (size_t n = 0; n < file.n; n++) {
        unsigned char *exact = malloc(n ? n : 1); /* the sanitizer sees one byte too many */
        memcpy(exact, file.p, n);
        Gguf g;
        ds4_err err = { 0 };
        assert_false(gguf_parse(&g, exact, n, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        assert_true(err.msg[0] != '\0');
        assert_null(g.kv);
        free(exact);
    }
    bytes_release(&file);
}

static void head(Bytes *b, uint64_t n_tensors, uint64_t n_kv)
{
    bytes_str(b, "GGUF");
    bytes_u32(b, 3);
    bytes_u64(b, n_tensors);
    bytes_u64(b, n_kv);
}

static void text(Bytes *b, const char *s)
{
    bytes_u64(b, strlen(s));
    bytes_str(b, s);
}

static void tensor(Bytes *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type,
                   uint64_t at)
{
    text(b, name);
    bytes_u32(b, 2);
    bytes_u64(b, ne0);
    bytes_u64(b, ne1);
    bytes_u32(b, type);
    bytes_u64(b, at);
}

/* Parse and release b; the message must hold `says`. */
static void refused(Bytes *b, const char *says)
{
    Gguf g;
    ds4_err err = { 0 };
    bytes_fill(b, 0, 64);
    assert_false(b->failed);
    if (gguf_parse(&g, b->p, b->n, &err) || !strstr(err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
    bytes_release(b);
}

static void lying_counts_fail_without_the_memory_they_claim(void **state)
{
    (void)state;
    Bytes b = { 0 };
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    static const uint64_t lies[] = { 5, 1000, 65536, 262144, 1ull << 32, 1ull << 61, UINT64_MAX };
    for (size_t i = 0; i < COUNT(lies); i++) {
        head(&b, lies[i], 0);
        refused(&b, "tensors");
        head(&b, 0, lies[i] + (lies[i] == 5));
        refused(&b, "metadata keys");
    }
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 4096);
}

static void lying_lengths_are_named(void **state)
{
    (void)state;
    Bytes b = { 0 };
    head(&b, 0, 1);
    bytes_u64(&b, UINT64_MAX);
    refused(&b, "18446744073709551615 bytes");
    head(&b, 0, 1);
    text(&b, "key");
    bytes_u32(&b, GGUF_STRING);
    bytes_u64(&b, 1ull << 62);
    refused(&b, "4611686018427387904 bytes");
    head(&b, 0, 1);
    text(&b, "key");
    bytes_u32(&b, GGUF_ARRAY);
    bytes_u32(&b, GGUF_F64);
    bytes_u64(&b, (1ull << 61) + 1); /* times 8 wraps to 8 */
    refused(&b, "2305843009213693953 f64");
    head(&b, 0, 1);
    text(&b, "key");
    bytes_u32(&b, 13);
    refused(&b, "unknown type 13");
    head(&b, 0, 1);
    bytes_u64(&b, 0);
    refused(&b, "expected 1 to 255");
}

static void arrays_nested_too_deep_are_refused(void **state)
{
    (void)state;
    for (int depth = 1; depth <= 6; depth++) {
        Bytes b = { 0 };
        head(&b, 0, 1);
        text(&b, "key");
        bytes_u32(&b, GGUF_ARRAY);
        for (int i = 1; i < depth; i++) {
            bytes_u32(&b, GGUF_ARRAY);
            bytes_u64(&b, 1);
        }
        bytes_u32(&b, GGUF_U8);
        bytes_u64(&b, 1);
        bytes_byte(&b, 9);
        if (depth > 4) {
            refused(&b, "nested");
            continue;
        }
        Gguf g;
        assert_true(gguf_parse(&g, b.p, b.n, NULL));
        gguf_release(&g);
        bytes_release(&b);
    }
}

static void lying_tensors_are_named(void **state)
{
    (void)state;
    Bytes b = { 0 };
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 1ull << 32, 1ull << 32, QUANT_F32, 0);
    refused(&b, "blk.0.x: the product");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 1ull << 31, 1ull << 31, QUANT_F32, 0);
    refused(&b, "blk.0.x: the bytes of");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 1 << 20, 1, QUANT_F32, 0);
    refused(&b, "blk.0.x: 4194304 bytes at 0 reach past the end");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 1, 1, QUANT_F32, UINT64_MAX - 31);
    refused(&b, "reach past the end");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 1, 1, QUANT_F32, 4);
    refused(&b, "offset 4 is not a multiple of 32");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 33, 1, QUANT_Q8_0, 0);
    refused(&b, "rows of 33 values are not whole Q8_0 blocks of 32");
    head(&b, 1, 0);
    tensor(&b, "blk.0.x", 0, 1, QUANT_F32, 0);
    refused(&b, "dimension 0 is 0");
    head(&b, 2, 0);
    tensor(&b, "twice", 1, 1, QUANT_F32, 0);
    tensor(&b, "twice", 1, 1, QUANT_F32, 32);
    refused(&b, "two tensors are called twice");
}

static void strange_preambles_are_named(void **state)
{
    (void)state;
    Bytes b = { 0 };
    bytes_str(&b, "GGML");
    refused(&b, "not a GGUF file");
    bytes_str(&b, "GGUF");
    bytes_u32(&b, 2);
    refused(&b, "version 2, expected 3");
    bytes_str(&b, "GGUF");
    bytes_u32(&b, 3u << 24);
    refused(&b, "big-endian");
    static const uint32_t bad[] = { 0, 1, 4, 12, 33, 1u << 31 };
    for (size_t i = 0; i < COUNT(bad); i++) {
        head(&b, 0, 1);
        text(&b, "general.alignment");
        bytes_u32(&b, GGUF_U32);
        bytes_u32(&b, bad[i]);
        refused(&b, "power of two");
    }
}

static void the_last_of_duplicate_keys_wins(void **state)
{
    (void)state;
    GgufWriter w = { 0 };
    Bytes b = { 0 };
    Gguf g;
    Str s;
    gguf_put_int(&w, "k", GGUF_U32, 1);
    gguf_put_int(&w, "other", GGUF_U32, 2);
    gguf_put_str(&w, "k", STR("last"));
    assert_true(gguf_header(&w, &b, NULL));
    assert_true(gguf_parse(&g, b.p, b.n, NULL));
    assert_int_equal(g.n_kv, 2);
    assert_true(gguf_str(gguf_kv(&g, "k"), &s) && str_eq(s, STR("last")));
    assert_int_equal(int_of(&g, "other"), 2);
    gguf_release(&g);
    bytes_release(&b);
    gguf_writer_release(&w);
}

static void a_tensor_of_unknown_type_is_kept_without_data(void **state)
{
    (void)state;
    Bytes b = { 0 };
    Gguf g;
    head(&b, 1, 0);
    tensor(&b, "q6", 256, 1, 14, 0);
    bytes_fill(&b, 0, 512);
    assert_true(gguf_parse(&g, b.p, b.n, NULL));
    const GgufTensor *t = gguf_tensor(&g, "q6");
    assert_int_equal(t->type, 14);
    assert_int_equal(t->bytes, 0);
    assert_null(t->data);
    gguf_release(&g);
    bytes_release(&b);
}

static void many_names_are_all_found(void **state)
{
    (void)state;
    GgufWriter w = { 0 };
    Bytes b = { 0 };
    Gguf g;
    char name[32];
    uint64_t one = 1, offset, bytes;
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(name, sizeof name, "blk.%d.weight", i);
        gguf_put_int(&w, name, GGUF_U32, i);
        assert_true(gguf_put_tensor(&w, (Str){ name, (size_t)n }, QUANT_F32, 1, &one,
                                    i ? 0 : UINT64_MAX, &offset, &bytes, NULL));
    }
    assert_true(gguf_header(&w, &b, NULL));
    bytes_fill(&b, 0, 4);
    assert_true(gguf_parse(&g, b.p, b.n, NULL));
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        assert_int_equal(int_of(&g, name), i);
        assert_ptr_equal(gguf_tensor(&g, name), &g.tensor[i]);
    }
    assert_null(gguf_kv(&g, "blk.5000.weight"));
    gguf_release(&g);
    bytes_release(&b);
    gguf_writer_release(&w);
}

static void the_writer_refuses_what_the_reader_would(void **state)
{
    (void)state;
    GgufWriter w = { 0 };
    ds4_err err = { 0 };
    uint64_t offset, bytes;
    const uint64_t ragged[] = { 33, 1 }, zero[] = { 0 }, huge[] = { 1ull << 40, 1ull << 40 };
    const uint64_t fine[] = { 32 };
    assert_false(
        gguf_put_tensor(&w, STR("t"), QUANT_Q8_0, 2, ragged, UINT64_MAX, &offset, &bytes, &err));
    assert_non_null(strstr(err.msg, "33"));
    assert_false(
        gguf_put_tensor(&w, STR("t"), QUANT_F32, 1, zero, UINT64_MAX, &offset, &bytes, &err));
    assert_false(
        gguf_put_tensor(&w, STR("t"), QUANT_F32, 2, huge, UINT64_MAX, &offset, &bytes, &err));
    assert_false(gguf_put_tensor(&w, STR("t"), 14, 1, fine, UINT64_MAX, &offset, &bytes, &err));
    assert_non_null(strstr(err.msg, "Q6_K"));
    assert_false(
        gguf_put_tensor(&w, STR(""), QUANT_F32, 1, fine, UINT64_MAX, &offset, &bytes, &err));
    assert_false(gguf_put_tensor(&w, STR("t"), QUANT_F32, 1, fine, 64, &offset, &bytes, &err));
    assert_non_null(strstr(err.msg, "share"));
    assert_int_equal(w.n_tensors, 0);
    gguf_writer_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_comes_back_as_written),
        cmocka_unit_test(arrays_are_read_by_element),
        cmocka_unit_test(tensors_come_back_in_place_at_every_alignment),
        cmocka_unit_test(a_copied_directory_equals_its_source),
        cmocka_unit_test(a_header_alone_gives_the_directory_without_data),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(lying_counts_fail_without_the_memory_they_claim),
        cmocka_unit_test(lying_lengths_are_named),
        cmocka_unit_test(arrays_nested_too_deep_are_refused),
        cmocka_unit_test(lying_tensors_are_named),
        cmocka_unit_test(strange_preambles_are_named),
        cmocka_unit_test(the_last_of_duplicate_keys_wins),
        cmocka_unit_test(a_tensor_of_unknown_type_is_kept_without_data),
        cmocka_unit_test(many_names_are_all_found),
        cmocka_unit_test(the_writer_refuses_what_the_reader_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
