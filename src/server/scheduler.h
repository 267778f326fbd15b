/* scheduler.h - the engine's thread: who is answered, and in which steps.
 *
 * A step holds one row of each answer that is being decoded, and a piece of one
 * prompt, so that a long prompt does not keep others from their answers. The
 * thread never touches a socket, and never waits for a client. */
#ifndef SCHEDULER_H
#define SCHEDULER_H
#include "job.h"

typedef struct Scheduler Scheduler;
typedef struct Store Store;

typedef struct {
    /* On the engine's thread: opens the engine, again after it was unloaded. */
    ds4_engine *(*open)(void *user, ds4_err *err);
    /* An engine of the same model that is only asked for its vocabulary (device "null", a
     * small context), and stays open while the other is unloaded. NULL: never unloaded. */
    ds4_engine *(*open_words)(void *user, ds4_err *err);
    /* The engine is open for the first time; vocabulary and trie stay as long as the
     * scheduler. *store: where states may be kept, NULL: nowhere; it stays the caller's and
     * is closed after the thread has ended. */
    bool (*ready)(void *user, ds4_engine *e, const ds4_vocab *v, const TokenTrie *trie,
                  Store **store, ds4_err *err);
    /* The thread has ended; failed: the engine could not be opened, or its
     * device has failed. */
    void (*ended)(void *user, bool failed, const ds4_err *err);
    /* A line for people. */
    void (*log)(void *user, const char *line);
    void *user;
    Recall *recall;
    Metrics *metrics;
    int max_active; /* answers at one time; 0: one for each session of the engine */
    int max_queue;  /* requests that wait */
    bool loop_guard;
    int idle_unload_s; /* after so long without work the engine is closed until there is; 0: never */
} SchedulerOptions;

Scheduler *scheduler_start(const SchedulerOptions *opt, ds4_err *err);
/* No more is admitted; when all answers are over and until_ns (of clock_ns) has not come,
 * states that are not in the store are put there; then the thread ends. Again: another time. */
void scheduler_finish(Scheduler *s, int64_t until_ns);
void scheduler_free(Scheduler *s); /* waits for the thread; NULL is fine */

/* Queues a prepared job, and takes a reference to it. False: there are too many. */
bool scheduler_submit(Scheduler *s, Job *j, ApiError *e);
/* Would a job that is submitted now have to wait? */
bool scheduler_is_busy(Scheduler *s);
/* A job was canceled: it is let go of, at once if it waits in the queue. */
void scheduler_cancel(Scheduler *s, Job *j);

/* What was fetched from the store has come: its ready(). Any thread. */
void scheduler_wake(Scheduler *s);
/* The engine is closed for want of work, or is being opened again. */
bool scheduler_is_unloaded(Scheduler *s);
/* Seconds since the engine's thread gave a sign of life while it has work. */
double scheduler_silence(Scheduler *s);

typedef struct {
    int slots, busy, queued;
} SchedulerCounts;
SchedulerCounts scheduler_counts(Scheduler *s);
/* "slots":[...],"queue":[...] */
void scheduler_status(Scheduler *s, Bytes *out);

#endif
