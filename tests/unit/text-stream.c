/* The stream of events by hand-made answers, each cut at every byte and into
 * tokens: how it was cut must not be seen. */
#include "../stream_answer.h"
#include "../vocab_file.h"
#include "../../src/text/bpe.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define D       "｜DSML｜"
#define EOS     "<｜end▁of▁sentence｜>"
#define OPEN    "<" D "tool_calls>\n"
#define CLOSE   "</" D "tool_calls>"
#define CALL(n) "<" D "invoke name=\"" n "\">\n"
#define END     "</" D "invoke>\n"
#define PAR(k)  "<" D "parameter name=\"" k "\" string=\"true\">"
#define NUM(k)  "<" D "parameter name=\"" k "\" string=\"false\">"
#define RAP     "</" D "parameter>\n"

static ds4_vocab *vocab;

/* Tools f, g and patch (custom); of f: s is a string, n is none. */
static bool declared(void *user, Str tool)
{
    (void)user;
    return str_eq(tool, STR("f")) || str_eq(tool, STR("g")) || str_eq(tool, STR("patch"));
}

static int is_string(void *user, Str tool, Str parameter)
{
    (void)user;
    if (!str_eq(tool, STR("f")))
        return -1;
    return str_eq(parameter, STR("s")) ? 1 : str_eq(parameter, STR("n")) ? 0 : -1;
}

static bool is_custom(void *user, Str tool)
{
    (void)user;
    return str_eq(tool, STR("patch"));
}

static void same(const Answer *a, const char *want, const char *how, size_t at)
{
    if (!str_eq(bytes_view(&a->log), str_of(want)))
        fail_msg("%s %zu: got  %.*s\nwant %s", how, at, (int)a->log.n, a->log.p, want);
}

static void check_tokens(const StreamOptions *opt, const char *text, const char *want)
{
    Tokens t = { 0 };
    Answer a = { 0 };
    assert_true(bpe_encode(vocab, str_of(text), true, &t, NULL));
    assert_true(answer_tokens(&a, vocab, opt, t.id, t.n));
    same(&a, want, "tokens", t.n);
    answer_release(&a);
    tokens_release(&t);
}

static void told(StreamOptions opt, const char *text, const char *want)
{
    size_t n = strlen(text);
    for (size_t cut = 0; cut <= n; cut++) {
        Answer a = { 0 };
        assert_true(answer_text(&a, vocab, &opt, str_of(text), cut, n + 1));
        same(&a, want, "cut at", cut);
        answer_release(&a);
    }
    for (size_t each = 1; each < 6; each++) {
        Answer a = { 0 };
        assert_true(answer_text(&a, vocab, &opt, str_of(text), 0, each));
        same(&a, want, "pieces of", each);
        answer_release(&a);
    }
    check_tokens(&opt, text, want);
}

static const StreamOptions plain = { 0 }, thinks = { .thinking = true };
static const StreamOptions calls = { .tools = { declared, is_string, is_custom, NULL } };
static const StreamOptions both = { .thinking = true,
                                    .tools = { declared, is_string, is_custom, NULL } };

static void reasoning_ends_where_it_is_closed(void **state)
{
    (void)state;
    told(thinks, "why\n\n</think>\n\nso <b> é" EOS "more", "R:why\n\nT:\n\nso <b> é");
    told(both, "why\n\n</think>\n\nso <b> é 2 <" EOS, "R:why\n\nT:\n\nso <b> é 2 <");
    told(thinks, "cut short", "R:cut short");
    told(thinks, "</think>", "");
    told(plain, "a</think>b<think>", "T:a</think>b<think>");
}

static void a_call_is_told_as_it_comes(void **state)
{
    (void)state;
    told(calls,
         "Look.\n\n" OPEN CALL("f")
             PAR("s") "a \"b\"\n</x> é" RAP NUM("n") "[1, 2]" RAP END CLOSE EOS,
         "T:Look.C0:f={\"s\": \"a \\\"b\\\"\\n</x> é\", \"n\": [1, 2]};");
    told(both, "why</think>\n\n" OPEN CALL("x") "\n" END CALL("f") END CLOSE,
         "R:whyC0:x={};C1:f={};");
    told(calls, "x\n\n\n" OPEN CLOSE "more", "T:x\n");
    told(calls, OPEN CALL("f") PAR("s") "  \n " RAP PAR("t") RAP END CLOSE,
         "C0:f={\"s\": \"  \\n \", \"t\": \"\"};");
}

