/* read.c - bytes to directory.
 *
 * Everything in a GGUF file is a claim. Each is compared with the bytes that
 * are left before it is used as a length, a count or a size to allocate:
 * an entry takes at least MIN_KV or MIN_TENSOR bytes, so the tables can never
 * be larger than a small multiple of the file itself. */
#include "gguf.h"
#include "index.h"

enum {
    VERSION = 3,
    MAX_KV = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_NAME = 255,
    MAX_NESTING = 4,
    MIN_KV = 8 + 1 + 4 + 1,             /* key length, key, type, value */
    MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, dims, type, offset */
    MIN_ALIGN = 8,
    MAX_ALIGN = 1 << 20,
};

static const uint32_t MAGIC = 0x46554747; /* "GGUF" */
static const uint32_t OTHER_ENDIAN_VERSION = (uint32_t)VERSION << 24;

/* Bytes of a value by type; 0 where the length is part of the value. */
static const uint8_t type_bytes[] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* ---- taking bytes ------------------------------------------------------ */

typedef struct {
    const unsigned char *p;
    size_t n, at;
    ds4_err *err;
} Cursor;

static uint64_t load(const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)b[i] << (8 * i);
    return v;
}

static bool take(Cursor *c, uint64_t n, Str *out)
{
    if (n > c->n - c->at) {
        fail(c->err, DS4_EFORMAT, "GGUF header wants %llu bytes at offset %zu, and %zu are left",
             (unsigned long long)n, c->at, c->n - c->at);
        return false; /* said so that tools see it */
    }
    *out = (Str){ (const char *)c->p + c->at, (size_t)n };
    c->at += (size_t)n;
    return true;
}

static bool take_u32(Cursor *c, uint32_t *v)
{
    Str s = { 0 };
    if (!take(c, 4, &s))
        return false;
    *v = (uint32_t)load(s.p, 4);
    return true;
}

static bool take_u64(Cursor *c, uint64_t *v)
{
    Str s = { 0 };
    if (!take(c, 8, &s))
        return false;
    *v = load(s.p, 8);
    return true;
}

static bool take_str(Cursor *c, Str *out)
{
    uint64_t n;
    return take_u64(c, &n) && take(c, n, out);
}

static bool take_name(Cursor *c, const char *what, Str *out)
{
    size_t at = c->at;
    if (!take_str(c, out))
        return false;
    if (out->n < 1 || out->n > MAX_NAME)
        return fail(c->err, DS4_EFORMAT, "%s at offset %zu has %zu bytes, expected 1 to %d", what,
                    at, out->n, MAX_NAME);
    return true;
}

/* A count of things that take at least `each` bytes. */
static bool take_count(Cursor *c, const char *what, uint64_t each, uint64_t max, uint64_t *count)
{
    if (!take_u64(c, count))
        return false;
    size_t left = c->n - c->at;
    if (*count > max)
        return fail(c->err, DS4_EFORMAT, "%llu %s, at most %llu are possible",
                    (unsigned long long)*count, what, (unsigned long long)max);
    if (*count > left / each)
        return fail(c->err, DS4_EFORMAT, "%llu %s do not fit the %zu bytes that are left",
                    (unsigned long long)*count, what, left);
    return true;
}

/* ---- metadata ---------------------------------------------------------- */

static bool skip_elements(Cursor *c, uint32_t elem, uint64_t count, int depth);

static bool skip_array(Cursor *c, uint32_t *elem, uint64_t *count, int depth)
{
    if (depth > MAX_NESTING)
        return fail(c->err, DS4_EFORMAT, "arrays at offset %zu are nested more than %d deep", c->at,
                    MAX_NESTING);
    return take_u32(c, elem) && take_u64(c, count) && skip_elements(c, *elem, *count, depth);
}

/* Move past an array's elements. Each takes at least one byte, so the loops
 * end after at most as many turns as there are bytes. */
static bool skip_elements(Cursor *c, uint32_t elem, uint64_t count, int depth)
{
    if (elem > GGUF_F64)
        return fail(c->err, DS4_EFORMAT, "array at offset %zu has elements of unknown type %u",
                    c->at, elem);
    size_t left = c->n - c->at;
    uint64_t each = type_bytes[elem] ? type_bytes[elem] : 8;
    if (count > left / each)
        return fail(c->err, DS4_EFORMAT, "array of %llu %s at offset %zu, and %zu bytes are left",
                    (unsigned long long)count, gguf_type_name((int)elem), c->at, left);
    Str s;
    if (type_bytes[elem])
        return take(c, count * each, &s);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t inner;
        uint64_t n;
        if (elem == GGUF_STRING ? !take_str(c, &s) : !skip_array(c, &inner, &n, depth + 1))
            return false;
    }
    return true;
}

