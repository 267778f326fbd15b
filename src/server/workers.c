/* workers.c - lists of small and large tasks, and threads that take from their fronts. */
#include "workers.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { MOST_THREADS = 16, SIZES = 2 };

#define LARGE ((size_t)1 << 20) /* bytes: from a quarter of a second on */

typedef struct Task Task;
struct Task {
    Task *next;
    void (*fn)(void *arg);
    void *arg;
};

typedef struct {
    Task *first, **end;
} Tasks;

struct Workers {
    pthread_mutex_t mutex;
    pthread_cond_t more;
    Tasks tasks[SIZES]; /* small, large */
    bool closing;
    pthread_t thread[MOST_THREADS];
    int n, n_started;
};

/* The largest first: the small ones have a thread of their own. */
static Task *first_of(Workers *w, int sizes)
{
    while (sizes > 0 && !w->tasks[sizes - 1].first)
        sizes--;
    if (!sizes)
        return NULL;
    Tasks *from = &w->tasks[sizes - 1];
    Task *t = from->first;
    from->first = t->next;
    if (!from->first)
        from->end = &from->first;
    return t;
}

static Task *take(Workers *w, int sizes)
{
    Task *t;
    pthread_mutex_lock(&w->mutex);
    while (!(t = first_of(w, sizes)) && !w->closing)
        pthread_cond_wait(&w->more, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
    return t;
}

/* The second thread is the one that is spared large tasks. */
static int sizes_of_mine(Workers *w)
{
    pthread_mutex_lock(&w->mutex);
    bool mine = w->n_started++ == 1;
    pthread_mutex_unlock(&w->mutex);
    return mine ? 1 : SIZES;
}

static void *work(void *arg)
{
    int sizes = sizes_of_mine(arg);
    for (Task *t; (t = take(arg, sizes)) != NULL;) {
        t->fn(t->arg);
        free(t);
    }
    return NULL;
}

Workers *workers_new(int threads, ds4_err *err)
{
    sigset_t all, before;
    Workers *w = calloc(1, sizeof *w);
    if (!w) {
        fail(err, DS4_ENOMEM, "no memory for workers");
        return NULL;
    }
    for (int i = 0; i < SIZES; i++)
        w->tasks[i].end = &w->tasks[i].first;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->more, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (w->n < MIN(threads, MOST_THREADS) &&
           pthread_create(&w->thread[w->n], NULL, work, w) == 0)
        w->n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (w->n > 0)
        return w;
    workers_free(w);
    fail(err, DS4_ENOMEM, "no thread for a worker");
    return NULL;
}

void workers_free(Workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->closing = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->mutex);
    for (int i = 0; i < w->n; i++)
        pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

bool workers_run(Workers *w, void (*fn)(void *arg), void *arg, size_t bytes)
{
    Tasks *to = &w->tasks[bytes >= LARGE];
    Task *t = malloc(sizeof *t);
    if (!t)
        return false;
    *t = (Task){ .fn = fn, .arg = arg };
    pthread_mutex_lock(&w->mutex);
    *to->end = t;
    to->end = &t->next;
    pthread_cond_broadcast(&w->more); /* one that takes this size is among them */
    pthread_mutex_unlock(&w->mutex);
    return true;
}
