/* routes.c - paths, methods, and the small answers that need no engine.
 *
 * A path counts with or without /v1 before it and a slash behind it. HEAD is
 * answered as GET, of which the transport leaves the body out. */
#include "routes.h"
#include "catalog.h"
#include "exchange.h"
#include "kept.h"
#include "kv_pages.h"
#include "token_pages.h"
#include "wire.h"
#include "welcome.h"
#include <stdio.h>
#include <stdlib.h>

#define JSON_TYPE "application/json"
#define HTML_TYPE "text/html; charset=utf-8"

enum { MOST_PATH = 1024, STUCK_SECONDS = 30 };

typedef void (*Visitor)(const Visit *v);

static void get_page(const Visit *v);
static void get_hello(const Visit *v);
static void get_health(const Visit *v);
static void get_status(const Visit *v);
static void get_metrics(const Visit *v);
static void get_models(const Visit *v);
static void get_model(const Visit *v);
static void get_codex(const Visit *v);
static void get_props(const Visit *v);
static void get_version(const Visit *v);
static void get_tags(const Visit *v);
static void get_response(const Visit *v);
static void delete_response(const Visit *v);
static void cancel_response(const Visit *v);
static void cancel_request(const Visit *v);
static void refuse_embeddings(const Visit *v);

static void post_chat(const Visit *v);
static void post_completions(const Visit *v);
static void post_messages(const Visit *v);
static void post_responses(const Visit *v);
static void count_chat(const Visit *v);
static void count_messages(const Visit *v);
static void count_responses(const Visit *v);

/* A star stands for one part of a path. */
static const struct {
    const char *method, *path;
    Visitor visit;
} routes[] = {
    { "POST", "/chat/completions", post_chat },
    { "POST", "/chat/completions/input_tokens", count_chat },
    { "POST", "/completions", post_completions },
    { "POST", "/messages", post_messages },
    { "POST", "/messages/count_tokens", count_messages },
    { "POST", "/responses", post_responses },
    { "POST", "/responses/input_tokens", count_responses },
    { "GET", "/responses/*", get_response },
    { "DELETE", "/responses/*", delete_response },
    { "POST", "/responses/*/cancel", cancel_response },
    { "DELETE", "/requests/*", cancel_request },
    { "GET", "/models", get_models },
    { "GET", "/models/*", get_model },
    { "GET", "/codex/models", get_codex },
    { "POST", "/embeddings", refuse_embeddings },
    { "POST", "/tokenize", post_tokenize },
    { "POST", "/detokenize", post_detokenize },
    { "GET", "/props", get_props },
    { "GET", "/health", get_health },
    { "GET", "/status", get_status },
    { "GET", "/metrics", get_metrics },
    { "GET", "/kv", get_kv },
    { "POST", "/kv/prefetch", post_prefetch },
    { "DELETE", "/kv/*", delete_kv },
    { "GET", "/api/hello", get_hello },
    { "GET", "/api/version", get_version },
    { "GET", "/api/tags", get_tags },
    { "GET", "/", get_page },
};

/* ---- finding one ------------------------------------------------------------------- */

/* The path without /v1 and without a slash at its end. */
static Str normal_path(const char *path)
{
    Str p = str_of(path);
    if (p.n >= 3 && memcmp(p.p, "/v1", 3) == 0 && (p.n == 3 || p.p[3] == '/'))
        p = (Str){ p.p + 3, p.n - 3 };
    while (p.n > 1 && p.p[p.n - 1] == '/')
        p.n--;
    return p.n ? p : STR("/");
}

static bool matches(const char *route, Str path, Str *rest)
{
    size_t before = strcspn(route, "*");
    *rest = (Str){ 0 };
    if (!route[before])
        return str_eq(str_of(route), path);
    Str after = str_of(route + before + 1);
    if (path.n <= before + after.n || memcmp(route, path.p, before) != 0 ||
        (after.n && memcmp(path.p + path.n - after.n, after.p, after.n) != 0))
        return false;
    *rest = (Str){ path.p + before, path.n - before - after.n };
    /* An id may hold slashes where nothing follows it: names of models do. */
    return !after.n || !memchr(rest->p, '/', rest->n);
}

