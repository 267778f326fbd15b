/* ds4.h - run DeepSeek V4 Flash.
 *
 * An engine is a loaded model and room for a fixed number of sessions. A
 * session is one timeline of tokens and the KV state that goes with it. A
 * step feeds tokens to any number of sessions at once; prompt chunks and
 * single decoded tokens are the same thing and may share a step.
 *
 *     ds4_err err;
 *     ds4_engine *e = ds4_engine_open(&(ds4_options){ .model = path }, &err);
 *     ds4_session *s = ds4_session_open(e, &err);
 *     ds4_session_feed(s, tokens, n, &err);
 *     int32_t next = ds4_sample(s, &(ds4_sampling){ .temperature = 1, .rng = &seed });
 *
 * Every call that can fail returns NULL or false and fills *err; err may be
 * NULL. Pointers passed in are borrowed for the call unless the comment says
 * otherwise. Pointers handed out live as long as the object they came from.
 *
 * Threads: an engine and its sessions belong to one thread at a time, except
 * ds4_cancel(), which any thread or signal handler may call, and the text
 * functions, which only read. */
#ifndef DS4_H
#define DS4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DS4_VERSION "0.1.0"

typedef struct ds4_engine ds4_engine;
typedef struct ds4_session ds4_session;
typedef struct ds4_vocab ds4_vocab; /* immutable: share it between threads */

/* ---- errors ------------------------------------------------------------ */

typedef enum {
    DS4_OK,
    DS4_EINVAL,    /* the caller's argument or request is wrong */
    DS4_ENOMEM,    /* host or device memory is exhausted */
    DS4_EIO,       /* a file could not be read or written */
    DS4_EFORMAT,   /* a file is not what it claims to be */
    DS4_ECONTEXT,  /* the tokens do not fit the session's context */
    DS4_EDEVICE,   /* the device failed; the engine must be reopened */
    DS4_ECANCELED, /* ds4_cancel() was called */
} ds4_code;

typedef struct {
    ds4_code code;
    char msg[248];
} ds4_err;

/* ---- engine ------------------------------------------------------------ */

/* Called now and then during long work: what ("loading", "prefill", ...),
 * how much is done of how much. total 0: unknown. */
typedef void (*ds4_progress)(void *user, const char *what, uint64_t done, uint64_t total);
/* One line that a person should see: each of many errors, of which ds4_err
 * holds only the first, or a warning though nothing failed. */
typedef void (*ds4_log)(void *user, const char *line);

typedef struct {
    const char *model;     /* path of the GGUF */
    const char *device;    /* "cpu", "cuda", "cuda:N" (a GPU's number), "null", "play:FILE"
                               (answers from a file, docs/TESTING.md); "timed:", "trace:",
                               "check:" or "collect:" before one of them. NULL picks the fastest
                               one that is there and has room; "timed:" alone picks, too */
    const char *isa;       /* "scalar" "avx2" "avx512" "neon" "dotprod"; NULL: the CPU's best */
    int threads;           /* CPU threads; 0: one a physical core, and one alone for steps that
                               are too small to share */
    bool exact;            /* on the CPU: F32 activations also where weights are multiplied with
                               activations of 8 bits (docs/ACCURACY.md says what that costs) */
    int context;           /* tokens a session can hold; 0: 8192 or the model's limit */
    int sessions;          /* sessions that can be open at once; 0: 1 */
    int max_rows;          /* largest step, in tokens, 65,535 at most; 0: 512 */
    int max_logits;        /* most rows of logits a step can give; 0: one a session */
    uint64_t beside;       /* bytes of the host's memory that the program takes for itself, which
                               the plan leaves free: a store of states, say */
    bool share_device;     /* use a GPU that another program has a model on, too */
    bool unrounded;        /* leave out the FP8/FP4 rounding of KV rows (tests) */
    ds4_progress progress; /* or NULL */
    ds4_log log;           /* or NULL */
    void *user;            /* given to both */
} ds4_options;

ds4_engine *ds4_engine_open(const ds4_options *opt, ds4_err *err);
void ds4_engine_close(ds4_engine *e);                 /* NULL is fine; closes its sessions */
const char *ds4_engine_describe(const ds4_engine *e); /* one line, for humans */

