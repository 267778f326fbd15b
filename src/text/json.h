/* json.h - JSON in, through json-c, and out, in the one form that the model
 * was trained on: Python's json.dumps(ensure_ascii=False). */
#ifndef TEXT_JSON_H
#define TEXT_JSON_H
#include "../base/bytes.h"

struct json_object;

/* One document, nested at most JSON_DEPTH deep, and nothing after it. A byte
 * outside UTF-8 and half of a surrogate pair become U+FFFD. Of members with one
 * name the last counts, in the place of the first. Integers of more than 64
 * bits are refused. Free with json_object_put. */
#define JSON_DEPTH 128
struct json_object *json_read(Str text, ds4_err *err);

/* Members keep their order; ", " and ": " between them. */
void json_write(Bytes *out, const struct json_object *o);
void json_write_str(Bytes *out, Str s);
void json_write_real(Bytes *out, double x);

#endif