static const Dialect *dialect_of(const char *path)
{
    Str p = normal_path(path);
    static const struct {
        const char *start;
        const Dialect *dialect;
    } starts[] = { { "/messages", &dialect_messages },
                   { "/responses", &dialect_responses },
                   { "/completions", &dialect_completions } };
    for (size_t i = 0; i < COUNT(starts); i++) {
        Str start = str_of(starts[i].start);
        if (p.n >= start.n && memcmp(p.p, start.p, start.n) == 0 &&
            (p.n == start.n || p.p[start.n] == '/'))
            return starts[i].dialect;
    }
    return &dialect_chat;
}

/* Who tries keys does so thousands of times a second. */
static void log_refused(Server *s, const HttpRequest *r, int status, const char *code)
{
    int64_t now = clock_ns();
    if (s->refused_ns && now - s->refused_ns < 1000000000) {
        s->refused++;
        return;
    }
    server_log(s, "refused: %d %s to %s, and %d more before", status, code, http_peer(r),
               s->refused);
    s->refused_ns = now;
    s->refused = 0;
}

void routes_error(void *server, const HttpRequest *r, int status, const char *code,
                  const char *message, Bytes *out)
{
    ApiError e = { 0 };
    Server *s = server;
    const char *path = http_path(r);
    metrics_request_began(s->metrics);
    metrics_request_ended(s->metrics, METRICS_NO_API, client_of(http_header(r, "user-agent")),
                          status, 0);
    if (status == 401 || status == 403)
        log_refused(s, r, status, code);
    /* The sentence that Anthropic's clients know. */
    bool key = status == 401 && dialect_of(path) == &dialect_messages;
    api_fail(&e, status, code, NULL, "%s", key ? "invalid x-api-key" : message);
    dialect_of(path)->error(&e, http_request_id(r), out);
}

static void refuse(HttpRequest *r, int status, const char *code, const char *message)
{
    ApiError e = { 0 };
    api_fail(&e, status, code, NULL, "%s", message);
    exchange_refuse(r, dialect_of(http_path(r)), &e);
}

static void no_route(HttpRequest *r, const char *allowed)
{
    char text[MOST_PATH + 64], all[80];
    if (*allowed) {
        snprintf(all, sizeof all, "%s, OPTIONS", allowed);
        http_set(r, "allow", all);
        snprintf(text, sizeof text, "%.16s is not for %.*s: only %s", http_method(r), MOST_PATH,
                 http_path(r), allowed);
        refuse(r, 405, "method_not_allowed", text);
        return;
    }
    snprintf(text, sizeof text, "There is nothing at %.*s", MOST_PATH, http_path(r));
    refuse(r, 404, "not_found", text);
}

void routes_handle(void *server, HttpRequest *r)
{
    const char *method = http_method(r);
    Str path = normal_path(http_path(r));
    char allowed[64] = "";
    bool head = strcmp(method, "HEAD") == 0;
    for (size_t i = 0; i < COUNT(routes); i++) {
        Visit v = { server, r, { 0 } };
        if (!matches(routes[i].path, path, &v.rest))
            continue;
        if (strcmp(routes[i].method, head ? "GET" : method) == 0) {
            routes[i].visit(&v);
            return;
        }
        size_t n = strlen(allowed);
        bool get = strcmp(routes[i].method, "GET") == 0;
        snprintf(allowed + n, sizeof allowed - n, "%s%s", n ? ", " : "",
                 get ? "GET, HEAD" : routes[i].method);
    }
    no_route(r, allowed);
}

/* ---- answers ------------------------------------------------------------------------- */

static void answer(const Visit *v, const Dialect *d, enum Api api)
{
    exchange_begin(v->s, v->r, d, api, EXCHANGE_ANSWER);
}

static void count(const Visit *v, const Dialect *d, enum Api api)
{
    exchange_begin(v->s, v->r, d, api, EXCHANGE_COUNT);
}

static void post_chat(const Visit *v) { answer(v, &dialect_chat, API_CHAT); }
static void post_completions(const Visit *v) { answer(v, &dialect_completions, API_COMPLETIONS); }
static void post_messages(const Visit *v) { answer(v, &dialect_messages, API_MESSAGES); }
static void post_responses(const Visit *v) { answer(v, &dialect_responses, API_RESPONSES); }
static void count_chat(const Visit *v) { count(v, &dialect_chat, API_CHAT); }
static void count_messages(const Visit *v) { count(v, &dialect_messages, API_MESSAGES); }
static void count_responses(const Visit *v) { count(v, &dialect_responses, API_RESPONSES); }

