/* Tools that a client leaves out of a conversation keep their place in its prompt,
 * so that the prompt goes on with the earlier one; and nothing else changes. */
#include "../requests.h"
#include "../vocab_file.h"
#include "../../src/server/prepare.h"
#include "../../src/server/tools_in.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "../store_folder.h"

/* Bodies of chat. */
#define F       "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"one\"}}"
#define F_OTHER "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"two\"}}"
#define G       "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"
#define H       "{\"type\":\"function\",\"function\":{\"name\":\"h\"}}"
#define SYSTEM  "{\"role\":\"system\",\"content\":\"s\"}"
#define ASK     "{\"role\":\"user\",\"content\":\"hi\"}"
#define ANSWER  ",{\"role\":\"assistant\",\"content\":\"a\"}," ASK
#define BODY(key, tools, messages) \
    "{\"prompt_cache_key\":\"" key "\",\"tools\":[" tools "],\"messages\":[" messages "]}"
#define BEGUN(tools)   BODY("k", tools, SYSTEM "," ASK)
#define GOES_ON(tools) BODY("k", tools, SYSTEM "," ASK ANSWER)

static ds4_vocab *vocab;
static TokenTrie *trie;

static ToolMemory *make(size_t conversations, size_t bytes)
{
    ds4_err err;
    ToolMemory *m = tool_memory_new(conversations, bytes, &err);
    if (!m)
        fail_msg("%s", err.msg);
    return m;
}

static Turn read_turn(const Dialect *d, const char *body, const Headers *h)
{
    Turn t;
    ApiError e = { 0 };
    turn_init(&t, dialect_api(d));
    if (!prepare_read(&t, d, str_of(body), h, &test_server, &e))
        fail_msg("%s: %s", body, e.message);
    return t;
}

static Turn applied(ToolMemory *m, const char *body)
{
    Turn t = read_turn(&dialect_chat, body, NULL);
    tool_memory_apply(m, &t);
    return t;
}

/* The names in the prompt's block, those that must not be called in brackets. */
static void block_is(const Turn *t, const char *want)
{
    const ChatMessage *system = &t->messages[0];
    Bytes b = { 0 };
    for (size_t i = 0; system->role == CHAT_SYSTEM && i < system->n_tools; i++) {
        Json *line = json_read(system->tools[i], NULL);
        Str name = json_text(json_member(line, "name"));
        const Tool *tool = tools_find(t, name);
        assert_non_null(tool);
        assert_true(str_eq(tool->function, system->tools[i]));
        assert_true(str_eq(tool->wire_name, name));
        bytes_printf(&b, tool->barred ? "[%.*s]" : "%.*s", STR_ARG(name));
        json_free(line);
    }
    bytes_byte(&b, 0);
    assert_string_equal(b.p, want);
    bytes_release(&b);
}

/* After the first request, the second has this block. */
static void becomes(const char *first, const char *second, const char *want)
{
    ToolMemory *m = make(0, 0);
    Turn a = applied(m, first), b = applied(m, second);
    block_is(&b, want);
    turn_release(&a);
    turn_release(&b);
    tool_memory_free(m);
}

/* ---- what is put back --------------------------------------------------------------- */

static void missing_tools_keep_their_places_and_are_barred(void **state)
{
    (void)state;
    becomes(BEGUN(F "," G "," H), GOES_ON(F "," G "," H), "fgh");
    becomes(BEGUN(F "," G "," H), GOES_ON(F "," H), "f[g]h");
    becomes(BEGUN(F "," G "," H), GOES_ON(G), "[f]g[h]");
    becomes(BEGUN(F "," G "," H), GOES_ON(""), "[f][g][h]");
    becomes(BEGUN(F "," G), GOES_ON(""), "[f][g]");
}

/* Another process on the same folder. */
static ToolMemory *remake(StoreFolder *f, ToolMemory *before)
{
    ds4_err err;
    tool_memory_free(before);
    if (f->store)
        store_folder_close(f);
    ToolMemory *m = make(0, 0);
    if (!tool_memory_persist(m, store_folder_open(f), 1 << 20, &err))
        fail_msg("%s", err.msg);
    return m;
}

