/* nfa.c - an automaton made deterministic: a state is the set of states that it
 * may be in. Steps are bounded, as is the number of sets. */
#include "nfa.h"
#include <stdlib.h>

#define MAX_STEPS 60000000u

typedef struct {
    const Nfa *nfa;
    uint32_t *set, n_set; /* the set being built */
    uint32_t *stack;
    uint32_t *mark, round;
    uint64_t steps, sorted, spent; /* sorted: what putting sets into order was */
    Bytes pool;                    /* the sets found, one after the other */
    Bytes at;                      /* uint32_t[n + 1] where each begins */
    uint32_t n, *slot, mask;
    bool no_memory;
} Builder;

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Add s and what is reached from it without a byte; true: a match is. */
static bool close_over(Builder *b, uint32_t s, bool at_start, bool at_end)
{
    size_t n = 0;
    bool match = false;
    if (b->mark[s] != b->round)
        b->stack[n++] = s;
    b->mark[s] = b->round;
    while (n) {
        const NfaState *x = &b->nfa->state[b->stack[--n]];
        b->steps++;
        match |= x->op == OP_MATCH;
        /* Anchors stay in the set: the text's end is known only later. */
        if (x->op == OP_BYTES || x->op == OP_MATCH || x->op == OP_AT_END)
            b->set[b->n_set++] = (uint32_t)(x - b->nfa->state);
        bool free = x->op == OP_EPS || x->op == OP_SPLIT || (x->op == OP_AT_START && at_start) ||
                    (x->op == OP_AT_END && at_end);
        uint32_t to[2] = { free ? x->a : 0, x->op == OP_SPLIT ? x->b : 0 };
        for (int i = 0; i < 2; i++) {
            if (to[i] && b->mark[to[i]] != b->round) {
                b->mark[to[i]] = b->round;
                b->stack[n++] = to[i];
            }
        }
    }
    return match;
}

static Str set_bytes(const Builder *b, uint32_t i)
{
    uint32_t from, to;
    memcpy(&from, b->at.p + (size_t)i * sizeof from, sizeof from);
    memcpy(&to, b->at.p + (size_t)(i + 1) * sizeof to, sizeof to);
    return (Str){ b->pool.p + from, to - from };
}

static uint32_t hash_set(Str s)
{
    uint64_t h = 0;
    for (size_t i = 0; i < s.n; i += sizeof(uint32_t)) {
        uint32_t state;
        memcpy(&state, s.p + i, sizeof state);
        h = (h ^ state) * 0x9e3779b97f4a7c15u;
    }
    return (uint32_t)(h >> 32);
}

/* Where a set is, or would be. */
static uint32_t *slot_of(const Builder *b, Str s)
{
    uint32_t i = hash_set(s) & b->mask;
    while (b->slot[i] && !str_eq(set_bytes(b, b->slot[i]), s))
        i = (i + 1) & b->mask;
    return &b->slot[i];
}

static bool more_slots(Builder *b)
{
    uint32_t mask = 4 * (b->mask + 1) - 1;
    uint32_t *slot = calloc((size_t)mask + 1, sizeof *slot);
    b->no_memory = !slot;
    if (!slot)
        return false;
    free(b->slot);
    b->slot = slot;
    b->mask = mask;
    for (uint32_t i = 1; i < b->n; i++)
        *slot_of(b, set_bytes(b, i)) = i;
    return true;
}

/* The number of the set now built; a new one if need be, UINT32_MAX: too many. */
static uint32_t intern(Builder *b)
{
    if (b->n_set == 0)
        return DFA_DEAD;
    qsort(b->set, b->n_set, sizeof *b->set, by_number);
    b->sorted += 4 * (uint64_t)b->n_set;
    Str s = { (const char *)b->set, b->n_set * sizeof *b->set };
    if (b->n > b->mask / 2 && !more_slots(b))
        return UINT32_MAX;
    uint32_t *slot = slot_of(b, s);
    if (*slot)
        return *slot;
    if (b->n >= DFA_MAX_STATES || b->steps > MAX_STEPS || b->pool.n > UINT32_MAX / 2)
        return UINT32_MAX;
    bytes_put(&b->pool, s.p, s.n);
    uint32_t end = (uint32_t)b->pool.n;
    bytes_put(&b->at, &end, sizeof end);
    b->no_memory = b->pool.failed || b->at.failed;
    if (b->no_memory)
        return UINT32_MAX;
    return *slot = b->n++;
}

