/* trie.c - tries of the vocabulary's ordinary tokens. */
#include "trie.h"
#include "tier.h"
#include <stdlib.h>

typedef struct {
    Str text;
    int32_t id;
} Word;

static bool fill(TriePiece *t, const Word *word, size_t n, size_t words);
static int by_text(const void *a, const void *b);
static enum TriePart part_of(Str text);

TokenTrie *trie_new(const ds4_vocab *v, ds4_err *err)
{
    size_t n = (size_t)vocab_size(v), count[N_PARTS] = { 0 };
    TokenTrie *t = calloc(1, sizeof *t);
    Word *word = malloc(N_PARTS * n * sizeof *word);
    bool ok = t && word;
    for (size_t i = 0; ok && i < n; i++) {
        Str text = vocab_bytes(v, (int32_t)i);
        if (text.n == 0 || text.n > TRIE_DEPTH || vocab_is_special(v, (int32_t)i))
            continue;
        enum TriePart part = part_of(text);
        word[part * n + count[part]++] = (Word){ text, (int32_t)i };
    }
    if (ok) {
        t->n_tokens = n;
        t->words = (n + 31) / 32;
    }
    for (size_t part = 0; ok && part < N_PARTS; part++) {
        qsort(word + part * n, count[part], sizeof *word, by_text);
        ok = fill(&t->part[part], word + part * n, count[part], t->words);
    }
    free(word);
    if (ok)
        return t;
    trie_free(t);
    fail(err, DS4_ENOMEM, "no memory for the trie of %zu tokens", n);
    return NULL;
}

void trie_free(TokenTrie *t)
{
    for (int i = 0; t && i < N_PARTS; i++) {
        free(t->part[i].node);
        free(t->part[i].token);
        free(t->part[i].mask);
    }
    free(t);
}

static int by_text(const void *a, const void *b)
{
    Str x = ((const Word *)a)->text, y = ((const Word *)b)->text;
    int order = memcmp(x.p, y.p, MIN(x.n, y.n));
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

/* The characters of a text that lies in the tier, -1: it does not. */
static int chars_of(Str text, enum Tier tier)
{
    int state = TIER_START, n = 0;
    for (size_t i = 0; i < text.n && state >= 0; i++) {
        state = tier_next(tier, state, (unsigned char)text.p[i]);
        n += state == TIER_START;
    }
    return state == TIER_START ? n : -1;
}

static enum TriePart part_of(Str text)
{
    int n = chars_of(text, TIER_TEXT);
    if (n > TIER_CHARS || (n < 0 && text.n > TIER_CHARS))
        return PART_LONG;
    if (n < 0)
        return PART_CUT;
    return chars_of(text, TIER_PLAIN) >= 0 ? PART_PLAIN : PART_TEXT;
}

static size_t common(Str a, Str b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n])
        n++;
    return n;
}

/* A token's share in what its nodes say about the way down. */
static void note_rest(TriePiece *t, const uint32_t *open, Str s)
{
    int state = TIER_START, after = chars_of(s, TIER_TEXT);
    for (size_t d = 1; d <= s.n; d++) {
        state = state < 0 ? state : tier_next(TIER_TEXT, state, (unsigned char)s.p[d - 1]);
        after -= state == TIER_START;
        uint8_t rest = state == TIER_START && after >= 0 ? (uint8_t)MIN(after, 255) : 255;
        t->node[open[d]].rest = MAX(t->node[open[d]].rest, rest);
    }
}

/* Words come in order, so each continues the path of the one before it. One
 * that equals the one before it gets a last node of its own. */
static bool fill(TriePiece *t, const Word *word, size_t n, size_t words)
{
    uint32_t open[TRIE_DEPTH + 1] = { 0 };
    size_t depth = 0, bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += word[i].text.n;
    t->node = malloc((bytes + 1) * sizeof *t->node);
    t->token = malloc((n + 1) * sizeof *t->token);
    t->mask = calloc(words, sizeof *t->mask);
    if (!t->node || !t->token || !t->mask)
        return false;
    for (size_t i = 0; i <= n; i++) {
        Str s = i < n ? word[i].text : (Str){ 0 };
        size_t keep = i > 0 ? common(word[i - 1].text, s) : 0;
        keep = keep == s.n && keep > 0 ? keep - 1 : keep;
        for (; depth > keep; depth--)
            t->node[open[depth]].skip = t->n;
        while (depth < s.n) {
            t->node[t->n] = (TrieNode){ .first = t->n_tokens,
                                        .token = -1,
                                        .depth = (uint16_t)(depth + 1),
                                        .byte = (uint8_t)s.p[depth] };
            open[++depth] = t->n++;
        }
        if (i < n) {
            note_rest(t, open, s);
            t->node[open[depth]].token = t->token[t->n_tokens++] = word[i].id;
            t->mask[word[i].id / 32] |= 1u << (word[i].id % 32);
        }
    }
    t->node[t->n] = (TrieNode){ .first = t->n_tokens };
    return true;
}
