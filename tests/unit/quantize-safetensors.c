/* Safetensors files: what is read, and what is refused. */
#include "../../src/quantize/safetensors.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void build(Bytes *out, const char *header, size_t data)
{
    bytes_clear(out);
    bytes_u64(out, strlen(header));
    bytes_str(out, header);
    for (size_t i = 0; i < data; i++)
        bytes_byte(out, (unsigned char)i);
    assert_false(out->failed);
}

#define GOOD \
    "{\"__metadata__\":{\"format\":\"pt\"}," \
    "\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}," \
    "\"a\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_offsets\":[12,28]}," \
    "\"b.scale\":{\"dtype\":\"F8_E8M0\",\"shape\":[],\"data_offsets\":[28,29]}}  \n"

static void a_good_file_is_read_in_order_of_names(void **state)
{
    (void)state;
    Bytes b = { 0 };
    StFile f;
    ds4_err err;
    build(&b, GOOD, 29);
    assert_true(st_parse(&f, b.p, b.n, &err));
    assert_int_equal(f.n, 3);
    assert_string_equal(f.tensor[0].name.p, "a");
    assert_string_equal(f.tensor[1].name.p, "b.scale");
    assert_string_equal(f.tensor[2].name.p, "b.weight");
    const StTensor *t = &f.tensor[2];
    assert_int_equal(t->type, ST_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(t->data[11], 11);
    assert_int_equal(f.tensor[1].count, 1); /* no dimensions: one value */
    assert_int_equal(f.tensor[1].data[0], 28);
    st_release(&f);
    bytes_release(&b);
}

static void every_dtype_has_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int size;
    } all[] = {
        { "BOOL", 1 },    { "U8", 1 },      { "I8", 1 },  { "F8_E5M2", 1 },
        { "F8_E4M3", 1 }, { "F8_E8M0", 1 }, { "U16", 2 }, { "I16", 2 },
        { "F16", 2 },     { "BF16", 2 },    { "U32", 4 }, { "I32", 4 },
        { "F32", 4 },     { "U64", 8 },     { "I64", 8 }, { "F64", 8 },
    };
    assert_int_equal(COUNT(all), ST_END);
    for (size_t i = 0; i < COUNT(all); i++) {
        char header[200];
        Bytes b = { 0 };
        StFile f;
        ds4_err err;
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[5],\"data_offsets\":[0,%d]}}", all[i].name,
                 5 * all[i].size);
        build(&b, header, 40);
        assert_true(st_parse(&f, b.p, b.n, &err));
        assert_string_equal(st_type_name(f.tensor[0].type), all[i].name);
        assert_int_equal(st_type_size(f.tensor[0].type), all[i].size);
        st_release(&f);
        bytes_release(&b);
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    Bytes b = { 0 };
    StFile f;
    build(&b, GOOD, 29);
    for (size_t n = 0; n < b.n; n++) {
        ds4_err err = { 0 };
        char *cut = malloc(n ? n : 1); /* of exactly this size, for the sanitizer */
        memcpy(cut, b.p, n);
        assert_false(st_parse(&f, cut, n, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        assert_true(err.msg[0] != 0);
        free(cut);
    }
    bytes_release(&b);
}

static void lies_are_named(void **state)
{
    (void)state;
#define T(dtype, shape, offsets) \
    "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    static const struct {
        const char *header, *says;
    } all[] = {
        { T("\"F32\"", "[4]", "[0,20]"), "4 values of F32 in 20 bytes" },
        { T("\"F32\"", "[8]", "[0,32]"), "data at 0..32, the file has 29 bytes" },
        { T("\"F32\"", "[4]", "[20,4]"), "data at 20..4" },
        { T("\"F32\"", "[4]", "[0]"), "no pair of data_offsets" },
        { T("\"F32\"", "[4]", "[0,16.0]"), "no pair of data_offsets" },
        { T("\"F32\"", "[4]", "[-4,12]"), "no pair of data_offsets" },
        { T("\"F32\"", "[4]", "[0,99999999999999999999]"), "no pair of data_offsets" },
        { T("\"F32\"", "[-4]", "[0,16]"), "dimension 0 is no count" },
        { T("\"F32\"", "[\"4\"]", "[0,16]"), "dimension 0 is no count" },
        { T("\"F32\"", "4", "[0,16]"), "no shape" },
        { T("\"F32\"", "[1,1,1,1,1,1,1,1,4]", "[0,16]"), "9 dimensions" },
        { T("\"F32\"", "[4294967296,4294967296]", "[0,16]"), "more than 2^64" },
        { T("\"F32\"", "[4611686018427387904,2]", "[0,0]"), "values of F32 in 0 bytes" },
        { T("\"F33\"", "[4]", "[0,16]"), "unknown dtype F33" },
        { T("7", "[4]", "[0,16]"), "has no dtype" },
        { "{\"x\":null}", "has no dtype" },
        { "[]", "no JSON object" },
        { "{} {}", "not JSON" },
        { "{\"x\":", "not JSON" },
        { "{\"x\":[[[[[[[[[[[]]]]]]]]]]]}", "not JSON" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
          "tensors a and b overlap at byte 3" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
          "header: a name is there twice in one object: 4 of 8 are lost" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"shape\":[2,2],\"data_offsets\":[0,4]}}",
          "twice in one object: 1 of 5 are lost" },
        { "{\"__metadata__\":{\"a:\\\":\":\":\"},\"a\":7}", "a has no dtype" },
        { "{\"\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", "0 bytes" },
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        Bytes b = { 0 };
        StFile f;
        ds4_err err = { 0 };
        build(&b, all[i].header, 29);
        assert_false(st_parse(&f, b.p, b.n, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        if (!strstr(err.msg, all[i].says))
            fail_msg("%s gave: %s", all[i].header, err.msg);
        bytes_release(&b);
    }
}

static void a_header_longer_than_the_file_is_refused(void **state)
{
    (void)state;
    Bytes b = { 0 };
    StFile f;
    ds4_err err;
    bytes_u64(&b, UINT64_MAX - 7);
    bytes_str(&b, "{}");
    assert_false(st_parse(&f, b.p, b.n, &err));
    assert_non_null(strstr(err.msg, "in a file of 10"));

    const size_t n = ((size_t)64 << 20) + 1;
    bytes_clear(&b);
    bytes_u64(&b, n);
    memset(bytes_room(&b, n), ' ', n);
    b.n += n;
    assert_false(st_parse(&f, b.p, b.n, &err));
    assert_non_null(strstr(err.msg, "a header of 67108865 bytes, more than 67108864"));
    bytes_release(&b);
}

/* ---- directories --------------------------------------------------------- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ds4-safetensors-XXXXXX");
    return mkdtemp(folder) ? 0 : 1;
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(path_of(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void put_tensor(const char *file, const char *name, int first)
{
    char header[200];
    Bytes b = { 0 };
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%d,%d]}}", name, first,
             first + 4);
    build(&b, header, 16);
    put_file(file, b.p, b.n);
    bytes_release(&b);
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "model.safetensors.index.json", "model.safetensors",
                                         "one.safetensors", "two.safetensors" };
    for (size_t i = 0; i < COUNT(names); i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

static void put_index(const char *text)
{
    put_file("model.safetensors.index.json", text, strlen(text));
}

static void shards_are_one_checkpoint(void **state)
{
    (void)state;
    Checkpoint c;
    ds4_err err;
    put_tensor("one.safetensors", "x", 0);
    put_tensor("two.safetensors", "y", 8);
    assert_true(checkpoint_open(&c, folder, &err)); /* every *.safetensors */
    assert_int_equal(c.n_shards, 2);
    assert_int_equal(c.n_tensors, 2);
    assert_int_equal(checkpoint_find(&c, "y")->data[0], 8);
    assert_null(checkpoint_find(&c, "z"));
    checkpoint_close(&c);

    put_index("{\"weight_map\":{\"x\":\"one.safetensors\"}}");
    assert_true(checkpoint_open(&c, folder, &err)); /* the index decides */
    assert_int_equal(c.n_shards, 1);
    assert_null(checkpoint_find(&c, "y"));
    checkpoint_close(&c);
}

static void an_index_that_lies_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says;
    } all[] = {
        { "{\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"one.safetensors\"}}",
          "y is said to be in one.safetensors, and is nowhere" },
        { "{\"weight_map\":{\"x\":\"two.safetensors\",\"y\":\"one.safetensors\"}}",
          "x is said to be in two.safetensors, and is in one.safetensors" },
        { "{\"weight_map\":{\"x\":\"one.safetensors\",\"x\":\"two.safetensors\"}}",
          "a name is there twice in one object: 1 of 3 are lost" },
    };
    Checkpoint c;
    put_tensor("one.safetensors", "x", 0);
    put_tensor("two.safetensors", "y", 8);
    for (size_t i = 0; i < COUNT(all); i++) {
        ds4_err err = { 0 };
        put_index(all[i].index);
        assert_false(checkpoint_open(&c, folder, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        if (!strstr(err.msg, all[i].says))
            fail_msg("%s gave: %s", all[i].index, err.msg);
    }
    put_index("{\"metadata\":{\"total_size\":8},"
              "\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"two.safetensors\"}}");
    ds4_err err;
    assert_true(checkpoint_open(&c, folder, &err));
    checkpoint_close(&c);
}

static void model_safetensors_comes_before_other_files(void **state)
{
    (void)state;
    Checkpoint c;
    ds4_err err;
    put_tensor("model.safetensors", "m", 0);
    put_tensor("one.safetensors", "x", 0);
    assert_true(checkpoint_open(&c, folder, &err));
    assert_int_equal(c.n_tensors, 1);
    assert_non_null(checkpoint_find(&c, "m"));
    checkpoint_close(&c);
}

static void bad_directories_are_explained(void **state)
{
    (void)state;
    Checkpoint c;
    ds4_err err;
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "no *.safetensors"));
    assert_false(checkpoint_open(&c, "/nonexistent/folder", &err));

    put_tensor("one.safetensors", "x", 0);
    put_tensor("two.safetensors", "x", 0);
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "tensor x is there twice"));

    put_file("two.safetensors", "rubbish!rubbish!", 16);
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "two.safetensors: a header of"));

    put_index("{\"weight_map\":{\"x\":\"../one.safetensors\"}}");
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "no file name"));
    put_index("{\"weight_map\":{\"x\":\"gone.safetensors\"}}");
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "gone.safetensors"));
    put_index("{\"weight_map\":[]}");
    assert_false(checkpoint_open(&c, folder, &err));
    assert_non_null(strstr(err.msg, "no weight_map"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_read_in_order_of_names),
        cmocka_unit_test(every_dtype_has_its_size),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(a_header_longer_than_the_file_is_refused),
        cmocka_unit_test_setup_teardown(shards_are_one_checkpoint, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_index_that_lies_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(model_safetensors_comes_before_other_files, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(bad_directories_are_explained, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
