/* The settings that are printed are in their programs' forms, and nothing that is
 * put into the page gets out of its place. */
#include "../../src/json/json.h"
#include "../../src/server/welcome.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const ServerInfo server = { .model = "deepseek-v4-flash",
                                   .context = 131072,
                                   .max_output = 65536 };

static char *welcome(const char *url, bool needs_key, const char *model)
{
    ServerInfo s = server;
    Bytes b = { 0 };
    s.model = model;
    welcome_write(&b, url, needs_key, &s);
    bytes_byte(&b, 0);
    assert_false(b.failed);
    return b.p;
}

/* The JSON after a line that begins so. */
static Json *json_after(const char *text, const char *title)
{
    ds4_err err;
    const char *start = strstr(text, title);
    if (!start)
        fail_msg("no %s", title);
    start = strstr(start, "\n\n{") + 2;
    const char *end = strstr(start, "\n\n");
    Json *o = json_read(end ? (Str){ start, (size_t)(end - start) } : str_of(start), &err);
    if (!o)
        fail_msg("%s: %s", title, err.msg);
    return o;
}

static void contains(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("'%s' is not in: %s", what, text);
}

static void text_is(const Json *o, const char *key, const char *want)
{
    if (!json_is(json_member(o, key), want))
        fail_msg("%s: '%.*s', expected '%s'", key, STR_ARG(json_text(json_member(o, key))), want);
}

static void number_is(const Json *o, const char *key, uint64_t want)
{
    uint64_t got = 0;
    assert_true(json_whole(json_member(o, key), UINT64_MAX, &got));
    assert_int_equal(got, want);
}

/* ---- the four ---------------------------------------------------------------------------- */

/* What a shell makes of a command: printed by a program that shows its environment. */
static char *run_shell(const char *command)
{
    static char out[8192];
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    assert_int_equal(pclose(f), 0);
    return out;
}

/* The pasted line, with a program in Claude's place that shows what it was given. */
static char *claudes_environment(const char *text)
{
    char command[4096];
    const char *start = strstr(text, "Claude Code:\n\n") + strlen("Claude Code:\n\n");
    const char *end = strstr(start, " claude\n");
    assert_non_null(end);
    snprintf(command, sizeof command, "ANTHROPIC_API_KEY=old %.*s env", (int)(end - start), start);
    return run_shell(command);
}

static void claude_code_is_started_by_one_command(void **state)
{
    (void)state;
    char *text = welcome("http://127.0.0.1:8000", false, "deepseek-v4-flash");
    const char *env = claudes_environment(text);
    contains(env, "ANTHROPIC_BASE_URL=http://127.0.0.1:8000\n");
    contains(env, "ANTHROPIC_AUTH_TOKEN=local\n");
    contains(env, "ANTHROPIC_MODEL=deepseek-v4-flash\n");
    contains(env, "ANTHROPIC_DEFAULT_OPUS_MODEL=deepseek-v4-flash\n");
    contains(env, "ANTHROPIC_DEFAULT_SONNET_MODEL=deepseek-v4-flash\n");
    contains(env, "ANTHROPIC_DEFAULT_HAIKU_MODEL=deepseek-v4-flash\n");
    contains(env, "CLAUDE_CODE_SUBAGENT_MODEL=deepseek-v4-flash\n");
    contains(env, "CLAUDE_CODE_MAX_CONTEXT_TOKENS=131072\n");
    assert_null(strstr(env, "ANTHROPIC_API_KEY"));
    free(text);
}

static void opencodes_file_names_the_model_and_its_limits(void **state)
{
    (void)state;
    char *text = welcome("http://127.0.0.1:8000", false, "deepseek-v4-flash");
    Json *o = json_after(text, "\nopencode,");
    const Json *ds4 = json_member(json_member(o, "provider"), "ds4");
    const Json *model = json_member(json_member(ds4, "models"), "deepseek-v4-flash");
    text_is(ds4, "npm", "@ai-sdk/openai-compatible");
    text_is(json_member(ds4, "options"), "baseURL", "http://127.0.0.1:8000/v1");
    text_is(json_member(ds4, "options"), "apiKey", "local");
    assert_true(json_is_bool(json_member(model, "reasoning"), true));
    assert_true(json_is_bool(json_member(model, "tool_call"), true));
    number_is(json_member(model, "limit"), "context", 131072);
    number_is(json_member(model, "limit"), "output", 32000);
    text_is(o, "model", "ds4/deepseek-v4-flash");
    text_is(o, "small_model", "ds4/deepseek-v4-flash");
    json_free(o);
    free(text);
}

