/* eval_view.c - a line a suite, a mark a question, redrawn in place. */
#include "eval_view.h"
#include <stdio.h>
#include <unistd.h>

static const int64_t REDRAW_NS = 200000000;

/* No line is longer; one that is wrapped could not be drawn again. */
enum { WIDEST = 72 };

bool eval_view_wanted(void) { return cli_columns(STDERR_FILENO) >= WIDEST; }

/* Reading a prompt takes about as long as its tokens, and an answer as some hundred. */
static double cost(const ExamQuestion *q) { return 200 + q->tokens; }

static void put_mark(Bytes *b, const EvalResult *r, bool is_now, bool color)
{
    const char *mark = r->done ? r->right ? "\u2713" : "\u2717" : is_now ? "\u25b8" : "\u00b7";
    const char *tint = r->done  ? r->right ? "\033[32m" : "\033[31m"
                       : is_now ? "\033[36m"
                                : "\033[2m";
    bytes_printf(b, "%s%s%s", color ? tint : "", mark, color ? "\033[0m" : "");
}

static void put_suite(Bytes *b, const Sheet *s, int suite, size_t now, bool color)
{
    Tally t = sheet_tally(s, suite);
    bytes_printf(b, "%-13s %3d/%-3d ", suite_names[suite], t.right, t.done);
    for (size_t i = 0; i < s->exam.n; i++) {
        if (s->asked[i] && (int)s->exam.question[i].suite == suite)
            put_mark(b, &s->result[i], i == now, color);
    }
    bytes_str(b, "\033[K\n");
}

static void put_time_left(Bytes *b, const EvalView *v, const Sheet *s)
{
    double left = 0;
    for (size_t i = 0; i < s->exam.n; i++)
        left += s->asked[i] && !s->result[i].done ? cost(&s->exam.question[i]) : 0;
    double seconds = v->done > 0 ? v->spent / v->done * left : 0;
    if (seconds >= 1)
        bytes_printf(b, ", about %d:%02d left", (int)seconds / 60, (int)seconds % 60);
}

void eval_view_draw(EvalView *v, const Sheet *s, size_t now, int tokens, bool always)
{
    int64_t time = clock_ns();
    bool color = cli_color(STDERR_FILENO);
    Bytes b = { 0 };
    if (!always && time - v->drawn < REDRAW_NS)
        return;
    cli_progress_end();
    if (v->lines)
        bytes_printf(&b, "\033[%dA", v->lines);
    v->lines = 1;
    for (int suite = 0; suite < N_SUITES; suite++) {
        if (!sheet_tally(s, suite).asked)
            continue;
        put_suite(&b, s, suite, now, color);
        v->lines++;
    }
    Tally all = sheet_tally(s, N_SUITES);
    bytes_printf(&b, "%s: %d tokens, %d of %d questions", s->exam.question[now].id, tokens,
                 all.done, all.asked);
    put_time_left(&b, v, s);
    bytes_str(&b, "\033[K\n");
    if (!b.failed && write(STDERR_FILENO, b.p, b.n) < 0)
        v->lines = 0;
    v->drawn = time;
    bytes_release(&b);
}

void eval_view_answered(EvalView *v, const Sheet *s, size_t i)
{
    v->spent += s->result[i].seconds;
    v->done += cost(&s->exam.question[i]);
}

void eval_view_end(EvalView *v)
{
    char wipe[24];
    cli_progress_end();
    int n = v->lines ? snprintf(wipe, sizeof wipe, "\033[%dA\033[J", v->lines) : 0;
    if (n > 0 && write(STDERR_FILENO, wipe, (size_t)n) < 0)
        v->lines = 0;
    v->lines = 0;
}
