/* automaton.c - the pushdown automaton that runs a program. */
#include "automaton.h"
#include <stdlib.h>

/* Beyond the soft bounds all is forgotten between tokens; the hard ones stop
 * a step: what would have followed then counts as impossible. */
enum { SOFT_FRAMES = 1 << 18, HARD_FRAMES = 1 << 20 };
enum { SOFT_SETS = 1 << 13, HARD_SETS = 1 << 16 };
enum { MAX_SET = 4096, MAX_MASKS = 512 };
#define UNKNOWN UINT32_MAX
/* A token counts in front of a limit only so many characters. */
enum { REACH = TIER_CHARS + 2 };

typedef struct {
    uint64_t data; /* bytes read, state of a DFA, or the set of members */
    NodeId node;
    uint32_t parent; /* frame 0 is below all others */
    uint32_t count;  /* characters, members, items */
    uint32_t depth;
} Frame;

typedef struct {
    uint32_t at, n; /* its frames in the pool, in order */
    uint32_t hash;
    SetId *next;                /* [N_SYMBOLS] or NULL */
    uint32_t *mask, *near_mask; /* [words] or NULL; near: without the long tokens */
    SetId distant;              /* the set with counts far from limits made equal; UNKNOWN */
    bool complete;
    uint8_t sure[N_TIERS];
} Set;

typedef struct {
    Frame *frame;
    uint32_t n, cap;
    uint32_t *slot, mask; /* open addressing, 0: empty */
    uint32_t *seen;       /* [cap] the round that met it */
} Frames;

typedef struct {
    Set *set;
    uint32_t n, cap;
    uint32_t *slot, mask;
    Bytes pool; /* uint32_t */
} Sets;

struct Automaton {
    const Program *p;
    const TokenTrie *trie;
    Frames frames;
    Sets sets;
    uint32_t round;
    uint32_t *work; /* [HARD_FRAMES] frames to be looked at */
    uint32_t n_work, cap_work;
    uint32_t found[MAX_SET], n_found;
    bool complete; /* of the set being built */
    uint32_t n_masks;
    SetId **pin;
    size_t n_pins;
};

static SetId intern_set(Automaton *a);

/* ---- frames ---------------------------------------------------------------------------- */

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
static uint32_t intern_frame(Frames *t, Frame f)
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

static void frames_release(Frames *t)
{
    free(t->frame);
    free(t->seen);
    free(t->slot);
    *t = (Frames){ 0 };
}

static bool frames_init(Frames *t)
{
    *t = (Frames){ .n = 1 };
    if (!frames_grow(t))
        return false;
    t->frame[0] = (Frame){ 0 };
    return true;
}

/* ---- what is reached without a byte ------------------------------------------------------ */

static uint32_t depth_of(const Automaton *a, uint32_t frame)
{
    return a->frames.frame[frame].depth;
}

/* Whether a rule can be completed on top of a frame of this depth. */
static bool fits(const Automaton *a, NodeId node, uint32_t depth)
{
    return depth + a->p->need[node] <= MAX_FRAMES;
}

static uint32_t frame(Automaton *a, NodeId node, uint64_t data, uint32_t count, uint32_t parent)
{
    return intern_frame(&a->frames,
                        (Frame){ .node = node, .data = data, .count = count, .parent = parent });
}

static void look_at(Automaton *a, uint32_t f)
{
    if (f == 0 || a->frames.seen[f] == a->round || a->n_work == a->cap_work)
        return;
    a->frames.seen[f] = a->round;
    a->work[a->n_work++] = f;
}

static uint64_t first_data(const Program *p, NodeId node)
{
    return p->node[node].kind == N_DFA || p->node[node].kind == N_CHARS ? DFA_START : 0;
}

/* Run a node above parent; 0 as a parent means that there was no room for it. */
static void enter(Automaton *a, NodeId node, uint32_t parent)
{
    if (parent && fits(a, node, depth_of(a, parent)))
        look_at(a, frame(a, node, first_data(a->p, node), 0, parent));
}

static void keep(Automaton *a, uint32_t f)
{
    if (a->n_found < MAX_SET)
        a->found[a->n_found++] = f;
}

/* Counts beyond which nothing depends on them are one count. */
static uint32_t counted(uint32_t count, uint32_t min, uint32_t max, uint32_t other)
{
    uint32_t most = max != NO_LIMIT ? max : MAX(min, other);
    return MIN(count + 1, MAX(most, 1u));
}

