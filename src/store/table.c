/* table.c - entries by name (chained buckets, doubled when full) and as a tree. */
#include "table.h"
#include "store.h"
#include <assert.h>
#include <stdlib.h>

enum { FIRST_BUCKETS = 256 };

/* A name is a hash already. */
static size_t place(const Table *t, const ChunkName *name)
{
    size_t h;
    memcpy(&h, name->sha, sizeof h);
    return h & t->mask;
}

bool table_init(Table *t)
{
    *t = (Table){ .bucket = calloc(FIRST_BUCKETS, sizeof *t->bucket), .mask = FIRST_BUCKETS - 1 };
    t->root.head.first = -STORE_CHUNK;
    return t->bucket != NULL;
}

static void free_entry(Entry *e)
{
    free(e->tokens);
    free(e->rows);
    free(e->mark);
    free(e);
}

void table_release(Table *t)
{
    for (size_t i = 0; t->bucket && i <= t->mask; i++) {
        for (Entry *e = t->bucket[i], *next; e; e = next) {
            next = e->next;
            free_entry(e);
        }
    }
    free(t->bucket);
    *t = (Table){ 0 };
}

Entry *table_find(const Table *t, const ChunkName *name)
{
    Entry *e = t->bucket[place(t, name)];
    while (e && !name_eq(&e->head.name, name))
        e = e->next;
    return e;
}

/* Longer chains are slower and nothing worse: no memory is no error. */
static void grow(Table *t)
{
    const size_t n = (t->mask + 1) * 2;
    Entry **old = t->bucket, **bucket = calloc(n, sizeof *bucket);
    const size_t old_mask = t->mask;

    if (!bucket)
        return;
    t->bucket = bucket;
    t->mask = n - 1;
    for (size_t i = 0; i <= old_mask; i++) {
        for (Entry *e = old[i], *next; e; e = next) {
            Entry **to = &bucket[place(t, &e->head.name)];
            next = e->next;
            e->next = *to;
            *to = e;
        }
    }
    free(old);
}

/* ---- the tree ------------------------------------------------------------------------ */

static void hang(Entry *e, Entry *parent)
{
    e->parent = parent;
    e->sibling = parent->child;
    if (e->sibling)
        e->sibling->link = &e->sibling;
    e->link = &parent->child;
    parent->child = e;
}

static void unhang(Entry *e)
{
    *e->link = e->sibling;
    if (e->sibling)
        e->sibling->link = e->link;
    e->parent = e->sibling = NULL;
    e->link = NULL;
}

/* The entry of a name, made as a name only. A chunk begins where its parent ends:
 * without that a forged file could make a circle of the tree. What has no parent yet hangs below
 * the root, so that a walk through the tree misses nothing. */
static Entry *get(Table *t, const ChunkName *name, int first)
{
    if (name_none(name))
        return first == t->root.head.first ? &t->root : NULL;
    Entry *e = table_find(t, name);
    if (e)
        return e->head.first == first ? e : NULL;
    if (!(e = calloc(1, sizeof *e)))
        return NULL;
    if (t->n > t->mask)
        grow(t);
    Entry **to = &t->bucket[place(t, name)];
    e->head.name = *name;
    e->head.first = first;
    e->next = *to;
    *to = e;
    t->n++;
    hang(e, &t->root);
    return e;
}

Entry *table_add(Table *t, const ChunkHead *head)
{
    Entry *e = get(t, &head->name, head->first);
    Entry *parent = e ? get(t, &head->parent, head->first - STORE_CHUNK) : NULL;

    if (!parent || (e->parent != &t->root && e->parent != parent)) {
        if (e)
            table_tidy(t, e);
        if (parent)
            table_tidy(t, parent);
        return NULL;
    }
    unhang(e);
    hang(e, parent);
    e->head = *head;
    e->known = true;
    return e;
}

void table_tidy(Table *t, Entry *e)
{
    while (e && e != &t->root && !e->known && !e->child && !e->pins && !e->holds) {
        Entry **from = &t->bucket[place(t, &e->head.name)], *parent = e->parent;
        while (*from != e)
            from = &(*from)->next;
        *from = e->next;
        t->n--;
        unhang(e);
        free_entry(e);
        e = parent;
    }
}

void table_forget(Table *t, Entry *e)
{
    assert(!e->in_ram && !e->waiting && !e->busy && !e->holds);
    e->known = e->on_disk = e->use_changed = e->doomed = false;
    e->file_bytes = 0;
    e->use = (ChunkUse){ 0 };
    table_tidy(t, e);
}

bool table_is_leaf(const Entry *e)
{
    for (const Entry *c = e->child; c; c = c->sibling)
        if (c->known || !table_is_leaf(c))
            return false;
    return true;
}

Entry *table_next(const Entry *top, const Entry *e)
{
    if (e->child)
        return e->child;
    for (; e != top; e = e->parent)
        if (e->sibling)
            return e->sibling;
    return NULL;
}

bool table_is_tail(const Entry *e) { return e->head.n < STORE_CHUNK; }
