/* memory.cu - device memory for weights and buffers.
 *
 * The driver gives whole pages of 2 MiB, and Flash has 1,500 matrices and buffers that end
 * somewhere in one: 9 MiB a layer would be lost. So pieces share chunks; a piece goes where
 * there is room first. Large ones are the driver's own. A chunk goes with its last piece. */
#include "internal.cuh"
#include <stdlib.h>

static const size_t chunk_bytes = (size_t)32 << 20, large = (size_t)16 << 20, piece_unit = 512;

struct Chunk {
    Chunk *next;
    char *base;
    size_t used;
    int pieces;
};

static char *piece_of(Chunk *k, size_t bytes)
{
    char *p = k->base + k->used;
    k->used += bytes;
    k->pieces++;
    return p;
}

static Chunk *new_chunk(Cuda *c)
{
    Chunk *k = (Chunk *)calloc(1, sizeof *k);
    if (!k)
        return NULL;
    if (cudaMalloc((void **)&k->base, chunk_bytes) != cudaSuccess) {
        cudaGetLastError();
        free(k);
        return NULL;
    }
    k->next = c->chunks;
    c->chunks = k;
    return k;
}

void *memory_take(Cuda *c, size_t bytes)
{
    const size_t n = (MAX(bytes, (size_t)1) + piece_unit - 1) / piece_unit * piece_unit;
    void *p = NULL;
    for (Chunk *k = c->chunks; k && n < large; k = k->next) {
        if (n <= chunk_bytes - k->used)
            return piece_of(k, n);
    }
    Chunk *k = n < large ? new_chunk(c) : NULL;
    if (k)
        return piece_of(k, n);
    if (cudaMalloc(&p, n) == cudaSuccess)
        return p;
    cudaGetLastError();
    return NULL;
}

void memory_give(Cuda *c, void *p)
{
    for (Chunk **at = &c->chunks; *at; at = &(*at)->next) {
        Chunk *k = *at;
        if ((char *)p < k->base || (char *)p >= k->base + chunk_bytes)
            continue;
        if (--k->pieces)
            return;
        *at = k->next;
        NOTE(c, cudaFree(k->base));
        free(k);
        return;
    }
    NOTE(c, cudaFree(p));
}

void memory_release(Cuda *c)
{
    while (c->chunks) {
        Chunk *k = c->chunks;
        c->chunks = k->next;
        cudaFree(k->base);
        free(k);
    }
}
