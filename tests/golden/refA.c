/* The whole model against an independent implementation's logits: a random
 * checkpoint in official form (F32, six layers of every kind) is converted,
 * loaded, and run with rounding off, as the reference was. The reference's own
 * noise is 4e-6. */
#include "../../src/backend/cpu/kernels.h"
#include "../../src/engine/engine.h"
#include "../../src/quantize/convert.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define DIR_A "tests/data/refA"

enum { VOCAB = 384, SHORT = 600, LONG = 5000, LAST = 32 };

typedef struct {
    Map map;
    StFile file;
    char gguf[64];
    const int32_t *ids;
    const float *logits, *last;
} Ref;

static const void *data_of(const Ref *r, const char *name, int type, uint64_t count)
{
    for (size_t i = 0; i < r->file.n; i++) {
        const StTensor *t = &r->file.tensor[i];
        if (!str_eq(t->name, str_of(name)))
            continue;
        assert_int_equal(t->type, type);
        assert_int_equal(t->count, count);
        return t->data;
    }
    fail_msg("%s is not there", name);
    return NULL;
}

static int open_reference(void **state)
{
    static Ref r;
    ds4_err err;
    Convert c;
    const ConvertOptions opt = { .in = DIR_A, .recipe = "f32", .threads = 2 };

    snprintf(r.gguf, sizeof r.gguf, "/tmp/ds4-refA-%d.gguf", (int)getpid());
    if (!convert_open(&c, &opt, &err) || !convert_write(&c, r.gguf, &err) ||
        !map_open(&r.map, DIR_A "/expected.safetensors", &err) ||
        !st_parse(&r.file, r.map.p, r.map.n, &err)) {
        print_error("%s\n", err.msg);
        return -1;
    }
    convert_close(&c);
    r.ids = data_of(&r, "input_ids", ST_I32, LONG);
    r.logits = data_of(&r, "logits", ST_F32, SHORT * VOCAB);
    r.last = data_of(&r, "logits_long_last32", ST_F32, LAST * VOCAB);
    *state = &r;
    return 0;
}

static int close_reference(void **state)
{
    Ref *r = *state;
    unlink(r->gguf);
    st_release(&r->file);
    map_close(&r->map);
    return 0;
}

static ds4_engine *open_engine(const Ref *r, const char *isa, int rows)
{
    ds4_err err;
    ds4_engine *e = ds4_engine_open(&(ds4_options){ .model = r->gguf,
                                                    .device = "cpu",
                                                    .isa = isa,
                                                    .threads = 2,
                                                    .exact = true,
                                                    .context = LONG,
                                                    .max_rows = rows,
                                                    .max_logits = rows,
                                                    .unrounded = true },
                                    &err);
    if (!e)
        fail_msg("%s", err.msg);
    return e;
}

/* Logits of all n rows, `chunk` rows a step. */
static void run(ds4_session *s, const int32_t *ids, int n, int chunk, float *out)
{
    ds4_engine *e = s->engine;
    ds4_err err;

    for (int at = 0; at < n; at += chunk) {
        const int rows = MIN(chunk, n - at);
        if (!ds4_step(e, &(ds4_work){ s, ids + at, rows, rows }, 1, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; i < rows; i++)
            memcpy(out + (size_t)(at + i) * VOCAB, ds4_step_logits(e, 0, i), VOCAB * sizeof *out);
    }
}

static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(d / norm);
}

static void assert_agrees(const char *what, const float *got, const float *want, int rows)
{
    const double all = distance(got, want, (size_t)rows * VOCAB);
    double worst = 0;
    int at = 0;

    for (int i = 0; i < rows; i++) {
        double d = distance(got + (size_t)i * VOCAB, want + (size_t)i * VOCAB, VOCAB);
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    print_message("%s: all rows %.3g, worst row %.3g (%d)\n", what, all, worst, at);
    assert_true(all < 2e-5);
    assert_true(worst < 1e-4);
}

static bool runs_here(const char *isa)
{
    for (const char *const *k = kernels_list(); *k; k++)
        if (!strcmp(*k, isa))
            return true;
    print_message("skipped: this machine has no %s\n", isa);
    return false;
}

static void agree(const Ref *r, const char *isa)
{
    float *got = malloc(sizeof(float) * SHORT * VOCAB);
    ds4_engine *e = open_engine(r, isa, SHORT);
    ds4_session *s = ds4_session_open(e, NULL);
    ds4_err err;
    char what[64];

    run(s, r->ids, SHORT, SHORT, got);
    snprintf(what, sizeof what, "%s, 600 tokens", isa);
    assert_agrees(what, got, r->logits, SHORT);

    if (!ds4_session_feed(s, r->ids + SHORT, LONG - LAST - SHORT, &err))
        fail_msg("%s", err.msg);
    run(s, r->ids + LONG - LAST, LAST, LAST, got);
    snprintf(what, sizeof what, "%s, the last 32 of 5,000", isa);
    assert_agrees(what, got, r->last, LAST);
    ds4_engine_close(e);
    free(got);
}

static void scalar_logits_agree_with_the_reference(void **state) { agree(*state, "scalar"); }

static void avx2_logits_agree_with_the_reference(void **state)
{
    if (!runs_here("avx2"))
        skip();
    agree(*state, "avx2");
}

static void avx512_logits_agree_with_the_reference(void **state)
{
    if (!runs_here("avx512"))
        skip();
    agree(*state, "avx512");
}

/* All of the 600 rows at once, in chunks, and 400 at once and then singly. */
static void same_bits(const Ref *r, const char *isa)
{
    static const struct {
        int first, then;
    } how[] = {
        { 600, 600 }, { 128, 128 }, { 64, 64 }, { 7, 7 }, { 1, 1 }, { 400, 1 },
    };
    const size_t bytes = sizeof(float) * SHORT * VOCAB;
    float *want = malloc(bytes), *got = malloc(bytes);
    ds4_engine *e = open_engine(r, isa, SHORT);

    for (size_t i = 0; i < COUNT(how); i++) {
        float *to = i ? got : want;
        ds4_session *s = ds4_session_open(e, NULL);
        run(s, r->ids, how[i].first, how[i].first, to);
        run(s, r->ids + how[i].first, SHORT - how[i].first, how[i].then,
            to + (size_t)how[i].first * VOCAB);
        ds4_session_close(s);
        if (i && memcmp(want, got, bytes))
            fail_msg("%s: %d, then %d rows a step differ by %g", isa, how[i].first, how[i].then,
                     distance(got, want, SHORT * VOCAB));
    }
    ds4_engine_close(e);
    free(want);
    free(got);
}

static void chunks_change_no_bit_on_scalar_kernels(void **state) { same_bits(*state, "scalar"); }

static void chunks_change_no_bit_on_the_best_kernels(void **state)
{
    same_bits(*state, kernels_list()[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_logits_agree_with_the_reference),
        cmocka_unit_test(avx2_logits_agree_with_the_reference),
        cmocka_unit_test(avx512_logits_agree_with_the_reference),
        cmocka_unit_test(chunks_change_no_bit_on_scalar_kernels),
        cmocka_unit_test(chunks_change_no_bit_on_the_best_kernels),
    };
    return cmocka_run_group_tests(tests, open_reference, close_reference);
}
