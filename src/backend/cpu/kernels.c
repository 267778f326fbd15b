/* kernels.c - the best kernels that a CPU can run, in one table.
 *
 * A file of kernels says what it has and needs of a CPU; a table takes each
 * entry from the first file in the list that has it and whose needs are met. So
 * a CPU that lacks something loses those kernels only. The tables of the sets,
 * files of one name and all after them, are made once, at first use. */
#include "kernels.h"
#include <pthread.h>

enum {
    AVX2 = HAS_AVX2 | HAS_FMA | HAS_F16C | HAS_BMI2,
    AVX512 = AVX2 | HAS_AVX512,
};

/* Best first; of a set's files the one that needs least comes last. */
static const struct {
    const Kernels *has;
    unsigned needs;
} files[] = {
#if defined(__x86_64__)
    { &kernels_avx512_iq2, AVX512 | HAS_VNNI | HAS_VBMI | HAS_GFNI },
    { &kernels_avx512_q2k, AVX512 | HAS_VNNI },
    { &kernels_avx512_vnni, AVX512 | HAS_VNNI },
    { &kernels_avx512_index, AVX512 | HAS_VNNI },
    { &kernels_avx512_vbmi, AVX512 | HAS_VBMI },
    { &kernels_avx512_acts, AVX512 },
    { &kernels_avx512, AVX512 },
#ifndef NO_AVX_VNNI /* a compiler that does not know it */
    { &kernels_avx_vnni, AVX2 | HAS_AVX_VNNI },
    { &kernels_avx_vnni_index, AVX2 | HAS_AVX_VNNI },
#endif
    { &kernels_avx2_index, AVX2 },
    { &kernels_avx2_i8, AVX2 },
    { &kernels_avx2, AVX2 },
#elif defined(__aarch64__)
    { &kernels_dotprod, HAS_DOTPROD },
    { &kernels_neon, 0 },
#endif
    { &kernels_scalar, 0 },
};

/* ---- this CPU ---------------------------------------------------------------------- */

#if defined(__x86_64__)
#include <cpuid.h>

/* Not every compiler's __builtin_cpu_supports knows "f16c" and "avxvnni". */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx_vnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

unsigned kernels_features(void)
{
    return (__builtin_cpu_supports("avx2") ? HAS_AVX2 : 0u) |
           (__builtin_cpu_supports("fma") ? HAS_FMA : 0u) | (has_f16c() ? HAS_F16C : 0u) |
           (__builtin_cpu_supports("bmi2") ? HAS_BMI2 : 0u) | (has_avx512() ? HAS_AVX512 : 0u) |
           (__builtin_cpu_supports("avx512vnni") ? HAS_VNNI : 0u) |
           (__builtin_cpu_supports("avx512vbmi") ? HAS_VBMI : 0u) |
           (__builtin_cpu_supports("gfni") ? HAS_GFNI : 0u) | (has_avx_vnni() ? HAS_AVX_VNNI : 0u);
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

unsigned kernels_features(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? HAS_DOTPROD : 0; }
#elif defined(__aarch64__)
unsigned kernels_features(void) { return HAS_DOTPROD; } /* every ARM Mac */
#else
unsigned kernels_features(void) { return 0; }
#endif

/* ---- tables ------------------------------------------------------------------------ */

#define FILL(member) to->member = to->member ? to->member : from->member

static void fill(Kernels *to, const Kernels *from)
{
    FILL(name);
    for (int t = 0; t < QUANT_END; t++) {
        FILL(gemm[t]);
        FILL(gemm_i8[t]);
    }
    FILL(act_pack);
    FILL(mix);
    FILL(sum_sq);
    FILL(scale);
    FILL(exp_sum);
    FILL(swiglu);
    FILL(axpy);
    FILL(kv_unpack);
    FILL(idx_unpack);
    FILL(idx_query);
    FILL(idx_scores);
}

static bool runs(size_t file, unsigned features) { return !(files[file].needs & ~features); }

/* The first file of the set, or of the best set where isa is NULL, that runs; else COUNT(files). */
static size_t first_file(const char *isa, unsigned features)
{
    size_t i = 0;
    while (i < COUNT(files) &&
           (!runs(i, features) || (isa && strcmp(files[i].has->name, isa) != 0)))
        i++;
    return i;
}

static bool is_known(const char *isa)
{
    for (size_t i = 0; i < COUNT(files); i++) {
        if (strcmp(files[i].has->name, isa) == 0)
            return true;
    }
    return false;
}

bool kernels_make(Kernels *k, const char *isa, unsigned features, ds4_err *err)
{
    const char *best = files[first_file(NULL, features)].has->name;
    const size_t first = first_file(isa, features);

    if (first == COUNT(files))
        return fail(err, DS4_EINVAL, "instruction set %s: this %s; its best is %s", isa,
                    is_known(isa) ? "CPU does not have it" : "build has none of that name", best);
    *k = (Kernels){ 0 };
    for (size_t i = first; i < COUNT(files); i++) {
        if (runs(i, features))
            fill(k, files[i].has);
    }
    return true;
}

/* ---- the sets of this CPU -------------------------------------------------------------- */

static Kernels made[COUNT(files)];
static const char *names[COUNT(files) + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_all(void)
{
    const unsigned features = kernels_features();
    size_t n = 0;

    for (size_t i = 0; i < COUNT(files); i++) {
        const char *name = files[i].has->name;
        if (!runs(i, features) || (n && strcmp(names[n - 1], name) == 0))
            continue;
        kernels_make(&made[n], name, features, NULL);
        names[n++] = name;
    }
}

const char *const *kernels_list(void)
{
    pthread_once(&once, make_all);
    return names;
}

const Kernels *kernels_find(const char *isa, ds4_err *err)
{
    Kernels unused;
    const char *const *list = kernels_list();

    for (size_t i = 0; list[i]; i++) {
        if (!isa || strcmp(list[i], isa) == 0)
            return &made[i];
    }
    kernels_make(&unused, isa, kernels_features(), err); /* says why not */
    return NULL;
}
