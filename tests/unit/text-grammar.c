/* What may come next in an answer: thinking, forms of text, calls. */
#include "../grammar_check.h"
#include "../v4_vocab.h"
#include <dirent.h>

/* ---- calls ------------------------------------------------------------------------------ */

#define D          "｜DSML｜"
#define BLOCK      "<" D "tool_calls>\n"
#define INVOKE(x)  "<" D "invoke name=\"" x "\">\n"
#define TEXT(k, v) "<" D "parameter name=\"" k "\" string=\"true\">" v "</" D "parameter>"
#define JSON(k, v) "<" D "parameter name=\"" k "\" string=\"false\">" v "</" D "parameter>"
#define END        "\n</" D "invoke>"
#define CLOSE      "\n</" D "tool_calls>"
#define EOS        "<｜end▁of▁sentence｜>"

static Json *schemas[4];
static GrammarTool tools[4];

static void declare_tools(void)
{
    static const char *const texts[] = {
        "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"},\"limit\":{\"type\":"
        "\"integer\","
        "\"minimum\":1},\"mode\":{\"type\":\"string\",\"enum\":[\"r\",\"rw\"]},\"any\":{}},"
        "\"required\":[\"path\"],\"additionalProperties\":false}",
        "{\"type\":\"object\",\"properties\":{}}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"string\",\"integer\"],"
        "\"maxLength\":3},"
        "\"list\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},\"additionalProperties\":{"
        "\"type\":\"boolean\"}}",
    };
    static const char *const names[] = { "read", "reads", "other" };
    for (int i = 0; i < 3; i++) {
        schemas[i] = json_tokener_parse(texts[i]);
        assert_non_null(schemas[i]);
        tools[i] = (GrammarTool){ .name = str_of(names[i]), .parameters = schemas[i] };
    }
    tools[3] = (GrammarTool){ .name = STR("patch"), .custom = true };
}

static void release_tools(void)
{
    for (int i = 0; i < 3; i++)
        json_free(schemas[i]);
}

static GrammarSpec with_tools(enum GrammarCalls calls)
{
    return (GrammarSpec){ .tools = tools, .n_tools = 4, .calls = calls, .parallel = true };
}

static void calls_have_their_exact_form(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_REQUIRED);
    Grammar *g = kit_compile(&kit, &spec);
    takes(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "/tmp/x") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "a < b && </b> </\n\"é\\") END CLOSE EOS);
    takes(g, "\n\n" BLOCK INVOKE("read") JSON("limit", "5") "\n" TEXT("path", "") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("read") TEXT("mode", "rw") "\n" TEXT("path", "p") END CLOSE);
    takes(g,
          "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" JSON("any", "{\"a\": [1]}") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" TEXT("any", "x") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("reads") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("reads") END "\n" INVOKE("read") TEXT("path", "p") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("other") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("other") TEXT("a", "xyz") "\n" JSON("list", "[\"\"]") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("other") JSON("a", "1234") "\n" JSON("more", "true") END CLOSE);
    takes(g, "\n\n" BLOCK INVOKE("patch") TEXT("input", "*** any\ntext") END CLOSE);
    rejects(g, "");
    rejects(g, "text");
    rejects(g, BLOCK INVOKE("reads") END CLOSE);
    rejects(g, "\n" BLOCK INVOKE("reads") END CLOSE);
    rejects(g, "\n\n" BLOCK CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("rea") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("reads") "</" D "invoke>" CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("reads") TEXT("x", "1") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") JSON("path", "\"p\"") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" TEXT("limit", "5") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" JSON("limit", "0") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" TEXT("mode", "w") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" JSON("any", "\"x\"") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" TEXT("path", "q") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") TEXT("mode", "r") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p") "\n" TEXT("else", "q") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("read") TEXT("path", "p" D) END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("other") TEXT("a", "wxyz") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("other") TEXT("more", "true") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("patch") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("patch") TEXT("other", "x") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("reads") END CLOSE "\n");
    rejects(g, "\n\n" BLOCK INVOKE("reads") END CLOSE EOS "x");
    grammar_free(g);
    release_tools();
}

