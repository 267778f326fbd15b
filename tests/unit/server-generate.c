/* Answers, token by token, of a device that plays: what is told, what ends an
 * answer, and what is remembered of it. */
#include "../../src/server/budget.h"
#include "../../src/server/collect.h"
#include "../../src/server/generate.h"
#include "../../src/server/prepare.h"
#include "../../src/server/repeat.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define MODEL "models/ds4-tiny.gguf"
#define D     "｜DSML｜"
#define CALL(city) \
    "<" D "invoke name=\\\"f\\\">\\n<" D "parameter name=\\\"city\\\" string=\\\"true\\\">" city \
    "</" D "parameter>\\n</" D "invoke>\\n"
#define BLOCK(calls) "\\n\\n<" D "tool_calls>\\n" calls "</" D "tool_calls>"
#define TOOL \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":" \
    "\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}],"
#define HI "{\"role\":\"user\",\"content\":\"hi\"}"

static Recall *recall;
static Metrics *metrics;

/* An engine that says one thing. */
typedef struct {
    char path[32];
    ds4_engine *engine;
    ds4_session *session;
    TokenTrie *trie;
    GenerateEnv env;
    ServerInfo info;
} Stage;

static Stage stage(const char *say)
{
    Stage g = { .info = { .model = "m", .context = 8192, .default_think = CHAT_THINK_HIGH } };
    ds4_err err = { 0 };
    char device[64];
    strcpy(g.path, "/tmp/ds4-say-XXXXXX");
    FILE *f = fdopen(mkstemp(g.path), "w");
    assert_non_null(f);
    fprintf(f, "{\"rules\":[{\"say\":\"%s\"}]}", say);
    fclose(f);
    snprintf(device, sizeof device, "play:%s", g.path);
    g.engine =
        ds4_engine_open(&(ds4_options){ .model = MODEL, .device = device, .context = 8192 }, &err);
    if (!g.engine)
        fail_msg("%s", err.msg);
    g.session = ds4_session_open(g.engine, &err);
    const ds4_vocab *v = ds4_engine_vocab(g.engine);
    g.trie = trie_new(v, &err);
    g.env = (GenerateEnv){ v, recall, metrics, 8192, true };
    assert_true(g.session && g.trie);
    return g;
}

static void leave(Stage *g)
{
    trie_free(g->trie);
    ds4_engine_close(g->engine);
    unlink(g->path);
}

/* ---- one answer ---------------------------------------------------------------------- */

typedef struct {
    Job *job;
    Collected got;
    size_t logprobs;
    int handles;
    bool failed;
} Told;

static void ignore(void *user, Job *j)
{
    (void)user;
    (void)j;
}

static void take_events(Told *t)
{
    for (EventNode *n; (n = events_take(&t->job->events)) != NULL;) {
        collect(&t->got, &n->event);
        t->logprobs += n->event.n_logprobs;
        t->handles += n->event.handle && n->event.kind == EV_REASONING;
        t->failed |= n->event.kind == EV_ERROR;
        event_node_free(n);
    }
}

static Told answer(Stage *g, const char *body)
{
    const ds4_vocab *v = ds4_engine_vocab(g->engine);
    const Prepare p = {
        .info = &g->info, .vocab = v, .trie = g->trie, .recall = recall, .preview = true
    };
    Told t = { .job = job_new(&dialect_chat, API_CHAT) };
    ds4_err err = { 0 };
    ApiError e = { 0 };
    int32_t token;
    int reused;
    t.job->wake = ignore;
    bytes_str(&t.job->body, body);
    job_prepare(t.job, &p);
    if (t.job->error.status)
        fail_msg("%s", t.job->error.message);
    assert_true(
        ds4_session_sync(g->session, t.job->prompt.id, (int)t.job->prompt.n, &reused, &err));
    Generation *a = generation_new(t.job, &g->env, &e);
    assert_non_null(a);
    generation_begin(a, reused, 1);
    while (generation_next(a, g->session, &token))
        assert_true(ds4_session_feed(g->session, &token, 1, &err));
    take_events(&t);
    assert_int_equal(generation_usage(a).completion, t.got.end.usage.completion);
    generation_free(a);
    return t;
}

