/* call_form.c - tool calls compared by what they say. */
#include "call_form.h"
#include "../json/json.h"
#include <json-c/json.h>
#include <stdlib.h>

static void put_value(Bytes *out, const Json *o);

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_members(Bytes *out, const Json *o, const char **keys)
{
    size_t n = 0;
    json_object_object_foreach(o, key, value)
    {
        (void)value;
        keys[n++] = key;
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n; i++) {
        bytes_byte(out, i ? ',' : '{');
        json_write_str(out, str_of(keys[i]));
        bytes_byte(out, ':');
        put_value(out, json_member(o, keys[i]));
    }
}

static void put_object(Bytes *out, const Json *o)
{
    const char **keys = calloc((size_t)json_object_object_length(o) + 1, sizeof *keys);
    if (keys)
        put_members(out, o, keys);
    out->failed |= !keys;
    free(keys);
    bytes_str(out, json_object_object_length(o) ? "}" : "{}");
}

static void put_array(Bytes *out, const Json *o)
{
    bytes_byte(out, '[');
    for (size_t i = 0; i < json_length(o); i++) {
        bytes_str(out, i ? "," : "");
        put_value(out, json_at(o, i));
    }
    bytes_byte(out, ']');
}

static void put_value(Bytes *out, const Json *o)
{
    double x;
    if (json_is_object(o))
        put_object(out, o);
    else if (json_is_array(o))
        put_array(out, o);
    else if (json_number(o, &x))
        json_write_real(out, x == 0 ? 0 : x); /* -0 is 0 */
    else
        json_write(out, o);
}

static bool is_blank(Str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr(" \t\r\n", s.p[i]) || !s.p[i])
            return false;
    return true;
}

static void put_sized(Bytes *out, Str s)
{
    bytes_u64(out, s.n);
    bytes_put(out, s.p, s.n);
}

/* What is no JSON is told from what is by a byte that JSON never begins with. */
static void put_arguments(Bytes *out, Str arguments)
{
    ds4_err err = { 0 };
    Json *o = is_blank(arguments) ? NULL : json_read(arguments, &err);
    out->failed |= err.code == DS4_ENOMEM;
    if (o)
        put_value(out, o);
    else if (is_blank(arguments))
        bytes_str(out, "{}"); /* clients leave out what is empty */
    else {
        bytes_byte(out, 0);
        bytes_put(out, arguments.p, arguments.n);
    }
    json_free(o);
}

void call_form(Bytes *out, const ChatCall *call)
{
    Bytes arguments = { 0 };
    put_arguments(&arguments, call->arguments);
    put_sized(out, call->name);
    put_sized(out, bytes_view(&arguments));
    out->failed |= arguments.failed;
    bytes_release(&arguments);
}
