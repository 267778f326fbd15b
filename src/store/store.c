/* store.c - opening, putting, closing. Bytes are moved by fetch.c and
 * writer.c. */
#include "store.h"
#include "store_parts.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int64_t store_now(void) { return (int64_t)time(NULL); }

/* ---- entries ------------------------------------------------------------------------- */

bool store_name_at(const ChunkModel *m, const int32_t *tokens, int n, ChunkName *parent,
                   ChunkName *name)
{
    *name = (ChunkName){ 0 };
    for (int at = 0; at < n; at += STORE_CHUNK) {
        *parent = *name;
        if (!name_of(name, parent, m, tokens + at, MIN(n - at, STORE_CHUNK)))
            return false;
    }
    return true;
}

/* So much later uses are written into the files. */
#define USE_DELAY_NS ((int64_t)60 * 1000000000)

/* A chunk that could not be written is tried again when it is used. */
static void wait_again(Store *s, Entry *e)
{
    if (!s->folder.writable || e->on_disk || e->waiting || e->busy || !e->known || !e->rows ||
        !e->mark || !e->tokens)
        return;
    ram_wait(s, e, clock_ns() + USE_DELAY_NS);
    pthread_cond_signal(&s->write_wake);
}

/* Whoever uses a chunk uses all before it. */
void store_touch(Store *s, Entry *e)
{
    const int64_t now = store_now();

    for (; e && e != &s->table.root; e = e->parent) {
        value_touch(&e->use, now);
        e->use_changed = e->on_disk;
        wait_again(s, e);
    }
    if (!s->use_due_ns && s->folder.writable) {
        s->use_due_ns = clock_ns() + USE_DELAY_NS;
        pthread_cond_signal(&s->write_wake);
    }
}

void store_end_entry(Store *s, Entry *e)
{
    if (e->busy) { /* nobody finds it any more; the writer ends it when it has finished */
        e->doomed = true;
        e->known = false;
        return;
    }
    ram_unwait(s, e);
    if (e->on_disk) {
        s->count.disk_bytes -= e->file_bytes;
        s->count.disk_chunks--;
        disk_remove_later(s, &e->head.name);
    }
    e->on_disk = e->known = false;
    if (!e->holds) {
        ram_drop(s, e);
        table_forget(&s->table, e);
    }
}

void store_let_go(Store *s, Entry *e)
{
    if (--e->holds == 0 && !e->known) {
        ram_drop(s, e);
        table_forget(&s->table, e);
    }
}

uint32_t store_tails(const Entry *parent)
{
    uint32_t tails = 0;
    for (const Entry *e = parent ? parent->child : NULL; e; e = e->sibling)
        if (e->known && table_is_tail(e))
            tails |= 1u << (e->head.n / STORE_UNIT);
    return tails;
}

/* The known tail of the first k units of e's tokens, if there is one. */
static Entry *shorter_tail(const Store *s, const Entry *e, int k)
{
    ChunkName name;

    if (!name_of(&name, &e->head.parent, &e->head.model, e->tokens, k * STORE_UNIT))
        return NULL;
    Entry *tail = table_find(&s->table, &name);
    return tail && tail->known ? tail : NULL;
}

void store_supersede(Store *s, Entry *e, bool on_disk)
{
    const uint32_t tails = store_tails(e->parent);

    for (int k = 1; k < e->head.n / STORE_UNIT; k++) {
        Entry *tail = tails >> k & 1 ? shorter_tail(s, e, k) : NULL;
        if (!tail || tail->pins || tail->busy || (tail->on_disk && !on_disk))
            continue;
        s->count.superseded++;
        store_end_entry(s, tail);
    }
}

/* How long a chunk may wait for a longer one. Each tail is written with its mark, which is as
 * large as the rows of 1,150 tokens, so one that adds little to what is on the disk costs more
 * than it may spare. */
static int64_t patience_ns(const Store *s, const Entry *e)
{
    const int64_t tail_ns = s->opt.tail_s * (int64_t)1000000000;
    const uint32_t tails = store_tails(e->parent);
    const int n = e->head.n / STORE_UNIT, little = STORE_CHUNK / STORE_UNIT / 2;

    if (!table_is_tail(e))
        return 0;
    if (n < little)
        return 10 * tail_ns;
    for (int k = n - 1; k > n - little; k--) {
        const Entry *tail = tails >> k & 1 ? shorter_tail(s, e, k) : NULL;
        if (tail && (tail->on_disk || tail->busy))
            return 10 * tail_ns;
    }
    return tail_ns;
}

