/* Reference continuations: both forms, what is written is read, and each mistake is named. */
#include "../../src/eval/vectors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void reads(Vectors *v, const char *text)
{
    ds4_err err = { 0 };
    if (!vectors_read(v, str_of(text), "v", &err))
        fail_msg("%s", err.msg);
}

static void fails(const char *text, const char *why)
{
    Vectors v;
    ds4_err err = { 0 };
    if (vectors_read(&v, str_of(text), "v", &err))
        fail_msg("was read: %s", text);
    assert_int_equal(err.code, DS4_EFORMAT);
    if (!strstr(err.msg, why))
        fail_msg("'%s' does not say '%s'", err.msg, why);
    assert_null(v.cases);
}

static void is(Str a, const char *b) { assert_true(str_eq(a, str_of(b))); }

static void json_lines_are_read_in_every_form_of_prompt(void **state)
{
    (void)state;
    Vectors v;
    reads(&v, "# a comment\n\n"
              "{\"ds4_vectors\":1,\"model\":\"m-0731\"}\r\n"
              "{\"id\":\"a\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
              "{\"role\":\"user\",\"content\":\"u\"}],\"think\":true,"
              "\"tokens\":[{\"token\":\"416A\",\"logprob\":-0.5,\"top\":[[\"416a\",-0.5],[7,-2]]},"
              "{\"token\":12}]}\n"
              "{\"prompt\":\"p\",\"continuation\":\"c\"}\n"
              "{\"prompt_ids\":[0,5],\"continuation\":\"d\"}");
    assert_int_equal(v.n, 3);
    is(v.model, "m-0731");
    const VectorCase *c = v.cases;
    is(c->id, "a");
    assert_int_equal(c->n_messages, 2);
    assert_int_equal(c->messages[1].role, CHAT_USER);
    is(c->messages[1].content, "u");
    assert_true(c->think);
    assert_int_equal(c->n_steps, 2);
    is(c->step[0].token.bytes, "Aj");
    assert_true(c->step[0].token.logprob == -0.5);
    assert_int_equal(c->step[0].n_top, 2);
    is(c->step[0].top[0].bytes, "Aj");
    assert_int_equal(c->step[0].top[1].id, 7);
    assert_int_equal(c->step[1].token.id, 12);
    assert_true(isnan(c->step[1].token.logprob));
    is(v.cases[1].id, "2");
    is(v.cases[1].prompt, "p");
    is(v.cases[1].continuation, "c");
    assert_int_equal(v.cases[2].n_ids, 2);
    assert_int_equal(v.cases[2].ids[1], 5);
    vectors_release(&v);
}

static void official_vectors_are_read(void **state)
{
    (void)state;
    Vectors v;
    reads(&v,
          "# of an API\ncase short 4096 2 prompts/short.txt\nstep 0 416461 2\ntop 416461 0\n"
          "top 20 -9999\nstep 1 4c 1\ntop 4d -0.25\nend\n\ncase b 1 1 b.txt\nstep 0 0a 0\nend\n");
    assert_int_equal(v.n, 2);
    is(v.model, "");
    const VectorCase *c = v.cases;
    is(c->id, "short");
    is(c->prompt_file, "prompts/short.txt");
    assert_int_equal(c->n_steps, 2);
    is(c->step[0].token.bytes, "Ada");
    assert_true(c->step[0].token.logprob == 0);
    assert_true(c->step[0].top[1].logprob == -9999);
    assert_true(isnan(c->step[1].token.logprob));
    is(v.cases[1].step[0].token.bytes, "\n");
    vectors_release(&v);
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    Bytes b = { 0 };
    const int32_t ids[] = { 0, 17 };
    const Likely top[] = { { 3, -0.125 }, { 9, -2.7182818284 } };
    vectors_put_header(&b, STR("a \"b\""));
    vectors_begin_case(&b, STR("x\ny"), ids, 2);
    vectors_put_step(&b, true, 9, -2.7182818284, top, 2);
    vectors_put_step(&b, false, 3, 1e-12, top, 0);
    vectors_end_case(&b);
    bytes_byte(&b, 0);
    Vectors v;
    reads(&v, b.p);
    is(v.model, "a \"b\"");
    is(v.cases[0].id, "x\ny");
    assert_int_equal(v.cases[0].ids[1], 17);
    assert_int_equal(v.cases[0].n_steps, 2);
    assert_int_equal(v.cases[0].step[0].top[1].id, 9);
    assert_true(fabs(v.cases[0].step[0].top[1].logprob + 2.7182818284) < 1e-8);
    assert_true(v.cases[0].step[1].token.logprob == 0);
    vectors_release(&v);
    bytes_release(&b);
}

