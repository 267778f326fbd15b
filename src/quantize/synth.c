/* synth.c - models of random weights. */
#include "synth.h"
#include "../base/pool.h"
#include "../base/rng.h"
#include "config.h"
#include "fill.h"
#include "sink.h"
#include "tokenizer.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- shapes ------------------------------------------------------------------ */

static const Shape flash = {
    .n_layers = 43,
    .dim = 4096,
    .vocab = 129280,
    .context = 1048576,
    .n_heads = 64,
    .head_dim = 512,
    .rope_dim = 64,
    .q_rank = 1024,
    .o_rank = 1024,
    .o_groups = 8,
    .window = 128,
    .idx_heads = 64,
    .idx_dim = 128,
    .idx_topk = 512,
    .n_experts = 256,
    .n_active = 6,
    .expert_dim = 2048,
    .shared_dim = 2048,
    .sinkhorn_iters = 20,
    .norm_eps = 1e-6f,
    .hc_eps = 1e-6f,
    .route_scale = 1.5f,
    .rope_theta = 10000,
    .comp_theta = 160000,
    .yarn_factor = 16,
    .yarn_beta_fast = 32,
    .yarn_beta_slow = 1,
    .yarn_context = 65536,
    .rounding = true,
};

/* What a toy has in common with Flash is copied from it. */
static Shape toy_shape(int dim, int expert_dim, int q_rank)
{
    Shape s = flash;
    s.n_layers = 4;
    s.dim = dim;
    s.vocab = 288;
    s.context = 65536;
    s.n_heads = 4;
    s.head_dim = 80;
    s.rope_dim = 16;
    s.q_rank = q_rank;
    s.o_rank = 32;
    s.o_groups = 2;
    s.window = 16;
    s.idx_heads = 2;
    s.idx_dim = 32;
    s.idx_topk = 8;
    s.n_experts = 4;
    s.n_active = 2;
    s.expert_dim = s.shared_dim = expert_dim;
    s.yarn_context = 4096;
    return s;
}

static void set_layers(Shape *s, int plain, int hashed)
{
    for (int i = 0; i < s->n_layers; i++) {
        int even = (i - plain) % 2 == 0;
        s->ratio[i] = (uint8_t)(i < plain ? 0 : even ? 4 : 128);
        s->hashed[i] = i < hashed;
        s->swiglu_limit[i] = 10;
    }
}

bool synth_shape(Shape *s, const char *name, int layers, ds4_err *err)
{
    int plain = 1, hashed = 2;
    if (strcmp(name, "toy") == 0) {
        *s = toy_shape(256, 256, 64);
    } else if (strcmp(name, "mini") == 0) {
        *s = toy_shape(64, 32, 32);
    } else if (strcmp(name, "flash") == 0) {
        *s = flash;
        plain = 2;
        hashed = 3;
    } else {
        return fail(err, DS4_EINVAL, "no shape %.40s: it is one of toy mini flash", name);
    }
    if (layers < 0 || layers > MAX_LAYERS)
        return fail(err, DS4_EINVAL, "%d layers, and at most %d are possible", layers, MAX_LAYERS);
    if (layers)
        s->n_layers = layers;
    set_layers(s, plain, hashed);
    return true;
}

/* ---- the header -------------------------------------------------------------- */

/* What the metadata cannot say. */
static bool check_shape(const Shape *s, ds4_err *err)
{
    bool open = true;
    for (int i = 0; i < s->n_layers; i++) {
        if (s->hashed[i] && !open)
            return fail(err, DS4_EINVAL, "layer %d is hashed and the one before is not", i);
        open = s->hashed[i];
    }
    if (s->n_active > s->n_experts)
        return fail(err, DS4_EINVAL, "%d of %d experts a token", s->n_active, s->n_experts);
    return true;
}

static bool make_header(Plan *p, const SynthOptions *opt, Bytes *header, uint64_t *data,
                        ds4_err *err)
{
    GgufWriter w = { 0 };
    char name[80];
    snprintf(name, sizeof name, "synthetic %s, %d layers, seed %llu", p->recipe->name,
             opt->shape->n_layers, (unsigned long long)opt->seed);
    config_put(&w, opt->shape, str_of(opt->name ? opt->name : name), p->recipe->file_type);
    bool ok = opt->tokenizer ? tokenizer_put_file(&w, opt->tokenizer, opt->shape->vocab, err)
                             : tokenizer_put_default(&w, opt->shape->vocab, err);
    tokenizer_put_ids(&w, 0, 1, 2);
    ok = ok && plan_put(p, &w, opt->alias, err) && gguf_header(&w, header, err);
    *data = w.data_bytes;
    gguf_writer_release(&w);
    return ok;
}

