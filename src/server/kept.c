/* kept.c - the store, as the server uses it.
 *
 * The journals may have an eighth of the directory's room, since without the states
 * that they belong to they are worth little. */
#include "kept.h"
#include "wire.h"
#include "../store/journal.h"
#include <stdio.h>
#include <stdlib.h>

/* A tail that waits so long for a longer one is one write instead of many. */
enum { TAIL_SECONDS = 60 };

#define MOST_ANSWERS   ((uint64_t)256 << 20)
#define MOST_RESPONSES ((uint64_t)256 << 20)
#define MOST_TOOLS     ((uint64_t)32 << 20)

static void log_line(void *server, const char *line) { server_log(server, "%s", line); }

/* Only fetches end so, which the scheduler began. */
static void wake(void *server)
{
    Server *s = server;
    scheduler_wake(s->scheduler);
}

bool kept_open(Server *s, ds4_err *err)
{
    const ServerOptions *o = &s->opt;
    const StoreOptions store = { .dir = o->kv_dir,
                                 .disk_bytes = o->kv_disk_bytes,
                                 .ram_bytes = o->kv_ram_bytes,
                                 .tail_s = TAIL_SECONDS,
                                 .log = log_line,
                                 .ready = wake,
                                 .user = s };
    if (!o->kv_dir && !o->kv_ram_bytes)
        return true;
    s->store = store_open(&store, err);
    return s->store != NULL;
}

void kept_close(Server *s, int64_t until_ns)
{
    if (s->store)
        store_close(s->store, until_ns);
    s->store = NULL;
}

/* ---- the model ------------------------------------------------------------------------ */

static bool bind_states(Server *s, ds4_engine *e, ds4_err *err)
{
    StoreModel m = { .rounded = !s->opt.unrounded,
                     .unit_bytes = ds4_rows_bytes(e, 0, STORE_UNIT),
                     .mark_bytes = ds4_mark_bytes(e, STORE_UNIT) };
    if (!ds4_engine_fingerprint(e, s->fingerprint, err))
        return false;
    memcpy(m.fingerprint, s->fingerprint, sizeof m.fingerprint);
    store_bind(s->store, &m);
    return true;
}

static uint64_t share(const Server *s, uint64_t most)
{
    uint64_t disk = s->opt.kv_disk_bytes;
    return disk ? MIN(most, disk / 8) : most;
}

static void bring_back(Server *s, const ds4_vocab *v)
{
    ds4_err err = { 0 };
    size_t answers = 0, responses = 0;
    int64_t start = clock_ns();
    bool ok =
        recall_persist(s->recall, s->store, v, share(s, MOST_ANSWERS), &answers, &err) &&
        responses_persist(s->responses, s->store, share(s, MOST_RESPONSES), &responses, &err) &&
        tool_memory_persist(s->tools, s->store, share(s, MOST_TOOLS), &err);
    if (!ok)
        server_log(s, "answers are kept in memory alone: %s", err.msg);
    else if (answers || responses)
        server_log(s, "kept from before: %zu answers, %zu responses (read in %.0f ms)", answers,
                   responses, (double)(clock_ns() - start) / 1e6);
}

void kept_bind(Server *s, ds4_engine *e, const ds4_vocab *v)
{
    ds4_err err = { 0 };
    if (!s->store)
        return;
    if (!bind_states(s, e, &err))
        server_log(s, "no KV states are kept: %s", err.msg);
    if (s->opt.kv_dir)
        bring_back(s, v);
}

bool kept_same(Server *s, ds4_engine *e, ds4_err *err)
{
    uint8_t now[sizeof s->fingerprint];
    if (!s->store)
        return true;
    return ds4_engine_fingerprint(e, now, err) &&
           (memcmp(now, s->fingerprint, sizeof now) == 0 ||
            fail(err, DS4_EFORMAT, "%s is another model than it was", s->opt.model_path));
}

/* ---- what is seen of it ---------------------------------------------------------------- */

static void put_number(Bytes *out, const char *name, uint64_t value)
{
    bytes_printf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

void kept_status(Server *s, Bytes *out)
{
    StoreCounters c;
    if (!s->store) {
        bytes_str(out, ",\"kv\":null");
        return;
    }
    store_counters(s->store, &c);
    bytes_str(out, ",\"kv\":{\"dir\":");
    if (c.has_dir)
        wire_str(out, str_of(s->opt.kv_dir));
    else
        bytes_str(out, "null");
    bytes_printf(out, ",\"writable\":%s", c.writable ? "true" : "false");
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        { "ram_bytes", c.ram_bytes },
        { "ram_limit", c.ram_limit },
        { "ram_chunks", c.ram_chunks },
        { "disk_bytes", c.disk_bytes },
        { "disk_limit", c.disk_limit },
        { "disk_chunks", c.disk_chunks },
        { "journal_bytes", c.journal_bytes },
        { "foreign_bytes", c.foreign_bytes },
        { "waiting", c.waiting_chunks },
        { "waiting_bytes", c.waiting_bytes },
        { "reserved_bytes", c.reserved_bytes },
        { "finds", c.finds },
        { "found", c.found },
        { "found_tokens", c.found_tokens },
        { "ram_hits", c.ram_hits },
        { "disk_hits", c.disk_hits },
        { "read_bytes", c.read_bytes },
        { "written_bytes", c.written_bytes },
        { "written_files", c.written_files },
        { "evicted", c.evicted_disk },
        { "dropped", c.dropped },
        { "failed_writes", c.failed_writes },
        { "disk_full", c.disk_full },
        { "bad_files", c.bad_header + c.bad_version + c.bad_size + c.bad_checksum + c.bad_name },
    };
    for (size_t i = 0; i < COUNT(numbers); i++)
        put_number(out, numbers[i].name, numbers[i].value);
    bytes_byte(out, '}');
}

/* As the script of page.c says it. */
static const char *size_words(char out[32], uint64_t n)
{
    if (n < 1000000000)
        snprintf(out, 32, "%.0f MB", (double)n / 1e6);
    else
        snprintf(out, 32, "%.1f GB", (double)n / 1e9);
    return out;
}

bool kept_words(Server *s, char *out, size_t n)
{
    StoreCounters c;
    char size[32];
    int used = 0;
    if (!s->store)
        return false;
    store_counters(s->store, &c);
    if (c.has_dir)
        used = snprintf(out, n, "%llu chunks on disk (%s), ", (unsigned long long)c.disk_chunks,
                        size_words(size, c.disk_bytes));
    snprintf(out + used, n - (size_t)used, "%llu chunks in memory (%s)",
             (unsigned long long)c.ram_chunks, size_words(size, c.ram_bytes));
    return true;
}

void kept_welcome(Server *s)
{
    StoreCounters c = { 0 };
    if (s->store)
        store_counters(s->store, &c);
    if (!c.has_dir)
        server_log(s, "KV states are kept in memory alone: prompts are private, so they go to a "
                      "disk only with --kv-disk-dir");
    else
        server_log(s, "KV states are kept in %s: %llu chunks, %llu of %llu MB%s", s->opt.kv_dir,
                   (unsigned long long)c.disk_chunks, (unsigned long long)(c.disk_bytes >> 20),
                   (unsigned long long)(c.disk_limit >> 20),
                   c.writable ? "" : "; it cannot be written");
}
