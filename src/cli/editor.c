/* editor.c - libedit, and where its history is kept.
 *
 * At the prompt Ctrl-C is a key and no signal: it throws the line away. The
 * program's own handler is for answers that are being made. */
#include "editor.h"
#include "../base/file.h"
#include "cli.h"
#include <histedit.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { REMEMBERED = 2000 };

struct Editor {
    EditLine *el; /* NULL: no terminal */
    History *history;
    char file[PATH_MAX]; /* "": history is not kept */
    const char *prompt;
    bool more, interrupted; /* more: the line goes on */
    char *plain;            /* getline's */
    size_t plain_cap;
};

/* ---- where history is kept -------------------------------------------------------- */

/* The XDG state folder's ds4/history. */
static void find_history(Editor *e)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state && state[0] == '/')
        n = snprintf(e->file, sizeof e->file, "%s/ds4/history", state);
    else if (home && home[0] == '/')
        n = snprintf(e->file, sizeof e->file, "%s/.local/state/ds4/history", home);
    if (n < 0 || (size_t)n >= sizeof e->file || !file_make_folders(e->file, NULL))
        e->file[0] = '\0';
}

static void remember(Editor *e, const char *line)
{
    HistEvent event;
    if (!line[0] || line[strspn(line, " \t\n")] == '\0')
        return;
    history(e->history, &event, H_ENTER, line);
    if (e->file[0])
        history(e->history, &event, H_SAVE, e->file);
}

/* ---- opening ------------------------------------------------------------------------ */

static char *show_prompt(EditLine *el)
{
    void *e = NULL;
    el_get(el, EL_CLIENTDATA, &e);
    Editor *editor = e;
    static char more[] = "... ";
    return editor->more ? more : (char *)(uintptr_t)editor->prompt;
}

static unsigned char throw_away(EditLine *el, int key)
{
    void *e = NULL;
    (void)key;
    el_get(el, EL_CLIENTDATA, &e);
    ((Editor *)e)->interrupted = true;
    return CC_NEWLINE;
}

/* UTF-8 is what the model speaks; a C locale would cut characters up. */
static void choose_locale(void)
{
    static const char *const names[] = { "C.UTF-8", "en_US.UTF-8", "UTF-8" };
    for (size_t i = 0; MB_CUR_MAX == 1 && i < COUNT(names); i++)
        setlocale(LC_CTYPE, names[i]);
}

static bool open_terminal(Editor *e)
{
    HistEvent event;
    choose_locale();
    FILE *out = isatty(STDOUT_FILENO) ? stdout : stderr;
    e->el = el_init("ds4", stdin, out, stderr);
    e->history = history_init();
    if (!e->el || !e->history)
        return false;
    history(e->history, &event, H_SETSIZE, REMEMBERED);
    history(e->history, &event, H_SETUNIQUE, 1);
    find_history(e);
    if (e->file[0])
        history(e->history, &event, H_LOAD, e->file);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_PROMPT, show_prompt);
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_HIST, history, e->history);
    el_set(e->el, EL_SIGNAL, 1); /* for changes of the window's size */
    el_source(e->el, NULL);      /* the user's .editrc */
    /* The wide call keeps these strings; the narrow one would leak copies. */
    el_wset(e->el, EL_ADDFN, L"ds4-throw-away", L"give the line up", throw_away);
    el_set(e->el, EL_BIND, "^C", "ds4-throw-away", NULL);
    el_set(e->el, EL_SETTY, "-d", "intr=", NULL);
    return true;
}

Editor *editor_open(const char *prompt, ds4_err *err)
{
    Editor *e = calloc(1, sizeof *e);
    if (e) {
        e->prompt = prompt;
        if (!isatty(STDIN_FILENO) || open_terminal(e))
            return e;
        editor_close(e);
    }
    fail(err, DS4_ENOMEM, "cannot set up line editing");
    return NULL;
}

void editor_close(Editor *e)
{
    if (!e)
        return;
    if (e->el)
        el_end(e->el);
    if (e->history)
        history_end(e->history);
    free(e->plain);
    free(e);
}

bool editor_is_terminal(const Editor *e) { return e->el != NULL; }

/* ---- lines ---------------------------------------------------------------------------- */

/* A line with its newline; NULL at the end of input. */
static const char *next_line(Editor *e)
{
    if (e->el) {
        int n = 0;
        return el_gets(e->el, &n);
    }
    return getline(&e->plain, &e->plain_cap, stdin) >= 0 ? e->plain : NULL;
}

static bool was_interrupted(Editor *e)
{
    bool yes = e->interrupted || cli_interrupted();
    e->interrupted = false;
    cli_clear_interrupt();
    return yes;
}

enum EditorEvent editor_line(Editor *e, Bytes *line)
{
    bytes_clear(line);
    e->more = false;
    do {
        const char *text = next_line(e);
        if (was_interrupted(e))
            return EDITOR_INTERRUPT;
        if (!text)
            return line->n ? EDITOR_LINE : EDITOR_END;
        bytes_str(line, text);
        while (line->n && (line->p[line->n - 1] == '\n' || line->p[line->n - 1] == '\r'))
            line->n--;
        e->more = line->n && line->p[line->n - 1] == '\\';
        if (e->more)
            line->p[line->n - 1] = '\n';
    } while (e->more);
    bytes_byte(line, '\0'); /* for history; not part of the line */
    if (line->failed)
        return EDITOR_END;
    line->n--;
    if (e->history)
        remember(e, line->p);
    return EDITOR_LINE;
}
