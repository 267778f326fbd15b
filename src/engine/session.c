/* session.c - one timeline of tokens: feeding it, going back in it. */
#include "engine.h"

ds4_session *ds4_session_open(ds4_engine *e, ds4_err *err)
{
    int slot = 0;

    while (slot < e->set.sessions && e->session[slot])
        slot++;
    if (slot == e->set.sessions) {
        fail(err, DS4_EINVAL, "all %d sessions are open", e->set.sessions);
        return NULL;
    }
    session_clear(&e->seat[slot]);
    return e->session[slot] = &e->seat[slot];
}

void ds4_session_close(ds4_session *s)
{
    if (s)
        s->engine->session[s->slot] = NULL;
}

int ds4_session_length(const ds4_session *s) { return s->length; }

const int32_t *ds4_session_tokens(const ds4_session *s) { return s->token; }

void session_at(ds4_session *s, int n)
{
    s->length = s->kept = s->filled = n;
    s->lender = NULL;
}

void session_jump(ds4_session *s, int n)
{
    session_at(s, n);
    s->has_logits = s->in_prompt = false;
}

void session_clear(ds4_session *s)
{
    marks_drop(s, 0);
    session_jump(s, 0);
}

static bool feed_check(const ds4_session *s, int start, const int32_t *tokens, int n, ds4_err *err)
{
    if (n < 0)
        return fail(err, DS4_EINVAL, "%d tokens", n);
    if (n > s->engine->set.context - start)
        return fail(err, DS4_ECONTEXT, "%d tokens do not fit: %d of %d are used", n, start,
                    s->engine->set.context);
    return tokens_check(s->engine, tokens, n, err);
}

bool ds4_session_feed(ds4_session *s, const int32_t *tokens, int n, ds4_err *err)
{
    ds4_engine *e = s->engine;

    if (!feed_check(s, s->length, tokens, n, err))
        return false;
    for (int done = 0; done < n;) {
        const int stride = marks_stride(s, n - done);
        const ds4_work w = { s, tokens + done, stride, done + stride == n };
        if (!ds4_step(e, &w, 1, err))
            return false;
        done += stride;
        if (e->progress && n > 1)
            e->progress(e->user, "prefill", (uint64_t)done, (uint64_t)n);
    }
    return true;
}

static int common_prefix(const ds4_session *s, const int32_t *tokens, int n)
{
    int i = 0;

    while (i < n && i < s->length && s->token[i] == tokens[i])
        i++;
    return i;
}

bool ds4_session_sync(ds4_session *s, const int32_t *tokens, int n, int *reused, ds4_err *err)
{
    if (!feed_check(s, 0, tokens, n, err))
        return false;
    int keep = common_prefix(s, tokens, n);
    if (keep == n && !(n == s->length && s->has_logits))
        keep = MAX(0, n - 1); /* the last token is evaluated for its logits */
    keep = ds4_session_rewind(s, keep);
    if (reused)
        *reused = keep;
    return ds4_session_feed(s, tokens + keep, n - keep, err);
}

/* More than the context holds would be refused anyway; here it must not overflow. */
int ds4_session_stride(const ds4_session *s, int n)
{
    return n > 0 ? marks_stride(s, MIN(n, s->engine->set.context)) : 0;
}

int ds4_session_rewind(ds4_session *s, int n)
{
    if (n >= s->length)
        return s->length;
    session_jump(s, marks_back(s, n));
    return s->length;
}
