/* ranges.c - sets of characters, and their spelling in UTF-8. */
#include "ranges.h"
#include <stdlib.h>

enum { MAX_RANGES = 4096 };
#define LAST_CHAR 0x10ffffu

void ranges_release(Ranges *r)
{
    free(r->range);
    *r = (Ranges){ 0 };
}

void ranges_add(Ranges *r, uint32_t lo, uint32_t hi)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 16;
        Range *more = cap > MAX_RANGES ? NULL : realloc(r->range, cap * sizeof *more);
        if (!more) {
            r->failed = true;
            r->no_memory |= cap <= MAX_RANGES;
            return;
        }
        r->range = more;
        r->cap = cap;
    }
    r->range[r->n++] = (Range){ lo, hi };
}

static int by_start(const void *a, const void *b)
{
    uint32_t x = ((const Range *)a)->lo, y = ((const Range *)b)->lo;
    return (x > y) - (x < y);
}

void ranges_sort(Ranges *r)
{
    size_t n = 0;
    if (r->n)
        qsort(r->range, r->n, sizeof *r->range, by_start);
    for (size_t i = 0; i < r->n; i++) {
        if (n && r->range[i].lo <= r->range[n - 1].hi + 1)
            r->range[n - 1].hi = MAX(r->range[n - 1].hi, r->range[i].hi);
        else
            r->range[n++] = r->range[i];
    }
    r->n = n;
}

void ranges_negate(Ranges *r)
{
    Ranges out = { .failed = r->failed, .no_memory = r->no_memory };
    uint32_t from = 0;
    ranges_sort(r);
    for (size_t i = 0; i < r->n; i++) {
        if (r->range[i].lo > from)
            ranges_add(&out, from, r->range[i].lo - 1);
        from = r->range[i].hi + 1;
    }
    if (from <= LAST_CHAR)
        ranges_add(&out, from, LAST_CHAR);
    ranges_release(r);
    *r = out;
}

/* The part of a range that lies in [lo, hi], again at `to`. */
static void shifted(Ranges *r, Range x, uint32_t lo, uint32_t hi, uint32_t to)
{
    uint32_t a = MAX(x.lo, lo), b = MIN(x.hi, hi);
    if (a <= b)
        ranges_add(r, a - lo + to, b - lo + to);
}

void ranges_fold(Ranges *r)
{
    for (size_t i = 0, n = r->n; i < n; i++) {
        Range x = r->range[i];
        shifted(r, x, 'a', 'z', 'A');
        shifted(r, x, 'A', 'Z', 'a');
    }
}

/* \d and \w are ASCII's, \s is white space as JavaScript has it. */
bool ranges_named(Ranges *r, uint32_t letter)
{
    static const Range digits[] = { { '0', '9' } };
    static const Range words[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
    static const Range spaces[] = { { 9, 13 },          { ' ', ' ' },       { 0xa0, 0xa0 },
                                    { 0x1680, 0x1680 }, { 0x2000, 0x200a }, { 0x2028, 0x2029 },
                                    { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
                                    { 0xfeff, 0xfeff } };
    uint32_t kind = letter | 0x20;
    const Range *from = kind == 'd' ? digits : kind == 'w' ? words : spaces;
    size_t n = kind == 'd' ? COUNT(digits) : kind == 'w' ? COUNT(words) : COUNT(spaces);
    if (letter > 'z' || (kind != 'd' && kind != 'w' && kind != 's'))
        return false;
    Ranges set = { 0 };
    for (size_t i = 0; i < n; i++)
        ranges_add(&set, from[i].lo, from[i].hi);
    if (letter < 'a')
        ranges_negate(&set);
    for (size_t i = 0; i < set.n; i++)
        ranges_add(r, set.range[i].lo, set.range[i].hi);
    r->failed |= set.failed;
    r->no_memory |= set.no_memory;
    ranges_release(&set);
    return true;
}

/* ---- UTF-8 ----------------------------------------------------------------------- */

static int encode(uint32_t c, uint8_t out[4])
{
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    out[0] = (uint8_t)(lead[n] | c);
    return n;
}

/* Cut a range where the number of bytes changes, where surrogates are, and
 * until all bytes but the first that differ run over their whole range. */
void ranges_utf8(Range r, void (*fn)(void *user, const ByteRange *seq, int n), void *user)
{
    static const uint32_t cuts[] = { 0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff };
    Range todo[32];
    int n = 0;
    todo[n++] = r;
    while (n) {
        Range x = todo[--n];
        uint32_t cut = 0;
        for (size_t i = 0; i < COUNT(cuts) && !cut; i++)
            cut = x.lo <= cuts[i] && cuts[i] < x.hi ? cuts[i] : 0;
        for (uint32_t low = 0x3f; low < 0x40000 && !cut && x.hi > 0x7f; low = low << 6 | 0x3f) {
            if ((x.lo | low) == (x.hi | low))
                break;
            if (x.lo & low)
                cut = x.lo | low;
            else if ((x.hi & low) != low)
                cut = (x.hi & ~low) - 1;
        }
        if (cut) {
            todo[n++] = (Range){ cut + 1, x.hi };
            todo[n++] = (Range){ x.lo, cut };
        } else if (x.lo < 0xd800 || x.lo > 0xdfff) {
            uint8_t a[4], b[4];
            ByteRange seq[4];
            int k = encode(x.lo, a);
            encode(x.hi, b);
            for (int i = 0; i < k; i++)
                seq[i] = (ByteRange){ a[i], b[i] };
            fn(user, seq, k);
        }
    }
}
