/* folder.c - a store's directory: its lock, what lies in it, its secret. */
#include "folder.h"
#include "../base/file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool folder_path(const Folder *f, const char *file, char out[FOLDER_PATH])
{
    const int n = snprintf(out, FOLDER_PATH, "%s/%s", f->dir, file);
    return n > 0 && n < FOLDER_PATH;
}

/* ---- opening ----------------------------------------------------------------------- */

/* Each part of the path that is missing, for its owner only. */
static bool make_folders(const char *dir, ds4_err *err)
{
    char path[FOLDER_PATH];
    struct stat st;
    const size_t n = strlen(dir);

    for (size_t i = 1; i <= n; i++) {
        if (i < n && dir[i] != '/')
            continue;
        memcpy(path, dir, i);
        path[i] = '\0';
        if (stat(path, &st) != 0 && mkdir(path, 0700) != 0 && errno != EEXIST)
            return fail(err, DS4_EIO, "cannot make the folder %s: %s", path, strerror(errno));
    }
    if (stat(dir, &st) != 0)
        return fail(err, DS4_EIO, "cannot look into %s: %s", dir, strerror(errno));
    return S_ISDIR(st.st_mode) || fail(err, DS4_EIO, "%s is no folder", dir);
}

static bool refuse(const Folder *f, int fd, ds4_err *err)
{
    char who[32] = { 0 };

    if (pread(fd, who, sizeof who - 1, 0) <= 0)
        who[0] = '\0';
    const long pid = strtol(who, NULL, 10);
    if (pid <= 0)
        return fail(err, DS4_EINVAL, "another process uses the KV folder %s", f->dir);
    return fail(err, DS4_EINVAL,
                "process %ld uses the KV folder %s: two servers need a folder each", pid, f->dir);
}

/* Whoever may not write here evicts and writes nothing, and needs no lock. */
static bool take_lock(Folder *f, ds4_err *err)
{
    char path[FOLDER_PATH], pid[32];

    if (!folder_path(f, "lock", path))
        return fail(err, DS4_EINVAL, "the path %s is too long", f->dir);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM))
        return true;
    if (fd < 0)
        return fail(err, DS4_EIO, "cannot open %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        bool ok = errno == EWOULDBLOCK
                      ? refuse(f, fd, err)
                      : fail(err, DS4_EIO, "cannot lock %s: %s", path, strerror(errno));
        close(fd);
        return ok;
    }
    f->lock = fd;
    /* The number is for messages only: without it they are shorter. */
    const int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    f->writable = ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) >= 0;
    if (!f->writable && errno == ENOSPC)
        f->writable = true; /* full now, perhaps not later */
    return true;
}

bool folder_open(Folder *f, const char *dir, bool to_own, ds4_err *err)
{
    *f = (Folder){ .lock = -1 };
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || n >= sizeof f->dir)
        return fail(err, DS4_EINVAL, "a KV folder's path has 1 to %zu bytes", sizeof f->dir - 1);
    memcpy(f->dir, dir, n);
    f->dir[n] = '\0';
    if (!to_own) {
        struct stat st;
        if (stat(f->dir, &st) != 0)
            return fail(err, DS4_EIO, "cannot look into %s: %s", f->dir, strerror(errno));
        return S_ISDIR(st.st_mode) || fail(err, DS4_EIO, "%s is no folder", f->dir);
    }
    return make_folders(f->dir, err) && take_lock(f, err);
}

void folder_close(Folder *f)
{
    if (f->lock >= 0)
        close(f->lock);
    *f = (Folder){ .lock = -1 };
}

/* ---- what lies in it ---------------------------------------------------------------- */

/* Bytes of all files below a foreign folder; links are not followed. */
static uint64_t bytes_below(int at, const char *name, int depth)
{
    const int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    uint64_t sum = 0;

    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (S_ISDIR(st.st_mode))
            sum += depth ? bytes_below(dirfd(d), e->d_name, depth - 1) : 0;
        else
            sum += (uint64_t)st.st_size;
    }
    closedir(d);
    return sum;
}

static bool ends_with(Str s, Str end)
{
    return s.n > end.n && memcmp(s.p + s.n - end.n, end.p, end.n) == 0;
}