static void one_call_or_one_tool_can_be_asked_for(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_REQUIRED);
    spec.parallel = false;
    Grammar *g = kit_compile(&kit, &spec);
    takes(g, "\n\n" BLOCK INVOKE("reads") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("reads") END "\n" INVOKE("reads") END CLOSE);
    assert_int_equal(taken(g, "\n\n" BLOCK INVOKE("reads") END "\n<"), 1);
    assert_int_equal(taken(g, "\n\n" BLOCK INVOKE("reads") END "\n<" D), 0);
    grammar_free(g);
    spec.only = STR("other");
    g = kit_compile(&kit, &spec);
    takes(g, "\n\n" BLOCK INVOKE("other") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("reads") END CLOSE);
    grammar_free(g);
    spec.only = STR("nobody");
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &kit.err));
    assert_non_null(strstr(kit.err.msg, "nobody"));
    release_tools();
}

static void what_cannot_be_kept_to_may_be_left_to_the_model(void **state)
{
    (void)state;
    Json *schema = json_tokener_parse(
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(?=x)x\"},"
        "\"l\":{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"integer\"}},"
        "\"n\":{\"type\":\"number\",\"multipleOf\":0.01}},\"if\":{},\"then\":{},"
        "\"dependentRequired\":{},\"not\":{\"required\":[\"z\"]}}");
    GrammarTool tool = { .name = STR("t"), .parameters = schema };
    GrammarSpec spec = { .tools = &tool, .n_tools = 1, .calls = CALLS_REQUIRED };
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &kit.err));
    tool.lenient = true;
    Grammar *g = kit_compile(&kit, &spec);
    takes(g, "\n\n" BLOCK INVOKE("t")
                 TEXT("a", "anything") "\n" JSON("l", "[1,1]") "\n" JSON("n", "0.123") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("t") JSON("l", "[\"\"]") END CLOSE);
    grammar_free(g);
    json_free(schema);
    /* What is no schema at all stays an error. */
    schema = tool.parameters = json_tokener_parse("{\"type\":\"widget\"}");
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &kit.err));
    json_free(schema);
}

/* Each of them is half a second of work, and small when it is done. */
static Json *much_work(void)
{
    Bytes text = { 0 };
    bytes_str(&text, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 1000; i++)
        bytes_printf(&text, "\"p%d\":{\"type\":\"string\",\"pattern\":\"(.*a){100}x\"},", i);
    bytes_str(&text, "\"z\":true}}");
    Json *schema = json_read(bytes_view(&text), NULL);
    assert_non_null(schema);
    bytes_release(&text);
    return schema;
}

static void compiling_is_refused_when_it_is_too_much(void **state)
{
    (void)state;
    GrammarSpec spec = { .schema = much_work() };
    ds4_err err = { 0 };
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_non_null(strstr(err.msg, "too much work"));
    json_free(spec.schema);
}

/* What is passed over where it cannot be kept to is work, too. */
static void compiling_lenient_tools_is_refused_when_it_is_too_much(void **state)
{
    (void)state;
    Json *schema = much_work();
    GrammarTool tool = { .name = STR("t"), .parameters = schema, .lenient = true };
    GrammarSpec spec = { .tools = &tool, .n_tools = 1, .calls = CALLS_ALLOWED };
    ds4_err err = { 0 };
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &err));
    assert_non_null(strstr(err.msg, "too much work"));
    json_free(schema);
}

static bool after_three(void *user) { return ++*(int *)user > 3; }

static void compiling_can_be_given_up(void **state)
{
    (void)state;
    int asked = 0;
    GrammarSpec spec = { .schema = much_work(), .stop = after_three, .user = &asked };
    ds4_err err = { 0 };
    assert_null(grammar_compile(&spec, kit.trie, kit.v, &err));
    assert_int_equal(err.code, DS4_ECANCELED);
    assert_int_equal(asked, 4);
    json_free(spec.schema);
}

/* ---- free text ---------------------------------------------------------------------------- */

static void feed(GrammarRun *r, const char *text)
{
    if (!grammar_bytes(r, str_of(text)))
        fail_msg("not taken: %s", text);
}

