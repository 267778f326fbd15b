/* store.h - KV state that outlives its slot: chunks in memory and on disk.
 *
 * A timeline is kept as a chain of chunks of 2,048 tokens and a tail of fewer,
 * a multiple of 128. A chunk has its tokens, their rows, and the mark at its
 * end, so every chunk's end is a place to go on from. Its name is a hash of
 * all tokens up to its end and of the model, so conversations that begin alike
 * share their beginning. docs/KVSTORE.md has the files.
 *
 * Chunks that were written or read lately are in memory as well, up to
 * ram_bytes; without a directory that is all there is. Files are read and
 * written by two threads of the store's own: no call here but open, close and
 * unbind waits for a disk. All calls may be made by any thread. */
#ifndef STORE_H
#define STORE_H
#include "../base/base.h"

enum {
    STORE_UNIT = DS4_STATE_UNIT,
    STORE_CHUNK = 2048,   /* tokens of a whole chunk; chunks begin at multiples of it */
    STORE_MOST = 1 << 24, /* tokens of a timeline */
};

typedef struct Store Store;

typedef struct {
    const char *dir;     /* made where it is missing; NULL: memory only */
    uint64_t disk_bytes; /* all that lies in dir, foreign files too; 0: no bound */
    uint64_t ram_bytes;  /* chunks in memory, those that wait for the disk too; never
                            less than four chunks */
    int tail_s;          /* so long a tail waits for a longer one before it is written; ten
                            times as long if it adds less than 1,024 tokens to what is there */
    void (*log)(void *user, const char *line); /* any thread; NULL: none */
    void (*ready)(void *user); /* something to fetch came or ended; the reader's thread;
                                  NULL: none */
    void *user;                /* of both */
} StoreOptions;

/* Takes the directory (one process a directory: a second one gets the first
 * one's pid in *err), removes what was left half-written, and reads what is
 * there. A directory that can be read only gives a warning and is read. */
Store *store_open(const StoreOptions *opt, ds4_err *err);

/* Which model's states these are. Before it nothing is found or kept; again
 * after another model was loaded. */
typedef struct {
    uint8_t fingerprint[32]; /* ds4_engine_fingerprint */
    bool rounded;            /* not ds4_options.unrounded */
    uint64_t unit_bytes;     /* rows of 128 tokens: ds4_rows_bytes(e, 0, 128) */
    uint64_t mark_bytes;     /* at any multiple of 128: ds4_mark_bytes(e, 128) */
} StoreModel;
void store_bind(Store *s, const StoreModel *m);

/* Writes what waits until deadline_ns (clock_ns; 0: writes nothing), says in
 * the log what it did not get done, and ends. Fetches and finds are closed
 * before. NULL is fine. Returns how many chunks were not written. */
size_t store_close(Store *s, int64_t deadline_ns);

/* ---- finding ------------------------------------------------------------------- */

/* The longest beginning of n tokens that is stored, pinned: nothing of it is
 * evicted until store_unpin. */
typedef struct StoreChain StoreChain;
typedef struct {
    int n;             /* tokens, a multiple of 128; 0: none, and nothing is pinned */
    int in_ram;        /* tokens of it whose chunks are in memory */
    uint64_t bytes;    /* rows and one mark */
    StoreChain *chain; /* the store's */
} StoreFound;

/* At most n tokens: whoever wants logits asks with one token less. out->n is
 * returned. Looks into memory only; hashes n tokens, 2 ms a million. */
int store_find(Store *s, const int32_t *tokens, int n, StoreFound *out);
/* The same for a request that waits, and is not to lose meanwhile what it will find: returns
 * how long the beginning is, of which out->n tokens are pinned. All that is pinned so, each
 * chunk counted once, is at most half of what the store may hold, so that strangers in a
 * queue leave room. There are no fetches of it, and it counts as no find. */
int store_reserve(Store *s, const int32_t *tokens, int n, StoreFound *out);
/* Empties *f; an empty one is fine. Only after its fetches are closed. */
void store_unpin(Store *s, StoreFound *f);

/* The most bytes that chunks can be together: on the disk, or in memory where there is none. */
uint64_t store_room(Store *s);

/* Is there a place to go on from just after n tokens (a multiple of 128)? If
 * so it counts as used, and there is no need to copy the state out. */
bool store_has(Store *s, const int32_t *tokens, int n);

/* ---- reading ------------------------------------------------------------------- */

typedef struct StoreFetch StoreFetch;

