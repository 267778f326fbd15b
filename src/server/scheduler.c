/* scheduler.c - what other threads ask of the engine's, and its round. */
#include "scheduler.h"
#include "scheduler_parts.h"
#include <signal.h>
#include <stdlib.h>
#include <time.h>

static void *run(void *arg);

/* ---- from other threads --------------------------------------------------------- */

/* Under the mutex. */
static void wake(Scheduler *s)
{
    s->woken = true;
    pthread_cond_signal(&s->work);
}

Scheduler *scheduler_start(const SchedulerOptions *opt, ds4_err *err)
{
    sigset_t all, before;
    Scheduler *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, DS4_ENOMEM, "no memory for a scheduler");
        return NULL;
    }
    s->opt = *opt;
    s->queue_end = &s->queue;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    /* Signals are the network thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return s;
    fail(err, DS4_ENOMEM, "no thread for the engine: %s", strerror(rc));
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    free(s);
    return NULL;
}

void scheduler_finish(Scheduler *s, int64_t until_ns)
{
    pthread_mutex_lock(&s->mutex);
    s->finishing = true;
    s->save_until_ns = until_ns;
    wake(s);
    pthread_mutex_unlock(&s->mutex);
}

void scheduler_free(Scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mutex);
    s->finishing = true;
    wake(s);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->thread, NULL);
    while (s->queue) {
        Job *next = s->queue->next;
        job_drop(s->queue);
        s->queue = next;
    }
    ds4_engine_close(s->engine);
    trie_free(s->trie);
    ds4_engine_close(s->words);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    free(s->shown);
    past_free(s->past);
    free(s->step);
    free(s->of_step);
    free(s);
}

bool scheduler_submit(Scheduler *s, Job *j, ApiError *e)
{
    pthread_mutex_lock(&s->mutex);
    int before = s->n_queue - free_slots(s), waiting = MAX(before, 0),
        wait_s = wait_seconds(s, waiting);
    bool closed = s->finishing || s->over, full = waiting >= s->opt.max_queue;
    bool none = !closed && !full && has_no_slot(s, j);
    if (!closed && !full && !none) {
        job_hold(j);
        atomic_store(&j->stage, STAGE_QUEUED);
        j->next = NULL;
        j->held_until_ns = 0;
        *s->queue_end = j;
        s->queue_end = &j->next;
        s->n_queue++;
        metrics_queue_length(s->opt.metrics, s->n_queue);
        if (s->running && job_yields(s->running, before < 0 ? JOB_BESIDE : JOB_WANTED))
            ds4_cancel(s->engine);
        wake(s);
    }
    pthread_mutex_unlock(&s->mutex);
    if (closed)
        return api_fail(e, 503, "shutting_down", NULL, "The server is shutting down");
    if (none) {
        no_slot_for_side(s, j, e);
        return false;
    }
    if (full) {
        api_fail(e, 429, "queue_full", NULL, "%d requests are waiting already", waiting);
        e->retry_after = MIN(wait_s, 30);
        return false;
    }
    return true;
}

void unqueue(Scheduler *s, Job **at)
{
    *at = (*at)->next;
    if (!*at)
        s->queue_end = at;
    s->n_queue--;
    metrics_queue_length(s->opt.metrics, s->n_queue);
}

void scheduler_cancel(Scheduler *s, Job *j)
{
    bool found = false;
    pthread_mutex_lock(&s->mutex);
    for (Job **at = &s->queue; *at; at = &(*at)->next) {
        if (*at != j)
            continue;
        unqueue(s, at);
        found = true;
        break;
    }
    /* Others of that step lose what was done of it, and need not wait for the rest. */
    if (s->running == j)
        ds4_cancel(s->engine);
    wake(s);
    pthread_mutex_unlock(&s->mutex);
    if (found)
        job_drop(j);
}

void scheduler_wake(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    wake(s);
    pthread_mutex_unlock(&s->mutex);
}

bool scheduler_is_unloaded(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool unloaded = s->unloaded;
    pthread_mutex_unlock(&s->mutex);
    return unloaded;
}

double scheduler_silence(Scheduler *s)
{
    if (!atomic_load(&s->busy))
        return 0;
    return (double)(clock_ns() - atomic_load(&s->alive_ns)) / 1e9;
}

bool scheduler_is_busy(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool busy = s->n_queue >= free_slots(s);
    pthread_mutex_unlock(&s->mutex);
    return busy;
}

/* ---- the thread ----------------------------------------------------------------------------- */

/* Where the engine may be unloaded that has its time, too. Under the mutex. */
static bool wait_a_while(Scheduler *s)
{
    double left = s->opt.idle_unload_s - (double)(clock_ns() - s->idle_since_ns) / 1e9;
    struct timespec until;
    if (!s->words || !s->engine || active(s)) {
        pthread_cond_wait(&s->work, &s->mutex);
        return true;
    }
    if (left <= 0)
        return false;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)left + 1;
    pthread_cond_timedwait(&s->work, &s->mutex, &until);
    return true;
}

/* After a round that could do nothing. False: all is over. */
static bool wait_for_work(Scheduler *s, bool worked)
{
    pthread_mutex_lock(&s->mutex);
    bool idle = !active(s) && !s->queue;
    if (!idle)
        s->idle_since_ns = clock_ns();
    while (!worked && !s->woken && !(s->finishing && !active(s))) {
        if (idle)
            atomic_store(&s->busy, false);
        if (!wait_a_while(s))
            break;
    }
    s->woken = false;
    bool more = active(s) > 0 || !s->finishing;
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&s->alive_ns, clock_ns());
    return more;
}

static bool has_queue(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool some = s->queue != NULL;
    pthread_mutex_unlock(&s->mutex);
    return some;
}

/* One round. True: the next one has something to do at once. */
static bool do_some(Scheduler *s)
{
    if (!s->engine && !(has_queue(s) && engine_again(s)))
        return false;
    drop_canceled(s);
    admit(s);
    atomic_store(&s->busy, active(s) > 0);
    bool entered = go_on_entering(s), stepped = step(s);
    /* Answers that wait for a token, or jobs for a slot, wait for one piece at most. */
    bool saved = save_any(s);
    unload_if_idle(s);
    return entered || stepped || saved;
}

static void end(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    int64_t until_ns = s->save_until_ns;
    pthread_mutex_unlock(&s->mutex);
    if (s->engine && s->failure.code == DS4_OK)
        save_all(s, until_ns);
    pthread_mutex_lock(&s->mutex);
    s->over = true;
    for (int i = 0; i < s->n_shown; i++)
        free(s->shown[i].prompt);
    s->n_shown = 0;
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&s->busy, false);
    close_slots(s);
}

static void *run(void *arg)
{
    Scheduler *s = arg;
    ds4_err err = { 0 };
    bool opened = engine_first(s, &err), worked = false;
    while (opened && s->failure.code == DS4_OK && wait_for_work(s, worked))
        worked = do_some(s);
    end(s);
    bool failed = !opened || s->failure.code != DS4_OK;
    s->opt.ended(s->opt.user, failed, opened ? &s->failure : &err);
    return NULL;
}
