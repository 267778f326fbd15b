/* tool_memory.c - blocks of tools by conversation.
 *
 * They lie in a list, the one used last in front: to walk all of it costs
 * microseconds, once a request. The hash is seeded at random: nobody can prepare
 * two conversations that it takes for one. */
#include "tool_memory.h"
#include "record.h"
#include "tools_in.h"
#include "../store/journal.h"
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

enum { DEFAULT_CONVERSATIONS = 1024, DEFAULT_BYTES = 32 << 20 };

/* A tool of a block, and its line there. */
typedef struct {
    Str name, line;
} KnownTool;

/* One block of memory holds it all. */
typedef struct Known Known;
struct Known {
    Known *next; /* used before */
    XXH128_hash_t key;
    uint64_t record; /* its key in the journal; 0: it is not there */
    size_t bytes, n;
    KnownTool tool[]; /* [n], then their texts */
};

struct ToolMemory {
    pthread_mutex_t mutex;
    Known *newest;
    size_t n, max_n, bytes, max_bytes;
    uint64_t seed;
    Journal *journal; /* NULL: memory alone */
    uint64_t last;    /* its last key */
};

ToolMemory *tool_memory_new(size_t max_conversations, size_t max_bytes, ds4_err *err)
{
    ToolMemory *m = calloc(1, sizeof *m);
    if (!m) {
        fail(err, DS4_ENOMEM, "no memory for the tools of conversations");
        return NULL;
    }
    m->max_n = max_conversations ? max_conversations : DEFAULT_CONVERSATIONS;
    m->max_bytes = max_bytes ? max_bytes : DEFAULT_BYTES;
    if (RAND_bytes((unsigned char *)&m->seed, sizeof m->seed) != 1) {
        fail(err, DS4_EIO, "the system gives no random bytes for the hash of conversations");
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->mutex, NULL);
    return m;
}

/* ---- which conversation it is ---------------------------------------------------------- */

static const ChatMessage *first_of(const Turn *t, enum ChatRole role)
{
    for (size_t i = 0; i < t->n_messages; i++)
        if (t->messages[i].role == (int)role)
            return &t->messages[i];
    return NULL;
}

static Str content_of(const ChatMessage *m) { return m ? m->content : (Str){ 0 }; }

static bool key_of(const ToolMemory *m, const Turn *t, XXH128_hash_t *key)
{
    const Str parts[] = { t->session, t->agent, content_of(first_of(t, CHAT_SYSTEM)),
                          content_of(first_of(t, CHAT_USER)) };
    XXH3_state_t *hash = XXH3_createState();
    bool ok = hash && XXH3_128bits_reset_withSeed(hash, m->seed) == XXH_OK;
    for (size_t i = 0; i < COUNT(parts) && ok; i++) {
        uint64_t n = parts[i].n;
        XXH3_128bits_update(hash, &n, sizeof n);
        if (n)
            XXH3_128bits_update(hash, parts[i].p, parts[i].n);
    }
    if (ok)
        *key = XXH3_128bits_digest(hash);
    XXH3_freeState(hash);
    return ok;
}

/* Where it is linked; NULL there: it is not known. */
static Known **place_of(ToolMemory *m, XXH128_hash_t key)
{
    Known **at = &m->newest;
    while (*at && !XXH128_isEqual((*at)->key, key))
        at = &(*at)->next;
    return at;
}

/* ---- blocks ------------------------------------------------------------------------------ */

/* The tools of a turn's block, one after the other; NULL: there is no other. */
static const Tool *next_shown(const Turn *t, size_t *at)
{
    while (*at < t->n_tools && t->tools[*at].deferred)
        ++*at;
    return *at < t->n_tools ? &t->tools[(*at)++] : NULL;
}

static size_t block_size(const Turn *t, size_t *n_tools)
{
    size_t n = sizeof(Known), at = 0;
    *n_tools = 0;
    for (const Tool *tool; (tool = next_shown(t, &at)); ++*n_tools)
        n += sizeof(KnownTool) + tool->name.n + tool->function.n;
    return n;
}

static Str copy_str(char **p, Str s)
{
    char *at = *p;
    *p += s.n;
    if (s.n)
        memcpy(at, s.p, s.n);
    return (Str){ at, s.n };
}

