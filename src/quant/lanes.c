/* lanes.c - which sets this CPU has. */
#include "lanes.h"
#include "../base/base.h"

static bool always(void) { return true; }

#if defined(__x86_64__)
static bool has_avx2(void) { return __builtin_cpu_supports("avx2"); }

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const Lanes *lanes;
    bool (*present)(void);
} sets[] = {
#if defined(__x86_64__)
    { &lanes_avx512, has_avx512 },
    { &lanes_avx2, has_avx2 },
#endif
    { &lanes_plain, always },
};

const Lanes *lanes_at(size_t i)
{
    for (size_t k = 0; k < COUNT(sets); k++)
        if (sets[k].present() && i-- == 0)
            return sets[k].lanes;
    return NULL;
}

const Lanes *lanes_best(void) { return lanes_at(0); }
