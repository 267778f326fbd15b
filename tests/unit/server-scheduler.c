/* The engine's thread as a whole, with the bundled model: whatever rung a prompt's beginning
 * came from, the answer is that of a fresh engine; and nothing waits that need not. */
#include "../../src/server/scheduler.h"
#include "../../src/store/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define MODEL "models/ds4-tiny.gguf"
enum { CONTEXT = 8192, ANSWER = 8 };

/* ---- a server without a network ---------------------------------------------------------- */

typedef struct {
    int slots, idle_s;
    const char *dir; /* NULL: memory only */
    bool no_store;
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

static void changed(Stage *g)
{
    pthread_mutex_lock(&g->mutex);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static ds4_engine *open_engine(void *user, ds4_err *err)
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

static ds4_engine *open_words(void *user, ds4_err *err)
{
    (void)user;
    return ds4_engine_open(&(ds4_options){ .model = MODEL, .device = "null", .context = 256 }, err);
}

static void on_log(void *user, const char *line)
{
    Stage *g = user;
    pthread_mutex_lock(&g->mutex);
    bytes_printf(&g->log, "%s\n", line);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static void on_fetched(void *user)
{
    Stage *g = user;
    scheduler_wake(g->s);
}

static bool on_ready(void *user, ds4_engine *e, const ds4_vocab *v, const TokenTrie *trie,
                     Store **store, ds4_err *err)
{
    Stage *g = user;
    StoreModel m = { .rounded = true,
                     .unit_bytes = ds4_rows_bytes(e, 0, STORE_UNIT),
                     .mark_bytes = ds4_mark_bytes(e, STORE_UNIT) };
    (void)trie;
    if (!g->opt.no_store) {
        g->store = store_open(&(StoreOptions){ .dir = g->opt.dir,
                                               .ram_bytes = 256 << 20,
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

static void on_ended(void *user, bool failed, const ds4_err *err)
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

static Stage *stage(StageOptions opt)
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

static void end(Stage *g)
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

static bool logged(Stage *g, const char *text)
{
    pthread_mutex_lock(&g->mutex);
    bytes_byte(&g->log, 0);
    bool found = strstr(g->log.p, text) != NULL;
    g->log.n--;
    pthread_mutex_unlock(&g->mutex);
    return found;
}

static double metric(Stage *g, const char *line)
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

static void on_wake(void *user, Job *j)
{
    (void)j;
    changed(user);
}

/* Text of a seed without a pattern; `at` the place in it. */
static int32_t word(int seed, int at)
{
    uint32_t x = (uint32_t)at * 2654435761u + (uint32_t)seed * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    return 300 + (int32_t)((x >> 13) % 3000);
}

static Job *job(Stage *g, const char *session, int seed, int n)
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

static void submit(Stage *g, Job *j)
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

/* Waits for its end. The job is dropped. */
static Told answer_of(Stage *g, Job *j)
{
    Told a = { 0 };
    for (bool over = false; !over;) {
        EventNode *n;
        pthread_mutex_lock(&g->mutex);
        atomic_store(&j->woken, false);
        while (!(n = events_take(&j->events)))
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

static Told ask(Stage *g, const char *session, int seed, int n)
{
    Job *j = job(g, session, seed, n);
    submit(g, j);
    return answer_of(g, j);
}

/* What a session says that has never seen anything else. */
static ds4_engine *alone;

static Bytes fresh_answer(const Tokens *prompt)
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

static Str fresh_text(int seed, int n)
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

static void is_fresh(Told *a, int seed, int n)
{
    if (a->error)
        fail_msg("error %d", a->error);
    Str want = fresh_text(seed, n);
    if (!str_eq(want, bytes_view(&a->text)))
        fail_msg("'%.*s' instead of '%.*s'", (int)a->text.n, a->text.p, STR_ARG(want));
    bytes_release(&a->text);
}

static void told_free(Told *a) { bytes_release(&a->text); }

/* ---- rungs ------------------------------------------------------------------------------------- */

static void every_rung_gives_what_a_fresh_engine_says(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Told a = ask(g, "a", 1, 690);
    assert_int_equal(a.usage.cached, 0);
    is_fresh(&a, 1, 690);
    /* rewind: the same prompt without its end */
    a = ask(g, "a", 1, 660);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 660);
    assert_true(metric(g, "ds4x_prompts_total{source=\"rewind\"} ") == 1);
    /* fork: another conversation with the same beginning */
    a = ask(g, "b", 1, 650);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 650);
    assert_true(metric(g, "ds4x_prompts_total{source=\"fork\"} ") == 1);
    end(g);
    /* memory: it has to go, and comes back */
    g = stage((StageOptions){ .slots = 1 });
    a = ask(g, "a", 1, 690);
    told_free(&a);
    a = ask(g, "c", 50, 200);
    told_free(&a);
    a = ask(g, "a", 1, 692);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 692);
    assert_true(metric(g, "ds4x_prompts_total{source=\"ram\"} ") == 1);
    assert_true(metric(g, "ds4x_kv_restored_bytes_total ") > 0);
    assert_true(logged(g, "of another conversation left the slot"));
    end(g);
}

/* It was answered, which the prompt does not say: from the mark before that. */
static void another_answer_to_the_same_is_read_from_its_last_mark(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Told a = ask(g, "a", 1, 500);
    told_free(&a);
    Job *next = job(g, "a", 1, 500);
    for (int i = 500; i < 530; i++)
        tokens_put(&next->prompt, word(1, i));
    submit(g, next);
    a = answer_of(g, next);
    assert_int_equal(a.usage.cached, 384);
    is_fresh(&a, 1, 530);
    end(g);
}

/* ---- the disk ------------------------------------------------------------------------------------ */

typedef struct {
    char path[40];
} Folder;

static Folder folder(void)
{
    Folder f;
    strcpy(f.path, "/tmp/ds4-kv-XXXXXX");
    assert_non_null(mkdtemp(f.path));
    return f;
}

static void remove_all(const char *path, bool itself)
{
    char name[512];
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (unlink(name) != 0)
            remove_all(name, true);
    }
    if (d)
        closedir(d);
    if (itself)
        rmdir(path);
}

static void a_restart_takes_up_what_was_saved(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Told a = ask(g, "a", 1, 2500);
    told_free(&a);
    a = ask(g, "b", 2, 690); /* short: kept only since all ends */
    told_free(&a);
    end(g);
    g = stage((StageOptions){ .slots = 2, .dir = f.path });
    a = ask(g, "a", 1, 2501);
    assert_int_equal(a.usage.cached, 2432);
    is_fresh(&a, 1, 2501);
    a = ask(g, "b", 2, 691);
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 2, 691);
    assert_true(metric(g, "ds4x_prompts_total{source=\"disk\"} ") == 2);
    end(g);
    remove_all(f.path, true);
}

static void flip_all(const char *path)
{
    char name[512];
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' || stat(name, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            flip_all(name);
            continue;
        }
        if (st.st_size < 20000)
            continue;
        int fd = open(name, O_RDWR);
        char c;
        assert_int_equal(pread(fd, &c, 1, st.st_size / 2), 1);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, st.st_size / 2), 1);
        close(fd);
    }
    closedir(d);
}

