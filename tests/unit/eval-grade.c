/* The graders, with answers that are right, nearly right, and wrong. */
#include "../../src/eval/grade.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* Whether it is right. reason: what is said if not, NULL: anything. */
static bool graded(const Key *key, const Given *given, const char *reason)
{
    char why[GRADE_WHY];
    bool ok = grade(key, given, why);
    if (reason && !strstr(why, reason))
        fail_msg("'%s' does not say '%s'", why, reason);
    assert_true(ok == !why[0]);
    return ok;
}

static bool says(enum GradeKind kind, const char *want, const char *text)
{
    const Key key = { .kind = kind, .want = str_of(want) };
    return graded(&key, &(Given){ .text = str_of(text) }, NULL);
}

static void the_last_number_counts(void **state)
{
    (void)state;
    static const char *const right[] = { "42",          "42.",    "The answer is **42**.",
                                         "40 + 2 = 42", "$42.00", "\\boxed{42}",
                                         "It is 42!\n", "x=42",   "042" };
    static const char *const wrong[] = { "",    "forty-two", "-42",  "420",
                                         "4.2", "42 of 43",  "42.5", "4 2" };
    for (size_t i = 0; i < COUNT(right); i++)
        if (!says(GRADE_NUMBER, "42", right[i]))
            fail_msg("wrong: %s", right[i]);
    for (size_t i = 0; i < COUNT(wrong); i++)
        if (says(GRADE_NUMBER, "42", wrong[i]))
            fail_msg("right: %s", wrong[i]);
    assert_true(says(GRADE_NUMBER, "12345", "12,345 coins"));
    assert_true(says(GRADE_NUMBER, "1234567", "1,234,567"));
    assert_true(says(GRADE_NUMBER, "-7", "It is -7."));
    assert_false(says(GRADE_NUMBER, "-7", "10-7"));
    assert_true(says(GRADE_NUMBER, "7", "10-7"));
    assert_true(says(GRADE_NUMBER, "0.5", "0.50"));
}

static void a_text_ends_with_the_answer_as_whole_words(void **state)
{
    (void)state;
    assert_true(says(GRADE_TEXT, "retnal", "retnal"));
    assert_true(says(GRADE_TEXT, "retnal", " \"Retnal\".\n"));
    assert_true(says(GRADE_TEXT, "retnal", "The reversed word is **retnal**."));
    assert_false(says(GRADE_TEXT, "retnal", "retnal is the word"));
    assert_false(says(GRADE_TEXT, "nal", "retnal"));
    assert_false(says(GRADE_TEXT, "retnal", ""));
    assert_true(says(GRADE_TEXT, "a, b, c", "Sorted: a, b, c"));
    assert_false(says(GRADE_TEXT, "a, b, c", "a b c"));
    assert_true(says(GRADE_EXACT, "OVEN", "In capitals: OVEN"));
    assert_false(says(GRADE_EXACT, "OVEN", "In capitals: Oven"));
}

static bool keeps(Rule rule, const char *text)
{
    const Rule rules[] = { rule, { 0 } };
    const Key key = { .kind = GRADE_RULES, .rules = rules };
    return graded(&key, &(Given){ .text = str_of(text) }, NULL);
}

