/* The laws of a state in pieces: entered and continued, or forked and continued,
 * equals never interrupted, bit for bit, on scalar and on the fastest kernels;
 * others that step meanwhile do not notice; what is refused or given up leaves a
 * session that is valid. */
#include "../../src/backend/cpu/kernels.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../toy.h"

enum { CHUNK = 2048, N = CHUNK + 700, SLOTS = 4 };

/* Engines of one model with other kernels and other largest steps, so that rings
 * differ, and what each computes when nothing interrupts it. */
enum { SCALAR, FAST, N_KINDS };

typedef struct {
    ds4_engine *engine;
    float *want; /* [N][TOY_VOCAB] */
} Kind;

typedef struct {
    Bytes gguf;
    int32_t *text;
    Kind kind[N_KINDS];
} Toys;

static void open_kind(Toys *t, int kind, bool exact)
{
    Kind *k = &t->kind[kind];

    k->engine =
        toy_open(&t->gguf, (ds4_options){ .isa = kind == FAST ? kernels_list()[0] : "scalar",
                                          .exact = exact,
                                          .context = N + 128,
                                          .max_rows = kind == FAST ? 96 : 256,
                                          .sessions = SLOTS });
    k->want = toy_rows(N);
    ds4_session *s = toy_session(k->engine);
    toy_run(s, t->text, N, 90, k->want);
    ds4_session_close(s);
}

static int open_toys(void **state)
{
    static Toys t;

    t.gguf = toy_gguf("q8", 3);
    t.text = toy_tokens(N + 128, 0);
    for (int i = 0; i < N_KINDS; i++)
        open_kind(&t, i, false);
    *state = &t;
    return 0;
}

static void close_kind(Kind *k)
{
    ds4_engine_close(k->engine);
    free(k->want);
}

static int close_toys(void **state)
{
    Toys *t = *state;

    for (int i = 0; i < N_KINDS; i++)
        close_kind(&t->kind[i]);
    bytes_release(&t->gguf);
    free(t->text);
    return 0;
}

/* From here on the session gives the rows it would have given anyway. */
static void assert_continues(const Toys *t, int kind, ds4_session *s, int n, const char *what,
                             int at)
{
    const int from = s->length;
    const float *want = t->kind[kind].want + (size_t)from * TOY_VOCAB;

    n = MIN(n, N - from);
    float *got = toy_rows(MAX(n, 1));
    toy_run(s, t->text, n, 3, got);
    for (int i = 0; i < n; i++)
        if (!same_rows(got + (size_t)i * TOY_VOCAB, want + (size_t)i * TOY_VOCAB, 1))
            fail_msg("%s %d: row %d differs", what, at, from + i);
    free(got);
}

/* ---- a store in memory ------------------------------------------------------------- */

enum { UNIT = DS4_STATE_UNIT, UNITS = (N + 128) / UNIT };

/* The rows of a text in pieces of `size` tokens, and a mark at every multiple of the unit:
 * read as a session comes by. */
typedef struct {
    ds4_engine *engine;
    const int32_t *text;
    int n, size;
    char *rows[UNITS], *mark[UNITS + 1];
} Store;

static size_t rows_bytes(const ds4_engine *e, int first, int last)
{
    return (size_t)ds4_rows_bytes(e, first, last);
}

static size_t mark_bytes(const ds4_engine *e, int n) { return (size_t)ds4_mark_bytes(e, n); }

static char *rows_read(const ds4_session *s, int first, int last)
{
    char *p = malloc(rows_bytes(s->engine, first, last) + 1);
    ds4_err err;

    if (!ds4_session_read_rows(s, first, last, p, &err))
        fail_msg("%s", err.msg);
    return p;
}

static char *mark_read(const ds4_session *s, int n)
{
    char *p = malloc(mark_bytes(s->engine, n) + 1);
    ds4_err err;

    if (!ds4_session_read_mark(s, n, p, &err))
        fail_msg("%s", err.msg);
    return p;
}

