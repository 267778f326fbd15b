/* native.c - the official encoder's own arguments to messages and options. */
#include "native.h"
#include "../json/json.h"
#include <json-c/json.h>

/* ---- reading ---------------------------------------------------------------------- */

/* A copy that lives as long as the request; b is released. */
static bool keep(Native *r, Bytes *b, Str *out, ds4_err *err)
{
    char *copy = b->failed ? NULL : arena_str(&r->arena, bytes_view(b));
    *out = (Str){ copy, copy ? b->n : 0 };
    bytes_release(b);
    return copy ? true : fail(err, DS4_ENOMEM, "no memory for a request");
}

/* By the rules of the prompt language. NULL stays empty. */
static bool keep_json(Native *r, const Json *o, Str *out, ds4_err *err)
{
    Bytes b = { 0 };
    if (!o)
        return true;
    json_write(&b, o);
    return keep(r, &b, out, err);
}

/* The lines of a prompt's tools. */
static bool add_tools(Native *r, ChatMessage *m, const Json *tools, ds4_err *err)
{
    size_t n = json_length(tools);
    if (tools && !json_is_array(tools))
        return fail(err, DS4_EINVAL, "\"tools\" is no array");
    Str *line = arena_array(&r->arena, n, sizeof *line);
    if (!line)
        return fail(err, DS4_ENOMEM, "no memory for %zu tools", n);
    for (size_t i = 0; i < n; i++) {
        const Json *tool = json_at(tools, i), *function = json_member(tool, "function");
        if (!json_is_object(function))
            return fail(err, DS4_EINVAL, "tool %zu of type \"%.*s\" is no function", i,
                        STR_ARG(json_text(json_member(tool, "type"))));
        if (!keep_json(r, function, &line[i], err))
            return false;
    }
    m->tools = line;
    m->n_tools = n;
    return true;
}

/* The calls of message i: arguments are the text of an object, or of nothing
 * that is JSON. */
static bool add_calls(Native *r, ChatMessage *m, const Json *calls, size_t i, ds4_err *err)
{
    size_t n = json_length(calls);
    ChatCall *call = arena_array(&r->arena, n, sizeof *call);
    if (!call)
        return fail(err, DS4_ENOMEM, "no memory for %zu calls", n);
    for (size_t k = 0; k < n; k++) {
        const Json *o = json_at(calls, k), *function = json_member(o, "function"),
                   *id = json_member(o, "id"), *arguments = json_member(function, "arguments");
        if (!id)
            id = json_member(function, "id");
        if (!json_is_text(json_member(function, "name")))
            return fail(err, DS4_EINVAL, "message %zu: call %zu has no function's name", i, k);
        call[k] = (ChatCall){ json_text(id), json_text(json_member(function, "name")),
                              json_text(arguments) };
        if (!json_is_text(arguments))
            return fail(err, DS4_EINVAL, "message %zu: call %zu: its arguments are no text", i, k);
        Json *parsed = json_read(call[k].arguments, NULL);
        bool other = !json_is_object(parsed) && json_valid(call[k].arguments);
        json_free(parsed);
        if (other)
            return fail(err, DS4_EINVAL, "message %zu: call %zu: its arguments are no object", i,
                        k);
    }
    m->calls = call;
    m->n_calls = n;
    return true;
}

/* Room for the messages of two lists and one more. */
static bool start(Native *r, const Json *context, const Json *messages, ds4_err *err)
{
    size_t n = json_length(context) + json_length(messages);
    if (!json_is_array(messages))
        return fail(err, DS4_EINVAL, "\"messages\" is no array");
    if (context && !json_is_array(context))
        return fail(err, DS4_EINVAL, "\"context\" is no array");
    r->m = arena_array(&r->arena, n + 1, sizeof *r->m);
    return r->m ? true : fail(err, DS4_ENOMEM, "no memory for %zu messages", n);
}

static bool parse(Native *r, Str json, bool preview, ds4_err *err)
{
    *r = (Native){ .opt.preview = preview, .json = json_read(json, err) };
    if (r->json && !json_is_object(r->json))
        return fail(err, DS4_EINVAL, "the request is no JSON object");
    return r->json != NULL;
}

void native_release(Native *r)
{
    json_free(r->json);
    arena_release(&r->arena);
    *r = (Native){ 0 };
}

/* ---- messages ---------------------------------------------------------------------- */

/* What a tool gave: texts with blank lines between them, of other parts their
 * types. */
