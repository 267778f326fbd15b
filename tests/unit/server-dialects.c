/* Bodies to Turns: what is taken, what is refused, and what the prompt becomes. */
#include "../requests.h"
#include "../vocab_file.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static ds4_vocab *vocab;

/* Parses text with no headers and no flags; on failure *t is released. */
static bool parse_with(const Dialect *d, const ServerInfo *s, const char *text, Turn *t,
                       ApiError *e)
{
    ds4_err err;
    *e = (ApiError){ 0 };
    Json *body = json_read(str_of(text), &err);
    if (!body)
        fail_msg("%s: %s", err.msg, text);
    turn_init(t, d == &dialect_messages ? API_MESSAGES : API_CHAT);
    snprintf(t->request_id, sizeof t->request_id, "req_0123456789abcdef01234567");
    bool ok = d->parse(t, body, NULL, s, e);
    assert_int_equal(ok, e->status == 0);
    if (!ok)
        turn_release(t);
    return ok;
}

static void parse(const Dialect *d, const char *text, Turn *t)
{
    ApiError e;
    if (!parse_with(d, &test_server, text, t, &e))
        fail_msg("%s: %s", text, e.message);
}

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

/* The prompts of two bodies. */
static void same_prompt(const Dialect *d, const char *one, const char *other)
{
    Turn a, b;
    Bytes x = { 0 }, y = { 0 };
    parse(d, one, &a);
    parse(d, other, &b);
    render(&a, &x);
    render(&b, &y);
    assert_string_equal(x.p, y.p);
    bytes_release(&x);
    bytes_release(&y);
    turn_release(&a);
    turn_release(&b);
}

static void prompt_is(const Dialect *d, const char *body, const char *want)
{
    Turn t;
    Bytes text = { 0 };
    parse(d, body, &t);
    render(&t, &text);
    assert_string_equal(text.p, want);
    bytes_release(&text);
    turn_release(&t);
}

#define BOS       "<｜begin▁of▁sentence｜>"
#define EOS       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define OFF       "\"thinking\": {\"type\": \"disabled\"}, "

/* ---- one prompt, however it is written ------------------------------------------------ */

static void a_text_and_a_list_of_one_text_are_one_prompt(void **state)
{
    (void)state;
    same_prompt(&dialect_messages,
                "{\"system\": \"sys\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
                "{\"system\": [{\"type\": \"text\", \"text\": \"sys\"}], \"messages\": [{\"role\": "
                "\"user\", \"content\": [{\"type\": \"text\", \"text\": \"hi\", \"cache_control\": "
                "{\"type\": \"ephemeral\"}}]}]}");
    same_prompt(&dialect_chat,
                "{\"messages\": [{\"role\": \"system\", \"content\": \"sys\"}, {\"role\": \"user\","
                " \"content\": \"hi\"}]}",
                "{\"messages\": [{\"role\": \"developer\", \"content\": [{\"type\": \"text\", "
                "\"text\": \"sys\"}]}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", "
                "\"text\": \"hi\"}]}]}");
}

static void what_is_said_of_billing_is_not_in_the_prompt(void **state)
{
    (void)state;
    same_prompt(&dialect_messages,
                "{\"system\": [{\"type\": \"text\", \"text\": \"x-anthropic-billing-header: "
                "cc_version=1;\"}, {\"type\": \"text\", \"text\": \"sys\"}], \"messages\": "
                "[{\"role\": \"user\", \"content\": \"hi\"}]}",
                "{\"system\": \"sys\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}");
}

static void marks_on_tools_do_not_change_the_prompt(void **state)
{
    (void)state;
    same_prompt(
        &dialect_messages,
        "{\"tools\": [{\"name\": \"f\", \"description\": \"d\", \"input_schema\": {\"type\":"
        " \"object\"}}], \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
        "{\"tools\": [{\"cache_control\": {\"type\": \"ephemeral\"}, \"input_schema\":"
        "{\"type\":\"object\"}, \"eager_input_streaming\": true, \"description\": \"d\", "
        "\"name\": \"f\"}], \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}");
}

