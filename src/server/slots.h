/* slots.h - resident KV states, and which of them a prompt goes on from.
 *
 * A slot is a session of the engine and the tokens that it holds. A request
 * gets the one of which it uses the most, unless it would throw away more than
 * it uses: a short side request that shares a system prompt must not push a
 * long conversation out. */
#ifndef SLOTS_H
#define SLOTS_H
#include "generate.h"

typedef struct {
    ds4_session *session;
    Job *job; /* NULL: free. A reference */
    Generation *answer;
    int cached, fed; /* tokens of the prompt: reused, in the session */
    bool decoding;
    int32_t next;     /* sampled, not yet fed */
    int64_t begun_ns; /* the prefill */
    int64_t used_ns;
    uint64_t key; /* of the conversation that it holds; 0: unknown */
} Slot;

enum { EVICTED_KEYS = 256 };

typedef struct {
    Slot *slot;
    int n;
    uint64_t evicted[EVICTED_KEYS]; /* keys of conversations that had to go */
    size_t n_evicted;
} Slots;

bool slots_open(Slots *s, ds4_engine *e, int n, ds4_err *err);
void slots_close(Slots *s); /* answers are thrown away, jobs dropped */

/* What was found for a prompt. */
typedef struct {
    Slot *slot;
    int common;   /* tokens that the slot and the prompt have in common */
    int resident; /* tokens that the slot held */
    int reused;   /* tokens kept: up to a place that the session can go back to */
    bool evicts;
    enum CacheSource source;
    enum CacheMiss miss; /* N_CACHE_MISSES: none */
    /* Where a conversation broke: tokens of both sides from there on, of the
     * slot as text in had. Empty: it did not. */
    Bytes had;
} SlotChoice;

/* Gives a free slot to j, and takes its session back to what they share. False:
 * no slot is free. */
bool slots_take(Slots *s, Job *j, const ds4_vocab *v, SlotChoice *out);
/* The slot's job is over; what it holds stays. */
void slot_leave(Slot *s);

/* "the 3rd turn (user)": where in the prompt a token stands. */
void slots_place(const Job *j, const ds4_vocab *v, int at, char out[64]);

#endif
