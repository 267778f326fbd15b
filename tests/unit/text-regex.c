/* Regular expressions, automata, and the ranges of numbers: against an
 * independent matcher and arithmetic. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "../../src/text/numbers.h"
#include "../../src/text/regex.h"
#include "../../src/base/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <pcre2.h>

static Dfa compiled(const char *regex, bool search)
{
    Dfa d;
    ds4_err err = { 0 };
    if (!regex_compile(&d, str_of(regex), (RegexOptions){ .search = search }, NULL, &err))
        fail_msg("%s", err.msg);
    return d;
}

static bool pcre_takes(pcre2_code *code, Str s, bool whole)
{
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(code, NULL);
    int n = pcre2_match(code, (PCRE2_SPTR)s.p, s.n, 0,
                        whole ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0, m, NULL);
    pcre2_match_data_free(m);
    return n >= 0;
}

static pcre2_code *pcre_compiled(const char *regex)
{
    int error;
    size_t at;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)regex, strlen(regex),
                      PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALT_BSUX, &error, &at, NULL);
    if (!code)
        fail_msg("pcre2 refuses %s", regex);
    return code;
}

/* Every text of up to five of these characters. */
static void agrees_with_pcre(const char *regex)
{
    static const char *const chars[] = { "a", "b", "1", "-", "\n", "é", "😀" };
    pcre2_code *code = pcre_compiled(regex);
    for (int search = 0; search < 2; search++) {
        Dfa d = compiled(regex, search);
        for (int i = 0; i < 7 * 7 * 7 * 7 * 7; i++) {
            char text[32] = "";
            for (int k = i; k; k /= 7)
                strcat(text, chars[k % 7]);
            if (dfa_accepts(&d, str_of(text)) != pcre_takes(code, str_of(text), !search))
                fail_msg("/%s/ on \"%s\", %s", regex, text, search ? "anywhere" : "as a whole");
        }
        dfa_release(&d);
    }
    pcre2_code_free(code);
}

static void matches_are_those_of_an_independent_matcher(void **state)
{
    (void)state;
    static const char *const regexes[] = {
        "",
        "a",
        "ab|a",
        "a*b",
        "(a|b)*1",
        "[ab]+",
        "[^a]",
        "[^\\n\\r]*",
        "a{2}",
        "a{2,}",
        "(?:ab){1,2}",
        "a?b?1?",
        "^a",
        "a$",
        "^a$",
        "^$",
        "a|^b|1$",
        "(^a|b)1",
        "\\d+",
        "\\w+-",
        "\\S",
        "\\s",
        "[\\s\\S]{2}",
        "é",
        "[à-ü]",
        "😀+",
        "[^é]{2}",
        "a+?b",
        "(a*)*b",
        "(|a)+",
        "a{0}b",
        "x{,2}",
        "[a-b-]",
        "\\x61\\u0062",
        "(a|ab)(1|b1)",
        "[\\d-]+",
        "a{0,3}b$",
        "(a(b(1)?)?)?-",
        "[ab]{1,3}",
        "^a[b1]{0,2}$",
        "^[ab]{2,3}",
        "a|^[ab]{1,2}$",
        "^a*[ab]{0,2}$",
    };
    for (size_t i = 0; i < COUNT(regexes); i++)
        agrees_with_pcre(regexes[i]);
}

static void what_is_not_regular_is_refused(void **state)
{
    (void)state;
    static const char *const regexes[] = {
        "(?=a)",       "(?!a)",
        "(?<=a)",      "a\\b",
        "(a)\\1",      "\\p{L}",
        "(a",          "a)",
        "[a",          "a**",
        "*a",          "[b-a]",
        "a{3,2}",      "\\",
        "[[:alpha:]]", "\xff",
        "(?>a)",       "((((((((((a{99}){99}){99}){99}){99}){99}){99}){99}){99}){99}",
        "a{99999}",    "(a|b)*a[ab]{20}",
        "\\u{110000}", "\\ud800",
    };
    for (size_t i = 0; i < COUNT(regexes); i++) {
        Dfa d;
        ds4_err err = { 0 };
        if (regex_compile(&d, str_of(regexes[i]), (RegexOptions){ .search = true }, NULL, &err))
            fail_msg("accepted: %s", regexes[i]);
        assert_int_equal(err.code, DS4_EINVAL);
        assert_true(strlen(err.msg) > 0);
    }
}

