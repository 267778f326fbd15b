/* program.c - building and checking the automaton's program. */
#include "program.h"
#include <stdlib.h>

enum { MAX_NODES = 1 << 19, MAX_LIST = 1 << 20 };
#define MAX_DFA_STATES 400000u
#define MAX_LITERALS   ((size_t)16 << 20)
/* 1 to 2 s; the tools of usual clients are some million steps. */
#define MAX_STEPS      300000000u

static void *grow(Program *p, void *array, uint32_t n, uint32_t *cap, size_t size, uint32_t most);

void program_init(Program *p, ds4_err *err)
{
    *p = (Program){ .err = err,
                    .arena = { .limit = (size_t)32 << 20 },
                    .effort = { .most = MAX_STEPS } };
    p->node = grow(p, NULL, 0, &p->cap_nodes, sizeof *p->node, MAX_NODES);
    if (p->failed)
        return;
    p->node[NODE_NONE] = (Node){ .kind = N_NONE };
    p->node[NODE_RET] = (Node){ .kind = N_RET };
    p->node[NODE_END] = (Node){ .kind = N_END };
    p->n_nodes = NODE_FIRST;
}

void program_release(Program *p)
{
    for (uint32_t i = 0; i < p->n_dfas; i++)
        dfa_release(&p->dfa[i]);
    free(p->dfa);
    free(p->node);
    free(p->list);
    free(p->object);
    free(p->array);
    free(p->need);
    bytes_release(&p->bytes);
    arena_release(&p->arena);
    *p = (Program){ 0 };
}

/* ---- building ----------------------------------------------------------------------- */

static void program_fail(Program *p, ds4_code code, const char *what)
{
    if (!p->failed)
        fail(p->err, code, "grammar: %s", what);
    p->failed = true;
}

/* Room for one element more. */
static void *grow(Program *p, void *array, uint32_t n, uint32_t *cap, size_t size, uint32_t most)
{
    if (n < *cap)
        return array;
    if (n >= most) {
        program_fail(p, DS4_EINVAL, "the schemas together are too large");
        return array;
    }
    uint32_t more = *cap ? *cap * 2 : 32;
    void *to = realloc(array, more * size);
    if (!to) {
        program_fail(p, DS4_ENOMEM, "no memory");
        return array;
    }
    *cap = more;
    return to;
}

static NodeId add_node(Program *p, Node n)
{
    p->node = grow(p, p->node, p->n_nodes, &p->cap_nodes, sizeof *p->node, MAX_NODES);
    if (p->failed)
        return NODE_NONE;
    p->node[p->n_nodes] = n;
    return p->n_nodes++;
}

static uint32_t add_ids(Program *p, const NodeId *ids, size_t n)
{
    uint32_t at = p->n_list;
    for (size_t i = 0; i < n && !p->failed; i++) {
        p->list = grow(p, p->list, p->n_list, &p->cap_list, sizeof *p->list, MAX_LIST);
        if (!p->failed)
            p->list[p->n_list++] = ids[i];
    }
    return at;
}

NodeId node_literal(Program *p, Str bytes, NodeId next)
{
    if (next == NODE_NONE || bytes.n == 0)
        return next;
    uint32_t at = (uint32_t)p->bytes.n;
    if (bytes.n + p->bytes.n > MAX_LITERALS)
        program_fail(p, DS4_EINVAL, "the schemas' texts together are too large");
    else
        bytes_put(&p->bytes, bytes.p, bytes.n);
    if (p->bytes.failed)
        program_fail(p, DS4_ENOMEM, "no memory");
    return add_node(p, (Node){ .kind = N_LITERAL, .a = at, .n = (uint32_t)bytes.n, .next = next });
}

NodeId node_dfa(Program *p, uint32_t dfa, NodeId next)
{
    if (next == NODE_NONE || p->failed || dfa_empty(&p->dfa[dfa]))
        return NODE_NONE;
    return add_node(p, (Node){ .kind = N_DFA, .a = dfa, .next = next });
}

NodeId node_chars(Program *p, uint32_t dfa, uint32_t min, uint32_t max, NodeId next)
{
    if (next == NODE_NONE || p->failed || min > max || dfa_empty(&p->dfa[dfa]))
        return NODE_NONE;
    return add_node(p, (Node){ .kind = N_CHARS, .a = dfa, .min = min, .max = max, .next = next });
}

NodeId node_control(Program *p, NodeId next)
{
    return next == NODE_NONE ? next : add_node(p, (Node){ .kind = N_CONTROL, .next = next });
}

NodeId node_call(Program *p, NodeId rule, NodeId next)
{
    if (rule == NODE_NONE || next == NODE_NONE)
        return NODE_NONE;
    return add_node(p, (Node){ .kind = N_CALL, .a = rule, .next = next });
}

