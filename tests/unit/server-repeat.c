/* Loops are ended, and nothing else is. */
#include "../requests.h"
#include "../../src/base/rng.h"
#include "../../src/server/repeat.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- tokens --------------------------------------------------------------------------- */

/* The token after which a loop of this period is told, counted from the first of
 * the loop; 0: not within so many. before: other tokens before it. */
static int told_after(int period, int most, int before, enum RepeatPlace place, int *found)
{
    Repeat r = { 0 };
    for (int i = 0; i < before; i++)
        assert_int_equal(repeat_token(&r, 1000000 + i, place), 0);
    for (int i = 0; i < most; i++) {
        /* Tokens of a period all differ, so it has no shorter one. */
        *found = repeat_token(&r, (int32_t)(i % period), place);
        if (*found)
            return i + 1;
    }
    return 0;
}

static void a_span_in_prose_may_come_again_so_often(void **state)
{
    (void)state;
    static const int periods[] = { 1, 2, 3, 7, 100, 170, 171, 172, 500, 1000, 1023, 1024 };
    for (size_t i = 0; i < COUNT(periods); i++) {
        int p = periods[i], found, want = p + MAX(512, 3 * p);
        assert_int_equal(told_after(p, want, 0, REPEAT_PROSE, &found), want);
        assert_int_equal(found, p);
        assert_int_equal(told_after(p, want, 5000, REPEAT_PROSE, &found), want);
        assert_int_equal(found, p);
    }
}

static void a_value_may_repeat_much_more(void **state)
{
    (void)state;
    static const int periods[] = { 1, 10, 1000, 1024 };
    for (size_t i = 0; i < COUNT(periods); i++) {
        int p = periods[i], found, want = p + MAX(8192, 7 * p);
        assert_int_equal(told_after(p, want, 1, REPEAT_VALUE, &found), want);
        assert_int_equal(found, p);
    }
}

static void longer_spans_are_not_seen(void **state)
{
    (void)state;
    int found;
    assert_int_equal(told_after(1025, 20000, 0, REPEAT_PROSE, &found), 0);
}

static void one_other_token_begins_it_anew(void **state)
{
    (void)state;
    Repeat r = { 0 };
    for (int k = 0; k < 20; k++) {
        for (int i = 0; i < 512; i++)
            assert_int_equal(repeat_token(&r, 7, REPEAT_PROSE), 0);
        assert_int_equal(repeat_token(&r, 1000 + k * k, REPEAT_PROSE), 0);
    }
}

static void a_value_and_the_prose_after_it_are_looked_at_apart(void **state)
{
    (void)state;
    Repeat r = { 0 };
    for (int i = 0; i < 8192; i++)
        assert_int_equal(repeat_token(&r, 7, REPEAT_VALUE), 0);
    for (int i = 0; i < 512; i++)
        assert_int_equal(repeat_token(&r, 7, REPEAT_PROSE), 0);
    assert_int_equal(repeat_token(&r, 7, REPEAT_PROSE), 1);
}

/* What a slow program says, which compares everything with everything. */
static int period_by_definition(const int32_t *x, int n)
{
    for (int p = 1; p <= REPEAT_PERIOD && p < n; p++) {
        int run = 0;
        while (run + p < n && x[n - 1 - run] == x[n - 1 - run - p])
            run++;
        if (run >= MAX(REPEAT_PROSE_TOKENS, REPEAT_PROSE_TIMES * p))
            return p;
    }
    return 0;
}

static void it_says_what_the_definition_says(void **state)
{
    (void)state;
    enum { N = 9000 };
    static int32_t x[N];
    Repeat r = { 0 };
    uint64_t rng = 5;
    int loops = 0;
    for (int n = 0; n < N;) {
        /* A span from before again, some of its tokens exchanged now and then. */
        int period = 1 + (int)(rng_next(&rng) % 40), length = (int)(rng_next(&rng) % 1500);
        bool exact = rng_next(&rng) % 2;
        for (int i = 0; i < length && n < N; i++, n++) {
            bool other = n < period || (!exact && rng_next(&rng) % 300 == 0);
            x[n] = other ? (int32_t)(rng_next(&rng) % 50) : x[n - period];
            int want = period_by_definition(x, n + 1);
            assert_int_equal(repeat_token(&r, x[n], REPEAT_PROSE), want);
            loops += want > 0;
        }
    }
    assert_true(loops > 500 && loops < N / 2);
}

/* ---- calls of one answer ---------------------------------------------------------------- */

static void a_call_may_be_made_so_often_in_an_answer(void **state)
{
    (void)state;
    RepeatCalls r = { 0 };
    for (int i = 1; i < REPEAT_SAME_CALLS; i++) {
        char other[32];
        snprintf(other, sizeof other, "{\"n\": %d}", i);
        assert_false(repeat_call(&r, STR("f"),
                                 i & 1 ? STR("{\"a\": 1, \"b\": 2}") : STR("{\"b\":2.0,\"a\":1}")));
        assert_false(repeat_call(&r, STR("g"), STR("{\"a\": 1, \"b\": 2}")));
        assert_false(repeat_call(&r, STR("f"), str_of(other)));
    }
    assert_true(repeat_call(&r, STR("f"), STR("{\"a\": 1, \"b\": 2}")));
    assert_true(repeat_call(&r, STR("g"), STR("{\"a\": 1, \"b\": 2}")));
    assert_false(repeat_call(&r, STR("f"), STR("{\"n\": 1}")));
}

