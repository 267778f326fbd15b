/* bench_store: what the KV store costs with states as large as the real model's.
 *
 *     bench_store [DIR]      default: a new folder below /tmp, removed afterwards
 *
 * Prints the time to bring 25,000 tokens back (from the page cache, and from memory),
 * and the bytes written for conversations in turns of 300 tokens: of 100,000, faster than
 * tails are written, and of 16,000, slower (which takes a minute). */
#include "../src/store/store.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* spec of the model: 3,508.75 bytes of rows a token; a mark of 127 window rows in 43
 * layers and the last group of 21 in F32 */
#define UNIT_BYTES (128 * 14035ull / 4)
#define MARK_BYTES (43 * 127 * 583ull + 21 * 2 * 4 * 1280 * 4)
enum { MOST = 100 * 1000 };

static int32_t tokens[MOST + STORE_CHUNK];
static char dir[256];

static Store *open_store(int tail_s)
{
    ds4_err err;
    StoreModel m = { .unit_bytes = UNIT_BYTES, .mark_bytes = MARK_BYTES };
    Store *s = store_open(
        &(StoreOptions){ .dir = dir, .ram_bytes = (uint64_t)1 << 30, .tail_s = tail_s }, &err);
    if (!s) {
        fprintf(stderr, "bench_store: %s\n", err.msg);
        exit(1);
    }
    store_bind(s, &m);
    return s;
}

static void put(Store *s, int first, int last)
{
    const size_t n = (size_t)(last - first) / STORE_UNIT * UNIT_BYTES;
    char *rows = malloc(n), *mark = malloc(MARK_BYTES);
    if (!rows || !mark)
        exit(1);
    memset(rows, last, n);
    memset(mark, last, MARK_BYTES);
    store_put(s, &(StorePut){
                     .tokens = tokens, .first = first, .last = last, .rows = rows, .mark = mark });
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double fetch(Store *s, int n, uint64_t *bytes)
{
    StoreFound found;
    StorePiece p;
    StoreNext next;
    const int64_t begin = clock_ns();
    store_find(s, tokens, n, &found);
    StoreFetch *f = store_fetch(s, &found, 0);
    *bytes = found.bytes;
    while ((next = store_next(f, &p)) != STORE_END)
        if (next == STORE_WAIT)
            usleep(50);
    const double ms = (double)(clock_ns() - begin) / 1e6;
    if (p.last != found.n)
        fprintf(stderr, "bench_store: %d tokens of %d came back\n", p.last, found.n);
    store_fetch_close(f);
    store_unpin(s, &found);
    return ms;
}

static void restore(void)
{
    uint64_t bytes;
    Store *s = open_store(0);
    const int64_t begin = clock_ns();
    for (int at = 0; at < 25000 / STORE_UNIT * STORE_UNIT; at += STORE_CHUNK)
        put(s, at, MIN(at + STORE_CHUNK, 25000 / STORE_UNIT * STORE_UNIT));
    store_close(s, clock_ns() + (int64_t)60 * 1000000000);
    const double written = (double)(clock_ns() - begin) / 1e6;
    s = open_store(0);
    const double cpu = cpu_ms(), cold = fetch(s, 25000, &bytes), used = cpu_ms() - cpu;
    const double warm = fetch(s, 25000, &bytes);
    printf("25,000 tokens: %.0f MB; written and synced in %.0f ms; back from the page cache in "
           "%.0f ms (%.0f of a core), from memory in %.1f ms\n",
           (double)bytes / 1e6, written, cold, used, warm);
    store_close(s, 0);
}

/* Turns of 300 tokens: whole chunks as they complete, a tail after each turn. pause_s:
 * before the next one. */
static void conversation(int most, int tail_s, double pause_s)
{
    StoreCounters c;
    Store *s = open_store(tail_s);
    for (int n = 300, done = 0; n <= most; n += 300) {
        for (; n - done >= STORE_CHUNK; done += STORE_CHUNK)
            put(s, done, done + STORE_CHUNK);
        if (n - done >= STORE_UNIT)
            put(s, done, n / STORE_UNIT * STORE_UNIT);
        usleep((useconds_t)(pause_s * 1e6));
    }
    do {
        usleep(1000);
        store_counters(s, &c);
    } while (c.waiting_chunks > 1);
    const double rows = most / STORE_UNIT * (double)UNIT_BYTES;
    printf("%d tokens in turns of 300, %g x tail_s apart: %.0f MB written, %.2f x the rows' %.0f "
           "MB\n",
           most, pause_s / tail_s, (double)c.written_bytes / 1e6, (double)c.written_bytes / rows,
           rows / 1e6);
    store_close(s, 0);
}

static void empty(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "bench_store: %s is left\n", dir);
}

int main(int argc, char **argv)
{
    snprintf(dir, sizeof dir, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    for (int i = 0; i < MOST; i++)
        tokens[i] = i;
    restore();
    empty();
    conversation(100 * 1000, 60, 0);
    empty();
    conversation(16 * 1000, 1, 1.2);
    empty();
    return 0;
}
