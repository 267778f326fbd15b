/* tiles.cu - few rows times matrices in tiles, on the tensor cores.
 *
 * Of Q8_0 weights the products are exact: inputs become whole numbers of 24 bits, a strip of
 * 128 columns at a time, cut into three int8 digits, and a block of 32 columns gives sums of
 * whole numbers, which are multiplied with the weights' scales, a strip's with the inputs'.
 * They begin at 1.5 * 2^23: then their bits are a float, of which that number is taken away,
 * without a conversion. For F16 weights inputs are the sum of three halfs, times a power of
 * two. So products are as precise as F32 ones, and cost so few instructions that memory is
 * the limit.
 *
 * A tile of 16 weight rows is the mma's A, one load of 16 bytes a lane; B has 8 columns,
 * three for the parts of each input row.
 *
 * `split` warps share the columns of 16 rows, by strips; their sums meet in shared memory in
 * order. Which strips follows from the matrix alone, so an input row's result does not depend
 * on its company, nor a matrix' on what else is in the launch. Up to two rows are cut by the
 * blocks that need them; more by a kernel before, and read from memory in the order of the
 * lanes. */
#include "experts.cuh"
#include "experts_mma.cuh"
#include "kvrow.cuh"
#include "tiles.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    PARTS = 3,        /* of an input */
    CUT_ROWS = 2,     /* cut where they are needed: 6 of 8 columns */
    CUT_COLS = 8192,  /* at most, as shared memory is small */
    MOST_COLUMNS = 6, /* of 8: 16 rows */
    MOST_SPREAD = 64,
    STEP = 4 /* tiles that a warp takes at once: a strip of Q8_0, half of one of F16 */
};

struct Matrix {
    const uint4 *q, *d;
    float *out;
    size_t ld_out;
    int tiles, split, spread;
    int end; /* units up to and with its own: WARPS / split tiles, a share of the columns */
    bool is_half;
};

struct Cut {
    uint2 *part;  /* [groups][tiles of a row][NT][WARP] */
    float *scale; /* [groups][strips][NT * 8], of each column */
};

struct Jobs {
    Matrix m[MOST_TILE_JOBS];
    int n, units;
    TileInput in;
    bool add;
    Cut cut[2]; /* for Q8_0, for F16; by cut_rows */
};

/* ---- inputs ----------------------------------------------------------------------------- */

/* Bytes i of four words. */
__device__ static unsigned bytes_of(const unsigned *y, int i)
{
    const unsigned two = 0x40 + 0x11 * i;
    return __byte_perm(__byte_perm(y[0], y[1], two), __byte_perm(y[2], y[3], two), 0x5410);
}

__device__ static float4 values_at(const TileInput &in, size_t i)
{
    float4 v = *(const float4 *)(in.x + i);
    if (in.up) {
        const float4 u = *(const float4 *)(in.up + i);
        v.x = swiglu(v.x, u.x, in.limit, 1);
        v.y = swiglu(v.y, u.y, in.limit, 1);
        v.z = swiglu(v.z, u.z, in.limit, 1);
        v.w = swiglu(v.w, u.w, in.limit, 1);
    }
    return v;
}

/* The lane's four of a strip. */
__device__ static float4 strip_values(const TileInput &in, int group, int row, int strip)
{
    return values_at(in, row * in.ld + (size_t)group * in.cols + strip * STRIP +
                             4 * (threadIdx.x % WARP));
}

__device__ static float not_a_number() { return __uint_as_float(0x7fffffff); }

/* The largest magnitude of a warp's values, as bits; infinity and NaN are above all. */
__device__ static unsigned largest(const float *v)
{
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        bits = max(bits, __float_as_uint(v[i]) & 0x7fffffff);
    return __reduce_max_sync(~0u, bits);
}

/* Four values as digits: -128 .. 127, so a byte of the number plus 0x808080 is a digit but
 * for its top bit. Returns what the lowest digit counts. */
