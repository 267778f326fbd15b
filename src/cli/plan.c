/* plan.c - ds4 plan: bytes by purpose, before anything is loaded. */
#include "cli.h"

static const char about[] =
    "Says what a model needs for a context and a number of sessions, whether this machine has\n"
    "it, the largest context that fits, and the most sessions. Reads only the file's header.\n"
    "The other commands take just that much, at their start, or refuse to.";

static void put_line(Bytes *b, const char *what, uint64_t bytes, const char *note)
{
    char size[16];
    bytes_printf(b, "%-16s %10s%s%s\n", what, cli_size(size, bytes), *note ? "  " : "", note);
}

static void put_text(Bytes *b, const ds4_plan *p)
{
    char size[16];
    Bytes note = { 0 };
    bytes_printf(&note, "%d session%s of %s, %d tokens each", p->sessions,
                 p->sessions == 1 ? "" : "s", cli_size(size, p->kv_session), p->context);
    bytes_byte(&note, '\0');
    bytes_printf(b, "%-16s %10s\n", "device", p->device);
    put_line(b, "weights", p->weights, p->mapped ? "mapped" : "copied to the device");
    put_line(b, "KV", p->kv, note.failed ? "" : note.p);
    put_line(b, "marks", p->marks, "that sessions can go back to");
    bytes_clear(&note);
    bytes_printf(&note, "of a step of %d tokens; tokens and logits of the sessions", p->max_rows);
    bytes_byte(&note, '\0');
    put_line(b, "activations", p->activations, note.failed ? "" : note.p);
    put_line(b, "scratch", p->scratch, "");
    if (p->beside)
        put_line(b, "beside", p->beside, "kept for the server's store");
    put_line(b, "total", p->total, "");
    put_line(b, "must be free", p->required,
             p->mapped ? "weights are mapped"
                       : "marks, logits, tokens and a store are in the host's memory");
    put_line(b, "is free", p->available, p->available ? "" : "not known");
    bytes_printf(b,
                 "%s. With %d session%s the largest context that fits is %d tokens,\n"
                 "with %d tokens the most sessions are %d\n",
                 p->fits ? "It fits" : "It does not fit", p->sessions, p->sessions == 1 ? "" : "s",
                 p->max_context, p->context, p->max_sessions);
    bytes_release(&note);
}

static void put_json(Bytes *b, const ds4_plan *p)
{
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        { "weights", p->weights },
        { "kv_session", p->kv_session },
        { "kv", p->kv },
        { "marks", p->marks },
        { "activations", p->activations },
        { "scratch", p->scratch },
        { "beside", p->beside },
        { "total", p->total },
        { "required", p->required },
        { "available", p->available },
        { "context", (uint64_t)p->context },
        { "sessions", (uint64_t)p->sessions },
        { "max_rows", (uint64_t)p->max_rows },
        { "max_context", (uint64_t)p->max_context },
        { "max_sessions", (uint64_t)p->max_sessions },
    };
    bytes_printf(b, "{\"device\":");
    cli_json_str(b, str_of(p->device));
    bytes_byte(b, ',');
    for (size_t i = 0; i < COUNT(fields); i++)
        bytes_printf(b, "\"%s\":%llu,", fields[i].name, (unsigned long long)fields[i].value);
    bytes_printf(b, "\"mapped\":%s,\"fits\":%s}\n", p->mapped ? "true" : "false",
                 p->fits ? "true" : "false");
}

int cmd_plan(int argc, char **argv)
{
    ModelOptions m = { 0 };
    bool json = false;
    int store_mb = 0;
    const Option options[] = {
        { OPT_TITLE, "Plan", NULL, NULL, NULL, 0, 0 },
        { OPT_INT, "--sessions, --slots", "N", &m.engine.sessions,
          "sessions open at once; default 1 (serve: 2)", 1, 4096 },
        { OPT_INT, "--kv-ram-mb", "N", &store_mb,
          "memory that a server's store takes beside; default 0", 0, 1 << 24 },
        { OPT_FLAG, "--json", NULL, &json, "one JSON object, in bytes", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 plan [options]",
                          .about = about,
                          .tables = { options, cli_model_options(&m) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;

    ds4_err err = { 0 };
    ds4_plan plan;
    m.engine.beside = (uint64_t)store_mb << 20;
    if (!cli_model_settle(&m, &err) || !ds4_plan_make(&plan, &m.engine, &err))
        return cli_fail(&err);
    Bytes b = { 0 };
    if (json)
        put_json(&b, &plan);
    else
        put_text(&b, &plan);
    bool ok = b.failed ? fail(&err, DS4_ENOMEM, "no memory for the plan's text")
                       : cli_out(b.p, b.n, &err);
    bytes_release(&b);
    return ok ? 0 : cli_fail(&err);
}
