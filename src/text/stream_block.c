/* stream_block.c - the markup of calls, with what models get wrong in it.
 *
 * Repaired: other names of the block, missing string attributes, parameters in
 * a parameter, a JSON object in the place of parameters, an object wrapped in
 * a parameter of no such name, values that are no JSON. */
#include "stream_block.h"
#include "../json/json.h"
#include <json-c/json.h>
#include <stdio.h>

enum { OPENER, BETWEEN, TAG, INVOKE, VALUE, OBJECT, LOST };

/* How a value becomes JSON: a string as it comes; or as a whole, JSON where it
 * is that, else a string; the same, but only JSON strings are taken; bytes of a
 * custom tool; nothing; or it may have to be unwrapped. */
enum { AS_STRING, AS_JSON, AS_JSON_STRING, AS_BYTES, AS_NOTHING, AS_WRAPPED };

enum { MAX_OPENER = 64, MAX_TAG = 4096 };

Str mark_text(const unsigned char *c)
{
    switch (*c) {
    case MARK_DSML: return STR("｜DSML｜");
    case MARK_THINK: return STR("<think>");
    case MARK_THINK_END: return STR("</think>");
    }
    return (Str){ (const char *)c, 1 };
}

static bool is_mark(unsigned char c) { return c >= MARK_DSML; }

static bool is_space(unsigned char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

void block_start(Block *b, bool plain, bool strict, BlockEmit emit)
{
    b->emit = emit;
    b->plain = plain;
    b->strict = strict;
    b->state = plain ? BETWEEN : OPENER;
    b->odd = b->unknown = b->custom = b->told = b->begun = false;
    b->calls = b->recovered = b->dropped = b->depth = 0;
    Bytes *const all[] = { &b->tag, &b->held, &b->value, &b->name, &b->key, &b->wrapped };
    for (size_t i = 0; i < COUNT(all); i++)
        bytes_clear(all[i]);
}

void block_release(Block *b)
{
    Bytes *const all[] = { &b->tag, &b->held, &b->value, &b->name, &b->key, &b->wrapped };
    for (size_t i = 0; i < COUNT(all); i++)
        bytes_release(all[i]);
}

bool block_between_calls(const Block *b) { return b->state == BETWEEN; }

bool block_in_value(const Block *b) { return b->state == VALUE || b->state == OBJECT; }

/* ---- telling --------------------------------------------------------------------- */

static void tell(Block *b, Str s)
{
    if (b->emit && s.n)
        b->emit(b->user, STREAM_CALL_ARGS, s);
}

static void tell_string(Block *b, Str s, bool quoted)
{
    Bytes out = { 0 };
    if (!b->emit)
        return;
    (quoted ? json_write_str : json_write_chars)(&out, s);
    b->failed |= out.failed;
    tell(b, bytes_view(&out));
    bytes_release(&out);
}

static void tell_begin(Block *b)
{
    if (b->emit && !b->told)
        b->emit(b->user, STREAM_CALL_BEGIN, bytes_view(&b->name));
    b->told = true;
}

/* The comma and the name before a member's value. */
static void tell_key(Block *b, Str key)
{
    if (b->custom)
        return;
    tell(b, b->members[b->depth]++ ? STR(", ") : STR("{"));
    tell_string(b, key, true);
    tell(b, STR(": "));
}

/* As JSON where it is that, else as a string. */
static void tell_typed(Block *b, Str s, bool only_strings)
{
    size_t at = 0;
    while (at < s.n && is_space((unsigned char)s.p[at]))
        at++;
    bool text = at < s.n && s.p[at] == '"';
    if ((text || !only_strings) && json_valid(s)) {
        tell(b, s);
        return;
    }
    if (!only_strings)
        b->recovered++;
    tell_string(b, s, true);
}

/* ---- tags ------------------------------------------------------------------------ */

/* This does not belong here: it is no block. Or, when that was already told:
 * the call is lost, and what follows up to its end; between calls it counts for
 * nothing. */
static enum BlockStep bad(Block *b)
{
    if (!b->emit)
        return BLOCK_BAD;
    bool in_call = b->state != BETWEEN && !(b->state == TAG && b->back == BETWEEN);
    b->dropped += in_call;
    b->state = in_call ? LOST : BETWEEN;
    bytes_clear(&b->held);
    return BLOCK_ON;
}

static bool starts(Str s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p, with, n) == 0;
}