__device__ static float cut_digits(unsigned *digit, const float *v)
{
    const float most = 8300000; /* less than 127 127 127 in base 256 */
    const unsigned bits = largest(v);
    const float max = __uint_as_float(bits);
    const bool none = !(max >= 1e-30f), wild = bits >= 0x7f800000;
    const float times = none || wild ? 0 : most / max;
    unsigned y[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        y[i] = wild ? 0 : (unsigned)(__float2int_rn(v[i] * times) + 0x808080);
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        digit[i] = bytes_of(y, PARTS - 1 - i) ^ 0x80808080;
    return wild ? not_a_number() : none ? 0 : max / most;
}

__device__ static unsigned pair_of(half a, half b)
{
    return __half_as_ushort(a) | (unsigned)__half_as_ushort(b) << 16;
}

/* Four values as halfs: the largest of the strip becomes 2^14 or more, so that the last part
 * is not too small for a half. Returns what they count. */
__device__ static float cut_halfs(uint2 *part, const float *v)
{
    const unsigned bits = largest(v), e = bits >> 23;
    const bool none = e < 15, wild = e == 255;
    const float times = none || wild ? 0 : __uint_as_float((268 - e) << 23);
    float rest[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        rest[i] = wild ? 0 : v[i] * times;
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        half h[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            h[i] = __float2half_rn(rest[i]);
            rest[i] -= __half2float(h[i]);
        }
        part[k] = make_uint2(pair_of(h[0], h[1]), pair_of(h[2], h[3]));
    }
    return wild ? not_a_number() : none ? 0 : __uint_as_float((e - 14) << 23);
}

/* A warp: a strip of an input row, four values a lane. */
template <int NT, bool HALF>
__device__ static void cut_strip(const Cut &to, const float4 &value, int row, int strip)
{
    const int lane = threadIdx.x % WARP;
    const float v[4] = { value.x, value.y, value.z, value.w };
    if (HALF) {
        uint2 part[PARTS];
        const float unit = cut_halfs(part, v);
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            const int column = PARTS * row + i, tile = 8 * strip + lane / 4;
            to.part[(tile * NT + column / 8) * WARP + column % 8 * 4 + lane % 4] = part[i];
            if (lane == i)
                to.scale[strip * NT * 8 + column] = unit;
        }
    } else {
        unsigned digit[PARTS];
        const float unit = cut_digits(digit, v);
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            const int column = PARTS * row + i, tile = 4 * strip + lane / 8;
            const int at = (tile * NT + column / 8) * WARP + column % 8 * 4 + lane % 8 / 2;
            ((unsigned *)(to.part + at))[lane % 2] = digit[i];
            if (lane == i)
                to.scale[strip * NT * 8 + column] = unit * (i == 0 ? 65536 : i == 1 ? 256 : 1);
        }
    }
}

/* Numbers of 8 bytes of a group's parts. */
__device__ static inline size_t part_size(const TileInput &in, int nt, bool is_half)
{
    return (size_t)in.cols / (is_half ? 16 : 32) * nt * WARP;
}

/* The lane's four of rms(row) * norm, for all warps of a block, of which the first have a strip
 * each. Barriers are inside. */
__device__ static float4 normed_values(const TileInput &in, int row)
{
    __shared__ float part[NORM_STRIPS];
    const int strip = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float4 v = {}, w = {};
    if (strip < in.cols / STRIP) {
        w = *(const float4 *)(in.norm + strip * STRIP + 4 * lane);
        v = strip_values(in, 0, row, strip);
    }
    return normed(v, strips_scale(v, in.cols, in.eps, part), w);
}

/* Block (x, y, z): a warp a strip of group y and row z. */
template <int NT, bool HALF> __global__ void __launch_bounds__(THREADS) cut_rows(Jobs j)
{
    let_others_start();
    wait_for_others();
    const int strips = j.in.cols / STRIP, group = blockIdx.y, row = blockIdx.z;
    const int strip = blockIdx.x * WARPS + threadIdx.x / WARP;
    const float4 v = j.in.norm ? normed_values(j.in, row) : float4{};
    if (strip >= strips)
        return;
    Cut to = j.cut[HALF];
    to.part += group * part_size(j.in, NT, HALF);
    to.scale += group * strips * NT * 8;
    cut_strip<NT, HALF>(to, j.in.norm ? v : strip_values(j.in, group, row, strip), row, strip);
}