/* ---- members of an object ---------------------------------------------------------------- */

typedef struct {
    const ObjectNode *o;
    uint64_t used;           /* beyond OBJECT_SET members: how many have been passed */
    uint32_t count, missing; /* required ones that are not there */
    uint32_t depth;          /* of the frame that a member stands on */
} Members;

static Members members_of(const Automaton *a, const Frame *f)
{
    const ObjectNode *o = &a->p->object[a->p->node[f->node].a];
    Members m = { o, f->data, f->count, 0, f->depth };
    if (o->n <= OBJECT_SET) {
        m.missing = (uint32_t)__builtin_popcountll(o->need & ~f->data);
    } else {
        for (uint32_t i = (uint32_t)f->data; i < o->n; i++)
            m.missing += o->required[i];
    }
    return m;
}

static bool may_add(const Automaton *a, const Members *m, uint32_t i)
{
    const ObjectNode *o = m->o;
    bool free = o->n <= OBJECT_SET ? !(m->used >> i & 1) : i >= m->used;
    return free && o->member[i] != NODE_NONE && fits(a, o->member[i], m->depth) &&
           (o->required[i] || o->max - m->count > m->missing);
}

static bool may_add_extra(const Automaton *a, const Members *m)
{
    const ObjectNode *o = m->o;
    return o->extra != NODE_NONE && fits(a, o->extra, m->depth) && o->max - m->count > m->missing &&
           (o->n <= OBJECT_SET || m->missing == 0);
}

/* The end of the members that may come next: in a fixed order none behind the
 * first required one. */
static uint32_t members_end(const Members *m)
{
    const ObjectNode *o = m->o;
    uint32_t i = o->n <= OBJECT_SET ? o->n : (uint32_t)m->used;
    while (i < o->n && !o->required[i])
        i++;
    return MIN(i + 1, o->n);
}

static bool may_go_on(const Automaton *a, const Members *m)
{
    uint32_t end = members_end(m);
    bool any = m->count < m->o->max && may_add_extra(a, m);
    for (uint32_t i = 0; i < end && !any; i++)
        any = m->count < m->o->max && may_add(a, m, i);
    return any;
}

/* A frame that comes back to N_MEMBERS with one member more, and the member on it. */
static void add_member(Automaton *a, const Frame *f, const Members *m, uint64_t used, NodeId rule)
{
    uint32_t count = counted(m->count, m->o->min, m->o->max, 1);
    enter(a, rule, frame(a, f->node - 1, used, count, f->parent));
}

static void expand_key(Automaton *a, Frame f)
{
    Members m = members_of(a, &f);
    uint32_t end = members_end(&m);
    for (uint32_t i = 0; i < end; i++) {
        if (may_add(a, &m, i))
            add_member(a, &f, &m, m.o->n <= OBJECT_SET ? m.used | 1ull << i : i + 1,
                       m.o->member[i]);
    }
    if (may_add_extra(a, &m))
        add_member(a, &f, &m, m.o->n <= OBJECT_SET ? m.used : m.o->n, m.o->extra);
}

static void expand_members(Automaton *a, Frame f)
{
    Members m = members_of(a, &f);
    if (m.missing == 0 && m.count >= m.o->min)
        enter(a, a->p->node[f.node].next, f.parent);
    if (!may_go_on(a, &m))
        return;
    uint32_t key = frame(a, f.node + 1, f.data, f.count, f.parent);
    if (f.count == 0)
        look_at(a, key);
    else
        enter(a, m.o->separator, key);
}

/* ---- items of an array --------------------------------------------------------------------- */

static NodeId item_rule(const ArrayNode *x, uint32_t count)
{
    return count < x->n_prefix ? x->prefix[count] : x->item;
}

static void expand_item(Automaton *a, Frame f)
{
    const ArrayNode *x = &a->p->array[a->p->node[f.node].a];
    uint32_t count = counted(f.count, x->min, x->max, x->n_prefix);
    enter(a, item_rule(x, f.count), frame(a, f.node - 1, 0, count, f.parent));
}

