/* request.c - a request's JSON to the messages and options of a prompt. */
#include "request.h"
#include "../json/json.h"
#include <json-c/json.h>

typedef struct json_object Json;

/* ---- reading ---------------------------------------------------------------------- */

/* NULL where there is no such member, or it is null. */
static Json *member(Json *o, const char *key)
{
    Json *found = NULL;
    if (json_object_is_type(o, json_type_object))
        json_object_object_get_ex(o, key, &found);
    return found;
}

static bool is_str(Json *o) { return json_object_is_type(o, json_type_string); }

static Str text_of(Json *o)
{
    return is_str(o) ? (Str){ json_object_get_string(o), (size_t)json_object_get_string_len(o) }
                     : (Str){ 0 };
}

static bool is(Json *o, const char *text) { return is_str(o) && str_eq(text_of(o), str_of(text)); }

static size_t length(Json *o)
{
    return json_object_is_type(o, json_type_array) ? json_object_array_length(o) : 0;
}

static bool not_yet(Json *o, ds4_err *err)
{
    return length(o) ? fail(err, DS4_EINVAL, "tools are not supported by this version") : true;
}

/* A system text's format, rendered by the rules of the prompt language. */
static bool write_format(Request *r, Json *format, Str *out, ds4_err *err)
{
    Bytes b = { 0 };
    if (!format)
        return true;
    json_write(&b, format);
    char *copy = b.failed ? NULL : arena_str(&r->arena, bytes_view(&b));
    *out = (Str){ copy, b.n };
    bytes_release(&b);
    return copy ? true : fail(err, DS4_ENOMEM, "no memory for the response format");
}

/* Room for the messages of two lists and one more. */
static bool start(Request *r, Json *context, Json *messages, ds4_err *err)
{
    if (!json_object_is_type(messages, json_type_array))
        return fail(err, DS4_EINVAL, "\"messages\" is no array");
    if (context && !json_object_is_type(context, json_type_array))
        return fail(err, DS4_EINVAL, "\"context\" is no array");
    r->m = arena_array(&r->arena, length(context) + length(messages) + 1, sizeof *r->m);
    return r->m ? true : fail(err, DS4_ENOMEM, "no memory for %zu messages", length(messages));
}

static bool parse(Request *r, Str json, bool preview, ds4_err *err)
{
    *r = (Request){ .opt.preview = preview, .json = json_read(json, err) };
    if (r->json && !json_object_is_type(r->json, json_type_object))
        return fail(err, DS4_EINVAL, "the request is no JSON object");
    return r->json && not_yet(member(r->json, "tools"), err) &&
           not_yet(member(r->json, "functions"), err);
}

void request_release(Request *r)
{
    json_object_put(r->json);
    arena_release(&r->arena);
    *r = (Request){ 0 };
}

/* ---- the official encoder's form --------------------------------------------------- */

/* Its content must be text; some roles may leave it out. */
static bool check_content(int role, Json *content, size_t i, ds4_err *err)
{
    bool optional = role == CHAT_SYSTEM || role == CHAT_ASSISTANT;
    if (is_str(content) || (!content && optional))
        return true;
    return fail(err, DS4_EINVAL, "message %zu: its content is no text", i);
}

