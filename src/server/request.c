/* request.c - members of a body into a Turn. */
#include "request.h"
#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static bool take_model(Request *r);
static bool take_session(Request *r);

bool request_begin(Request *r, Turn *t, Json *body, const Headers *h, const ServerInfo *s,
                   ApiError *e)
{
    *r = (Request){ .t = t, .body = body, .headers = h, .info = s, .e = e, .list = "body" };
    t->json = body;
    if (!json_is_object(body))
        return api_fail(e, 400, "invalid_json", NULL, "the body is no JSON object");
    return take_model(r) && request_bool(r, "stream", &t->stream) && take_session(r);
}

bool request_wrong(Request *r, const char *param, const char *fmt, ...)
{
    char text[sizeof r->e->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return api_fail(r->e, 400, "invalid_value", param, "%s", text);
}

bool request_no_memory(Request *r)
{
    return api_fail(r->e, 503, "out_of_memory", NULL, "no memory to read the request");
}

const char *request_header(const Request *r, const char *name)
{
    const char *value =
        r->headers && r->headers->get ? r->headers->get(r->headers->user, name) : NULL;
    return value ? value : "";
}

/* ---- model and session ----------------------------------------------------------- */

static bool starts_with(Str s, const char *start)
{
    size_t n = strlen(start);
    return s.n >= n && memcmp(s.p, start, n) == 0;
}

bool request_knows_model(Str name, const ServerInfo *s)
{
    static const char *const names[] = { "deepseek-v4-flash", "deepseek-chat",
                                         "deepseek-reasoner" };
    for (size_t i = 0; i < COUNT(names); i++)
        if (str_eq(name, str_of(names[i])))
            return true;
    return str_eq(name, str_of(s->model)) || starts_with(name, "claude-") ||
           starts_with(name, "gpt-");
}

static bool take_model(Request *r)
{
    r->t->model = str_of(r->info->model);
    if (!request_text(r, "model", &r->t->model))
        return false;
    if (!r->info->strict_model || request_knows_model(r->t->model, r->info))
        return true;
    return api_fail(r->e, 404, "model_not_found", "model", "The model '%.*s' does not exist",
                    STR_ARG(r->t->model));
}

static bool keep_header(Request *r, const char *name, Str *out)
{
    const char *value = request_header(r, name);
    if (out->n || !*value)
        return true;
    *out = (Str){ arena_str(&r->t->arena, str_of(value)), strlen(value) };
    return out->p || request_no_memory(r);
}

/* Claude Code sends a JSON text with a session_id; others just a name. */
static bool take_user_id(Request *r)
{
    Str id = json_text(json_member(json_member(r->body, "metadata"), "user_id"));
    if (r->t->session.n || !id.n)
        return true;
    r->t->session = id;
    Json *inner = id.p[0] == '{' ? json_read(id, NULL) : NULL;
    Str session = json_text(json_member(inner, "session_id"));
    r->t->session_is_shared = !session.n;
    if (session.n)
        r->t->session = (Str){ arena_str(&r->t->arena, session), session.n };
    json_free(inner);
    return r->t->session.p || request_no_memory(r);
}

/* The keys that clients send by themselves: the first that is there counts. */
static bool take_session(Request *r)
{
    static const char *const sessions[] = { "x-claude-code-session-id", "x-session-id",
                                            "x-session-affinity", "session-id", "session_id" };
    static const char *const agents[] = { "x-claude-code-agent-id", "thread-id" };
    static const char *const parents[] = { "x-claude-code-parent-agent-id", "x-parent-session-id" };
    static const char *const members[] = { "prompt_cache_key", "user" };
    Turn *t = r->t;
    bool ok = true;
    for (size_t i = 0; i < COUNT(sessions) && ok; i++)
        ok = keep_header(r, sessions[i], &t->session);
    for (size_t i = 0; i < COUNT(agents) && ok; i++)
        ok = keep_header(r, agents[i], &t->agent);
    for (size_t i = 0; i < COUNT(parents) && ok; i++)
        ok = keep_header(r, parents[i], &t->parent);
    const Json *codex = json_member(r->body, "client_metadata");
    if (!t->session.n)
        t->session = json_text(json_member(codex, "session_id"));
    if (!t->agent.n)
        t->agent = json_text(json_member(codex, "thread_id"));
    for (size_t i = 0; i < COUNT(members) && !t->session.n; i++) {
        t->session = json_text(json_member(r->body, members[i]));
        t->session_is_shared = t->session.n > 0;
    }
    return ok && take_user_id(r);
}

/* ---- texts ------------------------------------------------------------------------ */

bool request_clean(Request *r, Str s, Str *out)
{
    *out = s;
    if (!s.n || !memchr(s.p, 0, s.n))
        return true;
    char *p = arena_alloc(&r->t->arena, s.n);
    if (!p)
        return request_no_memory(r);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i])
            p[n++] = s.p[i];
    *out = (Str){ p, n };
    return true;
}

