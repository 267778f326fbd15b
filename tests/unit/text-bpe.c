/* The encoder against the rule itself, written the slow way. */
#include "../vocab_file.h"
#include "../../src/base/rng.h"
#include "../../src/text/bpe.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- the rule: the lowest rank of all neighbours merges first, leftmost ------- */

typedef struct {
    const ds4_vocab *v;
    Tokens *out;
} Naive;

static bool naive_piece(void *user, Str s)
{
    Naive *e = user;
    int32_t *id = malloc((s.n + 1) * sizeof *id);
    size_t n = s.n;
    for (size_t i = 0; i < n; i++)
        id[i] = vocab_byte(e->v, (unsigned char)s.p[i]);
    for (;;) {
        const Merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const Merge *m = merges_find(vocab_merges(e->v), id[i], id[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best)
            break;
        id[at] = best->result;
        memmove(&id[at + 1], &id[at + 2], (n - at - 2) * sizeof *id);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        tokens_put(e->out, id[i]);
    free(id);
    return true;
}

/* Bytes, and a few hundred merges of random tokens over the letters a, b, c and
 * the blank, so that long pieces merge deeply and ranks mislead. */
static ds4_vocab *random_vocab(uint64_t *rng)
{
    VocabFile f = { 0 };
    static const char *const letters[] = { "a", "b", "c", "Ġ" };
    char token[400][64];
    size_t n = COUNT(letters), first = n;
    for (size_t i = 0; i < n; i++)
        snprintf(token[i], sizeof token[i], "%s", letters[i]);
    vf_bytes(&f);
    while (n < 300) {
        const char *a = token[rng_next(rng) % n], *b = token[rng_next(rng) % n];
        char joined[160], merge[160];
        bool known = false;
        snprintf(joined, sizeof joined, "%s%s", a, b);
        snprintf(merge, sizeof merge, "%s %s", a, b);
        for (size_t i = 0; i < n; i++)
            known |= strcmp(token[i], joined) == 0;
        if (known || strlen(joined) >= sizeof token[0])
            continue;
        memcpy(token[n++], joined, strlen(joined) + 1);
        vf_merge(&f, str_of(merge));
    }
    for (size_t i = first; i < n; i++)
        vf_token(&f, str_of(token[i]), NORMAL);
    ds4_vocab *v = vf_load(&f, NULL, NULL);
    vf_release(&f);
    return v;
}

static void tokens_equal(const Tokens *a, const Tokens *b)
{
    assert_int_equal(a->n, b->n);
    if (a->n)
        assert_memory_equal(a->id, b->id, a->n * sizeof *a->id);
}

static void check_rule(const ds4_vocab *v, size_t n, const char *letters, uint64_t *rng)
{
    Bytes text = { 0 };
    Tokens got = { 0 }, want = { 0 };
    ds4_err err;
    Naive naive = { v, &want };
    while (text.n < n)
        bytes_byte(&text, (unsigned char)letters[rng_next(rng) % strlen(letters)]);
    assert_true(bpe_encode(v, bytes_view(&text), false, &got, &err));
    assert_true(split_text(vocab_splitter(v), bytes_view(&text), naive_piece, &naive, &err));
    tokens_equal(&got, &want);
    tokens_release(&got);
    tokens_release(&want);
    bytes_release(&text);
}

static void every_merge_follows_the_rule(void **state)
{
    (void)state;
    uint64_t rng = 2;
    for (int round = 0; round < 10; round++) {
        ds4_vocab *v = random_vocab(&rng);
        assert_non_null(v);
        /* Below and above the lengths where the encoder changes its ways. */
        for (size_t n = 1; n < 70; n++)
            check_rule(v, n, "abc", &rng);
        check_rule(v, 3000, "abc", &rng);
        check_rule(v, 3000, "aab", &rng);
        check_rule(v, 5000, "abcabcabcabc ", &rng);
        vocab_free(v);
    }
}

static void text_comes_back(const ds4_vocab *v, Str text, bool special)
{
    Tokens t = { 0 };
    Bytes back = { 0 };
    ds4_err err;
    assert_true(bpe_encode(v, text, special, &t, &err));
    for (size_t i = 0; i < t.n; i++) {
        assert_true(special || !vocab_is_special(v, t.id[i]));
        bytes_put(&back, vocab_bytes(v, t.id[i]).p, vocab_bytes(v, t.id[i]).n);
    }
    assert_true(str_eq(bytes_view(&back), text));
    tokens_release(&t);
    bytes_release(&back);
}

static void any_bytes_come_back(void **state)
{
    (void)state;
    static const char *const parts[] = { "<think>", "｜DSML｜", "<｜User", "hello",
                                         "  ",      "\n\n",     "中" };
    uint64_t rng = 4;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    for (int round = 0; round < 2000; round++) {
        Bytes b = { 0 };
        for (uint64_t n = rng_next(&rng) % 40; n > 0; n--) {
            if (rng_next(&rng) % 4 == 0)
                bytes_str(&b, parts[rng_next(&rng) % COUNT(parts)]);
            else
                bytes_byte(&b, (unsigned char)rng_next(&rng));
        }
        text_comes_back(v, bytes_view(&b), round % 2);
        bytes_release(&b);
    }
    vocab_free(v);
}

static void repeated_words_give_what_one_word_gives(void **state)
{
    (void)state;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    Bytes text = { 0 };
    Tokens one = { 0 }, many = { 0 };
    assert_true(bpe_encode(v, STR(" hello the world 中é"), false, &one, NULL));
    for (int i = 0; i < 400; i++)
        bytes_str(&text, " hello the world 中é");
    assert_true(bpe_encode(v, bytes_view(&text), false, &many, NULL));
    assert_int_equal(many.n, 400 * one.n);
    for (size_t i = 0; i < many.n; i++)
        assert_int_equal(many.id[i], one.id[i % one.n]);
    tokens_release(&one);
    tokens_release(&many);
    bytes_release(&text);
    vocab_free(v);
}

static void control_tokens_are_recognised_only_where_allowed(void **state)
{
    (void)state;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    Str text = STR("a</think><think>b<｜User｜>");
    const Controls *c = vocab_controls(v);
    Tokens t = { 0 };
    assert_true(bpe_encode(v, text, true, &t, NULL));
    const int32_t want[] = { vocab_byte(v, 'a'), c->think_end, c->think, vocab_byte(v, 'b'),
                             c->user };
    assert_int_equal(t.n, COUNT(want));
    assert_memory_equal(t.id, want, sizeof want);
    tokens_release(&t);
    text_comes_back(v, text, false);
    vocab_free(v);
}

static void ids_are_appended(void **state)
{
    (void)state;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    Tokens t = { 0 };
    tokens_put(&t, 42);
    assert_true(bpe_encode(v, STR("a"), false, &t, NULL));
    assert_true(bpe_encode(v, STR(""), true, &t, NULL));
    assert_int_equal(t.n, 2);
    assert_int_equal(t.id[0], 42);
    tokens_release(&t);
    vocab_free(v);
}

static void a_byte_without_token_is_named(void **state)
{
    (void)state;
    VocabFile f = { 0 };
    Tokens t = { 0 };
    ds4_err err = { 0 };
    vf_token(&f, STR("a"), NORMAL);
    vf_token(&f, STR("<think>"), CONTROL);
    ds4_vocab *v = vf_load(&f, NULL, &err);
    assert_non_null(v);
    assert_true(bpe_encode(v, STR("aa<think>a"), true, &t, &err));
    assert_int_equal(t.n, 4);
    assert_false(bpe_encode(v, STR("aab"), true, &t, &err));
    assert_non_null(strstr(err.msg, "0x62"));
    tokens_release(&t);
    vocab_free(v);
    vf_release(&f);
}

static void a_megabyte_of_one_letter_is_one_piece_done_soon(void **state)
{
    (void)state;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    Bytes b = { 0 };
    Tokens t = { 0 };
    bytes_fill(&b, 'a', 1 << 20);
    clock_t start = clock();
    assert_true(bpe_encode(v, bytes_view(&b), false, &t, NULL));
    print_message("%.3f s\n", (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_int_equal(t.n, 1 << 18);
    assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
    tokens_release(&t);
    bytes_release(&b);
    vocab_free(v);
}

/* ---- threads -------------------------------------------------------------------- */

static void *encode_often(void *arg)
{
    const ds4_vocab *v = arg;
    size_t n = 0;
    for (int i = 0; i < 50; i++) {
        Tokens t = { 0 };
        if (bpe_encode(v, STR("the hello world, 123 中文 <think>"), i % 2, &t, NULL))
            n += t.n;
        tokens_release(&t);
    }
    return (void *)(uintptr_t)n;
}

static void threads_share_a_vocabulary(void **state)
{
    (void)state;
    ds4_vocab *v = vf_small_vocab(NULL);
    assert_non_null(v);
    pthread_t thread[4];
    void *n[4];
    for (size_t i = 0; i < COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, encode_often, v), 0);
    for (size_t i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], &n[i]);
    for (size_t i = 1; i < COUNT(thread); i++)
        assert_ptr_equal(n[i], n[0]);
    assert_non_null(n[0]);
    vocab_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_merge_follows_the_rule),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(repeated_words_give_what_one_word_gives),
        cmocka_unit_test(control_tokens_are_recognised_only_where_allowed),
        cmocka_unit_test(ids_are_appended),
        cmocka_unit_test(a_byte_without_token_is_named),
        cmocka_unit_test(a_megabyte_of_one_letter_is_one_piece_done_soon),
        cmocka_unit_test(threads_share_a_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
