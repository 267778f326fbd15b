/* engine.h - what the files of the engine share.
 *
 *      engine.c    opening and closing; what the engine says about itself
 *      plan.c      how much memory that takes, before it is taken
 *      memory.c    how much there is
 *      lock.c      one program a GPU
 *      step.c      rows in, logits out, for any number of sessions
 *      session.c   one timeline: feeding, going back
 *      marks.c     the lengths it can go back to
 *      pieces.c    its state in pieces: out, in, and from session to session
 *      state.c     a timeline to a stream and back
 *      fingerprint.c  which model it is
 *      text.c      tokens and sampling */
#ifndef ENGINE_H
#define ENGINE_H
#include "../base/file.h"
#include "../model/forward.h"
#include "../model/sampler.h"
#include "../text/bpe.h"

/* A mark every so many tokens is cheap: no group of 128 is open there. */
enum { MARK_UNIT = DS4_STATE_UNIT, MARK_SPAN = 2048, MAX_MARKS = DS4_MOST_MARKS - 1 };

typedef struct {
    int n;
    bool ends_turn;
    void *block; /* kv_mark_bytes(n), where n is a multiple of MARK_UNIT */
} Mark;

struct ds4_session {
    ds4_engine *engine;
    int slot, length;
    int kept, filled;          /* rows that are there, beyond the length: pieces.c */
    const ds4_session *lender; /* whose rows [0, filled) are; NULL: not all of one's */
    int32_t *token;            /* [context] */
    float *logits; /* [vocab], of the last token: its own, or where the last step left them */
    float *own_logits;
    bool has_logits;
    bool in_prompt;           /* the last step fed several tokens */
    Mark mark[MAX_MARKS + 1]; /* ascending; their blocks all through */
    void *odd_mark;           /* the memory of one at a length between multiples */
    int n_marks;
};

/* Options with the defaults filled in. */
typedef struct {
    const char *device;
    bool mapped;          /* the device reads weights where the file is mapped */
    uint64_t device_free; /* bytes of a device that has memory of its own: not mapped */
    uint64_t host_free;   /* of the host's memory; 0: unknown */
    uint64_t beside;      /* of which the program takes so much itself */
    int context, sessions, max_rows, max_logits;
    int asked_rows, asked_logits; /* 0: they follow from the context and the sessions */
    BackendOptions backend;
} Settings;

/* Held in every folder of a list that can be written to. */
enum { LOCK_FOLDERS = 2 };
typedef struct {
    int fd[LOCK_FOLDERS]; /* + 1; 0: none */
} DeviceLock;

struct ds4_engine {
    Map map; /* empty where the caller keeps the bytes */
    const unsigned char *file;
    Gguf gguf;
    Shape shape;
    Settings set;
    DeviceLock lock; /* of the device */
    ModelBytes bytes;
    ds4_vocab *vocab;
    Backend *be;
    Model model;
    Kv kv;
    Run run;
    bool has_stepped;
    atomic_bool cancel;
    ds4_progress progress;
    ds4_log log;
    void *user;
    ds4_session **session; /* [sessions], NULL: the slot is free */

    /* of the sessions, open or not */
    ds4_session *seat;
    int32_t *session_token;
    float *session_logits;
    char *session_marks;

    /* of the last step */
    Span *span;        /* [sessions] */
    int32_t *token;    /* [max_rows] */
    int32_t *out;      /* [max_logits] */
    float *logits;     /* [rows of the step][vocab], the backend's, until the next one */
    int *first_logits; /* [sessions + 1], by item: its first row of logits */
    int n_items;

    ds4_choice *choices; /* [vocab], scratch of sampling */
    float *adjusted;     /* [vocab], the same: logits with bias and mask */
    unsigned char fingerprint[32];
    bool has_fingerprint; /* it is made when first asked for */
    char name[128], about[384];
};

/* An engine over a GGUF in memory, which must outlive it. opt->model is not read. */
ds4_engine *engine_open_bytes(const void *gguf, size_t n, const ds4_options *opt, ds4_err *err);

bool settings_make(Settings *set, const ds4_options *opt, const Shape *s, ds4_err *err);
/* The device and its memory: opt's, else the fastest one that is there and has room. */
bool settings_place(Settings *set, const ds4_options *opt, const Shape *s, const ModelBytes *bytes,
                    uint64_t file_bytes, ds4_err *err);
/* Shape and sizes of a parsed file; every problem goes to opt->log. */
bool engine_check(const Gguf *g, const ds4_options *opt, Shape *s, ModelBytes *bytes, ds4_err *err);
void engine_plan(ds4_plan *p, const Settings *set, const Shape *s, const ModelBytes *bytes,
                 uint64_t file_bytes);

/* A file of this name in each of the folders. False: another process has one of them, whose
 * number is *holder (0: not known); this one may have it as often as it likes. */
bool device_lock_take(DeviceLock *l, const char *const folders[LOCK_FOLDERS], const char *name,
                      long *holder);
void device_lock_release(DeviceLock *l);
/* The device for this program alone; the host is everybody's. */
bool device_lock(DeviceLock *l, const char *device, ds4_err *err);

/* Say of which file an error is, where the file is at fault. */
bool fail_of_file(ds4_err *err, const char *path, const ds4_err *inner);

/* For messages. */
static inline double gb(uint64_t bytes) { return (double)bytes / 1e9; }

/* Bytes that a program can still take without swapping; 0: unknown. */
uint64_t memory_available(void);

bool tokens_check(const ds4_engine *e, const int32_t *tokens, int n, ds4_err *err);
bool fingerprint_know(ds4_engine *e, ds4_err *err); /* fills e->fingerprint */

/* The session has n tokens from here on, and no more rows than those. */
void session_at(ds4_session *s, int n);
void session_jump(ds4_session *s, int n); /* the same, not by a step: it has no logits */
void session_clear(ds4_session *s);

/* Memory of a session's marks, all at once, and giving it to the session. */
int marks_most(const Settings *set);
uint64_t marks_block(const Settings *set, const Shape *s);
uint64_t marks_bytes(const Settings *set, const Shape *s);
void marks_init(ds4_session *s, char *memory, uint64_t block);

/* A step is about to advance the session by a token or, prompt, by several. */
void marks_pass(ds4_session *s, bool prompt);
/* It has just reached its length: remember the state if it is a good place to
 * come back to. */
void marks_reach(ds4_session *s);
void marks_take(ds4_session *s); /* at any length */
/* It is at the length of this mark by its rows only: make it so, and remember. */
void marks_put(ds4_session *s, const void *mark);
/* The bytes of the mark at n; NULL: there is none. */
const void *marks_find(const ds4_session *s, int n);
void marks_drop(ds4_session *s, int n); /* those above n */
/* Go back to the last mark at or below n; returns its length, 0 without one. */
int marks_back(ds4_session *s, int n);
/* How many of the n tokens that follow the session's to feed at once, so that
 * it comes past the places where marks are taken. */
int marks_stride(const ds4_session *s, int n);

#endif
