/* A file that is not exactly what was written is seen, removed, counted and survived. */
#include "../store_toy.h"
#include "../../src/store/chunk.h"
#include "../../src/store/table.h"
#include "../../src/store/value.h"

enum { HEAD = 128, USE = 24 };
enum { ROWS_AT = HEAD + USE + STORE_CHUNK * 4 + 8, MARK_AT = ROWS_AT + 16 * TOY_UNIT + 8 };
enum { FILE_BYTES = MARK_AT + TOY_MARK + 8 };

static Store *open_dir(void) { return toy_open((StoreOptions){ .dir = toy_dir }, 1); }

/* Chunk i of the timeline as a path. */
static const char *file_of(int i)
{
    static char path[128];
    StoreItem *item;
    size_t n;
    Store *s = open_dir();
    assert_true(store_list(s, &item, &n));
    for (size_t k = 0; k < n; k++)
        if (item[k].first == i * STORE_CHUNK)
            snprintf(path, sizeof path, "%s/%s.kv", toy_dir, item[k].id);
    free(item);
    store_close(s, 0);
    return path;
}

static void save(int chunks)
{
    Store *s = open_dir();
    toy_save(s, toy_a, chunks * STORE_CHUNK);
    assert_int_equal(store_close(s, clock_ns() + (int64_t)20000000000), 0);
}

static Bytes read_file(const char *path)
{
    Bytes b = { 0 };
    assert_true(file_read(&b, path, 1 << 20, NULL));
    return b;
}

static void write_file(const char *path, const char *p, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static uint64_t all_bad(const StoreCounters *c)
{
    return c->bad_checksum + c->bad_header + c->bad_name + c->bad_size + c->bad_version;
}

/* ---- every byte ---------------------------------------------------------------------------- */

static void a_flipped_bit_anywhere_is_seen(void **state)
{
    (void)state;
    save(1);
    Bytes b = read_file(file_of(0));
    ChunkHead h;
    ds4_err err;
    assert_int_equal(b.n, FILE_BYTES);
    unsigned char *p = (unsigned char *)b.p;
    assert_int_equal(chunk_verify(p, b.n, &h, &err), CHUNK_OK);
    for (size_t at = 0; at < b.n; at++) {
        p[at] ^= (unsigned char)(1 << at % 8);
        assert_int_not_equal(chunk_verify(p, b.n, &h, &err), CHUNK_OK);
        p[at] ^= (unsigned char)(1 << at % 8);
    }
    for (size_t n = 0; n < b.n; n += 7)
        assert_int_not_equal(chunk_verify(p, n, &h, &err), CHUNK_OK);
    bytes_release(&b);
}

/* What a store does with chunk 1 of 3 in this state. */
static void is_survived(uint64_t (*reason)(const StoreCounters *))
{
    toy_said[0] = '\0';
    Store *s = open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK);
    toy_settle(s);
    StoreCounters c = toy_counters(s);
    assert_int_equal(all_bad(&c), 1);
    assert_int_equal(reason(&c), 1);
    assert_true(toy_heard("removed"));
    assert_int_equal(toy_files(toy_dir, ".kv"), 2);
    /* computed again, all of it is there: what goes on from it was kept */
    toy_put(s, toy_a, STORE_CHUNK, 2 * STORE_CHUNK);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), 3 * STORE_CHUNK);
    store_close(s, clock_ns() + (int64_t)20000000000);
    assert_int_equal(toy_files(toy_dir, ".kv"), 3);
}

static uint64_t header(const StoreCounters *c) { return c->bad_header; }
static uint64_t version(const StoreCounters *c) { return c->bad_version; }
static uint64_t size(const StoreCounters *c) { return c->bad_size; }
static uint64_t checksum(const StoreCounters *c) { return c->bad_checksum; }
static uint64_t name(const StoreCounters *c) { return c->bad_name; }

static void a_damaged_file_ends_the_chain_there_and_is_removed(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint64_t (*reason)(const StoreCounters *);
    } places[] = {
        { 0, header },
        { 8, version },
        { 20, header },
        { 60, header },
        { 90, header },
        { 125, header },
        { 152, checksum },
        { 8000, checksum },
        { ROWS_AT, checksum },
        { ROWS_AT + 9000, checksum },
        { MARK_AT - 1, checksum },
    };
    save(3);
    for (size_t i = 0; i < COUNT(places); i++) {
        const char *path = file_of(1);
        Bytes b = read_file(path);
        b.p[places[i].at] ^= 4;
        write_file(path, b.p, b.n);
        is_survived(places[i].reason);
        bytes_release(&b);
    }
}

