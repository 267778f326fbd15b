/* responses_out.c - OpenAI's responses: events, and whole ones.
 *
 * An answer is a list of items that come one after the other, and are told of
 * when they begin, piece by piece, and in full when they are done; the whole
 * response comes at the end once more. The only beat of the heart that all
 * clients take is response.in_progress: some of them replace what they have by
 * what it says, so it says everything so far. */
#include "collect.h"
#include "responses_in.h"
#include "responses_item.h"
#include "responses_tools.h"
#include "wire.h"
#include "../json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct Answer {
    const Turn *t;
    char id[64];
    int64_t created;
    Telling told;
    bool searches, shells; /* tools with these names are the API's */
    Bytes echo;            /* members of the request that the response repeats */
    OutputItem *items;
    size_t n, cap;
    int sequence; /* of the next event */
    const char *status;
    Event end; /* its finish and usage, when it has come */
    bool failed;
};

static void put_echo(const Json *body, Bytes *out);

static Answer *responses_new(const Turn *t, const ServerInfo *s)
{
    (void)s;
    Answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->t = t;
    a->created = (int64_t)time(NULL);
    a->told = (Telling){ .summary = t->show_reasoning_summary,
                         .raw = json_is_bool(json_member(t->json, "include_raw_reasoning"), true),
                         .encrypted = t->include_encrypted };
    a->searches = responses_declares(t->json, TOOL_SEARCH);
    a->shells = responses_declares(t->json, LOCAL_SHELL);
    a->status = "in_progress";
    new_id(a->id, "resp_");
    put_echo(t->json, &a->echo);
    return a;
}

static void responses_free(Answer *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n; i++)
        item_release(&a->items[i]);
    free(a->items);
    bytes_release(&a->echo);
    free(a);
}

const char *responses_id(const Answer *a) { return a->id; }

/* ---- the response object ------------------------------------------------------------- */

/* SDKs' types want most of these, whatever was asked for. */
static void put_echo(const Json *body, Bytes *out)
{
    static const struct {
        const char *member, *otherwise;
    } members[] = {
        { "background", "false" },
        { "instructions", "null" },
        { "max_output_tokens", "null" },
        { "max_tool_calls", "null" },
        { "metadata", "{}" },
        { "parallel_tool_calls", "true" },
        { "previous_response_id", "null" },
        { "prompt_cache_key", "null" },
        { "reasoning", "{\"effort\":null,\"summary\":null}" },
        { "safety_identifier", "null" },
        { "store", "true" },
        { "temperature", "null" },
        { "text", "{\"format\":{\"type\":\"text\"}}" },
        { "tool_choice", "\"auto\"" },
        { "tools", "[]" },
        { "top_logprobs", "0" },
        { "top_p", "null" },
        { "truncation", "\"disabled\"" },
        { "user", "null" },
    };
    for (size_t i = 0; i < COUNT(members); i++) {
        const Json *m = json_member(body, members[i].member);
        bytes_printf(out, ",\"%s\":", members[i].member);
        if (m)
            json_write(out, m);
        else
            bytes_str(out, members[i].otherwise);
    }
}

static void put_usage(const Usage *u, Bytes *out)
{
    bytes_printf(out,
                 "{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d},"
                 "\"output_tokens\":%d,\"output_tokens_details\":{\"reasoning_tokens\":%d},"
                 "\"total_tokens\":%d}",
                 u->prompt, u->cached, u->completion, u->reasoning, u->prompt + u->completion);
}

static bool is_over(const Answer *a)
{
    return strcmp(a->status, "in_progress") != 0 && strcmp(a->status, "queued") != 0;
}

/* A call that was cut off is none: nobody should run half of a command. Before
 * the end it still has its place in the list. */
static void put_items(const Answer *a, const Telling *told, Bytes *out)
{
    const char *comma = "";
    bytes_byte(out, '[');
    for (size_t i = 0; i < a->n; i++) {
        const OutputItem *it = &a->items[i];
        if (is_over(a) && item_is_call(it) && it->state != ITEM_DONE)
            continue;
        bytes_str(out, comma);
        item_write(it, told, out);
        comma = ",";
    }
    bytes_byte(out, ']');
}

/* Codex tries again after a server_error, and makes its conversation shorter
 * when that is what is wrong with it. */
static const char *error_code(const ApiError *e)
{
    if (wire_too_long(e))
        return "context_length_exceeded";
    if (e->code && strcmp(e->code, "canceled") == 0)
        return "canceled";
    return e->status >= 500 ? "server_error" : "invalid_prompt";
}

