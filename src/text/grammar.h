/* grammar.h - what may come next: constrained decoding.
 *
 * A grammar is compiled from JSON schemas, regular expressions, a subset of
 * Lark, and the DSML of declared tools into a byte-level pushdown automaton.
 * A mask of the tokens that may follow a state is found by walking a trie of
 * the vocabulary, and cached by state. Free text costs nothing. */
#ifndef GRAMMAR_H
#define GRAMMAR_H
#include "../base/bytes.h"
#include "vocab.h"

struct json_object;

/* ---- the vocabulary as a trie: once a model --------------------------------------- */

typedef struct TokenTrie TokenTrie;
TokenTrie *trie_new(const ds4_vocab *v, ds4_err *err);
void trie_free(TokenTrie *t);

/* ---- grammars --------------------------------------------------------------------- */

/* A declared tool: its parameters' schema (NULL: any object), or for a custom
 * tool the form of its one string, the parameter `input`. */
typedef struct {
    Str name;
    struct json_object *parameters;
    Str text_grammar, text_syntax; /* "lark", "regex"; empty: any text */
    bool custom;
    /* Schema keywords that are known, but cannot be kept to (`not`, `if`, ...), are
     * left to the model instead of refused. */
    bool lenient;
} GrammarTool;

/* NONE with tools declared: markup of calls is forbidden. */
enum GrammarCalls { CALLS_NONE, CALLS_ALLOWED, CALLS_REQUIRED };

typedef struct {
    bool thinking; /* free until </think>, then the rest */
    const GrammarTool *tools;
    size_t n_tools;
    enum GrammarCalls calls; /* required: a tool block right after thinking */
    Str only;                /* this tool only; empty: any */
    bool parallel;
    /* the form of the text; all empty: free. With tools allowed: text or calls. */
    bool json_object;
    struct json_object *schema;
    Str regex, lark;
    /* Asked now and then while it is compiled, true: give up (DS4_ECANCELED). May be NULL. */
    bool (*stop)(void *user);
    void *user;
} GrammarSpec;

typedef struct Grammar Grammar;

/* The spec may go afterwards; trie and v stay borrowed. An unsupported keyword
 * fails with DS4_EINVAL and is named with its place; so does what takes more
 * than some seconds. What it learns while it
 * runs is kept for all its runs, so one thread at a time may use them. */
Grammar *grammar_compile(const GrammarSpec *spec, const TokenTrie *trie, const ds4_vocab *v,
                         ds4_err *err);
void grammar_free(Grammar *g); /* after its runs */

/* One position in one answer. */
typedef struct GrammarRun GrammarRun;
GrammarRun *grammar_start(Grammar *g, ds4_err *err);
void grammar_end(GrammarRun *r);

/* The tokens that may come next as a bit mask of `vocab` bits, or NULL when
 * every token may (free text: special tokens are the caller's business). Good
 * until the next call for a run of the same grammar. Where something must
 * still follow, free text has a mask too: of all tokens but those that end an
 * answer. No bit is set after the end. */
const uint32_t *grammar_mask(GrammarRun *r);
/* Go on by one token; false when it was not allowed (the run stays). */
bool grammar_token(GrammarRun *r, int32_t id);
/* Memory was exhausted: what a mask or grammar_token has said since, of any run of this
 * grammar, is not to be relied on, nor what they will say. */
bool grammar_failed(const GrammarRun *r);
/* The same for text in which control tokens are spelled out: for tests. */
bool grammar_bytes(GrammarRun *r, Str bytes);
bool grammar_complete(const GrammarRun *r); /* the answer may end here */
/* Tokens are held to a form here, and not to free text's. */
bool grammar_constrains(const GrammarRun *r);

#endif
