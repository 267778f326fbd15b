/* experts_int8.cu - few rows times experts in packed formats, on the int8 tensor cores.
 *
 * The values of these formats are small whole numbers times a factor: 8, 25 or 43 with a
 * sign, a code of 2 bits times a scale of 4, ... Inputs become whole numbers of 24 bits a
 * chunk of 256 columns at a time, cut into three int8 "limbs". A weight is decoded once to
 * int8 and multiplied with the limbs, sums are exact, and what remains is an F32 product
 * for every 32 columns: as precise as F32, at less than two instructions a weight.
 *
 * mma.m16n8k32 has 16 weight rows as A, and 8 columns as B, of which a row of inputs needs
 * 3. The others keep apart what has different factors: of each 256 columns lane t of a quad
 * owns 64 in two groups of 32, and its limbs are in columns 2t and 2t + 1 while those
 * columns are zero for other lanes. So lane t's results are just its own group's, of rows g
 * and g + 8 (lane = 4g + t), whose factors it has. A first product has limbs 0 and 1, one for
 * each pair; one more has limb 2 of both pairs.
 *
 * A tile is 32 rows: 16 of gate and the same 16 of up, or 32 of down. A unit is what is
 * multiplied with one set of inputs: for gate and up the pairs, up to T, of one expert; for
 * down a row, with all its experts. Its sources are the chunks of its inputs, one expert's
 * after the other's in ascending order. A block takes tiles of units one after the other,
 * several in a batch, and a warp of it takes the sources w, w + WARPS, ...: it alone needs
 * them, so it cuts them for itself once a unit, and nobody waits for anybody before the end
 * of a batch. Then warps add up the sources' sums of a tile each, in order: the same order
 * and numbers in whatever company.
 *
 * Bytes: each weight once for T pairs (gate, up) or one (down); the inputs once a block and
 * unit; of each tile and source 128 bytes a pair through shared memory. Down leaves the sum
 * over a row's experts, so nothing of a pair's goes through memory but h. */
#include "experts_mma.cuh"
#include "experts_parts.cuh"

enum {
    WARPS = 16, /* one block a multiprocessor */
    THREADS = WARPS * WARP,
    LIMBS = 3,
    LIMB_STRIDE = CHUNK + 16, /* two limbs of the same columns do not meet in a bank */
    TILE = 32,
    MOST_BATCH = 8 /* tiles */
};

/* Of all lanes the same, which the compiler cannot know of threadIdx. */
__device__ static int warp_number() { return __shfl_sync(~0u, threadIdx.x / WARP, 0); }

/* ---- inputs ----------------------------------------------------------------------------- */

/* A chunk of a row of inputs. */
struct Slot {
    char limb[LIMBS][LIMB_STRIDE]; /* the first counts 65536 */
    float sum[16];                 /* of 16 inputs each */
    float scale;                   /* of the whole numbers */
    float pad[3];
};

/* A lane's part of it. */
struct Eight {
    float4 a, b;
};

__device__ static Eight values_at(const float *x)
{
    const int lane = threadIdx.x % WARP;
    return { *(const float4 *)(x + 8 * lane), *(const float4 *)(x + 8 * lane + 4) };
}

/* Bytes i of four words. */
__device__ static unsigned bytes_of(const unsigned *y, int i)
{
    const unsigned two = 0x40 + 0x11 * i;
    return __byte_perm(__byte_perm(y[0], y[1], two), __byte_perm(y[2], y[3], two), 0x5410);
}

/* A warp: 256 inputs, 8 a lane. Digits are -128 .. 127, so a byte of the number plus
 * 0x808080 is a digit but for its top bit. */