NodeId node_alt(Program *p, const NodeId *of, size_t n, NodeId next)
{
    NodeId only = NODE_NONE, rule;
    uint32_t at = p->n_list, count = 0;
    for (size_t i = 0; i < n; i++) {
        if (of[i] == NODE_NONE)
            continue;
        only = of[i];
        add_ids(p, &only, 1);
        count++;
    }
    if (count < 2)
        rule = only;
    else
        rule = add_node(p, (Node){ .kind = N_ALT, .a = at, .n = count });
    return next == NODE_RET ? rule : node_call(p, rule, next);
}

NodeId node_alt_bytes(Program *p, const Bytes *of, NodeId next)
{
    if (of->failed)
        program_fail(p, DS4_ENOMEM, "no memory");
    return node_alt(p, (const NodeId *)(const void *)of->p, of->n / sizeof(NodeId), next);
}

NodeId node_either(Program *p, NodeId a, NodeId b)
{
    return node_alt(p, (NodeId[]){ a, b }, 2, NODE_RET);
}

NodeId node_forward(Program *p)
{
    uint32_t at = add_ids(p, (NodeId[]){ NODE_NONE }, 1);
    return add_node(p, (Node){ .kind = N_ALT, .a = at, .n = 1 });
}

void node_resolve(Program *p, NodeId forward, NodeId body)
{
    if (!p->failed)
        p->list[p->node[forward].a] = body;
}

uint32_t program_dfa(Program *p, Dfa *d)
{
    Dfa *to = grow(p, p->dfa, p->n_dfas, &p->cap_dfas, sizeof *p->dfa, MAX_LIST);
    p->dfa = to;
    p->dfa_states += d->n_states;
    if (p->dfa_states > MAX_DFA_STATES)
        program_fail(p, DS4_EINVAL, "the patterns together are too large");
    if (p->failed) {
        dfa_release(d);
        return 0;
    }
    p->dfa[p->n_dfas] = *d;
    *d = (Dfa){ 0 };
    return p->n_dfas++;
}

NodeId *program_ids(Program *p, const NodeId *ids, size_t n)
{
    NodeId *copy = arena_array(&p->arena, n, sizeof *copy);
    if (!copy && p->arena.no_memory)
        program_fail(p, DS4_ENOMEM, "no memory");
    else if (!copy)
        program_fail(p, DS4_EINVAL, "the schemas together are too large");
    else if (n)
        memcpy(copy, ids, n * sizeof *copy);
    return copy;
}

/* A member that can never be completed is left out; a required one makes all of
 * it impossible. */
NodeId node_object(Program *p, const ObjectNode *o, NodeId next)
{
    ObjectNode c = *o;
    c.need = 0;
    c.n_required = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        if (o->required[i] && o->member[i] == NODE_NONE)
            return NODE_NONE;
        c.n_required += o->required[i];
        if (o->required[i] && i < OBJECT_SET)
            c.need |= 1ull << i;
    }
    uint32_t available = 0;
    for (uint32_t i = 0; i < o->n; i++)
        available += o->member[i] != NODE_NONE;
    if (c.n_required > c.max || c.min > c.max || (c.min > available && c.extra == NODE_NONE))
        return NODE_NONE;
    p->object = grow(p, p->object, p->n_objects, &p->cap_objects, sizeof *p->object, MAX_LIST);
    if (p->failed || next == NODE_NONE)
        return NODE_NONE;
    p->object[p->n_objects] = c;
    uint32_t at = p->n_objects++;
    NodeId members = add_node(p, (Node){ .kind = N_MEMBERS, .a = at, .next = next });
    add_node(p, (Node){ .kind = N_KEY, .a = at, .next = members }); /* members + 1 */
    return members;
}

NodeId node_array(Program *p, const ArrayNode *a, NodeId next)
{
    ArrayNode c = *a;
    for (uint32_t i = 0; i < c.n_prefix; i++) {
        if (c.prefix[i] == NODE_NONE)
            c.max = MIN(c.max, i);
    }
    if (c.item == NODE_NONE)
        c.max = MIN(c.max, c.n_prefix);
    if (c.min > c.max || next == NODE_NONE)
        return NODE_NONE;
    p->array = grow(p, p->array, p->n_arrays, &p->cap_arrays, sizeof *p->array, MAX_LIST);
    if (p->failed)
        return NODE_NONE;
    p->array[p->n_arrays] = c;
    uint32_t at = p->n_arrays++;
    NodeId items = add_node(p, (Node){ .kind = N_ITEMS, .a = at, .next = next });
    add_node(p, (Node){ .kind = N_ITEM, .a = at, .next = items }); /* items + 1 */
    return items;
}

/* ---- what can be completed ------------------------------------------------------------ */

