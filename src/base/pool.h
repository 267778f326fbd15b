/* pool.h - threads that run one function together.
 *
 * Work is split statically, so results never depend on timing; kernels must
 * see to it that they do not depend on the number of threads either. Waiting
 * threads spin for about as long as a sleep costs, then sleep, so that on a
 * machine shared with others they get their share of it. */
#ifndef POOL_H
#define POOL_H
#include "base.h"

typedef struct Pool Pool;
typedef void (*PoolFn)(void *arg, int ith, int nth);

/* threads 0: one a physical core that this process may use. */
Pool *pool_new(int threads, ds4_err *err);
void pool_free(Pool *p); /* NULL is fine */
int pool_threads(const Pool *p);
/* Run fn(arg, i, n) on all n threads, the caller being number 0; returns when
 * all have returned. Not reentrant. */
void pool_run(Pool *p, PoolFn fn, void *arg);
/* Between runs: later ones are fn(arg, 0, 1) as long as `alone`, for work so small that
 * meeting costs more than it spares. */
void pool_alone(Pool *p, bool alone);
/* Inside fn: wait until every thread of the run has come here. */
void pool_barrier(Pool *p);

/* The part [*first, *last) of n items for thread ith of nth, in multiples of
 * `unit` items. */
static inline void pool_part(int n, int unit, int ith, int nth, int *first, int *last)
{
    int64_t units = ((int64_t)n + unit - 1) / unit;
    int64_t a = units * ith / nth * unit, b = units * (ith + 1) / nth * unit;
    *first = (int)MIN(a, (int64_t)n);
    *last = (int)MIN(b, (int64_t)n);
}

#endif
