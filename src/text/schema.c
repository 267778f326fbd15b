/* schema.c - JSON schemas to rules of a program.
 *
 * A schema is read in one of four forms: as JSON, as JSON that is no string,
 * as the bare text of a string, and as the parameters of a call. The rules of
 * each schema and form are made once, so that recursion is a rule that calls
 * itself. */
#include "schema.h"
#include "facets.h"
#include "regex.h"
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

enum Form { FORM_JSON, FORM_NO_STRING, FORM_TEXT, FORM_PARAMETERS, N_FORMS };
enum { MAX_RULES = 20000, MAX_DEPTH = 80, MAX_PATTERN_CHARS = 2000, MAX_NAME = 64 };
#define CLOSING_TAG "</｜DSML｜parameter>"

typedef struct {
    Json *schema;
    NodeId rule[N_FORMS];
    bool made[N_FORMS];
} Memo;

struct Schemas {
    Program *p;
    SchemaReader reader;
    Memo *memo;
    size_t n_memo, cap_memo;
    size_t *slot, mask; /* open addressing over memo, 0: empty */
    NodeId any[N_FORMS];
    NodeId comma, colon;
    uint32_t json_chars, text_chars; /* automata */
    int depth;
    bool failed;
    ds4_err *err;
};

static bool make_shared(Schemas *s);
static NodeId rule_of(Schemas *s, Json *schema, enum Form form);
static NodeId resolve(Schemas *s, Facets *f, enum Form form);

/* ---- the interface ------------------------------------------------------------------- */

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
    if (make_shared(s))
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

/* ---- failures --------------------------------------------------------------------------- */

/* NODE_NONE, and nothing more is built. */
static NodeId stop(Schemas *s)
{
    s->failed = true;
    s->p->failed = true;
    return NODE_NONE;
}

static NodeId refuse(Schemas *s, const char *keyword, const char *why)
{
    if (!s->failed)
        schema_refuse(&s->reader, keyword, why);
    return stop(s);
}

static NodeId too_large(Schemas *s)
{
    if (!s->failed)
        fail(s->err, DS4_EINVAL, "%s: the schema is too large", s->reader.what);
    return stop(s);
}

/* ---- automata that are made from parts ---------------------------------------------------- */

/* *d becomes `both`; `ok` is how making that went. */
static bool replace(Schemas *s, Dfa *d, Dfa *both, bool ok)
{
    dfa_release(d);
    *d = *both;
    if (!ok)
        stop(s);
    return ok;
}

/* Cut d with what a regular expression takes; d without states: take that. */
static bool cut(Schemas *s, Dfa *d, Str regex, bool search)
{
    Dfa with = { 0 }, both = { 0 };
    RegexOptions opt = { .search = search };
    if (!regex_compile(&with, regex, opt, &s->p->effort, s->err))
        return stop(s);
    if (d->n_states == 0) {
        *d = with;
        return true;
    }
    bool ok = dfa_and(&both, d, &with, &s->p->effort, s->err);
    dfa_release(&with);
    return replace(s, d, &both, ok);
}

static bool without_words(Schemas *s, Dfa *d, const Str *words, size_t n)
{
    Dfa list = { 0 }, rest = { 0 };
    if (n == 0)
        return true;
    bool ok = dfa_words(&list, words, n, &s->p->effort, s->err) &&
              dfa_except(&rest, d, &list, &s->p->effort, s->err);
    dfa_release(&list);
    return replace(s, d, &rest, ok);
}

static bool spelled_in_json(Schemas *s, Dfa *d)
{
    Dfa inside = { 0 };
    bool ok = dfa_json(&inside, d, &s->p->effort, s->err);
    return replace(s, d, &inside, ok);
}

/* What a parameter's text may not have in it: its end. */
static bool without_tag(Schemas *s, Dfa *d)
{
    Dfa tagless = { 0 }, both = { 0 };
    bool ok = dfa_without(&tagless, STR(CLOSING_TAG), &s->p->effort, s->err) &&
              dfa_and(&both, d, &tagless, &s->p->effort, s->err);
    dfa_release(&tagless);
    return replace(s, d, &both, ok);
}

