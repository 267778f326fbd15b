/* fetch.c - chunks from memory and, by the reader's thread, from the disk.
 *
 * Rows come in order and a few chunks ahead; only the last chunk's mark is read.
 * Where a chunk cannot be had the fetch ends before it, and the mark of the
 * chunk before is looked for instead, and so on. */
#include "store_parts.h"
#include <stdlib.h>

enum { AHEAD = 3 }; /* chunks in memory that nobody has taken yet */

/* ---- progress ------------------------------------------------------------------------ */

/* Chunk i cannot be had, nor what goes on from it. */
static void lose(StoreFetch *f, size_t i)
{
    for (size_t k = MAX(i, f->at); k < f->ready; k++)
        store_let_go(f->s, f->chain->entry[k]);
    f->ready = MIN(f->ready, MAX(i, f->at));
    f->end = i;
    f->damaged = true;
}

static void hold(Store *s, Entry *e)
{
    e->holds++;
    ram_out(s, e);
    ram_in(s, e); /* the newest now */
}

static bool wants_rows(const StoreFetch *f)
{
    return f->ready < f->end && f->ready - f->at < AHEAD;
}

static bool wants_mark(const StoreFetch *f) { return f->ready >= f->end && f->end > 0 && !f->mark; }

/* What can be done without a disk. */
static void advance(StoreFetch *f)
{
    Entry **entry = f->chain->entry;

    while (wants_rows(f)) {
        Entry *e = entry[f->ready];
        if (e->known && e->rows) {
            hold(f->s, e);
            f->s->count.ram_hits += !f->from_disk[f->ready];
            f->ready++;
        } else if (e->known && e->on_disk) {
            return;
        } else {
            lose(f, f->ready);
        }
    }
    while (wants_mark(f)) {
        Entry *e = entry[f->end - 1];
        if (e->known && e->mark) {
            hold(f->s, e);
            f->mark = e;
        } else if (e->known && e->on_disk) {
            return;
        } else {
            lose(f, f->end - 1);
        }
    }
}

/* ---- the reader's thread ---------------------------------------------------------------- */

typedef struct {
    StoreFetch *f;
    size_t i;
    ChunkHead head;
    bool want_rows, want_mark;
    void *rows, *mark;
    uint64_t bytes;
    int64_t ns;
    ChunkFault fault;
    ds4_err why;
} Read;

static bool next_read(Store *s, Read *r)
{
    for (StoreFetch *f = s->fetches; f; f = f->next) {
        advance(f);
        if (!wants_rows(f) && !wants_mark(f))
            continue;
        const size_t i = wants_rows(f) ? f->ready : f->end - 1;
        const Entry *e = f->chain->entry[i];
        *r = (Read){ .f = f,
                     .i = i,
                     .head = e->head,
                     .want_rows = wants_rows(f),
                     .want_mark = i + 1 == f->end && !e->mark };
        return true;
    }
    return false;
}

/* Without the lock. */
static void read_chunk(Store *s, Read *r)
{
    const int64_t begin = clock_ns();
    r->fault = folder_read_chunk(&s->folder, &r->head, r->f->chain->tokens + r->head.first,
                                 r->want_rows ? &r->rows : NULL, r->want_mark ? &r->mark : NULL,
                                 &r->bytes, &r->why);
    r->ns = clock_ns() - begin;
}

static void keep(Store *s, Entry *e, Read *r)
{
    e->holds++; /* others make room, not this one; if none can, it is for a moment */
    ram_make_room(s, r->bytes);
    ram_out(s, e);
    if (!e->rows) {
        e->rows = r->rows;
        r->rows = NULL;
    }
    if (!e->mark) {
        e->mark = r->mark;
        r->mark = NULL;
    }
    ram_in(s, e);
    store_let_go(s, e);
}

static void give_up(Store *s, Entry *e, Read *r)
{
    store_count_fault(s, r->fault);
    if (e->known && e->on_disk && r->why.code != DS4_ENOMEM) {
        if (r->fault == CHUNK_UNREADABLE) { /* it stays there; a new one may replace it */
            s->count.disk_bytes -= e->file_bytes;
            s->count.disk_chunks--;
            s->count.foreign_bytes += e->file_bytes;
            e->on_disk = false;
        }
        store_end_entry(s, e);
    }
    lose(r->f, r->i);
}

static void take_in(Store *s, Read *r)
{
    Entry *e = r->f->chain->entry[r->i];

    s->count.read_bytes += r->bytes;
    s->count.read_ns += (uint64_t)r->ns;
    if (r->fault == CHUNK_OK && e->known) {
        s->count.read_files++;
        s->count.disk_hits += r->want_rows;
        r->f->from_disk[r->i] = true;
        keep(s, e, r);
    } else if (r->fault != CHUNK_OK && !r->f->closed) {
        give_up(s, e, r);
    }
    free(r->rows);
    free(r->mark);
}

