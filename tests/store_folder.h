/* store_folder.h - a store in a folder of its own, opened as if by one process after
 * another. */
#ifndef STORE_FOLDER_H
#define STORE_FOLDER_H
#include "../src/store/store.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    char dir[32];
    Store *store;
} StoreFolder;

static inline Store *store_folder_open(StoreFolder *f)
{
    ds4_err err;
    if (!f->dir[0]) {
        snprintf(f->dir, sizeof f->dir, "/tmp/ds4-test-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
    }
    f->store = store_open(&(StoreOptions){ .dir = f->dir, .ram_bytes = 1 << 20 }, &err);
    if (!f->store)
        fail_msg("%s", err.msg);
    return f->store;
}

/* All that waits is written. */
static inline void store_folder_close(StoreFolder *f)
{
    store_close(f->store, clock_ns() + 10000000000);
    f->store = NULL;
}

static inline void store_folder_remove(StoreFolder *f)
{
    static const char *const names[] = { "answers.journal", "responses.journal", "tools.journal",
                                         "secret", "lock" };
    char path[64];
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
}

/* Changes a byte of a file. */
static inline void store_folder_damage(const StoreFolder *f, const char *name, long at)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(file);
    assert_true(c >= 0);
    fseek(file, -1, SEEK_CUR);
    fputc(c ^ 0x20, file);
    assert_int_equal(fclose(file), 0);
}

#endif
