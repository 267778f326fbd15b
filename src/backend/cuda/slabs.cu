/* slabs.cu - 17 to 64 rows times matrices in tiles, on the tensor cores: steps in which many
 * sessions decode.
 *
 * Weights are read once, whatever the number of rows, and become halfs in registers: Q8_0's
 * are whole numbers, which halfs hold exactly, and scales come after the sum over a block of 32
 * columns. An input is the sum of PARTS halfs, times a power of two that its row has (of each
 * group): with two parts products are as precise as F32 ones but for the tensor cores' way to
 * add. An input row's result does not depend on its company.
 *
 * Three launches. The first cuts the inputs, a block a row, into strips of 128 columns in the
 * order in which the second wants them: [group][strip][part][row] 256 bytes, whose sixteens are
 * in turns for the banks. In the second a block has a slab, 128 rows of a matrix, and some of
 * its strips, so many that the machine is busy: inputs pass through shared memory, two stages
 * of 8 / NT strips, a warp has 32 rows of weights, a step of both of its tiles on its way
 * while it multiplies another, and leaves its sums, or the results where it has all strips.
 * The third adds up the sums in order.
 *
 * Bytes: each weight once; inputs, 4 a value with two parts, once a slab; sums, where there are
 * several blocks a slab, 4 KB a row and block out and in. */
#include "experts.cuh"
#include "experts_mma.cuh"
#include "tiles.cuh"

/* Of an input; 1: inputs are rounded to F16. */
static constexpr int PARTS = 2;

enum {
    WARPS = 4,
    THREADS = WARPS * WARP,
    PAIR = 2, /* tiles of 16 rows of a warp */
    SLAB_TILES = WARPS * PAIR,
    SLAB = SLAB_TILES * TILE_ROWS,
    STEP = 4,         /* tiles of 16 rows that a warp takes at once */
    LINE = STRIP * 2, /* bytes of a part of a row's strip */
    CUT_THREADS = 512,
    CUT_FOURS = 4, /* fours of columns of such a thread: 8,192 columns */
    SUM_THREADS = 256,
    BUSY = 128 /* slabs times splits that keep a machine busy */
};

struct Slabs {
    const uint4 *q, *d;
    float *out, *part; /* part [slab][split][n][SLAB] */
    size_t ld_out;
    int tiles, split;
    int end;  /* blocks up to and with its own */
    int sums; /* fours of outputs to be added up, with those before */
    bool is_half;
};

struct SlabJobs {
    Slabs m[MOST_TILE_JOBS];
    TileInput in;
    int n, strips;
    char *x;      /* what is cut */
    float *scale; /* [groups][in.n]: what x is to be multiplied with */
    bool add;
};

/* ---- inputs ------------------------------------------------------------------------------ */

/* Where sixteen number `at` of a row's line is. */
__device__ static int turned_at(int row, int at) { return at ^ ((row & 1) << 2 | (row & 2)); }

__device__ static float4 four_of(const TileInput &in, size_t i)
{
    float4 v = __ldcg((const float4 *)(in.x + i));
    if (in.up) {
        const float4 u = __ldcg((const float4 *)(in.up + i));
        v.x = swiglu(v.x, u.x, in.limit, 1);
        v.y = swiglu(v.y, u.y, in.limit, 1);
        v.z = swiglu(v.z, u.z, in.limit, 1);
        v.w = swiglu(v.w, u.w, in.limit, 1);
    }
    return v;
}

__device__ static unsigned bits_of(float v) { return __float_as_uint(v) & 0x7fffffff; }

__device__ static unsigned halfs_of(float a, float b)
{
    const half2 h = __floats2half2_rn(a, b);
    return *(const unsigned *)&h;
}

__device__ static float2 floats_of(unsigned h) { return __half22float2(*(const half2 *)&h); }

/* Four values as PARTS halfs each, apart bytes from one another. */
__device__ static void put_four(char *to, size_t apart, const float4 &v)
{
    float4 rest = v;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        const uint2 h = make_uint2(halfs_of(rest.x, rest.y), halfs_of(rest.z, rest.w));
        const float2 a = floats_of(h.x), b = floats_of(h.y);
        *(uint2 *)(to + p * apart) = h;
        rest = make_float4(rest.x - a.x, rest.y - a.y, rest.z - b.x, rest.w - b.y);
    }
}

/* The largest of a block's numbers, for all threads. */
__device__ static unsigned block_most(unsigned mine, unsigned *part)
{
    const int lane = threadIdx.x % WARP;
    mine = __reduce_max_sync(~0u, mine);
    if (lane == 0)
        part[threadIdx.x / WARP] = mine;
    __syncthreads();
    return __reduce_max_sync(~0u, lane < CUT_THREADS / WARP ? part[lane] : 0);
}

