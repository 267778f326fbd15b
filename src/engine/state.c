/* state.c - a session to a stream and back.
 *
 *      offset  bytes
 *           0      8   "DS4STATE"
 *           8      4   version
 *          12      4   flags: 1 rounding, 2 logits are there
 *          16     16   the first bytes of the model's fingerprint
 *          32      4   n, tokens
 *          36      4   vocabulary
 *          40      8   bytes of the pooled rows
 *          48      8   bytes of the window and pooling inputs
 *          56      8   XXH3-64 of the 56 bytes before
 *
 * then four sections, each followed by its XXH3-64: n tokens (i32), pooled
 * rows, window and pooling inputs, logits (vocabulary x f32, or nothing). All
 * little endian; rows as in quant/kvrow.h, in the order of kv.h's walks, so
 * the bytes do not depend on the device. Nothing is allocated by what the
 * stream claims: every size must be the one this model has for n tokens. */
#include "engine.h"
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

enum { VERSION = 2, ROUNDED = 1, WITH_LOGITS = 2 };
enum { HEADER = 64, PIECE = 1 << 18 };

static const char magic[8] = { 'D', 'S', '4', 'S', 'T', 'A', 'T', 'E' };

/* ---- a stream with a running checksum -------------------------------------- */

typedef struct {
    ds4_stream stream;
    Backend *be;
    XXH3_state_t *sum;
    char *piece; /* [PIECE] */
    bool loading;
    const char *what; /* the section, for messages */
    ds4_err *err;
} Channel;

static bool channel_init(Channel *c, ds4_session *s, ds4_stream stream, bool loading, ds4_err *err)
{
    *c = (Channel){ .stream = stream, .be = s->engine->be, .loading = loading, .err = err };
    c->piece = malloc(PIECE);
    c->sum = XXH3_createState();
    return (c->piece && c->sum) || fail(err, DS4_ENOMEM, "no memory to move a session");
}

static void channel_release(Channel *c)
{
    free(c->piece);
    XXH3_freeState(c->sum);
}

static bool transfer(Channel *c, void *p, size_t n)
{
    if (!n)
        return true;
    if (!c->stream.io(c->stream.user, p, n))
        return fail(c->err, DS4_EIO,
                    c->loading ? "the saved session ends within its %s"
                               : "the session's %s could not be written",
                    c->what);
    XXH3_64bits_update(c->sum, p, n);
    return true;
}

/* One piece of device memory through host memory. */
static bool transfer_buf(void *user, Buf b, size_t bytes)
{
    Channel *c = user;

    while (bytes) {
        const size_t n = MIN(bytes, (size_t)PIECE);
        if (!c->loading)
            c->be->op->read(c->be, c->piece, b, n);
        if (!transfer(c, c->piece, n))
            return false;
        if (c->loading)
            c->be->op->write(c->be, b, c->piece, n);
        b = buf_at(b, n);
        bytes -= n;
    }
    return true;
}

static void section_begin(Channel *c, const char *what)
{
    c->what = what;
    XXH3_64bits_reset(c->sum);
}

static bool section_end(Channel *c)
{
    const uint64_t sum = XXH3_64bits_digest(c->sum);
    uint64_t stored = sum;

    if (!transfer(c, &stored, sizeof stored))
        return false;
    return stored == sum || fail(c->err, DS4_EFORMAT,
                                 "the saved session's %s are damaged: "
                                 "checksum %016" PRIx64 ", expected %016" PRIx64,
                                 c->what, stored, sum);
}

static bool section(Channel *c, const char *what, void *p, size_t n)
{
    section_begin(c, what);
    return transfer(c, p, n) && section_end(c);
}

/* Tokens, rows, marks, logits: the same walk in both directions. */
static bool sections(Channel *c, ds4_session *s, int n, bool logits)
{
    const ds4_engine *e = s->engine;

    if (!section(c, "tokens", s->token, (size_t)n * sizeof *s->token))
        return false;
    section_begin(c, "pooled rows");
    if (!kv_rows_walk(&e->kv, s->slot, 0, n, transfer_buf, c) || !section_end(c))
        return false;
    section_begin(c, "window rows");
    if (!kv_mark_walk(&e->kv, s->slot, n, transfer_buf, c) || !section_end(c))
        return false;
    return section(c, "logits", s->logits, logits ? (size_t)e->shape.vocab * sizeof *s->logits : 0);
}

/* ---- the header ------------------------------------------------------------ */

