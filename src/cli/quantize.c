/* quantize.c - ds4 quantize: a published checkpoint to a GGUF. */
#include "cli.h"
#include "../quantize/convert.h"
#include <stdio.h>

static const char about[] =
    "Converts a checkpoint directory (config.json, safetensors files with the official tensor\n"
    "names, tokenizer.json) to a GGUF. Memory does not grow with the model.";

static void print_note(void *user, const char *line)
{
    (void)user;
    cli_progress_end();
    fprintf(stderr, "ds4: %s\n", line);
}

/* The tensor table on stdout, its total on stderr. */
static bool list(const Convert *c, ds4_err *err)
{
    Bytes text = { 0 };
    char size[16];
    plan_list(&c->plan, &text);
    bool ok = text.failed ? fail(err, DS4_ENOMEM, "no memory for the list")
                          : cli_out(text.p, text.n, err);
    bytes_release(&text);
    if (ok)
        fprintf(stderr, "%zu tensors, %llu bytes (%s)\n", c->plan.n,
                (unsigned long long)c->plan.bytes, cli_size(size, c->plan.bytes));
    return ok;
}

int cmd_quantize(int argc, char **argv)
{
    const char *out = NULL;
    bool dry_run = false;
    ConvertOptions opt = { .progress = cli_progress, .note = print_note, .stop = cli_interrupted };
    const Option options[] = {
        { OPT_STR, "--in", "DIR", &opt.in, "the checkpoint", 0, 0 },
        { OPT_STR, "-o, --out", "FILE", &out, "the GGUF to write", 0, 0 },
        { OPT_STR, "--recipe", "NAME", &opt.recipe,
          "f32, bf16, q8, q4, q2-q4, q2 or mxfp4: the formats of the tensors", 0, 0 },
        { OPT_STR, "--name", "TEXT", &opt.name,
          "general.name; default: config.json's _name, or the directory's", 0, 0 },
        { OPT_INT, "--threads", "N", &opt.threads, "default: one a physical core", 1, 1024 },
        { OPT_FLAG, "--dry-run", NULL, &dry_run,
          "only list the tensors that would be written, as tab-separated columns", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 quantize --in DIR --recipe NAME (--out FILE | --dry-run)",
                          .about = about,
                          .tables = { options } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;
    if (!opt.in || !opt.recipe)
        return cli_usage_error("quantize needs --in DIR and --recipe NAME");
    if (!out == !dry_run)
        return cli_usage_error("quantize needs one of --out FILE and --dry-run");

    ds4_err err = { 0 };
    Convert c;
    cli_catch_interrupt(NULL);
    bool ok = convert_open(&c, &opt, &err);
    if (ok) {
        ok = dry_run ? list(&c, &err) : convert_write(&c, out, &err);
        convert_close(&c);
    }
    cli_progress_end();
    return ok ? 0 : cli_fail(&err);
}
