/* content.h - what a message holds, as text.
 *
 * A text and a list of one text part are the same; parts are joined by a blank
 * line, as the renderer joins what makes up a user's turn. So the prompt does
 * not change when a client splits a message up to mark a part of it. What the
 * model cannot see is said in words. */
#ifndef CONTENT_H
#define CONTENT_H
#include "request.h"

/* Parts that start with x-anthropic- are about billing: a system's are dropped. */
enum ContentOf { CONTENT_OF_SYSTEM, CONTENT_OF_OTHERS };

/* content: a string, a list of parts, or nothing. r->list and r->at name the
 * message in errors. */
bool content_text(Request *r, const Json *content, enum ContentOf of, Str *out);
/* One part that is no matter of its own (a call, a result, a thought). */
bool content_part(Request *r, const Json *part, Str *out);

#endif
