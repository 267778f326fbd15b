/* lark.c - a subset of Lark's grammars to rules of a program. */
#include "lark.h"
#include "regex.h"
#include <stdlib.h>

enum { MAX_NAMES = 2000, MAX_NESTING = 50, MAX_PARTS = 4000, MAX_COPIES = 1000 };

typedef struct {
    Str name;
    NodeId rule; /* a forward */
    NodeId body;
    bool defined;
} Named;

typedef struct {
    Program *p;
    Str s;
    size_t at;
    Named *named;
    size_t n_named;
    NodeId ignored; /* a forward; NODE_NONE: nothing is ignored */
    Bytes ignores;  /* NodeId[] */
    bool in_terminal;
    int depth;
    ds4_err *err;
} Lark;

/* The terminals of Lark's library, as regular expressions. */
static const struct {
    const char *name, *regex;
} common[] = {
    { "DIGIT", "[0-9]" },
    { "HEXDIGIT", "[0-9a-fA-F]" },
    { "INT", "[0-9]+" },
    { "SIGNED_INT", "[+-]?[0-9]+" },
    { "DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+" },
    { "FLOAT", "[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?" },
    { "SIGNED_FLOAT",
      "[+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)" },
    { "NUMBER", "(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?" },
    { "SIGNED_NUMBER", "[+-]?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?" },
    { "ESCAPED_STRING", "\"(?:[^\"\\\\\\n]|\\\\[^\\n])*\"" },
    { "LCASE_LETTER", "[a-z]" },
    { "UCASE_LETTER", "[A-Z]" },
    { "LETTER", "[A-Za-z]" },
    { "WORD", "[A-Za-z]+" },
    { "CNAME", "[_A-Za-z][_A-Za-z0-9]*" },
    { "WS_INLINE", "[ \\t]+" },
    { "WS", "[ \\t\\f\\r\\n]+" },
    { "CR", "\\r" },
    { "LF", "\\n" },
    { "NEWLINE", "(?:\\r?\\n)+" },
    { "SH_COMMENT", "#[^\\n]*" },
    { "CPP_COMMENT", "//[^\\n]*" },
    { "SQL_COMMENT", "--[^\\n]*" },
};

static bool parse_expansions(Lark *l, NodeId *out);

/* ---- reading -------------------------------------------------------------------- */

static bool refuse(Lark *l, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < l->at && i < l->s.n; i++)
        line += l->s.p[i] == '\n';
    return fail(l->err, DS4_EINVAL, "lark grammar, line %zu: %s", line, what);
}

static int peek(const Lark *l) { return l->at < l->s.n ? (unsigned char)l->s.p[l->at] : -1; }

static bool starts(const Lark *l, const char *word)
{
    size_t n = strlen(word);
    return l->s.n - l->at >= n && memcmp(l->s.p + l->at, word, n) == 0;
}

static bool take(Lark *l, const char *word)
{
    bool found = starts(l, word);
    l->at += found ? strlen(word) : 0;
    return found;
}

/* Blanks and comments of one line. */
static void skip_blanks(Lark *l)
{
    while (peek(l) == ' ' || peek(l) == '\t' || peek(l) == '\r')
        l->at++;
    if (starts(l, "//") || peek(l) == '#') {
        while (peek(l) >= 0 && peek(l) != '\n')
            l->at++;
    }
}

static void skip_lines(Lark *l)
{
    skip_blanks(l);
    while (peek(l) == '\n') {
        l->at++;
        skip_blanks(l);
    }
}

/* Within a definition: to what goes on, on this line or in parentheses, or on a
 * later line that begins with |. */
static void skip_within(Lark *l)
{
    skip_blanks(l);
    size_t here = l->at;
    skip_lines(l);
    if (l->depth == 0 && l->at != here && peek(l) != '|')
        l->at = here;
}

static bool is_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_one_of(int c, const char *chars) { return c > 0 && strchr(chars, c) != NULL; }

static Str take_name(Lark *l)
{
    size_t from = l->at;
    while (is_name(peek(l)))
        l->at++;
    return (Str){ l->s.p + from, l->at - from };
}

static bool is_terminal(Str name)
{
    size_t i = 0;
    while (i < name.n && name.p[i] == '_')
        i++;
    return i < name.n && name.p[i] >= 'A' && name.p[i] <= 'Z';
}

