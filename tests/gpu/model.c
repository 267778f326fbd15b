/* Whole models on the GPU: the reference's logits, the CPU's tokens, and the laws
 * that hold for every device: repeating, replaying, company, chunks of few rows and
 * loading what was saved change no bit. */
#include "../../src/quantize/convert.h"
#include "gpu.h"
#include <math.h>
#include <unistd.h>

#define BUNDLED "models/ds4-tiny.gguf"
#define DIR_A   "tests/data/refA"

enum { FEW = 16 }; /* rows whose activations are not rounded, and stand alone */

/* The CPU is the truth, so its activations are F32. */
static ds4_engine *open_on(const char *device, ds4_options opt)
{
    ds4_err err;

    opt.device = device;
    opt.exact = !strcmp(device, "cpu");
    opt.share_device = true; /* other tests may run beside */
    opt.model = opt.model ? opt.model : BUNDLED;
    ds4_engine *e = ds4_engine_open(&opt, &err);
    if (!e)
        fail_msg("%s", err.msg);
    return e;
}

static ds4_session *session(ds4_engine *e)
{
    ds4_err err;
    ds4_session *s = ds4_session_open(e, &err);
    if (!s)
        fail_msg("%s", err.msg);
    return s;
}

static int vocab_of(const ds4_engine *e) { return ds4_engine_info(e).vocab; }

/* Logits of all n rows to out, if it is given; `chunk` rows a step. */
static void feed(ds4_session *s, const int32_t *ids, int n, int chunk, float *out)
{
    const size_t vocab = (size_t)vocab_of(s->engine);
    ds4_err err;

    for (int at = 0; at < n; at += chunk) {
        const int rows = MIN(chunk, n - at);
        if (!ds4_step(s->engine, &(ds4_work){ s, ids + at, rows, out ? rows : 0 }, 1, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; out && i < rows; i++)
            memcpy(out + (size_t)(at + i) * vocab, ds4_step_logits(s->engine, 0, i),
                   vocab * sizeof *out);
    }
}

static float *rows_of(const ds4_engine *e, int n)
{
    float *p = calloc((size_t)n * (size_t)vocab_of(e), sizeof *p);
    assert_non_null(p);
    return p;
}

static bool same(const ds4_engine *e, const float *a, const float *b, int n)
{
    return !memcmp(a, b, (size_t)n * (size_t)vocab_of(e) * sizeof *a);
}

static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(d / norm);
}

/* ---- the reference ------------------------------------------------------------ */

enum { VOCAB_A = 384, SHORT = 600, LONG = 5000, LAST = 32 };

static void convert(char *path, size_t n, const char *recipe)
{
    const ConvertOptions opt = { .in = DIR_A, .recipe = recipe };
    Convert c;
    ds4_err err;

    snprintf(path, n, "/tmp/ds4-gpu-%s-%d.gguf", recipe, (int)getpid());
    if (!convert_open(&c, &opt, &err) || !convert_write(&c, path, &err))
        fail_msg("%s", err.msg);
    convert_close(&c);
}

typedef struct {
    Map map;
    StFile file;
    const int32_t *ids;
    const float *logits, *last;
} Ref;

static const void *data_of(const Ref *r, const char *name)
{
    for (size_t i = 0; i < r->file.n; i++)
        if (str_eq(r->file.tensor[i].name, str_of(name)))
            return r->file.tensor[i].data;
    fail_msg("%s is not there", name);
    return NULL;
}

static void ref_open(Ref *r)
{
    ds4_err err;

    if (!map_open(&r->map, DIR_A "/expected.safetensors", &err) ||
        !st_parse(&r->file, r->map.p, r->map.n, &err))
        fail_msg("%s", err.msg);
    r->ids = data_of(r, "input_ids");
    r->logits = data_of(r, "logits");
    r->last = data_of(r, "logits_long_last32");
}