static uint32_t plus(uint32_t a, uint32_t b)
{
    return a >= NEED_NEVER || b >= NEED_NEVER ? NEED_NEVER : MIN(a + b, (uint32_t)NEED_NEVER);
}

/* Steps of going through all nodes once. */
static uint64_t round_steps(const Program *p)
{
    uint64_t steps = p->n_nodes + p->n_list;
    for (uint32_t i = 0; i < p->n_objects; i++)
        steps += 2 * (uint64_t)p->object[i].n;
    for (uint32_t i = 0; i < p->n_arrays; i++)
        steps += 2 * (uint64_t)p->array[i].n_prefix;
    return steps;
}

static uint32_t need_of(const Program *p, NodeId id) { return p->need[id]; }

/* The required members are needed, of the others only as many as min asks for. */
static uint32_t need_object(const Program *p, const ObjectNode *o)
{
    uint32_t most = 0, optional = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        uint32_t x = need_of(p, o->member[i]);
        if (o->required[i])
            most = MAX(most, plus(1, x));
        else
            optional += x < NEED_NEVER;
    }
    bool enough = o->n_required + optional >= o->min || need_of(p, o->extra) < NEED_NEVER;
    if (o->n_required < o->min)
        most = MAX(most, 2u);
    return enough ? most : (uint32_t)NEED_NEVER;
}

static uint32_t need_array(const Program *p, const ArrayNode *a)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < MIN(a->min, a->n_prefix); i++)
        most = MAX(most, plus(1, need_of(p, a->prefix[i])));
    if (a->min > a->n_prefix)
        most = MAX(most, plus(1, need_of(p, a->item)));
    return most;
}

static uint32_t need_now(const Program *p, const Node *n)
{
    uint32_t best = NEED_NEVER;
    switch (n->kind) {
    case N_NONE: return NEED_NEVER;
    case N_RET:
    case N_END: return 0;
    case N_ALT:
        for (uint32_t i = 0; i < n->n; i++)
            best = MIN(best, need_of(p, p->list[n->a + i]));
        return best;
    case N_CALL:
        if (need_of(p, n->next) == NEED_NEVER)
            return NEED_NEVER;
        return MAX(plus(n->next != NODE_RET, need_of(p, n->a)), need_of(p, n->next));
    case N_MEMBERS:
    case N_KEY:
        best = need_object(p, &p->object[n->a]);
        return best >= NEED_NEVER ? best : MAX(best, need_of(p, n->next));
    case N_ITEMS:
    case N_ITEM:
        best = need_array(p, &p->array[n->a]);
        return best >= NEED_NEVER ? best : MAX(best, need_of(p, n->next));
    default: return need_of(p, n->next);
    }
}

/* From "never" downwards until nothing changes. Sequences are built from their
 * ends, so most nodes know their needs at once. */
static bool find_needs(Program *p, ds4_err *err)
{
    p->need = calloc(p->n_nodes, sizeof *p->need);
    if (!p->need)
        return fail(err, DS4_ENOMEM, "grammar: no memory for %u nodes", p->n_nodes);
    for (uint32_t i = 0; i < p->n_nodes; i++)
        p->need[i] = NEED_NEVER;
    bool changed = true;
    uint64_t steps = round_steps(p);
    for (int round = 0; changed && round < 2000; round++) {
        if (!effort_spend(&p->effort, steps, err))
            return false;
        changed = false;
        for (NodeId i = 0; i < p->n_nodes; i++) {
            uint32_t now = need_now(p, &p->node[i]);
            changed |= now < p->need[i];
            p->need[i] = (uint16_t)MIN(now, p->need[i]);
        }
    }
    return true;
}

/* ---- rules that call themselves before they have read anything --------------------------
 *
 * Such a call would grow the stack without end. Nodes that are entered from one
 * another without a byte form the components that Tarjan's method finds; a call
 * that leaves a frame must not stay within its component. */

typedef struct {
    Program *p;
    bool *empty;            /* [n_nodes] from here RET may be reached without a byte */
    uint32_t *order, *low;  /* [n_nodes] 0: not seen */
    bool *open;             /* [n_nodes] its component is not closed */
    NodeId *path, *members; /* [n_nodes] */
    uint32_t *step;         /* [n_nodes] of a node on the path: which edge is next */
    uint32_t n_path, n_members, clock;
} LeftCheck;

static bool dfa_takes_nothing(const Program *p, const Node *n)
{
    return n->kind == N_DFA ? p->dfa[n->a].accept[DFA_START] : n->kind == N_CHARS && n->min == 0;
}