static void told_free(Told *t)
{
    collect_release(&t->got);
    job_drop(t->job);
}

static void text_is(const Bytes *b, const char *want)
{
    if (!str_eq(bytes_view(b), str_of(want)))
        fail_msg("'%.*s' instead of '%s'", (int)b->n, b->p, want);
}

/* A text of so many times the same, for a script. */
static char *repeated(const char *before, const char *what, int times, const char *after)
{
    Bytes b = { 0 };
    bytes_str(&b, before);
    for (int i = 0; i < times; i++)
        bytes_str(&b, what);
    bytes_str(&b, after);
    bytes_byte(&b, 0);
    return b.p;
}

/* ---- telling ---------------------------------------------------------------------------- */

static void thoughts_text_and_calls_come_apart(void **state)
{
    (void)state;
    Stage g = stage("I think.</think>Look:" BLOCK(CALL("Roma è") CALL("Oslo")));
    Told t = answer(&g, "{" TOOL "\"messages\":[" HI "]}");
    text_is(&t.got.reasoning, "I think.");
    text_is(&t.got.text, "Look:");
    assert_int_equal(t.got.n_calls, 2);
    text_is(&t.got.calls[0].arguments, "{\"city\": \"Roma è\"}");
    text_is(&t.got.calls[1].arguments, "{\"city\": \"Oslo\"}");
    assert_string_not_equal(t.got.calls[0].id, t.got.calls[1].id);
    assert_int_equal(strlen(t.got.calls[0].id), 5 + 32);
    assert_int_equal(t.got.end.finish, FINISH_TOOL_CALLS);
    assert_int_equal(t.handles, 1);
    assert_true(t.got.end.usage.reasoning > 0 &&
                t.got.end.usage.reasoning < t.got.end.usage.completion);
    told_free(&t);
    leave(&g);
}

static void every_shown_token_has_its_logprobs(void **state)
{
    (void)state;
    Stage g = stage("Hello, wörld! How are you?");
    Told t =
        answer(&g, "{\"think\":false,\"logprobs\":true,\"top_logprobs\":3,\"messages\":[" HI "]}");
    assert_int_equal(t.logprobs, t.got.end.usage.completion);
    assert_int_equal(t.handles, 0);
    told_free(&t);
    leave(&g);
}

/* ---- ends --------------------------------------------------------------------------------- */

static enum Finish finish_of(const char *say, const char *body, const char *text)
{
    Stage g = stage(say);
    Told t = answer(&g, body);
    assert_false(t.failed);
    enum Finish how = t.got.end.finish;
    if (text)
        text_is(&t.got.text, text);
    told_free(&t);
    leave(&g);
    return how;
}

static void answers_end_for_a_reason(void **state)
{
    (void)state;
    assert_int_equal(finish_of("done", "{\"think\":false,\"messages\":[" HI "]}", "done"),
                     FINISH_STOP);
    assert_int_equal(finish_of("one two three four five six",
                               "{\"think\":false,\"max_tokens\":2,\"messages\":[" HI "]}", NULL),
                     FINISH_LENGTH);
    assert_int_equal(finish_of("one STOP two",
                               "{\"think\":false,\"stop\":[\"STOP\"],\"messages\":[" HI "]}",
                               "one "),
                     FINISH_STOP_SEQUENCE);
    /* Control tokens that no answer can hold. */
    assert_int_equal(
        finish_of("one<｜User｜>two", "{\"think\":false,\"messages\":[" HI "]}", "one"),
        FINISH_STOP);
}

