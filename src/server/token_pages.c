/* token_pages.c - texts to token ids and back. On a worker: a text may be of
 * many megabytes, and other streams must not wait for it. */
#include "token_pages.h"
#include "exchange.h"
#include "wire.h"
#include "../json/json.h"
#include "../text/bpe.h"
#include <stdatomic.h>
#include <stdlib.h>

#define MOST_BODY ((size_t)8 << 20)
#define MOST_TEXT ((size_t)64 << 20)

typedef struct TokenTask TokenTask;
struct TokenTask {
    Server *s;
    HttpRequest *r; /* the network thread's; NULL: the client is gone */
    bool (*run)(TokenTask *t, const Json *body);
    atomic_bool gone; /* r is NULL: no worker need begin */
    Bytes body, reply;
    size_t size; /* of the body */
    ApiError error;
    HttpPost done;
};

/* ---- on a worker --------------------------------------------------------------------- */

static bool wants(const Json *body, const char *key)
{
    return json_is_bool(json_member(body, key), true);
}

static void put_piece(Bytes *out, const ds4_vocab *v, int32_t id)
{
    Str s = vocab_bytes(v, id);
    bytes_printf(out, "{\"id\":%d,\"piece\":", id);
    wire_str(out, s);
    bytes_byte(out, '}');
}

/* add_special is for a begin-of-sentence, which chat prompts get elsewhere. */
static bool tokenize(TokenTask *t, const Json *body)
{
    const ds4_vocab *v = t->s->prepare.vocab;
    const Json *content = json_member(body, "content");
    const Json *special = json_member(body, "parse_special");
    bool pieces = wants(body, "with_pieces");
    ds4_err err = { 0 };
    Tokens ids = { 0 };
    if (!json_is_text(content))
        return api_fail(&t->error, 400, "invalid_value", "content", "content is no string");
    if (wants(body, "add_special") && vocab_controls(v)->bos >= 0)
        tokens_put(&ids, vocab_controls(v)->bos);
    bool ok =
        bpe_encode(v, json_text(content), !json_is_bool(special, false), &ids, &err) && !ids.failed;
    bytes_str(&t->reply, "{\"tokens\":[");
    for (size_t i = 0; i < ids.n && ok; i++) {
        bytes_str(&t->reply, i ? "," : "");
        if (pieces)
            put_piece(&t->reply, v, ids.id[i]);
        else
            bytes_printf(&t->reply, "%d", ids.id[i]);
    }
    bytes_str(&t->reply, "]}");
    tokens_release(&ids);
    return ok || api_fail(&t->error, 503, "out_of_memory", NULL, "no memory for the tokens");
}

static bool detokenize(TokenTask *t, const Json *body)
{
    const ds4_vocab *v = t->s->prepare.vocab;
    const Json *list = json_member(body, "tokens");
    Bytes text = { 0 };
    bool ok = json_is_array(list) ||
              api_fail(&t->error, 400, "invalid_value", "tokens", "tokens is no list");
    for (size_t i = 0; ok && i < json_length(list); i++) {
        uint64_t id;
        ok = json_whole(json_at(list, i), INT32_MAX, &id) && (int)id < vocab_size(v);
        if (!ok)
            api_fail(&t->error, 400, "invalid_value", "tokens",
                     "tokens[%zu] is no token: the vocabulary has %d", i, vocab_size(v));
        Str s = ok ? vocab_bytes(v, (int32_t)id) : (Str){ 0 };
        bytes_put(&text, s.p, s.n);
        if (ok && text.n > MOST_TEXT)
            ok = api_fail(&t->error, 413, "request_too_large", "tokens",
                          "the text of the tokens is longer than %zu bytes", MOST_TEXT);
    }
    bytes_str(&t->reply, "{\"content\":");
    wire_str(&t->reply, bytes_view(&text));
    bytes_byte(&t->reply, '}');
    t->reply.failed |= text.failed;
    bytes_release(&text);
    return ok;
}

/* ---- there and back ------------------------------------------------------------------------ */

static void task_free(TokenTask *t)
{
    bytes_release(&t->body);
    bytes_release(&t->reply);
    free(t);
}

static void on_close(void *arg, const char *why)
{
    TokenTask *t = arg;
    (void)why;
    t->r = NULL;
    atomic_store(&t->gone, true);
}

static void on_done(void *arg)
{
    TokenTask *t = arg;
    t->s->preparing -= t->size;
    if (t->reply.failed)
        api_fail(&t->error, 503, "out_of_memory", NULL, "no memory for the reply");
    if (t->r) {
        http_on_close(t->r, NULL, NULL);
        if (t->error.status)
            exchange_refuse(t->r, &dialect_chat, &t->error);
        else
            http_reply(t->r, 200, "application/json", bytes_view(&t->reply));
    }
    task_free(t);
}

static void read_and_run(TokenTask *t)
{
    ds4_err err = { 0 };
    Json *body = json_read(bytes_view(&t->body), &err);
    if (err.code == DS4_ENOMEM)
        api_fail(&t->error, 503, "out_of_memory", NULL, "no memory for the request");
    else if (!json_is_object(body))
        api_fail(&t->error, 400, "invalid_json", NULL, "the body is no JSON object");
    else
        t->run(t, body);
    json_free(body);
}

static void work(void *arg)
{
    TokenTask *t = arg;
    if (!atomic_load(&t->gone))
        read_and_run(t);
    if (!http_post(t->s->http, &t->done, on_done, t))
        task_free(t);
}

/* What is said of a text may be a hundred times as long as the text. */
static bool fits(size_t size, ApiError *e)
{
    return size <= MOST_BODY ||
           api_fail(e, 413, "request_too_large", NULL,
                    "The body has %zu bytes, and %zu are read here", size, MOST_BODY);
}

static void begin(const Visit *v, bool (*run)(TokenTask *t, const Json *body))
{
    ApiError e = { 0 };
    size_t size = http_body(v->r).n;
    bool ok = exchange_possible(v->s, &e) && fits(size, &e) && exchange_fits(v->s, size, &e);
    TokenTask *t = ok ? calloc(1, sizeof *t) : NULL;
    if (t) {
        *t = (TokenTask){
            .s = v->s, .r = v->r, .run = run, .body = http_take_body(v->r), .size = size
        };
        http_on_close(v->r, on_close, t);
        v->s->preparing += size;
        if (workers_run(v->s->workers, work, t, size))
            return;
        v->s->preparing -= size;
        http_on_close(v->r, NULL, NULL);
        task_free(t);
    }
    if (!e.status)
        api_fail(&e, 503, "out_of_memory", NULL, "no memory for the request");
    exchange_refuse(v->r, &dialect_chat, &e);
}

void post_tokenize(const Visit *v) { begin(v, tokenize); }
void post_detokenize(const Visit *v) { begin(v, detokenize); }
