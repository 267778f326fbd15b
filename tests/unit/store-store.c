/* What is put into the store comes back, from memory and from the disk, and nothing else. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include "../store_toy.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <cmocka.h>

static char dir[64];
static int32_t a[TOY_MOST], b[TOY_MOST];
static char lines[64][1024];
static int n_lines;
static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(void *user, const char *line)
{
    (void)user;
    pthread_mutex_lock(&lines_lock);
    if (n_lines < 64)
        snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
    pthread_mutex_unlock(&lines_lock);
}

static bool was_said(const char *words)
{
    bool said = false;
    pthread_mutex_lock(&lines_lock);
    for (int i = 0; i < n_lines; i++)
        said |= strstr(lines[i], words) != NULL;
    pthread_mutex_unlock(&lines_lock);
    return said;
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ds4-test-XXXXXX");
    toy_tokens(a, TOY_MOST, 1, 5000);
    toy_tokens(b, TOY_MOST, 2, 5000);
    n_lines = 0;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    toy_remove_dir(dir);
    return 0;
}

static Store *open_with(StoreOptions opt, int model)
{
    ds4_err err = { 0 };
    StoreModel m = toy_model(model);
    opt.log = keep_line;
    Store *s = store_open(&opt, &err);
    if (!s)
        fail_msg("%s", err.msg);
    store_bind(s, &m);
    return s;
}

static Store *open_dir(void)
{
    return open_with((StoreOptions){ .dir = dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20 }, 1);
}

static Store *open_ram(uint64_t bytes)
{
    return open_with((StoreOptions){ .ram_bytes = bytes }, 1);
}

#define SOON (clock_ns() + (int64_t)20000000000)

static int close_store(Store *s) { return (int)store_close(s, SOON); }

/* ---- what comes back ------------------------------------------------------------------- */

static void what_was_put_comes_back_from_memory(void **state)
{
    (void)state;
    Store *s = open_ram(1 << 22);
    toy_save(s, a, 7 * STORE_CHUNK + 640);
    for (int from = 0; from <= 7 * STORE_CHUNK + 640; from += 1024)
        assert_int_equal(toy_fetch(s, a, TOY_MOST, from), 7 * STORE_CHUNK + 640);
    assert_true(toy_counters(s).ram_hits > 0);
    assert_int_equal(close_store(s), 0);
}

static void what_was_put_comes_back_after_a_restart(void **state)
{
    (void)state;
    Store *s = open_dir();
    toy_save(s, a, 9 * STORE_CHUNK + 128);
    assert_int_equal(close_store(s), 0);
    assert_int_equal(toy_files(dir, ".kv"), 10);
    s = open_dir();
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 9 * STORE_CHUNK + 128);
    assert_int_equal(toy_counters(s).disk_hits, 10);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 9 * STORE_CHUNK + 128);
    assert_int_equal(toy_counters(s).disk_hits, 10); /* they are in memory now */
    close_store(s);
}

static void the_longest_beginning_is_found_at_every_length(void **state)
{
    (void)state;
    Store *s = open_ram(1 << 22);
    StoreFound f;
    toy_save(s, a, 2 * STORE_CHUNK);
    toy_put(s, a, 2 * STORE_CHUNK, 2 * STORE_CHUNK + 384);
    for (int n = 0; n < 3 * STORE_CHUNK; n += 61) {
        const int want = n < STORE_CHUNK             ? 0
                         : n < 2 * STORE_CHUNK       ? STORE_CHUNK
                         : n < 2 * STORE_CHUNK + 384 ? 2 * STORE_CHUNK
                                                     : 2 * STORE_CHUNK + 384;
        assert_int_equal(store_find(s, a, n, &f), want);
        store_unpin(s, &f);
    }
    /* b is the same up to 5000 */
    assert_int_equal(store_find(s, b, TOY_MOST, &f), 2 * STORE_CHUNK + 384);
    store_unpin(s, &f);
    b[4300]++;
    assert_int_equal(store_find(s, b, TOY_MOST, &f), 2 * STORE_CHUNK);
    store_unpin(s, &f);
    b[0]++;
    assert_int_equal(store_find(s, b, TOY_MOST, &f), 0);
    assert_true(store_has(s, a, 2 * STORE_CHUNK + 384));
    assert_false(store_has(s, a, 2 * STORE_CHUNK + 256));
    assert_false(store_has(s, a, 3 * STORE_CHUNK));
    close_store(s);
}

