/* Requests to messages: what clients send, and what is refused. Prompts are
 * compared as text. */
#include "../vocab_file.h"
#include "../../src/cli/request.h"
#include "../../src/text/literals.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define BOS       "<｜begin▁of▁sentence｜>"
#define EOS       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"

typedef bool (*Parse)(Request *r, Str json, bool preview, ds4_err *err);

static ds4_vocab *vocab;

/* In the preview's terms, whose plain thinking has no prefix. */
static void prompt_is(Parse parse, const char *json, const char *want)
{
    Request r;
    ChatPrompt p = { 0 };
    Bytes text = { 0 };
    ds4_err err = { 0 };
    if (!parse(&r, str_of(json), true, &err) || !chat_render(&p, vocab, r.m, r.n, &r.opt, &err))
        fail_msg("%s: %s", json, err.msg);
    assert_true(chat_text(&p, vocab, &text));
    bytes_byte(&text, 0);
    assert_string_equal(text.p, want);
    bytes_release(&text);
    chat_prompt_release(&p);
    request_release(&r);
}

static void refused(Parse parse, const char *json, const char *part)
{
    Request r;
    ds4_err err = { 0 };
    if (parse(&r, str_of(json), true, &err) || !strstr(err.msg, part))
        fail_msg("%s: expected \"%s\", got \"%s\"", json, part, err.msg);
    assert_int_equal(err.code, DS4_EINVAL);
    request_release(&r);
}

static void chat_contents_are_text_or_parts(void **state)
{
    (void)state;
    prompt_is(request_chat,
              "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
              "{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"image_url\",\"image_url\":{}}]}]}",
              BOS USER "a\n\nb\n\n[image omitted: this model cannot see images]" ASSISTANT
                       "<think>");
    prompt_is(request_chat,
              "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
              "\"content\":null,\"reasoning_content\":\"r\"}]}",
              BOS USER "a" ASSISTANT "<think>r</think>" EOS);
}

static void system_texts_join_in_front_and_stay_in_place_later(void **state)
{
    (void)state;
    prompt_is(request_chat,
              "{\"think\":false,\"messages\":[{\"role\":\"system\",\"content\":\"a\"},"
              "{\"role\":\"developer\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"},"
              "{\"role\":\"system\",\"content\":\"d\"}]}",
              BOS "a\n\nb" USER "c\n\n<system-reminder>\nd\n</system-reminder>" ASSISTANT
                  "</think>");
    prompt_is(
        request_chat,
        "{\"think\":false,\"messages\":[{\"role\":\"user\",\"content\":\"c\"},"
        "{\"role\":\"assistant\",\"content\":\"d\"},{\"role\":\"system\",\"content\":\"e\"}]}",
        BOS USER "c" ASSISTANT "</think>d" EOS USER
                 "<system-reminder>\ne\n</system-reminder>" ASSISTANT "</think>");
}

