/* The server over real connections: what it answers, what it refuses, when it
 * gives up, and that it tells of clients that have gone. */
#include "../http_client.h"
#include "../../src/base/rng.h"
#include "../../src/server/http.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

#define HOST "Host: localhost\r\n"

/* ---- a server with a few paths ----------------------------------------------- */

typedef struct {
    Http *h;
    int port;
    pthread_t thread;
    HttpRequest *held; /* the network thread's */
    atomic_int n_held, n_lost, rooms, room_now;
    atomic_llong lost_ns;
    char why[32]; /* before n_lost */
} Server;

static void nap_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Whether *count comes to `want` soon. */
static bool reaches(atomic_int *count, int want)
{
    for (int i = 0; i < CLIENT_SECONDS * 1000 && atomic_load(count) < want; i++)
        nap_ms(1);
    return atomic_load(count) == want;
}

static void on_lost(void *arg, const char *why)
{
    Server *s = arg;
    atomic_store(&s->lost_ns, clock_ns());
    snprintf(s->why, sizeof s->why, "%s", why);
    s->held = NULL;
    s->n_lost++;
}

static void hold(Server *s, HttpRequest *r)
{
    s->held = r;
    http_on_close(r, on_lost, s);
    s->n_held++;
}

static void echo(HttpRequest *r)
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
static void stream(HttpRequest *r)
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
static void flood(Server *s, HttpRequest *r)
{
    static const char piece[4096];
    hold(s, r);
    http_begin(r, 200, "text/plain");
    while (http_write(r, (Str){ piece, sizeof piece }))
        ;
}

static void on_room(void *arg)
{
    Server *s = arg;
    s->room_now = (int)http_pending(s->held);
    s->rooms++;
    http_end(s->held);
}

static void congest(Server *s, HttpRequest *r)
{
    static const char piece[4096];
    hold(s, r);
    http_on_room(r, on_room, s);
    http_begin(r, 200, "text/plain");
    while (!http_congested(r))
        assert_true(http_write(r, (Str){ piece, sizeof piece }));
}

static void large(HttpRequest *r)
{
    Bytes b = { 0 };
    bytes_fill(&b, 'x', (size_t)atoi(http_query(r)));
    http_reply(r, 200, "text/plain", bytes_view(&b));
    bytes_release(&b);
}

