/* unload.c - the engine is opened, closed when nobody asks, and opened again.
 *
 * Weights and slots go, the vocabulary stays: workers tokenize at any time, and
 * what they made must mean the same afterwards. So it is that of an engine
 * which computes nothing. States go to the store before. */
#include "scheduler_parts.h"
#include <stdlib.h>

/* That saving may take before the engine is closed. */
enum { SAVE_S = 30 };

static bool take_memory(Scheduler *s, int n, ds4_err *err)
{
    s->step = calloc((size_t)n + 1, sizeof *s->step);
    s->of_step = calloc((size_t)n + 1, sizeof *s->of_step);
    pthread_mutex_lock(&s->mutex);
    s->shown = calloc((size_t)n, sizeof *s->shown);
    s->n_shown = s->shown ? n : 0;
    for (int i = 0; i < s->n_shown; i++)
        s->shown[i].hosts = true;
    pthread_mutex_unlock(&s->mutex);
    return (s->step && s->of_step && s->shown) ||
           fail(err, DS4_ENOMEM, "no memory for steps of %d", n);
}

static void set_engine(Scheduler *s, ds4_engine *e, bool unloaded)
{
    pthread_mutex_lock(&s->mutex);
    s->engine = e;
    s->unloaded = unloaded;
    pthread_mutex_unlock(&s->mutex);
    s->idle_since_ns = clock_ns();
}

static void count_memory(Scheduler *s)
{
    uint64_t each = s->engine ? ds4_engine_info(s->engine).kv_bytes : 0;
    metrics_kv_bytes(s->opt.metrics, KV_LIVE, each * (uint64_t)s->slots.n);
    count_slots(s);
}

/* ---- the first time ------------------------------------------------------------------ */

static bool open_both(Scheduler *s, ds4_err *err)
{
    const SchedulerOptions *o = &s->opt;
    if (o->idle_unload_s > 0 && o->open_words && !(s->words = o->open_words(o->user, err)))
        return false;
    s->engine = o->open(o->user, err);
    if (!s->engine)
        return false;
    s->vocab = ds4_engine_vocab(s->words ? s->words : s->engine);
    s->idle_since_ns = clock_ns();
    return !s->words || ds4_engine_fingerprint(s->engine, s->fingerprint, err);
}

bool engine_first(Scheduler *s, ds4_err *err)
{
    const SchedulerOptions *o = &s->opt;
    if (!open_both(s, err))
        return false;
    ds4_info info = ds4_engine_info(s->engine);
    int n = info.sessions;
    s->max_rows = info.max_rows;
    s->max_active = o->max_active > 0 ? MIN(o->max_active, n) : n;
    s->env = (GenerateEnv){ s->vocab, o->recall, o->metrics, info.context, o->loop_guard };
    s->trie = trie_new(s->vocab, err);
    s->past = s->trie ? past_new(err) : NULL;
    if (!s->past || !slots_open(&s->slots, s->engine, n, err) || !take_memory(s, n, err))
        return false;
    count_memory(s);
    return o->ready(o->user, s->engine, s->vocab, s->trie, &s->store, err);
}

/* ---- closing --------------------------------------------------------------------------- */

void unload_if_idle(Scheduler *s)
{
    double idle_s = (double)(clock_ns() - s->idle_since_ns) / 1e9;
    if (!s->words || !s->engine || active(s) || idle_s < s->opt.idle_unload_s)
        return;
    save_all(s, clock_ns() + (int64_t)SAVE_S * 1000000000);
    for (int i = 0; i < s->slots.n; i++) {
        past_keep(s->past, &s->slots.slot[i]);
        ds4_session_rewind(s->slots.slot[i].session, 0);
        show(s, &s->slots.slot[i]);
    }
    ds4_engine *e = s->engine;
    close_slots(s);
    set_engine(s, NULL, true);
    ds4_engine_close(e);
    count_memory(s);
    metrics_unloaded(s->opt.metrics);
    scheduler_log(s, "unloaded after %.0f s without work; the next request loads the model again",
                  idle_s);
}

/* ---- opening again ------------------------------------------------------------------------ */

/* The same file, and as much room: what was promised to clients must hold. */
static bool is_same(Scheduler *s, ds4_engine *e, ds4_err *err)
{
    uint8_t now[32];
    ds4_info info = ds4_engine_info(e);
    if (!ds4_engine_fingerprint(e, now, err))
        return false;
    if (memcmp(now, s->fingerprint, sizeof now) != 0)
        return fail(err, DS4_EFORMAT, "the model's file is another one than at the start");
    if (info.sessions != s->n_shown || info.context < s->env.context)
        return fail(err, DS4_ENOMEM, "%d slots of %d tokens fit now, %d of %d are needed",
                    info.sessions, info.context, s->n_shown, s->env.context);
    return true;
}

static bool open_again(Scheduler *s, ds4_err *err)
{
    ds4_engine *e = s->opt.open(s->opt.user, err);
    if (e && is_same(s, e, err) && slots_open(&s->slots, e, s->n_shown, err)) {
        set_engine(s, e, false);
        s->max_rows = ds4_engine_info(e).max_rows;
        return true;
    }
    slots_close(&s->slots);
    ds4_engine_close(e);
    return false;
}

bool engine_again(Scheduler *s)
{
    ds4_err err = { 0 };
    ApiError e = { 0 };
    int64_t start = clock_ns();
    scheduler_log(s, "loading the model again");
    if (open_again(s, &err)) {
        count_memory(s);
        scheduler_log(s, "loaded again in %.1f s", (double)(clock_ns() - start) / 1e9);
        return true;
    }
    scheduler_log(s, "the model could not be loaded again: %s", err.msg);
    api_fail(&e, 503, "loading", NULL, "The model could not be loaded again: %s", err.msg);
    e.retry_after = 5;
    refuse_queue(s, &e);
    return false;
}