static bool ends(Str s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p + s.n - n, with, n) == 0;
}

static Str trimmed(Str s)
{
    while (s.n && is_space((unsigned char)s.p[s.n - 1]))
        s.n--;
    while (s.n && is_space((unsigned char)s.p[0]))
        s = (Str){ s.p + 1, s.n - 1 };
    return s;
}

/* What is between "<" or "</" and ">". string: 1, 0, -1: not said. */
typedef struct {
    bool close;
    Str word, name;
    int string;
} Tag;

static bool read_attributes(Str s, Tag *t)
{
    static const struct {
        const char *text;
        int string;
    } kinds[] = { { "string=\"true\"", 1 }, { "string=\"false\"", 0 } };
    t->string = -1;
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (ends(s, kinds[i].text)) {
            t->string = kinds[i].string;
            s.n -= strlen(kinds[i].text);
        }
    s = trimmed(s);
    if (!starts(s, "name=\"") || !ends(s, "\"") || s.n < 7)
        return false;
    t->name = (Str){ s.p + 6, s.n - 7 };
    return true;
}

static bool read_tag(const Block *b, Tag *t)
{
    Str s = bytes_view(&b->tag);
    *t = (Tag){ .close = s.n && s.p[0] == '/' };
    if (!s.n)
        return false;
    if (t->close)
        s = (Str){ s.p + 1, s.n - 1 };
    size_t skip = !b->plain ? 1 : starts(s, "DSML｜") ? strlen("DSML｜") : 0;
    if (s.n < skip)
        return false;
    s = (Str){ s.p + skip, s.n - skip };
    t->word.p = s.p;
    while (t->word.n < s.n &&
           ((s.p[t->word.n] >= 'a' && s.p[t->word.n] <= 'z') || s.p[t->word.n] == '_'))
        t->word.n++;
    Str rest = trimmed((Str){ s.p + t->word.n, s.n - t->word.n });
    return t->word.n && (rest.n == 0 || (!t->close && read_attributes(rest, t)));
}

static bool is_block_name(Str word)
{
    return str_eq(word, STR("tool_calls")) || str_eq(word, STR("function_calls"));
}

static bool begins(Str s, Str whole)
{
    return s.n == 0 || (s.n <= whole.n && memcmp(s.p, whole.p, s.n) == 0);
}

bool block_unharmed(const Block *b)
{
    Str s = bytes_view(&b->tag);
    if (b->state != OPENER)
        return !b->odd;
    return begins(s, STR("tool_calls")) || begins(s, STR("function_calls"));
}

/* May c be the next byte of the tag? */
static bool fits_tag(const Block *b, unsigned char c)
{
    size_t n = b->tag.n;
    bool slash = n > 0 && b->tag.p[0] == '/', first = n == 0 || (n == 1 && slash);
    if (c == '<' || n >= MAX_TAG)
        return false;
    if (!b->plain && first && !(n == 0 && c == '/'))
        return c == MARK_DSML;
    return !is_mark(c);
}

/* Does ">" end the tag, or is it within quotes? */
static bool is_whole(Str tag)
{
    tag = trimmed(tag);
    return !tag.n || !memchr(tag.p, '"', tag.n) || (ends(tag, "\"") && !ends(tag, "=\""));
}

/* ---- calls and their parameters ---------------------------------------------------- */

static enum BlockStep begin_call(Block *b, Str name)
{
    void *user = b->tools->user;
    bool known = b->tools->declared && b->tools->declared(user, name);
    if (b->odd && !known)
        return bad(b);
    b->unknown |= !known;
    b->custom = b->tools->is_custom && b->tools->is_custom(user, name);
    b->told = false;
    b->depth = b->members[0] = 0;
    bytes_clear(&b->name);
    bytes_put(&b->name, name.p, name.n);
    bytes_clear(&b->wrapped);
    b->state = INVOKE;
    return BLOCK_ON;
}