static void groups_nest_only_so_deep(void **state)
{
    (void)state;
    char deep[20001];
    Dfa d;
    memset(deep, '(', 10000);
    memset(deep + 10000, ')', 10000);
    assert_false(regex_compile(&d, (Str){ deep, 20000 }, (RegexOptions){ 0 }, NULL, NULL));
}

static void automata_can_be_cut_with_one_another(void **state)
{
    (void)state;
    Dfa a = compiled("[ab]*", false), b = compiled("[^a]*b?", false), words, out;
    const Str list[] = { STR("b"), STR("bbb"), STR("ab") };
    assert_true(dfa_and(&out, &a, &b, NULL, NULL));
    assert_true(dfa_accepts(&out, STR("bbbb")));
    assert_false(dfa_accepts(&out, STR("bab")));
    assert_false(dfa_accepts(&out, STR("1")));
    dfa_release(&out);
    assert_true(dfa_words(&words, list, COUNT(list), NULL, NULL));
    assert_true(dfa_except(&out, &a, &words, NULL, NULL));
    assert_false(dfa_accepts(&out, STR("b")));
    assert_true(dfa_accepts(&out, STR("bb")));
    assert_false(dfa_accepts(&out, STR("bbb")));
    assert_true(dfa_accepts(&out, STR("aba")));
    dfa_release(&out);
    assert_true(dfa_except(&out, &a, &a, NULL, NULL));
    assert_true(dfa_empty(&out));
    dfa_release(&out);
    dfa_release(&a);
    dfa_release(&b);
    dfa_release(&words);
}

static void a_word_can_be_forbidden(void **state)
{
    (void)state;
    static const char word[] = "aabaa";
    Dfa d;
    assert_true(dfa_without(&d, str_of(word), NULL, NULL));
    for (int i = 0; i < 1 << 12; i++) {
        char text[16] = "";
        for (int k = 0; k < 11; k++)
            strcat(text, i >> k & 1 ? "a" : "b");
        assert_int_equal(dfa_accepts(&d, str_of(text)), strstr(text, word) == NULL);
    }
    dfa_release(&d);
}

static void strings_in_json_have_the_spelling_of_json(void **state)
{
    (void)state;
    Dfa d = compiled("[^b]*", false), json;
    assert_true(dfa_json(&json, &d, NULL, NULL));
    assert_true(dfa_accepts(&json, STR("a\\n\\\"\\\\\\u0001é/")));
    assert_false(dfa_accepts(&json, STR("ab")));
    assert_false(dfa_accepts(&json, STR("\"")));
    assert_false(dfa_accepts(&json, STR("\n")));
    assert_false(dfa_accepts(&json, STR("\\u000a")));
    assert_false(dfa_accepts(&json, STR("\\")));
    dfa_release(&d);
    dfa_release(&json);
}

/* ---- numbers ------------------------------------------------------------------------- */

static Bound bound(const char *text, bool exclusive)
{
    Bound b = { 0 };
    assert_true(!*text || bound_read(&b, str_of(text)));
    b.exclusive = exclusive;
    return b;
}

static bool inside(const Bound *lo, const Bound *hi, double x)
{
    return (!lo->set || (lo->exclusive ? x > lo->value : x >= lo->value)) &&
           (!hi->set || (hi->exclusive ? x < hi->value : x <= hi->value));
}

