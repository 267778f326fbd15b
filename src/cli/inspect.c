/* inspect.c - ds4 inspect: header, metadata, tensors, bytes by class. */
#include "cli.h"
#include "../base/file.h"
#include "../gguf/gguf.h"
#include <math.h>
#include <stdlib.h>

static const char about[] =
    "Prints a GGUF's header, its metadata, its tensors, and where its bytes go. With --tensor,\n"
    "the statistics and the first values of one tensor.";

enum { SHOWN = 8 }; /* elements of an array, values of a tensor */

/* ---- classes: spec 8.4's, by name ------------------------------------------- */

/* The first line whose part occurs in the name decides. */
static const struct {
    const char *part, *class;
} classes[] = {
    { "_exps.", "routed experts" },
    { "_shexp.", "shared experts" },
    { "token_embd.", "token embedding" },
    { "_norm.", "norms and sinks" },
    { "attn_sinks.", "norms and sinks" },
    { "hc_", "hyper-connections" },
    { "output.", "output head" },
    { "indexer", "indexers" },
    { "attn_compressor", "attention compressors" },
    { "ffn_gate_inp.", "router" },
    { "ffn_gate_tid2eid.", "router" },
    { "exp_probs_b", "router" },
    { "attn_", "attention projections" },
    { "", "other" },
};

static bool has(Str name, const char *part)
{
    size_t n = strlen(part);
    for (size_t i = 0; i + n <= name.n; i++) {
        if (memcmp(name.p + i, part, n) == 0)
            return true;
    }
    return false;
}

static const char *class_of(Str name)
{
    size_t i = 0;
    while (!has(name, classes[i].part))
        i++;
    return classes[i].class;
}

typedef struct {
    const char *name;
    uint64_t tensors, bytes;
} Class;

static size_t sum_classes(const Gguf *g, Class out[COUNT(classes)], uint64_t *total)
{
    size_t n = 0;
    *total = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const char *name = class_of(g->tensor[i].name);
        size_t c = 0;
        while (c < n && out[c].name != name && strcmp(out[c].name, name) != 0)
            c++;
        if (c == n)
            out[n++] = (Class){ .name = name };
        out[c].tensors++;
        out[c].bytes += g->tensor[i].bytes;
        *total += g->tensor[i].bytes;
    }
    return n;
}

static int by_bytes(const void *a, const void *b)
{
    const Class *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->name, y->name);
}

/* ---- metadata ---------------------------------------------------------------- */

/* One number, as JSON and as text. */
static void put_number(Bytes *b, const GgufKv *kv, uint64_t i)
{
    bool array = kv->type == GGUF_ARRAY;
    int type = array ? kv->elem : kv->type;
    int64_t v;
    double f;
    if (type == GGUF_BOOL) {
        bytes_str(b, kv->value.p[i] ? "true" : "false");
    } else if (array ? gguf_int_at(kv, i, &v) : gguf_int(kv, &v)) {
        bytes_printf(b, "%lld", (long long)v);
    } else if (type == GGUF_U64) { /* above INT64_MAX */
        uint64_t u = 0;
        for (size_t k = 8; k-- > 0;)
            u = u << 8 | (unsigned char)kv->value.p[8 * i + k];
        bytes_printf(b, "%llu", (unsigned long long)u);
    } else if (array ? gguf_float_at(kv, i, &f) : gguf_float(kv, &f)) {
        cli_json_num(b, f);
    } else {
        bytes_str(b, "null");
    }
}

/* The first elements; nested arrays are only counted. */
static void put_elements(Bytes *b, const GgufKv *kv, uint64_t most)
{
    uint64_t n = MIN(kv->count, most);
    size_t at = 0;
    Str s;
    for (uint64_t i = 0; i < n; i++) {
        bytes_str(b, i ? ", " : "");
        if (kv->elem == GGUF_STRING && gguf_next_str(kv, &at, &s))
            cli_json_str(b, s);
        else if (kv->elem != GGUF_ARRAY)
            put_number(b, kv, i);
        else
            bytes_str(b, "null");
    }
}

