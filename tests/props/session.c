/* A session's laws: restored and continued, or rewound and replayed, equals
 * never interrupted, bit for bit on scalar kernels; a step that fails changes
 * nothing; what is wrong with a request or a saved file is refused. */
#include "../../src/backend/cpu/kernels.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "../toy.h"

enum { N = 420 };

/* One engine, the text, and the logits of every row, never interrupted. */
typedef struct {
    Bytes gguf;
    ds4_engine *engine;
    int32_t *text;
    float *want;
} Toy;

static int open_toy(void **state)
{
    static Toy t;

    t.gguf = toy_gguf("q8", 3);
    t.engine = toy_open(&t.gguf, (ds4_options){ .sessions = 3 });
    t.text = toy_tokens(N, 0);
    t.want = toy_rows(N);
    ds4_session *s = toy_session(t.engine);
    toy_run(s, t.text, N, 200, t.want);
    ds4_session_close(s);
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

static const float *row_of(const Toy *t, int i) { return t->want + (size_t)i * TOY_VOCAB; }

/* From here on the session gives the rows it would have given anyway. */
static void assert_continues(const Toy *t, ds4_session *s, int n, const char *what, int at)
{
    float *got = toy_rows(n);
    const int from = s->length;

    n = MIN(n, N - from);
    toy_run(s, t->text, n, 3, got);
    for (int i = 0; i < n; i++)
        if (!same_rows(got + (size_t)i * TOY_VOCAB, row_of(t, from + i), 1))
            fail_msg("%s %d: row %d differs", what, at, from + i);
    free(got);
}

/* ---- streams ------------------------------------------------------------------- */

typedef struct {
    Bytes b;
    size_t at;
} Memory;

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

static Memory saved(ds4_session *s)
{
    Memory m = { 0 };
    ds4_err err;

    if (!ds4_session_save(s, (ds4_stream){ write_memory, &m }, &err))
        fail_msg("%s", err.msg);
    return m;
}

static bool restore(ds4_session *s, Memory *m, ds4_err *err)
{
    m->at = 0;
    return ds4_session_load(s, (ds4_stream){ read_memory, m }, err);
}

/* ---- saving ------------------------------------------------------------------- */

static void restored_and_continued_equals_never_interrupted(void **state)
{
    Toy *t = *state;
    static const int at[] = { 0,   1,   2,   3,   4,   5,   6,   7,   15,  16,  17,
                              18,  33,  66,  99,  126, 127, 128, 129, 130, 131, 132,
                              191, 255, 256, 257, 258, 259, 300, 383, 384, 385 };
    ds4_session *a = toy_session(t->engine), *b = toy_session(t->engine);
    ds4_err err;

    for (size_t i = 0; i < COUNT(at); i++) {
        toy_run(a, t->text, at[i] - a->length, 1, NULL);
        Memory m = saved(a);
        toy_run(b, t->text + 5, 40, 40, NULL); /* something else was there */
        if (!restore(b, &m, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(m.at, m.b.n);
        assert_int_equal(ds4_session_length(b), at[i]);
        assert_memory_equal(ds4_session_tokens(b), t->text, (size_t)at[i] * sizeof *t->text);
        assert_null(ds4_logits(b)); /* none were computed */
        assert_continues(t, b, 135, "saved at", at[i]);
        assert_continues(t, a, 0, "saved at", at[i]);
        bytes_release(&m.b);
        ds4_session_rewind(b, 0);
    }
    ds4_session_close(a);
    ds4_session_close(b);
}

static void a_loaded_session_has_its_logits_and_can_be_saved_again(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine), *b = toy_session(t->engine);
    ds4_err err;

    assert_true(ds4_session_feed(a, t->text, 150, &err));
    Memory m = saved(a);
    assert_true(restore(b, &m, &err));
    assert_true(same_rows(ds4_logits(b), row_of(t, 149), 1));
    Memory again = saved(b);
    assert_int_equal(m.b.n, again.b.n);
    assert_memory_equal(m.b.p, again.b.p, m.b.n);
    /* and where it was saved it can go back to */
    assert_continues(t, b, 40, "loaded at", 150);
    assert_int_equal(ds4_session_rewind(b, 170), 150);
    assert_continues(t, b, 40, "loaded and rewound to", 150);
    bytes_release(&m.b);
    bytes_release(&again.b);
    ds4_session_close(a);
    ds4_session_close(b);
}

/* Saved with one set of kernels, loaded with another: the same state. */
static void a_state_does_not_depend_on_the_device(void **state)
{
    Toy *t = *state;
    ds4_engine *other = toy_open(
        &t->gguf,
        (ds4_options){ .isa = kernels_list()[0], .threads = 2, .sessions = 2, .max_rows = 32 });
    ds4_session *a = toy_session(t->engine), *b = toy_session(other);
    ds4_err err;

    assert_true(ds4_session_feed(a, t->text, 203, &err));
    Memory m = saved(a);
    if (!restore(b, &m, &err))
        fail_msg("%s", err.msg);
    Memory again = saved(b);
    assert_int_equal(m.b.n, again.b.n);
    assert_memory_equal(m.b.p, again.b.p, m.b.n);
    ds4_session *c = toy_session(other);
    assert_true(ds4_session_feed(b, t->text + 203, 1, &err));
    assert_true(ds4_session_feed(c, t->text, 204, &err));
    double d = 0, norm = 0;
    for (int i = 0; i < TOY_VOCAB; i++) {
        const double x = (double)ds4_logits(b)[i], y = (double)ds4_logits(c)[i];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    assert_true(d <= norm * 1e-2); /* one rounding of a row may go the other way */
    bytes_release(&m.b);
    bytes_release(&again.b);
    ds4_session_close(a);
    ds4_engine_close(other);
}

static void assert_refused(ds4_session *s, Memory *m, ds4_code code, const char *says)
{
    ds4_err err = { 0 };

    assert_false(restore(s, m, &err));
    assert_int_equal(ds4_session_length(s), 0);
    assert_null(ds4_logits(s));
    if (code)
        assert_int_equal(err.code, code);
    if (!err.msg[0] || (says && !strstr(err.msg, says)))
        fail_msg("'%s' does not say '%s'", err.msg, says ? says : "anything");
}

static void damage_is_detected(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine), *b = toy_session(t->engine);

    assert_true(ds4_session_feed(a, t->text, 6, NULL));
    Memory m = saved(a);
    for (size_t i = 0; i < m.b.n; i += i < 400 ? 1 : 17) { /* a bit in any byte */
        m.b.p[i] = (char)(m.b.p[i] ^ 1 << i % 8);
        assert_refused(b, &m, 0, NULL);
        m.b.p[i] = (char)(m.b.p[i] ^ 1 << i % 8);
    }
    const size_t whole = m.b.n;
    for (size_t n = 0; n < whole; n += n < 200 ? 1 : 331) {
        m.b.n = n;
        assert_refused(b, &m, DS4_EIO, "ends within its");
    }
    m.b.n = whole;
    assert_true(restore(b, &m, NULL)); /* and is not imagined */
    bytes_release(&m.b);
    ds4_session_close(a);
    ds4_session_close(b);
}

static void a_state_of_another_model_or_context_is_refused(void **state)
{
    Toy *t = *state;
    Bytes gguf = toy_gguf("q8", 4);
    ds4_engine *model = toy_open(&gguf, (ds4_options){ 0 });
    ds4_engine *small = toy_open(&t->gguf, (ds4_options){ .context = 64 });
    ds4_engine *plain = toy_open(&t->gguf, (ds4_options){ .unrounded = true });
    ds4_session *a = toy_session(t->engine);

    assert_true(ds4_session_feed(a, t->text, 65, NULL));
    Memory m = saved(a);
    assert_refused(toy_session(model), &m, DS4_EFORMAT, "belongs to another model");
    assert_refused(toy_session(small), &m, DS4_ECONTEXT, "65 tokens, the context is 64");
    assert_refused(toy_session(plain), &m, DS4_EFORMAT, "rounding on, the engine off");
    bytes_release(&m.b);
    ds4_session_close(a);
    ds4_engine_close(model);
    ds4_engine_close(small);
    ds4_engine_close(plain);
    bytes_release(&gguf);
}

static void a_state_of_another_version_is_refused_by_name(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine);

    assert_true(ds4_session_feed(a, t->text, 9, NULL));
    Memory m = saved(a);
    m.b.p[8] = 1; /* the first one, whose fingerprint was another hash */
    assert_refused(a, &m, DS4_EFORMAT, "of version 1, expected 2");
    bytes_release(&m.b);
    ds4_session_close(a);
}

static bool refuse(void *user, void *p, size_t n)
{
    (void)p;
    return (*(size_t *)user)-- && n;
}

static void a_stream_that_fails_fails_the_save(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine);

    assert_true(ds4_session_feed(a, t->text, 9, NULL));
    for (size_t allowed = 0; allowed < 6; allowed++) {
        size_t left = allowed;
        ds4_err err = { 0 };
        assert_false(ds4_session_save(a, (ds4_stream){ refuse, &left }, &err));
        assert_int_equal(err.code, DS4_EIO);
    }
    assert_continues(t, a, 20, "after a failed save at", 9);
    ds4_session_close(a);
}

