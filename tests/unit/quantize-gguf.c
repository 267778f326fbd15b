/* GGUF to GGUF, importance, types of one's own, and comparisons. */
#include "../../src/quantize/synth.h"
#include "../checkpoint.h"

static Bytes notes;
static char folder[64];

/* The path of a file in the folder, which stays valid. */
static const char *at(const char *name)
{
    static char path[48][400];
    char wanted[400];
    size_t i = 0;
    snprintf(wanted, sizeof wanted, "%s/%s", folder, name);
    while (path[i][0] && strcmp(path[i], wanted) != 0)
        assert_true(++i < COUNT(path));
    memcpy(path[i], wanted, sizeof wanted);
    return path[i];
}

static void keep_note(void *user, const char *line)
{
    (void)user;
    bytes_printf(&notes, "%s\n", line);
}

static bool run(const ConvertOptions *opt, const char *out, ds4_err *err)
{
    Convert c;
    bytes_clear(&notes);
    bool ok = convert_open(&c, opt, err);
    if (ok) {
        ok = convert_write(&c, out, err);
        convert_close(&c);
    }
    bytes_byte(&notes, 0);
    return ok;
}

static void must(bool ok, const ds4_err *err)
{
    if (!ok)
        fail_msg("%s", err->msg);
}

static void converted(const char *in, const char *recipe, const char *out)
{
    ds4_err err = { 0 };
    const ConvertOptions opt = { .in = in, .recipe = recipe, .threads = 2, .note = keep_note };
    must(run(&opt, out, &err), &err);
}

static void refused(const ConvertOptions *opt, const char *says)
{
    ds4_err err = { 0 };
    assert_false(run(opt, at("out"), &err));
    if (!strstr(err.msg, says))
        fail_msg("expected '%s', got '%s'", says, err.msg);
}

static void synth(const char *recipe, const char *out)
{
    Shape s;
    ds4_err err = { 0 };
    must(synth_shape(&s, "toy", 0, &err), &err);
    must(synth_file(out, &(SynthOptions){ .shape = &s, .recipe = recipe, .threads = 2 }, &err),
         &err);
}

static void same_files(const char *a, const char *b)
{
    Map x, y;
    ds4_err err = { 0 };
    must(map_open(&x, a, &err) && map_open(&y, b, &err), &err);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.p, y.p, x.n);
    map_close(&x);
    map_close(&y);
}

typedef struct {
    Map map;
    Gguf g;
} Opened;

static Opened opened(const char *path)
{
    Opened o;
    ds4_err err = { 0 };
    must(map_open(&o.map, path, &err) && gguf_parse(&o.g, o.map.p, o.map.n, &err), &err);
    return o;
}

static void closed(Opened *o)
{
    gguf_release(&o->g);
    map_close(&o->map);
}

/* ---- GGUF to GGUF ---------------------------------------------------------------- */

static void what_has_its_type_already_is_copied(void **state)
{
    (void)state;
    for (size_t i = 0; recipe_at(i); i++) {
        synth(recipe_at(i)->name, at("a"));
        converted(at("a"), recipe_at(i)->name, at("b"));
        same_files(at("a"), at("b"));
        assert_null(strstr(notes.p, "warning"));
    }
    /* Also where it comes from a checkpoint, with everything in the metadata. */
    Made m;
    make(&m, (Slip){ .expert_dim = 256 });
    converted(m.dir, "q2", at("a"));
    converted(at("a"), "q2", at("b"));
    same_files(at("a"), at("b"));
    unmake(&m);
}

/* Through a format that holds all of the weights it is as if from the checkpoint. */
static void through_f32_nothing_is_lost(void **state)
{
    (void)state;
    static const char *const recipes[] = { "bf16", "q8", "q4", "q2" };
    Made m;
    make(&m, (Slip){ .sane = true, .expert_dim = 256 });
    converted(m.dir, "f32", at("f32"));
    for (size_t i = 0; i < COUNT(recipes); i++) {
        converted(m.dir, recipes[i], at("a"));
        converted(at("f32"), recipes[i], at("b"));
        same_files(at("a"), at("b"));
    }
    unmake(&m);
}

static void what_was_lost_already_is_said(void **state)
{
    (void)state;
    synth("q4", at("a"));
    converted(at("a"), "q2", at("b"));
    assert_non_null(strstr(notes.p, "warning: ffn_gate_exps.weight (4 of them) becomes IQ2_XXS "
                                    "from Q4_K, which has lost something already"));
    assert_non_null(strstr(notes.p, "warning: ffn_down_exps.weight (4 of them) becomes Q2_K"));
    assert_null(strstr(notes.p, "attn_q_a.weight"));
    synth("mxfp4", at("a")); /* as the experts were trained */
    converted(at("a"), "q4", at("b"));
    assert_null(strstr(notes.p, "exps"));
}

