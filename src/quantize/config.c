/* config.c - config.json to a shape, and a shape to metadata. */
#include "config.h"
#include "../base/file.h"
#include "../json/json.h"
#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>

/* ---- config.json --------------------------------------------------------- */

typedef struct {
    const char *key;
    size_t at;
    uint64_t lo, hi;
} IntKey;
typedef struct {
    const char *key;
    size_t at;
} RealKey;

#define AT(field) offsetof(Shape, field)

/* As far as the engine takes them (model/shape.c): the heads, groups and streams of a row are
 * products of two, as ints. */
static const IntKey ints[] = {
    { "vocab_size", AT(vocab), 1, 1 << 24 },
    { "hidden_size", AT(dim), 1, 1 << 16 },
    { "moe_intermediate_size", AT(expert_dim), 1, 1 << 17 },
    { "num_hidden_layers", AT(n_layers), 1, MAX_LAYERS },
    { "num_attention_heads", AT(n_heads), 1, 1 << 12 },
    { "head_dim", AT(head_dim), 2, 1 << 12 },
    { "qk_rope_head_dim", AT(rope_dim), 2, 1 << 12 },
    { "q_lora_rank", AT(q_rank), 1, 1 << 16 },
    { "o_lora_rank", AT(o_rank), 1, 1 << 16 },
    { "o_groups", AT(o_groups), 1, 1 << 12 },
    { "n_routed_experts", AT(n_experts), 1, 1 << 12 },
    { "num_experts_per_tok", AT(n_active), 1, 1 << 8 },
    { "sliding_window", AT(window), 1, 1 << 16 },
    { "index_n_heads", AT(idx_heads), 1, 1 << 12 },
    { "index_head_dim", AT(idx_dim), 2, 1 << 12 },
    { "index_topk", AT(idx_topk), 1, 1 << 16 },
    { "hc_sinkhorn_iters", AT(sinkhorn_iters), 1, 1000 },
    { "max_position_embeddings", AT(context), 1, MAX_CONTEXT },
};

static const RealKey reals[] = {
    { "rms_norm_eps", AT(norm_eps) },
    { "hc_eps", AT(hc_eps) },
    { "rope_theta", AT(rope_theta) },
    { "compress_rope_theta", AT(comp_theta) },
    { "routed_scaling_factor", AT(route_scale) },
};

static const RealKey yarn_reals[] = {
    { "factor", AT(yarn_factor) },
    { "beta_fast", AT(yarn_beta_fast) },
    { "beta_slow", AT(yarn_beta_slow) },
};

static void *field(Shape *s, size_t at) { return (char *)s + at; }

static bool read_int(struct json_object *o, const IntKey *k, int *out, ds4_err *err)
{
    uint64_t v;
    if (!json_whole(json_member(o, k->key), k->hi, &v) || v < k->lo)
        return fail(err, DS4_EFORMAT, "config.json: %s must be a number of %llu to %llu", k->key,
                    (unsigned long long)k->lo, (unsigned long long)k->hi);
    *out = (int)v;
    return true;
}

static bool read_real(struct json_object *o, const char *key, float *out, ds4_err *err)
{
    struct json_object *m = json_member(o, key);
    double v = json_object_get_double(m);
    if ((!json_object_is_type(m, json_type_double) && !json_object_is_type(m, json_type_int)) ||
        !(v > 0 && v < 1e30))
        return fail(err, DS4_EFORMAT, "config.json: %s must be a positive number", key);
    *out = (float)v;
    return true;
}

/* Options with one value that we know: anything else is another model. */
static bool check_fixed(struct json_object *o, ds4_err *err)
{
    static const struct {
        const char *key, *value;
    } fixed[] = {
        { "model_type", "deepseek_v4" }, { "scoring_func", "sqrtsoftplus" },
        { "norm_topk_prob", "true" },    { "tie_word_embeddings", "false" },
        { "num_key_value_heads", "1" },  { "hc_mult", "4" },
    };
    for (size_t i = 0; i < COUNT(fixed); i++) {
        struct json_object *m = json_member(o, fixed[i].key);
        const char *is = m ? json_object_get_string(m) : NULL;
        if (is && strcmp(is, fixed[i].value) != 0)
            return fail(err, DS4_EFORMAT, "config.json: %s is %.60s, and only %s is supported",
                        fixed[i].key, is, fixed[i].value);
    }
    return true;
}

