/* tokenizer.h - the vocabulary as GGUF metadata: from a tokenizer.json, or a
 * plain one that needs no file. */
#ifndef TOKENIZER_H
#define TOKENIZER_H
#include "../gguf/gguf.h"

/* From a byte-level BPE tokenizer.json: tokens, kinds, merges. It may have
 * fewer tokens than the model has rows, but not more. */
bool tokenizer_put_file(GgufWriter *w, const char *path, int vocab, ds4_err *err);
bool tokenizer_put_json(GgufWriter *w, Str json, int vocab, ds4_err *err);

/* One token a byte (byte b is id 3 + b), no merges, and the control tokens of
 * the prompt language: at their published ids where the vocabulary reaches so
 * far, else at its end; only begin, end and pad where it has under 272 tokens.
 * The ids that are left are unused. */
bool tokenizer_put_default(GgufWriter *w, int vocab, ds4_err *err);
/* The id of a control token of the default vocabulary; -1: none. */
int tokenizer_default_id(int vocab, Str text);

/* Ids below 0 are left out. */
void tokenizer_put_ids(GgufWriter *w, int bos, int eos, int pad);

#endif
