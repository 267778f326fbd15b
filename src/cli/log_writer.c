/* log_writer.c - two buffers: one that is filled, one that is being written. */
#include "log_writer.h"
#include "../base/bytes.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_WAITING ((size_t)1 << 20)

struct LogWriter {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t more, done;
    Bytes waiting;
    size_t lost; /* texts, since the last one that was taken */
    bool closing, over;
    int fd;
};

/* What cannot be written is gone: there is nobody to tell. */
static void write_all(int fd, const Bytes *b)
{
    for (size_t at = 0; at < b->n;) {
        ssize_t n = write(fd, b->p + at, b->n - at);
        if (n < 0 && errno != EINTR)
            return;
        at += n > 0 ? (size_t)n : 0;
    }
}

static void *run(void *arg)
{
    LogWriter *w = arg;
    Bytes mine = { 0 };
    pthread_mutex_lock(&w->mutex);
    while (w->waiting.n || !w->closing) {
        if (!w->waiting.n) {
            pthread_cond_wait(&w->more, &w->mutex);
            continue;
        }
        Bytes full = w->waiting;
        w->waiting = mine;
        pthread_mutex_unlock(&w->mutex);
        write_all(w->fd, &full);
        bytes_clear(&full);
        mine = full;
        pthread_mutex_lock(&w->mutex);
    }
    w->over = true;
    pthread_cond_signal(&w->done);
    pthread_mutex_unlock(&w->mutex);
    bytes_release(&mine);
    return NULL;
}

LogWriter *log_writer_open(int fd, ds4_err *err)
{
    sigset_t all, before;
    LogWriter *w = calloc(1, sizeof *w);
    if (!w) {
        fail(err, DS4_ENOMEM, "no memory for the log");
        return NULL;
    }
    w->fd = fd;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_cond_init(&w->done, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return w;
    fail(err, DS4_ENOMEM, "no thread for the log: %s", strerror(rc));
    free(w);
    return NULL;
}

void log_writer_put(LogWriter *w, const char *text, size_t n)
{
    pthread_mutex_lock(&w->mutex);
    if (w->waiting.n + n > MOST_WAITING) {
        w->lost++;
    } else {
        if (w->lost)
            bytes_printf(&w->waiting, "(%zu lines were left out)\n", w->lost);
        w->lost = 0;
        bytes_put(&w->waiting, text, n);
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->mutex);
}

/* A thread that a terminal holds cannot be ended: it is left, with what is its own. */
void log_writer_close(LogWriter *w, int milliseconds)
{
    struct timespec until;
    if (!w)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    int64_t ns = until.tv_nsec + (int64_t)milliseconds * 1000000;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&w->mutex);
    w->closing = true;
    pthread_cond_signal(&w->more);
    for (int rc = 0; !w->over && rc == 0;)
        rc = pthread_cond_timedwait(&w->done, &w->mutex, &until);
    bool over = w->over;
    pthread_mutex_unlock(&w->mutex);
    if (!over) {
        pthread_detach(w->thread);
        return;
    }
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->more);
    pthread_cond_destroy(&w->done);
    bytes_release(&w->waiting);
    free(w);
}