static void damaged_files_cost_time_and_nothing_else(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 1, .dir = f.path });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    end(g);
    flip_all(f.path);
    g = stage((StageOptions){ .slots = 1, .dir = f.path });
    a = ask(g, "a", 1, 691);
    assert_int_equal(a.usage.cached, 0);
    is_fresh(&a, 1, 691);
    assert_true(logged(g, "the store gave less than the 640 tokens that it had"));
    assert_true(metric(g, "ds4x_cache_miss_total{reason=\"store_failed\"} ") == 1);
    end(g);
    remove_all(f.path, true);
}

/* ---- side requests ---------------------------------------------------------------------------------- */

static Job *title(Stage *g, const char *session, int seed, int n, ChatMessage m[2])
{
    Job *j = job(g, session, seed, n);
    m[0] = (ChatMessage){ .role = CHAT_SYSTEM, .content = STR("You write a title.") };
    m[1] = (ChatMessage){ .role = CHAT_USER };
    j->turn.raw = false;
    j->turn.messages = m;
    j->turn.n_messages = 2;
    return j;
}

/* Even with one slot: what had to go comes back from the store. */
static void side_requests_cost_the_conversation_nothing(void **state)
{
    (void)state;
    for (int slots = 1; slots <= 2; slots++) {
        Stage *g = stage((StageOptions){ .slots = slots });
        Told a = ask(g, "a", 1, 690);
        told_free(&a);
        for (int i = 0; i < 4; i++) {
            ChatMessage m[2];
            Job *j = title(g, "a", 60 + i, 200, m);
            submit(g, j);
            a = answer_of(g, j);
            assert_int_equal(a.error, 0);
            told_free(&a);
        }
        assert_true(metric(g, "ds4x_side_requests_total ") == 4);
        a = ask(g, "a", 1, 692);
        assert_int_equal(a.usage.cached, 640);
        is_fresh(&a, 1, 692);
        end(g);
    }
}