/* ---- putting ------------------------------------------------------------------------- */

static bool make_head(const Store *s, const StorePut *p, ChunkHead *h)
{
    const int n = p->last - p->first;

    if (!s->bound || p->first < 0 || p->first >= STORE_MOST || p->first % STORE_CHUNK || n <= 0 ||
        n > STORE_CHUNK || n % STORE_UNIT || !p->rows || !p->mark)
        return false;
    *h = (ChunkHead){ .model = s->model,
                      .first = p->first,
                      .n = n,
                      .rows_bytes = s->unit_bytes * (uint64_t)(n / STORE_UNIT),
                      .mark_bytes = s->mark_bytes,
                      .created_s = store_now() };
    return store_name_at(&s->model, p->tokens, p->last, &h->parent, &h->name);
}

/* A chunk that is not known yet, in memory and in the writer's queue. */
static bool add_new(Store *s, const ChunkHead *h, const StorePut *p, int32_t *tokens)
{
    Entry *e = table_add(&s->table, h);

    if (!e)
        return false;
    assert(!e->in_ram);
    memcpy(tokens, p->tokens + p->first, (size_t)h->n * sizeof *tokens);
    e->tokens = tokens;
    e->rows = p->rows;
    e->mark = p->mark;
    e->use = (ChunkUse){ 0 };
    value_touch(&e->use, h->created_s);
    store_supersede(s, e, !s->folder.writable);
    e->holds++; /* the others make room, not this one */
    const bool room = ram_make_room(s, ram_bytes(e));
    e->holds--;
    ram_in(s, e);
    if (!room) {
        s->count.dropped++;
        pthread_cond_signal(&s->write_wake); /* it tells */
        store_end_entry(s, e);
        return true; /* which freed it */
    }
    if (s->folder.writable) {
        ram_wait(s, e, clock_ns() + patience_ns(s, e));
        pthread_cond_signal(&s->write_wake);
    }
    return true;
}

