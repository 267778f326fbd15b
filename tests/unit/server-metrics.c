/* Metrics: what was counted is what a reader of the text format finds. */
#include "../../src/server/metrics.h"
#include <ctype.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- a reader of the format ------------------------------------------------------------- */

enum { MOST_SERIES = 1000, MOST_FAMILIES = 64 };

typedef struct {
    char name[64], labels[160]; /* as written, without braces */
    double value;
} Series;

typedef struct {
    struct {
        char name[64], type[16];
        bool helped;
    } family[MOST_FAMILIES];
    size_t n_families;
    Series series[MOST_SERIES];
    size_t n;
} Scrape;

static size_t name_length(const char *s)
{
    size_t n = 0;
    while (isalnum((unsigned char)s[n]) || s[n] == '_' || (n && s[n] == ':'))
        n++;
    assert_true(n > 0 && n < 64 && !isdigit((unsigned char)s[0]));
    return n;
}

/* Checks name="value" pairs up to the closing brace; returns what follows it. */
static const char *read_labels(const char *p, Series *s)
{
    const char *start = p;
    do {
        p += name_length(p);
        assert_int_equal(*p++, '=');
        assert_int_equal(*p++, '"');
        for (; *p != '"'; p++) {
            assert_true(*p && *p != '\n');
            if (*p == '\\')
                assert_true(strchr("\\\"n", *++p));
        }
        p++;
    } while (*p == ',' && p++);
    assert_int_equal(*p, '}');
    snprintf(s->labels, sizeof s->labels, "%.*s", (int)(p - start), start);
    return p + 1;
}

static void read_comment(Scrape *s, const char *line)
{
    char name[64], type[16];
    if (sscanf(line, "# HELP %63s", name) == 1) {
        assert_true(strlen(line) > strlen("# HELP ") + strlen(name) + 5);
        assert_true(s->n_families < MOST_FAMILIES);
        for (size_t i = 0; i < s->n_families; i++)
            assert_string_not_equal(s->family[i].name, name);
        strcpy(s->family[s->n_families].name, name);
        s->family[s->n_families++].helped = true;
        return;
    }
    assert_int_equal(sscanf(line, "# TYPE %63s %15s", name, type), 2);
    assert_true(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0 ||
                strcmp(type, "histogram") == 0);
    assert_string_equal(s->family[s->n_families - 1].name, name);
    strcpy(s->family[s->n_families - 1].type, type);
}

/* A series belongs to the family that was announced last. */
static void check_family(const Scrape *s, const char *name)
{
    const char *family = s->family[s->n_families - 1].name;
    size_t n = strlen(family);
    assert_memory_equal(name, family, n);
    if (strcmp(s->family[s->n_families - 1].type, "histogram") == 0)
        assert_true(strcmp(name + n, "_bucket") == 0 || strcmp(name + n, "_sum") == 0 ||
                    strcmp(name + n, "_count") == 0);
    else
        assert_int_equal(name[n], 0);
}

static void read_series(Scrape *s, const char *line)
{
    assert_true(s->n < MOST_SERIES && s->n_families);
    Series *one = &s->series[s->n++];
    size_t n = name_length(line);
    char *end;
    snprintf(one->name, sizeof one->name, "%.*s", (int)n, line);
    check_family(s, one->name);
    const char *p = line + n;
    if (*p == '{')
        p = read_labels(p + 1, one);
    assert_int_equal(*p++, ' ');
    one->value = strtod(p, &end);
    assert_true(end > p && !*end);
    for (size_t i = 0; i + 1 < s->n; i++)
        assert_false(strcmp(s->series[i].name, one->name) == 0 &&
                     strcmp(s->series[i].labels, one->labels) == 0);
}

static Scrape *scrape(const Metrics *m)
{
    Bytes b = { 0 };
    Scrape *s = calloc(1, sizeof *s);
    metrics_write(m, &b);
    assert_true(b.n && b.p[b.n - 1] == '\n');
    bytes_byte(&b, 0);
    char *rest = NULL;
    for (char *line = strtok_r(b.p, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        (line[0] == '#' ? read_comment : read_series)(s, line);
    bytes_release(&b);
    return s;
}

static double value(const Scrape *s, const char *name, const char *labels)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->series[i].name, name) == 0 && strcmp(s->series[i].labels, labels) == 0)
            return s->series[i].value;
    return -1;
}

static Metrics *make(void)
{
    ds4_err err;
    Metrics *m = metrics_new(&(MetricsBuild){ .version = "1.0", .model = "a \"b\"\\\n" }, &err);
    if (!m)
        fail_msg("%s", err.msg);
    return m;
}