static void codexs_file_has_its_tables_in_order(void **state)
{
    (void)state;
    char *text = welcome("http://127.0.0.1:8000", false, "deepseek-v4-flash");
    contains(text, "DS4_API_KEY=local codex\n\n"
                   "model = \"deepseek-v4-flash\"\n"
                   "model_provider = \"ds4\"\n\n"
                   "[model_providers.ds4]\n"
                   "name = \"ds4\"\n"
                   "base_url = \"http://127.0.0.1:8000/v1\"\n"
                   "wire_api = \"responses\"\n"
                   "env_key = \"DS4_API_KEY\"\n"
                   "model_catalog_url = \"http://127.0.0.1:8000/v1/codex/models\"\n\n"
                   "[features]\n"
                   "api_key_model_discovery = true\n");
    free(text);
}

static void pis_file_names_the_api(void **state)
{
    (void)state;
    char *text = welcome("http://127.0.0.1:8000", false, "deepseek-v4-flash");
    Json *o = json_after(text, "\nPi,");
    const Json *ds4 = json_member(json_member(o, "providers"), "ds4");
    const Json *model = json_at(json_member(ds4, "models"), 0);
    text_is(ds4, "baseUrl", "http://127.0.0.1:8000/v1");
    text_is(ds4, "api", "openai-completions");
    text_is(ds4, "apiKey", "local");
    text_is(model, "id", "deepseek-v4-flash");
    number_is(model, "contextWindow", 131072);
    number_is(model, "maxTokens", 32000);
    json_free(o);
    free(text);
}

static void an_answer_never_takes_the_whole_context(void **state)
{
    (void)state;
    static const int sizes[][3] = { { 16384, 16384, 4096 }, { 8192, 1000, 1000 } };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        ServerInfo s = { .model = "m", .context = sizes[i][0], .max_output = sizes[i][1] };
        Bytes b = { 0 };
        welcome_write(&b, "http://h", false, &s);
        bytes_byte(&b, 0);
        Json *o = json_after(b.p, "\nopencode,");
        const Json *ds4 = json_member(json_member(o, "provider"), "ds4");
        const Json *model = json_member(json_member(ds4, "models"), "m");
        number_is(json_member(model, "limit"), "output", (uint64_t)sizes[i][2]);
        json_free(o);
        bytes_release(&b);
    }
}

static void where_keys_are_needed_a_placeholder_says_so(void **state)
{
    (void)state;
    char *text = welcome("http://127.0.0.1:8000", true, "deepseek-v4-flash");
    int n = 0;
    for (const char *p = text; (p = strstr(p, "YOUR_API_KEY")); p++)
        n++;
    assert_int_equal(n, 4 + 1);
    assert_null(strstr(text, "local\""));
    free(text);
}

static void other_machines_need_the_address_of_this_one(void **state)
{
    static const char hint[] = "On other machines put the address of this one";
    static const struct {
        const char *url;
        bool hinted;
    } cases[] = { { "http://0.0.0.0:8080", true },
                  { "http://[::]:8080", true },
                  { "http://127.0.0.1:8080", false },
                  { "http://[::1]:8080", false } };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = welcome(cases[i].url, true, "deepseek-v4-flash");
        assert_int_equal(strstr(text, hint) != NULL, cases[i].hinted);
        free(text);
    }
}

static void any_name_and_address_stays_in_its_place(void **state)
{
    (void)state;
    static const char name[] = "it's \"$(a)\" \\ `b` é";
    char line[128];
    char *text = welcome("http://[::1]:8000/", false, name);
    const char *env = claudes_environment(text);
    contains(env, "ANTHROPIC_BASE_URL=http://[::1]:8000\n");
    snprintf(line, sizeof line, "ANTHROPIC_MODEL=%s\n", name);
    contains(env, line);
    Json *o = json_after(text, "\nopencode,");
    const Json *ds4 = json_member(json_member(o, "provider"), "ds4");
    assert_non_null(json_member(json_member(ds4, "models"), name));
    text_is(json_member(ds4, "options"), "baseURL", "http://[::1]:8000/v1");
    json_free(o);
    o = json_after(text, "\nPi,");
    text_is(json_at(json_member(json_member(json_member(o, "providers"), "ds4"), "models"), 0),
            "id", name);
    json_free(o);
    free(text);
}

