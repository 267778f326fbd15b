/* status.c - what other threads may see of slots and the queue. */
#include "scheduler_parts.h"
#include "side.h"
#include "wire.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Answers at one time. */
static int most_active(const Scheduler *s)
{
    return s->opt.max_active > 0 ? MIN(s->opt.max_active, s->n_shown) : s->n_shown;
}

/* Until so many have gone into slots, under the mutex. Before the first answer has
 * ended, a second each. */
int wait_seconds(const Scheduler *s, int waiting)
{
    double each = s->answer_s > 0 ? s->answer_s / MAX(most_active(s), 1) : 1;
    return (int)MIN(MAX(ceil(waiting * each), 1), 86400);
}

/* Slots that nobody is in, under the mutex: who comes for one passes through the
 * queue, but does not wait. */
int free_slots(const Scheduler *s)
{
    int most = most_active(s);
    for (int i = 0; i < s->n_shown; i++)
        most -= s->shown[i].job != NULL;
    return MAX(most, 0);
}

bool has_no_slot(const Scheduler *s, const Job *j)
{
    uint64_t session = key_of(&j->turn).session;
    bool runs = false, here = false, hosts = !s->n_shown;
    for (int i = 0; i < s->n_shown; i++) {
        const Shown *slot = &s->shown[i];
        hosts |= slot->hosts || (!slot->job && is_left(slot->used_ns));
        here |= session && slot->session == session;
        runs |= session && slot->job && key_of(&slot->job->turn).session == session;
    }
    return !hosts && is_side_request(j, runs) && is_surely_side(j, here);
}

SchedulerCounts scheduler_counts(Scheduler *s)
{
    SchedulerCounts c = { 0 };
    pthread_mutex_lock(&s->mutex);
    c.slots = s->n_shown;
    c.queued = s->n_queue;
    for (int i = 0; i < s->n_shown; i++)
        c.busy += s->shown[i].job != NULL;
    pthread_mutex_unlock(&s->mutex);
    return c;
}

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

/* entering: its prompt has not found its beginning yet. */
static void put_job(Bytes *out, const Job *j, bool entering)
{
    double seconds = (double)(clock_ns() - j->accepted_ns) / 1e9;
    int generated = atomic_load(&j->generated);
    int64_t first = j->first_ns;
    double decoding = first ? (double)(clock_ns() - first) / 1e9 : 0;
    bytes_printf(out, ",\"state\":\"%s\",\"request\":\"%s\"",
                 entering ? "restore" : job_stage_name(j), j->turn.request_id);
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

static void put_slot(Bytes *out, const Shown *slot, int i)
{
    bytes_printf(out, "%s{\"id\":%d", i ? "," : "", i);
    if (slot->job)
        put_job(out, slot->job, slot->entering);
    else
        bytes_str(out, ",\"state\":\"idle\"");
    bytes_printf(out, ",\"tokens\":%d", slot->tokens);
    if (slot->prompt)
        bytes_printf(out, ",\"reuse\":%s", slot->prompt);
    bytes_byte(out, '}');
}

void scheduler_status(Scheduler *s, Bytes *out)
{
    int i = 0;
    pthread_mutex_lock(&s->mutex);
    bytes_printf(out, "\"unloaded\":%s,\"slots\":[", s->unloaded ? "true" : "false");
    for (; i < s->n_shown; i++)
        put_slot(out, &s->shown[i], i);
    bytes_str(out, "],\"queue\":[");
    i = 0;
    for (const Job *j = s->queue; j; j = j->next, i++) {
        bytes_printf(out, "%s{\"place\":%d", i ? "," : "", i);
        put_job(out, j, false);
        bytes_printf(out, ",\"eta_s\":%d}", wait_seconds(s, i + 1));
    }
    bytes_byte(out, ']');
    pthread_mutex_unlock(&s->mutex);
}

/* ---- from the engine's thread ------------------------------------------------------ */

void show(Scheduler *s, const Slot *slot)
{
    Shown *shown = &s->shown[slot - s->slots.slot];
    bool hosts = slot_hosts(s, slot);
    pthread_mutex_lock(&s->mutex);
    shown->hosts = hosts;
    shown->used_ns = slot->used_ns;
    shown->session = slot->scratch ? 0 : slot->key.session;
    shown->job = slot->job;
    shown->entering = slot->entering;
    shown->tokens = ds4_session_length(slot->session);
    pthread_mutex_unlock(&s->mutex);
}

void show_prompt(Scheduler *s, const Slot *slot)
{
    Shown *shown = &s->shown[slot - s->slots.slot];
    Bytes b = { 0 };
    explain_json(&slot->why, slot->job, &b);
    bytes_byte(&b, 0);
    pthread_mutex_lock(&s->mutex);
    if (!b.failed) {
        char *before = shown->prompt;
        shown->prompt = b.p;
        b = (Bytes){ .p = before };
    }
    pthread_mutex_unlock(&s->mutex);
    bytes_release(&b);
    show(s, slot);
}

void count_slots(Scheduler *s)
{
    int n[N_SLOT_STATES] = { 0 };
    for (int i = 0; i < s->slots.n; i++) {
        const Slot *slot = &s->slots.slot[i];
        enum SlotState state = slot->decoding                      ? SLOT_DECODE
                               : slot->entering                    ? SLOT_RESTORE
                               : slot->job                         ? SLOT_PREFILL
                               : ds4_session_length(slot->session) ? SLOT_IDLE
                                                                   : SLOT_FREE;
        n[state]++;
    }
    for (int i = 0; i < N_SLOT_STATES; i++)
        metrics_slots(s->opt.metrics, (enum SlotState)i, n[i]);
}

void scheduler_log(Scheduler *s, const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    s->opt.log(s->opt.user, line);
}
