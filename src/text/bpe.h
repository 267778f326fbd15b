/* bpe.h - text to token ids: added-token split, pre-tokenizer, byte-level BPE. */
#ifndef BPE_H
#define BPE_H
#include "vocab.h"

typedef struct {
    int32_t *id;
    size_t n, cap;
    bool failed;
} Tokens;

void tokens_put(Tokens *t, int32_t id);
void tokens_release(Tokens *t);

/* Append the ids of text. special: control tokens in the text are recognised. */
bool bpe_encode(const ds4_vocab *v, Str text, bool special, Tokens *out, ds4_err *err);

#endif