static void another_model_or_rounding_finds_nothing(void **state)
{
    (void)state;
    StoreFound f;
    StoreModel m = toy_model(1);
    Store *s = open_dir();
    toy_save(s, a, 2 * STORE_CHUNK);
    m.rounded = false;
    store_bind(s, &m);
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 0);
    close_store(s);
    s = open_with((StoreOptions){ .dir = dir, .ram_bytes = 1 << 20 }, 2);
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 0);
    assert_int_equal(toy_counters(s).disk_chunks, 2);
    close_store(s);
    s = open_dir();
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 2 * STORE_CHUNK);
    store_unpin(s, &f);
    close_store(s);
}

static void what_is_not_of_the_models_sizes_is_not_kept(void **state)
{
    (void)state;
    Store *s = open_ram(1 << 22);
    assert_false(toy_put(s, a, 128, 256));
    assert_false(toy_put(s, a, 0, 100));
    assert_false(toy_put(s, a, 0, STORE_CHUNK + 128));
    assert_true(toy_put(s, a, 0, 128));
    assert_int_equal(toy_counters(s).ram_chunks, 1);
    close_store(s);
}

static void two_conversations_share_what_they_have_in_common(void **state)
{
    (void)state;
    Store *s = open_dir();
    toy_tokens(b, TOY_MOST, 2, 12 * STORE_CHUNK);
    toy_tokens(a, TOY_MOST, 1, 12 * STORE_CHUNK);
    toy_save(s, a, 14 * STORE_CHUNK);
    toy_save(s, b, 13 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).puts_known, 12);
    assert_int_equal(close_store(s), 0);
    assert_int_equal(toy_files(dir, ".kv"), 12 + 2 + 1);
    s = open_dir();
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 14 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, b, TOY_MOST, 0), 13 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, b, 12 * STORE_CHUNK + 127, 0), 12 * STORE_CHUNK);
    close_store(s);
}

/* ---- tails ------------------------------------------------------------------------------ */

static void a_tail_ends_when_a_longer_one_or_the_whole_chunk_is_there(void **state)
{
    (void)state;
    Store *s = open_dir();
    toy_save(s, a, STORE_CHUNK);
    for (int n = 128; n <= STORE_CHUNK; n += 128) {
        toy_put(s, a, STORE_CHUNK, STORE_CHUNK + n);
        toy_settle(s);
        assert_int_equal(toy_files(dir, ".kv"), 2);
    }
    assert_int_equal(toy_counters(s).superseded, 15);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 2 * STORE_CHUNK);
    close_store(s);
}

static void a_tail_of_other_tokens_stays(void **state)
{
    (void)state;
    Store *s = open_dir();
    toy_tokens(b, TOY_MOST, 2, STORE_CHUNK + 100);
    toy_save(s, a, STORE_CHUNK + 256);
    toy_save(s, b, STORE_CHUNK + 512);
    toy_settle(s);
    assert_int_equal(toy_counters(s).superseded, 0);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), STORE_CHUNK + 256);
    assert_int_equal(toy_fetch(s, b, TOY_MOST, 0), STORE_CHUNK + 512);
    close_store(s);
}

static void a_tail_waits_and_one_that_was_replaced_is_never_written(void **state)
{
    (void)state;
    Store *s = open_with(
        (StoreOptions){ .dir = dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20, .tail_s = 60 }, 1);
    for (int n = 128; n < STORE_CHUNK; n += 128)
        toy_put(s, a, 0, n);
    usleep(50000);
    assert_int_equal(toy_counters(s).written_files, 0);
    assert_int_equal(toy_counters(s).waiting_chunks, 1);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), STORE_CHUNK - 128);
    assert_int_equal(close_store(s), 0);
    assert_int_equal(toy_files(dir, ".kv"), 1);
    s = open_dir();
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), STORE_CHUNK - 128);
    close_store(s);
}