static void the_apis_declare_a_tool_in_one_line(void **state)
{
    (void)state;
    Turn a, b;
    parse(&dialect_messages,
          "{\"tools\": [{\"name\": \"f\", \"description\": \"d\", \"input_schema\": {\"b\": 1, "
          "\"a\": 2.50}}], \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
          &a);
    parse(&dialect_chat,
          "{\"tools\": [{\"type\": \"function\", \"function\": {\"parameters\": {\"b\": 1, \"a\": "
          "2.50}, \"strict\": true, \"name\": \"f\", \"description\": \"d\"}}], \"messages\": "
          "[{\"role\": \"user\", \"content\": \"hi\"}]}",
          &b);
    static const char want[] = "{\"name\": \"f\", \"description\": \"d\", \"parameters\": {\"b\": "
                               "1, \"a\": 2.5}}";
    assert_true(str_eq(a.tools[0].function, STR(want)));
    assert_true(str_eq(b.tools[0].function, STR(want)));
    turn_release(&a);
    turn_release(&b);
}

static void a_later_system_is_a_reminder_where_it_stands(void **state)
{
    (void)state;
    prompt_is(
        &dialect_messages,
        "{" OFF "\"system\": \"sys\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, "
        "{\"role\": \"system\", \"content\": \"mind\"}, {\"role\": \"assistant\", \"content\": "
        "\"yes\"}, {\"role\": \"system\", \"content\": \"more\"}]}",
        BOS "sys" USER "hi\n\n<system-reminder>\nmind\n</system-reminder>" ASSISTANT
            "</think>yes" EOS USER "<system-reminder>\nmore\n</system-reminder>" ASSISTANT
            "</think>");
    prompt_is(&dialect_chat,
              "{" OFF "\"messages\": [{\"role\": \"system\", \"content\": \"one\"}, {\"role\": "
              "\"developer\", \"content\": \"two\"}, {\"role\": \"user\", \"content\": \"hi\"}, "
              "{\"role\": \"developer\", \"content\": \"mind\"}]}",
              BOS "one\n\ntwo" USER "hi\n\n<system-reminder>\nmind\n</system-reminder>" ASSISTANT
                  "</think>");
}

static void a_system_alone_still_asks_for_an_answer(void **state)
{
    (void)state;
    prompt_is(&dialect_chat,
              "{" OFF "\"messages\": [{\"role\": \"system\", \"content\": \"sys\"}]}",
              BOS "sys" USER ASSISTANT "</think>");
}

static void a_last_message_of_the_assistant_is_gone_on_with(void **state)
{
    (void)state;
    prompt_is(&dialect_messages,
              "{" OFF "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": "
              "\"assistant\", \"content\": \"Yes, \"}]}",
              BOS USER "hi" ASSISTANT "</think>Yes, ");
}

static void what_the_model_cannot_see_is_said(void **state)
{
    (void)state;
    static const char body[] =
        "{" OFF "\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
        "\"look\"}, {\"type\": \"image_url\", \"image_url\": {\"url\": \"data:,\"}}]}]}";
    ServerInfo strict = test_server;
    ApiError e;
    Turn t;
    prompt_is(&dialect_chat, body,
              BOS USER "look\n\n[image omitted: this model cannot see images]" ASSISTANT
                       "</think>");
    strict.strict_media = true;
    assert_false(parse_with(&dialect_chat, &strict, body, &t, &e));
    assert_int_equal(e.status, 400);
    assert_string_equal(e.param, "messages");
}

static void results_hold_images_documents_and_texts(void **state)
{
    (void)state;
    prompt_is(&dialect_messages,
              "{" OFF
              "\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
              "\"content\": [{\"type\": \"tool_use\", \"id\": \"t1\", \"name\": \"f\", \"input\": "
              "{}}]}, {\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", "
              "\"tool_use_id\": \"t1\", \"content\": [{\"type\": \"image\", \"source\": {}}, "
              "{\"type\": \"document\", \"source\": {\"type\": \"text\", \"data\": \"words\"}}, "
              "{\"type\": \"new_kind\"}]}, {\"type\": \"text\", \"text\": \"so?\"}]}]}",
              BOS USER "q" ASSISTANT
                       "</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
                       "\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>" EOS USER
                       "<tool_result>[image omitted: this model cannot see images]\n\nwords\n\n"
                       "[Unsupported new_kind]</tool_result>\n\nso?" ASSISTANT "</think>");
}

