/* chunk_file.c - chunk files of a folder: written whole, read in parts.
 *
 * What is read is checked before it is used: the header again (the file may
 * have been exchanged since it was found), then the tokens, which must be the
 * very ones that are asked for, then the checksum of each part. */
#include "folder.h"
#include "store.h"
#include "../base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRANSFER  ((size_t)1 << 30) /* macOS refuses more than INT_MAX */
#define HUGE_PAGE ((size_t)2 << 20)

static bool path_of(const Folder *f, const ChunkName *name, char out[FOLDER_PATH])
{
    char file[48];
    name_hex(name, file);
    memcpy(file + 40, ".kv", 4);
    return folder_path(f, file, out);
}

/* ---- writing ----------------------------------------------------------------------- */

static bool write_section(File *file, const ChunkHead *h, const void *p, uint64_t n, ds4_err *err)
{
    const uint64_t sum = chunk_sum(h, p, (size_t)n);
    return file_write(file, p, (size_t)n, err) && file_write(file, &sum, sizeof sum, err);
}

bool folder_write_chunk(const Folder *f, const ChunkHead *h, const ChunkUse *u,
                        const int32_t *tokens, const void *rows, const void *mark, bool *full,
                        ds4_err *err)
{
    char path[FOLDER_PATH];
    unsigned char front[CHUNK_HEAD + CHUNK_USE];
    File file = { 0 };

    chunk_write_head(h, front);
    chunk_write_use(h, u, front + CHUNK_HEAD);
    errno = 0;
    bool ok = path_of(f, &h->name, path) && file_create(&file, path, err) &&
              file_private(&file, err) && file_write(&file, front, sizeof front, err) &&
              write_section(&file, h, tokens, (uint64_t)h->n * sizeof *tokens, err) &&
              write_section(&file, h, rows, h->rows_bytes, err) &&
              write_section(&file, h, mark, h->mark_bytes, err) && file_commit(&file, err);
    *full = !ok && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG);
    file_release(&file);
    return ok;
}

void folder_write_use(const Folder *f, const ChunkHead *h, const ChunkUse *u)
{
    char path[FOLDER_PATH];
    unsigned char use[CHUNK_USE];
    const int fd = path_of(f, &h->name, path) ? open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

    chunk_write_use(h, u, use);
    if (fd < 0)
        return;
    /* Half of it would be seen by its checksum. */
    if (pwrite(fd, use, sizeof use, CHUNK_HEAD) < 0)
        errno = 0;
    close(fd);
}

bool folder_remove_chunk(const Folder *f, const ChunkName *name)
{
    char path[FOLDER_PATH];
    return path_of(f, name, path) && (unlink(path) == 0 || errno == ENOENT);
}

uint64_t folder_chunk_bytes(const Folder *f, const ChunkName *name)
{
    char path[FOLDER_PATH];
    struct stat st;
    return path_of(f, name, path) && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- reading ----------------------------------------------------------------------- */

typedef struct {
    int fd;
    ChunkHead head;
    ChunkUse use;
    ChunkPlaces at;
    uint64_t bytes;
    ds4_err *err;
} Reader;

static ChunkFault unreadable(Reader *r, const char *what)
{
    const bool short_of = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
    fail(r->err, short_of ? DS4_ENOMEM : DS4_EIO, "cannot read its %s: %s", what, strerror(errno));
    return CHUNK_UNREADABLE;
}

static bool read_at(Reader *r, void *to, uint64_t n, uint64_t at)
{
    char *p = to;

    while (n) {
        const ssize_t k = pread(r->fd, p, (size_t)MIN(n, (uint64_t)TRANSFER), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k == 0)
            errno = EIO; /* shorter than it was just now */
        if (k <= 0)
            return false;
        p += k;
        n -= (uint64_t)k;
        at += (uint64_t)k;
        r->bytes += (uint64_t)k;
    }
    return true;
}

static ChunkFault reader_open(Reader *r, const Folder *f, const ChunkName *name)
{
    char path[FOLDER_PATH];
    unsigned char front[CHUNK_HEAD + CHUNK_USE];
    struct stat st;
    bool use_ok;

    r->fd =
        path_of(f, name, path) ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    if (r->fd < 0 && errno == ENOENT) {
        fail(r->err, DS4_EIO, "there is no such file");
        return CHUNK_GONE;
    }
    if (r->fd < 0 || fstat(r->fd, &st) != 0)
        return unreadable(r, "header");
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size < sizeof front) {
        fail(r->err, DS4_EFORMAT, "%lld bytes are no chunk", (long long)st.st_size);
        return CHUNK_BAD_SIZE;
    }
    if (!read_at(r, front, sizeof front, 0))
        return unreadable(r, "header");
    const ChunkFault fault = chunk_read_head(&r->head, &r->use, &use_ok, front, sizeof front,
                                             (uint64_t)st.st_size, r->err);
    if (fault == CHUNK_OK && !name_eq(&r->head.name, name)) {
        fail(r->err, DS4_EFORMAT, "it is another chunk than its name says");
        return CHUNK_BAD_NAME;
    }
    if (fault == CHUNK_OK)
        chunk_places(&r->head, &r->at);
    return fault;
}