/* ---- going back ----------------------------------------------------------------- */

/* From lengths of every remainder of 4 and 128, over marks on both sides. */
static void rewound_and_replayed_equals_never_interrupted(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    toy_run(s, t->text, 288, 32, NULL);
    for (int n = 260; n >= 124; n--) {
        const int m = ds4_session_rewind(s, n);
        assert_int_equal(m, n / 128 * 128);
        assert_int_equal(ds4_session_length(s), m);
        assert_null(ds4_logits(s));
        assert_continues(t, s, n - m + 5, "rewound to", n);
    }
    ds4_session_close(s);
}

static void decoding_can_go_back_to_every_128th_token(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    toy_run(s, t->text, N, 1, NULL);
    assert_int_equal(ds4_session_rewind(s, 500), N);
    assert_int_equal(ds4_session_rewind(s, N), N);
    assert_int_equal(ds4_session_rewind(s, 400), 384);
    assert_int_equal(ds4_session_rewind(s, 384), 384);
    assert_int_equal(ds4_session_rewind(s, 383), 256);
    assert_continues(t, s, 50, "rewound to", 256);
    assert_int_equal(ds4_session_rewind(s, 127), 0);
    assert_int_equal(ds4_session_rewind(s, -5), 0);
    assert_continues(t, s, 50, "rewound to", 0);
    ds4_session_close(s);
}

