/* responses_store.h - answers that later requests may go on from or point into.
 *
 * In memory, and in a journal where there is a directory; for any thread. At most 256 answers and so many bytes are kept;
 * what was asked for least lately goes first. What an answer was given to lives
 * as long as any answer that goes on from it, so a long conversation that was
 * told in pieces does not lose its beginning. All texts are JSON. */
#ifndef RESPONSES_STORE_H
#define RESPONSES_STORE_H
#include "../base/bytes.h"
#include "../json/json.h"
#include "../store/store.h"

typedef struct ResponseStore ResponseStore;

/* NULL: no memory. */
ResponseStore *responses_store_new(size_t max_bytes);
void responses_store_free(ResponseStore *s);

/* Answers of earlier processes with the store's directory are known from now on, and
 * those to come are kept there: at most so many bytes. Before anything else is asked.
 * *count: answers that came back. False: it goes on in memory alone. The store is to be
 * closed after the last call. */
bool responses_persist(ResponseStore *s, Store *to, uint64_t max_bytes, size_t *count,
                       ds4_err *err);

typedef struct {
    Str id;            /* resp_... */
    Str previous;      /* the id that it went on from; empty: none */
    const Json *input; /* a list of items, those that `previous` stands for first */
    const Json *output;
    Str reply; /* the whole response */
} KeptResponse;

/* Copies all of it. False: it is too large, or there is no memory. */
bool responses_keep(ResponseStore *s, const KeptResponse *k);

/* The items of input and output, those of earlier answers first: the caller's.
 * NULL: the id is not known, or there is no memory. */
Json *responses_find(ResponseStore *s, Str id);
/* Appends one item of any of them. */
bool responses_item(ResponseStore *s, Str id, Bytes *out);
/* Appends the whole response. */
bool responses_get(ResponseStore *s, Str id, Bytes *out);
bool responses_delete(ResponseStore *s, Str id);

#endif