static const char *const bounds[] = { "",     "0",     "1",   "-1",    "10",    "99",  "-37",
                                      "1234", "-1200", "3.5", "-0.25", "0.001", "1e2", "-12.75" };

static void check_numbers(Bound lo, Bound hi)
{
    static const char *const values[] = {
        "0",      "1",      "-1",     "9",      "10",   "11",    "98",     "99",
        "100",    "-36",    "-37",    "-38",    "1233", "1234",  "1235",   "-1199",
        "-1200",  "-1201",  "3",      "4",      "3.5",  "3.49",  "3.51",   "3.50",
        "-0.2",   "-0.25",  "-0.251", "-0.249", "0.01", "0.001", "0.0010", "0.0009",
        "0.0011", "-12.75", "-12.8",  "-12.7",  "-13",  "-12",   "100.0",  "1.0",
    };
    Dfa whole, real;
    assert_true(integers_between(&whole, &lo, &hi, 0, NULL, NULL) &&
                reals_between(&real, &lo, &hi, NULL, NULL));
    for (size_t i = 0; i < COUNT(values); i++) {
        bool in = inside(&lo, &hi, atof(values[i]));
        if (dfa_accepts(&real, str_of(values[i])) != in ||
            dfa_accepts(&whole, str_of(values[i])) != (in && !strchr(values[i], '.')))
            fail_msg("%s between %g%s and %g%s", values[i], lo.set ? lo.value : -1e99,
                     lo.exclusive ? " (not itself)" : "", hi.set ? hi.value : 1e99,
                     hi.exclusive ? " (not itself)" : "");
    }
    dfa_release(&whole);
    dfa_release(&real);
}

static void numbers_lie_within_their_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bounds); i++) {
        for (size_t k = 0; k < COUNT(bounds); k++)
            check_numbers(bound(bounds[i], (i + k) % 2), bound(bounds[k], (i + k) % 3 == 0));
    }
}

static void integers_have_64_bits(void **state)
{
    (void)state;
    Bound none = { 0 };
    Dfa d;
    assert_true(integers_between(&d, &none, &none, 0, NULL, NULL));
    assert_true(dfa_accepts(&d, STR("18446744073709551615")));
    assert_false(dfa_accepts(&d, STR("18446744073709551616")));
    assert_true(dfa_accepts(&d, STR("-9223372036854775808")));
    assert_false(dfa_accepts(&d, STR("-9223372036854775809")));
    assert_false(dfa_accepts(&d, STR("007")));
    assert_false(dfa_accepts(&d, STR("-0")));
    assert_false(dfa_accepts(&d, STR("")));
    dfa_release(&d);
}

static void every_small_range_is_exact(void **state)
{
    (void)state;
    for (int lo = -12; lo < 130; lo += 7) {
        for (int hi = lo; hi < 135; hi += 11) {
            char a[16], b[16];
            snprintf(a, sizeof a, "%d", lo);
            snprintf(b, sizeof b, "%d", hi);
            Bound from = bound(a, false), to = bound(b, false);
            Dfa d;
            assert_true(integers_between(&d, &from, &to, 3, NULL, NULL));
            for (int x = -20; x < 150; x++) {
                snprintf(a, sizeof a, "%d", x);
                assert_int_equal(dfa_accepts(&d, str_of(a)), x >= lo && x <= hi && x % 3 == 0);
            }
            dfa_release(&d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_are_those_of_an_independent_matcher),
        cmocka_unit_test(what_is_not_regular_is_refused),
        cmocka_unit_test(groups_nest_only_so_deep),
        cmocka_unit_test(automata_can_be_cut_with_one_another),
        cmocka_unit_test(a_word_can_be_forbidden),
        cmocka_unit_test(strings_in_json_have_the_spelling_of_json),
        cmocka_unit_test(numbers_lie_within_their_bounds),
        cmocka_unit_test(integers_have_64_bits),
        cmocka_unit_test(every_small_range_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