static bool take_value(Cursor *c, GgufKv *kv)
{
    uint32_t type, elem = 0;
    if (!take_u32(c, &type))
        return false;
    if (type > GGUF_F64)
        return fail(c->err, DS4_EFORMAT, "key %.*s has unknown type %u", STR_ARG(kv->key), type);
    kv->type = (int)type;
    kv->count = 1;
    if (type == GGUF_STRING)
        return take_str(c, &kv->value);
    if (type != GGUF_ARRAY)
        return take(c, type_bytes[type], &kv->value);
    size_t head = 4 + 8, from = c->at;
    if (!skip_array(c, &elem, &kv->count, 1))
        return false;
    kv->elem = (int)elem;
    kv->value = (Str){ (const char *)c->p + from + head, c->at - from - head };
    return true;
}

static Str kv_name(const void *table, size_t i) { return ((const GgufKv *)table)[i].key; }

static bool read_metadata(Gguf *g, Cursor *c, uint64_t n)
{
    g->kv = arena_array(&g->arena, (size_t)n, sizeof *g->kv);
    if (!g->kv || !index_init(&g->kv_index, &g->kv_slots, (size_t)n, &g->arena))
        return fail(c->err, DS4_ENOMEM, "no memory for %llu metadata keys", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        GgufKv kv = { 0 };
        if (!take_name(c, "metadata key", &kv.key) || !take_value(c, &kv))
            return false;
        size_t at = g->n_kv;
        if (!index_add(g->kv_index, g->kv_slots, kv_name, g->kv, kv.key, &at))
            return fail(c->err, DS4_EFORMAT, "too many metadata keys hash like %.*s",
                        STR_ARG(kv.key));
        g->kv[at] = kv; /* a duplicate takes the earlier one's place */
        g->n_kv += at == g->n_kv;
    }
    return true;
}

static bool read_alignment(Gguf *g, ds4_err *err)
{
    g->alignment = 32;
    const GgufKv *kv = gguf_kv(g, "general.alignment");
    int64_t a;
    if (!kv)
        return true;
    if (!gguf_int(kv, &a))
        return fail(err, DS4_EFORMAT, "general.alignment is %s, expected an integer",
                    gguf_type_name(kv->type));
    if (a < MIN_ALIGN || a > MAX_ALIGN || (a & (a - 1)) != 0)
        return fail(err, DS4_EFORMAT,
                    "general.alignment is %lld, expected a power of two from %d to %d",
                    (long long)a, MIN_ALIGN, MAX_ALIGN);
    g->alignment = (int)a;
    return true;
}

/* ---- tensors ----------------------------------------------------------- */

static Str tensor_name(const void *table, size_t i) { return ((const GgufTensor *)table)[i].name; }

static bool take_dims(Cursor *c, GgufTensor *t, uint64_t *values)
{
    uint32_t n_dims;
    if (!take_u32(c, &n_dims))
        return false;
    if (n_dims < 1 || n_dims > 4)
        return fail(c->err, DS4_EFORMAT, "tensor %.*s has %u dimensions, expected 1 to 4",
                    STR_ARG(t->name), n_dims);
    t->n_dims = (int)n_dims;
    *values = 1;
    for (uint32_t i = 0; i < 4; i++) {
        t->dims[i] = 1;
        if (i < n_dims && !take_u64(c, &t->dims[i]))
            return false;
        if (t->dims[i] == 0)
            return fail(c->err, DS4_EFORMAT, "tensor %.*s: dimension %u is 0", STR_ARG(t->name), i);
        if (!mul_u64(*values, t->dims[i], values))
            return fail(c->err, DS4_EFORMAT, "tensor %.*s: the product of its dimensions overflows",
                        STR_ARG(t->name));
    }
    return true;
}