/* ---- the page -------------------------------------------------------------------------------- */

static char *page(const ServerInfo *s, const PageStatus *p)
{
    Bytes b = { 0 };
    page_write(&b, s, p);
    bytes_byte(&b, 0);
    assert_false(b.failed);
    return b.p;
}

static void the_page_shows_how_things_stand_without_its_script(void **state)
{
    (void)state;
    char *html = page(&server, &(PageStatus){ 90061, 4, 3, 2, "ds4 1.0", "cpu, q2", "5 chunks" });
    contains(html, "<!doctype html>");
    contains(html, "id=\"model\">deepseek-v4-flash<");
    contains(html, "id=\"context\">131072 tokens<");
    contains(html, "id=\"uptime\">1 d 1 h<");
    contains(html, "id=\"slots\">3 of 4 at work<");
    contains(html, "id=\"queue\">2 waiting<");
    contains(html, "id=\"build\">ds4 1.0<");
    contains(html, "id=\"engine\">cpu, q2<");
    contains(html, "id=\"kept\">5 chunks<");
    free(html);
    html = page(&(ServerInfo){ .model = NULL }, &(PageStatus){ .uptime = 59.9 });
    contains(html, "id=\"context\">still loading<");
    contains(html, "id=\"uptime\">59 s<");
    assert_null(strstr(html, "id=\"engine\""));
    assert_null(strstr(html, "id=\"kept\""));
    free(html);
}

static void markup_in_names_is_text(void **state)
{
    (void)state;
    ServerInfo s = server;
    s.model = "<script>alert('x')</script>&\"";
    char *html = page(&s, &(PageStatus){ .build = "<b>", .quant = "</td>" });
    contains(html, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;");
    assert_null(strstr(html, "alert('x')"));
    assert_null(strstr(html, "<b>"));
    contains(html, "&lt;/td&gt;");
    free(html);
}

/* Every element that the script looks for, and every tag's end. */
static void the_page_is_whole_and_asks_nobody_else(void **state)
{
    (void)state;
    static const char *const ids[] = { "model", "context", "uptime", "slots",
                                       "queue", "jobs",    "state" };
    static const char *const tags[] = { "html", "head", "body",   "table",
                                        "tr",   "td",   "script", "style" };
    char *html = page(&server, &(PageStatus){ 0 });
    for (size_t i = 0; i < COUNT(ids); i++) {
        char mark[32];
        snprintf(mark, sizeof mark, "id=\"%s\"", ids[i]);
        contains(html, mark);
    }
    for (size_t i = 0; i < COUNT(tags); i++) {
        int open = 0;
        char start[16], end[16];
        size_t n = (size_t)snprintf(start, sizeof start, "<%s", tags[i]);
        snprintf(end, sizeof end, "</%s>", tags[i]);
        for (const char *p = html; (p = strstr(p, start)); p++)
            open += p[n] == '>' || p[n] == ' ';
        for (const char *p = html; (p = strstr(p, end)); p++)
            open--;
        assert_int_equal(open, 0);
    }
    assert_null(strstr(html, "http:"));
    assert_null(strstr(html, "https:"));
    assert_null(strstr(html, "src="));
    assert_null(strstr(html, "innerHTML"));
    contains(html, "fetch('/status')");
    free(html);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(claude_code_is_started_by_one_command),
        cmocka_unit_test(opencodes_file_names_the_model_and_its_limits),
        cmocka_unit_test(codexs_file_has_its_tables_in_order),
        cmocka_unit_test(pis_file_names_the_api),
        cmocka_unit_test(an_answer_never_takes_the_whole_context),
        cmocka_unit_test(where_keys_are_needed_a_placeholder_says_so),
        cmocka_unit_test(other_machines_need_the_address_of_this_one),
        cmocka_unit_test(any_name_and_address_stays_in_its_place),
        cmocka_unit_test(the_page_shows_how_things_stand_without_its_script),
        cmocka_unit_test(markup_in_names_is_text),
        cmocka_unit_test(the_page_is_whole_and_asks_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
