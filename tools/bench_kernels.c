/* bench_kernels.c - what the microkernels reach of what this machine can do.
 *
 *   make build/bench_kernels && build/bench_kernels [--json] [ISA [THREADS [MIB [FORMAT]]]]
 *
 * In one run it measures the limits (machine.h) and then each kernel, with F32
 * and with int8 activations: a matrix times one row as a part of the read
 * bandwidth, the same from cache, with 2, 4 and 8 rows from memory, and with 64, 256
 * and 512 rows from cache as a part of the F32 or int8 products that the CPU can do.
 * What comes from memory is read in windows of 8 MiB of MIB (default 512), so
 * that a window has left the caches when its turn comes again. The best of many
 * short repetitions counts, since other programs may want the cores too.
 * ISA "-" is the best there is; FORMAT, "Q8_0" say, leaves out the others; --json
 * writes a line for each figure, for tools/bench_cpu. */
#include "../src/backend/cpu/acts.h"
#include "../src/backend/cpu/kernels.h"
#include "../src/quant/blocks.h"
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>

enum { COLS = 4096, MAX_X = 512, MAX_OUT = 512, WINDOW = 8 << 20 };

typedef struct {
    const Kernels *k;
    bool json;
    const char *only;           /* this format; NULL: all there is */
    int type, n_x, n_w, repeat; /* n_w rows a thread */
    unsigned char *w;
    float *x, *out;       /* [MAX_X][COLS]; [threads][MAX_X][MAX_OUT] */
    unsigned char *acts;  /* the same x as rows of acts.h */
    size_t bytes, at;     /* of w; where this pass begins */
    size_t window;        /* WINDOW in whole blocks */
    double read, f32, i8; /* limits, a second; read: measured anew beside each format */
} Job;

/* ---- kernels ---------------------------------------------------------------------- */

/* A thread's rows, `repeat` times over. */
#define GEMM_PART(name, member, rows, ldx) \
    static void name(void *arg, int ith, int nth) \
    { \
        const Job *j = arg; \
        const QuantFormat *f = quant_format(j->type); \
        size_t ldw = (size_t)(COLS / f->block_len) * (size_t)f->block_bytes; \
        const unsigned char *w = j->w + j->at + (size_t)ith * (size_t)j->n_w * ldw; \
        float *out = j->out + (size_t)ith * MAX_X * MAX_OUT; \
        (void)nth; \
        for (int r = 0; r < j->repeat; r++) { \
            for (int i = 0; i < j->n_w; i += MAX_OUT) \
                j->k->member[j->type](out, MAX_OUT, w + (size_t)i * ldw, ldw, \
                                      MIN(MAX_OUT, j->n_w - i), j->rows, ldx, j->n_x, COLS); \
        } \
    }
GEMM_PART(gemm_part, gemm, x, COLS)
GEMM_PART(gemm_i8_part, gemm_i8, acts, act_bytes(COLS))

/* Seconds, the best of many in about 0.3 s. */
static double best(Pool *p, PoolFn fn, Job *j, bool from_memory)
{
    double least = 1e9;
    int64_t start = clock_ns();
    j->at = 0;
    for (int i = 0; i < 5 || clock_ns() - start < 300000000; i++) {
        int64_t t = clock_ns();
        pool_run(p, fn, j);
        least = MIN(least, 1e-9 * (double)(clock_ns() - t));
        if (from_memory)
            j->at = j->at + 2 * j->window > j->bytes ? 0 : j->at + j->window;
    }
    j->at = 0;
    return least;
}

/* Scales that are small numbers, so that no product is slow or infinite. */
static void fill(Job *j)
{
    static const struct {
        int type, at[2];
    } half[] = {
        { QUANT_F16, { 0, 0 } },  { QUANT_Q8_0, { 0, 0 } },    { QUANT_Q2_K, { 80, 82 } },
        { QUANT_Q4_K, { 0, 2 } }, { QUANT_IQ2_XXS, { 0, 0 } },
    };
    uint32_t s = 1;
    size_t size = (size_t)quant_format(j->type)->block_bytes;
    for (size_t i = 0; i < j->bytes; i++, s = s * 1664525 + 1013904223)
        j->w[i] = (unsigned char)(s >> 24);
    for (size_t at = 0; at + size <= j->bytes; at += size) {
        for (size_t t = 0; t < COUNT(half); t++) {
            if (half[t].type == j->type)
                j->w[at + (size_t)half[t].at[0] + 1] = j->w[at + (size_t)half[t].at[1] + 1] = 0x2c;
        }
        if (j->type == QUANT_F32 || j->type == QUANT_BF16)
            j->w[at + size - 1] = 0x3f;
        if (j->type == QUANT_MXFP4)
            j->w[at] = 120;
    }
}

