/* source.c - looking tensors up and dequantizing their rows. */
#include "source.h"
#include "../quant/fp8.h"
#include "../quant/quant.h"
#include <math.h>
#include <stdio.h>

enum { FP8_BLOCK = 128, FP4_BLOCK = 32 };

static uint64_t blocks(uint64_t n, uint64_t block) { return (n + block - 1) / block; }

static bool has_shape(const StTensor *t, int n_dims, const uint64_t *dims)
{
    if (t->n_dims != n_dims)
        return false;
    for (int i = 0; i < n_dims; i++)
        if (t->dims[i] != dims[n_dims - 1 - i])
            return false;
    return true;
}

static bool wrong_shape(const StTensor *t, int n_dims, const uint64_t *dims, ds4_err *err)
{
    char is[80] = "", want[80] = "";
    for (int i = 0, n = 0; i < t->n_dims && n < 60; i++)
        n += snprintf(is + n, sizeof is - (size_t)n, " %llu", (unsigned long long)t->dims[i]);
    for (int i = n_dims - 1, n = 0; i >= 0 && n < 60; i--)
        n += snprintf(want + n, sizeof want - (size_t)n, " %llu", (unsigned long long)dims[i]);
    return fail(err, DS4_EFORMAT, "tensor %.*s has the dimensions%s, expected%s", STR_ARG(t->name),
                is, want);
}

static const StTensor *find_scale(const Checkpoint *c, const char *name)
{
    char scale[300];
    size_t n = strlen(name), k = sizeof ".weight" - 1;
    if (n <= k || strcmp(name + n - k, ".weight") != 0)
        return NULL;
    snprintf(scale, sizeof scale, "%.*s.scale", (int)(n - k), name);
    return checkpoint_find(c, scale);
}

static bool check_scale(const Source *s, const uint64_t want[2], ds4_err *err)
{
    if (!s->scale)
        return fail(err, DS4_EFORMAT, "tensor %.*s is %s and has no scale tensor",
                    STR_ARG(s->weight->name), st_type_name(s->weight->type));
    if (s->scale->type != ST_F8_E8M0 && s->scale->type != ST_F32)
        return fail(err, DS4_EFORMAT, "tensor %.*s is %s, not F8_E8M0 or F32",
                    STR_ARG(s->scale->name), st_type_name(s->scale->type));
    return has_shape(s->scale, 2, want) || wrong_shape(s->scale, 2, want, err);
}

static bool check_source(const Source *s, int n_dims, const uint64_t *dims, ds4_err *err)
{
    const uint64_t packed[2] = { dims[0] / 2, dims[1] };
    const uint64_t fp4_scale[2] = { dims[0] / FP4_BLOCK, dims[1] };
    const uint64_t fp8_scale[2] = { blocks(dims[0], FP8_BLOCK), blocks(dims[1], FP8_BLOCK) };
    switch (s->weight->type) {
    case ST_F32:
    case ST_F16:
    case ST_BF16:
        return has_shape(s->weight, n_dims, dims) || wrong_shape(s->weight, n_dims, dims, err);
    case ST_F8_E4M3:
        return (has_shape(s->weight, 2, dims) || wrong_shape(s->weight, 2, dims, err)) &&
               check_scale(s, fp8_scale, err);
    case ST_I8:
        if (dims[0] % FP4_BLOCK)
            return fail(err, DS4_EFORMAT, "tensor %.*s: packed FP4 rows of %llu values",
                        STR_ARG(s->weight->name), (unsigned long long)dims[0]);
        return (has_shape(s->weight, 2, packed) || wrong_shape(s->weight, 2, packed, err)) &&
               check_scale(s, fp4_scale, err);
    default:
        return fail(err, DS4_EFORMAT, "tensor %.*s is %s, which holds no weights",
                    STR_ARG(s->weight->name), st_type_name(s->weight->type));
    }
}