static void free_text_is_left_alone_until_a_block_begins(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_ALLOWED);
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *r = grammar_start(g, NULL);
    assert_null(grammar_mask(r));
    feed(r, "Some text. " D " and </" D " are talk");
    assert_null(grammar_mask(r));
    assert_true(grammar_complete(r));
    assert_false(grammar_constrains(r));
    feed(r, "\n\n<");
    assert_null(grammar_mask(r));
    feed(r, D);
    assert_non_null(grammar_mask(r));
    assert_true(grammar_constrains(r));
    assert_false(grammar_complete(r));
    assert_false(grammar_bytes(r, STR("invoke")));
    feed(r, "tool_calls>\n" INVOKE("reads") END CLOSE);
    assert_true(grammar_complete(r));
    const uint32_t *mask = grammar_mask(r);
    for (int32_t id = 0; id < vocab_size(kit.v); id++)
        assert_int_equal(bit(mask, id), id == vocab_controls(kit.v)->eos);
    assert_true(grammar_token(r, vocab_controls(kit.v)->eos));
    assert_false(grammar_token(r, 3 + 'a'));
    grammar_end(r);
    grammar_free(g);
    release_tools();
}

/* The tag written with ordinary tokens is prose. */
static void markup_is_known_by_its_token(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_ALLOWED);
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *r = grammar_start(g, NULL);
    for (const char *p = "<" D "tool_calls>\n"; *p; p++)
        assert_true(grammar_token(r, vocab_byte(kit.v, (unsigned char)*p)));
    assert_null(grammar_mask(r));
    grammar_end(r);
    grammar_free(g);
    /* Within a value neither may stand there, nor the closing tag spelled out. */
    spec.calls = CALLS_REQUIRED;
    g = kit_compile(&kit, &spec);
    r = grammar_start(g, NULL);
    feed(r, "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"path\" string=\"true\">x");
    for (const char *p = "</" D "parameter"; *p; p++)
        assert_true(grammar_token(r, vocab_byte(kit.v, (unsigned char)*p)));
    assert_false(grammar_token(r, vocab_byte(kit.v, '>')));
    assert_true(grammar_token(r, vocab_byte(kit.v, ' ')));
    assert_false(grammar_token(r, vocab_controls(kit.v)->dsml));
    assert_false(grammar_token(r, vocab_controls(kit.v)->think_end));
    assert_false(grammar_token(r, vocab_controls(kit.v)->eos));
    grammar_end(r);
    grammar_free(g);
    release_tools();
}

static void calls_that_are_not_wanted_are_masked(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_NONE);
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *r = grammar_start(g, NULL);
    int32_t dsml = vocab_controls(kit.v)->dsml;
    const uint32_t *mask = grammar_mask(r);
    assert_non_null(mask);
    for (int32_t id = 0; id < vocab_size(kit.v); id++)
        assert_int_equal(bit(mask, id), id != dsml);
    assert_false(grammar_token(r, dsml));
    feed(r, "text");
    assert_true(grammar_complete(r));
    grammar_end(r);
    grammar_free(g);
    g = kit_compile(&kit, &(GrammarSpec){ 0 });
    r = grammar_start(g, NULL);
    assert_null(grammar_mask(r));
    feed(r, "<" D "tool_calls>");
    assert_null(grammar_mask(r));
    grammar_end(r);
    grammar_free(g);
    release_tools();
}

static void thinking_is_free_and_ends_before_the_form(void **state)
{
    (void)state;
    const Controls *c = vocab_controls(kit.v);
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_REQUIRED);
    spec.thinking = true;
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *r = grammar_start(g, NULL);
    const uint32_t *mask = grammar_mask(r);
    assert_non_null(mask);
    assert_false(bit(mask, c->eos));
    assert_false(bit(mask, c->user));
    assert_true(bit(mask, c->think_end));
    assert_true(bit(mask, 3 + 'x'));
    feed(r, "I might call <" D "invoke or {}");
    assert_false(grammar_complete(r));
    assert_false(grammar_token(r, c->eos));
    feed(r, "</think>");
    mask = grammar_mask(r);
    assert_true(bit(mask, vocab_byte(kit.v, '\n')));
    assert_false(bit(mask, 3 + 'x'));
    feed(r, "\n\n" BLOCK INVOKE("reads") END CLOSE EOS);
    grammar_end(r);
    grammar_free(g);
    release_tools();
}

