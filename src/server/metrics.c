/* metrics.c - counters, gauges and histograms as a table of families.
 *
 * A family is a block of counters in Metrics, one for each combination of its
 * labels' values, the last label's changing fastest. All of them are atomics of
 * their own: what is written may lie a few events apart. A histogram's count is
 * made of its buckets, so these always agree. */
#include "metrics.h"
#include "../json/json.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

typedef _Atomic uint64_t Counter;

/* status: the last one is all others */
static const int codes[] = { 200, 204, 400, 401, 403, 404, 405, 408,
                             413, 429, 499, 500, 501, 503, 529 };
enum { N_CODES = COUNT(codes) + 1, N_BOUNDS = 16, N_SHARES = 3, N_BAD = 5 };

typedef struct {
    Counter bucket[N_BOUNDS + 1]; /* each its own share, not cumulative */
    Counter sum_ns;
} Histogram;

struct Metrics {
    Counter requests[N_APIS + 1][N_CLIENTS][N_CODES];
    Counter active, queue, prefill, slow, side, unloaded;
    Counter cached[N_CACHE_SOURCES], prompts[N_CACHE_SOURCES + 1];
    Counter missed[N_CACHE_MISSES], decoded[N_DECODE_PHASES];
    Counter disk_written, disk_read, bad[N_BAD], dropped, failed_reads, failed_writes, waiting;
    Counter restored, saved;
    Counter slots[N_SLOT_STATES], kv[N_KV_TIERS], evicted[N_EVICTIONS];
    Counter cancelled[N_JOB_PHASES][N_CANCEL_REASONS];
    Counter calls[N_CALL_RESULTS], heartbeats[N_APIS + 1];
    Histogram queued, prefilled, first[N_SHARES], token, request, restoring, saving;
    Bytes build; /* the labels of build_info */
};

/* ---- the families ------------------------------------------------------------------- */

typedef struct {
    const char *name;
    const char *const *values;
    int n;
} Label;

static const char *const api_names[] = { "chat", "completions", "messages", "responses", "other" };
static const char *const client_names[] = { "claude-code", "opencode",   "codex",
                                            "pi",          "openai-sdk", "anthropic-sdk",
                                            "ai-sdk",      "curl",       "other" };
static const char *const code_names[] = {
    "200", "204", "400", "401", "403", "404", "405", "408",
    "413", "429", "499", "500", "501", "503", "529", "other"
};
static const char *const source_names[] = { "live", "handle", "rewind", "fork", "ram", "disk" };
static const char *const rung_names[] = {
    "live", "handle", "rewind", "fork", "ram", "disk", "none"
};
static const char *const miss_names[] = {
    "new", "system_changed", "tools_changed", "history_edited", "evicted", "no_mark", "store_failed"
};
static const char *const bad_names[] = { "header", "version", "size", "checksum", "name" };
static const char *const decode_names[] = { "think", "text", "tool" };
static const char *const phase_names[] = { "queued", "prefill", "decode" };
static const char *const cancel_names[] = { "client", "slow_client", "api", "shutdown" };
static const char *const slot_names[] = { "free", "idle", "restore", "prefill", "decode" };
static const char *const tier_names[] = { "live", "ram", "disk" };
static const char *const evict_names[] = { "slot_needed", "ram_full", "disk_full" };
static const char *const result_names[] = { "ok", "recovered", "dropped" };
static const char *const share_names[] = { "none", "some", "most" };

#define SAME_LENGTH(names, count) _Static_assert(COUNT(names) == (size_t)(count), #names)
SAME_LENGTH(api_names, N_APIS + 1);
SAME_LENGTH(client_names, N_CLIENTS);
SAME_LENGTH(code_names, N_CODES);
SAME_LENGTH(source_names, N_CACHE_SOURCES);
SAME_LENGTH(rung_names, N_CACHE_SOURCES + 1);
SAME_LENGTH(bad_names, N_BAD);
SAME_LENGTH(miss_names, N_CACHE_MISSES);
SAME_LENGTH(decode_names, N_DECODE_PHASES);
SAME_LENGTH(phase_names, N_JOB_PHASES);
SAME_LENGTH(cancel_names, N_CANCEL_REASONS);
SAME_LENGTH(slot_names, N_SLOT_STATES);
SAME_LENGTH(tier_names, N_KV_TIERS);
SAME_LENGTH(evict_names, N_EVICTIONS);
SAME_LENGTH(result_names, N_CALL_RESULTS);
SAME_LENGTH(share_names, N_SHARES);

