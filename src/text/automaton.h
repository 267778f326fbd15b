/* automaton.h - the pushdown automaton that runs a program.
 *
 * Where it stands is a set of stacks. Stacks share their tails, and equal
 * frames are one frame; sets are numbered, and what each byte leads to is
 * remembered, as are the masks. So the automaton becomes deterministic where
 * it is used, and a position met again costs one lookup. */
#ifndef AUTOMATON_H
#define AUTOMATON_H
#include "program.h"
#include "trie.h"

typedef struct Automaton Automaton;
typedef uint32_t SetId;
#define SET_DEAD ((SetId)0)

enum { SYMBOL_CONTROL = 256, N_SYMBOLS };

/* Both stay borrowed. Its memory is bounded by what automaton_tidy throws away. */
Automaton *automaton_new(const Program *p, const TokenTrie *trie, ds4_err *err);
void automaton_free(Automaton *a);

SetId automaton_start(Automaton *a, NodeId start);
SetId automaton_step(Automaton *a, SetId s, int symbol);
bool automaton_complete(const Automaton *a, SetId s); /* the whole may end here */
/* Memory ran out some time: more may be possible than it has said since. */
bool automaton_failed(const Automaton *a);
/* The ordinary tokens that may follow, [trie->words], until the next call;
 * NULL: no memory. */
uint32_t *automaton_mask(Automaton *a, SetId s);

/* A set that must be known by the same variable when the rest is forgotten.
 * False: no memory. */
bool automaton_pin(Automaton *a, SetId *s);
void automaton_unpin(Automaton *a, SetId *s);
/* Forget what was remembered if it has become too much. */
void automaton_tidy(Automaton *a);

#endif
