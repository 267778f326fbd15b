/* shape.h - a model's dimensions and constants from a GGUF's metadata. */
#ifndef MODEL_SHAPE_H
#define MODEL_SHAPE_H
#include "../gguf/gguf.h"
#include "../ops/shape.h"

/* Checks that they make sense together. */
bool shape_read(Shape *s, const Gguf *g, ds4_err *err);

#endif
