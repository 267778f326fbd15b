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
    COPIES = 16, /* of the table: half as many conflicts as lanes */
    TABLE = 256 * COPIES
};

/* What lane t holds of a row whose first chunk is number `first` of all: in a step of 256 columns both groups (STEPS 1), or in a step of
 * 128 one (STEPS 2).
 *
 *   get      eight j of group i, 2 words of int8
 *   at       the first column of group i; eight j begins JUMP (j / 2) + 8 (j % 2) further
 *   factor   of group i
 *   least    what is subtracted in sub-block k, of MINS a lane: each is two eights (4) or
 *            a group (2)
 *
 * IS_SIGNED: there are values below 0. SWAPPED: an eight's bytes are in the order
 * 0 4 1 5 2 6 3 7. */
template <int TYPE> struct Part;

/* Nibbles choose from these bytes: 8 25 43 with bit 2 for the sign. */
static const unsigned iq2_plus = 0x002b1908, iq2_minus = 0x00d5e7f8;

/* A byte permutation's choice for each grid entry, value i of eight at nibble place(i):
 * 0 2 4 6 1 3 5 7. That is where multiplying spreads the sign bits to; inputs have the
 * same order. */
__device__ static void fill_table(unsigned *table, const uint2 *grid)
{
    for (int i = threadIdx.x; i < 256; i += blockDim.x) {
        const uint2 v = grid[i];
        unsigned choice = 0;
        for (int k = 0; k < 4; k++)
            choice |= (v.x >> (8 * k + 4) & 3) << 8 * k | (v.y >> (8 * k + 4) & 3) << (8 * k + 4);
        for (int c = 0; c < COPIES / 4; c++) /* in turns: no two lanes meet in a bank */
            ((uint4 *)table)[i * (COPIES / 4) + (c + i / 2) % (COPIES / 4)] =
                make_uint4(choice, choice, choice, choice);
    }
}

template <> struct Part<QUANT_IQ2_XXS> {
    enum { STEPS = 1, MINS = 0, JUMP = 16, IS_SIGNED = 1, SWAPPED = 1 };
    uint4 q; /* index, signs of two groups */
    half d;
    __device__ void load(const DevWeight &w, unsigned first, int step, int t)
    {
        const size_t block = first + step;
        q = __ldg((const uint4 *)w.q + block * 4 + t);
        d = w.d[block];
    }
    __device__ static int at(int t, int i) { return 64 * t + 32 * i; }
    __device__ void get(unsigned *v, int i, int j, const unsigned *table) const
    {
        const unsigned index = i ? q.z : q.x, s = i ? q.w : q.y;
        /* the eighth sign is the parity of the seven: bits 0, 7, 14, 21 of p */
        const unsigned two = s ^ s >> 1, four = two ^ two >> 2, p = four ^ two >> 4 ^ s >> 6;
        const char *mine = (const char *)(table + threadIdx.x % COPIES);
        const unsigned at = (j == 0 ? index << 6 : index >> (8 * j - 6)) & 0x3fc0;
        const unsigned signs = (s >> 7 * j & 127) * 0x00810204u & 0x04444444;
        const unsigned last = p << (30 - 7 * j) & 0x40000000;
        const unsigned choice = *(const unsigned *)(mine + at) ^ signs ^ last;
        v[0] = __byte_perm(iq2_plus, iq2_minus, choice);
        v[1] = __byte_perm(iq2_plus, iq2_minus, choice >> 16);
    }
    __device__ float factor(int i) const
    {
        return __half2float(d) * (0.125f * (float)(2 * ((i ? q.w : q.y) >> 28) + 1));
    }
    __device__ float least(int) const { return 0; }
};

/* Lane t has bytes 16 t .. of the block: with n = t / 2 and h = t % 2 the sub-blocks of 16 at
 * columns 128 n + 16 h + 32 k. The scale is in the int8 values. */
template <> struct Part<QUANT_Q2_K> {
    enum { STEPS = 1, MINS = 4, JUMP = 32, IS_SIGNED = 0, SWAPPED = 0 };
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
    __device__ void get(unsigned *v, int i, int j, const unsigned *) const
    {
        const int k = 2 * i + j / 2;
        const unsigned scale = s >> 8 * k & 15;
        v[0] = ((j % 2 ? q.z : q.x) >> 2 * k & 0x03030303) * scale;
        v[1] = ((j % 2 ? q.w : q.y) >> 2 * k & 0x03030303) * scale;
    }
    __device__ float factor(int) const { return __low2float(d); }
    __device__ float least(int k) const { return __high2float(d) * (float)(s >> (8 * k + 4) & 15); }
};

/* Lane t has bytes 32 t ..: groups 2t in the low nibbles, 2t + 1 in the high ones. */
template <> struct Part<QUANT_Q4_K> {
    enum { STEPS = 1, MINS = 2, JUMP = 16, IS_SIGNED = 0, SWAPPED = 0 };
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
    __device__ void get(unsigned *v, int i, int j, const unsigned *) const
    {
        const uint4 u = q[j / 2];
        v[0] = (j % 2 ? u.z : u.x) >> 4 * i & 0x0f0f0f0f;
        v[1] = (j % 2 ? u.w : u.y) >> 4 * i & 0x0f0f0f0f;
    }
    __device__ float factor(int i) const { return __low2float(d) * (float)(s >> 16 * i & 255); }
    __device__ float least(int k) const
    {
        return __high2float(d) * (float)(s >> (16 * k + 8) & 255);
    }
};

/* Lane t of a step of 128 columns has the t-th block of 32. */
template <> struct Part<QUANT_Q8_0> {
    enum { STEPS = 2, MINS = 0, JUMP = 16, IS_SIGNED = 1, SWAPPED = 0 };
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
    __device__ void get(unsigned *v, int, int j, const unsigned *) const
    {
        const uint4 u = q[j / 2];
        v[0] = j % 2 ? u.z : u.x;
        v[1] = j % 2 ? u.w : u.y;
    }
    __device__ float factor(int) const { return __half2float(d); }
    __device__ float least(int) const { return 0; }
};

/* Likewise; values are doubled to be whole: 0 1 2 3 4 6 8 12. */
template <> struct Part<QUANT_MXFP4> {
    enum { STEPS = 2, MINS = 0, JUMP = 16, IS_SIGNED = 1, SWAPPED = 0 };
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
        const unsigned plus = __byte_perm(__byte_perm(0x03020100, 0x0c080604, choice),
                                          __byte_perm(0x03020100, 0x0c080604, choice >> 16), take);
        const unsigned minus = __byte_perm(__byte_perm(0xfdfeff00, 0xf4f8fafc, choice),
                                           __byte_perm(0xfdfeff00, 0xf4f8fafc, choice >> 16), take);
        const unsigned mask = __byte_perm(high ? u : u << 4, 0, 0xba98); /* bit 3 of each */
        return (plus & ~mask) | (minus & mask);
    }
    __device__ void get(unsigned *v, int, int j, const unsigned *) const
    {
        v[0] = values_of(j % 2 ? q.z : q.x, j / 2);
        v[1] = values_of(j % 2 ? q.w : q.y, j / 2);
    }
    __device__ float factor(int) const
    {
        return 0.5f * (e == 0 ? __uint_as_float(0x00400000) : __uint_as_float((unsigned)e << 23));
    }
    __device__ float least(int) const { return 0; }
};

#endif