static void handler(void *user, HttpRequest *r)
{
    Server *s = user;
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

static void error_body(void *user, const HttpRequest *r, int status, const char *code,
                       const char *message, Bytes *out)
{
    (void)user;
    bytes_printf(out,
                 "{\"path\":\"%s\",\"status\":%d,\"code\":\"%s\",\"message\":\"%s\",\"id\":\"%s\"}",
                 http_path(r), status, code, message, http_request_id(r));
}

static void *network(void *arg)
{
    Server *s = arg;
    return http_run(s->h, NULL) ? s : NULL;
}

static Server *start(const HttpOptions *opt)
{
    Server *s = calloc(1, sizeof *s);
    ds4_err err;
    s->h = http_open(opt, handler, error_body, s, &err);
    if (!s->h)
        print_error("%s\n", err.msg);
    assert_non_null(s->h);
    s->port = http_port(s->h);
    assert_int_equal(pthread_create(&s->thread, NULL, network, s), 0);
    return s;
}

static void stop(Server *s)
{
    void *ok;
    http_stop(s->h);
    pthread_join(s->thread, &ok);
    assert_non_null(ok);
    assert_int_equal(http_stats(s->h).open, 0);
    http_close(s->h);
    free(s);
}

/* The reply to text on a connection of its own. */
static Reply ask_raw(Server *s, const char *text, bool *closed)
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

static int status_of(Server *s, const char *text)
{
    Reply r = ask_raw(s, text, NULL);
    int status = r.status;
    reply_release(&r);
    return status;
}

static void still_serves(Server *s)
{
    assert_int_equal(status_of(s, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
}

/* ---- requests and replies --------------------------------------------------------- */

static void answers_on_both_loopbacks_at_one_port(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c[2] = { client_tcp(s->port), client_tcp6(s->port) };
    bool six = strstr(http_where(s->h), "[::1]") != NULL;
    assert_non_null(strstr(http_where(s->h), "http://127.0.0.1:"));
    assert_true(c[0].fd >= 0 && (c[1].fd >= 0) == six);
    for (int i = 0; i < 1 + six; i++) {
        client_say(&c[i], "GET /a?b=c HTTP/1.1\r\n" HOST "\r\n");
        Reply r = client_reply(&c[i], false);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.body.p, "GET /a?b=c ");
        reply_release(&r);
        client_close(&c[i]);
    }
    stop(s);
}

static bool is_id(const char *id)
{
    return id && strlen(id) == 28 && strncmp(id, "req_", 4) == 0 &&
           strspn(id + 4, "0123456789abcdef") == 24;
}

static void replies_carry_ids_and_lengths(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    char first[512];
    Reply r = ask_raw(s, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi", NULL);
    assert_string_equal(r.body.p, "POST /x? hi");
    assert_true(is_id(reply_field(&r, "request-id")));
    snprintf(first, sizeof first, "%s", reply_field(&r, "request-id"));
    assert_true(reply_says(&r, "x-request-id", first));
    assert_true(reply_says(&r, "content-type", "text/plain"));
    assert_true(reply_says(&r, "x-note", "a  b: c"));
    assert_non_null(reply_field(&r, "date"));
    assert_null(reply_field(&r, "connection"));
    assert_null(reply_field(&r, "vary"));
    reply_release(&r);
    r = ask_raw(s, "GET / HTTP/1.1\r\n" HOST "X-Request-Id: mine-7\r\n\r\n", NULL);
    assert_true(reply_says(&r, "x-request-id", "mine-7"));
    assert_true(is_id(reply_field(&r, "request-id")));
    assert_false(reply_says(&r, "request-id", first));
    reply_release(&r);
    stop(s);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    Bytes all = { 0 };
    enum { N = 200 };
    for (int i = 0; i < N; i++)
        bytes_printf(&all, "POST /%d HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", i);
    client_send(&c, all.p, all.n);
    for (int i = 0; i < N; i++) {
        char want[32];
        Reply r = client_reply(&c, false);
        snprintf(want, sizeof want, "POST /%d? abc", i);
        assert_string_equal(r.body.p, want);
        reply_release(&r);
    }
    assert_int_equal(http_stats(s->h).connections, 1);
    assert_int_equal(http_stats(s->h).requests, N);
    bytes_release(&all);
    client_close(&c);
    stop(s);
}

/* What was asked before the client stopped sending is answered to the end. */
static void requests_before_a_half_close_are_answered(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /large?3000000 HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n");
    shutdown(c.fd, SHUT_WR);
    Reply a = client_reply(&c, false), b = client_reply(&c, false);
    assert_int_equal(a.body.n, 3000000);
    assert_string_equal(b.body.p, "GET /b? ");
    assert_true(client_ended(&c));
    reply_release(&a);
    reply_release(&b);
    client_close(&c);
    stop(s);
}

static void single_bytes_are_enough(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    static const char text[] = "POST /slow HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
                               "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    int on = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        client_send(&c, text + i, 1);
        nap_ms(i % 8 == 0);
    }
    Reply r = client_reply(&c, false);
    assert_string_equal(r.body.p, "POST /slow? abcde");
    reply_release(&r);
    client_close(&c);
    stop(s);
}

static void head_gets_the_length_alone(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "HEAD / HTTP/1.1\r\n" HOST "\r\nHEAD /stream?3 HTTP/1.1\r\n" HOST
                   "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n");
    Reply r = client_reply(&c, true), t = client_reply(&c, true), b = client_reply(&c, false);
    assert_true(reply_says(&r, "content-length", "8"));
    assert_int_equal(t.status, 200);
    assert_string_equal(b.body.p, "GET /b? ");
    reply_release(&r);
    reply_release(&t);
    reply_release(&b);
    client_close(&c);
    stop(s);
}

static void chunked_streams_leave_the_connection_usable(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    for (int i = 0; i < 3; i++) {
        client_say(&c, "GET /stream?3 HTTP/1.1\r\n" HOST "\r\n");
        Reply r = client_reply(&c, false);
        assert_int_equal(r.status, 200);
        assert_true(r.chunked);
        assert_null(reply_field(&r, "content-length"));
        assert_string_equal(r.body.p, "chunk 0;chunk 1;chunk 2;");
        reply_release(&r);
    }
    client_close(&c);
    stop(s);
}

static void large_bodies_go_both_ways(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    Bytes b = { 0 };
    enum { N = 9 << 20 };
    bytes_printf(&b, "POST / HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n", N);
    bytes_fill(&b, 'y', N);
    assert_true(client_send(&c, b.p, b.n));
    Reply r = client_reply(&c, false);
    assert_int_equal(r.body.n, N + 8);
    assert_int_equal(r.body.p[r.body.n - 1], 'y');
    reply_release(&r);
    bytes_release(&b);
    client_close(&c);
    stop(s);
}

static void expected_continue_is_given(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .max_body = 100 });
    Client c = client_tcp(s->port);
    client_say(&c, "POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 100);
    reply_release(&r);
    client_say(&c, "ok");
    r = client_reply(&c, false);
    assert_string_equal(r.body.p, "POST /? ok");
    reply_release(&r);
    client_say(&c,
               "POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 200\r\n\r\n");
    r = client_reply(&c, false);
    assert_int_equal(r.status, 413);
    reply_release(&r);
    client_close(&c);
    stop(s);
}

/* ---- who may ask ---------------------------------------------------------------------- */

static int with_field(Server *s, const char *method, const char *path, const char *fields)
{
    char text[1024];
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n", method, path,
             fields);
    return status_of(s, text);
}

