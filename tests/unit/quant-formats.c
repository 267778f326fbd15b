/* quant-formats.c - the table of formats, and what encoding may lose. */
#include "../../src/quant/blocks.h"
#include "../../src/quant/float.h"
#include "../../src/quant/iq2xxs_grid.h"
#include "../../src/quant/quant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { N = 64 * QK };

static float original[N], decoded[N], again[N], importance[N];
static unsigned char blocks[N * 4];

static uint32_t seed = 1;

static float random_unit(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float)(seed >> 8) * 0x1p-23f - 1;
}

/* Bell-shaped: the sum of four uniform values. */
static void random_row(float *x, float scale)
{
    for (int i = 0; i < N; i++)
        x[i] = scale * (random_unit() + random_unit() + random_unit() + random_unit());
}

static double relative_error(const float *got, const float *want, const float *weight)
{
    double error = 0, size = 0;
    for (int i = 0; i < N; i++) {
        double w = weight ? (double)weight[i] : 1, d = (double)got[i] - (double)want[i];
        error += w * d * d;
        size += w * (double)want[i] * (double)want[i];
    }
    return sqrt(error / size);
}

static void round_trip(int type, float *to, const float *from, const float *weight)
{
    const QuantFormat *f = quant_format(type);
    memset(blocks, 0xa5, sizeof blocks);
    f->encode(blocks, from, N, weight);
    f->decode(to, blocks, N);
    size_t bytes = (size_t)(N / f->block_len * f->block_bytes);
    for (size_t i = bytes; i < sizeof blocks; i++)
        assert_int_equal(blocks[i], 0xa5);
}

static const struct {
    int type;
    double rms;
} searched[] = { { QUANT_Q8_0, 0.006 },
                 { QUANT_Q4_K, 0.07 },
                 { QUANT_Q2_K, 0.26 },
                 { QUANT_IQ2_XXS, 0.35 },
                 { QUANT_MXFP4, 0.13 } };

static void bell_shaped_rows_lose_no_more_than_the_format_must(void **state)
{
    (void)state;
    random_row(original, 0.03f);
    for (int i = 0; i < N; i++)
        importance[i] = 1;
    for (size_t k = 0; k < COUNT(searched); k++) {
        round_trip(searched[k].type, decoded, original, NULL);
        double error = relative_error(decoded, original, NULL);
        if (!(error < searched[k].rms && error > searched[k].rms / 2))
            fail_msg("%s: relative error %.4f", quant_name(searched[k].type), error);
        round_trip(searched[k].type, again, original, importance);
        assert_memory_equal(again, decoded, sizeof again);
    }
}

/* As they are, and as a checkpoint holds them, in BF16 (0.17 % by itself). */
static void values_on_the_lattice_stay_there(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(searched); k++) {
        random_row(original, 0.03f);
        round_trip(searched[k].type, decoded, original, NULL);
        round_trip(searched[k].type, again, decoded, NULL);
        double exact = relative_error(again, decoded, NULL);
        for (int i = 0; i < N; i++)
            decoded[i] = f32_from_bf16(bf16_from_f32(decoded[i]));
        round_trip(searched[k].type, again, decoded, NULL);
        double rounded = relative_error(again, decoded, NULL);
        if (!(exact < 0.0015 && rounded < 0.003))
            fail_msg("%s: %.5f, from BF16 %.5f", quant_name(searched[k].type), exact, rounded);
    }
}

/* Every other column counts a hundred times. */
static void important_columns_come_out_better(void **state)
{
    (void)state;
    static const int types[] = { QUANT_Q4_K, QUANT_Q2_K, QUANT_IQ2_XXS };
    for (int i = 0; i < N; i++)
        importance[i] = i % 2 ? 100 : 1;
    for (size_t k = 0; k < COUNT(types); k++) {
        random_row(original, 0.03f);
        round_trip(types[k], decoded, original, NULL);
        double plain = relative_error(decoded, original, importance);
        round_trip(types[k], decoded, original, importance);
        double with = relative_error(decoded, original, importance);
        if (!(with < 0.97 * plain))
            fail_msg("%s: %.4f with importance, %.4f without", quant_name(types[k]), with, plain);
    }
}

/* An expert that calibration never reached, wholly or in some columns. */
static void columns_without_importance_are_still_coded(void **state)
{
    (void)state;
    for (int sparse = 0; sparse < 2; sparse++) {
        for (int i = 0; i < N; i++)
            importance[i] = sparse && i / 64 % 2 ? 1 : 0;
        for (size_t k = 0; k < COUNT(searched); k++) {
            random_row(original, 0.03f);
            round_trip(searched[k].type, decoded, original, importance);
            assert_true(relative_error(decoded, original, NULL) < 1.3 * searched[k].rms);
        }
    }
}

static void check_all(float value, float scale)
{
    for (size_t k = 0; k < COUNT(searched); k++) {
        for (int i = 0; i < N; i++)
            original[i] = value + scale * random_unit();
        round_trip(searched[k].type, decoded, original, NULL);
        for (int i = 0; i < N; i++)
            assert_true(isfinite(decoded[i]));
        if (value == 0 && scale == 0) {
            for (int i = 0; i < N; i++)
                assert_true(decoded[i] == 0);
        }
    }
}

