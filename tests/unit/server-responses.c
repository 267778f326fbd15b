/* OpenAI's Responses: bodies to Turns, Events to bytes, and what is kept of it. */
#include "../requests.h"
#include "../vocab_file.h"
#include "../../src/server/responses_in.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static ds4_vocab *vocab;

/* ---- reading ------------------------------------------------------------------------ */

static bool parse_with(const ServerInfo *s, const char *text, Turn *t, ApiError *e)
{
    ds4_err err;
    *e = (ApiError){ 0 };
    Json *body = json_read(str_of(text), &err);
    if (!body)
        fail_msg("%s: %s", err.msg, text);
    turn_init(t, API_RESPONSES);
    snprintf(t->request_id, sizeof t->request_id, "req_0123456789abcdef01234567");
    bool ok = dialect_responses.parse(t, body, NULL, s, e);
    assert_int_equal(ok, e->status == 0);
    if (!ok)
        turn_release(t);
    return ok;
}

static void parse_at(const ServerInfo *s, const char *text, Turn *t)
{
    ApiError e;
    if (!parse_with(s, text, t, &e))
        fail_msg("%s: %s", text, e.message);
}

static void parse(const char *text, Turn *t) { parse_at(&test_server, text, t); }

static void render(const Turn *t, Bytes *out)
{
    ChatOptions opt = { .think = t->think, .escape_results = true };
    ChatPrompt p;
    ds4_err err;
    if (!chat_render(&p, vocab, t->messages, t->n_messages, &opt, &err))
        fail_msg("%s", err.msg);
    assert_true(chat_text(&p, vocab, out));
    bytes_byte(out, 0);
    chat_prompt_release(&p);
}

static void prompt_is(const char *body, const char *want)
{
    Turn t;
    Bytes text = { 0 };
    parse(body, &t);
    render(&t, &text);
    assert_string_equal(text.p, want);
    bytes_release(&text);
    turn_release(&t);
}

static void str_is(Str got, const char *want)
{
    if (!str_eq(got, str_of(want)))
        fail_msg("\"%.*s\", not \"%s\"", STR_ARG(got), want);
}

#define BOS        "<｜begin▁of▁sentence｜>"
#define EOS        "<｜end▁of▁sentence｜>"
#define USER       "<｜User｜>"
#define ASSISTANT  "<｜Assistant｜>"
#define OFF        "\"reasoning\": {\"effort\": \"none\"}, "
#define SAYS(text) "{\"role\": \"user\", \"content\": \"" text "\"}"

static void a_string_and_an_item_are_one_prompt(void **state)
{
    (void)state;
    static const char want[] = BOS "sys" USER "hi" ASSISTANT "</think>";
    prompt_is("{" OFF "\"instructions\": \"sys\", \"input\": \"hi\"}", want);
    prompt_is("{" OFF "\"input\": [{\"role\": \"system\", \"content\": \"sys\"}, " SAYS("hi") "]}",
              want);
    prompt_is("{" OFF "\"input\": [{\"type\": \"message\", \"id\": \"msg_1\", \"role\": "
              "\"developer\", \"content\": [{\"type\": \"input_text\", \"text\": \"sys\"}]}, "
              "{\"type\": \"message\", \"role\": \"user\", \"content\": [{\"type\": "
              "\"input_text\", \"text\": \"hi\"}]}]}",
              want);
}

static void instructions_come_before_what_developers_say(void **state)
{
    (void)state;
    prompt_is("{" OFF "\"instructions\": \"one\", \"input\": [{\"role\": \"developer\", "
              "\"content\": \"two\"}, " SAYS("hi") ", {\"role\": \"developer\", \"content\": "
                                                   "\"mind\"}]}",
              BOS "one\n\ntwo" USER "hi\n\n<system-reminder>\nmind\n</system-reminder>" ASSISTANT
                  "</think>");
}

static void images_and_files_are_said_in_words(void **state)
{
    (void)state;
    prompt_is("{" OFF "\"input\": [{\"role\": \"user\", \"content\": [{\"type\": "
              "\"input_text\", \"text\": \"look\"}, {\"type\": \"input_image\", \"image_url\": "
              "\"data:,\"}, {\"type\": \"input_file\"}]}]}",
              BOS USER "look\n\n[image omitted: this model cannot see images]\n\n"
                       "[file omitted: this model reads text only]" ASSISTANT "</think>");
}

#define REASONING(id, text) \
    "{\"type\": \"reasoning\", \"id\": \"" id "\", \"summary\": [{\"type\": \"summary_text\", " \
    "\"text\": \"" text "\"}], \"content\": null, \"encrypted_content\": \"h-" id "\"}"
#define SAID(text) \
    "{\"type\": \"message\", \"role\": \"assistant\", \"status\": \"completed\", \"content\": " \
    "[{\"type\": \"output_text\", \"text\": \"" text "\", \"annotations\": []}]}"
#define CALL(id, name) \
    "{\"type\": \"function_call\", \"call_id\": \"" id "\", \"name\": \"" name \
    "\", \"arguments\": \"{\\\"a\\\": 1}\"}"
#define OUTPUT(id, text) \
    "{\"type\": \"function_call_output\", \"call_id\": \"" id "\", \"output\": \"" text "\"}"

static void reasoning_message_and_calls_are_one_turn(void **state)
{
    (void)state;
    Turn t;
    parse(
        "{\"input\": [" SAYS("q") ", " REASONING("r1", "hm") ", " SAID("so") ", " CALL("c1", "f") ", " CALL(
            "c2",
            "g") ", " OUTPUT("c2",
                             "two") ", " OUTPUT("c1",
                                                "one") ", " REASONING("r2",
                                                                      "aha") ", " SAID("done") "]}",
        &t);
    assert_int_equal(t.n_messages, 5);
    const ChatMessage *said = &t.messages[1];
    assert_int_equal(said->role, CHAT_ASSISTANT);
    str_is(said->reasoning, "hm");
    str_is(said->content, "so");
    str_is(t.handles[1], "h-r1");
    assert_int_equal(said->n_calls, 2);
    str_is(said->calls[1].id, "c2");
    str_is(said->calls[1].name, "g");
    str_is(said->calls[1].arguments, "{\"a\": 1}");
    assert_int_equal(t.messages[2].role, CHAT_TOOL);
    str_is(t.messages[2].tool_call_id, "c2");
    str_is(t.messages[3].content, "one");
    str_is(t.messages[4].reasoning, "aha");
    str_is(t.handles[4], "h-r2");
    assert_true(t.messages[4].unfinished);
    turn_release(&t);
}

static void reasoning_after_a_message_begins_another(void **state)
{
    (void)state;
    Turn t;
    parse(
        "{\"input\": [" SAYS("q") ", " REASONING("r1", "a") ", " REASONING("r2", "b") ", " SAID(
            "on"
            "e") ", " SAID("two") ", " REASONING("r3",
                                                 "c") ", " CALL("c1",
                                                                "f") ", " REASONING("r4",
                                                                                    "d") ", " SAYS("and?") "]}",
        &t);
    assert_int_equal(t.n_messages, 5);
    str_is(t.messages[1].reasoning, "a\n\nb");
    str_is(t.messages[1].content, "one\n\ntwo");
    str_is(t.handles[1], "h-r2");
    str_is(t.messages[2].reasoning, "c");
    assert_int_equal(t.messages[2].n_calls, 1);
    str_is(t.messages[3].reasoning, "d");
    assert_int_equal(t.messages[4].role, CHAT_USER);
    turn_release(&t);
}

static void raw_reasoning_is_preferred_to_its_summary(void **state)
{
    (void)state;
    Turn t;
    parse("{\"input\": [" SAYS(
              "q") ", {\"type\": \"reasoning\", \"id\": \"r\", \"summary\": "
                   "[{\"type\": \"summary_text\", \"text\": \"short\"}], \"content\": [{\"type\": "
                   "\"reasoning_text\", \"text\": \"long\"}]}, {\"type\": \"reasoning\", "
                   "\"summary\": [], "
                   "\"encrypted_content\": \"h\"}, " SAID("a") ", " SAYS("b") "]}",
          &t);
    str_is(t.messages[1].reasoning, "long");
    str_is(t.handles[1], "h");
    turn_release(&t);
}