bool store_put(Store *s, const StorePut *p)
{
    ChunkHead h;
    int32_t *tokens = NULL;
    bool owned = false, known = false;

    pthread_mutex_lock(&s->lock);
    s->count.puts++;
    if (make_head(s, p, &h)) {
        Entry *e = table_find(&s->table, &h.name);
        known = e && e->known;
        if (known) {
            s->count.puts_known++;
            store_touch(s, e);
        } else if (!(e && e->holds) && (tokens = malloc((size_t)h.n * sizeof *tokens))) {
            owned = add_new(s, &h, p, tokens);
            e = table_find(&s->table, &h.name);
            known = e && e->known;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (!owned) {
        free(tokens);
        free(p->rows);
        free(p->mark);
    }
    return known;
}

/* ---- opening ------------------------------------------------------------------------- */

static void take_chunk(Store *s, const FolderFile *f)
{
    Entry *e = table_add(&s->table, &f->head);

    if (!e) { /* no memory, or a place where no chunk can be */
        s->count.foreign_bytes += f->bytes;
        return;
    }
    e->on_disk = true;
    e->file_bytes = f->bytes;
    e->use = f->use;
    s->count.disk_bytes += f->bytes;
    s->count.disk_chunks++;
}

static void take_bad(Store *s, const FolderFile *f)
{
    ChunkName name;

    store_count_fault(s, f->fault);
    if (f->fault == CHUNK_GONE)
        return;
    const bool removed = f->fault != CHUNK_UNREADABLE && s->folder.writable &&
                         name_read(&name, f->file, 40) && folder_remove_chunk(&s->folder, &name);
    store_say_some(s, SAY_BAD, "KV store: %s%s: %s", removed ? "removed " : "", f->file, f->why);
    if (!removed)
        s->count.foreign_bytes += f->bytes;
}

static void take_leftover(Store *s, const FolderFile *f)
{
    char path[FOLDER_PATH];

    if (s->folder.writable && folder_path(&s->folder, f->file, path) && remove(path) == 0)
        s->count.leftovers++;
    else
        s->count.foreign_bytes += f->bytes;
}

/* Of each file when the store is opened. */
static void take(void *user, const FolderFile *f)
{
    Store *s = user;

    switch (f->kind) {
    case FOLDER_CHUNK: take_chunk(s, f); break;
    case FOLDER_BAD: take_bad(s, f); break;
    case FOLDER_LEFTOVER: take_leftover(s, f); break;
    case FOLDER_JOURNAL: s->count.journal_bytes += f->bytes; break;
    case FOLDER_OURS: break;
    case FOLDER_FOREIGN:
        s->count.foreign_bytes += f->bytes;
        s->count.foreign_files++;
        break;
    }
}

static void tell_opened(Store *s)
{
    const StoreCounters *c = &s->count;

    if (!s->folder.writable)
        store_say(s, "KV store: %s cannot be written: what is there is used, nothing is added",
                  s->folder.dir);
    if (c->leftovers)
        store_say(s, "KV store: removed %llu half-written files of a run that was ended",
                  (unsigned long long)c->leftovers);
    if (c->foreign_files)
        store_say(s,
                  "KV store: %llu files in %s are not the store's: %llu MB of its budget, and "
                  "left alone",
                  (unsigned long long)c->foreign_files, s->folder.dir,
                  (unsigned long long)(c->foreign_bytes >> 20));
    if (s->opt.disk_bytes && c->foreign_bytes >= s->opt.disk_bytes)
        store_say(s, "KV store: they fill its budget: nothing can be written");
}

static bool open_folder(Store *s, ds4_err *err)
{
    if (!s->opt.dir)
        return true;
    s->has_dir = true;
    if (!folder_open(&s->folder, s->opt.dir, true, err) || !folder_scan(&s->folder, take, s, err))
        return false;
    s->opt.dir = s->folder.dir;
    tell_opened(s);
    pthread_mutex_lock(&s->lock);
    if (s->folder.writable)
        disk_make_room(s, 0);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static bool start_threads(Store *s, ds4_err *err)
{
    if (!s->has_dir)
        return true;
    s->has_reader = pthread_create(&s->reader, NULL, store_reader, s) == 0;
    s->has_writer = s->has_reader && pthread_create(&s->writer, NULL, store_writer, s) == 0;
    return s->has_writer || fail(err, DS4_ENOMEM, "no thread for the KV store");
}

Store *store_open(const StoreOptions *opt, ds4_err *err)
{
    Store *s = calloc(1, sizeof *s);

    if (!s || !table_init(&s->table)) {
        free(s);
        fail(err, DS4_ENOMEM, "no memory for the KV store");
        return NULL;
    }
    s->opt = *opt;
    s->folder.lock = -1;
    s->ram_limit = opt->ram_bytes;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->say_lock, NULL);
    pthread_cond_init(&s->read_wake, NULL);
    pthread_cond_init(&s->write_wake, NULL);
    if (!open_folder(s, err) || !start_threads(s, err)) {
        store_close(s, 0);
        return NULL;
    }
    return s;
}

void store_bind(Store *s, const StoreModel *m)
{
    pthread_mutex_lock(&s->lock);
    memcpy(s->model.fingerprint, m->fingerprint, sizeof s->model.fingerprint);
    s->model.numerics = (uint32_t)DS4_STATE_VERSION | (m->rounded ? 1u << 31 : 0);
    s->unit_bytes = m->unit_bytes;
    s->mark_bytes = m->mark_bytes;
    const uint64_t chunk =
        m->unit_bytes * (STORE_CHUNK / STORE_UNIT) + m->mark_bytes + STORE_CHUNK * sizeof(int32_t);
    s->ram_limit = MAX(s->opt.ram_bytes, 4 * chunk);
    s->bound = true;
    pthread_mutex_unlock(&s->lock);
}

/* ---- closing ------------------------------------------------------------------------- */

size_t store_close(Store *s, int64_t deadline_ns)
{
    if (!s)
        return 0;
    pthread_mutex_lock(&s->lock);
    assert(!s->fetches);
    s->closing = true;
    s->deadline_ns = deadline_ns;
    pthread_cond_broadcast(&s->read_wake);
    pthread_cond_broadcast(&s->write_wake);
    pthread_mutex_unlock(&s->lock);
    if (s->has_reader)
        pthread_join(s->reader, NULL);
    if (s->has_writer)
        pthread_join(s->writer, NULL);
    const size_t lost = (size_t)s->count.waiting_chunks;
    if (lost)
        store_say(s, "KV store: %zu chunks (%llu MB) were not written in time", lost,
                  (unsigned long long)(s->count.waiting_bytes >> 20));
    journals_close(s);
    table_release(&s->table);
    folder_close(&s->folder);
    free(s->gone);
    pthread_cond_destroy(&s->write_wake);
    pthread_cond_destroy(&s->read_wake);
    pthread_mutex_destroy(&s->say_lock);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return lost;
}

bool store_secret(Store *s, uint8_t out[32], ds4_err *err)
{
    return folder_secret(&s->folder, out, err);
}
