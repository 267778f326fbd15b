/* characters.h - bytes that come in pieces, out in whole UTF-8 characters.
 *
 * Law: what comes out does not depend on how the bytes were cut. */
#ifndef CHARACTERS_H
#define CHARACTERS_H
#include "../base/bytes.h"

/* Zero is empty: the beginning of a character that is not whole yet. */
typedef struct {
    char held[4];
    size_t n;
} Characters;

/* Append to out the whole characters of what is held and of text. Bytes that
 * can no longer become a character come out as U+FFFD, one for each; at the
 * end, so does what is held. */
void characters_put(Characters *c, Str text, bool end, Bytes *out);

#endif
