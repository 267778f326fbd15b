/* Synthetic models: complete, sane, and the same everywhere. */
#include "../../src/base/file.h"
#include "../../src/model/model.h"
#include "../../src/quantize/synth.h"
#include "../../src/text/vocab.h"
#include "../../src/quantize/fill.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const recipes[] = { "f32", "bf16", "q8", "q4", "q2-q4", "q2", "mxfp4" };

static void make(Bytes *out, const char *shape, SynthOptions opt)
{
    Shape s;
    ds4_err err = { 0 };
    bytes_clear(out);
    opt.shape = &s;
    if (!synth_shape(&s, shape, 0, &err) || !synth_bytes(out, &opt, &err))
        fail_msg("%s", err.msg);
}

static void every_recipe_gives_a_model_of_its_shape(void **state)
{
    (void)state;
    static const char *const shapes[] = { "toy", "mini" };
    for (size_t k = 0; k < COUNT(shapes); k++) {
        for (size_t i = 0; i < COUNT(recipes); i++) {
            Bytes b = { 0 };
            Gguf g;
            Shape want, is;
            ds4_err err = { 0 };
            ModelBytes bytes;
            make(&b, shapes[k], (SynthOptions){ .recipe = recipes[i], .threads = 1 });
            assert_true(synth_shape(&want, shapes[k], 0, &err));
            assert_true(gguf_parse(&g, b.p, b.n, &err));
            memset(&is, 0, sizeof is);
            assert_true(shape_read(&is, &g, &err));
            is.rounding = want.rounding;
            assert_memory_equal(&is, &want, sizeof is);
            if (!model_check(&g, &is, &bytes, NULL, &err)) /* names, dimensions, types */
                fail_msg("%s %s: %s", shapes[k], recipes[i], err.msg);
            gguf_release(&g);
            bytes_release(&b);
        }
    }
}

static void threads_do_not_change_a_byte_and_the_seed_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(recipes); i++) {
        Bytes one = { 0 }, three = { 0 }, other = { 0 };
        make(&one, "mini", (SynthOptions){ .recipe = recipes[i], .threads = 1, .name = "x" });
        make(&three, "mini", (SynthOptions){ .recipe = recipes[i], .threads = 3, .name = "x" });
        make(&other, "mini",
             (SynthOptions){ .recipe = recipes[i], .threads = 1, .name = "x", .seed = 1 });
        assert_int_equal(one.n, three.n);
        assert_memory_equal(one.p, three.p, one.n);
        assert_int_equal(one.n, other.n);
        assert_memory_not_equal(one.p, other.p, one.n);
        bytes_release(&one);
        bytes_release(&three);
        bytes_release(&other);
    }
}

static double spread_of(const GgufTensor *t, double *mean)
{
    uint64_t n = t->dims[0] * t->dims[1] * t->dims[2];
    float *x = malloc((size_t)n * sizeof *x);
    double sum = 0, square = 0;
    assert_non_null(x);
    quant_format(t->type)->decode(x, t->data, (size_t)n);
    for (uint64_t i = 0; i < n; i++) {
        assert_true(isfinite(x[i]));
        sum += (double)x[i];
        square += (double)x[i] * (double)x[i];
    }
    free(x);
    *mean = sum / (double)n;
    return sqrt(square / (double)n - *mean * *mean);
}

/* Powers of two cannot hit the spread, so MXFP4 may miss it by a factor of 1.8. */
static void matrices_keep_the_variance_of_their_input(void **state)
{
    (void)state;
    static const char *const names[] = { "blk.0.ffn_gate_exps.weight", "blk.3.ffn_down_exps.weight",
                                         "blk.1.attn_q_b.weight", "output.weight" };
    for (size_t i = 0; i < COUNT(recipes); i++) {
        Bytes b = { 0 };
        Gguf g;
        ds4_err err;
        make(&b, "toy", (SynthOptions){ .recipe = recipes[i], .threads = 1 });
        assert_true(gguf_parse(&g, b.p, b.n, &err));
        for (size_t k = 0; k < COUNT(names); k++) {
            const GgufTensor *t = gguf_tensor(&g, names[k]);
            double mean, want = 1 / sqrt((double)t->dims[0]), s = spread_of(t, &mean);
            double room = t->type == QUANT_MXFP4 ? 1.8 : 1.1;
            if (!(s > want / room && s < want * room && fabs(mean) < 0.05 * want))
                fail_msg("%s %s: %g +- %g, expected 0 +- %g", recipes[i], names[k], mean, s, want);
        }
        gguf_release(&g);
        bytes_release(&b);
    }
}

