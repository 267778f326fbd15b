/* store.c - any bytes as a chunk file, a journal, or a folder's worth of headers.
 *
 * An input that begins with "DS4C" or "DS4R" is read as it is. Any other edits a good
 * chunk (first byte even) or journal (odd): its second byte says whether to cut it and
 * whether to make the checksums right again, which lets the edits through to what lies
 * behind them; then 4 bytes an edit: offset (u24), value. First byte 0xff: names put
 * into a tree and taken out, 3 bytes each: which, before which, where. */
#include "../../src/store/chunk.h"
#include "../../src/store/record.h"
#include "../../src/store/store.h"
#include "../../src/store/table.h"
#include <stdlib.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIX = 1, CUT = 2, TOKENS = 256, ROWS = 40, MARK = 24 };

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* ---- chunks -------------------------------------------------------------------------- */

static Bytes good_chunk(void)
{
    Bytes b = { 0 };
    int32_t tokens[TOKENS];
    char rest[ROWS] = { 1, 2, 3 };
    unsigned char head[CHUNK_HEAD + CHUNK_USE];
    ChunkHead h = { .model.numerics = 1, .n = TOKENS, .rows_bytes = ROWS, .mark_bytes = MARK };
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = i * 7;
    require(name_of(&h.name, &h.parent, &h.model, tokens, TOKENS));
    chunk_write_head(&h, head);
    chunk_write_use(&h, &(ChunkUse){ .used_s = 5, .weight = 1 }, head + CHUNK_HEAD);
    bytes_put(&b, head, sizeof head);
    bytes_put(&b, tokens, sizeof tokens);
    bytes_u64(&b, chunk_sum(&h, tokens, sizeof tokens));
    bytes_put(&b, rest, ROWS);
    bytes_u64(&b, chunk_sum(&h, rest, ROWS));
    bytes_put(&b, rest, MARK);
    bytes_u64(&b, chunk_sum(&h, rest, MARK));
    return b;
}

static void sum_at(Bytes *b, const ChunkHead *h, uint64_t from, uint64_t n)
{
    if (from > b->n || n > b->n - from || b->n - from - n < 8)
        return;
    const uint64_t sum = chunk_sum(h, b->p + from, (size_t)n);
    memcpy(b->p + from + n, &sum, 8);
}

/* By what the header says now. */
static void fix_chunk(Bytes *b)
{
    ChunkHead h = { 0 };
    uint32_t n;
    if (b->n < CHUNK_HEAD + CHUNK_USE)
        return;
    const uint64_t sum = XXH3_64bits(b->p, 120);
    memcpy(b->p + 120, &sum, 8);
    memcpy(h.name.sha, b->p + 48, 20);
    memcpy(&n, b->p + 92, 4);
    memcpy(&h.rows_bytes, b->p + 96, 8);
    memcpy(&h.mark_bytes, b->p + 104, 8);
    sum_at(b, &h, CHUNK_HEAD, 16);
    const uint64_t tokens = CHUNK_HEAD + CHUNK_USE, rows = tokens + n * (uint64_t)4 + 8;
    sum_at(b, &h, tokens, n * (uint64_t)4);
    if (h.rows_bytes > b->n || h.mark_bytes > b->n)
        return;
    sum_at(b, &h, rows, h.rows_bytes);
    sum_at(b, &h, rows + h.rows_bytes + 8, h.mark_bytes);
}

static void try_chunk(const char *p, size_t n)
{
    ChunkHead h;
    ChunkPlaces at;
    ds4_err err;
    if (chunk_verify((const unsigned char *)p, n, &h, &err) != CHUNK_OK)
        return;
    require(chunk_places(&h, &at) && at.end == n);
    require(h.n > 0 && h.n <= STORE_CHUNK && h.n % STORE_UNIT == 0);
    require(h.first >= 0 && h.first % STORE_CHUNK == 0);
}

/* ---- journals ------------------------------------------------------------------------ */

typedef struct {
    const char *p;
    size_t n, end, bytes;
} Journaled;

