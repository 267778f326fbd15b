/* messages_in.c - Anthropic's body to Turn.
 *
 * Claude Code moves a mark (cache_control) from message to message, rewrites
 * contents between a string and a list for it, and starts its system prompt
 * with a part that is about billing. None of this reaches the prompt. */
#include "messages_in.h"
#include "content.h"
#include "conversation.h"
#include "thinking.h"
#include "tools_in.h"

static bool take_thinking(Request *r);
static bool take_tools(Request *r);
static bool take_choice(Request *r);
static bool take_format(Request *r);
static bool take_messages(Request *r);

bool messages_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                    ApiError *e)
{
    Request r;
    if (!request_begin(&r, t, body, h, s, e))
        return false;
    t->context_stop = strstr(request_header(&r, "anthropic-beta"), "model-context-window-exceeded");
    return take_thinking(&r) && request_max_tokens(&r, "max_tokens") && request_sampling(&r) &&
           request_stop(&r, "stop_sequences", 64) && take_tools(&r) && take_choice(&r) &&
           take_format(&r) && take_messages(&r);
}

static bool take_thinking(Request *r)
{
    ThinkWish w = { .off = r->info->strict_anthropic && !json_member(r->body, "thinking") };
    const Json *config = json_member(r->body, "output_config");
    const Json *effort = json_member(config, "effort");
    if (config && !json_is_object(config))
        return request_wrong(r, "output_config", "output_config is no object");
    if (!thinking_object(r, &w) || !thinking_effort(r, effort, "output_config", &w))
        return false;
    thinking_settle(r, &w);
    return true;
}

/* ---- tools ------------------------------------------------------------------------ */

/* Anthropic runs some tools itself, and knows the schemas of some others by
 * heart: the model cannot be told of either. */
static bool is_ours(const Json *tool)
{
    const Json *type = json_member(tool, "type");
    return !type || json_is(type, "custom") || json_member(tool, "input_schema");
}

static bool take_tools(Request *r)
{
    const Json *tools = json_member(r->body, "tools");
    if (tools && !json_is_array(tools))
        return request_wrong(r, "tools", "tools is no list");
    for (size_t i = 0; i < json_length(tools); i++) {
        const Json *tool = json_at(tools, i);
        r->at = i;
        if (!json_is_object(tool))
            return request_wrong(r, "tools", "tools[%zu] is no object", i);
        ToolGiven g = { .parameters = json_member(tool, "input_schema"),
                        .deferred = json_is_bool(json_member(tool, "defer_loading"), true) };
        if (is_ours(tool) && (!tools_read(r, tool, &g) || !tools_add(r, &g)))
            return false;
    }
    return true;
}

static bool take_choice(Request *r)
{
    const Json *m = json_member(r->body, "tool_choice"), *type = json_member(m, "type");
    if (!m)
        return true;
    r->t->parallel = !json_is_bool(json_member(m, "disable_parallel_tool_use"), true);
    if (json_is(type, "auto"))
        return tools_choose(r, CHOOSE_AUTO, (Str){ 0 });
    if (json_is(type, "none"))
        return tools_choose(r, CHOOSE_NONE, (Str){ 0 });
    if (json_is(type, "any"))
        return tools_choose(r, CHOOSE_REQUIRED, (Str){ 0 });
    if (json_is(type, "tool"))
        return tools_choose(r, CHOOSE_NAMED, json_text(json_member(m, "name")));
    return request_wrong(r, "tool_choice",
                         "tool_choice.type '%.*s' is none of auto, any, none, tool",
                         STR_ARG(json_text(type)));
}

static bool take_format(Request *r)
{
    const Json *format = json_member(json_member(r->body, "output_config"), "format");
    const char *param = format ? "output_config" : "output_format";
    if (!format)
        format = json_member(r->body, "output_format");
    if (!format || json_is(json_member(format, "type"), "text"))
        return true;
    if (!json_is(json_member(format, "type"), "json_schema"))
        return request_wrong(r, param, "%s: the format's type is '%.*s', not json_schema", param,
                             STR_ARG(json_text(json_member(format, "type"))));
    return request_schema(r, json_member(format, "schema"), param);
}

/* ---- messages ----------------------------------------------------------------------- */

static bool take_result(Request *r, Conversation *c, const Json *block)
{
    Str id = json_text(json_member(block, "tool_use_id")), text;
    if (!id.n)
        return request_wrong(r, "messages", "messages[%zu]: a tool_result has no tool_use_id",
                             r->at);
    return content_text(r, json_member(block, "content"), CONTENT_OF_OTHERS, &text) &&
           conversation_result(c, id, text);
}

