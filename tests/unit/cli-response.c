/* cli-response.c - header lines of HTTP responses, as servers and others send them. */
#include "../../src/cli/response.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SHA "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"

static void feed(Response *r, const char *text)
{
    *r = (Response){ 0 };
    while (*text) {
        size_t n = strcspn(text, "\n") + 1;
        n -= text[n - 1] == '\0';
        response_line(r, (Str){ text, n });
        text += n;
    }
}

static void a_response_says_what_it_brings(void **state)
{
    Response r;
    (void)state;
    feed(&r,
         "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\ncontent-range:bytes 90-99/100 \r\n"
         "ETag: \"abc\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nRetry-After: 7\r\n\r\n");
    assert_int_equal(r.status, 206);
    assert_true(r.has_length && r.has_range);
    assert_int_equal(r.length, 10);
    assert_int_equal(r.first, 90);
    assert_int_equal(r.last, 99);
    assert_int_equal(r.total, 100);
    assert_string_equal(r.etag, "\"abc\"");
    assert_string_equal(r.modified, "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_int_equal(r.retry_after, 7);
    feed(&r, "HTTP/2 200\ncontent-range: bytes 0-0/*\n");
    assert_int_equal(r.status, 200);
    assert_true(r.has_range && r.total == 0);
}

static void a_redirects_word_on_the_file_lasts_and_nothing_else(void **state)
{
    Response r;
    (void)state;
    feed(&r, "HTTP/1.1 302 Found\r\nX-Linked-Etag: \"" SHA "\"\r\nX-Linked-Size: 12345\r\n"
             "ETag: \"first\"\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n");
    assert_int_equal(r.status, 200);
    assert_string_equal(r.sha256,
                        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    assert_int_equal(r.linked_size, 12345);
    assert_string_equal(r.etag, "");
    assert_false(r.has_length);
    feed(&r, "HTTP/1.1 200 OK\r\nETag: \"" SHA "\"\r\n"); /* may be a hash of anything */
    assert_string_equal(r.sha256, "");
}

static void what_is_malformed_was_not_said(void **state)
{
    static const char *const lines[] = {
        "Content-Length: -1",
        "Content-Length: 1x",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Range: bytes 5-4/10",
        "Content-Range: bytes 5-10/10",
        "Content-Range: bytes 5-/10",
        "Content-Range: bytes */10",
        "Content-Range: items 1-2/10",
        "Content-Range: bytes 1-2/10/11",
        "ETag: W/\"weak\"",
        "ETag: bare",
        "X-Linked-Etag: \"0123\"",
        "X-Linked-Size: many",
        "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT",
        ":",
        "",
        "HTTP/",
        "HTTP/1.1 99999999999999999999 OK",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        Response r = { 0 }, empty = { 0 };
        response_line(&r, str_of(lines[i]));
        if (memcmp(&r, &empty, sizeof r) != 0)
            fail_msg("%s was believed", lines[i]);
    }
}

static void what_is_too_long_is_left_out(void **state)
{
    char line[400] = "ETag: \"";
    Response r = { 0 };
    (void)state;
    memset(line + 7, 'e', 300);
    line[307] = '"';
    response_line(&r, str_of(line));
    assert_string_equal(r.etag, "");
    response_line(&r, (Str){ "ETag: \"a\0b\"", 11 });
    assert_string_equal(r.etag, "");
}

static void a_sum_is_64_hex_digits(void **state)
{
    char out[SHA256_HEX + 1] = "as before";
    (void)state;
    assert_true(sha256_parse(out, STR(SHA)));
    assert_string_equal(out, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    assert_false(sha256_parse(out, STR(SHA "0")));
    assert_false(sha256_parse(out, (Str){ SHA, 63 }));
    assert_false(
        sha256_parse(out, STR("g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")));
    assert_string_equal(out, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_says_what_it_brings),
        cmocka_unit_test(a_redirects_word_on_the_file_lasts_and_nothing_else),
        cmocka_unit_test(what_is_malformed_was_not_said),
        cmocka_unit_test(what_is_too_long_is_left_out),
        cmocka_unit_test(a_sum_is_64_hex_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
