/* The vocabulary: what is in the file is there, and what cannot be is refused. */
#include "../vocab_file.h"
#include "../../src/base/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void refused(const VocabFile *f, const char *part)
{
    ds4_err err = { 0 };
    ds4_vocab *v = vf_load(f, NULL, &err);
    if (v || !strstr(err.msg, part))
        fail_msg("expected \"%s\", got \"%s\"", part, v ? "a vocabulary" : err.msg);
    assert_int_equal(err.code, DS4_EFORMAT);
}

static void tokens_have_their_bytes(void **state)
{
    (void)state;
    ds4_err err;
    ds4_vocab *v = vf_small_vocab(&err);
    assert_non_null(v);
    assert_true(vocab_size(v) > 259);
    for (int b = 0; b < 256; b++) {
        int32_t id = vocab_byte(v, (unsigned char)b);
        assert_int_equal(id, 3 + b);
        assert_int_equal(vocab_bytes(v, id).n, 1);
        assert_int_equal((unsigned char)vocab_bytes(v, id).p[0], b);
        assert_false(vocab_is_special(v, id));
    }
    assert_true(str_eq(vocab_bytes(v, 0), STR("<｜begin▁of▁sentence｜>")));
    assert_true(str_eq(vocab_bytes(v, 259), STR(" t")));
    assert_null(vocab_bytes(v, -1).p);
    assert_null(vocab_bytes(v, vocab_size(v)).p);
    assert_false(vocab_is_special(v, -1));
    assert_false(vocab_is_special(v, vocab_size(v)));
    vocab_free(v);
}

static void control_tokens_are_found_by_their_text(void **state)
{
    (void)state;
    ds4_err err;
    ds4_vocab *v = vf_small_vocab(&err);
    assert_non_null(v);
    const Controls *c = vocab_controls(v);
    assert_int_equal(c->bos, 0);
    assert_int_equal(c->eos, 1);
    assert_true(str_eq(vocab_bytes(v, c->user), STR("<｜User｜>")));
    assert_true(str_eq(vocab_bytes(v, c->think_end), STR("</think>")));
    assert_true(str_eq(vocab_bytes(v, c->dsml), STR("｜DSML｜")));
    assert_int_equal(vocab_special(v, STR("<think>")), c->think);
    assert_int_equal(vocab_special(v, STR("<think")), -1);
    assert_int_equal(vocab_special(v, STR("<think>>")), -1);
    assert_int_equal(vocab_special(v, STR("a")), -1);
    assert_int_equal(vocab_special(v, STR("")), -1);
    vocab_free(v);
}

static void the_longest_control_token_wins(void **state)
{
    (void)state;
    VocabFile f = { 0 };
    ds4_err err;
    vf_bytes(&f);
    static const char *const texts[] = { "<a", "<ab", "<abcd", "b<", "\xff", "<" };
    for (size_t i = 0; i < COUNT(texts); i++)
        vf_token(&f, str_of(texts[i]), i % 2 ? CONTROL : USER_DEFINED);
    ds4_vocab *v = vf_load(&f, NULL, &err);
    assert_non_null(v);
    assert_int_equal(vocab_special_at(v, STR("<abcde"), 0), 258);
    assert_int_equal(vocab_special_at(v, STR("<abce"), 0), 257);
    assert_int_equal(vocab_special_at(v, STR("<ax"), 0), 256);
    assert_int_equal(vocab_special_at(v, STR("<a"), 0), 256);
    assert_int_equal(vocab_special_at(v, STR("<"), 0), 261);
    assert_int_equal(vocab_special_at(v, STR("xb<abcd"), 1), 259);
    assert_int_equal(vocab_special_at(v, STR("x\xff"), 1), 260);
    assert_int_equal(vocab_special_at(v, STR("ab"), 0), -1);
    assert_int_equal(vocab_controls(v)->bos, -1);
    vocab_free(v);
    vf_release(&f);
}

static void other_tokenizers_are_refused_by_name(void **state)
{
    (void)state;
    VocabFile f = { 0 };
    vf_bytes(&f);
    f.pre = "llama-bpe";
    refused(&f, "\"llama-bpe\"");
    f.pre = NULL;
    f.model = "llama";
    refused(&f, "\"llama\"");
    f.model = NULL;
    f.pre = "deepseek-v3";
    ds4_vocab *v = vf_load(&f, NULL, NULL);
    assert_non_null(v);
    vocab_free(v);
    vf_release(&f);
}

