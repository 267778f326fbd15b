/* Every op on the GPU against the CPU, in whole steps: many numbers of rows, as
 * prompts, as decoding sessions and mixed, at positions around every boundary,
 * over all formats of weights and over shapes down to the smallest legal ones.
 *
 * A step runs through check: after each op both results are compared, and both go
 * on from the CPU's. What a session holds before the step is random, so any
 * position is reached at once. All that a step may not read is no number: rows of
 * the window that were left, rows beyond those that are visible, outputs, scratch. */
#include "../../src/ops/decorate.h"
#include "../../src/base/rng.h"
#include "../../src/quantize/synth.h"
#include "gpu.h"
#include <math.h>

enum { SLOTS = 17, MOST_ROWS = 2048, MOST_OUT = 64, CONTEXT = 102400, FAR = 100000, NEAR = 256 };

typedef struct {
    const char *name, *shape, *recipe;
    int n_experts; /* 0: the shape's own */
    bool unrounded;
    int context; /* 0: CONTEXT; else steps are far off only */
} Trial;

static const Trial trials[] = {
    { "toy_f32", "toy", "f32", 0, false, 0 },
    { "toy_bf16", "toy", "bf16", 0, false, 0 },
    { "toy_q8", "toy", "q8", 0, false, 0 },
    { "toy_q4", "toy", "q4", 0, false, 0 },
    { "toy_q2_q4", "toy", "q2-q4", 0, false, 0 },
    { "toy_q2", "toy", "q2", 0, false, 0 },
    { "toy_mxfp4", "toy", "mxfp4", 0, false, 0 },
    { "toy_unrounded", "toy", "q8", 0, true, 0 },
    { "mini_f32", "mini", "f32", 0, false, 0 },
    { "mini_q8", "mini", "q8", 0, false, 0 },
    { "odd_f32", "odd", "f32", 0, false, 0 },
    { "odd_bf16", "odd", "bf16", 0, false, 0 },
    { "odd_unrounded", "odd", "f32", 0, true, 0 },
    { "bundled_model", "models/ds4-tiny.gguf", NULL, 0, false, 0 },
    { "flash_q2", "flash", "q2", 0, false, 0 },
    { "flash_q4_of_16_experts", "flash", "q4", 16, false, 0 },
    { "flash_mxfp4_of_16_experts", "flash", "mxfp4", 16, false, 0 },
    { "mini_of_a_million", "mini", "q8", 0, false, 1 << 20 },
    { "flash_of_a_million", "flash", "q2", 0, false, 1 << 20 },
};

/* ---- models ----------------------------------------------------------------- */

/* No dimension is a multiple of anything that it need not be. */
static void odd_shape(Shape *s)
{
    static const uint8_t ratio[] = { 0, 4, 6, 4, 128, 1 };

    s->n_layers = (int)COUNT(ratio);
    s->dim = 52;
    s->vocab = 301;
    s->n_heads = 3;
    s->head_dim = 22;
    s->rope_dim = 6;
    s->q_rank = 20;
    s->o_groups = 3;
    s->o_rank = 5;
    s->window = 5;
    s->idx_heads = 3;
    s->idx_dim = 32;
    s->idx_topk = 3;
    s->n_experts = 5;
    s->n_active = 3;
    s->expert_dim = s->shared_dim = 28;
    for (int i = 0; i < s->n_layers; i++) {
        s->ratio[i] = ratio[i];
        s->hashed[i] = i < 2;
        s->swiglu_limit[i] = 10;
    }
}

static void trial_shape(Shape *s, const Trial *t)
{
    ds4_err err;
    const bool flash = !strcmp(t->shape, "flash"), odd = !strcmp(t->shape, "odd");

    if (!synth_shape(s, odd ? "toy" : t->shape, flash ? 4 : 0, &err))
        fail_msg("%s", err.msg);
    if (odd)
        odd_shape(s);
    s->context = t->context ? t->context : 1 << 17;
    if (t->n_experts) {
        s->n_experts = t->n_experts;
        s->vocab = 1000;
    }
}

typedef struct {
    const Trial *trial;
    Bytes made;
    Map file;
    Gguf gguf;
    Shape shape;
    Backend *be;
    Model model;
    Kv kv;
    Run run;
    char *rows[MAX_LAYERS][2];   /* random rows of comp and idx, [comp_rows] */
    int have[SLOTS][MAX_LAYERS]; /* pooled rows that are there */
    char *near;                  /* random rows of the window, [NEAR] */
    float *inputs;               /* random pooling inputs, [NEAR][2 * widest] */
    char *none, *image;          /* [most]: bytes of 0xff; what is written next */
    size_t most;
    uint64_t rng;
    int context, steps;
} World;

