/* importance.h - an importance matrix, laid out by the tensors of a plan.
 *
 * An entry is found by the tensor's name in the GGUF, else by its official name (of an
 * expert: its own). Only encoders that search use it; of all others it weighs the errors. */
#ifndef IMPORTANCE_H
#define IMPORTANCE_H
#include "imatrix.h"
#include "plan.h"

typedef struct {
    Imatrix matrix;
    const float ***row; /* [plan.n][experts or 1]; NULL where nothing is known */
    uint64_t hash;      /* of all of it */
    bool decides;       /* about bytes: a tensor's encoder searches */
    Arena arena;
} Importance;

/* Reads the file and tells by `note` which tensors it lacks and which experts were never seen:
 * there all columns count alike. Fails where it is about another model. */
bool importance_read(Importance *m, const char *path, const Plan *p,
                     void (*note)(void *user, const char *line), void *user, ds4_err *err);
void importance_release(Importance *m);

/* quantize.imatrix.* */
void importance_put(const Importance *m, GgufWriter *w, const char *path);

#endif
