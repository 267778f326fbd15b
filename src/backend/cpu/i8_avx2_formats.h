/* i8_avx2_formats.h - what each weight format is to the products of i8_avx2.h: 32
 * codes of a row in a vector, and the factors of 8 rows side by side. */
#ifndef I8_AVX2_FORMATS_H
#define I8_AVX2_FORMATS_H
#include "i8_avx2.h"
#include "../../quant/blocks.h"
#include "../../quant/iq2xxs_grid.h"

/* ---- factors of 8 rows ------------------------------------------------------------ */

/* The halves at byte `at` of 8 blocks. */
static ALWAYS_INLINE __m256 halves8(const Rows8 *w, size_t at)
{
    return _mm256_cvtph_ps(
        _mm_setr_epi16((short)u16_at(row8(w, 0) + at), (short)u16_at(row8(w, 1) + at),
                       (short)u16_at(row8(w, 2) + at), (short)u16_at(row8(w, 3) + at),
                       (short)u16_at(row8(w, 4) + at), (short)u16_at(row8(w, 5) + at),
                       (short)u16_at(row8(w, 6) + at), (short)u16_at(row8(w, 7) + at)));
}

/* Bytes i of 8 vectors, for i = 2 k in the low half of vector k, 2 k + 1 in the high one. */
static ALWAYS_INLINE void transpose_bytes(__m128i v[8])
{
    __m128i t[8], u[8];
    UNROLL
    for (int k = 0; k < 4; k++) {
        t[k] = _mm_unpacklo_epi8(v[2 * k], v[2 * k + 1]);
        t[k + 4] = _mm_unpackhi_epi8(v[2 * k], v[2 * k + 1]);
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        u[k] = _mm_unpacklo_epi16(t[k], t[k + 1]);
        u[k + 1] = _mm_unpackhi_epi16(t[k], t[k + 1]);
        u[k + 2] = _mm_unpacklo_epi16(t[k + 2], t[k + 3]);
        u[k + 3] = _mm_unpackhi_epi16(t[k + 2], t[k + 3]);
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        v[k] = _mm_unpacklo_epi32(u[k], u[k + 2]);
        v[k + 1] = _mm_unpackhi_epi32(u[k], u[k + 2]);
        v[k + 2] = _mm_unpacklo_epi32(u[k + 1], u[k + 3]);
        v[k + 3] = _mm_unpackhi_epi32(u[k + 1], u[k + 3]);
    }
}

static ALWAYS_INLINE __m256 floats_of(__m128i bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

/* ---- Q8_0 ------------------------------------------------------------------------- */

static ALWAYS_INLINE void q8_0_open(Open8 *s, const Rows8 *w, bool for_panel)
{
    (void)for_panel;
    _mm256_store_ps(s->of[0].a, halves8(w, offsetof(BlockQ8_0, d)));
}

static ALWAYS_INLINE Codes q8_0_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const __m256i q = load8(((const BlockQ8_0 *)block)->q);
    (void)s, (void)r, (void)g;
    return (Codes){ _mm256_abs_epi8(q), q };
}

/* ---- MXFP4 ------------------------------------------------------------------------ */

/* 2^(e - 128), whose lowest two are subnormal; NaN for 255. */
static ALWAYS_INLINE void mxfp4_open(Open8 *s, const Rows8 *w, bool for_panel)
{
    const __m256i e = _mm256_cvtepu8_epi32(
        _mm_setr_epi8((char)*row8(w, 0), (char)*row8(w, 1), (char)*row8(w, 2), (char)*row8(w, 3),
                      (char)*row8(w, 4), (char)*row8(w, 5), (char)*row8(w, 6), (char)*row8(w, 7), 0,
                      0, 0, 0, 0, 0, 0, 0));
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i nan = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255));
    const __m256i bits = _mm256_blendv_epi8(tiny, normal, _mm256_cmpgt_epi32(e, one));
    (void)for_panel;
    store8(s->of[0].a, _mm256_or_si256(bits, _mm256_and_si256(nan, _mm256_set1_epi32(0x7fc00000))));
}

static ALWAYS_INLINE Codes mxfp4_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const __m256i size = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, 1, 2, 3, 4, 6, 8, 12));
    const __m128i q = _mm_loadu_si128((const __m128i *)((const BlockMXFP4 *)block)->q);
    const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
    const __m256i u = _mm256_shuffle_epi8(size, _mm256_and_si256(v, _mm256_set1_epi8(15)));
    (void)s, (void)r, (void)g;
    /* Bit 3 becomes the sign; bit 0 is set, since a zero would erase x. */
    return (Codes){ u, _mm256_or_si256(_mm256_slli_epi16(v, 4), _mm256_set1_epi8(1)) };
}

/* ---- Q4_K ------------------------------------------------------------------------- */

