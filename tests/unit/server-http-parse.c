/* Requests as bytes: what is understood, what is refused, and that cuts make
 * no difference. */
#include "../../src/server/http_parse.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const HttpLimits small = {
    .max_line = 64, .max_header = 300, .max_body = 100, .max_fields = 5
};

/* Feeds p in pieces of `piece` bytes until the request is done or bad. */
static enum HttpStep read_all(HttpParser *h, const char *p, size_t n, size_t piece, size_t *used)
{
    enum HttpStep step = HTTP_MORE;
    bool head = false;
    *used = 0;
    while (step == HTTP_MORE || step == HTTP_HEAD) {
        size_t k = MIN(piece, n - *used), took;
        step = http_parse(h, p + *used, k, &took);
        assert_true(took <= k);
        assert_false(head && step == HTTP_HEAD);
        head = head || step == HTTP_HEAD;
        *used += took;
        if (step == HTTP_MORE && *used == n)
            return HTTP_MORE;
    }
    return step;
}

static HttpParser parse_text(const char *text, enum HttpStep want)
{
    HttpParser h = { .limits = small };
    size_t used;
    enum HttpStep step = read_all(&h, text, strlen(text), SIZE_MAX, &used);
    if (step != want)
        print_error("%s\n gave %d (%d %s)\n", text, step, h.status, h.message ? h.message : "");
    assert_int_equal(step, want);
    return h;
}

static void a_request_is_read(void **state)
{
    (void)state;
    HttpParser h =
        parse_text("POST /v1/messages?beta=true HTTP/1.1\r\nHost: localhost\r\n"
                   "X-Thing: \t two words \t\r\nEmpty:\r\nContent-Length: 5\r\n\r\nhello",
                   HTTP_DONE);
    assert_string_equal(http_parse_method(&h), "POST");
    assert_string_equal(http_parse_path(&h), "/v1/messages");
    assert_string_equal(http_parse_query(&h), "beta=true");
    assert_string_equal(http_parse_field(&h, "x-thing"), "two words");
    assert_string_equal(http_parse_field(&h, "EMPTY"), "");
    assert_null(http_parse_field(&h, "thing"));
    assert_int_equal(h.body.n, 5);
    assert_memory_equal(h.body.p, "hello", 5);
    assert_false(h.close);
    http_parse_release(&h);
}

static void chunks_are_joined(void **state)
{
    (void)state;
    HttpParser h = parse_text("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
                              "5\r\nhello\r\n00A;name=\"v\"\r\n, all of y\r\n2\r\nou\r\n0\r\n"
                              "Trailer: dropped\r\n\r\n",
                              HTTP_DONE);
    assert_int_equal(h.body.n, 17);
    assert_memory_equal(h.body.p, "hello, all of you", 17);
    assert_null(http_parse_field(&h, "trailer"));
    http_parse_release(&h);
}

static void what_follows_belongs_to_the_next(void **state)
{
    (void)state;
    static const char two[] =
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    HttpParser h = { .limits = small };
    size_t used;
    assert_int_equal(read_all(&h, two, sizeof two - 1, SIZE_MAX, &used), HTTP_DONE);
    assert_int_equal(used, (sizeof two - 1) / 2);
    http_parse_release(&h);
}

static void connection_words_are_seen_in_lists(void **state)
{
    (void)state;
    HttpParser h =
        parse_text("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , Close\r\n\r\n", HTTP_DONE);
    assert_true(h.close);
    http_parse_release(&h);
    assert_true(http_list_has("a, b ,c", "B"));
    assert_false(http_list_has("ab, bc", "b"));
    assert_false(http_list_has(" , ,", "b"));
    assert_false(http_list_has(NULL, "b"));
}

#define LINE    "POST /x HTTP/1.1\r\n"
#define HOST    "Host: a\r\n"
#define CHUNKED LINE HOST "Transfer-Encoding: chunked\r\n\r\n"
#define FIFTY   "0123456789012345678901234567890123456789abcdefghij"