static void see(void *user, const Record *r)
{
    Journaled *j = user;
    require(r->at >= j->end && r->body.p == j->p + r->at + RECORD_HEAD);
    j->end = r->at + RECORD_HEAD + r->body.n;
    require(j->end <= j->n);
    for (size_t i = 0; i < r->body.n; i++)
        j->bytes += (unsigned char)r->body.p[i];
}

static void try_journal(const char *p, size_t n)
{
    Journaled j = { .p = p, .n = n };
    const RecordScan scan = record_scan(p, n, see, &j);
    require(scan.end == j.end);
    Journaled again = { .p = p, .n = scan.end };
    require(record_scan(p, scan.end, see, &again).end == scan.end && again.bytes == j.bytes);
}

static Bytes good_journal(void)
{
    Bytes b = { 0 };
    for (uint64_t i = 0; i < 6; i++)
        record_write(&b, i % 3 == 2 ? RECORD_DROP : RECORD_PUT, 1, i / 2,
                     i % 3 == 2 ? STR("") : STR("some record"));
    return b;
}

static void fix_journal(Bytes *b)
{
    for (size_t at = 0; at + RECORD_HEAD <= b->n;) {
        uint32_t n;
        memcpy(&n, b->p + at + 12, 4);
        if (n <= b->n - at - RECORD_HEAD) {
            const uint64_t body = XXH3_64bits(b->p + at + RECORD_HEAD, n);
            memcpy(b->p + at + 24, &body, 8);
        }
        const uint64_t sum = XXH3_64bits(b->p + at, 32);
        memcpy(b->p + at + 32, &sum, 8);
        if (n > b->n - at - RECORD_HEAD)
            return;
        at += RECORD_HEAD + n;
    }
}

/* ---- a tree ---------------------------------------------------------------------------- */

static void try_tree(const uint8_t *p, size_t n)
{
    Table t;
    size_t known = 0, walked = 0;
    require(table_init(&t));
    for (size_t i = 0; i + 3 <= n; i += 3) {
        ChunkHead h = { .first = p[i + 2] % 16 * STORE_CHUNK, .n = STORE_CHUNK };
        h.name.sha[3] = p[i] % 32;
        h.name.sha[0] = 1;
        h.parent.sha[3] = p[i + 1] % 32;
        h.parent.sha[0] = h.first > 0;
        if (!h.first)
            h.parent.sha[3] = 0;
        Entry *e = table_find(&t, &h.name);
        if (e && e->known && p[i + 1] & 0x80) {
            table_forget(&t, e);
            known--;
            continue;
        }
        const bool before = e && e->known;
        e = table_add(&t, &h);
        known += e && !before;
    }
    for (Entry *e = &t.root; e; e = table_next(&t.root, e)) {
        require(++walked <= t.n + 1);
        known -= e->known;
        require(e == &t.root || e->known || e->child);
        (void)table_is_leaf(e);
    }
    require(known == 0 && walked == t.n + 1);
    table_release(&t);
}

/* ---- the input ------------------------------------------------------------------------- */

static void edit(Bytes *b, const uint8_t *p, size_t n, uint8_t how)
{
    for (; n >= 4; p += 4, n -= 4) {
        const size_t at = p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16;
        if (at < b->n)
            b->p[at] = (char)p[3];
    }
    if (how & CUT)
        b->n = b->n * (how >> 2) / 64;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 4 && !memcmp(data, "DS4C", 4)) {
        try_chunk((const char *)data, size);
    } else if (size >= 4 && !memcmp(data, "DS4R", 4)) {
        try_journal((const char *)data, size);
    } else if (size >= 1 && data[0] == 0xff) {
        try_tree(data + 1, size - 1);
    } else if (size >= 2) {
        const bool chunk = data[0] % 2 == 0;
        Bytes b = chunk ? good_chunk() : good_journal();
        require(!b.failed);
        edit(&b, data + 2, size - 2, data[1]);
        if (data[1] & FIX)
            (chunk ? fix_chunk : fix_journal)(&b);
        /* exactly its size, so that a read past the end is seen */
        char *exact = malloc(b.n ? b.n : 1);
        require(exact != NULL);
        memcpy(exact, b.p, b.n);
        (chunk ? try_chunk : try_journal)(exact, b.n);
        free(exact);
        bytes_release(&b);
    }
    return 0;
}
