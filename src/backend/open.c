/* open.c - backends by name. */
#include "../ops/decorate.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"

static bool take(const char **device, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*device, prefix, n))
        return false;
    *device += n;
    return true;
}

/* "cuda" or "cuda:N". */
static bool is_cuda(const char *name, int *gpu)
{
    *gpu = 0;
    if (!take(&name, "cuda"))
        return false;
    if (!*name)
        return true;
    if (*name != ':' || strspn(name + 1, "0123456789") != strlen(name + 1) || strlen(name) < 2 ||
        strlen(name) > 4)
        return false;
    while (*++name)
        *gpu = 10 * *gpu + (*name - '0');
    return true;
}

static bool is_host(const char *name)
{
    return !strcmp(name, "cpu") || !strcmp(name, "null") || take(&name, "play:");
}

static bool unknown(const char *device, ds4_err *err)
{
    return fail(err, DS4_EINVAL,
                "unknown device '%s': cpu, cuda, cuda:N, null or play:FILE, or timed:, trace:, "
                "check: or collect: before one of them",
                device);
}

static Backend *wrapped(Backend *inner, Backend *(*open)(Backend *, ds4_err *), ds4_err *err)
{
    Backend *be = inner ? open(inner, err) : NULL;
    if (!be)
        backend_close(inner);
    return be;
}

static Backend *collecting(const char *name, const Shape *shape, const BackendOptions *opt,
                           ds4_err *err)
{
    BackendOptions exact = *opt;
    exact.exact = true; /* what is added up are floats */
    Backend *inner = backend_open(name, shape, &exact, err);
    Backend *be = inner ? collect_open(inner, opt->max_rows, err) : NULL;

    if (!be)
        backend_close(inner);
    return be;
}

/* The reference is the scalar CPU with F32 activations: the truth. */
static Backend *checked(Backend *inner, const Shape *shape, const BackendOptions *opt, ds4_err *err)
{
    BackendOptions scalar = *opt;
    scalar.isa = "scalar";
    scalar.exact = true;
    Backend *ref = inner ? cpu_open(shape, &scalar, err) : NULL;
    Backend *be = ref ? check_open(inner, ref, err) : NULL;

    if (!be) {
        backend_close(ref);
        backend_close(inner);
    }
    return be;
}

static Backend *played(const char *file, const Shape *shape, const BackendOptions *opt,
                       ds4_err *err)
{
    Backend *inner = opt->vocab ? null_open(shape, err) : NULL;
    Backend *be = inner ? play_open(inner, file, opt->vocab, err) : NULL;

    if (!opt->vocab)
        fail(err, DS4_EINVAL, "play:%s: there is no vocabulary", file);
    if (!be)
        backend_close(inner);
    return be;
}

/* name stands behind a decorator. */
static Backend *open_plain(const char *name, const Shape *shape, const BackendOptions *opt,
                           ds4_err *err)
{
    int gpu;

    if (!strcmp(name, "cpu"))
        return cpu_open(shape, opt, err);
    if (is_cuda(name, &gpu))
        return cuda_driver.open(gpu, shape, opt, err);
    if (!strcmp(name, "null"))
        return null_open(shape, err);
    if (take(&name, "play:"))
        return played(name, shape, opt, err);
    unknown(name, err);
    return NULL;
}

Backend *backend_open(const char *device, const Shape *shape, const BackendOptions *opt,
                      ds4_err *err)
{
    const char *name = device ? device : "cpu";
    BackendOptions eager = *opt;

    eager.eager = true;
    if (take(&name, "timed:"))
        return wrapped(backend_open(name, shape, &eager, err), timed_open, err);
    if (take(&name, "trace:"))
        return wrapped(backend_open(name, shape, &eager, err), trace_open, err);
    if (take(&name, "check:"))
        return checked(backend_open(name, shape, &eager, err), shape, opt, err);
    if (take(&name, "collect:"))
        return collecting(name, shape, &eager, err);
    return open_plain(name, shape, opt, err);
}

uint64_t backend_scratch(const char *device, const Shape *shape, const BackendOptions *opt)
{
    const char *name = device ? device : "cpu";
    int gpu;

    while (take(&name, "timed:") || take(&name, "trace:"))
        ;
    if (take(&name, "check:"))
        return backend_scratch(name, shape, opt) + cpu_scratch(shape, opt);
    if (take(&name, "collect:"))
        return backend_scratch(name, shape, opt) + collect_scratch(shape, opt->max_rows);
    if (is_cuda(name, &gpu))
        return cuda_driver.scratch(shape, opt);
    return strcmp(name, "cpu") ? 0 : cpu_scratch(shape, opt);
}

bool backend_memory(const char *device, uint64_t *free_bytes, bool *mapped, ds4_err *err)
{
    const char *name = device ? device : "cpu";
    int gpu;

    while (take(&name, "timed:") || take(&name, "trace:") || take(&name, "check:") ||
           take(&name, "collect:"))
        ;
    *free_bytes = 0;
    *mapped = !is_cuda(name, &gpu);
    if (*mapped)
        return is_host(name) || unknown(name, err);
    return cuda_driver.memory(gpu, free_bytes, err);
}

bool backend_identity(const char *device, char out[40])
{
    const char *name = device ? device : "cpu";
    int gpu;

    while (take(&name, "timed:") || take(&name, "trace:") || take(&name, "check:") ||
           take(&name, "collect:"))
        ;
    return is_cuda(name, &gpu) && cuda_identity(gpu, out);
}
