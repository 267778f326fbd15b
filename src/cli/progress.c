/* progress.c - one bar on the terminal's stderr: part done, rate, time left. */
#include "cli.h"
#include <stdio.h>
#include <unistd.h>

enum { BAR = 24 };

/* A line that is wrapped cannot be drawn again: what is told on terminals of so many columns. */
enum { WITH_PERCENT = 18, WITH_RATE = 40, WITH_ALL = 76 };

static const int64_t REDRAW_NS = 100000000, PATIENCE_NS = 300000000;

/* There is one stderr, so there is one bar. */
static struct {
    char what[32];
    int64_t began, drawn;
    uint64_t first; /* done when it began: a resumed job is not faster for it */
    bool shown;
} bar;

static void put_time(Bytes *b, double seconds)
{
    int s = (int)MIN(seconds + 0.5, 359999.0);
    if (s >= 3600)
        bytes_printf(b, "%d:%02d:%02d left", s / 3600, s / 60 % 60, s % 60);
    else
        bytes_printf(b, "%d:%02d left", s / 60, s % 60);
}

/* Tokens are counted, what is large is bytes, and a few steps have no rate. */
static void put_rate(Bytes *b, double per_second, uint64_t total)
{
    char size[16];
    if (strstr(bar.what, "prefill") || strstr(bar.what, "token"))
        bytes_printf(b, "%.1f tokens/s", per_second);
    else if (total >= 1000000 || total == 0)
        bytes_printf(b, "%s/s", cli_size(size, (uint64_t)per_second));
}

static void put_bar(Bytes *b, uint64_t done, uint64_t total, double seconds, int columns)
{
    bool color = cli_color(STDERR_FILENO);
    bytes_printf(b, "\r%-10s ", bar.what);
    if (total && columns < WITH_ALL) {
        bytes_printf(b, "%3d%%  ", (int)(100.0 * (double)done / (double)total));
    } else if (total) {
        int filled = (int)((double)done / (double)total * BAR);
        bytes_str(b, color ? "\033[36m" : "");
        for (int i = 0; i < BAR; i++)
            bytes_str(b, i < filled ? "\u2501" : color ? "\033[2m\u2501\033[22m" : "\u2500");
        bytes_printf(b, "%s %3d%%  ", color ? "\033[0m" : "",
                     (int)(100.0 * (double)done / (double)total));
    }
    double rate = seconds > 0 ? (double)(done - bar.first) / seconds : 0;
    if (columns >= WITH_RATE)
        put_rate(b, rate, total);
    if (columns >= WITH_ALL && total > done && rate > 0 && seconds > 1) {
        bytes_str(b, "  ");
        put_time(b, (double)(total - done) / rate);
    }
    bytes_str(b, "\033[K");
}

static void begin(const char *what, uint64_t done)
{
    cli_progress_end();
    snprintf(bar.what, sizeof bar.what, "%s", what);
    bar.began = clock_ns();
    bar.drawn = bar.began;
    bar.first = done;
}

void cli_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    int columns = cli_columns(STDERR_FILENO);
    (void)user;
    if (columns < WITH_PERCENT)
        return;
    if (strncmp(bar.what, what, sizeof bar.what - 1) != 0 || done < bar.first)
        begin(what, done);
    int64_t now = clock_ns();
    /* What takes less than a moment is not worth a flicker. */
    if (now - bar.began < PATIENCE_NS || now - bar.drawn < REDRAW_NS)
        return;
    Bytes b = { 0 };
    put_bar(&b, total ? MIN(done, total) : done, total, (double)(now - bar.began) * 1e-9, columns);
    if (!b.failed && write(STDERR_FILENO, b.p, b.n) >= 0)
        bar.shown = true;
    bar.drawn = now;
    bytes_release(&b);
}

void cli_progress_end(void)
{
    static const char wipe[] = "\r\033[K";
    if (bar.shown && write(STDERR_FILENO, wipe, sizeof wipe - 1) < 0)
        bar.shown = false;
    bar.shown = false;
    bar.what[0] = '\0';
}