static void calls_of_all_kinds_are_taken(void **state)
{
    (void)state;
    static const struct {
        const char *call, *result, *name, *arguments;
    } cases[] = {
        { "{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"namespace\": "
          "\"ns\", \"arguments\": \"{}\"}",
          OUTPUT("c", "r"), "ns__f", "{}" },
        { "{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"arguments\": "
          "{\"a\": 1}}",
          OUTPUT("c", "r"), "f", "{\"a\": 1}" },
        { "{\"type\": \"custom_tool_call\", \"call_id\": \"c\", \"name\": \"patch\", \"input\": "
          "\"a\\\"b\\n\"}",
          "{\"type\": \"custom_tool_call_output\", \"call_id\": \"c\", \"output\": [{\"type\": "
          "\"input_text\", \"text\": \"r\"}]}",
          "patch", "{\"input\": \"a\\\"b\\n\"}" },
        { "{\"type\": \"tool_search_call\", \"call_id\": \"c\", \"execution\": \"client\", "
          "\"arguments\": {\"query\": \"x\"}}",
          OUTPUT("c", "r"), "tool_search", "{\"query\": \"x\"}" },
        { "{\"type\": \"local_shell_call\", \"id\": \"lsh\", \"call_id\": \"c\", \"action\": "
          "{\"type\": \"exec\", \"command\": [\"ls\"], \"env\": {}, \"user\": null, "
          "\"timeout_ms\": 5}}",
          "{\"type\": \"local_shell_call_output\", \"id\": \"lsh\", \"output\": \"r\"}",
          "local_shell", "{\"command\": [\"ls\"], \"timeout_ms\": 5}" },
        { "{\"type\": \"local_shell_call\", \"id\": \"c\", \"action\": {\"type\": \"exec\"}}",
          "{\"type\": \"local_shell_call_output\", \"id\": \"c\", \"output\": \"r\"}",
          "local_shell", "{}" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Bytes body = { 0 };
        Turn t;
        bytes_printf(&body, "{\"input\": [" SAYS("q") ", %s, %s]}", cases[i].call, cases[i].result);
        bytes_byte(&body, 0);
        parse(body.p, &t);
        assert_int_equal(t.n_messages, 3);
        assert_int_equal(t.messages[1].n_calls, 1);
        str_is(t.messages[1].calls[0].id, "c");
        str_is(t.messages[1].calls[0].name, cases[i].name);
        str_is(t.messages[1].calls[0].arguments, cases[i].arguments);
        assert_int_equal(t.messages[2].role, CHAT_TOOL);
        str_is(t.messages[2].content, "r");
        turn_release(&t);
        bytes_release(&body);
    }
}

static void what_others_did_or_will_invent_is_passed_over(void **state)
{
    (void)state;
    prompt_is(
        "{" OFF "\"input\": [" SAYS(
            "q") ", {\"type\": \"web_search_call\", \"id\": "
                 "\"ws_1\", \"status\": \"completed\"}, {\"type\": \"mcp_list_tools\", \"id\": "
                 "\"m\", \"tools\": []}, {\"type\": \"mcp_call\", \"id\": \"m2\", \"name\": \"x\", "
                 "\"arguments\": \"{}\"}, {\"type\": \"mcp_approval_request\", \"id\": \"m3\"}, "
                 "{\"type\": \"compaction\", \"encrypted_content\": \"...\"}, {\"type\": "
                 "\"context_compaction\"}, {\"type\": \"tool_search_call\", \"arguments\": {}}, "
                 "{\"type\": \"not_yet_there\", \"id\": \"n\"}, " SAID("a") "]}",
        BOS USER "q" ASSISTANT "</think>a");
}

static void tools_found_on_the_way_are_told_where_they_were_found(void **state)
{
    (void)state;
    static const char body[] =
        "{" OFF "\"tools\": [{\"type\": \"tool_search\", \"execution\": \"client\", "
        "\"description\": \"d\", \"parameters\": {\"type\": \"object\"}}], \"input\": [" SAYS(
            "q") ", {\"type\": \"tool_search_call\", \"call_id\": \"c\", \"arguments\": {}}, "
                 "{\"type\": \"tool_search_output\", \"call_id\": \"c\", \"tools\": [{\"type\": "
                 "\"namespace\", \"name\": \"ns\", \"tools\": [{\"type\": \"function\", \"name\": "
                 "\"f\", "
                 "\"defer_loading\": true, \"parameters\": {}}]}]}, {\"type\": "
                 "\"additional_tools\", "
                 "\"role\": \"developer\", \"tools\": [{\"type\": \"function\", \"name\": \"g\", "
                 "\"description\": \"e\"}]}]}";
    Turn t;
    Bytes text = { 0 };
    parse(body, &t);
    assert_int_equal(t.n_tools, 3);
    str_is(t.tools[1].name, "ns__f");
    assert_true(t.tools[1].deferred && t.tools[2].deferred);
    assert_int_equal(t.messages[0].n_tools, 1);
    render(&t, &text);
    static const char found[] =
        "<tool_result><functions>\n<function>{\"name\": \"ns__f\", \"parameters\": {}}</function>"
        "\n</functions></tool_result>\n\n<system-reminder>\n<functions>\n<function>"
        "{\"description\": \"e\", \"name\": \"g\"}</function>\n</functions>\n</system-reminder>";
    if (!strstr(text.p, found))
        fail_msg("%s", text.p);
    bytes_release(&text);
    turn_release(&t);
}

/* ---- tools ---------------------------------------------------------------------------- */

#define TOOLS \
    "\"tools\": [{\"type\": \"function\", \"name\": \"f\", \"description\": \"d\", \"strict\": " \
    "true, \"parameters\": {\"type\": \"object\"}}, {\"type\": \"custom\", \"name\": \"patch\", " \
    "\"format\": {\"type\": \"grammar\", \"syntax\": \"lark\", \"definition\": \"start: " \
    "/a+/\"}}, " \
    "{\"type\": \"namespace\", \"name\": \"ns\", \"description\": \"n\", \"tools\": [{\"type\": " \
    "\"function\", \"name\": \"f\"}, {\"type\": \"custom\", \"name\": \"c\"}]}, {\"type\": " \
    "\"web_search\", \"external_web_access\": true}, {\"type\": \"image_generation\"}, " \
    "{\"type\": \"mcp\", \"server_label\": \"m\"}, {\"type\": \"tool_search\"}, {\"type\": " \
    "\"local_shell\"}], "
#define ASKED "\"input\": \"hi\"}"

static void tools_of_all_kinds_are_known_by_their_names(void **state)
{
    (void)state;
    static const char *const names[] = { "f", "patch", "ns__f", "ns__c", "local_shell" };
    Turn t;
    parse("{" TOOLS ASKED, &t);
    assert_int_equal(t.n_tools, COUNT(names));
    for (size_t i = 0; i < COUNT(names); i++)
        str_is(t.tools[i].name, names[i]);
    str_is(t.tools[0].function,
           "{\"name\": \"f\", \"description\": \"d\", \"parameters\": {\"type\": \"object\"}}");
    assert_true(t.tools[0].strict && !t.tools[2].strict);
    assert_int_equal(t.tools[1].kind, TOOL_CUSTOM);
    str_is(t.tools[1].grammar, "start: /a+/");
    str_is(t.tools[2].wire_name, "f");
    str_is(t.tools[2].space, "ns");
    assert_int_equal(t.tools[3].kind, TOOL_CUSTOM);
    assert_true(json_is_object(t.tools[4].parameters));
    turn_release(&t);
}

static void tools_are_put_off_only_for_who_searches(void **state)
{
    (void)state;
#define LATER "{\"type\": \"function\", \"name\": \"f\", \"defer_loading\": true}"
    Turn t;
    parse("{\"tools\": [" LATER ", {\"type\": \"tool_search\"}], " ASKED, &t);
    assert_false(t.tools[0].deferred);
    assert_int_equal(t.n_tools, 1);
    turn_release(&t);
    parse("{\"tools\": [" LATER ", {\"type\": \"tool_search\", \"execution\": \"client\"}], " ASKED,
          &t);
    assert_true(t.tools[0].deferred);
    assert_int_equal(t.n_tools, 2);
    turn_release(&t);
}

static void choices_of_tools_are_taken(void **state)
{
    (void)state;
    static const struct {
        const char *choice;
        enum ToolChoice want;
        const char *name;
    } cases[] = {
        { "\"auto\"", CHOOSE_AUTO, "" },
        { "null", CHOOSE_AUTO, "" },
        { "\"none\"", CHOOSE_NONE, "" },
        { "\"required\"", CHOOSE_REQUIRED, "" },
        { "{\"type\": \"function\", \"name\": \"f\"}", CHOOSE_NAMED, "f" },
        { "{\"type\": \"function\", \"name\": \"f\", \"namespace\": \"ns\"}", CHOOSE_NAMED,
          "ns__f" },
        { "{\"type\": \"custom\", \"name\": \"patch\"}", CHOOSE_NAMED, "patch" },
        { "{\"type\": \"local_shell\"}", CHOOSE_NAMED, "local_shell" },
    };
    Turn t;
    for (size_t i = 0; i < COUNT(cases); i++) {
        Bytes body = { 0 };
        bytes_printf(&body, "{" TOOLS "\"tool_choice\": %s, " ASKED, cases[i].choice);
        bytes_byte(&body, 0);
        parse(body.p, &t);
        assert_int_equal(t.choice, cases[i].want);
        str_is(t.choice_name, cases[i].name);
        assert_true(t.parallel);
        turn_release(&t);
        bytes_release(&body);
    }
    parse("{" TOOLS "\"parallel_tool_calls\": false, \"tool_choice\": {\"type\": "
          "\"allowed_tools\", \"mode\": \"required\", \"tools\": [{\"type\": \"custom\", \"name\": "
          "\"patch\"}, {\"type\": \"web_search\"}]}, " ASKED,
          &t);
    assert_int_equal(t.choice, CHOOSE_REQUIRED);
    assert_true(t.tools[0].barred && !t.tools[1].barred && t.tools[2].barred && !t.parallel);
    turn_release(&t);
}

/* ---- what else is asked for --------------------------------------------------------------- */

static void options_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse("{\"model\": \"m\", \"stream\": true, \"max_output_tokens\": 7, \"store\": false, "
          "\"include\": [\"reasoning.encrypted_content\", \"file_search_call.results\"], "
          "\"reasoning\": {\"effort\": \"low\", \"summary\": \"auto\"}, \"truncation\": \"auto\", "
          "\"prompt_cache_key\": \"key\", \"text\": {\"verbosity\": \"low\"}, \"service_tier\": "
          "\"flex\", \"unheard_of\": 1, " ASKED,
          &t);
    str_is(t.model, "m");
    str_is(t.session, "key");
    assert_true(t.stream && !t.store && t.include_encrypted && t.show_reasoning_summary);
    assert_int_equal(t.think, CHAT_THINK_LOW);
    assert_int_equal(t.max_tokens, 7);
    turn_release(&t);
    parse("{" ASKED, &t);
    assert_true(t.store && !t.include_encrypted && !t.show_reasoning_summary && !t.stream);
    assert_int_equal(t.think, CHAT_THINK_HIGH);
    turn_release(&t);
    parse("{\"reasoning\": {\"effort\": null, \"summary\": \"none\"}, " ASKED, &t);
    assert_false(t.show_reasoning_summary);
    turn_release(&t);
}

