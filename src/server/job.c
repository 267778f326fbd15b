/* job.c - a job's life, and what its threads tell each other through it. */
#include "job.h"
#include <stdlib.h>

/* Bytes of events: where somebody reads them, and where nobody does. */
#define MOST_WAITING ((size_t)8 << 20)
#define MOST_UNHEARD ((size_t)1 << 20)

/* So much longer a prompt is read that nobody waits for. */
#define READING_NS ((int64_t)600 * 1000000000)

Job *job_new(const Dialect *d, enum Api api)
{
    Job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->dialect = d;
    atomic_init(&j->refs, 1);
    atomic_init(&j->stage, STAGE_PREPARING);
    turn_init(&j->turn, api);
    events_init(&j->events, MOST_WAITING);
    j->accepted_ns = clock_ns();
    return j;
}

void job_hold(Job *j) { atomic_fetch_add(&j->refs, 1); }

void job_drop(Job *j)
{
    if (!j || atomic_fetch_sub(&j->refs, 1) > 1)
        return;
    grammar_free(j->grammar);
    tokens_release(&j->prompt);
    events_release(&j->events);
    turn_release(&j->turn);
    bytes_release(&j->body);
    arena_release(&j->arena);
    free(j);
}

void job_cancel(Job *j, const char *why)
{
    const char *none = NULL;
    atomic_compare_exchange_strong(&j->canceled, &none, why);
}

const char *job_canceled(const Job *j) { return atomic_load(&j->canceled); }

/* Who changes left_ns from a time to -1 has ended it, who changes it to 0 has it back. */
void job_abandon(Job *j, const char *why, int64_t grace_ns)
{
    j->left_why = why;
    events_limit(&j->events, MOST_UNHEARD);
    atomic_store(&j->left_ns, clock_ns() + grace_ns);
}

bool job_adopt(Job *j)
{
    long long left = atomic_load(&j->left_ns);
    if (left <= 0 || !atomic_compare_exchange_strong(&j->left_ns, &left, 0))
        return false;
    events_limit(&j->events, MOST_WAITING);
    return !job_canceled(j);
}

/* left: until then it has time in any case but that its slot is wanted. */
static bool yields(const Job *j, long long left, enum JobCompany company)
{
    bool reads = atomic_load(&j->stage) == STAGE_PREFILL;
    if (company == JOB_ALONE && reads)
        left += READING_NS;
    return company == JOB_WANTED || clock_ns() >= left;
}

bool job_yields(const Job *j, enum JobCompany company)
{
    long long left = atomic_load(&j->left_ns);
    return left > 0 && yields(j, left, company);
}

bool job_is_lost(Job *j, enum JobCompany company)
{
    long long left = atomic_load(&j->left_ns);
    if (left <= 0 || !yields(j, left, company) ||
        !atomic_compare_exchange_strong(&j->left_ns, &left, -1))
        return false;
    job_cancel(j, j->left_why);
    return true;
}

void job_tell(Job *j, const Event *e)
{
    if (!events_put(&j->events, e))
        job_cancel(j, atomic_load(&j->left_ns) ? j->left_why : "slow_client");
    if (!atomic_exchange(&j->woken, true))
        j->wake(j->user, j);
}

void job_fail(Job *j, const ApiError *e)
{
    const Event event = { .kind = EV_ERROR, .error = e };
    job_tell(j, &event);
}

const char *job_stage_name(const Job *j)
{
    static const char *const names[] = { [STAGE_PREPARING] = "preparing",
                                         [STAGE_QUEUED] = "queued",
                                         [STAGE_PREFILL] = "prefill",
                                         [STAGE_THINKING] = "think",
                                         [STAGE_TEXT] = "text",
                                         [STAGE_TOOL] = "tool",
                                         [STAGE_OVER] = "over" };
    return names[atomic_load(&j->stage)];
}

const char *job_header(void *job, const char *name)
{
    const Job *j = job;
    for (size_t i = 0; i < j->n_headers; i++)
        if (strcmp(j->headers[i].name, name) == 0)
            return j->headers[i].value;
    return NULL;
}