static void fetch_free(StoreFetch *f)
{
    store_chain_release(f->s, f->chain);
    free(f);
}

static void say_bad(Store *s, const Read *r)
{
    char hex[41];

    name_hex(&r->head.name, hex);
    if (r->fault == CHUNK_OK)
        return;
    if (r->fault == CHUNK_GONE)
        store_say_some(s, SAY_GONE, "KV store: %s.kv, tokens %d to %d, was removed by somebody",
                       hex, r->head.first, r->head.first + r->head.n);
    else
        store_say_some(s, SAY_BAD, "KV store: %s%s.kv, tokens %d to %d: %s",
                       r->fault == CHUNK_UNREADABLE || !s->folder.writable ? "" : "removed ", hex,
                       r->head.first, r->head.first + r->head.n, r->why.msg);
}

void *store_reader(void *store)
{
    Store *s = store;
    Read r;

    pthread_mutex_lock(&s->lock);
    while (!s->closing) {
        if (!next_read(s, &r)) {
            pthread_cond_wait(&s->read_wake, &s->lock);
            continue;
        }
        r.f->busy = true;
        pthread_mutex_unlock(&s->lock);
        read_chunk(s, &r);
        say_bad(s, &r);
        pthread_mutex_lock(&s->lock);
        take_in(s, &r);
        r.f->busy = false;
        if (r.f->closed)
            fetch_free(r.f);
        else
            advance(r.f);
        pthread_mutex_unlock(&s->lock);
        /* Also where this fetch was closed: others may have waited for the same chunk. */
        if (s->opt.ready)
            s->opt.ready(s->opt.user);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- for the caller ---------------------------------------------------------------------- */

StoreFetch *store_fetch(Store *s, const StoreFound *found, int from)
{
    StoreChain *c = found->chain;
    StoreFetch *f = c ? calloc(1, sizeof *f + c->n * sizeof *f->from_disk) : NULL;

    if (!f)
        return NULL;
    pthread_mutex_lock(&s->lock);
    f->s = s;
    f->chain = c;
    f->end = c->n;
    f->at = f->ready = from >= found->n ? c->n : (size_t)(MAX(from, 0) / STORE_CHUNK);
    c->refs++;
    store_touch(s, c->entry[c->n - 1]);
    for (size_t i = 0; i < c->n; i++)
        c->entry[i]->use.hits++;
    f->next = s->fetches;
    s->fetches = f;
    pthread_cond_signal(&s->read_wake);
    pthread_mutex_unlock(&s->lock);
    return f;
}

static StoreNext next_piece(StoreFetch *f, StorePiece *out)
{
    Entry **entry = f->chain->entry;

    advance(f);
    if (f->at < f->ready) {
        const Entry *e = f->given = entry[f->at];
        *out = (StorePiece){ .first = e->head.first,
                             .last = e->head.first + e->head.n,
                             .rows = e->rows,
                             .from_ram = !f->from_disk[f->at] };
        f->at++;
        return STORE_ROWS;
    }
    if (f->at < f->end || (f->end > 0 && !f->mark))
        return STORE_WAIT;
    *out = (StorePiece){ .damaged = f->damaged };
    if (f->end > 0) {
        out->first = f->mark->head.first;
        out->last = f->mark->head.first + f->mark->head.n;
        out->mark = f->mark->mark;
        out->from_ram = !f->from_disk[f->end - 1];
    }
    return STORE_END;
}

StoreNext store_next(StoreFetch *f, StorePiece *out)
{
    Store *s = f->s;

    *out = (StorePiece){ 0 };
    pthread_mutex_lock(&s->lock);
    if (f->given)
        store_let_go(s, f->given);
    f->given = NULL;
    const StoreNext next = next_piece(f, out);
    if (next != STORE_END)
        pthread_cond_signal(&s->read_wake);
    pthread_mutex_unlock(&s->lock);
    return next;
}

void store_fetch_close(StoreFetch *f)
{
    if (!f)
        return;
    Store *s = f->s;
    pthread_mutex_lock(&s->lock);
    for (size_t k = f->at; k < f->ready; k++)
        store_let_go(s, f->chain->entry[k]);
    if (f->given)
        store_let_go(s, f->given);
    if (f->mark)
        store_let_go(s, f->mark);
    StoreFetch **from = &s->fetches;
    while (*from != f)
        from = &(*from)->next;
    *from = f->next;
    f->closed = true;
    f->at = f->ready = f->end = 0;
    if (!f->busy)
        fetch_free(f);
    pthread_mutex_unlock(&s->lock);
}
