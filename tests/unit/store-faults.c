/* Whatever stops a store, what it had written before is there after it.
 *
 * Children that save are killed at random moments, run out of space, or meet limits;
 * the parent looks at what they left. `store-faults fill DIR MODEL_TOKENS` makes a
 * folder for other tests, of a few conversations of tokens below MODEL_TOKENS. */
#define TOY_UNIT 16384
#define TOY_MARK 40000
#include "../store_toy.h"
#include "../../src/base/rng.h"
#include "../../src/store/folder.h"
#include "../../src/store/journal.h"
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#ifdef __linux__
#include <sys/mount.h>
#endif

enum { KILLS = 200 };

/* A child has nobody to fail for: NULL. */
static Store *open_dir(void)
{
    return toy_try_open((StoreOptions){ .dir = toy_dir, .ram_bytes = 64 << 20 }, 1);
}

/* ---- kill -9 ------------------------------------------------------------------------------- */

/* What a child says of itself, in memory that outlives it. */
typedef struct {
    volatile int saved;   /* tokens of the conversation whose files are there */
    volatile int records; /* that the file has */
} Progress;

typedef struct {
    size_t n;
    bool right;
} Told;

static Str record_of(int i, char text[64])
{
    memset(text, 'a' + i % 26, 64);
    return (Str){ text, (size_t)(20 + i % 40) };
}

static void tell(void *user, uint64_t key, Str record)
{
    Told *t = user;
    char text[64];
    t->right &= key == t->n && str_eq(record, record_of((int)t->n, text));
    t->n++;
}

static JournalOptions journal_options(Told *t)
{
    return (JournalOptions){ .name = "test",
                             .version = 1,
                             .max_bytes = 1 << 20,
                             .max_record = 100,
                             .each = tell,
                             .user = t };
}

static bool is_on_disk(Store *s, int last)
{
    StoreItem *item = NULL;
    size_t n = 0;
    bool found = false;
    if (store_list(s, &item, &n))
        for (size_t i = 0; i < n; i++)
            found |= item[i].on_disk && item[i].last == last;
    free(item);
    return found;
}

/* Saves its conversation chunk by chunk, each by way of two tails, and says how far it
 * has come, until it is killed. */
static void save_until_killed(Progress *p)
{
    static const int ends[] = { 512, 1024, STORE_CHUNK };
    Told t = { .right = true };
    const JournalOptions opt = journal_options(&t);
    Store *s = open_dir();
    Journal *j = s ? journal_open(s, &opt, NULL) : NULL;
    char text[64];
    if (!j)
        _exit(1);
    int record = (int)t.n;
    for (int at = 0; at + STORE_CHUNK <= TOY_MOST; at += STORE_CHUNK) {
        for (size_t k = 0; k < COUNT(ends) && !is_on_disk(s, at + STORE_CHUNK); k++) {
            if (toy_put(s, toy_a, at, at + ends[k]))
                while (!is_on_disk(s, at + ends[k]))
                    usleep(50);
            p->saved = at + ends[k];
        }
        for (int i = 0; i < 5; i++, record++)
            journal_put(j, (uint64_t)record, record_of(record, text));
        for (bool there = false; !there; usleep(50)) {
            JournalCounters c;
            journal_counters(j, &c);
            there = toy_counters(s).journal_bytes == c.file_bytes;
        }
        p->records = record;
    }
    for (;;)
        pause();
}

static size_t bad_files;

static void count_bad(void *user, const FolderFile *f)
{
    ds4_err err = { 0 };
    if (f->kind == FOLDER_BAD ||
        (f->kind == FOLDER_CHUNK && folder_verify_chunk(user, &f->head.name, &err) != CHUNK_OK)) {
        print_error("%s: %s %s\n", f->file, f->why, err.msg);
        bad_files++;
    }
}

