/* experts_parts.cuh - packed weights as int8, a lane's part at a time.
 *
 * Of each 256 columns of a row lane t of a quad owns 64 in two groups of 32, each four
 * "eights" of neighbouring columns. Which columns those are follows from the format, so
 * that a lane reads its bytes at once: one 16-byte load a group, or for both. */
#ifndef EXPERTS_PARTS_CUH
#define EXPERTS_PARTS_CUH
#include "experts.cuh"

enum {
    CHUNK = 256,
    COPIES = WARP, /* of the tables, a lane's own: no two lanes meet in a bank */
    ENTRY = COPIES * sizeof(unsigned),
    TABLE_BYTES = (256 + 128) * ENTRY
};

/* Bytes of two words, of which four nibbles of `choice` choose: 0 .. 3 of a, 4 .. 7 of b, 8 more
 * for eight times the byte's top bit. (__byte_perm has no such eight, and masks for it.) */
__device__ static inline unsigned bytes_from(unsigned a, unsigned b, unsigned choice)
{
    unsigned r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(choice));
    return r;
}

/* What lane t holds of a row whose first chunk is number `first` of all: in a step of 256 columns both groups (STEPS 1), or in a step of
 * 128 one (STEPS 2).
 *
 *   get      eight j of group i, 2 words of int8
 *   at       the first column of group i; eight j begins JUMP (j / 2) + 8 (j % 2) further
 *   factor   of group i
 *   least    what is subtracted in sub-block k, of MINS a lane: each is two eights (4) or
 *            a group (2)
 *   inner, outer   whose product factor is; inner is a whole number where a step has two groups
 *   less, outer_less   likewise of least
 *
 * IS_SIGNED: there are values below 0. */
template <int TYPE> struct Part;

__device__ static inline float whole_byte(unsigned v, int k) { return (float)(v >> 8 * k & 255); }

/* IQ2_XXS: nibbles choose from these bytes: 8 25 43, with bit 2 for the sign. */
static const unsigned iq2_plus = 0x002b1908, iq2_minus = 0x00d5e7f8;

/* Its tables, TABLE_BYTES of shared memory: the eight nibbles of each grid entry, and the
 * signs that are to be added for each sign index. Bytes are chosen four at a time. */
__device__ static void fill_tables(char *table, const uint2 *grid)
{
    for (int i = threadIdx.x; i < 256 + 128; i += blockDim.x) {
        const uint2 v = i < 256 ? grid[i] : make_uint2(0, 0);
        const unsigned t = i & 127, mask = t | (unsigned)(__popc(t) & 1) << 7;
        unsigned e = 0;
        for (int k = 0; k < 4; k++)
            if (i < 256)
                e |= (v.x >> (8 * k + 4) & 3) << 4 * k | (v.y >> (8 * k + 4) & 3) << (4 * k + 16);
            else
                e |= (mask >> k & 1) << (4 * k + 2) | (mask >> (k + 4) & 1) << (4 * k + 18);
        for (int c = 0; c < COPIES / 4; c++) /* in turns, for the banks */
            ((uint4 *)table)[i * (COPIES / 4) + (c + i) % (COPIES / 4)] = make_uint4(e, e, e, e);
    }
}

