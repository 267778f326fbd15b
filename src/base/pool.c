/* pool.c - threads that run one function together.
 *
 * All waiting is for a counter to move on: `start` begins a run, `finish` ends
 * it, `phase` opens a barrier. A waiter spins, then sleeps on the one
 * condition variable. Whoever moves a counter looks at `sleepers` afterwards,
 * and a waiter raises `sleepers` before its last look at the counter; both
 * orders are sequentially consistent, so no wake-up is lost.
 *
 * Nobody yields where every thread can have a core: a yield gives the rest of
 * a time slice to whoever else wants the core, and beside one busy process a
 * core that cost 98 % of the speed (Linux 6.18). Who sleeps keeps his claim and
 * comes back when woken. Threads that share cores among themselves yield to
 * each other, since a spinning one would keep away the one that it waits for. */
#include "pool.h"
#include "cores.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

/* About what a sleep and a wake-up cost, so that waiting costs at most twice
 * what it must. It covers the gap between two tokens, in which one thread
 * samples. Between two looks at the clock a waiter looks at the counter often. */
enum { MAX_THREADS = 1024, SPIN_NS = 50000, SPINS = 100, YIELDS = 300 };

typedef struct {
    Pool *pool;
    int ith;
    pthread_t thread;
} Worker;

struct Pool {
    int n;
    PoolFn fn;
    void *arg;
    bool stop;
    bool crowded; /* more threads than can run at once */
    bool alone;   /* runs are the caller's; changes between runs only */
    _Alignas(64) atomic_uint start;
    _Alignas(64) atomic_uint finish;
    atomic_int running;
    _Alignas(64) atomic_uint phase;
    atomic_int arrived;
    _Alignas(64) atomic_int sleepers;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    Worker worker[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` is a no-op on most cores */
#endif
}

static bool moved(atomic_uint *counter, unsigned from)
{
    return atomic_load_explicit(counter, memory_order_acquire) != from;
}

static bool spin(atomic_uint *counter, unsigned from)
{
    for (int i = 0; i < SPINS; i++) {
        if (moved(counter, from))
            return true;
        relax();
    }
    return false;
}

static bool spin_for_long(atomic_uint *counter, unsigned from)
{
    const int64_t end = clock_ns() + SPIN_NS;
    do {
        if (spin(counter, from))
            return true;
    } while (clock_ns() < end);
    return false;
}

static bool yield(atomic_uint *counter, unsigned from)
{
    for (int i = 0; i < YIELDS; i++) {
        if (moved(counter, from))
            return true;
        sched_yield();
    }
    return false;
}

static void wait_until_moved(Pool *p, atomic_uint *counter, unsigned from)
{
    if (spin(counter, from) || (p->crowded ? yield : spin_for_long)(counter, from))
        return;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(counter) == from)
        pthread_cond_wait(&p->moved, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void move(Pool *p, atomic_uint *counter)
{
    atomic_fetch_add(counter, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->moved);
        pthread_mutex_unlock(&p->lock);
    }
}

static void *worker_main(void *arg)
{
    Worker *w = arg;
    Pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        wait_until_moved(p, &p->start, seen);
        if (p->stop)
            return NULL;
        p->fn(p->arg, w->ith, p->n);
        if (atomic_fetch_sub(&p->running, 1) == 1)
            move(p, &p->finish);
    }
}

static void stop_workers(Pool *p, int started)
{
    p->stop = true;
    move(p, &p->start);
    for (int i = 1; i <= started; i++)
        pthread_join(p->worker[i].thread, NULL);
}

static void release(Pool *p)
{
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static Pool *allocate(int threads)
{
    /* sizeof(Pool) is a multiple of its alignment, as aligned_alloc asks. */
    size_t n = sizeof(Pool) + (size_t)threads * sizeof(Worker);
    n = (n + 63) / 64 * 64;
    Pool *p = aligned_alloc(64, n);
    if (!p)
        return NULL;
    memset(p, 0, n);
    p->n = threads;
    p->crowded = threads > hardware_threads_usable();
    atomic_init(&p->start, 0);
    atomic_init(&p->finish, 0);
    atomic_init(&p->running, 0);
    atomic_init(&p->phase, 0);
    atomic_init(&p->arrived, 0);
    atomic_init(&p->sleepers, 0);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->moved, NULL);
    return p;
}

/* Signals from outside are for the program's own threads: one that a worker
 * took would end no read. What a worker itself does wrong stays its own. */
static int start_worker(Worker *w)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t foreign, before;
    sigfillset(&foreign);
    for (size_t i = 0; i < COUNT(own); i++)
        sigdelset(&foreign, own[i]);
    pthread_sigmask(SIG_BLOCK, &foreign, &before);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

Pool *pool_new(int threads, ds4_err *err)
{
    if (threads < 0 || threads > MAX_THREADS) {
        fail(err, DS4_EINVAL, "%d threads: 0 to %d are possible", threads, MAX_THREADS);
        return NULL;
    }
    if (threads == 0)
        threads = MIN(cores_usable(), (int)MAX_THREADS);
    Pool *p = allocate(threads);
    if (!p) {
        fail(err, DS4_ENOMEM, "no memory for a pool of %d threads", threads);
        return NULL;
    }
    for (int i = 1; i < threads; i++) {
        Worker *w = &p->worker[i];
        *w = (Worker){ .pool = p, .ith = i };
        int rc = start_worker(w);
        if (rc != 0) {
            stop_workers(p, i - 1);
            release(p);
            fail(err, DS4_ENOMEM, "cannot start thread %d of %d: %s", i, threads, strerror(rc));
            return NULL;
        }
    }
    return p;
}

void pool_free(Pool *p)
{
    if (!p)
        return;
    stop_workers(p, p->n - 1);
    release(p);
}

int pool_threads(const Pool *p) { return p->n; }

void pool_alone(Pool *p, bool alone) { p->alone = alone; }

void pool_run(Pool *p, PoolFn fn, void *arg)
{
    if (p->n == 1 || p->alone) {
        fn(arg, 0, 1);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    unsigned before = atomic_load_explicit(&p->finish, memory_order_relaxed);
    atomic_store_explicit(&p->running, p->n, memory_order_relaxed);
    move(p, &p->start);
    fn(arg, 0, p->n);
    if (atomic_fetch_sub(&p->running, 1) == 1)
        move(p, &p->finish);
    wait_until_moved(p, &p->finish, before);
}

void pool_barrier(Pool *p)
{
    if (p->n == 1 || p->alone)
        return;
    unsigned before = atomic_load_explicit(&p->phase, memory_order_acquire);
    if (atomic_fetch_add(&p->arrived, 1) == p->n - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        move(p, &p->phase);
    } else {
        wait_until_moved(p, &p->phase, before);
    }
}