static bool empty_now(const LeftCheck *x, const Node *n)
{
    const Program *p = x->p;
    bool any = false;
    switch (n->kind) {
    case N_RET: return true;
    case N_ALT:
        for (uint32_t i = 0; i < n->n; i++)
            any |= x->empty[p->list[n->a + i]];
        return any;
    case N_CALL: return x->empty[n->a] && x->empty[n->next];
    case N_DFA:
    case N_CHARS: return dfa_takes_nothing(p, n) && x->empty[n->next];
    case N_MEMBERS:
        return p->object[n->a].n_required == 0 && p->object[n->a].min == 0 && x->empty[n->next];
    case N_ITEMS: return p->array[n->a].min == 0 && x->empty[n->next];
    default: return false;
    }
}

/* The k-th node that is entered from n without a byte; false: there are fewer.
 * Members and items stand behind brackets: they are roots, but no edges. */
static bool left_edge(const LeftCheck *x, const Node *n, uint32_t k, NodeId *to)
{
    const Program *p = x->p;
    switch (n->kind) {
    case N_ALT:
        if (k < n->n)
            *to = p->list[n->a + k];
        return k < n->n;
    case N_CALL: *to = k == 0 ? n->a : n->next; return k == 0 || (k == 1 && x->empty[n->a]);
    case N_DFA:
    case N_CHARS: *to = n->next; return k == 0 && dfa_takes_nothing(p, n);
    case N_MEMBERS:
    case N_ITEMS: *to = n->next; return k == 0;
    default: return false;
    }
}

static void open_node(LeftCheck *x, NodeId id)
{
    x->order[id] = x->low[id] = ++x->clock;
    x->open[id] = true;
    x->step[id] = 0;
    x->members[x->n_members++] = id;
    x->path[x->n_path++] = id;
}

/* Leave the last node of the path; false: its component has a growing call. */
static bool leave_node(LeftCheck *x)
{
    NodeId id = x->path[--x->n_path];
    if (x->n_path)
        x->low[x->path[x->n_path - 1]] = MIN(x->low[x->path[x->n_path - 1]], x->low[id]);
    if (x->low[id] != x->order[id])
        return true;
    bool ok = true;
    uint32_t first = x->n_members;
    while (x->members[--first] != id) {}
    for (uint32_t i = first; i < x->n_members; i++)
        x->low[x->members[i]] = x->order[id];
    for (uint32_t i = first; i < x->n_members; i++) {
        const Node *n = &x->p->node[x->members[i]];
        if (n->kind == N_CALL && n->next != NODE_RET)
            ok &= !(x->open[n->a] && x->low[n->a] == x->order[id]);
    }
    while (x->n_members > first)
        x->open[x->members[--x->n_members]] = false;
    return ok;
}

static bool check_from(LeftCheck *x, NodeId root)
{
    if (x->order[root])
        return true;
    open_node(x, root);
    while (x->n_path) {
        NodeId at = x->path[x->n_path - 1], to = NODE_NONE;
        if (!left_edge(x, &x->p->node[at], x->step[at]++, &to)) {
            if (!leave_node(x))
                return false;
        } else if (!x->order[to]) {
            open_node(x, to);
        } else if (x->open[to]) {
            x->low[at] = MIN(x->low[at], x->order[to]);
        }
    }
    return true;
}

static bool find_empty(LeftCheck *x, ds4_err *err)
{
    for (bool changed = true; changed;) {
        if (!effort_spend(&x->p->effort, round_steps(x->p), err))
            return false;
        changed = false;
        for (NodeId i = 0; i < x->p->n_nodes; i++) {
            bool now = x->empty[i] || empty_now(x, &x->p->node[i]);
            changed |= now != x->empty[i];
            x->empty[i] = now;
        }
    }
    return true;
}

static bool check_left(Program *p, ds4_err *err)
{
    size_t n = p->n_nodes;
    LeftCheck x = { .p = p,
                    .empty = calloc(n, sizeof *x.empty),
                    .order = calloc(n, sizeof *x.order),
                    .low = calloc(n, sizeof *x.low),
                    .open = calloc(n, sizeof *x.open),
                    .path = malloc(n * sizeof *x.path),
                    .members = malloc(n * sizeof *x.members),
                    .step = malloc(n * sizeof *x.step) };
    bool ok = x.empty && x.order && x.low && x.open && x.path && x.members && x.step;
    ok = ok || fail(err, DS4_ENOMEM, "grammar: no memory for %zu nodes", n);
    ok = ok && find_empty(&x, err);
    for (NodeId i = 0; ok && i < n; i++) {
        if (!check_from(&x, i))
            ok = fail(err, DS4_EINVAL,
                      "grammar: a rule or $ref leads back to itself before it reads anything");
    }
    free(x.empty);
    free(x.order);
    free(x.low);
    free(x.open);
    free(x.path);
    free(x.members);
    free(x.step);
    return ok;
}

bool program_finish(Program *p, ds4_err *err)
{
    return !p->failed && find_needs(p, err) && check_left(p, err);
}

bool program_possible(const Program *p, NodeId start) { return p->need[start] < MAX_FRAMES; }
