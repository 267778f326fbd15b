/* messages_out.c - Anthropic's messages: events, and whole ones.
 *
 * Blocks come one after the other: thinking, text, calls. A thought ends with
 * its signature, which clients give back as it was: it is the handle of the
 * state. Usage is told at the end only, when it is known. */
#include "messages_in.h"
#include "collect.h"
#include "wire.h"
#include "../json/json.h"
#include <stdlib.h>

enum Block { NO_BLOCK, THINKING, TEXT, TOOL_USE };

struct Answer {
    const Turn *t;
    const ServerInfo *info;
    char id[64];
    enum Block open;
    int index;    /* of the open block, or of the next one */
    bool spoke;   /* a text or a call was begun */
    bool argued;  /* the open call has arguments */
    Bytes handle; /* of the open thought */
    Collected got;
};

static Answer *messages_new(const Turn *t, const ServerInfo *s)
{
    Answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->t = t;
    a->info = s;
    new_id(a->id, "msg_");
    return a;
}

static void messages_free(Answer *a)
{
    if (!a)
        return;
    collect_release(&a->got);
    bytes_release(&a->handle);
    free(a);
}

/* ---- pieces of both forms ------------------------------------------------------------- */

/* What was read anew is what can be reused the next time. */
static void put_usage(const Answer *a, const Usage *u, Bytes *out)
{
    int fresh = u->prompt - u->cached, plain = a->info->usage_plain ? fresh : 0;
    bytes_printf(out,
                 "\"usage\":{\"input_tokens\":%d,\"cache_creation_input_tokens\":%d,"
                 "\"cache_read_input_tokens\":%d,\"output_tokens\":%d,"
                 "\"output_tokens_details\":{\"thinking_tokens\":%d}}",
                 plain, fresh - plain, u->cached, u->completion, u->reasoning);
}

static const char *stop_reason(const Answer *a, const Event *e)
{
    switch (e->finish) {
    case FINISH_LENGTH: return "max_tokens";
    case FINISH_CONTEXT: return a->t->context_stop ? "model_context_window_exceeded" : "max_tokens";
    case FINISH_TOOL_CALLS: return "tool_use";
    case FINISH_STOP_SEQUENCE: return "stop_sequence";
    case FINISH_STOP:
    case FINISH_LOOP: break;
    }
    return "end_turn";
}

static void put_stop(const Answer *a, const Event *e, Bytes *out)
{
    bytes_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", stop_reason(a, e));
    if (e->finish == FINISH_STOP_SEQUENCE)
        wire_str(out, e->stop_sequence);
    else
        bytes_str(out, "null");
    if (e->finish == FINISH_LOOP)
        bytes_str(out, ",\"stop_details\":{\"type\":\"repetition\"}");
}

/* Nothing of what it asks for is done here, and this says so. */
static void put_management(const Answer *a, Bytes *out)
{
    if (json_member(a->t->json, "context_management"))
        bytes_str(out, ",\"context_management\":{\"applied_edits\":[]}");
}

/* Clients drop a thought without a signature, or take it for text. */
static void put_signature(Str handle, Bytes *out)
{
    char random[64];
    wire_str(out, handle.n ? handle : str_of(new_id(random, "sig_")));
}

static const char *error_type(const ApiError *e)
{
    switch (e->status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503:
    case 529: return "overloaded_error";
    default: return e->status >= 500 ? "api_error" : "invalid_request_error";
    }
}

static void put_error(const ApiError *e, const char *type, const char *request_id, Bytes *out)
{
    bytes_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
    /* Claude Code knows this sentence, and makes its conversation shorter. */
    if (wire_too_long(e))
        bytes_printf(out, "\"prompt is too long: %d tokens > %d maximum\"", e->n_prompt,
                     e->n_context);
    else
        wire_str(out, str_of(e->message));
    bytes_str(out, "},\"request_id\":");
    wire_str(out, str_of(request_id));
    bytes_byte(out, '}');
}

/* A full queue is no limit of the client's rate. */
static int messages_status(const ApiError *e)
{
    bool full = e->status == 429 && e->code && strcmp(e->code, "queue_full") == 0;
    return full ? 529 : e->status;
}

static void messages_error(const ApiError *e, const char *request_id, Bytes *out)
{
    ApiError as_told = { .status = messages_status(e) };
    put_error(e, error_type(&as_told), request_id, out);
}

