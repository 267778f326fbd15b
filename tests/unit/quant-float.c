/* quant-float.c - the small floats against their definitions in double. */
#include "../../src/quant/fp8.h"
#include "../../src/quant/kvrow.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* The value of a format with e exponent bits (bias given) and m mantissa bits. */
static double value_of(uint32_t code, int m, int bias)
{
    int exponent = (int)(code >> m), mantissa = (int)(code & ((1U << m) - 1));
    if (exponent == 0)
        return ldexp(mantissa, 1 - bias - m);
    return ldexp((1 << m) + mantissa, exponent - bias - m);
}

typedef uint32_t (*Encode)(float);

static uint32_t to_f16(float f) { return f16_from_f32(f); }
static uint32_t to_bf16(float f) { return bf16_from_f32(f); }
static uint32_t to_e4m3(float f) { return e4m3_encode(f); }
static uint32_t to_e2m1(float f) { return e2m1_encode(f); }

/* Between neighbours c and c + 1: each to itself, the middle to the even one,
 * what is beside the middle to the nearer one; the same with a minus sign. */
static void check_between(Encode encode, uint32_t c, double low, double high, uint32_t sign)
{
    float middle = (float)((low + high) / 2);
    assert_true((double)middle == (low + high) / 2);
    const struct {
        float x;
        uint32_t code;
    } cases[] = {
        { (float)low, c },
        { nextafterf((float)low, INFINITY), c },
        { nextafterf(middle, 0), c },
        { middle, c + (c & 1) },
        { nextafterf(middle, INFINITY), c + 1 },
        { nextafterf((float)high, 0), c + 1 },
        { (float)high, c + 1 },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(encode(cases[i].x), cases[i].code);
        assert_int_equal(encode(-cases[i].x), cases[i].code | sign);
    }
}

static void every_neighbour_rounds_to_the_nearest_even(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x7bff; c++)
        check_between(to_f16, c, value_of(c, 10, 15), value_of(c + 1, 10, 15), 0x8000);
    for (uint32_t c = 0x0080; c < 0x7f7f; c++) /* bfloat16 subnormals have no F32 room to test in */
        check_between(to_bf16, c, value_of(c, 7, 127), value_of(c + 1, 7, 127), 0x8000);
    for (uint32_t c = 0; c < 0x7e; c++)
        check_between(to_e4m3, c, value_of(c, 3, 7), value_of(c + 1, 3, 7), 0x80);
    for (uint32_t c = 0; c < 7; c++)
        check_between(to_e2m1, c, value_of(c, 1, 1), value_of(c + 1, 1, 1), 8);
}

static void every_half_and_bfloat16_is_read_exactly(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x7c00; c++) {
        assert_true((double)f32_from_f16((uint16_t)c) == value_of(c, 10, 15));
        assert_true((double)f32_from_f16((uint16_t)(c | 0x8000)) == -value_of(c, 10, 15));
    }
    for (uint32_t c = 0; c < 0x7f80; c++)
        assert_true((double)f32_from_bf16((uint16_t)c) == value_of(c, 7, 127));
    for (uint32_t c = 0; c < 0x10000; c++) {
        if ((c & 0x7fff) <= 0x7c00)
            assert_int_equal(f16_from_f32(f32_from_f16((uint16_t)c)), c);
        if ((c & 0x7fff) <= 0x7f80)
            assert_int_equal(bf16_from_f32(f32_from_bf16((uint16_t)c)), c);
    }
}

