/* One program a device: a second process is refused and told by whom, the same
 * one is not, and a holder that is killed leaves nothing behind. */
#include "../../src/engine/engine.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char dir[2][64];
    const char *folders[LOCK_FOLDERS];
} Folders;

static int make_folders(void **state)
{
    static Folders f;

    for (int i = 0; i < 2; i++) {
        snprintf(f.dir[i], sizeof f.dir[i], "/tmp/ds4-lock-%d-XXXXXX", i);
        assert_non_null(mkdtemp(f.dir[i]));
        f.folders[i] = f.dir[i];
    }
    *state = &f;
    return 0;
}

static int drop_folders(void **state)
{
    Folders *f = *state;
    char path[128];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/gpu", f->dir[i]);
        unlink(path);
        rmdir(f->dir[i]);
    }
    return 0;
}

/* A child that holds the lock in these folders until it is killed. */
static pid_t hold(const char *const folders[LOCK_FOLDERS])
{
    int ready[2];
    char c = 0;

    assert_int_equal(pipe(ready), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        DeviceLock l;
        long holder;
        c = device_lock_take(&l, folders, "gpu", &holder) ? 'y' : 'n';
        if (write(ready[1], &c, 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void a_second_program_is_told_of_the_first(void **state)
{
    Folders *f = *state;
    DeviceLock l;
    long holder = -1;
    const pid_t pid = hold(f->folders);

    assert_false(device_lock_take(&l, f->folders, "gpu", &holder));
    assert_int_equal(holder, pid);
    assert_int_equal(l.fd[0] + l.fd[1], 0);
    assert_true(device_lock_take(&l, f->folders, "gpu-2", &holder)); /* another device is free */
    device_lock_release(&l);
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/gpu-2", f->dir[i]);
        unlink(path);
    }
    end(pid);
    assert_true(device_lock_take(&l, f->folders, "gpu", &holder)); /* killed: nothing is left */
    device_lock_release(&l);
}

/* Who may write in one folder only and who in both must still meet. */
static void one_common_folder_is_enough(void **state)
{
    Folders *f = *state;
    const char *const one[LOCK_FOLDERS] = { "/nowhere", f->dir[1] };
    DeviceLock l;
    long holder = -1;

    pid_t pid = hold(one);
    assert_false(device_lock_take(&l, f->folders, "gpu", &holder));
    assert_int_equal(holder, pid);
    end(pid);
    pid = hold(f->folders);
    assert_false(device_lock_take(&l, one, "gpu", &holder));
    assert_int_equal(holder, pid);
    end(pid);
}

static void a_program_may_use_its_device_twice(void **state)
{
    Folders *f = *state;
    DeviceLock a, b;
    long holder = -1;

    assert_true(device_lock_take(&a, f->folders, "gpu", &holder));
    assert_true(device_lock_take(&b, f->folders, "gpu", &holder));
    device_lock_release(&b);
    device_lock_release(&a);
    device_lock_release(&a); /* nothing to do */
}

static void where_nothing_can_be_written_nothing_is_locked(void **state)
{
    static const char *const none[LOCK_FOLDERS] = { "/nowhere", "/proc" };
    Folders *f = *state;
    DeviceLock l;
    long holder = -1;
    char path[128];

    assert_true(device_lock_take(&l, none, "gpu", &holder));
    assert_int_equal(l.fd[0] + l.fd[1], 0);
    /* what is no file is left alone */
    snprintf(path, sizeof path, "%s/gpu-link", f->dir[0]);
    assert_int_equal(symlink("/tmp/ds4-elsewhere", path), 0);
    const char *const only[LOCK_FOLDERS] = { f->dir[0], "/nowhere" };
    assert_true(device_lock_take(&l, only, "gpu-link", &holder));
    assert_int_equal(l.fd[0], 0);
    assert_int_not_equal(access("/tmp/ds4-elsewhere", F_OK), 0);
    unlink(path);
}

static void the_host_is_everybodys(void **state)
{
    DeviceLock l;
    ds4_err err;

    (void)state;
    assert_true(device_lock(&l, "cpu", &err));
    assert_true(device_lock(&l, "timed:null", &err));
    assert_int_equal(l.fd[0] + l.fd[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_program_is_told_of_the_first),
        cmocka_unit_test(one_common_folder_is_enough),
        cmocka_unit_test(a_program_may_use_its_device_twice),
        cmocka_unit_test(where_nothing_can_be_written_nothing_is_locked),
        cmocka_unit_test(the_host_is_everybodys),
    };
    return cmocka_run_group_tests(tests, make_folders, drop_folders);
}
