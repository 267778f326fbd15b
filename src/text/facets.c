/* facets.c - what a JSON schema says, keyword by keyword. */
#include "facets.h"
#include "regex.h"
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_NESTING = 100, MAX_WORK = 100000 };

const Facets facets_any = {
    .types = T_ALL, .max_chars = UINT32_MAX, .max_items = UINT32_MAX, .max_members = UINT32_MAX
};

typedef bool Keyword(SchemaReader *r, Facets *f, Json *value, Json *schema);

/* ---- where it is, and what is wrong --------------------------------------------------- */

void schema_reader_release(SchemaReader *r)
{
    for (const Listed *x = r->made; x; x = x->next)
        json_free(x->json);
    bytes_release(&r->path);
    arena_release(&r->arena);
    *r = (SchemaReader){ 0 };
}

size_t schema_enter(SchemaReader *r, const char *keyword, Str name)
{
    size_t mark = r->path.n;
    bytes_printf(&r->path, "/%s", keyword);
    if (name.p)
        bytes_byte(&r->path, '/');
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '~' || name.p[i] == '/')
            bytes_str(&r->path, name.p[i] == '~' ? "~0" : "~1");
        else
            bytes_byte(&r->path, (unsigned char)name.p[i]);
    }
    return mark;
}

void schema_leave(SchemaReader *r, size_t mark) { r->path.n = MIN(r->path.n, mark); }

bool schema_refuse(SchemaReader *r, const char *keyword, const char *why)
{
    return fail(r->err, DS4_EINVAL, "%s: schema keyword \"%s\" at \"%.*s\": %s", r->what, keyword,
                STR_ARG(bytes_view(&r->path)), why);
}

bool schema_pass_over(SchemaReader *r, const char *keyword, const char *why)
{
    return r->lenient || schema_refuse(r, keyword, why);
}

static bool no_memory(SchemaReader *r)
{
    return fail(r->err, DS4_ENOMEM, "%s: no memory for the schema", r->what);
}

static bool too_large(SchemaReader *r)
{
    return r->arena.no_memory ? no_memory(r)
                              : fail(r->err, DS4_EINVAL, "%s: the schema is too large", r->what);
}

static bool list(SchemaReader *r, const Listed **head, Json *json)
{
    Listed *x = arena_alloc(&r->arena, sizeof *x);
    if (!x)
        return too_large(r);
    *x = (Listed){ json, *head };
    *head = x;
    return true;
}

Json *schema_of_all(SchemaReader *r, Json *const *schemas, size_t n)
{
    Json *all = json_object_new_object(), *array = json_object_new_array();
    if (!all || !array || json_object_object_add(all, "allOf", array) != 0 ||
        !list(r, &r->made, all)) {
        json_free(all);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        json_object_array_add(array, json_object_get(schemas[i]));
    return all;
}

/* ---- references ------------------------------------------------------------------------- */

static bool unescape(Str s, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned hex;
        if (n + 1 >= room)
            return false;
        if (s.p[i] == '~' && i + 1 < s.n && (s.p[i + 1] == '0' || s.p[i + 1] == '1')) {
            out[n++] = s.p[++i] == '0' ? '~' : '/';
        } else if (s.p[i] == '%' && i + 2 < s.n &&
                   sscanf((const char[]){ s.p[i + 1], s.p[i + 2], 0 }, "%2x", &hex) == 1) {
            out[n++] = (char)hex;
            i += 2;
        } else {
            out[n++] = s.p[i];
        }
    }
    out[n] = '\0';
    return true;
}

static Json *step_to(Json *at, Str part)
{
    char name[512], *end;
    Json *to = NULL;
    if (!unescape(part, name, sizeof name))
        return NULL;
    if (json_is_object(at)) {
        json_object_object_get_ex(at, name, &to);
        return to;
    }
    unsigned long i = strtoul(name, &end, 10);
    return json_is_array(at) && *name && !*end ? json_at(at, i) : NULL;
}

