/* grammar.c - any bytes as a schema, a regular expression or a Lark grammar,
 * and others as an answer: what compiles takes some tokens, and those that its
 * masks allow are taken. The first byte says which; a NUL begins the answer. */
#include "../vocab_file.h"
#include "../../src/json/json.h"
#include "../../src/text/grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ds4_vocab *vocab; /* made once: the target is called in a loop */
static TokenTrie *trie;

enum { STEPS = 24 };

/* The first allowed token from a place that the answer's bytes choose. */
static int32_t choose(const uint32_t *mask, unsigned char from)
{
    int n = vocab_size(vocab);
    for (int i = 0; mask && i < n; i++) {
        int32_t id = (from + i) % n;
        if (mask[id / 32] >> (id % 32) & 1)
            return id;
    }
    return -1;
}

static void write_answer(Grammar *g, Str choices)
{
    GrammarRun *r = grammar_start(g, NULL);
    for (size_t i = 0; r && i < choices.n && i < STEPS; i++) {
        int32_t id = choose(grammar_mask(r), (unsigned char)choices.p[i]);
        if (id >= 0 && !grammar_token(r, id))
            abort();
        if (id < 0)
            break;
    }
    grammar_end(r);
}

static void read_answer(Grammar *g, Str answer)
{
    GrammarRun *r = grammar_start(g, NULL);
    for (size_t i = 0; r && i < answer.n && grammar_bytes(r, (Str){ answer.p + i, 1 }); i++)
        grammar_complete(r);
    grammar_end(r);
}

static Grammar *compile(uint8_t kind, Str text, Json *json)
{
    GrammarTool tool = { .name = STR("t"), .parameters = json };
    GrammarSpec spec = { .thinking = kind & 4, .parallel = kind & 8 };
    switch (kind & 3) {
    case 0: spec.schema = json; break;
    case 1: spec.regex = text; break;
    case 2: spec.lark = text; break;
    default:
        spec.tools = &tool;
        spec.n_tools = 1;
        spec.calls = CALLS_REQUIRED;
    }
    ds4_err err = { 0 };
    Grammar *g = grammar_compile(&spec, trie, vocab, &err);
    if (!g && err.code != DS4_EINVAL && err.code != DS4_ENOMEM)
        abort();
    return g;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!vocab && (!(vocab = vf_small_vocab(NULL)) || !(trie = trie_new(vocab, NULL))))
        abort();
    if (size < 2 || size > 4096)
        return 0;
    const uint8_t *nul = memchr(data + 1, 0, size - 1);
    Str text = { (const char *)data + 1, nul ? (size_t)(nul - data - 1) : size - 1 };
    Str answer = { text.p + text.n, size - 1 - text.n };
    bool schema = (data[0] & 3) == 0 || (data[0] & 3) == 3;
    Json *json = schema ? json_read(text, NULL) : NULL;
    if (schema && !json)
        return 0;
    Grammar *g = compile(data[0], text, json);
    if (g) {
        if (answer.n)
            answer = (Str){ answer.p + 1, answer.n - 1 };
        read_answer(g, answer);
        write_answer(g, answer);
        grammar_free(g);
    }
    json_free(json);
    return 0;
}
