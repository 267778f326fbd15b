/* repeat.h - the loop breaker: does the model say the same again and again?
 *
 * Three loops are known: a span of tokens within an answer, one call within an
 * answer, and one call in answer after answer. Only exact repetitions count, and
 * only far beyond what anybody wants, since ending a good answer is worse than
 * ending a bad one late. */
#ifndef REPEAT_H
#define REPEAT_H
#include "turn.h"

enum {
    REPEAT_PERIOD = 1024,      /* the longest span that is seen to repeat, in tokens */
    REPEAT_PROSE_TOKENS = 512, /* a loop in prose: so many tokens beyond the first span, */
    REPEAT_PROSE_TIMES = 3,    /* and the span so often again */
    /* The same in a call's value: tables and files full of equal lines are legitimate. */
    REPEAT_VALUE_TOKENS = 8192,
    REPEAT_VALUE_TIMES = 7,
    REPEAT_SAME_CALLS = 8, /* of one answer */
    REPEAT_TURNS = 12,     /* answers in a row: one call, one result */
    REPEAT_CALLS_KEPT = 64 /* different calls of an answer, the last ones */
};

enum RepeatPlace { REPEAT_PROSE, REPEAT_VALUE };

/* The tokens of one answer: zero is the state at its start. */
typedef struct {
    int32_t seen[2 * REPEAT_PERIOD]; /* the last n, of which at least a period is kept */
    /* [REPEAT_PERIOD - p]: tokens up to now that equal the one p before them */
    int32_t run[REPEAT_PERIOD];
    int n;
    enum RepeatPlace place;
} Repeat;

/* The next token, and where it stands; a change of place starts anew. Returns the
 * loop's period in tokens, 0: there is none. Compares REPEAT_PERIOD tokens. */
int repeat_token(Repeat *r, int32_t token, enum RepeatPlace place);

/* The calls of one answer: zero is the state at its start. */
typedef struct {
    struct {
        uint64_t form[2];
        int times;
    } call[REPEAT_CALLS_KEPT];
    size_t n;
} RepeatCalls;

/* A call that is complete: has it been made REPEAT_SAME_CALLS times? */
bool repeat_call(RepeatCalls *r, Str name, Str arguments);

/* The tool that each of the last REPEAT_TURNS answers of the conversation called,
 * alone, with the same arguments and the same result, and nothing from the user
 * between them or after them but reminders; empty: there is none. A view into t. */
Str repeat_turns(const Turn *t);

#endif
