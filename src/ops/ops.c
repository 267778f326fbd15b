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
