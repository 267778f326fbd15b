/* What real clients sent: every request makes sense as a Turn, and one that
 * goes on with a conversation has a prompt that goes on with the earlier one. */
#include "../requests.h"
#include "../vocab_file.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { MOST = 32, MOST_TOOLS = 256 }; /* requests of one run, tools of one request */

typedef struct {
    char path[512];
    Json *file, *body; /* body: as sent; the turn has its own */
    const Dialect *d;
    Turn t;
    Bytes prompt;
} Recorded;

static ds4_vocab *vocab;

static Json *read_json(const char *path)
{
    Bytes b = { 0 };
    ds4_err err;
    if (!file_read(&b, path, 16 << 20, &err))
        fail_msg("%s", err.msg);
    Json *o = json_read(bytes_view(&b), &err);
    if (!o)
        fail_msg("%s: %s", path, err.msg);
    bytes_release(&b);
    return o;
}

/* Messages, or items; NULL: neither is there. */
static const Json *list_of(const Json *body)
{
    const Json *messages = json_member(body, "messages");
    return messages ? messages : json_member(body, "input");
}

/* False: of another API. */
static bool load(Recorded *r)
{
    ApiError e = { 0 };
    ds4_err err;
    ChatPrompt p;
    r->file = read_json(r->path);
    r->d = recorded_dialect(r->file);
    r->body = json_member(r->file, "body");
    if (!r->d || !list_of(r->body)) {
        json_free(r->file);
        return false;
    }
    Headers h = { recorded_header, json_member(r->file, "rawHeaders") };
    turn_init(&r->t, dialect_api(r->d));
    Bytes text = { 0 };
    json_write(&text, r->body);
    if (!r->d->parse(&r->t, json_read(bytes_view(&text), NULL), &h, &test_server, &e))
        fail_msg("%s: %d %s", r->path, e.status, e.message);
    bytes_release(&text);
    ChatOptions opt = { .think = r->t.think, .escape_results = true };
    if (!chat_render(&p, vocab, r->t.messages, r->t.n_messages, &opt, &err))
        fail_msg("%s: %s", r->path, err.msg);
    assert_true(chat_text(&p, vocab, &r->prompt));
    chat_prompt_release(&p);
    return true;
}

