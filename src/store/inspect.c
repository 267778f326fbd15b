/* inspect.c - what a store says of itself: counters, a list, lines in the log; and
 * removing by hand. */
#include "store_parts.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the log ------------------------------------------------------------------------- */

enum { SAID_AT_MOST = 5 };
#define SAID_NS ((int64_t)60 * 1000000000)

void store_say(Store *s, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    if (!s->opt.log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    s->opt.log(s->opt.user, line);
}

/* May one more be said; *held: how many were not since the last one. */
static bool may_say(Store *s, SayKind kind, int *held)
{
    Said *said = &s->said[kind];
    const int64_t now = clock_ns();

    pthread_mutex_lock(&s->say_lock);
    if (now - said->since_ns > SAID_NS) {
        said->since_ns = now;
        said->said = 0;
    }
    const bool ok = said->said < SAID_AT_MOST;
    if (ok) {
        said->said++;
        *held = said->held;
        said->held = 0;
    } else {
        said->held++;
    }
    pthread_mutex_unlock(&s->say_lock);
    return ok;
}

void store_say_some(Store *s, SayKind kind, const char *fmt, ...)
{
    char line[1024];
    int held = 0;
    va_list ap;

    if (!s->opt.log || !may_say(s, kind, &held))
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (held)
        store_say(s, "%s (and %d more like it)", line, held);
    else
        store_say(s, "%s", line);
}

/* ---- counters ------------------------------------------------------------------------ */

void store_count_fault(Store *s, ChunkFault f)
{
    StoreCounters *c = &s->count;
    uint64_t *const at[N_CHUNK_FAULTS] = {
        [CHUNK_BAD_HEADER] = &c->bad_header, [CHUNK_BAD_VERSION] = &c->bad_version,
        [CHUNK_BAD_SIZE] = &c->bad_size,     [CHUNK_BAD_CHECKSUM] = &c->bad_checksum,
        [CHUNK_BAD_NAME] = &c->bad_name,     [CHUNK_UNREADABLE] = &c->failed_reads,
        [CHUNK_GONE] = &c->vanished,
    };
    if (at[f])
        *at[f] += 1;
}

void store_counters(Store *s, StoreCounters *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->count;
    out->ram_limit = s->ram_limit;
    out->disk_limit = s->has_dir ? s->opt.disk_bytes : 0;
    out->has_dir = s->has_dir;
    out->writable = s->folder.writable;
    pthread_mutex_unlock(&s->lock);
}

/* ---- the list ------------------------------------------------------------------------ */

static void describe(const Store *s, const Entry *e, StoreItem *out)
{
    *out = (StoreItem){ .first = e->head.first,
                        .last = e->head.first + e->head.n,
                        .bytes = e->on_disk ? e->file_bytes : ram_bytes(e),
                        .hits = e->use.hits,
                        .created_s = e->head.created_s,
                        .used_s = e->use.used_s,
                        .in_ram = e->rows != NULL,
                        .on_disk = e->on_disk };
    name_hex(&e->head.name, out->id);
    if (e->head.first > 0)
        name_hex(&e->head.parent, out->parent);
    out->other_model =
        !s->bound || e->head.model.numerics != s->model.numerics ||
        memcmp(e->head.model.fingerprint, s->model.fingerprint, sizeof s->model.fingerprint) != 0;
}

bool store_list(Store *s, StoreItem **out, size_t *n)
{
    Entry *root = &s->table.root;
    size_t count = 0;

    pthread_mutex_lock(&s->lock);
    for (Entry *e = root; e; e = table_next(root, e))
        count += e->known;
    *n = 0;
    *out = malloc(MAX(count, (size_t)1) * sizeof **out);
    for (Entry *e = root; *out && e; e = table_next(root, e))
        if (e->known)
            describe(s, e, &(*out)[(*n)++]);
    pthread_mutex_unlock(&s->lock);
    return *out != NULL;
}

/* ---- removing ------------------------------------------------------------------------ */

static Entry *only_one(Store *s, const char *id, ds4_err *err)
{
    Entry *root = &s->table.root, *found = NULL;
    const size_t n = strlen(id);
    char hex[41];

    for (Entry *e = root; e && n; e = table_next(root, e)) {
        if (!e->known)
            continue;
        name_hex(&e->head.name, hex);
        if (strncmp(hex, id, n) != 0)
            continue;
        if (found) {
            fail(err, DS4_EINVAL, "%.40s begins the names of several chunks", id);
            return NULL;
        }
        found = e;
    }
    if (!found)
        fail(err, DS4_EINVAL, "no chunk is named %.40s", id);
    return found;
}

bool store_remove(Store *s, const char *id, size_t *chunks, uint64_t *bytes, ds4_err *err)
{
    size_t n = 0;
    Entry **all = NULL;

    *chunks = 0;
    *bytes = 0;
    pthread_mutex_lock(&s->lock);
    Entry *top = only_one(s, id, err);
    for (Entry *e = top; e; e = table_next(top, e))
        n += e->known;
    if (top && !(all = malloc(n * sizeof(Entry *))))
        fail(err, DS4_ENOMEM, "no memory to remove %zu chunks", n);
    for (Entry *e = top; all && e; e = table_next(top, e))
        if (e->known)
            all[(*chunks)++] = e;
    for (size_t i = *chunks; i-- > 0;) { /* children first */
        *bytes += all[i]->on_disk ? all[i]->file_bytes : ram_bytes(all[i]);
        store_end_entry(s, all[i]);
    }
    pthread_mutex_unlock(&s->lock);
    free(all);
    return *chunks > 0;
}