static int schema_of(const Block *b, Str key)
{
    return b->tools->is_string && b->depth == 0
               ? b->tools->is_string(b->tools->user, bytes_view(&b->name), key)
               : -1;
}

static int type_of(const Block *b, Str key, int string)
{
    int schema = schema_of(b, key);
    bool first = b->depth == 0 && b->members[0] == 0;
    if (b->custom)
        return first && !b->told ? AS_BYTES : AS_NOTHING;
    if (first && schema < 0 && b->tools->is_string &&
        (str_eq(key, STR("arguments")) || str_eq(key, STR("input"))))
        return AS_WRAPPED;
    if (string == 0)
        return schema == 1 ? AS_JSON_STRING : AS_JSON;
    return schema == 0 ? AS_JSON : AS_STRING;
}

/* The value that may be all arguments, after its mark of being there. */
static Str unwrapped(const Block *b)
{
    return b->wrapped.n ? (Str){ b->wrapped.p + 1, b->wrapped.n - 1 } : (Str){ NULL, 0 };
}

/* A wrapped object that was none: a parameter like any other. */
static void tell_wrapped(Block *b)
{
    if (b->wrapped.n == 0)
        return;
    Str s = unwrapped(b);
    tell_key(b, bytes_view(&b->key));
    if (b->wrap_text)
        tell_string(b, s, true);
    else
        tell_typed(b, s, false);
    bytes_clear(&b->wrapped);
}

static enum BlockStep begin_value(Block *b, const Tag *t)
{
    tell_wrapped(b);
    b->type = type_of(b, t->name, t->string);
    b->recovered += t->string < 0;
    tell_begin(b);
    if (b->type == AS_WRAPPED) {
        bytes_clear(&b->key);
        bytes_put(&b->key, t->name.p, t->name.n);
        b->wrap_text = t->string != 0;
    } else if (b->type != AS_NOTHING) {
        tell_key(b, t->name);
    }
    b->begun = false;
    b->state = VALUE;
    bytes_clear(&b->value);
    return BLOCK_SURE;
}

/* Is every member of the object a parameter of the tool? */
static bool is_arguments(const Block *b, Str s)
{
    Json *o = json_read(s, NULL);
    bool fits = json_is_object(o) && json_object_object_length(o) > 0;
    if (fits) {
        json_object_object_foreach(o, name, value)
        {
            (void)value;
            fits = fits && schema_of(b, str_of(name)) >= 0;
        }
    }
    json_free(o);
    return fits;
}

static enum BlockStep end_call(Block *b)
{
    tell_begin(b);
    Str inner = unwrapped(b);
    if (inner.n && is_arguments(b, inner)) {
        b->recovered++;
        tell(b, inner);
    } else {
        tell_wrapped(b);
        if (!b->custom)
            tell(b, b->members[0] ? STR("}") : STR("{}"));
    }
    bytes_clear(&b->wrapped);
    if (b->emit)
        b->emit(b->user, STREAM_CALL_END, (Str){ NULL, 0 });
    b->calls++;
    b->state = BETWEEN;
    return BLOCK_SURE;
}

static enum BlockStep tag_in_block(Block *b, const Tag *t)
{
    if (!t->close && str_eq(t->word, STR("invoke")) && t->name.p)
        return begin_call(b, t->name);
    return t->close && is_block_name(t->word) ? BLOCK_END : bad(b);
}

static enum BlockStep tag_in_call(Block *b, const Tag *t)
{
    bool parameter = str_eq(t->word, STR("parameter"));
    if (parameter && !t->close && t->name.p)
        return begin_value(b, t);
    if (parameter && t->close && b->depth > 0) {
        tell(b, b->members[b->depth--] ? STR("}") : STR("{}"));
        b->state = INVOKE;
        return BLOCK_ON;
    }
    if (t->close && str_eq(t->word, STR("invoke")) && b->depth == 0)
        return end_call(b);
    if (t->close && is_block_name(t->word) && b->emit) {
        b->dropped++;
        return BLOCK_END;
    }
    return bad(b);
}

