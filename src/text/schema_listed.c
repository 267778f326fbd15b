/* schema_listed.c - the values that a schema lists (enum, const). */
#include "schema_parts.h"

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
        schemas_no_memory(s);
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
bool listed_values(Schemas *s, const Facets *f, enum Form form, Bytes *ids)
{
    Json *values = f->enums->json;
    for (size_t i = 0; i < json_length(values) && !s->failed; i++) {
        bool admitted;
        Json *value = json_at(values, i);
        if (!facets_admit(&s->reader, f, value, &admitted)) {
            schemas_stop(s);
            return false;
        }
        NodeId id = admitted ? listed_value(s, value, form) : NODE_NONE;
        if (id != NODE_NONE)
            bytes_put(ids, &id, sizeof id);
    }
    if (ids->failed)
        schemas_no_memory(s);
    return !s->failed;
}

NodeId enum_rule(Schemas *s, const Facets *f, enum Form form)
{
    Bytes ids = { 0 };
    NodeId rule = NODE_NONE;
    if (listed_values(s, f, form, &ids))
        rule = node_alt_bytes(s->p, &ids, NODE_RET);
    bytes_release(&ids);
    return rule;
}