static void put_value(Bytes *b, const GgufKv *kv)
{
    if (kv->type == GGUF_STRING) {
        Str s = { kv->value.p, MIN(kv->value.n, (size_t)120) };
        cli_json_str(b, s);
        if (s.n < kv->value.n)
            bytes_printf(b, "... (%zu bytes)", kv->value.n);
    } else if (kv->type == GGUF_ARRAY) {
        uint64_t most = kv->count <= 64 && kv->elem != GGUF_STRING ? kv->count : SHOWN;
        bytes_byte(b, '[');
        put_elements(b, kv, most);
        bytes_printf(b, "%s] (%llu %s)", kv->count > most ? ", ..." : "",
                     (unsigned long long)kv->count, gguf_type_name(kv->elem));
    } else {
        put_number(b, kv, 0);
    }
}

static void put_kv_json(Bytes *b, const GgufKv *kv)
{
    cli_json_str(b, kv->key);
    bytes_printf(b, ":{\"type\":\"%s\",", gguf_type_name(kv->type));
    if (kv->type == GGUF_ARRAY)
        bytes_printf(b, "\"elements\":\"%s\",\"count\":%llu,", gguf_type_name(kv->elem),
                     (unsigned long long)kv->count);
    bytes_str(b, "\"value\":");
    if (kv->type == GGUF_ARRAY) {
        bytes_byte(b, '[');
        put_elements(b, kv, UINT64_MAX);
        bytes_byte(b, ']');
    } else if (kv->type == GGUF_STRING) {
        cli_json_str(b, kv->value);
    } else {
        put_number(b, kv, 0);
    }
    bytes_byte(b, '}');
}

/* ---- the whole file ------------------------------------------------------------ */

static void put_dims(Bytes *b, const GgufTensor *t, const char *between)
{
    for (int i = 0; i < t->n_dims; i++)
        bytes_printf(b, "%s%llu", i ? between : "", (unsigned long long)t->dims[i]);
}

/* A name of the file's, which may hold anything, on a terminal. */
static void put_name(Bytes *b, Str name, int width)
{
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        bytes_byte(b, c < 0x20 || c == 0x7f ? '?' : c);
    }
    if (name.n < (size_t)width)
        bytes_fill(b, ' ', (size_t)width - name.n);
}

static void put_text(Bytes *b, const Gguf *g)
{
    char size[16];
    Class class[COUNT(classes)];
    uint64_t total;
    size_t n = sum_classes(g, class, &total);
    qsort(class, n, sizeof *class, by_bytes);
    bytes_printf(b, "GGUF version %d, %llu bytes (%s), alignment %d\n", g->version,
                 (unsigned long long)g->file_bytes, cli_size(size, g->file_bytes), g->alignment);
    bytes_printf(b, "\n%zu metadata keys\n", g->n_kv);
    for (size_t i = 0; i < g->n_kv; i++) {
        bytes_str(b, "  ");
        put_name(b, g->kv[i].key, 48);
        bytes_byte(b, ' ');
        put_value(b, &g->kv[i]);
        bytes_byte(b, '\n');
    }
    bytes_printf(b, "\n%zu tensors, data at byte %llu\n", g->n_tensors,
                 (unsigned long long)g->data_offset);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const GgufTensor *t = &g->tensor[i];
        bytes_str(b, "  ");
        put_name(b, t->name, 40);
        bytes_printf(b, " %-8s %14llu  ", quant_name(t->type), (unsigned long long)t->bytes);
        put_dims(b, t, " x ");
        bytes_byte(b, '\n');
    }
    bytes_printf(b, "\n%-24s %8s %16s %8s\n", "class", "tensors", "bytes", "share");
    for (size_t i = 0; i < n; i++)
        bytes_printf(b, "%-24s %8llu %16llu %7.2f%%\n", class[i].name,
                     (unsigned long long)class[i].tensors, (unsigned long long)class[i].bytes,
                     total ? 100.0 * (double)class[i].bytes / (double)total : 0);
    bytes_printf(b, "%-24s %8zu %16llu  %s\n", "all", g->n_tensors, (unsigned long long)total,
                 cli_size(size, total));
}