static void missing_tools_are_known_after_a_restart(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ToolMemory *m = remake(&f, NULL);
    Turn a = applied(m, BEGUN(F "," G "," H));
    m = remake(&f, m);
    Turn b = applied(m, GOES_ON(F "," H));
    block_is(&b, "f[g]h");
    /* A block that takes the place of one is the one that comes back. */
    Turn c = applied(m, BEGUN(G "," H));
    m = remake(&f, m);
    Turn d = applied(m, GOES_ON(""));
    block_is(&d, "[g][h]");
    turn_release(&a);
    turn_release(&b);
    turn_release(&c);
    turn_release(&d);
    tool_memory_free(m);
    store_folder_close(&f);
    store_folder_remove(&f);
}

static void a_record_that_is_none_is_harmless(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ToolMemory *m = remake(&f, NULL);
    Turn a = applied(m, BEGUN(F "," G "," H));
    tool_memory_free(m);
    store_folder_close(&f);
    store_folder_spoil(&f, "tools");
    m = remake(&f, NULL);
    Turn b = applied(m, BEGUN(F "," H));
    block_is(&b, "fh");
    turn_release(&a);
    turn_release(&b);
    tool_memory_free(m);
    store_folder_close(&f);
    store_folder_remove(&f);
}

static void where_no_tool_is_left_none_may_be_called(void **state)
{
    (void)state;
    ToolMemory *m = make(0, 0);
    Turn a = applied(m, BEGUN(F "," G)), b = applied(m, GOES_ON(F)), c = applied(m, GOES_ON(""));
    assert_int_equal(a.choice, CHOOSE_AUTO);
    assert_int_equal(b.choice, CHOOSE_AUTO);
    assert_int_equal(c.choice, CHOOSE_NONE);
    turn_release(&a);
    turn_release(&b);
    turn_release(&c);
    tool_memory_free(m);
}

/* What was put back once is so again. */
static void the_known_block_stays_while_tools_come_and_go(void **state)
{
    (void)state;
    static const struct {
        const char *body, *block;
    } steps[] = { { BEGUN(F "," G "," H), "fgh" }, { GOES_ON(G), "[f]g[h]" },
                  { GOES_ON(""), "[f][g][h]" },    { BEGUN(""), "" },
                  { GOES_ON(F "," H), "f[g]h" },   { GOES_ON(F "," G "," H), "fgh" } };
    ToolMemory *m = make(0, 0);
    for (size_t i = 0; i < COUNT(steps); i++) {
        Turn t = applied(m, steps[i].body);
        block_is(&t, steps[i].block);
        turn_release(&t);
    }
    tool_memory_free(m);
}

static void a_block_that_changed_is_what_counts_from_now_on(void **state)
{
    (void)state;
    static const char *const changed[] = { F_OTHER "," G, G "," F, F "," G "," H, H };
    static const char *const blocks[] = { "fg", "gf", "fgh", "h" };
    static const char *const barred[] = { "[f][g]", "[g][f]", "[f][g][h]", "[h]" };
    for (size_t i = 0; i < COUNT(changed); i++) {
        char body[1024];
        ToolMemory *m = make(0, 0);
        Turn a = applied(m, BEGUN(F "," G));
        snprintf(body, sizeof body, BODY("k", "%s", SYSTEM "," ASK ANSWER), changed[i]);
        Turn b = applied(m, body), c = applied(m, GOES_ON(""));
        block_is(&b, blocks[i]);
        block_is(&c, barred[i]);
        turn_release(&a);
        turn_release(&b);
        turn_release(&c);
        tool_memory_free(m);
    }
}

static void a_conversation_that_begins_gets_nothing_put_back(void **state)
{
    (void)state;
    becomes(BEGUN(F "," G), BEGUN(""), "");
    becomes(BEGUN(F "," G), BEGUN(G), "g");
}

