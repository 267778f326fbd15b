/* saving.c - states on their way to the store.
 *
 * A piece is a chunk of 2,048 tokens, or the tail behind the last one, with the
 * mark at its end. The engine's thread copies one at a time, between steps, and
 * hands it over; files are the store's own threads' work. What is there already
 * is not copied.
 *
 *      a chunk        as soon as a timeline has completed it
 *      the tail       when a prompt of which most was new has been read, and at
 *                     the end of an answer, from 2,048 tokens on: shorter ones
 *                     are read again as fast as any file
 *      all            when a conversation has to leave its slot, when the engine
 *                     is unloaded, and at the end, however short
 *      nothing        of side requests */
#include "scheduler_parts.h"
#include <stdlib.h>

enum { LEAST_TAIL = STORE_CHUNK };

/* What has no room now may have some when others have let go of theirs. */
#define AGAIN_NS ((int64_t)30 * 1000000000)

void saving_moved(Slot *slot)
{
    slot->chunks = slot->kept = 0;
    slot->tail = false;
    slot->again_ns = 0;
}

void saving_failed(Slot *slot) { slot->again_ns = clock_ns() + AGAIN_NS; }

void saving_turn(Scheduler *s, Slot *slot, bool answered)
{
    bool cold = slot->cached < (int)slot->job->prompt.n / 2;
    if (s->store && ds4_session_length(slot->session) >= LEAST_TAIL && (answered || cold))
        slot->tail = true;
}

/* The last length of at most n tokens at which it has a mark. */
static int mark_before(const ds4_session *s, int n)
{
    int at[DS4_MOST_MARKS], best = 0;
    int count = ds4_session_marks(s, at, DS4_MOST_MARKS);
    for (int i = 0; i < count; i++)
        if (at[i] <= n && at[i] % STORE_UNIT == 0)
            best = at[i];
    return best;
}

/* What is there of a timeline of which nothing is known yet. To ask for each chunk would hash
 * all before it each time: a million tokens were half a second. */
static void skip_known(Scheduler *s, Slot *slot)
{
    const int32_t *tokens = ds4_session_tokens(slot->session);
    StoreFound f;
    int n = store_find(s->store, tokens, ds4_session_length(slot->session), &f);
    store_unpin(s->store, &f);
    n -= n % STORE_CHUNK;
    if (store_has(s->store, tokens, n)) /* and all of it is used */
        slot->chunks = slot->kept = n;
}

/* The next whole chunk that the store has not. Behind one of which there is no mark any
 * more nothing can be kept: the store would not find it. */
static bool next_chunk(Scheduler *s, Slot *slot)
{
    const int32_t *tokens = ds4_session_tokens(slot->session);
    int length = ds4_session_length(slot->session);
    if (!slot->chunks && length >= 2 * STORE_CHUNK)
        skip_known(s, slot);
    while (slot->chunks >= 0 && slot->chunks + STORE_CHUNK <= length) {
        int end = slot->chunks + STORE_CHUNK;
        if (!store_has(s->store, tokens, end)) {
            if (mark_before(slot->session, end) == end)
                return true;
            slot->chunks = -1;
            break;
        }
        slot->chunks = slot->kept = end;
    }
    return false;
}

/* Where the tail ends that the store has not; 0: there is none. */
static int next_tail(Scheduler *s, Slot *slot)
{
    bool wanted = slot->tail && slot->chunks >= 0;
    slot->tail = false;
    int end = wanted ? mark_before(slot->session, ds4_session_length(slot->session)) : 0;
    if (end <= MAX(slot->chunks, slot->kept))
        return 0;
    if (!store_has(s->store, ds4_session_tokens(slot->session), end))
        return end;
    slot->kept = end;
    return 0;
}

/* Copies [first, last) and its mark to the store. */
static bool save_piece(Scheduler *s, Slot *slot, int first, int last)
{
    ds4_err err = { 0 };
    int64_t start = clock_ns();
    uint64_t rows = ds4_rows_bytes(s->engine, first, last), mark = ds4_mark_bytes(s->engine, last);
    StorePut put = { .tokens = ds4_session_tokens(slot->session),
                     .first = first,
                     .last = last,
                     .rows = malloc((size_t)rows),
                     .mark = malloc((size_t)mark) };
    bool read = put.rows && put.mark &&
                ds4_session_read_mark(slot->session, last, put.mark, &err) &&
                ds4_session_read_rows(slot->session, first, last, put.rows, &err);
    if (!read) {
        free(put.rows);
        free(put.mark);
        scheduler_log(s, "tokens %d to %d of slot %d were not saved: %s", first, last,
                      (int)(slot - s->slots.slot), err.code ? err.msg : "no memory");
        return false;
    }
    bool kept = store_put(s->store, &put);
    s->changes += kept;
    if (kept)
        metrics_saved(s->opt.metrics, rows + mark, (double)(clock_ns() - start) / 1e9);
    return kept;
}

bool save_some(Scheduler *s, Slot *slot)
{
    if (!s->store || slot->scratch || clock_ns() < slot->again_ns)
        return false;
    bool whole = next_chunk(s, slot);
    int first = slot->chunks, last = whole ? first + STORE_CHUNK : next_tail(s, slot);
    if (!last)
        return false;
    if (!save_piece(s, slot, first, last))
        saving_failed(slot);
    else if (whole)
        slot->chunks = slot->kept = last;
    else
        slot->kept = last;
    return true;
}

/* A slot that has a job in it which is not there yet holds what it will not, or half of it. */
bool save_any(Scheduler *s)
{
    for (int k = 1; s->engine && k <= s->slots.n; k++) {
        int i = (s->saving + k) % s->slots.n;
        if (s->slots.slot[i].entering || !save_some(s, &s->slots.slot[i]))
            continue;
        s->saving = i;
        return true;
    }
    return false;
}

void save_all(Scheduler *s, int64_t until_ns)
{
    for (int i = 0; s->store && i < s->slots.n; i++) {
        Slot *slot = &s->slots.slot[i];
        saving_moved(slot); /* what the store had then it may not have now */
        slot->tail = true;
        while (clock_ns() < until_ns && save_some(s, slot))
            ;
    }
}

bool can_be_kept(Scheduler *s, const Slot *slot)
{
    int n = ds4_session_length(slot->session);
    if (!s->store || slot->chunks < 0 || clock_ns() < slot->again_ns)
        return false;
    uint64_t marks = (uint64_t)n / STORE_CHUNK + 1;
    uint64_t bytes = ds4_rows_bytes(s->engine, 0, n - n % STORE_UNIT) +
                     marks * ds4_mark_bytes(s->engine, STORE_UNIT);
    return bytes <= store_room(s->store);
}

bool is_kept(Scheduler *s, const Slot *slot)
{
    StoreFound f = { 0 };
    int n = ds4_session_length(slot->session), kept = 0;
    if (s->store) {
        kept = store_find(s->store, ds4_session_tokens(slot->session), n, &f);
        store_unpin(s->store, &f);
    }
    return n - kept < SLOT_LITTLE;
}