static void forms_of_the_answer_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse("{\"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"x\", \"strict\": true, "
          "\"schema\": {\"type\": \"object\"}}}, " ASKED,
          &t);
    assert_int_equal(t.format, FORMAT_JSON_SCHEMA);
    assert_true(json_is(json_member(t.schema, "type"), "object"));
    turn_release(&t);
    parse("{\"text\": {\"format\": {\"type\": \"json_object\"}}, " ASKED, &t);
    assert_int_equal(t.format, FORMAT_JSON_OBJECT);
    turn_release(&t);
    parse("{\"text\": {\"format\": {\"type\": \"text\"}}, \"regex\": \"a+\", " ASKED, &t);
    assert_int_equal(t.format, FORMAT_REGEX);
    turn_release(&t);
}

static void codex_says_who_it_is_in_its_body_too(void **state)
{
    (void)state;
    Turn t;
    parse("{\"client_metadata\": {\"session_id\": \"s\", \"thread_id\": \"t\"}, "
          "\"prompt_cache_key\": \"k\", " ASKED,
          &t);
    str_is(t.session, "s");
    str_is(t.agent, "t");
    turn_release(&t);
}

static const struct {
    const char *body, *param, *code;
} refusals[] = {
    { "[]", NULL, "invalid_json" },
    { "{}", "input", "invalid_value" },
    { "{\"input\": null}", "input", "invalid_value" },
    { "{\"input\": []}", "input", "invalid_value" },
    { "{\"input\": 5}", "input", "invalid_value" },
    { "{\"input\": {}}", "input", "invalid_value" },
    { "{\"input\": [1]}", "input", "invalid_value" },
    { "{\"input\": [null]}", "input", "invalid_value" },
    { "{\"input\": [{}]}", "input", "invalid_value" },
    { "{\"input\": [{\"role\": \"bot\", \"content\": \"\"}]}", "input", "invalid_value" },
    { "{\"input\": [{\"role\": \"user\", \"content\": 5}]}", "input", "invalid_value" },
    { "{\"input\": [{\"role\": \"user\", \"content\": [{\"text\": \"x\"}]}]}", "input",
      "invalid_value" },
    { "{\"input\": [{\"type\": \"reasoning\", \"summary\": 1}]}", "input", "invalid_value" },
    { "{\"input\": [{\"type\": \"function_call\", \"name\": \"f\"}]}", "input", "invalid_value" },
    { "{\"input\": [{\"type\": \"function_call\", \"call_id\": \"c\"}]}", "input",
      "invalid_value" },
    { "{\"input\": [{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", "
      "\"arguments\": 1}]}",
      "input", "invalid_value" },
    { "{\"input\": [{\"type\": \"local_shell_call\", \"call_id\": \"c\"}]}", "input",
      "invalid_value" },
    { "{\"input\": [{\"type\": \"function_call_output\", \"output\": \"\"}]}", "input",
      "unknown_call_id" },
    { "{\"input\": [" SAYS("q") ", " OUTPUT("c9", "r") "]}", "input", "unknown_call_id" },
    { "{\"input\": [{\"type\": \"tool_search_output\", \"call_id\": \"c\", \"tools\": []}]}",
      "input", "unknown_call_id" },
    { "{\"input\": [{\"type\": \"tool_search_output\", \"tools\": {}}]}", "tools",
      "invalid_value" },
    { "{\"input\": [{\"type\": \"item_reference\", \"id\": \"msg_1\"}]}", "input",
      "invalid_value" },
    { "{\"input\": [{\"type\": \"compaction_trigger\"}]}", "input", "invalid_value" },
    { "{\"previous_response_id\": \"resp_1\", " ASKED, "previous_response_id",
      "previous_response_not_found" },
    { "{\"previous_response_id\": 1, " ASKED, "previous_response_id", "invalid_value" },
    { "{\"conversation\": \"conv_1\", " ASKED, "conversation", "unsupported_parameter" },
    { "{\"prompt\": {\"id\": \"p\"}, " ASKED, "prompt", "unsupported_parameter" },
    { "{\"background\": true, " ASKED, "background", "unsupported_parameter" },
    { "{\"instructions\": [], " ASKED, "instructions", "invalid_value" },
    { "{\"max_output_tokens\": 0, " ASKED, "max_output_tokens", "invalid_value" },
    { "{\"temperature\": 3, " ASKED, "temperature", "invalid_value" },
    { "{\"store\": 1, " ASKED, "store", "invalid_value" },
    { "{\"truncation\": \"some\", " ASKED, "truncation", "invalid_value" },
    { "{\"top_logprobs\": 2, " ASKED, "top_logprobs", "invalid_value" },
    { "{\"include\": \"x\", " ASKED, "include", "invalid_value" },
    { "{\"include\": [1], " ASKED, "include", "invalid_value" },
    { "{\"include\": [\"message.output_text.logprobs\"], " ASKED, "include", "invalid_value" },
    { "{\"reasoning\": \"high\", " ASKED, "reasoning", "invalid_value" },
    { "{\"reasoning\": {\"effort\": \"huge\"}, " ASKED, "reasoning.effort", "invalid_value" },
    { "{\"reasoning\": {\"summary\": \"all\"}, " ASKED, "reasoning.summary", "invalid_value" },
    { "{\"text\": \"x\", " ASKED, "text", "invalid_value" },
    { "{\"text\": {\"format\": {\"type\": \"xml\"}}, " ASKED, "text.format", "invalid_value" },
    { "{\"text\": {\"format\": {\"type\": \"json_schema\"}}, " ASKED, "text.format",
      "invalid_value" },
    { "{\"regex\": \"a\", \"text\": {\"format\": {\"type\": \"json_object\"}}, " ASKED,
      "text.format", "invalid_value" },
    { "{\"tools\": {}, " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [1], " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [{\"name\": \"f\"}], " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"function\"}], " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"namespace\", \"tools\": []}], " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"namespace\", \"name\": \"n\", \"tools\": [{\"type\": "
      "\"namespace\", \"name\": \"m\"}]}], " ASKED,
      "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"custom\", \"name\": \"c\", \"format\": {\"type\": \"grammar\", "
      "\"syntax\": \"bnf\"}}], " ASKED,
      "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"local_shell\"}, {\"type\": \"local_shell\"}], " ASKED, "tools",
      "invalid_value" },
    { "{\"tool_choice\": \"maybe\", " ASKED, "tool_choice", "invalid_value" },
    { "{\"tool_choice\": \"required\", " ASKED, "tool_choice", "invalid_value" },
    { "{\"tool_choice\": {\"type\": \"function\", \"name\": \"x\"}, " ASKED, "tool_choice",
      "invalid_value" },
    { "{\"tool_choice\": {\"type\": \"web_search\"}, " ASKED, "tool_choice", "invalid_value" },
    { "{\"tool_choice\": {\"type\": \"allowed_tools\", \"tools\": []}, " ASKED, "tool_choice",
      "invalid_value" },
    { "{\"parallel_tool_calls\": 1, " ASKED, "parallel_tool_calls", "invalid_value" },
};

