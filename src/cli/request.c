/* request.c - a request's JSON to the messages and options of a prompt. */
#include "request.h"
#include "../json/json.h"
#include <json-c/json.h>

/* ---- reading ---------------------------------------------------------------------- */

/* A copy that lives as long as the request; b is released. */
static bool keep(Request *r, Bytes *b, Str *out, ds4_err *err)
{
    char *copy = b->failed ? NULL : arena_str(&r->arena, bytes_view(b));
    *out = (Str){ copy, copy ? b->n : 0 };
    bytes_release(b);
    return copy ? true : fail(err, DS4_ENOMEM, "no memory for a request");
}

/* By the rules of the prompt language. NULL stays empty. */
static bool keep_json(Request *r, const Json *o, Str *out, ds4_err *err)
{
    Bytes b = { 0 };
    if (!o)
        return true;
    json_write(&b, o);
    return keep(r, &b, out, err);
}

/* The lines of a prompt's tools; each has its function in a member, or is one. */
static bool add_tools(Request *r, ChatMessage *m, const Json *tools, bool wrapped, ds4_err *err)
{
    size_t n = json_length(tools);
    if (tools && !json_is_array(tools))
        return fail(err, DS4_EINVAL, "\"tools\" is no array");
    Str *line = arena_array(&r->arena, n, sizeof *line);
    if (!line)
        return fail(err, DS4_ENOMEM, "no memory for %zu tools", n);
    for (size_t i = 0; i < n; i++) {
        const Json *tool = json_at(tools, i), *function = tool;
        if (wrapped)
            function = json_member(tool, "function");
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

/* The calls of message i. strict: as the encoder wants them, the text of an
 * object, or of nothing that is JSON. */
static bool add_calls(Request *r, ChatMessage *m, const Json *calls, size_t i, bool strict,
                      ds4_err *err)
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
        if (strict ? !json_is_text(arguments)
                   : arguments && !json_is_text(arguments) && !json_is_object(arguments))
            return fail(err, DS4_EINVAL, "message %zu: call %zu: its arguments are no text", i, k);
        if (json_is_object(arguments) && !keep_json(r, arguments, &call[k].arguments, err))
            return false;
        Json *parsed = strict ? json_read(call[k].arguments, NULL) : NULL;
        bool other = strict && !json_is_object(parsed) && json_valid(call[k].arguments);
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
static bool start(Request *r, const Json *context, const Json *messages, ds4_err *err)
{
    size_t n = json_length(context) + json_length(messages);
    if (!json_is_array(messages))
        return fail(err, DS4_EINVAL, "\"messages\" is no array");
    if (context && !json_is_array(context))
        return fail(err, DS4_EINVAL, "\"context\" is no array");
    r->m = arena_array(&r->arena, n + 1, sizeof *r->m);
    return r->m ? true : fail(err, DS4_ENOMEM, "no memory for %zu messages", n);
}

static bool parse(Request *r, Str json, bool preview, ds4_err *err)
{
    *r = (Request){ .opt.preview = preview, .json = json_read(json, err) };
    if (r->json && !json_is_object(r->json))
        return fail(err, DS4_EINVAL, "the request is no JSON object");
    return r->json != NULL;
}

void request_release(Request *r)
{
    json_free(r->json);
    arena_release(&r->arena);
    *r = (Request){ 0 };
}

/* ---- the official encoder's form --------------------------------------------------- */

/* What a tool gave: texts with blank lines between them, of other parts their
 * types. */
static bool result_text(Request *r, const Json *content, Str *out, ds4_err *err)
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
static bool add_content(Request *r, ChatMessage *m, const Json *content, size_t i, ds4_err *err)
{
    bool optional = m->role == CHAT_SYSTEM || m->role == CHAT_ASSISTANT || m->role == CHAT_TOOL;
    m->content = json_text(content);
    if (m->role == CHAT_TOOL && json_is_array(content))
        return result_text(r, content, &m->content, err);
    if (json_is_text(content) || (!content && optional))
        return true;
    return fail(err, DS4_EINVAL, "message %zu: its content is no text", i);
}

static bool add_native(Request *r, const Json *o, ds4_err *err)
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
        ok = ok && add_calls(r, &m, json_member(o, "tool_calls"), i, true, err);
    }
    if (m.role == CHAT_TOOL)
        m.tool_call_id = json_text(json_member(o, "tool_call_id"));
    if (m.role == CHAT_SYSTEM || m.role == CHAT_DEVELOPER)
        ok = ok && add_tools(r, &m, json_member(o, "tools"), true, err) &&
             keep_json(r, json_member(o, "response_format"), &m.response_format, err);
    r->m[r->n++] = m;
    return ok;
}

