/* grade.c - is an answer right? Texts and their forms; calls are in grade_calls.c. */
#include "grade.h"
#include "grade_parts.h"
#include <ctype.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- texts ---------------------------------------------------------------------------- */

static bool is_in(char c, const char *set) { return c && strchr(set, c); }

/* Without space, quotes, emphasis and a stop around it. */
static Str bare(Str s)
{
    static const char around[] = " \t\r\n\"'`*_.!,;:()[]<>$";
    while (s.n && is_in(s.p[0], around))
        s = (Str){ s.p + 1, s.n - 1 };
    while (s.n && is_in(s.p[s.n - 1], around))
        s.n--;
    return s;
}

static bool same_char(char a, char b, bool any_case)
{
    return a == b || (any_case && tolower((unsigned char)a) == tolower((unsigned char)b));
}

static bool same(Str a, Str b, bool any_case)
{
    bool ok = a.n == b.n;
    for (size_t i = 0; ok && i < a.n; i++)
        ok = same_char(a.p[i], b.p[i], any_case);
    return ok;
}

static bool is_word_char(char c) { return isalnum((unsigned char)c) || (c & 0x80); }

/* As whole words: "an ant" does not end with "nt". */
static bool ends_with(Str s, Str end, bool any_case)
{
    if (s.n < end.n || !same((Str){ s.p + s.n - end.n, end.n }, end, any_case))
        return false;
    return s.n == end.n || !is_word_char(s.p[s.n - end.n - 1]) || !end.n || !is_word_char(end.p[0]);
}

static bool contains(Str s, Str part)
{
    for (size_t i = 0; i + part.n <= s.n; i++) {
        if (same((Str){ s.p + i, part.n }, part, true))
            return true;
    }
    return false;
}

/* ---- numbers -------------------------------------------------------------------------- */

/* The number that begins at i: digits, commas between groups of three, a fraction. */
static size_t number_at(Str s, size_t i, char *out, size_t cap)
{
    size_t at = i, n = 0;
    while (at < s.n && n + 1 < cap) {
        char c = s.p[at];
        bool comma = c == ',' && at + 3 < s.n && isdigit((unsigned char)s.p[at + 1]) &&
                     isdigit((unsigned char)s.p[at + 2]) && isdigit((unsigned char)s.p[at + 3]) &&
                     !(at + 4 < s.n && isdigit((unsigned char)s.p[at + 4]));
        bool dot =
            c == '.' && at + 1 < s.n && isdigit((unsigned char)s.p[at + 1]) && !memchr(out, '.', n);
        if (!isdigit((unsigned char)c) && !comma && !dot)
            break;
        if (!comma)
            out[n++] = c;
        at++;
    }
    out[n] = '\0';
    return at;
}

/* The last one; false: there is none. A minus counts where it stands alone before it. */
static bool last_number(Str s, double *out)
{
    char text[64];
    bool found = false;
    for (size_t i = 0; i < s.n;) {
        if (!isdigit((unsigned char)s.p[i])) {
            i++;
            continue;
        }
        bool minus = i > 0 && s.p[i - 1] == '-' && (i < 2 || !is_word_char(s.p[i - 2]));
        size_t end = number_at(s, i, text, sizeof text);
        *out = minus ? -strtod(text, NULL) : strtod(text, NULL);
        found = true;
        i = MAX(end, i + 1);
    }
    return found;
}

static bool grade_number(Str want, Str text, char *why)
{
    double right = 0, said = 0;
    if (!last_number(text, &said))
        return grade_wrong(why, "no number in it");
    last_number(want, &right);
    double gap = said > right ? said - right : right - said;
    return gap < 1e-9 || grade_wrong(why, "%.12g, not %.12g", said, right);
}

static bool grade_text(Str want, Str text, bool any_case, char *why)
{
    Str said = bare(text);
    if (!said.n)
        return grade_wrong(why, "nothing was said");
    return ends_with(said, bare(want), any_case) ||
           grade_wrong(why, "it does not end with '%.*s'", (int)MIN(want.n, 40), want.p);
}

/* ---- forms ---------------------------------------------------------------------------- */

static int count_words(Str s)
{
    int n = 0;
    bool in = false;
    for (size_t i = 0; i < s.n; i++) {
        bool space = isspace((unsigned char)s.p[i]) != 0;
        n += !space && !in;
        in = !space;
    }
    return n;
}