/* The whole opening line in thinking begins a block; less is talk. */
static void a_block_may_begin_in_thinking(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_ALLOWED);
    spec.thinking = true;
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *r = grammar_start(g, NULL);
    feed(r, "hm <" D "tool_call and <" D "tool_calls> said inline");
    assert_null(grammar_mask(r));
    assert_true(grammar_complete(r));
    grammar_end(r);
    r = grammar_start(g, NULL);
    feed(r, "so\n\n<" D "tool_calls>");
    assert_null(grammar_mask(r));
    feed(r, "\n");
    assert_true(grammar_constrains(r));
    feed(r, INVOKE("reads") END CLOSE);
    assert_true(grammar_complete(r));
    grammar_end(r);
    grammar_free(g);
    release_tools();
}

/* ---- forms of text -------------------------------------------------------------------------- */

static void text_can_be_json_or_calls(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_ALLOWED);
    spec.json_object = true;
    Grammar *g = kit_compile(&kit, &spec);
    takes(g, "{}");
    takes(g, "{\"a\": [1, {\"b\": null}]}");
    takes(g, "\n\n" BLOCK INVOKE("reads") END CLOSE);
    rejects(g, "[]");
    rejects(g, "{} ");
    rejects(g, "text");
    rejects(g, "{}\n\n" BLOCK INVOKE("reads") END CLOSE);
    grammar_free(g);
    g = kit_compile(&kit, &(GrammarSpec){ .json_object = true, .thinking = true });
    takes(g, "thought</think>{\"x\":1}");
    rejects(g, "thought");
    rejects(g, "thought</think>");
    grammar_free(g);
    release_tools();
}

static void text_can_be_of_a_regular_expression(void **state)
{
    (void)state;
    Grammar *g = kit_compile(&kit, &(GrammarSpec){ .regex = STR("(yes|no)( \\d{1,3}%)?") });
    takes(g, "yes");
    takes(g, "no 55%");
    rejects(g, "yes ");
    rejects(g, "maybe yes");
    rejects(g, "yes 5555%");
    grammar_free(g);
    assert_null(
        grammar_compile(&(GrammarSpec){ .regex = STR("a(?=b)") }, kit.trie, kit.v, &kit.err));
    assert_int_equal(kit.err.code, DS4_EINVAL);
}

/* ---- Lark ------------------------------------------------------------------------------------ */

static const char apply_patch[] =
    "start: begin_patch hunk+ end_patch\n"
    "begin_patch: \"*** Begin Patch\" LF\n"
    "end_patch: \"*** End Patch\" LF?\n"
    "\n"
    "hunk: add_hunk | delete_hunk | update_hunk\n"
    "add_hunk: \"*** Add File: \" filename LF add_line+\n"
    "delete_hunk: \"*** Delete File: \" filename LF\n"
    "update_hunk: \"*** Update File: \" filename LF change_move? change?\n"
    "\n"
    "filename: /(.+)/\n"
    "add_line: \"+\" /(.*)/ LF -> line\n"
    "\n"
    "change_move: \"*** Move to: \" filename LF\n"
    "change: (change_context | change_line)+ eof_line?\n"
    "change_context: (\"@@\" | \"@@ \" /(.+)/) LF\n"
    "change_line: (\"+\" | \"-\" | \" \") /(.*)/ LF\n"
    "eof_line: \"*** End of File\" LF\n"
    "\n"
    "%import common.LF\n";

static void a_patch_has_the_form_of_its_grammar(void **state)
{
    (void)state;
    Grammar *g = kit_compile(&kit, &(GrammarSpec){ .lark = str_of(apply_patch) });
    takes(g, "*** Begin Patch\n*** Add File: a/é.c\n+int x;\n+\n*** End Patch");
    takes(g, "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@ f()\n-old\n+new\n ctx\n"
             "*** End of File\n*** Delete File: c\n*** End Patch\n");
    rejects(g, "*** Begin Patch\n*** End Patch");
    rejects(g, "*** Begin Patch\n*** Add File: a\n*** End Patch");
    rejects(g, "*** Begin Patch\n*** Add File: a\nx\n*** End Patch");
    rejects(g, "*** Begin Patch\n*** Add File: \n+x\n*** End Patch");
    grammar_free(g);
    GrammarTool tool = { .name = STR("apply_patch"),
                         .custom = true,
                         .text_syntax = STR("lark"),
                         .text_grammar = str_of(apply_patch) };
    g = kit_compile(&kit, &(GrammarSpec){ .tools = &tool, .n_tools = 1, .calls = CALLS_REQUIRED });
    takes(g, "\n\n" BLOCK INVOKE("apply_patch")
                 TEXT("input", "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch") END CLOSE);
    rejects(g, "\n\n" BLOCK INVOKE("apply_patch") TEXT("input", "*** Begin Patch\n") END CLOSE);
    grammar_free(g);
}

