/* Records come back after a restart, in their order, whatever became of others. */
#include "../store_toy.h"
#include "../../src/store/journal.h"
#include "../../src/store/record.h"
#include <signal.h>
#include <sys/resource.h>

typedef struct {
    size_t n;
    uint64_t key[20000];
    Bytes text[20000];
} Told;
static Told told;

static void tell(void *user, uint64_t key, Str record)
{
    Told *t = user;
    t->key[t->n] = key;
    bytes_clear(&t->text[t->n]);
    bytes_put(&t->text[t->n++], record.p, record.n);
}

static int release(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(told.text); i++)
        bytes_release(&told.text[i]);
    return 0;
}

typedef struct {
    Store *s;
    Journal *j;
} Both;

static Both open_both(uint64_t max_bytes, uint32_t version)
{
    ds4_err err = { 0 };
    Both b = { .s = store_open(&(StoreOptions){ .dir = toy_dir, .log = toy_hear }, &err) };
    if (!b.s)
        fail_msg("%s", err.msg);
    told.n = 0;
    b.j = journal_open(b.s,
                       &(JournalOptions){ .name = "test",
                                          .version = version,
                                          .max_bytes = max_bytes,
                                          .max_record = 100000,
                                          .each = tell,
                                          .user = &told },
                       &err);
    if (!b.j)
        fail_msg("%s", err.msg);
    return b;
}

static void close_both(Both b) { store_close(b.s, 0); }

/* Record i: its length and bytes follow from its key and a number. */
static void make_record(Bytes *out, uint64_t key, int number)
{
    bytes_clear(out);
    for (size_t i = 0; i < 20 + key % 300; i++)
        bytes_byte(out, (unsigned char)(key * 7 + (size_t)number * 13 + i));
}

static void put(Both b, uint64_t key, int number)
{
    Bytes r = { 0 };
    make_record(&r, key, number);
    assert_true(journal_put(b.j, key, bytes_view(&r)));
    bytes_release(&r);
}

static void is_told(size_t i, uint64_t key, int number)
{
    Bytes r = { 0 };
    make_record(&r, key, number);
    assert_true(i < told.n);
    assert_int_equal(told.key[i], key);
    assert_int_equal(told.text[i].n, r.n);
    assert_memory_equal(told.text[i].p, r.p, r.n);
    bytes_release(&r);
}

static JournalCounters counters(Both b)
{
    JournalCounters c;
    journal_counters(b.j, &c);
    return c;
}

static const char *path(void)
{
    static char p[128];
    snprintf(p, sizeof p, "%s/test.journal", toy_dir);
    return p;
}

static Bytes whole_file(void)
{
    Bytes b = { 0 };
    assert_true(file_read(&b, path(), 1 << 28, NULL));
    return b;
}