static void killed_at_any_moment_only_the_newest_chunk_is_lost(void **state)
{
    (void)state;
    uint64_t rng = 5, torn = 0;
    Progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int floor = 0, tails = 0;
    for (int i = 0; i < KILLS; i++) {
        toy_tokens(toy_a, TOY_MOST, i / 8, 0); /* goes on with a conversation for a while */
        *p = (Progress){ 0 };
        const pid_t pid = fork();
        if (pid == 0)
            save_until_killed(p);
        usleep((useconds_t)(rng_next(&rng) % 25000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);

        Folder f;
        assert_true(folder_open(&f, toy_dir, false, NULL));
        assert_true(folder_scan(&f, count_bad, &f, NULL));
        folder_close(&f);
        assert_int_equal(bad_files, 0);
        assert_true(toy_files(toy_dir, ".kv") < 2 * KILLS);
        Told t = { .right = true };
        const JournalOptions opt = journal_options(&t);
        Store *s = open_dir();
        assert_non_null(s);
        const int reached = toy_fetch(s, toy_a, TOY_MOST, 0);
        floor = MAX(floor, p->saved); /* of this conversation, in any round */
        assert_true(reached >= floor);
        torn += toy_counters(s).leftovers;
        tails += reached % STORE_CHUNK != 0;
        Journal *j = journal_open(s, &opt, NULL);
        assert_non_null(j);
        assert_true(t.right && (int)t.n >= p->records);
        store_close(s, 0);
        if (i % 8 == 7) {
            floor = 0; /* the next conversation begins in an empty folder */
            toy_remove_dir(toy_dir);
            assert_int_equal(mkdir(toy_dir, 0700), 0);
        }
    }
    munmap(p, sizeof *p);
    print_message("%d kills, %llu in the middle of a file, %d times a tail was the end\n", KILLS,
                  (unsigned long long)torn, tails);
    assert_true(torn > 0);
}

/* ---- no space -------------------------------------------------------------------------------- */

/* Runs fn in a child; its exit status. */
static int in_child(int (*fn)(void))
{
    int status;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(fn());
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

/* A limit that stops each chunk in its middle. */
static int save_under_a_limit(void)
{
    signal(SIGXFSZ, SIG_IGN);
    Store *s = open_dir();
    if (!s)
        return 1;
    toy_save(s, toy_a, 2 * STORE_CHUNK);
    toy_settle(s);
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    const struct rlimit before = limit;
    limit.rlim_cur = 100000;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 2;
    for (int at = 2; at < 12; at++)
        toy_put(s, toy_a, at * STORE_CHUNK, (at + 1) * STORE_CHUNK);
    toy_settle(s);
    StoreCounters c = toy_counters(s);
    if (c.disk_full != 10 || c.failed_writes != 10 || c.disk_chunks != 2)
        return 3;
    if (toy_files(toy_dir, ".kv") != 2 || toy_fetch(s, toy_a, TOY_MOST, 0) != 12 * STORE_CHUNK)
        return 4; /* they are in memory */
    const int lines = toy_heard("the disk is full");
    if (lines < 1 || lines > 5)
        return 5;
    /* used again they are tried again, at the latest when the store is closed */
    if (toy_counters(s).waiting_chunks != 10)
        return 6;
    if (setrlimit(RLIMIT_FSIZE, &before) != 0)
        return 7;
    store_close(s, TOY_SOON);
    return toy_files(toy_dir, ".kv") != 12 ? 8 : 0;
}

/* Journals have lines of their own: many of them leave a chunk its line. */
static int fail_with_journals(void)
{
    Told t = { .right = true };
    const JournalOptions opt = journal_options(&t);
    const struct rlimit limit = { .rlim_cur = 8, .rlim_max = RLIM_INFINITY };
    char text[64];
    signal(SIGXFSZ, SIG_IGN);
    Store *s = open_dir();
    Journal *j = s ? journal_open(s, &opt, NULL) : NULL;
    if (!j || setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    JournalCounters c = { 0 };
    for (int i = 0; i < 20; i++) {
        journal_put(j, (uint64_t)i, record_of(i, text));
        for (int ms = 0; c.lost <= (uint64_t)i && ms < 60000; ms++) {
            usleep(1000);
            journal_counters(j, &c);
        }
    }
    toy_put(s, toy_a, 0, STORE_CHUNK);
    toy_settle(s);
    if (c.lost != 20 || toy_counters(s).disk_full != 1)
        return 2;
    const int lines = toy_heard("test.journal was not written");
    if (lines < 1 || lines > 5)
        return 3;
    return toy_heard("a chunk was not written, the disk is full") == 1 ? 0 : 4;
}

static void a_chunk_is_not_kept_from_the_log_by_journals(void **state)
{
    (void)state;
    assert_int_equal(in_child(fail_with_journals), 0);
}

static void a_write_that_fails_is_given_up_and_nothing_else_is_lost(void **state)
{
    (void)state;
    toy_tokens(toy_a, TOY_MOST, 1, 0);
    assert_int_equal(in_child(save_under_a_limit), 0);
    DIR *d = opendir(toy_dir);
    for (struct dirent *e; (e = readdir(d));)
        assert_null(strstr(e->d_name, ".tmp-"));
    closedir(d);
    Store *s = open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 12 * STORE_CHUNK);
    store_close(s, 0);
}

#ifdef __linux__
static int save_until_full(void)
{
    Told t = { .right = true };
    const JournalOptions opt = journal_options(&t);
    char text[64];
    /* 20 chunks of 0.3 MB are too many, and some fit also where records, of 2 MB at
     * the most while a journal is written anew, came first. */
    if (mount("tmpfs", toy_dir, "tmpfs", 0, "size=4m") != 0)
        return 77;
    Store *s = open_dir();
    Journal *j = s ? journal_open(s, &opt, NULL) : NULL;
    int status = j ? 0 : 1;
    for (int at = 0; !status && at < 20; at++) {
        toy_put(s, toy_a, at * STORE_CHUNK, (at + 1) * STORE_CHUNK);
        for (int i = at * 1000; i < at * 1000 + 1000; i++)
            journal_put(j, (uint64_t)i, record_of(i, text));
    }
    int chunks = 0;
    if (!status) {
        toy_settle(s);
        StoreCounters c = toy_counters(s);
        chunks = (int)c.disk_chunks;
        if (c.disk_full == 0 || chunks < 2 || chunks + (int)c.disk_full != 20)
            status = 3;
        store_close(s, TOY_SOON);
    }
    if (!status && !toy_heard("the disk is full"))
        status = 4;
    s = status ? NULL : open_dir();
    if (s && toy_fetch(s, toy_a, TOY_MOST, 0) != chunks * STORE_CHUNK)
        status = 5;
    store_close(s, 0);
    Folder f;
    if (!status && folder_open(&f, toy_dir, false, NULL)) {
        folder_scan(&f, count_bad, &f, NULL);
        folder_close(&f);
        status = bad_files ? 6 : 0;
    }
    umount2(toy_dir, MNT_DETACH);
    return status;
}
#endif

static void a_full_disk_is_said_and_survived(void **state)
{
    (void)state;
    int status = 77;
    toy_tokens(toy_a, TOY_MOST, 1, 0);
#ifdef __linux__
    status = in_child(save_until_full);
    umount2(toy_dir, MNT_DETACH); /* if it crashed */
#endif
    if (status == 77) {
        print_message("skipped: a small file system cannot be mounted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* ---- two at one time --------------------------------------------------------------------------- */

static int open_second(void)
{
    ds4_err err = { 0 };
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getppid());
    Store *s = store_open(&(StoreOptions){ .dir = toy_dir }, &err);
    return s ? 1 : strstr(err.msg, pid) ? 0 : 2;
}

static void a_second_process_is_refused_until_the_first_has_ended(void **state)
{
    (void)state;
    Store *s = open_dir();
    assert_int_equal(in_child(open_second), 0);
    store_close(s, 0);
    assert_int_equal(in_child(open_second), 1);
}

/* ---- no memory --------------------------------------------------------------------------------- */

static void what_memory_has_no_room_for_before_it_is_written_is_said(void **state)
{
    enum { TAILS = 2000 };
    ds4_err err = { 0 };
    StoreModel m = toy_model(1);
    (void)state;
    Store *s = store_open(&(StoreOptions){ .dir = toy_dir, .tail_s = 3600, .log = toy_hear }, &err);
    assert_non_null(s);
    store_bind(s, &m); /* memory for four chunks */
    for (int who = 0; who < TAILS; who++) {
        toy_tokens(toy_a, STORE_UNIT, who, 0);
        toy_put(s, toy_a, 0, STORE_UNIT);
    }
    assert_int_equal(store_close(s, TOY_SOON), 0);
    assert_true(toy_heard("were given up before they were written"));
    assert_in_range(toy_files(toy_dir, ".kv"), 1, TAILS - 1);
}

/* ---- a folder for other tests ----------------------------------------------------------------------- */

static int fill(const char *where, int vocab)
{
    snprintf(toy_dir, sizeof toy_dir, "%s", where);
    Store *s = open_dir();
    if (!s)
        return 1;
    for (int who = 1; who < 4; who++) {
        toy_tokens(toy_a, TOY_MOST, who, 2 * STORE_CHUNK);
        for (int i = 0; i < TOY_MOST; i++)
            toy_a[i] %= vocab;
        toy_save(s, toy_a, (2 + who) * STORE_CHUNK + who * 128);
    }
    Journal *j = journal_open(
        s, &(JournalOptions){ .name = "test", .version = 1, .max_bytes = 1000, .max_record = 100 },
        NULL);
    journal_put(j, 1, STR("one"));
    journal_put(j, 2, STR("two"));
    return store_close(s, TOY_SOON) ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "fill"))
        return fill(argv[2], atoi(argv[3]));
    const struct CMUnitTest tests[] = {
        TOY_CASE(killed_at_any_moment_only_the_newest_chunk_is_lost),
        TOY_CASE(a_write_that_fails_is_given_up_and_nothing_else_is_lost),
        TOY_CASE(a_chunk_is_not_kept_from_the_log_by_journals),
        TOY_CASE(a_full_disk_is_said_and_survived),
        TOY_CASE(what_memory_has_no_room_for_before_it_is_written_is_said),
        TOY_CASE(a_second_process_is_refused_until_the_first_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