static bool result_text(Native *r, const Json *content, Str *out, ds4_err *err)
{
    Bytes b = { 0 };
    for (size_t k = 0; k < json_length(content); k++) {
        const Json *part = json_at(content, k), *type = json_member(part, "type");
        Str text = json_text(json_member(part, "text"));
        bytes_str(&b, k ? "\n\n" : "");
        if (json_is(type, "text"))
            bytes_put(&b, text.p, text.n);
        else
            bytes_printf(&b, "[Unsupported %.*s]", STR_ARG(json_text(type)));
    }
    return keep(r, &b, out, err);
}

/* Its content must be text; some roles may leave it out. */
static bool add_content(Native *r, ChatMessage *m, const Json *content, size_t i, ds4_err *err)
{
    bool optional = m->role == CHAT_SYSTEM || m->role == CHAT_ASSISTANT || m->role == CHAT_TOOL;
    m->content = json_text(content);
    if (m->role == CHAT_TOOL && json_is_array(content))
        return result_text(r, content, &m->content, err);
    if (json_is_text(content) || (!content && optional))
        return true;
    return fail(err, DS4_EINVAL, "message %zu: its content is no text", i);
}

static bool add_native(Native *r, const Json *o, ds4_err *err)
{
    const Json *role = json_member(o, "role"), *task = json_member(o, "task");
    size_t i = r->n;
    if (!json_is_text(role))
        return fail(err, DS4_EINVAL, "message %zu has no role", i);
    ChatMessage m = { .role = chat_role(json_text(role)) };
    if (m.role < 0)
        return fail(err, DS4_EINVAL, "message %zu has the unknown role \"%.*s\"", i,
                    STR_ARG(json_text(role)));
    if (task && (m.task = chat_task(json_text(task))) < 0)
        return fail(err, DS4_EINVAL, "message %zu has the unknown task \"%.*s\"", i,
                    STR_ARG(json_text(task)));
    bool ok = add_content(r, &m, json_member(o, "content"), i, err);
    if (m.role == CHAT_ASSISTANT) {
        m.reasoning = json_text(json_member(o, "reasoning_content"));
        m.unfinished = json_object_get_boolean(json_member(o, "wo_eos"));
        ok = ok && add_calls(r, &m, json_member(o, "tool_calls"), i, err);
    }
    if (m.role == CHAT_TOOL)
        m.tool_call_id = json_text(json_member(o, "tool_call_id"));
    if (m.role == CHAT_SYSTEM || m.role == CHAT_DEVELOPER)
        ok = ok && add_tools(r, &m, json_member(o, "tools"), err) &&
             keep_json(r, json_member(o, "response_format"), &m.response_format, err);
    r->m[r->n++] = m;
    return ok;
}

/* The preview release's plain thinking is called high, the later one's low. */
static bool set_native_effort(Native *r, Json *effort, ds4_err *err)
{
    static const char *const names[] = { NULL, "low", "high", "max" };
    r->opt.think = r->opt.preview ? CHAT_THINK_HIGH : CHAT_THINK_LOW;
    if (!effort)
        return true;
    for (int i = CHAT_THINK_LOW; i <= CHAT_THINK_MAX; i++) {
        if (json_is(effort, names[i])) {
            r->opt.think = i;
            return true;
        }
    }
    return fail(err, DS4_EINVAL, "reasoning_effort is %s, expected low, high or max",
                json_object_to_json_string(effort));
}

static bool set_native_options(Native *r, Json *params, ds4_err *err)
{
    Json *mode = json_member(r->json, "thinking_mode"),
         *drop = json_member(params, "drop_thinking"),
         *bos = json_member(params, "add_default_bos_token");
    if (!json_is(mode, "chat") && !json_is(mode, "thinking"))
        return fail(err, DS4_EINVAL, "thinking_mode is \"%.*s\", expected chat or thinking",
                    STR_ARG(json_text(mode)));
    r->opt.keep_reasoning = drop && !json_object_get_boolean(drop);
    r->opt.no_bos = bos && !json_object_get_boolean(bos);
    if (!set_native_effort(r, json_member(params, "reasoning_effort"), err))
        return false;
    if (json_is(mode, "chat"))
        r->opt.think = CHAT_THINK_OFF;
    return true;
}

bool native_read(Native *r, Str json, bool preview, ds4_err *err)
{
    if (!parse(r, json, preview, err))
        return false;
    Json *params = json_member(r->json, "params"), *messages = json_member(r->json, "messages");
    Json *context = json_member(params, "context");
    if (!context)
        context = json_member(r->json, "context");
    bool ok = set_native_options(r, params, err) && start(r, context, messages, err);
    for (size_t i = 0; i < json_length(context) && ok; i++)
        ok = add_native(r, json_at(context, i), err);
    r->opt.context = r->n;
    for (size_t i = 0; i < json_length(messages) && ok; i++)
        ok = add_native(r, json_at(messages, i), err);
    return ok;
}