enum SourceFound source_find(Source *s, const Checkpoint *c, const char *name, int n_dims,
                             const uint64_t *dims, ds4_err *err)
{
    *s = (Source){ .weight = checkpoint_find(c, name), .scale = find_scale(c, name) };
    if (!s->weight)
        return SOURCE_MISSING;
    return check_source(s, n_dims, dims, err) ? SOURCE_OK : SOURCE_WRONG;
}

enum SourceFound source_find_ids(Source *s, const Checkpoint *c, const char *name,
                                 const uint64_t *dims, ds4_err *err)
{
    *s = (Source){ .weight = checkpoint_find(c, name) };
    if (!s->weight)
        return SOURCE_MISSING;
    if (s->weight->type != ST_I64 && s->weight->type != ST_I32) {
        fail(err, DS4_EFORMAT, "tensor %s is %s, not I64 or I32", name,
             st_type_name(s->weight->type));
        return SOURCE_WRONG;
    }
    return has_shape(s->weight, 2, dims) || wrong_shape(s->weight, 2, dims, err) ? SOURCE_OK
                                                                                 : SOURCE_WRONG;
}

/* ---- of a GGUF -------------------------------------------------------------- */

static bool right_dims(const GgufTensor *t, const uint64_t dims[3], ds4_err *err)
{
    if (memcmp(t->dims, dims, 3 * sizeof *dims) == 0 && t->dims[3] == 1)
        return true;
    return fail(err, DS4_EFORMAT,
                "tensor %.*s has the dimensions %llu %llu %llu, expected "
                "%llu %llu %llu",
                STR_ARG(t->name), (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                (unsigned long long)t->dims[2], (unsigned long long)dims[0],
                (unsigned long long)dims[1], (unsigned long long)dims[2]);
}

enum SourceFound source_find_gguf(Source *s, const Gguf *g, const char *name, int part,
                                  const uint64_t dims[3], bool ids, ds4_err *err)
{
    const GgufTensor *t = gguf_tensor(g, name);
    const QuantFormat *f = t ? quant_format(t->type) : NULL;
    *s = (Source){ .gguf = t, .first = (uint64_t)part * dims[1] };
    if (!t)
        return SOURCE_MISSING;
    if (ids ? t->type != QUANT_I32 : !f || !f->decode) {
        fail(err, DS4_EFORMAT, "tensor %s is %s, which %s", name, quant_name(t->type),
             ids ? "names no experts" : "cannot be read");
        return SOURCE_WRONG;
    }
    if (!right_dims(t, dims, err))
        return SOURCE_WRONG;
    s->row_bytes = t->bytes / (dims[1] * dims[2]);
    return SOURCE_OK;
}

static const unsigned char *gguf_row(const Source *s, uint64_t r)
{
    return s->gguf->data + (s->first + r) * s->row_bytes;
}

const unsigned char *source_raw(const Source *s, uint64_t r, int type)
{
    return s->gguf && s->gguf->type == type ? gguf_row(s, r) : NULL;
}

const char *source_type(const Source *s)
{
    return s->gguf ? quant_name(s->gguf->type) : st_type_name(s->weight->type);
}

/* MXFP4 is how the routed experts were trained. */
bool source_lossy(const Source *s)
{
    return s->gguf && quant_format(s->gguf->type)->block_len > 1 && s->gguf->type != QUANT_MXFP4;
}

void source_places(const Source *s, uint64_t r, uint64_t n, uint64_t cols, Str *rows, Str *scales)
{
    const StTensor *w = s->weight, *scale = s->scale;
    const unsigned char *data = s->gguf ? s->gguf->data : w->data;
    uint64_t row =
        s->gguf ? s->row_bytes : w->bytes / (w->count / (w->type == ST_I8 ? cols / 2 : cols));
    *rows = (Str){ (const char *)data + (s->first + r) * row, (size_t)(n * row) };
    *scales = scale ? (Str){ (const char *)scale->data, (size_t)scale->bytes } : (Str){ 0 };
}

/* ---- rows ---------------------------------------------------------------- */

static float scale_at(const StTensor *t, uint64_t i)
{
    return t->type == ST_F32 ? f32_from_bits(u32_at(t->data + 4 * i)) : e8m0_decode(t->data[i]);
}

static void fp8_row(const Source *s, uint64_t r, float *out, size_t n)
{
    const unsigned char *code = s->weight->data + r * n;
    const uint64_t scales = s->scale->dims[1], first = r / FP8_BLOCK * scales;
    for (size_t c = 0; c < n; c += FP8_BLOCK) {
        const float scale = scale_at(s->scale, first + c / FP8_BLOCK);
        for (size_t i = c; i < MIN(c + FP8_BLOCK, n); i++)
            out[i] = e4m3_decode(code[i]) * scale;
    }
}

static void fp4_row(const Source *s, uint64_t r, float *out, size_t n)
{
    const unsigned char *code = s->weight->data + r * (n / 2);
    for (size_t c = 0; c < n; c += FP4_BLOCK) {
        const float scale = scale_at(s->scale, r * (n / FP4_BLOCK) + c / FP4_BLOCK);
        for (size_t i = c; i < c + FP4_BLOCK; i += 2) {
            out[i] = e2m1_decode(code[i / 2] & 15) * scale;
            out[i + 1] = e2m1_decode(code[i / 2] >> 4) * scale;
        }
    }
}

static void plain_row(const Source *s, uint64_t r, float *out, size_t n)
{
    const int type = s->weight->type == ST_F32   ? QUANT_F32
                     : s->weight->type == ST_F16 ? QUANT_F16
                                                 : QUANT_BF16;
    const uint64_t row_bytes = n * (uint64_t)st_type_size(s->weight->type);
    quant_format(type)->decode(out, s->weight->data + r * row_bytes, n);
}

bool source_row(const Source *s, uint64_t r, float *out, size_t n)
{
    if (s->gguf)
        quant_format(s->gguf->type)->decode(out, gguf_row(s, r), n);
    else if (s->weight->type == ST_F8_E4M3)
        fp8_row(s, r, out, n);
    else if (s->weight->type == ST_I8)
        fp4_row(s, r, out, n);
    else
        plain_row(s, r, out, n);

    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &= isfinite(out[i]) != 0;
    return finite;
}

bool source_ids(const Source *s, uint64_t r, int32_t *out, size_t n, int limit)
{
    const size_t size = s->gguf ? sizeof *out : (size_t)st_type_size(s->weight->type);
    const unsigned char *p = s->gguf ? gguf_row(s, r) : s->weight->data + r * n * size;
    for (size_t i = 0; i < n; i++, p += size) {
        uint64_t v = 0;
        for (size_t k = size; k-- > 0;)
            v = v << 8 | p[k];
        if (v >= (uint64_t)limit)
            return false;
        out[i] = (int32_t)v;
    }
    return true;
}

/* ---- FP4 as MXFP4 ---------------------------------------------------------- */

bool source_is_fp4(const Source *s)
{
    return s->weight && s->weight->type == ST_I8 && s->scale->type == ST_F8_E8M0;
}

bool source_mxfp4(const Source *s, uint64_t r, unsigned char *out, size_t n)
{
    const unsigned char *code = s->weight->data + r * (n / 2);
    const unsigned char *scale = s->scale->data + r * (n / FP4_BLOCK);
    for (size_t b = 0; b < n / FP4_BLOCK; b++, code += 16) {
        if (scale[b] == 255)
            return false;
        *out++ = scale[b];
        for (int i = 0; i < 16; i++) {
            int low = code[i / 2] >> (4 * (i % 2)) & 15;
            int high = code[8 + i / 2] >> (4 * (i % 2)) & 15;
            *out++ = (unsigned char)(low | high << 4);
        }
    }
    return true;
}
