/* prepare.c - body to turn, turn to prompt, tools and formats to a grammar. */
#include "prepare.h"
#include "../json/json.h"

/* ---- body to turn ------------------------------------------------------------- */

bool prepare_read(Turn *t, const Dialect *d, Str body, const Headers *h, const ServerInfo *s,
                  ApiError *e)
{
    ds4_err err = { 0 };
    Json *json = json_read(body, &err);
    if (json)
        return d->parse(t, json, h, s, e);
    if (err.code == DS4_ENOMEM)
        return api_fail(e, 503, "out_of_memory", NULL, "no memory to read the request");
    return api_fail(e, 400, "invalid_json", NULL, "%s", err.msg);
}

/* ---- turn to tokens ------------------------------------------------------------- */

static bool continues(const Turn *t)
{
    return t->n_messages && t->messages[t->n_messages - 1].role == CHAT_ASSISTANT;
}

bool prepare_prompt(const Turn *t, const ds4_vocab *v, bool preview, ChatPrompt *out, ds4_err *err)
{
    /* The preview release has one plain way to think, which it calls high. */
    bool plain = preview && t->think == CHAT_THINK_LOW;
    ChatOptions opt = { .think = plain ? CHAT_THINK_HIGH : t->think,
                        .preview = preview,
                        .escape_results = true };
    return chat_render(out, v, t->messages, t->n_messages, &opt, err);
}

/* A raw prompt is all the client's own, control tokens included. The model
 * knows no text that does not start with the begin-of-sentence token. */
static bool raw_tokens(const Turn *t, const ds4_vocab *v, Tokens *out, ds4_err *err)
{
    int32_t bos = vocab_controls(v)->bos;
    Str mark = vocab_bytes(v, bos);
    bool has_bos = t->raw_ids ? t->n_raw_ids && t->raw_ids[0] == bos
                              : t->raw_text.n >= mark.n && mark.n &&
                                    memcmp(t->raw_text.p, mark.p, mark.n) == 0;
    if (!has_bos && bos >= 0)
        tokens_put(out, bos);
    for (size_t i = 0; i < t->n_raw_ids; i++) {
        if (t->raw_ids[i] >= vocab_size(v))
            return fail(err, DS4_EINVAL, "prompt[%zu] is %d, the vocabulary has %d tokens", i,
                        t->raw_ids[i], vocab_size(v));
        tokens_put(out, t->raw_ids[i]);
    }
    return t->raw_ids || bpe_encode(v, t->raw_text, true, out, err);
}

static bool make_tokens(Job *j, const Prepare *p, ds4_err *err)
{
    ChatPrompt prompt = { 0 };
    const Turn *t = &j->turn;
    if (t->raw)
        return raw_tokens(t, p->vocab, &j->prompt, err);
    bool ok = prepare_prompt(t, p->vocab, p->preview, &prompt, err) &&
              chat_tokens(&prompt, p->vocab, &j->prompt, err);
    chat_prompt_release(&prompt);
    j->thinking = t->think != CHAT_THINK_OFF && !continues(t);
    return ok;
}

static bool of_error(ApiError *e, const ds4_err *err, const char *param)
{
    if (err->code == DS4_ENOMEM)
        return api_fail(e, 503, "out_of_memory", NULL, "%s", err->msg);
    return api_fail(e, 400, "invalid_value", param, "%s", err->msg);
}

static bool gone(ApiError *e) { return api_fail(e, 499, "canceled", NULL, "the client is gone"); }

static const char *prompt_param(const Turn *t)
{
    static const char *const params[] = { [API_CHAT] = "messages",
                                          [API_COMPLETIONS] = "prompt",
                                          [API_MESSAGES] = "messages",
                                          [API_RESPONSES] = "input" };
    return params[t->api];
}

static bool fits(const Job *j, const Prepare *p, ApiError *e)
{
    const char *param = prompt_param(&j->turn);
    int context = p->info->context;
    if (j->prompt.failed)
        return api_fail(e, 503, "out_of_memory", NULL, "no memory for the prompt");
    if (j->prompt.n == 0)
        return api_fail(e, 400, "invalid_value", param, "%s: the prompt is empty", param);
    if (j->count_only || j->prompt.n < (size_t)context)
        return true;
    api_fail(e, 400, "context_length_exceeded", param, "the prompt has %zu tokens, the context %d",
             j->prompt.n, context);
    e->n_prompt = (int)MIN(j->prompt.n, (size_t)INT32_MAX);
    e->n_context = context;
    return false;
}

