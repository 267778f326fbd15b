/* editor.c - libedit, and where its history is kept.
 *
 * Ctrl-C is a signal at any time. Were it a key while a line is edited, one
 * that is pressed before the terminal is taken over, or after Enter, would
 * wait there as the other thing. So while libedit works the signal is blocked,
 * and taken only where a key is waited for, as the key that throws the line
 * away. After Enter it stays for what the line asks for. */
#include "editor.h"
#include "../base/file.h"
#include "cli.h"
#include <errno.h>
#include <histedit.h>
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <termios.h>
#include <unistd.h>

enum { REMEMBERED = 2000, CTRL_C = 3 };

struct Editor {
    EditLine *el; /* NULL: no terminal */
    History *history;
    char file[PATH_MAX]; /* "": history is not kept */
    const char *prompt;
    bool more, interrupted; /* more: the line goes on */
    sigset_t outside;       /* the signals that are blocked when no line is edited */
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

/* Enter, pressed for the user, leaves the cursor on a line of its own. */
static unsigned char throw_away(EditLine *el, int key)
{
    void *e = NULL;
    (void)key;
    el_get(el, EL_CLIENTDATA, &e);
    ((Editor *)e)->interrupted = true;
    el_wpush(el, L"\n");
    return CC_NORM;
}

/* ---- keys and signals ----------------------------------------------------------------- */

/* A signal handler has no argument to find these by. */
static volatile sig_atomic_t resized, continued;

static void note_change(int signal_number)
{
    if (signal_number == SIGWINCH)
        resized = 1;
    else
        continued = 1;
}

/* libedit takes notice of the first change while a line is edited; the others,
 * and those while an answer is made, are ours. */
static void watch_terminal(void)
{
    struct sigaction a = { .sa_handler = note_change, .sa_flags = SA_RESTART };
    sigemptyset(&a.sa_mask);
    sigaction(SIGWINCH, &a, NULL);
    sigaction(SIGCONT, &a, NULL);
}

static void follow_terminal(EditLine *el)
{
    if (continued) {
        el_set(el, EL_PREP_TERM, 0); /* whatever the shell has made of it */
        el_set(el, EL_PREP_TERM, 1);
        el_set(el, EL_REFRESH);
    }
    if (resized)
        el_resize(el);
    continued = resized = 0;
}

/* The next key, or Ctrl-C's. What was typed before that goes with the line:
 * the terminal is told not to flush it itself, since a read that was promised
 * a key would then wait. */
static int read_key(EditLine *el, wchar_t *key)
{
    void *data = NULL;
    fd_set in;
    int ready;
    el_get(el, EL_CLIENTDATA, &data);
    const Editor *e = data;
    cli_catch_cancel(); /* libedit has put its own handler there */
    do {
        if (cli_interrupted()) {
            tcflush(STDIN_FILENO, TCIFLUSH);
            cli_clear_interrupt();
            *key = CTRL_C;
            return 1;
        }
        follow_terminal(el);
        FD_ZERO(&in);
        FD_SET(STDIN_FILENO, &in);
        ready = pselect(STDIN_FILENO + 1, &in, NULL, NULL, NULL, &e->outside);
    } while (ready < 0 && errno == EINTR);
    el_wset(el, EL_GETCFN, EL_BUILTIN_GETCFN);
    int n = el_wgetc(el, key);
    el_wset(el, EL_GETCFN, read_key);
    return n;
}

static const char *edit_line(Editor *e)
{
    static const int held[] = { SIGINT, SIGWINCH, SIGCONT };
    sigset_t set;
    int n = 0;
    sigemptyset(&set);
    for (size_t i = 0; i < COUNT(held); i++)
        sigaddset(&set, held[i]);
    pthread_sigmask(SIG_BLOCK, &set, &e->outside);
    continued = 0; /* the terminal is taken over anew */
    follow_terminal(e->el);
    el_set(e->el, EL_PREP_TERM, 1); /* before the prompt is seen: a Ctrl-D is a key by then */
    const char *text = el_gets(e->el, &n);
    pthread_sigmask(SIG_SETMASK, &e->outside, NULL);
    return text;
}

/* ---- opening a terminal ----------------------------------------------------------------- */

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
    el_set(e->el, EL_SIGNAL, 1); /* Ctrl-Z, and an end by a signal, give the terminal back */
    el_source(e->el, NULL);      /* the user's .editrc */
    /* The wide call keeps these strings; the narrow one would leak copies. */
    el_wset(e->el, EL_ADDFN, L"ds4-throw-away", L"give the line up", throw_away);
    el_set(e->el, EL_BIND, "^C", "ds4-throw-away", NULL);
    el_set(e->el, EL_BIND, "-a", "^C", "ds4-throw-away", NULL); /* vi's commands */
    el_set(e->el, EL_SETTY, "-d", "+noflsh", NULL);
    el_wset(e->el, EL_GETCFN, read_key);
    watch_terminal();
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
    if (e->el)
        return edit_line(e);
    return getline(&e->plain, &e->plain_cap, stdin) >= 0 ? e->plain : NULL;
}

/* On a terminal a Ctrl-C after Enter is not the line's. */
static bool was_interrupted(Editor *e, const char *text)
{
    bool yes = e->interrupted || (cli_interrupted() && (!e->el || !text));
    e->interrupted = false;
    if (yes)
        cli_clear_interrupt();
    return yes;
}

enum EditorEvent editor_line(Editor *e, Bytes *line, ds4_err *err)
{
    bytes_clear(line);
    e->more = false;
    do {
        errno = 0;
        const char *text = next_line(e);
        if (was_interrupted(e, text))
            return EDITOR_INTERRUPT;
        if (!text && !e->el && !feof(stdin)) {
            fail(err, DS4_EIO, "cannot read the standard input: %s", strerror(errno));
            return EDITOR_FAILED;
        }
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
    if (line->failed) {
        fail(err, DS4_ENOMEM, "no memory for a line");
        return EDITOR_FAILED;
    }
    line->n--;
    if (e->history)
        remember(e, line->p);
    return EDITOR_LINE;
}
