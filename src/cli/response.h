/* response.h - what the header lines of an HTTP response say about a file. */
#ifndef RESPONSE_H
#define RESPONSE_H
#include "../base/base.h"

enum { SHA256_HEX = 64 };

typedef struct {
    int status;
    bool has_length, has_range;
    uint64_t length;             /* Content-Length */
    uint64_t first, last, total; /* Content-Range; total 0: not told */
    char etag[160];              /* a strong one, with its quotes, or "" */
    char modified[64];           /* Last-Modified, or "" */
    int retry_after;             /* seconds */
    /* X-Linked-Etag and -Size of this response or one that redirected to it: stores of large
     * files name them by SHA-256 there. (Other ETags of 64 digits may be anything.) */
    char sha256[SHA256_HEX + 1]; /* lower case, or "" */
    uint64_t linked_size;        /* 0: not told */
} Response;

/* One line after the other, with or without its end. A status line begins a new response. */
void response_line(Response *r, Str line);

/* 64 hex digits, in either case, to lower case. */
bool sha256_parse(char out[SHA256_HEX + 1], Str text);

#endif
