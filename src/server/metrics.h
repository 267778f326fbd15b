/* metrics.h - what the server counts, for Prometheus.
 *
 * Every label has a fixed set of values, so the number of series is bounded and
 * no user shows in them. Any thread may call any of these at any time. */
#ifndef METRICS_H
#define METRICS_H
#include "turn.h"
#include "../store/store.h"

typedef struct Metrics Metrics;

/* Of ds4x_build_info; copied. NULL: empty. */
typedef struct {
    const char *version, *model, *device;
} MetricsBuild;

Metrics *metrics_new(const MetricsBuild *build, ds4_err *err);
void metrics_free(Metrics *m);

/* Text format 0.0.4. */
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
void metrics_write(const Metrics *m, Bytes *out);

/* ---- labels ----------------------------------------------------------------------- */

/* api is an enum Api, or this: /health, /v1/models and what else there is. */
enum { METRICS_NO_API = N_APIS };

enum Client {
    CLIENT_CLAUDE_CODE,
    CLIENT_OPENCODE,
    CLIENT_CODEX,
    CLIENT_PI,
    CLIENT_OPENAI_SDK,
    CLIENT_ANTHROPIC_SDK,
    CLIENT_AI_SDK,
    CLIENT_CURL,
    CLIENT_OTHER,
    N_CLIENTS
};
/* By a User-Agent header; NULL: there was none. */
enum Client client_of(const char *user_agent);
const char *client_name(enum Client c);

/* Where the beginning of a prompt was, cheapest first: its own slot's state as it is (one
 * that was named by a handle counts apart), or taken back; another slot's; the store's. */
enum CacheSource {
    CACHE_LIVE,
    CACHE_HANDLE,
    CACHE_REWIND,
    CACHE_FORK,
    CACHE_RAM,
    CACHE_DISK,
    N_CACHE_SOURCES
};
enum CacheMiss {
    MISS_NEW,
    MISS_SYSTEM_CHANGED,
    MISS_TOOLS_CHANGED,
    MISS_HISTORY_EDITED,
    MISS_EVICTED,      /* it was there, and had to go */
    MISS_NO_MARK,      /* it is there, but there is no place to go on from */
    MISS_STORE_FAILED, /* the store gave less than it had said */
    N_CACHE_MISSES
};
const char *cache_source_name(enum CacheSource s); /* N_CACHE_SOURCES: "none" */
const char *cache_miss_name(enum CacheMiss m);
enum DecodePhase { DECODE_THINK, DECODE_TEXT, DECODE_TOOL, N_DECODE_PHASES };
enum JobPhase { JOB_QUEUED, JOB_PREFILL, JOB_DECODE, N_JOB_PHASES };
enum CancelReason { CANCEL_CLIENT, CANCEL_SLOW, CANCEL_API, CANCEL_SHUTDOWN, N_CANCEL_REASONS };
enum SlotState { SLOT_FREE, SLOT_IDLE, SLOT_RESTORE, SLOT_PREFILL, SLOT_DECODE, N_SLOT_STATES };
enum KvTier { KV_LIVE, KV_RAM, KV_DISK, N_KV_TIERS };
enum Eviction { EVICT_SLOT_NEEDED, EVICT_RAM_FULL, EVICT_DISK_FULL, N_EVICTIONS };
enum CallResult { CALL_OK, CALL_RECOVERED, CALL_DROPPED, N_CALL_RESULTS };

/* ---- what happens to a request ------------------------------------------------------ */

/* Each request is begun once and ended once. status: HTTP's, of an answer that
 * was given up 499. seconds: from its first byte read to its last one written. */
void metrics_request_began(Metrics *m);
void metrics_request_ended(Metrics *m, int api, enum Client client, int status, double seconds);
void metrics_cancelled(Metrics *m, enum JobPhase phase, enum CancelReason reason);
void metrics_heartbeat(Metrics *m, int api);
void metrics_slow_client(Metrics *m);

/* It waited so long for its turn. */
void metrics_left_queue(Metrics *m, double seconds);
/* A prompt of which so many tokens were in a KV state that came from source
 * (N_CACHE_SOURCES: from nowhere). miss says why not more, N_CACHE_MISSES: there is
 * nothing to say. */
void metrics_prompt(Metrics *m, int cached, enum CacheSource source, enum CacheMiss miss);
/* It ran beside a conversation, in a slot that keeps nothing. */
void metrics_side_request(Metrics *m);
/* A state came back from the store, or went there, after so long; seconds are the engine's
 * thread's own for what it saves, and those that a request waited for what it restores. */
void metrics_restored(Metrics *m, uint64_t bytes, double seconds);
void metrics_saved(Metrics *m, uint64_t bytes, double seconds);
/* Its other tokens are in the model, after so long. */
void metrics_prefilled(Metrics *m, int tokens, double seconds);
/* The first event that shows text, reasoning or a call: since the request's arrival. */
void metrics_first_token(Metrics *m, int prompt, int cached, double seconds);
void metrics_decoded(Metrics *m, enum DecodePhase phase, int tokens);
/* An answer's whole decoding. */
void metrics_decode_ended(Metrics *m, int tokens, double seconds);
void metrics_tool_call(Metrics *m, enum CallResult result);

void metrics_evicted(Metrics *m, enum Eviction reason);
/* The model was closed for want of work. */
void metrics_unloaded(Metrics *m);

/* ---- how things stand ----------------------------------------------------------------- */

void metrics_queue_length(Metrics *m, int n);
void metrics_slots(Metrics *m, enum SlotState state, int n);
void metrics_kv_bytes(Metrics *m, enum KvTier tier, uint64_t bytes);

/* What the store has counted so far; before metrics_write. */
void metrics_store(Metrics *m, const StoreCounters *c);

#endif