static Named *find_name(Lark *l, Str name)
{
    if (!effort_spend(&l->p->effort, l->n_named, l->err))
        return NULL;
    for (size_t i = 0; i < l->n_named; i++) {
        if (str_eq(l->named[i].name, name))
            return &l->named[i];
    }
    if (l->n_named == MAX_NAMES) {
        refuse(l, "too many names");
        return NULL;
    }
    l->named[l->n_named] = (Named){ .name = name, .rule = node_forward(l->p) };
    return &l->named[l->n_named++];
}

/* ---- terminals --------------------------------------------------------------------- */

static bool regex_rule(Lark *l, Str regex, RegexOptions opt, NodeId *out)
{
    Dfa d;
    if (!regex_compile(&d, regex, opt, &l->p->effort, l->err))
        return false;
    *out = node_dfa(l->p, program_dfa(l->p, &d), NODE_RET);
    return true;
}

/* To behind the closing mark, over what a backslash protects. */
static bool delimited(Lark *l, char mark, Str *inside)
{
    size_t from = ++l->at;
    bool in_class = false;
    while (peek(l) >= 0 && peek(l) != '\n' && (peek(l) != mark || in_class)) {
        if (mark == '/' && peek(l) == '[')
            in_class = true;
        else if (peek(l) == ']')
            in_class = false;
        l->at += peek(l) == '\\' ? 2 : 1;
    }
    if (l->at >= l->s.n || peek(l) != mark)
        return refuse(l, mark == '"' ? "a string without its end"
                                     : "a regular expression without its end");
    *inside = (Str){ l->s.p + from, l->at++ - from };
    return true;
}

static bool regex_literal(Lark *l, NodeId *out)
{
    Str regex = { 0 };
    RegexOptions opt = { 0 };
    if (!delimited(l, '/', &regex))
        return false;
    for (; peek(l) >= 'a' && peek(l) <= 'z'; l->at++) {
        opt.ignore_case |= peek(l) == 'i';
        opt.dot_all |= peek(l) == 's';
        if (!is_one_of(peek(l), "isu"))
            return refuse(l, "flags of regular expressions can be i, s and u");
    }
    return regex_rule(l, regex, opt, out);
}

/* A string as a regular expression: its escapes mean the same there. */
static void as_regex(Bytes *out, Str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\' && i + 1 < s.n)
            bytes_byte(out, (unsigned char)s.p[i++]);
        else if (s.p[i] && strchr("^$.*+?()[]{}|", s.p[i]))
            bytes_byte(out, '\\');
        bytes_byte(out, (unsigned char)s.p[i]);
    }
}

static bool string_literal(Lark *l, NodeId *out)
{
    Str from = { 0 }, to = { 0 };
    Bytes regex = { 0 };
    RegexOptions opt = { 0 };
    if (!delimited(l, '"', &from))
        return false;
    if (take(l, "..")) {
        if (peek(l) != '"' || !delimited(l, '"', &to))
            return refuse(l, "a range needs a string at its end");
        bytes_byte(&regex, '[');
        for (size_t i = 0; i < 2; i++) {
            Str end = i ? to : from;
            if (end.n == 1 && end.p[0] != '\\')
                bytes_byte(&regex, '\\');
            if (end.n == 1 && is_name(end.p[0]))
                regex.n--;
            bytes_put(&regex, end.p, end.n);
            bytes_str(&regex, i ? "]" : "-");
        }
    } else {
        opt.ignore_case = take(l, "i");
        as_regex(&regex, from);
    }
    bool ok = regex.failed ? fail(l->err, DS4_ENOMEM, "lark grammar: no memory")
                           : regex_rule(l, bytes_view(&regex), opt, out);
    bytes_release(&regex);
    return ok;
}

/* ---- structure ------------------------------------------------------------------------ */

static NodeId loop_of(Lark *l, NodeId body)
{
    NodeId loop = node_forward(l->p);
    node_resolve(l->p, loop, node_either(l->p, node_call(l->p, body, loop), NODE_RET));
    return loop;
}

static NodeId then(Lark *l, NodeId first, NodeId second)
{
    return node_call(l->p, first, node_call(l->p, second, NODE_RET));
}

static bool parse_group(Lark *l, char end, NodeId *out)
{
    l->at++;
    if (++l->depth > MAX_NESTING)
        return refuse(l, "groups nested too deep");
    if (!parse_expansions(l, out))
        return false;
    skip_within(l);
    l->depth--;
    if (peek(l) != end)
        return refuse(l, "a group without its end");
    l->at++;
    if (end == ']')
        *out = node_either(l->p, *out, NODE_RET);
    return true;
}

