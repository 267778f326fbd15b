/* token_pages.h - /tokenize and /detokenize, in llama.cpp's form. */
#ifndef TOKEN_PAGES_H
#define TOKEN_PAGES_H
#include "routes.h"

void post_tokenize(const Visit *v);
void post_detokenize(const Visit *v);

#endif
