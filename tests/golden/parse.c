/* Answers against the official parser: the strict one gives its results and
 * its errors; the stream of events gives the same results, however the answer
 * is cut into bytes or, with V4's vocabulary, into tokens. */
#include "../stream_answer.h"
#include "../v4_vocab.h"
#include "../../src/text/bpe.h"
#include "../../src/text/dsml.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define DATA "tests/data/encoding/"

static ds4_vocab *vocab;
static bool is_v4;

static bool every_tool(void *user, Str tool)
{
    (void)user;
    (void)tool;
    return true;
}

/* The result as stream_answer.h writes what was told. */
static void expected_log(Bytes *out, Json *result)
{
    Str reasoning = json_text(json_member(result, "reasoning_content")),
        content = json_text(json_member(result, "content"));
    Json *calls = json_member(result, "tool_calls");
    bytes_str(out, reasoning.n ? "R:" : "");
    bytes_put(out, reasoning.p, reasoning.n);
    bytes_str(out, content.n ? "T:" : "");
    bytes_put(out, content.p, content.n);
    for (size_t i = 0; i < json_length(calls); i++) {
        Json *function = json_member(json_at(calls, i), "function");
        Str name = json_text(json_member(function, "name")),
            arguments = json_text(json_member(function, "arguments"));
        bytes_printf(out, "C%zu:%.*s=", i, (int)name.n, name.p);
        bytes_put(out, arguments.p, arguments.n);
        bytes_byte(out, ';');
    }
}

static void check_strict(const char *file, Json *root, bool thinking)
{
    ds4_err err = { 0 };
    DsmlAnswer a;
    Json *want = json_member(root, "result"), *calls = json_member(want, "tool_calls");
    if (!dsml_parse(&a, json_text(json_member(root, "text")), thinking, &err)) {
        if (want)
            fail_msg("%s: %s", file, err.msg);
        assert_int_equal(err.code, DS4_EINVAL);
        return;
    }
    if (!want)
        fail_msg("%s: accepted", file);
    assert_true(str_eq(a.content, json_text(json_member(want, "content"))));
    assert_true(str_eq(a.reasoning, json_text(json_member(want, "reasoning_content"))));
    assert_int_equal(a.n_calls, json_length(calls));
    for (size_t i = 0; i < a.n_calls; i++) {
        Json *function = json_member(json_at(calls, i), "function");
        assert_true(str_eq(a.calls[i].name, json_text(json_member(function, "name"))));
        assert_true(str_eq(a.calls[i].arguments, json_text(json_member(function, "arguments"))));
    }
    dsml_release(&a);
}

static void same(const char *file, Answer *a, const Bytes *want, bool whole, size_t cut)
{
    if (!whole || !str_eq(bytes_view(&a->log), bytes_view(want)))
        fail_msg("%s cut at %zu: %.*s", file, cut, (int)a->log.n, a->log.p);
    answer_release(a);
}

static void check_stream(const char *file, Json *root, const StreamOptions *opt)
{
    Str text = json_text(json_member(root, "text"));
    Bytes want = { 0 };
    Answer a = { 0 };
    expected_log(&want, json_member(root, "result"));
    for (size_t cut = 0; cut <= text.n; cut++) {
        bool whole = answer_text(&a, NULL, opt, text, cut, text.n + 1);
        same(file, &a, &want, whole, cut);
    }
    bool whole = answer_text(&a, NULL, opt, text, 0, 1);
    same(file, &a, &want, whole, text.n);
    Tokens t = { 0 };
    assert_true(bpe_encode(vocab, text, true, &t, NULL));
    /* As a token, the mark of a user's turn ends the answer. */
    if (!json_is(json_member(root, "name"), "user_token_in_content")) {
        whole = answer_tokens(&a, vocab, opt, t.id, t.n);
        same(file, &a, &want, whole, t.n);
    }
    tokens_release(&t);
    bytes_release(&want);
}

static void answers_are_the_official_parsers(void **state)
{
    (void)state;
    DIR *d = opendir(DATA);
    size_t results = 0, errors = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        Bytes file = { 0 };
        if (strncmp(e->d_name, "parse_", 6) != 0)
            continue;
        snprintf(path, sizeof path, DATA "%s", e->d_name);
        assert_true(file_read(&file, path, 1 << 20, NULL));
        Json *root = json_read(bytes_view(&file), NULL);
        assert_non_null(root);
        bool thinking = json_is(json_member(root, "thinking_mode"), "thinking");
        const StreamOptions opt = { .thinking = thinking, .tools = { .declared = every_tool } };
        check_strict(e->d_name, root, thinking);
        if (json_member(root, "result"))
            check_stream(e->d_name, root, &opt);
        *(json_member(root, "result") ? &results : &errors) += 1;
        json_free(root);
        bytes_release(&file);
    }
    closedir(d);
    print_message("%zu results and %zu errors compared, tokens of %s\n", results, errors,
                  is_v4 ? "V4's vocabulary" : "a small vocabulary: run tools/fetch_tokenizer");
    assert_true(results >= 15 && errors >= 10);
}

int main(void)
{
    ds4_err err;
    vocab = v4_vocab(NULL, &err);
    is_v4 = vocab != NULL;
    if (!vocab && !(vocab = vf_small_vocab(&err))) {
        print_error("%s\n", err.msg);
        return 1;
    }
    const struct CMUnitTest tests[] = { cmocka_unit_test(answers_are_the_official_parsers) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vocab_free(vocab);
    return failed;
}
