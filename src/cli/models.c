/* models.c - which model, on which device, in how much memory. */
#include "cli.h"
#include "fetched.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

const Option *cli_model_options(ModelOptions *m)
{
    ds4_options *e = &m->engine;
    const Option table[] = {
        { OPT_TITLE, "Model", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "-m, --model", "FILE", &e->model,
          "the GGUF; default: ./ds4flash.gguf, else the last one pulled, else the bundled tiny "
          "model",
          0, 0 },
        { OPT_INT, "-c, --ctx", "N", &e->context,
          "tokens of context; default 8192, serve: 131072 or what fits", 1, 1 << 24 },
        { OPT_STR, "--device", "NAME", &e->device,
          "cpu, cuda, cuda:N, null, play:FILE; timed:, trace:, check: before one; default: cuda "
          "where the model fits a GPU, else cpu",
          0, 0 },
        { OPT_FLAG, "--cpu", NULL, &m->cpu, "the same as --device cpu", 0, 0 },
        { OPT_FLAG, "--cuda", NULL, &m->cuda, "the same as --device cuda", 0, 0 },
        { OPT_FLAG, "--share-device", NULL, &e->share_device,
          "use a GPU on which another ds4 has a model, too", 0, 0 },
        { OPT_STR, "--isa", "scalar|avx2|avx512|neon|dotprod", &e->isa,
          "CPU kernels; default: the best there is", 0, 0 },
        { OPT_INT, "-t, --threads", "N", &e->threads, "CPU threads; default: one a physical core",
          1, 1024 },
        { OPT_FLAG, "--exact", NULL, &e->exact,
          "on the CPU: F32 activations everywhere, slower; default: 8 bits where weights have few",
          0, 0 },
        { OPT_INT, "--prefill-chunk", "N", &e->max_rows, "tokens a step of the prompt; default 512",
          1, 65535 },
        { OPT_STR, "--rounding", "on|off", &m->rounding,
          "the FP8 and FP4 rounding of KV rows that the model was trained with; default on", 0, 0 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof m->table, "ModelOptions.table");
    memcpy(m->table, table, sizeof table);
    return m->table;
}

/* ---- which model ------------------------------------------------------------- */

static bool executable_path(char *out, size_t n)
{
#ifdef __APPLE__
    char raw[PATH_MAX];
    uint32_t size = sizeof raw;
    return n >= PATH_MAX && _NSGetExecutablePath(raw, &size) == 0 && realpath(raw, out);
#else
    ssize_t k = readlink("/proc/self/exe", out, n - 1);
    if (k <= 0)
        return false;
    out[k] = '\0';
    return true;
#endif
}

/* The bundled model lies beside the build folder or, installed, in share/. */
static bool find_bundled(char *out, size_t n)
{
    static const char *const places[] = { "../models", "../../models", "../share/ds4" };
    char exe[PATH_MAX];
    if (!executable_path(exe, sizeof exe))
        return false;
    char *slash = strrchr(exe, '/');
    if (!slash)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < COUNT(places); i++) {
        int k = snprintf(out, n, "%s/%s/ds4-tiny.gguf", exe, places[i]);
        if (k > 0 && (size_t)k < n && access(out, R_OK) == 0)
            return true;
    }
    return false;
}

bool cli_model_path(ModelOptions *m, ds4_err *err)
{
    if (m->engine.model)
        return true;
    if (access("ds4flash.gguf", R_OK) == 0) {
        m->engine.model = "ds4flash.gguf";
        return true;
    }
    if (fetched_last(m->model_path)) {
        m->engine.model = m->model_path;
        return true;
    }
    if (!find_bundled(m->model_path, sizeof m->model_path))
        return fail(err, DS4_EIO,
                    "no model: give one with -m, put ds4flash.gguf into this folder, or ds4 pull");
    m->engine.model = m->model_path;
    cli_warn("using the bundled tiny model (-m FILE chooses another)");
    return true;
}

/* ---- on which device ---------------------------------------------------------- */

static bool obey_flag(bool given, const char *name, const char **device, ds4_err *err)
{
    if (!given)
        return true;
    if (*device && strcmp(*device, name) != 0)
        return fail(err, DS4_EINVAL, "--%s and --device %s contradict each other", name, *device);
    *device = name;
    return true;
}

/* A check runs on the CPU, too. */
static bool is_gpu_alone(const char *device)
{
    while (device && (!strncmp(device, "timed:", 6) || !strncmp(device, "trace:", 6)))
        device += 6;
    return device && !strncmp(device, "cuda", 4);
}

static void print_line(void *user, const char *line)
{
    (void)user;
    cli_warn("%s", line);
}

bool cli_model_settle(ModelOptions *m, ds4_err *err)
{
    ds4_options *e = &m->engine;
    e->log = print_line;
    if (m->cpu && m->cuda)
        return fail(err, DS4_EINVAL, "--cpu and --cuda exclude each other");
    if (!obey_flag(m->cpu, "cpu", &e->device, err) || !obey_flag(m->cuda, "cuda", &e->device, err))
        return false;
    if (is_gpu_alone(e->device) && (e->isa || e->threads || e->exact))
        return fail(err, DS4_EINVAL,
                    "--isa, --threads and --exact are the CPU's, and the device is %s", e->device);
    e->unrounded = m->rounding && strcmp(m->rounding, "off") == 0;
    return cli_model_path(m, err);
}

bool cli_model_fits(ModelOptions *m, ds4_err *err)
{
    ds4_plan plan;
    if (!ds4_plan_make(&plan, &m->engine, err) || !ds4_plan_check(&plan, err))
        return false;
    m->engine.device = plan.device; /* choose once, and say so once */
    return true;
}

ds4_engine *cli_open_engine(ModelOptions *m, ds4_err *err)
{
    if (!cli_model_settle(m, err) || !cli_model_fits(m, err))
        return NULL;
    if (!m->engine.progress)
        m->engine.progress = cli_progress;
    ds4_engine *e = ds4_engine_open(&m->engine, err);
    cli_progress_end();
    return e;
}
