/* synth.c - ds4 synth: write a GGUF of random weights. */
#include "cli.h"
#include "../quantize/recipe.h"
#include "../quantize/synth.h"
#include <stdio.h>

static const char about[] =
    "Writes a model with the names, shapes and types of the published files, and random\n"
    "weights whose activations stay finite: for tests and for measuring speed. Its text is noise.";

int cmd_synth(int argc, char **argv)
{
    const char *out = NULL, *shape_name = "toy", *recipe = "q2";
    int layers = 0;
    SynthOptions opt = { .progress = cli_progress, .stop = cli_interrupted };
    const Option options[] = {
        { OPT_STR, "-o, --out", "FILE", &out, "the GGUF to write", 0, 0 },
        { OPT_STR, "--shape", "NAME", &shape_name,
          "toy, mini (rows of 64 and 32) or flash (the published model); default toy", 0, 0 },
        { OPT_STR, "--recipe", "NAME", &recipe, "f32, bf16, q8, q4, q2-q4, q2 or mxfp4; default q2",
          0, 0 },
        { OPT_U64, "--seed", "N", &opt.seed, "another seed, other weights; default 0", 0, 0 },
        { OPT_INT, "--layers", "N", &layers, "so many layers of the shape's pattern", 1, 128 },
        { OPT_FLAG, "--alias", NULL, &opt.alias,
          "tensors of equal type, dimensions and kind share their bytes in the file", 0, 0 },
        { OPT_STR, "--tokenizer", "FILE", &opt.tokenizer,
          "a tokenizer.json; default: one token a byte, and the control tokens", 0, 0 },
        { OPT_INT, "-t, --threads", "N", &opt.threads, "default: one a physical core", 1, 1024 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 synth --out FILE [options]",
                          .about = about,
                          .tables = { options } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;

    ds4_err err = { 0 };
    Shape shape;
    if (!out)
        return cli_usage_error("synth needs --out FILE");
    cli_catch_interrupt(NULL);
    opt.shape = &shape;
    opt.recipe = recipe;
    bool ok = synth_shape(&shape, shape_name, layers, &err) && synth_file(out, &opt, &err);
    cli_progress_end();
    return ok ? 0 : cli_fail(&err);
}
