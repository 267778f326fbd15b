/* fetch.h - one file from a web server to its place: all of it, checked, or nothing.
 *
 * What is cut off goes on where it stopped, in this run or a later one, as long as
 * the server still has the same file. */
#ifndef FETCH_H
#define FETCH_H
#include "response.h"

typedef struct {
    const char *url, *path;
    const char *sha256;   /* lower case; NULL: what the server says */
    uint64_t least, most; /* bytes of the file; most 0: any number */
    int patience_s;       /* without a byte */
    int tries;            /* in a row that bring nothing */
} FetchOptions;

typedef struct {
    uint64_t bytes;
    char sha256[SHA256_HEX + 1];
    bool told; /* by the server, and equal */
} Fetched;

/* A URL to be shown and kept: without a user's name and password, and without what follows the
 * path, which may be a signature. */
void fetch_url(char *out, size_t room, const char *url);

/* Where it fails but can go on, the part stays, and a warning says so. */
bool fetch(const FetchOptions *o, Fetched *out, ds4_err *err);

#endif
