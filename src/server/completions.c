/* completions.c - OpenAI's older /v1/completions: a text is gone on with, with
 * no template around it and no thinking. */
#include "collect.h"
#include "request.h"
#include "wire.h"
#include <stdlib.h>
#include <time.h>

/* ---- body to Turn ----------------------------------------------------------------------- */

static bool take_ids(Request *r, const Json *list)
{
    size_t n = json_length(list);
    int32_t *ids = arena_array(&r->t->arena, n, sizeof *ids);
    if (!ids)
        return request_no_memory(r);
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        if (!json_whole(json_at(list, i), INT32_MAX, &id))
            return request_wrong(r, "prompt", "prompt[%zu] is no token id", i);
        ids[i] = (int32_t)id;
    }
    r->t->raw_ids = ids;
    r->t->n_raw_ids = n;
    return true;
}

/* A text, ids, or a list of one of them. */
static bool take_prompt(Request *r)
{
    const Json *prompt = json_member(r->body, "prompt");
    const Json *first = json_at(prompt, 0);
    uint64_t id;
    if (json_length(prompt) == 1 && (json_is_text(first) || json_is_array(first)))
        prompt = first;
    r->t->raw = true;
    if (json_is_text(prompt))
        return request_clean(r, json_text(prompt), &r->t->raw_text);
    if (json_length(prompt) > 0 && json_whole(json_at(prompt, 0), INT32_MAX, &id))
        return take_ids(r, prompt);
    if (json_length(prompt) > 1)
        return request_wrong(r, "prompt", "prompt holds %zu prompts: this server takes one",
                             json_length(prompt));
    return request_wrong(r, "prompt", "prompt is neither a string nor a list of token ids");
}

static bool take_logprobs(Request *r)
{
    int n = -1;
    if (!request_int(r, "logprobs", 0, 5, &n))
        return false;
    r->t->logprobs = n >= 0;
    r->t->top_logprobs = MAX(n, 0);
    return true;
}

/* The model's own form of a text with a gap is not known. */
static bool refuse_suffix(Request *r)
{
    Str suffix = { 0 };
    if (!request_text(r, "suffix", &suffix))
        return false;
    return !suffix.n || request_wrong(r, "suffix", "suffix: this model cannot fill in a gap");
}

/* Only the answer's tokens have logprobs: a list without the prompt's would be read as if
 * it had them. */
static bool take_echo(Request *r)
{
    const Turn *t = r->t;
    if (!request_bool(r, "echo", &r->t->echo))
        return false;
    if (t->echo && t->raw_ids)
        return request_wrong(r, "echo", "echo: only a prompt of text can be given back");
    return !t->echo || !t->logprobs ||
           request_wrong(r, "logprobs", "logprobs: a prompt that is given back has none");
}

static bool completions_parse(Turn *t, struct json_object *body, const Headers *h,
                              const ServerInfo *s, ApiError *e)
{
    enum { DEFAULT_TOKENS = 16 };
    Request r;
    t->think = CHAT_THINK_OFF;
    t->max_tokens = DEFAULT_TOKENS;
    if (!request_begin(&r, t, body, h, s, e))
        return false;
    return request_stream_options(&r) && take_prompt(&r) && refuse_suffix(&r) &&
           request_max_tokens(&r, "max_tokens") && request_one_answer(&r, "n") &&
           request_one_answer(&r, "best_of") && take_logprobs(&r) && take_echo(&r) &&
           request_sampling(&r) && request_stop(&r, "stop", 16) && request_logit_bias(&r) &&
           request_grammar(&r);
}

/* ---- answers ---------------------------------------------------------------------------- */

/* OpenAI's columns, one entry for each token. */
typedef struct {
    Bytes tokens, logprobs, top, offsets;
} Columns;

struct Answer {
    const Turn *t;
    char id[64];
    int64_t created;
    int offset; /* characters of the text so far */
    Columns columns;
    Collected got;
};

static void release_columns(Columns *c)
{
    bytes_release(&c->tokens);
    bytes_release(&c->logprobs);
    bytes_release(&c->top);
    bytes_release(&c->offsets);
}

static Answer *completions_new(const Turn *t, const ServerInfo *s)
{
    (void)s;
    Answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->t = t;
    a->created = (int64_t)time(NULL);
    a->offset = t->echo ? wire_count(t->raw_text) : 0;
    new_id(a->id, "cmpl-");
    return a;
}

static void completions_free(Answer *a)
{
    if (!a)
        return;
    collect_release(&a->got);
    release_columns(&a->columns);
    free(a);
}

static void put_logprob(float logprob, Bytes *out)
{
    wire_real(out, logprob < -9999 ? -9999 : (double)logprob, 6);
}

static void add_columns(Answer *a, const Event *e, Columns *c)
{
    size_t width = 1 + (size_t)a->t->top_logprobs;
    for (size_t i = 0; i < e->n_logprobs && e->logprobs; i++) {
        const TokenLogprob *row = e->logprobs + i * width;
        const char *comma = c->tokens.n ? "," : "";
        bytes_str(&c->tokens, comma);
        wire_str(&c->tokens, row->token);
        bytes_str(&c->logprobs, comma);
        put_logprob(row->logprob, &c->logprobs);
        bytes_printf(&c->offsets, "%s%d", comma, a->offset);
        a->offset += wire_count(row->token);
        bytes_printf(&c->top, "%s{", comma);
        for (size_t k = 1; k < width; k++) {
            bytes_str(&c->top, k > 1 ? "," : "");
            wire_str(&c->top, row[k].token);
            bytes_byte(&c->top, ':');
            put_logprob(row[k].logprob, &c->top);
        }
        bytes_byte(&c->top, '}');
    }
}