/* Block (x, y): row x of group y. The largest value becomes 2^14 or more; infinity and NaN make
 * all of the row's results NaN. */
__global__ void __launch_bounds__(CUT_THREADS) cut_lines(SlabJobs j)
{
    __shared__ unsigned part[CUT_THREADS / WARP];
    const int row = blockIdx.x, group = blockIdx.y, fours = j.in.cols / 4;
    const size_t from = row * j.in.ld + (size_t)group * j.in.cols, apart = (size_t)j.in.n * LINE;
    float4 v[CUT_FOURS];
    unsigned bits = 0;

    let_others_start();
    wait_for_others();
#pragma unroll
    for (int k = 0; k < CUT_FOURS; k++) {
        const int i = k * CUT_THREADS + threadIdx.x;
        v[k] = i < fours ? four_of(j.in, from + 4 * i) : float4{};
    }
#pragma unroll
    for (int k = 0; k < CUT_FOURS; k++)
        bits = max(max(bits, max(bits_of(v[k].x), bits_of(v[k].y))),
                   max(bits_of(v[k].z), bits_of(v[k].w)));
    const unsigned e = block_most(bits, part) >> 23;
    const bool none = e < 15, wild = e == 255;
    const float times = none || wild ? 0 : __uint_as_float((268 - e) << 23);
    char *to = j.x + (size_t)group * j.strips * PARTS * apart + row * LINE;
#pragma unroll
    for (int k = 0; k < CUT_FOURS; k++) {
        const int i = k * CUT_THREADS + threadIdx.x, in = i % (STRIP / 4);
        const float4 x =
            wild ? float4{}
                 : make_float4(v[k].x * times, v[k].y * times, v[k].z * times, v[k].w * times);
        if (i < fours)
            put_four(to + i / (STRIP / 4) * PARTS * apart + turned_at(row, in / 2) * 16 +
                         in % 2 * 8,
                     apart, x);
    }
    if (threadIdx.x == 0)
        j.scale[group * j.in.n + row] = wild   ? __uint_as_float(0x7fffffff)
                                        : none ? 0
                                               : __uint_as_float((e - 14) << 23);
}

/* ---- a slab ------------------------------------------------------------------------------- */

/* A step of the warp's rows: four tiles of each 16, a strip of Q8_0 with its scales, half of
 * one of F16. */
struct Weights {
    uint4 q[PAIR][STEP], d[PAIR];
};

/* Where the lane's weights of the next step are. */
struct Place {
    const uint4 *q[PAIR], *d[PAIR];
};

/* Tile i of the next step of both, and scales. */
__device__ static void load_tile(Weights *w, const Place &p, int i)
{
#pragma unroll
    for (int m = 0; m < PAIR; m++)
        w->q[m][i] = __ldg(p.q[m] + i * WARP);
}
__device__ static void load_scales(Weights *w, const Place &p)
{
#pragma unroll
    for (int m = 0; m < PAIR; m++)
        w->d[m] = __ldg(p.d[m]);
}
__device__ static void go_on(Place *p)
{
#pragma unroll
    for (int m = 0; m < PAIR; m++) {
        p->q[m] += STEP * WARP;
        p->d[m] += 8;
    }
}

/* Asks for all that the warp will load. */
__device__ static void ask_for_steps(const Place &p, int steps, bool is_half)
{
    const int lane = threadIdx.x % WARP, lines = steps * (STEP * TILE_BYTES / 128);
#pragma unroll
    for (int m = 0; m < PAIR; m++) {
        const char *q = (const char *)(p.q[m] - lane);
        for (int i = lane; i < lines; i += WARP)
            ask_for_line(q + (size_t)i * 128);
        for (int i = lane; !is_half && i < steps; i += WARP)
            ask_for_line(p.d[m] - lane / 4 + (size_t)i * 8);
    }
}

/* c = a . b, of halfs. */
__device__ static void mma_first(float *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.f));
}

/* Bytes 2h and 2h + 1 of a word with 128 added to each, as halfs without it. */
__device__ static unsigned half_pair(unsigned word, int h)
{
    const unsigned pair = __byte_perm(word, 0x64646464, h ? 0x4342 : 0x4140); /* 1024 + v */
    const half2 v = __hsub2(*(const half2 *)&pair, __float2half2_rn(1024 + 128));
    return *(const unsigned *)&v;
}

