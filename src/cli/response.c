/* response.c - header lines. What is malformed counts as not said. */
#include "response.h"
#include <strings.h>

static Str trimmed(Str s)
{
    while (s.n && strchr(" \t\r\n", s.p[s.n - 1]))
        s.n--;
    while (s.n && strchr(" \t", s.p[0]))
        s.p++, s.n--;
    return s;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Digits at the beginning of *s, which is moved behind them. */
static bool number(Str *s, uint64_t *out)
{
    uint64_t v = 0;
    size_t n = 0;
    for (; n < s->n && is_digit(s->p[n]); n++) {
        if (!mul_u64(v, 10, &v) || !add_u64(v, (uint64_t)(s->p[n] - '0'), &v))
            return false;
    }
    *s = (Str){ s->p + n, s->n - n };
    *out = v;
    return n > 0;
}

static bool whole_number(Str s, uint64_t *out) { return number(&s, out) && s.n == 0; }

static bool skip(Str *s, const char *word)
{
    size_t n = strlen(word);
    if (s->n < n || strncasecmp(s->p, word, n) != 0)
        return false;
    *s = (Str){ s->p + n, s->n - n };
    return true;
}

bool sha256_parse(char out[SHA256_HEX + 1], Str text)
{
    char hex[SHA256_HEX + 1] = "";
    if (text.n != SHA256_HEX)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i] >= 'A' && text.p[i] <= 'F' ? (char)(text.p[i] + 32) : text.p[i];
        if (!is_digit(c) && !(c >= 'a' && c <= 'f'))
            return false;
        hex[i] = c;
    }
    memcpy(out, hex, sizeof hex);
    return true;
}

/* "bytes 5-9/10", "bytes 5-9/" and a star; and "bytes " a star "/10" of a range that is none. */
static void put_range(Response *r, Str s)
{
    uint64_t first, last, total = 0;
    if (!skip(&s, "bytes ") || !number(&s, &first) || !skip(&s, "-") || !number(&s, &last) ||
        !skip(&s, "/") || (!str_eq(s, STR("*")) && !whole_number(s, &total)) || first > last ||
        (total && last >= total))
        return;
    r->has_range = true;
    r->first = first, r->last = last, r->total = total;
}

static Str unquoted(Str s)
{
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
        return (Str){ s.p + 1, s.n - 2 };
    return s;
}

static void copy(char *to, size_t room, Str s)
{
    if (s.n < room && !memchr(s.p, '\0', s.n)) {
        memcpy(to, s.p, s.n);
        to[s.n] = '\0';
    }
}

static void put_etag(Response *r, Str s)
{
    if (s.n && s.p[0] == '"')
        copy(r->etag, sizeof r->etag, s);
}

static void put_linked_etag(Response *r, Str s)
{
    if (s.n > 2 && !strncmp(s.p, "W/", 2))
        s = (Str){ s.p + 2, s.n - 2 };
    sha256_parse(r->sha256, unquoted(s));
}

static void begin(Response *r, Str line)
{
    Response next = { .linked_size = r->linked_size };
    memcpy(next.sha256, r->sha256, sizeof next.sha256);
    uint64_t status = 0;
    size_t space = 0;
    while (space < line.n && line.p[space] != ' ')
        space++;
    Str rest = trimmed((Str){ line.p + space, line.n - space });
    if (number(&rest, &status) && status < 1000)
        next.status = (int)status;
    *r = next;
}

void response_line(Response *r, Str line)
{
    uint64_t n;
    line = trimmed(line);
    if (skip(&(Str){ line.p, line.n }, "HTTP/"))
        begin(r, line);
    else if (skip(&line, "content-length:") && whole_number(trimmed(line), &n))
        r->has_length = true, r->length = n;
    else if (skip(&line, "content-range:"))
        put_range(r, trimmed(line));
    else if (skip(&line, "etag:"))
        put_etag(r, trimmed(line));
    else if (skip(&line, "last-modified:"))
        copy(r->modified, sizeof r->modified, trimmed(line));
    else if (skip(&line, "x-linked-etag:"))
        put_linked_etag(r, trimmed(line));
    else if (skip(&line, "x-linked-size:") && whole_number(trimmed(line), &n))
        r->linked_size = n;
    else if (skip(&line, "retry-after:") && whole_number(trimmed(line), &n))
        r->retry_after = (int)MIN(n, 3600);
}
