/* plan.c - how much memory a model takes, before any is taken. */
#include "engine.h"
#include <stdio.h>

/* MOST_ROWS: a CUDA grid has no more blocks in y, where some kernels have a step's rows. */
enum { DEFAULT_CONTEXT = 8192, DEFAULT_ROWS = 512, MOST_ROWS = 65535, MOST_SESSIONS = 4096 };

static bool in_range(const char *what, int v, int lo, int hi, ds4_err *err)
{
    return (v >= lo && v <= hi) ||
           fail(err, DS4_EINVAL, "%s is %d, expected %d to %d", what, v, lo, hi);
}

static void derive(Settings *set)
{
    set->max_rows = set->asked_rows;
    if (!set->max_rows)
        set->max_rows = MAX(MIN((int)DEFAULT_ROWS, set->context), set->sessions);
    set->max_logits = set->asked_logits;
    if (!set->max_logits)
        set->max_logits = MIN(set->sessions, set->max_rows);
    set->backend.max_rows = set->max_rows;
    set->backend.max_out = set->max_logits;
    set->backend.max_context = set->context;
}

bool settings_make(Settings *set, const ds4_options *opt, const Shape *s, ds4_err *err)
{
    *set = (Settings){
        .device = opt->device,
        .mapped = true,
        .host_free = memory_available(),
        .beside = opt->beside,
        .context = opt->context ? opt->context : MIN(DEFAULT_CONTEXT, s->context),
        .sessions = opt->sessions ? opt->sessions : 1,
        .asked_rows = opt->max_rows,
        .asked_logits = opt->max_logits,
        .backend = { .isa = opt->isa, .threads = opt->threads, .exact = opt->exact },
    };
    if (!in_range("context", set->context, 1, s->context, err) ||
        !in_range("sessions", set->sessions, 1, MOST_SESSIONS, err) ||
        !in_range("max_rows", opt->max_rows, 0, MOST_ROWS, err) ||
        !in_range("threads", opt->threads, 0, 4096, err))
        return false;
    derive(set);
    return in_range("max_logits", set->max_logits, 1, set->max_rows, err);
}

static void log_lines(const ds4_options *opt, Bytes *report)
{
    if (!opt->log || !report->n)
        return;
    bytes_byte(report, '\0');
    char *line = report->failed ? NULL : report->p;
    while (line && *line) {
        char *end = strchr(line, '\n');
        *end = '\0';
        opt->log(opt->user, line);
        line = end + 1;
    }
}

bool engine_check(const Gguf *g, const ds4_options *opt, Shape *s, ModelBytes *bytes, ds4_err *err)
{
    Bytes report = { 0 };

    if (!shape_read(s, g, err))
        return false;
    s->rounding = !opt->unrounded;
    bool ok = model_check(g, s, bytes, &report, err);
    if (!ok)
        log_lines(opt, &report);
    bytes_release(&report);
    return ok;
}

/* What the engine itself keeps: logits of the step, the scratch of sampling,
 * and each session's logits and tokens. */
static uint64_t host_bytes(const Settings *set, const Shape *s)
{
    const uint64_t row = (uint64_t)s->vocab * sizeof(float);
    const uint64_t session = row + (uint64_t)set->context * sizeof(int32_t);

    return row * (uint64_t)set->max_logits + row + (uint64_t)s->vocab * sizeof(ds4_choice) +
           session * (uint64_t)set->sessions;
}

/* Does it fit? host_only: bytes that are always in the host's memory. */
static void judge(ds4_plan *p, const Settings *set, uint64_t host_only)
{
    p->available = set->mapped ? set->host_free : set->device_free;
    p->required = p->total - (p->mapped ? p->weights : host_only);
    p->fits = (p->mapped && !p->available) || p->required <= p->available;
    if (p->mapped || !p->fits || !set->host_free || host_only <= set->host_free)
        return;
    p->fits = false; /* the numbers are those of the memory that is short */
    p->required = host_only;
    p->available = set->host_free;
}

static void fill(ds4_plan *p, const Settings *set, const Shape *s, const ModelBytes *bytes,
                 uint64_t file_bytes)
{
    const uint64_t host = host_bytes(set, s);
    /* Tensors may share bytes of the file, but are copied one by one. */
    p->weights = set->mapped ? MIN(bytes->weights, file_bytes) : bytes->weights;
    p->kv_session = kv_slot_bytes(s, set->context, set->max_rows);
    p->kv = p->kv_session * (uint64_t)set->sessions;
    p->marks = marks_bytes(set, s) * (uint64_t)set->sessions;
    p->activations = run_bytes(s, set->max_rows, set->max_logits) + host;
    p->scratch = backend_scratch(set->device, s, &set->backend) + bytes->vectors;
    p->beside = set->beside;
    p->total = p->weights + p->kv + p->marks + p->activations + p->scratch + p->beside;
    p->mapped = set->mapped;
    judge(p, set, host + p->marks + p->beside);
}

static ds4_plan plan_of(const Settings *set, const Shape *s, const ModelBytes *bytes,
                        uint64_t file_bytes)
{
    ds4_plan p = { .device = set->device,
                   .context = set->context,
                   .sessions = set->sessions,
                   .max_rows = set->max_rows };

    fill(&p, set, s, bytes, file_bytes);
    return p;
}