static Store store_of(ds4_engine *e, const int32_t *text, int n, int size)
{
    Store st = { .engine = e, .text = text, .n = n / UNIT * UNIT, .size = size };
    ds4_session *s = toy_session(e);

    for (int at = UNIT; at <= st.n; at += UNIT) {
        toy_run(s, text, UNIT, 64, NULL);
        st.mark[at / UNIT] = mark_read(s, at);
        const int first = (at - 1) / size * size;
        free(st.rows[first / size]); /* a tail, which is longer now */
        st.rows[first / size] = rows_read(s, first, at);
    }
    ds4_session_close(s);
    return st;
}

static void store_drop(Store *st)
{
    for (int i = 0; i <= UNITS; i++)
        free(st->mark[i]);
    for (int i = 0; i < UNITS; i++)
        free(st->rows[i]);
}

static bool put_piece(const Store *st, ds4_session *s, int i, ds4_err *err)
{
    const int first = i * st->size, last = MIN(first + st->size, st->n);

    return ds4_session_write_rows(s, first, last, st->rows[i], rows_bytes(s->engine, first, last),
                                  err);
}

static bool put_mark(const Store *st, ds4_session *s, int n, ds4_err *err)
{
    return ds4_session_enter(s, st->text, n, st->mark[n / UNIT], mark_bytes(s->engine, n), err);
}

static void put(const Store *st, ds4_session *s, int n)
{
    ds4_err err;

    for (int i = 0; i * st->size < n; i++)
        if (!put_piece(st, s, i, &err))
            fail_msg("%s", err.msg);
    if (!put_mark(st, s, n, &err))
        fail_msg("%s", err.msg);
}

/* ---- restored = never interrupted ----------------------------------------------------- */

/* At every remainder of 128 and of 2,048, by going on for more than a unit from each
 * place where a state can be cut: on each kind of kernels, saved on either. */
static void restored_and_continued_equals_never_interrupted(void **state)
{
    Toys *t = *state;
    static const int sizes[] = { CHUNK, UNIT, 3 * UNIT };

    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            Store st = store_of(t->kind[kind].engine, t->text, N, sizes[i]);
            ds4_session *s = toy_session(t->kind[kind].engine);
            for (int n = UNIT; n <= st.n; n += i ? 6 * UNIT : UNIT) {
                toy_run(s, t->text + 7, s->length ? 0 : 150, 50, NULL); /* something was there */
                put(&st, s, n);
                assert_int_equal(ds4_session_length(s), n);
                assert_memory_equal(ds4_session_tokens(s), t->text, (size_t)n * sizeof *t->text);
                assert_null(ds4_logits(s));
                assert_continues(t, kind, s, UNIT + 3, "restored at", n);
                ds4_session_rewind(s, n % 3 ? 0 : n);
            }
            ds4_session_close(s);
            store_drop(&st);
        }
    }
}

/* The bytes are the same whatever the kernels and the ring, so they go from any to any. */
static void a_state_enters_any_device_of_its_model(void **state)
{
    Toys *t = *state;
    const int n = CHUNK + UNIT;
    ds4_session *a = toy_session(t->kind[SCALAR].engine), *b = toy_session(t->kind[FAST].engine);
    Store st = store_of(t->kind[SCALAR].engine, t->text, n, CHUNK);

    put(&st, b, n);
    char *rows = rows_read(b, 0, CHUNK), *mark = mark_read(b, n);
    assert_memory_equal(rows, st.rows[0], rows_bytes(b->engine, 0, CHUNK));
    assert_memory_equal(mark, st.mark[n / UNIT], mark_bytes(b->engine, n));
    put(&st, a, n);
    assert_continues(t, SCALAR, a, 40, "from the scalar kernels at", n);
    toy_run(b, t->text, 40, 7, NULL);
    assert_int_equal(ds4_session_length(b), n + 40);
    free(rows);
    free(mark);
    store_drop(&st);
    ds4_session_close(a);
    ds4_session_close(b);
}

