/* machine.c - bandwidth and arithmetic of this machine.
 *
 * Each instruction runs in chains that depend on nothing but themselves, in
 * enough of them to hide its latency, in registers: nothing is faster than
 * that. A repetition takes some 50 microseconds, so the best of them was
 * disturbed by nobody. */
#include "machine.h"
#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

enum { PAGE = 4096, MOST_STREAMS = 4, MOST_TIMES = 8192 };

/* ---- the best and the middle of many ---------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void (*Between)(void *arg);

/* amount: what one repetition does. */
static Rate repeat(Pool *p, PoolFn fn, void *arg, Between next, double amount, double seconds)
{
    double *took = malloc(sizeof *took * MOST_TIMES);
    const int64_t begin = clock_ns();
    Rate r = { 0 };
    int n = 0;
    while (took && n < MOST_TIMES && (n < 5 || 1e-9 * (double)(clock_ns() - begin) < seconds)) {
        int64_t t = clock_ns();
        pool_run(p, fn, arg);
        took[n++] = 1e-9 * (double)MAX(1, clock_ns() - t);
        if (next)
            next(arg);
    }
    if (n) {
        qsort(took, (size_t)n, sizeof *took, by_value);
        r = (Rate){ amount / took[0], amount / took[n / 2] };
    }
    free(took);
    return r;
}

/* ---- reading ------------------------------------------------------------------------ */

typedef long long I8 __attribute__((vector_size(64), aligned(1)));
typedef long long I4 __attribute__((vector_size(32), aligned(1)));
typedef long long I2 __attribute__((vector_size(16), aligned(1)));

static volatile long long keep; /* so that no read is dropped */

static void thread_part(const ReadBuffer *b, int ith, int nth, size_t *first, size_t *last)
{
    const size_t unit = MOST_STREAMS * PAGE, units = b->window / unit;
    *first = units * (size_t)ith / (size_t)nth * unit;
    *last = units * ((size_t)ith + 1) / (size_t)nth * unit;
}

/* A thread's part in n streams side by side. */
#define READ(name, target, type, n) \
    target static void name(void *arg, int ith, int nth) \
    { \
        const ReadBuffer *b = arg; \
        size_t first, last; \
        thread_part(b, ith, nth, &first, &last); \
        const size_t run = (last - first) / sizeof(type) / (n); \
        const type *p = (const type *)(b->p + b->at + first), *end = p + run; \
        type s = { 0 }; \
        for (; p < end; p++) { \
            for (size_t i = 0; i < (n); i++) \
                s ^= p[i * run]; \
        } \
        keep = s[0]; \
    }
#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f")))
#define AVX2   __attribute__((target("avx2")))
READ(read_64_1, AVX512, I8, 1)
READ(read_64_2, AVX512, I8, 2)
READ(read_64_4, AVX512, I8, 4)
READ(read_32_1, AVX2, I4, 1)
READ(read_32_2, AVX2, I4, 2)
READ(read_32_4, AVX2, I4, 4)
#endif
READ(read_16_1, , I2, 1)
READ(read_16_2, , I2, 2)
READ(read_16_4, , I2, 4)

enum { WAYS = 3 };

static const PoolFn *widest_ways(void)
{
    static const PoolFn plain[WAYS] = { read_16_1, read_16_2, read_16_4 };
#if defined(__x86_64__)
    static const PoolFn avx2[WAYS] = { read_32_1, read_32_2, read_32_4 };
    static const PoolFn avx512[WAYS] = { read_64_1, read_64_2, read_64_4 };
    if (__builtin_cpu_supports("avx512f"))
        return avx512;
    if (__builtin_cpu_supports("avx2"))
        return avx2;
#endif
    return plain;
}

static void next_window(void *arg)
{
    ReadBuffer *b = arg;
    b->at = b->at + 2 * b->window > b->bytes ? 0 : b->at + b->window;
}

