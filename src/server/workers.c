/* workers.c - a list of tasks, and threads that take from its front. */
#include "workers.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { MOST_THREADS = 16 };

typedef struct Task Task;
struct Task {
    Task *next;
    void (*fn)(void *arg);
    void *arg;
};

struct Workers {
    pthread_mutex_t mutex;
    pthread_cond_t more;
    Task *first, **end;
    bool closing;
    pthread_t thread[MOST_THREADS];
    int n;
};

static Task *take(Workers *w)
{
    pthread_mutex_lock(&w->mutex);
    while (!w->first && !w->closing)
        pthread_cond_wait(&w->more, &w->mutex);
    Task *t = w->first;
    if (t) {
        w->first = t->next;
        if (!w->first)
            w->end = &w->first;
    }
    pthread_mutex_unlock(&w->mutex);
    return t;
}

static void *work(void *arg)
{
    for (Task *t; (t = take(arg)) != NULL;) {
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
    w->end = &w->first;
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

bool workers_run(Workers *w, void (*fn)(void *arg), void *arg)
{
    Task *t = malloc(sizeof *t);
    if (!t)
        return false;
    *t = (Task){ .fn = fn, .arg = arg };
    pthread_mutex_lock(&w->mutex);
    *w->end = t;
    w->end = &t->next;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->mutex);
    return true;
}