/* Begins to read what was found, from the chunk that has token `from` on.
 * Counts as a use of all of it. NULL: no memory. */
StoreFetch *store_fetch(Store *s, const StoreFound *f, int from);

typedef enum {
    STORE_WAIT, /* nothing yet; ready() will be called */
    STORE_ROWS, /* the next chunk: first, last, rows */
    STORE_END,  /* all that there is: last tokens and the mark there */
} StoreNext;

/* Borrowed until the next store_next or store_fetch_close of this fetch.
 *
 * A damaged file ends a fetch early: it is deleted, counted and logged, and
 * STORE_END says at which chunk's end it is possible to go on; that can be
 * below `from`, and is 0, without a mark, where nothing is left. */
typedef struct {
    int first, last;
    const void *rows; /* of tokens [first, last) */
    const void *mark; /* at last; with STORE_END only */
    bool from_ram;    /* no disk was read for it */
    bool damaged;     /* with STORE_END: it ended early */
} StorePiece;
StoreNext store_next(StoreFetch *f, StorePiece *out);
void store_fetch_close(StoreFetch *f); /* at any time; NULL is fine */

/* ---- writing ------------------------------------------------------------------- */

/* One chunk [first, last): first a multiple of 2,048, last at most 2,048 more
 * and a multiple of 128. tokens: all from 0 to last, borrowed for the call. rows
 * and mark, from malloc, are the store's from now on, whatever comes of it.
 *
 * It is there for store_find at once and written later: whole chunks as soon
 * as may be, tails after tail_s. A tail ends shorter tails of the same
 * beginning, a whole chunk all its tails. When memory is short the least
 * valuable chunk that waits is dropped and counted. False: this one was not
 * kept (not bound, sizes that are not the model's, no room, no memory). */
typedef struct {
    const int32_t *tokens;
    int first, last;
    void *rows, *mark;
} StorePut;
bool store_put(Store *s, const StorePut *p);

/* ---- looking inside -------------------------------------------------------------- */

typedef struct {
    /* now */
    uint64_t ram_bytes, ram_chunks;   /* in memory */
    uint64_t disk_bytes, disk_chunks; /* chunk files */
    uint64_t journal_bytes, foreign_bytes, foreign_files;
    uint64_t ram_limit, disk_limit;         /* disk: 0: no bound, or no directory */
    uint64_t waiting_chunks, waiting_bytes; /* not written yet, tails included */
    uint64_t removing;                      /* files that are to be removed */
    uint64_t reserved_bytes;                /* pinned for requests that wait */
    bool has_dir, writable;
    /* since it was opened */
    uint64_t finds, found, found_tokens; /* asked, found something, tokens of that */
    uint64_t ram_hits, disk_hits;        /* chunks handed out */
    uint64_t read_bytes, read_files, read_ns;
    uint64_t written_bytes, written_files, write_ns; /* chunk files */
    uint64_t journal_written_bytes;
    uint64_t puts, puts_known;          /* chunks offered; of these there already */
    uint64_t superseded;                /* tails ended by longer ones, unwritten ones too */
    uint64_t evicted_disk, evicted_ram; /* lost from there for want of room */
    uint64_t dropped;                   /* not written: memory short, or the store closed */
    uint64_t failed_reads, failed_writes, disk_full;                    /* full: among the failed */
    uint64_t bad_header, bad_version, bad_size, bad_checksum, bad_name; /* deleted files */
    uint64_t vanished;  /* files that somebody else removed */
    uint64_t leftovers; /* half-written files removed at start */
} StoreCounters;
void store_counters(Store *s, StoreCounters *out);

typedef struct {
    char id[41], parent[41]; /* hex; parent "" for a first chunk */
    int first, last;
    uint64_t bytes;            /* of the file, or in memory */
    uint32_t hits;             /* times it was fetched */
    int64_t created_s, used_s; /* Unix time */
    bool in_ram, on_disk, other_model;
} StoreItem;
/* All chunks, parents before children, the caller frees *out. False: no memory. */
bool store_list(Store *s, StoreItem **out, size_t *n);

/* Removes a chunk and what goes on from it; the files go a moment later. id:
 * its hex name, or the beginning of it if that names only one. */
bool store_remove(Store *s, const char *id, size_t *chunks, uint64_t *bytes, ds4_err *err);

/* 32 random bytes that stay with the directory (a file "secret", 0600); without
 * one, or where it cannot be written, they are new each time. */
bool store_secret(Store *s, uint8_t out[32], ds4_err *err);

#endif
