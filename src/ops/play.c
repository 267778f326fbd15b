/* play.c - a backend that computes nothing and gives scripted answers, for tests
 * of what lies above the model: a row whose logits are wanted makes one token
 * certain.
 *
 * Whatever ends at such a row is a prompt that a rule answers, unless the row is
 * the one token that was waited for: then the answer goes on. So a slot's tokens
 * are kept by position, as steps bring them, or as the engine tells of a state that it
 * put there. A state that is loaded from a stream brings none: what the slot had at its
 * positions, or nothing, is taken for them.
 *
 * A step takes the time that the script's speeds say, slept layer by layer, so
 * that cancelling is as quick as on a device that computes. */
#include "script.h"
#include "wrap.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CERTAIN 40.0f /* of 129,280 others at 0 one is drawn in 10^12 draws */

/* An answer as far as it was given. */
typedef struct {
    const Tokens *answer; /* NULL: nothing is being played */
    size_t at;            /* the token given last */
    int pos;              /* where that token belongs */
} Stand;

typedef struct {
    int32_t *token; /* [n], -1: unknown */
    int n, cap;
    Stand now, before; /* before: of the step before, which may have been canceled */
} Slot;

typedef struct {
    Wrap w;
    struct Ops op;
    Script script;
    const ds4_vocab *vocab;
    Slot *slot; /* [n_slots] */
    int n_slots;
    bool full;  /* memory ran out in this step */
    float *row; /* [vocab] zeros */
    Bytes text; /* scratch: a prompt */
    int layer;  /* of the step, done */
    int64_t start_ns, takes_ns;
} Play;

static Play *play_of(Backend *be) { return (Play *)(void *)be; }

/* ---- tokens by position ------------------------------------------------------- */

static bool grow_slots(Play *p, int n)
{
    if (n <= p->n_slots)
        return true;
    Slot *s = realloc(p->slot, (size_t)n * sizeof *s);
    if (!s)
        return false;
    memset(s + p->n_slots, 0, (size_t)(n - p->n_slots) * sizeof *s);
    p->slot = s;
    p->n_slots = n;
    return true;
}

static bool grow_tokens(Slot *s, int n)
{
    if (n <= s->cap)
        return true;
    const size_t cap = MAX((size_t)n, 2 * (size_t)s->cap);
    int32_t *t = realloc(s->token, cap * sizeof *t);
    if (!t)
        return false;
    s->token = t;
    s->cap = (int)cap;
    return true;
}

static bool keep_tokens(Play *p, const Span *span, const int32_t *tokens)
{
    if (!grow_slots(p, span->slot + 1) || !grow_tokens(&p->slot[span->slot], span->pos + span->n))
        return false;
    Slot *s = &p->slot[span->slot];
    while (s->n < span->pos)
        s->token[s->n++] = -1;
    memcpy(s->token + span->pos, tokens, (size_t)span->n * sizeof *tokens);
    s->n = span->pos + span->n;
    if (span->pos < s->now.pos - 1) /* gone back: this is another conversation */
        s->now = s->before = (Stand){ 0 };
    return true;
}

/* Without memory they stay unknown, and the rule for no words answers. */
static void play_told(Backend *be, int slot, const int32_t *token, int n)
{
    Play *p = play_of(be);

    if (!grow_slots(p, slot + 1))
        return;
    p->slot[slot].n = 0;
    p->slot[slot].now = p->slot[slot].before = (Stand){ 0 };
    keep_tokens(p, &(Span){ .slot = slot, .n = n }, token);
}

/* ---- what comes next ------------------------------------------------------------ */

/* What a rule says to the slot's first n tokens; NULL: no memory. */
static const Tokens *answer_to(Play *p, const Slot *s, int n)
{
    const int32_t user = vocab_controls(p->vocab)->user;
    size_t last = 0; /* where the text after the last user token begins */

    bytes_clear(&p->text);
    for (int i = 0; i < n; i++) {
        const Str t = vocab_bytes(p->vocab, s->token[i]);
        bytes_put(&p->text, t.p, t.n);
        if (s->token[i] == user && user >= 0)
            last = p->text.n;
    }
    bytes_byte(&p->text, '\0'); /* so that there is a text */
    if (p->text.failed)
        return NULL;
    const Str prompt = { p->text.p, p->text.n - 1 };
    return script_answer(&p->script, prompt, (Str){ prompt.p + last, prompt.n - last });
}

/* Where the answer goes on after a token: it may not be the one that was given
 * where a grammar or a budget chose another. */
static size_t after(const Stand *s, int32_t token)
{
    const Tokens *a = s->answer;
    size_t i = s->at;

    while (i < a->n && a->id[i] != token)
        i++;
    return MIN((i < a->n ? i : s->at) + 1, a->n - 1);
}

static bool stands_at(const Stand *s, int pos) { return s->answer && s->pos == pos; }

