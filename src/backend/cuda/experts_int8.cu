/* experts_int8.cu - few rows times experts in packed formats, on the int8 tensor cores.
 *
 * The values of these formats are small whole numbers times a factor: 8, 25 or 43 with a
 * sign, a code of 2 bits times a scale of 4, ... Inputs become whole numbers of 24 bits a
 * chunk of 256 columns at a time, cut into three int8 "limbs". A weight is decoded once to
 * int8 and multiplied with the limbs, sums are exact, and what remains is an F32 product
 * for every 32 columns: as precise as F32, at about two instructions a weight.
 *
 * mma.m16n8k32 has 16 weight rows as A, and 8 columns as B, of which a row of inputs needs
 * 3. The others keep apart what has different factors: of each 256 columns lane t of a quad
 * owns 64 in two groups of 32, and its limbs are in columns 2t and 2t + 1 (limb 2 in a
 * second product) while those columns are zero for other lanes. So lane t's results are
 * just its own group's, of rows g and g + 8 (lane = 4g + t), whose factors it has.
 *
 * A block takes tiles: 32 rows (16 of gate and 16 of up; 32 of down) of one expert, with
 * up to T pairs. Its warps share the columns, a step of 128 or 256 each in turn; their
 * sums meet in shared memory in the order of the warps. Bytes: each weight once for T
 * pairs, the inputs once a block and expert. */
#include "experts.cuh"
#include "experts_mma.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    CHUNK = 256,
    LIMBS = 3,
    LIMB_STRIDE = CHUNK + 16, /* two limbs of the same columns do not meet in a bank */
    CHUNK_BYTES = LIMBS * LIMB_STRIDE,
    MOST_COLS = 8192, /* whose inputs fit shared memory */
    COPIES = 16,      /* of the table: half as many conflicts as lanes */
    TILE = 32
};

/* ---- a lane's weights of a row ---------------------------------------------------------- */

/* What lane t holds of row r: in a step of 256 columns two groups of 32 (STEPS 1), or one
 * (STEPS 2, steps of 128). get: 8 words of 4 int8 of group i, words 2j and 2j + 1 being
 * columns at(t, i) + 8j .., where Q2_K has jumps. factor: of the group; least: what is to be
 * subtracted for each value of sub-block k of the lane. */
template <int TYPE> struct Part;

/* Nibbles choose from these bytes: 8 25 43 with bit 2 for the sign. */
static const unsigned iq2_plus = 0x002b1908, iq2_minus = 0x00d5e7f8;

/* A byte permutation's choice for each grid entry, value i of eight at nibble place(i):
 * 0 2 4 6 1 3 5 7. That is where multiplying spreads the sign bits to; inputs have the
 * same order. */
__device__ static void fill_table(unsigned *table, const uint2 *grid)
{
    for (int i = threadIdx.x; i < 256; i += THREADS) {
        const uint2 v = grid[i];
        unsigned choice = 0;
        for (int k = 0; k < 4; k++)
            choice |= (v.x >> (8 * k + 4) & 3) << 8 * k | (v.y >> (8 * k + 4) & 3) << (8 * k + 4);
        for (int c = 0; c < COPIES; c++)
            table[i * COPIES + c] = choice;
    }
}

