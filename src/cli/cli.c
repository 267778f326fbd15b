/* cli.c - messages, results, Ctrl-C. */
#include "cli.h"
#include "../base/file.h"
#include "../base/utf8.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_TEXT ((size_t)256 << 20)

/* ---- messages ---------------------------------------------------------------- */

/* One line of stderr by one write, so that it stays whole beside other output. */
static void say(const char *fmt, va_list ap)
{
    char line[1024] = "ds4: ";
    size_t n = strlen(line);
    vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    n = strlen(line);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)line[i] < 0x20)
            line[i] = '?';
    }
    line[n++] = '\n';
    cli_progress_end();
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nowhere left to complain */
}

void cli_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

int cli_usage_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return 2;
}

int cli_fail(const ds4_err *err)
{
    if (err->code == DS4_ECANCELED) {
        cli_warn("interrupted");
        return 130;
    }
    cli_warn("%s", err->msg);
    return 1;
}

/* ---- results ----------------------------------------------------------------- */

bool cli_out(const void *p, size_t n, ds4_err *err)
{
    const char *from = p;
    while (n) {
        ssize_t k = write(STDOUT_FILENO, from, MIN(n, (size_t)1 << 30));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return fail(err, DS4_EIO, "cannot write to stdout: %s", strerror(errno));
        from += k;
        n -= (size_t)k;
    }
    return true;
}

static bool is_capable_terminal(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && (!term || strcmp(term, "dumb") != 0);
}

bool cli_color(int fd)
{
    const char *no = getenv("NO_COLOR");
    return is_capable_terminal(fd) && (!no || !*no);
}

int cli_columns(int fd)
{
    struct winsize size = { 0 };
    if (!is_capable_terminal(fd))
        return 0;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

const char *cli_size(char buf[16], uint64_t bytes)
{
    static const char *const unit[] = { "bytes", "kB", "MB", "GB", "TB", "PB", "EB" };
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 999.5 && u + 1 < COUNT(unit)) {
        v /= 1000;
        u++;
    }
    snprintf(buf, 16, "%.*f %s", u && v < 99.95 ? 1 : 0, v, unit[u]);
    return buf;
}

bool cli_is_other(const char *out, const char *in, ds4_err *err)
{
    return !out || !in || !file_same(out, in) ||
           fail(err, DS4_EINVAL, "%s is read here: another name for what is written", out);
}

/* ---- texts ------------------------------------------------------------------- */

bool cli_read_text(Bytes *out, const char *path, ds4_err *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "stdin" : path;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, DS4_EIO, "cannot open %s: %s", name, strerror(errno));
    bool ok = true, more = true;
    bytes_clear(out);
    while (ok && more) {
        char *to = bytes_room(out, 65536);
        ssize_t n = to ? read(fd, to, 65536) : 0;
        if (!to)
            ok = fail(err, DS4_ENOMEM, "no memory for the text in %s", name);
        else if (n < 0 && errno != EINTR)
            ok = fail(err, DS4_EIO, "cannot read %s: %s", name, strerror(errno));
        else if (n < 0 && cli_interrupted())
            ok = fail(err, DS4_ECANCELED, "interrupted");
        else if (n >= 0)
            more = n > 0;
        if (ok && n > 0)
            out->n += (size_t)n;
        if (out->n > MAX_TEXT)
            ok = fail(err, DS4_EINVAL, "%s is longer than %zu bytes", name, MAX_TEXT);
    }
    if (!standard)
        close(fd);
    return ok;
}

static void put_escape(Bytes *out, unsigned char c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c ? strchr(plain, c) : NULL;
    if (at)
        bytes_printf(out, "\\%c", letter[at - plain]);
    else
        bytes_printf(out, "\\u%04x", c);
}

void cli_json_str(Bytes *out, Str s)
{
    bytes_byte(out, '"');
    for (size_t i = 0; i < s.n;) {
        size_t n = (size_t)utf8_char(s.p + i, s.n - i);
        unsigned char c = (unsigned char)s.p[i];
        if (n == 0)
            bytes_str(out, "\xef\xbf\xbd");
        else if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
            put_escape(out, c);
        else
            bytes_put(out, s.p + i, n);
        i += MAX(n, (size_t)1);
    }
    bytes_byte(out, '"');
}

void cli_json_num(Bytes *out, double v)
{
    if (isfinite(v))
        bytes_printf(out, "%.9g", v);
    else
        bytes_str(out, "null");
}

/* ---- Ctrl-C ------------------------------------------------------------------ */

/* A signal handler has no argument to find these by. */
static volatile sig_atomic_t interrupts;
static void (*volatile on_first_interrupt)(void);

static void handle_interrupt(int signal_number)
{
    static const char plain[] = "\033[0m\n"; /* the text may be dim just now */
    (void)signal_number;
    int saved = errno;
    if (interrupts++ > 0) {
        if (isatty(STDOUT_FILENO) && write(STDOUT_FILENO, plain, sizeof plain - 1) < 0)
            _exit(130);
        _exit(130);
    }
    if (on_first_interrupt)
        on_first_interrupt();
    errno = saved;
}

void cli_catch_interrupt(void (*on_interrupt)(void))
{
    on_first_interrupt = on_interrupt;
    struct sigaction a = { .sa_handler = handle_interrupt };
    sigemptyset(&a.sa_mask); /* no SA_RESTART: a read at a prompt ends */
    sigaction(SIGINT, &a, NULL);
}

static ds4_engine *_Atomic at_work;

static void cancel_work(void)
{
    ds4_engine *e = atomic_load(&at_work);
    if (e)
        ds4_cancel(e);
}

void cli_catch_cancel(void) { cli_catch_interrupt(cancel_work); }

void cli_at_work(ds4_engine *e) { atomic_store(&at_work, e); }

bool cli_interrupted(void) { return interrupts > 0; }

void cli_clear_interrupt(void) { interrupts = 0; }