bool request_keep(Request *r, Bytes *b, Str *out)
{
    char *p = b->failed ? NULL : arena_str(&r->t->arena, bytes_view(b));
    *out = (Str){ p, p ? b->n : 0 };
    bytes_release(b);
    return p || request_no_memory(r);
}

bool request_json(Request *r, const Json *o, Str *out)
{
    Bytes b = { 0 };
    json_write(&b, o);
    return request_keep(r, &b, out);
}

bool request_text(Request *r, const char *key, Str *out)
{
    const Json *m = json_member(r->body, key);
    if (!m)
        return true;
    if (!json_is_text(m))
        return request_wrong(r, key, "%s is no string", key);
    return request_clean(r, json_text(m), out);
}

bool request_text_of(Request *r, const char *list, const Json *o, const char *key, Str *out)
{
    const Json *m = json_member(o, key);
    if (!m)
        return true;
    *out = json_text(m);
    return json_is_text(m) || request_wrong(r, list, "%s[%zu]: %s is no string", list, r->at, key);
}

bool request_bool_of(Request *r, const char *list, const Json *o, const char *key, bool *out)
{
    const Json *m = json_member(o, key);
    if (!m)
        return true;
    *out = json_is_bool(m, true);
    return *out || json_is_bool(m, false) ||
           request_wrong(r, list, "%s[%zu]: %s is neither true nor false", list, r->at, key);
}

/* ---- numbers and switches ----------------------------------------------------------- */

bool request_bool(Request *r, const char *key, bool *out)
{
    const Json *m = json_member(r->body, key);
    if (!m)
        return true;
    *out = json_is_bool(m, true);
    return *out || json_is_bool(m, false) ||
           request_wrong(r, key, "%s is neither true nor false", key);
}

bool request_real(Request *r, const char *key, double min, double max, float *out)
{
    const Json *m = json_member(r->body, key);
    double v;
    if (!m)
        return true;
    if (!json_number(m, &v))
        return request_wrong(r, key, "%s is no number", key);
    if (!(v >= min && v <= max))
        return request_wrong(r, key, "%s is %g, not in %g to %g", key, v, min, max);
    *out = (float)v;
    return true;
}

bool request_int(Request *r, const char *key, int min, int max, int *out)
{
    const Json *m = json_member(r->body, key);
    double v;
    if (!m)
        return true;
    if (!json_number(m, &v) || v != floor(v))
        return request_wrong(r, key, "%s is no whole number", key);
    if (v < min || v > max)
        return request_wrong(r, key, "%s is %.0f, not in %d to %d", key, v, min, max);
    *out = (int)v;
    return true;
}

/* -1 is how some clients say "as many as fit". */
bool request_max_tokens(Request *r, const char *key)
{
    const Json *m = json_member(r->body, key);
    double v;
    if (!m)
        return true;
    if (!json_number(m, &v) || v != floor(v))
        return request_wrong(r, key, "%s is no whole number", key);
    if (v < 1 && v != -1)
        return request_wrong(r, key, "%s is %.0f, and must be 1 or more", key, v);
    r->t->max_tokens = v == -1 ? 0 : v > INT32_MAX ? INT32_MAX : (int)v;
    return true;
}

bool request_stream_options(Request *r)
{
    static const char param[] = "stream_options";
    const Json *m = json_member(r->body, param), *usage = json_member(m, "include_usage");
    if (m && !json_is_object(m))
        return request_wrong(r, param, "%s is no object", param);
    r->t->include_usage = json_is_bool(usage, true);
    return !usage || r->t->include_usage || json_is_bool(usage, false) ||
           request_wrong(r, param, "%s.include_usage is neither true nor false", param);
}

bool request_one_answer(Request *r, const char *key)
{
    int n = 1;
    if (!request_int(r, key, 1, INT32_MAX, &n))
        return false;
    return n == 1 || request_wrong(r, key, "%s is %d: this server gives one answer", key, n);
}

/* A seed may be any number: its bits are what counts. */
static bool take_seed(Request *r)
{
    const Json *m = json_member(r->body, "seed");
    double v;
    if (!m)
        return true;
    if (!json_number(m, &v))
        return request_wrong(r, "seed", "seed is no number");
    r->t->has_seed = true;
    if (json_object_is_type(m, json_type_int))
        r->t->seed = v < 0 ? (uint64_t)json_object_get_int64(m) : json_object_get_uint64(m);
    else
        memcpy(&r->t->seed, &v, sizeof v);
    return true;
}