/* One figure: rows of x, the work of all threads, and what it took. */
static void print_json(const Job *j, bool i8, const char *from, double bytes, double macs,
                       double seconds)
{
    const double limit = *from == 'm' ? j->read : i8 ? j->i8 : j->f32;
    printf("{\"kernel\":\"%s\",\"acts\":\"%s\",\"rows\":%d,\"from\":\"%s\",\"bytes\":%.0f,"
           "\"macs\":%.0f,\"seconds\":%.9f,\"limit\":%.0f}\n",
           quant_format(j->type)->name, i8 ? "int8" : "f32", j->n_x, from, bytes, macs, seconds,
           limit);
}

static void bench_one_row(Pool *p, Job *j, bool i8)
{
    const QuantFormat *f = quant_format(j->type);
    const PoolFn part = i8 ? gemm_i8_part : gemm_part;
    const int nth = pool_threads(p), rows = j->n_w;
    double weights = (double)rows * COLS * nth, bytes = weights / f->block_len * f->block_bytes;
    j->repeat = 1, j->n_x = 1;
    double one = best(p, part, j, true);
    j->repeat = 50, j->n_w = 16;
    double hot = (double)j->repeat * j->n_w * nth * COLS, cached = best(p, part, j, false);
    j->n_w = rows;
    if (j->json) {
        print_json(j, i8, "memory", bytes, weights, one);
        print_json(j, i8, "cache", hot / f->block_len * f->block_bytes, hot, cached);
    } else {
        printf("%-8s %-5s %7.1f %4.0f%% %9.1f %9.1f", f->name, i8 ? "int8" : "f32",
               1e-9 * bytes / one, 100 * bytes / one / j->read, 1e-9 * weights / one,
               1e-9 * hot / cached);
    }
}

/* n rows of x, few with an eighth of the weight rows from memory: a part of its bandwidth. */
static void bench_rows(Pool *p, Job *j, bool i8, int n, bool few)
{
    const QuantFormat *f = quant_format(j->type);
    const int rows = j->n_w;
    j->repeat = 1, j->n_x = n, j->n_w = few ? rows / 8 : 64;
    const double weights = (double)j->n_w * pool_threads(p) * COLS, macs = weights * n;
    const double bytes = weights / f->block_len * f->block_bytes;
    const double t = best(p, i8 ? gemm_i8_part : gemm_part, j, few);
    j->n_w = rows;
    if (j->json)
        print_json(j, i8, few ? "memory" : "cache", bytes, macs, t);
    else if (few)
        printf(" %6.1f %3.0f%%", 1e-9 * bytes / t, 100 * bytes / t / j->read);
    else
        printf(" %6.1f %3.0f%%", 1e-9 * macs / t, 100 * macs / t / (i8 ? j->i8 : j->f32));
    fflush(stdout);
}

static void bench_many_rows(Pool *p, Job *j, bool i8)
{
    static const int few[] = { 2, 4, 8 }, many[] = { 64, 256, 512 };
    for (size_t i = 0; i < COUNT(few); i++)
        bench_rows(p, j, i8, few[i], true);
    for (size_t i = 0; i < COUNT(many); i++)
        bench_rows(p, j, i8, many[i], false);
    if (!j->json)
        printf("\n");
}

/* Bandwidth changes from minute to minute where others have a part of it. */
static double read_limit(Pool *p, Job *j, double seconds)
{
    ReadBuffer b = { .p = j->w, .bytes = j->bytes, .window = WINDOW };
    return measure_read(p, &b, seconds).best;
}

