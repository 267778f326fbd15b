/* waiting.c - who waits in the queue, who of them is next, and what is held for them.
 *
 * What a waiting request will find must not go while it waits. Its chunks are
 * reserved in the store; what it would find in a slot counts as that slot's worth
 * (slots.h), so that others take another one; and where there is none but that,
 * it goes before who would take it, once. The first few only: who comes behind
 * them holds nothing, and all of them together half of the store at most. */
#include "scheduler_parts.h"
#include "side.h"

/* In tokens that are to be read: a short prompt may go before a long one, once. */
enum { SHORT_PROMPT = 1024, LONG_PROMPT = 8192 };

static void let_go(Scheduler *s, Waiting *w)
{
    if (s->store)
        store_unpin(s->store, &w->found);
    job_drop(w->job);
    *w = (Waiting){ 0 };
}

void forget_waiting(Scheduler *s)
{
    while (s->n_waiting)
        let_go(s, &s->waiting[--s->n_waiting]);
}

/* ---- what they would find ------------------------------------------------------------------ */

/* The slot that has most of it, and what it would have to read if that went: what neither
 * another slot nor the store has. Returns what there is. */
static int look_at_slots(Scheduler *s, Waiting *w)
{
    int most = 0, next = w->found.n;
    w->in = NULL;
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *slot = &s->slots.slot[i];
        int n = slot->entering ? 0 : slot_reach(slot, &w->job->prompt);
        if (n > most) {
            next = MAX(next, most);
            most = n;
            w->in = slot;
        } else {
            next = MAX(next, n);
        }
    }
    w->needs = MAX(most - next, 0);
    return most;
}

static void look_at(Scheduler *s, Waiting *w)
{
    const Tokens *prompt = &w->job->prompt;
    int stored = 0;
    if (s->store) {
        StoreFound before = w->found;
        stored = store_reserve(s->store, prompt->id, (int)prompt->n - 1, &w->found);
        store_unpin(s->store, &before);
    }
    int there = look_at_slots(s, w);
    w->fresh = (int)prompt->n - MAX(there, stored);
    w->seen = s->changes;
}

static int needs(const Waiting *w, const Slot *slot)
{
    return w->in == slot && !w->side ? w->needs : 0;
}

/* By others than the one that is to get a slot now. */
static void count_needs(Scheduler *s, const Waiting *next)
{
    for (int i = 0; i < s->slots.n; i++) {
        Slot *slot = &s->slots.slot[i];
        slot->awaited = 0;
        for (int k = 0; !slot->job && k < s->n_waiting; k++) {
            const Waiting *w = &s->waiting[k];
            int n = w == next ? 0 : needs(w, slot);
            slot->awaited = MAX(slot->awaited, n);
        }
    }
}

/* ---- the first of the queue -------------------------------------------------------------------- */

/* Those that can be helped now, as they are in the queue. */
static int collect(Scheduler *s, Job *out[LOOKED_AT])
{
    const int64_t now = clock_ns();
    int n = 0;
    pthread_mutex_lock(&s->mutex);
    for (Job *j = s->queue; j && n < LOOKED_AT; j = j->next) {
        if (j->held_until_ns > now)
            continue;
        job_hold(j);
        out[n++] = j;
    }
    pthread_mutex_unlock(&s->mutex);
    return n;
}

static Waiting *known_as(Waiting *w, int n, const Job *j)
{
    for (int i = 0; i < n; i++)
        if (w[i].job == j)
            return &w[i];
    return NULL;
}

void look_at_queue(Scheduler *s)
{
    Job *now[LOOKED_AT];
    Waiting before[LOOKED_AT], *known;
    int n = collect(s, now), n_before = s->n_waiting;
    memcpy(before, s->waiting, sizeof before);
    for (int i = 0; i < n; i++) {
        if ((known = known_as(before, n_before, now[i]))) {
            s->waiting[i] = *known;
            *known = (Waiting){ 0 };
            job_drop(now[i]); /* one reference is enough */
        } else {
            s->waiting[i] = (Waiting){ .job = now[i] };
            look_at(s, &s->waiting[i]);
        }
    }
    s->n_waiting = n;
    for (int i = 0; i < n_before; i++)
        if (before[i].job)
            let_go(s, &before[i]);
    /* What was found lately may be less than there is by now: one a round. */
    for (int i = 0; i < n; i++) {
        if (s->waiting[i].seen == s->changes)
            continue;
        look_at(s, &s->waiting[i]);
        break;
    }
}

/* ---- who is next ----------------------------------------------------------------------------------- */

static Waiting *short_one(Scheduler *s)
{
    for (int i = 1; i < s->n_waiting; i++)
        if (s->waiting[i].fresh <= SHORT_PROMPT)
            return &s->waiting[i];
    return NULL;
}

/* Who has much in the slot that the first one would take from it. */
static Waiting *who_would_lose(Scheduler *s, const Waiting *first)
{
    Waiting *most = NULL;
    int worth = SHORT_PROMPT;
    SlotChoice c;
    count_needs(s, first);
    if (!slots_choose(&s->slots, first->job, first->side, &c) || c.own || c.slot->awaited <= worth)
        return NULL;
    for (int i = 1; i < s->n_waiting; i++) {
        Waiting *w = &s->waiting[i];
        int n = needs(w, c.slot);
        if (n <= worth)
            continue;
        worth = n;
        most = w;
    }
    return most;
}

static Waiting *first_of(Scheduler *s)
{
    Waiting *first = &s->waiting[0], *other = NULL;
    if (s->n_waiting < 2 || first->job->overtaken)
        return first;
    if (first->fresh > LONG_PROMPT)
        other = short_one(s);
    if (!other)
        other = who_would_lose(s, first);
    first->job->overtaken = other != NULL;
    return other ? other : first;
}

bool take_waiting(Scheduler *s, const Waiting *w)
{
    pthread_mutex_lock(&s->mutex);
    Job **at = &s->queue;
    while (*at && *at != w->job)
        at = &(*at)->next;
    bool found = *at != NULL;
    if (found)
        unqueue(s, at);
    pthread_mutex_unlock(&s->mutex);
    return found;
}

/* Not for ever: a conversation beside may be left for good, and its slot do, before one
 * that is busy is free. */
void hold_back(Scheduler *s, Waiting *w)
{
    enum { HELD_S = 5 };
    pthread_mutex_lock(&s->mutex);
    w->job->held_until_ns = clock_ns() + (int64_t)HELD_S * 1000000000;
    pthread_mutex_unlock(&s->mutex);
}

void hold_nobody_back(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    for (Job *j = s->queue; j; j = j->next)
        j->held_until_ns = 0;
    pthread_mutex_unlock(&s->mutex);
}

Waiting *next_waiting(Scheduler *s)
{
    for (int i = 0; i < s->n_waiting; i++) {
        Waiting *w = &s->waiting[i];
        if (w->seen != s->changes)
            look_at(s, w);
        w->side = is_side_request(w->job, slots_run(&s->slots, key_of(&w->job->turn).session));
    }
    if (!s->n_waiting)
        return NULL;
    Waiting *w = first_of(s);
    count_needs(s, w);
    return w;
}
