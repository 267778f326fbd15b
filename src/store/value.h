/* value.h - what a chunk is worth keeping: expected seconds of prefill that it
 * spares, for each of its bytes. */
#ifndef STORE_VALUE_H
#define STORE_VALUE_H
#include "chunk.h"

/* One more use, now. Uses within a minute are one: steps of one turn. */
void value_touch(ChunkUse *u, int64_t now_s);

/* Uses, each halved every six hours. A clock that went backwards makes no
 * difference until it has caught up. */
double value_uses(const ChunkUse *u, int64_t now_s);

double value_of(const ChunkHead *h, const ChunkUse *u, uint64_t bytes, int64_t now_s);

#endif