/* The 8 scales and 8 mins of 6 bits, as bytes. */
static ALWAYS_INLINE __m128i q4_k_scales(const uint8_t *p)
{
    const uint32_t a = u32_at(p), b = u32_at(p + 4), c = u32_at(p + 8);
    const uint32_t s1 = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t m1 = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    return _mm_setr_epi32((int)(a & 0x3f3f3f3f), (int)s1, (int)(b & 0x3f3f3f3f), (int)m1);
}

static ALWAYS_INLINE void q4_k_open(Open8 *s, const Rows8 *w, bool for_panel)
{
    const __m256 d = halves8(w, offsetof(BlockQ4_K, d));
    const __m256 dmin = halves8(w, offsetof(BlockQ4_K, dmin));
    __m128i v[8];
    (void)for_panel;
    UNROLL
    for (int r = 0; r < I8_ROWS; r++)
        v[r] = q4_k_scales(row8(w, r) + offsetof(BlockQ4_K, s));
    transpose_bytes(v);
    UNROLL
    for (int g = 0; g < 8; g++) {
        const __m128i a = v[g / 2], m = v[g / 2 + 4];
        Factors *of = &s->of[g];
        _mm256_store_ps(of->a, v_mul(d, floats_of(g % 2 ? _mm_srli_si128(a, 8) : a)));
        _mm256_store_ps(of->m, v_mul(dmin, floats_of(g % 2 ? _mm_srli_si128(m, 8) : m)));
        store8(of->min, _mm256_set1_epi16(1));
    }
}

static ALWAYS_INLINE Codes q4_k_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const __m256i q = load8(((const BlockQ4_K *)block)->q + g / 2 * 32);
    const __m256i v = g % 2 ? _mm256_srli_epi16(q, 4) : q;
    (void)s, (void)r;
    return (Codes){ _mm256_and_si256(v, _mm256_set1_epi8(15)), v };
}

/* ---- Q2_K ------------------------------------------------------------------------- */

static ALWAYS_INLINE void q2_k_open(Open8 *s, const Rows8 *w, bool for_panel)
{
    const __m256 d = halves8(w, offsetof(BlockQ2_K, d));
    const __m256 dmin = halves8(w, offsetof(BlockQ2_K, dmin));
    const __m128i low = _mm_set1_epi8(15);
    __m128i scale[8], min[8];
    UNROLL
    for (int r = 0; r < I8_ROWS; r++) {
        const __m128i v = _mm_loadu_si128((const __m128i *)((const BlockQ2_K *)row8(w, r))->scales);
        scale[r] = _mm_and_si128(v, low);
        min[r] = _mm_and_si128(_mm_srli_epi16(v, 4), low);
        store8(s->rest[r], _mm256_broadcastsi128_si256(scale[r]));
    }
    transpose_bytes(min);
    if (for_panel)
        transpose_bytes(scale);
    UNROLL
    for (int g = 0; g < 8; g++) {
        Factors *of = &s->of[g];
        _mm256_store_ps(of->a, d);
        _mm256_store_ps(of->m, dmin);
        const __m128i both = _mm_unpacklo_epi8(min[g], _mm_srli_si128(min[g], 8));
        store8(of->min, _mm256_cvtepu8_epi16(both));
        if (for_panel) {
            store8(of->sub[0], _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(scale[g], scale[g])));
            store8(of->sub[1], _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(scale[g], scale[g])));
        }
    }
}

static ALWAYS_INLINE Codes q2_k_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const __m256i q = load8(((const BlockQ2_K *)block)->q + g / 4 * 32);
    const __m256i v = _mm256_and_si256(_mm256_srli_epi16(q, g % 4 * 2), _mm256_set1_epi8(3));
    (void)s, (void)r;
    return (Codes){ v, v };
}

/* Scales 2 g and 2 g + 1, 8 times each: bytes to words, whose high bytes have no source. */
static ALWAYS_INLINE __m256i q2_k_sub(const Open8 *s, int r, int g)
{
    const __m256i first =
        _mm256_inserti128_si256(_mm256_set1_epi16(INT16_MIN), _mm_set1_epi16(INT16_MIN + 1), 1);
    const __m256i from = _mm256_add_epi16(first, _mm256_set1_epi16((short)(2 * g)));
    return _mm256_shuffle_epi8(load8(s->rest[r]), from);
}

/* ---- IQ2_XXS ---------------------------------------------------------------------- */

/* The sign masks of 32 tuples from 8 times 4 x 7 bits; bit 7 makes the number of
 * bits even: the parity of each half looked up. */