/* Another text after the rewind, and back: no trace of it is left. */
static void a_detour_leaves_no_trace(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    toy_run(s, t->text, 256, 64, NULL);
    for (int detour = 1; detour < 140; detour += 9) {
        for (int done = 0; done < detour; done += 16) /* other tokens */
            toy_step(s, t->text + 70 + done, MIN(16, detour - done), NULL);
        assert_int_equal(ds4_session_rewind(s, 256), 256);
        assert_continues(t, s, 40, "after a detour of", detour);
        assert_int_equal(ds4_session_rewind(s, 256), 256);
    }
    ds4_session_close(s);
}

static void marks_thin_out_and_stay_bounded(void **state)
{
    enum { LONG = 128 * 40 };
    Toy *t = *state;
    ds4_engine *e = toy_open(&t->gguf, (ds4_options){ .isa = kernels_list()[0], .context = LONG });
    ds4_session *s = toy_session(e);
    int32_t *text = toy_tokens(LONG, 1);
    int worst = 0;

    for (int at = 0; at < LONG; at += 128)
        assert_true(ds4_session_feed(s, text + at, 128, NULL));
    assert_int_equal(s->n_marks, MAX_MARKS);
    for (int i = 1; i < s->n_marks; i++)
        worst = MAX(worst, s->mark[i].n - s->mark[i - 1].n);
    assert_true(worst <= LONG / 4);
    for (int i = 1; i <= 4; i++) /* the latest are all there */
        assert_int_equal(s->mark[s->n_marks - i].n, LONG - 128 * (i - 1));
    assert_true(s->mark[0].n < LONG / 4);
    free(text);
    ds4_engine_close(e);
}

