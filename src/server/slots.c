/* slots.c - finding what a prompt has in common with what is there. */
#include "slots.h"
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* A slot is worth using when at least a quarter of it is of use. */
enum { LEAST_PART = 4, SHOWN_TOKENS = 12 };

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
    generation_free(s->answer);
    job_drop(s->job);
    s->answer = NULL;
    s->job = NULL;
    s->decoding = false;
    s->used_ns = clock_ns();
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

static uint64_t key_of(const Turn *t)
{
    if (!t->session.n)
        return 0;
    uint64_t key = XXH3_64bits(t->session.p, t->session.n);
    return XXH3_64bits_withSeed(t->agent.p, t->agent.n, key) | 1;
}

static bool was_evicted(const Slots *s, uint64_t key)
{
    for (size_t i = 0; i < MIN(s->n_evicted, (size_t)EVICTED_KEYS); i++)
        if (s->evicted[i] == key)
            return key != 0;
    return false;
}

/* ---- choosing ------------------------------------------------------------------------ */

static int common_prefix(const Slot *s, const Tokens *prompt)
{
    const int32_t *tokens = ds4_session_tokens(s->session);
    int n = MIN(ds4_session_length(s->session), (int)prompt->n), i = 0;
    while (i < n && tokens[i] == prompt->id[i])
        i++;
    return i;
}

/* What taking a slot would do, best last. */
enum Use { USE_NOTHING, USE_OF_ANOTHER, USE_EMPTY, USE_OWN };

/* Of another conversation that would lose more than is won, a slot is taken only
 * when none is empty: a helper shares its agent's long system prompt. */
static enum Use use_of(const SlotChoice *c, uint64_t key)
{
    bool another = key && c->slot->key && c->slot->key != key;
    if (c->resident == 0)
        return USE_EMPTY;
    if (c->common == 0 || c->common < c->resident / LEAST_PART)
        return USE_NOTHING;
    return another && c->resident - c->common > c->common ? USE_OF_ANOTHER : USE_OWN;
}

/* Is a better than b: of more use; else longer unused. */
static bool better(const SlotChoice *a, const SlotChoice *b, uint64_t key)
{
    enum Use use = use_of(a, key), than = use_of(b, key);
    if (use != than)
        return use > than;
    if (use != USE_NOTHING && a->common != b->common)
        return a->common > b->common;
    if (use == USE_OWN && (a->slot->key == key) != (b->slot->key == key))
        return a->slot->key == key;
    return a->slot->used_ns < b->slot->used_ns;
}

/* Why there is no more to reuse. c: the slot that holds this conversation. */
static enum CacheMiss miss_of(const Job *j, const ds4_vocab *v, const SlotChoice *c)
{
    const Controls *k = vocab_controls(v);
    int tags = 0;
    for (int i = 0; i < c->common; i++) {
        if (j->prompt.id[i] == k->user)
            return MISS_HISTORY_EDITED;
        tags += j->prompt.id[i] == k->dsml;
    }
    /* The text before the tools' lines shows the markup, the lines do not. */
    return tags ? MISS_TOOLS_CHANGED : MISS_SYSTEM_CHANGED;
}

/* Some of the tokens that the session held where the prompt goes on otherwise. */
static void note_break(SlotChoice *c, const ds4_vocab *v)
{
    const int32_t *tokens = ds4_session_tokens(c->slot->session);
    for (int i = c->common; i < MIN(c->resident, c->common + SHOWN_TOKENS); i++) {
        Str s = vocab_bytes(v, tokens[i]);
        bytes_put(&c->had, s.p, s.n);
    }
}

/* The slot, busy or not, that holds the conversation of this key, of which the
 * most is in common; a job without a key has no conversation that could break. */
static void explain(Slots *s, const Job *j, const ds4_vocab *v, uint64_t key, SlotChoice *out)
{
    SlotChoice same = { 0 };
    for (int i = 0; i < s->n && key; i++) {
        SlotChoice c = { .slot = &s->slot[i],
                         .common = common_prefix(&s->slot[i], &j->prompt),
                         .resident = ds4_session_length(s->slot[i].session) };
        if (c.slot->key == key && c.resident && (!same.slot || c.common > same.common))
            same = c;
    }
    out->miss = out->common ? N_CACHE_MISSES : MISS_NEW;
    if (!same.slot) {
        if (was_evicted(s, key))
            out->miss = MISS_EVICTED;
    } else if (same.common < same.resident && same.common < (int)j->prompt.n) {
        out->miss = miss_of(j, v, &same);
        if (same.slot == out->slot)
            note_break(out, v);
    }
}

bool slots_take(Slots *s, Job *j, const ds4_vocab *v, SlotChoice *out)
{
    uint64_t key = key_of(&j->turn);
    *out = (SlotChoice){ 0 };
    for (int i = 0; i < s->n; i++) {
        SlotChoice c = { .slot = &s->slot[i] };
        if (c.slot->job)
            continue;
        c.common = common_prefix(c.slot, &j->prompt);
        c.resident = ds4_session_length(c.slot->session);
        if (!out->slot || better(&c, out, key))
            *out = c;
    }
    if (!out->slot)
        return false;
    explain(s, j, v, key, out);
    Slot *slot = out->slot;
    out->evicts = out->resident > 0 && out->common < out->resident / LEAST_PART;
    if (out->evicts && slot->key != key)
        s->evicted[s->n_evicted++ % EVICTED_KEYS] = slot->key;
    /* The last token is always evaluated, for its logits. */
    out->reused = ds4_session_rewind(slot->session, MIN(out->common, (int)j->prompt.n - 1));
    out->source = out->reused == out->resident ? CACHE_LIVE : CACHE_REWIND;
    slot->key = key;
    slot->job = j;
    slot->cached = slot->fed = out->reused;
    slot->begun_ns = slot->used_ns = clock_ns();
    return true;
}

void slots_place(const Job *j, const ds4_vocab *v, int at, char out[64])
{
    const Controls *k = vocab_controls(v);
    const char *role = "system";
    int turn = 0;
    for (int i = 0; i < at; i++) {
        bool user = j->prompt.id[i] == k->user, assistant = j->prompt.id[i] == k->assistant;
        turn += user || assistant;
        role = user ? "user" : assistant ? "assistant" : role;
    }
    snprintf(out, 64, "turn %d (%s)", turn, role);
}
