/* collect.h - the events of one answer put together, for a reply that is sent
 * as a whole. */
#ifndef COLLECT_H
#define COLLECT_H
#include "dialect.h"

typedef struct {
    char id[64];
    const Tool *tool; /* NULL: nobody declared it */
    Bytes name;       /* as the client sees it */
    Bytes arguments;
    bool whole; /* its end was told */
} CollectedCall;

typedef struct {
    Bytes reasoning, text;
    bool thought; /* there was reasoning, if only an empty one */
    Bytes handle; /* of the reasoning */
    CollectedCall *calls;
    size_t n_calls, cap;
    bool failed;   /* no memory */
    bool finished; /* end holds EV_FINISH */
    Event end;     /* its stop_sequence lies in stop */
    Bytes stop;
} Collected;

void collect(Collected *c, const Event *e);
void collect_release(Collected *c);

/* The name that the client knows a begun call by. */
Str collect_name(const Event *e);

#endif
