/* The HTTP server from its address to its end: posts and timers in between. */
#include "../http_site.h"
#include <sys/stat.h>

/* ---- addresses ---------------------------------------------------------------------- */

static void a_taken_port_is_an_error(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    ds4_err err = site_refused(&(HttpOptions){ .port = s->port });
    assert_int_equal(err.code, DS4_EIO);
    err = site_refused(&(HttpOptions){ .port = 65536 });
    assert_int_equal(err.code, DS4_EINVAL);
    site_still_serves(s);
    site_close(s);
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
        Site *s = site_open(&(HttpOptions){ .unix_path = path });
        assert_int_equal(lstat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        Client c = client_unix(path);
        client_say(&c, "GET /u HTTP/1.1\r\nHost: any.thing\r\n\r\n");
        Reply r = client_reply(&c, false);
        assert_string_equal(r.body.p, "GET /u? ");
        reply_release(&r);
        client_close(&c);
        ds4_err err = site_refused(&(HttpOptions){ .unix_path = path });
        assert_non_null(strstr(err.msg, "in use"));
        site_close(s);
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
    assert_int_equal(site_refused(&(HttpOptions){ .unix_path = file }).code, DS4_EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(site_refused(&(HttpOptions){ .unix_path = longest }).code, DS4_EINVAL);
    unlink(file);
    rmdir(dir);
}

/* ---- threads and timers ------------------------------------------------------------- */

enum { POSTERS = 4, POSTS = 500 };

typedef struct {
    Http *h;
    int seen[POSTERS], wrong; /* the network thread's */
    atomic_int total;
} Tally;

typedef struct {
    Tally *t;
    int who, n;
    HttpPost post;
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
        *p = (Posted){ .t = me->t, .who = me->who, .n = i };
        if (!http_post(me->t->h, &p->post, count_post, p))
            free(p);
    }
    return NULL;
}

static void posts_run_once_and_in_order(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Tally t = { .h = s->h };
    pthread_t id[POSTERS];
    Posted arg[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        arg[i] = (Posted){ .t = &t, .who = i };
        assert_int_equal(pthread_create(&id[i], NULL, poster, &arg[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(id[i], NULL);
    assert_true(reaches(&t.total, POSTERS * POSTS));
    site_close(s);
    assert_int_equal(t.wrong, 0);
}

typedef struct {
    Http *h;
    HttpPost post;
    atomic_int times;
} Again;

static void post_again(void *arg)
{
    Again *a = arg;
    if (++a->times < 3)
        http_post(a->h, &a->post, post_again, a);
}

static void a_post_can_be_used_again_by_what_it_runs(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Again a = { .h = s->h };
    assert_true(http_post(s->h, &a.post, post_again, &a));
    assert_true(reaches(&a.times, 3));
    site_close(s);
    assert_int_equal(a.times, 3);
}

static void note(void *arg) { ++*(atomic_int *)arg; }

static bool tick(void *arg) { return ++*(atomic_int *)arg < 3; }

static void timers_tick_until_they_say_so(void **state)
{
    (void)state;
    ds4_err err;
    atomic_int ticks = 0, posts = 0;
    HttpPost post;
    Site *s = calloc(1, sizeof *s);
    s->h = http_open(&(HttpOptions){ 0 }, site_handler, NULL, s, &err);
    assert_non_null(s->h);
    assert_true(http_every(s->h, 5, tick, &ticks));
    assert_true(http_post(s->h, &post, note, &posts)); /* before there is a loop */
    assert_int_equal(pthread_create(&s->thread, NULL, site_network, s), 0);
    assert_true(reaches(&ticks, 3));
    assert_true(reaches(&posts, 1));
    nap_ms(30);
    assert_int_equal(ticks, 3);
    http_stop(s->h);
    pthread_join(s->thread, NULL);
    assert_false(http_post(s->h, &post, note, &posts));
    assert_int_equal(posts, 1);
    http_close(s->h);
    free(s);
}

/* ---- the end ------------------------------------------------------------------------ */

static void stopping_tells_those_who_wait(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Client c = client_tcp(s->port);
    client_say(&c, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    http_stop(s->h);
    assert_true(reaches(&s->n_lost, 1));
    assert_string_equal(s->why, "shutdown");
    assert_true(client_more(&c) <= 0);
    client_close(&c);
    site_close(s);
}

static void draining_lets_replies_finish(void **state)
{
    (void)state;
    Site *s = site_open(&(HttpOptions){ 0 });
    Client idle = client_tcp(s->port), busy = client_tcp(s->port);
    client_say(&busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_true(reaches(&s->n_held, 1));
    http_drain(s->h);
    assert_true(client_ended(&idle));
    Client late = client_tcp(s->port);
    assert_int_equal(late.fd, -1);
    assert_true(http_post(s->h, &s->finish, site_finish_held, s));
    Reply r = client_reply(&busy, false);
    assert_string_equal(r.body.p, "later");
    assert_true(reply_says(&r, "connection", "close"));
    assert_true(client_ended(&busy));
    reply_release(&r);
    client_close(&idle);
    client_close(&busy);
    assert_true(closes_to(s, 0));
    site_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_port_is_an_error),
        cmocka_unit_test(a_unix_socket_is_private_and_goes_away),
        cmocka_unit_test(posts_run_once_and_in_order),
        cmocka_unit_test(a_post_can_be_used_again_by_what_it_runs),
        cmocka_unit_test(timers_tick_until_they_say_so),
        cmocka_unit_test(stopping_tells_those_who_wait),
        cmocka_unit_test(draining_lets_replies_finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
