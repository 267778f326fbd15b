/* regex.c - regular expressions, parsed to Thompson's automaton over bytes.
 *
 * A counted repetition parses its operand again for each copy. Sizes are
 * bounded, so no expression takes long: nesting, states of both automata, and
 * the steps of the construction. */
#include "regex.h"
#include "nfa.h"
#include "ranges.h"
#include "../base/utf8.h"
#include <stdlib.h>

enum { MAX_NFA = 60000, MAX_DEPTH = 60, MAX_REPEAT = 5000 };
#define LEAST_STEPS 1000u /* of any expression, for its memory and tables */

typedef struct {
    uint32_t start, end; /* end is an OP_EPS that leads nowhere yet */
} Piece;

typedef struct {
    Str s;
    size_t at;
    RegexOptions opt;
    Nfa nfa;
    int depth;
    size_t body; /* behind the flags */
    bool loose;  /* texts of more than one length, or alternatives, were read */
    bool no_memory;
    Effort *effort;
    ds4_err *err;
} Parser;

static bool parse_alternatives(Parser *p, Piece *out);

/* ---- pieces of the automaton -------------------------------------------------------- */

static bool refuse(Parser *p, const char *what)
{
    return fail(p->err, DS4_EINVAL, "regular expression \"%.*s\": %s at byte %zu", STR_ARG(p->s),
                what, p->at);
}

/* 0 when there is no room. */
static uint32_t add(Parser *p, NfaState s)
{
    Nfa *f = &p->nfa;
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 64;
        NfaState *more = cap > 2 * MAX_NFA ? NULL : realloc(f->state, cap * sizeof *more);
        p->no_memory |= !more && cap <= 2 * MAX_NFA;
        if (!more)
            return 0;
        f->state = more;
        f->cap = cap;
    }
    if (f->n == 0)
        f->state[f->n++] = (NfaState){ .op = OP_EPS };
    if (f->n >= MAX_NFA)
        return 0;
    f->state[f->n] = s;
    return f->n++;
}

static bool too_large(Parser *p)
{
    return p->no_memory ? fail(p->err, DS4_ENOMEM, "regular expression: no memory")
                        : refuse(p, "the expression is too large");
}

static bool empty_piece(Parser *p, Piece *out)
{
    out->start = out->end = add(p, (NfaState){ .op = OP_EPS });
    return out->start ? true : too_large(p);
}

/* One state and an end behind it. */
static bool single(Parser *p, NfaState s, Piece *out)
{
    out->end = add(p, (NfaState){ .op = OP_EPS });
    s.a = out->end;
    out->start = out->end ? add(p, s) : 0;
    return out->start ? true : too_large(p);
}

static void join(Parser *p, Piece *first, Piece second)
{
    p->nfa.state[first->end].a = second.start;
    first->end = second.end;
}

static bool either(Parser *p, Piece *one, Piece other)
{
    uint32_t split = add(p, (NfaState){ .op = OP_SPLIT, .a = one->start, .b = other.start });
    uint32_t end = split ? add(p, (NfaState){ .op = OP_EPS }) : 0;
    if (!end)
        return too_large(p);
    p->nfa.state[one->end].a = end;
    p->nfa.state[other.end].a = end;
    *one = (Piece){ split, end };
    return true;
}

static bool optional(Parser *p, Piece *x)
{
    Piece none = { 0 };
    return empty_piece(p, &none) && either(p, x, none);
}

/* One or more. */
static bool repeated(Parser *p, Piece *x)
{
    uint32_t end = add(p, (NfaState){ .op = OP_EPS });
    uint32_t split = end ? add(p, (NfaState){ .op = OP_SPLIT, .a = x->start, .b = end }) : 0;
    if (!split)
        return too_large(p);
    p->nfa.state[x->end].a = split;
    x->end = end;
    return true;
}

/* ---- characters ------------------------------------------------------------------------ */

typedef struct {
    Parser *p;
    Piece piece;
    bool any, ok;
} Sequences;

