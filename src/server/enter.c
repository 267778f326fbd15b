/* enter.c - how a job finds the beginning of its prompt.
 *
 * First a conversation that has to leave the slot is given to the store. Where
 * another slot just reads a prompt that begins alike, it is waited for: agents
 * start their helpers all at once, and what they share is read once. Then the
 * best rung of the ladder is taken. What comes from the store or another slot
 * comes in chunks, between steps of others, for a few milliseconds at a time;
 * where it fails, the next best rung is taken. */
#include "scheduler_parts.h"

/* For all jobs that enter, between two steps: where others wait for a token, and where not. */
enum { SHARED_MS = 4, ALONE_MS = 50 };

/* ---- there ----------------------------------------------------------------------------- */

static void log_prompt(Scheduler *s, const Slot *slot)
{
    Bytes b = { 0 };
    bytes_printf(&b, "%s cache: ", slot->job->turn.request_id);
    explain_line(&slot->why, slot->job, (int)(slot - s->slots.slot), &b);
    bytes_byte(&b, 0);
    if (!b.failed)
        s->opt.log(s->opt.user, b.p);
    bytes_release(&b);
}

/* The slot's session is a beginning of the prompt. */
static void begin_prompt(Scheduler *s, Slot *slot, enum CacheSource source)
{
    Job *j = slot->job;
    int reused = ds4_session_length(slot->session);
    slot->entering = false;
    slot->begun_ns = clock_ns();
    slot->why.ms = (double)(slot->begun_ns - slot->entered_ns) / 1e6;
    slot->cached = slot->fed = reused;
    if (source != CACHE_LIVE && source != CACHE_HANDLE)
        saving_moved(slot);
    ladder_leave(&slot->ladder, s->store);
    s->changes++;
    explain_reuse(&slot->why, j, reused, source);
    atomic_store(&j->cached, reused);
    atomic_store(&j->processed, reused);
    log_prompt(s, slot);
    metrics_prompt(s->opt.metrics, reused, slot->why.source, slot->why.miss);
    show_prompt(s, slot);
    count_slots(s);
}

/* ---- the ladder -------------------------------------------------------------------------- */

static bool fetch(Scheduler *s, Slot *slot)
{
    int n = slot->ladder.found.n, own = slot_common(slot, &slot->job->prompt);
    slot->fetch = store_fetch(s->store, &slot->ladder.found, MIN(own, n - 1));
    return slot->fetch != NULL;
}

static bool take(Scheduler *s, Slot *slot, enum CacheSource source)
{
    switch (source) {
    case CACHE_FORK:
        slot->copying = true;
        slot->copied = 0;
        return true;
    case CACHE_RAM:
    case CACHE_DISK: return fetch(s, slot);
    case CACHE_REWIND: return ds4_session_rewind(slot->session, slot->ladder.tokens[source]) > 0;
    case CACHE_LIVE:
    case CACHE_HANDLE: return true;
    default: ds4_session_rewind(slot->session, 0); return true;
    }
}

/* The best rung that holds. */
static void climb(Scheduler *s, Slot *slot)
{
    enum CacheSource source = ladder_best(&slot->ladder);
    while (!take(s, slot, source)) {
        slot->ladder.tokens[source] = 0;
        slot->why.store_failed |= source == CACHE_RAM || source == CACHE_DISK;
        source = ladder_best(&slot->ladder);
    }
    if (!slot->fetch && !slot->copying)
        begin_prompt(s, slot, source);
}

/* ---- others that begin alike -------------------------------------------------------------- */

static int shared(const Tokens *a, const Tokens *b)
{
    int n = (int)MIN(a->n, b->n), i = 0;
    while (i < n && a->id[i] == b->id[i])
        i++;
    return i;
}

static bool is_reading(const Slot *s) { return s->job && !s->entering && !s->decoding; }

/* How far a prompt that is being read goes the same way; a mark is left there. 0: it is
 * past that, or no use. */
static int way_together(const Slot *other, const Job *j)
{
    if (!is_reading(other))
        return 0;
    int n = shared(&other->job->prompt, &j->prompt);
    n = MIN(n, (int)j->prompt.n - 1);
    n -= n % STORE_UNIT;
    return n > other->fed ? n : 0;
}

static void look_ahead(Scheduler *s, Slot *slot)
{
    enum { WORTH_WAITING = 256 };
    enum CacheSource best = ladder_best(&slot->ladder);
    int there = best < N_CACHE_SOURCES ? slot->ladder.tokens[best] : 0;
    slot->ahead = slot->ahead_to = 0;
    for (int i = 0; i < s->slots.n; i++) {
        int n = way_together(&s->slots.slot[i], slot->job);
        if (n >= there + WORTH_WAITING && n > slot->ahead_to) {
            slot->ahead = i + 1;
            slot->ahead_to = n;
            slot->ahead_ns = s->slots.slot[i].begun_ns;
        }
    }
}