/* Pieces go in between the steps of a session that decodes; neither notices. */
static void a_restore_beside_decoding_changes_neither(void **state)
{
    Toys *t = *state;

    for (int kind = 0; kind < N_KINDS; kind++) {
        ds4_engine *e = t->kind[kind].engine;
        Store st = store_of(e, t->text, CHUNK, UNIT);
        ds4_session *other = toy_session(e), *s = toy_session(e);
        toy_run(other, t->text, 200, 50, NULL);
        toy_run(s, t->text, 30, 30, NULL);
        for (int i = 0; i < CHUNK / UNIT; i++) {
            assert_continues(t, kind, other, 2, "beside piece", i);
            assert_true(put_piece(&st, s, i, NULL));
        }
        assert_true(put_mark(&st, s, CHUNK, NULL));
        assert_continues(t, kind, other, 40, "after a restore beside, at", other->length);
        assert_continues(t, kind, s, 40, "restored beside decoding, at", CHUNK);
        ds4_session_close(other);
        ds4_session_close(s);
        store_drop(&st);
    }
}

/* Its own rows count: a shared beginning is not written again. */
static void a_common_beginning_stays_where_it_is(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    Store st = store_of(e, t->text, 1024, 256);
    ds4_session *s = toy_session(e);
    int32_t *edited = toy_tokens(700, 0);

    edited[600] ^= 1;
    toy_run(s, edited, 700, 100, NULL); /* no marks but at 128 k that steps ended at: none */
    assert_int_equal(s->n_marks, 0);
    assert_true(put_piece(&st, s, 2, NULL)); /* from 512, where it has no mark */
    assert_int_equal(ds4_session_length(s), 0);
    assert_true(put_piece(&st, s, 3, NULL));
    assert_true(put_mark(&st, s, 1024, NULL));
    assert_continues(t, SCALAR, s, 40, "the second half restored at", 1024);

    /* no row is written at all: a mark from elsewhere takes it back */
    assert_true(put_mark(&st, s, 384, NULL));
    assert_int_equal(ds4_session_length(s), 384);
    assert_continues(t, SCALAR, s, 140, "taken back to", 384);
    free(edited);
    ds4_session_close(s);
    store_drop(&st);
}

/* ---- what is refused, and what is given up ---------------------------------------------- */

static void assert_refused(bool ok, const ds4_err *err, const char *says)
{
    assert_false(ok);
    assert_int_equal(err->code, DS4_EINVAL);
    if (!strstr(err->msg, says))
        fail_msg("'%s' does not say '%s'", err->msg, says);
}

static void pieces_out_of_order_or_of_wrong_sizes_are_refused(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    Store st = store_of(e, t->text, 1024, 256);
    ds4_session *s = toy_session(e);
    const size_t bytes = rows_bytes(e, 0, 256), mark = mark_bytes(e, 256);
    int32_t *wrong = toy_tokens(1024, 0);
    ds4_err err;
    char out[8];

    toy_run(s, t->text, 130, 1, NULL);
    assert_refused(put_piece(&st, s, 1, &err), &err, "rows from token 256 on, and 130 are there");
    assert_refused(ds4_session_write_rows(s, 128, 128, st.rows[0], 0, &err), &err, "128 to 128");
    assert_refused(ds4_session_write_rows(s, -128, 128, st.rows[0], bytes, &err), &err, "-128");
    assert_refused(ds4_session_write_rows(s, 0, 200, st.rows[0], bytes, &err), &err, "0 to 200");
    assert_refused(ds4_session_write_rows(s, 0, 1 << 20, st.rows[0], bytes, &err), &err, "context");
    assert_refused(ds4_session_write_rows(s, 0, 256, st.rows[0], bytes - 1, &err), &err, "bytes");
    assert_refused(ds4_session_write_rows(s, 0, 128, st.rows[0], bytes, &err), &err, "bytes");
    assert_refused(put_mark(&st, s, 256, &err), &err, "256 tokens, and the rows of 130");
    assert_refused(ds4_session_enter(s, t->text, 100, st.mark[1], mark, &err), &err, "100");
    assert_refused(ds4_session_enter(s, t->text, 0, st.mark[1], 0, &err), &err, "0 tokens");
    assert_refused(ds4_session_enter(s, t->text, 128, st.mark[1], mark - 1, &err), &err, "bytes");
    wrong[77]++;
    assert_refused(ds4_session_enter(s, wrong, 128, st.mark[1], mark, &err), &err, "token 77");
    wrong[77] = TOY_VOCAB;
    assert_refused(ds4_session_enter(s, wrong, 128, st.mark[1], mark, &err), &err, "token 77");
    assert_refused(ds4_session_read_rows(s, 0, 256, out, &err), &err, "0 to 256");
    assert_refused(ds4_session_read_rows(s, 0, 100, out, &err), &err, "0 to 100");
    assert_refused(ds4_session_read_mark(s, 64, out, &err), &err, "no mark at 64");
    assert_refused(ds4_session_read_mark(s, 0, out, &err), &err, "no mark at 0");
    assert_int_equal(ds4_session_length(s), 130);
    assert_continues(t, SCALAR, s, 130, "after refusals, at", 130);
    free(wrong);
    ds4_session_close(s);
    store_drop(&st);
}