/* The value after one thing happened. */
#define COUNTS(call, name, labels, want) \
    do { \
        Metrics *m = make(); \
        call; \
        Scrape *s = scrape(m); \
        double got = value(s, "ds4x_" name, labels), wanted = want; \
        if (got != wanted) \
            fail_msg("%s{%s}: %g, expected %g", name, labels, got, wanted); \
        free(s); \
        metrics_free(m); \
    } while (0)

/* ---- claims ------------------------------------------------------------------------------- */

/* The list of the specification. */
static void every_metric_is_there_from_the_start(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        { "requests_total", "counter" },
        { "requests_active", "gauge" },
        { "queue_length", "gauge" },
        { "queue_seconds", "histogram" },
        { "prefill_tokens_total", "counter" },
        { "prefill_cached_tokens_total", "counter" },
        { "prompts_total", "counter" },
        { "side_requests_total", "counter" },
        { "prefill_seconds", "histogram" },
        { "ttft_seconds", "histogram" },
        { "decode_tokens_total", "counter" },
        { "tpot_seconds", "histogram" },
        { "request_seconds", "histogram" },
        { "slots", "gauge" },
        { "kv_bytes", "gauge" },
        { "kv_disk_written_bytes_total", "counter" },
        { "kv_disk_read_bytes_total", "counter" },
        { "kv_bad_files_total", "counter" },
        { "kv_dropped_total", "counter" },
        { "kv_failed_reads_total", "counter" },
        { "kv_failed_writes_total", "counter" },
        { "kv_waiting_bytes", "gauge" },
        { "kv_restored_bytes_total", "counter" },
        { "kv_restore_seconds", "histogram" },
        { "kv_saved_bytes_total", "counter" },
        { "kv_save_seconds", "histogram" },
        { "unloads_total", "counter" },
        { "kv_evictions_total", "counter" },
        { "cache_miss_total", "counter" },
        { "cancelled_total", "counter" },
        { "tool_calls_total", "counter" },
        { "heartbeats_total", "counter" },
        { "slow_clients_total", "counter" },
        { "build_info", "gauge" },
    };
    Metrics *m = make();
    Scrape *s = scrape(m);
    assert_int_equal(s->n_families, COUNT(names));
    for (size_t i = 0; i < COUNT(names); i++) {
        char full[80];
        snprintf(full, sizeof full, "ds4x_%s", names[i][0]);
        size_t k = 0;
        while (k < s->n_families && strcmp(s->family[k].name, full) != 0)
            k++;
        if (k == s->n_families)
            fail_msg("%s is missing", full);
        assert_true(s->family[k].helped);
        assert_string_equal(s->family[k].type, names[i][1]);
    }
    static const char *const zero[][2] = {
        { "ds4x_prefill_cached_tokens_total", "source=\"disk\"" },
        { "ds4x_cache_miss_total", "reason=\"tools_changed\"" },
        { "ds4x_cancelled_total", "phase=\"decode\",reason=\"slow_client\"" },
        { "ds4x_tool_calls_total", "result=\"recovered\"" },
        { "ds4x_decode_tokens_total", "phase=\"tool\"" },
        { "ds4x_heartbeats_total", "api=\"responses\"" },
        { "ds4x_slots", "state=\"free\"" },
        { "ds4x_kv_bytes", "tier=\"ram\"" },
        { "ds4x_ttft_seconds_count", "cached=\"most\"" },
        { "ds4x_slow_clients_total", "" },
    };
    for (size_t i = 0; i < COUNT(zero); i++)
        assert_true(value(s, zero[i][0], zero[i][1]) == 0);
    free(s);
    metrics_free(m);
}

