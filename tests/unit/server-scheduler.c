/* The engine's thread as a whole, with the bundled model: whatever rung a prompt's beginning
 * came from, the answer is that of a fresh engine; and nothing waits that need not. */
#include "../server_stage.h"
#include <fcntl.h>
#include <sys/stat.h>

/* ---- rungs ------------------------------------------------------------------------------------- */

static void every_rung_gives_what_a_fresh_engine_says(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Told a = ask(g, "a", 1, 690);
    assert_int_equal(a.usage.cached, 0);
    is_fresh(&a, 1, 690);
    /* rewind: the same prompt without its end */
    a = ask(g, "a", 1, 660);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 660);
    assert_true(metric(g, "ds4x_prompts_total{source=\"rewind\"} ") == 1);
    /* fork: another conversation with the same beginning */
    a = ask(g, "b", 1, 650);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 650);
    assert_true(metric(g, "ds4x_prompts_total{source=\"fork\"} ") == 1);
    end(g);
    /* memory: it has to go, and comes back */
    g = stage((StageOptions){ .slots = 1 });
    a = ask(g, "a", 1, 690);
    told_free(&a);
    a = ask(g, "c", 50, 200);
    told_free(&a);
    a = ask(g, "a", 1, 692);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 692);
    assert_true(metric(g, "ds4x_prompts_total{source=\"ram\"} ") == 1);
    assert_true(metric(g, "ds4x_kv_restored_bytes_total ") > 0);
    assert_true(logged(g, "of another conversation left the slot"));
    end(g);
}

/* It was answered, which the prompt does not say: from the mark before that. */
static void another_answer_to_the_same_is_read_from_its_last_mark(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Told a = ask(g, "a", 1, 500);
    told_free(&a);
    Job *next = job(g, "a", 1, 500);
    for (int i = 500; i < 530; i++)
        tokens_put(&next->prompt, word(1, i));
    submit(g, next);
    a = answer_of(g, next);
    assert_int_equal(a.usage.cached, 384);
    is_fresh(&a, 1, 530);
    end(g);
}

/* ---- the disk ------------------------------------------------------------------------------------ */

static void a_restart_takes_up_what_was_saved(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Told a = ask(g, "a", 1, 2500);
    told_free(&a);
    a = ask(g, "b", 2, 690); /* short: kept only since all ends */
    told_free(&a);
    end(g);
    g = stage((StageOptions){ .slots = 2, .dir = f.path });
    a = ask(g, "a", 1, 2501);
    assert_int_equal(a.usage.cached, 2432);
    is_fresh(&a, 1, 2501);
    a = ask(g, "b", 2, 691);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 2, 691);
    assert_true(metric(g, "ds4x_prompts_total{source=\"disk\"} ") == 2);
    end(g);
    remove_all(f.path, true);
}

static void flip_all(const char *path)
{
    char name[512];
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' || stat(name, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            flip_all(name);
            continue;
        }
        if (st.st_size < 20000)
            continue;
        int fd = open(name, O_RDWR);
        char c;
        assert_int_equal(pread(fd, &c, 1, st.st_size / 2), 1);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, st.st_size / 2), 1);
        close(fd);
    }
    closedir(d);
}

static void damaged_files_cost_time_and_nothing_else(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 1, .dir = f.path });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    end(g);
    flip_all(f.path);
    g = stage((StageOptions){ .slots = 1, .dir = f.path });
    a = ask(g, "a", 1, 691);
    assert_int_equal(a.usage.cached, 0);
    is_fresh(&a, 1, 691);
    assert_true(logged(g, "the store gave less than the 640 tokens that it had"));
    assert_true(metric(g, "ds4x_cache_miss_total{reason=\"store_failed\"} ") == 1);
    end(g);
    remove_all(f.path, true);
}

/* ---- company --------------------------------------------------------------------------------------- */