/* ---- events ----------------------------------------------------------------------------- */

/* "event: TYPE\ndata: {"type":"TYPE"": members follow, then end_event. */
static void begin_event(const char *type, Bytes *out)
{
    bytes_printf(out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void end_event(Bytes *out) { bytes_str(out, "}\n\n"); }

static void messages_heartbeat(Answer *a, Bytes *out)
{
    (void)a;
    begin_event("ping", out);
    end_event(out);
}

static void messages_start(Answer *a, Bytes *out)
{
    Usage none = { 0 };
    begin_event("message_start", out);
    bytes_printf(out,
                 ",\"message\":{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\","
                 "\"model\":",
                 a->id);
    wire_str(out, a->t->model);
    bytes_str(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,");
    put_usage(a, &none, out);
    bytes_byte(out, '}');
    end_event(out);
    messages_heartbeat(a, out);
}

static void begin_delta(const Answer *a, const char *type, const char *member, Bytes *out)
{
    begin_event("content_block_delta", out);
    bytes_printf(out, ",\"index\":%d,\"delta\":{\"type\":\"%s\",\"%s\":", a->index, type, member);
}

static void end_delta(Bytes *out)
{
    bytes_byte(out, '}');
    end_event(out);
}

static void put_delta(const Answer *a, const char *type, const char *member, Str s, Bytes *out)
{
    begin_delta(a, type, member, out);
    wire_str(out, s);
    end_delta(out);
}

static void close_block(Answer *a, Bytes *out)
{
    if (a->open == NO_BLOCK)
        return;
    if (a->open == THINKING) {
        out->failed |= a->handle.failed;
        begin_delta(a, "signature_delta", "signature", out);
        put_signature(bytes_view(&a->handle), out);
        end_delta(out);
    }
    if (a->open == TOOL_USE && !a->argued)
        put_delta(a, "input_json_delta", "partial_json", STR("{}"), out);
    begin_event("content_block_stop", out);
    bytes_printf(out, ",\"index\":%d", a->index++);
    end_event(out);
    a->open = NO_BLOCK;
}

/* Begins a block unless one of the kind is open; the caller writes what is in it. */
static bool open_block(Answer *a, enum Block kind, Bytes *out)
{
    if (a->open == kind && kind != TOOL_USE)
        return false;
    close_block(a, out);
    a->open = kind;
    a->spoke |= kind != THINKING;
    begin_event("content_block_start", out);
    bytes_printf(out, ",\"index\":%d,\"content_block\":", a->index);
    return true;
}

static void put_thought(Answer *a, const Event *e, Bytes *out)
{
    if (!e->bytes.n && !e->handle)
        return;
    if (open_block(a, THINKING, out)) {
        bytes_str(out, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
        end_event(out);
    }
    if (e->bytes.n && !a->t->think_hidden)
        put_delta(a, "thinking_delta", "thinking", e->bytes, out);
    if (e->handle) {
        bytes_clear(&a->handle);
        bytes_str(&a->handle, e->handle);
    }
}

static void put_text(Answer *a, Str text, Bytes *out)
{
    if (open_block(a, TEXT, out)) {
        bytes_str(out, "{\"type\":\"text\",\"text\":\"\"}");
        end_event(out);
    }
    if (text.n)
        put_delta(a, "text_delta", "text", text, out);
}

static void put_call(Answer *a, const Event *e, Bytes *out)
{
    open_block(a, TOOL_USE, out);
    a->argued = false;
    bytes_str(out, "{\"type\":\"tool_use\",\"id\":");
    wire_str(out, str_of(e->call_id));
    bytes_str(out, ",\"name\":");
    wire_str(out, collect_name(e));
    bytes_str(out, ",\"input\":{}}");
    end_event(out);
}

static void put_arguments(Answer *a, const Event *e, Bytes *out)
{
    if (!e->bytes.n || a->open != TOOL_USE)
        return;
    a->argued = true;
    put_delta(a, "input_json_delta", "partial_json", e->bytes, out);
}

static void put_finish(Answer *a, const Event *e, Bytes *out)
{
    if (e->handle && a->open == THINKING && !a->handle.n)
        bytes_str(&a->handle, e->handle);
    /* Clients want something to show, if only an empty text. */
    if (!a->spoke)
        put_text(a, (Str){ 0 }, out);
    close_block(a, out);
    begin_event("message_delta", out);
    bytes_str(out, ",\"delta\":{");
    put_stop(a, e, out);
    bytes_str(out, "},");
    put_usage(a, &e->usage, out);
    put_management(a, out);
    end_event(out);
    begin_event("message_stop", out);
    end_event(out);
}

/* Once something was shown Claude takes any error for the end of it: where
 * trying again helps nothing is said, and the connection reset. */
static void put_failure(const Answer *a, const ApiError *e, Bytes *out)
{
    bool again = wire_retryable(e), shown = a->index > 0 || a->open != NO_BLOCK;
    if (again && shown)
        return;
    bytes_str(out, "event: error\ndata: ");
    put_error(e, again ? "overloaded_error" : error_type(e), a->t->request_id, out);
    bytes_str(out, "\n\n");
}

static void messages_event(Answer *a, const Event *e, Bytes *out)
{
    if (!out) {
        collect(&a->got, e);
        return;
    }
    switch (e->kind) {
    case EV_REASONING: put_thought(a, e, out); break;
    case EV_TEXT:
        if (e->bytes.n)
            put_text(a, e->bytes, out);
        break;
    case EV_TOOL_BEGIN: put_call(a, e, out); break;
    case EV_TOOL_ARGS: put_arguments(a, e, out); break;
    case EV_TOOL_END: close_block(a, out); break;
    case EV_PROGRESS: break;
    case EV_FINISH: put_finish(a, e, out); break;
    case EV_ERROR: put_failure(a, e->error, out); break;
    }
}

/* ---- whole -------------------------------------------------------------------------------- */

/* Arguments are JSON, but of an answer that was cut off. */
static void put_input(Str arguments, Bytes *out)
{
    ds4_err err = { 0 };
    Json *o = arguments.n ? json_read(arguments, &err) : NULL;
    out->failed |= err.code == DS4_ENOMEM;
    if (json_is_object(o))
        bytes_put(out, arguments.p, arguments.n);
    else
        bytes_str(out, "{}");
    json_free(o);
}

static void put_blocks(const Answer *a, Bytes *out)
{
    const Collected *got = &a->got;
    const char *comma = "";
    if (got->thought) {
        bytes_str(out, "{\"type\":\"thinking\",\"thinking\":");
        wire_str(out, a->t->think_hidden ? (Str){ 0 } : bytes_view(&got->reasoning));
        bytes_str(out, ",\"signature\":");
        put_signature(bytes_view(&got->handle), out);
        bytes_byte(out, '}');
        comma = ",";
    }
    if (got->text.n || !got->n_calls) {
        bytes_printf(out, "%s{\"type\":\"text\",\"text\":", comma);
        wire_str(out, bytes_view(&got->text));
        bytes_byte(out, '}');
        comma = ",";
    }
    for (size_t i = 0; i < got->n_calls; i++, comma = ",") {
        const CollectedCall *call = &got->calls[i];
        bytes_printf(out, "%s{\"type\":\"tool_use\",\"id\":", comma);
        wire_str(out, str_of(call->id));
        bytes_str(out, ",\"name\":");
        wire_str(out, bytes_view(&call->name));
        bytes_str(out, ",\"input\":");
        put_input(bytes_view(&call->arguments), out);
        bytes_byte(out, '}');
    }
}

static void messages_reply(Answer *a, Bytes *out)
{
    const Collected *got = &a->got;
    out->failed |= got->failed;
    bytes_printf(out,
                 "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", a->id);
    wire_str(out, a->t->model);
    bytes_str(out, ",\"content\":[");
    put_blocks(a, out);
    bytes_str(out, "],");
    put_stop(a, &got->end, out);
    bytes_byte(out, ',');
    put_usage(a, &got->end.usage, out);
    put_management(a, out);
    bytes_byte(out, '}');
}

const Dialect dialect_messages = {
    .name = "messages",
    .parse = messages_parse,
    .answer_new = messages_new,
    .answer_free = messages_free,
    .start = messages_start,
    .event = messages_event,
    .heartbeat = messages_heartbeat,
    .reply = messages_reply,
    .error = messages_error,
    .status = messages_status,
};
