/* journal.h - small records beside the chunks, in files that are appended to.
 *
 * A journal is a map from 64-bit keys, which the caller chooses, to records of
 * any bytes, kept in NAME.journal of the store's directory. The owner has the
 * records in memory; the journal only brings them back after a restart. So
 * there is no way to read one: they are told, oldest first, when it is opened.
 *
 * Writing is done by the store's writer thread and never waited for; a crash
 * loses the last moment's records, a damaged one is lost alone, a torn end is
 * cut off. Where more than half of a file is dead (replaced or dropped) it is
 * written anew. When what lives exceeds max_bytes, the oldest go.
 *
 * All calls may be made by any thread, and do nothing where j is NULL. */
#ifndef JOURNAL_H
#define JOURNAL_H
#include "store.h"

typedef struct Journal Journal;

typedef struct {
    const char *name;   /* small letters only: the file is NAME.journal */
    uint32_t version;   /* of the records' form; a file of another one is begun anew */
    uint64_t max_bytes; /* of live records */
    size_t max_record;  /* longer ones are not kept; at most 64 MiB */
    /* Called by journal_open for each live record, in the order of their writing. */
    void (*each)(void *user, uint64_t key, Str record);
    void *user;
} JournalOptions;

/* NULL with *err where the store has no directory or the file cannot be used;
 * the caller goes on without. Closed by store_close. */
Journal *journal_open(Store *s, const JournalOptions *opt, ds4_err *err);

/* The record of this key from now on, and the newest one. Copied. False: it is
 * too long, or what waits to be written is more than 64 MiB. */
bool journal_put(Journal *j, uint64_t key, Str record);
void journal_drop(Journal *j, uint64_t key);

typedef struct {
    uint64_t records, live_bytes, file_bytes;
    uint64_t damaged; /* places where records were lost, at open */
    uint64_t lost;    /* records not kept: too long, no room, a failed write */
} JournalCounters;
void journal_counters(Journal *j, JournalCounters *out);

#endif
