/* tiles.cuh - Q8_0 and F16 matrices as the tensor cores want them.
 *
 * Rows go in sixteens; a tile is 512 bytes of those, 32 columns of Q8_0 or 16 of F16: 16
 * bytes for each lane of a warp, which are with g = lane / 4 and t = lane % 4 eight bytes of
 * row g, from byte 8t of the tile's columns on, and the same of row g + 8. Tiles of the same
 * rows are neighbours. Scales of Q8_0 lie in strips of four tiles:
 * [rows / 16][cols / 128][g][tile % 4] pairs, of row g and of row g + 8. */
#ifndef TILES_CUH
#define TILES_CUH
#include "internal.cuh"

enum { TILE_ROWS = 16, TILE_BYTES = 512, STRIP = 128, NORM_COLS = 8 * STRIP };

/* Whether a matrix can be laid out so. Experts lie otherwise, and groups of heads must be
 * whole tiles. */
static inline bool tiling_fits(const Shape *s, const Weight *w)
{
    return (w->type == QUANT_Q8_0 || w->type == QUANT_F16) && w->count <= 1 && s->n_experts > 1 &&
           s->o_rank % TILE_ROWS == 0 && w->rows % TILE_ROWS == 0 && w->cols % STRIP == 0;
}

#ifdef __CUDACC__
/* Where the first eight bytes of a tile's columns of a row are; the next ones 16 further. */
__device__ static inline size_t tile_at(size_t row, int tile, int tiles)
{
    return (row / TILE_ROWS * tiles + tile) * TILE_BYTES + row % 8 * 64 + row % 16 / 8 * 8;
}
/* The number of a scale. */
__device__ static inline size_t tile_scale_at(size_t row, int block, int cols)
{
    return ((row / TILE_ROWS * (cols / STRIP) + block / 4) * 8 + row % 8) * 8 + block % 4 * 2 +
           row % 16 / 8;
}
#endif

/* out = W x of up to FEW_ROWS rows x, or += it: of tiled matrices of the same width. */
struct TileJob {
    float *out;
    size_t ld_out;
    const DevWeight *w;
    /* Not 0: of so many shares of the columns each has sums of its own, out [spread][n][ld_out]:
     * a small matrix keeps more multiprocessors busy. Up to FEW_ROWS rows. */
    int spread;
};
struct TileInput {
    const float *x; /* [n][ld] */
    size_t ld;
    int n, cols;
    int groups;      /* rows of the matrix are those of so many, each with columns of its own */
    const float *up; /* not NULL: x stands for swiglu(x, up) */
    float limit;
    const float *norm; /* not NULL: for rms(x) * norm; up to NORM_COLS columns and FEW_ROWS rows */
    float eps;
};
enum { MOST_TILE_JOBS = 8 };
void tiles(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add);
/* slabs.cu: the same of more rows, up to SLAB_ROWS, where they fit; scratch is Cuda.w16. */
enum { SLAB_ROWS = 64 };
bool slabs_fit(const Cuda *c, const TileJob *job, int n_jobs, const TileInput *in);
void slabs(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add);
/* Whichever of the two fits the rows; false: none does. */
static inline bool tiles_fit(const Cuda *c, const TileJob *job, int n_jobs, const TileInput *in)
{
    return in->n <= FEW_ROWS || slabs_fit(c, job, n_jobs, in);
}
static inline bool tiles_or_slabs(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in,
                                  bool add)
{
    if (!tiles_fit(c, job, n_jobs, in))
        return false;
    if (in->n <= FEW_ROWS)
        tiles(c, job, n_jobs, in, add);
    else
        slabs(c, job, n_jobs, in, add);
    return true;
}
/* Bytes of Cuda.digits. */
size_t digits_bytes(const Shape *s);
/* Rows of a tiled matrix to halfs, row after row; first, rows: whole tiles. */
void expand_tiles(Cuda *c, const DevWeight *w, size_t first, int rows, half *out);

#endif
