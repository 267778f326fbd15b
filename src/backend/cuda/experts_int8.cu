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
#include "experts_mma.cuh"
#include "experts_parts.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * WARP,
    LIMBS = 3,
    LIMB_STRIDE = CHUNK + 16, /* two limbs of the same columns do not meet in a bank */
    CHUNK_BYTES = LIMBS * LIMB_STRIDE,
    MOST_COLS = 8192, /* whose inputs fit shared memory */
    TILE = 32
};

/* ---- inputs ----------------------------------------------------------------------------- */

/* T rows of inputs in shared memory. */
struct Limbs {
    char *limb;   /* [T][chunks][LIMBS][LIMB_STRIDE], the first limb counts 65536 */
    SharedAt at;  /* the same */
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
 * 0x808080 is a digit but for its top bit. */
__device__ static void cut_chunk(const Limbs &l, int token, int chunk, const float *x)
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
    for (int i = 0; i < 8; i++)
        y[i] = wild ? 0 : (unsigned)(__float2int_rn(v[i] * times) + 0x808080);
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
    for (int from = 0; from < pairs; from += THREADS) {
        const int p = from + threadIdx.x, mine = u->id[min(p, pairs - 1)];
        int before = 0, next = pairs;
#pragma unroll 8
        for (int q = 0; q < pairs; q++) {
            const bool same = u->id[q] == mine;
            before += same && q < p;
            next = min(next, same && q > p ? q : pairs);
        }
        __syncthreads(); /* the unrolled loop may read, in vain, behind the ids */
        if (p < pairs)
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
    const unsigned chunks = j.w[0].cols / CHUNK;
    const unsigned row = (unsigned)e * j.w[0].rows + tile * (j.down ? TILE : TILE / 2) + g;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            p->part[m][r].load(j.w[m], (row + (m && j.down ? TILE / 2 : 0) + 8 * r) * chunks, step,
                               t);
}

/* The lane's limbs of two eights, as B: those of lanes without a column are zero from the
 * beginning, and stay. */
struct Digits {
    uint4 first[2], third[2];
};

/* c [matrix][limbs 0 and 1 of row g, of row g + 8; limb 2 likewise] = v . x of a group. v: of
 * each matrix and eight the A: words of row g, g + 8, g, g + 8. */
template <int JUMP>
__device__ static void multiply(int c[2][8], const unsigned v[2][4][4], Digits *d, SharedAt x)
{
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const bool mine = g / 2 == t;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        uint4 *b = &d->first[j], *b3 = &d->third[j];
        load_if(b, mine, x + (g % 2 * LIMB_STRIDE + j * JUMP));
        load_if(b3, mine && g % 2 == 0, x + (2 * LIMB_STRIDE + j * JUMP));
#pragma unroll
        for (int m = 0; m < 2; m++) {
            if (j == 0) {
                mma_s8_first(c[m], v[m][0], b->x, b->y);
                mma_s8_first(c[m] + 4, v[m][0], b3->x, b3->y);
            } else {
                mma_s8(c[m], v[m][2], b->x, b->y);
                mma_s8(c[m] + 4, v[m][2], b3->x, b3->y);
            }
            mma_s8(c[m], v[m][2 * j + 1], b->z, b->w);
            mma_s8(c[m] + 4, v[m][2 * j + 1], b3->z, b3->w);
        }
    }
}

/* acc += factor * (limbs . weights) of one group of 32 a lane. */
template <int TYPE, int T>
__device__ static void add_group(float acc[2][2][T], const Weights<TYPE> &p, const Limbs &l,
                                 Digits *d, int n, int chunk, int i, const char *table)
{
    unsigned v[2][4][4];
    float factor[2][2];
#pragma unroll
    for (int m = 0; m < 4; m++) {
        factor[m / 2][m % 2] = p.part[m / 2][m % 2].factor(i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            unsigned two[2];
            p.part[m / 2][m % 2].get(two, i, j, table);
            v[m / 2][j][m % 2] = two[0];
            v[m / 2][j][m % 2 + 2] = two[1];
        }
    }
    const SharedAt x = l.at + (chunk * CHUNK_BYTES + Part<TYPE>::at(threadIdx.x % 4, i));
#pragma unroll
    for (int k = 0; k < T; k++) {
        if (T > 1 && k >= n)
            continue;
        int c[2][8];
        multiply<Part<TYPE>::JUMP>(c, v, d, x + k * l.chunks * CHUNK_BYTES);
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
        cut_chunk(l, token, chunk, x);
    }
    __syncthreads();
    return n;
}