/* The preview release's plain thinking is called high, the later one's low. */
static bool set_native_effort(Request *r, Json *effort, ds4_err *err)
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

static bool set_native_options(Request *r, Json *params, ds4_err *err)
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

bool request_native(Request *r, Str json, bool preview, ds4_err *err)
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

/* ---- OpenAI chat ------------------------------------------------------------------- */

/* The text of one content part. */
static bool part_text(const Json *part, Str *out, ds4_err *err)
{
    const Json *type = json_member(part, "type");
    if (json_is(type, "text") && json_is_text(json_member(part, "text"))) {
        *out = json_text(json_member(part, "text"));
        return true;
    }
    if (json_is(type, "image_url")) {
        *out = STR("[image omitted: this model cannot see images]");
        return true;
    }
    return fail(err, DS4_EINVAL, "a content part of type \"%.*s\" is not supported",
                STR_ARG(json_text(type)));
}

/* A text, or parts that become one, with blank lines between them. */
static bool content_text(Request *r, const Json *content, size_t i, Str *out, ds4_err *err)
{
    if (json_is_text(content)) {
        *out = json_text(content);
        return true;
    }
    if (!json_is_array(content))
        return fail(err, DS4_EINVAL, "message %zu: its content is neither text nor parts", i);
    Bytes b = { 0 };
    for (size_t k = 0; k < json_length(content); k++) {
        Str s = { 0 };
        if (!part_text(json_at(content, k), &s, err)) {
            bytes_release(&b);
            return false;
        }
        bytes_str(&b, k ? "\n\n" : "");
        bytes_put(&b, s.p, s.n);
    }
    return keep(r, &b, out, err);
}

static bool join(Request *r, Str a, Str b, Str c, Str *out, ds4_err *err)
{
    char *p = arena_alloc(&r->arena, a.n + b.n + c.n);
    if (!p)
        return fail(err, DS4_ENOMEM, "no memory for a message of %zu bytes", b.n);
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    memcpy(p + a.n + b.n, c.p, c.n);
    *out = (Str){ p, a.n + b.n + c.n };
    return true;
}

/* Leading system texts are one, with blank lines between them. The model knows
 * no later ones: they join the user's turn, where they stand. */
static bool add_system(Request *r, Str text, ds4_err *err)
{
    bool leading = r->n == 0 || (r->n == 1 && r->m[0].role == CHAT_SYSTEM);
    ChatMessage *m = &r->m[r->n];
    if (leading && r->n > 0)
        return join(r, r->m[0].content, STR("\n\n"), text, &r->m[0].content, err);
    r->n++;
    m->role = leading ? CHAT_SYSTEM : CHAT_USER;
    m->content = text;
    return leading ||
           join(r, STR("<system-reminder>\n"), text, STR("\n</system-reminder>"), &m->content, err);
}

/* The calls of an assistant, also in the older form: one, without a list. */
static bool add_chat_calls(Request *r, ChatMessage *m, const Json *o, size_t i, ds4_err *err)
{
    const Json *old = json_member(o, "function_call");
    if (!old)
        return add_calls(r, m, json_member(o, "tool_calls"), i, false, err);
    if (!json_is_text(json_member(old, "name")))
        return fail(err, DS4_EINVAL, "message %zu: its call has no function's name", i);
    ChatCall *call = arena_array(&r->arena, 1, sizeof *call);
    if (!call)
        return fail(err, DS4_ENOMEM, "no memory for a call");
    *call = (ChatCall){ .name = json_text(json_member(old, "name")),
                        .arguments = json_text(json_member(old, "arguments")) };
    m->calls = call;
    m->n_calls = 1;
    return true;
}

