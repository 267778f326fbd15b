/* recall_record.c - kept answers as bytes:
 *
 *   u64 words
 *   u32 names, calls, ids; u32 bytes of handle, reasoning, content, forms
 *   16 bytes a name; u32 bytes of a call's id, and it; i32 a token
 *   handle, reasoning, content, forms
 */
#include "recall_record.h"
#include "record.h"
#include <stdlib.h>

void recall_record_write(Bytes *out, uint64_t words, const Kept *k, const XXH128_hash_t *names,
                         size_t n_names)
{
    const Str texts[] = { k->handle, k->reasoning, k->content, k->forms };
    bytes_u64(out, words);
    bytes_u32(out, (uint32_t)n_names);
    bytes_u32(out, (uint32_t)k->n_calls);
    bytes_u32(out, (uint32_t)k->n_ids);
    for (size_t i = 0; i < COUNT(texts); i++)
        bytes_u32(out, (uint32_t)texts[i].n);
    for (size_t i = 0; i < n_names; i++) {
        bytes_u64(out, names[i].low64);
        bytes_u64(out, names[i].high64);
    }
    for (size_t i = 0; i < k->n_calls; i++) {
        bytes_u32(out, (uint32_t)k->call_ids[i].n);
        bytes_put(out, k->call_ids[i].p, k->call_ids[i].n);
    }
    for (size_t i = 0; i < k->n_ids; i++)
        bytes_u32(out, (uint32_t)k->ids[i]);
    for (size_t i = 0; i < COUNT(texts); i++)
        bytes_put(out, texts[i].p, texts[i].n);
}

static bool make_lists(RecalledRecord *r)
{
    r->names = calloc(r->n_names + 1, sizeof *r->names);
    r->call_ids = calloc(r->kept.n_calls + 1, sizeof *r->call_ids);
    r->ids = calloc(r->kept.n_ids + 1, sizeof *r->ids);
    return r->names && r->call_ids && r->ids;
}

static void read_lists(Record *f, RecalledRecord *r)
{
    for (size_t i = 0; i < r->n_names; i++) {
        r->names[i].low64 = record_u64(f);
        r->names[i].high64 = record_u64(f);
    }
    for (size_t i = 0; i < r->kept.n_calls; i++)
        r->call_ids[i] = record_bytes(f, record_u32(f));
    for (size_t i = 0; i < r->kept.n_ids; i++)
        r->ids[i] = (int32_t)record_u32(f);
}

bool recall_record_read(RecalledRecord *out, Str record)
{
    Record f = { record, false };
    Kept *k = &out->kept;
    Str *const texts[] = { &k->handle, &k->reasoning, &k->content, &k->forms };
    size_t sizes[COUNT(texts)];
    *out = (RecalledRecord){ .words = record_u64(&f) };
    out->n_names = record_count(&f, 16);
    k->n_calls = record_count(&f, 4);
    k->n_ids = record_count(&f, 4);
    for (size_t i = 0; i < COUNT(texts); i++)
        sizes[i] = record_u32(&f);
    bool ok = !f.bad && make_lists(out);
    if (ok)
        read_lists(&f, out);
    for (size_t i = 0; i < COUNT(texts); i++)
        *texts[i] = record_bytes(&f, sizes[i]);
    k->call_ids = out->call_ids;
    k->ids = out->ids;
    if (ok && record_done(&f))
        return true;
    recall_record_release(out);
    return false;
}

void recall_record_release(RecalledRecord *r)
{
    free(r->names);
    free(r->call_ids);
    free(r->ids);
    *r = (RecalledRecord){ 0 };
}