static void hash_tables_hold_distinct_experts(void **state)
{
    (void)state;
    Bytes b = { 0 };
    Gguf g;
    ds4_err err;
    int seen = 0;
    make(&b, "mini", (SynthOptions){ .recipe = "q8", .threads = 1 });
    assert_true(gguf_parse(&g, b.p, b.n, &err));
    const GgufTensor *t = gguf_tensor(&g, "blk.1.ffn_gate_tid2eid.weight");
    assert_int_equal(t->dims[1], 288);
    for (uint64_t i = 0; i < t->dims[1]; i++) {
        int32_t id[2];
        memcpy(id, t->data + i * sizeof id, sizeof id);
        assert_in_range(id[0], 0, 3);
        assert_in_range(id[1], 0, 3);
        assert_int_not_equal(id[0], id[1]);
        seen |= 1 << id[0] | 1 << id[1];
    }
    assert_int_equal(seen, 15);
    gguf_release(&g);
    bytes_release(&b);
}

static void alias_shares_bytes_of_like_tensors_only(void **state)
{
    (void)state;
    Bytes plain = { 0 }, shared = { 0 };
    Gguf g;
    ds4_err err;
    make(&plain, "toy", (SynthOptions){ .recipe = "q2", .threads = 1 });
    make(&shared, "toy", (SynthOptions){ .recipe = "q2", .threads = 1, .alias = true });
    assert_true(shared.n * 2 < plain.n);
    assert_true(gguf_parse(&g, shared.p, shared.n, &err));
    const GgufTensor *a = gguf_tensor(&g, "blk.0.ffn_gate_exps.weight");
    const GgufTensor *b = gguf_tensor(&g, "blk.3.ffn_up_exps.weight");
    const GgufTensor *c = gguf_tensor(&g, "blk.3.ffn_down_exps.weight");
    assert_ptr_equal(a->data, b->data);
    assert_ptr_not_equal(a->data, c->data);
    for (size_t i = 0; i < g.n_tensors; i++)
        for (size_t k = 0; k < i; k++)
            if (g.tensor[i].data == g.tensor[k].data)
                assert_true(g.tensor[i].type == g.tensor[k].type &&
                            g.tensor[i].bytes == g.tensor[k].bytes);
    gguf_release(&g);
    bytes_release(&plain);
    bytes_release(&shared);
}

/* ---- vocabularies ---------------------------------------------------------- */

static void the_default_vocabulary_has_bytes_and_controls(void **state)
{
    (void)state;
    Bytes b = { 0 };
    Gguf g;
    ds4_err err;
    make(&b, "mini", (SynthOptions){ .recipe = "q8", .threads = 1 });
    assert_true(gguf_parse(&g, b.p, b.n, &err));
    ds4_vocab *v = vocab_load(&g, &err);
    if (!v)
        fail_msg("%s", err.msg);
    assert_int_equal(vocab_size(v), 288);
    for (int c = 0; c < 256; c++) {
        Str s = vocab_bytes(v, 3 + c);
        assert_int_equal(s.n, 1);
        assert_int_equal((unsigned char)s.p[0], c);
    }
    const Controls *k = vocab_controls(v);
    assert_int_equal(k->bos, 0);
    assert_int_equal(k->eos, 1);
    assert_int_equal(k->user, synth_control(288, "<｜User｜>"));
    assert_int_equal(k->assistant, synth_control(288, "<｜Assistant｜>"));
    assert_int_equal(k->think, synth_control(288, "<think>"));
    assert_int_equal(k->think_end, 278);
    assert_int_equal(k->dsml, 279);
    assert_int_equal(k->reminder, 280);
    assert_int_equal(synth_control(288, "<none>"), -1);
    assert_int_equal(synth_control(271, "<think>"), -1);
    assert_int_equal(synth_control(272, "<think>"), 261);
    vocab_free(v);
    gguf_release(&g);
    bytes_release(&b);
}