static void expand_items(Automaton *a, Frame f)
{
    const ArrayNode *x = &a->p->array[a->p->node[f.node].a];
    if (f.count >= x->min)
        enter(a, a->p->node[f.node].next, f.parent);
    if ((x->max != NO_LIMIT && f.count >= x->max) || !fits(a, item_rule(x, f.count), f.depth))
        return;
    uint32_t item = frame(a, f.node + 1, 0, f.count, f.parent);
    if (f.count == 0)
        look_at(a, item);
    else
        enter(a, x->separator, item);
}

/* ---- one frame ------------------------------------------------------------------------------- */

static void expand_dfa(Automaton *a, uint32_t id, Frame f)
{
    const Node *n = &a->p->node[f.node];
    const Dfa *d = &a->p->dfa[n->a];
    bool chars = n->kind == N_CHARS, between = d->accept[f.data];
    if (between && (!chars || f.count >= n->min))
        enter(a, n->next, f.parent);
    if (d->goes_on[f.data] && !(chars && between && f.count >= n->max))
        keep(a, id);
}

static void expand(Automaton *a, uint32_t id)
{
    const Program *p = a->p;
    Frame f = a->frames.frame[id]; /* the table may move */
    const Node *n = &p->node[f.node];
    switch (n->kind) {
    case N_END: a->complete = true; break;
    case N_RET: look_at(a, f.parent); break;
    case N_LITERAL:
    case N_CONTROL: keep(a, id); break;
    case N_DFA:
    case N_CHARS: expand_dfa(a, id, f); break;
    case N_ALT:
        for (uint32_t i = 0; i < n->n; i++)
            enter(a, p->list[n->a + i], f.parent);
        break;
    case N_CALL:
        /* A call at a rule's end leaves no frame. */
        enter(a, n->a,
              n->next == NODE_RET ? f.parent
                                  : frame(a, n->next, first_data(p, n->next), 0, f.parent));
        break;
    case N_MEMBERS: expand_members(a, f); break;
    case N_KEY: expand_key(a, f); break;
    case N_ITEMS: expand_items(a, f); break;
    case N_ITEM: expand_item(a, f); break;
    default: break;
    }
}

static void begin_set(Automaton *a)
{
    if (++a->round == 0) {
        memset(a->frames.seen, 0, a->frames.cap * sizeof *a->frames.seen);
        a->round = 1;
    }
    a->n_work = a->n_found = 0;
    a->complete = false;
}

static SetId finish_set(Automaton *a)
{
    while (a->n_work)
        expand(a, a->work[--a->n_work]);
    return intern_set(a);
}

/* ---- sets ---------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t set_frame(const Automaton *a, SetId s, uint32_t i)
{
    uint32_t f;
    memcpy(&f, a->sets.pool.p + (a->sets.set[s].at + (size_t)i) * sizeof f, sizeof f);
    return f;
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

static void sets_release(Sets *t)
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

static bool sets_init(Sets *t)
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
static SetId intern_set(Automaton *a)
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
    if (t->pool.failed)
        return SET_DEAD;
    for (uint32_t k = 0; k < n; k++)
        raise_sure(a, &s, a->found[k]);
    t->set[t->n] = s;
    return t->slot[i] = t->n++;
}

/* ---- steps ---------------------------------------------------------------------------------------- */

static void step_dfa(Automaton *a, Frame f, unsigned char byte)
{
    const Node *n = &a->p->node[f.node];
    const Dfa *d = &a->p->dfa[n->a];
    uint32_t to = dfa_next(d, (uint32_t)f.data, byte);
    if (to == DFA_DEAD)
        return;
    if (n->kind == N_CHARS && d->accept[to])
        f.count = counted(f.count, n->min, n->max, 0);
    look_at(a, frame(a, f.node, to, f.count, f.parent));
}

static void step_frame(Automaton *a, uint32_t id, int symbol)
{
    Frame f = a->frames.frame[id];
    const Node *n = &a->p->node[f.node];
    if (n->kind == N_CONTROL) {
        if (symbol == SYMBOL_CONTROL)
            enter(a, n->next, f.parent);
    } else if (symbol > 255) {
        return;
    } else if (n->kind != N_LITERAL) {
        step_dfa(a, f, (unsigned char)symbol);
    } else if ((unsigned char)a->p->bytes.p[n->a + f.data] == symbol) {
        if (f.data + 1 == n->n)
            enter(a, n->next, f.parent);
        else
            look_at(a, frame(a, f.node, f.data + 1, 0, f.parent));
    }
}

