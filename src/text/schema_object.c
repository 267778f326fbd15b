/* schema_object.c - objects of a schema: as JSON, and as the parameters of a call. */
#include "schema_parts.h"
#include <json-c/json.h>
#include <stdio.h>

enum { MAX_NAME = 64 };

/* The members of an object while they are gathered. */
typedef struct {
    Schemas *s;
    const Facets *f;
    enum Form form;
    Bytes names;               /* Str[] */
    Bytes rules;               /* NodeId[] */
    Bytes required;            /* bool[] */
    struct json_object *known; /* names as members, to find them */
} Members;

static size_t n_members(const Members *m) { return m->names.n / sizeof(Str); }
static Str member_name(const Members *m, size_t i)
{
    Str name;
    memcpy(&name, m->names.p + i * sizeof name, sizeof name);
    return name;
}

static void add_name(Members *m, Str name, bool required)
{
    char key[1024];
    Json *at;
    if (m->s->failed)
        return;
    if (name.n >= sizeof key) {
        schemas_refuse(m->s, "properties", "a name of more than 1023 bytes");
        return;
    }
    memcpy(key, name.p, name.n);
    key[name.n] = '\0';
    if (json_object_object_get_ex(m->known, key, &at)) {
        m->required.p[json_object_get_int(at)] |= (char)required;
        return;
    }
    Json *number = json_object_new_int((int)n_members(m));
    struct lh_entry *e = NULL;
    if (number && json_object_object_add(m->known, key, number) == 0)
        e = lh_table_lookup_entry(json_object_get_object(m->known), key);
    else
        json_free(number);
    if (e) { /* the key that was made lives as long as `known` */
        Str kept = { e->k, name.n };
        bytes_put(&m->names, &kept, sizeof kept);
        bytes_byte(&m->required, required);
    }
    if (!e || m->names.failed || m->required.failed)
        schemas_no_memory(m->s);
}

/* All names that the schema mentions, in its order; those required last. */
static bool gather_names(Members *m)
{
    for (const PartOf *x = m->f->members; x; x = x->next) {
        if (!x->named)
            continue;
        json_object_object_foreach(x->named, key, value)
        {
            (void)value;
            add_name(m, str_of(key), false);
        }
    }
    for (const Listed *x = m->f->required; x; x = x->next) {
        for (size_t i = 0; i < json_length(x->json); i++)
            add_name(m, json_text(json_at(x->json, i)), true);
    }
    return !m->s->failed;
}

/* What one part says of a name, appended to all; *excluded: it forbids it. */
static bool part_says(Members *m, const PartOf *x, Str name, Json **all, size_t *n, bool *excluded)
{
    Json *one = NULL;
    bool named = x->named && json_object_object_get_ex(x->named, name.p, &one), matched = false;
    if (named && *n < 60)
        all[(*n)++] = one;
    if (x->patterns) {
        json_object_object_foreach(x->patterns, pattern, schema)
        {
            bool takes;
            if (!pattern_takes(m->s, str_of(pattern), name, &takes))
                return false;
            matched |= takes;
            if (takes && *n < 60)
                all[(*n)++] = schema;
        }
    }
    *excluded |= !named && !matched && x->none;
    if (!named && !matched && x->other && *n < 60)
        all[(*n)++] = x->other;
    return true;
}

/* The schema of a member's value; NULL: anything. False: there cannot be one. */
static bool value_schema(Members *m, Str name, Json **out)
{
    Json *all[64];
    size_t n = 0;
    bool excluded = false;
    for (const PartOf *x = m->f->members; x; x = x->next) {
        if (!part_says(m, x, name, all, &n, &excluded))
            return false;
    }
    *out = NULL;
    if (n > 1 && !(*out = schema_of_all(&m->s->reader, all, n)))
        schemas_too_large(m->s);
    else if (n == 1)
        *out = all[0];
    return !excluded && !m->s->failed;
}

static NodeId rule_or_any(Schemas *s, Json *schema, enum Form form)
{
    return schema ? rule_of(s, schema, form) : s->any[form];
}

static NodeId key_literal(Schemas *s, Str name)
{
    Bytes key = { 0 };
    json_write_str(&key, name);
    NodeId rule =
        key.failed ? schemas_no_memory(s) : node_literal(s->p, bytes_view(&key), NODE_RET);
    bytes_release(&key);
    return rule;
}

static NodeId named_member(Members *m, Str name)
{
    Schemas *s = m->s;
    Json *schema;
    if (!value_schema(m, name, &schema))
        return NODE_NONE;
    size_t mark = schema_enter(&s->reader, "properties", name);
    NodeId rule;
    if (m->form == FORM_PARAMETERS)
        rule = schemas_parameter(s, name, rule_or_any(s, schema, FORM_TEXT),
                                 rule_or_any(s, schema, FORM_NO_STRING));
    else
        rule = member_rule(s, key_literal(s, name), rule_or_any(s, schema, FORM_JSON));
    schema_leave(&s->reader, mark);
    return rule;
}

/* Other names: those that `names` admits, which neither are listed nor match a
 * pattern, except `pattern` where that is given. */
