/* The model's descriptions: JSON that has what each kind of client reads. */
#include "../../src/json/json.h"
#include "../../src/server/catalog.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const ServerInfo server = { .model = "deepseek-v4-flash",
                                   .context = 131072,
                                   .max_output = 65536,
                                   .default_think = CHAT_THINK_HIGH,
                                   .created = 1767225600 };

/* What was written, read again; the buffer is released. */
static Json *read(Bytes *b)
{
    ds4_err err;
    Json *o = json_read(bytes_view(b), &err);
    if (!o)
        fail_msg("%s: %.*s", err.msg, (int)b->n, b->p);
    bytes_release(b);
    return o;
}

static void text_is(const Json *o, const char *key, const char *want)
{
    if (!json_is(json_member(o, key), want))
        fail_msg("%s: '%.*s', expected '%s'", key, STR_ARG(json_text(json_member(o, key))), want);
}

static void number_is(const Json *o, const char *key, uint64_t want)
{
    uint64_t got;
    if (!json_whole(json_member(o, key), UINT64_MAX, &got))
        fail_msg("%s is no number", key);
    assert_int_equal(got, want);
}

static void a_model_is_one_to_openai_and_to_anthropic(const Json *m, const char *id)
{
    text_is(m, "id", id);
    text_is(m, "object", "model");
    text_is(m, "owned_by", "ds4");
    number_is(m, "created", 1767225600);
    number_is(m, "context_length", 131072);
    text_is(m, "type", "model");
    text_is(m, "created_at", "2026-01-01T00:00:00Z");
    number_is(m, "max_input_tokens", 131072);
    number_is(m, "max_tokens", 65536);
    assert_true(json_length(json_member(m, "supported_parameters")) > 10);
}

static void one_list_serves_openai_and_anthropic(void **state)
{
    (void)state;
    Bytes b = { 0 };
    catalog_models(&b, &server);
    Json *o = read(&b);
    text_is(o, "object", "list");
    text_is(o, "first_id", "deepseek-v4-flash");
    text_is(o, "last_id", "deepseek-v4-flash");
    assert_true(json_is_bool(json_member(o, "has_more"), false));
    assert_int_equal(json_length(json_member(o, "data")), 1);
    const Json *m = json_at(json_member(o, "data"), 0);
    a_model_is_one_to_openai_and_to_anthropic(m, "deepseek-v4-flash");
    text_is(m, "display_name", "DeepSeek V4 Flash");
    json_free(o);
}

static void a_model_is_found_by_the_names_that_requests_may_use(void **state)
{
    (void)state;
    static const char *const known[] = { "deepseek-v4-flash", "deepseek-chat", "deepseek-reasoner",
                                         "claude-opus-4-6", "gpt-5" };
    static const char *const unknown[] = { "", "llama", "deepseek", "v4-flash" };
    for (size_t i = 0; i < COUNT(known); i++) {
        Bytes b = { 0 };
        assert_true(catalog_model(&b, &server, str_of(known[i])));
        Json *o = read(&b);
        a_model_is_one_to_openai_and_to_anthropic(o, known[i]);
        json_free(o);
    }
    for (size_t i = 0; i < COUNT(unknown); i++) {
        ServerInfo strict = server;
        Bytes b = { 0 };
        strict.strict_model = true;
        assert_false(catalog_model(&b, &strict, str_of(unknown[i])));
        assert_int_equal(b.n, 0);
        assert_true(catalog_model(&b, &server, str_of(unknown[i])));
        bytes_release(&b);
    }
}

