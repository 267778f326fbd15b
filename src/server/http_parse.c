/* http_parse.c - the request as a machine that eats lines and lengths.
 *
 * Head and chunk frames are lines, gathered byte by byte so that a cut makes
 * no difference; bodies are copied in pieces. A byte that no line may have is
 * refused at once: somebody who speaks TLS to us is told so without a wait. */
#include "http_parse.h"
#include <strings.h>

enum State { START, REQUEST, FIELD, HEAD_DONE, BODY, SIZE, CHUNK, CHUNK_END, TRAILER, DONE, BAD };
enum {
    MAX_METHOD = 32,
    MAX_BLANK = 4,    /* bytes of empty lines before a request (RFC 9112, 2.2) */
    MAX_FRAME = 256,  /* a chunk's size with its extensions */
    SIZE_DIGITS = 16, /* of a chunk, hexadecimal */
    LENGTH_DIGITS = 19
};

static enum HttpStep bad(HttpParser *h, int status, const char *code, const char *message)
{
    h->state = BAD;
    h->status = status;
    h->code = code;
    h->message = message;
    return HTTP_BAD;
}

static enum HttpStep malformed(HttpParser *h, const char *message)
{
    return bad(h, 400, "malformed_request", message);
}

static enum HttpStep no_memory(HttpParser *h)
{
    return bad(h, 503, "out_of_memory", "There is no memory for the request");
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* RFC 9110, 5.6.2. */
static bool is_token(char c)
{
    bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    return letter || is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool all_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_token(p[i]))
            return false;
    return n > 0;
}

/* A copy in text, terminated, or nothing where there is no memory; returns where. */
static size_t keep(HttpParser *h, const char *p, size_t n)
{
    size_t at = h->text.n;
    if (bytes_room(&h->text, n + 1)) {
        bytes_put(&h->text, p, n);
        bytes_byte(&h->text, 0);
    }
    return at;
}

bool http_list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t len = strcspn(list, ",");
        size_t bare = len;
        while (bare && (list[bare - 1] == ' ' || list[bare - 1] == '\t'))
            bare--;
        if (bare == n && strncasecmp(list, word, n) == 0)
            return true;
        list += len;
    }
    return false;
}

/* ---- the request line ------------------------------------------------------- */

/* Origin form, or "*" for OPTIONS. An absolute form names a host of its own,
 * which would be a second opinion beside the Host field. */
static enum HttpStep take_target(HttpParser *h, const char *p, size_t n)
{
    bool star = n == 1 && *p == '*' && strcmp(http_parse_method(h), "OPTIONS") == 0;
    if (!star && (n == 0 || *p != '/'))
        return malformed(h, "The request target must be a path: absolute forms are refused");
    for (size_t i = 0; i < n; i++)
        if (p[i] <= ' ' || p[i] > '~' || p[i] == '#')
            return malformed(h, "The request target has a character that no URL has");
    const char *mark = memchr(p, '?', n);
    size_t path = mark ? (size_t)(mark - p) : n;
    h->path = keep(h, p, path);
    h->query = mark ? keep(h, mark + 1, n - path - 1) : keep(h, p, 0);
    if (h->text.failed)
        return no_memory(h);
    h->target_known = true;
    return HTTP_MORE;
}

static enum HttpStep take_request_line(HttpParser *h, const char *p, size_t n)
{
    const char *first = memchr(p, ' ', n);
    size_t method = first ? (size_t)(first - p) : 0;
    if (method > MAX_METHOD || !all_token(p, method))
        return malformed(h, "The request line does not begin with a method");
    keep(h, p, method);
    const char *target = first + 1;
    size_t rest = n - method - 1;
    const char *second = memchr(target, ' ', rest);
    if (!second)
        return malformed(h, "The request line has no version");
    const char *version = second + 1;
    size_t left = rest - (size_t)(version - target);
    bool is_version = left == 8 && memcmp(version, "HTTP/", 5) == 0 && is_digit(version[5]) &&
                      version[6] == '.' && is_digit(version[7]);
    if (!is_version)
        return malformed(h, "The request line does not end in a version");
    if (memcmp(version + 5, "1.1", 3) != 0)
        return bad(h, 505, "http_version", "Only HTTP/1.1 is spoken here");
    h->state = FIELD;
    return take_target(h, target, (size_t)(second - target));
}

/* ---- fields -------------------------------------------------------------------- */

static enum HttpStep take_length(HttpParser *h, const char *value)
{
    size_t n = strlen(value);
    if (h->n_length++)
        return malformed(h, "Content-Length is given twice");
    if (n == 0 || n > LENGTH_DIGITS || strspn(value, "0123456789") != n)
        return malformed(h, "Content-Length is not a number");
    for (size_t i = 0; i < n; i++)
        h->left = h->left * 10 + (uint64_t)(value[i] - '0');
    return HTTP_MORE;
}