static void foreign_host_names_are_refused(void **state)
{
    (void)state;
    const char *const more[] = { "box.lan" };
    Server *s = start(&(HttpOptions){ .hosts = more, .n_hosts = 1 });
    static const struct {
        int status;
        const char *host;
    } cases[] = {
        { 200, "localhost" },      { 200, "LOCALHOST:8080" },  { 200, "127.0.0.1:1" },
        { 200, "127.1.2.3" },      { 200, "[::1]:8080" },      { 200, "[::1]" },
        { 200, "Box.Lan:80" },     { 403, "evil.example" },    { 403, "localhost.evil.example" },
        { 403, "127.0.0.1.evil" }, { 403, "192.168.1.5" },     { 403, "" },
        { 403, "[::2]" },          { 403, "localhost:80:80" }, { 403, "[::1" },
        { 403, "localhost:x" },    { 403, "user@localhost" },  { 403, "localhost/" },
        { 403, "box.lan.evil" },   { 403, "localhost, evil" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char field[128];
        snprintf(field, sizeof field, "Host: %s\r\n", cases[i].host);
        assert_int_equal(with_field(s, "GET", "/health", field), cases[i].status);
    }
    stop(s);
}

static const char *const keys[] = { "sk-one", "a-second-and-longer-key" };

static void keys_are_asked_for_everywhere_but_health(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .keys = keys, .n_keys = COUNT(keys) });
    static const struct {
        int status;
        const char *path, *fields;
    } cases[] = {
        { 200, "/health", HOST },
        { 200, "/v1/health", HOST },
        { 401, "/health2", HOST },
        { 401, "/v1/v1/health", HOST },
        { 401, "//health", HOST },
        { 401, "/", HOST },
        { 401, "/metrics", HOST },
        { 401, "/nowhere", HOST },
        { 200, "/", HOST "Authorization: Bearer sk-one\r\n" },
        { 200, "/", HOST "authorization: bearer  a-second-and-longer-key\r\n" },
        { 200, "/", HOST "X-Api-Key: sk-one\r\n" },
        { 200, "/", HOST "X-Api-Key: wrong\r\nAuthorization: Bearer sk-one\r\n" },
        { 401, "/", HOST "Authorization: Bearer sk-on\r\n" },
        { 401, "/", HOST "Authorization: Bearer sk-one1\r\n" },
        { 401, "/", HOST "Authorization: Bearer\r\n" },
        { 401, "/", HOST "Authorization: Basic sk-one\r\n" },
        { 401, "/", HOST "Authorization: sk-one\r\n" },
        { 401, "/", HOST "X-Api-Key:\r\n" },
        { 403, "/health", "Host: evil.example\r\n" },
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(with_field(s, "GET", cases[i].path, cases[i].fields), cases[i].status);
    stop(s);
}

static void a_refusal_keeps_the_connection_in_step(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .keys = keys, .n_keys = 1 });
    Client c = client_tcp(s->port);
    client_say(&c, "POST /v1/messages HTTP/1.1\r\n" HOST "Content-Length: 31\r\n\r\n"
                   "GET /x HTTP/1.1\r\nHost: a\r\n\r\n..."
                   "GET /y HTTP/1.1\r\n" HOST "X-Api-Key: sk-one\r\n\r\n");
    Reply r = client_reply(&c, false), y = client_reply(&c, false);
    assert_int_equal(r.status, 401);
    assert_true(reply_says(&r, "www-authenticate", "Bearer"));
    assert_true(reply_says(&r, "content-type", "application/json"));
    assert_non_null(strstr(r.body.p, "\"path\":\"/v1/messages\""));
    assert_non_null(strstr(r.body.p, reply_field(&r, "request-id")));
    assert_string_equal(y.body.p, "GET /y? ");
    reply_release(&r);
    reply_release(&y);
    client_close(&c);
    stop(s);
}

typedef struct {
    Http *h;
    atomic_int done;
} KeyChange;

static void change_keys(void *arg)
{
    KeyChange *k = arg;
    const char *const other[] = { "new" }, *const empty[] = { "" };
    ds4_err err;
    assert_true(http_set_keys(k->h, other, 1, NULL));
    assert_false(http_set_keys(k->h, empty, 1, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    k->done = 1;
}

static void keys_can_be_replaced(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .keys = keys, .n_keys = 1 });
    KeyChange k = { .h = s->h };
    assert_true(http_post(s->h, change_keys, &k));
    assert_true(reaches(&k.done, 1));
    assert_int_equal(with_field(s, "GET", "/", HOST "x-api-key: sk-one\r\n"), 401);
    assert_int_equal(with_field(s, "GET", "/", HOST "x-api-key: new\r\n"), 200);
    stop(s);
}

static void only_listed_origins_may_read(void **state)
{
    (void)state;
    const char *const origins[] = { "https://ui.example", "localhost" };
    Server *s =
        start(&(HttpOptions){ .origins = origins, .n_origins = 2, .keys = keys, .n_keys = 1 });
    static const struct {
        bool allowed;
        const char *origin;
    } cases[] = {
        { true, "https://ui.example" },     { true, "http://localhost:3000" },
        { true, "http://127.0.0.1:1" },     { true, "https://[::1]:8" },
        { false, "https://evil.example" },  { false, "https://ui.example.evil" },
        { false, "http://localhost.evil" }, { false, "null" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "OPTIONS /v1/x HTTP/1.1\r\n" HOST "Origin: %s\r\n"
                 "Access-Control-Request-Method: POST\r\n"
                 "Access-Control-Request-Headers: x-api-key, content-type\r\n\r\n",
                 cases[i].origin);
        Reply r = ask_raw(s, text, NULL);
        assert_int_equal(r.status, 204);
        assert_true(reply_says(&r, "vary", "Origin"));
        assert_null(reply_field(&r, "content-length"));
        assert_int_equal(reply_says(&r, "access-control-allow-origin", cases[i].origin),
                         cases[i].allowed);
        assert_int_equal(reply_says(&r, "access-control-allow-headers", "x-api-key, content-type"),
                         cases[i].allowed);
        assert_int_equal(reply_says(&r, "access-control-max-age", "600"), cases[i].allowed);
        assert_null(reply_field(&r, "access-control-allow-credentials"));
        reply_release(&r);
    }
    stop(s);
}