static void what_cannot_be_done_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        ApiError e;
        Turn t;
        if (parse_with(&test_server, refusals[i].body, &t, &e))
            fail_msg("%s was taken", refusals[i].body);
        assert_int_equal(e.status, 400);
        assert_true(e.message[0]);
        if (refusals[i].param && (!e.param || strcmp(e.param, refusals[i].param) != 0))
            fail_msg("%s: %s, not %s", refusals[i].body, e.param ? e.param : "(none)",
                     refusals[i].param);
        if (!e.code || strcmp(e.code, refusals[i].code) != 0)
            fail_msg("%s: %s, not %s", refusals[i].body, e.code ? e.code : "(none)",
                     refusals[i].code);
    }
}

/* Found tools are short to name and long to tell. */
static void what_was_found_cannot_fill_the_memory(void **state)
{
    (void)state;
    Bytes b = { 0 };
    ApiError e;
    Turn t;
    bytes_str(&b, "{\"tools\": [{\"type\": \"function\", \"name\": \"f\", \"description\": \"");
    bytes_fill(&b, 'x', 100000);
    bytes_str(&b, "\"}], \"input\": [{\"type\": \"additional_tools\", \"tools\": [");
    for (int i = 0; i < 100; i++)
        bytes_printf(&b, "%s{\"type\": \"function\", \"name\": \"f\"}", i ? "," : "");
    bytes_str(&b, "]}]}");
    bytes_byte(&b, 0);
    assert_false(parse_with(&test_server, b.p, &t, &e));
    assert_string_equal(e.param, "input");
    bytes_release(&b);
}

/* ---- answering ---------------------------------------------------------------------------- */

typedef struct {
    Turn t;
    Answer *a;
    Bytes out;
    const char *echo; /* what the response repeats of its request */
} Told;

#define REPEATS(reasoning, tools) \
    ",\"background\":false,\"instructions\":null,\"max_output_tokens\":null," \
    "\"max_tool_calls\":null,\"metadata\":{},\"parallel_tool_calls\":true," \
    "\"previous_response_id\":null,\"prompt_cache_key\":null,\"reasoning\":" reasoning \
    ",\"safety_identifier\":null,\"store\":true,\"temperature\":null,\"text\":{\"format\":" \
    "{\"type\":\"text\"}},\"tool_choice\":\"auto\",\"tools\":" tools \
    ",\"top_logprobs\":0,\"top_p\":null,\"truncation\":\"disabled\",\"user\":null"
#define NO_EFFORT "{\"effort\":null,\"summary\":null}"

static void begin(Told *told, const char *body)
{
    *told = (Told){ .echo = REPEATS(NO_EFFORT, "[]") };
    parse(body, &told->t);
    ids_given = 0;
    told->a = dialect_responses.answer_new(&told->t, &test_server);
    assert_non_null(told->a);
    assert_string_equal(responses_id(told->a), "resp_00000000000000000000000000000001");
}

static void tell(Told *told, const Event *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dialect_responses.event(told->a, &e[i], told->t.stream ? &told->out : NULL);
}

static void end(Told *told)
{
    dialect_responses.answer_free(told->a);
    turn_release(&told->t);
    bytes_release(&told->out);
}

/* The time of day is in no golden. */
static void set_time_to_zero(Bytes *b)
{
    static const char key[] = "\"created_at\":";
    bytes_byte(b, 0);
    for (char *p = b->p; (p = strstr(p, key));) {
        p += sizeof key - 1;
        size_t n = strspn(p, "0123456789");
        assert_true(n >= 10);
        memmove(p + 1, p + n, strlen(p + n) + 1);
        *p = '0';
    }
    b->n = strlen(b->p);
}

/* want[], up to NULL; '@' in it stands for told->echo. */
static void told_is(Told *told, const char *const *want)
{
    Bytes all = { 0 };
    size_t i = 0;
    assert_false(told->out.failed);
    set_time_to_zero(&told->out);
    for (; *want; want++)
        for (const char *p = *want; *p; p++)
            *p == '@' ? bytes_str(&all, told->echo) : bytes_byte(&all, (unsigned char)*p);
    bytes_byte(&all, 0);
    const char *got = told->out.p;
    while (got[i] && got[i] == all.p[i])
        i++;
    if (got[i] != all.p[i])
        fail_msg("from byte %zu: \"%.160s\", not \"%.160s\"", i, got + i, all.p + i);
    bytes_release(&all);
}

#define TOLD(told, ...) told_is(told, (const char *const[]){ __VA_ARGS__, NULL })

#define ID(n) "0000000000000000000000000000000" #n
#define RESPONSE(status, error, details, output, usage) \
    "{\"id\":\"resp_" ID(1) "\",\"object\":\"response\",\"created_at\":0,\"status\":\"" status \
                            "\",\"error\":" error ",\"incomplete_details\":" details \
                            ",\"model\":\"deepseek-v4-flash\",\"output\":[" output \
                            "]@,\"usage\":" usage "}"
#define RUNNING(output) RESPONSE("in_progress", "null", "null", output, "null")
#define USAGE \
    "{\"input_tokens\":20,\"input_tokens_details\":{\"cached_tokens\":12},\"output_tokens\":5," \
    "\"output_tokens_details\":{\"reasoning_tokens\":2},\"total_tokens\":25}"
#define COMPLETED(output) RESPONSE("completed", "null", "null", output, USAGE)
#define INCOMPLETE(output) \
    RESPONSE("incomplete", "null", "{\"reason\":\"max_output_tokens\"}", output, USAGE)

#define EVENT(type, n, members) \
    "event: response." type "\ndata: {\"type\":\"response." type "\",\"sequence_number\":" #n \
    "," members "}\n\n"
