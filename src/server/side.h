/* side.h - requests that run beside a conversation: titles, summaries of a line.
 *
 * A side request is short, begins anew, has no tools, and is asked for a title,
 * with little effort, or while an answer of the same session runs. It gets a
 * slot that nobody will come back to, reads its prompt between the pieces of
 * longer ones, and leaves nothing that would be kept. */
#ifndef SIDE_H
#define SIDE_H
#include "job.h"

enum { SIDE_PROMPT = 4096 }; /* tokens at most */

/* session_runs: an answer of the same session does. */
bool is_side_request(const Job *j, bool session_runs);
/* Of such a one: can it not be the beginning of a conversation, too? session_here: one of
 * the same session has a slot. That an answer of it runs says nothing: that is over when it
 * is this one's turn, and a name may be a user's who asks two things at once. */
bool is_surely_side(const Job *j, bool session_here);

#endif