static NodeId dfa_rule(Schemas *s, Dfa *d)
{
    if (s->failed) {
        dfa_release(d);
        return NODE_NONE;
    }
    return node_dfa(s->p, program_dfa(s->p, d), NODE_RET);
}

/* ---- rules that all schemas share -------------------------------------------------------------- */

static NodeId literal(Schemas *s, const char *text, NodeId next)
{
    return node_literal(s->p, str_of(text), next);
}

static NodeId quoted(Schemas *s, NodeId inside)
{
    return literal(s, "\"", node_call(s->p, inside, literal(s, "\"", NODE_RET)));
}

static NodeId braced(Schemas *s, const ObjectNode *o)
{
    return literal(s, "{", node_object(s->p, o, literal(s, "}", NODE_RET)));
}

static NodeId bracketed(Schemas *s, const ArrayNode *a)
{
    return literal(s, "[", node_array(s->p, a, literal(s, "]", NODE_RET)));
}

/* key: a rule. */
static NodeId json_member_rule(Schemas *s, NodeId key, NodeId value)
{
    return node_call(s->p, key, node_call(s->p, s->colon, node_call(s->p, value, NODE_RET)));
}

static bool make_automata(Schemas *s)
{
    /* A pair of escapes of U+D800..U+DFFF is one character. */
    static const char json[] = "(?:[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/bfnrt]|u(?:"
                               "[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|"
                               "[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})))*";
    Dfa chars = { 0 }, text = { 0 };
    bool ok = cut(s, &chars, str_of(json), false) && cut(s, &text, STR("[^\\x00]*"), false) &&
              without_tag(s, &text);
    if (!ok) {
        dfa_release(&chars);
        dfa_release(&text);
        return false;
    }
    s->json_chars = program_dfa(s->p, &chars);
    s->text_chars = program_dfa(s->p, &text);
    return !s->p->failed;
}

static NodeId number_rule(Schemas *s, const Facets *f)
{
    Dfa d = { 0 };
    bool ok = f->types & T_FRACTION
                  ? reals_between(&d, &f->lo, &f->hi, &s->p->effort, s->err)
                  : integers_between(&d, &f->lo, &f->hi, f->multiple, &s->p->effort, s->err);
    return ok ? dfa_rule(s, &d) : stop(s);
}

static bool make_shared(Schemas *s)
{
    Program *p = s->p;
    if (p->failed || !make_automata(s))
        return false;
    s->comma = node_either(p, literal(s, ",", NODE_RET), literal(s, ", ", NODE_RET));
    s->colon = node_either(p, literal(s, ":", NODE_RET), literal(s, ": ", NODE_RET));
    NodeId value = node_forward(p), rest = node_forward(p);
    NodeId string = quoted(s, node_dfa(p, s->json_chars, NODE_RET));
    ObjectNode object = { .extra = json_member_rule(s, string, value),
                          .separator = s->comma,
                          .max = NO_LIMIT };
    ArrayNode array = { .item = value, .separator = s->comma, .max = NO_LIMIT };
    NodeId of[] = {
        braced(s, &object),           bracketed(s, &array),          number_rule(s, &facets_any),
        literal(s, "true", NODE_RET), literal(s, "false", NODE_RET), literal(s, "null", NODE_RET)
    };
    node_resolve(p, rest, node_alt(p, of, COUNT(of), NODE_RET));
    node_resolve(p, value, node_either(p, rest, string));
    s->any[FORM_JSON] = value;
    s->any[FORM_NO_STRING] = rest;
    s->any[FORM_TEXT] = node_dfa(p, s->text_chars, NODE_RET);
    return !p->failed;
}

/* ---- strings -------------------------------------------------------------------------------------- */

/* Can be cut with at all: no looking around, and not too large. */
static bool regular(Schemas *s, Str pattern)
{
    Dfa d;
    bool ok = regex_compile(&d, pattern, (RegexOptions){ .search = true }, &s->p->effort, NULL);
    if (ok)
        dfa_release(&d);
    return ok;
}