/* After any number of pieces: what was before, or what a mark below leaves. */
static void a_restore_that_is_given_up_leaves_a_valid_session(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    int32_t *other = toy_tokens(N, 1);
    Store st = store_of(e, other, 1024, 128);
    static const struct {
        int length, from, stays;
    } cases[] = { { 300, 0, 0 },     { 300, 128, 128 }, { 300, 256, 256 },
                  { 256, 256, 256 }, { 384, 256, 256 }, { 0, 0, 0 },
                  { 129, 128, 128 }, { 640, 640, 640 }, { 700, 640, 640 } };

    for (size_t i = 0; i < COUNT(cases); i++) {
        for (int pieces = 1; pieces <= 3; pieces += 2) {
            ds4_session *s = toy_session(e);
            toy_run(s, t->text, cases[i].length, 64, NULL);
            for (int k = 0; k < pieces; k++)
                assert_true(put_piece(&st, s, cases[i].from / 128 + k, NULL));
            assert_int_equal(ds4_session_length(s), cases[i].stays);
            assert_continues(t, SCALAR, s, 135, "a restore given up at", cases[i].stays);
            /* and nothing of what was written is taken for its own */
            assert_false(put_mark(&st, s, 1024, NULL));
            ds4_session_close(s);
        }
    }
    free(other);
    store_drop(&st);
}

static void a_step_or_a_rewind_ends_a_restore(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    Store st = store_of(e, t->text, 512, 128);
    ds4_session *s = toy_session(e);
    const int32_t bad[1] = { -1 };
    ds4_err err;

    assert_true(put_piece(&st, s, 0, NULL));
    assert_true(put_piece(&st, s, 1, NULL));
    assert_false(ds4_session_feed(s, bad, 1, &err)); /* no step: nothing has changed */
    assert_true(put_piece(&st, s, 2, NULL));
    toy_run(s, t->text, 1, 1, NULL);
    assert_refused(put_mark(&st, s, 256, &err), &err, "the rows of 1 are there");
    toy_run(s, t->text, 200, 1, NULL);
    assert_true(put_piece(&st, s, 1, NULL)); /* from 128: back to its mark there */
    assert_int_equal(ds4_session_rewind(s, 0), 0);
    assert_refused(put_mark(&st, s, 256, &err), &err, "the rows of 0 are there");
    /* a step that fails, too */
    assert_true(put_piece(&st, s, 0, NULL));
    ds4_cancel(e);
    assert_false(ds4_session_feed(s, t->text, 1, &err));
    assert_int_equal(err.code, DS4_ECANCELED);
    assert_refused(put_mark(&st, s, 128, &err), &err, "the rows of 0 are there");
    put(&st, s, 512);
    assert_continues(t, SCALAR, s, 20, "restored at last, at", 512);
    ds4_session_close(s);
    store_drop(&st);
}

