/* Which slot a request gets, what its prompt's beginning can be had from, and what is said
 * of the rest. */
#include "../../src/server/explain.h"
#include "../../src/server/ladder.h"
#include "../../src/server/side.h"
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

typedef struct {
    Slots slots;
    Past *past;
} Stage;

static Stage stage(void)
{
    Stage g;
    ds4_err err = { 0 };
    if (!slots_open(&g.slots, engine, SESSIONS, &err) || !(g.past = past_new(&err)))
        fail_msg("%s", err.msg);
    return g;
}

static void close_stage(Stage *g)
{
    slots_close(&g->slots);
    past_free(g->past);
}

typedef struct {
    Slot *slot;
    bool own, by_handle;
    int common, resident, reused;
    enum CacheSource source;
    enum CacheMiss miss;
    char place[64];
    size_t had, now;
} Found;

/* A job takes its slot, and the best rung. */
static Found begin(Stage *g, Job *j, bool side)
{
    SlotChoice c;
    ds4_err err = { 0 };
    assert_true(slots_choose(&g->slots, j, side, &c));
    Slot *slot = c.slot;
    explain_break(&slot->why, &g->slots, g->past, slot, j, vocab, side);
    if (slot->key.own != key_of(&j->turn).own)
        past_keep(g->past, slot);
    ladder_find(&slot->ladder, &g->slots, slot, &j->prompt, c.by_handle, NULL);
    enum CacheSource best = ladder_best(&slot->ladder);
    int n = best < N_CACHE_SOURCES ? slot->ladder.tokens[best] : 0, reached = n;
    if (best == CACHE_FORK)
        assert_true(ds4_session_fork(slot->session, g->slots.slot[slot->ladder.from].session, n,
                                     &reached, &err));
    else
        reached = ds4_session_rewind(slot->session, n);
    assert_int_equal(reached, n);
    explain_reuse(&slot->why, j, reached, best);
    slot->key = key_of(&j->turn);
    slot->scratch = side;
    slot->job = j;
    slot->used_ns = clock_ns();
    Found f = { .slot = slot,
                .own = c.own,
                .by_handle = c.by_handle,
                .common = c.common,
                .resident = c.resident,
                .reused = reached,
                .source = best,
                .miss = slot->why.miss,
                .had = slot->why.had.n,
                .now = slot->why.now.n };
    strcpy(f.place, slot->why.place);
    return f;
}

static Found run_as(Stage *g, Job *j, bool side)
{
    ds4_err err = { 0 };
    Found f = begin(g, j, side);
    assert_true(ds4_session_feed(f.slot->session, j->prompt.id + f.reused,
                                 (int)j->prompt.n - f.reused, &err));
    slot_leave(f.slot);
    return f;
}

static Found run(Stage *g, Job *j) { return run_as(g, j, false); }

/* ---- slots ----------------------------------------------------------------------------- */

static void a_conversation_goes_on_where_it_was(void **state)
{
    (void)state;
    Stage g = stage();
    Found a = run(&g, job("a", 1, 400, 400));
    Found b = run(&g, job("b", 500, 400, 400));
    assert_ptr_not_equal(a.slot, b.slot);
    assert_int_equal(a.miss, MISS_NEW);
    Found again = run(&g, job("a", 1, 400, 600));
    assert_ptr_equal(again.slot, a.slot);
    assert_int_equal(again.reused, 400);
    assert_int_equal(again.source, CACHE_LIVE);
    assert_int_equal(again.miss, N_CACHE_MISSES);
    close_stage(&g);
}

static void a_small_part_in_common_is_no_reason_to_take_a_slot(void **state)
{
    (void)state;
    Stage g = stage();
    /* 100 of 1000 tokens in common, under the same name. */
    Found main = run(&g, job("a", 1, 100, 1000));
    Job *side = job("a", 1, 100, 120);
    side->prompt.id[110] = 7;
    Found c = run(&g, side);
    assert_ptr_not_equal(c.slot, main.slot);
    Found back = run(&g, job("a", 1, 100, 1200));
    assert_ptr_equal(back.slot, main.slot);
    assert_int_equal(back.reused, 1000);
    close_stage(&g);
}