bool request_sampling(Request *r)
{
    Turn *t = r->t;
    float temperature = t->temperature, top_p = t->top_p, min_p = t->min_p;
    float presence = 0, frequency = 0;
    int top_k = t->top_k;
    if (!request_real(r, "temperature", 0, 2, &temperature) ||
        !request_real(r, "top_p", 0, 1, &top_p) || !request_real(r, "min_p", 0, 1, &min_p) ||
        !request_int(r, "top_k", -1, INT32_MAX, &top_k) ||
        !request_real(r, "presence_penalty", -2, 2, &presence) ||
        !request_real(r, "frequency_penalty", -2, 2, &frequency) || !take_seed(r))
        return false;
    if (t->think != CHAT_THINK_OFF && !r->info->client_sampling)
        return true;
    t->temperature = temperature;
    t->top_p = top_p;
    t->min_p = min_p;
    t->top_k = top_k;
    t->presence_penalty = presence;
    t->frequency_penalty = frequency;
    return true;
}

bool request_stop(Request *r, const char *key, size_t most)
{
    const Json *m = json_member(r->body, key);
    size_t n = json_is_array(m) ? json_length(m) : 1;
    if (!m)
        return true;
    if (n > most)
        return request_wrong(r, key, "%s holds %zu strings, at most %zu are allowed", key, n, most);
    Turn *t = r->t;
    t->stop = arena_array(&t->arena, n, sizeof *t->stop);
    if (!t->stop)
        return request_no_memory(r);
    for (size_t i = 0; i < n; i++) {
        const Json *one = json_is_array(m) ? json_at(m, i) : m;
        if (!json_is_text(one))
            return request_wrong(r, key, "%s[%zu] is no string", key, i);
        if (json_text(one).n)
            t->stop[t->n_stop++] = json_text(one);
    }
    return true;
}

static bool read_bias(Request *r, const char *key, const Json *value, LogitBias *out)
{
    char *end;
    double bias;
    long token = strtol(key, &end, 10);
    if (key[0] < '0' || key[0] > '9' || *end || token > INT32_MAX)
        return request_wrong(r, "logit_bias", "logit_bias: '%.40s' is no token id", key);
    if (!json_number(value, &bias) || !(bias >= -100 && bias <= 100))
        return request_wrong(r, "logit_bias", "logit_bias: the bias of %ld is not in -100 to 100",
                             token);
    *out = (LogitBias){ (int32_t)token, (float)bias };
    return true;
}

bool request_logit_bias(Request *r)
{
    enum { MOST = 300 };
    const Json *m = json_member(r->body, "logit_bias");
    Turn *t = r->t;
    if (!m)
        return true;
    if (!json_is_object(m))
        return request_wrong(r, "logit_bias", "logit_bias is no object");
    if (json_object_object_length(m) > MOST)
        return request_wrong(r, "logit_bias", "logit_bias holds %d tokens, at most %d are allowed",
                             json_object_object_length(m), MOST);
    t->bias = arena_array(&t->arena, (size_t)json_object_object_length(m), sizeof *t->bias);
    if (!t->bias)
        return request_no_memory(r);
    json_object_object_foreach(m, key, value)
    {
        if (!read_bias(r, key, value, &t->bias[t->n_bias++]))
            return false;
    }
    return true;
}

/* ---- the form of the answer ---------------------------------------------------------- */

static bool take_format(Request *r, enum FormatKind kind, const char *param)
{
    if (r->t->format != FORMAT_TEXT)
        return request_wrong(r, param, "%s: the answer has another form already", param);
    r->t->format = kind;
    return true;
}

bool request_schema(Request *r, Json *schema, const char *param)
{
    if (!json_is_object(schema) && !json_object_is_type(schema, json_type_boolean))
        return request_wrong(r, param, "%s: the schema is no object", param);
    r->t->schema = schema;
    return take_format(r, FORMAT_JSON_SCHEMA, param);
}

bool request_grammar(Request *r)
{
    Str lark = { 0 }, regex = { 0 };
    if (!request_text(r, "grammar", &lark) || !request_text(r, "regex", &regex) ||
        (lark.n && !take_format(r, FORMAT_LARK, "grammar")) ||
        (regex.n && !take_format(r, FORMAT_REGEX, "regex")))
        return false;
    if (lark.n || regex.n)
        r->t->format_text = lark.n ? lark : regex;
    return true;
}