static Known *copy_block(const Turn *t, XXH128_hash_t key, size_t bytes, size_t n)
{
    Known *k = malloc(bytes);
    size_t at = 0;
    if (!k)
        return NULL;
    *k = (Known){ .key = key, .bytes = bytes, .n = n };
    char *p = (char *)(k->tool + n);
    for (size_t i = 0; i < n; i++) {
        const Tool *tool = next_shown(t, &at);
        k->tool[i].name = copy_str(&p, tool->name);
        k->tool[i].line = copy_str(&p, tool->function);
    }
    return k;
}

/* ---- in the journal -----------------------------------------------------------------------
 *
 *   16 bytes of the conversation's key; u32 tools
 *   each: u32 bytes of its name, u32 of its line, and these
 */

/* Changes with the form of a record. */
enum { RECORD_VERSION = 1, MOST_RECORD = 4 << 20 };

/* Of the hash of conversations, so that it is no other secret's. */
enum { SEED_OF_TOOLS = 0x746f6f6c };

static void write_down(ToolMemory *m, Known *k)
{
    Bytes record = { 0 };
    if (!m->journal)
        return;
    bytes_u64(&record, k->key.low64);
    bytes_u64(&record, k->key.high64);
    bytes_u32(&record, (uint32_t)k->n);
    for (size_t i = 0; i < k->n; i++) {
        const KnownTool *tool = &k->tool[i];
        bytes_u32(&record, (uint32_t)tool->name.n);
        bytes_u32(&record, (uint32_t)tool->line.n);
        bytes_put(&record, tool->name.p, tool->name.n);
        bytes_put(&record, tool->line.p, tool->line.n);
    }
    if (!record.failed) {
        k->record = ++m->last;
        journal_put(m->journal, k->record, bytes_view(&record));
    }
    bytes_release(&record);
}

/* NULL: it is damaged, or there is no memory. */
static Known *read_known(Str record)
{
    Record r = { record, false };
    XXH128_hash_t key;
    key.low64 = record_u64(&r);
    key.high64 = record_u64(&r);
    size_t n = record_count(&r, 8), bytes = sizeof(Known) + n * sizeof(KnownTool) + r.left.n;
    Known *k = malloc(bytes);
    if (!k)
        return NULL;
    *k = (Known){ .key = key, .bytes = bytes, .n = n };
    char *p = (char *)(k->tool + n);
    for (size_t i = 0; i < n; i++) {
        size_t name = record_u32(&r), line = record_u32(&r);
        k->tool[i].name = copy_str(&p, record_bytes(&r, name));
        k->tool[i].line = copy_str(&p, record_bytes(&r, line));
    }
    if (record_done(&r))
        return k;
    free(k);
    return NULL;
}

/* ---- remembering ------------------------------------------------------------------------- */

static void link_newest(ToolMemory *m, Known *k)
{
    k->next = m->newest;
    m->newest = k;
}

static void forget(ToolMemory *m, Known **at)
{
    Known *k = *at;
    *at = k->next;
    m->n--;
    m->bytes -= k->bytes;
    if (k->record)
        journal_drop(m->journal, k->record);
    free(k);
}

static Known **oldest(ToolMemory *m)
{
    Known **at = &m->newest;
    while ((*at)->next)
        at = &(*at)->next;
    return at;
}

/* Takes over *k; others make room. */
static void add_known(ToolMemory *m, Known *k)
{
    link_newest(m, k);
    m->n++;
    m->bytes += k->bytes;
    while (m->n > m->max_n || m->bytes > m->max_bytes)
        forget(m, oldest(m));
}

/* Does the block say what is known already? */
static bool is_same(const Known *k, const Turn *t, size_t n)
{
    size_t at = 0;
    bool same = k->n == n;
    for (size_t i = 0; i < n && same; i++)
        same = str_eq(k->tool[i].line, next_shown(t, &at)->function);
    return same;
}

static void remember(ToolMemory *m, const Turn *t, XXH128_hash_t key, Known **before)
{
    size_t n, bytes = block_size(t, &n);
    Known *k = *before;
    if (n == 0)
        return;
    if (k && is_same(k, t, n)) {
        *before = k->next;
        link_newest(m, k);
        return;
    }
    if (k)
        forget(m, before);
    k = bytes <= m->max_bytes ? copy_block(t, key, bytes, n) : NULL;
    if (!k)
        return;
    write_down(m, k);
    add_known(m, k);
}

