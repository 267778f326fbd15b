/* recall.c - what was sampled, put back where the client shows the same.
 *
 * An answer is found by its handle, by the ids of its calls, or by a hash of all
 * that is visible up to and with it; reasoning is not in the hash, since clients
 * may leave it out. However it is found, it counts only if what is visible of it
 * is what the client shows. The hash is seeded at random: nobody can prepare two
 * conversations that it takes for one. */
#include "recall.h"
#include "call_form.h"
#include "recall_record.h"
#include "recall_store.h"
#include "../base/utf8.h"
#include "../store/journal.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

/* MOST_ALIKE: answers of one name that are looked at, so that many answers to one
 * question make none of them slow to find. */
enum { DEFAULT_ENTRIES = 100000, DEFAULT_BYTES = 256 << 20, MOST_ALIKE = 64 };

struct Recall {
    pthread_mutex_t mutex;
    RecallStore store;
    uint64_t seed;         /* of names */
    unsigned char key[32]; /* of handles */

    Journal *journal; /* NULL: memory alone */
    uint64_t words;   /* the vocabulary's digest */
    uint64_t last;    /* the journal's last key */
    size_t restored;
};

Recall *recall_new(size_t max_entries, size_t max_bytes, ds4_err *err)
{
    Recall *r = calloc(1, sizeof *r);
    if (!r || !recall_store_init(&r->store, max_entries ? max_entries : DEFAULT_ENTRIES,
                                 max_bytes ? max_bytes : DEFAULT_BYTES)) {
        free(r);
        fail(err, DS4_ENOMEM, "no memory for the table of sampled answers");
        return NULL;
    }
    pthread_mutex_init(&r->mutex, NULL);
    if (RAND_bytes(r->key, sizeof r->key) != 1 ||
        RAND_bytes((unsigned char *)&r->seed, sizeof r->seed) != 1) {
        fail(err, DS4_EIO, "the system gives no random bytes for the key of handles");
        recall_free(r);
        return NULL;
    }
    return r;
}

void recall_free(Recall *r)
{
    if (!r)
        return;
    recall_store_release(&r->store);
    pthread_mutex_destroy(&r->mutex);
    OPENSSL_cleanse(r->key, sizeof r->key);
    free(r);
}

/* ---- after a restart ------------------------------------------------------------------ */

/* An answer longer than this is not worth its place on the disk. */
#define MOST_RECORD ((size_t)8 << 20)

/* Another secret for each purpose. */
static bool derive(unsigned char *out, size_t n, const uint8_t secret[32], const char *purpose)
{
    unsigned char whole[EVP_MAX_MD_SIZE];
    unsigned got = 0;
    bool ok = HMAC(EVP_sha256(), secret, 32, (const unsigned char *)purpose, strlen(purpose), whole,
                   &got) &&
              got >= n;
    if (ok)
        memcpy(out, whole, n);
    OPENSSL_cleanse(whole, sizeof whole);
    return ok;
}

static uint64_t digest_of(const ds4_vocab *v)
{
    XXH64_hash_t digest = 0;
    for (int i = 0; i < vocab_size(v); i++) {
        Str word = vocab_bytes(v, i);
        digest = XXH3_64bits_withSeed(word.p, word.n, digest + 1);
    }
    return digest;
}

/* A JournalOptions.each: those of other models stay where they are. */
static void bring_back(void *recall, uint64_t key, Str record)
{
    Recall *r = recall;
    RecalledRecord read;
    r->last = MAX(r->last, key);
    if (!recall_record_read(&read, record))
        return;
    read.kept.key = key;
    if (read.words == r->words && recall_store_add(&r->store, &read.kept, read.names, read.n_names))
        r->restored++;
    recall_record_release(&read);
}

static void forgotten(void *recall, const Kept *k)
{
    Recall *r = recall;
    if (k->key)
        journal_drop(r->journal, k->key);
}

