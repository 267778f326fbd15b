/* nfa.h - automata over bytes that may be in many states at once, as regular
 * expressions are parsed to (Thompson's construction). */
#ifndef NFA_H
#define NFA_H
#include "dfa.h"

enum NfaOp {
    OP_EPS,      /* to a without a byte */
    OP_SPLIT,    /* to a and to b without one */
    OP_BYTES,    /* a byte of lo..hi, to a; lo > hi: none */
    OP_AT_START, /* to a before the first byte */
    OP_AT_END,   /* to a behind the last */
    OP_MATCH     /* the text is taken if it ends here */
};

typedef struct {
    enum NfaOp op;
    uint8_t lo, hi;
    uint32_t a, b; /* state 0 is nowhere */
} NfaState;

typedef struct {
    NfaState *state;
    uint32_t n, cap;
} Nfa;

/* The texts that it takes from this state on. False: too many states, or steps. */
bool nfa_determinise(Dfa *out, const Nfa *nfa, uint32_t start, Effort *effort, ds4_err *err);

#endif
