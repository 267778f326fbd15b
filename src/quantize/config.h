/* config.h - what a model is, beside its tensors: config.json to a shape, a
 * shape to GGUF metadata, and the vocabulary. Spec 8.2. */
#ifndef CONFIG_H
#define CONFIG_H
#include "../gguf/gguf.h"
#include "../ops/shape.h"

typedef struct {
    Shape shape;
    int bos, eos, pad; /* token ids; -1: none */
    char name[256];    /* "" where config.json has none */
} Config;

/* DIR/config.json. Every number that the model needs must be there, and the
 * options that we have no code for must have their only known value. */
bool config_read(Config *c, const char *dir, ds4_err *err);
bool config_parse(Config *c, Str json, ds4_err *err);

/* general.* and deepseek4.*. file_type: of the recipe. */
void config_put(GgufWriter *w, const Shape *s, Str name, int file_type);

#endif