/* The text that the facets admit, before it is spelled. */
static bool text_of(Schemas *s, const Facets *f, Dfa *d)
{
    char length[64];
    if (s->reader.lenient && !cut(s, d, STR("[\\s\\S]*"), false))
        return false;
    for (const Listed *x = f->patterns; x; x = x->next) {
        if (!s->reader.lenient || regular(s, json_text(x->json))) {
            if (!cut(s, d, json_text(x->json), true))
                return false;
        }
    }
    if (f->min_chars == 0 && f->max_chars == UINT32_MAX)
        return true;
    if (f->min_chars > MAX_PATTERN_CHARS ||
        (f->max_chars > MAX_PATTERN_CHARS && f->max_chars != UINT32_MAX)) {
        refuse(s, "pattern", "beside it minLength and maxLength can be 2000 at most");
        return false;
    }
    if (f->max_chars == UINT32_MAX)
        snprintf(length, sizeof length, "[\\s\\S]{%u,}", f->min_chars);
    else
        snprintf(length, sizeof length, "[\\s\\S]{%u,%u}", f->min_chars, f->max_chars);
    return cut(s, d, str_of(length), false);
}

/* The characters of a string, without quotes. */
static NodeId string_rule(Schemas *s, const Facets *f, bool json)
{
    bool counted = f->min_chars > 0 || f->max_chars != UINT32_MAX;
    uint32_t chars = json ? s->json_chars : s->text_chars;
    if (f->min_chars > f->max_chars)
        return NODE_NONE;
    if (!f->patterns)
        return counted ? node_chars(s->p, chars, f->min_chars, f->max_chars, NODE_RET)
                       : node_dfa(s->p, chars, NODE_RET);
    Dfa d = { 0 };
    bool ok = text_of(s, f, &d) && (json ? spelled_in_json(s, &d) : without_tag(s, &d));
    if (!ok)
        dfa_release(&d);
    return ok ? dfa_rule(s, &d) : NODE_NONE;
}

/* ---- listed values ---------------------------------------------------------------------------------- */

/* The same JSON without the spaces outside of strings. */
static void compact(Bytes *out, Str json)
{
    bool inside = false;
    for (size_t i = 0; i < json.n; i++) {
        if (json.p[i] == '"')
            inside = !inside;
        if (inside || json.p[i] != ' ')
            bytes_byte(out, (unsigned char)json.p[i]);
        if (inside && json.p[i] == '\\' && i + 1 < json.n)
            bytes_byte(out, (unsigned char)json.p[++i]);
    }
}

static NodeId json_literal(Schemas *s, Json *value)
{
    Bytes wide = { 0 }, narrow = { 0 };
    json_write(&wide, value);
    compact(&narrow, bytes_view(&wide));
    NodeId rule = node_literal(s->p, bytes_view(&wide), NODE_RET);
    if (!str_eq(bytes_view(&wide), bytes_view(&narrow)))
        rule = node_either(s->p, rule, node_literal(s->p, bytes_view(&narrow), NODE_RET));
    if (wide.failed || narrow.failed)
        too_large(s);
    bytes_release(&wide);
    bytes_release(&narrow);
    return rule;
}

static NodeId listed_value(Schemas *s, Json *value, enum Form form)
{
    bool string = json_is_text(value);
    if (form == FORM_TEXT)
        return string ? node_literal(s->p, json_text(value), NODE_RET) : NODE_NONE;
    return string && form == FORM_NO_STRING ? NODE_NONE : json_literal(s, value);
}

/* The rules of the listed values that all else admits, in *ids. */
static bool listed_values(Schemas *s, const Facets *f, enum Form form, Bytes *ids)
{
    Json *values = f->enums->json;
    for (size_t i = 0; i < json_length(values) && !s->failed; i++) {
        bool admitted;
        Json *value = json_at(values, i);
        if (!facets_admit(&s->reader, f, value, &admitted)) {
            stop(s);
            return false;
        }
        NodeId id = admitted ? listed_value(s, value, form) : NODE_NONE;
        if (id != NODE_NONE)
            bytes_put(ids, &id, sizeof id);
    }
    return !s->failed && !ids->failed;
}