/* A shorter chain than was hoped for: a later piece was bad. */
static void a_restore_may_end_at_any_piece_that_is_in(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    Store st = store_of(e, t->text, 1024, 256);
    ds4_session *s = toy_session(e);

    for (int i = 0; i < 4; i++)
        assert_true(put_piece(&st, s, i, NULL));
    assert_true(put_mark(&st, s, 640, NULL));
    assert_continues(t, SCALAR, s, 140, "entered below the last piece, at", 640);
    assert_int_equal(ds4_session_rewind(s, 700), 640);
    assert_continues(t, SCALAR, s, 20, "and rewound to", 640);
    assert_int_equal(ds4_session_rewind(s, 639), 0);
    ds4_session_close(s);
    store_drop(&st);
}

/* ---- forking ------------------------------------------------------------------------------ */

static void a_fork_equals_computing_again(void **state)
{
    Toys *t = *state;
    static const struct {
        int length, n, reached;
    } cases[] = { { 300, 300, 300 },   { 300, 9999, 300 },   { 300, 299, 256 },
                  { 300, 255, 128 },   { 300, 127, 0 },      { 300, 0, 0 },
                  { 300, -3, 0 },      { 131, 131, 131 },    { 5, 5, 5 },
                  { 0, 10, 0 },        { 2176, 2100, 2048 }, { 2176, 2176, 2176 },
                  { 2500, 2300, 2176 } };

    for (int kind = 0; kind < N_KINDS; kind++) {
        for (size_t i = 0; i < COUNT(cases); i++) {
            ds4_engine *e = t->kind[kind].engine;
            ds4_session *from = toy_session(e), *to = toy_session(e);
            int reached = -1;
            ds4_err err;
            toy_run(to, t->text + 3, 70, 70, NULL); /* something was there */
            toy_run(from, t->text, cases[i].length, 64, NULL);
            if (!ds4_session_fork(to, from, cases[i].n, &reached, &err))
                fail_msg("%s", err.msg);
            assert_int_equal(reached, cases[i].reached);
            assert_int_equal(ds4_session_length(to), reached);
            assert_int_equal(ds4_session_length(from), cases[i].length);
            assert_continues(t, kind, to, 70, "forked at", reached);
            assert_continues(t, kind, from, 70, "was forked at", reached);
            assert_continues(t, kind, to, 70, "forked, after its source, at", reached);
            ds4_session_close(from);
            ds4_session_close(to);
        }
    }
}

/* Others step meanwhile, the source too. */
static void a_fork_in_pieces_equals_one_in_a_call(void **state)
{
    Toys *t = *state;
    static const struct {
        int length, n, reached;
    } cases[] = {
        { 300, 300, 256 }, { 2176, 2100, 2048 }, { 2500, 2300, 2176 }, { 200, 200, 128 }
    };

    for (int kind = 0; kind < N_KINDS; kind++) {
        for (size_t i = 0; i < COUNT(cases); i++) {
            ds4_engine *e = t->kind[kind].engine;
            ds4_session *from = toy_session(e), *to = toy_session(e), *other = toy_session(e);
            int reached = -1, first = 0;
            ds4_err err;
            toy_run(to, t->text + 3, 300, 70, NULL); /* something was there */
            toy_run(from, t->text, cases[i].length, 64, NULL);
            for (; first + 128 <= cases[i].n; first += 128) {
                assert_true(ds4_session_copy_rows(to, from, first, first + 128, &err));
                toy_run(other, t->text + 9 + first / 128, 1, 1, NULL);
                if (first < 128)
                    assert_continues(t, kind, from, 1, "lent at", cases[i].length);
            }
            assert_true(ds4_session_fork(to, from, cases[i].n, &reached, &err));
            assert_int_equal(reached, cases[i].reached);
            assert_continues(t, kind, to, 70, "copied at", reached);
            assert_continues(t, kind, from, 70, "was lent at", cases[i].length + 1);
            ds4_session_close(from);
            ds4_session_close(to);
            ds4_session_close(other);
        }
    }
}

