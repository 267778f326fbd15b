/* convert.h - a published checkpoint to a GGUF.
 *
 * A tensor at a time, a few megabytes of rows at a time: memory does not grow
 * with the model. The same bytes on any number of threads. */
#ifndef CONVERT_H
#define CONVERT_H
#include "config.h"
#include "plan.h"
#include "source.h"

typedef struct {
    const char *in;        /* directory with config.json and safetensors */
    const char *recipe;    /* recipe.h */
    const char *name;      /* general.name; NULL: config.json's or the directory's */
    int threads;           /* 0: one a physical core */
    ds4_progress progress; /* or NULL */
    void (*note)(void *user, const char *line); /* what is worth knowing; or NULL */
    void *user;                                 /* of both */
    bool (*stop)(void);                         /* asked now and then; true cancels. Or NULL */
} ConvertOptions;

typedef struct {
    ConvertOptions opt;
    Config config;
    Checkpoint checkpoint;
    Plan plan;
    Source **source; /* [plan.n][experts or 1] */
    Arena arena;
} Convert;

/* Read the checkpoint's headers, find every tensor, decide every format. All
 * that is missing or not understood is named: to note, and the first in err. */
bool convert_open(Convert *c, const ConvertOptions *opt, ds4_err *err);
/* Write the file, atomically: what is cancelled or fails leaves nothing. */
bool convert_write(Convert *c, const char *path, ds4_err *err);
void convert_close(Convert *c);

#endif