static void a_response_format_goes_with_the_system_text(void **state)
{
    (void)state;
    prompt_is(request_chat,
              "{\"think\":false,\"response_format\":{\"type\":\"json_object\"},"
              "\"messages\":[{\"role\":\"user\",\"content\":\"c\"}]}",
              BOS "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                  "reply:\n{\"type\": \"json_object\"}" USER "c" ASSISTANT "</think>");
}

static void thinking_is(const char *fields, bool preview, int want)
{
    Request r;
    ds4_err err = { 0 };
    char json[256];
    snprintf(json, sizeof json, "{%s\"messages\":[{\"role\":\"user\",\"content\":\"c\"}]}", fields);
    if (!request_chat(&r, str_of(json), preview, &err))
        fail_msg("%s: %s", json, err.msg);
    assert_int_equal(r.opt.think, want);
    request_release(&r);
}

static void clients_have_many_words_for_thinking(void **state)
{
    (void)state;
    static const char *const off[] = {
        "\"thinking\":{\"type\":\"disabled\"},",
        "\"think\":false,",
        "\"reasoning_effort\":\"none\",",
        "\"chat_template_kwargs\":{\"enable_thinking\":false},",
        "\"chat_template_kwargs\":{\"thinking\":false},",
        "\"model\":\"deepseek-chat\",",
        "\"think\":false,\"reasoning_effort\":\"max\",",
    };
    for (size_t i = 0; i < COUNT(off); i++)
        thinking_is(off[i], false, CHAT_THINK_OFF);
    thinking_is("", false, CHAT_THINK_HIGH);
    thinking_is("\"model\":\"deepseek-chat\",\"reasoning_effort\":\"high\",", false,
                CHAT_THINK_HIGH);
    thinking_is("\"reasoning_effort\":\"minimal\",", false, CHAT_THINK_LOW);
    thinking_is("\"reasoning_effort\":\"minimal\",", true, CHAT_THINK_HIGH);
    thinking_is("\"reasoning_effort\":\"medium\",", false, CHAT_THINK_HIGH);
    thinking_is("\"reasoning_effort\":\"xhigh\",", false, CHAT_THINK_HIGH);
    thinking_is("\"reasoning_effort\":\"ultra\",", true, CHAT_THINK_MAX);
}

#define D "｜DSML｜"

static void chat_tools_calls_and_results_are_rendered(void **state)
{
    (void)state;
    Bytes want = { 0 };
    bytes_str(&want, BOS "s\n\n");
    bytes_put(&want, tools_prefix.p, tools_prefix.n);
    bytes_str(&want, "{\"name\": \"f\", \"strict\": true}");
    bytes_put(&want, tools_suffix.p, tools_suffix.n);
    bytes_str(&want, USER
              "c" ASSISTANT "</think>\n\n<" D "tool_calls>\n<" D "invoke name=\"f\">\n<" D
              "parameter name=\"a\" string=\"false\">[1, 2]</" D "parameter>\n</" D "invoke>\n<" D
              "invoke name=\"f\">\n<" D "parameter name=\"a\" string=\"true\">x</" D
              "parameter>\n</" D "invoke>\n</" D "tool_calls>" EOS USER
              "<tool_result>1</tool_result>\n\n<tool_result>2&lt;/tool_result>"
              "</tool_result>" ASSISTANT "</think>");
    bytes_byte(&want, 0);
    prompt_is(request_chat,
              "{\"think\":false,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
              "\"strict\":true}}],\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
              "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"tool_calls\":["
              "{\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":[1,2]}\"}},"
              "{\"id\":\"j\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":\"x\"}}}]},"
              "{\"role\":\"tool\",\"tool_call_id\":\"j\",\"content\":[{\"type\":\"text\","
              "\"text\":\"2</tool_result>\"}]},"
              "{\"role\":\"tool\",\"tool_call_id\":\"i\",\"content\":\"1\"}]}",
              want.p);
    bytes_release(&want);
}

static void older_functions_are_tools(void **state)
{
    (void)state;
    Request r;
    ds4_err err = { 0 };
    assert_true(request_chat(&r,
                             STR("{\"functions\":[{\"name\":\"f\"}],\"messages\":["
                                 "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\","
                                 "\"content\":null,\"function_call\":{\"name\":\"f\","
                                 "\"arguments\":\"{}\"}},{\"role\":\"function\",\"name\":\"f\","
                                 "\"content\":\"1\"}]}"),
                             true, &err));
    assert_int_equal(r.n, 4);
    assert_int_equal(r.m[0].role, CHAT_SYSTEM);
    assert_true(r.m[0].n_tools == 1 && str_eq(r.m[0].tools[0], STR("{\"name\": \"f\"}")));
    assert_true(r.m[2].n_calls == 1 && str_eq(r.m[2].calls[0].name, STR("f")));
    assert_int_equal(r.m[3].role, CHAT_TOOL);
    request_release(&r);
}

#define CHAT(message)   "{\"messages\":[" message "]}"
#define NATIVE(message) "{\"thinking_mode\":\"chat\",\"messages\":[" message "]}"
#define HI              "{\"role\":\"user\",\"content\":\"hi\"}"

