/* writer.c - the thread that writes: removals first, then journals, then chunks as
 * they come, tails when they are due, and how much chunks were used. */
#include "store_parts.h"
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define SECOND_NS ((int64_t)1000000000)

/* ---- removals -------------------------------------------------------------------------- */

static void remove_gone(Store *s)
{
    ChunkName *gone = s->gone;
    const size_t n = s->n_gone;

    s->gone = NULL;
    s->n_gone = s->cap_gone = 0;
    uint64_t stay = 0;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++) {
        char hex[41];
        name_hex(&gone[i], hex);
        if (folder_remove_chunk(&s->folder, &gone[i]))
            continue;
        store_say_some(s, SAY_REMOVE, "KV store: cannot remove %s.kv: %s", hex, strerror(errno));
        stay += folder_chunk_bytes(&s->folder, &gone[i]);
    }
    free(gone);
    pthread_mutex_lock(&s->lock);
    s->count.removing -= n;
    s->count.foreign_bytes += stay;
}

/* ---- chunks ---------------------------------------------------------------------------- */

static Entry *next_due(const Store *s)
{
    const int64_t now = clock_ns();

    if (s->closing)
        return now < s->deadline_ns ? s->first_waiting : NULL;
    for (Entry *e = s->first_waiting; e; e = e->next_waiting)
        if (e->due_ns <= now)
            return e;
    /* What may wait does so only as long as there is memory. */
    return s->count.waiting_bytes > s->ram_limit / 2 ? s->first_waiting : NULL;
}

static void say_failed(Store *s, bool room, bool full, const ds4_err *why)
{
    if (!room)
        store_say_some(s, SAY_ROOM,
                       "KV store: no room for a chunk within the budget of %llu MB: what is there "
                       "is in use or not the store's",
                       (unsigned long long)(s->opt.disk_bytes >> 20));
    else
        store_say_some(s, SAY_WRITE, "KV store: a chunk was not written%s: %s",
                       full ? ", the disk is full" : "", why->msg);
}

static void written(Store *s, Entry *e, uint64_t bytes, int64_t ns)
{
    e->on_disk = true;
    e->file_bytes = bytes;
    s->count.disk_bytes += bytes;
    s->count.disk_chunks++;
    s->count.written_bytes += bytes;
    s->count.written_files++;
    s->count.write_ns += (uint64_t)ns;
    s->just_written = e->head.name;
    if (e->known)
        store_supersede(s, e, true);
}

/* A chunk that cannot be written stays in memory as long as there is room. */
static void write_chunk(Store *s, Entry *e)
{
    ChunkPlaces at = { 0 };
    ds4_err why = { 0 };
    bool full = false, ok = false;
    uint64_t over = 0; /* of a file that could be neither read nor removed, and counts as foreign */
    int64_t ns = 0;

    chunk_places(&e->head, &at);
    ram_unwait(s, e);
    const uint64_t bytes = ram_bytes(e);
    s->count.waiting_chunks++; /* as long as it is not there */
    s->count.waiting_bytes += bytes;
    e->busy = true;
    e->holds++;
    const bool room = disk_make_room(s, at.end);
    const ChunkUse use = e->use;
    if (s->n_gone)
        remove_gone(s); /* evicted first, or more than the budget would lie there */
    pthread_mutex_unlock(&s->lock);
    if (room) {
        const int64_t begin = clock_ns();
        over = folder_chunk_bytes(&s->folder, &e->head.name);
        ok = folder_write_chunk(&s->folder, &e->head, &use, e->tokens, e->rows, e->mark, &full,
                                &why);
        ns = clock_ns() - begin;
    }
    if (!ok)
        say_failed(s, room, full, &why);
    pthread_mutex_lock(&s->lock);
    e->busy = false;
    s->count.waiting_chunks--;
    s->count.waiting_bytes -= bytes;
    if (ok)
        written(s, e, at.end, ns);
    if (ok)
        s->count.foreign_bytes -= MIN(over, s->count.foreign_bytes);
    s->count.failed_writes += !ok;
    s->count.disk_full += full;
    if (e->doomed) {
        e->doomed = false;
        store_end_entry(s, e);
    }
    store_let_go(s, e);
}

