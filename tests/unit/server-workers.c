/* Large tasks wait for each other, small ones never for them, and none is forgotten. */
#include "../../src/server/workers.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

enum { MIB = 1 << 20 };

typedef struct {
    atomic_int small, large;
    atomic_bool go;
} Seen;

static void nap(void) { nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL); }

static void small(void *arg)
{
    Seen *s = arg;
    s->small++;
}

static void large(void *arg)
{
    Seen *s = arg;
    while (!s->go)
        nap();
    s->large++;
}

static void small_tasks_do_not_wait_for_large_ones(void **state)
{
    Seen s = { 0 };
    ds4_err err = { 0 };
    Workers *w = workers_new(2, &err);
    (void)state;
    assert_non_null(w);
    for (int i = 0; i < 4; i++)
        assert_true(workers_run(w, large, &s, 8 * MIB));
    for (int i = 0; i < 100; i++)
        assert_true(workers_run(w, small, &s, 1000));
    for (int i = 0; i < 10000 && s.small < 100; i++)
        nap();
    assert_int_equal(s.small, 100);
    assert_int_equal(s.large, 0);
    s.go = true;
    workers_free(w);
    assert_int_equal(s.large, 4);
}

static void what_waits_at_the_end_is_run(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        Seen s = { .go = true };
        Workers *w = workers_new(threads, NULL);
        assert_non_null(w);
        for (int i = 0; i < 50; i++)
            assert_true(workers_run(w, i % 2 ? large : small, &s, i % 2 ? MIB : 0));
        workers_free(w);
        assert_int_equal(s.small, 25);
        assert_int_equal(s.large, 25);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_tasks_do_not_wait_for_large_ones),
        cmocka_unit_test(what_waits_at_the_end_is_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