__device__ static void cut(Slot *to, const Eight &x)
{
    const int lane = threadIdx.x % WARP;
    const float v[8] = { x.a.x, x.a.y, x.a.z, x.a.w, x.b.x, x.b.y, x.b.z, x.b.w };
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
    for (int i = 0; i < 8; i++)
        y[i] = wild ? 0 : (unsigned)(__float2int_rn(v[i] * times) + 0x808080);
#pragma unroll
    for (int i = 0; i < LIMBS; i++)
        *(uint2 *)(to->limb[i] + 8 * lane) = make_uint2(
            bytes_of(y, LIMBS - 1 - i) ^ 0x80808080, bytes_of(y + 4, LIMBS - 1 - i) ^ 0x80808080);
    sum += __shfl_xor_sync(~0u, sum, 1);
    if (lane % 2 == 0)
        to->sum[lane / 2] = sum;
    if (lane == 0)
        to->scale = wild ? __uint_as_float(0x7fffffff) : none ? 0 : max * (1 / most);
}

/* ---- jobs --------------------------------------------------------------------------------- */

struct Job {
    DevWeight w[2]; /* gate and up; or down twice */
    const int *ids; /* NULL: all 0 */
    const float *gates;
    const float *x; /* gate, up: [rows][w.cols]; down: [pairs][w.cols] */
    float *out;     /* [pairs][w.rows]; [rows][w.rows] */
    int rows, active;
    float limit;
    const float *plus; /* to out; NULL: nothing */
    bool known;        /* ids were ready before the kernel in front of this one did anything */
};

/* Tables in shared memory, of IQ2_XXS only: entry i is WIDE bytes, a word for each lane with
 * the eight nibbles of the grid's entry i, then one with the signs of index i % 128, see
 * experts_parts.cuh. So a byte of an index and a lane's number side by side are an address.
 * Behind them are the magnitudes: from there, a word for each lane, they come to a register and
 * stay there, where a constant is copied to one for each use. */
enum { WIDE = 2 * WARP * sizeof(unsigned), PLUS_AT = 256 * WIDE, TABLES = PLUS_AT + WIDE / 2 };

__device__ static void fill_wide(char *table, const uint2 *grid)
{
    if (threadIdx.x < WARP)
        ((unsigned *)(table + PLUS_AT))[threadIdx.x] = iq2_plus;
    for (int i = threadIdx.x; i < 2 * 256; i += THREADS) {
        const int entry = i / 2, sign = entry & 127;
        const unsigned mask = sign | (unsigned)(__popc(sign) & 1) << 7;
        const uint2 v = grid[entry];
        unsigned e = 0;
        for (int k = 0; k < 4; k++)
            if (i % 2 == 0)
                e |= (v.x >> (8 * k + 4) & 3) << 4 * k | (v.y >> (8 * k + 4) & 3) << (4 * k + 16);
            else
                e |= (mask >> k & 1) << (4 * k + 2) | (mask >> (k + 4) & 1) << (4 * k + 18);
        for (int c = 0; c < 8; c++) /* in turns, for the banks */
            ((uint4 *)table)[i * 8 + (c + i) % 8] = make_uint4(e, e, e, e);
    }
}

/* Eight j of group i of a lane's part, two words of int8 that are TIMES the values by factor. */
template <int TYPE> struct Decode {
    enum { BYTES = 0, TIMES = 1 };
    __device__ static void eight(unsigned *v, const Part<TYPE> &p, int i, int j, const char *)
    {
        p.get(v, i, j, NULL);
    }
};
template <> struct Decode<QUANT_IQ2_XXS> {
    enum { BYTES = TABLES, TIMES = 1 };
    __device__ static void eight(unsigned *v, const Part<QUANT_IQ2_XXS> &p, int i, int j,
                                 const char *table)
    {
        const unsigned index = i ? p.q.z : p.q.x, signs = i ? p.q.w : p.q.y;
        const unsigned lane = threadIdx.x % WARP * sizeof(unsigned), take = 0x5504 | j << 4;
        const unsigned at = bytes_from(index, lane, take);
        const unsigned sign_at = bytes_from(signs << j, lane, take); /* bit 7: of the next sign */
        const unsigned choice =
            *(const unsigned *)(table + at) ^ *(const unsigned *)(table + WIDE / 2 + sign_at);
        const unsigned plus = *(const unsigned *)(table + PLUS_AT + lane);
        v[0] = bytes_from(plus, iq2_minus, choice);
        v[1] = bytes_from(plus, iq2_minus, choice >> 16);
    }
};