static void a_tail_that_adds_little_waits_longer(void **state)
{
    (void)state;
    Store *s = open_with(
        (StoreOptions){ .dir = dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20, .tail_s = 1 }, 1);
    toy_put(s, a, 0, 896);
    sleep(2);
    assert_int_equal(toy_counters(s).written_files, 0);
    toy_put(s, a, 0, 1024);
    toy_settle(s); /* a second */
    assert_int_equal(toy_counters(s).written_files, 1);
    toy_put(s, a, 0, 1920);
    sleep(2);
    assert_int_equal(toy_counters(s).written_files, 1);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 1920); /* it is in memory */
    toy_put(s, a, 0, STORE_CHUNK);
    toy_settle(s);
    assert_int_equal(toy_counters(s).written_files, 2);
    assert_int_equal(toy_files(dir, ".kv"), 1);
    toy_put(s, a, STORE_CHUNK, STORE_CHUNK + 128);
    assert_int_equal(close_store(s), 0);
    s = open_dir();
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), STORE_CHUNK + 128);
    close_store(s);
}

/* ---- bounds ------------------------------------------------------------------------------- */

static void memory_keeps_its_bound_and_loses_ends_of_chains_first(void **state)
{
    (void)state;
    const uint64_t chunk = 16 * TOY_UNIT + TOY_MARK + STORE_CHUNK * 4;
    Store *s = open_ram(6 * chunk);
    StoreFound f;
    toy_save(s, a, 4 * STORE_CHUNK);
    toy_tokens(b, TOY_MOST, 2, 0);
    toy_save(s, b, 4 * STORE_CHUNK);
    StoreCounters c = toy_counters(s);
    assert_true(c.ram_bytes <= 6 * chunk);
    assert_int_equal(c.ram_chunks, 6);
    assert_int_equal(c.evicted_ram, 2);
    /* whatever went, what is left is whole */
    int left = toy_fetch(s, a, TOY_MOST, 0) + toy_fetch(s, b, TOY_MOST, 0);
    assert_int_equal(left, 6 * STORE_CHUNK);
    /* what is pinned stays */
    const int before = store_find(s, b, TOY_MOST, &f);
    toy_tokens(a, TOY_MOST, 3, 0);
    toy_save(s, a, 6 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, b, TOY_MOST, 0), before);
    store_unpin(s, &f);
    close_store(s);
}

static void the_disk_keeps_its_bound_and_loses_ends_of_chains_first(void **state)
{
    (void)state;
    const uint64_t file = 128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8;
    StoreOptions opt = { .dir = dir, .disk_bytes = 10 * file, .ram_bytes = 1 << 20 };
    Store *s = open_with(opt, 1);
    toy_tokens(b, TOY_MOST, 2, 0);
    toy_save(s, a, 8 * STORE_CHUNK);
    toy_settle(s);
    toy_save(s, b, 6 * STORE_CHUNK);
    toy_settle(s);
    StoreCounters c = toy_counters(s);
    assert_int_equal(c.evicted_disk, 4);
    assert_true(c.disk_bytes <= 10 * file);
    assert_int_equal(toy_files(dir, ".kv"), 10);
    close_store(s);
    s = open_with(opt, 1);
    /* both are worth the same a token, a little more the later it is: ends that are near go */
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0) + toy_fetch(s, b, TOY_MOST, 0), 10 * STORE_CHUNK);
    close_store(s);
    /* a smaller budget holds at once */
    opt.disk_bytes = 3 * file;
    s = open_with(opt, 1);
    toy_settle(s);
    assert_int_equal(toy_files(dir, ".kv"), 3);
    close_store(s);
}

/* In memory and on the disk: what a request that waits will find is there when it comes. */
static void what_is_reserved_stays_whatever_others_put(void **state)
{
    (void)state;
    const uint64_t file = 128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8;
    for (int i = 0; i < 4; i++) {
        const bool disk = i & 1, waits = i & 2;
        Store *s = open_with((StoreOptions){ .dir = disk ? dir : NULL,
                                             .disk_bytes = 12 * file,
                                             .ram_bytes = disk ? 1 << 20 : 12 * file },
                             1);
        StoreFound held = { 0 };
        toy_save(s, a, 4 * STORE_CHUNK);
        toy_settle(s);
        if (waits)
            assert_int_equal(store_reserve(s, a, TOY_MOST, &held), 4 * STORE_CHUNK);
        assert_int_equal(held.n, waits ? 4 * STORE_CHUNK : 0);
        for (int who = 10; who < 16; who++) {
            toy_tokens(b, TOY_MOST, who, 0);
            toy_save(s, b, 8 * STORE_CHUNK);
            toy_settle(s);
        }
        const int got = toy_fetch(s, a, TOY_MOST, 0);
        if ((got == 4 * STORE_CHUNK) != waits)
            fail_msg("%d tokens are there, disk %d, reserved %d", got, disk, waits);
        store_unpin(s, &held);
        assert_int_equal(toy_counters(s).reserved_bytes, 0);
        close_store(s);
        toy_remove_dir(dir);
        mkdir(dir, 0700);
    }
}