static void feeding_stops_where_marks_are_wanted(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    assert_true(ds4_session_feed(s, t->text, 200, NULL));
    assert_int_equal(ds4_session_rewind(s, 199), 128);
    assert_true(ds4_session_feed(s, t->text + 128, 272, NULL));
    assert_true(same_rows(ds4_logits(s), row_of(t, 399), 1));
    assert_int_equal(ds4_session_rewind(s, 399), 384);
    assert_int_equal(ds4_session_rewind(s, 383), 128); /* not at 256: that was in one go */
    ds4_session_close(s);
}

/* Steps of the caller's own, of at most `most` rows. */
static void step_through(Toy *t, ds4_session *s, int n, int most)
{
    while (s->length < n) {
        const int rows = MIN(most, ds4_session_stride(s, n - s->length));
        assert_in_range(rows, 1, n - s->length);
        toy_step(s, t->text + s->length, rows, NULL);
    }
}

static void steps_of_a_stride_leave_the_marks_that_feeding_leaves(void **state)
{
    Toy *t = *state;
    static const int most[] = { 256, 100, 7 };

    for (size_t i = 0; i < COUNT(most); i++) {
        ds4_session *s = toy_session(t->engine);
        step_through(t, s, 200, most[i]);
        assert_int_equal(ds4_session_rewind(s, 199), 128);
        step_through(t, s, 400, most[i]);
        assert_int_equal(ds4_session_rewind(s, 399), 384);
        assert_continues(t, s, 420, "stepped, then rewound to", 384);
        ds4_session_close(s);
    }
    ds4_session *s = toy_session(t->engine);
    assert_int_equal(ds4_session_stride(s, 0), 0);
    assert_int_equal(ds4_session_stride(s, -1), 0);
    assert_int_equal(ds4_session_stride(s, INT32_MAX), 256); /* the largest step */
    ds4_session_close(s);
}

static void rewinding_below_the_first_mark_leaves_nothing(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    toy_step(s, t->text, 100, NULL);
    assert_int_equal(ds4_session_rewind(s, 100), 100); /* nothing to do */
    assert_int_equal(ds4_session_rewind(s, 99), 0);    /* no mark at all */
    step_through(t, s, 150, 256);
    assert_int_equal(ds4_session_rewind(s, 128), 128);
    assert_null(ds4_logits(s));
    assert_int_equal(ds4_session_rewind(s, 127), 0); /* one, but above */
    assert_int_equal(ds4_session_length(s), 0);
    assert_continues(t, s, 150, "below the first mark, rewound to", 0);
    assert_int_equal(ds4_session_rewind(s, -5), 0);
    ds4_session_close(s);
}

/* ---- sync ------------------------------------------------------------------------- */

