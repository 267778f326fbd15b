/* marks.c - the lengths a session can go back to: copies of what of its state
 * cannot be cut back.
 *
 * A mark is taken wherever a step ends at a multiple of 128, which is every
 * 128 tokens while decoding; feeding stops at multiples of 2,048 and at the
 * last multiple of 128 for it. When there are more than MAX_MARKS, the one
 * goes whose absence costs least: marks thin out with their distance. */
#include "engine.h"
#include <stdlib.h>

static void remove_mark(ds4_session *s, int i)
{
    free(s->mark[i].state);
    s->n_marks--;
    memmove(&s->mark[i], &s->mark[i + 1], (size_t)(s->n_marks - i) * sizeof *s->mark);
}

/* The mark whose gap is smallest, seen from the end; never the newest. */
static int least_useful(const ds4_session *s)
{
    const int newest = s->mark[s->n_marks - 1].n;
    double best = 0;
    int at = 0;

    for (int i = 0; i < s->n_marks - 1; i++) {
        int gap = s->mark[i + 1].n - (i ? s->mark[i - 1].n : 0);
        double cost = (double)gap / (double)(newest - s->mark[i].n + MARK_UNIT);
        if (!i || cost < best) {
            best = cost;
            at = i;
        }
    }
    return at;
}

void marks_take(ds4_session *s)
{
    const Kv *kv = &s->engine->kv;

    if (!s->length || (s->n_marks && s->mark[s->n_marks - 1].n == s->length))
        return;
    void *state = malloc((size_t)kv_mark_bytes(kv, s->length));
    if (!state)
        return; /* a mark saves time; nothing depends on it */
    kv_mark_save(kv, s->engine->be, s->slot, s->length, state);
    s->mark[s->n_marks++] = (Mark){ s->length, state };
    if (s->n_marks > MAX_MARKS)
        remove_mark(s, least_useful(s));
}

void marks_pass(ds4_session *s)
{
    if (s->length % MARK_UNIT == 0)
        marks_take(s);
}

int marks_back(ds4_session *s, int n)
{
    while (s->n_marks && s->mark[s->n_marks - 1].n > n)
        remove_mark(s, s->n_marks - 1);
    if (!s->n_marks)
        return 0;
    const Mark *m = &s->mark[s->n_marks - 1];
    kv_mark_load(&s->engine->kv, s->engine->be, s->slot, m->n, m->state);
    return m->n;
}

void marks_clear(ds4_session *s)
{
    while (s->n_marks)
        remove_mark(s, s->n_marks - 1);
}

int marks_stride(const ds4_session *s, int n)
{
    const int span = MARK_SPAN - s->length % MARK_SPAN;
    const int last = (s->length + n) / MARK_UNIT * MARK_UNIT - s->length;
    int stride = MIN(MIN(n, s->engine->set.max_rows), span);

    return last > 0 ? MIN(stride, last) : stride;
}
