/* dsml.c - calls to markup, and the official parser's strict way back. */
#include "dsml.h"
#include "../json/json.h"
#include "chat_runs.h"
#include <json-c/json.h>

/* ---- out ------------------------------------------------------------------------- */

static const char dsml_name[] = "｜DSML｜";

typedef struct {
    ChatPrompt *p;
    const ds4_vocab *v;
    ds4_err *err;
} Writer;

static void text(const Writer *w, Str s) { runs_text(w->p, s); }

/* open is "<" or "</". */
static bool tag(const Writer *w, Str open, Str rest)
{
    text(w, open);
    if (!runs_control(w->p, vocab_controls(w->v)->dsml, dsml_name, w->err))
        return false;
    text(w, rest);
    return true;
}

static bool put_parameter(const Writer *w, Str name, bool is_text, Str value)
{
    if (!tag(w, STR("<"), STR("parameter name=\"")))
        return false;
    text(w, name);
    text(w, is_text ? STR("\" string=\"true\">") : STR("\" string=\"false\">"));
    text(w, value);
    return tag(w, STR("</"), STR("parameter>"));
}

static bool put_member(const Writer *w, Str name, const Json *value)
{
    Bytes json = { 0 };
    bool is_text = json_is_text(value);
    if (!is_text)
        json_write(&json, value);
    w->p->failed |= json.failed;
    Str kept = runs_keep(w->p, is_text ? json_text(value) : bytes_view(&json));
    bytes_release(&json);
    return put_parameter(w, runs_keep(w->p, name), is_text, kept);
}

/* What is no object is kept as it is, as one parameter. */
static bool put_arguments(const Writer *w, Str arguments)
{
    ds4_err err;
    Json *o = json_read(arguments, &err);
    bool ok = true, first = true;
    if (!json_is_object(o)) {
        bool memory = !o && err.code == DS4_ENOMEM;
        json_free(o);
        return memory ? fail(w->err, DS4_ENOMEM, "%s", err.msg)
                      : put_parameter(w, STR("arguments"), true, arguments);
    }
    json_object_object_foreach(o, name, value)
    {
        if (!first)
            text(w, STR("\n"));
        first = false;
        ok = ok && put_member(w, str_of(name), value);
    }
    json_free(o);
    return ok;
}

static bool put_call(const Writer *w, const ChatCall *c)
{
    if (!tag(w, STR("<"), STR("invoke name=\"")))
        return false;
    text(w, c->name);
    text(w, STR("\">\n"));
    if (!put_arguments(w, c->arguments))
        return false;
    text(w, STR("\n"));
    return tag(w, STR("</"), STR("invoke>\n"));
}

bool dsml_render(ChatPrompt *p, const ds4_vocab *v, const ChatCall *calls, size_t n, ds4_err *err)
{
    const Writer w = { p, v, err };
    if (!tag(&w, STR("\n\n<"), STR("tool_calls>\n")))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!put_call(&w, &calls[i]))
            return false;
    return tag(&w, STR("</"), STR("tool_calls>"));
}

/* ---- back ------------------------------------------------------------------------ */

#define D             "｜DSML｜"
#define END_OF_TURN   "<｜end▁of▁sentence｜>"
#define BLOCK         "\n\n<" D "tool_calls"
#define BLOCK_END     "</" D "tool_calls>"
#define INVOKE        "<" D "invoke"
#define INVOKE_END    "</" D "invoke"
#define PARAMETER     "<" D "parameter"
#define PARAMETER_END "/" D "parameter"

typedef struct {
    Str text;
    size_t at;
    DsmlAnswer *out;
    size_t cap; /* of out->calls */
    ds4_err *err;
} Reader;

static bool wrong(const Reader *r, const char *what)
{
    return fail(r->err, DS4_EINVAL, "%s before byte %zu", what, r->at);
}

static bool starts(Str s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p, with, n) == 0;
}

/* Go behind whichever of a and b (may be NULL) comes first, returning the text
 * before it; *which: 0, 1, or -1 at the end of the text. */
static Str until(Reader *r, const char *a, const char *b, int *which)
{
    const char *const stops[] = { a, b };
    size_t from = r->at;
    for (; r->at < r->text.n; r->at++) {
        Str rest = { r->text.p + r->at, r->text.n - r->at };
        for (*which = 0; *which < 2; ++*which)
            if (stops[*which] && starts(rest, stops[*which])) {
                Str before = { r->text.p + from, r->at - from };
                r->at += strlen(stops[*which]);
                return before;
            }
    }
    *which = -1;
    return (Str){ r->text.p + from, r->text.n - from };
}

/* Take the ends off; false where they are not there. */
static bool strip(Str *s, Str head, Str tail)
{
    if (s->n < head.n + tail.n || memcmp(s->p, head.p, head.n) != 0 ||
        memcmp(s->p + s->n - tail.n, tail.p, tail.n) != 0)
        return false;
    *s = (Str){ s->p + head.n, s->n - head.n - tail.n };
    return true;
}

/* ' name="K" string="B">V<' */
static bool split_parameter(Str s, Str *name, bool *is_text, Str *value)
{
    static const Str kinds[] = { { "\" string=\"true\">", 16 }, { "\" string=\"false\">", 17 } };
    if (!strip(&s, STR(" name=\""), STR("<")) && !strip(&s, STR(" name=\""), STR("<\n")))
        return false;
    for (size_t i = 0; i < s.n; i++)
        for (size_t k = 0; k < COUNT(kinds); k++)
            if (s.n - i >= kinds[k].n && memcmp(s.p + i, kinds[k].p, kinds[k].n) == 0) {
                *name = (Str){ s.p, i };
                *is_text = k == 0;
                *value = (Str){ s.p + i + kinds[k].n, s.n - i - kinds[k].n };
                return true;
            }
    return false;
}

