/* repeat.c - loops. */
#include "repeat.h"
#include "call_form.h"
#include <xxhash.h>

/* ---- spans of tokens ------------------------------------------------------------------ */

/* What stands before the first token equals none. */
static void start(Repeat *r, enum RepeatPlace place)
{
    memset(r->seen, 0xff, REPEAT_PERIOD * sizeof *r->seen);
    memset(r->run, 0, sizeof r->run);
    r->n = REPEAT_PERIOD;
    r->place = place;
}

static void make_room(Repeat *r)
{
    memmove(r->seen, r->seen + REPEAT_PERIOD, REPEAT_PERIOD * sizeof *r->seen);
    r->n = REPEAT_PERIOD;
}

/* How many tokens must have come again for a loop of this period. */
static int limit(enum RepeatPlace place, int period)
{
    return place == REPEAT_VALUE ? MAX(REPEAT_VALUE_TOKENS, REPEAT_VALUE_TIMES * period)
                                 : MAX(REPEAT_PROSE_TOKENS, REPEAT_PROSE_TIMES * period);
}

/* The shortest period counts: a loop of 3 tokens is one of 6, too. */
static int period_of_loop(const Repeat *r)
{
    for (int p = 1; p <= REPEAT_PERIOD; p++)
        if (r->run[REPEAT_PERIOD - p] >= limit(r->place, p))
            return p;
    return 0;
}

int repeat_token(Repeat *r, int32_t token, enum RepeatPlace place)
{
    if (!r->n || place != r->place)
        start(r, place);
    else if (r->n == 2 * REPEAT_PERIOD)
        make_room(r);
    const int32_t *before = r->seen + r->n - REPEAT_PERIOD;
    int longest = 0;
    for (int k = 0; k < REPEAT_PERIOD; k++) {
        int run = before[k] == token ? r->run[k] + 1 : 0;
        r->run[k] = run;
        longest = MAX(longest, run);
    }
    r->seen[r->n++] = token;
    return longest >= limit(place, 1) ? period_of_loop(r) : 0;
}

/* ---- calls within an answer -------------------------------------------------------------- */

/* By hash: two calls that are taken for one are less likely than a flaw of memory. */
bool repeat_call(RepeatCalls *r, Str name, Str arguments)
{
    Bytes form = { 0 };
    call_form(&form, &(ChatCall){ .name = name, .arguments = arguments });
    XXH128_hash_t h = XXH3_128bits(form.p, form.n);
    bool ok = !form.failed;
    bytes_release(&form);
    size_t i = 0, kept = MIN(r->n, (size_t)REPEAT_CALLS_KEPT);
    while (i < kept && (r->call[i].form[0] != h.low64 || r->call[i].form[1] != h.high64))
        i++;
    if (ok && i == kept) {
        i = r->n++ % REPEAT_CALLS_KEPT;
        r->call[i].form[0] = h.low64;
        r->call[i].form[1] = h.high64;
        r->call[i].times = 0;
    }
    return ok && ++r->call[i].times >= REPEAT_SAME_CALLS;
}

/* ---- one call in answer after answer --------------------------------------------------------- */

static bool is_reminder(const ChatMessage *m)
{
    static const Str mark = { "<system-reminder>", 17 };
    return m->role == CHAT_USER &&
           (m->content.n == 0 ||
            (m->content.n >= mark.n && memcmp(m->content.p, mark.p, mark.n) == 0));
}

/* An answer with one call, and its result. */
typedef struct {
    const ChatMessage *answer, *result;
} Step;

/* The step that ends before message *n; *n becomes its start. */
static bool step_before(const Turn *t, size_t *n, Step *s)
{
    *s = (Step){ 0 };
    while (*n > 0 && !s->answer) {
        const ChatMessage *m = &t->messages[--*n];
        if (m->role == CHAT_TOOL && !s->result)
            s->result = m;
        else if (m->role == CHAT_ASSISTANT && s->result && m->n_calls == 1)
            s->answer = m;
        else if (!is_reminder(m))
            return false;
    }
    return s->answer;
}

static void put_step(Bytes *out, const Step *s)
{
    call_form(out, s->answer->calls);
    bytes_put(out, s->result->content.p, s->result->content.n);
}

Str repeat_turns(const Turn *t)
{
    Bytes last = { 0 }, other = { 0 };
    Str name = { 0 };
    size_t n = t->n_messages;
    int same = 0;
    for (Step s; same < REPEAT_TURNS && step_before(t, &n, &s); same++) {
        Bytes *form = same ? &other : &last;
        bytes_clear(form);
        put_step(form, &s);
        if (form->failed || (same && !str_eq(bytes_view(&last), bytes_view(&other))))
            break;
        name = s.answer->calls[0].name;
    }
    bytes_release(&last);
    bytes_release(&other);
    return same == REPEAT_TURNS ? name : (Str){ 0 };
}