static void another_conversation_gets_nothing_put_back(void **state)
{
    (void)state;
    becomes(BEGUN(F), BODY("other", "", SYSTEM "," ASK ANSWER), "");
    becomes(BEGUN(F), BODY("k", "", ASK ANSWER), "");
    becomes(BEGUN(F), BODY("k", "", "{\"role\":\"system\",\"content\":\"title\"}," ASK ANSWER), "");
    becomes(BEGUN(F), BODY("k", "", SYSTEM ",{\"role\":\"user\",\"content\":\"x\"}" ANSWER), "");
    /* without a key of session none is known */
    becomes(BODY("", F, SYSTEM "," ASK), BODY("", "", SYSTEM "," ASK ANSWER), "");
}

static const char *agent_header(void *agent, const char *name)
{
    return strcmp(name, "thread-id") == 0 ? agent : NULL;
}

static void another_agent_gets_nothing_put_back(void **state)
{
    (void)state;
    static char one[] = "one", two[] = "two";
    const Headers of_one = { agent_header, one }, of_two = { agent_header, two };
    ToolMemory *m = make(0, 0);
    Turn t[] = { read_turn(&dialect_chat, BEGUN(F), &of_one),
                 read_turn(&dialect_chat, GOES_ON(""), &of_two),
                 read_turn(&dialect_chat, GOES_ON(""), &of_one) };
    static const char *const blocks[] = { "f", "", "[f]" };
    for (size_t i = 0; i < COUNT(t); i++) {
        tool_memory_apply(m, &t[i]);
        block_is(&t[i], blocks[i]);
        turn_release(&t[i]);
    }
    tool_memory_free(m);
}

static void a_system_message_is_put_in_front_where_there_was_none(void **state)
{
    (void)state;
    ToolMemory *m = make(0, 0);
    Turn a = read_turn(&dialect_messages,
                       "{\"metadata\":{\"user_id\":\"k\"},\"max_tokens\":9,\"tools\":[{\"name\":"
                       "\"f\",\"input_schema\":{}}],\"messages\":[" ASK "]}",
                       NULL);
    Turn b = read_turn(&dialect_messages,
                       "{\"metadata\":{\"user_id\":\"k\"},\"max_tokens\":9,\"messages\":[" ASK
                       ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
                       "\"t\",\"signature\":\"sign\"}]}," ASK "]}",
                       NULL);
    assert_int_equal(b.messages[0].role, CHAT_USER);
    tool_memory_apply(m, &a);
    tool_memory_apply(m, &b);
    block_is(&b, "[f]");
    assert_int_equal(b.n_messages, 4);
    assert_int_equal(b.messages[0].content.n, 0);
    assert_int_equal(b.messages[1].role, CHAT_USER);
    assert_int_equal(b.messages[2].role, CHAT_ASSISTANT);
    for (size_t i = 0; i < 4; i++)
        assert_true(str_eq(b.handles[i], i == 2 ? STR("sign") : (Str){ 0 }));
    turn_release(&a);
    turn_release(&b);
    tool_memory_free(m);
}

