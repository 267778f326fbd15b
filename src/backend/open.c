/* open.c - backends by name. */
#include "../ops/decorate.h"
#include "cpu/cpu.h"

static bool take(const char **device, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*device, prefix, n))
        return false;
    *device += n;
    return true;
}

static Backend *wrapped(Backend *inner, Backend *(*open)(Backend *, ds4_err *), ds4_err *err)
{
    Backend *be = inner ? open(inner, err) : NULL;
    if (!be)
        backend_close(inner);
    return be;
}

/* The reference is the scalar CPU: the truth. */
static Backend *checked(Backend *inner, const Shape *shape, const BackendOptions *opt, ds4_err *err)
{
    BackendOptions scalar = *opt;
    scalar.isa = "scalar";
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

Backend *backend_open(const char *device, const Shape *shape, const BackendOptions *opt,
                      ds4_err *err)
{
    const char *name = device ? device : "cpu";

    if (take(&name, "timed:"))
        return wrapped(backend_open(name, shape, opt, err), timed_open, err);
    if (take(&name, "trace:"))
        return wrapped(backend_open(name, shape, opt, err), trace_open, err);
    if (take(&name, "check:"))
        return checked(backend_open(name, shape, opt, err), shape, opt, err);
    if (!strcmp(name, "cpu"))
        return cpu_open(shape, opt, err);
    if (!strcmp(name, "null"))
        return null_open(shape, err);
    if (take(&name, "play:"))
        return played(name, shape, opt, err);
    fail(err, DS4_EINVAL,
         "unknown device '%s': cpu, null or play:FILE, or timed:, trace: or check: "
         "before one of them",
         device);
    return NULL;
}

uint64_t backend_scratch(const char *device, const Shape *shape, const BackendOptions *opt)
{
    const char *name = device ? device : "cpu";

    while (take(&name, "timed:") || take(&name, "trace:"))
        ;
    if (take(&name, "check:"))
        return backend_scratch(name, shape, opt) + cpu_scratch(shape, opt);
    return strcmp(name, "cpu") ? 0 : cpu_scratch(shape, opt);
}
