/* The pre-tokenizer: the pieces of chosen texts, and the class of every
 * character of Unicode 16, whatever the library knows. */
#include "../../src/base/file.h"
#include "../../src/base/rng.h"
#include "../../src/text/split.h"
#include "../../src/base/utf8.h"
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static Splitter *splitter;

static bool put_piece(void *user, Str s)
{
    Bytes *out = user;
    if (out->n)
        bytes_byte(out, '|');
    bytes_put(out, s.p, s.n);
    return true;
}

static void pieces_are(Str text, const char *want)
{
    Bytes got = { 0 };
    ds4_err err;
    assert_true(split_text(splitter, text, put_piece, &got, &err));
    bytes_byte(&got, 0);
    assert_string_equal(got.p, want);
    bytes_release(&got);
}

static void pieces_of_chosen_texts(void **state)
{
    (void)state;
    pieces_are(STR("Hello world"), "Hello| world");
    pieces_are(STR("a  1"), "a|  |1");
    pieces_are(STR("a  b"), "a| | b");
    pieces_are(STR("a  中b"), "a|  |中|b");
    pieces_are(STR("1234567"), "123|456|7");
    pieces_are(STR("カタカナ・テスト"), "カタカナ|・|テスト");
    pieces_are(STR("x = .foo();\n\n\n  y"), "x| =| .|foo|();\n\n\n| | y");
    pieces_are(STR("a \n \t\n  b"), "a| \n \t\n| | b");
    pieces_are(STR("e\xcc\x81"), "e\xcc\x81");
    pieces_are(STR("don't"), "don|'t");
    pieces_are(STR("½Ⅷ①²3"), "½Ⅷ①|²3");
    pieces_are(STR("\x01\x02 \x03"), "\x01\x02| |\x03");
    pieces_are(STR("a\xe1\xa0\x8e"
                   "b"),
               "a|\xe1\xa0\x8e"
               "b"); /* U+180E is no white space */
    pieces_are(STR(""), "");
}

static void stray_bytes_have_no_class(void **state)
{
    (void)state;
    pieces_are(STR("a\xff"
                   "b"),
               "a|\xff"
               "b");
    pieces_are(STR("  \xff\xfe  "), " | |\xff\xfe|  ");
    pieces_are(STR("12\xff"
                   "34"),
               "12|\xff|34");
    pieces_are(STR("\n\xff\n"), "\n|\xff|\n");
    pieces_are(STR("\xe4\xb8\xad\xe4\xb8"), "\xe4\xb8\xad|\xe4\xb8");
    pieces_are(STR("\xed\xa0\x80"), "\xed\xa0\x80");
}

/* ---- classes ------------------------------------------------------------------- */

#define POINTS 0x110000
enum { OTHER, NUMBER, LETTER, MARK, PUNCTUATION, SYMBOL, WHITE };

static unsigned char *read_classes(void)
{
    static const char *const names[] = { NULL, "N", "L", "M", "P", "S", "White_Space" };
    Bytes b = { 0 };
    unsigned char *class = calloc(POINTS, 1);
    assert_true(class && file_read(&b, "tests/data/tokenizer/unicode_classes.json", 1 << 20, NULL));
    bytes_byte(&b, 0);
    struct json_object *root = json_tokener_parse(b.p), *list;
    for (int k = NUMBER; k <= WHITE; k++) {
        assert_true(json_object_object_get_ex(root, names[k], &list));
        for (size_t i = 0; i < json_object_array_length(list); i++) {
            struct json_object *range = json_object_array_get_idx(list, i);
            int last = json_object_get_int(json_object_array_get_idx(range, 1));
            for (int c = json_object_get_int(json_object_array_get_idx(range, 0)); c <= last; c++)
                class[c] = (unsigned char)k;
        }
    }
    json_object_put(root);
    bytes_release(&b);
    return class;
}

static size_t put_char(Bytes *b, unsigned c)
{
    size_t before = b->n;
    if (c < 0x80) {
        bytes_byte(b, (unsigned char)c);
    } else if (c < 0x800) {
        bytes_byte(b, (unsigned char)(0xc0 | c >> 6));
    } else if (c < 0x10000) {
        bytes_byte(b, (unsigned char)(0xe0 | c >> 12));
        bytes_byte(b, (unsigned char)(0x80 | (c >> 6 & 63)));
    } else {
        bytes_byte(b, (unsigned char)(0xf0 | c >> 18));
        bytes_byte(b, (unsigned char)(0x80 | (c >> 12 & 63)));
        bytes_byte(b, (unsigned char)(0x80 | (c >> 6 & 63)));
    }
    if (c >= 0x80)
        bytes_byte(b, (unsigned char)(0x80 | (c & 63)));
    return b->n - before;
}

typedef struct {
    const char *text;
    unsigned char *cut; /* [bytes] a piece begins here */
} Cuts;

static bool note_cut(void *user, Str s)
{
    Cuts *c = user;
    c->cut[s.p - c->text] = 1;
    return true;
}

static bool isolated(unsigned c)
{
    return (c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff);
}

/* Each character between a's and before a digit and a newline tells its class
 * by where the text is cut: "a c a c 1 c \n". */
