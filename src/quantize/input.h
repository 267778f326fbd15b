/* input.h - what is converted: a published checkpoint (a directory) or a GGUF. */
#ifndef INPUT_H
#define INPUT_H
#include "config.h"
#include "source.h"
#include "layout.h"

typedef struct {
    const char *path; /* borrowed */
    Config config;
    bool is_gguf;
    Checkpoint checkpoint; /* or */
    Map map;
    Gguf gguf;
} Input;

bool input_open(Input *in, const char *path, ds4_err *err);
void input_close(Input *in);

/* Experts of a checkpoint are tensors of their own. */
static inline int input_parts(const TensorSpec *t)
{
    return t->kind == KIND_EXPERTS ? (int)t->dims[2] : 1;
}
/* What part of a tensor is called in the input. */
void input_name(char out[96], const Input *in, const TensorSpec *t, int part);
enum SourceFound input_find(Source *s, const Input *in, const TensorSpec *t, int part,
                            ds4_err *err);

/* The tensors in the input; their names; those of draft heads, which are left out. */
size_t input_count(const Input *in);
Str input_tensor(const Input *in, size_t i);
bool input_is_draft(const Input *in, Str name);
/* Is it tensor i that the source reads? */
bool input_is(const Input *in, size_t i, const Source *s);
/* These bytes of it have been read and are not needed soon: memory gives them up. */
void input_forget(const Input *in, Str bytes);

/* Is it one of the input's? */
bool input_has_file(const Input *in, const char *path);

/* Metadata: of config.json, tokenizer.json (is there one?) and name; or a GGUF's own but for what this
 * conversion changes. name NULL: the input's. imatrix: there will be new keys about one. */
bool input_put(const Input *in, GgufWriter *w, const char *name, int file_type, bool imatrix,
               ds4_err *err);
bool input_has_tokenizer(const Input *in);

/* Bytes that are others when the input is another. */
bool input_identity(const Input *in, Bytes *out, ds4_err *err);

#endif
