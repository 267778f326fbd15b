/* token_names.h - the token of given bytes. */
#ifndef TOKEN_NAMES_H
#define TOKEN_NAMES_H
#include "../text/vocab.h"

/* All tokens in the order of their bytes; of equal ones plain text comes before control tokens. */
typedef struct {
    const ds4_vocab *vocab; /* borrowed */
    int32_t *id;
    size_t n;
} TokenNames;

bool token_names_init(TokenNames *t, const ds4_vocab *v, ds4_err *err);
int32_t token_named(const TokenNames *t, Str bytes); /* -1: none */
void token_names_release(TokenNames *t);

#endif
