/* The questions of the examination: their keys, their documents, their sets. */
#include "../../src/eval/questions.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_key_is_within_the_offered_schemas(void **state)
{
    (void)state;
    Exam q;
    size_t n, seen = 0;
    const Str *offered = questions_tools(&n);
    assert_true(questions_make(&q, 1, 0, NULL));
    for (size_t i = 0; i < q.n; i++) {
        const Key *k = &q.question[i].key;
        char why[GRADE_WHY];
        if (k->kind != GRADE_CALLS)
            continue;
        assert_true(q.question[i].tools && k->tools == offered && k->n_tools == n);
        if (!grade(k, &(Given){ STR("text"), k->calls, k->n_calls }, why))
            fail_msg("%s: %s", q.question[i].id, why);
        seen++;
    }
    assert_true(seen >= 10);
    questions_release(&q);
    for (size_t i = 0; i < n; i++) {
        Json *f = json_read(offered[i], NULL);
        Bytes b = { 0 };
        json_write(&b, f);
        assert_true(str_eq(bytes_view(&b), offered[i])); /* the form of prompts */
        bytes_release(&b);
        json_free(f);
    }
}

static void keys_of_arithmetic_are_what_the_questions_say(void **state)
{
    (void)state;
    for (uint64_t set = 1; set <= 50; set++) {
        Exam q;
        assert_true(questions_make(&q, set, 0, NULL));
        for (size_t i = 0; i < q.n; i++) {
            int a, b, c, n = 0;
            char op;
            const char *text = q.question[i].prompt.p;
            long want = strtol(q.question[i].key.want.p, NULL, 10);
            if (sscanf(text, "What is %d %c %d?%n", &a, &op, &b, &n) == 3 && n)
                assert_int_equal(want, op == '+' ? a + b : a - b);
            else if (sscanf(text, "What is %d times %d", &a, &b) == 2 ||
                     sscanf(text, "Compute %d * %d", &a, &b) == 2)
                assert_int_equal(want, a * b);
            else if (sscanf(text, "What is the remainder when %d is divided by %d", &a, &b) == 2)
                assert_int_equal(want, a % b);
            else if (sscanf(text, "What is %d percent of %d", &a, &b) == 2)
                assert_int_equal(want * 100, a * b);
            else if (sscanf(text, "What is %d + %d * %d", &a, &b, &c) == 3)
                assert_int_equal(want, a + b * c);
            else if (sscanf(text, "How many letters are in the word %n", &n) == 0 && n)
                assert_int_equal(want, strcspn(text + n, "?"));
        }
        questions_release(&q);
    }
}

static size_t words_of(void *user, Str text)
{
    size_t n = 0;
    (*(int *)user)++;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == ' ';
    return n;
}

static void a_document_has_its_length_and_one_answer_at_its_depth(void **state)
{
    (void)state;
    Exam q;
    int calls_made = 0, seen = 0;
    assert_true(questions_make(&q, 3, 4096, NULL));
    for (size_t i = 0; i < q.n; i++) {
        const ExamQuestion *k = &q.question[i];
        Bytes b = { 0 };
        if (k->suite != SUITE_RECALL)
            continue;
        assert_true(question_text(k, words_of, &calls_made, &b, NULL));
        int n = (int)words_of(&calls_made, bytes_view(&b));
        assert_in_range(n, k->tokens - 60, k->tokens);
        bytes_byte(&b, 0);
        const char *at = strstr(b.p, k->fact.p);
        assert_non_null(at);
        double depth = 100.0 * (double)(at - b.p) / (double)b.n;
        assert_true(depth > k->depth - 4 && depth < k->depth + 4);
        const char *number = strstr(b.p, k->key.want.p);
        assert_true(number > at && !strstr(number + 1, k->key.want.p));
        assert_null(strstr(at + 1, k->fact.p));
        assert_non_null(strstr(b.p, "The number of the red "));
        seen++;
        bytes_release(&b);
    }
    assert_int_equal(seen, 15);
    questions_release(&q);
}