static bool parse_reference(Lark *l, NodeId *out, bool *terminal)
{
    Str name = take_name(l);
    if (peek(l) == '{')
        return refuse(l, "templates are not supported");
    *terminal = is_terminal(name);
    if (l->in_terminal && !*terminal)
        return refuse(l, "a terminal cannot refer to a rule");
    Named *n = find_name(l, name);
    if (n)
        *out = n->rule;
    return n != NULL;
}

static bool parse_atom(Lark *l, NodeId *out)
{
    bool terminal = true, ok;
    switch (peek(l)) {
    case '(': return parse_group(l, ')', out);
    case '[': return parse_group(l, ']', out);
    case '"': ok = string_literal(l, out); break;
    case '/': ok = regex_literal(l, out); break;
    default:
        if (!is_name(peek(l)))
            return refuse(l, "a name, a string, a regular expression or a group is missing");
        ok = parse_reference(l, out, &terminal);
    }
    if (ok && terminal && !l->in_terminal && l->ignored)
        *out = then(l, *out, l->ignored);
    return ok;
}

static bool take_number(Lark *l, unsigned *out)
{
    size_t from = l->at;
    *out = 0;
    for (; peek(l) >= '0' && peek(l) <= '9'; l->at++)
        *out = MIN(*out * 10 + (unsigned)(peek(l) - '0'), 100000u);
    return l->at > from ? true : refuse(l, "a number is missing");
}

static bool copies(Lark *l, NodeId *atom)
{
    unsigned min = 0, max;
    skip_blanks(l);
    if (!take_number(l, &min))
        return false;
    max = min;
    if (take(l, "..") && !take_number(l, &max))
        return false;
    if (max < min || max > MAX_COPIES)
        return refuse(l, "a repetition of too many, or of fewer than none");
    NodeId all = NODE_RET;
    for (unsigned i = max; i > 0; i--) {
        NodeId more = node_call(l->p, *atom, all);
        all = i > min ? node_either(l->p, more, NODE_RET) : more;
    }
    *atom = all;
    return true;
}

static bool parse_repeated(Lark *l, NodeId *out)
{
    if (!parse_atom(l, out))
        return false;
    for (;;) {
        if (take(l, "?"))
            *out = node_either(l->p, *out, NODE_RET);
        else if (take(l, "*"))
            *out = loop_of(l, *out);
        else if (take(l, "+"))
            *out = node_call(l->p, *out, loop_of(l, *out));
        else
            break;
    }
    skip_blanks(l);
    return !take(l, "~") || copies(l, out);
}

/* One alternative: parts in a row, and an alias that names it. */
static bool parse_sequence(Lark *l, NodeId *out)
{
    NodeId part[64] = { 0 };
    size_t n = 0;
    NodeId all = NODE_RET;
    bool alias = false;
    for (;;) {
        skip_within(l);
        alias = take(l, "->");
        if (alias || peek(l) < 0 || peek(l) == '\n' || is_one_of(peek(l), "|)]"))
            break;
        if (n == COUNT(part))
            return refuse(l, "more than 64 parts in a row");
        if (!parse_repeated(l, &part[n++]))
            return false;
    }
    if (alias) {
        skip_blanks(l);
        take_name(l);
        skip_within(l);
    }
    while (n)
        all = node_call(l->p, part[--n], all);
    *out = all;
    return true;
}

static bool parse_expansions(Lark *l, NodeId *out)
{
    Bytes all = { 0 };
    NodeId one = NODE_NONE;
    bool ok;
    do {
        ok = parse_sequence(l, &one);
        bytes_put(&all, &one, sizeof one);
        if (ok && all.n / sizeof one >= MAX_PARTS)
            ok = refuse(l, "too many alternatives");
    } while (ok && take(l, "|"));
    if (ok)
        *out = node_alt_bytes(l->p, &all, NODE_RET);
    bytes_release(&all);
    return ok;
}

/* ---- statements ----------------------------------------------------------------------------- */

static bool import_one(Lark *l, Str name, Str as)
{
    for (size_t i = 0; i < COUNT(common); i++) {
        if (!str_eq(name, str_of(common[i].name)))
            continue;
        Named *n = find_name(l, as);
        if (!n || !regex_rule(l, str_of(common[i].regex), (RegexOptions){ 0 }, &n->body))
            return false;
        n->defined = true;
        return true;
    }
    return fail(l->err, DS4_EINVAL, "lark grammar: there is no common.%.*s", STR_ARG(name));
}