/* However many wait: shared beginnings count once, and the rest is held from its beginning on. */
static void no_more_than_half_of_the_store_is_reserved(void **state)
{
    (void)state;
    const uint64_t chunk = STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK;
    Store *s = open_ram(12 * chunk);
    StoreFound held[4];
    toy_tokens(a, TOY_MOST, 1, 4 * STORE_CHUNK);
    toy_tokens(b, TOY_MOST, 2, 4 * STORE_CHUNK);
    toy_save(s, a, 5 * STORE_CHUNK);
    toy_save(s, b, 7 * STORE_CHUNK);
    assert_int_equal(store_reserve(s, a, TOY_MOST, &held[0]), 5 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).reserved_bytes, 5 * chunk);
    assert_int_equal(store_reserve(s, b, TOY_MOST, &held[1]), 7 * STORE_CHUNK);
    assert_int_equal(held[1].n, 5 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).reserved_bytes, 6 * chunk);
    /* as long as one of them waits */
    store_unpin(s, &held[0]);
    assert_int_equal(toy_counters(s).reserved_bytes, 5 * chunk);
    store_unpin(s, &held[1]);
    assert_int_equal(toy_counters(s).reserved_bytes, 0);
    toy_tokens(b, TOY_MOST, 3, 0);
    assert_int_equal(store_reserve(s, b, TOY_MOST, &held[2]), 0);
    assert_null(held[2].chain);
    close_store(s);
}

static void chunks_without_a_beginning_are_evicted_like_others(void **state)
{
    (void)state;
    const uint64_t file = 128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8;
    StoreItem *item;
    size_t n;
    char path[256];
    Store *s = open_dir();
    toy_save(s, a, 6 * STORE_CHUNK);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 6);
    close_store(s);
    snprintf(path, sizeof path, "%s/%s.kv", dir, item[0].id);
    assert_int_equal(remove(path), 0);
    free(item);
    s = open_with((StoreOptions){ .dir = dir, .disk_bytes = 3 * file, .ram_bytes = 1 << 20 }, 1);
    toy_settle(s);
    assert_int_equal(toy_files(dir, ".kv"), 3);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 3);
    free(item);
    close_store(s);
}

static void what_is_used_often_outlives_what_was_written_since(void **state)
{
    (void)state;
    const uint64_t file = 128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8;
    StoreOptions opt = { .dir = dir, .disk_bytes = 6 * file, .ram_bytes = 1 << 20 };
    Store *s = open_with(opt, 1);
    toy_save(s, a, 2 * STORE_CHUNK);
    assert_int_equal(close_store(s), 0);
    /* a day of use, as the files tell it */
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        unsigned char use[24];
        uint64_t seed;
        if (!strstr(e->d_name, ".kv"))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
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
    s = open_with(opt, 1);
    for (int who = 2; who < 10; who++) {
        toy_tokens(b, TOY_MOST, who, 0);
        toy_save(s, b, 2 * STORE_CHUNK);
        toy_settle(s);
    }
    assert_true(toy_counters(s).evicted_disk >= 12);
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 2 * STORE_CHUNK);
    close_store(s);
}

static void hits_and_last_use_survive_a_restart(void **state)
{
    (void)state;
    StoreItem *item;
    size_t n;
    Store *s = open_dir();
    toy_save(s, a, 2 * STORE_CHUNK);
    toy_settle(s);
    for (int i = 0; i < 3; i++)
        toy_fetch(s, a, TOY_MOST, 0);
    close_store(s);
    s = open_dir();
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 2);
    assert_int_equal(item[0].hits, 3);
    assert_int_equal(item[1].hits, 3);
    assert_string_equal(item[0].parent, "");
    assert_string_equal(item[1].parent, item[0].id);
    assert_int_equal(item[1].first, STORE_CHUNK);
    free(item);
    close_store(s);
}

