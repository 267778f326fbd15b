/* record.c - records of a journal: written, and found again in what a crash or a
 * disk has left of them. */
#include "record.h"
#include <assert.h>
#include <xxhash.h>

static const char magic[4] = { 'D', 'S', '4', 'R' };

void record_write(Bytes *out, RecordKind kind, uint32_t version, uint64_t key, Str body)
{
    assert(body.n <= RECORD_MOST);
    const size_t at = out->n;

    if (!bytes_room(out, RECORD_HEAD + body.n)) /* all of it or nothing */
        return;
    bytes_put(out, magic, sizeof magic);
    bytes_u32(out, version);
    bytes_u32(out, kind);
    bytes_u32(out, (uint32_t)body.n);
    bytes_u64(out, key);
    bytes_u64(out, XXH3_64bits(body.p, body.n));
    bytes_u64(out, XXH3_64bits(out->p + at, 32));
    bytes_put(out, body.p, body.n);
}

static uint64_t le_at(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0;)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

/* A header that can be believed; the record behind it may be torn or damaged. */
static bool read_head(const char *p, size_t left, Record *r)
{
    if (left < RECORD_HEAD || memcmp(p, magic, sizeof magic) != 0 ||
        le_at(p + 32, 8) != XXH3_64bits(p, 32))
        return false;
    *r = (Record){ .version = (uint32_t)le_at(p + 4, 4),
                   .key = le_at(p + 16, 8),
                   .body = { p + RECORD_HEAD, (size_t)le_at(p + 12, 4) } };
    const uint64_t kind = le_at(p + 8, 4);
    if ((kind != RECORD_PUT && kind != RECORD_DROP) || r->body.n > RECORD_MOST)
        return false;
    r->kind = (RecordKind)kind;
    return true;
}

static bool body_is_good(const char *p, const Record *r)
{
    return le_at(p + 24, 8) == XXH3_64bits(r->body.p, r->body.n);
}

/* The next place after `at` where a header may begin. */
static size_t next_place(const char *p, size_t n, size_t at)
{
    const char *found = at + 1 < n ? memchr(p + at + 1, magic[0], n - at - 1) : NULL;
    return found ? (size_t)(found - p) : n;
}

RecordScan record_scan(const char *p, size_t n, void (*seen)(void *user, const Record *r),
                       void *user)
{
    RecordScan scan = { 0 };
    bool lost = false;
    Record r;

    for (size_t at = 0; at < n;) {
        if (!read_head(p + at, n - at, &r) || r.body.n > n - at - RECORD_HEAD) {
            lost = true;
            at = next_place(p, n, at);
            continue;
        }
        scan.damaged += lost;
        lost = !body_is_good(p + at, &r);
        r.at = at;
        at += RECORD_HEAD + r.body.n;
        if (lost)
            continue;
        seen(user, &r);
        scan.end = at;
    }
    return scan;
}