/* What a model needs before it is loaded: bytes by purpose, for opt's context,
 * sessions, max_rows and device. Reads only the file's header.
 *
 * On the CPU the weights are mapped: pages of the file that the system reads
 * when they are touched and drops when memory is short. So there they may
 * exceed the memory (slowly), and `fits` says that everything else is there.
 * A GPU has memory of its own, into which they are copied; logits, tokens, marks
 * and what is taken beside stay in the host's.
 *
 * The plan binds: opening an engine takes all of it, or refuses, and nothing
 * after that takes more. */
typedef struct {
    const char *device;   /* opt's, or the one that was picked */
    bool mapped;          /* weights are read where the file is mapped */
    uint64_t weights;     /* mapped or uploaded */
    uint64_t kv_session;  /* one session's KV state at opt->context */
    uint64_t kv;          /* all sessions */
    uint64_t marks;       /* what sessions can go back to, all of them */
    uint64_t activations; /* of one step, and tokens and logits of the sessions */
    uint64_t scratch;     /* the device's own */
    uint64_t beside;      /* opt->beside */
    uint64_t total;       /* all of the above */
    uint64_t required;    /* of which must be free on the device: all but mapped weights, or
                             all but what stays with the host */
    uint64_t available;   /* memory of the device now; 0: the system does not say. Where the
                             host's is what is short, both are of that */
    int context, sessions, max_rows; /* with defaults filled in */
    int max_context;                 /* largest context that fits with these sessions */
    int max_sessions;                /* most sessions that fit with this context */
    bool fits;
} ds4_plan;
bool ds4_plan_make(ds4_plan *plan, const ds4_options *opt, ds4_err *err);
/* False where it does not fit: *err says what is needed and what is free, and the largest
 * settings that would fit. ds4_engine_open refuses in the same words. */
bool ds4_plan_check(const ds4_plan *plan, ds4_err *err);

typedef struct {
    const char *name;                 /* general.name */
    int n_layers, vocab, context_max; /* context_max: the model's own limit */
    int context, sessions, max_rows, max_logits;
    bool rounded;          /* not ds4_options.unrounded */
    uint64_t weight_bytes; /* of all tensors */
    uint64_t step_bytes;   /* weight bytes that decoding one token reads */
    uint64_t kv_bytes;     /* of one session at full context */
} ds4_info;
ds4_info ds4_engine_info(const ds4_engine *e);

/* With device "timed:NAME": a table of calls, time, bytes read and multiply-accumulates
 * by op since the engine was opened or last reset. NULL where it is not timed. */
typedef struct {
    const char *op;
    uint64_t calls, ns, bytes, macs;
} ds4_op_time;
const ds4_op_time *ds4_engine_ops(const ds4_engine *e, int *n);
void ds4_engine_ops_reset(ds4_engine *e);

/* With device "collect:cpu": what went into the matrices of the routed experts since the engine
 * was opened, as sums of squares by layer, expert and column. False where it is not collected.
 * Pointers are good until the engine is closed, values until the next step. */
typedef struct {
    int layers, experts, dim, hidden;
    const uint64_t *count; /* [layers][experts] rows */
    const double *x;       /* [layers][experts][dim]: of gate and up */
    const double *h;       /* [layers][experts][hidden]: of down, the route's weight included */
} ds4_importance;
bool ds4_engine_importance(const ds4_engine *e, ds4_importance *out);

/* ---- text -------------------------------------------------------------- */

const ds4_vocab *ds4_engine_vocab(const ds4_engine *e);

/* Encode UTF-8 text (any bytes are accepted). Writes at most cap ids and
 * returns how many the text needs, so a call with cap 0 measures; SIZE_MAX
 * when memory ran out. Control tokens are recognised only when special is
 * true: text from a user is always encoded with false. */
size_t ds4_encode(const ds4_vocab *v, const char *text, size_t len, bool special, int32_t *out,
                  size_t cap);
/* The bytes of a token. NULL and 0 for an id outside the vocabulary. */
const char *ds4_token_bytes(const ds4_vocab *v, int32_t token, size_t *len);

/* ---- sessions ---------------------------------------------------------- */