static SetId find_next(Automaton *a, SetId s, int symbol)
{
    if (!a->sets.set[s].next) {
        SetId *next = malloc(N_SYMBOLS * sizeof *next);
        if (!next)
            return SET_DEAD;
        memset(next, 0xff, N_SYMBOLS * sizeof *next);
        a->sets.set[s].next = next;
    }
    begin_set(a);
    for (uint32_t i = 0; i < a->sets.set[s].n; i++)
        step_frame(a, set_frame(a, s, i), symbol);
    SetId to = finish_set(a);
    a->sets.set[s].next[symbol] = to;
    return to;
}

SetId automaton_step(Automaton *a, SetId s, int symbol)
{
    if (s == SET_DEAD)
        return SET_DEAD;
    const SetId *next = a->sets.set[s].next;
    return next && next[symbol] != UNKNOWN ? next[symbol] : find_next(a, s, symbol);
}

SetId automaton_start(Automaton *a, NodeId start)
{
    begin_set(a);
    enter(a, start, frame(a, NODE_END, 0, 0, 0));
    return finish_set(a);
}

bool automaton_complete(const Automaton *a, SetId s) { return a->sets.set[s].complete; }

/* ---- masks ------------------------------------------------------------------------------------------ */

/* How many characters of a part's tokens a set takes for sure. */
static int sure_of(const Set *s, enum TriePart part)
{
    if (part > PART_TEXT)
        return -1;
    return part == PART_PLAIN ? MAX(s->sure[TIER_PLAIN], s->sure[TIER_TEXT]) : s->sure[TIER_TEXT];
}

static void put_tokens(uint32_t *mask, const int32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mask[id[i] / 32] |= 1u << (id[i] % 32);
}

static void walk(Automaton *a, SetId from, enum TriePart part, uint32_t *mask)
{
    const TriePiece *t = &a->trie->part[part];
    SetId path[TRIE_DEPTH + 1];
    path[0] = from;
    for (uint32_t i = 0; i < t->n;) {
        const TrieNode *x = &t->node[i];
        SetId to = automaton_step(a, path[x->depth - 1], x->byte);
        path[x->depth] = to;
        if (to == SET_DEAD) {
            i = x->skip;
        } else if (x->rest <= sure_of(&a->sets.set[to], part)) {
            put_tokens(mask, t->token + x->first, t->node[x->skip].first - x->first);
            i = x->skip;
        } else {
            if (x->token >= 0)
                put_tokens(mask, &x->token, 1);
            i++;
        }
    }
}

/* The short tokens; those of a tier that is taken for sure all at once. */
static void near_tokens(Automaton *a, SetId s, uint32_t *mask)
{
    for (int part = 0; part < PART_LONG; part++) {
        const TriePiece *t = &a->trie->part[part];
        if (sure_of(&a->sets.set[s], (enum TriePart)part) < TIER_CHARS)
            walk(a, s, (enum TriePart)part, mask);
        else
            for (size_t i = 0; i < a->trie->words; i++)
                mask[i] |= t->mask[i];
    }
}

/* A count that lies so far from its limits that no short token meets them is
 * replaced by one that stands for all such counts. */
static uint32_t distant_frame(Automaton *a, uint32_t id)
{
    Frame f = a->frames.frame[id];
    const Node *n = &a->p->node[f.node];
    if (n->kind != N_CHARS)
        return id;
    bool far_below = f.count + REACH <= n->min;
    bool far_above = f.count >= n->min && n->max != NO_LIMIT && n->max - f.count >= REACH;
    f.count = far_below ? 0 : far_above ? n->min : f.count;
    return intern_frame(&a->frames, f);
}

static SetId distant_set(Automaton *a, SetId s)
{
    if (a->sets.set[s].distant == UNKNOWN) {
        begin_set(a);
        a->complete = a->sets.set[s].complete;
        for (uint32_t i = 0; i < a->sets.set[s].n; i++) {
            uint32_t f = distant_frame(a, set_frame(a, s, i));
            if (f && a->frames.seen[f] != a->round)
                keep(a, f);
            a->frames.seen[f] = a->round;
        }
        SetId distant = intern_set(a);
        a->sets.set[s].distant = distant == SET_DEAD ? s : distant;
    }
    return a->sets.set[s].distant;
}

