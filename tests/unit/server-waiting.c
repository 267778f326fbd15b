/* Who is first, who waits, and who is not served: side requests, the queue, and jobs that
 * nobody hears any more. */
#include "../server_stage.h"

#define EVICTED "ds4x_kv_evictions_total{reason=\"slot_needed\"} "

/* ---- side requests ---------------------------------------------------------------------------------- */

static Job *title(Stage *g, const char *session, int seed, int n, ChatMessage m[2])
{
    Job *j = job(g, session, seed, n);
    m[0] = (ChatMessage){ .role = CHAT_SYSTEM, .content = STR("You write a title.") };
    m[1] = (ChatMessage){ .role = CHAT_USER };
    j->turn.raw = false;
    j->turn.messages = m;
    j->turn.n_messages = 2;
    return j;
}

/* A question of a few words that has no title to write. */
static Job *question(Stage *g, const char *session, int seed, int think, ChatMessage m[2])
{
    Job *j = title(g, session, seed, 200, m);
    m[0].content = STR("You help.");
    j->turn.think = think;
    return j;
}

/* Even with one slot: what had to go comes back from the store. */
static void side_requests_cost_the_conversation_nothing(void **state)
{
    (void)state;
    for (int slots = 1; slots <= 2; slots++) {
        Stage *g = stage((StageOptions){ .slots = slots });
        Told a = ask(g, "a", 1, 690);
        told_free(&a);
        for (int i = 0; i < 4; i++) {
            ChatMessage m[2];
            Job *j = title(g, "a", 60 + i, 200, m);
            submit(g, j);
            a = answer_of(g, j);
            assert_int_equal(a.error, 0);
            told_free(&a);
        }
        assert_true(metric(g, "ds4x_side_requests_total ") == 4);
        a = ask(g, "a", 1, 692);
        assert_int_equal(a.usage.cached, 640);
        is_fresh(&a, 1, 692);
        end(g);
    }
}

/* Its error, before the answer or instead of it; 0: none. */
static int ask_title(Stage *g, const char *session, int seed)
{
    ChatMessage m[2];
    ApiError e = { 0 };
    Job *j = title(g, session, seed, 200, m);
    if (scheduler_submit(g->s, j, &e)) {
        Told a = answer_of(g, j);
        told_free(&a);
        return a.error;
    }
    assert_int_equal(e.retry_after, 30);
    job_drop(j);
    return e.status;
}

/* Where nothing keeps it meanwhile they are told to come later, and the conversation stays. */
static void without_a_store_side_requests_cost_the_conversation_nothing(void **state)
{
    (void)state;
    ChatMessage m[2];
    Stage *g = stage((StageOptions){ .slots = 1, .no_store = true });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    assert_int_equal(ask_title(g, "a", 60), 503);
    assert_int_equal(ask_title(g, "b", 61), 503);
    assert_true(logged(g, "a side request would cost a conversation its state"));
    a = ask(g, "a", 1, 692);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 692);
    /* What may be the first of a conversation is taken for that. */
    Job *j = question(g, "c", 62, CHAT_THINK_LOW, m);
    submit(g, j);
    a = answer_of(g, j);
    assert_int_equal(a.error, 0);
    told_free(&a);
    end(g);
}

static void a_store_that_is_too_small_for_a_conversation_is_none(void **state)
{
    (void)state;
    enum { LONG = 5 * 2048 + 50 };
    char path[32], device[48];
    write_play(path, device);
    Stage *g =
        stage((StageOptions){ .slots = 1, .ram = 1, .device = device, .context = LONG + 2048 });
    Told a = ask(g, "a", 1, LONG);
    told_free(&a);
    assert_int_equal(ask_title(g, "a", 60), 503);
    a = ask(g, "a", 1, LONG);
    assert_true(a.usage.cached >= LONG - 50);
    told_free(&a);
    end(g);
    unlink(path);
}

static void remove_chunks(Store *s)
{
    StoreItem *item;
    size_t n, gone;
    uint64_t bytes;
    assert_true(store_list(s, &item, &n));
    for (size_t i = 0; i < n; i++)
        if (!item[i].first)
            assert_true(store_remove(s, item[i].id, &gone, &bytes, NULL));
    free(item);
}

/* It came from the store, is there no more, and cannot be put there again, as is found out
 * when a side request is to have its slot already. */
static void a_side_request_turns_back_where_the_conversation_could_not_be_kept(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .device = device });
    Told a = ask(g, "a", 1, 4500);
    told_free(&a);
    a = ask(g, "b", 2, 300);
    told_free(&a);
    a = ask(g, "a", 1, 4500);
    assert_int_equal(a.usage.cached, 4480);
    told_free(&a);
    remove_chunks(g->store);
    double evicted = metric(g, EVICTED);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ask_title(g, "a", 60), 503);
    assert_true(evicted == 2 && metric(g, EVICTED) == evicted);
    a = ask(g, "a", 1, 4500);
    assert_int_equal(a.usage.cached, 4480);
    told_free(&a);
    end(g);
    unlink(path);
}

