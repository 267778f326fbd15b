/* kvrow.h - how one KV row and one index row lie in memory and on disk.
 *
 * With rounding on (the default) a row is stored in the precision the model
 * was trained with, which makes the packing exact:
 *
 *   KV row     codes[nope]        E4M3, blocks of `block` values
 *              tail[rope]         BF16, the rotated dimensions
 *              scale[nope/block]  E8M0
 *              padding to 8 bytes
 *   index row  codes[dim/2]       E2M1 pairs, low nibble first
 *              scale[dim/32]      E8M0
 *
 * For Flash: 448 + 128 + 7 + 1 = 584 bytes and 64 + 4 = 68. With rounding off
 * a row is plain F32. Formulas: docs/MODEL.md; spec sections 3.4 and 3.7. */
#ifndef KVROW_H
#define KVROW_H
#include "../base/base.h"

typedef struct {
    int dim, rope; /* values in all; the last `rope` are rotated */
    int block;     /* FP8 block: 64, or the largest power of two that divides nope */
    bool packed;
    int bytes; /* of one row */
} KvRowFormat;

typedef struct {
    int dim;
    bool packed;
    int bytes;
} IdxRowFormat;

KvRowFormat kvrow_format(int head_dim, int rope_dim, bool packed);
IdxRowFormat idxrow_format(int idx_dim, bool packed);

/* Values to row and back. Packing rounds; unpack(pack(x)) is the model's
 * round trip. The scalar forms are the definition; kernels have faster ones. */
void kvrow_pack(const KvRowFormat *f, void *row, const float *x);
void kvrow_unpack(const KvRowFormat *f, float *x, const void *row);
void idxrow_pack(const IdxRowFormat *f, void *row, const float *x); /* after the Hadamard */
void idxrow_unpack(const IdxRowFormat *f, float *x, const void *row);

/* The FP4 round trip in place, for the indexer's query: n a multiple of 32. */
void fp4_round(float *x, int n);
/* Orthonormal Walsh-Hadamard transform in Sylvester order; n a power of two. */
void hadamard(float *x, int n);

#endif