#define STATE(type, n, response) EVENT(type, n, "\"response\":" response)
#define ITEM(what, n, index, item) \
    EVENT("output_item." what, n, "\"output_index\":" #index ",\"item\":" item)
#define AT(id, index) "\"item_id\":\"" id "\",\"output_index\":" #index

#define PART(text) \
    "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"" text "\"}"
#define MESSAGE(n, status, content) \
    "{\"id\":\"msg_" ID(n) "\",\"type\":\"message\",\"status\":\"" status \
                           "\",\"role\":\"assistant\",\"content\":[" content "]}"
#define IN_TEXT(n, index) AT("msg_" ID(n), index) ",\"content_index\":0,"
#define PART_ADDED(n, index, number) \
    EVENT("content_part.added", number, IN_TEXT(n, index) "\"part\":" PART(""))
#define DELTA(n, index, number, text) \
    EVENT("output_text.delta", number, IN_TEXT(n, index) "\"delta\":\"" text "\",\"logprobs\":[]")
#define TEXT_DONE(n, index, number, text) \
    EVENT("output_text.done", number, IN_TEXT(n, index) "\"text\":\"" text "\",\"logprobs\":[]")
#define PART_DONE(n, index, number, text) \
    EVENT("content_part.done", number, IN_TEXT(n, index) "\"part\":" PART(text))

#define FUNCTION(n, status, arguments, call, name) \
    "{\"id\":\"fc_" ID(n) "\",\"type\":\"function_call\",\"status\":\"" status \
                          "\",\"call_id\":\"" call "\",\"arguments\":\"" arguments \
                          "\",\"name\":" name "}"
#define FC(n, index) AT("fc_" ID(n), index) ","

static Event text(const char *s) { return (Event){ .kind = EV_TEXT, .bytes = str_of(s) }; }

static Event thought(const char *s, const char *handle)
{
    return (Event){ .kind = EV_REASONING, .bytes = str_of(s), .handle = handle };
}

static Event call(const Tool *tool, const char *name, const char *id)
{
    return (Event){ .kind = EV_TOOL_BEGIN, .tool = tool, .name = str_of(name), .call_id = id };
}

static Event arguments(const char *s)
{
    return (Event){ .kind = EV_TOOL_ARGS, .bytes = str_of(s) };
}

static const Event call_end = { .kind = EV_TOOL_END };

static Event finish(enum Finish how)
{
    return (Event){ .kind = EV_FINISH,
                    .finish = how,
                    .usage = { .prompt = 20, .cached = 12, .completion = 5, .reasoning = 2 } };
}

#define TELL(told, ...) \
    tell(told, (const Event[]){ __VA_ARGS__ }, COUNT(((const Event[]){ __VA_ARGS__ })))

static void a_text_comes_piece_by_piece_and_in_full(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, " ASKED);
    dialect_responses.start(told.a, &told.out);
    TELL(&told, text("Hel"), text(""), text("lo \"you\""), finish(FINISH_STOP));
#define HELLO MESSAGE(2, "completed", PART("Hello \\\"you\\\""))
    TOLD(&told, STATE("created", 0, RUNNING("")), STATE("in_progress", 1, RUNNING("")),
         ITEM("added", 2, 0, MESSAGE(2, "in_progress", "")), PART_ADDED(2, 0, 3),
         DELTA(2, 0, 4, "Hel"), DELTA(2, 0, 5, "lo \\\"you\\\""),
         TEXT_DONE(2, 0, 6, "Hello \\\"you\\\""), PART_DONE(2, 0, 7, "Hello \\\"you\\\""),
         ITEM("done", 8, 0, HELLO), STATE("completed", 9, COMPLETED(HELLO)));
    end(&told);
}

static void a_whole_answer_is_what_the_last_event_says(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{" ASKED);
    TELL(&told, text("Hel"), text("lo \"you\""), finish(FINISH_STOP));
    assert_int_equal(told.out.n, 0);
    dialect_responses.reply(told.a, &told.out);
    TOLD(&told, COMPLETED(HELLO));
    end(&told);
}

/* The openai package replaces what it has by what this event says. */
static void a_beat_of_the_heart_says_everything_so_far(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, " ASKED);
    dialect_responses.heartbeat(told.a, &told.out);
    TELL(&told, text("Hel"));
    dialect_responses.heartbeat(told.a, &told.out);
    TELL(&told, text("lo"), call(NULL, "f", "c"), arguments("{\"x"));
    dialect_responses.heartbeat(told.a, &told.out);
#define LO               MESSAGE(2, "completed", PART("Hello"))
#define BEGUN(arguments) FUNCTION(3, "in_progress", arguments, "c", "\"f\"")
    TOLD(&told, STATE("in_progress", 0, RUNNING("")),
         ITEM("added", 1, 0, MESSAGE(2, "in_progress", "")), PART_ADDED(2, 0, 2),
         DELTA(2, 0, 3, "Hel"),
         STATE("in_progress", 4, RUNNING(MESSAGE(2, "in_progress", PART("Hel")))),
         DELTA(2, 0, 5, "lo"), TEXT_DONE(2, 0, 6, "Hello"), PART_DONE(2, 0, 7, "Hello"),
         ITEM("done", 8, 0, LO), ITEM("added", 9, 1, BEGUN("")),
         EVENT("function_call_arguments.delta", 10, FC(3, 1) "\"delta\":\"{\\\"x\""),
         STATE("in_progress", 11, RUNNING(LO "," BEGUN("{\\\"x"))));
    end(&told);
}

#define SUMMARY(text) "{\"type\":\"summary_text\",\"text\":\"" text "\"}"
#define THINKS(summary, more) \
    "{\"id\":\"rs_" ID(2) "\",\"type\":\"reasoning\",\"summary\":[" summary "]" more "}"
#define IN_SUMMARY AT("rs_" ID(2), 0) ",\"summary_index\":0,"

static void reasoning_is_told_as_the_summary_that_was_asked_for(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, \"reasoning\": {\"summary\": \"auto\"}, \"include\": "
                 "[\"reasoning.encrypted_content\"], " ASKED);
    told.echo = REPEATS("{\"summary\": \"auto\"}", "[]");
    TELL(&told, thought("Hm", NULL), thought("m.", NULL), thought("", "v1.handle"), text("Yes"),
         finish(FINISH_STOP));
#define HMM THINKS(SUMMARY("Hmm."), ",\"encrypted_content\":\"v1.handle\"")
#define YES MESSAGE(3, "completed", PART("Yes"))
    TOLD(&told, ITEM("added", 0, 0, THINKS("", "")),
         EVENT("reasoning_summary_part.added", 1, IN_SUMMARY "\"part\":" SUMMARY("")),
         EVENT("reasoning_summary_text.delta", 2, IN_SUMMARY "\"delta\":\"Hm\""),
         EVENT("reasoning_summary_text.delta", 3, IN_SUMMARY "\"delta\":\"m.\""),
         EVENT("reasoning_summary_text.done", 4, IN_SUMMARY "\"text\":\"Hmm.\""),
         EVENT("reasoning_summary_part.done", 5, IN_SUMMARY "\"part\":" SUMMARY("Hmm.")),
         ITEM("done", 6, 0, HMM), ITEM("added", 7, 1, MESSAGE(3, "in_progress", "")),
         PART_ADDED(3, 1, 8), DELTA(3, 1, 9, "Yes"), TEXT_DONE(3, 1, 10, "Yes"),
         PART_DONE(3, 1, 11, "Yes"), ITEM("done", 12, 1, YES),
         STATE("completed", 13, COMPLETED(HMM "," YES)));
    end(&told);
}

static void reasoning_without_a_summary_is_an_item_with_its_handle(void **state)
{
    (void)state;
    Told told;
    Event last = finish(FINISH_STOP);
    last.handle = "of the end";
    begin(&told, "{\"stream\": true, \"include\": [\"reasoning.encrypted_content\"], " ASKED);
    TELL(&told, thought("Hmm.", NULL), thought("", "h"), last);
#define SILENT THINKS("", ",\"encrypted_content\":\"h\"")
    TOLD(&told, ITEM("added", 0, 0, THINKS("", "")), ITEM("done", 1, 0, SILENT),
         STATE("completed", 2, COMPLETED(SILENT)));
    end(&told);
    /* A thought that nothing follows may get its handle at the end. */
    begin(&told, "{\"include\": [\"reasoning.encrypted_content\"], " ASKED);
    TELL(&told, thought("Hmm.", NULL), last);
    dialect_responses.reply(told.a, &told.out);
    TOLD(&told, COMPLETED(THINKS("", ",\"encrypted_content\":\"of the end\"")));
    end(&told);
    /* Nobody asked for it. */
    begin(&told, "{" ASKED);
    TELL(&told, thought("Hmm.", "h"), last);
    dialect_responses.reply(told.a, &told.out);
    TOLD(&told, COMPLETED(THINKS("", "")));
    end(&told);
}

static void raw_reasoning_is_told_as_it_is_on_request(void **state)
{
    (void)state;
#define RAW(text)  "{\"type\":\"reasoning_text\",\"text\":\"" text "\"}"
#define IN_CONTENT AT("rs_" ID(2), 0) ",\"content_index\":0,"
#define RAW_HM     THINKS("", ",\"content\":[" RAW("Hm") "]")
    Told told;
    begin(&told, "{\"stream\": true, \"include_raw_reasoning\": true, " ASKED);
    TELL(&told, thought("Hm", NULL), finish(FINISH_STOP));
    TOLD(&told, ITEM("added", 0, 0, THINKS("", ",\"content\":[]")),
         EVENT("content_part.added", 1, IN_CONTENT "\"part\":" RAW("")),
         EVENT("reasoning_text.delta", 2, IN_CONTENT "\"delta\":\"Hm\""),
         EVENT("reasoning_text.done", 3, IN_CONTENT "\"text\":\"Hm\""),
         EVENT("content_part.done", 4, IN_CONTENT "\"part\":" RAW("Hm")),
         ITEM("done", 5, 0, RAW_HM), STATE("completed", 6, COMPLETED(RAW_HM)));
    end(&told);
}

static void parallel_calls_come_one_after_the_other(void **state)
{
    (void)state;
#define SPACE \
    "[{\"type\": \"namespace\", \"name\": \"ns\", \"tools\": [{\"type\": \"function\", \"name\": " \
    "\"f\"}]}]"
#define OF_SPACE "\"f\",\"namespace\":\"ns\""
#define A        FUNCTION(2, "completed", "{\\\"x\\\":1}", "call_a", OF_SPACE)
#define B        FUNCTION(3, "completed", "{}", "call_b", "\"new\"")
    Told told;
    begin(&told, "{\"stream\": true, \"tools\": " SPACE ", " ASKED);
    told.echo = REPEATS(NO_EFFORT, SPACE);
    TELL(&told, call(&told.t.tools[0], NULL, "call_a"), arguments("{\"x\""), arguments(":1}"),
         call_end, call(NULL, "new", "call_b"), call_end, finish(FINISH_TOOL_CALLS));
    TOLD(&told, ITEM("added", 0, 0, FUNCTION(2, "in_progress", "", "call_a", OF_SPACE)),
         EVENT("function_call_arguments.delta", 1, FC(2, 0) "\"delta\":\"{\\\"x\\\"\""),
         EVENT("function_call_arguments.delta", 2, FC(2, 0) "\"delta\":\":1}\""),
         EVENT("function_call_arguments.done", 3,
               FC(2, 0) "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\""),
         ITEM("done", 4, 0, A),
         ITEM("added", 5, 1, FUNCTION(3, "in_progress", "", "call_b", "\"new\"")),
         EVENT("function_call_arguments.delta", 6, FC(3, 1) "\"delta\":\"{}\""),
         EVENT("function_call_arguments.done", 7, FC(3, 1) "\"name\":\"new\",\"arguments\":\"{}\""),
         ITEM("done", 8, 1, B), STATE("completed", 9, COMPLETED(A "," B)));
    end(&told);
}

static void a_custom_call_streams_its_input(void **state)
{
    (void)state;
#define PATCH "[{\"type\": \"custom\", \"name\": \"patch\"}]"
#define CUSTOM(status, input) \
    "{\"id\":\"ctc_" ID(2) "\",\"type\":\"custom_tool_call\",\"status\":\"" status \
                           "\",\"call_id\":\"call_a\",\"input\":\"" input "\",\"name\":\"patch\"}"
#define PATCHED CUSTOM("completed", "*** Begin\\n+\\\"x\\\"")
#define CTC     AT("ctc_" ID(2), 0) ","
    Told told;
    begin(&told, "{\"stream\": true, \"tools\": " PATCH ", " ASKED);
    told.echo = REPEATS(NO_EFFORT, PATCH);
    TELL(&told, call(&told.t.tools[0], NULL, "call_a"), arguments("*** Begin\n"),
         arguments("+\"x\""), call_end, finish(FINISH_TOOL_CALLS));
    TOLD(&told, ITEM("added", 0, 0, CUSTOM("in_progress", "")),
         EVENT("custom_tool_call_input.delta", 1, CTC "\"delta\":\"*** Begin\\n\""),
         EVENT("custom_tool_call_input.delta", 2, CTC "\"delta\":\"+\\\"x\\\"\""),
         EVENT("custom_tool_call_input.done", 3, CTC "\"input\":\"*** Begin\\n+\\\"x\\\"\""),
         ITEM("done", 4, 0, PATCHED), STATE("completed", 5, COMPLETED(PATCHED)));
    end(&told);
}

static void calls_that_the_api_has_names_for_are_told_in_its_form(void **state)
{
    (void)state;
#define SEARCH(status, arguments) \
    "{\"id\":\"tsc_" ID( \
        2) "\",\"type\":\"tool_search_call\",\"status\":\"" status \
           "\",\"call_id\":\"call_a\",\"execution\":\"client\",\"arguments\":" arguments "}"
#define SHELL(status, command, timeout) \
    "{\"id\":\"lsh_" ID( \
        3) "\",\"type\":\"local_shell_call\",\"status\":\"" status \
           "\",\"call_id\":\"call_b\",\"action\":{\"type\":\"exec\",\"command\":" command \
           ",\"env\":{},\"user\":null,\"timeout_ms\":" timeout ",\"working_directory\":null}}"
#define RUN SHELL("completed", "[\"ls\"]", "5")
    Told told;
    begin(&told, "{\"stream\": true, \"tools\": [{\"type\": \"tool_search\", \"execution\": "
                 "\"client\"}, {\"type\": \"local_shell\"}], " ASKED);
    TELL(&told, call(&told.t.tools[0], NULL, "call_a"), arguments("{\"query\":"),
         arguments("\"x\"}"), call_end, call(&told.t.tools[1], NULL, "call_b"),
         arguments("{\"command\":[\"ls\"],\"timeout_ms\":5}"), call_end);
    TOLD(&told, ITEM("added", 0, 0, SEARCH("in_progress", "{}")),
         ITEM("done", 1, 0, SEARCH("completed", "{\"query\": \"x\"}")),
         ITEM("added", 2, 1, SHELL("in_progress", "[]", "null")), ITEM("done", 3, 1, RUN));
    end(&told);
}

static void a_function_named_like_a_shell_is_a_function(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, \"tools\": [{\"type\": \"function\", \"name\": "
                 "\"local_shell\"}], " ASKED);
    TELL(&told, call(&told.t.tools[0], NULL, "c"));
    TOLD(&told, ITEM("added", 0, 0, FUNCTION(2, "in_progress", "", "c", "\"local_shell\"")));
    end(&told);
}