ds4_session *ds4_session_open(ds4_engine *e, ds4_err *err); /* takes a free slot */
void ds4_session_close(ds4_session *s);                     /* NULL is fine */
int ds4_session_length(const ds4_session *s);
const int32_t *ds4_session_tokens(const ds4_session *s);

/* Append tokens, in as many steps as needed. Keeps the last row's logits. When
 * it fails or is canceled, the steps that were done before stay done. */
bool ds4_session_feed(ds4_session *s, const int32_t *tokens, int n, ds4_err *err);

/* Make the session hold exactly these tokens and the logits of the last one.
 * Whatever prefix it already holds is kept as far as a resume point allows;
 * the rest is evaluated. *reused (may be NULL): tokens not evaluated again. */
bool ds4_session_sync(ds4_session *s, const int32_t *tokens, int n, int *reused, ds4_err *err);

/* Go back to length n. Pooled rows cannot be un-pooled at any length: returns
 * the length really reached, which is n or the closest resume point below it,
 * 0 where there is none. Costs a copy of a small state, evaluates nothing. When
 * it goes back the last logits are gone, as are resume points above n: whoever
 * wants logits feeds a token at least. n of the length or more changes nothing. */
int ds4_session_rewind(ds4_session *s, int n);
/* For callers of ds4_step: of the n tokens that follow, feed at most so many in
 * the next step, so that it ends where a resume point is wanted (steps that end
 * at a multiple of 128 leave one). Fewer is fine; ask again before each step.
 * At least 1 where n is. ds4_session_feed and _sync do this themselves. */
int ds4_session_stride(const ds4_session *s, int n);

/* KV state to and from a stream. The format is versioned, checksummed and
 * device-neutral; it holds the tokens, the state and the last logits. A load
 * that fails leaves the session empty. A state that was computed on another
 * device, or with ds4_options.exact or without, is a state like any other. */
typedef struct {
    bool (*io)(void *user, void *data, size_t len); /* reads or writes all */
    void *user;
} ds4_stream;
bool ds4_session_save(ds4_session *s, ds4_stream out, ds4_err *err);
bool ds4_session_load(ds4_session *s, ds4_stream in, ds4_err *err);

/* ---- state in pieces ---------------------------------------------------- */

/* The state of a timeline of n tokens, n a multiple of DS4_STATE_UNIT, is the rows of its
 * tokens, which are only ever added to, and the mark at n (window rows, pooling inputs),
 * which is made anew as it grows. So a store keeps the rows of [0, a), [a, b), ... once each,
 * and a mark at every length that it wants to come back to.
 *
 * Their bytes are the same on every device. They depend on the model
 * (ds4_engine_fingerprint), on ds4_options.unrounded and on DS4_STATE_VERSION, which counts
 * changes of their layout or of what the same tokens compute to: a state of another version
 * is of no use. */
enum { DS4_STATE_UNIT = 128, DS4_STATE_VERSION = 2 };

/* How long a piece is. They read what never changes, so any thread may ask. Multiples of
 * the unit only; 0 for what is none. */
uint64_t ds4_rows_bytes(const ds4_engine *e, int first, int last);
uint64_t ds4_mark_bytes(const ds4_engine *e, int n);

/* The rows of tokens [first, last), multiples of the unit within its length. */
bool ds4_session_read_rows(const ds4_session *s, int first, int last, void *out, ds4_err *err);

/* The lengths that it can go back to, ascending: writes at most cap and returns how many
 * there are, DS4_MOST_MARKS at most. Its own is one of them where it is a multiple of the
 * unit, so the mark at the end of a chunk that a step has just completed can always be
 * read; later it may have gone, to make room. The ends of prompts and answers (rounded down
 * to the unit) and every 2,048th token stay longest. */
enum { DS4_MOST_MARKS = 33 };
int ds4_session_marks(const ds4_session *s, int *at, int cap);
/* The mark at one of these that is a multiple of the unit. */
bool ds4_session_read_mark(const ds4_session *s, int n, void *out, ds4_err *err);