/* The same by a block that needs them; four strips' values on their way at once. */
template <int NT, bool HALF>
__device__ static void cut_inputs(const Cut &to, const TileInput &in, int group, int from, int end)
{
    enum { AHEAD = 4 };
    const int strips = end - from, n = strips * in.n;
    for (int row = 0; in.norm && row < in.n; row++) {
        const float4 v = normed_values(in, row);
        if (threadIdx.x / WARP < strips)
            cut_strip<NT, HALF>(to, v, row, threadIdx.x / WARP);
    }
    if (in.norm)
        return;
    for (int i = threadIdx.x / WARP; i < n; i += AHEAD * WARPS) {
        float4 v[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int at = min(i + k * WARPS, n - 1);
            v[k] = strip_values(in, group, at / strips, from + at % strips);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int at = i + k * WARPS;
            if (at < n)
                cut_strip<NT, HALF>(to, v[k], at / strips, from + at % strips);
        }
    }
}

/* ---- a tile ------------------------------------------------------------------------------- */

/* A step of 16 rows: four tiles, and scales where there are any. */
struct Weights {
    uint4 q[STEP], d;
};

__device__ static void load(Weights *w, const uint4 *q, const uint4 *d, int step, bool is_half)
{
#pragma unroll
    for (int i = 0; i < STEP; i++)
        w->q[i] = __ldg(q + ((size_t)step * STEP + i) * WARP);
    if (!is_half)
        w->d = __ldg(d + (size_t)step * 8);
}

template <int NT>
__device__ static void add_scaled(float total[NT][4], const float *sum, const float *scale, int k)
{
    const float2 s = *(const float2 *)(scale + 8 * k + 2 * (threadIdx.x % 4));
    total[k][0] = fmaf(s.x, sum[0], total[k][0]);
    total[k][1] = fmaf(s.y, sum[1], total[k][1]);
    total[k][2] = fmaf(s.x, sum[2], total[k][2]);
    total[k][3] = fmaf(s.y, sum[3], total[k][3]);
}

/* total += a step times all columns. */
template <int NT>
__device__ static void add_digits(float total[NT][4], const Weights &w, const uint2 *part,
                                  const float *scale)
{
    const float start = 12582912; /* 1.5 * 2^23 */
    const half2 *d = (const half2 *)&w.d;
#pragma unroll
    for (int k = 0; k < NT; k++) {
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < STEP; i++) {
            const unsigned a[4] = { w.q[i].x, w.q[i].z, w.q[i].y, w.q[i].w };
            const uint2 b = part[(i * NT + k) * WARP];
            const int from = __float_as_int(start);
            int c[4] = { from, from, from, from };
            mma_s8(c, a, b.x, b.y);
            const float2 f = __half22float2(d[i]);
            sum[0] = fmaf(f.x, __int_as_float(c[0]) - start, sum[0]);
            sum[1] = fmaf(f.x, __int_as_float(c[1]) - start, sum[1]);
            sum[2] = fmaf(f.y, __int_as_float(c[2]) - start, sum[2]);
            sum[3] = fmaf(f.y, __int_as_float(c[3]) - start, sum[3]);
        }
        add_scaled<NT>(total, sum, scale, k);
    }
}

template <int NT>
__device__ static void add_halfs(float total[NT][4], const Weights &w, const uint2 *part,
                                 const float *scale)
{
#pragma unroll
    for (int k = 0; k < NT; k++) {
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < STEP; i++) {
            const unsigned a[4] = { w.q[i].x, w.q[i].z, w.q[i].y, w.q[i].w };
            const uint2 b = part[(i * NT + k) * WARP];
            mma_f16(sum, a, b.x, b.y);
        }
        add_scaled<NT>(total, sum, scale, k);
    }
}

/* So many steps' weights are on their way: as registers allow. */
template <int NT> struct Ahead {
    enum { N = NT == 1 ? 3 : 1 };
    Weights w[N];
};

template <int NT>
__device__ static void load_first(Ahead<NT> *a, const uint4 *q, const uint4 *d, int from, int to,
                                  bool is_half)
{
#pragma unroll
    for (int k = 0; k < Ahead<NT>::N; k++)
        if (from + k < to)
            load(&a->w[k], q, d, from + k, is_half);
}

/* Steps [from, to) of 16 rows, of whose tiles the lane's are at q and d. */
template <int NT, bool HALF>
__device__ static void walk(float total[NT][4], Ahead<NT> *a, const uint4 *q, const uint4 *d,
                            int from, int to, const Cut &cut)
{
    enum { N = Ahead<NT>::N };
    const uint2 *part = cut.part + threadIdx.x % WARP;
    for (int first = from; first < to; first += N) {
#pragma unroll
        for (int k = 0; k < N; k++) {
            const int s = first + k;
            if (s >= to)
                continue;
            const Weights now = a->w[k];
            if (s + N < to)
                load(&a->w[k], q, d, s + N, HALF);
            if (HALF)
                add_halfs<NT>(total, now, part + (size_t)s * STEP * NT * WARP,
                              cut.scale + s / 2 * NT * 8);
            else
                add_digits<NT>(total, now, part + (size_t)s * STEP * NT * WARP,
                               cut.scale + s * NT * 8);
        }
    }
}

