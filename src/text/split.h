/* split.h - the pre-tokenizer: three passes over Unicode classes (PCRE2), each
 * re-splitting the pieces of the one before. Spec: encoding 11.2, 11.3. */
#ifndef SPLIT_H
#define SPLIT_H
#include "../base/base.h"

/* Calls piece() for each piece of text in order; their concatenation is the
 * text. Any bytes are accepted: a byte outside well-formed UTF-8 is one
 * character of no class. Stops and returns false when piece() does. */
bool split_text(Str text, bool (*piece)(void *user, Str s), void *user, ds4_err *err);

#endif
