/* Shapes and tensor tables: the published files' lists must pass as they are,
 * and what is wrong with a file must be named. No data is needed for either. */
#include "../../src/base/file.h"
#include "../../src/model/model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- a file's header, from a published list and edits to it -------------------- */

typedef struct {
    const char *drop, *reshape, *retype; /* names of tensors to spoil */
    int type;                            /* of retype */
    const char *omit_key, *set_key;
    int64_t set_to;
    int layers;      /* 0: 43 */
    const char *add; /* a tensor */
    bool wide;       /* integers as u64, floats as f64 */
} Edit;

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

static void put_int(GgufWriter *w, const Edit *e, const char *key, int64_t v)
{
    if (is(e->omit_key, key))
        return;
    if (is(e->set_key, key))
        v = e->set_to;
    gguf_put_int(w, key, e->wide ? GGUF_U64 : GGUF_U32, v);
}

static void put_float(GgufWriter *w, const Edit *e, const char *key, float v)
{
    if (is(e->omit_key, key))
        return;
    if (is(e->set_key, key))
        v = (float)e->set_to;
    gguf_put_f32(w, key, v);
}

static const struct {
    const char *key;
    int64_t v;
} ints[] = {
    { "deepseek4.context_length", 1048576 },
    { "deepseek4.embedding_length", 4096 },
    { "deepseek4.vocab_size", 129280 },
    { "deepseek4.attention.head_count", 64 },
    { "deepseek4.attention.head_count_kv", 1 },
    { "deepseek4.attention.key_length", 512 },
    { "deepseek4.attention.value_length", 512 },
    { "deepseek4.rope.dimension_count", 64 },
    { "deepseek4.attention.q_lora_rank", 1024 },
    { "deepseek4.attention.output_lora_rank", 1024 },
    { "deepseek4.attention.output_group_count", 8 },
    { "deepseek4.expert_count", 256 },
    { "deepseek4.expert_used_count", 6 },
    { "deepseek4.expert_feed_forward_length", 2048 },
    { "deepseek4.expert_shared_count", 1 },
    { "deepseek4.hash_layer_count", 3 },
    { "deepseek4.attention.sliding_window", 128 },
    { "deepseek4.attention.indexer.head_count", 64 },
    { "deepseek4.attention.indexer.key_length", 128 },
    { "deepseek4.attention.indexer.top_k", 512 },
    { "deepseek4.rope.scaling.original_context_length", 65536 },
    { "deepseek4.hyper_connection.count", 4 },
    { "deepseek4.hyper_connection.sinkhorn_iterations", 20 },
};

static const struct {
    const char *key;
    float v;
} floats[] = {
    { "deepseek4.expert_weights_scale", 1.5f },
    { "deepseek4.attention.compress_rope_freq_base", 160000 },
    { "deepseek4.rope.freq_base", 10000 },
    { "deepseek4.rope.scaling.factor", 16 },
    { "deepseek4.rope.scaling.yarn_beta_fast", 32 },
    { "deepseek4.rope.scaling.yarn_beta_slow", 1 },
    { "deepseek4.hyper_connection.epsilon", 1e-6f },
    { "deepseek4.attention.layer_norm_rms_epsilon", 1e-6f },
};

static void put_arrays(GgufWriter *w, const Edit *e)
{
    int32_t ratios[44] = { 0 };
    float limits[44];

    for (int i = 2; i < 43; i++)
        ratios[i] = i % 2 ? 128 : 4;
    for (int i = 0; i < 44; i++)
        limits[i] = 10;
    if (!is(e->omit_key, "deepseek4.attention.compress_ratios"))
        gguf_put_array(w, "deepseek4.attention.compress_ratios", GGUF_I32, 44, ratios,
                       sizeof ratios);
    gguf_put_array(w, "deepseek4.swiglu_clamp_exp", GGUF_F32, 44, limits, sizeof limits);
}

static void put_metadata(GgufWriter *w, const Edit *e)
{
    gguf_put_str(w, "general.architecture", STR("deepseek4"));
    put_int(w, e, "deepseek4.block_count", e->layers ? e->layers : 43);
    for (size_t i = 0; i < COUNT(ints); i++)
        put_int(w, e, ints[i].key, ints[i].v);
    for (size_t i = 0; i < COUNT(floats); i++)
        put_float(w, e, floats[i].key, floats[i].v);
    gguf_put_bool(w, "deepseek4.expert_weights_norm", true);
    put_arrays(w, e);
}

