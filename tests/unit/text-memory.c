/* Whatever memory is refused while a grammar is compiled or followed: it says so, or nothing
 * is different. */
#include "../failing_memory.h"
#include "../../src/text/automaton.c"
#include "../../src/text/automaton_mask.c"
#include "../../src/text/automaton_tables.c"
#include "../../src/text/dfa.c"
#include "../../src/text/grammar.c"
#include "../../src/text/program.c"
#include "../../src/text/ranges.c"
#undef MAX_STEPS
#define by_number states_by_number
#define counted   repeated_so_often
#include "../../src/text/nfa.c"
#include "../../src/text/regex.c"
#include "../grammar_check.h"
#include <json-c/json.h>

/* Each of its requests refused, but of many some and the last ones only: the others are those
 * of the many numbers that any schema may have. */
static void compile_without(const GrammarSpec *spec)
{
    enum { LAST = 300, EVERY = 211 };
    memory_refuse(0);
    grammar_free(grammar_compile(spec, kit.trie, kit.v, NULL));
    const long last = memory_asked - LAST;
    bool refused = true;
    for (long n = last < LAST ? 1 : EVERY; refused; n += n + EVERY < last ? EVERY : 1) {
        ds4_err err = { 0 };
        memory_refuse(n);
        Grammar *g = grammar_compile(spec, kit.trie, kit.v, &err);
        refused = memory_was_refused();
        if (!g && err.code != DS4_ENOMEM)
            fail_msg("without request %ld: %d %s", n, err.code, err.msg);
        assert_true(g || refused);
        grammar_free(g);
    }
}

static void a_grammar_that_lacks_memory_is_not_called_wrong(void **state)
{
    (void)state;
    Json *schema = json_tokener_parse("{\"type\":\"object\",\"properties\":{\"path\":{\"type\":"
                                      "\"string\",\"pattern\":\"^[a-c]{2,5}$\"},\"n\":{\"type\":"
                                      "\"integer\",\"minimum\":3},\"e\":{\"enum\":[1,\"x\"]}}}");
    GrammarTool tool = { .name = STR("read"), .parameters = schema };
    compile_without(&(GrammarSpec){ .regex = STR("[^a-c\\d]{2,5}(?:é|[x-z0-9])*|.") });
    compile_without(&(GrammarSpec){ .lark = STR("start: (\"a\" | B)+\nB: /[b-z]{1,3}/\n") });
    compile_without(&(GrammarSpec){ .tools = &tool, .n_tools = 1, .calls = CALLS_REQUIRED });
    json_object_put(schema);
}

/* ---- following ----------------------------------------------------------------------------- */

enum { MOST_STEPS = 64, WORDS = 32 };

typedef struct {
    uint32_t mask[MOST_STEPS][WORDS];
    size_t n;
} Masks;

/* The masks before each byte of the text, as far as the grammar answers for them. */
static void follow(const char *text, long refused_at, bool *refused, Masks *out)
{
    ds4_err err = { 0 };
    Grammar *g = grammar_compile(&(GrammarSpec){ .regex = STR("(?:[a-f]{2,9},|é{1,3};)*[^q]?") },
                                 kit.trie, kit.v, &err);
    assert_non_null(g);
    memory_refuse(refused_at);
    GrammarRun *r = grammar_start(g, &err);
    *out = (Masks){ 0 };
    for (; r && text[out->n]; out->n++) {
        const uint32_t *mask = grammar_mask(r);
        if (grammar_failed(r))
            break;
        memcpy(out->mask[out->n], mask, kit.trie->words * sizeof *mask);
        bool taken = grammar_token(r, vocab_byte(kit.v, (unsigned char)text[out->n]));
        if (grammar_failed(r))
            break;
        assert_true(taken);
    }
    *refused = memory_was_refused();
    assert_true(r || err.code == DS4_ENOMEM);
    grammar_end(r);
    grammar_free(g);
}

static void a_mask_that_lacks_memory_lacks_no_tokens_in_silence(void **state)
{
    (void)state;
    static const char text[] = "ab,abcdef,éé;cc,é;bbbbbbbbb,";
    static Masks all, some;
    bool refused;
    assert_true(kit.trie->words <= WORDS && sizeof text <= MOST_STEPS);
    follow(text, 0, &refused, &all);
    assert_int_equal(all.n, sizeof text - 1);
    long broken = 0, n = 1;
    for (refused = true; refused; n++) {
        follow(text, n, &refused, &some);
        broken += some.n < all.n;
        assert_memory_equal(some.mask, all.mask, some.n * sizeof *some.mask);
    }
    assert_true(broken > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grammar_that_lacks_memory_is_not_called_wrong),
        cmocka_unit_test(a_mask_that_lacks_memory_lacks_no_tokens_in_silence),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
