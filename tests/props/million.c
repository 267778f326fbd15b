/* The end of a context of a million tokens, on a toy whose state up to there is made up: the
 * last position is taken and the next refused; chunks, a stream and pieces change no bit. */
#include "../../src/backend/cpu/kernels.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../toy.h"

enum { CONTEXT = 1 << 20, UNIT = DS4_STATE_UNIT, N = UNIT, FROM = CONTEXT - N, SEED = 4 * UNIT };

typedef struct {
    Bytes gguf;
    ds4_engine *engine;
    ds4_session *a, *b;
    int32_t *text; /* [CONTEXT + 1] */
    float *want;   /* [N][TOY_VOCAB]: what comes after FROM tokens */
} Toy;

static void must(bool ok, const ds4_err *err)
{
    if (!ok)
        fail_msg("%s", err->msg);
}

/* Three layers: one without pooled rows, one with the indexer, one that sees all of them. */
static Bytes long_toy(void)
{
    Bytes gguf = { 0 };
    ds4_err err;
    Shape s;

    must(synth_shape(&s, "mini", 3, &err), &err);
    s.context = CONTEXT;
    must(synth_bytes(&gguf, &(SynthOptions){ .shape = &s, .recipe = "q8", .seed = 5, .threads = 1 },
                     &err),
         &err);
    return gguf;
}

/* FROM tokens' state: the rows of the first few, again and again. */
static void make_up(const Toy *t, ds4_session *s)
{
    const size_t rows = (size_t)ds4_rows_bytes(t->engine, 0, UNIT);
    const size_t mark = (size_t)ds4_mark_bytes(t->engine, SEED);
    char *seed = malloc(SEED / UNIT * rows + mark), *at = seed + SEED / UNIT * rows;
    ds4_err err;

    must(ds4_session_feed(s, t->text, SEED, &err), &err);
    for (int i = 0; i < SEED / UNIT; i++)
        must(ds4_session_read_rows(s, i * UNIT, (i + 1) * UNIT, seed + (size_t)i * rows, &err),
             &err);
    must(ds4_session_read_mark(s, SEED, at, &err), &err);
    for (int n = 0; n < FROM; n += UNIT) {
        const size_t which = (size_t)(n / UNIT * 7 % (SEED / UNIT));
        must(ds4_session_write_rows(s, n, n + UNIT, seed + which * rows, rows, &err), &err);
    }
    must(ds4_session_enter(s, t->text, FROM, at, mark, &err), &err);
    free(seed);
}

static int open_toy(void **state)
{
    static Toy t;

    t.gguf = long_toy();
    t.engine = toy_open(
        &t.gguf, (ds4_options){
                     .isa = kernels_list()[0], .context = CONTEXT, .max_rows = N, .sessions = 2 });
    t.a = toy_session(t.engine);
    t.b = toy_session(t.engine);
    t.text = toy_tokens(CONTEXT + 1, 0);
    t.want = toy_rows(N);
    make_up(&t, t.a);
    toy_run(t.a, t.text, N, 50, t.want);
    *state = &t;
    return 0;
}

static int close_toy(void **state)
{
    Toy *t = *state;

    ds4_engine_close(t->engine);
    bytes_release(&t->gguf);
    free(t->text);
    free(t->want);
    return 0;
}

/* From here to the end the session gives the rows that it would have given anyway. */
static void assert_ends(const Toy *t, ds4_session *s, int chunk)
{
    const int from = s->length - FROM;
    float *got = toy_rows(N);

    toy_run(s, t->text, N - from, chunk, got);
    assert_true(same_rows(got, t->want + (size_t)from * TOY_VOCAB, N - from));
    assert_int_equal(ds4_session_length(s), CONTEXT);
    free(got);
}

static void the_last_position_is_taken_and_the_next_refused(void **state)
{
    Toy *t = *state;
    const int32_t *next = t->text + CONTEXT;
    ds4_err err;

    assert_int_equal(ds4_session_length(t->a), CONTEXT);
    assert_false(ds4_step(t->engine, &(ds4_work){ t->a, next, 1, 1 }, 1, &err));
    assert_int_equal(err.code, DS4_ECONTEXT);
    assert_string_equal(err.msg, "1 tokens do not fit: 1048576 of 1048576 are used");
    assert_false(ds4_session_feed(t->a, next, 1, &err));
    assert_int_equal(err.code, DS4_ECONTEXT);
    assert_false(ds4_session_sync(t->a, t->text, CONTEXT + 1, NULL, &err));
    assert_int_equal(err.code, DS4_ECONTEXT);
    assert_int_equal(ds4_session_length(t->a), CONTEXT);
    /* what was refused is forgotten: the last one again */
    assert_int_equal(ds4_session_rewind(t->a, CONTEXT - 1), FROM);
    assert_ends(t, t->a, N);
}

static void one_by_one_gives_the_rows_of_a_chunk(void **state)
{
    Toy *t = *state;

    assert_int_equal(ds4_session_rewind(t->a, FROM), FROM);
    assert_ends(t, t->a, 1);
}

typedef struct {
    Bytes bytes;
    size_t at;
} Memory;

static bool write_memory(void *user, void *data, size_t n)
{
    Memory *m = user;

    bytes_put(&m->bytes, data, n);
    return !m->bytes.failed;
}

static bool read_memory(void *user, void *data, size_t n)
{
    Memory *m = user;

    if (n > m->bytes.n - m->at)
        return false;
    memcpy(data, m->bytes.p + m->at, n);
    m->at += n;
    return true;
}

static void a_stream_brings_it_back(void **state)
{
    Toy *t = *state;
    const int odd = 37; /* inside the open groups */
    Memory m = { 0 };
    ds4_err err;

    ds4_session_rewind(t->a, FROM);
    toy_run(t->a, t->text, odd, odd, NULL);
    must(ds4_session_save(t->a, (ds4_stream){ write_memory, &m }, &err), &err);
    must(ds4_session_load(t->b, (ds4_stream){ read_memory, &m }, &err), &err);
    assert_int_equal(m.at, m.bytes.n);
    assert_int_equal(ds4_session_length(t->b), FROM + odd);
    assert_ends(t, t->b, N);
    bytes_release(&m.bytes);
}

static void pieces_bring_it_back(void **state)
{
    enum { PIECE = 2048 };
    Toy *t = *state;
    const size_t mark = (size_t)ds4_mark_bytes(t->engine, FROM);
    char *p = malloc(MAX((size_t)ds4_rows_bytes(t->engine, 0, PIECE), mark));
    ds4_err err;

    ds4_session_rewind(t->a, FROM);
    ds4_session_rewind(t->b, 0);
    for (int n = 0, last; n < FROM; n = last) {
        last = MIN(n + PIECE, (int)FROM);
        must(ds4_session_read_rows(t->a, n, last, p, &err), &err);
        must(ds4_session_write_rows(t->b, n, last, p, (size_t)ds4_rows_bytes(t->engine, n, last),
                                    &err),
             &err);
    }
    must(ds4_session_read_mark(t->a, FROM, p, &err), &err);
    must(ds4_session_enter(t->b, t->text, FROM, p, mark, &err), &err);
    assert_ends(t, t->b, N);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_position_is_taken_and_the_next_refused),
        cmocka_unit_test(one_by_one_gives_the_rows_of_a_chunk),
        cmocka_unit_test(a_stream_brings_it_back),
        cmocka_unit_test(pieces_bring_it_back),
    };
    return cmocka_run_group_tests(tests, open_toy, close_toy);
}
