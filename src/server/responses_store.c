/* responses_store.c - kept answers, and the conversations that they belong to.
 *
 * An answer is an entry of a short list. What was said is a chain of links, each
 * with the items of one request and its answer, as texts: json-c's counts of
 * references are not for threads. An entry holds the link of its answer, a link
 * the one before it. In the journal each link is a record, with the answer that it
 * belongs to; it is there as long as the link. */
#include "responses_store.h"
#include "record.h"
#include "../store/journal.h"
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

enum { MOST_RESPONSES = 256, BUCKETS = 4096 };

typedef struct Link Link;
typedef struct Item Item;

/* An item that can be pointed to: it has an id. */
struct Item {
    Str id, text; /* in the link */
    bool ours;    /* of an answer: its id is none that a client chose */
    Link *link;
    Item *next, **at; /* in its bucket */
};

struct Link {
    Link *before;
    int refs;   /* entries, links after it, and who is reading it */
    Bytes text; /* items, with commas between them */
    Bytes ids;  /* theirs, a zero after each */
    Item *items;
    size_t n_items;
    size_t total, chain_bytes; /* items and memory of the chain up to here */
    uint64_t key;              /* in the journal: above those of all links before it */
};

typedef struct {
    Bytes id, reply;
    Link *link;
    uint64_t used; /* when it was asked for last, by the store's clock */
} Entry;

struct ResponseStore {
    pthread_mutex_t mutex;
    size_t max_bytes, bytes;
    Entry entries[MOST_RESPONSES];
    size_t n;
    uint64_t clock;
    uint64_t seed; /* so that nobody can choose ids of one bucket */
    Item *buckets[BUCKETS];
    Journal *journal; /* NULL: memory alone */
    uint64_t last;    /* its last key */
};

ResponseStore *responses_store_new(size_t max_bytes)
{
    ResponseStore *s = calloc(1, sizeof *s);
    if (!s || RAND_bytes((unsigned char *)&s->seed, sizeof s->seed) != 1) {
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->mutex, NULL);
    s->max_bytes = max_bytes;
    return s;
}

/* ---- links ------------------------------------------------------------------------ */

static size_t link_bytes(const Link *l)
{
    return sizeof *l + l->text.cap + l->ids.cap + l->n_items * sizeof *l->items;
}

static void forget_items(Link *l)
{
    for (size_t i = 0; i < l->n_items; i++) {
        Item *item = &l->items[i];
        if (!item->at)
            continue;
        *item->at = item->next;
        if (item->next)
            item->next->at = item->at;
    }
}

static void free_link(Link *l)
{
    if (!l)
        return;
    bytes_release(&l->text);
    bytes_release(&l->ids);
    free(l->items);
    free(l);
}

static void drop_link(ResponseStore *s, Link *l)
{
    while (l && --l->refs == 0) {
        Link *before = l->before;
        s->bytes -= link_bytes(l);
        forget_items(l);
        journal_drop(s->journal, l->key);
        free_link(l);
        l = before;
    }
}

/* Appends list[from..] to the link: of the views only the lengths, while the
 * texts may still move. */
static void put_items(Link *l, const Json *list, size_t from, bool ours)
{
    for (size_t i = from; i < json_length(list); i++) {
        Item *item = &l->items[l->n_items++];
        Str id = json_text(json_member(json_at(list, i), "id"));
        if (l->text.n)
            bytes_byte(&l->text, ',');
        item->text.n = l->text.n;
        json_write(&l->text, json_at(list, i));
        item->text.n = l->text.n - item->text.n;
        item->id.n = id.n;
        bytes_put(&l->ids, id.p, id.n);
        bytes_byte(&l->ids, 0);
        item->link = l;
        item->ours = ours;
    }
}

static void place_items(Link *l)
{
    const char *text = l->text.p, *id = l->ids.p;
    for (size_t i = 0; i < l->n_items; i++) {
        l->items[i].text.p = text;
        l->items[i].id.p = id;
        text += l->items[i].text.n + 1;
        id += l->items[i].id.n + 1;
    }
}

/* One that has its items, and one reference. */
static void go_on_from(Link *l, Link *before)
{
    l->refs = 1;
    l->before = before;
    l->total = l->n_items + (before ? before->total : 0);
    l->chain_bytes = link_bytes(l) + (before ? before->chain_bytes : 0);
}