static bool other_names(Members *m, const PartOf *part, const char *pattern, Dfa *d)
{
    Schemas *s = m->s;
    Facets names = facets_any;
    char any[64];
    if (m->form == FORM_PARAMETERS)
        snprintf(any, sizeof any, "[^\"\\\\\\x00-\\x1f]{1,%d}", MAX_NAME);
    else
        snprintf(any, sizeof any, "[\\s\\S]*");
    if (!text_cut(s, d, str_of(any), false) || (pattern && !text_cut(s, d, str_of(pattern), true)))
        return false;
    for (const PartOf *x = m->f->members; x; x = x->next) {
        if (x->names && !facets_add(&s->reader, &names, x->names))
            return schemas_stop(s);
    }
    if (names.enums || names.choices || names.never)
        return schemas_refuse(s, "propertyNames", "only pattern and lengths are supported");
    if (!text_of(s, &names, d))
        return false;
    if (part && part->patterns) {
        json_object_object_foreach(part->patterns, other, schema)
        {
            (void)schema;
            if (pattern && strcmp(pattern, other) == 0)
                continue;
            if (!text_without_pattern(s, d, str_of(other)))
                return false;
        }
    }
    return text_without_words(s, d, (const Str *)(const void *)m->names.p, n_members(m));
}

static NodeId other_member(Members *m, const PartOf *part, const char *pattern, Json *schema)
{
    Schemas *s = m->s;
    Dfa names = { 0 };
    bool parameters = m->form == FORM_PARAMETERS;
    if (!other_names(m, part, pattern, &names) || (!parameters && !text_in_json(s, &names))) {
        dfa_release(&names);
        return NODE_NONE;
    }
    NodeId key = text_rule(s, &names);
    size_t mark = schema_enter(&s->reader, pattern ? "patternProperties" : "additionalProperties",
                               pattern ? str_of(pattern) : (Str){ 0 });
    NodeId rule;
    if (parameters)
        rule = parameter_rule(s, key, rule_or_any(s, schema, FORM_TEXT),
                              rule_or_any(s, schema, FORM_NO_STRING));
    else
        rule = member_rule(s, quoted_rule(s, key), rule_or_any(s, schema, FORM_JSON));
    schema_leave(&s->reader, mark);
    return rule;
}

/* Members of names that are not listed. */
static NodeId other_members(Members *m)
{
    Schemas *s = m->s;
    const PartOf *patterned = NULL;
    Json *all[64];
    NodeId of[65];
    size_t n = 0, k = 0;
    bool none = m->f->closed || (m->form == FORM_PARAMETERS && !m->f->open && m->f->members);
    for (const PartOf *x = m->f->members; x; x = x->next) {
        if (x->patterns && (patterned || m->f->members->next))
            return schemas_refuse(s, "patternProperties", "not supported beside allOf or anyOf");
        patterned = x->patterns ? x : patterned;
        none |= x->none;
        if (x->other && n < COUNT(all))
            all[n++] = x->other;
    }
    if (patterned && !m->f->closed) {
        json_object_object_foreach(patterned->patterns, pattern, schema)
        {
            if (k < COUNT(of) - 1)
                of[k++] = other_member(m, patterned, pattern, schema);
        }
    }
    if (!none) {
        Json *schema = n > 1 ? schema_of_all(&s->reader, all, n) : n ? all[0] : NULL;
        if (n > 1 && !schema)
            return schemas_too_large(s);
        of[k++] = other_member(m, patterned, NULL, schema);
    }
    return k ? node_alt(s->p, of, k, NODE_RET) : NODE_NONE;
}

static NodeId object_of(Members *m)
{
    Schemas *s = m->s;
    const Facets *f = m->f;
    size_t n = n_members(m);
    if (n > 4096)
        return schemas_refuse(s, "properties", "more than 4096 of them");
    if (n > OBJECT_SET && f->min_members > 0)
        return schemas_refuse(s, "minProperties", "not supported beside more than 64 properties");
    for (size_t i = 0; i < n && !s->failed; i++) {
        NodeId id = named_member(m, member_name(m, i));
        bytes_put(&m->rules, &id, sizeof id);
    }
    if (s->failed || m->rules.failed) /* then there are fewer rules than names */
        return schemas_no_memory(s);
    bool *required = arena_array(&s->p->arena, n, sizeof *required);
    ObjectNode o = { .member = program_ids(s->p, (const NodeId *)(const void *)m->rules.p, n),
                     .required = required,
                     .n = (uint32_t)n,
                     .separator = s->comma,
                     .extra = other_members(m),
                     .min = f->min_members,
                     .max = f->max_members };
    if (s->failed)
        return NODE_NONE;
    if (!o.member || !required)
        return schemas_too_large(s);
    for (size_t i = 0; i < n; i++)
        required[i] = m->required.p[i] != 0;
    return m->form == FORM_PARAMETERS ? parameters_rule(s, &o) : braced_rule(s, &o);
}

NodeId object_rule(Schemas *s, const Facets *f, enum Form form)
{
    Members m = { .s = s, .f = f, .form = form, .known = json_object_new_object() };
    NodeId rule = NODE_NONE;
    if (!m.known)
        rule = schemas_no_memory(s);
    else if (gather_names(&m))
        rule = object_of(&m);
    json_free(m.known);
    bytes_release(&m.names);
    bytes_release(&m.rules);
    bytes_release(&m.required);
    return rule;
}