static bool is_journal(Str name)
{
    const Str end = STR(".journal");
    if (!ends_with(name, end))
        return false;
    for (size_t i = 0; i < name.n - end.n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz", name.p[i]))
            return false;
    return true;
}

/* What a name promises. A half-written file is one of ours and ".tmp-" digits. */
static FolderKind kind_of(Str name, ChunkName *chunk)
{
    const Str kv = STR(".kv");
    size_t digits = 0;

    if (ends_with(name, kv) && name_read(chunk, name.p, name.n - kv.n))
        return FOLDER_CHUNK;
    if (is_journal(name))
        return FOLDER_JOURNAL;
    if (str_eq(name, STR("lock")) || str_eq(name, STR("secret")))
        return FOLDER_OURS;
    while (digits < name.n && name.p[name.n - 1 - digits] >= '0' &&
           name.p[name.n - 1 - digits] <= '9')
        digits++;
    const Str front = { name.p, name.n - digits };
    if (digits && ends_with(front, STR(".tmp-")) &&
        kind_of((Str){ name.p, front.n - 5 }, chunk) != FOLDER_FOREIGN)
        return FOLDER_LEFTOVER;
    return FOLDER_FOREIGN;
}

static void look_into(int dir, const char *file, const ChunkName *name, FolderFile *out,
                      ds4_err *why)
{
    unsigned char head[CHUNK_HEAD + CHUNK_USE];
    bool use_ok;
    const int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = 0, k = -1;

    while (fd >= 0 && (k = pread(fd, head + n, sizeof head - (size_t)n, n)) != 0)
        if (k > 0)
            n += k;
        else if (errno != EINTR)
            break;
    if (k < 0) {
        fail(why, DS4_EIO, "%s", strerror(errno));
        out->fault = errno == ENOENT ? CHUNK_GONE : CHUNK_UNREADABLE;
    } else {
        out->fault =
            chunk_read_head(&out->head, &out->use, &use_ok, head, (size_t)n, out->bytes, why);
        if (out->fault == CHUNK_OK && !name_eq(&out->head.name, name)) {
            fail(why, DS4_EFORMAT, "it is another chunk than its name says");
            out->fault = CHUNK_BAD_NAME;
        }
    }
    if (fd >= 0)
        close(fd);
    if (out->fault != CHUNK_OK)
        out->kind = FOLDER_BAD;
}

static void see(int dir, const char *file, FolderSeen seen, void *user)
{
    struct stat st;
    ChunkName name = { 0 };
    ds4_err why = { 0 };
    FolderFile f = { .kind = kind_of(str_of(file), &name), .file = file, .why = why.msg };

    if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return; /* gone meanwhile */
    f.bytes = (uint64_t)st.st_size;
    if (S_ISDIR(st.st_mode))
        f.bytes = bytes_below(dir, file, 16);
    if (!S_ISREG(st.st_mode))
        f.kind = FOLDER_FOREIGN;
    if (f.kind == FOLDER_CHUNK)
        look_into(dir, file, &name, &f, &why);
    seen(user, &f);
}

bool folder_scan(const Folder *f, FolderSeen seen, void *user, ds4_err *err)
{
    DIR *d = opendir(f->dir);

    if (!d)
        return fail(err, DS4_EIO, "cannot look into %s: %s", f->dir, strerror(errno));
    struct dirent *e;
    while (errno = 0, (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            see(dirfd(d), e->d_name, seen, user);
    const bool ok = !errno || fail(err, DS4_EIO, "cannot read %s: %s", f->dir, strerror(errno));
    closedir(d);
    return ok;
}

/* ---- the secret --------------------------------------------------------------------- */

bool folder_secret(const Folder *f, uint8_t out[32], ds4_err *err)
{
    char path[FOLDER_PATH];
    struct stat st;
    Bytes b = { 0 };
    File file = { 0 };

    if (!folder_path(f, "secret", path))
        return fail(err, DS4_EINVAL, "the path %s is too long", f->dir);
    /* What it has signed ends with it: one that only cannot be read now is not replaced. */
    if (stat(path, &st) == 0 ? S_ISREG(st.st_mode) && st.st_size == 32 : errno != ENOENT) {
        const bool read =
            file_read(&b, path, 32, err) &&
            (b.n == 32 || fail(err, DS4_EFORMAT, "%s: %zu bytes, expected 32", path, b.n));
        if (read)
            memcpy(out, b.p, 32);
        bytes_release(&b);
        return read;
    }
    if (RAND_bytes(out, 32) != 1)
        return fail(err, DS4_EIO, "no random numbers");
    bool ok = !f->writable || (file_create(&file, path, err) && file_private(&file, err) &&
                               file_write(&file, out, 32, err) && file_commit(&file, err));
    file_release(&file);
    return ok;
}
