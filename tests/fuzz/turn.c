/* turn.c - any bytes as the body of a request. The first byte says for which API
 * and how strict the server is; the rest is read, rendered, tokenized and compiled
 * as a worker does it. What is refused is refused as a client's mistake, in its
 * API's form; what is accepted is a prompt that fits, the same when it is asked
 * again, and its answer is JSON. */
#include "../vocab_file.h"
#include "../../src/json/json.h"
#include "../../src/server/prepare.h"
#include "../../src/server/responses_store.h"
#include <json-c/json.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STRICT = 4, PREVIEW = 8, MOST_BODY = 64 << 10, CONTEXT = 100000 };

static const struct {
    const Dialect *dialect;
    enum Api api;
} apis[] = { { &dialect_chat, API_CHAT },
             { &dialect_completions, API_COMPLETIONS },
             { &dialect_messages, API_MESSAGES },
             { &dialect_responses, API_RESPONSES } };

static const char call[] =
    "{\"type\": \"function_call\", \"id\": \"fc_1\", \"call_id\": \"call_1\", "
    "\"name\": \"look\", \"arguments\": \"{\\\"at\\\": 1}\"}";

/* Made once: the target is called in a loop. */
static ds4_vocab *vocab;
static TokenTrie *trie;
static Recall *recall;
static ResponseStore *responses;

static void insist(bool holds)
{
    if (!holds)
        abort();
}

/* ---- what a server has before ------------------------------------------------- */

/* A response that can be gone on from, and whose items can be pointed to. */
static void keep_response(void)
{
    char output[256];
    snprintf(output, sizeof output, "[%s]", call);
    Json *in = json_read(STR("[{\"role\": \"user\", \"content\": \"hello\"}]"), NULL);
    Json *out = json_read(str_of(output), NULL);
    const KeptResponse r = {
        .id = STR("resp_1"), .input = in, .output = out, .reply = STR("{\"id\": \"resp_1\"}")
    };
    insist(in && out && responses_keep(responses, &r));
    json_free(in);
    json_free(out);
}

/* What was sampled after "hello" in a chat. */
static void keep_answer(const Prepare *p)
{
    static const int32_t ids[] = { 3 + 'a', 3 + 'b' };
    const ChatCall one = { STR("call_1"), STR("look"), STR("{\"at\": 1}") };
    const Sampled s = {
        .ids = ids, .n_ids = COUNT(ids), .content = STR("ab"), .calls = &one, .n_calls = 1
    };
    Job *j = job_new(&dialect_chat, API_CHAT);
    insist(j != NULL);
    bytes_str(&j->body, "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}");
    job_prepare(j, p);
    insist(j->error.status == 0 && recall_keep(recall, &j->turn, &s));
    job_drop(j);
}

static void set_up(const ServerInfo *info)
{
    insist((vocab = vf_small_vocab(NULL)) && (trie = trie_new(vocab, NULL)) &&
           (recall = recall_new(0, 0, NULL)) && (responses = responses_store_new(1 << 20)));
    keep_response();
    keep_answer(&(Prepare){ info, vocab, trie, recall, NULL, false });
}

/* ---- what comes out --------------------------------------------------------------- */

static void insist_on_json(Str text)
{
    Json *json = json_read(text, NULL);
    insist(json != NULL);
    json_free(json);
}

static void check_error(const Dialect *d, const ApiError *e)
{
    Bytes body = { 0 };
    insist(e->status >= 400 && e->status < 500 && e->message[0]);
    insist(d->status(e) >= 400);
    d->error(e, "req_0123456789abcdef01234567", &body);
    insist_on_json(bytes_view(&body));
    bytes_release(&body);
}

static void check_prompt(const Job *j)
{
    insist(j->prompt.n > 0 && j->prompt.n < CONTEXT);
    for (size_t i = 0; i < j->prompt.n; i++)
        insist(j->prompt.id[i] >= 0 && j->prompt.id[i] < vocab_size(vocab));
}

/* Lines of server-sent events, of which all data but the last may be JSON. */
static void check_stream(Str s)
{
    insist(s.n && s.p[s.n - 1] == '\n');
    while (s.n) {
        const char *end = memchr(s.p, '\n', s.n);
        Str line = { s.p, (size_t)(end - s.p) };
        bool data = line.n > 6 && memcmp(line.p, "data: ", 6) == 0;
        if (data && line.p[6] != '[')
            insist_on_json((Str){ line.p + 6, line.n - 6 });
        s = (Str){ end + 1, s.n - line.n - 1 };
    }
}

