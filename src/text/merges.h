/* merges.h - the merge rules of a byte-level BPE, found by pair of token ids. */
#ifndef MERGES_H
#define MERGES_H
#include "../base/base.h"

/* left and right become result; the lowest rank merges first. */
typedef struct {
    int32_t left, right, rank, result;
} Merge;

/* Open addressing, at most half full; an empty slot has left -1. */
typedef struct {
    Merge *slot;
    uint32_t mask;
} Merges;

bool merges_init(Merges *t, size_t count, ds4_err *err); /* room for count rules */
void merges_release(Merges *t);
/* False when the pair has a rule already. */
bool merges_add(Merges *t, Merge m);

static inline uint32_t merges_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

/* NULL: the pair does not merge. */
static inline const Merge *merges_find(const Merges *t, int32_t left, int32_t right)
{
    for (uint32_t i = merges_hash(left, right) & t->mask; t->slot[i].left >= 0;
         i = (i + 1) & t->mask) {
        if (t->slot[i].left == left && t->slot[i].right == right)
            return &t->slot[i];
    }
    return NULL;
}

#endif