/* ---- the data ---------------------------------------------------------------- */

/* Neighbouring pieces of one tensor, filled by all threads. */
typedef struct {
    Fill fill;
    uint64_t first, n, piece, bytes;
    unsigned char *out;
} Pieces;

static void fill_pieces(void *arg, int ith, int nth)
{
    const Pieces *b = arg;
    for (uint64_t i = (uint64_t)ith; i < b->n; i += (uint64_t)nth) {
        uint64_t at = i * b->piece;
        fill_run(&b->fill, b->first + i, b->out + at, MIN(b->piece, b->bytes - at));
    }
}

enum { BATCH_PIECES = 16 };

typedef struct {
    const SynthOptions *opt;
    Sink sink;
    Pool *pool;
    unsigned char *batch;
    uint64_t done, total;
} Writer;

static bool write_tensor(Writer *w, const PlanTensor *t, uint64_t seed, ds4_err *err)
{
    Pieces b = { .fill = { t, w->opt->shape->n_experts, seed }, .out = w->batch };
    b.piece = fill_piece(&b.fill);
    for (uint64_t at = 0; at < t->bytes; at += b.bytes, b.first += b.n) {
        b.bytes = MIN(BATCH_PIECES * b.piece, t->bytes - at);
        b.n = (b.bytes + b.piece - 1) / b.piece;
        pool_run(w->pool, fill_pieces, &b);
        if (!sink_write(&w->sink, w->batch, (size_t)b.bytes, err))
            return false;
        w->done += b.bytes;
        if (w->opt->progress)
            w->opt->progress(w->opt->user, "writing", w->done, w->total);
        if (w->opt->stop && w->opt->stop())
            return fail(err, DS4_ECANCELED, "canceled");
    }
    return true;
}

static bool writer_init(Writer *w, const Plan *p, ds4_err *err)
{
    uint64_t piece = 1;
    for (size_t i = 0; i < p->n; i++) {
        uint64_t most = fill_piece(&(Fill){ .tensor = &p->tensor[i] });
        piece = MAX(piece, MIN(most, p->tensor[i].bytes));
    }
    w->pool = pool_new(w->opt->threads, err);
    if (!w->pool)
        return false;
    w->batch = malloc((size_t)(BATCH_PIECES * piece));
    return w->batch ||
           fail(err, DS4_ENOMEM, "no memory for pieces of %llu bytes", (unsigned long long)piece);
}

static bool write_model(Writer *w, const Plan *p, const Bytes *header, ds4_err *err)
{
    bool ok = writer_init(w, p, err) && sink_write(&w->sink, header->p, header->n, err);
    for (size_t i = 0; ok && i < p->n; i++) {
        const PlanTensor *t = &p->tensor[i];
        uint64_t seed = w->opt->seed ^ (uint64_t)(i + 1) << 40;
        if (!t->shared)
            ok = sink_pad(&w->sink, header->n + t->offset, err) &&
                 write_tensor(w, t, rng_next(&seed), err);
    }
    pool_free(w->pool);
    free(w->batch);
    return ok;
}

/* Plan, header; then the caller's sink. */
typedef struct {
    Plan plan;
    Bytes header;
    uint64_t data;
} Synth;

static bool synth_begin(Synth *y, const SynthOptions *opt, ds4_err *err)
{
    const Recipe *r = recipe_find(opt->recipe, err);
    *y = (Synth){ 0 };
    return r && check_shape(opt->shape, err) && plan_make(&y->plan, opt->shape, r, NULL, err) &&
           make_header(&y->plan, opt, &y->header, &y->data, err);
}

static void synth_end(Synth *y)
{
    plan_release(&y->plan);
    bytes_release(&y->header);
}

bool synth_file(const char *path, const SynthOptions *opt, ds4_err *err)
{
    Synth y;
    File f = { .fd = -1 };
    Writer w = { .opt = opt, .sink = { .file = &f } };
    bool ok = synth_begin(&y, opt, err) && sink_room(path, y.header.n + y.data, err) &&
              file_create(&f, path, err);
    w.total = y.data;
    ok = ok && write_model(&w, &y.plan, &y.header, err) && file_commit(&f, err);
    file_release(&f);
    synth_end(&y);
    return ok;
}

bool synth_bytes(Bytes *out, const SynthOptions *opt, ds4_err *err)
{
    Synth y;
    Writer w = { .opt = opt, .sink = { .mem = out } };
    bool ok = synth_begin(&y, opt, err);
    w.total = y.data;
    ok = ok && write_model(&w, &y.plan, &y.header, err);
    synth_end(&y);
    return ok;
}

int synth_control(int vocab, const char *text) { return tokenizer_default_id(vocab, str_of(text)); }
