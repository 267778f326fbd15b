/* select.cuh - what the two halves of the indexer share: scores, and the choice of the best. */
#ifndef SELECT_CUH
#define SELECT_CUH
#include "internal.cuh"

/* Rows of the step first.. are a batch, which has scores at once. */
struct Choose {
    StepAt b;
    float *score; /* [batch][cap] */
    int *pick;    /* [rows][topk] */
    int *count;   /* long contexts: [batch][3][2048] */
    int *taken;   /* long contexts: [batch][16][2]: greater, equal */
    int cap, topk, ratio, first;
};

/* choose.cu. Scratch for counts of a batch; count and taken are set when base is given. */
size_t choose_bytes(Choose *a, int batch, int cap, char *base);
/* The topk best of what each row of the batch sees, or all of it where that is no more. */
void choose_batch(Cuda *c, const Choose *a, int rows);

#ifdef __CUDACC__
__device__ static inline int visible_to(const Choose &a, int row)
{
    return (a.b.row[row].pos + 1) / a.ratio;
}
#endif

#endif
