/* scheduler.c - the engine's thread: a queue, slots, and steps.
 *
 * The mutex is for the queue and for what others may see of the slots; it is
 * never held while the engine works. Only this thread touches the slots. */
#include "scheduler.h"
#include "slots.h"
#include "wire.h"
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* A canceled job is let go of between steps, so a step must be short; and
 * shorter where others wait for their next token. The first one is small, since
 * nobody knows how long it takes. */
enum { STEP_MS = 200, SHARED_STEP_MS = 100, LEAST_ROWS = 16, FIRST_ROWS = 32 };

/* In tokens: a short prompt may go before a long one, once. */
enum { SHORT_PROMPT = 1024, LONG_PROMPT = 8192 };

struct Scheduler {
    SchedulerOptions opt;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work;

    /* under the mutex */
    Job *queue, **queue_end;
    int n_queue;
    bool finishing, over, unloaded;
    int64_t save_until_ns;
    Job **shown; /* [n_shown] by slot: what it is busy with */
    int n_shown;
    double answer_s;    /* that an answer had its slot, lately; 0: not known */
    const Job *running; /* for whose sake the step that runs is long; NULL: nobody's */

    /* the engine's thread's */
    ds4_engine *engine, *words; /* words: NULL, the vocabulary is the engine's own */
    Store *store;
    TokenTrie *trie;
    const ds4_vocab *vocab;
    GenerateEnv env;
    Slots slots;
    ds4_work *step; /* [slots] */
    Slot **of_step;
    int max_rows, max_active, turn;
    bool canceled;    /* the last step was */
    double rows_a_ms; /* of prompts, lately; 0: not known */
    ds4_err failure;

    atomic_llong alive_ns;
    atomic_bool busy;
};

static void *run(void *arg);

/* ---- from other threads --------------------------------------------------------- */

Scheduler *scheduler_start(const SchedulerOptions *opt, ds4_err *err)
{
    sigset_t all, before;
    Scheduler *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, DS4_ENOMEM, "no memory for a scheduler");
        return NULL;
    }
    s->opt = *opt;
    s->queue_end = &s->queue;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    /* Signals are the network thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return s;
    fail(err, DS4_ENOMEM, "no thread for the engine: %s", strerror(rc));
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    free(s);
    return NULL;
}

void scheduler_finish(Scheduler *s, int64_t until_ns)
{
    pthread_mutex_lock(&s->mutex);
    s->finishing = true;
    s->save_until_ns = until_ns;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

void scheduler_free(Scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mutex);
    s->finishing = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->thread, NULL);
    while (s->queue) {
        Job *next = s->queue->next;
        job_drop(s->queue);
        s->queue = next;
    }
    ds4_engine_close(s->engine);
    trie_free(s->trie);
    ds4_engine_close(s->words);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    free(s->shown);
    free(s->step);
    free(s->of_step);
    free(s);
}

/* Answers at one time. */
static int most_active(const Scheduler *s)
{
    return s->opt.max_active > 0 ? MIN(s->opt.max_active, s->n_shown) : s->n_shown;
}

/* Until so many have gone into slots, under the mutex. Before the first answer has
 * ended, a second each. */
static int wait_seconds(const Scheduler *s, int waiting)
{
    double each = s->answer_s > 0 ? s->answer_s / MAX(most_active(s), 1) : 1;
    return (int)MIN(MAX(ceil(waiting * each), 1), 86400);
}

/* Slots that nobody is in, under the mutex: who comes for one passes through the
 * queue, but does not wait. */
static int free_slots(const Scheduler *s)
{
    int most = most_active(s);
    for (int i = 0; i < s->n_shown; i++)
        most -= s->shown[i] != NULL;
    return MAX(most, 0);
}

bool scheduler_submit(Scheduler *s, Job *j, ApiError *e)
{
    pthread_mutex_lock(&s->mutex);
    int waiting = MAX(s->n_queue - free_slots(s), 0), wait_s = wait_seconds(s, waiting);
    bool closed = s->finishing || s->over, full = waiting >= s->opt.max_queue;
    if (!closed && !full) {
        job_hold(j);
        atomic_store(&j->stage, STAGE_QUEUED);
        j->next = NULL;
        *s->queue_end = j;
        s->queue_end = &j->next;
        s->n_queue++;
        metrics_queue_length(s->opt.metrics, s->n_queue);
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->mutex);
    if (closed)
        return api_fail(e, 503, "shutting_down", NULL, "The server is shutting down");
    if (full) {
        api_fail(e, 429, "queue_full", NULL, "%d requests are waiting already", waiting);
        e->retry_after = MIN(wait_s, 30);
        return false;
    }
    return true;
}

