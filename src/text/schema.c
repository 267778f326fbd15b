/* schema.c - JSON schemas to rules of a program: a schema's rule, by what it says.
 *
 * The rules of each schema and form are made once, so that recursion is a rule
 * that calls itself. */
#include "schema.h"
#include "schema_parts.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAX_RULES = 20000, MAX_DEPTH = 80 };

static NodeId resolve(Schemas *s, Facets *f, enum Form form);

/* ---- the interface ------------------------------------------------------------------ */

Schemas *schemas_new(Program *p, ds4_err *err)
{
    Schemas *s = calloc(1, sizeof *s);
    if (!s) {
        fail(err, DS4_ENOMEM, "grammar: no memory");
        return NULL;
    }
    s->p = p;
    s->err = err;
    s->reader =
        (SchemaReader){ .err = err, .effort = &p->effort, .arena = { .limit = (size_t)64 << 20 } };
    if (schemas_make_shared(s))
        return s;
    schemas_free(s);
    return NULL;
}

void schemas_free(Schemas *s)
{
    if (!s)
        return;
    schema_reader_release(&s->reader);
    free(s->memo);
    free(s->slot);
    free(s);
}

static bool begin(Schemas *s, Json *schema, const char *what)
{
    s->reader.root = schema;
    s->reader.what = what;
    s->reader.lenient = false;
    s->reader.work = 0;
    bytes_clear(&s->reader.path);
    return !s->failed && !s->p->failed;
}

static bool finish(Schemas *s, const char *what, NodeId rule)
{
    if (s->failed || s->p->failed)
        return false;
    return rule != NODE_NONE
               ? true
               : fail(s->err, DS4_EINVAL, "%s: no value can satisfy the schema", what);
}

bool schemas_json(Schemas *s, Json *schema, const char *what, NodeId *rule)
{
    Facets object = facets_any;
    object.types = T_OBJECT;
    object.touched = true;
    if (!begin(s, schema, what))
        return false;
    *rule = schema ? rule_of(s, schema, FORM_JSON) : resolve(s, &object, FORM_JSON);
    return finish(s, what, *rule);
}

bool schemas_parameters(Schemas *s, Json *schema, bool lenient, const char *what, NodeId *rule)
{
    Facets object = facets_any;
    if (!begin(s, schema, what))
        return false;
    s->reader.lenient = lenient;
    *rule = schema ? rule_of(s, schema, FORM_PARAMETERS) : resolve(s, &object, FORM_PARAMETERS);
    return finish(s, what, *rule);
}

NodeId schemas_text(Schemas *s) { return s->any[FORM_TEXT]; }

/* ---- failures ----------------------------------------------------------------------- */

NodeId schemas_stop(Schemas *s)
{
    s->failed = true;
    s->p->failed = true;
    return NODE_NONE;
}

NodeId schemas_refuse(Schemas *s, const char *keyword, const char *why)
{
    if (!s->failed)
        schema_refuse(&s->reader, keyword, why);
    return schemas_stop(s);
}

NodeId schemas_too_large(Schemas *s)
{
    if (s->no_memory || s->p->arena.no_memory || s->reader.arena.no_memory)
        return schemas_no_memory(s);
    if (!s->failed)
        fail(s->err, DS4_EINVAL, "%s: the schema is too large", s->reader.what);
    return schemas_stop(s);
}

NodeId schemas_no_memory(Schemas *s)
{
    if (!s->failed)
        fail(s->err, DS4_ENOMEM, "%s: no memory for the schema", s->reader.what);
    return schemas_stop(s);
}

/* ---- what a schema says ------------------------------------------------------------- */

static NodeId by_types(Schemas *s, const Facets *f, enum Form form)
{
    NodeId of[8];
    size_t n = 0;
    if (form == FORM_PARAMETERS)
        return f->types & T_OBJECT ? object_rule(s, f, form) : NODE_NONE;
    if (form == FORM_TEXT)
        return f->types & T_STRING ? string_rule(s, f, false) : NODE_NONE;
    if (f->types & T_OBJECT)
        of[n++] = object_rule(s, f, FORM_JSON);
    if (f->types & T_ARRAY)
        of[n++] = array_rule(s, f);
    if (f->types & T_STRING && form == FORM_JSON)
        of[n++] = quoted_rule(s, string_rule(s, f, true));
    if (f->types & (T_INTEGER | T_FRACTION))
        of[n++] = number_rule(s, f);
    if (f->types & T_BOOLEAN) {
        of[n++] = literal(s, "true", NODE_RET);
        of[n++] = literal(s, "false", NODE_RET);
    }
    if (f->types & T_NULL)
        of[n++] = literal(s, "null", NODE_RET);
    return n ? node_alt(s->p, of, n, NODE_RET) : NODE_NONE;
}

