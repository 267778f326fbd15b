/* HTTP over real connections: requests, and what is answered. */
#include "../http_site.h"
#include <netinet/tcp.h>

static void answers_on_both_loopbacks_at_one_port(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static bool is_id(const char *id)
{
    return id && strlen(id) == 28 && strncmp(id, "req_", 4) == 0 &&
           strspn(id + 4, "0123456789abcdef") == 24;
}

static void replies_carry_ids_and_lengths(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    char first[512];
    Reply r = site_ask(s, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi", NULL);
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
    r = site_ask(s, "GET / HTTP/1.1\r\n" HOST "X-Request-Id: mine-7\r\n\r\n", NULL);
    assert_true(reply_says(&r, "x-request-id", "mine-7"));
    assert_true(is_id(reply_field(&r, "request-id")));
    assert_false(reply_says(&r, "request-id", first));
    reply_release(&r);
    site_close(s);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

/* What was asked before the client stopped sending is answered to the end. */
static void requests_before_a_half_close_are_answered(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static void single_bytes_are_enough(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static void head_gets_the_length_alone(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static void chunked_streams_leave_the_connection_usable(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static void large_bodies_go_both_ways(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
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
    site_close(s);
}

static void expected_continue_is_given(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .max_body = 100 });
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
    site_close(s);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
