/* pieces.c - the state of a session in pieces: out of it, into it, and from one
 * session to another.
 *
 * While a session is being restored, rows beyond its length are in place: those
 * of [0, kept) belong to its own tokens, those from there to `filled` to tokens
 * that it will be told. Both are its length whenever nothing is being restored,
 * because whatever moves a session goes through session_at(). Rows beyond the
 * length are read by nobody, so until the mark is in, the session is what it was. */
#include "engine.h"

/* Ops return nothing; whether the device did what it was told, end() says: from the first
 * step on, because it also reports what that found in the model. */
static bool device_did(const ds4_engine *e, ds4_err *err)
{
    return !e->has_stepped || e->be->op->end(e->be, err);
}

static bool in_units(int first, int last)
{
    return first >= 0 && first <= last && first % MARK_UNIT == 0 && last % MARK_UNIT == 0;
}

uint64_t ds4_rows_bytes(const ds4_engine *e, int first, int last)
{
    return in_units(first, last) ? kv_rows_bytes(&e->kv, first, last) : 0;
}

uint64_t ds4_mark_bytes(const ds4_engine *e, int n)
{
    return in_units(0, n) ? kv_mark_bytes(&e->kv, n) : 0;
}

/* ---- out ----------------------------------------------------------------------- */

bool ds4_session_read_rows(const ds4_session *s, int first, int last, void *out, ds4_err *err)
{
    const ds4_engine *e = s->engine;

    if (!in_units(first, last) || last > s->length)
        return fail(err, DS4_EINVAL, "rows %d to %d of a session of %d tokens", first, last,
                    s->length);
    kv_rows_save(&e->kv, e->be, s->slot, first, last, out);
    return device_did(e, err);
}

int ds4_session_marks(const ds4_session *s, int *at, int cap)
{
    for (int i = 0; i < MIN(s->n_marks, cap); i++)
        at[i] = s->mark[i].n;
    return s->n_marks;
}

bool ds4_session_read_mark(const ds4_session *s, int n, void *out, ds4_err *err)
{
    const void *state = n > 0 && in_units(0, n) ? marks_find(s, n) : NULL;

    if (!state)
        return fail(err, DS4_EINVAL, "there is no mark at %d, in a session of %d tokens", n,
                    s->length);
    memcpy(out, state, (size_t)kv_mark_bytes(&s->engine->kv, n));
    return true;
}

/* ---- in ------------------------------------------------------------------------ */

static bool right_size(const char *what, int first, int last, size_t bytes, uint64_t want,
                       ds4_err *err)
{
    return bytes == want || fail(err, DS4_EINVAL, "%s of tokens %d to %d: %zu bytes, expected %llu",
                                 what, first, last, bytes, (unsigned long long)want);
}

/* Rows from `first` on are about to be others': what stands on them goes. */
static void give_up(ds4_session *s, int first)
{
    const int kept = MIN(first, s->kept), filled = s->filled;

    ds4_session_rewind(s, first);
    s->kept = MAX(kept, s->length);
    s->filled = filled;
}

bool ds4_session_write_rows(ds4_session *s, int first, int last, const void *rows, size_t bytes,
                            ds4_err *err)
{
    const ds4_engine *e = s->engine;

    if (!in_units(first, last) || first == last || last > e->set.context)
        return fail(err, DS4_EINVAL, "rows of tokens %d to %d, in a context of %d", first, last,
                    e->set.context);
    if (first > s->filled)
        return fail(err, DS4_EINVAL, "rows from token %d on, and %d are there", first, s->filled);
    if (!right_size("rows", first, last, bytes, kv_rows_bytes(&e->kv, first, last), err))
        return false;
    give_up(s, first);
    s->lender = NULL;
    kv_rows_load(&e->kv, e->be, s->slot, first, last, rows);
    s->filled = last;
    return device_did(e, err);
}

/* For a device that goes by them. */
static void tell_tokens(const ds4_session *s, int n)
{
    Backend *be = s->engine->be;

    if (be->op->told && n > 0)
        be->op->told(be, s->slot, s->token, n);
}