/* ---- removing ------------------------------------------------------------------------------ */

static void removing_a_chunk_takes_what_goes_on_from_it(void **state)
{
    (void)state;
    StoreItem *item;
    size_t n, gone;
    uint64_t bytes;
    ds4_err err;
    StoreFound f;
    Store *s = open_dir();
    toy_save(s, a, 5 * STORE_CHUNK + 256);
    toy_settle(s);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 6);
    assert_false(store_remove(s, "", &gone, &bytes, &err));
    assert_false(store_remove(s, "zz", &gone, &bytes, &err));
    assert_true(store_remove(s, item[2].id, &gone, &bytes, &err));
    assert_int_equal(gone, 4);
    toy_settle(s);
    assert_int_equal(toy_files(dir, ".kv"), 2);
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 2 * STORE_CHUNK);
    /* also while somebody reads it */
    StoreFetch *fetch = store_fetch(s, &f, 0);
    assert_true(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(gone, 2);
    StorePiece p;
    while (store_next(fetch, &p) != STORE_END)
        usleep(100);
    store_fetch_close(fetch);
    store_unpin(s, &f);
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 0);
    free(item);
    toy_settle(s);
    assert_int_equal(toy_files(dir, ".kv"), 0);
    assert_int_equal(toy_counters(s).ram_bytes, 0);
    close_store(s);
}

