/* tokens.h - what tokenize and render share: the vocabulary alone of a model,
 * and ids as text. */
#ifndef TOKENS_H
#define TOKENS_H
#include "cli.h"
#include "../text/bpe.h"

/* Reads the metadata of m's model, not its weights. *preview (may be NULL): it
 * is no model of the 0731 release, by its name. */
ds4_vocab *tokens_open_vocab(ModelOptions *m, bool *preview, ds4_err *err);

/* "[1,2,3]" and a newline. */
bool tokens_print(const Tokens *t, ds4_err *err);

#endif
