/* What --device play:FILE promises: a file's answers, token by token, through
 * the same calls that a real device answers. */
#include "../../src/engine/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/ds4-tiny.gguf"
#define USER  "<｜User｜>"
#define EOS   "<｜end▁of▁sentence｜>"

/* An engine on a play, whose file lives as long. */
typedef struct {
    char path[32], device[48];
    ds4_engine *engine;
    ds4_session *s[2];
} Stage;

static void write_script(Stage *g, const char *script)
{
    strcpy(g->path, "/tmp/ds4-play-XXXXXX");
    const int fd = mkstemp(g->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, script, strlen(script)), strlen(script));
    close(fd);
    snprintf(g->device, sizeof g->device, "play:%s", g->path);
}

static Stage stage(const char *script)
{
    Stage g = { 0 };
    ds4_err err;

    write_script(&g, script);
    g.engine = ds4_engine_open(
        &(ds4_options){ .model = MODEL, .device = g.device, .context = 1024, .sessions = 2 }, &err);
    if (!g.engine)
        fail_msg("%s", err.msg);
    for (int i = 0; i < 2; i++)
        g.s[i] = ds4_session_open(g.engine, &err);
    return g;
}

static void leave(Stage *g)
{
    ds4_engine_close(g->engine);
    unlink(g->path);
}

static int encode(const Stage *g, const char *text, int32_t *out, int cap)
{
    const size_t n = ds4_encode(ds4_engine_vocab(g->engine), text, strlen(text), true, out, cap);
    assert_true(n <= (size_t)cap);
    return (int)n;
}

static int32_t token(const Stage *g, const char *text)
{
    int32_t t;
    assert_int_equal(encode(g, text, &t, 1), 1);
    return t;
}

static void prompt(const Stage *g, int s, const char *text)
{
    int32_t t[500];
    ds4_err err;

    if (!ds4_session_feed(g->s[s], t, encode(g, text, t, COUNT(t)), &err))
        fail_msg("%s", err.msg);
}

static int32_t greedy(const ds4_session *s) { return ds4_sample(s, &(ds4_sampling){ 0 }); }

static void feed(ds4_session *s, int32_t t) { assert_true(ds4_session_feed(s, &t, 1, NULL)); }

static void append(const Stage *g, char *out, size_t cap, int32_t t)
{
    size_t n;
    const char *p = ds4_token_bytes(ds4_engine_vocab(g->engine), t, &n);
    assert_true(strlen(out) + n < cap);
    strncat(out, p, n);
}

/* All that the session says before the end-of-sentence, which is not fed. */
static const char *answer(const Stage *g, int s)
{
    static char out[2][1000];
    const int32_t eos = token(g, EOS);

    out[s][0] = '\0';
    for (int32_t t; (t = greedy(g->s[s])) != eos;) {
        append(g, out[s], sizeof out[s], t);
        feed(g->s[s], t);
    }
    return out[s];
}

#define FRANCE \
    "{\"rules\": [" \
    "{\"last\": [\"France\"], \"say\": \"It is Paris.\"}," \
    "{\"last\": [\"Italy\"], \"say\": \"Rome, by the Tiber.\"}]}"

static void two_sessions_in_one_step_say_what_they_are_given(void **state)
{
    Stage g = stage(FRANCE);
    const int32_t eos = token(&g, EOS);
    char said[2][100] = { "", "" };

    (void)state;
    prompt(&g, 0, USER "The capital of France?");
    prompt(&g, 1, USER "And that of Italy?");
    for (int i = 0; i < 30; i++) {
        const int32_t t[2] = { greedy(g.s[0]), greedy(g.s[1]) };
        const ds4_work work[2] = { { g.s[0], &t[0], 1, 1 }, { g.s[1], &t[1], 1, 1 } };
        for (int k = 0; k < 2; k++)
            if (t[k] != eos)
                append(&g, said[k], sizeof said[k], t[k]);
        assert_true(ds4_step(g.engine, work, 2, NULL));
    }
    assert_string_equal(said[0], "It is Paris.");
    assert_string_equal(said[1], "Rome, by the Tiber.");
    assert_int_equal(greedy(g.s[0]), eos); /* what is used up goes on ending */
    leave(&g);
}