static Json *find_ref(SchemaReader *r, Json *value)
{
    Str ref = json_text(value);
    Json *at = r->root;
    if (ref.n == 0 || ref.p[0] != '#' || (ref.n > 1 && ref.p[1] != '/')) {
        schema_refuse(r, "$ref", "only references within the schema (#/...) are supported");
        return NULL;
    }
    for (size_t i = 1; i < ref.n && at;) {
        size_t from = ++i;
        while (i < ref.n && ref.p[i] != '/')
            i++;
        at = step_to(at, (Str){ ref.p + from, i - from });
    }
    if (!at)
        fail(r->err, DS4_EINVAL, "%s: $ref \"%.*s\" at \"%.*s\" leads nowhere", r->what,
             STR_ARG(ref), STR_ARG(bytes_view(&r->path)));
    return at;
}

bool facets_follow(SchemaReader *r, Json **schema)
{
    for (int hops = 0; json_is_object(*schema) && json_object_object_length(*schema) == 1; hops++) {
        Json *ref = json_member(*schema, "$ref");
        if (!ref)
            return true;
        if (hops > MAX_NESTING)
            return schema_refuse(r, "$ref", "it leads back to itself");
        if (!(*schema = find_ref(r, ref)))
            return false;
    }
    return true;
}

/* ---- keywords ------------------------------------------------------------------------------ */

static bool add_ref(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    Json *target = find_ref(r, value);
    return target && facets_add(r, f, target);
}

static unsigned type_bits(Str name)
{
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {
        { "null", T_NULL },       { "boolean", T_BOOLEAN },
        { "integer", T_INTEGER }, { "number", T_INTEGER | T_FRACTION },
        { "string", T_STRING },   { "array", T_ARRAY },
        { "object", T_OBJECT },
    };
    for (size_t i = 0; i < COUNT(types); i++) {
        if (str_eq(name, str_of(types[i].name)))
            return types[i].bits;
    }
    return 0;
}

static bool add_type(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    unsigned bits = json_is_bool(json_member(schema, "nullable"), true) ? T_NULL : 0;
    size_t n = json_is_array(value) ? json_length(value) : 1;
    for (size_t i = 0; i < n; i++) {
        unsigned one = type_bits(json_text(json_is_array(value) ? json_at(value, i) : value));
        if (!one)
            return schema_refuse(r, "type", "it names no type");
        bits |= one;
    }
    f->types &= bits;
    return true;
}

static bool add_enum(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (!json_is_array(value))
        return schema_refuse(r, "enum", "it is no array");
    return list(r, &f->enums, value);
}

static bool add_const(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    Json *array = json_object_new_array();
    if (!array || json_object_array_add(array, json_object_get(value)) != 0 ||
        !list(r, &r->made, array)) {
        json_free(array);
        return too_large(r);
    }
    return list(r, &f->enums, array);
}

/* The narrower of two bounds. */
static void narrow(Bound *b, Bound with, bool lower)
{
    bool narrower = lower ? with.value > b->value : with.value < b->value;
    if (!b->set || narrower || (with.value == b->value && with.exclusive))
        *b = with;
}

static bool add_bound(SchemaReader *r, Facets *f, Json *value, const char *keyword, bool lower,
                      bool exclusive)
{
    Bytes text = { 0 };
    Bound b = { 0 };
    double x;
    if (!json_number(value, &x))
        return schema_refuse(r, keyword, "it is no number");
    json_write(&text, value);
    bool there = !text.failed, ok = there && bound_read(&b, bytes_view(&text));
    bytes_release(&text);
    if (!there)
        return no_memory(r);
    if (!ok && fabs(x) < 1)
        return schema_refuse(r, keyword, "the number is too fine");
    b.exclusive = exclusive;
    if (ok)
        narrow(lower ? &f->lo : &f->hi, b, lower);
    else if (lower == (x > 0)) /* beyond all numbers that are ever written */
        f->types &= ~(unsigned)(T_INTEGER | T_FRACTION);
    return true;
}

/* In old drafts exclusiveMinimum is a boolean beside minimum. */
static bool add_minimum(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    bool exclusive = json_is_bool(json_member(schema, "exclusiveMinimum"), true);
    return add_bound(r, f, value, "minimum", true, exclusive);
}

static bool add_maximum(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    bool exclusive = json_is_bool(json_member(schema, "exclusiveMaximum"), true);
    return add_bound(r, f, value, "maximum", false, exclusive);
}