static void forms_are_checked(void **state)
{
    (void)state;
    assert_true(keeps((Rule){ RULE_WORDS, 3, NULL }, " one two\nthree "));
    assert_false(keeps((Rule){ RULE_WORDS, 3, NULL }, "one two"));
    assert_false(keeps((Rule){ RULE_WORDS, 1, NULL }, ""));
    assert_true(keeps((Rule){ RULE_MOST_WORDS, 2, NULL }, "one two"));
    assert_false(keeps((Rule){ RULE_MOST_WORDS, 2, NULL }, "one two three"));
    assert_false(keeps((Rule){ RULE_MOST_WORDS, 2, NULL }, ""));
    assert_true(keeps((Rule){ RULE_LINES, 2, NULL }, "a\n\nb\n"));
    assert_false(keeps((Rule){ RULE_LINES, 2, NULL }, "a\nb\nc"));
    assert_true(keeps((Rule){ RULE_EACH_LINE, 0, "- " }, "- a\n- b"));
    assert_false(keeps((Rule){ RULE_EACH_LINE, 0, "- " }, "- a\nb"));
    assert_true(keeps((Rule){ RULE_BEGINS, 0, "In short" }, "In short, yes"));
    assert_false(keeps((Rule){ RULE_BEGINS, 0, "In short" }, "Well. In short"));
    assert_true(keeps((Rule){ RULE_ENDS, 0, "Done." }, "It is so. Done.\n"));
    assert_false(keeps((Rule){ RULE_ENDS, 0, "Done." }, "Done. Bye"));
    assert_true(keeps((Rule){ RULE_HAS, 0, "spain" }, "in Spain!"));
    assert_false(keeps((Rule){ RULE_HAS_NOT, 0, "cat" }, "a Category"));
    assert_false(keeps((Rule){ RULE_HAS_NOT, 0, "cat" }, ""));
    assert_true(keeps((Rule){ RULE_LOWER, 0, NULL }, "the sea, 7"));
    assert_false(keeps((Rule){ RULE_LOWER, 0, NULL }, "The sea"));
    assert_false(keeps((Rule){ RULE_LOWER, 0, NULL }, "7"));
    assert_true(keeps((Rule){ RULE_UPPER, 0, NULL }, "HELLO!"));
    assert_false(keeps((Rule){ RULE_UPPER, 0, NULL }, "HELLo!"));
    assert_true(keeps((Rule){ RULE_JSON, 0, "a,b" }, " {\"b\": 1, \"a\": \"x\"}\n"));
    assert_false(keeps((Rule){ RULE_JSON, 0, "a,b" }, "{\"a\": 1}"));
    assert_false(keeps((Rule){ RULE_JSON, 0, "a,b" }, "{\"a\":1,\"b\":2,\"c\":3}"));
    assert_false(keeps((Rule){ RULE_JSON, 0, "a,b" }, "```json\n{\"a\":1,\"b\":2}\n```"));
}

/* ---- calls ------------------------------------------------------------------------------ */

static const Str tools[] = {
    { "{\"name\": \"ticket\", \"parameters\": {\"type\": \"object\", \"properties\": {\"title\": "
      "{\"type\": \"string\"}, \"priority\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": "
      "5}, "
      "\"urgent\": {\"type\": \"boolean\"}, \"to\": {\"type\": \"array\", \"items\": {\"type\": "
      "\"string\"}}, \"state\": {\"type\": \"string\", \"enum\": [\"on\", \"off\"]}}, "
      "\"required\": "
      "[\"title\"]}}",
      0 },
    { "{\"name\": \"timer\", \"parameters\": {\"type\": \"object\", \"properties\": {\"minutes\": "
      "{\"type\": \"number\"}}, \"required\": [\"minutes\"]}}",
      0 },
};

static bool calls(const GradeCall *want, size_t n_want, const GradeCall *said, size_t n_said,
                  const char *text, const char *reason)
{
    Str offered[2] = { str_of(tools[0].p), str_of(tools[1].p) };
    Key key = { .kind = GRADE_CALLS, .n_calls = n_want, .tools = offered, .n_tools = 2 };
    for (size_t i = 0; i < n_want; i++)
        key.calls[i] = want[i];
    return graded(&key, &(Given){ str_of(text), said, n_said }, reason);
}

static GradeCall call(const char *name, const char *arguments)
{
    return (GradeCall){ str_of(name), str_of(arguments) };
}