static void chat_refuses_what_it_cannot_do(void **state)
{
    (void)state;
    refused(request_chat, "{\"tools\":[{\"type\":\"oracle\"}],\"messages\":[" HI "]}",
            "\"oracle\" is no function");
    refused(request_chat, "{\"tools\":3,\"messages\":[" HI "]}", "\"tools\" is no array");
    refused(request_chat, CHAT("{\"role\":\"assistant\",\"tool_calls\":[{}]}"),
            "call 0 has no function's name");
    refused(request_chat, CHAT("{\"role\":\"assistant\",\"function_call\":{}}"),
            "no function's name");
    refused(request_chat,
            CHAT("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                 "\"arguments\":3}}]}"),
            "arguments are no text");
    refused(request_chat, "[]", "no JSON object");
    refused(request_chat, "{", "JSON");
    refused(request_chat, "{}", "\"messages\" is no array");
    refused(request_chat, CHAT(""), "empty");
    refused(request_chat, CHAT("3"), "message 0 has no role");
    refused(request_chat, CHAT(HI ",{\"role\":\"judge\",\"content\":\"x\"}"),
            "message 1 has the unknown role \"judge\"");
    refused(request_chat, CHAT("{\"role\":\"user\"}"), "message 0: its content");
    refused(request_chat, CHAT("{\"role\":\"user\",\"content\":[3]}"), "part");
    refused(request_chat, CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"audio\"}]}"),
            "\"audio\"");
    refused(request_chat, "{\"reasoning_effort\":\"huge\",\"messages\":[" HI "]}", "\"huge\"");
}

static void native_refuses_what_the_encoder_does(void **state)
{
    (void)state;
    refused(request_native, "{\"messages\":[" HI "]}", "thinking_mode");
    refused(request_native, "{\"thinking_mode\":\"chat\"}", "\"messages\" is no array");
    refused(request_native, NATIVE("{\"content\":\"x\"}"), "no role");
    refused(request_native, NATIVE("{\"role\":\"user\",\"content\":\"x\",\"task\":\"dance\"}"),
            "\"dance\"");
    refused(request_native, NATIVE("{\"role\":\"latest_reminder\"}"), "content");
    refused(request_native, NATIVE("{\"role\":\"system\",\"content\":\"s\",\"tools\":[{}]}"),
            "no function");
    refused(request_native,
            NATIVE("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                   "\"arguments\":\"[1]\"}}]}"),
            "no object");
    refused(request_native,
            "{\"thinking_mode\":\"thinking\",\"params\":{\"reasoning_effort\":3},\"messages\":[" HI
            "]}",
            "reasoning_effort is 3");
    refused(request_native, "{\"thinking_mode\":\"chat\",\"context\":3,\"messages\":[" HI "]}",
            "context");
}

static void native_takes_context_in_either_place(void **state)
{
    (void)state;
    const char *want = USER "hi" ASSISTANT "</think>";
    prompt_is(request_native,
              "{\"thinking_mode\":\"chat\",\"context\":[" HI
              ",{\"role\":\"assistant\",\"content\":\"x\"}],"
              "\"messages\":[" HI "]}",
              want);
    prompt_is(request_native,
              "{\"thinking_mode\":\"chat\",\"params\":{\"context\":[" HI "]},\"messages\":[" HI
              "]}",
              want);
}

int main(void)
{
    vocab = vf_small_vocab(NULL);
    if (!vocab)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_contents_are_text_or_parts),
        cmocka_unit_test(system_texts_join_in_front_and_stay_in_place_later),
        cmocka_unit_test(a_response_format_goes_with_the_system_text),
        cmocka_unit_test(clients_have_many_words_for_thinking),
        cmocka_unit_test(chat_tools_calls_and_results_are_rendered),
        cmocka_unit_test(older_functions_are_tools),
        cmocka_unit_test(chat_refuses_what_it_cannot_do),
        cmocka_unit_test(native_refuses_what_the_encoder_does),
        cmocka_unit_test(native_takes_context_in_either_place),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(vocab);
    return failed;
}