/* Seconds. A queue and a prompt may take an hour, a token hardly a second. */
static const double long_bounds[N_BOUNDS] = { 0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,  5,
                                              10,   30,   60,  120,  300, 600, 1800, 3600 };
static const double short_bounds[N_BOUNDS] = { 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05,
                                               0.075,  0.1,   0.15,  0.25,  0.5,  1,    2.5,  10 };
static const double token_bounds[N_BOUNDS] = { 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04,
                                               0.05,  0.075,  0.1,   0.15, 0.25,  0.5,  1,    5 };

enum { MOST_LABELS = 3 };
typedef struct {
    const char *name, *type, *help;
    size_t at; /* in Metrics: a Counter, or where there are bounds a Histogram */
    Label label[MOST_LABELS];
    const double *bounds;
    bool sparse; /* series that are 0 are left out */
} Family;

/* Members of a Family. */
#define LABEL(i, title, list) .label[i] = { title, list, (int)COUNT(list) }
#define FAMILY(title, kind, field, ...) \
    { \
        .name = title, .type = kind, .at = offsetof(Metrics, field), __VA_ARGS__ \
    }
static const Family families[] = {
    FAMILY("requests_total", "counter", requests,
           .help = "Requests that have ended, by HTTP status; 499: given up.",
           LABEL(0, "api", api_names), LABEL(1, "client", client_names),
           LABEL(2, "status", code_names), .sparse = true),
    FAMILY("requests_active", "gauge", active, .help = "Requests that have begun and not ended."),
    FAMILY("queue_length", "gauge", queue, .help = "Requests that wait for their turn."),
    FAMILY("queue_seconds", "histogram", queued,
           .help = "Time that requests waited for their turn.", .bounds = long_bounds),
    FAMILY("prefill_tokens_total", "counter", prefill,
           .help = "Tokens of prompts that the model read."),
    FAMILY("prefill_cached_tokens_total", "counter", cached,
           .help = "Tokens of prompts that were in a KV state already, by where that came from.",
           LABEL(0, "source", source_names)),
    FAMILY("prompts_total", "counter", prompts,
           .help = "Prompts, by where their beginning was found; none: nowhere.",
           LABEL(0, "source", rung_names)),
    FAMILY("side_requests_total", "counter", side,
           .help = "Short requests beside a conversation, whose state is not kept."),
    FAMILY("prefill_seconds", "histogram", prefilled,
           .help = "Time to read what of a prompt was not cached.", .bounds = long_bounds),
    FAMILY("ttft_seconds", "histogram", first,
           .help = "Time from a request's arrival to its first token, by the cached share of the "
                   "prompt: none, some, most (9 of 10 tokens).",
           LABEL(0, "cached", share_names), .bounds = long_bounds),
    FAMILY("decode_tokens_total", "counter", decoded, .help = "Tokens sampled.",
           LABEL(0, "phase", decode_names)),
    FAMILY("tpot_seconds", "histogram", token,
           .help = "Time for each token of an answer, one value an answer.",
           .bounds = token_bounds),
    FAMILY("request_seconds", "histogram", request,
           .help = "Time from a request's arrival to its end.", .bounds = long_bounds),
    FAMILY("slots", "gauge", slots, .help = "KV states in memory, by what they do.",
           LABEL(0, "state", slot_names)),
    FAMILY("kv_bytes", "gauge", kv, .help = "Bytes of KV states, by where they are.",
           LABEL(0, "tier", tier_names)),
    FAMILY("kv_disk_written_bytes_total", "counter", disk_written,
           .help = "Bytes of KV states written to disk."),
    FAMILY("kv_disk_read_bytes_total", "counter", disk_read,
           .help = "Bytes of KV states read from disk."),
    FAMILY("kv_bad_files_total", "counter", bad,
           .help = "Files of KV states that were removed, by what was wrong.",
           LABEL(0, "reason", bad_names)),
    FAMILY("kv_dropped_total", "counter", dropped,
           .help = "Pieces of KV states that were given up before they were written."),
    FAMILY("kv_failed_reads_total", "counter", failed_reads,
           .help = "Pieces of KV states that could not be read, though their files are there."),
    FAMILY("kv_failed_writes_total", "counter", failed_writes,
           .help = "Pieces of KV states that could not be written."),
    FAMILY("kv_waiting_bytes", "gauge", waiting, .help = "Bytes that wait to be written."),
    FAMILY("kv_restored_bytes_total", "counter", restored,
           .help = "Bytes of KV states that came back from the store."),
    FAMILY("kv_restore_seconds", "histogram", restoring,
           .help = "Time from asking for a stored state to having it.", .bounds = short_bounds),
    FAMILY("kv_saved_bytes_total", "counter", saved,
           .help = "Bytes of KV states that were given to the store."),
    FAMILY("kv_save_seconds", "histogram", saving,
           .help = "Time that the engine's thread needed to give a piece to the store.",
           .bounds = short_bounds),
    FAMILY("unloads_total", "counter", unloaded,
           .help = "Times that the model was closed since nobody asked."),
    FAMILY("kv_evictions_total", "counter", evicted, .help = "KV states given up, by what for.",
           LABEL(0, "reason", evict_names)),
    FAMILY("cache_miss_total", "counter", missed,
           .help = "Prompts of which less was cached than might have been, by why.",
           LABEL(0, "reason", miss_names)),
    FAMILY("cancelled_total", "counter", cancelled,
           .help = "Requests given up, by what they were doing and why.",
           LABEL(0, "phase", phase_names), LABEL(1, "reason", cancel_names)),
    FAMILY("tool_calls_total", "counter", calls,
           .help = "Tool calls, by how they came out of the model's text.",
           LABEL(0, "result", result_names)),
    FAMILY("heartbeats_total", "counter", heartbeats, .help = "Signs of life sent within streams.",
           LABEL(0, "api", api_names)),
    FAMILY("slow_clients_total", "counter", slow,
           .help = "Answers given up since nobody read them."),
};

