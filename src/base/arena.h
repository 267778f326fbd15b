/* arena.h - memory that is released all at once. Zero is an empty arena. */
#ifndef ARENA_H
#define ARENA_H
#include "base.h"

typedef struct ArenaBlock ArenaBlock;
typedef struct {
    ArenaBlock *block;
    size_t used, limit; /* limit 0: none; else the most bytes it gives out */
    bool no_memory;     /* something was refused, and not for the limit */
} Arena;

/* n zeroed bytes aligned for anything; NULL when memory or the limit is
 * exhausted. n 0 gives a valid pointer. */
void *arena_alloc(Arena *a, size_t n);
void *arena_array(Arena *a, size_t count, size_t size); /* checks the product */
char *arena_str(Arena *a, Str s);                       /* a terminated copy */
void arena_release(Arena *a);

#endif