static uint32_t *new_mask(Automaton *a)
{
    if (a->n_masks >= MAX_MASKS) {
        for (uint32_t i = 0; i < a->sets.n; i++) {
            free(a->sets.set[i].mask);
            free(a->sets.set[i].near_mask);
            a->sets.set[i].mask = a->sets.set[i].near_mask = NULL;
        }
        a->n_masks = 0;
    }
    uint32_t *mask = calloc(a->trie->words + 1, sizeof *mask);
    a->n_masks += mask != NULL;
    return mask;
}

static uint32_t *near_mask(Automaton *a, SetId s)
{
    if (!a->sets.set[s].near_mask) {
        uint32_t *mask = new_mask(a);
        if (!mask)
            return NULL;
        near_tokens(a, s, mask);
        a->sets.set[s].near_mask = mask;
    }
    return a->sets.set[s].near_mask;
}

uint32_t *automaton_mask(Automaton *a, SetId s)
{
    if (!a->sets.set[s].mask) {
        uint32_t *mask = new_mask(a);
        const uint32_t *near = mask && s != SET_DEAD ? near_mask(a, distant_set(a, s)) : NULL;
        if (mask && near) {
            memcpy(mask, near, a->trie->words * sizeof *mask);
            walk(a, s, PART_LONG, mask);
        } else if (s != SET_DEAD) {
            free(mask);
            a->n_masks -= mask != NULL;
            return NULL;
        }
        a->sets.set[s].mask = mask;
    }
    return a->sets.set[s].mask;
}

/* ---- the whole ---------------------------------------------------------------------------------------- */

Automaton *automaton_new(const Program *p, const TokenTrie *trie, ds4_err *err)
{
    Automaton *a = calloc(1, sizeof *a);
    if (a) {
        a->p = p;
        a->trie = trie;
        a->cap_work = HARD_FRAMES / 16;
        a->work = malloc(a->cap_work * sizeof *a->work);
    }
    if (a && a->work && frames_init(&a->frames) && sets_init(&a->sets))
        return a;
    automaton_free(a);
    fail(err, DS4_ENOMEM, "grammar: no memory for an automaton");
    return NULL;
}

void automaton_free(Automaton *a)
{
    if (!a)
        return;
    frames_release(&a->frames);
    sets_release(&a->sets);
    free(a->work);
    free(a->pin);
    free(a);
}

bool automaton_pin(Automaton *a, SetId *s)
{
    SetId **pin = realloc(a->pin, (a->n_pins + 1) * sizeof *pin);
    if (!pin)
        return false;
    a->pin = pin;
    a->pin[a->n_pins++] = s;
    return true;
}

void automaton_unpin(Automaton *a, SetId *s)
{
    for (size_t i = 0; i < a->n_pins; i++) {
        if (a->pin[i] == s)
            a->pin[i--] = a->pin[--a->n_pins];
    }
}

/* A frame of another table, with those below it, in the present one. */
static uint32_t bring_over(Automaton *a, const Frames *old, uint32_t id)
{
    uint32_t chain[MAX_FRAMES + 8], n = 0, parent = 0;
    for (; id && n < COUNT(chain); id = old->frame[id].parent)
        chain[n++] = id;
    while (n) {
        Frame f = old->frame[chain[--n]];
        f.parent = parent;
        parent = intern_frame(&a->frames, f);
    }
    return parent;
}

/* What a pin holds, in tables that are otherwise empty. */
void automaton_tidy(Automaton *a)
{
    if (a->frames.n < SOFT_FRAMES && a->sets.n < SOFT_SETS)
        return;
    Frames frames = a->frames;
    Sets sets = a->sets;
    if (!frames_init(&a->frames) || !sets_init(&a->sets)) {
        frames_release(&a->frames);
        sets_release(&a->sets);
        a->frames = frames;
        a->sets = sets;
        return;
    }
    a->n_masks = 0;
    for (size_t k = 0; k < a->n_pins; k++) {
        const Set *s = &sets.set[*a->pin[k]];
        begin_set(a);
        a->complete = s->complete;
        for (uint32_t i = 0; i < s->n; i++) {
            uint32_t f;
            memcpy(&f, sets.pool.p + (s->at + (size_t)i) * sizeof f, sizeof f);
            keep(a, bring_over(a, &frames, f));
        }
        *a->pin[k] = intern_set(a);
    }
    frames_release(&frames);
    sets_release(&sets);
}