static enum HttpStep take_coding(HttpParser *h, const char *value)
{
    if (h->n_coding++)
        return malformed(h, "Transfer-Encoding is given twice");
    if (strcasecmp(value, "chunked") != 0)
        return malformed(h, "Transfer-Encoding is not chunked");
    return HTTP_MORE;
}

static enum HttpStep take_host(HttpParser *h, const char *value)
{
    (void)value;
    return h->n_host++ ? malformed(h, "Host is given twice") : HTTP_MORE;
}

static enum HttpStep take_connection(HttpParser *h, const char *value)
{
    h->close = h->close || http_list_has(value, "close");
    return HTTP_MORE;
}

static enum HttpStep take_expect(HttpParser *h, const char *value)
{
    if (strcasecmp(value, "100-continue") != 0)
        return bad(h, 417, "expectation_failed", "Only 100-continue can be expected");
    h->expect_continue = true;
    return HTTP_MORE;
}

/* What decides about framing and the connection. */
static const struct {
    const char *name;
    enum HttpStep (*take)(HttpParser *h, const char *value);
} special[] = {
    { "content-length", take_length },
    { "transfer-encoding", take_coding },
    { "host", take_host },
    { "connection", take_connection },
    { "expect", take_expect },
};

static enum HttpStep keep_field(HttpParser *h, const char *p, size_t name, const char *value,
                                size_t n)
{
    HttpField f = { .name = keep(h, p, name) };
    f.value = keep(h, value, n);
    if (!h->text.failed)
        bytes_put(&h->fields, &f, sizeof f);
    if (h->text.failed || h->fields.failed)
        return no_memory(h);
    char *key = h->text.p + f.name;
    for (size_t i = 0; i < name; i++)
        if (key[i] >= 'A' && key[i] <= 'Z')
            key[i] = (char)(key[i] | 0x20);
    for (size_t i = 0; i < COUNT(special); i++)
        if (strcmp(key, special[i].name) == 0)
            return special[i].take(h, h->text.p + f.value);
    return HTTP_MORE;
}

static enum HttpStep end_head(HttpParser *h)
{
    if (h->n_host == 0)
        return malformed(h, "Host is missing");
    if (h->n_coding && h->n_length)
        return malformed(h, "Content-Length and Transfer-Encoding are both given");
    if (h->left > h->limits.max_body)
        return bad(h, 413, "request_too_large", "The body is longer than this server takes");
    h->has_body = h->n_coding || h->left;
    h->state = HEAD_DONE;
    return HTTP_HEAD;
}

/* A field of the head, or of the trailers, which are checked and dropped. */
static enum HttpStep take_field(HttpParser *h, const char *p, size_t n)
{
    bool trailer = h->state == TRAILER;
    if (n == 0 && trailer) {
        h->state = DONE;
        return HTTP_DONE;
    }
    if (n == 0)
        return end_head(h);
    if (h->n_fields == (size_t)h->limits.max_fields)
        return bad(h, 431, "too_many_headers", "The request has too many header fields");
    h->n_fields++;
    const char *colon = memchr(p, ':', n);
    size_t name = colon ? (size_t)(colon - p) : 0;
    if (!all_token(p, name))
        return malformed(h, "A header field does not begin with a name and a colon");
    const char *value = colon + 1, *end = p + n;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return trailer ? HTTP_MORE : keep_field(h, p, name, value, (size_t)(end - value));
}

/* ---- chunks ---------------------------------------------------------------------- */

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Digits, then perhaps extensions, which nobody uses and we skip. */
static enum HttpStep take_size(HttpParser *h, const char *p, size_t n)
{
    size_t digits = 0;
    uint64_t size = 0;
    for (; digits < n && hex_value(p[digits]) >= 0 && digits <= SIZE_DIGITS; digits++)
        size = size << 4 | (uint64_t)hex_value(p[digits]);
    if (digits == 0 || digits > SIZE_DIGITS || (digits < n && p[digits] != ';'))
        return malformed(h, "A chunk's size is not a hexadecimal number");
    if (size > h->limits.max_body - h->total)
        return bad(h, 413, "request_too_large", "The body is longer than this server takes");
    h->left = size;
    h->total += size;
    h->state = size ? CHUNK : TRAILER;
    return HTTP_MORE;
}

static enum HttpStep take_chunk_end(HttpParser *h, size_t n)
{
    if (n)
        return malformed(h, "A chunk is longer than its size says");
    h->state = SIZE;
    return HTTP_MORE;
}

/* ---- lines and lengths -------------------------------------------------------------- */

