/* bench_attend.c - what the ops that are not weight matrix products cost.
 *
 *   make build/bench_attend && build/bench_attend [ISA|best [THREADS [ROWS [OP]]]]
 *
 * Calls the CPU's ops directly, with the sizes of the published model, random
 * KV rows and random weights, at chosen positions: so a context of 128K costs
 * no prefill. For each op, kind of layer, position and number of rows: time,
 * products a second as a part of the F32 FMA rate measured in the same run,
 * and bytes read a second. The best of many short repetitions counts, since
 * other programs may want the cores too. ROWS (0: all) and OP leave out others. */
#include "../src/backend/cpu/cpu.h"
#include "../src/base/rng.h"
#include "../src/quantize/synth.h"
#include "machine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_ROWS = 512, CONTEXT = 1 << 17, KINDS = 3 };

static Shape flash; /* the published model's, with a layer of each kind */

static bool make_shape(ds4_err *err)
{
    static const uint8_t ratio[KINDS] = { 0, 4, 128 };

    if (!synth_shape(&flash, "flash", KINDS, err))
        return false;
    flash.context = CONTEXT;
    for (int i = 0; i < KINDS; i++) {
        flash.ratio[i] = ratio[i];
        flash.hashed[i] = false; /* the router chooses */
    }
    return true;
}

static void *room(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) {
        fprintf(stderr, "bench_attend: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return p;
}

typedef struct {
    Backend *be;
    double fma; /* products a second that the machine can do */
    Layer layer[KINDS];
    KvLayer kv[KINDS];
    Buf x, qr, q, o, streams, mix, pick, ids, gates, norm;
    Span span;
    int32_t token[MOST_ROWS];
} Bench;

/* ---- what the ops work on ---------------------------------------------------------- */

static Buf floats_of(uint64_t *rng, size_t n, float scale)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    for (size_t i = 0; p && i < n; i++)
        p[i] = scale * (float)(2 * rng_unit(rng) - 1);
    return (Buf){ p, 0 };
}

static Weight f16_matrix(uint64_t *rng, int rows, int cols)
{
    size_t n = (size_t)rows * (size_t)cols;
    Buf values = floats_of(rng, n, 2 / sqrtf((float)cols)), data = { room(2 * n), 0 };
    quant_format(QUANT_F16)->encode(data.base, values.base, n, NULL);
    free(values.base);
    return (Weight){ .data = data, .type = QUANT_F16, .rows = rows, .cols = cols, .count = 1 };
}

/* n packed rows of random values, the first of them repeated. */
static Buf packed_rows(uint64_t *rng, const KvRowFormat *kv, const IdxRowFormat *idx, int n)
{
    enum { DIFFERENT = 1024 };
    const size_t bytes = (size_t)(kv ? kv->bytes : idx->bytes);
    char *p = room((size_t)n * bytes);
    for (int i = 0; i < n; i++) {
        float x[512];
        if (i >= DIFFERENT) {
            memcpy(p + (size_t)i * bytes, p + (size_t)(i % DIFFERENT) * bytes, bytes);
            continue;
        }
        for (int d = 0; d < 512; d++)
            x[d] = (float)(2 * rng_unit(rng) - 1);
        if (kv)
            kvrow_pack(kv, p + (size_t)i * bytes, x);
        else
            idxrow_pack(idx, p + (size_t)i * bytes, x);
    }
    return (Buf){ p, 0 };
}

static CompWeights compressor(uint64_t *rng, int ratio, int dim)
{
    const int width = shape_comp_width(ratio, dim);
    return (CompWeights){ f16_matrix(rng, width, flash.dim), f16_matrix(rng, width, flash.dim),
                          floats_of(rng, (size_t)ratio * (size_t)width, 1),
                          floats_of(rng, (size_t)dim, 1) };
}