static void a_token_is_certain_and_all_others_alike(void **state)
{
    Stage g = stage(FRANCE);
    const int vocab = ds4_engine_info(g.engine).vocab;
    uint64_t rng = 1;

    (void)state;
    prompt(&g, 0, USER "France");
    const int32_t it = greedy(g.s[0]);
    for (int i = 0; i < vocab; i++)
        assert_true(ds4_logits(g.s[0])[i] == (i == it ? 40 : 0));
    for (int i = 0; i < 50; i++)
        assert_int_equal(ds4_sample(g.s[0], &(ds4_sampling){ .temperature = 1, .rng = &rng }), it);
    leave(&g);
}

static void a_new_prompt_begins_a_new_turn(void **state)
{
    Stage g = stage(FRANCE);

    (void)state;
    prompt(&g, 0, USER "France");
    assert_string_equal(answer(&g, 0), "It is Paris.");
    prompt(&g, 0, EOS USER "Italy?");
    assert_string_equal(answer(&g, 0), "Rome, by the Tiber.");
    prompt(&g, 0, EOS USER "France again");
    feed(g.s[0], greedy(g.s[0])); /* in the middle of the answer */
    prompt(&g, 0, USER "no, Italy");
    assert_string_equal(answer(&g, 0), "Rome, by the Tiber.");
    leave(&g);
}

/* A prompt of n tokens that ends with the text, a token a step. */
static void trickle(const Stage *g, int s, int n, const char *text)
{
    int32_t t[200];
    const int own = encode(g, text, t, COUNT(t));

    for (int i = own - n; i < own; i++) {
        const int32_t next = i < 0 ? token(g, USER) : t[i];
        assert_true(ds4_step(g->engine, &(ds4_work){ g->s[s], &next, 1, i == own - 1 }, 1, NULL));
    }
}

static void going_back_forgets_what_was_being_said(void **state)
{
    Stage g = stage(FRANCE);

    (void)state;
    prompt(&g, 0, USER "The capital of France?");
    feed(g.s[0], greedy(g.s[0]));
    const int stands = ds4_session_length(g.s[0]); /* there the answer goes on */
    assert_int_equal(ds4_session_rewind(g.s[0], 1), 0);
    trickle(&g, 0, stands + 1, USER "Italy"); /* whose last token is there */
    assert_string_equal(answer(&g, 0), "Rome, by the Tiber.");
    leave(&g);
}

static void a_row_among_others_begins_a_new_turn(void **state)
{
    Stage g = stage(FRANCE);

    (void)state;
    prompt(&g, 0, USER "France");
    const int32_t first = greedy(g.s[0]), two[] = { first, first };
    assert_true(ds4_step(g.engine, &(ds4_work){ g.s[0], two, 2, 2 }, 1, NULL));
    assert_true(ds4_step_logits(g.engine, 0, 0)[first] == 40);
    assert_true(ds4_step_logits(g.engine, 0, 1)[first] == 40);
    leave(&g);
}

static void a_closed_session_leaves_nothing_to_its_slot(void **state)
{
    Stage g = stage(FRANCE);

    (void)state;
    prompt(&g, 0, USER "France");
    feed(g.s[0], greedy(g.s[0]));
    ds4_session_close(g.s[0]);
    g.s[0] = ds4_session_open(g.engine, NULL);
    prompt(&g, 0, USER);
    assert_string_equal(answer(&g, 0), "[play: no rule matches]");
    leave(&g);
}