/* Pi knows the sentence, not the code. */
static void put_error(const ApiError *e, Bytes *out)
{
    if (!e) {
        bytes_str(out, "null");
        return;
    }
    bytes_printf(out, "{\"code\":\"%s\",\"message\":", error_code(e));
    wire_message(e, out);
    bytes_byte(out, '}');
}

static void put_response(const Answer *a, const ApiError *e, Bytes *out)
{
    bool incomplete = strcmp(a->status, "incomplete") == 0;
    out->failed |= a->failed || a->echo.failed;
    bytes_printf(out,
                 "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\","
                 "\"error\":",
                 a->id, (long long)a->created, a->status);
    put_error(e, out);
    bytes_printf(out, ",\"incomplete_details\":%s,\"model\":",
                 incomplete ? "{\"reason\":\"max_output_tokens\"}" : "null");
    wire_str(out, a->t->model);
    bytes_str(out, ",\"output\":");
    put_items(a, &a->told, out);
    bytes_put(out, a->echo.p, a->echo.n);
    bytes_str(out, ",\"usage\":");
    if (a->end.usage.prompt)
        put_usage(&a->end.usage, out);
    else
        bytes_str(out, "null");
    wire_stop_reason(out, &a->end);
    bytes_byte(out, '}');
}

/* ---- events --------------------------------------------------------------------------- */

/* event: response.NAME, with its type and number; members follow, then end_event. */
static void begin_event(Answer *a, const char *name, const char *what, Bytes *out)
{
    bytes_printf(out,
                 "event: response.%s%s\ndata: {\"type\":\"response.%s%s\",\"sequence_number\":%d",
                 name, what, name, what, a->sequence++);
}

static void end_event(Bytes *out) { bytes_str(out, "}\n\n"); }

/* Tells of the response as a whole. */
static void put_state(Answer *a, const char *name, const ApiError *e, Bytes *out)
{
    begin_event(a, name, "", out);
    bytes_str(out, ",\"response\":");
    put_response(a, e, out);
    end_event(out);
}

/* Also while it waits in the queue: nothing else keeps every client patient. */
static void responses_heartbeat(Answer *a, Bytes *out)
{
    a->status = "in_progress";
    put_state(a, "in_progress", NULL, out);
}

static void responses_start(Answer *a, Bytes *out)
{
    a->status = a->t->waits ? "queued" : "in_progress";
    put_state(a, "created", NULL, out);
    put_state(a, a->status, NULL, out);
}

static int index_of(const Answer *a, const OutputItem *it) { return (int)(it - a->items); }

static void put_item(Answer *a, const OutputItem *it, const char *what, Bytes *out)
{
    begin_event(a, "output_item", what, out);
    bytes_printf(out, ",\"output_index\":%d,\"item\":", index_of(a, it));
    item_write(it, &a->told, out);
    end_event(out);
}

/* How the text of an item comes piece by piece. */
typedef struct {
    const char *text;                     /* the event of a piece */
    const char *member;                   /* of the whole text, in the event at its end */
    const char *part, *part_type, *index; /* the text is in a part; or NULL */
} Channel;

static const Channel as_text = { "output_text", "text", "content_part", "output_text",
                                 "content_index" };
static const Channel as_summary = { "reasoning_summary_text", "text", "reasoning_summary_part",
                                    "summary_text", "summary_index" };
static const Channel as_reasoning = { "reasoning_text", "text", "content_part", "reasoning_text",
                                      "content_index" };
static const Channel as_arguments = { "function_call_arguments", "arguments", NULL, NULL, NULL };
static const Channel as_input = { "custom_tool_call_input", "input", NULL, NULL, NULL };

/* NULL: it is told as a whole only, or not at all. */
static const Channel *channel_of(const Answer *a, const OutputItem *it)
{
    switch (it->kind) {
    case ITEM_REASONING: return a->told.raw ? &as_reasoning : a->told.summary ? &as_summary : NULL;
    case ITEM_MESSAGE: return &as_text;
    case ITEM_FUNCTION_CALL: return &as_arguments;
    case ITEM_CUSTOM_CALL: return &as_input;
    case ITEM_SEARCH_CALL:
    case ITEM_SHELL_CALL: break;
    }
    return NULL;
}

static void begin_text(Answer *a, const OutputItem *it, const Channel *c, const char *name,
                       const char *what, Bytes *out)
{
    begin_event(a, name, what, out);
    bytes_printf(out, ",\"item_id\":\"%s\",\"output_index\":%d", it->id, index_of(a, it));
    if (c->index)
        bytes_printf(out, ",\"%s\":0", c->index);
}