static void a_helper_copies_what_it_shares_with_its_agent(void **state)
{
    (void)state;
    Stage g = stage();
    Found agent = run(&g, job("agent", 1, 300, 300));
    run(&g, job("agent", 1, 300, 1000));
    Found helper = run(&g, job("helper", 1, 300, 320));
    assert_ptr_not_equal(helper.slot, agent.slot);
    assert_int_equal(helper.source, CACHE_FORK);
    assert_int_equal(helper.reused, 256); /* the last mark of the 300 */
    /* A second one, beside both, while the first still runs. */
    Found busy = begin(&g, job("helper", 1, 300, 330), false);
    assert_ptr_equal(busy.slot, helper.slot);
    Found late = run(&g, job("late", 1, 300, 330));
    assert_ptr_not_equal(late.slot, agent.slot);
    assert_int_equal(late.source, CACHE_FORK);
    Found back = run(&g, job("agent", 1, 300, 1100));
    assert_ptr_equal(back.slot, agent.slot);
    assert_int_equal(back.reused, 1000);
    close_stage(&g);
}

static void the_longest_unused_goes_when_all_are_full(void **state)
{
    (void)state;
    Stage g = stage();
    Found first = run(&g, job("a", 1, 500, 500));
    run(&g, job("b", 200, 500, 500));
    run(&g, job("c", 400, 500, 500));
    Found d = run(&g, job("d", 600, 500, 500));
    assert_ptr_equal(d.slot, first.slot);
    assert_false(d.own);
    Found a = run(&g, job("a", 1, 500, 500));
    assert_int_equal(a.miss, MISS_EVICTED);
    close_stage(&g);
}

static void a_short_conversation_goes_before_a_long_one(void **state)
{
    (void)state;
    Stage g = stage();
    Found longest = run(&g, job("long", 1, 1500, 1500));
    run(&g, job("b", 200, 900, 900));
    Found least = run(&g, job("c", 400, 150, 150));
    assert_ptr_equal(run(&g, job("d", 600, 300, 300)).slot, least.slot);
    assert_ptr_equal(run(&g, job("long", 1, 1500, 1600)).slot, longest.slot);
    close_stage(&g);
}

static void what_the_store_has_is_missed_less(void **state)
{
    (void)state;
    Stage g = stage();
    run(&g, job("a", 1, 900, 900));
    Found stored = run(&g, job("b", 200, 1500, 1500));
    run(&g, job("c", 400, 900, 900));
    stored.slot->kept = 1408;
    assert_ptr_equal(run(&g, job("d", 600, 300, 300)).slot, stored.slot);
    close_stage(&g);
}

static void who_waits_for_the_one_that_asks_stays(void **state)
{
    (void)state;
    Stage g = stage();
    Found agent = run(&g, job("s", 1, 500, 500)); /* longest unused */
    run(&g, job("b", 200, 700, 700));
    run(&g, job("c", 400, 700, 700));
    Job *helper = job("s", 600, 500, 500);
    helper->turn.agent = STR("helper");
    assert_ptr_not_equal(run(&g, helper).slot, agent.slot);
    close_stage(&g);
}

static void what_somebody_waits_for_goes_last(void **state)
{
    (void)state;
    Stage g = stage();
    Found awaited = run(&g, job("a", 1, 500, 500)); /* longest unused, and shortest */
    run(&g, job("b", 200, 700, 700));
    run(&g, job("c", 400, 700, 700));
    awaited.slot->awaited = 384;
    assert_ptr_not_equal(run(&g, job("d", 600, 500, 500)).slot, awaited.slot);
    awaited.slot->awaited = 0;
    assert_ptr_equal(run(&g, job("e", 800, 500, 500)).slot, awaited.slot);
    close_stage(&g);
}