template <> struct Part<QUANT_IQ2_XXS> {
    enum { STEPS = 1, MINS = 0, JUMP = 16, IS_SIGNED = 1 };
    uint4 q; /* index, signs of two groups */
    half d;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = first + step;
        q = __ldg((const uint4 *)w.q + block * 4 + t);
        d = w.d[block];
    }
    __device__ static int at(int t, int i) { return 64 * t + 32 * i; }
    __device__ void get(unsigned *v, int i, int j, const char *table) const
    {
        const unsigned index = i ? q.z : q.x, signs = i ? q.w : q.y;
        const unsigned copy = threadIdx.x % COPIES * sizeof(unsigned);
        const unsigned at = (j ? index >> (8 * j - 7) : index << 7) & 255 * ENTRY;
        const unsigned sign_at = (j ? signs >> (7 * j - 7) : signs << 7) & 127 * ENTRY;
        const unsigned choice = *(const unsigned *)(table + (at | copy)) ^
                                *(const unsigned *)(table + 256 * ENTRY + (sign_at | copy));
        v[0] = bytes_from(iq2_plus, iq2_minus, choice);
        v[1] = bytes_from(iq2_plus, iq2_minus, choice >> 16);
    }
    __device__ float factor(int i) const
    {
        return __half2float(d) * (0.125f * (float)(2 * ((i ? q.w : q.y) >> 28) + 1));
    }
    __device__ float inner(int i) const
    {
        return __uint_as_float(0x4b000001 | ((i ? q.w : q.y) >> 27 & 30)) - 0x1p23f;
    }
    __device__ float outer() const { return 0.125f * __half2float(d); }
    __device__ float least(int) const { return 0; }
    __device__ float less(int) const { return 0; }
    __device__ float outer_less() const { return 0; }
};

/* Lane t has bytes 16 t .. of the block: with n = t / 2 and h = t % 2 the sub-blocks of 16 at
 * columns 128 n + 16 h + 32 k. The scale is in the int8 values. */
template <> struct Part<QUANT_Q2_K> {
    enum { STEPS = 1, MINS = 4, JUMP = 32, IS_SIGNED = 0 };
    uint4 q;
    unsigned s; /* scales and mins of the 4 sub-blocks */
    half2 d;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = first + step;
        q = __ldg((const uint4 *)w.q + block * 4 + t);
        const uint2 v = __ldg((const uint2 *)w.s + block * 2 + t / 2);
        s = __byte_perm(v.x, v.y, t % 2 ? 0x7531 : 0x6420);
        d = ((const half2 *)w.d)[block];
    }
    __device__ static int at(int t, int i) { return 128 * (t / 2) + 16 * (t % 2) + 64 * i; }
    __device__ void get(unsigned *v, int i, int j, const char *) const
    {
        const int k = 2 * i + j / 2;
        const unsigned scale = s >> 8 * k & 15;
        v[0] = ((j % 2 ? q.z : q.x) >> 2 * k & 0x03030303) * scale;
        v[1] = ((j % 2 ? q.w : q.y) >> 2 * k & 0x03030303) * scale;
    }
    __device__ float factor(int) const { return __low2float(d); }
    __device__ float inner(int) const { return 1; }
    __device__ float outer() const { return __low2float(d); }
    __device__ float least(int k) const { return __high2float(d) * (float)(s >> (8 * k + 4) & 15); }
    __device__ float less(int k) const { return whole_byte(s >> 4 & 0x0f0f0f0f, k); }
    __device__ float outer_less() const { return __high2float(d); }
};

/* Lane t has bytes 32 t ..: groups 2t in the low nibbles, 2t + 1 in the high ones. */
template <> struct Part<QUANT_Q4_K> {
    enum { STEPS = 1, MINS = 2, JUMP = 16, IS_SIGNED = 0 };
    uint4 q[2];
    unsigned s; /* scale, min of the first group, of the second */
    half2 d;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = first + step;
        q[0] = __ldg((const uint4 *)w.q + block * 8 + 2 * t);
        q[1] = __ldg((const uint4 *)w.q + block * 8 + 2 * t + 1);
        const unsigned *v = (const unsigned *)w.s + block * 3;
        const unsigned x = v[0] >> 16 * (t % 2), y = v[1] >> 16 * (t % 2), z = v[2] >> 16 * (t % 2);
        const unsigned low = t < 2 ? x & 0x3f3f : (z & 0x0f0f) | (x >> 2 & 0x3030);
        const unsigned min = t < 2 ? y & 0x3f3f : (z >> 4 & 0x0f0f) | (y >> 2 & 0x3030);
        s = __byte_perm(low, min, 0x5140);
        d = ((const half2 *)w.d)[block];
    }
    __device__ static int at(int t, int i) { return 64 * t + 32 * i; }
    __device__ void get(unsigned *v, int i, int j, const char *) const
    {
        const uint4 u = q[j / 2];
        v[0] = (j % 2 ? u.z : u.x) >> 4 * i & 0x0f0f0f0f;
        v[1] = (j % 2 ? u.w : u.y) >> 4 * i & 0x0f0f0f0f;
    }
    __device__ float factor(int i) const { return __low2float(d) * (float)(s >> 16 * i & 255); }
    __device__ float inner(int i) const { return whole_byte(s, 2 * i); }
    __device__ float outer() const { return __low2float(d); }
    __device__ float least(int k) const
    {
        return __high2float(d) * (float)(s >> (16 * k + 8) & 255);
    }
    __device__ float less(int k) const { return whole_byte(s, 2 * k + 1); }
    __device__ float outer_less() const { return __high2float(d); }
};

