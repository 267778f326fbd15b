/* A row is a row: what a token computes does not depend on how its session's
 * tokens were cut into steps, on other sessions in the step, on where in the
 * step it lies, or on the number of threads. Bit for bit, on every
 * instruction set and weight format. */
#include "../../src/backend/cpu/kernels.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../toy.h"

enum { N = 200 };

static const char *const recipes[] = { "f32", "bf16", "q8", "mxfp4" };

/* Run a property for every format on scalar kernels, and on the best. */
static void everywhere(void (*property)(const Bytes *gguf, const char *isa, const char *what))
{
    for (size_t i = 0; i < COUNT(recipes); i++) {
        Bytes gguf = toy_gguf(recipes[i], 1);
        property(&gguf, "scalar", recipes[i]);
        if (strcmp(kernels_list()[0], "scalar") != 0)
            property(&gguf, kernels_list()[0], recipes[i]);
        bytes_release(&gguf);
    }
}

static void check_rows(const float *a, const float *b, int n, const char *isa, const char *recipe,
                       const char *what, int k)
{
    for (int i = 0; i < n; i++)
        if (!same_rows(a + (size_t)i * TOY_VOCAB, b + (size_t)i * TOY_VOCAB, 1))
            fail_msg("%s, %s: %s %d changes row %d", isa, recipe, what, k, i);
}

static void chunks(const Bytes *gguf, const char *isa, const char *recipe)
{
    static const int sizes[] = { 200, 128, 64, 7, 1 };
    int32_t *text = toy_tokens(N, 0);
    float *want = toy_rows(N), *got = toy_rows(N);
    ds4_engine *e = toy_open(gguf, (ds4_options){ .isa = isa, .max_rows = N });

    for (size_t i = 0; i < COUNT(sizes); i++) {
        ds4_session *s = toy_session(e);
        toy_run(s, text, N, sizes[i], i ? got : want);
        ds4_session_close(s);
        if (i)
            check_rows(want, got, N, isa, recipe, "chunks of", sizes[i]);
    }
    ds4_engine_close(e);
    free(text);
    free(want);
    free(got);
}

static void cutting_a_text_into_steps_changes_no_bit(void **state)
{
    (void)state;
    everywhere(chunks);
}

/* Uneven pieces of four sessions share steps in changing order. */
static void company(const Bytes *gguf, const char *isa, const char *recipe)
{
    enum { SESSIONS = 4 };
    static const int size[SESSIONS] = { 1, 5, 17, 2 };
    int32_t *text[SESSIONS];
    float *want[SESSIONS], *got[SESSIONS];
    ds4_engine *e = toy_open(gguf, (ds4_options){ .isa = isa, .sessions = SESSIONS });
    ds4_session *s[SESSIONS];

    for (int i = 0; i < SESSIONS; i++) {
        text[i] = toy_tokens(N, i);
        want[i] = toy_rows(N);
        got[i] = toy_rows(N);
        s[i] = toy_session(e);
        toy_run(s[i], text[i], N, 110, want[i]);
        ds4_session_rewind(s[i], 0);
    }
    for (int round = 0; s[0]->length < N - 40; round++) {
        ds4_work work[SESSIONS];
        int from[SESSIONS], n = 0;
        ds4_err err;
        for (int i = 0; i < SESSIONS; i++) {
            const int k = (i + round) % SESSIONS,
                      len = MIN(size[(k + round / 3) % SESSIONS], N - s[k]->length);
            from[n] = k;
            if (len && (round + k) % 5) /* now and then one stays out */
                work[n++] = (ds4_work){ s[k], text[k] + s[k]->length, len, len };
        }
        if (!ds4_step(e, work, n, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < work[i].n; j++)
                memcpy(got[from[i]] + (size_t)(s[from[i]]->length - work[i].n + j) * TOY_VOCAB,
                       ds4_step_logits(e, i, j), TOY_VOCAB * sizeof(float));
    }
    for (int i = 0; i < SESSIONS; i++) {
        assert_true(s[i]->length >= N - 140);
        check_rows(want[i], got[i], s[i]->length, isa, recipe, "company of session", i);
        free(text[i]);
        free(want[i]);
        free(got[i]);
    }
    ds4_engine_close(e);
}

static void company_in_a_step_changes_no_bit(void **state)
{
    (void)state;
    everywhere(company);
}

static void threads(const Bytes *gguf, const char *isa, const char *recipe)
{
    int32_t *text = toy_tokens(N, 0);
    float *want = toy_rows(N), *got = toy_rows(N);

    for (int n = 1; n <= 3; n++) {
        ds4_engine *e = toy_open(gguf, (ds4_options){ .isa = isa, .threads = n, .max_rows = N });
        toy_run(toy_session(e), text, N, 97, n > 1 ? got : want);
        ds4_engine_close(e);
        if (n > 1)
            check_rows(want, got, N, isa, recipe, "a number of threads of", n);
    }
    free(text);
    free(want);
    free(got);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    everywhere(threads);
}

/* max_rows decides the size of the window's ring. */
static void the_largest_step_changes_no_bit(void **state)
{
    Bytes gguf = toy_gguf("q8", 1);
    int32_t *text = toy_tokens(N, 0);
    float *want = toy_rows(N), *got = toy_rows(N);
    static const int rows[] = { 200, 100, 16, 1 };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        ds4_engine *e = toy_open(&gguf, (ds4_options){ .max_rows = rows[i] });
        toy_run(toy_session(e), text, N, rows[i], i ? got : want);
        ds4_engine_close(e);
        if (i)
            check_rows(want, got, N, "scalar", "q8", "a largest step of", rows[i]);
    }
    bytes_release(&gguf);
    free(text);
    free(want);
    free(got);
}

/* The formats and instruction sets are different models, but not by much:
 * a test that compares nothing but equal zeros would pass above. */
static void logits_differ_between_tokens_and_seeds(void **state)
{
    Bytes a = toy_gguf("f32", 1), b = toy_gguf("f32", 2);
    int32_t *text = toy_tokens(N, 0);
    float *x = toy_rows(N), *y = toy_rows(N);
    ds4_engine *e = toy_open(&a, (ds4_options){ .max_rows = N });
    ds4_engine *f = toy_open(&b, (ds4_options){ .max_rows = N });

    (void)state;
    toy_run(toy_session(e), text, N, N, x);
    toy_run(toy_session(f), text, N, N, y);
    for (int i = 1; i < N; i++) {
        assert_false(same_rows(x, x + (size_t)i * TOY_VOCAB, 1));
        assert_false(same_rows(x + (size_t)i * TOY_VOCAB, y + (size_t)i * TOY_VOCAB, 1));
    }
    ds4_engine_close(e);
    ds4_engine_close(f);
    bytes_release(&a);
    bytes_release(&b);
    free(text);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cutting_a_text_into_steps_changes_no_bit),
        cmocka_unit_test(company_in_a_step_changes_no_bit),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(the_largest_step_changes_no_bit),
        cmocka_unit_test(logits_differ_between_tokens_and_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
