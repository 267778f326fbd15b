/* content.c - parts of messages to text. */
#include "content.h"
#include "tools_in.h"

/* References are short and what they stand for is long: all of a request's
 * together may not grow beyond this. */
#define MOST_EXPANDED ((size_t)8 << 20)

enum { MOST_NESTED = 4 }; /* results within results */

static bool text_of(Request *r, const Json *content, enum ContentOf of, int depth, Str *out);

/* Parts joined as they come; a single one stays a view. */
typedef struct {
    Str first;
    Bytes joined;
    size_t n;
} Parts;

static void put_part(Parts *p, Str s)
{
    if (!s.n)
        return;
    if (p->n++ == 0) {
        p->first = s;
        return;
    }
    if (p->n == 2)
        bytes_put(&p->joined, p->first.p, p->first.n);
    bytes_str(&p->joined, "\n\n");
    bytes_put(&p->joined, s.p, s.n);
}

static bool end_parts(Request *r, Parts *p, Str *out)
{
    *out = p->first;
    return p->n < 2 || request_keep(r, &p->joined, out);
}

/* ---- kinds of parts --------------------------------------------------------------- */

typedef struct {
    const char *type, *member; /* member: where the text is */
} TextPart;

static const TextPart text_parts[] = {
    { "text", "text" },       { "input_text", "text" },   { "output_text", "text" },
    { "refusal", "refusal" }, { "summary_text", "text" }, { "reasoning_text", "text" },
};

static const struct {
    const char *type, *kind, *said;
} media[] = {
    { "image", "image", "[image omitted: this model cannot see images]" },
    { "image_url", "image", "[image omitted: this model cannot see images]" },
    { "input_image", "image", "[image omitted: this model cannot see images]" },
    { "input_audio", "audio", "[audio omitted: this model cannot hear audio]" },
    { "audio", "audio", "[audio omitted: this model cannot hear audio]" },
    { "file", "file", "[file omitted: this model reads text only]" },
    { "input_file", "file", "[file omitted: this model reads text only]" },
    { "document", "document", "[document omitted: this model reads text only]" },
};

/* Parts of other servers' tools, which say nothing here. */
static const char *const silent[] = { "server_tool_use", "web_search_tool_result",
                                      "web_fetch_tool_result", "redacted_thinking" };

static bool media_part(Request *r, size_t i, Str *out)
{
    if (r->info->strict_media)
        return request_wrong(r, r->list, "%s[%zu]: this model takes no %s", r->list, r->at,
                             media[i].kind);
    *out = str_of(media[i].said);
    return true;
}

/* A document of text or of parts can be read after all. */
static bool document_part(Request *r, const Json *part, int depth, bool *done, Str *out)
{
    const Json *source = json_member(part, "source");
    *done = true;
    if (json_is(json_member(source, "type"), "text"))
        return request_clean(r, json_text(json_member(source, "data")), out);
    if (json_is(json_member(source, "type"), "content"))
        return text_of(r, json_member(source, "content"), CONTENT_OF_OTHERS, depth + 1, out);
    *done = false;
    return true;
}

static bool unsupported_part(Request *r, Str type, Str *out)
{
    Bytes b = { 0 };
    Str s;
    bytes_str(&b, "[Unsupported ");
    bytes_put(&b, type.p, type.n <= 64 ? type.n : 0);
    bytes_byte(&b, ']');
    return request_keep(r, &b, &s) && request_clean(r, s, out);
}

/* 1: it is one, and *out its text; 0: it is none; -1: refused. */
static int text_part(Request *r, const Json *part, Str *out)
{
    const Json *type = json_member(part, "type");
    for (size_t i = 0; i < COUNT(text_parts); i++) {
        if (!json_is(type, text_parts[i].type))
            continue;
        const Json *text = json_member(part, text_parts[i].member);
        if (!text || json_is_text(text))
            return request_clean(r, json_text(text), out) ? 1 : -1;
        request_wrong(r, r->list, "%s[%zu]: %s is no string", r->list, r->at, text_parts[i].member);
        return -1;
    }
    return 0;
}