static void without_tools_markup_is_text(void **state)
{
    (void)state;
    told(plain, "\n\n" OPEN CALL("f") END CLOSE EOS, "T:\n\n" OPEN CALL("f") END CLOSE);
}

static void what_only_looks_like_markup_is_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "a < b <tool <tool_call> <<tool_calls",
        "<" D "tools",
        "<" D "toolcalls>\n" CALL("f"),
        OPEN "hello",
        OPEN "<>",
        OPEN "</>" CLOSE,
        OPEN CALL("f") "hello" END CLOSE,
        OPEN "<" D "invoke nome=\"f\">" END CLOSE,
        CALL("f") PAR("s") "1" RAP END,
        "<" D "toolcalls>\n" CALL("unknown") PAR("s") "1" RAP END CLOSE,
        "<" D "toolcalls>\n" CLOSE,
        "<" D "tool\ncalls>\n" CALL("f") END CLOSE,
        "<tool_calls>\n<invoke name=\"h\">\n</invoke>\n</tool_calls>",
        "<tool_calls>\n<invoke name=\"f\">\n</invoke>\n",
        "<tool_calls>\n</tool_calls>",
        D "tool_calls>\n\n" D,
        "\n\n\n\n",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        char want[600];
        snprintf(want, sizeof want, "T:%s", texts[i]);
        told(calls, texts[i], want);
    }
}

static void a_block_after_what_only_looked_like_one_is_found(void **state)
{
    (void)state;
    told(calls, "<" D "x<<tool_calls><" D "tool_calls> no " OPEN CALL("f") END CLOSE,
         "T:<" D "x<<tool_calls><" D "tool_calls> no C0:f={};");
}

static void values_that_are_no_json_are_strings(void **state)
{
    (void)state;
    told(calls,
         OPEN CALL("g") NUM("a") "yes" RAP NUM("b") "null" RAP NUM("c") "1,2" RAP NUM("d")
             RAP END CLOSE,
         "C0:g={\"a\": \"yes\", \"b\": null, \"c\": \"1,2\", \"d\": \"\"};");
}

static void the_schema_says_what_is_a_string(void **state)
{
    (void)state;
    told(calls, OPEN CALL("f") NUM("s") "3" RAP PAR("n") "3" RAP END CLOSE,
         "C0:f={\"s\": \"3\", \"n\": 3};");
    told(calls, OPEN CALL("f") NUM("s") "\"3\"" RAP PAR("n") "three" RAP END CLOSE,
         "C0:f={\"s\": \"3\", \"n\": \"three\"};");
}

static void damaged_calls_are_mended(void **state)
{
    (void)state;
    /* the block's name */
    told(calls, "\n\n<" D "toolcalls>\n" CALL("f") PAR("s") "1" RAP END CLOSE,
         "C0:f={\"s\": \"1\"};");
    told(calls, "\n\n<" D "function_calls>\n" CALL("x") END "</" D "function_calls>", "C0:x={};");
    /* no attribute: by the schema, else a string */
    told(calls,
         OPEN CALL("f") "<" D "parameter name=\"n\">3" RAP "<" D
                        "parameter name=\"x\">3" RAP END CLOSE,
         "C0:f={\"n\": 3, \"x\": \"3\"};");
    /* parameters in a parameter */
    told(calls,
         OPEN CALL("g") NUM("o") "\n " PAR("a") "1" RAP NUM("b")
             NUM("c") "2" RAP RAP RAP PAR("z") "3" RAP END CLOSE,
         "C0:g={\"o\": {\"a\": \"1\", \"b\": {\"c\": 2}}, \"z\": \"3\"};");
    /* an object in their place */
    told(calls, OPEN CALL("g") "{\"a\": \"</\", \"b\": 2}\n" END CLOSE,
         "C0:g={\"a\": \"</\", \"b\": 2};");
    told(calls, OPEN CALL("g") "{\"a\": }\n" END CALL("g") END CLOSE,
         "T:" OPEN CALL("g") "{\"a\": }\n" END CALL("g") END CLOSE);
    /* an object wrapped up */
    told(calls, OPEN CALL("f") NUM("arguments") "{\"s\": \"x\", \"n\": 2}" RAP END CLOSE,
         "C0:f={\"s\": \"x\", \"n\": 2};");
    told(calls, OPEN CALL("f") PAR("input") "{\"s\": \"x\"}" RAP END CLOSE, "C0:f={\"s\": \"x\"};");
    told(calls, OPEN CALL("f") PAR("input") "{\"q\": 1}" RAP END CLOSE,
         "C0:f={\"input\": \"{\\\"q\\\": 1}\"};");
    told(calls, OPEN CALL("f") NUM("input") "{\"s\": 1}" RAP PAR("s") "x" RAP END CLOSE,
         "C0:f={\"input\": {\"s\": 1}, \"s\": \"x\"};");
}