static void a_truncated_file_ends_the_chain_there_and_is_removed(void **state)
{
    (void)state;
    static const size_t lengths[] = { 0, 1, 127, 151, 152, 5000, ROWS_AT, MARK_AT, FILE_BYTES - 1 };
    save(3);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        const char *path = file_of(1);
        Bytes b = read_file(path);
        write_file(path, b.p, lengths[i]);
        is_survived(size);
        bytes_release(&b);
    }
    const char *path = file_of(1);
    Bytes b = read_file(path);
    bytes_byte(&b, 0);
    write_file(path, b.p, b.n);
    is_survived(size);
    bytes_release(&b);
}

static void a_file_under_anothers_name_is_removed(void **state)
{
    (void)state;
    save(3);
    char path[128];
    snprintf(path, sizeof path, "%s", file_of(1));
    Bytes b = read_file(file_of(2));
    write_file(path, b.p, b.n);
    bytes_release(&b);
    is_survived(name);
}

/* Sections of another chunk have right checksums of their own. */
static void a_section_of_another_chunk_is_seen(void **state)
{
    (void)state;
    save(3);
    char path[128];
    snprintf(path, sizeof path, "%s", file_of(1));
    Bytes b = read_file(path), other = read_file(file_of(2));
    memcpy(b.p + ROWS_AT, other.p + ROWS_AT, MARK_AT - ROWS_AT);
    write_file(path, b.p, b.n);
    bytes_release(&b);
    bytes_release(&other);
    is_survived(checksum);
}

/* As if two prompts had one name. */
static void other_tokens_under_the_same_name_are_seen(void **state)
{
    (void)state;
    save(3);
    char path[128];
    uint64_t seed, sum;
    snprintf(path, sizeof path, "%s", file_of(1));
    Bytes b = read_file(path);
    memcpy(&seed, b.p + 48, 8);
    b.p[HEAD + USE + 400]++;
    sum = XXH3_64bits_withSeed(b.p + HEAD + USE, STORE_CHUNK * 4, seed);
    memcpy(b.p + ROWS_AT - 8, &sum, 8);
    write_file(path, b.p, b.n);
    bytes_release(&b);
    is_survived(name);
}

/* Only the last chunk's mark is read, so a damaged one further up waits to be seen. */
static void a_damaged_mark_takes_the_end_one_chunk_back(void **state)
{
    (void)state;
    save(3);
    const char *path = file_of(2);
    Bytes b = read_file(path);
    b.p[MARK_AT + 3] ^= 1;
    write_file(path, b.p, b.n);
    Store *s = open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 2 * STORE_CHUNK), 2 * STORE_CHUNK);
    assert_int_equal(toy_counters(s).bad_checksum, 1);
    store_close(s, 0);
    bytes_release(&b);
}

static void a_damaged_use_record_is_a_first_use(void **state)
{
    (void)state;
    save(1);
    const char *path = file_of(0);
    Bytes b = read_file(path);
    memset(b.p + HEAD, 0xff, USE);
    write_file(path, b.p, b.n);
    bytes_release(&b);
    Store *s = open_dir();
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK);
    store_close(s, 0);
    b = read_file(path); /* and is written anew */
    ChunkHead h;
    assert_int_equal(chunk_verify((unsigned char *)b.p, b.n, &h, NULL), CHUNK_OK);
    bytes_release(&b);
}

static void a_file_that_somebody_removed_is_counted(void **state)
{
    (void)state;
    save(3);
    char path[128];
    snprintf(path, sizeof path, "%s", file_of(1));
    Store *s = open_dir();
    remove(path);
    assert_int_equal(toy_fetch(s, toy_a, TOY_MOST, 0), STORE_CHUNK);
    assert_int_equal(toy_counters(s).vanished, 1);
    assert_true(toy_heard("removed by somebody"));
    store_close(s, 0);
}

static void a_name_that_is_no_file_is_foreign(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/%040d.kv", toy_dir, 7);
    mkdir(path, 0700);
    Store *s = open_dir();
    assert_int_equal(toy_counters(s).foreign_files, 1);
    store_close(s, 0);
    assert_int_equal(toy_files(toy_dir, ".kv"), 1);
}

/* ---- places in the tree ------------------------------------------------------------------- */

static ChunkHead head_of(int self, int parent, int first)
{
    ChunkHead h = { .first = first, .n = STORE_CHUNK };
    h.name.sha[0] = (uint8_t)self;
    h.parent.sha[0] = (uint8_t)parent;
    return h;
}

