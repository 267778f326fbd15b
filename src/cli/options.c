/* options.c - tables of options: parsing, help, and the nearest name to a
 * misspelt one. */
#include "cli.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { HELP_COLUMN = 26, HELP_WIDTH = 96, MAX_WORD = 48 };

/* ---- the nearest name ----------------------------------------------------- */

/* Insertions, deletions and substitutions from a to b, both shorter than
 * MAX_WORD. */
static int edit_distance(const char *a, const char *b)
{
    int row[MAX_WORD + 1], n = (int)strlen(b);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int substitute = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(substitute, 1 + MIN(row[j], row[j - 1]));
        }
    }
    return row[n];
}

const char *cli_nearest(const char *word, const char *const *names, size_t n)
{
    size_t length = strlen(word);
    const char *best = NULL;
    int limit = length < 6 ? 1 : length < 12 ? 2 : 3;
    if (length >= MAX_WORD)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) >= MAX_WORD)
            continue;
        int d = edit_distance(word, names[i]);
        if (d <= limit) {
            limit = d - 1; /* the first of the nearest */
            best = names[i];
        }
    }
    return best;
}

/* ---- tables ---------------------------------------------------------------- */

typedef bool (*Visit)(const Option *o, void *user);

/* Calls visit for each option until it returns false. */
static void each_option(const Usage *u, Visit visit, void *user)
{
    for (size_t t = 0; t < COUNT(u->tables) && u->tables[t]; t++) {
        for (const Option *o = u->tables[t]; o->names; o++) {
            if (!visit(o, user))
                return;
        }
    }
}

/* The next of "-c, --ctx"; NULL at the end. */
static bool next_name(const char **at, char name[MAX_WORD])
{
    size_t n = strcspn(*at, ",");
    if (n == 0 || n >= MAX_WORD)
        return false;
    memcpy(name, *at, n);
    name[n] = '\0';
    *at += n;
    *at += strspn(*at, ", ");
    return true;
}

typedef struct {
    const char *name;
    const Option *found;
} Wanted;

static bool match(const Option *o, void *user)
{
    Wanted *w = user;
    char name[MAX_WORD];
    for (const char *at = o->names; o->kind != OPT_TITLE && next_name(&at, name);) {
        if (strcmp(name, w->name) == 0)
            w->found = o;
    }
    return w->found == NULL;
}

typedef struct {
    char text[96][MAX_WORD];
    const char *name[96];
    size_t n;
} Names;

static bool collect(const Option *o, void *user)
{
    Names *all = user;
    for (const char *at = o->names; o->kind != OPT_TITLE && all->n < COUNT(all->name);) {
        if (!next_name(&at, all->text[all->n]))
            break;
        all->name[all->n] = all->text[all->n];
        all->n++;
    }
    return true;
}

static const char *command_of(const Usage *u)
{
    return u->usage; /* "ds4 inspect [options] FILE" */
}

static int unknown_option(const Usage *u, const char *name)
{
    Names *all = calloc(1, sizeof *all);
    const char *near = NULL;
    if (all) {
        each_option(u, collect, all);
        all->name[all->n < COUNT(all->name) ? all->n++ : 0] = "--help";
        near = cli_nearest(name, all->name, all->n);
    }
    int status = near ? cli_usage_error("unknown option '%s'. Did you mean %s?", name, near)
                      : cli_usage_error("unknown option '%s'; usage: %s", name, command_of(u));
    free(all);
    return status;
}

/* ---- help -------------------------------------------------------------------- */

/* Text from the column `at` on, broken between words. */
static void put_wrapped(Bytes *b, const char *text, int at)
{
    int column = at;
    while (*text) {
        int word = (int)strcspn(text, " \n");
        if (column > HELP_COLUMN && column + 1 + word > HELP_WIDTH) {
            bytes_printf(b, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            bytes_byte(b, ' ');
            column++;
        }
        bytes_put(b, text, (size_t)word);
        column += word;
        text += word;
        text += strspn(text, " \n");
    }
    bytes_byte(b, '\n');
}

static bool put_option(const Option *o, void *user)
{
    Bytes *b = user;
    if (o->kind == OPT_TITLE) {
        bytes_printf(b, "\n%s\n", o->names);
        return true;
    }
    size_t from = b->n;
    bytes_printf(b, "  %s%s%s", o->names, o->arg ? " " : "", o->arg ? o->arg : "");
    int width = (int)(b->n - from);
    if (width + 2 > HELP_COLUMN) {
        bytes_byte(b, '\n');
        width = 0;
    }
    bytes_printf(b, "%*s", HELP_COLUMN - width, "");
    put_wrapped(b, o->help, HELP_COLUMN);
    return true;
}

static int help(const Usage *u)
{
    static const Option self = { OPT_FLAG, "-h, --help", NULL, NULL, "this text", 0, 0 };
    Bytes b = { 0 };
    ds4_err err = { 0 };
    bytes_printf(&b, "usage: %s\n\n%s\n", u->usage, u->about);
    if (u->tables[0] && u->tables[0]->kind != OPT_TITLE)
        bytes_str(&b, "\n");
    each_option(u, put_option, &b);
    put_option(&self, &b);
    bool ok =
        b.failed ? fail(&err, DS4_ENOMEM, "no memory for the help text") : cli_out(b.p, b.n, &err);
    bytes_release(&b);
    return ok ? 0 : cli_fail(&err);
}

/* ---- values -------------------------------------------------------------------- */

static bool in_range(const Option *o, double v)
{
    return (o->lo == 0 && o->hi == 0) || (v >= o->lo && v <= o->hi);
}

static int bad_value(const Option *o, const char *name, const char *text)
{
    const char *what = o->kind == OPT_FLOAT ? "a number" : "a whole number";
    if (o->lo == 0 && o->hi == 0)
        return cli_usage_error("%s: '%.60s' is not %s", name, text, what);
    return cli_usage_error("%s: '%.60s' is not %s from %.15g to %.15g", name, text, what, o->lo,
                           o->hi);
}

/* Is text one of "on|off"? */
static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        if (n == length && memcmp(at, text, n) == 0)
            return true;
        at += n;
        if (!*at)
            return false;
    }
}