static void what_was_cut_off_is_incomplete(void **state)
{
    (void)state;
#define HALF MESSAGE(2, "incomplete", PART("Hel"))
    Told told;
    begin(&told, "{\"stream\": true, " ASKED);
    TELL(&told, text("Hel"), finish(FINISH_LENGTH));
    TOLD(&told, ITEM("added", 0, 0, MESSAGE(2, "in_progress", "")), PART_ADDED(2, 0, 1),
         DELTA(2, 0, 2, "Hel"), TEXT_DONE(2, 0, 3, "Hel"), PART_DONE(2, 0, 4, "Hel"),
         ITEM("done", 5, 0, HALF), STATE("incomplete", 6, INCOMPLETE(HALF)));
    end(&told);
}

/* Nobody should run half of a command. */
static void half_a_call_is_none(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, " ASKED);
    TELL(&told, call(NULL, "f", "c"), arguments("{\"x"), finish(FINISH_CONTEXT));
    TOLD(&told, ITEM("added", 0, 0, FUNCTION(2, "in_progress", "", "c", "\"f\"")),
         EVENT("function_call_arguments.delta", 1, FC(2, 0) "\"delta\":\"{\\\"x\""),
         STATE("incomplete", 2, INCOMPLETE("")));
    end(&told);
    begin(&told, "{" ASKED);
    TELL(&told, call(NULL, "f", "c"), arguments("{\"x"), text("Yes"), finish(FINISH_STOP));
    dialect_responses.reply(told.a, &told.out);
    TOLD(&told, COMPLETED(YES));
    end(&told);
}