static void a_tree_takes_no_circles(void **state)
{
    (void)state;
    Table t;
    assert_true(table_init(&t));
    ChunkHead h = head_of(1, 2, 4096);
    Entry *e = table_add(&t, &h);
    assert_non_null(e);
    h = head_of(2, 1, 2048); /* 2 is before 1, so 1 cannot be before 2 */
    assert_null(table_add(&t, &h));
    h = head_of(3, 3, 2048);
    assert_null(table_add(&t, &h));
    h = head_of(1, 4, 4096); /* a second parent */
    assert_null(table_add(&t, &h));
    assert_int_equal(t.n, 2);
    h = head_of(2, 0, 2048); /* only the first chunk has none before it */
    assert_null(table_add(&t, &h));
    table_forget(&t, e);
    assert_int_equal(t.n, 0);
    table_release(&t);
}

static void an_orphan_finds_its_parent_again(void **state)
{
    (void)state;
    Table t;
    int n = 0;
    assert_true(table_init(&t));
    ChunkHead h = head_of(2, 1, 2048);
    Entry *child = table_add(&t, &h);
    assert_ptr_equal(table_next(&t.root, table_next(&t.root, &t.root)), child);
    h = head_of(1, 0, 0);
    Entry *parent = table_add(&t, &h);
    assert_ptr_equal(child->parent, parent);
    assert_false(table_is_leaf(parent));
    assert_true(table_is_leaf(child));
    for (Entry *x = &t.root; x; x = table_next(&t.root, x))
        n += x->known;
    assert_int_equal(n, 2);
    table_forget(&t, parent); /* its name stays for the child's sake */
    assert_ptr_equal(child->parent, parent);
    assert_false(parent->known);
    table_forget(&t, child);
    assert_int_equal(t.n, 0);
    table_release(&t);
}

/* ---- value ------------------------------------------------------------------------------- */

static void use_is_halved_every_six_hours(void **state)
{
    (void)state;
    ChunkUse u = { 0 };
    value_touch(&u, 1000000);
    assert_float_equal(value_uses(&u, 1000000), 1, 1e-6);
    assert_float_equal(value_uses(&u, 1000000 + 6 * 3600), 0.5, 1e-6);
    assert_float_equal(value_uses(&u, 1000000 + 24 * 3600), 0.0625, 1e-6);
    value_touch(&u, 1000000 + 6 * 3600);
    assert_float_equal(u.weight, 1.5, 1e-6);
    value_touch(&u, 1000000 + 6 * 3600 + 30); /* the same use */
    assert_float_equal(u.weight, 1.5, 1e-6);
}

static void a_clock_that_went_back_makes_nothing_infinite(void **state)
{
    (void)state;
    ChunkUse u = { .used_s = 2000000000, .weight = 2 };
    assert_float_equal(value_uses(&u, 1000), 2, 1e-6);
    value_touch(&u, 1000);
    assert_int_equal(u.used_s, 1000);
    assert_float_equal(u.weight, 3, 1e-6);
}

static void later_tokens_and_fewer_bytes_are_worth_more(void **state)
{
    (void)state;
    ChunkUse u = { .used_s = 1000, .weight = 1 };
    ChunkHead early = { .n = 2048 }, late = { .first = 500 * 2048, .n = 2048 }, tail = { .n = 128 };
    assert_true(value_of(&late, &u, 100, 1000) > 2 * value_of(&early, &u, 100, 1000));
    assert_true(value_of(&early, &u, 50, 1000) > value_of(&early, &u, 100, 1000));
    /* a mark makes a short tail dear */
    assert_true(value_of(&tail, &u, 4500000, 1000) < value_of(&early, &u, 11200000, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_CASE(a_flipped_bit_anywhere_is_seen),
        TOY_CASE(a_damaged_file_ends_the_chain_there_and_is_removed),
        TOY_CASE(a_truncated_file_ends_the_chain_there_and_is_removed),
        TOY_CASE(a_file_under_anothers_name_is_removed),
        TOY_CASE(a_section_of_another_chunk_is_seen),
        TOY_CASE(other_tokens_under_the_same_name_are_seen),
        TOY_CASE(a_damaged_mark_takes_the_end_one_chunk_back),
        TOY_CASE(a_damaged_use_record_is_a_first_use),
        TOY_CASE(a_file_that_somebody_removed_is_counted),
        TOY_CASE(a_name_that_is_no_file_is_foreign),
        cmocka_unit_test(a_tree_takes_no_circles),
        cmocka_unit_test(an_orphan_finds_its_parent_again),
        cmocka_unit_test(use_is_halved_every_six_hours),
        cmocka_unit_test(a_clock_that_went_back_makes_nothing_infinite),
        cmocka_unit_test(later_tokens_and_fewer_bytes_are_worth_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