static bool is_boolean(Json *o) { return json_object_is_type(o, json_type_boolean) != 0; }

static bool add_above(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    return is_boolean(value) || add_bound(r, f, value, "exclusiveMinimum", true, true);
}

static bool add_below(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    return is_boolean(value) || add_bound(r, f, value, "exclusiveMaximum", false, true);
}

static bool add_multiple(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    double x = 0;
    if (!json_number(value, &x) || x <= 0)
        return schema_refuse(r, "multipleOf", "it is no positive number");
    if (x < 1 || x > 10000 || floor(x) != x)
        return schema_pass_over(r, "multipleOf", "only whole numbers up to 10000 are supported");
    uint32_t a = f->multiple ? f->multiple : 1, b = (uint32_t)x, common = b;
    for (uint32_t rest = a; rest;) {
        uint32_t next = common % rest;
        common = rest;
        rest = next;
    }
    if ((uint64_t)a / common * b > 10000)
        return schema_pass_over(r, "multipleOf", "the common multiple is beyond 10000");
    f->multiple = a / common * b;
    f->types &= ~(unsigned)T_FRACTION;
    return true;
}

/* A count: *min grows, *max shrinks. */
static bool add_count(SchemaReader *r, Json *value, const char *keyword, uint32_t *min,
                      uint32_t *max)
{
    double x;
    if (!json_number(value, &x) || x < 0 || floor(x) != x)
        return schema_refuse(r, keyword, "it is no whole number");
    uint32_t n = x > UINT32_MAX - 1 ? UINT32_MAX - 1 : (uint32_t)x;
    if (min)
        *min = MAX(*min, n);
    else if (max && x < UINT32_MAX - 1)
        *max = MIN(*max, n);
    return true;
}

#define COUNT_KEYWORD(name, keyword, min, max) \
    static bool name(SchemaReader *r, Facets *f, Json *value, Json *schema) \
    { \
        (void)schema; \
        return add_count(r, value, keyword, min, max); \
    }
COUNT_KEYWORD(add_min_chars, "minLength", &f->min_chars, NULL)
COUNT_KEYWORD(add_max_chars, "maxLength", NULL, &f->max_chars)
COUNT_KEYWORD(add_min_items, "minItems", &f->min_items, NULL)
COUNT_KEYWORD(add_max_items, "maxItems", NULL, &f->max_items)
COUNT_KEYWORD(add_min_members, "minProperties", &f->min_members, NULL)
COUNT_KEYWORD(add_max_members, "maxProperties", NULL, &f->max_members)

static bool add_pattern(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (!json_is_text(value))
        return schema_refuse(r, "pattern", "it is no string");
    return list(r, &f->patterns, value);
}

static bool add_part(SchemaReader *r, const PartOf **head, PartOf part)
{
    PartOf *x = arena_alloc(&r->arena, sizeof *x);
    if (!x)
        return too_large(r);
    *x = part;
    x->none = json_is_bool(part.other, false);
    x->other = is_boolean(part.other) ? NULL : part.other;
    x->next = *head;
    *head = x;
    return true;
}

/* All that one schema says about members is one part: its keywords mean each
 * other's names. */
static bool add_members(SchemaReader *r, Facets *f, Json *schema)
{
    PartOf part = { .named = json_member(schema, "properties"),
                    .patterns = json_member(schema, "patternProperties"),
                    .other = json_member(schema, "additionalProperties"),
                    .names = json_member(schema, "propertyNames") };
    Json *rest = json_member(schema, "unevaluatedProperties");
    f->closed |= json_is_bool(rest, false);
    if (rest && !is_boolean(rest))
        return schema_refuse(r, "unevaluatedProperties", "only true and false are supported");
    if (part.named && !json_is_object(part.named))
        return schema_refuse(r, "properties", "it is no object");
    if (part.patterns && !json_is_object(part.patterns))
        return schema_refuse(r, "patternProperties", "it is no object");
    f->open |=
        part.patterns != NULL || (part.other && !json_is_bool(part.other, false)) || part.names;
    if (!part.named && !part.patterns && !part.other && !part.names)
        return true;
    return add_part(r, &f->members, part);
}