template <> struct Part<QUANT_IQ2_XXS> {
    enum { STEPS = 1, MINS = 0 };
    uint4 q; /* index, signs of two groups */
    half d;
    __device__ void load(const DevWeight &w, size_t r, int step, int t)
    {
        const size_t block = r * (w.cols / CHUNK) + step;
        q = __ldg((const uint4 *)w.q + block * 4 + t);
        d = w.d[block];
    }
    __device__ static int at(int t, int i) { return 64 * t + 32 * i; }
    __device__ void get(unsigned *v, int i, const unsigned *table) const
    {
        const unsigned index = i ? q.z : q.x, s = i ? q.w : q.y;
        /* the eighth sign is the parity of the seven: bits 0, 7, 14, 21 of p */
        const unsigned two = s ^ s >> 1, four = two ^ two >> 2, p = four ^ two >> 4 ^ s >> 6;
        const char *mine = (const char *)(table + threadIdx.x % COPIES);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const unsigned at = (j == 0 ? index << 6 : index >> (8 * j - 6)) & 0x3fc0;
            const unsigned signs = (s >> 7 * j & 127) * 0x00810204u & 0x04444444;
            const unsigned last = p << (30 - 7 * j) & 0x40000000;
            const unsigned choice = *(const unsigned *)(mine + at) ^ signs ^ last;
            v[2 * j] = __byte_perm(iq2_plus, iq2_minus, choice);
            v[2 * j + 1] = __byte_perm(iq2_plus, iq2_minus, choice >> 16);
        }
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
    enum { STEPS = 1, MINS = 4 };
    uint4 q;
    unsigned s; /* scales and mins of the 4 sub-blocks */
    half2 d;
    __device__ void load(const DevWeight &w, size_t r, int step, int t)
    {
        const size_t block = r * (w.cols / CHUNK) + step;
        q = __ldg((const uint4 *)w.q + block * 4 + t);
        const uint2 v = __ldg((const uint2 *)w.s + block * 2 + t / 2);
        s = __byte_perm(v.x, v.y, t % 2 ? 0x7531 : 0x6420);
        d = ((const half2 *)w.d)[block];
    }
    __device__ static int at(int t, int i) { return 128 * (t / 2) + 16 * (t % 2) + 64 * i; }
    __device__ void get(unsigned *v, int i, const unsigned *) const
    {
        const unsigned u[4] = { q.x, q.y, q.z, q.w };
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const int k = 2 * i + j / 4;
            v[j] = (u[j % 4] >> 2 * k & 0x03030303) * (s >> 8 * k & 15);
        }
    }
    __device__ float factor(int) const { return __low2float(d); }
    __device__ float least(int k) const { return __high2float(d) * (float)(s >> (8 * k + 4) & 15); }
};

/* Lane t has bytes 32 t ..: groups 2t in the low nibbles, 2t + 1 in the high ones. */
template <> struct Part<QUANT_Q4_K> {
    enum { STEPS = 1, MINS = 2 };
    uint4 q[2];
    unsigned s; /* scale, min of the first group, of the second */
    half2 d;
    __device__ void load(const DevWeight &w, size_t r, int step, int t)
    {
        const size_t block = r * (w.cols / CHUNK) + step;
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
    __device__ void get(unsigned *v, int i, const unsigned *) const
    {
        const unsigned u[8] = { q[0].x, q[0].y, q[0].z, q[0].w, q[1].x, q[1].y, q[1].z, q[1].w };
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = u[j] >> 4 * i & 0x0f0f0f0f;
    }
    __device__ float factor(int i) const { return __low2float(d) * (float)(s >> 16 * i & 255); }
    __device__ float least(int k) const
    {
        return __high2float(d) * (float)(s >> (16 * k + 8) & 255);
    }
};

/* Lane t of a step of 128 columns has the t-th block of 32. */
template <> struct Part<QUANT_Q8_0> {
    enum { STEPS = 2, MINS = 0 };
    uint4 q[2];
    half d;
    __device__ void load(const DevWeight &w, size_t r, int step, int t)
    {
        const size_t block = r * (w.cols / 32) + 4 * step + t;
        q[0] = __ldg((const uint4 *)w.q + 2 * block);
        q[1] = __ldg((const uint4 *)w.q + 2 * block + 1);
        d = w.d[block];
    }
    __device__ static int at(int t, int i) { return 128 * i + 32 * t; }
    __device__ void get(unsigned *v, int, const unsigned *) const
    {
        v[0] = q[0].x, v[1] = q[0].y, v[2] = q[0].z, v[3] = q[0].w;
        v[4] = q[1].x, v[5] = q[1].y, v[6] = q[1].z, v[7] = q[1].w;
    }
    __device__ float factor(int) const { return __half2float(d); }
    __device__ float least(int) const { return 0; }
};

/* Likewise; values are doubled to be whole: 0 1 2 3 4 6 8 12. */
template <> struct Part<QUANT_MXFP4> {
    enum { STEPS = 2, MINS = 0 };
    uint4 q;
    uint8_t e;
    __device__ void load(const DevWeight &w, size_t r, int step, int t)
    {
        const size_t block = r * (w.cols / 32) + 4 * step + t;
        q = __ldg((const uint4 *)w.q + block);
        e = w.s[block];
    }
    __device__ static int at(int t, int i) { return 128 * i + 32 * t; }
    /* Bytes of codes to those of values; signs: where the codes' bit 3 is bit 7. */
    __device__ static unsigned with_signs(unsigned plus, unsigned minus, unsigned signs)
    {
        const unsigned mask = __byte_perm(signs, 0, 0xba98);
        return (plus & ~mask) | (minus & mask);
    }
    __device__ void get(unsigned *v, int, const unsigned *) const
    {
        const unsigned u[4] = { q.x, q.y, q.z, q.w };
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const unsigned choice = u[j] & 0x77777777;
            const unsigned a = __byte_perm(0x03020100, 0x0c080604, choice);
            const unsigned b = __byte_perm(0x03020100, 0x0c080604, choice >> 16);
            const unsigned c = __byte_perm(0xfdfeff00, 0xf4f8fafc, choice);
            const unsigned d = __byte_perm(0xfdfeff00, 0xf4f8fafc, choice >> 16);
            v[j] = with_signs(__byte_perm(a, b, 0x6420), __byte_perm(c, d, 0x6420), u[j] << 4);
            v[4 + j] = with_signs(__byte_perm(a, b, 0x7531), __byte_perm(c, d, 0x7531), u[j]);
        }
    }
    __device__ float factor(int) const
    {
        return 0.5f * (e == 0 ? __uint_as_float(0x00400000) : __uint_as_float((unsigned)e << 23));
    }
    __device__ float least(int) const { return 0; }
};

