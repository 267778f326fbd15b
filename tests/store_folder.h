/* store_folder.h - a store in a folder of its own, opened as if by one process after
 * another. */
#ifndef STORE_FOLDER_H
#define STORE_FOLDER_H
#include "../src/store/journal.h"
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

static inline void store_folder_copy(void *out, uint64_t key, Str record)
{
    Bytes *b = out;
    (void)key;
    bytes_clear(b);
    bytes_put(b, record.p, record.n);
}

/* Puts the journal's last record there again, cut off at each byte and with each byte
 * changed: with a right checksum, so that only who reads it can find that out. */
static inline void store_folder_spoil(StoreFolder *f, const char *name)
{
    ds4_err err;
    Bytes last = { 0 };
    uint64_t key = 1000;
    const JournalOptions opt = { .name = name,
                                 .version = 1,
                                 .max_bytes = 1 << 30,
                                 .max_record = 1 << 20,
                                 .each = store_folder_copy,
                                 .user = &last };
    Journal *j = journal_open(store_folder_open(f), &opt, &err);
    assert_non_null(j);
    assert_true(last.n > 0);
    for (size_t i = 0; i < last.n; i++)
        assert_true(journal_put(j, key++, (Str){ last.p, i }));
    for (size_t i = 0; i < last.n; i++) {
        char was = last.p[i];
        for (int bit = 0; bit < 8; bit++) {
            last.p[i] = (char)(was ^ 1 << bit);
            assert_true(journal_put(j, key++, bytes_view(&last)));
        }
        last.p[i] = was;
    }
    bytes_release(&last);
    store_folder_close(f);
}

#endif