static void end_text(const OutputItem *it, Bytes *out)
{
    if (it->kind == ITEM_MESSAGE)
        bytes_str(out, ",\"logprobs\":[]");
    end_event(out);
}

static void put_part(Answer *a, const OutputItem *it, const Channel *c, const char *what,
                     Bytes *out)
{
    begin_text(a, it, c, c->part, what, out);
    bytes_str(out, ",\"part\":");
    item_write_part(c->part_type, bytes_view(&it->text), out);
    end_event(out);
}

static void put_whole_text(Answer *a, const OutputItem *it, const Channel *c, Bytes *out)
{
    begin_text(a, it, c, c->text, ".done", out);
    if (it->kind == ITEM_FUNCTION_CALL) {
        bytes_str(out, ",\"name\":");
        wire_str(out, bytes_view(&it->name));
    }
    bytes_printf(out, ",\"%s\":", c->member);
    wire_str(out, bytes_view(&it->text));
    end_text(it, out);
    if (c->part)
        put_part(a, it, c, ".done", out);
}

/* ---- items ------------------------------------------------------------------------------ */

static OutputItem *open_item(const Answer *a)
{
    OutputItem *last = a->n ? &a->items[a->n - 1] : NULL;
    return last && last->state == ITEM_OPEN ? last : NULL;
}

static void add_piece(Answer *a, OutputItem *it, Str s, Bytes *out)
{
    const Channel *c = channel_of(a, it);
    if (!s.n)
        return;
    if (!it->part && c && c->part)
        put_part(a, it, c, ".added", out);
    it->part = true;
    bytes_put(&it->text, s.p, s.n);
    if (!c)
        return;
    begin_text(a, it, c, c->text, ".delta", out);
    bytes_str(out, ",\"delta\":");
    wire_str(out, s);
    end_text(it, out);
}

static void close_item(Answer *a, enum ItemState state, Bytes *out)
{
    OutputItem *it = open_item(a);
    const Channel *c = it ? channel_of(a, it) : NULL;
    if (!it)
        return;
    if (it->kind == ITEM_FUNCTION_CALL && !it->text.n && state == ITEM_DONE)
        add_piece(a, it, STR("{}"), out);
    it->state = state;
    if (item_is_call(it) && state != ITEM_DONE)
        return;
    if (c && (it->part || !c->part))
        put_whole_text(a, it, c, out);
    put_item(a, it, ".done", out);
}

/* A call is done when its end was told, and only then. */
static void close_before(Answer *a, Bytes *out)
{
    const OutputItem *it = open_item(a);
    close_item(a, it && item_is_call(it) ? ITEM_CUT : ITEM_DONE, out);
}

static OutputItem *new_item(Answer *a, enum ItemKind kind)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 4;
        OutputItem *more = realloc(a->items, cap * sizeof *more);
        if (!more) {
            a->failed = true;
            return NULL;
        }
        a->items = more;
        a->cap = cap;
    }
    OutputItem *it = &a->items[a->n++];
    *it = (OutputItem){ .kind = kind };
    new_id(it->id, item_prefix(kind));
    return it;
}

/* The open item if it is of the kind, else a new one; NULL: no memory. */
static OutputItem *item_of(Answer *a, enum ItemKind kind, Bytes *out)
{
    OutputItem *it = open_item(a);
    if (it && it->kind == kind)
        return it;
    close_before(a, out);
    it = new_item(a, kind);
    if (it)
        put_item(a, it, ".added", out);
    return it;
}

/* ---- what is said -------------------------------------------------------------------------- */

static void keep_handle(OutputItem *it, const char *handle)
{
    if (!handle)
        return;
    bytes_clear(&it->handle);
    bytes_str(&it->handle, handle);
}

static void put_thought(Answer *a, const Event *e, Bytes *out)
{
    OutputItem *it = e->bytes.n || e->handle ? item_of(a, ITEM_REASONING, out) : NULL;
    if (!it)
        return;
    add_piece(a, it, e->bytes, out);
    keep_handle(it, e->handle);
}

static void put_text(Answer *a, const Event *e, Bytes *out)
{
    OutputItem *it = e->bytes.n ? item_of(a, ITEM_MESSAGE, out) : NULL;
    if (it)
        add_piece(a, it, e->bytes, out);
}

