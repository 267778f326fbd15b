/* write.c - directory to bytes. */
#include "gguf.h"
#include <assert.h>

enum { DEFAULT_ALIGN = 32 };

static const char ALIGNMENT_KEY[] = "general.alignment";

static uint64_t alignment(const GgufWriter *w)
{
    return w->alignment ? (uint64_t)w->alignment : DEFAULT_ALIGN;
}

static void put_str(Bytes *b, Str s)
{
    bytes_u64(b, s.n);
    bytes_put(b, s.p, s.n);
}

static void put_le(Bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        bytes_byte(b, (unsigned char)(v >> (8 * i)));
}

/* ---- metadata ---------------------------------------------------------- */

static void open_kv(GgufWriter *w, Str key, int type)
{
    put_str(&w->kv, key);
    bytes_u32(&w->kv, (uint32_t)type);
    w->n_kv++;
}

void gguf_put_int(GgufWriter *w, const char *key, int type, int64_t v)
{
    static const int bytes[GGUF_F64 + 1] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_U64] = 8, [GGUF_I64] = 8,
    };
    assert(type >= 0 && type <= GGUF_F64 && bytes[type] > 0);
    open_kv(w, str_of(key), type);
    put_le(&w->kv, (uint64_t)v, bytes[type]);
}

void gguf_put_f32(GgufWriter *w, const char *key, float v)
{
    open_kv(w, str_of(key), GGUF_F32);
    bytes_f32(&w->kv, v);
}

void gguf_put_bool(GgufWriter *w, const char *key, bool v)
{
    open_kv(w, str_of(key), GGUF_BOOL);
    bytes_byte(&w->kv, v);
}

void gguf_put_str(GgufWriter *w, const char *key, Str v)
{
    open_kv(w, str_of(key), GGUF_STRING);
    put_str(&w->kv, v);
}

void gguf_put_array(GgufWriter *w, const char *key, int elem, uint64_t count, const void *packed,
                    size_t bytes)
{
    open_kv(w, str_of(key), GGUF_ARRAY);
    bytes_u32(&w->kv, (uint32_t)elem);
    bytes_u64(&w->kv, count);
    bytes_put(&w->kv, packed, bytes);
}

void gguf_put_kv(GgufWriter *w, const GgufKv *kv)
{
    if (str_eq(kv->key, STR(ALIGNMENT_KEY)))
        return; /* the writer has its own */
    open_kv(w, kv->key, kv->type);
    if (kv->type == GGUF_ARRAY) {
        bytes_u32(&w->kv, (uint32_t)kv->elem);
        bytes_u64(&w->kv, kv->count);
    } else if (kv->type == GGUF_STRING) {
        bytes_u64(&w->kv, kv->value.n);
    }
    bytes_put(&w->kv, kv->value.p, kv->value.n);
}

/* ---- tensors ----------------------------------------------------------- */

static bool measure(Str name, int type, int n_dims, const uint64_t *dims, uint64_t *bytes,
                    ds4_err *err)
{
    const QuantFormat *f = quant_format(type);
    if (!f)
        return fail(err, DS4_EINVAL, "tensor %.*s: type %s cannot be written", STR_ARG(name),
                    quant_name(type));
    if (name.n < 1 || name.n > 255 || n_dims < 1 || n_dims > 4)
        return fail(err, DS4_EINVAL, "tensor %.*s: a name of %zu bytes and %d dimensions",
                    STR_ARG(name), name.n, n_dims);
    uint64_t values = 1;
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] == 0 || !mul_u64(values, dims[i], &values))
            return fail(err, DS4_EINVAL, "tensor %.*s: dimension %d is %llu", STR_ARG(name), i,
                        (unsigned long long)dims[i]);
    }
    if (dims[0] % (uint64_t)f->block_len != 0 || !quant_bytes(type, values, bytes))
        return fail(err, DS4_EINVAL,
                    "tensor %.*s: rows of %llu values are not whole %s blocks of %d", STR_ARG(name),
                    (unsigned long long)dims[0], f->name, f->block_len);
    return true;
}

static bool place(GgufWriter *w, Str name, uint64_t share, uint64_t bytes, uint64_t *offset,
                  ds4_err *err)
{
    uint64_t align = alignment(w), end;
    if (share != UINT64_MAX) {
        if (share % align != 0 || share > w->data_bytes || bytes > w->data_bytes - share)
            return fail(err, DS4_EINVAL, "tensor %.*s: no %llu bytes at %llu to share",
                        STR_ARG(name), (unsigned long long)bytes, (unsigned long long)share);
        *offset = share;
        return true;
    }
    if (!add_u64(w->data_bytes, align - 1, offset) ||
        !add_u64(*offset / align * align, bytes, &end) || end > INT64_MAX)
        return fail(err, DS4_EINVAL, "tensor %.*s: %llu more bytes make the file too long",
                    STR_ARG(name), (unsigned long long)bytes);
    *offset = *offset / align * align;
    w->data_bytes = end;
    return true;
}

bool gguf_put_tensor(GgufWriter *w, Str name, int type, int n_dims, const uint64_t *dims,
                     uint64_t share, uint64_t *offset, uint64_t *bytes, ds4_err *err)
{
    if (!measure(name, type, n_dims, dims, bytes, err) ||
        !place(w, name, share, *bytes, offset, err))
        return false;
    put_str(&w->tensors, name);
    bytes_u32(&w->tensors, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++)
        bytes_u64(&w->tensors, dims[i]);
    bytes_u32(&w->tensors, (uint32_t)type);
    bytes_u64(&w->tensors, *offset);
    w->n_tensors++;
    return true;
}

/* ---- the header -------------------------------------------------------- */

bool gguf_header(const GgufWriter *w, Bytes *out, ds4_err *err)
{
    bool unusual = alignment(w) != DEFAULT_ALIGN;
    bytes_clear(out);
    bytes_str(out, "GGUF");
    bytes_u32(out, 3);
    bytes_u64(out, w->n_tensors);
    bytes_u64(out, w->n_kv + unusual);
    bytes_put(out, w->kv.p, w->kv.n);
    if (unusual) {
        put_str(out, STR(ALIGNMENT_KEY));
        bytes_u32(out, GGUF_U32);
        bytes_u32(out, (uint32_t)alignment(w));
    }
    bytes_put(out, w->tensors.p, w->tensors.n);
    uint64_t align = alignment(w);
    bytes_fill(out, 0, (size_t)((align - out->n % align) % align));
    if (out->failed || w->kv.failed || w->tensors.failed)
        return fail(err, DS4_ENOMEM, "no memory for a GGUF header of %llu tensors",
                    (unsigned long long)w->n_tensors);
    return true;
}

void gguf_writer_release(GgufWriter *w)
{
    bytes_release(&w->kv);
    bytes_release(&w->tensors);
    *w = (GgufWriter){ 0 };
}
