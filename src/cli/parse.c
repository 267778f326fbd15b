/* parse.c - ds4 parse: what a model said, taken apart. */
#include "../text/dsml.h"
#include "../text/stream.h"
#include "cli.h"

static const char about[] =
    "Reads what a model said, control tokens spelled out, from stdin, and prints its reasoning, "
    "its\n"
    "text and its tool calls as one JSON object. Damaged calls are mended where that is safe, and\n"
    "stay text where it is not; every tool's name is taken as known.";

typedef struct {
    bool events;
    Bytes out; /* of --events: a line each */
    Bytes reasoning, content, calls, name, arguments;
    bool any;
} Parsed;

static bool every_tool(void *user, Str tool)
{
    (void)user;
    (void)tool;
    return true;
}

/* ---- one object ------------------------------------------------------------------- */

static void add_call(Bytes *out, bool first, Str name, Str arguments)
{
    bytes_str(out, first ? "{\"name\":" : ",{\"name\":");
    cli_json_str(out, name);
    bytes_str(out, ",\"arguments\":");
    cli_json_str(out, arguments);
    bytes_byte(out, '}');
}

static bool print_object(Str reasoning, Str content, const Bytes *calls, ds4_err *err)
{
    Bytes b = { 0 };
    bytes_str(&b, "{\"reasoning_content\":");
    cli_json_str(&b, reasoning);
    bytes_str(&b, ",\"content\":");
    cli_json_str(&b, content);
    bytes_str(&b, ",\"tool_calls\":[");
    bytes_put(&b, calls->p, calls->n);
    bytes_str(&b, "]}\n");
    bool ok = b.failed || calls->failed ? fail(err, DS4_ENOMEM, "no memory for the answer")
                                        : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

static bool print_strict(Str text, bool thinking, ds4_err *err)
{
    DsmlAnswer a;
    Bytes calls = { 0 };
    if (!dsml_parse(&a, text, thinking, err))
        return false;
    for (size_t i = 0; i < a.n_calls; i++)
        add_call(&calls, i == 0, a.calls[i].name, a.calls[i].arguments);
    bool ok = print_object(a.reasoning, a.content, &calls, err);
    bytes_release(&calls);
    dsml_release(&a);
    return ok;
}

/* ---- as it streams ------------------------------------------------------------------ */

static void log_event(Bytes *out, const StreamEvent *e)
{
    static const char *const names[] = {
        [STREAM_REASONING] = "reasoning", [STREAM_TEXT] = "text",
        [STREAM_CALL_BEGIN] = "call",     [STREAM_CALL_ARGS] = "arguments",
        [STREAM_CALL_END] = "call_end",
    };
    bytes_printf(out, "{\"event\":\"%s\"", names[e->kind]);
    if (e->kind >= STREAM_CALL_BEGIN)
        bytes_printf(out, ",\"index\":%d", e->call);
    if (e->kind != STREAM_CALL_END) {
        bytes_str(out, e->kind == STREAM_CALL_BEGIN ? ",\"name\":" : ",\"text\":");
        cli_json_str(out, e->bytes);
    }
    bytes_str(out, "}\n");
}

static void take_event(void *user, const StreamEvent *e)
{
    Parsed *p = user;
    Bytes *const to[] = {
        [STREAM_REASONING] = &p->reasoning, [STREAM_TEXT] = &p->content,
        [STREAM_CALL_BEGIN] = &p->name,     [STREAM_CALL_ARGS] = &p->arguments,
        [STREAM_CALL_END] = &p->arguments,
    };
    if (p->events) {
        log_event(&p->out, e);
        return;
    }
    if (e->kind == STREAM_CALL_BEGIN) {
        bytes_clear(&p->name);
        bytes_clear(&p->arguments);
    }
    bytes_put(to[e->kind], e->bytes.p, e->bytes.n);
    if (e->kind == STREAM_CALL_END) {
        add_call(&p->calls, !p->any, bytes_view(&p->name), bytes_view(&p->arguments));
        p->any = true;
    }
}

static bool stream(Parsed *p, Str text, bool thinking, size_t cut, ds4_err *err)
{
    const StreamOptions opt = { .thinking = thinking,
                                .tools = { .declared = every_tool },
                                .max_bytes = text.n };
    Stream *s = stream_new(NULL, &opt, take_event, p);
    if (!s)
        return fail(err, DS4_ENOMEM, "no memory for the answer");
    for (size_t at = 0; at < text.n; at += cut)
        if (!stream_text(s, (Str){ text.p + at, MIN(cut, text.n - at) }))
            break;
    stream_finish(s);
    bool failed = stream_failed(s) || p->out.failed || p->reasoning.failed || p->content.failed ||
                  p->name.failed || p->arguments.failed;
    stream_free(s);
    return !failed || fail(err, DS4_ENOMEM, "no memory for an answer of %zu bytes", text.n);
}

static bool print_stream(Str text, bool thinking, bool events, size_t cut, ds4_err *err)
{
    Parsed p = { .events = events };
    Bytes *const all[] = { &p.out, &p.reasoning, &p.content, &p.calls, &p.name, &p.arguments };
    bool ok = stream(&p, text, thinking, cut ? cut : MAX(text.n, 1), err);
    if (ok)
        ok = events ? cli_out(p.out.p, p.out.n, err)
                    : print_object(bytes_view(&p.reasoning), bytes_view(&p.content), &p.calls, err);
    for (size_t i = 0; i < COUNT(all); i++)
        bytes_release(all[i]);
    return ok;
}

int cmd_parse(int argc, char **argv)
{
    const char *mode = "chat";
    bool strict = false, events = false;
    int cut = 0;
    const Option options[] = {
        { OPT_STR, "--mode", "chat|thinking", &mode,
          "how the prompt ended: without thinking (default), or with it", 0, 0 },
        { OPT_FLAG, "--strict", NULL, &strict, "as the official parser: any deviation is an error",
          0, 0 },
        { OPT_FLAG, "--events", NULL, &events, "print what is told as it comes, an object a line",
          0, 0 },
        { OPT_INT, "--cut", "N", &cut, "feed it N bytes at a time; default: all at once", 1, 1e9 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 parse [options] < TEXT",
                          .about = about,
                          .tables = { options } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;
    if (strict && (events || cut))
        return cli_usage_error("--strict reads the answer as a whole: no %s with it",
                               events ? "--events" : "--cut");
    ds4_err err = { 0 };
    Bytes text = { 0 };
    bool thinking = strcmp(mode, "thinking") == 0, ok = cli_read_text(&text, "-", &err);
    if (ok && strict)
        ok = print_strict(bytes_view(&text), thinking, &err);
    else if (ok)
        ok = print_stream(bytes_view(&text), thinking, events, (size_t)cut, &err);
    bytes_release(&text);
    return ok ? 0 : cli_fail(&err);
}