static void metadata_is_carried_over(void **state)
{
    (void)state;
    Str s;
    int64_t v;
    ds4_err err = { 0 };
    synth("q8", at("a"));
    const ConvertOptions opt = { .in = at("a"), .recipe = "q4", .name = "renamed" };
    must(run(&opt, at("b"), &err), &err);
    Opened a = opened(at("a")), b = opened(at("b"));
    assert_int_equal(a.g.n_kv, b.g.n_kv);
    for (size_t i = 0; i < a.g.n_kv; i++) {
        char key[256] = { 0 };
        memcpy(key, a.g.kv[i].key.p, a.g.kv[i].key.n);
        const GgufKv *kv = gguf_kv(&b.g, key);
        assert_non_null(kv);
        if (strcmp(key, "general.name") != 0 && strcmp(key, "general.file_type") != 0)
            assert_true(str_eq(kv->value, a.g.kv[i].value) && kv->type == a.g.kv[i].type);
    }
    assert_true(gguf_str(gguf_kv(&b.g, "general.name"), &s) && str_eq(s, STR("renamed")));
    assert_true(gguf_int(gguf_kv(&b.g, "general.file_type"), &v) && v == 15);
    closed(&a);
    closed(&b);
}

/* llama.cpp's files: the draft layer is the last, and counted. */
static void a_draft_layer_is_left_out_and_not_counted(void **state)
{
    (void)state;
    GgufWriter w = { 0 };
    Bytes header = { 0 };
    ds4_err err = { 0 };
    int64_t v;
    synth("f32", at("a"));
    Opened a = opened(at("a"));
    for (size_t i = 0; i < a.g.n_kv; i++) {
        if (str_eq(a.g.kv[i].key, STR("deepseek4.block_count")))
            gguf_put_int(&w, "deepseek4.block_count", GGUF_U32, 5);
        else if (str_eq(a.g.kv[i].key, STR("deepseek4.attention.compress_ratios")))
            gguf_put_array(&w, "deepseek4.attention.compress_ratios", GGUF_I32, 5,
                           (int32_t[]){ 0, 4, 128, 4, 0 }, 20);
        else if (str_eq(a.g.kv[i].key, STR("deepseek4.swiglu_clamp_exp")))
            gguf_put_array(&w, "deepseek4.swiglu_clamp_exp", GGUF_F32, 5,
                           (float[]){ 10, 10, 10, 10, 10 }, 20);
        else
            gguf_put_kv(&w, &a.g.kv[i]);
    }
    uint64_t offset, bytes, last = 0;
    for (size_t i = 0; i < a.g.n_tensors; i++) {
        const GgufTensor *t = &a.g.tensor[i];
        must(gguf_put_tensor(&w, t->name, t->type, t->n_dims, t->dims, UINT64_MAX, &offset, &bytes,
                             &err),
             &err);
        last = t->offset + t->bytes;
    }
    must(gguf_put_tensor(&w, STR("blk.4.nextn.eh_proj.weight"), QUANT_F32, 2, (uint64_t[]){ 8, 2 },
                         UINT64_MAX, &offset, &bytes, &err),
         &err);
    must(gguf_header(&w, &header, &err), &err);
    FILE *f = fopen(at("b"), "wb");
    assert_non_null(f);
    fwrite(header.p, 1, header.n, f);
    fwrite(a.map.p + a.g.data_offset, 1, last, f);
    fseek(f, (long)(header.n + offset), SEEK_SET);
    fwrite((float[16]){ 0 }, 4, 16, f);
    fclose(f);
    gguf_writer_release(&w);
    bytes_release(&header);
    closed(&a);

    converted(at("b"), "f32", at("c"));
    assert_non_null(strstr(notes.p, "1 tensors of the draft head are left out"));
    Opened c = opened(at("c"));
    assert_true(gguf_int(gguf_kv(&c.g, "deepseek4.block_count"), &v) && v == 4);
    assert_null(gguf_tensor(&c.g, "blk.4.nextn.eh_proj.weight"));
    closed(&c);
}