/* Two codes' bits stay where they are, times 4; so values reach 180. */
template <> struct Decode<QUANT_Q2_K> {
    enum { BYTES = 0, TIMES = 4 };
    __device__ static void eight(unsigned *v, const Part<QUANT_Q2_K> &p, int i, int j, const char *)
    {
        const int k = 2 * i + j / 2;
        const unsigned mask = k % 2 ? 0x0c0c0c0c : 0x03030303;
        const unsigned scale = k == 0       ? p.s << 2 & 60
                               : k % 2 == 0 ? p.s >> (8 * k - 2) & 60
                                            : p.s >> 8 * k & 15;
        v[0] = ((j % 2 ? p.q.z : p.q.x) >> 4 * i & mask) * scale;
        v[1] = ((j % 2 ? p.q.w : p.q.y) >> 4 * i & mask) * scale;
    }
};

/* ---- units -------------------------------------------------------------------------------- */

/* In shared memory. Gate, up: [units][T] the pairs of a unit and their expert, pair -1: none.
 * Down: [rows][active] a row's by expert, ties as they came. */
struct Units {
    int2 *pair; /* pair, expert */
    int n;
};

/* Read past L1, which may have kept what was there in another layer. */
__device__ static int expert_of(const Job &j, int pair) { return j.ids ? __ldcg(j.ids + pair) : 0; }

__device__ static void sort_rows(Units *u, const Job &j)
{
    for (int p = threadIdx.x; p < j.rows * j.active; p += THREADS) {
        const int first = p / j.active * j.active, mine = expert_of(j, p);
        int before = 0;
#pragma unroll 8
        for (int q = first; q < first + j.active; q++) {
            const int other = expert_of(j, q);
            before += other < mine || (other == mine && q < p);
        }
        u->pair[first + before] = make_int2(p, mine);
    }
    u->n = j.rows;
    __syncthreads();
}

/* Units begin with every T-th pair of an expert. */
template <int T> __device__ static void find_units(Units *u, const Job &j)
{
    const int pairs = j.rows * j.active;
    int *id = (int *)(u->pair + T * pairs), *next = id + pairs;
    unsigned *starts = (unsigned *)(next + pairs); /* a bit a pair */
    for (int p = threadIdx.x; p < pairs; p += THREADS)
        id[p] = expert_of(j, p);
    __syncthreads();
    for (int p = threadIdx.x; p < (pairs + WARP - 1) / WARP * WARP; p += THREADS) {
        const int mine = id[min(p, pairs - 1)];
        int before = 0, behind = pairs;
#pragma unroll 8
        for (int q = 0; q < pairs; q++) {
            const bool same = id[q] == mine;
            before += same && q < p;
            behind = min(behind, same && q > p ? q : pairs);
        }
        const unsigned bits = __ballot_sync(~0u, p < pairs && before % T == 0);
        if (p < pairs)
            next[p] = behind;
        if (p % WARP == 0)
            starts[p / WARP] = bits;
    }
    __syncthreads();
    u->n = 0;
    for (int i = 0; i * WARP < pairs; i++)
        u->n += __popc(starts[i]);
    for (int p = threadIdx.x; p < pairs; p += THREADS) {
        int before = __popc(starts[p / WARP] & ((1u << p % WARP) - 1));
        for (int i = 0; i < p / WARP; i++)
            before += __popc(starts[i]);
        for (int k = 0, q = p; k < T && (starts[p / WARP] >> p % WARP & 1); k++) {
            u->pair[before * T + k] = make_int2(q < pairs ? q : -1, id[p]);
            q = q < pairs ? next[q] : q;
        }
    }
    __syncthreads();
}

