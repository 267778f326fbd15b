/* chat_in.c - OpenAI's chat body to Turn, with what DeepSeek and others added
 * to it, and with the functions that were there before tools. */
#include "chat_in.h"
#include "content.h"
#include "conversation.h"
#include "thinking.h"
#include "tools_in.h"

static bool take_thinking(Request *r);
static bool take_output(Request *r);
static bool take_tools(Request *r);
static bool take_choice(Request *r);
static bool take_format(Request *r);
static bool take_messages(Request *r);

bool chat_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                ApiError *e)
{
    Request r;
    return request_begin(&r, t, body, h, s, e) && take_thinking(&r) && take_output(&r) &&
           request_sampling(&r) && request_stop(&r, "stop", 16) && request_logit_bias(&r) &&
           take_tools(&r) && take_choice(&r) && take_format(&r) && take_messages(&r);
}

/* ---- thinking ----------------------------------------------------------------------- */

static bool take_switch(Request *r, const Json *m, const char *param, ThinkWish *w)
{
    w->off |= json_is_bool(m, false);
    w->on |= json_is_bool(m, true);
    return !m || json_is_bool(m, true) || json_is_bool(m, false) ||
           request_wrong(r, param, "%s: a switch of thinking is neither true nor false", param);
}

static bool take_template(Request *r, ThinkWish *w)
{
    static const char param[] = "chat_template_kwargs";
    const Json *m = json_member(r->body, param);
    if (m && !json_is_object(m))
        return request_wrong(r, param, "%s is no object", param);
    return take_switch(r, json_member(m, "thinking"), param, w) &&
           take_switch(r, json_member(m, "enable_thinking"), param, w);
}

/* A switch, or the name of an effort. */
static bool take_think(Request *r, ThinkWish *w)
{
    const Json *m = json_member(r->body, "think");
    return json_is_text(m) ? thinking_effort(r, m, "think", w) : take_switch(r, m, "think", w);
}

static bool take_thinking(Request *r)
{
    ThinkWish w = { 0 };
    if (!take_template(r, &w) || !thinking_object(r, &w) ||
        !thinking_effort(r, json_member(r->body, "reasoning_effort"), "reasoning_effort", &w) ||
        !take_think(r, &w))
        return false;
    r->t->think_hidden = false; /* there is nothing to sign in this API */
    thinking_settle(r, &w);
    return true;
}

/* ---- how much, and in which form ------------------------------------------------------ */

static bool take_logprobs(Request *r)
{
    Turn *t = r->t;
    if (!request_bool(r, "logprobs", &t->logprobs) ||
        !request_int(r, "top_logprobs", 0, 20, &t->top_logprobs))
        return false;
    return t->logprobs || !t->top_logprobs ||
           request_wrong(r, "top_logprobs", "top_logprobs needs logprobs to be true");
}

