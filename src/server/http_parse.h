/* http_parse.h - an HTTP/1.1 request, read from bytes as they come.
 *
 * Takes any cut of the bytes and comes to the same result; does no I/O. Strict
 * where two readers of the same bytes could disagree about where a request
 * ends (RFC 9112, section 11.2): lines end in CR LF, one length is given and
 * only one, a chunk's size is digits and nothing else. */
#ifndef HTTP_PARSE_H
#define HTTP_PARSE_H
#include "../base/bytes.h"

typedef struct {
    size_t max_line, max_header, max_body; /* bytes */
    int max_fields;
} HttpLimits;

enum HttpStep {
    HTTP_MORE, /* the bytes are used up */
    HTTP_HEAD, /* said once: the fields are known, the body is not */
    HTTP_DONE, /* the request is complete; bytes left over belong to the next */
    HTTP_BAD   /* status and message say why; nothing more can be read */
};

typedef struct {
    size_t name, value; /* where in text; the name in lower case */
} HttpField;

/* Zero, and then limits set, is a parser that has read nothing. */
typedef struct {
    HttpLimits limits;
    int state;
    Bytes line;         /* of the head or of a chunk's frame, as far as it came */
    Bytes text;         /* method, path, query, names and values, terminated */
    Bytes fields;       /* HttpField[n_fields] */
    size_t n_fields;    /* of trailers too, which are not kept */
    size_t path, query; /* where in text */
    size_t head_bytes;
    Bytes body;
    uint64_t left, total; /* of the body or chunk; of all chunks so far */
    unsigned n_host, n_length, n_coding;
    bool started; /* a byte of it has come */
    bool target_known, has_body, close, expect_continue;
    bool discard; /* set by the caller at HTTP_HEAD: keep nothing of the body */
    int status;   /* of HTTP_BAD */
    const char *code, *message;
} HttpParser;

/* Reads from p as far as it can; *used says how many bytes that took. */
enum HttpStep http_parse(HttpParser *h, const char *p, size_t n, size_t *used);
void http_parse_release(HttpParser *h);

/* Valid from HTTP_HEAD on, and also at HTTP_BAD as far as they were read: "". */
const char *http_parse_method(const HttpParser *h);
const char *http_parse_path(const HttpParser *h);
const char *http_parse_query(const HttpParser *h);
/* The first field of that name, in any case, or NULL. */
const char *http_parse_field(const HttpParser *h, const char *name);
/* The i-th field; false: there are not so many. */
bool http_parse_at(const HttpParser *h, size_t i, const char **name, const char **value);

/* Whether a comma-separated list has the word, in any case. */
bool http_list_has(const char *list, const char *word);

#endif