/* Results and texts in their order; empty texts are legal, and add nothing
 * unless there is nothing else. */
static bool take_user(Request *r, Conversation *c, const Json *content)
{
    size_t before = c->n;
    Str text;
    if (!json_is_array(content))
        return content_text(r, content, CONTENT_OF_OTHERS, &text) && conversation_user(c, text);
    for (size_t i = 0; i < json_length(content); i++) {
        const Json *block = json_at(content, i);
        if (json_is(json_member(block, "type"), "tool_result")) {
            if (!take_result(r, c, block))
                return false;
        } else if (!content_part(r, block, &text) || (text.n && !conversation_user(c, text))) {
            return false;
        }
    }
    return c->n > before || conversation_user(c, (Str){ 0 });
}

static bool take_call(Request *r, const Json *block, ChatCall *call)
{
    const Json *input = json_member(block, "input");
    call->id = json_text(json_member(block, "id"));
    call->name = json_text(json_member(block, "name"));
    if (!call->id.n || !call->name.n)
        return request_wrong(r, "messages", "messages[%zu]: a tool_use needs an id and a name",
                             r->at);
    if (input && !json_is_object(input))
        return request_wrong(r, "messages", "messages[%zu]: the input of %.*s is no object", r->at,
                             STR_ARG(call->name));
    call->arguments = STR("{}");
    return !input || request_json(r, input, &call->arguments);
}

static bool append(Request *r, Str *to, Str more)
{
    Bytes b = { 0 };
    if (!to->n || !more.n) {
        *to = to->n ? *to : more;
        return true;
    }
    bytes_put(&b, to->p, to->n);
    bytes_str(&b, "\n\n");
    bytes_put(&b, more.p, more.n);
    return request_keep(r, &b, to);
}

static bool take_thought(Request *r, const Json *block, Said *said)
{
    Str text;
    said->handle = json_text(json_member(block, "signature"));
    return request_clean(r, json_text(json_member(block, "thinking")), &text) &&
           append(r, &said->reasoning, text);
}

static bool take_assistant(Request *r, Conversation *c, const Json *content)
{
    size_t n = json_length(content);
    ChatCall *calls = arena_array(&r->t->arena, n, sizeof *calls);
    Said said = { .calls = calls };
    if (!calls)
        return request_no_memory(r);
    if (!json_is_array(content))
        return content_text(r, content, CONTENT_OF_OTHERS, &said.content) &&
               conversation_assistant(c, &said);
    for (size_t i = 0; i < n; i++) {
        const Json *block = json_at(content, i), *type = json_member(block, "type");
        Str text;
        bool ok = json_is(type, "tool_use") ? take_call(r, block, &calls[said.n_calls++])
                  : json_is(type, "thinking")
                      ? take_thought(r, block, &said)
                      : content_part(r, block, &text) && append(r, &said.content, text);
        if (!ok)
            return false;
    }
    return conversation_assistant(c, &said);
}

static bool take_message(Request *r, Conversation *c, const Json *m)
{
    const Json *role = json_member(m, "role"), *content = json_member(m, "content");
    Str text;
    if (!content)
        return request_wrong(r, "messages", "messages[%zu] has no content", r->at);
    if (json_is(role, "user"))
        return take_user(r, c, content);
    if (json_is(role, "assistant"))
        return take_assistant(r, c, content);
    if (json_is(role, "system"))
        return content_text(r, content, CONTENT_OF_SYSTEM, &text) && conversation_system(c, text);
    return request_wrong(r, "messages",
                         "messages[%zu]: the role '%.*s' is none of user, "
                         "assistant, system",
                         r->at, STR_ARG(json_text(role)));
}

static bool take_all(Request *r, Conversation *c)
{
    const Json *messages = json_member(r->body, "messages");
    Str system;
    r->list = "system";
    r->at = 0;
    if (!content_text(r, json_member(r->body, "system"), CONTENT_OF_SYSTEM, &system) ||
        !conversation_system(c, system))
        return false;
    r->list = "messages";
    if (!json_length(messages))
        return request_wrong(r, "messages", "messages: at least one message is required");
    for (r->at = 0; r->at < json_length(messages); r->at++)
        if (!take_message(r, c, json_at(messages, r->at)))
            return false;
    return conversation_end(c);
}

static bool take_messages(Request *r)
{
    Conversation c = { .r = r };
    bool ok = take_all(r, &c);
    conversation_release(&c);
    return ok;
}