bool recall_persist(Recall *r, Store *s, const ds4_vocab *v, uint64_t max_bytes, size_t *count,
                    ds4_err *err)
{
    uint8_t secret[32];
    const JournalOptions opt = { .name = "answers",
                                 .version = RECALL_RECORD_VERSION,
                                 .max_bytes = max_bytes,
                                 .max_record = MOST_RECORD,
                                 .each = bring_back,
                                 .user = r };
    *count = 0;
    if (!store_secret(s, secret, err))
        return false;
    bool ok = (derive(r->key, sizeof r->key, secret, "handles") &&
               derive((unsigned char *)&r->seed, sizeof r->seed, secret, "names of answers")) ||
              fail(err, DS4_ENOMEM, "no memory for the key of handles");
    OPENSSL_cleanse(secret, sizeof secret);
    if (!ok)
        return false;
    r->words = digest_of(v);
    r->journal = journal_open(s, &opt, err);
    r->store.forgotten = forgotten;
    r->store.user = r;
    *count = r->store.oldest ? r->restored : 0;
    return r->journal != NULL;
}

/* ---- handles ------------------------------------------------------------------------ */

/* version, 128 random bits, MAC of both: 33 bytes are 44 characters without padding. */
enum { VERSION = 1, RANDOM = 16, MAC = 16, RAW = 1 + RANDOM + MAC, TEXT = RAW / 3 * 4 };
_Static_assert(RAW % 3 == 0 && TEXT < (int)RECALL_HANDLE, "a handle has no padding, and fits");

static bool make_mac(const Recall *r, const unsigned char raw[RAW], unsigned char mac[MAC])
{
    unsigned char whole[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!HMAC(EVP_sha256(), r->key, sizeof r->key, raw, 1 + RANDOM, whole, &n) || n < MAC)
        return false;
    memcpy(mac, whole, MAC);
    return true;
}

static void swap_char(char *text, char from, char to)
{
    for (; *text; text++)
        if (*text == from)
            *text = to;
}

void recall_handle(Recall *r, char out[RECALL_HANDLE])
{
    unsigned char raw[RAW] = { VERSION };
    out[0] = 0;
    if (RAND_bytes(raw + 1, RANDOM) != 1 || !make_mac(r, raw, raw + 1 + RANDOM))
        return;
    EVP_EncodeBlock((unsigned char *)out, raw, RAW);
    swap_char(out, '+', '-');
    swap_char(out, '/', '_');
}

/* Was it made by this process, or one with its directory? */
static bool is_ours(const Recall *r, Str handle)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char raw[RAW], mac[MAC];
    char text[TEXT + 1];
    if (handle.n != TEXT)
        return false;
    memcpy(text, handle.p, TEXT);
    text[TEXT] = 0;
    if (strspn(text, alphabet) != TEXT)
        return false;
    swap_char(text, '-', '+');
    swap_char(text, '_', '/');
    return EVP_DecodeBlock(raw, (unsigned char *)text, TEXT) == RAW && raw[0] == VERSION &&
           make_mac(r, raw, mac) && CRYPTO_memcmp(mac, raw + 1 + RANDOM, MAC) == 0;
}

/* ---- what is visible ------------------------------------------------------------------- */

static bool is_space(char c) { return c && strchr(" \t\n\v\f\r", c); }