/* ---- small replies --------------------------------------------------------------------- */

static void send(const Visit *v, int status, const char *type, Bytes *body)
{
    if (body->failed)
        refuse(v->r, 503, "out_of_memory", "no memory for the reply");
    else
        http_reply(v->r, status, type, bytes_view(body));
    bytes_release(body);
}

static double uptime(const Server *s) { return (double)(clock_ns() - s->started_ns) / 1e9; }

/* False, and the request is answered: the model is not loaded. */
static bool need_model(const Visit *v)
{
    ApiError e = { 0 };
    if (atomic_load(&v->s->ready))
        return true;
    exchange_possible(v->s, &e);
    exchange_refuse(v->r, dialect_of(http_path(v->r)), &e);
    return false;
}

static void get_hello(const Visit *v) { http_reply(v->r, 200, NULL, (Str){ 0 }); }

static void get_health(const Visit *v)
{
    Server *s = v->s;
    Bytes b = { 0 };
    int status = 503;
    if (s->draining) {
        bytes_str(&b, "{\"status\":\"draining\"}");
    } else if (!atomic_load(&s->ready)) {
        bytes_str(&b, "{\"status\":\"loading\",\"progress\":");
        wire_real(&b, atomic_load(&s->loaded) / 1000.0, 3);
        bytes_byte(&b, '}');
    } else if (scheduler_silence(s->scheduler) > STUCK_SECONDS) {
        bytes_str(&b, "{\"status\":\"stuck\"}");
    } else {
        bool unloaded = scheduler_is_unloaded(s->scheduler);
        bytes_str(&b,
                  unloaded ? "{\"status\":\"ok\",\"model\":\"unloaded\"}" : "{\"status\":\"ok\"}");
        status = 200;
    }
    if (status != 200)
        http_set(v->r, "retry-after", "5");
    send(v, status, JSON_TYPE, &b);
}

static void put_member(Bytes *b, const char *name, const char *value)
{
    bytes_printf(b, "\"%s\":", name);
    wire_str(b, str_of(value));
    bytes_byte(b, ',');
}

static const char *state_of(const Server *s)
{
    if (s->draining)
        return "draining";
    if (!atomic_load(&s->ready))
        return "loading";
    return scheduler_is_unloaded(s->scheduler) ? "unloaded" : "ok";
}

static void get_status(const Visit *v)
{
    Server *s = v->s;
    Bytes b = { 0 };
    bool ready = atomic_load(&s->ready);
    HttpStats http = http_stats(s->http);
    bytes_byte(&b, '{');
    put_member(&b, "build", "ds4 " DS4_VERSION);
    put_member(&b, "state", state_of(s));
    put_member(&b, "model", s->info.model);
    put_member(&b, "name", ready ? s->model_name : "");
    put_member(&b, "engine", ready ? s->engine : "");
    bytes_printf(&b, "\"ctx\":%d,\"uptime\":", ready ? s->info.context : 0);
    wire_real(&b, uptime(s), 1);
    bytes_printf(&b,
                 ",\"connections\":{\"open\":%d,\"accepted\":%llu,\"refused\":%llu,"
                 "\"requests\":%llu,\"slow\":%llu},",
                 http.open, (unsigned long long)http.connections, (unsigned long long)http.refused,
                 (unsigned long long)http.requests, (unsigned long long)http.slow_clients);
    scheduler_status(s->scheduler, &b);
    kept_status(s, &b);
    bytes_byte(&b, '}');
    send(v, 200, JSON_TYPE, &b);
}

static void get_metrics(const Visit *v)
{
    Bytes b = { 0 };
    StoreCounters c;
    if (v->s->store) {
        store_counters(v->s->store, &c);
        metrics_store(v->s->metrics, &c);
    }
    metrics_write(v->s->metrics, &b);
    send(v, 200, METRICS_TYPE, &b);
}