/* The members of a catalogue that Codex 0.169.0 took. */
static void codex_finds_all_members_that_it_needs(void **state)
{
    (void)state;
    static const char *const present[] = { "supported_in_api",
                                           "base_instructions",
                                           "supports_reasoning_summaries",
                                           "supports_parallel_tool_calls",
                                           "experimental_supported_tools",
                                           "input_modalities",
                                           "truncation_policy",
                                           "support_verbosity",
                                           "description",
                                           "supports_search_tool" };
    Bytes b = { 0 };
    catalog_codex(&b, &server);
    Json *o = read(&b);
    const Json *m = json_at(json_member(o, "models"), 0);
    assert_int_equal(json_length(json_member(o, "models")), 1);
    for (size_t i = 0; i < COUNT(present); i++)
        if (!json_member(m, present[i]))
            fail_msg("%s is missing", present[i]);
    text_is(m, "slug", "deepseek-v4-flash");
    text_is(m, "display_name", "DeepSeek V4 Flash");
    text_is(m, "shell_type", "unified_exec");
    text_is(m, "visibility", "list");
    text_is(m, "apply_patch_tool_type", "freeform");
    text_is(m, "default_reasoning_level", "high");
    text_is(m, "default_reasoning_summary", "auto");
    number_is(m, "priority", 1);
    number_is(m, "context_window", 131072);
    number_is(m, "max_context_window", 131072);
    number_is(m, "effective_context_window_percent", 95);
    text_is(json_member(m, "truncation_policy"), "mode", "tokens");
    number_is(json_member(m, "truncation_policy"), "limit", 10000);
    const Json *levels = json_member(m, "supported_reasoning_levels");
    static const char *const efforts[] = { "low", "high", "max" };
    assert_int_equal(json_length(levels), COUNT(efforts));
    for (size_t i = 0; i < COUNT(efforts); i++)
        text_is(json_at(levels, i), "effort", efforts[i]);
    assert_true(json_is(json_at(json_member(m, "input_modalities"), 0), "text"));
    assert_int_equal(json_length(json_member(m, "input_modalities")), 1);
    json_free(o);
}

static void codex_is_told_the_servers_own_effort(void **state)
{
    (void)state;
    static const char *const names[] = { [CHAT_THINK_OFF] = "low",
                                         [CHAT_THINK_LOW] = "low",
                                         [CHAT_THINK_HIGH] = "high",
                                         [CHAT_THINK_MAX] = "max" };
    for (size_t i = 0; i < COUNT(names); i++) {
        ServerInfo s = server;
        Bytes b = { 0 };
        s.default_think = (int)i;
        catalog_codex(&b, &s);
        Json *o = read(&b);
        text_is(json_at(json_member(o, "models"), 0), "default_reasoning_level", names[i]);
        json_free(o);
    }
}

static void props_do_not_tell_where_the_model_lies(void **state)
{
    (void)state;
    static const char *const paths[] = { "/home/me/models/a.gguf", "a.gguf", "x/a.gguf" };
    for (size_t i = 0; i < COUNT(paths); i++) {
        Bytes b = { 0 };
        catalog_props(&b, &server, &(CatalogProps){ 4, paths[i], "ds4 1.0" });
        Json *o = read(&b);
        number_is(o, "total_slots", 4);
        text_is(o, "model_path", "a.gguf");
        text_is(o, "build_info", "ds4 1.0");
        number_is(json_member(o, "default_generation_settings"), "n_ctx", 131072);
        assert_true(json_text(json_member(o, "chat_template")).n > 0);
        json_free(o);
    }
    Bytes b = { 0 };
    catalog_props(&b, &server, &(CatalogProps){ 0 });
    json_free(read(&b));
}

static void those_who_look_for_ollama_find_the_model(void **state)
{
    (void)state;
    Bytes b = { 0 };
    catalog_version(&b);
    Json *o = read(&b);
    text_is(o, "ds4", DS4_VERSION);
    assert_true(json_text(json_member(o, "version")).n > 0);
    json_free(o);
    catalog_tags(&b, &server);
    o = read(&b);
    const Json *m = json_at(json_member(o, "models"), 0);
    text_is(m, "name", "deepseek-v4-flash");
    text_is(m, "model", "deepseek-v4-flash");
    text_is(m, "modified_at", "2026-01-01T00:00:00Z");
    json_free(o);
}

static void names_are_quoted(void **state)
{
    (void)state;
    ServerInfo s = server;
    s.model = "a \"b\"\\\n";
    void (*const all[])(Bytes *, const ServerInfo *) = { catalog_models, catalog_codex,
                                                         catalog_tags };
    for (size_t i = 0; i < COUNT(all); i++) {
        Bytes b = { 0 };
        all[i](&b, &s);
        json_free(read(&b));
    }
    Bytes b = { 0 };
    catalog_models(&b, &s);
    Json *o = read(&b);
    text_is(o, "first_id", s.model);
    json_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_list_serves_openai_and_anthropic),
        cmocka_unit_test(a_model_is_found_by_the_names_that_requests_may_use),
        cmocka_unit_test(codex_finds_all_members_that_it_needs),
        cmocka_unit_test(codex_is_told_the_servers_own_effort),
        cmocka_unit_test(props_do_not_tell_where_the_model_lies),
        cmocka_unit_test(those_who_look_for_ollama_find_the_model),
        cmocka_unit_test(names_are_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