typedef struct {
    const char *grammar;
    const char *takes[6], *rejects[6];
} LarkCase;

static const LarkCase lark_cases[] = {
    { "start: expr\nexpr: term ((\"+\" | \"-\") term)*\nterm: NUMBER | \"(\" expr \")\"\n"
      "%import common.NUMBER\n%import common.WS_INLINE\n%ignore WS_INLINE\n",
      { "1", "1 + (2 - 3.5)", " ( 1 )", "1+2e3 " },
      { "", "1 +", "(1", "1 2", "a", "1\n+2" } },
    { "start: pair (\",\" pair)*\npair: WORD \"=\" (\"a\"..\"f\")+ // a comment\nWORD: /[x-z]+/\n",
      { "x=a", "xyz=fade,z=b" },
      { "x=", "x=g", "a=a", "x=a," } },
    { "start: \"Yes\"i ~ 2..3 [\"!\"]\n",
      { "yesYES", "YESyesyes!", "yesyes!" },
      { "yes", "yesyes!!" } },
    { "start: a | b\na.2: \"x\" a | \"x\"\nb: (\"y\" \"z\"?)+ -> ys\n",
      { "x", "xxxx", "yzyyz" },
      { "", "xy", "z", "zy" } },
    { "start: (\"a\"?)* \"b\"\n", { "b", "aaab" }, { "", "a", "ba" } },
    { "start:\n    | \"a\"\n    | \"b\\n\\\"\\u00e9\"\n", { "", "a", "b\n\"é" }, { "b" } },
    { "?start: _A B+\n_A: \"a\"\nB: \"b\" | /c/i | \"\\x64\"\n%import common (INT, LF)\n",
      { "ab", "abCcd" },
      { "a", "b", "ae" } },
};

static void lark_grammars_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lark_cases); i++) {
        Grammar *g = kit_compile(&kit, &(GrammarSpec){ .lark = str_of(lark_cases[i].grammar) });
        for (size_t k = 0; k < COUNT(lark_cases[i].takes) && lark_cases[i].takes[k]; k++)
            takes(g, lark_cases[i].takes[k]);
        for (size_t k = 0; k < COUNT(lark_cases[i].rejects) && lark_cases[i].rejects[k]; k++)
            rejects(g, lark_cases[i].rejects[k]);
        grammar_free(g);
    }
}

static void what_is_no_such_grammar_is_refused(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        { "rule: \"a\"\n", "start" },
        { "start: a\n", "\"a\" is not defined" },
        { "start: start \"a\" | \"a\"\n", "back to itself" },
        { "start: b start \"a\" | \"a\"\nb: \"x\"?\n", "back to itself" },
        { "start: \"a\n", "without its end" },
        { "start: (\"a\"\n", "without its end" },
        { "start: /a/x\n", "flags" },
        { "start: \"a\"\nstart: \"b\"\n", "twice" },
        { "start: t{\"a\"}\nt{x}: x\n", "templates" },
        { "%declare A\nstart: A\n", "%import" },
        { "%import python.NAME\nstart: \"a\"\n", "common" },
        { "%import common.NOTHING\nstart: \"a\"\n", "common.NOTHING" },
        { "start: \"a\" ~ 5..2\n", "repetition" },
        { "start: a\na: a\n", "satisfy" },
        { "A: b\nb: \"x\"\nstart: A\n", "terminal" },
        { "start \"a\"\n", ":" },
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        ds4_err err = { 0 };
        Grammar *g =
            grammar_compile(&(GrammarSpec){ .lark = str_of(texts[i][0]) }, kit.trie, kit.v, &err);
        if (g || !strstr(err.msg, texts[i][1]))
            fail_msg("%s: expected \"%s\", got \"%s\"", texts[i][0], texts[i][1],
                     g ? "a grammar" : err.msg);
    }
}