static void answer(const Job *j, const ServerInfo *info)
{
    const Dialect *d = j->dialect;
    const Turn *t = &j->turn;
    const Tool *tool = t->n_tools ? &t->tools[0] : NULL;
    const Str name = tool ? tool->name : STR("look"), piece = STR("{\"a\\\": \xc3\xa9");
    const Event events[] = {
        { .kind = EV_PROGRESS, .done = 1, .usage = { .prompt = 2 } },
        { .kind = EV_REASONING, .bytes = piece },
        { .kind = EV_REASONING, .handle = "handle" },
        { .kind = EV_TEXT, .bytes = piece },
        { .kind = EV_TOOL_BEGIN, .tool = tool, .name = name, .call_id = "call_2" },
        { .kind = EV_TOOL_ARGS, .tool = tool, .name = name, .call_id = "call_2", .bytes = piece },
        { .kind = EV_TOOL_END, .tool = tool, .name = name, .call_id = "call_2" },
        { .kind = EV_FINISH, .finish = FINISH_STOP, .handle = "handle" },
    };
    Bytes out = { 0 };
    Answer *a = d->answer_new(t, info);
    insist(a != NULL);
    if (t->stream)
        d->start(a, &out);
    for (size_t i = 0; i < COUNT(events); i++)
        d->event(a, &events[i], t->stream ? &out : NULL);
    if (t->stream) {
        check_stream(bytes_view(&out));
    } else {
        d->reply(a, &out);
        insist_on_json(bytes_view(&out));
    }
    bytes_release(&out);
    d->answer_free(a);
}

/* ---- one body ------------------------------------------------------------------ */

static Job *prepared(uint8_t kind, Str body, const Prepare *p)
{
    Job *j = job_new(apis[kind % COUNT(apis)].dialect, apis[kind % COUNT(apis)].api);
    insist(j != NULL);
    bytes_put(&j->body, body.p, body.n);
    job_prepare(j, p);
    if (j->error.status)
        check_error(j->dialect, &j->error);
    else
        check_prompt(j);
    return j;
}

/* The same again gives the same prompt, whatever is remembered of the first. */
static void ask_again(uint8_t kind, Str body, const Prepare *p, const Job *first)
{
    Job *j = prepared(kind, body, p);
    insist(j->error.status == first->error.status && j->prompt.n == first->prompt.n &&
           memcmp(j->prompt.id, first->prompt.id, j->prompt.n * sizeof *j->prompt.id) == 0);
    job_drop(j);
}

/* A client that leaves its tools out. */
static void ask_without_tools(uint8_t kind, Str body, const Prepare *p)
{
    Bytes rest = { 0 };
    Json *json = json_read(body, NULL);
    json_object_object_del(json, "tools");
    json_write(&rest, json);
    job_drop(prepared(kind, bytes_view(&rest), p));
    bytes_release(&rest);
    json_free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > MOST_BODY)
        return 0;
    bool strict = data[0] & STRICT;
    ServerInfo info = { .model = "deepseek-v4-flash",
                        .context = CONTEXT,
                        .max_output = CONTEXT,
                        .default_think = CHAT_THINK_HIGH,
                        .strict_model = strict,
                        .strict_media = strict,
                        .strict_anthropic = strict,
                        .client_sampling = strict,
                        .schema_in_prompt = strict };
    if (!vocab)
        set_up(&info);
    info.responses = responses;
    ToolMemory *tools = tool_memory_new(4, 1 << 20, NULL);
    const Prepare p = { &info, vocab, trie, recall, tools, data[0] & PREVIEW };
    const Str body = { (const char *)data + 1, size - 1 };
    Job *j = prepared(data[0], body, &p);
    insist(tools != NULL);
    if (!j->error.status) {
        answer(j, &info);
        ask_again(data[0], body, &p, j);
        if (j->turn.n_tools && j->turn.session.n)
            ask_without_tools(data[0], body, &p);
    }
    job_drop(j);
    tool_memory_free(tools);
    return 0;
}
