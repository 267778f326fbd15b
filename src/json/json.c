/* json.c - JSON in and out.
 *
 * json-c loses what it cannot hold without a word, so the text is looked over
 * first. json-c 0.16 decodes the escaped pairs of U+xD800..U+xDFFF wrongly: they
 * are written out. It gives integers beyond 64 bits their limit: they are made
 * reals, of which it keeps the text, with the mark "E0" at the end, and other
 * reals never have a capital E. It takes NaN and Infinity: they are refused. */
#include "json.h"
#include "../base/utf8.h"
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* In units of about 60 bytes: see weight. */
#define MOST_WEIGHT ((size_t)1 << 22)

static bool prepare(Str text, size_t most, Bytes *out, const char **wrong, size_t *at);

/* most: of weight. *wrong: what is, at byte *at; NULL: the memory is too small. */
static bool read_document(Str text, int max_depth, size_t most, Json **out, const char **wrong,
                          size_t *at)
{
    Bytes clean = { 0 };
    struct json_tokener *t = json_tokener_new_ex(max_depth);
    bool ok = false;
    *out = NULL;
    *wrong = NULL;
    if (t && prepare(text, most, &clean, wrong, at)) {
        json_tokener_set_flags(t, JSON_TOKENER_STRICT);
        errno = 0;
        *out = json_tokener_parse_ex(t, clean.p, (int)clean.n);
        enum json_tokener_error e = json_tokener_get_error(t);
        *at = json_tokener_get_parse_end(t);
        /* The terminator goes in with the text, so that a number at its end
         * is known to be complete. */
        ok = e == json_tokener_success && *at + 1 >= clean.n;
        if (!ok)
            *wrong = e == json_tokener_continue || (e != json_tokener_success && *at + 1 >= clean.n)
                         ? "it ends too early"
                     : e == json_tokener_success ? "more text"
                                                 : json_tokener_error_desc(e);
        if (!*out && errno == ENOMEM) { /* json-c before 0.17 has no word for it */
            ok = false;
            *wrong = NULL;
        }
    }
    if (!ok) {
        json_object_put(*out);
        *out = NULL;
    }
    if (t)
        json_tokener_free(t);
    bytes_release(&clean);
    return ok;
}

Json *json_read(Str text, ds4_err *err)
{
    Json *o;
    const char *wrong;
    size_t at = 0;
    if (!read_document(text, JSON_DEPTH, MOST_WEIGHT, &o, &wrong, &at))
        wrong ? fail(err, DS4_EINVAL, "the text is no JSON: %s at byte %zu of %zu", wrong,
                     MIN(at, text.n), text.n)
              : fail(err, DS4_ENOMEM, "JSON: no memory for %zu bytes", text.n);
    else if (!o)
        fail(err, DS4_EINVAL, "JSON: the document is null");
    return o;
}

Json *json_parse(Str text, int max_depth, const char *what, ds4_err *err)
{
    Json *o;
    const char *wrong;
    size_t at = 0;
    if (!read_document(text, max_depth, SIZE_MAX, &o, &wrong, &at))
        wrong ? fail(err, DS4_EFORMAT, "%s: not JSON at byte %zu: %s", what, at, wrong)
              : fail(err, DS4_ENOMEM, "%s: no memory to read it", what);
    else if (!o)
        fail(err, DS4_EFORMAT, "%s: its JSON is null", what);
    return o;
}

bool json_valid(Str text)
{
    Json *o;
    const char *wrong;
    size_t at;
    bool ok = read_document(text, JSON_DEPTH, MOST_WEIGHT, &o, &wrong, &at);
    json_object_put(o);
    return ok;
}

void json_free(Json *o) { json_object_put(o); }

/* ---- looking over -------------------------------------------------------------- */

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], low = c | 0x20;
        if (c >= '0' && c <= '9')
            v = 16 * v + c - '0';
        else if (low >= 'a' && low <= 'f')
            v = 16 * v + low - 'a' + 10;
        else
            return -1;
    }
    return v;
}

/* Two escapes at s that make one character: its code point, else 0. */
static unsigned surrogate_pair(Str s)
{
    if (s.n < 12 || s.p[1] != 'u' || s.p[6] != '\\' || s.p[7] != 'u')
        return 0;
    int high = hex4(s.p + 2), low = hex4(s.p + 8);
    if (high < 0xd800 || high > 0xdbff || low < 0xdc00 || low > 0xdfff)
        return 0;
    return 0x10000u + (((unsigned)high & 0x3ff) << 10 | ((unsigned)low & 0x3ff));
}

