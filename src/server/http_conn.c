/* http_conn.c - a connection's life: read a request, hand it over, let the
 * reply out, and again.
 *
 * Reading does not stop while a request is handled, since that is how the kernel
 * tells, on every system, that the client has gone. What it sends ahead is kept
 * for later; beyond MOST_AHEAD it is left in the kernel, and that it goes is seen
 * only when something is written. */
#include "http_conn.h"
#include <event2/buffer.h>
#include <netinet/in.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_MS = 2000, READ_PIECE = 128 << 10, MOST_AHEAD = 256 << 10 };
/* The least that must come of a body in a second, after the first ones; and how
 * much of a refused one is waited for, so that the connection can go on. */
enum { LEAST_RATE = 64 << 10, MOST_REFUSED = 64 << 10 };

static struct evbuffer *input_of(const Conn *c) { return bufferevent_get_input(c->bev); }
static struct evbuffer *output_of(const Conn *c) { return bufferevent_get_output(c->bev); }

static void arm(Conn *c, int64_t ms)
{
    struct timeval t = { .tv_sec = (time_t)(ms / 1000),
                         .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
    evtimer_add(c->timer, &t);
}

/* ---- the end ------------------------------------------------------------------ */

void conn_lose(Conn *c, const char *why)
{
    if (c->dead)
        return;
    Http *h = c->h;
    HttpRequest *r = c->r;
    c->dead = true;
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    evtimer_del(c->timer);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->next = h->dead;
    h->dead = c;
    h->open--;
    event_active(h->reaper, EV_TIMEOUT, 0);
    if (r && r->handed && !r->ended && r->on_close)
        r->on_close(r->on_close_arg, why);
}

void conn_abort(Conn *c, const char *why)
{
    struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    conn_lose(c, why);
}

bool conn_count_body(HttpRequest *r)
{
    Http *h = r->c->h;
    h->bodies += r->parse.body.cap - r->body_cap;
    r->body_cap = r->parse.body.cap;
    return h->bodies <= h->rules.bodies;
}

static void request_free(HttpRequest *r)
{
    if (!r)
        return;
    r->c->h->bodies -= r->body_cap;
    http_parse_release(&r->parse);
    bytes_release(&r->fields);
    free(r);
}

void conn_free(Conn *c)
{
    request_free(c->r);
    if (c->timer)
        event_free(c->timer);
    if (c->bev)
        bufferevent_free(c->bev);
    free(c);
}

void conn_push(Conn *c)
{
    struct evbuffer *out = output_of(c);
    evbuffer_unfreeze(out, 1); /* bufferevents keep others from draining it */
    while (evbuffer_get_length(out) && evbuffer_write(out, bufferevent_getfd(c->bev)) > 0)
        ;
}

/* Closing with unread bytes sends RST, which makes the client's kernel throw
 * away what it has not read of our reply; so say that no more comes, and wait. */
static void linger(Conn *c)
{
    if (c->eof) {
        conn_lose(c, "closed");
        return;
    }
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    evbuffer_drain(input_of(c), evbuffer_get_length(input_of(c)));
    c->phase = CONN_LINGER;
    arm(c, LINGER_MS);
}

/* ---- reading a request --------------------------------------------------------- */

static bool is_reading(const Conn *c) { return !c->dead && c->phase <= CONN_BODY; }

static bool make_id(char id[32])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char random[12];
    if (RAND_bytes(random, sizeof random) != 1)
        return false;
    memcpy(id, "req_", 4);
    for (size_t i = 0; i < sizeof random; i++) {
        id[4 + 2 * i] = hex[random[i] >> 4];
        id[5 + 2 * i] = hex[random[i] & 15];
    }
    id[4 + 2 * sizeof random] = 0;
    return true;
}

static bool request_new(Conn *c)
{
    HttpRequest *r = calloc(1, sizeof *r);
    if (!r || !make_id(r->id)) {
        free(r);
        return false;
    }
    r->c = c;
    r->parse.limits = c->h->rules.parse;
    c->r = r;
    c->phase = CONN_HEAD;
    c->close = c->surplus;
    arm(c, c->h->rules.header_ms);
    return true;
}

static void refuse(HttpRequest *r, int status, const char *code, const char *message)
{
    if (r->refusal)
        return;
    r->refusal = status;
    r->code = code;
    r->message = message;
}

/* Of a page on the web, or one that hides where it is from, and not of ours. */
static bool is_other_origin(const char *origin, const char *host)
{
    const char *name = origin ? strstr(origin, "://") : NULL;
    bool web = origin && (strncasecmp(origin, "http", 4) == 0 || strcasecmp(origin, "null") == 0);
    return web && !(name && host && strcasecmp(name + 3, host) == 0);
}

/* Browsers say where a page is from. One of another site, or of another port here,
 * can send us a POST whose answer it may not read, but whose work we would do. */
