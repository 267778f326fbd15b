/* trie.h - the ordinary tokens of a vocabulary, as tries to be walked in step
 * with an automaton.
 *
 * Most tokens are short texts of a tier (dfa.h): a state that takes any such
 * text takes them as one mask, one that takes any text of k characters takes
 * whole subtrees, and only what is left is walked. */
#ifndef TRIE_H
#define TRIE_H
#include "dfa.h"
#include "grammar.h"

/* The short tokens of each tier that are not of an earlier one, other short
 * tokens (cut-off characters), and tokens of more than TIER_CHARS characters. */
enum TriePart { PART_PLAIN = TIER_PLAIN, PART_TEXT = TIER_TEXT, PART_CUT, PART_LONG, N_PARTS };

/* In preorder: the children of a node follow it, up to `skip`. */
typedef struct {
    uint32_t skip;
    uint32_t first; /* of its tokens and those below it, in the order of nodes */
    int32_t token;  /* -1: none ends here */
    uint16_t depth; /* 1: the first byte */
    uint8_t byte;
    uint8_t rest; /* characters of the longest way down; 255: many, or within a character */
} TrieNode;

typedef struct {
    TrieNode *node;
    uint32_t n;
    int32_t *token; /* [n_tokens] in the order of nodes */
    uint32_t n_tokens;
    uint32_t *mask; /* [words] of its tokens */
} TriePiece;

struct TokenTrie {
    TriePiece part[N_PARTS];
    size_t words; /* of a mask */
    size_t n_tokens;
};

enum { TRIE_DEPTH = 1024 }; /* bytes of the longest token */

#endif