/* What of k is not in the chain that ends with `before`, which is held for it. */
static Link *new_link(const KeptResponse *k, Link *before)
{
    size_t skip = before ? MIN(before->total, json_length(k->input)) : 0;
    size_t n = json_length(k->input) - skip + json_length(k->output);
    Link *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->items = calloc(n + 1, sizeof *l->items);
    if (l->items) {
        put_items(l, k->input, skip, false);
        put_items(l, k->output, 0, true);
    }
    if (!l->items || l->text.failed || l->ids.failed) {
        free_link(l);
        return NULL;
    }
    place_items(l);
    go_on_from(l, before);
    return l;
}

static Item **bucket_of(ResponseStore *s, Str id)
{
    return &s->buckets[XXH3_64bits_withSeed(id.p, id.n, s->seed) % BUCKETS];
}

/* The newest of two with one id is found first. */
static void publish_items(ResponseStore *s, Link *l)
{
    for (size_t i = 0; i < l->n_items; i++) {
        Item *item = &l->items[i], **bucket = bucket_of(s, item->id);
        if (!item->id.n)
            continue;
        item->at = bucket;
        item->next = *bucket;
        if (item->next)
            item->next->at = &item->next;
        *bucket = item;
    }
}

/* ---- in the journal ------------------------------------------------------------------
 *
 *   u64 key of the link before, 0: none; u32 items
 *   each item: u32 bytes of its text, u32 of its id, u32 1 of an answer
 *   u32 bytes of the items, their ids, the answer's id, the answer; and these
 */

/* Changes with the form of a record. */
enum { RECORD_VERSION = 1 };

#define MOST_RECORD ((size_t)64 << 20)

/* e: the link's answer, NULL: it has none. */
static void write_down(ResponseStore *s, Link *l, const Entry *e)
{
    const Str parts[] = { bytes_view(&l->text), bytes_view(&l->ids),
                          e ? bytes_view(&e->id) : (Str){ 0 },
                          e ? bytes_view(&e->reply) : (Str){ 0 } };
    Bytes record = { 0 };
    if (!s->journal)
        return;
    if (!l->key)
        l->key = ++s->last;
    bytes_u64(&record, l->before ? l->before->key : 0);
    bytes_u32(&record, (uint32_t)l->n_items);
    for (size_t i = 0; i < l->n_items; i++) {
        bytes_u32(&record, (uint32_t)l->items[i].text.n);
        bytes_u32(&record, (uint32_t)l->items[i].id.n);
        bytes_u32(&record, l->items[i].ours);
    }
    for (size_t i = 0; i < COUNT(parts); i++)
        bytes_u32(&record, (uint32_t)parts[i].n);
    for (size_t i = 0; i < COUNT(parts); i++)
        bytes_put(&record, parts[i].p, parts[i].n);
    if (!record.failed)
        journal_put(s->journal, l->key, bytes_view(&record));
    bytes_release(&record);
}

static bool copy_part(Bytes *to, Record *from, size_t n)
{
    Str s = record_bytes(from, n);
    bytes_put(to, s.p, s.n);
    return !from->bad && !to->failed;
}

/* The sizes of the items add up to what they lie in. */
static bool sizes_fit(const Link *l)
{
    size_t text = 0, ids = 0;
    for (size_t i = 0; i < l->n_items; i++) {
        text += l->items[i].text.n + (i > 0);
        ids += l->items[i].id.n + 1;
    }
    return text == l->text.n && ids == l->ids.n;
}

static void read_items(Link *l, Record *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Item *item = &l->items[l->n_items++];
        item->link = l;
        item->text.n = record_u32(r);
        item->id.n = record_u32(r);
        item->ours = record_u32(r);
    }
}

/* A link of a record, and its answer, whose id may be empty. NULL: it is damaged. */
static Link *read_link(Str record, uint64_t *before, Entry *e)
{
    Record r = { record, false };
    Link *l = calloc(1, sizeof *l);
    *before = record_u64(&r);
    size_t n = record_count(&r, 12), size[4];
    if (l && (l->items = calloc(n + 1, sizeof *l->items)))
        read_items(l, &r, n);
    for (size_t i = 0; i < COUNT(size); i++)
        size[i] = record_u32(&r);
    bool ok = l && l->items && copy_part(&l->text, &r, size[0]) &&
              copy_part(&l->ids, &r, size[1]) && copy_part(&e->id, &r, size[2]) &&
              copy_part(&e->reply, &r, size[3]) && record_done(&r) && sizes_fit(l);
    if (ok) {
        place_items(l);
        return l;
    }
    free_link(l);
    return NULL;
}

