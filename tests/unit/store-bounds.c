/* Memory and disk keep their bounds: what goes first, and what stays. */
#include "../store_toy.h"
#include <fcntl.h>

static void memory_keeps_its_bound_and_loses_ends_of_chains_first(void **state)
{
    (void)state;
    const uint64_t chunk = 16 * TOY_UNIT + TOY_MARK + STORE_CHUNK * 4;
    Store *s = toy_open_ram(6 * chunk);
    StoreFound f;
    toy_save(s, toy_a, 4 * STORE_CHUNK);
    toy_tokens(toy_b, TOY_MOST, 2, 0);
    toy_save(s, toy_b, 4 * STORE_CHUNK);
    StoreCounters c = toy_counters(s);
    assert_true(c.ram_bytes <= 6 * chunk);
    assert_int_equal(c.ram_chunks, 6);
    assert_int_equal(c.evicted_ram, 2);
    /* whatever went, what is left is whole */
    int left = toy_fetch(s, toy_a, TOY_MOST, 0) + toy_fetch(s, toy_b, TOY_MOST, 0);
    assert_int_equal(left, 6 * STORE_CHUNK);
    /* what is pinned stays */
    const int before = store_find(s, toy_b, TOY_MOST, &f);
    toy_tokens(toy_a, TOY_MOST, 3, 0);
    toy_save(s, toy_a, 6 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, toy_b, TOY_MOST, 0), before);
    store_unpin(s, &f);
    toy_close(s);
}

static void the_disk_keeps_its_bound_and_loses_ends_of_chains_first(void **state)
{
    (void)state;
    const uint64_t file = TOY_FILE;
    StoreOptions opt = { .dir = toy_dir, .disk_bytes = 10 * file, .ram_bytes = 1 << 20 };
    Store *s = toy_open(opt, 1);
    toy_tokens(toy_b, TOY_MOST, 2, 0);
    toy_save(s, toy_a, 8 * STORE_CHUNK);
    toy_settle(s);
    toy_save(s, toy_b, 6 * STORE_CHUNK);
    toy_settle(s);
    StoreCounters c = toy_counters(s);
    assert_int_equal(c.evicted_disk, 4);
    assert_true(c.disk_bytes <= 10 * file);
    assert_int_equal(toy_files(toy_dir, ".kv"), 10);
    toy_close(s);
    s = toy_open(opt, 1);
    /* both are worth the same a token, a little more the later it is: ends that are near go */
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0) + toy_fetch(s, toy_b, TOY_MOST, 0),
                     10 * STORE_CHUNK);
    toy_close(s);
    /* a smaller budget holds at once */
    opt.disk_bytes = 3 * file;
    s = toy_open(opt, 1);
    toy_settle(s);
    assert_int_equal(toy_files(toy_dir, ".kv"), 3);
    toy_close(s);
}

/* In memory and on the disk: what a request that waits will find is there when it comes. */
static void what_is_reserved_stays_whatever_others_put(void **state)
{
    (void)state;
    const uint64_t file = TOY_FILE;
    for (int i = 0; i < 4; i++) {
        const bool disk = i & 1, waits = i & 2;
        Store *s = toy_open((StoreOptions){ .dir = disk ? toy_dir : NULL,
                                            .disk_bytes = 12 * file,
                                            .ram_bytes = disk ? 1 << 20 : 12 * file },
                            1);
        StoreFound held = { 0 };
        toy_save(s, toy_a, 4 * STORE_CHUNK);
        toy_settle(s);
        if (waits)
            assert_int_equal(store_reserve(s, toy_a, TOY_MOST, &held), 4 * STORE_CHUNK);
        assert_int_equal(held.n, waits ? 4 * STORE_CHUNK : 0);
        for (int who = 10; who < 16; who++) {
            toy_tokens(toy_b, TOY_MOST, who, 0);
            toy_save(s, toy_b, 8 * STORE_CHUNK);
            toy_settle(s);
        }
        const int got = toy_fetch(s, toy_a, TOY_MOST, 0);
        if ((got == 4 * STORE_CHUNK) != waits)
            fail_msg("%d tokens are there, disk %d, reserved %d", got, disk, waits);
        store_unpin(s, &held);
        assert_int_equal(toy_counters(s).reserved_bytes, 0);
        toy_close(s);
        toy_remove_dir(toy_dir);
        mkdir(toy_dir, 0700);
    }
}

