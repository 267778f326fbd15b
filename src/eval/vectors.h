/* vectors.h - reference continuations: prompts, what a reference went on with, and how likely
 * it held that and other tokens to be. docs/ACCURACY.md describes the file.
 *
 * A file is JSON Lines: perhaps a header, {"ds4_vectors":1,"model":"..."}, then a case a line. A
 * manifest of prompts and texts is the same file without probabilities. Parsers take bytes and do
 * no I/O. Tokens are named by their bytes, in hexadecimal, or by their ids. */
#ifndef VECTORS_H
#define VECTORS_H
#include "../base/arena.h"
#include "../json/json.h"
#include "../text/chat.h"
#include "measure.h"

typedef struct {
    Str bytes;      /* empty: the id counts */
    int32_t id;     /* -1: the bytes count */
    double logprob; /* NaN: not said */
} VectorToken;

typedef struct {
    VectorToken token;
    VectorToken *top; /* what the reference held likely, best first; may hold the token itself */
    size_t n_top;
} VectorStep;

/* One prompt, in one of four forms, and what follows. */
typedef struct {
    Str id;
    ChatMessage *messages; /* rendered with the model's own prompt language */
    size_t n_messages;
    bool think;
    Str prompt;      /* raw text; control tokens in it count as such */
    Str prompt_file; /* of official.vec: a user's message is in this file */
    int32_t *ids;    /* the whole prompt */
    size_t n_ids;
    Str continuation; /* as text; empty: steps */
    VectorStep *step;
    size_t n_steps;
} VectorCase;

typedef struct {
    Str model; /* whose the reference is; empty: not said */
    VectorCase *cases;
    size_t n;
    Arena arena;
    Json **line; /* texts are views of these */
    size_t n_lines;
} Vectors;

/* Either form, by its first line that is no comment. what: the file's name, for errors, which are
 * DS4_EFORMAT and name the line. On failure *out is empty. */
bool vectors_read(Vectors *out, Str text, const char *what, ds4_err *err);
void vectors_release(Vectors *v);

/* Is a reference of `reference` one of the model `name`? Names are the same, or one contains the
 * other, whatever the case of letters, '-', '_', ' ' and '.'; "" is anybody's. */
bool vectors_same_model(Str reference, Str name);

/* ---- writing ------------------------------------------------------------------------ */

void vectors_put_header(Bytes *out, Str model);
/* One case of ids: ids[0, n_prompt) are the prompt. Then a step for each id that follows, then
 * the end of the line. */
void vectors_begin_case(Bytes *out, Str id, const int32_t *ids, size_t n_prompt);
void vectors_put_step(Bytes *out, bool first, int32_t id, double logprob, const Likely *top,
                      size_t n_top);
void vectors_end_case(Bytes *out);

#endif