static void without_origins_nothing_is_said_of_them(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Reply r = ask_raw(s, "OPTIONS * HTTP/1.1\r\n" HOST "Origin: http://localhost\r\n\r\n", NULL);
    assert_int_equal(r.status, 204);
    assert_null(reply_field(&r, "access-control-allow-origin"));
    assert_null(reply_field(&r, "access-control-allow-methods"));
    reply_release(&r);
    assert_int_equal(with_field(s, "POST", "/", HOST "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_int_equal(with_field(s, "POST", "/", HOST "Sec-Fetch-Site: same-origin\r\n"), 200);
    /* A page of another port here is of the same site. */
    assert_int_equal(with_field(s, "POST", "/", HOST "Origin: http://localhost:3000\r\n"), 403);
    assert_int_equal(with_field(s, "DELETE", "/", HOST "Origin: null\r\n"), 403);
    assert_int_equal(with_field(s, "GET", "/", HOST "Origin: http://localhost:3000\r\n"), 200);
    assert_int_equal(with_field(s, "POST", "/", HOST "Origin: http://localhost\r\n"), 200);
    assert_int_equal(with_field(s, "POST", "/", HOST "Origin: app://window\r\n"), 200);
    assert_int_equal(with_field(s, "GET", "/", HOST "Sec-Fetch-Site: cross-site\r\n"), 200);
    assert_int_equal(with_field(s, "POST", "/", HOST "Content-Encoding: gzip\r\n"), 415);
    stop(s);
}

/* ---- limits ------------------------------------------------------------------------------ */

#define MANY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct {
    int status;
    const char *text;
} framing_errors[] = {
    { 400, "nonsense\r\n\r\n" },
    { 400, "GET http://localhost/ HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" },
    { 400,
      "POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
      "GET /smuggled HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n" },
    { 400, "GET / HTTP/1.1\r\n\r\n" },
    { 413, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\nabc" },
    { 414, "GET /" MANY MANY MANY MANY " HTTP/1.1\r\n" HOST "\r\n" },
    { 417, "POST / HTTP/1.1\r\n" HOST "Expect: more\r\n\r\n" },
    { 431, "GET / HTTP/1.1\r\n" HOST "A: " MANY MANY MANY MANY MANY MANY MANY MANY "\r\n\r\n" },
    { 505, "GET / HTTP/1.0\r\n" HOST "\r\n" },
};

static void errors_in_framing_are_answered_and_close(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .max_body = 1000, .max_line = 200, .max_header = 500 });
    for (size_t i = 0; i < COUNT(framing_errors); i++) {
        bool closed;
        Reply r = ask_raw(s, framing_errors[i].text, &closed);
        if (r.status != framing_errors[i].status)
            print_error("%s gave %d\n", framing_errors[i].text, r.status);
        assert_int_equal(r.status, framing_errors[i].status);
        assert_true(reply_says(&r, "connection", "close"));
        assert_non_null(strstr(r.body.p, "\"code\":"));
        assert_true(closed);
        reply_release(&r);
        still_serves(s);
    }
    stop(s);
}

static void a_refused_upload_still_reads_the_refusal(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .max_body = 1000 });
    static const char piece[100000];
    for (int i = 0; i < 20; i++) {
        Client c = client_tcp(s->port);
        client_say(&c, "POST / HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
        client_send(&c, piece, sizeof piece);
        Reply r = client_reply(&c, false);
        assert_int_equal(r.status, 413);
        reply_release(&r);
        client_close(&c);
    }
    stop(s);
}

static void all_bodies_together_are_bounded(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .max_bodies = 4 << 20 });
    static const char piece[3 << 20];
    Client c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = client_tcp(s->port);
        client_say(&c[i], "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 4000000\r\n\r\n");
    }
    client_send(&c[0], piece, sizeof piece);
    nap_ms(300); /* so that it is the first */
    client_send(&c[1], piece, sizeof piece);
    Reply r = client_reply(&c[1], false);
    assert_int_equal(r.status, 503);
    assert_true(reply_says(&r, "retry-after", "1"));
    assert_true(client_ended(&c[1]));
    reply_release(&r);
    /* What one has lost, or a handler taken, others may have. */
    client_close(&c[0]);
    for (int i = 0; i < 1000 && http_stats(s->h).open > 1; i++)
        nap_ms(1);
    client_send(&c[2], piece, sizeof piece);
    client_send(&c[2], piece, 4000000 - sizeof piece);
    assert_true(reaches(&s->n_held, 1));
    client_close(&c[1]);
    client_close(&c[2]);
    stop(s);
}

