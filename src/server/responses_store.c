/* responses_store.c - kept answers, and the conversations that they belong to.
 *
 * An answer is an entry of a short list. What was said is a chain of links, each
 * with the items of one request and its answer, as texts: json-c's counts of
 * references are not for threads. An entry holds the link of its answer, a link
 * the one before it. */
#include "responses_store.h"
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
    l->refs = 1;
    l->before = before;
    l->total = n + (before ? before->total : 0);
    l->chain_bytes = link_bytes(l) + (before ? before->chain_bytes : 0);
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

/* Takes over *e. False: even alone it is too much, and nothing else went. */
static bool add_entry(ResponseStore *s, Entry *e)
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
    if (e.link && !e.id.failed && !e.reply.failed && add_entry(s, &e))
        return true;
    free_link(e.link);
    bytes_release(&e.id);
    bytes_release(&e.reply);
    release(s, before);
    return false;
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
    if (e)
        drop_entry(s, e);
    pthread_mutex_unlock(&s->mutex);
    return e;
}
