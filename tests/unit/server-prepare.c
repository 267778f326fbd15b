/* Requests to prompts and grammars, as a worker of the server does it. Prompts
 * are compared as text, in the preview's terms, whose plain thinking has no prefix. */
#include "../vocab_file.h"
#include "../../src/server/prepare.h"
#include "../../src/text/literals.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define BOS       "<｜begin▁of▁sentence｜>"
#define EOS       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define D         "｜DSML｜"
#define HI        "{\"role\":\"user\",\"content\":\"hi\"}"

static ds4_vocab *vocab;
static TokenTrie *trie;
static Recall *recall;

static ServerInfo info = { .model = "deepseek-v4-flash",
                           .context = 4096,
                           .max_output = 4096,
                           .default_think = CHAT_THINK_HIGH };

static void prompt_is(const char *json, const char *want)
{
    Turn t;
    ChatPrompt p = { 0 };
    Bytes text = { 0 };
    ds4_err err = { 0 };
    ApiError e = { 0 };
    turn_init(&t, API_CHAT);
    if (!prepare_read(&t, &dialect_chat, str_of(json), NULL, &info, &e))
        fail_msg("%s: %s", json, e.message);
    if (!prepare_prompt(&t, vocab, true, &p, &err))
        fail_msg("%s: %s", json, err.msg);
    assert_true(chat_text(&p, vocab, &text));
    bytes_byte(&text, 0);
    assert_string_equal(text.p, want);
    bytes_release(&text);
    chat_prompt_release(&p);
    turn_release(&t);
}

/* ---- prompts ----------------------------------------------------------------------- */

static void contents_are_text_or_parts(void **state)
{
    (void)state;
    prompt_is("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
              "{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"image_url\",\"image_url\":{}}]}]}",
              BOS USER "a\n\nb\n\n[image omitted: this model cannot see images]" ASSISTANT
                       "<think>");
    prompt_is("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
              "\"content\":null,\"reasoning_content\":\"r\"}]}",
              BOS USER "a" ASSISTANT "<think>r</think>");
}

static void system_texts_join_in_front_and_stay_in_place_later(void **state)
{
    (void)state;
    prompt_is("{\"think\":false,\"messages\":[{\"role\":\"system\",\"content\":\"a\"},"
              "{\"role\":\"developer\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"},"
              "{\"role\":\"system\",\"content\":\"d\"}]}",
              BOS "a\n\nb" USER "c\n\n<system-reminder>\nd\n</system-reminder>" ASSISTANT
                  "</think>");
    prompt_is(
        "{\"think\":false,\"messages\":[{\"role\":\"user\",\"content\":\"c\"},"
        "{\"role\":\"assistant\",\"content\":\"d\"},{\"role\":\"system\",\"content\":\"e\"}]}",
        BOS USER "c" ASSISTANT "</think>d" EOS USER
                 "<system-reminder>\ne\n</system-reminder>" ASSISTANT "</think>");
}

