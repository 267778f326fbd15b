/* grammar_check.h - grammars in tests: whether they take a text, and what they
 * can be made to write. */
#ifndef GRAMMAR_CHECK_H
#define GRAMMAR_CHECK_H
#include "vocab_file.h"
#include "../src/base/rng.h"
#include "../src/json/json.h"
#include "../src/text/grammar.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* The bytes, the control tokens, and tokens that cross the borders of JSON's and
 * the markup's parts. */
static inline ds4_vocab *check_vocab(ds4_err *err)
{
    static const char *const words[] = {
        "\",Ġ\"",
        "\":Ġ",
        "\":",
        "{\"",
        "}}",
        "\"}",
        "[]",
        "},",
        "tr",
        "ue",
        "true",
        "false",
        "null",
        "Ġnull",
        "12",
        "99",
        ",Ġ",
        "Ġ\"",
        "nam",
        "name",
        "pa",
        "path",
        "ĊĊ",
        "</",
        ">Ċ",
        "\">Ċ",
        "\">",
        "inv",
        "oke",
        "para",
        "meter",
        "tool_",
        "calls>",
        "Ġname=\"",
        "string",
        "=\"",
        "ĊĊ<",
        "e1",
        ".5",
        "-1",
        "\\\"",
        "\\u",
        "abc",
        "ab",
        "Ã©Ã",
        "ä¸Ń",
        "aaaaaaaaaaaaaaaaaaaa",
        "ĠĠĠĠĠĠĠĠ",
    };
    static const char *const controls[] = { "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>",
                                            "｜DSML｜" };
    VocabFile f = { 0 };
    vf_token(&f, STR("<｜begin▁of▁sentence｜>"), CONTROL);
    vf_token(&f, STR("<｜end▁of▁sentence｜>"), CONTROL);
    vf_token(&f, STR("<｜▁pad▁｜>"), CONTROL);
    vf_bytes(&f);
    for (size_t i = 0; i < COUNT(words); i++)
        vf_token(&f, str_of(words[i]), NORMAL);
    for (size_t i = 0; i < COUNT(controls); i++)
        vf_token(&f, str_of(controls[i]), i < 2 ? CONTROL : USER_DEFINED);
    ds4_vocab *v = vf_load(&f, NULL, err);
    vf_release(&f);
    return v;
}

typedef struct {
    ds4_vocab *v;
    TokenTrie *trie;
    ds4_err err;
} Kit;

static inline void kit_init(Kit *k)
{
    *k = (Kit){ 0 };
    k->v = check_vocab(&k->err);
    k->trie = k->v ? trie_new(k->v, &k->err) : NULL;
    if (!k->trie)
        fail_msg("%s", k->err.msg);
}

static inline void kit_release(Kit *k)
{
    trie_free(k->trie);
    vocab_free(k->v);
}

/* The kit of a whole group of tests. */
static Kit kit;

static inline int kit_set_up(void **state)
{
    (void)state;
    kit_init(&kit);
    return 0;
}

static inline int kit_tear_down(void **state)
{
    (void)state;
    kit_release(&kit);
    return 0;
}

static inline Grammar *kit_compile(Kit *k, const GrammarSpec *spec)
{
    Grammar *g = grammar_compile(spec, k->trie, k->v, &k->err);
    if (!g)
        fail_msg("%s", k->err.msg);
    return g;
}

/* 2: the whole may end there, 1: more must follow, 0: it is not taken. */
static inline int taken(Grammar *g, const char *text)
{
    GrammarRun *r = grammar_start(g, NULL);
    int how = !grammar_bytes(r, str_of(text)) ? 0 : grammar_complete(r) ? 2 : 1;
    grammar_end(r);
    return how;
}

static inline void takes(Grammar *g, const char *text)
{
    if (taken(g, text) != 2)
        fail_msg("not taken%s: %s", taken(g, text) ? " as a whole" : "", text);
}

static inline void rejects(Grammar *g, const char *text)
{
    if (taken(g, text) == 2)
        fail_msg("taken: %s", text);
}

static inline bool bit(const uint32_t *mask, int32_t id) { return mask[id / 32] >> (id % 32) & 1; }

/* How little a token that begins so does to end what has been begun. Names that
 * must come begin with one of a few letters. */
static inline int delay_of(const ds4_vocab *v, int32_t id, bool name)
{
    const char *order = name ? "anpq\"}]<>tf0/" : "\"}]<>ntf0/";
    Str s = vocab_bytes(v, id);
    const char *at = s.p[0] ? strchr(order, s.p[0]) : NULL;
    if (id == vocab_controls(v)->eos)
        return -1;
    return at ? (int)(at - order) : strchr(",{[", s.p[0]) ? 90 : 20 + (s.n > 1);
}

/* An allowed token by chance, in a hurry one of those that end something; -1: none. */
static inline int32_t pick_token(const uint32_t *mask, const ds4_vocab *v, uint64_t *rng,
                                 bool hurry)
{
    int32_t best = -1;
    uint64_t n = 0;
    int least = 0;
    bool name = rng_next(rng) % 2;
    for (int32_t id = 0; id < vocab_size(v); id++) {
        if (mask && !bit(mask, id))
            continue;
        int delay = hurry ? delay_of(v, id, name) : 0;
        if (best < 0 || delay < least) {
            n = 0;
            least = delay;
        }
        if (delay == least && rng_next(rng) % ++n == 0)
            best = id;
    }
    return best;
}

/* Write at random: 1: to the end, 0: more than 10 * limit tokens, -1: into a blind alley. */
static inline int write_at_random(Grammar *g, const ds4_vocab *v, uint64_t *rng, int limit,
                                  Bytes *out)
{
    GrammarRun *r = grammar_start(g, NULL);
    int32_t eos = vocab_controls(v)->eos;
    int result = 0;
    for (int step = 0; step < 10 * limit && result == 0; step++) {
        const uint32_t *mask = grammar_mask(r);
        bool end = mask && bit(mask, eos) && rng_next(rng) % 3 == 0;
        int32_t id = end ? eos : pick_token(mask, v, rng, step > limit && rng_next(rng) % 4);
        if (id < 0 || !grammar_token(r, id))
            result = -1;
        else if (id == eos)
            result = 1;
        else
            bytes_put(out, vocab_bytes(v, id).p, vocab_bytes(v, id).n);
    }
    grammar_end(r);
    return result;
}

#endif