/* Shared memory of a block, front to back. */
template <int TYPE, int T> struct Space {
    enum { TABLES = TYPE == QUANT_IQ2_XXS ? TABLE_BYTES : 0 };
    static size_t bytes(int chunks, int pairs)
    {
        return TABLES + (size_t)T * chunks * (CHUNK_BYTES + 17 * sizeof(float)) +
               (2 * WARPS * TILE * T + T + 3 * (size_t)pairs) * sizeof(float);
    }
    __device__ static float *limbs(Limbs *l, char *shared, int chunks)
    {
        *l = { shared + TABLES, shared_at(shared + TABLES), NULL, NULL, chunks };
        l->scale = (float *)(l->limb + T * chunks * CHUNK_BYTES);
        l->sum = l->scale + T * chunks;
        return l->sum + T * chunks * 16;
    }
};

/* Block i of b takes tiles i * all / b .. of all units' tiles, one after the other; the
 * weights of a warp's next step are on their way while it multiplies. */
template <int TYPE, int T>
__global__ void __launch_bounds__(THREADS, T <= 2 ? 2 : 1) few_tiles(Job j, const uint2 *grid)
{
    enum { STEPS = Part<TYPE>::STEPS };
    extern __shared__ __align__(16) char shared[];
    const int chunks = j.w[0].cols / CHUNK, steps = chunks * STEPS, warp = threadIdx.x / WARP;
    Limbs l;
    float *sums = Space<TYPE, T>::limbs(&l, shared, chunks);
    int *pair = (int *)(sums + 2 * WARPS * TILE * T);
    Units u = { pair + T, pair + T + j.pairs, pair + T + 2 * j.pairs, 0 };

    let_others_start();
    if (TYPE == QUANT_IQ2_XXS)
        fill_tables(shared, grid);
    wait_for_others();
    find_units<T>(&u, j.ids, j.pairs);
    const int tiles = j.w[0].rows / (j.down ? TILE : TILE / 2);
    const int all = u.n * tiles;
    const int from = (int)((long long)all * blockIdx.x / gridDim.x);
    const int to = (int)((long long)all * (blockIdx.x + 1) / gridDim.x);
    if (from == to)
        return;
    Digits d = {};
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
                add_group<TYPE, T>(acc, now, l, &d, n, s / STEPS, STEPS == 1 ? k : s % 2, shared);
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
    const size_t bytes = Space<TYPE, T>::bytes(j.w[0].cols / CHUNK, j.pairs);
    const int tiles = j.w[0].rows / (j.down ? TILE : TILE / 2);
    int fit = 1;
    NOTE(c, cudaFuncSetAttribute(few_tiles<TYPE, T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)bytes));
    NOTE(c,
         cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, few_tiles<TYPE, T>, THREADS, bytes));
    const int grid = MIN(j.pairs * tiles, MAX(fit, 1) * c->sm_count);
    LAUNCH(c, (few_tiles<TYPE, T>), grid, THREADS, bytes, j, (const uint2 *)c->iq2_grid);
}

template <int TYPE, int T> static bool has_room(Cuda *c, const Job &j)
{
    return Space<TYPE, T>::bytes(j.w[0].cols / CHUNK, j.pairs) <= shared_most(c);
}

/* One row: an expert has one pair. Of a few rows it rarely has more than two, but the shared
 * expert has them all. */
template <int TYPE> static void run(Cuda *c, const Job &j)
{
    if (j.rows > 1 && has_room<TYPE, 2>(c, j))
        launch<TYPE, 2>(c, j);
    else
        launch<TYPE, 1>(c, j);
}

static void run_q8(Cuda *c, const Job &j)
{
    if (j.rows > 2 && !j.ids && has_room<QUANT_Q8_0, 8>(c, j))
        launch<QUANT_Q8_0, 8>(c, j);
    else
        run<QUANT_Q8_0>(c, j);
}

static void run_job(Cuda *c, const Job &j)
{
    switch (j.w[0].type) {
    case QUANT_IQ2_XXS: run<QUANT_IQ2_XXS>(c, j); break;
    case QUANT_Q2_K: run<QUANT_Q2_K>(c, j); break;
    case QUANT_Q4_K: run<QUANT_Q4_K>(c, j); break;
    case QUANT_Q8_0: run_q8(c, j); break;
    case QUANT_MXFP4: run<QUANT_MXFP4>(c, j); break;
    }
}

bool int8_fits(const DevWeight *w)
{
    return !w->tiled &&
           (w->type == QUANT_IQ2_XXS || w->type == QUANT_Q2_K || w->type == QUANT_Q4_K ||
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
