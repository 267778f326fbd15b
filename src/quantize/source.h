/* source.h - a tensor of a checkpoint or of a GGUF as rows of F32, whatever it is stored in.
 *
 *   BF16 F16 F32        as they are
 *   F8_E4M3 + scale     value * scale[row / 128][column / 128]
 *   I8 + scale          two E2M1 a byte, low nibble first; value * scale[row][column / 32]
 *   a GGUF's            its format's own
 *
 * A scale tensor is named like the weight with ".scale" for ".weight". Spec 9.3. */
#ifndef SOURCE_H
#define SOURCE_H
#include "safetensors.h"
#include "../gguf/gguf.h"

typedef struct {
    const StTensor *weight, *scale;
    const GgufTensor *gguf;    /* instead of those, */
    uint64_t first, row_bytes; /* from this row on */
} Source;

/* What became of looking a tensor up: a missing one is not reported in err,
 * so that the caller can name them all. */
enum SourceFound { SOURCE_MISSING, SOURCE_WRONG, SOURCE_OK };

/* dims as in GGUF: dims[0] is the row. */
enum SourceFound source_find(Source *s, const Checkpoint *c, const char *name, int n_dims,
                             const uint64_t *dims, ds4_err *err);

/* Row r as n values. False when one of them is infinite or no number. */
bool source_row(const Source *s, uint64_t r, float *out, size_t n);

/* Rows of expert ids, I64 or I32. False when one is not in 0..limit-1. */
enum SourceFound source_find_ids(Source *s, const Checkpoint *c, const char *name,
                                 const uint64_t *dims, ds4_err *err);
bool source_ids(const Source *s, uint64_t r, int32_t *out, size_t n, int limit);

/* A GGUF's tensor of these dimensions, or its expert `part`. ids: it holds those of experts. */
enum SourceFound source_find_gguf(Source *s, const Gguf *g, const char *name, int part,
                                  const uint64_t dims[3], bool ids, ds4_err *err);
/* Row r as it lies in the file, where that is of this format already; else NULL. */
const unsigned char *source_raw(const Source *s, uint64_t r, int type);

/* "F8_E4M3", "Q4_K" */
const char *source_type(const Source *s);
/* Has rounding to this format lost something of the trained weights? */
bool source_lossy(const Source *s);
/* Where rows [r, r + n) of rows of `cols` values lie, and the tensor's scales; p NULL: none. */
void source_places(const Source *s, uint64_t r, uint64_t n, uint64_t cols, Str *rows, Str *scales);

/* Packed FP4 is MXFP4 in another order: row r as blocks of 17 bytes, exactly.
 * False when a scale is no number. */
bool source_is_fp4(const Source *s);
bool source_mxfp4(const Source *s, uint64_t r, unsigned char *out, size_t n);

#endif