static void add_sequence(void *user, const ByteRange *r, int n)
{
    Sequences *q = user;
    Piece all = { 0 }, next = { 0 };
    for (int i = 0; i < n && q->ok; i++) {
        q->ok = single(q->p, (NfaState){ .op = OP_BYTES, .lo = r[i].lo, .hi = r[i].hi }, &next);
        if (q->ok && i == 0)
            all = next;
        else if (q->ok)
            join(q->p, &all, next);
    }
    if (q->ok && q->any)
        q->ok = either(q->p, &q->piece, all);
    else
        q->piece = all;
    q->any = true;
}

static bool add_ranges(Parser *p, Ranges *set, Piece *out)
{
    if (p->opt.ignore_case)
        ranges_fold(set);
    ranges_sort(set);
    p->no_memory |= set->no_memory;
    if (set->failed)
        return too_large(p);
    Sequences q = { .p = p, .ok = true };
    for (size_t i = 0; i < set->n && q.ok; i++)
        ranges_utf8(set->range[i], add_sequence, &q);
    if (!q.ok)
        return false;
    /* A class of nothing leads nowhere. */
    if (!q.any)
        return single(p, (NfaState){ .op = OP_BYTES, .lo = 1, .hi = 0 }, out);
    *out = q.piece;
    return true;
}

static bool next_char(Parser *p, uint32_t *c)
{
    int n = p->at < p->s.n ? utf8_char(p->s.p + p->at, p->s.n - p->at) : 0;
    if (n == 0)
        return refuse(p, p->at < p->s.n ? "no UTF-8" : "an unexpected end");
    const unsigned char *b = (const unsigned char *)p->s.p + p->at;
    *c = n == 1 ? b[0] : b[0] & (0xffu >> (n + 1));
    for (int i = 1; i < n; i++)
        *c = *c << 6 | (b[i] & 0x3fu);
    p->at += (size_t)n;
    return true;
}

static bool hex_digits(Parser *p, int n, uint32_t *c)
{
    *c = 0;
    for (int i = 0; i < n; i++, p->at++) {
        int d = p->at < p->s.n ? (unsigned char)p->s.p[p->at] : 0, low = d | 0x20;
        if (d >= '0' && d <= '9')
            *c = *c << 4 | (uint32_t)(d - '0');
        else if (low >= 'a' && low <= 'f')
            *c = *c << 4 | (uint32_t)(low - 'a' + 10);
        else
            return refuse(p, "a hexadecimal digit is missing");
    }
    return true;
}

static bool peek(const Parser *p, char c) { return p->at < p->s.n && p->s.p[p->at] == c; }
static bool take(Parser *p, char c)
{
    bool found = peek(p, c);
    p->at += found;
    return found;
}
static bool take_str(Parser *p, const char *word)
{
    size_t n = strlen(word);
    bool found = p->s.n - p->at >= n && memcmp(p->s.p + p->at, word, n) == 0;
    p->at += found ? n : 0;
    return found;
}

/* \u1234, \u{1f600}, or a pair \ud83d\ude00. */
static bool unicode_escape(Parser *p, uint32_t *c)
{
    uint32_t low;
    if (take(p, '{')) {
        size_t end = p->at;
        while (end < p->s.n && p->s.p[end] != '}')
            end++;
        if (end - p->at > 6 || !hex_digits(p, (int)(end - p->at), c))
            return refuse(p, "\\u{} of more than six digits");
        return take(p, '}') && *c <= 0x10ffff ? true : refuse(p, "no such character");
    }
    if (!hex_digits(p, 4, c))
        return false;
    if (*c >= 0xd800 && *c < 0xdc00 && take_str(p, "\\u") && hex_digits(p, 4, &low))
        *c = 0x10000 + ((*c & 0x3ff) << 10) + (low & 0x3ff);
    return *c < 0xd800 || *c > 0xdfff ? true : refuse(p, "half of a pair of escapes");
}