/* Wrong in one place each, and in random ways around it. */
static void put_malformed(Bytes *b, uint64_t *rng)
{
    static const char *const wrong[] = {
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: gzip\r\n",
        "No colon\r\n",
        "Bad name: 1\r\n",
        " Folded: 1\r\n",
        "A: \x01\r\n",
        "A: b\rc\r\n",
        "A: b\n",
        "Host: again\r\n",
        "Expect: nothing\r\n",
        "Content-Length: 1, 1\r\n",
        ": empty\r\n",
        "Content-Length: 99999999999\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    };
    static const char *const lines[] = {
        "GET /",           "GET / HTTP/9",      "GET  / HTTP/1.1",
        "/ GET HTTP/1.1",  "GET x HTTP/1.1",    "GET /\x80 HTTP/1.1",
        "\x16\x03\x01",    "G\x01T / HTTP/1.1", "",
        "HTTP/1.1 200 OK",
    };
    bool bad_line = rng_next(rng) % 3 == 0;
    if (bad_line)
        bytes_printf(b, "%s\r\n\r\n\r\n\r\n", lines[rng_next(rng) % COUNT(lines)]);
    else
        bytes_printf(b, "POST /%llx HTTP/1.1\r\n", (unsigned long long)rng_next(rng));
    bytes_str(b, HOST);
    for (uint64_t i = rng_next(rng) % 5; i > 0; i--)
        bytes_printf(b, "X-%llx: %llx\r\n", (unsigned long long)(rng_next(rng) % 1000),
                     (unsigned long long)rng_next(rng));
    bytes_str(b, wrong[rng_next(rng) % COUNT(wrong)]);
    bytes_str(b, "\r\n");
    for (uint64_t i = rng_next(rng) % 40; i > 0; i--)
        bytes_byte(b, (unsigned char)rng_next(rng));
}

static void a_thousand_malformed_requests_get_a_4xx_each(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    uint64_t rng = 1;
    Bytes b = { 0 };
    for (int i = 0; i < 1000; i++) {
        bytes_clear(&b);
        put_malformed(&b, &rng);
        Client c = client_tcp(s->port);
        assert_true(client_send(&c, b.p, b.n));
        Reply r = client_reply(&c, false);
        if (r.status < 400 || r.status > 499)
            print_error("%.*s gave %d\n", (int)b.n, b.p, r.status);
        assert_in_range(r.status, 400, 499);
        assert_non_null(strstr(r.body.p, "\"code\":"));
        reply_release(&r);
        client_close(&c);
    }
    bytes_release(&b);
    still_serves(s);
    stop(s);
}

static void connections_beyond_the_limit_are_told_to_come_back(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .max_connections = 2 });
    Client c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = client_tcp(s->port);
        client_say(&c[i], "GET / HTTP/1.1\r\n" HOST "\r\n");
        Reply r = client_reply(&c[i], false);
        assert_int_equal(r.status, 200);
        reply_release(&r);
    }
    bool closed;
    Reply r = ask_raw(s, "GET /v1/messages HTTP/1.1\r\n" HOST "\r\n", &closed);
    assert_int_equal(r.status, 503);
    assert_true(reply_says(&r, "retry-after", "1"));
    assert_non_null(strstr(r.body.p, "/v1/messages"));
    assert_true(closed);
    assert_int_equal(http_stats(s->h).refused, 1);
    reply_release(&r);
    client_close(&c[0]);
    for (int i = 0; i < 1000 && http_stats(s->h).open > 1; i++)
        nap_ms(1);
    still_serves(s);
    client_close(&c[1]);
    stop(s);
}

static void slow_requests_time_out(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .header_seconds = 1, .body_seconds = 1, .idle_seconds = 2 });
    Client head = client_tcp(s->port), body = client_tcp(s->port), idle = client_tcp(s->port);
    int64_t begun = clock_ns();
    client_say(&body, "POST / HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc");
    /* A byte now and then helps neither. */
    for (int i = 0; i < 8; i++) {
        client_send(&head, &"GET / HT"[i], 1);
        nap_ms(100);
    }
    client_say(&body, "d");
    Reply r = client_reply(&head, false);
    int64_t after_head = clock_ns() - begun;
    assert_int_equal(r.status, 408);
    assert_in_range(after_head / 1000000, 900, 1600);
    reply_release(&r);
    r = client_reply(&body, false);
    assert_int_equal(r.status, 408);
    assert_in_range((clock_ns() - begun) / 1000000, 900, 1600);
    reply_release(&r);
    assert_true(client_ended(&idle)); /* nobody was asked, so nothing is said */
    client_close(&head);
    client_close(&body);
    client_close(&idle);
    stop(s);
}

static void bodies_that_trickle_time_out(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .body_seconds = 1 });
    Client c = client_tcp(s->port);
    int64_t begun = clock_ns();
    client_say(&c, "POST / HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\n");
    for (int i = 0; i < 14; i++) {
        client_send(&c, "x", 1);
        nap_ms(100);
    }
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 408);
    assert_in_range((clock_ns() - begun) / 1000000, 900, 2600);
    reply_release(&r);
    client_close(&c);
    stop(s);
}

