/* chat_out.c - OpenAI's chat completions: chunks, and whole ones.
 *
 * The role comes at once, so that the client sees life before the prompt is
 * read. While nothing else is to be said, chunks with an empty delta are: every
 * client takes them, and a comment would not reset the timers of all. */
#include "chat_in.h"
#include "collect.h"
#include "wire.h"
#include <stdlib.h>
#include <time.h>

struct Answer {
    const Turn *t;
    char id[64];
    int64_t created;
    bool custom; /* the call that is being written is of a custom tool */
    Bytes logprobs;
    Collected got;
};

static Answer *chat_new(const Turn *t, const ServerInfo *s)
{
    (void)s;
    Answer *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->t = t;
    a->created = (int64_t)time(NULL);
    new_id(a->id, "chatcmpl-");
    return a;
}

static void chat_free(Answer *a)
{
    if (!a)
        return;
    collect_release(&a->got);
    bytes_release(&a->logprobs);
    free(a);
}

/* ---- chunks -------------------------------------------------------------------------- */

static void put_head(const Answer *a, const char *object, Bytes *out)
{
    bytes_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", a->id, object,
                 (long long)a->created);
    wire_str(out, a->t->model);
}

static void begin_chunk(const Answer *a, Bytes *out)
{
    bytes_str(out, "data: ");
    put_head(a, "chat.completion.chunk", out);
    bytes_str(out, ",\"choices\":[");
}

static void begin_delta(const Answer *a, Bytes *out)
{
    begin_chunk(a, out);
    bytes_str(out, "{\"index\":0,\"delta\":{");
}

static void end_delta(Bytes *out) { bytes_str(out, "},\"finish_reason\":null}]}\n\n"); }

static void chat_start(Answer *a, Bytes *out)
{
    begin_delta(a, out);
    bytes_str(out, "\"role\":\"assistant\",\"content\":\"\"");
    end_delta(out);
}

static void chat_heartbeat(Answer *a, Bytes *out)
{
    begin_delta(a, out);
    end_delta(out);
}

/* ---- logprobs --------------------------------------------------------------------------- */

static void put_token(const TokenLogprob *p, Bytes *out)
{
    bytes_str(out, "{\"token\":");
    wire_str(out, p->token);
    bytes_str(out, ",\"logprob\":");
    wire_real(out, p->logprob < -9999 ? -9999 : (double)p->logprob, 6);
    bytes_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < p->token.n; i++)
        bytes_printf(out, "%s%d", i ? "," : "", (unsigned char)p->token.p[i]);
    bytes_byte(out, ']');
}

/* The entries of logprobs.content for the tokens of one event. */
static void put_logprobs(const Turn *t, const Event *e, Bytes *out)
{
    size_t width = 1 + (size_t)t->top_logprobs;
    for (size_t i = 0; i < e->n_logprobs; i++) {
        const TokenLogprob *row = e->logprobs + i * width;
        bytes_str(out, i ? "," : "");
        put_token(row, out);
        bytes_str(out, ",\"top_logprobs\":[");
        for (size_t k = 1; k < width; k++) {
            bytes_str(out, k > 1 ? "," : "");
            put_token(&row[k], out);
            bytes_byte(out, '}');
        }
        bytes_str(out, "]}");
    }
}

static bool wants_logprobs(const Answer *a, const Event *e)
{
    return a->t->logprobs && e->kind == EV_TEXT && e->logprobs && e->n_logprobs;
}

/* ---- events ------------------------------------------------------------------------------- */

static void put_text(const Answer *a, const char *member, const Event *e, Bytes *out)
{
    if (!e->bytes.n)
        return;
    begin_delta(a, out);
    bytes_printf(out, "\"%s\":", member);
    wire_str(out, e->bytes);
    if (wants_logprobs(a, e)) {
        bytes_str(out, "},\"logprobs\":{\"content\":[");
        put_logprobs(a->t, e, out);
        bytes_byte(out, ']');
    }
    end_delta(out);
}

/* A custom tool has an input, a function arguments. */
static const char *kind_of(bool custom) { return custom ? "custom" : "function"; }

static const char *input_of(bool custom) { return custom ? "input" : "arguments"; }

static void put_call(Answer *a, const Event *e, Bytes *out)
{
    a->custom = e->tool && e->tool->kind == TOOL_CUSTOM;
    begin_delta(a, out);
    bytes_printf(out, "\"tool_calls\":[{\"index\":%d,\"id\":", e->index);
    wire_str(out, str_of(e->call_id));
    bytes_printf(out, ",\"type\":\"%s\",\"%s\":{\"name\":", kind_of(a->custom), kind_of(a->custom));
    wire_str(out, collect_name(e));
    bytes_printf(out, ",\"%s\":\"\"}}]", input_of(a->custom));
    end_delta(out);
}

static void put_arguments(const Answer *a, const Event *e, Bytes *out)
{
    if (!e->bytes.n)
        return;
    begin_delta(a, out);
    bytes_printf(out, "\"tool_calls\":[{\"index\":%d,\"%s\":{\"%s\":", e->index, kind_of(a->custom),
                 input_of(a->custom));
    wire_str(out, e->bytes);
    bytes_str(out, "}}]");
    end_delta(out);
}