/* What \ and a letter stand for: one character or a class. */
static bool escape(Parser *p, Ranges *set)
{
    static const char letters[] = "nrtfv0ae", meant[] = "\n\r\t\f\v\0\a\033";
    uint32_t c;
    if (!next_char(p, &c))
        return false;
    if (ranges_named(set, c))
        return true;
    if (c < 128 && c && strchr("bBAzZGkpPXRQEKcN", (int)c))
        return refuse(p, "\\b, \\p, named or other special escapes are not supported");
    if (c >= '1' && c <= '9')
        return refuse(p, "references to groups are not supported");
    const char *at = c < 128 && c ? strchr(letters, (int)c) : NULL;
    if (at)
        c = (unsigned char)meant[at - letters];
    else if ((c == 'x' && !hex_digits(p, 2, &c)) || (c == 'u' && !unicode_escape(p, &c)))
        return false;
    ranges_add(set, c, c);
    return true;
}

/* One item of a class; *single_char: it may begin a range. */
static bool class_item(Parser *p, Ranges *set, uint32_t *c, bool *single_char)
{
    size_t before = set->n;
    *single_char = true;
    if (take(p, '\\')) {
        if (take(p, 'b')) {
            *c = '\b';
            return true;
        }
        if (!escape(p, set))
            return false;
        p->no_memory |= set->no_memory;
        if (set->failed)
            return too_large(p);
        *single_char = set->n == before + 1 && set->range[before].lo == set->range[before].hi;
        if (*single_char)
            *c = set->range[--set->n].lo;
        return true;
    }
    if (peek(p, '[') && p->at + 1 < p->s.n && strchr(":.=", p->s.p[p->at + 1]))
        return refuse(p, "[: :] classes are not supported");
    return next_char(p, c);
}

static bool parse_class(Parser *p, Ranges *set)
{
    bool negated = take(p, '^');
    uint32_t c = 0, last = 0;
    bool one, other;
    for (bool first = true; first || !peek(p, ']'); first = false) {
        if (first && peek(p, ']'))
            break;
        if (!class_item(p, set, &c, &one))
            return false;
        if (!one)
            continue;
        last = c;
        size_t dash = p->at;
        if (take(p, '-') && !peek(p, ']')) {
            if (!class_item(p, set, &last, &other))
                return false;
            if (!other || last < c)
                return refuse(p, "a range of characters that ends before it begins");
        } else {
            p->at = dash;
        }
        ranges_add(set, c, last);
    }
    p->at++;
    if (p->opt.ignore_case)
        ranges_fold(set);
    if (negated)
        ranges_negate(set);
    return true;
}

static bool dot(Parser *p, Ranges *set)
{
    if (p->opt.dot_all) {
        ranges_add(set, 0, 0x10ffff);
        return true;
    }
    /* What none of the dialects counts as an end of line. */
    static const uint32_t ends[] = { '\n', '\r', 0x2028, 0x2029 };
    for (size_t i = 0; i < COUNT(ends); i++)
        ranges_add(set, ends[i], ends[i]);
    ranges_negate(set);
    return true;
}

/* ---- structure ----------------------------------------------------------------------------- */

static bool parse_group(Parser *p, Piece *out)
{
    size_t from = p->at;
    if (take_str(p, "?=") || take_str(p, "?!") || take_str(p, "?<=") || take_str(p, "?<!"))
        return refuse(p, "looking around is not supported");
    if (take_str(p, "?<") || take_str(p, "?P<")) {
        while (p->at < p->s.n && p->s.p[p->at] != '>')
            p->at++;
        p->at += p->at < p->s.n;
    } else if (take(p, '?') && !take(p, ':')) {
        return refuse(p, "this kind of group is not supported");
    }
    if (++p->depth > MAX_DEPTH)
        return refuse(p, "groups nested too deep");
    if (!effort_spend(p->effort, p->at - from, p->err))
        return false;
    if (!parse_alternatives(p, out))
        return false;
    p->depth--;
    p->loose = true;
    return take(p, ')') ? true : refuse(p, "a ) is missing");
}