static bool is_beginning(const ds4_session *s, const int32_t *tokens, int n, ds4_err *err)
{
    for (int i = 0; i < n; i++)
        if (s->token[i] != tokens[i])
            return fail(err, DS4_EINVAL, "the rows of token %d are those of %d, not of %d", i,
                        s->token[i], tokens[i]);
    return true;
}

bool ds4_session_enter(ds4_session *s, const int32_t *tokens, int n, const void *mark, size_t bytes,
                       ds4_err *err)
{
    const ds4_engine *e = s->engine;

    if (n <= 0 || !in_units(0, n) || n > s->filled)
        return fail(err, DS4_EINVAL, "a state of %d tokens, and the rows of %d are there", n,
                    s->filled);
    if (!right_size("a mark", 0, n, bytes, kv_mark_bytes(&e->kv, n), err) ||
        !tokens_check(e, tokens, n, err) || !is_beginning(s, tokens, MIN(n, s->kept), err))
        return false;
    marks_drop(s, n);
    memcpy(s->token, tokens, (size_t)n * sizeof *tokens);
    tell_tokens(s, n);
    session_jump(s, n);
    marks_put(s, mark);
    return device_did(e, err);
}

/* ---- from one session to another --------------------------------------------------- */

bool ds4_session_copy_rows(ds4_session *to, const ds4_session *from, int first, int last,
                           ds4_err *err)
{
    const ds4_engine *e = to->engine;

    if (to == from || e != from->engine)
        return fail(err, DS4_EINVAL, "rows are copied from another session of the same engine");
    if (!in_units(first, last) || first == last || last > from->length)
        return fail(err, DS4_EINVAL, "rows of tokens %d to %d of a session of %d", first, last,
                    from->length);
    if (first > to->filled)
        return fail(err, DS4_EINVAL, "rows from token %d on, and %d are there", first, to->filled);
    const bool all = !first || to->lender == from;
    give_up(to, first);
    to->lender = all ? from : NULL;
    kv_rows_copy(&e->kv, e->be, to->slot, from->slot, first, last);
    to->filled = last;
    return device_did(e, err);
}

/* What does not need a mark: all of it. */
static int reachable(const ds4_session *s, int n)
{
    int best = 0;

    if (n >= s->length)
        return s->length;
    for (int i = 0; i < s->n_marks && s->mark[i].n <= n; i++)
        best = s->mark[i].n;
    return best;
}

/* The rows of the first `there` tokens have been copied. */
static void copy_state(ds4_session *to, const ds4_session *from, int there, int n)
{
    const ds4_engine *e = to->engine;
    const void *mark = marks_find(from, n); /* none: it is all of the session, at an odd length */

    kv_rows_copy(&e->kv, e->be, to->slot, from->slot, there, n);
    memcpy(to->token, from->token, (size_t)n * sizeof *to->token);
    tell_tokens(to, n);
    session_jump(to, n);
    if (mark) {
        marks_put(to, mark);
    } else {
        kv_mark_copy(&e->kv, e->be, to->slot, from->slot, n);
        marks_take(to);
    }
}

bool ds4_session_fork(ds4_session *to, const ds4_session *from, int n, int *reached, ds4_err *err)
{
    if (to == from || to->engine != from->engine)
        return fail(err, DS4_EINVAL, "a fork is from another session of the same engine");
    const int at = reachable(from, MAX(n, 0));
    const int there = to->lender == from ? MIN(to->filled, at - at % MARK_UNIT) : 0;
    session_clear(to);
    if (reached)
        *reached = at;
    if (!at)
        return true;
    copy_state(to, from, there, at);
    to->has_logits = at == from->length && from->has_logits;
    to->logits = to->own_logits;
    if (to->has_logits)
        memcpy(to->logits, from->logits, (size_t)to->engine->shape.vocab * sizeof *to->logits);
    return device_did(to->engine, err);
}
