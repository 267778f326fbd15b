/* Who may ask the server: names of hosts, keys, origins, public addresses. */
#include "../http_site.h"

static void foreign_host_names_are_refused(void **state)
{
    (void)state;
    const char *const more[] = { "box.lan" };
    Site *s = site_open(&(HttpOptions){ .hosts = more, .n_hosts = 1 });
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
        assert_int_equal(site_status_with(s, "GET", "/health", field), cases[i].status);
    }
    site_close(s);
}

static const char *const keys[] = { "sk-one", "a-second-and-longer-key" };

static void keys_are_asked_for_everywhere_but_health(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .keys = keys, .n_keys = COUNT(keys) });
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
        assert_int_equal(site_status_with(s, "GET", cases[i].path, cases[i].fields),
                         cases[i].status);
    site_close(s);
}

static void a_refusal_keeps_the_connection_in_step(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ .keys = keys, .n_keys = 1 });
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
    site_close(s);
}

typedef struct {
    Http *h;
    atomic_int done;
    HttpPost post;
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
    Site *s = site_open(&(HttpOptions){ .keys = keys, .n_keys = 1 });
    KeyChange k = { .h = s->h };
    assert_true(http_post(s->h, &k.post, change_keys, &k));
    assert_true(reaches(&k.done, 1));
    assert_int_equal(site_status_with(s, "GET", "/", HOST "x-api-key: sk-one\r\n"), 401);
    assert_int_equal(site_status_with(s, "GET", "/", HOST "x-api-key: new\r\n"), 200);
    site_close(s);
}

static void only_listed_origins_may_read(void **state)
{
    (void)state;
    const char *const origins[] = { "https://ui.example", "localhost" };
    Site *s =
        site_open(&(HttpOptions){ .origins = origins, .n_origins = 2, .keys = keys, .n_keys = 1 });
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
        Reply r = site_ask(s, text, NULL);
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
    site_close(s);
}

static void without_origins_nothing_is_said_of_them(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Reply r = site_ask(s, "OPTIONS * HTTP/1.1\r\n" HOST "Origin: http://localhost\r\n\r\n", NULL);
    assert_int_equal(r.status, 204);
    assert_null(reply_field(&r, "access-control-allow-origin"));
    assert_null(reply_field(&r, "access-control-allow-methods"));
    reply_release(&r);
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Sec-Fetch-Site: same-origin\r\n"), 200);
    /* A page of another port here is of the same site. */
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Origin: http://localhost:3000\r\n"),
                     403);
    assert_int_equal(site_status_with(s, "DELETE", "/", HOST "Origin: null\r\n"), 403);
    assert_int_equal(site_status_with(s, "GET", "/", HOST "Origin: http://localhost:3000\r\n"),
                     200);
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Origin: http://localhost\r\n"), 200);
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Origin: app://window\r\n"), 200);
    assert_int_equal(site_status_with(s, "GET", "/", HOST "Sec-Fetch-Site: cross-site\r\n"), 200);
    assert_int_equal(site_status_with(s, "POST", "/", HOST "Content-Encoding: gzip\r\n"), 415);
    site_close(s);
}

static void public_addresses_need_a_key(void **state)
{
    (void)state;
    ds4_err err = site_refused(&(HttpOptions){ .host = "0.0.0.0" });
    assert_int_equal(err.code, DS4_EINVAL);
    assert_non_null(strstr(err.msg, "API key"));
    Site *s = site_open(&(HttpOptions){ .host = "0.0.0.0", .insecure = true });
    assert_int_equal(site_status_with(s, "GET", "/", "Host: 192.168.1.5:80\r\n"), 200);
    assert_int_equal(site_status_with(s, "GET", "/", "Host: evil.example\r\n"), 403);
    site_close(s);
    s = site_open(&(HttpOptions){ .host = "0.0.0.0", .keys = keys, .n_keys = 1 });
    assert_int_equal(site_status_with(s, "GET", "/", HOST), 401);
    site_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_host_names_are_refused),
        cmocka_unit_test(keys_are_asked_for_everywhere_but_health),
        cmocka_unit_test(a_refusal_keeps_the_connection_in_step),
        cmocka_unit_test(keys_can_be_replaced),
        cmocka_unit_test(only_listed_origins_may_read),
        cmocka_unit_test(without_origins_nothing_is_said_of_them),
        cmocka_unit_test(public_addresses_need_a_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
