/* table.h - all chunks that are known, by name and as a tree. No locks, no I/O.
 *
 * An entry that is not `known` is a name only: the root, a parent that is not
 * here, or one that went while somebody had it pinned. It goes away by itself
 * when nothing needs it. So a chunk whose parent was lost is found again as
 * soon as the parent comes back. Until then that name hangs below the root. */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H
#include "chunk.h"

typedef struct Entry Entry;
struct Entry {
    Entry *next; /* of its bucket */
    Entry *parent, *child, *sibling, **link;
    ChunkHead head;
    ChunkUse use;

    bool known, on_disk;
    uint64_t file_bytes;
    int pins;     /* it stays known, on the disk or in memory */
    int reserved; /* of these, for requests that wait */
    int holds;    /* what is in memory stays there */

    /* in memory: NULL where it is not */
    int32_t *tokens;
    void *rows, *mark;
    Entry *newer, *older; /* by last use of that; ram.h */
    bool in_ram;          /* in that list */

    /* on its way to the disk */
    bool waiting, busy, doomed; /* busy: being written; doomed: to be removed then */
    int64_t due_ns;
    Entry *next_waiting;

    bool use_changed; /* the file does not have it yet */
};

typedef struct {
    Entry **bucket;
    size_t mask, n;
    Entry root;
} Table;

bool table_init(Table *t);
void table_release(Table *t); /* frees what is in memory as well */

Entry *table_find(const Table *t, const ChunkName *name);
/* The entry of this chunk, known from now on, below its parent's; what is not in
 * *head is left as it was, or empty. NULL: no memory, or it fits no tree. */
Entry *table_add(Table *t, const ChunkHead *head);
/* Known no more: its memory must have been given back. The entry may be gone. */
void table_forget(Table *t, Entry *e);
/* Unless something needs an entry that is not known, it goes. */
void table_tidy(Table *t, Entry *e);

/* Does a known chunk go on from it? */
bool table_is_leaf(const Entry *e);
/* The next entry of the tree below (and with) top, parents first; NULL: no more. */
Entry *table_next(const Entry *top, const Entry *e);

bool table_is_tail(const Entry *e);

#endif
