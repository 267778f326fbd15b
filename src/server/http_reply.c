/* http_reply.c - what a handler can ask of a request, and say to it. */
#include "http_conn.h"
#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- the request ------------------------------------------------------------ */

const char *http_method(const HttpRequest *r) { return http_parse_method(&r->parse); }
const char *http_path(const HttpRequest *r) { return http_parse_path(&r->parse); }
const char *http_query(const HttpRequest *r) { return http_parse_query(&r->parse); }
Str http_body(const HttpRequest *r) { return bytes_view(&r->parse.body); }
const char *http_request_id(const HttpRequest *r) { return r->id; }
const char *http_peer(const HttpRequest *r) { return r->c->peer; }

const char *http_header(const HttpRequest *r, const char *name)
{
    return http_parse_field(&r->parse, name);
}

bool http_field(const HttpRequest *r, size_t i, const char **name, const char **value)
{
    return http_parse_at(&r->parse, i, name, value);
}

Bytes http_take_body(HttpRequest *r)
{
    Bytes body = r->parse.body;
    r->parse.body = (Bytes){ 0 };
    conn_count_body(r);
    return body;
}

void http_on_close(HttpRequest *r, void (*fn)(void *arg, const char *why), void *arg)
{
    r->on_close = fn;
    r->on_close_arg = arg;
}

void http_on_room(HttpRequest *r, void (*fn)(void *arg), void *arg)
{
    r->on_room = fn;
    r->on_room_arg = arg;
}