static NodeId enum_rule(Schemas *s, const Facets *f, enum Form form)
{
    Bytes ids = { 0 };
    NodeId rule = NODE_NONE;
    if (listed_values(s, f, form, &ids) && ids.n)
        rule = node_alt(s->p, (const NodeId *)(const void *)ids.p, ids.n / sizeof rule, NODE_RET);
    bytes_release(&ids);
    return rule;
}

/* ---- arrays --------------------------------------------------------------------------------------------- */

/* The rule of all that the parts say about item i; i == SIZE_MAX: those beyond. */
static NodeId item_rule(Schemas *s, const Facets *f, size_t i)
{
    Json *all[64], *one;
    size_t n = 0;
    for (const PartOf *x = f->items; x; x = x->next) {
        bool named = i < json_length(x->named);
        if (!named && x->none)
            return NODE_NONE;
        if ((one = named ? json_at(x->named, i) : x->other) && n < COUNT(all))
            all[n++] = one;
    }
    if (n == 0)
        return s->any[FORM_JSON];
    one = n > 1 ? schema_of_all(&s->reader, all, n) : all[0];
    return one ? rule_of(s, one, FORM_JSON) : too_large(s);
}

/* Items that differ can be told from one another only where they are listed. */
static bool items_listed(Schemas *s, const Facets *f, Facets *item)
{
    const PartOf *x = f->items;
    *item = facets_any;
    return x && !x->next && !x->named && x->other && facets_add(&s->reader, item, x->other) &&
           item->enums && !item->choices && json_length(item->enums->json) <= OBJECT_SET;
}

static NodeId unique_array(Schemas *s, const Facets *f, const Facets *item)
{
    Bytes ids = { 0 };
    NodeId rule = NODE_NONE;
    bool ok = listed_values(s, item, FORM_JSON, &ids);
    uint32_t n = (uint32_t)(ids.n / sizeof(NodeId));
    if (ok) {
        static const bool none[OBJECT_SET];
        ObjectNode o = { .member = program_ids(s->p, (const NodeId *)(const void *)ids.p, n),
                         .required = none,
                         .n = n,
                         .separator = s->comma,
                         .min = f->min_items,
                         .max = f->max_items };
        rule = o.member ? literal(s, "[", node_object(s->p, &o, literal(s, "]", NODE_RET)))
                        : too_large(s);
    }
    bytes_release(&ids);
    return rule;
}

static NodeId array_rule(Schemas *s, const Facets *f)
{
    size_t n = 0;
    Facets item;
    if (f->unique && f->max_items > 1) {
        if (items_listed(s, f, &item))
            return unique_array(s, f, &item);
        if (!schema_pass_over(&s->reader, "uniqueItems", "only for items of an enum, up to 64"))
            return stop(s);
    }
    for (const PartOf *x = f->items; x; x = x->next)
        n = MAX(n, json_length(x->named));
    NodeId *prefix = n > 4096 ? NULL : arena_array(&s->p->arena, n, sizeof *prefix);
    if (!prefix)
        return too_large(s);
    for (size_t i = 0; i < n; i++) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        size_t mark = schema_enter(&s->reader, "prefixItems", str_of(index));
        prefix[i] = item_rule(s, f, i);
        schema_leave(&s->reader, mark);
    }
    size_t mark = schema_enter(&s->reader, "items", (Str){ 0 });
    ArrayNode a = { .prefix = prefix,
                    .n_prefix = (uint32_t)n,
                    .item = item_rule(s, f, SIZE_MAX),
                    .separator = s->comma,
                    .min = f->min_items,
                    .max = f->max_items };
    schema_leave(&s->reader, mark);
    return bracketed(s, &a);
}

/* ---- parameters in markup --------------------------------------------------------------------------------- */