void scheduler_cancel(Scheduler *s, Job *j)
{
    bool found = false;
    pthread_mutex_lock(&s->mutex);
    for (Job **at = &s->queue; *at; at = &(*at)->next) {
        if (*at != j)
            continue;
        *at = j->next;
        if (!*at)
            s->queue_end = at;
        s->n_queue--;
        metrics_queue_length(s->opt.metrics, s->n_queue);
        found = true;
        break;
    }
    /* Others of that step lose what was done of it, and need not wait for the rest. */
    if (s->running == j)
        ds4_cancel(s->engine);
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
    if (found)
        job_drop(j);
}

void scheduler_wake(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

bool scheduler_is_unloaded(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool unloaded = s->unloaded;
    pthread_mutex_unlock(&s->mutex);
    return unloaded;
}

double scheduler_silence(Scheduler *s)
{
    if (!atomic_load(&s->busy))
        return 0;
    return (double)(clock_ns() - atomic_load(&s->alive_ns)) / 1e9;
}

SchedulerCounts scheduler_counts(Scheduler *s)
{
    SchedulerCounts c = { 0 };
    pthread_mutex_lock(&s->mutex);
    c.slots = s->n_shown;
    c.queued = s->n_queue;
    for (int i = 0; i < s->n_shown; i++)
        c.busy += s->shown[i] != NULL;
    pthread_mutex_unlock(&s->mutex);
    return c;
}

bool scheduler_is_busy(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool busy = s->n_queue >= free_slots(s);
    pthread_mutex_unlock(&s->mutex);
    return busy;
}

/* ---- what others may see ----------------------------------------------------------- */

/* A client's name for something may be of any length, and the mutex is held. */
static void put_text(Bytes *out, const char *name, Str value)
{
    enum { MOST_SHOWN = 200 };
    bytes_printf(out, ",\"%s\":", name);
    if (value.n)
        wire_str(out, (Str){ value.p, MIN(value.n, (size_t)MOST_SHOWN) });
    else
        bytes_str(out, "null");
}

static void put_job(Bytes *out, const Job *j)
{
    double seconds = (double)(clock_ns() - j->accepted_ns) / 1e9;
    int generated = atomic_load(&j->generated);
    int64_t first = j->first_ns;
    double decoding = first ? (double)(clock_ns() - first) / 1e9 : 0;
    bytes_printf(out, ",\"state\":\"%s\",\"request\":\"%s\"", job_stage_name(j),
                 j->turn.request_id);
    put_text(out, "session", j->turn.session);
    put_text(out, "agent", j->turn.agent);
    bytes_printf(out,
                 ",\"client\":\"%s\",\"prompt_tokens\":%zu,\"cached\":%d,\"processed\":%d,"
                 "\"generated\":%d,\"tok_s\":",
                 client_name(j->client), j->prompt.n, atomic_load(&j->cached),
                 atomic_load(&j->processed), generated);
    wire_real(out, decoding > 0 ? generated / decoding : 0, 1);
    bytes_str(out, ",\"age_s\":");
    wire_real(out, seconds, 1);
}

void scheduler_status(Scheduler *s, Bytes *out)
{
    int i = 0;
    pthread_mutex_lock(&s->mutex);
    bytes_str(out, "\"slots\":[");
    for (; i < s->n_shown; i++) {
        bytes_printf(out, "%s{\"id\":%d", i ? "," : "", i);
        if (s->shown[i])
            put_job(out, s->shown[i]);
        else
            bytes_str(out, ",\"state\":\"idle\"");
        bytes_byte(out, '}');
    }
    bytes_str(out, "],\"queue\":[");
    i = 0;
    for (const Job *j = s->queue; j; j = j->next, i++) {
        bytes_printf(out, "%s{\"place\":%d", i ? "," : "", i);
        put_job(out, j);
        bytes_printf(out, ",\"eta_s\":%d}", wait_seconds(s, i + 1));
    }
    bytes_byte(out, ']');
    pthread_mutex_unlock(&s->mutex);
}

static void show(Scheduler *s, const Slot *slot, Job *j)
{
    pthread_mutex_lock(&s->mutex);
    s->shown[slot - s->slots.slot] = j;
    pthread_mutex_unlock(&s->mutex);
}

static void count_slots(Scheduler *s)
{
    int n[N_SLOT_STATES] = { 0 };
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *slot = &s->slots.slot[i];
        enum SlotState state = slot->decoding                      ? SLOT_DECODE
                               : slot->job                         ? SLOT_PREFILL
                               : ds4_session_length(slot->session) ? SLOT_IDLE
                                                                   : SLOT_FREE;
        n[state]++;
    }
    for (int i = 0; i < N_SLOT_STATES; i++)
        metrics_slots(s->opt.metrics, (enum SlotState)i, n[i]);
}

