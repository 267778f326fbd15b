/* events.h - an answer's events on their way from the engine's thread to the
 * network's: a bounded queue. The engine never waits for a client: what does
 * not fit any more is refused, and the answer given up. */
#ifndef EVENTS_H
#define EVENTS_H
#include "turn.h"
#include <pthread.h>

typedef struct EventNode EventNode;
struct EventNode {
    EventNode *next;
    Event event; /* its texts are the node's own */
    Bytes bytes;
    char *kept; /* its other texts, and logprobs */
    size_t n_kept;
    ApiError error;
};

typedef struct {
    pthread_mutex_t mutex;
    EventNode *first, *last;
    size_t n, bytes; /* waiting, with all that comes with a text */
    size_t most;     /* bytes */
} EventQueue;

void events_init(EventQueue *q, size_t most_bytes);
void events_release(EventQueue *q);
void events_limit(EventQueue *q, size_t most_bytes); /* from now on */
/* A copy of *e at the end. Many pieces of one text that wait become one, and much progress. False:
 * more than most_bytes wait, or there is no memory; ends are always taken. */
bool events_put(EventQueue *q, const Event *e);
/* The oldest, to be freed by the caller; NULL: none waits. */
EventNode *events_take(EventQueue *q);
void event_node_free(EventNode *n);

#endif
