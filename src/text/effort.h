/* effort.h - how much work a grammar may be to compile.
 *
 * Small texts can ask for a lot: an automaton of many states that is cut to few,
 * a pattern that is tried on each of many names. So all that is done for one
 * grammar is counted, in steps of some nanoseconds, and who waits for it may
 * change his mind meanwhile. */
#ifndef EFFORT_H
#define EFFORT_H
#include "../base/base.h"

typedef struct {
    uint64_t done, most;
    uint64_t asked;           /* `done` when stop was last asked */
    bool (*stop)(void *user); /* true: nobody wants it any more; may be NULL */
    void *user;
    bool stopped;
} Effort;

/* Steps that are to be done now; false: not these, and no others. NULL: as many as you like. */
static inline bool effort_spend(Effort *e, uint64_t steps, ds4_err *err)
{
    enum { ASK_EVERY = 1 << 20 };
    if (!e)
        return true;
    e->done += steps;
    if (e->stop && !e->stopped && e->done - e->asked >= ASK_EVERY) {
        e->asked = e->done;
        e->stopped = e->stop(e->user);
    }
    if (e->stopped)
        return fail(err, DS4_ECANCELED, "the grammar is not wanted any more");
    if (e->done > e->most)
        return fail(err, DS4_EINVAL, "the schemas and patterns together are too much work");
    return true;
}

#endif