static void a_handle_names_the_slot(void **state)
{
    (void)state;
    Stage g = stage();
    /* The same prompt twice, from a client without a name: two branches of one text. */
    Found one = begin(&g, job("", 1, 600, 600), false),
          two = begin(&g, job("", 1, 600, 600), false);
    ds4_err err = { 0 };
    assert_true(ds4_session_feed(one.slot->session, one.slot->job->prompt.id, 600, &err));
    assert_true(ds4_session_feed(two.slot->session, two.slot->job->prompt.id, 600, &err));
    slot_leave(one.slot);
    slot_leave(two.slot);
    one.slot->names = (AnswerNames){ .name = { "call_one" }, .n = 1 };
    two.slot->names = (AnswerNames){ .name = { "call_two" }, .n = 1 };
    for (int i = 0; i < 2; i++) {
        Job *j = job("", 1, 600, 700);
        ChatCall call = { .id = i ? STR("call_two") : STR("call_one") };
        ChatMessage m[2] = { { .role = CHAT_ASSISTANT, .calls = &call, .n_calls = 1 },
                             { .role = CHAT_TOOL } };
        j->turn.messages = m;
        j->turn.n_messages = 2;
        SlotChoice c;
        assert_true(slots_choose(&g.slots, j, false, &c));
        assert_ptr_equal(c.slot, i ? two.slot : one.slot);
        assert_true(c.by_handle && c.own);
        j->turn.messages = NULL;
        j->turn.n_messages = 0;
        job_drop(j);
    }
    close_stage(&g);
}

static void busy_slots_are_left_alone(void **state)
{
    (void)state;
    Stage g = stage();
    Found f[SESSIONS];
    SlotChoice c;
    Job *one_too_many = job("x", 5, 50, 50);
    for (int i = 0; i < SESSIONS; i++) {
        f[i] = begin(&g, job("a", 1, 50, 50), false);
        for (int k = 0; k < i; k++)
            assert_ptr_not_equal(f[i].slot, f[k].slot);
    }
    assert_false(slots_choose(&g.slots, one_too_many, false, &c));
    job_drop(one_too_many);
    close_stage(&g); /* drops the jobs */
}

/* ---- side requests ------------------------------------------------------------------------ */

static void a_side_request_takes_what_another_left(void **state)
{
    (void)state;
    Stage g = stage();
    Found main = run(&g, job("a", 1, 100, 1000));
    Found title = run_as(&g, job("a", 700, 50, 50), true);
    assert_ptr_not_equal(title.slot, main.slot);
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(run_as(&g, job("a", 710 + i, 50, 50), true).slot, title.slot);
    /* And so does a conversation, when no slot is empty. */
    Found third = run(&g, job("b", 200, 100, 900));
    assert_true(third.slot != main.slot && third.slot != title.slot);
    assert_ptr_equal(run(&g, job("c", 400, 100, 900)).slot, title.slot);
    assert_int_equal(run(&g, job("a", 1, 100, 1200)).reused, 1000);
    close_stage(&g);
}

static void a_side_request_takes_nothing_that_cannot_be_kept(void **state)
{
    (void)state;
    Stage g = stage();
    SlotChoice c;
    Slot *slot[SESSIONS];
    for (int i = 0; i < SESSIONS; i++)
        slot[i] = run(&g, job(i ? i > 1 ? "c" : "b" : "a", 1 + 200 * i, 700, 700)).slot;
    Job *side = job("a", 900, 50, 50);
    assert_false(slots_choose(&g.slots, side, true, &c));
    assert_true(slots_choose(&g.slots, side, false, &c)); /* others do */
    slot[1]->keepable = true;
    assert_true(slots_choose(&g.slots, side, true, &c));
    assert_ptr_equal(c.slot, slot[1]);
    slot[1]->keepable = false;
    slot[2]->used_ns -= (int64_t)601 * 1000000000;
    assert_true(slots_choose(&g.slots, side, true, &c));
    assert_ptr_equal(c.slot, slot[2]);
    slot[2]->used_ns = clock_ns();
    slot[0]->kept = 512;
    assert_true(slots_choose(&g.slots, side, true, &c));
    assert_ptr_equal(c.slot, slot[0]);
    job_drop(side);
    close_stage(&g);
}

static void who_never_came_in_leaves_a_conversation_as_old_as_it_was(void **state)
{
    (void)state;
    Stage g = stage();
    Slot *slot = run(&g, job("a", 1, 700, 700)).slot;
    const int64_t before = slot->used_ns -= (int64_t)300 * 1000000000;
    slot->job = job("b", 1, 50, 50);
    slot->entering = true;
    slot_leave(slot);
    assert_int_equal(slot->used_ns, before);
    slot->job = job("b", 1, 50, 50);
    slot_leave(slot);
    assert_true(slot->used_ns > before);
    close_stage(&g);
}

