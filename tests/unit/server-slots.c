/* Which resident conversation a prompt goes on from, and what is said of the rest. */
#include "../../src/server/slots.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { SESSIONS = 3 };

static ds4_engine *engine;
static const ds4_vocab *vocab;

static void ignore(void *user, Job *j)
{
    (void)user;
    (void)j;
}

/* n tokens: the first `shared` of them the same in all prompts of a kind. */
static Job *job(const char *session, int kind, int shared, int n)
{
    Job *j = job_new(&dialect_chat, API_CHAT);
    assert_non_null(j);
    j->wake = ignore;
    j->turn.session = str_of(session);
    for (int i = 0; i < n; i++)
        tokens_put(&j->prompt, i < shared ? 300 + (kind * 7 + i) % 997 : 2000 + (kind + i) % 997);
    return j;
}

static Slots open_slots(void)
{
    Slots s;
    ds4_err err = { 0 };
    if (!slots_open(&s, engine, SESSIONS, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* Runs a job as far as its prompt goes; it is over then. */
static SlotChoice run(Slots *s, Job *j)
{
    SlotChoice c;
    ds4_err err = { 0 };
    assert_true(slots_take(s, j, vocab, &c));
    assert_true(ds4_session_feed(c.slot->session, j->prompt.id + c.reused,
                                 (int)j->prompt.n - c.reused, &err));
    slot_leave(c.slot);
    bytes_release(&c.had);
    return c;
}

static void a_conversation_goes_on_where_it_was(void **state)
{
    (void)state;
    Slots s = open_slots();
    SlotChoice a = run(&s, job("a", 1, 400, 400));
    SlotChoice b = run(&s, job("b", 500, 400, 400));
    assert_ptr_not_equal(a.slot, b.slot);
    assert_int_equal(a.miss, MISS_NEW);
    SlotChoice again = run(&s, job("a", 1, 400, 600));
    assert_ptr_equal(again.slot, a.slot);
    assert_int_equal(again.reused, 400);
    assert_int_equal(again.source, CACHE_LIVE);
    assert_int_equal(again.miss, N_CACHE_MISSES);
    slots_close(&s);
}

static void a_side_request_takes_an_empty_slot(void **state)
{
    (void)state;
    Slots s = open_slots();
    /* 100 of 1000 tokens in common: less than a quarter of what is there. */
    SlotChoice main = run(&s, job("a", 1, 100, 1000));
    Job *side = job("a", 1, 100, 120);
    side->prompt.id[110] = 7;
    SlotChoice c = run(&s, side);
    assert_ptr_not_equal(c.slot, main.slot);
    assert_false(c.evicts);
    assert_int_equal(c.reused, 0);
    SlotChoice back = run(&s, job("a", 1, 100, 1200));
    assert_ptr_equal(back.slot, main.slot);
    assert_int_equal(back.reused, 1000);
    slots_close(&s);
}

/* Half of a conversation's tokens in common, but its key is another's. */
static void a_helper_leaves_its_agent_the_slot_while_one_is_empty(void **state)
{
    (void)state;
    Slots s = open_slots();
    SlotChoice agent = run(&s, job("agent", 1, 300, 1000));
    SlotChoice helper = run(&s, job("helper", 1, 300, 320));
    assert_ptr_not_equal(helper.slot, agent.slot);
    assert_int_equal(helper.reused, 0);
    /* The same, when no slot is empty: better than to lose all of another. */
    run(&s, job("third", 700, 500, 500));
    SlotChoice late = run(&s, job("late", 1, 300, 330));
    assert_true(late.slot == helper.slot || late.slot == agent.slot);
    assert_true(late.common >= 300);
    slots_close(&s);
}

static void the_longest_unused_goes_when_all_are_full(void **state)
{
    (void)state;
    Slots s = open_slots();
    SlotChoice first = run(&s, job("a", 1, 500, 500));
    run(&s, job("b", 200, 500, 500));
    run(&s, job("c", 400, 500, 500));
    SlotChoice d = run(&s, job("d", 600, 500, 500));
    assert_ptr_equal(d.slot, first.slot);
    assert_true(d.evicts);
    SlotChoice a = run(&s, job("a", 1, 500, 500));
    assert_int_equal(a.miss, MISS_EVICTED);
    slots_close(&s);
}

static void an_edit_is_found_and_shown(void **state)
{
    (void)state;
    Slots s = open_slots();
    const Controls *k = vocab_controls(vocab);
    Job *first = job("a", 1, 600, 600), *second = job("a", 1, 600, 700);
    char place[64];
    first->prompt.id[50] = second->prompt.id[50] = k->user;
    first->prompt.id[100] = second->prompt.id[100] = k->assistant;
    second->prompt.id[550] = 9;
    run(&s, first);
    SlotChoice c;
    assert_true(slots_take(&s, second, vocab, &c));
    assert_int_equal(c.common, 550);
    assert_int_equal(c.reused, 512); /* the last mark before it */
    assert_int_equal(c.source, CACHE_REWIND);
    assert_int_equal(c.miss, MISS_HISTORY_EDITED);
    assert_true(c.had.n > 0);
    slots_place(second, vocab, c.common, place);
    assert_string_equal(place, "turn 2 (assistant)");
    bytes_release(&c.had);
    slot_leave(c.slot);
    slots_close(&s);
}

static void a_changed_system_is_told_from_changed_tools(void **state)
{
    (void)state;
    Slots s = open_slots();
    Job *first = job("a", 1, 600, 600), *second = job("a", 1, 600, 600),
        *third = job("b", 300, 600, 600), *fourth = job("b", 300, 600, 600);
    second->prompt.id[300] = 9;
    third->prompt.id[20] = fourth->prompt.id[20] = vocab_controls(vocab)->dsml;
    fourth->prompt.id[300] = 9;
    run(&s, first);
    assert_int_equal(run(&s, second).miss, MISS_SYSTEM_CHANGED);
    run(&s, third);
    assert_int_equal(run(&s, fourth).miss, MISS_TOOLS_CHANGED);
    slots_close(&s);
}

static void a_prompt_that_is_there_in_full_leaves_its_last_token(void **state)
{
    (void)state;
    Slots s = open_slots();
    run(&s, job("a", 1, 513, 513));
    SlotChoice c = run(&s, job("a", 1, 513, 513));
    assert_int_equal(c.common, 513);
    assert_int_equal(c.reused, 512);
    slots_close(&s);
}

static void busy_slots_are_left_alone(void **state)
{
    (void)state;
    Slots s = open_slots();
    SlotChoice c[SESSIONS + 1];
    Job *one_too_many = job("x", 5, 50, 50);
    for (int i = 0; i < SESSIONS; i++) {
        assert_true(slots_take(&s, job("a", 1, 50, 50), vocab, &c[i]));
        for (int k = 0; k < i; k++)
            assert_ptr_not_equal(c[i].slot, c[k].slot);
    }
    assert_false(slots_take(&s, one_too_many, vocab, &c[SESSIONS]));
    job_drop(one_too_many);
    slots_close(&s); /* drops the jobs */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation_goes_on_where_it_was),
        cmocka_unit_test(a_side_request_takes_an_empty_slot),
        cmocka_unit_test(a_helper_leaves_its_agent_the_slot_while_one_is_empty),
        cmocka_unit_test(the_longest_unused_goes_when_all_are_full),
        cmocka_unit_test(an_edit_is_found_and_shown),
        cmocka_unit_test(a_changed_system_is_told_from_changed_tools),
        cmocka_unit_test(a_prompt_that_is_there_in_full_leaves_its_last_token),
        cmocka_unit_test(busy_slots_are_left_alone),
    };
    ds4_err err = { 0 };
    engine = ds4_engine_open(&(ds4_options){ .model = "models/ds4-tiny.gguf",
                                             .device = "null",
                                             .context = 2048,
                                             .sessions = SESSIONS },
                             &err);
    if (!engine) {
        print_message("%s\n", err.msg);
        return 1;
    }
    vocab = ds4_engine_vocab(engine);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ds4_engine_close(engine);
    return failed;
}
