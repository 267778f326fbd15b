/* record.h - the numbers and texts of a record of a journal, taken one after the
 * other. One that is not there sets bad, and is 0 or empty: so the reader asks once,
 * at the end. They are written by bytes.h. */
#ifndef SERVER_RECORD_H
#define SERVER_RECORD_H
#include "../base/base.h"

typedef struct {
    Str left;
    bool bad;
} Record;

/* n bytes as they are, in the record. */
static inline Str record_bytes(Record *r, size_t n)
{
    r->bad = r->bad || n > r->left.n;
    if (r->bad)
        return (Str){ 0 };
    Str taken = { r->left.p, n };
    r->left = (Str){ r->left.p + n, r->left.n - n };
    return taken;
}

static inline uint64_t record_number(Record *r, size_t n)
{
    uint64_t v = 0;
    Str s = record_bytes(r, n);
    for (size_t i = s.n; i-- > 0;)
        v = v << 8 | (unsigned char)s.p[i];
    return v;
}

static inline uint32_t record_u32(Record *r) { return (uint32_t)record_number(r, 4); }
static inline uint64_t record_u64(Record *r) { return record_number(r, 8); }

/* A count of things, each of so many bytes at least: never more than there can be. */
static inline size_t record_count(Record *r, size_t each)
{
    size_t n = record_u32(r);
    r->bad = r->bad || n > r->left.n / each;
    return r->bad ? 0 : n;
}

/* All of it was taken, and there. */
static inline bool record_done(const Record *r) { return !r->bad && r->left.n == 0; }

#endif