static void the_first_rule_that_matches_wins(void **state)
{
    Stage g = stage("{\"rules\": ["
                    "{\"when\": [\"first\", \"second\"], \"say\": \"both\"},"
                    "{\"when\": [\"first\"], \"not\": [\"never\", \"nor\"], \"say\": \"one\"},"
                    "{\"last\": [\"second\", \"third\"], \"say\": \"last\"},"
                    "{\"last\": [\"<think>\"], \"say\": \"hm</think>thought\"},"
                    "{\"when\": [\"\xc3\xbc\"], \"say\": \"\\u00fc!\"}]}");
    static const struct {
        const char *prompt, *answer;
    } claims[] = {
        { "first " USER "second", "both" },
        { "first " USER "nothing", "one" },
        { "never first " USER "nothing", "one" },
        { "first " USER "never", "[play: no rule matches]" },
        { "first " USER "nor", "[play: no rule matches]" },
        { "second " USER "third", "[play: no rule matches]" },
        { USER "second " USER "third second", "last" },
        { "second third", "last" }, /* without a user all of it is the last turn */
        { USER "so<think>", "hm</think>thought" },
        { USER "f\xc3\xbcr", "\xc3\xbc!" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(claims); i++) {
        ds4_session_rewind(g.s[0], 0);
        prompt(&g, 0, claims[i].prompt);
        assert_string_equal(answer(&g, 0), claims[i].answer);
    }
    leave(&g);
}

static void control_tokens_of_an_answer_are_tokens(void **state)
{
    Stage g = stage("{\"rules\": [{\"say\": \"a</think>b\"}]}");

    (void)state;
    prompt(&g, 0, USER);
    feed(g.s[0], greedy(g.s[0]));
    assert_int_equal(greedy(g.s[0]), token(&g, "</think>"));
    leave(&g);
}

/* After which bytes of the answer tokens end, as digits: "1 3 5 ". */
static const char *token_ends(const Stage *g, int s)
{
    static char out[200];
    size_t at = 0, n;

    out[0] = '\0';
    for (int32_t t; (t = greedy(g->s[s])) != token(g, EOS);) {
        ds4_token_bytes(ds4_engine_vocab(g->engine), t, &n);
        at += n;
        snprintf(out + strlen(out), sizeof out - strlen(out), "%zu ", at);
        feed(g->s[s], t);
    }
    return out;
}

/* "</think>" is one token, of 8 bytes. */
static void an_answer_is_cut_wherever_the_script_says(void **state)
{
#define SAY "\"say\": \" to the\\u00e9</think> to the\""
    static const struct {
        const char *script, *ends;
    } claims[] = {
        { "{\"rules\": [{" SAY "}]}", "3 7 8 9 17 20 24 " },
        { "{\"cut\": 0, \"rules\": [{" SAY "}]}", "3 7 8 9 17 20 24 " },
        { "{\"cut\": 4, \"rules\": [{" SAY "}]}", "3 4 7 8 9 17 20 21 24 " },
        { "{\"cut\": 8, \"rules\": [{" SAY ", \"cut\": 0}]}", "3 7 8 9 17 20 24 " },
        { "{\"cut\": 8, \"rules\": [{" SAY ", \"cut\": 1}]}",
          "1 2 3 4 5 6 7 8 9 17 18 19 20 21 22 23 24 " },
        { "{\"cut\": 99, \"rules\": [{" SAY "}]}", "3 7 8 9 17 20 24 " },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(claims); i++) {
        Stage g = stage(claims[i].script);
        prompt(&g, 0, USER);
        assert_string_equal(token_ends(&g, 0), claims[i].ends);
        prompt(&g, 1, USER);
        assert_string_equal(answer(&g, 1), " to the\xc3\xa9</think> to the");
        leave(&g);
    }
#undef SAY
}

static void a_rule_is_used_so_often(void **state)
{
    Stage g =
        stage("{\"rules\": [{\"times\": 2, \"say\": \"yes\"}, {\"times\": 1, \"say\": \"hm\"},"
              "{\"times\": 0, \"say\": \"no\"}]}");
    static const char *const says[] = { "yes", "yes", "hm", "no", "no" };

    (void)state;
    for (size_t i = 0; i < COUNT(says); i++) {
        prompt(&g, i % 2, USER "again?");
        assert_string_equal(answer(&g, i % 2), says[i]);
    }
    leave(&g);
}

static void a_forced_token_is_followed_where_the_script_has_it(void **state)
{
    Stage g = stage("{\"rules\": [{\"say\": \"a b a b</think> c d\"}]}");

    (void)state;
    prompt(&g, 0, USER);
    feed(g.s[0], greedy(g.s[0])); /* "a" */
    feed(g.s[0], token(&g, "</think>"));
    assert_string_equal(answer(&g, 0), " c d");
    prompt(&g, 0, EOS USER);
    feed(g.s[0], token(&g, " b")); /* instead of "a": the first of the two */
    assert_string_equal(answer(&g, 0), " a b</think> c d");
    prompt(&g, 0, EOS USER);
    feed(g.s[0], token(&g, "<think>")); /* nowhere: it stands for "a" */
    assert_string_equal(answer(&g, 0), " b a b</think> c d");
    leave(&g);
}

/* Cancels the step that is running when its logits are there. */
static struct Ops late_ops;
static const struct Ops *played_ops;
static ds4_engine *late_engine;

static bool cancel_late(Backend *be, ds4_err *err)
{
    ds4_cancel(late_engine);
    return played_ops->end(be, err);
}

static void a_step_that_was_canceled_can_be_done_again(void **state)
{
    Stage g = stage(FRANCE);
    ds4_err err;

    (void)state;
    late_engine = g.engine;
    played_ops = g.engine->be->op;
    late_ops = *played_ops;
    late_ops.end = cancel_late;
    prompt(&g, 0, USER "France");
    feed(g.s[0], greedy(g.s[0]));
    const int32_t second = greedy(g.s[0]);
    for (int i = 0; i < 2; i++) {
        g.engine->be->op = &late_ops;
        assert_false(ds4_session_feed(g.s[0], &second, 1, &err));
        assert_int_equal(err.code, DS4_ECANCELED);
        g.engine->be->op = played_ops;
        assert_null(ds4_logits(g.s[0]));
    }
    feed(g.s[0], second);
    assert_string_equal(answer(&g, 0), " Paris.");
    leave(&g);
}

static double seconds_of(const Stage *g, const ds4_work *w, int n)
{
    const int64_t start = clock_ns();
    assert_true(ds4_step(g->engine, w, n, NULL));
    return (double)(clock_ns() - start) * 1e-9;
}

/* Lower bounds only: a machine may be busy. */
static void steps_take_the_time_of_the_speeds(void **state)
{
    Stage g = stage("{\"prefill_tps\": 2000, \"decode_tps\": 20, \"rules\": []}");
    int32_t t[200];

    (void)state;
    for (size_t i = 0; i < COUNT(t); i++)
        t[i] = token(&g, USER);
    assert_true(seconds_of(&g, &(ds4_work){ g.s[0], t, 200, 1 }, 1) >= 0.099);
    assert_true(seconds_of(&g, &(ds4_work){ g.s[0], t, 1, 1 }, 1) >= 0.049);
    const ds4_work mixed[] = { { g.s[0], t, 1, 1 }, { g.s[1], t, 100, 0 } };
    assert_true(seconds_of(&g, mixed, 2) >= 0.099);
    leave(&g);
}

static void wrong_scripts_are_refused(void **state)
{
    static const struct {
        const char *script, *says;
    } wrong[] = {
        { "{\"rules\": [}", ": the text is no JSON: " },
        { "[]", ": the document must be an object" },
        { "{\"rule\": []}", ": unknown member rule" },
        { "{\"rules\": {}}", ": rules must be an array of rules" },
        { "{\"rules\": null}", ": rules must be an array of rules" },
        { "{\"prefill_tps\": -1}", ": prefill_tps must be a number of at least 0" },
        { "{\"decode_tps\": \"5\"}", ": decode_tps must be a number of at least 0" },
        { "{\"rules\": [5]}", ": rules[0] must be an object" },
        { "{\"rules\": [{\"say\": \"a\"}, {\"when\": []}]}", ": rules[1].say is missing" },
        { "{\"rules\": [{\"say\": 5}]}", ": rules[0].say must be a text" },
        { "{\"rules\": [{\"say\": \"a\", \"wen\": []}]}", ": unknown member rules[0].wen" },
        { "{\"rules\": [{\"say\": \"a\", \"when\": \"x\"}]}",
          ": rules[0].when must be an array of texts" },
        { "{\"rules\": [{\"say\": \"a\", \"last\": [\"x\", 1]}]}",
          ": rules[0].last must be an array of texts" },
        { "{\"rules\": [{\"say\": \"a\", \"not\": [null]}]}",
          ": rules[0].not must be an array of texts" },
        { "{\"rules\": [{\"say\": \"a\", \"times\": 1.5}]}",
          ": rules[0].times must be a whole number" },
        { "{\"rules\": [{\"say\": \"a\", \"times\": -1}]}",
          ": rules[0].times must be a whole number" },
        { "{\"cut\": -1}", ": cut must be a whole number" },
        { "{\"rules\": [{\"say\": \"a\", \"cut\": \"1\"}]}",
          ": rules[0].cut must be a whole number" },
    };
    ds4_err err;

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        Stage g = { 0 };
        char says[200];
        write_script(&g, wrong[i].script);
        snprintf(says, sizeof says, "%s%s", g.path, wrong[i].says);
        assert_null(ds4_engine_open(&(ds4_options){ .model = MODEL, .device = g.device }, &err));
        assert_int_equal(err.code, DS4_EINVAL);
        if (strncmp(err.msg, says, strlen(says)) != 0)
            fail_msg("'%s' does not begin with '%s'", err.msg, says);
        unlink(g.path);
    }
    assert_null(ds4_engine_open(
        &(ds4_options){ .model = MODEL, .device = "play:/no/such/file.json" }, &err));
    assert_int_equal(err.code, DS4_EIO);
    assert_non_null(strstr(err.msg, "/no/such/file.json"));
}