static Str trimmed(Str s)
{
    while (s.n && is_space(s.p[0]))
        s = (Str){ s.p + 1, s.n - 1 };
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* s as it comes back: by way of JSON, which replaces what is no UTF-8, and of a
 * reader who drops NULs. */
static void put_returned(Bytes *out, Str s)
{
    while (s.n) {
        size_t n = utf8_valid(s);
        for (size_t i = 0; i < n; i++)
            if (s.p[i])
                bytes_byte(out, (unsigned char)s.p[i]);
        if (n < s.n)
            bytes_str(out, "\xEF\xBF\xBD");
        n = MIN(n + 1, s.n);
        s = (Str){ s.p + n, s.n - n };
    }
}

static void put_forms(Bytes *out, const ChatCall *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        call_form(out, &calls[i]);
}

/* A conversation, heard from its start: each message is hashed with what was said
 * before it, so that who knows that may go on from there. */
typedef struct {
    XXH3_state_t *hash;
    uint64_t seed;
    XXH128_hash_t said;
    Bytes forms; /* of the last message's calls */
} Heard;

static bool hear_nothing(Heard *h, const Recall *r)
{
    *h = (Heard){ .hash = XXH3_createState(), .seed = r->seed };
    return h->hash != NULL;
}

static void heard_release(Heard *h)
{
    XXH3_freeState(h->hash);
    bytes_release(&h->forms);
}

static void hear_part(Heard *h, Str s)
{
    uint64_t n = s.n;
    XXH3_128bits_update(h->hash, &n, sizeof n);
    if (n)
        XXH3_128bits_update(h->hash, s.p, s.n);
}

static void hear(Heard *h, const ChatMessage *m)
{
    char role = (char)m->role;
    bytes_clear(&h->forms);
    put_forms(&h->forms, m->calls, m->n_calls);
    XXH3_128bits_reset_withSeed(h->hash, h->seed);
    XXH3_128bits_update(h->hash, &h->said, sizeof h->said);
    hear_part(h, (Str){ &role, 1 });
    hear_part(h, trimmed(m->content));
    hear_part(h, bytes_view(&h->forms));
    hear_part(h, m->response_format);
    XXH3_128bits_update(h->hash, &m->n_tools, sizeof m->n_tools);
    for (size_t i = 0; i < m->n_tools; i++)
        hear_part(h, m->tools[i]);
    h->said = XXH3_128bits_digest(h->hash);
}

/* Names of different kinds are hashed with different seeds. */
static XXH128_hash_t name_of_handle(const Recall *r, Str handle)
{
    return XXH3_128bits_withSeed(handle.p, handle.n, r->seed + 1);
}

static XXH128_hash_t name_of_call(const Recall *r, Str id)
{
    return XXH3_128bits_withSeed(id.p, id.n, r->seed + 2);
}

/* ---- keeping --------------------------------------------------------------------------- */

/* The text of the conversation up to the end of the answer. That before it has
 * been heard on a worker: here other answers wait. */
static bool name_of_text(const Recall *r, const Turn *t, const ChatMessage *answer,
                         XXH128_hash_t *name, Bytes *forms)
{
    Heard h;
    bool ok = hear_nothing(&h, r);
    h.said = (XXH128_hash_t){ t->said[0], t->said[1] };
    for (size_t i = 0; i < t->n_messages && ok && !t->heard; i++)
        hear(&h, &t->messages[i]);
    if (ok) {
        hear(&h, answer);
        *name = h.said;
        bytes_put(forms, h.forms.p, h.forms.n);
        ok = !h.forms.failed && !forms->failed;
    }
    heard_release(&h);
    return ok;
}

/* In memory, and in the journal where there is one. */
static bool store_add(Recall *r, Kept *k, const XXH128_hash_t *names, size_t n)
{
    Bytes record = { 0 };
    if (r->journal)
        recall_record_write(&record, r->words, k, names, n);
    pthread_mutex_lock(&r->mutex);
    k->key = record.n && !record.failed ? ++r->last : 0;
    bool ok = recall_store_add(&r->store, k, names, n);
    if (ok && k->key)
        journal_put(r->journal, k->key, bytes_view(&record));
    pthread_mutex_unlock(&r->mutex);
    bytes_release(&record);
    return ok;
}

static bool add(Recall *r, Kept *k, const ChatCall *calls, XXH128_hash_t by_text)
{
    XXH128_hash_t *names = calloc(k->n_calls + 2, sizeof *names);
    Str *ids = calloc(k->n_calls + 1, sizeof *ids);
    size_t n = 0;
    bool ok = names && ids;
    if (ok) {
        names[n++] = by_text;
        if (k->handle.n)
            names[n++] = name_of_handle(r, k->handle);
        for (size_t i = 0; i < k->n_calls; i++) {
            ids[i] = calls[i].id;
            names[n++] = name_of_call(r, ids[i]);
        }
        k->call_ids = ids;
        ok = store_add(r, k, names, n);
    }
    free(names);
    free(ids);
    return ok;
}

bool recall_keep(Recall *r, const Turn *t, const Sampled *s)
{
    Bytes reasoning = { 0 }, content = { 0 }, forms = { 0 };
    XXH128_hash_t by_text;
    if (t->raw || !t->n_messages || t->messages[t->n_messages - 1].unfinished || !s->n_ids)
        return false;
    put_returned(&reasoning, s->reasoning);
    put_returned(&content, trimmed(s->content));
    ChatMessage answer = { .role = CHAT_ASSISTANT,
                           .content = bytes_view(&content),
                           .calls = s->calls,
                           .n_calls = s->n_calls };
    bool ok = !reasoning.failed && !content.failed && name_of_text(r, t, &answer, &by_text, &forms);
    Kept k = { .handle = str_of(s->handle),
               .reasoning = bytes_view(&reasoning),
               .content = bytes_view(&content),
               .forms = bytes_view(&forms),
               .n_calls = s->n_calls,
               .ids = s->ids,
               .n_ids = s->n_ids };
    ok = ok && add(r, &k, s->calls, by_text);
    bytes_release(&reasoning);
    bytes_release(&content);
    bytes_release(&forms);
    return ok;
}

/* ---- putting back ------------------------------------------------------------------------ */

/* A message of an assistant, and what it may be known by. */
typedef struct {
    Recall *r;
    const ChatMessage *m;
    Str forms;
    bool ours;  /* its handle was made here */
    bool known; /* by one of its names */
} Shown;

static bool same(const Kept *k, const Shown *s)
{
    Str reasoning = trimmed(s->m->reasoning);
    return str_eq(k->content, trimmed(s->m->content)) && str_eq(k->forms, s->forms) &&
           (!reasoning.n || str_eq(reasoning, trimmed(k->reasoning)));
}

static bool same_ids(const Kept *k, const ChatMessage *m)
{
    bool ok = k->n_calls == m->n_calls;
    for (size_t i = 0; ok && i < m->n_calls; i++)
        ok = str_eq(k->call_ids[i], m->calls[i].id);
    return ok;
}

/* by_call: its calls must have the same ids, too. */
static Kept *find(Shown *s, XXH128_hash_t key, bool by_call)
{
    const KeptName *name = recall_store_find(&s->r->store, key);
    for (int i = 0; name && i < MOST_ALIKE; i++, name = recall_store_next(name)) {
        s->known = true;
        if (same(name->kept, s) && (!by_call || same_ids(name->kept, s->m)))
            return name->kept;
    }
    return NULL;
}

static Kept *find_by_handle(Shown *s, Str handle)
{
    s->ours = is_ours(s->r, handle);
    return s->ours ? find(s, name_of_handle(s->r, handle), false) : NULL;
}

static Kept *find_by_call(Shown *s)
{
    Kept *k = NULL;
    for (size_t i = 0; !k && i < s->m->n_calls; i++)
        k = find(s, name_of_call(s->r, s->m->calls[i].id), true);
    return k;
}

/* The reasoning goes with the ids: it says what those without </think> are. */
static bool put_back(Arena *a, ChatMessage *m, const Kept *k)
{
    int32_t *ids = arena_array(a, k->n_ids, sizeof *ids);
    char *reasoning = m->reasoning.n ? NULL : arena_str(a, k->reasoning);
    if (!ids || (!m->reasoning.n && !reasoning))
        return false;
    memcpy(ids, k->ids, k->n_ids * sizeof *ids);
    m->ids = ids;
    m->n_ids = k->n_ids;
    if (reasoning)
        m->reasoning = (Str){ reasoning, k->reasoning.n };
    return true;
}

static void apply(Recall *r, Turn *t, size_t i, const Heard *h, RecallCount *count)
{
    ChatMessage *m = &t->messages[i];
    Shown s = { .r = r, .m = m, .forms = bytes_view(&h->forms) };
    size_t *counter = &count->by_handle;
    pthread_mutex_lock(&r->mutex);
    Kept *k = find_by_handle(&s, t->handles[i]);
    if (!k) {
        counter = &count->by_call;
        k = find_by_call(&s);
    }
    if (!k) {
        counter = &count->by_text;
        k = find(&s, h->said, false);
    }
    if (k && put_back(&t->arena, m, k)) {
        recall_store_use(&r->store, k);
        ++*counter;
    }
    pthread_mutex_unlock(&r->mutex);
    count->edited += !k && s.known;
    count->forgotten += !k && !s.known && s.ours;
}

void recall_apply(Recall *r, Turn *t, RecallCount *count)
{
    Heard h;
    *count = (RecallCount){ 0 };
    bool ok = hear_nothing(&h, r);
    for (size_t i = 0; i < t->n_messages && ok; i++) {
        hear(&h, &t->messages[i]);
        ok = !h.forms.failed;
        if (ok && t->messages[i].role == CHAT_ASSISTANT && !t->messages[i].n_ids)
            apply(r, t, i, &h, count);
    }
    t->heard = ok;
    t->said[0] = ok ? h.said.low64 : 0;
    t->said[1] = ok ? h.said.high64 : 0;
    heard_release(&h);
}
