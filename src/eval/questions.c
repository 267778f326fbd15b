/* questions.c - an examination from the number of its set. */
#include "questions.h"
#include "questions_parts.h"
#include <stdarg.h>
#include <stdio.h>

const char *const suite_names[N_SUITES] = { "arithmetic", "strings", "tools", "instructions",
                                            "recall" };

static const char *const words[] = {
    "anchor",  "basket", "candle",  "dragon",   "engine",   "feather", "garden",  "hammer",
    "island",  "jacket", "kitchen", "lantern",  "market",   "needle",  "orange",  "pencil",
    "quarter", "ribbon", "saddle",  "tunnel",   "umbrella", "valley",  "window",  "yellow",
    "zebra",   "bridge", "castle",  "desert",   "forest",   "glacier", "harbor",  "jungle",
    "kettle",  "ladder", "meadow",  "notebook", "oyster",   "planet",  "rocket",  "silver",
    "temple",  "velvet", "walnut",  "compass",  "whistle",  "blanket", "chimney", "dolphin",
};

/* ---- making --------------------------------------------------------------------------- */

int maker_number(Maker *m, int low, int high)
{
    return low + (int)(rng_next(&m->rng) % (uint64_t)(high - low + 1));
}

const char *maker_word(Maker *m) { return words[rng_next(&m->rng) % COUNT(words)]; }

void maker_words(Maker *m, const char **out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool again = true;
        while (again) {
            out[i] = maker_word(m);
            again = false;
            for (size_t k = 0; k < i; k++)
                again |= out[k] == out[i];
        }
    }
}

static Str keep(Maker *m, const char *text)
{
    char *p = arena_str(&m->q->arena, str_of(text ? text : ""));
    m->failed |= !p;
    return str_of(p);
}

static int number_in_suite(const Exam *q, enum Suite suite)
{
    int n = 1;
    for (size_t i = 0; i < q->n; i++)
        n += q->question[i].suite == suite;
    return n;
}

ExamQuestion *maker_add(Maker *m, enum Suite suite, enum GradeKind kind, const char *want,
                        const char *fmt, ...)
{
    static const char *const names[N_SUITES] = { "arith", "string", "tool", "instruct", "recall" };
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (m->q->n == MOST_QUESTIONS) {
        m->failed = true;
        return &m->q->question[0];
    }
    ExamQuestion *q = &m->q->question[m->q->n];
    *q = (ExamQuestion){ .suite = suite,
                         .prompt = keep(m, text),
                         .form = strchr(fmt, '%') == fmt ? NULL : fmt,
                         .key = { .kind = kind, .want = keep(m, want) } };
    snprintf(q->id, sizeof q->id, "%s-%d", names[suite], number_in_suite(m->q, suite));
    m->q->n++;
    return q;
}

/* Suites have seeds of their own, so that one does not depend on another's length. */
static void make_suite(Maker *m, enum Suite suite, uint64_t set, int most_tokens)
{
    static void (*const make[])(Maker *) = {
        [SUITE_ARITHMETIC] = make_arithmetic,
        [SUITE_STRINGS] = make_strings,
        [SUITE_TOOLS] = make_tools,
        [SUITE_INSTRUCTIONS] = make_instructions,
    };
    m->rng = set * N_SUITES + (uint64_t)suite;
    rng_next(&m->rng);
    if (suite == SUITE_RECALL)
        make_recall(m, most_tokens);
    else
        make[suite](m);
}

bool questions_make(Exam *q, uint64_t set, int most_tokens, ds4_err *err)
{
    *q = (Exam){ 0 };
    Maker m = { .q = q };
    q->question = arena_array(&q->arena, MOST_QUESTIONS, sizeof *q->question);
    for (int s = 0; q->question && s < N_SUITES; s++)
        make_suite(&m, (enum Suite)s, set, most_tokens);
    if (q->question && !m.failed)
        return true;
    questions_release(q);
    return fail(err, DS4_ENOMEM, "no memory for questions");
}

void questions_release(Exam *q)
{
    arena_release(&q->arena);
    *q = (Exam){ 0 };
}

/* ---- finding ------------------------------------------------------------------------------ */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static size_t run_of(Str s, bool (*is)(char c))
{
    size_t n = 0;
    while (n < s.n && is(s.p[n]))
        n++;
    return n;
}

/* Forms of strings take our words only: with others they are nobody's in particular. */
static bool is_our_word(Str s)
{
    bool ours = false;
    for (size_t i = 0; i < COUNT(words); i++)
        ours |= str_eq(s, str_of(words[i]));
    return ours;
}

/* How much of the text one character of a form takes (two of "%d", "%s"); 0: it differs. */
static size_t taken(const char *form, Str text, bool our_words)
{
    size_t n = 0;
    if (form[0] == '%' && form[1] == 'd')
        return run_of(text, is_digit);
    if (form[0] == '%') {
        n = run_of(text, is_lower);
        return our_words && !is_our_word((Str){ text.p, n }) ? 0 : n;
    }
    if (form[0] == ' ') /* lines may be broken anywhere */
        return run_of(text, is_blank);
    n = form[0] == '"' && text.n > 1 && text.p[0] == '\\'; /* as JSON has it */
    return text.n > n && text.p[n] == form[0] ? n + 1 : 0;
}

static bool begins_with_form(Str text, const char *form, bool our_words)
{
    for (; *form; form += *form == '%' ? 2 : 1) {
        size_t n = taken(form, text, our_words);
        if (!n)
            return false;
        text = (Str){ text.p + n, text.n - n };
    }
    return true;
}

static bool has_form(Str text, const char *form, bool our_words)
{
    const size_t first = strcspn(form, " ");
    for (const char *at; text.n && (at = memmem(text.p, text.n, form, first)) != NULL;) {
        text = (Str){ at, text.n - (size_t)(at - text.p) };
        if (begins_with_form(text, form, our_words))
            return true;
        text = (Str){ text.p + 1, text.n - 1 };
    }
    return false;
}

/* "What is %d + %d?" is in every schoolbook; a form with some words of its own is only ours. */
static bool is_distinct(const char *form)
{
    enum { OWN = 5 };
    int n = 0;
    for (size_t k; *form; form += k + (form[k] != '\0')) {
        k = strcspn(form, " ");
        n += (form[0] | 0x20) >= 'a' && (form[0] | 0x20) <= 'z';
    }
    return n >= OWN;
}

static bool is_found(Str text, const ExamQuestion *q)
{
    if (has_form(text, q->prompt.p, false))
        return true;
    return (q->form && is_distinct(q->form) &&
            has_form(text, q->form, q->suite == SUITE_STRINGS)) ||
           (q->suite == SUITE_RECALL && has_form(text, recall_fact, false));
}

bool questions_find(Str text, char id[QUESTION_ID], ds4_err *err)
{
    Exam q;
    id[0] = '\0';
    if (!questions_make(&q, FIRST_SET, RECALL_LEAST, err))
        return false;
    for (size_t i = 0; i < q.n && !id[0]; i++)
        if (is_found(text, &q.question[i]))
            memcpy(id, q.question[i].id, QUESTION_ID);
    questions_release(&q);
    return true;
}