/* A tile of Q8_0 as the A of two products of 16 columns. */
__device__ static void unpack(unsigned a[2][4], const uint4 &q)
{
    const unsigned flip = 0x80808080;
    const unsigned w[2][2] = { { q.x ^ flip, q.z ^ flip }, { q.y ^ flip, q.w ^ flip } };
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int r = 0; r < 4; r++)
            a[s][r] = half_pair(w[s][r % 2], r / 2);
}

/* total += a strip of Q8_0. A tile's place in w is the next strip's as soon as it is unpacked, if
 * there are more. x: the lane's line; apart: bytes between parts. */
template <int NT>
__device__ static void add_numbers(float total[PAIR][NT][4], Weights *w, const Place &place,
                                   bool more, const char *x, int apart)
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const uint4 scales[PAIR] = { w->d[0], w->d[1] };
    if (more)
        load_scales(w, place);
#pragma unroll
    for (int i = 0; i < STEP; i++) {
        unsigned a[PAIR][2][4];
        float2 d[PAIR];
#pragma unroll
        for (int m = 0; m < PAIR; m++) {
            unpack(a[m], w->q[m][i]);
            d[m] = __half22float2(((const half2 *)&scales[m])[i]);
        }
        if (more)
            load_tile(w, place, i);
        const char *at = x + turned_at(g, 4 * i + t) * 16;
#pragma unroll
        for (int k = 0; k < NT; k++) {
            uint4 b[PARTS];
#pragma unroll
            for (int p = 0; p < PARTS; p++)
                b[p] = *(const uint4 *)(at + p * apart + k * 8 * LINE);
#pragma unroll
            for (int m = 0; m < PAIR; m++) {
                float c[4], *sum = total[m][k];
                mma_first(c, a[m][0], b[PARTS - 1].x, b[PARTS - 1].y);
                mma_f16(c, a[m][1], b[PARTS - 1].z, b[PARTS - 1].w);
#pragma unroll
                for (int p = PARTS - 2; p >= 0; p--) {
                    mma_f16(c, a[m][0], b[p].x, b[p].y);
                    mma_f16(c, a[m][1], b[p].z, b[p].w);
                }
                sum[0] = fmaf(d[m].x, c[0], sum[0]);
                sum[1] = fmaf(d[m].x, c[1], sum[1]);
                sum[2] = fmaf(d[m].y, c[2], sum[2]);
                sum[3] = fmaf(d[m].y, c[3], sum[3]);
            }
        }
    }
}

/* The same of half a strip of F16, tiles first .. first + 3. */
template <int NT>
__device__ static void add_halfs(float total[PAIR][NT][4], Weights *w, const Place &place,
                                 bool more, const char *x, int apart, int first)
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < STEP; i++) {
        unsigned a[PAIR][4];
#pragma unroll
        for (int m = 0; m < PAIR; m++) {
            const uint4 q = w->q[m][i];
            a[m][0] = q.x, a[m][1] = q.z, a[m][2] = q.y, a[m][3] = q.w;
        }
        if (more)
            load_tile(w, place, i);
        const char *at = x + turned_at(g, 2 * (first + i) + t / 2) * 16 + t % 2 * 8;
#pragma unroll
        for (int k = 0; k < NT; k++) {
            uint2 b[PARTS];
#pragma unroll
            for (int p = 0; p < PARTS; p++)
                b[p] = *(const uint2 *)(at + p * apart + k * 8 * LINE);
#pragma unroll
            for (int m = 0; m < PAIR; m++) {
                float c[4];
                mma_first(c, a[m], b[PARTS - 1].x, b[PARTS - 1].y);
#pragma unroll
                for (int p = PARTS - 2; p >= 0; p--)
                    mma_f16(c, a[m], b[p].x, b[p].y);
#pragma unroll
                for (int r = 0; r < 4; r++)
                    total[m][k][r] += c[r];
            }
        }
    }
}

/* Strips of a stage, which are bytes in a row. */
template <int NT> struct Stage {
    enum { STRIPS = NT < 8 ? 8 / NT : 1, BYTES = STRIPS * PARTS * NT * 8 * LINE };
};

template <int NT>
__device__ static void fetch(char *stage, const char *x, int strip, int to, int strip_bytes)
{
    const int n = min((int)Stage<NT>::STRIPS, to - strip) * strip_bytes;
    for (int i = threadIdx.x * 16; i < n; i += THREADS * 16)
        copy_sixteen(stage + i, x + (size_t)strip * strip_bytes + i);
}

