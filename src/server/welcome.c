/* welcome.c - settings of four agents, ready to be pasted.
 *
 * The forms are those that the tests with the real clients use. Claude Code takes
 * its settings from the environment, the others from a file. */
#include "welcome.h"
#include "wire.h"

typedef struct {
    Bytes *out;
    Str url, model;
    const char *key;
    const ServerInfo *info;
} Welcome;

static void welcome_claude(const Welcome *w);
static void welcome_opencode(const Welcome *w);
static void welcome_codex(const Welcome *w);
static void welcome_pi(const Welcome *w);

void welcome_write(Bytes *out, const char *url, bool needs_key, const ServerInfo *s)
{
    Welcome w = { .out = out,
                  .url = str_of(url),
                  .model = str_of(s->model),
                  .key = needs_key ? "YOUR_API_KEY" : "local",
                  .info = s };
    while (w.url.n && w.url.p[w.url.n - 1] == '/')
        w.url.n--;
    bytes_printf(out, "%.*s serves %s with %d tokens of context.\n", (int)w.url.n, w.url.p,
                 s->model, s->context);
    bytes_str(out, needs_key ? "Put one of your keys in the place of YOUR_API_KEY.\n"
                             : "No key is needed; clients want one all the same.\n");
    if (strstr(url, "://0.0.0.0") || strstr(url, "://[::]"))
        bytes_str(out,
                  "On other machines put the address of this one in the place of the URL's.\n");
    welcome_claude(&w);
    welcome_opencode(&w);
    welcome_codex(&w);
    welcome_pi(&w);
}

/* ---- in the shell ------------------------------------------------------------------- */

/* s as one word of a POSIX shell. */
static void put_word(Bytes *out, Str s)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-_.:/";
    bool quoted = s.n == 0;
    for (size_t i = 0; i < s.n; i++)
        quoted |= !memchr(plain, s.p[i], sizeof plain - 1);
    if (!quoted) {
        bytes_put(out, s.p, s.n);
        return;
    }
    bytes_byte(out, '\'');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\'')
            bytes_str(out, "'\\''");
        else
            bytes_byte(out, (unsigned char)s.p[i]);
    }
    bytes_byte(out, '\'');
}

static void put_variable(Bytes *out, const char *name, Str value)
{
    bytes_printf(out, " %s=", name);
    put_word(out, value);
}

/* It takes unknown models for ones of a million tokens, and with a key of
 * Anthropic's in the environment it would use that. */
static void welcome_claude(const Welcome *w)
{
    static const char *const models[] = { "ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_OPUS_MODEL",
                                          "ANTHROPIC_DEFAULT_SONNET_MODEL",
                                          "ANTHROPIC_DEFAULT_HAIKU_MODEL",
                                          "CLAUDE_CODE_SUBAGENT_MODEL" };
    bytes_str(w->out, "\nClaude Code:\n\nenv -u ANTHROPIC_API_KEY");
    put_variable(w->out, "ANTHROPIC_BASE_URL", w->url);
    put_variable(w->out, "ANTHROPIC_AUTH_TOKEN", str_of(w->key));
    for (size_t i = 0; i < COUNT(models); i++) {
        bytes_str(w->out, " \\\n ");
        put_variable(w->out, models[i], w->model);
    }
    bytes_printf(w->out,
                 " \\\n  CLAUDE_CODE_MAX_CONTEXT_TOKENS=%d"
                 " \\\n  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"
                 " CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK=1 claude\n",
                 w->info->context);
}

/* ---- in files -------------------------------------------------------------------------- */

/* "before" s "after" as a string of JSON, which one of TOML can be, too. */
static void put_string(Bytes *out, const char *before, Str s, const char *after)
{
    bytes_byte(out, '"');
    bytes_str(out, before);
    wire_chars(out, s);
    bytes_str(out, after);
    bytes_byte(out, '"');
}

static void put_url(const Welcome *w, const char *path) { put_string(w->out, "", w->url, path); }

/* Clients keep so much of the context free for an answer, and shorten their
 * conversation when it does not fit any more: all of it would leave no room. */
static int room_for_answer(const Welcome *w)
{
    return MIN(w->info->max_output, MIN(w->info->context / 4, 32000));
}

static void put_model(const Welcome *w) { put_string(w->out, "", w->model, ""); }

static void welcome_opencode(const Welcome *w)
{
    Bytes *out = w->out;
    bytes_str(out, "\nopencode, in opencode.json (of a project, or in ~/.config/opencode):\n\n"
                   "{ \"$schema\": \"https://opencode.ai/config.json\",\n"
                   "  \"provider\": { \"ds4\": { \"npm\": \"@ai-sdk/openai-compatible\", \"name\": "
                   "\"ds4\",\n    \"options\": { \"baseURL\": ");
    put_url(w, "/v1");
    bytes_printf(out, ", \"apiKey\": \"%s\" },\n    \"models\": { ", w->key);
    put_model(w);
    bytes_printf(out,
                 ": { \"reasoning\": true, \"tool_call\": true,\n"
                 "      \"limit\": { \"context\": %d, \"output\": %d } } } } },\n  \"model\": ",
                 w->info->context, room_for_answer(w));
    put_string(out, "ds4/", w->model, "");
    bytes_str(out, ", \"small_model\": ");
    put_string(out, "ds4/", w->model, "");
    bytes_str(out, ", \"share\": \"disabled\" }\n");
}

/* The catalogue tells it the context, and spares it half of its own prompt. */
static void welcome_codex(const Welcome *w)
{
    Bytes *out = w->out;
    bytes_printf(
        out, "\nCodex, in ~/.codex/config.toml; then: DS4_API_KEY=%s codex\n\nmodel = ", w->key);
    put_model(w);
    bytes_str(out, "\nmodel_provider = \"ds4\"\n\n[model_providers.ds4]\nname = \"ds4\"\n"
                   "base_url = ");
    put_url(w, "/v1");
    bytes_str(out, "\nwire_api = \"responses\"\nenv_key = \"DS4_API_KEY\"\nmodel_catalog_url = ");
    put_url(w, "/v1/codex/models");
    bytes_str(out, "\n\n[features]\napi_key_model_discovery = true\n");
}

static void welcome_pi(const Welcome *w)
{
    Bytes *out = w->out;
    bytes_str(out, "\nPi, in ~/.pi/agent/models.json; then: pi --provider ds4 --model ");
    put_word(out, w->model);
    bytes_str(out, "\n\n{ \"providers\": { \"ds4\": { \"baseUrl\": ");
    put_url(w, "/v1");
    bytes_printf(out,
                 ",\n  \"api\": \"openai-completions\", \"apiKey\": \"%s\",\n  \"models\": [{ "
                 "\"id\": ",
                 w->key);
    put_model(w);
    bytes_printf(out,
                 ", \"reasoning\": true, \"input\": [\"text\"],\n    \"contextWindow\": %d, "
                 "\"maxTokens\": %d, \"compat\": { \"thinkingFormat\": \"deepseek\" } }] } } }\n",
                 w->info->context, room_for_answer(w));
}
