/* split.h - the pre-tokenizer: three passes over Unicode classes (PCRE2), each
 * re-splitting the pieces of the one before. Spec: encoding 11.2, 11.3. */
#ifndef SPLIT_H
#define SPLIT_H
#include "../base/base.h"

/* The compiled patterns; immutable, so threads may share one. */
typedef struct Splitter Splitter;

Splitter *split_new(ds4_err *err);
void split_free(Splitter *s); /* NULL is fine */

/* Calls piece() for each piece of text in order; their concatenation is the
 * text, and each is a view of it. Any bytes are accepted: a byte outside
 * well-formed UTF-8 is one character of no class. Stops and returns false when
 * piece() does. */
bool split_text(const Splitter *s, Str text, bool (*piece)(void *user, Str s), void *user,
                ds4_err *err);

#endif
