/* wire.c - errors, usage and numbers, as OpenAI and those after it write them. */
#include "wire.h"
#include "../base/utf8.h"
#include "../json/json.h"
#include <math.h>

void wire_chars(Bytes *out, Str s)
{
    while (s.n) {
        size_t n = utf8_valid(s);
        json_write_chars(out, (Str){ s.p, n });
        if (n < s.n)
            bytes_str(out, "\xEF\xBF\xBD");
        n = MIN(n + 1, s.n);
        s = (Str){ s.p + n, s.n - n };
    }
}

void wire_str(Bytes *out, Str s)
{
    bytes_byte(out, '"');
    wire_chars(out, s);
    bytes_byte(out, '"');
}

/* JSON knows neither infinity nor NaN. */
void wire_real(Bytes *out, double x, int decimals)
{
    double scale = pow(10, decimals);
    if (!(fabs(x) < 1e12))
        x = 0;
    json_write_real(out, round(x * scale) / scale);
}

int wire_count(Str s)
{
    int n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

/* ---- errors --------------------------------------------------------------------------- */

bool wire_too_long(const ApiError *e)
{
    return e->n_context > 0 && e->code && strcmp(e->code, "context_length_exceeded") == 0;
}

bool wire_retryable(const ApiError *e)
{
    return e->retry_after > 0 || e->status == 429 || e->status == 503 || e->status == 529;
}

int wire_status(const ApiError *e) { return e->status; }

static void put_name(Bytes *out, const char *key, const char *value)
{
    bytes_printf(out, ",\"%s\":", key);
    if (value)
        wire_str(out, str_of(value));
    else
        bytes_str(out, "null");
}

void wire_message(const ApiError *e, Bytes *out)
{
    if (wire_too_long(e))
        bytes_printf(out,
                     "\"This model's maximum context length is %d tokens. However, your messages "
                     "resulted in %d tokens. Please reduce the length of the messages.\"",
                     e->n_context, e->n_prompt);
    else
        wire_str(out, str_of(e->message));
}

void wire_error(const ApiError *e, const char *prompt_param, Bytes *out)
{
    bool too_long = wire_too_long(e);
    bytes_str(out, "{\"error\":{\"message\":");
    wire_message(e, out);
    put_name(out, "type", e->type ? e->type : "server_error");
    put_name(out, "param", too_long ? prompt_param : e->param);
    put_name(out, "code", e->code);
    if (too_long)
        bytes_printf(out, ",\"n_prompt_tokens\":%d,\"n_ctx\":%d", e->n_prompt, e->n_context);
    bytes_str(out, "}}");
}

/* ---- usage ------------------------------------------------------------------------------ */

void wire_usage(Bytes *out, const Usage *u)
{
    bytes_printf(out,
                 "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
                 "\"prompt_tokens_details\":{\"cached_tokens\":%d},"
                 "\"completion_tokens_details\":{\"reasoning_tokens\":%d},"
                 "\"prompt_cache_hit_tokens\":%d,\"prompt_cache_miss_tokens\":%d}",
                 u->prompt, u->completion, u->prompt + u->completion, u->cached, u->reasoning,
                 u->cached, u->prompt - u->cached);
}

static void put_speed(Bytes *out, const char *what, int tokens, double ms)
{
    bytes_printf(out, ",\"%s_n\":%d,\"%s_ms\":", what, tokens, what);
    wire_real(out, ms, 3);
    bytes_printf(out, ",\"%s_per_second\":", what);
    wire_real(out, ms > 0 ? 1000 * tokens / ms : 0, 3);
}

void wire_timings(Bytes *out, const Usage *u)
{
    bytes_printf(out, "\"timings\":{\"cache_n\":%d", u->cached);
    put_speed(out, "prompt", u->prompt - u->cached, u->prompt_ms);
    put_speed(out, "predicted", u->completion, u->completion_ms);
    bytes_byte(out, '}');
}

const char *wire_finish(enum Finish f)
{
    switch (f) {
    case FINISH_LENGTH:
    case FINISH_CONTEXT: return "length";
    case FINISH_TOOL_CALLS: return "tool_calls";
    case FINISH_STOP:
    case FINISH_STOP_SEQUENCE:
    case FINISH_LOOP: break;
    }
    return "stop";
}

void wire_stop_reason(Bytes *out, const Event *e)
{
    if (e->finish != FINISH_LOOP && e->finish != FINISH_STOP_SEQUENCE)
        return;
    bytes_str(out, ",\"stop_reason\":");
    wire_str(out, e->finish == FINISH_LOOP ? STR("repetition") : e->stop_sequence);
}

/* ---- for people ------------------------------------------------------------------------- */

/* Of n bytes; the marks of direction and what has no width are all of two and three. */
static bool is_unseen(const unsigned char *c, int n)
{
    if (n == 1)
        return c[0] < ' ' || c[0] == 0x7f;
    if (n == 2)
        return c[0] == 0xc2 && c[1] < 0xa0; /* U+0080..009F */
    if (n != 3 || c[0] != 0xe2)
        return false;
    return (c[1] == 0x80 && ((c[2] >= 0x8b && c[2] <= 0x8f) || (c[2] >= 0xa8 && c[2] <= 0xae))) ||
           (c[1] == 0x81 && c[2] >= 0xa0 && c[2] <= 0xaf);
}

void wire_printable(char *text)
{
    char *to = text;
    size_t left = strlen(text);
    for (const char *at = text; left;) {
        int n = utf8_char(at, left);
        size_t step = n ? (size_t)n : 1;
        if (n == 0 || is_unseen((const unsigned char *)at, n)) {
            *to++ = '?';
        } else {
            memmove(to, at, step);
            to += step;
        }
        at += step;
        left -= step;
    }
    *to = 0;
}
