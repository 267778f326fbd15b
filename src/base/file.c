/* file.c - files as a whole. Reads and writes go on after EINTR and partial
 * transfers, and ask for at most 1 GiB at a time: macOS refuses more than
 * INT_MAX. */
#include "file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRANSFER ((size_t)1 << 30)

static bool io_fail(ds4_err *err, const char *what, const char *path)
{
    return fail(err, DS4_EIO, "cannot %s %s: %s", what, path, strerror(errno));
}

static int open_regular(const char *path, struct stat *st, ds4_err *err)
{
    /* Without O_NONBLOCK, opening a FIFO would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        io_fail(err, "open", path);
        return -1;
    }
    if (fstat(fd, st) != 0)
        io_fail(err, "stat", path);
    else if (S_ISDIR(st->st_mode))
        fail(err, DS4_EIO, "%s is a directory, not a file", path);
    else if (!S_ISREG(st->st_mode))
        fail(err, DS4_EIO, "%s is not a regular file", path);
    else
        return fd;
    close(fd);
    return -1;
}

bool map_open(Map *m, const char *path, ds4_err *err)
{
    struct stat st;
    *m = (Map){ 0 };
    int fd = open_regular(path, &st, err);
    if (fd < 0)
        return false;
    bool ok = st.st_size > 0 || fail(err, DS4_EFORMAT, "%s is empty", path);
    if (ok && (uintmax_t)st.st_size > SIZE_MAX)
        ok = fail(err, DS4_ENOMEM, "%s: %lld bytes do not fit the address space", path,
                  (long long)st.st_size);
    if (ok) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            ok = io_fail(err, "map", path);
        else
            *m = (Map){ p, (size_t)st.st_size };
    }
    close(fd);
    return ok;
}

void map_close(Map *m)
{
    if (m->p)
        munmap((void *)(uintptr_t)m->p, m->n);
    *m = (Map){ 0 };
}

static bool read_all(Bytes *out, int fd, const char *path, size_t max, ds4_err *err)
{
    for (;;) {
        char *to = bytes_room(out, 65536);
        if (!to)
            return fail(err, DS4_ENOMEM, "%s: no memory for %zu bytes", path, out->n + 65536);
        ssize_t n = read(fd, to, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_fail(err, "read", path);
        if (n == 0)
            return true;
        out->n += (size_t)n;
        if (out->n > max)
            return fail(err, DS4_EIO, "%s is longer than the %zu bytes allowed", path, max);
    }
}

bool file_read(Bytes *out, const char *path, size_t max, ds4_err *err)
{
    struct stat st;
    int fd = open_regular(path, &st, err);
    if (fd < 0)
        return false;
    bytes_clear(out);
    bool ok = read_all(out, fd, path, max, err);
    close(fd);
    return ok;
}

bool file_read_at(int fd, uint64_t at, void *to, size_t n)
{
    for (char *p = to; n;) {
        const ssize_t k = pread(fd, p, MIN(n, TRANSFER), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k == 0)
            errno = EIO;
        if (k <= 0)
            return false;
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

/* ---- writing ----------------------------------------------------------- */

static char *temp_name(const char *path)
{
    size_t n = strlen(path) + 32;
    char *tmp = malloc(n);
    if (tmp)
        snprintf(tmp, n, "%s.tmp-%ld", path, (long)getpid());
    return tmp;
}

bool file_create(File *f, const char *path, ds4_err *err)
{
    *f = (File){ .fd = -1 };
    struct stat st;
    /* The rename would replace a device or a folder's link by a file. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return fail(err, DS4_EIO, "%s exists and is not a regular file", path);
    f->path = strdup(path);
    f->tmp = f->path ? temp_name(path) : NULL;
    if (!f->tmp) {
        file_release(f);
        return fail(err, DS4_ENOMEM, "no memory to name %s", path);
    }
    f->fd = open(f->tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        io_fail(err, "create", f->tmp);
        file_release(f);
        return false;
    }
    f->open = true;
    return true;
}

bool file_private(File *f, ds4_err *err)
{
    return fchmod(f->fd, 0600) == 0 || io_fail(err, "set the mode of", f->tmp);
}

bool file_write_at(File *f, uint64_t at, const void *p, size_t n, ds4_err *err)
{
    const char *from = p;
    uint64_t end;
    if (!add_u64(at, n, &end) || end > INT64_MAX)
        return fail(err, DS4_EINVAL, "%s: write of %zu bytes at %llu is out of range", f->path, n,
                    (unsigned long long)at);
    while (n) {
        ssize_t k = pwrite(f->fd, from, MIN(n, TRANSFER), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return io_fail(err, "write", f->path);
        from += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    f->n = MAX(f->n, end);
    return true;
}

bool file_write(File *f, const void *p, size_t n, ds4_err *err)
{
    return file_write_at(f, f->n, p, n, err);
}

static int sync_fd(int fd)
{
#ifdef F_FULLFSYNC /* macOS: fsync stops at the drive's cache */
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    return fsync(fd);
}

/* The rename lasts only once the folder is on the disk. Some file systems
 * cannot sync folders; the file's own data is safe by then. */
static void sync_folder(const char *path)
{
    char *dir = strdup(path);
    if (!dir)
        return;
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir ? 1 : 0] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)sync_fd(fd);
        close(fd);
    }
    free(dir);
}

bool file_commit(File *f, ds4_err *err)
{
    if (sync_fd(f->fd) != 0)
        return io_fail(err, "sync", f->path);
    int closed = close(f->fd);
    f->fd = -1;
    if (closed != 0)
        return io_fail(err, "close", f->path);
    if (rename(f->tmp, f->path) != 0)
        return io_fail(err, "rename to", f->path);
    f->open = false; /* nothing left to remove */
    sync_folder(f->path);
    return true;
}

void file_release(File *f)
{
    if (f->open) {
        if (f->fd >= 0)
            close(f->fd);
        if (f->tmp)
            unlink(f->tmp);
    }
    free(f->path);
    free(f->tmp);
    *f = (File){ .fd = -1 };
}

bool file_try(const char *path, ds4_err *err)
{
    File f = { 0 };
    bool ok = file_create(&f, path, err);
    file_release(&f);
    return ok;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool file_publish(int fd, const char *tmp, const char *path, ds4_err *err)
{
    if (sync_fd(fd) != 0)
        return io_fail(err, "sync", tmp);
    if (rename(tmp, path) != 0)
        return io_fail(err, "rename to", path);
    sync_folder(path);
    return true;
}

bool file_make_folders(char *path, ds4_err *err)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        bool made = mkdir(path, 0700) == 0 || errno == EEXIST || io_fail(err, "make", path);
        *slash = '/';
        if (!made)
            return false;
    }
    return true;
}
