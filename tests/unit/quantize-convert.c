/* A checkpoint as the official one is, of random codes, and what becomes of it. */
#include "../checkpoint.h"

/* ---- converting -------------------------------------------------------------- */

static Bytes notes;

static void keep_note(void *user, const char *line)
{
    (void)user;
    bytes_printf(&notes, "%s\n", line);
}

static bool convert(const Made *m, const char *recipe, int threads, ds4_err *err)
{
    Convert c;
    const ConvertOptions opt = {
        .in = m->dir, .recipe = recipe, .threads = threads, .note = keep_note
    };
    bytes_clear(&notes);
    bool ok = convert_open(&c, &opt, err);
    if (ok) {
        ok = convert_write(&c, path_in(m, "out.gguf"), err);
        convert_close(&c);
    }
    bytes_byte(&notes, 0);
    return ok;
}

static void converted(const Made *m, const char *recipe, Map *map, Gguf *g)
{
    ds4_err err = { 0 };
    if (!convert(m, recipe, 2, &err) || !map_open(map, path_in(m, "out.gguf"), &err) ||
        !gguf_parse(g, map->p, map->n, &err))
        fail_msg("%s", err.msg);
}

static double e4m3(int c)
{
    int e = c >> 3 & 15, f = c & 7;
    double v = e ? ldexp(1 + f / 8.0, e - 7) : ldexp(f, -9);
    return c & 0x80 ? -v : v;
}

static double e2m1(int c)
{
    static const double v[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };
    return c & 8 ? -v[c & 7] : v[c & 7];
}

static double element(const StTensor *t, const StTensor *scale, uint64_t r, uint64_t c,
                      uint64_t cols)
{
    const unsigned char *p = t->data;
    float f;
    uint32_t bits;
    switch (t->type) {
    case ST_F32: memcpy(&f, p + 4 * (r * cols + c), 4); return (double)f;
    case ST_BF16:
        bits = (uint32_t)p[2 * (r * cols + c) + 1] << 24 | (uint32_t)p[2 * (r * cols + c)] << 16;
        memcpy(&f, &bits, 4);
        return (double)f;
    case ST_F8_E4M3:
        return e4m3(p[r * cols + c]) *
               ldexp(1, scale->data[r / 128 * ((cols + 127) / 128) + c / 128] - 127);
    default:
        return e2m1(p[(r * cols + c) / 2] >> 4 * (c % 2) & 15) *
               ldexp(1, scale->data[r * (cols / 32) + c / 32] - 127);
    }
}

/* Every value of a converted tensor against the definition, exactly. */
static void check_values(const Checkpoint *c, const TensorSpec *t, const GgufTensor *g)
{
    const uint64_t cols = t->dims[0], rows = t->dims[1];
    float *x = malloc((size_t)cols * sizeof *x);
    assert_non_null(x);
    for (uint64_t r = 0; r < rows * t->dims[2]; r++) {
        char name[96], scale[96];
        part_name(name, t, (int)(r / rows));
        snprintf(scale, sizeof scale, "%.*s.scale", (int)(strlen(name) - 7), name);
        const StTensor *w = checkpoint_find(c, name), *s = checkpoint_find(c, scale);
        quant_format(g->type)->decode(x, g->data + r * (g->bytes / (rows * t->dims[2])),
                                      (size_t)cols);
        for (uint64_t i = 0; i < cols; i++)
            if ((double)x[i] != element(w, s, r % rows, i, cols))
                fail_msg("%s [%d][%d] is %g, expected %g", t->name, (int)r, (int)i, (double)x[i],
                         element(w, s, r % rows, i, cols));
    }
    free(x);
}

static void check_ids(const Checkpoint *c, const TensorSpec *t, const GgufTensor *g)
{
    const StTensor *w = checkpoint_find(c, t->official);
    assert_int_equal(g->type, QUANT_I32);
    for (uint64_t i = 0; i < w->count; i++) {
        int64_t want;
        int32_t is;
        memcpy(&want, w->data + 8 * i, 8);
        memcpy(&is, g->data + 4 * i, 4);
        assert_int_equal(is, want);
    }
}