static const struct {
    int status;
    const char *text;
} refused[] = {
    /* two readers could disagree about the end */
    { 400, LINE HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: 5, 5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: +5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: -5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: 0x5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: 5 \t5\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length:\r\n\r\n" },
    { 400, LINE HOST "Content-Length: 18446744073709551621\r\n\r\nhello" },
    { 400, LINE HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: gzip, chunked\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: identity\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: xchunked\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding : chunked\r\n\r\n" },
    { 400, LINE HOST "Transfer-Encoding: \x0b"
                     "chunked\r\n\r\n" },
    /* chunks */
    { 400, CHUNKED "x\r\n" },
    { 400, CHUNKED "\r\n" },
    { 400, CHUNKED " 5\r\nhello\r\n" },
    { 400, CHUNKED "5 \r\nhello\r\n" },
    { 400, CHUNKED "+5\r\nhello\r\n" },
    { 400, CHUNKED "0x5\r\nhello\r\n" },
    { 400, CHUNKED "-1\r\n" },
    { 400, CHUNKED "00000000000000005\r\nhello\r\n" },
    { 413, CHUNKED "FFFFFFFFFFFFFFFF\r\n" },
    { 400, CHUNKED "5\r\nhelloo\r\n" },
    { 400, CHUNKED "5\nhello\r\n" },
    { 400, CHUNKED "5\r\nhello\n0\r\n\r\n" },
    { 400, CHUNKED "5;" FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n" },
    { 400, CHUNKED "5;a\rb\r\nhello\r\n" },
    { 400, CHUNKED "0\r\nno trailer\r\n\r\n" },
    { 413, CHUNKED "32\r\n" FIFTY "\r\n33\r\n" },
    { 431, CHUNKED "0\r\nA: " FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n\r\n" },
    { 431, CHUNKED "0\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n" },
    /* lines */
    { 400, "GET / HTTP/1.1\nHost: a\n\n" },
    { 400, "GET / HTTP/1.1\r\nHost: a\n\r\n" },
    { 400, "GET / HTTP/1.1\rHost: a\r\n\r\n" },
    { 400, LINE HOST "A: b\r\n folded\r\n\r\n" },
    { 400, LINE " Host: a\r\n\r\n" },
    { 400, LINE HOST "A b: c\r\n\r\n" },
    { 400, LINE HOST ": c\r\n\r\n" },
    { 400, LINE HOST "nothing\r\n\r\n" },
    { 400, LINE HOST "A\x01: c\r\n\r\n" },
    { 400, LINE HOST "A: c\x7f\r\n\r\n" },
    { 400, LINE HOST "\xc3\xa4: c\r\n\r\n" },
    { 400, "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" },
    /* the request line */
    { 400, "GET http://localhost/ HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET localhost HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "CONNECT localhost:80 HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET * HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET  / HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET / HTTP/1.1 \r\n" HOST "\r\n" },
    { 400, "GET / x HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET /\r\n" HOST "\r\n" },
    { 400, "GET\r\n" },
    { 400, " GET / HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "G(T / HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET /a#b HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET /a\tb HTTP/1.1\r\n" HOST "\r\n" },
    { 400, "GET / HTTP/1.10\r\n" HOST "\r\n" },
    { 400, "GET / http/1.1\r\n" HOST "\r\n" },
    { 505, "GET / HTTP/1.0\r\n" HOST "\r\n" },
    { 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" },
    { 400, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" HOST "\r\n" },
    { 414, "GET /" FIFTY FIFTY " HTTP/1.1\r\n" HOST "\r\n" },
    { 414, FIFTY FIFTY },
    { 400, "\x16\x03\x01\x02" },
    /* fields */
    { 400, LINE "A: b\r\n\r\n" },
    { 400, LINE HOST HOST "\r\n" },
    { 417, LINE HOST "Expect: wonders\r\n\r\n" },
    { 413, LINE HOST "Content-Length: 101\r\n\r\n" },
    { 431, LINE HOST "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n" },
    { 431, LINE HOST "A: " FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n\r\n" },
    { 431, LINE HOST "A: " FIFTY FIFTY FIFTY FIFTY FIFTY FIFTY },
};

static void doubtful_requests_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        HttpParser h = parse_text(refused[i].text, HTTP_BAD);
        if (h.status != refused[i].status)
            print_error("%s\n gave %d %s\n", refused[i].text, h.status, h.message);
        assert_int_equal(h.status, refused[i].status);
        assert_non_null(h.message);
        http_parse_release(&h);
    }
}

/* What a strict reader could be too strict for. */
static const char *const allowed[] = {
    "GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "OPTIONS * HTTP/1.1\r\n" HOST "\r\n",
    "GET /?a=/b?c%20d&e HTTP/1.1\r\n" HOST "\r\n",
    "\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
    LINE HOST "Content-Length: 0\r\n\r\n",
    LINE HOST "Content-Length: 005\r\n\r\nhello",
    LINE HOST "A: \xc3\xa4\tb\r\n\r\n",
    LINE HOST "session_id: 1\r\n\r\n",
    CHUNKED "0\r\n\r\n",
    CHUNKED "64\r\n" FIFTY FIFTY "\r\n000\r\n\r\n",
    LINE HOST "Content-Length: 100\r\n\r\n" FIFTY FIFTY,
    LINE HOST "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n",
};

static void proper_requests_are_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(allowed); i++) {
        HttpParser h = parse_text(allowed[i], HTTP_DONE);
        http_parse_release(&h);
    }
}

static void same_result(const char *text, size_t piece)
{
    HttpParser whole = { .limits = small }, cut = { .limits = small };
    size_t n = strlen(text), a, b;
    enum HttpStep x = read_all(&whole, text, n, SIZE_MAX, &a),
                  y = read_all(&cut, text, n, piece, &b);
    assert_int_equal(x, y);
    assert_int_equal(a, b);
    assert_int_equal(whole.status, cut.status);
    assert_int_equal(whole.text.n, cut.text.n);
    assert_true(str_eq(bytes_view(&whole.text), bytes_view(&cut.text)));
    assert_true(str_eq(bytes_view(&whole.body), bytes_view(&cut.body)));
    http_parse_release(&whole);
    http_parse_release(&cut);
}

static void cuts_make_no_difference(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= 7; piece++) {
        for (size_t i = 0; i < COUNT(allowed); i++)
            same_result(allowed[i], piece);
        for (size_t i = 0; i < COUNT(refused); i++)
            same_result(refused[i].text, piece);
    }
}

static void a_beginning_is_never_done(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(allowed); i++) {
        for (size_t n = 0; n < strlen(allowed[i]); n++) {
            HttpParser h = { .limits = small };
            size_t used;
            assert_int_equal(read_all(&h, allowed[i], n, SIZE_MAX, &used), HTTP_MORE);
            http_parse_release(&h);
        }
    }
}

static void a_discarded_body_is_read_but_not_kept(void **state)
{
    (void)state;
    static const char text[] = LINE HOST "Content-Length: 5\r\n\r\nhello";
    HttpParser h = { .limits = small };
    size_t used, more;
    assert_int_equal(http_parse(&h, text, sizeof text - 1, &used), HTTP_HEAD);
    h.discard = true;
    assert_int_equal(http_parse(&h, text + used, sizeof text - 1 - used, &more), HTTP_DONE);
    assert_int_equal(used + more, sizeof text - 1);
    assert_int_equal(h.body.n, 0);
    http_parse_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read),
        cmocka_unit_test(chunks_are_joined),
        cmocka_unit_test(what_follows_belongs_to_the_next),
        cmocka_unit_test(connection_words_are_seen_in_lists),
        cmocka_unit_test(doubtful_requests_are_refused),
        cmocka_unit_test(proper_requests_are_taken),
        cmocka_unit_test(cuts_make_no_difference),
        cmocka_unit_test(a_beginning_is_never_done),
        cmocka_unit_test(a_discarded_body_is_read_but_not_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