static void put_progress(const Answer *a, const Event *e, Bytes *out)
{
    if (!a->t->return_progress)
        return;
    begin_delta(a, out);
    bytes_printf(out,
                 "},\"finish_reason\":null}],\"prompt_progress\":{\"total\":%d,\"cache\":%d,"
                 "\"processed\":%d,\"time_ms\":",
                 e->usage.prompt, e->usage.cached, e->done);
    wire_real(out, e->usage.prompt_ms, 3);
    bytes_str(out, "}}\n\n");
}

static void put_finish(const Answer *a, const Event *e, Bytes *out)
{
    begin_delta(a, out);
    bytes_printf(out, "},\"finish_reason\":\"%s\"", wire_finish(e->finish));
    wire_stop_reason(out, e);
    bytes_str(out, "}]}\n\n");
    if (a->t->include_usage) {
        begin_chunk(a, out);
        bytes_str(out, "],");
        wire_usage(out, &e->usage);
        bytes_byte(out, ',');
        wire_timings(out, &e->usage);
        bytes_str(out, "}\n\n");
    }
    bytes_str(out, "data: [DONE]\n\n");
}

static void chat_error(const ApiError *e, const char *request_id, Bytes *out)
{
    (void)request_id;
    wire_error(e, "messages", out);
}

/* Where trying again helps nothing is said: the client does it when the
 * connection breaks, and takes what it is told for the end. */
static void put_error(const Event *e, Bytes *out)
{
    if (wire_retryable(e->error))
        return;
    bytes_str(out, "data: ");
    wire_error(e->error, "messages", out);
    bytes_str(out, "\n\n");
}

static void keep(Answer *a, const Event *e)
{
    collect(&a->got, e);
    if (wants_logprobs(a, e)) {
        if (a->logprobs.n)
            bytes_byte(&a->logprobs, ',');
        put_logprobs(a->t, e, &a->logprobs);
    }
}

static void chat_event(Answer *a, const Event *e, Bytes *out)
{
    if (!out) {
        keep(a, e);
        return;
    }
    switch (e->kind) {
    case EV_REASONING: put_text(a, "reasoning_content", e, out); break;
    case EV_TEXT: put_text(a, "content", e, out); break;
    case EV_TOOL_BEGIN: put_call(a, e, out); break;
    case EV_TOOL_ARGS: put_arguments(a, e, out); break;
    case EV_TOOL_END: break;
    case EV_PROGRESS: put_progress(a, e, out); break;
    case EV_FINISH: put_finish(a, e, out); break;
    case EV_ERROR: put_error(e, out); break;
    }
}

/* ---- whole --------------------------------------------------------------------------------- */

static void put_calls(const Collected *got, Bytes *out)
{
    bytes_str(out, ",\"tool_calls\":[");
    for (size_t i = 0; i < got->n_calls; i++) {
        const CollectedCall *call = &got->calls[i];
        bool custom = call->tool && call->tool->kind == TOOL_CUSTOM;
        bytes_str(out, i ? ",{\"id\":" : "{\"id\":");
        wire_str(out, str_of(call->id));
        bytes_printf(out, ",\"type\":\"%s\",\"%s\":{\"name\":", kind_of(custom), kind_of(custom));
        wire_str(out, bytes_view(&call->name));
        bytes_printf(out, ",\"%s\":", input_of(custom));
        wire_str(out, bytes_view(&call->arguments));
        bytes_str(out, "}}");
    }
    bytes_byte(out, ']');
}

static void put_message(const Collected *got, Bytes *out)
{
    bytes_str(out, "{\"role\":\"assistant\",\"content\":");
    if (got->n_calls && !got->text.n)
        bytes_str(out, "null");
    else
        wire_str(out, bytes_view(&got->text));
    if (got->reasoning.n) {
        bytes_str(out, ",\"reasoning_content\":");
        wire_str(out, bytes_view(&got->reasoning));
    }
    if (got->n_calls)
        put_calls(got, out);
    bytes_byte(out, '}');
}

static void chat_reply(Answer *a, Bytes *out)
{
    const Collected *got = &a->got;
    out->failed |= got->failed || a->logprobs.failed;
    put_head(a, "chat.completion", out);
    bytes_str(out, ",\"choices\":[{\"index\":0,\"message\":");
    put_message(got, out);
    if (a->t->logprobs) {
        bytes_str(out, ",\"logprobs\":{\"content\":[");
        bytes_put(out, a->logprobs.p, a->logprobs.n);
        bytes_str(out, "]}");
    }
    bytes_printf(out, ",\"finish_reason\":\"%s\"", wire_finish(got->end.finish));
    wire_stop_reason(out, &got->end);
    bytes_str(out, "}],");
    wire_usage(out, &got->end.usage);
    bytes_byte(out, ',');
    wire_timings(out, &got->end.usage);
    bytes_byte(out, '}');
}

const Dialect dialect_chat = {
    .name = "chat",
    .parse = chat_parse,
    .answer_new = chat_new,
    .answer_free = chat_free,
    .start = chat_start,
    .event = chat_event,
    .heartbeat = chat_heartbeat,
    .reply = chat_reply,
    .error = chat_error,
    .status = wire_status,
};