static enum BlockStep in_tag(Block *b, unsigned char c)
{
    Tag t;
    if (c != '>' || !is_whole(bytes_view(&b->tag))) {
        if (!fits_tag(b, c))
            return bad(b);
        bytes_byte(&b->tag, c);
        return BLOCK_ON;
    }
    b->state = b->back;
    if (!read_tag(b, &t))
        return bad(b);
    return b->back == BETWEEN ? tag_in_block(b, &t) : tag_in_call(b, &t);
}

static enum BlockStep begin_tag(Block *b)
{
    b->back = b->state;
    b->state = TAG;
    bytes_clear(&b->tag);
    return BLOCK_ON;
}

/* ---- text that a tag ends ----------------------------------------------------------- */

/* How held and c go together with the tag "<" slash mark rest: 0 they do not,
 * 1 as its beginning, 2 as all of it. */
static int matches(const Block *b, unsigned char c, bool slash, const char *rest)
{
    static const char *const marks[] = { "\xf8", "", "DSML｜" };
    int best = 0;
    for (size_t i = b->plain ? 1 : 0; i < (b->plain ? COUNT(marks) : 1); i++) {
        char tag[64];
        int n = snprintf(tag, sizeof tag, "<%s%s%s", slash ? "/" : "", marks[i], rest);
        size_t have = b->held.n;
        if ((size_t)n > have && memcmp(tag, b->held.p ? b->held.p : "", have) == 0 &&
            (unsigned char)tag[have] == c)
            best = MAX(best, (size_t)n == have + 1 ? 2 : 1);
    }
    return best;
}

static enum BlockStep add_to_value(Block *b, unsigned char c)
{
    Str s = mark_text(&c);
    if (b->strict && is_mark(c))
        return bad(b);
    /* White space may yet come before a parameter in the parameter. */
    if (!b->begun && is_space(c)) {
        bytes_byte(&b->value, c);
        return BLOCK_ON;
    }
    if (!b->begun && b->type == AS_STRING) {
        tell(b, STR("\""));
        tell_string(b, bytes_view(&b->value), false);
    } else if (!b->begun && b->type == AS_BYTES) {
        tell(b, bytes_view(&b->value));
    }
    b->begun = true;
    if (b->type == AS_STRING)
        tell_string(b, s, false);
    else if (b->type == AS_BYTES)
        tell(b, s);
    else if (b->type != AS_NOTHING)
        bytes_put(&b->value, s.p, s.n);
    return BLOCK_ON;
}

static void end_value(Block *b)
{
    Str s = bytes_view(&b->value);
    b->state = INVOKE;
    switch (b->type) {
    case AS_STRING:
        if (b->begun)
            tell(b, STR("\""));
        else
            tell_string(b, s, true);
        break;
    case AS_BYTES:
        if (!b->begun)
            tell(b, s);
        break;
    case AS_WRAPPED:
        bytes_byte(&b->wrapped, '=');
        bytes_put(&b->wrapped, s.p, s.n);
        break;
    case AS_JSON: tell_typed(b, s, false); break;
    case AS_JSON_STRING: tell_typed(b, s, true); break;
    }
}

/* A parameter begins where a value should: the value is an object of such. */
static enum BlockStep begin_nested(Block *b)
{
    if (b->depth + 1 == BLOCK_DEPTH || b->custom || b->type == AS_WRAPPED)
        return bad(b);
    b->members[++b->depth] = 0;
    b->recovered++;
    b->state = INVOKE;
    begin_tag(b);
    bytes_put(&b->tag, b->held.p + 1, b->held.n - 1);
    bytes_clear(&b->held);
    return BLOCK_ON;
}

/* What was held back is text; c follows it. */
static enum BlockStep let_go(Block *b, unsigned char c,
                             enum BlockStep (*add)(Block *b, unsigned char c))
{
    enum BlockStep step = BLOCK_ON;
    Bytes held = b->held;
    b->held = (Bytes){ 0 };
    for (size_t i = 0; i < held.n && step == BLOCK_ON; i++)
        step = add(b, (unsigned char)held.p[i]);
    bytes_release(&held);
    if (step != BLOCK_ON || b->state == LOST)
        return step;
    if (c == '<')
        bytes_byte(&b->held, c);
    else
        step = add(b, c);
    return step;
}

