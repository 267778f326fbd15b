/* JSON in and out: the model's one spelling of every value. */
#include "../../src/json/json.h"
#include "../../src/base/rng.h"
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void rewritten_is(const char *in, const char *want)
{
    ds4_err err = { 0 };
    Bytes out = { 0 };
    struct json_object *o = json_read(str_of(in), &err);
    if (!o)
        fail_msg("%s: %s", in, err.msg);
    json_write(&out, o);
    bytes_byte(&out, 0);
    assert_string_equal(out.p, want);
    json_object_put(o);
    bytes_release(&out);
}

static void refused(Str in)
{
    ds4_err err = { 0 };
    struct json_object *o = json_read(in, &err);
    if (o)
        fail_msg("%.*s was accepted", STR_ARG(in));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_true(strlen(err.msg) > 0);
}

static void spelling_is_pythons(void **state)
{
    (void)state;
    rewritten_is("{\"b\":1,\"a\":[true,false,null,{},[]]}",
                 "{\"b\": 1, \"a\": [true, false, null, {}, []]}");
    rewritten_is(" [1,\n2 ] \r\n", "[1, 2]");
    rewritten_is("[-0,0,18446744073709551615,-9223372036854775808,12]",
                 "[0, 0, 18446744073709551615, -9223372036854775808, 12]");
    rewritten_is("[1.0,1e3,0.0001,1e-7,1e22,2.5e-8,-0.0,1e16,123456789012345680.0,1e15,0.1,1e999]",
                 "[1.0, 1000.0, 0.0001, 1e-07, 1e+22, 2.5e-08, -0.0, 1e+16, "
                 "1.2345678901234568e+17, 1000000000000000.0, 0.1, Infinity]");
    rewritten_is("[0.30000000000000004,5e-324,1.7976931348623157e308,100.5,12E1]",
                 "[0.30000000000000004, 5e-324, 1.7976931348623157e+308, 100.5, 120.0]");
    rewritten_is("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u001F\x7f\\u2028é\"",
                 "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xe2\x80\xa8é\"");
}

static void integers_of_any_size_keep_their_digits(void **state)
{
    (void)state;
    rewritten_is("[18446744073709551616,-9223372036854775809,123456789012345678901234567890]",
                 "[18446744073709551616, -9223372036854775809, 123456789012345678901234567890]");
    rewritten_is("{\"n\":-123456789012345678901234567890,\"x\":1E30}",
                 "{\"n\": -123456789012345678901234567890, \"x\": 1e+30}");
    struct json_object *o = json_read(STR("[18446744073709551616,18446744073709551615]"), NULL);
    uint64_t v;
    double x;
    assert_false(json_whole(json_at(o, 0), UINT64_MAX, &v));
    assert_true(json_number(json_at(o, 0), &x) && x == 18446744073709551616.0);
    assert_true(json_whole(json_at(o, 1), UINT64_MAX, &v) && v == UINT64_MAX);
    assert_false(json_whole(json_at(o, 1), UINT64_MAX - 1, &v));
    json_free(o);
}

static void reads_of_what_is_not_there_are_empty(void **state)
{
    (void)state;
    struct json_object *o = json_read(STR("{\"a\":null,\"b\":[1],\"c\":\"on\",\"d\":false}"), NULL);
    uint64_t v;
    assert_null(json_member(o, "a"));
    assert_null(json_member(o, "z"));
    assert_null(json_member(json_member(o, "b"), "a"));
    assert_null(json_member(NULL, "a"));
    assert_int_equal(json_length(json_member(o, "b")), 1);
    assert_int_equal(json_length(o), 0);
    assert_null(json_at(json_member(o, "b"), 1));
    assert_null(json_at(o, 0));
    assert_true(json_is(json_member(o, "c"), "on"));
    assert_false(json_is(json_member(o, "c"), "o"));
    assert_null(json_text(json_member(o, "b")).p);
    assert_true(json_is_bool(json_member(o, "d"), false));
    assert_false(json_is_bool(json_member(o, "a"), false));
    assert_false(json_whole(json_member(o, "c"), 9, &v));
    json_free(o);
}