/* Rows that came from elsewhere, or before the session was moved, are copied again. */
static void a_fork_takes_no_rows_for_its_sources_that_are_not(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    ds4_session *from = toy_session(e), *wrong = toy_session(e), *to = toy_session(e);
    ds4_err err;

    toy_run(from, t->text, 640, 64, NULL);
    toy_run(wrong, t->text + 3, 640, 64, NULL);
    for (int i = 0; i < 4; i++) {
        char *rows = malloc((size_t)ds4_rows_bytes(e, 128, 256));
        assert_true(ds4_session_read_rows(wrong, 128, 256, rows, &err));
        assert_true(ds4_session_copy_rows(to, i == 0 ? wrong : from, 0, 128, &err));
        if (i == 1)
            assert_true(ds4_session_write_rows(to, 128, 256, rows,
                                               (size_t)ds4_rows_bytes(e, 128, 256), &err));
        if (i == 2)
            assert_true(ds4_session_copy_rows(to, wrong, 128, 256, &err) &&
                        ds4_session_copy_rows(to, from, 256, 384, &err));
        if (i == 3)
            toy_run(to, t->text + 3, 200, 64, NULL);
        assert_true(ds4_session_fork(to, from, 640, NULL, &err));
        assert_continues(t, SCALAR, to, 40, "forked after others' rows at", 640);
        free(rows);
    }
    assert_refused(ds4_session_copy_rows(to, to, 0, 128, &err), &err, "another session");
    assert_refused(ds4_session_copy_rows(to, from, 0, 100, &err), &err, "rows of tokens 0 to 100");
    assert_refused(ds4_session_copy_rows(to, from, 640, 768, &err), &err, "of a session of 640");
    assert_true(ds4_session_rewind(to, 0) == 0);
    assert_refused(ds4_session_copy_rows(to, from, 128, 256, &err), &err, "and 0 are there");
    ds4_session_close(from);
    ds4_session_close(wrong);
    ds4_session_close(to);
}

static void a_fork_has_a_place_to_go_back_to_and_the_logits(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    ds4_session *from = toy_session(e), *to = toy_session(e);
    ds4_err err;

    assert_true(ds4_session_feed(from, t->text, 333, &err));
    assert_true(ds4_session_fork(to, from, 333, NULL, &err));
    assert_true(same_rows(ds4_logits(to), t->kind[SCALAR].want + (size_t)332 * TOY_VOCAB, 1));
    assert_continues(t, SCALAR, to, 30, "forked whole at", 333);
    assert_int_equal(ds4_session_rewind(to, 350), 333);
    assert_continues(t, SCALAR, to, 30, "forked, then rewound to", 333);
    assert_true(ds4_session_fork(to, from, 300, NULL, &err));
    assert_null(ds4_logits(to));
    assert_non_null(ds4_logits(from));
    assert_refused(ds4_session_fork(from, from, 3, NULL, &err), &err, "another session");
    ds4_session *far = toy_session(t->kind[FAST].engine);
    assert_refused(ds4_session_fork(far, from, 3, NULL, &err), &err, "the same engine");
    ds4_session_close(far);
    ds4_session_close(from);
    ds4_session_close(to);
}

/* ---- marks ----------------------------------------------------------------------------------- */

static void the_mark_where_a_step_ends_can_be_read(void **state)
{
    Toys *t = *state;
    ds4_engine *e = t->kind[SCALAR].engine;
    ds4_session *s = toy_session(e);
    int at[DS4_MOST_MARKS], n;

    assert_int_equal(ds4_session_marks(s, at, DS4_MOST_MARKS), 0);
    while (s->length < N / UNIT * UNIT) {
        toy_run(s, t->text, UNIT, s->length % 256 ? 1 : 64, NULL);
        n = ds4_session_marks(s, at, DS4_MOST_MARKS);
        assert_in_range(n, 1, DS4_MOST_MARKS);
        assert_int_equal(at[n - 1], s->length);
        for (int i = 1; i < n; i++)
            assert_true(at[i] > at[i - 1]);
        free(mark_read(s, s->length));
    }
    at[1] = -1;
    assert_int_equal(ds4_session_marks(s, at, 1), n); /* no more is written than there is room */
    assert_int_equal(at[1], -1);
    ds4_session_close(s);
}