/* Strips [from, to). x: the group's; shared: two stages. Rows of a stage behind the last are
 * whatever lies there: they make columns that nobody reads. */
template <int NT, bool HALF>
__device__ static void walk(float total[PAIR][NT][4], Weights *w, Place place, int from, int to,
                            const char *x, int n, char *shared)
{
    enum { STRIPS = Stage<NT>::STRIPS, BYTES = Stage<NT>::BYTES, STEPS = HALF ? 2 : 1 };
    const int line = threadIdx.x % WARP / 4 * LINE, apart = n * LINE;
    fetch<NT>(shared, x, from, to, PARTS * apart);
    for (int first = from, odd = 0; first < to; first += STRIPS, odd ^= 1) {
        copies_wait();
        __syncthreads();
        fetch<NT>(shared + (odd ^ 1) * BYTES, x, first + STRIPS, to, PARTS * apart);
        const char *stage = shared + odd * BYTES + line;
        for (int s = first; s < min(first + STRIPS, to); s++, stage += PARTS * apart) {
            for (int h = 0; h < STEPS; h++) {
                const bool more = s + 1 < to || h + 1 < STEPS;
                if (HALF)
                    add_halfs<NT>(total, w, place, more, stage, apart, STEP * h);
                else
                    add_numbers<NT>(total, w, place, more, stage, apart);
                go_on(&place);
            }
        }
    }
}

/* ---- results ----------------------------------------------------------------------------- */

/* The lane's sums: of rows g and g + 8 of each tile, of inputs 8 k + 2 t and the next. to: the
 * warp's first row, of the first input. */
template <int NT>
__device__ static void put(float *to, size_t ld, const float total[PAIR][NT][4], const float *scale,
                           int n, int tiles, bool add)
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < NT; k++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = 8 * k + 2 * t + i;
            if (r >= n)
                continue;
            const float by = __ldcg(scale + r);
#pragma unroll
            for (int m = 0; m < PAIR; m++) {
                float *out = to + r * ld + m * TILE_ROWS + g;
                if (m >= tiles)
                    continue;
                out[0] = add ? out[0] + by * total[m][k][i] : by * total[m][k][i];
                out[8] = add ? out[8] + by * total[m][k][2 + i] : by * total[m][k][2 + i];
            }
        }
    }
}

__device__ static int job_of(const SlabJobs &j, int block)
{
    int k = 0;
    while (k + 1 < j.n && block >= j.m[k].end)
        k++;
    return k;
}

/* Block i of a matrix: strips number i % split of slab i / split. */
template <int NT> __global__ void __launch_bounds__(THREADS, NT <= 4 ? 3 : 2) slab_rows(SlabJobs j)
{
    extern __shared__ __align__(16) char shared[];
    const int k = job_of(j, blockIdx.x), lane = threadIdx.x % WARP, n = j.in.n;
    const Slabs &m = j.m[k];
    const int mine = blockIdx.x - (k ? j.m[k - 1].end : 0), slab = mine / m.split;
    const int share = mine % m.split, per = m.is_half ? 2 : 1;
    const int from = j.strips * share / m.split, to = j.strips * (share + 1) / m.split;
    const int tile = slab * SLAB_TILES + threadIdx.x / WARP * PAIR;
    const int group = slab * SLAB_TILES / (m.tiles / j.in.groups);
    float total[PAIR][NT][4] = {};
    Weights w;
    Place place;

    let_others_start();
#pragma unroll
    for (int i = 0; i < PAIR; i++) {
        const size_t at = (size_t)min(tile + i, m.tiles - 1) * j.strips + from;
        place.q[i] = m.q + at * per * STEP * WARP + lane;
        place.d[i] = m.d + at * 8 + lane / 4;
    }
    ask_for_steps(place, (to - from) * per, m.is_half);
#pragma unroll
    for (int i = 0; i < STEP; i++)
        load_tile(&w, place, i);
    if (!m.is_half)
        load_scales(&w, place);
    go_on(&place);
    wait_for_others();
    const char *x = j.x + (size_t)group * j.strips * PARTS * n * LINE;
    if (m.is_half)
        walk<NT, true>(total, &w, place, from, to, x, n, shared);
    else
        walk<NT, false>(total, &w, place, from, to, x, n, shared);
    const float *scale = j.scale + group * n;
    const int row = threadIdx.x / WARP * PAIR * TILE_ROWS;
    if (m.split == 1)
        put<NT>(m.out + slab * SLAB + row, m.ld_out, total, scale, n, m.tiles - tile, j.add);
    else
        put<NT>(m.part + (size_t)mine * n * SLAB + row, SLAB, total, scale, n, PAIR, false);
}