/* ---- company --------------------------------------------------------------------------------------- */

/* Eight conversations in three slots, three rounds, all at one time. */
static void many_conversations_share_few_slots(void **state)
{
    (void)state;
    enum { MANY = 8, ROUNDS = 3, FIRST = 200, MORE = 140 };
    char name[MANY][8];
    Stage *g = stage((StageOptions){ .slots = 3 });
    for (int r = 0; r < ROUNDS; r++) {
        Job *j[MANY];
        for (int i = 0; i < MANY; i++) {
            snprintf(name[i], sizeof name[i], "s%d", i);
            j[i] = job(g, name[i], i, FIRST + r * MORE);
            submit(g, j[i]);
        }
        for (int i = 0; i < MANY; i++) {
            Told a = answer_of(g, j[i]);
            if (r)
                assert_true(a.usage.cached >= FIRST + (r - 1) * MORE - 128 - ANSWER);
            if (i % 3 == r)
                is_fresh(&a, i, FIRST + r * MORE);
            else
                told_free(&a);
        }
    }
    end(g);
}

static void a_job_can_be_canceled_at_any_moment_of_its_entering(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 1, .dir = f.path });
    Told a = ask(g, "a", 1, 2300);
    told_free(&a);
    end(g);
    for (int us = 0; us < 12000; us += 2000) {
        g = stage((StageOptions){ .slots = 1, .dir = f.path });
        Job *j = job(g, "a", 1, 2300);
        submit(g, j);
        usleep((useconds_t)us);
        job_cancel(j, "canceled");
        scheduler_cancel(g->s, j);
        job_drop(j);
        a = ask(g, "a", 1, 2310);
        assert_true(a.usage.cached >= 2048);
        if (us == 4000)
            is_fresh(&a, 1, 2310);
        else
            told_free(&a);
        end(g);
    }
    remove_all(f.path, true);
}

/* What helpers begin with is read once, and each of them says what it would alone. */
static void helpers_that_start_together_read_their_beginning_once(void **state)
{
    (void)state;
    enum { HELPERS = 3, SHARED = 900, OWN = 40 };
    char name[HELPERS][8];
    Job *j[HELPERS];
    Stage *g = stage((StageOptions){ .slots = HELPERS });
    for (int i = 0; i < HELPERS; i++) {
        snprintf(name[i], sizeof name[i], "s%d", i);
        j[i] = job(g, name[i], 1, SHARED);
        for (int k = 0; k < OWN; k++)
            tokens_put(&j[i]->prompt, word(90 + i, k));
        job_hold(j[i]);
    }
    for (int i = 0; i < HELPERS; i++)
        submit(g, j[i]);
    for (int i = 0; i < HELPERS; i++) {
        Told a = answer_of(g, j[i]);
        Bytes want = fresh_answer(&j[i]->prompt);
        assert_true(str_eq(bytes_view(&want), bytes_view(&a.text)));
        assert_int_equal(a.usage.cached, i ? SHARED - SHARED % 128 : 0);
        bytes_release(&want);
        told_free(&a);
        job_drop(j[i]);
    }
    assert_int_equal((int)metric(g, "ds4x_prefill_tokens_total "),
                     SHARED + HELPERS * OWN + (HELPERS - 1) * (SHARED % 128));
    end(g);
}

static void helpers_do_not_wait_for_one_that_is_canceled(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Job *first = job(g, "a", 1, 1600), *second = job(g, "b", 1, 1200);
    submit(g, first);
    submit(g, second);
    usleep(100000);
    job_cancel(first, "canceled");
    scheduler_cancel(g->s, first);
    job_drop(first);
    Told a = answer_of(g, second);
    is_fresh(&a, 1, 1200);
    end(g);
}

