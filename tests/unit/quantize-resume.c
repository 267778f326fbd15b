/* Conversions that are cancelled, killed and taken up again give the file that one attempt gives. */
#include "../checkpoint.h"
#include "../../src/quantize/part.h"
#include <errno.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Asked after each batch of rows: what to do at which. */
static int batch, stop_at, kill_at;
static Bytes notes;

static bool ask(void)
{
    batch++;
    if (batch == kill_at)
        raise(SIGKILL);
    return batch == stop_at;
}

static void keep_note(void *user, const char *line)
{
    (void)user;
    bytes_printf(&notes, "%s\n", line);
}

static ConvertOptions options(const Made *m, const char *recipe)
{
    batch = stop_at = kill_at = 0;
    bytes_clear(&notes);
    return (ConvertOptions){
        .in = m->dir, .recipe = recipe, .threads = 2, .mark_ms = 1, .note = keep_note, .stop = ask
    };
}

static bool run(const ConvertOptions *opt, const char *out, ds4_err *err)
{
    Convert c;
    bool ok = convert_open(&c, opt, err);
    if (ok) {
        ok = convert_write(&c, out, err);
        convert_close(&c);
    }
    bytes_byte(&notes, 0);
    return ok;
}

static void must(bool ok, const ds4_err *err)
{
    if (!ok)
        fail_msg("%s", err->msg);
}

static void same_files(const char *a, const char *b)
{
    Map x, y;
    ds4_err err = { 0 };
    must(map_open(&x, a, &err) && map_open(&y, b, &err), &err);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.p, y.p, x.n);
    map_close(&x);
    map_close(&y);
}

static bool is_there(const Made *m, const char *name)
{
    return access(path_in(m, name), F_OK) == 0;
}

/* The embedding alone is two batches, so that rows of a tensor are taken up, too. */
static void begin(Made *m)
{
    ds4_err err = { 0 };
    make(m, (Slip){ .vocab = 9000 });
    ConvertOptions opt = options(m, "f32");
    opt.stop = NULL;
    must(run(&opt, path_in(m, "whole.gguf"), &err), &err);
}

static void killed_at_any_time_it_goes_on_to_the_same_file(void **state)
{
    (void)state;
    static const int when[] = { 1, 2, 3, 9, 40, 90 };
    Made m;
    ds4_err err = { 0 };
    begin(&m);
    for (size_t i = 0; i < COUNT(when); i++) {
        ConvertOptions opt = options(&m, "f32");
        int status;
        pid_t child = fork();
        if (child == 0) {
            kill_at = when[i];
            usleep(2000); /* marks are a millisecond apart */
            run(&opt, path_in(&m, "out.gguf"), &err);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_false(is_there(&m, "out.gguf"));
        assert_true(is_there(&m, "out.gguf.part"));
        if (when[i] > 3) { /* it was marked that the embedding is done */
            Bytes journal = { 0 };
            assert_true(file_read(&journal, path_in(&m, "out.gguf.part.journal"), 10000, &err));
            bytes_byte(&journal, 0);
            assert_non_null(strstr(journal.p, "\ndone "));
            bytes_release(&journal);
        }
        opt.threads = 1 + (int)i % 3;
        must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
        same_files(path_in(&m, "out.gguf"), path_in(&m, "whole.gguf"));
        assert_false(is_there(&m, "out.gguf.part") || is_there(&m, "out.gguf.part.journal"));
        unlink(path_in(&m, "out.gguf"));
    }
    unmake(&m);
}

static void canceled_at_any_batch_it_goes_on_there(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    begin(&m);
    for (int at = 1; at < 150; at += 17) {
        ConvertOptions opt = options(&m, "f32");
        stop_at = at;
        if (run(&opt, path_in(&m, "out.gguf"), &err)) {
            assert_true(at > 60); /* there are fewer batches */
            unlink(path_in(&m, "out.gguf"));
            continue;
        }
        assert_int_equal(err.code, DS4_ECANCELED);
        assert_non_null(strstr(notes.p, "out.gguf.part keeps"));
        stop_at = 0;
        must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
        same_files(path_in(&m, "out.gguf"), path_in(&m, "whole.gguf"));
        unlink(path_in(&m, "out.gguf"));
    }
    unmake(&m);
}

static uint64_t first_done, last_done;

static void keep_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    assert_string_equal(what, "converting");
    first_done = first_done ? first_done : done;
    last_done = done;
    assert_true(done <= total);
}