static void references_stand_for_definitions_of_deferred_tools(void **state)
{
    (void)state;
    static const char body[] =
        "{" OFF
        "\"tools\": [{\"name\": \"f\", \"description\": \"d\", \"input_schema\": {\"type\": "
        "\"object\"}, \"defer_loading\": true}, {\"name\": \"g\", \"input_schema\": {}, "
        "\"defer_loading\": true}], \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
        "\"tool_result\", \"tool_use_id\": \"t\", \"content\": [{\"type\": \"tool_reference\", "
        "\"tool_name\": \"f\"}, {\"type\": \"tool_reference\", \"tool_name\": \"g\"}]}]}]}";
    Turn t;
    prompt_is(&dialect_messages, body,
              BOS USER "<tool_result><functions>\n<function>{\"description\": \"d\", \"name\": "
                       "\"f\", \"parameters\": {\"type\": \"object\"}}</function>\n<function>{"
                       "\"name\": \"g\", \"parameters\": {}}</function>\n</functions>"
                       "</tool_result>" ASSISTANT "</think>");
    parse(&dialect_messages, body, &t);
    assert_int_equal(t.n_tools, 2);
    assert_true(t.tools[0].deferred && t.tools[1].deferred);
    turn_release(&t);
}

/* References are short: what they stand for is not to fill the memory. */
static void references_cannot_stand_for_too_much(void **state)
{
    (void)state;
    Bytes b = { 0 };
    ApiError e;
    Turn t;
    bytes_str(&b, "{\"tools\": [{\"name\": \"f\", \"description\": \"");
    bytes_fill(&b, 'x', 100000);
    bytes_str(&b, "\"}], \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
                  "\"tool_result\", \"tool_use_id\": \"t\", \"content\": [");
    for (int i = 0; i < 100; i++)
        bytes_printf(&b, "%s{\"type\": \"tool_reference\", \"tool_name\": \"f\"}", i ? "," : "");
    bytes_str(&b, "]}]}]}");
    bytes_byte(&b, 0);
    assert_false(parse_with(&dialect_messages, &test_server, b.p, &t, &e));
    assert_int_equal(e.status, 400);
    bytes_release(&b);
}

static void texts_lose_nul_and_half_characters(void **state)
{
    (void)state;
    prompt_is(&dialect_messages,
              "{" OFF "\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\\ud83d\"}]}",
              BOS USER "ab\xEF\xBF\xBD" ASSISTANT "</think>");
}

/* ---- thinking --------------------------------------------------------------------------- */

