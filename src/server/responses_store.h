/* responses_store.h - answers that later requests may go on from or point into.
 *
 * In memory, for any thread. At most 256 answers and so many bytes are kept;
 * what was asked for least lately goes first. What an answer was given to lives
 * as long as any answer that goes on from it, so a long conversation that was
 * told in pieces does not lose its beginning. All texts are JSON. */
#ifndef RESPONSES_STORE_H
#define RESPONSES_STORE_H
#include "../base/bytes.h"
#include "../json/json.h"

typedef struct ResponseStore ResponseStore;

/* NULL: no memory. */
ResponseStore *responses_store_new(size_t max_bytes);
void responses_store_free(ResponseStore *s);

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