static bool parse_import(Lark *l)
{
    skip_blanks(l);
    if (!take(l, "common"))
        return refuse(l, "only common.NAME can be imported");
    skip_blanks(l);
    if (take(l, "(")) {
        do {
            skip_blanks(l);
            Str name = take_name(l);
            if (!import_one(l, name, name))
                return false;
            skip_blanks(l);
        } while (take(l, ","));
        return take(l, ")") ? true : refuse(l, "a ) is missing");
    }
    if (!take(l, "."))
        return refuse(l, "only common.NAME can be imported");
    Str name = take_name(l), as = name;
    skip_blanks(l);
    if (take(l, "->")) {
        skip_blanks(l);
        as = take_name(l);
    }
    return import_one(l, name, as);
}

static bool parse_ignore(Lark *l)
{
    NodeId rule = NODE_NONE;
    l->in_terminal = true;
    bool ok = parse_expansions(l, &rule);
    l->in_terminal = false;
    bytes_put(&l->ignores, &rule, sizeof rule);
    return ok;
}

static bool parse_definition(Lark *l)
{
    unsigned priority;
    while (peek(l) == '?' || peek(l) == '!')
        l->at++;
    Str name = take_name(l);
    if (name.n == 0)
        return refuse(l, "a definition is missing");
    if (peek(l) == '{')
        return refuse(l, "templates are not supported");
    if (take(l, ".") && !take_number(l, &priority))
        return false;
    skip_blanks(l);
    if (!take(l, ":"))
        return refuse(l, "a : is missing");
    Named *n = find_name(l, name);
    if (!n)
        return false;
    if (n->defined)
        return fail(l->err, DS4_EINVAL, "lark grammar: \"%.*s\" is defined twice", STR_ARG(name));
    size_t at = (size_t)(n - l->named);
    n->defined = true;
    l->in_terminal = is_terminal(name);
    NodeId body = NODE_NONE;
    if (!parse_expansions(l, &body))
        return false;
    l->in_terminal = false;
    l->named[at].body = body;
    return true;
}

static bool parse_statement(Lark *l)
{
    if (take(l, "%import"))
        return parse_import(l);
    if (take(l, "%ignore"))
        return parse_ignore(l);
    if (peek(l) == '%')
        return refuse(l, "of statements only %import and %ignore are supported");
    return parse_definition(l);
}

static bool parse_all(Lark *l)
{
    for (skip_lines(l); peek(l) >= 0; skip_lines(l)) {
        if (!parse_statement(l) || l->p->failed)
            return false;
        skip_blanks(l);
        if (peek(l) >= 0 && peek(l) != '\n')
            return refuse(l, "a definition does not end with its line");
    }
    return true;
}

static bool resolve_names(Lark *l)
{
    for (size_t i = 0; i < l->n_named; i++) {
        const Named *n = &l->named[i];
        if (!n->defined)
            return fail(l->err, DS4_EINVAL, "lark grammar: \"%.*s\" is not defined",
                        STR_ARG(n->name));
        node_resolve(l->p, n->rule, n->body);
    }
    if (l->ignored) {
        NodeId any = node_alt_bytes(l->p, &l->ignores, NODE_RET);
        node_resolve(l->p, l->ignored, loop_of(l, any));
    }
    return !l->p->failed;
}

static bool has(Str s, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= s.n; i++) {
        if (memcmp(s.p + i, word, n) == 0)
            return true;
    }
    return false;
}

bool lark_rule(Program *p, Str grammar, NodeId *rule, ds4_err *err)
{
    Lark l = { .p = p, .s = grammar, .err = err };
    Named *start = NULL;
    l.named = calloc(MAX_NAMES, sizeof *l.named);
    if (!l.named)
        return fail(err, DS4_ENOMEM, "lark grammar: no memory");
    if (has(grammar, "%ignore"))
        l.ignored = node_forward(p);
    bool ok = parse_all(&l);
    ok = ok && (start = find_name(&l, STR("start"))) != NULL;
    if (ok && !start->defined)
        ok = fail(err, DS4_EINVAL, "lark grammar: there is no rule \"start\"");
    ok = ok && resolve_names(&l);
    if (ok)
        *rule = l.ignored ? then(&l, l.ignored, start->rule) : start->rule;
    free(l.named);
    bytes_release(&l.ignores);
    return ok && !p->failed;
}
