/* script.c - the rules of a play: read, checked, matched.
 *
 * Texts of conditions stay in the parsed document; what is said becomes tokens
 * at once, so that a mistake shows when the file is opened. */
#include "script.h"
#include "../base/file.h"
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_FILE = 64 << 20 };

/* ---- what may be in the file ------------------------------------------------- */

typedef struct {
    const char *name;
    bool (*right)(const Json *o);
    const char *want;
} Member;

static bool is_speed(const Json *o)
{
    double x;
    return json_number(o, &x) && x >= 0 && x <= 1e12;
}

static bool is_count(const Json *o)
{
    uint64_t n;
    return json_whole(o, UINT32_MAX, &n);
}

static bool is_texts(const Json *o)
{
    bool ok = json_is_array(o);
    for (size_t i = 0; ok && i < json_length(o); i++)
        ok = json_is_text(json_at(o, i));
    return ok;
}

static const Member of_script[] = {
    { "prefill_tps", is_speed, "a number of at least 0" },
    { "decode_tps", is_speed, "a number of at least 0" },
    { "cut", is_count, "a whole number" },
    { "rules", json_is_array, "an array of rules" },
};

static const Member of_rule[] = {
    { "when", is_texts, "an array of texts" }, { "last", is_texts, "an array of texts" },
    { "not", is_texts, "an array of texts" },  { "times", is_count, "a whole number" },
    { "say", json_is_text, "a text" },         { "cut", is_count, "a whole number" },
};

static const Member *member_of(const Member *m, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(m[i].name, name))
            return &m[i];
    return NULL;
}

/* where: "rules[3]." or "". */
static bool check_members(const char *file, const char *where, Json *o, const Member *m, size_t n,
                          ds4_err *err)
{
    json_object_object_foreach(o, key, value)
    {
        const Member *k = member_of(m, n, key);
        if (!k)
            return fail(err, DS4_EINVAL, "%s: unknown member %s%s", file, where, key);
        if (!k->right(value))
            return fail(err, DS4_EINVAL, "%s: %s%s must be %s", file, where, key, k->want);
    }
    return true;
}

/* ---- reading ------------------------------------------------------------------ */

static size_t next_control(const ds4_vocab *v, Str text, size_t at)
{
    while (at < text.n && vocab_special_at(v, text, at) < 0)
        at++;
    return at;
}

/* Tokens that end after every so many bytes of what is between control tokens. */
static bool encode_cut(const ds4_vocab *v, Str text, size_t cut, Tokens *out, ds4_err *err)
{
    bool ok = true;
    for (size_t i = 0; i < text.n && ok;) {
        const size_t end = next_control(v, text, i);
        for (; i < end && ok; i += MIN(cut, end - i))
            ok = bpe_encode(v, (Str){ text.p + i, MIN(cut, end - i) }, false, out, err);
        if (end < text.n && ok) {
            const int32_t control = vocab_special_at(v, text, end);
            tokens_put(out, control);
            i = end + vocab_bytes(v, control).n;
        }
    }
    return ok;
}

/* cut 0: as the tokenizer would. */
static bool encode(const ds4_vocab *v, Str text, size_t cut, Tokens *out, ds4_err *err)
{
    if (!(cut ? encode_cut(v, text, cut, out, err) : bpe_encode(v, text, true, out, err)))
        return false;
    tokens_put(out, vocab_controls(v)->eos);
    return !out->failed || fail(err, DS4_ENOMEM, "no memory for a text of %zu bytes", text.n);
}

static bool read_rule(Rule *r, const char *file, size_t i, Json *o, uint64_t cut,
                      const ds4_vocab *v, ds4_err *err)
{
    char where[40];
    const Json *say = json_member(o, "say");

    snprintf(where, sizeof where, "rules[%zu]", i);
    if (!json_is_object(o))
        return fail(err, DS4_EINVAL, "%s: %s must be an object", file, where);
    strcat(where, ".");
    if (!check_members(file, where, o, of_rule, COUNT(of_rule), err))
        return false;
    if (!say)
        return fail(err, DS4_EINVAL, "%s: %ssay is missing", file, where);
    json_whole(json_member(o, "times"), UINT32_MAX, &r->times);
    r->when = json_member(o, "when");
    r->last = json_member(o, "last");
    r->none = json_member(o, "not");
    json_whole(json_member(o, "cut"), UINT32_MAX, &cut);
    return encode(v, json_text(say), cut, &r->say, err);
}

static bool read_document(Script *s, const char *file, ds4_err *err)
{
    Bytes text = { 0 };
    ds4_err inner = { 0 };
    bool ok = file_read(&text, file, MAX_FILE, err);

    if (ok && !(s->document = json_read(bytes_view(&text), &inner)))
        ok = fail(err, inner.code, "%s: %s", file, inner.msg);
    bytes_release(&text);
    if (ok && !json_is_object(s->document))
        return fail(err, DS4_EINVAL, "%s: the document must be an object", file);
    return ok && check_members(file, "", s->document, of_script, COUNT(of_script), err);
}

static bool read_rules(Script *s, const char *file, const ds4_vocab *v, ds4_err *err)
{
    const Json *rules = json_member(s->document, "rules");
    const size_t n = json_length(rules);
    uint64_t cut = 0;

    json_whole(json_member(s->document, "cut"), UINT32_MAX, &cut);
    s->rule = calloc(n + 1, sizeof *s->rule);
    if (!s->rule)
        return fail(err, DS4_ENOMEM, "%s: no memory for %zu rules", file, n);
    s->n = n + 1;
    for (size_t i = 0; i < n; i++)
        if (!read_rule(&s->rule[i], file, i, json_at(rules, i), cut, v, err))
            return false;
    return encode(v, STR("[play: no rule matches]"), 0, &s->rule[n].say, err);
}

bool script_init(Script *s, const char *file, const ds4_vocab *v, ds4_err *err)
{
    *s = (Script){ 0 };
    if (vocab_controls(v)->eos < 0)
        return fail(err, DS4_EINVAL, "%s: this vocabulary has no end-of-sentence token", file);
    bool ok = read_document(s, file, err) && read_rules(s, file, v, err);
    if (ok) {
        json_number(json_member(s->document, "prefill_tps"), &s->prefill_tps);
        json_number(json_member(s->document, "decode_tps"), &s->decode_tps);
    } else {
        script_release(s);
    }
    return ok;
}

void script_release(Script *s)
{
    for (size_t i = 0; i < s->n; i++)
        tokens_release(&s->rule[i].say);
    free(s->rule);
    json_free(s->document);
    *s = (Script){ 0 };
}

/* ---- matching ----------------------------------------------------------------- */

static size_t count_found(const Json *texts, Str in)
{
    size_t found = 0;
    for (size_t i = 0; i < json_length(texts); i++) {
        const Str t = json_text(json_at(texts, i));
        found += !t.n || (in.n && memmem(in.p, in.n, t.p, t.n) != NULL);
    }
    return found;
}

static bool matches(const Rule *r, Str prompt, Str last)
{
    return (!r->times || r->used < r->times) &&
           count_found(r->when, prompt) == json_length(r->when) &&
           count_found(r->last, last) == json_length(r->last) && !count_found(r->none, last);
}

const Tokens *script_answer(Script *s, Str prompt, Str last)
{
    size_t i = 0;
    while (i + 1 < s->n && !matches(&s->rule[i], prompt, last))
        i++;
    s->rule[i].used++;
    return &s->rule[i].say;
}
