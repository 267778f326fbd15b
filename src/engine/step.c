/* step.c - one step of the model for any number of sessions: all of them
 * advance, or none does. */
#include "engine.h"
#include <stdlib.h>

bool tokens_check(const ds4_engine *e, const int32_t *tokens, int n, ds4_err *err)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= e->shape.vocab)
            return fail(err, DS4_EINVAL, "token %d is %d, the vocabulary has %d", i, tokens[i],
                        e->shape.vocab);
    return true;
}

static bool check_item(const ds4_engine *e, const ds4_work *w, ds4_err *err)
{
    const ds4_session *s = w->session;

    if (s->engine != e)
        return fail(err, DS4_EINVAL, "a session of another engine");
    if (w->n < 1 || w->n_logits < 0 || w->n_logits > w->n)
        return fail(err, DS4_EINVAL, "%d rows of logits of %d tokens", w->n_logits, w->n);
    if (w->n > e->set.context - s->length)
        return fail(err, DS4_ECONTEXT, "%d tokens do not fit: %d of %d are used", w->n, s->length,
                    e->set.context);
    return tokens_check(e, w->tokens, w->n, err);
}

static bool check_work(const ds4_engine *e, const ds4_work *work, int n, ds4_err *err)
{
    int64_t rows = 0, outs = 0;

    if (n < 0 || n > e->set.sessions)
        return fail(err, DS4_EINVAL, "%d items of work for %d sessions", n, e->set.sessions);
    for (int i = 0; i < n; i++) {
        if (!check_item(e, &work[i], err))
            return false;
        for (int j = 0; j < i; j++)
            if (work[j].session == work[i].session)
                return fail(err, DS4_EINVAL, "items %d and %d are of the same session", j, i);
        rows += work[i].n;
        outs += work[i].n_logits;
    }
    if (rows > e->set.max_rows)
        return fail(err, DS4_EINVAL, "%lld rows in a step, the most is %d", (long long)rows,
                    e->set.max_rows);
    return outs <= e->set.max_logits ||
           fail(err, DS4_EINVAL, "%lld rows of logits in a step, the most is %d", (long long)outs,
                e->set.max_logits);
}

static Step layout(ds4_engine *e, const ds4_work *work, int n)
{
    Step step = { .span = e->span, .token = e->token, .out = e->out };

    for (int i = 0; i < n; i++) {
        const ds4_work *w = &work[i];
        e->span[i] = (Span){
            .slot = w->session->slot, .pos = w->session->length, .n = w->n, .row = step.n_rows
        };
        memcpy(e->token + step.n_rows, w->tokens, (size_t)w->n * sizeof *e->token);
        session_at(w->session, w->session->length); /* the step writes rows beyond */
        e->first_logits[i] = step.n_out;
        for (int k = w->n - w->n_logits; k < w->n; k++)
            e->out[step.n_out++] = step.n_rows + k;
        step.n_rows += w->n;
    }
    e->first_logits[n] = step.n_out;
    step.n_spans = n;
    return step;
}

static float *logits_row(const ds4_engine *e, int row)
{
    return e->logits + (size_t)row * (size_t)e->shape.vocab;
}

static void advance(ds4_session *s, const ds4_work *w, float *last)
{
    marks_pass(s, w->n > 1);
    memcpy(s->token + s->length, w->tokens, (size_t)w->n * sizeof *s->token);
    session_at(s, s->length + w->n);
    s->has_logits = last != NULL;
    s->logits = last;
    marks_reach(s);
}

static bool takes_part(const ds4_session *s, const ds4_work *work, int n)
{
    for (int i = 0; i < n; i++)
        if (work[i].session == s)
            return true;
    return false;
}

/* The last step's logits go with the next one: who has some there and takes no part in it
 * moves them. Those who do need them no more. */
static void keep_logits(ds4_engine *e, const ds4_work *work, int n)
{
    for (int i = 0; i < e->set.sessions; i++) {
        ds4_session *s = e->session[i];
        if (!s || !s->has_logits || s->logits == s->own_logits || takes_part(s, work, n))
            continue;
        memcpy(s->own_logits, s->logits, (size_t)e->shape.vocab * sizeof *s->logits);
        s->logits = s->own_logits;
    }
}

/* A step that failed at its end has spoiled them. */
static void lose_logits(const ds4_work *work, int n)
{
    for (int i = 0; i < n; i++)
        if (work[i].session->logits != work[i].session->own_logits)
            work[i].session->has_logits = false;
}

static bool run_step(ds4_engine *e, const Step *step, const ds4_work *work, ds4_err *err)
{
    ds4_err local = { 0 };

    e->has_stepped = true;
    for (int i = 0; i < step->n_spans; i++)
        kv_protect(&e->kv, e->be, step->span[i].slot, step->span[i].pos, step->span[i].n);
    if (forward(&e->run, step, &local))
        return true;
    for (int i = 0; i < step->n_spans; i++)
        kv_undo(&e->kv, e->be, step->span[i].slot, step->span[i].pos, step->span[i].n);
    if (local.code == DS4_ECANCELED)
        atomic_store(&e->cancel, false);
    if (e->run.at_logits)
        lose_logits(work, step->n_spans);
    if (err)
        *err = local;
    return false;
}

bool ds4_step(ds4_engine *e, const ds4_work *work, int n, ds4_err *err)
{
    e->n_items = 0;
    if (!check_work(e, work, n, err))
        return false;
    if (!n)
        return true;
    const Step step = layout(e, work, n);
    keep_logits(e, work, n);
    if (!run_step(e, &step, work, err))
        return false;
    e->logits = e->be->op->seen(e->be, e->run.logits);
    e->n_items = n;
    for (int i = 0; i < n; i++)
        advance(work[i].session, &work[i],
                work[i].n_logits ? logits_row(e, e->first_logits[i + 1] - 1) : NULL);
    return true;
}

const float *ds4_step_logits(const ds4_engine *e, int item, int i)
{
    if (item < 0 || item >= e->n_items || i < 0 ||
        i >= e->first_logits[item + 1] - e->first_logits[item])
        return NULL;
    return logits_row(e, e->first_logits[item] + i);
}
