/* schema_parts.h - what the files that make rules of schemas share.
 *
 *      facets.c             what a schema says, as one whole
 *      schema.c             a schema's rule: by type, by branch, and once each
 *      schema_notation.c    how values are written
 *      schema_regular.c     strings and numbers
 *      schema_listed.c      values that are listed
 *      schema_array.c       arrays
 *      schema_object.c      objects
 *
 * A rule is NODE_NONE where no value can be, and where something has failed:
 * then `failed` says so, and nothing more is built. */
#ifndef SCHEMA_PARTS_H
#define SCHEMA_PARTS_H
#include "schema.h"
#include "facets.h"

/* A schema is read as JSON, as JSON that is no string, as the bare text of a
 * string, or as the parameters of a call. */
enum Form { FORM_JSON, FORM_NO_STRING, FORM_TEXT, FORM_PARAMETERS, N_FORMS };

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
    bool failed, no_memory;
    ds4_err *err;
};

/* ---- schema.c ---------------------------------------------------------------------- */

/* Each NODE_NONE, which is false, and nothing more is built. */
NodeId schemas_stop(Schemas *s); /* err is filled */
NodeId schemas_refuse(Schemas *s, const char *keyword, const char *why);
NodeId schemas_too_large(Schemas *s);
NodeId schemas_no_memory(Schemas *s);

NodeId rule_of(Schemas *s, Json *schema, enum Form form);

/* ---- schema_notation.c ------------------------------------------------------------- */

static inline NodeId literal(Schemas *s, const char *text, NodeId next)
{
    return node_literal(s->p, str_of(text), next);
}

/* Fills what all schemas share: any, comma, colon and the automata. */
bool schemas_make_shared(Schemas *s);
NodeId quoted_rule(Schemas *s, NodeId inside);
NodeId braced_rule(Schemas *s, const ObjectNode *o);
NodeId bracketed_rule(Schemas *s, const ArrayNode *a);
/* A member, and a parameter in markup; key is a rule. */
NodeId member_rule(Schemas *s, NodeId key, NodeId value);
NodeId parameter_rule(Schemas *s, NodeId key, NodeId text, NodeId json);
NodeId parameters_rule(Schemas *s, ObjectNode *o);

/* ---- schema_regular.c -------------------------------------------------------------- */

/* Each makes an automaton of texts, d, smaller or spelled another way. False: it could
 * not, and d is still to be released. */
/* Cut with what a regular expression takes; d without states: take that. */
bool text_cut(Schemas *s, Dfa *d, Str regex, bool search);
bool text_without_pattern(Schemas *s, Dfa *d, Str pattern);
bool text_without_words(Schemas *s, Dfa *d, const Str *words, size_t n);
bool text_without_tag(Schemas *s, Dfa *d); /* what a parameter's text may not have: its end */
bool text_in_json(Schemas *s, Dfa *d);     /* the same texts, spelled as in a JSON string */
/* The text that the facets admit, before it is spelled. */
bool text_of(Schemas *s, const Facets *f, Dfa *d);
NodeId text_rule(Schemas *s, Dfa *d); /* takes d over */
bool pattern_takes(Schemas *s, Str pattern, Str text, bool *takes);

NodeId string_rule(Schemas *s, const Facets *f, bool json); /* its characters, without quotes */
NodeId number_rule(Schemas *s, const Facets *f);

/* ---- schema_listed.c, schema_array.c, schema_object.c -------------------------------- */

/* The rules of the listed values that all else admits, in *ids (NodeId[]). */
bool listed_values(Schemas *s, const Facets *f, enum Form form, Bytes *ids);
NodeId enum_rule(Schemas *s, const Facets *f, enum Form form);
NodeId array_rule(Schemas *s, const Facets *f);
NodeId object_rule(Schemas *s, const Facets *f, enum Form form);

#endif