/* One pair each. */
template <> __device__ void find_units<1>(Units *u, const Job &j)
{
    u->n = j.rows * j.active;
    for (int p = threadIdx.x; p < u->n; p += THREADS)
        u->pair[p] = make_int2(p, expert_of(j, p));
    __syncthreads();
}

/* ---- a block's work ------------------------------------------------------------------------ */

struct Work {
    Units u;
    int warp;    /* this one */
    int chunks;  /* of a row of inputs */
    int sources; /* of a unit */
    int tiles;   /* of a unit */
    int batch;   /* so many tiles at most */
    Slot *slot;  /* the warp's: [its sources][T] */
    float *sums; /* [2][batch][sources][T][TILE] */
};

/* Tiles [tile, tile + n) of a unit; `left` of the block come after them. */
struct Batch {
    int unit, tile, n, left;
};

__device__ static void fill_batch(Batch *b, const Work &w, int left)
{
    b->n = min(min(w.batch, w.tiles - b->tile), left);
    b->left = left - b->n;
}
__device__ static void next_batch(Batch *b, const Work &w)
{
    b->tile += b->n;
    if (b->tile == w.tiles) {
        b->unit++;
        b->tile = 0;
    }
    fill_batch(b, w, b->left);
}

/* One of the warp's sources: a chunk of the k-th expert of the unit. */
struct Source {
    int number, k, chunk;
};

__device__ static Source first_source(const Work &w)
{
    return { w.warp, w.warp / w.chunks, w.warp % w.chunks };
}
__device__ static void next_source(Source *s, const Work &w)
{
    s->number += WARPS;
    s->chunk += WARPS;
    while (s->chunk >= w.chunks) {
        s->chunk -= w.chunks;
        s->k++;
    }
}

/* The tile and source whose weights are fetched next, if batch.n > 0. */
struct Ahead {
    Batch batch;
    int i; /* of the batch */
    Source source;
    unsigned at; /* of the lane's row: the number of the chunk */
};

template <int TYPE> struct Weights {
    Part<TYPE> part[2][2]; /* of both matrices rows g and g + 8 */
};