/* A branch that stands alone is a rule of its own, which may be the one that is
 * being made; else what it says is joined to the rest. */
static NodeId branch_rule(Schemas *s, const Facets *f, Json *branch, enum Form form)
{
    Facets with = *f;
    if (!f->touched && !f->choices)
        return rule_of(s, branch, form);
    return facets_add(&s->reader, &with, branch) ? resolve(s, &with, form) : schemas_stop(s);
}

/* One branch of a choice after the other. */
static NodeId each_choice(Schemas *s, Facets *f, enum Form form)
{
    Json *branches = f->choices->json;
    Bytes ids = { 0 };
    NodeId rule;
    if (s->depth >= MAX_DEPTH)
        return schemas_too_large(s);
    s->depth++;
    f->choices = f->choices->next;
    for (size_t i = 0; i < json_length(branches) && !s->failed; i++) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        size_t mark = schema_enter(&s->reader, "anyOf", str_of(index));
        rule = branch_rule(s, f, json_at(branches, i), form);
        schema_leave(&s->reader, mark);
        bytes_put(&ids, &rule, sizeof rule);
    }
    s->depth--;
    rule = s->failed ? NODE_NONE : node_alt_bytes(s->p, &ids, NODE_RET);
    bytes_release(&ids);
    return rule;
}

static NodeId resolve(Schemas *s, Facets *f, enum Form form)
{
    if (s->failed || f->never)
        return NODE_NONE;
    if (++s->reader.work > 100000)
        return schemas_too_large(s);
    if (f->choices)
        return each_choice(s, f, form);
    if (!f->touched && form != FORM_PARAMETERS)
        return s->any[form];
    if (f->enums && form == FORM_PARAMETERS)
        return schemas_refuse(s, "enum", "not supported for all parameters of a tool");
    return f->enums ? enum_rule(s, f, form) : by_types(s, f, form);
}

/* ---- each schema once --------------------------------------------------------------- */

static size_t *memo_slot(const Schemas *s, const Json *schema)
{
    size_t i = (size_t)((uintptr_t)schema * (uintptr_t)0x9e3779b97f4a7c15u >> 20) & s->mask;
    while (s->slot[i] && s->memo[s->slot[i] - 1].schema != schema)
        i = (i + 1) & s->mask;
    return &s->slot[i];
}

static bool memo_grow(Schemas *s)
{
    size_t cap = s->cap_memo ? s->cap_memo * 2 : 64;
    Memo *memo = cap > 2 * MAX_RULES ? NULL : realloc(s->memo, cap * sizeof *memo);
    if (memo)
        s->memo = memo;
    size_t *slot = memo ? calloc(cap * 2, sizeof *slot) : NULL;
    s->no_memory |= !slot && cap <= 2 * MAX_RULES;
    if (!slot)
        return false;
    free(s->slot);
    s->slot = slot;
    s->mask = cap * 2 - 1;
    s->cap_memo = cap;
    for (size_t i = 0; i < s->n_memo; i++)
        *memo_slot(s, memo[i].schema) = i + 1;
    return true;
}

/* The place of a schema in the memo, -1: no room. */
static long memo_of(Schemas *s, Json *schema)
{
    if (s->n_memo == s->cap_memo && !memo_grow(s))
        return -1;
    size_t *slot = memo_slot(s, schema);
    if (*slot)
        return (long)*slot - 1;
    s->memo[s->n_memo] = (Memo){ .schema = schema };
    *slot = ++s->n_memo;
    return (long)s->n_memo - 1;
}

static NodeId new_rule(Schemas *s, Json *schema, enum Form form, NodeId forward)
{
    Facets f = facets_any;
    if (s->depth >= MAX_DEPTH)
        return schemas_too_large(s);
    s->depth++;
    NodeId body = facets_add(&s->reader, &f, schema) ? resolve(s, &f, form) : schemas_stop(s);
    s->depth--;
    node_resolve(s->p, forward, body);
    return body;
}

NodeId rule_of(Schemas *s, Json *schema, enum Form form)
{
    if (s->failed)
        return NODE_NONE;
    if (!facets_follow(&s->reader, &schema))
        return schemas_stop(s);
    long at = memo_of(s, schema);
    if (at < 0)
        return schemas_too_large(s);
    if (s->memo[at].made[form])
        return s->memo[at].rule[form];
    NodeId forward = node_forward(s->p);
    s->memo[at].made[form] = true;
    s->memo[at].rule[form] = forward;
    NodeId body = new_rule(s, schema, form, forward);
    s->memo[at].rule[form] = body;
    return body;
}
