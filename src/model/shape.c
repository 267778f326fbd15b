/* shape.c - a model's dimensions and constants from a GGUF's metadata.
 *
 * Keys and meanings are those of spec 8.2. Integers of any width are accepted,
 * arrays may be longer than the model has layers (they count draft layers),
 * and what would make two implementations disagree is refused by name. After
 * the checks below the heads, groups and streams of a row are products that no
 * int overflows; bytes, and rows times columns, are counted in 64 bits. */
#include "shape.h"
#include <math.h>
#include <stdio.h>

#define PREFIX "deepseek4."

typedef struct {
    const Gguf *g;
    ds4_err *err;
    bool ok;
} Reader;

static const GgufKv *find(const Reader *r, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, PREFIX "%s", key);
    return gguf_kv(r->g, full);
}

static bool missing(Reader *r, const char *key)
{
    if (r->ok)
        fail(r->err, DS4_EFORMAT, "metadata key " PREFIX "%s is missing", key);
    return r->ok = false;
}

/* An integer of lo..hi; the first failure sticks. */
static int take_int(Reader *r, const char *key, int64_t lo, int64_t hi)
{
    const GgufKv *kv = find(r, key);
    int64_t v = 0;

    if (!kv) {
        missing(r, key);
    } else if (!gguf_int(kv, &v)) {
        if (r->ok)
            fail(r->err, DS4_EFORMAT, PREFIX "%s is no integer but %s", key,
                 gguf_type_name(kv->type));
        r->ok = false;
    } else if (v < lo || v > hi) {
        if (r->ok)
            fail(r->err, DS4_EFORMAT, PREFIX "%s is %lld, expected %lld to %lld", key, (long long)v,
                 (long long)lo, (long long)hi);
        r->ok = false;
    }
    return r->ok ? (int)v : 0;
}

static int maybe_int(Reader *r, const char *key, int64_t lo, int64_t hi, int otherwise)
{
    return find(r, key) ? take_int(r, key, lo, hi) : otherwise;
}

static float check_float(Reader *r, const char *key, double v, double lo, double hi)
{
    if (!(v >= lo && v <= hi)) { /* refuses NaN as well */
        if (r->ok)
            fail(r->err, DS4_EFORMAT, PREFIX "%s is %g, expected %g to %g", key, v, lo, hi);
        r->ok = false;
    }
    return r->ok ? (float)v : 0;
}

static float take_float(Reader *r, const char *key, double lo, double hi)
{
    const GgufKv *kv = find(r, key);
    double v = 0;

    if (!kv) {
        missing(r, key);
        return 0;
    }
    if (!gguf_float(kv, &v)) {
        if (r->ok)
            fail(r->err, DS4_EFORMAT, PREFIX "%s is no number but %s", key,
                 gguf_type_name(kv->type));
        r->ok = false;
        return 0;
    }
    return check_float(r, key, v, lo, hi);
}

/* An array with at least one entry a layer. */
static const GgufKv *take_array(Reader *r, const char *key, int n_layers)
{
    const GgufKv *kv = find(r, key);

    if (!kv) {
        missing(r, key);
        return NULL;
    }
    if (kv->type != GGUF_ARRAY || kv->count < (uint64_t)n_layers) {
        if (r->ok)
            fail(r->err, DS4_EFORMAT, PREFIX "%s has %llu entries, expected at least %d", key,
                 kv->type == GGUF_ARRAY ? (unsigned long long)kv->count : 1ull, n_layers);
        r->ok = false;
    }
    return r->ok ? kv : NULL;
}

static void read_ratios(Reader *r, Shape *s)
{
    const GgufKv *kv = take_array(r, "attention.compress_ratios", s->n_layers);

    for (int i = 0; kv && r->ok && i < s->n_layers; i++) {
        int64_t v = -1;
        if (!gguf_int_at(kv, (uint64_t)i, &v) || v < 0 || v > 255) {
            fail(r->err, DS4_EFORMAT,
                 PREFIX "attention.compress_ratios[%d] is %lld, expected "
                        "0 to 255",
                 i, (long long)v);
            r->ok = false;
        }
        s->ratio[i] = r->ok ? (uint8_t)v : 0;
    }
}

/* The shared expert has a key of its own in some files; all releases after the
 * first clamp it where the others are clamped (spec 4.2), so it is not read. */
