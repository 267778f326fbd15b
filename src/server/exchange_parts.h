/* exchange_parts.h - what the files of an exchange share: exchange_in.c makes it,
 * exchange.c answers, exchange_retry.c keeps it for a client that comes again. */
#ifndef EXCHANGE_PARTS_H
#define EXCHANGE_PARTS_H
#include "exchange.h"
#include <xxhash.h>

struct Exchange {
    Exchange *next, **link;
    Server *server;
    HttpRequest *r; /* NULL: its client is gone, and may come again */
    Job *job;
    Answer *answer;
    TraceFile *trace;
    enum ExchangeKind kind;
    bool streams; /* the head of a stream was sent */
    bool over;    /* the last event was seen */
    int64_t written_ns;

    /* for a client that comes again */
    XXH128_hash_t body; /* its digest */
    int64_t begun_ns;   /* it was seen to have a slot; 0: not yet */
    int64_t left_ns;    /* when the client left */
    enum JobPhase left_phase;
    Bytes sent;    /* of the stream, without signs of life */
    bool too_long; /* that was more than is kept */

    /* for the log, once the end was told */
    const char *finish;
    Usage usage;
};

/* ---- exchange.c */

/* Hands the job to the scheduler, or replies. */
void exchange_answer(Exchange *x);
void exchange_error(Exchange *x, const ApiError *e); /* instead of an answer */
/* An HttpRequest's on_close: the connection is lost. */
void exchange_lost(void *exchange, const char *why);
/* The stream begins with what was sent of it, or with the dialect's beginning. */
void exchange_stream(Exchange *x);
/* Takes events as long as there are any. */
void exchange_drain(Exchange *x);
/* The engine must not go on with it. */
void exchange_give_up(Exchange *x, const char *why);
enum JobPhase exchange_phase(const Exchange *x);
void exchange_count_canceled(const Exchange *x, enum JobPhase phase, const char *why);
/* Nothing of it is left but what the job's other holders need. */
void exchange_leave(Exchange *x, int status, const char *how);
void exchange_free(Exchange *x); /* the same, of which nobody hears */

/* ---- exchange_retry.c */

/* So that it can be sent again. */
void retry_keep(Exchange *x, Str piece);
/* The client is gone: will it be waited for? */
bool retry_wait(Exchange *x, const char *why);
/* Is it the request of a client that has come again? Then x is gone, and the other
 * exchange goes on with its connection. Else answers that nobody hears give way to it. */
bool retry_join(Exchange *x);
/* Of one whose client is gone, once in a while. */
void retry_tick(Exchange *x);

#endif