static void put_tensor_json(Bytes *b, const GgufTensor *t)
{
    bytes_str(b, "{\"name\":");
    cli_json_str(b, t->name);
    bytes_printf(b, ",\"type\":\"%s\",\"type_id\":%d,\"dims\":[", quant_name(t->type), t->type);
    put_dims(b, t, ",");
    bytes_printf(b, "],\"offset\":%llu,\"bytes\":%llu}", (unsigned long long)t->offset,
                 (unsigned long long)t->bytes);
}

static void put_json(Bytes *b, const Gguf *g)
{
    Class class[COUNT(classes)];
    uint64_t total;
    size_t n = sum_classes(g, class, &total);
    qsort(class, n, sizeof *class, by_bytes);
    bytes_printf(b, "{\"version\":%d,\"alignment\":%d,\"file_bytes\":%llu,\"data_offset\":%llu,",
                 g->version, g->alignment, (unsigned long long)g->file_bytes,
                 (unsigned long long)g->data_offset);
    bytes_str(b, "\"metadata\":{");
    for (size_t i = 0; i < g->n_kv; i++) {
        bytes_str(b, i ? "," : "");
        put_kv_json(b, &g->kv[i]);
    }
    bytes_str(b, "},\"tensors\":[");
    for (size_t i = 0; i < g->n_tensors; i++) {
        bytes_str(b, i ? "," : "");
        put_tensor_json(b, &g->tensor[i]);
    }
    bytes_printf(b, "],\"tensor_bytes\":%llu,\"classes\":[", (unsigned long long)total);
    for (size_t i = 0; i < n; i++)
        bytes_printf(b, "%s{\"class\":\"%s\",\"tensors\":%llu,\"bytes\":%llu}", i ? "," : "",
                     class[i].name, (unsigned long long)class[i].tensors,
                     (unsigned long long)class[i].bytes);
    bytes_str(b, "]}\n");
}

/* ---- one tensor ----------------------------------------------------------------- */

typedef struct {
    uint64_t n, zeros, strange; /* strange: infinite or no number */
    double min, max, sum, squares, first[SHOWN];
} Stats;

static void add_value(Stats *s, double v)
{
    if (s->n < SHOWN)
        s->first[s->n] = v;
    s->n++;
    if (!isfinite(v)) {
        s->strange++;
        return;
    }
    s->zeros += v == 0;
    s->min = MIN(s->min, v);
    s->max = MAX(s->max, v);
    s->sum += v;
    s->squares += v * v;
}

static void add_integers(Stats *s, const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t v;
        memcpy(&v, p + 4 * i, 4);
        add_value(s, (double)v);
    }
}

/* Row by row, so that a tensor of gigabytes needs one row of memory. */
static bool measure(Stats *s, const GgufTensor *t, ds4_err *err)
{
    const QuantFormat *f = quant_format(t->type);
    if (!f)
        return fail(err, DS4_EFORMAT, "tensor %.*s has type %s (%d), which is not supported",
                    STR_ARG(t->name), quant_name(t->type), t->type);
    size_t part = (size_t)f->block_len * 1024, step = (size_t)f->block_bytes * 1024;
    float *row = calloc(part, sizeof *row);
    if (!row)
        return fail(err, DS4_ENOMEM, "no memory for a row of %zu values", part);
    *s = (Stats){ .min = INFINITY, .max = -INFINITY };
    for (uint64_t at = 0; at < t->bytes && !cli_interrupted(); at += step) {
        size_t blocks = (size_t)MIN(step, t->bytes - at) / (size_t)f->block_bytes;
        size_t n = blocks * (size_t)f->block_len;
        if (!f->decode)
            add_integers(s, t->data + at, n);
        else
            f->decode(row, t->data + at, n);
        for (size_t i = 0; f->decode && i < n; i++)
            add_value(s, (double)row[i]);
        cli_progress(NULL, "decoding", at, t->bytes);
    }
    cli_progress_end();
    free(row);
    return !cli_interrupted() || fail(err, DS4_ECANCELED, "interrupted");
}

