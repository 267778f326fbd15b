/* part.c - a file in the making, and its journal. */
#include "part.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A system call takes at most INT_MAX bytes on macOS. */
#define TRANSFER    ((size_t)1 << 30)
/* A line of the journal takes 20 bytes, and one is written every few seconds. */
#define MAX_JOURNAL ((size_t)4 << 20)

static bool io_fail(ds4_err *err, const char *what, const char *path)
{
    return fail(err, DS4_EIO, "cannot %s %s: %s", what, path, strerror(errno));
}

static char *join(const char *path, const char *end)
{
    size_t n = strlen(path) + strlen(end) + 1;
    char *s = malloc(n);
    if (s)
        snprintf(s, n, "%s%s", path, end);
    return s;
}

/* ---- taking up ------------------------------------------------------------------- */

/* Locked, and still the file of that name: who had the lock may have renamed it. */
static bool lock(Part *p, ds4_err *err)
{
    struct stat mine, named;
    if (flock(p->fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? fail(err, DS4_EIO, "%s is being written by another process", p->part)
                   : io_fail(err, "lock", p->part);
    if (fstat(p->fd, &mine) != 0 || stat(p->part, &named) != 0 || mine.st_ino != named.st_ino)
        return fail(err, DS4_EIO, "%s was finished by another process", p->part);
    return true;
}

/* The last "done" of a journal that begins with this identity. */
static bool read_journal(const char *text, const char *identity, uint64_t *done)
{
    const size_t n = strlen(identity);
    if (strncmp(text, identity, n) != 0 || text[n] != '\n')
        return false;
    for (const char *line = text + n + 1, *end; (end = strchr(line, '\n')) != NULL;
         line = end + 1) {
        unsigned long long v;
        int used = 0;
        if (sscanf(line, "done %llu%n", &v, &used) == 1 && line + used == end)
            *done = v;
    }
    return true;
}

static bool read_text(Bytes *out, int fd, const char *path, ds4_err *err)
{
    char piece[4096];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_fail(err, "read", path);
        if (n == 0 || out->n > MAX_JOURNAL)
            break;
        bytes_put(out, piece, (size_t)n);
    }
    bytes_byte(out, 0);
    return !out->failed || fail(err, DS4_ENOMEM, "no memory for %s", path);
}

/* Where does the earlier attempt, if there was one, let us begin? *whole: the bytes of the
 * journal's whole lines. They come before the first byte of the part, so a part without any
 * is somebody else's. */
static bool find_done(Part *p, const char *identity, size_t *whole, ds4_err *err)
{
    Bytes text = { 0 };
    struct stat st;
    bool ok = fstat(p->fd, &st) == 0 || io_fail(err, "stat", p->part);
    ok = ok && read_text(&text, p->journal, p->log, err);
    const char *last = ok && st.st_size > 0 ? strrchr(text.p, '\n') : NULL;
    *whole = last ? (size_t)(last + 1 - text.p) : 0;
    if (ok && !last && st.st_size > 0)
        ok = fail(err, DS4_EINVAL,
                  "%s is there with %lld bytes, and no journal says whose: move it, or --restart",
                  p->part, (long long)st.st_size);
    else if (last && !read_journal(text.p, identity, &p->done))
        ok = fail(err, DS4_EINVAL,
                  "%s was begun with other options, another input or another version: use those, "
                  "or --restart",
                  p->part);
    else if (ok && p->done > (uint64_t)st.st_size)
        ok = fail(err, DS4_EFORMAT, "%s has %lld bytes, and its journal knows of %llu: --restart",
                  p->part, (long long)st.st_size, (unsigned long long)p->done);
    bytes_release(&text);
    return ok;
}

/* One that was begun goes on behind its whole lines: it is never empty in between. */
static bool continue_journal(Part *p, size_t whole, ds4_err *err)
{
    return (ftruncate(p->journal, (off_t)whole) == 0 &&
            lseek(p->journal, (off_t)whole, SEEK_SET) >= 0) ||
           io_fail(err, "write", p->log);
}

static bool append(Part *p, const char *from, size_t n, ds4_err *err)
{
    while (n) {
        ssize_t k = write(p->journal, from, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return io_fail(err, "write", p->log);
        from += k;
        n -= (size_t)k;
    }
    return true;
}

static bool begin_journal(Part *p, const char *identity, ds4_err *err)
{
    Bytes b = { 0 };
    bytes_printf(&b, "%s\n", identity);
    bool ok = !b.failed || fail(err, DS4_ENOMEM, "no memory for %s", p->log);
    if (ok && (ftruncate(p->journal, 0) != 0 || lseek(p->journal, 0, SEEK_SET) != 0))
        ok = io_fail(err, "write", p->log);
    ok = ok && append(p, b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

/* Both are shortened when work begins, so a link that lies there must not lead to another file. */
static int open_file(const char *path)
{
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
}

static bool open_both(Part *p, const char *identity, bool restart, ds4_err *err)
{
    struct stat st;
    size_t whole = 0;
    if (stat(p->path, &st) == 0 && !S_ISREG(st.st_mode))
        return fail(err, DS4_EIO, "%s exists and is not a regular file", p->path);
    p->fd = open_file(p->part);
    if (p->fd < 0)
        return io_fail(err, "create", p->part);
    if (!lock(p, err))
        return false;
    p->journal = open_file(p->log);
    if (p->journal < 0)
        return io_fail(err, "create", p->log);
    if (!restart && !find_done(p, identity, &whole, err))
        return false;
    p->marked = p->done;
    if (ftruncate(p->fd, (off_t)p->done) != 0)
        return io_fail(err, "shorten", p->part);
    return whole ? continue_journal(p, whole, err) : begin_journal(p, identity, err);
}

bool part_open(Part *p, const char *path, const char *identity, bool restart, ds4_err *err)
{
    *p = (Part){ .fd = -1, .journal = -1 };
    p->path = join(path, "");
    p->part = join(path, ".part");
    p->log = join(path, ".part.journal");
    bool ok = (p->path && p->part && p->log) ||
              fail(err, DS4_ENOMEM, "no memory for the name of %s", path);
    ok = ok && open_both(p, identity, restart, err);
    if (!ok)
        part_close(p, true);
    return ok;
}

/* ---- going on ------------------------------------------------------------------------ */

bool part_write(Part *p, uint64_t at, const void *data, size_t n, ds4_err *err)
{
    for (const char *from = data; n;) {
        ssize_t k = pwrite(p->fd, from, MIN(n, TRANSFER), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return io_fail(err, "write", p->part);
        from += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

bool part_read(const Part *p, uint64_t at, void *data, size_t n, ds4_err *err)
{
    for (char *to = data; n;) {
        ssize_t k = pread(p->fd, to, MIN(n, TRANSFER), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? io_fail(err, "read", p->part)
                         : fail(err, DS4_EIO, "%s has become shorter", p->part);
        to += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

static int sync_fd(int fd)
{
#ifdef F_FULLFSYNC /* macOS: fsync stops at the drive's cache */
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    return fsync(fd);
}

/* The line comes after the bytes: it may be lost, but it never lies. */
bool part_mark(Part *p, uint64_t done, ds4_err *err)
{
    char line[40];
    if (done <= p->marked)
        return true;
    if (sync_fd(p->fd) != 0)
        return io_fail(err, "sync", p->part);
    int n = snprintf(line, sizeof line, "done %llu\n", (unsigned long long)done);
    if (!append(p, line, (size_t)n, err))
        return false;
    p->marked = done;
    return true;
}

static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : NULL;
    int fd = open(dir ? dir : ".", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)sync_fd(fd); /* some file systems cannot */
        close(fd);
    }
    free(dir);
}

bool part_commit(Part *p, ds4_err *err)
{
    if (sync_fd(p->fd) != 0)
        return io_fail(err, "sync", p->part);
    if (rename(p->part, p->path) != 0)
        return io_fail(err, "rename to", p->path);
    unlink(p->log);
    sync_folder(p->path);
    part_close(p, true);
    return true;
}

void part_close(Part *p, bool keep)
{
    if (!keep && p->fd >= 0) {
        unlink(p->log);
        unlink(p->part);
    }
    if (p->journal >= 0)
        close(p->journal);
    if (p->fd >= 0)
        close(p->fd);
    free(p->path);
    free(p->part);
    free(p->log);
    *p = (Part){ .fd = -1, .journal = -1 };
}
