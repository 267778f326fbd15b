/* kernels.c - which instruction sets this CPU has, and their tables without gaps.
 *
 * A set builds on the plainer ones after it in the list, so a NULL entry is
 * taken from the next of them. The filled tables are made once, at first use,
 * and only read afterwards. */
#include "kernels.h"
#include <pthread.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Not every compiler's __builtin_cpu_supports knows "f16c". */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* What the integer products of the set need beside. */
static bool has_avx512_i8(void)
{
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("gfni");
}
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static bool has_dotprod(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#elif defined(__aarch64__)
static bool has_dotprod(void) { return true; } /* every ARM Mac */
#endif

static bool always(void) { return true; }

/* Best first. Without `i8` a set's integer products are those of the next one. */
static const struct {
    const Kernels *table;
    bool (*present)(void);
    bool (*i8)(void);
} sets[] = {
#if defined(__x86_64__)
    { &kernels_avx512, has_avx512, has_avx512_i8 },
    { &kernels_avx2, has_avx2, always },
#elif defined(__aarch64__)
    { &kernels_dotprod, has_dotprod, always },
    { &kernels_neon, always, always },
#endif
    { &kernels_scalar, always, always },
};

static Kernels filled[COUNT(sets)];
static const char *names[COUNT(sets) + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define FILL(member) to->member = to->member ? to->member : from->member

static void fill(Kernels *to, const Kernels *from)
{
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

static void drop_integers(Kernels *k)
{
    memset(k->gemm_i8, 0, sizeof k->gemm_i8);
    k->idx_query = NULL;
    k->idx_scores = NULL;
}

static void fill_all(void)
{
    size_t n_names = 0;
    for (size_t i = COUNT(sets); i-- > 0;) {
        filled[i] = *sets[i].table;
        if (!sets[i].i8())
            drop_integers(&filled[i]);
        if (i + 1 < COUNT(sets))
            fill(&filled[i], &filled[i + 1]);
    }
    for (size_t i = 0; i < COUNT(sets); i++) {
        if (sets[i].present())
            names[n_names++] = sets[i].table->name;
    }
}

const char *const *kernels_list(void)
{
    pthread_once(&once, fill_all);
    return names;
}

const Kernels *kernels_find(const char *isa, ds4_err *err)
{
    const char *best = kernels_list()[0];
    for (size_t i = 0; i < COUNT(sets); i++) {
        if (strcmp(filled[i].name, isa ? isa : best) != 0)
            continue;
        if (sets[i].present())
            return &filled[i];
        fail(err, DS4_EINVAL, "instruction set %s: this CPU does not have it; its best is %s", isa,
             best);
        return NULL;
    }
    fail(err, DS4_EINVAL, "instruction set %s: this build has none of that name; its best is %s",
         isa, best);
    return NULL;
}
