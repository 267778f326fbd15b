/* marks.c - the lengths a session can go back to: copies of what of its state
 * cannot be cut back.
 *
 * A mark is taken wherever a step ends at a multiple of 128, which is every
 * 128 tokens while decoding; feeding stops at multiples of 2,048 and at the
 * last multiple of 128 for it. When there are more than MAX_MARKS, the one
 * goes whose absence costs least: marks thin out with their distance.
 *
 * People edit, retry and branch where a turn ends, and stores cut at every
 * 2,048th token, so the marks there count for more than those in the middle of
 * an answer or a prompt. A turn ends where prompts and decoding meet.
 *
 * Their memory is the engine's: a block for each mark of a session, and one for
 * the mark at an odd length that a loaded session or a fork begins with. The
 * blocks of marks that there are not lie behind those that there are. */
#include "engine.h"

enum { LASTING = 8 }; /* how much more such a mark counts */

int marks_most(const Settings *set) { return MIN(set->context / MARK_UNIT, (int)MAX_MARKS) + 1; }

/* Of the largest at a multiple of 128: where all ratios divide 128 they are equal. */
uint64_t marks_block(const Settings *set, const Shape *s)
{
    uint64_t most = 0;

    for (int i = 1; i <= MIN(set->context / MARK_UNIT, UINT8_MAX + 1); i++)
        most = MAX(most, kv_mark_plan(s, i * MARK_UNIT));
    return most;
}

uint64_t marks_bytes(const Settings *set, const Shape *s)
{
    return marks_block(set, s) * (uint64_t)marks_most(set) + kv_mark_most(s);
}

void marks_init(ds4_session *s, char *memory, uint64_t block)
{
    const int most = marks_most(&s->engine->set);

    for (int i = 0; i < most; i++)
        s->mark[i].block = memory + (uint64_t)i * block;
    s->odd_mark = memory + (uint64_t)most * block;
}

static void *state_of(const ds4_session *s, const Mark *m)
{
    return m->n % MARK_UNIT ? s->odd_mark : m->block;
}

static void remove_mark(ds4_session *s, int i)
{
    const Mark gone = { .block = s->mark[i].block };

    s->n_marks--;
    memmove(&s->mark[i], &s->mark[i + 1], (size_t)(s->n_marks - i) * sizeof *s->mark);
    s->mark[s->n_marks] = gone;
}

/* The mark whose gap is smallest, seen from the end; never the newest. */
static int least_useful(const ds4_session *s)
{
    const int newest = s->mark[s->n_marks - 1].n;
    double best = 0;
    int at = 0;

    for (int i = 0; i < s->n_marks - 1; i++) {
        const Mark *m = &s->mark[i];
        int gap = s->mark[i + 1].n - (i ? s->mark[i - 1].n : 0);
        double cost = (double)gap / (double)(newest - m->n + MARK_UNIT);
        if (m->ends_turn || m->n % MARK_SPAN == 0)
            cost *= LASTING;
        if (!i || cost < best) {
            best = cost;
            at = i;
        }
    }
    return at;
}

/* The place of a new one at the session's length; NULL: it is there already. */
static void *add_mark(ds4_session *s)
{
    if (!s->length || (s->n_marks && s->mark[s->n_marks - 1].n == s->length))
        return NULL;
    Mark *m = &s->mark[s->n_marks++];
    m->n = s->length;
    m->ends_turn = false;
    void *state = state_of(s, m);
    if (s->n_marks > MAX_MARKS)
        remove_mark(s, least_useful(s));
    return state;
}

void marks_take(ds4_session *s)
{
    void *state = add_mark(s);

    if (state)
        kv_mark_save(&s->engine->kv, s->engine->be, s->slot, s->length, state);
}

void marks_put(ds4_session *s, const void *mark)
{
    const size_t bytes = (size_t)kv_mark_bytes(&s->engine->kv, s->length);
    void *state = add_mark(s);

    if (state)
        memcpy(state, mark, bytes);
    kv_mark_load(&s->engine->kv, s->engine->be, s->slot, s->length, mark);
}

void marks_pass(ds4_session *s, bool prompt)
{
    if (prompt != s->in_prompt && s->n_marks)
        s->mark[s->n_marks - 1].ends_turn = true;
    s->in_prompt = prompt;
}

void marks_reach(ds4_session *s)
{
    if (s->length % MARK_UNIT == 0)
        marks_take(s);
}

const void *marks_find(const ds4_session *s, int n)
{
    for (int i = 0; i < s->n_marks; i++)
        if (s->mark[i].n == n)
            return state_of(s, &s->mark[i]);
    return NULL;
}

void marks_drop(ds4_session *s, int n)
{
    while (s->n_marks && s->mark[s->n_marks - 1].n > n)
        remove_mark(s, s->n_marks - 1);
}

int marks_back(ds4_session *s, int n)
{
    marks_drop(s, n);
    if (!s->n_marks)
        return 0;
    const Mark *m = &s->mark[s->n_marks - 1];
    kv_mark_load(&s->engine->kv, s->engine->be, s->slot, m->n, state_of(s, m));
    return m->n;
}

int marks_stride(const ds4_session *s, int n)
{
    const int span = MARK_SPAN - s->length % MARK_SPAN;
    const int last = (s->length + n) / MARK_UNIT * MARK_UNIT - s->length;
    int stride = MIN(MIN(n, s->engine->set.max_rows), span);

    return last > 0 ? MIN(stride, last) : stride;
}
