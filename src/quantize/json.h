/* json.h - small, typed reads of JSON through json-c. */
#ifndef QUANTIZE_JSON_H
#define QUANTIZE_JSON_H
#include "../base/base.h"

struct json_object;

/* One document and nothing after it but white space. what names it in errors. */
struct json_object *json_parse(Str text, int max_depth, const char *what, ds4_err *err);
void json_free(struct json_object *o);

/* A whole number in [0, max]; not a real, not a string. */
bool json_whole(struct json_object *o, uint64_t max, uint64_t *out);
/* A member; NULL where there is none or it is null. */
struct json_object *json_member(struct json_object *o, const char *key);
/* A member's text, {NULL, 0} where it is no string. */
Str json_text(struct json_object *o);

#endif