static void fill_part(void *arg, int ith, int nth)
{
    const ReadBuffer *b = arg;
    size_t first, last;
    thread_part(b, ith, nth, &first, &last);
    for (size_t at = 0; at < b->bytes; at += b->window)
        memset(b->p + at + first, 1, last - first);
}

bool read_buffer_new(ReadBuffer *b, Pool *p, size_t bytes, size_t window)
{
    *b = (ReadBuffer){ .window = window / (MOST_STREAMS * PAGE) * (MOST_STREAMS * PAGE) };
    b->bytes = bytes / b->window * b->window;
    b->p = aligned_alloc(PAGE, b->bytes);
    if (b->p)
        pool_run(p, fill_part, b);
    return b->p != NULL;
}

void read_buffer_free(ReadBuffer *b)
{
    free(b->p);
    *b = (ReadBuffer){ 0 };
}

/* How many streams are fastest differs by machine. */
Rate measure_read(Pool *p, ReadBuffer *b, double seconds)
{
    const PoolFn *way = widest_ways();
    Rate most = { 0 };
    for (int i = 0; i < WAYS; i++) {
        b->at = 0;
        Rate r = repeat(p, way[i], b, next_window, (double)b->window, seconds / WAYS);
        if (r.best > most.best)
            most = r;
    }
    return most;
}

/* ---- multiply-accumulates ----------------------------------------------------------- */

enum { STEPS = 10000, CHAINS = 12 };

#if defined(__x86_64__)

/* CHAINS accumulators, each `step` of %0 by the constant %1; %2 is a spare one. */
#define EACH(X)  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(i) s##i = a,
#define STEP(i)  __asm__ volatile(STEP_TEXT : "+v"(s##i), "=&v"(spare) : "v"(a));
#define CHAIN_OF(name, type, zero, ...) \
    __attribute__((target(__VA_ARGS__))) static void name(void *arg, int ith, int nth) \
    { \
        const type a = zero(); \
        type EACH(START) spare = a; \
        (void)arg, (void)ith, (void)nth, (void)spare; \
        for (int n = 0; n < STEPS; n++) { \
            EACH(STEP) \
        } \
    }

#define STEP_TEXT "vfmadd231ps %2, %2, %0"
CHAIN_OF(fma_512, __m512i, _mm512_setzero_si512, "avx512f")
CHAIN_OF(fma_256, __m256i, _mm256_setzero_si256, "avx2,fma")
#undef STEP_TEXT
#define STEP_TEXT "vpdpbusd %2, %2, %0"
CHAIN_OF(vnni_512, __m512i, _mm512_setzero_si512, "avx512f")
#undef STEP_TEXT
#define STEP_TEXT "%{vex%} vpdpbusd %2, %2, %0"
CHAIN_OF(vnni_256, __m256i, _mm256_setzero_si256, "avx2")
#undef STEP_TEXT
#define STEP_TEXT "vpmaddubsw %2, %2, %1\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
CHAIN_OF(maddubs_256, __m256i, _mm256_setzero_si256, "avx2")
#undef STEP_TEXT
#define STEP_TEXT "vdpbf16ps %2, %2, %0"
CHAIN_OF(bf16_512, __m512i, _mm512_setzero_si512, "avx512f")
#undef STEP_TEXT

static bool leaf_7_1_eax(unsigned bit)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> bit & 1);
}