/* Restoring, piece by piece, between steps of other sessions: rows first, in order, and
 * then the mark, with which the session becomes these tokens.
 *
 * write_rows: first is at most its length or the end of the write before. Where it is less
 * than the length, the session has gone back to a mark at or below first, whatever comes
 * next; its tokens up to first still count as there. A step of the session's own, or any
 * other change of it, ends the restoring: what was written is gone.
 *
 * enter: its rows [0, n) are the beginning that it has in common with these tokens, or
 * were written; n is a multiple of the unit, above 0. It has no logits then, so whoever
 * wants some feeds a token at least. (A session whose rows reach further may enter with
 * nothing written: a mark from elsewhere takes it back to where it has none itself.)
 *
 * What is refused changes nothing, and a session whose restoring is given up is what
 * write_rows made of it: valid, shorter, or empty. bytes: the size of the piece, checked. */
bool ds4_session_write_rows(ds4_session *s, int first, int last, const void *rows, size_t bytes,
                            ds4_err *err);
bool ds4_session_enter(ds4_session *s, const int32_t *tokens, int n, const void *mark, size_t bytes,
                       ds4_err *err);

/* `to` becomes the longest beginning of at most n tokens of `from` that a mark allows, or all
 * of it; *reached (may be NULL): how many. Copies within the device, evaluates nothing. It
 * has logits if it is all of `from`, which had some. Two sessions of one engine. */
bool ds4_session_fork(ds4_session *to, const ds4_session *from, int n, int *reached, ds4_err *err);
/* What of a fork takes long, before it and in pieces, between steps of others: the rows of
 * [first, last) from a session that has them, by the rules of write_rows. If nothing but
 * such pieces of this session came since, a fork from it copies only what is missing.
 * Meanwhile `from` may go on, but not be taken back below `last`. */
bool ds4_session_copy_rows(ds4_session *to, const ds4_session *from, int first, int last,
                           ds4_err *err);

/* SHA-256 of the model: metadata, tensor table, a sample of each tensor's bytes. */
bool ds4_engine_fingerprint(ds4_engine *e, uint8_t out[32], ds4_err *err);

/* ---- steps ------------------------------------------------------------- */

typedef struct {
    ds4_session *session;
    const int32_t *tokens;
    int n;        /* 1 for decode, up to max_rows for a prompt */
    int n_logits; /* logits of the last n_logits rows are computed */
} ds4_work;

/* Run one step for all items (each session at most once). All of them
 * advance, or none does: then all is as it was, but that where it failed at its
 * end the logits of the step before are gone (ds4_logits gives NULL). */
bool ds4_step(ds4_engine *e, const ds4_work *work, int n, ds4_err *err);
void ds4_cancel(ds4_engine *e); /* the step now running, or the next one, fails */

/* Row i, counted from 0, of the logits that work item `item` of the last step
 * asked for. Valid until the next step. */
const float *ds4_step_logits(const ds4_engine *e, int item, int i);

/* ---- sampling ---------------------------------------------------------- */

typedef struct {
    int32_t token; /* outside the vocabulary: ignored */
    float add;     /* -infinity: never */
} ds4_bias;

/* First bias is added, then mask applies, then temperature and filters.
 * Bit i of the mask is mask[i / 32] >> (i % 32) & 1. */
typedef struct {
    float temperature;    /* 0: greedy */
    float top_p, min_p;   /* 0: off; top_p 1: off */
    int top_k;            /* 0: off */
    uint64_t *rng;        /* owned by the caller; NULL: greedy */
    const uint32_t *mask; /* [vocab] bits: only these tokens; NULL: all */
    const ds4_bias *bias; /* added to logits; a token may occur more than once */
    int n_bias;
} ds4_sampling;

typedef struct {
    int32_t token;
    float logprob;
} ds4_choice;

const float *ds4_logits(const ds4_session *s); /* of the last token; NULL: none computed */
/* -1: there are no logits, or bias and mask leave no token. */
int32_t ds4_sample(const ds4_session *s, const ds4_sampling *how);
/* The k likeliest tokens, best first; ties: lower id first. Returns how many. */
int ds4_top(const ds4_session *s, ds4_choice *out, int k);
float ds4_logprob(const ds4_session *s, int32_t token);

#ifdef __cplusplus
}
#endif
#endif
