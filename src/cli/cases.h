/* cases.h - what score, verify and imatrix share: texts and cases as tokens. */
#ifndef CASES_H
#define CASES_H
#include "cli.h"
#include "../eval/token_names.h"
#include "../eval/vectors.h"
#include "../text/bpe.h"

/* Reads a file of either form; "-": stdin. */
bool cases_read(const char *path, Vectors *out, ds4_err *err);

/* A case as the model would read it. */
typedef struct {
    Tokens token; /* the prompt, then what the reference went on with */
    int n_prompt;
} CaseTokens;

/* file: where the case is from, beside which its prompt's file is looked for. */
bool case_tokens(const VectorCase *c, const ds4_engine *e, const TokenNames *names,
                 const char *file, CaseTokens *out, ds4_err *err);
void case_tokens_release(CaseTokens *t);
/* The id of a token of a vector; false: this vocabulary has none such. */
bool case_token(const VectorCase *c, const VectorToken *t, const TokenNames *names, int32_t *out,
                ds4_err *err);

/* A name from a file into a line of a table: control characters as '?', 1,024 bytes at most. */
void put_name(Bytes *b, Str name);

/* The texts to read: files, each one text; none: stdin. */
bool text_tokens(const char *path, const ds4_engine *e, Tokens *out, ds4_err *err);

/* An engine whose steps give logits for each of their rows. */
ds4_engine *cases_open_engine(ModelOptions *m, ds4_err *err);

#endif
