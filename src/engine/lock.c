/* lock.c - one program a GPU.
 *
 * A model takes most of a GPU's memory, and two that decode there take turns: so
 * a second program is told which one is there before it, instead of failing
 * later or making both slow. On the CPU weights are pages that all programs
 * share, so nothing is locked, and commands that only read a file's header or
 * vocabulary lock nothing either.
 *
 * The lock is on a file named after the GPU, not after its number, which differs
 * from program to program; the system ends it with its holder, however that
 * ends. Which common folder can be written to depends on the system and on who
 * one is, so it is held in all of them; where none can be, there is no lock. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const system_folders[LOCK_FOLDERS] = { "/run/lock", "/tmp" };

/* Where others may write, a system may refuse O_CREAT for a file that is
 * somebody else's; all may write the number of the holder. */
static int open_file(const char *path)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = open(path, flags);

    if (fd < 0 && errno == ENOENT) {
        fd = open(path, flags | O_CREAT | O_EXCL, 0666);
        if (fd >= 0)
            fchmod(fd, 0666); /* whatever the umask */
        else if (errno == EEXIST)
            fd = open(path, flags);
    }
    struct stat st;
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        return -1;
    }
    return fd;
}

static long holder_of(int fd)
{
    char text[32] = { 0 };

    return pread(fd, text, sizeof text - 1, 0) > 0 ? strtol(text, NULL, 10) : 0;
}

/* The number is for messages only: without it they are shorter. */
static void sign(int fd)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return;
}

bool device_lock_take(DeviceLock *l, const char *const folders[LOCK_FOLDERS], const char *name,
                      long *holder)
{
    char path[512];

    *l = (DeviceLock){ 0 };
    for (int i = 0; i < LOCK_FOLDERS; i++) {
        snprintf(path, sizeof path, "%s/%s", folders[i], name);
        const int fd = open_file(path);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            sign(fd);
            l->fd[i] = fd + 1;
            continue;
        }
        const bool taken = errno == EWOULDBLOCK;
        *holder = holder_of(fd);
        close(fd);
        if (!taken || *holder == (long)getpid())
            continue;
        device_lock_release(l);
        return false;
    }
    return true;
}

void device_lock_release(DeviceLock *l)
{
    for (int i = 0; i < LOCK_FOLDERS; i++)
        if (l->fd[i])
            close(l->fd[i] - 1);
    *l = (DeviceLock){ 0 };
}

bool device_lock(DeviceLock *l, const char *device, ds4_err *err)
{
    char id[40], name[80];
    long holder = 0;

    *l = (DeviceLock){ 0 };
    if (!backend_identity(device, id))
        return true;
    snprintf(name, sizeof name, "ds4-gpu-%s.lock", id);
    if (device_lock_take(l, system_folders, name, &holder))
        return true;
    if (holder <= 0)
        return fail(err, DS4_EDEVICE, "%s is in use by another ds4 (--share-device uses it, too)",
                    device);
    return fail(err, DS4_EDEVICE, "%s is in use by ds4, process %ld (--share-device uses it, too)",
                device, holder);
}