/* Behind a search: still declared, and callable, but no more in the block. */
static void a_tool_that_is_deferred_now_keeps_its_place_and_may_be_called(void **state)
{
    (void)state;
#define CLAUDE(f, more) \
    "{\"metadata\":{\"user_id\":\"k\"},\"max_tokens\":9,\"tools\":[{\"name\":\"f\"," f \
    "\"input_schema\":{}},{\"name\":\"g\",\"input_schema\":{}}],\"messages\":[" ASK more "]}"
    static const struct {
        const char *f, *block;
    } cases[] = {
        { CLAUDE("\"defer_loading\":true,", ANSWER), "fg" },
        { CLAUDE("\"defer_loading\":true,\"description\":\"new\",", ANSWER), "g" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ToolMemory *m = make(0, 0);
        Turn a = read_turn(&dialect_messages, CLAUDE("", ""), NULL);
        Turn b = read_turn(&dialect_messages, cases[i].f, NULL);
        tool_memory_apply(m, &a);
        tool_memory_apply(m, &b);
        block_is(&b, cases[i].block);
        assert_int_equal(b.n_tools, 2);
        assert_int_equal(b.choice, CHOOSE_AUTO);
        turn_release(&a);
        turn_release(&b);
        tool_memory_free(m);
    }
}

/* ---- how much is kept ----------------------------------------------------------------- */

static Turn of_conversation(ToolMemory *m, int i, bool goes_on)
{
    char body[1024];
    snprintf(body, sizeof body,
             goes_on ? BODY("%d", "", SYSTEM "," ASK ANSWER) : BODY("%d", F, SYSTEM "," ASK), i);
    return applied(m, body);
}

static bool is_known(ToolMemory *m, int i)
{
    Turn t = of_conversation(m, i, true);
    bool known = t.n_tools == 1;
    turn_release(&t);
    return known;
}

static void begin_conversation(ToolMemory *m, int i)
{
    Turn t = of_conversation(m, i, false);
    turn_release(&t);
}

static void the_conversation_longest_unused_is_forgotten(void **state)
{
    (void)state;
    ToolMemory *m = make(3, 0);
    for (int i = 0; i < 3; i++)
        begin_conversation(m, i);
    assert_true(is_known(m, 0));
    begin_conversation(m, 3);
    assert_true(is_known(m, 0));
    assert_false(is_known(m, 1));
    assert_true(is_known(m, 2));
    assert_true(is_known(m, 3));
    begin_conversation(m, 0);
    begin_conversation(m, 4);
    assert_false(is_known(m, 2));
    tool_memory_free(m);
}

static void bytes_are_bounded_too(void **state)
{
    (void)state;
    ToolMemory *m = make(0, 500);
    int known = 0;
    for (int i = 0; i < 20; i++)
        begin_conversation(m, i);
    for (int i = 0; i < 20; i++)
        known += is_known(m, i);
    assert_true(known >= 1 && known <= 5);
    assert_true(is_known(m, 19));
    tool_memory_free(m);
    m = make(0, 50);
    begin_conversation(m, 1);
    assert_false(is_known(m, 1));
    tool_memory_free(m);
}

static void *many_conversations(void *memory)
{
    for (int i = 0; i < 200; i++) {
        begin_conversation(memory, i % 7);
        is_known(memory, (i + 3) % 7);
    }
    return NULL;
}

static void many_threads_share_it(void **state)
{
    (void)state;
    ToolMemory *m = make(5, 0);
    pthread_t thread[4];
    for (size_t i = 0; i < COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, many_conversations, m), 0);
    for (size_t i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    begin_conversation(m, 6);
    assert_true(is_known(m, 6));
    tool_memory_free(m);
}

/* ---- whole requests ----------------------------------------------------------------------- */

typedef struct {
    ToolMemory *tools;
    Recall *recall;
} Stage;

static Stage enter(void)
{
    ds4_err err;
    Stage s = { make(0, 0), recall_new(0, 0, &err) };
    assert_non_null(s.recall);
    return s;
}

static void leave(Stage *s)
{
    tool_memory_free(s->tools);
    recall_free(s->recall);
}

static void ignore(void *user, Job *j)
{
    (void)user;
    (void)j;
}

static Job *job_of(const Dialect *d, Str body)
{
    Job *j = job_new(d, dialect_api(d));
    assert_non_null(j);
    j->wake = ignore;
    bytes_put(&j->body, body.p, body.n);
    return j;
}

static void prepare_job(const Stage *s, Job *j)
{
    const Prepare p = {
        .info = &test_server, .vocab = vocab, .trie = trie, .recall = s->recall, .tools = s->tools
    };
    job_prepare(j, &p);
    if (j->error.status)
        fail_msg("%s", j->error.message);
}

static Job *prepared(const Stage *s, const char *body)
{
    Job *j = job_of(&dialect_chat, str_of(body));
    prepare_job(s, j);
    return j;
}

static bool may_follow(Job *j, int32_t id)
{
    ds4_err err;
    GrammarRun *r = grammar_start(j->grammar, &err);
    assert_non_null(r);
    const uint32_t *mask = grammar_mask(r);
    bool may = !mask || mask[id / 32] >> (id % 32) & 1;
    grammar_end(r);
    return may;
}

static void markup_of_barred_tools_is_masked(void **state)
{
    (void)state;
    Stage s = enter();
    int32_t dsml = vocab_controls(vocab)->dsml;
    Job *a = prepared(&s, BEGUN(F "," G)), *b = prepared(&s, GOES_ON("")),
        *c = prepared(&s, GOES_ON(G));
    assert_true(may_follow(a, dsml));
    assert_false(may_follow(b, dsml));
    assert_true(may_follow(b, vocab_controls(vocab)->eos));
    assert_true(may_follow(c, dsml));
    job_drop(a);
    job_drop(b);
    job_drop(c);
    leave(&s);
}

static void what_is_counted_is_taken_as_it_is(void **state)
{
    (void)state;
    Stage s = enter();
    Job *j = job_of(&dialect_chat, str_of(BEGUN(F)));
    j->count_only = true;
    prepare_job(&s, j);
    job_drop(j);
    j = prepared(&s, GOES_ON(""));
    assert_int_equal(j->turn.n_tools, 0);
    job_drop(j);
    job_drop(prepared(&s, BEGUN(F)));
    j = job_of(&dialect_chat, str_of(GOES_ON("")));
    j->count_only = true;
    prepare_job(&s, j);
    assert_int_equal(j->turn.n_tools, 0);
    job_drop(j);
    leave(&s);
}

/* Tokens of the message's text as no tokenizer would cut it. */
static void keep_answer(const Stage *s, const Job *j, const ChatMessage *m, Tokens *sampled)
{
    ds4_err err;
    static const char text[] = " thought </think>an answer, spelled oddly";
    for (size_t i = 0; text[i]; i++) {
        bool mark = strncmp(text + i, "</think>", 8) == 0;
        if (mark)
            tokens_put(sampled, vocab_controls(vocab)->think_end);
        else
            assert_true(bpe_encode(vocab, (Str){ text + i, 1 }, false, sampled, &err));
        i += mark ? 7 : 0;
    }
    assert_true(recall_keep(s->recall, &j->turn,
                            &(Sampled){ .ids = sampled->id,
                                        .n_ids = sampled->n,
                                        .reasoning = m->reasoning,
                                        .content = m->content,
                                        .calls = m->calls,
                                        .n_calls = m->n_calls }));
}

/* b's prompt: a's, then what was sampled, the end of the sentence, and more. */
static void goes_on_token_for_token(const Job *a, const Tokens *sampled, const Job *b)
{
    size_t n = a->prompt.n + sampled->n;
    assert_true(b->prompt.n > n + 1);
    assert_memory_equal(b->prompt.id, a->prompt.id, a->prompt.n * sizeof *a->prompt.id);
    assert_memory_equal(b->prompt.id + a->prompt.n, sampled->id, sampled->n * sizeof *sampled->id);
    assert_int_equal(b->prompt.id[n], vocab_controls(vocab)->eos);
}

/* They are known by the text up to them, of which the block is a part. */
static void answers_are_found_though_tools_are_missing(void **state)
{
    (void)state;
    Stage s = enter();
    Tokens sampled = { 0 };
    Job *a = prepared(&s, BEGUN(F "," G));
    keep_answer(&s, a, &(ChatMessage){ .content = STR("a") }, &sampled);
    Job *b = prepared(&s, GOES_ON("")), *c = prepared(&s, GOES_ON(G));
    assert_int_equal(b->recalled.by_text, 1);
    assert_int_equal(c->recalled.by_text, 1);
    goes_on_token_for_token(a, &sampled, b);
    goes_on_token_for_token(a, &sampled, c);
    job_drop(a);
    job_drop(b);
    job_drop(c);
    tokens_release(&sampled);
    leave(&s);
}

static Json *read_recorded(const char *name)
{
    char path[256];
    Bytes file = { 0 };
    snprintf(path, sizeof path, RECORDED "%s.json", name);
    assert_true(file_read(&file, path, 16 << 20, NULL));
    Json *o = json_read(bytes_view(&file), NULL);
    bytes_release(&file);
    assert_non_null(o);
    return o;
}

static Job *prepared_recorded(const Stage *s, const Json *request)
{
    const Json *list = json_member(request, "rawHeaders");
    Bytes body = { 0 };
    json_write(&body, json_member(request, "body"));
    Job *j = job_of(recorded_dialect(request), bytes_view(&body));
    bytes_release(&body);
    j->n_headers = json_length(list);
    j->headers = arena_array(&j->arena, j->n_headers, sizeof *j->headers);
    for (size_t i = 0; i < j->n_headers; i++) {
        Str name = json_text(json_at(json_at(list, i), 0));
        char *lower = arena_str(&j->arena, name);
        for (size_t k = 0; k < name.n; k++)
            lower[k] = (char)tolower((unsigned char)lower[k]);
        j->headers[i] = (JobHeader){ lower, json_text(json_at(json_at(list, i), 1)).p };
    }
    prepare_job(s, j);
    return j;
}

static const ChatMessage *last_answer(const Job *j)
{
    size_t i = j->turn.n_messages;
    while (i && j->turn.messages[i - 1].role != CHAT_ASSISTANT)
        i--;
    assert_true(i > 0);
    return &j->turn.messages[i - 1];
}

/* Codex leaves all tools out when it has a conversation summed up. */
static void a_recorded_compaction_goes_on_token_for_token(void **state)
{
    (void)state;
    static const char *const pairs[][2] = { { "codex-compaction/01", "codex-compaction/02" },
                                            { "codex-compaction/03", "codex-compaction/04" } };
    for (size_t i = 0; i < COUNT(pairs); i++) {
        Stage s = enter();
        Tokens sampled = { 0 };
        Json *first = read_recorded(pairs[i][0]), *second = read_recorded(pairs[i][1]);
        Job *a = prepared_recorded(&s, first),
            *unknown = prepared_recorded(&(Stage){ NULL, s.recall }, second);
        assert_int_equal(unknown->turn.n_tools, 0);
        assert_true(a->turn.n_tools > 0);
        keep_answer(&s, a, last_answer(unknown), &sampled);
        Job *b = prepared_recorded(&s, second);
        assert_int_equal(b->recalled.by_call, 1);
        assert_int_equal(b->turn.choice, CHOOSE_NONE);
        goes_on_token_for_token(a, &sampled, b);
        job_drop(a);
        job_drop(b);
        job_drop(unknown);
        json_free(first);
        json_free(second);
        tokens_release(&sampled);
        leave(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_tools_keep_their_places_and_are_barred),
        cmocka_unit_test(missing_tools_are_known_after_a_restart),
        cmocka_unit_test(a_record_that_is_none_is_harmless),
        cmocka_unit_test(where_no_tool_is_left_none_may_be_called),
        cmocka_unit_test(the_known_block_stays_while_tools_come_and_go),
        cmocka_unit_test(a_block_that_changed_is_what_counts_from_now_on),
        cmocka_unit_test(a_conversation_that_begins_gets_nothing_put_back),
        cmocka_unit_test(another_conversation_gets_nothing_put_back),
        cmocka_unit_test(another_agent_gets_nothing_put_back),
        cmocka_unit_test(a_system_message_is_put_in_front_where_there_was_none),
        cmocka_unit_test(a_tool_that_is_deferred_now_keeps_its_place_and_may_be_called),
        cmocka_unit_test(the_conversation_longest_unused_is_forgotten),
        cmocka_unit_test(bytes_are_bounded_too),
        cmocka_unit_test(many_threads_share_it),
        cmocka_unit_test(markup_of_barred_tools_is_masked),
        cmocka_unit_test(what_is_counted_is_taken_as_it_is),
        cmocka_unit_test(answers_are_found_though_tools_are_missing),
        cmocka_unit_test(a_recorded_compaction_goes_on_token_for_token),
    };
    ds4_err err = { 0 };
    vocab = vf_small_vocab(NULL);
    trie = vocab ? trie_new(vocab, &err) : NULL;
    int failed = trie ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    trie_free(trie);
    vocab_free(vocab);
    return failed;
}
