/* facets.h - what a JSON schema says, with $ref and allOf joined to one whole.
 *
 * Alternatives (anyOf, oneOf) stay apart: whoever reads the facets takes one
 * branch of each. oneOf is read as anyOf. A keyword that is understood by no
 * part of the grammar is refused by its name and place; what the standard does
 * not know is an annotation, and so is `format`. */
#ifndef FACETS_H
#define FACETS_H
#include "../base/arena.h"
#include "../base/bytes.h"
#include "../json/json.h"
#include "numbers.h"

enum {
    T_NULL = 1,
    T_BOOLEAN = 2,
    T_INTEGER = 4,
    T_FRACTION = 8,
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_ALL = 127
};

/* A list that is never changed, so that copies of the facets may share it. */
typedef struct Listed {
    Json *json;
    const struct Listed *next;
} Listed;

/* What one schema says about members, or about items. Members and items that
 * it does not name are `other`, anything where NULL. */
typedef struct PartOf {
    Json *named;         /* properties; prefixItems */
    Json *patterns;      /* patternProperties */
    Json *other, *names; /* additionalProperties, items; propertyNames */
    bool none;           /* other is false */
    const struct PartOf *next;
} PartOf;

typedef struct {
    unsigned types;
    bool never, touched; /* nothing can satisfy it; anything is said at all */
    const Listed *enums; /* arrays: a value must be in each */
    Bound lo, hi;
    uint32_t multiple; /* 0: any */
    uint32_t min_chars, max_chars, min_items, max_items, min_members, max_members;
    const Listed *patterns; /* strings */
    const PartOf *items, *members;
    const Listed *required;    /* arrays of names */
    const Listed *choices;     /* arrays of schemas: one of each */
    bool unique, open, closed; /* items; other members are mentioned; none but the named */
} Facets;

/* Where a schema is read: its root, and the way to the part being read. */
typedef struct {
    Json *root;
    Bytes path; /* a JSON pointer */
    Arena arena;
    const Listed *made; /* schemas put together here */
    int depth, work;
    const char *what; /* the name of the whole in errors */
    bool lenient;     /* pass over keywords that are known, but not supported */
    Effort *effort;
    ds4_err *err;
} SchemaReader;

void schema_reader_release(SchemaReader *r);

extern const Facets facets_any;
/* Add what a schema says; false: it cannot be understood, and err says why. */
bool facets_add(SchemaReader *r, Facets *f, Json *schema);
/* A value of an enum, seen by all that the facets say of its type. */
bool facets_admit(SchemaReader *r, const Facets *f, Json *value, bool *admitted);
/* Follow a schema that is nothing but a reference. */
bool facets_follow(SchemaReader *r, Json **schema);
/* The schema that says both; n > 0. NULL: no memory. */
Json *schema_of_all(SchemaReader *r, Json *const *schemas, size_t n);
bool schema_refuse(SchemaReader *r, const char *keyword, const char *why);
/* A keyword that is right, but cannot be kept to: true where that is passed over. */
bool schema_pass_over(SchemaReader *r, const char *keyword, const char *why);

/* Go a step deeper in the pointer, and back. */
size_t schema_enter(SchemaReader *r, const char *keyword, Str name);
void schema_leave(SchemaReader *r, size_t mark);

#endif