static void put_stats(Bytes *b, const GgufTensor *t, const Stats *s, bool json)
{
    uint64_t finite = s->n - s->strange;
    double mean = finite ? s->sum / (double)finite : 0;
    double rms = finite ? sqrt(s->squares / (double)finite) : 0;
    const struct {
        const char *name;
        double v;
    } fields[] = {
        { "min", s->min },
        { "max", s->max },
        { "mean", mean },
        { "rms", rms },
    };
    if (json) {
        bytes_str(b, "{\"tensor\":");
        put_tensor_json(b, t);
        bytes_printf(b, ",\"values\":%llu,\"zeros\":%llu,\"not_finite\":%llu",
                     (unsigned long long)s->n, (unsigned long long)s->zeros,
                     (unsigned long long)s->strange);
    } else {
        put_name(b, t->name, 0);
        bytes_printf(b, "  %s  ", quant_name(t->type));
        put_dims(b, t, " x ");
        bytes_printf(b, "\n%-12s %llu\n%-12s %llu\n%-12s %llu\n", "values",
                     (unsigned long long)s->n, "zeros", (unsigned long long)s->zeros, "not finite",
                     (unsigned long long)s->strange);
    }
    for (size_t i = 0; i < COUNT(fields); i++) {
        bytes_printf(b, json ? ",\"%s\":" : "%-12s ", fields[i].name);
        cli_json_num(b, fields[i].v);
        bytes_str(b, json ? "" : "\n");
    }
    bytes_str(b, json ? ",\"first\":[" : "first        ");
    for (size_t i = 0; i < MIN(s->n, (uint64_t)SHOWN); i++) {
        bytes_str(b, i ? json ? "," : " " : "");
        cli_json_num(b, s->first[i]);
    }
    bytes_str(b, json ? "]}\n" : "\n");
}

static bool put_one(Bytes *b, const Gguf *g, const char *name, bool json, ds4_err *err)
{
    const GgufTensor *t = gguf_tensor(g, name);
    Stats s = { 0 };
    if (!t)
        return fail(err, DS4_EINVAL, "no tensor is called '%s'; ds4 inspect FILE lists all %zu",
                    name, g->n_tensors);
    if (!measure(&s, t, err))
        return false;
    put_stats(b, t, &s, json);
    return true;
}

/* ---- the command ------------------------------------------------------------------ */

int cmd_inspect(int argc, char **argv)
{
    const char *tensor = NULL, *path = NULL;
    bool json = false;
    ModelOptions m = { 0 };
    const Option options[] = {
        { OPT_FLAG, "--json", NULL, &json, "one JSON object, with all elements of arrays", 0, 0 },
        { OPT_STR, "--tensor", "NAME", &tensor, "statistics and first values of one tensor", 0, 0 },
        { OPT_STR, "-m, --model", "FILE", &m.engine.model, "the file, when it is no argument", 0,
          0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 inspect [options] [FILE]",
                          .about = about,
                          .tables = { options },
                          .max_args = 1 };
    int status = cli_parse(&usage, argc, argv, &path, NULL);
    if (status >= 0)
        return status;
    if (path && m.engine.model)
        return cli_usage_error("two files: %s and -m %s", path, m.engine.model);

    ds4_err err = { 0 };
    Map map = { 0 };
    Gguf g = { 0 };
    Bytes b = { 0 };
    m.engine.model = path ? path : m.engine.model;
    cli_catch_interrupt(NULL);
    bool ok = cli_model_path(&m, &err) && map_open(&map, m.engine.model, &err);
    if (ok && !gguf_parse(&g, map.p, map.n, &err)) {
        ds4_err inner = err;
        ok = fail(&err, inner.code, "%s: %s", m.engine.model, inner.msg);
    }
    if (ok && tensor)
        ok = put_one(&b, &g, tensor, json, &err);
    else if (ok && json)
        put_json(&b, &g);
    else if (ok)
        put_text(&b, &g);
    if (ok && b.failed)
        ok = fail(&err, DS4_ENOMEM, "no memory for the description of %s", m.engine.model);
    ok = ok && cli_out(b.p, b.n, &err);
    bytes_release(&b);
    gguf_release(&g);
    map_close(&map);
    return ok ? 0 : cli_fail(&err);
}
