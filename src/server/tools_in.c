/* tools_in.c - declared tools.
 *
 * The prompt's line of a tool is made of its name, description and parameters
 * in this order, whatever else came along and in whatever order: so that marks
 * which move from request to request do not change the prompt. The schema's
 * members keep the client's order. */
#include "tools_in.h"

/* No client declares a tenth of this; names are compared pairwise. */
enum { MOST_TOOLS = 2048, MOST_NAME = 256 };

/* Control characters, blanks and what ends an attribute would break the markup. */
static bool name_fits(Str name)
{
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        if (c <= ' ' || c == 0x7f || c == '"' || c == '<' || c == '>')
            return false;
    }
    return name.n > 0 && name.n <= MOST_NAME;
}

Tool *tools_find(const Turn *t, Str name)
{
    for (size_t i = 0; i < t->n_tools; i++)
        if (str_eq(t->tools[i].name, name))
            return &t->tools[i];
    return NULL;
}

bool tools_full_name(Request *r, Str space, Str name, Str *out)
{
    Bytes b = { 0 };
    *out = name;
    if (!space.n)
        return true;
    bytes_put(&b, space.p, space.n);
    bytes_str(&b, "__");
    bytes_put(&b, name.p, name.n);
    return request_keep(r, &b, out);
}

/* ---- the line of the prompt --------------------------------------------------------- */

/* A custom tool is shown as a function of one text. */
static void write_custom(Bytes *b, const ToolGiven *g)
{
    bytes_str(b, "{\"type\": \"object\", \"properties\": {\"input\": {\"type\": \"string\"");
    if (g->grammar.n) {
        bytes_str(b, ", \"description\": \"Text in the form of this ");
        json_write_chars(b, g->syntax);
        bytes_str(b, ":\\n");
        json_write_chars(b, g->grammar);
        bytes_byte(b, '"');
    }
    bytes_str(b, "}}, \"required\": [\"input\"]}");
}

static bool write_line(Request *r, const ToolGiven *g, Tool *tool)
{
    Bytes b = { 0 };
    bytes_str(&b, "{\"name\": ");
    json_write_str(&b, tool->name);
    if (tool->description.n) {
        bytes_str(&b, ", \"description\": ");
        json_write_str(&b, tool->description);
    }
    if (g->parameters || g->kind == TOOL_CUSTOM)
        bytes_str(&b, ", \"parameters\": ");
    if (g->kind == TOOL_CUSTOM)
        write_custom(&b, g);
    else if (g->parameters)
        json_write(&b, g->parameters);
    bytes_byte(&b, '}');
    return request_keep(r, &b, &tool->function);
}

/* ---- adding -------------------------------------------------------------------------- */

/* Room for one more; powers of two, so that what was there is moved seldom. */
static bool grow(Request *r)
{
    Turn *t = r->t;
    if (t->n_tools & (t->n_tools - 1) || t->n_tools == 1)
        return true;
    size_t cap = t->n_tools ? 2 * t->n_tools : 2;
    Tool *more = arena_array(&t->arena, cap, sizeof *more);
    if (!more)
        return request_no_memory(r);
    if (t->n_tools)
        memcpy(more, t->tools, t->n_tools * sizeof *more);
    t->tools = more;
    return true;
}

bool tools_read(Request *r, const Json *tool, ToolGiven *g)
{
    return request_text_of(r, "tools", tool, "name", &g->name) &&
           request_text_of(r, "tools", tool, "description", &g->description) &&
           request_bool_of(r, "tools", tool, "strict", &g->strict);
}

bool tools_add(Request *r, const ToolGiven *g)
{
    Turn *t = r->t;
    Tool tool = { .kind = g->kind,
                  .wire_name = g->name,
                  .space = g->space,
                  .parameters = g->parameters,
                  .grammar = g->grammar,
                  .syntax = g->syntax,
                  .deferred = g->deferred,
                  .strict = g->strict };
    if (t->n_tools >= MOST_TOOLS)
        return request_wrong(r, "tools", "more than %d tools", MOST_TOOLS);
    if (!name_fits(g->name) || (g->space.n && !name_fits(g->space)))
        return request_wrong(r, "tools", "tools[%zu]: '%.*s' is no name of a tool", r->at,
                             STR_ARG(g->name));
    if (g->parameters && !json_is_object(g->parameters))
        return request_wrong(r, "tools", "tools[%zu]: the schema of %.*s is no object", r->at,
                             STR_ARG(g->name));
    if (!tools_full_name(r, g->space, g->name, &tool.name) ||
        !request_clean(r, g->description, &tool.description))
        return false;
    if (tools_find(t, tool.name))
        return request_wrong(r, "tools", "tools[%zu]: a second tool named %.*s", r->at,
                             STR_ARG(tool.name));
    if (!write_line(r, g, &tool) || !grow(r))
        return false;
    t->tools[t->n_tools++] = tool;
    return true;
}

