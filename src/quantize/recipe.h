/* recipe.h - which number format each tensor gets: a list of name patterns.
 *
 * The first rule that matches decides. Where a row's length is no multiple
 * of that format's block, the tensor falls back to the first that fits of
 * Q8_0 (32) and F16 (any). */
#ifndef RECIPE_H
#define RECIPE_H
#include "layout.h"
#include "../quant/quant.h"

typedef struct {
    const char *pattern; /* of GGUF names; '*' is any run of characters */
    int type;            /* enum Quant */
    bool late;           /* only in the last 6 of 43 layers, in proportion */
} RecipeRule;

typedef struct {
    const char *name;
    int file_type;              /* general.file_type: the one llama.cpp would write */
    const RecipeRule *rules[3]; /* lists, each ending with pattern NULL; in order */
    int rest;                   /* what no rule matches */
} Recipe;

/* By name; fails with the list of names. */
const Recipe *recipe_find(const char *name, ds4_err *err);
/* The i-th recipe, NULL after the last. */
const Recipe *recipe_at(size_t i);

/* A user's rules, "PATTERN=TYPE", which come before a recipe's for matrices; vectors
 * and hash tables stay as they are. */
enum { MAX_TYPE_RULES = 32 };
typedef struct {
    struct {
        char pattern[64];
        int type; /* enum Quant */
    } rule[MAX_TYPE_RULES];
    size_t n;
} TypeRules;
bool type_rules_add(TypeRules *t, const char *text, ds4_err *err);
/* The first that decides about the tensor; -1: none. */
int type_rules_find(const TypeRules *t, const TensorSpec *spec);

/* The format of a tensor; *wanted (may be NULL) is what the recipe says
 * before any fallback. n_layers: of the model. */
int recipe_type(const Recipe *r, const TensorSpec *t, int n_layers, int *wanted);
/* What is nearest to a format that a row of so many values fits. */
int recipe_fitting(int type, uint64_t row);

#endif
