/* cmocka.h - the few words of cmocka that the kernels' tests use, for the run
 * under qemu: distributions have no cmocka for cross compilation. Output and
 * exit status are cmocka's. */
#ifndef CMOCKA_H
#define CMOCKA_H
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf cmocka_end; /* of the running test: 1 failed, 2 skipped */

#define cmocka_unit_test(f) \
    { \
#f, f \
    }
#define print_message(...) (printf(__VA_ARGS__), fflush(stdout))
#define print_error        print_message
#define fail_msg(...) \
    (printf("[  ERROR   ] --- "), printf(__VA_ARGS__), \
     printf("\n[   LINE   ] --- %s:%d\n", __FILE__, __LINE__), longjmp(cmocka_end, 1))
#define skip() longjmp(cmocka_end, 2)

#define assert_true(c)         ((c) ? (void)0 : fail_msg("%s", #c))
#define assert_false(c)        assert_true(!(c))
#define assert_null(p)         assert_true((p) == NULL)
#define assert_non_null(p)     assert_true((p) != NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) \
    ((intmax_t)(a) == (intmax_t)(b) ? (void)0 \
                                    : fail_msg("%" PRIdMAX " != %" PRIdMAX " (%s, %s)", \
                                               (intmax_t)(a), (intmax_t)(b), #a, #b))
#define assert_int_not_equal(a, b) assert_true((intmax_t)(a) != (intmax_t)(b))
#define assert_in_range(v, low, high) \
    assert_true((uintmax_t)(v) >= (uintmax_t)(low) && (uintmax_t)(v) <= (uintmax_t)(high))
#define assert_memory_equal(a, b, n) assert_true(memcmp((a), (b), (n)) == 0)
#define assert_string_equal(a, b) \
    (strcmp((a), (b)) == 0 ? (void)0 : fail_msg("\"%s\" != \"%s\"", (a), (b)))
#define assert_float_equal(a, b, e) \
    assert_true((double)(a) - (double)(b) <= (double)(e) && \
                (double)(b) - (double)(a) <= (double)(e))

static int cmocka_run(const struct CMUnitTest *test, size_t n, int (*setup)(void **),
                      int (*teardown)(void **))
{
    static volatile size_t count[3];
    void *state = NULL;
    if (setup && setup(&state) != 0)
        return puts("[  ERROR   ] the group's set-up failed"), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("[==========] Running %zu test(s).\n", n);
    for (volatile size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", test[i].name);
        int how = setjmp(cmocka_end);
        if (how == 0)
            test[i].run(&state);
        count[how]++;
        static const char *const word[] = { "[       OK ]", "[  FAILED  ]", "[  SKIPPED ]" };
        printf("%s %s\n", word[how], test[i].name);
    }
    printf("[==========] %zu test(s) run.\n[  PASSED  ] %zu test(s).\n", n, count[0]);
    if (count[2])
        printf("[  SKIPPED ] %zu test(s), listed above.\n", count[2]);
    if (count[1])
        printf("[  FAILED  ] %zu test(s), listed above.\n", count[1]);
    if (teardown)
        teardown(&state);
    return (int)count[1];
}

#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

#endif