static bool add_items(SchemaReader *r, Facets *f, Json *schema)
{
    PartOf part = { .named = json_member(schema, "prefixItems"),
                    .other = json_member(schema, "items") };
    if (json_is_array(part.other)) { /* in old drafts */
        part.named = part.other;
        part.other = json_member(schema, "additionalItems");
    }
    if (part.named && !json_is_array(part.named))
        return schema_refuse(r, "prefixItems", "it is no array");
    return !part.named && !part.other ? true : add_part(r, &f->items, part);
}

static bool add_required(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (is_boolean(value)) /* draft 3, beside a property */
        return true;
    if (!json_is_array(value))
        return schema_refuse(r, "required", "it is no array");
    for (size_t i = 0; i < json_length(value); i++)
        if (!json_is_text(json_at(value, i)))
            return schema_refuse(r, "required", "it holds what is no name");
    return list(r, &f->required, value);
}

/* A note to people; only its own form is looked at. */
static bool add_format(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)f;
    (void)schema;
    return json_is_text(value) || schema_refuse(r, "format", "it is no string");
}

static bool add_all(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (!json_is_array(value))
        return schema_refuse(r, "allOf", "it is no array");
    for (size_t i = 0; i < json_length(value); i++) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        size_t mark = schema_enter(r, "allOf", str_of(index));
        if (!facets_add(r, f, json_at(value, i)))
            return false;
        schema_leave(r, mark);
    }
    return true;
}

static bool add_choice(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (!json_is_array(value) || json_length(value) == 0)
        return schema_refuse(r, "anyOf", "it is no array of schemas");
    return list(r, &f->choices, value);
}

static bool add_not(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)schema;
    if (!json_is_bool(value, true) &&
        !(json_is_object(value) && json_object_object_length(value) == 0))
        return schema_pass_over(r, "not", "it is not supported");
    f->never = true;
    return true;
}

static bool add_unique(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)r;
    (void)schema;
    f->unique |= json_is_bool(value, true);
    return true;
}

static bool seen_with_others(SchemaReader *r, Facets *f, Json *value, Json *schema)
{
    (void)r;
    (void)f;
    (void)value;
    (void)schema;
    return true;
}

/* A function of NULL: known to the standard, but not to us. The first ones say
 * nothing themselves: what they lead to does. */
enum { LEADING = 4 };
static const struct {
    const char *name;
    Keyword *add;
} keywords[] = {
    { "$ref", add_ref },
    { "allOf", add_all },
    { "anyOf", add_choice },
    { "oneOf", add_choice },
    { "type", add_type },
    { "enum", add_enum },
    { "const", add_const },
    { "minimum", add_minimum },
    { "maximum", add_maximum },
    { "exclusiveMinimum", add_above },
    { "exclusiveMaximum", add_below },
    { "multipleOf", add_multiple },
    { "minLength", add_min_chars },
    { "maxLength", add_max_chars },
    { "pattern", add_pattern },
    { "minItems", add_min_items },
    { "maxItems", add_max_items },
    { "uniqueItems", add_unique },
    { "minProperties", add_min_members },
    { "maxProperties", add_max_members },
    { "required", add_required },
    { "format", add_format },
    { "not", add_not },
    { "properties", seen_with_others },
    { "patternProperties", seen_with_others },
    { "additionalProperties", seen_with_others },
    { "unevaluatedProperties", seen_with_others },
    { "propertyNames", seen_with_others },
    { "prefixItems", seen_with_others },
    { "items", seen_with_others },
    { "additionalItems", seen_with_others },
    { "if", NULL },
    { "then", NULL },
    { "else", NULL },
    { "contains", NULL },
    { "minContains", NULL },
    { "maxContains", NULL },
    { "dependencies", NULL },
    { "dependentRequired", NULL },
    { "dependentSchemas", NULL },
    { "unevaluatedItems", NULL },
    { "$dynamicRef", NULL },
    { "$recursiveRef", NULL },
};

