/* slots.c - whose slot is whose, and whose is worth least. */
#include "slots.h"
#include "explain.h"
#include <math.h>
#include <stdlib.h>
#include <xxhash.h>

/* A slot whose conversation has more than it and a request share, by so many
 * times, is not that request's: a client's other requests have its key, too. */
enum { LEAST_PART = 4 };

bool slots_open(Slots *s, ds4_engine *e, int n, ds4_err *err)
{
    *s = (Slots){ .slot = calloc((size_t)n, sizeof *s->slot) };
    if (!s->slot)
        return fail(err, DS4_ENOMEM, "no memory for %d slots", n);
    for (; s->n < n; s->n++) {
        s->slot[s->n].session = ds4_session_open(e, err);
        if (!s->slot[s->n].session)
            return false;
    }
    return true;
}

void slot_leave(Slot *s)
{
    if (s->answer && !s->entering)
        s->names = generation_names(s->answer);
    generation_free(s->answer);
    explanation_release(&s->why);
    job_drop(s->job);
    s->answer = NULL;
    s->job = NULL;
    if (!s->entering) /* else it was not used: move_in says when it is */
        s->used_ns = clock_ns();
    s->entering = s->decoding = s->leaving = false;
}

void slots_close(Slots *s)
{
    for (int i = 0; i < s->n; i++) {
        slot_leave(&s->slot[i]);
        ds4_session_close(s->slot[i].session);
    }
    free(s->slot);
    *s = (Slots){ 0 };
}

/* ---- whose conversation it is ------------------------------------------------------ */

static uint64_t hash(Str s, uint64_t seed) { return XXH3_64bits_withSeed(s.p, s.n, seed) | 1; }

ConversationKey key_of(const Turn *t)
{
    ConversationKey key = { 0 };
    if (!t->session.n)
        return key;
    key.session = hash(t->session, 0);
    key.own = hash(t->agent, key.session);
    /* A client names the agent that has started this one, or the session. */
    if (t->parent.n)
        key.parent =
            t->agent.n ? hash(t->parent, key.session) : hash((Str){ 0 }, hash(t->parent, 0));
    return key;
}

bool slots_run(const Slots *s, uint64_t session)
{
    for (int i = 0; i < s->n; i++)
        if (session && s->slot[i].job && key_of(&s->slot[i].job->turn).session == session)
            return true;
    return false;
}

bool slots_know(const Slots *s, uint64_t session)
{
    for (int i = 0; i < s->n; i++)
        if (session && !s->slot[i].scratch && s->slot[i].key.session == session)
            return true;
    return false;
}

int slot_common(const Slot *s, const Tokens *prompt)
{
    const int32_t *tokens = ds4_session_tokens(s->session);
    int n = MIN(ds4_session_length(s->session), (int)prompt->n), i = 0;
    while (i < n && tokens[i] == prompt->id[i])
        i++;
    return i;
}

/* The last answer that a request sends back, by its handle or the ids of its calls. */
static bool names_match(const Turn *t, const AnswerNames *names)
{
    size_t i = t->n_messages;
    while (i > 0 && t->messages[i - 1].role != CHAT_ASSISTANT)
        i--;
    if (!i)
        return false;
    const ChatMessage *m = &t->messages[i - 1];
    if (t->handles && answer_has_name(names, t->handles[i - 1]))
        return true;
    for (size_t k = 0; k < m->n_calls; k++)
        if (answer_has_name(names, m->calls[k].id))
            return true;
    return false;
}

/* A side request goes on with nothing. */
static void look_at(SlotChoice *c, const Job *j, const ConversationKey *key, bool side)
{
    const Slot *s = c->slot;
    c->common = slot_common(s, &j->prompt);
    c->resident = ds4_session_length(s->session);
    bool much = c->common > 0 && c->common >= c->resident / LEAST_PART;
    bool stranger = key->own && s->key.own && key->own != s->key.own;
    much &= !side;
    c->by_handle = much && names_match(&j->turn, &s->names);
    c->own = c->by_handle || (much && key->own && key->own == s->key.own) ||
             (c->common > 0 && c->common == c->resident && !stranger);
}

/* ---- what would be lost ------------------------------------------------------------- */

/* Tokens that would have to be read again if their conversation went on, so much the
 * less likely the longer it has not. What the store has costs an eighth of it. */
static double loss_of(const SlotChoice *c, const ConversationKey *key, bool side)
{
    enum { STORED_PART = 8, HALF_LIFE_S = 600, NEEDED_SOON = 4 };
    const Slot *s = c->slot;
    if (c->common >= c->resident)
        return 0;
    if (s->scratch)
        return s->awaited;
    int stored = MAX(MIN(s->kept, c->resident), c->common);
    double tokens = c->resident - stored + (double)(stored - c->common) / STORED_PART;
    double idle_s = (double)(clock_ns() - s->used_ns) / 1e9;
    /* Who has started the one that asks waits for it, and will be back. */
    bool waits =
        (key->parent && key->parent == s->key.own) ||
        (key->session && key->session == s->key.session && (side || key->own != s->key.own));
    /* And who waits in the queue is there already. */
    return tokens * exp2(-idle_s / HALF_LIFE_S) * (waits ? NEEDED_SOON : 1) +
           (double)NEEDED_SOON * s->awaited;
}

bool is_left(int64_t used_ns)
{
    enum { LEFT_S = 600 };
    return clock_ns() - used_ns > (int64_t)LEFT_S * 1000000000;
}

/* Would its conversation come back whole, or as good as that, from a side request? */
static bool spares(const SlotChoice *c)
{
    const Slot *s = c->slot;
    int lost = c->resident - MAX(c->common, s->kept);
    return s->scratch || s->keepable || lost < SLOT_LITTLE || is_left(s->used_ns);
}

/* Of slots that lose nothing, best last. A side request takes one that another has
 * left, and leaves empty ones to conversations. */
static int taste(const SlotChoice *c, bool side)
{
    if (c->common > 0 && c->common == c->resident)
        return 3;
    return (c->resident == 0) != side ? 2 : 1;
}

static bool better(const SlotChoice *a, const SlotChoice *b, const ConversationKey *key, bool side)
{
    if (a->own != b->own)
        return a->own;
    if (a->own && a->by_handle != b->by_handle)
        return a->by_handle;
    if (a->own && a->common != b->common)
        return a->common > b->common;
    double loss = loss_of(a, key, side), than = loss_of(b, key, side);
    if (loss == 0 && than == 0 && taste(a, side) != taste(b, side))
        return taste(a, side) > taste(b, side);
    if (loss != than)
        return loss < than;
    return a->slot->used_ns < b->slot->used_ns;
}

bool slots_choose(const Slots *s, const Job *j, bool side, SlotChoice *out)
{
    ConversationKey key = key_of(&j->turn);
    *out = (SlotChoice){ 0 };
    for (int i = 0; i < s->n; i++) {
        SlotChoice c = { .slot = &s->slot[i] };
        if (c.slot->job)
            continue;
        look_at(&c, j, &key, side);
        if (side && !spares(&c))
            continue;
        if (!out->slot || better(&c, out, &key, side))
            *out = c;
    }
    return out->slot != NULL;
}