static bool is_foreign_page(const HttpRequest *r)
{
    const char *site = http_header(r, "sec-fetch-site"), *method = http_method(r);
    const char *origin = http_header(r, "origin");
    bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    bool own = site && strcasecmp(site, "same-origin") == 0;
    bool foreign = (site && strcasecmp(site, "cross-site") == 0) ||
                   (!own && is_other_origin(origin, http_header(r, "host")));
    return foreign && !reads && !access_origin(&r->c->h->access, origin);
}

static bool needs_key(const HttpRequest *r)
{
    const char *path = http_path(r);
    if (strncmp(path, "/v1/", 4) == 0)
        path += 3;
    return strcmp(path, "/health") != 0 && strcmp(path, "/health/") != 0;
}

static void check_head(HttpRequest *r)
{
    const Access *a = &r->c->h->access;
    const char *coding = http_header(r, "content-encoding");
    bool preflight = strcmp(http_method(r), "OPTIONS") == 0;
    if (r->c->surplus)
        refuse(r, 503, "too_many_connections", "The server has too many connections");
    if (!r->c->local && !access_host(a, http_header(r, "host")))
        refuse(r, 403, "host_not_allowed",
               "The Host header names no host that this server answers for");
    if (preflight)
        return;
    if (needs_key(r) &&
        !access_key(a, http_header(r, "authorization"), http_header(r, "x-api-key")))
        refuse(r, 401, "invalid_api_key", "Incorrect API key provided");
    if (is_foreign_page(r))
        refuse(r, 403, "origin_not_allowed", "This web page may not use the server");
    if (coding && strcasecmp(coding, "identity") != 0)
        refuse(r, 415, "unsupported_encoding", "Compressed request bodies are not understood");
}

static void deliver(Conn *c)
{
    HttpRequest *r = c->r;
    c->phase = CONN_BUSY;
    evtimer_del(c->timer);
    c->close = c->close || r->parse.close;
    r->handed = true;
    c->h->requests++;
    if (r->refusal)
        reply_error(r, r->refusal, r->code, r->message);
    else if (strcmp(http_method(r), "OPTIONS") == 0)
        reply_options(r);
    else
        c->h->handler(c->h->user, r);
}

/* Until the next byte of the body must come, and so many in all. */
static void arm_body(Conn *c)
{
    int64_t most = c->h->rules.body_ms, gone = (clock_ns() - c->body_ns) / 1000000;
    int64_t earned = (int64_t)(c->body_bytes * 1000 / LEAST_RATE);
    arm(c, MAX(MIN(most, most + earned - gone), 0));
}

/* Much of a refused body is still to come, or nobody knows how much. */
static bool is_long_refused(const Conn *c)
{
    const HttpParser *p = &c->r->parse;
    size_t there = evbuffer_get_length(input_of(c));
    return c->r->refusal && p->has_body && (p->n_coding || p->left > there + MOST_REFUSED);
}

/* The head is there. A client that waits for "continue" gets it or the refusal,
 * and after a refusal nobody knows whether the body comes: so the end. */
static void take_head(Conn *c)
{
    HttpRequest *r = c->r;
    c->phase = CONN_BODY;
    c->body_ns = clock_ns();
    c->body_bytes = 0;
    arm_body(c);
    check_head(r);
    r->parse.discard = r->refusal != 0;
    bool waits =
        r->parse.expect_continue && r->parse.has_body && evbuffer_get_length(input_of(c)) == 0;
    if (c->surplus || (waits && r->refusal) || is_long_refused(c)) {
        c->close = true;
        deliver(c);
    } else if (waits) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        bufferevent_write(c->bev, go_on, sizeof go_on - 1);
    }
}

static void reject(Conn *c)
{
    const HttpParser *p = &c->r->parse;
    refuse(c->r, p->status, p->code, p->message);
    c->r->refusal = p->status;
    c->r->code = p->code;
    c->r->message = p->message;
    c->close = true;
    deliver(c);
}

/* Not because of this request alone, so others go on. */
static void reject_body(Conn *c)
{
    refuse(c->r, 503, "overloaded", "Too many large requests are being received");
    c->close = true;
    deliver(c);
}

static void take_step(Conn *c, enum HttpStep step)
{
    switch (step) {
    case HTTP_MORE:
        if (!conn_count_body(c->r))
            reject_body(c);
        break;
    case HTTP_HEAD: take_head(c); break;
    case HTTP_DONE: deliver(c); break;
    case HTTP_BAD: reject(c); break;
    }
}

/* One piece of what has come; false when there is none. */
static bool feed(Conn *c)
{
    struct evbuffer *in = input_of(c);
    size_t n = evbuffer_get_contiguous_space(in), used;
    if (n == 0)
        return false;
    if (!c->r && !request_new(c)) {
        conn_abort(c, "no_memory");
        return false;
    }
    enum HttpStep step =
        http_parse(&c->r->parse, (const char *)evbuffer_pullup(in, (ev_ssize_t)n), n, &used);
    evbuffer_drain(in, used);
    c->body_bytes += used;
    take_step(c, step);
    /* A request without a body is complete with its head. */
    if (step == HTTP_HEAD && is_reading(c))
        take_step(c, http_parse(&c->r->parse, NULL, 0, &used));
    return true;
}

