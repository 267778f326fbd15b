/* bench_plot.c - an SVG of nothing but lines, circles and text.
 *
 * Speeds start at 0, so that what looks twice as fast is. Colours follow the
 * reader's light or dark mode. */
#include "bench_plot.h"
#include "../base/utf8.h"
#include <math.h>

enum { WIDTH = 720, HEIGHT = 560, LEFT = 72, RIGHT = 688, PANEL = 180, COLORS = 4 };
static const int panel_top[2] = { 96, 328 };

static const char style[] =
    "<style>\n"
    "text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:17px;font-weight:600}\n"
    ".paper{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#888}polyline{fill:none;stroke-width:2.5}\n"
    ".s0{stroke:#1f6fd0}.s1{stroke:#d2691e}.s2{stroke:#2a8f4d}.s3{stroke:#a03fa0}\n"
    "circle.s0{fill:#1f6fd0}circle.s1{fill:#d2691e}circle.s2{fill:#2a8f4d}circle.s3{fill:#a03fa0}\n"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.paper{fill:#16181c}.grid{stroke:#33363c}\n"
    ".s0{stroke:#6aaefc}.s1{stroke:#ff9d5c}.s2{stroke:#63d08c}.s3{stroke:#d98ae0}\n"
    "circle.s0{fill:#6aaefc}circle.s1{fill:#ff9d5c}circle.s2{fill:#63d08c}circle.s3{fill:#d98ae0}}"
    "\n"
    "</style>\n";

typedef struct {
    double lo, hi; /* log2 of the contexts at the ends */
    double top;    /* speed at the top of the panel */
    double step;   /* from tick to tick */
    int y;         /* of the top */
} Panel;

static double speed(const PlotPoint *p, int panel) { return panel ? p->gen_tps : p->prefill_tps; }

static double x_of(const Panel *a, int ctx)
{
    return LEFT + (RIGHT - LEFT) * (log2(ctx) - a->lo) / (a->hi - a->lo);
}
static double y_of(const Panel *a, double v) { return a->y + PANEL * (1 - v / a->top); }

/* ---- axes --------------------------------------------------------------------- */

/* 1, 2 or 5 times a power of ten, four to ten of which reach the value. */
static double tick_step(double most)
{
    double step = pow(10, floor(log10(most / 4)));
    if (most / step >= 20)
        return 5 * step;
    return most / step >= 10 ? 2 * step : step;
}

static Panel panel_of(int which, const PlotPoint *p, size_t n)
{
    double most = 0, lo = INFINITY, hi = 0;
    for (size_t i = 0; i < n; i++) {
        most = MAX(most, speed(&p[i], which));
        lo = MIN(lo, floor(log2(p[i].ctx)));
        hi = MAX(hi, ceil(log2(p[i].ctx)));
    }
    Panel a = { .lo = lo, .hi = MAX(hi, lo + 1), .y = panel_top[which] };
    a.step = tick_step(most > 0 ? most : 1);
    a.top = a.step * MAX(1, ceil(most / a.step));
    return a;
}

static void put_context(Bytes *b, int n)
{
    if (n >= 1 << 20 && n % (1 << 20) == 0)
        bytes_printf(b, "%dM", n >> 20);
    else if (n >= 1024 && n % 1024 == 0)
        bytes_printf(b, "%dK", n >> 10);
    else
        bytes_printf(b, "%d", n);
}

static void put_line(Bytes *b, const char *class, double x1, double y1, double x2, double y2)
{
    bytes_printf(b, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class,
                 x1, y1, x2, y2);
}

static void put_contexts(Bytes *b, const Panel *a)
{
    const int lo = (int)a->lo, hi = (int)a->hi, every = (hi - lo) / 9 + 1;
    for (int e = lo; e <= hi; e += every) {
        double x = x_of(a, 1 << e);
        put_line(b, "grid", x, a->y, x, a->y + PANEL);
        bytes_printf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", x, a->y + PANEL + 18);
        put_context(b, 1 << e);
        bytes_str(b, "</text>\n");
    }
}

static void put_axes(Bytes *b, const Panel *a, const char *what)
{
    bytes_printf(b, "<text x=\"%d\" y=\"%d\">%s, tokens/s</text>\n", LEFT, a->y - 10, what);
    put_contexts(b, a);
    for (int i = 0; i * a->step <= a->top * 1.001; i++) {
        double y = y_of(a, i * a->step);
        put_line(b, i ? "grid" : "axis", LEFT, y, RIGHT, y);
        bytes_printf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8,
                     y + 4, i * a->step);
    }
}