static void what_happens_counts_where_it_belongs(void **state)
{
    (void)state;
    COUNTS(metrics_request_began(m), "requests_active", "", 1);
    COUNTS((metrics_request_began(m), metrics_request_ended(m, API_CHAT, CLIENT_PI, 200, 1)),
           "requests_active", "", 0);
    COUNTS(metrics_request_ended(m, API_MESSAGES, CLIENT_CLAUDE_CODE, 529, 1), "requests_total",
           "api=\"messages\",client=\"claude-code\",status=\"529\"", 1);
    COUNTS(metrics_request_ended(m, METRICS_NO_API, CLIENT_CURL, 418, 1), "requests_total",
           "api=\"other\",client=\"curl\",status=\"other\"", 1);
    COUNTS(metrics_request_ended(m, 99, CLIENT_OTHER, 200, 1), "requests_total",
           "api=\"other\",client=\"other\",status=\"200\"", 1);
    COUNTS(metrics_cancelled(m, JOB_PREFILL, CANCEL_SLOW), "cancelled_total",
           "phase=\"prefill\",reason=\"slow_client\"", 1);
    COUNTS(metrics_heartbeat(m, API_RESPONSES), "heartbeats_total", "api=\"responses\"", 1);
    COUNTS(metrics_slow_client(m), "slow_clients_total", "", 1);
    COUNTS(metrics_prompt(m, 70, CACHE_REWIND, N_CACHE_MISSES), "prefill_cached_tokens_total",
           "source=\"rewind\"", 70);
    COUNTS(metrics_prompt(m, 0, CACHE_LIVE, MISS_EVICTED), "cache_miss_total", "reason=\"evicted\"",
           1);
    COUNTS(metrics_prefilled(m, 300, 2), "prefill_tokens_total", "", 300);
    COUNTS((metrics_decoded(m, DECODE_TOOL, 2), metrics_decoded(m, DECODE_TOOL, 3)),
           "decode_tokens_total", "phase=\"tool\"", 5);
    COUNTS(metrics_tool_call(m, CALL_DROPPED), "tool_calls_total", "result=\"dropped\"", 1);
    COUNTS(metrics_evicted(m, EVICT_SLOT_NEEDED), "kv_evictions_total", "reason=\"slot_needed\"",
           1);
    COUNTS(metrics_prompt(m, 5, CACHE_FORK, N_CACHE_MISSES), "prompts_total", "source=\"fork\"", 1);
    COUNTS(metrics_prompt(m, 0, CACHE_FORK, MISS_NEW), "prompts_total", "source=\"none\"", 1);
    COUNTS(metrics_prompt(m, 5, CACHE_DISK, MISS_STORE_FAILED), "cache_miss_total",
           "reason=\"store_failed\"", 1);
    COUNTS(metrics_side_request(m), "side_requests_total", "", 1);
    COUNTS(metrics_restored(m, 100, 0.06), "kv_restored_bytes_total", "", 100);
    COUNTS(metrics_restored(m, 100, 0.06), "kv_restore_seconds_bucket", "le=\"0.05\"", 0);
    COUNTS(metrics_saved(m, 70, 0.003), "kv_saved_bytes_total", "", 70);
    COUNTS(metrics_unloaded(m), "unloads_total", "", 1);
    const StoreCounters c = { .written_bytes = 5000000000,
                              .journal_written_bytes = 1,
                              .disk_bytes = 12,
                              .bad_checksum = 3,
                              .failed_reads = 2,
                              .evicted_ram = 4 };
    COUNTS(metrics_store(m, &c), "kv_disk_written_bytes_total", "", 5000000001.0);
    COUNTS(metrics_store(m, &c), "kv_failed_reads_total", "", 2);
    COUNTS(metrics_store(m, &c), "kv_bytes", "tier=\"disk\"", 12);
    COUNTS(metrics_store(m, &c), "kv_bad_files_total", "reason=\"checksum\"", 3);
    COUNTS(metrics_store(m, &c), "kv_evictions_total", "reason=\"ram_full\"", 4);
    COUNTS((metrics_queue_length(m, 7), metrics_queue_length(m, 3)), "queue_length", "", 3);
    COUNTS(metrics_slots(m, SLOT_DECODE, 2), "slots", "state=\"decode\"", 2);
    COUNTS(metrics_kv_bytes(m, KV_LIVE, 12), "kv_bytes", "tier=\"live\"", 12);
    COUNTS((void)0, "build_info", "version=\"1.0\",model=\"a \\\"b\\\"\\\\\\n\",device=\"\"", 1);
}

static void times_fall_into_their_buckets(void **state)
{
    (void)state;
    COUNTS(metrics_left_queue(m, 0.3), "queue_seconds_bucket", "le=\"0.25\"", 0);
    COUNTS(metrics_left_queue(m, 0.3), "queue_seconds_bucket", "le=\"0.5\"", 1);
    COUNTS(metrics_left_queue(m, 0.5), "queue_seconds_bucket", "le=\"0.5\"", 1);
    COUNTS(metrics_left_queue(m, 1e5), "queue_seconds_bucket", "le=\"3600.0\"", 0);
    COUNTS(metrics_left_queue(m, 1e5), "queue_seconds_count", "", 1);
    COUNTS(metrics_left_queue(m, 0.25), "queue_seconds_sum", "", 0.25);
    COUNTS(metrics_left_queue(m, -1), "queue_seconds_sum", "", 0);
    COUNTS(metrics_request_ended(m, API_CHAT, CLIENT_PI, 200, 4), "request_seconds_sum", "", 4);
    COUNTS(metrics_prefilled(m, 1, 8), "prefill_seconds_sum", "", 8);
    COUNTS(metrics_decode_ended(m, 100, 2), "tpot_seconds_sum", "", 0.02);
    COUNTS(metrics_decode_ended(m, 0, 2), "tpot_seconds_count", "", 0);
    COUNTS(metrics_first_token(m, 100, 0, 2), "ttft_seconds_count", "cached=\"none\"", 1);
    COUNTS(metrics_first_token(m, 100, 89, 2), "ttft_seconds_count", "cached=\"some\"", 1);
    COUNTS(metrics_first_token(m, 100, 90, 2), "ttft_seconds_bucket", "cached=\"most\",le=\"2.5\"",
           1);
}