/* ---- leaving and entering slots ------------------------------------------------------- */

static void leave(Scheduler *s, Slot *slot)
{
    double seconds = (double)(clock_ns() - slot->job->started_ns) / 1e9;
    pthread_mutex_lock(&s->mutex);
    s->answer_s += (seconds - s->answer_s) * (s->answer_s > 0 ? 0.2 : 1);
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&slot->job->stage, STAGE_OVER);
    show(s, slot, NULL);
    slot_leave(slot);
    count_slots(s);
}

static void log_choice(Scheduler *s, const Job *j, const SlotChoice *c)
{
    char place[64];
    Bytes b = { 0 };
    bytes_printf(&b, "%s cache: %d of %zu prompt tokens reused in slot %d", j->turn.request_id,
                 c->reused, j->prompt.n, (int)(c->slot - s->slots.slot));
    if (c->had.n) {
        slots_place(j, s->vocab, c->common, place);
        bytes_printf(&b, "; of %d that it held the first %d agree, up to %s, where it had ",
                     c->resident, c->common, place);
        wire_str(&b, bytes_view(&c->had));
    } else if (c->evicts) {
        bytes_printf(&b, "; %d of another conversation were given up", c->resident);
    }
    bytes_byte(&b, 0);
    if (!b.failed)
        s->opt.log(s->opt.user, b.p);
    bytes_release(&b);
}

static void enter(Scheduler *s, Job *j)
{
    SlotChoice c;
    ApiError e = { 0 };
    if (!slots_take(&s->slots, j, s->vocab, &c))
        return; /* not before a slot was seen to be free */
    Slot *slot = c.slot;
    atomic_store(&j->stage, STAGE_PREFILL);
    atomic_store(&j->cached, c.reused);
    atomic_store(&j->processed, c.reused);
    j->started_ns = clock_ns();
    show(s, slot, j);
    log_choice(s, j, &c);
    bytes_release(&c.had);
    metrics_left_queue(s->opt.metrics, (double)(j->started_ns - j->prepared_ns) / 1e9);
    metrics_prompt(s->opt.metrics, c.reused, c.source, c.miss);
    if (c.evicts)
        metrics_evicted(s->opt.metrics, EVICT_SLOT_NEEDED);
    slot->answer = generation_new(j, &s->env, &e);
    if (!slot->answer) {
        job_fail(j, &e);
        leave(s, slot);
    }
    count_slots(s);
}

static int active(const Scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->slots.n; i++)
        n += s->slots.slot[i].job != NULL;
    return n;
}

/* Who is first; but a long prompt lets one short one go before it. */
static Job **first_in_queue(Scheduler *s)
{
    Job *first = s->queue;
    if (!first || first->overtaken || first->prompt.n <= LONG_PROMPT)
        return &s->queue;
    for (Job **at = &first->next; *at; at = &(*at)->next) {
        if ((*at)->prompt.n > SHORT_PROMPT)
            continue;
        first->overtaken = true;
        return at;
    }
    return &s->queue;
}

/* The next of the queue; NULL: none, or nobody can be taken on. */
static Job *next_in_queue(Scheduler *s)
{
    if (active(s) >= s->max_active)
        return NULL;
    pthread_mutex_lock(&s->mutex);
    Job **at = first_in_queue(s), *j = *at;
    if (j) {
        *at = j->next;
        if (!*at)
            s->queue_end = at;
        s->n_queue--;
        metrics_queue_length(s->opt.metrics, s->n_queue);
    }
    pthread_mutex_unlock(&s->mutex);
    return j;
}

static void admit(Scheduler *s)
{
    for (Job *j; (j = next_in_queue(s)) != NULL;)
        enter(s, j);
}

/* Whoever waits has no slot. */
static bool is_waited_for(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    bool waits = s->queue != NULL;
    pthread_mutex_unlock(&s->mutex);
    return waits;
}

static void drop_canceled(Scheduler *s)
{
    bool wanted = is_waited_for(s) && active(s) >= s->max_active;
    for (int i = 0; i < s->slots.n; i++) {
        Slot *slot = &s->slots.slot[i];
        if (!slot->job)
            continue;
        if (job_is_lost(slot->job, wanted))
            wanted = false; /* one slot is enough for now */
        if (job_canceled(slot->job))
            leave(s, slot);
    }
}

/* ---- steps -------------------------------------------------------------------------------- */

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
    int left = (int)slot->job->prompt.n - slot->fed, room = s->max_rows - others;
    double ms = others ? SHARED_STEP_MS : STEP_MS;
    int rows = s->rows_a_ms > 0 ? (int)fmin(s->rows_a_ms * ms, room) : FIRST_ROWS;
    rows = MIN(MIN(MAX(rows, LEAST_ROWS), room), left);
    return ds4_session_stride(slot->session, rows);
}

