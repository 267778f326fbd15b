/* decorate.h - backends that wrap another one. Each owns what it wraps. */
#ifndef DECORATE_H
#define DECORATE_H
#include "ops.h"

Backend *null_open(const Shape *shape, ds4_err *err);
Backend *timed_open(Backend *inner, ds4_err *err);
Backend *trace_open(Backend *inner, ds4_err *err);
/* Runs each op on both, compares all it wrote, goes on from ref's values. */
Backend *check_open(Backend *inner, Backend *ref, ds4_err *err);
/* Logits that say what a file tells it to (script.h); the rest is inner's. */
Backend *play_open(Backend *inner, const char *file, const ds4_vocab *v, ds4_err *err);

/* Adds up what goes into the experts of a device that gives_hidden, in steps of at most max_rows. */
Backend *collect_open(Backend *inner, int max_rows, ds4_err *err);
uint64_t collect_scratch(const Shape *shape, int max_rows); /* bytes that it takes */
bool collect_sums(const Backend *be, ds4_importance *out);  /* false: of any other backend */

/* The table of a timed backend; NULL of any other. bytes: weights and KV read. */
const ds4_op_time *timed_table(const Backend *be, int *n);
void timed_reset(Backend *be);

/* What a check backend has seen since it was opened: the worst relative error
 * (L2 of the difference over L2 of the reference) of any op's output and that
 * op's name, and how many buffers differ by more than the op's tolerance. */
typedef struct {
    double worst;
    const char *op;
    uint64_t compared, failed;
} CheckReport;
CheckReport check_report(const Backend *be);

enum OpId {
#define OP(name, params, args) OP_##name,
    OPS(OP)
#undef OP
        N_OPS
};
extern const char *const op_names[N_OPS];

#endif