/* ---- inputs ----------------------------------------------------------------------------- */

/* T rows of inputs in shared memory. */
struct Limbs {
    char *limb;   /* [T][chunks][LIMBS][LIMB_STRIDE], the first limb counts 65536 */
    float *scale; /* [T][chunks] of a chunk's whole numbers */
    float *sum;   /* [T][chunks][16] of 16 inputs */
    int chunks;
};

/* Bytes i of four words. */
__device__ static unsigned bytes_of(const unsigned *y, int i)
{
    const unsigned two = 0x40 + 0x11 * i;
    return __byte_perm(__byte_perm(y[0], y[1], two), __byte_perm(y[2], y[3], two), 0x5410);
}

/* A warp: 256 inputs, 8 a lane. Digits are -128 .. 127, so a byte of the number plus
 * 0x808080 is a digit but for its top bit. swapped: in the order of IQ2_XXS's table. */
__device__ static void cut_chunk(const Limbs &l, int token, int chunk, const float *x, bool swapped)
{
    const int lane = threadIdx.x % WARP;
    const float4 a = *(const float4 *)(x + 8 * lane), b = *(const float4 *)(x + 8 * lane + 4);
    const float v[8] = { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w };
    const float most = 8300000; /* less than 127 127 127 in base 256 */
    unsigned bits = 0, y[8];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        bits = max(bits, __float_as_uint(v[i]) & 0x7fffffff);
        sum += v[i];
    }
    bits = __reduce_max_sync(~0u, bits);
    const float max = __uint_as_float(bits);
    const bool none = !(max >= 1e-30f), wild = bits >= 0x7f800000; /* NaN or infinite */
    const float times = none || wild ? 0 : most / max;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int to = swapped ? 2 * (i % 4) + i / 4 : i;
        y[to] = wild ? 0 : (unsigned)(__float2int_rn(v[i] * times) + 0x808080);
    }
    char *to = l.limb + (size_t)(token * l.chunks + chunk) * CHUNK_BYTES + 8 * lane;
#pragma unroll
    for (int i = 0; i < LIMBS; i++)
        *(uint2 *)(to + i * LIMB_STRIDE) = make_uint2(bytes_of(y, LIMBS - 1 - i) ^ 0x80808080,
                                                      bytes_of(y + 4, LIMBS - 1 - i) ^ 0x80808080);
    sum += __shfl_xor_sync(~0u, sum, 1);
    if (lane % 2 == 0)
        l.sum[(token * l.chunks + chunk) * 16 + lane / 2] = sum;
    if (lane == 0)
        l.scale[token * l.chunks + chunk] = wild   ? __uint_as_float(0x7fffffff)
                                            : none ? 0
                                                   : max / most;
}

/* ---- which pairs --------------------------------------------------------------------------- */

/* Of all pairs in shared memory. A unit is up to T pairs of one expert. */
struct Units {
    int *id;    /* [pairs] */
    int *next;  /* [pairs] the next pair with the same expert; pairs: none */
    int *start; /* [pairs] a unit's first pair */
    int n;
};