/* ---- life ------------------------------------------------------------------------------ */

/* A label's value, as the format quotes it. */
static void put_quoted(Bytes *out, const char *s)
{
    bytes_byte(out, '"');
    for (; s && *s; s++) {
        if (*s == '\\' || *s == '"')
            bytes_byte(out, '\\');
        if (*s == '\n')
            bytes_str(out, "\\n");
        else
            bytes_byte(out, (unsigned char)*s);
    }
    bytes_byte(out, '"');
}

Metrics *metrics_new(const MetricsBuild *build, ds4_err *err)
{
    const char *const names[] = { "version", "model", "device" };
    const char *const values[] = { build->version, build->model, build->device };
    Metrics *m = calloc(1, sizeof *m);
    for (size_t i = 0; m && i < COUNT(names); i++) {
        bytes_printf(&m->build, "%s%s=", i ? "," : "", names[i]);
        put_quoted(&m->build, values[i]);
    }
    if (m && !m->build.failed)
        return m;
    metrics_free(m);
    fail(err, DS4_ENOMEM, "no memory for %zu bytes of metrics", sizeof *m);
    return NULL;
}

void metrics_free(Metrics *m)
{
    if (!m)
        return;
    bytes_release(&m->build);
    free(m);
}

/* ---- writing ------------------------------------------------------------------------------ */

static uint64_t load(const Counter *c) { return atomic_load_explicit(c, memory_order_relaxed); }

static int n_series(const Family *f)
{
    int n = 1;
    for (int i = 0; i < MOST_LABELS && f->label[i].n; i++)
        n *= f->label[i].n;
    return n;
}

/* The labels of series i, without braces. */
static void put_labels(Bytes *out, const Family *f, int i)
{
    int rest = n_series(f);
    for (int k = 0; k < MOST_LABELS && f->label[k].n; k++) {
        const Label *l = &f->label[k];
        rest /= l->n;
        bytes_printf(out, "%s%s=\"%s\"", k ? "," : "", l->name, l->values[i / rest % l->n]);
    }
}

static void put_line(Bytes *out, const Family *f, const char *suffix, int i)
{
    bytes_printf(out, "ds4x_%s%s", f->name, suffix);
    if (f->label[0].n)
        bytes_byte(out, '{');
    put_labels(out, f, i);
    bytes_str(out, f->label[0].n ? "} " : " ");
}