/* ---- masks are what trying each token says ------------------------------------------------------ */

static void mask_agrees_with_trials(Grammar *g, const ds4_vocab *v, const char *prefix)
{
    GrammarRun *r = grammar_start(g, NULL);
    feed(r, prefix);
    const uint32_t *mask = grammar_mask(r);
    assert_non_null(mask);
    size_t words = ((size_t)vocab_size(v) + 31) / 32;
    uint32_t *copy = malloc(words * sizeof *copy);
    memcpy(copy, mask, words * sizeof *copy);
    grammar_end(r);
    for (int32_t id = 0; id < vocab_size(v); id++) {
        r = grammar_start(g, NULL);
        feed(r, prefix);
        if (grammar_token(r, id) != bit(copy, id))
            fail_msg("after \"%s\" token %d (\"%.*s\") is %s", prefix, id,
                     STR_ARG(vocab_bytes(v, id)),
                     bit(copy, id) ? "allowed, but not taken" : "taken, but not allowed");
        grammar_end(r);
    }
    free(copy);
}

static void masks_agree_with_trials(void **state)
{
    (void)state;
    static const char *const prefixes[] = {
        "",
        "\n",
        "\n\n<",
        "\n\n" BLOCK,
        "\n\n" BLOCK "<" D "invoke name=\"",
        "\n\n" BLOCK INVOKE("read"),
        "\n\n" BLOCK INVOKE("other"),
        "\n\n" BLOCK "<" D "invoke name=\"read",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"path\" string=\"true\">",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"path\" string=\"true\">é</",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"mode\" string=\"true\">r",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"limit\" string=\"false\">1",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"any\" string=\"false\">{\"a",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"any\" string=\"false\">{\"a\\",
        "\n\n" BLOCK INVOKE("read") "<" D "parameter name=\"any\" string=\"",
        "\n\n" BLOCK INVOKE("other") "<" D "parameter name=\"a\" string=\"true\">a",
        "\n\n" BLOCK INVOKE("other") "<" D "parameter name=\"x",
        "\n\n" BLOCK INVOKE("other") "<" D "parameter name=\"list\" string=\"false\">[",
        "\n\n" BLOCK INVOKE("reads") END,
        "\n\n" BLOCK INVOKE("reads") END CLOSE,
        "{",
        "{\"",
        "{\"a\": ",
        "{\"a\": [1",
        "{\"a\": tr",
        "{\"a\":\"xxxxxxxxxxxxxx",
    };
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_ALLOWED);
    spec.json_object = true;
    Grammar *g = kit_compile(&kit, &spec);
    for (size_t i = 0; i < COUNT(prefixes); i++)
        mask_agrees_with_trials(g, kit.v, prefixes[i]);
    grammar_free(g);
    release_tools();
}

/* Near the limits of lengths masks come from counts that stand for others. */
static void masks_agree_with_trials_near_limits(void **state)
{
    (void)state;
    Json *schema = json_tokener_parse("{\"type\":\"string\",\"minLength\":40,\"maxLength\":100}");
    Grammar *g = kit_compile(&kit, &(GrammarSpec){ .schema = schema });
    for (int n = 0; n <= 100; n += n < 17 || n > 80 || (n > 20 && n < 45) ? 1 : 9) {
        char prefix[128] = "\"";
        memset(prefix + 1, 'x', (size_t)n);
        mask_agrees_with_trials(g, kit.v, prefix);
    }
    grammar_free(g);
    json_free(schema);
}

