/* http.c - the server: its one thread, what it accepts, what others post to it.
 *
 * Nothing but a byte in a pipe comes from other threads and signal handlers;
 * it makes the loop look at the wishes and at the posted calls. */
#include "http.h"
#include "http_conn.h"
#include <errno.h>
#include <event2/util.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Beyond the limit so many connections more are told so; the rest is closed. */
enum { MOST_SURPLUS = 64, ACCEPT_PAUSE_MS = 100 };

struct HttpTimer {
    HttpTimer *next, **link;
    struct event *event;
    bool (*fn)(void *arg);
    void *arg;
};

/* ---- other threads ------------------------------------------------------------- */

static void ring(Http *h)
{
    int kept = errno;
    ssize_t n;
    do /* a full pipe is as good: the loop will wake */
        n = write(h->wake_fd[1], "", 1);
    while (n < 0 && errno == EINTR);
    errno = kept;
}

void http_stop(Http *h)
{
    atomic_store(&h->stop, true);
    ring(h);
}

void http_drain(Http *h)
{
    atomic_store(&h->drain, true);
    ring(h);
}

bool http_post(Http *h, HttpPost *post, void (*fn)(void *arg), void *arg)
{
    *post = (HttpPost){ .fn = fn, .arg = arg };
    pthread_mutex_lock(&h->mutex);
    bool closed = h->posts_closed, first = !h->posts;
    if (!closed) {
        *h->posts_end = post;
        h->posts_end = &post->next;
    }
    pthread_mutex_unlock(&h->mutex);
    if (!closed && first)
        ring(h);
    return !closed;
}

/* Runs what was posted until now; close: and takes no more once all has run. */
static bool run_posts(Http *h, bool close)
{
    pthread_mutex_lock(&h->mutex);
    HttpPost *post = h->posts;
    h->posts = NULL;
    h->posts_end = &h->posts;
    h->posts_closed = h->posts_closed || (close && !post);
    pthread_mutex_unlock(&h->mutex);
    bool any = post != NULL;
    while (post) {
        HttpPost *next = post->next; /* fn may free or post it */
        post->fn(post->arg);
        post = next;
    }
    return any;
}

static void stop_accepting(Http *h)
{
    for (size_t i = 0; i < h->n_accepting; i++)
        evconnlistener_free(h->accepting[i]);
    h->n_accepting = 0;
    listen_close(&h->listeners);
}

static void begin_drain(Http *h)
{
    h->draining = true;
    stop_accepting(h);
    for (Conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        if (c->phase == CONN_IDLE)
            conn_lose(c, "shutdown");
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    Http *h = arg;
    char bytes[64];
    (void)what;
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    if (atomic_load(&h->drain) && !h->draining)
        begin_drain(h);
    run_posts(h, false);
    if (atomic_load(&h->stop))
        event_base_loopbreak(h->base);
}

/* ---- the network thread ------------------------------------------------------------ */

static void reap(Http *h)
{
    while (h->dead) {
        Conn *c = h->dead;
        h->dead = c->next;
        conn_free(c);
    }
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reap(arg);
}

static void lose_all(Http *h)
{
    while (h->conns) {
        conn_push(h->conns);
        conn_lose(h->conns, "shutdown");
    }
    reap(h);
}

bool http_run(Http *h, ds4_err *err)
{
    /* Posts and wishes may have come before the loop. */
    event_active(h->wake, EV_READ, 0);
    int rc = event_base_loop(h->base, EVLOOP_NO_EXIT_ON_EMPTY);
    stop_accepting(h);
    lose_all(h);
    while (run_posts(h, true))
        ;
    return rc >= 0 || fail(err, DS4_EIO, "the event loop failed: %s", strerror(errno));
}

static void timer_free(HttpTimer *t)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    event_free(t->event);
    free(t);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    HttpTimer *t = arg;
    (void)fd;
    (void)what;
    if (!t->fn(t->arg))
        timer_free(t);
}

