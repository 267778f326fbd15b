/* bench_state.c - how long a session's state takes out, in, and from session to session.
 *
 *      bench_state MODEL [TOKENS [DEVICE]]     default 25600 (of 2,048: 12 and a half), null
 *
 * Nothing is computed: rows and marks are random bytes of the right sizes, which is all
 * that moving them depends on. Chunks of 2,048 tokens lie in a file of the system's page cache.
 * The first restore finds the session's memory untouched, as after a start. */
#include "../src/base/base.h"
#include "../src/base/rng.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

enum { CHUNK = 2048, RUNS = 4 };

typedef struct {
    ds4_engine *engine;
    ds4_session *session, *other;
    int32_t *token;
    int n, file;
    size_t most, mark_bytes;
    char *rows, *mark;
    double read_ms, sum_ms, write_ms, enter_ms; /* of a restore */
} Bench;

static double ms_since(int64_t begin) { return (double)(clock_ns() - begin) / 1e6; }

static void require(bool ok, const ds4_err *err)
{
    if (ok)
        return;
    fprintf(stderr, "bench_state: %s\n", err->msg);
    exit(1);
}

static size_t rows_bytes(const Bench *b, int first)
{
    return (size_t)ds4_rows_bytes(b->engine, first, MIN(first + CHUNK, b->n));
}

static void make_file(Bench *b)
{
    char path[] = "/tmp/ds4-bench-state-XXXXXX";
    uint64_t seed = 1;
    ds4_err err;

    b->file = mkstemp(path);
    unlink(path);
    for (int at = 0; at < b->n; at += CHUNK) {
        const size_t bytes = rows_bytes(b, at) + b->mark_bytes;
        char *p = malloc(bytes);
        for (size_t i = 0; p && i < bytes; i++)
            p[i] = (char)(rng_next(&seed) >> 40);
        fail(&err, DS4_EIO, "%s: not written", path);
        require(p && b->file >= 0 && write(b->file, p, bytes) == (ssize_t)bytes, &err);
        free(p);
    }
}

static void take(Bench *b, void *p, size_t n, off_t *at)
{
    ds4_err err;
    int64_t begin = clock_ns();

    fail(&err, DS4_EIO, "the file of chunks ends early");
    require(pread(b->file, p, n, *at) == (ssize_t)n, &err);
    *at += (off_t)n;
    b->read_ms += ms_since(begin);
    begin = clock_ns();
    static volatile uint64_t sink;
    sink += XXH3_64bits(p, n);
    b->sum_ms += ms_since(begin);
}

static void restore(Bench *b)
{
    off_t at = 0;
    ds4_err err;

    b->read_ms = b->sum_ms = b->write_ms = b->enter_ms = 0;
    for (int first = 0; first < b->n; first += CHUNK) {
        const size_t bytes = rows_bytes(b, first);
        take(b, b->rows, bytes, &at);
        take(b, b->mark, b->mark_bytes, &at);
        const int64_t begin = clock_ns();
        require(ds4_session_write_rows(b->session, first, MIN(first + CHUNK, b->n), b->rows, bytes,
                                       &err),
                &err);
        b->write_ms += ms_since(begin);
    }
    const int64_t begin = clock_ns();
    require(ds4_session_enter(b->session, b->token, b->n, b->mark, b->mark_bytes, &err), &err);
    b->enter_ms = ms_since(begin);
}

static double save_ms(Bench *b)
{
    const int64_t begin = clock_ns();
    ds4_err err;

    for (int first = 0; first < b->n; first += CHUNK)
        require(ds4_session_read_rows(b->session, first, MIN(first + CHUNK, b->n), b->rows, &err),
                &err);
    require(ds4_session_read_mark(b->session, b->n, b->mark, &err), &err);
    return ms_since(begin);
}

static double fork_ms(Bench *b)
{
    const int64_t begin = clock_ns();
    ds4_err err;

    require(ds4_session_fork(b->other, b->session, b->n, NULL, &err), &err);
    return ms_since(begin);
}

static void report(Bench *b)
{
    const double rows = (double)ds4_rows_bytes(b->engine, 0, b->n) / 1e6;

    printf("%s\n%d tokens: %.1f MB of rows, %.1f MB a mark\n", ds4_engine_describe(b->engine), b->n,
           rows, (double)b->mark_bytes / 1e6);
    printf("| run | file | checksums | rows in | mark in | restore | out | fork |\n");
    for (int i = 0; i < RUNS; i++) {
        restore(b);
        const double out = save_ms(b), fork = fork_ms(b);
        printf("| %d | %.1f | %.1f | %.1f | %.1f | %.1f ms | %.1f | %.1f |\n", i, b->read_ms,
               b->sum_ms, b->write_ms, b->enter_ms,
               b->read_ms + b->sum_ms + b->write_ms + b->enter_ms, out, fork);
        ds4_session_rewind(b->session, 0);
    }
}

int main(int argc, char **argv)
{
    Bench b = { .n = argc > 2 ? atoi(argv[2]) / DS4_STATE_UNIT * DS4_STATE_UNIT : 25600 };
    const ds4_options opt = { .model = argc > 1 ? argv[1] : "models/ds4-tiny.gguf",
                              .device = argc > 3 ? argv[3] : "null",
                              .context = b.n,
                              .sessions = 2 };
    ds4_err err;

    require((b.engine = ds4_engine_open(&opt, &err)) != NULL, &err);
    require((b.session = ds4_session_open(b.engine, &err)) != NULL, &err);
    require((b.other = ds4_session_open(b.engine, &err)) != NULL, &err);
    b.most = (size_t)ds4_rows_bytes(b.engine, 0, MIN(b.n, (int)CHUNK));
    b.mark_bytes = (size_t)ds4_mark_bytes(b.engine, b.n);
    b.token = calloc((size_t)b.n, sizeof *b.token);
    b.rows = malloc(b.most);
    b.mark = malloc(b.mark_bytes);
    fail(&err, DS4_ENOMEM, "no memory");
    require(b.token && b.rows && b.mark, &err);
    make_file(&b);
    report(&b);
    close(b.file);
    ds4_engine_close(b.engine);
    free(b.token);
    free(b.rows);
    free(b.mark);
    return 0;
}