int stop_for_others(const Scheduler *s, const Slot *slot)
{
    int stop = 0;
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *other = &s->slots.slot[i];
        if (other->ahead == slot - s->slots.slot + 1 && other->ahead_to > slot->fed &&
            (!stop || other->ahead_to < stop))
            stop = other->ahead_to;
    }
    return stop;
}

/* The old conversation is gone from here on. */
static void move_in(Scheduler *s, Slot *slot)
{
    Job *j = slot->job;
    ConversationKey key = key_of(&j->turn);
    if (slot->leaving)
        metrics_evicted(s->opt.metrics, EVICT_SLOT_NEEDED);
    if (slot->leaving || slot->key.own != key.own)
        past_keep(s->past, slot);
    slot->used_ns = clock_ns();
    slot->key = key;
    slot->names = (AnswerNames){ 0 };
    slot->scratch = slot->side;
    slot->leaving = slot->must = false;
}

/* What was found stays pinned as long as it is waited for more. */
static void keep_found(Scheduler *s, Slot *slot)
{
    if (s->store)
        store_unpin(s->store, &slot->wanted);
    slot->wanted = slot->ladder.found;
    slot->ladder.found = (StoreFound){ 0 };
    ladder_leave(&slot->ladder, s->store);
}

/* Looks at what there is, and takes it, unless more is on its way. */
static void find_beginning(Scheduler *s, Slot *slot)
{
    slot->entered_ns = clock_ns();
    ladder_find(&slot->ladder, &s->slots, slot, &slot->job->prompt, slot->named, s->store);
    memcpy(slot->why.offered, slot->ladder.tokens, sizeof slot->why.offered);
    look_ahead(s, slot);
    if (slot->ahead) {
        keep_found(s, slot);
        return;
    }
    if (s->store)
        store_unpin(s->store, &slot->wanted);
    climb(s, slot);
}

/* ---- from the store ------------------------------------------------------------------------- */

static void end_fetch(Slot *slot)
{
    store_fetch_close(slot->fetch);
    slot->fetch = NULL;
}

/* It gave less than it had, or what the engine does not take: what is there now decides. */
static void fall_back(Scheduler *s, Slot *slot, const char *why)
{
    Job *j = slot->job;
    scheduler_log(s, "%s the store gave less than the %d tokens that it had: %s",
                  j->turn.request_id, slot->ladder.found.n, why);
    slot->why.store_failed = true;
    ladder_leave(&slot->ladder, s->store);
    ladder_find(&slot->ladder, &s->slots, slot, &j->prompt, slot->named, NULL);
    climb(s, slot);
}

static void restored(Scheduler *s, Slot *slot, const StorePiece *p)
{
    ds4_err err = { 0 };
    int n = slot->ladder.found.n;
    bool ok =
        p->last > 0 && ds4_session_enter(slot->session, slot->job->prompt.id, p->last, p->mark,
                                         (size_t)ds4_mark_bytes(s->engine, p->last), &err);
    bool all = ok && p->last == n;
    end_fetch(slot);
    if (!all) {
        fall_back(s, slot, err.code ? err.msg : "a file is damaged");
        return;
    }
    metrics_restored(s->opt.metrics, slot->ladder.found.bytes,
                     (double)(clock_ns() - slot->entered_ns) / 1e9);
    begin_prompt(s, slot, slot->ladder.tokens[CACHE_DISK] ? CACHE_DISK : CACHE_RAM);
}

/* The next chunk, if it has come. */
static bool restore_some(Scheduler *s, Slot *slot)
{
    ds4_err err = { 0 };
    StorePiece p;
    switch (store_next(slot->fetch, &p)) {
    case STORE_WAIT: return false;
    case STORE_END: restored(s, slot, &p); return true;
    case STORE_ROWS: break;
    }
    if (!ds4_session_write_rows(slot->session, p.first, p.last, p.rows,
                                (size_t)ds4_rows_bytes(s->engine, p.first, p.last), &err)) {
        end_fetch(slot);
        fall_back(s, slot, err.msg);
    }
    return true;
}

void stop_entering(Scheduler *s, Slot *slot)
{
    slot->ahead = 0;
    if (s->store)
        store_unpin(s->store, &slot->wanted);
    if (!slot->fetch && !slot->copying)
        return;
    end_fetch(slot);
    slot->copying = false;
    ladder_leave(&slot->ladder, s->store);
    saving_moved(slot);
}

/* ---- from another slot ----------------------------------------------------------------------- */

/* The next rows. The last of them come with what of the state is no rows. */
static bool copy_piece(Slot *slot, const Slot *from, ds4_err *err)
{
    int n = slot->ladder.tokens[CACHE_FORK], reached = 0;
    int last = MIN(slot->copied + STORE_CHUNK, n - n % STORE_UNIT);
    if (last == slot->copied) {
        slot->copying = false;
        return ds4_session_fork(slot->session, from->session, n, &reached, err) &&
               (reached > 0 ||
                fail(err, DS4_EINVAL, "it went on, and left no mark in %d tokens", n));
    }
    int first = slot->copied;
    slot->copied = last;
    return ds4_session_copy_rows(slot->session, from->session, first, last, err);
}

