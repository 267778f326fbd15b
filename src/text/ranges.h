/* ranges.h - sets of characters, and their spelling in UTF-8. */
#ifndef RANGES_H
#define RANGES_H
#include "../base/base.h"

typedef struct {
    uint32_t lo, hi;
} Range;

/* Zero is empty. Failure to grow sticks. */
typedef struct {
    Range *range;
    size_t n, cap;
    bool failed, no_memory; /* too many, or that */
} Ranges;

void ranges_add(Ranges *r, uint32_t lo, uint32_t hi);
void ranges_sort(Ranges *r); /* in order, none touching another */
void ranges_negate(Ranges *r);
void ranges_fold(Ranges *r); /* ASCII letters of both cases */
/* Add what d, w, s, D, W or S stand for behind a backslash; false: another letter. */
bool ranges_named(Ranges *r, uint32_t letter);
void ranges_release(Ranges *r);

typedef struct {
    uint8_t lo, hi;
} ByteRange;

/* The byte sequences of the characters lo..hi: each position of a sequence is
 * a range of bytes. Surrogates have none. */
void ranges_utf8(Range r, void (*fn)(void *user, const ByteRange *seq, int n), void *user);

#endif
