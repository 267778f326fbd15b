/* tiles.cuh - Q8_0 matrices as the int8 tensor cores want them.
 *
 * Rows go in sixteens, columns in blocks of 32. Such a tile is 512 bytes, 16 for each lane
 * of a warp: with g = lane / 4 and t = lane % 4 columns 8t .. 8t + 7 of row g, then those of
 * row g + 8. Tiles of the same rows are neighbours. Scales lie in strips of four blocks:
 * [rows / 16][cols / 128][g][block % 4] pairs, of row g and of row g + 8. */
#ifndef TILES_CUH
#define TILES_CUH
#include "internal.cuh"

enum { TILE_ROWS = 16, TILE_BYTES = 512, STRIP = 128 };

/* Whether a matrix can be laid out so. Experts lie otherwise, and groups of heads must be
 * whole tiles. */
static inline bool tiling_fits(const Shape *s, const Weight *w)
{
    return w->type == QUANT_Q8_0 && w->count <= 1 && s->n_experts > 1 &&
           s->o_rank % TILE_ROWS == 0 && w->rows % TILE_ROWS == 0 && w->cols % STRIP == 0;
}

#ifdef __CUDACC__
/* Where a row's first eight values of a block of 32 are; the next ones 16 bytes further. */
__device__ static inline size_t tile_at(size_t row, int block, int cols)
{
    return (row / TILE_ROWS * (cols / 32) + block) * TILE_BYTES + row % 8 * 64 + row % 16 / 8 * 8;
}
/* Its scale's number. */
__device__ static inline size_t tile_scale_at(size_t row, int block, int cols)
{
    return ((row / TILE_ROWS * (cols / STRIP) + block / 4) * 8 + row % 8) * 8 + block % 4 * 2 +
           row % 16 / 8;
}
#endif

/* out = W x of up to FEW_ROWS rows x, of matrices of the same width, or += it. */
struct TileJob {
    float *out;
    size_t ld_out;
    const DevWeight *w;
};
struct TileInput {
    const float *x; /* [n][ld] */
    size_t ld;
    int n, cols;
    int groups;      /* the rows of the matrix are those of so many, each with columns of its own */
    const float *up; /* not NULL: x stands for swiglu(x, up) */
    float limit;
};
void tiles(Cuda *c, const TileJob *job, int n_jobs, const TileInput *in, bool add);
/* Bytes of Cuda.digits. */
size_t digits_bytes(const Shape *s);
/* Rows of a tiled matrix to halfs; first, rows: whole tiles. */
void expand_tiles(Cuda *c, const DevWeight *w, size_t first, int rows, half *out);

#endif