static void open_file(World *w)
{
    ds4_err err;
    const void *p;
    size_t n;

    if (w->trial->recipe) {
        trial_shape(&w->shape, w->trial);
        const SynthOptions opt = { .shape = &w->shape, .recipe = w->trial->recipe, .alias = true };
        if (!synth_bytes(&w->made, &opt, &err))
            fail_msg("%s", err.msg);
        p = w->made.p;
        n = w->made.n;
    } else {
        if (!map_open(&w->file, w->trial->shape, &err))
            fail_msg("%s", err.msg);
        p = w->file.p;
        n = w->file.n;
    }
    if (!gguf_parse(&w->gguf, p, n, &err) || !shape_read(&w->shape, &w->gguf, &err))
        fail_msg("%s", err.msg);
    w->shape.rounding = !w->trial->unrounded;
}

static void open_device(World *w)
{
    ds4_err err;
    BackendOptions opt = {
        .max_rows = MOST_ROWS, .max_out = MOST_OUT, .max_context = w->context, .eager = true
    };
    const Shape *s = &w->shape;
    /* At Flash's size the plain kernels take minutes; the others are tested against them. */
    const bool big = s->dim >= 4096;

    poison_memory();
    Backend *gpu = backend_open("cuda", s, &opt, &err);
    if (!gpu)
        fail_msg("%s", err.msg);
    opt.isa = big ? NULL : "scalar";
    opt.exact = true;
    Backend *cpu = backend_open("cpu", s, &opt, &err);
    w->be = cpu ? check_open(gpu, cpu, &err) : NULL;
    if (!w->be || !model_init(&w->model, &w->gguf, s, w->be, NULL, NULL, &err) ||
        !kv_init(&w->kv, s, w->be, SLOTS, w->context, MOST_ROWS, &err) ||
        !run_init(&w->run, &w->model, &w->kv, w->be, MOST_ROWS, MOST_OUT, &err))
        fail_msg("%s", err.msg);
}

static float gauss(uint64_t *rng)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += rng_unit(rng);
    return (float)((sum - 2) * 1.7);
}

static char *random_rows(World *w, const KvLayer *l, bool idx, int n)
{
    const size_t bytes = (size_t)(idx ? l->idx_row.bytes : l->row.bytes);
    const int dim = idx ? l->idx_row.dim : l->row.dim;
    char *rows = malloc(bytes * (size_t)n);
    float *x = malloc((size_t)dim * sizeof *x);

    assert_true(rows && x);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < dim; k++)
            x[k] = gauss(&w->rng);
        if (idx)
            idxrow_pack(&l->idx_row, rows + bytes * (size_t)i, x);
        else
            kvrow_pack(&l->row, rows + bytes * (size_t)i, x);
    }
    free(x);
    return rows;
}

static size_t widest(const Shape *s) { return (size_t)MAX(s->head_dim, s->idx_dim); }

/* Of one slot's rows in one buffer. */
static size_t most_bytes(const World *w)
{
    size_t most = 0;

    for (int i = 0; i < w->shape.n_layers; i++) {
        const KvLayer *l = &w->kv.layer[i];
        const size_t rows = (size_t)MAX(l->ring_rows, l->comp_rows);
        const size_t state = (size_t)shape_state_rows(l->ratio) * 2 * widest(&w->shape);
        most = MAX(most, rows * (size_t)MAX(l->row.bytes, l->idx_row.bytes));
        most = MAX(most, state * sizeof(float));
    }
    return most;
}

static void make_contents(World *w)
{
    const size_t n = NEAR * 2 * widest(&w->shape);

    w->most = most_bytes(w);
    w->none = malloc(w->most);
    w->image = malloc(w->most);
    w->inputs = malloc(n * sizeof(float));
    assert_true(w->none && w->image && w->inputs);
    memset(w->none, 0xff, w->most);
    for (size_t i = 0; i < n; i++)
        w->inputs[i] = gauss(&w->rng);
    w->near = random_rows(w, &w->kv.layer[0], false, NEAR);
    for (int i = 0; i < w->shape.n_layers; i++) {
        const KvLayer *l = &w->kv.layer[i];
        if (l->ratio)
            w->rows[i][0] = random_rows(w, l, false, l->comp_rows);
        if (shape_overlaps(l->ratio))
            w->rows[i][1] = random_rows(w, l, true, l->comp_rows);
        for (int slot = 0; slot < SLOTS; slot++)
            w->have[slot][i] = l->comp_rows; /* all still to be poisoned */
    }
}