/* The token after the one at pos; -1: no memory. */
static int32_t next_token(Play *p, const Span *span, int pos)
{
    Slot *s = &p->slot[span->slot];

    if (span->n == 1 && stands_at(&s->before, pos))
        s->now = s->before; /* the step was canceled, and is done again */
    if (span->n == 1 && stands_at(&s->now, pos)) {
        s->before = s->now;
        s->now = (Stand){ s->now.answer, after(&s->now, s->token[pos]), pos + 1 };
    } else {
        s->before = (Stand){ 0 };
        s->now = (Stand){ answer_to(p, s, pos + 1), 0, pos + 1 };
    }
    return s->now.answer ? s->now.answer->id[s->now.at] : -1;
}

/* ---- the backend ------------------------------------------------------------------ */

#define OP(name, params, args) \
    static void pass_##name(Backend *be, const Step *step, LIST params) \
    { \
        Backend *in = play_of(be)->w.inner; \
        in->op->name(in, step, LIST args); \
    }
OPS(OP)
#undef OP

static const struct Ops passing = { WRAP_OPS, .close = wrap_close,
#define OP(name, params, args) .name = pass_##name,
                                    OPS(OP)
#undef OP
};

static const Span *span_of(const Step *step, int row)
{
    const Span *s = step->span;
    while (row >= s->row + s->n)
        s++;
    return s;
}

static void play_logits(Backend *be, const Step *step, Buf out, Buf streams, const HcWeights *hc,
                        Buf norm, const Weight *head)
{
    Play *p = play_of(be);
    const size_t bytes = (size_t)be->shape->vocab * sizeof *p->row;

    pass_logits(be, step, out, streams, hc, norm, head);
    for (int i = 0; i < step->n_out && !p->full; i++) {
        const Span *span = span_of(step, step->out[i]);
        const int32_t t = next_token(p, span, span->pos + step->out[i] - span->row);
        p->full = t < 0;
        if (p->full)
            break;
        p->row[t] = CERTAIN;
        wrap_write(be, buf_at(out, (size_t)i * bytes), p->row, bytes);
        p->row[t] = 0;
    }
}

static int64_t time_of(const Script *s, const Step *step)
{
    double seconds = 0;
    bool decodes = false;

    for (int i = 0; i < step->n_spans; i++) {
        const int n = step->span[i].n;
        decodes |= n == 1;
        if (n > 1 && s->prefill_tps > 0)
            seconds += n / s->prefill_tps;
    }
    if (decodes && s->decode_tps > 0)
        seconds += 1 / s->decode_tps;
    return (int64_t)(MIN(seconds, 1e6) * 1e9);
}

static bool play_begin(Backend *be, const Step *step)
{
    Play *p = play_of(be);

    p->full = false;
    p->layer = 0;
    p->start_ns = clock_ns();
    p->takes_ns = time_of(&p->script, step);
    for (int i = 0; i < step->n_spans && !p->full; i++)
        p->full = !keep_tokens(p, &step->span[i], step->token + step->span[i].row);
    return wrap_begin(be, step);
}

/* Signals may end a sleep early. */
static void sleep_until(int64_t ns)
{
    for (int64_t left; (left = ns - clock_ns()) > 0;)
        nanosleep(&(struct timespec){ .tv_sec = left / 1000000000, .tv_nsec = left % 1000000000 },
                  NULL);
}

/* The last op of a layer. */
static void play_shared(Backend *be, const Step *step, Buf y, Buf x, const Layer *l)
{
    Play *p = play_of(be);

    pass_shared(be, step, y, x, l);
    p->layer++;
    if (p->takes_ns)
        sleep_until(p->start_ns + p->takes_ns / be->shape->n_layers * p->layer);
}

static bool play_end(Backend *be, ds4_err *err)
{
    const bool full = play_of(be)->full;

    return wrap_end(be, err) &&
           (!full || fail(err, DS4_ENOMEM, "%s: no memory for the prompt", be->name));
}

static void play_close(Backend *be)
{
    Play *p = play_of(be);

    script_release(&p->script);
    for (int i = 0; i < p->n_slots; i++)
        free(p->slot[i].token);
    free(p->slot);
    free(p->row);
    bytes_release(&p->text);
    wrap_close(be);
}

static bool play_init(Play *p, const char *file, const ds4_vocab *v, const Shape *s, ds4_err *err)
{
    p->vocab = v;
    p->row = calloc((size_t)s->vocab, sizeof *p->row);
    if (!p->row)
        return fail(err, DS4_ENOMEM, "no memory for a row of %d logits", s->vocab);
    return script_init(&p->script, file, v, err);
}

Backend *play_open(Backend *inner, const char *file, const ds4_vocab *v, ds4_err *err)
{
    Play *p = calloc(1, sizeof *p);

    if (!p || !play_init(p, file, v, inner->shape, err)) {
        if (!p)
            fail(err, DS4_ENOMEM, "no memory for the playing backend");
        else
            free(p->row);
        free(p);
        return NULL;
    }
    p->op = passing;
    p->op.begin = play_begin;
    p->op.end = play_end;
    p->op.close = play_close;
    p->op.told = play_told;
    p->op.logits = play_logits;
    p->op.shared = play_shared;
    wrap_init(&p->w, inner, &p->op, "play");
    snprintf(p->w.name, sizeof p->w.name, "play:%s", file);
    return &p->w.be;
}
