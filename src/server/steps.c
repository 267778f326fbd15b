/* steps.c - one row of each answer that is being decoded, and a piece of one prompt. */
#include "scheduler_parts.h"
#include <math.h>

/* A canceled job is let go of between steps, so a step must be short; and
 * shorter where others wait for their next token. The first one is small, since
 * nobody knows how long it takes. */
enum { STEP_MS = 200, SHARED_STEP_MS = 100, LEAST_ROWS = 16, FIRST_ROWS = 32 };

/* In tokens: what is left of a prompt that goes before others. */
enum { SHORT_REST = 1024 };

static int add_decoding(Scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->slots.n && n < s->max_rows; i++) {
        Slot *slot = &s->slots.slot[i];
        if (!slot->job || !slot->decoding)
            continue;
        s->step[n] = (ds4_work){ slot->session, &slot->next, 1, 1 };
        s->of_step[n++] = slot;
    }
    return n;
}

/* How many rows of a prompt to take at once, beside so many others. */
static int piece_of(const Scheduler *s, const Slot *slot, int others)
{
    int stop = stop_for_others(s, slot), room = s->max_rows - others;
    int left = (stop ? stop : (int)slot->job->prompt.n) - slot->fed;
    double ms = others ? SHARED_STEP_MS : STEP_MS;
    int rows = s->rows_a_ms > 0 ? (int)fmin(s->rows_a_ms * ms, room) : FIRST_ROWS;
    rows = MIN(MIN(MAX(rows, LEAST_ROWS), room), left);
    return ds4_session_stride(slot->session, rows);
}

static int left_of(const Slot *slot) { return (int)slot->job->prompt.n - slot->fed; }

/* Whose prompt is next: by turns, but one that is nearly read or runs beside a
 * conversation goes first. */
static Slot *next_prompt(Scheduler *s)
{
    Slot *next = NULL;
    for (int k = 1; k <= s->slots.n; k++) {
        Slot *slot = &s->slots.slot[(s->turn + k) % s->slots.n];
        if (!slot->job || slot->decoding || slot->entering)
            continue;
        bool small = left_of(slot) <= SHORT_REST || slot->side;
        bool sooner = next && small && left_of(slot) < left_of(next);
        if (!next || sooner)
            next = slot;
    }
    return next;
}

/* One prompt a step. */
static int add_prompt(Scheduler *s, int n)
{
    Slot *slot = n < s->max_rows ? next_prompt(s) : NULL;
    if (!slot)
        return n;
    int rows = piece_of(s, slot, n);
    s->turn = (int)(slot - s->slots.slot);
    s->step[n] =
        (ds4_work){ slot->session, slot->job->prompt.id + slot->fed, rows, rows == left_of(slot) };
    s->of_step[n] = slot;
    return n + 1;
}

static void tell_progress(Slot *slot, double ms)
{
    const Event e = {
        .kind = EV_PROGRESS,
        .done = slot->fed,
        .usage = { .prompt = (int)slot->job->prompt.n, .cached = slot->cached, .prompt_ms = ms }
    };
    atomic_store(&slot->job->processed, slot->fed);
    job_tell(slot->job, &e);
}

/* The prompt is read: what comes next is the answer. */
static void begin_answer(Scheduler *s, Slot *slot, double ms)
{
    Job *j = slot->job;
    metrics_prefilled(s->opt.metrics, slot->fed - slot->cached, ms / 1e3);
    generation_begin(slot->answer, slot->cached, ms);
    slot->decoding = true;
    saving_turn(s, slot, false);
    pthread_mutex_lock(&s->mutex); /* others read it */
    j->first_ns = clock_ns();
    pthread_mutex_unlock(&s->mutex);
    metrics_first_token(s->opt.metrics, (int)j->prompt.n, slot->cached,
                        (double)(j->first_ns - j->accepted_ns) / 1e9);
    count_slots(s);
}

/* That the prompt is read was all that was asked for. */
static void end_prompt(Scheduler *s, Slot *slot)
{
    const Event e = { .kind = EV_FINISH,
                      .finish = FINISH_STOP,
                      .usage = generation_usage(slot->answer) };
    job_tell(slot->job, &e);
    leave(s, slot);
}

static void end_answer(Scheduler *s, Slot *slot)
{
    Usage u = generation_usage(slot->answer);
    const char *loop = generation_loop(slot->answer);
    metrics_decode_ended(s->opt.metrics, u.completion, u.completion_ms / 1e3);
    if (*loop)
        scheduler_log(s, "%s loop: %s; the answer was ended", slot->job->turn.request_id, loop);
    leave(s, slot);
}

static void go_on(Scheduler *s, const ds4_work *w, Slot *slot)
{
    if (!slot->decoding) {
        double ms = (double)(clock_ns() - slot->begun_ns) / 1e6;
        slot->fed += w->n;
        tell_progress(slot, ms);
        if (slot->fed < (int)slot->job->prompt.n)
            return;
        begin_answer(s, slot, ms);
    }
    if (slot->job->prompt_only)
        end_prompt(s, slot);
    else if (!generation_next(slot->answer, slot->session, &slot->next))
        end_answer(s, slot);
}

static void learn_speed(Scheduler *s, int rows, double ms)
{
    enum { TOO_FEW = 8 };
    if (rows < TOO_FEW || ms <= 0)
        return;
    double now = rows / ms;
    s->rows_a_ms = s->rows_a_ms > 0 ? 0.5 * (s->rows_a_ms + now) : now;
}

/* A step fails as a whole, and changes nothing. Where it had a piece of a prompt
 * that is what was wrong with it, unless the next step without it fails, too. */
static void fail_step(Scheduler *s, int decoding, int n, const ds4_err *err)
{
    ApiError e = { 0 };
    int first = n > decoding && err->code != DS4_EDEVICE ? decoding : 0;
    api_fail(&e, 500, "server_error", NULL, "%s", err->msg);
    scheduler_log(s, "a step of %d failed: %s", n, err->msg);
    for (int i = first; i < n; i++) {
        job_fail(s->of_step[i]->job, &e);
        leave(s, s->of_step[i]);
    }
    if (err->code == DS4_EDEVICE)
        s->failure = *err;
}

static void set_running(Scheduler *s, const Job *j)
{
    pthread_mutex_lock(&s->mutex);
    s->running = j;
    pthread_mutex_unlock(&s->mutex);
}

/* A step that was canceled has changed nothing: it is done again, without the
 * job that was. And first without any prompt, or who sends and cancels one after
 * the other would keep all others from their next token. */
bool step(Scheduler *s)
{
    ds4_err err = { 0 };
    int decoding = add_decoding(s), n = decoding;
    if (!decoding || !s->canceled)
        n = add_prompt(s, decoding);
    s->canceled = false;
    if (!n)
        return false;
    int64_t start = clock_ns();
    set_running(s, n == 1 || n > decoding ? s->of_step[n - 1]->job : NULL);
    bool ok = ds4_step(s->engine, s->step, n, &err);
    set_running(s, NULL);
    if (!ok) {
        s->canceled = err.code == DS4_ECANCELED;
        if (!s->canceled)
            fail_step(s, decoding, n, &err);
        return true;
    }
    if (n > decoding)
        learn_speed(s, s->step[n - 1].n, (double)(clock_ns() - start) / 1e6);
    for (int i = 0; i < n; i++)
        go_on(s, &s->step[i], s->of_step[i]);
    return true;
}
