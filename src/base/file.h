/* file.h - files as a whole: mapped to read, or written beside their final
 * name and renamed, so that a reader sees all of a file or none of it. */
#ifndef FILE_H
#define FILE_H
#include "bytes.h"

typedef struct {
    const unsigned char *p;
    size_t n;
} Map;

/* Map a regular file read-only. An empty file is an error. */
bool map_open(Map *m, const char *path, ds4_err *err);
void map_close(Map *m);

/* Read a whole file of at most max bytes. */
bool file_read(Bytes *out, const char *path, size_t max, ds4_err *err);

typedef struct {
    int fd;
    bool open;
    char *path, *tmp;
    uint64_t n;
} File;

/* Create path.tmp-PID in the same folder. */
bool file_create(File *f, const char *path, ds4_err *err);
bool file_private(File *f, ds4_err *err); /* nobody but its owner may read or write it */
bool file_write(File *f, const void *p, size_t n, ds4_err *err); /* appends */
bool file_write_at(File *f, uint64_t at, const void *p, size_t n, ds4_err *err);
bool file_commit(File *f, ds4_err *err); /* fsync, rename, fsync of the folder */
void file_release(File *f);              /* removes what was not committed */
/* Whether it could be created now; nothing stays. For what takes hours until it writes. */
bool file_try(const char *path, ds4_err *err);

/* n bytes, in as many pieces as it takes. False: errno says why; EIO where there are fewer. */
bool file_read_at(int fd, uint64_t at, void *to, size_t n);

/* Are both names of one file that is there? */
bool file_same(const char *a, const char *b);

/* For a file that was written in its own way: fsync, rename, fsync of the folder. */
bool file_publish(int fd, const char *tmp, const char *path, ds4_err *err);

/* All folders of the path's file, as needed. The path is written to meanwhile. */
bool file_make_folders(char *path, ds4_err *err);

#endif
