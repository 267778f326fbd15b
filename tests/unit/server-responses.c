/* OpenAI's Responses: bodies to Turns: what is taken, what is refused, and what
 * the prompt becomes. */
#include "../responses.h"
#include "../vocab_file.h"

static ds4_vocab *vocab;

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

#define BOS       "<｜begin▁of▁sentence｜>"
#define EOS       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define OFF       "\"reasoning\": {\"effort\": \"none\"}, "

static void a_string_and_an_item_are_one_prompt(void **state)
{
    (void)state;
    static const char want[] = BOS "sys" USER "hi" ASSISTANT "</think>";
    prompt_is("{" OFF "\"instructions\": \"sys\", \"input\": \"hi\"}", want);
    prompt_is(BODY(OFF, "{\"role\": \"system\", \"content\": \"sys\"}", SAYS("hi")), want);
    prompt_is(BODY(OFF,
                   "{\"type\": \"message\", \"id\": \"msg_1\", \"role\": \"developer\", "
                   "\"content\": [{\"type\": \"input_text\", \"text\": \"sys\"}]}",
                   "{\"type\": \"message\", \"role\": \"user\", \"content\": [{\"type\": "
                   "\"input_text\", \"text\": \"hi\"}]}"),
              want);
}

static void instructions_come_before_what_developers_say(void **state)
{
    (void)state;
    prompt_is(BODY(OFF "\"instructions\": \"one\", ",
                   "{\"role\": \"developer\", \"content\": \"two\"}", SAYS("hi"),
                   "{\"role\": \"developer\", \"content\": \"mind\"}"),
              BOS "one\n\ntwo" USER "hi\n\n<system-reminder>\nmind\n</system-reminder>" ASSISTANT
                  "</think>");
}

static void images_and_files_are_said_in_words(void **state)
{
    (void)state;
    prompt_is(BODY(OFF, "{\"role\": \"user\", \"content\": [{\"type\": \"input_text\", \"text\": "
                        "\"look\"}, {\"type\": \"input_image\", \"image_url\": \"data:,\"}, "
                        "{\"type\": \"input_file\"}]}"),
              BOS USER "look\n\n[image omitted: this model cannot see images]\n\n"
                       "[file omitted: this model reads text only]" ASSISTANT "</think>");
}

