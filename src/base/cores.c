/* cores.c - physical cores. Two hardware threads of one core share its load
 * ports and its path to memory, so a second one only adds waiting. */
#include "cores.h"
#include "base.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>

static int sysctl_int(const char *name)
{
    int v = 0;
    size_t n = sizeof v;
    return sysctlbyname(name, &v, &n, NULL, 0) == 0 && n == sizeof v ? v : 0;
}

int cores_usable(void)
{
    int n = sysctl_int("hw.perflevel0.physicalcpu");
    if (n < 1)
        n = sysctl_int("hw.physicalcpu");
    return MAX(n, 1);
}

int hardware_threads_usable(void) { return MAX((int)sysconf(_SC_NPROCESSORS_ONLN), 1); }

#elif defined(__linux__)
#include <sched.h>

/* The first number of a one-line file, -1 when there is none. */
static long read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    long v;
    if (fscanf(f, "%ld", &v) != 1)
        v = -1;
    fclose(f);
    return v;
}

/* A core is named by its lowest hardware thread. */
static int first_sibling(int cpu)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    long first = read_number(path);
    return first < 0 || first > cpu ? cpu : (int)first;
}

/* Whole CPUs that the control group's quota pays for; 0: no quota. */
static int quota_cpus(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f)
        return 0;
    long quota, period;
    int got = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    return got == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Cores with at least one hardware thread in the mask. */
static int count_cores(const cpu_set_t *mask, size_t bytes, size_t max_cpus)
{
    unsigned char *seen = calloc(max_cpus, 1);
    int n = 0;
    for (size_t cpu = 0; seen && cpu < max_cpus; cpu++) {
        if (!CPU_ISSET_S(cpu, bytes, mask))
            continue;
        unsigned char *core = &seen[first_sibling((int)cpu)];
        n += !*core;
        *core = 1;
    }
    free(seen);
    return n;
}

static int count_threads(const cpu_set_t *mask, size_t bytes, size_t max_cpus)
{
    (void)max_cpus;
    return CPU_COUNT_S(bytes, mask);
}

/* What `count` finds in the affinity mask. */
static int allowed(int (*count)(const cpu_set_t *mask, size_t bytes, size_t max_cpus))
{
    for (size_t max_cpus = 1024; max_cpus <= 65536; max_cpus *= 4) {
        cpu_set_t *mask = CPU_ALLOC(max_cpus);
        size_t bytes = CPU_ALLOC_SIZE(max_cpus);
        int n = 0;
        if (mask && sched_getaffinity(0, bytes, mask) == 0)
            n = count(mask, bytes, max_cpus);
        CPU_FREE(mask);
        if (n > 0)
            return n;
    }
    return 0;
}

int cores_usable(void)
{
    int n = allowed(count_cores);
    if (n < 1)
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = quota_cpus();
    if (quota && quota < n)
        n = quota;
    return MAX(n, 1);
}

int hardware_threads_usable(void)
{
    int n = allowed(count_threads);
    return n > 0 ? n : MAX((int)sysconf(_SC_NPROCESSORS_ONLN), 1);
}

#else

int cores_usable(void) { return MAX((int)sysconf(_SC_NPROCESSORS_ONLN), 1); }
int hardware_threads_usable(void) { return cores_usable(); }

#endif
