/* The strict parser, and calls to markup and back. The official parser's own
 * cases are in tests/golden/parse.c. */
#include "../stream_answer.h"
#include "../vocab_file.h"
#include "../../src/text/dsml.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define D   "｜DSML｜"
#define EOS "<｜end▁of▁sentence｜>"

static ds4_vocab *vocab;

static bool every_tool(void *user, Str tool)
{
    (void)user;
    (void)tool;
    return true;
}

static const struct {
    const char *name, *arguments;
} samples[] = {
    { "f", "{}" },
    { "f", "{\"a\": \"\"}" },
    { "f", "{\"a\": \"x\\ny \\\"q\\\" </b> & &lt; \\\\n \xf0\x9f\x98\x80\", \"b\": [1, {\"c\": "
           "null}]}" },
    { "f",
      "{\"a\": \" \\n\", \"b\": true, \"c\": 1.5e-07, \"d\": 123456789012345678901234567890}" },
    { "we\nird", "{\"k\\\"ey\": \"v\", \"k ey\": \"<\", \"k2\": \"</\"}" },
};

static void render(const ChatCall *calls, size_t n, Bytes *out)
{
    const ChatMessage m = { .role = CHAT_ASSISTANT, .calls = calls, .n_calls = n };
    ChatPrompt p;
    ds4_err err;
    if (!chat_render(&p, vocab, &m, 1, &(ChatOptions){ .no_bos = true }, &err))
        fail_msg("%s", err.msg);
    assert_true(chat_text(&p, vocab, out));
    chat_prompt_release(&p);
}

static void rendered_calls_come_back(void **state)
{
    (void)state;
    ChatCall calls[COUNT(samples)];
    Bytes text = { 0 }, want = { 0 };
    for (size_t i = 0; i < COUNT(samples); i++) {
        calls[i] = (ChatCall){ { 0 }, str_of(samples[i].name), str_of(samples[i].arguments) };
        bytes_printf(&want, "C%zu:%s=%s;", i, samples[i].name, samples[i].arguments);
    }
    render(calls, COUNT(samples), &text);
    DsmlAnswer a;
    ds4_err err;
    if (!dsml_parse(&a, bytes_view(&text), false, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(a.n_calls, COUNT(samples));
    assert_int_equal(a.content.n, 0);
    for (size_t i = 0; i < a.n_calls; i++) {
        assert_true(str_eq(a.calls[i].name, calls[i].name));
        assert_true(str_eq(a.calls[i].arguments, calls[i].arguments));
    }
    dsml_release(&a);
    Answer told = { 0 };
    const StreamOptions opt = { .tools = { .declared = every_tool } };
    assert_true(answer_text(&told, vocab, &opt, bytes_view(&text), 0, 3));
    assert_true(str_eq(bytes_view(&told.log), bytes_view(&want)));
    answer_release(&told);
    bytes_release(&text);
    bytes_release(&want);
}

static void refused(const char *text, bool thinking, const char *part)
{
    DsmlAnswer a;
    ds4_err err = { 0 };
    assert_false(dsml_parse(&a, str_of(text), thinking, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    if (!strstr(err.msg, part))
        fail_msg("expected \"%s\", got \"%s\"", part, err.msg);
    assert_null(a.calls);
    assert_null(a.content.p);
}

static void deviations_are_named(void **state)
{
    (void)state;
    refused("hello", false, "end of the turn");
    refused("why" EOS, true, "</think>");
    refused("a" EOS "b", false, "follows the end");
    refused("a</think>b" EOS, false, "holds </think>");
    refused("\n\n<" D "tool_calls>\n", false, "calls are not formed");
    refused("\n\n<" D "tool_calls>\n<" D "invoke nome=\"f\">\n</" D "invoke>\n</" D "tool_calls>",
            false, "tool's name");
    refused("\n\n<" D "tool_calls>\n<" D "invoke name=\"f\">\n<" D "parameter name=\"a\" "
            "string=\"maybe\">1</" D "parameter>\n</" D "invoke>\n</" D "tool_calls>",
            false, "parameter is not formed");
    refused("\n\n<" D "tool_calls>\n<" D "invoke name=\"f\">\n</" D "invoke>\n</" D "tool_calls>x",
            false, "follows the calls");
}

static void many_calls_fit(void **state)
{
    (void)state;
    enum { N = 300 };
    ChatCall calls[N];
    Bytes text = { 0 };
    for (int i = 0; i < N; i++)
        calls[i] = (ChatCall){ { 0 }, STR("f"), STR("{\"a\": 1}") };
    render(calls, N, &text);
    DsmlAnswer a;
    assert_true(dsml_parse(&a, bytes_view(&text), false, NULL));
    assert_int_equal(a.n_calls, N);
    dsml_release(&a);
    bytes_release(&text);
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
        cmocka_unit_test(rendered_calls_come_back),
        cmocka_unit_test(deviations_are_named),
        cmocka_unit_test(many_calls_fit),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(vocab);
    return failed;
}
