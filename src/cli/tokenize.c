/* tokenize.c - ds4 tokenize: text to ids, and back. */
#include "tokens.h"
#include "../base/file.h"
#include "../json/json.h"
#include <json-c/json.h>

static const char about[] =
    "Prints the token ids of a text as a JSON array; with --decode, the text of such an array.\n"
    "The text is the argument, stdin when that is -, or a file. No begin token is added.";

static bool is_preview(const Gguf *g)
{
    Str name = { 0 }, mark = STR("0731");
    gguf_str(gguf_kv(g, "general.name"), &name);
    for (size_t i = 0; i + mark.n <= name.n; i++)
        if (memcmp(name.p + i, mark.p, mark.n) == 0)
            return false;
    return true;
}

ds4_vocab *tokens_open_vocab(ModelOptions *m, bool *preview, ds4_err *err)
{
    Map map = { 0 };
    Gguf g = { 0 };
    ds4_vocab *v = NULL;
    if (!cli_model_path(m, err) || !map_open(&map, m->engine.model, err))
        return NULL;
    if (!gguf_parse(&g, map.p, map.n, err) || !(v = vocab_load(&g, err))) {
        ds4_err inner = { 0 };
        if (err)
            inner = *err;
        fail(err, inner.code, "%s: %s", m->engine.model, inner.msg);
    }
    if (preview)
        *preview = is_preview(&g);
    gguf_release(&g);
    map_close(&map);
    return v;
}

bool tokens_print(const Tokens *t, ds4_err *err)
{
    Bytes b = { 0 };
    bytes_byte(&b, '[');
    for (size_t i = 0; i < t->n; i++)
        bytes_printf(&b, i ? ",%d" : "%d", t->id[i]);
    bytes_str(&b, "]\n");
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory to print %zu ids", t->n)
                       : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

static bool encode(const ds4_vocab *v, Str text, bool special, ds4_err *err)
{
    Tokens t = { 0 };
    bool ok = bpe_encode(v, text, special, &t, err) && tokens_print(&t, err);
    tokens_release(&t);
    return ok;
}

static bool decode_ids(const ds4_vocab *v, struct json_object *ids, Bytes *out, ds4_err *err)
{
    if (!json_object_is_type(ids, json_type_array))
        return fail(err, DS4_EINVAL, "expected a JSON array of ids");
    for (size_t i = 0; i < json_object_array_length(ids); i++) {
        struct json_object *o = json_object_array_get_idx(ids, i);
        int64_t id = json_object_get_int64(o);
        if (!json_object_is_type(o, json_type_int))
            return fail(err, DS4_EINVAL, "item %zu of the ids is no integer", i);
        if (id < 0 || id >= vocab_size(v))
            return fail(err, DS4_EINVAL, "item %zu of the ids is %lld, expected 0 to %d", i,
                        (long long)id, vocab_size(v) - 1);
        Str s = vocab_bytes(v, (int32_t)id);
        bytes_put(out, s.p, s.n);
    }
    return out->failed ? fail(err, DS4_ENOMEM, "no memory for the text") : true;
}

static bool decode(const ds4_vocab *v, Str text, ds4_err *err)
{
    Bytes out = { 0 };
    struct json_object *ids = json_read(text, err);
    bool ok = ids && decode_ids(v, ids, &out, err) && cli_out(out.p, out.n, err);
    json_object_put(ids);
    bytes_release(&out);
    return ok;
}

int cmd_tokenize(int argc, char **argv)
{
    ModelOptions m = { 0 };
    const char *file = NULL, *text = NULL;
    bool special = false, backward = false;
    const Option options[] = {
        { OPT_STR, "-m, --model", "FILE", &m.engine.model,
          "the GGUF; default: ./ds4flash.gguf, else the bundled tiny model", 0, 0 },
        { OPT_STR, "--file", "FILE", &file, "the text, or with --decode the ids, of a file", 0, 0 },
        { OPT_FLAG, "--special", NULL, &special, "recognise control tokens in the text", 0, 0 },
        { OPT_FLAG, "--decode", NULL, &backward, "ids to text", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 tokenize [options] TEXT|-",
                          .about = about,
                          .tables = { options },
                          .max_args = 1 };
    int status = cli_parse(&usage, argc, argv, &text, NULL);
    if (status >= 0)
        return status;
    if (!text == !file)
        return cli_usage_error(text ? "a text and --file: which?"
                                    : "no text: give one, - or --file");
    if (special && backward)
        return cli_usage_error("--special has no meaning with --decode");

    ds4_err err = { 0 };
    Bytes read = { 0 };
    bool from_file = file || strcmp(text, "-") == 0;
    ds4_vocab *v = NULL;
    bool ok = (!from_file || cli_read_text(&read, file ? file : "-", &err)) &&
              (v = tokens_open_vocab(&m, NULL, &err)) != NULL;
    Str s = from_file ? bytes_view(&read) : str_of(text);
    ok = ok && (backward ? decode(v, s, &err) : encode(v, s, special, &err));
    vocab_free(v);
    bytes_release(&read);
    return ok ? 0 : cli_fail(&err);
}
