/* download.c - a file that is being downloaded.
 *
 * The note is written when a part begins, after what was there has been cut off,
 * and never changes: so a note and bytes always belong together. */
#include "download.h"
#include "../base/file.h"
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, MOST_NOTE = 4096 };

static bool io_fail(ds4_err *err, const char *what, const char *path)
{
    return fail(err, DS4_EIO, "cannot %s %s: %s", what, path, strerror(errno));
}

/* ---- the note ----------------------------------------------------------------------- */

static const struct {
    const char *key;
    size_t at, room;
} texts[] = {
    { "url ", offsetof(DownloadInfo, url), sizeof((DownloadInfo *)0)->url },
    { "etag ", offsetof(DownloadInfo, etag), sizeof((DownloadInfo *)0)->etag },
    { "modified ", offsetof(DownloadInfo, modified), sizeof((DownloadInfo *)0)->modified },
    { "sha256 ", offsetof(DownloadInfo, sha256), sizeof((DownloadInfo *)0)->sha256 },
};

static void take_line(DownloadInfo *info, Str line)
{
    for (size_t i = 0; i < COUNT(texts); i++) {
        size_t key = strlen(texts[i].key);
        if (line.n < key || memcmp(line.p, texts[i].key, key) != 0 || line.n - key >= texts[i].room)
            continue;
        char *to = (char *)info + texts[i].at;
        memcpy(to, line.p + key, line.n - key);
        to[line.n - key] = '\0';
    }
    if (line.n > 6 && line.n < 32 && !memcmp(line.p, "bytes ", 6)) {
        char digits[32] = "";
        memcpy(digits, line.p + 6, line.n - 6);
        info->bytes = strtoull(digits, NULL, 10);
    }
}

/* False where there is none that names a URL. */
static bool read_note(DownloadInfo *info, const char *path)
{
    Bytes text = { 0 };
    *info = (DownloadInfo){ 0 };
    bool ok = file_read(&text, path, MOST_NOTE, NULL);
    for (size_t at = 0, end; ok && at < text.n; at = end + 1) {
        for (end = at; end < text.n && text.p[end] != '\n';)
            end++;
        take_line(info, (Str){ text.p + at, end - at });
    }
    bytes_release(&text);
    return ok && info->url[0];
}

static bool write_note(const Download *p, ds4_err *err)
{
    File f = { 0 };
    Bytes text = { 0 };
    for (size_t i = 0; i < COUNT(texts); i++)
        bytes_printf(&text, "%s%s\n", texts[i].key, (const char *)&p->info + texts[i].at);
    bytes_printf(&text, "bytes %llu\n", (unsigned long long)p->info.bytes);
    bool ok = text.failed ? fail(err, DS4_ENOMEM, "no memory for %s", p->note)
                          : file_create(&f, p->note, err) && file_write(&f, text.p, text.n, err) &&
                                file_commit(&f, err);
    file_release(&f);
    bytes_release(&text);
    return ok;
}

/* ---- sums --------------------------------------------------------------------------- */

static bool sum_fail(ds4_err *err) { return fail(err, DS4_ENOMEM, "SHA-256 failed"); }

/* The first n bytes of fd, which path names. */
static bool add_file(EVP_MD_CTX *sum, int fd, uint64_t n, const char *path, ds4_err *err)
{
    char *block = malloc(BLOCK);
    bool ok = block || fail(err, DS4_ENOMEM, "no memory to read %s", path);
    for (uint64_t at = 0; ok && at < n;) {
        ssize_t k = pread(fd, block, (size_t)MIN(n - at, (uint64_t)BLOCK), (off_t)at);
        if (cli_interrupted())
            ok = fail(err, DS4_ECANCELED, "interrupted");
        else if (k < 0 && errno != EINTR)
            ok = io_fail(err, "read", path);
        else if (k == 0)
            ok = fail(err, DS4_EIO, "%s became shorter", path);
        else if (k > 0)
            ok = EVP_DigestUpdate(sum, block, (size_t)k) == 1 || sum_fail(err);
        at += k > 0 ? (uint64_t)k : 0;
        cli_progress(NULL, "checking", at, n);
    }
    cli_progress_end();
    free(block);
    return ok;
}

static bool finish(const EVP_MD_CTX *sum, char hex[SHA256_HEX + 1], ds4_err *err)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    bool ok =
        copy && EVP_MD_CTX_copy_ex(copy, sum) == 1 && EVP_DigestFinal_ex(copy, raw, NULL) == 1;
    for (int i = 0; ok && i < SHA256_HEX / 2; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    EVP_MD_CTX_free(copy);
    return ok || sum_fail(err);
}