/* ---- lines -------------------------------------------------------------------- */

/* Points from `at` on that belong to one line. */
static size_t line_length(const PlotPoint *p, size_t n, size_t at)
{
    size_t end = at;
    while (end < n && p[end].sessions == p[at].sessions)
        end++;
    return end - at;
}

static void put_series(Bytes *b, const Panel *a, int which, const PlotPoint *p, size_t n, int color)
{
    bytes_printf(b, "<polyline class=\"s%d\" points=\"", color);
    for (size_t i = 0; i < n; i++)
        bytes_printf(b, "%s%.1f,%.1f", i ? " " : "", x_of(a, p[i].ctx),
                     y_of(a, speed(&p[i], which)));
    bytes_str(b, "\"/>\n");
    for (size_t i = 0; i < n; i++)
        bytes_printf(b,
                     "<circle class=\"s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%d tokens: "
                     "%.2f tokens/s</title></circle>\n",
                     color, x_of(a, p[i].ctx), y_of(a, speed(&p[i], which)), p[i].ctx,
                     speed(&p[i], which));
}

static void put_panel(Bytes *b, int which, const PlotPoint *p, size_t n)
{
    Panel a = panel_of(which, p, n);
    int color = 0;
    put_axes(b, &a, which ? "decode" : "prefill");
    for (size_t at = 0; at < n;) {
        size_t length = line_length(p, n, at);
        put_series(b, &a, which, p + at, length, color++ % COLORS);
        at += length;
    }
}

/* What the colours mean, where there is more than one. */
static void put_legend(Bytes *b, const PlotPoint *p, size_t n)
{
    int lines = 0, color = 0;
    for (size_t at = 0; at < n; at += line_length(p, n, at))
        lines++;
    for (size_t at = 0; lines > 1 && at < n; at += line_length(p, n, at), color++) {
        int x = RIGHT - 110 * (lines - color);
        bytes_printf(
            b,
            "<circle class=\"s%d\" cx=\"%d\" cy=\"82\" r=\"5\"/><text x=\"%d\" y=\"86\">%d "
            "session%s</text>\n",
            color % COLORS, x, x + 12, p[at].sessions, p[at].sessions == 1 ? "" : "s");
    }
}

/* ---- the page ----------------------------------------------------------------- */

static void put_text(Bytes *b, Str s)
{
    for (size_t i = 0; i < s.n;) {
        size_t n = (size_t)utf8_char(s.p + i, s.n - i);
        if (n == 0 || (unsigned char)s.p[i] < 0x20)
            bytes_str(b, "\xef\xbf\xbd");
        else if (s.p[i] == '<')
            bytes_str(b, "&lt;");
        else if (s.p[i] == '>')
            bytes_str(b, "&gt;"); /* after "]]" a plain one is an error */
        else if (s.p[i] == '&')
            bytes_str(b, "&amp;");
        else
            bytes_put(b, s.p + i, n);
        i += MAX(n, (size_t)1);
    }
}

void bench_plot(Bytes *out, Str title, Str about, const PlotPoint *p, size_t n)
{
    bytes_printf(out,
                 "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n"
                 "<title>",
                 WIDTH, HEIGHT);
    put_text(out, title);
    bytes_str(out, ": speed by context</title>\n");
    bytes_str(out, style);
    bytes_printf(out, "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", WIDTH, HEIGHT);
    bytes_str(out, "<text class=\"title\" x=\"24\" y=\"32\">");
    put_text(out, title);
    bytes_str(out, "</text>\n<text x=\"24\" y=\"54\">");
    put_text(out, about);
    bytes_str(out, "</text>\n");
    for (int which = 0; which < 2 && n; which++)
        put_panel(out, which, p, n);
    put_legend(out, p, n);
    bytes_printf(
        out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">tokens of context</text>\n</svg>\n",
        (LEFT + RIGHT) / 2, HEIGHT - 12);
}