/* Each histogram's buckets never fall, and the last one is its count. */
static void check_histograms(const Scrape *s)
{
    size_t checked = 0;
    double last = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *le = strstr(s->series[i].labels, "le=\"");
        if (!le)
            continue;
        if (i == 0 || !strstr(s->series[i - 1].labels, "le=\""))
            last = 0;
        assert_true(s->series[i].value >= last);
        last = s->series[i].value;
        if (strcmp(le, "le=\"+Inf\"") == 0) {
            assert_non_null(strstr(s->series[i + 1].name, "_sum"));
            assert_non_null(strstr(s->series[i + 2].name, "_count"));
            assert_true(s->series[i + 2].value == last);
            checked++;
        }
    }
    assert_int_equal(checked, 6 + 3);
}

static void histograms_are_cumulative(void **state)
{
    (void)state;
    Metrics *m = make();
    for (int i = 0; i < 2000; i++) {
        double seconds = i * i / 500.0;
        metrics_left_queue(m, seconds);
        metrics_prefilled(m, i, seconds);
        metrics_first_token(m, 2000, i, seconds);
        metrics_decode_ended(m, i, 1);
        metrics_request_ended(m, i % 5, (enum Client)(i % N_CLIENTS), 200 + i % 300, seconds);
    }
    Scrape *s = scrape(m);
    check_histograms(s);
    assert_true(value(s, "ds4x_request_seconds_count", "") == 2000);
    assert_true(value(s, "ds4x_ttft_seconds_count", "cached=\"none\"") == 1);
    assert_true(value(s, "ds4x_ttft_seconds_count", "cached=\"some\"") == 1799);
    assert_true(value(s, "ds4x_ttft_seconds_count", "cached=\"most\"") == 200);
    free(s);
    metrics_free(m);
}

static void clients_are_known_by_what_they_call_themselves(void **state)
{
    (void)state;
    static const struct {
        const char *agent, *name;
    } recorded[] = {
        { "claude-cli/2.1.330 (external, sdk-cli)", "claude-code" },
        { "claude-code/2.1.330", "claude-code" },
        { "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.169.0)", "codex" },
        { "opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14", "opencode" },
        { "pi (linux 6.18.44; x64)", "pi" },
        { "OpenAI/JS 7.57.0", "openai-sdk" },
        { "Anthropic/JS 1.12.0", "anthropic-sdk" },
        { "ai-sdk-openai-compatible/3.0.92 ai-sdk-provider-utils/5.0.81 node.js/26", "ai-sdk" },
        { "ai/7.0.173 ai-sdk-provider-utils/5.0.81 node.js/26", "ai-sdk" },
        { "curl/7.88.1", "curl" },
        { "Bun/1.4.4", "other" },
        { "pirate", "other" },
        { "", "other" },
        { NULL, "other" },
    };
    for (size_t i = 0; i < COUNT(recorded); i++)
        assert_string_equal(client_name(client_of(recorded[i].agent)), recorded[i].name);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *count_up(void *metrics)
{
    for (int i = 0; i < 20000; i++) {
        metrics_decoded(metrics, DECODE_TEXT, 1);
        metrics_left_queue(metrics, 0.125);
    }
    return NULL;
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    Metrics *m = make();
    pthread_t thread[4];
    for (size_t i = 0; i < COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, count_up, m), 0);
    Scrape *s = scrape(m);
    check_histograms(s);
    free(s);
    for (size_t i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    s = scrape(m);
    assert_true(value(s, "ds4x_decode_tokens_total", "phase=\"text\"") == 80000);
    assert_true(value(s, "ds4x_queue_seconds_sum", "") == 10000);
    free(s);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_is_there_from_the_start),
        cmocka_unit_test(what_happens_counts_where_it_belongs),
        cmocka_unit_test(times_fall_into_their_buckets),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(clients_are_known_by_what_they_call_themselves),
        cmocka_unit_test(threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
