/* part.h - a file that takes hours to write: PATH.part until it is whole, and a journal
 * beside it, PATH.part.journal, so that the same work can be taken up where it was left.
 *
 * Bytes are written in order. The journal is lines of text: the identity of the work, then
 * "done N" whenever the first N bytes are on the disk; a line without its end does not count. */
#ifndef PART_H
#define PART_H
#include "../base/bytes.h"

typedef struct {
    int fd, journal;
    char *path, *part, *log;
    uint64_t done;   /* bytes that an earlier attempt has written */
    uint64_t marked; /* the last "done" */
} Part;

/* identity: a line of text for all that decides about the bytes. What another work has left is an
 * error; restart: it is thrown away instead. Only one process has a part. */
bool part_open(Part *p, const char *path, const char *identity, bool restart, ds4_err *err);
bool part_write(Part *p, uint64_t at, const void *data, size_t n, ds4_err *err);
bool part_read(const Part *p, uint64_t at, void *data, size_t n, ds4_err *err);
/* The bytes up to here are to last. */
bool part_mark(Part *p, uint64_t done, ds4_err *err);
/* The file is whole: sync, rename, and the journal goes. */
bool part_commit(Part *p, ds4_err *err);
/* keep: for another attempt; else what was not committed is removed. */
void part_close(Part *p, bool keep);

#endif