static World *world_open(const Trial *t)
{
    World *w = calloc(1, sizeof *w);

    assert_non_null(w);
    w->trial = t;
    w->context = t->context ? t->context : CONTEXT;
    w->rng = 99;
    open_file(w);
    open_device(w);
    make_contents(w);
    return w;
}

static void world_close(World *w)
{
    for (int i = 0; i < w->shape.n_layers; i++) {
        free(w->rows[i][0]);
        free(w->rows[i][1]);
    }
    free(w->near);
    free(w->inputs);
    free(w->none);
    free(w->image);
    run_release(&w->run);
    kv_release(&w->kv, w->be);
    model_release(&w->model, w->be);
    backend_close(w->be);
    gguf_release(&w->gguf);
    map_close(&w->file);
    bytes_release(&w->made);
    free(w);
}

/* ---- what a session holds at a length ------------------------------------------ */

static void put(World *w, Buf b, size_t at, const void *from, size_t bytes)
{
    w->be->op->write(w->be, buf_at(b, at), from, bytes);
}

/* The rows of the last `window` - 1 positions; the others are no numbers. */
static void fill_ring(World *w, const KvLayer *l, int slot, int pos)
{
    const size_t bytes = (size_t)l->row.bytes, all = bytes * (size_t)l->ring_rows;

    memset(w->image, 0xff, all);
    for (int p = MAX(0, pos - (w->shape.window - 1)); p < pos; p++)
        memcpy(w->image + bytes * (size_t)(p % l->ring_rows), w->near + bytes * (size_t)(p % NEAR),
               bytes);
    put(w, l->ring, all * (size_t)slot, w->image, all);
}

/* Pooling inputs of the open group, and of the one before it where groups overlap. */
static void fill_state(World *w, const KvLayer *l, Buf b, int dim, int slot, int pos, int which)
{
    const size_t bytes = (size_t)shape_comp_width(l->ratio, dim) * sizeof(float);
    const int state_rows = shape_state_rows(l->ratio);
    int from = pos / l->ratio * l->ratio;

    if (shape_overlaps(l->ratio))
        from = MAX(0, from - l->ratio);
    memset(w->image, 0xff, bytes * (size_t)state_rows);
    for (int p = from; p < pos; p++)
        memcpy(w->image + bytes * (size_t)(p % state_rows),
               w->inputs + 2 * widest(&w->shape) * (size_t)((4 * p + which) % NEAR), bytes);
    put(w, b, bytes * (size_t)state_rows * (size_t)slot, w->image, bytes * (size_t)state_rows);
}

static void fill_pooled(World *w, int layer, int slot, int pos)
{
    const KvLayer *l = &w->kv.layer[layer];
    const int need = shape_visible(l->ratio, pos - 1), have = w->have[slot][layer];
    const Buf bufs[2] = { l->comp, l->idx };
    const int bytes[2] = { l->row.bytes, l->idx_row.bytes };

    for (int k = 0; k < 1 + shape_overlaps(l->ratio); k++) {
        const size_t row = (size_t)bytes[k], first = (size_t)slot * (size_t)l->comp_rows * row;
        put(w, bufs[k], first, w->rows[layer][k], row * (size_t)need);
        if (have > need)
            put(w, bufs[k], first + row * (size_t)need, w->none, row * (size_t)(have - need));
    }
    w->have[slot][layer] = need;
}

static void fill_slot(World *w, const Span *s)
{
    const int head = w->shape.head_dim, idx = w->shape.idx_dim;

    for (int i = 0; i < w->shape.n_layers; i++) {
        const KvLayer *l = &w->kv.layer[i];
        fill_ring(w, l, s->slot, s->pos);
        if (!l->ratio)
            continue;
        fill_pooled(w, i, s->slot, s->pos);
        w->have[s->slot][i] = shape_visible(l->ratio, s->pos + s->n - 1); /* after the step */
        fill_state(w, l, l->comp_kv, head, s->slot, s->pos, 0);
        fill_state(w, l, l->comp_score, head, s->slot, s->pos, 1);
        if (!shape_overlaps(l->ratio))
            continue;
        fill_state(w, l, l->idx_kv, idx, s->slot, s->pos, 2);
        fill_state(w, l, l->idx_score, idx, s->slot, s->pos, 3);
    }
}

/* ---- steps ---------------------------------------------------------------------- */

