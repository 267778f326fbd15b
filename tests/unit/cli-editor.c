/* Lines typed on a terminal, and Ctrl-C at moments that no key can be timed to:
 * this program's own versions of what libedit and the editor call raise it. */
#include "../../src/cli/cli.h"
#include "../../src/cli/editor.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- when Ctrl-C comes ------------------------------------------------------------ */

enum { NEVER, BEFORE_EDITING, AFTER_EDITING, WITH_THE_LINE_READ };
static int wanted, when; /* wanted: when, as soon as the editor is set up */

static void press(int now)
{
    if (when != now)
        return;
    when = NEVER;
    raise(SIGINT);
}

int tcsetattr(int fd, int how, const struct termios *t)
{
    int (*real)(int, int, const struct termios *) =
        (int (*)(int, int, const struct termios *))(uintptr_t)dlsym(RTLD_NEXT, "tcsetattr");
    bool edits = !(t->c_lflag & ICANON);
    if (edits)
        press(BEFORE_EDITING);
    int rc = real(fd, how, t);
    if (!edits)
        press(AFTER_EDITING);
    return rc;
}

/* Nothing is remembered here. */
int history(History *h, HistEvent *event, int op, ...)
{
    (void)h, (void)event;
    if (op == H_SETUNIQUE)
        when = wanted;
    if (op == H_ENTER)
        press(WITH_THE_LINE_READ);
    return -1;
}

/* ---- a program on a terminal -------------------------------------------------------- */

typedef struct {
    int fd;
    pid_t pid;
    char seen[65536];
    size_t n;
} Terminal;

static void start(Terminal *t, int (*program)(void), int pressed)
{
    t->n = 0;
    t->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->fd >= 0 && grantpt(t->fd) == 0 && unlockpt(t->fd) == 0);
    const char *name = ptsname(t->fd);
    assert_non_null(name);
    t->pid = fork();
    if (t->pid)
        return;
    close(t->fd); /* a test that is killed hangs up */
    setsid();
    int tty = open(name, O_RDWR);
    if (tty < 0 || ioctl(tty, TIOCSCTTY, 0) != 0)
        _exit(99);
    for (int fd = 0; fd < 3; fd++)
        dup2(tty, fd);
    setenv("TERM", "xterm", 1);
    setenv("HOME", "/nonexistent", 1);
    unsetenv("XDG_STATE_HOME");
    wanted = pressed;
    _exit(program());
}

/* Wait until the program has written a text, and forget all up to its end. A minute is for a
 * program that never does. */
static void expect(Terminal *t, const char *text)
{
    const char *found;
    t->seen[t->n] = '\0';
    while (!(found = strstr(t->seen, text))) {
        struct pollfd in = { .fd = t->fd, .events = POLLIN };
        ssize_t n = poll(&in, 1, 60000) > 0 && t->n + 1 < sizeof t->seen
                        ? read(t->fd, t->seen + t->n, sizeof t->seen - 1 - t->n)
                        : 0;
        if (n <= 0) {
            kill(t->pid, SIGKILL);
            fail_msg("waited for \"%s\", got \"%s\"", text, t->seen);
        }
        t->n += (size_t)n;
        t->seen[t->n] = '\0';
    }
    found += strlen(text);
    t->n -= (size_t)(found - t->seen);
    memmove(t->seen, found, t->n);
}

static void type(Terminal *t, const char *keys)
{
    assert_int_equal(write(t->fd, keys, strlen(keys)), strlen(keys));
}

static void finish(Terminal *t, int expected)
{
    int status = 0;
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    close(t->fd);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected);
}

/* Says what each line is, until there are no more. */
static int tell_lines(void)
{
    ds4_err err = { 0 };
    Bytes line = { 0 };
    Editor *e = editor_open("> ", &err);
    enum EditorEvent event = e ? EDITOR_LINE : EDITOR_END;
    cli_catch_cancel();
    while (event != EDITOR_END && event != EDITOR_FAILED) {
        event = editor_line(e, &line, &err);
        bool late = cli_interrupted();
        if (late)
            cli_clear_interrupt(); /* before the test is told, which then sends the next one */
        if (event == EDITOR_INTERRUPT)
            fprintf(stderr, "thrown away\n");
        else if (event == EDITOR_LINE)
            fprintf(stderr, "[%.*s]%s\n", (int)line.n, line.p, late ? " late" : "");
    }
    bytes_release(&line);
    editor_close(e);
    return 0;
}

static void a_ctrl_c_is_a_key_of_the_line_that_is_edited(void **state)
{
    Terminal t;
    (void)state;
    start(&t, tell_lines, NEVER);
    expect(&t, "> ");
    type(&t, "half a line");
    expect(&t, "half a line");
    type(&t, "\x03");
    expect(&t, "\r\nthrown away");
    type(&t, "whole\r");
    expect(&t, "[whole]\r\n");
    kill(t.pid, SIGINT); /* not the terminal's: the same */
    expect(&t, "thrown away");
    type(&t, "goes \\\r");
    expect(&t, "... ");
    type(&t, "on\r");
    expect(&t, "[goes \r\non]\r\n");
    expect(&t, "> ");
    type(&t, "\x04");
    finish(&t, 0);
}

static void a_ctrl_c_before_the_terminal_is_taken_over_needs_no_key(void **state)
{
    Terminal t;
    (void)state;
    start(&t, tell_lines, BEFORE_EDITING);
    expect(&t, "thrown away");
    type(&t, "whole\r");
    expect(&t, "[whole]\r\n");
    expect(&t, "> ");
    type(&t, "\x04");
    finish(&t, 0);
}

static void a_ctrl_c_after_enter_is_left_to_what_the_line_asks_for(void **state)
{
    Terminal t;
    (void)state;
    start(&t, tell_lines, AFTER_EDITING);
    expect(&t, "> ");
    type(&t, "whole\r");
    expect(&t, "[whole] late");
    expect(&t, "> ");
    type(&t, "\x04");
    finish(&t, 0);
}

/* ---- the chat --------------------------------------------------------------------------- */

static int chat_without_end(void)
{
    const char *args[] = { "chat",      "-m",      "models/ds4-tiny.gguf",
                           "--nothink", "--temp",  "100",
                           "-t",        "1",       "--min-p",
                           "0",         "--seed",  "1",
                           "-c",        "1000000", NULL };
    char *argv[COUNT(args)];
    for (size_t i = 0; i < COUNT(args); i++)
        argv[i] = (char *)(uintptr_t)args[i];
    return cmd_chat((int)COUNT(args) - 1, argv);
}

static void a_ctrl_c_before_an_answer_begins_stops_it(void **state)
{
    static const int moments[] = { AFTER_EDITING, WITH_THE_LINE_READ };
    (void)state;
    for (size_t i = 0; i < COUNT(moments); i++) {
        Terminal t;
        start(&t, chat_without_end, moments[i]);
        expect(&t, "> ");
        type(&t, "Hello!\r");
        expect(&t, "(nothing was said; your message is dropped)");
        expect(&t, "> ");
        type(&t, "\x04");
        finish(&t, 0);
    }
}

int main(void)
{
#ifdef __APPLE__
    puts("skipped: on a Mac a program's own tcsetattr is not libedit's");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ctrl_c_is_a_key_of_the_line_that_is_edited),
        cmocka_unit_test(a_ctrl_c_before_the_terminal_is_taken_over_needs_no_key),
        cmocka_unit_test(a_ctrl_c_after_enter_is_left_to_what_the_line_asks_for),
        cmocka_unit_test(a_ctrl_c_before_an_answer_begins_stops_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
