/* recall_store.c - kept answers.
 *
 * The table never grows: it is sized for as many names as the bound allows, two
 * for each answer beside those of its calls. */
#include "recall_store.h"
#include <stdlib.h>

bool recall_store_init(RecallStore *s, size_t max_entries, size_t max_bytes)
{
    size_t n = 16;
    while (n < max_entries && n < (size_t)1 << 30)
        n *= 2;
    *s = (RecallStore){ .bucket = calloc(n, sizeof *s->bucket),
                        .mask = n - 1,
                        .max_entries = max_entries,
                        .max_bytes = max_bytes };
    return s->bucket != NULL;
}

void recall_store_release(RecallStore *s)
{
    while (s->oldest) {
        Kept *newer = s->oldest->newer;
        free(s->oldest);
        s->oldest = newer;
    }
    free(s->bucket);
    *s = (RecallStore){ 0 };
}

/* ---- by name ------------------------------------------------------------------------- */

static KeptName **bucket_of(const RecallStore *s, XXH128_hash_t key)
{
    return &s->bucket[key.low64 & s->mask];
}

static const KeptName *first_named(const KeptName *name, XXH128_hash_t key)
{
    while (name && !XXH128_isEqual(name->key, key))
        name = name->next;
    return name;
}

const KeptName *recall_store_find(const RecallStore *s, XXH128_hash_t key)
{
    return first_named(*bucket_of(s, key), key);
}

const KeptName *recall_store_next(const KeptName *name)
{
    return first_named(name->next, name->key);
}

static void link_name(RecallStore *s, KeptName *name)
{
    KeptName **first = bucket_of(s, name->key);
    name->next = *first;
    name->link = first;
    if (*first)
        (*first)->link = &name->next;
    *first = name;
}

static void unlink_name(KeptName *name)
{
    *name->link = name->next;
    if (name->next)
        name->next->link = name->link;
}

/* ---- by last use ------------------------------------------------------------------------ */

static void put_newest(RecallStore *s, Kept *k)
{
    k->newer = NULL;
    k->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = k;
    s->newest = k;
}

static void take_out(RecallStore *s, Kept *k)
{
    *(k->newer ? &k->newer->older : &s->newest) = k->older;
    *(k->older ? &k->older->newer : &s->oldest) = k->newer;
}

void recall_store_use(RecallStore *s, Kept *k)
{
    take_out(s, k);
    put_newest(s, k);
}

static size_t entries_of(const Kept *k) { return MAX(k->n_calls, 1); }

static void forget(RecallStore *s, Kept *k)
{
    for (size_t i = 0; i < k->n_names; i++)
        unlink_name(&k->name[i]);
    take_out(s, k);
    s->entries -= entries_of(k);
    s->bytes -= k->bytes;
    if (s->forgotten)
        s->forgotten(s->user, k);
    free(k);
}

/* ---- adding ---------------------------------------------------------------------------- */

static size_t block_size(const Kept *k, size_t n_names)
{
    size_t n = sizeof *k + n_names * sizeof *k->name + k->n_calls * sizeof *k->call_ids +
               k->n_ids * sizeof *k->ids + k->handle.n + k->reasoning.n + k->content.n + k->forms.n;
    for (size_t i = 0; i < k->n_calls; i++)
        n += k->call_ids[i].n;
    return n;
}

static void *take(char **p, size_t n)
{
    char *at = *p;
    *p += n;
    return at;
}

static Str copy_str(char **p, Str s)
{
    char *at = take(p, s.n);
    if (s.n)
        memcpy(at, s.p, s.n);
    return (Str){ at, s.n };
}

/* The parts in the order of their alignment. */
static Kept *copy_kept(const Kept *what, size_t n_names)
{
    size_t bytes = block_size(what, n_names);
    Kept *k = malloc(bytes);
    if (!k)
        return NULL;
    *k = *what;
    char *p = (char *)(k + 1);
    k->bytes = bytes;
    k->name = take(&p, n_names * sizeof *k->name);
    k->n_names = n_names;
    Str *call_ids = take(&p, k->n_calls * sizeof *call_ids);
    int32_t *ids = take(&p, k->n_ids * sizeof *ids);
    memcpy(ids, what->ids, k->n_ids * sizeof *ids);
    for (size_t i = 0; i < k->n_calls; i++)
        call_ids[i] = copy_str(&p, what->call_ids[i]);
    k->call_ids = call_ids;
    k->ids = ids;
    k->handle = copy_str(&p, what->handle);
    k->reasoning = copy_str(&p, what->reasoning);
    k->content = copy_str(&p, what->content);
    k->forms = copy_str(&p, what->forms);
    return k;
}

bool recall_store_add(RecallStore *s, const Kept *what, const XXH128_hash_t *names, size_t n)
{
    if (entries_of(what) > s->max_entries || block_size(what, n) > s->max_bytes)
        return false;
    Kept *k = copy_kept(what, n);
    if (!k)
        return false;
    for (size_t i = 0; i < n; i++) {
        k->name[i] = (KeptName){ .key = names[i], .kept = k };
        link_name(s, &k->name[i]);
    }
    put_newest(s, k);
    s->entries += entries_of(k);
    s->bytes += k->bytes;
    while (s->entries > s->max_entries || s->bytes > s->max_bytes)
        forget(s, s->oldest);
    return true;
}
