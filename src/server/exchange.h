/* exchange.h - one HTTP request for an answer, on the network thread: from its
 * arrival to the last byte, or to the moment its client is gone. */
#ifndef EXCHANGE_H
#define EXCHANGE_H
#include "server_parts.h"

enum ExchangeKind { EXCHANGE_ANSWER, EXCHANGE_COUNT, EXCHANGE_PREFETCH };

/* Takes the request over. */
void exchange_begin(Server *s, HttpRequest *r, const Dialect *d, enum Api api,
                    enum ExchangeKind kind);
/* Once in a while: heartbeats, and the longest wait in the queue. */
void exchanges_tick(Server *s);
/* All that still run end with an error of their API. */
void exchanges_end(Server *s);

/* By request id, or by a response's id: ends it. False: there is none. */
bool exchange_cancel(Server *s, Str id);

/* An error as a whole reply, in the form of the dialect. */
void exchange_refuse(HttpRequest *r, const Dialect *d, const ApiError *e);
/* The server cannot answer now: 503, and why. */
bool exchange_possible(Server *s, ApiError *e);
/* Nor a request with a body of so many bytes, while others' are being read. */
bool exchange_fits(Server *s, size_t bytes, ApiError *e);

#endif