static void read_limits(Reader *r, Shape *s)
{
    const char *key = "swiglu_clamp_exp";
    const GgufKv *kv = find(r, key);

    if (kv && kv->type != GGUF_ARRAY) {
        float v = take_float(r, key, 1e-6, 1e30);
        for (int i = 0; i < s->n_layers; i++)
            s->swiglu_limit[i] = v;
        return;
    }
    kv = take_array(r, key, s->n_layers);
    for (int i = 0; kv && r->ok && i < s->n_layers; i++) {
        double v = NAN;
        gguf_float_at(kv, (uint64_t)i, &v);
        s->swiglu_limit[i] = check_float(r, key, v, 1e-6, 1e30);
    }
}

/* llama.cpp appends the draft layer to the model's own and counts it. */
static int count_layers(Reader *r)
{
    int n = take_int(r, "block_count", 1, MAX_LAYERS);

    while (n > 1) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.nextn.eh_proj.weight", n - 1);
        if (!gguf_tensor(r->g, name))
            break;
        n--;
    }
    return n;
}

static int count_vocab(Reader *r)
{
    const GgufKv *tokens = gguf_kv(r->g, "tokenizer.ggml.tokens");

    if (!find(r, "vocab_size") && tokens && tokens->type == GGUF_ARRAY && tokens->count > 0 &&
        tokens->count <= 1 << 24)
        return (int)tokens->count;
    return take_int(r, "vocab_size", 1, 1 << 24);
}

static bool has_indexer(const Shape *s)
{
    for (int i = 0; i < s->n_layers; i++)
        if (shape_overlaps(s->ratio[i]))
            return true;
    return false;
}

static void read_attention(Reader *r, Shape *s)
{
    const int least = has_indexer(s) ? 1 : 0;

    s->n_heads = take_int(r, "attention.head_count", 1, 4096);
    s->head_dim = take_int(r, "attention.key_length", 2, 4096);
    s->rope_dim = take_int(r, "rope.dimension_count", 2, 4096);
    s->q_rank = take_int(r, "attention.q_lora_rank", 1, 1 << 16);
    s->o_rank = take_int(r, "attention.output_lora_rank", 1, 1 << 16);
    s->o_groups = take_int(r, "attention.output_group_count", 1, 4096);
    s->window = take_int(r, "attention.sliding_window", 1, 1 << 16);
    if (least || find(r, "attention.indexer.top_k")) {
        s->idx_heads = take_int(r, "attention.indexer.head_count", least, 4096);
        s->idx_dim = take_int(r, "attention.indexer.key_length", least, 4096);
        s->idx_topk = take_int(r, "attention.indexer.top_k", least, 1 << 16);
    }
}

static void read_experts(Reader *r, Shape *s)
{
    s->n_experts = take_int(r, "expert_count", 1, 4096);
    s->n_active = take_int(r, "expert_used_count", 1, 256);
    s->expert_dim = take_int(r, "expert_feed_forward_length", 1, 1 << 17);
    s->shared_dim = s->expert_dim * maybe_int(r, "expert_shared_count", 1, 64, 1);
    s->route_scale = take_float(r, "expert_weights_scale", 1e-6, 1e6);
    int hashed = maybe_int(r, "hash_layer_count", 0, MAX_LAYERS, 0);
    for (int i = 0; i < s->n_layers && i < hashed; i++)
        s->hashed[i] = 1;
}

static void read_constants(Reader *r, Shape *s)
{
    s->sinkhorn_iters = take_int(r, "hyper_connection.sinkhorn_iterations", 1, 1000);
    s->norm_eps = take_float(r, "attention.layer_norm_rms_epsilon", 0, 1);
    s->hc_eps = take_float(r, "hyper_connection.epsilon", 0, 1);
    s->rope_theta = take_float(r, "rope.freq_base", 1, 1e12);
    s->comp_theta = take_float(r, "attention.compress_rope_freq_base", 1, 1e12);
    s->yarn_factor = take_float(r, "rope.scaling.factor", 1e-3, 1e6);
    s->yarn_beta_fast = take_float(r, "rope.scaling.yarn_beta_fast", 1e-6, 1e6);
    s->yarn_beta_slow = take_float(r, "rope.scaling.yarn_beta_slow", 1e-6, 1e6);
    s->yarn_context = take_int(r, "rope.scaling.original_context_length", 1, 1 << 30);
}

static bool sane(const Shape *s, ds4_err *err);

/* Keys whose other values mean another model. */
static bool expect_int(Reader *r, const char *key, int64_t lo, int64_t hi)
{
    if (find(r, key))
        take_int(r, key, lo, hi);
    return r->ok;
}