static void get_page(const Visit *v)
{
    Server *s = v->s;
    Bytes b = { 0 };
    SchedulerCounts c = scheduler_counts(s->scheduler);
    char kept[160];
    bool ready = atomic_load(&s->ready);
    /* The rest of it is written while the model is loaded. */
    const ServerInfo loading = { .model = s->info.model };
    page_write(&b, ready ? &s->info : &loading,
               &(PageStatus){ .uptime = uptime(s),
                              .slots = c.slots,
                              .busy = c.busy,
                              .queued = c.queued,
                              .build = "ds4 " DS4_VERSION,
                              .quant = ready ? s->engine : NULL,
                              .kept = kept_words(s, kept, sizeof kept) ? kept : NULL });
    send(v, 200, HTML_TYPE, &b);
}

static void get_models(const Visit *v)
{
    Bytes b = { 0 };
    if (!need_model(v))
        return;
    catalog_models(&b, &v->s->info);
    send(v, 200, JSON_TYPE, &b);
}

static void get_model(const Visit *v)
{
    Bytes b = { 0 };
    char text[256];
    if (!need_model(v))
        return;
    if (catalog_model(&b, &v->s->info, v->rest)) {
        send(v, 200, JSON_TYPE, &b);
        return;
    }
    bytes_release(&b);
    snprintf(text, sizeof text, "The model '%.*s' does not exist", STR_ARG(v->rest));
    refuse(v->r, 404, "model_not_found", text);
}

static void get_codex(const Visit *v)
{
    Bytes b = { 0 };
    if (!need_model(v))
        return;
    catalog_codex(&b, &v->s->info);
    send(v, 200, JSON_TYPE, &b);
}

static void get_props(const Visit *v)
{
    Bytes b = { 0 };
    if (!need_model(v))
        return;
    catalog_props(&b, &v->s->info,
                  &(CatalogProps){ .slots = v->s->sessions,
                                   .model_path = v->s->opt.model_path,
                                   .build = "ds4 " DS4_VERSION });
    send(v, 200, JSON_TYPE, &b);
}

static void get_version(const Visit *v)
{
    Bytes b = { 0 };
    catalog_version(&b);
    send(v, 200, JSON_TYPE, &b);
}

static void get_tags(const Visit *v)
{
    Bytes b = { 0 };
    if (!need_model(v))
        return;
    catalog_tags(&b, &v->s->info);
    send(v, 200, JSON_TYPE, &b);
}

static void refuse_embeddings(const Visit *v)
{
    refuse(v->r, 501, "not_supported", "This model makes no embeddings");
}

/* ---- responses and requests by id --------------------------------------------------------- */

static void no_response(const Visit *v)
{
    char text[256];
    snprintf(text, sizeof text, "No response has the id '%.*s'", STR_ARG(v->rest));
    refuse(v->r, 404, "not_found", text);
}

static void get_response(const Visit *v)
{
    Bytes b = { 0 };
    if (responses_get(v->s->responses, v->rest, &b)) {
        send(v, 200, JSON_TYPE, &b);
        return;
    }
    bytes_release(&b);
    no_response(v);
}

static void put_id(Bytes *b, Str id, const char *rest)
{
    bytes_str(b, "{\"id\":");
    wire_str(b, id);
    bytes_str(b, rest);
}

static void delete_response(const Visit *v)
{
    Bytes b = { 0 };
    if (!responses_delete(v->s->responses, v->rest)) {
        no_response(v);
        return;
    }
    put_id(&b, v->rest, ",\"object\":\"response\",\"deleted\":true}");
    send(v, 200, JSON_TYPE, &b);
}

static void cancel_response(const Visit *v)
{
    Bytes b = { 0 };
    if (!exchange_cancel(v->s, v->rest)) {
        no_response(v);
        return;
    }
    put_id(&b, v->rest, ",\"object\":\"response\",\"status\":\"cancelled\"}");
    send(v, 200, JSON_TYPE, &b);
}

static void cancel_request(const Visit *v)
{
    Bytes b = { 0 };
    char text[256];
    if (!exchange_cancel(v->s, v->rest)) {
        snprintf(text, sizeof text, "No request '%.*s' is running", STR_ARG(v->rest));
        refuse(v->r, 404, "not_found", text);
        return;
    }
    put_id(&b, v->rest, ",\"canceled\":true}");
    send(v, 200, JSON_TYPE, &b);
}
