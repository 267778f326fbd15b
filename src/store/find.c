/* find.c - the longest beginning that is there, and keeping it there: pinned for one that
 * reads it, reserved for one that waits. */
#include "store_parts.h"
#include <stdlib.h>

/* The chunks that hold the longest beginning; how many. */
static size_t walk(Store *s, const int32_t *tokens, int n, Entry **out)
{
    Entry *at = &s->table.root;
    size_t found = 0;
    int done = 0;
    ChunkName name;

    for (; n - done >= STORE_CHUNK; done += STORE_CHUNK) {
        if (!name_of(&name, &at->head.name, &s->model, tokens + done, STORE_CHUNK))
            return found;
        Entry *e = table_find(&s->table, &name);
        if (!e || !e->known)
            break;
        out[found++] = at = e;
    }
    const uint32_t tails = store_tails(at);
    for (int k = MIN((n - done) / STORE_UNIT, STORE_CHUNK / STORE_UNIT - 1); k > 0; k--) {
        if (!(tails >> k & 1) ||
            !name_of(&name, &at->head.name, &s->model, tokens + done, k * STORE_UNIT))
            continue;
        Entry *e = table_find(&s->table, &name);
        if (e && e->known) {
            out[found++] = e;
            break;
        }
    }
    return found;
}

static StoreChain *chain_new(const int32_t *tokens, int n)
{
    const size_t most = (size_t)n / STORE_CHUNK + 1;
    StoreChain *c = calloc(1, sizeof *c + most * sizeof(Entry *));
    int32_t *copy = c ? malloc(MAX((size_t)n, (size_t)1) * sizeof *copy) : NULL;

    if (!copy) {
        free(c);
        return NULL;
    }
    if (n)
        memcpy(copy, tokens, (size_t)n * sizeof *copy);
    c->tokens = copy;
    c->refs = 1;
    return c;
}

static uint64_t chunk_bytes(const ChunkHead *h)
{
    return h->rows_bytes + h->mark_bytes + (uint64_t)h->n * sizeof(int32_t);
}

void store_chain_release(Store *s, StoreChain *c)
{
    if (--c->refs > 0)
        return;
    for (size_t i = 0; i < c->n; i++) {
        if (c->reserved && --c->entry[i]->reserved == 0)
            s->count.reserved_bytes -= chunk_bytes(&c->entry[i]->head);
        c->entry[i]->pins--;
        table_tidy(&s->table, c->entry[i]);
    }
    free(c->tokens);
    free(c);
}

static uint64_t room(const Store *s)
{
    if (!s->folder.writable)
        return s->ram_limit;
    return s->opt.disk_bytes ? s->opt.disk_bytes : UINT64_MAX;
}

uint64_t store_room(Store *s)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t bytes = room(s);
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

/* As much of the chain from its beginning on as there is room for: an end is no use without
 * what is before it. */
static void reserve(Store *s, StoreChain *c)
{
    size_t n = 0;

    for (; n < c->n; n++) {
        Entry *e = c->entry[n];
        const uint64_t bytes = e->reserved ? 0 : chunk_bytes(&e->head);
        if (s->count.reserved_bytes + bytes > room(s) / 2)
            break;
        s->count.reserved_bytes += bytes;
        e->reserved++;
    }
    c->n = n;
    c->reserved = true;
}

static int find(Store *s, const int32_t *tokens, int n, bool waits, StoreFound *out)
{
    StoreChain *c = n >= STORE_UNIT ? chain_new(tokens, n) : NULL;
    int whole = 0;

    *out = (StoreFound){ 0 };
    if (!c)
        return 0;
    pthread_mutex_lock(&s->lock);
    c->n = s->bound ? walk(s, c->tokens, n, c->entry) : 0;
    for (size_t i = 0; i < c->n; i++)
        whole += c->entry[i]->head.n;
    if (waits)
        reserve(s, c);
    for (size_t i = 0; i < c->n; i++) {
        Entry *e = c->entry[i];
        e->pins++;
        out->n += e->head.n;
        out->in_ram += e->rows ? e->head.n : 0;
        out->bytes += e->head.rows_bytes + (i + 1 == c->n ? e->head.mark_bytes : 0);
    }
    c->n_tokens = out->n;
    if (!waits) { /* who waits looks again and again: it counts when its turn has come */
        s->count.finds++;
        s->count.found += whole > 0;
        s->count.found_tokens += (uint64_t)whole;
    }
    if (out->n)
        out->chain = c;
    else
        store_chain_release(s, c);
    pthread_mutex_unlock(&s->lock);
    return whole;
}

int store_find(Store *s, const int32_t *tokens, int n, StoreFound *out)
{
    return find(s, tokens, n, false, out);
}

int store_reserve(Store *s, const int32_t *tokens, int n, StoreFound *out)
{
    return find(s, tokens, n, true, out);
}

void store_unpin(Store *s, StoreFound *f)
{
    if (f->chain) {
        pthread_mutex_lock(&s->lock);
        store_chain_release(s, f->chain);
        pthread_mutex_unlock(&s->lock);
    }
    *f = (StoreFound){ 0 };
}

bool store_has(Store *s, const int32_t *tokens, int n)
{
    ChunkName parent, name;
    bool known = false;

    if (n <= 0 || n % STORE_UNIT)
        return false;
    pthread_mutex_lock(&s->lock);
    if (s->bound && store_name_at(&s->model, tokens, n, &parent, &name)) {
        Entry *e = table_find(&s->table, &name);
        known = e && e->known;
        if (known)
            store_touch(s, e);
    }
    pthread_mutex_unlock(&s->lock);
    return known;
}
