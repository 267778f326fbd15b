/* convert.h - a published checkpoint, or another GGUF, to a GGUF.
 *
 * A tensor at a time, a few megabytes of rows at a time: memory does not grow
 * with the model. The same bytes on any number of threads, and when the work
 * was left and taken up again (part.h). */
#ifndef CONVERT_H
#define CONVERT_H
#include "importance.h"
#include "input.h"
#include "plan.h"

/* How far a tensor came out: root of the squares of errors by that of values. */
typedef struct {
    const char *name, *from, *to; /* "F8_E4M3", "Q8_0" */
    uint64_t values, bytes;
    double rms, weighted; /* by importance; NAN where that is not known */
    double worst;         /* the largest error */
} Comparison;

typedef struct {
    const char *in;         /* directory with config.json and safetensors, or a GGUF */
    const char *recipe;     /* recipe.h */
    const TypeRules *types; /* come before the recipe's; or NULL */
    const char *imatrix;    /* file with importance; or NULL */
    const char *name;       /* general.name; NULL: the input's or the directory's */
    int threads;            /* 0: one a physical core */
    bool restart;           /* throw away what an earlier attempt has left */
    int mark_ms;            /* how often what is done is made to last; 0: 5 seconds */
    ds4_progress progress;  /* or NULL */
    void (*note)(void *user, const char *line); /* what is worth knowing; or NULL */
    /* A tensor is done; false ends the work. Or NULL. */
    bool (*compared)(void *user, const Comparison *c, ds4_err *err);
    void *user;         /* of all of them */
    bool (*stop)(void); /* asked now and then; true cancels. Or NULL */
} ConvertOptions;

typedef struct {
    ConvertOptions opt;
    Input input;
    Plan plan;
    Importance importance; /* zero: none */
    Source **source;       /* [plan.n][experts or 1] */
    Arena arena;
} Convert;

/* Read the input's headers, find every tensor, decide every format. All
 * that is missing or not understood is named: to note, and the first in err. */
bool convert_open(Convert *c, const ConvertOptions *opt, ds4_err *err);
/* Write the file; it has its name when it is whole. What is cancelled, killed or finds no room
 * goes on where it was when it is asked for again with the same options and input; other failures
 * leave nothing. path NULL: only compare. */
bool convert_write(Convert *c, const char *path, ds4_err *err);
void convert_close(Convert *c);

#endif