static void long_bodies_may_take_their_time(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .body_seconds = 1 });
    static const char piece[32 << 10];
    Client c = client_tcp(s->port);
    client_say(&c, "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 524288\r\n\r\n");
    for (int i = 0; i < 16; i++) {
        client_send(&c, piece, sizeof piece);
        nap_ms(150);
    }
    assert_true(reaches(&s->n_held, 1));
    client_close(&c);
    stop(s);
}

static void a_long_body_that_is_refused_is_not_waited_for(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .keys = keys, .n_keys = 1 });
    static const char *const lengths[] = { "Content-Length: 1000000",
                                           "Transfer-Encoding: chunked" };
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char text[200];
        int64_t begun = clock_ns();
        Client c = client_tcp(s->port);
        snprintf(text, sizeof text, "POST / HTTP/1.1\r\n" HOST "%s\r\n\r\n", lengths[i]);
        client_say(&c, text);
        Reply r = client_reply(&c, false);
        assert_int_equal(r.status, 401);
        assert_true(client_ended(&c));
        assert_in_range((clock_ns() - begun) / 1000000, 0, 900);
        reply_release(&r);
        client_close(&c);
    }
    stop(s);
}

/* ---- clients that go, and clients that do not read -------------------------------------------- */

enum Leave { CLOSE, RESET, HALF };

static int64_t notice_us(Server *s, enum Leave how)
{
    Client c = client_tcp(s->port);
    int held = s->n_held, lost = s->n_lost;
    client_say(&c, "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}GET /ahead HTT");
    assert_true(reaches(&s->n_held, held + 1));
    nap_ms(5);
    int64_t gone = clock_ns();
    if (how == RESET)
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
                   sizeof(struct linger));
    if (how == HALF)
        shutdown(c.fd, SHUT_WR);
    else
        client_close(&c);
    assert_true(reaches(&s->n_lost, lost + 1));
    assert_string_equal(s->why, "client_gone");
    client_close(&c);
    return (s->lost_ns - gone) / 1000;
}

static void a_client_that_goes_is_noticed_at_once(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    for (enum Leave how = CLOSE; how <= HALF; how++) {
        int64_t best = INT64_MAX;
        /* Several times, since a busy machine may let us wait once. */
        for (int i = 0; i < 5; i++) {
            int64_t us = notice_us(s, how);
            best = MIN(best, us);
        }
        assert_in_range(best, 0, 50000);
    }
    stop(s);
}

/* How much of what it sends while its request is handled is taken from a client. */
static void little_is_read_ahead_of_a_reply(void **state)
{
    (void)state;
    enum { MOST = 16 << 20 };
    static char piece[64 << 10];
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    struct timeval t = { .tv_usec = 300000 };
    size_t sent = 0;
    int room = 64 << 10;
    setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    for (ssize_t k; sent < MOST && (k = send(c.fd, piece, sizeof piece, 0)) > 0;)
        sent += (size_t)k;
    assert_true(sent < MOST); /* the rest is the kernel's */
    assert_int_equal(s->n_lost, 0);
    client_close(&c);
    stop(s);
}

static void finish_held(void *arg)
{
    Server *s = arg;
    http_reply(s->held, 200, "text/plain", STR("later"));
    s->held = NULL;
}

/* What waited in the kernel is read when its turn comes. */
static void what_was_sent_ahead_is_answered(void **state)
{
    (void)state;
    static char piece[1 << 20];
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    memset(piece, 'x', sizeof piece);
    client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n"
                   "POST /a HTTP/1.1\r\n" HOST "Content-Length: 1048576\r\n\r\n");
    client_send(&c, piece, sizeof piece);
    assert_true(reaches(&s->n_held, 1));
    nap_ms(50);
    assert_true(http_post(s->h, finish_held, s));
    Reply r = client_reply(&c, false), a = client_reply(&c, false);
    assert_int_equal(r.status, 200);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, strlen("POST /a? ") + sizeof piece);
    reply_release(&r);
    reply_release(&a);
    client_close(&c);
    stop(s);
}

static void other_threads_answer_through_posts(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    for (int i = 1; i <= 50; i++) {
        client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
        assert_true(reaches(&s->n_held, i));
        assert_true(http_post(s->h, finish_held, s));
        Reply r = client_reply(&c, false);
        assert_string_equal(r.body.p, "later");
        reply_release(&r);
    }
    assert_int_equal(s->n_lost, 0);
    client_close(&c);
    stop(s);
}

static void a_client_that_does_not_read_is_cut_at_the_hard_limit(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .outbox_soft = 100000, .outbox_hard = 1000000 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /flood HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_lost, 1));
    assert_string_equal(s->why, "slow_client");
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 0);
    reply_release(&r);
    assert_int_equal(http_stats(s->h).slow_clients, 1);
    still_serves(s);
    client_close(&c);
    stop(s);
}

static void a_client_that_stops_reading_is_cut_in_time(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .slow_seconds = 1 });
    Client c = client_tcp(s->port);
    int64_t begun = clock_ns();
    client_say(&c, "GET /large?20000000 HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 5000 && http_stats(s->h).slow_clients == 0; i++)
        nap_ms(1);
    assert_in_range((clock_ns() - begun) / 1000000, 900, 3000);
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 0);
    reply_release(&r);
    still_serves(s);
    client_close(&c);
    stop(s);
}

