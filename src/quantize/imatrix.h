/* imatrix.h - how much each input column of a weight matters: sums of squares of
 * what was multiplied with it, and how many rows were seen. An entry is called
 * like the tensor in a GGUF, and has a row for each of its experts.
 *
 * Two forms of file, both read and written:
 *
 *   GGUF    general.type "imatrix", imatrix.datasets, .chunk_count, .chunk_size, and our own
 *           ds4.imatrix.source; an entry is NAME.in_sum2 F32 [columns, experts] and NAME.counts F32
 *           [1, experts]
 *   legacy  i32 entries; each: i32 length and name, i32 calls, i32 n, f32[n] means times
 *           calls, expert after expert; then perhaps i32 chunks, i32 length and dataset.
 *           An expert that was never seen has equal values.
 *
 *     Imatrix m = { 0 };
 *     ImatrixEntry *e = imatrix_add(&m, STR("blk.0.ffn_up_exps.weight"), 256, 4096, &err);
 *     imatrix_see(e, expert, x);
 *     imatrix_write(&m, "model.imatrix.gguf", &err);
 *     imatrix_release(&m); */
#ifndef IMATRIX_H
#define IMATRIX_H
#include "../base/bytes.h"

enum { IMATRIX_NAME = 128 }; /* bytes of a name, with its end */

typedef struct {
    char name[IMATRIX_NAME];
    int n_experts, n_columns; /* of the legacy form: 1, and all values; see imatrix_shape */
    float *sums;              /* [n_experts][n_columns], of squares, >= 0 */
    float *counts;            /* [n_experts], rows that were seen; 0: never */
} ImatrixEntry;

typedef struct {
    ImatrixEntry *entry;
    size_t n;
    uint64_t chunks, chunk_size; /* pieces of text and their tokens; 0: not known */
    uint64_t source;             /* stands for what was read and by whom; 0: not known */
    char *dataset;               /* names of texts, a line each; NULL: not known */
} Imatrix;

void imatrix_release(Imatrix *m);

/* NULL: none. */
ImatrixEntry *imatrix_find(const Imatrix *m, Str name);
/* A new entry of zeros. Moves the others: what imatrix_find gave is void. */
ImatrixEntry *imatrix_add(Imatrix *m, Str name, int n_experts, int n_columns, ds4_err *err);
/* One more row of n_columns values. */
void imatrix_see(ImatrixEntry *e, int expert, const float *x);
/* Add the name of a text. */
bool imatrix_add_dataset(Imatrix *m, Str name, ds4_err *err);
/* Take the entry as so many experts of so many columns, which the legacy form does
 * not tell; fails when it has another number of values. */
bool imatrix_shape(ImatrixEntry *e, int n_experts, int n_columns, ds4_err *err);
/* Add what another has seen, whose entries may be shaped by it. Entries of one name
 * must have equally many values. */
bool imatrix_merge(Imatrix *to, Imatrix *from, ds4_err *err);

/* Either form. Every value must be finite and >= 0. */
bool imatrix_parse(Imatrix *m, const void *p, size_t n, ds4_err *err);
bool imatrix_read(Imatrix *m, const char *path, ds4_err *err);
/* The legacy form where the path ends with ".dat", else GGUF; atomically. */
bool imatrix_write(const Imatrix *m, const char *path, ds4_err *err);

#endif