static void spoil(const char *path, const char *name, const void *value, size_t n)
{
    Opened o = opened(path);
    const GgufTensor *t = gguf_tensor(&o.g, name);
    long offset = (long)(o.g.data_offset + t->offset + t->bytes - n);
    closed(&o);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, offset, SEEK_SET);
    fwrite(value, 1, n, f);
    fclose(f);
}

static void a_gguf_that_is_wrong_is_refused(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    Bytes b = { 0 };
    const float nan = NAN;
    const int32_t id = 99;
    ConvertOptions opt = { .in = at("a"), .recipe = "q8" };
    synth("f32", at("a"));
    must(file_read(&b, at("a"), 1 << 28, &err), &err);
    static const struct {
        size_t keep;
        const char *says;
    } cut[] = { { 3, "wants 4 bytes" }, { 1000, "left" }, { 1 << 20, "reach past the end" } };
    for (size_t i = 0; i < COUNT(cut); i++) {
        FILE *f = fopen(at("a"), "wb");
        assert_non_null(f);
        fwrite(b.p, 1, cut[i].keep, f);
        fclose(f);
        refused(&opt, cut[i].says);
    }
    bytes_release(&b);
    synth("f32", at("a"));
    spoil(at("a"), "blk.1.attn_q_a.weight", &nan, 4);
    refused(&opt, "blk.1.attn_q_a.weight: row 63 has a value that is infinite or no number");
    synth("f32", at("a"));
    spoil(at("a"), "blk.2.ffn_up_exps.weight", &nan, 4);
    refused(&opt, "blk.2.ffn_up_exps.weight: row 1023 has a value");
    synth("q2", at("a"));
    spoil(at("a"), "blk.0.ffn_gate_tid2eid.weight", &id, 4);
    refused(&opt, "blk.0.ffn_gate_tid2eid.weight: row 287 names an expert outside 0..3");
    synth("f32", at("a"));
    const float large = 70000;
    spoil(at("a"), "token_embd.weight", &large, 4);
    refused(&opt, "token_embd.weight: row 287 has a value that is infinite, no number or too large "
                  "for F16");
    opt.in = "/nonexistent.gguf";
    refused(&opt, "cannot open");
}

/* ---- types of one's own -------------------------------------------------------------- */

static void patterns_decide_before_the_recipe(void **state)
{
    (void)state;
    TypeRules t = { 0 };
    ds4_err err = { 0 };
    synth("f32", at("a"));
    must(type_rules_add(&t, "blk.2.*_exps.weight=q4_k", &err) &&
             type_rules_add(&t, "*_exps.weight=Q2_K", &err) &&
             type_rules_add(&t, "*indexer*=bf16", &err),
         &err);
    const ConvertOptions opt = { .in = at("a"), .recipe = "q2", .types = &t };
    must(run(&opt, at("b"), &err), &err);
    Opened b = opened(at("b"));
    assert_int_equal(gguf_tensor(&b.g, "blk.2.ffn_up_exps.weight")->type, QUANT_Q4_K);
    assert_int_equal(gguf_tensor(&b.g, "blk.1.ffn_up_exps.weight")->type, QUANT_Q2_K);
    assert_int_equal(gguf_tensor(&b.g, "blk.1.indexer.proj.weight")->type, QUANT_BF16);
    assert_int_equal(gguf_tensor(&b.g, "blk.1.indexer_compressor_norm.weight")->type, QUANT_F32);
    assert_int_equal(gguf_tensor(&b.g, "output.weight")->type, QUANT_Q8_0);
    closed(&b);
}

static void types_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        { "output.weight", "is not PATTERN=TYPE" },
        { "=q8_0", "is not PATTERN=TYPE" },
        { "output.weight=q6_k", "no type q6_k" },
        { "output.weight=i32", "no type i32" },
        { "outptu.weight=f16", "no matrix of the" },
        { "*_norm.weight=f16", "no matrix of the" },
        { "*tid2eid*=f16", "no matrix of the" },
        { "blk.1.ffn_up_exps.weight=f16", "blk.1.ffn_gate_exps.weight would be IQ2_XXS and "
                                          "ffn_up_exps of the same layer F16" },
    };
    synth("f32", at("a"));
    for (size_t i = 0; i < COUNT(bad); i++) {
        TypeRules t = { 0 };
        ds4_err err = { 0 };
        if (type_rules_add(&t, bad[i].text, &err))
            refused(&(ConvertOptions){ .in = at("a"), .recipe = "q2", .types = &t }, bad[i].says);
        else if (!strstr(err.msg, bad[i].says))
            fail_msg("expected '%s', got '%s'", bad[i].says, err.msg);
    }
}

