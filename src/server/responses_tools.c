/* responses_tools.c - tools in the form of Responses.
 *
 * Functions are flat, and may stand in namespaces. A search for tools that the
 * client does, and the shell that it runs, are shown as functions; the answer
 * gives their calls back as what they are (responses_item.h). */
#include "responses_tools.h"
#include "tools_in.h"
#include <json-c/json.h>

/* What history stands for may not grow beyond this: a tool found again and
 * again is short to ask for and long to tell. */
#define MOST_EXPANDED ((size_t)8 << 20)

typedef bool (*ToolFn)(Request *r, const ToolGiven *g, void *user);

static bool is(const Json *tool, const char *type)
{
    return json_is(json_member(tool, "type"), type);
}

/* Has it a name of the API's, and is it the client that runs it? */
static bool is_clients(const Json *tool)
{
    return is(tool, LOCAL_SHELL) ||
           (is(tool, TOOL_SEARCH) && json_is(json_member(tool, "execution"), "client"));
}

/* Others run it, and the model is not told. */
static bool is_others(const Json *tool)
{
    static const char *const ours[] = { "function", "custom", "namespace" };
    bool known = is_clients(tool);
    for (size_t i = 0; i < COUNT(ours); i++)
        known |= is(tool, ours[i]);
    return !known && json_is_text(json_member(tool, "type"));
}

bool responses_declares(const Json *body, const char *type)
{
    const Json *tools = json_member(body, "tools");
    for (size_t i = 0; i < json_length(tools); i++)
        if (is(json_at(tools, i), type) && is_clients(json_at(tools, i)))
            return true;
    return false;
}

/* ---- reading lists of them ------------------------------------------------------------ */