/* ---- entries ----------------------------------------------------------------------- */

static Entry *find_entry(ResponseStore *s, Str id)
{
    for (size_t i = 0; i < s->n; i++)
        if (str_eq(bytes_view(&s->entries[i].id), id)) {
            s->entries[i].used = ++s->clock;
            return &s->entries[i];
        }
    return NULL;
}

static size_t entry_bytes(const Entry *e) { return e->id.cap + e->reply.cap; }

static void drop_entry(ResponseStore *s, Entry *e)
{
    s->bytes -= entry_bytes(e);
    bytes_release(&e->id);
    bytes_release(&e->reply);
    drop_link(s, e->link);
    *e = s->entries[--s->n];
}

static void drop_oldest(ResponseStore *s)
{
    Entry *oldest = &s->entries[0];
    for (size_t i = 1; i < s->n; i++)
        if (s->entries[i].used < oldest->used)
            oldest = &s->entries[i];
    drop_entry(s, oldest);
}

void responses_store_free(ResponseStore *s)
{
    if (!s)
        return;
    s->journal = NULL; /* there it stays */
    while (s->n)
        drop_oldest(s);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* The link of a kept answer, or NULL; to be given back with release. */
static Link *hold(ResponseStore *s, Str id)
{
    pthread_mutex_lock(&s->mutex);
    Entry *e = id.n ? find_entry(s, id) : NULL;
    Link *l = e ? e->link : NULL;
    if (l)
        l->refs++;
    pthread_mutex_unlock(&s->mutex);
    return l;
}

static void release(ResponseStore *s, Link *l)
{
    pthread_mutex_lock(&s->mutex);
    drop_link(s, l);
    pthread_mutex_unlock(&s->mutex);
}

/* Takes over *e; anew: it is not in the journal. False: even alone it is too much, and
 * nothing else went. */
static bool add_entry(ResponseStore *s, Entry *e, bool anew)
{
    size_t bytes = entry_bytes(e) + link_bytes(e->link);
    if (entry_bytes(e) + e->link->chain_bytes > s->max_bytes)
        return false;
    pthread_mutex_lock(&s->mutex);
    while (s->n && (s->n == MOST_RESPONSES || s->bytes + bytes > s->max_bytes))
        drop_oldest(s);
    e->used = ++s->clock;
    s->entries[s->n++] = *e;
    s->bytes += bytes;
    publish_items(s, e->link);
    if (anew)
        write_down(s, e->link, e);
    pthread_mutex_unlock(&s->mutex);
    return true;
}

/* Where the answer before has gone, all of the input is new. */
bool responses_keep(ResponseStore *s, const KeptResponse *k)
{
    Link *before = hold(s, k->previous);
    Entry e = { .link = new_link(k, before) };
    bytes_put(&e.id, k->id.p, k->id.n);
    bytes_put(&e.reply, k->reply.p, k->reply.n);
    if (e.link && !e.id.failed && !e.reply.failed && add_entry(s, &e, true))
        return true;
    free_link(e.link);
    bytes_release(&e.id);
    bytes_release(&e.reply);
    release(s, before);
    return false;
}

/* ---- after a restart ------------------------------------------------------------------ */

/* What the journal tells, in the order of its writing: a link that was written again
 * comes after those that go on from it. */
typedef struct {
    uint64_t key, before;
    Link *link; /* NULL: damaged */
    Entry entry;
} Restored;

typedef struct {
    Restored *list;
    size_t n, cap;
} Restoring;

/* A JournalOptions.each. */
static void bring_back(void *user, uint64_t key, Str record)
{
    Restoring *all = user;
    if (all->n == all->cap) {
        size_t cap = MAX(2 * all->cap, (size_t)64);
        Restored *more = realloc(all->list, cap * sizeof *more);
        if (!more)
            return;
        all->list = more;
        all->cap = cap;
    }
    Restored *r = &all->list[all->n++];
    *r = (Restored){ .key = key };
    r->link = read_link(record, &r->before, &r->entry);
    if (r->link)
        r->link->key = key;
}

static int by_key(const void *a, const void *b)
{
    const Restored *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

/* The link with this key among the first n. */
static Link *link_of(const Restored *list, size_t n, uint64_t key)
{
    const Restored wanted = { .key = key };
    const Restored *r = n ? bsearch(&wanted, list, n, sizeof *list, by_key) : NULL;
    return r ? r->link : NULL;
}

/* Holds it once for ourselves: so what an answer pushes out may still be gone on from. */
static void put_back(ResponseStore *s, Restored *list, size_t i)
{
    Restored *r = &list[i];
    Link *before = r->before ? link_of(list, i, r->before) : NULL;
    if (r->link && r->before && !before) { /* its beginning is lost */
        free_link(r->link);
        r->link = NULL;
    }
    if (!r->link) {
        journal_drop(s->journal, r->key);
        return;
    }
    go_on_from(r->link, before);
    if (before)
        before->refs++;
    r->entry.link = r->link;
    r->link->refs++;
    if (r->entry.id.n && add_entry(s, &r->entry, false)) {
        r->entry = (Entry){ 0 };
        return;
    }
    r->link->refs--;
    s->bytes += link_bytes(r->link);
    publish_items(s, r->link);
}

static void let_go(ResponseStore *s, Restoring *all)
{
    for (size_t i = 0; i < all->n; i++) {
        bytes_release(&all->list[i].entry.id);
        bytes_release(&all->list[i].entry.reply);
        if (all->list[i].link)
            release(s, all->list[i].link);
    }
    free(all->list);
}

bool responses_persist(ResponseStore *s, Store *to, uint64_t max_bytes, size_t *count, ds4_err *err)
{
    Restoring all = { 0 };
    const JournalOptions opt = { .name = "responses",
                                 .version = RECORD_VERSION,
                                 .max_bytes = max_bytes,
                                 .max_record = MOST_RECORD,
                                 .each = bring_back,
                                 .user = &all };
    s->journal = journal_open(to, &opt, err);
    if (all.n) {
        qsort(all.list, all.n, sizeof *all.list, by_key);
        s->last = all.list[all.n - 1].key;
    }
    for (size_t i = 0; i < all.n; i++)
        put_back(s, all.list, i);
    *count = s->n;
    let_go(s, &all);
    return s->journal != NULL;
}

/* ---- asking ------------------------------------------------------------------------- */

/* "[all items of the chain]", from its end, which is what we have. */
static void put_chain(const Link *last, Bytes *out)
{
    size_t n = 0;
    for (const Link *l = last; l; l = l->before)
        n += l->text.n ? l->text.n + 1 : 0;
    n = MAX(n, (size_t)1) + 1;
    char *p = bytes_room(out, n), *end = p + n;
    if (!p)
        return;
    out->n += n;
    for (const Link *l = last; l; l = l->before) {
        if (!l->text.n)
            continue;
        *--end = ',';
        end -= l->text.n;
        memcpy(end, l->text.p, l->text.n);
    }
    p[0] = '[';
    p[n - 1] = ']';
}

Json *responses_find(ResponseStore *s, Str id)
{
    Link *l = hold(s, id);
    Bytes text = { 0 };
    Json *list = NULL;
    if (!l)
        return NULL;
    put_chain(l, &text);
    release(s, l);
    if (!text.failed)
        list = json_read(bytes_view(&text), NULL);
    bytes_release(&text);
    return list;
}

/* A conversation that is pointed into is in use. */
static void touch(ResponseStore *s, const Link *l)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i].link == l)
            s->entries[i].used = ++s->clock;
}

