/* server.c - the parts put together: opened, run, and brought to an end. */
#include "server.h"
#include "exchange.h"
#include "kept.h"
#include "keys.h"
#include "routes.h"
#include "server_parts.h"
#include "thinking.h"
#include "welcome.h"
#include "wire.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { TICK_MS = 100, WORKERS = 2, DEFAULT_QUEUE = 64, DEFAULT_HEARTBEAT_MS = 5000 };

/* 2026-01-01: what the model object says; a server's start would change with it. */
#define CREATED 1767225600

#define TRIM_NS ((int64_t)2000000000)

/* Kept responses, at most. */
#define RESPONSES_BYTES ((size_t)256 << 20)

static ds4_engine *open_engine(void *server, ds4_err *err);
static ds4_engine *open_words(void *server, ds4_err *err);
static bool on_ready(void *server, ds4_engine *e, const ds4_vocab *v, const TokenTrie *trie,
                     Store **store, ds4_err *err);
static void on_ended(void *server, bool failed, const ds4_err *err);
static bool tick(void *server);

void server_log(Server *s, const char *fmt, ...)
{
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    wire_printable(line); /* names and prompts are others' */
    s->opt.log(s->opt.user, line);
}

static void log_line(void *server, const char *line) { server_log(server, "%s", line); }

/* ---- opening ------------------------------------------------------------------------- */

static void set_info(Server *s)
{
    const ServerOptions *o = &s->opt;
    s->info = (ServerInfo){ .model = o->model_id ? o->model_id : "deepseek-v4-flash",
                            .default_think = o->default_think,
                            .strict_model = o->strict_model,
                            .strict_media = o->strict_media,
                            .strict_anthropic = o->strict_anthropic,
                            .client_sampling = o->client_sampling,
                            .usage_plain = o->usage_plain,
                            .schema_in_prompt = o->schema_in_prompt,
                            .created = CREATED,
                            .responses = s->responses };
}

static void warn_of(Server *s, const Keys *keys)
{
    if (keys->shared)
        server_log(s, "other users can read %s: better chmod 600", s->opt.key_file);
}

static bool open_http(Server *s, ds4_err *err)
{
    HttpOptions http = s->opt.http;
    Keys keys = { 0 };
    bool ok = keys_read(&keys, s->opt.key_file, http.keys, http.n_keys, err);
    if (ok) {
        http.keys = keys.key;
        http.n_keys = keys.n;
        s->http = http_open(&http, routes_handle, routes_error, s, err);
        warn_of(s, &keys);
    }
    keys_release(&keys);
    return s->http && (http_every(s->http, TICK_MS, tick, s) ||
                       fail(err, DS4_ENOMEM, "no memory for a timer"));
}

static bool open_scheduler(Server *s, ds4_err *err)
{
    const SchedulerOptions o = { .open = open_engine,
                                 .ready = on_ready,
                                 .ended = on_ended,
                                 .log = log_line,
                                 .user = s,
                                 .recall = s->recall,
                                 .metrics = s->metrics,
                                 .max_active = s->opt.max_active,
                                 .max_queue =
                                     s->opt.max_queue > 0 ? s->opt.max_queue : DEFAULT_QUEUE,
                                 .loop_guard = s->opt.loop_guard,
                                 .open_words = s->opt.open_words ? open_words : NULL,
                                 .idle_unload_s = s->opt.unload_seconds };
    s->scheduler = scheduler_start(&o, err);
    return s->scheduler != NULL;
}

static bool open_parts(Server *s, ds4_err *err)
{
    if (!kept_open(s, err))
        return false;
    s->responses = responses_store_new(RESPONSES_BYTES);
    if (!s->responses)
        return fail(err, DS4_ENOMEM, "no memory for responses");
    set_info(s);
    s->recall = recall_new(0, 0, err);
    s->metrics =
        s->recall
            ? metrics_new(&(MetricsBuild){ .version = DS4_VERSION, .model = s->info.model }, err)
            : NULL;
    s->tools = s->metrics ? tool_memory_new(0, 0, err) : NULL;
    if (!s->tools)
        return false;
    if (s->opt.trace_dir && !(s->trace = trace_open(s->opt.trace_dir, err)))
        return false;
    s->workers = workers_new(WORKERS, err);
    return s->workers && open_http(s, err);
}

Server *server_open(const ServerOptions *opt, ds4_err *err)
{
    Server *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, DS4_ENOMEM, "no memory for a server");
        return NULL;
    }
    s->opt = *opt;
    s->started_ns = clock_ns();
    if (s->opt.heartbeat_ms <= 0)
        s->opt.heartbeat_ms = DEFAULT_HEARTBEAT_MS;
    if (open_parts(s, err))
        return s;
    server_close(s);
    return NULL;
}

const char *server_where(const Server *s) { return http_where(s->http); }

void server_close(Server *s)
{
    if (!s)
        return;
    /* Workers read what is the engine's, and both post to the network thread, which
     * has let go of all exchanges: so in this order. */
    workers_free(s->workers);
    scheduler_free(s->scheduler);
    http_close(s->http);
    kept_close(s, s->end_until_ns);
    responses_store_free(s->responses);
    recall_free(s->recall);
    tool_memory_free(s->tools);
    metrics_free(s->metrics);
    trace_close(s->trace);
    free(s);
}

/* ---- on the engine's thread ------------------------------------------------------------- */

static ds4_engine *open_engine(void *server, ds4_err *err)
{
    Server *s = server;
    ds4_engine *e = s->opt.open(s->opt.user, err);
    if (!e || !atomic_load(&s->ready) || kept_same(s, e, err))
        return e;
    ds4_engine_close(e);
    return NULL;
}

static ds4_engine *open_words(void *server, ds4_err *err)
{
    Server *s = server;
    return s->opt.open_words(s->opt.user, err);
}