static const char shell_schema[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"command\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},"
    "\"description\":\"The program and its arguments\"},"
    "\"working_directory\":{\"type\":\"string\"},\"timeout_ms\":{\"type\":\"integer\"},"
    "\"env\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}}},"
    "\"required\":[\"command\"],\"additionalProperties\":false}";

/* The shell comes without a schema: it gets one, in its own object, which lives
 * as long as the body. */
static bool give_shell(Request *r, Json *tool, ToolGiven *g)
{
    g->name = STR(LOCAL_SHELL);
    g->description = STR("Runs a command on the user's machine and gives back its output.");
    g->parameters = json_read(STR(shell_schema), NULL);
    if (g->parameters && json_object_object_add(tool, "parameters", g->parameters) == 0)
        return true;
    json_free(g->parameters);
    return request_no_memory(r);
}

static bool give_all(Request *r, const Json *list, Str space, ToolFn fn, void *user);

static bool give_one(Request *r, Json *tool, Str space, ToolFn fn, void *user)
{
    ToolGiven g = { .space = space,
                    .parameters = json_member(tool, "parameters"),
                    .deferred = json_is_bool(json_member(tool, "defer_loading"), true) };
    if (!json_is_object(tool))
        return request_wrong(r, "tools", "tools[%zu] is no object", r->at);
    if (is_others(tool))
        return true;
    if (!tools_read(r, tool, &g))
        return false;
    if (is(tool, "function"))
        return fn(r, &g, user);
    if (is(tool, "custom"))
        return tools_custom_format(r, json_member(tool, "format"), &g) && fn(r, &g, user);
    if (is(tool, "namespace") && !space.n && g.name.n)
        return give_all(r, json_member(tool, "tools"), g.name, fn, user);
    if (!is_clients(tool))
        return request_wrong(r, "tools", "tools[%zu]: the type or the name of a tool is missing",
                             r->at);
    g.name = STR(TOOL_SEARCH);
    return (is(tool, TOOL_SEARCH) || give_shell(r, tool, &g)) && fn(r, &g, user);
}

static bool give_all(Request *r, const Json *list, Str space, ToolFn fn, void *user)
{
    if (list && !json_is_array(list))
        return request_wrong(r, "tools", "tools is no list");
    for (size_t i = 0; i < json_length(list); i++) {
        if (!space.n)
            r->at = i;
        if (!give_one(r, json_at(list, i), space, fn, user))
            return false;
    }
    return true;
}

/* ---- declared now ----------------------------------------------------------------------- */

/* Who does not search cannot find what is put off: it is shown at once. */
static bool declare(Request *r, const ToolGiven *g, void *user)
{
    const bool *searches = user;
    ToolGiven as = *g;
    as.deferred &= *searches;
    return tools_add(r, &as);
}

bool responses_take_tools(Request *r)
{
    bool searches = responses_declares(r->body, TOOL_SEARCH);
    return give_all(r, json_member(r->body, "tools"), (Str){ 0 }, declare, &searches);
}

/* ---- found on the way -------------------------------------------------------------------- */

typedef struct {
    Str *names;
    size_t n, cap;
} Found;

static bool grow(Request *r, Found *f)
{
    if (f->n < f->cap)
        return true;
    size_t cap = f->cap ? 2 * f->cap : 8;
    Str *names = arena_array(&r->t->arena, cap, sizeof *names);
    if (!names)
        return request_no_memory(r);
    if (f->n)
        memcpy(names, f->names, f->n * sizeof *names);
    f->names = names;
    f->cap = cap;
    return true;
}

static bool find(Request *r, const ToolGiven *g, void *user)
{
    Found *f = user;
    ToolGiven as = *g;
    as.deferred = true;
    if (!grow(r, f) || !tools_full_name(r, g->space, g->name, &f->names[f->n]))
        return false;
    return tools_find(r->t, f->names[f->n++]) || tools_add(r, &as);
}

bool responses_found_tools(Request *r, const Json *list, Str *out)
{
    Found f = { 0 };
    Bytes b = { 0 };
    size_t at = r->at;
    bool ok = give_all(r, list, (Str){ 0 }, find, &f);
    r->at = at;
    if (!ok)
        return false;
    if (!tools_describe(r->t, f.names, f.n, MOST_EXPANDED - r->expanded, &b)) {
        bytes_release(&b);
        return request_wrong(r, r->list, "%s[%zu]: found tools stand for too much text", r->list,
                             r->at);
    }
    r->expanded += b.n;
    return request_keep(r, &b, out);
}

/* ---- choosing ---------------------------------------------------------------------------- */

/* The model's name for a tool that a choice names; empty: one that others run. */
static bool chosen_name(Request *r, const Json *choice, Str *out)
{
    *out = (Str){ 0 };
    if (is(choice, "function") || is(choice, "custom"))
        return tools_full_name(r, json_text(json_member(choice, "namespace")),
                               json_text(json_member(choice, "name")), out);
    if (is(choice, TOOL_SEARCH) || is(choice, LOCAL_SHELL))
        *out = json_text(json_member(choice, "type"));
    return true;
}

static bool take_allowed(Request *r, const Json *allowed)
{
    const Json *list = json_member(allowed, "tools");
    bool required = json_is(json_member(allowed, "mode"), "required");
    Str name;
    if (!json_length(list))
        return request_wrong(r, "tool_choice", "tool_choice.tools lists no tools");
    tools_bar_all(r->t);
    for (size_t i = 0; i < json_length(list); i++)
        if (!chosen_name(r, json_at(list, i), &name) || (name.n && !tools_allow(r, name)))
            return false;
    return tools_choose(r, required ? CHOOSE_REQUIRED : CHOOSE_AUTO, (Str){ 0 });
}

static bool take_named(Request *r, const Json *choice)
{
    Str name;
    if (!chosen_name(r, choice, &name))
        return false;
    if (name.n)
        return tools_choose(r, CHOOSE_NAMED, name);
    return request_wrong(r, "tool_choice", "tool_choice: '%.*s' is no kind of tool to call here",
                         STR_ARG(json_text(json_member(choice, "type"))));
}

bool responses_take_choice(Request *r)
{
    const Json *m = json_member(r->body, "tool_choice");
    if (!request_bool(r, "parallel_tool_calls", &r->t->parallel))
        return false;
    if (!m || json_is(m, "auto"))
        return tools_choose(r, CHOOSE_AUTO, (Str){ 0 });
    if (json_is(m, "none"))
        return tools_choose(r, CHOOSE_NONE, (Str){ 0 });
    if (json_is(m, "required"))
        return tools_choose(r, CHOOSE_REQUIRED, (Str){ 0 });
    if (is(m, "allowed_tools"))
        return take_allowed(r, m);
    if (json_is_object(m))
        return take_named(r, m);
    return request_wrong(r, "tool_choice", "tool_choice '%.*s' is none of auto, none, required",
                         STR_ARG(json_text(m)));
}