/* A few words of somebody whose other question is being answered: a user's name may be all
 * that there is of a session. They are no side request any more when it is their turn. */
static void a_question_beside_another_of_its_session_is_never_refused(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    for (int slots = 1; slots <= 2; slots++) {
        ChatMessage m[2];
        Stage *g = stage((StageOptions){ .slots = slots, .no_store = true, .device = device });
        Told a = ask(g, "b", 2, 690);
        told_free(&a);
        Job *runs = job(g, "a", 1, 690), *next = question(g, "a", 60, CHAT_THINK_HIGH, m);
        runs->turn.max_tokens = 100;
        submit(g, runs);
        until_it_answers(runs);
        submit(g, next);
        a = answer_of(g, next);
        assert_int_equal(a.error, 0);
        told_free(&a);
        a = answer_of(g, runs);
        told_free(&a);
        end(g);
    }
    unlink(path);
}

/* What was there can be kept, as it looks, and cannot: what may be a conversation is one. */
static void a_question_is_not_turned_back_where_a_conversation_could_not_be_kept(void **state)
{
    (void)state;
    ChatMessage m[2];
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .device = device });
    Told a = ask(g, "a", 1, 4500);
    told_free(&a);
    a = ask(g, "b", 2, 300);
    told_free(&a);
    a = ask(g, "a", 1, 4500);
    assert_int_equal(a.usage.cached, 4480);
    told_free(&a);
    remove_chunks(g->store);
    Job *j = question(g, "c", 60, CHAT_THINK_LOW, m);
    submit(g, j);
    a = answer_of(g, j);
    assert_int_equal(a.error, 0);
    told_free(&a);
    end(g);
    unlink(path);
}

/* It waits for the slot that another one has, not for ever, and not at anybody's cost. */
static void a_side_request_waits_for_the_slot_of_another(void **state)
{
    (void)state;
    ChatMessage m[2], n[2];
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 2, .no_store = true, .device = device });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    Job *one = title(g, "a", 60, 200, m), *two = title(g, "a", 70, 200, n);
    one->turn.max_tokens = 100;
    job_hold(one);
    job_hold(two);
    submit(g, one);
    until_it_answers(one);
    submit(g, two);
    a = answer_of(g, two);
    assert_int_equal(a.error, 0);
    told_free(&a);
    assert_int_equal(atomic_load(&one->stage), STAGE_OVER);
    assert_true(two->started_ns > one->started_ns);
    a = answer_of(g, one);
    told_free(&a);
    job_drop(one);
    job_drop(two);
    a = ask(g, "a", 1, 692);
    assert_true(a.usage.cached >= 640);
    told_free(&a);
    end(g);
    unlink(path);
}

/* ---- the queue ------------------------------------------------------------------------------------- */

/* Four chunks are all that the store has; strangers before it give it more. */
static void what_a_queued_request_will_find_stays(void **state)
{
    (void)state;
    enum { STRANGERS = 3, LONG = 2304 };
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .ram = 1, .device = device });
    Told a = ask(g, "a", 1, LONG);
    told_free(&a);
    Job *runs = job(g, "r", 2, 300), *waits[STRANGERS + 1];
    runs->turn.max_tokens = 200;
    submit(g, runs);
    until_it_answers(runs);
    for (int i = 0; i < STRANGERS; i++)
        submit(g, waits[i] = job(g, "x", 10 + i, LONG));
    submit(g, waits[STRANGERS] = job(g, "a", 1, LONG));
    a = answer_of(g, runs);
    told_free(&a);
    for (int i = 0; i < STRANGERS; i++) {
        a = answer_of(g, waits[i]);
        assert_int_equal(a.usage.cached, 0);
        told_free(&a);
    }
    a = answer_of(g, waits[STRANGERS]);
    assert_true(a.usage.cached >= 2048);
    told_free(&a);
    StoreCounters c;
    store_counters(g->store, &c);
    assert_int_equal(c.reserved_bytes, 0);
    end(g);
    unlink(path);
}

/* One slot and nothing else: who goes on in it goes before who would take it, once. */
static void a_queued_request_keeps_the_slot_that_it_will_find(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .no_store = true, .device = device });
    Job *runs = job(g, "a", 1, 1500), *other = job(g, "b", 2, 1500), *next = job(g, "a", 1, 1500),
        *again = job(g, "a", 1, 1500);
    runs->turn.max_tokens = 200;
    submit(g, runs);
    until_it_answers(runs);
    submit(g, other);
    submit(g, next);
    submit(g, again);
    Told a = answer_of(g, runs);
    told_free(&a);
    a = answer_of(g, next);
    assert_true(a.usage.cached >= 1408);
    told_free(&a);
    a = answer_of(g, other);
    assert_int_equal(a.error, 0);
    told_free(&a);
    a = answer_of(g, again); /* it would never be its turn otherwise */
    assert_int_equal(a.usage.cached, 0);
    told_free(&a);
    end(g);
    unlink(path);
}