static void a_repetition_is_told_as_a_stop_with_its_reason(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{" ASKED);
    TELL(&told, finish(FINISH_LOOP));
    dialect_responses.reply(told.a, &told.out);
    TOLD(&told, RESPONSE("completed", "null", "null", "", USAGE ",\"stop_reason\":\"repetition\""));
    end(&told);
}

static void a_failure_is_told_with_what_there_is(void **state)
{
    (void)state;
    static const struct {
        int status, n_prompt, n_context;
        const char *code, *code_told, *message;
    } cases[] = {
        { 500, 0, 0, NULL, "server_error", "m" },
        { 400, 0, 0, "invalid_value", "invalid_prompt", "m" },
        { 400, 210000, 100000, "context_length_exceeded", "context_length_exceeded",
          "This model's maximum context length is 100000 tokens. However, your messages resulted "
          "in 210000 tokens. Please reduce the length of the messages." },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ApiError e;
        Told told;
        char want[4096];
        api_fail(&e, cases[i].status, cases[i].code, NULL, "m");
        e.n_prompt = cases[i].n_prompt;
        e.n_context = cases[i].n_context;
        begin(&told, "{\"stream\": true, " ASKED);
        TELL(&told, text("Hel"));
        bytes_clear(&told.out);
        TELL(&told, { .kind = EV_ERROR, .error = &e });
        snprintf(
            want, sizeof want,
            STATE("failed", 3,
                  RESPONSE("failed", "{\"code\":\"%s\",\"message\":\"%s\"}", "null", HALF, "null")),
            cases[i].code_told, cases[i].message);
        TOLD(&told, want);
        end(&told);
    }
}

/* Nothing is said: a reset connection is what all clients try again after. */
static void what_is_worth_another_try_is_no_event(void **state)
{
    (void)state;
    ApiError e;
    Told told;
    api_fail(&e, 503, "draining", NULL, "m");
    begin(&told, "{\"stream\": true, " ASKED);
    TELL(&told, { .kind = EV_ERROR, .error = &e });
    assert_int_equal(told.out.n, 0);
    end(&told);
}

static void errors_before_an_answer_are_openais(void **state)
{
    (void)state;
    ApiError e;
    Bytes out = { 0 };
    api_fail(&e, 400, "context_length_exceeded", NULL, "too long");
    e.n_prompt = 7;
    e.n_context = 5;
    dialect_responses.error(&e, "req_1", &out);
    bytes_byte(&out, 0);
    assert_non_null(strstr(out.p, "\"param\":\"input\",\"code\":\"context_length_exceeded\""));
    assert_int_equal(dialect_responses.status(&e), 400);
    bytes_release(&out);
}

static void the_response_repeats_what_was_asked_for(void **state)
{
    (void)state;
    static const char *const members[] = {
        "\"instructions\":\"be\"",
        "\"max_output_tokens\":9",
        "\"metadata\":{\"a\": \"b\"}",
        "\"parallel_tool_calls\":false",
        "\"prompt_cache_key\":\"k\"",
        "\"reasoning\":{\"effort\": \"low\"}",
        "\"store\":false",
        "\"temperature\":0.5",
        "\"text\":{\"format\": {\"type\": \"json_object\"}}",
        "\"tool_choice\":\"none\"",
        "\"truncation\":\"auto\"",
        "\"user\":\"u\"",
        "\"model\":\"m\"",
    };
    Told told;
    begin(&told, "{\"model\": \"m\", \"instructions\": \"be\", \"max_output_tokens\": 9, "
                 "\"metadata\": {\"a\": \"b\"}, \"parallel_tool_calls\": false, "
                 "\"prompt_cache_key\": \"k\", \"reasoning\": {\"effort\": \"low\"}, \"store\": "
                 "false, \"temperature\": 0.5, \"text\": {\"format\": {\"type\": "
                 "\"json_object\"}}, \"tool_choice\": \"none\", \"truncation\": \"auto\", "
                 "\"user\": \"u\", " ASKED);
    TELL(&told, finish(FINISH_STOP));
    dialect_responses.reply(told.a, &told.out);
    bytes_byte(&told.out, 0);
    for (size_t i = 0; i < COUNT(members); i++)
        if (!strstr(told.out.p, members[i]))
            fail_msg("no %s in %s", members[i], told.out.p);
    end(&told);
}

/* ---- keeping ------------------------------------------------------------------------------- */

/* Answers `body` with reasoning, text and a call, and keeps the answer; its id
 * goes to id. */
static void answer(const ServerInfo *s, const char *body, const char *says, char id[64])
{
    Turn t;
    parse_at(s, body, &t);
    Answer *a = dialect_responses.answer_new(&t, s);
    const Event said[] = { thought("why", NULL),      thought("", "h"),       text(says),
                           call(NULL, "f", "call_1"), arguments("{\"a\":1}"), call_end,
                           finish(FINISH_TOOL_CALLS) };
    for (size_t i = 0; i < COUNT(said); i++)
        dialect_responses.event(a, &said[i], NULL);
    responses_done(a, s->responses);
    snprintf(id, 64, "%s", responses_id(a));
    dialect_responses.answer_free(a);
    turn_release(&t);
}

static ServerInfo with_store(size_t max_bytes)
{
    ServerInfo s = test_server;
    s.responses = responses_store_new(max_bytes);
    assert_non_null(s.responses);
    return s;
}

/* The two bodies give the same messages, with the same handles. */
static void same_messages(const ServerInfo *s, const char *one, const char *other)
{
    Turn a, b;
    parse_at(s, one, &a);
    parse_at(s, other, &b);
    assert_int_equal(a.n_messages, b.n_messages);
    for (size_t i = 0; i < a.n_messages; i++) {
        const ChatMessage *x = &a.messages[i], *y = &b.messages[i];
        assert_int_equal(x->role, y->role);
        assert_true(str_eq(x->content, y->content) && str_eq(x->reasoning, y->reasoning) &&
                    str_eq(a.handles[i], b.handles[i]) && str_eq(x->tool_call_id, y->tool_call_id));
        assert_int_equal(x->n_calls, y->n_calls);
        for (size_t k = 0; k < x->n_calls; k++)
            assert_true(str_eq(x->calls[k].id, y->calls[k].id) &&
                        str_eq(x->calls[k].name, y->calls[k].name) &&
                        str_eq(x->calls[k].arguments, y->calls[k].arguments));
    }
    turn_release(&a);
    turn_release(&b);
}

#define TURN(handle, text) \
    "{\"type\": \"reasoning\", \"content\": [{\"type\": \"reasoning_text\", \"text\": \"why\"}], " \
    "\"encrypted_content\": \"" handle "\"}, " SAID( \
        text) ", {\"type\": \"function_call\", " \
              "\"call_id\": \"call_1\", \"name\": \"f\", \"arguments\": \"{\\\"a\\\":1}\"}"

static void going_on_from_a_response_is_as_telling_it_all_again(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    char first[64], second[64], body[512];
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    snprintf(body, sizeof body,
             "{\"previous_response_id\": \"%s\", \"input\": [" OUTPUT("call_1",
                                                                      "r1") ", " SAYS("q2") "]}",
             first);
    answer(&s, body, "a2", second);
    /* The first may go: the second has what was said. */
    assert_true(responses_delete(s.responses, str_of(first)));
    assert_false(responses_delete(s.responses, str_of(first)));
    snprintf(body, sizeof body,
             "{\"previous_response_id\": \"%s\", \"input\": [" OUTPUT("call_1", "r2") "]}", second);
    same_messages(
        &s, body,
        "{\"input\": [" SAYS("q1") ", " TURN("h", "a1") ", " OUTPUT("call_1", "r1") ", " SAYS(
            "q2") ", " TURN("h", "a2") ", " OUTPUT("call_1", "r2") "]}");
    responses_store_free(s.responses);
}

static void an_item_may_be_pointed_to(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    char id[64], body[1024];
    ids_given = 0;
    answer(&s, "{\"input\": \"q1\"}", "a1", id);
    snprintf(body, sizeof body,
             "{\"input\": [" SAYS("q1") ", {\"type\": \"item_reference\", \"id\": \"rs_" ID(
                 2) "\"}, {\"id\": \"msg_" ID(3) "\"}, {\"type\": \"item_reference\", \"id\": "
                                                 "\"fc_" ID(4) "\"}, " OUTPUT("call_1", "r1") "]}");
    same_messages(&s, body,
                  "{\"input\": [" SAYS("q1") ", " TURN("h", "a1") ", " OUTPUT("call_1", "r1") "]}");
    responses_store_free(s.responses);
}

static void pointers_cannot_stand_for_more_than_a_body(void **state)
{
    (void)state;
    ServerInfo s = with_store(64 << 20);
    Bytes text = { 0 }, body = { 0 };
    char id[64];
    ApiError e;
    Turn t;
    bytes_fill(&text, 'x', 1 << 20);
    bytes_byte(&text, 0);
    ids_given = 0;
    answer(&s, "{\"input\": \"q1\"}", text.p, id);
    bytes_str(&body, "{\"input\": [");
    for (int i = 0; i < 80; i++)
        bytes_str(&body, i ? ",{\"id\": \"msg_" ID(3) "\"}" : "{\"id\": \"msg_" ID(3) "\"}");
    bytes_str(&body, "]}");
    bytes_byte(&body, 0);
    assert_false(parse_with(&s, body.p, &t, &e));
    assert_string_equal(e.param, "input");
    bytes_release(&text);
    bytes_release(&body);
    responses_store_free(s.responses);
}

static void a_response_can_be_asked_for_and_taken_away(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    Bytes got = { 0 };
    char id[64];
    ApiError e;
    Turn t;
    answer(&s, "{\"input\": \"q1\"}", "a1", id);
    assert_true(responses_get(s.responses, str_of(id), &got));
    Json *response = json_read(bytes_view(&got), NULL);
    assert_true(json_is(json_member(response, "id"), id));
    assert_true(json_is(json_member(response, "status"), "completed"));
    const Json *output = json_member(response, "output");
    assert_int_equal(json_length(output), 3);
    /* As it was told: without the reasoning that nobody asked for. */
    assert_int_equal(json_length(json_member(json_at(output, 0), "summary")), 0);
    assert_null(json_member(json_at(output, 0), "content"));
    assert_null(json_member(json_at(output, 0), "encrypted_content"));
    json_free(response);
    assert_true(responses_delete(s.responses, str_of(id)));
    assert_false(responses_get(s.responses, str_of(id), &got));
    bytes_clear(&got);
    bytes_printf(&got, "{\"previous_response_id\": \"%s\", \"input\": \"x\"}", id);
    bytes_byte(&got, 0);
    assert_false(parse_with(&s, got.p, &t, &e));
    assert_string_equal(e.code, "previous_response_not_found");
    bytes_release(&got);
    responses_store_free(s.responses);
}

static void what_is_not_to_be_stored_is_not(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    Bytes got = { 0 };
    char id[64];
    answer(&s, "{\"store\": false, \"input\": \"q1\"}", "a1", id);
    assert_false(responses_get(s.responses, str_of(id), &got));
    /* Nor is what has not ended. */
    Turn t;
    parse_at(&s, "{\"input\": \"q1\"}", &t);
    Answer *a = dialect_responses.answer_new(&t, &s);
    responses_done(a, s.responses);
    assert_false(responses_get(s.responses, str_of(responses_id(a)), &got));
    dialect_responses.answer_free(a);
    turn_release(&t);
    bytes_release(&got);
    responses_store_free(s.responses);
}

/* ---- the store by itself --------------------------------------------------------------------- */

static bool keep(ResponseStore *s, const char *id, const char *previous, const char *input,
                 const char *output)
{
    Json *in = json_read(str_of(input), NULL), *out = json_read(str_of(output), NULL);
    bool ok = responses_keep(s, &(KeptResponse){ .id = str_of(id),
                                                 .previous = str_of(previous),
                                                 .input = in,
                                                 .output = out,
                                                 .reply = str_of(id) });
    json_free(in);
    json_free(out);
    return ok;
}

static bool knows(ResponseStore *s, const char *id)
{
    Bytes got = { 0 };
    bool known = responses_get(s, str_of(id), &got);
    assert_true(!known || str_eq(bytes_view(&got), str_of(id)));
    bytes_release(&got);
    return known;
}

static void finds(ResponseStore *s, const char *id, const char *want)
{
    Json *list = responses_find(s, str_of(id));
    Bytes got = { 0 };
    assert_non_null(list);
    json_write(&got, list);
    str_is(bytes_view(&got), want);
    bytes_release(&got);
    json_free(list);
}

static void what_was_used_least_lately_goes_first(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    char id[16];
    for (int i = 0; i < 256; i++) {
        snprintf(id, sizeof id, "r%d", i);
        assert_true(keep(s, id, "", "[{\"id\": \"i\"}]", "[]"));
    }
    assert_true(knows(s, "r0"));
    assert_true(keep(s, "r256", "", "[{}]", "[]"));
    assert_true(keep(s, "r257", "", "[{}]", "[]"));
    assert_true(knows(s, "r0") && knows(s, "r3") && knows(s, "r257"));
    assert_false(knows(s, "r1") || knows(s, "r2"));
    responses_store_free(s);
}

static void a_conversation_outlives_its_first_answers(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    char id[16], previous[16];
    assert_true(keep(s, "r0", "", "[\"q0\"]", "[\"a0\"]"));
    for (int i = 1; i <= 300; i++) {
        snprintf(id, sizeof id, "r%d", i);
        snprintf(previous, sizeof previous, "r%d", i - 1);
        Json *list = responses_find(s, str_of(previous));
        Bytes all = { 0 };
        assert_int_equal(json_length(list), 2 * i);
        json_write(&all, list);
        all.n--; /* of "]" */
        bytes_str(&all, ", \"q\"]");
        bytes_byte(&all, 0);
        assert_true(keep(s, id, previous, all.p, "[\"a\"]"));
        bytes_release(&all);
        json_free(list);
    }
    assert_false(knows(s, "r0"));
    Json *list = responses_find(s, STR("r300"));
    assert_int_equal(json_length(list), 602);
    assert_true(json_is(json_at(list, 0), "q0") && json_is(json_at(list, 1), "a0"));
    json_free(list);
    responses_store_free(s);
}

static void what_goes_on_from_an_answer_that_has_gone_is_kept_in_full(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    assert_true(keep(s, "r1", "", "[\"q1\"]", "[\"a1\"]"));
    assert_true(responses_delete(s, STR("r1")));
    assert_true(keep(s, "r2", "r1", "[\"q1\", \"a1\", \"q2\"]", "[]"));
    finds(s, "r2", "[\"q1\", \"a1\", \"q2\"]");
    assert_null(responses_find(s, STR("r1")));
    responses_store_free(s);
}

static Bytes list_of(const char *first, size_t n)
{
    Bytes b = { 0 };
    bytes_printf(&b, "[%s\"", first);
    bytes_fill(&b, 'x', n);
    bytes_str(&b, "\"]");
    bytes_byte(&b, 0);
    return b;
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(4096);
    Bytes some = list_of("", 1000), most = list_of("", 5000);
    assert_true(keep(s, "r1", "", some.p, "[]"));
    assert_true(keep(s, "r2", "", some.p, "[]"));
    assert_true(keep(s, "r3", "", some.p, "[]"));
    assert_true(knows(s, "r3") && !knows(s, "r1"));
    /* Too large by itself: the others stay. */
    assert_false(keep(s, "r4", "", most.p, "[]"));
    assert_true(knows(s, "r3") && !knows(s, "r4"));
    bytes_release(&some);
    bytes_release(&most);
    responses_store_free(s);
}

static void a_conversation_that_has_grown_too_long_is_not_kept(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(5500);
    Bytes some = list_of("", 1000), more = list_of("\"q\", \"a\", ", 1000);
    assert_true(keep(s, "r0", "", more.p, some.p)); /* alone it may be so long */
    assert_true(keep(s, "r1", "", "[\"q\"]", some.p));
    assert_false(keep(s, "r2", "r1", more.p, some.p));
    assert_true(knows(s, "r1") && !knows(s, "r2"));
    bytes_release(&some);
    bytes_release(&more);
    responses_store_free(s);
}

static void the_newest_of_two_items_with_one_id_is_found(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    Bytes got = { 0 };
    assert_true(keep(s, "r1", "", "[{\"id\": \"i\", \"n\": 1}]", "[]"));
    assert_true(keep(s, "r2", "", "[{\"n\": 0}]", "[{\"id\": \"i\", \"n\": 2}]"));
    assert_true(responses_item(s, STR("i"), &got));
    str_is(bytes_view(&got), "{\"id\": \"i\", \"n\": 2}");
    bytes_clear(&got);
    assert_true(responses_delete(s, STR("r2")));
    assert_true(responses_item(s, STR("i"), &got));
    str_is(bytes_view(&got), "{\"id\": \"i\", \"n\": 1}");
    assert_true(responses_delete(s, STR("r1")));
    assert_false(responses_item(s, STR("i"), &got));
    bytes_release(&got);
    responses_store_free(s);
}

/* Workers read conversations while answers are kept and go. */
static void *reads(void *store)
{
    for (int i = 0; i < 2000; i++) {
        Bytes got = { 0 };
        Json *list = responses_find(store, STR("r1"));
        assert_true(!list || json_length(list) == 2);
        json_free(list);
        assert_true(!responses_item(store, STR("i"), &got) ||
                    str_eq(bytes_view(&got), STR("{\"id\": \"i\"}")));
        bytes_release(&got);
    }
    return NULL;
}

static void threads_may_share_a_store(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    pthread_t reader[2];
    for (size_t i = 0; i < COUNT(reader); i++)
        assert_int_equal(pthread_create(&reader[i], NULL, reads, s), 0);
    for (int i = 0; i < 2000; i++) {
        assert_true(keep(s, "r1", "", "[\"q\"]", "[{\"id\": \"i\"}]"));
        assert_true(responses_delete(s, STR("r1")));
    }
    for (size_t i = 0; i < COUNT(reader); i++)
        pthread_join(reader[i], NULL);
    responses_store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_string_and_an_item_are_one_prompt),
        cmocka_unit_test(instructions_come_before_what_developers_say),
        cmocka_unit_test(images_and_files_are_said_in_words),
        cmocka_unit_test(reasoning_message_and_calls_are_one_turn),
        cmocka_unit_test(reasoning_after_a_message_begins_another),
        cmocka_unit_test(raw_reasoning_is_preferred_to_its_summary),
        cmocka_unit_test(calls_of_all_kinds_are_taken),
        cmocka_unit_test(what_others_did_or_will_invent_is_passed_over),
        cmocka_unit_test(tools_found_on_the_way_are_told_where_they_were_found),
        cmocka_unit_test(tools_of_all_kinds_are_known_by_their_names),
        cmocka_unit_test(tools_are_put_off_only_for_who_searches),
        cmocka_unit_test(choices_of_tools_are_taken),
        cmocka_unit_test(options_are_taken),
        cmocka_unit_test(forms_of_the_answer_are_taken),
        cmocka_unit_test(codex_says_who_it_is_in_its_body_too),
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name),
        cmocka_unit_test(what_was_found_cannot_fill_the_memory),
        cmocka_unit_test(a_text_comes_piece_by_piece_and_in_full),
        cmocka_unit_test(a_whole_answer_is_what_the_last_event_says),
        cmocka_unit_test(a_beat_of_the_heart_says_everything_so_far),
        cmocka_unit_test(reasoning_is_told_as_the_summary_that_was_asked_for),
        cmocka_unit_test(reasoning_without_a_summary_is_an_item_with_its_handle),
        cmocka_unit_test(raw_reasoning_is_told_as_it_is_on_request),
        cmocka_unit_test(parallel_calls_come_one_after_the_other),
        cmocka_unit_test(a_custom_call_streams_its_input),
        cmocka_unit_test(calls_that_the_api_has_names_for_are_told_in_its_form),
        cmocka_unit_test(a_function_named_like_a_shell_is_a_function),
        cmocka_unit_test(what_was_cut_off_is_incomplete),
        cmocka_unit_test(half_a_call_is_none),
        cmocka_unit_test(a_repetition_is_told_as_a_stop_with_its_reason),
        cmocka_unit_test(a_failure_is_told_with_what_there_is),
        cmocka_unit_test(what_is_worth_another_try_is_no_event),
        cmocka_unit_test(errors_before_an_answer_are_openais),
        cmocka_unit_test(the_response_repeats_what_was_asked_for),
        cmocka_unit_test(going_on_from_a_response_is_as_telling_it_all_again),
        cmocka_unit_test(an_item_may_be_pointed_to),
        cmocka_unit_test(pointers_cannot_stand_for_more_than_a_body),
        cmocka_unit_test(a_response_can_be_asked_for_and_taken_away),
        cmocka_unit_test(what_is_not_to_be_stored_is_not),
        cmocka_unit_test(what_was_used_least_lately_goes_first),
        cmocka_unit_test(a_conversation_outlives_its_first_answers),
        cmocka_unit_test(what_goes_on_from_an_answer_that_has_gone_is_kept_in_full),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(a_conversation_that_has_grown_too_long_is_not_kept),
        cmocka_unit_test(the_newest_of_two_items_with_one_id_is_found),
        cmocka_unit_test(threads_may_share_a_store),
    };
    vocab = vf_small_vocab(NULL);
    int failed = vocab ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    vocab_free(vocab);
    return failed;
}