static void ref_close(Ref *r)
{
    st_release(&r->file);
    map_close(&r->map);
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Exact: all rows are near. Else half of them are, and most are not far: an input that is
 * rounded may turn a choice of experts or rows that nearly ties, which a model of random
 * weights has everywhere, and then the row is another. */
static void assert_near(const char *what, const float *got, const float *want, int rows, bool exact)
{
    double *d = malloc((size_t)rows * sizeof *d);

    assert_non_null(d);
    for (int i = 0; i < rows; i++)
        d[i] = distance(got + (size_t)i * VOCAB_A, want + (size_t)i * VOCAB_A, VOCAB_A);
    qsort(d, (size_t)rows, sizeof *d, by_size);
    const double all = distance(got, want, (size_t)rows * VOCAB_A), half = d[rows / 2],
                 most = d[rows * 9 / 10], worst = d[rows - 1];
    print_message("%s: all %.3g; rows: half within %.3g, nine tenths %.3g, all %.3g\n", what, all,
                  half, most, worst);
    free(d);
    if (exact) {
        assert_true(all < 1e-4);
        assert_true(worst < 5e-4);
    } else {
        assert_true(half < 2e-2);
        assert_true(most < 0.1);
    }
}

/* Few rows a step keep F32 activations, so they come as near as the CPU's kernels; more
 * are rounded to F16. */
static void agree(const Ref *r, const char *path, const float *logits, const float *last, int chunk)
{
    ds4_engine *e = open_on("cuda", (ds4_options){ .model = path,
                                                   .context = LONG,
                                                   .max_rows = SHORT,
                                                   .max_logits = SHORT,
                                                   .unrounded = true });
    ds4_session *s = session(e);
    float *got = rows_of(e, SHORT);
    const bool exact = chunk <= FEW;
    char what[64];

    feed(s, r->ids, SHORT, chunk, got);
    snprintf(what, sizeof what, "600 tokens, %d a step", chunk);
    assert_near(what, got, logits, SHORT, exact);
    feed(s, r->ids + SHORT, LONG - LAST - SHORT, chunk, NULL);
    feed(s, r->ids + LONG - LAST, LAST, MIN(chunk, (int)LAST), got);
    snprintf(what, sizeof what, "the last 32 of 5,000, %d a step", chunk);
    assert_near(what, got, last, LAST, exact);
    free(got);
    ds4_engine_close(e);
}

static void f32_logits_agree_with_the_reference(void **state)
{
    Ref r;
    char path[64];

    (void)state;
    NEED_GPU();
    ref_open(&r);
    convert(path, sizeof path, "f32");
    agree(&r, path, r.logits, r.last, 1);
    agree(&r, path, r.logits, r.last, FEW);
    agree(&r, path, r.logits, r.last, SHORT);
    unlink(path);
    ref_close(&r);
}

static void q8_logits_agree_with_the_cpu(void **state)
{
    Ref r;
    char path[64];

    (void)state;
    NEED_GPU();
    ref_open(&r);
    convert(path, sizeof path, "q8");
    ds4_engine *cpu = open_on("cpu", (ds4_options){ .model = path,
                                                    .context = LONG,
                                                    .max_rows = SHORT,
                                                    .max_logits = SHORT,
                                                    .unrounded = true });
    ds4_session *s = session(cpu);
    float *want = rows_of(cpu, SHORT), *last = rows_of(cpu, LAST);
    feed(s, r.ids, SHORT, SHORT, want);
    feed(s, r.ids + SHORT, LONG - LAST - SHORT, SHORT, NULL);
    feed(s, r.ids + LONG - LAST, LAST, LAST, last);
    agree(&r, path, want, last, FEW);
    agree(&r, path, want, last, SHORT);
    free(want);
    free(last);
    ds4_engine_close(cpu);
    unlink(path);
    ref_close(&r);
}

/* ---- the bundled model ------------------------------------------------------------ */

static const char *const questions[] = {
    "What is the capital of France?",
    "What is 348 + 276?",
    "Tell me a short story about a fox.",
    "My name is Anna. What is my name?",
    "Who wrote Hamlet?",
    "What color is the sky?",
    "Name three animals.",
    "What is 7 + 5?",
    "How many days are in a week?",
    "Say hello in French.",
    "What is the capital of Japan?",
    "Write a sentence about rain.",
    "What is the opposite of hot?",
    "What do bees make?",
    "Is the sun a star?",
    "What is 1200 + 34?",
    "Which is larger, a cat or a horse?",
    "What is the first month of the year?",
    "Tell me a joke.",
    "Good morning!",
};

enum { ANSWER = 40 };

static int encode(const ds4_engine *e, const char *question, bool think, int32_t *out, int cap)
{
    char text[400];

    snprintf(text, sizeof text, "<｜begin▁of▁sentence｜><｜User｜>%s<｜Assistant｜>%s", question,
             think ? "<think>" : "</think>");
    const size_t n = ds4_encode(ds4_engine_vocab(e), text, strlen(text), true, out, (size_t)cap);
    assert_true(n > 4 && n < (size_t)cap);
    return (int)n;
}

static int best(const float *logits, int vocab, float *lead)
{
    int b = 0;
    float second = -INFINITY;

    for (int i = 1; i < vocab; i++) {
        if (logits[i] > logits[b]) {
            second = logits[b];
            b = i;
        } else if (logits[i] > second) {
            second = logits[i];
        }
    }
    *lead = logits[b] - second;
    return b;
}

static double log_sum(const float *x, int n)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* KL(p || q) in nats. */
static double divergence(const float *p, const float *q, int n)
{
    const double lp = log_sum(p, n), lq = log_sum(q, n);
    double kl = 0;

    for (int i = 0; i < n; i++)
        kl += exp((double)p[i] - lp) * ((double)p[i] - lp - ((double)q[i] - lq));
    return kl;
}

typedef struct {
    double kl;
    int tokens, others;
} Agreement;

/* The CPU's answer, token by token, on both. Where the CPU's two best are as near as
 * rounding moves them, either is right. */
static void follow(Agreement *a, ds4_session *cpu, ds4_session *gpu, const int32_t *prompt, int n)
{
    const int vocab = vocab_of(cpu->engine);
    ds4_err err;

    if (!ds4_session_feed(cpu, prompt, n, &err) || !ds4_session_feed(gpu, prompt, n, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < ANSWER; i++) {
        float lead, other;
        const float *p = ds4_logits(cpu), *q = ds4_logits(gpu);
        const int32_t want = best(p, vocab, &lead), got = best(q, vocab, &other);
        a->kl = fmax(a->kl, divergence(p, q, vocab));
        a->tokens++;
        a->others += want != got && lead > 0.02f;
        if (!ds4_session_feed(cpu, &want, 1, &err) || !ds4_session_feed(gpu, &want, 1, &err))
            fail_msg("%s", err.msg);
    }
}

static void answers_are_the_cpus(void **state)
{
    Agreement a = { 0 };
    int32_t ids[256];

    (void)state;
    NEED_GPU();
    ds4_engine *cpu = open_on("cpu", (ds4_options){ 0 });
    ds4_engine *gpu = open_on("cuda", (ds4_options){ 0 });
    print_message("%s\n", ds4_engine_describe(gpu));
    for (size_t i = 0; i < COUNT(questions); i++) {
        ds4_session *a_cpu = session(cpu), *a_gpu = session(gpu);
        const int n = encode(cpu, questions[i], i % 4 == 1, ids, COUNT(ids));
        follow(&a, a_cpu, a_gpu, ids, n);
        ds4_session_close(a_cpu);
        ds4_session_close(a_gpu);
    }
    print_message("%d tokens, %d others, KL at most %.3g\n", a.tokens, a.others, a.kl);
    ds4_engine_close(cpu);
    ds4_engine_close(gpu);
    assert_int_equal(a.others, 0);
    assert_true(a.kl < 1e-4);
}

/* All questions one after another, again and again. */
static int32_t *long_text(const ds4_engine *e, int n)
{
    int32_t *ids = malloc(((size_t)n + 256) * sizeof *ids);
    int have = 0;

    assert_non_null(ids);
    for (size_t i = 0; have < n; i++)
        have += encode(e, questions[i * 7 % COUNT(questions)], i % 3 == 0, ids + have, 256);
    return ids;
}

static void answers_after_a_long_text_are_the_cpus(void **state)
{
    enum { N = 6000 };
    static const int chunks[] = { FEW, 512 };

    (void)state;
    NEED_GPU();
    ds4_engine *cpu = open_on("cpu", (ds4_options){ 0 });
    ds4_engine *gpu = open_on("cuda", (ds4_options){ 0 });
    int32_t *ids = long_text(cpu, N);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        Agreement a = { 0 };
        ds4_session *c = session(cpu), *g = session(gpu);
        feed(c, ids, N, 512, NULL);
        feed(g, ids, N, chunks[i], NULL);
        follow(&a, c, g, ids + N - 1, 1);
        print_message("after %d tokens, %d a step: %d of %d others, KL at most %.3g\n", (int)N,
                      chunks[i], a.others, a.tokens, a.kl);
        /* What differs in the last bit may turn a code of a packed row, 6,000 times. */
        assert_true(a.kl < (chunks[i] <= FEW ? 1e-3 : 1e-2));
        ds4_session_close(c);
        ds4_session_close(g);
    }
    free(ids);
    ds4_engine_close(cpu);
    ds4_engine_close(gpu);
}

/* ---- laws ------------------------------------------------------------------------ */

enum { TEXT = 700 };

static void a_step_repeats_bit_by_bit(void **state)
{
    static const int chunks[] = { 1, 5, FEW, 17, 64, 350 };

    (void)state;
    NEED_GPU();
    ds4_engine *e = open_on("cuda", (ds4_options){ .sessions = 2, .max_logits = 512 });
    int32_t *ids = long_text(e, TEXT);
    float *a = rows_of(e, TEXT), *b = rows_of(e, TEXT);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        for (int k = 0; k < 2; k++) {
            ds4_session *first = session(e), *s = k ? session(e) : first; /* another slot, too */
            feed(s, ids, TEXT, chunks[i], k ? b : a);
            if (s != first)
                ds4_session_close(first);
            ds4_session_close(s);
        }
        if (!same(e, a, b, TEXT))
            fail_msg("%d rows a step: two runs differ by %.3g", chunks[i],
                     distance(b, a, (size_t)TEXT * (size_t)vocab_of(e)));
    }
    free(a);
    free(b);
    free(ids);
    ds4_engine_close(e);
}

