/* json.c - reads through json-c. */
#include "json.h"
#include <json-c/json.h>
#include <limits.h>

struct json_object *json_parse(Str text, int max_depth, const char *what, ds4_err *err)
{
    while (text.n && memchr(" \t\r\n", text.p[text.n - 1], 4))
        text.n--;
    if (text.n > INT_MAX) {
        fail(err, DS4_EFORMAT, "%s: %zu bytes of JSON", what, text.n);
        return NULL;
    }
    struct json_tokener *tok = json_tokener_new_ex(max_depth);
    if (!tok) {
        fail(err, DS4_ENOMEM, "%s: no memory to read it", what);
        return NULL;
    }
    struct json_object *o = json_tokener_parse_ex(tok, text.p, (int)text.n);
    enum json_tokener_error e = json_tokener_get_error(tok);
    size_t end = json_tokener_get_parse_end(tok);
    json_tokener_free(tok);
    if (o && e == json_tokener_success && end == text.n)
        return o;
    json_object_put(o);
    fail(err, DS4_EFORMAT, "%s: not JSON at byte %zu: %s", what, end,
         e == json_tokener_success    ? "text after the end"
         : e == json_tokener_continue ? "it ends too early"
                                      : json_tokener_error_desc(e));
    return NULL;
}

void json_free(struct json_object *o) { json_object_put(o); }

bool json_whole(struct json_object *o, uint64_t max, uint64_t *out)
{
    if (!json_object_is_type(o, json_type_int))
        return false;
    int64_t v = json_object_get_int64(o); /* saturates */
    if (v < 0 || (uint64_t)v > max)
        return false;
    *out = (uint64_t)v;
    return true;
}

struct json_object *json_member(struct json_object *o, const char *key)
{
    struct json_object *m = NULL;
    if (json_object_is_type(o, json_type_object))
        json_object_object_get_ex(o, key, &m);
    return m;
}

Str json_text(struct json_object *o)
{
    if (!json_object_is_type(o, json_type_string))
        return (Str){ NULL, 0 };
    return (Str){ json_object_get_string(o), (size_t)json_object_get_string_len(o) };
}
