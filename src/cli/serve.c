/* serve.c - ds4 serve: the HTTP server. Everything that it says goes to stderr. */
#include "cli.h"
#include "log_writer.h"
#include "../server/server.h"
#include "../text/chat.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char about[] =
    "Answers OpenAI's chat, completions and Responses APIs and Anthropic's Messages API on\n"
    "127.0.0.1, for Claude Code, opencode, Codex, Pi and other clients; their settings are "
    "printed\n"
    "when the model is loaded. Its context is of 131072 tokens, or of as many as fit, unless -c "
    "says\n"
    "otherwise. Ctrl-C or SIGTERM ends it when running answers are done, a second one at once;\n"
    "SIGHUP reads the file of API keys again.";

/* Agents begin with 10,000 to 25,000 tokens. */
enum { DEFAULT_PORT = 8080, DEFAULT_SESSIONS = 2, DEFAULT_CONTEXT = 131072 };

/* 16 GB hold 3 million tokens. In memory an eighth of what there is, at most. */
enum { DEFAULT_DISK_MB = 16384, DEFAULT_RAM_MB = 1024, LEAST_DISK_MB = 64, SAVE_SECONDS = 20 };

/* That a terminal has at the end to take the last lines. */
enum { LAST_LINES_MS = 1000 };

typedef struct {
    ModelOptions model;
    ServerOptions server;
    Server *running;
    LogWriter *log;
    atomic_bool loaded; /* the model, or it could not be */

    const char *listen, *host, *think, *loop_guard;
    int port, body_mb, header_kb, line_kb;
    float heartbeat;
    ValueList keys, origins, hosts;
    bool quiet;
    int disk_mb, ram_mb;                                /* -1: not said */
    Option where[12], answers[20], kept[8], limits[22]; /* tables of options */
} ServeOptions;

/* ---- what it says ---------------------------------------------------------------- */

static void print_log(void *user, const char *line)
{
    const ServeOptions *o = user;
    char when[32] = "", text[1200];
    struct tm t;
    time_t now = time(NULL);
    if (o->quiet && strncmp(line, "req_", 4) == 0)
        return;
    if (localtime_r(&now, &t))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &t);
    int n = snprintf(text, sizeof text, "%s %.1150s\n", when, line);
    log_writer_put(o->log, text, (size_t)n);
}

static void print_welcome(void *user, const char *text)
{
    const ServeOptions *o = user;
    log_writer_put(o->log, text, strlen(text));
}

/* ---- the engine ---------------------------------------------------------------------- */

static void on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    ServeOptions *o = user;
    server_loading(o->running, done, total);
    cli_progress(NULL, what, done, total);
}

static ds4_engine *open_engine(void *user, ds4_err *err)
{
    ServeOptions *o = user;
    o->model.engine.progress = on_progress;
    o->model.engine.user = o;
    ds4_engine *e = cli_open_engine(&o->model, err);
    atomic_store(&o->loaded, true);
    return e;
}

/* A vocabulary is in each engine, also in one that computes nothing. */
static ds4_engine *open_words(void *user, ds4_err *err)
{
    const ServeOptions *o = user;
    ds4_options opt = o->model.engine;
    opt.device = "null";
    opt.context = opt.max_rows = opt.sessions = 1;
    opt.beside = 0;
    opt.progress = NULL;
    return ds4_engine_open(&opt, err);
}

/* ---- signals --------------------------------------------------------------------------- */

static Server *_Atomic at_work;

static void on_signal(int number)
{
    static volatile sig_atomic_t ends;
    Server *s = at_work;
    if (number == SIGHUP) {
        if (s)
            server_reload(s);
        return;
    }
    /* A device may not come back from what it does, nor a disk. */
    if (++ends > 2 || !s)
        _exit(130);
    server_end(s);
}

static void catch_signals(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < COUNT(numbers); i++)
        sigaction(numbers[i], &a, NULL);
}

/* ---- options ------------------------------------------------------------------------------ */

