/* Who logs never waits, and what is written is whole lines in their order. */
#include "../../src/cli/log_writer.h"
#include "../../src/base/bytes.h"
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { MANY = 400000, THREADS = 4 };

static LogWriter *writer_to(int fd)
{
    ds4_err err;
    LogWriter *w = log_writer_open(fd, &err);
    if (!w)
        fail_msg("%s", err.msg);
    return w;
}

static void put(LogWriter *w, const char *who, int i)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%s line %d\n", who, i);
    log_writer_put(w, line, (size_t)n);
}

/* Reads until the other end is closed, on a thread. */
typedef struct {
    int fd;
    Bytes text;
    atomic_size_t n; /* of it, for who looks meanwhile */
} Reader;

static void *read_all(void *arg)
{
    Reader *r = arg;
    char piece[4096];
    for (ssize_t n; (n = read(r->fd, piece, sizeof piece)) > 0;)
        bytes_put(&r->text, piece, (size_t)n), r->n += (size_t)n;
    bytes_byte(&r->text, 0);
    return NULL;
}

/* Lines of `who` from 0 on, and "left out" where some are missing. */
static int check_lines(const char *text, const char *who, int *lost)
{
    int next = 0, i, n;
    char name[16];
    *lost = 0;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        assert_non_null(strchr(line, '\n'));
        if (sscanf(line, "(%d lines were left out)", &n) == 1) {
            *lost += n;
            next += n;
        } else if (sscanf(line, "%15s line %d", name, &i) == 2 && strcmp(name, who) == 0) {
            assert_int_equal(i, next);
            next++;
        }
    }
    return next;
}

static void a_pipe_that_nobody_reads_holds_up_nobody(void **state)
{
    (void)state;
    int fds[2], lost;
    assert_int_equal(pipe(fds), 0);
    LogWriter *w = writer_to(fds[1]);
    for (int i = 0; i < MANY; i++)
        put(w, "a", i); /* who waited for the pipe here would wait for ever */
    Reader r = { .fd = fds[0] };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
    /* More than was being written: what waited is on its way, and there is room again. The
     * next line says how many are missing. */
    while (r.n <= 1 << 20)
        usleep(1000);
    put(w, "a", MANY);
    log_writer_close(w, 10000);
    close(fds[1]);
    pthread_join(thread, NULL);
    assert_int_equal(check_lines(r.text.p, "a", &lost), MANY + 1);
    assert_in_range(lost, MANY / 4, MANY - 10000);
    bytes_release(&r.text);
    close(fds[0]);
}

/* The thread stays where it is, and the pipe open. */
static void closing_waits_no_longer_than_it_is_told(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    LogWriter *w = writer_to(fds[1]);
    for (int i = 0; i < MANY; i++)
        put(w, "a", i);
    int64_t start = clock_ns();
    log_writer_close(w, 100);
    int64_t took = clock_ns() - start;
    assert_in_range(took, 90000000, 5000000000);
}

typedef struct {
    LogWriter *w;
    char name[8];
} Speaker;

static void *speak(void *arg)
{
    Speaker *s = arg;
    for (int i = 0; i < 2000; i++)
        put(s->w, s->name, i);
    return NULL;
}

static void lines_of_threads_stay_whole(void **state)
{
    (void)state;
    int fds[2], lost;
    Speaker s[THREADS];
    pthread_t thread[THREADS], reading;
    assert_int_equal(pipe(fds), 0);
    Reader r = { .fd = fds[0] };
    assert_int_equal(pthread_create(&reading, NULL, read_all, &r), 0);
    LogWriter *w = writer_to(fds[1]);
    for (int i = 0; i < THREADS; i++) {
        s[i] = (Speaker){ .w = w };
        snprintf(s[i].name, sizeof s[i].name, "t%d", i);
        assert_int_equal(pthread_create(&thread[i], NULL, speak, &s[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    log_writer_close(w, 10000);
    close(fds[1]);
    pthread_join(reading, NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(check_lines(r.text.p, s[i].name, &lost), 2000);
    bytes_release(&r.text);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipe_that_nobody_reads_holds_up_nobody),
        cmocka_unit_test(closing_waits_no_longer_than_it_is_told),
        cmocka_unit_test(lines_of_threads_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