static ALWAYS_INLINE __m256i iq2_signs(__m256i words)
{
    const __m256i parity = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i t = _mm256_and_si256(words, _mm256_set1_epi32(0x7f));
    UNROLL
    for (int k = 1; k < 4; k++)
        t = _mm256_or_si256(
            t, _mm256_and_si256(_mm256_slli_epi32(words, k), _mm256_set1_epi32(0x7f << 8 * k)));
    const __m256i p0 = _mm256_shuffle_epi8(parity, _mm256_and_si256(t, nibble));
    const __m256i p1 =
        _mm256_shuffle_epi8(parity, _mm256_and_si256(_mm256_srli_epi16(t, 4), nibble));
    return _mm256_xor_si256(t, _mm256_xor_si256(p0, p1));
}

/* The second words of a block's 8 groups, in order. */
static ALWAYS_INLINE __m256i iq2_words(const uint8_t *block)
{
    const uint8_t *g = block + offsetof(BlockIQ2_XXS, g);
    const __m256i odd = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(load8(g)), _mm256_castsi256_ps(load8(g + 32)), 0xdd));
    return _mm256_permute4x64_epi64(odd, 0xd8);
}

static ALWAYS_INLINE void iq2_xxs_open(Open8 *s, const Rows8 *w, bool for_panel)
{
    const __m256 d = v_mul(halves8(w, offsetof(BlockIQ2_XXS, d)), v_set(0.125f));
    __m256i odd[8];
    (void)for_panel;
    UNROLL
    for (int r = 0; r < I8_ROWS; r++) {
        const __m256i words = iq2_words(row8(w, r));
        store8(s->rest[r], iq2_signs(words));
        odd[r] = _mm256_or_si256(_mm256_slli_epi32(_mm256_srli_epi32(words, 28), 1),
                                 _mm256_set1_epi32(1));
    }
    transpose8(odd);
    UNROLL
    for (int g = 0; g < 8; g++)
        _mm256_store_ps(s->of[g].a, v_mul(d, _mm256_cvtepi32_ps(odd[g])));
}

static ALWAYS_INLINE Codes iq2_xxs_codes(const Open8 *s, const uint8_t *block, int r, int g)
{
    const uint8_t *i = ((const BlockIQ2_XXS *)block)->g[g].index;
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bits = _mm256_set1_epi64x((long long)0x8040201008040201);
    const __m256i u =
        _mm256_setr_epi64x((long long)iq2xxs_grid[i[0]], (long long)iq2xxs_grid[i[1]],
                           (long long)iq2xxs_grid[i[2]], (long long)iq2xxs_grid[i[3]]);
    const __m256i masks = _mm256_set1_epi32((int)u32_at(s->rest[r] + 4 * g));
    const __m256i minus = _mm256_and_si256(_mm256_shuffle_epi8(masks, spread), bits);
    return (Codes){ u, _mm256_or_si256(_mm256_cmpeq_epi8(minus, bits), _mm256_set1_epi8(1)) };
}

/* ---- products ---------------------------------------------------------------------- */

#define GEMM_I8(name, ...) \
    static void name(float *out, size_t ldo, const void *w, size_t ldw, int n_w, const void *x, \
                     size_t ldx, int n_x, int cols) \
    { \
        const Format8 f = { __VA_ARGS__ }; \
        switch (f.has_few ? n_x : 1) { \
        case 2: gemm_few8(f, 2, out, ldo, w, ldw, n_w, x, ldx, cols); break; \
        case 3: gemm_few8(f, 3, out, ldo, w, ldw, n_w, x, ldx, cols); break; \
        case 4: gemm_few8(f, 4, out, ldo, w, ldw, n_w, x, ldx, cols); break; \
        default: gemm8(f, out, ldo, w, ldw, n_w, x, ldx, n_x, cols); \
        } \
    }
GEMM_I8(gemm_q8_0, .len = 32, .bytes = sizeof(BlockQ8_0), .is_signed = true, .has_few = true,
        .steps = 1, .folds = 0, .unroll = 1, .open = q8_0_open, .codes = q8_0_codes)
GEMM_I8(gemm_mxfp4, .len = 32, .bytes = sizeof(BlockMXFP4), .is_signed = true, .steps = 8,
        .folds = 3, .unroll = 1, .open = mxfp4_open, .codes = mxfp4_codes)
GEMM_I8(gemm_q4_k, .len = QK, .bytes = sizeof(BlockQ4_K), .has_min = true, .has_few = true,
        .steps = 8, .folds = 3, .unroll = 2, .open = q4_k_open, .codes = q4_k_codes)
GEMM_I8(gemm_q2_k, .len = QK, .bytes = sizeof(BlockQ2_K), .has_min = true, .has_sub = true,
        .steps = 4, .folds = 0, .unroll = 4, .open = q2_k_open, .codes = q2_k_codes,
        .sub_of = q2_k_sub)
GEMM_I8(gemm_iq2_xxs, .len = QK, .bytes = sizeof(BlockIQ2_XXS), .is_signed = true, .steps = 3,
        .folds = 1, .unroll = 1, .open = iq2_xxs_open, .codes = iq2_xxs_codes)

#endif