static int think_of(const char *name)
{
    static const char *const names[] = { "off", "low", "high", "max" };
    for (int i = 0; i < (int)COUNT(names); i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return CHAT_THINK_HIGH;
}

static uint64_t default_ram(void)
{
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return MIN((uint64_t)DEFAULT_RAM_MB << 20, all / 8);
}

/* What is kept beside the slots, and how the server ends; -1, or 2 after a message. */
static int settle_kept(ServeOptions *o)
{
    ServerOptions *s = &o->server;
    if (o->disk_mb >= 0 && !s->kv_dir)
        return cli_usage_error("--kv-disk-space-mb is for a --kv-disk-dir");
    if (s->kv_dir && !*s->kv_dir)
        return cli_usage_error("--kv-disk-dir: the name is empty");
    s->kv_disk_bytes = (uint64_t)(o->disk_mb >= 0 ? o->disk_mb : DEFAULT_DISK_MB) << 20;
    s->kv_ram_bytes = o->ram_mb >= 0 ? (uint64_t)o->ram_mb << 20 : default_ram();
    o->model.engine.beside = s->kv_ram_bytes;
    s->unrounded = o->model.rounding && strcmp(o->model.rounding, "off") == 0;
    if (s->shutdown_seconds < 0)
        s->shutdown_seconds = s->drain_seconds + SAVE_SECONDS;
    if (s->shutdown_seconds < s->drain_seconds)
        return cli_usage_error("--shutdown-timeout %d is less than --drain-timeout %d, which is "
                               "a part of it",
                               s->shutdown_seconds, s->drain_seconds);
    return -1;
}

/* What the options mean together; -1, or 2 after a message. */
static int settle(ServeOptions *o)
{
    static const char unix_prefix[] = "unix:";
    HttpOptions *h = &o->server.http;
    if (o->listen && (o->host || o->port != DEFAULT_PORT))
        return cli_usage_error("--listen stands alone, without --host and --port");
    if (o->listen && strncmp(o->listen, unix_prefix, sizeof unix_prefix - 1) != 0)
        return cli_usage_error("--listen: '%.100s' does not begin with unix:", o->listen);
    h->unix_path = o->listen ? o->listen + sizeof unix_prefix - 1 : NULL;
    h->host = o->host;
    h->port = o->port;
    h->keys = o->keys.value;
    h->n_keys = o->keys.n;
    h->origins = o->origins.value;
    h->n_origins = o->origins.n;
    h->hosts = o->hosts.value;
    h->n_hosts = o->hosts.n;
    h->max_body = (size_t)o->body_mb << 20;
    h->max_header = (size_t)o->header_kb << 10;
    h->max_line = (size_t)o->line_kb << 10;
    o->server.heartbeat_ms = (int)(o->heartbeat * 1000);
    o->server.default_think = think_of(o->think);
    o->server.loop_guard = strcmp(o->loop_guard, "on") == 0;
    return settle_kept(o);
}

/* As much as fits, at most the default. */
static bool choose_context(ServeOptions *o, ds4_err *err)
{
    ds4_options *e = &o->model.engine;
    ds4_plan plan;
    if (e->context)
        return true;
    if (!ds4_plan_make(&plan, e, err))
        return false;
    if (plan.max_context > 0)
        e->context = MIN(DEFAULT_CONTEXT, plan.max_context);
    e->device = plan.device; /* chosen once, for the context that it was chosen with */
    return true;
}

/* Found before the server listens, so that nobody waits for what cannot come. */
static bool check_model(ServeOptions *o, ds4_err *err)
{
    if (!cli_model_settle(&o->model, err) || !choose_context(o, err) ||
        !cli_model_fits(&o->model, err))
        return false;
    o->server.model_path = o->model.engine.model;
    o->server.device = o->model.engine.device;
    return access(o->model.engine.model, R_OK) == 0 ||
           fail(err, DS4_EIO, "cannot read %s", o->model.engine.model);
}

static int serve(ServeOptions *o)
{
    ds4_err err = { 0 };
    o->server.open = open_engine;
    o->server.open_words = open_words;
    o->server.log = print_log;
    o->server.welcome = print_welcome;
    o->server.user = o;
    bool ok = check_model(o, &err) && (o->log = log_writer_open(STDERR_FILENO, &err)) != NULL &&
              (o->running = server_open(&o->server, &err)) != NULL;
    if (ok) {
        at_work = o->running;
        catch_signals(); /* before others can know that it is there */
        cli_warn("listening on %s", server_where(o->running));
        ok = server_run(o->running, &err);
        at_work = NULL;
    }
    /* Loading takes minutes, cannot be told to stop, and leaves nothing behind. */
    bool loading = ok && !atomic_load(&o->loaded);
    if (!loading)
        server_close(o->running);
    log_writer_close(o->log, LAST_LINES_MS);
    if (loading)
        _exit(0);
    return ok ? 0 : cli_fail(&err);
}

static const Option *where_options(ServeOptions *o)
{
    ServerOptions *s = &o->server;
    HttpOptions *h = &s->http;
    const Option table[] = {
        { OPT_TITLE, "Where", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--host", "NAME", &o->host,
          "the address to listen on; default: this machine only", 0, 0 },
        { OPT_INT, "--port", "N", &o->port, "default 8080; 0: any free one", 0, 65535 },
        { OPT_STR, "--listen", "unix:PATH", &o->listen, "a Unix socket instead", 0, 0 },
        { OPT_LIST, "--api-key", "KEY", &o->keys,
          "clients must send it; may be given again. Other users see it in the list of processes: "
          "better a file",
          0, 0 },
        { OPT_STR, "--api-key-file", "FILE", &s->key_file, "keys, one a line; # begins a comment",
          0, 0 },
        { OPT_FLAG, "--insecure-no-auth", NULL, &h->insecure,
          "listen where others can connect, without a key", 0, 0 },
        { OPT_LIST, "--cors, --cors-origin", "ORIGIN", &o->origins,
          "web pages of this origin may ask; localhost: those of this machine; may be given again",
          0, 0 },
        { OPT_LIST, "--allow-host", "NAME", &o->hosts,
          "a further name of this server in requests; may be given again", 0, 0 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof o->where, "ServeOptions.where");
    memcpy(o->where, table, sizeof table);
    return o->where;
}

static const Option *answers_options(ServeOptions *o)
{
    ServerOptions *s = &o->server;
    const Option table[] = {
        { OPT_TITLE, "Answers", NULL, NULL, NULL, 0, 0 },
        { OPT_INT, "--slots, --sessions", "N", &o->model.engine.sessions,
          "conversations kept in memory, and answered at one time; default 2", 1, 1024 },
        { OPT_INT, "--max-active", "N", &s->max_active,
          "answers at one time, if fewer than conversations are kept", 1, 1024 },
        { OPT_INT, "--max-queue", "N", &s->max_queue, "requests that may wait; default 64", 1,
          65536 },
        { OPT_INT, "--max-queue-wait", "SECONDS", &s->queue_wait_seconds,
          "the longest wait; default: none", 1, 86400 },
        { OPT_STR, "--thinking-default", "off|low|high|max", &o->think,
          "where a request does not say; default high", 0, 0 },
        { OPT_FLAG, "--client-sampling", NULL, &s->client_sampling,
          "follow a client's temperature and penalties while the model thinks, too", 0, 0 },
        { OPT_STR, "--loop-guard", "on|off", &o->loop_guard,
          "end answers that repeat themselves without end; default on", 0, 0 },
        { OPT_FLAG, "--schema-in-prompt", NULL, &s->schema_in_prompt,
          "say the form of an answer in the prompt, too", 0, 0 },
        { OPT_STR, "--model-name", "NAME", &s->model_id,
          "what clients call the model; default deepseek-v4-flash", 0, 0 },
        { OPT_FLAG, "--strict-model", NULL, &s->strict_model, "refuse other names of models", 0,
          0 },
        { OPT_FLAG, "--strict-media", NULL, &s->strict_media,
          "refuse images and files instead of leaving them out", 0, 0 },
        { OPT_FLAG, "--strict-anthropic", NULL, &s->strict_anthropic,
          "Messages without `thinking` are answered without", 0, 0 },
        { OPT_FLAG, "--usage-plain", NULL, &s->usage_plain,
          "Messages count new prompt tokens as input, not as written to a cache", 0, 0 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof o->answers, "ServeOptions.answers");
    memcpy(o->answers, table, sizeof table);
    return o->answers;
}

static const Option *kept_options(ServeOptions *o)
{
    ServerOptions *s = &o->server;
    const Option table[] = {
        { OPT_TITLE, "What is kept", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--kv-disk-dir", "DIR", &s->kv_dir,
          "keep KV states here, so that no prompt is read twice, not even after a restart. They "
          "hold the prompts; default: memory alone",
          0, 0 },
        { OPT_INT, "--kv-disk-space-mb", "N", &o->disk_mb, "all that may lie there; default 16384",
          LEAST_DISK_MB, 1 << 30 },
        { OPT_INT, "--kv-ram-mb", "N", &o->ram_mb,
          "memory for states beside the slots; default 1024, at most an eighth of it all", 0,
          1 << 30 },
        { OPT_INT, "--idle-unload", "SECONDS", &s->unload_seconds,
          "without a request, until the model is closed; the next one opens it again", 1,
          31536000 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof o->kept, "ServeOptions.kept");
    memcpy(o->kept, table, sizeof table);
    return o->kept;
}

static const Option *limits_options(ServeOptions *o)
{
    ServerOptions *s = &o->server;
    HttpOptions *h = &s->http;
    const Option table[] = {
        { OPT_TITLE, "Limits and diagnosis", NULL, NULL, NULL, 0, 0 },
        { OPT_FLOAT, "--heartbeat", "SECONDS", &o->heartbeat,
          "of silence before a stream shows life; default 5", 0.05, 3600 },
        { OPT_INT, "--drain-timeout", "SECONDS", &s->drain_seconds,
          "that running answers have at the end; default 10", 0, 86400 },
        { OPT_INT, "--shutdown-timeout", "SECONDS", &s->shutdown_seconds,
          "that all of the end may take, with saving what is in the slots; default 20 more", 0,
          86400 },
        { OPT_INT, "--retry-grace", "SECONDS", &s->retry_seconds,
          "that an answer whose client is gone goes on, if nobody else waits, for a client that "
          "asks again; default 10; 0: none",
          0, 600 },
        { OPT_INT, "--max-connections", "N", &h->max_connections, "default 256", 1, 65536 },
        { OPT_INT, "--max-body-mb", "N", &o->body_mb, "of a request; default 64", 1, 4096 },
        { OPT_INT, "--max-header-kb", "N", &o->header_kb, "default 64", 1, 1024 },
        { OPT_INT, "--max-line-kb", "N", &o->line_kb, "of the request line; default 8", 1, 64 },
        { OPT_INT, "--max-headers", "N", &h->max_fields, "fields; default 100", 1, 10000 },
        { OPT_INT, "--header-timeout", "SECONDS", &h->header_seconds, "default 10", 1, 3600 },
        { OPT_INT, "--body-timeout", "SECONDS", &h->body_seconds,
          "without a byte of it, and with less than 64 KiB a second in all; default 30", 1, 3600 },
        { OPT_INT, "--idle-timeout", "SECONDS", &h->idle_seconds,
          "of a connection between requests; default 60", 1, 86400 },
        { OPT_INT, "--slow-timeout", "SECONDS", &h->slow_seconds,
          "until a client that takes nothing is given up; default 60", 1, 86400 },
        { OPT_STR, "--trace", "DIR", &s->trace_dir,
          "write each request, its prompt and its reply into a file of DIR", 0, 0 },
        { OPT_FLAG, "--quiet", NULL, &o->quiet, "no line for each request", 0, 0 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof o->limits, "ServeOptions.limits");
    memcpy(o->limits, table, sizeof table);
    return o->limits;
}

int cmd_serve(int argc, char **argv)
{
    ServeOptions o = { .port = DEFAULT_PORT, .think = "high", .loop_guard = "on", .heartbeat = 5 };
    o.model.engine.sessions = DEFAULT_SESSIONS;
    o.server.drain_seconds = 10;
    o.server.retry_seconds = 10;
    o.server.shutdown_seconds = o.disk_mb = o.ram_mb = -1;
    const Usage usage = { .usage = "ds4 serve [options]",
                          .about = about,
                          .tables = { where_options(&o), answers_options(&o), kept_options(&o),
                                      limits_options(&o), cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status < 0)
        status = settle(&o);
    return status >= 0 ? status : serve(&o);
}