/* All of it is written before others may see that it is there. */
static bool on_ready(void *server, ds4_engine *e, const ds4_vocab *v, const TokenTrie *trie,
                     Store **store, ds4_err *err)
{
    Server *s = server;
    ds4_info info = ds4_engine_info(e);
    (void)err;
    kept_bind(s, e, v);
    *store = s->store;
    s->info.context = info.context;
    s->info.max_output = info.context;
    s->sessions = info.sessions;
    snprintf(s->engine, sizeof s->engine, "%s", ds4_engine_describe(e));
    snprintf(s->model_name, sizeof s->model_name, "%s", info.name);
    /* Files of the preview carry no mark. */
    s->prepare = (Prepare){ .info = &s->info,
                            .vocab = v,
                            .trie = trie,
                            .recall = s->recall,
                            .tools = s->tools,
                            .preview = !strstr(s->model_name, "0731") };
    atomic_store(&s->ready, true);
    return true;
}

static void on_ended(void *server, bool failed, const ds4_err *err)
{
    Server *s = server;
    s->failed = failed;
    if (failed)
        s->failure = *err;
    atomic_store(&s->ended, true);
}

void server_loading(Server *s, uint64_t done, uint64_t total)
{
    if (total)
        atomic_store(&s->loaded, (int)(1000.0 * (double)done / (double)total));
}

/* ---- running, on the network thread ---------------------------------------------------------- */

static void welcome(Server *s)
{
    char url[256];
    Bytes text = { 0 };
    snprintf(url, sizeof url, "%.*s", (int)strcspn(http_where(s->http), ","), http_where(s->http));
    s->welcomed = true;
    server_log(s, "ready: %s", s->engine);
    if (s->info.context < CONTEXT_OF_MAX)
        server_log(s, "thinking with max effort needs a context of %d: it is taken as high",
                   CONTEXT_OF_MAX);
    kept_welcome(s);
    welcome_write(&text, url, s->opt.http.n_keys > 0 || s->opt.key_file, &s->info);
    bytes_byte(&text, 0);
    if (!text.failed && s->opt.welcome && !s->opt.http.unix_path)
        s->opt.welcome(s->opt.user, text.p);
    bytes_release(&text);
}

static void trim(void *unused)
{
    (void)unused;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* A burst of large bodies leaves many times their size with malloc; to give it back
 * takes milliseconds, so a worker does it, again while answers to them go on. */
static void trim_after_burst(Server *s)
{
    int64_t now = clock_ns();
    if (!s->burst || s->preparing || now < s->trim_ns)
        return;
    s->burst = s->exchanges != NULL;
    s->trim_ns = now + TRIM_NS;
    workers_run(s->workers, trim, NULL, 0);
}

static void reload_keys(Server *s)
{
    ds4_err err = { 0 };
    Keys keys = { 0 };
    atomic_store(&s->reload, false);
    if (!s->opt.key_file)
        return;
    if (keys_read(&keys, s->opt.key_file, s->opt.http.keys, s->opt.http.n_keys, &err) &&
        http_set_keys(s->http, keys.key, keys.n, &err))
        server_log(s, "%zu API keys are valid now", keys.n);
    else
        server_log(s, "the API keys stay as they were: %s", err.msg);
    warn_of(s, &keys);
    keys_release(&keys);
}

static void begin_drain(Server *s)
{
    s->draining = true;
    s->drain_until_ns = clock_ns() + (int64_t)s->opt.drain_seconds * 1000000000;
    s->end_until_ns = clock_ns() + (int64_t)s->opt.shutdown_seconds * 1000000000;
    server_log(s, "ending: no new requests; running ones have %d s", s->opt.drain_seconds);
    http_drain(s->http);
}

/* Told a second time to end: what is not saved by now is not. */
static void end_at_once(Server *s)
{
    s->drain_until_ns = s->end_until_ns = 0;
    if (s->stopping)
        scheduler_finish(s->scheduler, 0);
}

/* What was written last still has to reach the clients, and the engine's thread has
 * states to save. */
static void stop_when_done(Server *s)
{
    if (atomic_load(&s->wish) > 1 && s->end_until_ns)
        end_at_once(s);
    bool patient = clock_ns() < s->drain_until_ns;
    if (s->exchanges && patient)
        return;
    if (!s->stopping) {
        exchanges_end(s);
        scheduler_finish(s->scheduler, s->end_until_ns);
        s->stopping = true;
        return;
    }
    if ((http_stats(s->http).open == 0 || !patient) &&
        (atomic_load(&s->ended) || clock_ns() >= s->end_until_ns))
        http_stop(s->http);
}

static bool tick(void *server)
{
    Server *s = server;
    if (atomic_load(&s->ready) && !s->welcomed)
        welcome(s);
    if (atomic_load(&s->reload))
        reload_keys(s);
    exchanges_tick(s);
    trim_after_burst(s);
    if (atomic_load(&s->ended) && s->failed) {
        exchanges_end(s);
        s->end_until_ns = clock_ns() + (int64_t)s->opt.shutdown_seconds * 1000000000;
        http_stop(s->http);
        return false;
    }
    if (atomic_load(&s->wish) > 0 && !s->draining)
        begin_drain(s);
    if (s->draining)
        stop_when_done(s);
    return true;
}

bool server_run(Server *s, ds4_err *err)
{
    if (!open_scheduler(s, err))
        return false;
    bool ok = http_run(s->http, err);
    if (atomic_load(&s->ended) && s->failed)
        return fail(err, s->failure.code, "%s", s->failure.msg);
    return ok;
}

void server_end(Server *s) { atomic_fetch_add(&s->wish, 1); }

void server_reload(Server *s) { atomic_store(&s->reload, true); }
