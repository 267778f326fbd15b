/* checkpoint.h - a checkpoint as the official one is (FP8 with block scales, packed FP4, BF16,
 * F32, I64 hash tables, two shards and an index), made for a test of random values. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H
#include "../src/base/rng.h"
#include "../src/quant/fp8.h"
#include "../src/quantize/convert.h"
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* After all of ours: it has a macro called fail. */
#include <cmocka.h>

/* %d: vocabulary, width of an expert. */
static const char config_format[] =
    "{\"model_type\":\"deepseek_v4\",\"_name\":\"made up\",\"vocab_size\":%d,"
    "\"hidden_size\":256,\"moe_intermediate_size\":%d,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":1,\"head_dim\":96,"
    "\"qk_rope_head_dim\":32,\"q_lora_rank\":160,\"o_lora_rank\":64,\"o_groups\":2,"
    "\"n_routed_experts\":3,\"n_shared_experts\":1,\"num_experts_per_tok\":2,"
    "\"scoring_func\":\"sqrtsoftplus\",\"norm_topk_prob\":true,\"routed_scaling_factor\":1.5,"
    "\"swiglu_limit\":10.0,\"sliding_window\":32,\"index_n_heads\":4,\"index_head_dim\":64,"
    "\"index_topk\":16,\"hc_mult\":4,\"hc_sinkhorn_iters\":20,\"hc_eps\":1e-06,"
    "\"rms_norm_eps\":1e-06,\"max_position_embeddings\":65536,\"bos_token_id\":0,"
    "\"eos_token_id\":1,\"tie_word_embeddings\":false,\"compress_rope_theta\":160000.0,"
    "\"rope_theta\":10000.0,\"num_hash_layers\":2,\"compress_ratios\":[0,4,128,4,0],"
    "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":16,\"beta_fast\":32,\"beta_slow\":1,"
    "\"original_max_position_embeddings\":4096}}";

/* The last shard is for holes, or for scales that lie apart, and else not there. */
enum { SHARDS = 3, HOLES = 2, EXPERTS = 3 };

/* What to do otherwise, or wrong. */
typedef struct {
    int vocab, expert_dim; /* 0: 300, 128 */
    bool holes;            /* what is as long as the vocabulary is all zeros and takes no room */
    bool apart;            /* scales are in a shard of their own */
    bool sane;             /* values like those of a trained model, not all codes alike */
    const char *leave_out, *transpose, *nan, *bad_id, *no_scale;
    bool extra;
    int draft; /* blocks of a draft head: 1 as the preview, 3 as 0731 */
} Slip;

typedef struct {
    char dir[64];
    Bytes header[SHARDS], data[SHARDS], weight_map;
    uint64_t rng, hole_bytes;
    Slip slip;
    char config[1600];
} Made;

static inline const char *path_in(const Made *m, const char *name)
{
    static char path[3][400];
    static int turn;
    char *p = path[turn++ % 3];
    snprintf(p, sizeof path[0], "%s/%s", m->dir, name);
    return p;
}