/* ---- the head of a reply -------------------------------------------------------- */

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    { 200, "OK" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 413, "Content Too Large" },
    { 414, "URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 422, "Unprocessable Content" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 503, "Service Unavailable" },
    { 505, "HTTP Version Not Supported" },
    { 529, "Overloaded" },
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < COUNT(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return status < 400 ? "OK" : "Error";
}

/* A line end in a value would begin a field of somebody else's choice. */
static void put_field(Bytes *b, const char *name, const char *value)
{
    bytes_str(b, name);
    bytes_str(b, ": ");
    for (; *value; value++)
        bytes_byte(b, (unsigned char)*value < ' ' || *value == 0x7f ? ' ' : (unsigned char)*value);
    bytes_str(b, "\r\n");
}

void http_set(HttpRequest *r, const char *name, const char *value)
{
    put_field(&r->fields, name, value);
}

/* RFC 9110, 5.6.7; strftime would ask the locale. */
static void put_date(Bytes *b)
{
    static const char days[] = "SunMonTueWedThuFriSat",
                      months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm t;
    if (!gmtime_r(&now, &t))
        return;
    bytes_printf(b, "date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n", days + 3 * t.tm_wday,
                 t.tm_mday, months + 3 * t.tm_mon, t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

/* The client's own id is given back when it is short and printable. */
static const char *echo_id(const HttpRequest *r)
{
    const char *id = http_header(r, "x-request-id");
    size_t n = id ? strlen(id) : 0;
    for (size_t i = 0; i < n; i++)
        if (id[i] < ' ' || id[i] > '~')
            return r->id;
    return n > 0 && n <= 128 ? id : r->id;
}

static void put_origin(Bytes *b, const HttpRequest *r)
{
    const Access *a = &r->c->h->access;
    const char *origin = access_origin(a, http_header(r, "origin"));
    if (a->n_origins)
        put_field(b, "vary", "Origin");
    if (!origin)
        return;
    put_field(b, "access-control-allow-origin", origin);
    put_field(b, "access-control-expose-headers", "request-id, x-request-id, retry-after");
}

/* length NULL: chunked. */
static void put_head(Bytes *b, const HttpRequest *r, int status, const char *type,
                     const size_t *length)
{
    bytes_printf(b, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    put_date(b);
    if (type)
        put_field(b, "content-type", type);
    if (!length)
        put_field(b, "transfer-encoding", "chunked");
    else if (status != 204)
        bytes_printf(b, "content-length: %zu\r\n", *length);
    put_field(b, "request-id", r->id);
    put_field(b, "x-request-id", echo_id(r));
    if (r->c->close || r->c->h->draining)
        put_field(b, "connection", "close");
    put_origin(b, r);
    bytes_put(b, r->fields.p, r->fields.n);
    bytes_str(b, "\r\n");
    b->failed = b->failed || r->fields.failed;
}

/* ---- whole replies ---------------------------------------------------------------- */

static bool is_head(const HttpRequest *r) { return strcmp(http_method(r), "HEAD") == 0; }

/* What is written goes out together; false when there is no memory for it. */
static bool send_bytes(HttpRequest *r, Str s)
{
    conn_watch(r->c);
    return bufferevent_write(r->c->bev, s.p, s.n) == 0;
}

void http_reply(HttpRequest *r, int status, const char *type, Str body)
{
    Bytes head = { 0 };
    if (r->c->dead || r->ended)
        return;
    put_head(&head, r, status, type, &body.n);
    bool ok = !head.failed && send_bytes(r, bytes_view(&head)) &&
              (is_head(r) || body.n == 0 || send_bytes(r, body));
    bytes_release(&head);
    r->ended = true;
    if (ok)
        conn_replied(r->c);
    else
        conn_abort(r->c, "no_memory");
}

void reply_error(HttpRequest *r, int status, const char *code, const char *message)
{
    Http *h = r->c->h;
    Bytes body = { 0 };
    if (status == 401)
        http_set(r, "www-authenticate", "Bearer");
    if (status == 503)
        http_set(r, "retry-after", "1");
    if (h->error)
        h->error(h->user, r, status, code, message, &body);
    else
        bytes_printf(&body, "%s\n", message);
    http_reply(r, status, h->error ? "application/json" : "text/plain", bytes_view(&body));
    bytes_release(&body);
}

void reply_options(HttpRequest *r)
{
    static const char methods[] = "GET, POST, DELETE, OPTIONS";
    const char *asked = http_header(r, "access-control-request-headers");
    http_set(r, "allow", methods);
    if (access_origin(&r->c->h->access, http_header(r, "origin"))) {
        http_set(r, "access-control-allow-methods", methods);
        http_set(r, "access-control-max-age", "600");
        if (asked)
            http_set(r, "access-control-allow-headers", asked);
    }
    http_reply(r, 204, NULL, (Str){ 0 });
}

/* ---- streams -------------------------------------------------------------------------- */

void http_begin(HttpRequest *r, int status, const char *type)
{
    Bytes head = { 0 };
    if (r->c->dead || r->begun)
        return;
    r->begun = true;
    put_head(&head, r, status, type, NULL);
    if (head.failed || !send_bytes(r, bytes_view(&head)))
        conn_abort(r->c, "no_memory");
    bytes_release(&head);
}

size_t http_pending(const HttpRequest *r)
{
    return evbuffer_get_length(bufferevent_get_output(r->c->bev));
}

bool http_congested(const HttpRequest *r) { return r->congested; }

bool http_write(HttpRequest *r, Str chunk)
{
    char size[24];
    Conn *c = r->c;
    if (c->dead)
        return false;
    if (chunk.n == 0 || is_head(r))
        return true;
    int n = snprintf(size, sizeof size, "%zx\r\n", chunk.n);
    if (!send_bytes(r, (Str){ size, (size_t)n }) || !send_bytes(r, chunk) ||
        !send_bytes(r, STR("\r\n"))) {
        conn_abort(c, "no_memory");
        return false;
    }
    if (http_pending(r) > c->h->rules.hard) {
        c->h->slow_clients++;
        conn_abort(c, "slow_client");
        return false;
    }
    r->congested = r->congested || http_pending(r) > c->h->rules.soft;
    return true;
}

void http_end(HttpRequest *r)
{
    Conn *c = r->c;
    if (c->dead || r->ended)
        return;
    bool ok = is_head(r) || send_bytes(r, STR("0\r\n\r\n"));
    r->ended = true;
    if (ok)
        conn_replied(c);
    else
        conn_abort(c, "no_memory");
}

void http_reset(HttpRequest *r)
{
    if (r->c->dead)
        return;
    r->ended = true; /* the handler knows */
    conn_abort(r->c, "reset");
}