enum Kind { PROMPT, DECODE, MIXED, N_KINDS };

typedef struct {
    Step step;
    Span span[SLOTS];
    int32_t token[MOST_ROWS], out[MOST_OUT];
} Plan;

static void add_span(Plan *p, int pos, int n)
{
    Step *s = &p->step;
    if (n <= 0)
        return;
    p->span[s->n_spans] = (Span){ .slot = s->n_spans, .pos = pos, .n = n, .row = s->n_rows };
    s->n_spans++;
    s->n_rows += n;
}

/* Slots are given backwards in every other step: a slot is no number of a span. */
static void finish(World *w, Plan *p)
{
    Step *s = &p->step;
    s->span = p->span;
    s->token = p->token;
    s->out = p->out;
    for (int i = 0; i < s->n_spans; i++)
        if (w->steps % 2)
            p->span[i].slot = SLOTS - 1 - p->span[i].slot;
    for (int i = 0; i < s->n_rows; i++)
        p->token[i] = (int32_t)(rng_next(&w->rng) % (uint64_t)w->shape.vocab);
    s->n_out = MIN(s->n_rows, w->steps % 3 ? s->n_spans : MOST_OUT);
    for (int i = 0; i < s->n_out; i++)
        p->out[i] = s->n_rows - s->n_out + i;
}

/* Near pos: a prompt there; a session for each row, some tokens apart; or two prompts and
 * sessions beside them. */
static bool plan_step(World *w, Plan *p, enum Kind kind, int rows, int pos)
{
    memset(&p->step, 0, sizeof p->step);
    if (kind == PROMPT) {
        add_span(p, pos, rows);
    } else if (kind == DECODE) {
        if (rows < 2 || rows > SLOTS)
            return false;
        for (int i = 0; i < rows; i++)
            add_span(p, i % 3 == 2 ? pos / (i + 1) : MAX(0, pos - i), 1);
    } else {
        if (rows < 5)
            return false;
        const int decoders = MIN(rows / 3, SLOTS - 2), first = (rows - decoders) * 2 / 3;
        add_span(p, pos, first);
        for (int i = 0; i < decoders; i++)
            add_span(p, MAX(0, pos - 5 * i), 1);
        add_span(p, pos / 2, rows - decoders - first);
    }
    finish(w, p);
    return true;
}

static void poison_outputs(World *w, const Step *step)
{
    const Shape *s = &w->shape;
    const size_t row = (size_t)step->n_rows * sizeof(float), dim = (size_t)s->dim;
    const size_t heads = (size_t)s->n_heads * (size_t)s->head_dim;
    const Run *r = &w->run;
    const struct {
        Buf buf;
        size_t bytes;
    } all[] = {
        { r->streams, row * N_STREAMS * dim },
        { r->mix, row * N_STREAMS * (N_STREAMS + 1) },
        { r->x, row * dim },
        { r->y, row * dim },
        { r->qr, row * (size_t)s->q_rank },
        { r->q, row * heads },
        { r->o, row * heads },
        { r->pick, row * (size_t)s->idx_topk },
        { r->ids, row * (size_t)s->n_active },
        { r->gates, row * (size_t)s->n_active },
        { r->logits, (size_t)step->n_out * sizeof(float) * (size_t)s->vocab },
    };

    for (size_t i = 0; i < COUNT(all); i++)
        for (size_t at = 0; all[i].buf.base && at < all[i].bytes; at += w->most)
            put(w, all[i].buf, at, w->none, MIN(w->most, all[i].bytes - at));
}

static void run_step(World *w, enum Kind kind, int rows, int pos)
{
    static const char *const kinds[] = { "prompt", "decode", "mixed" };
    static Plan p;
    ds4_err err;
    const uint64_t before = check_report(w->be).failed;

    if (pos + rows > w->context || !plan_step(w, &p, kind, rows, pos))
        return;
    for (int i = 0; i < p.step.n_spans; i++)
        fill_slot(w, &p.span[i]);
    poison_outputs(w, &p.step);
    if (!forward(&w->run, &p.step, &err))
        fail_msg("%s, %d rows at %d: %s", kinds[kind], rows, pos, err.msg);
    w->steps++;
    if (check_report(w->be).failed != before)
        print_error("%s: %s, %d rows at %d: %d differ\n", w->trial->name, kinds[kind], rows, pos,
                    (int)(check_report(w->be).failed - before));
}