/* Copy what a string has at s, at least one byte; returns how much that was. */
static size_t copy_in_string(Str s, Bytes *out)
{
    if (s.p[0] == '\\') {
        unsigned c = surrogate_pair(s);
        if (c) {
            const char utf8[] = { (char)(0xf0 | c >> 18), (char)(0x80 | (c >> 12 & 63)),
                                  (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63)) };
            bytes_put(out, utf8, sizeof utf8);
            return 12;
        }
        bytes_put(out, s.p, MIN(s.n, 2));
        return MIN(s.n, 2);
    }
    int n = utf8_char(s.p, s.n);
    if (n == 0)
        bytes_str(out, "\xEF\xBF\xBD");
    else
        bytes_put(out, s.p, (size_t)n);
    return n ? (size_t)n : 1;
}

static bool fits_64(Str digits, bool negative)
{
    Str most = negative ? STR("9223372036854775808") : STR("18446744073709551615");
    while (digits.n > 1 && digits.p[0] == '0')
        digits = (Str){ digits.p + 1, digits.n - 1 };
    return digits.n < most.n || (digits.n == most.n && memcmp(digits.p, most.p, most.n) <= 0);
}

static bool among(char c, const char *set) { return c && strchr(set, c); }

/* Copy the number at s; returns its length. */
static size_t copy_number(Str s, Bytes *out)
{
    size_t n = 0;
    bool negative = s.p[0] == '-', real = false;
    for (; n < s.n && among(s.p[n], "+-.eE0123456789"); n++) {
        real |= among(s.p[n], ".eE");
        bytes_byte(out, (unsigned char)(s.p[n] == 'E' ? 'e' : s.p[n]));
    }
    if (!real && !fits_64((Str){ s.p + negative, n - negative }, negative))
        bytes_str(out, "E0");
    return n;
}

/* What json-c takes for what these begin, beside the text: an object of nothing
 * is 300 times as long as "{},". */
static size_t weight(char c)
{
    switch (c) {
    case '{': return 16;
    case '[':
    case ':': return 3;
    case ',': return 1;
    default: return 0;
    }
}

static bool prepare(Str text, size_t most, Bytes *out, const char **wrong, size_t *at)
{
    bool inside = false;
    size_t heavy = 0;
    *at = text.n;
    if (text.n > INT32_MAX / 4) {
        *wrong = "too much text";
        return false;
    }
    for (size_t i = 0; i < text.n;) {
        Str rest = { text.p + i, text.n - i };
        char c = rest.p[0];
        if (c == '"')
            inside = !inside;
        if (inside && c != '"') {
            i += copy_in_string(rest, out);
            continue;
        }
        if (c == 'N' || c == 'I') {
            *wrong = "a number that is none";
            *at = i;
            return false;
        }
        if (!inside && (c == '-' || (c >= '0' && c <= '9'))) {
            i += copy_number(rest, out);
            continue;
        }
        heavy += weight(c);
        if (heavy > most) {
            *wrong = "too many values";
            *at = i;
            return false;
        }
        bytes_byte(out, (unsigned char)c);
        i++;
    }
    bytes_byte(out, 0);
    return !out->failed;
}

/* ---- typed reads ----------------------------------------------------------------- */

/* json-c's reads take pointers that are not const; none of these changes o. */
static Json *unconst(const Json *o) { return (Json *)(uintptr_t)o; }

bool json_is_object(const Json *o) { return json_object_is_type(o, json_type_object); }

bool json_is_array(const Json *o) { return json_object_is_type(o, json_type_array); }

bool json_is_text(const Json *o) { return json_object_is_type(o, json_type_string); }

Json *json_member(const Json *o, const char *key)
{
    Json *m = NULL;
    if (json_is_object(o))
        json_object_object_get_ex(o, key, &m);
    return m;
}

size_t json_length(const Json *o) { return json_is_array(o) ? json_object_array_length(o) : 0; }

Json *json_at(const Json *o, size_t i)
{
    return json_is_array(o) ? json_object_array_get_idx(o, i) : NULL;
}

Str json_text(const Json *o)
{
    if (!json_is_text(o))
        return (Str){ NULL, 0 };
    return (Str){ json_object_get_string(unconst(o)), (size_t)json_object_get_string_len(o) };
}

bool json_is(const Json *o, const char *text)
{
    return json_is_text(o) && str_eq(json_text(o), str_of(text));
}

bool json_is_bool(const Json *o, bool value)
{
    return json_object_is_type(o, json_type_boolean) && json_object_get_boolean(o) == value;
}

bool json_whole(const Json *o, uint64_t max, uint64_t *out)
{
    if (!json_object_is_type(o, json_type_int) || json_object_get_int64(o) < 0)
        return false;
    uint64_t v = json_object_get_uint64(o);
    if (v > max)
        return false;
    *out = v;
    return true;
}

bool json_number(const Json *o, double *out)
{
    if (!json_object_is_type(o, json_type_int) && !json_object_is_type(o, json_type_double))
        return false;
    *out = json_object_get_double(o);
    return true;
}