template <int T> __device__ static void find_units(Units *u, const int *ids, int pairs)
{
    for (int p = threadIdx.x; p < pairs; p += THREADS)
        u->id[p] = ids ? ids[p] : 0;
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        const int mine = u->id[p];
        int before = 0, next = pairs;
#pragma unroll 8
        for (int q = 0; q < pairs; q++) {
            const bool same = u->id[q] == mine;
            before += same && q < p;
            next = min(next, same && q > p ? q : pairs);
        }
        u->next[p] = before % T ? ~next : next; /* negative: no unit begins here */
    }
    __syncthreads();
    int n = 0;
    for (int p = 0; p < pairs; p++)
        n += u->next[p] >= 0;
    u->n = n;
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        int before = 0;
        for (int q = 0; q < p; q++)
            before += u->next[q] >= 0;
        if (u->next[p] >= 0)
            u->start[before] = p;
    }
    __syncthreads();
}

__device__ static int next_pair(const Units &u, int p)
{
    return u.next[p] < 0 ? ~u.next[p] : u.next[p];
}

/* ---- a tile ----------------------------------------------------------------------------------- */

struct Job {
    DevWeight w[2]; /* gate and up; or down twice */
    int down;       /* rows of w[1] begin TILE / 2 rows behind those of w[0] */
    const int *ids;
    const float *gates;
    const float *x; /* [pairs / per][w.cols] */
    float *out;     /* [pairs][w.rows] */
    int rows, pairs, per;
    float limit;
    bool add;
};

template <int TYPE> struct Weights {
    Part<TYPE> part[2][2]; /* of both matrices rows g and g + 8 */
};

/* Step `step` of tile `tile` of expert e. */
template <int TYPE>
__device__ static void load(Weights<TYPE> *p, const Job &j, int e, int tile, int step)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const size_t row = (size_t)e * j.w[0].rows + (size_t)tile * (j.down ? TILE : TILE / 2) + g;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            p->part[m][r].load(j.w[m], row + (m && j.down ? TILE / 2 : 0) + 8 * r, step, t);
}

/* acc += factor * (limbs . weights) of one group of 32 a lane. */
template <int TYPE, int T>
__device__ static void add_group(float acc[2][2][T], const Weights<TYPE> &p, const Limbs &l, int n,
                                 int chunk, int i, const unsigned *table)
{
    enum { JUMP = TYPE == QUANT_Q2_K ? 32 : 16 };
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const bool mine = g / 2 == t, third = mine && g % 2 == 0;
    unsigned v[2][2][8];
    float factor[2][2];
#pragma unroll
    for (int m = 0; m < 4; m++) {
        p.part[m / 2][m % 2].get(v[m / 2][m % 2], i, table);
        factor[m / 2][m % 2] = p.part[m / 2][m % 2].factor(i);
    }
    const char *x = l.limb + chunk * CHUNK_BYTES + Part<TYPE>::at(t, i);
#pragma unroll
    for (int k = 0; k < T; k++, x += l.chunks * CHUNK_BYTES) {
        if (T > 1 && k >= n)
            continue;
        int c[2][8] = {};
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint4 b = make_uint4(0, 0, 0, 0), b3 = b;
            if (mine)
                b = *(const uint4 *)(x + g % 2 * LIMB_STRIDE + j * JUMP);
            if (third)
                b3 = *(const uint4 *)(x + 2 * LIMB_STRIDE + j * JUMP);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const unsigned(*w)[8] = v[m];
                const int o = 4 * j;
                const unsigned first[4] = { w[0][o], w[1][o], w[0][o + 1], w[1][o + 1] };
                const unsigned second[4] = { w[0][o + 2], w[1][o + 2], w[0][o + 3], w[1][o + 3] };
                mma_s8(c[m], first, b.x, b.y);
                mma_s8(c[m] + 4, first, b3.x, b3.y);
                mma_s8(c[m], second, b.z, b.w);
                mma_s8(c[m] + 4, second, b3.z, b3.w);
            }
        }
        const float scale = l.scale[k * l.chunks + chunk];
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int *s = c[m / 2] + 2 * (m % 2);
            const float whole = fmaf((float)s[0], 65536, fmaf((float)s[1], 256, (float)s[4]));
            acc[m / 2][m % 2][k] = fmaf(factor[m / 2][m % 2] * scale, whole, acc[m / 2][m % 2][k]);
        }
    }
}