/* The lane's sums of rows g and g + 8. to: [16][NT * 8] of a warp. */
template <int NT> __device__ static void leave_sums(float *to, const float total[NT][4])
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < NT; k++) {
        *(float2 *)(to + g * NT * 8 + 8 * k + 2 * t) = make_float2(total[k][0], total[k][1]);
        *(float2 *)(to + (g + 8) * NT * 8 + 8 * k + 2 * t) = make_float2(total[k][2], total[k][3]);
    }
}

/* What a block's unit is. */
struct Unit {
    int first, group;   /* of its tiles */
    int share;          /* of the columns, where they are spread */
    int strip0, strip1; /* these */
};

__device__ static Unit unit_of(const Jobs &j, const Matrix &m, int number)
{
    const int strips = j.in.cols / STRIP;
    Unit u;
    u.first = number / m.spread * (WARPS / m.split);
    u.group = j.in.groups > 1 ? u.first / (m.tiles / j.in.groups) : 0;
    u.share = number % m.spread;
    u.strip0 = strips * u.share / m.spread;
    u.strip1 = strips * (u.share + 1) / m.spread;
    return u;
}

/* A unit's outputs. sums: [WARPS][16][NT * 8] */
template <int NT>
__device__ static void finish(const Matrix &m, const float *sums, const Unit &u, int n, bool add)
{
    const int per = WARPS / m.split, all = per * TILE_ROWS * n;
    for (int i = threadIdx.x; i < all; i += THREADS) {
        const int row = i % TILE_ROWS, r = i / TILE_ROWS % n, tile = i / (TILE_ROWS * n);
        if (u.first + tile >= m.tiles)
            continue;
        float part[PARTS] = {};
        for (int s = 0; s < m.split; s++) {
            const float *from =
                sums + ((tile * m.split + s) * TILE_ROWS + row) * NT * 8 + PARTS * r;
#pragma unroll
            for (int k = 0; k < PARTS; k++)
                part[k] += from[k];
        }
        float *out =
            m.out + ((size_t)u.share * n + r) * m.ld_out + (u.first + tile) * TILE_ROWS + row;
        const float sum = part[0] + (part[1] + part[2]);
        *out = add ? *out + sum : sum;
    }
}

__device__ static int job_of(const Jobs &j, int unit)
{
    int k = 0;
    while (k + 1 < j.n && unit >= j.m[k].end)
        k++;
    return k;
}

/* What of a group's inputs a unit needs: in memory, or cut here where others are there. */
template <int NT, bool CUT>
__device__ static Cut inputs_of(const Jobs &j, char *shared, const Unit &u, bool is_half, int *have)
{
    if (!CUT) {
        Cut c = j.cut[is_half];
        c.part += u.group * part_size(j.in, NT, is_half);
        c.scale += u.group * (j.in.cols / STRIP) * NT * 8;
        return c;
    }
    const int want = (u.group * MOST_SPREAD + u.share) * 2 + is_half;
    Cut c = { (uint2 *)shared, NULL };
    c.scale = (float *)(c.part + part_size(j.in, NT, is_half));
    if (*have != want) {
        __syncthreads();
        if (is_half)
            cut_inputs<NT, true>(c, j.in, u.group, u.strip0, u.strip1);
        else
            cut_inputs<NT, false>(c, j.in, u.group, u.strip0, u.strip1);
        __syncthreads();
        *have = want;
    }
    return c;
}

/* Where a warp has a unit's weights: steps [from, to) of rows whose first are at q and d. */
struct Place {
    const uint4 *q, *d;
    int from, to;
};

