/* choose.cu - the best of many scores, in ascending order of their places.
 *
 * The smallest score that gets in is found by a radix descent over the scores' bits (11,
 * 11, 10); then warps count what they have above it and equal to it, and write their share
 * in order. A block takes a row, with up to 16K keys in registers; rows that see more than
 * LONG are dealt out to several blocks, in five launches that do nothing in shorter
 * contexts. Ties go to the lower place. */
#include "select.cuh"

enum {
    CHOOSE = 1024, /* threads */
    CHOOSE_WARPS = CHOOSE / WARP,
    DIGITS = 2048,
    COPY = DIGITS + 8, /* a copy of the histogram; copies of a digit lie in other banks */
    COPIES = 4,        /* of a histogram: neighbours meet less */
    HELD = 16,         /* keys that a thread keeps in registers */
    LONG = 1 << 16,    /* scores for which a row gets several blocks */
    SLICES = 16
};

size_t choose_bytes(Choose *a, int batch, int cap, char *base)
{
    const size_t counts = (size_t)batch * 3 * DIGITS, taken = (size_t)batch * SLICES * 2;
    if (cap <= LONG)
        return 0;
    if (base) {
        a->count = (int *)base;
        a->taken = a->count + counts;
    }
    return (counts + taken) * sizeof(int);
}

/* ---- the best k of n scores -------------------------------------------------------------------- */

/* Unsigned order is the order of scores; both zeros are one, NaN is least. */
__device__ static unsigned order_key(float x)
{
    if (isnan(x))
        return 0;
    const unsigned u = __float_as_uint(x + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* The three digits of a key, and what is above each. */
__device__ static unsigned digit_of(unsigned key, int p)
{
    return p == 0 ? key >> 21 : p == 1 ? key >> 10 & 2047 : key & 1023;
}
__device__ static unsigned above(unsigned key, int p)
{
    return p == 0 ? 0 : p == 1 ? key >> 21 : key >> 10;
}

/* Scores of a warp, [begin, end): in memory, or as keys in registers, 32 a round. */
template <bool IN_REGISTERS> struct Keys {
    const float *score;
    int begin, end;
    unsigned held[IN_REGISTERS ? HELD : 1];
};

/* Scores [from, to) dealt out to the block's warps; registers have room for HELD * CHOOSE. */
template <bool IN_REGISTERS>
__device__ static Keys<IN_REGISTERS> keys_of(const float *score, int from, int to)
{
    const int lane = threadIdx.x % WARP, per = (to - from + CHOOSE - 1) / CHOOSE * WARP;
    Keys<IN_REGISTERS> k;
    k.score = score;
    k.begin = min(from + (int)threadIdx.x / WARP * per, to);
    k.end = min(k.begin + per, to);
    if (IN_REGISTERS) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int at = k.begin + WARP * i + lane;
            k.held[IN_REGISTERS ? i : 0] = at < k.end ? order_key(score[at]) : 0;
        }
    }
    return k;
}

/* visit(index, is there one, key) by all lanes of the warp, in order of the index. */
template <bool IN_REGISTERS, class Visit>
__device__ static void each_key(const Keys<IN_REGISTERS> &k, Visit visit)
{
    const int lane = threadIdx.x % WARP;
    if (IN_REGISTERS) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int at = k.begin + WARP * i + lane;
            if (at - lane < k.end)
                visit(at, at < k.end, k.held[IN_REGISTERS ? i : 0]);
        }
    } else {
#pragma unroll 4
        for (int at = k.begin + lane; at - lane < k.end; at += WARP)
            visit(at, at < k.end, at < k.end ? order_key(k.score[at]) : 0);
    }
}

/* How many of the block's keys that agree with prefix above digit p have which digit.
 * count: [COPIES][COPY], cleared here. */
template <bool IN_REGISTERS>
__device__ static void count_digits(int *count, const Keys<IN_REGISTERS> &k, unsigned prefix, int p)
{
    for (int i = threadIdx.x; i < COPIES * COPY; i += CHOOSE)
        count[i] = 0;
    __syncthreads();
    each_key(k, [&](int, bool there, unsigned key) {
        if (there && above(key, p) == above(prefix, p))
            atomicAdd(&count[threadIdx.x % COPIES * COPY + digit_of(key, p)], 1);
    });
    __syncthreads();
}

/* Where the descent stands: the digits found, and the rank among those that agree. */
struct Descent {
    unsigned prefix;
    int k;
};

