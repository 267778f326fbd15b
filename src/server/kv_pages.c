/* kv_pages.c - GET /kv, DELETE /kv/ID, POST /kv/prefetch. */
#include "kv_pages.h"
#include "exchange.h"
#include "wire.h"
#include <stdio.h>
#include <stdlib.h>

static void refuse(const Visit *v, int status, const char *code, const char *param,
                   const char *text)
{
    ApiError e = { 0 };
    api_fail(&e, status, code, param, "%s", text);
    exchange_refuse(v->r, &dialect_chat, &e);
}

static void send(const Visit *v, Bytes *body)
{
    if (body->failed)
        refuse(v, 503, "out_of_memory", NULL, "no memory for the reply");
    else
        http_reply(v->r, 200, "application/json", bytes_view(body));
    bytes_release(body);
}

static bool need_store(const Visit *v)
{
    if (v->s->store)
        return true;
    refuse(v, 404, "not_found", NULL,
           "This server keeps no KV states (--kv-disk-dir, --kv-ram-mb)");
    return false;
}

/* ---- looking ---------------------------------------------------------------------------- */

static void put_id(Bytes *out, const char *name, const char *id)
{
    bytes_printf(out, ",\"%s\":", name);
    if (*id)
        bytes_printf(out, "\"%s\"", id);
    else
        bytes_str(out, "null");
}

static void put_chunk(Bytes *out, const StoreItem *i)
{
    bytes_printf(out, "{\"id\":\"%s\"", i->id);
    put_id(out, "parent", i->parent);
    bytes_printf(out, ",\"first\":%d,\"tokens\":%d,\"bytes\":%llu,\"hits\":%u,\"created\":%lld",
                 i->first, i->last - i->first, (unsigned long long)i->bytes, i->hits,
                 (long long)i->created_s);
    bytes_printf(out, ",\"last_use\":%lld,\"in_ram\":%s,\"on_disk\":%s,\"other_model\":%s}",
                 (long long)i->used_s, i->in_ram ? "true" : "false", i->on_disk ? "true" : "false",
                 i->other_model ? "true" : "false");
}

void get_kv(const Visit *v)
{
    Bytes b = { 0 };
    StoreItem *items = NULL;
    size_t n = 0;
    if (!need_store(v))
        return;
    if (!store_list(v->s->store, &items, &n)) {
        refuse(v, 503, "out_of_memory", NULL, "no memory for the list");
        return;
    }
    bytes_str(&b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            bytes_byte(&b, ',');
        put_chunk(&b, &items[i]);
    }
    bytes_str(&b, "]}");
    free(items);
    send(v, &b);
}

/* ---- removing ----------------------------------------------------------------------------- */

void delete_kv(const Visit *v)
{
    Bytes b = { 0 };
    ds4_err err = { 0 };
    char id[64];
    size_t chunks = 0;
    uint64_t bytes = 0;
    if (!need_store(v))
        return;
    snprintf(id, sizeof id, "%.*s", (int)MIN(v->rest.n, sizeof id - 1), v->rest.p);
    if (!store_remove(v->s->store, id, &chunks, &bytes, &err)) {
        refuse(v, 404, "not_found", "id", err.msg);
        return;
    }
    server_log(v->s, "%s removed %zu chunks of KV states from %.12s on", http_request_id(v->r),
               chunks, id);
    bytes_str(&b, "{\"id\":");
    wire_str(&b, v->rest);
    bytes_printf(&b, ",\"object\":\"kv.chunk\",\"deleted\":true,\"chunks\":%zu,\"bytes\":%llu}",
                 chunks, (unsigned long long)bytes);
    send(v, &b);
}

/* ---- reading a prompt ahead ------------------------------------------------------------------ */

static const struct {
    const char *name;
    const Dialect *dialect;
    enum Api api;
} apis[] = {
    { "chat", &dialect_chat, API_CHAT },
    { "completions", &dialect_completions, API_COMPLETIONS },
    { "messages", &dialect_messages, API_MESSAGES },
    { "responses", &dialect_responses, API_RESPONSES },
};

/* The value of a query's parameter; empty: it is not there. */
static Str parameter(const char *query, const char *name)
{
    size_t n = strlen(name);
    while (*query) {
        size_t length = strcspn(query, "&");
        if (length > n && memcmp(query, name, n) == 0 && query[n] == '=')
            return (Str){ query + n + 1, length - n - 1 };
        query += length + (query[length] == '&');
    }
    return (Str){ 0 };
}

void post_prefetch(const Visit *v)
{
    Str wanted = parameter(http_query(v->r), "api");
    for (size_t i = 0; i < COUNT(apis); i++) {
        if (!str_eq(wanted, str_of(apis[i].name)))
            continue;
        exchange_begin(v->s, v->r, apis[i].dialect, apis[i].api, EXCHANGE_PREFETCH);
        return;
    }
    refuse(v, 400, "invalid_value", "api",
           "Say of which API the body is: ?api=chat, completions, messages or responses");
}
