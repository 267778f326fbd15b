/* synth.h - models of random weights: the right names, shapes and types, and
 * numbers sane enough to run. For tests of everything but the text.
 *
 *     Shape s;
 *     Bytes gguf = { 0 };
 *     synth_shape(&s, "toy", 0, &err);
 *     synth_bytes(&gguf, &(SynthOptions){ .shape = &s, .recipe = "q2" }, &err);
 *
 * The same options give the same bytes on any machine and thread count. */
#ifndef SYNTH_H
#define SYNTH_H
#include "../base/bytes.h"
#include "../ops/shape.h"

typedef struct {
    const Shape *shape; /* any; synth_shape() knows some by name */
    const char *recipe; /* "f32" "bf16" "q8" "q4" "q2-q4" "q2" "mxfp4" (recipe.h) */
    const char *name;   /* general.name; NULL: one that says "synthetic" */
    uint64_t seed;
    bool alias;            /* tensors of equal type, dimensions and kind share their bytes */
    const char *tokenizer; /* path of a tokenizer.json; NULL: one token a byte, and controls */
    int threads;           /* 0: one a physical core */
    ds4_progress progress; /* or NULL */
    void *user;
    bool (*stop)(void); /* asked now and then; true cancels. Or NULL */
} SynthOptions;

/* "toy": 4 layers of ratios 0 4 128 4, the first two hashed; every recipe's
 *        block length divides its rows.
 * "mini": the same with rows of 64 and 32, for f32, bf16, q8 and mxfp4: the
 *        smallest that has everything, for tests that run thousands of tokens.
 * "flash": the published model.
 * layers 0: the shape's own number, else that many of the same pattern. */
bool synth_shape(Shape *s, const char *name, int layers, ds4_err *err);

/* Write a GGUF to a file (atomically; what is cancelled or fails leaves
 * nothing), or append it to memory. */
bool synth_file(const char *path, const SynthOptions *opt, ds4_err *err);
bool synth_bytes(Bytes *out, const SynthOptions *opt, ds4_err *err);

/* The id of control token "<think>" etc. in the default vocabulary of so many
 * tokens; -1 where it has none. */
int synth_control(int vocab, const char *text);

#endif
