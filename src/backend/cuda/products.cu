/* products.cu - many rows times a matrix, by cuBLASLt.
 *
 * Asking cuBLASLt how to multiply takes the host longer than starting the product, and a step
 * of many rows has a thousand products of some twenty shapes: so what was found is kept, by
 * shape. The first product loads the library's kernels, which takes it a tenth of a second;
 * a thread has that done while weights are on their way. */
#include "internal.cuh"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS = 128, PLACES = 512, MOST_WARM = 16 };

/* What a plan is for. Alignments are powers of two up to 256. groups: so many products, of
 * matrices one after the other, each with k columns of x and rows of out. */
struct Product {
    size_t ld_out, ld_x;
    int rows, n, k, type;
    int align_w, align_x, align_out, groups;
};

struct Plan {
    Product of;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};

struct Products {
    Plan plan[PLANS];
    int n, next;              /* plans; the one to go next when all are there */
    unsigned char at[PLACES]; /* 1 + a plan, by the hash of what it is for; or 0 */
    /* the thread */
    pthread_t thread;
    bool started;
    int device, n_warm;
    Product warm[MOST_WARM];
};

static bool lt_ok(Cuda *c, cublasStatus_t rc, const char *what)
{
    if (rc != CUBLAS_STATUS_SUCCESS && !c->err.code)
        fail(&c->err, DS4_EDEVICE, "%s: cuBLASLt: %s (%s)", c->name, cublasLtGetStatusString(rc),
             what);
    return rc == CUBLAS_STATUS_SUCCESS;
}

/* ---- a plan -------------------------------------------------------------------- */

static int alignment_of(const void *p)
{
    int bytes = 256;
    while (bytes > 4 && (uintptr_t)p % bytes)
        bytes /= 2;
    return bytes;
}

/* cuBLASLt believes in 256 bytes unless it is told. */
static bool tell_alignment(Cuda *c, cublasLtMatmulPreference_t want, const Product *p)
{
    static const cublasLtMatmulPreferenceAttributes_t what[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
    };
    const int at[] = { p->align_w, p->align_x, p->align_out, p->align_out };
    for (int i = 0; i < 4; i++) {
        const uint32_t bytes = (uint32_t)at[i];
        if (!lt_ok(c, cublasLtMatmulPreferenceSetAttribute(want, what[i], &bytes, sizeof bytes),
                   "alignment"))
            return false;
    }
    return true;
}

static bool choose(Cuda *c, Plan *plan)
{
    const Product *p = &plan->of;
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t how;
    int found = 0;
    bool ok =
        lt_ok(c, cublasLtMatmulPreferenceCreate(&want), "preference") &&
        lt_ok(c,
              cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &c->lt_bytes, sizeof c->lt_bytes),
              "workspace") &&
        tell_alignment(c, want, p) &&
        lt_ok(c,
              cublasLtMatmulAlgoGetHeuristic(c->lt, plan->op, plan->a, plan->b, plan->d, plan->d,
                                             want, 1, &how, &found),
              "choice");
    if (ok)
        plan->algo = how.algo;
    if (want)
        cublasLtMatmulPreferenceDestroy(want);
    return ok;
}

static void release(Plan *plan)
{
    if (plan->d)
        cublasLtMatrixLayoutDestroy(plan->d);
    if (plan->b)
        cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->a)
        cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->op)
        cublasLtMatmulDescDestroy(plan->op);
    *plan = Plan{};
}

static bool tell_groups(Cuda *c, cublasLtMatrixLayout_t layout, int groups, int64_t apart)
{
    return groups == 1 ||
           (lt_ok(c,
                  cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                   &groups, sizeof groups),
                  "groups") &&
            lt_ok(c,
                  cublasLtMatrixLayoutSetAttribute(
                      layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart, sizeof apart),
                  "groups' distance"));
}

/* To cuBLAS matrices lie by columns: out^T = w . x^T. */
static bool prepare(Cuda *c, Plan *plan, const Product *p)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    const cudaDataType_t type = (cudaDataType_t)p->type;

    *plan = Plan{};
    plan->of = *p;
    if (lt_ok(c, cublasLtMatmulDescCreate(&plan->op, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "description") &&
        lt_ok(c,
              cublasLtMatmulDescSetAttribute(plan->op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t),
              "transposition") &&
        lt_ok(c, cublasLtMatrixLayoutCreate(&plan->a, type, p->k, p->rows, p->k), "weights") &&
        lt_ok(c, cublasLtMatrixLayoutCreate(&plan->b, type, p->k, p->n, p->ld_x), "inputs") &&
        lt_ok(c, cublasLtMatrixLayoutCreate(&plan->d, CUDA_R_32F, p->rows, p->n, p->ld_out),
              "outputs") &&
        tell_groups(c, plan->a, p->groups, (int64_t)p->rows * p->k) &&
        tell_groups(c, plan->b, p->groups, p->k) && tell_groups(c, plan->d, p->groups, p->rows) &&
        choose(c, plan))
        return true;
    release(plan);
    return false;
}

/* ---- those that are kept ----------------------------------------------------------- */

static unsigned place_of(const Product *p)
{
    const int v[] = { p->rows,    p->n,       p->k,         (int)p->ld_out, (int)p->ld_x,
                      p->align_w, p->align_x, p->align_out, p->type,        p->groups };
    unsigned h = 2166136261u;
    for (size_t i = 0; i < COUNT(v); i++)
        h = (h ^ (unsigned)v[i]) * 16777619u;
    return (h ^ h >> 15) % PLACES;
}

/* A place has one plan: what shares it with another shape is found again each time, until
 * the other goes. */