static bool read_yarn(Shape *s, struct json_object *root, ds4_err *err)
{
    static const IntKey context = { "original_max_position_embeddings", AT(yarn_context), 1,
                                    1 << 30 };
    struct json_object *o = json_member(root, "rope_scaling");
    Str type = json_text(json_member(o, "type"));
    if (!type.p)
        type = json_text(json_member(o, "rope_type"));
    if (!str_eq(type, STR("yarn")))
        return fail(err, DS4_EFORMAT, "config.json: rope_scaling is not of type yarn");
    for (size_t i = 0; i < COUNT(yarn_reals); i++)
        if (!read_real(o, yarn_reals[i].key, field(s, yarn_reals[i].at), err))
            return false;
    return read_int(o, &context, &s->yarn_context, err);
}

/* The list has an entry a layer, and more for the draft blocks. */
static bool read_ratios(Shape *s, struct json_object *root, ds4_err *err)
{
    struct json_object *a = json_member(root, "compress_ratios");
    size_t n = json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
    if (n < (size_t)s->n_layers)
        return fail(err, DS4_EFORMAT, "config.json: %zu compress_ratios for %d layers", n,
                    s->n_layers);
    for (int i = 0; i < s->n_layers; i++) {
        uint64_t v;
        if (!json_whole(json_object_array_get_idx(a, (size_t)i), UINT8_MAX, &v) || v == 1)
            return fail(err, DS4_EFORMAT, "config.json: compress_ratios[%d] is not 0 or 2..255", i);
        s->ratio[i] = (uint8_t)v;
    }
    return true;
}

static bool read_layers(Shape *s, struct json_object *root, ds4_err *err)
{
    static const IntKey hashed = { "num_hash_layers", 0, 0, MAX_LAYERS };
    static const IntKey shared = { "n_shared_experts", 0, 1, 64 };
    int n_hashed = 0, n_shared = 0;
    float limit = 0;
    if (!read_int(root, &hashed, &n_hashed, err) || !read_int(root, &shared, &n_shared, err) ||
        !read_real(root, "swiglu_limit", &limit, err) || !read_ratios(s, root, err))
        return false;
    s->shared_dim = n_shared * s->expert_dim;
    for (int i = 0; i < s->n_layers; i++) {
        s->hashed[i] = i < n_hashed;
        s->swiglu_limit[i] = limit;
    }
    return true;
}

static bool check_shape(const Shape *s, ds4_err *err)
{
    if (s->rope_dim % 2 || s->rope_dim >= s->head_dim || s->rope_dim >= s->idx_dim)
        return fail(err, DS4_EFORMAT, "config.json: %d rotated of %d and %d dimensions",
                    s->rope_dim, s->head_dim, s->idx_dim);
    if (s->n_heads % s->o_groups)
        return fail(err, DS4_EFORMAT, "config.json: %d heads in %d groups", s->n_heads,
                    s->o_groups);
    if (s->n_active > s->n_experts)
        return fail(err, DS4_EFORMAT, "config.json: %d of %d experts a token", s->n_active,
                    s->n_experts);
    return true;
}

static int optional_id(struct json_object *root, const char *key, int vocab)
{
    uint64_t v;
    return json_whole(json_member(root, key), (uint64_t)vocab - 1, &v) ? (int)v : -1;
}

static bool read_shape(Shape *s, struct json_object *root, ds4_err *err)
{
    if (!json_object_is_type(root, json_type_object))
        return fail(err, DS4_EFORMAT, "config.json is no JSON object");
    if (!check_fixed(root, err))
        return false;
    for (size_t i = 0; i < COUNT(ints); i++)
        if (!read_int(root, &ints[i], field(s, ints[i].at), err))
            return false;
    for (size_t i = 0; i < COUNT(reals); i++)
        if (!read_real(root, reals[i].key, field(s, reals[i].at), err))
            return false;
    s->rounding = true;
    return read_yarn(s, root, err) && read_layers(s, root, err) && check_shape(s, err);
}

bool config_parse(Config *c, Str json, ds4_err *err)
{
    *c = (Config){ 0 };
    struct json_object *root = json_parse(json, 16, "config.json", err);
    bool ok = root && read_shape(&c->shape, root, err);
    if (ok) {
        Str name = json_text(json_member(root, "_name"));
        snprintf(c->name, sizeof c->name, "%.*s", STR_ARG(name));
        c->bos = optional_id(root, "bos_token_id", c->shape.vocab);
        c->eos = optional_id(root, "eos_token_id", c->shape.vocab);
        c->pad = optional_id(root, "pad_token_id", c->shape.vocab);
    }
    json_free(root);
    return ok;
}

bool config_read(Config *c, const char *dir, ds4_err *err)
{
    Bytes text = { 0 }, path = { 0 };
    bytes_printf(&path, "%s/config.json", dir);
    bool ok = path.failed ? fail(err, DS4_ENOMEM, "no memory for the path of config.json")
                          : file_read(&text, path.p, 1 << 20, err);
    ok = ok && config_parse(c, bytes_view(&text), err);
    bytes_release(&text);
    bytes_release(&path);
    return ok;
}