/* Eight conversations in three slots, three rounds, all at one time. */
static void many_conversations_share_few_slots(void **state)
{
    (void)state;
    enum { MANY = 8, ROUNDS = 3, FIRST = 200, MORE = 140 };
    char name[MANY][8];
    Stage *g = stage((StageOptions){ .slots = 3 });
    for (int r = 0; r < ROUNDS; r++) {
        Job *j[MANY];
        for (int i = 0; i < MANY; i++) {
            snprintf(name[i], sizeof name[i], "s%d", i);
            j[i] = job(g, name[i], i, FIRST + r * MORE);
            submit(g, j[i]);
        }
        for (int i = 0; i < MANY; i++) {
            Told a = answer_of(g, j[i]);
            if (r)
                assert_true(a.usage.cached >= FIRST + (r - 1) * MORE - 128 - ANSWER);
            if (i % 3 == r)
                is_fresh(&a, i, FIRST + r * MORE);
            else
                told_free(&a);
        }
    }
    end(g);
}

static void a_job_can_be_canceled_at_any_moment_of_its_entering(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 1, .dir = f.path });
    Told a = ask(g, "a", 1, 2300);
    told_free(&a);
    end(g);
    for (int us = 0; us < 12000; us += 2000) {
        g = stage((StageOptions){ .slots = 1, .dir = f.path });
        Job *j = job(g, "a", 1, 2300);
        submit(g, j);
        usleep((useconds_t)us);
        job_cancel(j, "canceled");
        scheduler_cancel(g->s, j);
        job_drop(j);
        a = ask(g, "a", 1, 2310);
        assert_true(a.usage.cached >= 2048);
        if (us == 4000)
            is_fresh(&a, 1, 2310);
        else
            told_free(&a);
        end(g);
    }
    remove_all(f.path, true);
}

/* What helpers begin with is read once, and each of them says what it would alone. */
static void helpers_that_start_together_read_their_beginning_once(void **state)
{
    (void)state;
    enum { HELPERS = 3, SHARED = 900, OWN = 40 };
    char name[HELPERS][8];
    Job *j[HELPERS];
    Stage *g = stage((StageOptions){ .slots = HELPERS });
    for (int i = 0; i < HELPERS; i++) {
        snprintf(name[i], sizeof name[i], "s%d", i);
        j[i] = job(g, name[i], 1, SHARED);
        for (int k = 0; k < OWN; k++)
            tokens_put(&j[i]->prompt, word(90 + i, k));
        job_hold(j[i]);
    }
    for (int i = 0; i < HELPERS; i++)
        submit(g, j[i]);
    for (int i = 0; i < HELPERS; i++) {
        Told a = answer_of(g, j[i]);
        Bytes want = fresh_answer(&j[i]->prompt);
        assert_true(str_eq(bytes_view(&want), bytes_view(&a.text)));
        assert_int_equal(a.usage.cached, i ? SHARED - SHARED % 128 : 0);
        bytes_release(&want);
        told_free(&a);
        job_drop(j[i]);
    }
    assert_int_equal((int)metric(g, "ds4x_prefill_tokens_total "),
                     SHARED + HELPERS * OWN + (HELPERS - 1) * (SHARED % 128));
    end(g);
}

static void helpers_do_not_wait_for_one_that_is_canceled(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Job *first = job(g, "a", 1, 1600), *second = job(g, "b", 1, 1200);
    submit(g, first);
    submit(g, second);
    usleep(100000);
    job_cancel(first, "canceled");
    scheduler_cancel(g->s, first);
    job_drop(first);
    Told a = answer_of(g, second);
    is_fresh(&a, 1, 1200);
    end(g);
}

/* One is restored while another writes its answer: both are what they would be alone. */
static void a_state_is_restored_while_others_decode(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Told a = ask(g, "a", 1, 2500);
    told_free(&a);
    end(g);
    g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Job *writes = job(g, "b", 5, 60), *comes = job(g, "a", 1, 2501);
    submit(g, writes);
    usleep(10000);
    submit(g, comes);
    a = answer_of(g, comes);
    assert_int_equal(a.usage.cached, 2432);
    is_fresh(&a, 1, 2501);
    a = answer_of(g, writes);
    is_fresh(&a, 5, 60);
    end(g);
    remove_all(f.path, true);
}

/* ---- fairness ---------------------------------------------------------------------------------------- */

/* Who decodes waits for a tenth of a second at most while a long prompt is read: of the four
 * seconds that this one takes it has 40 tokens (here 15, since the machine may be busy). And a
 * short prompt does not wait for the long one. */
