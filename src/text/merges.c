#include "merges.h"
#include <stdlib.h>

bool merges_init(Merges *t, size_t count, ds4_err *err)
{
    if (count > 1u << 28)
        return fail(err, DS4_EFORMAT, "vocabulary: %zu merges, at most %u", count, 1u << 28);
    size_t slots = 2;
    while (slots < 2 * count)
        slots *= 2;
    t->slot = malloc(slots * sizeof *t->slot);
    if (!t->slot)
        return fail(err, DS4_ENOMEM, "vocabulary: no memory for %zu merges", count);
    memset(t->slot, 0xff, slots * sizeof *t->slot);
    t->mask = (uint32_t)(slots - 1);
    return true;
}

void merges_release(Merges *t)
{
    free(t->slot);
    *t = (Merges){ 0 };
}

bool merges_add(Merges *t, Merge m)
{
    uint32_t i = merges_hash(m.left, m.right) & t->mask;
    for (; t->slot[i].left >= 0; i = (i + 1) & t->mask) {
        if (t->slot[i].left == m.left && t->slot[i].right == m.right)
            return false;
    }
    t->slot[i] = m;
    return true;
}