/* A JournalOptions.each. */
static void bring_back(void *memory, uint64_t key, Str record)
{
    ToolMemory *m = memory;
    Known *k = read_known(record);
    m->last = MAX(m->last, key);
    if (!k)
        return;
    k->record = key;
    if (k->bytes <= m->max_bytes)
        add_known(m, k);
    else
        free(k);
}

bool tool_memory_persist(ToolMemory *m, Store *s, uint64_t max_bytes, ds4_err *err)
{
    uint8_t secret[32];
    const JournalOptions opt = { .name = "tools",
                                 .version = RECORD_VERSION,
                                 .max_bytes = max_bytes,
                                 .max_record = MOST_RECORD,
                                 .each = bring_back,
                                 .user = m };
    if (!store_secret(s, secret, err))
        return false;
    m->seed = XXH3_64bits_withSeed(secret, sizeof secret, SEED_OF_TOOLS);
    OPENSSL_cleanse(secret, sizeof secret);
    m->journal = journal_open(s, &opt, err);
    return m->journal != NULL;
}

void tool_memory_free(ToolMemory *m)
{
    if (!m)
        return;
    m->journal = NULL; /* there it stays */
    while (m->newest)
        forget(m, &m->newest);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

/* ---- putting back ------------------------------------------------------------------------ */

/* Are the tools of the turn's block some of the known one's, in its order? One that
 * is declared, but not in the block, must have stayed the same, too. */
static bool is_part(const Known *k, const Turn *t)
{
    size_t at = 0;
    const Tool *tool = next_shown(t, &at);
    for (size_t i = 0; i < k->n; i++) {
        Str line = k->tool[i].line;
        const Tool *other = tools_find(t, k->tool[i].name);
        if (tool && str_eq(tool->function, line))
            tool = next_shown(t, &at);
        else if (other && !str_eq(other->function, line))
            return false;
    }
    return !tool;
}

/* Gives the system message these tools; there may be none yet. */
static bool set_block(Turn *t, const Str *lines, size_t n)
{
    if (!t->n_messages || t->messages[0].role != CHAT_SYSTEM) {
        ChatMessage *messages = arena_array(&t->arena, t->n_messages + 1, sizeof *messages);
        Str *handles = arena_array(&t->arena, t->n_messages + 1, sizeof *handles);
        if (!messages || !handles)
            return false;
        memcpy(messages + 1, t->messages, t->n_messages * sizeof *messages);
        memcpy(handles + 1, t->handles, t->n_messages * sizeof *handles);
        messages[0] = (ChatMessage){ .role = CHAT_SYSTEM };
        t->messages = messages;
        t->handles = handles;
        t->n_messages++;
    }
    t->messages[0].tools = lines;
    t->messages[0].n_tools = n;
    return true;
}

static bool add_barred(Turn *t, Tool *to, const KnownTool *known)
{
    const char *name = arena_str(&t->arena, known->name), *line = arena_str(&t->arena, known->line);
    *to = (Tool){ .name = { name, known->name.n },
                  .wire_name = { name, known->name.n },
                  .function = { line, known->line.n },
                  .barred = true };
    return name && line;
}

static void put_back(const Known *k, Turn *t)
{
    Str *lines = arena_array(&t->arena, k->n, sizeof *lines);
    Tool *tools = arena_array(&t->arena, t->n_tools + k->n, sizeof *tools);
    size_t n = t->n_tools;
    if (!lines || !tools)
        return;
    if (n)
        memcpy(tools, t->tools, n * sizeof *tools);
    for (size_t i = 0; i < k->n; i++) {
        const Tool *tool = tools_find(t, k->tool[i].name);
        if (!tool && !add_barred(t, &tools[n], &k->tool[i]))
            return;
        lines[i] = tool ? tool->function : tools[n++].function;
    }
    if (!set_block(t, lines, k->n))
        return;
    if (!t->n_tools)
        t->choice = CHOOSE_NONE;
    t->tools = tools;
    t->n_tools = n;
}

void tool_memory_apply(ToolMemory *m, Turn *t)
{
    XXH128_hash_t key;
    if (!t->session.n || !key_of(m, t, &key))
        return;
    pthread_mutex_lock(&m->mutex);
    Known **at = place_of(m, key), *k = *at;
    if (k && first_of(t, CHAT_ASSISTANT) && is_part(k, t)) {
        put_back(k, t);
        *at = k->next;
        link_newest(m, k);
    } else {
        remember(m, t, key, at);
    }
    pthread_mutex_unlock(&m->mutex);
}