static void copy_some(Scheduler *s, Slot *slot)
{
    ds4_err err = { 0 };
    bool ok = copy_piece(slot, &s->slots.slot[slot->ladder.from], &err);
    if (ok && !slot->copying)
        begin_prompt(s, slot, CACHE_FORK);
    if (ok)
        return;
    scheduler_log(s, "%s slot %d could not be copied: %s", slot->job->turn.request_id,
                  slot->ladder.from, err.msg);
    slot->copying = false;
    slot->ladder.tokens[CACHE_FORK] = 0;
    climb(s, slot);
}

/* Does another one copy from it? Then it may go on, but is not taken back. */
static bool is_lent(const Scheduler *s, const Slot *slot)
{
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *other = &s->slots.slot[i];
        if (other->copying && &s->slots.slot[other->ladder.from] == slot)
            return true;
    }
    return false;
}

/* ---- entering ---------------------------------------------------------------------------------- */

/* Is the one ahead still on the way that both have? It is asked between all steps, so prompts
 * are not compared again: a million tokens take half a millisecond. */
static bool has_to_wait(const Scheduler *s, const Slot *slot)
{
    if (!slot->ahead)
        return false;
    const Slot *other = &s->slots.slot[slot->ahead - 1];
    return is_reading(other) && other->begun_ns == slot->ahead_ns && other->fed < slot->ahead_to;
}

/* What had to be kept first could not be, and that for no conversation. */
static void turn_back(Scheduler *s, Slot *slot)
{
    ApiError e = { 0 };
    no_slot_for_side(s, slot->job, &e);
    saving_failed(slot);
    job_fail(slot->job, &e);
    leave(s, slot);
}

static bool enter_some(Scheduler *s, Slot *slot)
{
    if (slot->fetch)
        return restore_some(s, slot);
    if (slot->copying) {
        copy_some(s, slot);
        return true;
    }
    if (has_to_wait(s, slot) || is_lent(s, slot))
        return false;
    if (slot->leaving && save_some(s, slot))
        return true;
    if (slot->must && !is_kept(s, slot)) {
        if (is_refused(s, slot->job)) {
            turn_back(s, slot);
            return true;
        }
        slot->side = false;
    }
    if (!slot->ahead)
        move_in(s, slot);
    find_beginning(s, slot);
    return true;
}

/* Round and round, since each may wait for the disk. */
bool go_on_entering(Scheduler *s)
{
    bool others = false, more = true;
    for (int i = 0; i < s->slots.n; i++)
        others |= s->slots.slot[i].decoding;
    int64_t until = clock_ns() + (int64_t)(others ? SHARED_MS : ALONE_MS) * 1000000;
    bool any = false;
    while (more && clock_ns() < until) {
        more = false;
        for (int i = 0; i < s->slots.n; i++)
            if (s->slots.slot[i].entering)
                more |= enter_some(s, &s->slots.slot[i]);
        any |= more;
    }
    return any;
}

/* A conversation leaves where more of it would be lost than the prompt can use; its own
 * earlier turns do not: they were kept when they ended. */
static void make_leave(Slot *slot, const SlotChoice *c, bool left)
{
    slot->leaving = !c->own && !slot->scratch && c->resident > c->common;
    slot->must = false;
    if (!slot->leaving)
        return;
    saving_moved(slot);
    slot->tail = true;
    slot->must = slot->side && c->resident - c->common >= SLOT_LITTLE && !left;
    slot->why.given_up = c->resident - c->common;
}

void enter(Scheduler *s, const SlotChoice *c, Job *j, bool side)
{
    ApiError e = { 0 };
    Slot *slot = c->slot;
    bool left = is_left(slot->used_ns);
    explain_break(&slot->why, &s->slots, s->past, slot, j, s->vocab, side);
    slot->job = j;
    slot->side = side;
    slot->named = c->by_handle;
    slot->entering = true;
    slot->entered_ns = clock_ns();
    atomic_store(&j->stage, STAGE_PREFILL);
    j->started_ns = slot->entered_ns;
    metrics_left_queue(s->opt.metrics, (double)(j->started_ns - j->prepared_ns) / 1e9);
    if (side)
        metrics_side_request(s->opt.metrics);
    make_leave(slot, c, left);
    if (s->store)
        store_find(s->store, j->prompt.id, (int)j->prompt.n - 1, &slot->wanted);
    show(s, slot);
    slot->answer = generation_new(j, &s->env, &e);
    if (!slot->answer) {
        job_fail(j, &e);
        leave(s, slot);
    }
    count_slots(s);
}
