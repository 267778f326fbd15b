/* automaton_tables.c - equal frames are one frame, and equal sets one set. */
#include "automaton_parts.h"
#include <stdlib.h>

/* ---- frames ------------------------------------------------------------------------- */

static uint32_t frame_hash(const Frame *f)
{
    uint64_t h = f->data * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 29) ^ ((uint64_t)f->node << 32 | f->parent)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 31) ^ f->count) * 0x94d049bb133111ebu;
    return (uint32_t)(h >> 32);
}

static bool frames_grow(Frames *t)
{
    uint32_t cap = t->cap ? t->cap * 2 : 1024;
    if (cap > HARD_FRAMES)
        return false;
    Frame *frame = realloc(t->frame, cap * sizeof *frame);
    if (frame)
        t->frame = frame;
    uint32_t *seen = realloc(t->seen, cap * sizeof *seen);
    if (seen)
        t->seen = seen;
    uint32_t *slot = calloc((size_t)cap * 2, sizeof *slot);
    if (!frame || !seen || !slot) {
        free(slot);
        t->no_memory = true;
        return false;
    }
    memset(seen + t->cap, 0, (cap - t->cap) * sizeof *seen);
    free(t->slot);
    t->slot = slot;
    t->mask = cap * 2 - 1;
    t->cap = cap;
    for (uint32_t i = 1; i < t->n; i++) {
        uint32_t k = frame_hash(&t->frame[i]) & t->mask;
        while (slot[k])
            k = (k + 1) & t->mask;
        slot[k] = i;
    }
    return true;
}

/* The number of a frame; 0: no room. */
uint32_t intern_frame(Frames *t, Frame f)
{
    if (t->n == t->cap && !frames_grow(t))
        return 0;
    f.depth = f.parent ? t->frame[f.parent].depth + 1 : 1;
    uint32_t i = frame_hash(&f) & t->mask;
    for (; t->slot[i]; i = (i + 1) & t->mask) {
        const Frame *x = &t->frame[t->slot[i]];
        if (x->node == f.node && x->parent == f.parent && x->count == f.count && x->data == f.data)
            return t->slot[i];
    }
    t->frame[t->n] = f;
    return t->slot[i] = t->n++;
}

void frames_release(Frames *t)
{
    free(t->frame);
    free(t->seen);
    free(t->slot);
    *t = (Frames){ 0 };
}

bool frames_init(Frames *t)
{
    *t = (Frames){ .n = 1 };
    if (!frames_grow(t))
        return false;
    t->frame[0] = (Frame){ 0 };
    return true;
}

/* ---- sets --------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Twice the slots; those of the sets that are there are found again. */
static bool sets_grow(Sets *t)
{
    uint32_t cap = t->cap ? t->cap * 2 : 256;
    if (cap > HARD_SETS)
        return false;
    Set *set = realloc(t->set, cap * sizeof *set);
    uint32_t *slot = calloc((size_t)cap * 2, sizeof *slot);
    if (set)
        t->set = set;
    if (!set || !slot) {
        free(slot);
        t->no_memory = true;
        return false;
    }
    free(t->slot);
    t->slot = slot;
    t->mask = cap * 2 - 1;
    t->cap = cap;
    for (uint32_t i = 1; i < t->n; i++) {
        uint32_t k = set[i].hash & t->mask;
        while (slot[k])
            k = (k + 1) & t->mask;
        slot[k] = i;
    }
    return true;
}

void sets_release(Sets *t)
{
    for (uint32_t i = 0; t->set && i < t->n; i++) {
        free(t->set[i].next);
        free(t->set[i].mask);
        free(t->set[i].near_mask);
    }
    free(t->set);
    free(t->slot);
    bytes_release(&t->pool);
    *t = (Sets){ 0 };
}

bool sets_init(Sets *t)
{
    *t = (Sets){ 0 };
    if (!sets_grow(t))
        return false;
    t->set[t->n++] = (Set){ 0 }; /* SET_DEAD */
    return true;
}

static void raise_sure(const Automaton *a, Set *s, uint32_t id)
{
    const Frame *f = &a->frames.frame[id];
    const Node *n = &a->p->node[f->node];
    if (n->kind != N_DFA && n->kind != N_CHARS)
        return;
    const Dfa *d = &a->p->dfa[n->a];
    for (int t = 0; t < N_TIERS; t++) {
        uint32_t chars = d->sure[t][f->data];
        if (n->kind == N_CHARS && n->max != NO_LIMIT)
            chars = MIN(chars, n->max - f->count);
        s->sure[t] = (uint8_t)MAX(s->sure[t], chars);
    }
}

static bool same_set(const Automaton *a, const Set *s, uint32_t hash)
{
    const char *frames = a->sets.pool.p;
    return s->hash == hash && s->n == a->n_found && s->complete == a->complete &&
           (s->n == 0 || (frames && memcmp(frames + s->at * sizeof *a->found, a->found,
                                           s->n * sizeof *a->found) == 0));
}

/* The set of the frames found; SET_DEAD also when there is no room for it. */
SetId intern_set(Automaton *a)
{
    Sets *t = &a->sets;
    uint32_t n = a->n_found, hash = a->complete;
    if (n == 0 && !a->complete)
        return SET_DEAD;
    if (n > 1)
        qsort(a->found, n, sizeof *a->found, by_number);
    for (uint32_t i = 0; i < n; i++)
        hash = (hash ^ a->found[i]) * 0x9e3779b1u ^ (hash >> 15);
    if (t->n == t->cap && !sets_grow(t))
        return SET_DEAD;
    uint32_t i = hash & t->mask;
    for (; t->slot[i]; i = (i + 1) & t->mask) {
        if (same_set(a, &t->set[t->slot[i]], hash))
            return t->slot[i];
    }
    Set s = { .at = (uint32_t)(t->pool.n / sizeof *a->found),
              .n = n,
              .hash = hash,
              .distant = UNKNOWN,
              .complete = a->complete };
    bytes_put(&t->pool, a->found, n * sizeof *a->found);
    if (t->pool.failed) {
        t->no_memory = true;
        return SET_DEAD;
    }
    for (uint32_t k = 0; k < n; k++)
        raise_sure(a, &s, a->found[k]);
    t->set[t->n] = s;
    return t->slot[i] = t->n++;
}
