/* kept.h - what outlives a conversation's slot, and with a directory the server: KV
 * states in the store, and beside them what was sampled, responses and tools. */
#ifndef KEPT_H
#define KEPT_H
#include "server_parts.h"

/* Takes the directory, before the model is loaded: a second server on it is refused. */
bool kept_open(Server *s, ds4_err *err);
/* The engine is there: states of this model are meant from now on, and what earlier
 * servers kept is brought back. What cannot be used is said in the log. */
void kept_bind(Server *s, ds4_engine *e, const ds4_vocab *v);
/* The engine was opened again: it must be the same model. */
bool kept_same(Server *s, ds4_engine *e, ds4_err *err);
/* What waits is written until then (clock_ns); after all that uses it. */
void kept_close(Server *s, int64_t until_ns);

/* ,"kv":{...} of /status. */
void kept_status(Server *s, Bytes *out);
/* "12 chunks on disk (130 MB), 3 chunks in memory (30 MB)"; false: nothing is kept. */
bool kept_words(Server *s, char *out, size_t n);
/* For people, when the server is ready. */
void kept_welcome(Server *s);

#endif