static void a_call_cut_off_by_the_limit_is_none(void **state)
{
    (void)state;
    Stage g = stage(BLOCK(CALL("a city with a very long name that does not end")));
    Told t = answer(&g, "{\"think\":false,\"max_tokens\":28," TOOL "\"messages\":[" HI "]}");
    assert_int_equal(t.got.end.finish, FINISH_LENGTH);
    assert_int_equal(t.got.n_calls, 0);
    told_free(&t);
    leave(&g);
}

static void a_full_context_ends_an_answer(void **state)
{
    (void)state;
    char *say = repeated("", "a b c d e f g h i j k l m n o p q r s t u v w x y z ", 2000, "");
    Stage g = stage(say);
    g.env.loop_guard = false;
    Told t = answer(&g, "{\"think\":false,\"messages\":[" HI "]}");
    assert_int_equal(t.got.end.finish, FINISH_CONTEXT);
    assert_int_equal(t.got.end.usage.completion + (int)t.job->prompt.n, 8192);
    told_free(&t);
    leave(&g);
    free(say);
}

/* ---- thinking budget ------------------------------------------------------------------------ */

static void a_budget_ends_with_the_line_and_later_at_once(void **state)
{
    (void)state;
    assert_false(budget_spent(0, 1000000, STR("\n")));
    assert_false(budget_spent(100, 99, STR("\n")));
    assert_true(budget_spent(100, 100, STR(".\n")));
    assert_false(budget_spent(100, 100, STR(".")));
    assert_true(budget_spent(100, 132, STR(".")));
    assert_false(budget_spent(8000, 8999, STR(".")));
    assert_true(budget_spent(8000, 9000, STR(".")));
}

static void thinking_is_closed_when_its_budget_is_spent(void **state)
{
    (void)state;
    char *say = repeated("", "I go on to think about it. ", 400, "</think>The answer.");
    Stage g = stage(say);
    g.env.loop_guard = false;
    Told t = answer(
        &g, "{\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":64},\"messages\":[" HI "]}");
    int thought = t.got.end.usage.reasoning;
    assert_true(thought >= 64 && thought <= 64 + 32 + 1);
    text_is(&t.got.text, "The answer."); /* the script goes on behind its own </think> */
    assert_int_equal(t.got.end.finish, FINISH_STOP);
    told_free(&t);
    leave(&g);
    free(say);
}

/* ---- loops -------------------------------------------------------------------------------------- */

static void a_loop_in_prose_is_ended(void **state)
{
    (void)state;
    char *say = repeated("", "again and again ", 1500, "");
    assert_int_equal(finish_of(say, "{\"think\":false,\"messages\":[" HI "]}", NULL), FINISH_LOOP);
    free(say);
    say = repeated("", "0, ", 100, "");
    assert_int_equal(finish_of(say, "{\"think\":false,\"messages\":[" HI "]}", NULL), FINISH_STOP);
    free(say);
}

static void the_same_call_again_and_again_is_ended(void **state)
{
    (void)state;
    char *calls =
        repeated("</think>\\n\\n<" D "tool_calls>\\n", CALL("Rome"), 20, "</" D "tool_calls>");
    Stage g = stage(calls);
    Told t = answer(&g, "{" TOOL "\"messages\":[" HI "]}");
    assert_int_equal(t.got.end.finish, FINISH_LOOP);
    assert_int_equal(t.got.n_calls, REPEAT_SAME_CALLS);
    told_free(&t);
    leave(&g);
    free(calls);
}

static void a_conversation_that_turns_in_circles_is_ended(void **state)
{
    (void)state;
    Bytes b = { 0 };
    bytes_str(&b, "{" TOOL "\"messages\":[" HI);
    for (int i = 0; i < REPEAT_TURNS; i++)
        bytes_printf(&b,
                     ",{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c%d\",\"function\":{"
                     "\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
                     "\"tool_call_id\":\"c%d\",\"content\":\"no\"}",
                     i, i);
    bytes_str(&b, "]}");
    bytes_byte(&b, 0);
    Stage g = stage("</think>ok");
    Told t = answer(&g, b.p);
    assert_int_equal(t.got.end.finish, FINISH_LOOP);
    assert_non_null(memmem(t.got.text.p, t.got.text.n, "same call of f", 14));
    told_free(&t);
    g.env.loop_guard = false;
    t = answer(&g, b.p);
    assert_int_equal(t.got.end.finish, FINISH_STOP);
    text_is(&t.got.text, "ok");
    told_free(&t);
    leave(&g);
    bytes_release(&b);
}

