/* job.h - one request for an answer, on its way through the server's threads.
 *
 *   network   makes it of an HTTP request, later drains its events
 *   worker    reads the body, renders and tokenizes the prompt (prepare.h)
 *   engine    samples the answer and puts events (scheduler.h, generate.h)
 *
 * Each of them touches it only in its turn; what is shared at one time is
 * atomic, or the queue of events. Who holds a reference keeps it alive. */
#ifndef JOB_H
#define JOB_H
#include "dialect.h"
#include "events.h"
#include "http.h"
#include "metrics.h"
#include "recall.h"
#include "../text/grammar.h"
#include <stdatomic.h>

enum JobStage {
    STAGE_PREPARING,
    STAGE_QUEUED,
    STAGE_PREFILL,
    STAGE_THINKING,
    STAGE_TEXT,
    STAGE_TOOL,
    STAGE_OVER
};

typedef struct {
    const char *name, *value;
} JobHeader;

typedef struct Job Job;
struct Job {
    atomic_int refs;

    /* from the network thread, read-only afterwards */
    const Dialect *dialect;
    bool count_only;  /* count_tokens: prepared, and never run */
    bool prompt_only; /* /kv/prefetch: over when the prompt is read; usage says how much was new */
    Bytes body;       /* until it is read */
    size_t size;      /* its bytes, as it came */
    Arena arena;
    JobHeader *headers;
    size_t n_headers;
    enum Client client;
    char peer[64];
    int64_t accepted_ns;
    /* Tells the network thread that events wait; any thread. */
    void (*wake)(void *user, Job *j);
    void *user;
    atomic_bool woken;         /* and it has not looked yet */
    HttpPost events_post;      /* under way while woken */
    struct Exchange *exchange; /* the network thread's; NULL: nobody listens any more */

    /* from the worker */
    Turn turn;
    ApiError error; /* status 0: it can be run */
    Tokens prompt;
    Grammar *grammar; /* NULL: free text */
    bool thinking;    /* the prompt ends in <think> */
    RecallCount recalled;
    int64_t prepared_ns;
    HttpPost prepared_post;

    /* while it runs */
    EventQueue events;
    _Atomic(const char *) canceled; /* why, or NULL */
    const char *left_why;           /* why nobody listens; before left_ns */
    atomic_llong left_ns; /* until then it goes on unheard; 0: it is heard; -1: it is over */
    atomic_int stage, cached, processed, generated;
    int64_t started_ns, first_ns; /* in a slot; first token. The engine's */
    Job *next;                    /* in the scheduler's queue */
    bool overtaken;               /* there, by another one. The engine's */
    int64_t held_until_ns; /* there: no slot will do before one that is busy is free, or so */
};

/* One reference. NULL: no memory. */
Job *job_new(const Dialect *d, enum Api api);
void job_hold(Job *j);
void job_drop(Job *j); /* frees it with the last reference; NULL is fine */

/* The engine looks at this between steps. The first reason counts. */
void job_cancel(Job *j, const char *why);
const char *job_canceled(const Job *j); /* NULL: it is not */

/* Its client is gone, and may ask for the same again: for grace_ns it goes on unheard, as
 * long as nobody waits for its slot and its events are no more than 1 MiB; and for ten
 * minutes more while it is alone and its prompt is read, which is of use to whoever goes on
 * with it. Then it is canceled, for why. The network thread's, like job_adopt; the scheduler
 * sees to the rest. */
void job_abandon(Job *j, const char *why, int64_t grace_ns);
/* Somebody listens again; what was told meanwhile waits in the queue. False: too late. */
bool job_adopt(Job *j);
/* What others ask for meanwhile. */
enum JobCompany {
    JOB_ALONE,  /* nothing */
    JOB_BESIDE, /* answers, for which there are slots */
    JOB_WANTED  /* its slot */
};
/* Would it be given up now? */
bool job_yields(const Job *j, enum JobCompany company);
/* Gives it up if so, and only once. */
bool job_is_lost(Job *j, enum JobCompany company);

/* A copy of the event for the client. A client that is too far behind cancels. */
void job_tell(Job *j, const Event *e);
/* An error as the answer's last event. */
void job_fail(Job *j, const ApiError *e);

const char *job_stage_name(const Job *j);
/* A HeaderFn over a job's headers. */
const char *job_header(void *job, const char *name);

#endif