static void side_requests_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *system;
        int think, tokens;
        bool tools, answered, runs, is;
    } cases[] = {
        { "You are a title generator.", CHAT_THINK_HIGH, 300, false, false, false, true },
        { "Write a concise Title of 3 words", CHAT_THINK_OFF, 300, false, false, false, true },
        { "You help.", CHAT_THINK_LOW, 300, false, false, false, true },
        { "Titles: write one.", CHAT_THINK_OFF, 300, false, false, false, true },
        { "The one entitled to subtitles", CHAT_THINK_HIGH, 300, false, false, false, false },
        { "You help.", CHAT_THINK_HIGH, 300, false, false, true, true },
        { "You help.", CHAT_THINK_HIGH, 300, false, false, false, false },
        { "You are a title generator.", CHAT_THINK_LOW, 4097, false, false, true, false },
        { "You are a title generator.", CHAT_THINK_LOW, 300, true, false, true, false },
        { "You are a title generator.", CHAT_THINK_LOW, 300, false, true, true, false },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ChatMessage m[3] = { { .role = CHAT_SYSTEM, .content = str_of(cases[i].system) },
                             { .role = CHAT_USER, .content = STR("title of what?") },
                             { .role = CHAT_ASSISTANT } };
        Tool tool = { 0 };
        Job *j = job("a", 1, 10, cases[i].tokens);
        j->turn.messages = m;
        j->turn.n_messages = cases[i].answered ? 3 : 2;
        j->turn.think = cases[i].think;
        j->turn.tools = &tool;
        j->turn.n_tools = cases[i].tools;
        if (is_side_request(j, cases[i].runs) != cases[i].is)
            fail_msg("case %zu", i);
        bool title = is_side_request(j, false) && cases[i].think != CHAT_THINK_LOW;
        title |= strstr(cases[i].system, "title generator") != NULL;
        if (is_surely_side(j, false) != title ||
            is_surely_side(j, true) != (title || cases[i].think == CHAT_THINK_LOW))
            fail_msg("case %zu is not as sure", i);
        j->turn.session_is_shared = true;
        if (is_surely_side(j, true) != title)
            fail_msg("case %zu: a user may have two conversations", i);
        j->turn.messages = NULL;
        j->turn.tools = NULL;
        j->turn.n_messages = j->turn.n_tools = 0;
        job_drop(j);
    }
}

/* ---- the ladder ---------------------------------------------------------------------------- */

static void the_longest_rung_wins_and_of_equal_ones_the_cheaper(void **state)
{
    (void)state;
    static const struct {
        int tokens[N_CACHE_SOURCES]; /* live handle rewind fork ram disk */
        enum CacheSource best;
    } cases[] = {
        { { 0 }, N_CACHE_SOURCES },
        { { [CACHE_LIVE] = 100, [CACHE_FORK] = 100, [CACHE_DISK] = 100 }, CACHE_LIVE },
        { { [CACHE_REWIND] = 128, [CACHE_FORK] = 128, [CACHE_RAM] = 128 }, CACHE_REWIND },
        { { [CACHE_REWIND] = 128, [CACHE_FORK] = 256, [CACHE_RAM] = 256 }, CACHE_FORK },
        { { [CACHE_LIVE] = 100, [CACHE_FORK] = 256, [CACHE_DISK] = 384 }, CACHE_DISK },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        Ladder l = { 0 };
        memcpy(l.tokens, cases[i].tokens, sizeof l.tokens);
        assert_int_equal(ladder_best(&l), cases[i].best);
    }
}

static void a_prompt_that_is_there_in_full_leaves_its_last_token(void **state)
{
    (void)state;
    Stage g = stage();
    run(&g, job("a", 1, 513, 513));
    Found f = run(&g, job("a", 1, 513, 513));
    assert_int_equal(f.common, 513);
    assert_int_equal(f.reused, 512);
    close_stage(&g);
}

/* ---- explaining ------------------------------------------------------------------------------ */

