/* server_stage.h - the engine's thread and a store without a network, for tests of both: jobs
 * are made and answered here, and compared with what a fresh engine says. */
#ifndef SERVER_STAGE_H
#define SERVER_STAGE_H
#include "../src/server/scheduler.h"
#include "../src/store/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define MODEL "models/ds4-tiny.gguf"
enum { CONTEXT = 8192, ANSWER = 8 };

/* ---- a server without a network ---------------------------------------------------------- */

typedef struct {
    int slots, idle_s;
    const char *dir; /* NULL: memory only */
    bool no_store;
    uint64_t ram; /* of the store; 0: 256 MiB */
    const char *device;
    int context;
} StageOptions;

typedef struct {
    StageOptions opt;
    Scheduler *s;
    Store *store;
    Recall *recall;
    Metrics *metrics;
    const ds4_vocab *vocab;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool ready, ended, failed;
    bool no_engine; /* open fails */
    int opened;
    Bytes log;
} Stage;

static inline void changed(Stage *g)
{
    pthread_mutex_lock(&g->mutex);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static inline ds4_engine *open_engine(void *user, ds4_err *err)
{
    Stage *g = user;
    pthread_mutex_lock(&g->mutex);
    bool none = g->no_engine;
    g->opened++;
    pthread_mutex_unlock(&g->mutex);
    if (none) {
        *err = (ds4_err){ DS4_ENOMEM, "no room for it" };
        return NULL;
    }
    return ds4_engine_open(&(ds4_options){ .model = MODEL,
                                           .device = g->opt.device ? g->opt.device : "cpu",
                                           .threads = 1,
                                           .context = g->opt.context ? g->opt.context : CONTEXT,
                                           .sessions = g->opt.slots },
                           err);
}

static inline ds4_engine *open_words(void *user, ds4_err *err)
{
    (void)user;
    return ds4_engine_open(&(ds4_options){ .model = MODEL, .device = "null", .context = 256 }, err);
}

static inline void on_log(void *user, const char *line)
{
    Stage *g = user;
    pthread_mutex_lock(&g->mutex);
    bytes_printf(&g->log, "%s\n", line);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static inline void on_fetched(void *user)
{
    Stage *g = user;
    scheduler_wake(g->s);
}

static inline bool on_ready(void *user, ds4_engine *e, const ds4_vocab *v, const TokenTrie *trie,
                            Store **store, ds4_err *err)
{
    Stage *g = user;
    StoreModel m = { .rounded = true,
                     .unit_bytes = ds4_rows_bytes(e, 0, STORE_UNIT),
                     .mark_bytes = ds4_mark_bytes(e, STORE_UNIT) };
    (void)trie;
    if (!g->opt.no_store) {
        g->store = store_open(&(StoreOptions){ .dir = g->opt.dir,
                                               .ram_bytes = g->opt.ram ? g->opt.ram : 256 << 20,
                                               .log = on_log,
                                               .ready = on_fetched,
                                               .user = g },
                              err);
        if (!g->store || !ds4_engine_fingerprint(e, m.fingerprint, err))
            return false;
        store_bind(g->store, &m);
    }
    *store = g->store;
    pthread_mutex_lock(&g->mutex);
    g->vocab = v;
    g->ready = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
    return true;
}

static inline void on_ended(void *user, bool failed, const ds4_err *err)
{
    Stage *g = user;
    pthread_mutex_lock(&g->mutex);
    g->ended = true;
    g->failed = failed;
    if (failed)
        bytes_printf(&g->log, "%s\n", err->msg);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static inline Stage *stage(StageOptions opt)
{
    ds4_err err = { 0 };
    Stage *g = calloc(1, sizeof *g);
    g->opt = opt;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->recall = recall_new(0, 0, &err);
    g->metrics = metrics_new(&(MetricsBuild){ .version = "1" }, &err);
    g->s = scheduler_start(&(SchedulerOptions){ .open = open_engine,
                                                .open_words = opt.idle_s ? open_words : NULL,
                                                .ready = on_ready,
                                                .ended = on_ended,
                                                .log = on_log,
                                                .user = g,
                                                .recall = g->recall,
                                                .metrics = g->metrics,
                                                .max_queue = 64,
                                                .idle_unload_s = opt.idle_s },
                           &err);
    assert_non_null(g->s);
    pthread_mutex_lock(&g->mutex);
    while (!g->ready && !g->ended)
        pthread_cond_wait(&g->changed, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
    if (g->ended)
        fail_msg("%.*s", (int)g->log.n, g->log.p);
    return g;
}

static inline void end(Stage *g)
{
    scheduler_finish(g->s, clock_ns() + 5000000000);
    pthread_mutex_lock(&g->mutex);
    while (!g->ended)
        pthread_cond_wait(&g->changed, &g->mutex);
    assert_false(g->failed);
    pthread_mutex_unlock(&g->mutex);
    scheduler_free(g->s);
    store_close(g->store, clock_ns() + 5000000000);
    recall_free(g->recall);
    metrics_free(g->metrics);
    bytes_release(&g->log);
    free(g);
}

static inline bool logged(Stage *g, const char *text)
{
    pthread_mutex_lock(&g->mutex);
    bytes_byte(&g->log, 0);
    bool found = strstr(g->log.p, text) != NULL;
    g->log.n--;
    pthread_mutex_unlock(&g->mutex);
    return found;
}

static inline double metric(Stage *g, const char *line)
{
    Bytes b = { 0 };
    metrics_write(g->metrics, &b);
    bytes_byte(&b, 0);
    const char *at = b.p;
    while ((at = strstr(at, line)) != NULL && at[-1] != '\n')
        at++;
    double value = at ? strtod(at + strlen(line), NULL) : -1;
    bytes_release(&b);
    return value;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static inline void on_wake(void *user, Job *j)
{
    (void)j;
    changed(user);
}

/* Text of a seed without a pattern; `at` the place in it. */
static inline int32_t word(int seed, int at)
{
    uint32_t x = (uint32_t)at * 2654435761u + (uint32_t)seed * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    return 300 + (int32_t)((x >> 13) % 3000);
}

static inline Job *job(Stage *g, const char *session, int seed, int n)
{
    Job *j = job_new(&dialect_completions, API_COMPLETIONS);
    assert_non_null(j);
    static int id;
    snprintf(j->turn.request_id, sizeof j->turn.request_id, "req_%d", ++id);
    j->wake = on_wake;
    j->user = g;
    j->turn.session = str_of(session);
    j->turn.raw = true;
    j->turn.temperature = 0;
    j->turn.max_tokens = ANSWER;
    j->prepared_ns = clock_ns();
    for (int i = 0; i < n; i++)
        tokens_put(&j->prompt, word(seed, i));
    return j;
}

static inline void submit(Stage *g, Job *j)
{
    ApiError e = { 0 };
    if (!scheduler_submit(g->s, j, &e))
        fail_msg("%s", e.message);
}

typedef struct {
    Bytes text;
    Usage usage;
    int error; /* its status */
} Told;

static inline void until_it_answers(const Job *j)
{
    while (!atomic_load(&j->generated))
        usleep(1000);
}

/* Waits for its end. The job is dropped. */
static inline Told answer_of(Stage *g, Job *j)
{
    Told a = { 0 };
    for (bool over = false; !over;) {
        EventNode *n;
        pthread_mutex_lock(&g->mutex);
        /* Whoever woke us for an event that was taken before is to wake us for the next, too. */
        while (atomic_store(&j->woken, false), !(n = events_take(&j->events)))
            pthread_cond_wait(&g->changed, &g->mutex);
        pthread_mutex_unlock(&g->mutex);
        if (n->event.kind == EV_TEXT)
            bytes_put(&a.text, n->event.bytes.p, n->event.bytes.n);
        over = n->event.kind == EV_FINISH || n->event.kind == EV_ERROR;
        if (n->event.kind == EV_FINISH)
            a.usage = n->event.usage;
        if (n->event.kind == EV_ERROR) {
            a.error = n->event.error->status;
            print_message("%s\n", n->event.error->message);
        }
        event_node_free(n);
    }
    job_drop(j);
    return a;
}

static inline Told ask(Stage *g, const char *session, int seed, int n)
{
    Job *j = job(g, session, seed, n);
    submit(g, j);
    return answer_of(g, j);
}

/* A device of that speed that says "word" 400 times. */
static inline void write_play(char path[32], char device[48])
{
    strcpy(path, "/tmp/ds4-play-XXXXXX");
    FILE *f = fdopen(mkstemp(path), "w");
    assert_non_null(f);
    fputs("{\"prefill_tps\":4000,\"decode_tps\":500,\"rules\":[{\"say\":\"", f);
    for (int i = 0; i < 400; i++)
        fputs("word ", f);
    fputs("\"}]}", f);
    fclose(f);
    snprintf(device, 48, "play:%s", path);
}

/* What a session says that has never seen anything else. */
static ds4_engine *alone;

static inline Bytes fresh_answer(const Tokens *prompt)
{
    ds4_err err = { 0 };
    Bytes text = { 0 };
    ds4_session *s = ds4_session_open(alone, &err);
    const Controls *k = vocab_controls(ds4_engine_vocab(alone));
    assert_true(ds4_session_feed(s, prompt->id, (int)prompt->n, &err));
    for (int i = 0; i < ANSWER; i++) {
        size_t len;
        int32_t t = ds4_sample(s, &(ds4_sampling){ 0 });
        if (t == k->eos || t == k->user || t == k->assistant)
            break; /* the server ends there, too */
        const char *p = ds4_token_bytes(ds4_engine_vocab(alone), t, &len);
        bytes_put(&text, p, len);
        assert_true(ds4_session_feed(s, &t, 1, &err));
    }
    ds4_session_close(s);
    return text;
}

/* The same prompts come again and again. */
static struct {
    int seed, n;
    Bytes text;
} known[32];
static size_t n_known;

static inline Str fresh_text(int seed, int n)
{
    Tokens prompt = { 0 };
    for (size_t i = 0; i < n_known; i++)
        if (known[i].seed == seed && known[i].n == n)
            return bytes_view(&known[i].text);
    for (int i = 0; i < n; i++)
        tokens_put(&prompt, word(seed, i));
    assert_true(n_known < COUNT(known));
    known[n_known].seed = seed;
    known[n_known].n = n;
    known[n_known].text = fresh_answer(&prompt);
    tokens_release(&prompt);
    return bytes_view(&known[n_known++].text);
}

static inline void is_fresh(Told *a, int seed, int n)
{
    if (a->error)
        fail_msg("error %d", a->error);
    Str want = fresh_text(seed, n);
    if (!str_eq(want, bytes_view(&a->text)))
        fail_msg("'%.*s' instead of '%.*s'", (int)a->text.n, a->text.p, STR_ARG(want));
    bytes_release(&a->text);
}

static inline void told_free(Told *a) { bytes_release(&a->text); }

/* ---- a folder ---------------------------------------------------------------------------------- */

typedef struct {
    char path[40];
} Folder;

static inline Folder folder(void)
{
    Folder f;
    strcpy(f.path, "/tmp/ds4-kv-XXXXXX");
    assert_non_null(mkdtemp(f.path));
    return f;
}

static inline void remove_all(const char *path, bool itself)
{
    char name[1024];
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(name, sizeof name, "%s/%s", path, e->d_name) >= (int)sizeof name)
            continue;
        if (unlink(name) != 0)
            remove_all(name, true);
    }
    if (d)
        closedir(d);
    if (itself)
        rmdir(path);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static inline bool open_alone(void)
{
    ds4_err err = { 0 };
    alone = ds4_engine_open(
        &(ds4_options){ .model = MODEL, .device = "cpu", .threads = 1, .context = CONTEXT }, &err);
    if (!alone)
        print_message("%s\n", err.msg);
    return alone != NULL;
}

static inline void close_alone(void)
{
    for (size_t i = 0; i < n_known; i++)
        bytes_release(&known[i].text);
    ds4_engine_close(alone);
}

#endif
