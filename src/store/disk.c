/* disk.c - the directory's budget: all that lies in it counts, and what is
 * removed is always an end of a chain, the least valuable first. */
#include "store_parts.h"
#include <stdlib.h>

uint64_t disk_used(const Store *s)
{
    return s->count.disk_bytes + s->count.journal_bytes + s->count.foreign_bytes;
}

/* Without a place to note it the file stays until the next start finds it. */
void disk_remove_later(Store *s, const ChunkName *name)
{
    if (!s->folder.writable)
        return;
    if (s->n_gone == s->cap_gone) {
        const size_t cap = s->cap_gone ? s->cap_gone * 2 : 64;
        ChunkName *p = realloc(s->gone, cap * sizeof *p);
        if (!p)
            return;
        s->gone = p;
        s->cap_gone = cap;
    }
    s->gone[s->n_gone++] = *name;
    s->count.removing++;
    pthread_cond_signal(&s->write_wake);
}

/* Nothing on the disk, or on its way there, goes on from it. */
static bool is_end(const Entry *e)
{
    for (const Entry *c = e->child; c; c = c->sibling)
        if (c->on_disk || c->waiting || c->busy || !is_end(c))
            return false;
    return true;
}

/* Without what is before it a chunk spares nothing, until that is written again. */
static double worth_of(const Store *s, const Entry *e, int64_t now)
{
    const double v = value_of(&e->head, &e->use, e->file_bytes, now);
    for (const Entry *p = e->parent; p != &s->table.root; p = p->parent)
        if (!p->known)
            return v / 8;
    return v;
}

static Entry *least_valuable(Store *s)
{
    const int64_t now = store_now();
    Entry *least = NULL;
    double worth = 0;

    for (Entry *e = &s->table.root; e; e = table_next(&s->table.root, e)) {
        if (!e->on_disk || e->pins || e->busy || name_eq(&e->head.name, &s->just_written) ||
            !is_end(e))
            continue;
        const double v = worth_of(s, e, now);
        if (!least || v < worth) {
            least = e;
            worth = v;
        }
    }
    return least;
}

bool disk_make_room(Store *s, uint64_t bytes)
{
    if (!s->opt.disk_bytes)
        return true;
    while (disk_used(s) + bytes > s->opt.disk_bytes) {
        Entry *e = least_valuable(s);
        if (!e)
            return false;
        s->count.evicted_disk++;
        store_end_entry(s, e);
    }
    return true;
}
