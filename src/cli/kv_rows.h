/* kv_rows.h - a KV folder as ds4 kv shows it: its chunks in the order of their
 * tree, and what else lies there. Reads headers only. */
#ifndef KV_ROWS_H
#define KV_ROWS_H
#include "cli.h"
#include "../store/folder.h"
#include "../store/table.h"

typedef struct {
    Table table;
    Entry **row; /* parents before what goes on from them, the last used first */
    int *depth;  /* how often the conversations have parted before it */
    size_t n;
    uint64_t bytes;      /* of chunks */
    size_t orphans;      /* chunks whose beginning is not here */
    Bytes bad, bad_json; /* files that are none: a line each; an array's items */
    Bytes journals;      /* their names, a line each */
    size_t n_bad, n_journals, n_left, n_foreign;
    uint64_t bad_bytes, journal_bytes, left_bytes, foreign_bytes;
    bool failed; /* no memory */
} KvRows;

bool kv_rows_read(KvRows *r, const Folder *f, ds4_err *err);
void kv_rows_release(KvRows *r);

/* The row that an id, or the beginning of one, names. SIZE_MAX and *err: none, or several. */
size_t kv_rows_find(const KvRows *r, const char *id, ds4_err *err);
/* Rows [at, end) are that chunk and all that goes on from it. */
size_t kv_rows_end(const KvRows *r, size_t at);

#endif