static enum BlockStep in_value(Block *b, unsigned char c)
{
    if (b->held.n == 0 && c != '<')
        return add_to_value(b, c);
    int close = matches(b, c, true, "parameter>");
    int nested = b->begun ? 0 : matches(b, c, false, "parameter");
    if (!close && !nested)
        return let_go(b, c, add_to_value);
    bytes_byte(&b->held, c);
    if (nested == 2)
        return begin_nested(b);
    if (close == 2) {
        bytes_clear(&b->held);
        end_value(b);
    }
    return BLOCK_ON;
}

static enum BlockStep add_to_object(Block *b, unsigned char c)
{
    Str s = mark_text(&c);
    if (b->strict && is_mark(c))
        return bad(b);
    bytes_put(&b->value, s.p, s.n);
    return BLOCK_ON;
}

/* A JSON object in the place of parameters. */
static enum BlockStep end_object(Block *b)
{
    Json *o = json_read(bytes_view(&b->value), NULL);
    if (!json_is_object(o)) {
        json_free(o);
        b->state = BETWEEN;
        if (!b->emit)
            return BLOCK_BAD;
        b->dropped++;
        return BLOCK_ON;
    }
    Str input = json_text(json_member(o, "input"));
    tell_begin(b);
    tell(b, b->custom && input.p ? input : trimmed(bytes_view(&b->value)));
    json_free(o);
    b->recovered++;
    b->calls++;
    if (b->emit)
        b->emit(b->user, STREAM_CALL_END, (Str){ NULL, 0 });
    b->state = BETWEEN;
    return BLOCK_SURE;
}

static enum BlockStep in_object(Block *b, unsigned char c)
{
    if (b->held.n == 0 && c != '<')
        return add_to_object(b, c);
    int close = matches(b, c, true, "invoke>");
    if (!close)
        return let_go(b, c, add_to_object);
    bytes_byte(&b->held, c);
    if (close == 1)
        return BLOCK_ON;
    bytes_clear(&b->held);
    return end_object(b);
}

/* After a call that went wrong: nothing counts but its end and the block's. */
static enum BlockStep in_lost(Block *b, unsigned char c)
{
    int call = matches(b, c, true, "invoke>"), block = matches(b, c, true, "tool_calls>");
    if (!call && !block)
        bytes_clear(&b->held);
    if (call || block || c == '<')
        bytes_byte(&b->held, c);
    if (call < 2 && block < 2)
        return BLOCK_ON;
    bytes_clear(&b->held);
    b->state = BETWEEN;
    return block == 2 ? BLOCK_END : BLOCK_ON;
}

/* ---- the steps --------------------------------------------------------------------- */

/* The block's own tag, after its mark. Any word may be a damaged name of it,
 * but not a tag of what is inside. */
static enum BlockStep in_opener(Block *b, unsigned char c)
{
    Str s = bytes_view(&b->tag);
    if (c != '>') {
        if (c == '<' || c == '\n' || is_mark(c) || s.n >= MAX_OPENER)
            return BLOCK_BAD;
        bytes_byte(&b->tag, c);
        return BLOCK_ON;
    }
    if (!s.n || s.p[0] == '/' || starts(s, "invoke") || starts(s, "parameter"))
        return BLOCK_BAD;
    b->odd = !is_block_name(s);
    b->recovered += !str_eq(s, STR("tool_calls"));
    b->state = BETWEEN;
    return BLOCK_ON;
}

enum BlockStep block_byte(Block *b, unsigned char c)
{
    switch (b->state) {
    case OPENER: return in_opener(b, c);
    case TAG: return in_tag(b, c);
    case VALUE: return in_value(b, c);
    case OBJECT: return in_object(b, c);
    case LOST: return in_lost(b, c);
    }
    if (is_space(c))
        return BLOCK_ON;
    if (c == '<')
        return begin_tag(b);
    if (c == '{' && b->state == INVOKE && b->depth == 0 && !b->told && !b->members[0]) {
        bytes_clear(&b->value);
        bytes_byte(&b->value, c);
        b->state = OBJECT;
        return BLOCK_ON;
    }
    /* Words between two calls do no harm to either. */
    return b->emit && b->state == BETWEEN ? BLOCK_ON : bad(b);
}
