/* ram.c - chunks in memory: the newest first, within a bound.
 *
 * What is on the disk as well goes first, the longest unused before others: it
 * costs only a read. Then ends of chains go by their value, and are lost. */
#include "store_parts.h"
#include <assert.h>
#include <stdlib.h>

uint64_t ram_bytes(const Entry *e)
{
    return (e->rows ? e->head.rows_bytes : 0) + (e->mark ? e->head.mark_bytes : 0) +
           (e->tokens ? (uint64_t)e->head.n * sizeof *e->tokens : 0);
}

void ram_out(Store *s, Entry *e)
{
    if (!e->in_ram)
        return;
    *(e->newer ? &e->newer->older : &s->newest) = e->older;
    *(e->older ? &e->older->newer : &s->oldest) = e->newer;
    e->newer = e->older = NULL;
    e->in_ram = false;
    s->count.ram_bytes -= ram_bytes(e);
    s->count.ram_chunks--;
}

void ram_in(Store *s, Entry *e)
{
    assert(!e->in_ram);
    if (!e->rows && !e->mark)
        return;
    e->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = e;
    s->newest = e;
    e->in_ram = true;
    s->count.ram_bytes += ram_bytes(e);
    s->count.ram_chunks++;
}

void ram_drop(Store *s, Entry *e)
{
    ram_out(s, e);
    free(e->rows);
    free(e->mark);
    free(e->tokens);
    e->rows = e->mark = NULL;
    e->tokens = NULL;
}

/* ---- what waits for the disk ----------------------------------------------------------- */

void ram_wait(Store *s, Entry *e, int64_t due_ns)
{
    e->waiting = true;
    e->due_ns = due_ns;
    e->next_waiting = NULL;
    *(s->last_waiting ? &s->last_waiting->next_waiting : &s->first_waiting) = e;
    s->last_waiting = e;
    s->count.waiting_chunks++;
    s->count.waiting_bytes += ram_bytes(e);
}

void ram_unwait(Store *s, Entry *e)
{
    Entry *before = NULL, **from = &s->first_waiting;

    if (!e->waiting)
        return;
    while (*from != e) {
        before = *from;
        from = &before->next_waiting;
    }
    *from = e->next_waiting;
    if (s->last_waiting == e)
        s->last_waiting = before;
    e->waiting = false;
    s->count.waiting_chunks--;
    s->count.waiting_bytes -= ram_bytes(e);
}

/* ---- room ------------------------------------------------------------------------------ */

static Entry *oldest_copy(const Store *s)
{
    for (Entry *e = s->oldest; e; e = e->newer)
        if (e->on_disk && !e->holds)
            return e;
    return NULL;
}

static Entry *least_valuable(const Store *s)
{
    const int64_t now = store_now();
    Entry *least = NULL;
    double worth = 0;

    for (Entry *e = s->oldest; e; e = e->newer) {
        if (e->on_disk || e->holds || e->pins || e->busy || !table_is_leaf(e))
            continue;
        const double v = value_of(&e->head, &e->use, ram_bytes(e), now);
        if (!least || v < worth) {
            least = e;
            worth = v;
        }
    }
    return least;
}

bool ram_make_room(Store *s, uint64_t bytes)
{
    while (s->count.ram_bytes + bytes > s->ram_limit) {
        Entry *e = oldest_copy(s);
        if (e) {
            ram_drop(s, e);
            continue;
        }
        if (!(e = least_valuable(s)))
            return false;
        *(e->waiting ? &s->count.dropped : &s->count.evicted_ram) += 1;
        if (e->waiting)
            pthread_cond_signal(&s->write_wake); /* it tells */
        store_end_entry(s, e);
    }
    return true;
}