static void assert_synced(Toy *t, ds4_session *s, const int32_t *tokens, int n, int expect)
{
    ds4_session *fresh = toy_session(t->engine);
    int reused = -1;
    ds4_err err;

    if (!ds4_session_sync(s, tokens, n, &reused, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(reused, expect);
    assert_int_equal(s->length, n);
    assert_memory_equal(ds4_session_tokens(s), tokens, (size_t)n * sizeof *tokens);
    assert_true(ds4_session_feed(fresh, tokens, n, &err));
    assert_true(same_rows(ds4_logits(s), ds4_logits(fresh), 1));
    ds4_session_close(fresh);
}

static void sync_keeps_what_it_can(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);
    int32_t *edited = toy_tokens(N, 0);

    assert_synced(t, s, t->text, 300, 0);
    assert_synced(t, s, t->text, 300, 300); /* nothing to do */
    assert_synced(t, s, t->text, 350, 300); /* a turn more */
    edited[330] ^= 1;
    assert_synced(t, s, edited, 340, 256); /* an edit at 330 */
    edited[200] ^= 1;
    assert_synced(t, s, edited, 340, 0);
    toy_step(s, t->text, 1, NULL); /* no logits were asked for */
    assert_null(ds4_logits(s));
    assert_synced(t, s, edited, 340, 256);
    assert_synced(t, s, edited, 256, 0); /* its last token must be evaluated */
    assert_synced(t, s, edited, 1, 0);
    free(edited);
    ds4_session_close(s);
}

static void sync_to_nothing_is_empty(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);
    int reused = 7;

    assert_true(ds4_session_feed(s, t->text, 20, NULL));
    assert_true(ds4_session_sync(s, t->text, 0, &reused, NULL));
    assert_int_equal(reused, 0);
    assert_int_equal(s->length, 0);
    assert_continues(t, s, 20, "synced to", 0);
    ds4_session_close(s);
}

static void a_bad_sync_changes_nothing(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);
    int32_t bad[3] = { 1, TOY_VOCAB, 2 };
    ds4_err err;

    assert_true(ds4_session_feed(s, t->text, 20, NULL));
    assert_false(ds4_session_sync(s, bad, 3, NULL, &err));
    assert_int_equal(err.code, DS4_EINVAL);
    assert_non_null(strstr(err.msg, "token 1 is 288, the vocabulary has 288"));
    assert_int_equal(s->length, 20);
    assert_non_null(ds4_logits(s));
    assert_continues(t, s, 20, "after a bad sync at", 20);
    ds4_session_close(s);
}

/* ---- steps that fail ----------------------------------------------------------------- */

/* The engine's backend with one op that, at its k-th call, cancels or breaks. */
static struct Ops spoiled;
static const struct Ops *honest;
static ds4_engine *victim;
static int calls_left;
static bool breaks, broken;

static void spoiled_project(Backend *be, const Step *step, Buf y, Buf o, const Layer *l)
{
    honest->project(be, step, y, o, l);
    if (!--calls_left) {
        broken = breaks;
        if (!breaks)
            ds4_cancel(victim);
    }
}

static bool spoiled_end(Backend *be, ds4_err *err)
{
    bool ok = honest->end(be, err);
    bool was = broken;
    broken = false;
    return ok && was ? (fail)(err, DS4_EDEVICE, "the device is on fire") : ok;
}

static void spoil(ds4_engine *e, int k, bool device)
{
    victim = e;
    calls_left = k;
    breaks = device;
    honest = e->be->op;
    spoiled = *honest;
    spoiled.project = spoiled_project;
    spoiled.end = spoiled_end;
    e->be->op = &spoiled;
}

static void repair(ds4_engine *e) { e->be->op = honest; }

static void a_step_that_fails_changes_nothing(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine), *b = toy_session(t->engine);

    for (int layer = 1; layer <= 4; layer++) {
        for (int device = 0; device < 2; device++) {
            for (int n = 1; n < 140; n = n * 2 + 1) {
                const ds4_work work[] = { { a, t->text + 40, n, 1 }, { b, t->text, 1, 1 } };
                const int before[2] = { a->length, b->length };
                ds4_err err = { 0 };
                spoil(t->engine, layer, device);
                assert_false(ds4_step(t->engine, work, 2, &err));
                repair(t->engine);
                assert_int_equal(err.code, device ? DS4_EDEVICE : DS4_ECANCELED);
                assert_null(ds4_step_logits(t->engine, 0, 0));
                assert_int_equal(a->length, before[0]);
                assert_int_equal(b->length, before[1]);
                assert_continues(t, a, 3, "after a failed step of", n);
                assert_continues(t, b, 1, "after a failed step beside", n);
            }
        }
    }
    ds4_session_close(a);
    ds4_session_close(b);
}

