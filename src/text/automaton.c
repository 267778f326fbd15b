/* automaton.c - the pushdown automaton that runs a program: what each byte leads to,
 * and what is reached without one. */
#include "automaton.h"
#include "automaton_parts.h"
#include <stdlib.h>

/* Beyond the soft bounds all is forgotten between tokens. */
enum { SOFT_FRAMES = 1 << 18, SOFT_SETS = 1 << 13 };

/* ---- what is reached without a byte ------------------------------------------------- */

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

/* Counts beyond which nothing depends on them are one count. */
static uint32_t counted(uint32_t count, uint32_t min, uint32_t max, uint32_t other)
{
    uint32_t most = max != NO_LIMIT ? max : MAX(min, other);
    return MIN(count + 1, MAX(most, 1u));
}

/* ---- members of an object ----------------------------------------------------------- */

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

/* ---- items of an array -------------------------------------------------------------- */

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

/* ---- one frame ---------------------------------------------------------------------- */

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

static SetId finish_set(Automaton *a)
{
    while (a->n_work)
        expand(a, a->work[--a->n_work]);
    return intern_set(a);
}

/* ---- steps -------------------------------------------------------------------------- */

void begin_set(Automaton *a)
{
    if (++a->round == 0) {
        memset(a->frames.seen, 0, a->frames.cap * sizeof *a->frames.seen);
        a->round = 1;
    }
    a->n_work = a->n_found = 0;
    a->complete = false;
}

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
        if (!next) {
            a->no_memory = true;
            return SET_DEAD;
        }
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

bool automaton_failed(const Automaton *a)
{
    return a->no_memory || a->frames.no_memory || a->sets.no_memory;
}

/* ---- the whole ---------------------------------------------------------------------- */

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
    a->no_memory = automaton_failed(a);
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
