/* What is put into the store comes back, from memory and from the disk, and nothing else. */
#include "../store_toy.h"

/* ---- what comes back ---------------------------------------------------------------- */

static void what_was_put_comes_back_from_memory(void **state)
{
    (void)state;
    Store *s = toy_open_ram(1 << 22);
    toy_save(s, toy_a, 7 * STORE_CHUNK + 640);
    for (int from = 0; from <= 7 * STORE_CHUNK + 640; from += 1024)
        assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, from), 7 * STORE_CHUNK + 640);
    assert_true(toy_counters(s).ram_hits > 0);
    assert_int_equal(toy_close(s), 0);
}

static void what_was_put_comes_back_after_a_restart(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 9 * STORE_CHUNK + 128);
    assert_int_equal(toy_close(s), 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), 10);
    s = toy_open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 9 * STORE_CHUNK + 128);
    assert_int_equal(toy_counters(s).disk_hits, 10);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 9 * STORE_CHUNK + 128);
    assert_int_equal(toy_counters(s).disk_hits, 10); /* they are in memory now */
    toy_close(s);
}

static void the_longest_beginning_is_found_at_every_length(void **state)
{
    (void)state;
    Store *s = toy_open_ram(1 << 22);
    StoreFound f;
    toy_save(s, toy_a, 2 * STORE_CHUNK);
    toy_put(s, toy_a, 2 * STORE_CHUNK, 2 * STORE_CHUNK + 384);
    for (int n = 0; n < 3 * STORE_CHUNK; n += 61) {
        const int want = n < STORE_CHUNK             ? 0
                         : n < 2 * STORE_CHUNK       ? STORE_CHUNK
                         : n < 2 * STORE_CHUNK + 384 ? 2 * STORE_CHUNK
                                                     : 2 * STORE_CHUNK + 384;
        assert_int_equal(store_find(s, toy_a, n, &f), want);
        store_unpin(s, &f);
    }
    /* b is the same up to 5000 */
    assert_int_equal(store_find(s, toy_b, TOY_MOST, &f), 2 * STORE_CHUNK + 384);
    store_unpin(s, &f);
    toy_b[4300]++;
    assert_int_equal(store_find(s, toy_b, TOY_MOST, &f), 2 * STORE_CHUNK);
    store_unpin(s, &f);
    toy_b[0]++;
    assert_int_equal(store_find(s, toy_b, TOY_MOST, &f), 0);
    assert_true(store_has(s, toy_a, 2 * STORE_CHUNK + 384));
    assert_false(store_has(s, toy_a, 2 * STORE_CHUNK + 256));
    assert_false(store_has(s, toy_a, 3 * STORE_CHUNK));
    toy_close(s);
}

static void another_model_or_rounding_finds_nothing(void **state)
{
    (void)state;
    StoreFound f;
    StoreModel m = toy_model(1);
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 2 * STORE_CHUNK);
    m.rounded = false;
    store_bind(s, &m);
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 0);
    toy_close(s);
    s = toy_open((StoreOptions){ .dir = toy_dir, .ram_bytes = 1 << 20 }, 2);
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 0);
    assert_int_equal(toy_counters(s).disk_chunks, 2);
    toy_close(s);
    s = toy_open_dir();
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 2 * STORE_CHUNK);
    store_unpin(s, &f);
    toy_close(s);
}

static void what_is_not_of_the_models_sizes_is_not_kept(void **state)
{
    (void)state;
    Store *s = toy_open_ram(1 << 22);
    assert_false(toy_put(s, toy_a, 128, 256));
    assert_false(toy_put(s, toy_a, 0, 100));
    assert_false(toy_put(s, toy_a, 0, STORE_CHUNK + 128));
    assert_true(toy_put(s, toy_a, 0, 128));
    assert_int_equal(toy_counters(s).ram_chunks, 1);
    /* a file of it would be taken for damaged */
    const StorePut far = { .tokens = toy_a,
                           .first = STORE_MOST,
                           .last = STORE_MOST + STORE_UNIT,
                           .rows = malloc(TOY_UNIT),
                           .mark = malloc(TOY_MARK) };
    assert_false(store_put(s, &far));
    toy_close(s);
}

static void two_conversations_share_what_they_have_in_common(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    toy_tokens(toy_b, TOY_MOST, 2, 12 * STORE_CHUNK);
    toy_tokens(toy_a, TOY_MOST, 1, 12 * STORE_CHUNK);
    toy_save(s, toy_a, 14 * STORE_CHUNK);
    toy_save(s, toy_b, 13 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).puts_known, 12);
    assert_int_equal(toy_close(s), 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), 12 + 2 + 1);
    s = toy_open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 14 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, toy_b, TOY_MOST, 0), 13 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, toy_b, 12 * STORE_CHUNK + 127, 0), 12 * STORE_CHUNK);
    toy_close(s);
}

/* ---- tails -------------------------------------------------------------------------- */

static void a_tail_ends_when_a_longer_one_or_the_whole_chunk_is_there(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    toy_save(s, toy_a, STORE_CHUNK);
    for (int n = 128; n <= STORE_CHUNK; n += 128) {
        toy_put(s, toy_a, STORE_CHUNK, STORE_CHUNK + n);
        toy_settle(s);
        assert_int_equal(toy_files(toy_dir, ".kv"), 2);
    }
    assert_int_equal(toy_counters(s).superseded, 15);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 2 * STORE_CHUNK);
    toy_close(s);
}