/* One is restored while another writes its answer: both are what they would be alone. */
static void a_state_is_restored_while_others_decode(void **state)
{
    (void)state;
    Folder f = folder();
    Stage *g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Told a = ask(g, "a", 1, 2500);
    told_free(&a);
    end(g);
    g = stage((StageOptions){ .slots = 2, .dir = f.path });
    Job *writes = job(g, "b", 5, 60), *comes = job(g, "a", 1, 2501);
    submit(g, writes);
    usleep(10000);
    submit(g, comes);
    a = answer_of(g, comes);
    assert_int_equal(a.usage.cached, 2432);
    is_fresh(&a, 1, 2501);
    a = answer_of(g, writes);
    is_fresh(&a, 5, 60);
    end(g);
    remove_all(f.path, true);
}

/* ---- fairness ---------------------------------------------------------------------------------------- */

static void write_play(char path[32], char device[48])
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

/* Who decodes waits for a tenth of a second at most while a long prompt is read (here for
 * five, since the machine may be busy), and a short prompt does not wait for the long one. */
static void a_long_prompt_keeps_nobody_from_the_next_token(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 3, .device = device, .context = 20000 });
    Job *writes = job(g, "a", 1, 100), *reads = job(g, "b", 2, 16000), *comes = job(g, "c", 3, 200);
    writes->turn.max_tokens = 300;
    submit(g, writes);
    while (atomic_load(&writes->generated) < 5)
        usleep(1000);
    submit(g, reads);
    submit(g, comes);
    int64_t longest = 0, last = clock_ns(), start = last;
    int seen = 0;
    while (seen < 100) {
        int now = atomic_load(&writes->generated);
        if (now != seen) {
            longest = MAX(longest, clock_ns() - last);
            last = clock_ns();
            seen = now;
        }
        usleep(500);
        if (clock_ns() - start > (int64_t)30000000000)
            fail_msg("%d tokens in half a minute", now);
    }
    assert_true(longest < 500000000);
    job_hold(comes);
    job_hold(reads);
    Job *all[] = { comes, writes, reads };
    for (size_t i = 0; i < COUNT(all); i++) {
        Told a = answer_of(g, all[i]);
        told_free(&a);
    }
    assert_true(comes->first_ns < reads->first_ns);
    job_drop(comes);
    job_drop(reads);
    end(g);
    unlink(path);
}

/* In one slot, behind a job that runs: the long one was first, the short one goes before it. */
static void a_short_job_overtakes_a_long_one_once(void **state)
{
    (void)state;
    char path[32], device[48];
    write_play(path, device);
    Stage *g = stage((StageOptions){ .slots = 1, .device = device, .context = 20000 });
    Job *runs = job(g, "a", 1, 100), *later = job(g, "b", 2, 9000), *one = job(g, "c", 3, 200),
        *two = job(g, "d", 4, 200);
    submit(g, runs);
    while (!atomic_load(&runs->generated))
        usleep(1000);
    submit(g, later);
    submit(g, one);
    submit(g, two);
    Told a = answer_of(g, runs);
    told_free(&a);
    a = answer_of(g, one);
    told_free(&a);
    assert_true(atomic_load(&later->stage) != STAGE_OVER);
    a = answer_of(g, later);
    told_free(&a);
    assert_true(atomic_load(&two->stage) != STAGE_OVER);
    a = answer_of(g, two);
    told_free(&a);
    end(g);
    unlink(path);
}

/* ---- unheard jobs ------------------------------------------------------------------------------------ */

static void a_job_nobody_hears_ends_when_its_slot_is_wanted(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Job *j = job(g, "a", 1, 6000);
    submit(g, j);
    job_abandon(j, "client", (int64_t)60000000000);
    Told a = ask(g, "b", 2, 50);
    assert_int_equal(a.error, 0);
    told_free(&a);
    assert_string_equal(job_canceled(j), "client");
    assert_false(job_adopt(j));
    job_drop(j);
    end(g);
}

static void a_job_is_heard_again(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1 });
    Job *j = job(g, "a", 1, 600);
    submit(g, j);
    job_abandon(j, "client", (int64_t)60000000000);
    usleep(20000);
    assert_true(job_adopt(j));
    Told a = answer_of(g, j);
    is_fresh(&a, 1, 600);
    end(g);
}