static void blocks_of_plain_tags_count_when_whole(void **state)
{
    (void)state;
    told(calls,
         "So:\n\n<tool_calls>\n<invoke name=\"f\">\n<parameter name=\"s\" string=\"true\">a </b> "
         "</parameter>\n</invoke>\n</tool_calls>",
         "T:So:C0:f={\"s\": \"a </b> \"};");
    told(calls,
         "<DSML｜tool_calls>\n<DSML｜invoke name=\"f\">\n<DSML｜parameter name=\"s\" "
         "string=\"true\">a</DSML｜parameter>\n</DSML｜invoke>\n</DSML｜tool_calls>",
         "C0:f={\"s\": \"a\"};");
    told(both, "<tool_calls>\n<invoke name=\"f\">\n</invoke>\n</tool_calls></think>",
         "R:<tool_calls>\n<invoke name=\"f\">\n</invoke>\n</tool_calls>");
}

static void a_whole_block_ends_the_reasoning(void **state)
{
    (void)state;
    told(both, "Now.\n\n" OPEN CALL("f") PAR("s") "x" RAP END CLOSE "</think>x" EOS,
         "R:Now.C0:f={\"s\": \"x\"};");
    /* rehearsed, or cut off */
    told(both, "say " OPEN CALL("$TOOL_NAME") END CLOSE " </think>ok",
         "R:say " OPEN CALL("$TOOL_NAME") END CLOSE " T:ok");
    told(both, "say " OPEN CALL("f") PAR("s") "x", "R:say " OPEN CALL("f") PAR("s") "x");
    told(both, "say " OPEN " and " CLOSE "</think>ok", "R:say " OPEN " and " CLOSE "T:ok");
    told(both, "Now." OPEN CALL("f") END, "R:Now.C0:f={};");
    told(both, "Now.\n\n" OPEN CALL("f"), "R:Now.\n\n" OPEN CALL("f"));
}

/* Whether a limit or the model ended the answer there: it was to be a call, and
 * as text a client would show it and send it back. */
static void a_block_cut_off_before_its_first_call_is_certain_is_dropped(void **state)
{
    (void)state;
    static const char *const blocks[] = {
        "<" D,
        "<" D "tool_c",
        "<" D "function",
        OPEN,
        OPEN "<",
        OPEN "</" D "tool",
        OPEN "<" D "invoke name=\"f",
        OPEN CALL("f"),
        OPEN CALL("unknown"),
        OPEN CALL("f") "<" D "parameter name=\"s\" string=\"tr",
        OPEN CALL("f") "{\"s\": 1",
        OPEN CALL("f") "</" D "invoke",
    };
    const Str stop[] = { STR("Jab") };
    StreamOptions o = calls;
    o.stop = stop;
    o.n_stop = COUNT(stop);
    for (size_t i = 0; i < COUNT(blocks); i++) {
        char text[300];
        snprintf(text, sizeof text, "Ja\n\n%s", blocks[i]);
        told(o, text, "T:Ja");
        snprintf(text, sizeof text, "Ja\n\n\n%s" EOS "more", blocks[i]);
        told(o, text, "T:Ja\n");
    }
}

static void a_call_cut_off_never_ends(void **state)
{
    (void)state;
    told(calls, OPEN CALL("f") PAR("s") "x" RAP END CALL("f") PAR("s") "y",
         "C0:f={\"s\": \"x\"};C1:f={\"s\": \"y");
    told(calls, OPEN CALL("f") PAR("s") "x" RAP END CALL("f"), "C0:f={\"s\": \"x\"};");
    told(calls, OPEN CALL("f") PAR("s") "x" RAP "oh no" END CALL("g") END CLOSE,
         "C0:f={\"s\": \"x\"C1:g={};");
    told(calls, OPEN CALL("f") PAR("s") "x" RAP CLOSE, "C0:f={\"s\": \"x\"");
}

static void custom_tools_get_bytes(void **state)
{
    (void)state;
    told(calls, OPEN CALL("patch") PAR("input") "\n*** \"a\" é</x>\n" RAP END CLOSE,
         "C0:patch=\n*** \"a\" é</x>\n;");
    told(calls, OPEN CALL("patch") PAR("input") "a" RAP PAR("more") "b" RAP END CLOSE,
         "C0:patch=a;");
    told(calls, OPEN CALL("patch") "{\"input\": \"a\\nb\"}" END CLOSE, "C0:patch=a\nb;");
    told(calls, OPEN CALL("patch") "\n" END CLOSE, "C0:patch;");
}