static void a_long_prompt_keeps_nobody_from_the_next_token(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 3, .device = device, .context = 20000 });
    Job *writes = job(g, "a", 1, 100), *reads = job(g, "b", 2, 16000), *comes = job(g, "c", 3, 200);
    writes->turn.max_tokens = 300;
    submit(g, writes);
    while (atomic_load(&writes->generated) < 5)
        usleep(1000);
    submit(g, reads);
    submit(g, comes);
    const int before = atomic_load(&writes->generated);
    int during = 0;
    for (int now; now = atomic_load(&writes->generated), !atomic_load(&reads->generated);) {
        during = now - before;
        usleep(500);
    }
    print_message("%d tokens while a long prompt was read\n", during);
    assert_true(during >= 15);
    job_hold(comes);
    job_hold(reads);
    Job *all[] = { comes, writes, reads };
    for (size_t i = 0; i < COUNT(all); i++) {
        Told a = answer_of(g, all[i]);
        told_free(&a);
    }
    assert_true(comes->first_ns < reads->first_ns);
    job_drop(comes);
    job_drop(reads);
    end(g);
    unlink(path);
}

/* ---- prompts only -------------------------------------------------------------------------------------- */

static void a_prompt_can_be_read_ahead(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Job *j = job(g, "", 1, 690);
    j->prompt_only = true;
    submit(g, j);
    Told a = answer_of(g, j);
    assert_int_equal(a.usage.prompt, 690);
    assert_int_equal(a.usage.completion, 0);
    assert_int_equal(a.text.n, 0);
    a = ask(g, "a", 1, 700);
    assert_int_equal(a.usage.cached, 690);
    is_fresh(&a, 1, 700);
    end(g);
}

/* ---- unloading --------------------------------------------------------------------------------------------- */

static void wait_until_unloaded(Stage *g)
{
    for (int i = 0; i < 100 && !scheduler_is_unloaded(g->s); i++)
        usleep(100000);
    assert_true(scheduler_is_unloaded(g->s));
}

static void an_idle_engine_goes_and_comes_back(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2, .idle_s = 1 });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    wait_until_unloaded(g);
    Bytes status = { 0 };
    scheduler_status(g->s, &status);
    bytes_byte(&status, 0);
    assert_non_null(strstr(status.p, "\"unloaded\":true"));
    bytes_release(&status);
    assert_int_equal(ds4_encode(g->vocab, "hello", 5, false, NULL, 0) > 0, true);
    a = ask(g, "a", 1, 691);
    assert_false(scheduler_is_unloaded(g->s));
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 691);
    assert_int_equal(g->opened, 2);
    assert_true(metric(g, "ds4x_unloads_total ") == 1);
    end(g);
}

static void an_engine_that_cannot_come_back_is_asked_for_again(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1, .idle_s = 1 });
    wait_until_unloaded(g);
    pthread_mutex_lock(&g->mutex);
    g->no_engine = true;
    pthread_mutex_unlock(&g->mutex);
    Told a = ask(g, "a", 1, 100);
    assert_int_equal(a.error, 503);
    assert_true(logged(g, "no room for it"));
    pthread_mutex_lock(&g->mutex);
    g->no_engine = false;
    pthread_mutex_unlock(&g->mutex);
    a = ask(g, "a", 1, 100);
    is_fresh(&a, 1, 100);
    end(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rung_gives_what_a_fresh_engine_says),
        cmocka_unit_test(another_answer_to_the_same_is_read_from_its_last_mark),
        cmocka_unit_test(a_restart_takes_up_what_was_saved),
        cmocka_unit_test(damaged_files_cost_time_and_nothing_else),
        cmocka_unit_test(many_conversations_share_few_slots),
        cmocka_unit_test(a_job_can_be_canceled_at_any_moment_of_its_entering),
        cmocka_unit_test(helpers_that_start_together_read_their_beginning_once),
        cmocka_unit_test(helpers_do_not_wait_for_one_that_is_canceled),
        cmocka_unit_test(a_state_is_restored_while_others_decode),
        cmocka_unit_test(a_long_prompt_keeps_nobody_from_the_next_token),
        cmocka_unit_test(a_prompt_can_be_read_ahead),
        cmocka_unit_test(an_idle_engine_goes_and_comes_back),
        cmocka_unit_test(an_engine_that_cannot_come_back_is_asked_for_again),
    };
    if (!open_alone())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_alone();
    return failed;
}