static inline void put_file(const Made *m, const char *name, const char *text, size_t n)
{
    FILE *f = fopen(path_in(m, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* ---- making --------------------------------------------------------------- */

/* A tensor's place in a shard's header and in the index. rows 0: a vector. */
static inline void declare(Made *m, int shard, const char *name, const char *dtype, uint64_t rows,
                           uint64_t cols, uint64_t at, uint64_t n)
{
    Bytes *h = &m->header[shard];
    if (m->slip.transpose && strcmp(name, m->slip.transpose) == 0) {
        uint64_t t = rows;
        rows = cols;
        cols = t;
    }
    bytes_printf(h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", h->n ? "," : "{", name, dtype);
    if (rows)
        bytes_printf(h, "%llu,", (unsigned long long)rows);
    bytes_printf(h, "%llu],\"data_offsets\":[%llu,%llu]}", (unsigned long long)cols,
                 (unsigned long long)at, (unsigned long long)(at + n));
    bytes_printf(&m->weight_map, "%s\"%s\":\"part-%d.safetensors\"", m->weight_map.n ? "," : "",
                 name, shard);
}

/* Enter a tensor and return room for it. */
static inline char *enter(Made *m, int shard, const char *name, const char *dtype, int size,
                          uint64_t rows, uint64_t cols)
{
    Bytes *d = &m->data[shard];
    const size_t n = (size_t)(MAX(rows, 1) * cols) * (size_t)size;
    declare(m, shard, name, dtype, rows, cols, d->n, n);
    char *at = bytes_room(d, n);
    assert_non_null(at);
    d->n += n;
    return at;
}

static inline void put_hole(Made *m, const char *name, const char *dtype, int size, uint64_t rows,
                            uint64_t cols)
{
    const uint64_t n = rows * cols * (uint64_t)size;
    declare(m, HOLES, name, dtype, rows, cols, m->hole_bytes, n);
    m->hole_bytes += n;
}

/* Bell-shaped, of variance 1. */
static inline double made_value(Made *m)
{
    double v = 0;
    for (int i = 0; i < 4; i++)
        v += rng_unit(&m->rng) * 2 - 1;
    return v * 0.8660254;
}

typedef struct {
    double mean, spread;
} Spread;

/* Matrices keep inputs of variance 1 at variance 1. */
static inline Spread spread_of(const TensorSpec *t)
{
    switch (t->kind) {
    case KIND_EMBED: return (Spread){ 0, 1 };
    case KIND_NORM: return (Spread){ 1, 0.1 };
    case KIND_HC_SCALE: return (Spread){ 0.5, 0 };
    case KIND_HC_BASE: return (Spread){ 0, 0.5 };
    case KIND_APE: return (Spread){ 0, 0.2 };
    case KIND_SINKS: return (Spread){ 0, 1 };
    case KIND_ROUTE_BIAS: return (Spread){ 0, 0.05 };
    default: return (Spread){ 0, 1 / sqrt((double)t->dims[0]) };
    }
}

static inline void put_plain(Made *m, int shard, const char *name, bool f32, uint64_t rows,
                             uint64_t cols, const TensorSpec *t)
{
    const bool spoil = m->slip.nan && strcmp(name, m->slip.nan) == 0;
    const uint64_t n = MAX(rows, 1) * cols;
    const Spread d = m->slip.sane && t ? spread_of(t) : (Spread){ 0, 0.5 };
    char *at = enter(m, shard, name, f32 ? "F32" : "BF16", f32 ? 4 : 2, rows, cols);
    for (uint64_t i = 0; i < n; i++) {
        float v = (float)(d.mean + d.spread * made_value(m));
        if (spoil && i == n - 1)
            v = NAN;
        uint32_t bits;
        memcpy(&bits, &v, 4);
        bits = f32 ? bits : bits >> 16;
        memcpy(at + i * (f32 ? 4 : 2), &bits, f32 ? 4 : 2);
    }
}

/* sane: two powers of two by turns from `scale` on. */
static inline void put_scales(Made *m, int shard, const char *weight, uint64_t rows, uint64_t cols,
                              int scale)
{
    char name[100];
    snprintf(name, sizeof name, "%.*s.scale", (int)(strlen(weight) - 7), weight);
    if (m->slip.no_scale && strcmp(name, m->slip.no_scale) == 0)
        return;
    char *at = enter(m, m->slip.apart ? HOLES : shard, name, "F8_E8M0", 1, rows, cols);
    for (uint64_t i = 0; i < rows * cols; i++)
        at[i] = (char)(m->slip.sane ? (uint64_t)scale + i % 2 : 115 + rng_next(&m->rng) % 12);
}

/* The power of two, as E8M0, under which a value of `spread` uses `top` of the codes' reach. */
static inline int scale_for(double spread, double top)
{
    return 127 + (int)lrint(log2(spread / top));
}

/* sane: each code is the value over its scale. */
static inline void put_fp8(Made *m, int shard, const char *name, uint64_t rows, uint64_t cols)
{
    const double spread = 1 / sqrt((double)cols);
    const int scale = scale_for(spread, 100);
    const uint64_t per_row = (cols + 127) / 128;
    char *at = enter(m, shard, name, "F8_E4M3", 1, rows, cols);
    for (uint64_t i = 0; i < rows * cols; i++) {
        uint64_t block = i / cols / 128 * per_row + i % cols / 128;
        double unit = ldexp(1, scale + (int)(block % 2) - 127);
        at[i] = m->slip.sane ? (char)e4m3_encode((float)(spread * made_value(m) / unit))
                             : (char)rng_next(&m->rng);
        if ((at[i] & 0x7f) == 0x7f)
            at[i] = 0x7e;
    }
    put_scales(m, shard, name, (rows + 127) / 128, per_row, scale);
}

static inline void put_fp4(Made *m, int shard, const char *name, uint64_t rows, uint64_t cols)
{
    const double spread = 1 / sqrt((double)cols);
    const int scale = scale_for(spread, 1.5);
    char *at = enter(m, shard, name, "I8", 1, rows, cols / 2);
    for (uint64_t i = 0; i < rows * cols / 2; i++) {
        double unit = ldexp(1, scale + (int)(i / 16 % 2) - 127) / spread;
        at[i] = (char)rng_next(&m->rng);
        if (m->slip.sane)
            at[i] = (char)(e2m1_encode((float)(made_value(m) / unit)) |
                           e2m1_encode((float)(made_value(m) / unit)) << 4);
    }
    put_scales(m, shard, name, rows, cols / 32, scale);
}

static inline void put_ids(Made *m, int shard, const char *name, uint64_t rows, uint64_t cols)
{
    const bool spoil = m->slip.bad_id && strcmp(name, m->slip.bad_id) == 0;
    char *at = enter(m, shard, name, "I64", 8, rows, cols);
    for (uint64_t i = 0; i < rows * cols; i++) {
        int64_t id = (int64_t)((rng_next(&m->rng) % EXPERTS + i) % EXPERTS);
        if (m->slip.sane) /* different ones in a row */
            id = (int64_t)((i / cols + i % cols) % EXPERTS);
        if (spoil && i == 7)
            id = EXPERTS;
        memcpy(at + 8 * i, &id, 8);
    }
}

static inline bool is_fp8(const TensorSpec *t)
{
    return t->kind == KIND_MATRIX && t->layer >= 0 &&
           (strstr(t->official, ".attn.w") || strstr(t->official, "indexer.wq_b") ||
            strstr(t->official, "shared_experts"));
}

static inline bool is_f32(const TensorSpec *t)
{
    return strstr(t->official, "hc_") || t->kind == KIND_APE || t->kind == KIND_SINKS ||
           t->kind == KIND_ROUTE_BIAS;
}

static inline void part_name(char out[96], const TensorSpec *t, int part)
{
    const char *mark = strstr(t->official, "%d");
    int head = mark ? (int)(mark - t->official) : 0;
    if (mark)
        snprintf(out, 96, "%.*s%d%s", head, t->official, part, mark + 2);
    else
        snprintf(out, 96, "%s", t->official);
}

static inline void put_spec(Made *m, const TensorSpec *t)
{
    const int shard = (t->layer + 1) % HOLES;
    const uint64_t rows = t->n_dims > 1 ? t->dims[1] : 0;
    for (int part = 0; part < (t->kind == KIND_EXPERTS ? EXPERTS : 1); part++) {
        char name[96];
        part_name(name, t, part);
        if (m->slip.leave_out && strcmp(name, m->slip.leave_out) == 0)
            continue;
        if (m->slip.holes && rows == (uint64_t)m->slip.vocab)
            put_hole(m, name, t->kind == KIND_ROUTE_HASH ? "I64" : "BF16",
                     t->kind == KIND_ROUTE_HASH ? 8 : 2, rows, t->dims[0]);
        else if (t->kind == KIND_EXPERTS)
            put_fp4(m, shard, name, rows, t->dims[0]);
        else if (t->kind == KIND_ROUTE_HASH)
            put_ids(m, shard, name, rows, t->dims[0]);
        else if (is_fp8(t))
            put_fp8(m, shard, name, rows, t->dims[0]);
        else
            put_plain(m, shard, name, is_f32(t), rows, t->dims[0], t);
    }
}

static inline void write_shards(Made *m)
{
    for (int i = 0; i < SHARDS; i++) {
        char name[32];
        Bytes file = { 0 };
        if (!m->header[i].n)
            continue;
        bytes_byte(&m->header[i], '}');
        bytes_u64(&file, m->header[i].n);
        bytes_put(&file, m->header[i].p, m->header[i].n);
        bytes_put(&file, m->data[i].p, m->data[i].n);
        assert_false(file.failed);
        snprintf(name, sizeof name, "part-%d.safetensors", i);
        put_file(m, name, file.p, file.n);
        if (i == HOLES)
            assert_int_equal(truncate(path_in(m, name), (off_t)(file.n + m->hole_bytes)), 0);
        bytes_release(&file);
    }
    Bytes index = { 0 };
    bytes_str(&index, "{\"weight_map\":{");
    bytes_put(&index, m->weight_map.p, m->weight_map.n);
    bytes_str(&index, "}}");
    put_file(m, "model.safetensors.index.json", index.p, index.n);
    bytes_release(&index);
}

/* Names of the draft heads' tensors, as published. */
static inline void put_draft(Made *m, int blocks)
{
    put_plain(m, 0, "mtp.0.attn_norm.weight", false, 0, 8, NULL);
    put_plain(m, 1, "mtp.0.hc_attn_fn", true, 2, 8, NULL);
    if (blocks == 1) {
        put_fp8(m, 0, "mtp.0.e_proj.weight", 128, 128);
        put_plain(m, 0, "mtp.0.enorm.weight", false, 0, 3, NULL);
        return;
    }
    put_fp8(m, 0, "mtp.0.main_proj.weight", 128, 384);
    put_plain(m, 0, "mtp.0.main_norm.weight", false, 0, 3, NULL);
    put_plain(m, 1, "mtp.2.markov_head.markov_w1.weight", false, 4, 8, NULL);
    put_plain(m, 1, "mtp.2.confidence_head.proj.weight", false, 1, 8, NULL);
}

static inline void make(Made *m, Slip slip)
{
    Config c;
    Layout l;
    Arena a = { 0 };
    ds4_err err;
    *m = (Made){ .dir = "/tmp/ds4-convert-XXXXXX", .rng = 42, .slip = slip };
    assert_non_null(mkdtemp(m->dir));
    snprintf(m->config, sizeof m->config, config_format, slip.vocab ? slip.vocab : 300,
             slip.expert_dim ? slip.expert_dim : 128);
    assert_true(config_parse(&c, str_of(m->config), &err));
    assert_true(layout_make(&l, &c.shape, &a, &err));
    for (size_t i = 0; i < l.n; i++)
        put_spec(m, &l.spec[i]);
    if (slip.extra)
        put_plain(m, 0, "layers.0.attn.surprise", true, 2, 3, NULL);
    if (slip.draft)
        put_draft(m, slip.draft);
    put_file(m, "config.json", m->config, strlen(m->config));
    write_shards(m);
    arena_release(&a);
}

static inline void unmake(Made *m)
{
    DIR *d = opendir(m->dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        unlink(path_in(m, e->d_name));
    closedir(d);
    assert_int_equal(rmdir(m->dir), 0);
    for (int i = 0; i < SHARDS; i++) {
        bytes_release(&m->header[i]);
        bytes_release(&m->data[i]);
    }
    bytes_release(&m->weight_map);
}

#endif