bool file_sha256(const char *path, char hex[SHA256_HEX + 1], ds4_err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        io_fail(err, "read", path);
        if (fd >= 0)
            close(fd);
        return false;
    }
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    bool ok = (sum && EVP_DigestInit_ex(sum, EVP_sha256(), NULL) == 1) || sum_fail(err);
    ok = ok && add_file(sum, fd, (uint64_t)st.st_size, path, err) && finish(sum, hex, err);
    EVP_MD_CTX_free(sum);
    close(fd);
    return ok;
}

bool download_sha256(const Download *p, char hex[SHA256_HEX + 1], ds4_err *err)
{
    return finish(p->sum, hex, err);
}

/* ---- opening ------------------------------------------------------------------------ */

static char *with_tail(const char *path, const char *tail)
{
    size_t n = strlen(path), m = strlen(tail) + 1;
    char *s = malloc(n + m);
    if (s) {
        memcpy(s, path, n);
        memcpy(s + n, tail, m);
    }
    return s;
}

/* Between opening and locking, its last holder may have renamed or removed it. */
static bool is_still(int fd, const char *path)
{
    struct stat here, there;
    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

static bool lock(Download *p, ds4_err *err)
{
    for (;;) {
        p->fd = open(p->tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (p->fd < 0)
            return io_fail(err, "create", p->tmp);
        p->open = true;
        if (flock(p->fd, LOCK_EX | LOCK_NB) != 0)
            return errno == EWOULDBLOCK
                       ? fail(err, DS4_EIO, "%s is being downloaded by another ds4", p->path)
                       : io_fail(err, "lock", p->tmp);
        if (is_still(p->fd, p->tmp))
            return true;
        close(p->fd);
        p->open = false;
    }
}

static bool take_what_is_there(Download *p, ds4_err *err)
{
    struct stat st;
    if (fstat(p->fd, &st) != 0)
        return io_fail(err, "read", p->tmp);
    p->have = (uint64_t)st.st_size;
    if (p->have && (!read_note(&p->info, p->note) || (p->info.bytes && p->have > p->info.bytes))) {
        p->have = 0;
        p->info = (DownloadInfo){ 0 };
    }
    return add_file(p->sum, p->fd, p->have, p->tmp, err);
}

bool download_open(Download *p, const char *path, ds4_err *err)
{
    *p = (Download){ .fd = -1 };
    p->path = strdup(path);
    p->tmp = with_tail(path, ".part");
    p->note = with_tail(path, ".part-info");
    p->sum = EVP_MD_CTX_new();
    if (!p->path || !p->tmp || !p->note || !p->sum)
        return fail(err, DS4_ENOMEM, "no memory to download %s", path);
    if (EVP_DigestInit_ex(p->sum, EVP_sha256(), NULL) != 1)
        return sum_fail(err);
    return lock(p, err) && take_what_is_there(p, err);
}

void download_close(Download *p)
{
    if (p->open)
        close(p->fd);
    EVP_MD_CTX_free(p->sum);
    free(p->path);
    free(p->tmp);
    free(p->note);
    *p = (Download){ .fd = -1 };
}

/* ---- filling ------------------------------------------------------------------------ */

bool download_begin(Download *p, const DownloadInfo *info, ds4_err *err)
{
    if (ftruncate(p->fd, 0) != 0)
        return io_fail(err, "write", p->tmp);
    p->have = 0;
    p->info = *info;
    if (EVP_DigestInit_ex(p->sum, EVP_sha256(), NULL) != 1)
        return sum_fail(err);
    return write_note(p, err);
}

bool download_append(Download *p, const void *data, size_t n, ds4_err *err)
{
    const char *from = data;
    if (EVP_DigestUpdate(p->sum, data, n) != 1)
        return sum_fail(err);
    while (n) {
        ssize_t k = pwrite(p->fd, from, n, (off_t)p->have);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return io_fail(err, "write", p->tmp);
        from += k;
        p->have += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

bool download_read(const Download *p, uint64_t at, void *out, size_t n, ds4_err *err)
{
    return file_read_at(p->fd, at, out, n) || io_fail(err, "read", p->tmp);
}

bool download_install(Download *p, ds4_err *err)
{
    if (!file_publish(p->fd, p->tmp, p->path, err))
        return false;
    unlink(p->note);
    return true;
}

void download_discard(Download *p)
{
    unlink(p->tmp);
    unlink(p->note);
}
