/* admit.c - from the queue into slots, and out of them. */
#include "scheduler_parts.h"
#include "side.h"

/* In tokens that are to be read: a short prompt may go before a long one, once. */
enum { SHORT_PROMPT = 1024, LONG_PROMPT = 8192 };

/* So many of the queue are looked at for that. */
enum { LOOKED_AT = 8 };

void leave(Scheduler *s, Slot *slot)
{
    double seconds = (double)(clock_ns() - slot->job->started_ns) / 1e9;
    pthread_mutex_lock(&s->mutex);
    s->answer_s += (seconds - s->answer_s) * (s->answer_s > 0 ? 0.2 : 1);
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&slot->job->stage, STAGE_OVER);
    if (!slot->entering)
        saving_turn(s, slot, true);
    stop_entering(s, slot);
    Job *j = slot->job;
    job_hold(j); /* until it is not shown any more */
    slot_leave(slot);
    show(s, slot);
    job_drop(j);
    count_slots(s);
}

int active(const Scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->slots.n; i++)
        n += s->slots.slot[i].job != NULL;
    return n;
}

/* ---- the queue ------------------------------------------------------------------------- */

/* Tokens that would have to be read. */
static int fresh_of(Scheduler *s, const Job *j)
{
    StoreFound found = { 0 };
    int n = (int)j->prompt.n, known = 0;
    for (int i = 0; i < s->slots.n; i++) {
        int common = slot_common(&s->slots.slot[i], &j->prompt);
        known = MAX(known, common);
    }
    if (s->store) {
        store_find(s->store, j->prompt.id, n - 1, &found);
        known = MAX(known, found.n);
        store_unpin(s->store, &found);
    }
    return n - known;
}

/* Long comparisons, so not under the mutex. */
static void look_at_queue(Scheduler *s)
{
    Job *look[LOOKED_AT];
    int n = 0;
    pthread_mutex_lock(&s->mutex);
    for (Job *j = s->queue; j && n < LOOKED_AT; j = j->next) {
        job_hold(j);
        look[n++] = j;
    }
    pthread_mutex_unlock(&s->mutex);
    for (int i = 0; i < n; i++) {
        if (n > 1)
            look[i]->fresh = fresh_of(s, look[i]);
        job_drop(look[i]);
    }
}

/* Who is first; but a long prompt lets one short one go before it. */
static Job **first_in_queue(Scheduler *s)
{
    Job *first = s->queue;
    int n = 0;
    if (!first || first->overtaken || first->fresh <= LONG_PROMPT)
        return &s->queue;
    for (Job **at = &first->next; *at && ++n < LOOKED_AT; at = &(*at)->next) {
        if (!(*at)->fresh || (*at)->fresh > SHORT_PROMPT)
            continue;
        first->overtaken = true;
        return at;
    }
    return &s->queue;
}

static Job *take_from_queue(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    Job **at = first_in_queue(s), *j = *at;
    if (j) {
        *at = j->next;
        if (!*at)
            s->queue_end = at;
        s->n_queue--;
        metrics_queue_length(s->opt.metrics, s->n_queue);
    }
    pthread_mutex_unlock(&s->mutex);
    return j;
}

/* The next of the queue; NULL: none, or nobody can be taken on. */
static Job *next_in_queue(Scheduler *s)
{
    if (active(s) >= s->max_active)
        return NULL;
    look_at_queue(s);
    return take_from_queue(s);
}

void refuse_queue(Scheduler *s, const ApiError *e)
{
    pthread_mutex_lock(&s->mutex);
    int n = s->n_queue; /* who comes later may have more luck */
    pthread_mutex_unlock(&s->mutex);
    for (Job *j; n-- > 0 && (j = take_from_queue(s)) != NULL;) {
        atomic_store(&j->stage, STAGE_OVER);
        job_fail(j, e);
        job_drop(j);
    }
}

static void take_on(Scheduler *s, Job *j)
{
    SlotChoice c;
    bool side = is_side_request(j, slots_run(&s->slots, key_of(&j->turn).session));
    job_is_lost(j, false);
    if (job_canceled(j) || !slots_choose(&s->slots, j, side, &c)) {
        atomic_store(&j->stage, STAGE_OVER);
        job_drop(j);
        return;
    }
    enter(s, &c, j, side);
}

void close_slots(Scheduler *s)
{
    for (int i = 0; i < s->slots.n; i++)
        stop_entering(s, &s->slots.slot[i]);
    slots_close(&s->slots);
}

void admit(Scheduler *s)
{
    for (Job *j; (j = next_in_queue(s)) != NULL;)
        take_on(s, j);
}

/* Whoever waits has no slot. */
static bool is_waited_for(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool waits = s->queue != NULL;
    pthread_mutex_unlock(&s->mutex);
    return waits;
}

void drop_canceled(Scheduler *s)
{
    bool wanted = is_waited_for(s) && active(s) >= s->max_active;
    for (int i = 0; i < s->slots.n; i++) {
        Slot *slot = &s->slots.slot[i];
        if (!slot->job)
            continue;
        if (job_is_lost(slot->job, wanted))
            wanted = false; /* one slot is enough for now */
        if (job_canceled(slot->job))
            leave(s, slot);
    }
}
