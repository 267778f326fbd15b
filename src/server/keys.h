/* keys.h - API keys, given and from a file. */
#ifndef KEYS_H
#define KEYS_H
#include "../base/bytes.h"

typedef struct {
    const char **key;
    size_t n;
    Bytes text;  /* of the file */
    bool shared; /* other users can read it */
} Keys;

/* The given ones, and one a line of the file (NULL: none); # begins a comment at a line's
 * start or behind a blank, and blank lines count for nothing. A file without a key is refused: it would open
 * the server to everybody. The given ones stay borrowed. */
bool keys_read(Keys *k, const char *path, const char *const *given, size_t n, ds4_err *err);
void keys_release(Keys *k);

#endif