/* ---- writing --------------------------------------------------------------------- */

void json_write_chars(Bytes *out, Str s)
{
    static const char plain[] = "\"\\\b\t\n\f\r", escaped[] = "\"\\btnfr";
    for (size_t i = 0, from = 0; i <= s.n; i++) {
        unsigned char c = i < s.n ? (unsigned char)s.p[i] : 0;
        if (i < s.n && c >= 0x20 && c != '"' && c != '\\')
            continue;
        if (i > from)
            bytes_put(out, s.p + from, i - from);
        from = i + 1;
        if (i == s.n)
            break;
        if (among((char)c, plain))
            bytes_printf(out, "\\%c", escaped[strchr(plain, c) - plain]);
        else
            bytes_printf(out, "\\u%04x", c);
    }
}

void json_write_str(Bytes *out, Str s)
{
    bytes_byte(out, '"');
    json_write_chars(out, s);
    bytes_byte(out, '"');
}

/* The fewest digits that give x back, first digit before the point;
 * *exponent: of ten. Returns how many. */
static int shortest_digits(double x, char digits[18], int *exponent)
{
    char text[40];
    int precision = 0, n = 0;
    do
        snprintf(text, sizeof text, "%.*e", precision, x);
    while (strtod(text, NULL) != x && ++precision < 17);
    const char *e = strchr(text, 'e');
    *exponent = atoi(e + 1);
    /* Whatever stands for the point in this locale is no digit. */
    for (const char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

void json_write_real(Bytes *out, double x)
{
    char digits[18];
    int e;
    if (isnan(x) || isinf(x)) {
        bytes_str(out, isnan(x) ? "NaN" : x < 0 ? "-Infinity" : "Infinity");
        return;
    }
    if (signbit(x))
        bytes_byte(out, '-');
    int n = shortest_digits(fabs(x), digits, &e);
    if (e < -4 || e >= 16) {
        bytes_put(out, digits, 1);
        if (n > 1)
            bytes_byte(out, '.');
        bytes_put(out, digits + 1, (size_t)n - 1);
        bytes_printf(out, "e%c%02d", e < 0 ? '-' : '+', abs(e));
    } else if (e < 0) {
        bytes_str(out, "0.");
        bytes_fill(out, '0', (size_t)(-e - 1));
        bytes_put(out, digits, (size_t)n);
    } else {
        int whole = MIN(n, e + 1);
        bytes_put(out, digits, (size_t)whole);
        bytes_fill(out, '0', (size_t)(e + 1 - whole));
        bytes_byte(out, '.');
        bytes_put(out, digits + whole, (size_t)(n - whole));
        if (n == whole)
            bytes_byte(out, '0');
    }
}

static void write_object(Bytes *out, const struct json_object *o)
{
    const char *comma = "";
    bytes_byte(out, '{');
    json_object_object_foreach(o, key, value)
    {
        bytes_str(out, comma);
        json_write_str(out, str_of(key));
        bytes_str(out, ": ");
        json_write(out, value);
        comma = ", ";
    }
    bytes_byte(out, '}');
}

static void write_array(Bytes *out, const struct json_object *o)
{
    bytes_byte(out, '[');
    for (size_t i = 0; i < json_object_array_length(o); i++) {
        bytes_str(out, i ? ", " : "");
        json_write(out, json_object_array_get_idx(o, i));
    }
    bytes_byte(out, ']');
}

/* Not json-c's own printing: it writes into o, which threads may share. */
static void write_whole(Bytes *out, const struct json_object *o)
{
    int64_t v = json_object_get_int64(o);
    if (v < 0)
        bytes_printf(out, "%lld", (long long)v);
    else
        bytes_printf(out, "%llu", (unsigned long long)json_object_get_uint64(o));
}

/* json-c keeps the text that a real was read from. */
static void write_double(Bytes *out, const struct json_object *o)
{
    const char *text = json_object_get_userdata(unconst(o));
    const char *mark = text ? strchr(text, 'E') : NULL;
    if (mark) {
        bool zero = text[strspn(text, "-0")] == 'E';
        bytes_put(out, zero ? "0" : text, zero ? 1 : (size_t)(mark - text));
    } else {
        json_write_real(out, json_object_get_double(o));
    }
}

void json_write(Bytes *out, const struct json_object *o)
{
    switch (json_object_get_type(o)) {
    case json_type_null: bytes_str(out, "null"); break;
    case json_type_boolean: bytes_str(out, json_object_get_boolean(o) ? "true" : "false"); break;
    case json_type_int: write_whole(out, o); break;
    case json_type_double: write_double(out, o); break;
    case json_type_string: json_write_str(out, json_text(o)); break;
    case json_type_array: write_array(out, o); break;
    case json_type_object: write_object(out, o); break;
    }
}
