/* What the commands share: options, characters, JSON, sizes, transcripts. */
#include "../../src/base/rng.h"
#include "../../src/cli/characters.h"
#include "../../src/cli/cli.h"
#include "../../src/cli/transcript.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <math.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- options ---------------------------------------------------------------------- */

typedef struct {
    bool flag;
    int number;
    uint64_t seed;
    float real;
    const char *text, *choice;
} Values;

static int parse(Values *v, const char **args, int *n_args, int argc, const char *const *argv)
{
    const Option table[] = {
        { OPT_TITLE, "Title", NULL, NULL, NULL, 0, 0 },
        { OPT_FLAG, "-f, --flag", NULL, &v->flag, "a flag", 0, 0 },
        { OPT_INT, "-n, --number", "N", &v->number, "a number", -5, 100 },
        { OPT_U64, "--seed", "N", &v->seed, "a seed", 0, 0 },
        { OPT_FLOAT, "--real", "X", &v->real, "a real", 0, 1 },
        { OPT_STR, "-sys, --text", "TEXT", &v->text, "a text", 0, 0 },
        { OPT_STR, "--choice", "on|off", &v->choice, "one of two", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "x", .about = "x", .tables = { table }, .max_args = 2 };
    char *copy[16];
    for (int i = 0; i < argc; i++)
        copy[i] = (char *)(uintptr_t)argv[i];
    return cli_parse(&usage, argc, copy, args, n_args);
}

#define PARSE(v, args, n, ...) \
    parse(v, args, n, (int)COUNT(((const char *const[]){ "x", __VA_ARGS__ })), \
          (const char *const[]){ "x", __VA_ARGS__ })

static void options_arrive_in_their_variables(void **state)
{
    (void)state;
    Values v = { 0 };
    const char *args[2];
    int n = 0;
    assert_int_equal(PARSE(&v, args, &n, "one", "-f", "--number=-5", "--seed",
                           "18446744073709551615", "--real", "0.25", "-sys", "-n", "--choice",
                           "off", "--", "--two"),
                     -1);
    assert_true(v.flag);
    assert_int_equal(v.number, -5);
    assert_true(v.seed == UINT64_MAX);
    assert_true(v.real == 0.25f);
    assert_string_equal(v.text, "-n");
    assert_string_equal(v.choice, "off");
    assert_int_equal(n, 2);
    assert_string_equal(args[0], "one");
    assert_string_equal(args[1], "--two");
}

static void what_is_no_value_is_refused(void **state)
{
    (void)state;
    Values v = { 0 };
    const char *args[2];
    int n = 0;
    assert_int_equal(PARSE(&v, args, &n, "-n", "101"), 2);
    assert_int_equal(PARSE(&v, args, &n, "-n", " 1"), 2);
    assert_int_equal(PARSE(&v, args, &n, "-n"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--seed", "-1"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--seed", "18446744073709551616"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--real", "inf"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--real", "1.01"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--choice", "o"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--choice", "on|off"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--flag=yes"), 2);
    assert_int_equal(PARSE(&v, args, &n, "--unknown"), 2);
    assert_int_equal(PARSE(&v, args, &n, "a", "b", "c"), 2);
    assert_int_equal(v.number, 0);
    assert_null(v.choice);
}

static void the_nearest_name_is_near(void **state)
{
    (void)state;
    static const char *const names[] = { "--temp", "--top-p", "--top-k", "--threads", "--tokens" };
    assert_string_equal(cli_nearest("--tmep", names, 5), "--temp");
    assert_string_equal(cli_nearest("--top-q", names, 5), "--top-p");
    assert_string_equal(cli_nearest("--thread", names, 5), "--threads");
    assert_null(cli_nearest("--model", names, 5));
    assert_null(cli_nearest("", names, 5));
    char endless[1000];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_null(cli_nearest(endless, names, 5));
}

static void sizes_are_short(void **state)
{
    (void)state;
    char b[16];
    assert_string_equal(cli_size(b, 0), "0 bytes");
    assert_string_equal(cli_size(b, 999), "999 bytes");
    assert_string_equal(cli_size(b, 1000), "1.0 kB");
    assert_string_equal(cli_size(b, 86714775900), "86.7 GB");
    assert_string_equal(cli_size(b, 640000000), "640 MB");
    assert_string_equal(cli_size(b, 999999999), "1.0 GB");
    assert_string_equal(cli_size(b, UINT64_MAX), "18.4 EB");
}

/* ---- text --------------------------------------------------------------------------- */

static void json_strings_are_valid_whatever_the_bytes(void **state)
{
    (void)state;
    Bytes b = { 0 };
    cli_json_str(&b, STR("a\"\\\n\t\x01\x7f\xc3\xa9\xff\xe2\x82"));
    bytes_byte(&b, 0);
    assert_string_equal(b.p,
                        "\"a\\\"\\\\\\n\\t\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf"
                        "\xbd\"");
    bytes_clear(&b);
    cli_json_str(&b, (Str){ "\0", 1 });
    cli_json_num(&b, INFINITY);
    cli_json_num(&b, -1.5);
    bytes_byte(&b, 0);
    assert_string_equal(b.p, "\"\\u0000\"null-1.5");
    bytes_release(&b);
}

/* text in pieces of the given lengths, over and over. */
static void put_in_pieces(Str text, const size_t *piece, size_t n, Bytes *out)
{
    Characters c = { 0 };
    for (size_t at = 0, i = 0; at < text.n; i++) {
        size_t k = MIN(piece[i % n], text.n - at);
        characters_put(&c, (Str){ text.p + at, k }, false, out);
        at += k;
    }
    characters_put(&c, (Str){ 0 }, true, out);
}

static void characters_do_not_depend_on_the_cuts(void **state)
{
    (void)state;
    uint64_t rng = 1;
    static const char *const parts[] = {
        "a",        "\xc3\xa9",     "\xe2\x96\x81", "\xf0\x9f\xa6\x8a", "\xff", "\xe2\x96",
        "\xf0\x9f", "\xed\xa0\x80", "\xc0\x80",     "\xf4\x90\x80",     "\x80", "\xe2"
    };
    for (int round = 0; round < 500; round++) {
        Bytes text = { 0 }, whole = { 0 }, cut = { 0 };
        for (int i = 0; i < 12; i++)
            bytes_str(&text, parts[rng_next(&rng) % COUNT(parts)]);
        put_in_pieces(bytes_view(&text), (const size_t[]){ 1000 }, 1, &whole);
        const size_t pieces[] = { 1 + rng_next(&rng) % 3, 1 + rng_next(&rng) % 4 };
        put_in_pieces(bytes_view(&text), pieces, 2, &cut);
        assert_int_equal(cut.n, whole.n);
        assert_memory_equal(cut.p, whole.p, whole.n);
        bytes_release(&text);
        bytes_release(&whole);
        bytes_release(&cut);
    }
}

static void no_part_of_a_character_comes_out(void **state)
{
    (void)state;
    Characters c = { 0 };
    Bytes out = { 0 };
    characters_put(&c, STR("x\xf0\x9f"), false, &out);
    assert_int_equal(out.n, 1);
    characters_put(&c, STR("\xa6"), false, &out);
    assert_int_equal(out.n, 1);
    characters_put(&c, STR("\x8ay"), false, &out);
    assert_int_equal(out.n, 6);
    assert_memory_equal(out.p, "x\xf0\x9f\xa6\x8ay", 6);
    characters_put(&c, STR("\xe2\x96"), true, &out);
    assert_int_equal(out.n, 12);
    assert_memory_equal(out.p + 6, "\xef\xbf\xbd\xef\xbf\xbd", 6);
    bytes_release(&out);
}

/* ---- transcripts ---------------------------------------------------------------------- */

static void fill(Transcript *t)
{
    assert_true(transcript_add(t, CHAT_USER, STR("question"), (Str){ 0 }, NULL));
    assert_true(transcript_add(t, CHAT_ASSISTANT, STR("answer"), STR("thought"), NULL));
    assert_true(transcript_add(t, CHAT_USER, STR(""), (Str){ 0 }, NULL));
    assert_true(transcript_system(t, STR("system"), NULL));
}

static void the_system_message_comes_first_and_once(void **state)
{
    (void)state;
    Transcript t = { 0 };
    fill(&t);
    assert_int_equal(t.n, 4);
    assert_true(str_eq(t.m[0].content, STR("system")));
    assert_true(transcript_system(&t, STR("another"), NULL));
    assert_int_equal(t.n, 4);
    assert_true(str_eq(t.m[0].content, STR("another")));
    assert_true(str_eq(t.m[1].content, STR("question")));
    assert_true(transcript_system(&t, (Str){ 0 }, NULL));
    assert_int_equal(t.n, 3);
    assert_int_equal(t.m[0].role, CHAT_USER);
    transcript_drop_last(&t);
    assert_int_equal(transcript_last_role(&t), CHAT_ASSISTANT);
    transcript_release(&t);
    assert_int_equal(transcript_last_role(&t), -1);
    transcript_drop_last(&t);
}

static void a_transcript_comes_back_and_no_part_of_one_does(void **state)
{
    (void)state;
    Transcript t = { 0 }, back;
    Bytes b = { 0 };
    fill(&t);
    transcript_write(&t, &b);
    assert_true(transcript_parse(&back, bytes_view(&b), NULL));
    assert_int_equal(back.n, t.n);
    for (size_t i = 0; i < t.n; i++) {
        assert_int_equal(back.m[i].role, t.m[i].role);
        assert_true(str_eq(back.m[i].content, t.m[i].content));
        assert_true(str_eq(back.m[i].reasoning, t.m[i].reasoning));
    }
    transcript_release(&back);
    for (size_t n = 0; n < b.n; n++) {
        char *exact = malloc(n ? n : 1);
        ds4_err err = { 0 };
        memcpy(exact, b.p, n);
        assert_false(transcript_parse(&back, (Str){ exact, n }, &err));
        assert_int_equal(err.code, DS4_EFORMAT);
        assert_int_equal(back.n, 0);
        free(exact);
    }
    bytes_byte(&b, 0);
    assert_false(transcript_parse(&back, bytes_view(&b), NULL));
    memset(b.p, 0xff, 4);
    assert_false(transcript_parse(&back, bytes_view(&b), NULL));
    bytes_release(&b);
    transcript_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_arrive_in_their_variables),
        cmocka_unit_test(what_is_no_value_is_refused),
        cmocka_unit_test(the_nearest_name_is_near),
        cmocka_unit_test(sizes_are_short),
        cmocka_unit_test(json_strings_are_valid_whatever_the_bytes),
        cmocka_unit_test(characters_do_not_depend_on_the_cuts),
        cmocka_unit_test(no_part_of_a_character_comes_out),
        cmocka_unit_test(the_system_message_comes_first_and_once),
        cmocka_unit_test(a_transcript_comes_back_and_no_part_of_one_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