static bool add_chat(Request *r, const Json *o, size_t i, ds4_err *err)
{
    static const struct {
        const char *name;
        int role;
    } roles[] = { { "system", CHAT_SYSTEM }, { "developer", CHAT_SYSTEM },
                  { "user", CHAT_USER },     { "assistant", CHAT_ASSISTANT },
                  { "tool", CHAT_TOOL },     { "function", CHAT_TOOL } };
    const Json *role = json_member(o, "role"), *content = json_member(o, "content");
    ChatMessage m = { .role = -1 };
    if (!json_is_text(role))
        return fail(err, DS4_EINVAL, "message %zu has no role", i);
    for (size_t k = 0; k < COUNT(roles); k++)
        if (json_is(role, roles[k].name))
            m.role = roles[k].role;
    if (m.role < 0)
        return fail(err, DS4_EINVAL, "message %zu has the unknown role \"%.*s\"", i,
                    STR_ARG(json_text(role)));
    if (!(m.role == CHAT_ASSISTANT && !content) && !content_text(r, content, i, &m.content, err))
        return false;
    if (m.role == CHAT_SYSTEM)
        return add_system(r, m.content, err);
    if (m.role == CHAT_TOOL)
        m.tool_call_id = json_text(json_member(o, "tool_call_id"));
    if (m.role == CHAT_ASSISTANT) {
        m.reasoning = json_text(json_member(o, "reasoning_content"));
        if (!add_chat_calls(r, &m, o, i, err))
            return false;
    }
    r->m[r->n++] = m;
    return true;
}

/* Any of the ways in which clients switch thinking off. */
static bool thinking_off(Json *o)
{
    Json *kwargs = json_member(o, "chat_template_kwargs");
    return json_is(json_member(json_member(o, "thinking"), "type"), "disabled") ||
           json_is_bool(json_member(o, "think"), false) ||
           json_is_bool(json_member(kwargs, "thinking"), false) ||
           json_is_bool(json_member(kwargs, "enable_thinking"), false) ||
           json_is(json_member(o, "reasoning_effort"), "none") ||
           (!json_member(o, "reasoning_effort") &&
            json_is(json_member(o, "model"), "deepseek-chat"));
}

static bool set_chat_effort(Request *r, ds4_err *err)
{
    static const struct {
        const char *name;
        int think;
    } efforts[] = {
        { "minimal", CHAT_THINK_LOW }, { "low", CHAT_THINK_LOW },    { "medium", CHAT_THINK_HIGH },
        { "high", CHAT_THINK_HIGH },   { "xhigh", CHAT_THINK_HIGH }, { "max", CHAT_THINK_MAX },
        { "ultra", CHAT_THINK_MAX },
    };
    Json *effort = json_member(r->json, "reasoning_effort");
    int think = effort ? -1 : CHAT_THINK_HIGH;
    for (size_t i = 0; i < COUNT(efforts); i++)
        if (effort && json_is(effort, efforts[i].name))
            think = efforts[i].think;
    if (thinking_off(r->json))
        think = CHAT_THINK_OFF;
    if (think < 0)
        return fail(err, DS4_EINVAL, "reasoning_effort %s is not known",
                    json_object_to_json_string(effort));
    /* The preview release has one plain way to think. */
    r->opt.think = r->opt.preview && think == CHAT_THINK_LOW ? CHAT_THINK_HIGH : think;
    return true;
}

/* The system text, an empty one if there is none. */
static ChatMessage *system_message(Request *r)
{
    if (r->n == 0 || r->m[0].role != CHAT_SYSTEM) {
        memmove(r->m + 1, r->m, r->n * sizeof *r->m);
        r->m[0] = (ChatMessage){ .role = CHAT_SYSTEM };
        r->n++;
    }
    return &r->m[0];
}

/* Tools and format go with the system text. */
static bool set_chat_system(Request *r, ds4_err *err)
{
    const Json *format = json_member(r->json, "response_format"),
               *tools = json_member(r->json, "tools"), *old = json_member(r->json, "functions");
    bool has_tools = tools ? json_length(tools) || !json_is_array(tools) : json_length(old) > 0;
    if (has_tools && !add_tools(r, system_message(r), tools ? tools : old, tools != NULL, err))
        return false;
    return !format || json_is(json_member(format, "type"), "text") ||
           keep_json(r, format, &system_message(r)->response_format, err);
}

bool request_chat(Request *r, Str json, bool preview, ds4_err *err)
{
    if (!parse(r, json, preview, err))
        return false;
    Json *messages = json_member(r->json, "messages");
    bool ok = set_chat_effort(r, err) && start(r, NULL, messages, err);
    if (ok && json_length(messages) == 0)
        ok = fail(err, DS4_EINVAL, "\"messages\" is empty");
    for (size_t i = 0; i < json_length(messages) && ok; i++)
        ok = add_chat(r, json_at(messages, i), i, err);
    r->opt.escape_results = true;
    return ok && set_chat_system(r, err);
}
