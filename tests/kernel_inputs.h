/* kernel_inputs.h - the tables that tests of microkernels try, and what they multiply:
 * random floats and blocks, in memory between two pages that must not be touched. */
#ifndef KERNEL_INPUTS_H
#define KERNEL_INPUTS_H
#include "../src/backend/cpu/kernels.h"
#include "../src/quant/float.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- tables ------------------------------------------------------------------- */

enum { MOST_TABLES = 32 };

/* All different tables that run here, NULL at the end: that of this CPU, and those of CPUs
 * which lack some of its features. A name tells the features. */
static inline const Kernels *const *tables(void)
{
    static Kernels table[MOST_TABLES];
    static char name[MOST_TABLES][40];
    static const Kernels *list[MOST_TABLES + 1];
    const unsigned all = kernels_features();
    unsigned lacks = 0;
    size_t n = 0;

    if (list[0])
        return list;
    do {
        Kernels k;
        size_t i = 0;
        assert_true(kernels_make(&k, NULL, all & ~lacks, NULL));
        while (i < n && memcmp(&k.gemm, &table[i].gemm, sizeof k - offsetof(Kernels, gemm)) != 0)
            i++;
        if (i == n) {
            assert_true(n < MOST_TABLES);
            snprintf(name[n], sizeof name[n], "%s of %#x", k.name, all & ~lacks);
            k.name = name[n];
            table[n] = k;
            list[n] = &table[n];
            n++;
        }
        lacks = (lacks - all) & all; /* the next set of features */
    } while (lacks);
    return list;
}

/* Besides those of CPUs the one of AVX-VNNI with its instruction in AVX-512's coding, where
 * there is that only (the Makefile compiles k_avx_vnni*.c once more). */
#ifdef HAS_VNNI_TWIN
extern const Kernels kernels_avx_vnni_twin, kernels_avx_vnni_index_twin;

static inline bool make_twin(Kernels *k)
{
    const unsigned needs = HAS_AVX512 | HAS_VNNI;
    if (needs & ~kernels_features())
        return false;
    assert_true(kernels_make(k, "avx2", kernels_features(), NULL));
    memcpy(k->gemm_i8, kernels_avx_vnni_twin.gemm_i8, sizeof k->gemm_i8);
    k->idx_query = kernels_avx_vnni_index_twin.idx_query;
    k->idx_scores = kernels_avx_vnni_index_twin.idx_scores;
    k->name = "avx2, VNNI as AVX-512 has it";
    return true;
}
#else
static inline bool make_twin(Kernels *k) { return (void)k, false; }
#endif

static inline const Kernels *const *all_tables(void)
{
    static const Kernels *list[MOST_TABLES + 2];
    static Kernels twin;
    size_t n = 0;

    if (list[0])
        return list;
    for (const Kernels *const *k = tables(); *k; k++)
        list[n++] = *k;
    if (make_twin(&twin))
        list[n] = &twin;
    return list;
}

/* ---- memory between two pages that must not be touched ---------------------- */

enum { ROOM = 2 << 20 }; /* bytes of one region */

typedef struct {
    unsigned char *p;
} Region;

static inline size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static inline Region region_new(void)
{
    size_t page = page_size();
    unsigned char *all =
        mmap(NULL, ROOM + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    assert_true(all != MAP_FAILED);
    assert_int_equal(mprotect(all, page, PROT_NONE), 0);
    assert_int_equal(mprotect(all + page + ROOM, page, PROT_NONE), 0);
    return (Region){ all + page };
}

static inline void region_free(Region r) { munmap(r.p - page_size(), ROOM + 2 * page_size()); }

/* n bytes that end at the page behind (end) or start at the page before. */
static inline void *place(Region r, size_t n, bool end)
{
    assert_true(n <= ROOM);
    return end ? r.p + ROOM - n : r.p;
}

static Region w_room, x_room, out_room;

static inline int make_rooms(void **state)
{
    (void)state;
    w_room = region_new();
    x_room = region_new();
    out_room = region_new();
    return 0;
}

static inline int drop_rooms(void **state)
{
    (void)state;
    region_free(w_room);
    region_free(x_room);
    region_free(out_room);
    return 0;
}

/* ---- random inputs ------------------------------------------------------------ */

static uint32_t seed = 1;

static inline uint32_t random_u32(void)
{
    seed = seed * 1664525 + 1013904223;
    return seed >> 8; /* 24 bits */
}

static inline float random_unit(void) { return (float)random_u32() * 0x1p-23f - 1; }

static inline void random_floats(float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_unit() * scale;
}

/* A half of ordinary size, now and then zero or subnormal. */
static inline uint16_t random_half(void)
{
    uint32_t u = random_u32();
    if (u % 50 == 0)
        return (uint16_t)(u % 100 ? 0x0001 + (u >> 12) : 0);
    return f16_from_f32(0.02f * (1.5f + random_unit()));
}

/* One block of any content whose scales are sane. */
static inline void random_block(int type, unsigned char *b)
{
    static const struct {
        int half[2];
    } scales[QUANT_END] = { [QUANT_Q8_0] = { { 0, -1 } },
                            [QUANT_Q2_K] = { { 80, 82 } },
                            [QUANT_Q4_K] = { { 0, 2 } },
                            [QUANT_IQ2_XXS] = { { 0, -1 } } };
    const QuantFormat *f = quant_format(type);
    if (f->block_len == 1) {
        float v = random_unit();
        f->encode(b, &v, 1, NULL);
        return;
    }
    for (int i = 0; i < f->block_bytes; i++)
        b[i] = (unsigned char)random_u32();
    if (type == QUANT_MXFP4) {
        b[0] = (unsigned char)(118 + random_u32() % 5);
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (scales[type].half[i] >= 0)
            u16_put(b + scales[type].half[i], random_half());
    }
}

static inline size_t row_bytes(int type, int cols)
{
    uint64_t n = 0;
    assert_true(quant_bytes(type, (uint64_t)cols, &n));
    return (size_t)n;
}

#endif
