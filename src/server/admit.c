/* admit.c - from the queue into slots, and out of them. */
#include "scheduler_parts.h"
#include "side.h"

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
    s->changes++;
    hold_nobody_back(s);
}

/* In the queue no more, and in no slot. */
static void give_up(Job *j, const ApiError *e)
{
    atomic_store(&j->stage, STAGE_OVER);
    job_fail(j, e);
    job_drop(j);
}

int active(const Scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->slots.n; i++)
        n += s->slots.slot[i].job != NULL;
    return n;
}

void refuse_queue(Scheduler *s, const ApiError *e)
{
    pthread_mutex_lock(&s->mutex);
    Job *first = s->queue; /* who comes later may have more luck */
    s->queue = NULL;
    s->queue_end = &s->queue;
    s->n_queue = 0;
    metrics_queue_length(s->opt.metrics, 0);
    pthread_mutex_unlock(&s->mutex);
    for (Job *j = first, *next; j; j = next) {
        next = j->next;
        give_up(j, e);
    }
}

void close_slots(Scheduler *s)
{
    forget_waiting(s);
    for (int i = 0; i < s->slots.n; i++)
        stop_entering(s, &s->slots.slot[i]);
    slots_close(&s->slots);
}

/* ---- into a slot ------------------------------------------------------------------------ */

bool slot_hosts(Scheduler *s, const Slot *slot)
{
    bool little = !slot->job && ds4_session_length(slot->session) - slot->kept < SLOT_LITTLE;
    bool scratch = slot->job ? slot->side : slot->scratch;
    return scratch || little || can_be_kept(s, slot);
}

/* A side request costs no conversation its state. Will one that is busy do? */
static bool one_will_do(Scheduler *s)
{
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *slot = &s->slots.slot[i];
        if (slot->job && slot_hosts(s, slot))
            return true;
    }
    return false;
}

bool is_refused(const Scheduler *s, const Job *j)
{
    return is_surely_side(j, slots_know(&s->slots, key_of(&j->turn).session));
}

void no_slot_for_side(Scheduler *s, const Job *j, ApiError *e)
{
    enum { RETRY_S = 30 };
    api_fail(e, 503, "no_slot", NULL,
             "All slots hold conversations that were used lately, and there is no room to keep "
             "one meanwhile: more --slots, --kv-ram-mb or a --kv-disk-dir make room");
    e->retry_after = RETRY_S;
    scheduler_log(s, "%s refused: a side request would cost a conversation its state",
                  j->turn.request_id);
}

/* Only side requests find no slot though some are free. One that may as well begin a
 * conversation is taken for that then. */
static bool choose(Scheduler *s, Waiting *w, SlotChoice *c)
{
    ApiError e = { 0 };
    for (int i = 0; i < s->slots.n; i++)
        s->slots.slot[i].keepable = w->side && can_be_kept(s, &s->slots.slot[i]);
    if (slots_choose(&s->slots, w->job, w->side, c))
        return true;
    if (one_will_do(s)) {
        hold_back(s, w);
        return false;
    }
    if (is_refused(s, w->job)) {
        if (take_waiting(s, w)) {
            no_slot_for_side(s, w->job, &e);
            give_up(w->job, &e);
        }
        return false;
    }
    w->side = false;
    return slots_choose(&s->slots, w->job, false, c);
}

static void take_on(Scheduler *s, Waiting *w)
{
    SlotChoice c;
    Job *j = w->job;
    if (!choose(s, w, &c) || !take_waiting(s, w))
        return;
    if (job_canceled(j)) {
        atomic_store(&j->stage, STAGE_OVER);
        job_drop(j);
        return;
    }
    enter(s, &c, j, w->side);
    s->changes++;
}

void admit(Scheduler *s)
{
    Waiting *w;
    look_at_queue(s);
    while (active(s) < s->max_active && (w = next_waiting(s)) != NULL) {
        take_on(s, w);
        look_at_queue(s);
    }
}

/* Whoever waits has no slot. */
static bool is_waited_for(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool waits = s->queue != NULL;
    pthread_mutex_unlock(&s->mutex);
    return waits;
}

/* Those that nobody hears keep nobody from anything. */
static enum JobCompany company(Scheduler *s)
{
    bool waits = is_waited_for(s), others = waits;
    for (int i = 0; i < s->slots.n; i++) {
        const Job *j = s->slots.slot[i].job;
        others |= j && !atomic_load(&j->left_ns);
    }
    return waits && active(s) >= s->max_active ? JOB_WANTED : others ? JOB_BESIDE : JOB_ALONE;
}

void drop_canceled(Scheduler *s)
{
    enum JobCompany now = company(s);
    for (int i = 0; i < s->slots.n; i++) {
        Slot *slot = &s->slots.slot[i];
        if (!slot->job)
            continue;
        if (job_is_lost(slot->job, now) && now == JOB_WANTED)
            now = JOB_BESIDE; /* one slot is enough for now */
        if (job_canceled(slot->job))
            leave(s, slot);
    }
}