/* What a script's empty variable leaves; it would fail when the work is done. */
static bool lacks_name(const Option *o, const char *text)
{
    static const char *const names[] = { "FILE", "PATH", "DIR", "URL" };
    bool named = false;
    for (size_t i = 0; (o->kind == OPT_STR || o->kind == OPT_LIST) && i < COUNT(names); i++)
        named |= strcmp(o->arg, names[i]) == 0;
    return named && !*text;
}

/* -1: stored. */
static int store(const Option *o, const char *name, const char *text)
{
    char *end = NULL;
    bool plain = *text && strspn(text, " \t\n\v\f\r") == 0;
    errno = 0;
    if (lacks_name(o, text))
        return cli_usage_error("%s: its %s is empty", name, o->arg);
    if (o->kind == OPT_STR) {
        if (strchr(o->arg, '|') && !is_choice(o->arg, text))
            return cli_usage_error("%s: '%.60s' is none of %s", name, text, o->arg);
        *(const char **)o->value = text;
        return -1;
    }
    if (o->kind == OPT_LIST) {
        ValueList *list = o->value;
        if (list->n == MOST_VALUES)
            return cli_usage_error("%s is given more than %d times", name, MOST_VALUES);
        list->value[list->n++] = text;
        return -1;
    }
    if (o->kind == OPT_INT) {
        long long v = strtoll(text, &end, 10);
        if (!plain || *end || errno || v < INT32_MIN || v > INT32_MAX || !in_range(o, (double)v))
            return bad_value(o, name, text);
        *(int *)o->value = (int)v;
    } else if (o->kind == OPT_U64) {
        unsigned long long v = strtoull(text, &end, 0);
        if (!plain || *text == '-' || *end || errno || !in_range(o, (double)v))
            return bad_value(o, name, text);
        *(uint64_t *)o->value = v;
    } else {
        float v = strtof(text, &end);
        if (!plain || *end || !(v - v == 0) || !in_range(o, (double)v))
            return bad_value(o, name, text);
        *(float *)o->value = v;
    }
    return -1;
}

/* ---- parsing ------------------------------------------------------------------- */

/* One option at argv[*i]; moves *i past its value. -1: go on. */
static int parse_option(const Usage *u, int argc, char **argv, int *i)
{
    const char *equals = strchr(argv[*i], '=');
    size_t n = equals ? (size_t)(equals - argv[*i]) : strlen(argv[*i]);
    char name[MAX_WORD];
    snprintf(name, sizeof name, "%.*s", (int)MIN(n, sizeof name - 1), argv[*i]);
    if (!equals && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0))
        return help(u);
    Wanted w = { .name = name };
    each_option(u, match, &w);
    if (!w.found)
        return unknown_option(u, name);
    if (w.found->kind == OPT_FLAG) {
        if (equals)
            return cli_usage_error("%s takes no value", name);
        *(bool *)w.found->value = true;
        return -1;
    }
    if (equals)
        return store(w.found, name, equals + 1);
    if (*i + 1 >= argc)
        return cli_usage_error("%s needs a value: %s %s", name, name, w.found->arg);
    return store(w.found, name, argv[++*i]);
}

int cli_parse(const Usage *u, int argc, char **argv, const char **args, int *n_args)
{
    int n = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (options && strcmp(a, "--") == 0) {
            options = false;
        } else if (options && a[0] == '-' && a[1]) {
            int status = parse_option(u, argc, argv, &i);
            if (status >= 0)
                return status;
        } else if (n < u->max_args) {
            args[n++] = a;
        } else {
            return cli_usage_error("unexpected argument '%.60s'; usage: %s", a, command_of(u));
        }
    }
    if (n < u->min_args)
        return cli_usage_error("an argument is missing; usage: %s", command_of(u));
    if (n_args)
        *n_args = n;
    return -1;
}