static void of_many_calls_the_last_ones_are_known(void **state)
{
    (void)state;
    RepeatCalls r = { 0 };
    char arguments[32];
    for (int i = 0; i < 10000; i++) {
        snprintf(arguments, sizeof arguments, "{\"n\": %d}", i % (REPEAT_CALLS_KEPT + 1));
        assert_false(repeat_call(&r, STR("f"), str_of(arguments)));
    }
    for (int i = 0; i < (REPEAT_SAME_CALLS - 1) * REPEAT_CALLS_KEPT; i++) {
        snprintf(arguments, sizeof arguments, "{\"m\": %d}", i % REPEAT_CALLS_KEPT);
        assert_false(repeat_call(&r, STR("f"), str_of(arguments)));
    }
    assert_true(repeat_call(&r, STR("f"), STR("{\"m\": 0}")));
}

/* ---- answer after answer ------------------------------------------------------------------ */

/* How one answer differs from the others. */
enum Odd { NONE, ARGUMENTS, RESULT, NAME, TWO_CALLS, TWO_RESULTS, USER_SPEAKS, REMINDER };

static void put_step(Bytes *b, int i, enum Odd odd)
{
    bytes_printf(b, ",{\"role\":\"assistant\",\"content\":\"step %d\",\"tool_calls\":[", i);
    for (int k = 0; k <= (odd == TWO_CALLS); k++)
        bytes_printf(b,
                     "%s{\"id\":\"c%d_%d\",\"type\":\"function\",\"function\":{\"name\":\"%s\","
                     "\"arguments\":\"%s\"}}",
                     k ? "," : "", i, k, odd == NAME ? "g" : "f",
                     odd == ARGUMENTS ? "{\\\"a\\\":2}"
                     : i % 2          ? "{\\\"a\\\":1,\\\"b\\\":2}"
                                      : "{ \\\"b\\\": 2, \\\"a\\\": 1.0}");
    bytes_str(b, "]}");
    for (int k = 0; k <= (odd == TWO_RESULTS); k++)
        bytes_printf(b, ",{\"role\":\"tool\",\"tool_call_id\":\"c%d_%d\",\"content\":\"%s\"}", i, k,
                     odd == RESULT ? "done" : "failed");
    if (odd == USER_SPEAKS)
        bytes_str(b, ",{\"role\":\"user\",\"content\":\"again\"}");
    if (odd == REMINDER)
        bytes_printf(b, ",{\"role\":\"system\",\"content\":\"it is %d o'clock\"}", i);
}

/* Of n answers, of which one, at places from the end, is odd; -1: none is. */
static bool loops(int n, int at, enum Odd odd)
{
    Bytes b = { 0 };
    Turn t;
    ApiError e;
    bytes_str(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}");
    for (int i = 0; i < n; i++)
        put_step(&b, i, n - 1 - i == at ? odd : NONE);
    bytes_str(&b, "]}");
    turn_init(&t, API_CHAT);
    if (!dialect_chat.parse(&t, json_read(bytes_view(&b), NULL), NULL, &test_server, &e))
        fail_msg("%s: %.*s", e.message, (int)b.n, b.p);
    Str name = repeat_turns(&t);
    assert_true(!name.n || str_eq(name, STR("f")));
    bool found = name.n > 0;
    turn_release(&t);
    bytes_release(&b);
    return found;
}

static void one_call_with_one_result_in_so_many_answers_is_a_loop(void **state)
{
    (void)state;
    assert_false(loops(0, -1, NONE));
    assert_false(loops(REPEAT_TURNS - 1, -1, NONE));
    assert_true(loops(REPEAT_TURNS, -1, NONE));
    assert_true(loops(40, -1, NONE));
    for (int at = 0; at < REPEAT_TURNS; at++) {
        for (enum Odd odd = ARGUMENTS; odd <= USER_SPEAKS; odd++)
            if (loops(20, at, odd))
                fail_msg("odd %d at %d", (int)odd, at);
        assert_true(loops(20, at, REMINDER));
    }
    for (enum Odd odd = ARGUMENTS; odd <= USER_SPEAKS; odd++)
        assert_true(loops(20, REPEAT_TURNS, odd));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_in_prose_may_come_again_so_often),
        cmocka_unit_test(a_value_may_repeat_much_more),
        cmocka_unit_test(longer_spans_are_not_seen),
        cmocka_unit_test(one_other_token_begins_it_anew),
        cmocka_unit_test(a_value_and_the_prose_after_it_are_looked_at_apart),
        cmocka_unit_test(it_says_what_the_definition_says),
        cmocka_unit_test(a_call_may_be_made_so_often_in_an_answer),
        cmocka_unit_test(of_many_calls_the_last_ones_are_known),
        cmocka_unit_test(one_call_with_one_result_in_so_many_answers_is_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
