/* ops.c - what holds for every backend. */
#include "ops.h"
#include "decorate.h"

const char *const op_names[N_OPS] = {
#define OP(name, params, args) #name,
    OPS(OP)
#undef OP
};

void backend_close(Backend *be)
{
    if (be)
        be->op->close(be);
}

bool step_fits(const Step *step, int max_rows, int max_out, int max_context, ds4_err *err)
{
    if (step->n_rows > max_rows)
        return fail(err, DS4_EINVAL, "a step of %d rows: the backend was opened for %d",
                    step->n_rows, max_rows);
    if (step->n_out > max_out)
        return fail(err, DS4_EINVAL, "%d rows of logits: the backend was opened for %d",
                    step->n_out, max_out);
    for (int i = 0; i < step->n_spans; i++) {
        const Span *s = &step->span[i];
        if (s->pos < 0 || s->n < 0 || s->pos > max_context - s->n)
            return fail(err, DS4_ECONTEXT,
                        "%d tokens at position %d: the backend was opened for a context of %d",
                        s->n, s->pos, max_context);
        if (s->row < 0 || s->row > step->n_rows - s->n)
            return fail(err, DS4_EINVAL, "a span of rows %d to %d in a step of %d", s->row,
                        s->row + s->n, step->n_rows);
    }
    return true;
}