static void stop_strings_end_the_text_only(void **state)
{
    (void)state;
    const Str stop[] = { STR("STOP"), STR("\n\nQ:"), STR("aab"), STR("TOPS"), STR("") };
    StreamOptions o = both;
    o.stop = stop;
    o.n_stop = COUNT(stop);
    told(o, "STOP</think>a STSTO\n\nQ", "R:STOPT:a STSTO\n\nQ");
    told(o, "</think>xSTSTOP more", "T:xST");
    told(o, "</think>a\n\n\nQ: b", "T:a\n");
    told(o, "</think>aaaab", "T:aa");
    told(o, "</think>xSTO\n\n" OPEN CALL("f") PAR("s") "STOP" RAP END CLOSE,
         "T:xSTOC0:f={\"s\": \"STOP\"};");
    Answer a = { 0 };
    Stream *s = stream_new(vocab, &o, answer_event, &a);
    assert_false(stream_text(s, STR("</think>1 STOP 2")));
    assert_true(str_eq(stream_stopped_by(s), STR("STOP")));
    assert_int_equal(stream_state(s), STREAM_DONE);
    stream_finish(s);
    same(&a, "T:1 ", "after a stop", 0);
    answer_release(&a);
    stream_free(s);
}

static void bytes_that_are_no_utf8_are_replaced(void **state)
{
    (void)state;
    told(both, "a\xff\xe4\xb8</think>\xc3(" EOS, "R:a\uFFFD\uFFFD\uFFFDT:\uFFFD(");
    told(calls, "\xf0\x9f\x98" OPEN CALL("f") END CLOSE, "T:\uFFFD\uFFFD\uFFFDC0:f={};");
    told(calls, OPEN CALL("f") PAR("s") "\xed\xa0\x80\xf0\x9f\x98\x80" RAP END CLOSE,
         "C0:f={\"s\": \"\uFFFD\uFFFD\uFFFD😀\"};");
}

static void a_character_that_the_answer_ends_within_is_dropped(void **state)
{
    (void)state;
    told(calls, "so\xc3", "T:so");
    told(calls, "so \xff\xf0\x9f\x98" EOS "more", "T:so \uFFFD");
    told(thinks, "why\xe4\xb8", "R:why");
    told(calls, "\xe4", "");
    told(calls, OPEN CALL("f") PAR("s") "x\xe4\xb8", "C0:f={\"s\": \"x");
    StreamOptions o = plain;
    o.max_bytes = 5;
    told(o, "abcd\xc3\xa9", "T:abcd");
}

/* Only the token is markup: what ordinary tokens spell is prose. */
static void spelled_marks_in_tokens_are_prose(void **state)
{
    (void)state;
    Tokens t = { 0 };
    Answer a = { 0 };
    assert_true(bpe_encode(vocab, STR("</think>" OPEN CALL("f") END CLOSE), false, &t, NULL));
    assert_true(answer_tokens(&a, vocab, &both, t.id, t.n));
    same(&a, "R:</think>" OPEN CALL("f") END CLOSE, "tokens", t.n);
    answer_release(&a);
    tokens_release(&t);
}

static void the_state_follows_the_answer(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum StreamState after;
    } steps[] = {
        { "why", STREAM_IN_THINK },
        { "</think>a", STREAM_IN_TEXT },
        { "\n\n" OPEN, STREAM_IN_MARKUP },
        { CALL("f"), STREAM_IN_MARKUP },
        { PAR("s"), STREAM_IN_VALUE },
        { "x", STREAM_IN_VALUE },
        { RAP, STREAM_IN_MARKUP },
        { END, STREAM_IN_MARKUP },
        { CLOSE, STREAM_DONE },
    };
    Answer a = { 0 };
    Stream *s = stream_new(vocab, &both, answer_event, &a);
    for (size_t i = 0; i < COUNT(steps); i++) {
        assert_int_equal(stream_calls(s), i == 8);
        assert_int_equal(stream_text(s, str_of(steps[i].text)), i < 8);
        assert_int_equal(stream_state(s), steps[i].after);
    }
    assert_int_equal(stream_calls(s), 1);
    assert_int_equal(stream_repairs(s).recovered, 0);
    assert_int_equal(stream_repairs(s).dropped, 0);
    answer_release(&a);
    stream_free(s);
}