/* What follows a parameter's name. */
static NodeId parameter_value(Schemas *s, NodeId text, NodeId json)
{
    Program *p = s->p;
    NodeId end = literal(s, "</", node_control(p, literal(s, "parameter>", NODE_RET)));
    NodeId of[] = { literal(s, "true\">", node_call(p, text, end)),
                    literal(s, "false\">", node_call(p, json, end)) };
    return node_alt(p, of, COUNT(of), NODE_RET);
}

static NodeId parameter_start(Schemas *s, NodeId rest)
{
    return literal(s, "<", node_control(s->p, literal(s, "parameter name=\"", rest)));
}

NodeId schemas_parameter(Schemas *s, Str name, NodeId text, NodeId json)
{
    NodeId rest = literal(s, "\" string=\"", parameter_value(s, text, json));
    return parameter_start(s, node_literal(s->p, name, rest));
}

static NodeId parameters_rule(Schemas *s, ObjectNode *o)
{
    NodeId end = literal(s, "\n</", node_control(s->p, literal(s, "invoke>", NODE_RET)));
    o->separator = literal(s, "\n", NODE_RET);
    return node_object(s->p, o, end);
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

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
    if (name.n >= sizeof key) {
        refuse(m->s, "properties", "a name of more than 1023 bytes");
        return;
    }
    memcpy(key, name.p, name.n);
    key[name.n] = '\0';
    if (json_object_object_get_ex(m->known, key, &at)) {
        m->required.p[json_object_get_int(at)] |= (char)required;
        return;
    }
    json_object_object_add(m->known, key, json_object_new_int((int)n_members(m)));
    /* The key that was made lives as long as `known`. */
    struct lh_entry *e = lh_table_lookup_entry(json_object_get_object(m->known), key);
    Str kept = { e ? (const char *)e->k : "", name.n };
    bytes_put(&m->names, &kept, sizeof kept);
    bytes_byte(&m->required, required);
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
    return !m->s->failed && !m->names.failed && !m->required.failed;
}

static bool pattern_takes(Schemas *s, const char *pattern, Str name, bool *takes)
{
    Dfa d;
    if (!regex_compile(&d, str_of(pattern), (RegexOptions){ .search = true }, &s->p->effort,
                       s->err))
        return stop(s);
    *takes = dfa_accepts(&d, name);
    dfa_release(&d);
    return true;
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
            if (!pattern_takes(m->s, pattern, name, &takes))
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
        too_large(m->s);
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
    NodeId rule = key.failed ? too_large(s) : node_literal(s->p, bytes_view(&key), NODE_RET);
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
        rule = json_member_rule(s, key_literal(s, name), rule_or_any(s, schema, FORM_JSON));
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
    if (!cut(s, d, str_of(any), false) || (pattern && !cut(s, d, str_of(pattern), true)))
        return false;
    for (const PartOf *x = m->f->members; x; x = x->next) {
        if (x->names && !facets_add(&s->reader, &names, x->names))
            return stop(s);
    }
    if (names.enums || names.choices || names.never)
        return refuse(s, "propertyNames", "only pattern and lengths are supported");
    if (!text_of(s, &names, d))
        return false;
    if (part && part->patterns) {
        json_object_object_foreach(part->patterns, other, schema)
        {
            Dfa taken = { 0 }, rest = { 0 };
            (void)schema;
            if (pattern && strcmp(pattern, other) == 0)
                continue;
            bool ok = regex_compile(&taken, str_of(other), (RegexOptions){ .search = true },
                                    &s->p->effort, s->err) &&
                      dfa_except(&rest, d, &taken, &s->p->effort, s->err);
            dfa_release(&taken);
            if (!replace(s, d, &rest, ok))
                return false;
        }
    }
    return without_words(s, d, (const Str *)(const void *)m->names.p, n_members(m));
}

