/* ladder.h - where the beginning of a prompt can be had from.
 *
 * Rungs, cheapest first: the slot's own state as it is; the same, taken back to
 * a mark; another slot's, busy or not, copied on the device; the store's, from
 * memory or from disk. The longest wins wherever it is, of equal ones the
 * cheaper. All compare token ids, so none can give what another would not. */
#ifndef LADDER_H
#define LADDER_H
#include "slots.h"

/* Tokens of a prompt that need no reading where it takes up a slot's state, less than all. */
int slot_reach(const Slot *s, const Tokens *prompt);

/* What all rungs offer for a prompt in this slot: tokens that need no reading, less than
 * the prompt's, since logits come from its last. handle: the slot was named by one.
 * store: NULL is none. */
void ladder_find(Ladder *l, const Slots *s, const Slot *slot, const Tokens *prompt, bool handle,
                 Store *store);
/* N_CACHE_SOURCES: nobody has anything. */
enum CacheSource ladder_best(const Ladder *l);
void ladder_leave(Ladder *l, Store *store); /* what was found may be evicted again */

#endif
