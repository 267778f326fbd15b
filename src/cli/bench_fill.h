/* bench_fill.h - long contexts without reading them: for speed, which does not
 * depend on what the rows of a state hold. */
#ifndef BENCH_FILL_H
#define BENCH_FILL_H
#include "../../include/ds4.h"

/* Rows of a short beginning, and its mark. */
typedef struct {
    int n; /* tokens of it; 0: not yet read */
    unsigned char *rows, *mark;
    size_t unit_bytes, mark_bytes; /* of DS4_STATE_UNIT tokens' rows; of the mark */
} BenchSeed;

/* Makes the session hold the first n tokens, a multiple of DS4_STATE_UNIT, without
 * their logits. A beginning of 512 is computed, once for a seed; all units of rows
 * beyond are copies of its units in a random order, and the mark is its own. */
bool bench_fill(BenchSeed *seed, ds4_engine *e, ds4_session *s, const int32_t *tokens, int n,
                ds4_err *err);
void bench_seed_release(BenchSeed *seed);

#endif