static void a_tail_of_other_tokens_stays(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    toy_tokens(toy_b, TOY_MOST, 2, STORE_CHUNK + 100);
    toy_save(s, toy_a, STORE_CHUNK + 256);
    toy_save(s, toy_b, STORE_CHUNK + 512);
    toy_settle(s);
    assert_int_equal(toy_counters(s).superseded, 0);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK + 256);
    assert_int_equal(toy_fetch(s, toy_b, TOY_MOST, 0), STORE_CHUNK + 512);
    toy_close(s);
}

static void a_tail_waits_and_one_that_was_replaced_is_never_written(void **state)
{
    (void)state;
    Store *s = toy_open(
        (StoreOptions){ .dir = toy_dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20, .tail_s = 60 },
        1);
    for (int n = 128; n < STORE_CHUNK; n += 128)
        toy_put(s, toy_a, 0, n);
    usleep(50000);
    assert_int_equal(toy_counters(s).written_files, 0);
    assert_int_equal(toy_counters(s).waiting_chunks, 1);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK - 128);
    assert_int_equal(toy_close(s), 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), 1);
    s = toy_open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK - 128);
    toy_close(s);
}

static void a_tail_that_adds_little_waits_longer(void **state)
{
    (void)state;
    Store *s = toy_open(
        (StoreOptions){ .dir = toy_dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20, .tail_s = 1 },
        1);
    toy_put(s, toy_a, 0, 896);
    sleep(2);
    assert_int_equal(toy_counters(s).written_files, 0);
    toy_put(s, toy_a, 0, 1024);
    toy_settle(s); /* a second */
    assert_int_equal(toy_counters(s).written_files, 1);
    toy_put(s, toy_a, 0, 1920);
    sleep(2);
    assert_int_equal(toy_counters(s).written_files, 1);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 1920); /* it is in memory */
    toy_put(s, toy_a, 0, STORE_CHUNK);
    toy_settle(s);
    assert_int_equal(toy_counters(s).written_files, 2);
    assert_int_equal(toy_files(toy_dir, ".kv"), 1);
    toy_put(s, toy_a, STORE_CHUNK, STORE_CHUNK + 128);
    assert_int_equal(toy_close(s), 0);
    s = toy_open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK + 128);
    toy_close(s);
}

/* ---- many threads ------------------------------------------------------------------- */

typedef struct {
    Store *s;
    int who, wrong;
} Worker;

static void *work(void *arg)
{
    Worker *w = arg;
    int32_t *t = malloc(TOY_MOST * sizeof *t);
    for (int round = 0; round < 12; round++) {
        StoreFound f;
        toy_tokens(t, TOY_MOST, w->who * 100 + round % 4, 2 * STORE_CHUNK + 500);
        const int n = (2 + round % 5) * STORE_CHUNK + round * 128 % STORE_CHUNK;
        toy_save(w->s, t, n);
        const int got = toy_fetch(w->s, t, TOY_MOST, round % 3 * STORE_CHUNK);
        w->wrong += got < 0;
        if (store_find(w->s, t, TOY_MOST, &f)) {
            StorePiece p;
            StoreFetch *fetch = store_fetch(w->s, &f, 0); /* and given up at once */
            store_next(fetch, &p);
            store_fetch_close(fetch);
            store_unpin(w->s, &f);
        }
        if (round == 7) {
            StoreItem *item;
            size_t k, gone;
            uint64_t bytes;
            if (store_list(w->s, &item, &k) && k)
                store_remove(w->s, item[k / 2].id, &gone, &bytes, NULL);
            free(item);
        }
    }
    free(t);
    return NULL;
}

static void threads_that_put_find_fetch_and_remove_get_nothing_wrong(void **state)
{
    (void)state;
    const uint64_t file = TOY_FILE;
    Store *s = toy_open(
        (StoreOptions){ .dir = toy_dir, .disk_bytes = 30 * file, .ram_bytes = 8 * file }, 1);
    Worker w[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (Worker){ .s = s, .who = i };
        pthread_create(&thread[i], NULL, work, &w[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(w[i].wrong, 0);
    }
    toy_settle(s);
    StoreCounters c = toy_counters(s);
    assert_true(c.disk_bytes <= 30 * file);
    assert_int_equal(c.bad_checksum + c.bad_header + c.bad_name + c.bad_size, 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), c.disk_chunks);
    assert_int_equal(toy_close(s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(what_was_put_comes_back_from_memory),
        TOY_CASE(what_was_put_comes_back_after_a_restart),
        TOY_CASE(the_longest_beginning_is_found_at_every_length),
        TOY_CASE(another_model_or_rounding_finds_nothing),
        TOY_CASE(what_is_not_of_the_models_sizes_is_not_kept),
        TOY_CASE(two_conversations_share_what_they_have_in_common),
        TOY_CASE(a_tail_ends_when_a_longer_one_or_the_whole_chunk_is_there),
        TOY_CASE(a_tail_of_other_tokens_stays),
        TOY_CASE(a_tail_waits_and_one_that_was_replaced_is_never_written),
        TOY_CASE(a_tail_that_adds_little_waits_longer),
        TOY_CASE(threads_that_put_find_fetch_and_remove_get_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
