/* store_toy.h - timelines of made-up states for tests of the store: what rows and marks
 * must be follows from the tokens, so that whatever comes back can be checked. TOY_CASE
 * gives each test a folder. */
#ifndef STORE_TOY_H
#define STORE_TOY_H
#include "../src/store/store.h"
#include "../src/base/file.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <cmocka.h>

#ifndef TOY_UNIT /* bytes of the rows of 128 tokens, and of a mark */
#define TOY_UNIT 640
#define TOY_MARK 1000
#endif
/* Bytes of a whole chunk's file. */
#define TOY_FILE (128 + 24 + STORE_CHUNK * 4 + 16 * TOY_UNIT + TOY_MARK + 3 * 8)
enum { TOY_MOST = 40 * STORE_CHUNK };

static inline StoreModel toy_model(int which)
{
    StoreModel m = { .rounded = true, .unit_bytes = TOY_UNIT, .mark_bytes = TOY_MARK };
    memset(m.fingerprint, which, sizeof m.fingerprint);
    return m;
}

/* Conversation `who`: the first `common` tokens are everybody's. */
static inline void toy_tokens(int32_t *out, int n, int who, int common)
{
    for (int i = 0; i < n; i++)
        out[i] = (int32_t)((i * 2654435761u + (i < common ? 0 : (unsigned)who * 97u)) % 129280);
}

static inline void toy_fill(unsigned char *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)((seed >> (i % 8 * 8)) + i * 31);
}

/* The state after these tokens: what its rows [first, last) and its mark must be. */
static inline void toy_rows(const int32_t *tokens, int first, int last, unsigned char *out)
{
    for (int at = first; at < last; at += STORE_UNIT, out += TOY_UNIT)
        toy_fill(out, TOY_UNIT, XXH3_64bits(tokens, (size_t)(at + STORE_UNIT) * sizeof *tokens));
}

static inline void toy_mark(const int32_t *tokens, int n, unsigned char *out)
{
    toy_fill(out, TOY_MARK, ~XXH3_64bits(tokens, (size_t)n * sizeof *tokens));
}

static inline bool toy_put(Store *s, const int32_t *tokens, int first, int last)
{
    unsigned char *rows = malloc((size_t)STORE_CHUNK / STORE_UNIT * TOY_UNIT + TOY_UNIT);
    unsigned char *mark = malloc(TOY_MARK);
    toy_rows(tokens, first, last, rows);
    toy_mark(tokens, last, mark);
    return store_put(
        s,
        &(StorePut){ .tokens = tokens, .first = first, .last = last, .rows = rows, .mark = mark });
}

/* All chunks of n tokens, and the tail. */
static inline void toy_save(Store *s, const int32_t *tokens, int n)
{
    for (int at = 0; at < n; at += STORE_CHUNK)
        toy_put(s, tokens, at, MIN(at + STORE_CHUNK, n));
}

/* Fetches what is there of n tokens from `from` on. Returns the length that it is
 * possible to go on from; -1: something that came was wrong. */
static inline int toy_fetch(Store *s, const int32_t *tokens, int n, int from)
{
    static _Thread_local unsigned char want[STORE_CHUNK / STORE_UNIT * TOY_UNIT];
    StoreFound found;
    StorePiece p;
    StoreNext next;
    int at = from / STORE_CHUNK * STORE_CHUNK, reached = -1;
    bool right = true;

    if (!store_find(s, tokens, n, &found))
        return 0;
    StoreFetch *f = store_fetch(s, &found, from);
    while (right && (next = store_next(f, &p)) != STORE_END) {
        if (next == STORE_WAIT) {
            usleep(200);
            continue;
        }
        toy_rows(tokens, p.first, p.last, want);
        right = p.first == at &&
                !memcmp(want, p.rows, (size_t)(p.last - p.first) / STORE_UNIT * TOY_UNIT);
        at = p.last;
    }
    if (right && p.last > 0) {
        toy_mark(tokens, p.last, want);
        right = p.mark && !memcmp(want, p.mark, TOY_MARK);
    }
    if (right && (p.last <= at || at == from))
        reached = p.last;
    store_fetch_close(f);
    store_unpin(s, &found);
    return reached;
}