/* The sum of `mine` of the threads before this one. */
__device__ static int before_mine(int mine, int *part)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int sum = mine;
    for (int d = 1; d < WARP; d *= 2) {
        const int up = __shfl_up_sync(~0u, sum, d);
        sum += lane >= d ? up : 0;
    }
    __syncthreads();
    if (lane == WARP - 1)
        part[warp] = sum;
    __syncthreads();
    return __reduce_add_sync(~0u, lane < warp ? part[lane] : 0) + sum - mine;
}

/* Digit p of the k-th largest, from counts [N][COPY]; k becomes its rank there. A thread
 * has two digits, the first thread the largest. */
template <int N> __device__ static void settle(Descent *at, const int *count, int p, int *part)
{
    __shared__ Descent found;
    const int low = DIGITS - 2 - 2 * threadIdx.x, high = low + 1;
    int n_high = 0, n_low = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int2 n = *(const int2 *)(count + i * COPY + low);
        n_low += n.x;
        n_high += n.y;
    }
    const int before = before_mine(n_high + n_low, part);
    const int shift = p == 0 ? 21 : p == 1 ? 10 : 0;
    if (before < at->k && at->k <= before + n_high)
        found = Descent{ at->prefix | (unsigned)high << shift, at->k - before };
    else if (before + n_high < at->k && at->k <= before + n_high + n_low)
        found = Descent{ at->prefix | (unsigned)low << shift, at->k - before - n_high };
    __syncthreads();
    *at = found;
    __syncthreads();
}

/* Keys of the warp above the least that gets in, and those equal to it. */
template <bool IN_REGISTERS>
__device__ static int2 count_warp(const Keys<IN_REGISTERS> &k, unsigned least)
{
    int2 n = make_int2(0, 0);
    each_key(k, [&](int, bool there, unsigned key) {
        n.x += there && key > least;
        n.y += there && key == least;
    });
    n.x = __reduce_add_sync(~0u, n.x);
    n.y = __reduce_add_sync(~0u, n.y);
    return n;
}

/* Writes the warp's picks in order; before: what is in front, ties: how many of those equal
 * to the least get in. */
template <bool IN_REGISTERS>
__device__ static void write_warp(int *pick, const Keys<IN_REGISTERS> &k, unsigned least,
                                  int2 before, int ties)
{
    const unsigned lane = threadIdx.x % WARP, lower = (1u << lane) - 1;
    each_key(k, [&](int at, bool there, unsigned key) {
        const unsigned more = __ballot_sync(~0u, there && key > least);
        const unsigned same = __ballot_sync(~0u, there && key == least);
        const int n_same = before.y + __popc(same & lower);
        if ((more | (n_same < ties ? same : 0)) >> lane & 1)
            pick[before.x + __popc(more & lower) + min(n_same, ties)] = at;
        before.x += __popc(more);
        before.y += __popc(same);
    });
}