static void put_tensor(GgufWriter *w, const Edit *e, char *line)
{
    char name[64], type_name[16];
    unsigned long long d[4] = { 1, 1, 1, 1 };
    int n_dims, type;
    uint64_t dims[4], offset, bytes;
    ds4_err err;
    char dims_text[64];

    assert_int_equal(
        sscanf(line, "%63s %d %63s %15s %d", name, &n_dims, dims_text, type_name, &type), 5);
    assert_int_equal(sscanf(dims_text, "%llu,%llu,%llu", &d[0], &d[1], &d[2]), n_dims);
    if (is(e->drop, name))
        return;
    if (is(e->retype, name))
        type = e->type;
    if (is(e->reshape, name))
        d[0] *= 2;
    for (int i = 0; i < 4; i++)
        dims[i] = d[i];
    if (!gguf_put_tensor(w, str_of(name), type, n_dims, dims, UINT64_MAX, &offset, &bytes, &err))
        fail_msg("%s", err.msg);
}

static void open_list(Gguf *g, Bytes *header, const char *list, const Edit *e)
{
    static const Edit none = { 0 };
    GgufWriter w = { 0 };
    Bytes text = { 0 };
    ds4_err err;

    e = e ? e : &none;
    put_metadata(&w, e);
    assert_true(file_read(&text, list, 1 << 20, &err));
    bytes_byte(&text, '\0');
    for (char *at = strtok(text.p, "\n"); at; at = strtok(NULL, "\n"))
        if (at[0] != '#' && strncmp(at, "name\t", 5))
            put_tensor(&w, e, at);
    if (e->add) {
        char line[128];
        snprintf(line, sizeof line, "%s\t2\t8192,4096\tF16\t1\t0", e->add);
        put_tensor(&w, e, line);
    }
    *header = (Bytes){ 0 };
    assert_true(gguf_header(&w, header, &err));
    if (!gguf_parse_header(g, header->p, header->n, header->n + w.data_bytes, &err))
        fail_msg("%s", err.msg);
    gguf_writer_release(&w);
    bytes_release(&text);
}

/* ---- what passes ------------------------------------------------------------- */

static const struct {
    const char *list;
    uint64_t weights;
    double step_mb;
} published[] = {
    { "tests/data/gguf_tensors_q2.tsv", 86714775900u, 9559.1 },
    { "tests/data/gguf_tensors_q2q4_l37_42.tsv", 97586411868u, 0 },
    { "tests/data/gguf_tensors_q4.tsv", 164628167004u, 11385 },
};

static void the_published_files_pass(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(published); i++) {
        Gguf g;
        Bytes header;
        Shape s;
        ModelBytes bytes;
        ds4_err err;

        open_list(&g, &header, published[i].list, NULL);
        if (!shape_read(&s, &g, &err) || !model_check(&g, &s, &bytes, NULL, &err))
            fail_msg("%s: %s", published[i].list, err.msg);
        assert_int_equal(bytes.weights, published[i].weights);
        if (published[i].step_mb > 0)
            assert_float_equal((float)(bytes.step / 1e6), (float)published[i].step_mb,
                               (float)(published[i].step_mb * 1e-3));
        gguf_release(&g);
        bytes_release(&header);
    }
}

static void flash_has_its_shape(void **state)
{
    Gguf g;
    Bytes header;
    Shape s;
    int count[3] = { 0 };

    (void)state;
    open_list(&g, &header, published[0].list, NULL);
    assert_true(shape_read(&s, &g, NULL));
    assert_int_equal(s.n_layers, 43);
    assert_int_equal(s.shared_dim, 2048);
    assert_int_equal(s.ratio[42], 4);
    assert_true(s.hashed[2] && !s.hashed[3]);
    assert_true(s.rounding);
    for (int i = 0; i < 43; i++)
        count[s.ratio[i] == 0 ? 0 : s.ratio[i] == 4 ? 1 : 2]++;
    assert_int_equal(count[0], 2);
    assert_int_equal(count[1], 21);
    assert_int_equal(count[2], 20);
    gguf_release(&g);
    bytes_release(&header);
}

