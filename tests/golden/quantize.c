/* quantize.c - what recipes do to logits.
 *
 * A checkpoint in the official form (FP4 experts, FP8 dense, BF16, F32, I64; two shards and an
 * index) through every recipe, and the reference model through q8. All with F32 activations,
 * and without the rounding of KV rows: what differs is the weights. */
#include "../../src/engine/engine.h"
#include "../../src/quant/float.h"
#include "../checkpoint.h"

#define DIR_A "tests/data/refA"

static void must(bool ok, const ds4_err *err)
{
    if (!ok)
        fail_msg("%s", err->msg);
}

static void convert(const char *in, const char *recipe, const char *out)
{
    Convert c;
    ds4_err err = { 0 };
    const ConvertOptions opt = { .in = in, .recipe = recipe, .threads = 2 };
    must(convert_open(&c, &opt, &err), &err);
    must(convert_write(&c, out, &err), &err);
    convert_close(&c);
}

/* Logits of all n tokens, so many of each. */
static float *logits_of(const char *path, const int32_t *ids, int n, int vocab)
{
    ds4_err err = { 0 };
    const ds4_options opt = { .model = path,
                              .device = "cpu",
                              .threads = 2,
                              .context = n,
                              .max_rows = n,
                              .max_logits = n,
                              .exact = true,
                              .unrounded = true };
    ds4_engine *e = ds4_engine_open(&opt, &err);
    must(e != NULL, &err);
    ds4_session *s = ds4_session_open(e, NULL);
    must(ds4_step(e, &(ds4_work){ s, ids, n, n }, 1, &err), &err);
    float *out = malloc(sizeof(float) * (size_t)n * (size_t)vocab);
    assert_non_null(out);
    for (int i = 0; i < n; i++)
        memcpy(out + (size_t)i * (size_t)vocab, ds4_step_logits(e, 0, i),
               sizeof(float) * (size_t)vocab);
    ds4_engine_close(e);
    return out;
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

/* ---- the official form through every recipe ------------------------------------- */

enum { TOKENS = 150, VOCAB = 300 };

static void every_recipe_runs_and_stays_near_to_f32(void **state)
{
    (void)state;
    /* Of random weights, errors of 2-bit experts reach the router and choose others. */
    static const struct {
        const char *recipe;
        double most;
    } all[] = { { "bf16", 0.03 }, { "mxfp4", 0.05 }, { "q8", 0.05 },
                { "q4", 0.2 },    { "q2-q4", 1 },    { "q2", 1 } };
    Made m;
    int32_t ids[TOKENS];
    make(&m, (Slip){ .sane = true, .expert_dim = 256 });
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(rng_next(&m.rng) % VOCAB);
    convert(m.dir, "f32", path_in(&m, "f32.gguf"));
    float *want = logits_of(path_in(&m, "f32.gguf"), ids, TOKENS, VOCAB);
    for (size_t i = 0; i < COUNT(all); i++) {
        convert(m.dir, all[i].recipe, path_in(&m, "out.gguf"));
        float *got = logits_of(path_in(&m, "out.gguf"), ids, TOKENS, VOCAB);
        for (int k = 0; k < TOKENS * VOCAB; k++)
            assert_true(isfinite(got[k]));
        double d = distance(got, want, TOKENS * VOCAB);
        print_message("%s: logits differ from f32's by %.4f of their size\n", all[i].recipe, d);
        assert_true(d > 0 && d < all[i].most);
        free(got);
    }
    free(want);
    unmake(&m);
}

/* ---- the reference through q8 -------------------------------------------------------- */

enum { REF_TOKENS = 600, REF_VOCAB = 384 };

typedef struct {
    Map map;
    StFile file;
    const int32_t *ids;
    const float *logits;
} Ref;

static void open_ref(Ref *r)
{
    ds4_err err = { 0 };
    must(map_open(&r->map, DIR_A "/expected.safetensors", &err) &&
             st_parse(&r->file, r->map.p, r->map.n, &err),
         &err);
    for (size_t i = 0; i < r->file.n; i++) {
        if (str_eq(r->file.tensor[i].name, STR("input_ids")))
            r->ids = (const int32_t *)(const void *)r->file.tensor[i].data;
        if (str_eq(r->file.tensor[i].name, STR("logits")))
            r->logits = (const float *)(const void *)r->file.tensor[i].data;
    }
    assert_true(r->ids && r->logits);
}

/* Whatever q8 rounds gets an error of the same size instead that has nothing to do with it: of
 * a step's width, which is a 127th of the block's largest value, or a half's rounding. */
static void shake(const char *f32, const char *q8, uint64_t seed)
{
    ds4_err err = { 0 };
    Bytes b = { 0 };
    Gguf plain, rounded;
    Map map;
    must(file_read(&b, f32, 1 << 28, &err) && gguf_parse(&plain, b.p, b.n, &err), &err);
    must(map_open(&map, q8, &err) && gguf_parse(&rounded, map.p, map.n, &err), &err);
    for (size_t i = 0; i < plain.n_tensors; i++) {
        const GgufTensor *t = &plain.tensor[i];
        char name[256] = { 0 };
        memcpy(name, t->name.p, t->name.n);
        const GgufTensor *q = gguf_tensor(&rounded, name);
        float *x = (float *)(void *)(b.p + plain.data_offset + t->offset);
        const size_t n = (size_t)(t->bytes / sizeof *x);
        assert_non_null(q);
        for (size_t k = 0; q->type == QUANT_Q8_0 && k < n; k += 32) {
            float top = 0;
            for (int j = 0; j < 32; j++)
                top = fmaxf(top, fabsf(x[k + j]));
            for (int j = 0; j < 32; j++)
                x[k + j] += top / 127 * (float)(rng_unit(&seed) - 0.5);
        }
        for (size_t k = 0; q->type == QUANT_F16 && k < n; k++)
            x[k] += fabsf(x[k]) * 0x1p-10f * 0.7f * (float)(rng_unit(&seed) - 0.5);
    }
    FILE *f = fopen(f32, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.p, 1, b.n, f), b.n);
    fclose(f);
    gguf_release(&plain);
    gguf_release(&rounded);
    map_close(&map);
    bytes_release(&b);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_row(const float *a, const float *b)
{
    double d[REF_TOKENS];
    for (int i = 0; i < REF_TOKENS; i++)
        d[i] = distance(a + i * REF_VOCAB, b + i * REF_VOCAB, REF_VOCAB);
    qsort(d, REF_TOKENS, sizeof *d, by_size);
    return d[REF_TOKENS / 2];
}

/* The error in the logits is what errors of q8's size in the weights make, whichever they are;
 * and all of it comes from the weights: the same weights as F32 give the same logits. */
static void q8_costs_the_reference_what_rounding_its_weights_must(void **state)
{
    (void)state;
    char dir[] = "/tmp/ds4-q8-XXXXXX", q8[64], f32[64], back[64];
    const size_t n = (size_t)REF_TOKENS * REF_VOCAB;
    Ref r = { 0 };
    assert_non_null(mkdtemp(dir));
    snprintf(q8, sizeof q8, "%s/q8.gguf", dir);
    snprintf(f32, sizeof f32, "%s/f32.gguf", dir);
    snprintf(back, sizeof back, "%s/back.gguf", dir);
    open_ref(&r);
    convert(DIR_A, "q8", q8);
    convert(DIR_A, "f32", f32);
    convert(q8, "f32", back);
    shake(f32, q8, 5);
    float *a = logits_of(q8, r.ids, REF_TOKENS, REF_VOCAB),
          *b = logits_of(f32, r.ids, REF_TOKENS, REF_VOCAB),
          *c = logits_of(back, r.ids, REF_TOKENS, REF_VOCAB);
    const double error = distance(a, r.logits, n), shaken = distance(b, r.logits, n);
    const double row = median_row(a, r.logits), shaken_row = median_row(b, r.logits);
    print_message("refA as q8: logits are off by %.4f of their size, a row in the middle by %.4f; "
                  "random errors as large in its weights: %.4f, %.4f; its weights as f32: %.2g\n",
                  error, row, shaken, shaken_row, distance(a, c, n));
    /* Of all rows together a few count most, whose tokens choose other experts. */
    assert_true(error > 0.6 * shaken && error < 1.6 * shaken);
    assert_true(row > 0.8 * shaken_row && row < 1.25 * shaken_row);
    assert_true(row < 0.1);
    assert_true(distance(a, c, n) < 2e-5);
    free(a);
    free(b);
    free(c);
    unlink(q8);
    unlink(f32);
    unlink(back);
    rmdir(dir);
    st_release(&r.file);
    map_close(&r.map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_runs_and_stays_near_to_f32),
        cmocka_unit_test(q8_costs_the_reference_what_rounding_its_weights_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