static void a_file_without_vocabulary_says_so(void **state)
{
    (void)state;
    GgufWriter w = { 0 };
    Bytes file = { 0 };
    Gguf g;
    ds4_err err = { 0 };
    assert_true(gguf_header(&w, &file, &err) && gguf_parse(&g, file.p, file.n, &err));
    assert_null(vocab_load(&g, &err));
    assert_non_null(strstr(err.msg, "no vocabulary"));
    gguf_release(&g);
    bytes_release(&file);
    gguf_writer_release(&w);
}

/* One more token, or merge, in an otherwise good vocabulary. */
static void token_is_refused(Str text, int type, const char *part)
{
    VocabFile f = { 0 };
    vf_small(&f);
    vf_token(&f, text, type);
    refused(&f, part);
    vf_release(&f);
}

static void merge_is_refused(const char *text, const char *part)
{
    VocabFile f = { 0 };
    vf_small(&f);
    vf_merge(&f, str_of(text));
    refused(&f, part);
    vf_release(&f);
}

static void impossible_tokens_are_refused(void **state)
{
    (void)state;
    char big[2000];
    memset(big, 'x', sizeof big);
    token_is_refused(STR("a"), NORMAL, "are both");
    token_is_refused(STR("<think>"), CONTROL, "are both");
    token_is_refused(STR("中"), NORMAL, "byte alphabet");
    token_is_refused(STR(" "), NORMAL, "byte alphabet");
    token_is_refused(STR("\xc4"), NORMAL, "byte alphabet");
    token_is_refused(STR("\xc5\x84"), NORMAL, "byte alphabet");
    token_is_refused(STR(""), NORMAL, "0 bytes");
    token_is_refused(STR(""), CONTROL, "0 bytes");
    token_is_refused((Str){ big, sizeof big }, NORMAL, "2000 bytes");
    token_is_refused((Str){ big, sizeof big }, UNUSED, "2000 bytes");
    token_is_refused(STR("q"), 0, "type 0");
    token_is_refused(STR("q"), 77, "type 77");
}

static void impossible_merges_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "",      " ",    "ab",   "a ",  " a",   "a  b",
                                       "a b c", "a zz", "zz a", "a q", "中 a", "<think> a" };
    for (size_t i = 0; i < COUNT(bad); i++)
        merge_is_refused(bad[i], "does not join");
    merge_is_refused("h e", "twice");
}

static void counts_must_agree(void **state)
{
    (void)state;
    VocabFile f = { 0 };
    refused(&f, "0 tokens");
    GgufWriter w = { 0 };
    Bytes file = { 0 };
    Gguf g;
    ds4_err err = { 0 };
    vf_bytes(&f);
    gguf_put_str(&w, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_str(&w, "tokenizer.ggml.pre", STR("joyai-llm"));
    gguf_put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 256, f.tokens.p, f.tokens.n);
    gguf_put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, 255, f.types.p, f.types.n - 4);
    assert_true(gguf_header(&w, &file, &err) && gguf_parse(&g, file.p, file.n, &err));
    assert_null(vocab_load(&g, &err));
    assert_non_null(strstr(err.msg, "255 entries, expected 256"));
    gguf_release(&g);
    bytes_release(&file);
    gguf_writer_release(&w);
    vf_release(&f);
}

/* Change bytes of a good file at random: it loads or is refused, and what
 * loads can be asked about. */
static void damaged_files_do_no_harm(void **state)
{
    (void)state;
    VocabFile f = { 0 };
    Bytes good = { 0 }, bad = { 0 };
    uint64_t rng = 5;
    vf_small(&f);
    assert_true(vf_write(&f, &good, NULL));
    for (int round = 0; round < 400; round++) {
        Gguf g;
        ds4_err err = { 0 };
        bytes_clear(&bad);
        bytes_put(&bad, good.p, good.n);
        for (int k = 0; k < 1 + round % 4; k++)
            bad.p[rng_next(&rng) % bad.n] = (char)rng_next(&rng);
        if (gguf_parse(&g, bad.p, bad.n, &err)) {
            ds4_vocab *v = vocab_load(&g, &err);
            size_t sum = 0;
            for (int id = 0; v && id < vocab_size(v); id++)
                sum += vocab_bytes(v, id).n;
            assert_true(v ? sum > 0 : err.msg[0] != 0);
            vocab_free(v);
        }
        gguf_release(&g);
    }
    bytes_release(&good);
    bytes_release(&bad);
    vf_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_have_their_bytes),
        cmocka_unit_test(control_tokens_are_found_by_their_text),
        cmocka_unit_test(the_longest_control_token_wins),
        cmocka_unit_test(other_tokenizers_are_refused_by_name),
        cmocka_unit_test(a_file_without_vocabulary_says_so),
        cmocka_unit_test(impossible_tokens_are_refused),
        cmocka_unit_test(impossible_merges_are_refused),
        cmocka_unit_test(counts_must_agree),
        cmocka_unit_test(damaged_files_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