static void unload(Recorded *r)
{
    turn_release(&r->t);
    bytes_release(&r->prompt);
    json_free(r->file);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Calls fn with the requests of each run, in order; returns how many there were. */
static size_t each_run(void (*fn)(Recorded *r, size_t n))
{
    struct dirent **folder;
    int n_folders = scandir(RECORDED, &folder, NULL, by_name);
    size_t total = 0;
    assert_true(n_folders > 0);
    for (int i = 0; i < n_folders; i++) {
        Recorded run[MOST];
        size_t n = 0;
        for (int k = 1; k < MOST && folder[i]->d_name[0] != '.'; k++) {
            Recorded r = { 0 };
            snprintf(r.path, sizeof r.path, RECORDED "%s/%02d.json", folder[i]->d_name, k);
            FILE *f = fopen(r.path, "r");
            if (f)
                fclose(f);
            if (f && load(&r))
                run[n++] = r;
        }
        fn(run, n);
        for (size_t k = 0; k < n; k++)
            unload(&run[k]);
        total += n;
        free(folder[i]);
    }
    free(folder);
    return total;
}

/* ---- each by itself -------------------------------------------------------------------- */

typedef struct {
    size_t calls, results, thoughts, images;
} Count;

static void count_type(const Json *o, Count *c)
{
    static const char *const calls[] = { "tool_use", "function_call", "custom_tool_call" };
    static const char *const results[] = { "tool_result", "function_call_output",
                                           "custom_tool_call_output" };
    const Json *type = json_member(o, "type");
    for (size_t i = 0; i < COUNT(calls); i++) {
        c->calls += json_is(type, calls[i]);
        c->results += json_is(type, results[i]);
    }
    c->thoughts += json_is(type, "thinking") || json_is(type, "reasoning");
}

static void count_blocks(const Json *content, Count *c)
{
    for (size_t i = 0; i < json_length(content); i++)
        count_type(json_at(content, i), c);
}

/* What the body holds, read without the dialect. */
static Count count_body(const Json *body)
{
    const Json *list = list_of(body);
    Count c = { 0 };
    for (size_t i = 0; i < json_length(list); i++) {
        const Json *m = json_at(list, i);
        count_type(m, &c);
        count_blocks(json_member(m, "content"), &c);
        c.calls += json_length(json_member(m, "tool_calls"));
        c.results += json_is(json_member(m, "role"), "tool");
        c.thoughts += json_text(json_member(m, "reasoning_content")).n > 0;
    }
    return c;
}

static bool holds(const Bytes *text, const char *what)
{
    return memmem(text->p, text->n, what, strlen(what)) != NULL;
}

static void check_messages(const Recorded *r)
{
    const Turn *t = &r->t;
    Count want = count_body(r->body), got = { 0 };
    for (size_t i = 0; i < t->n_messages; i++) {
        const ChatMessage *m = &t->messages[i];
        assert_true(i == 0 || m->role != CHAT_SYSTEM);
        assert_true(!m->unfinished || i + 1 == t->n_messages);
        got.calls += m->n_calls;
        got.results += m->role == CHAT_TOOL;
        got.thoughts += m->reasoning.n || t->handles[i].n;
        for (size_t k = 0; k < m->n_calls; k++)
            assert_true(m->calls[k].id.n && m->calls[k].name.n &&
                        json_valid(m->calls[k].arguments));
        assert_true(m->role != CHAT_TOOL || m->tool_call_id.n);
    }
    if (got.calls != want.calls || got.results != want.results || got.thoughts != want.thoughts)
        fail_msg("%s: %zu calls, %zu results, %zu thoughts, not %zu, %zu, %zu", r->path, got.calls,
                 got.results, got.thoughts, want.calls, want.results, want.thoughts);
}

/* Each tool that a body declares for the model, in order; those of a namespace
 * are tools, and what others run is none. */
static size_t declared(const Json *tools, const Json **out)
{
    size_t n = 0;
    for (size_t i = 0; i < json_length(tools); i++) {
        const Json *tool = json_at(tools, i), *inner = json_member(tool, "tools");
        for (size_t k = 0; k < json_length(inner); k++)
            out[n++] = json_at(inner, k);
        if (!inner && !json_is(json_member(tool, "type"), "web_search"))
            out[n++] = tool;
    }
    return n;
}

static void check_tools(const Recorded *r)
{
    const Json *tools[MOST_TOOLS];
    size_t shown = 0;
    assert_int_equal(r->t.n_tools, declared(json_member(r->body, "tools"), tools));
    for (size_t i = 0; i < r->t.n_tools; i++) {
        const Tool *tool = &r->t.tools[i];
        assert_true(tool->deferred == json_is_bool(json_member(tools[i], "defer_loading"), true));
        assert_true(tool->kind == TOOL_CUSTOM ? tool->grammar.n > 0
                                              : json_is_object(tool->parameters));
        assert_true(json_valid(tool->function));
        shown += !tool->deferred;
    }
    assert_int_equal(r->t.messages[0].n_tools, shown);
}

static void check_prompt(const Recorded *r)
{
    static const char *const never[] = { "x-anthropic-", "cache_control", "base64", "ephemeral" };
    for (size_t i = 0; i < COUNT(never); i++)
        if (holds(&r->prompt, never[i]))
            fail_msg("%s: the prompt says %s", r->path, never[i]);
}

/* Who sends a key has it taken. */
static void check_session(const Recorded *r)
{
    static const char *const headers[] = { "x-claude-code-session-id", "x-session-id", "session-id",
                                           "session_id" };
    void *list = json_member(r->file, "rawHeaders");
    const char *agent = recorded_header(list, "x-claude-code-agent-id");
    const char *thread = recorded_header(list, "thread-id");
    for (size_t i = 0; i < COUNT(headers); i++) {
        const char *session = recorded_header(list, headers[i]);
        assert_true(!session || str_eq(r->t.session, str_of(session)));
    }
    assert_true(str_eq(r->t.agent, str_of(agent ? agent : thread)));
}

static void check_run(Recorded *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_messages(&r[i]);
        check_tools(&r[i]);
        check_prompt(&r[i]);
        check_session(&r[i]);
        assert_true(r[i].t.stream == json_is_bool(json_member(r[i].body, "stream"), true));
        assert_true(str_eq(r[i].t.model, json_text(json_member(r[i].body, "model"))));
        assert_true(r[i].t.api == API_MESSAGES || !r[i].t.stream || r[i].t.include_usage ||
                    !json_member(r[i].body, "stream_options"));
    }
}