bool http_every(Http *h, int milliseconds, bool (*fn)(void *arg), void *arg)
{
    struct timeval every = { .tv_sec = milliseconds / 1000,
                             .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000 };
    HttpTimer *t = calloc(1, sizeof *t);
    if (t)
        t->event = event_new(h->base, -1, EV_PERSIST, on_tick, t);
    if (!t || !t->event || event_add(t->event, &every) != 0) {
        if (t && t->event)
            event_free(t->event);
        free(t);
        return false;
    }
    t->fn = fn;
    t->arg = arg;
    t->next = h->timers;
    t->link = &h->timers;
    if (t->next)
        t->next->link = &t->next;
    h->timers = t;
    return true;
}

/* ---- accepting ----------------------------------------------------------------------- */

static void name_peer(const struct sockaddr *a, socklen_t n, char *out, size_t cap)
{
    char host[48], port[8];
    if (a->sa_family == AF_UNIX ||
        getnameinfo(a, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(out, cap, "%s", a->sa_family == AF_UNIX ? "unix" : "unknown");
    else
        snprintf(out, cap, a->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int n,
                      void *arg)
{
    Http *h = arg;
    char peer[64];
    int on = 1, open = atomic_load(&h->open);
    bool local = h->listeners.unix_path != NULL;
    (void)l;
    h->connections++;
    bool surplus = open >= h->rules.max_connections;
    if (surplus)
        h->refused++;
    if (open >= h->rules.max_connections + MOST_SURPLUS) {
        close(fd);
        return;
    }
    if (local) {
        snprintf(peer, sizeof peer, "unix");
    } else {
        name_peer(a, (socklen_t)n, peer, sizeof peer);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    conn_open(h, fd, peer, local, surplus);
}

static void set_accepting(Http *h, bool on)
{
    for (size_t i = 0; i < h->n_accepting; i++)
        (on ? evconnlistener_enable : evconnlistener_disable)(h->accepting[i]);
}

/* Out of descriptors: the waiting connection stays, so trying at once would
 * only turn in a circle. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
    Http *h = arg;
    struct timeval t = { .tv_usec = ACCEPT_PAUSE_MS * 1000 };
    (void)l;
    if (evtimer_add(h->pause, &t) == 0)
        set_accepting(h, false);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    set_accepting(arg, true);
}

static bool start_accepting(Http *h, ds4_err *err)
{
    Listeners *l = &h->listeners;
    for (size_t i = 0; i < l->n; i++) {
        struct evconnlistener *e = evconnlistener_new(
            h->base, on_accept, h, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, l->fd[i]);
        if (!e)
            return fail(err, DS4_ENOMEM, "no memory to listen on %s", l->where);
        l->fd[i] = -1; /* now the listener's */
        evconnlistener_set_error_cb(e, on_accept_error);
        h->accepting[h->n_accepting++] = e;
    }
    return true;
}

/* ---- opening and closing ----------------------------------------------------------------- */

static size_t size_or(size_t given, size_t usual) { return given ? given : usual; }
static int int_or(int given, int usual) { return given > 0 ? given : usual; }

static HttpRules rules_of(const HttpOptions *o)
{
    return (HttpRules){
        .parse = { .max_line = size_or(o->max_line, (size_t)8 << 10),
                   .max_header = size_or(o->max_header, (size_t)64 << 10),
                   .max_body = size_or(o->max_body, (size_t)64 << 20),
                   .max_fields = int_or(o->max_fields, 100) },
        .max_connections = int_or(o->max_connections, 256),
        .header_ms = int_or(o->header_seconds, 10) * 1000,
        .body_ms = int_or(o->body_seconds, 30) * 1000,
        .idle_ms = int_or(o->idle_seconds, 60) * 1000,
        .slow_ms = int_or(o->slow_seconds, 60) * 1000,
        .soft = size_or(o->outbox_soft, (size_t)1 << 20),
        .hard = size_or(o->outbox_hard, (size_t)8 << 20),
        .bodies = size_or(o->max_bodies, MAX((size_t)1 << 30, 2 * o->max_body)),
    };
}

static bool open_pipe(int fd[2], ds4_err *err)
{
    bool ok = pipe(fd) == 0;
    for (int i = 0; ok && i < 2; i++)
        ok = fcntl(fd[i], F_SETFL, O_NONBLOCK) == 0 && fcntl(fd[i], F_SETFD, FD_CLOEXEC) == 0;
    return ok || fail(err, DS4_EIO, "a pipe for the network thread: %s", strerror(errno));
}

/* All of libevent is used from one thread, so it needs no locks. */
static bool open_base(Http *h, ds4_err *err)
{
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
        h->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (h->base) {
        h->wake = event_new(h->base, h->wake_fd[0], EV_READ | EV_PERSIST, on_wake, h);
        h->reaper = event_new(h->base, -1, 0, on_reap, h);
        h->pause = event_new(h->base, -1, 0, on_pause_over, h);
    }
    bool ok = h->base && h->wake && h->reaper && h->pause && event_add(h->wake, NULL) == 0;
    return ok || fail(err, DS4_ENOMEM, "no memory for an event loop");
}

/* Writing to a connection that is gone must be an error, not a signal. */
static void ignore_sigpipe(void)
{
    struct sigaction ignore = { 0 };
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, NULL);
}

static bool open_access(Http *h, const HttpOptions *opt, ds4_err *err)
{
    h->access.any_address = h->listeners.open_to_others;
    return access_init(&h->access, opt->hosts, opt->n_hosts, opt->origins, opt->n_origins, err) &&
           (!opt->host || access_add_host(&h->access, opt->host, err)) &&
           access_set_keys(&h->access, opt->keys, opt->n_keys, err);
}

Http *http_open(const HttpOptions *opt, HttpHandler handler, HttpErrorFn error, void *user,
                ds4_err *err)
{
    Http *h = calloc(1, sizeof *h);
    if (!h) {
        fail(err, DS4_ENOMEM, "no memory for a server");
        return NULL;
    }
    h->wake_fd[0] = h->wake_fd[1] = -1;
    h->posts_end = &h->posts;
    h->handler = handler;
    h->error = error;
    h->user = user;
    h->rules = rules_of(opt);
    h->mutex_ready = pthread_mutex_init(&h->mutex, NULL) == 0;
    ignore_sigpipe();
    if ((h->mutex_ready || fail(err, DS4_ENOMEM, "no memory for a mutex")) &&
        open_pipe(h->wake_fd, err) && open_base(h, err) && listen_open(&h->listeners, opt, err) &&
        open_access(h, opt, err) && start_accepting(h, err))
        return h;
    http_close(h);
    return NULL;
}

static void free_event(struct event *e)
{
    if (e)
        event_free(e);
}

void http_close(Http *h)
{
    if (!h)
        return;
    stop_accepting(h);
    lose_all(h);
    while (h->mutex_ready && run_posts(h, true))
        ;
    while (h->timers)
        timer_free(h->timers);
    free_event(h->wake);
    free_event(h->reaper);
    free_event(h->pause);
    if (h->base)
        event_base_free(h->base);
    for (int i = 0; i < 2; i++)
        if (h->wake_fd[i] >= 0)
            close(h->wake_fd[i]);
    if (h->mutex_ready)
        pthread_mutex_destroy(&h->mutex);
    access_release(&h->access);
    free(h);
}

/* ---- what it is -------------------------------------------------------------------------- */

int http_port(const Http *h) { return h->listeners.port; }
const char *http_where(const Http *h) { return h->listeners.where; }

bool http_set_keys(Http *h, const char *const *keys, size_t n, ds4_err *err)
{
    return access_set_keys(&h->access, keys, n, err);
}

HttpStats http_stats(const Http *h)
{
    return (HttpStats){ .connections = atomic_load(&h->connections),
                        .requests = atomic_load(&h->requests),
                        .refused = atomic_load(&h->refused),
                        .slow_clients = atomic_load(&h->slow_clients),
                        .open = atomic_load(&h->open) };
}
