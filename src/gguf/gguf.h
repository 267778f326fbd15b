/* gguf.h - GGUF files: bytes to directory and back. No I/O here.
 *
 * The reader borrows the bytes and checks every count, length, offset and
 * product against what is left of them before it believes it. Version 3,
 * little endian. Limits beyond the format's own: 64 Ki metadata keys, 256 Ki
 * tensors, nesting of arrays 4 deep, names of 1..255 bytes. */
#ifndef GGUF_H
#define GGUF_H
#include "../base/arena.h"
#include "../base/bytes.h"
#include "../quant/quant.h"

enum GgufType {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

/* One metadata entry. An array's elements lie at `value`, packed. */
typedef struct {
    Str key;
    int type;       /* enum GgufType */
    int elem;       /* of an array */
    uint64_t count; /* of an array; else 1 */
    Str value;      /* the raw bytes; a string's without its length */
} GgufKv;

typedef struct {
    Str name;
    int type; /* GGUF tensor type; may be one that quant.h lacks */
    int n_dims;
    uint64_t dims[4];          /* dims[0] contiguous; unused ones are 1 */
    uint64_t offset, bytes;    /* in the data section; bytes 0 where the type is unknown */
    const unsigned char *data; /* NULL where the type is unknown */
} GgufTensor;

typedef struct {
    int version, alignment;
    size_t n_kv, n_tensors;
    GgufKv *kv;
    GgufTensor *tensor;
    uint64_t data_offset; /* of the data section in the file */
    uint64_t file_bytes;
    Arena arena;
    uint32_t *kv_index, *tensor_index; /* hash tables */
    size_t kv_slots, tensor_slots;
} Gguf;

/* Duplicate keys: the last wins (published files have some). Duplicate
 * tensors, and data that overlaps the end of the file, are errors. Tensors may
 * share bytes. */
bool gguf_parse(Gguf *g, const void *p, size_t n, ds4_err *err);
/* Header, metadata and tensor table only, of a file of file_bytes of which
 * the first n bytes are at p; tensors' data pointers stay NULL. */
bool gguf_parse_header(Gguf *g, const void *p, size_t n, uint64_t file_bytes, ds4_err *err);
void gguf_release(Gguf *g);

const GgufKv *gguf_kv(const Gguf *g, const char *key); /* NULL: none */
const GgufTensor *gguf_tensor(const Gguf *g, const char *name);

/* Typed reads. False when the entry is missing or of another kind; any integer
 * width is accepted where the value fits, f64 for f32. */
bool gguf_int(const GgufKv *kv, int64_t *out);
bool gguf_float(const GgufKv *kv, double *out); /* integers too */
bool gguf_bool(const GgufKv *kv, bool *out);
bool gguf_str(const GgufKv *kv, Str *out);
/* Element i of an array of numbers. */
bool gguf_int_at(const GgufKv *kv, uint64_t i, int64_t *out);
bool gguf_float_at(const GgufKv *kv, uint64_t i, double *out);
/* Walk an array of strings: *at starts at 0 and is moved on. */
bool gguf_next_str(const GgufKv *kv, size_t *at, Str *out);

const char *gguf_type_name(int type); /* "u32" */

/* ---- writing ----------------------------------------------------------- */

/* A file under construction: metadata, then tensors, then the header. The
 * caller writes the header and then each tensor's bytes at its offset. */
typedef struct {
    Bytes kv, tensors;
    uint64_t n_kv, n_tensors, data_bytes;
    int alignment; /* 0: 32 */
} GgufWriter;

void gguf_put_int(GgufWriter *w, const char *key, int type, int64_t v);
void gguf_put_f32(GgufWriter *w, const char *key, float v);
void gguf_put_bool(GgufWriter *w, const char *key, bool v);
void gguf_put_str(GgufWriter *w, const char *key, Str v);
void gguf_put_array(GgufWriter *w, const char *key, int elem, uint64_t count, const void *packed,
                    size_t bytes);
/* Copies an entry of another file. */
void gguf_put_kv(GgufWriter *w, const GgufKv *kv);
/* Add a tensor; *offset is where its bytes go in the data section. With
 * share != UINT64_MAX it uses the bytes at that earlier offset. */
bool gguf_put_tensor(GgufWriter *w, Str name, int type, int n_dims, const uint64_t *dims,
                     uint64_t share, uint64_t *offset, uint64_t *bytes, ds4_err *err);
/* The finished header with its padding; data offsets count from its end. */
bool gguf_header(const GgufWriter *w, Bytes *out, ds4_err *err);
void gguf_writer_release(GgufWriter *w);

#endif