static void bench_format(Pool *p, Job *j)
{
    const QuantFormat *f = quant_format(j->type);
    const int nth = pool_threads(p);
    fill(j);
    j->n_w = WINDOW / f->block_bytes / (COLS / f->block_len) / nth;
    j->window = (size_t)j->n_w * (size_t)nth * COLS / (size_t)f->block_len * (size_t)f->block_bytes;
    for (int i8 = 0; i8 < 2; i8++) {
        if (i8 && !j->k->gemm_i8[j->type])
            continue;
        j->read = read_limit(p, j, 0.3);
        bench_one_row(p, j, i8);
        bench_many_rows(p, j, i8);
    }
}

/* ---- the others: a thread each on its own data, in cache ------------------------------ */

enum { VECTOR = 4096, ROWS = 128, HEADS = 64, DIM = 512, TIMES = 20 };

#define PART(name, call) \
    static void name(void *arg, int ith, int nth) \
    { \
        Job *j = arg; \
        float *o = j->out + (size_t)ith * MAX_X * MAX_OUT, *x = o + 65536, *y = x + 65536; \
        (void)nth, (void)y; \
        for (int r = 0; r < TIMES; r++) \
            call; \
    }
PART(mix_part, j->k->mix(o, DIM, y, ROWS, x, DIM, HEADS, ROWS, DIM))
PART(score_part, j->k->gemm[QUANT_F32](o, ROWS, x, DIM * 4, ROWS, y, DIM, HEADS, DIM))
PART(index_part, j->k->gemm[QUANT_F32](o, ROWS, x, DIM, ROWS, y, DIM / 4, HEADS, DIM / 4))
PART(sum_sq_part, o[0] = j->k->sum_sq(x, VECTOR))
PART(scale_part, j->k->scale(o, x, 0.5f, y, VECTOR))
PART(exp_part, o[0] = j->k->exp_sum(x, 0.1f, VECTOR))
PART(swiglu_part, j->k->swiglu(o, x, y, 10, 0.5f, VECTOR))
PART(axpy_part, j->k->axpy(o, 0.5f, x, VECTOR))

static void kv_part(void *arg, int ith, int nth)
{
    Job *j = arg;
    KvRowFormat f = kvrow_format(DIM, 64, true);
    float *o = j->out + (size_t)ith * MAX_X * MAX_OUT;
    (void)nth;
    for (int r = 0; r < TIMES; r++) {
        for (int i = 0; i < ROWS; i++)
            j->k->kv_unpack(&f, o + i * DIM, j->w + i * f.bytes);
    }
}

static void idx_part(void *arg, int ith, int nth)
{
    Job *j = arg;
    IdxRowFormat f = idxrow_format(128, true);
    float *o = j->out + (size_t)ith * MAX_X * MAX_OUT;
    (void)nth;
    for (int r = 0; r < TIMES; r++) {
        for (int i = 0; i < ROWS; i++)
            j->k->idx_unpack(&f, o + i * 128, j->w + i * f.bytes);
    }
}

static void bench_others(Pool *p, Job *j)
{
    static const struct {
        const char *name;
        PoolFn fn;
        double n;
        bool macs;
    } others[] = {
        { "mix 64 heads x 128 rows x 512", mix_part, (double)HEADS * ROWS * DIM, true },
        { "scores 64 x 128 x 512", score_part, (double)HEADS * ROWS * DIM, true },
        { "index scores 64 x 128 x 128", index_part, (double)HEADS * ROWS * DIM / 4, true },
        { "sum_sq 4096", sum_sq_part, VECTOR, false },
        { "scale 4096", scale_part, VECTOR, false },
        { "exp_sum 4096", exp_part, VECTOR, false },
        { "swiglu 4096", swiglu_part, VECTOR, false },
        { "axpy 4096", axpy_part, VECTOR, false },
        { "kv_unpack 128 rows of 512", kv_part, (double)ROWS * DIM, false },
        { "idx_unpack 128 rows of 128", idx_part, (double)ROWS * 128, false },
    };
    for (size_t i = 0; i < COUNT(others); i++) {
        for (int n = 0; n < pool_threads(p) * MAX_X * MAX_OUT; n++)
            j->out[n] = (float)(n * 7 % 13) * 0.01f;
        double amount = others[i].n * TIMES * pool_threads(p), t = best(p, others[i].fn, j, false);
        if (j->json) {
            printf("{\"other\":\"%s\",\"%s\":%.0f,\"seconds\":%.9f}\n", others[i].name,
                   others[i].macs ? "macs" : "values", amount, t);
            continue;
        }
        printf("%-30s %8.2f G/s", others[i].name, 1e-9 * amount / t);
        if (others[i].macs)
            printf(" %4.0f%% of FMA", 100 * amount / t / j->f32);
        printf("\n");
    }
}