static int told_class(const unsigned char *cut, size_t n)
{
    bool first = cut[1], second = cut[1 + n], digit = cut[2 + 2 * n], newline = cut[3 + 3 * n];
    if (!first && !second)
        return LETTER;
    if (!digit)
        return NUMBER;
    if (first && second)
        return PUNCTUATION;
    return newline ? OTHER : WHITE;
}

static int same_to_the_splitter(int class)
{
    return class == MARK ? LETTER : class == SYMBOL ? PUNCTUATION : class;
}

static void check_range(const unsigned char *class, unsigned from, unsigned to, int *wrong)
{
    Bytes b = { 0 };
    for (unsigned c = from; c < to; c++) {
        bytes_byte(&b, 'a');
        put_char(&b, c);
        bytes_byte(&b, 'a');
        put_char(&b, c);
        bytes_byte(&b, '1');
        put_char(&b, c);
        bytes_byte(&b, '\n');
    }
    Cuts cuts = { b.p, calloc(b.n + 1, 1) };
    assert_true(split_text(splitter, bytes_view(&b), note_cut, &cuts, NULL));
    size_t at = 0;
    for (unsigned c = from; c < to; c++) {
        Bytes one = { 0 };
        size_t n = put_char(&one, c);
        int told = told_class(cuts.cut + at, n);
        if (told != same_to_the_splitter(class[c]) && (*wrong)++ < 20)
            print_error("U+%04X is of class %d, taken for %d\n", c, class[c], told);
        at += 4 + 3 * n;
        bytes_release(&one);
    }
    free(cuts.cut);
    bytes_release(&b);
}

static void every_character_has_its_class_of_unicode_16(void **state)
{
    (void)state;
    unsigned char *class = read_classes();
    int wrong = 0;
    for (unsigned c = 0x80, end; c < POINTS; c = end) {
        for (end = c + 1;
             end < POINTS && end < c + 0x1000 && !isolated(end) && !(end >= 0xd800 && end < 0xe000);
             end++)
            ;
        if (!isolated(c) && !(c >= 0xd800 && c < 0xe000))
            check_range(class, c, end, &wrong);
    }
    free(class);
    assert_int_equal(wrong, 0);
}

/* ---- laws ------------------------------------------------------------------------ */

typedef struct {
    const char *next;
    size_t left;
} Walk;

static bool follow(void *user, Str s)
{
    Walk *w = user;
    bool ok = s.p == w->next && s.n > 0 && s.n <= w->left;
    w->next += s.n;
    w->left -= s.n;
    return ok;
}

static void pieces_cover_any_bytes_in_order(void **state)
{
    (void)state;
    static const char *const parts[] = { "a",  "é",        "中",   " ",        "\n",
                                         "1",  ".",        "\xff", "\xe4\xb8", "\xf0\x9f\x98\x80",
                                         "\r", "\xcc\x81", "",     "\x01" };
    uint64_t rng = 11;
    for (int round = 0; round < 3000; round++) {
        Bytes b = { 0 };
        for (uint64_t n = rng_next(&rng) % 30; n > 0; n--) {
            bytes_str(&b, parts[rng_next(&rng) % COUNT(parts)]);
            if (rng_next(&rng) % 4 == 0)
                bytes_byte(&b, (unsigned char)rng_next(&rng));
        }
        Walk w = { b.p, b.n };
        assert_true(split_text(splitter, bytes_view(&b), follow, &w, NULL));
        assert_int_equal(w.left, 0);
        bytes_release(&b);
    }
}

static bool stop_at_third(void *user, Str s)
{
    (void)s;
    return ++*(int *)user < 3;
}

static void the_caller_can_stop(void **state)
{
    (void)state;
    int n = 0;
    assert_false(split_text(splitter, STR("a b c d e f"), stop_at_third, &n, NULL));
    assert_int_equal(n, 3);
}

static void well_formed_is_what_unicode_says(void **state)
{
    (void)state;
    for (unsigned c = 0; c < POINTS; c += c < 0x3000 ? 1 : 61) {
        Bytes b = { 0 };
        int n = (int)put_char(&b, c);
        bool surrogate = c >= 0xd800 && c < 0xe000;
        assert_int_equal(utf8_char(b.p, b.n), surrogate ? 0 : n);
        if (n > 1)
            assert_int_equal(utf8_char(b.p, b.n - 1), 0);
        bytes_release(&b);
    }
    static const char *const bad[] = { "\x80",
                                       "\xc0\xaf",
                                       "\xc1\xbf",
                                       "\xe0\x9f\xbf",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf4\x90\x80\x80",
                                       "\xf8\x88\x80\x80\x80",
                                       "\xfe" };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(utf8_char(bad[i], strlen(bad[i])), 0);
    assert_int_equal(utf8_valid(STR("0123456789é\xff")), 12);
}

int main(void)
{
    splitter = split_new(NULL);
    if (!splitter)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_chosen_texts),
        cmocka_unit_test(stray_bytes_have_no_class),
        cmocka_unit_test(every_character_has_its_class_of_unicode_16),
        cmocka_unit_test(pieces_cover_any_bytes_in_order),
        cmocka_unit_test(the_caller_can_stop),
        cmocka_unit_test(well_formed_is_what_unicode_says),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    split_free(splitter);
    return failed;
}
