/* The renderer against the official encoder's prompts: the text always, the
 * token ids where V4's vocabulary has been fetched (tools/fetch_tokenizer). */
#include "../v4_vocab.h"
#include "../../src/text/chat.h"
#include "../../src/json/json.h"
#include "../../src/text/literals.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define DATA "tests/data/encoding/"

typedef struct json_object Json;

/* One case, as the renderer takes it. */
typedef struct {
    Json *root;
    ChatMessage m[32];
    size_t n;
    ChatOptions opt;
    Arena arena;
    bool refused; /* the file holds something that no option says */
} Case;

static ds4_vocab *small, *v4;

static Json *member(Json *o, const char *key)
{
    Json *found = NULL;
    json_object_object_get_ex(o, key, &found);
    return found;
}

static Str text_of(Json *o)
{
    return json_object_is_type(o, json_type_string) ? json_text(o) : (Str){ 0 };
}

static Str kept(Case *c, Bytes *b)
{
    Str s = { arena_str(&c->arena, bytes_view(b)), b->n };
    assert_non_null(s.p);
    bytes_release(b);
    return s;
}

static Str json_of(Case *c, Json *o)
{
    Bytes b = { 0 };
    json_write(&b, o);
    return kept(c, &b);
}

static void add_tools(Case *c, ChatMessage *m, Json *tools)
{
    Str *line = arena_array(&c->arena, json_length(tools), sizeof *line);
    for (size_t i = 0; i < json_length(tools); i++)
        line[i] = json_of(c, member(json_at(tools, i), "function"));
    m->tools = line;
    m->n_tools = json_length(tools);
}

/* The encoder refuses arguments that are JSON but no object; the renderer
 * keeps them as text. */
static void add_calls(Case *c, ChatMessage *m, Json *calls)
{
    ChatCall *call = arena_array(&c->arena, json_length(calls), sizeof *call);
    for (size_t i = 0; i < json_length(calls); i++) {
        Json *o = json_at(calls, i), *function = member(o, "function");
        Str arguments = text_of(member(function, "arguments"));
        Json *parsed = json_read(arguments, NULL);
        c->refused |= json_valid(arguments) && !json_is_object(parsed);
        json_free(parsed);
        call[i] =
            (ChatCall){ text_of(member(o, "id")), text_of(member(function, "name")), arguments };
    }
    m->calls = call;
    m->n_calls = json_length(calls);
}

/* A list's texts, with blank lines between them; of other parts their types. */
static Str result_of(Case *c, Json *content)
{
    Bytes b = { 0 };
    if (!json_is_array(content))
        return text_of(content);
    for (size_t i = 0; i < json_length(content); i++) {
        Json *part = json_at(content, i);
        Str type = text_of(member(part, "type")), text = text_of(member(part, "text"));
        bytes_str(&b, i ? "\n\n" : "");
        if (str_eq(type, STR("text")))
            bytes_put(&b, text.p, text.n);
        else
            bytes_printf(&b, "[Unsupported %.*s]", STR_ARG(type));
    }
    return kept(c, &b);
}

static void add_message(Case *c, Json *o)
{
    assert_true(c->n < COUNT(c->m));
    Json *task = member(o, "task"), *content = member(o, "content");
    ChatMessage m = { .role = chat_role(text_of(member(o, "role"))),
                      .content = result_of(c, content),
                      .reasoning = text_of(member(o, "reasoning_content")),
                      .task = task ? chat_task(text_of(task)) : CHAT_NO_TASK,
                      .unfinished = json_object_get_boolean(member(o, "wo_eos")),
                      .tool_call_id = text_of(member(o, "tool_call_id")) };
    if (m.role == CHAT_SYSTEM || m.role == CHAT_DEVELOPER) {
        add_tools(c, &m, member(o, "tools"));
        if (member(o, "response_format"))
            m.response_format = json_of(c, member(o, "response_format"));
    }
    if (m.role == CHAT_ASSISTANT)
        add_calls(c, &m, member(o, "tool_calls"));
    c->refused |= m.role < 0 || m.task < 0 || (m.role == CHAT_USER && !json_is_text(content));
    c->m[c->n++] = m;
}

static void add_messages(Case *c, Json *list)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        add_message(c, json_object_array_get_idx(list, i));
}

static void set_effort(Case *c, Json *effort)
{
    static const char *const names[] = { "", "low", "high", "max" };
    c->opt.think = c->opt.preview ? CHAT_THINK_HIGH : CHAT_THINK_LOW;
    if (!effort)
        return;
    c->opt.think = -1;
    for (int i = CHAT_THINK_LOW; i <= CHAT_THINK_MAX; i++)
        if (str_eq(text_of(effort), str_of(names[i])))
            c->opt.think = i;
}

static void read_case(Case *c, const char *path, bool preview)
{
    Bytes b = { 0 };
    *c = (Case){ .opt.preview = preview };
    if (!file_read(&b, path, 1 << 20, NULL))
        fail_msg("%s", path);
    c->root = json_read(bytes_view(&b), NULL);
    assert_non_null(c->root);
    bytes_release(&b);
    Json *params = member(c->root, "params"), *drop = member(params, "drop_thinking"),
         *bos = member(params, "add_default_bos_token");
    c->opt.keep_reasoning = drop && !json_object_get_boolean(drop);
    c->opt.no_bos = bos && !json_object_get_boolean(bos);
    if (str_eq(text_of(member(c->root, "thinking_mode")), STR("thinking")))
        set_effort(c, member(params, "reasoning_effort"));
    add_messages(c, member(params, "context"));
    c->opt.context = c->n;
    add_messages(c, member(c->root, "messages"));
}