static enum HttpStep take_line(HttpParser *h)
{
    const char *p = h->line.p;
    size_t n = h->line.n - 1; /* without CR */
    switch ((enum State)h->state) {
    case START: return HTTP_MORE; /* an empty line before the request */
    case REQUEST: return take_request_line(h, p, n);
    case SIZE: return take_size(h, p, n);
    case CHUNK_END: return take_chunk_end(h, n);
    default: return take_field(h, p, n);
    }
}

static enum HttpStep check_limits(HttpParser *h)
{
    switch ((enum State)h->state) {
    case START:
        if (h->head_bytes > MAX_BLANK)
            return malformed(h, "Empty lines instead of a request");
        break;
    case REQUEST:
        if (h->line.n > h->limits.max_line)
            return bad(h, 414, "uri_too_long", "The request line is too long");
        break;
    case SIZE:
    case CHUNK_END:
        if (h->line.n > MAX_FRAME)
            return malformed(h, "A chunk's size takes too many bytes");
        break;
    default:
        if (h->head_bytes > h->limits.max_header)
            return bad(h, 431, "headers_too_large", "The header fields are too long");
    }
    return HTTP_MORE;
}

/* One byte of a line: a LF ends it, and only after a CR; no other control
 * character but TAB may be in it. */
static enum HttpStep line_byte(HttpParser *h, char c)
{
    bool after_cr = h->line.n && h->line.p[h->line.n - 1] == '\r';
    if (h->state == START && c != '\r' && c != '\n')
        h->state = REQUEST;
    if (h->state == START || h->state == REQUEST || h->state == FIELD || h->state == TRAILER)
        h->head_bytes++;
    if (c == '\n' && after_cr) {
        enum HttpStep step = take_line(h);
        bytes_clear(&h->line);
        return step;
    }
    if (after_cr || c == '\n')
        return malformed(h, "A line does not end in CR LF");
    if (c == 0x7f || ((unsigned char)c < ' ' && c != '\t' && c != '\r'))
        return malformed(h, c == 0x16 && h->line.n == 0 ? "This is TLS, and the server speaks HTTP"
                                                        : "A control character in the request");
    bytes_byte(&h->line, (unsigned char)c);
    return h->line.failed ? no_memory(h) : check_limits(h);
}

static size_t body_bytes(HttpParser *h, const char *p, size_t n)
{
    size_t take = h->left < n ? (size_t)h->left : n;
    if (!h->discard)
        bytes_put(&h->body, p, take);
    h->left -= take;
    return take;
}

/* The next step from p, of which *used bytes were taken. */
static enum HttpStep advance(HttpParser *h, const char *p, size_t n, size_t *used)
{
    switch ((enum State)h->state) {
    case HEAD_DONE: h->state = h->n_coding ? SIZE : BODY; return HTTP_MORE;
    case BODY:
    case CHUNK:
        *used = body_bytes(h, p, n);
        if (h->body.failed)
            return no_memory(h);
        if (h->left == 0)
            h->state = h->state == BODY ? DONE : CHUNK_END;
        return HTTP_MORE;
    case DONE: return HTTP_DONE;
    case BAD: return HTTP_BAD;
    default: *used = n ? 1 : 0; return n ? line_byte(h, *p) : HTTP_MORE;
    }
}

enum HttpStep http_parse(HttpParser *h, const char *p, size_t n, size_t *used)
{
    enum HttpStep step;
    int before;
    *used = 0;
    h->started = h->started || n;
    do {
        size_t took = 0;
        before = h->state;
        step = advance(h, n > *used ? p + *used : NULL, n - *used, &took);
        *used += took;
    } while (step == HTTP_MORE && (*used < n || h->state != before));
    return step;
}

void http_parse_release(HttpParser *h)
{
    bytes_release(&h->line);
    bytes_release(&h->text);
    bytes_release(&h->fields);
    bytes_release(&h->body);
}

const char *http_parse_method(const HttpParser *h) { return h->text.n ? h->text.p : ""; }

const char *http_parse_path(const HttpParser *h)
{
    return h->target_known ? h->text.p + h->path : "";
}

const char *http_parse_query(const HttpParser *h)
{
    return h->target_known ? h->text.p + h->query : "";
}

const char *http_parse_field(const HttpParser *h, const char *name)
{
    const HttpField *f = (const HttpField *)(const void *)h->fields.p;
    for (size_t i = 0; i < h->fields.n / sizeof *f; i++)
        if (strcasecmp(h->text.p + f[i].name, name) == 0)
            return h->text.p + f[i].value;
    return NULL;
}

bool http_parse_at(const HttpParser *h, size_t i, const char **name, const char **value)
{
    const HttpField *f = (const HttpField *)(const void *)h->fields.p;
    if (i >= h->fields.n / sizeof *f)
        return false;
    *name = h->text.p + f[i].name;
    *value = h->text.p + f[i].value;
    return true;
}