static bool one_part(Request *r, const Json *part, int depth, Str *out)
{
    const Json *type = json_member(part, "type");
    bool done = false;
    *out = (Str){ 0 };
    if (json_is_text(part))
        return request_clean(r, json_text(part), out);
    if (!json_is_text(type))
        return request_wrong(r, r->list, "%s[%zu]: a part of the content has no type", r->list,
                             r->at);
    int text = text_part(r, part, out);
    if (text)
        return text > 0;
    if (json_is(type, "search_result"))
        return text_of(r, json_member(part, "content"), CONTENT_OF_OTHERS, depth + 1, out);
    if (json_is(type, "document") && (!document_part(r, part, depth, &done, out) || done))
        return done;
    for (size_t i = 0; i < COUNT(media); i++)
        if (json_is(type, media[i].type))
            return media_part(r, i, out);
    for (size_t i = 0; i < COUNT(silent); i++)
        if (json_is(type, silent[i]))
            return true;
    return unsupported_part(r, json_text(type), out);
}

bool content_part(Request *r, const Json *part, Str *out) { return one_part(r, part, 0, out); }

/* ---- lists ------------------------------------------------------------------------ */

static bool is_reference(const Json *part)
{
    return json_is(json_member(part, "type"), "tool_reference");
}

/* The references at i and after it, as the definitions that they stand for;
 * *n: how many. */
static bool references(Request *r, const Json *list, size_t i, size_t *n, Str *out)
{
    Bytes b = { 0 };
    for (*n = 0; is_reference(json_at(list, i + *n));)
        ++*n;
    Str *names = arena_array(&r->t->arena, *n, sizeof *names);
    if (!names)
        return request_no_memory(r);
    for (size_t k = 0; k < *n; k++) {
        names[k] = json_text(json_member(json_at(list, i + k), "tool_name"));
        if (!names[k].n)
            return request_wrong(r, r->list, "%s[%zu]: a tool_reference has no tool_name", r->list,
                                 r->at);
    }
    if (!tools_describe(r->t, names, *n, MOST_EXPANDED - r->expanded, &b)) {
        bytes_release(&b);
        return request_wrong(r, r->list, "%s[%zu]: references to tools stand for too much text",
                             r->list, r->at);
    }
    r->expanded += b.n;
    return request_keep(r, &b, out);
}

static bool is_billing(Str s)
{
    static const char start[] = "x-anthropic-";
    return s.n >= sizeof start - 1 && memcmp(s.p, start, sizeof start - 1) == 0;
}

static bool text_of(Request *r, const Json *content, enum ContentOf of, int depth, Str *out)
{
    Parts p = { 0 };
    *out = (Str){ 0 };
    if (!content)
        return true;
    if (json_is_text(content)) {
        Str s = json_text(content);
        return (of == CONTENT_OF_SYSTEM && is_billing(s)) || request_clean(r, s, out);
    }
    if (!json_is_array(content))
        return request_wrong(r, r->list, "%s[%zu]: the content is neither a string nor a list",
                             r->list, r->at);
    if (depth > MOST_NESTED)
        return request_wrong(r, r->list, "%s[%zu]: content within content within content", r->list,
                             r->at);
    bool ok = true;
    for (size_t i = 0, n = 1; i < json_length(content) && ok; i += n) {
        const Json *part = json_at(content, i);
        Str s = { 0 };
        n = 1;
        ok = is_reference(part) ? references(r, content, i, &n, &s) : one_part(r, part, depth, &s);
        if (ok && !(of == CONTENT_OF_SYSTEM && is_billing(s)))
            put_part(&p, s);
    }
    ok = ok && end_parts(r, &p, out);
    bytes_release(&p.joined);
    return ok;
}

bool content_text(Request *r, const Json *content, enum ContentOf of, Str *out)
{
    return text_of(r, content, of, 0, out);
}
