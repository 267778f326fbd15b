/* schema_array.c - arrays of a schema. */
#include "schema_parts.h"
#include <stdio.h>

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
    return one ? rule_of(s, one, FORM_JSON) : schemas_too_large(s);
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
                        : schemas_too_large(s);
    }
    bytes_release(&ids);
    return rule;
}

NodeId array_rule(Schemas *s, const Facets *f)
{
    size_t n = 0;
    Facets item;
    if (f->unique && f->max_items > 1) {
        if (items_listed(s, f, &item))
            return unique_array(s, f, &item);
        if (!schema_pass_over(&s->reader, "uniqueItems", "only for items of an enum, up to 64"))
            return schemas_stop(s);
    }
    for (const PartOf *x = f->items; x; x = x->next)
        n = MAX(n, json_length(x->named));
    NodeId *prefix = n > 4096 ? NULL : arena_array(&s->p->arena, n, sizeof *prefix);
    if (!prefix)
        return schemas_too_large(s);
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
    return bracketed_rule(s, &a);
}