bool tools_custom_format(Request *r, const Json *format, ToolGiven *g)
{
    const Json *inner = json_member(format, "grammar");
    g->kind = TOOL_CUSTOM;
    if (!format || json_is(json_member(format, "type"), "text"))
        return true;
    if (!json_is(json_member(format, "type"), "grammar"))
        return request_wrong(r, "tools", "tools[%zu]: format.type is neither text nor grammar",
                             r->at);
    if (!inner)
        inner = format;
    g->syntax = json_text(json_member(inner, "syntax"));
    g->grammar = json_text(json_member(inner, "definition"));
    if (!str_eq(g->syntax, STR("lark")) && !str_eq(g->syntax, STR("regex")))
        return request_wrong(r, "tools", "tools[%zu]: the syntax '%.*s' is neither lark nor regex",
                             r->at, STR_ARG(g->syntax));
    return g->grammar.n ||
           request_wrong(r, "tools", "tools[%zu]: the grammar has no definition", r->at);
}

/* ---- choosing ------------------------------------------------------------------------ */

bool tools_choose(Request *r, enum ToolChoice choice, Str name)
{
    if (choice == CHOOSE_NAMED && !tools_find(r->t, name))
        return request_wrong(r, "tool_choice", "tool_choice: no tool is named '%.*s'",
                             STR_ARG(name));
    if (choice == CHOOSE_REQUIRED && !r->t->n_tools)
        return request_wrong(r, "tool_choice", "tool_choice: a call is required and no tool given");
    r->t->choice = choice;
    r->t->choice_name = choice == CHOOSE_NAMED ? name : (Str){ 0 };
    return true;
}

void tools_bar_all(Turn *t)
{
    for (size_t i = 0; i < t->n_tools; i++)
        t->tools[i].barred = true;
}

bool tools_allow(Request *r, Str name)
{
    Tool *tool = tools_find(r->t, name);
    if (!tool)
        return request_wrong(r, "tool_choice", "tool_choice: no tool is named '%.*s'",
                             STR_ARG(name));
    tool->barred = false;
    return true;
}

void tools_custom_arguments(Str input, Bytes *out)
{
    bytes_str(out, "{\"input\": ");
    json_write_str(out, input);
    bytes_byte(out, '}');
}

/* ---- showing ------------------------------------------------------------------------- */

bool tools_lines(Request *r, const Str **lines, size_t *n)
{
    const Turn *t = r->t;
    Str *line = arena_array(&r->t->arena, t->n_tools, sizeof *line);
    if (!line)
        return request_no_memory(r);
    *n = 0;
    for (size_t i = 0; i < t->n_tools; i++)
        if (!t->tools[i].deferred)
            line[(*n)++] = t->tools[i].function;
    *lines = line;
    return true;
}

/* The order that Claude Code's ToolSearch announces: description first. */
static void write_reference(const Turn *t, Str name, Bytes *out)
{
    const Tool *tool = tools_find(t, name);
    bytes_str(out, "<function>{");
    if (tool && tool->description.n) {
        bytes_str(out, "\"description\": ");
        json_write_str(out, tool->description);
        bytes_str(out, ", ");
    }
    bytes_str(out, "\"name\": ");
    json_write_str(out, name);
    if (tool && tool->parameters) {
        bytes_str(out, ", \"parameters\": ");
        json_write(out, tool->parameters);
    }
    bytes_str(out, "}</function>\n");
}

bool tools_describe(const Turn *t, const Str *names, size_t n, size_t most, Bytes *out)
{
    size_t before = out->n;
    bytes_str(out, "<functions>\n");
    for (size_t i = 0; i < n && out->n - before <= most; i++)
        write_reference(t, names[i], out);
    bytes_str(out, "</functions>");
    return out->n - before <= most;
}