static void integers_of_any_width_are_read(void **state)
{
    Gguf g;
    Bytes header;
    Shape s;

    (void)state;
    open_list(&g, &header, published[0].list, &(Edit){ .wide = true });
    assert_true(shape_read(&s, &g, NULL));
    assert_int_equal(s.context, 1048576);
    gguf_release(&g);
    bytes_release(&header);
}

/* ---- what does not ------------------------------------------------------------ */

static void assert_shape_fails(const Edit *e, const char *says)
{
    Gguf g;
    Bytes header;
    Shape s;
    ds4_err err = { 0 };

    open_list(&g, &header, published[0].list, e);
    assert_false(shape_read(&s, &g, &err));
    assert_int_equal(err.code, DS4_EFORMAT);
    if (!strstr(err.msg, says))
        fail_msg("'%s' does not say '%s'", err.msg, says);
    gguf_release(&g);
    bytes_release(&header);
}

static void missing_keys_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ints); i++) {
        if (strstr(ints[i].key, "_kv") || strstr(ints[i].key, "value_length") ||
            strstr(ints[i].key, "shared_count") || strstr(ints[i].key, "hash_layer") ||
            strstr(ints[i].key, "connection.count"))
            continue; /* have only one value, or a default */
        assert_shape_fails(&(Edit){ .omit_key = ints[i].key }, ints[i].key);
    }
    for (size_t i = 0; i < COUNT(floats); i++)
        assert_shape_fails(&(Edit){ .omit_key = floats[i].key }, floats[i].key);
    assert_shape_fails(&(Edit){ .omit_key = "deepseek4.attention.compress_ratios" },
                       "compress_ratios is missing");
}