static enum ItemKind kind_of(const Answer *a, const Tool *tool)
{
    if (!tool)
        return ITEM_FUNCTION_CALL;
    if (tool->kind == TOOL_CUSTOM)
        return ITEM_CUSTOM_CALL;
    if (a->searches && str_eq(tool->name, STR(TOOL_SEARCH)))
        return ITEM_SEARCH_CALL;
    if (a->shells && str_eq(tool->name, STR(LOCAL_SHELL)))
        return ITEM_SHELL_CALL;
    return ITEM_FUNCTION_CALL;
}

static void put_call(Answer *a, const Event *e, Bytes *out)
{
    close_before(a, out);
    OutputItem *it = new_item(a, kind_of(a, e->tool));
    if (!it)
        return;
    Str name = collect_name(e);
    it->tool = e->tool;
    snprintf(it->call_id, sizeof it->call_id, "%s", e->call_id ? e->call_id : "");
    bytes_put(&it->name, name.p, name.n);
    put_item(a, it, ".added", out);
}

static void put_arguments(Answer *a, const Event *e, Bytes *out)
{
    OutputItem *it = open_item(a);
    if (it && item_is_call(it))
        add_piece(a, it, e->bytes, out);
}

static void put_finish(Answer *a, const Event *e, Bytes *out)
{
    bool cut = e->finish == FINISH_LENGTH || e->finish == FINISH_CONTEXT;
    OutputItem *it = open_item(a);
    if (it && it->kind == ITEM_REASONING && !it->handle.n)
        keep_handle(it, e->handle);
    if (cut)
        close_item(a, ITEM_CUT, out);
    else
        close_before(a, out);
    a->status = cut ? "incomplete" : "completed";
    a->end = (Event){ .kind = EV_FINISH, .finish = e->finish, .usage = e->usage };
    put_state(a, a->status, NULL, out);
}

/* Where trying again helps nothing is said, and the connection reset: that is
 * what makes every client try again. */
static void put_failure(Answer *a, const Event *e, Bytes *out)
{
    OutputItem *it = open_item(a);
    if (wire_retryable(e->error))
        return;
    if (it)
        it->state = ITEM_CUT;
    a->status = "failed";
    a->end.usage = e->usage;
    put_state(a, a->status, e->error, out);
}

/* For a whole answer the same is done, into a buffer that takes nothing. */
static void responses_event(Answer *a, const Event *e, Bytes *out)
{
    Bytes nowhere = { .failed = true };
    if (!out)
        out = &nowhere;
    if (strcmp(a->status, "queued") == 0)
        responses_heartbeat(a, out);
    switch (e->kind) {
    case EV_REASONING: put_thought(a, e, out); break;
    case EV_TEXT: put_text(a, e, out); break;
    case EV_TOOL_BEGIN: put_call(a, e, out); break;
    case EV_TOOL_ARGS: put_arguments(a, e, out); break;
    case EV_TOOL_END: close_item(a, ITEM_DONE, out); break;
    case EV_PROGRESS: break;
    case EV_FINISH: put_finish(a, e, out); break;
    case EV_ERROR: put_failure(a, e, out); break;
    }
}

static void responses_reply(Answer *a, Bytes *out) { put_response(a, NULL, out); }

static void responses_error(const ApiError *e, const char *request_id, Bytes *out)
{
    (void)request_id;
    wire_error(e, "input", out);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

/* What is kept of the answer is all of it: who points to it or goes on from it
 * need not have been told of its reasoning. */
void responses_done(Answer *a, ResponseStore *s)
{
    static const Telling all = { .raw = true, .encrypted = true };
    Bytes output = { 0 }, reply = { 0 };
    if (!a->t->store || a->end.kind != EV_FINISH)
        return;
    put_items(a, &all, &output);
    put_response(a, NULL, &reply);
    Json *list = output.failed || reply.failed ? NULL : json_read(bytes_view(&output), NULL);
    if (list)
        responses_keep(s, &(KeptResponse){ .id = str_of(a->id),
                                           .previous = json_text(
                                               json_member(a->t->json, "previous_response_id")),
                                           .input = json_member(a->t->json, "input"),
                                           .output = list,
                                           .reply = bytes_view(&reply) });
    json_free(list);
    bytes_release(&output);
    bytes_release(&reply);
}

const Dialect dialect_responses = {
    .name = "responses",
    .parse = responses_parse,
    .answer_new = responses_new,
    .answer_free = responses_free,
    .start = responses_start,
    .event = responses_event,
    .heartbeat = responses_heartbeat,
    .reply = responses_reply,
    .error = responses_error,
    .status = wire_status,
};