static bool expect_variant(Reader *r, const Shape *s)
{
    const GgufKv *norm = find(r, "expert_weights_norm"), *scaling = find(r, "rope.scaling.type");
    bool on = true;
    Str type;

    expect_int(r, "attention.head_count_kv", 1, 1);
    expect_int(r, "attention.value_length", s->head_dim, s->head_dim);
    expect_int(r, "hyper_connection.count", N_STREAMS, N_STREAMS);
    expect_int(r, "expert_group_count", 0, 1);
    expect_int(r, "expert_group_used_count", 0, 1);
    expect_int(r, "expert_gating_func", 4, 4);
    if (r->ok && norm && gguf_bool(norm, &on) && !on)
        r->ok = fail(r->err, DS4_EFORMAT, PREFIX "expert_weights_norm is false, expected true");
    if (r->ok && scaling && gguf_str(scaling, &type) && !str_eq(type, STR("yarn")))
        r->ok = fail(r->err, DS4_EFORMAT, PREFIX "rope.scaling.type is '%.*s', expected 'yarn'",
                     STR_ARG(type));
    return r->ok;
}

static bool right_architecture(const Gguf *g, ds4_err *err)
{
    const GgufKv *kv = gguf_kv(g, "general.architecture");
    Str arch = { 0 };

    if (!kv || !gguf_str(kv, &arch))
        return fail(err, DS4_EFORMAT, "metadata key general.architecture is missing");
    return str_eq(arch, STR("deepseek4")) ||
           fail(err, DS4_EFORMAT, "the architecture is '%.*s', expected 'deepseek4'",
                STR_ARG(arch));
}

bool shape_read(Shape *s, const Gguf *g, ds4_err *err)
{
    Reader r = { .g = g, .err = err, .ok = true };

    *s = (Shape){ .rounding = true };
    if (!right_architecture(g, err))
        return false;
    s->n_layers = count_layers(&r);
    s->dim = take_int(&r, "embedding_length", 1, 1 << 16);
    s->vocab = count_vocab(&r);
    s->context = take_int(&r, "context_length", 1, MAX_CONTEXT);
    read_ratios(&r, s);
    read_attention(&r, s);
    read_experts(&r, s);
    read_limits(&r, s);
    read_constants(&r, s);
    return r.ok && expect_variant(&r, s) && sane(s, err);
}

/* ---- what must hold between dimensions ------------------------------------ */

static bool fits_in(ds4_err *err, const char *what, int a, int b)
{
    const int64_t most = 1 << 20, product = (int64_t)a * b;

    return product <= most ||
           fail(err, DS4_EFORMAT, "%s: %d * %d is more than %lld", what, a, b, (long long)most);
}

static bool sane_attention(const Shape *s, ds4_err *err)
{
    const int heads = s->n_heads * s->head_dim;

    if (s->rope_dim % 2)
        return fail(err, DS4_EFORMAT, "%d rotated dimensions: must be even", s->rope_dim);
    if (s->rope_dim >= s->head_dim)
        return fail(err, DS4_EFORMAT, "%d rotated dimensions of a head of %d", s->rope_dim,
                    s->head_dim);
    if (!fits_in(err, "heads", s->n_heads, s->head_dim) ||
        !fits_in(err, "output groups", s->o_groups, s->o_rank))
        return false;
    if (heads % s->o_groups)
        return fail(err, DS4_EFORMAT, "%d heads of %d do not divide into %d output groups",
                    s->n_heads, s->head_dim, s->o_groups);
    return true;
}

static bool sane_indexer(const Shape *s, ds4_err *err)
{
    if (!has_indexer(s))
        return true;
    if (s->idx_dim & (s->idx_dim - 1) || s->idx_dim % 32)
        return fail(err, DS4_EFORMAT,
                    "indexer key length %d: must be a power of two and at "
                    "least 32",
                    s->idx_dim);
    if (s->rope_dim > s->idx_dim)
        return fail(err, DS4_EFORMAT, "%d rotated dimensions of an indexer key of %d", s->rope_dim,
                    s->idx_dim);
    return fits_in(err, "indexer heads", s->idx_heads, s->idx_dim);
}

static bool sane(const Shape *s, ds4_err *err)
{
    if (s->n_active > s->n_experts)
        return fail(err, DS4_EFORMAT, "%d experts a token of only %d", s->n_active, s->n_experts);
    return sane_attention(s, err) && sane_indexer(s, err);
}
