/* store_parts.h - what the store's files share. All of it is guarded by `lock`,
 * but what says otherwise; functions are called with it held unless they say
 * otherwise. */
#ifndef STORE_PARTS_H
#define STORE_PARTS_H
#include "store.h"
#include "journal.h"
#include "folder.h"
#include "table.h"
#include "value.h"
#include <pthread.h>

/* Kinds of lines in the log, of each of which a few a minute are enough. One kind
 * for each thing a person would do something about: many of one keep no other
 * from being said. */
typedef enum {
    SAY_BAD,
    SAY_GONE,
    SAY_WRITE,
    SAY_REMOVE,
    SAY_ROOM,
    SAY_DROPPED,
    SAY_JOURNAL,
    N_SAYS
} SayKind;
typedef struct {
    int64_t since_ns;
    int said, held;
} Said;

struct StoreChain {
    int refs;      /* the find and its fetches */
    bool reserved; /* by store_reserve */
    int n_tokens;
    int32_t *tokens;
    size_t n;
    Entry *entry[]; /* pinned, the first chunk first */
};

struct StoreFetch {
    Store *s;
    StoreFetch *next;
    StoreChain *chain;
    size_t at;    /* the next chunk to hand out */
    size_t ready; /* chunks [at, ready) are in memory and held */
    size_t end;   /* chunks that can be had */
    Entry *given; /* held until the next call */
    Entry *mark;  /* of chunk end - 1: in memory and held */
    bool damaged, busy, closed;
    bool from_disk[]; /* of each chunk */
};

struct Store {
    StoreOptions opt; /* set once; dir is not kept here but in folder */
    Folder folder;    /* set once */
    bool has_dir;     /* set once */

    pthread_mutex_t lock;
    pthread_cond_t read_wake, write_wake;
    pthread_t reader, writer;
    bool has_reader, has_writer, closing;
    int64_t deadline_ns;

    Table table;
    ChunkModel model;
    bool bound;
    uint64_t unit_bytes, mark_bytes;

    Entry *newest, *oldest; /* in memory */
    uint64_t ram_limit;
    Entry *first_waiting, *last_waiting;
    ChunkName just_written;

    StoreFetch *fetches;
    ChunkName *gone; /* files to remove, before anything else is written */
    size_t n_gone, cap_gone;
    int64_t use_due_ns; /* when use records are written next; 0: none changed */
    Journal *journals;

    StoreCounters count;
    uint64_t dropped_told; /* of count.dropped; the writer's */

    pthread_mutex_t say_lock; /* of said */
    Said said[N_SAYS];
};

int64_t store_now(void); /* Unix time, seconds */

/* Without the lock. */
void store_say(Store *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void store_say_some(Store *s, SayKind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void store_count_fault(Store *s, ChunkFault f);

/* ---- entries ------------------------------------------------------------------------- */

/* The name after n tokens: of the whole chunks, and of the tail if there is one.
 * False: no memory. */
bool store_name_at(const ChunkModel *m, const int32_t *tokens, int n, ChunkName *parent,
                   ChunkName *name);
void store_touch(Store *s, Entry *e);
/* Ends it everywhere: in memory, in the queue, and its file. It is unknown at once;
 * what is held stays in memory until store_let_go, and the file of what is being
 * written goes after that. */
void store_end_entry(Store *s, Entry *e);
void store_let_go(Store *s, Entry *e); /* one hold less */
void store_chain_release(Store *s, StoreChain *c);
/* Bit k: a known tail of 128 k tokens goes on from parent. */
uint32_t store_tails(const Entry *parent);

/* ---- ram.c --------------------------------------------------------------------------- */

uint64_t ram_bytes(const Entry *e);
/* Around every change of what an entry has in memory: takes it out of the sum, and
 * puts it in again as the newest, or nowhere when there is nothing. */
void ram_out(Store *s, Entry *e);
void ram_in(Store *s, Entry *e);
void ram_drop(Store *s, Entry *e); /* frees it */
/* Room for this much more; false: what is there cannot go. */
bool ram_make_room(Store *s, uint64_t bytes);
void ram_wait(Store *s, Entry *e, int64_t due_ns); /* into the writer's queue */
void ram_unwait(Store *s, Entry *e);

/* ---- disk.c -------------------------------------------------------------------------- */

/* Evicts until so many more bytes are within the budget. False: they cannot be. */
bool disk_make_room(Store *s, uint64_t bytes);
void disk_remove_later(Store *s, const ChunkName *name);
uint64_t disk_used(const Store *s);

/* ---- threads ------------------------------------------------------------------------- */

void *store_reader(void *store);
void *store_writer(void *store);
/* Shorter tails of the same beginning go; on_disk: those with files, too. */
void store_supersede(Store *s, Entry *e, bool on_disk);

/* ---- journal.c ----------------------------------------------------------------------- */

/* Without the lock, by the writer's thread: writes what waits. */
void journals_write(Store *s);
bool journals_waiting(Store *s);
void journals_sync(Store *s); /* without the lock */
void journals_close(Store *s);

#endif