static void make_header(Bytes *h, const ds4_session *s, int n, uint32_t flags)
{
    const ds4_engine *e = s->engine;

    bytes_put(h, magic, sizeof magic);
    bytes_u32(h, VERSION);
    bytes_u32(h, flags | (e->shape.rounding ? ROUNDED : 0));
    bytes_put(h, e->fingerprint, 16);
    bytes_u32(h, (uint32_t)n);
    bytes_u32(h, (uint32_t)e->shape.vocab);
    bytes_u64(h, kv_rows_bytes(&e->kv, 0, n));
    bytes_u64(h, kv_mark_bytes(&e->kv, n));
    if (!h->failed)
        bytes_u64(h, XXH3_64bits(h->p, h->n));
}

static uint32_t u32_at(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static bool understand(const ds4_session *s, const char *h, ds4_err *err)
{
    uint64_t sum;

    memcpy(&sum, h + 56, sizeof sum);
    if (memcmp(h, magic, sizeof magic))
        return fail(err, DS4_EFORMAT, "this is no saved session");
    if (u32_at(h + 8) != VERSION)
        return fail(err, DS4_EFORMAT, "the saved session is of version %u, expected %d",
                    u32_at(h + 8), VERSION);
    if (sum != XXH3_64bits(h, 56))
        return fail(err, DS4_EFORMAT, "the saved session's header is damaged");
    if (memcmp(h + 16, s->engine->fingerprint, 16))
        return fail(err, DS4_EFORMAT, "the saved session belongs to another model");
    if (!(u32_at(h + 12) & ROUNDED) != !s->engine->shape.rounding)
        return fail(err, DS4_EFORMAT, "the saved session has rounding %s, the engine %s",
                    u32_at(h + 12) & ROUNDED ? "on" : "off",
                    s->engine->shape.rounding ? "on" : "off");
    if (u32_at(h + 32) > (uint32_t)s->engine->set.context)
        return fail(err, DS4_ECONTEXT, "the saved session has %u tokens, the context is %d",
                    u32_at(h + 32), s->engine->set.context);
    return true;
}

/* With n and flags believed, every other byte of the header follows. */
static bool same_header(const ds4_session *s, const char *h, ds4_err *err)
{
    Bytes want = { 0 };

    make_header(&want, s, (int)u32_at(h + 32), u32_at(h + 12) & WITH_LOGITS);
    bool ok = want.failed
                  ? fail(err, DS4_ENOMEM, "no memory for a header")
                  : !memcmp(want.p, h, HEADER) || fail(err, DS4_EFORMAT,
                                                       "the saved session's sizes are not those "
                                                       "of %u tokens of this model",
                                                       u32_at(h + 32));
    bytes_release(&want);
    return ok;
}

/* ---- saving and loading ------------------------------------------------------ */

bool ds4_session_save(ds4_session *s, ds4_stream out, ds4_err *err)
{
    Channel c = { 0 };
    Bytes h = { 0 };

    if (!fingerprint_know(s->engine, err))
        return false;
    make_header(&h, s, s->length, s->has_logits ? WITH_LOGITS : 0);
    bool ok = !h.failed || fail(err, DS4_ENOMEM, "no memory for a header");
    ok = ok && channel_init(&c, s, out, false, err);
    if (ok) {
        section_begin(&c, "header");
        ok = transfer(&c, h.p, h.n) && sections(&c, s, s->length, s->has_logits);
    }
    channel_release(&c);
    bytes_release(&h);
    return ok;
}

static bool load(ds4_session *s, Channel *c, ds4_err *err)
{
    char h[HEADER];

    section_begin(c, "header");
    if (!transfer(c, h, sizeof h) || !understand(s, h, err) || !same_header(s, h, err))
        return false;
    const int n = (int)u32_at(h + 32);
    const bool logits = u32_at(h + 12) & WITH_LOGITS;
    s->logits = s->own_logits;
    if (!sections(c, s, n, logits) || !tokens_check(s->engine, s->token, n, err))
        return false;
    session_at(s, n);
    s->has_logits = logits;
    return true;
}

bool ds4_session_load(ds4_session *s, ds4_stream in, ds4_err *err)
{
    Channel c = { 0 };

    session_clear(s);
    if (!fingerprint_know(s->engine, err))
        return false;
    bool ok = channel_init(&c, s, in, true, err) && load(s, &c, err);
    channel_release(&c);
    if (ok)
        marks_take(s); /* whatever its length: it is all there is */
    return ok;
}
