/* journal.c - a log of records, a map from keys to the live ones, and now and then
 * a new file with only these.
 *
 * A record's place in the file is known as soon as it is put: it follows what
 * waits. Where writing fails, what waits behind it moves up. What the lost ones
 * replaced or dropped is in the file still, so the next write makes it anew. */
#include "journal.h"
#include "store_parts.h"
#include "record.h"
#include "../base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_WAITING ((size_t)64 << 20)
enum { SMALL = 64 << 10 }; /* not worth a new file */
#define NONE UINT32_MAX

typedef struct {
    uint64_t key, at;
    uint32_t bytes; /* header and body */
    uint32_t next;  /* of its bucket */
    bool live;
} Live;

struct Journal {
    Journal *next; /* guarded by the store's lock, as long as the store */
    Store *s;
    JournalOptions opt;
    char file[48];
    bool writable;

    pthread_mutex_t lock; /* of what follows; never held with I/O */
    Bytes waiting;        /* lies at `end` some day */
    uint64_t end;
    Live *rec; /* by place */
    size_t n_rec, cap_rec, oldest;
    uint32_t *bucket;
    size_t mask;
    JournalCounters count;
    bool rewrite; /* it has damaged places, another version's records, or what was to go */

    /* the writer's thread's */
    int fd;
    bool unsynced;
    uint64_t compact_after; /* a length */
};

/* ---- the map ------------------------------------------------------------------------- */

static size_t place(const Journal *j, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 32) & j->mask;
}

static bool rehash(Journal *j, size_t buckets)
{
    uint32_t *bucket = malloc(buckets * sizeof *bucket);

    if (!bucket)
        return false;
    memset(bucket, 0xff, buckets * sizeof *bucket);
    free(j->bucket);
    j->bucket = bucket;
    j->mask = buckets - 1;
    for (size_t i = 0; i < j->n_rec; i++) {
        uint32_t *to = &bucket[place(j, j->rec[i].key)];
        if (!j->rec[i].live)
            continue;
        j->rec[i].next = *to;
        *to = (uint32_t)i;
    }
    return true;
}

static bool make_space(Journal *j)
{
    if (j->n_rec < j->cap_rec)
        return true;
    const size_t cap = j->cap_rec ? j->cap_rec * 2 : 256;
    Live *rec = cap < NONE ? realloc(j->rec, cap * sizeof *rec) : NULL;
    if (!rec)
        return false;
    j->rec = rec;
    j->cap_rec = cap;
    return rehash(j, cap);
}

static void add(Journal *j, uint64_t key, uint64_t at, size_t bytes)
{
    uint32_t *to = &j->bucket[place(j, key)];

    j->rec[j->n_rec] =
        (Live){ .key = key, .at = at, .bytes = (uint32_t)bytes, .next = *to, .live = true };
    *to = (uint32_t)j->n_rec++;
    j->count.records++;
    j->count.live_bytes += bytes;
}

static void end_record(Journal *j, size_t i)
{
    uint32_t *from = &j->bucket[place(j, j->rec[i].key)];

    while (*from != i)
        from = &j->rec[*from].next;
    *from = j->rec[i].next;
    j->rec[i].live = false;
    j->count.records--;
    j->count.live_bytes -= j->rec[i].bytes;
}

static bool end_key(Journal *j, uint64_t key)
{
    uint32_t i = j->bucket ? j->bucket[place(j, key)] : NONE;

    while (i != NONE && j->rec[i].key != key)
        i = j->rec[i].next;
    if (i == NONE)
        return false;
    end_record(j, i);
    return true;
}

/* The oldest go when there is too much. */
static void bound(Journal *j)
{
    while (j->count.live_bytes > j->opt.max_bytes && j->oldest < j->n_rec) {
        if (j->rec[j->oldest].live)
            end_record(j, j->oldest);
        j->oldest++;
    }
}

/* Drops what is dead from the map, whose places are those of the file. */
static void squeeze(Journal *j)
{
    size_t n = 0;

    for (size_t i = 0; i < j->n_rec; i++)
        if (j->rec[i].live)
            j->rec[n++] = j->rec[i];
    j->n_rec = n;
    j->oldest = 0;
    if (!j->bucket)
        return;
    memset(j->bucket, 0xff, (j->mask + 1) * sizeof *j->bucket);
    for (size_t i = 0; i < n; i++) {
        uint32_t *to = &j->bucket[place(j, j->rec[i].key)];
        j->rec[i].next = *to;
        *to = (uint32_t)i;
    }
}

/* ---- opening ------------------------------------------------------------------------- */

