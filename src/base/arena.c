/* arena.c - blocks in a list, the newest first; what does not fit in it gets
 * a block of its own size or of 16 KiB, whichever is more. */
#include "arena.h"
#include <stddef.h>
#include <stdlib.h>

enum { ALIGN = _Alignof(max_align_t), BLOCK = 16384 };

struct ArenaBlock {
    ArenaBlock *next;
    size_t used, size;
    _Alignas(ALIGN) unsigned char data[];
};

static ArenaBlock *block_new(ArenaBlock *next, size_t need)
{
    size_t size = MAX(need, (size_t)BLOCK - sizeof(ArenaBlock));
    if (size > SIZE_MAX - sizeof(ArenaBlock))
        return NULL;
    ArenaBlock *b = calloc(1, sizeof *b + size);
    if (b) {
        b->next = next;
        b->size = size;
    }
    return b;
}

void *arena_alloc(Arena *a, size_t n)
{
    if (n > SIZE_MAX - ALIGN)
        return NULL;
    size_t need = MAX((n + ALIGN - 1) / ALIGN * ALIGN, (size_t)ALIGN);
    if (a->limit && (a->used > a->limit || need > a->limit - a->used))
        return NULL;
    if (!a->block || need > a->block->size - a->block->used) {
        ArenaBlock *b = block_new(a->block, need);
        a->no_memory |= !b;
        if (!b)
            return NULL;
        a->block = b;
    }
    void *p = a->block->data + a->block->used;
    a->block->used += need;
    a->used += need;
    return p;
}

void *arena_array(Arena *a, size_t count, size_t size)
{
    size_t n;
    return __builtin_mul_overflow(count, size, &n) ? NULL : arena_alloc(a, n);
}

char *arena_str(Arena *a, Str s)
{
    if (s.n == SIZE_MAX)
        return NULL;
    char *p = arena_alloc(a, s.n + 1);
    if (p && s.n)
        memcpy(p, s.p, s.n);
    return p;
}

void arena_release(Arena *a)
{
    for (ArenaBlock *b = a->block; b;) {
        ArenaBlock *next = b->next;
        free(b);
        b = next;
    }
    *a = (Arena){ .limit = a->limit };
}
