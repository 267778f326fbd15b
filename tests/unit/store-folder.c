/* The store's folder: whose it is, what else lies there, and how it is left. */
#include "../store_toy.h"
#include <sys/resource.h>
#include <sys/wait.h>

static void a_second_store_is_refused_with_the_pid_of_the_first(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    char pid[32];
    Store *s = toy_open_dir();
    assert_null(store_open(&(StoreOptions){ .dir = toy_dir }, &err));
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_non_null(strstr(err.msg, pid));
    assert_non_null(strstr(err.msg, toy_dir));
    toy_close(s);
    toy_close(toy_open_dir());
}

static void files_are_private(void **state)
{
    (void)state;
    struct stat st;
    char path[512];
    snprintf(path, sizeof path, "%s/deep/er/", toy_dir);
    Store *s = toy_open((StoreOptions){ .dir = path, .ram_bytes = 1 << 20 }, 1);
    toy_save(s, toy_a, STORE_CHUNK);
    uint8_t secret[32], again[32];
    assert_true(store_secret(s, secret, NULL));
    assert_true(store_secret(s, again, NULL));
    assert_memory_equal(secret, again, 32);
    toy_close(s);
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
    s = toy_open((StoreOptions){ .dir = path, .ram_bytes = 1 << 20 }, 1);
    assert_true(store_secret(s, again, NULL));
    assert_memory_equal(secret, again, 32);
    toy_close(s);
}

/* While it is so few, no file can be opened. Returns what it was. */
static rlim_t limit_descriptors(rlim_t n)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
    const rlim_t before = r.rlim_cur;
    r.rlim_cur = n;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
    return before;
}

static void what_cannot_be_opened_now_is_neither_given_up_nor_replaced(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    uint8_t secret[32], again[32];
    toy_tokens(toy_a, 3 * STORE_CHUNK, 1, 0);
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 3 * STORE_CHUNK);
    assert_true(store_secret(s, secret, NULL));
    toy_close(s);
    s = toy_open_dir();
    const rlim_t before = limit_descriptors(3);
    const int fetched = toy_fetch(s, toy_a, 3 * STORE_CHUNK, 0);
    const bool read = store_secret(s, again, &err);
    limit_descriptors(before);
    assert_int_equal(fetched, 0);
    assert_false(read);
    assert_non_null(strstr(err.msg, "secret"));
    assert_int_equal(toy_fetch(s, toy_a, 3 * STORE_CHUNK, 0), 3 * STORE_CHUNK);
    assert_true(store_secret(s, again, NULL));
    assert_memory_equal(secret, again, 32);
    toy_close(s);
}

/* A link is not followed, so behind one its file cannot be read. */
static void put_behind_a_link(const char *folder)
{
    char name[44] = "", from[600], to[600];
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) {
        if (strlen(e->d_name) == sizeof name - 1)
            memcpy(name, e->d_name, sizeof name);
    }
    closedir(d);
    snprintf(from, sizeof from, "%s/%s", folder, name);
    snprintf(to, sizeof to, "%s/moved", toy_dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(symlink(to, from), 0);
}

static void what_was_unreadable_and_is_written_again_counts_once(void **state)
{
    (void)state;
    char folder[512];
    snprintf(folder, sizeof folder, "%s/kv", toy_dir);
    const StoreOptions opt = { .dir = folder, .ram_bytes = 1 << 20 };
    toy_tokens(toy_a, STORE_CHUNK, 1, 0);
    Store *s = toy_open(opt, 1);
    toy_save(s, toy_a, STORE_CHUNK);
    toy_close(s);
    s = toy_open(opt, 1);
    put_behind_a_link(folder);
    assert_int_equal(toy_fetch(s, toy_a, STORE_CHUNK, 0), 0);
    assert_int_equal(toy_counters(s).foreign_bytes, TOY_FILE);
    toy_save(s, toy_a, STORE_CHUNK);
    toy_settle(s);
    assert_int_equal(toy_counters(s).disk_bytes, TOY_FILE);
    assert_int_equal(toy_counters(s).foreign_bytes, 0);
    toy_close(s);
}

