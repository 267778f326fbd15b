/* Errors, arenas, buffers: what they promise when things go wrong. */
#include "../../src/base/arena.h"
#include "../../src/base/bytes.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours is meant below */

static void fail_returns_false_and_fills_the_error(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    assert_false(fail(&err, DS4_EFORMAT, "%s: %d rows, expected %d", "blk.0", 3, 4));
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_string_equal(err.msg, "blk.0: 3 rows, expected 4");
    assert_false(fail(NULL, DS4_EIO, "nobody listens"));
}

static void a_message_is_one_line_without_control_characters(void **state)
{
    (void)state;
    ds4_err err;
    fail(&err, DS4_EFORMAT, "tensor %s", "a\nb\x1b[2Jc\x7f");
    assert_string_equal(err.msg, "tensor a?b?[2Jc?");
}

static void a_long_message_is_cut_between_characters(void **state)
{
    (void)state;
    char text[400];
    for (int shift = 0; shift < 4; shift++) {
        memset(text, 'x', (size_t)shift);
        for (int i = 0; i < 130; i++)
            memcpy(text + shift + 3 * i, "\xe2\x96\x81", 3);
        text[shift + 390] = '\0';
        ds4_err err;
        fail(&err, DS4_EINVAL, "%s", text);
        size_t n = strlen(err.msg);
        assert_true(n > sizeof err.msg - 4 && n < sizeof err.msg);
        assert_int_equal((n - (size_t)shift) % 3, 0);
        assert_memory_equal(err.msg, text, n);
    }
}

static void an_error_may_quote_the_error_it_replaces(void **state)
{
    (void)state;
    ds4_err err;
    fail(&err, DS4_EIO, "disk full");
    fail(&err, DS4_EIO, "saving x: %s", err.msg);
    assert_string_equal(err.msg, "saving x: disk full");
}

static void arena_memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    Arena a = { 0 };
    unsigned char *p[200];
    for (size_t i = 0; i < COUNT(p); i++) {
        p[i] = arena_alloc(&a, i * 7);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % _Alignof(max_align_t), 0);
        for (size_t k = 0; k < i * 7; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < COUNT(p); i++)
        for (size_t k = 0; k < i * 7; k++)
            assert_int_equal(p[i][k], (unsigned char)i);
    arena_release(&a);
    assert_null(a.block);
    assert_int_equal(a.used, 0);
}

static void an_arena_stops_at_its_limit_and_at_overflow(void **state)
{
    (void)state;
    Arena a = { .limit = 100000 };
    assert_null(arena_alloc(&a, 100001));
    assert_non_null(arena_alloc(&a, 60000));
    assert_null(arena_alloc(&a, 60000));
    assert_non_null(arena_alloc(&a, 30000));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 3));
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(arena_str(&a, (Str){ "x", SIZE_MAX }));
    arena_release(&a);
    assert_non_null(arena_alloc(&a, 100000 / 16 * 16));
    arena_release(&a);
}

static void arena_strings_end_in_a_terminator(void **state)
{
    (void)state;
    Arena a = { 0 };
    assert_string_equal(arena_str(&a, (Str){ "hello there", 5 }), "hello");
    assert_string_equal(arena_str(&a, (Str){ NULL, 0 }), "");
    arena_release(&a);
}

static void numbers_are_written_little_endian(void **state)
{
    (void)state;
    Bytes b = { 0 };
    bytes_byte(&b, 0xfe);
    bytes_u32(&b, 0x01020304);
    bytes_u64(&b, 0x1122334455667788);
    bytes_f32(&b, -2.0f);
    static const unsigned char want[] = { 0xfe, 4,    3,    2,    1, 0x88, 0x77, 0x66, 0x55,
                                          0x44, 0x33, 0x22, 0x11, 0, 0,    0,    0xc0 };
    assert_int_equal(b.n, sizeof want);
    assert_memory_equal(b.p, want, sizeof want);
    bytes_release(&b);
}

static void a_buffer_grows_and_keeps_what_it_holds(void **state)
{
    (void)state;
    Bytes b = { 0 };
    for (int i = 0; i < 10000; i++)
        bytes_printf(&b, "%d,", i);
    bytes_fill(&b, '.', 3);
    bytes_str(&b, "end");
    assert_false(b.failed);
    size_t at = 0;
    for (int i = 0; i < 10000; i++) {
        char want[16];
        int n = snprintf(want, sizeof want, "%d,", i);
        assert_memory_equal(b.p + at, want, (size_t)n);
        at += (size_t)n;
    }
    assert_memory_equal(b.p + at, "...end", 6);
    assert_int_equal(b.n, at + 6);
    bytes_release(&b);
    assert_null(b.p);
}

static void failure_to_grow_sticks_until_cleared(void **state)
{
    (void)state;
    Bytes b = { 0 };
    bytes_str(&b, "kept");
    assert_null(bytes_room(&b, SIZE_MAX));
    assert_true(b.failed);
    bytes_str(&b, "lost");
    assert_int_equal(b.n, 4);
    assert_memory_equal(b.p, "kept", 4);
    bytes_clear(&b);
    bytes_str(&b, "new");
    assert_false(b.failed);
    assert_memory_equal(b.p, "new", 3);
    bytes_release(&b);
}

static void views_compare_by_content(void **state)
{
    (void)state;
    assert_true(str_eq(STR("abc"), str_of("abc")));
    assert_false(str_eq(STR("abc"), STR("abd")));
    assert_false(str_eq(STR("abc"), STR("ab")));
    assert_true(str_eq((Str){ NULL, 0 }, STR("")));
    assert_int_equal(str_of(NULL).n, 0);
}

static void the_clock_moves_forward(void **state)
{
    (void)state;
    int64_t a = clock_ns(), b = clock_ns();
    assert_true(a > 0 && b >= a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_returns_false_and_fills_the_error),
        cmocka_unit_test(a_message_is_one_line_without_control_characters),
        cmocka_unit_test(a_long_message_is_cut_between_characters),
        cmocka_unit_test(an_error_may_quote_the_error_it_replaces),
        cmocka_unit_test(arena_memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(an_arena_stops_at_its_limit_and_at_overflow),
        cmocka_unit_test(arena_strings_end_in_a_terminator),
        cmocka_unit_test(numbers_are_written_little_endian),
        cmocka_unit_test(a_buffer_grows_and_keeps_what_it_holds),
        cmocka_unit_test(failure_to_grow_sticks_until_cleared),
        cmocka_unit_test(views_compare_by_content),
        cmocka_unit_test(the_clock_moves_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