static void write_whole(const char *p, size_t n)
{
    FILE *f = fopen(path(), "w");
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* ---- claims ------------------------------------------------------------------------------ */

static void records_come_back_oldest_first(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    assert_int_equal(told.n, 0);
    for (uint64_t k = 0; k < 1000; k++)
        put(b, k * 0x100000001ull, 0);
    close_both(b);
    b = open_both(1 << 20, 1);
    assert_int_equal(told.n, 1000);
    for (uint64_t k = 0; k < 1000; k++)
        is_told(k, k * 0x100000001ull, 0);
    close_both(b);
}

static void a_record_replaces_the_one_of_its_key_and_one_can_be_dropped(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    for (int round = 0; round < 3; round++)
        for (uint64_t k = 0; k < 10; k++)
            put(b, k, round);
    journal_drop(b.j, 4);
    journal_drop(b.j, 4000);
    put(b, 2, 9);
    assert_int_equal(counters(b).records, 9);
    close_both(b);
    b = open_both(1 << 20, 1);
    const uint64_t order[] = { 0, 1, 3, 5, 6, 7, 8, 9 };
    assert_int_equal(told.n, 9);
    for (size_t i = 0; i < 8; i++)
        is_told(i, order[i], 2);
    is_told(8, 2, 9);
    close_both(b);
}

static void the_oldest_go_when_there_is_too_much(void **state)
{
    (void)state;
    Both b = open_both(20000, 1);
    for (uint64_t k = 0; k < 500; k++)
        put(b, k, 0);
    const uint64_t left = counters(b).records;
    assert_true(counters(b).live_bytes <= 20000);
    assert_true(left > 50);
    close_both(b);
    b = open_both(20000, 1);
    assert_int_equal(told.n, left);
    for (uint64_t i = 0; i < left; i++)
        is_told(i, 500 - left + i, 0);
    close_both(b);
}

static void a_file_that_is_mostly_dead_is_made_anew(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    for (int round = 0; round < 200; round++) {
        for (uint64_t k = 0; k < 100; k++)
            put(b, k, round);
        if (round % 20 == 0)
            usleep(5000);
    }
    journal_drop(b.j, 7);
    usleep(50000);
    put(b, 1000, 0);
    close_both(b);
    Bytes f = whole_file();
    assert_true(f.n < 2 * 100 * 240 + 70000);
    bytes_release(&f);
    assert_int_equal(toy_files(toy_dir, ".journal"), 1);
    b = open_both(1 << 20, 1);
    assert_int_equal(told.n, 100);
    for (uint64_t i = 0; i < 99; i++)
        is_told(i, i < 7 ? i : i + 1, 199);
    is_told(99, 1000, 0);
    assert_int_equal(counters(b).damaged, 0);
    StoreCounters c = toy_counters(b.s);
    assert_int_equal(c.journal_bytes, counters(b).file_bytes);
    close_both(b);
}

static void a_torn_end_is_cut_off(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    for (uint64_t k = 0; k < 20; k++)
        put(b, k, 0);
    close_both(b);
    Bytes f = whole_file();
    for (size_t cut = 1; cut < f.n; cut += 37) {
        write_whole(f.p, f.n - cut);
        b = open_both(1 << 20, 1);
        const size_t left = told.n;
        assert_true(left < 20);
        for (size_t i = 0; i < left; i++)
            is_told(i, i, 0);
        struct stat st;
        assert_int_equal(stat(path(), &st), 0);
        assert_int_equal(st.st_size, counters(b).file_bytes);
        put(b, 77, 1); /* and it goes on from there */
        close_both(b);
        b = open_both(1 << 20, 1);
        assert_int_equal(told.n, left + 1);
        is_told(left, 77, 1);
        assert_int_equal(counters(b).damaged, 0);
        close_both(b);
    }
    bytes_release(&f);
}

static void a_damaged_record_is_lost_alone(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    for (uint64_t k = 0; k < 12; k++)
        put(b, k, 0);
    close_both(b);
    Bytes f = whole_file();
    for (size_t at = 0; at < f.n; at += 5) {
        f.p[at] ^= 0x10;
        write_whole(f.p, f.n);
        f.p[at] ^= 0x10;
        toy_said[0] = '\0';
        b = open_both(1 << 20, 1);
        assert_int_equal(told.n, 11);
        size_t lost = 0;
        for (size_t i = 0; i < 11; i++) {
            lost += told.key[i] != i + lost;
            is_told(i, i + lost, 0);
        }
        assert_true(lost <= 1);
        if (lost) /* else it was the last, which looks torn */
            assert_true(toy_heard("damaged at 1 places: 11 records are left"));
        close_both(b);
    }
    /* the first write makes it whole again */
    f.p[60] ^= 1;
    write_whole(f.p, f.n);
    b = open_both(1 << 20, 1);
    put(b, 100, 0);
    close_both(b);
    b = open_both(1 << 20, 1);
    assert_int_equal(told.n, 12);
    assert_int_equal(counters(b).damaged, 0);
    close_both(b);
    bytes_release(&f);
}

/* Files may have so many bytes from now on; RLIM_INFINITY: as many as before. */
static void limit_files(rlim_t bytes)
{
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = MIN(bytes, r.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static bool is_written(Both b) { return toy_counters(b.s).journal_bytes == counters(b).file_bytes; }

static void wait_until_written(Both b)
{
    for (int ms = 0; !is_written(b) && ms < 60000; ms++)
        usleep(1000);
    assert_true(is_written(b));
}

static void what_a_failed_write_had_takes_no_room_and_what_it_was_to_end_stays_ended(void **state)
{
    enum { LOST = 400 };
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    Both b = open_both(1 << 20, 1);
    put(b, 1, 0);
    put(b, 2, 0);
    wait_until_written(b);
    const uint64_t before = counters(b).file_bytes;
    limit_files(before + 10); /* the first write stops within a header */
    journal_drop(b.j, 1);
    for (uint64_t k = 2; k < 2 + LOST; k++)
        put(b, k, 1);
    for (int ms = 0; counters(b).lost < LOST && ms < 60000; ms++)
        usleep(1000);
    assert_int_equal(counters(b).lost, LOST);
    assert_int_equal(counters(b).file_bytes, before);
    assert_int_equal(toy_counters(b.s).journal_bytes, before);
    limit_files(RLIM_INFINITY);
    put(b, 1000, 0);
    put(b, 1001, 0);
    close_both(b);
    b = open_both(1 << 20, 1);
    assert_int_equal(counters(b).damaged, 0);
    assert_int_equal(told.n, 2);
    is_told(0, 1000, 0);
    is_told(1, 1001, 0);
    close_both(b);
}

static void records_of_another_version_are_left_out(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    put(b, 1, 0);
    close_both(b);
    b = open_both(1 << 20, 2);
    assert_int_equal(told.n, 0);
    assert_true(toy_heard("another version"));
    put(b, 2, 0);
    close_both(b);
    b = open_both(1 << 20, 2);
    assert_int_equal(told.n, 1);
    is_told(0, 2, 0);
    close_both(b);
}

static void what_is_too_long_is_refused(void **state)
{
    (void)state;
    static char big[100001];
    Both b = open_both(1 << 20, 1);
    assert_false(journal_put(b.j, 1, (Str){ big, sizeof big }));
    assert_true(journal_put(b.j, 1, (Str){ big, sizeof big - 1 }));
    assert_true(journal_put(b.j, 2, (Str){ "", 0 }));
    assert_false(journal_put(NULL, 2, (Str){ "", 0 }));
    journal_drop(NULL, 2);
    assert_int_equal(counters(b).lost, 1);
    close_both(b);
    b = open_both(1 << 20, 1);
    assert_int_equal(told.n, 2);
    close_both(b);
}

static void without_a_directory_there_is_no_journal(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    Store *s = store_open(&(StoreOptions){ .ram_bytes = 1 }, &err);
    assert_null(journal_open(s, &(JournalOptions){ .name = "x", .max_bytes = 1 }, &err));
    assert_non_null(strstr(err.msg, "without a folder"));
    store_close(s, 0);
}

static void a_hundred_thousand_records_are_read_in_a_moment(void **state)
{
    (void)state;
    Bytes f = { 0 }, r = { 0 };
    for (uint64_t k = 0; k < 100000; k++) {
        make_record(&r, k, 0);
        record_write(&f, RECORD_PUT, 1, k, bytes_view(&r));
    }
    write_whole(f.p, f.n);
    bytes_release(&f);
    bytes_release(&r);
    const int64_t begin = clock_ns();
    Store *s = store_open(&(StoreOptions){ .dir = toy_dir }, NULL);
    Both b = { s, journal_open(
                      s,
                      &(JournalOptions){
                          .name = "test", .version = 1, .max_bytes = 1 << 28, .max_record = 1000 },
                      NULL) };
    const int64_t ns = clock_ns() - begin;
    assert_int_equal(counters(b).records, 100000);
    assert_true(ns < (int64_t)3 * 1000000000); /* 20 ms; sanitizers and full machines take more */
    close_both(b);
}

typedef struct {
    Both b;
    int who;
} Worker;

static void *work(void *arg)
{
    Worker *w = arg;
    Bytes r = { 0 };
    for (int i = 0; i < 2000; i++) {
        const uint64_t key = (uint64_t)w->who * 1000 + (uint64_t)i % 50;
        make_record(&r, key, i);
        journal_put(w->b.j, key, bytes_view(&r));
        if (i % 3 == 0)
            journal_drop(w->b.j, key);
    }
    bytes_release(&r);
    return NULL;
}

static void threads_write_at_one_time(void **state)
{
    (void)state;
    Both b = open_both(1 << 20, 1);
    pthread_t thread[4];
    Worker w[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (Worker){ b, i };
        pthread_create(&thread[i], NULL, work, &w[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    const uint64_t records = counters(b).records;
    close_both(b);
    b = open_both(1 << 20, 1);
    assert_int_equal(told.n, records);
    for (size_t i = 0; i < told.n; i++)
        is_told(i, told.key[i], 1950 + (int)(told.key[i] % 1000));
    close_both(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(records_come_back_oldest_first),
        TOY_CASE(a_record_replaces_the_one_of_its_key_and_one_can_be_dropped),
        TOY_CASE(the_oldest_go_when_there_is_too_much),
        TOY_CASE(a_file_that_is_mostly_dead_is_made_anew),
        TOY_CASE(a_torn_end_is_cut_off),
        TOY_CASE(a_damaged_record_is_lost_alone),
        TOY_CASE(what_a_failed_write_had_takes_no_room_and_what_it_was_to_end_stays_ended),
        TOY_CASE(records_of_another_version_are_left_out),
        TOY_CASE(what_is_too_long_is_refused),
        TOY_CASE(without_a_directory_there_is_no_journal),
        TOY_CASE(a_hundred_thousand_records_are_read_in_a_moment),
        TOY_CASE(threads_write_at_one_time),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
