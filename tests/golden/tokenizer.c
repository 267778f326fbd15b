/* The tokenizer against the ids that the reference implementation gives with
 * V4's vocabulary. Run tools/fetch_tokenizer first; without it, what needs the
 * vocabulary is skipped. */
#include "../v4_vocab.h"
#include "../../src/base/rng.h"
#include "../../src/text/bpe.h"
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <cmocka.h>

#define DATA "tests/data/tokenizer/"

static ds4_vocab *v4;
static double load_seconds;

static ds4_vocab *need_v4(void)
{
    if (!v4) {
        print_message("SKIPPED: %s is missing; run tools/fetch_tokenizer\n", V4_WORDS);
        skip();
    }
    return v4;
}

static struct json_object *read_json(const char *path)
{
    Bytes b = { 0 };
    ds4_err err;
    if (!file_read(&b, path, 16 << 20, &err))
        fail_msg("%s", err.msg);
    bytes_byte(&b, 0);
    struct json_object *o = json_tokener_parse(b.p);
    assert_non_null(o);
    bytes_release(&b);
    return o;
}

static Tokens encode_with(const ds4_vocab *v, Str text, bool special)
{
    Tokens t = { 0 };
    ds4_err err;
    if (!bpe_encode(v, text, special, &t, &err))
        fail_msg("%.*s: %s", STR_ARG(text), err.msg);
    return t;
}

static Tokens encode(Str text, bool special) { return encode_with(v4, text, special); }

/* Prints what differs; 1 when something does. */
static int compare_with(const ds4_vocab *v, Str text, bool special, struct json_object *want)
{
    Tokens t = encode_with(v, text, special);
    size_t n = json_object_array_length(want), i = 0;
    while (i < n && i < t.n && t.id[i] == json_object_get_int(json_object_array_get_idx(want, i)))
        i++;
    bool differs = i < n || i < t.n;
    if (differs)
        print_error("\"%.*s\": %zu ids, expected %zu; token %zu is %d, expected %d\n",
                    STR_ARG(text), t.n, n, i, i < t.n ? t.id[i] : -1,
                    i < n ? json_object_get_int(json_object_array_get_idx(want, i)) : -1);
    Bytes back = { 0 };
    for (i = 0; i < t.n; i++)
        bytes_put(&back, vocab_bytes(v, t.id[i]).p, vocab_bytes(v, t.id[i]).n);
    assert_true(str_eq(bytes_view(&back), text));
    bytes_release(&back);
    tokens_release(&t);
    return differs;
}

static int compare(Str text, bool special, struct json_object *want)
{
    return compare_with(v4, text, special, want);
}

static void golden_texts_have_the_reference_ids(void **state)
{
    (void)state;
    need_v4();
    struct json_object *all = read_json(DATA "golden.json");
    int wrong = 0;
    size_t n = json_object_array_length(all);
    for (size_t i = 0; i < n; i++) {
        struct json_object *e = json_object_array_get_idx(all, i);
        wrong += compare(json_text(json_object_object_get(e, "text")),
                         json_object_get_boolean(json_object_object_get(e, "parse_special")),
                         json_object_object_get(e, "ids"));
    }
    print_message("%zu texts\n", n);
    json_object_put(all);
    assert_true(n > 200);
    assert_int_equal(wrong, 0);
}

static void fuzzed_texts_have_the_reference_ids(void **state)
{
    (void)state;
    need_v4();
    Bytes file = { 0 };
    ds4_err err;
    if (!file_read(&file, DATA "fuzz.jsonl", 1 << 20, &err))
        fail_msg("%s", err.msg);
    int wrong = 0, n = 0;
    for (char *line = file.p, *end; (end = memchr(line, '\n', file.n - (size_t)(line - file.p)));
         line = end + 1, n++) {
        *end = 0;
        struct json_object *e = json_tokener_parse(line), *plain;
        assert_non_null(e);
        Str text = json_text(json_object_object_get(e, "text"));
        struct json_object *ids = json_object_object_get(e, "ids");
        wrong += compare(text, true, ids);
        plain = json_object_object_get(e, "ids_no_special");
        wrong += compare(text, false, plain ? plain : ids);
        json_object_put(e);
    }
    bytes_release(&file);
    print_message("%d texts, with and without control tokens\n", n);
    assert_true(n > 1000);
    assert_int_equal(wrong, 0);
}

static void stray_bytes_have_the_ids_of_our_policy(void **state)
{
    (void)state;
    need_v4();
    struct json_object *all = read_json(DATA "invalid_utf8.json");
    int wrong = 0;
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        struct json_object *e = json_object_array_get_idx(all, i);
        const char *hex = json_object_get_string(json_object_object_get(e, "bytes_hex"));
        char text[64];
        size_t n = 0;
        for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1 && n < sizeof text; n++)
            text[n] = (char)byte;
        assert_int_equal(n, strlen(hex) / 2);
        wrong += compare((Str){ text, n }, true, json_object_object_get(e, "ids"));
    }
    json_object_put(all);
    assert_int_equal(wrong, 0);
}

/* Prompts of the bundled model, with the ids that its trainer's own tokenizer
 * gave them. */
static void the_bundled_vocabulary_reads_its_prompts(void **state)
{
    (void)state;
    ds4_err err;
    Map map;
    Gguf g;
    if (!map_open(&map, "models/ds4-tiny.gguf", &err) || !gguf_parse(&g, map.p, map.n, &err))
        fail_msg("%s", err.msg);
    ds4_vocab *tiny = vocab_load(&g, &err);
    if (!tiny)
        fail_msg("%s", err.msg);
    struct json_object *all = read_json(DATA "tiny.json");
    int wrong = 0;
    size_t n = json_object_array_length(all);
    for (size_t i = 0; i < n; i++) {
        struct json_object *e = json_object_array_get_idx(all, i);
        wrong += compare_with(tiny, json_text(json_object_object_get(e, "text")), true,
                              json_object_object_get(e, "ids"));
    }
    json_object_put(all);
    vocab_free(tiny);
    gguf_release(&g);
    map_close(&map);
    assert_int_equal(n, 8);
    assert_int_equal(wrong, 0);
}