static void an_edit_is_found_and_shown(void **state)
{
    (void)state;
    Stage g = stage();
    const Controls *k = vocab_controls(vocab);
    Job *first = job("a", 1, 600, 600), *second = job("a", 1, 600, 700);
    first->prompt.id[50] = second->prompt.id[50] = k->user;
    first->prompt.id[100] = second->prompt.id[100] = k->assistant;
    second->prompt.id[550] = 9;
    run(&g, first);
    Found f = begin(&g, second, false);
    assert_int_equal(f.common, 550);
    assert_int_equal(f.reused, 512); /* the last mark before it */
    assert_int_equal(f.source, CACHE_REWIND);
    assert_int_equal(f.miss, MISS_HISTORY_EDITED);
    assert_string_equal(f.place, "turn 2 (assistant)");
    assert_true(f.had > 0 && f.now > 0);
    Bytes line = { 0 };
    explain_line(&f.slot->why, second, 2, &line);
    bytes_byte(&line, 0);
    assert_non_null(strstr(line.p, "512 of 700 prompt tokens reused in slot 2, taken back; of 600 "
                                   "that it had the first 550 agree, up to turn 2 (assistant), "
                                   "where it had \""));
    bytes_release(&line);
    close_stage(&g);
}

static void a_conversation_that_left_its_slot_is_still_compared(void **state)
{
    (void)state;
    Stage g = stage();
    run(&g, job("a", 1, 500, 500));
    run(&g, job("b", 200, 500, 500));
    run(&g, job("c", 400, 500, 500));
    run(&g, job("d", 600, 500, 500));
    Job *edited = job("a", 1, 500, 600);
    edited->prompt.id[300] = vocab_controls(vocab)->user;
    Found f = run(&g, edited);
    assert_int_equal(f.reused, 0);
    assert_int_equal(f.miss, MISS_SYSTEM_CHANGED);
    assert_string_equal(f.place, "turn 0 (system)");
    close_stage(&g);
}

static void a_changed_system_is_told_from_changed_tools(void **state)
{
    (void)state;
    Stage g = stage();
    Job *first = job("a", 1, 600, 600), *second = job("a", 1, 600, 600),
        *third = job("b", 300, 600, 600), *fourth = job("b", 300, 600, 600);
    second->prompt.id[300] = 9;
    third->prompt.id[20] = fourth->prompt.id[20] = vocab_controls(vocab)->dsml;
    fourth->prompt.id[300] = 9;
    run(&g, first);
    assert_int_equal(run(&g, second).miss, MISS_SYSTEM_CHANGED);
    run(&g, third);
    assert_int_equal(run(&g, fourth).miss, MISS_TOOLS_CHANGED);
    close_stage(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation_goes_on_where_it_was),
        cmocka_unit_test(a_small_part_in_common_is_no_reason_to_take_a_slot),
        cmocka_unit_test(a_helper_copies_what_it_shares_with_its_agent),
        cmocka_unit_test(the_longest_unused_goes_when_all_are_full),
        cmocka_unit_test(a_short_conversation_goes_before_a_long_one),
        cmocka_unit_test(what_the_store_has_is_missed_less),
        cmocka_unit_test(who_waits_for_the_one_that_asks_stays),
        cmocka_unit_test(what_somebody_waits_for_goes_last),
        cmocka_unit_test(a_handle_names_the_slot),
        cmocka_unit_test(busy_slots_are_left_alone),
        cmocka_unit_test(a_side_request_takes_what_another_left),
        cmocka_unit_test(a_side_request_takes_nothing_that_cannot_be_kept),
        cmocka_unit_test(who_never_came_in_leaves_a_conversation_as_old_as_it_was),
        cmocka_unit_test(side_requests_are_known),
        cmocka_unit_test(the_longest_rung_wins_and_of_equal_ones_the_cheaper),
        cmocka_unit_test(a_prompt_that_is_there_in_full_leaves_its_last_token),
        cmocka_unit_test(an_edit_is_found_and_shown),
        cmocka_unit_test(a_conversation_that_left_its_slot_is_still_compared),
        cmocka_unit_test(a_changed_system_is_told_from_changed_tools),
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