static bool parse_atom(Parser *p, Piece *out)
{
    Ranges set = { 0 };
    uint32_t c = 0;
    size_t from = p->at;
    if (take(p, '('))
        return parse_group(p, out);
    if (take(p, '^'))
        return single(p, (NfaState){ .op = OP_AT_START }, out);
    if (take(p, '$'))
        return single(p, (NfaState){ .op = OP_AT_END }, out);
    if (p->at < p->s.n && strchr("*+?", p->s.p[p->at]) && p->s.p[p->at])
        return refuse(p, "nothing to repeat");
    bool ok;
    if (take(p, '['))
        ok = parse_class(p, &set);
    else if (take(p, '.'))
        ok = dot(p, &set);
    else if (take(p, '\\'))
        ok = escape(p, &set);
    else if ((ok = next_char(p, &c)))
        ranges_add(&set, c, c);
    /* Sorting what a class names costs more than reading it. */
    ok = ok && effort_spend(p->effort, p->at - from + 16 * set.n, p->err) &&
         add_ranges(p, &set, out);
    ranges_release(&set);
    return ok;
}

/* {m}, {m,} or {m,n} here; anything else in braces is text. max -1: none. */
static bool take_counts(Parser *p, long *min, long *max)
{
    size_t start = p->at;
    long value[2] = { 0, -1 };
    int k = 0;
    if (!take(p, '{'))
        return false;
    for (; k < 2; k++) {
        size_t digits = p->at;
        long v = 0;
        for (; p->at < p->s.n && p->s.p[p->at] >= '0' && p->s.p[p->at] <= '9'; p->at++)
            v = MIN(10 * v + (p->s.p[p->at] - '0'), 1000000L);
        if (p->at > digits)
            value[k] = v;
        else if (k == 0)
            break;
        if (k == 0 && !take(p, ',')) {
            value[1] = v;
            break;
        }
    }
    if (p->at > start + 1 && take(p, '}')) {
        *min = value[0];
        *max = value[1];
        return true;
    }
    p->at = start;
    return false;
}

/* The operand that began at `from` again. */
static bool copy_atom(Parser *p, size_t from, Piece *out)
{
    size_t back = p->at;
    p->at = from;
    bool ok = parse_atom(p, out);
    p->at = back;
    return ok;
}

/* Of one class, reached at one place in a text only, and nothing follows. */
static bool is_last(const Parser *p, size_t from)
{
    bool anchored = !p->opt.search || p->s.p[p->body] == '^';
    size_t rest = p->s.n - p->at;
    return anchored && !p->loose && p->s.p[from] != '(' &&
           (rest == 0 || (rest == 1 && p->s.p[p->at] == '$'));
}

/* n copies more of what is last, of which the last ones may be left out. Who leaves
 * one out goes straight to the end, so that a set of states is one copy; by way of
 * the other copies it would hold all that follow. Elsewhere just that keeps the
 * number of sets small, since repetitions overlap. */
static bool left_out(Parser *p, size_t from, long n, Piece *all)
{
    Piece one = { 0 }, end = { 0 };
    if (!empty_piece(p, &end))
        return false;
    for (long i = 0; i < n; i++) {
        uint32_t split;
        if (!copy_atom(p, from, &one))
            return false;
        if (!(split = add(p, (NfaState){ .op = OP_SPLIT, .a = one.start, .b = end.start })))
            return too_large(p);
        join(p, all, (Piece){ split, one.end });
    }
    join(p, all, end);
    return true;
}

