/* name.h - the address of a chunk: which model, and which tokens from the first
 * one on. No security boundary: who reads a chunk compares its tokens. */
#ifndef STORE_NAME_H
#define STORE_NAME_H
#include "../base/base.h"

typedef struct {
    uint8_t sha[20]; /* zeros: before the first chunk */
} ChunkName;

/* What makes states of the same tokens differ. */
typedef struct {
    uint8_t fingerprint[32];
    uint32_t numerics;
} ChunkModel;

/* SHA-1 of: the parent's name in hex (40 bytes), the fingerprint (32), the
 * numerics (u32) and n tokens (i32) of this chunk. At most 2,048 tokens. False:
 * no memory. */
bool name_of(ChunkName *out, const ChunkName *parent, const ChunkModel *m, const int32_t *tokens,
             int n);

bool name_eq(const ChunkName *a, const ChunkName *b);
bool name_none(const ChunkName *n);
void name_hex(const ChunkName *n, char out[41]);
/* Exactly 40 hex digits, lower case. */
bool name_read(ChunkName *out, const char *hex, size_t n);

#endif
