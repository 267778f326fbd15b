/* run.c - ds4 run: one answer to stdout. */
#include "answer.h"
#include <stdio.h>
#include <unistd.h>

static const char about[] =
    "Answers one prompt: -p, --prompt-file, or stdin. Speeds go to stderr. What the model thinks\n"
    "is shown dim on a terminal, is a member of --json, and is left out elsewhere.";

typedef struct {
    const char *prompt, *prompt_file;
    bool raw, json;
    ModelOptions model;
    AnswerOptions answer;
} RunOptions;

static bool read_prompt(const RunOptions *o, Bytes *text, ds4_err *err)
{
    if (o->prompt)
        bytes_str(text, o->prompt);
    else if (!cli_read_text(text, o->prompt_file ? o->prompt_file : "-", err))
        return false;
    return !text->failed || fail(err, DS4_ENOMEM, "no memory for the prompt");
}

static bool make_tokens(const RunOptions *o, const ds4_engine *e, Str text, Tokens *out,
                        ds4_err *err)
{
    if (o->raw)
        return answer_raw_prompt(e, text, out, err);
    ChatMessage m[2];
    size_t n = 0;
    if (o->answer.system)
        m[n++] = (ChatMessage){ .role = CHAT_SYSTEM, .content = str_of(o->answer.system) };
    m[n++] = (ChatMessage){ .role = CHAT_USER, .content = text };
    return answer_prompt(e, m, n, answer_thinking(&o->answer), out, err);
}

static void put_json(Bytes *b, const RunOptions *o, const ds4_engine *e, const Answer *a)
{
    int fresh = a->prompt - a->reused;
    bytes_str(b, "{\"text\":");
    cli_json_str(b, bytes_view(&a->content));
    bytes_str(b, ",\"reasoning\":");
    if (a->reasoning.n)
        cli_json_str(b, bytes_view(&a->reasoning));
    else
        bytes_str(b, "null");
    bytes_printf(b, ",\"finish\":\"%s\",\"model\":", a->finish);
    cli_json_str(b, str_of(ds4_engine_info(e).name));
    bytes_printf(b, ",\"seed\":%llu", (unsigned long long)o->answer.seed);
    bytes_printf(b,
                 ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}",
                 a->prompt, a->tokens, a->prompt + a->tokens);
    bytes_printf(b,
                 ",\"timings\":{\"prefill_ms\":%.3f,\"prefill_tps\":%.3f,\"decode_ms\":%.3f,"
                 "\"decode_tps\":%.3f}}\n",
                 a->prefill_s * 1e3, a->prefill_s > 0 ? fresh / a->prefill_s : 0, a->decode_s * 1e3,
                 a->decode_s > 0 ? a->steps / a->decode_s : 0);
}

static bool print_json(const RunOptions *o, const ds4_engine *e, const Answer *a, ds4_err *err)
{
    Bytes b = { 0 };
    put_json(&b, o, e, a);
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for the result") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

static void say_how_it_went(const RunOptions *o, const Answer *a)
{
    char speeds[160];
    answer_speeds(a, speeds, sizeof speeds);
    cli_warn("%s", speeds);
    if (strcmp(a->finish, "length") == 0)
        cli_warn("stopped at the limit of %d tokens (-n)", o->answer.tokens);
    if (strcmp(a->finish, "context") == 0)
        cli_warn("stopped: the context is full (--ctx)");
}

static bool ask(const RunOptions *o, ds4_engine *e, const Tokens *prompt, bool *interrupted,
                ds4_err *err)
{
    Printer printer;
    Answer answer = { 0 };
    uint64_t rng = o->answer.seed;
    printer_init(&printer);
    ds4_session *s = ds4_session_open(e, err);
    if (!s)
        return false;
    Question q = { .engine = e,
                   .session = s,
                   .prompt = prompt,
                   .how = &o->answer,
                   .rng = &rng,
                   .reasoning = !o->raw && answer_thinking(&o->answer) != CHAT_THINK_OFF,
                   .raw = o->raw,
                   .show = o->json ? NULL : printer_show,
                   .user = &printer };
    bool ok = answer_make(&q, &answer, err);
    if (!o->json) {
        ds4_err ignored;
        ok = printer_end(&printer, ok ? err : &ignored) && ok;
    } else if (ok) {
        ok = print_json(o, e, &answer, err);
    }
    if (ok)
        say_how_it_went(o, &answer);
    *interrupted = ok && strcmp(answer.finish, "interrupted") == 0;
    answer_release(&answer);
    ds4_session_close(s);
    return ok;
}

static int run(RunOptions *o)
{
    ds4_err err = { 0 };
    Bytes text = { 0 };
    Tokens prompt = { 0 };
    ds4_engine *e = NULL;
    bool interrupted = false;
    cli_catch_cancel();
    bool ok = read_prompt(o, &text, &err) && (e = cli_open_engine(&o->model, &err)) &&
              make_tokens(o, e, bytes_view(&text), &prompt, &err) &&
              ask(o, e, &prompt, &interrupted, &err);
    ds4_engine_close(e);
    tokens_release(&prompt);
    bytes_release(&text);
    return !ok ? cli_fail(&err) : interrupted ? 130 : 0;
}

int cmd_run(int argc, char **argv)
{
    RunOptions o = { 0 };
    const Option options[] = {
        { OPT_TITLE, "Prompt", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "-p, --prompt", "TEXT", &o.prompt, "the prompt", 0, 0 },
        { OPT_STR, "--prompt-file", "FILE", &o.prompt_file, "the prompt's file; -: stdin", 0, 0 },
        { OPT_FLAG, "--raw", NULL, &o.raw,
          "no chat markup: the text is the whole prompt, and control tokens in it count as such", 0,
          0 },
        { OPT_FLAG, "--json", NULL, &o.json,
          "one JSON object with text, reasoning, usage and timings", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 run [options] -p TEXT",
                          .about = about,
                          .tables = { options, answer_options(&o.answer),
                                      cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status < 0)
        status = answer_check(&o.answer);
    if (status >= 0)
        return status;
    if (o.prompt && o.prompt_file)
        return cli_usage_error("-p and --prompt-file exclude each other");
    if (!o.prompt && !o.prompt_file && isatty(STDIN_FILENO))
        return cli_usage_error("no prompt: give -p TEXT, --prompt-file FILE, or text on stdin");
    if (o.raw && (o.answer.think || o.answer.nothink || o.answer.think_max || o.answer.system))
        return cli_usage_error("--raw leaves no place for a system message or a mode of thinking");
    return run(&o);
}
