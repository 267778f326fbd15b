/* explain.h - why a prompt found no more of its conversation.
 *
 * The tokens that a conversation had are compared with its next prompt: those
 * of its slot, or, once it had to leave it, a copy of them that is kept for
 * this (tokens are small beside their state). */
#ifndef EXPLAIN_H
#define EXPLAIN_H
#include "slots.h"

/* Conversations that have left their slots, the latest first to be found. */
typedef struct Past Past;
Past *past_new(ds4_err *err);
void past_free(Past *p); /* NULL is fine */
/* The conversation has to go, and its tokens are remembered if it has a key. */
void past_keep(Past *p, const Slot *slot);

/* Before anything of the slots is changed: what this job's conversation had, and where the
 * prompt breaks with it. slot: the one that it gets; its conversation may be another. A side
 * request has none. */
void explain_break(Explanation *e, const Slots *s, const Past *p, const Slot *slot, const Job *j,
                   const ds4_vocab *v, bool side);
/* So much came, from there. */
void explain_reuse(Explanation *e, const Job *j, int reused, enum CacheSource source);
void explanation_release(Explanation *e);

/* For the log, after "req_... cache: ". */
void explain_line(const Explanation *e, const Job *j, int slot, Bytes *out);
/* A JSON object. */
void explain_json(const Explanation *e, const Job *j, Bytes *out);

#endif