static void a_call_is_right_by_tool_schema_and_arguments(void **state)
{
    (void)state;
    const GradeCall want =
        call("ticket", "{\"title\": \"door\", \"priority\": 2, \"to\": [\"a\", \"b\"]}");
    static const struct {
        const char *name, *arguments, *why;
    } said[] = {
        { "ticket", "{\"priority\":2,\"to\":[\"A\",\"b\"],\"title\":\" Door \"}", NULL },
        { "ticket", "{\"priority\":2.0,\"to\":[\"a\",\"b\"],\"title\":\"door\"}", NULL },
        { "tikcet", "{\"title\":\"door\"}", "no tool tikcet" },
        { "\033[2J\n\x7f", "{\"title\":\"door\"}", "no tool ?[2J??" },
        { "timer", "{\"minutes\":2}", "timer was called, not ticket" },
        { "ticket", "{\"priority\":2}", "title is missing" },
        { "ticket", "{\"title\":\"door\",", "no JSON" },
        { "ticket", "[]", "no object" },
        { "ticket", "{\"title\":\"door\",\"priority\":\"2\"}", "priority is not within" },
        { "ticket", "{\"title\":\"door\",\"priority\":2.5}", "priority is not within" },
        { "ticket", "{\"title\":\"door\",\"priority\":9}", "priority is not within" },
        { "ticket", "{\"title\":\"door\",\"state\":\"dim\"}", "state is not within" },
        { "ticket", "{\"title\":\"door\",\"to\":[1]}", "to is not within" },
        { "ticket", "{\"title\":\"door\",\"urgent\":\"true\"}", "urgent is not within" },
        { "ticket", "{\"title\":\"door\",\"color\":\"red\"}", "color is no parameter" },
        { "ticket", "{\"title\":\"door\",\"priority\":3,\"to\":[\"a\",\"b\"]}", "priority is 3" },
        { "ticket", "{\"title\":\"door\",\"priority\":2}", "to is missing" },
        { "ticket", "{\"title\":\"door\",\"priority\":2,\"to\":[\"b\",\"a\"]}", "to is" },
        { "ticket", "{\"title\":\"door\",\"priority\":2,\"to\":[\"a\",\"b\"],\"urgent\":true}",
          "urgent was not asked for" },
    };
    for (size_t i = 0; i < COUNT(said); i++) {
        const GradeCall one = call(said[i].name, said[i].arguments);
        if (calls(&want, 1, &one, 1, "", said[i].why) != !said[i].why)
            fail_msg("graded wrongly: %s", said[i].arguments);
    }
    assert_false(calls(&want, 1, NULL, 0, "It is done.", "0 calls, not 1"));
}

static void several_calls_come_in_any_order_and_none_may_be_right(void **state)
{
    (void)state;
    const GradeCall want[] = { call("timer", "{\"minutes\":5}"), call("timer", "{\"minutes\":7}") };
    const GradeCall turned[] = { want[1], want[0] }, twice[] = { want[0], want[0] };
    assert_true(calls(want, 2, want, 2, "", NULL));
    assert_true(calls(want, 2, turned, 2, "", NULL));
    assert_false(calls(want, 2, twice, 2, "", "minutes is 5"));
    assert_false(calls(twice, 2, want, 2, "", "minutes is 7"));
    assert_true(calls(twice, 2, twice, 2, "", NULL));
    assert_false(calls(want, 2, want, 1, "", "1 calls, not 2"));
    assert_true(calls(NULL, 0, NULL, 0, "Hello!", NULL));
    assert_false(calls(NULL, 0, NULL, 0, "", "nothing was said"));
    assert_false(calls(NULL, 0, want, 1, "", "1 calls, not 0"));
    const Key number = { .kind = GRADE_NUMBER, .want = STR("5") };
    assert_false(graded(&number, &(Given){ STR("5"), want, 1 }, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_number_counts),
        cmocka_unit_test(a_text_ends_with_the_answer_as_whole_words),
        cmocka_unit_test(forms_are_checked),
        cmocka_unit_test(a_call_is_right_by_tool_schema_and_arguments),
        cmocka_unit_test(several_calls_come_in_any_order_and_none_may_be_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
