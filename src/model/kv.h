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
    Buf undo[MAX_LAYERS][4]; /* copies of the pooling state, by kv_protect */
} Kv;

/* Bytes of one slot, its undo copy included. */
uint64_t kv_slot_bytes(const Shape *s, int context, int max_rows);

bool kv_init(Kv *kv, const Shape *s, Backend *be, int n_slots, int context, int max_rows,
             ds4_err *err);
void kv_release(Kv *kv, Backend *be);

/* Around a step that may be given up half-way and takes slot from length pos
 * to pos + n: the window ring and pooled rows beyond the length are harmless,
 * the pooling inputs are not, where the step goes on beyond their group. */
void kv_protect(Kv *kv, Backend *be, int slot, int pos, int n);
void kv_undo(Kv *kv, Backend *be, int slot, int pos, int n);

/* State leaves and enters as pieces of device memory, always in the same
 * order, so that a copy in host memory, a file and the sizes agree. */
typedef bool (*KvPiece)(void *user, Buf piece, size_t bytes);

/* The part of the state that cannot be cut back (window and pooling inputs),
 * at length n. Stops and returns false when fn does. */
bool kv_mark_walk(const Kv *kv, int slot, int n, KvPiece fn, void *user);
/* The pooled rows that tokens [first, last) complete. */
bool kv_rows_walk(const Kv *kv, int slot, int first, int last, KvPiece fn, void *user);

uint64_t kv_mark_bytes(const Kv *kv, int n);
uint64_t kv_rows_bytes(const Kv *kv, int first, int last);

/* Before there is a state: bytes of a mark at length n, and of the largest at any length. */
uint64_t kv_mark_plan(const Shape *s, int n);
uint64_t kv_mark_most(const Shape *s);

/* To host memory of kv_mark_bytes() or kv_rows_bytes(), and back. */
void kv_mark_save(const Kv *kv, Backend *be, int slot, int n, void *out);
void kv_mark_load(const Kv *kv, Backend *be, int slot, int n, const void *in);
void kv_rows_save(const Kv *kv, Backend *be, int slot, int first, int last, void *out);
void kv_rows_load(const Kv *kv, Backend *be, int slot, int first, int last, const void *in);

/* The same from slot to slot, within the device. */
void kv_mark_copy(const Kv *kv, Backend *be, int to, int from, int n);
void kv_rows_copy(const Kv *kv, Backend *be, int to, int from, int first, int last);

#endif
