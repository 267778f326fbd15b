/* grade_calls.c - are these the right calls? The right tool, arguments within its
 * schema, and the right ones. */
#include "grade_parts.h"
#include <ctype.h>
#include <json-c/json.h>

/* ---- within the schema ------------------------------------------------------------------ */

static bool is_whole(const Json *o)
{
    double x = 0;
    return json_number(o, &x) && x > -9e15 && x < 9e15 && (double)(int64_t)x - x < 1e-12 &&
           x - (double)(int64_t)x < 1e-12;
}

static bool has_type(const Json *o, const Json *type)
{
    double x;
    if (json_is(type, "string"))
        return json_is_text(o);
    if (json_is(type, "integer"))
        return is_whole(o);
    if (json_is(type, "number"))
        return json_number(o, &x);
    if (json_is(type, "boolean"))
        return json_is_bool(o, true) || json_is_bool(o, false);
    if (json_is(type, "array"))
        return json_is_array(o);
    return !type || (json_is(type, "object") && json_is_object(o));
}

static bool is_one_of(const Json *o, const Json *list)
{
    bool found = !list;
    for (size_t i = 0; !found && i < json_length(list); i++)
        found = str_eq(json_text(json_at(list, i)), json_text(o));
    return found;
}

static bool in_bounds(const Json *o, const Json *schema)
{
    double x, bound;
    if (!json_number(o, &x))
        return true;
    return !(json_number(json_member(schema, "minimum"), &bound) && x < bound) &&
           !(json_number(json_member(schema, "maximum"), &bound) && x > bound);
}

static bool value_fits(const Json *o, const Json *schema)
{
    const Json *items = json_member(schema, "items");
    bool ok = has_type(o, json_member(schema, "type")) && in_bounds(o, schema) &&
              is_one_of(o, json_member(schema, "enum"));
    for (size_t i = 0; ok && items && i < json_length(o); i++)
        ok = value_fits(json_at(o, i), items);
    return ok;
}

bool grade_schema(const Json *function, const Json *arguments, char why[GRADE_WHY])
{
    const Json *schema = json_member(function, "parameters");
    const Json *properties = json_member(schema, "properties");
    const Json *required = json_member(schema, "required");
    if (!json_is_object(arguments))
        return grade_wrong(why, "the arguments are no object");
    for (size_t i = 0; i < json_length(required); i++) {
        const char *name = json_object_get_string(json_at(required, i));
        if (!json_member(arguments, name))
            return grade_wrong(why, "%.32s is missing", name);
    }
    json_object_object_foreach((Json *)(uintptr_t)arguments, key, value)
    {
        const Json *p = json_member(properties, key);
        if (!p)
            return grade_wrong(why, "%.32s is no parameter", key);
        if (!value_fits(value, p))
            return grade_wrong(why, "%.32s is not within the schema", key);
    }
    return true;
}

/* ---- the right ones --------------------------------------------------------------------- */

static bool same_text(Str a, Str b)
{
    while (a.n && isspace((unsigned char)a.p[a.n - 1]))
        a.n--;
    while (a.n && isspace((unsigned char)a.p[0]))
        a = (Str){ a.p + 1, a.n - 1 };
    bool ok = a.n == b.n;
    for (size_t i = 0; ok && i < a.n; i++)
        ok = tolower((unsigned char)a.p[i]) == tolower((unsigned char)b.p[i]);
    return ok;
}

static bool same_value(const Json *a, const Json *b)
{
    double x, y;
    if (json_is_text(b))
        return json_is_text(a) && same_text(json_text(a), json_text(b));
    if (json_number(b, &y))
        return json_number(a, &x) && x - y < 1e-9 && y - x < 1e-9;
    if (json_is_array(b)) {
        bool ok = json_is_array(a) && json_length(a) == json_length(b);
        for (size_t i = 0; ok && i < json_length(b); i++)
            ok = same_value(json_at(a, i), json_at(b, i));
        return ok;
    }
    return (json_is_bool(b, true) && json_is_bool(a, true)) ||
           (json_is_bool(b, false) && json_is_bool(a, false));
}

/* said, want: objects. */
static bool same_arguments(const Json *said, const Json *want, char why[GRADE_WHY])
{
    json_object_object_foreach((Json *)(uintptr_t)want, key, value)
    {
        const Json *o = json_member(said, key);
        if (!o)
            return grade_wrong(why, "%.32s is missing", key);
        if (!same_value(o, value))
            return grade_wrong(why, "%.32s is %.40s", key,
                               json_object_to_json_string((Json *)(uintptr_t)o));
    }
    json_object_object_foreach((Json *)(uintptr_t)said, name, unused)
    {
        (void)unused;
        if (!json_member(want, name))
            return grade_wrong(why, "%.32s was not asked for", name);
    }
    return true;
}

static Json *function_of(const Key *key, Str name)
{
    for (size_t i = 0; i < key->n_tools; i++) {
        Json *f = json_read(key->tools[i], NULL);
        if (str_eq(json_text(json_member(f, "name")), name))
            return f;
        json_free(f);
    }
    return NULL;
}

static bool is_valid(const Key *key, const GradeCall *call, char why[GRADE_WHY])
{
    Json *f = function_of(key, call->name), *arguments = json_read(call->arguments, NULL);
    bool ok =
        f ? arguments ? grade_schema(f, arguments, why)
                      : grade_wrong(why, "the arguments are no JSON")
          : grade_wrong(why, "there is no tool %.*s", (int)MIN(call->name.n, 32), call->name.p);
    json_free(f);
    json_free(arguments);
    return ok;
}

static bool is_this(const GradeCall *call, const GradeCall *want, char why[GRADE_WHY])
{
    if (!str_eq(call->name, want->name))
        return grade_wrong(why, "%.*s was called, not %.*s", (int)MIN(call->name.n, 32),
                           call->name.p, (int)MIN(want->name.n, 32), want->name.p);
    Json *said = json_read(call->arguments, NULL), *right = json_read(want->arguments, NULL);
    bool ok = same_arguments(said, right, why);
    json_free(said);
    json_free(right);
    return ok;
}

bool grade_calls(const Key *key, const Given *given, char why[GRADE_WHY])
{
    bool taken[MOST_CALLS] = { false };
    if (!key->n_calls && !given->n_calls)
        return given->text.n || grade_wrong(why, "nothing was said");
    for (size_t i = 0; i < given->n_calls; i++) {
        if (!is_valid(key, &given->calls[i], why))
            return false;
    }
    if (given->n_calls != key->n_calls)
        return grade_wrong(why, "%zu calls, not %zu", given->n_calls, key->n_calls);
    for (size_t i = 0; i < key->n_calls; i++) {
        bool found = false;
        for (size_t k = 0; !found && k < given->n_calls; k++) {
            found = !taken[k] && is_this(&given->calls[k], &key->calls[i], why);
            taken[k] |= found;
        }
        if (!found)
            return false;
    }
    why[0] = '\0';
    return true;
}
