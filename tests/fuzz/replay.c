/* replay.c - a main() for fuzz targets without libFuzzer.
 *
 *     replay [FILE|FOLDER ...]      default: tests/fuzz/corpus/<program name>
 *
 * Feeds each file as it is, cut at up to CUTS places, and in MUTATIONS
 * variants made by a fixed generator, so that the same inputs are tried
 * everywhere. Each input lies in a block of exactly its size: a read past its
 * end is seen by the address sanitizer. */
#include "../../src/base/file.h"
#include "../../src/base/rng.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CUTS = 256, MUTATIONS = 256, MAX_EDITS = 4 };
#define MAX_FILE   ((size_t)16 << 20)
#define WORK_BYTES ((size_t)48 << 20) /* of variants of one file: long files get fewer */

typedef struct {
    size_t files, inputs;
} Tally;

static void feed(Tally *t, const char *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact) {
        fprintf(stderr, "replay: no memory for %zu bytes\n", n);
        exit(1);
    }
    if (n)
        memcpy(exact, p, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    t->inputs++;
}

/* Values at which counts and lengths go wrong. */
static uint64_t hostile(uint64_t *rng)
{
    static const uint64_t values[] = { 0,          1,          0x7f,           0x80,
                                       0xff,       0x7fffffff, 0x80000000,     0xffffffff,
                                       UINT64_MAX, INT64_MAX,  1ull << 63,     UINT64_MAX / 8,
                                       1ull << 32, 1ull << 61, UINT64_MAX - 7, 0x100000001 };
    return values[rng_next(rng) % COUNT(values)];
}

static void edit(char *p, size_t n, uint64_t *rng)
{
    size_t at = (size_t)(rng_next(rng) % n), width = (size_t)1 << (rng_next(rng) % 4);
    uint64_t v;
    switch (rng_next(rng) % 4) {
    case 0: p[at] = (char)(p[at] ^ (1 << (rng_next(rng) % 8))); break;
    case 1: p[at] = (char)rng_next(rng); break;
    case 2:
        v = hostile(rng);
        for (size_t i = 0; i < width && at + i < n; i++)
            p[at + i] = (char)(v >> (8 * i));
        break;
    default: memmove(p + at, p + (size_t)(rng_next(rng) % n) / 2, MIN(n - at, width * 4) / 2);
    }
}

static void mutate(Tally *t, const Bytes *file, size_t variants)
{
    uint64_t rng = file->n;
    char *copy = malloc(file->n);
    for (size_t i = 0; copy && i < variants; i++) {
        memcpy(copy, file->p, file->n);
        for (uint64_t e = 1 + rng_next(&rng) % MAX_EDITS; e > 0; e--)
            edit(copy, file->n, &rng);
        feed(t, copy, file->n);
    }
    free(copy);
}

static void replay_file(Tally *t, const char *path)
{
    Bytes b = { 0 };
    ds4_err err;
    if (!file_read(&b, path, MAX_FILE, &err)) {
        fprintf(stderr, "replay: %s\n", err.msg);
        exit(1);
    }
    t->files++;
    feed(t, b.p, b.n);
    if (b.n) {
        size_t most = MAX(WORK_BYTES / b.n, (size_t)1);
        size_t cuts = MIN(MIN((size_t)CUTS, b.n), most);
        for (size_t i = 0; i < cuts; i++)
            feed(t, b.p, b.n * i / cuts);
        mutate(t, &b, MIN((size_t)MUTATIONS, most));
    }
    bytes_release(&b);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void replay(Tally *t, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        replay_file(t, path);
        return;
    }
    struct dirent **entry;
    int n = scandir(path, &entry, NULL, by_name);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.')
            replay(t, inner);
        free(entry[i]);
    }
    if (n >= 0)
        free(entry);
}

int main(int argc, char **argv)
{
    Tally t = { 0 };
    char corpus[4096];
    const char *slash = strrchr(argv[0], '/');
    snprintf(corpus, sizeof corpus, "tests/fuzz/corpus/%s", slash ? slash + 1 : argv[0]);
    for (int i = 1; i < argc; i++)
        replay(&t, argv[i]);
    if (argc < 2)
        replay(&t, corpus);
    if (t.files == 0) {
        fprintf(stderr, "replay: no file to replay\n");
        return 1;
    }
    printf("%zu files, %zu inputs\n", t.files, t.inputs);
    return 0;
}