static bool size_tensor(GgufTensor *t, uint64_t values, ds4_err *err)
{
    const QuantFormat *f = quant_format(t->type);
    if (!f)
        return true; /* kept, so that its user can name it */
    if (t->dims[0] % (uint64_t)f->block_len != 0)
        return fail(err, DS4_EFORMAT,
                    "tensor %.*s: rows of %llu values are not whole %s blocks of %d",
                    STR_ARG(t->name), (unsigned long long)t->dims[0], f->name, f->block_len);
    if (!quant_bytes(t->type, values, &t->bytes))
        return fail(err, DS4_EFORMAT, "tensor %.*s: the bytes of %llu values overflow",
                    STR_ARG(t->name), (unsigned long long)values);
    return true;
}

static bool take_tensor(Cursor *c, GgufTensor *t)
{
    uint64_t values = 0;
    uint32_t type;
    if (!take_name(c, "tensor name", &t->name) || !take_dims(c, t, &values) ||
        !take_u32(c, &type) || !take_u64(c, &t->offset))
        return false;
    if (type > INT32_MAX)
        return fail(c->err, DS4_EFORMAT, "tensor %.*s has type %u", STR_ARG(t->name), type);
    t->type = (int)type;
    return size_tensor(t, values, c->err);
}

static bool read_tensor_table(Gguf *g, Cursor *c, uint64_t n)
{
    g->tensor = arena_array(&g->arena, (size_t)n, sizeof *g->tensor);
    if (!g->tensor || !index_init(&g->tensor_index, &g->tensor_slots, (size_t)n, &g->arena))
        return fail(c->err, DS4_ENOMEM, "no memory for %llu tensors", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        GgufTensor t = { 0 };
        if (!take_tensor(c, &t))
            return false;
        size_t at = g->n_tensors;
        if (!index_add(g->tensor_index, g->tensor_slots, tensor_name, g->tensor, t.name, &at))
            return fail(c->err, DS4_EFORMAT, "too many tensor names hash like %.*s",
                        STR_ARG(t.name));
        if (at != g->n_tensors)
            return fail(c->err, DS4_EFORMAT, "two tensors are called %.*s", STR_ARG(t.name));
        g->tensor[g->n_tensors++] = t;
    }
    return true;
}

/* Where the data section begins, and that every tensor lies inside it. */
static bool place_tensors(Gguf *g, uint64_t table_end, ds4_err *err)
{
    uint64_t align = (uint64_t)g->alignment;
    g->data_offset = (table_end + align - 1) / align * align;
    uint64_t data = g->file_bytes > g->data_offset ? g->file_bytes - g->data_offset : 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const GgufTensor *t = &g->tensor[i];
        if (t->offset % align != 0)
            return fail(err, DS4_EFORMAT, "tensor %.*s: offset %llu is not a multiple of %llu",
                        STR_ARG(t->name), (unsigned long long)t->offset, (unsigned long long)align);
        if (t->offset > data || t->bytes > data - t->offset)
            return fail(
                err, DS4_EFORMAT,
                "tensor %.*s: %llu bytes at %llu reach past the end of the data (%llu bytes)",
                STR_ARG(t->name), (unsigned long long)t->bytes, (unsigned long long)t->offset,
                (unsigned long long)data);
    }
    return true;
}

/* ---- the whole --------------------------------------------------------- */

static bool check_preamble(Cursor *c)
{
    uint32_t magic, version;
    if (!take_u32(c, &magic))
        return false;
    if (magic != MAGIC)
        return fail(c->err, DS4_EFORMAT, "not a GGUF file: it begins with 0x%08x, expected 0x%08x",
                    magic, MAGIC);
    if (!take_u32(c, &version))
        return false;
    if (version == OTHER_ENDIAN_VERSION)
        return fail(c->err, DS4_EFORMAT,
                    "a big-endian GGUF file; only little-endian ones are read");
    if (version != VERSION)
        return fail(c->err, DS4_EFORMAT, "GGUF version %u, expected %d", version, VERSION);
    return true;
}

static bool parse(Gguf *g, Cursor *c)
{
    uint64_t n_tensors, n_kv;
    return check_preamble(c) && take_count(c, "tensors", MIN_TENSOR, MAX_TENSORS, &n_tensors) &&
           take_count(c, "metadata keys", MIN_KV, MAX_KV, &n_kv) && read_metadata(g, c, n_kv) &&
           read_alignment(g, c->err) && read_tensor_table(g, c, n_tensors) &&
           place_tensors(g, c->at, c->err);
}

bool gguf_parse_header(Gguf *g, const void *p, size_t n, uint64_t file_bytes, ds4_err *err)
{
    *g = (Gguf){ .version = VERSION, .file_bytes = file_bytes };
    Cursor c = { .p = p, .n = n, .err = err };
    if (parse(g, &c))
        return true;
    gguf_release(g);
    return false;
}