/* Lane t of a step of 128 columns has the t-th block of 32. */
template <> struct Part<QUANT_Q8_0> {
    enum { STEPS = 2, MINS = 0, JUMP = 16, IS_SIGNED = 1 };
    uint4 q[2];
    half d;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = (size_t)first * 8 + (4 * step + t);
        q[0] = __ldg((const uint4 *)w.q + 2 * block);
        q[1] = __ldg((const uint4 *)w.q + 2 * block + 1);
        d = w.d[block];
    }
    __device__ static int at(int t, int i) { return 128 * i + 32 * t; }
    __device__ void get(unsigned *v, int, int j, const char *) const
    {
        const uint4 u = q[j / 2];
        v[0] = j % 2 ? u.z : u.x;
        v[1] = j % 2 ? u.w : u.y;
    }
    __device__ float factor(int) const { return __half2float(d); }
    __device__ float inner(int) const { return factor(0); }
    __device__ float outer() const { return 1; }
    __device__ float least(int) const { return 0; }
    __device__ float less(int) const { return 0; }
    __device__ float outer_less() const { return 0; }
};

/* Likewise; values are doubled to be whole: 0 1 2 3 4 6 8 12. */
template <> struct Part<QUANT_MXFP4> {
    enum { STEPS = 2, MINS = 0, JUMP = 16, IS_SIGNED = 1 };
    uint4 q;
    uint8_t e;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = (size_t)first * 8 + (4 * step + t);
        q = __ldg((const uint4 *)w.q + block);
        e = w.s[block];
    }
    __device__ static int at(int t, int i) { return 128 * i + 32 * t; }
    /* The low nibbles of a word (high: the high ones) to bytes of values. */
    __device__ static unsigned values_of(unsigned u, bool high)
    {
        const unsigned choice = u & 0x77777777, take = high ? 0x7531 : 0x6420;
        const unsigned plus = bytes_from(bytes_from(0x03020100, 0x0c080604, choice),
                                         bytes_from(0x03020100, 0x0c080604, choice >> 16), take);
        const unsigned minus = bytes_from(bytes_from(0xfdfeff00, 0xf4f8fafc, choice),
                                          bytes_from(0xfdfeff00, 0xf4f8fafc, choice >> 16), take);
        const unsigned mask = bytes_from(high ? u : u << 4, 0, 0xba98); /* bit 3 of each */
        return (plus & ~mask) | (minus & mask);
    }
    __device__ void get(unsigned *v, int, int j, const char *) const
    {
        v[0] = values_of(j % 2 ? q.z : q.x, j / 2);
        v[1] = values_of(j % 2 ? q.w : q.y, j / 2);
    }
    __device__ float factor(int) const
    {
        return 0.5f * (e == 0 ? __uint_as_float(0x00400000) : __uint_as_float((unsigned)e << 23));
    }
    __device__ float inner(int) const { return factor(0); }
    __device__ float outer() const { return 1; }
    __device__ float least(int) const { return 0; }
    __device__ float less(int) const { return 0; }
    __device__ float outer_less() const { return 0; }
};

#endif