static void make_kv(Bench *b, uint64_t *rng, int kind)
{
    const int ratio = flash.ratio[kind], rows = shape_visible(ratio, CONTEXT - 1);
    const size_t state = (size_t)shape_state_rows(ratio);
    KvLayer *kv = &b->kv[kind];

    *kv = (KvLayer){ .ratio = ratio,
                     .ring_rows = flash.window - 1 + MOST_ROWS,
                     .comp_rows = rows,
                     .n_slots = 1,
                     .row = kvrow_format(flash.head_dim, flash.rope_dim, true),
                     .idx_row = idxrow_format(flash.idx_dim, true) };
    kv->ring = packed_rows(rng, &kv->row, NULL, kv->ring_rows);
    if (!ratio)
        return;
    kv->comp = packed_rows(rng, &kv->row, NULL, rows);
    kv->comp_kv = floats_of(rng, state * 2 * (size_t)flash.head_dim, 1);
    kv->comp_score = floats_of(rng, state * 2 * (size_t)flash.head_dim, 1);
    kv->idx = packed_rows(rng, NULL, &kv->idx_row, rows);
    kv->idx_kv = floats_of(rng, state * 2 * (size_t)flash.idx_dim, 1);
    kv->idx_score = floats_of(rng, state * 2 * (size_t)flash.idx_dim, 1);
}

static void make_layer(Bench *b, uint64_t *rng, int kind)
{
    Layer *l = &b->layer[kind];

    l->index = kind;
    l->sinks = floats_of(rng, (size_t)flash.n_heads, 1);
    l->router = f16_matrix(rng, flash.n_experts, flash.dim);
    l->route_bias = floats_of(rng, (size_t)flash.n_experts, 1);
    l->hc_attn = (HcWeights){ f16_matrix(rng, N_MIX, N_STREAMS * flash.dim), floats_of(rng, 3, 1),
                              floats_of(rng, N_MIX, 1) };
    if (flash.ratio[kind])
        l->comp = compressor(rng, flash.ratio[kind], flash.head_dim);
    if (shape_overlaps(flash.ratio[kind])) {
        l->idx_comp = compressor(rng, flash.ratio[kind], flash.idx_dim);
        l->idx_q = f16_matrix(rng, flash.idx_heads * flash.idx_dim, flash.q_rank);
        l->idx_w = f16_matrix(rng, flash.idx_heads, flash.dim);
    }
}

static void make_inputs(Bench *b, uint64_t *rng)
{
    const size_t rows = MOST_ROWS, heads = (size_t)flash.n_heads * (size_t)flash.head_dim;

    b->x = floats_of(rng, rows * (size_t)flash.dim, 1);
    b->qr = floats_of(rng, rows * (size_t)flash.q_rank, 1);
    b->q = floats_of(rng, rows * heads, 1);
    b->o = floats_of(rng, rows * heads, 1);
    b->streams = floats_of(rng, rows * N_STREAMS * (size_t)flash.dim, 1);
    b->mix = floats_of(rng, rows * (N_STREAMS + N_STREAMS * N_STREAMS), 0.5f);
    b->pick = floats_of(rng, rows * (size_t)flash.idx_topk, 1);
    b->ids = floats_of(rng, rows * (size_t)flash.n_active, 1);
    b->gates = floats_of(rng, rows * (size_t)flash.n_active, 1);
    b->norm = floats_of(rng, (size_t)flash.dim, 1);
}

/* ---- the ops ------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int kinds; /* a bit for each kind of layer */
    void (*call)(Bench *b, const Step *s, int kind);
    double (*macs)(int kind, int pos); /* of one row; NULL: not counted */
    double (*bytes)(int kind, int pos, int rows);
} Op;

