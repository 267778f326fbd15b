/* http_conn.h - what the server and its connections know of each other. */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H
#include "http.h"
#include "http_access.h"
#include "http_listen.h"
#include "http_parse.h"
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct Conn Conn;
typedef struct HttpTimer HttpTimer;

/* The limits in force, none of them 0. */
typedef struct {
    HttpLimits parse;
    int max_connections;
    int header_ms, body_ms, idle_ms, slow_ms;
    size_t soft, hard, bodies;
} HttpRules;

struct Http {
    struct event_base *base;
    struct event *wake, *reaper, *pause;
    int wake_fd[2];
    atomic_bool stop, drain; /* wishes of other threads; wake_fd tells of them */
    pthread_mutex_t mutex;   /* of the next four */
    bool mutex_ready, posts_closed;
    HttpPost *posts, **posts_end;

    /* The rest belongs to the network thread. */
    bool draining;
    Listeners listeners;
    struct evconnlistener *accepting[MAX_LISTENERS];
    size_t n_accepting;
    Access access;
    HttpRules rules;
    HttpHandler handler;
    HttpErrorFn error;
    void *user;
    Conn *conns, *dead;
    HttpTimer *timers;
    size_t bodies; /* bytes of memory that bodies have which are the requests' */
    atomic_ullong connections, requests, refused, slow_clients;
    atomic_int open;
};

enum Phase {
    CONN_IDLE, /* no byte of a request yet */
    CONN_HEAD,
    CONN_BODY,
    CONN_BUSY,   /* the handler has the request */
    CONN_FLUSH,  /* the reply is given, but not all taken */
    CONN_LINGER, /* waiting for the client to close, so that it reads our last words */
};

struct Conn {
    Http *h;
    Conn *next, **link;
    struct bufferevent *bev;
    struct event *timer;
    HttpRequest *r;
    enum Phase phase;
    bool surplus; /* beyond the limit: gets a 503 */
    bool close;   /* after this reply */
    bool eof;     /* the client will send no more */
    bool full;    /* it sent so much ahead that nothing is read */
    bool local;   /* a Unix socket */
    bool dead;
    int64_t body_ns;     /* when its body began */
    uint64_t body_bytes; /* of it that came, with the frames of chunks */
    int64_t progress_ns; /* when the client last took a byte of what was waiting */
    char peer[64];
};

struct HttpRequest {
    Conn *c;
    HttpParser parse;
    char id[32];
    /* What the head was found to deserve instead of the handler, or 0. */
    int refusal;
    const char *code, *message;
    Bytes fields;    /* reply headers */
    size_t body_cap; /* of its body, as counted in Http.bodies */
    bool handed, begun, ended, congested;
    void (*on_close)(void *arg, const char *why);
    void *on_close_arg;
    void (*on_room)(void *arg);
    void *on_room_arg;
};

/* ---- http_conn.c ---------------------------------------------------------------- */

/* Takes fd over; peer is copied. */
void conn_open(Http *h, int fd, const char *peer, bool local, bool surplus);
/* The end: the request, if a handler has one, is told why. Memory and socket
 * go when the current callback has returned. */
void conn_lose(Conn *c, const char *why);
void conn_free(Conn *c);
/* At the end of the server: what the kernel takes at once may still go. */
void conn_push(Conn *c);
/* The reply is complete: when the client has it, the connection goes on. */
void conn_replied(Conn *c);
/* Somebody is to take bytes from now on: see that they do. */
void conn_watch(Conn *c);
/* Count anew what memory the request's body has; false: all bodies together have too much. */
bool conn_count_body(HttpRequest *r);
/* Ends the connection with RST. */
void conn_abort(Conn *c, const char *why);

/* ---- http_reply.c ---------------------------------------------------------------- */

/* An error of the transport's own, in the shape of the path's API. */
void reply_error(HttpRequest *r, int status, const char *code, const char *message);
/* 204 to OPTIONS, with what a browser asks for when its origin is allowed. */
void reply_options(HttpRequest *r);

#endif
