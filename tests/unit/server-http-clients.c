/* Clients that go, that send ahead and that do not read, and those who answer them. */
#include "../http_site.h"

enum Leave { CLOSE, RESET, HALF };

static int64_t notice_us(Site *s, enum Leave how)
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
    Site *s = site_open(&(HttpOptions){ 0 });
    for (enum Leave how = CLOSE; how <= HALF; how++) {
        int64_t best = INT64_MAX;
        /* Several times, since a busy machine may let us wait once. */
        for (int i = 0; i < 5; i++) {
            int64_t us = notice_us(s, how);
            best = MIN(best, us);
        }
        assert_in_range(best, 0, 50000);
    }
    site_close(s);
}

/* How much of what it sends while its request is handled is taken from a client. */
static void little_is_read_ahead_of_a_reply(void **state)
{
    (void)state;
    enum { MOST = 16 << 20 };
    static char piece[64 << 10];
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

/* What waited in the kernel is read when its turn comes. */
static void what_was_sent_ahead_is_answered(void **state)
{
    (void)state;
    static char piece[1 << 20];
    Site *s = site_open(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    memset(piece, 'x', sizeof piece);
    client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n"
                   "POST /a HTTP/1.1\r\n" HOST "Content-Length: 1048576\r\n\r\n");
    client_send(&c, piece, sizeof piece);
    assert_true(reaches(&s->n_held, 1));
    nap_ms(50);
    assert_true(http_post(s->h, &s->finish, site_finish_held, s));
    Reply r = client_reply(&c, false), a = client_reply(&c, false);
    assert_int_equal(r.status, 200);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, strlen("POST /a? ") + sizeof piece);
    reply_release(&r);
    reply_release(&a);
    client_close(&c);
    site_close(s);
}

static void other_threads_answer_through_posts(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    for (int i = 1; i <= 50; i++) {
        client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
        assert_true(reaches(&s->n_held, i));
        assert_true(http_post(s->h, &s->finish, site_finish_held, s));
        Reply r = client_reply(&c, false);
        assert_string_equal(r.body.p, "later");
        reply_release(&r);
    }
    assert_int_equal(s->n_lost, 0);
    client_close(&c);
    site_close(s);
}

static void a_client_that_does_not_read_is_cut_at_the_hard_limit(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .outbox_soft = 100000, .outbox_hard = 1000000 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /flood HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_lost, 1));
    assert_string_equal(s->why, "slow_client");
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 0);
    reply_release(&r);
    assert_int_equal(http_stats(s->h).slow_clients, 1);
    site_still_serves(s);
    client_close(&c);
    site_close(s);
}

static void a_client_that_stops_reading_is_cut_in_time(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .slow_seconds = 1 });
    int64_t begun = clock_ns();
    Client c = client_tcp(s->port);
    client_say(&c, "GET /large?20000000 HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < CLIENT_SECONDS * 1000 && http_stats(s->h).slow_clients == 0; i++)
        nap_ms(1);
    assert_int_equal(http_stats(s->h).slow_clients, 1);
    assert_true(clock_ns() - begun >= 900000000);
    Reply r = client_reply(&c, false);
    assert_int_equal(r.status, 0);
    reply_release(&r);
    site_still_serves(s);
    client_close(&c);
    site_close(s);
}

static void a_slow_reader_delays_nobody_else(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .slow_seconds = 5 });
    Client slow = client_tcp(s->port);
    int64_t best = INT64_MAX;
    client_say(&slow, "GET /large?9000000 HTTP/1.1\r\n" HOST "\r\n");
    nap_ms(20);
    for (int i = 0; i < 20; i++) {
        int64_t begun = clock_ns();
        site_still_serves(s);
        best = MIN(best, clock_ns() - begun);
    }
    assert_in_range(best / 1000000, 0, 50);
    Reply r = client_reply(&slow, false);
    assert_int_equal(r.body.n, 9000000);
    reply_release(&r);
    client_close(&slow);
    site_close(s);
}

static void a_congested_stream_hears_of_room(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .outbox_soft = 4000000, .outbox_hard = 9000000 });
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
    site_close(s);
}

static void a_reset_is_seen_as_one(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /reset HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(client_more(&c), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(s->n_lost, 0);
    client_close(&c);
    site_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_goes_is_noticed_at_once),
        cmocka_unit_test(little_is_read_ahead_of_a_reply),
        cmocka_unit_test(what_was_sent_ahead_is_answered),
        cmocka_unit_test(other_threads_answer_through_posts),
        cmocka_unit_test(a_client_that_does_not_read_is_cut_at_the_hard_limit),
        cmocka_unit_test(a_client_that_stops_reading_is_cut_in_time),
        cmocka_unit_test(a_slow_reader_delays_nobody_else),
        cmocka_unit_test(a_congested_stream_hears_of_room),
        cmocka_unit_test(a_reset_is_seen_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