static bool take_output(Request *r)
{
    const char *most =
        json_member(r->body, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    return request_stream_options(r) && request_max_tokens(r, most) && request_one_answer(r, "n") &&
           take_logprobs(r) && request_bool(r, "return_progress", &r->t->return_progress);
}

static bool take_format(Request *r)
{
    const Json *format = json_member(r->body, "response_format");
    const Json *type = json_member(format, "type");
    if (!request_grammar(r))
        return false;
    if (!format || json_is(type, "text"))
        return true;
    if (json_is(type, "json_schema"))
        return request_schema(r, json_member(json_member(format, "json_schema"), "schema"),
                              "response_format");
    if (!json_is(type, "json_object"))
        return request_wrong(r, "response_format",
                             "response_format.type '%.*s' is none of text, json_object, "
                             "json_schema",
                             STR_ARG(json_text(type)));
    if (r->t->format != FORMAT_TEXT)
        return request_wrong(r, "response_format", "response_format and a grammar were given");
    r->t->format = FORMAT_JSON_OBJECT;
    return true;
}

/* ---- tools ------------------------------------------------------------------------------ */

static bool add_function(Request *r, const Json *f)
{
    ToolGiven g = { .parameters = json_member(f, "parameters") };
    return tools_read(r, f, &g) && tools_add(r, &g);
}

static bool add_custom(Request *r, const Json *custom)
{
    ToolGiven g = { 0 };
    return tools_read(r, custom, &g) && tools_custom_format(r, json_member(custom, "format"), &g) &&
           tools_add(r, &g);
}

static bool add_tool(Request *r, const Json *tool)
{
    const Json *type = json_member(tool, "type");
    if (json_is(type, "custom"))
        return add_custom(r, json_member(tool, "custom"));
    if (!type || json_is(type, "function"))
        return add_function(r, json_member(tool, "function"));
    return request_wrong(r, "tools", "tools[%zu]: the type '%.*s' is neither function nor custom",
                         r->at, STR_ARG(json_text(type)));
}

static bool take_tools(Request *r)
{
    const Json *tools = json_member(r->body, "tools"),
               *functions = json_member(r->body, "functions");
    if (tools && !json_is_array(tools))
        return request_wrong(r, "tools", "tools is no list");
    if (functions && !json_is_array(functions))
        return request_wrong(r, "functions", "functions is no list");
    for (r->at = 0; r->at < json_length(tools); r->at++)
        if (!add_tool(r, json_at(tools, r->at)))
            return false;
    for (r->at = 0; r->at < json_length(functions); r->at++)
        if (!add_function(r, json_at(functions, r->at)))
            return false;
    return request_bool(r, "parallel_tool_calls", &r->t->parallel);
}

/* {type: function, function: {name}}, or the same of a custom tool. */
static Str chosen_name(const Json *choice)
{
    Str name = json_text(json_member(json_member(choice, "function"), "name"));
    return name.n ? name : json_text(json_member(json_member(choice, "custom"), "name"));
}

static bool take_allowed(Request *r, const Json *allowed)
{
    const Json *list = json_member(allowed, "tools");
    bool required = json_is(json_member(allowed, "mode"), "required");
    if (!json_length(list))
        return request_wrong(r, "tool_choice", "tool_choice.allowed_tools lists no tools");
    tools_bar_all(r->t);
    for (size_t i = 0; i < json_length(list); i++)
        if (!tools_allow(r, chosen_name(json_at(list, i))))
            return false;
    return tools_choose(r, required ? CHOOSE_REQUIRED : CHOOSE_AUTO, (Str){ 0 });
}

static bool take_choice(Request *r)
{
    const Json *m = json_member(r->body, "tool_choice");
    const Json *before_tools = json_member(r->body, "function_call");
    if (!m && json_is_object(before_tools))
        return tools_choose(r, CHOOSE_NAMED, json_text(json_member(before_tools, "name")));
    if (!m)
        m = before_tools;
    if (!m || json_is(m, "auto"))
        return tools_choose(r, CHOOSE_AUTO, (Str){ 0 });
    if (json_is(m, "none"))
        return tools_choose(r, CHOOSE_NONE, (Str){ 0 });
    if (json_is(m, "required") || json_is(m, "any"))
        return tools_choose(r, CHOOSE_REQUIRED, (Str){ 0 });
    if (json_is(json_member(m, "type"), "allowed_tools"))
        return take_allowed(r, json_member(m, "allowed_tools"));
    if (json_is_object(m))
        return tools_choose(r, CHOOSE_NAMED, chosen_name(m));
    return request_wrong(r, "tool_choice", "tool_choice '%.*s' is none of auto, none, required",
                         STR_ARG(json_text(m)));
}

/* ---- messages ------------------------------------------------------------------------------ */

/* What a custom tool was given, as arguments. */
static bool custom_arguments(Request *r, const Json *custom, Str *out)
{
    Bytes b = { 0 };
    tools_custom_arguments(json_text(json_member(custom, "input")), &b);
    return request_keep(r, &b, out);
}

static bool take_call(Request *r, const Json *o, ChatCall *call)
{
    const Json *custom = json_member(o, "custom");
    const Json *f = custom ? custom : json_member(o, "function");
    const Json *arguments = json_member(f, "arguments");
    call->id = json_text(json_member(o, "id"));
    call->name = json_text(json_member(f, "name"));
    if (!call->name.n)
        return request_wrong(r, "messages", "messages[%zu]: a call has no name", r->at);
    if (custom)
        return custom_arguments(r, custom, &call->arguments);
    if (json_is_object(arguments))
        return request_json(r, arguments, &call->arguments);
    if (arguments && !json_is_text(arguments))
        return request_wrong(r, "messages", "messages[%zu]: the arguments of %.*s are no string",
                             r->at, STR_ARG(call->name));
    return request_clean(r, json_text(arguments), &call->arguments);
}

static bool take_calls(Request *r, const Json *m, Said *said)
{
    const Json *list = json_member(m, "tool_calls"), *one = json_member(m, "function_call");
    size_t n = json_length(list);
    ChatCall *calls = arena_array(&r->t->arena, n + 1, sizeof *calls);
    if (!calls)
        return request_no_memory(r);
    if (list && !json_is_array(list))
        return request_wrong(r, "messages", "messages[%zu]: tool_calls is no list", r->at);
    for (size_t i = 0; i < n; i++)
        if (!take_call(r, json_at(list, i), &calls[i]))
            return false;
    if (one && !n) {
        calls[0].id = calls[0].name = json_text(json_member(one, "name"));
        calls[0].arguments = json_text(json_member(one, "arguments"));
        n = calls[0].name.n > 0;
    }
    said->calls = calls;
    said->n_calls = n;
    return true;
}

static bool take_assistant(Request *r, Conversation *c, const Json *m)
{
    Said said = { 0 };
    Str reasoning = { 0 };
    if (!request_text_of(r, "messages", m, "reasoning_content", &reasoning))
        return false;
    if (!reasoning.n)
        reasoning = json_text(json_member(m, "reasoning"));
    return request_clean(r, reasoning, &said.reasoning) &&
           content_text(r, json_member(m, "content"), CONTENT_OF_OTHERS, &said.content) &&
           take_calls(r, m, &said) && conversation_assistant(c, &said);
}

static bool take_result(Request *r, Conversation *c, const Json *m, Str text)
{
    Str id = { 0 };
    return request_text_of(r, "messages", m, "tool_call_id", &id) &&
           conversation_result(c, id, text);
}

static bool take_message(Request *r, Conversation *c, const Json *m)
{
    const Json *role = json_member(m, "role");
    Str text;
    if (json_is(role, "assistant"))
        return take_assistant(r, c, m);
    if (!content_text(r, json_member(m, "content"), CONTENT_OF_OTHERS, &text))
        return false;
    if (json_is(role, "user"))
        return conversation_user(c, text);
    if (json_is(role, "system") || json_is(role, "developer"))
        return conversation_system(c, text);
    if (json_is(role, "tool"))
        return take_result(r, c, m, text);
    if (json_is(role, "function"))
        return conversation_result(c, json_text(json_member(m, "name")), text);
    return request_wrong(r, "messages",
                         "messages[%zu]: the role '%.*s' is none of system, "
                         "developer, user, assistant, tool",
                         r->at, STR_ARG(json_text(role)));
}

static bool take_messages(Request *r)
{
    const Json *messages = json_member(r->body, "messages");
    Conversation c = { .r = r };
    bool ok = true;
    r->list = "messages";
    if (!json_length(messages))
        return request_wrong(r, "messages", "messages: at least one message is required");
    for (r->at = 0; r->at < json_length(messages) && ok; r->at++)
        ok = take_message(r, &c, json_at(messages, r->at));
    ok = ok && conversation_end(&c);
    conversation_release(&c);
    return ok;
}