static bool has_fma(void)
{
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
}
static bool has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
static bool has_vnni_512(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
static bool has_vnni_256(void) { return has_fma() && leaf_7_1_eax(4); }
static bool has_bf16_512(void) { return has_avx512() && leaf_7_1_eax(5); }

#elif defined(__aarch64__)

/* The instructions as words, since not every assembler is told of them: %w0 to
 * v11 from v16 and v17. */
#define WORD(base, i) ".inst " #base " + " #i "\n\t"
#define WORDS(base) \
    WORD(base, 0) \
    WORD(base, 1) \
    WORD(base, 2) \
    WORD(base, 3) \
    WORD(base, 4) \
    WORD(base, 5) \
    WORD(base, 6) WORD(base, 7) WORD(base, 8) WORD(base, 9) WORD(base, 10) WORD(base, 11)
#define CHAIN_OF(name, base) \
    static void name(void *arg, int ith, int nth) \
    { \
        (void)arg, (void)ith, (void)nth; \
        __asm__ volatile("movi v16.4s, #0\n\tmovi v17.4s, #0\n\t" ::: "v16", "v17"); \
        for (int n = 0; n < STEPS; n++) { \
            __asm__ volatile(WORDS(base):: \
                                 : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", \
                                   "v10", "v11"); \
        } \
    }
CHAIN_OF(fmla_128, 0x4e31ce00)  /* fmla v0.4s, v16.4s, v17.4s */
CHAIN_OF(sdot_128, 0x4e919600)  /* sdot v0.4s, v16.16b, v17.16b */
CHAIN_OF(bfdot_128, 0x6e51fe00) /* bfdot v0.4s, v16.8h, v17.8h */

static bool always(void) { return true; }
#ifdef __APPLE__
static bool apple_has(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value;
}
static bool has_sdot(void) { return apple_has("hw.optional.arm.FEAT_DotProd"); }
static bool has_bfdot(void) { return apple_has("hw.optional.arm.FEAT_BF16"); }
#else
static bool has_sdot(void) { return getauxval(AT_HWCAP) >> 20 & 1; }   /* HWCAP_ASIMDDP */
static bool has_bfdot(void) { return getauxval(AT_HWCAP2) >> 14 & 1; } /* HWCAP2_BF16 */
#endif
#endif

/* Best first. */
static const struct {
    enum MacKind kind;
    const char *name, *isa;
    int macs; /* of a step of one chain */
    bool (*present)(void);
    PoolFn fn;
} loops[] = {
#if defined(__x86_64__)
    { MAC_F32, "vfmadd231ps zmm", "avx512", 16, has_avx512, fma_512 },
    { MAC_F32, "vfmadd231ps ymm", "avx2", 8, has_fma, fma_256 },
    { MAC_INT8, "vpdpbusd zmm", "avx512", 64, has_vnni_512, vnni_512 },
    { MAC_INT8, "vpdpbusd ymm", "avx2", 32, has_vnni_256, vnni_256 },
    { MAC_INT8, "vpmaddubsw ymm", "avx2", 32, has_fma, maddubs_256 },
    { MAC_BF16, "vdpbf16ps zmm", "avx512", 32, has_bf16_512, bf16_512 },
#elif defined(__aarch64__)
    { MAC_F32, "fmla v.4s", "neon", 4, always, fmla_128 },
    { MAC_INT8, "sdot v.16b", "neon", 16, has_sdot, sdot_128 },
    { MAC_BF16, "bfdot v.8h", "neon", 8, has_bfdot, bfdot_128 },
#endif
    { MAC_KINDS, NULL, NULL, 0, NULL, NULL },
};

/* A set has its own instructions and those below; plain C is a part of all there are. */
static bool may_use(const char *isa, const char *of)
{
    return !isa || !strcmp(isa, "scalar") || !strcmp(isa, of) ||
           (!strcmp(isa, "avx512") && !strcmp(of, "avx2")) ||
           (!strcmp(isa, "dotprod") && !strcmp(of, "neon"));
}

Rate measure_macs(Pool *p, enum MacKind kind, const char *isa, double seconds, const char **name)
{
    *name = NULL;
    for (size_t i = 0; loops[i].name; i++) {
        if (loops[i].kind != kind || !loops[i].present() || !may_use(isa, loops[i].isa))
            continue;
        *name = loops[i].name;
        return repeat(p, loops[i].fn, NULL, NULL,
                      (double)loops[i].macs * STEPS * CHAINS * pool_threads(p), seconds);
    }
    return (Rate){ 0 };
}