static void release_case(Case *c)
{
    arena_release(&c->arena);
    json_object_put(c->root);
}

static bool in_release(Json *root, const char *name)
{
    Json *list = member(root, "releases");
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (str_eq(text_of(json_object_array_get_idx(list, i)), str_of(name)))
            return true;
    return false;
}

static bool ids_equal(const Tokens *t, Json *want)
{
    size_t n = json_object_array_length(want);
    bool same = t->n == n;
    for (size_t i = 0; i < n && same; i++)
        same = t->id[i] == json_object_get_int(json_object_array_get_idx(want, i));
    return same;
}

static bool spells_controls(Str name)
{
    static const char *const names[] = { "user_text_with_specials", "toolcall_arg_escapes",
                                         "tool_result_no_escaping" };
    for (size_t i = 0; i < COUNT(names); i++)
        if (str_eq(name, str_of(names[i])))
            return true;
    return false;
}

/* Both ways to ids: the prompt's runs, and the reference's own way, which finds
 * control tokens in the finished text. They differ where a message holds one. */
static void check_ids(const Case *c, const ChatPrompt *p, Str text)
{
    ds4_err err;
    Tokens runs = { 0 }, whole = { 0 };
    Json *want = member(c->root, "expected_ids");
    assert_true(chat_tokens(p, v4, &runs, &err));
    assert_true(bpe_encode(v4, text, true, &whole, &err));
    assert_true(ids_equal(&whole, want));
    assert_int_equal(ids_equal(&runs, want), !spells_controls(text_of(member(c->root, "name"))));
    tokens_release(&runs);
    tokens_release(&whole);
}

static void check_case(const Case *c, const char *file)
{
    const ds4_vocab *v = v4 ? v4 : small;
    ds4_err err = { 0 };
    ChatPrompt p;
    Json *want = member(c->root, "expected");
    if (c->refused) {
        assert_null(want);
        return;
    }
    if (!chat_render(&p, v, c->m, c->n, &c->opt, &err)) {
        if (want)
            fail_msg("%s: %s", file, err.msg);
        assert_int_equal(err.code, DS4_EINVAL);
        assert_int_equal(p.n, 0);
        return;
    }
    Bytes text = { 0 };
    assert_true(chat_text(&p, v, &text));
    if (!want || !str_eq(bytes_view(&text), text_of(want)))
        fail_msg("%s: rendered \"%.*s\"", file, (int)text.n, text.p);
    if (v4)
        check_ids(c, &p, bytes_view(&text));
    bytes_release(&text);
    chat_prompt_release(&p);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t list_cases(char *names[], size_t cap)
{
    DIR *d = opendir(DATA);
    size_t n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, "enc_", 4) == 0 && n < cap)
            names[n++] = strdup(e->d_name);
    closedir(d);
    qsort(names, n, sizeof *names, compare_names);
    return n;
}

static void prompts_are_the_official_encoders(void **state)
{
    (void)state;
    static const char *const releases[] = { "0731", "preview" };
    char *names[256];
    size_t n = list_cases(names, COUNT(names)), checked = 0;
    for (size_t i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, DATA "%s", names[i]);
        for (int preview = 0; preview < 2; preview++) {
            Case c;
            read_case(&c, path, preview);
            if (in_release(c.root, releases[preview])) {
                checked++;
                check_case(&c, names[i]);
            }
            release_case(&c);
        }
        free(names[i]);
    }
    print_message("%zu prompts compared (%s)\n", checked,
                  v4 ? "text and ids" : "text only: run tools/fetch_tokenizer for the ids");
    assert_true(checked > 120);
}

static void fixed_texts_are_the_published_ones(void **state)
{
    (void)state;
    const struct {
        const char *path;
        Str text;
    } files[] = {
        { DATA "effort_0731_high.txt", effort_absolute },
        { DATA "effort_preview_max.txt", effort_absolute },
        { DATA "effort_0731_max.txt", effort_beyond },
        { DATA "tools_block_prefix.txt", tools_prefix },
        { DATA "tools_block_suffix.txt", tools_suffix },
        { DATA "response_format_prefix.txt", response_format_prefix },
    };
    for (size_t i = 0; i < COUNT(files); i++) {
        Bytes b = { 0 };
        assert_true(file_read(&b, files[i].path, 4096, NULL));
        if (!str_eq(bytes_view(&b), files[i].text))
            fail_msg("%s differs", files[i].path);
        bytes_release(&b);
    }
}

int main(void)
{
    ds4_err err;
    small = vf_small_vocab(&err);
    if (!small) {
        print_error("%s\n", err.msg);
        return 1;
    }
    v4 = v4_vocab(NULL, &err);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_the_official_encoders),
        cmocka_unit_test(fixed_texts_are_the_published_ones),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(small);
    vocab_free(v4);
    return failed;
}