/* What memory had no room for while it waited. Whoever lost it holds the lock, so it is said here. */
static void say_dropped(Store *s)
{
    const uint64_t n = s->count.dropped - s->dropped_told;

    s->dropped_told = s->count.dropped;
    pthread_mutex_unlock(&s->lock);
    store_say_some(s, SAY_DROPPED,
                   "KV store: %llu chunks were given up before they were written: memory for "
                   "states (%llu MB) is short",
                   (unsigned long long)n, (unsigned long long)(s->ram_limit >> 20));
    pthread_mutex_lock(&s->lock);
}

/* ---- use records ------------------------------------------------------------------------- */

typedef struct {
    ChunkHead head;
    ChunkUse use;
} Used;

static size_t collect_uses(Store *s, Used *out, size_t cap)
{
    size_t n = 0;

    for (Entry *e = &s->table.root; e; e = table_next(&s->table.root, e)) {
        if (!e->use_changed || !e->on_disk)
            continue;
        if (n < cap) {
            out[n] = (Used){ e->head, e->use };
            e->use_changed = false;
        }
        n++;
    }
    return n;
}

static void write_uses(Store *s)
{
    const size_t n = collect_uses(s, NULL, 0);
    Used *used = n ? malloc(n * sizeof *used) : NULL;

    s->use_due_ns = 0;
    if (!used)
        return;
    collect_uses(s, used, n);
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++)
        folder_write_use(&s->folder, &used[i].head, &used[i].use);
    free(used);
    pthread_mutex_lock(&s->lock);
}

/* ---- the thread ---------------------------------------------------------------------------- */

/* Until something is due at until_ns (0: never) or there is something new. The
 * clock of the wait can be set by people: so it is asked again every minute. */
static void wait_for_work(Store *s, int64_t until_ns)
{
    struct timespec ts;

    if (!until_ns) {
        pthread_cond_wait(&s->write_wake, &s->lock);
        return;
    }
    const int64_t wait = MIN(MAX(until_ns - clock_ns(), 0), 60 * SECOND_NS);
    clock_gettime(CLOCK_REALTIME, &ts);
    const int64_t ns = ts.tv_nsec + wait;
    ts.tv_sec += (time_t)(ns / SECOND_NS);
    ts.tv_nsec = (long)(ns % SECOND_NS);
    pthread_cond_timedwait(&s->write_wake, &s->lock, &ts);
}

static int64_t sooner(int64_t a, int64_t b) { return !a ? b : !b ? a : MIN(a, b); }

static bool is_due(const Store *s, int64_t due_ns)
{
    return due_ns && (s->closing || due_ns <= clock_ns());
}

void *store_writer(void *store)
{
    Store *s = store;
    int64_t sync_due_ns = 0;
    Entry *e;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (s->n_gone) {
            remove_gone(s);
        } else if (s->count.dropped > s->dropped_told) {
            say_dropped(s);
        } else if (journals_waiting(s)) {
            pthread_mutex_unlock(&s->lock);
            journals_write(s);
            pthread_mutex_lock(&s->lock);
            sync_due_ns = sooner(sync_due_ns, clock_ns() + SECOND_NS);
        } else if ((e = next_due(s))) {
            write_chunk(s, e);
        } else if (is_due(s, s->use_due_ns)) {
            write_uses(s);
        } else if (is_due(s, sync_due_ns)) {
            sync_due_ns = 0;
            pthread_mutex_unlock(&s->lock);
            journals_sync(s);
            pthread_mutex_lock(&s->lock);
        } else if (s->closing) {
            break;
        } else {
            int64_t until = sooner(s->use_due_ns, sync_due_ns);
            for (e = s->first_waiting; e; e = e->next_waiting)
                until = sooner(until, e->due_ns);
            wait_for_work(s, until);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
