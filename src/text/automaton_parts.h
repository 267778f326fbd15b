/* automaton_parts.h - what the files of the automaton share.
 *
 *      automaton.c           where a byte leads to, and what is reached without one
 *      automaton_tables.c    frames and sets by number
 *      automaton_mask.c      the tokens that may follow
 *
 * A set is built by begin_set, keep for each frame of it, and intern_set. */
#ifndef AUTOMATON_PARTS_H
#define AUTOMATON_PARTS_H
#include "automaton.h"

/* These stop a step: what would have followed then counts as impossible. */
enum { HARD_FRAMES = 1 << 20, HARD_SETS = 1 << 16, MAX_SET = 4096 };
#define UNKNOWN UINT32_MAX

typedef struct {
    uint64_t data; /* bytes read, state of a DFA, or the set of members */
    NodeId node;
    uint32_t parent; /* frame 0 is below all others */
    uint32_t count;  /* characters, members, items */
    uint32_t depth;
} Frame;

typedef struct {
    uint32_t at, n; /* its frames in the pool, in order */
    uint32_t hash;
    SetId *next;                /* [N_SYMBOLS] or NULL */
    uint32_t *mask, *near_mask; /* [words] or NULL; near: without the long tokens */
    SetId distant;              /* the set with counts far from limits made equal; UNKNOWN */
    bool complete;
    uint8_t sure[N_TIERS];
} Set;

typedef struct {
    Frame *frame;
    uint32_t n, cap;
    uint32_t *slot, mask; /* open addressing, 0: empty */
    uint32_t *seen;       /* [cap] the round that met it */
    bool no_memory;
} Frames;

typedef struct {
    Set *set;
    uint32_t n, cap;
    uint32_t *slot, mask;
    Bytes pool; /* uint32_t */
    bool no_memory;
} Sets;

struct Automaton {
    const Program *p;
    const TokenTrie *trie;
    Frames frames;
    Sets sets;
    uint32_t round;
    uint32_t *work; /* [HARD_FRAMES] frames to be looked at */
    uint32_t n_work, cap_work;
    uint32_t found[MAX_SET], n_found;
    bool complete; /* of the set being built */
    uint32_t n_masks;
    SetId **pin;
    size_t n_pins;
    bool no_memory; /* elsewhere, or in tables that are gone */
};

/* Frame i of a set. */
static inline uint32_t set_frame(const Automaton *a, SetId s, uint32_t i)
{
    uint32_t f;
    memcpy(&f, a->sets.pool.p + (a->sets.set[s].at + (size_t)i) * sizeof f, sizeof f);
    return f;
}

/* One frame more of the set being built. */
static inline void keep(Automaton *a, uint32_t f)
{
    if (a->n_found < MAX_SET)
        a->found[a->n_found++] = f;
}

/* ---- automaton.c ------------------------------------------------------------------- */

void begin_set(Automaton *a);

/* ---- automaton_tables.c ------------------------------------------------------------ */

bool frames_init(Frames *t);
void frames_release(Frames *t);
uint32_t intern_frame(Frames *t, Frame f); /* the number of a frame; 0: no room */

bool sets_init(Sets *t);
void sets_release(Sets *t);
/* The set of the frames found; SET_DEAD also when there is no room for it. */
SetId intern_set(Automaton *a);

#endif