static void null_is_valid_but_nothing_to_read(void **state)
{
    (void)state;
    static const char *const good[] = { "null", " 1", "\"a\"", "[]", "-0.5e-3", "{\"a\":null}\n" };
    static const char *const bad[] = {
        "", "nul", "tru", "\"", "[1,]", "NaN", "1 2", "hello", "'a'"
    };
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(json_valid(str_of(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(json_valid(str_of(bad[i])));
}

static void a_files_errors_name_it(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    assert_null(json_parse(STR("{\"a\": [1"), 8, "config.json", &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_non_null(strstr(err.msg, "config.json: not JSON"));
    assert_null(json_parse(STR("null"), 8, "config.json", &err));
    assert_null(json_parse(STR("[[[[]]]]"), 3, "config.json", &err));
}

static void the_last_of_equal_keys_counts_in_the_first_ones_place(void **state)
{
    (void)state;
    rewritten_is("{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}");
}

static void every_escaped_pair_is_its_character(void **state)
{
    (void)state;
    for (unsigned c = 0x10000; c < 0x110000; c += 0x91) {
        char in[40], want[8];
        unsigned v = c - 0x10000;
        snprintf(in, sizeof in, "\"\\u%04x\\u%04X\"", 0xd800 + (v >> 10), 0xdc00 + (v & 1023));
        snprintf(want, sizeof want, "\"%c%c%c%c\"", (int)(0xf0 | c >> 18),
                 (int)(0x80 | (c >> 12 & 63)), (int)(0x80 | (c >> 6 & 63)), (int)(0x80 | (c & 63)));
        rewritten_is(in, want);
    }
    rewritten_is("\"\\\\ud836\\\\udc00\"", "\"\\\\ud836\\\\udc00\"");
}

static void halves_and_stray_bytes_are_replaced(void **state)
{
    (void)state;
    rewritten_is("\"a\\ud83db\"", "\"a\xEF\xBF\xBD"
                                  "b\"");
    rewritten_is("\"\\udc00\"", "\"\xEF\xBF\xBD\"");
    rewritten_is("\"a\xff\xe4\xb8"
                 "b\"",
                 "\"a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                 "b\"");
}

static void text_may_hold_nul(void **state)
{
    (void)state;
    struct json_object *o = json_read(STR("\"a\\u0000b\""), NULL);
    assert_non_null(o);
    assert_int_equal(json_object_get_string_len(o), 3);
    json_object_put(o);
}

static void what_is_no_document_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "{}}",
        "[1,]",
        "{\"a\":}",
        "'a'",
        "\"a",
        "nul",
        "null",
        "[1] 2",
        "{\"a\" 1}",
        "[1",
        "\"\\u12",
        "\"\\",
        "/**/[]",
        "[1 2]",
        "[NaN]",
        "-Infinity",
        "123456789012345678901234567890a",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        refused(str_of(bad[i]));
    refused(STR("[]\0[]"));
    refused(STR("[\0]"));
}

static void nesting_has_an_end(void **state)
{
    (void)state;
    char deep[400];
    for (int n = 60; n <= 200; n += 70) {
        memset(deep, '[', (size_t)n);
        memset(deep + n, ']', (size_t)n);
        struct json_object *o = json_read((Str){ deep, 2 * (size_t)n }, NULL);
        assert_int_equal(o != NULL, n < JSON_DEPTH);
        json_object_put(o);
    }
}

/* n times unit in a list, which a 0 ends. */
static bool is_read(const char *unit, size_t n)
{
    Bytes b = { 0 };
    bytes_byte(&b, '[');
    for (size_t i = 0; i < n; i++)
        bytes_str(&b, unit);
    bytes_str(&b, "0]");
    struct json_object *o = json_read(bytes_view(&b), NULL);
    bool ok = o != NULL;
    json_object_put(o);
    bytes_release(&b);
    return ok;
}

static void what_takes_much_memory_for_little_text_has_an_end(void **state)
{
    (void)state;
    assert_true(is_read("7,", 1000000));
    assert_true(is_read("{},", 100000));
    assert_true(is_read("\"{{{{{{{{{{{{{{{{,,,,,,,,,,,,,,,,\\\"{{{{{{{{{{{{{{{{\",", 50000));
    assert_false(is_read("7,", 5000000));
    assert_false(is_read("{},", 300000));
    assert_false(is_read("[],", 2000000));
    assert_false(is_read("{\"a\":0},", 300000));
}

static void reals_come_back_as_they_were(void **state)
{
    (void)state;
    uint64_t rng = 7;
    for (int i = 0; i < 20000; i++) {
        union {
            uint64_t u;
            double d;
        } x = { rng_next(&rng) };
        Bytes b = { 0 };
        if (x.d != x.d)
            continue;
        json_write_real(&b, x.d);
        bytes_byte(&b, 0);
        assert_true(strtod(b.p, NULL) == x.d);
        bytes_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spelling_is_pythons),
        cmocka_unit_test(integers_of_any_size_keep_their_digits),
        cmocka_unit_test(reads_of_what_is_not_there_are_empty),
        cmocka_unit_test(null_is_valid_but_nothing_to_read),
        cmocka_unit_test(a_files_errors_name_it),
        cmocka_unit_test(the_last_of_equal_keys_counts_in_the_first_ones_place),
        cmocka_unit_test(every_escaped_pair_is_its_character),
        cmocka_unit_test(halves_and_stray_bytes_are_replaced),
        cmocka_unit_test(text_may_hold_nul),
        cmocka_unit_test(what_is_no_document_is_refused),
        cmocka_unit_test(nesting_has_an_end),
        cmocka_unit_test(what_takes_much_memory_for_little_text_has_an_end),
        cmocka_unit_test(reals_come_back_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