/* T pairs or, 0, down. */
template <int TYPE, int PAIRS> struct Few {
    enum {
        DOWN = PAIRS == 0,
        T = DOWN ? 1 : PAIRS,
        ROWS = DOWN ? TILE : TILE / 2, /* of one matrix */
        STEPS = Part<TYPE>::STEPS
    };

    __device__ static int2 pair_of(const Job &j, const Work &w, int unit, const Source &s,
                                   int token)
    {
        return w.u.pair[DOWN ? unit * j.active + s.k : unit * T + token];
    }

    /* ---- weights */

    __device__ static void place(Ahead *a, const Job &j, const Work &w)
    {
        const unsigned e = pair_of(j, w, a->batch.unit, a->source, 0).y;
        const unsigned row = e * j.w[0].rows + a->batch.tile * ROWS + threadIdx.x % WARP / 4;
        a->at = row * w.chunks + a->source.chunk;
        a->i = 0;
    }
    __device__ static void start(Ahead *a, const Job &j, const Work &w, const Batch &b)
    {
        a->batch = b;
        a->source = first_source(w);
        if (a->source.number >= w.sources)
            a->batch.n = 0;
        if (a->batch.n > 0)
            place(a, j, w);
    }
    __device__ static void advance(Ahead *a, const Job &j, const Work &w, const Source &first)
    {
        if (++a->i < a->batch.n) {
            a->at += ROWS * w.chunks;
            return;
        }
        next_source(&a->source, w);
        if (a->source.number >= w.sources) {
            a->source = first;
            next_batch(&a->batch, w);
        }
        if (a->batch.n > 0)
            place(a, j, w);
    }
    __device__ static void load(Weights<TYPE> *p, const Job &j, const Work &w, const Ahead &a,
                                int step)
    {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int r = 0; r < 2; r++)
                p->part[m][r].load(j.w[m], a.at + ((DOWN ? m * TILE / 2 : 0) + 8 * r) * w.chunks,
                                   step, threadIdx.x % 4);
    }

    /* ---- inputs */

    /* A warp: all its sources of a unit, several at once on their way. */
    __device__ static void cut_sources(const Job &j, const Work &w, int unit)
    {
        enum { AT_ONCE = DOWN ? 3 : T };
        Source s = first_source(w);
        Slot *slot = w.slot;
        __syncwarp(); /* nobody reads the last unit's any more */
        while (s.number < w.sources) {
            Eight x[AT_ONCE] = {};
            int n = 0;
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                if (s.number >= w.sources)
                    continue;
                const int p = pair_of(j, w, unit, s, k % T).x, row = DOWN ? p : p / j.active;
                if (p >= 0)
                    x[k] = values_at(j.x + (size_t)row * j.w[0].cols + s.chunk * CHUNK);
                if (k % T == T - 1)
                    next_source(&s, w);
                n++;
            }
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++)
                if (k < n)
                    cut(slot + k, x[k]);
            slot += n;
        }
        __syncwarp();
    }

    /* ---- products */

    /* The lane's limbs of a group, as B: those of lanes without a column are zero from the
     * beginning, and stay. */
    struct Digits {
        uint4 first[T][2], third[2];
    };

    __device__ static void load_digits(Digits *d, SharedAt slot, int i, int n)
    {
        enum { JUMP = Part<TYPE>::JUMP };
        const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
        const bool mine = g / 2 == t;
        const SharedAt x = slot + Part<TYPE>::at(t, i);
        const SharedAt third = x + 2 * LIMB_STRIDE + (T > 1 ? g % 2 * (int)sizeof(Slot) : 0);
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int k = 0; k < T; k++)
                if (k == 0 || k < n)
                    load_if(&d->first[k][h], mine,
                            x + k * (int)sizeof(Slot) + g % 2 * LIMB_STRIDE + h * JUMP);
            load_if(&d->third[h], mine && g % 2 < T, third + h * JUMP);
        }
    }

    __device__ static void first(int *c, const unsigned *v, unsigned b0, unsigned b1)
    {
        if (Part<TYPE>::IS_SIGNED)
            mma_s8_first(c, v, b0, b1);
        else
            mma_u8_first(c, v, b0, b1);
    }
    __device__ static void more(int *c, const unsigned *v, unsigned b0, unsigned b1)
    {
        if (Part<TYPE>::IS_SIGNED)
            mma_s8(c, v, b0, b1);
        else
            mma_u8(c, v, b0, b1);
    }

    /* acc += the group's numbers times the limbs, of 16 rows. v: of each eight the A. */
    __device__ static void multiply(float acc[2][T], const unsigned v[4][4], const float inner[2],
                                    const Digits &d, int n)
    {
        int c[T][4], third[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int k = 0; k < T; k++) {
                const uint4 b = d.first[k][j / 2];
                if ((k == 0 || k < n) && j == 0)
                    first(c[k], v[j], b.x, b.y);
                else if (k == 0 || k < n)
                    more(c[k], v[j], j % 2 ? b.z : b.x, j % 2 ? b.w : b.y);
            }
            const uint4 b = d.third[j / 2];
            if (j == 0)
                first(third, v[j], b.x, b.y);
            else
                more(third, v[j], j % 2 ? b.z : b.x, j % 2 ? b.w : b.y);
        }
