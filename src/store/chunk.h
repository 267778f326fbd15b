/* chunk.h - bytes of a chunk file and what they mean; no I/O. docs/KVSTORE.md
 * has the table of offsets. */
#ifndef STORE_CHUNK_H
#define STORE_CHUNK_H
#include "name.h"

enum {
    CHUNK_VERSION = 1,
    CHUNK_HEAD = 128, /* what never changes */
    CHUNK_USE = 24,   /* how much it was used: written again and again */
    CHUNK_SUM = 8,    /* XXH3-64 after each section */
};

typedef struct {
    ChunkModel model;
    ChunkName name, parent;
    int first, n; /* tokens [first, first + n) of the timeline */
    uint64_t rows_bytes, mark_bytes;
    int64_t created_s; /* Unix time */
} ChunkHead;

typedef struct {
    int64_t used_s; /* last use, Unix time */
    uint32_t hits;  /* times it was fetched */
    float weight;   /* uses, decayed to used_s: value.h */
} ChunkUse;

typedef enum {
    CHUNK_OK,
    CHUNK_BAD_HEADER, /* no chunk, or what it says of itself is impossible */
    CHUNK_BAD_VERSION,
    CHUNK_BAD_SIZE, /* the file is not as long as its header says, or not the model's */
    CHUNK_BAD_CHECKSUM,
    CHUNK_BAD_NAME,   /* other tokens, or another place in a chain, than its name says */
    CHUNK_UNREADABLE, /* the system would not, or there is no memory */
    CHUNK_GONE,       /* no such file */
    N_CHUNK_FAULTS
} ChunkFault;
const char *chunk_fault_name(ChunkFault f); /* for people */

/* Where a file's sections begin, and its length. */
typedef struct {
    uint64_t tokens, rows, mark, end;
} ChunkPlaces;
/* False: such a file cannot be. */
bool chunk_places(const ChunkHead *h, ChunkPlaces *out);

void chunk_write_head(const ChunkHead *h, unsigned char out[CHUNK_HEAD]);
void chunk_write_use(const ChunkHead *h, const ChunkUse *u, unsigned char out[CHUNK_USE]);

/* The first bytes of a file of file_bytes. A use record that is damaged is
 * taken as one use when it was made: *use_ok. Nothing is believed that the
 * file's length does not bear out. */
ChunkFault chunk_read_head(ChunkHead *h, ChunkUse *u, bool *use_ok, const unsigned char *p,
                           size_t n, uint64_t file_bytes, ds4_err *err);

/* The checksum of one section; its seed is the name, so that a section of
 * another chunk is no good here. */
uint64_t chunk_sum(const ChunkHead *h, const void *p, size_t n);

/* A whole file in memory: everything that can be checked without the model. */
ChunkFault chunk_verify(const unsigned char *p, size_t n, ChunkHead *h, ds4_err *err);

#endif