/* Flash itself is too large for a test; its header is not. */
static void controls_have_their_published_ids(void **state)
{
    (void)state;
    static const struct {
        int id;
        const char *text;
    } all[] = {
        { 0, "<｜begin▁of▁sentence｜>" },
        { 1, "<｜end▁of▁sentence｜>" },
        { 128803, "<｜User｜>" },
        { 128804, "<｜Assistant｜>" },
        { 128821, "<think>" },
        { 128822, "</think>" },
        { 128825, "｜DSML｜" },
        { 128828, "<｜latest_reminder｜>" },
        { 128829, "<｜action｜>" },
        { 128830, "<｜query｜>" },
        { 128831, "<｜authority｜>" },
        { 128832, "<｜domain｜>" },
        { 128836, "<｜title｜>" },
        { 128844, "<｜extracted_url｜>" },
        { 128845, "<｜read_url｜>" },
    };
    for (size_t i = 0; i < COUNT(all); i++)
        assert_int_equal(synth_control(129280, all[i].text), all[i].id);
}

/* ---- files ------------------------------------------------------------------ */

static char path[64];

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/ds4-synth-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 || close(fd) || unlink(path);
}

static void a_file_holds_the_same_bytes(void **state)
{
    (void)state;
    Bytes mem = { 0 }, file = { 0 };
    Shape s;
    ds4_err err;
    const SynthOptions opt = { .shape = &s, .recipe = "q2", .threads = 2, .seed = 7 };
    assert_true(synth_shape(&s, "mini", 3, &err));
    assert_true(synth_bytes(&mem, &opt, &err));
    assert_true(synth_file(path, &opt, &err));
    assert_true(file_read(&file, path, mem.n + 1, &err));
    assert_int_equal(file.n, mem.n);
    assert_memory_equal(file.p, mem.p, mem.n);
    unlink(path);
    bytes_release(&mem);
    bytes_release(&file);
}

static bool stop_now(void) { return true; }

static void a_canceled_file_is_gone(void **state)
{
    (void)state;
    Shape s;
    ds4_err err;
    char tmp[100];
    assert_true(synth_shape(&s, "toy", 0, &err));
    assert_false(
        synth_file(path, &(SynthOptions){ .shape = &s, .recipe = "q2", .stop = stop_now }, &err));
    assert_int_equal(err.code, DS4_ECANCELED);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(tmp, sizeof tmp, "%s.tmp-%ld", path, (long)getpid());
    assert_int_not_equal(access(tmp, F_OK), 0);
}

/* 2^40 bytes of embedding do not fit any disk of a test machine. */
static void a_file_without_room_is_refused_before_it_is_begun(void **state)
{
    (void)state;
    Shape s;
    ds4_err err;
    assert_true(synth_shape(&s, "mini", 1, &err));
    s.vocab = 1 << 10;
    s.n_experts = 1 << 20;
    s.expert_dim = 1 << 15;
    assert_false(synth_file(path, &(SynthOptions){ .shape = &s, .recipe = "f32" }, &err));
    assert_int_equal(err.code, DS4_EIO);
    assert_non_null(strstr(err.msg, "its disk has"));
    assert_int_not_equal(access(path, F_OK), 0);
}

static void wrong_options_are_named(void **state)
{
    (void)state;
    Shape s;
    Bytes b = { 0 };
    ds4_err err;
    assert_false(synth_shape(&s, "pro", 0, &err));
    assert_non_null(strstr(err.msg, "no shape pro"));
    assert_false(synth_shape(&s, "toy", 1000, &err));
    assert_true(synth_shape(&s, "mini", 0, &err));
    assert_false(synth_bytes(&b, &(SynthOptions){ .shape = &s, .recipe = "q9" }, &err));
    s.hashed[1] = 0;
    s.hashed[2] = 1;
    assert_false(synth_bytes(&b, &(SynthOptions){ .shape = &s, .recipe = "q8" }, &err));
    assert_non_null(strstr(err.msg, "layer 2 is hashed"));
    assert_int_equal(b.n, 0);
    bytes_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_gives_a_model_of_its_shape),
        cmocka_unit_test(threads_do_not_change_a_byte_and_the_seed_does),
        cmocka_unit_test(matrices_keep_the_variance_of_their_input),
        cmocka_unit_test(hash_tables_hold_distinct_experts),
        cmocka_unit_test(alias_shares_bytes_of_like_tensors_only),
        cmocka_unit_test(the_default_vocabulary_has_bytes_and_controls),
        cmocka_unit_test(controls_have_their_published_ids),
        cmocka_unit_test_setup(a_file_holds_the_same_bytes, make_path),
        cmocka_unit_test_setup(a_canceled_file_is_gone, make_path),
        cmocka_unit_test_setup(a_file_without_room_is_refused_before_it_is_begun, make_path),
        cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
