/* Files appear whole or not at all, and say what is wrong with them. */
#include "../../src/base/file.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][512];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ds4-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            remove(in_dir(e->d_name));
    closedir(d);
    return rmdir(dir);
}

static void commit(const char *path, const char *text)
{
    ds4_err err = { 0 };
    File f = { 0 };
    assert_true(file_create(&f, path, &err));
    assert_true(file_write(&f, text, strlen(text), &err));
    assert_true(file_commit(&f, &err));
    file_release(&f);
}

static void a_committed_file_reads_back_mapped_and_whole(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    commit(in_dir("a"), "hello");
    Map m;
    assert_true(map_open(&m, in_dir("a"), &err));
    assert_int_equal(m.n, 5);
    assert_memory_equal(m.p, "hello", 5);
    map_close(&m);
    assert_null(m.p);
    Bytes b = { 0 };
    assert_true(file_read(&b, in_dir("a"), 5, &err));
    assert_int_equal(b.n, 5);
    assert_false(file_read(&b, in_dir("a"), 4, &err));
    assert_int_equal(err.code, DS4_EIO);
    bytes_release(&b);
    assert_int_equal(entries(), 1);
}

static void an_uncommitted_file_leaves_the_old_one_and_no_rest(void **state)
{
    (void)state;
    commit(in_dir("a"), "old");
    File f = { 0 };
    assert_true(file_create(&f, in_dir("a"), NULL));
    assert_true(file_write(&f, "new and longer", 14, NULL));
    assert_int_equal(entries(), 2);
    file_release(&f);
    assert_int_equal(entries(), 1);
    Bytes b = { 0 };
    assert_true(file_read(&b, in_dir("a"), 100, NULL));
    assert_true(str_eq(bytes_view(&b), STR("old")));
    bytes_release(&b);
    file_release(&f); /* again is fine */
}

static void writes_land_where_they_are_sent(void **state)
{
    (void)state;
    File f = { 0 };
    assert_true(file_create(&f, in_dir("a"), NULL));
    assert_true(file_write(&f, "abc", 3, NULL));
    assert_true(file_write_at(&f, 6, "xyz", 3, NULL));
    assert_true(file_write(&f, "end", 3, NULL));
    assert_true(file_write_at(&f, 1, "B", 1, NULL));
    assert_int_equal(f.n, 12);
    ds4_err err = { 0 };
    assert_false(file_write_at(&f, UINT64_MAX, "x", 1, &err));
    assert_false(file_write_at(&f, INT64_MAX, "x", 1, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_true(file_commit(&f, NULL));
    file_release(&f);
    Bytes b = { 0 };
    assert_true(file_read(&b, in_dir("a"), 100, NULL));
    assert_int_equal(b.n, 12);
    assert_memory_equal(b.p, "aBc\0\0\0xyzend", 12);
    bytes_release(&b);
}

static void what_is_no_regular_file_is_refused_by_name(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    Map m;
    assert_false(map_open(&m, dir, &err));
    assert_non_null(strstr(err.msg, "is a directory"));
    assert_false(map_open(&m, in_dir("missing"), &err));
    assert_non_null(strstr(err.msg, "missing"));
    assert_int_equal(err.code, DS4_EIO);
    commit(in_dir("empty"), "");
    assert_false(map_open(&m, in_dir("empty"), &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_non_null(strstr(err.msg, "empty"));
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    assert_false(map_open(&m, in_dir("fifo"), &err));
    Bytes b = { 0 };
    assert_false(file_read(&b, in_dir("fifo"), 10, &err));
    assert_true(file_read(&b, in_dir("empty"), 10, &err));
    assert_int_equal(b.n, 0);
    bytes_release(&b);
}

static void a_device_is_not_replaced_by_a_file(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    File f = { 0 };
    assert_false(file_create(&f, "/dev/null", &err));
    assert_non_null(strstr(err.msg, "/dev/null"));
    assert_false(file_create(&f, dir, &err));
    assert_false(file_create(&f, in_dir("no/such/folder"), &err));
    assert_int_equal(err.code, DS4_EIO);
    file_release(&f);
    assert_int_equal(entries(), 0);
}

static void a_part_is_read_whole_or_said_to_be_missing(void **state)
{
    (void)state;
    File f = { 0 };
    char got[8] = { 0 };
    assert_true(file_create(&f, in_dir("a"), NULL));
    assert_true(file_write(&f, "0123456789", 10, NULL));
    assert_true(file_read_at(f.fd, 3, got, 7));
    assert_string_equal(got, "3456789");
    errno = 0;
    assert_false(file_read_at(f.fd, 4, got, 7));
    assert_int_equal(errno, EIO);
    assert_false(file_read_at(-1, 0, got, 1));
    assert_int_equal(errno, EBADF);
    file_release(&f);
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(a_part_is_read_whole_or_said_to_be_missing),
        IN_DIR(a_committed_file_reads_back_mapped_and_whole),
        IN_DIR(an_uncommitted_file_leaves_the_old_one_and_no_rest),
        IN_DIR(writes_land_where_they_are_sent),
        IN_DIR(what_is_no_regular_file_is_refused_by_name),
        IN_DIR(a_device_is_not_replaced_by_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