static void put_columns(const Columns *c, Bytes *out)
{
    const struct {
        const char *name;
        const Bytes *values;
    } columns[] = { { "tokens", &c->tokens },
                    { "token_logprobs", &c->logprobs },
                    { "top_logprobs", &c->top },
                    { "text_offset", &c->offsets } };
    for (size_t i = 0; i < COUNT(columns); i++) {
        bytes_printf(out, "%c\"%s\":[", i ? ',' : '{', columns[i].name);
        bytes_put(out, columns[i].values->p, columns[i].values->n);
        out->failed |= columns[i].values->failed;
        bytes_byte(out, ']');
    }
    bytes_byte(out, '}');
}

static void begin_object(const Answer *a, Bytes *out)
{
    bytes_printf(out,
                 "{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,\"model\":", a->id,
                 (long long)a->created);
    wire_str(out, a->t->model);
    bytes_str(out, ",\"choices\":[");
}

static void put_choice(const Str *texts, size_t n, const Columns *c, const Event *end, Bytes *out)
{
    bytes_str(out, "{\"index\":0,\"text\":\"");
    for (size_t i = 0; i < n; i++)
        wire_chars(out, texts[i]);
    bytes_str(out, "\",\"logprobs\":");
    if (c)
        put_columns(c, out);
    else
        bytes_str(out, "null");
    if (end) {
        bytes_printf(out, ",\"finish_reason\":\"%s\"", wire_finish(end->finish));
        wire_stop_reason(out, end);
    } else {
        bytes_str(out, ",\"finish_reason\":null");
    }
    bytes_byte(out, '}');
}

static void put_chunk(const Answer *a, Str text, const Columns *c, const Event *end, Bytes *out)
{
    bytes_str(out, "data: ");
    begin_object(a, out);
    put_choice(&text, 1, c, end, out);
    bytes_str(out, "]}\n\n");
}

static void completions_start(Answer *a, Bytes *out)
{
    put_chunk(a, a->t->echo ? a->t->raw_text : (Str){ 0 }, NULL, NULL, out);
}

static void completions_heartbeat(Answer *a, Bytes *out)
{
    put_chunk(a, (Str){ 0 }, NULL, NULL, out);
}

static void put_text(Answer *a, const Event *e, Bytes *out)
{
    Columns c = { 0 };
    if (!e->bytes.n)
        return;
    if (a->t->logprobs)
        add_columns(a, e, &c);
    put_chunk(a, e->bytes, a->t->logprobs ? &c : NULL, NULL, out);
    release_columns(&c);
}

static void put_finish(const Answer *a, const Event *e, Bytes *out)
{
    put_chunk(a, (Str){ 0 }, NULL, e, out);
    if (a->t->include_usage) {
        bytes_str(out, "data: ");
        begin_object(a, out);
        bytes_str(out, "],");
        wire_usage(out, &e->usage);
        bytes_byte(out, ',');
        wire_timings(out, &e->usage);
        bytes_str(out, "}\n\n");
    }
    bytes_str(out, "data: [DONE]\n\n");
}

static void completions_error(const ApiError *e, const char *request_id, Bytes *out)
{
    (void)request_id;
    wire_error(e, "prompt", out);
}

/* Where trying again helps nothing is said: the client does it when the
 * connection breaks, and takes what it is told for the end. */
static void put_error(const Event *e, Bytes *out)
{
    if (wire_retryable(e->error))
        return;
    bytes_str(out, "data: ");
    wire_error(e->error, "prompt", out);
    bytes_str(out, "\n\n");
}

/* A raw prompt has no tools and no thinking; its text is all there is. */
static void completions_event(Answer *a, const Event *e, Bytes *out)
{
    if (!out) {
        collect(&a->got, e);
        if (e->kind == EV_TEXT && a->t->logprobs)
            add_columns(a, e, &a->columns);
        return;
    }
    if (e->kind == EV_TEXT)
        put_text(a, e, out);
    else if (e->kind == EV_FINISH)
        put_finish(a, e, out);
    else if (e->kind == EV_ERROR)
        put_error(e, out);
}

static void completions_reply(Answer *a, Bytes *out)
{
    const Collected *got = &a->got;
    Str texts[] = { a->t->echo ? a->t->raw_text : (Str){ 0 }, bytes_view(&got->text) };
    out->failed |= got->failed;
    begin_object(a, out);
    put_choice(texts, COUNT(texts), a->t->logprobs ? &a->columns : NULL, &got->end, out);
    bytes_str(out, "],");
    wire_usage(out, &got->end.usage);
    bytes_byte(out, ',');
    wire_timings(out, &got->end.usage);
    bytes_byte(out, '}');
}

const Dialect dialect_completions = {
    .name = "completions",
    .parse = completions_parse,
    .answer_new = completions_new,
    .answer_free = completions_free,
    .start = completions_start,
    .event = completions_event,
    .heartbeat = completions_heartbeat,
    .reply = completions_reply,
    .error = completions_error,
    .status = wire_status,
};