static void impossible_values_are_named(void **state)
{
    static const struct {
        const char *key;
        int64_t v;
        const char *says;
    } bad[] = {
        { "deepseek4.block_count", 0, "0, expected 1 to 128" },
        { "deepseek4.block_count", 129, "129" },
        { "deepseek4.block_count", 45, "44 entries, expected at least 45" },
        { "deepseek4.embedding_length", 4000000000, "4000000000" },
        { "deepseek4.context_length", 16777217, "16777217, expected 1 to 16777216" },
        { "deepseek4.attention.head_count_kv", 2, "is 2, expected 1" },
        { "deepseek4.attention.value_length", 256, "256, expected 512" },
        { "deepseek4.rope.dimension_count", 63, "63 rotated dimensions: must be even" },
        { "deepseek4.rope.dimension_count", 512, "512 rotated dimensions of a head of 512" },
        { "deepseek4.rope.dimension_count", 256, "256 rotated dimensions of an indexer key" },
        { "deepseek4.attention.output_group_count", 7, "64 heads of 512 do not divide into 7" },
        { "deepseek4.attention.head_count", 4096, "heads: 4096 * 512 is more" },
        { "deepseek4.attention.head_count", 0, "0" },
        { "deepseek4.expert_count", 5, "6 experts a token of only 5" },
        { "deepseek4.attention.indexer.key_length", 96, "96" },
        { "deepseek4.attention.indexer.key_length", 16, "16" },
        { "deepseek4.attention.indexer.top_k", 0, "0, expected 1" },
        { "deepseek4.hyper_connection.count", 2, "is 2, expected 4" },
        { "deepseek4.attention.layer_norm_rms_epsilon", 2, "is 2, expected 0 to 1" },
        { "deepseek4.rope.freq_base", 0, "is 0" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_shape_fails(&(Edit){ .set_key = bad[i].key, .set_to = bad[i].v }, bad[i].says);
}

static void other_architectures_are_refused(void **state)
{
    GgufWriter w = { 0 };
    Bytes header = { 0 };
    Gguf g;
    Shape s;
    ds4_err err;

    (void)state;
    gguf_put_str(&w, "general.architecture", STR("llama"));
    assert_true(gguf_header(&w, &header, NULL));
    assert_true(gguf_parse(&g, header.p, header.n, NULL));
    assert_false(shape_read(&s, &g, &err));
    assert_string_equal(err.msg, "the architecture is 'llama', expected 'deepseek4'");
    gguf_release(&g);
    gguf_writer_release(&w);
    bytes_release(&header);
}

static void check_fails(const Edit *e, const char *first, int lines, Bytes *report)
{
    Gguf g;
    Bytes header;
    Shape s;
    ds4_err err = { 0 };
    int n = 0;

    open_list(&g, &header, published[0].list, e);
    assert_true(shape_read(&s, &g, &err));
    assert_false(model_check(&g, &s, NULL, report, &err));
    if (!strstr(err.msg, first))
        fail_msg("'%s' does not say '%s'", err.msg, first);
    for (size_t i = 0; i < report->n; i++)
        n += report->p[i] == '\n';
    assert_int_equal(n, lines);
    gguf_release(&g);
    bytes_release(&header);
}

static void wrong_tensors_are_named(void **state)
{
    Bytes report = { 0 };

    (void)state;
    check_fails(&(Edit){ .drop = "blk.5.attn_kv.weight" }, "tensor blk.5.attn_kv.weight is missing",
                1, &report);
    bytes_clear(&report);
    check_fails(&(Edit){ .reshape = "blk.2.indexer.proj.weight" },
                "blk.2.indexer.proj.weight has dimensions 8192,64,1, expected 4096,64,1", 1,
                &report);
    bytes_clear(&report);
    check_fails(&(Edit){ .retype = "blk.0.attn_norm.weight", .type = QUANT_Q8_0 },
                "blk.0.attn_norm.weight is of type Q8_0 (8), expected F32, F16 or BF16", 1,
                &report);
    bytes_clear(&report);
    check_fails(&(Edit){ .retype = "blk.1.ffn_gate_tid2eid.weight", .type = QUANT_F32 },
                "expected I32", 1, &report);
    bytes_clear(&report);
    check_fails(&(Edit){ .retype = "blk.7.ffn_up_exps.weight", .type = QUANT_Q4_K },
                "blk.7.ffn_gate_exps.weight is of type IQ2_XXS, but ffn_up_exps of the same "
                "layer is Q4_K",
                1, &report);
    bytes_release(&report);
}

static void one_report_has_all_that_is_wrong(void **state)
{
    Bytes report = { 0 };
    const Edit e = { .drop = "output_norm.weight",
                     .reshape = "blk.9.attn_q_a.weight",
                     .retype = "blk.42.attn_sinks.weight",
                     .type = QUANT_I32 };

    (void)state;
    check_fails(&e, "tensor output_norm.weight is missing (and 2 more tensors are wrong)", 3,
                &report);
    bytes_byte(&report, '\0');
    assert_non_null(strstr(report.p, "blk.9.attn_q_a.weight"));
    assert_non_null(strstr(report.p, "blk.42.attn_sinks.weight"));
    bytes_release(&report);
}

static void layers_beyond_the_model_are_not_asked_for(void **state)
{
    Gguf g;
    Bytes header;
    Shape s;

    (void)state;
    open_list(&g, &header, published[0].list, &(Edit){ .layers = 10 });
    assert_true(shape_read(&s, &g, NULL));
    assert_int_equal(s.n_layers, 10);
    assert_true(model_check(&g, &s, NULL, NULL, NULL));
    gguf_release(&g);
    bytes_release(&header);
}

/* llama.cpp appends the draft layer to the others and counts it. */
static void a_draft_layer_at_the_end_is_not_counted(void **state)
{
    Gguf g;
    Bytes header;
    Shape s;

    (void)state;
    open_list(&g, &header, published[0].list,
              &(Edit){ .layers = 44, .add = "blk.43.nextn.eh_proj.weight" });
    assert_true(shape_read(&s, &g, NULL));
    assert_int_equal(s.n_layers, 43);
    assert_true(model_check(&g, &s, NULL, NULL, NULL));
    gguf_release(&g);
    bytes_release(&header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_files_pass),
        cmocka_unit_test(flash_has_its_shape),
        cmocka_unit_test(integers_of_any_width_are_read),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(impossible_values_are_named),
        cmocka_unit_test(other_architectures_are_refused),
        cmocka_unit_test(wrong_tensors_are_named),
        cmocka_unit_test(one_report_has_all_that_is_wrong),
        cmocka_unit_test(layers_beyond_the_model_are_not_asked_for),
        cmocka_unit_test(a_draft_layer_at_the_end_is_not_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