static void write_file(const char *name, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", toy_dir, name);
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
    snprintf(path, sizeof path, "%s/sub", toy_dir);
    mkdir(path, 0700);
    write_file("sub/more.kv", 2000000);
    write_file("0123456789012345678901234567890123456789.kv.bak", 10);
    StoreOptions opt = { .dir = toy_dir, .disk_bytes = 5100000, .ram_bytes = 1 << 20 };
    Store *s = toy_open(opt, 1);
    StoreCounters c = toy_counters(s);
    assert_int_equal(c.foreign_files, 3);
    assert_int_equal(c.foreign_bytes, 5000010);
    assert_true(toy_heard("3 files"));
    toy_save(s, toy_a, 20 * STORE_CHUNK);
    toy_settle(s);
    c = toy_counters(s);
    assert_true(c.disk_bytes + c.foreign_bytes <= opt.disk_bytes);
    assert_true(c.disk_chunks > 0);
    toy_close(s);
    /* nothing but foreign files has room: everything is given up, nothing breaks */
    opt.disk_bytes = 4000000;
    s = toy_open(opt, 1);
    toy_save(s, toy_a, 3 * STORE_CHUNK);
    toy_settle(s);
    assert_int_equal(toy_counters(s).disk_chunks, 0);
    assert_int_equal(toy_counters(s).failed_writes, 3);
    assert_true(toy_heard("no room"));
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 3 * STORE_CHUNK);
    toy_close(s);
    assert_int_equal(toy_files(toy_dir, "notes.txt"), 1);
    assert_int_equal(toy_files(path, "more.kv"), 1);
    assert_int_equal(toy_files(toy_dir, ".bak"), 1);
}

static void half_written_files_are_removed_at_start(void **state)
{
    (void)state;
    write_file("0123456789012345678901234567890123456789.kv.tmp-77", 1000);
    write_file("recall.journal.tmp-12", 1000);
    write_file("mine.tmp-12", 1000);
    Store *s = toy_open_dir();
    assert_int_equal(toy_counters(s).leftovers, 2);
    assert_int_equal(toy_counters(s).foreign_files, 1);
    toy_close(s);
    assert_int_equal(toy_files(toy_dir, ".tmp-77"), 0);
    assert_int_equal(toy_files(toy_dir, ".tmp-12"), 1);
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
        &(StoreOptions){ .dir = toy_dir, .disk_bytes = 1, .ram_bytes = 1 << 20, .log = toy_hear },
        &err);
    if (!s)
        _exit(1);
    store_bind(s, &m);
    if (!toy_heard("cannot be written") || toy_counters(s).writable)
        _exit(2);
    if (toy_fetch(s, toy_a, TOY_MOST, 0) != 3 * STORE_CHUNK)
        _exit(3);
    toy_put(s, toy_a, 3 * STORE_CHUNK, 4 * STORE_CHUNK);
    if (toy_fetch(s, toy_a, TOY_MOST, 0) != 4 * STORE_CHUNK)
        _exit(4);
    if (store_close(s, TOY_SOON) != 0)
        _exit(5);
}

static void a_directory_that_cannot_be_written_is_read(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 3 * STORE_CHUNK);
    toy_close(s);
    DIR *d = opendir(toy_dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            fchmodat(dirfd(d), e->d_name, 0444, 0);
    closedir(d);
    chmod(toy_dir, 0555);
    const int status = as_nobody(read_only_child);
    chmod(toy_dir, 0700);
    if (status == 77) {
        print_message("skipped: cannot become another user\n");
        skip();
    }
    assert_int_equal(status, 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), 3);
}

static void closing_in_no_time_says_what_was_lost(void **state)
{
    (void)state;
    Store *s = toy_open((StoreOptions){ .dir = toy_dir, .ram_bytes = 1 << 20, .tail_s = 60 }, 1);
    toy_put(s, toy_a, 0, 256);
    assert_int_equal(store_close(s, 0), 1);
    assert_true(toy_heard("1 chunks"));
    assert_int_equal(toy_files(toy_dir, ".kv"), 0);
    assert_int_equal(toy_files(toy_dir, "lock"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(a_second_store_is_refused_with_the_pid_of_the_first),
        TOY_CASE(files_are_private),
        TOY_CASE(what_cannot_be_opened_now_is_neither_given_up_nor_replaced),
        TOY_CASE(what_was_unreadable_and_is_written_again_counts_once),
        TOY_CASE(foreign_files_count_and_stay),
        TOY_CASE(half_written_files_are_removed_at_start),
        TOY_CASE(a_directory_that_cannot_be_written_is_read),
        TOY_CASE(closing_in_no_time_says_what_was_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
