/* The official encoder's arguments: what is taken, and what is refused. Prompts
 * are compared as text. */
#include "../vocab_file.h"
#include "../../src/cli/native.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define BOS       "<｜begin▁of▁sentence｜>"
#define EOS       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"

static ds4_vocab *vocab;

/* In the preview's terms, whose plain thinking has no prefix. */
static void prompt_is(const char *json, const char *want)
{
    Native r;
    ChatPrompt p = { 0 };
    Bytes text = { 0 };
    ds4_err err = { 0 };
    if (!native_read(&r, str_of(json), true, &err) ||
        !chat_render(&p, vocab, r.m, r.n, &r.opt, &err))
        fail_msg("%s: %s", json, err.msg);
    assert_true(chat_text(&p, vocab, &text));
    bytes_byte(&text, 0);
    assert_string_equal(text.p, want);
    bytes_release(&text);
    chat_prompt_release(&p);
    native_release(&r);
}

static void refused(const char *json, const char *part)
{
    Native r;
    ds4_err err = { 0 };
    if (native_read(&r, str_of(json), true, &err) || !strstr(err.msg, part))
        fail_msg("%s: expected \"%s\", got \"%s\"", json, part, err.msg);
    assert_int_equal(err.code, DS4_EINVAL);
    native_release(&r);
}

#define NATIVE(message) "{\"thinking_mode\":\"chat\",\"messages\":[" message "]}"
#define HI              "{\"role\":\"user\",\"content\":\"hi\"}"

static void native_refuses_what_the_encoder_does(void **state)
{
    (void)state;
    refused("{\"messages\":[" HI "]}", "thinking_mode");
    refused("{\"thinking_mode\":\"chat\"}", "\"messages\" is no array");
    refused(NATIVE("{\"content\":\"x\"}"), "no role");
    refused(NATIVE("{\"role\":\"user\",\"content\":\"x\",\"task\":\"dance\"}"), "\"dance\"");
    refused(NATIVE("{\"role\":\"latest_reminder\"}"), "content");
    refused(NATIVE("{\"role\":\"system\",\"content\":\"s\",\"tools\":[{}]}"), "no function");
    refused(NATIVE("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                   "\"arguments\":\"[1]\"}}]}"),
            "no object");
    refused("{\"thinking_mode\":\"thinking\",\"params\":{\"reasoning_effort\":3},\"messages\":[" HI
            "]}",
            "reasoning_effort is 3");
    refused("{\"thinking_mode\":\"chat\",\"context\":3,\"messages\":[" HI "]}", "context");
}

static void native_takes_context_in_either_place(void **state)
{
    (void)state;
    const char *want = USER "hi" ASSISTANT "</think>";
    prompt_is("{\"thinking_mode\":\"chat\",\"context\":[" HI
              ",{\"role\":\"assistant\",\"content\":\"x\"}],"
              "\"messages\":[" HI "]}",
              want);
    prompt_is("{\"thinking_mode\":\"chat\",\"params\":{\"context\":[" HI "]},\"messages\":[" HI
              "]}",
              want);
}

int main(void)
{
    vocab = vf_small_vocab(NULL);
    if (!vocab)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native_refuses_what_the_encoder_does),
        cmocka_unit_test(native_takes_context_in_either_place),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(vocab);
    return failed;
}