bool gguf_parse(Gguf *g, const void *p, size_t n, ds4_err *err)
{
    if (!gguf_parse_header(g, p, n, n, err))
        return false;
    for (size_t i = 0; i < g->n_tensors; i++) {
        GgufTensor *t = &g->tensor[i];
        if (t->bytes)
            t->data = (const unsigned char *)p + g->data_offset + t->offset;
    }
    return true;
}

void gguf_release(Gguf *g)
{
    arena_release(&g->arena);
    *g = (Gguf){ 0 };
}

/* ---- looking up -------------------------------------------------------- */

const GgufKv *gguf_kv(const Gguf *g, const char *key)
{
    size_t i = index_find(g->kv_index, g->kv_slots, kv_name, g->kv, str_of(key));
    return i == INDEX_NONE ? NULL : &g->kv[i];
}

const GgufTensor *gguf_tensor(const Gguf *g, const char *name)
{
    size_t i = index_find(g->tensor_index, g->tensor_slots, tensor_name, g->tensor, str_of(name));
    return i == INDEX_NONE ? NULL : &g->tensor[i];
}

static bool load_int(int type, const void *p, int64_t *out)
{
    enum { NO, PLAIN, SIGNED };
    static const uint8_t kind[GGUF_F64 + 1] = {
        [GGUF_U8] = PLAIN,  [GGUF_U16] = PLAIN,  [GGUF_U32] = PLAIN,  [GGUF_U64] = PLAIN,
        [GGUF_I8] = SIGNED, [GGUF_I16] = SIGNED, [GGUF_I32] = SIGNED, [GGUF_I64] = SIGNED,
    };
    if (kind[type] == NO)
        return false;
    uint64_t v = load(p, type_bytes[type]);
    if (kind[type] == PLAIN) {
        *out = (int64_t)v;
        return v <= INT64_MAX;
    }
    int unused = 64 - 8 * type_bytes[type];
    *out = (int64_t)(v << unused) >> unused;
    return true;
}

static bool load_float(int type, const void *p, double *out)
{
    int64_t i;
    if (type == GGUF_F32) {
        uint32_t bits = (uint32_t)load(p, 4);
        float f;
        memcpy(&f, &bits, 4);
        *out = (double)f;
        return true;
    }
    if (type == GGUF_F64) {
        uint64_t bits = load(p, 8);
        memcpy(out, &bits, 8);
        return true;
    }
    if (!load_int(type, p, &i))
        return false;
    *out = (double)i;
    return true;
}

bool gguf_int(const GgufKv *kv, int64_t *out) { return kv && load_int(kv->type, kv->value.p, out); }

bool gguf_float(const GgufKv *kv, double *out)
{
    return kv && load_float(kv->type, kv->value.p, out);
}

bool gguf_bool(const GgufKv *kv, bool *out)
{
    if (!kv || kv->type != GGUF_BOOL)
        return false;
    *out = kv->value.p[0] != 0;
    return true;
}

bool gguf_str(const GgufKv *kv, Str *out)
{
    if (!kv || kv->type != GGUF_STRING)
        return false;
    *out = kv->value;
    return true;
}

static const char *element(const GgufKv *kv, uint64_t i)
{
    if (!kv || kv->type != GGUF_ARRAY || i >= kv->count || !type_bytes[kv->elem])
        return NULL;
    return kv->value.p + i * type_bytes[kv->elem];
}

bool gguf_int_at(const GgufKv *kv, uint64_t i, int64_t *out)
{
    const char *p = element(kv, i);
    return p && load_int(kv->elem, p, out);
}

bool gguf_float_at(const GgufKv *kv, uint64_t i, double *out)
{
    const char *p = element(kv, i);
    return p && load_float(kv->elem, p, out);
}

bool gguf_next_str(const GgufKv *kv, size_t *at, Str *out)
{
    if (!kv || kv->type != GGUF_ARRAY || kv->elem != GGUF_STRING)
        return false;
    Cursor c = { .p = (const unsigned char *)kv->value.p, .n = kv->value.n, .at = *at };
    if (*at >= c.n || !take_str(&c, out))
        return false;
    *at = c.at;
    return true;
}

const char *gguf_type_name(int type)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return type >= 0 && type < (int)COUNT(names) ? names[type] : "unknown";
}
