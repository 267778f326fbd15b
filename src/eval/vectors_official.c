/* vectors_official.c - antirez/ds4's official.vec: lines of words.
 *
 *     case NAME CONTEXT STEPS PROMPT_FILE
 *     step INDEX HEX COUNT            a token that was given, and how many tops follow
 *     top HEX LOGPROB
 *     end
 *
 * The prompt is one user's message, thinking off. The API that these come from says 0 for what it
 * chose and -9999 for all else, where it says nothing useful. Lines that begin with # are
 * comments. */
#include "vectors_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_STEPS = 1 << 20, MOST_TOPS = 4096 };

/* The next word of a line; empty at its end. */
static Str word(Str *line)
{
    while (line->n && (line->p[0] == ' ' || line->p[0] == '\t'))
        *line = (Str){ line->p + 1, line->n - 1 };
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ' && line->p[n] != '\t')
        n++;
    Str w = { line->p, n };
    *line = (Str){ line->p + n, line->n - n };
    return w;
}

static bool whole(Reading *r, Str w, const char *what, long most, long *out)
{
    long v = 0;
    size_t i = 0;
    for (; i < w.n && w.p[i] >= '0' && w.p[i] <= '9' && v <= most; i++)
        v = 10 * v + (w.p[i] - '0');
    *out = v;
    return (w.n && i == w.n && v <= most) ||
           reading_fail(r, "%s must be a number of at most %ld, not '%.*s'", what, most,
                        (int)MIN(w.n, 32), w.p);
}

static bool number(Reading *r, Str w, double *out)
{
    char text[40], *end = text;
    if (w.n && w.n < sizeof text) {
        memcpy(text, w.p, w.n);
        text[w.n] = '\0';
        *out = strtod(text, &end);
    }
    return (end > text && !*end && *out <= 1e-3) ||
           reading_fail(r, "'%.*s' is no logprob", (int)MIN(w.n, 32), w.p);
}

typedef struct {
    VectorCase *c; /* NULL: between cases */
    long steps;    /* of the case, promised */
    size_t tops;   /* of the step, promised */
} Place;

static bool take_case(Reading *r, Place *at, Str line)
{
    long context;
    Str id = word(&line);
    if (at->c)
        return reading_fail(r, "a case within a case");
    if (!whole(r, word(&line), "the context", 1L << 24, &context) ||
        !whole(r, word(&line), "the number of steps", MOST_STEPS, &at->steps))
        return false;
    if (!(at->c = reading_case(r)))
        return false;
    at->c->id = id;
    at->c->prompt_file = word(&line);
    at->c->step = arena_array(&r->v->arena, (size_t)at->steps, sizeof *at->c->step);
    if (!at->c->step)
        return fail(r->err, DS4_ENOMEM, "no memory for %ld steps", at->steps);
    return (at->steps && at->c->prompt_file.n) ||
           reading_fail(r, "a case has a name, a context, steps and the prompt's file");
}

static bool tops_are_there(Reading *r, const Place *at)
{
    size_t n = at->c && at->c->n_steps ? at->c->step[at->c->n_steps - 1].n_top : 0;
    return n == at->tops || reading_fail(r, "%zu tops where %zu were promised", n, at->tops);
}

static bool take_step(Reading *r, Place *at, Str line)
{
    long index, tops;
    if (!at->c || !tops_are_there(r, at))
        return at->c ? false : reading_fail(r, "a step outside a case");
    Str index_word = word(&line), hex = word(&line);
    if (!whole(r, index_word, "the step", MOST_STEPS, &index) ||
        !whole(r, word(&line), "the number of tops", MOST_TOPS, &tops))
        return false;
    if ((size_t)index != at->c->n_steps || index >= at->steps)
        return reading_fail(r, "step %ld where step %zu of %ld was due", index, at->c->n_steps,
                            at->steps);
    VectorStep *s = &at->c->step[at->c->n_steps++];
    s->token = (VectorToken){ .id = -1, .logprob = NAN };
    s->top = arena_array(&r->v->arena, (size_t)tops, sizeof *s->top);
    at->tops = (size_t)tops;
    if (!s->top)
        return fail(r->err, DS4_ENOMEM, "no memory for %ld tops", tops);
    return reading_hex(r, hex, &s->token.bytes);
}

static bool take_top(Reading *r, Place *at, Str line)
{
    if (!at->c || !at->c->n_steps)
        return reading_fail(r, "a top outside a step");
    VectorStep *s = &at->c->step[at->c->n_steps - 1];
    if (s->n_top == at->tops)
        return reading_fail(r, "more tops than the %zu that were promised", at->tops);
    VectorToken *t = &s->top[s->n_top++];
    *t = (VectorToken){ .id = -1 };
    if (!reading_hex(r, word(&line), &t->bytes) || !number(r, word(&line), &t->logprob))
        return false;
    if (str_eq(t->bytes, s->token.bytes))
        s->token.logprob = t->logprob;
    return true;
}

static bool take_end(Reading *r, Place *at)
{
    if (!at->c)
        return reading_fail(r, "an end without a case");
    if ((long)at->c->n_steps != at->steps)
        return reading_fail(r, "%zu steps where %ld were promised", at->c->n_steps, at->steps);
    bool ok = tops_are_there(r, at);
    *at = (Place){ 0 };
    return ok;
}

bool vectors_read_official(Reading *r, Str text)
{
    Place at = { 0 };
    Str line;
    while (reading_line(r, &text, &line)) {
        Str verb = word(&line);
        bool ok =
            str_eq(verb, STR("case"))   ? take_case(r, &at, line)
            : str_eq(verb, STR("step")) ? take_step(r, &at, line)
            : str_eq(verb, STR("top"))  ? take_top(r, &at, line)
            : str_eq(verb, STR("end"))  ? take_end(r, &at)
            : !verb.n || verb.p[0] == '#'
                ? true
                : reading_fail(r, "'%.*s' begins no line of vectors", (int)MIN(verb.n, 32), verb.p);
        if (!ok)
            return false;
    }
    return !at.c || reading_fail(r, "the file ends within a case");
}