static void thinking_follows_the_strongest_wish(void **state)
{
    (void)state;
#define ASKED "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}"
    static const struct {
        const Dialect *d;
        const char *body;
        int think;
    } cases[] = {
        { &dialect_chat, "{" ASKED, CHAT_THINK_HIGH },
        { &dialect_chat, "{\"model\": \"deepseek-chat\", " ASKED, CHAT_THINK_OFF },
        { &dialect_chat, "{\"model\": \"deepseek-reasoner\", " ASKED, CHAT_THINK_HIGH },
        { &dialect_chat, "{\"model\": \"deepseek-chat\", \"think\": true, " ASKED,
          CHAT_THINK_HIGH },
        { &dialect_chat, "{\"think\": false, \"reasoning_effort\": \"high\", " ASKED,
          CHAT_THINK_OFF },
        { &dialect_chat, "{\"reasoning_effort\": \"none\", " ASKED, CHAT_THINK_OFF },
        { &dialect_chat, "{\"reasoning_effort\": \"minimal\", " ASKED, CHAT_THINK_LOW },
        { &dialect_chat, "{\"reasoning_effort\": \"medium\", " ASKED, CHAT_THINK_HIGH },
        { &dialect_chat, "{\"reasoning_effort\": \"ultra\", " ASKED, CHAT_THINK_MAX },
        { &dialect_chat, "{\"chat_template_kwargs\": {\"enable_thinking\": false}, " ASKED,
          CHAT_THINK_OFF },
        { &dialect_chat, "{" OFF ASKED, CHAT_THINK_OFF },
        { &dialect_messages, "{" OFF "\"output_config\": {\"effort\": \"max\"}, " ASKED,
          CHAT_THINK_OFF },
        { &dialect_messages, "{\"output_config\": {\"effort\": \"low\"}, " ASKED, CHAT_THINK_LOW },
        { &dialect_messages,
          "{\"thinking\": {\"type\": \"adaptive\"}, \"output_config\": "
          "{\"effort\": \"max\"}, " ASKED,
          CHAT_THINK_MAX },
        { &dialect_messages, "{" ASKED, CHAT_THINK_HIGH },
    };
    ServerInfo wide = test_server, strict = test_server, silent = test_server;
    ApiError e;
    Turn t;
    wide.context = 393216;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_true(parse_with(cases[i].d, &wide, cases[i].body, &t, &e));
        if (t.think != cases[i].think)
            fail_msg("%s: %d, not %d", cases[i].body, t.think, cases[i].think);
        turn_release(&t);
    }
    parse(&dialect_chat, "{\"reasoning_effort\": \"max\", " ASKED, &t); /* in a small context */
    assert_int_equal(t.think, CHAT_THINK_HIGH);
    turn_release(&t);
    strict.strict_anthropic = true;
    assert_true(parse_with(&dialect_messages, &strict, "{" ASKED, &t, &e));
    assert_int_equal(t.think, CHAT_THINK_OFF);
    turn_release(&t);
    silent.default_think = CHAT_THINK_OFF;
    assert_true(parse_with(&dialect_chat, &silent, "{\"think\": true, " ASKED, &t, &e));
    assert_int_equal(t.think, CHAT_THINK_HIGH);
    turn_release(&t);
}

static void a_budget_and_hidden_thinking_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_messages,
          "{\"thinking\": {\"type\": \"enabled\", \"budget_tokens\": 1024, \"display\": "
          "\"omitted\"}, " ASKED,
          &t);
    assert_int_equal(t.think_budget, 1024);
    assert_true(t.think_hidden);
    turn_release(&t);
}

/* ---- what else is asked for --------------------------------------------------------------- */

static void sampling_is_the_servers_while_thinking(void **state)
{
    (void)state;
    static const char thinks[] = "{\"temperature\": 0.5, \"top_k\": 7, \"seed\": -1, " ASKED;
    static const char not [] = "{" OFF "\"temperature\": 0.5, \"top_k\": 7, \"seed\": -1, " ASKED;
    ServerInfo obeys = test_server;
    ApiError e;
    Turn t;
    parse(&dialect_chat, thinks, &t);
    assert_true(isnan(t.temperature) && t.top_k == -1);
    assert_true(t.has_seed && t.seed == UINT64_MAX);
    turn_release(&t);
    parse(&dialect_chat, not, &t);
    assert_true(t.temperature == 0.5f && t.top_k == 7 && isnan(t.top_p));
    turn_release(&t);
    obeys.client_sampling = true;
    assert_true(parse_with(&dialect_chat, &obeys, thinks, &t, &e));
    assert_true(t.temperature == 0.5f && t.top_k == 7);
    turn_release(&t);
}

static void limits_stops_and_biases_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_chat,
          "{\"max_tokens\": 5, \"max_completion_tokens\": 9, \"stop\": \"END\", \"logit_bias\": "
          "{\"12\": -100, \"7\": 1.5}, \"logprobs\": true, \"top_logprobs\": 2, "
          "\"stream_options\": {\"include_usage\": true}, " ASKED,
          &t);
    assert_int_equal(t.max_tokens, 9);
    assert_int_equal(t.n_stop, 1);
    assert_true(str_eq(t.stop[0], STR("END")));
    assert_int_equal(t.n_bias, 2);
    assert_true(t.bias[0].token == 12 && t.bias[0].bias == -100 && t.bias[1].bias == 1.5f);
    assert_true(t.logprobs && t.top_logprobs == 2 && t.include_usage && !t.stream);
    turn_release(&t);
    parse(&dialect_messages,
          "{\"max_tokens\": 99999999999, \"stop_sequences\": [\"a\", \"\", \"b\"], " ASKED, &t);
    assert_int_equal(t.max_tokens, INT32_MAX);
    assert_int_equal(t.n_stop, 2);
    turn_release(&t);
}

