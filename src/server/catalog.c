/* catalog.c - the model, described in the forms of OpenAI, Anthropic, Codex,
 * llama.cpp and ollama. */
#include "catalog.h"
#include "request.h"
#include "wire.h"
#include <time.h>

static Str display_name(Str id)
{
    return str_eq(id, STR("deepseek-v4-flash")) ? STR("DeepSeek V4 Flash") : id;
}

/* "key":"value", with what stands before it. */
static void put_text(Bytes *out, const char *before, const char *key, Str value)
{
    bytes_printf(out, "%s\"%s\":", before, key);
    wire_str(out, value);
}

static void put_date(Bytes *out, const char *key, int64_t seconds)
{
    char text[32] = "";
    time_t t = (time_t)seconds;
    struct tm utc;
    if (gmtime_r(&t, &utc))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    put_text(out, ",", key, str_of(text));
}

/* ---- OpenAI and Anthropic ------------------------------------------------------------- */

/* Members of both: each client looks at its own and ignores the others. */
static void put_model(Bytes *out, const ServerInfo *s, Str id)
{
    put_text(out, "{", "id", id);
    bytes_str(out, ",\"object\":\"model\",\"type\":\"model\",\"owned_by\":\"ds4\"");
    bytes_printf(out, ",\"created\":%lld", (long long)s->created);
    put_date(out, "created_at", s->created);
    put_text(out, ",", "name", display_name(id));
    put_text(out, ",", "display_name", display_name(id));
    bytes_printf(out,
                 ",\"context_length\":%d,\"max_model_len\":%d,\"max_input_tokens\":%d,"
                 "\"max_tokens\":%d,\"top_provider\":{\"context_length\":%d,"
                 "\"max_completion_tokens\":%d,\"is_moderated\":false}",
                 s->context, s->context, s->context, s->max_output, s->context, s->max_output);
    bytes_str(out, ",\"supported_parameters\":[\"tools\",\"tool_choice\",\"parallel_tool_calls\","
                   "\"reasoning\",\"reasoning_effort\",\"max_tokens\","
                   "\"temperature\",\"top_p\",\"top_k\",\"min_p\",\"seed\",\"stop\","
                   "\"response_format\",\"structured_outputs\",\"logprobs\",\"top_logprobs\","
                   "\"logit_bias\",\"presence_penalty\",\"frequency_penalty\"]}");
}

void catalog_models(Bytes *out, const ServerInfo *s)
{
    Str id = str_of(s->model);
    bytes_str(out, "{\"object\":\"list\",\"data\":[");
    put_model(out, s, id);
    bytes_str(out, "],\"has_more\":false");
    put_text(out, ",", "first_id", id);
    put_text(out, ",", "last_id", id);
    bytes_byte(out, '}');
}

bool catalog_model(Bytes *out, const ServerInfo *s, Str id)
{
    if (s->strict_model && !request_knows_model(id, s))
        return false;
    put_model(out, s, id);
    return true;
}

/* ---- Codex ---------------------------------------------------------------------------- */

/* What Codex 0.169 asks for; it refuses a catalogue that lacks one of these. The
 * windows are told in full: it compacts at the given percentage of them. */
static const char codex_abilities[] =
    ",\"supported_reasoning_levels\":["
    "{\"effort\":\"low\",\"description\":\"Thinks briefly\"},"
    "{\"effort\":\"high\",\"description\":\"Thinks as long as the task needs\"},"
    "{\"effort\":\"max\",\"description\":\"Thinks as long as it can\"}]"
    ",\"shell_type\":\"unified_exec\",\"visibility\":\"list\",\"supported_in_api\":true"
    ",\"priority\":1,\"availability_nux\":null,\"upgrade\":null"
    ",\"supports_reasoning_summaries\":true,\"default_reasoning_summary\":\"auto\""
    ",\"support_verbosity\":false,\"default_verbosity\":null"
    ",\"apply_patch_tool_type\":\"freeform\""
    ",\"truncation_policy\":{\"mode\":\"tokens\",\"limit\":10000}"
    ",\"supports_parallel_tool_calls\":true,\"effective_context_window_percent\":95"
    ",\"experimental_supported_tools\":[],\"input_modalities\":[\"text\"]"
    ",\"supports_search_tool\":false";

static const char codex_instructions[] =
    "You are Codex, a coding agent in the user's workspace. Look at the files before you change "
    "them, and follow the style that is there. Change files with apply_patch. Run what proves the "
    "change, and go on until the task is done. Then say in a few sentences what you did and what "
    "is left open.";

static const char *codex_effort(int think)
{
    if (think == CHAT_THINK_MAX)
        return "max";
    return think == CHAT_THINK_HIGH ? "high" : "low";
}

void catalog_codex(Bytes *out, const ServerInfo *s)
{
    Str id = str_of(s->model);
    put_text(out, "{\"models\":[{", "slug", id);
    put_text(out, ",", "display_name", display_name(id));
    put_text(out, ",", "description", STR("Runs on your own machine, by ds4"));
    put_text(out, ",", "default_reasoning_level", str_of(codex_effort(s->default_think)));
    bytes_str(out, codex_abilities);
    put_text(out, ",", "base_instructions", str_of(codex_instructions));
    bytes_printf(out, ",\"context_window\":%d,\"max_context_window\":%d}]}", s->context,
                 s->context);
}

/* ---- llama.cpp -------------------------------------------------------------------------- */

static Str last_part(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return str_of(slash ? slash + 1 : path);
}

void catalog_props(Bytes *out, const ServerInfo *s, const CatalogProps *p)
{
    bytes_printf(out,
                 "{\"default_generation_settings\":{\"n_ctx\":%d,\"n_predict\":%d},"
                 "\"total_slots\":%d",
                 s->context, s->max_output, p->slots);
    put_text(out, ",", "model_alias", str_of(s->model));
    put_text(out, ",", "model_path", last_part(p->model_path));
    put_text(out, ",", "build_info", str_of(p->build));
    put_text(out, ",", "chat_template",
             STR("built in: the official encoder's form, which is no template"));
    bytes_str(out, ",\"modalities\":{\"vision\":false,\"audio\":false}}");
}

/* ---- ollama ------------------------------------------------------------------------------ */

/* Clients refuse an ollama that is too old for what they use: this is one that
 * has /v1/responses. Ours is told beside it. */
void catalog_version(Bytes *out)
{
    bytes_str(out, "{\"version\":\"0.13.4\",\"ds4\":\"" DS4_VERSION "\"}");
}

void catalog_tags(Bytes *out, const ServerInfo *s)
{
    Str id = str_of(s->model);
    put_text(out, "{\"models\":[{", "name", id);
    put_text(out, ",", "model", id);
    put_date(out, "modified_at", s->created);
    bytes_str(out, ",\"size\":0,\"digest\":\"\",\"details\":{\"format\":\"gguf\",\"family\":"
                   "\"deepseek4\",\"families\":[\"deepseek4\"],\"parameter_size\":\"\","
                   "\"quantization_level\":\"\"}}]}");
}