#define OPS_OF(b) (b)->be->op
static void attend(Bench *b, const Step *s, int kind)
{
    const Buf none = { 0 };
    OPS_OF(b)->attend(b->be, s, b->o, b->q, &b->kv[kind],
                      shape_overlaps(flash.ratio[kind]) ? b->pick : none, &b->layer[kind]);
}
static void choose(Bench *b, const Step *s, int kind)
{
    OPS_OF(b)->select(b->be, s, b->pick, &b->kv[kind], b->qr, b->x, &b->layer[kind]);
}
static void compress(Bench *b, const Step *s, int kind)
{
    OPS_OF(b)->compress(b->be, s, &b->kv[kind], b->x, &b->layer[kind]);
}
static void idx_row(Bench *b, const Step *s, int kind)
{
    OPS_OF(b)->idx_row(b->be, s, &b->kv[kind], b->x, &b->layer[kind]);
}
static void hc_pre(Bench *b, const Step *s, int kind)
{
    OPS_OF(b)->hc_pre(b->be, s, b->x, b->mix, b->streams, &b->layer[kind].hc_attn, b->norm);
}
static void hc_post(Bench *b, const Step *s, int kind)
{
    (void)kind;
    OPS_OF(b)->hc_post(b->be, s, b->streams, b->o, b->mix);
}
static void route(Bench *b, const Step *s, int kind)
{
    OPS_OF(b)->route(b->be, s, b->ids, b->gates, b->x, &b->layer[kind]);
}

static int rows_seen(int kind, int pos)
{
    int pooled = shape_visible(flash.ratio[kind], pos);
    if (shape_overlaps(flash.ratio[kind]))
        pooled = MIN(pooled, flash.idx_topk);
    return MIN(flash.window, pos + 1) + pooled;
}
static double attend_macs(int kind, int pos)
{
    return 2.0 * rows_seen(kind, pos) * flash.n_heads * flash.head_dim;
}
static double attend_bytes(int kind, int pos, int rows)
{
    (void)rows;
    return (double)rows_seen(kind, pos) * kvrow_format(flash.head_dim, flash.rope_dim, true).bytes;
}
static double select_macs(int kind, int pos)
{
    return (double)shape_visible(flash.ratio[kind], pos) * flash.idx_heads * flash.idx_dim +
           (double)flash.q_rank * flash.idx_heads * flash.idx_dim;
}
static double select_bytes(int kind, int pos, int rows)
{
    (void)rows;
    return (double)shape_visible(flash.ratio[kind], pos) * 68 +
           2.0 * flash.q_rank * flash.idx_heads * flash.idx_dim;
}
static double comp_macs(int kind, int pos)
{
    (void)pos;
    return 2.0 * shape_comp_width(flash.ratio[kind], flash.head_dim) * flash.dim;
}
static double idx_macs(int kind, int pos)
{
    return comp_macs(kind, pos) * flash.idx_dim / flash.head_dim;
}
static double comp_bytes(int kind, int pos, int rows)
{
    (void)rows;
    return 2 * comp_macs(kind, pos);
}
static double idx_bytes(int kind, int pos, int rows)
{
    (void)rows;
    return 2 * idx_macs(kind, pos);
}
static double pre_macs(int kind, int pos)
{
    (void)kind, (void)pos;
    return (double)N_MIX * N_STREAMS * flash.dim;
}
static double pre_bytes(int kind, int pos, int rows)
{
    return 2 * pre_macs(kind, pos) + 5.0 * rows * flash.dim * sizeof(float);
}
static double post_bytes(int kind, int pos, int rows)
{
    (void)kind, (void)pos;
    return 9.0 * rows * flash.dim * sizeof(float);
}
static double route_macs(int kind, int pos)
{
    (void)kind, (void)pos;
    return (double)flash.n_experts * flash.dim;
}
static double route_bytes(int kind, int pos, int rows)
{
    (void)rows;
    return 2 * route_macs(kind, pos);
}

static const Op ops[] = {
    { "select", 2, choose, select_macs, select_bytes }, /* first: attend reads its picks */
    { "attend", 7, attend, attend_macs, attend_bytes },
    { "compress", 6, compress, comp_macs, comp_bytes },
    { "idx_row", 2, idx_row, idx_macs, idx_bytes },
    { "hc_pre", 1, hc_pre, pre_macs, pre_bytes },
    { "hc_post", 1, hc_post, NULL, post_bytes },
    { "route", 2, route, route_macs, route_bytes },
};

static bool depends_on_position(const Op *op) { return op->call == choose || op->call == attend; }