#define TOOLS \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}, {\"type\": " \
    "\"function\", \"function\": {\"name\": \"g\"}}, {\"type\": \"custom\", \"custom\": " \
    "{\"name\": \"patch\", \"format\": {\"type\": \"grammar\", \"grammar\": {\"syntax\": " \
    "\"lark\", \"definition\": \"start: /a+/\"}}}}], "

static void choices_of_tools_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_chat,
          "{" TOOLS "\"tool_choice\": \"required\", \"parallel_tool_calls\": false, " ASKED, &t);
    assert_int_equal(t.choice, CHOOSE_REQUIRED);
    assert_false(t.parallel);
    assert_int_equal(t.tools[2].kind, TOOL_CUSTOM);
    assert_true(str_eq(t.tools[2].syntax, STR("lark")));
    assert_true(str_eq(t.tools[2].grammar, STR("start: /a+/")));
    turn_release(&t);
    parse(&dialect_chat,
          "{" TOOLS "\"tool_choice\": {\"type\": \"function\", \"function\": "
          "{\"name\": \"g\"}}, " ASKED,
          &t);
    assert_int_equal(t.choice, CHOOSE_NAMED);
    assert_true(str_eq(t.choice_name, STR("g")));
    turn_release(&t);
    parse(&dialect_chat,
          "{" TOOLS "\"tool_choice\": {\"type\": \"allowed_tools\", "
          "\"allowed_tools\": {\"mode\": \"auto\", \"tools\": [{\"type\": "
          "\"function\", \"function\": {\"name\": \"g\"}}]}}, " ASKED,
          &t);
    assert_int_equal(t.choice, CHOOSE_AUTO);
    assert_true(t.tools[0].barred && !t.tools[1].barred && t.tools[2].barred);
    turn_release(&t);
    parse(&dialect_messages,
          "{\"tools\": [{\"name\": \"f\"}], \"tool_choice\": {\"type\": \"any\", "
          "\"disable_parallel_tool_use\": true}, " ASKED,
          &t);
    assert_int_equal(t.choice, CHOOSE_REQUIRED);
    assert_false(t.parallel);
    turn_release(&t);
    /* Choosing none leaves the prompt as it is. */
    same_prompt(&dialect_chat, "{" TOOLS "\"tool_choice\": \"none\", " ASKED,
                "{" TOOLS "\"tool_choice\": \"auto\", " ASKED);
}

static void tools_that_others_run_are_passed_over(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_messages,
          "{\"tools\": [{\"type\": \"web_search_20250305\", \"name\": "
          "\"web_search\"}, {\"name\": \"f\"}], " ASKED,
          &t);
    assert_int_equal(t.n_tools, 1);
    turn_release(&t);
}

static void forms_of_the_answer_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_chat, "{\"response_format\": {\"type\": \"json_object\"}, " ASKED, &t);
    assert_int_equal(t.format, FORMAT_JSON_OBJECT);
    turn_release(&t);
    parse(&dialect_chat,
          "{\"response_format\": {\"type\": \"json_schema\", \"json_schema\": "
          "{\"name\": \"x\", \"schema\": {\"type\": \"object\"}}}, " ASKED,
          &t);
    assert_int_equal(t.format, FORMAT_JSON_SCHEMA);
    assert_true(json_is(json_member(t.schema, "type"), "object"));
    turn_release(&t);
    parse(&dialect_messages,
          "{\"output_config\": {\"format\": {\"type\": \"json_schema\", "
          "\"schema\": {}}}, " ASKED,
          &t);
    assert_int_equal(t.format, FORMAT_JSON_SCHEMA);
    turn_release(&t);
    parse(&dialect_chat, "{\"regex\": \"a+\", " ASKED, &t);
    assert_int_equal(t.format, FORMAT_REGEX);
    assert_true(str_eq(t.format_text, STR("a+")));
    turn_release(&t);
}

