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

bool questions_found(Str text, char id[QUESTION_ID])
{
    Exam q;
    bool found = false;
    if (!questions_make(&q, FIRST_SET, 0, NULL))
        return false;
    for (size_t i = 0; i < q.n && !found; i++) {
        Str p = q.question[i].prompt;
        found = memmem(text.p, text.n, p.p, p.n) != NULL;
        if (found)
            memcpy(id, q.question[i].id, QUESTION_ID);
    }
    questions_release(&q);
    return found;
}
