/* session.c - any bytes as a saved session of a small model.
 *
 * An input that begins with 'D' is loaded as it is. Any other edits a good
 * file: its first byte says how many tokens it holds, the second whether to
 * cut it and whether to make the checksums right again, which lets the edits
 * through to what lies behind them; then 4 bytes an edit: offset (u24), value.
 * What loads must be usable: it is fed a token and saved again. */
#include "../../src/engine/engine.h"
#include "../../src/quantize/synth.h"
#include <stdlib.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 40, FIX = 1, CUT = 2 };

typedef struct {
    Bytes b;
    size_t at;
} Memory;

static ds4_engine *engine;
static Bytes gguf, good[MOST + 1];
static size_t section[MOST + 1][5]; /* where each begins; the last: the end */

static bool write_memory(void *user, void *p, size_t n)
{
    bytes_put(&((Memory *)user)->b, p, n);
    return true;
}

static bool read_memory(void *user, void *p, size_t n)
{
    Memory *m = user;
    if (n > m->b.n - m->at)
        return false;
    memcpy(p, m->b.p + m->at, n);
    m->at += n;
    return true;
}

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void make_good(ds4_session *s, int n)
{
    const Kv *kv = &engine->kv;
    Memory m = { 0 };
    const int32_t token = n * 7 % engine->shape.vocab;
    size_t *at = section[n];

    require(n == 0 || ds4_session_feed(s, &token, 1, NULL));
    require(ds4_session_save(s, (ds4_stream){ write_memory, &m }, NULL));
    good[n] = m.b;
    at[0] = 64;
    at[1] = at[0] + (size_t)n * 4 + 8;
    at[2] = at[1] + (size_t)kv_rows_bytes(kv, 0, n) + 8;
    at[3] = at[2] + (size_t)kv_mark_bytes(kv, n) + 8;
    at[4] = at[3] + (n ? (size_t)engine->shape.vocab * 4 : 0) + 8;
    require(at[4] == m.b.n);
}

static void set_up(void)
{
    Shape s;

    require(synth_shape(&s, "mini", 3, NULL));
    require(
        synth_bytes(&gguf, &(SynthOptions){ .shape = &s, .recipe = "f32", .threads = 1 }, NULL));
    const ds4_options opt = { .device = "cpu",
                              .isa = "scalar",
                              .threads = 1,
                              .context = MOST + 8,
                              .max_rows = 4,
                              .sessions = 1 };
    engine = engine_open_bytes(gguf.p, gguf.n, &opt, NULL);
    require(engine != NULL);
    ds4_session *session = ds4_session_open(engine, NULL);
    require(session != NULL);
    for (int n = 0; n <= MOST; n++)
        make_good(session, n);
    ds4_session_close(session);
}

static void fix(Bytes *b, const size_t *at)
{
    uint64_t sum = XXH3_64bits(b->p, 56);
    memcpy(b->p + 56, &sum, sizeof sum);
    for (int i = 0; i < 4; i++) {
        sum = XXH3_64bits(b->p + at[i], at[i + 1] - at[i] - 8);
        memcpy(b->p + at[i + 1] - 8, &sum, sizeof sum);
    }
}

static void edited(Memory *m, const uint8_t *data, size_t size)
{
    const int n = data[0] % (MOST + 1), how = size > 1 ? data[1] : 0;

    bytes_put(&m->b, good[n].p, good[n].n);
    for (size_t i = 2; i + 4 <= size; i += 4) {
        size_t at = (size_t)data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16;
        m->b.p[at % m->b.n] = (char)data[i + 3];
    }
    if (how & FIX)
        fix(&m->b, section[n]);
    if (how & CUT)
        m->b.n = m->b.n * (size_t)(how >> 2) / 64;
}

/* A loaded session goes on and is saved as any other. */
static void use(ds4_session *s)
{
    Memory again = { 0 };
    const int32_t token = 3;

    require(ds4_session_length(s) <= MOST + 8);
    for (int i = 0; i < ds4_session_length(s); i++)
        require(ds4_session_tokens(s)[i] >= 0 && ds4_session_tokens(s)[i] < engine->shape.vocab);
    if (ds4_logits(s))
        require(ds4_sample(s, &(ds4_sampling){ 0 }) >= 0);
    if (ds4_session_length(s) < MOST + 8)
        require(ds4_session_feed(s, &token, 1, NULL));
    require(ds4_session_save(s, (ds4_stream){ write_memory, &again }, NULL));
    bytes_release(&again.b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Memory m = { 0 };
    ds4_err err = { 0 };

    if (!engine)
        set_up();
    if (!size)
        return 0;
    if (data[0] == 'D')
        bytes_put(&m.b, data, size);
    else
        edited(&m, data, size);
    ds4_session *s = ds4_session_open(engine, NULL);
    if (ds4_session_load(s, (ds4_stream){ read_memory, &m }, &err))
        use(s);
    else
        require(ds4_session_length(s) == 0 && err.msg[0]);
    ds4_session_close(s);
    bytes_release(&m.b);
    return 0;
}