static int left_of(const Slot *slot) { return (int)slot->job->prompt.n - slot->fed; }

/* Whose prompt is next: by turns, but one that is nearly read goes first. */
static Slot *next_prompt(Scheduler *s)
{
    Slot *next = NULL;
    for (int k = 1; k <= s->slots.n; k++) {
        Slot *slot = &s->slots.slot[(s->turn + k) % s->slots.n];
        if (!slot->job || slot->decoding)
            continue;
        bool sooner = next && left_of(slot) <= SHORT_PROMPT && left_of(slot) < left_of(next);
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
    if (*loop) {
        char line[256];
        snprintf(line, sizeof line, "%s loop: %s; the answer was ended", slot->job->turn.request_id,
                 loop);
        s->opt.log(s->opt.user, line);
    }
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
    char line[320];
    int first = n > decoding && err->code != DS4_EDEVICE ? decoding : 0;
    api_fail(&e, 500, "server_error", NULL, "%s", err->msg);
    snprintf(line, sizeof line, "a step of %d failed: %s", n, err->msg);
    s->opt.log(s->opt.user, line);
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
static void step(Scheduler *s)
{
    ds4_err err = { 0 };
    int decoding = add_decoding(s), n = decoding;
    if (!decoding || !s->canceled)
        n = add_prompt(s, decoding);
    s->canceled = false;
    if (!n)
        return;
    int64_t start = clock_ns();
    set_running(s, n == 1 || n > decoding ? s->of_step[n - 1]->job : NULL);
    bool ok = ds4_step(s->engine, s->step, n, &err);
    set_running(s, NULL);
    if (!ok) {
        s->canceled = err.code == DS4_ECANCELED;
        if (!s->canceled)
            fail_step(s, decoding, n, &err);
        return;
    }
    if (n > decoding)
        learn_speed(s, s->step[n - 1].n, (double)(clock_ns() - start) / 1e6);
    for (int i = 0; i < n; i++)
        go_on(s, &s->step[i], s->of_step[i]);
}

/* ---- the thread ----------------------------------------------------------------------------- */

static bool open_engine(Scheduler *s, ds4_err *err)
{
    const SchedulerOptions *o = &s->opt;
    if (o->open_words && !(s->words = o->open_words(o->user, err)))
        return false;
    s->engine = o->open(o->user, err);
    if (!s->engine)
        return false;
    ds4_info info = ds4_engine_info(s->engine);
    int n = info.sessions;
    s->vocab = ds4_engine_vocab(s->words ? s->words : s->engine);
    s->max_rows = info.max_rows;
    s->max_active = o->max_active > 0 ? MIN(o->max_active, n) : n;
    s->env = (GenerateEnv){ s->vocab, o->recall, o->metrics, info.context, o->loop_guard };
    s->step = calloc((size_t)n + 1, sizeof *s->step);
    s->of_step = calloc((size_t)n + 1, sizeof *s->of_step);
    s->trie = trie_new(s->vocab, err);
    if (!s->trie || !slots_open(&s->slots, s->engine, n, err))
        return false;
    metrics_kv_bytes(o->metrics, KV_LIVE, info.kv_bytes * (uint64_t)n);
    pthread_mutex_lock(&s->mutex);
    s->shown = calloc((size_t)n, sizeof *s->shown);
    s->n_shown = s->shown ? n : 0;
    pthread_mutex_unlock(&s->mutex);
    count_slots(s);
    if (!s->step || !s->of_step || !s->shown)
        return fail(err, DS4_ENOMEM, "no memory for steps of %d", n);
    return o->ready(o->user, s->engine, s->vocab, s->trie, &s->store, err);
}

/* False: all is over. */
static bool wait_for_work(Scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    while (!s->queue && !active(s) && !s->finishing) {
        atomic_store(&s->busy, false);
        pthread_cond_wait(&s->work, &s->mutex);
    }
    bool more = active(s) > 0 || (s->queue && !s->finishing);
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&s->alive_ns, clock_ns());
    atomic_store(&s->busy, true);
    return more;
}

static void *run(void *arg)
{
    Scheduler *s = arg;
    ds4_err err = { 0 };
    bool opened = open_engine(s, &err);
    while (opened && s->failure.code == DS4_OK && wait_for_work(s)) {
        drop_canceled(s);
        admit(s);
        step(s);
    }
    pthread_mutex_lock(&s->mutex);
    s->over = true;
    s->n_shown = 0;
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&s->busy, false);
    slots_close(&s->slots);
    bool failed = !opened || s->failure.code != DS4_OK;
    s->opt.ended(s->opt.user, failed, opened ? &s->failure : &err);
    return NULL;
}
