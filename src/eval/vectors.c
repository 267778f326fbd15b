/* vectors.c - reference continuations from JSON Lines, and to them. */
#include "vectors.h"
#include "vectors_parts.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEPTH = 8, MOST_TOP = 4096, MOST_HEX = 2048 };

/* ---- lines --------------------------------------------------------------------------- */

bool reading_fail(Reading *r, const char *fmt, ...)
{
    char message[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    return fail(r->err, DS4_EFORMAT, "%.60s, line %d: %s", r->what, r->line, message);
}

bool reading_line(Reading *r, Str *rest, Str *line)
{
    if (!rest->n)
        return false;
    const char *end = memchr(rest->p, '\n', rest->n);
    size_t n = end ? (size_t)(end - rest->p) : rest->n, skip = n + (end != NULL);
    *line = (Str){ rest->p, n };
    if (line->n && line->p[line->n - 1] == '\r')
        line->n--;
    *rest = (Str){ rest->p + skip, rest->n - skip };
    r->line++;
    return true;
}

static bool is_blank(Str line)
{
    size_t i = 0;
    while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t'))
        i++;
    return i == line.n || line.p[i] == '#';
}

VectorCase *reading_case(Reading *r)
{
    Vectors *v = r->v;
    if (v->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        VectorCase *p = realloc(v->cases, cap * sizeof *p);
        if (!p) {
            fail(r->err, DS4_ENOMEM, "no memory for %zu cases", cap);
            return NULL;
        }
        v->cases = p;
        r->cap = cap;
    }
    v->cases[v->n] = (VectorCase){ 0 };
    return &v->cases[v->n++];
}

static void *take(Reading *r, size_t n, size_t size)
{
    void *p = arena_array(&r->v->arena, n, size);
    if (!p)
        fail(r->err, DS4_ENOMEM, "no memory for %zu parts of a case", n);
    return p;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool reading_hex(Reading *r, Str hex, Str *out)
{
    if (!hex.n || hex.n % 2 || hex.n > MOST_HEX)
        return reading_fail(r, "a token of %zu hexadecimal digits", hex.n);
    char *p = take(r, hex.n / 2, 1);
    if (!p)
        return false;
    for (size_t i = 0; i < hex.n; i += 2) {
        int high = hex_digit(hex.p[i]), low = hex_digit(hex.p[i + 1]);
        if (high < 0 || low < 0)
            return reading_fail(r, "'%.*s' is not hexadecimal", (int)MIN(hex.n, 32), hex.p);
        p[i / 2] = (char)(high << 4 | low);
    }
    *out = (Str){ p, hex.n / 2 };
    return true;
}

/* ---- tokens -------------------------------------------------------------------------- */

static bool read_name(Reading *r, const Json *o, VectorToken *t)
{
    uint64_t id;
    *t = (VectorToken){ .id = -1, .logprob = NAN };
    if (json_is_text(o))
        return reading_hex(r, json_text(o), &t->bytes);
    if (!json_whole(o, INT32_MAX, &id))
        return reading_fail(r, "a token is its bytes in hexadecimal, or its id");
    t->id = (int32_t)id;
    return true;
}

static bool read_logprob(Reading *r, const Json *o, double *out)
{
    if (!json_number(o, out) || !(*out <= 1e-3))
        return reading_fail(r, "logprob must be a number of at most 0");
    return true;
}

static bool read_top(Reading *r, const Json *o, VectorStep *s)
{
    if (!o)
        return true;
    s->n_top = json_length(o);
    if (!json_is_array(o) || s->n_top > MOST_TOP)
        return reading_fail(r, "top must be an array of at most %d tokens", MOST_TOP);
    if (!(s->top = take(r, s->n_top, sizeof *s->top)))
        return false;
    for (size_t i = 0; i < s->n_top; i++) {
        Json *pair = json_at(o, i);
        if (!json_is_array(pair) || json_length(pair) != 2)
            return reading_fail(r, "top[%zu] must be [token, logprob]", i);
        if (!read_name(r, json_at(pair, 0), &s->top[i]) ||
            !read_logprob(r, json_at(pair, 1), &s->top[i].logprob))
            return false;
    }
    return true;
}

static bool read_step(Reading *r, const Json *o, VectorStep *s)
{
    Json *logprob = json_member(o, "logprob");
    if (!json_is_object(o))
        return reading_fail(r, "tokens must hold objects");
    return read_name(r, json_member(o, "token"), &s->token) &&
           (!logprob || read_logprob(r, logprob, &s->token.logprob)) &&
           read_top(r, json_member(o, "top"), s);
}

static bool read_steps(Reading *r, const Json *o, VectorCase *c)
{
    c->n_steps = json_length(o);
    if (!json_is_array(o) || !c->n_steps)
        return reading_fail(r, "tokens must be an array of at least one");
    if (!(c->step = take(r, c->n_steps, sizeof *c->step)))
        return false;
    for (size_t i = 0; i < c->n_steps; i++) {
        if (!read_step(r, json_at(o, i), &c->step[i]))
            return false;
    }
    return true;
}

/* ---- prompts ------------------------------------------------------------------------- */

static bool read_ids(Reading *r, const Json *o, VectorCase *c)
{
    c->n_ids = json_length(o);
    if (!json_is_array(o) || !c->n_ids)
        return reading_fail(r, "prompt_ids must be an array of at least one id");
    if (!(c->ids = take(r, c->n_ids, sizeof *c->ids)))
        return false;
    for (size_t i = 0; i < c->n_ids; i++) {
        uint64_t id;
        if (!json_whole(json_at(o, i), INT32_MAX, &id))
            return reading_fail(r, "prompt_ids[%zu] is no token id", i);
        c->ids[i] = (int32_t)id;
    }
    return true;
}

static bool read_message(Reading *r, const Json *o, ChatMessage *m)
{
    Json *content = json_member(o, "content");
    int role = chat_role(json_text(json_member(o, "role")));
    if (role != CHAT_SYSTEM && role != CHAT_USER && role != CHAT_ASSISTANT)
        return reading_fail(r, "a message's role must be system, user or assistant");
    if (!json_is_text(content))
        return reading_fail(r, "a message's content must be a text");
    *m = (ChatMessage){ .role = role, .content = json_text(content) };
    return true;
}

static bool read_messages(Reading *r, const Json *o, VectorCase *c)
{
    c->n_messages = json_length(o);
    if (!json_is_array(o) || !c->n_messages)
        return reading_fail(r, "messages must be an array of at least one");
    if (!(c->messages = take(r, c->n_messages, sizeof *c->messages)))
        return false;
    for (size_t i = 0; i < c->n_messages; i++) {
        if (!read_message(r, json_at(o, i), &c->messages[i]))
            return false;
    }
    return true;
}

static bool read_prompt(Reading *r, const Json *o, VectorCase *c)
{
    Json *messages = json_member(o, "messages"), *prompt = json_member(o, "prompt");
    Json *ids = json_member(o, "prompt_ids");
    if ((messages != NULL) + (prompt != NULL) + (ids != NULL) != 1)
        return reading_fail(r, "a case has one of messages, prompt and prompt_ids");
    Json *think = json_member(o, "think");
    c->think = json_is_bool(think, true);
    if (think && !c->think && !json_is_bool(think, false))
        return reading_fail(r, "think must be true or false");
    if (messages)
        return read_messages(r, messages, c);
    if (ids)
        return read_ids(r, ids, c);
    c->prompt = json_text(prompt);
    return json_is_text(prompt) || reading_fail(r, "prompt must be a text");
}

/* ---- cases --------------------------------------------------------------------------- */

static bool name_case(Reading *r, Str id, VectorCase *c)
{
    char number[24];
    snprintf(number, sizeof number, "%zu", r->v->n);
    c->id = id.n ? id : str_of(arena_str(&r->v->arena, str_of(number)));
    return c->id.p || fail(r->err, DS4_ENOMEM, "no memory for a case's name");
}

static bool read_case(Reading *r, const Json *o)
{
    VectorCase *c = reading_case(r);
    Json *tokens = json_member(o, "tokens"), *text = json_member(o, "continuation");
    Json *id = json_member(o, "id");
    if (id && !json_text(id).n)
        return reading_fail(r, "id must be a text, and not empty");
    if (!c || !name_case(r, json_text(id), c) || !read_prompt(r, o, c))
        return false;
    if (!tokens == !text)
        return reading_fail(r, "a case has one of tokens and continuation");
    if (tokens)
        return read_steps(r, tokens, c);
    c->continuation = json_text(text);
    return c->continuation.n || reading_fail(r, "continuation must be a text, and not empty");
}

static bool keep_line(Reading *r, Json *o)
{
    Vectors *v = r->v;
    if ((v->n_lines & (v->n_lines - 1)) == 0) {
        size_t cap = v->n_lines ? 2 * v->n_lines : 1;
        Json **p = realloc((void *)v->line, cap * sizeof *p);
        if (!p) {
            json_free(o);
            return fail(r->err, DS4_ENOMEM, "no memory for %zu lines", cap);
        }
        v->line = p;
    }
    v->line[v->n_lines++] = o;
    return true;
}

static bool read_header(Reading *r, const Json *o, const Json *version)
{
    uint64_t number;
    if (!json_whole(version, 1, &number) || number != 1)
        return reading_fail(r, "vectors of another version than 1");
    if (r->v->n || r->headed)
        return reading_fail(r, r->v->n ? "a header behind cases" : "a second header");
    r->headed = true;
    Json *model = json_member(o, "model");
    r->v->model = json_text(model);
    return !model || json_is_text(model) || reading_fail(r, "model must be a text");
}

static bool read_json_line(Reading *r, Str line)
{
    ds4_err inner = { 0 };
    Json *o = json_parse(line, DEPTH, "the line", &inner);
    if (!o)
        return inner.code == DS4_ENOMEM ? fail(r->err, inner.code, "%s", inner.msg)
                                        : reading_fail(r, "%s", inner.msg);
    if (!keep_line(r, o))
        return false;
    if (!json_is_object(o))
        return reading_fail(r, "it is no JSON object");
    Json *version = json_member(o, "ds4_vectors");
    return version ? read_header(r, o, version) : read_case(r, o);
}

static bool read_lines(Reading *r, Str text)
{
    Str line;
    while (reading_line(r, &text, &line)) {
        if (!is_blank(line) && !read_json_line(r, line))
            return false;
    }
    return true;
}

static bool looks_like_json(Reading *r, Str text)
{
    Str line = { 0 };
    while (reading_line(r, &text, &line) && is_blank(line))
        ;
    r->line = 0;
    size_t i = 0;
    while (i < line.n && line.p[i] == ' ')
        i++;
    return i < line.n && line.p[i] == '{';
}

/* Its texts are views, of a copy. */
static bool read_official(Reading *r, Str text)
{
    char *copy = arena_str(&r->v->arena, text);
    return copy ? vectors_read_official(r, (Str){ copy, text.n })
                : fail(r->err, DS4_ENOMEM, "no memory for %zu bytes of vectors", text.n);
}

bool vectors_read(Vectors *out, Str text, const char *what, ds4_err *err)
{
    *out = (Vectors){ 0 };
    Reading r = { .v = out, .what = what, .err = err };
    bool ok = looks_like_json(&r, text) ? read_lines(&r, text) : read_official(&r, text);
    if (ok && !out->n)
        ok = fail(err, DS4_EFORMAT, "%.60s: no case in it", what);
    if (!ok)
        vectors_release(out);
    return ok;
}

void vectors_release(Vectors *v)
{
    for (size_t i = 0; i < v->n_lines; i++)
        json_free(v->line[i]);
    free((void *)v->line);
    free(v->cases);
    arena_release(&v->arena);
    *v = (Vectors){ 0 };
}

/* ---- whose -------------------------------------------------------------------------- */

static size_t plain_name(Str name, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < name.n && n + 1 < cap; i++) {
        char c = name.p[i];
        if (!strchr("-_. ", c))
            out[n++] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    out[n] = '\0';
    return n;
}

bool vectors_same_model(Str reference, Str name)
{
    char a[128], b[128];
    size_t n_a = plain_name(reference, a, sizeof a), n_b = plain_name(name, b, sizeof b);
    return !n_a || !n_b || strstr(a, b) || strstr(b, a);
}

/* ---- writing ------------------------------------------------------------------------- */

void vectors_put_header(Bytes *out, Str model)
{
    bytes_str(out, "{\"ds4_vectors\":1,\"model\":");
    json_write_str(out, model);
    bytes_str(out, "}\n");
}

void vectors_begin_case(Bytes *out, Str id, const int32_t *ids, size_t n_prompt)
{
    bytes_str(out, "{\"id\":");
    json_write_str(out, id);
    bytes_str(out, ",\"prompt_ids\":");
    for (size_t i = 0; i < n_prompt; i++)
        bytes_printf(out, "%c%d", i ? ',' : '[', ids[i]);
    bytes_str(out, "],\"tokens\":[");
}

void vectors_put_step(Bytes *out, bool first, int32_t id, double logprob, const Likely *top,
                      size_t n_top)
{
    bytes_printf(out, "%s{\"token\":%d,\"logprob\":%.9g,\"top\":[", first ? "" : ",", id,
                 MIN(logprob, 0.0));
    for (size_t i = 0; i < n_top; i++)
        bytes_printf(out, "%s[%d,%.9g]", i ? "," : "", top[i].id, MIN(top[i].logprob, 0.0));
    bytes_str(out, "]}");
}

void vectors_end_case(Bytes *out) { bytes_str(out, "]}\n"); }
