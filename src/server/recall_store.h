/* recall_store.h - the kept answers of recall.c: found by any of their names,
 * forgotten in the order of their last use. Not locked. */
#ifndef RECALL_STORE_H
#define RECALL_STORE_H
#include "../base/base.h"
#include <xxhash.h>

typedef struct Kept Kept;

/* 128 bits that stand for a handle, a call's id, or a text with all before it. */
typedef struct KeptName KeptName;
struct KeptName {
    KeptName *next, **link; /* of its bucket, the newest first */
    XXH128_hash_t key;
    Kept *kept;
};

/* One block of memory holds it all. */
struct Kept {
    Kept *newer, *older; /* by last use */
    size_t bytes;        /* of the block */
    uint64_t key;        /* in the journal; 0: it is not there */
    Str handle, reasoning, content;
    Str forms; /* of its calls: call_form.h */
    const Str *call_ids;
    size_t n_calls;
    const int32_t *ids;
    size_t n_ids;
    KeptName *name;
    size_t n_names;
};

typedef struct {
    KeptName **bucket;
    size_t mask;
    Kept *newest, *oldest;
    size_t entries, max_entries; /* calls; an answer without any is one */
    size_t bytes, max_bytes;
    /* Told of each one that has to go; NULL: nobody. */
    void (*forgotten)(void *user, const Kept *k);
    void *user;
} RecallStore;

bool recall_store_init(RecallStore *s, size_t max_entries, size_t max_bytes);
void recall_store_release(RecallStore *s);

/* A copy of *what with these names; others make room. False: it is too large, or
 * there is no memory. */
bool recall_store_add(RecallStore *s, const Kept *what, const XXH128_hash_t *names, size_t n);
/* The newest with this name, NULL: none; and the next older one. */
const KeptName *recall_store_find(const RecallStore *s, XXH128_hash_t key);
const KeptName *recall_store_next(const KeptName *name);
void recall_store_use(RecallStore *s, Kept *k);

#endif
