/* regex.h - regular expressions to automata.
 *
 * The syntax that JSON schemas, Lark and Rust share: alternatives, groups,
 * classes, \d \w \s, {m,n}, anchors. What is no regular language, or would
 * need tables, is refused by name: references, looking around, \b, \p. */
#ifndef REGEX_H
#define REGEX_H
#include "dfa.h"

typedef struct {
    bool search;      /* anywhere in the text, as a schema's pattern; else all of it */
    bool ignore_case; /* of ASCII letters */
    bool dot_all;     /* . takes ends of lines too */
} RegexOptions;

/* The texts, in UTF-8, that the expression takes. effort: whose work it is, or NULL. */
bool regex_compile(Dfa *out, Str regex, RegexOptions opt, Effort *effort, ds4_err *err);

#endif