static void cancel_stops_the_next_step_and_only_that(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);
    ds4_err err;

    ds4_cancel(t->engine);
    assert_false(ds4_session_feed(s, t->text, 10, &err));
    assert_int_equal(err.code, DS4_ECANCELED);
    assert_int_equal(s->length, 0);
    assert_continues(t, s, 30, "after a cancel at", 0);
    ds4_session_close(s);
}

static void *cancel_later(void *arg)
{
    const struct timespec pause = { 0, 3000000 };
    nanosleep(&pause, NULL);
    ds4_cancel(arg);
    return NULL;
}

/* From another thread, at whatever point: the session stays consistent. */
static void cancel_may_come_from_any_thread(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);

    for (int round = 0; round < 5; round++) {
        pthread_t thread;
        ds4_err err = { 0 };
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, t->engine), 0);
        bool ok = ds4_session_sync(s, t->text, N, NULL, &err);
        pthread_join(thread, NULL);
        if (!ok)
            assert_int_equal(err.code, DS4_ECANCELED);
        else
            ds4_session_feed(s, t->text, 1, NULL); /* meets the cancel, if it came late */
        ds4_session_rewind(s, round * 60);
        assert_continues(t, s, 30, "after a cancel, from", s->length);
    }
    ds4_session_close(s);
}

/* ---- requests that are wrong ------------------------------------------------------------ */

static void refuse_work(ds4_engine *e, const ds4_work *w, int n, ds4_code code, const char *says)
{
    ds4_err err = { 0 };

    assert_false(ds4_step(e, w, n, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.msg, says))
        fail_msg("'%s' does not say '%s'", err.msg, says);
}

static void wrong_work_is_refused(void **state)
{
    Toy *t = *state;
    ds4_engine *e = t->engine, *other = toy_open(&t->gguf, (ds4_options){ 0 });
    ds4_session *a = toy_session(e), *b = toy_session(e), *c = toy_session(other);
    const int32_t low[] = { -1 }, high[] = { 5, 288 };

    refuse_work(e, &(ds4_work){ a, low, 1, 0 }, 1, DS4_EINVAL, "token 0 is -1");
    refuse_work(e, &(ds4_work){ a, high, 2, 0 }, 1, DS4_EINVAL, "token 1 is 288");
    refuse_work(e, &(ds4_work){ a, t->text, 0, 0 }, 1, DS4_EINVAL, "of 0 tokens");
    refuse_work(e, &(ds4_work){ a, t->text, 2, 3 }, 1, DS4_EINVAL, "3 rows of logits of 2");
    refuse_work(e, &(ds4_work){ a, t->text, 257, 0 }, 1, DS4_EINVAL, "257 rows in a step");
    refuse_work(e, (ds4_work[]){ { a, t->text, 200, 0 }, { b, t->text, 57, 0 } }, 2, DS4_EINVAL,
                "257 rows in a step, the most is 256");
    refuse_work(e, (ds4_work[]){ { a, t->text, 1, 0 }, { a, t->text, 1, 0 } }, 2, DS4_EINVAL,
                "items 0 and 1 are of the same session");
    refuse_work(e, &(ds4_work){ c, t->text, 1, 0 }, 1, DS4_EINVAL, "another engine");
    assert_true(ds4_session_feed(a, t->text, 400, NULL));
    refuse_work(e, &(ds4_work){ a, t->text, 113, 0 }, 1, DS4_ECONTEXT,
                "113 tokens do not fit: 400 of 512 are used");
    assert_true(ds4_step(e, NULL, 0, NULL));
    assert_int_equal(a->length, 400);
    assert_int_equal(b->length, 0);
    ds4_session_close(a);
    ds4_session_close(b);
    ds4_engine_close(other);
}