static void work(Conn *c)
{
    while (is_reading(c) && feed(c))
        ;
    if (!c->dead && c->phase == CONN_BODY)
        arm_body(c);
    /* What came before the end was answered; a rest is of no use. */
    if (c->eof && !c->dead && c->phase != CONN_FLUSH && c->phase != CONN_LINGER)
        conn_lose(c, "client_gone");
}

/* ---- letting the reply out ------------------------------------------------------- */

void conn_watch(Conn *c)
{
    if (evtimer_pending(c->timer, NULL))
        return;
    c->progress_ns = clock_ns();
    arm(c, c->h->rules.slow_ms);
}

void conn_replied(Conn *c)
{
    request_free(c->r);
    c->r = NULL;
    c->phase = CONN_FLUSH;
    conn_watch(c);
}

/* Not by a high watermark: with one libevent 2.1.12 sometimes loses the connection's memory. */
static void pause_reading(Conn *c)
{
    c->full = true;
    bufferevent_disable(c->bev, EV_READ);
}

static void resume_reading(Conn *c)
{
    if (c->full)
        bufferevent_enable(c->bev, EV_READ);
    c->full = false;
}

static void next_request(Conn *c)
{
    evtimer_del(c->timer);
    resume_reading(c);
    if (c->close || c->h->draining) {
        linger(c);
        return;
    }
    c->phase = CONN_IDLE;
    arm(c, c->h->rules.idle_ms);
    work(c);
}

/* ---- what libevent tells ------------------------------------------------------------ */

static void on_read(struct bufferevent *bev, void *arg)
{
    Conn *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    if (c->phase == CONN_LINGER)
        evbuffer_drain(in, evbuffer_get_length(in));
    else if (is_reading(c))
        work(c);
    else if (evbuffer_get_length(in) >= MOST_AHEAD)
        pause_reading(c);
}

/* Called when what waits has fallen to half of the soft limit, or less. */
static void on_written(struct bufferevent *bev, void *arg)
{
    Conn *c = arg;
    bool empty = evbuffer_get_length(bufferevent_get_output(bev)) == 0;
    if (c->dead)
        return;
    if (c->phase == CONN_FLUSH && empty) {
        next_request(c);
        return;
    }
    if (c->phase != CONN_BUSY)
        return;
    if (empty)
        evtimer_del(c->timer);
    if (c->r->congested && c->r->on_room) {
        c->r->congested = false;
        c->r->on_room(c->r->on_room_arg);
    }
}

static void on_drained(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg)
{
    (void)out;
    if (info->n_deleted)
        ((Conn *)arg)->progress_ns = clock_ns();
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    Conn *c = arg;
    (void)bev;
    c->eof = true;
    /* A reply that is on its way still goes to a client that only stopped sending. */
    if (!(what & BEV_EVENT_EOF) || c->phase != CONN_FLUSH)
        conn_lose(c, "client_gone");
}

static void check_progress(Conn *c)
{
    if (evbuffer_get_length(output_of(c)) == 0)
        return;
    int64_t idle_ms = (clock_ns() - c->progress_ns) / 1000000;
    if (idle_ms >= c->h->rules.slow_ms) {
        c->h->slow_clients++;
        conn_abort(c, "slow_client");
    } else {
        arm(c, c->h->rules.slow_ms - idle_ms);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    Conn *c = arg;
    (void)fd;
    (void)what;
    switch (c->phase) {
    case CONN_BUSY:
    case CONN_FLUSH: check_progress(c); break;
    case CONN_HEAD:
    case CONN_BODY:
        refuse(c->r, 408, "request_timeout", "The request took too long to arrive");
        c->close = true;
        deliver(c);
        break;
    default: conn_lose(c, "idle");
    }
}

/* ---- the beginning -------------------------------------------------------------------- */

void conn_open(Http *h, int fd, const char *peer, bool local, bool surplus)
{
    Conn *c = calloc(1, sizeof *c);
    if (c)
        c->bev = bufferevent_socket_new(h->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (c)
        c->timer = evtimer_new(h->base, on_timer, c);
    if (!c || !c->bev || !c->timer) {
        if (!c || !c->bev)
            close(fd);
        if (c)
            conn_free(c);
        return;
    }
    c->h = h;
    c->local = local;
    c->surplus = surplus;
    strncpy(c->peer, peer, sizeof c->peer - 1);
    c->next = h->conns;
    c->link = &h->conns;
    if (c->next)
        c->next->link = &c->next;
    h->conns = c;
    h->open++;
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    bufferevent_setwatermark(c->bev, EV_WRITE, h->rules.soft / 2, 0);
    bufferevent_set_max_single_read(c->bev, READ_PIECE);
    evbuffer_add_cb(output_of(c), on_drained, c);
    arm(c, h->rules.idle_ms);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}
