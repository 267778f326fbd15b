/* index.h - names to places in a table: open addressing over 32-bit slots,
 * place + 1, 0 for empty, at most half full. */
#ifndef INDEX_H
#define INDEX_H
#include "../base/arena.h"

#define INDEX_NONE SIZE_MAX

typedef Str (*IndexName)(const void *table, size_t i);

/* Room for n names; false: no memory. */
bool index_init(uint32_t **slots, size_t *n_slots, size_t n, Arena *a);
/* The place of a name, or INDEX_NONE. */
size_t index_find(const uint32_t *slots, size_t n_slots, IndexName name, const void *table, Str s);
/* Note that s is at *at, unless it is known: then *at becomes its place. False
 * when the table was filled with names made to collide. */
bool index_add(uint32_t *slots, size_t n_slots, IndexName name, const void *table, Str s,
               size_t *at);

#endif
