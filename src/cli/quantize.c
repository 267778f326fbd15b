/* quantize.c - ds4 quantize: a published checkpoint, or another GGUF, to a GGUF. */
#include "cli.h"
#include "../quantize/convert.h"
#include <math.h>
#include <stdio.h>

static const char about[] =
    "Converts a checkpoint directory (config.json, safetensors files with the official tensor\n"
    "names, tokenizer.json) or another GGUF to a GGUF. Memory does not grow with the model. What "
    "is\n"
    "interrupted goes on where it was when the same command is given again.";

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

/* A line of the comparison. */
static bool print_comparison(void *user, const Comparison *c, ds4_err *err)
{
    Bytes b = { 0 };
    (void)user;
    cli_progress_end();
    bytes_printf(&b, "%s\t%s\t%s\t%llu\t%llu\t%.6f\t", c->name, c->from, c->to,
                 (unsigned long long)c->values, (unsigned long long)c->bytes, c->rms);
    if (isnan(c->weighted))
        bytes_str(&b, "-");
    else
        bytes_printf(&b, "%.6f", c->weighted);
    bytes_printf(&b, "\t%.6g\n", c->worst);
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for a line") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

static bool compare_header(ds4_err *err)
{
    static const char line[] = "tensor\tfrom\tto\tvalues\tbytes\trms\tweighted\tworst\n";
    return cli_out(line, sizeof line - 1, err);
}

static bool add_types(TypeRules *rules, const ValueList *texts, ds4_err *err)
{
    for (size_t i = 0; i < texts->n; i++)
        if (!type_rules_add(rules, texts->value[i], err))
            return false;
    return true;
}

typedef struct {
    ConvertOptions opt;
    const char *out;
    bool dry_run, compare;
    ValueList types;
} Asked;

static bool work(Asked *a, ds4_err *err)
{
    Convert c;
    TypeRules rules = { 0 };
    if (!add_types(&rules, &a->types, err) || (a->compare && !compare_header(err)))
        return false;
    a->opt.types = &rules;
    if (a->compare)
        a->opt.compared = print_comparison;
    if (!convert_open(&c, &a->opt, err))
        return false;
    bool ok = a->dry_run ? list(&c, err) : convert_write(&c, a->out, err);
    convert_close(&c);
    return ok;
}

int cmd_quantize(int argc, char **argv)
{
    Asked a = { .opt = { .progress = cli_progress, .note = print_note, .stop = cli_interrupted } };
    const Option options[] = {
        { OPT_STR, "--in", "PATH", &a.opt.in, "the checkpoint's directory, or a GGUF", 0, 0 },
        { OPT_STR, "-o, --out", "FILE", &a.out, "the GGUF to write", 0, 0 },
        { OPT_STR, "--recipe", "NAME", &a.opt.recipe,
          "f32, bf16, q8, q4, q2-q4, q2 or mxfp4: the formats of the tensors", 0, 0 },
        { OPT_LIST, "--tensor-type", "PATTERN=TYPE", &a.types,
          "other formats for matrices whose names match ('*': anything); the first pattern counts",
          0, 0 },
        { OPT_STR, "--imatrix", "FILE", &a.opt.imatrix,
          "importance of the columns (GGUF or legacy .dat), for q2_k, q4_k and iq2_xxs", 0, 0 },
        { OPT_STR, "--name", "TEXT", &a.opt.name,
          "general.name; default: the input's, or the directory's", 0, 0 },
        { OPT_INT, "-t, --threads", "N", &a.opt.threads, "default: one a physical core", 1, 1024 },
        { OPT_FLAG, "--compare", NULL, &a.compare,
          "print how far each tensor came out; without --out nothing is written", 0, 0 },
        { OPT_FLAG, "--restart", NULL, &a.opt.restart,
          "begin anew, whatever an interrupted attempt has left", 0, 0 },
        { OPT_FLAG, "--dry-run", NULL, &a.dry_run,
          "only list the tensors that would be written, as tab-separated columns", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 quantize --in PATH --recipe NAME "
                                   "(--out FILE | --compare | --dry-run)",
                          .about = about,
                          .tables = { options } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;
    if (!a.opt.in || !a.opt.recipe)
        return cli_usage_error("quantize needs --in PATH and --recipe NAME");
    if (a.dry_run ? a.out || a.compare : !a.out && !a.compare)
        return cli_usage_error("quantize needs --out FILE, --compare or both, or else --dry-run");
    if (!a.out && (a.opt.restart || a.opt.name))
        return cli_usage_error("%s is of the file, and there is no --out FILE",
                               a.opt.restart ? "--restart" : "--name");

    ds4_err err = { 0 };
    cli_catch_interrupt(NULL);
    bool ok = work(&a, &err);
    cli_progress_end();
    return ok ? 0 : cli_fail(&err);
}