/* The time left follows from the rate, and what is there already is no speed. */
static void progress_begins_where_the_earlier_attempt_ended(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    struct stat st;
    begin(&m);
    ConvertOptions opt = options(&m, "f32");
    stop_at = 20;
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_int_equal(stat(path_in(&m, "out.gguf.part"), &st), 0);
    stop_at = 0;
    opt.progress = keep_progress;
    first_done = 0;
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    assert_true(first_done > (uint64_t)st.st_size / 2 && last_done > first_done);
    unmake(&m);
}

/* Cancelled after some batches. */
static void leave_part(const Made *m, const char *recipe, int at)
{
    ds4_err err;
    ConvertOptions opt = options(m, recipe);
    stop_at = at;
    assert_false(run(&opt, path_in(m, "out.gguf"), &err));
    assert_int_equal(err.code, DS4_ECANCELED);
}

static void append(const char *path, const char *text)
{
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Bytes that the journal does not vouch for are written again, those it does are not. */
static void only_the_journal_is_believed(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    begin(&m);
    leave_part(&m, "f32", 20);
    append(path_in(&m, "out.gguf.part"), "rubbish");
    append(path_in(&m, "out.gguf.part.journal"), "done 99999999"); /* without an end */
    ConvertOptions opt = options(&m, "f32");
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    same_files(path_in(&m, "out.gguf"), path_in(&m, "whole.gguf"));

    leave_part(&m, "f32", 20);
    FILE *f = fopen(path_in(&m, "out.gguf.part"), "r+b");
    assert_non_null(f);
    fseek(f, 1000000, SEEK_SET); /* in the embedding, which is done */
    fputs("changed", f);
    fclose(f);
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    Bytes b = { 0 };
    assert_true(file_read(&b, path_in(&m, "out.gguf"), 1 << 28, &err));
    assert_memory_equal(b.p + 1000000, "changed", 7);
    bytes_release(&b);

    leave_part(&m, "f32", 20);
    append(path_in(&m, "out.gguf.part.journal"), "done 99999999\n");
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_non_null(strstr(err.msg, "and its journal knows of 99999999: --restart"));
    unmake(&m);
}

static void other_work_is_not_gone_on_with(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    TypeRules rules = { 0 };
    begin(&m);
    assert_true(type_rules_add(&rules, "*attn_q_a*=f16", &err));
    ConvertOptions opt = options(&m, "f32"), other[4] = { opt, opt, opt, opt };
    other[0].recipe = "q8";
    other[1].name = "another";
    other[2].types = &rules;
    for (size_t i = 0; i < COUNT(other); i++) {
        leave_part(&m, "f32", 20);
        if (i == 3) { /* another input */
            append(path_in(&m, "part-1.safetensors"), "longer");
        }
        assert_false(run(&other[i], path_in(&m, "out.gguf"), &err));
        assert_non_null(strstr(err.msg, "was begun with other options, another input or another"));
        assert_true(is_there(&m, "out.gguf.part"));
    }
    other[0].restart = true;
    must(run(&other[0], path_in(&m, "out.gguf"), &err), &err);
    assert_false(is_there(&m, "out.gguf.part"));
    unmake(&m);
}

static void a_part_that_no_journal_knows_is_left_alone(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    Bytes b = { 0 };
    begin(&m);
    append(path_in(&m, "out.gguf.part"), "a download");
    ConvertOptions opt = options(&m, "f32");
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_non_null(strstr(err.msg, "out.gguf.part is there with 10 bytes, and no journal"));
    assert_true(file_read(&b, path_in(&m, "out.gguf.part"), 100, &err));
    assert_int_equal(b.n, 10);
    bytes_release(&b);
    opt.restart = true;
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    unmake(&m);
}

static void two_processes_do_not_write_one_file(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    begin(&m);
    leave_part(&m, "f32", 20);
    FILE *f = fopen(path_in(&m, "out.gguf.part"), "r+b");
    assert_int_equal(flock(fileno(f), LOCK_EX), 0);
    ConvertOptions opt = options(&m, "f32");
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_non_null(strstr(err.msg, "is being written by another process"));
    fclose(f);
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    unmake(&m);
}

static void what_another_attempt_cannot_mend_leaves_nothing(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    make(&m, (Slip){ .nan = "layers.3.attn.compressor.wkv.weight" });
    ConvertOptions opt = options(&m, "f32");
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_non_null(strstr(err.msg, "infinite or no number"));
    assert_false(is_there(&m, "out.gguf") || is_there(&m, "out.gguf.part"));
    assert_false(is_there(&m, "out.gguf.part.journal"));
    unmake(&m);
}

/* A disk that is full when it is taken up again: the earlier attempt's work stays. */
static void a_failure_at_once_keeps_what_there_was(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    struct rlimit before, low;
    begin(&m);
    leave_part(&m, "f32", 20);
    ConvertOptions opt = options(&m, "f32");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    low.rlim_cur = 400; /* the journal fits, the header does not */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    bool ok = run(&opt, path_in(&m, "out.gguf"), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(ok);
    assert_non_null(strstr(err.msg, "cannot write"));
    assert_true(is_there(&m, "out.gguf.part") && is_there(&m, "out.gguf.part.journal"));
    assert_non_null(strstr(notes.p, "out.gguf.part keeps"));
    assert_null(strstr(notes.p, "keeps 0 %"));
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    same_files(path_in(&m, "out.gguf"), path_in(&m, "whole.gguf"));
    unmake(&m);
}

/* A name that others may write beside must not lead to their file. */
static void a_part_that_is_a_link_is_not_followed(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    struct stat st;
    make(&m, (Slip){ 0 });
    append(path_in(&m, "precious"), "precious");
    assert_int_equal(symlink("precious", path_in(&m, "out.gguf.part")), 0);
    ConvertOptions opt = options(&m, "q8");
    assert_false(run(&opt, path_in(&m, "out.gguf"), &err));
    assert_non_null(strstr(err.msg, "cannot create"));
    assert_int_equal(stat(path_in(&m, "precious"), &st), 0);
    assert_int_equal(st.st_size, 8);
    unmake(&m);
}

/* ---- memory -------------------------------------------------------------------- */

/* In a process of its own, which tells its largest resident memory. */
static long peak_kb(const Made *m)
{
    struct rusage use;
    int status;
    pid_t child = fork();
    if (child == 0) {
        ds4_err err = { 0 };
        ConvertOptions opt = { .in = m->dir, .recipe = "q8", .threads = 2 };
        bool ok = run(&opt, path_in(m, "out.gguf"), &err);
        if (!ok)
            fprintf(stderr, "%s\n", err.msg);
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(wait4(child, &status, 0, &use), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#ifdef __APPLE__
    return use.ru_maxrss / 1024;
#else
    return use.ru_maxrss;
#endif
}

/* Sanitizers keep memory of their own. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WATCHED
#endif
#endif

static void memory_does_not_grow_with_the_model(void **state)
{
    (void)state;
#ifdef WATCHED
    print_message("skipped: a sanitizer's own memory would be measured\n");
    skip();
#endif
    Made m;
    make(&m, (Slip){ .vocab = 300000, .holes = true });
    const long kb = peak_kb(&m);
    struct stat st;
    assert_int_equal(stat(path_in(&m, "out.gguf"), &st), 0);
    print_message("%ld MB of memory for %lld MB in, %lld MB out\n", kb / 1024,
                  (long long)(300000ll * (256 * 4 + 32) >> 20), (long long)st.st_size >> 20);
    assert_true(kb < 128 * 1024);
    unmake(&m);
}

#ifdef __linux__

static char weights[100], scales[100];
static long most_kb, scales_kb;

/* Resident pages of the maps whose names begin so. */
static long resident_kb(const char *name)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[600];
    unsigned long from, to;
    long kb, sum = 0;
    bool ours = false;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            ours = strstr(line, name) != NULL;
        else if (ours && sscanf(line, "Rss: %ld kB", &kb) == 1)
            sum += kb;
    }
    fclose(f);
    return sum;
}

static bool watch(void)
{
    most_kb = MAX(most_kb, resident_kb(weights));
    scales_kb = resident_kb(scales); /* after the last batch, in which there were some */
    batch++;
    return false;
}

/* Scales lie where weights do not, as in files that are sorted by type. Of the model they are a
 * seventeenth: 8 GB. A header may stay, with the huge page that it is in. */
static void neither_weights_nor_scales_stay_in_memory(void **state)
{
    (void)state;
    Made m;
    ds4_err err = { 0 };
    make(&m, (Slip){ .apart = true, .vocab = 9000, .expert_dim = 4096 });
    ConvertOptions opt = options(&m, "mxfp4");
    opt.stop = watch;
    snprintf(weights, sizeof weights, "%s/part-", m.dir);
    snprintf(scales, sizeof scales, "%s/part-%d", m.dir, HOLES);
    most_kb = scales_kb = 0;
    must(run(&opt, path_in(&m, "out.gguf"), &err), &err);
    print_message("at most %ld KB of 43 MB after any of %d batches\n", most_kb, batch);
    assert_true(batch > 100 && most_kb < SHARDS * 2048 + 1024);
    assert_int_equal(scales_kb, 0);
    unmake(&m);
}

#endif

static int free_notes(void **state)
{
    (void)state;
    bytes_release(&notes);
    return 0;
}

static void a_log_of_which_a_part_fits_says_why_it_ends(void **state)
{
    (void)state;
    char path[] = "/tmp/ds4-part-XXXXXX";
    ds4_err err = { 0 };
    struct rlimit r;
    Part p;
    assert_non_null(mkdtemp(path));
    char file[64];
    snprintf(file, sizeof file, "%s/out.gguf", path);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    const struct rlimit before = r;
    r.rlim_cur = 5;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
    const bool ok = part_open(&p, file, "what decides about the bytes", false, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(ok);
    assert_non_null(strstr(err.msg, strerror(EFBIG)));
    assert_true(part_open(&p, file, "what decides about the bytes", false, &err));
    part_close(&p, false);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_any_time_it_goes_on_to_the_same_file),
        cmocka_unit_test(a_log_of_which_a_part_fits_says_why_it_ends),
        cmocka_unit_test(canceled_at_any_batch_it_goes_on_there),
        cmocka_unit_test(progress_begins_where_the_earlier_attempt_ended),
        cmocka_unit_test(only_the_journal_is_believed),
        cmocka_unit_test(a_part_that_no_journal_knows_is_left_alone),
        cmocka_unit_test(other_work_is_not_gone_on_with),
        cmocka_unit_test(two_processes_do_not_write_one_file),
        cmocka_unit_test(what_another_attempt_cannot_mend_leaves_nothing),
        cmocka_unit_test(a_failure_at_once_keeps_what_there_was),
        cmocka_unit_test(a_part_that_is_a_link_is_not_followed),
        cmocka_unit_test(memory_does_not_grow_with_the_model),
#ifdef __linux__
        cmocka_unit_test(neither_weights_nor_scales_stay_in_memory),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, free_notes);
}