static uint32_t move(Builder *b, uint32_t from, int byte)
{
    b->round++;
    b->n_set = 0;
    for (size_t i = 0; i < set_bytes(b, from).n / sizeof(uint32_t); i++) {
        uint32_t s;
        memcpy(&s, set_bytes(b, from).p + i * sizeof s, sizeof s);
        const NfaState *x = &b->nfa->state[s];
        b->steps++;
        if (x->op == OP_BYTES && x->lo <= byte && byte <= x->hi)
            close_over(b, x->a, false, false);
    }
    return intern(b);
}

/* Whether the text may end in this set. `start`: no byte has been read. */
static bool ends(Builder *b, uint32_t set, bool start)
{
    bool match = false;
    b->round++;
    for (size_t i = 0; i < set_bytes(b, set).n / sizeof(uint32_t) && !match; i++) {
        uint32_t s;
        memcpy(&s, set_bytes(b, set).p + i * sizeof s, sizeof s);
        b->n_set = 0;
        match = close_over(b, s, start, true);
    }
    return match;
}

static void byte_classes(Dfa *d, const Nfa *nfa, int sample[256])
{
    bool edge[257] = { false };
    for (uint32_t i = 0; i < nfa->n; i++) {
        if (nfa->state[i].op == OP_BYTES && nfa->state[i].lo <= nfa->state[i].hi)
            edge[nfa->state[i].lo] = edge[nfa->state[i].hi + 1] = true;
    }
    d->n_classes = 0;
    for (int c = 0; c < 256; c++) {
        if (c == 0 || edge[c])
            sample[d->n_classes++] = c;
        d->class_of[c] = (uint8_t)(d->n_classes - 1);
    }
}

static bool builder_init(Builder *b, const Nfa *nfa)
{
    uint32_t zero[2] = { 0, 0 };
    *b = (Builder){ .nfa = nfa, .n = 1, .mask = 255 };
    b->set = malloc((nfa->n + 1) * sizeof *b->set);
    b->stack = malloc((nfa->n + 1) * sizeof *b->stack);
    b->mark = calloc(nfa->n + 1, sizeof *b->mark);
    b->slot = calloc((size_t)b->mask + 1, sizeof *b->slot);
    bytes_put(&b->at, zero, sizeof zero);
    return b->set && b->stack && b->mark && b->slot && !b->at.failed;
}

static void builder_release(Builder *b)
{
    free(b->set);
    free(b->stack);
    free(b->mark);
    free(b->slot);
    bytes_release(&b->pool);
    bytes_release(&b->at);
}

/* The steps since it was last asked. */
static bool spend(Builder *b, Effort *effort, ds4_err *err)
{
    uint64_t steps = b->steps + b->sorted - b->spent;
    b->spent += steps;
    return effort_spend(effort, steps, err);
}

static bool too_many(const Builder *b, ds4_err *err)
{
    return b->no_memory ? fail(err, DS4_ENOMEM, "regular expression: no memory")
                        : fail(err, DS4_EINVAL, "a regular expression needs more than %d states",
                               DFA_MAX_STATES);
}

bool nfa_determinise(Dfa *out, const Nfa *nfa, uint32_t start, Effort *effort, ds4_err *err)
{
    Builder b;
    Bytes rows = { 0 };
    int sample[256];
    bool ok = builder_init(&b, nfa) ? true : fail(err, DS4_ENOMEM, "regular expression: no memory");
    byte_classes(out, nfa, sample);
    if (ok) {
        b.round++;
        close_over(&b, start, true, false);
        ok = intern(&b) != UINT32_MAX || too_many(&b, err);
    }
    for (uint32_t i = 1; ok && i < b.n; i++) {
        for (uint32_t c = 0; c < out->n_classes && ok; c++) {
            uint32_t to = move(&b, i, sample[c]);
            bytes_put(&rows, &to, sizeof to);
            b.no_memory |= rows.failed;
            ok = (to != UINT32_MAX && !rows.failed) || too_many(&b, err);
            ok = ok && spend(&b, effort, err);
        }
    }
    ok = ok && dfa_alloc(out, b.n, err);
    for (uint32_t i = 1; ok && i < b.n; i++)
        out->accept[i] = ends(&b, i, i == DFA_START);
    if (ok && rows.n)
        memcpy(out->next + out->n_classes, rows.p, rows.n);
    builder_release(&b);
    bytes_release(&rows);
    ok = ok && dfa_finish(out, effort, err);
    if (!ok)
        dfa_release(out);
    return ok;
}