static void repairs_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int recovered, dropped;
    } cases[] = {
        { OPEN CALL("f") PAR("s") "x" RAP END CLOSE, 0, 0 },
        { OPEN CALL("f") PAR("s") "x", 0, 1 },
        { OPEN CALL("f"), 0, 1 },
        { OPEN, 0, 1 },
        { OPEN CLOSE, 0, 0 },
        { OPEN CALL("g") NUM("s") "x" RAP END CLOSE, 1, 0 },
        { "<" D "toolcalls>" CALL("f") END CLOSE, 1, 0 },
        { OPEN CALL("f") END CALL("f") PAR("s") "x" RAP CLOSE, 0, 1 },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Answer a = { 0 };
        Stream *s = stream_new(vocab, &calls, answer_event, &a);
        stream_text(s, str_of(cases[i].text));
        stream_finish(s);
        assert_int_equal(stream_repairs(s).recovered, cases[i].recovered);
        assert_int_equal(stream_repairs(s).dropped, cases[i].dropped);
        answer_release(&a);
        stream_free(s);
    }
}

static void what_is_held_back_is_little(void **state)
{
    (void)state;
    Answer a = { 0 };
    Stream *s = stream_new(vocab, &calls, answer_event, &a);
    stream_text(s, STR("a b \n\n"));
    same(&a, "T:a b ", "held", 0);
    stream_text(s, STR("<too"));
    same(&a, "T:a b ", "held", 1);
    stream_text(s, STR("t"));
    same(&a, "T:a b \n\n<toot", "held", 2);
    stream_text(s, STR(OPEN CALL("f") PAR("s") "ab</"));
    same(&a, "T:a b \n\n<tootC0:f={\"s\": \"ab", "held", 3);
    answer_release(&a);
    stream_free(s);
}

static void an_answer_has_a_longest(void **state)
{
    (void)state;
    StreamOptions o = plain;
    o.max_bytes = 5;
    told(o, "abcdefgh", "T:abcde");
}

/* Reading again what was no block must not read it again and again. */
static void much_that_looks_like_markup_stays_text(void **state)
{
    (void)state;
    static const char *const units[] = { "<tool_calls><invoke name=\"f\"><parameter name=\"x\">",
                                         "<" D "toolcalls>\n", OPEN CALL("f") "x" };
    for (size_t i = 0; i < COUNT(units); i++) {
        Bytes text = { 0 };
        Answer a = { 0 };
        while (text.n < 400000)
            bytes_str(&text, units[i]);
        assert_true(answer_text(&a, vocab, &calls, bytes_view(&text), 0, 4));
        assert_true(a.log.n == text.n + 2 && memcmp(a.log.p + 2, text.p, text.n) == 0);
        answer_release(&a);
        bytes_release(&text);
    }
}

int main(void)
{
    ds4_err err;
    vocab = vf_small_vocab(&err);
    if (!vocab) {
        print_error("%s\n", err.msg);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasoning_ends_where_it_is_closed),
        cmocka_unit_test(a_call_is_told_as_it_comes),
        cmocka_unit_test(without_tools_markup_is_text),
        cmocka_unit_test(what_only_looks_like_markup_is_text),
        cmocka_unit_test(a_block_after_what_only_looked_like_one_is_found),
        cmocka_unit_test(values_that_are_no_json_are_strings),
        cmocka_unit_test(the_schema_says_what_is_a_string),
        cmocka_unit_test(damaged_calls_are_mended),
        cmocka_unit_test(blocks_of_plain_tags_count_when_whole),
        cmocka_unit_test(a_whole_block_ends_the_reasoning),
        cmocka_unit_test(a_block_cut_off_before_its_first_call_is_certain_is_dropped),
        cmocka_unit_test(a_call_cut_off_never_ends),
        cmocka_unit_test(custom_tools_get_bytes),
        cmocka_unit_test(stop_strings_end_the_text_only),
        cmocka_unit_test(bytes_that_are_no_utf8_are_replaced),
        cmocka_unit_test(a_character_that_the_answer_ends_within_is_dropped),
        cmocka_unit_test(spelled_marks_in_tokens_are_prose),
        cmocka_unit_test(the_state_follows_the_answer),
        cmocka_unit_test(repairs_are_counted),
        cmocka_unit_test(what_is_held_back_is_little),
        cmocka_unit_test(an_answer_has_a_longest),
        cmocka_unit_test(much_that_looks_like_markup_stays_text),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(vocab);
    return failed;
}