__device__ static Place place_of(const Jobs &j, const Matrix &m, const Unit &u)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, share = warp % m.split;
    const int tile = u.first + warp / m.split, strips = u.strip1 - u.strip0;
    const int steps = m.is_half ? 2 : 1;
    const size_t row = (size_t)tile * (j.in.cols / STRIP);
    Place p;
    p.q = m.q + row * steps * STEP * WARP + lane;
    p.d = m.d + row * 8 + lane / 4;
    p.from = (u.strip0 + strips * share / m.split) * steps;
    p.to = tile < m.tiles ? (u.strip0 + strips * (share + 1) / m.split) * steps : p.from;
    return p;
}

/* A block takes units one after the other, and has the next one's first weights on their way
 * while it ends the last. Shared: sums of two of them, and what is cut. */
template <int NT, bool CUT> __global__ void __launch_bounds__(THREADS, 2) tile_rows(Jobs j)
{
    extern __shared__ __align__(16) float shared[];
    enum { SUMS = WARPS * TILE_ROWS * NT * 8 };
    int have = -1, unit = blockIdx.x, k = job_of(j, unit);
    Unit u = unit_of(j, j.m[k], unit - (k ? j.m[k - 1].end : 0));
    Place p = place_of(j, j.m[k], u);
    Ahead<NT> w;

    let_others_start();
    load_first(&w, p.q, p.d, p.from, p.to, j.m[k].is_half);
    wait_for_others();
    for (int round = 0; unit < j.units; round++) {
        const Matrix &m = j.m[k];
        const Cut cut = inputs_of<NT, CUT>(j, (char *)(shared + 2 * SUMS), u, m.is_half, &have);
        float total[NT][4] = {};
        if (m.is_half)
            walk<NT, true>(total, &w, p.q, p.d, p.from, p.to, cut);
        else
            walk<NT, false>(total, &w, p.q, p.d, p.from, p.to, cut);
        const Unit done = u;
        unit += gridDim.x;
        if (unit < j.units) {
            k = job_of(j, unit);
            u = unit_of(j, j.m[k], unit - (k ? j.m[k - 1].end : 0));
            p = place_of(j, j.m[k], u);
            load_first(&w, p.q, p.d, p.from, p.to, j.m[k].is_half);
        }
        float *sums = shared + round % 2 * SUMS;
        leave_sums<NT>(sums + threadIdx.x / WARP * TILE_ROWS * NT * 8, total);
        __syncthreads();
        finish<NT>(m, sums, done, j.in.n, j.add);
    }
}

/* ---- launches ------------------------------------------------------------------------------ */

/* So many warps share a tile that 132 SMs have about 16 each; of shapes alone, and such that a
 * unit's tiles are of one group. */
static int split_of(int tiles, int strips, int groups)
{
    const int of_group = tiles / groups;
    int split = 1;
    while (split < WARPS && tiles * split <= 1100 && strips >= 2 * split)
        split *= 2;
    while (split < WARPS && of_group % (WARPS / split))
        split *= 2;
    return split;
}

static size_t cut_bytes(const TileInput *in, int nt, bool is_half)
{
    return (size_t)in->cols / STRIP * nt * ((is_half ? 8 : 4) * WARP * sizeof(uint2) + 32);
}

static bool has_type(const Jobs &j, bool is_half)
{
    for (int k = 0; k < j.n; k++)
        if (j.m[k].is_half == is_half)
            return true;
    return false;
}

template <int NT, bool CUT> static void launch(Cuda *c, const Jobs &j)
{
    const size_t bytes = 2 * WARPS * TILE_ROWS * NT * 8 * sizeof(float) +
                         (CUT ? cut_bytes(&j.in, NT, has_type(j, true)) : 0);
    NOTE(c, cudaFuncSetAttribute(tile_rows<NT, CUT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)bytes));
    LAUNCH(c, (tile_rows<NT, CUT>), MIN(j.units, (c->is_beside ? 1 : 2) * c->sm_count), THREADS,
           bytes, j);
}

template <int NT> static void cut_and_launch(Cuda *c, Jobs *j)
{
    const int strips = j->in.cols / STRIP, groups = MAX(j->in.groups, 1);
    const dim3 grid((strips + WARPS - 1) / WARPS, groups, j->in.n);
    char *at = c->digits;
    for (int h = 0; h < 2; h++) {
        if (!has_type(*j, h))
            continue;
        j->cut[h].part = (uint2 *)at;
        j->cut[h].scale =
            (float *)(j->cut[h].part + groups * (size_t)strips * (h ? 8 : 4) * NT * WARP);
        at += groups * cut_bytes(&j->in, NT, h);
        if (h)
            LAUNCH(c, (cut_rows<NT, true>), grid, THREADS, 0, *j);
        else
            LAUNCH(c, (cut_rows<NT, false>), grid, THREADS, 0, *j);
    }
    launch<NT, false>(c, *j);
}