static void it_can_be_timed_and_planned(void **state)
{
    Stage g = { 0 };
    char device[64];
    ds4_plan plan;
    ds4_err err;
    int n;

    (void)state;
    write_script(&g, "{}");
    snprintf(device, sizeof device, "timed:%s", g.device);
    const ds4_options opt = { .model = MODEL, .device = device };
    assert_true(ds4_plan_make(&plan, &opt, &err));
    g.engine = ds4_engine_open(&opt, &err);
    assert_non_null(g.engine);
    assert_non_null(strstr(ds4_engine_describe(g.engine), "timed play:/tmp/"));
    assert_non_null(ds4_engine_ops(g.engine, &n));
    g.s[0] = ds4_session_open(g.engine, &err);
    prompt(&g, 0, USER);
    assert_string_equal(answer(&g, 0), "[play: no rule matches]");
    leave(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sessions_in_one_step_say_what_they_are_given),
        cmocka_unit_test(a_token_is_certain_and_all_others_alike),
        cmocka_unit_test(a_new_prompt_begins_a_new_turn),
        cmocka_unit_test(going_back_forgets_what_was_being_said),
        cmocka_unit_test(a_row_among_others_begins_a_new_turn),
        cmocka_unit_test(a_closed_session_leaves_nothing_to_its_slot),
        cmocka_unit_test(the_first_rule_that_matches_wins),
        cmocka_unit_test(control_tokens_of_an_answer_are_tokens),
        cmocka_unit_test(an_answer_is_cut_wherever_the_script_says),
        cmocka_unit_test(a_rule_is_used_so_often),
        cmocka_unit_test(a_forced_token_is_followed_where_the_script_has_it),
        cmocka_unit_test(a_step_that_was_canceled_can_be_done_again),
        cmocka_unit_test(steps_take_the_time_of_the_speeds),
        cmocka_unit_test(wrong_scripts_are_refused),
        cmocka_unit_test(it_can_be_timed_and_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