/* min copies, then max - min that may be left out, or a loop. */
static bool counted(Parser *p, size_t from, long min, long max, Piece *x)
{
    Piece all = { 0 }, one = { 0 };
    bool last = is_last(p, from);
    if (max > MAX_REPEAT || min > MAX_REPEAT || (max >= 0 && max < min))
        return refuse(p, "a repetition of too many, or of fewer than none");
    if (!empty_piece(p, &all))
        return false;
    uint32_t first = all.start;
    for (long i = 0; i < min; i++) {
        if (!copy_atom(p, from, &one))
            return false;
        join(p, &all, one);
    }
    if (max > min && last && !left_out(p, from, max - min, &all))
        return false;
    for (long i = min; i < max && !last; i++) {
        if (!copy_atom(p, from, &one) || !optional(p, &one))
            return false;
        join(p, &all, one);
    }
    if (max < 0) {
        if (!copy_atom(p, from, &one) || !repeated(p, &one) || !optional(p, &one))
            return false;
        join(p, &all, one);
    }
    *x = (Piece){ first, all.end };
    return true;
}

static bool parse_repeat(Parser *p, Piece *out)
{
    size_t from = p->at;
    long min, max;
    if (!parse_atom(p, out))
        return false;
    bool ok = true;
    if (take(p, '*'))
        ok = repeated(p, out) && optional(p, out);
    else if (take(p, '+'))
        ok = repeated(p, out);
    else if (take(p, '?'))
        ok = optional(p, out);
    else if (take_counts(p, &min, &max))
        ok = counted(p, from, min, max, out);
    else
        return true;
    p->loose = true;
    /* How eager it is decides on nothing but the groups. */
    if (ok && !take(p, '?'))
        take(p, '+');
    if (ok && p->at < p->s.n && p->s.p[p->at] && strchr("*+?", p->s.p[p->at]))
        return refuse(p, "a repetition of a repetition");
    return ok;
}

static bool parse_alternatives(Parser *p, Piece *out)
{
    for (bool first = true;; first = false) {
        Piece all = { 0 }, next = { 0 };
        if (!empty_piece(p, &all))
            return false;
        while (p->at < p->s.n && !peek(p, '|') && !peek(p, ')')) {
            if (!parse_repeat(p, &next))
                return false;
            join(p, &all, next);
        }
        if (first)
            *out = all;
        else if (!either(p, out, all))
            return false;
        if (!take(p, '|'))
            return true;
        p->loose = true;
    }
}

/* (?i) and (?s) at the beginning. */
static void leading_flags(Parser *p)
{
    size_t at = p->at;
    if (!take_str(p, "(?"))
        return;
    RegexOptions opt = p->opt;
    for (; p->at < p->s.n && strchr("isu", p->s.p[p->at]) && p->s.p[p->at]; p->at++) {
        opt.ignore_case |= p->s.p[p->at] == 'i';
        opt.dot_all |= p->s.p[p->at] == 's';
    }
    if (p->at > at + 2 && take(p, ')'))
        p->opt = opt;
    else
        p->at = at;
}

/* Any text before the match, and any after it. */
static bool search_anywhere(Parser *p, Piece *x)
{
    for (int side = 0; side < 2; side++) {
        Ranges all = { 0 };
        Piece any = { 0 };
        ranges_add(&all, 0, 0x10ffff);
        bool ok = add_ranges(p, &all, &any) && repeated(p, &any) && optional(p, &any);
        ranges_release(&all);
        if (!ok)
            return false;
        if (side == 0) {
            join(p, &any, *x);
            *x = any;
        } else {
            join(p, x, any);
        }
    }
    return true;
}

bool regex_compile(Dfa *out, Str regex, RegexOptions opt, Effort *effort, ds4_err *err)
{
    Parser p = { .s = regex, .opt = opt, .effort = effort, .err = err };
    Piece all = { 0 };
    *out = (Dfa){ 0 };
    leading_flags(&p);
    p.body = p.at;
    bool ok = effort_spend(effort, LEAST_STEPS, err) && parse_alternatives(&p, &all);
    if (ok && p.at < p.s.n)
        ok = refuse(&p, "a ) without its (");
    ok = ok && (!opt.search || search_anywhere(&p, &all));
    if (ok && p.nfa.state) {
        p.nfa.state[all.end].op = OP_MATCH;
        ok = nfa_determinise(out, &p.nfa, all.start, effort, err);
    }
    free(p.nfa.state);
    return ok;
}