/* ---- metadata ------------------------------------------------------------ */

#define K(s) "deepseek4." s

static void put_attention(GgufWriter *w, const Shape *s)
{
    const struct {
        const char *key;
        int value;
    } all[] = {
        { K("attention.head_count"), s->n_heads },
        { K("attention.head_count_kv"), 1 },
        { K("attention.key_length"), s->head_dim },
        { K("attention.value_length"), s->head_dim },
        { K("attention.q_lora_rank"), s->q_rank },
        { K("attention.output_lora_rank"), s->o_rank },
        { K("attention.output_group_count"), s->o_groups },
        { K("attention.sliding_window"), s->window },
        { K("attention.indexer.head_count"), s->idx_heads },
        { K("attention.indexer.key_length"), s->idx_dim },
        { K("attention.indexer.top_k"), s->idx_topk },
        { K("rope.dimension_count"), s->rope_dim },
        { K("rope.scaling.original_context_length"), s->yarn_context },
    };
    for (size_t i = 0; i < COUNT(all); i++)
        gguf_put_int(w, all[i].key, GGUF_U32, all[i].value);
    gguf_put_f32(w, K("attention.layer_norm_rms_epsilon"), s->norm_eps);
    gguf_put_f32(w, K("attention.compress_rope_freq_base"), s->comp_theta);
    gguf_put_f32(w, K("rope.freq_base"), s->rope_theta);
    gguf_put_str(w, K("rope.scaling.type"), STR("yarn"));
    gguf_put_f32(w, K("rope.scaling.factor"), s->yarn_factor);
    gguf_put_f32(w, K("rope.scaling.yarn_beta_fast"), s->yarn_beta_fast);
    gguf_put_f32(w, K("rope.scaling.yarn_beta_slow"), s->yarn_beta_slow);
}

static void put_experts(GgufWriter *w, const Shape *s)
{
    int n_hashed = 0;
    while (n_hashed < s->n_layers && s->hashed[n_hashed])
        n_hashed++;
    gguf_put_int(w, K("expert_count"), GGUF_U32, s->n_experts);
    gguf_put_int(w, K("expert_used_count"), GGUF_U32, s->n_active);
    gguf_put_int(w, K("expert_shared_count"), GGUF_U32, s->shared_dim / s->expert_dim);
    gguf_put_int(w, K("expert_feed_forward_length"), GGUF_U32, s->expert_dim);
    gguf_put_int(w, K("expert_gating_func"), GGUF_U32, 4); /* sqrt(softplus) */
    gguf_put_f32(w, K("expert_weights_scale"), s->route_scale);
    gguf_put_bool(w, K("expert_weights_norm"), true);
    gguf_put_int(w, K("hash_layer_count"), GGUF_U32, n_hashed);
    gguf_put_int(w, K("hyper_connection.count"), GGUF_U32, N_STREAMS);
    gguf_put_int(w, K("hyper_connection.sinkhorn_iterations"), GGUF_U32, s->sinkhorn_iters);
    gguf_put_f32(w, K("hyper_connection.epsilon"), s->hc_eps);
}

/* Arrays with an entry a layer, packed little endian. */
static void put_layers(GgufWriter *w, const Shape *s)
{
    Bytes ratios = { 0 }, limits = { 0 };
    for (int i = 0; i < s->n_layers; i++) {
        bytes_u32(&ratios, s->ratio[i]);
        bytes_f32(&limits, s->swiglu_limit[i]);
    }
    w->kv.failed |= ratios.failed || limits.failed;
    const uint64_t n = (uint64_t)s->n_layers;
    gguf_put_array(w, K("attention.compress_ratios"), GGUF_I32, n, ratios.p, ratios.n);
    gguf_put_array(w, K("swiglu_clamp_exp"), GGUF_F32, n, limits.p, limits.n);
    bytes_release(&ratios);
    bytes_release(&limits);
}

void config_put(GgufWriter *w, const Shape *s, Str name, int file_type)
{
    gguf_put_str(w, "general.architecture", STR("deepseek4"));
    gguf_put_str(w, "general.type", STR("model"));
    gguf_put_str(w, "general.name", name);
    gguf_put_int(w, "general.file_type", GGUF_U32, file_type);
    gguf_put_int(w, "general.quantization_version", GGUF_U32, 2);
    gguf_put_int(w, K("block_count"), GGUF_U32, s->n_layers);
    gguf_put_int(w, K("context_length"), GGUF_U32, s->context);
    gguf_put_int(w, K("embedding_length"), GGUF_U32, s->dim);
    gguf_put_int(w, K("vocab_size"), GGUF_U32, s->vocab);
    put_attention(w, s);
    put_experts(w, s);
    put_layers(w, s);
}
