/* slots.h - resident KV states, and which of them a request gets.
 *
 * A slot is a session of the engine and the conversation that it holds. Where a
 * prompt's beginning is copied from is another question (ladder.h): a slot is
 * chosen so that least is lost. A request gets the slot whose conversation it
 * goes on with; else one that nobody will come back for, an empty one, or the
 * one whose tokens are worth least: few, in the store already, long unused. */
#ifndef SLOTS_H
#define SLOTS_H
#include "generate.h"
#include "../store/store.h"

typedef struct {
    uint64_t own;     /* of session and agent; 0: the client names none */
    uint64_t session; /* of the session alone, which its agents share; 0: none */
    uint64_t parent;  /* the conversation that started this one; 0: none */
} ConversationKey;
ConversationKey key_of(const Turn *t);

/* Tokens that are read again in no time. */
enum { SLOT_LITTLE = 256 };

/* What a prompt's beginning can be had from, and how many tokens of it (ladder.h). */
typedef struct {
    int tokens[N_CACHE_SOURCES];
    int from;         /* the slot of CACHE_FORK */
    StoreFound found; /* pinned; of CACHE_RAM or CACHE_DISK */
} Ladder;

/* What a prompt has found, and why not more (explain.h). */
typedef struct {
    int offered[N_CACHE_SOURCES];
    enum CacheSource source; /* what was taken; N_CACHE_SOURCES: nothing */
    int reused;
    enum CacheMiss miss; /* N_CACHE_MISSES: there is nothing to say */
    int before;          /* tokens that this conversation had; 0: not known */
    int common;          /* of these, so many begin the prompt */
    char place[64];      /* where it goes on otherwise: "turn 3 (user)" */
    Bytes had, now;      /* what came there, what comes now: text, some bytes */
    int given_up;        /* tokens of another conversation, whose slot this was */
    bool store_failed;   /* less came from there than was said to be */
    double ms;           /* to copy or restore it */
} Explanation;

typedef struct {
    ds4_session *session;
    Job *job; /* NULL: free. A reference */
    Generation *answer;
    int64_t used_ns;

    /* the conversation that it holds */
    ConversationKey key;
    AnswerNames names; /* of its last answer */
    bool scratch;      /* a side request's: nobody comes back for it */

    /* how much of that is in the store (saving.h) */
    int chunks;       /* so many tokens need no more looking at; -1: the rest cannot be kept */
    int64_t again_ns; /* before that nothing of it is tried: something could not be kept */
    int kept;         /* up to here it can be brought back */
    bool tail;        /* what is behind the last whole chunk is to be kept, too */
    bool leaving;     /* all of it, and soon: the conversation has to go */
    bool must;        /* or it does not go: who comes is refused */

    /* while somebody is chosen for it */
    int awaited;   /* tokens that a waiting request would have to read if they went */
    bool keepable; /* the store has room for all of it */

    /* the job's way to its first token */
    bool entering;     /* its beginning is not there yet: first all of the old one is kept, */
    int ahead;         /* then 1 + the slot that reads what both begin with, 0: there is none, */
    int ahead_to;      /* has come to this length, */
    int64_t ahead_ns;  /* of the prompt that it began then, */
    Ladder ladder;     /* then the best of these is tried, */
    StoreFetch *fetch; /* and this comes in, if it is that, */
    bool copying;      /* or another slot's state, */
    int copied;        /* of which there are so many tokens' rows */
    StoreFound wanted; /* pinned, lest what is saved pushes out what comes next */
    bool side, named;  /* the job is one; its request names the slot's conversation */
    int64_t entered_ns;
    Explanation why;
    bool decoding;
    int cached, fed;  /* tokens of the prompt: reused, in the session */
    int32_t next;     /* sampled, not yet fed */
    int64_t begun_ns; /* the prefill */
} Slot;

typedef struct {
    Slot *slot;
    int n;
} Slots;

bool slots_open(Slots *s, ds4_engine *e, int n, ds4_err *err);
void slots_close(Slots *s); /* answers are thrown away, jobs dropped */

/* Tokens that a session and a prompt have in common. */
int slot_common(const Slot *s, const Tokens *prompt);

typedef struct {
    Slot *slot;
    bool own;       /* it holds the conversation that the request goes on with */
    bool by_handle; /* which the request names exactly */
    int common;     /* tokens that both have */
    int resident;   /* tokens that it holds */
} SlotChoice;

/* The free slot for a job. side: see side.h; such a one gets none whose conversation would
 * lose more than a little, unless nobody has gone on with that for ten minutes. False: none
 * is free. */
bool slots_choose(const Slots *s, const Job *j, bool side, SlotChoice *out);
/* Is an answer of this session running? */
bool slots_run(const Slots *s, uint64_t session);
/* Has one of them a conversation of it? */
bool slots_know(const Slots *s, uint64_t session);
/* Has nobody gone on with a conversation since for so long that a side request may have its
 * slot? */
bool is_left(int64_t used_ns);

/* The slot's job is over; what it holds stays. */
void slot_leave(Slot *s);

#endif
