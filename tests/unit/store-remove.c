/* What is removed is gone at once, whatever is being done with it. */
#include "../store_toy.h"

static void removing_a_chunk_takes_what_goes_on_from_it(void **state)
{
    (void)state;
    StoreItem *item;
    size_t n, gone;
    uint64_t bytes;
    ds4_err err;
    StoreFound f;
    Store *s = toy_open_dir();
    toy_save(s, toy_a, 5 * STORE_CHUNK + 256);
    toy_settle(s);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 6);
    assert_false(store_remove(s, "", &gone, &bytes, &err));
    assert_false(store_remove(s, "zz", &gone, &bytes, &err));
    assert_true(store_remove(s, item[2].id, &gone, &bytes, &err));
    assert_int_equal(gone, 4);
    toy_settle(s);
    assert_int_equal(toy_files(toy_dir, ".kv"), 2);
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 2 * STORE_CHUNK);
    /* also while somebody reads it */
    StoreFetch *fetch = store_fetch(s, &f, 0);
    assert_true(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(gone, 2);
    StorePiece p;
    while (store_next(fetch, &p) != STORE_END)
        usleep(100);
    store_fetch_close(fetch);
    store_unpin(s, &f);
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 0);
    free(item);
    toy_settle(s);
    assert_int_equal(toy_files(toy_dir, ".kv"), 0);
    assert_int_equal(toy_counters(s).ram_bytes, 0);
    toy_close(s);
}

/* The log, called while a chunk is being written, waits until it is let go. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool here, go;
} Gate;

static void wait_at_gate(void *user, const char *line)
{
    Gate *g = user;
    if (!strstr(line, "not written"))
        return;
    pthread_mutex_lock(&g->lock);
    g->here = true;
    pthread_cond_broadcast(&g->changed);
    while (!g->go)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void wait_until_here(Gate *g)
{
    pthread_mutex_lock(&g->lock);
    while (!g->here)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void let_go(Gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->go = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* With a first chunk that is being written, and cannot be, which is told meanwhile. */
static Store *open_at_gate(Gate *g)
{
    StoreOptions opt = { .dir = toy_dir, .ram_bytes = 1 << 20, .log = wait_at_gate, .user = g };
    StoreModel m = toy_model(1);
    ds4_err err = { 0 };
    Store *s = store_open(&opt, &err);
    assert_non_null(s);
    store_bind(s, &m);
    toy_remove_dir(toy_dir);
    assert_true(toy_put(s, toy_a, 0, STORE_CHUNK));
    wait_until_here(g);
    return s;
}

static size_t listed(Store *s)
{
    StoreItem *item;
    size_t n;
    assert_true(store_list(s, &item, &n));
    free(item);
    return n;
}

static void a_chunk_removed_while_it_is_written_is_gone_at_once(void **state)
{
    (void)state;
    Gate gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    StoreItem *item;
    StoreFound f;
    size_t n, gone;
    uint64_t bytes;
    ds4_err err;
    Store *s = open_at_gate(&gate);
    assert_true(store_list(s, &item, &n));
    assert_int_equal(n, 1);
    assert_true(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(gone, 1);
    assert_int_equal(listed(s), 0);
    assert_false(store_remove(s, item[0].id, &gone, &bytes, &err));
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), 0);
    assert_false(store_has(s, toy_a, STORE_CHUNK));
    /* one that is put now would go with it: so it is not taken for kept */
    assert_false(toy_put(s, toy_a, 0, STORE_CHUNK));
    let_go(&gate);
    toy_settle(s);
    assert_int_equal(toy_counters(s).ram_bytes, 0);
    assert_true(toy_put(s, toy_a, 0, STORE_CHUNK));
    assert_int_equal(listed(s), 1);
    free(item);
    toy_close(s);
}

/* Whoever lets go of it meanwhile: who had found it, and what went on from it. */
static void a_chunk_removed_while_it_is_written_stays_the_writers(void **state)
{
    (void)state;
    Gate gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    StoreItem *item;
    StoreFound f;
    size_t n, gone;
    uint64_t bytes;
    Store *s = open_at_gate(&gate);
    assert_int_equal(store_find(s, toy_a, TOY_MOST, &f), STORE_CHUNK);
    for (int round = 0; round < 2; round++) {
        assert_true(store_list(s, &item, &n) && n == 1);
        assert_true(store_remove(s, item[0].id, &gone, &bytes, NULL));
        assert_int_equal(gone, 1);
        free(item);
        store_unpin(s, &f);
        if (!round) /* goes on from nothing that is known */
            assert_true(toy_put(s, toy_a, STORE_CHUNK, 2 * STORE_CHUNK));
    }
    assert_int_equal(listed(s), 0);
    let_go(&gate);
    toy_settle(s);
    assert_int_equal(toy_counters(s).ram_bytes, 0);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 0);
    toy_close(s);
}

static void what_is_removed_at_any_moment_of_its_writing_leaves_nothing(void **state)
{
    (void)state;
    Store *s = toy_open_dir();
    for (int round = 0; round < 150; round++) {
        StoreItem *item;
        size_t n, gone;
        uint64_t bytes;
        ds4_err err;
        toy_save(s, toy_a, 2 * STORE_CHUNK + 128 * (round % 5));
        usleep((unsigned)(round * 7));
        assert_true(store_list(s, &item, &n));
        for (size_t i = 0; i < n; i++)
            if (item[i].first == 0)
                assert_true(store_remove(s, item[i].id, &gone, &bytes, &err));
        assert_int_equal(gone, n);
        assert_int_equal(listed(s), 0);
        free(item);
        toy_settle(s);
        assert_int_equal(toy_files(toy_dir, ".kv"), 0);
        assert_int_equal(toy_counters(s).ram_bytes + toy_counters(s).disk_bytes, 0);
    }
    toy_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(removing_a_chunk_takes_what_goes_on_from_it),
        TOY_CASE(a_chunk_removed_while_it_is_written_is_gone_at_once),
        TOY_CASE(a_chunk_removed_while_it_is_written_stays_the_writers),
        TOY_CASE(what_is_removed_at_any_moment_of_its_writing_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
