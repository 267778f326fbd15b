/* saved.c - "DS4CHAT1", u64 length of the messages, the messages, and the
 * session's own stream, which has its own version and checksum. */
#include "saved.h"
#include "../base/file.h"

#define MAGIC STR("DS4CHAT1")
enum { HEAD = 16 };

typedef struct {
    File *file;
    ds4_err *err;
} Sink;

static bool write_part(void *user, void *data, size_t n)
{
    Sink *s = user;
    return file_write(s->file, data, n, s->err);
}

bool saved_write(const char *path, const Transcript *t, ds4_session *s, ds4_err *err)
{
    Bytes messages = { 0 }, head = { 0 };
    File f = { 0 };
    ds4_err inner = { 0 };
    Sink sink = { &f, &inner };
    transcript_write(t, &messages);
    bytes_put(&head, MAGIC.p, MAGIC.n);
    bytes_u64(&head, messages.n);
    bytes_put(&head, messages.p, messages.n);
    bool ok = !head.failed && !messages.failed
                  ? file_create(&f, path, err)
                  : fail(err, DS4_ENOMEM, "no memory to save %zu messages", t->n);
    ok = ok && file_write(&f, head.p, head.n, err);
    if (ok && !ds4_session_save(s, (ds4_stream){ write_part, &sink }, err))
        ok = inner.code ? fail(err, inner.code, "%s", inner.msg) : false;
    ok = ok && file_commit(&f, err);
    file_release(&f);
    bytes_release(&head);
    bytes_release(&messages);
    return ok;
}

static bool read_part(void *user, void *data, size_t n)
{
    Str *left = user;
    if (n > left->n)
        return false;
    if (n)
        memcpy(data, left->p, n);
    *left = (Str){ left->p + n, left->n - n };
    return true;
}

static bool check_head(const Map *m, const char *path, size_t *messages, ds4_err *err)
{
    if (m->n < HEAD || memcmp(m->p, MAGIC.p, MAGIC.n) != 0)
        return fail(err, DS4_EFORMAT, "%s is no saved conversation", path);
    uint64_t n = 0;
    for (size_t i = HEAD; i-- > MAGIC.n;)
        n = n << 8 | m->p[i];
    if (n > m->n - HEAD)
        return fail(err, DS4_EFORMAT, "%s: %llu bytes of messages, and %zu are left", path,
                    (unsigned long long)n, m->n - HEAD);
    *messages = (size_t)n;
    return true;
}

bool saved_read(const char *path, Transcript *t, ds4_session *s, ds4_err *err)
{
    Map m = { 0 };
    size_t n = 0;
    ds4_err inner = { 0 };
    *t = (Transcript){ 0 };
    if (!map_open(&m, path, err))
        return false;
    bool ok = check_head(&m, path, &n, err);
    if (ok) {
        const char *p = (const char *)m.p + HEAD;
        Str session = { p + n, m.n - HEAD - n };
        ok = transcript_parse(t, (Str){ p, n }, &inner) &&
             ds4_session_load(s, (ds4_stream){ read_part, &session }, &inner);
        if (!ok)
            fail(err, inner.code, "%s: %s", path, inner.msg);
    }
    if (!ok)
        transcript_release(t);
    map_close(&m);
    return ok;
}
