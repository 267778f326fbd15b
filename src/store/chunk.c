/* chunk.c - a chunk file's header, use record and sections.
 *
 * The header's checksum covers all of it; then every number must fit the
 * others and the length of the file, before anything is allocated by it. */
#include "chunk.h"
#include "store.h"
#include <inttypes.h>
#include <math.h>
#include <xxhash.h>

static const char magic[8] = { 'D', 'S', '4', 'C', 'H', 'U', 'N', 'K' };

const char *chunk_fault_name(ChunkFault f)
{
    static const char *const names[N_CHUNK_FAULTS] = {
        [CHUNK_OK] = "whole",
        [CHUNK_BAD_HEADER] = "its header is damaged",
        [CHUNK_BAD_VERSION] = "it has another version",
        [CHUNK_BAD_SIZE] = "its length is wrong",
        [CHUNK_BAD_CHECKSUM] = "a checksum is wrong",
        [CHUNK_BAD_NAME] = "its name is wrong",
        [CHUNK_UNREADABLE] = "it cannot be read",
        [CHUNK_GONE] = "it is gone",
    };
    return names[f];
}

bool chunk_places(const ChunkHead *h, ChunkPlaces *out)
{
    out->tokens = CHUNK_HEAD + CHUNK_USE;
    out->rows = out->tokens + (uint64_t)h->n * sizeof(int32_t) + CHUNK_SUM;
    return add_u64(out->rows, h->rows_bytes, &out->mark) &&
           add_u64(out->mark, CHUNK_SUM, &out->mark) &&
           add_u64(out->mark, h->mark_bytes, &out->end) &&
           add_u64(out->end, CHUNK_SUM, &out->end) && out->end <= INT64_MAX;
}

/* ---- little endian, from a cursor -------------------------------------------------- */

static unsigned char *put(unsigned char *to, const void *p, size_t n)
{
    memcpy(to, p, n);
    return to + n;
}

static unsigned char *put_u32(unsigned char *to, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        *to++ = (unsigned char)(v >> (8 * i));
    return to;
}

static unsigned char *put_u64(unsigned char *to, uint64_t v)
{
    return put_u32(put_u32(to, (uint32_t)v), (uint32_t)(v >> 32));
}

static uint32_t u32_at(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t u64_at(const unsigned char *p) { return u32_at(p) | (uint64_t)u32_at(p + 4) << 32; }

/* ---- checksums --------------------------------------------------------------------- */

uint64_t chunk_sum(const ChunkHead *h, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, u64_at(h->name.sha));
}

/* ---- writing ----------------------------------------------------------------------- */

void chunk_write_head(const ChunkHead *h, unsigned char out[CHUNK_HEAD])
{
    unsigned char *to = put(out, magic, sizeof magic);

    to = put_u32(to, CHUNK_VERSION);
    to = put_u32(to, h->model.numerics);
    to = put(to, h->model.fingerprint, sizeof h->model.fingerprint);
    to = put(to, h->name.sha, sizeof h->name.sha);
    to = put(to, h->parent.sha, sizeof h->parent.sha);
    to = put_u32(to, (uint32_t)h->first);
    to = put_u32(to, (uint32_t)h->n);
    to = put_u64(to, h->rows_bytes);
    to = put_u64(to, h->mark_bytes);
    to = put_u64(to, (uint64_t)h->created_s);
    put_u64(to, XXH3_64bits(out, (size_t)(to - out)));
}

void chunk_write_use(const ChunkHead *h, const ChunkUse *u, unsigned char out[CHUNK_USE])
{
    uint32_t weight;
    memcpy(&weight, &u->weight, sizeof weight);
    unsigned char *to = put_u64(out, (uint64_t)u->used_s);
    to = put_u32(put_u32(to, u->hits), weight);
    put_u64(to, chunk_sum(h, out, (size_t)(to - out)));
}

/* ---- reading ----------------------------------------------------------------------- */

static bool read_use(const ChunkHead *h, ChunkUse *u, const unsigned char *p)
{
    const uint32_t weight = u32_at(p + 12);

    *u = (ChunkUse){ .used_s = (int64_t)u64_at(p), .hits = u32_at(p + 8) };
    memcpy(&u->weight, &weight, sizeof weight);
    if (u64_at(p + 16) == chunk_sum(h, p, 16) && isfinite(u->weight) && u->weight >= 0)
        return true;
    *u = (ChunkUse){ .used_s = h->created_s, .weight = 1 };
    return false;
}