/* ---- what may come after it ------------------------------------------------------- */

/* Those that may be called; all of them where none may, so that it is known that
 * there are any. */
static size_t grammar_tools(const Turn *t, GrammarTool *out)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_tools; i++) {
        const Tool *tool = &t->tools[i];
        if (!tool->barred || t->choice == CHOOSE_NONE)
            out[n++] = (GrammarTool){ .name = tool->name,
                                      .parameters = tool->parameters,
                                      .text_grammar = tool->grammar,
                                      .text_syntax = tool->syntax,
                                      .custom = tool->kind == TOOL_CUSTOM,
                                      .lenient = !tool->strict };
    }
    return n;
}

static enum GrammarCalls grammar_calls(const Turn *t)
{
    switch (t->choice) {
    case CHOOSE_NONE: return CALLS_NONE;
    case CHOOSE_REQUIRED:
    case CHOOSE_NAMED: return CALLS_REQUIRED;
    case CHOOSE_AUTO: break;
    }
    return CALLS_ALLOWED;
}

static GrammarSpec grammar_spec(const Job *j, const GrammarTool *tools, size_t n)
{
    const Turn *t = &j->turn;
    return (GrammarSpec){ .thinking = j->thinking,
                          .tools = tools,
                          .n_tools = n,
                          .calls = grammar_calls(t),
                          .only = t->choice_name,
                          .parallel = t->parallel,
                          .json_object = t->format == FORMAT_JSON_OBJECT,
                          .schema = t->format == FORMAT_JSON_SCHEMA ? t->schema : NULL,
                          .regex = t->format == FORMAT_REGEX ? t->format_text : (Str){ 0 },
                          .lark = t->format == FORMAT_LARK ? t->format_text : (Str){ 0 } };
}

/* What a client called the form of the answer, or where its tools are. */
static const char *form_param(const Turn *t)
{
    static const char *const params[] = { [API_CHAT] = "response_format",
                                          [API_COMPLETIONS] = "response_format",
                                          [API_MESSAGES] = "output_config",
                                          [API_RESPONSES] = "text.format" };
    switch (t->format) {
    case FORMAT_TEXT: return "tools";
    case FORMAT_REGEX: return "regex";
    case FORMAT_LARK: return "grammar";
    default: return params[t->api];
    }
}

static bool nobody_waits(void *job) { return job_canceled(job) != NULL; }

static bool make_grammar(Job *j, const Prepare *p, ApiError *e)
{
    const Turn *t = &j->turn;
    ds4_err err = { 0 };
    if (!t->n_tools && t->format == FORMAT_TEXT)
        return true;
    GrammarTool *tools = arena_array(&j->turn.arena, t->n_tools, sizeof *tools);
    if (!tools)
        return api_fail(e, 503, "out_of_memory", NULL, "no memory for a grammar");
    GrammarSpec spec = grammar_spec(j, tools, grammar_tools(t, tools));
    spec.stop = nobody_waits;
    spec.user = j;
    j->grammar = grammar_compile(&spec, p->trie, p->vocab, &err);
    if (err.code == DS4_ECANCELED)
        return gone(e);
    return j->grammar || of_error(e, &err, form_param(t));
}

/* ---- all of it ----------------------------------------------------------------------- */

static bool prepare(Job *j, const Prepare *p, ApiError *e)
{
    Turn *t = &j->turn;
    Headers h = { job_header, j };
    ds4_err err = { 0 };
    if (!prepare_read(t, j->dialect, bytes_view(&j->body), &h, p->info, e))
        return false;
    bytes_release(&j->body);
    if (job_canceled(j))
        return gone(e);
    /* Clients have parts of conversations counted: those are taken as they are sent. */
    if (p->tools && !t->raw && !j->count_only)
        tool_memory_apply(p->tools, t);
    if (!t->raw)
        recall_apply(p->recall, t, &j->recalled);
    if (!make_tokens(j, p, &err))
        return of_error(e, &err, prompt_param(t));
    return fits(j, p, e) && (j->count_only || make_grammar(j, p, e));
}

void job_prepare(Job *j, const Prepare *p)
{
    if (!prepare(j, p, &j->error) && j->error.status == 0)
        api_fail(&j->error, 500, "internal", NULL, "the request could not be prepared");
    j->prepared_ns = clock_ns();
}
