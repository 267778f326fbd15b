/* scheduler.h - the engine's thread: who is answered, and in which steps.
 *
 * A step holds one row of each answer that is being decoded, and a piece of one
 * prompt, so that a long prompt does not keep others from their answers. The
 * thread never touches a socket, and never waits for a client. */
#ifndef SCHEDULER_H
#define SCHEDULER_H
#include "job.h"

typedef struct Scheduler Scheduler;

typedef struct {
    /* On the engine's thread: opens the engine, and then is told that it is open.
     * The vocabulary's trie is made between them. */
    ds4_engine *(*open)(void *user, ds4_err *err);
    bool (*ready)(void *user, ds4_engine *e, const TokenTrie *trie, ds4_err *err);
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
} SchedulerOptions;

Scheduler *scheduler_start(const SchedulerOptions *opt, ds4_err *err);
/* No more is admitted; when all answers are over the thread ends. */
void scheduler_finish(Scheduler *s);
void scheduler_free(Scheduler *s); /* waits for the thread; NULL is fine */

/* Queues a prepared job, and takes a reference to it. False: there are too many. */
bool scheduler_submit(Scheduler *s, Job *j, ApiError *e);
/* Would a job that is submitted now have to wait? */
bool scheduler_is_busy(Scheduler *s);
/* A job was canceled: it is let go of, at once if it waits in the queue. */
void scheduler_cancel(Scheduler *s, Job *j);

/* Seconds since the engine's thread gave a sign of life while it has work. */
double scheduler_silence(Scheduler *s);

typedef struct {
    int slots, busy, queued;
} SchedulerCounts;
SchedulerCounts scheduler_counts(Scheduler *s);
/* "slots":[...],"queue":[...] */
void scheduler_status(Scheduler *s, Bytes *out);

#endif