static void each_mistake_is_named_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } wrong[] = {
        { "", "no case" },
        { "{\"ds4_vectors\":1}\n", "no case" },
        { "{\"ds4_vectors\":2}\n", "line 1: vectors of another version" },
        { "{\"prompt\":\"p\",\"continuation\":\"c\"}\n{\"ds4_vectors\":1}",
          "line 2: a header behind" },
        { "{\"ds4_vectors\":1}\n{\"ds4_vectors\":1}", "line 2: a second header" },
        { "{\"ds4_vectors\":1,\"model\":5}\n", "line 1: model must be a text" },
        { "{\"id\":7,\"prompt\":\"p\",\"continuation\":\"c\"}", "id must be a text" },
        { "{\"id\":\"\",\"prompt\":\"p\",\"continuation\":\"c\"}", "id must be a text" },
        { "{\"think\":\"yes\",\"prompt\":\"p\",\"continuation\":\"c\"}", "think must be true" },
        { "{\"think\":1,\"prompt\":\"p\",\"continuation\":\"c\"}", "think must be true" },
        { "{\"prompt\":\"p\"", "line 1: " },
        { "{\"prompt\":\"p\"}", "one of tokens and continuation" },
        { "{\"prompt\":\"p\",\"continuation\":\"\"}", "not empty" },
        { "{\"prompt\":\"p\",\"prompt_ids\":[1],\"continuation\":\"c\"}", "one of messages" },
        { "{\"continuation\":\"c\"}", "one of messages" },
        { "{\"prompt\":1,\"continuation\":\"c\"}", "prompt must be a text" },
        { "{\"prompt_ids\":[-1],\"continuation\":\"c\"}", "prompt_ids[0]" },
        { "{\"messages\":[{\"role\":\"tool\",\"content\":\"c\"}],\"continuation\":\"c\"}", "role" },
        { "{\"messages\":[{\"role\":\"user\"}],\"continuation\":\"c\"}", "content" },
        { "{\"prompt\":\"p\",\"tokens\":[]}", "at least one" },
        { "{\"prompt\":\"p\",\"tokens\":[1]}", "objects" },
        { "{\"prompt\":\"p\",\"tokens\":[{\"token\":\"4\"}]}", "hexadecimal" },
        { "{\"prompt\":\"p\",\"tokens\":[{\"token\":\"4x\"}]}", "hexadecimal" },
        { "{\"prompt\":\"p\",\"tokens\":[{\"token\":1,\"logprob\":0.5}]}", "at most 0" },
        { "{\"prompt\":\"p\",\"tokens\":[{\"token\":1,\"top\":[[1]]}]}", "top[0]" },
        { "{\"prompt\":\"p\",\"tokens\":[{\"token\":1,\"top\":[[1,\"x\"]]}]}", "logprob" },
        { "[1]\n", "begins no line" },
        { "case a 1 1\n", "a case has a name" },
        { "case a x 1 f\n", "the context must be" },
        { "case a 1 99999999 f\n", "the number of steps" },
        { "case a 1 1 f\ncase b 1 1 f\n", "line 2: a case within a case" },
        { "step 0 41 0\n", "outside a case" },
        { "case a 1 2 f\nstep 1 41 0\n", "line 2: step 1 where step 0" },
        { "case a 1 1 f\nstep 0 41 1\nend\n", "line 3: 0 tops where 1" },
        { "case a 1 1 f\nstep 0 41 0\ntop 41 0\n", "more tops" },
        { "case a 1 1 f\nstep 0 4 0\n", "hexadecimal" },
        { "case a 1 1 f\nstep 0 41 1\ntop 41 much\n", "no logprob" },
        { "case a 1 2 f\nstep 0 41 0\nend\n", "1 steps where 2" },
        { "case a 1 1 f\nstep 0 41 0\n", "ends within a case" },
        { "end\n", "without a case" },
        { "case a 1 1 f\nstep 0 41 0\nstop\n", "'stop' begins no line" },
    };
    for (size_t i = 0; i < COUNT(wrong); i++)
        fails(wrong[i].text, wrong[i].why);
}

static void models_are_the_same_by_their_names(void **state)
{
    (void)state;
    assert_true(vectors_same_model(STR("DeepSeek-V4-Flash-0731"), STR("deepseek v4 flash 0731")));
    assert_true(vectors_same_model(STR("deepseek-v4-flash"), STR("DeepSeek-V4-Flash-0731 q2")));
    assert_true(vectors_same_model(STR(""), STR("x")));
    assert_false(vectors_same_model(STR("deepseek-v4-flash-0731"), STR("ds4-tiny")));
    assert_false(vectors_same_model(STR("flash-0731"), STR("flash-preview")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_lines_are_read_in_every_form_of_prompt),
        cmocka_unit_test(official_vectors_are_read),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(each_mistake_is_named_with_its_line),
        cmocka_unit_test(models_are_the_same_by_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
