/* What the HTTP server refuses, and when it stops waiting for a request. */
#include "../http_site.h"
#include "../../src/base/rng.h"
#include <poll.h>

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
    Site *s = site_open(&(HttpOptions){ .max_body = 1000, .max_line = 200, .max_header = 500 });
    for (size_t i = 0; i < COUNT(framing_errors); i++) {
        bool closed;
        Reply r = site_ask(s, framing_errors[i].text, &closed);
        if (r.status != framing_errors[i].status)
            print_error("%s gave %d\n", framing_errors[i].text, r.status);
        assert_int_equal(r.status, framing_errors[i].status);
        assert_true(reply_says(&r, "connection", "close"));
        assert_non_null(strstr(r.body.p, "\"code\":"));
        assert_true(closed);
        reply_release(&r);
        site_still_serves(s);
    }
    site_close(s);
}

static void a_refused_upload_still_reads_the_refusal(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .max_body = 1000 });
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
    site_close(s);
}

/* The first of two connections to hear something; -1: neither does. */
static int first_to_hear(const Client c[2])
{
    struct pollfd fd[2] = { { .fd = c[0].fd, .events = POLLIN },
                            { .fd = c[1].fd, .events = POLLIN } };
    return poll(fd, 2, CLIENT_SECONDS * 1000) > 0 ? !fd[0].revents : -1;
}

static void all_bodies_together_are_bounded(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .max_bodies = 4 << 20 });
    static const char piece[3 << 20];
    Client c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = client_tcp(s->port);
        client_say(&c[i], "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 4000000\r\n\r\n");
    }
    client_send(&c[0], piece, sizeof piece);
    client_send(&c[1], piece, sizeof piece);
    int late = first_to_hear(c);
    assert_true(late >= 0);
    Reply r = client_reply(&c[late], false);
    assert_int_equal(r.status, 503);
    assert_true(reply_says(&r, "retry-after", "1"));
    assert_true(client_ended(&c[late]));
    reply_release(&r);
    /* What one has lost, or a handler taken, others may have. */
    client_close(&c[!late]);
    assert_true(closes_to(s, 1));
    client_send(&c[2], piece, sizeof piece);
    client_send(&c[2], piece, 4000000 - sizeof piece);
    assert_true(reaches(&s->n_held, 1));
    client_close(&c[late]);
    client_close(&c[2]);
    site_close(s);
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
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_still_serves(s);
    site_close(s);
}

static void connections_beyond_the_limit_are_told_to_come_back(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .max_connections = 2 });
    Client c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = client_tcp(s->port);
        client_say(&c[i], "GET / HTTP/1.1\r\n" HOST "\r\n");
        Reply r = client_reply(&c[i], false);
        assert_int_equal(r.status, 200);
        reply_release(&r);
    }
    bool closed;
    Reply r = site_ask(s, "GET /v1/messages HTTP/1.1\r\n" HOST "\r\n", &closed);
    assert_int_equal(r.status, 503);
    assert_true(reply_says(&r, "retry-after", "1"));
    assert_non_null(strstr(r.body.p, "/v1/messages"));
    assert_true(closed);
    assert_int_equal(http_stats(s->h).refused, 1);
    reply_release(&r);
    client_close(&c[0]);
    assert_true(closes_to(s, 1));
    site_still_serves(s);
    client_close(&c[1]);
    site_close(s);
}

/* Sends this, then a byte now and then until something comes back. False: nothing does. */
static bool trickle(Client *c, const char *text)
{
    struct pollfd fd = { .fd = c->fd, .events = POLLIN };
    bool heard = false;
    client_say(c, text);
    for (int i = 0; i < 10 * CLIENT_SECONDS && !heard; i++) {
        client_send(c, "x", 1);
        heard = poll(&fd, 1, 100) > 0;
    }
    return heard;
}

/* After a second at the soonest; it has begun at begun_ns or later. */
static void times_out(Client *c, int64_t begun_ns)
{
    Reply r = client_reply(c, false);
    assert_int_equal(r.status, 408);
    assert_true(clock_ns() - begun_ns >= 900000000);
    reply_release(&r);
    client_close(c);
}

static void slow_requests_time_out(void **state)
{
    (void)state;
    Site *s =
        site_open(&(HttpOptions){ .header_seconds = 1, .body_seconds = 1, .idle_seconds = 2 });
    int64_t begun = clock_ns();
    Client head = client_tcp(s->port), body = client_tcp(s->port), idle = client_tcp(s->port);
    client_say(&body, "POST / HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc");
    assert_true(trickle(&head, "GET / HTTP/1.1\r\n" HOST "A: "));
    times_out(&head, begun);
    times_out(&body, begun);
    assert_true(client_ended(&idle)); /* nobody was asked, so nothing is said */
    client_close(&idle);
    site_close(s);
}

static void bodies_that_trickle_time_out(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .body_seconds = 1 });
    int64_t begun = clock_ns();
    Client c = client_tcp(s->port);
    assert_true(trickle(&c, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\n"));
    times_out(&c, begun);
    site_close(s);
}

/* 16 pieces in more than two seconds; false: it was told that this is too long. */
static bool uploads_slowly(Site *s)
{
    static const char piece[32 << 10];
    Client c = client_tcp(s->port);
    struct pollfd fd = { .fd = c.fd, .events = POLLIN };
    client_say(&c, "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 524288\r\n\r\n");
    bool taken = true;
    for (int i = 0; i < 16 && taken; i++) {
        client_send(&c, piece, sizeof piece);
        taken = poll(&fd, 1, 150) == 0;
    }
    taken = taken && reaches(&s->n_held, 1);
    client_close(&c);
    return taken;
}

static void long_bodies_may_take_their_time(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .body_seconds = 1 });
    bool taken = false;
    /* Several times, since a busy machine may stop us for a second. */
    for (int i = 0; i < 5 && !taken; i++)
        taken = uploads_slowly(s);
    assert_true(taken);
    site_close(s);
}

static void a_long_body_that_is_refused_is_not_waited_for(void **state)
{
    (void)state;
    const char *const keys[] = { "sk-one" };
    Site *s = site_open(&(HttpOptions){ .keys = keys, .n_keys = 1 });
    static const char *const lengths[] = { "Content-Length: 1000000",
                                           "Transfer-Encoding: chunked" };
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char text[200];
        Client c = client_tcp(s->port);
        snprintf(text, sizeof text, "POST / HTTP/1.1\r\n" HOST "%s\r\n\r\n", lengths[i]);
        client_say(&c, text);
        Reply r = client_reply(&c, false);
        assert_int_equal(r.status, 401);
        assert_true(client_ended(&c)); /* a body has 30 seconds, we read for 10 */
        reply_release(&r);
        client_close(&c);
    }
    site_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_in_framing_are_answered_and_close),
        cmocka_unit_test(a_refused_upload_still_reads_the_refusal),
        cmocka_unit_test(all_bodies_together_are_bounded),
        cmocka_unit_test(a_thousand_malformed_requests_get_a_4xx_each),
        cmocka_unit_test(connections_beyond_the_limit_are_told_to_come_back),
        cmocka_unit_test(slow_requests_time_out),
        cmocka_unit_test(bodies_that_trickle_time_out),
        cmocka_unit_test(long_bodies_may_take_their_time),
        cmocka_unit_test(a_long_body_that_is_refused_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
