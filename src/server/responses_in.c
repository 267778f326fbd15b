/* responses_in.c - the body of a Responses request to Turn: all but its input
 * (responses_input.c) and its tools (responses_tools.c). */
#include "responses_in.h"
#include "responses_input.h"
#include "responses_tools.h"
#include "thinking.h"

static bool refuse_what_is_not_here(Request *r);
static bool take_thinking(Request *r);
static bool take_output(Request *r);
static bool take_include(Request *r);
static bool take_format(Request *r);

bool responses_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                     ApiError *e)
{
    Request r;
    return request_begin(&r, t, body, h, s, e) && refuse_what_is_not_here(&r) &&
           take_thinking(&r) && take_output(&r) && take_include(&r) && request_sampling(&r) &&
           take_format(&r) && responses_take_tools(&r) && responses_take_input(&r) &&
           responses_take_choice(&r);
}

/* Members that change what an answer is, and cannot be followed. */
static bool refuse_what_is_not_here(Request *r)
{
    static const char *const members[] = { "conversation", "prompt" };
    for (size_t i = 0; i < COUNT(members); i++)
        if (json_member(r->body, members[i]))
            return api_fail(r->e, 400, "unsupported_parameter", members[i],
                            "%s is not supported by this server", members[i]);
    bool background = false;
    if (!request_bool(r, "background", &background))
        return false;
    return !background || api_fail(r->e, 400, "unsupported_parameter", "background",
                                   "background: this server answers while the client waits");
}

static bool take_summary(Request *r, const Json *summary)
{
    static const char *const names[] = { "auto", "concise", "detailed" };
    for (size_t i = 0; i < COUNT(names); i++)
        r->t->show_reasoning_summary |= json_is(summary, names[i]);
    return !summary || r->t->show_reasoning_summary || json_is(summary, "none") ||
           request_wrong(r, "reasoning.summary",
                         "reasoning.summary '%.*s' is none of auto, concise, detailed, none",
                         STR_ARG(json_text(summary)));
}

/* There is one account of the reasoning, all of it; the kinds of summary are one. */
static bool take_thinking(Request *r)
{
    const Json *m = json_member(r->body, "reasoning");
    const Json *summary = json_member(m, "summary");
    ThinkWish w = { 0 };
    if (m && !json_is_object(m))
        return request_wrong(r, "reasoning", "reasoning is no object");
    if (!thinking_effort(r, json_member(m, "effort"), "reasoning.effort", &w) ||
        !take_summary(r, summary ? summary : json_member(m, "generate_summary")))
        return false;
    thinking_settle(r, &w);
    return true;
}

/* Nothing is ever cut out of a conversation: what does not fit is refused later,
 * so "auto" asks for nothing while it fits. */
static bool take_truncation(Request *r)
{
    const Json *m = json_member(r->body, "truncation");
    return !m || json_is(m, "auto") || json_is(m, "disabled") ||
           request_wrong(r, "truncation", "truncation '%.*s' is neither auto nor disabled",
                         STR_ARG(json_text(m)));
}

static bool take_output(Request *r)
{
    int logprobs = 0;
    r->t->store = true;
    return request_max_tokens(r, "max_output_tokens") && take_truncation(r) &&
           request_bool(r, "store", &r->t->store) &&
           request_int(r, "top_logprobs", 0, 20, &logprobs) &&
           (!logprobs || request_wrong(r, "top_logprobs",
                                       "top_logprobs: this API gives none here; "
                                       "/v1/chat/completions does"));
}

static bool take_include(Request *r)
{
    const Json *list = json_member(r->body, "include");
    if (list && !json_is_array(list))
        return request_wrong(r, "include", "include is no list");
    for (size_t i = 0; i < json_length(list); i++) {
        const Json *what = json_at(list, i);
        if (!json_is_text(what))
            return request_wrong(r, "include", "include[%zu] is no string", i);
        if (json_is(what, "message.output_text.logprobs"))
            return request_wrong(r, "include",
                                 "include[%zu]: this API gives no logprobs here; "
                                 "/v1/chat/completions does",
                                 i);
        r->t->include_encrypted |= json_is(what, "reasoning.encrypted_content");
    }
    return true;
}

static bool take_format(Request *r)
{
    const Json *text = json_member(r->body, "text"), *format = json_member(text, "format");
    const Json *type = json_member(format, "type");
    if (text && !json_is_object(text))
        return request_wrong(r, "text", "text is no object");
    if (!request_grammar(r))
        return false;
    if (!format || json_is(type, "text"))
        return true;
    if (json_is(type, "json_schema"))
        return request_schema(r, json_member(format, "schema"), "text.format");
    if (!json_is(type, "json_object"))
        return request_wrong(r, "text.format",
                             "text.format.type '%.*s' is none of text, json_object, json_schema",
                             STR_ARG(json_text(type)));
    if (r->t->format != FORMAT_TEXT)
        return request_wrong(r, "text.format", "text.format and a grammar were given");
    r->t->format = FORMAT_JSON_OBJECT;
    return true;
}
