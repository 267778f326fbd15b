/* plan.c - how much memory a model takes, before any is taken. */
#include "engine.h"
#include <stdio.h>

enum { DEFAULT_CONTEXT = 8192, DEFAULT_ROWS = 512, MOST_ROWS = 65536, MOST_SESSIONS = 4096 };

static bool in_range(const char *what, int v, int lo, int hi, ds4_err *err)
{
    return (v >= lo && v <= hi) ||
           fail(err, DS4_EINVAL, "%s is %d, expected %d to %d", what, v, lo, hi);
}

bool settings_make(Settings *set, const ds4_options *opt, const Shape *s, ds4_err *err)
{
    *set = (Settings){
        .device = opt->device,
        .mapped = true,
        .context = opt->context ? opt->context : MIN(DEFAULT_CONTEXT, s->context),
        .sessions = opt->sessions ? opt->sessions : 1,
    };
    if (!in_range("context", set->context, 1, s->context, err) ||
        !in_range("sessions", set->sessions, 1, MOST_SESSIONS, err) ||
        !in_range("max_rows", opt->max_rows, 0, MOST_ROWS, err) ||
        !in_range("threads", opt->threads, 0, 4096, err))
        return false;
    set->max_rows =
        opt->max_rows ? opt->max_rows : MAX(MIN(DEFAULT_ROWS, set->context), set->sessions);
    set->max_logits = opt->max_logits ? opt->max_logits : MIN(set->sessions, set->max_rows);
    set->backend = (BackendOptions){ .isa = opt->isa,
                                     .threads = opt->threads,
                                     .max_rows = set->max_rows,
                                     .max_out = set->max_logits,
                                     .max_context = set->context };
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

/* All marks of a session whose context is full. */
static uint64_t marks_bytes(const Settings *set, const Shape *s)
{
    const int n = set->context / MARK_UNIT;

    return n ? (uint64_t)MIN(n, (int)MAX_MARKS) * kv_mark_plan(s, n * MARK_UNIT) : 0;
}

/* What the engine itself keeps: logits of the step, the scratch of sampling,
 * and each session's logits, tokens and marks. */
static uint64_t host_bytes(const Settings *set, const Shape *s)
{
    const uint64_t row = (uint64_t)s->vocab * sizeof(float);
    const uint64_t session = row + (uint64_t)set->context * sizeof(int32_t) + marks_bytes(set, s);

    return row * (uint64_t)set->max_logits + row + (uint64_t)s->vocab * sizeof(ds4_choice) +
           session * (uint64_t)set->sessions;
}

/* Does it fit? beside: bytes that are always in the host's memory. */
static void judge(ds4_plan *p, uint64_t beside)
{
    p->required = p->total - (p->mapped ? p->weights : beside);
    p->fits = (p->mapped && !p->available) || p->required <= p->available;
    if (p->mapped || !p->fits)
        return;
    const uint64_t host = memory_available();
    if (!host || beside <= host)
        return;
    p->fits = false; /* the numbers are those of the memory that is short */
    p->required = beside;
    p->available = host;
}

static void fill(ds4_plan *p, const Settings *set, const Shape *s, const ModelBytes *bytes,
                 uint64_t file_bytes)
{
    const uint64_t beside = host_bytes(set, s);
    /* Tensors may share bytes of the file, but are copied one by one. */
    p->weights = set->mapped ? MIN(bytes->weights, file_bytes) : bytes->weights;
    p->kv_session = kv_slot_bytes(s, set->context, set->max_rows);
    p->kv = p->kv_session * (uint64_t)set->sessions;
    p->activations = run_bytes(s, set->max_rows, set->max_logits) + beside;
    p->scratch = backend_scratch(set->device, s, &set->backend) + bytes->vectors;
    p->total = p->weights + p->kv + p->activations + p->scratch;
    p->mapped = set->mapped;
    judge(p, beside);
}

void engine_plan(ds4_plan *p, const Settings *set, const Shape *s, const ModelBytes *bytes,
                 uint64_t file_bytes)
{
    const ds4_plan empty = { .available = set->mapped ? memory_available() : set->device_free,
                             .device = set->device,
                             .context = set->context,
                             .sessions = set->sessions,
                             .max_rows = set->max_rows };
    int low = 0, high = s->context; /* low fits, high + 1 does not */
    while (low < high) {
        Settings at = *set;
        at.context = at.backend.max_context = low + (high - low + 1) / 2;
        *p = empty;
        fill(p, &at, s, bytes, file_bytes);
        if (p->fits)
            low = at.context;
        else
            high = at.context - 1;
    }
    *p = empty;
    p->max_context = low;
    fill(p, set, s, bytes, file_bytes);
}

/* ---- where ------------------------------------------------------------------ */

static void say_choice(const ds4_options *opt, const ds4_plan *gpu)
{
    const double need = (double)gpu->required / 1e9, have = (double)gpu->available / 1e9;
    char line[200];

    if (gpu->fits)
        snprintf(line, sizeof line, "running on %s (--device cpu runs on the CPU)", gpu->device);
    else
        snprintf(line, sizeof line,
                 "running on the CPU: %.1f GB are needed on %s, and %.1f GB are free", need,
                 gpu->device, have);
    if (opt->log)
        opt->log(opt->user, line);
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
    say_choice(opt, &p);
    if (p.fits)
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