static int nearest_mark(const ds4_session *s, int n)
{
    int best = 0;

    for (int i = 0; i < s->n_marks && s->mark[i].n <= n; i++)
        best = s->mark[i].n;
    return best;
}

/* Turns of a prompt and an answer, on a device that takes no time. */
static void marks_where_turns_end_and_chunks_end_last(void **state)
{
    enum { TURNS = 12, PROMPT = 300, ANSWER = 2000, LONG = TURNS * (PROMPT + ANSWER) };
    Toys *t = *state;
    const ds4_options opt = { .device = "null", .context = LONG, .max_rows = 512 };
    ds4_engine *e = engine_open_bytes(t->gguf.p, t->gguf.n, &opt, NULL);
    ds4_session *s = toy_session(e);
    int32_t *text = toy_tokens(LONG, 2);
    int ends[2 * TURNS], n_ends = 0, chunks = 0;

    for (int i = 0; i < TURNS; i++) {
        assert_true(ds4_session_feed(s, text + s->length, PROMPT, NULL));
        ends[n_ends++] = s->length / UNIT * UNIT;
        for (int k = 0; k < ANSWER; k++)
            assert_true(ds4_session_feed(s, text + s->length, 1, NULL));
        ends[n_ends++] = s->length / UNIT * UNIT;
    }
    assert_int_equal(s->n_marks, MAX_MARKS);
    for (int i = n_ends - 4; i < n_ends; i++) /* of the last two turns: exactly there */
        assert_non_null(marks_find(s, ends[i]));
    for (int i = n_ends - 16; i < n_ends; i++) /* of eight: near */
        assert_true(ends[i] - nearest_mark(s, ends[i]) <= 3 * UNIT);
    for (int n = 2048; n < s->length; n += 2048)
        chunks += marks_find(s, n) != NULL;
    assert_true(chunks >= LONG / 2048 / 2);
    assert_int_equal(ds4_session_rewind(s, ends[n_ends - 3] + 100), ends[n_ends - 3]);
    free(text);
    ds4_engine_close(e);
}

/* ---- devices that wrap another ------------------------------------------------------------------ */

/* A check goes on from its reference's values, which are of F32 activations. */
static void pieces_pass_through_every_decorator(void **state)
{
    const Toys *all = *state;
    Toys exact = { .gguf = all->gguf, .text = all->text }, *t = &exact;
    static const char *const devices[] = { "timed:cpu", "check:cpu", "null", "timed:null" };
    open_kind(t, SCALAR, true);
    Store st = store_of(t->kind[SCALAR].engine, t->text, 640, 256);

    for (size_t i = 0; i < COUNT(devices); i++) {
        const bool computes = strstr(devices[i], "cpu") != NULL;
        const ds4_options opt = { .device = devices[i],
                                  .isa = computes ? "scalar" : NULL,
                                  .threads = computes,
                                  .exact = true,
                                  .context = 1024,
                                  .max_rows = 64,
                                  .max_logits = 64,
                                  .sessions = 2 };
        ds4_engine *e = engine_open_bytes(t->gguf.p, t->gguf.n, &opt, NULL);
        assert_non_null(e);
        ds4_session *s = toy_session(e), *f = toy_session(e);
        put(&st, s, 640);
        assert_true(ds4_session_fork(f, s, 640, NULL, NULL));
        char *rows = rows_read(f, 256, 512), *mark = mark_read(f, 640);
        assert_memory_equal(rows, st.rows[1], rows_bytes(e, 256, 512));
        assert_memory_equal(mark, st.mark[5], mark_bytes(e, 640));
        if (computes) {
            assert_continues(t, SCALAR, s, 6, devices[i], 640);
            assert_continues(t, SCALAR, f, 6, devices[i], 640);
        }
        free(rows);
        free(mark);
        ds4_engine_close(e);
    }
    store_drop(&st);
    close_kind(&t->kind[SCALAR]);
}

/* ---- the bundled model ------------------------------------------------------------------------------ */