static void odd_rows_encode_to_finite_values(void **state)
{
    (void)state;
    check_all(0, 0);
    check_all(0, 1e-38f);
    check_all(0, 1e-9f);
    check_all(1, 0);
    check_all(-1, 0);
    check_all(0, 1e4f);
    check_all(3e4f, 0);
    check_all(-0.5f, 0.5f);
    check_all(0.5f, 0.5f);
    check_all(0, 1e20f);
}

/* Codes use the unrounded scale; the largest magnitude is 127 with its sign. */
static void q8_0_is_the_rounded_quotient(void **state)
{
    (void)state;
    random_row(original, 1);
    quant_format(QUANT_Q8_0)->encode(blocks, original, N, NULL);
    const BlockQ8_0 *b = (const BlockQ8_0 *)blocks;
    for (int i = 0; i < N; i += 32, b++) {
        float amax = 0;
        for (int j = 0; j < 32; j++)
            amax = fmaxf(amax, fabsf(original[i + j]));
        assert_int_equal(u16_at(b->d), f16_from_f32(amax / 127));
        for (int j = 0; j < 32; j++)
            assert_int_equal(b->q[j], (int)roundf(original[i + j] * (1 / (amax / 127))));
    }
}

/* ---- the table ------------------------------------------------------------------ */

static void sizes_and_names_are_ggufs(void **state)
{
    (void)state;
    static const struct {
        int type, n, bytes;
        const char *name;
    } rows[] = { { 0, 1, 4, "F32" },       { 1, 1, 2, "F16" },      { 30, 1, 2, "BF16" },
                 { 26, 1, 4, "I32" },      { 8, 32, 34, "Q8_0" },   { 10, 256, 84, "Q2_K" },
                 { 12, 256, 144, "Q4_K" }, { 39, 32, 17, "MXFP4" }, { 16, 256, 66, "IQ2_XXS" } };
    uint64_t bytes = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_true(quant_bytes(rows[i].type, 3 * (uint64_t)rows[i].n, &bytes));
        assert_int_equal(bytes, 3 * rows[i].bytes);
        assert_string_equal(quant_name(rows[i].type), rows[i].name);
        assert_string_equal(quant_format(rows[i].type)->name, rows[i].name);
        assert_int_equal(quant_type(str_of(rows[i].name)), rows[i].type);
        if (rows[i].n > 1)
            assert_false(quant_bytes(rows[i].type, (uint64_t)rows[i].n + 1, &bytes));
    }
    assert_int_equal(quant_type(STR("iq2_xxs")), QUANT_IQ2_XXS);
    assert_int_equal(quant_type(STR("q8")), -1);
    assert_int_equal(quant_type((Str){ 0 }), -1);
}

static void foreign_types_have_a_name_and_no_format(void **state)
{
    (void)state;
    uint64_t bytes;
    assert_string_equal(quant_name(14), "Q6_K");
    assert_string_equal(quant_name(-1), "unknown");
    assert_string_equal(quant_name(1 << 30), "unknown");
    const int types[] = { -1, 2, 14, 31, 40, 1 << 30 };
    for (size_t i = 0; i < COUNT(types); i++) {
        assert_null(quant_format(types[i]));
        assert_false(quant_bytes(types[i], 256, &bytes));
    }
    assert_false(quant_bytes(QUANT_F32, UINT64_MAX / 2, &bytes));
}

/* ---- the grid --------------------------------------------------------------------- */

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void the_grid_is_the_published_one(void **state)
{
    (void)state;
    uint8_t bytes[2048], signs[128], levels[512];
    for (int i = 0; i < 256; i++) {
        uint32_t code = 0;
        for (int j = 0; j < 8; j++) {
            uint8_t m = (uint8_t)(iq2xxs_grid[i] >> 8 * j);
            assert_true(m == 8 || m == 25 || m == 43);
            bytes[8 * i + j] = m;
            code |= (m == 8 ? 0U : m == 25 ? 1U : 2U) << 2 * j;
        }
        u16_put(levels + 2 * i, (uint16_t)code);
    }
    for (int i = 0; i < 128; i++)
        signs[i] = iq2xxs_signs((uint32_t)i);
    assert_int_equal(crc32_of(bytes, sizeof bytes), 0x9924ff02);
    assert_int_equal(crc32_of(levels, sizeof levels), 0xd01c53f2);
    assert_int_equal(crc32_of(signs, sizeof signs), 0xffab7940);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bell_shaped_rows_lose_no_more_than_the_format_must),
        cmocka_unit_test(values_on_the_lattice_stay_there),
        cmocka_unit_test(important_columns_come_out_better),
        cmocka_unit_test(columns_without_importance_are_still_coded),
        cmocka_unit_test(odd_rows_encode_to_finite_values),
        cmocka_unit_test(q8_0_is_the_rounded_quotient),
        cmocka_unit_test(sizes_and_names_are_ggufs),
        cmocka_unit_test(foreign_types_have_a_name_and_no_format),
        cmocka_unit_test(the_grid_is_the_published_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