/* Remember a name; seen holds Strs. */
static bool is_new(Bytes *seen, Str name)
{
    for (size_t at = 0; at < seen->n; at += sizeof name) {
        Str other;
        memcpy(&other, seen->p + at, sizeof other);
        if (str_eq(other, name))
            return false;
    }
    bytes_put(seen, &name, sizeof name);
    return true;
}

static bool read_parameter(Reader *r, Bytes *json, Bytes *seen)
{
    int which;
    Str name, value, s = until(r, PARAMETER_END, NULL, &which);
    bool is_text;
    if (which < 0 || !split_parameter(s, &name, &is_text, &value))
        return wrong(r, "a parameter is not formed as it should be");
    if (!is_new(seen, name))
        return wrong(r, "a parameter's name comes twice");
    bytes_str(json, json->n > 1 ? ", " : "");
    json_write_str(json, name);
    bytes_str(json, ": ");
    if (is_text)
        json_write_str(json, value);
    else
        bytes_put(json, value.p, value.n);
    return true;
}

static bool read_parameters(Reader *r, Bytes *json, int which)
{
    Bytes seen = { 0 };
    bool ok = true;
    while (ok && which == 0) {
        ok = read_parameter(r, json, &seen);
        if (ok && (!str_eq(until(r, PARAMETER, INVOKE_END, &which), STR(">\n")) || which < 0))
            ok = wrong(r, "something else than a line's end follows a parameter");
    }
    json->failed |= seen.failed;
    bytes_release(&seen);
    return ok;
}

static bool keep(Reader *r, Str s, Str *out)
{
    *out = (Str){ arena_str(&r->out->arena, s), s.n };
    return out->p ? true : fail(r->err, DS4_ENOMEM, "no memory for an answer");
}

static bool add_call(Reader *r, Str name, Str arguments)
{
    DsmlAnswer *a = r->out;
    if (a->n_calls == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 4;
        ChatCall *grown = arena_array(&a->arena, cap, sizeof *grown);
        if (!grown)
            return fail(r->err, DS4_ENOMEM, "no memory for %zu calls", cap);
        if (a->n_calls)
            memcpy(grown, a->calls, a->n_calls * sizeof *grown);
        a->calls = grown;
        r->cap = cap;
    }
    ChatCall *c = &a->calls[a->n_calls++];
    c->name = name;
    return keep(r, arguments, &c->arguments);
}

static bool read_call(Reader *r)
{
    int which;
    Bytes json = { 0 };
    Str name = until(r, PARAMETER, INVOKE_END, &which);
    /* The reference's pattern ends before a last line break, too. */
    if (which < 0 || (!strip(&name, STR(" name=\""), STR("\">\n")) &&
                      !strip(&name, STR(" name=\""), STR("\">\n\n"))))
        return wrong(r, "a tool's name is not formed as it should be");
    bytes_byte(&json, '{');
    bool ok = read_parameters(r, &json, which);
    bytes_byte(&json, '}');
    if (ok && json.failed)
        ok = fail(r->err, DS4_ENOMEM, "no memory for a call");
    ok = ok && add_call(r, name, bytes_view(&json));
    bytes_release(&json);
    return ok;
}

static bool read_calls(Reader *r)
{
    for (int which = 0; r->at < r->text.n;) {
        if (!str_eq(until(r, INVOKE, BLOCK_END, &which), STR(">\n")) || which < 0)
            return wrong(r, "the calls are not formed as they should be");
        if (which == 1)
            break;
        if (!read_call(r))
            return false;
    }
    int which;
    return until(r, END_OF_TURN, NULL, &which).n == 0 || wrong(r, "text follows the calls");
}

static bool check_plain(const Reader *r, Str s)
{
    static const char *const marks[] = { "<｜begin▁of▁sentence｜>", END_OF_TURN, "<think>",
                                         "</think>", D };
    for (size_t i = 0; i < s.n; i++)
        for (size_t k = 0; k < COUNT(marks); k++)
            if (starts((Str){ s.p + i, s.n - i }, marks[k]))
                return fail(r->err, DS4_EINVAL, "the text holds %s", marks[k]);
    return true;
}

static bool read_answer(Reader *r, bool thinking)
{
    int which;
    if (thinking) {
        r->out->reasoning = until(r, "</think>", BLOCK, &which);
        if (which != 0)
            return wrong(r, "there is no </think>");
    }
    r->out->content = until(r, END_OF_TURN, BLOCK, &which);
    if (which < 0)
        return wrong(r, "the end of the turn is missing");
    if (which == 1 && !read_calls(r))
        return false;
    if (r->at < r->text.n)
        return wrong(r, "text follows the end of the turn");
    return check_plain(r, r->out->content) && check_plain(r, r->out->reasoning);
}

bool dsml_parse(DsmlAnswer *out, Str s, bool thinking, ds4_err *err)
{
    *out = (DsmlAnswer){ 0 };
    Reader r = { .text = s, .out = out, .err = err };
    bool ok = read_answer(&r, thinking);
    if (!ok)
        dsml_release(out);
    return ok;
}

void dsml_release(DsmlAnswer *a)
{
    arena_release(&a->arena);
    *a = (DsmlAnswer){ 0 };
}
