/* schema.h - JSON schemas to rules of a program.
 *
 * JSON is written compactly or as Python's json.dumps writes it: at most one
 * space behind a comma and a colon. Keys and listed strings have the one
 * spelling of json_write; other strings may use any escape. */
#ifndef SCHEMA_H
#define SCHEMA_H
#include "../json/json.h"
#include "program.h"

typedef struct Schemas Schemas;

/* Builds rules in p, which stays borrowed. The schemas given to it must live
 * as long. */
Schemas *schemas_new(Program *p, ds4_err *err);
void schemas_free(Schemas *s);

/* A rule of the JSON that a schema admits; schema NULL: any object. False, and
 * err of schemas_new filled: it cannot be understood. what names it in errors. */
bool schemas_json(Schemas *s, Json *schema, const char *what, NodeId *rule);

/* A rule of a call's parameters in the markup of tools: what lies between the
 * line of <invoke> and that of </invoke>, with the end of line before the latter.
 * Only the parameters that the schema names, unless it speaks of others. lenient:
 * keywords that are not supported are passed over. */
bool schemas_parameters(Schemas *s, Json *schema, bool lenient, const char *what, NodeId *rule);

/* A rule of any text that may stand in a parameter's string. */
NodeId schemas_text(Schemas *s);
/* One parameter: its text, and its JSON, are rules (either may be NODE_NONE). */
NodeId schemas_parameter(Schemas *s, Str name, NodeId text, NodeId json);

#endif