/* An answer's, else the newest: who sends items could give one the id of another. */
static const Item *find_item(ResponseStore *s, Str id)
{
    const Item *found = NULL;
    for (const Item *i = *bucket_of(s, id); i && !(found && found->ours); i = i->next)
        if (str_eq(i->id, id) && (!found || i->ours))
            found = i;
    return found;
}

bool responses_item(ResponseStore *s, Str id, Bytes *out)
{
    pthread_mutex_lock(&s->mutex);
    const Item *item = find_item(s, id);
    if (item) {
        bytes_put(out, item->text.p, item->text.n);
        touch(s, item->link);
    }
    pthread_mutex_unlock(&s->mutex);
    return item;
}

bool responses_get(ResponseStore *s, Str id, Bytes *out)
{
    pthread_mutex_lock(&s->mutex);
    const Entry *e = find_entry(s, id);
    if (e)
        bytes_put(out, e->reply.p, e->reply.n);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

bool responses_delete(ResponseStore *s, Str id)
{
    pthread_mutex_lock(&s->mutex);
    Entry *e = find_entry(s, id);
    bool found = e != NULL;
    if (found) {
        /* What others go on from stays, the answer does not. */
        if (e->link->refs > 1)
            write_down(s, e->link, NULL);
        drop_entry(s, e);
    }
    pthread_mutex_unlock(&s->mutex);
    return found;
}