/* However the bytes are cut into tokens, the same is taken. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    static const char text[] = "\n\n" BLOCK INVOKE("read")
        TEXT("path", "name \"},abc") "\n" JSON("any", "{\"name\": [true, null, \"path\"]}")
            END CLOSE;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_REQUIRED);
    Grammar *g = kit_compile(&kit, &spec);
    uint64_t rng = 5;
    for (int round = 0; round < 200; round++) {
        GrammarRun *r = grammar_start(g, NULL);
        for (size_t at = 0; at < sizeof text - 1;) {
            int32_t fits[64], n = 0;
            for (int32_t id = 0; id < vocab_size(kit.v) && n < 64; id++) {
                Str s = vocab_bytes(kit.v, id);
                bool control = vocab_is_special(kit.v, id);
                if (s.n <= sizeof text - 1 - at && memcmp(s.p, text + at, s.n) == 0 &&
                    (control || (unsigned char)text[at] != 0xef))
                    fits[n++] = id;
            }
            int32_t id = fits[rng_next(&rng) % (uint64_t)n];
            const uint32_t *mask = grammar_mask(r);
            assert_true(bit(mask, id));
            assert_true(grammar_token(r, id));
            at += vocab_bytes(kit.v, id).n;
        }
        assert_true(grammar_complete(r));
        grammar_end(r);
    }
    grammar_free(g);
    release_tools();
}

static void runs_of_one_grammar_do_not_meet(void **state)
{
    (void)state;
    declare_tools();
    GrammarSpec spec = with_tools(CALLS_REQUIRED);
    Grammar *g = kit_compile(&kit, &spec);
    GrammarRun *a = grammar_start(g, NULL), *b = grammar_start(g, NULL);
    feed(a, "\n\n" BLOCK INVOKE("read"));
    feed(b, "\n\n" BLOCK INVOKE("reads") END);
    /* Long enough for what was remembered to be thrown away. */
    feed(a, "<" D "parameter name=\"any\" string=\"false\">[");
    for (int i = 0; i < 3000; i++) {
        char item[64];
        snprintf(item, sizeof item, "{\"k%d\": [%d]}, ", i, i);
        feed(a, item);
    }
    feed(a, "0]</" D "parameter>\n" TEXT("path", "x") END CLOSE);
    feed(b, CLOSE);
    assert_true(grammar_complete(a) && grammar_complete(b));
    grammar_end(a);
    grammar_end(b);
    grammar_free(g);
    release_tools();
}

/* ---- what real clients declare, with the real vocabulary ------------------------------------------ */

typedef struct {
    GrammarTool tool[256];
    size_t n;
} Declared;

static void declare(Declared *d, Json *list)
{
    for (size_t i = 0; i < json_length(list); i++) {
        Json *t = json_at(list, i), *f = json_member(t, "function");
        declare(d, json_member(t, "tools"));
        t = f ? f : t;
        Json *p = json_member(t, "input_schema"), *format = json_member(t, "format");
        p = p ? p : json_member(t, "parameters");
        if ((!p && !format) || d->n == COUNT(d->tool))
            continue;
        d->tool[d->n++] =
            (GrammarTool){ .name = json_text(json_member(t, "name")),
                           .parameters = p,
                           .custom = format != NULL,
                           .text_syntax = json_text(json_member(format, "syntax")),
                           .text_grammar = json_text(json_member(format, "definition")) };
    }
}

static void compile_request(const char *path, size_t *n_tools)
{
    Bytes text = { 0 };
    Declared d = { .n = 0 };
    ds4_err err = { 0 };
    if (!file_read(&text, path, 8 << 20, &err))
        fail_msg("%s", err.msg);
    Json *o = json_read(bytes_view(&text), &err);
    Json *body = json_member(o, "body");
    declare(&d, json_member(body, "tools"));
    if (d.n) {
        GrammarSpec spec = { .tools = d.tool, .n_tools = d.n, .calls = CALLS_ALLOWED };
        Grammar *g = grammar_compile(&spec, kit.trie, kit.v, &err);
        if (!g)
            fail_msg("%s: %s", path, err.msg);
        grammar_free(g);
    }
    *n_tools += d.n;
    json_free(o);
    bytes_release(&text);
}

#define REQUESTS "tests/data/client_requests"

static size_t each_request(void (*fn)(const char *path, size_t *n), size_t *n)
{
    size_t files = 0;
    DIR *top = opendir(REQUESTS);
    assert_non_null(top);
    for (struct dirent *e; (e = readdir(top));) {
        char path[600];
        snprintf(path, sizeof path, REQUESTS "/%s", e->d_name);
        DIR *d = e->d_name[0] == '.' ? NULL : opendir(path);
        if (!d)
            continue;
        for (struct dirent *f; (f = readdir(d));) {
            if (!strstr(f->d_name, ".json"))
                continue;
            snprintf(path, sizeof path, REQUESTS "/%s/%s", e->d_name, f->d_name);
            fn(path, n);
            files++;
        }
        closedir(d);
    }
    closedir(top);
    return files;
}