static void reasoning_message_and_calls_are_one_turn(void **state)
{
    (void)state;
    Turn t;
    parse(BODY("", SAYS("q"), REASONING("r1", "hm"), SAID("so"), CALL("c1", "f"), CALL("c2", "g"),
               OUTPUT("c2", "two"), OUTPUT("c1", "one"), REASONING("r2", "aha"), SAID("done")),
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
    parse(BODY("", SAYS("q"), REASONING("r1", "a"), REASONING("r2", "b"), SAID("one"), SAID("two"),
               REASONING("r3", "c"), CALL("c1", "f"), REASONING("r4", "d"), SAYS("and?"),
               SAID("that")),
          &t);
    assert_int_equal(t.n_messages, 6);
    str_is(t.messages[1].reasoning, "a\n\nb");
    str_is(t.messages[1].content, "one\n\ntwo");
    str_is(t.handles[1], "h-r2");
    str_is(t.messages[2].reasoning, "c");
    assert_int_equal(t.messages[2].n_calls, 1);
    str_is(t.messages[3].reasoning, "d");
    assert_int_equal(t.messages[4].role, CHAT_USER);
    str_is(t.messages[5].content, "that");
    str_is(t.messages[5].reasoning, "");
    str_is(t.handles[5], "");
    assert_int_equal(t.messages[5].n_calls, 0);
    turn_release(&t);
}

static void raw_reasoning_is_preferred_to_its_summary(void **state)
{
    (void)state;
    Turn t;
    parse(BODY("", SAYS("q"),
               "{\"type\": \"reasoning\", \"id\": \"r\", \"summary\": [{\"type\": "
               "\"summary_text\", \"text\": \"short\"}], \"content\": [{\"type\": "
               "\"reasoning_text\", \"text\": \"long\"}]}",
               "{\"type\": \"reasoning\", \"summary\": [], \"encrypted_content\": \"h\"}",
               SAID("a"), SAYS("b")),
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
        Turn t;
        parse(BODY("", SAYS("q"), cases[i].call, cases[i].result), &t);
        assert_int_equal(t.n_messages, 3);
        assert_int_equal(t.messages[1].n_calls, 1);
        str_is(t.messages[1].calls[0].id, "c");
        str_is(t.messages[1].calls[0].name, cases[i].name);
        str_is(t.messages[1].calls[0].arguments, cases[i].arguments);
        assert_int_equal(t.messages[2].role, CHAT_TOOL);
        str_is(t.messages[2].content, "r");
        turn_release(&t);
    }
}

static void what_others_did_or_will_invent_is_passed_over(void **state)
{
    (void)state;
    prompt_is(BODY(OFF, SAYS("q"), "{\"type\": \"web_search_call\", \"id\": \"ws_1\"}",
                   "{\"type\": \"mcp_list_tools\", \"id\": \"m\", \"tools\": []}",
                   "{\"type\": \"mcp_call\", \"id\": \"m2\", \"arguments\": \"{}\"}",
                   "{\"type\": \"mcp_approval_request\", \"id\": \"m3\"}",
                   "{\"type\": \"compaction\", \"encrypted_content\": \"...\"}",
                   "{\"type\": \"context_compaction\"}",
                   "{\"type\": \"tool_search_call\", \"arguments\": {}}",
                   "{\"type\": \"not_yet_there\", \"id\": \"n\"}", SAID("a")),
              BOS USER "q" ASSISTANT "</think>a");
}

static void tools_found_on_the_way_are_told_where_they_were_found(void **state)
{
    (void)state;
    static const char found[] =
        "<tool_result><functions>\n<function>{\"name\": \"ns__f\", \"parameters\": {}}</function>"
        "\n</functions></tool_result>\n\n<system-reminder>\n<functions>\n<function>"
        "{\"description\": \"e\", \"name\": \"g\"}</function>\n</functions>\n</system-reminder>";
    Turn t;
    Bytes prompt = { 0 };
    parse(BODY(OFF "\"tools\": [{\"type\": \"tool_search\", \"execution\": \"client\", "
                   "\"description\": \"d\", \"parameters\": {\"type\": \"object\"}}], ",
               SAYS("q"), "{\"type\": \"tool_search_call\", \"call_id\": \"c\", \"arguments\": {}}",
               "{\"type\": \"tool_search_output\", \"call_id\": \"c\", \"tools\": [{\"type\": "
               "\"namespace\", \"name\": \"ns\", \"tools\": [{\"type\": \"function\", \"name\": "
               "\"f\", \"defer_loading\": true, \"parameters\": {}}]}]}",
               "{\"type\": \"additional_tools\", \"role\": \"developer\", \"tools\": [{\"type\": "
               "\"function\", \"name\": \"g\", \"description\": \"e\"}]}"),
          &t);
    assert_int_equal(t.n_tools, 3);
    str_is(t.tools[1].name, "ns__f");
    assert_true(t.tools[1].deferred && t.tools[2].deferred);
    assert_int_equal(t.messages[0].n_tools, 1);
    render(&t, &prompt);
    if (!strstr(prompt.p, found))
        fail_msg("%s", prompt.p);
    bytes_release(&prompt);
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
    assert_false(t.session_is_shared);
    turn_release(&t);
}

static void a_name_of_a_user_or_a_cache_is_not_one_conversation_s(void **state)
{
    (void)state;
    static const char *const body[] = { "{\"prompt_cache_key\": \"k\", " ASKED,
                                        "{\"user\": \"k\", " ASKED,
                                        "{\"metadata\": {\"user_id\": \"k\"}, " ASKED };
    for (size_t i = 0; i < COUNT(body); i++) {
        Turn t;
        parse(body[i], &t);
        str_is(t.session, "k");
        assert_true(t.session_is_shared);
        turn_release(&t);
    }
    Turn t;
    parse("{\"metadata\": {\"user_id\": \"{\\\"session_id\\\":\\\"s\\\"}\"}, " ASKED, &t);
    str_is(t.session, "s");
    assert_false(t.session_is_shared);
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
    { "{\"background\": 1, " ASKED, "background", "invalid_value" },
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
    { "{\"tools\": [{\"type\": 1, \"name\": \"f\"}], " ASKED, "tools", "invalid_value" },
    { "{\"tools\": [{\"type\": \"function\", \"name\": \"f\", \"description\": 1}], " ASKED,
      "tools", "invalid_value" },
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
        cmocka_unit_test(a_name_of_a_user_or_a_cache_is_not_one_conversation_s),
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name),
        cmocka_unit_test(what_was_found_cannot_fill_the_memory),
    };
    vocab = vf_small_vocab(NULL);
    int failed = vocab ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    vocab_free(vocab);
    arena_release(&bodies);
    return failed;
}
