/* scheduler_parts.h - what the files of the engine's thread share.
 *
 *      scheduler.c    what other threads call, and the thread itself
 *      status.c       what they may see
 *      waiting.c      who waits, who is next, and what is held for them
 *      admit.c        from the queue into slots, and out of them
 *      enter.c        how a job finds the beginning of its prompt
 *      saving.c       states on their way to the store
 *      steps.c        steps of many answers and a piece of a prompt
 *      unload.c       closing the engine, and opening it again
 *
 * The mutex is for the queue and for what others may see of the slots; it is
 * never held while the engine works. Only the engine's thread touches slots. */
#ifndef SCHEDULER_PARTS_H
#define SCHEDULER_PARTS_H
#include "explain.h"
#include "ladder.h"
#include "scheduler.h"
#include <pthread.h>

/* What may be seen of a slot. */
typedef struct {
    Job *job; /* that it is busy with; NULL: none */
    bool entering;
    int tokens;   /* that it holds */
    char *prompt; /* what its last prompt found, as JSON; NULL: there was none */
    bool hosts;   /* it will do for a side request, now or when its job is over */
    int64_t used_ns;
    uint64_t session; /* whose conversation it has; 0: nobody's */
} Shown;

/* So many of the queue are looked at. */
enum { LOOKED_AT = 8 };

/* One of them, and what its prompt would find. */
typedef struct {
    Job *job;         /* a reference */
    StoreFound found; /* reserved for it */
    int fresh;        /* tokens that it would have to read */
    const Slot *in;   /* that has most of it; NULL: none */
    int needs;        /* tokens more to read if what that one holds went */
    bool side;
    unsigned seen; /* Scheduler.changes when it was looked at */
} Waiting;

struct Scheduler {
    SchedulerOptions opt;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work;

    /* under the mutex */
    Job *queue, **queue_end;
    int n_queue;
    bool finishing, over, unloaded;
    bool woken; /* something happened since the thread has last looked */
    int64_t save_until_ns;
    Shown *shown; /* [n_shown] by slot */
    int n_shown;
    double answer_s;    /* that an answer had its slot, lately; 0: not known */
    const Job *running; /* for whose sake the step that runs is long; NULL: nobody's */

    /* the engine's thread's */
    ds4_engine *engine, *words; /* words: NULL, the vocabulary is the engine's own */
    uint8_t fingerprint[32];    /* where it may be unloaded */
    Store *store;               /* NULL: none */
    TokenTrie *trie;
    const ds4_vocab *vocab;
    GenerateEnv env;
    Slots slots;
    Waiting waiting[LOOKED_AT]; /* the first of the queue, but those that are held back */
    int n_waiting;
    unsigned changes; /* of what slots hold, or the store */
    Past *past;
    ds4_work *step; /* [slots] */
    Slot **of_step;
    int max_rows, max_active, turn, saving; /* whose turn it is to be read, to be saved */
    bool canceled;                          /* the last step was */
    double rows_a_ms;                       /* of prompts, lately; 0: not known */
    int64_t idle_since_ns;
    ds4_err failure;

    atomic_llong alive_ns;
    atomic_bool busy;
};

/* Under the mutex: the job *at is in the queue no more; its reference is the caller's. */
void unqueue(Scheduler *s, Job **at);
void scheduler_log(Scheduler *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- status.c */
void show(Scheduler *s, const Slot *slot);        /* as it is now */
void show_prompt(Scheduler *s, const Slot *slot); /* and what its prompt has found */
void count_slots(Scheduler *s);
int wait_seconds(const Scheduler *s, int waiting); /* until so many have gone into slots */
int free_slots(const Scheduler *s);                /* both under the mutex, as is: */
/* Is it a side request that no slot will do for? Then it is told before its answer begins. */
bool has_no_slot(const Scheduler *s, const Job *j);

/* ---- waiting.c */
void look_at_queue(Scheduler *s); /* once a round */
/* Who gets the next slot, and slots know what the others would lose. NULL: nobody. */
Waiting *next_waiting(Scheduler *s);
/* Out of the queue; its reference is the caller's. False: it went by itself. */
bool take_waiting(Scheduler *s, const Waiting *w);
void hold_back(Scheduler *s, Waiting *w); /* until a job leaves its slot, or for 5 s */
void hold_nobody_back(Scheduler *s);
void forget_waiting(Scheduler *s);

/* ---- admit.c */
int active(const Scheduler *s);
void admit(Scheduler *s);
void drop_canceled(Scheduler *s);
void leave(Scheduler *s, Slot *slot); /* its job is over */
void close_slots(Scheduler *s);
/* Does a side request cost its conversation no more than a little, now or when its job is over? */
bool slot_hosts(Scheduler *s, const Slot *slot);
/* Is a side request that would cost one its state told so, and not taken for a conversation? */
bool is_refused(const Scheduler *s, const Job *j);
/* A side request would cost a conversation its state: says so. */
void no_slot_for_side(Scheduler *s, const Job *j, ApiError *e);
/* Nobody can be answered now: all that wait are told so. */
void refuse_queue(Scheduler *s, const ApiError *e);

/* ---- enter.c */
/* The job has its slot. */
void enter(Scheduler *s, const SlotChoice *c, Job *j, bool side);
/* A little more of what keeps jobs from being read. True: at once another bit can be done. */
bool go_on_entering(Scheduler *s);
void stop_entering(Scheduler *s, Slot *slot); /* it will not go on */
/* The length at which a prompt that is read should stop for others to copy it; 0: none. */
int stop_for_others(const Scheduler *s, const Slot *slot);

/* ---- saving.c */
void saving_moved(Slot *slot);  /* its session was taken back, or has become another */
void saving_failed(Slot *slot); /* the store did not take some of it: not before 30 s again */
void saving_turn(Scheduler *s, Slot *slot, bool answered); /* a prompt or an answer has ended */
/* Something to save of this slot goes to the store. False: there is nothing. */
bool save_some(Scheduler *s, Slot *slot);
/* The same of any of them, in turn. */
bool save_any(Scheduler *s);
void save_all(Scheduler *s, int64_t until_ns);
/* Has the store room for all of its conversation? */
bool can_be_kept(Scheduler *s, const Slot *slot);
/* Is it there, but for a little? */
bool is_kept(Scheduler *s, const Slot *slot);

/* ---- steps.c */
bool step(Scheduler *s); /* False: nobody needs one */

/* ---- unload.c */
bool engine_first(Scheduler *s, ds4_err *err); /* opens it when the thread starts */
void unload_if_idle(Scheduler *s);
/* Opens it again. False: it could not, and those who waited were told. */
bool engine_again(Scheduler *s);

#endif
