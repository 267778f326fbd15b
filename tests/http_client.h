/* http_client.h - a client for tests of the HTTP transport: raw bytes out,
 * replies in. Anything unexpected on the way fails the test. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H
#include "../src/base/bytes.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENT_SECONDS = 10 };

typedef struct {
    int fd;
    Bytes in; /* what came and was not used yet */
} Client;

/* One reply. */
typedef struct {
    int status; /* 0: the connection ended, or nothing came */
    Bytes head, body;
    bool chunked;
} Reply;

static inline Client client_of(int fd, const struct sockaddr *a, socklen_t n)
{
    struct timeval t = { .tv_sec = CLIENT_SECONDS };
    Client c = { .fd = fd };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    if (connect(fd, a, n) != 0) {
        close(fd);
        c.fd = -1;
    }
    return c;
}

static inline Client client_tcp(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return client_of(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a);
}

static inline Client client_tcp6(int port)
{
    struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    a.sin6_addr = in6addr_loopback;
    return client_of(socket(AF_INET6, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a);
}

static inline Client client_unix(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    return client_of(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a);
}

static inline void client_close(Client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    bytes_release(&c->in);
    c->fd = -1;
}

/* False when the server has closed. */
static inline bool client_send(Client *c, const char *p, size_t n)
{
    while (n) {
        ssize_t k = send(c->fd, p, n, 0);
        if (k < 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool client_say(Client *c, const char *text)
{
    return client_send(c, text, strlen(text));
}

/* More bytes; 0: the end, -1: an error or nothing in time. */
static inline int client_more(Client *c)
{
    char *to = bytes_room(&c->in, 65536);
    ssize_t n = to ? recv(c->fd, to, 65536, 0) : -1;
    if (n > 0)
        c->in.n += (size_t)n;
    return n > 0 ? 1 : (int)n;
}

/* Whether the server closes, and sends nothing before. */
static inline bool client_ended(Client *c) { return c->in.n == 0 && client_more(c) == 0; }

static inline void client_use(Client *c, size_t n)
{
    memmove(c->in.p, c->in.p + n, c->in.n - n);
    c->in.n -= n;
}

/* Bytes up to and with the next CR LF; 0: the end came first. */
static inline size_t client_line(Client *c)
{
    for (;;) {
        char *end = c->in.n ? memmem(c->in.p, c->in.n, "\r\n", 2) : NULL;
        if (end)
            return (size_t)(end - c->in.p) + 2;
        if (client_more(c) <= 0)
            return 0;
    }
}

static inline bool client_need(Client *c, size_t n)
{
    while (c->in.n < n)
        if (client_more(c) <= 0)
            return false;
    return true;
}

static inline bool client_body(Client *c, size_t n, Bytes *body)
{
    if (!client_need(c, n))
        return false;
    bytes_put(body, c->in.p, n);
    client_use(c, n);
    return true;
}

/* One chunk; false at the last one, or when it does not come: then *cut. */
static inline bool client_chunk(Client *c, Bytes *body, bool *cut)
{
    size_t line = client_line(c), size = line ? strtoul(c->in.p, NULL, 16) : 0;
    Bytes crlf = { 0 };
    *cut = line == 0;
    if (*cut)
        return false;
    client_use(c, line);
    bool whole =
        client_body(c, size, body) && client_body(c, 2, &crlf) && memcmp(crlf.p, "\r\n", 2) == 0;
    bytes_release(&crlf);
    *cut = !whole;
    return whole && size > 0;
}

static inline const char *reply_field(const Reply *r, const char *name)
{
    static _Thread_local char value[512];
    size_t n = strlen(name);
    for (char *p = r->head.p; p && (p = strstr(p, "\r\n"));) {
        p += 2;
        if (strncasecmp(p, name, n) == 0 && strncmp(p + n, ": ", 2) == 0) {
            snprintf(value, sizeof value, "%.*s", (int)strcspn(p + n + 2, "\r"), p + n + 2);
            return value;
        }
    }
    return NULL;
}

static inline bool reply_says(const Reply *r, const char *name, const char *value)
{
    const char *is = reply_field(r, name);
    return is && strcmp(is, value) == 0;
}

static inline bool client_head(Client *c, Reply *r)
{
    size_t line;
    do {
        line = client_line(c);
        if (!line)
            return false;
        bytes_put(&r->head, c->in.p, line);
        client_use(c, line);
    } while (line > 2);
    bytes_byte(&r->head, 0);
    return sscanf(r->head.p, "HTTP/1.1 %d", &r->status) == 1;
}

/* The next reply. no_body: it is to HEAD. */
static inline Reply client_reply(Client *c, bool no_body)
{
    Reply r = { 0 };
    bool cut = false;
    if (!client_head(c, &r)) {
        r.status = 0;
        return r;
    }
    const char *length = reply_field(&r, "content-length");
    size_t n = length ? strtoul(length, NULL, 10) : 0;
    r.chunked = reply_says(&r, "transfer-encoding", "chunked");
    if (no_body || r.status == 100 || r.status == 204)
        return r;
    if (r.chunked)
        while (client_chunk(c, &r.body, &cut))
            ;
    else
        cut = !client_body(c, n, &r.body);
    bytes_byte(&r.body, 0);
    r.body.n--;
    if (cut)
        r.status = 0;
    return r;
}

static inline void reply_release(Reply *r)
{
    bytes_release(&r->head);
    bytes_release(&r->body);
}

#endif