static void the_largest_become_infinity_and_nan_stays(void **state)
{
    (void)state;
    assert_int_equal(f16_from_f32(65504), 0x7bff);
    assert_int_equal(f16_from_f32(nextafterf(65520, 0)), 0x7bff);
    assert_int_equal(f16_from_f32(65520), 0x7c00);
    assert_int_equal(f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(bf16_from_f32(3.4e38f), 0x7f80);
    assert_int_equal(bf16_from_f32(-INFINITY), 0xff80);
    assert_true(f32_from_f16(0x7c00) == INFINITY && f32_from_f16(0xfc00) == -INFINITY);
    const uint32_t nans[] = { 0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001 };
    for (size_t i = 0; i < COUNT(nans); i++) {
        float nan = f32_from_bits(nans[i]);
        assert_true(isnan(f32_from_f16(f16_from_f32(nan))));
        assert_true(isnan(f32_from_bf16(bf16_from_f32(nan))));
        assert_true(isnan(e4m3_decode(e4m3_encode(nan))));
    }
}

static void small_floats_clamp(void **state)
{
    (void)state;
    assert_int_equal(e4m3_encode(1e30f), 0x7e);
    assert_int_equal(e4m3_encode(-INFINITY), 0xfe);
    assert_int_equal(e4m3_encode(480), 0x7e);
    assert_int_equal(e2m1_encode(INFINITY), 7);
    assert_int_equal(e2m1_encode(-6.5f), 15);
}

/* The smallest power of two p with p * max >= amax, at powers and beside them. */
static void block_scales_are_the_next_power_of_two(void **state)
{
    (void)state;
    const float limits[] = { 448, 6 };
    for (size_t l = 0; l < COUNT(limits); l++) {
        for (int e = -120; e <= 110; e++) {
            float exact = ldexpf(limits[l], e);
            assert_int_equal(e8m0_for(exact, limits[l]), e + 127);
            assert_int_equal(e8m0_for(exact * 1.001f, limits[l]), e + 128);
            assert_int_equal(e8m0_for(exact * 0.999f, limits[l]), e + 127);
        }
    }
    assert_int_equal(e8m0_for(INFINITY, 448), 255);
    assert_int_equal(e8m0_for(NAN, 448), 255);
    assert_true(isnan(e8m0_decode(255)) && isnan(e8m0_inverse(255)));
    for (int b = 0; b < 255; b++) {
        assert_true(e8m0_decode((uint8_t)b) == ldexpf(1, b - 127));
        assert_true(b == 0 || e8m0_inverse((uint8_t)b) == ldexpf(1, 127 - b));
    }
}

static void row_formats_have_the_published_sizes(void **state)
{
    (void)state;
    KvRowFormat f = kvrow_format(512, 64, true);
    assert_int_equal(f.block, 64);
    assert_int_equal(f.bytes, 584);
    assert_int_equal(idxrow_format(128, true).bytes, 68);
    assert_int_equal(kvrow_format(24, 8, true).block, 16);
    assert_int_equal(kvrow_format(24, 8, true).bytes, 40);
    assert_int_equal(kvrow_format(512, 64, false).bytes, 2048);
}

/* What was rounded once is not changed by rounding it again. */
static void packing_a_packed_row_changes_nothing(void **state)
{
    (void)state;
    KvRowFormat kv = kvrow_format(512, 64, true);
    IdxRowFormat idx = idxrow_format(128, true);
    float x[512], y[512], z[512];
    uint8_t row[584];
    uint32_t s = 5;
    for (int i = 0; i < 512; i++) {
        s = s * 1664525 + 1013904223;
        x[i] = ((float)(s >> 8) * 0x1p-23f - 1) * ldexpf(1, i / 64 * 5 - 25);
    }
    kvrow_pack(&kv, row, x);
    kvrow_unpack(&kv, y, row);
    kvrow_pack(&kv, row, y);
    kvrow_unpack(&kv, z, row);
    assert_memory_equal(y, z, sizeof y);
    idxrow_pack(&idx, row, x + 300);
    idxrow_unpack(&idx, y, row);
    fp4_round(x + 300, 128);
    assert_memory_equal(y, x + 300, sizeof(float) * 128);
}

static void a_nan_in_a_row_is_not_lost(void **state)
{
    (void)state;
    KvRowFormat f = kvrow_format(512, 64, true);
    float x[512] = { [3] = NAN }, y[512];
    uint8_t row[584];
    kvrow_pack(&f, row, x);
    kvrow_unpack(&f, y, row);
    assert_true(isnan(y[3]));
    assert_true(y[64] == 0);
}

static void hadamard_is_its_own_inverse(void **state)
{
    (void)state;
    float x[128];
    for (int n = 1; n <= 128; n *= 2) {
        for (int i = 0; i < n; i++)
            x[i] = (float)(i * i % 17) - 8;
        hadamard(x, n);
        hadamard(x, n);
        for (int i = 0; i < n; i++)
            assert_float_equal(x[i], (float)(i * i % 17) - 8, 2e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_neighbour_rounds_to_the_nearest_even),
        cmocka_unit_test(every_half_and_bfloat16_is_read_exactly),
        cmocka_unit_test(the_largest_become_infinity_and_nan_stays),
        cmocka_unit_test(small_floats_clamp),
        cmocka_unit_test(block_scales_are_the_next_power_of_two),
        cmocka_unit_test(row_formats_have_the_published_sizes),
        cmocka_unit_test(packing_a_packed_row_changes_nothing),
        cmocka_unit_test(a_nan_in_a_row_is_not_lost),
        cmocka_unit_test(hadamard_is_its_own_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