/* kind -1: all. */
static void check_all(const Made *m, const char *recipe, int kind)
{
    Map map;
    Gguf g;
    Checkpoint c;
    Config config;
    Layout l;
    Arena a = { 0 };
    ds4_err err;
    converted(m, recipe, &map, &g);
    assert_true(checkpoint_open(&c, m->dir, &err));
    assert_true(config_read(&config, m->dir, &err));
    assert_true(layout_make(&l, &config.shape, &a, &err));
    assert_int_equal(l.n, g.n_tensors);
    for (size_t i = 0; i < l.n; i++) {
        const TensorSpec *t = &l.spec[i];
        const GgufTensor *is = gguf_tensor(&g, t->name);
        assert_non_null(is);
        assert_int_equal(is->n_dims, t->n_dims);
        for (int d = 0; d < 3; d++)
            assert_int_equal(is->dims[d], t->dims[d]);
        if (kind >= 0 && t->kind != kind)
            continue;
        if (t->kind == KIND_ROUTE_HASH)
            check_ids(&c, t, is);
        else
            check_values(&c, t, is);
    }
    arena_release(&a);
    checkpoint_close(&c);
    gguf_release(&g);
    map_close(&map);
}

static void f32_holds_every_value_exactly(void **state)
{
    (void)state;
    Made m;
    make(&m, (Slip){ 0 });
    check_all(&m, "f32", -1);
    unmake(&m);
}

static void packed_fp4_becomes_mxfp4_without_loss(void **state)
{
    (void)state;
    Made m;
    make(&m, (Slip){ 0 });
    check_all(&m, "mxfp4", KIND_EXPERTS);
    check_all(&m, "mxfp4", KIND_ROUTE_HASH);
    unmake(&m);
}

static void bf16_holds_fp8_and_fp4_exactly(void **state)
{
    (void)state;
    Made m;
    make(&m, (Slip){ 0 });
    check_all(&m, "bf16", KIND_EXPERTS);
    unmake(&m);
}

static void the_metadata_is_the_config(void **state)
{
    (void)state;
    Made m;
    Map map;
    Gguf g;
    Str s;
    int64_t v;
    double f;
    make(&m, (Slip){ 0 });
    converted(&m, "q8", &map, &g);
    assert_true(gguf_str(gguf_kv(&g, "general.name"), &s) && str_eq(s, STR("made up")));
    assert_true(gguf_int(gguf_kv(&g, "deepseek4.attention.output_lora_rank"), &v) && v == 64);
    assert_true(gguf_int(gguf_kv(&g, "deepseek4.hash_layer_count"), &v) && v == 2);
    assert_true(gguf_int_at(gguf_kv(&g, "deepseek4.attention.compress_ratios"), 2, &v) && v == 128);
    assert_true(gguf_float(gguf_kv(&g, "deepseek4.expert_weights_scale"), &f) && f == 1.5);
    assert_true(gguf_int(gguf_kv(&g, "tokenizer.ggml.eos_token_id"), &v) && v == 1);
    assert_null(gguf_kv(&g, "tokenizer.ggml.padding_token_id"));
    assert_int_equal(gguf_kv(&g, "tokenizer.ggml.tokens")->count, 300);
    assert_non_null(strstr(notes.p, "no tokenizer.json"));
    gguf_release(&g);
    map_close(&map);
    unmake(&m);
}

/* The checkpoint's name under `name`, read through the path `in`. */
static void expect_name(const Made *m, const char *in, const char *name, const char *want)
{
    Convert c;
    Map map;
    Gguf g;
    Str s;
    ds4_err err = { 0 };
    const ConvertOptions opt = { .in = in, .recipe = "bf16", .name = name };
    if (!convert_open(&c, &opt, &err) || !convert_write(&c, path_in(m, "out.gguf"), &err) ||
        !map_open(&map, path_in(m, "out.gguf"), &err) || !gguf_parse(&g, map.p, map.n, &err))
        fail_msg("%s", err.msg);
    convert_close(&c);
    assert_true(gguf_str(gguf_kv(&g, "general.name"), &s) && str_eq(s, str_of(want)));
    gguf_release(&g);
    map_close(&map);
}

static void the_name_is_the_users_or_the_directorys(void **state)
{
    (void)state;
    Made m;
    char dots[80], slashes[80], *mark;
    make(&m, (Slip){ 0 });
    assert_non_null(mark = strstr(m.config, "\"_name\""));
    memcpy(mark, "\"_none\"", 7);
    put_file(&m, "config.json", m.config, strlen(m.config));
    snprintf(dots, sizeof dots, "%s/.", m.dir);
    snprintf(slashes, sizeof slashes, "%s//", m.dir);
    const char *last = strrchr(m.dir, '/') + 1;
    expect_name(&m, m.dir, NULL, last);
    expect_name(&m, slashes, NULL, last);
    expect_name(&m, dots, NULL, last);
    static const char name[] =
        "a name of more than sixty-three bytes, which was cut off there once "
        "without a word, as it was";
    expect_name(&m, m.dir, name, name);
    unmake(&m);
}

