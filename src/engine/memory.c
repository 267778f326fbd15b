/* memory.c - how much memory there is now: what the system calls available,
 * or what the control group that we run in leaves us, if that is less. */
#include "engine.h"
#include <stdio.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach/mach.h>

uint64_t memory_available(void)
{
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();

    if (host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&vm, &count) != KERN_SUCCESS)
        return 0;
    uint64_t pages = (uint64_t)vm.free_count + vm.inactive_count + vm.purgeable_count;
    return pages * (uint64_t)getpagesize();
}

#else

/* The number after `key` in a file of lines "key value". key "": the first. */
static bool number_in(const char *path, const char *key, uint64_t *out)
{
    char line[256];
    const size_t n = strlen(key);
    bool found = false;
    FILE *f = fopen(path, "re");

    while (f && !found && fgets(line, sizeof line, f)) {
        unsigned long long v;
        if (!strncmp(line, key, n) && sscanf(line + n, " %llu", &v) == 1) {
            *out = v;
            found = true;
        }
    }
    if (f)
        fclose(f);
    return found;
}

static bool group_number(const char *dir, const char *file, const char *key, uint64_t *out)
{
    char path[1200];

    snprintf(path, sizeof path, "%s/%s", dir, file);
    return number_in(path, key, out);
}

/* What one control group leaves: its limit less what it uses, where pages of
 * files do not count as used. No limit: UINT64_MAX. */
static uint64_t group_left(const char *dir, const char *limit_file, const char *usage_file)
{
    uint64_t limit, used = 0, active = 0, inactive = 0;

    if (!group_number(dir, limit_file, "", &limit) || limit > UINT64_MAX / 4)
        return UINT64_MAX;
    group_number(dir, usage_file, "", &used);
    group_number(dir, "memory.stat", "active_file ", &active);
    group_number(dir, "memory.stat", "inactive_file ", &inactive);
    used -= MIN(used, active + inactive);
    return limit - MIN(limit, used);
}

/* The path without its last part; false when there is none left. */
static bool drop_last(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash)
        *slash = '\0';
    return slash != NULL;
}

/* Of the group and all that contain it: version 2 has one tree, version 1 one
 * for memory. */
static uint64_t groups_left(void)
{
    char line[1024], dir[1100];
    uint64_t least = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");

    while (f && fgets(line, sizeof line, f)) {
        const bool v2 = !strncmp(line, "0::/", 4);
        char *path = strchr(line, '/');
        if (!path || (!v2 && !strstr(line, ":memory:")))
            continue;
        path[strcspn(path, "\n")] = '\0';
        for (bool more = true; more; more = drop_last(path)) {
            snprintf(dir, sizeof dir, "%s%s", v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory",
                     path);
            uint64_t left = v2 ? group_left(dir, "memory.max", "memory.current")
                               : group_left(dir, "memory.limit_in_bytes", "memory.usage_in_bytes");
            least = MIN(least, left);
        }
    }
    if (f)
        fclose(f);
    return least;
}

uint64_t memory_available(void)
{
    uint64_t kb = 0, bytes;

    if (number_in("/proc/meminfo", "MemAvailable:", &kb))
        bytes = kb * 1024;
    else
        bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return MIN(bytes, groups_left());
}

#endif
