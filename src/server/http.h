/* http.h - HTTP/1.1 as this server needs it, over libevent.
 *
 * One network thread owns every socket and runs all callbacks given here.
 * Limits, timeouts, framing, keep-alive, Host, CORS and API keys are settled
 * before a handler sees a request. A reply is whole, or a stream of chunks;
 * other threads reach the network thread through http_post only. */
#ifndef HTTP_H
#define HTTP_H
#include "../base/bytes.h"

typedef struct Http Http;
typedef struct HttpRequest HttpRequest;

typedef struct {
    const char *host;        /* NULL: 127.0.0.1 and ::1 */
    int port;                /* 0: any free one; see http_port */
    const char *unix_path;   /* a Unix socket instead (mode 0600), or NULL */
    const char *const *keys; /* API keys; n_keys 0: none needed */
    size_t n_keys;
    bool insecure;              /* allow a public address without a key */
    const char *const *origins; /* allowed CORS origins */
    size_t n_origins;
    const char *const *hosts; /* further names that Host may carry */
    size_t n_hosts;
    size_t max_header, max_body; /* bytes; 0: 64 KiB, 64 MiB */
    size_t max_line;             /* of the request line; 0: 8 KiB */
    size_t max_bodies; /* bytes of all that come at one time; 0: 1 GiB, or two of the longest */
    int max_fields, max_connections;                /* 0: 100, 256 */
    int header_seconds, body_seconds, idle_seconds; /* 0: 10, 30, 60 */
    size_t outbox_soft, outbox_hard;                /* 0: 1 MiB, 8 MiB */
    int slow_seconds;                               /* 0: 60 */
} HttpOptions;

/* Called on the network thread when a request is complete. The request lives
 * until it is answered or its connection is gone. */
typedef void (*HttpHandler)(void *user, HttpRequest *r);
/* Renders an error that the transport itself gives (401, 404, 413, ...) in the
 * shape of the API that the path belongs to. Of r only what is known of it may be asked. */
typedef void (*HttpErrorFn)(void *user, const HttpRequest *r, int status, const char *code,
                            const char *message, Bytes *out);

Http *http_open(const HttpOptions *opt, HttpHandler handler, HttpErrorFn error, void *user,
                ds4_err *err);
int http_port(const Http *h);
const char *http_where(const Http *h); /* "http://127.0.0.1:8080, http://[::1]:8080" */
bool http_run(Http *h, ds4_err *err);  /* until http_stop, which is final */
void http_stop(Http *h);               /* any thread, signal-safe */
/* Accept no more connections, close idle ones, and the others after their
 * reply; any thread, signal-safe. */
void http_drain(Http *h);
void http_close(Http *h); /* when http_run has returned; NULL is fine */
/* Run fn(arg) on the network thread soon, in the order posted; any thread may
 * call. False after http_stop: then fn will not run. The post is the caller's memory, so
 * that an answer cannot get lost for want of some; from fn on it may be used again. */
typedef struct HttpPost HttpPost;
struct HttpPost {
    HttpPost *next;
    void (*fn)(void *arg);
    void *arg;
};
bool http_post(Http *h, HttpPost *post, void (*fn)(void *arg), void *arg);
/* Run fn(arg) on the network thread every so often, until it returns false.
 * Before http_run, or on the network thread. */
bool http_every(Http *h, int milliseconds, bool (*fn)(void *arg), void *arg);
/* Other keys from now on; as http_every. */
bool http_set_keys(Http *h, const char *const *keys, size_t n, ds4_err *err);

const char *http_method(const HttpRequest *r);
const char *http_path(const HttpRequest *r);                     /* without query */
const char *http_query(const HttpRequest *r);                    /* "" when there is none */
const char *http_header(const HttpRequest *r, const char *name); /* any case; NULL: absent */
/* The i-th header, its name in lower case; false: there are not so many. */
bool http_field(const HttpRequest *r, size_t i, const char **name, const char **value);
Str http_body(const HttpRequest *r);
/* The body as the caller's own, which then may outlive the request. */
Bytes http_take_body(HttpRequest *r);
const char *http_request_id(const HttpRequest *r); /* "req_" and 24 random hex digits */
const char *http_peer(const HttpRequest *r);

void http_set(HttpRequest *r, const char *name, const char *value);      /* a reply header */
void http_reply(HttpRequest *r, int status, const char *type, Str body); /* ends r */
void http_begin(HttpRequest *r, int status, const char *type);           /* a chunked stream */
/* False when the client is gone or too slow: the request is ended already, and
 * its on_close was called. */
bool http_write(HttpRequest *r, Str chunk);
size_t http_pending(const HttpRequest *r); /* bytes not yet taken by the client */
/* More than outbox_soft is pending: better wait for room before writing more. */
bool http_congested(const HttpRequest *r);
/* Called whenever a congested stream has drained to half of outbox_soft. */
void http_on_room(HttpRequest *r, void (*fn)(void *arg), void *arg);
void http_end(HttpRequest *r);
void http_reset(HttpRequest *r); /* RST: the client should retry */
/* Called once when the connection is lost before the reply ended; the request
 * is gone when it returns. why: "client_gone", "slow_client", "shutdown", ... */
void http_on_close(HttpRequest *r, void (*fn)(void *arg, const char *why), void *arg);

/* refused: connections beyond the limit. Any thread. */
typedef struct {
    uint64_t connections, requests, refused, slow_clients;
    int open;
} HttpStats;
HttpStats http_stats(const Http *h);

#endif
