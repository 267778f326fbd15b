/* index.c - linear probing. With half of the slots free and a fair hash, the
 * longest run among 2^18 names is some dozens; names made to collide are
 * refused at MAX_PROBES instead of taking quadratic time. */
#include "index.h"

enum { MAX_PROBES = 1024 };

static size_t hash(Str s)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, then a final mix */
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    h = (h ^ (h >> 32)) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ (h >> 29));
}

bool index_init(uint32_t **slots, size_t *n_slots, size_t n, Arena *a)
{
    size_t size = 8;
    while (size < 2 * n)
        size *= 2;
    *slots = arena_array(a, size, sizeof **slots);
    *n_slots = size;
    return *slots != NULL;
}

/* The slot that holds s or, if none does, the free one for it. INDEX_NONE: too far. */
static size_t probe(const uint32_t *slots, size_t n_slots, IndexName name, const void *table, Str s)
{
    size_t at = hash(s);
    for (int i = 0; i < MAX_PROBES; i++, at++) {
        size_t slot = at & (n_slots - 1);
        if (slots[slot] == 0 || str_eq(name(table, slots[slot] - 1), s))
            return slot;
    }
    return INDEX_NONE;
}

size_t index_find(const uint32_t *slots, size_t n_slots, IndexName name, const void *table, Str s)
{
    if (n_slots == 0)
        return INDEX_NONE;
    size_t slot = probe(slots, n_slots, name, table, s);
    return slot != INDEX_NONE && slots[slot] ? slots[slot] - 1 : INDEX_NONE;
}

bool index_add(uint32_t *slots, size_t n_slots, IndexName name, const void *table, Str s,
               size_t *at)
{
    size_t slot = probe(slots, n_slots, name, table, s);
    if (slot == INDEX_NONE)
        return false;
    if (slots[slot])
        *at = slots[slot] - 1;
    else
        slots[slot] = (uint32_t)*at + 1;
    return true;
}