static void assert_same_next(ds4_session *a, ds4_session *b, const int32_t *tokens, int n, int at)
{
    const size_t bytes = (size_t)a->engine->shape.vocab * sizeof(float);

    for (int i = 0; i < n; i++) {
        assert_true(ds4_session_feed(a, tokens + i, 1, NULL));
        assert_true(ds4_session_feed(b, tokens + i, 1, NULL));
        if (memcmp(ds4_logits(a), ds4_logits(b), bytes) != 0)
            fail_msg("restored at %d: row %d differs", at, i);
    }
}

static void the_bundled_model_goes_on_bit_for_bit(void **state)
{
    static const int at[] = { 128, 1920, 2048, 2176, 4096 };
    ds4_err err;

    (void)state;
    ds4_engine *e = ds4_engine_open(
        &(ds4_options){
            .model = "models/ds4-tiny.gguf", .device = "cpu", .context = 4224, .sessions = 3 },
        &err);
    if (!e)
        fail_msg("%s", err.msg);
    int32_t *text = toy_tokens(4224, 0);
    ds4_session *a = toy_session(e), *b = toy_session(e), *c = toy_session(e);
    for (size_t i = 0; i < COUNT(at); i++) {
        assert_true(ds4_session_feed(a, text + a->length, at[i] - a->length, &err));
        char *rows = rows_read(a, 0, at[i]), *mark = mark_read(a, at[i]);
        assert_true(ds4_session_write_rows(b, 0, at[i], rows, rows_bytes(e, 0, at[i]), &err));
        assert_true(ds4_session_enter(b, text, at[i], mark, mark_bytes(e, at[i]), &err));
        assert_true(ds4_session_fork(c, a, at[i], NULL, &err));
        assert_same_next(a, b, text + at[i], 6, at[i]);
        assert_int_equal(ds4_session_rewind(a, at[i]), at[i]);
        assert_same_next(a, c, text + at[i], 6, at[i]);
        free(rows);
        free(mark);
    }
    free(text);
    ds4_engine_close(e);
}

/* ---- which model -------------------------------------------------------------------------------------- */

static void a_fingerprint_is_of_all_weights_and_metadata(void **state)
{
    Toys *t = *state;
    uint8_t a[32], b[32];
    Bytes other = toy_gguf("q8", 4);
    ds4_engine *e = toy_open(&other, (ds4_options){ 0 });

    assert_true(ds4_engine_fingerprint(t->kind[SCALAR].engine, a, NULL));
    assert_true(ds4_engine_fingerprint(t->kind[FAST].engine, b, NULL));
    assert_memory_equal(a, b, sizeof a);
    assert_true(ds4_engine_fingerprint(e, b, NULL));
    assert_memory_not_equal(a, b, sizeof a);
    ds4_engine_close(e);
    bytes_release(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restored_and_continued_equals_never_interrupted),
        cmocka_unit_test(a_state_enters_any_device_of_its_model),
        cmocka_unit_test(a_restore_beside_decoding_changes_neither),
        cmocka_unit_test(a_common_beginning_stays_where_it_is),
        cmocka_unit_test(pieces_out_of_order_or_of_wrong_sizes_are_refused),
        cmocka_unit_test(a_restore_that_is_given_up_leaves_a_valid_session),
        cmocka_unit_test(a_step_or_a_rewind_ends_a_restore),
        cmocka_unit_test(a_restore_may_end_at_any_piece_that_is_in),
        cmocka_unit_test(a_fork_equals_computing_again),
        cmocka_unit_test(a_fork_in_pieces_equals_one_in_a_call),
        cmocka_unit_test(a_fork_takes_no_rows_for_its_sources_that_are_not),
        cmocka_unit_test(a_fork_has_a_place_to_go_back_to_and_the_logits),
        cmocka_unit_test(the_mark_where_a_step_ends_can_be_read),
        cmocka_unit_test(marks_where_turns_end_and_chunks_end_last),
        cmocka_unit_test(pieces_pass_through_every_decorator),
        cmocka_unit_test(the_bundled_model_goes_on_bit_for_bit),
        cmocka_unit_test(a_fingerprint_is_of_all_weights_and_metadata),
    };
    return cmocka_run_group_tests(tests, open_toys, close_toys);
}