static void every_recorded_request_makes_sense(void **state)
{
    (void)state;
    assert_int_equal(each_run(check_run), 261);
}

/* ---- one after the other ------------------------------------------------------------------ */

static size_t pairs[N_APIS];

static bool same_text(const ChatMessage *a, const ChatMessage *b)
{
    bool same = a->role == b->role && str_eq(a->content, b->content) && a->n_tools == b->n_tools;
    for (size_t i = 0; same && i < a->n_tools; i++)
        same = str_eq(a->tools[i], b->tools[i]);
    return same;
}

static bool same_member(const Json *a, const Json *b, const char *key)
{
    return str_eq(json_text(json_member(a, key)), json_text(json_member(b, key)));
}

/* Clients leave messages out when they make a conversation shorter; and one that
 * goes on does so with what the assistant said. */
static bool more_of_the_same_roles(const Json *a, const Json *b)
{
    for (size_t i = 0; i < json_length(a); i++)
        if (!same_member(json_at(a, i), json_at(b, i), "role") ||
            !same_member(json_at(a, i), json_at(b, i), "type"))
            return false;
    return json_length(a) < json_length(b) &&
           !json_is(json_member(json_at(b, json_length(a)), "role"), "user");
}

/* A later request of the same conversation: it starts alike, and is longer. */
static bool goes_on(const Recorded *a, const Recorded *b)
{
    if (a->d != b->d || !str_eq(a->t.session, b->t.session) || !str_eq(a->t.agent, b->t.agent) ||
        !more_of_the_same_roles(list_of(a->body), list_of(b->body)))
        return false;
    return same_text(&a->t.messages[0], &b->t.messages[0]) &&
           same_text(&a->t.messages[1], &b->t.messages[1]);
}

static void check_prefix(const Recorded *a, const Recorded *b)
{
    size_t same = 0;
    while (same < a->prompt.n && same < b->prompt.n && a->prompt.p[same] == b->prompt.p[same])
        same++;
    if (same < a->prompt.n)
        fail_msg("%s and %s differ at byte %zu of %zu: \"%.60s\" and \"%.60s\"", a->path, b->path,
                 same, a->prompt.n, a->prompt.p + same, b->prompt.p + same);
    pairs[a->t.api]++;
}

static void check_pairs(Recorded *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (goes_on(&r[i], &r[k]))
                check_prefix(&r[i], &r[k]);
}

static void a_conversation_that_goes_on_keeps_its_prompt(void **state)
{
    (void)state;
    memset(pairs, 0, sizeof pairs);
    each_run(check_pairs);
    assert_int_equal(pairs[API_CHAT], 26);
    assert_int_equal(pairs[API_MESSAGES], 18);
    assert_int_equal(pairs[API_RESPONSES], 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recorded_request_makes_sense),
        cmocka_unit_test(a_conversation_that_goes_on_keeps_its_prompt),
    };
    vocab = vf_small_vocab(NULL);
    int failed = vocab ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    vocab_free(vocab);
    return failed;
}
