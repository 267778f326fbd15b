/* bench_fill.c - states of long contexts, made of short ones.
 *
 * Rows are the same bytes at every position, and a mark is as long at each multiple
 * of the unit, so those of a beginning that was computed are valid anywhere: numbers
 * of the usual size, rotated for other places than theirs. */
#include "bench_fill.h"
#include "../base/base.h"
#include "../base/rng.h"
#include <stdlib.h>

enum { UNIT = DS4_STATE_UNIT, SEED_TOKENS = 4 * UNIT };

static bool compute(ds4_session *s, const int32_t *tokens, int n, ds4_err *err)
{
    ds4_session_rewind(s, 0);
    return n == 0 || ds4_session_feed(s, tokens, n, err);
}

static bool take_seed(BenchSeed *seed, ds4_engine *e, ds4_session *s, const int32_t *tokens,
                      ds4_err *err)
{
    seed->unit_bytes = (size_t)ds4_rows_bytes(e, 0, UNIT);
    seed->mark_bytes = (size_t)ds4_mark_bytes(e, SEED_TOKENS);
    seed->rows = malloc(seed->unit_bytes * (SEED_TOKENS / UNIT));
    seed->mark = malloc(seed->mark_bytes);
    if (!seed->rows || !seed->mark)
        return fail(err, DS4_ENOMEM, "no memory for the state of %d tokens", SEED_TOKENS);
    if (!compute(s, tokens, SEED_TOKENS, err) ||
        !ds4_session_read_mark(s, SEED_TOKENS, seed->mark, err))
        return false;
    for (int i = 0; i < SEED_TOKENS / UNIT; i++) {
        if (!ds4_session_read_rows(s, i * UNIT, (i + 1) * UNIT,
                                   seed->rows + (size_t)i * seed->unit_bytes, err))
            return false;
    }
    seed->n = SEED_TOKENS;
    return true;
}

/* Every unit is written, so that none of the session's own tokens has to match. */
static bool write_units(const BenchSeed *seed, ds4_session *s, int n, ds4_err *err)
{
    uint64_t rng = 7;
    ds4_session_rewind(s, 0);
    for (int at = 0; at < n; at += UNIT) {
        size_t from = at < seed->n ? (size_t)(at / UNIT) : rng_next(&rng) % (SEED_TOKENS / UNIT);
        if (!ds4_session_write_rows(s, at, at + UNIT, seed->rows + from * seed->unit_bytes,
                                    seed->unit_bytes, err))
            return false;
    }
    return true;
}

bool bench_fill(BenchSeed *seed, ds4_engine *e, ds4_session *s, const int32_t *tokens, int n,
                ds4_err *err)
{
    if (n <= SEED_TOKENS)
        return compute(s, tokens, n, err);
    return (seed->n || take_seed(seed, e, s, tokens, err)) && write_units(seed, s, n, err) &&
           ds4_session_enter(s, tokens, n, seed->mark, seed->mark_bytes, err);
}

void bench_seed_release(BenchSeed *seed)
{
    free(seed->rows);
    free(seed->mark);
    *seed = (BenchSeed){ 0 };
}
