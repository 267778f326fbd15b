/* metrics.h - what the server counts, for Prometheus.
 *
 * Every label has a fixed set of values, so the number of series is bounded and
 * no user shows in them. Any thread may call any of these at any time. */
#ifndef METRICS_H
#define METRICS_H
#include "turn.h"

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

enum CacheSource { CACHE_LIVE, CACHE_REWIND, CACHE_RAM, CACHE_DISK, CACHE_HANDLE, N_CACHE_SOURCES };
enum CacheMiss {
    MISS_NEW,
    MISS_SYSTEM_CHANGED,
    MISS_TOOLS_CHANGED,
    MISS_HISTORY_EDITED,
    MISS_EVICTED,
    N_CACHE_MISSES
};
enum DecodePhase { DECODE_THINK, DECODE_TEXT, DECODE_TOOL, N_DECODE_PHASES };
enum JobPhase { JOB_QUEUED, JOB_PREFILL, JOB_DECODE, N_JOB_PHASES };
enum CancelReason { CANCEL_CLIENT, CANCEL_SLOW, CANCEL_API, CANCEL_SHUTDOWN, N_CANCEL_REASONS };
enum SlotState { SLOT_FREE, SLOT_IDLE, SLOT_PREFILL, SLOT_DECODE, N_SLOT_STATES };
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
/* A prompt of which so many tokens were in a KV state that came from source. miss
 * says why not more, N_CACHE_MISSES: there is nothing to say. */
void metrics_prompt(Metrics *m, int cached, enum CacheSource source, enum CacheMiss miss);
/* Its other tokens are in the model, after so long. */
void metrics_prefilled(Metrics *m, int tokens, double seconds);
/* The first event that shows text, reasoning or a call: since the request's arrival. */
void metrics_first_token(Metrics *m, int prompt, int cached, double seconds);
void metrics_decoded(Metrics *m, enum DecodePhase phase, int tokens);
/* An answer's whole decoding. */
void metrics_decode_ended(Metrics *m, int tokens, double seconds);
void metrics_tool_call(Metrics *m, enum CallResult result);

void metrics_evicted(Metrics *m, enum Eviction reason);
void metrics_disk_written(Metrics *m, uint64_t bytes);

/* ---- how things stand ----------------------------------------------------------------- */

void metrics_queue_length(Metrics *m, int n);
void metrics_slots(Metrics *m, enum SlotState state, int n);
void metrics_kv_bytes(Metrics *m, enum KvTier tier, uint64_t bytes);

#endif