/* ---- pieces ----------------------------------------------------------------- */

typedef struct {
    struct json_object *want;
    size_t n;
    int wrong;
} PieceCheck;

static bool check_piece(void *user, Str s)
{
    PieceCheck *c = user;
    struct json_object *want = json_object_array_get_idx(c->want, c->n++);
    c->wrong += !want || !str_eq(json_text(want), s);
    return true;
}

static void pieces_are_the_reference_pieces(void **state)
{
    (void)state;
    ds4_err err;
    Splitter *s = split_new(&err);
    assert_non_null(s);
    struct json_object *all = read_json(DATA "pieces.json");
    int wrong = 0;
    size_t n = json_object_array_length(all);
    for (size_t i = 0; i < n; i++) {
        struct json_object *e = json_object_array_get_idx(all, i);
        Str text = json_text(json_object_object_get(e, "text"));
        PieceCheck c = { json_object_object_get(e, "pieces"), 0, 0 };
        assert_true(split_text(s, text, check_piece, &c, &err));
        if (c.wrong || c.n != json_object_array_length(c.want)) {
            print_error("pieces of \"%.*s\" differ\n", STR_ARG(text));
            wrong++;
        }
    }
    json_object_put(all);
    split_free(s);
    assert_true(n > 200);
    assert_int_equal(wrong, 0);
}

/* ---- speed, in seconds of CPU, printed; the bounds leave room for slow machines ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 20
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOWER 20
#endif
#endif
#ifndef SLOWER
#define SLOWER 1
#endif
#define LONG_TEXT ((1 << 20) / SLOWER)

static void time_encode(const char *what, Str text, double most)
{
    clock_t start = clock();
    Tokens t = encode(text, false);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("%s: %zu bytes, %zu tokens, %.3f s\n", what, text.n, t.n, seconds);
    tokens_release(&t);
    assert_true(seconds < most);
}

static void the_vocabulary_loads_at_once(void **state)
{
    (void)state;
    need_v4();
    print_message("%d tokens loaded in %.3f s\n", vocab_size(v4), load_seconds);
    assert_true(load_seconds < 0.6 * SLOWER);
}

static void a_megabyte_of_mixed_text_is_tokenized_at_once(void **state)
{
    (void)state;
    need_v4();
    struct json_object *all = read_json(DATA "golden.json");
    Bytes text = { 0 };
    uint64_t rng = 1;
    while (text.n < LONG_TEXT) {
        struct json_object *e =
            json_object_array_get_idx(all, rng_next(&rng) % json_object_array_length(all));
        Str s = json_text(json_object_object_get(e, "text"));
        bytes_put(&text, s.p, s.n);
    }
    time_encode("mixed text", bytes_view(&text), 1.5);
    bytes_clear(&text);
    Bytes source = { 0 };
    static const char *const files[] = { "src/text/vocab.c", "src/text/bpe.c", "include/ds4.h" };
    for (size_t i = 0; i < COUNT(files); i++)
        assert_true(file_read(&source, files[i], 1 << 20, NULL));
    while (text.n < LONG_TEXT)
        bytes_put(&text, source.p, source.n);
    time_encode("C source", bytes_view(&text), 1.5);
    bytes_release(&source);
    bytes_release(&text);
    json_object_put(all);
}

static void long_words_take_no_longer(void **state)
{
    (void)state;
    need_v4();
    Bytes b = { 0 };
    bytes_fill(&b, 'a', LONG_TEXT);
    time_encode("a", bytes_view(&b), 3);
    memset(b.p, '=', b.n);
    time_encode("=", bytes_view(&b), 3);
    memset(b.p, ' ', b.n);
    time_encode("blanks", bytes_view(&b), 3);
    memset(b.p, '\n', b.n);
    time_encode("newlines", bytes_view(&b), 3);
    memset(b.p, '7', b.n);
    time_encode("digits", bytes_view(&b), 3);
    memset(b.p, 1, b.n);
    time_encode("control characters", bytes_view(&b), 3);
    memset(b.p, 0xff, b.n);
    time_encode("stray bytes", bytes_view(&b), 3);
    uint64_t rng = 3;
    for (size_t i = 0; i < b.n; i++)
        b.p[i] = (char)('a' + rng_next(&rng) % 26);
    time_encode("random letters", bytes_view(&b), 3);
    for (size_t i = 0; i < b.n; i++)
        b.p[i] = (char)rng_next(&rng);
    time_encode("random bytes", bytes_view(&b), 3);
    bytes_release(&b);
}

int main(void)
{
    ds4_err err;
    v4 = v4_vocab(&load_seconds, &err);
    if (!v4 && err.code != DS4_EIO)
        print_error("%s\n", err.msg);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_texts_have_the_reference_ids),
        cmocka_unit_test(fuzzed_texts_have_the_reference_ids),
        cmocka_unit_test(stray_bytes_have_the_ids_of_our_policy),
        cmocka_unit_test(the_bundled_vocabulary_reads_its_prompts),
        cmocka_unit_test(pieces_are_the_reference_pieces),
        cmocka_unit_test(the_vocabulary_loads_at_once),
        cmocka_unit_test(a_megabyte_of_mixed_text_is_tokenized_at_once),
        cmocka_unit_test(long_words_take_no_longer),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(v4);
    return failed;
}
