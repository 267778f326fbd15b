/* limits.c - what this machine can do, in a few seconds.
 *
 *   make build/limits && build/limits [--json] [--threads N] [--mib N]
 *
 * Read bandwidth (of N MiB, default 512, which has to be much more than the
 * caches hold) and multiply-accumulates a second, of one thread and of all:
 * the best of many short repetitions, and their median. Where the two are far
 * apart, somebody else uses the machine. */
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>

enum { WINDOW = 16 << 20, MIB = 1 << 20 };
static const double SECONDS = 0.5;

typedef struct {
    const char *key, *unit, *name; /* "int8", "GMAC/s", "vpdpbusd zmm" */
    Rate one, all;
} Limit;

enum { LIMITS = 1 + MAC_KINDS };

static bool measure(Pool *one, Pool *all, size_t bytes, Limit out[LIMITS])
{
    static const char *const kind[MAC_KINDS] = { "f32", "int8", "bf16" };
    ReadBuffer b;
    if (!read_buffer_new(&b, all, bytes, WINDOW))
        return false;
    out[0] = (Limit){ "read", "GB/s", "loads", measure_read(one, &b, SECONDS),
                      measure_read(all, &b, SECONDS) };
    read_buffer_free(&b);
    for (int k = 0; k < MAC_KINDS; k++) {
        Limit *l = &out[1 + k];
        *l = (Limit){ .key = kind[k], .unit = "GMAC/s" };
        l->one = measure_macs(one, k, NULL, SECONDS, &l->name);
        l->all = measure_macs(all, k, NULL, SECONDS, &l->name);
    }
    return true;
}

static void print_json(const Limit *l, int threads)
{
    printf("{\"threads\":%d", threads);
    for (int i = 0; i < LIMITS; i++) {
        if (l[i].name)
            printf(",\"%s\":{\"unit\":\"%s\",\"with\":\"%s\",\"one\":%.2f,\"one_median\":%.2f,"
                   "\"all\":%.2f,\"all_median\":%.2f}",
                   l[i].key, l[i].unit, l[i].name, 1e-9 * l[i].one.best, 1e-9 * l[i].one.median,
                   1e-9 * l[i].all.best, 1e-9 * l[i].all.median);
    }
    printf("}\n");
}

static void print_table(const Limit *l, int threads)
{
    printf("%-5s %-16s %-7s %9s %8s   %d threads %8s\n", "", "", "", "1 thread", "median", threads,
           "median");
    for (int i = 0; i < LIMITS; i++) {
        if (l[i].name)
            printf("%-5s %-16s %-7s %9.1f %8.1f %11.1f %8.1f\n", l[i].key, l[i].name, l[i].unit,
                   1e-9 * l[i].one.best, 1e-9 * l[i].one.median, 1e-9 * l[i].all.best,
                   1e-9 * l[i].all.median);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: limits [--json] [--threads N] [--mib N]\n");
    return 2;
}

int main(int argc, char **argv)
{
    bool json = false;
    int threads = 0, mib = 512;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--mib") == 0 && i + 1 < argc && atoi(argv[i + 1]) >= 32)
            mib = atoi(argv[++i]);
        else
            return usage();
    }
    ds4_err err = { 0 };
    Limit l[LIMITS];
    Pool *one = pool_new(1, &err), *all = pool_new(threads, &err);
    bool ok = one && all &&
              (measure(one, all, (size_t)mib * MIB, l) ||
               fail(&err, DS4_ENOMEM, "no memory for %d MiB to read", mib));
    if (ok)
        (json ? print_json : print_table)(l, pool_threads(all));
    else
        fprintf(stderr, "limits: %s\n", err.msg);
    pool_free(one);
    pool_free(all);
    return !ok;
}