/* ---- importance ------------------------------------------------------------------------ */

enum { DIM = 256, N_EXPERTS = 4 };

/* Each fourth column matters a hundred times as much; expert 2 was never seen. */
static void put_entry(Imatrix *m, const char *name, int experts)
{
    ds4_err err = { 0 };
    ImatrixEntry *e = imatrix_add(m, str_of(name), experts, DIM, &err);
    must(e != NULL, &err);
    for (int k = 0; k < experts; k++) {
        e->counts[k] = k == 2 ? 0 : 10 * (float)(k + 1);
        for (int i = 0; i < DIM; i++)
            e->sums[k * DIM + i] = e->counts[k] * (i % 4 ? 1 : 100) * (1 + (float)(i % 7));
    }
}

static void put_imatrix(const char *path)
{
    static const char *const parts[] = { "gate", "up", "down" };
    Imatrix m = { .chunks = 3 };
    ds4_err err = { 0 };
    char name[64];
    for (int layer = 0; layer < 4; layer++) {
        for (int p = 0; p < 3; p++) {
            if (layer == 3 && p == 2)
                continue;
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", layer, parts[p]);
            put_entry(&m, name, N_EXPERTS);
        }
    }
    must(imatrix_add_dataset(&m, STR("texts"), &err) && imatrix_write(&m, path, &err), &err);
    imatrix_release(&m);
}

typedef struct {
    double rms, weighted;
    char name[64];
} Kept;

static Kept kept[200];
static int n_kept;

static bool keep(void *user, const Comparison *c, ds4_err *err)
{
    (void)user;
    (void)err;
    Kept *k = &kept[n_kept++];
    *k = (Kept){ c->rms, c->weighted, "" };
    snprintf(k->name, sizeof k->name, "%s", c->name);
    return true;
}

static const Kept *kept_of(const char *name)
{
    for (int i = 0; i < n_kept; i++)
        if (strcmp(kept[i].name, name) == 0)
            return &kept[i];
    fail_msg("%s was not compared", name);
    return NULL;
}

/* The error in the important columns of an expert, relative. */
static double error_of(const char *f32, const char *other, const char *name, int expert)
{
    Opened a = opened(f32), b = opened(other);
    const GgufTensor *x = gguf_tensor(&a.g, name), *y = gguf_tensor(&b.g, name);
    double error = 0, size = 0;
    float u[DIM], v[DIM];
    const uint64_t rows = x->dims[1];
    for (uint64_t r = (uint64_t)expert * rows; r < (uint64_t)(expert + 1) * rows; r++) {
        quant_format(x->type)->decode(u, x->data + r * (x->bytes / rows / N_EXPERTS), DIM);
        quant_format(y->type)->decode(v, y->data + r * (y->bytes / rows / N_EXPERTS), DIM);
        for (int i = 0; i < DIM; i += 4) {
            error += ((double)u[i] - (double)v[i]) * ((double)u[i] - (double)v[i]);
            size += (double)u[i] * (double)u[i];
        }
    }
    closed(&a);
    closed(&b);
    return sqrt(error / size);
}

static void importance_is_of_each_expert(void **state)
{
    (void)state;
    static const char name[] = "blk.1.ffn_up_exps.weight";
    ds4_err err = { 0 };
    int64_t v;
    Str s;
    synth("f32", at("f32"));
    put_imatrix(at("im.dat"));
    put_imatrix(at("im.gguf"));
    converted(at("f32"), "q2", at("plain"));
    ConvertOptions opt = {
        .in = at("f32"), .recipe = "q2", .imatrix = at("im.gguf"), .note = keep_note, .threads = 2
    };
    must(run(&opt, at("with"), &err), &err);
    assert_non_null(strstr(notes.p, "no importance for blk.3.ffn_down_exps.weight"));
    assert_non_null(strstr(notes.p, "blk.1.ffn_up_exps.weight: 1 of 4 experts were never seen, and "
                                    "all their columns count alike: 2"));
    for (int k = 0; k < N_EXPERTS; k++) {
        double plain = error_of(at("f32"), at("plain"), name, k),
               with = error_of(at("f32"), at("with"), name, k);
        if (k == 2)
            assert_true(with >= plain && with <= plain); /* the same bytes */
        else
            assert_true(with < 0.97 * plain);
    }
    Opened o = opened(at("with"));
    assert_true(gguf_str(gguf_kv(&o.g, "quantize.imatrix.file"), &s) && s.n > 0);
    assert_true(gguf_str(gguf_kv(&o.g, "quantize.imatrix.dataset"), &s) && str_eq(s, STR("texts")));
    assert_true(gguf_int(gguf_kv(&o.g, "quantize.imatrix.entries_count"), &v) && v == 11);
    assert_true(gguf_int(gguf_kv(&o.g, "quantize.imatrix.chunks_count"), &v) && v == 3);
    closed(&o);
    /* What the file already says about importance is replaced. */
    opt.in = at("with");
    opt.name = NULL;
    must(run(&opt, at("again"), &err), &err);
    same_files(at("with"), at("again"));
}