static inline StoreCounters toy_counters(Store *s)
{
    StoreCounters c;
    store_counters(s, &c);
    return c;
}

/* Until nothing is on its way to the disk, or from it. */
static inline void toy_settle(Store *s)
{
    for (int i = 0; i < 120000; i++) {
        const StoreCounters c = toy_counters(s);
        if (!c.waiting_chunks && !c.removing)
            return;
        usleep(1000);
    }
}

static inline int toy_files(const char *dir, const char *end)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        const size_t k = strlen(e->d_name), m = strlen(end);
        n += k >= m && !strcmp(e->d_name + k - m, end);
    }
    if (d)
        closedir(d);
    return n;
}

static inline void toy_remove_dir(const char *dir)
{
    char path[4096];
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < (int)sizeof path &&
            strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && remove(path) != 0)
            toy_remove_dir(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}

/* ---- a test ------------------------------------------------------------------------- */

static char toy_dir[64];                         /* the test's own */
static int32_t toy_a[TOY_MOST], toy_b[TOY_MOST]; /* two conversations, alike for 5000 tokens */
static char toy_said[1 << 16];                   /* what the stores of this test have said */
static pthread_mutex_t toy_said_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void toy_hear(void *user, const char *line)
{
    (void)user;
    pthread_mutex_lock(&toy_said_lock);
    const size_t n = strlen(toy_said);
    snprintf(toy_said + n, sizeof toy_said - n, "%s\n", line);
    pthread_mutex_unlock(&toy_said_lock);
}

/* How often the words were said. */
static inline int toy_heard(const char *words)
{
    int n = 0;
    pthread_mutex_lock(&toy_said_lock);
    for (const char *p = toy_said; (p = strstr(p, words)); p++)
        n++;
    pthread_mutex_unlock(&toy_said_lock);
    return n;
}

static inline int toy_begin(void **state)
{
    (void)state;
    toy_said[0] = '\0';
    toy_tokens(toy_a, TOY_MOST, 1, 5000);
    toy_tokens(toy_b, TOY_MOST, 2, 5000);
    snprintf(toy_dir, sizeof toy_dir, "/tmp/ds4-test-XXXXXX");
    return mkdtemp(toy_dir) ? 0 : -1;
}

static inline int toy_end(void **state)
{
    (void)state;
    toy_remove_dir(toy_dir);
    return 0;
}

#define TOY_CASE(name) cmocka_unit_test_setup_teardown(name, toy_begin, toy_end)

/* A store of this model. NULL, and why is printed: it cannot be opened. */
static inline Store *toy_try_open(StoreOptions opt, int model)
{
    ds4_err err = { 0 };
    StoreModel m = toy_model(model);
    opt.log = toy_hear;
    Store *s = store_open(&opt, &err);
    if (!s)
        print_error("%s\n", err.msg);
    else
        store_bind(s, &m);
    return s;
}

static inline Store *toy_open(StoreOptions opt, int model)
{
    Store *s = toy_try_open(opt, model);
    assert_non_null(s);
    return s;
}

static inline Store *toy_open_dir(void)
{
    return toy_open((StoreOptions){ .dir = toy_dir, .disk_bytes = 1 << 30, .ram_bytes = 1 << 20 },
                    1);
}

static inline Store *toy_open_ram(uint64_t bytes)
{
    return toy_open((StoreOptions){ .ram_bytes = bytes }, 1);
}

#define TOY_SOON (clock_ns() + (int64_t)20000000000)

/* Chunks that could not be written. */
static inline int toy_close(Store *s) { return (int)store_close(s, TOY_SOON); }

#endif