static void a_set_is_the_same_every_time_and_another_is_another(void **state)
{
    (void)state;
    Exam a, b, c;
    size_t same = 0;
    assert_true(questions_make(&a, 1, 2048, NULL) && questions_make(&b, 1, 2048, NULL) &&
                questions_make(&c, 2, 2048, NULL));
    assert_int_equal(a.n, c.n);
    for (size_t i = 0; i < a.n; i++) {
        assert_true(str_eq(a.question[i].prompt, b.question[i].prompt));
        assert_string_equal(a.question[i].id, c.question[i].id);
        same += str_eq(a.question[i].prompt, c.question[i].prompt);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(a.question[i].id, a.question[k].id);
    }
    assert_true(same < a.n / 2 + 5);
    questions_release(&a);
    questions_release(&b);
    questions_release(&c);
}

static const char *found_in(Str text)
{
    static char id[QUESTION_ID];
    ds4_err err = { 0 };
    if (!questions_find(text, id, &err))
        fail_msg("%s", err.msg);
    return id;
}

/* The prompt within other text, each space being `space` there, and perhaps as JSON has it. */
static void put_prompt(Bytes *b, Str prompt, const char *space, bool json)
{
    bytes_str(b, "Once: ");
    for (size_t i = 0; i < prompt.n; i++) {
        if (json && prompt.p[i] == '"')
            bytes_byte(b, '\\');
        if (prompt.p[i] == ' ')
            bytes_str(b, space);
        else
            bytes_byte(b, (unsigned char)prompt.p[i]);
    }
    bytes_str(b, " And so on.");
}

static void questions_are_found_in_texts(void **state)
{
    (void)state;
    static const struct {
        const char *space;
        bool json;
    } ways[] = { { " ", false }, { "\n", false }, { "\r\n   ", false }, { " ", true } };
    Exam q;
    size_t quoted = 0;
    assert_true(questions_make(&q, 1, RECALL_LEAST, NULL));
    for (size_t i = 0; i < q.n; i++) {
        for (size_t k = 0; k < COUNT(ways); k++) {
            Bytes b = { 0 };
            put_prompt(&b, q.question[i].prompt, ways[k].space, ways[k].json);
            if (!found_in(bytes_view(&b))[0])
                fail_msg("%s is not found in: %.*s", q.question[i].id, (int)b.n, b.p);
            bytes_release(&b);
        }
        quoted += memchr(q.question[i].prompt.p, '"', q.question[i].prompt.n) != NULL;
    }
    assert_true(quoted > 0);
    questions_release(&q);
    assert_string_equal(found_in(STR("x\nStart a timer for 12 minutes. y")), "tool-5");
    assert_string_equal(found_in(STR("It rained on the harbor.")), "");
    assert_string_equal(found_in((Str){ 0 }), "");
}

/* Numbers and words are others in another set; what is left must be ours alone. */
static void questions_of_other_sets_are_found_where_they_are_ours(void **state)
{
    (void)state;
    static const struct {
        bool found;
        const char *text;
    } cases[] = {
        { true, "What is the remainder when 90001 is divided by 90002?" },
        { true,
          "A shelf has 901 rows of\n902 jars. 903 jars are taken away. How many jars are left?" },
        { true, "How many letters are in the word dolphin?" },
        { true, "The number of the golden somewhere is 90003." },
        { false, "How many letters are in the word parliament?" },
        { false, "What is 90001 + 90002?" },
        { false, "What is 901 times 902?" },
        { false, "What is the remainder when x is divided by y?" },
        { false, "What is the remainder when 90001 is divided" },
        { false, "The number of the golden Somewhere is 90003." },
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if ((found_in(str_of(cases[i].text))[0] != '\0') != cases[i].found)
            fail_msg("%s: %s", cases[i].found ? "not found" : "found", cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_within_the_offered_schemas),
        cmocka_unit_test(keys_of_arithmetic_are_what_the_questions_say),
        cmocka_unit_test(a_document_has_its_length_and_one_answer_at_its_depth),
        cmocka_unit_test(a_set_is_the_same_every_time_and_another_is_another),
        cmocka_unit_test(questions_are_found_in_texts),
        cmocka_unit_test(questions_of_other_sets_are_found_where_they_are_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