/* Means times calls, as the legacy form has them, weigh the same but for rounding. */
static void both_forms_give_the_same_errors(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    double weighted[2];
    for (int form = 0; form < 2; form++) {
        const ConvertOptions opt = { .in = at("f32"),
                                     .recipe = "q2",
                                     .imatrix = at(form ? "im.dat" : "im.gguf"),
                                     .compared = keep };
        n_kept = 0;
        must(run(&opt, NULL, &err), &err); /* only compares */
        weighted[form] = kept_of("blk.0.ffn_down_exps.weight")->weighted;
    }
    assert_float_equal(weighted[0], weighted[1], 1e-4);
}

static void threads_do_not_change_a_byte_with_importance(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    Kept first[200];
    int n = 0;
    for (int threads = 1; threads <= 3; threads++) {
        const ConvertOptions opt = { .in = at("f32"),
                                     .recipe = "q2-q4",
                                     .imatrix = at("im.gguf"),
                                     .compared = keep,
                                     .threads = threads };
        n_kept = 0;
        must(run(&opt, at(threads == 1 ? "one" : "more"), &err), &err);
        if (threads == 1) {
            memcpy(first, kept, sizeof kept);
            n = n_kept;
            continue;
        }
        same_files(at("one"), at("more"));
        assert_int_equal(n, n_kept);
        assert_memory_equal(first, kept, sizeof *kept * (size_t)n);
    }
}

static void comparisons_are_the_errors(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    ConvertOptions opt = {
        .in = at("f32"), .recipe = "q2", .imatrix = at("im.gguf"), .compared = keep, .threads = 2
    };
    n_kept = 0;
    must(run(&opt, at("out"), &err), &err);
    const Kept *k = kept_of("blk.1.ffn_up_exps.weight");
    assert_true(k->rms > 0.3 && k->rms < 0.6 && k->weighted > 0.1 && k->weighted < k->rms);
    assert_true(isnan(kept_of("blk.3.ffn_down_exps.weight")->weighted));
    assert_true(kept_of("output.weight")->rms > 0.004 && kept_of("output.weight")->rms < 0.007);
    assert_true(kept_of("output_norm.weight")->rms == 0);
    assert_true(kept_of("blk.0.ffn_gate_tid2eid.weight")->rms == 0);
    assert_int_equal(access(at("out.part"), F_OK), -1);
}

static void an_imatrix_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    Imatrix m = { 0 };
    ds4_err err = { 0 };
    ConvertOptions opt = { .in = at("f32"), .recipe = "q2", .imatrix = at("bad") };
    assert_non_null(imatrix_add(&m, STR("model.layers.0.weight"), 1, 256, &err));
    must(imatrix_write(&m, at("bad"), &err), &err);
    refused(&opt, "none of its 1 entries is of this model, the first is model.layers.0.weight");
    imatrix_release(&m);

    assert_non_null(imatrix_add(&m, STR("blk.1.ffn_up_exps.weight"), 4, 128, &err));
    must(imatrix_write(&m, at("bad"), &err), &err);
    refused(&opt, "importance of blk.1.ffn_up_exps.weight: 4 x 128 values, expected 4 x 256");
    imatrix_release(&m);

    synth("q2", at("bad"));
    refused(&opt, "a GGUF without importance");
    opt.imatrix = at("gone");
    refused(&opt, "cannot open");
}

/* An entry for each expert, called as the checkpoint calls it. */
static void official_names_are_found(void **state)
{
    (void)state;
    Imatrix m = { 0 };
    ds4_err err = { 0 };
    for (int k = 0; k < N_EXPERTS; k++) {
        char name[64];
        snprintf(name, sizeof name, "layers.1.ffn.experts.%d.w3.weight", k);
        put_entry(&m, name, 1);
    }
    must(imatrix_write(&m, at("official"), &err), &err);
    imatrix_release(&m);
    const ConvertOptions opt = {
        .in = at("f32"), .recipe = "q2", .imatrix = at("official"), .compared = keep
    };
    n_kept = 0;
    must(run(&opt, NULL, &err), &err);
    assert_false(isnan(kept_of("blk.1.ffn_up_exps.weight")->weighted));
    assert_true(isnan(kept_of("blk.1.ffn_gate_exps.weight")->weighted));
}