static void reader_close(Reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
}

/* A section of n bytes into memory that is there. */
static ChunkFault read_section(Reader *r, void *to, uint64_t n, uint64_t at, const char *what)
{
    uint64_t stored;

    if (!read_at(r, to, n, at) || !read_at(r, &stored, sizeof stored, at + n))
        return unreadable(r, what);
    const uint64_t sum = chunk_sum(&r->head, to, (size_t)n);
    if (sum == stored)
        return CHUNK_OK;
    fail(r->err, DS4_EFORMAT, "its %s are damaged: checksum %016" PRIx64 ", expected %016" PRIx64,
         what, sum, stored);
    return CHUNK_BAD_CHECKSUM;
}

/* Megabytes are touched for the first time here: 25,000 tokens come from the page cache
 * in 27 ms with large pages, in 55 without (a virtual AMD EPYC with 2 cores). */
static void *large(size_t n)
{
    void *p = NULL;
#ifdef MADV_HUGEPAGE
    if (n >= 2 * HUGE_PAGE && posix_memalign(&p, HUGE_PAGE, n) == 0)
        (void)madvise(p, n / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p ? p : malloc(MAX(n, (size_t)1));
}

static ChunkFault read_new(Reader *r, void **to, uint64_t n, uint64_t at, const char *what)
{
    *to = large((size_t)n);
    if (!*to) {
        fail(r->err, DS4_ENOMEM, "no memory for its %s, %" PRIu64 " bytes", what, n);
        return CHUNK_UNREADABLE;
    }
    return read_section(r, *to, n, at, what);
}

static ChunkFault check_tokens(Reader *r, const ChunkHead *want, const int32_t *tokens)
{
    int32_t found[STORE_CHUNK];

    if (r->head.n != want->n || r->head.first != want->first ||
        r->head.rows_bytes != want->rows_bytes || r->head.mark_bytes != want->mark_bytes) {
        fail(r->err, DS4_EFORMAT, "its sizes are not those of its model");
        return CHUNK_BAD_SIZE;
    }
    const uint64_t n = (uint64_t)want->n * sizeof *found;
    const ChunkFault fault = read_section(r, found, n, r->at.tokens, "tokens");
    if (fault != CHUNK_OK || memcmp(found, tokens, n) == 0)
        return fault;
    fail(r->err, DS4_EFORMAT, "its tokens are not those of its name");
    return CHUNK_BAD_NAME;
}

ChunkFault folder_read_chunk(const Folder *f, const ChunkHead *want, const int32_t *tokens,
                             void **rows, void **mark, uint64_t *bytes, ds4_err *err)
{
    Reader r = { .fd = -1, .err = err };
    void *got_rows = NULL, *got_mark = NULL;
    ChunkFault fault = reader_open(&r, f, &want->name);

    if (fault == CHUNK_OK)
        fault = check_tokens(&r, want, tokens);
    if (fault == CHUNK_OK && rows)
        fault = read_new(&r, &got_rows, r.head.rows_bytes, r.at.rows, "rows");
    if (fault == CHUNK_OK && mark)
        fault = read_new(&r, &got_mark, r.head.mark_bytes, r.at.mark, "window rows");
    reader_close(&r);
    *bytes = r.bytes;
    if (fault != CHUNK_OK) {
        free(got_rows);
        free(got_mark);
        return fault;
    }
    if (rows)
        *rows = got_rows;
    if (mark)
        *mark = got_mark;
    return CHUNK_OK;
}

ChunkFault folder_read_tokens(const Folder *f, const ChunkName *name, ChunkHead *h, ChunkUse *u,
                              int32_t *tokens, ds4_err *err)
{
    Reader r = { .fd = -1, .err = err };
    ChunkFault fault = reader_open(&r, f, name);

    if (fault == CHUNK_OK)
        fault =
            read_section(&r, tokens, (uint64_t)r.head.n * sizeof *tokens, r.at.tokens, "tokens");
    reader_close(&r);
    *h = r.head;
    *u = r.use;
    return fault;
}

ChunkFault folder_verify_chunk(const Folder *f, const ChunkName *name, ds4_err *err)
{
    char path[FOLDER_PATH];
    Bytes b = { 0 };
    ChunkHead h;
    struct stat st;

    if (!path_of(f, name, path) || stat(path, &st) != 0) {
        fail(err, DS4_EIO, "there is no such file");
        return CHUNK_GONE;
    }
    if (!file_read(&b, path, (size_t)st.st_size, err)) {
        bytes_release(&b);
        return CHUNK_UNREADABLE;
    }
    ChunkFault fault = chunk_verify((const unsigned char *)b.p, b.n, &h, err);
    if (fault == CHUNK_OK && !name_eq(&h.name, name)) {
        fail(err, DS4_EFORMAT, "it is another chunk than its name says");
        fault = CHUNK_BAD_NAME;
    }
    bytes_release(&b);
    return fault;
}