typedef struct {
    Journal *j;
    size_t others; /* records of another version */
    bool no_memory;
} Replay;

static void replay(void *user, const Record *r)
{
    Replay *p = user;
    Journal *j = p->j;

    if (r->version != j->opt.version) {
        p->others++;
        return;
    }
    end_key(j, r->key);
    if (r->kind == RECORD_DROP)
        return;
    if (make_space(j))
        add(j, r->key, r->at, RECORD_HEAD + r->body.n);
    else
        p->no_memory = true;
}

static void tell_all(Journal *j, const Map *m)
{
    for (size_t i = 0; i < j->n_rec; i++) {
        const Live *l = &j->rec[i];
        if (l->live && j->opt.each)
            j->opt.each(j->opt.user, l->key,
                        (Str){ (const char *)m->p + l->at + RECORD_HEAD, l->bytes - RECORD_HEAD });
    }
}

static void tell_state(Journal *j, const Replay *p)
{
    if (p->others)
        store_say(j->s, "KV store: %s: left out %zu records of another version", j->file,
                  p->others);
    if (j->count.damaged)
        store_say(j->s, "KV store: %s was damaged at %llu places: %llu records are left", j->file,
                  (unsigned long long)j->count.damaged, (unsigned long long)j->count.records);
}

static bool read_all(Journal *j, const char *path, uint64_t bytes, ds4_err *err)
{
    Map m = { 0 };
    Replay p = { .j = j };

    if (!bytes)
        return true;
    if (!map_open(&m, path, err))
        return false;
    const RecordScan scan = record_scan((const char *)m.p, m.n, replay, &p);
    j->end = scan.end;
    j->count.damaged = scan.damaged;
    j->rewrite = scan.damaged || p.others;
    bound(j);
    tell_all(j, &m);
    map_close(&m);
    if (p.no_memory)
        return fail(err, DS4_ENOMEM, "no memory for the records of %s", j->file);
    tell_state(j, &p);
    if (j->writable && scan.end < bytes && ftruncate(j->fd, (off_t)scan.end) != 0)
        return fail(err, DS4_EIO, "cannot cut %s: %s", path, strerror(errno));
    return true;
}

static bool open_file(Journal *j, ds4_err *err)
{
    char path[FOLDER_PATH];
    struct stat st;
    const int flags = j->writable ? O_RDWR | O_CREAT : O_RDONLY;

    if (!folder_path(&j->s->folder, j->file, path))
        return fail(err, DS4_EINVAL, "the path of %s is too long", j->file);
    j->fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (j->fd < 0 || fstat(j->fd, &st) != 0)
        return fail(err, DS4_EIO, "cannot open %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fail(err, DS4_EIO, "%s is no file", path);
    if (!read_all(j, path, (uint64_t)st.st_size, err))
        return false;
    pthread_mutex_lock(&j->s->lock);
    j->s->count.journal_bytes += j->end - (uint64_t)st.st_size;
    pthread_mutex_unlock(&j->s->lock);
    return true;
}

static void journal_free(Journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    pthread_mutex_destroy(&j->lock);
    bytes_release(&j->waiting);
    free(j->rec);
    free(j->bucket);
    free(j);
}

Journal *journal_open(Store *s, const JournalOptions *opt, ds4_err *err)
{
    Journal *j = s->has_dir ? calloc(1, sizeof *j) : NULL;

    if (!s->has_dir)
        fail(err, DS4_EINVAL, "a store without a folder has no journals");
    else if (!j)
        fail(err, DS4_ENOMEM, "no memory for a journal");
    if (!j)
        return NULL;
    j->s = s;
    j->opt = *opt;
    j->opt.max_record = MIN(opt->max_record, (size_t)RECORD_MOST);
    j->fd = -1;
    j->writable = s->folder.writable;
    snprintf(j->file, sizeof j->file, "%.32s.journal", opt->name);
    j->opt.name = j->file;
    pthread_mutex_init(&j->lock, NULL);
    if (!open_file(j, err)) {
        journal_free(j);
        return NULL;
    }
    pthread_mutex_lock(&s->lock);
    j->next = s->journals;
    s->journals = j;
    pthread_mutex_unlock(&s->lock);
    return j;
}

/* ---- for the owner --------------------------------------------------------------------- */

/* Into what waits; false: it is not there. */
static bool wait_to_write(Journal *j, RecordKind kind, uint64_t key, Str body)
{
    if (!j->writable || body.n > MOST_WAITING - RECORD_HEAD ||
        j->waiting.n > MOST_WAITING - RECORD_HEAD - body.n)
        return false;
    record_write(&j->waiting, kind, j->opt.version, key, body);
    const bool ok = !j->waiting.failed;
    j->waiting.failed = false; /* what was there before still is */
    return ok;
}

static void wake_writer(Journal *j)
{
    pthread_mutex_lock(&j->s->lock);
    pthread_cond_signal(&j->s->write_wake);
    pthread_mutex_unlock(&j->s->lock);
}

bool journal_put(Journal *j, uint64_t key, Str record)
{
    if (!j)
        return false;
    pthread_mutex_lock(&j->lock);
    const uint64_t at = j->end + j->waiting.n;
    const bool ok =
        record.n <= j->opt.max_record && make_space(j) && wait_to_write(j, RECORD_PUT, key, record);
    if (ok) {
        end_key(j, key);
        add(j, key, at, RECORD_HEAD + record.n);
        bound(j);
    } else {
        j->count.lost++;
    }
    pthread_mutex_unlock(&j->lock);
    if (ok)
        wake_writer(j);
    return ok;
}

void journal_drop(Journal *j, uint64_t key)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    const bool there = end_key(j, key);
    const bool ok = there && wait_to_write(j, RECORD_DROP, key, (Str){ "", 0 });
    j->rewrite |= there && !ok;
    pthread_mutex_unlock(&j->lock);
    if (ok)
        wake_writer(j);
}