static void logits_of_a_step_are_where_they_were_asked_for(void **state)
{
    Toy *t = *state;
    ds4_session *a = toy_session(t->engine), *b = toy_session(t->engine),
                *c = toy_session(t->engine);
    const ds4_work work[] = { { a, t->text, 5, 2 }, { b, t->text, 3, 0 }, { c, t->text, 4, 4 } };

    assert_true(ds4_step(t->engine, work, 3, NULL));
    assert_true(same_rows(ds4_step_logits(t->engine, 0, 0), row_of(t, 3), 1));
    assert_true(same_rows(ds4_step_logits(t->engine, 0, 1), row_of(t, 4), 1));
    assert_null(ds4_step_logits(t->engine, 0, 2));
    assert_null(ds4_step_logits(t->engine, 1, 0));
    for (int i = 0; i < 4; i++)
        assert_true(same_rows(ds4_step_logits(t->engine, 2, i), row_of(t, i), 1));
    assert_null(ds4_step_logits(t->engine, 3, 0));
    assert_null(ds4_step_logits(t->engine, -1, 0));
    assert_null(ds4_logits(b));
    assert_true(same_rows(ds4_logits(c), row_of(t, 3), 1));
    ds4_session_close(a);
    ds4_session_close(b);
    ds4_session_close(c);
}

static void sessions_take_and_give_back_slots(void **state)
{
    Toy *t = *state;
    ds4_session *s[3];
    ds4_err err;

    for (int i = 0; i < 3; i++)
        s[i] = toy_session(t->engine);
    assert_null(ds4_session_open(t->engine, &err));
    assert_string_equal(err.msg, "all 3 sessions are open");
    toy_run(s[1], t->text + 50, 140, 70, NULL);
    ds4_session_close(s[1]);
    s[1] = toy_session(t->engine); /* whose leftovers do not matter */
    assert_int_equal(s[1]->slot, 1);
    assert_continues(t, s[1], 200, "reopened, from", 0);
    for (int i = 0; i < 3; i++)
        ds4_session_close(s[i]);
    ds4_session_close(NULL);
}

static void sampling_follows_the_logits(void **state)
{
    Toy *t = *state;
    ds4_session *s = toy_session(t->engine);
    ds4_choice top[4];
    uint64_t rng = 5;
    uint32_t mask[288 / 32] = { 0 };

    assert_int_equal(ds4_sample(s, &(ds4_sampling){ 0 }), -1);
    assert_int_equal(ds4_top(s, top, 4), 0);
    assert_true(ds4_session_feed(s, t->text, 33, NULL));
    assert_int_equal(ds4_top(s, top, 4), 4);
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ 0 }), top[0].token);
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ .temperature = 1, .top_k = 1, .rng = &rng }),
                     top[0].token);
    assert_float_equal(ds4_logprob(s, top[2].token), top[2].logprob, 1e-6);
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ .mask = mask }), -1);
    mask[top[2].token / 32] |= 1u << top[2].token % 32;
    mask[top[3].token / 32] |= 1u << top[3].token % 32;
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ .mask = mask }), top[2].token);
    const ds4_bias up = { top[3].token, 1000 };
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ .mask = mask, .bias = &up, .n_bias = 1 }),
                     top[3].token);
    assert_int_equal(ds4_sample(s, &(ds4_sampling){ 0 }), top[0].token);
    ds4_session_close(s);
}

/* ---- models that are wrong ------------------------------------------------------------ */

static void spoil_name(Bytes *gguf, const char *name)
{
    char *at = memmem(gguf->p, gguf->n, name, strlen(name));
    assert_non_null(at);
    at[strlen(name) - 1] = '?';
}

static void keep_line(void *user, const char *line) { bytes_printf(user, "%s\n", line); }