/* ---- which ------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Around the window, around as many pooled rows as the indexer picks, and far off. */
static int positions(const Shape *s, int *at)
{
    static const int fixed[] = { 0,   1,   2,   3,    4,    5,    7,    8,    126,  127,  128, 129,
                                 255, 511, 512, 2043, 2047, 2048, 2050, 2051, 2052, 8191, FAR };
    int n = 0, kept = 1;

    for (size_t i = 0; i < COUNT(fixed); i++)
        at[n++] = fixed[i];
    for (int d = -1; d <= 1; d++) {
        at[n++] = MAX(0, s->window - 1 + d);
        at[n++] = MAX(0, 4 * (s->idx_topk + d) - 1);
        at[n++] = MAX(0, 4 * (s->idx_topk + d) - 2);
    }
    qsort(at, (size_t)n, sizeof *at, by_value);
    for (int i = 1; i < n; i++)
        if (at[i] != at[kept - 1])
            at[kept++] = at[i];
    return kept;
}

/* In minutes; without it in seconds, and where somebody watches, which is a hundred times
 * slower. */
static bool thorough;

static void some_steps(World *w)
{
    static const int at[] = { 0, 6, 131, 2051 }, rows[] = { 1, 5, 16, 17, 70 };

    for (size_t i = 0; i < COUNT(at); i++)
        for (size_t k = 0; k < COUNT(rows); k++)
            for (int kind = 0; kind < N_KINDS; kind++)
                run_step(w, (enum Kind)kind, rows[k], at[i]);
}

static void all_steps(World *w)
{
    static const int few[] = { 1, 2, 3, 5, 8, 16, 17 }, many[] = { 64, 200 };
    const bool big = w->shape.dim >= 4096;
    int at[64];
    const int n = positions(&w->shape, at);

    for (int i = 0; i < n; i++) {
        for (size_t k = 0; k < COUNT(few); k++)
            for (int kind = 0; kind < N_KINDS; kind++)
                if (!big || (i + (int)k) % N_KINDS == kind)
                    run_step(w, (enum Kind)kind, few[k], at[i]);
        for (size_t k = 0; k < COUNT(many) && (!big || i % 3 == 0); k++)
            run_step(w, (i + (int)k) % 2 ? PROMPT : MIXED, many[k], at[i]);
    }
    run_step(w, PROMPT, MOST_ROWS, 0);
    run_step(w, MIXED, MOST_ROWS, FAR);
    if (!big) {
        run_step(w, PROMPT, MOST_ROWS, 2047);
        run_step(w, PROMPT, MOST_ROWS, FAR);
    }
}

/* Rows that see 65,536 index rows, one more, and all: choose.cu has another way beyond, and
 * select.cu goes in batches. */
static void far_steps(World *w)
{
    static const int rows[] = { 1, 3, 16, 17, 70 };
    const int at[] = { 262143, 262146, 262147, 500000, w->context - 71, w->context - 1 };
    const bool big = w->shape.dim >= 4096;

    for (size_t i = 0; i < COUNT(at); i++)
        for (size_t k = 0; k < COUNT(rows); k++)
            for (int kind = 0; kind < N_KINDS; kind++)
                if (!big || (i + k) % N_KINDS == (size_t)kind)
                    run_step(w, (enum Kind)kind, rows[k], at[i]);
    run_step(w, PROMPT, 200, w->context - 200);
}

static void every_op_agrees_with_the_cpu(void **state)
{
    const Trial *t = *state;
    const double start = seconds();

    NEED_GPU();
    if (t->context && !strcmp(t->shape, "flash") && !thorough) {
        print_message("skipped: %s takes minutes\n", t->name);
        skip();
    }
    World *w = world_open(t);
    const double opened = seconds();
    if (t->context)
        far_steps(w);
    else if (thorough)
        all_steps(w);
    else
        some_steps(w);
    const CheckReport r = check_report(w->be);
    print_message("%s: %d steps, %llu outputs, worst %.3g in %s; %.1f s to open, %.1f s\n",
                  w->trial->name, w->steps, (unsigned long long)r.compared, r.worst,
                  r.op ? r.op : "none", opened - start, seconds() - opened);
    world_close(w);
    assert_int_equal(r.failed, 0);
    assert_true(r.compared > 0);
}

/* ops [PATTERN [all]] */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[COUNT(trials)];

    for (size_t i = 0; i < COUNT(trials); i++)
        tests[i] = (struct CMUnitTest){ .name = trials[i].name,
                                        .test_func = every_op_agrees_with_the_cpu,
                                        .initial_state = (void *)(uintptr_t)&trials[i] };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]); /* "toy_*" */
    thorough = argc > 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