static void a_tokenizer_file_is_taken(void **state)
{
    (void)state;
    static const char text[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<b>\",\"special\":true},"
        "{\"id\":5,\"content\":\"<think>\",\"special\":false},"
        "{\"id\":6,\"content\":\"<｜User｜>\",\"special\":false}],"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<b>\":0,\"a\":1,\"b\":2,\"ab\":3,\"aab\":4},"
        "\"merges\":[\"a b\",[\"a\",\"ab\"]]}}";
    static const int kinds[8] = { 3, 1, 1, 1, 1, 4, 3, 5 };
    Made m;
    Map map;
    Gguf g;
    Str s;
    int64_t v;
    size_t at = 0;
    make(&m, (Slip){ 0 });
    put_file(&m, "tokenizer.json", text, sizeof text - 1);
    converted(&m, "q8", &map, &g);
    for (int i = 0; i < 8; i++)
        assert_true(gguf_int_at(gguf_kv(&g, "tokenizer.ggml.token_type"), (uint64_t)i, &v) &&
                    v == kinds[i]);
    const GgufKv *merges = gguf_kv(&g, "tokenizer.ggml.merges");
    assert_true(gguf_next_str(merges, &at, &s) && str_eq(s, STR("a b")));
    assert_true(gguf_next_str(merges, &at, &s) && str_eq(s, STR("a ab")));
    assert_false(gguf_next_str(merges, &at, &s));
    gguf_release(&g);
    map_close(&map);

    static const char large[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":300}}}";
    ds4_err err;
    put_file(&m, "tokenizer.json", large, sizeof large - 1);
    assert_false(convert(&m, "q8", 1, &err));
    assert_non_null(strstr(err.msg, "token id 300, and the model has 300"));
    unmake(&m);
}

static void threads_do_not_change_a_byte(void **state)
{
    (void)state;
    static const char *const recipes[] = { "f32", "q8", "mxfp4" };
    Made m;
    ds4_err err;
    make(&m, (Slip){ 0 });
    for (size_t i = 0; i < COUNT(recipes); i++) {
        Bytes one = { 0 }, three = { 0 };
        assert_true(convert(&m, recipes[i], 1, &err));
        assert_true(file_read(&one, path_in(&m, "out.gguf"), 1 << 28, &err));
        assert_true(convert(&m, recipes[i], 3, &err));
        assert_true(file_read(&three, path_in(&m, "out.gguf"), 1 << 28, &err));
        assert_int_equal(one.n, three.n);
        assert_memory_equal(one.p, three.p, one.n);
        bytes_release(&one);
        bytes_release(&three);
    }
    unmake(&m);
}

/* ---- what goes wrong ----------------------------------------------------------- */

static void expect(Slip slip, const char *says, const char *noted)
{
    Made m;
    ds4_err err = { 0 };
    make(&m, slip);
    assert_false(convert(&m, "q8", 2, &err));
    if (!strstr(err.msg, says))
        fail_msg("expected '%s', got '%s'", says, err.msg);
    if (noted && !strstr(notes.p, noted))
        fail_msg("expected the note '%s', got '%s'", noted, notes.p);
    assert_int_not_equal(access(path_in(&m, "out.gguf"), F_OK), 0);
    unmake(&m);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    expect((Slip){ .leave_out = "layers.2.ffn.experts.1.w3.weight" },
           "lacks 1 tensors of the model, first layers.2.ffn.experts.1.w3.weight",
           "missing: layers.2.ffn.experts.1.w3.weight");
    expect((Slip){ .extra = true }, "1 tensors that this model has not",
           "not a tensor of this model: layers.0.attn.surprise");
    expect((Slip){ .transpose = "layers.1.attn.wq_b.weight" },
           "tensor layers.1.attn.wq_b.weight has the dimensions 160 384, expected 384 160", NULL);
    expect((Slip){ .nan = "layers.3.attn.compressor.wkv.weight" },
           "layers.3.attn.compressor.wkv.weight: row 191 has a value that is infinite", NULL);
    expect((Slip){ .bad_id = "layers.1.ffn.gate.tid2eid" },
           "layers.1.ffn.gate.tid2eid: row 3 names an expert outside 0..2", NULL);
    expect((Slip){ .no_scale = "layers.1.attn.wq_a.scale" },
           "tensor layers.1.attn.wq_a.weight is F8_E4M3 and has no scale tensor", NULL);
}

static void draft_tensors_are_left_out(void **state)
{
    (void)state;
    Made m;
    ds4_err err;
    make(&m, (Slip){ .draft = 1 }); /* the preview's block */
    assert_true(convert(&m, "f32", 1, &err));
    assert_non_null(strstr(notes.p, "5 tensors of the draft head"));
    unmake(&m);
    make(&m, (Slip){ .draft = 3 }); /* 0731's */
    assert_true(convert(&m, "f32", 1, &err));
    assert_non_null(strstr(notes.p, "7 tensors of the draft head"));
    unmake(&m);
}

static void fallbacks_are_said_once_for_all_layers(void **state)
{
    (void)state;
    Made m;
    ds4_err err;
    make(&m, (Slip){ 0 });
    assert_true(convert(&m, "q2", 2, &err));
    const char *at = strstr(notes.p, "ffn_down_exps.weight (4 of them): rows of 128 values do not "
                                     "fit Q2_K, written as Q8_0");
    assert_non_null(at);
    assert_null(strstr(at + 1, "ffn_down_exps"));
    unmake(&m);
}

static void wrong_configs_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } all[] = {
        { "\"head_dim\":96", "\"head_dim\":\"96\"", "head_dim must be a number" },
        { "\"head_dim\":96,", "", "head_dim must be a number" },
        { "\"num_hidden_layers\":4", "\"num_hidden_layers\":999", "num_hidden_layers" },
        { "\"num_hidden_layers\":4", "\"num_hidden_layers\":6", "5 compress_ratios for 6 layers" },
        { "[0,4,128,4,0]", "[0,4,1280,4,0]", "compress_ratios[2]" },
        { "deepseek_v4", "deepseek_v5", "model_type is deepseek_v5" },
        { "\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true", "tie_word_embeddings" },
        { "\"o_groups\":2", "\"o_groups\":3", "4 heads in 3 groups" },
        /* times 4,096 groups it would be 2^32 */
        { "\"o_lora_rank\":64", "\"o_lora_rank\":1048576", "o_lora_rank must be a number of 1 to" },
        { "\"num_experts_per_tok\":2", "\"num_experts_per_tok\":4", "4 of 3 experts" },
        { "\"rope_theta\":10000.0", "\"rope_theta\":-1", "rope_theta must be a positive number" },
        { "\"type\":\"yarn\"", "\"type\":\"linear\"", "not of type yarn" },
        { "\"qk_rope_head_dim\":32", "\"qk_rope_head_dim\":96", "96 rotated of 96" },
        { "{\"model_type\"", "[{\"model_type\"", "not JSON" },
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        Bytes b = { 0 };
        Config c;
        ds4_err err = { 0 };
        char config_json[1600];
        snprintf(config_json, sizeof config_json, config_format, 300, 128);
        const char *at = strstr(config_json, all[i].from);
        assert_non_null(at);
        bytes_put(&b, config_json, (size_t)(at - config_json));
        bytes_str(&b, all[i].to);
        bytes_str(&b, at + strlen(all[i].from));
        assert_false(config_parse(&c, bytes_view(&b), &err));
        if (!strstr(err.msg, all[i].says))
            fail_msg("expected '%s', got '%s'", all[i].says, err.msg);
        bytes_release(&b);
    }
}

static int free_notes(void **state)
{
    (void)state;
    bytes_release(&notes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_holds_every_value_exactly),
        cmocka_unit_test(packed_fp4_becomes_mxfp4_without_loss),
        cmocka_unit_test(bf16_holds_fp8_and_fp4_exactly),
        cmocka_unit_test(the_metadata_is_the_config),
        cmocka_unit_test(the_name_is_the_users_or_the_directorys),
        cmocka_unit_test(a_tokenizer_file_is_taken),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(draft_tensors_are_left_out),
        cmocka_unit_test(fallbacks_are_said_once_for_all_layers),
        cmocka_unit_test(wrong_configs_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, free_notes);
}