static void all_that_is_wrong_with_a_model_is_said_at_once(void **state)
{
    Bytes gguf = toy_gguf("f32", 3), log = { 0 };
    ds4_err err = { 0 };

    (void)state;
    spoil_name(&gguf, "blk.1.attn_kv.weight");
    spoil_name(&gguf, "blk.2.attn_sinks.weight");
    spoil_name(&gguf, "output_norm.weight");
    const ds4_options opt = { .device = "cpu", .log = keep_line, .user = &log };
    assert_null(engine_open_bytes(gguf.p, gguf.n, &opt, &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_string_equal(err.msg,
                        "tensor output_norm.weight is missing (and 2 more tensors are wrong)");
    bytes_byte(&log, '\0');
    assert_string_equal(log.p, "tensor output_norm.weight is missing\n"
                               "tensor blk.1.attn_kv.weight is missing\n"
                               "tensor blk.2.attn_sinks.weight is missing\n");
    bytes_release(&gguf);
    bytes_release(&log);
}

/* The hash tables are data: a lying one must not send a token elsewhere. */
static void experts_that_do_not_exist_are_refused(void **state)
{
    Bytes gguf = toy_gguf("f32", 3);
    const int32_t id = 4;
    ds4_err err = { 0 };
    Gguf g;

    (void)state;
    assert_true(gguf_parse(&g, gguf.p, gguf.n, NULL));
    const GgufTensor *t = gguf_tensor(&g, "blk.0.ffn_gate_tid2eid.weight");
    memcpy(gguf.p + (t->data - (unsigned char *)gguf.p) + 2 * 4 * 7 + 4, &id, sizeof id);
    gguf_release(&g);
    assert_null(engine_open_bytes(gguf.p, gguf.n, &(ds4_options){ .device = "cpu" }, &err));
    assert_string_equal(err.msg,
                        "tensor blk.0.ffn_gate_tid2eid.weight sends token 7 to expert 4 of 4");
    bytes_release(&gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restored_and_continued_equals_never_interrupted),
        cmocka_unit_test(a_loaded_session_has_its_logits_and_can_be_saved_again),
        cmocka_unit_test(a_state_does_not_depend_on_the_device),
        cmocka_unit_test(damage_is_detected),
        cmocka_unit_test(a_state_of_another_model_or_context_is_refused),
        cmocka_unit_test(a_state_of_another_version_is_refused_by_name),
        cmocka_unit_test(a_stream_that_fails_fails_the_save),
        cmocka_unit_test(rewound_and_replayed_equals_never_interrupted),
        cmocka_unit_test(decoding_can_go_back_to_every_128th_token),
        cmocka_unit_test(a_detour_leaves_no_trace),
        cmocka_unit_test(marks_thin_out_and_stay_bounded),
        cmocka_unit_test(feeding_stops_where_marks_are_wanted),
        cmocka_unit_test(steps_of_a_stride_leave_the_marks_that_feeding_leaves),
        cmocka_unit_test(rewinding_below_the_first_mark_leaves_nothing),
        cmocka_unit_test(sync_keeps_what_it_can),
        cmocka_unit_test(sync_to_nothing_is_empty),
        cmocka_unit_test(a_bad_sync_changes_nothing),
        cmocka_unit_test(a_step_that_fails_changes_nothing),
        cmocka_unit_test(cancel_stops_the_next_step_and_only_that),
        cmocka_unit_test(cancel_may_come_from_any_thread),
        cmocka_unit_test(wrong_work_is_refused),
        cmocka_unit_test(logits_of_a_step_are_where_they_were_asked_for),
        cmocka_unit_test(sessions_take_and_give_back_slots),
        cmocka_unit_test(sampling_follows_the_logits),
        cmocka_unit_test(all_that_is_wrong_with_a_model_is_said_at_once),
        cmocka_unit_test(experts_that_do_not_exist_are_refused),
    };
    return cmocka_run_group_tests(tests, open_toy, close_toy);
}
