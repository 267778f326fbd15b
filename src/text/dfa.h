/* dfa.h - deterministic automata over bytes: the regular parts of a grammar.
 *
 * State 0 is dead and state 1 the start. Every other state reaches an
 * accepting one, so whoever follows one never ends in a blind alley. All that
 * makes one counts its steps in an Effort, which may be NULL. */
#ifndef DFA_H
#define DFA_H
#include "../base/bytes.h"
#include "effort.h"

/* Texts that a vocabulary is mostly made of. A state that takes any such text
 * of k characters takes all tokens of that kind at once. */
enum Tier {
    TIER_PLAIN, /* characters that stand for themselves in JSON, on one line */
    TIER_TEXT,  /* any characters but NUL */
    N_TIERS
};
enum { TIER_CHARS = 16 }; /* the longest text of which a state knows */

#define DFA_DEAD  0u
#define DFA_START 1u
enum { DFA_MAX_STATES = 20000 };

typedef struct {
    uint32_t n_states;
    uint32_t n_classes;
    uint8_t class_of[256];
    uint32_t *next;         /* [n_states][n_classes] */
    bool *accept;           /* [n_states] */
    bool *goes_on;          /* [n_states] has a byte to follow */
    uint8_t *sure[N_TIERS]; /* [n_states] any so many characters of the tier are taken */
} Dfa;

static inline uint32_t dfa_next(const Dfa *d, uint32_t state, unsigned char byte)
{
    return d->next[(size_t)state * d->n_classes + d->class_of[byte]];
}

/* With all arrays but `sure`; class_of and n_classes are the caller's to fill before. */
bool dfa_alloc(Dfa *d, uint32_t n_states, ds4_err *err);
void dfa_release(Dfa *d);
/* Cut off what leads nowhere and fill goes_on and sure. An automaton that
 * accepts nothing has one state. */
bool dfa_finish(Dfa *d, Effort *effort, ds4_err *err);
static inline bool dfa_empty(const Dfa *d) { return d->n_states < 2; }

bool dfa_accepts(const Dfa *d, Str s);

/* Both, or the first and not the second. Both inputs stay. */
bool dfa_and(Dfa *out, const Dfa *a, const Dfa *b, Effort *effort, ds4_err *err);
bool dfa_except(Dfa *out, const Dfa *a, const Dfa *b, Effort *effort, ds4_err *err);
/* One of the n texts. */
bool dfa_words(Dfa *out, const Str *words, size_t n, Effort *effort, ds4_err *err);
/* Texts in which word does not occur. */
bool dfa_without(Dfa *out, Str word, Effort *effort, ds4_err *err);
/* The multiples of k, in decimal digits with an optional sign; 1 <= k <= 10000. */
bool dfa_multiples(Dfa *out, uint32_t k, Effort *effort, ds4_err *err);
/* The same texts as the inside of a JSON string, in the one spelling of json_write. */
bool dfa_json(Dfa *out, const Dfa *a, Effort *effort, ds4_err *err);

#endif