static void a_slow_reader_delays_nobody_else(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .slow_seconds = 5 });
    Client slow = client_tcp(s->port);
    int64_t best = INT64_MAX;
    client_say(&slow, "GET /large?9000000 HTTP/1.1\r\n" HOST "\r\n");
    nap_ms(20);
    for (int i = 0; i < 20; i++) {
        int64_t begun = clock_ns();
        still_serves(s);
        best = MIN(best, clock_ns() - begun);
    }
    assert_in_range(best / 1000000, 0, 50);
    Reply r = client_reply(&slow, false);
    assert_int_equal(r.body.n, 9000000);
    reply_release(&r);
    client_close(&slow);
    stop(s);
}

static void a_congested_stream_hears_of_room(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ .outbox_soft = 4000000, .outbox_hard = 9000000 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /congest HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    Reply r = client_reply(&c, false);
    assert_true(r.status == 200 && r.body.n > 3900000);
    assert_int_equal(s->rooms, 1);
    assert_in_range(s->room_now, 0, 2000000);
    assert_int_equal(s->n_lost, 0);
    reply_release(&r);
    client_close(&c);
    stop(s);
}

static void a_reset_is_seen_as_one(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /reset HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(client_more(&c), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(s->n_lost, 0);
    client_close(&c);
    stop(s);
}

/* ---- threads, timers, the end ---------------------------------------------------------------------- */

enum { POSTERS = 4, POSTS = 500 };

typedef struct {
    Http *h;
    int seen[POSTERS], wrong; /* the network thread's */
    atomic_int total;
} Tally;

typedef struct {
    Tally *t;
    int who, n;
} Posted;

static void count_post(void *arg)
{
    Posted *p = arg;
    Tally *t = p->t;
    t->wrong += t->seen[p->who]++ != p->n;
    free(p);
    t->total++;
}

static void *poster(void *arg)
{
    Posted *me = arg;
    for (int i = 0; i < POSTS; i++) {
        Posted *p = malloc(sizeof *p);
        *p = (Posted){ me->t, me->who, i };
        if (!http_post(me->t->h, count_post, p))
            free(p);
    }
    return NULL;
}

static void posts_run_once_and_in_order(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Tally t = { .h = s->h };
    pthread_t id[POSTERS];
    Posted arg[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        arg[i] = (Posted){ &t, i, 0 };
        assert_int_equal(pthread_create(&id[i], NULL, poster, &arg[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(id[i], NULL);
    assert_true(reaches(&t.total, POSTERS * POSTS));
    stop(s);
    assert_int_equal(t.wrong, 0);
}

static void note(void *arg) { ++*(atomic_int *)arg; }

static bool tick(void *arg) { return ++*(atomic_int *)arg < 3; }

static void timers_tick_until_they_say_so(void **state)
{
    (void)state;
    ds4_err err;
    atomic_int ticks = 0, posts = 0;
    Server *s = calloc(1, sizeof *s);
    s->h = http_open(&(HttpOptions){ 0 }, handler, NULL, s, &err);
    assert_non_null(s->h);
    assert_true(http_every(s->h, 5, tick, &ticks));
    assert_true(http_post(s->h, note, &posts)); /* before there is a loop */
    assert_int_equal(pthread_create(&s->thread, NULL, network, s), 0);
    assert_true(reaches(&ticks, 3));
    assert_true(reaches(&posts, 1));
    nap_ms(30);
    assert_int_equal(ticks, 3);
    http_stop(s->h);
    pthread_join(s->thread, NULL);
    assert_false(http_post(s->h, note, &posts));
    assert_int_equal(posts, 1);
    http_close(s->h);
    free(s);
}

static void stopping_tells_those_who_wait(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    http_stop(s->h);
    assert_true(reaches(&s->n_lost, 1));
    assert_string_equal(s->why, "shutdown");
    assert_true(client_more(&c) <= 0);
    client_close(&c);
    stop(s);
}

static void draining_lets_replies_finish(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    Client idle = client_tcp(s->port), busy = client_tcp(s->port);
    client_say(&busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    http_drain(s->h);
    assert_true(client_ended(&idle));
    Client late = client_tcp(s->port);
    assert_int_equal(late.fd, -1);
    assert_true(http_post(s->h, finish_held, s));
    Reply r = client_reply(&busy, false);
    assert_string_equal(r.body.p, "later");
    assert_true(reply_says(&r, "connection", "close"));
    assert_true(client_ended(&busy));
    reply_release(&r);
    client_close(&idle);
    client_close(&busy);
    for (int i = 0; i < 1000 && http_stats(s->h).open; i++)
        nap_ms(1);
    assert_int_equal(http_stats(s->h).open, 0);
    stop(s);
}

/* ---- addresses ---------------------------------------------------------------------------------------- */

static ds4_err refused_options(const HttpOptions *opt)
{
    ds4_err err = { 0 };
    assert_null(http_open(opt, handler, error_body, NULL, &err));
    return err;
}

static void public_addresses_need_a_key(void **state)
{
    (void)state;
    ds4_err err = refused_options(&(HttpOptions){ .host = "0.0.0.0" });
    assert_int_equal(err.code, DS4_EINVAL);
    assert_non_null(strstr(err.msg, "API key"));
    Server *s = start(&(HttpOptions){ .host = "0.0.0.0", .insecure = true });
    assert_int_equal(with_field(s, "GET", "/", "Host: 192.168.1.5:80\r\n"), 200);
    assert_int_equal(with_field(s, "GET", "/", "Host: evil.example\r\n"), 403);
    stop(s);
    s = start(&(HttpOptions){ .host = "0.0.0.0", .keys = keys, .n_keys = 1 });
    assert_int_equal(with_field(s, "GET", "/", HOST), 401);
    stop(s);
}

static void a_taken_port_is_an_error(void **state)
{
    (void)state;
    Server *s = start(&(HttpOptions){ 0 });
    ds4_err err = refused_options(&(HttpOptions){ .port = s->port });
    assert_int_equal(err.code, DS4_EIO);
    err = refused_options(&(HttpOptions){ .port = 65536 });
    assert_int_equal(err.code, DS4_EINVAL);
    still_serves(s);
    stop(s);
}

static void a_unix_socket_is_private_and_goes_away(void **state)
{
    (void)state;
    char dir[] = "/tmp/ds4-http-XXXXXX", path[64], file[64], longest[200];
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    snprintf(file, sizeof file, "%s/f", dir);
    for (int round = 0; round < 2; round++) {
        Server *s = start(&(HttpOptions){ .unix_path = path });
        assert_int_equal(lstat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        Client c = client_unix(path);
        client_say(&c, "GET /u HTTP/1.1\r\nHost: any.thing\r\n\r\n");
        Reply r = client_reply(&c, false);
        assert_string_equal(r.body.p, "GET /u? ");
        reply_release(&r);
        client_close(&c);
        ds4_err err = refused_options(&(HttpOptions){ .unix_path = path });
        assert_non_null(strstr(err.msg, "in use"));
        stop(s);
        assert_int_equal(lstat(path, &st), -1);
        /* What a killed server leaves does not stand in the way. */
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        memcpy(a.sun_path, path, strlen(path));
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
        close(fd);
    }
    assert_int_equal(unlink(path), 0);
    fclose(fopen(file, "w"));
    assert_int_equal(refused_options(&(HttpOptions){ .unix_path = file }).code, DS4_EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(refused_options(&(HttpOptions){ .unix_path = longest }).code, DS4_EINVAL);
    unlink(file);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_on_both_loopbacks_at_one_port),
        cmocka_unit_test(replies_carry_ids_and_lengths),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(requests_before_a_half_close_are_answered),
        cmocka_unit_test(single_bytes_are_enough),
        cmocka_unit_test(head_gets_the_length_alone),
        cmocka_unit_test(chunked_streams_leave_the_connection_usable),
        cmocka_unit_test(large_bodies_go_both_ways),
        cmocka_unit_test(expected_continue_is_given),
        cmocka_unit_test(foreign_host_names_are_refused),
        cmocka_unit_test(keys_are_asked_for_everywhere_but_health),
        cmocka_unit_test(a_refusal_keeps_the_connection_in_step),
        cmocka_unit_test(keys_can_be_replaced),
        cmocka_unit_test(only_listed_origins_may_read),
        cmocka_unit_test(without_origins_nothing_is_said_of_them),
        cmocka_unit_test(errors_in_framing_are_answered_and_close),
        cmocka_unit_test(a_refused_upload_still_reads_the_refusal),
        cmocka_unit_test(all_bodies_together_are_bounded),
        cmocka_unit_test(a_thousand_malformed_requests_get_a_4xx_each),
        cmocka_unit_test(connections_beyond_the_limit_are_told_to_come_back),
        cmocka_unit_test(slow_requests_time_out),
        cmocka_unit_test(bodies_that_trickle_time_out),
        cmocka_unit_test(long_bodies_may_take_their_time),
        cmocka_unit_test(a_long_body_that_is_refused_is_not_waited_for),
        cmocka_unit_test(a_client_that_goes_is_noticed_at_once),
        cmocka_unit_test(little_is_read_ahead_of_a_reply),
        cmocka_unit_test(what_was_sent_ahead_is_answered),
        cmocka_unit_test(other_threads_answer_through_posts),
        cmocka_unit_test(a_client_that_does_not_read_is_cut_at_the_hard_limit),
        cmocka_unit_test(a_client_that_stops_reading_is_cut_in_time),
        cmocka_unit_test(a_slow_reader_delays_nobody_else),
        cmocka_unit_test(a_congested_stream_hears_of_room),
        cmocka_unit_test(a_reset_is_seen_as_one),
        cmocka_unit_test(posts_run_once_and_in_order),
        cmocka_unit_test(timers_tick_until_they_say_so),
        cmocka_unit_test(stopping_tells_those_who_wait),
        cmocka_unit_test(draining_lets_replies_finish),
        cmocka_unit_test(public_addresses_need_a_key),
        cmocka_unit_test(a_taken_port_is_an_error),
        cmocka_unit_test(a_unix_socket_is_private_and_goes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