static void fields(ChunkHead *h, const unsigned char *p)
{
    *h = (ChunkHead){ .model.numerics = u32_at(p + 12) };
    memcpy(h->model.fingerprint, p + 16, 32);
    memcpy(h->name.sha, p + 48, 20);
    memcpy(h->parent.sha, p + 68, 20);
    h->first = (int)MIN(u32_at(p + 88), (uint32_t)INT32_MAX);
    h->n = (int)MIN(u32_at(p + 92), (uint32_t)INT32_MAX);
    h->rows_bytes = u64_at(p + 96);
    h->mark_bytes = u64_at(p + 104);
    h->created_s = (int64_t)u64_at(p + 112);
}

/* What no chunk can say, whatever its model. */
static bool possible(const ChunkHead *h)
{
    return h->first < STORE_MOST && h->first % STORE_CHUNK == 0 && h->n > 0 &&
           h->n <= STORE_CHUNK && h->n % STORE_UNIT == 0 &&
           (h->first == 0) == name_none(&h->parent) && !name_none(&h->name);
}

ChunkFault chunk_read_head(ChunkHead *h, ChunkUse *u, bool *use_ok, const unsigned char *p,
                           size_t n, uint64_t file_bytes, ds4_err *err)
{
    ChunkPlaces at;

    if (n < CHUNK_HEAD + CHUNK_USE) {
        fail(err, DS4_EFORMAT, "%" PRIu64 " bytes are no chunk", file_bytes);
        return CHUNK_BAD_SIZE;
    }
    if (memcmp(p, magic, sizeof magic) != 0) {
        fail(err, DS4_EFORMAT, "it does not begin like a chunk");
        return CHUNK_BAD_HEADER;
    }
    if (u32_at(p + 8) != CHUNK_VERSION) {
        fail(err, DS4_EFORMAT, "version %u, expected %d", u32_at(p + 8), CHUNK_VERSION);
        return CHUNK_BAD_VERSION;
    }
    fields(h, p);
    if (u64_at(p + 120) != XXH3_64bits(p, 120) || !possible(h) || !chunk_places(h, &at)) {
        fail(err, DS4_EFORMAT, "its header is damaged");
        return CHUNK_BAD_HEADER;
    }
    if (at.end != file_bytes) {
        fail(err, DS4_EFORMAT, "%" PRIu64 " bytes, expected %" PRIu64, file_bytes, at.end);
        return CHUNK_BAD_SIZE;
    }
    *use_ok = read_use(h, u, p + CHUNK_HEAD);
    return CHUNK_OK;
}

static bool section(const ChunkHead *h, const unsigned char *p, uint64_t at, uint64_t n,
                    const char *what, ds4_err *err)
{
    const uint64_t sum = chunk_sum(h, p + at, (size_t)n), stored = u64_at(p + at + n);
    return sum == stored ||
           fail(err, DS4_EFORMAT,
                "its %s are damaged: checksum %016" PRIx64 ", expected %016" PRIx64, what, sum,
                stored);
}

ChunkFault chunk_verify(const unsigned char *p, size_t n, ChunkHead *h, ds4_err *err)
{
    ChunkUse use;
    ChunkPlaces at;
    ChunkName name;
    bool use_ok;
    int32_t tokens[STORE_CHUNK];
    const ChunkFault f = chunk_read_head(h, &use, &use_ok, p, n, n, err);

    if (f != CHUNK_OK)
        return f;
    chunk_places(h, &at);
    if (!use_ok) {
        fail(err, DS4_EFORMAT, "its use record is damaged");
        return CHUNK_BAD_CHECKSUM;
    }
    if (!section(h, p, at.tokens, (uint64_t)h->n * sizeof *tokens, "tokens", err) ||
        !section(h, p, at.rows, h->rows_bytes, "rows", err) ||
        !section(h, p, at.mark, h->mark_bytes, "window rows", err))
        return CHUNK_BAD_CHECKSUM;
    memcpy(tokens, p + at.tokens, (size_t)h->n * sizeof *tokens);
    if (!name_of(&name, &h->parent, &h->model, tokens, h->n)) {
        fail(err, DS4_ENOMEM, "no memory for a hash");
        return CHUNK_UNREADABLE;
    }
    if (!name_eq(&name, &h->name)) {
        fail(err, DS4_EFORMAT, "its tokens are not those of its name");
        return CHUNK_BAD_NAME;
    }
    return CHUNK_OK;
}