static void put_counter(Bytes *out, const Family *f, int i, const Counter *c)
{
    uint64_t value = load(c);
    if (!value && f->sparse)
        return;
    put_line(out, f, "", i);
    bytes_printf(out, "%llu\n", (unsigned long long)value);
}

static void put_histogram(Bytes *out, const Family *f, int i, const Histogram *h)
{
    uint64_t count = 0;
    for (int k = 0; k <= N_BOUNDS; k++) {
        count += load(&h->bucket[k]);
        bytes_printf(out, "ds4x_%s_bucket{", f->name);
        put_labels(out, f, i);
        bytes_printf(out, "%sle=\"", f->label[0].n ? "," : "");
        if (k < N_BOUNDS)
            json_write_real(out, f->bounds[k]);
        else
            bytes_str(out, "+Inf");
        bytes_printf(out, "\"} %llu\n", (unsigned long long)count);
    }
    put_line(out, f, "_sum", i);
    json_write_real(out, (double)load(&h->sum_ns) / 1e9);
    bytes_byte(out, '\n');
    put_line(out, f, "_count", i);
    bytes_printf(out, "%llu\n", (unsigned long long)count);
}

static void put_head(Bytes *out, const char *name, const char *type, const char *help)
{
    bytes_printf(out, "# HELP ds4x_%s %s\n# TYPE ds4x_%s %s\n", name, help, name, type);
}

void metrics_write(const Metrics *m, Bytes *out)
{
    for (size_t k = 0; k < COUNT(families); k++) {
        const Family *f = &families[k];
        const void *at = (const char *)m + f->at;
        put_head(out, f->name, f->type, f->help);
        for (int i = 0; i < n_series(f); i++) {
            if (f->bounds)
                put_histogram(out, f, i, (const Histogram *)at + i);
            else
                put_counter(out, f, i, (const Counter *)at + i);
        }
    }
    put_head(out, "build_info", "gauge", "What is running.");
    bytes_printf(out, "ds4x_build_info{%.*s} 1\n", (int)m->build.n, m->build.p);
}

/* ---- counting -------------------------------------------------------------------------------- */

static void add(Counter *c, uint64_t n) { atomic_fetch_add_explicit(c, n, memory_order_relaxed); }

static void set(Counter *c, uint64_t n) { atomic_store_explicit(c, n, memory_order_relaxed); }

static void add_tokens(Counter *c, int n) { add(c, (uint64_t)MAX(n, 0)); }

static void observe(Histogram *h, const double *bounds, double seconds)
{
    int k = 0;
    double s = seconds > 0 ? MIN(seconds, 1e9) : 0;
    while (k < N_BOUNDS && s > bounds[k])
        k++;
    add(&h->sum_ns, (uint64_t)(s * 1e9));
    add(&h->bucket[k], 1);
}

static int code_index(int status)
{
    int i = 0;
    while (i < (int)COUNT(codes) && codes[i] != status)
        i++;
    return i;
}

static int api_index(int api) { return api >= 0 && api < N_APIS ? api : METRICS_NO_API; }

void metrics_request_began(Metrics *m) { add(&m->active, 1); }

void metrics_request_ended(Metrics *m, int api, enum Client client, int status, double seconds)
{
    atomic_fetch_sub_explicit(&m->active, 1, memory_order_relaxed);
    add(&m->requests[api_index(api)][client][code_index(status)], 1);
    observe(&m->request, long_bounds, seconds);
}

void metrics_cancelled(Metrics *m, enum JobPhase phase, enum CancelReason reason)
{
    add(&m->cancelled[phase][reason], 1);
}

void metrics_heartbeat(Metrics *m, int api) { add(&m->heartbeats[api_index(api)], 1); }

void metrics_slow_client(Metrics *m) { add(&m->slow, 1); }

void metrics_left_queue(Metrics *m, double seconds) { observe(&m->queued, long_bounds, seconds); }

void metrics_prompt(Metrics *m, int cached, enum CacheSource source, enum CacheMiss miss)
{
    add(&m->prompts[cached > 0 ? source : N_CACHE_SOURCES], 1);
    if (cached > 0)
        add_tokens(&m->cached[source], cached);
    if (miss < N_CACHE_MISSES)
        add(&m->missed[miss], 1);
}