#pragma unroll
        for (int k = 0; k < T; k++)
            if (k == 0 || k < n)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const float high = (float)(c[k][2 * r] * 256 + c[k][2 * r + 1]);
                    const float whole = fmaf(high, 256, (float)third[2 * r + k]);
                    acc[r][k] = fmaf(inner[r], whole, acc[r][k]);
                }
    }

    __device__ static void add_group(float acc[2][2][T], const Weights<TYPE> &p, SharedAt slot,
                                     Digits *d, int i, int n, const char *table)
    {
        load_digits(d, slot, i, n);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            unsigned v[4][4];
            float inner[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                inner[r] = p.part[m][r].inner(i);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    unsigned two[2];
                    Decode<TYPE>::eight(two, p.part[m][r], i, j, table);
                    v[j][r] = two[0];
                    v[j][r + 2] = two[1];
                }
            }
            multiply(acc[m], v, inner, *d, n);
        }
    }

    /* What is subtracted, of one row and pair. */
    __device__ static float less_of(const Part<TYPE> &p, const float *sum)
    {
        enum { MINS = Part<TYPE>::MINS };
        const int t = threadIdx.x % 4;
        float less = 0;
#pragma unroll
        for (int b = 0; b < MINS; b++) {
            const float s = MINS == 4 ? sum[8 * (t / 2) + t % 2 + 2 * b]
                                      : sum[4 * t + 2 * b] + sum[4 * t + 2 * b + 1];
            less = fmaf(p.less(b), s, less);
        }
        return less;
    }

    /* Quads add up; of the rows g + 8q lane t keeps that of q = t. */
    __device__ static void leave(float *to, const float v[4])
    {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
        const bool odd = t & 1, high = t & 2;
        const float a = __fadd_rn(odd ? v[1] : v[0], __shfl_xor_sync(~0u, odd ? v[0] : v[1], 1));
        const float b = __fadd_rn(odd ? v[3] : v[2], __shfl_xor_sync(~0u, odd ? v[2] : v[3], 1));
        to[8 * t + g] = __fadd_rn(high ? b : a, __shfl_xor_sync(~0u, high ? a : b, 2));
    }

    /* A source's part of a tile: what the lanes have in acc, to sums [T][TILE]. */
    __device__ static void leave_sums(float *sums, const float acc[2][2][T], const Weights<TYPE> &p,
                                      const Slot *slot, int n)
    {
#pragma unroll
        for (int k = 0; k < T; k++) {
            float v[4];
            if (k > 0 && k >= n)
                continue;
            const float scale = slot[k].scale * (1.0f / Decode<TYPE>::TIMES);
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const Part<TYPE> &part = p.part[m / 2][m % 2];
                v[m] = __fmul_rn(__fmul_rn(part.outer(), scale), acc[m / 2][m % 2][k]);
                if (Part<TYPE>::MINS)
                    v[m] = fmaf(-part.outer_less(), less_of(part, slot[k].sum), v[m]);
            }
            leave(sums + k * TILE, v);
        }
    }

    /* ---- the end of a batch */

    /* sums: of a tile and pair, [sources][T][TILE] */
    __device__ static void finish_tile(const Job &j, const Work &w, const float *sums, int unit,
                                       int tile, int token)
    {
        const int lane = threadIdx.x % WARP;
        const size_t row = (size_t)tile * ROWS + lane;
        float sum = sums[lane];
#pragma unroll 8
        for (int s = 1; s < w.sources; s++)
            sum += sums[s * T * TILE + lane];
        if (DOWN) {
            float *out = j.out + (size_t)unit * j.w[0].rows + row;
            *out = j.plus ? j.plus[out - j.out] + sum : sum;
            return;
        }
        const float up = __shfl_down_sync(~0u, sum, ROWS);
        const int p = w.u.pair[unit * T + token].x;
        if (lane < ROWS)
            j.out[(size_t)p * j.w[0].rows + row] =
                swiglu(sum, up, j.limit, j.gates ? j.gates[p] : 1);
    }

    __device__ static void run(const Job &j, const Work &w, Batch b, const char *table)
    {
        const Source mine = first_source(w);
        Digits d = {};
        Weights<TYPE> next;
        Ahead ahead;
        start(&ahead, j, w, b);
        if (ahead.batch.n > 0)
            load(&next, j, w, ahead, 0);
        if (DOWN) {
            let_others_start();
            wait_for_others();
        }
        int unit = -1, n = 1;
        float *sums = w.sums, *other = w.sums + (size_t)w.batch * w.sources * T * TILE;
        for (; b.n > 0; next_batch(&b, w)) {
            if (b.unit != unit) {
                unit = b.unit;
                n = T > 1 && w.u.pair[unit * T + 1].x >= 0 ? 2 : 1;
                cut_sources(j, w, unit);
            }
            const Slot *slot = w.slot;
            for (int s = w.warp; s < w.sources; s += WARPS, slot += T)
                for (int i = 0; i < b.n; i++) {
                    float acc[2][2][T] = {};
                    Weights<TYPE> now;
#pragma unroll
                    for (int h = 0; h < STEPS; h++) {
                        now = next;
                        if (h == STEPS - 1)
                            advance(&ahead, j, w, mine);
                        if (ahead.batch.n > 0)
                            load(&next, j, w, ahead, (h + 1) % STEPS);
#pragma unroll
                        for (int k = 0; k < 3 - STEPS; k++)
                            add_group(acc, now, shared_at(slot), &d, STEPS == 1 ? k : h, n, table);
                    }
                    leave_sums(sums + (size_t)(i * w.sources + s) * T * TILE, acc, now, slot, n);
                }
            __syncthreads();
            for (int i = (w.warp + b.tile) % WARPS; i < b.n * n; i += WARPS) {
                const int tile = T == 1 ? i : i / n, token = T == 1 ? 0 : i % n;
                finish_tile(j, w, sums + (size_t)(tile * w.sources * T + token) * TILE, unit,
                            b.tile + tile, token);
            }
            float *const last = sums;
            sums = other, other = last;
        }
    }
};