static bool take_line(Str *rest, Str *line)
{
    while (rest->n) {
        const char *end = memchr(rest->p, '\n', rest->n);
        size_t n = end ? (size_t)(end - rest->p) : rest->n, skip = n + (end != NULL);
        *line = (Str){ rest->p, n };
        *rest = (Str){ rest->p + skip, rest->n - skip };
        if (count_words(*line))
            return true;
    }
    return false;
}

static int count_lines(Str s)
{
    int n = 0;
    Str line;
    while (take_line(&s, &line))
        n++;
    return n;
}

static bool each_line_begins(Str s, Str with)
{
    Str line;
    bool ok = s.n > 0;
    while (ok && take_line(&s, &line))
        ok = line.n >= with.n && same((Str){ line.p, with.n }, with, false);
    return ok;
}

static bool has_letters(Str s, bool upper, bool lower)
{
    bool some = false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((isupper(c) && !upper) || (islower(c) && !lower))
            return false;
        some |= isalpha(c) != 0;
    }
    return some;
}

/* Space around it is no part of a text's form. */
static Str trimmed(Str s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s = (Str){ s.p + 1, s.n - 1 };
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool has_members(Str text, const char *names)
{
    Json *o = json_read(text, NULL);
    bool ok = json_is_object(o);
    size_t n = 0;
    for (const char *at = names; ok && *at; n++) {
        char name[32];
        size_t length = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        ok = json_member(o, name) != NULL;
        at += length + (at[length] == ',');
    }
    ok = ok && (size_t)json_object_object_length(o) == n;
    json_free(o);
    return ok;
}

static bool holds(const Rule *r, Str s)
{
    Str text = str_of(r->text);
    switch (r->kind) {
    case RULE_WORDS: return count_words(s) == r->n;
    case RULE_MOST_WORDS: return s.n && count_words(s) <= r->n;
    case RULE_LINES: return count_lines(s) == r->n;
    case RULE_EACH_LINE: return each_line_begins(s, text);
    case RULE_BEGINS: return s.n >= text.n && same((Str){ s.p, text.n }, text, false);
    case RULE_ENDS: return s.n >= text.n && same((Str){ s.p + s.n - text.n, text.n }, text, false);
    case RULE_HAS: return contains(s, text);
    case RULE_HAS_NOT: return s.n && !contains(s, text);
    case RULE_LOWER: return has_letters(s, false, true);
    case RULE_UPPER: return has_letters(s, true, false);
    case RULE_JSON: return has_members(s, r->text);
    case RULE_END: break;
    }
    return true;
}

static bool grade_rules(const Rule *rules, Str text, char *why)
{
    static const char *const names[] = {
        [RULE_WORDS] = "words",
        [RULE_MOST_WORDS] = "most words",
        [RULE_LINES] = "lines",
        [RULE_EACH_LINE] = "each line begins with",
        [RULE_BEGINS] = "begins with",
        [RULE_ENDS] = "ends with",
        [RULE_HAS] = "has",
        [RULE_HAS_NOT] = "has not",
        [RULE_LOWER] = "small letters",
        [RULE_UPPER] = "capital letters",
        [RULE_JSON] = "a JSON object of",
    };
    for (const Rule *r = rules; r->kind != RULE_END; r++) {
        if (holds(r, trimmed(text)))
            continue;
        if (r->text)
            return grade_wrong(why, "not kept: %s '%s'", names[r->kind], r->text);
        return grade_wrong(why, r->n ? "not kept: %s, %d" : "not kept: %s", names[r->kind], r->n);
    }
    return true;
}

/* ---- all of it -------------------------------------------------------------------------- */

/* What it quotes the model wrote, and it goes to terminals. */
bool grade_wrong(char why[GRADE_WHY], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, GRADE_WHY, fmt, ap);
    va_end(ap);
    for (char *p = why; *p; p++)
        *p = (unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p;
    return false;
}

bool grade(const Key *key, const Given *given, char why[GRADE_WHY])
{
    why[0] = '\0';
    if (key->kind == GRADE_CALLS)
        return grade_calls(key, given, why);
    if (given->n_calls)
        return grade_wrong(why, "a tool was called");
    switch (key->kind) {
    case GRADE_NUMBER: return grade_number(key->want, given->text, why);
    case GRADE_TEXT: return grade_text(key->want, given->text, true, why);
    case GRADE_EXACT: return grade_text(key->want, given->text, false, why);
    case GRADE_RULES: return grade_rules(key->rules, given->text, why);
    case GRADE_CALLS: break;
    }
    return false;
}
