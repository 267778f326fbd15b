/* forward.h - one step through the model. */
#ifndef FORWARD_H
#define FORWARD_H
#include "kv.h"
#include "model.h"
#include <stdatomic.h>

/* Everything one step touches. */
typedef struct {
    const Model *model;
    Kv *kv;
    Backend *be;
    const Step *step;
    atomic_bool *cancel; /* looked at between layers; may be NULL */
    Buf streams, mix, x, y, qr, q, o, pick, ids, gates, logits;
    bool at_logits; /* the last step came so far: those of the step before are gone */
} Run;

uint64_t run_bytes(const Shape *s, int max_rows, int max_out);
bool run_init(Run *r, const Model *m, Kv *kv, Backend *be, int max_rows, int max_out, ds4_err *err);
void run_release(Run *r);

/* Run one step: every row of every span through the whole model. Logits of
 * step->out are in r->logits afterwards. DS4_ECANCELED when *cancel was set. */
bool forward(Run *r, const Step *step, ds4_err *err);

#endif