/* Seconds, the best of many in about 0.2 s. */
static double best_time(Bench *b, const Op *op, int kind, int pos, int rows)
{
    double least = 1e9;
    ds4_err err;
    int64_t start = clock_ns();

    b->span = (Span){ .pos = pos - rows, .n = rows };
    const Step s = { .n_rows = rows, .n_spans = 1, .span = &b->span, .token = b->token };
    if (!OPS_OF(b)->begin(b->be, &s))
        least = 0;
    for (int i = 0; i < 3 || clock_ns() - start < 200000000; i++) {
        int64_t t = clock_ns();
        op->call(b, &s, kind);
        least = MIN(least, 1e-9 * (double)(clock_ns() - t));
    }
    OPS_OF(b)->end(b->be, &err);
    return least;
}

static void bench_op(Bench *b, const Op *op, int kind, int pos, int rows)
{
    double t = best_time(b, op, kind, pos, rows);
    double macs = op->macs ? op->macs(kind, pos - 1) * rows : 0;
    double moved = op->bytes(kind, pos - 1, rows);

    printf("%-9s %5d %7d %5d %10.1f", op->name, flash.ratio[kind], pos, rows, 1e6 * t);
    if (macs > 0)
        printf(" %8.1f %5.0f%%", 1e-9 * macs / t, b->fma > 0 ? 100 * macs / t / b->fma : 0);
    else
        printf(" %8s %6s", "", "");
    if (rows == 1 || !op->macs)
        printf(" %7.1f", 1e-9 * moved / t);
    printf("\n");
    fflush(stdout);
}

static void bench_all(Bench *b, const char *only, int n_rows)
{
    static const int positions[] = { 2560, 32768, CONTEXT }, many[] = { 1, 64, MOST_ROWS };

    printf("%-9s %5s %7s %5s %10s %8s %6s %7s\n", "op", "ratio", "context", "rows", "us", "GMAC/s",
           "of FMA", "GB/s");
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t r = 0; r < COUNT(many); r++) {
            if (n_rows && n_rows != many[r])
                continue;
            for (size_t p = 0; p < COUNT(positions); p++) {
                for (size_t i = 0; i < COUNT(ops); i++) {
                    bool once = !depends_on_position(&ops[i]) || flash.ratio[kind] == 0;
                    if (!(ops[i].kinds >> kind & 1) || (once && p > 0))
                        continue;
                    if (ops[i].call == choose || !only || strcmp(only, ops[i].name) == 0)
                        bench_op(b, &ops[i], kind, positions[p], many[r]);
                }
            }
        }
    }
}

/* The limits, by a pool of their own that is gone before the ops run. */
static bool measure(Bench *b, const BackendOptions *opt, ds4_err *err)
{
    const char *f32, *int8;
    Pool *p = pool_new(opt->threads, err);

    if (!p)
        return false;
    b->fma = measure_macs(p, MAC_F32, opt->isa, 0.5, &f32).best;
    const double most = measure_macs(p, MAC_INT8, opt->isa, 0.5, &int8).best;
    printf("%s: F32 %.1f GMAC/s (%s), int8 %.1f GMAC/s (%s)\n", b->be->name, 1e-9 * b->fma,
           f32 ? f32 : "none", 1e-9 * most, int8 ? int8 : "none");
    pool_free(p);
    return true;
}

int main(int argc, char **argv)
{
    static Bench b;
    ds4_err err = { 0 };
    uint64_t rng = 1;
    const BackendOptions opt = { .isa = argc > 1 && strcmp(argv[1], "best") ? argv[1] : NULL,
                                 .threads = argc > 2 ? atoi(argv[2]) : 0,
                                 .max_rows = MOST_ROWS,
                                 .max_out = 1,
                                 .max_context = CONTEXT };

    if (make_shape(&err))
        b.be = cpu_open(&flash, &opt, &err);
    if (!b.be || !measure(&b, &opt, &err)) {
        fprintf(stderr, "bench_attend: %s\n", err.msg);
        return 1;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        make_kv(&b, &rng, kind);
        make_layer(&b, &rng, kind);
    }
    make_inputs(&b, &rng);
    bench_all(&b, argc > 4 ? argv[4] : NULL, argc > 3 ? atoi(argv[3]) : 0);
    OPS_OF(&b)->close(b.be);
    return 0;
}