size_t digits_bytes(const Shape *s)
{
    const size_t widest = MAX((size_t)s->n_heads * s->head_dim, (size_t)s->o_groups * s->o_rank);
    const size_t cols = MAX(MAX(widest, (size_t)s->dim), (size_t)MAX(s->q_rank, s->shared_dim));
    TileInput in = {};
    in.cols = (int)((cols + STRIP - 1) / STRIP * STRIP);
    return cut_bytes(&in, MOST_COLUMNS, false) + cut_bytes(&in, MOST_COLUMNS, true);
}

static void add_matrix(Jobs *j, const TileJob *job)
{
    const int tiles = job->w->rows / TILE_ROWS, strips = job->w->cols / STRIP;
    const int spread = MAX(MIN(job->spread, strips), 1);
    const int split = split_of(tiles * spread, strips / spread, MAX(j->in.groups, 1));
    const int per = WARPS / split;
    j->units += (tiles + per - 1) / per * spread;
    j->m[j->n++] = Matrix{ (const uint4 *)job->w->q,
                           (const uint4 *)job->w->d,
                           job->out,
                           job->ld_out,
                           tiles,
                           split,
                           spread,
                           j->units,
                           job->w->type == QUANT_F16 };
}

void tiles(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add)
{
    Jobs j = {};
    j.in = *in;
    j.add = add;
    for (int k = 0; k < n_jobs; k++)
        add_matrix(&j, &job[k]);
    if (in->n <= CUT_ROWS && in->cols <= CUT_COLS)
        launch<1, true>(c, j);
    else if (in->n <= 5)
        cut_and_launch<2>(c, &j);
    else if (in->n <= 8)
        cut_and_launch<3>(c, &j);
    else
        cut_and_launch<MOST_COLUMNS>(c, &j);
}

/* ---- many rows ---------------------------------------------------------------------------- */

/* Eight bytes of a row of Q8_0 as eight halfs, of F16 as four. */
__device__ static void put_eight(half *out, uint2 q, float scale, bool is_half)
{
    const unsigned u[2] = { q.x, q.y };
    if (is_half) {
        *(uint2 *)out = q;
        return;
    }
    __align__(16) half v[8];
#pragma unroll
    for (int k = 0; k < 8; k++)
        v[k] = __float2half(scale * (float)(int8_t)(u[k / 4] >> 8 * (k % 4)));
    *(uint4 *)out = *(uint4 *)v;
}

/* A warp a tile: 512 bytes in, and out 64 bytes of a row, or 32, at a time. */
__global__ void expand_tile(DevWeight w, size_t first, size_t n_tiles, half *out)
{
    const bool is_half = w.type == QUANT_F16;
    const int lane = threadIdx.x % WARP, g = lane / 4, wide = is_half ? 16 : 32;
    const int per = w.cols / wide;
    const size_t stride = (size_t)gridDim.x * blockDim.x / WARP;
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP; i < n_tiles;
         i += stride) {
        const size_t row = i / per * TILE_ROWS + g;
        const int tile = (int)(i % per);
        const uint4 q = __ldg((const uint4 *)w.q + (first / TILE_ROWS * per + i) * WARP + lane);
        half2 d = {};
        if (!is_half)
            d = ((const half2 *)w.d)[tile_scale_at(first + row, tile, w.cols) / 2];
        half *to = out + row * w.cols + tile * wide + lane % 4 * (wide / 4);
        put_eight(to, make_uint2(q.x, q.y), __low2float(d), is_half);
        put_eight(to + (size_t)8 * w.cols, make_uint2(q.z, q.w), __high2float(d), is_half);
    }
}

void expand_tiles(Cuda *c, const DevWeight *w, size_t first, int rows, half *out)
{
    const size_t n = (size_t)rows / TILE_ROWS * (w->cols / (w->type == QUANT_F16 ? 16 : 32));
    const unsigned grid = (unsigned)MIN((n + WARPS - 1) / WARPS, (size_t)c->sm_count * 16);
    expand_tile<<<grid, THREADS, 0, c->stream>>>(*w, first, n, out);
    launched(c, "expand_tile");
}