/* ---- prompts only -------------------------------------------------------------------------------------- */

static void a_prompt_can_be_read_ahead(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2 });
    Job *j = job(g, "", 1, 690);
    j->prompt_only = true;
    submit(g, j);
    Told a = answer_of(g, j);
    assert_int_equal(a.usage.prompt, 690);
    assert_int_equal(a.usage.completion, 0);
    assert_int_equal(a.text.n, 0);
    a = ask(g, "a", 1, 700);
    assert_int_equal(a.usage.cached, 690);
    is_fresh(&a, 1, 700);
    end(g);
}

/* ---- unloading --------------------------------------------------------------------------------------------- */

static void wait_until_unloaded(Stage *g)
{
    for (int i = 0; i < 100 && !scheduler_is_unloaded(g->s); i++)
        usleep(100000);
    assert_true(scheduler_is_unloaded(g->s));
}

static void an_idle_engine_goes_and_comes_back(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 2, .idle_s = 1 });
    Told a = ask(g, "a", 1, 690);
    told_free(&a);
    wait_until_unloaded(g);
    Bytes status = { 0 };
    scheduler_status(g->s, &status);
    bytes_byte(&status, 0);
    assert_non_null(strstr(status.p, "\"unloaded\":true"));
    bytes_release(&status);
    assert_int_equal(ds4_encode(g->vocab, "hello", 5, false, NULL, 0) > 0, true);
    a = ask(g, "a", 1, 691);
    assert_false(scheduler_is_unloaded(g->s));
    assert_int_equal(a.usage.cached, 640);
    is_fresh(&a, 1, 691);
    assert_int_equal(g->opened, 2);
    assert_true(metric(g, "ds4x_unloads_total ") == 1);
    end(g);
}

static void an_engine_that_cannot_come_back_is_asked_for_again(void **state)
{
    (void)state;
    Stage *g = stage((StageOptions){ .slots = 1, .idle_s = 1 });
    wait_until_unloaded(g);
    pthread_mutex_lock(&g->mutex);
    g->no_engine = true;
    pthread_mutex_unlock(&g->mutex);
    Told a = ask(g, "a", 1, 100);
    assert_int_equal(a.error, 503);
    assert_true(logged(g, "no room for it"));
    pthread_mutex_lock(&g->mutex);
    g->no_engine = false;
    pthread_mutex_unlock(&g->mutex);
    a = ask(g, "a", 1, 100);
    is_fresh(&a, 1, 100);
    end(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rung_gives_what_a_fresh_engine_says),
        cmocka_unit_test(another_answer_to_the_same_is_read_from_its_last_mark),
        cmocka_unit_test(a_restart_takes_up_what_was_saved),
        cmocka_unit_test(damaged_files_cost_time_and_nothing_else),
        cmocka_unit_test(side_requests_cost_the_conversation_nothing),
        cmocka_unit_test(many_conversations_share_few_slots),
        cmocka_unit_test(a_job_can_be_canceled_at_any_moment_of_its_entering),
        cmocka_unit_test(helpers_that_start_together_read_their_beginning_once),
        cmocka_unit_test(helpers_do_not_wait_for_one_that_is_canceled),
        cmocka_unit_test(a_state_is_restored_while_others_decode),
        cmocka_unit_test(a_long_prompt_keeps_nobody_from_the_next_token),
        cmocka_unit_test(a_short_job_overtakes_a_long_one_once),
        cmocka_unit_test(a_job_nobody_hears_ends_when_its_slot_is_wanted),
        cmocka_unit_test(a_job_is_heard_again),
        cmocka_unit_test(a_prompt_can_be_read_ahead),
        cmocka_unit_test(an_idle_engine_goes_and_comes_back),
        cmocka_unit_test(an_engine_that_cannot_come_back_is_asked_for_again),
    };
    ds4_err err = { 0 };
    alone = ds4_engine_open(
        &(ds4_options){ .model = MODEL, .device = "cpu", .threads = 1, .context = CONTEXT }, &err);
    if (!alone) {
        print_message("%s\n", err.msg);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < n_known; i++)
        bytes_release(&known[i].text);
    ds4_engine_close(alone);
    return failed;
}