/* ---- the kernel ----------------------------------------------------------------------------- */

/* Shared memory of a block, front to back: tables, slots, sums, units. T as in Few. */
static size_t shared_bytes(const Job &j, bool down, int T, int batch)
{
    const size_t chunks = j.w[0].cols / CHUNK, sources = down ? j.active * chunks : chunks;
    const size_t pairs = (size_t)j.rows * j.active, slots = (sources + WARPS - 1) / WARPS * T;
    return (j.w[0].type == QUANT_IQ2_XXS ? TABLES : 0) + WARPS * slots * sizeof(Slot) +
           2 * batch * sources * T * TILE * sizeof(float) +
           pairs * (T * sizeof(int2) + 2 * sizeof(int)) + (pairs + WARP - 1) / WARP * sizeof(int);
}

/* Block i of b takes tiles i * all / b .. of all units' tiles. */
template <int TYPE, int PAIRS>
__global__ void __launch_bounds__(THREADS, 1) few_tiles(Job j, const uint2 *grid, int batch)
{
    typedef Few<TYPE, PAIRS> F;
    extern __shared__ __align__(16) char shared[];
    Work w;
    w.warp = warp_number();
    w.chunks = j.w[0].cols / CHUNK;
    w.sources = F::DOWN ? j.active * w.chunks : w.chunks;
    w.tiles = j.w[0].rows / F::ROWS;
    w.batch = batch;
    const int slots = (w.sources + WARPS - 1) / WARPS * F::T;
    Slot *slot = (Slot *)(shared + Decode<TYPE>::BYTES);
    w.slot = slot + w.warp * slots;
    w.sums = (float *)(slot + WARPS * slots);
    w.u.pair = (int2 *)(w.sums + (size_t)2 * batch * w.sources * F::T * TILE);

    if (TYPE == QUANT_IQ2_XXS)
        fill_wide(shared, grid);
    /* Others start when ids are ready: see Job.known. */
    if (!F::DOWN || !j.known)
        wait_for_others();
    if (!F::DOWN)
        let_others_start();
    if (F::DOWN)
        sort_rows(&w.u, j);
    else
        find_units<F::T>(&w.u, j);
    const long long all = (long long)w.u.n * w.tiles;
    const int from = (int)(all * blockIdx.x / gridDim.x);
    const int to = (int)(all * (blockIdx.x + 1) / gridDim.x);
    Batch b = { from / w.tiles, from % w.tiles, 0, 0 };
    fill_batch(&b, w, to - from);
    F::run(j, w, b, shared);
}