/* The block's picks; before: what other blocks have in front of them. */
template <bool IN_REGISTERS>
__device__ static void write_block(int *pick, const Keys<IN_REGISTERS> &k, const Descent &d,
                                   int2 before)
{
    __shared__ int2 counts[CHOOSE_WARPS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int2 mine = count_warp(k, d.prefix);
    if (lane == 0)
        counts[warp] = mine;
    __syncthreads();
    const int2 other = lane < warp ? counts[lane] : make_int2(0, 0);
    before.x += __reduce_add_sync(~0u, other.x);
    before.y += __reduce_add_sync(~0u, other.y);
    if (mine.x || (mine.y && before.y < d.k))
        write_warp(pick, k, d.prefix, before, d.k);
}

__device__ static void pick_all(int *pick, int n, int topk)
{
    for (int i = threadIdx.x; i < topk; i += blockDim.x)
        pick[i] = i < n ? i : -1;
}

/* Shared memory of a block that chooses. */
struct Counts {
    int digit[COPIES * COPY], part[CHOOSE_WARPS];
};

template <bool IN_REGISTERS>
__device__ static void choose_of(int *pick, const float *score, int n, int topk, Counts *sh)
{
    const Keys<IN_REGISTERS> k = keys_of<IN_REGISTERS>(score, 0, n);
    Descent at = { 0, topk };
    for (int p = 0; p < 3; p++) {
        count_digits(sh->digit, k, at.prefix, p);
        settle<COPIES>(&at, sh->digit, p, sh->part);
    }
    write_block(pick, k, at, make_int2(0, 0));
}

/* Where several blocks will count: nothing yet. */
__device__ static void clear_counts(int *count)
{
    for (int i = threadIdx.x; i < 3 * DIGITS; i += CHOOSE)
        count[i] = 0;
}

/* A block a row of the batch; those that see more than LONG are left to others. */
__global__ void __launch_bounds__(CHOOSE) choose(Choose a)
{
    __shared__ __align__(16) Counts sh;
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.x, n = visible_to(a, row);
    const float *score = a.score + (size_t)blockIdx.x * a.cap;
    int *pick = a.pick + (size_t)row * a.topk;

    if (n <= a.topk)
        pick_all(pick, n, a.topk);
    else if (n <= HELD * CHOOSE)
        choose_of<true>(pick, score, n, a.topk, &sh);
    else if (n <= LONG)
        choose_of<false>(pick, score, n, a.topk, &sh);
    else
        clear_counts(a.count + (size_t)blockIdx.x * 3 * DIGITS);
}

/* ---- the same with several blocks a row ---------------------------------------------------------- */

/* Scores of a slice: [from, to) of n. */
__device__ static int2 slice_of(int n, int slice)
{
    const int per = (n + SLICES - 1) / SLICES;
    return make_int2(min(slice * per, n), min((slice + 1) * per, n));
}

/* The first `digits` digits, from what all slices counted. */
__device__ static Descent descent_of(const Choose &a, int batch_row, int digits, int *part)
{
    Descent at = { 0, a.topk };
    for (int p = 0; p < digits; p++)
        settle<1>(&at, a.count + ((size_t)batch_row * 3 + p) * DIGITS, p, part);
    return at;
}

/* Block (x, y): slice x of row y. Counts are added up as integers: order does not matter. */
__global__ void __launch_bounds__(CHOOSE) count_slice(Choose a, int p)
{
    __shared__ __align__(16) Counts sh;
    let_others_start();
    wait_for_others();
    const int n = visible_to(a, a.first + blockIdx.y);
    if (n <= LONG)
        return;
    const int2 at = slice_of(n, blockIdx.x);
    const Descent d = descent_of(a, blockIdx.y, p, sh.part);
    count_digits(sh.digit, keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y),
                 d.prefix, p);
    int *all = a.count + ((size_t)blockIdx.y * 3 + p) * DIGITS;
    for (int i = threadIdx.x; i < DIGITS; i += CHOOSE) {
        int sum = 0;
        for (int k = 0; k < COPIES; k++)
            sum += sh.digit[k * COPY + i];
        if (sum)
            atomicAdd(&all[i], sum);
    }
}

/* How many of a slice get in. */
__global__ void __launch_bounds__(CHOOSE) count_taken(Choose a)
{
    __shared__ int2 counts[CHOOSE_WARPS];
    __shared__ int part[CHOOSE_WARPS];
    let_others_start();
    wait_for_others();
    const int n = visible_to(a, a.first + blockIdx.y), warp = threadIdx.x / WARP;
    if (n <= LONG)
        return;
    const int2 at = slice_of(n, blockIdx.x);
    const Descent d = descent_of(a, blockIdx.y, 3, part);
    const int2 mine =
        count_warp(keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y), d.prefix);
    if (threadIdx.x % WARP == 0)
        counts[warp] = mine;
    __syncthreads();
    if (threadIdx.x < 2) {
        int sum = 0;
        for (int i = 0; i < CHOOSE_WARPS; i++)
            sum += threadIdx.x ? counts[i].y : counts[i].x;
        a.taken[((size_t)blockIdx.y * SLICES + blockIdx.x) * 2 + threadIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(CHOOSE) write_slice(Choose a)
{
    __shared__ int part[CHOOSE_WARPS];
    let_others_start();
    wait_for_others();
    const int row = a.first + blockIdx.y, n = visible_to(a, row);
    int *pick = a.pick + (size_t)row * a.topk;
    if (n <= LONG)
        return;
    const Descent d = descent_of(a, blockIdx.y, 3, part);
    const int *taken = a.taken + (size_t)blockIdx.y * SLICES * 2;
    const int2 at = slice_of(n, blockIdx.x);
    int2 before = make_int2(0, 0);
    for (int i = 0; i < (int)blockIdx.x; i++) {
        before.x += taken[2 * i];
        before.y += taken[2 * i + 1];
    }
    write_block(pick, keys_of<false>(a.score + (size_t)blockIdx.y * a.cap, at.x, at.y), d, before);
}

/* ---- the launches ------------------------------------------------------------------------- */

void choose_batch(Cuda *c, const Choose *a, int rows)
{
    LAUNCH(c, choose, rows, CHOOSE, 0, *a);
    if (a->cap <= LONG)
        return;
    for (int p = 0; p < 3; p++)
        LAUNCH(c, count_slice, dim3(SLICES, rows), CHOOSE, 0, *a, p);
    LAUNCH(c, count_taken, dim3(SLICES, rows), CHOOSE, 0, *a);
    LAUNCH(c, write_slice, dim3(SLICES, rows), CHOOSE, 0, *a);
}