static NodeId other_member(Members *m, const PartOf *part, const char *pattern, Json *schema)
{
    Schemas *s = m->s;
    Dfa names = { 0 };
    bool parameters = m->form == FORM_PARAMETERS;
    if (!other_names(m, part, pattern, &names) || (!parameters && !spelled_in_json(s, &names))) {
        dfa_release(&names);
        return NODE_NONE;
    }
    NodeId key = dfa_rule(s, &names);
    size_t mark = schema_enter(&s->reader, pattern ? "patternProperties" : "additionalProperties",
                               pattern ? str_of(pattern) : (Str){ 0 });
    NodeId rule;
    if (parameters)
        rule = parameter_start(
            s, node_call(s->p, key,
                         literal(s, "\" string=\"",
                                 parameter_value(s, rule_or_any(s, schema, FORM_TEXT),
                                                 rule_or_any(s, schema, FORM_NO_STRING)))));
    else
        rule = json_member_rule(s, quoted(s, key), rule_or_any(s, schema, FORM_JSON));
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
            return refuse(s, "patternProperties", "not supported beside allOf or anyOf");
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
            return too_large(s);
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
        return refuse(s, "properties", "more than 4096 of them");
    if (n > OBJECT_SET && f->min_members > 0)
        return refuse(s, "minProperties", "not supported beside more than 64 properties");
    for (size_t i = 0; i < n && !s->failed; i++) {
        NodeId id = named_member(m, member_name(m, i));
        bytes_put(&m->rules, &id, sizeof id);
    }
    if (s->failed || m->rules.failed) /* then there are fewer rules than names */
        return too_large(s);
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
        return too_large(s);
    for (size_t i = 0; i < n; i++)
        required[i] = m->required.p[i] != 0;
    return m->form == FORM_PARAMETERS ? parameters_rule(s, &o) : braced(s, &o);
}

static NodeId object_rule(Schemas *s, const Facets *f, enum Form form)
{
    Members m = { .s = s, .f = f, .form = form, .known = json_object_new_object() };
    NodeId rule = NODE_NONE;
    if (!m.known)
        rule = too_large(s);
    else if (gather_names(&m))
        rule = object_of(&m);
    json_free(m.known);
    bytes_release(&m.names);
    bytes_release(&m.rules);
    bytes_release(&m.required);
    return rule;
}

/* ---- a schema ------------------------------------------------------------------------------------------------- */

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
        of[n++] = quoted(s, string_rule(s, f, true));
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
    return facets_add(&s->reader, &with, branch) ? resolve(s, &with, form) : stop(s);
}

/* One branch of a choice after the other. */
static NodeId each_choice(Schemas *s, Facets *f, enum Form form)
{
    Json *branches = f->choices->json;
    Bytes ids = { 0 };
    NodeId rule;
    if (s->depth >= MAX_DEPTH)
        return too_large(s);
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
    size_t n = ids.n / sizeof rule;
    rule = NODE_NONE;
    if (!s->failed && n)
        rule = node_alt(s->p, (const NodeId *)(const void *)ids.p, n, NODE_RET);
    bytes_release(&ids);
    return rule;
}

static NodeId resolve(Schemas *s, Facets *f, enum Form form)
{
    if (s->failed || f->never)
        return NODE_NONE;
    if (++s->reader.work > 100000)
        return too_large(s);
    if (f->choices)
        return each_choice(s, f, form);
    if (!f->touched && form != FORM_PARAMETERS)
        return s->any[form];
    if (f->enums && form == FORM_PARAMETERS)
        return refuse(s, "enum", "not supported for all parameters of a tool");
    return f->enums ? enum_rule(s, f, form) : by_types(s, f, form);
}

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
        return too_large(s);
    s->depth++;
    NodeId body = facets_add(&s->reader, &f, schema) ? resolve(s, &f, form) : stop(s);
    s->depth--;
    node_resolve(s->p, forward, body);
    return body;
}

static NodeId rule_of(Schemas *s, Json *schema, enum Form form)
{
    if (s->failed)
        return NODE_NONE;
    if (!facets_follow(&s->reader, &schema))
        return stop(s);
    long at = memo_of(s, schema);
    if (at < 0)
        return too_large(s);
    if (s->memo[at].made[form])
        return s->memo[at].rule[form];
    NodeId forward = node_forward(s->p);
    s->memo[at].made[form] = true;
    s->memo[at].rule[form] = forward;
    NodeId body = new_rule(s, schema, form, forward);
    s->memo[at].rule[form] = body;
    return body;
}