static void print_limits(const Job *j, int threads, const char *f32, const char *i8)
{
    if (j->json)
        printf("{\"isa\":\"%s\",\"threads\":%d,\"read\":%.0f,\"f32\":%.0f,\"int8\":%.0f}\n",
               j->k->name, threads, j->read, j->f32, j->i8);
    else
        printf("%s, %d threads: read %.1f GB/s, %s %.1f GMAC/s, %s %.1f GMAC/s\n", j->k->name,
               threads, 1e-9 * j->read, f32 ? f32 : "F32:", 1e-9 * j->f32,
               i8 ? i8 : "int8:", 1e-9 * j->i8);
}

static void bench(Pool *p, Job *j)
{
    static const int types[] = { QUANT_F32,  QUANT_F16,  QUANT_BF16,    QUANT_Q8_0,
                                 QUANT_Q2_K, QUANT_Q4_K, QUANT_IQ2_XXS, QUANT_MXFP4 };
    const char *f32, *i8;
    j->read = read_limit(p, j, 0.6);
    j->f32 = measure_macs(p, MAC_F32, j->k->name, 0.3, &f32).best;
    j->i8 = measure_macs(p, MAC_INT8, j->k->name, 0.3, &i8).best;
    print_limits(j, pool_threads(p), f32, i8);
    if (!j->json)
        printf("%-8s %-5s %7s %5s %9s %9s %11s %11s %11s %11s %11s %11s\n", "1 row", "acts", "GB/s",
               "", "Gweight/s", "in cache", "2 rows GB/s", "4 rows", "8 rows", "64, GMAC/s",
               "256 rows", "512 rows");
    for (size_t t = 0; t < COUNT(types); t++) {
        j->type = types[t];
        if (!j->only || strcmp(j->only, quant_format(j->type)->name) == 0)
            bench_format(p, j);
    }
    if (!j->only)
        bench_others(p, j);
}

static bool make_rows(Job *j, int threads)
{
    j->w = aligned_alloc(4096, j->bytes);
    j->x = aligned_alloc(64, sizeof(float) * MAX_X * COLS);
    j->acts = aligned_alloc(ACT_ALIGN, act_bytes(COLS) * MAX_X);
    j->out = aligned_alloc(64, sizeof(float) * MAX_X * MAX_OUT * (size_t)threads);
    if (!j->w || !j->x || !j->acts || !j->out)
        return false;
    for (int i = 0; i < MAX_X * COLS; i++)
        j->x[i] = (float)(i * 7 % 13) - 6;
    for (size_t i = 0; i < MAX_X; i++)
        j->k->act_pack(j->acts + i * act_bytes(COLS), j->x + i * COLS, COLS);
    memset(j->w, 1, j->bytes);
    return true;
}

int main(int argc, char **argv)
{
    const bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    ds4_err err = { 0 };
    argc -= json, argv += json;
    Job j = { .json = json,
              .only = argc > 4 ? argv[4] : NULL,
              .window = WINDOW,
              .bytes = (size_t)(argc > 3 ? MAX(1, atoi(argv[3]) / 8) : 64) * WINDOW };
    Pool *p = pool_new(argc > 2 ? atoi(argv[2]) : 0, &err);
    j.k = p ? kernels_find(argc > 1 && strcmp(argv[1], "-") != 0 ? argv[1] : NULL, &err) : NULL;
    bool ok = j.k && (make_rows(&j, pool_threads(p)) || fail(&err, DS4_ENOMEM, "out of memory"));
    if (ok)
        bench(p, &j);
    else
        fprintf(stderr, "bench_kernels: %s\n", err.msg);
    free(j.w), free(j.x), free(j.acts), free(j.out);
    pool_free(p);
    return !ok;
}