static void calls_of_old_and_new_kinds_are_taken(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_chat,
          "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
          "\"content\": null, \"function_call\": {\"name\": \"f\", \"arguments\": \"{}\"}}, "
          "{\"role\": \"function\", \"name\": \"f\", \"content\": \"r\"}, {\"role\": "
          "\"assistant\", \"tool_calls\": [{\"id\": \"c\", \"type\": \"custom\", \"custom\": "
          "{\"name\": \"patch\", \"input\": \"a\\\"b\"}}]}, {\"role\": \"tool\", "
          "\"tool_call_id\": \"c\", \"content\": \"ok\"}]}",
          &t);
    assert_int_equal(t.n_messages, 5);
    assert_true(str_eq(t.messages[1].calls[0].id, t.messages[2].tool_call_id));
    assert_true(str_eq(t.messages[3].calls[0].arguments, STR("{\"input\": \"a\\\"b\"}")));
    assert_int_equal(t.messages[4].role, CHAT_TOOL);
    turn_release(&t);
}

static void completions_take_texts_and_ids(void **state)
{
    (void)state;
    Turn t;
    parse(&dialect_completions, "{\"prompt\": [\"once\"]}", &t);
    assert_true(t.raw && str_eq(t.raw_text, STR("once")));
    assert_int_equal(t.max_tokens, 16);
    assert_int_equal(t.think, CHAT_THINK_OFF);
    turn_release(&t);
    parse(&dialect_completions, "{\"prompt\": [[5, 6, 7]], \"max_tokens\": 3, \"logprobs\": 0}",
          &t);
    assert_int_equal(t.n_raw_ids, 3);
    assert_int_equal(t.raw_ids[2], 7);
    assert_true(t.logprobs && t.top_logprobs == 0 && t.max_tokens == 3);
    turn_release(&t);
}

/* ---- what is refused ------------------------------------------------------------------------ */

