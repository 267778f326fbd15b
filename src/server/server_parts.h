/* server_parts.h - what the files of the network thread share. */
#ifndef SERVER_PARTS_H
#define SERVER_PARTS_H
#include "server.h"
#include "dialect.h"
#include "metrics.h"
#include "prepare.h"
#include "recall.h"
#include "responses_store.h"
#include "scheduler.h"
#include "tool_memory.h"
#include "trace.h"
#include "workers.h"
#include <stdatomic.h>

typedef struct Exchange Exchange;

struct Server {
    ServerOptions opt;
    ServerInfo info;
    Http *http;
    Workers *workers;
    Scheduler *scheduler;
    Recall *recall;
    ToolMemory *tools;
    Metrics *metrics;
    ResponseStore *responses;
    Store *store;            /* NULL: nothing is kept beside the slots */
    uint8_t fingerprint[32]; /* of the model that it was bound to */
    Trace *trace;            /* NULL: none */
    int64_t started_ns;

    /* written by the engine's thread before ready */
    Prepare prepare;
    char engine[512], model_name[128]; /* for people */
    int sessions;
    atomic_bool ready;
    atomic_int loaded; /* per mille */

    atomic_int wish; /* to end: how often it was told to */
    atomic_bool reload;

    /* the network thread's */
    Exchange *exchanges;
    size_t preparing; /* bytes of bodies that workers have, or wait for them */
    bool burst;       /* there were many; what malloc keeps of them is not given back yet */
    int64_t trim_ns;  /* not before */
    bool welcomed, draining, stopping;
    int64_t refused_ns; /* when the log last named one without a right to ask */
    int refused;        /* since then */
    int64_t drain_until_ns, end_until_ns;

    /* written by the engine's thread before ended */
    ds4_err failure;
    bool failed;
    atomic_bool ended;
};

void server_log(Server *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
