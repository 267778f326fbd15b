/* json.h - JSON in, through json-c; typed reads of it; and JSON out, in the one
 * form that the model was trained on: Python's json.dumps(ensure_ascii=False). */
#ifndef JSON_H
#define JSON_H
#include "../base/bytes.h"

typedef struct json_object Json;

/* One document, nested at most JSON_DEPTH deep, and nothing after it. It may hold
 * 4 million numbers or 260,000 objects, which take 400 MB at most. A byte outside
 * UTF-8 and half of a surrogate pair become U+FFFD. Of members with one name the
 * last counts, in the place of the first. Integers may be of any size: beyond 64
 * bits they are doubles to json-c, and written as they came. */
#define JSON_DEPTH 128
Json *json_read(Str text, ds4_err *err);
/* The same for a file's text, of any number of values. what names it in errors,
 * which are DS4_EFORMAT. */
Json *json_parse(Str text, int max_depth, const char *what, ds4_err *err);
/* Would it be read? Here null is a document too. */
bool json_valid(Str text);
void json_free(Json *o);

/* ---- typed reads: o may be NULL, which is also what null is --------------------- */

bool json_is_object(const Json *o);
bool json_is_array(const Json *o);
bool json_is_text(const Json *o);
/* A member; NULL where there is none or it is null. */
Json *json_member(const Json *o, const char *key);
/* 0 where it is no array. */
size_t json_length(const Json *o);
Json *json_at(const Json *o, size_t i);
/* A view of its text, {NULL, 0} where it is none. */
Str json_text(const Json *o);
/* Is it this text? */
bool json_is(const Json *o, const char *text);
/* Is it a boolean, and this one? */
bool json_is_bool(const Json *o, bool value);
/* A whole number in [0, max]; not a real, not a string. */
bool json_whole(const Json *o, uint64_t max, uint64_t *out);
/* Any number. */
bool json_number(const Json *o, double *out);

/* ---- writing -------------------------------------------------------------------- */

/* Members keep their order; ", " and ": " between them. */
void json_write(Bytes *out, const Json *o);
void json_write_str(Bytes *out, Str s);
/* The inside of a string only, without the quotes around it. */
void json_write_chars(Bytes *out, Str s);
void json_write_real(Bytes *out, double x);

#endif