/* A body that is refused, and the parameter that is named. */
static const struct {
    const Dialect *d;
    const char *body, *param;
} refusals[] = {
    { &dialect_messages, "[]", NULL },
    { &dialect_messages, "\"text\"", NULL },
    { &dialect_messages, "{}", "messages" },
    { &dialect_messages, "{\"messages\": []}", "messages" },
    { &dialect_messages, "{\"messages\": \"hi\"}", "messages" },
    { &dialect_messages, "{\"messages\": [1]}", "messages" },
    { &dialect_messages, "{\"messages\": [{\"role\": \"user\"}]}", "messages" },
    { &dialect_messages, "{\"messages\": [{\"role\": \"bot\", \"content\": \"\"}]}", "messages" },
    { &dialect_messages, "{\"messages\": [{\"role\": \"user\", \"content\": 5}]}", "messages" },
    { &dialect_messages, "{\"messages\": [{\"role\": \"user\", \"content\": [{}]}]}", "messages" },
    { &dialect_messages,
      "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
      "1}]}]}",
      "messages" },
    { &dialect_messages,
      "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"tool_result\"}]}]}",
      "messages" },
    { &dialect_messages,
      "{\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"tool_use\"}]}]}",
      "messages" },
    { &dialect_messages, "{\"system\": 1, " ASKED, "system" },
    { &dialect_messages, "{\"model\": 1, " ASKED, "model" },
    { &dialect_messages, "{\"stream\": \"yes\", " ASKED, "stream" },
    { &dialect_messages, "{\"max_tokens\": 0, " ASKED, "max_tokens" },
    { &dialect_messages, "{\"max_tokens\": 1.5, " ASKED, "max_tokens" },
    { &dialect_messages, "{\"temperature\": 3, " ASKED, "temperature" },
    { &dialect_messages, "{\"top_p\": \"x\", " ASKED, "top_p" },
    { &dialect_messages, "{\"top_k\": 1.5, " ASKED, "top_k" },
    { &dialect_messages, "{\"stop_sequences\": [1], " ASKED, "stop_sequences" },
    { &dialect_messages, "{\"thinking\": {\"type\": \"maybe\"}, " ASKED, "thinking" },
    { &dialect_messages, "{\"thinking\": true, " ASKED, "thinking" },
    { &dialect_messages, "{\"output_config\": {\"effort\": \"huge\"}, " ASKED, "output_config" },
    { &dialect_messages, "{\"output_config\": {\"format\": {\"type\": \"xml\"}}, " ASKED,
      "output_config" },
    { &dialect_messages, "{\"output_format\": {\"type\": \"json_schema\"}, " ASKED,
      "output_format" },
    { &dialect_messages, "{\"output_config\": \"high\", " ASKED, "output_config" },
    { &dialect_messages, "{\"tools\": [{\"name\": \"a\", \"description\": {}}], " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": {}, " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": [7], " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": [{\"name\": \"\"}], " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": [{\"name\": \"a\\\"b\"}], " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": [{\"name\": \"a\"}, {\"name\": \"a\"}], " ASKED, "tools" },
    { &dialect_messages, "{\"tools\": [{\"name\": \"a\", \"input_schema\": []}], " ASKED, "tools" },
    { &dialect_messages, "{\"tool_choice\": {\"type\": \"any\"}, " ASKED, "tool_choice" },
    { &dialect_messages, "{\"tool_choice\": {\"type\": \"tool\", \"name\": \"x\"}, " ASKED,
      "tool_choice" },
    { &dialect_messages, "{\"tool_choice\": {\"type\": \"all\"}, " ASKED, "tool_choice" },
    { &dialect_chat, "{\"messages\": [{\"content\": \"hi\"}]}", "messages" },
    { &dialect_chat, "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": 1}]}", "messages" },
    { &dialect_chat, "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{}]}]}",
      "messages" },
    { &dialect_chat, "{\"n\": 2, " ASKED, "n" },
    { &dialect_chat, "{\"logprobs\": 1, " ASKED, "logprobs" },
    { &dialect_chat, "{\"top_logprobs\": 2, " ASKED, "top_logprobs" },
    { &dialect_chat, "{\"logprobs\": true, \"top_logprobs\": 21, " ASKED, "top_logprobs" },
    { &dialect_chat, "{\"logit_bias\": {\"x\": 1}, " ASKED, "logit_bias" },
    { &dialect_chat, "{\"logit_bias\": {\"1\": 101}, " ASKED, "logit_bias" },
    { &dialect_chat, "{\"logit_bias\": {\"1\": null}, " ASKED, "logit_bias" },
    { &dialect_chat, "{\"presence_penalty\": -3, " ASKED, "presence_penalty" },
    { &dialect_chat, "{\"seed\": \"x\", " ASKED, "seed" },
    { &dialect_chat, "{\"stop\": {}, " ASKED, "stop" },
    { &dialect_chat, "{\"reasoning_effort\": 3, " ASKED, "reasoning_effort" },
    { &dialect_chat, "{\"response_format\": {\"type\": \"xml\"}, " ASKED, "response_format" },
    { &dialect_chat, "{\"response_format\": {\"type\": \"json_schema\"}, " ASKED,
      "response_format" },
    { &dialect_chat, "{\"response_format\": {\"type\": \"json_object\"}, \"regex\": \"a\", " ASKED,
      "response_format" },
    { &dialect_chat, "{\"tools\": [{\"type\": \"browser\"}], " ASKED, "tools" },
    { &dialect_chat,
      "{\"tools\": [{\"type\": \"custom\", \"custom\": {\"name\": \"x\", "
      "\"format\": {\"type\": \"grammar\", \"grammar\": {\"syntax\": \"bnf\"}}}}],"
      " " ASKED,
      "tools" },
    { &dialect_chat, "{\"tools\": [{\"function\": {\"name\": \"a\", \"description\": 1}}], " ASKED,
      "tools" },
    { &dialect_chat, "{\"tools\": [{\"function\": {\"name\": \"a\", \"strict\": 1}}], " ASKED,
      "tools" },
    { &dialect_chat, "{\"think\": 1, " ASKED, "think" },
    { &dialect_chat, "{\"chat_template_kwargs\": [], " ASKED, "chat_template_kwargs" },
    { &dialect_chat, "{\"chat_template_kwargs\": {\"thinking\": \"no\"}, " ASKED,
      "chat_template_kwargs" },
    { &dialect_chat, "{\"stream_options\": true, " ASKED, "stream_options" },
    { &dialect_chat, "{\"stream_options\": {\"include_usage\": 1}, " ASKED, "stream_options" },
    { &dialect_chat, "{\"messages\": [{\"role\": \"assistant\", \"reasoning_content\": []}]}",
      "messages" },
    { &dialect_chat, "{\"messages\": [{\"role\": \"tool\", \"tool_call_id\": 1}]}", "messages" },
    { &dialect_chat, "{\"tool_choice\": \"maybe\", " ASKED, "tool_choice" },
    { &dialect_chat, "{\"tool_choice\": \"required\", " ASKED, "tool_choice" },
    { &dialect_completions, "{}", "prompt" },
    { &dialect_completions, "{\"prompt\": []}", "prompt" },
    { &dialect_completions, "{\"prompt\": [\"a\", \"b\"]}", "prompt" },
    { &dialect_completions, "{\"prompt\": [1, -1]}", "prompt" },
    { &dialect_completions, "{\"prompt\": \"a\", \"suffix\": \"b\"}", "suffix" },
    { &dialect_completions, "{\"prompt\": [1], \"echo\": true}", "echo" },
    { &dialect_completions, "{\"prompt\": \"a\", \"best_of\": 3}", "best_of" },
    { &dialect_completions, "{\"prompt\": \"a\", \"logprobs\": 6}", "logprobs" },
    { &dialect_completions, "{\"prompt\": \"a\", \"stream_options\": 1}", "stream_options" },
};