/* Outputs of matrices whose slabs have several blocks: a thread has four. */
__global__ void __launch_bounds__(SUM_THREADS) sum_slabs(SlabJobs j)
{
    const int i = blockIdx.x * SUM_THREADS + threadIdx.x;
    int k = 0;
    let_others_start();
    while (k + 1 < j.n && i >= j.m[k].sums)
        k++;
    const Slabs &m = j.m[k];
    wait_for_others();
    if (i >= m.sums)
        return;
    const int four = i - (k ? j.m[k - 1].sums : 0), wide = m.tiles * TILE_ROWS / 4;
    const int r = four / wide, o = four % wide * 4;
    const float *from = m.part + ((size_t)(o / SLAB) * m.split * j.in.n + r) * SLAB + o % SLAB;
    float4 sum = {};
#pragma unroll 8
    for (int s = 0; s < m.split; s++) {
        const float4 v = __ldcg((const float4 *)(from + (size_t)s * j.in.n * SLAB));
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    float *out = m.out + r * m.ld_out + o;
    const float v[4] = { sum.x, sum.y, sum.z, sum.w };
#pragma unroll
    for (int q = 0; q < 4; q++)
        out[q] = j.add ? out[q] + v[q] : v[q];
}

/* ---- launches ------------------------------------------------------------------------------ */

/* Of shapes alone. Blocks have four strips or more, tiny matrices' two. */
static int split_of(int slabs, int strips)
{
    int split = 1;
    while (slabs * split < BUSY && strips >= 2 * split * (slabs * split < BUSY / 2 ? 2 : 4))
        split *= 2;
    return split;
}

static size_t rounded(size_t n) { return (n + 255) / 256 * 256; }

/* Returns the bytes of scratch that all take; the scratch's base NULL: only counts. */
static size_t lay_out(SlabJobs *j, const TileJob *job, int n_jobs, const TileInput *in, char *base)
{
    const size_t strips = in->cols / STRIP, groups = in->groups;
    size_t used = rounded(groups * strips * PARTS * in->n * LINE);
    int blocks = 0, sums = 0;
    *j = SlabJobs{};
    j->in = *in;
    j->strips = (int)strips;
    j->x = base;
    j->scale = (float *)(base + used);
    used += rounded(groups * in->n * sizeof(float));
    for (int k = 0; k < n_jobs; k++) {
        const DevWeight *w = job[k].w;
        const int tiles = w->rows / TILE_ROWS, slabs = (tiles + SLAB_TILES - 1) / SLAB_TILES;
        const int split = split_of(slabs, (int)strips);
        Slabs *m = &j->m[j->n++];
        blocks += slabs * split;
        sums += split > 1 ? in->n * w->rows / 4 : 0;
        *m = Slabs{ (const uint4 *)w->q,
                    (const uint4 *)w->d,
                    job[k].out,
                    (float *)(base + used),
                    job[k].ld_out,
                    tiles,
                    split,
                    blocks,
                    sums,
                    w->type == QUANT_F16 };
        if (split > 1)
            used += (size_t)slabs * split * in->n * SLAB * sizeof(float);
    }
    return used;
}

template <int NT> static void launch(Cuda *c, const SlabJobs &j)
{
    enum { BYTES = 2 * Stage<NT>::BYTES };
    NOTE(c, cudaFuncSetAttribute(slab_rows<NT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)BYTES));
    LAUNCH(c, slab_rows<NT>, j.m[j.n - 1].end, THREADS, BYTES, j);
}

bool slabs_fit(const Cuda *c, const TileJob *job, int n_jobs, const TileInput *in)
{
    SlabJobs j;
    return in->n <= SLAB_ROWS && in->cols <= 4 * CUT_FOURS * CUT_THREADS &&
           (in->groups == 1 || job->w->rows / in->groups % SLAB == 0) &&
           lay_out(&j, job, n_jobs, in, NULL) <= c->w16_bytes;
}

void slabs(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add)
{
    SlabJobs j;
    lay_out(&j, job, n_jobs, in, (char *)c->w16);
    j.add = add;
    LAUNCH(c, cut_lines, dim3(in->n, in->groups), CUT_THREADS, 0, j);
    if (in->n <= 32)
        launch<4>(c, j);
    else
        launch<8>(c, j);
    const int sums = j.m[j.n - 1].sums;
    if (sums)
        LAUNCH(c, sum_slabs, (sums + SUM_THREADS - 1) / SUM_THREADS, SUM_THREADS, 0, j);
}
