/* route.c - which experts a row goes to, and with what weight. */
#include "cpu_internal.h"

typedef struct {
    Cpu *c;
    const Step *step;
    const Layer *l;
    Rows x, score;
    int32_t *ids;
    float *gates;
} Route;

static float score_of(float logit) { return sqrtf(logit > 20 ? logit : log1pf(expf(logit))); }

/* The n_active best by score + bias, best first, ties to the lower id. Any
 * scores, NaN included, give distinct ids. */
static void choose_best(const Shape *s, int32_t *ids, const float *score, const float *bias)
{
    for (int k = 0; k < s->n_active; k++) {
        int top = -1;
        for (int e = 0; e < s->n_experts; e++) {
            bool taken = false;
            for (int i = 0; i < k; i++)
                taken = taken || ids[i] == e;
            if (!taken && (top < 0 || score[e] + bias[e] > score[top] + bias[top]))
                top = e;
        }
        ids[k] = top;
    }
}

/* From the file's table: an id that the model does not have is the file's
 * fault; end() tells. */
static void choose_hashed(Cpu *c, int32_t *ids, Buf table, int32_t token)
{
    const Shape *s = c->be.shape;
    const size_t bytes = (size_t)s->n_active * sizeof *ids;

    assert(token >= 0 && token < s->vocab);
    memcpy(ids, (const char *)bytes_of(table) + (size_t)token * bytes, bytes);
    for (int k = 0; k < s->n_active; k++) {
        if (ids[k] >= 0 && ids[k] < s->n_experts)
            continue;
        atomic_store(&c->bad_expert, MAX(ids[k], s->n_experts));
        ids[k] = 0;
    }
}

static void weigh(const Shape *s, float *gates, const int32_t *ids, const float *score)
{
    float sum = 0;

    for (int k = 0; k < s->n_active; k++)
        sum += score[ids[k]];
    sum = sum < 0x1p-14f ? 0x1p-14f : sum;
    for (int k = 0; k < s->n_active; k++)
        gates[k] = s->route_scale * score[ids[k]] / sum;
}

static void route_part(void *arg, int ith, int nth)
{
    const Route *a = arg;
    const Shape *s = a->c->be.shape;
    int first, last;

    cpu_part(s->n_experts, ith, nth, &first, &last);
    cpu_matmul(a->c, a->score, &a->l->router, 0, a->x, first, last);
    pool_barrier(a->c->pool);

    pool_part(a->x.n, 1, ith, nth, &first, &last);
    for (int i = first; i < last; i++) {
        size_t at = (size_t)i * (size_t)s->n_active;
        float *score = row_at(a->score, i);
        for (int e = 0; e < s->n_experts; e++)
            score[e] = score_of(score[e]);
        if (s->hashed[a->l->index])
            choose_hashed(a->c, a->ids + at, a->l->route_hash, a->step->token[i]);
        else
            choose_best(s, a->ids + at, score, floats(a->l->route_bias));
        weigh(s, a->gates + at, a->ids + at, score);
    }
}

void cpu_route(Backend *be, const Step *step, Buf ids, Buf gates, Buf x, const Layer *l)
{
    const Shape *s = be->shape;
    Route a = { .c = cpu_of(be), .step = step, .l = l, .ids = ints(ids), .gates = floats(gates) };

    a.x = rows_of(x, s->dim, step->n_rows);
    a.score = (Rows){ a.c->scores, (size_t)s->n_experts, step->n_rows };
    pool_run(a.c->pool, route_part, &a);
}
