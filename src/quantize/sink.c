/* sink.c - writing in order. */
#include "sink.h"
#include <assert.h>
#include <sys/statvfs.h>

bool sink_write(Sink *s, const void *p, size_t n, ds4_err *err)
{
    if (s->file) {
        if (!file_write(s->file, p, n, err))
            return false;
    } else {
        bytes_put(s->mem, p, n);
        if (s->mem->failed)
            return fail(err, DS4_ENOMEM, "no memory for a model of more than %llu bytes",
                        (unsigned long long)s->at);
    }
    s->at += n;
    return true;
}

bool sink_pad(Sink *s, uint64_t to, ds4_err *err)
{
    static const char zeros[256];
    assert(to >= s->at);
    while (s->at < to)
        if (!sink_write(s, zeros, (size_t)MIN(to - s->at, sizeof zeros), err))
            return false;
    return true;
}

bool sink_room(const char *path, uint64_t bytes, ds4_err *err)
{
    Bytes dir = { 0 };
    const char *slash = strrchr(path, '/');
    struct statvfs st;
    uint64_t room;

    if (slash)
        bytes_put(&dir, path, slash == path ? 1 : (size_t)(slash - path));
    else
        bytes_str(&dir, ".");
    bytes_byte(&dir, 0);
    bool known = !dir.failed && statvfs(dir.p, &st) == 0 &&
                 mul_u64((uint64_t)st.f_bavail, (uint64_t)st.f_frsize, &room);
    bytes_release(&dir);
    /* What cannot be asked will be told by the write. */
    if (known && room < bytes)
        return fail(err, DS4_EIO, "%s needs %.3f GB, and its disk has %.3f GB left", path,
                    (double)bytes / 1e9, (double)room / 1e9);
    return true;
}
