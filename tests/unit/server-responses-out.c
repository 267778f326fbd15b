/* OpenAI's Responses: Events to bytes, streamed and whole. */
#include "../responses.h"

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

static void a_response_that_waits_is_queued_first(void **state)
{
    (void)state;
    Told told;
    begin(&told, "{\"stream\": true, " ASKED);
    told.t.waits = true;
    dialect_responses.start(told.a, &told.out);
    TELL(&told, (Event){ .kind = EV_PROGRESS }, (Event){ .kind = EV_PROGRESS });
#define QUEUED RESPONSE("queued", "null", "null", "", "null")
    TOLD(&told, STATE("created", 0, QUEUED), STATE("queued", 1, QUEUED),
         STATE("in_progress", 2, RUNNING("")));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_comes_piece_by_piece_and_in_full),
        cmocka_unit_test(a_response_that_waits_is_queued_first),
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
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_release(&bodies);
    return failed;
}
