/* http_site.h - an HTTP server with a few paths, for tests of the transport. */
#ifndef HTTP_SITE_H
#define HTTP_SITE_H
#include "http_client.h"
#include "../src/server/http.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <cmocka.h>

#define HOST "Host: localhost\r\n"

typedef struct {
    Http *h;
    int port;
    pthread_t thread;
    HttpRequest *held; /* the network thread's */
    HttpPost finish;
    atomic_int n_held, n_lost, rooms, room_now;
    atomic_llong lost_ns;
    char why[32]; /* before n_lost */
} Site;

static inline void nap_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Whether *count comes to `want` soon. */
static inline bool reaches(atomic_int *count, int want)
{
    for (int i = 0; i < CLIENT_SECONDS * 1000 && atomic_load(count) < want; i++)
        nap_ms(1);
    return atomic_load(count) == want;
}

/* Whether no more than `most` connections are left soon. */
static inline bool closes_to(Site *s, int most)
{
    for (int i = 0; i < CLIENT_SECONDS * 1000 && http_stats(s->h).open > most; i++)
        nap_ms(1);
    return http_stats(s->h).open <= most;
}

/* ---- its paths ---------------------------------------------------------------------- */

static inline void on_lost(void *arg, const char *why)
{
    Site *s = arg;
    atomic_store(&s->lost_ns, clock_ns());
    snprintf(s->why, sizeof s->why, "%s", why);
    s->held = NULL;
    s->n_lost++;
}

static inline void hold(Site *s, HttpRequest *r)
{
    s->held = r;
    http_on_close(r, on_lost, s);
    s->n_held++;
}

static inline void echo(HttpRequest *r)
{
    Bytes b = { 0 };
    Str body = http_body(r);
    bytes_printf(&b, "%s %s?%s ", http_method(r), http_path(r), http_query(r));
    bytes_put(&b, body.p, body.n);
    http_set(r, "x-note", "a\r\nb: c");
    http_reply(r, 200, "text/plain", bytes_view(&b));
    bytes_release(&b);
}

/* As many chunks as the query says. */
static inline void stream(HttpRequest *r)
{
    char text[32];
    http_begin(r, 200, "text/event-stream");
    for (int i = 0; i < atoi(http_query(r)); i++) {
        int n = snprintf(text, sizeof text, "chunk %d;", i);
        assert_true(http_write(r, (Str){ text, (size_t)n }));
    }
    assert_true(http_write(r, (Str){ 0 }));
    http_end(r);
}

/* Writes until the transport gives up on the client. */
static inline void flood(Site *s, HttpRequest *r)
{
    static const char piece[4096];
    hold(s, r);
    http_begin(r, 200, "text/plain");
    while (http_write(r, (Str){ piece, sizeof piece }))
        ;
}

static inline void on_room(void *arg)
{
    Site *s = arg;
    s->room_now = (int)http_pending(s->held);
    s->rooms++;
    http_end(s->held);
}

static inline void congest(Site *s, HttpRequest *r)
{
    static const char piece[4096];
    hold(s, r);
    http_on_room(r, on_room, s);
    http_begin(r, 200, "text/plain");
    while (!http_congested(r))
        assert_true(http_write(r, (Str){ piece, sizeof piece }));
}

static inline void large(HttpRequest *r)
{
    Bytes b = { 0 };
    bytes_fill(&b, 'x', (size_t)atoi(http_query(r)));
    http_reply(r, 200, "text/plain", bytes_view(&b));
    bytes_release(&b);
}

static inline void site_handler(void *user, HttpRequest *r)
{
    Site *s = user;
    const char *path = http_path(r);
    if (strcmp(path, "/stream") == 0)
        stream(r);
    else if (strcmp(path, "/hold") == 0)
        hold(s, r);
    else if (strcmp(path, "/flood") == 0)
        flood(s, r);
    else if (strcmp(path, "/congest") == 0)
        congest(s, r);
    else if (strcmp(path, "/large") == 0)
        large(r);
    else if (strcmp(path, "/reset") == 0)
        http_reset(r);
    else
        echo(r);
}

static inline void site_error_body(void *user, const HttpRequest *r, int status, const char *code,
                                   const char *message, Bytes *out)
{
    (void)user;
    bytes_printf(out,
                 "{\"path\":\"%s\",\"status\":%d,\"code\":\"%s\",\"message\":\"%s\",\"id\":\"%s\"}",
                 http_path(r), status, code, message, http_request_id(r));
}

/* Finishes what /hold has begun; for http_post. */
static inline void site_finish_held(void *arg)
{
    Site *s = arg;
    http_reply(s->held, 200, "text/plain", STR("later"));
    s->held = NULL;
}

/* ---- its life ----------------------------------------------------------------------- */

static inline void *site_network(void *arg)
{
    Site *s = arg;
    return http_run(s->h, NULL) ? s : NULL;
}

static inline Site *site_open(const HttpOptions *opt)
{
    Site *s = calloc(1, sizeof *s);
    ds4_err err;
    s->h = http_open(opt, site_handler, site_error_body, s, &err);
    if (!s->h)
        print_error("%s\n", err.msg);
    assert_non_null(s->h);
    s->port = http_port(s->h);
    assert_int_equal(pthread_create(&s->thread, NULL, site_network, s), 0);
    return s;
}

static inline void site_close(Site *s)
{
    void *ok;
    http_stop(s->h);
    pthread_join(s->thread, &ok);
    assert_non_null(ok);
    assert_int_equal(http_stats(s->h).open, 0);
    http_close(s->h);
    free(s);
}

/* Options that http_open refuses. */
static inline ds4_err site_refused(const HttpOptions *opt)
{
    ds4_err err = { 0 };
    assert_null(http_open(opt, site_handler, site_error_body, NULL, &err));
    return err;
}

/* ---- asking it ---------------------------------------------------------------------- */

/* The reply to text on a connection of its own. */
static inline Reply site_ask(Site *s, const char *text, bool *closed)
{
    Client c = client_tcp(s->port);
    assert_true(c.fd >= 0);
    client_say(&c, text);
    Reply r = client_reply(&c, strncmp(text, "HEAD", 4) == 0);
    if (closed) {
        shutdown(c.fd, SHUT_WR);
        *closed = client_ended(&c);
    }
    client_close(&c);
    return r;
}

static inline int site_status(Site *s, const char *text)
{
    Reply r = site_ask(s, text, NULL);
    int status = r.status;
    reply_release(&r);
    return status;
}

static inline void site_still_serves(Site *s)
{
    assert_int_equal(site_status(s, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
}

/* Of a request without a body, with these fields. */
static inline int site_status_with(Site *s, const char *method, const char *path,
                                   const char *fields)
{
    char text[1024];
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n", method, path,
             fields);
    return site_status(s, text);
}

#endif
