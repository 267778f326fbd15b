/* kv.h - the KV state of all sessions: layout, sizes, saving, copying.
 *
 * A slot is one session's share of every layer. The state of a timeline of n
 * tokens is: pooled rows 0 .. n/ratio-1, the window's rows, and the pooling
 * inputs of the tokens that no row has pooled yet (plus the previous group of
 * ratio-4 layers). Only pooled rows can be cut back; the rest is kept in marks
 * (resume points), which are cheap at multiples of 128. */
#ifndef KV_H
#define KV_H
#include "../ops/ops.h"

typedef struct {
    const Shape *shape;
    int n_slots, context, ring_rows;
    KvLayer layer[MAX_LAYERS];
    Buf undo[MAX_LAYERS][4];     /* copies of the pooling state, by kv_protect */
} Kv;

/* Bytes of one slot, its undo copy included. */
uint64_t kv_slot_bytes(const Shape *s, int context, int max_rows);

bool kv_init(Kv *kv, const Shape *s, Backend *be, int n_slots, int context, int max_rows,
             ds4_err *err);
void kv_release(Kv *kv, Backend *be);

/* Before and after a step that may be given up half-way: the window ring and
 * pooled rows beyond the length are harmless, the pooling state is not. */
void kv_protect(Kv *kv, Backend *be, int slot);
void kv_undo(Kv *kv, Backend *be, int slot);

/* The part of the state that cannot be cut back (window and pooling inputs),
 * at length n: how many bytes, to host memory, and back. */
size_t kv_mark_bytes(const Kv *kv, int n);
void   kv_mark_save(const Kv *kv, Backend *be, int slot, int n, void *out);
void   kv_mark_load(Kv *kv, Backend *be, int slot, int n, const void *in);

/* The pooled rows [first, last) tokens' worth, layer by layer. */
size_t kv_rows_bytes(const Kv *kv, int n);
void   kv_rows_save(const Kv *kv, Backend *be, int slot, int n, void *out);
void   kv_rows_load(Kv *kv, Backend *be, int slot, int n, const void *in);

#endif