static void a_form_is_said_in_words_only_where_the_server_is_told_to(void **state)
{
    (void)state;
    const char *json = "{\"think\":false,\"response_format\":{\"type\":\"json_object\"},"
                       "\"messages\":[{\"role\":\"user\",\"content\":\"c\"}]}";
    prompt_is(json, BOS USER "c" ASSISTANT "</think>");
    info.schema_in_prompt = true;
    prompt_is(json,
              BOS "\n\n## Response Format:\n\nYou MUST strictly adhere to the following "
                  "schema to reply:\n{\"type\": \"json_object\"}" USER "c" ASSISTANT "</think>");
    prompt_is("{\"think\":false,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
              "\"name\":\"n\",\"schema\":{\"type\":\"string\"}}},\"messages\":[" HI "]}",
              BOS "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                  "reply:\n{\"type\": \"json_schema\", \"json_schema\": {\"schema\": {\"type\": "
                  "\"string\"}}}" USER "hi" ASSISTANT "</think>");
    info.schema_in_prompt = false;
}

static void tools_calls_and_results_are_rendered(void **state)
{
    (void)state;
    Bytes want = { 0 };
    bytes_str(&want, BOS "s\n\n");
    bytes_put(&want, tools_prefix.p, tools_prefix.n);
    bytes_str(&want, "{\"name\": \"f\"}");
    bytes_put(&want, tools_suffix.p, tools_suffix.n);
    bytes_str(&want, USER
              "c" ASSISTANT "</think>\n\n<" D "tool_calls>\n<" D "invoke name=\"f\">\n<" D
              "parameter name=\"a\" string=\"false\">[1, 2]</" D "parameter>\n</" D "invoke>\n<" D
              "invoke name=\"f\">\n<" D "parameter name=\"a\" string=\"true\">x</" D
              "parameter>\n</" D "invoke>\n</" D "tool_calls>" EOS USER
              "<tool_result>1</tool_result>\n\n<tool_result>2&lt;/tool_result>"
              "</tool_result>" ASSISTANT "</think>");
    bytes_byte(&want, 0);
    prompt_is("{\"think\":false,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
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

/* ---- jobs --------------------------------------------------------------------------- */

static void ignore(void *user, Job *j)
{
    (void)user;
    (void)j;
}

/* A job of a body; the caller drops it. */
static Job *prepared(const Dialect *d, enum Api api, const char *body)
{
    const Prepare p = {
        .info = &info, .vocab = vocab, .trie = trie, .recall = recall, .preview = true
    };
    Job *j = job_new(d, api);
    assert_non_null(j);
    j->wake = ignore;
    bytes_str(&j->body, body);
    job_prepare(j, &p);
    return j;
}

static void refused(const char *body, int status, const char *part)
{
    Job *j = prepared(&dialect_chat, API_CHAT, body);
    if (j->error.status != status || !strstr(j->error.message, part))
        fail_msg("%s: expected %d \"%s\", got %d \"%s\"", body, status, part, j->error.status,
                 j->error.message);
    job_drop(j);
}

static void what_cannot_be_done_is_refused_by_name(void **state)
{
    (void)state;
    refused("{", 400, "JSON");
    refused("[]", 400, "object");
    refused("{\"messages\":[" HI "],\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"
            "{\"schema\":{\"not\":{\"type\":\"string\"}}}}}",
            400, "not");
    refused("{\"messages\":[" HI "],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
            "\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{"
            "\"type\":\"null\"}}}"
            "}}}]}",
            400, "not");
    refused("{\"messages\":[" HI "],\"regex\":\"(\"}", 400, "");
}

static void a_tool_without_strict_may_say_what_cannot_be_kept_to(void **state)
{
    (void)state;
    Job *j = prepared(&dialect_chat, API_CHAT,
                      "{\"messages\":[" HI "],\"tools\":[{\"type\":\"function\",\"function\":{"
                      "\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{"
                      "\"not\":{\"type\":\"string\"}}}}}}]}");
    assert_int_equal(j->error.status, 0);
    assert_non_null(j->grammar);
    job_drop(j);
}

static void a_prompt_that_does_not_fit_says_both_numbers(void **state)
{
    (void)state;
    Bytes body = { 0 };
    bytes_str(&body, "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"");
    bytes_fill(&body, '7', 3 * 4096);
    bytes_str(&body, "\"}]}");
    bytes_byte(&body, 0);
    Job *j = prepared(&dialect_messages, API_MESSAGES, body.p);
    Bytes said = { 0 };
    char want[128];
    assert_int_equal(j->error.status, 400);
    assert_string_equal(j->error.code, "context_length_exceeded");
    assert_int_equal(j->error.n_prompt, j->prompt.n);
    assert_true(j->prompt.n >= 4096);
    dialect_messages.error(&j->error, "req_1", &said);
    bytes_byte(&said, 0);
    snprintf(want, sizeof want, "prompt is too long: %zu tokens > 4096 maximum", j->prompt.n);
    assert_non_null(strstr(said.p, want));
    bytes_release(&said);
    bytes_release(&body);
    job_drop(j);
}

static void only_an_open_thought_is_gone_on_with(void **state)
{
    (void)state;
    Job *j = prepared(&dialect_chat, API_CHAT, "{\"messages\":[" HI "]}");
    assert_true(j->thinking);
    job_drop(j);
    j = prepared(&dialect_chat, API_CHAT, "{\"think\":false,\"messages\":[" HI "]}");
    assert_false(j->thinking);
    job_drop(j);
    j = prepared(&dialect_chat, API_CHAT,
                 "{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"so \"}]}");
    assert_false(j->thinking);
    job_drop(j);
}

static void a_raw_prompt_begins_with_the_begin_token_once(void **state)
{
    (void)state;
    int32_t bos = vocab_controls(vocab)->bos;
    static const char *const bodies[] = { "{\"prompt\":\"hi\"}", "{\"prompt\":\"" BOS "hi\"}" };
    for (size_t i = 0; i < COUNT(bodies); i++) {
        Job *j = prepared(&dialect_completions, API_COMPLETIONS, bodies[i]);
        assert_int_equal(j->error.status, 0);
        assert_int_equal(j->prompt.id[0], bos);
        assert_true(j->prompt.n > 1 && j->prompt.id[1] != bos);
        assert_null(j->grammar);
        job_drop(j);
    }
    Job *j = prepared(&dialect_completions, API_COMPLETIONS, "{\"prompt\":[99999999]}");
    assert_int_equal(j->error.status, 400);
    job_drop(j);
}

static void a_canceled_request_is_not_rendered(void **state)
{
    (void)state;
    const Prepare p = { .info = &info, .vocab = vocab, .trie = trie, .recall = recall };
    Job *j = job_new(&dialect_chat, API_CHAT);
    bytes_str(&j->body, "{\"messages\":[" HI "]}");
    job_cancel(j, "client_gone");
    job_cancel(j, "later");
    job_prepare(j, &p);
    assert_string_equal(job_canceled(j), "client_gone");
    assert_int_equal(j->error.status, 499);
    assert_int_equal(j->prompt.n, 0);
    job_drop(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_are_text_or_parts),
        cmocka_unit_test(system_texts_join_in_front_and_stay_in_place_later),
        cmocka_unit_test(a_form_is_said_in_words_only_where_the_server_is_told_to),
        cmocka_unit_test(tools_calls_and_results_are_rendered),
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name),
        cmocka_unit_test(a_tool_without_strict_may_say_what_cannot_be_kept_to),
        cmocka_unit_test(a_prompt_that_does_not_fit_says_both_numbers),
        cmocka_unit_test(only_an_open_thought_is_gone_on_with),
        cmocka_unit_test(a_raw_prompt_begins_with_the_begin_token_once),
        cmocka_unit_test(a_canceled_request_is_not_rendered),
    };
    ds4_err err = { 0 };
    vocab = vf_small_vocab(NULL);
    trie = vocab ? trie_new(vocab, &err) : NULL;
    recall = recall_new(0, 0, &err);
    int failed = trie && recall ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    recall_free(recall);
    trie_free(trie);
    vocab_free(vocab);
    return failed;
}