static void set_context(Settings *set, int n) { set->context = n; }

static void set_sessions(Settings *set, int n) { set->sessions = n; }

/* The largest value from 1 to most of one of the settings with which all fits; 0: none. */
static int largest(const Settings *set, void (*assign)(Settings *, int), int most, const Shape *s,
                   const ModelBytes *bytes, uint64_t file_bytes)
{
    int low = 0, high = most; /* low fits, high + 1 does not */

    while (low < high) {
        const int middle = low + (high - low + 1) / 2;
        Settings at = *set;
        assign(&at, middle);
        derive(&at);
        if (plan_of(&at, s, bytes, file_bytes).fits)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

void engine_plan(ds4_plan *p, const Settings *set, const Shape *s, const ModelBytes *bytes,
                 uint64_t file_bytes)
{
    *p = plan_of(set, s, bytes, file_bytes);
    p->max_context = largest(set, set_context, s->context, s, bytes, file_bytes);
    p->max_sessions = largest(set, set_sessions, MOST_SESSIONS, s, bytes, file_bytes);
}

/* ---- what to say where it does not fit ----------------------------------------- */

static void say_sessions(char out[48], int sessions, int context)
{
    snprintf(out, 48, "%d session%s of %d token%s", sessions, sessions == 1 ? "" : "s", context,
             context == 1 ? "" : "s");
}

bool ds4_plan_check(const ds4_plan *p, ds4_err *err)
{
    char asked[48], longest[48], most[48], fit[120] = "nothing would fit";

    if (p->fits)
        return true;
    say_sessions(asked, p->sessions, p->context);
    say_sessions(longest, p->sessions, p->max_context);
    say_sessions(most, p->max_sessions, p->context);
    if (p->max_context && p->max_sessions)
        snprintf(fit, sizeof fit, "%s would fit, or %s", longest, most);
    else if (p->max_context || p->max_sessions)
        snprintf(fit, sizeof fit, "%s would fit", p->max_context ? longest : most);
    return fail(err, DS4_ENOMEM, "%s: %.2f GB are needed (KV %.2f, marks %.2f), %.2f are free; %s",
                asked, gb(p->required), gb(p->kv), gb(p->marks), gb(p->available), fit);
}

/* ---- where ------------------------------------------------------------------ */

/* Whether to take the GPU, which has room or not, and to say why. */
static bool choose(const ds4_options *opt, const ds4_plan *gpu)
{
    char line[300];
    ds4_err taken = { 0 };
    DeviceLock lock = { 0 };
    const bool free_for_us =
        !gpu->fits || opt->share_device || device_lock(&lock, gpu->device, &taken);

    device_lock_release(&lock); /* whoever opens it takes it again */
    if (!gpu->fits)
        snprintf(line, sizeof line,
                 "running on the CPU: %.1f GB are needed on %s, and %.1f GB are free",
                 gb(gpu->required), gpu->device, gb(gpu->available));
    else if (!free_for_us)
        snprintf(line, sizeof line, "running on the CPU: %s", taken.msg);
    else
        snprintf(line, sizeof line, "running on %s (--device cpu runs on the CPU)", gpu->device);
    if (opt->log)
        opt->log(opt->user, line);
    return gpu->fits && free_for_us;
}

bool settings_place(Settings *set, const ds4_options *opt, const Shape *s, const ModelBytes *bytes,
                    uint64_t file_bytes, ds4_err *err)
{
    const bool timed = opt->device && !strcmp(opt->device, "timed:");
    Settings gpu = *set;
    ds4_plan p;

    if (opt->device && !timed)
        return backend_memory(set->device, &set->device_free, &set->mapped, err);
    set->device = timed ? "timed:cpu" : "cpu";
    gpu.device = timed ? "timed:cuda" : "cuda";
    if (opt->isa || opt->threads || /* they say how to use the CPU */
        !backend_memory(gpu.device, &gpu.device_free, &gpu.mapped, NULL))
        return true;
    engine_plan(&p, &gpu, s, bytes, file_bytes);
    if (choose(opt, &p))
        *set = gpu;
    return true;
}

bool fail_of_file(ds4_err *err, const char *path, const ds4_err *inner)
{
    return inner->code == DS4_EFORMAT ? fail(err, inner->code, "%s: %s", path, inner->msg)
                                      : fail(err, inner->code, "%s", inner->msg);
}

bool ds4_plan_make(ds4_plan *plan, const ds4_options *opt, ds4_err *err)
{
    Map map;
    Gguf g = { 0 };
    Shape s;
    Settings set;
    ModelBytes bytes;
    ds4_err inner = { 0 };

    if (!opt->model)
        return fail(err, DS4_EINVAL, "no model is named");
    if (!map_open(&map, opt->model, err))
        return false;
    bool ok = gguf_parse_header(&g, map.p, map.n, map.n, &inner) &&
              engine_check(&g, opt, &s, &bytes, &inner) && settings_make(&set, opt, &s, &inner) &&
              settings_place(&set, opt, &s, &bytes, map.n, &inner);
    if (ok)
        engine_plan(plan, &set, &s, &bytes, map.n);
    else
        fail_of_file(err, opt->model, &inner);
    gguf_release(&g);
    map_close(&map);
    return ok;
}
