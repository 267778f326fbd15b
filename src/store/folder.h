/* folder.h - a store's directory: who owns it, what lies in it, and its chunk
 * files. Knows nothing of what is in memory.
 *
 *     HEX.kv           a chunk, HEX being its name
 *     NAME.journal     a journal
 *     *.tmp-PID        half-written, of a process that has ended
 *     lock, secret     ours
 *
 * Everything else is foreign: counted, told, never touched. */
#ifndef STORE_FOLDER_H
#define STORE_FOLDER_H
#include "chunk.h"

enum { FOLDER_PATH = 4096 };

typedef struct {
    char dir[FOLDER_PATH - 128];
    int lock;      /* descriptor; -1: not locked */
    bool writable; /* false: read only, and then it is not locked */
} Folder;

/* Makes the directory (0700) where it is missing. to_own: takes the lock, which
 * one process can have; another one's pid is in *err then. */
bool folder_open(Folder *f, const char *dir, bool to_own, ds4_err *err);
void folder_close(Folder *f);
bool folder_path(const Folder *f, const char *file, char out[FOLDER_PATH]);

typedef enum {
    FOLDER_CHUNK, /* head and use are known */
    FOLDER_BAD,   /* named like a chunk, and none: fault says why */
    FOLDER_JOURNAL,
    FOLDER_LEFTOVER, /* half-written */
    FOLDER_OURS,
    FOLDER_FOREIGN, /* bytes: for a folder, of all in it */
} FolderKind;

typedef struct {
    FolderKind kind;
    const char *file; /* within the directory */
    uint64_t bytes;
    ChunkHead head;
    ChunkUse use;
    ChunkFault fault;
    const char *why; /* of the fault */
} FolderFile;
typedef void (*FolderSeen)(void *user, const FolderFile *f);
/* Everything in it, in no order. */
bool folder_scan(const Folder *f, FolderSeen seen, void *user, ds4_err *err);

/* The file "secret": 32 random bytes, made where it is missing. */
bool folder_secret(const Folder *f, uint8_t out[32], ds4_err *err);

/* ---- chunk files ------------------------------------------------------------------ */

/* All of it or nothing; its folder entry is on the disk then. *full: there was no
 * space. */
bool folder_write_chunk(const Folder *f, const ChunkHead *h, const ChunkUse *u,
                        const int32_t *tokens, const void *rows, const void *mark, bool *full,
                        ds4_err *err);

/* Reads rows, mark or both (the pointers that are not NULL; to be freed) of the
 * file that must be that of *want, with these tokens. *bytes: read. */
ChunkFault folder_read_chunk(const Folder *f, const ChunkHead *want, const int32_t *tokens,
                             void **rows, void **mark, uint64_t *bytes, ds4_err *err);
/* Its header, and its tokens, of which there is room for 2,048. */
ChunkFault folder_read_tokens(const Folder *f, const ChunkName *name, ChunkHead *h, ChunkUse *u,
                              int32_t *tokens, ds4_err *err);
/* A whole file, checked as far as it can be without the model. */
ChunkFault folder_verify_chunk(const Folder *f, const ChunkName *name, ds4_err *err);

/* Written in place, not synced: it may be lost, and then counts for less. */
void folder_write_use(const Folder *f, const ChunkHead *h, const ChunkUse *u);
/* False: it is still there. */
bool folder_remove_chunk(const Folder *f, const ChunkName *name);
uint64_t folder_chunk_bytes(const Folder *f, const ChunkName *name); /* 0: there is no such file */

#endif