static void what_cannot_be_done_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        ApiError e;
        Turn t;
        if (parse_with(refusals[i].d, &test_server, refusals[i].body, &t, &e))
            fail_msg("%s was taken", refusals[i].body);
        assert_int_equal(e.status, 400);
        assert_true(e.message[0]);
        if (refusals[i].param && (!e.param || strcmp(e.param, refusals[i].param) != 0))
            fail_msg("%s: %s, not %s", refusals[i].body, e.param ? e.param : "(none)",
                     refusals[i].param);
    }
}

static void unknown_models_are_refused_when_that_is_asked_for(void **state)
{
    (void)state;
    ServerInfo strict = test_server;
    ApiError e;
    Turn t;
    strict.strict_model = true;
    assert_false(parse_with(&dialect_chat, &strict, "{\"model\": \"llama\", " ASKED, &t, &e));
    assert_int_equal(e.status, 404);
    assert_string_equal(e.code, "model_not_found");
    assert_true(parse_with(&dialect_chat, &strict, "{\"model\": \"gpt-5\", " ASKED, &t, &e));
    assert_true(str_eq(t.model, STR("gpt-5")));
    turn_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_and_a_list_of_one_text_are_one_prompt),
        cmocka_unit_test(what_is_said_of_billing_is_not_in_the_prompt),
        cmocka_unit_test(marks_on_tools_do_not_change_the_prompt),
        cmocka_unit_test(the_apis_declare_a_tool_in_one_line),
        cmocka_unit_test(a_later_system_is_a_reminder_where_it_stands),
        cmocka_unit_test(a_system_alone_still_asks_for_an_answer),
        cmocka_unit_test(a_last_message_of_the_assistant_is_gone_on_with),
        cmocka_unit_test(what_the_model_cannot_see_is_said),
        cmocka_unit_test(results_hold_images_documents_and_texts),
        cmocka_unit_test(references_stand_for_definitions_of_deferred_tools),
        cmocka_unit_test(references_cannot_stand_for_too_much),
        cmocka_unit_test(texts_lose_nul_and_half_characters),
        cmocka_unit_test(thinking_follows_the_strongest_wish),
        cmocka_unit_test(a_budget_and_hidden_thinking_are_taken),
        cmocka_unit_test(sampling_is_the_servers_while_thinking),
        cmocka_unit_test(limits_stops_and_biases_are_taken),
        cmocka_unit_test(choices_of_tools_are_taken),
        cmocka_unit_test(tools_that_others_run_are_passed_over),
        cmocka_unit_test(forms_of_the_answer_are_taken),
        cmocka_unit_test(calls_of_old_and_new_kinds_are_taken),
        cmocka_unit_test(completions_take_texts_and_ids),
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name),
        cmocka_unit_test(unknown_models_are_refused_when_that_is_asked_for),
    };
    vocab = vf_small_vocab(NULL);
    int failed = vocab ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    vocab_free(vocab);
    return failed;
}
