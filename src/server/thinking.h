/* thinking.h - how much to think, from all the ways in which clients say it. */
#ifndef THINKING_H
#define THINKING_H
#include "request.h"

/* The strongest level reasons at such length that in a smaller context it would
 * not come to an answer. */
enum { CONTEXT_OF_MAX = 393216 };

/* What a request says of it; zero: nothing. */
typedef struct {
    bool off, on;
    int effort; /* enum ChatThink; CHAT_THINK_OFF: not said */
} ThinkWish;

/* The name of an effort: "low", "max"; "none" is off. */
bool thinking_effort(Request *r, const Json *name, const char *param, ThinkWish *w);
/* thinking: {type, budget_tokens, display}, of two APIs. */
bool thinking_object(Request *r, ThinkWish *w);
/* Explicit off wins, then effort, then on, then the model's name, then the
 * server's default. The strongest needs a large context. */
void thinking_settle(Request *r, const ThinkWish *w);

#endif