/* ---- launches ----------------------------------------------------------------------------------- */

static bool has_room(Cuda *c, const Job &j, bool down, int T, int batch)
{
    return shared_bytes(j, down, T, batch) <= shared_most(c);
}

template <int TYPE, int PAIRS> static void launch(Cuda *c, const Job &j)
{
    typedef Few<TYPE, PAIRS> F;
    const int units = F::DOWN ? j.rows : j.rows * j.active;
    const int grid = MIN(units * (j.w[0].rows / F::ROWS), c->sm_count);
    int batch = MOST_BATCH;
    while (batch > 1 && !has_room(c, j, F::DOWN, F::T, batch))
        batch /= 2;
    const size_t bytes = shared_bytes(j, F::DOWN, F::T, batch);
    NOTE(c, cudaFuncSetAttribute(few_tiles<TYPE, PAIRS>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    LAUNCH(c, (few_tiles<TYPE, PAIRS>), grid, THREADS, bytes, j, (const uint2 *)c->iq2_grid, batch);
}

/* One row: an expert has one pair. Of a few rows it rarely has more than two. */
template <int TYPE> static void run(Cuda *c, const Job &j, bool down)
{
    if (down)
        launch<TYPE, 0>(c, j);
    else if (j.rows > 1 && has_room(c, j, false, 2, 1))
        launch<TYPE, 2>(c, j);
    else
        launch<TYPE, 1>(c, j);
}

static void run_job(Cuda *c, const Job &j, bool down)
{
    switch (j.w[0].type) {
    case QUANT_IQ2_XXS: run<QUANT_IQ2_XXS>(c, j, down); break;
    case QUANT_Q2_K: run<QUANT_Q2_K>(c, j, down); break;
    case QUANT_Q4_K: run<QUANT_Q4_K>(c, j, down); break;
    case QUANT_Q8_0: run<QUANT_Q8_0>(c, j, down); break;
    case QUANT_MXFP4: run<QUANT_MXFP4>(c, j, down); break;
    }
}

static bool fits(Cuda *c, const Job &j, bool down)
{
    const DevWeight *w = j.w;
    const bool known = w->type == QUANT_IQ2_XXS || w->type == QUANT_Q2_K || w->type == QUANT_Q4_K ||
                       w->type == QUANT_Q8_0 || w->type == QUANT_MXFP4;
    return known && w[1].type == w->type && !w->tiled && w->cols % CHUNK == 0 &&
           w->rows % TILE == 0 && has_room(c, j, down, 1, 1);
}

static Job up_job(const Moe *m, float *h)
{
    return { { m->gate, m->up }, m->ids,    m->gates, m->x, h,
             m->n_rows,          m->active, m->limit, NULL, false };
}

static Job down_job(const Moe *m, const float *h, bool known)
{
    return { { m->down, m->down }, m->ids, NULL, h, m->y, m->n_rows, m->active, 0, m->plus,
             known || !m->ids };
}

bool int8_up_fits(Cuda *c, const Moe *m) { return fits(c, up_job(m, NULL), false); }
bool int8_down_fits(Cuda *c, const Moe *m) { return fits(c, down_job(m, NULL, false), true); }
void int8_up(Cuda *c, const Moe *m, float *h) { run_job(c, up_job(m, h), false); }

void int8_down(Cuda *c, const Moe *m, const float *h, bool known)
{
    run_job(c, down_job(m, h, known), true);
}