static bool add_native(Request *r, Json *o, ds4_err *err)
{
    Json *role = member(o, "role"), *task = member(o, "task");
    size_t i = r->n;
    if (!is_str(role))
        return fail(err, DS4_EINVAL, "message %zu has no role", i);
    if (is(role, "tool"))
        return fail(err, DS4_EINVAL, "message %zu: tools are not supported by this version", i);
    ChatMessage m = { .role = chat_role(text_of(role)), .content = text_of(member(o, "content")) };
    if (m.role < 0)
        return fail(err, DS4_EINVAL, "message %zu has the unknown role \"%.*s\"", i,
                    STR_ARG(text_of(role)));
    if (task && (m.task = chat_task(text_of(task))) < 0)
        return fail(err, DS4_EINVAL, "message %zu has the unknown task \"%.*s\"", i,
                    STR_ARG(text_of(task)));
    if (m.role != CHAT_USER && !not_yet(member(o, "tools"), err))
        return false;
    if (m.role == CHAT_ASSISTANT) {
        m.reasoning = text_of(member(o, "reasoning_content"));
        m.unfinished = json_object_get_boolean(member(o, "wo_eos"));
        if (!not_yet(member(o, "tool_calls"), err))
            return false;
    }
    if ((m.role == CHAT_SYSTEM || m.role == CHAT_DEVELOPER) &&
        !write_format(r, member(o, "response_format"), &m.response_format, err))
        return false;
    r->m[r->n++] = m;
    return check_content(m.role, member(o, "content"), i, err);
}

/* The preview release's plain thinking is called high, the later one's low. */
static bool set_native_effort(Request *r, Json *effort, ds4_err *err)
{
    static const char *const names[] = { NULL, "low", "high", "max" };
    r->opt.think = r->opt.preview ? CHAT_THINK_HIGH : CHAT_THINK_LOW;
    if (!effort)
        return true;
    for (int i = CHAT_THINK_LOW; i <= CHAT_THINK_MAX; i++) {
        if (is(effort, names[i])) {
            r->opt.think = i;
            return true;
        }
    }
    return fail(err, DS4_EINVAL, "reasoning_effort is %s, expected low, high or max",
                json_object_to_json_string(effort));
}

static bool set_native_options(Request *r, Json *params, ds4_err *err)
{
    Json *mode = member(r->json, "thinking_mode"), *drop = member(params, "drop_thinking"),
         *bos = member(params, "add_default_bos_token");
    if (!is(mode, "chat") && !is(mode, "thinking"))
        return fail(err, DS4_EINVAL, "thinking_mode is \"%.*s\", expected chat or thinking",
                    STR_ARG(text_of(mode)));
    r->opt.keep_reasoning = drop && !json_object_get_boolean(drop);
    r->opt.no_bos = bos && !json_object_get_boolean(bos);
    if (!set_native_effort(r, member(params, "reasoning_effort"), err))
        return false;
    if (is(mode, "chat"))
        r->opt.think = CHAT_THINK_OFF;
    return true;
}

bool request_native(Request *r, Str json, bool preview, ds4_err *err)
{
    if (!parse(r, json, preview, err))
        return false;
    Json *params = member(r->json, "params"), *messages = member(r->json, "messages");
    Json *context = member(params, "context");
    if (!context)
        context = member(r->json, "context");
    bool ok = set_native_options(r, params, err) && start(r, context, messages, err);
    for (size_t i = 0; i < length(context) && ok; i++)
        ok = add_native(r, json_object_array_get_idx(context, i), err);
    r->opt.context = r->n;
    for (size_t i = 0; i < length(messages) && ok; i++)
        ok = add_native(r, json_object_array_get_idx(messages, i), err);
    return ok;
}

/* ---- OpenAI chat ------------------------------------------------------------------- */

/* The text of one content part. */
static bool part_text(Json *part, Str *out, ds4_err *err)
{
    Json *type = member(part, "type");
    if (is(type, "text") && is_str(member(part, "text"))) {
        *out = text_of(member(part, "text"));
        return true;
    }
    if (is(type, "image_url")) {
        *out = STR("[image omitted: this model cannot see images]");
        return true;
    }
    return fail(err, DS4_EINVAL, "a content part of type \"%.*s\" is not supported",
                STR_ARG(text_of(type)));
}

