/* vocab.h - the tokens of a model, from its GGUF metadata.
 *
 * Token strings of the byte-level BPE are decoded to bytes once, at load.
 * Control and user-defined tokens (<think>, <｜User｜>, ...) are "special":
 * found by their text only where the caller allows it. */
#ifndef VOCAB_H
#define VOCAB_H
#include "../gguf/gguf.h"
#include "merges.h"
#include "split.h"

/* Copies what it needs; g may be released afterwards. */
ds4_vocab *vocab_load(const Gguf *g, ds4_err *err);
void vocab_free(ds4_vocab *v);

int vocab_size(const ds4_vocab *v);
Str vocab_bytes(const ds4_vocab *v, int32_t id); /* {NULL, 0} outside */
bool vocab_is_special(const ds4_vocab *v, int32_t id);
/* The id of a special token's text, -1: none. */
int32_t vocab_special(const ds4_vocab *v, Str text);

/* The control tokens of the prompt language, resolved by text; -1 where the
 * vocabulary has none. */
typedef struct {
    int32_t bos, eos, user, assistant, think, think_end, dsml, reminder;
} Controls;
const Controls *vocab_controls(const ds4_vocab *v);

/* ---- for the encoder ------------------------------------------------------- */

int32_t vocab_byte(const ds4_vocab *v, unsigned char c); /* -1: none */
const Merges *vocab_merges(const ds4_vocab *v);
const Splitter *vocab_splitter(const ds4_vocab *v);
/* The longest special token that text begins with at `at`, -1: none. */
int32_t vocab_special_at(const ds4_vocab *v, Str text, size_t at);

#endif