static void every_tool_of_the_clients_compiles(void **state)
{
    (void)state;
    size_t n = 0, files = each_request(compile_request, &n);
    print_message("%zu tools in %zu requests\n", n, files);
    assert_true(files > 200 && n > 1000);
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

enum { SAMPLES = 8000, ANSWER = 250 };

/* Masks and steps along answers written by chance. */
static size_t time_answers(Grammar *g, const ds4_vocab *v, double *us)
{
    uint64_t rng = 11;
    size_t n = 0;
    while (n < SAMPLES) {
        GrammarRun *r = grammar_start(g, NULL);
        for (int step = 0; step < ANSWER && n < SAMPLES; step++) {
            double from = cpu_us();
            const uint32_t *mask = grammar_mask(r);
            double spent = cpu_us() - from;
            assert_non_null(mask);
            int32_t id = pick_token(mask, v, &rng, rng_next(&rng) % 4 == 0);
            assert_true(id >= 0);
            from = cpu_us();
            assert_true(grammar_token(r, id));
            us[n++] = spent + cpu_us() - from;
            if (id == vocab_controls(v)->eos)
                break;
        }
        grammar_end(r);
    }
    return n;
}

static void a_token_takes_less_than_a_millisecond(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    double seconds, *us = malloc(SAMPLES * sizeof *us);
    ds4_vocab *v = v4_vocab(&seconds, &err);
    if (!v) {
        print_message("SKIPPED: %s\n", err.msg);
        free(us);
        skip();
    }
    Bytes text = { 0 };
    Declared d = { .n = 0 };
    assert_true(file_read(&text, REQUESTS "/claude-2.1.330/02.json", 8 << 20, &err));
    Json *o = json_read(bytes_view(&text), &err);
    declare(&d, json_member(json_member(o, "body"), "tools"));
    TokenTrie *trie = trie_new(v, &err);
    double from = cpu_us();
    GrammarSpec spec = {
        .tools = d.tool, .n_tools = d.n, .calls = CALLS_REQUIRED, .parallel = true
    };
    Grammar *g = grammar_compile(&spec, trie, v, &err);
    assert_non_null(g);
    double compiled = cpu_us() - from;
    size_t n = time_answers(g, v, us);
    qsort(us, n, sizeof *us, by_time);
    print_message(
        "%zu tools compiled in %.1f ms; %zu tokens of %d: p50 %.1f us, p99 %.1f us, most %.0f us\n",
        d.n, compiled / 1e3, n, vocab_size(v), us[n / 2], us[n * 99 / 100], us[n - 1]);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__OPTIMIZE__)
    assert_true(us[n * 99 / 100] < 1000);
#endif
    grammar_free(g);
    trie_free(trie);
    json_free(o);
    bytes_release(&text);
    vocab_free(v);
    free(us);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_have_their_exact_form),
        cmocka_unit_test(one_call_or_one_tool_can_be_asked_for),
        cmocka_unit_test(what_cannot_be_kept_to_may_be_left_to_the_model),
        cmocka_unit_test(compiling_is_refused_when_it_is_too_much),
        cmocka_unit_test(compiling_lenient_tools_is_refused_when_it_is_too_much),
        cmocka_unit_test(compiling_can_be_given_up),
        cmocka_unit_test(free_text_is_left_alone_until_a_block_begins),
        cmocka_unit_test(markup_is_known_by_its_token),
        cmocka_unit_test(calls_that_are_not_wanted_are_masked),
        cmocka_unit_test(thinking_is_free_and_ends_before_the_form),
        cmocka_unit_test(a_block_may_begin_in_thinking),
        cmocka_unit_test(text_can_be_json_or_calls),
        cmocka_unit_test(text_can_be_of_a_regular_expression),
        cmocka_unit_test(a_patch_has_the_form_of_its_grammar),
        cmocka_unit_test(lark_grammars_are_read),
        cmocka_unit_test(what_is_no_such_grammar_is_refused),
        cmocka_unit_test(masks_agree_with_trials),
        cmocka_unit_test(masks_agree_with_trials_near_limits),
        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(runs_of_one_grammar_do_not_meet),
        cmocka_unit_test(every_tool_of_the_clients_compiles),
        cmocka_unit_test(a_token_takes_less_than_a_millisecond),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