void metrics_prefilled(Metrics *m, int tokens, double seconds)
{
    add_tokens(&m->prefill, tokens);
    observe(&m->prefilled, long_bounds, seconds);
}

void metrics_first_token(Metrics *m, int prompt, int cached, double seconds)
{
    int share = cached <= 0 ? 0 : (int64_t)cached * 10 < (int64_t)prompt * 9 ? 1 : 2;
    observe(&m->first[share], long_bounds, seconds);
}

void metrics_decoded(Metrics *m, enum DecodePhase phase, int tokens)
{
    add_tokens(&m->decoded[phase], tokens);
}

void metrics_decode_ended(Metrics *m, int tokens, double seconds)
{
    if (tokens > 0)
        observe(&m->token, token_bounds, seconds / tokens);
}

void metrics_tool_call(Metrics *m, enum CallResult result) { add(&m->calls[result], 1); }

void metrics_evicted(Metrics *m, enum Eviction reason) { add(&m->evicted[reason], 1); }

void metrics_unloaded(Metrics *m) { add(&m->unloaded, 1); }

void metrics_side_request(Metrics *m) { add(&m->side, 1); }

void metrics_restored(Metrics *m, uint64_t bytes, double seconds)
{
    add(&m->restored, bytes);
    observe(&m->restoring, short_bounds, seconds);
}

void metrics_saved(Metrics *m, uint64_t bytes, double seconds)
{
    add(&m->saved, bytes);
    observe(&m->saving, short_bounds, seconds);
}

void metrics_queue_length(Metrics *m, int n) { set(&m->queue, (uint64_t)MAX(n, 0)); }

void metrics_slots(Metrics *m, enum SlotState state, int n)
{
    set(&m->slots[state], (uint64_t)MAX(n, 0));
}

void metrics_kv_bytes(Metrics *m, enum KvTier tier, uint64_t bytes) { set(&m->kv[tier], bytes); }

void metrics_store(Metrics *m, const StoreCounters *c)
{
    const uint64_t bad[N_BAD] = { c->bad_header, c->bad_version, c->bad_size, c->bad_checksum,
                                  c->bad_name };
    for (int i = 0; i < N_BAD; i++)
        set(&m->bad[i], bad[i]);
    set(&m->kv[KV_RAM], c->ram_bytes);
    set(&m->kv[KV_DISK], c->disk_bytes + c->journal_bytes + c->foreign_bytes);
    set(&m->evicted[EVICT_RAM_FULL], c->evicted_ram);
    set(&m->evicted[EVICT_DISK_FULL], c->evicted_disk);
    set(&m->disk_written, c->written_bytes + c->journal_written_bytes);
    set(&m->disk_read, c->read_bytes);
    set(&m->dropped, c->dropped);
    set(&m->failed_reads, c->failed_reads);
    set(&m->failed_writes, c->failed_writes);
    set(&m->waiting, c->waiting_bytes);
}

const char *cache_source_name(enum CacheSource s) { return rung_names[s]; }

const char *cache_miss_name(enum CacheMiss m) { return miss_names[m]; }

/* ---- who asks ------------------------------------------------------------------------------------ */

/* How their User-Agents begin, as recorded. */
static const struct {
    const char *start;
    enum Client client;
} agents[] = {
    { "claude-", CLIENT_CLAUDE_CODE },
    { "opencode/", CLIENT_OPENCODE },
    { "codex", CLIENT_CODEX },
    { "pi ", CLIENT_PI },
    { "pi/", CLIENT_PI },
    { "OpenAI/", CLIENT_OPENAI_SDK },
    { "AsyncOpenAI/", CLIENT_OPENAI_SDK },
    { "Anthropic/", CLIENT_ANTHROPIC_SDK },
    { "AsyncAnthropic/", CLIENT_ANTHROPIC_SDK },
    { "ai-sdk", CLIENT_AI_SDK },
    { "ai/", CLIENT_AI_SDK },
    { "curl/", CLIENT_CURL },
};

enum Client client_of(const char *user_agent)
{
    for (size_t i = 0; user_agent && i < COUNT(agents); i++)
        if (strncasecmp(user_agent, agents[i].start, strlen(agents[i].start)) == 0)
            return agents[i].client;
    return CLIENT_OTHER;
}

const char *client_name(enum Client c) { return client_names[c]; }