static bool add_keyword(SchemaReader *r, Facets *f, const char *name, Json *value, Json *schema)
{
    for (size_t i = 0; i < COUNT(keywords); i++) {
        if (strcmp(name, keywords[i].name) != 0)
            continue;
        f->touched |= i >= LEADING;
        return keywords[i].add ? keywords[i].add(r, f, value, schema)
                               : schema_pass_over(r, name, "it is not supported");
    }
    return true;
}

bool facets_add(SchemaReader *r, Facets *f, Json *schema)
{
    if (is_boolean(schema)) {
        f->never |= json_is_bool(schema, false);
        f->touched |= f->never;
        return true;
    }
    if (!json_is_object(schema))
        return fail(r->err, DS4_EINVAL, "%s: \"%.*s\" is no schema", r->what,
                    STR_ARG(bytes_view(&r->path)));
    if (r->depth >= MAX_NESTING)
        return fail(r->err, DS4_EINVAL, "%s: the schema is nested deeper than %d at \"%.*s\"",
                    r->what, MAX_NESTING, STR_ARG(bytes_view(&r->path)));
    if (++r->work > MAX_WORK)
        return too_large(r);
    /* Each member of it is looked up among all keywords. */
    if (!effort_spend(r->effort, 60 * (uint64_t)json_object_object_length(schema), r->err))
        return false;
    r->depth++;
    bool ok = true;
    struct json_object_iter it;
    json_object_object_foreachC(schema, it)
    {
        ok = ok && add_keyword(r, f, it.key, it.val, schema);
    }
    ok = ok && add_members(r, f, schema) && add_items(r, f, schema);
    r->depth--;
    return ok;
}

/* ---- values that are listed ------------------------------------------------------------------- */

static unsigned type_of(Json *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null: return T_NULL;
    case json_type_boolean: return T_BOOLEAN;
    case json_type_int: return T_INTEGER;
    case json_type_double: {
        double x = json_object_get_double(value);
        return floor(x) == x ? T_INTEGER | T_FRACTION : T_FRACTION;
    }
    case json_type_string: return T_STRING;
    case json_type_array: return T_ARRAY;
    default: return T_OBJECT;
    }
}

static bool within(const Facets *f, double x)
{
    bool above = !f->lo.set || (f->lo.exclusive ? x > f->lo.value : x >= f->lo.value);
    bool below = !f->hi.set || (f->hi.exclusive ? x < f->hi.value : x <= f->hi.value);
    return above && below && (!f->multiple || fmod(x, f->multiple) == 0);
}

static bool admit_string(SchemaReader *r, const Facets *f, Str s, bool *admitted)
{
    size_t chars = 0;
    for (size_t i = 0; i < s.n; i++)
        chars += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    *admitted = chars >= f->min_chars && chars <= f->max_chars;
    for (const Listed *x = f->patterns; x && *admitted; x = x->next) {
        Dfa d;
        if (!regex_compile(&d, json_text(x->json), (RegexOptions){ .search = true }, r->effort,
                           r->err)) {
            if (r->lenient)
                continue;
            return false;
        }
        *admitted = dfa_accepts(&d, s);
        dfa_release(&d);
    }
    return true;
}

static bool in_array(Json *array, Json *value)
{
    for (size_t i = 0; i < json_length(array); i++) {
        if (json_object_equal(json_at(array, i), value))
            return true;
    }
    return false;
}

bool facets_admit(SchemaReader *r, const Facets *f, Json *value, bool *admitted)
{
    unsigned type = type_of(value);
    *admitted = (f->types & type) != 0;
    for (const Listed *x = f->enums; x; x = x->next) {
        if (!effort_spend(r->effort, 4 * json_length(x->json), r->err))
            return false;
        *admitted = *admitted && in_array(x->json, value);
    }
    if (!*admitted)
        return true;
    if (type & (T_INTEGER | T_FRACTION))
        *admitted = within(f, json_object_get_double(value));
    else if (type == T_STRING)
        return admit_string(r, f, json_text(value), admitted);
    else if ((type == T_ARRAY && (f->items || f->min_items || f->max_items != UINT32_MAX)) ||
             (type == T_OBJECT &&
              (f->members || f->required || f->min_members || f->max_members != UINT32_MAX)))
        return schema_refuse(r, "enum", "arrays and objects in it must stand alone");
    return true;
}