/* In one slot, behind a job that runs: the long one was first, the short one goes before it. */
static void a_short_job_overtakes_a_long_one_once(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .device = device, .context = 20000 });
    Job *runs = job(g, "a", 1, 100), *later = job(g, "b", 2, 9000), *one = job(g, "c", 3, 200),
        *two = job(g, "d", 4, 200);
    submit(g, runs);
    until_it_answers(runs);
    submit(g, later);
    submit(g, one);
    submit(g, two);
    Told a = answer_of(g, runs);
    told_free(&a);
    a = answer_of(g, one);
    told_free(&a);
    assert_true(atomic_load(&later->stage) != STAGE_OVER);
    a = answer_of(g, later);
    told_free(&a);
    assert_true(atomic_load(&two->stage) != STAGE_OVER);
    a = answer_of(g, two);
    told_free(&a);
    end(g);
    unlink(path);
}

/* ---- unheard jobs ------------------------------------------------------------------------------------ */

static void a_job_nobody_hears_ends_when_its_slot_is_wanted(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Job *j = job(g, "a", 1, 6000);
    submit(g, j);
    job_abandon(j, "client", (int64_t)60000000000);
    Told a = ask(g, "b", 2, 50);
    assert_int_equal(a.error, 0);
    told_free(&a);
    assert_string_equal(job_canceled(j), "client");
    assert_false(job_adopt(j));
    job_drop(j);
    end(g);
}

static void wait_until_read(Job *j, int more)
{
    int n = atomic_load(&j->processed) + more;
    while (atomic_load(&j->processed) < n)
        usleep(1000);
}

/* Its grace is over. Who comes then has the engine for itself, though a slot is free. */
static void a_prompt_nobody_waits_for_is_read_until_somebody_asks(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 2, .device = device, .context = 20000 });
    Job *j = job(g, "a", 1, 16000);
    submit(g, j);
    wait_until_read(j, 1);
    job_abandon(j, "client", 0);
    wait_until_read(j, 1600);
    assert_null(job_canceled(j));
    Told a = ask(g, "b", 2, 50);
    assert_int_equal(a.error, 0);
    told_free(&a);
    assert_string_equal(job_canceled(j), "client");
    /* what was read of it is there */
    a = ask(g, "a", 1, 16000);
    assert_true(a.usage.cached >= 1600);
    told_free(&a);
    job_drop(j);
    end(g);
    unlink(path);
}

static void a_prompt_nobody_waits_for_is_read_and_not_answered(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .device = device });
    Job *j = job(g, "a", 1, 6000);
    submit(g, j);
    wait_until_read(j, 1);
    job_abandon(j, "client", 0);
    while (!job_canceled(j))
        usleep(1000);
    assert_int_equal(atomic_load(&j->processed), 6000);
    assert_true(atomic_load(&j->generated) < 200);
    Told a = ask(g, "a", 1, 6000);
    assert_true(a.usage.cached >= 5888);
    told_free(&a);
    job_drop(j);
    end(g);
    unlink(path);
}

static void a_job_is_heard_again(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Job *j = job(g, "a", 1, 600);
    submit(g, j);
    job_abandon(j, "client", (int64_t)60000000000);
    usleep(20000);
    assert_true(job_adopt(j));
    Told a = answer_of(g, j);
    is_fresh(&a, 1, 600);
    end(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(side_requests_cost_the_conversation_nothing),
        cmocka_unit_test(without_a_store_side_requests_cost_the_conversation_nothing),
        cmocka_unit_test(a_store_that_is_too_small_for_a_conversation_is_none),
        cmocka_unit_test(a_side_request_turns_back_where_the_conversation_could_not_be_kept),
        cmocka_unit_test(a_question_beside_another_of_its_session_is_never_refused),
        cmocka_unit_test(a_question_is_not_turned_back_where_a_conversation_could_not_be_kept),
        cmocka_unit_test(a_side_request_waits_for_the_slot_of_another),
        cmocka_unit_test(what_a_queued_request_will_find_stays),
        cmocka_unit_test(a_queued_request_keeps_the_slot_that_it_will_find),
        cmocka_unit_test(a_short_job_overtakes_a_long_one_once),
        cmocka_unit_test(a_job_nobody_hears_ends_when_its_slot_is_wanted),
        cmocka_unit_test(a_prompt_nobody_waits_for_is_read_until_somebody_asks),
        cmocka_unit_test(a_prompt_nobody_waits_for_is_read_and_not_answered),
        cmocka_unit_test(a_job_is_heard_again),
    };
    if (!open_alone())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_alone();
    return failed;
}