static Plan *plan_of(Cuda *c, const Product *p)
{
    Products *all = c->products;
    unsigned char *at = &all->at[place_of(p)];
    if (*at && !memcmp(&all->plan[*at - 1].of, p, sizeof *p))
        return &all->plan[*at - 1];
    const int i = *at ? *at - 1 : all->n < PLANS ? all->n++ : all->next++ % PLANS;
    Plan *plan = &all->plan[i];
    if (plan->op && !*at)
        all->at[place_of(&plan->of)] = 0;
    release(plan);
    *at = 0;
    if (!prepare(c, plan, p))
        return NULL;
    *at = (unsigned char)(1 + i);
    return plan;
}

static void run(Cuda *c, const Plan *plan, float *out, const void *w, const void *x,
                cudaStream_t stream)
{
    const float one = 1, zero = 0;
    lt_ok(c,
          cublasLtMatmul(c->lt, plan->op, &one, w, plan->a, x, plan->b, &zero, out, plan->d, out,
                         plan->d, &plan->algo, c->lt_work, c->lt_bytes, stream),
          "product");
}

static void multiply_all(Cuda *c, const Product *p, float *out, const void *w, const void *x)
{
    const Plan *plan = plan_of(c, p);
    if (plan)
        run(c, plan, out, w, x, c->stream);
}

void multiply(Cuda *c, float *out, size_t ld_out, const void *w, const void *x, size_t ld_x,
              int rows, int n, int k, cudaDataType_t type)
{
    const Product p = {
        ld_out, ld_x, rows, n, k, (int)type, alignment_of(w), alignment_of(x), alignment_of(out), 1
    };
    multiply_all(c, &p, out, w, x);
}

void multiply_groups(Cuda *c, float *out, size_t ld_out, const half *w, const half *x, int rows,
                     int n, int k, int groups)
{
    const size_t ld_x = (size_t)groups * k;
    const int of_w = MIN(alignment_of(w), alignment_of(w + (size_t)rows * k));
    const int of_x = MIN(alignment_of(x), alignment_of(x + k));
    const int of_out = MIN(alignment_of(out), alignment_of(out + rows));
    const Product p = { ld_out, ld_x, rows, n, k, CUDA_R_16F, of_w, of_x, of_out, groups };
    multiply_all(c, &p, out, w, x);
}

/* ---- before the first step ------------------------------------------------------------ */

/* Products of the largest step: F16 inputs in a row, aligned outputs; where scratch is too
 * small for the outputs as they will lie, side by side. */
static void list_products(Products *all, const Shape *s, int n, size_t most_weights,
                          size_t most_out)
{
    const int heads = s->n_heads * s->head_dim, low = s->o_groups * s->o_rank;
    const int size[][3] = { { s->q_rank, s->dim, s->q_rank },
                            { heads, s->q_rank, heads },
                            { s->head_dim, s->dim, s->head_dim },
                            { 2 * s->head_dim, s->dim, 2 * s->head_dim },
                            { 2 * s->idx_dim, s->dim, 2 * s->idx_dim },
                            { s->idx_heads * s->idx_dim, s->q_rank, s->idx_heads * s->idx_dim },
                            { s->idx_heads, s->dim, s->idx_heads },
                            { s->o_rank, heads / s->o_groups, low },
                            { s->dim, low, s->dim },
                            { s->n_experts, s->dim, s->n_experts },
                            { s->shared_dim, s->dim, s->shared_dim },
                            { s->dim, s->shared_dim, s->dim } };
    static_assert(COUNT(size) <= MOST_WARM, "a list of products");
    for (size_t i = 0; i < COUNT(size); i++) {
        const int k = size[i][1];
        if (!size[i][0] || k % 32)
            continue;
        const int rows = (int)MIN((size_t)size[i][0], most_weights / sizeof(half) / k);
        const size_t ld = (size_t)size[i][2], fits = ld * n * sizeof(float) <= most_out;
        all->warm[all->n_warm++] = Product{
            fits ? ld : (size_t)rows, (size_t)k, rows, n, k, CUDA_R_16F, 256, 256, 256, 1
        };
    }
}

/* Of what happens to be in scratch, on a stream of its own. Whatever fails, fails again where
 * it matters. */
static void *warm_up(void *arg)
{
    Cuda *c = (Cuda *)arg;
    Products *all = c->products;
    Cuda own = *c;
    cudaStream_t stream;

    if (cudaSetDevice(c->device) != cudaSuccess ||
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        return NULL;
    for (int i = 0; i < all->n_warm && !own.err.code; i++) {
        const Product *p = &all->warm[i];
        if (p->n * p->ld_out * sizeof(float) > c->scratch_bytes)
            continue;
        const Plan *plan = plan_of(&own, p);
        if (plan)
            run(&own, plan, (float *)c->scratch, c->w16, c->x16, stream);
    }
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    return NULL;
}

bool products_init(Cuda *c, ds4_err *err)
{
    c->products = (Products *)calloc(1, sizeof *c->products);
    if (!c->products)
        return fail(err, DS4_ENOMEM, "no memory for products");
    if (c->max_rows <= FEW_ROWS)
        return true;
    list_products(c->products, c->be.shape, c->max_rows, c->w16_bytes, c->scratch_bytes);
    c->products->started = !pthread_create(&c->products->thread, NULL, warm_up, c);
    return true;
}

void products_ready(Cuda *c)
{
    if (c->products && c->products->started)
        pthread_join(c->products->thread, NULL);
    if (c->products)
        c->products->started = false;
}

void products_release(Cuda *c)
{
    products_ready(c);
    for (int i = 0; c->products && i < PLANS; i++)
        release(&c->products->plan[i]);
    free(c->products);
    c->products = NULL;
}