static void few_rows_stand_alone(void **state)
{
    static const int chunks[] = { 1, 2, 3, 5, 7, 11, FEW };

    (void)state;
    NEED_GPU();
    ds4_engine *e = open_on("cuda", (ds4_options){ .max_logits = FEW });
    int32_t *ids = long_text(e, TEXT);
    float *a = rows_of(e, TEXT), *b = rows_of(e, TEXT);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        ds4_session *s = session(e);
        feed(s, ids, TEXT, chunks[i], i ? b : a);
        ds4_session_close(s);
        if (i && !same(e, a, b, TEXT))
            fail_msg("%d rows a step differ from one by %.3g", chunks[i],
                     distance(b, a, (size_t)TEXT * (size_t)vocab_of(e)));
    }
    free(a);
    free(b);
    free(ids);
    ds4_engine_close(e);
}

/* Sessions at other lengths, decoding together, and each as if it were alone. */
static void company_changes_no_bit(void **state)
{
    ds4_session *s[FEW];
    ds4_work work[FEW];
    ds4_err err;

    (void)state;
    NEED_GPU();
    ds4_engine *e = open_on("cuda", (ds4_options){ .sessions = FEW + 1, .max_logits = FEW });
    int32_t *ids = long_text(e, TEXT);
    const size_t row = (size_t)vocab_of(e);
    float *together = rows_of(e, FEW * 8), *alone = rows_of(e, FEW + 8);
    for (int i = 0; i < FEW; i++) {
        s[i] = session(e);
        feed(s[i], ids, 3 + 37 * i, FEW, NULL);
    }
    for (int k = 0; k < 8; k++) {
        for (int i = 0; i < FEW; i++)
            work[i] = (ds4_work){ s[i], ids + ds4_session_length(s[i]), 1, 1 };
        if (!ds4_step(e, work, FEW, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; i < FEW; i++)
            memcpy(together + row * (size_t)(8 * i + k), ds4_step_logits(e, i, 0),
                   row * sizeof *together);
    }
    for (int i = 0; i < FEW; i++) {
        ds4_session *one = session(e);
        feed(one, ids, 3 + 37 * i, FEW, NULL);
        feed(one, ids + 3 + 37 * i, 8, 1, alone);
        ds4_session_close(one);
        if (!same(e, alone, together + row * (size_t)(8 * i), 8))
            fail_msg("session %d in company differs by %.3g", i,
                     distance(together + row * (size_t)(8 * i), alone, 8 * row));
    }
    free(together);
    free(alone);
    free(ids);
    ds4_engine_close(e);
}

/* Timing looks at every op, so nothing is replayed there. */
static void a_replayed_step_is_the_encoded_one(void **state)
{
    static const char *const devices[] = { "cuda", "timed:cuda" };
    float *out[2];
    size_t row = 0;

    (void)state;
    NEED_GPU();
    for (int i = 0; i < 2; i++) {
        ds4_engine *e = open_on(devices[i], (ds4_options){ .max_logits = 3 });
        int32_t *ids = long_text(e, TEXT);
        ds4_session *s = session(e);
        row = (size_t)vocab_of(e);
        out[i] = rows_of(e, TEXT);
        feed(s, ids, 100, FEW, NULL);
        feed(s, ids + 100, 500, 1, out[i]);
        feed(s, ids + 600, 100, 3, out[i] + 500 * row);
        free(ids);
        ds4_engine_close(e);
    }
    assert_memory_equal(out[0], out[1], 600 * row * sizeof(float));
    free(out[0]);
    free(out[1]);
}

static void a_step_after_going_back_is_the_first_one(void **state)
{
    (void)state;
    NEED_GPU();
    ds4_engine *e = open_on("cuda", (ds4_options){ .max_logits = FEW });
    int32_t *ids = long_text(e, TEXT);
    float *a = rows_of(e, TEXT), *b = rows_of(e, TEXT);
    const size_t row = (size_t)vocab_of(e);
    ds4_session *s = session(e);
    feed(s, ids, TEXT, FEW, a);
    const int back = ds4_session_rewind(s, 300);
    assert_true(back > 0 && back <= 300);
    feed(s, ids + back, TEXT - back, FEW, b + row * (size_t)back);
    assert_true(same(e, a + row * (size_t)back, b + row * (size_t)back, TEXT - back));
    free(a);
    free(b);
    free(ids);
    ds4_engine_close(e);
}

/* ---- saving and loading ------------------------------------------------------------ */

typedef struct {
    Bytes bytes;
    size_t at;
} Tape;

static bool record(void *user, void *data, size_t n)
{
    Tape *t = user;
    bytes_put(&t->bytes, data, n);
    return !t->bytes.failed;
}

static bool play(void *user, void *data, size_t n)
{
    Tape *t = user;
    if (n > t->bytes.n - t->at)
        return false;
    memcpy(data, t->bytes.p + t->at, n);
    t->at += n;
    return true;
}

static void save(ds4_session *s, Tape *t)
{
    ds4_err err;
    if (!ds4_session_save(s, (ds4_stream){ record, t }, &err))
        fail_msg("%s", err.msg);
}

static ds4_session *load(ds4_engine *e, Tape *t)
{
    ds4_err err;
    ds4_session *s = session(e);
    t->at = 0;
    if (!ds4_session_load(s, (ds4_stream){ play, t }, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* from's state goes to `to`, which saves the same bytes; then both answer. */
static void carry(ds4_engine *from, ds4_engine *to, const int32_t *ids, int n, Agreement *a)
{
    Tape first = { 0 }, second = { 0 };
    ds4_session *s = session(from);

    feed(s, ids, n, 256, NULL);
    ds4_err err;
    if (!ds4_session_feed(s, ids + n, 1, &err))
        fail_msg("%s", err.msg);
    save(s, &first);
    ds4_session *t = load(to, &first);
    save(t, &second);
    assert_int_equal(first.bytes.n, second.bytes.n);
    assert_memory_equal(first.bytes.p, second.bytes.p, first.bytes.n);
    assert_true(same(from, ds4_logits(s), ds4_logits(t), 1));
    follow(a, s, t, ids + n + 1, 3);
    ds4_session_close(s);
    ds4_session_close(t);
    bytes_release(&first.bytes);
    bytes_release(&second.bytes);
}

static void a_state_goes_from_device_to_device(void **state)
{
    (void)state;
    NEED_GPU();
    ds4_engine *cpu = open_on("cpu", (ds4_options){ .sessions = 2 });
    ds4_engine *gpu = open_on("cuda", (ds4_options){ .sessions = 2 });
    int32_t *ids = long_text(cpu, TEXT);
    ds4_engine *const way[][2] = { { gpu, cpu }, { cpu, gpu }, { gpu, gpu } };
    for (size_t i = 0; i < COUNT(way); i++) {
        Agreement a = { 0 };
        carry(way[i][0], way[i][1], ids, TEXT - 50, &a);
        assert_int_equal(a.others, 0);
        assert_true(a.kl < (i == 2 ? 1e-12 : 1e-4));
    }
    free(ids);
    ds4_engine_close(cpu);
    ds4_engine_close(gpu);
}

/* ---- state in pieces ---------------------------------------------------------------- */

enum { CUT = 384, PIECE = 256 }; /* tokens of a state, in two pieces, the second one shorter */

typedef struct {
    char *rows[2], *mark;
} Pieces;

static size_t piece_bytes(const ds4_engine *e, int i)
{
    return (size_t)ds4_rows_bytes(e, i * PIECE, MIN((i + 1) * PIECE, CUT));
}

static size_t mark_bytes(const ds4_engine *e) { return (size_t)ds4_mark_bytes(e, CUT); }

static Pieces take_out(ds4_session *s)
{
    Pieces p;
    ds4_err err;
    bool ok = true;

    for (int i = 0; i < 2 && ok; i++) {
        p.rows[i] = malloc(piece_bytes(s->engine, i));
        ok = ds4_session_read_rows(s, i * PIECE, MIN((i + 1) * PIECE, CUT), p.rows[i], &err);
    }
    p.mark = malloc(mark_bytes(s->engine));
    if (!ok || !ds4_session_read_mark(s, CUT, p.mark, &err))
        fail_msg("%s", err.msg);
    return p;
}

static void put_rows(ds4_session *s, const Pieces *p, int i)
{
    ds4_err err;

    if (!ds4_session_write_rows(s, i * PIECE, MIN((i + 1) * PIECE, CUT), p->rows[i],
                                piece_bytes(s->engine, i), &err))
        fail_msg("%s", err.msg);
}

static void put_in(ds4_session *s, const Pieces *p, const int32_t *ids)
{
    ds4_err err;

    put_rows(s, p, 0);
    put_rows(s, p, 1);
    if (!ds4_session_enter(s, ids, CUT, p->mark, mark_bytes(s->engine), &err))
        fail_msg("%s", err.msg);
}

static void assert_same_pieces(const ds4_engine *e, const Pieces *a, const Pieces *b)
{
    for (int i = 0; i < 2; i++)
        assert_memory_equal(a->rows[i], b->rows[i], piece_bytes(e, i));
    assert_memory_equal(a->mark, b->mark, mark_bytes(e));
}

static void drop_pieces(Pieces *p)
{
    free(p->rows[0]);
    free(p->rows[1]);
    free(p->mark);
}

/* Cut on one device, entered on another, which gives the same bytes again; the first thing
 * that the other does. Then both answer. */
static void pieces_go_from_device_to_device(void **state)
{
    static const char *const way[][2] = { { "cuda", "cpu" },
                                          { "cpu", "cuda" },
                                          { "cuda", "cuda" } };

    (void)state;
    NEED_GPU();
    for (size_t i = 0; i < COUNT(way); i++) {
        Agreement a = { 0 };
        ds4_engine *from = open_on(way[i][0], (ds4_options){ 0 });
        ds4_engine *to = open_on(way[i][1], (ds4_options){ .max_rows = 200 });
        int32_t *ids = long_text(from, TEXT);
        ds4_session *s = session(from), *t = session(to);
        feed(s, ids, CUT, 128, NULL);
        Pieces first = take_out(s);
        put_in(t, &first, ids);
        Pieces second = take_out(t);
        assert_same_pieces(from, &first, &second);
        follow(&a, s, t, ids + CUT, 3);
        print_message("%s to %s: KL at most %.3g\n", way[i][0], way[i][1], a.kl);
        assert_int_equal(a.others, 0);
        /* One row that is packed to another code, near a tie, moves an answer by 1e-4. */
        assert_true(a.kl < (i == 2 ? 1e-12 : 1e-3));
        drop_pieces(&first);
        drop_pieces(&second);
        free(ids);
        ds4_engine_close(from);
        ds4_engine_close(to);
    }
}

/* Entered, forked, forked at a mark below: each goes on as the source does, bit by bit,
 * while another session decodes between the pieces and does not notice. */
static void restored_and_forked_on_the_gpu_equals_never_interrupted(void **state)
{
    enum { AHEAD = 200, BESIDE = 40 };
    ds4_err err;
    int reached = 0;

    (void)state;
    NEED_GPU();
    ds4_engine *e = open_on("cuda", (ds4_options){ .sessions = 5, .max_logits = FEW });
    int32_t *ids = long_text(e, TEXT);
    const size_t row = (size_t)vocab_of(e);
    float *want = rows_of(e, TEXT), *got = rows_of(e, TEXT);
    ds4_session *s = session(e), *t = session(e), *whole = session(e), *part = session(e),
                *other = session(e);
    feed(s, ids, CUT, FEW, want);
    Pieces p = take_out(s);
    feed(other, ids, 10, FEW, got);
    put_rows(t, &p, 0);
    feed(other, ids + 10, BESIDE, 1, got + 10 * row);
    put_in(t, &p, ids);
    feed(other, ids + 10 + BESIDE, BESIDE, 1, got + (size_t)(10 + BESIDE) * row);
    assert_true(same(e, got, want, 10 + 2 * BESIDE));
    assert_true(ds4_session_fork(whole, s, CUT, &reached, &err) && reached == CUT);
    feed(s, ids + CUT, AHEAD, 1, want + CUT * row);
    assert_true(ds4_session_fork(part, s, CUT + 127, &reached, &err) && reached == CUT);
    ds4_session *const like[] = { t, whole, part };
    for (size_t i = 0; i < COUNT(like); i++) {
        feed(like[i], ids + CUT, AHEAD, 1, got);
        if (!same(e, got, want + CUT * row, AHEAD))
            fail_msg("copy %d differs by %.3g", (int)i,
                     distance(got, want + CUT * row, AHEAD * row));
    }
    drop_pieces(&p);
    free(want);
    free(got);
    free(ids);
    ds4_engine_close(e);
}

/* ---- choosing ---------------------------------------------------------------------- */

static void keep_line(void *user, const char *line) { snprintf(user, 200, "%s", line); }

static void a_gpu_is_taken_where_the_model_fits(void **state)
{
    char said[200] = "";
    ds4_plan plan;
    ds4_err err;

    (void)state;
    NEED_GPU();
    ds4_options opt = { .model = BUNDLED, .share_device = true, .log = keep_line, .user = said };
    assert_true(ds4_plan_make(&plan, &opt, &err));
    assert_string_equal(plan.device, "cuda");
    assert_true(plan.fits && !plan.mapped && plan.available > 1 << 30);
    assert_non_null(strstr(said, "running on cuda"));
    ds4_engine *e = ds4_engine_open(&opt, &err);
    assert_non_null(e);
    assert_non_null(strstr(ds4_engine_describe(e), "cuda"));
    ds4_engine_close(e);
    opt.threads = 1; /* the CPU's */
    assert_true(ds4_plan_make(&plan, &opt, &err));
    assert_string_equal(plan.device, "cpu");
}

/* What is planned is taken, give or take what the driver keeps for itself. */
static void a_plan_is_what_is_taken(void **state)
{
    uint64_t before, during, after;
    bool mapped;
    ds4_plan plan;
    ds4_err err;

    (void)state;
    NEED_GPU();
    const ds4_options opt = { .model = BUNDLED, .device = "cuda", .context = 65536, .sessions = 8 };
    ds4_engine_close(open_on("cuda", opt)); /* what is loaded once */
    assert_true(backend_memory("cuda", &before, &mapped, &err));
    assert_true(ds4_plan_make(&plan, &opt, &err));
    ds4_engine *e = open_on("cuda", opt);
    assert_true(backend_memory("cuda", &during, &mapped, &err));
    ds4_engine_close(e);
    assert_true(backend_memory("cuda", &after, &mapped, &err));
    const double taken = (double)before - (double)during, left = (double)before - (double)after;
    print_message("planned %.1f MB, taken %.1f MB, kept %.1f MB\n", (double)plan.required / 1e6,
                  taken / 1e6, left / 1e6);
    assert_true(taken < (double)plan.required * 1.05 + 256e6);
    assert_true(left < 64e6);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_logits_agree_with_the_reference),
        cmocka_unit_test(q8_logits_agree_with_the_cpu),
        cmocka_unit_test(answers_are_the_cpus),
        cmocka_unit_test(answers_after_a_long_text_are_the_cpus),
        cmocka_unit_test(a_step_repeats_bit_by_bit),
        cmocka_unit_test(few_rows_stand_alone),
        cmocka_unit_test(company_changes_no_bit),
        cmocka_unit_test(a_replayed_step_is_the_encoded_one),
        cmocka_unit_test(a_step_after_going_back_is_the_first_one),
        cmocka_unit_test(a_state_goes_from_device_to_device),
        cmocka_unit_test(pieces_go_from_device_to_device),
        cmocka_unit_test(restored_and_forked_on_the_gpu_equals_never_interrupted),
        cmocka_unit_test(a_gpu_is_taken_where_the_model_fits),
        cmocka_unit_test(a_plan_is_what_is_taken),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