void journal_counters(Journal *j, JournalCounters *out)
{
    *out = (JournalCounters){ 0 };
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    *out = j->count;
    out->file_bytes = j->end + j->waiting.n;
    pthread_mutex_unlock(&j->lock);
}

/* ---- the writer's thread ------------------------------------------------------------------ */

static Journal *first_journal(Store *s)
{
    pthread_mutex_lock(&s->lock);
    Journal *j = s->journals;
    pthread_mutex_unlock(&s->lock);
    return j;
}

static bool room_for(Store *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    const bool ok = disk_make_room(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static void grew(Store *s, uint64_t written, uint64_t gone)
{
    pthread_mutex_lock(&s->lock);
    s->count.journal_bytes += written - gone;
    s->count.journal_written_bytes += written;
    pthread_mutex_unlock(&s->lock);
}

static bool write_at(int fd, const char *p, size_t n, uint64_t at)
{
    while (n) {
        const ssize_t k = pwrite(fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return true;
}

/* Records of [from, to) did not get there: those behind them will lie at `from`. */
static void lose_records(Journal *j, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&j->lock);
    for (size_t i = j->n_rec; i-- > 0 && j->rec[i].at >= from;) {
        if (j->rec[i].at >= to) {
            j->rec[i].at -= to - from;
        } else if (j->rec[i].live) {
            end_record(j, i);
            j->count.lost++;
        }
    }
    j->end = from;
    j->rewrite = true;
    pthread_mutex_unlock(&j->lock);
}

/* True: something was written. */
static bool write_waiting(Journal *j)
{
    pthread_mutex_lock(&j->lock);
    Bytes b = j->waiting;
    const uint64_t at = j->end;
    j->waiting = (Bytes){ 0 };
    j->end += b.n;
    pthread_mutex_unlock(&j->lock);
    if (!b.n)
        return false;
    errno = 0;
    const bool ok = room_for(j->s, b.n) && write_at(j->fd, b.p, b.n, at);
    if (ok) {
        j->unsynced = true;
        grew(j->s, b.n, 0);
    } else {
        store_say_some(j->s, SAY_JOURNAL, "KV store: %s was not written: %s", j->file,
                       errno ? strerror(errno) : "no room within the budget");
        lose_records(j, at, at + b.n);
        if (ftruncate(j->fd, (off_t)at) != 0)
            errno = 0; /* the next write, or the reader, gets rid of it */
    }
    bytes_release(&b);
    return ok;
}

/* ---- a new file with what lives ------------------------------------------------------------ */

typedef struct {
    uint32_t *rec; /* which records */
    uint64_t *at;  /* where they lie in the new file */
    size_t n;
    uint64_t old_end, new_end, live_bytes;
    bool rewrite;
} Move;

static bool plan_move(Journal *j, Move *m)
{
    bool ok = false;

    pthread_mutex_lock(&j->lock);
    m->old_end = j->end;
    m->live_bytes = j->count.live_bytes;
    const uint64_t dead = j->end - MIN(j->end, j->count.live_bytes);
    const bool mostly = dead > j->end / 2 && j->end > SMALL;
    if ((mostly || j->rewrite) && j->end > j->compact_after) {
        m->rec = malloc((j->n_rec + 1) * sizeof *m->rec);
        m->at = malloc((j->n_rec + 1) * sizeof *m->at);
        ok = m->rec && m->at;
        m->rewrite = j->rewrite;
        j->rewrite = j->rewrite && !ok;
    }
    for (size_t i = 0; ok && i < j->n_rec; i++)
        if (j->rec[i].live && j->rec[i].at < j->end)
            m->rec[m->n++] = (uint32_t)i;
    pthread_mutex_unlock(&j->lock);
    return ok;
}

/* Only this thread moves records, so rec[i]'s place and size stay; the array may
 * move while others put records, so each is looked at with the lock. */
static Live live_at(Journal *j, uint32_t i)
{
    pthread_mutex_lock(&j->lock);
    const Live l = j->rec[i];
    pthread_mutex_unlock(&j->lock);
    return l;
}

static bool copy_live(Journal *j, Move *m, File *to, ds4_err *err)
{
    Bytes b = { 0 };
    bool ok = true;

    for (size_t i = 0; ok && i < m->n; i++) {
        const Live l = live_at(j, m->rec[i]);
        bytes_clear(&b);
        char *p = bytes_room(&b, l.bytes);
        m->at[i] = to->n;
        if (!p)
            ok = fail(err, DS4_ENOMEM, "no memory for a record");
        else if (!file_read_at(j->fd, l.at, p, l.bytes))
            ok = fail(err, DS4_EIO, "cannot read %s again: %s", j->file, strerror(errno));
        else
            ok = file_write(to, p, l.bytes, err);
    }
    m->new_end = to->n;
    bytes_release(&b);
    return ok;
}

static void adopt(Journal *j, const Move *m, int fd)
{
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n_rec; i++)
        if (j->rec[i].at >= m->old_end)
            j->rec[i].at = j->rec[i].at - m->old_end + m->new_end;
    for (size_t i = 0; i < m->n; i++)
        j->rec[m->rec[i]].at = m->at[i];
    j->end = m->new_end;
    squeeze(j);
    pthread_mutex_unlock(&j->lock);
    close(j->fd);
    j->fd = fd;
    j->unsynced = false;
    j->compact_after = 0;
    grew(j->s, m->new_end, m->old_end);
}

/* *fd: the new file, of which the name is another's until all is in it. */
static bool write_anew(Journal *j, Move *m, const char *path, int *fd, ds4_err *err)
{
    File file = { .fd = -1 };
    bool ok = room_for(j->s, m->live_bytes) || fail(err, DS4_EIO, "no room within the budget");

    ok = ok && file_create(&file, path, err) && file_private(&file, err);
    if (ok && (*fd = fcntl(file.fd, F_DUPFD_CLOEXEC, 0)) < 0)
        ok = fail(err, DS4_EIO, "cannot make %s anew: %s", path, strerror(errno));
    ok = ok && copy_live(j, m, &file, err) && file_commit(&file, err);
    file_release(&file);
    return ok;
}

static void compact(Journal *j)
{
    char path[FOLDER_PATH];
    Move m = { 0 };
    ds4_err err = { 0 };
    int fd = -1;

    if (plan_move(j, &m) && folder_path(&j->s->folder, j->file, path)) {
        if (write_anew(j, &m, path, &fd, &err)) {
            adopt(j, &m, fd);
        } else {
            if (fd >= 0)
                close(fd);
            pthread_mutex_lock(&j->lock);
            j->rewrite |= m.rewrite;
            pthread_mutex_unlock(&j->lock);
            j->compact_after = m.old_end + MAX(m.old_end / 2, (uint64_t)1 << 20);
            store_say_some(j->s, SAY_JOURNAL, "KV store: %s stays as long as it is: %s", j->file,
                           err.msg);
        }
    }
    free(m.rec);
    free(m.at);
}

bool journals_waiting(Store *s)
{
    bool waiting = false;
    for (Journal *j = s->journals; j && !waiting; j = j->next) {
        pthread_mutex_lock(&j->lock);
        waiting = j->waiting.n > 0;
        pthread_mutex_unlock(&j->lock);
    }
    return waiting;
}

void journals_write(Store *s)
{
    for (Journal *j = first_journal(s); j; j = j->next)
        if (write_waiting(j))
            compact(j);
}

void journals_sync(Store *s)
{
    for (Journal *j = first_journal(s); j; j = j->next) {
        if (j->unsynced && fsync(j->fd) != 0)
            store_say_some(s, SAY_JOURNAL, "KV store: cannot sync %s: %s", j->file,
                           strerror(errno));
        j->unsynced = false;
    }
}

void journals_close(Store *s)
{
    for (Journal *j = s->journals, *next; j; j = next) {
        next = j->next;
        journal_free(j);
    }
    s->journals = NULL;
}
