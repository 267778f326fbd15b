/* Threads that run one function together: everybody runs, nobody runs ahead. */
#include "../../src/base/pool.h"
#include "../../src/base/cores.h"
#include "../../src/base/rng.h"
#include <stdarg.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <cmocka.h>

enum { MOST = 9 };

typedef struct {
    Pool *pool;
    int seen[MOST], rounds, wrong[MOST];
    int cell[MOST];
} Shared;

static void nap(long us) { nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL); }

static void write_then_read(void *arg, int ith, int nth);

static void mark(void *arg, int ith, int nth)
{
    Shared *s = arg;
    s->seen[ith]++;
    s->wrong[ith] += nth != pool_threads(s->pool);
}

static void look_at_mask(void *arg, int ith, int nth)
{
    sigset_t now;
    (void)nth;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    ((int *)arg)[ith] = sigismember(&now, SIGINT) + 2 * sigismember(&now, SIGSEGV);
}

static void signals_from_outside_are_for_the_caller(void **state)
{
    int blocked[3] = { -1, -1, -1 };
    Pool *p = pool_new(3, NULL);
    (void)state;
    assert_non_null(p);
    pool_run(p, look_at_mask, blocked);
    assert_int_equal(blocked[0], 0);
    assert_int_equal(blocked[1], 1);
    assert_int_equal(blocked[2], 1);
    pool_free(p);
}

static void every_thread_runs_once_a_run(void **state)
{
    (void)state;
    for (int n = 1; n <= MOST; n++) {
        Shared s = { .pool = pool_new(n, NULL) };
        assert_non_null(s.pool);
        for (int run = 1; run <= 200; run++) {
            pool_run(s.pool, mark, &s);
            for (int i = 0; i < MOST; i++)
                assert_int_equal(s.seen[i], i < n ? run : 0);
        }
        for (int i = 0; i < n; i++)
            assert_int_equal(s.wrong[i], 0);
        pool_free(s.pool);
    }
}

static void a_run_alone_is_the_caller_s_and_passes_barriers(void **state)
{
    Shared s = { .pool = pool_new(3, NULL), .rounds = 10 };
    (void)state;
    for (int run = 1; run <= 20; run++) {
        pool_alone(s.pool, true);
        for (int i = 0; i < 3; i++)
            s.cell[i] = -1;
        pool_run(s.pool, write_then_read, &s);
        assert_int_equal(s.cell[0], 1000);
        assert_int_equal(s.cell[1], -1);
        pool_alone(s.pool, false);
        pool_run(s.pool, write_then_read, &s);
        assert_int_equal(s.cell[2], 1002);
        assert_int_equal(s.wrong[0] + s.wrong[1] + s.wrong[2], 0);
    }
    pool_free(s.pool);
}

static void workers_wake_from_sleep(void **state)
{
    (void)state;
    Shared s = { .pool = pool_new(3, NULL) };
    for (int run = 1; run <= 20; run++) {
        nap(3000); /* long enough to sleep on the condition */
        pool_run(s.pool, mark, &s);
        assert_int_equal(s.seen[0] + s.seen[1] + s.seen[2], 3 * run);
    }
    pool_free(s.pool);
}

/* Each round, every thread writes its cell, and after the barrier reads the
 * others'. A second barrier keeps the next round's writes away. */
static void write_then_read(void *arg, int ith, int nth)
{
    Shared *s = arg;
    for (int r = 1; r <= s->rounds; r++) {
        if (ith == r % nth && r % 64 == 0)
            nap(500);
        s->cell[ith] = r * 100 + ith;
        pool_barrier(s->pool);
        for (int i = 0; i < nth; i++)
            s->wrong[ith] += s->cell[i] != r * 100 + i;
        pool_barrier(s->pool);
    }
}

static void nobody_passes_a_barrier_early(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n += 2) {
        Shared s = { .pool = pool_new(n, NULL), .rounds = 300 };
        pool_run(s.pool, write_then_read, &s);
        for (int i = 0; i < n; i++)
            assert_int_equal(s.wrong[i], 0);
        pool_free(s.pool);
    }
}

static void parts_cover_all_items_once_in_whole_units(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (int round = 0; round < 2000; round++) {
        int n = (int)(rng_next(&rng) % 300), unit = 1 + (int)(rng_next(&rng) % 40);
        int nth = 1 + (int)(rng_next(&rng) % 12), next = 0;
        for (int i = 0; i < nth; i++) {
            int first, last;
            pool_part(n, unit, i, nth, &first, &last);
            assert_int_equal(first, next);
            assert_true(last >= first);
            assert_true(last % unit == 0 || last == n);
            next = last;
        }
        assert_int_equal(next, n);
    }
    int first, last;
    pool_part(INT32_MAX, 1, 1023, 1024, &first, &last);
    assert_int_equal(last, INT32_MAX);
    assert_true(first > 0 && first < last);
}

static void impossible_thread_counts_are_refused(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    assert_null(pool_new(-1, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_null(pool_new(1 << 20, &err));
    assert_non_null(strstr(err.msg, "1048576"));
    pool_free(NULL);
}

static void zero_threads_means_the_usable_cores(void **state)
{
    (void)state;
    Pool *p = pool_new(0, NULL);
    assert_non_null(p);
    assert_int_equal(pool_threads(p), cores_usable());
    assert_true(cores_usable() >= 1);
    pool_free(p);
}

/* ---- company ------------------------------------------------------------------- */

static atomic_bool enough;

static void *be_busy(void *arg)
{
    while (!atomic_load(&enough))
        ;
    return arg;
}

/* 30 us of work and a barrier, ten times. */
static void small_parts(void *arg, int ith, int nth)
{
    (void)ith, (void)nth;
    for (int i = 0; i < 10; i++) {
        int64_t end = clock_ns() + 30000;
        while (clock_ns() < end)
            ;
        pool_barrier(arg);
    }
}

static double best_ms(Pool *p)
{
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        int64_t start = clock_ns();
        for (int i = 0; i < 20; i++)
            pool_run(p, small_parts, p);
        best = MIN(best, 1e-6 * (double)(clock_ns() - start));
    }
    return best;
}

/* Two would be fair; yielding gave 35. */
static void one_busy_thread_a_core_costs_a_share_and_not_a_factor(void **state)
{
    enum { THREADS = 2 };
    pthread_t busy[64];
    const int n = MIN(MAX(cores_usable(), THREADS), (int)COUNT(busy));
    Pool *p = pool_new(THREADS, NULL);
    double alone = best_ms(p), beside;

    (void)state;
    atomic_store(&enough, false);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&busy[i], NULL, be_busy, NULL), 0);
    beside = best_ms(p);
    atomic_store(&enough, true);
    for (int i = 0; i < n; i++)
        pthread_join(busy[i], NULL);
    print_message("alone %.1f ms, beside %d busy threads %.1f ms\n", alone, n, beside);
    assert_true(beside < 16 * alone);
    pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_once_a_run),
        cmocka_unit_test(signals_from_outside_are_for_the_caller),
        cmocka_unit_test(a_run_alone_is_the_caller_s_and_passes_barriers),
        cmocka_unit_test(workers_wake_from_sleep),
        cmocka_unit_test(nobody_passes_a_barrier_early),
        cmocka_unit_test(parts_cover_all_items_once_in_whole_units),
        cmocka_unit_test(impossible_thread_counts_are_refused),
        cmocka_unit_test(zero_threads_means_the_usable_cores),
        cmocka_unit_test(one_busy_thread_a_core_costs_a_share_and_not_a_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