/* ---- penalties ------------------------------------------------------------------------------------ */

/* A played token has a logit of 40 before all others: a bias takes it away. */
static void biases_and_penalties_reach_the_sampler(void **state)
{
    (void)state;
    Stage g = stage("a the the the the");
    const ds4_vocab *v = ds4_engine_vocab(g.engine);
    int32_t id[4];
    char body[256];
    assert_int_equal(ds4_encode(v, " the", 4, false, id, 4), 1);
    snprintf(body, sizeof body,
             "{\"think\":false,\"max_tokens\":8,\"seed\":1,\"logit_bias\":{\"%d\":-100},"
             "\"messages\":[" HI "]}",
             id[0]);
    Told t = answer(&g, body);
    assert_null(memmem(t.got.text.p, t.got.text.n, " the", 4));
    told_free(&t);
    leave(&g);
}

/* ---- what is remembered ------------------------------------------------------------------------------ */

/* The next request's prompt is this one's, what was sampled, and more. */
static void what_was_sampled_comes_back_token_by_token(void **state)
{
    (void)state;
    Stage g = stage("Hm, </think>\\n\\nLook :" BLOCK(CALL("Rome")));
    Told t = answer(&g, "{" TOOL "\"messages\":[" HI "]}");
    Tokens want = { 0 };
    for (int i = 0; i < ds4_session_length(g.session); i++)
        tokens_put(&want, ds4_session_tokens(g.session)[i]);
    Bytes next = { 0 };
    bytes_printf(
        &next,
        "{" TOOL "\"messages\":[" HI
        ",{\"role\":\"assistant\",\"content\":\"Look :\",\"tool_calls\":[{\"id\":\"%s\","
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"city\\\":"
        "\\\"Rome\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"content\":\"sunny\"}]}",
        t.got.calls[0].id, t.got.calls[0].id);
    bytes_byte(&next, 0);
    Told u = answer(&g, next.p);
    assert_int_equal(u.job->recalled.by_call, 1);
    assert_true(u.job->prompt.n > want.n);
    assert_memory_equal(u.job->prompt.id, want.id, want.n * sizeof *want.id);
    told_free(&t);
    told_free(&u);
    tokens_release(&want);
    bytes_release(&next);
    leave(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thoughts_text_and_calls_come_apart),
        cmocka_unit_test(every_shown_token_has_its_logprobs),
        cmocka_unit_test(answers_end_for_a_reason),
        cmocka_unit_test(a_call_cut_off_by_the_limit_is_none),
        cmocka_unit_test(a_full_context_ends_an_answer),
        cmocka_unit_test(a_budget_ends_with_the_line_and_later_at_once),
        cmocka_unit_test(thinking_is_closed_when_its_budget_is_spent),
        cmocka_unit_test(a_loop_in_prose_is_ended),
        cmocka_unit_test(the_same_call_again_and_again_is_ended),
        cmocka_unit_test(a_conversation_that_turns_in_circles_is_ended),
        cmocka_unit_test(biases_and_penalties_reach_the_sampler),
        cmocka_unit_test(what_was_sampled_comes_back_token_by_token),
    };
    ds4_err err = { 0 };
    recall = recall_new(0, 0, &err);
    metrics = metrics_new(&(MetricsBuild){ 0 }, &err);
    int failed = recall && metrics ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    metrics_free(metrics);
    recall_free(recall);
    return failed;
}