/* acc -= least times the inputs' sums. */
template <int TYPE, int T>
__device__ static void take_least(float acc[2][2][T], const Weights<TYPE> &p, const Limbs &l, int n,
                                  int chunk)
{
    enum { MINS = Part<TYPE>::MINS };
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < T; k++) {
        if (T > 1 && k >= n)
            continue;
        const float *sum = l.sum + (k * l.chunks + chunk) * 16;
#pragma unroll
        for (int b = 0; b < MINS; b++) {
            const float s = MINS == 4 ? sum[8 * (t / 2) + t % 2 + 2 * b]
                                      : sum[4 * t + 2 * b] + sum[4 * t + 2 * b + 1];
#pragma unroll
            for (int m = 0; m < 4; m++)
                acc[m / 2][m % 2][k] =
                    fmaf(-p.part[m / 2][m % 2].least(b), s, acc[m / 2][m % 2][k]);
        }
    }
}

/* Quads add up; lane t leaves rows g + 8 t of the warp's 32. to: [32][T] */
template <int T> __device__ static void leave_sums(float *to, const float acc[2][2][T])
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < T; k++) {
        float s[4];
#pragma unroll
        for (int m = 0; m < 4; m++) {
            s[m] = acc[m / 2][m % 2][k];
            s[m] += __shfl_xor_sync(~0u, s[m], 1);
            s[m] += __shfl_xor_sync(~0u, s[m], 2);
        }
        to[(g + 8 * t) * T + k] = t == 0 ? s[0] : t == 1 ? s[1] : t == 2 ? s[2] : s[3];
    }
}

/* sums: [WARPS][32][T]; pair: [T] of the unit */
template <int T>
__device__ static void finish_tile(const Job &j, int tile, const float *sums, const int *pair,
                                   int n)
{
    enum { ROWS = TILE / 2 };
    const int rows = j.down ? TILE : ROWS;
    for (int i = threadIdx.x; i < rows * T; i += THREADS) {
        const int k = i % T, row = i / T, p = pair[k];
        float a = 0, b = 0;
        if (k >= n)
            continue;
        for (int w = 0; w < WARPS; w++) {
            a += sums[(w * TILE + row) * T + k];
            b += j.down ? 0 : sums[(w * TILE + ROWS + row) * T + k];
        }
        float *out = j.out + (size_t)p * j.w[0].rows + (size_t)tile * rows + row;
        if (!j.down)
            *out = swiglu(a, b, j.limit, j.gates ? j.gates[p] : 1);
        else
            *out = j.add ? *out + a : a;
    }
}

static size_t limb_bytes(int T, int chunks)
{
    return (size_t)T * chunks * (CHUNK_BYTES + 17 * sizeof(float));
}
static size_t shared_bytes(int T, int chunks, int pairs)
{
    return limb_bytes(T, chunks) + (2 * WARPS * TILE * T + T + 3 * (size_t)pairs) * sizeof(float);
}

/* The pairs of a unit and their inputs, to shared memory. Returns how many. */
template <int TYPE, int T>
__device__ static int take_unit(const Job &j, const Units &u, int unit, const Limbs &l, int *pair)
{
    int n = 0;
    __syncthreads(); /* nobody reads the last unit's any more */
    for (int p = u.start[unit]; n < T && p < j.pairs; p = next_pair(u, p)) {
        if (threadIdx.x == 0)
            pair[n] = p;
        n++;
    }
    __syncthreads();
    for (int i = threadIdx.x / WARP; i < n * l.chunks; i += WARPS) {
        const int token = i / l.chunks, chunk = i % l.chunks;
        const float *x = j.x + (size_t)(pair[token] / j.per) * j.w[0].cols + chunk * CHUNK;
        cut_chunk(l, token, chunk, x, TYPE == QUANT_IQ2_XXS);
    }
    __syncthreads();
    return n;
}

/* Block i of b takes tiles i * all / b .. of all units' tiles, one after the other; the
 * weights of a warp's next step are on their way while it multiplies. */