/* The log, called while a chunk is being written, waits until it is let go. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool here, go;
} Gate;

static void wait_at_gate(void *user, const char *line)
{
    Gate *g = user;
    if (!strstr(line, "not written"))
        return;
    pthread_mutex_lock(&g->lock);
    g->here = true;
    pthread_cond_broadcast(&g->changed);
    while (!g->go)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static size_t listed(Store *s)
{
    StoreItem *item;
    size_t n;
    assert_true(store_list(s, &item, &n));
    free(item);
    return n;
}

static void a_chunk_removed_while_it_is_written_is_gone_at_once(void **state)
{
    (void)state;
    Gate gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    StoreOptions opt = { .dir = dir, .ram_bytes = 1 << 20, .log = wait_at_gate, .user = &gate };
    StoreModel m = toy_model(1);
    StoreItem *item;
    StoreFound f;
    size_t n, gone;
    uint64_t bytes;
    ds4_err err = { 0 };
    Store *s = store_open(&opt, &err);
    assert_non_null(s);
    store_bind(s, &m);
    toy_remove_dir(dir); /* so that it cannot be written, which is told meanwhile */
    assert_true(toy_put(s, a, 0, STORE_CHUNK));
    pthread_mutex_lock(&gate.lock);
    while (!gate.here)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 1);
    assert_true(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(gone, 1);
    assert_int_equal(listed(s), 0);
    assert_false(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(store_find(s, a, TOY_MOST, &f), 0);
    assert_false(store_has(s, a, STORE_CHUNK));
    /* one that is put now would go with it: so it is not taken for kept */
    assert_false(toy_put(s, a, 0, STORE_CHUNK));
    pthread_mutex_lock(&gate.lock);
    gate.go = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    toy_settle(s);
    assert_int_equal(toy_counters(s).ram_bytes, 0);
    assert_true(toy_put(s, a, 0, STORE_CHUNK));
    assert_int_equal(listed(s), 1);
    free(item);
    close_store(s);
}

static void what_is_removed_at_any_moment_of_its_writing_leaves_nothing(void **state)
{
    (void)state;
    Store *s = open_dir();
    for (int round = 0; round < 150; round++) {
        StoreItem *item;
        size_t n, gone;
        uint64_t bytes;
        ds4_err err;
        toy_save(s, a, 2 * STORE_CHUNK + 128 * (round % 5));
        usleep((unsigned)(round * 7));
        assert_true(store_list(s, &item, &n));
        for (size_t i = 0; i < n; i++)
            if (item[i].first == 0)
                assert_true(store_remove(s, item[i].id, &gone, &bytes, &err));
        assert_int_equal(gone, n);
        assert_int_equal(listed(s), 0);
        free(item);
        toy_settle(s);
        assert_int_equal(toy_files(dir, ".kv"), 0);
        assert_int_equal(toy_counters(s).ram_bytes + toy_counters(s).disk_bytes, 0);
    }
    close_store(s);
}

/* ---- the directory ------------------------------------------------------------------------- */

static void a_second_store_is_refused_with_the_pid_of_the_first(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    char pid[32];
    Store *s = open_dir();
    assert_null(store_open(&(StoreOptions){ .dir = dir }, &err));
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_non_null(strstr(err.msg, pid));
    assert_non_null(strstr(err.msg, dir));
    close_store(s);
    close_store(open_dir());
}

static void files_are_private(void **state)
{
    (void)state;
    struct stat st;
    char path[512];
    snprintf(path, sizeof path, "%s/deep/er/", dir);
    Store *s = open_with((StoreOptions){ .dir = path, .ram_bytes = 1 << 20 }, 1);
    toy_save(s, a, STORE_CHUNK);
    uint8_t secret[32], again[32];
    assert_true(store_secret(s, secret, NULL));
    assert_true(store_secret(s, again, NULL));
    assert_memory_equal(secret, again, 32);
    close_store(s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        assert_int_equal(fstatat(dirfd(d), e->d_name, &st, 0), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 3); /* chunk, lock, secret */
    s = open_with((StoreOptions){ .dir = path, .ram_bytes = 1 << 20 }, 1);
    assert_true(store_secret(s, again, NULL));
    assert_memory_equal(secret, again, 32);
    close_store(s);
}

static void write_file(const char *name, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    for (size_t i = 0; i < n; i++)
        fputc((int)i, f);
    fclose(f);
}

static void foreign_files_count_and_stay(void **state)
{
    (void)state;
    char path[512];
    write_file("notes.txt", 3000000);
    snprintf(path, sizeof path, "%s/sub", dir);
    mkdir(path, 0700);
    write_file("sub/more.kv", 2000000);
    write_file("0123456789012345678901234567890123456789.kv.bak", 10);
    StoreOptions opt = { .dir = dir, .disk_bytes = 5100000, .ram_bytes = 1 << 20 };
    Store *s = open_with(opt, 1);
    StoreCounters c = toy_counters(s);
    assert_int_equal(c.foreign_files, 3);
    assert_int_equal(c.foreign_bytes, 5000010);
    assert_true(was_said("3 files"));
    toy_save(s, a, 20 * STORE_CHUNK);
    toy_settle(s);
    c = toy_counters(s);
    assert_true(c.disk_bytes + c.foreign_bytes <= opt.disk_bytes);
    assert_true(c.disk_chunks > 0);
    close_store(s);
    /* nothing but foreign files has room: everything is given up, nothing breaks */
    opt.disk_bytes = 4000000;
    s = open_with(opt, 1);
    toy_save(s, a, 3 * STORE_CHUNK);
    toy_settle(s);
    assert_int_equal(toy_counters(s).disk_chunks, 0);
    assert_int_equal(toy_counters(s).failed_writes, 3);
    assert_true(was_said("no room"));
    assert_int_equal(toy_fetch(s, a, TOY_MOST, 0), 3 * STORE_CHUNK);
    close_store(s);
    assert_int_equal(toy_files(dir, "notes.txt"), 1);
    assert_int_equal(toy_files(path, "more.kv"), 1);
    assert_int_equal(toy_files(dir, ".bak"), 1);
}

static void half_written_files_are_removed_at_start(void **state)
{
    (void)state;
    write_file("0123456789012345678901234567890123456789.kv.tmp-77", 1000);
    write_file("recall.journal.tmp-12", 1000);
    write_file("mine.tmp-12", 1000);
    Store *s = open_dir();
    assert_int_equal(toy_counters(s).leftovers, 2);
    assert_int_equal(toy_counters(s).foreign_files, 1);
    close_store(s);
    assert_int_equal(toy_files(dir, ".tmp-77"), 0);
    assert_int_equal(toy_files(dir, ".tmp-12"), 1);
}

/* Root may write anywhere, so somebody else tries. */
static int as_nobody(void (*fn)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(77);
        fn();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static void read_only_child(void)
{
    ds4_err err = { 0 };
    StoreModel m = toy_model(1);
    Store *s = store_open(
        &(StoreOptions){ .dir = dir, .disk_bytes = 1, .ram_bytes = 1 << 20, .log = keep_line },
        &err);
    if (!s)
        _exit(1);
    store_bind(s, &m);
    if (!was_said("cannot be written") || toy_counters(s).writable)
        _exit(2);
    if (toy_fetch(s, a, TOY_MOST, 0) != 3 * STORE_CHUNK)
        _exit(3);
    toy_put(s, a, 3 * STORE_CHUNK, 4 * STORE_CHUNK);
    if (toy_fetch(s, a, TOY_MOST, 0) != 4 * STORE_CHUNK)
        _exit(4);
    if (store_close(s, SOON) != 0)
        _exit(5);
}

static void a_directory_that_cannot_be_written_is_read(void **state)
{
    (void)state;
    Store *s = open_dir();
    toy_save(s, a, 3 * STORE_CHUNK);
    close_store(s);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            fchmodat(dirfd(d), e->d_name, 0444, 0);
    closedir(d);
    chmod(dir, 0555);
    const int status = as_nobody(read_only_child);
    chmod(dir, 0700);
    if (status == 77) {
        print_message("skipped: cannot become another user\n");
        skip();
    }
    assert_int_equal(status, 0);
    assert_int_equal(toy_files(dir, ".kv"), 3);
}

static void closing_in_no_time_says_what_was_lost(void **state)
{
    (void)state;
    Store *s = open_with((StoreOptions){ .dir = dir, .ram_bytes = 1 << 20, .tail_s = 60 }, 1);
    toy_put(s, a, 0, 256);
    assert_int_equal(store_close(s, 0), 1);
    assert_true(was_said("1 chunks"));
    assert_int_equal(toy_files(dir, ".kv"), 0);
    assert_int_equal(toy_files(dir, "lock"), 1);
}

/* ---- many threads --------------------------------------------------------------------------- */

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
    const uint64_t file = 128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8;
    Store *s =
        open_with((StoreOptions){ .dir = dir, .disk_bytes = 30 * file, .ram_bytes = 8 * file }, 1);
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
    assert_int_equal(toy_files(dir, ".kv"), c.disk_chunks);
    assert_int_equal(close_store(s), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        CASE(what_was_put_comes_back_from_memory),
        CASE(what_was_put_comes_back_after_a_restart),
        CASE(the_longest_beginning_is_found_at_every_length),
        CASE(another_model_or_rounding_finds_nothing),
        CASE(what_is_not_of_the_models_sizes_is_not_kept),
        CASE(two_conversations_share_what_they_have_in_common),
        CASE(a_tail_ends_when_a_longer_one_or_the_whole_chunk_is_there),
        CASE(a_tail_of_other_tokens_stays),
        CASE(a_tail_waits_and_one_that_was_replaced_is_never_written),
        CASE(a_tail_that_adds_little_waits_longer),
        CASE(memory_keeps_its_bound_and_loses_ends_of_chains_first),
        CASE(the_disk_keeps_its_bound_and_loses_ends_of_chains_first),
        CASE(what_is_reserved_stays_whatever_others_put),
        CASE(no_more_than_half_of_the_store_is_reserved),
        CASE(chunks_without_a_beginning_are_evicted_like_others),
        CASE(what_is_used_often_outlives_what_was_written_since),
        CASE(hits_and_last_use_survive_a_restart),
        CASE(removing_a_chunk_takes_what_goes_on_from_it),
        CASE(a_chunk_removed_while_it_is_written_is_gone_at_once),
        CASE(what_is_removed_at_any_moment_of_its_writing_leaves_nothing),
        CASE(a_second_store_is_refused_with_the_pid_of_the_first),
        CASE(files_are_private),
        CASE(foreign_files_count_and_stay),
        CASE(half_written_files_are_removed_at_start),
        CASE(a_directory_that_cannot_be_written_is_read),
        CASE(closing_in_no_time_says_what_was_lost),
        CASE(threads_that_put_find_fetch_and_remove_get_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