/* However many wait: shared beginnings count once, and the rest is held from its beginning on. */
static void no_more_than_half_of_the_store_is_reserved(void **state)
{
    (void)state;
    const uint64_t chunk = STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK;
    Store *s = toy_open_ram(12 * chunk);
    StoreFound held[4];
    toy_tokens(toy_a, TOY_MOST, 1, 4 * STORE_CHUNK);
    toy_tokens(toy_b, TOY_MOST, 2, 4 * STORE_CHUNK);
    toy_save(s, toy_a, 5 * STORE_CHUNK);
    toy_save(s, toy_b, 7 * STORE_CHUNK);
    assert_int_equal(store_reserve(s, toy_a, TOY_MOST, &held[0]), 5 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).reserved_bytes, 5 * chunk);
    assert_int_equal(store_reserve(s, toy_b, TOY_MOST, &held[1]), 7 * STORE_CHUNK);
    assert_int_equal(held[1].n, 5 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).reserved_bytes, 6 * chunk);
    /* as long as one of them waits */
    store_unpin(s, &held[0]);
    assert_int_equal(toy_counters(s).reserved_bytes, 5 * chunk);
    store_unpin(s, &held[1]);
    assert_int_equal(toy_counters(s).reserved_bytes, 0);
    toy_tokens(toy_b, TOY_MOST, 3, 0);
    assert_int_equal(store_reserve(s, toy_b, TOY_MOST, &held[2]), 0);
    assert_null(held[2].chain);
    assert_int_equal(toy_counters(s).finds + toy_counters(s).found_tokens, 0);
    toy_close(s);
}

static void chunks_without_a_beginning_are_evicted_like_others(void **state)
{
    (void)state;
    const uint64_t file = TOY_FILE;
    StoreItem *item;
    size_t n;
    char path[256];
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 6 * STORE_CHUNK);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 6);
    toy_close(s);
    snprintf(path, sizeof path, "%s/%s.kv", toy_dir, item[0].id);
    assert_int_equal(remove(path), 0);
    free(item);
    s = toy_open((StoreOptions){ .dir = toy_dir, .disk_bytes = 3 * file, .ram_bytes = 1 << 20 }, 1);
    toy_settle(s);
    assert_int_equal(toy_files(toy_dir, ".kv"), 3);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 3);
    free(item);
    toy_close(s);
}

static void what_is_used_often_outlives_what_was_written_since(void **state)
{
    (void)state;
    const uint64_t file = TOY_FILE;
    StoreOptions opt = { .dir = toy_dir, .disk_bytes = 6 * file, .ram_bytes = 1 << 20 };
    Store *s = toy_open(opt, 1);
    toy_save(s, toy_a, 2 * STORE_CHUNK);
    assert_int_equal(toy_close(s), 0);
    /* a day of use, as the files tell it */
    DIR *d = opendir(toy_dir);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        unsigned char use[24];
        uint64_t seed;
        if (!strstr(e->d_name, ".kv"))
            continue;
        snprintf(path, sizeof path, "%s/%s", toy_dir, e->d_name);
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &seed, 8, 48), 8);
        assert_int_equal(pread(fd, use, 24, 128), 24);
        const float weight = 9;
        memcpy(use + 12, &weight, 4);
        uint64_t sum = XXH3_64bits_withSeed(use, 16, seed);
        memcpy(use + 16, &sum, 8);
        assert_int_equal(pwrite(fd, use, 24, 128), 24);
        close(fd);
    }
    closedir(d);
    s = toy_open(opt, 1);
    for (int who = 2; who < 10; who++) {
        toy_tokens(toy_b, TOY_MOST, who, 0);
        toy_save(s, toy_b, 2 * STORE_CHUNK);
        toy_settle(s);
    }
    assert_true(toy_counters(s).evicted_disk >= 12);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 2 * STORE_CHUNK);
    toy_close(s);
}

static void hits_and_last_use_survive_a_restart(void **state)
{
    (void)state;
    StoreItem *item;
    size_t n;
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 2 * STORE_CHUNK);
    toy_settle(s);
    for (int i = 0; i < 3; i++)
        toy_fetch(s, toy_a, TOY_MOST, 0);
    toy_close(s);
    s = toy_open_dir();
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 2);
    assert_int_equal(item[0].hits, 3);
    assert_int_equal(item[1].hits, 3);
    assert_string_equal(item[0].parent, "");
    assert_string_equal(item[1].parent, item[0].id);
    assert_int_equal(item[1].first, STORE_CHUNK);
    free(item);
    toy_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(memory_keeps_its_bound_and_loses_ends_of_chains_first),
        TOY_CASE(the_disk_keeps_its_bound_and_loses_ends_of_chains_first),
        TOY_CASE(what_is_reserved_stays_whatever_others_put),
        TOY_CASE(no_more_than_half_of_the_store_is_reserved),
        TOY_CASE(chunks_without_a_beginning_are_evicted_like_others),
        TOY_CASE(what_is_used_often_outlives_what_was_written_since),
        TOY_CASE(hits_and_last_use_survive_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