template <int TYPE, int T>
__global__ void __launch_bounds__(THREADS, T == 1 ? 2 : 1) few_tiles(Job j, const uint2 *grid)
{
    enum { IQ2 = TYPE == QUANT_IQ2_XXS, STEPS = Part<TYPE>::STEPS };
    extern __shared__ __align__(16) char shared[];
    __shared__ unsigned table[IQ2 ? 256 * COPIES : 1];
    const int chunks = j.w[0].cols / CHUNK, steps = chunks * STEPS, warp = threadIdx.x / WARP;
    Limbs l = { shared, (float *)(shared + T * chunks * CHUNK_BYTES), NULL, chunks };
    l.sum = l.scale + T * chunks;
    float *sums = l.sum + T * chunks * 16;
    int *pair = (int *)(sums + 2 * WARPS * TILE * T);
    Units u = { pair + T, pair + T + j.pairs, pair + T + 2 * j.pairs, 0 };

    let_others_start();
    if (IQ2)
        fill_table(table, grid);
    wait_for_others();
    find_units<T>(&u, j.ids, j.pairs);
    const int tiles = j.w[0].rows / (j.down ? TILE : TILE / 2);
    const int all = u.n * tiles;
    const int from = (int)((long long)all * blockIdx.x / gridDim.x);
    const int to = (int)((long long)all * (blockIdx.x + 1) / gridDim.x);
    if (from == to)
        return;
    Weights<TYPE> next;
    if (warp < steps)
        load(&next, j, u.id[u.start[from / tiles]], from % tiles, warp);
    int n = 0;
    for (int i = from; i < to; i++) {
        if (i == from || i % tiles == 0)
            n = take_unit<TYPE, T>(j, u, i / tiles, l, pair);
        float acc[2][2][T] = {};
        for (int s = warp; s < steps; s += WARPS) {
            const Weights<TYPE> now = next;
            const int ahead = s + WARPS < steps ? i : i + 1;
            if (ahead < to)
                load(&next, j, u.id[u.start[ahead / tiles]], ahead % tiles,
                     ahead == i ? s + WARPS : warp);
#pragma unroll
            for (int k = 0; k < 3 - STEPS; k++)
                add_group<TYPE, T>(acc, now, l, n, s / STEPS, STEPS == 1 ? k : s % 2, table);
            if (Part<TYPE>::MINS)
                take_least<TYPE, T>(acc, now, l, n, s / STEPS);
        }
        float *mine = sums + i % 2 * WARPS * TILE * T;
        leave_sums<T>(mine + warp * TILE * T, acc);
        __syncthreads();
        finish_tile<T>(j, i % tiles, mine, pair, n);
    }
}

/* ---- launches ----------------------------------------------------------------------------------- */

template <int TYPE, int T> static void launch(Cuda *c, const Job &j)
{
    const size_t bytes = shared_bytes(T, j.w[0].cols / CHUNK, j.pairs);
    const int tiles = j.w[0].rows / (j.down ? TILE : TILE / 2);
    int fit = 1;
    NOTE(c, cudaFuncSetAttribute(few_tiles<TYPE, T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)bytes));
    NOTE(c,
         cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, few_tiles<TYPE, T>, THREADS, bytes));
    const int grid = MIN(j.pairs * tiles, MAX(fit, 1) * c->sm_count);
    LAUNCH(c, (few_tiles<TYPE, T>), grid, THREADS, bytes, j, (const uint2 *)c->iq2_grid);
}

template <int TYPE> static void run(Cuda *c, const Job &j)
{
    if (j.rows == 1) /* an expert has one pair */
        launch<TYPE, 1>(c, j);
    else
        launch<TYPE, 4>(c, j);
}

static void run_job(Cuda *c, const Job &j)
{
    switch (j.w[0].type) {
    case QUANT_IQ2_XXS: run<QUANT_IQ2_XXS>(c, j); break;
    case QUANT_Q2_K: run<QUANT_Q2_K>(c, j); break;
    case QUANT_Q4_K: run<QUANT_Q4_K>(c, j); break;
    case QUANT_Q8_0: run<QUANT_Q8_0>(c, j); break;
    case QUANT_MXFP4: run<QUANT_MXFP4>(c, j); break;
    }
}

bool int8_fits(const DevWeight *w)
{
    return (w->type == QUANT_IQ2_XXS || w->type == QUANT_Q2_K || w->type == QUANT_Q4_K ||
            w->type == QUANT_Q8_0 || w->type == QUANT_MXFP4) &&
           w->cols % CHUNK == 0 && w->cols <= MOST_COLS && w->rows % TILE == 0;
}

void int8_up(Cuda *c, const Moe *m, float *h)
{
    run_job(c, { { m->gate, m->up },
                 0,
                 m->ids,
                 m->gates,
                 m->x,
                 h,
                 m->n_rows,
                 pairs_of(m),
                 m->active,
                 m->limit,
                 false });
}

void int8_down(Cuda *c, const Moe *m, const float *h, float *out, bool add)
{
    run_job(c,
            { { m->down, m->down }, 1, m->ids, NULL, h, out, m->n_rows, pairs_of(m), 1, 0, add });
}
