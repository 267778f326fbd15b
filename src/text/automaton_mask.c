/* automaton_mask.c - the tokens that may follow: a walk over the vocabulary's trie,
 * which leaves out what is known without it. */
#include "automaton_parts.h"
#include <stdlib.h>

/* A token counts in front of a limit only so many characters. */
enum { REACH = TIER_CHARS + 2 };
enum { MAX_MASKS = 512 };

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
    a->no_memory |= !mask;
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
