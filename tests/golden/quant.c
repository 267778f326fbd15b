/* quant.c - the number formats against tests/data/golden.txt, exactly.
 *
 * The file holds a label line and a line of values for each vector. Printed
 * values are compared as printed where the print is shorter than a float. */
#include "../../src/quant/blocks.h"
#include "../../src/quant/fp8.h"
#include "../../src/quant/kvrow.h"
#include "../../src/quant/quant.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static char golden[64 * 1024];

static int read_golden(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/golden.txt", "rb");
    assert_non_null(f);
    size_t n = fread(golden, 1, sizeof golden - 1, f);
    assert_true(n > 0 && n < sizeof golden - 1);
    fclose(f);
    return 0;
}

/* What follows the label on its line; labels stand at the start of a line. */
static const char *after(const char *label)
{
    char key[80];
    snprintf(key, sizeof key, "\n%s", label);
    const char *p = strstr(golden, key);
    if (!p)
        fail_msg("no line starts with %s", label);
    return p + strlen(key);
}

static const char *next_line(const char *p)
{
    p = strchr(p, '\n');
    assert_non_null(p);
    return p + 1;
}

/* The n values on the line after the label's. */
static void values_of(const char *label, float *v, int n)
{
    char *p = (char *)next_line(after(label)), *end;
    for (int i = 0; i < n; i++, p = end) {
        v[i] = strtof(p, &end);
        assert_true(end > p);
    }
    assert_true(*p == '\n');
}

/* The n bytes that end the label's line in hexadecimal. */
static void bytes_of(const char *label, uint8_t *b, int n)
{
    const char *end = next_line(after(label)) - 1;
    for (int i = 0; i < n; i++) {
        char digits[3] = { end[2 * (i - n)], end[2 * (i - n) + 1], 0 }, *stop;
        b[i] = (uint8_t)strtoul(digits, &stop, 16);
        assert_true(stop == digits + 2);
    }
    assert_int_equal(end[-2 * n - 1], ' ');
}

static void check_equal(const char *what, const float *got, const float *want, int n)
{
    for (int i = 0; i < n; i++) {
        if (!(got[i] == want[i]))
            fail_msg("%s at %d: %.9g, expected %.9g", what, i, (double)got[i], (double)want[i]);
    }
}

static void blocks_decode_to_the_golden_values(void **state)
{
    (void)state;
    static const struct {
        int type;
        const char *bytes, *values;
    } vectors[] = {
        { QUANT_Q8_0, "Q8_0 seed", "q8_0 " },
        { QUANT_Q2_K, "Q2_K seed", "q2_k " },
        { QUANT_Q4_K, "Q4_K seed", "q4_k " },
        { QUANT_IQ2_XXS, "IQ2_XXS seed", "iq2_xxs " },
        { QUANT_MXFP4, "MXFP4 (ggml type", "mxfp4 " },
    };
    for (size_t i = 0; i < COUNT(vectors); i++) {
        const QuantFormat *f = quant_format(vectors[i].type);
        uint8_t block[256];
        float got[QK], want[QK];
        bytes_of(vectors[i].bytes, block, f->block_bytes);
        values_of(vectors[i].values, want, f->block_len);
        f->decode(got, block, (size_t)f->block_len);
        check_equal(f->name, got, want, f->block_len);
    }
}

/* The official checkpoint packs neighbours, MXFP4 packs i and i + 16. */
static void official_fp4_packs_neighbours(void **state)
{
    (void)state;
    uint8_t block[17];
    float got[32], want[32];
    bytes_of("MXFP4 (ggml type", block, 17);
    values_of("fp4_official ", want, 32);
    for (int i = 0; i < 32; i++)
        got[i] = e8m0_decode(block[0]) * e2m1_decode((uint8_t)(block[1 + i / 2] >> i % 2 * 4));
    check_equal("fp4_official", got, want, 32);
}

static void e4m3_codes_have_the_golden_values(void **state)
{
    (void)state;
    const char *p = next_line(after("e4m3_positive_table"));
    for (int code = 0; code < 127; code++) {
        char token[32], printed[32];
        int used = 0;
        assert_int_equal(sscanf(p, "%31s%n", token, &used), 1);
        p += used;
        float v = e4m3_decode((uint8_t)code);
        snprintf(printed, sizeof printed, "%.7g", (double)v);
        assert_string_equal(printed, token);
        assert_float_equal(e4m3_decode((uint8_t)(code | 0x80)), -v, 0);
        assert_int_equal(e4m3_encode(v), code);
    }
    assert_true(isnan(e4m3_decode(0x7f)) && isnan(e4m3_decode(0xff)));
}

static float e4m3_round(float x) { return e4m3_decode(e4m3_encode(x)); }
static float e2m1_round(float x) { return e2m1_decode(e2m1_encode(x)); }

/* "in->out, in->out": returns how many there were. */
static int check_roundings(const char *label, float (*round)(float))
{
    const char *p = strchr(after(label), ':');
    int n = 0;
    double in, out;
    for (int used; p && sscanf(p, "%*[:,] %lf->%lf%n", &in, &out, &used) == 2; n++, p += used) {
        char got[32], want[32];
        snprintf(got, sizeof got, "%g", (double)round((float)in));
        snprintf(want, sizeof want, "%g", out);
        assert_string_equal(got, want);
    }
    return n;
}

static void roundings_are_the_golden_ones(void **state)
{
    (void)state;
    assert_int_equal(check_roundings("e4m3_round (in->out", e4m3_round), 15);
    assert_int_equal(check_roundings("e2m1_round (in->out", e2m1_round), 10);
}

static void a_kv_block_rounds_as_the_golden_one(void **state)
{
    (void)state;
    float in[64], want[64], got[64];
    uint8_t row[72];
    KvRowFormat f = kvrow_format(64, 0, true);
    assert_int_equal(f.bytes, 72);
    values_of("kv_fp8_in", in, 64);
    values_of("kv_fp8_out", want, 64);
    kvrow_pack(&f, row, in);
    kvrow_unpack(&f, got, row);
    check_equal("kv_fp8_out", got, want, 64);
    assert_float_equal(e8m0_decode(row[64]), strtof(after("scale ["), NULL), 0);
}

static void an_index_row_rounds_as_the_golden_one(void **state)
{
    (void)state;
    float x[128], turned[128], want[128], got[128];
    uint8_t row[68];
    values_of("hadamard128_in", x, 128);
    values_of("hadamard128_out", turned, 128);
    values_of("indexer_qat_out", want, 128);
    hadamard(x, 128);
    for (int i = 0; i < 128; i++)
        assert_float_equal(x[i], turned[i], 1e-6);

    IdxRowFormat f = idxrow_format(128, true);
    assert_int_equal(f.bytes, 68);
    idxrow_pack(&f, row, x);
    idxrow_unpack(&f, got, row);
    check_equal("indexer_qat_out", got, want, 128);
    fp4_round(x, 128);
    check_equal("fp4_round", x, want, 128);

    char *p = (char *)after("fp4 scales [");
    for (int i = 0; i < 4; i++, p++)
        assert_float_equal(e8m0_decode(row[64 + i]), strtof(p, &p), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_decode_to_the_golden_values),
        cmocka_unit_test(official_fp4_packs_neighbours),
        cmocka_unit_test(e4m3_codes_have_the_golden_values),
        cmocka_unit_test(roundings_are_the_golden_ones),
        cmocka_unit_test(a_kv_block_rounds_as_the_golden_one),
        cmocka_unit_test(an_index_row_rounds_as_the_golden_one),
    };
    return cmocka_run_group_tests(tests, read_golden, NULL);
}
