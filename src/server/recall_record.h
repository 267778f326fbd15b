/* recall_record.h - a kept answer as bytes, to be brought back after a restart. */
#ifndef RECALL_RECORD_H
#define RECALL_RECORD_H
#include "recall_store.h"
#include "../base/bytes.h"

/* Changes with the form of a record. */
enum { RECALL_RECORD_VERSION = 1 };

/* words: a digest of the vocabulary, without which ids say nothing. */
void recall_record_write(Bytes *out, uint64_t words, const Kept *k, const XXH128_hash_t *names,
                         size_t n_names);

/* An answer whose texts lie in the record; lists are the caller's to free. */
typedef struct {
    uint64_t words;
    Kept kept;
    XXH128_hash_t *names;
    size_t n_names;
    Str *call_ids;
    int32_t *ids;
} RecalledRecord;
/* False: it is damaged, or there is no memory; nothing is to be freed then. */
bool recall_record_read(RecalledRecord *out, Str record);
void recall_record_release(RecalledRecord *r);

#endif