/* Q8_0 is judged by what matters, too, in the same bytes. */
static void importance_weighs_the_errors_of_every_format(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    ConvertOptions opt = {
        .in = at("f32"), .recipe = "q8", .imatrix = at("im.gguf"), .compared = keep, .threads = 2
    };
    n_kept = 0;
    must(run(&opt, at("judged"), &err), &err);
    const Kept *k = kept_of("blk.1.ffn_up_exps.weight");
    assert_true(k->weighted > 0.003 && k->weighted < 0.007);
    assert_true(k->weighted < k->rms || k->weighted > k->rms); /* it is not the plain one */
    assert_true(isnan(kept_of("blk.3.ffn_down_exps.weight")->weighted));
    assert_true(isnan(kept_of("output.weight")->weighted));
    converted(at("f32"), "q8", at("plain8"));
    same_files(at("judged"), at("plain8")); /* nor does the file claim any importance */
}

static void importance_that_decides_about_nothing_is_refused(void **state)
{
    (void)state;
    ConvertOptions opt = { .in = at("f32"), .recipe = "mxfp4", .imatrix = at("im.gguf") };
    refused(&opt, "importance decides about nothing in recipe mxfp4");
}

/* An entry of another shape, as others collect it, where no encoder asks for it. */
static void other_shapes_of_what_is_not_searched_do_no_harm(void **state)
{
    (void)state;
    Imatrix m = { 0 };
    ds4_err err = { 0 };
    put_entry(&m, "blk.1.ffn_up_exps.weight", N_EXPERTS);
    assert_non_null(imatrix_add(&m, STR("output.weight"), 1, 77, &err));
    must(imatrix_write(&m, at("odd"), &err), &err);
    imatrix_release(&m);
    const ConvertOptions opt = { .in = at("f32"), .recipe = "q2", .imatrix = at("odd") };
    must(run(&opt, at("out"), &err), &err);
}

static void the_input_is_not_written_over(void **state)
{
    (void)state;
    ds4_err err = { 0 };
    ConvertOptions opt = { .in = at("f32"), .recipe = "q2", .imatrix = at("im.gguf") };
    assert_false(run(&opt, at("f32"), &err));
    assert_non_null(strstr(err.msg, "f32 is what is converted: another name"));
    assert_int_equal(symlink("f32", at("link")), 0);
    assert_false(run(&opt, at("link"), &err));
    assert_non_null(strstr(err.msg, "link is what is converted"));
    assert_false(run(&opt, at("im.gguf"), &err));
    assert_non_null(strstr(err.msg, "im.gguf is the importance"));
    assert_int_equal(access(at("f32.part"), F_OK), -1);
    Opened o = opened(at("f32"));
    assert_int_equal(gguf_tensor(&o.g, "output.weight")->type, QUANT_F32);
    closed(&o);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ds4-gguf-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        unlink(at(e->d_name));
    closedir(d);
    bytes_release(&notes);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_its_type_already_is_copied),
        cmocka_unit_test(through_f32_nothing_is_lost),
        cmocka_unit_test(what_was_lost_already_is_said),
        cmocka_unit_test(metadata_is_carried_over),
        cmocka_unit_test(a_draft_layer_is_left_out_and_not_counted),
        cmocka_unit_test(a_gguf_that_is_wrong_is_refused),
        cmocka_unit_test(patterns_decide_before_the_recipe),
        cmocka_unit_test(types_that_cannot_be_are_refused),
        /* These share what the first of them makes. */
        cmocka_unit_test(importance_is_of_each_expert),
        cmocka_unit_test(both_forms_give_the_same_errors),
        cmocka_unit_test(threads_do_not_change_a_byte_with_importance),
        cmocka_unit_test(comparisons_are_the_errors),
        cmocka_unit_test(an_imatrix_that_does_not_fit_is_refused),
        cmocka_unit_test(official_names_are_found),
        cmocka_unit_test(importance_weighs_the_errors_of_every_format),
        cmocka_unit_test(importance_that_decides_about_nothing_is_refused),
        cmocka_unit_test(other_shapes_of_what_is_not_searched_do_no_harm),
        cmocka_unit_test(the_input_is_not_written_over),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