/* A text, or parts that become one, with blank lines between them. */
static bool content_text(Request *r, Json *content, size_t i, Str *out, ds4_err *err)
{
    if (is_str(content)) {
        *out = text_of(content);
        return true;
    }
    if (!json_object_is_type(content, json_type_array))
        return fail(err, DS4_EINVAL, "message %zu: its content is neither text nor parts", i);
    Bytes b = { 0 };
    bool ok = true;
    for (size_t k = 0; k < length(content) && ok; k++) {
        Str s = { 0 };
        ok = part_text(json_object_array_get_idx(content, k), &s, err);
        bytes_str(&b, k ? "\n\n" : "");
        bytes_put(&b, s.p, s.n);
    }
    char *copy = ok && !b.failed ? arena_str(&r->arena, bytes_view(&b)) : NULL;
    if (ok && !copy)
        ok = fail(err, DS4_ENOMEM, "no memory for message %zu", i);
    *out = (Str){ copy, b.n };
    bytes_release(&b);
    return ok;
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

static bool add_chat(Request *r, Json *o, size_t i, ds4_err *err)
{
    Json *role = member(o, "role"), *content = member(o, "content");
    Str text = { 0 };
    if (!is_str(role))
        return fail(err, DS4_EINVAL, "message %zu has no role", i);
    if (is(role, "tool") || is(role, "function"))
        return fail(err, DS4_EINVAL, "message %zu: tools are not supported by this version", i);
    bool assistant = is(role, "assistant"), user = is(role, "user");
    if (!assistant && !user && !is(role, "system") && !is(role, "developer"))
        return fail(err, DS4_EINVAL, "message %zu has the unknown role \"%.*s\"", i,
                    STR_ARG(text_of(role)));
    if (!(assistant && !content) && !content_text(r, content, i, &text, err))
        return false;
    if (!assistant && !user)
        return add_system(r, text, err);
    r->m[r->n++] = (ChatMessage){ .role = user ? CHAT_USER : CHAT_ASSISTANT,
                                  .content = text,
                                  .reasoning = text_of(member(o, "reasoning_content")) };
    return user || (not_yet(member(o, "tool_calls"), err) &&
                    (!member(o, "function_call") ||
                     fail(err, DS4_EINVAL, "tools are not supported by this version")));
}

static bool is_false(Json *o)
{
    return json_object_is_type(o, json_type_boolean) && !json_object_get_boolean(o);
}

/* Any of the ways in which clients switch thinking off. */
static bool thinking_off(Json *o)
{
    Json *kwargs = member(o, "chat_template_kwargs");
    return is(member(member(o, "thinking"), "type"), "disabled") || is_false(member(o, "think")) ||
           is_false(member(kwargs, "thinking")) || is_false(member(kwargs, "enable_thinking")) ||
           is(member(o, "reasoning_effort"), "none") ||
           (!member(o, "reasoning_effort") && is(member(o, "model"), "deepseek-chat"));
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
    Json *effort = member(r->json, "reasoning_effort");
    int think = effort ? -1 : CHAT_THINK_HIGH;
    for (size_t i = 0; i < COUNT(efforts); i++)
        if (effort && is(effort, efforts[i].name))
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

/* The format goes with the system text, an empty one if there is none. */
static bool set_chat_format(Request *r, ds4_err *err)
{
    Json *format = member(r->json, "response_format");
    if (!format || is(member(format, "type"), "text"))
        return true;
    if (r->n == 0 || r->m[0].role != CHAT_SYSTEM) {
        memmove(r->m + 1, r->m, r->n * sizeof *r->m);
        r->m[0] = (ChatMessage){ .role = CHAT_SYSTEM };
        r->n++;
    }
    return write_format(r, format, &r->m[0].response_format, err);
}

bool request_chat(Request *r, Str json, bool preview, ds4_err *err)
{
    if (!parse(r, json, preview, err))
        return false;
    Json *messages = member(r->json, "messages");
    bool ok = set_chat_effort(r, err) && start(r, NULL, messages, err);
    if (ok && length(messages) == 0)
        ok = fail(err, DS4_EINVAL, "\"messages\" is empty");
    for (size_t i = 0; i < length(messages) && ok; i++)
        ok = add_chat(r, json_object_array_get_idx(messages, i), i, err);
    return ok && set_chat_format(r, err);
}
